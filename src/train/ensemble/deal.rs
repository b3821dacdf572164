//! Tasks are dealt to groups of ranks, the longest first; a group that is done takes the next one.
//!
//! Rank 0 holds the queue. The first rank of every group asks it for the next task when it begins one, and rank 0 answers between its
//! own tasks and whenever the trainer of its own task tells of progress: the answer is there before it is needed, unless rank 0 trains
//! in one long step. Which group did what, and when, is left to the clock; what a task makes does not depend on it.

use super::super::checkpoint::Keeper;
use super::super::{Model, Observer, Progress, TrainConfig, TrainReport};
use crate::comm::Communicator;
use crate::config::{BoostConfig, Solver};
use crate::data::names::Inputs;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ModelFile, model};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One thing to be trained by one group of ranks.
#[derive(Clone, Debug)]
pub struct Task {
    /// For people.
    pub name: String,
    /// How long it takes, in any unit.
    pub cost: u64,
}

/// A task's place in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskTime {
    pub name: String,
    /// The first rank of its group, and how many there are.
    pub first_rank: usize,
    pub ranks: usize,
    /// Seconds since the tasks were dealt.
    pub start_s: f64,
    pub end_s: f64,
}

/// What came of a task.
#[derive(Clone, Debug)]
pub struct Made {
    pub model: Model,
    pub loss: f64,
    pub converged: bool,
}

/// What came of all tasks; the same on every rank.
pub struct Dealt {
    /// In the order of the tasks. Errors: tasks that could not be done with their data or settings.
    pub made: Vec<Result<Made>>,
    /// Likewise.
    pub timeline: Vec<TaskTime>,
    /// Seconds of reading, of the rank that read longest.
    pub read_s: f64,
}

/// A task's outcome on its way to all ranks.
#[derive(Serialize, Deserialize)]
struct Parcel {
    task: usize,
    time: TaskTime,
    read_s: f64,
    warnings: Vec<String>,
    /// A failure: its kind, its words, and whether the member is only left out.
    made: std::result::Result<(ModelFile, f64, bool), (i32, String, bool)>,
    /// The rank whose own failure it is; 0 where it is that of all alike.
    failed_on: usize,
}

/// The first rank of a group that begins a task asks for the one after it, and says when it is idle; rank 0 answers, once for both, with a
/// place in the queue.
const ASK: u32 = 21;
const IDLE: u32 = 23;
const ANSWER: u32 = 22;
/// Nothing is left.
const NONE: u64 = u64::MAX;
/// Between two looks at the mail.
const POLL: Duration = Duration::from_millis(5);

/// Does a task, by its number, with the ranks of a communicator.
pub type Run<'r> = dyn FnMut(&Communicator, usize, &mut dyn Observer) -> Result<(Model, TrainReport)> + 'r;

/// Does what every task asks for. *Collective.*
///
/// * `alone`: one rank of each group does its tasks, and the others wait.
/// * `run`: collective in the communicator that it gets.
///
/// Errors: what ends the job whatever a task is, such as a peer that was lost.
pub fn deal(
    comm: &Communicator,
    tasks: &[Task],
    alone: bool,
    watch: &mut dyn Observer,
    run: &mut Run<'_>,
) -> Result<Dealt> {
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by_key(|&task| (std::cmp::Reverse(tasks[task].cost), task));
    let n_groups = comm.size().min(tasks.len()).max(1);
    // The first groups, which have the longest tasks, get the ranks that are left over.
    let first_rank = |group: usize| (group * comm.size()).div_ceil(n_groups);
    let group = (0..n_groups).rev().find(|&group| first_rank(group) <= comm.rank()).unwrap_or(0);
    let ranks = first_rank(group + 1) - first_rank(group);
    let of_group = comm.split(group as u32)?;
    let of_rank = if alone { Some(of_group.split(of_group.rank() as u32)?) } else { None };
    comm.barrier()?;

    let began = Instant::now();
    let leaders = (1..n_groups).map(|group| (first_rank(group), Asked::No)).collect();
    let mut queue = Queue {
        comm,
        leaders,
        n_groups: n_groups as u64,
        next: n_groups as u64,
        n_tasks: tasks.len() as u64,
        looked: began,
    };
    let mut parcels = Vec::new();
    // Why no further task is begun.
    let mut stopped: Option<Error> = None;
    let mut at = if group < tasks.len() { group as u64 } else { NONE };
    while at != NONE {
        if of_group.is_root() && !comm.is_root() {
            comm.send(&[at], 0, ASK)?;
        }
        let task = order[at as usize];
        let start_s = began.elapsed().as_secs_f64();
        let keeper = watch.keeper().part(&format!("task-{task}"));
        let queue_here = comm.is_root().then_some(&mut queue);
        let mut listener = Listener { queue: queue_here, warnings: Vec::new(), failure: None, keeper };
        let run = &mut |group: &Communicator, task: usize, listener: &mut Listener<'_, '_>| match &stopped {
            // The others are told at the end.
            Some(error) => Err(Error::clone(error)),
            None => run(group, task, listener),
        };
        let made = match &of_rank {
            Some(one) if of_group.is_root() => run(one, task, &mut listener).map(Some),
            Some(_) => Ok(None),
            None => run(&of_group, task, &mut listener).map(Some),
        };
        let is_left_out = made.as_ref().err().is_some_and(is_of_data);
        let made = of_group.agree(made);
        let Listener { warnings, failure, .. } = listener;
        if let Err(error) = &made
            && error.kind() == ErrorKind::Interrupted
        {
            stopped.get_or_insert_with(|| error.clone());
        }
        failure.map_or(Ok(()), Err)?;
        let end_s = began.elapsed().as_secs_f64();
        if let Err(error) = &made
            && error.kind() == ErrorKind::Comm
        {
            return made.map(|_| unreachable!("an error"));
        }
        if of_group.is_root() {
            let time = TaskTime {
                name: tasks[task].name.clone(),
                first_rank: comm.rank(),
                ranks: if alone { 1 } else { ranks },
                start_s,
                end_s,
            };
            parcels.push(pack(task, time, warnings, made, is_left_out));
        }
        let mut next = [NONE];
        if comm.is_root() {
            queue.answer()?;
            next = [queue.take()];
            let done = queue.next.min(queue.n_tasks).saturating_sub(n_groups as u64);
            watch.progress(&Progress {
                step: done,
                of_steps: queue.n_tasks,
                loss: parcels.last().map_or(f64::NAN, Parcel::loss),
                gradient: None,
                learning_rate: None,
            });
        } else if of_group.is_root() {
            comm.send(&[at], 0, IDLE)?;
            comm.recv(&mut next, 0, ANSWER)?;
        }
        of_group.broadcast(&mut next, 0)?;
        at = next[0];
    }
    if comm.is_root() {
        queue.close()?;
    }
    share(comm, tasks, parcels, watch)
}

/// What the first rank of a group has said since it began its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    /// It asked, and is answered when it is idle.
    Held,
    /// It has its answer.
    Answered,
}

/// The places of the queue that are left; of rank 0.
struct Queue<'a> {
    comm: &'a Communicator,
    /// First ranks of the other groups, which have not been told that nothing is left.
    leaders: BTreeMap<usize, Asked>,
    n_groups: u64,
    next: u64,
    n_tasks: u64,
    looked: Instant,
}

impl Queue<'_> {
    fn take(&mut self) -> u64 {
        let taken = if self.next < self.n_tasks { self.next } else { NONE };
        self.next = (self.next + 1).min(self.n_tasks);
        taken
    }

    /// An answer that is there before it is wanted keeps a group busy whatever rank 0 does; but the last tasks are for those who are idle
    /// first.
    fn was_asked(&mut self, leader: usize) -> Result<()> {
        let is_ahead = self.n_tasks - self.next >= self.n_groups;
        if is_ahead {
            let answer = self.take();
            self.comm.send(&[answer], leader, ANSWER)?;
        }
        self.leaders.insert(leader, if is_ahead { Asked::Answered } else { Asked::Held });
        Ok(())
    }

    fn is_idle(&mut self, leader: usize, asked: Asked) -> Result<()> {
        let answer = if asked == Asked::Answered { 0 } else { self.take() };
        if asked == Asked::Held {
            self.comm.send(&[answer], leader, ANSWER)?;
        }
        match answer {
            NONE => self.leaders.remove(&leader),
            _ => self.leaders.insert(leader, Asked::No),
        };
        Ok(())
    }

    /// Answers those who have asked.
    fn answer(&mut self) -> Result<()> {
        self.looked = Instant::now();
        for leader in self.leaders.keys().copied().collect::<Vec<_>>() {
            if self.leaders[&leader] == Asked::No && self.comm.try_recv(&mut [0u64], leader, ASK)? {
                self.was_asked(leader)?;
            }
            let asked = self.leaders[&leader];
            if asked != Asked::No && self.comm.try_recv(&mut [0u64], leader, IDLE)? {
                self.is_idle(leader, asked)?;
            }
        }
        Ok(())
    }

    /// Waits for everybody's last word; nothing is left.
    fn close(&mut self) -> Result<()> {
        while let Some((leader, asked)) = self.leaders.first_key_value().map(|(leader, asked)| (*leader, *asked)) {
            match asked {
                Asked::No => {
                    self.comm.recv(&mut [0u64], leader, ASK)?;
                    self.was_asked(leader)?;
                }
                asked => {
                    self.comm.recv(&mut [0u64], leader, IDLE)?;
                    self.is_idle(leader, asked)?;
                }
            }
        }
        Ok(())
    }
}

/// Hears of the progress of a task, and looks at the mail meanwhile.
struct Listener<'a, 'q> {
    queue: Option<&'a mut Queue<'q>>,
    warnings: Vec<String>,
    failure: Option<Error>,
    keeper: Keeper,
}

impl Observer for Listener<'_, '_> {
    fn progress(&mut self, _: &Progress) {
        // Steps of members mean nothing to a person who waits for the ensemble.
        let Some(queue) = self.queue.as_mut().filter(|queue| queue.looked.elapsed() >= POLL) else { return };
        if let Err(error) = queue.answer() {
            self.failure.get_or_insert(error);
        }
    }

    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_string());
    }

    fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }
}

impl Parcel {
    fn loss(&self) -> f64 {
        self.made.as_ref().map_or(f64::NAN, |(_, loss, _)| *loss)
    }
}

/// Whether a failure hangs on the data and the settings alone, so that it is the same for any number of ranks: it was found by all ranks of
/// its group alike, in what they had reduced. What one rank found (a full memory, a disk) would not happen on others.
pub(super) fn is_of_data(error: &Error) -> bool {
    error.rank().is_none() && matches!(error.kind(), ErrorKind::Usage | ErrorKind::Data)
}

fn pack(
    task: usize,
    time: TaskTime,
    warnings: Vec<String>,
    made: Result<Option<(Model, TrainReport)>>,
    is_left_out: bool,
) -> Parcel {
    let packed = made.and_then(|made| {
        let (trained, report) = made.ok_or_else(|| Error::internal("a task that nobody did"))?;
        Ok((model::to_file(&trained, &Inputs::default())?, report))
    });
    let of_group = packed.as_ref().err().and_then(Error::rank);
    let failed_on = of_group.map_or(0, |rank| time.first_rank + rank);
    let (made, read_s) = match packed {
        Ok((file, report)) => (Ok((file, report.loss, report.converged)), report.read_s),
        Err(error) => (Err((error.kind().exit_code(), error.to_string(), is_left_out)), 0.0),
    };
    Parcel { task, time, read_s, warnings, made, failed_on }
}

/// Everybody's outcomes to all ranks, in the order of the tasks. Collective.
fn share(comm: &Communicator, tasks: &[Task], parcels: Vec<Parcel>, watch: &mut dyn Observer) -> Result<Dealt> {
    let lost = |e: postcard::Error| Error::internal(format!("a member on its way to the other ranks: {e}"));
    let bytes = comm.agree(postcard::to_allocvec(&parcels).map_err(lost))?;
    drop(parcels);
    let gathered = comm.all_gather_bytes(&bytes)?;
    drop(bytes);
    let unpack = || -> Result<Vec<Parcel>> {
        let mut all = Vec::with_capacity(tasks.len());
        for rank in 0..comm.size() {
            all.extend(postcard::from_bytes::<Vec<Parcel>>(gathered.of_rank(rank)).map_err(lost)?);
        }
        all.sort_by_key(|parcel| parcel.task);
        Ok(all)
    };
    let all = comm.agree(unpack())?;
    drop(gathered);
    // Every rank says the same, and the root is heard.
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for parcel in &all {
        for warning in &parcel.warnings {
            match said.iter_mut().find(|(known, _)| known == warning) {
                Some((_, names)) => names.push(&parcel.time.name),
                None => said.push((warning, vec![&parcel.time.name])),
            }
        }
    }
    for (warning, names) in said {
        watch.warning(&format!("{}: {warning}", several(&names)));
    }
    let (mut made, mut timeline, mut read_s) = (Vec::new(), Vec::new(), Vec::new());
    for parcel in all {
        read_s.push((parcel.time.first_rank, parcel.read_s));
        timeline.push(parcel.time);
        made.push(match parcel.made {
            Ok((file, loss, converged)) => Ok(Made { model: model::from_file(&file)?, loss, converged }),
            Err((code, message, is_left_out)) => {
                let error = Error::new(ErrorKind::from_exit_code(code), message);
                if !is_left_out {
                    // All know it, and the rank it happened on says it.
                    let error = error.at(timeline[timeline.len() - 1].name.clone());
                    return comm
                        .agree(if comm.rank() == parcel.failed_on { Err(error.clone()) } else { Ok(()) })
                        .and(Err(error));
                }
                Err(error)
            }
        });
    }
    let read_by = |rank: usize| read_s.iter().filter(|(by, _)| *by == rank).fold(0.0, |sum, (_, s)| sum + s);
    let read_s = (0..comm.size()).map(read_by).fold(0.0, |most: f64, s| if s > most { s } else { most });
    Ok(Dealt { made, timeline, read_s })
}

/// `a`, `a and b`, `a, b, c and 4 more`.
pub(super) fn several(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => one.to_string(),
        [one, two] => format!("{one} and {two}"),
        [first @ .., last] if first.len() <= 3 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    }
}

/// The least share of the time that a rank spent on tasks; 1 where there were none.
pub fn busy(timeline: &[TaskTime], size: usize) -> f64 {
    let end_s = timeline.iter().fold(0.0, |end: f64, task| if task.end_s > end { task.end_s } else { end });
    let of_rank = |rank: usize| {
        let mine = timeline.iter().filter(|task| (task.first_rank..task.first_rank + task.ranks).contains(&rank));
        mine.fold(0.0, |sum, task| sum + (task.end_s - task.start_s)) / end_s
    };
    match end_s > 0.0 {
        true => (0..size).map(of_rank).fold(1.0, |least: f64, share| if share < least { share } else { least }),
        false => 1.0,
    }
}

/// How long a training takes, in values that are looked at: for the order of tasks, where only large differences matter.
pub fn cost(config: &TrainConfig, n_rows: u64, n_columns: usize) -> u64 {
    let d = n_columns.max(1) as u64;
    let passes = match (&config.boost, config.solver) {
        (Some(BoostConfig { rounds, .. }), _) => 2 * rounds,
        // Deep trees look at a part of the columns on many levels.
        (None, _) if config.forest.is_some() => 4 * config.forest.as_ref().map_or(0, |forest| forest.trees),
        (None, solver) if solver.is_mini_batch() => 4 * config.epochs.unwrap_or(10),
        (None, Solver::Lbfgs) => config.max_iterations.min(100),
        (None, Solver::Newton) => config.max_iterations.min(10) * d / 4,
        (None, _) => d / 4,
    };
    n_rows.saturating_mul(d).saturating_mul(passes.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;
    use crate::config::Kind;
    use crate::data::TargetKind;
    use crate::data::memory::MemorySource;
    use crate::data::names::{Reading, TableNames};
    use crate::train::Silent;
    use crate::train::linear_family::train_source;

    /// Every task sleeps for its time, in steps of 4 ms with word of them, and makes a model with its number.
    fn dealt(size: usize, times_ms: &[u64], alone: bool) -> Vec<(Vec<u64>, Vec<TaskTime>)> {
        let tasks: Vec<Task> = times_ms.iter().map(|ms| Task { name: format!("{ms} ms"), cost: *ms }).collect();
        let of_rank = |comm: &Communicator| {
            let dealt = deal(comm, &tasks, alone, &mut Silent, &mut |group, task, watch| {
                assert!(!alone || group.size() == 1);
                for step in 0..times_ms[task] / 4 {
                    std::thread::sleep(Duration::from_millis(4));
                    group.barrier()?;
                    watch.progress(&Progress { step, of_steps: 0, loss: 0.0, gradient: None, learning_rate: None });
                }
                watch.warning("slept");
                if task == 1 {
                    return Err(Error::data(format!("task {task} fails")));
                }
                let table = MemorySource::from_f32((0..40).map(|i| (i * i % 7) as f32).collect(), 2)?
                    .with_target((0..20).map(f64::from).collect(), TargetKind::Float)?;
                let config = TrainConfig { seed: task as u64, ..TrainConfig::of(Kind::Linear) }.resolved()?;
                let (mut source, names, reading) = (table, TableNames::default(), Reading::default());
                train_source(group, &mut source, &names, &config, &reading, &mut Silent)
            })?;
            let numbers = dealt.made.iter().enumerate().map(|(task, made)| match made {
                Ok(made) => made.model.config.seed,
                Err(error) => {
                    assert_eq!((task, error.to_string()), (1, "task 1 fails".to_string()));
                    1
                }
            });
            Ok((numbers.collect(), dealt.timeline))
        };
        run_threads(size, 1, of_rank).unwrap()
    }

    #[test]
    fn every_task_is_done_once_by_any_number_of_ranks_and_all_know_what_was_made() {
        for size in [1, 2, 3, 5, 7] {
            for alone in [false, true] {
                for n in [1, 2, 3, 11] {
                    let times: Vec<u64> = (0..n).map(|i| i * 5 % 8).collect();
                    for (numbers, timeline) in dealt(size, &times, alone) {
                        assert_eq!(numbers, (0..n).collect::<Vec<_>>(), "{size} ranks");
                        assert!(timeline.iter().zip(&times).all(|(task, ms)| task.name == format!("{ms} ms")));
                        let ranks = timeline.iter().map(|task| task.ranks).max().unwrap();
                        assert!(ranks <= if alone { 1 } else { size.div_ceil(n as usize) }, "{size} ranks, {n} tasks");
                    }
                }
            }
        }
    }

    #[test]
    fn twelve_equal_tasks_are_for_all_three_ranks_and_the_longest_is_begun_first() {
        // Four each where nothing disturbs; a rank that is free is never left without one.
        let timeline = &dealt(3, &[60; 12], false)[0].1;
        for rank in 0..3 {
            let n = timeline.iter().filter(|task| task.first_rank == rank).count();
            assert!(n >= 2, "rank {rank} of {timeline:?}");
        }
        let (_, timeline) = dealt(2, &[20, 20, 20, 100, 20, 20], false).swap_remove(0);
        assert!(timeline[3].start_s < timeline[1].start_s, "{timeline:?}");
    }

    #[test]
    fn the_longest_task_gets_the_ranks_that_are_left_over() {
        let timeline = &dealt(3, &[5, 30], false)[0].1;
        assert_eq!((timeline[1].ranks, timeline[0].ranks), (2, 1));
    }

    #[test]
    fn the_least_busy_rank_counts() {
        let task =
            |first_rank, ranks, start_s, end_s| TaskTime { name: String::new(), first_rank, ranks, start_s, end_s };
        let timeline = [task(0, 2, 0.0, 4.0), task(2, 1, 0.0, 1.0), task(2, 1, 1.5, 3.0)];
        assert_eq!(busy(&timeline, 3), 2.5 / 4.0);
        assert_eq!(busy(&timeline, 4), 0.0);
        assert_eq!(busy(&[], 3), 1.0);
    }

    #[test]
    fn many_names_are_cut_short() {
        assert_eq!(several(&["a"]), "a");
        assert_eq!(several(&["a", "b", "c", "d"]), "a, b, c and d");
        assert_eq!(several(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
