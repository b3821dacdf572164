//! The seal of a model file: a hash of its bytes behind its end, looked at before the HDF5 library looks at the file.
//!
//! The format has few checksums: damage in numbers does not show, and damage in its own records can take the library down. Whatever lies
//! behind the end that HDF5 knows of is ignored by all who read the file.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const MARK: &[u8; 16] = b"consort seal 1: ";
const SEAL_BYTES: u64 = 16 + 32;

fn hash(file: &mut File, n_bytes: u64) -> io::Result<[u8; 32]> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(n_bytes))?;
    Ok(*hasher.finalize().as_bytes())
}

/// Seals a file that is complete. Not collective.
///
/// # Errors
/// `Data`: it cannot be read or written.
pub(super) fn put(path: &Path) -> Result<()> {
    let seal = || -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let n_bytes = file.metadata()?.len();
        let hash = hash(&mut file, n_bytes)?;
        file.write_all(&[MARK, &hash[..]].concat())
    };
    seal().map_err(|e| Error::data(format!("cannot write the file: {e}")))
}

/// Whether a file has a seal; none has what cannot be opened: whoever opens it next says why. Not collective.
///
/// # Errors
/// `Data`: it has one that is not its own.
pub(super) fn check(path: &Path) -> Result<bool> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    let mut look = || -> io::Result<Option<bool>> {
        let Some(n_bytes) = file.metadata()?.len().checked_sub(SEAL_BYTES) else { return Ok(None) };
        let mut seal = [0; SEAL_BYTES as usize];
        file.seek(SeekFrom::Start(n_bytes))?;
        file.read_exact(&mut seal)?;
        match seal.strip_prefix(MARK) {
            Some(said) => Ok(Some(hash(&mut file, n_bytes)?[..] == *said)),
            None => Ok(None),
        }
    };
    match look() {
        Ok(Some(false)) => {
            Err(Error::data("is damaged: it is not what was written; take another copy, or train again"))
        }
        Ok(seal) => Ok(seal.is_some()),
        Err(e) => Err(Error::data(format!("cannot read the file: {e}"))),
    }
}
