//! # nodes — what has to be the same on all of them
//!
//! In:    names of input files; the program that runs.
//! Out:   nothing, or one error that names file, nodes and what to do.
//! Talks: compares with what rank 0 sees; those ranks of a node that see the same files as another leave it to that one.
//! Never: file formats, settings, what the files are for.

use crate::comm::{Communicator, by_rank};
use crate::data::copies::{CURE, Likeness, PAGES, Seen, sample};
use crate::error::{Error, InContext, Result};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Looks of all nodes at all files together. With more of both, each node looks at every so many files.
const MAX_LOOKS: usize = 1 << 18;
/// Pages read by a node of all files together, if it has to read many.
const MAX_PAGES: u64 = 1 << 14;

/// Refuses files that are missing on some nodes, or are others than those that rank 0 sees. Collective.
///
/// One rank of each node looks. Files are the same if size, time of change and inode are; where only the size is, samples of their
/// bytes are compared. What rank 0 does not see is left to whoever reads it.
///
/// # Errors
/// `Data`: a file that differs.
pub fn agree_on_files(comm: &Communicator, paths: &[PathBuf]) -> Result<()> {
    compare(comm, view(&comm.node_name()), paths)
}

/// Refuses ranks that run another version or build of this program: a folder that is not shared may hold an old one on some node.
/// Collective.
///
/// # Errors
/// `Usage`: naming all of them.
pub fn agree_on_program(comm: &Communicator) -> Result<()> {
    agree_on_build(comm, env!("CARGO_PKG_VERSION"), build())
}

/// A number that stands for the program that this process runs, file for file; None where the system does not show it. Not collective.
pub fn build() -> Option<u64> {
    let digest = sample(Path::new("/proc/self/exe"), PAGES).ok()?;
    digest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// As people read it.
pub fn build_text(build: Option<u64>) -> String {
    build.map_or("unknown".to_string(), |build| format!("{:08x}", build >> 32))
}

/// A number that is the same for ranks to which all names mean the same files: those of one computer, folder and container.
fn view(node: &str) -> u64 {
    let link = |path: &str| std::fs::read_link(path).unwrap_or_default();
    let places = [
        PathBuf::from(node),
        std::env::current_dir().unwrap_or_default(),
        link("/proc/self/ns/mnt"),
        link("/proc/self/root"),
    ];
    let mut hasher = blake3::Hasher::new();
    for place in places {
        let bytes = place.as_os_str().as_encoded_bytes();
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Collective. `view`: ranks of the same one see the same files.
fn compare(comm: &Communicator, view: u64, paths: &[PathBuf]) -> Result<()> {
    let views = comm.all_gather(&[view])?.values;
    let mut seen = BTreeSet::new();
    let lookers: Vec<usize> = (0..comm.size()).filter(|&rank| seen.insert(views[rank])).collect();
    if lookers.len() == 1 || paths.is_empty() {
        return Ok(());
    }
    let mine = lookers.iter().position(|&rank| rank == comm.rank()).filter(|&mine| mine > 0);
    let wanted = |file: usize| mine.is_some_and(|mine| is_wanted(file, mine, paths.len(), lookers.len() - 1));

    let of_root: Vec<Option<Seen>> = from_root(comm, || paths.par_iter().map(|path| Seen::at(path).ok()).collect())?;
    let there: String = from_root(comm, || comm.node_name())?;
    let here = comm.node_name();
    let look = |file: usize| -> Result<i32> {
        match (of_root.get(file).copied().flatten(), wanted(file)) {
            (Some(root), true) => {
                let seen = Seen::at(&paths[file]).map_err(|e| missing(&e, &here, &there));
                let likeness = seen.and_then(|seen| seen.compare(&here, &root, &there)).in_file(&paths[file])?;
                Ok(i32::from(likeness == Likeness::Unknown))
            }
            _ => Ok(0),
        }
    };
    let looked: Vec<Result<i32>> = (0..paths.len()).into_par_iter().map(look).collect();
    let unknown = comm.agree(looked.into_iter().collect::<Result<Vec<i32>>>())?;

    let mut anywhere = unknown.clone();
    comm.all_reduce_max(&mut anywhere)?;
    let doubtful: Vec<usize> = (0..paths.len()).filter(|&file| anywhere[file] == 1).collect();
    if doubtful.is_empty() {
        return Ok(());
    }
    let pages = (MAX_PAGES / doubtful.len() as u64).clamp(4, PAGES);
    let sampled = |files: &[usize]| -> Vec<Result<[u8; 32]>> {
        files.par_iter().map(|&file| sample(&paths[file], pages).in_file(&paths[file])).collect()
    };
    let own: Vec<usize> = doubtful.iter().copied().filter(|&file| comm.is_root() || unknown[file] == 1).collect();
    let own_samples = comm.agree(sampled(&own).into_iter().collect::<Result<Vec<_>>>())?;
    let root_samples: Vec<[u8; 32]> = from_root(comm, || own_samples.clone())?;
    let differs = |file: &usize| doubtful.binary_search(file).map(|at| root_samples.get(at));
    let other = own.iter().zip(&own_samples).find(|(file, sample)| differs(file) != Ok(Some(sample)));
    comm.agree(match other {
        None => Ok(()),
        Some((&file, _)) => Err(Error::data(format!(
            "has other bytes on node {here} than on node {there}, which rank 0 runs on; {CURE}"
        )))
        .in_file(&paths[file]),
    })
}

/// Whether one of `lookers` nodes looks at a file: at all, unless there are very many of both.
fn is_wanted(file: usize, looker: usize, files: usize, lookers: usize) -> bool {
    (file + looker).is_multiple_of(files.saturating_mul(lookers).div_ceil(MAX_LOOKS).max(1))
}

fn missing(why: &Error, here: &str, there: &str) -> Error {
    Error::data(format!("{why} on node {here}, though rank 0 on node {there} sees it; {CURE}"))
}

/// What rank 0 makes, on all ranks. Collective.
pub fn from_root<T: serde::Serialize + serde::de::DeserializeOwned>(
    comm: &Communicator,
    make: impl FnOnce() -> T,
) -> Result<T> {
    let lost = |e: postcard::Error| Error::internal(format!("what rank 0 sees was not sent: {e}"));
    let mut bytes = comm.agree(match comm.is_root() {
        true => postcard::to_allocvec(&make()).map_err(lost),
        false => Ok(Vec::new()),
    })?;
    comm.broadcast_vec(&mut bytes, 0)?;
    comm.agree(postcard::from_bytes(&bytes).map_err(lost))
}

/// Collective.
fn agree_on_build(comm: &Communicator, version: &str, build: Option<u64>) -> Result<()> {
    let version_hash = blake3::hash(version.as_bytes()).as_bytes().first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let mut of_root = [version_hash, build.unwrap_or(0)];
    comm.broadcast(&mut of_root, 0)?;
    // A build that is not known is no reason to refuse.
    let is_other = version_hash != of_root[0] || (of_root[1] != 0 && build.is_some_and(|build| build != of_root[1]));
    if !comm.agree_any(is_other)? {
        return Ok(());
    }
    let text = format!("version {version}, build {} on {}", build_text(build), comm.node_name());
    let all = comm.all_gather_bytes(text.as_bytes())?;
    let texts: Vec<_> = (0..comm.size()).map(|rank| String::from_utf8_lossy(all.of_rank(rank)).into_owned()).collect();
    comm.agree(Err(Error::usage(format!(
        "the ranks run different versions or builds of this program: {}; install the same one on all nodes",
        by_rank(&texts)
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;

    #[test]
    fn another_version_or_build_on_one_rank_is_refused_on_all_and_named() {
        for (size, odd) in [(2, 1), (3, 0), (5, 4)] {
            let answers = run_threads(size, 1, |comm| {
                let is_odd = comm.rank() == odd;
                let (version, other) = if is_odd { ("0.0.9", 7) } else { ("0.1.0", 8) };
                let text = |told: Result<()>| told.map_err(|e| e.to_string());
                Ok((
                    agree_on_build(comm, "0.1.0", if is_odd { None } else { build() }),
                    text(agree_on_build(comm, version, None)),
                    text(agree_on_build(comm, "0.1.0", Some(other << 32))),
                ))
            });
            for (same, mixed, rebuilt) in answers.unwrap() {
                same.unwrap();
                let text = mixed.unwrap_err();
                assert!(
                    text.contains(&format!("rank {odd}: version 0.0.9")) && text.contains("version 0.1.0"),
                    "{text}"
                );
                let text = rebuilt.unwrap_err();
                assert!(text.contains("build 00000007 on") && text.contains("build 00000008 on"), "{text}");
            }
        }
        assert!(build().is_some() && build() == build());
    }

    /// Names of files that mean another file on rank `odd`: there the name is a link that it alone looks through.
    fn compared(
        size: usize,
        odd: usize,
        here: &[u8],
        elsewhere: Option<&[u8]>,
    ) -> Vec<std::result::Result<(), String>> {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = |i: usize, name: &str| folders[i].path().join(name);
        for i in 0..2 {
            std::fs::write(path(i, "same.h5"), b"the same").unwrap();
        }
        std::fs::write(path(0, "t.h5"), here).unwrap();
        if let Some(bytes) = elsewhere {
            std::fs::write(path(1, "t.h5"), bytes).unwrap();
        }
        run_threads(size, 2, |comm| {
            let mine = usize::from(comm.rank() == odd);
            let paths = ["same.h5", "t.h5", "none.h5"].map(|name| path(mine, name));
            Ok(compare(comm, mine as u64, &paths).map_err(|e| e.to_string()))
        })
        .unwrap()
    }

    #[test]
    fn a_file_that_differs_is_refused_on_all_ranks() {
        let good: Vec<u8> = (0..700_001u32).map(|i| (i >> 4) as u8).collect();
        let mut other = good.clone();
        *other.last_mut().unwrap() ^= 1;
        for (size, odd) in [(2, 1), (3, 2), (5, 1), (3, 0)] {
            let all = |elsewhere: Option<&[u8]>, parts: &[&str]| {
                for told in compared(size, odd, &good, elsewhere) {
                    let text = told.unwrap_err();
                    assert!(text.contains("t.h5: ") && parts.iter().all(|part| text.contains(part)), "{text}");
                }
            };
            for told in compared(size, odd, &good, Some(&good)) {
                told.unwrap();
            }
            all(Some(&other), &["has other bytes on node"]);
            if odd != 0 {
                all(Some(&good[1..]), &["has 700000 bytes on node", "but 700001 bytes on node"]);
                all(None, &["no such file on node", "though rank 0 on node"]);
            }
        }
    }

    #[test]
    fn ranks_that_see_the_same_files_do_not_look() {
        // Names of nothing: a rank that looked would say so.
        let paths = [PathBuf::from("none.h5")];
        let calls = run_threads(3, 1, |comm| {
            agree_on_files(comm, &paths)?;
            Ok(comm.traffic().total().calls)
        });
        assert!(calls.unwrap().iter().all(|calls| *calls == 1));
    }

    #[test]
    fn all_nodes_look_at_some_files_and_few_at_all() {
        let looks = |files, lookers| {
            (1..=lookers).map(|l| (0..files).filter(|&f| is_wanted(f, l, files, lookers)).count()).collect::<Vec<_>>()
        };
        assert!(looks(7, 1000).iter().all(|n| *n == 7));
        let many = looks(10_007, 300);
        assert!(many.iter().all(|n| *n > 800) && many.iter().sum::<usize>() <= MAX_LOOKS + 300 * 2, "{many:?}");
    }
}
