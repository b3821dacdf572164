//! Checkpoints: when the state of a training is written, and what a later run takes up again.
//!
//! What is kept is state after committed steps only, so a run that goes on from it has the bits of one that was never stopped. State that
//! all ranks have alike is written once; what belongs to rows or lanes is written by the rank that has them, under their global numbers,
//! and read by whoever has them next. When to write is decided on reduced values. The interval grows where writing is slow: Mohan,
//! Phanishayee, Chidambaram, *CheckFreq*, FAST 2021.

use super::Observer;
use crate::comm::Communicator;
use crate::error::{Error, InContext, Result};
use crate::faults::{self, Point};
use crate::guard::stop::{self, Cause};
use crate::store::checkpoint::{self as disk, Manifest, Written};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    Time(Duration),
    Steps(u64),
}

/// What a run begins from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// The newest checkpoint that is whole, if there is one.
    #[default]
    Auto,
    Never,
    /// Of a training with parts, such as folds, each has checkpoints in a folder of its own below that of the whole. Given a folder of
    /// all, such as a copy, each goes on from the newest of its own there or where it keeps them itself. Given one checkpoint, the part that it is of takes it and
    /// no other, and the others the newest of theirs where they keep them.
    From(PathBuf),
}

/// Where and when state is kept. None of it changes the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointConfig {
    pub folder: PathBuf,
    /// Default: 5 minutes.
    pub every: Every,
    /// Checkpoints that are left. Default 2.
    pub keep: usize,
    pub resume: Resume,
    /// When the run will be killed, from when it begins to keep its state. None: when the batch job ends, if there is one.
    pub limit: Option<Duration>,
}

/// The share of the time that checkpoints may take, unless a number of steps was asked for.
const SHARE: f64 = 0.02;
/// Between two looks at clock and signals.
const LOOK: Duration = Duration::from_millis(200);
/// How long a run that is on its way out is waited for. Servers keep the locks of nodes that have died for a minute and a half.
const FORMER: Duration = Duration::from_secs(120);
/// What is left of the time limit for the way out.
const MARGIN: Duration = Duration::from_secs(3);

/// Where one part of a training keeps its state; nowhere by default. Not collective to make.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    of: Option<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    config: Rc<CheckpointConfig>,
    folder: PathBuf,
    /// Of the settings of the whole training, whatever its parts have.
    job: blake3::Hash,
    deadline: Option<Instant>,
}

impl Keeper {
    /// Whether anything is kept. Not collective.
    pub fn keeps(&self) -> bool {
        self.of.is_some()
    }

    /// * `settings`: of the whole training.
    pub fn new(config: CheckpointConfig, settings: &impl Serialize) -> Result<Keeper> {
        let settings = serde_json::to_vec(settings).map_err(|e| Error::internal(e.to_string()))?;
        let (folder, job) = (config.folder.clone(), blake3::hash(&settings));
        let deadline = stop::deadline(config.limit);
        Ok(Keeper { of: Some(Place { config: Rc::new(config), folder, job, deadline }) })
    }

    /// That of a part with a state of its own, such as a fold.
    pub fn part(&self, name: &str) -> Keeper {
        Keeper { of: self.of.as_ref().map(|of| Place { folder: of.folder.join(name), ..of.clone() }) }
    }

    /// The right to keep this training's state, as long as what is returned lives. For one rank, before any of them [opens](Self::open)
    /// a session. Not collective.
    ///
    /// * `input`: what its settings do not say, such as names of files.
    ///
    /// # Errors
    /// `Comm`: another run has it.
    pub fn claim(&self, input: &impl Serialize) -> Result<Option<File>> {
        let input = serde_json::to_vec(input).map_err(|e| Error::internal(e.to_string()))?;
        let claim = |of: &Place| {
            let name = Key(blake3::Hasher::new()).and(of.job.as_bytes()).and(&input).hex();
            disk::claim(&of.config.folder, &name, FORMER)
        };
        self.of.as_ref().map_or(Ok(None), claim)
    }

    /// Whether what is to be resumed by name is there and of this training, as far as can be known without its input. Looks at the
    /// files. Not collective.
    ///
    /// # Errors
    /// `Usage`: it is not.
    pub fn check_resume(&self) -> Result<()> {
        let Some(Place { config, job, .. }) = &self.of else { return Ok(()) };
        let Resume::From(path) = &config.resume else { return Ok(()) };
        let job = job.to_hex();
        let wrong = match disk::is_step(path) {
            _ if !path.exists() => Error::usage("there is no such folder").at(format!("'{}'", path.display())),
            true => match disk::any_manifest(path) {
                Ok(found) if found.job == job.as_str() => return Ok(()),
                Ok(_) => Error::usage("is of a training with other settings; give the same words as then").at(path.display().to_string()),
                Err(error) => Error::usage(error.to_string()),
            },
            false if disk::has_step_of(path, &job) => return Ok(()),
            false => Error::usage("holds no checkpoint of a training with these settings; name one, or the folder that --checkpoint named then")
                .at(path.display().to_string()),
        };
        Err(wrong).for_flag("--resume")
    }

    /// Begins to keep the state of a training. *Collective.*
    ///
    /// * `key`: of all that can change the training: checkpoints of another key are left alone.
    ///
    /// # Errors
    /// `Data`: the folder cannot be made, or the checkpoint that was asked for is not whole or of another training.
    pub fn open(&self, comm: &Communicator, key: Key, watch: &mut dyn Observer) -> Result<Session> {
        let Some(Place { config, folder, job, deadline }) = &self.of else { return Ok(Session::default()) };
        let mut kept = Kept {
            config: config.clone(),
            folder: folder.clone(),
            key: key.and(job.as_bytes()).hex(),
            job: job.to_hex().to_string(),
            part: part_of(&config.folder, folder),
            deadline: *deadline,
            found: None,
            looked: Instant::now(),
            looked_at: 0,
            next_look: 0,
            saved: Instant::now(),
            cost: Duration::ZERO,
        };
        let made = match comm.is_root() {
            true => std::fs::create_dir_all(folder)
                .map(|()| disk::sweep(folder, &kept.key))
                .map_err(|e| Error::data(format!("cannot make the folder of checkpoints: {e}")))
                .in_file(folder),
            false => Ok(()),
        };
        comm.agree(made)?;
        kept.find(comm, watch)?;
        if let Some((manifest, folder)) = &kept.found {
            kept.looked_at = manifest.step;
            watch.resumed(manifest.step, folder);
        }
        Ok(Session { kept: Some(kept) })
    }
}

/// An observer that brings a keeper along.
pub struct Keeping<'a> {
    pub observer: &'a mut dyn Observer,
    pub keeper: Keeper,
}

impl Observer for Keeping<'_> {
    fn progress(&mut self, progress: &super::Progress) {
        self.observer.progress(progress);
    }

    fn warning(&mut self, message: &str) {
        self.observer.warning(message);
    }

    fn resumed(&mut self, step: u64, folder: &Path) {
        self.observer.resumed(step, folder);
    }

    fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }
}

/// All that can change a training: its settings and its input.
pub struct Key(blake3::Hasher);

impl Key {
    /// * `settings`: of the part; whatever of them can change its state.
    pub fn new(settings: &impl Serialize, n_rows: u64, input_digest: &str) -> Result<Key> {
        let settings = serde_json::to_vec(settings).map_err(|e| Error::internal(e.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(settings.len() as u64).to_le_bytes()).update(&settings);
        hasher.update(&n_rows.to_le_bytes()).update(input_digest.as_bytes());
        Ok(Key(hasher))
    }

    /// Adds something else that it hangs on.
    pub fn and(mut self, what: &[u8]) -> Key {
        self.0.update(&(what.len() as u64).to_le_bytes()).update(what);
        self
    }

    fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// State that belongs to items of which each rank has a run: rows or lanes.
#[derive(Default)]
pub struct Items<'a> {
    /// Global numbers of those here.
    pub range: Range<u64>,
    /// As many for each of them.
    pub numbers: Cow<'a, [f64]>,
}

/// The keeping of one training under way.
#[derive(Default)]
pub struct Session {
    kept: Option<Kept>,
}

struct Kept {
    config: Rc<CheckpointConfig>,
    folder: PathBuf,
    key: String,
    job: String,
    /// Empty: there is nothing more to be trained when it is done.
    part: String,
    deadline: Option<Instant>,
    found: Option<(Manifest, PathBuf)>,
    looked: Instant,
    looked_at: u64,
    next_look: u64,
    saved: Instant,
    /// Of the last checkpoint, on the slowest rank.
    cost: Duration,
}

impl Session {
    /// The step that is taken up, 0 from the beginning. The same on all ranks.
    pub fn resumed_step(&self) -> u64 {
        self.kept.as_ref().and_then(|kept| kept.found.as_ref()).map_or(0, |found| found.0.step)
    }

    /// Whether state is kept at all.
    pub fn is_on(&self) -> bool {
        self.kept.is_some()
    }

    /// The next step after `step` that has to be kept, where so many steps were asked for. The same on all ranks.
    pub fn next_due(&self, step: u64) -> u64 {
        match self.kept.as_ref().map(|kept| kept.config.every) {
            Some(Every::Steps(every)) => (step / every + 1) * every,
            _ => u64::MAX,
        }
    }

    /// Whether [`after`](Self::after) may write the state after this step. The same on all ranks.
    pub fn may_keep(&self, step: u64, is_last: bool) -> bool {
        self.kept.as_ref().is_some_and(|kept| is_last || step >= kept.next_look)
    }

    /// What a run before this one kept: the common state, and the numbers of `items`, in their order. *Collective.*
    ///
    /// * `of_item`: numbers of each item; 0 where there are none.
    ///
    /// # Errors
    /// `Data`: files that have changed since they were looked at.
    pub fn take<S: DeserializeOwned>(
        &mut self,
        comm: &Communicator,
        items: Range<u64>,
        of_item: usize,
    ) -> Result<Option<(S, Vec<f64>)>> {
        let Some((manifest, folder)) = self.kept.as_ref().and_then(|kept| kept.found.as_ref()) else { return Ok(None) };
        let read = || -> Result<(S, Vec<f64>)> {
            let state = disk::read(folder, &manifest.state, 0..u64::MAX)?;
            let state = postcard::from_bytes(&state)
                .map_err(|e| Error::data(format!("is not the state of this training: {e}")))
                .in_file(folder)?;
            Ok((state, items_of(folder, manifest, items, of_item)?))
        };
        comm.agree(read()).map(Some)
    }

    /// Says that a step was committed; writes its state if it is time to. *Collective.*
    ///
    /// * `step`: steps so far, greater each time.
    /// * `is_last`: nothing follows. Then only the state of a part is written.
    /// * `state`: what all ranks have alike, and what this rank has of its own; called on all ranks or on none, so that it may be collective.
    ///
    /// # Errors
    /// `Interrupted`, once the state is written: this run was told to stop. `Data`: it could not be written.
    pub fn after<'a, S: Serialize>(
        &mut self,
        comm: &Communicator,
        step: u64,
        is_last: bool,
        state: impl FnOnce() -> Result<(S, Items<'a>)>,
    ) -> Result<()> {
        let Some(kept) = self.kept.as_mut() else { return Ok(()) };
        faults::at(Point::Step);
        // The end of the whole is the model; that of a part is there for whoever goes on with the others.
        let ends_part = is_last && !kept.part.is_empty();
        if !ends_part && (is_last || step < kept.next_look) {
            return Ok(());
        }
        let look = kept.look(comm, step)?;
        if !look.is_due && look.stop.is_none() && !ends_part {
            return Ok(());
        }
        let (state, items) = state()?;
        if let Err(error) = kept.save(comm, step, &state, &items) {
            if comm.is_root() {
                // A full disk has better uses for it. The error is on its way already.
                let _ = std::fs::remove_dir_all(disk::partial_of(&kept.folder, step, &kept.key));
            }
            return Err(error);
        }
        let Some(cause) = look.stop else { return Ok(()) };
        if cause == Cause::Interrupt {
            // The first rank that leaves makes launchers end the others: that is no wish to begin again.
            stop::over();
        }
        if comm.is_root() {
            mark(&kept.config.folder, cause);
        }
        let how = match &kept.config.resume {
            Resume::Auto => "",
            Resume::From(path) if !disk::is_step(path) => "",
            _ => " with --resume auto",
        };
        let stopped = || {
            Error::interrupted(format!(
                "stopped by {} after step {step}, which is kept in '{}'; the same command{how} goes on from there",
                cause.name(),
                kept.folder.display()
            ))
        };
        comm.agree(if comm.is_root() { Err(stopped()) } else { Ok(()) })
    }
}

/// The file by which batch scripts know that the run is to be started again.
pub fn marker_of(folder: &Path) -> PathBuf {
    folder.join("requeue")
}

/// The state is kept by now: what goes wrong here is said, and no failure.
fn mark(folder: &Path, cause: Cause) {
    let path = marker_of(folder);
    if cause == Cause::Interrupt {
        let _ = std::fs::remove_file(path); // of a signal before; that it is not there is fine
        return;
    }
    let made = faults::before(Point::Marker);
    if let Err(e) = made.and_then(|()| std::fs::write(&path, b"stopped: start the same command again\n")) {
        eprintln!("consort: warning: {}: cannot be written: {e}", path.display());
    }
}

/// What may be gone on from, the best first.
#[derive(Default, Serialize, Deserialize)]
struct Candidates {
    folders: Vec<PathBuf>,
    /// That one was asked for: if it is not whole the run does not begin.
    is_bound: bool,
}

/// The part whose folder this is.
fn part_of(whole: &Path, folder: &Path) -> String {
    folder.strip_prefix(whole).unwrap_or(folder).to_string_lossy().into_owned()
}

/// What was seen at a look; the same on all ranks.
struct Look {
    is_due: bool,
    stop: Option<Cause>,
}

impl Kept {
    /// Finds what to go on from: the newest checkpoint that is whole. Collective.
    fn find(&mut self, comm: &Communicator, watch: &mut dyn Observer) -> Result<()> {
        if self.config.resume == Resume::Never {
            return Ok(());
        }
        // Files are looked at by all ranks: the list is that of one.
        let lost = |e: postcard::Error| Error::internal(format!("names of checkpoints: {e}"));
        let looked = if comm.is_root() { self.candidates(watch) } else { Ok(Candidates::default()) };
        let mut bytes = comm.agree(looked.and_then(|found| postcard::to_allocvec(&found).map_err(lost)))?;
        comm.broadcast_vec(&mut bytes, 0)?;
        let Candidates { folders, is_bound } = comm.agree(postcard::from_bytes(&bytes).map_err(lost))?;
        for folder in folders {
            let rank = comm.rank();
            let checked = || -> Result<Manifest> {
                let manifest = disk::manifest(&folder, &self.key)?;
                let files = std::iter::once(&manifest.state).chain(&manifest.items);
                for file in files.enumerate().filter(|(i, _)| i % comm.size() == rank).map(|(_, file)| file) {
                    disk::read(&folder, file, 0..0)?;
                }
                Ok(manifest)
            };
            match comm.agree(checked()) {
                Ok(manifest) => {
                    self.found = Some((manifest, folder));
                    return Ok(());
                }
                Err(error) if is_bound => return Err(error).for_flag("--resume"),
                Err(error) => watch.warning(&format!("a checkpoint is passed over: {error}")),
            }
        }
        Ok(())
    }

    /// Looks at the files. Not collective.
    fn candidates(&self, watch: &mut dyn Observer) -> Result<Candidates> {
        let mut folder = self.folder.clone();
        let mut folders = disk::steps(&folder, &self.key);
        if let Resume::From(path) = &self.config.resume {
            if !disk::is_step(path) {
                folder = path.join(&self.part);
                folders.extend(disk::steps(&folder, &self.key));
                // The newest first; of the same step the own one.
                folders.sort_by(|a, b| b.file_name().cmp(&a.file_name()));
            } else if disk::any_manifest(path).map_or(true, |found| found.part == self.part) {
                return Ok(Candidates { folders: vec![path.clone()], is_bound: true });
            }
        }
        let n_foreign = if folders.is_empty() { disk::n_foreign(&folder, &self.key) } else { 0 };
        if n_foreign > 0 {
            watch.warning(&format!(
                "'{}' holds {n_foreign} checkpoints of trainings with other settings or another input: they are left alone, and this one begins anew",
                folder.display()
            ));
        }
        Ok(Candidates { folders, is_bound: false })
    }

    /// Clock and signals of all ranks. Collective.
    fn look(&mut self, comm: &Communicator, step: u64) -> Result<Look> {
        let now = Instant::now();
        let n_steps = step.saturating_sub(self.looked_at).max(1);
        let of_step = now.duration_since(self.looked).as_nanos() as u64 / n_steps;
        let interval = match self.config.every {
            Every::Time(time) => time.max(self.cost.div_f64(SHARE)),
            Every::Steps(_) => Duration::MAX,
        };
        let mut seen = [
            i64::from(now.duration_since(self.saved) >= interval),
            stop::requested().map_or(0, |cause| cause as i64),
            of_step as i64,
        ];
        comm.all_reduce_max(&mut seen)?;
        let of_step = Duration::from_nanos(seen[2] as u64);
        let stride = (LOOK.as_nanos() / of_step.as_nanos().max(1)).clamp(1, 1 << 20) as u64;
        // What happens before the next look, and then a checkpoint, which may take longer than the last one.
        let wanted = of_step.saturating_mul(stride as u32 + 1) + self.cost * 2 + MARGIN;
        let mut is_late = [i64::from(self.deadline.is_some_and(|end| end < now + wanted))];
        comm.all_reduce_max(&mut is_late)?;
        (self.looked, self.looked_at, self.next_look) = (now, step, step + stride);
        let mut is_due = seen[0] == 1;
        if let Every::Steps(every) = self.config.every {
            is_due = step.is_multiple_of(every);
            self.next_look = self.next_look.min((step / every + 1) * every);
        }
        let stop = Cause::from_code(seen[1] as u8).or((is_late[0] == 1).then_some(Cause::TimeLimit));
        Ok(Look { is_due, stop })
    }

    /// Writes one checkpoint and removes old ones. Collective.
    fn save(&mut self, comm: &Communicator, step: u64, state: &impl Serialize, items: &Items<'_>) -> Result<()> {
        let began = Instant::now();
        let partial = disk::partial_of(&self.folder, step, &self.key);
        comm.agree(if comm.is_root() { disk::make_folder(&partial) } else { Ok(()) })?;
        let write = || -> Result<Vec<Written>> {
            let mut written = Vec::new();
            if comm.is_root() {
                let state = postcard::to_allocvec(state).map_err(|e| Error::internal(e.to_string()))?;
                written.push(disk::write(&partial, "state".to_string(), &state)?);
            }
            if !items.range.is_empty() {
                let name = format!("items-{}", items.range.start);
                written.push(disk::write_numbers(&partial, name, items.range.clone(), &items.numbers)?);
            }
            Ok(written)
        };
        let written = comm.agree(write())?;
        let lost = |e: postcard::Error| Error::internal(format!("what was written of a checkpoint: {e}"));
        let bytes = comm.agree(postcard::to_allocvec(&written).map_err(lost))?;
        let gathered = comm.all_gather_bytes(&bytes)?;
        let complete = || -> Result<()> {
            let mut all = Vec::new();
            for rank in 0..comm.size() {
                all.extend(postcard::from_bytes::<Vec<Written>>(gathered.of_rank(rank)).map_err(lost)?);
            }
            let state = all.remove(0);
            disk::complete(&self.folder, &Manifest::new([&self.key, &self.job, &self.part], step, state, all))?;
            disk::prune(&self.folder, &self.key, step, self.config.keep);
            Ok(())
        };
        comm.agree(if comm.is_root() { complete() } else { Ok(()) })?;
        let mut cost = [began.elapsed().as_nanos() as i64];
        comm.all_reduce_max(&mut cost)?;
        (self.cost, self.saved) = (Duration::from_nanos(cost[0] as u64), Instant::now());
        Ok(())
    }
}

/// The numbers of some items, from the files of the ranks that had them.
fn items_of(folder: &Path, manifest: &Manifest, items: Range<u64>, of_item: usize) -> Result<Vec<f64>> {
    let mut numbers = Vec::with_capacity((items.end - items.start) as usize * of_item);
    let item_bytes = 8 * of_item as u64;
    let mut next = items.start;
    for file in &manifest.items {
        let end = file.first + file.items;
        if next >= items.end || end <= next || file.first > next {
            continue;
        }
        if file.bytes != file.items * item_bytes {
            return Err(Error::data("holds items of another size")).in_file(folder.join(&file.name));
        }
        let last = end.min(items.end);
        let bytes = disk::read(folder, file, (next - file.first) * item_bytes..(last - file.first) * item_bytes)?;
        numbers.extend(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)));
        next = last;
    }
    match next >= items.end {
        true => Ok(numbers),
        false => Err(Error::data(format!("lacks the items {next} to {}", items.end - 1))).in_file(folder),
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
