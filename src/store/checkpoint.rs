//! Checkpoints on disk: folders that appear whole or not at all.
//!
//! ```text
//! DIR/step-000000000100-3fa97c21/     written as .step-….partial, flushed, renamed
//!     manifest                        what belongs to it: one line of JSON, then its BLAKE3
//!     state                           what all ranks have alike
//!     items-0, items-4096, …          what each rank has of its own, by the number of its first item
//! ```
//! The last part of a name stands for the settings and the input: steps of other trainings in the same folder are left alone.

use super::output::rename_synced;
use crate::error::{Error, InContext, Result};
use crate::faults::{self, Point};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FORMAT: &str = "consort-checkpoint 1";
/// Bytes that are written, read and hashed at once.
const PIECE: usize = 1 << 20;
/// A wait that nobody needs to hear of.
const SILENT: Duration = Duration::from_secs(1);

/// A file of a checkpoint, as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    pub name: String,
    /// The number of its first item, and how many there are; 0 of the common state.
    pub first: u64,
    pub items: u64,
    pub bytes: u64,
    pub blake3: String,
}

/// What belongs to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    /// Of the program that wrote it.
    pub version: String,
    /// What was trained on what.
    pub key: String,
    /// Of the settings of the whole training, and which part of it this is: a folder below that of the whole, which is the empty one.
    pub job: String,
    pub part: String,
    pub step: u64,
    pub state: Written,
    /// In the order of their items.
    pub items: Vec<Written>,
}

impl Manifest {
    /// * `whose`: the key, the job and the part.
    pub fn new(whose: [&str; 3], step: u64, state: Written, items: Vec<Written>) -> Manifest {
        let (format, version) = (FORMAT.to_string(), env!("CARGO_PKG_VERSION").to_string());
        let [key, job, part] = whose.map(str::to_string);
        Manifest { format, version, key, job, part, step, state, items }
    }
}

/// Of the number in a name: names are in the order of their steps.
const STEP_DIGITS: usize = 12;

/// The part of a name that stands for a key.
fn tag(key: &str) -> &str {
    key.get(..8).unwrap_or(key)
}

/// The folder of a step.
pub fn folder_of(dir: &Path, step: u64, key: &str) -> PathBuf {
    dir.join(format!("step-{step:0STEP_DIGITS$}-{}", tag(key)))
}

/// Where it is while it is written.
pub fn partial_of(dir: &Path, step: u64, key: &str) -> PathBuf {
    dir.join(format!(".step-{step:0STEP_DIGITS$}-{}.partial", tag(key)))
}

/// Makes an empty folder, in the place of what a run before left there. Not collective.
///
/// # Errors
/// `Data`: it cannot be made.
pub fn make_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|e| Error::data(format!("cannot remove a left-over: {e}")))
            .in_file(folder)?;
    }
    let made = faults::before(Point::CheckpointFolder).and_then(|()| std::fs::create_dir_all(folder));
    made.map_err(|e| Error::data(format!("cannot make the folder: {e}"))).in_file(folder)
}

/// Writes and flushes one file. Not collective.
///
/// # Errors
/// `Data`: the disk is full, or the folder cannot be written.
pub fn write(folder: &Path, name: String, bytes: &[u8]) -> Result<Written> {
    write_pieces(folder, name, 0..0, bytes.len() as u64, bytes.chunks(PIECE).map(<[u8]>::to_vec))
}

/// [`write()`] of the numbers of some items, little-endian, without a copy of all of them.
///
/// # Errors
/// As there.
pub fn write_numbers(folder: &Path, name: String, items: Range<u64>, numbers: &[f64]) -> Result<Written> {
    let pieces = numbers.chunks(PIECE / 8).map(|some| some.iter().flat_map(|number| number.to_le_bytes()).collect());
    write_pieces(folder, name, items, size_of_val(numbers) as u64, pieces)
}

fn write_pieces(
    folder: &Path,
    name: String,
    items: Range<u64>,
    bytes: u64,
    pieces: impl Iterator<Item = Vec<u8>>,
) -> Result<Written> {
    let path = folder.join(&name);
    let mut hasher = blake3::Hasher::new();
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        let mut left = bytes;
        for piece in pieces {
            let half = piece.len() / 2;
            file.write_all(&piece[..half])?;
            if left * 2 > bytes && (left - piece.len() as u64) * 2 <= bytes {
                faults::before(Point::CheckpointWrite)?;
            }
            file.write_all(&piece[half..])?;
            hasher.update(&piece);
            left -= piece.len() as u64;
        }
        faults::before(Point::CheckpointFlush)?;
        file.sync_all()
    };
    write().map_err(|e| Error::data(format!("cannot write the checkpoint: {e}"))).in_file(&path)?;
    faults::at(Point::CheckpointDigest);
    let blake3 = hasher.finalize().to_hex().to_string();
    Ok(Written { name, first: items.start, items: items.end - items.start, bytes, blake3 })
}

/// Completes a checkpoint: writes its manifest and gives the folder its name. Not collective; after all files were written.
///
/// # Errors
/// `Data`, as for [`write()`].
pub fn complete(dir: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let partial = partial_of(dir, manifest.step, &manifest.key);
    let target = folder_of(dir, manifest.step, &manifest.key);
    let text = serde_json::to_string(manifest).map_err(|e| Error::internal(e.to_string()))?;
    let text = format!("{text}\n{}\n", blake3::hash(text.as_bytes()).to_hex());
    write(&partial, "manifest".to_string(), text.as_bytes())?;
    if target.exists() {
        // Of this very step: a run before it was resumed from an older one.
        std::fs::remove_dir_all(&target)
            .map_err(|e| Error::data(format!("cannot replace it: {e}")))
            .in_file(&target)?;
    }
    rename_synced(&partial, &target)?;
    Ok(target)
}

/// The steps of a key that are in a folder, the newest first; none where there is no such folder. Not collective.
pub fn steps(dir: &Path, key: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_step = |name: &str| name.starts_with("step-") && name.ends_with(tag(key));
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| is_step(name));
    names.sort();
    names.into_iter().rev().map(|name| dir.join(name)).collect()
}

/// Steps of other keys in a folder. Not collective.
pub fn n_foreign(dir: &Path, key: &str) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap_or_default();
    entries.map(name).filter(|name| name.starts_with("step-") && !name.ends_with(tag(key))).count()
}

/// Removes what runs that were killed left half written. Not collective; nobody else may be writing.
pub fn sweep(dir: &Path, key: &str) {
    let end = format!("-{}.partial", tag(key));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with(".step-") && name.ends_with(&end) {
            // What cannot be removed only takes room.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes the steps of a key before `step`, but so many that `keep` are left with it. Not collective.
///
/// Later ones are of a run before, perhaps damaged: they do not count, and are replaced in their turn.
pub fn prune(dir: &Path, key: &str, step: u64, keep: usize) {
    let newest = folder_of(dir, step, key);
    for old in steps(dir, key).into_iter().filter(|folder| *folder <= newest).skip(keep.max(1)) {
        faults::at(Point::CheckpointPrune);
        // What cannot be removed only takes room.
        let _ = std::fs::remove_dir_all(old);
    }
}

/// Whether this is the folder of one step, rather than one of many or of parts. Not collective.
pub fn is_step(folder: &Path) -> bool {
    let digits = |name: &str| name.strip_prefix("step-").and_then(|rest| Some(rest.split_once('-')?.0.len()));
    let name = folder.file_name().and_then(|name| name.to_str());
    name.and_then(digits) == Some(STEP_DIGITS) || folder.join("manifest").exists()
}

/// Whether a folder, or one for a part of the training below it, has a step of a job. Not collective.
pub fn has_step_of(dir: &Path, job: &str) -> bool {
    // Links are not followed: they may lead back.
    let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(is_folder);
    entries.map(|entry| entry.path()).any(|path| match is_step(&path) {
        true => any_manifest(&path).is_ok_and(|found| found.job == job),
        false => has_step_of(&path, job),
    })
}

/// What belongs to a checkpoint of this training. Not collective.
///
/// # Errors
/// `Data`: it is torn, damaged, of another program version or of another training.
pub fn manifest(folder: &Path, key: &str) -> Result<Manifest> {
    let found = any_manifest(folder)?;
    match found.key == key {
        true => Ok(found),
        false => Err(Error::data("is of a training with other settings or another input")).in_file(folder),
    }
}

/// What belongs to a checkpoint, whatever training it is of. Not collective.
///
/// # Errors
/// `Data`: it is torn, damaged or of another program version.
pub fn any_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest");
    let read = || -> Result<Manifest> {
        let text = std::fs::read_to_string(&path).map_err(|e| Error::data(format!("cannot be read: {e}")))?;
        let mut lines = text.lines();
        let (json, digest) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        if blake3::hash(json.as_bytes()).to_hex().as_str() != digest {
            return Err(Error::data("is damaged: its digest is another"));
        }
        let found: Manifest = serde_json::from_str(json).map_err(|e| Error::data(format!("is not a manifest: {e}")))?;
        if found.format != FORMAT || found.version != env!("CARGO_PKG_VERSION") {
            let (format, version) = (&found.format, &found.version);
            return Err(Error::data(format!("was written by consort {version} ('{format}'), whose state is another")));
        }
        Ok(found)
    };
    read().in_file(&path)
}

/// Some bytes of a file, if all of it is what was written. Not collective; reads all of it, and takes little more memory than what is
/// asked for.
///
/// # Errors
/// `Data`: it is not.
pub fn read(folder: &Path, written: &Written, wanted: Range<u64>) -> Result<Vec<u8>> {
    let path = folder.join(&written.name);
    let mut hasher = blake3::Hasher::new();
    let mut found = Vec::with_capacity(wanted.end.min(written.bytes).saturating_sub(wanted.start) as usize);
    let mut at = 0;
    let mut read = || -> std::io::Result<()> {
        faults::before(Point::CheckpointRead)?;
        let mut file = File::open(&path)?;
        let mut piece = vec![0; PIECE];
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            hasher.update(&piece[..n]);
            let part = |end: u64| end.clamp(at, at + n as u64) - at;
            found.extend_from_slice(&piece[part(wanted.start) as usize..part(wanted.end) as usize]);
            at += n as u64;
        }
    };
    read().map_err(|e| Error::data(format!("cannot be read: {e}"))).in_file(&path)?;
    match at == written.bytes && hasher.finalize().to_hex().as_str() == written.blake3 {
        true => Ok(found),
        false => Err(Error::data("is damaged: its digest is another")).in_file(&path),
    }
}

/// The right to keep the state of a training in a folder, as long as what is returned lives: a run that is started while one before it
/// is still on its way out waits for it, so long. None where the file system has no locks. Not collective.
///
/// # Errors
/// `Comm`: another run has it, and keeps it.
pub fn claim(dir: &Path, job: &str, wait: Duration) -> Result<Option<File>> {
    let path = dir.join(format!(".lock-{}", tag(job)));
    let Ok(file) = File::create(&path) else { return Ok(None) };
    let (began, mut is_said) = (Instant::now(), false);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if began.elapsed() < wait => {
                if began.elapsed() > SILENT && !std::mem::replace(&mut is_said, true) {
                    eprintln!(
                        "consort: {}: waits for another run of this training, which keeps its state there",
                        dir.display()
                    );
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::comm(format!(
                    "another run of this training keeps its state there; wait for its end, or name another folder; if there is none, \
                     remove '{}'",
                    path.display()
                )))
                .in_file(dir);
            }
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn written(dir: &Path, step: u64) -> PathBuf {
        make_folder(&partial_of(dir, step, KEY)).unwrap();
        let partial = partial_of(dir, step, KEY);
        let state = write(&partial, "state".into(), b"all alike").unwrap();
        let items = write_numbers(&partial, "items-0".into(), 0..3, &[1.0, -0.0, 3.5]).unwrap();
        complete(dir, &Manifest::new([KEY, "job", ""], step, state, vec![items])).unwrap()
    }

    #[test]
    fn one_run_of_a_training_keeps_its_state_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let claim = |job: &str| claim(dir.path(), job, Duration::from_millis(150));
        let first = claim(KEY).unwrap();
        assert!(first.is_some() && claim("another").unwrap().is_some(), "no locks here");
        assert!(claim(KEY).unwrap_err().to_string().contains("another run"));
        drop(first);
        assert!(claim(KEY).unwrap().is_some());
    }

    /// Of files of several pieces, at and around their borders.
    #[test]
    fn numbers_come_back_by_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let n = PIECE as u64 / 8 * 2 + 13;
        let numbers: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let written = write_numbers(dir.path(), "items-0".into(), 0..n, &numbers).unwrap();
        assert_eq!(written.bytes, n * 8);
        let border = PIECE as u64 / 8;
        for range in [0..n, 0..0, 5..6, border - 1..border + 1, border..2 * border, 2 * border - 3..n, n - 1..n, n..n] {
            let bytes = read(dir.path(), &written, range.start * 8..range.end * 8).unwrap();
            let found = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            assert!(found.eq(range.clone().map(|i| i as f64)), "{range:?}");
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = written(dir.path(), 7);
        let is_good = || {
            let manifest = manifest(&folder, KEY)?;
            manifest.items.iter().chain([&manifest.state]).try_for_each(|file| read(&folder, file, 0..0).map(|_| ()))
        };
        is_good().unwrap();
        for name in ["manifest", "state", "items-0"] {
            let path = folder.join(name);
            let good = std::fs::read(&path).unwrap();
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                std::fs::write(&path, &bad).unwrap();
                // The end of the manifest's last line says nothing.
                assert!(is_good().is_err() || (name == "manifest" && at + 1 == good.len()), "byte {at} of {name}");
            }
            std::fs::write(&path, &good[..good.len() / 2]).unwrap();
            assert!(is_good().is_err(), "half of {name}");
            std::fs::write(&path, good).unwrap();
        }
        is_good().unwrap();
    }

    #[test]
    fn the_newest_are_kept_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for step in [9, 10, 100] {
            written(dir.path(), step);
        }
        std::fs::create_dir(dir.path().join("step-000000000500-ffffffff")).unwrap();
        make_folder(&partial_of(dir.path(), 200, KEY)).unwrap();
        assert_eq!(steps(dir.path(), KEY)[0], folder_of(dir.path(), 100, KEY));
        assert!(is_step(&folder_of(dir.path(), 100, KEY)) && is_step(&dir.path().join("step-000000000500-ffffffff")));
        assert!(!is_step(dir.path()) && !is_step(Path::new("step-by-step")));
        prune(dir.path(), KEY, 10, 2);
        assert_eq!(steps(dir.path(), KEY).len(), 3, "the last was not gone on from");
        prune(dir.path(), KEY, 100, 2);
        let left = [100, 10].map(|step| folder_of(dir.path(), step, KEY));
        assert_eq!(steps(dir.path(), KEY), left);
        // Of a run that goes on from before the newest, say because that is damaged.
        written(dir.path(), 20);
        prune(dir.path(), KEY, 20, 1);
        assert_eq!(steps(dir.path(), KEY), [100, 20].map(|step| folder_of(dir.path(), step, KEY)));
        prune(dir.path(), KEY, 100, 1);
        sweep(dir.path(), "fedcba98");
        assert!(partial_of(dir.path(), 200, KEY).exists(), "of another training");
        sweep(dir.path(), KEY);
        assert!(!partial_of(dir.path(), 200, KEY).exists());
        assert_eq!(n_foreign(dir.path(), KEY), 1);
        assert!(has_step_of(dir.path(), "job") && !has_step_of(dir.path(), "other"));
        assert!(has_step_of(dir.path().parent().unwrap(), "job") && !has_step_of(&dir.path().join("none"), "job"));
        assert!(manifest(&left[0], "fedcba98").unwrap_err().to_string().contains("other settings"));
    }
}
