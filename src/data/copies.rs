//! Whether a file of one name is the same file everywhere: what a look tells, and a digest of a sample of its bytes.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// What one computer sees under a name, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub bytes: u64,
    /// The same on all nodes of a shared file system, unlike the number of the device.
    inode: u64,
    /// Seconds and nanoseconds since 1970.
    changed: (i64, i64),
}

impl Seen {
    /// Not collective. The file is opened: on network file systems a mere look may tell what was so a minute ago.
    ///
    /// # Errors
    /// `Data`: it is not there, or may not be read.
    pub fn at(path: &Path) -> Result<Seen> {
        let found = File::open(path).and_then(|file| file.metadata());
        let found = found.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::data("no such file"),
            _ => Error::data(format!("cannot be opened: {e}")),
        })?;
        Ok(Seen { bytes: found.len(), inode: found.ino(), changed: (found.mtime(), found.mtime_nsec()) })
    }

    /// Whether it may be the file that another computer sees: for certain, or only once samples were compared.
    ///
    /// # Errors
    /// `Data`: it cannot be, for its size is another.
    pub fn compare(&self, here: &str, other: &Seen, there: &str) -> Result<Likeness> {
        if self.bytes != other.bytes {
            return Err(Error::data(format!(
                "has {} bytes on node {here}, but {} bytes on node {there}, which rank 0 runs on; {CURE}",
                self.bytes, other.bytes
            )));
        }
        Ok(if self == other { Likeness::Same } else { Likeness::Unknown })
    }
}

/// What to do about files that are not alike.
pub const CURE: &str = "copy the same file to all nodes, or name one on a file system that they share";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    Same,
    /// As large, but written at another time or place.
    Unknown,
}

const END_BYTES: u64 = 64 << 10;
const PAGE_BYTES: u64 = 4 << 10;
/// Of one file: between its ends.
pub const PAGES: u64 = 64;

/// BLAKE3 of the first and the last 64 KiB of a file and of so many pages of 4 KiB at even distances between them; of all of it if
/// it is small. Not collective.
///
/// HDF5 keeps what it changes most, its superblock and new objects, at the ends; executables have the linker's hash of them near
/// the beginning.
///
/// # Errors
/// `Data`: the file cannot be read.
pub fn sample(path: &Path, pages: u64) -> Result<[u8; 32]> {
    let read = || -> std::io::Result<[u8; 32]> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes.to_le_bytes());
        let mut buffer = vec![0; END_BYTES as usize];
        for (first, n) in places(bytes, pages) {
            let part = &mut buffer[..n as usize];
            file.read_exact_at(part, first)?;
            hasher.update(part);
        }
        Ok(*hasher.finalize().as_bytes())
    };
    read().map_err(|e| Error::data(format!("cannot be read: {e}")))
}

/// First bytes and lengths of what is sampled of a file.
fn places(bytes: u64, pages: u64) -> Vec<(u64, u64)> {
    if bytes <= 2 * END_BYTES + pages * PAGE_BYTES {
        return (0..bytes.div_ceil(END_BYTES)).map(|i| (i * END_BYTES, END_BYTES.min(bytes - i * END_BYTES))).collect();
    }
    let between = bytes - 2 * END_BYTES;
    let page = |i: u64| {
        let at = (u128::from(between - PAGE_BYTES) * u128::from(i) / u128::from(pages.max(2) - 1)) as u64;
        (END_BYTES + at, PAGE_BYTES)
    };
    let ends = [(0, END_BYTES), (bytes - END_BYTES, END_BYTES)];
    ends.into_iter().chain((0..pages).map(page)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_in_the_file_and_small_ones_are_read_whole() {
        for bytes in [0, 1, 4095, 65_536, 65_537, 131_072, 393_215, 393_216, 393_217, 1_000_003, 1 << 40] {
            for pages in [0, 1, 4, 64] {
                let mut found = places(bytes, pages);
                found.sort_unstable();
                assert!(
                    found.iter().all(|(first, n)| *n > 0 && *n <= END_BYTES && first + n <= bytes),
                    "{bytes} {pages}"
                );
                assert!(found.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "{bytes} {pages}: {found:?}");
                let sum: u64 = found.iter().map(|place| place.1).sum();
                assert_eq!(sum, bytes.min(2 * END_BYTES + pages * PAGE_BYTES), "{bytes} {pages}");
                assert!(bytes == 0 || (found[0].0 == 0 && found.last().unwrap().0 + found.last().unwrap().1 == bytes));
            }
        }
    }

    #[test]
    fn a_changed_byte_at_an_end_or_in_a_page_changes_the_sample() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let good: Vec<u8> = (0..1_000_003u32).map(|i| ((i * 31) >> 3) as u8).collect();
        std::fs::write(&path, &good).unwrap();
        let first = sample(&path, PAGES).unwrap();
        for at in [0, 1, 65_535, 65_536, 70_000, good.len() - 1, good.len() - 65_536] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let is_read = places(good.len() as u64, PAGES).iter().any(|(a, n)| (*a..a + n).contains(&(at as u64)));
            assert_eq!(sample(&path, PAGES).unwrap() != first, is_read, "byte {at}");
        }
        std::fs::write(&path, &good).unwrap();
        assert_eq!(sample(&path, PAGES).unwrap(), first);
        assert!(sample(&folder.path().join("none"), PAGES).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn what_is_not_the_same_file_is_told_from_what_may_be() {
        let root = Seen { bytes: 1009, inode: 7, changed: (5, 0) };
        let compare = |seen: Seen| seen.compare("b", &root, "a");
        assert_eq!(compare(root).unwrap(), Likeness::Same);
        assert_eq!(compare(Seen { changed: (5, 1), ..root }).unwrap(), Likeness::Unknown);
        assert_eq!(compare(Seen { inode: 8, ..root }).unwrap(), Likeness::Unknown);
        let text = compare(Seen { bytes: 1013, ..root }).unwrap_err().to_string();
        assert!(text.contains("1013 bytes on node b") && text.contains("1009 bytes on node a"), "{text}");
    }
}
