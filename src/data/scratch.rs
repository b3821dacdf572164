//! Files for what does not fit into memory. They have no name: whatever ends the program, nothing of them is left.

use crate::error::{Error, InContext, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// An empty file in a folder. Errors: none can be made there (usage).
pub(super) fn file_in(folder: &Path) -> Result<File> {
    tempfile::tempfile_in(folder)
        .map_err(|e| Error::usage(format!("no file can be made in {}: {e}", folder.display())))
        .for_flag("--scratch")
}

/// Bytes that are kept in a file, which one rank writes and reads.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    folder: PathBuf,
    read_bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Scratch {
    /// * `folder`: None, that of the system for temporary files (`TMPDIR`).
    pub fn in_folder(folder: Option<&Path>) -> Result<Scratch> {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        Ok(Scratch { file: file_in(&folder)?, folder, read_bytes: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Errors: what was written cannot be read.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.read_bytes.fetch_add(into.len() as u64, Relaxed);
        self.timed(|file| file.read_exact_at(into, offset)).map_err(|e| self.failed("read", &e))
    }

    /// Errors: the folder is full, or of another kind.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.timed(|file| file.write_all_at(bytes, offset)).map_err(|e| self.failed("written", &e))
    }

    /// Bytes that were read, and seconds of reading and writing, added over threads.
    pub fn costs(&self) -> (u64, f64) {
        (self.read_bytes.load(Relaxed), self.nanoseconds.load(Relaxed) as f64 * 1e-9)
    }

    fn timed<T>(&self, act: impl FnOnce(&File) -> T) -> T {
        let began = Instant::now();
        let done = act(&self.file);
        self.nanoseconds.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
        done
    }

    fn failed(&self, what: &str, e: &std::io::Error) -> Error {
        let folder = self.folder.display();
        Error::data(format!(
            "--scratch: what does not fit into memory cannot be {what} in {folder}: {e}; name a folder with room"
        ))
    }
}
