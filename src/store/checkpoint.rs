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
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const FORMAT: &str = "consort-checkpoint 1";

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
pub fn write(folder: &Path, name: String, items: std::ops::Range<u64>, bytes: &[u8]) -> Result<Written> {
    let path = folder.join(&name);
    let written = File::create(&path).and_then(|mut file| {
        let (one, other) = bytes.split_at(bytes.len() / 2);
        file.write_all(one)?;
        faults::before(Point::CheckpointWrite)?;
        file.write_all(other)?;
        faults::before(Point::CheckpointFlush)?;
        file.sync_all()
    });
    written.map_err(|e| Error::data(format!("cannot write the checkpoint: {e}"))).in_file(&path)?;
    faults::at(Point::CheckpointDigest);
    let blake3 = blake3::hash(bytes).to_hex().to_string();
    Ok(Written { name, first: items.start, items: items.end - items.start, bytes: bytes.len() as u64, blake3 })
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
    write(&partial, "manifest".to_string(), 0..0, text.as_bytes())?;
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

/// The bytes of a file, if they are those that were written. Not collective.
///
/// # Errors
/// `Data`: they are not.
pub fn read(folder: &Path, written: &Written) -> Result<Vec<u8>> {
    let path = folder.join(&written.name);
    let bytes = faults::before(Point::CheckpointRead).and_then(|()| std::fs::read(&path));
    let bytes = bytes.map_err(|e| Error::data(format!("cannot be read: {e}"))).in_file(&path)?;
    match bytes.len() as u64 == written.bytes && blake3::hash(&bytes).to_hex().as_str() == written.blake3 {
        true => Ok(bytes),
        false => Err(Error::data("is damaged: its digest is another")).in_file(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn written(dir: &Path, step: u64) -> PathBuf {
        make_folder(&partial_of(dir, step, KEY)).unwrap();
        let partial = partial_of(dir, step, KEY);
        let state = write(&partial, "state".into(), 0..0, b"all alike").unwrap();
        let items = write(&partial, "items-0".into(), 0..3, b"abc").unwrap();
        complete(dir, &Manifest::new([KEY, "job", ""], step, state, vec![items])).unwrap()
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = written(dir.path(), 7);
        let is_good = || {
            let manifest = manifest(&folder, KEY)?;
            manifest.items.iter().chain([&manifest.state]).try_for_each(|file| read(&folder, file).map(|_| ()))
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
