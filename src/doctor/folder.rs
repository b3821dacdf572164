//! The folder of `--checkpoint`: whether it can be written, how fast, whether all ranks see it, and whether its files can be locked.

use crate::comm::Communicator;
use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The folder of `--checkpoint`, as rank 0 found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderFacts {
    pub path: PathBuf,
    /// Seconds to write a MiB and see it on the disk; None if it could not be written.
    pub sync_s: Option<f64>,
    /// Why it could not be written.
    pub problem: Option<String>,
    /// Why a file there could not be locked, as HDF5 does it. Consort takes no locks, other programs do.
    pub lock_problem: Option<String>,
}

/// The same folder, as each rank found it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderView {
    /// Whether it found the file that rank 0 wrote there.
    pub sees: bool,
    /// Whether it was kept from locking it while rank 0 did; None where it could not try, on rank 0, and without a lock.
    pub is_locked: Option<bool>,
}

/// Rank 0 writes a file there and locks it, and every rank says whether it sees both. Collective.
pub(super) fn look_at(comm: &Communicator, path: &Path) -> Result<(FolderFacts, FolderView)> {
    // Named after rank 0's process: two doctors may look at one folder.
    let mut process = [u64::from(std::process::id())];
    comm.broadcast(&mut process, 0)?;
    let probe = path.join(format!(".consort-doctor-{}", process[0]));
    let mut words = Vec::new();
    let mut locked = None;
    if comm.is_root() {
        let mut facts = FolderFacts { path: path.to_path_buf(), sync_s: None, problem: None, lock_problem: None };
        match write_probe(&probe) {
            Ok((seconds, file)) => {
                facts.sync_s = Some(seconds);
                facts.lock_problem = lock(&file).err().map(|e| e.to_string());
                locked = Some(file);
            }
            Err(error) => facts.problem = Some(error.to_string()),
        }
        words = serde_json::to_vec(&facts).unwrap_or_default(); // empty: said by all ranks below
    }
    comm.broadcast_vec(&mut words, 0)?;
    let facts: FolderFacts = comm.agree(serde_json::from_slice(&words).map_err(|e| Error::internal(e.to_string())))?;
    let may_try = !comm.is_root() && facts.problem.is_none() && facts.lock_problem.is_none();
    let is_locked = if may_try { File::open(&probe).ok().and_then(|file| is_locked(&file)) } else { None };
    let view = FolderView { sees: probe.exists(), is_locked };
    comm.barrier()?; // all have looked
    drop(locked);
    if comm.is_root() {
        let _ = std::fs::remove_file(&probe); // a folder that cannot be written has none
    }
    Ok((facts, view))
}

/// Seconds until a MiB is on the disk, and the file.
fn write_probe(probe: &Path) -> std::io::Result<(f64, File)> {
    let began = Instant::now();
    let mut file = File::create(probe)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    Ok((began.elapsed().as_secs_f64(), file))
}

/// What keeps an input file from being read, or from being locked as other programs do it before they read.
pub(super) fn refused(path: &Path) -> Option<String> {
    let at = path.display();
    match File::open(path) {
        Err(error) => Some(format!("{at}: rank 0 cannot open it: {error}; name a table that is there and may be read")),
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Some(format!(
                "{at}: a program that writes to it has it locked; wait until it has ended, or train on a copy"
            )),
            Err(error) => Some(no_locks(path, &error.to_string())),
            Ok(()) => None,
        },
    }
}

/// What to do where locks are refused.
pub(super) fn no_locks(path: &Path, problem: &str) -> String {
    format!(
        "{}: its file system refuses locks ({problem}); consort takes none, but h5py and the HDF5 tools need: export \
         HDF5_USE_FILE_LOCKING=FALSE",
        path.display()
    )
}

/// In both ways that builds of HDF5 do it. What is locked in the one way stays so until the file is closed.
fn lock(file: &File) -> std::io::Result<()> {
    fcntl_lock(file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

/// Whether somebody else has locked it. None: no lock can be tried.
fn is_locked(file: &File) -> Option<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Some(false),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Some(true),
        Err(_) => None,
    }
}
