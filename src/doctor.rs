//! # doctor — this machine, as the program sees it
//!
//! In:    the environment, `/proc`, the ranks there are.
//! Out:   a [`Diagnosis`]: libraries, ranks → nodes → cores → threads, message times, memory, and what is wrong.
//! Talks: gathers a line of every rank; times all-reduces.
//! Never: files of the user, flags, printing.

use crate::comm::{Communicator, World, launcher_size};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankFacts {
    pub rank: usize,
    pub node: String,
    /// Process number, to know ranks that are threads of one process.
    pub process: u32,
    /// Cores it may run on.
    pub cores: Vec<usize>,
    pub threads: usize,
    /// Resident now, bytes.
    pub memory_bytes: u64,
    /// Of the program that this rank runs.
    pub version: String,
    /// Wall clock right after a barrier, seconds since 1970.
    pub clock_s: f64,
    /// Whether it found the file that rank 0 wrote into the folder of `--checkpoint`; None without the folder.
    pub sees_folder: Option<bool>,
}

/// The folder of `--checkpoint`, as rank 0 found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderFacts {
    pub path: PathBuf,
    /// Seconds to write a MiB and see it on the disk; None if it could not be written.
    pub sync_s: Option<f64>,
    /// Why it could not be written.
    pub problem: Option<String>,
}

/// Seconds of one all-reduce, the fastest and the median of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReduceTime {
    pub bytes: usize,
    pub fastest_s: f64,
    pub median_s: f64,
}

/// What the doctor found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    pub version: String,
    /// What carries messages now.
    pub transport: String,
    /// The MPI library this program was built with.
    pub mpi_library: Option<String>,
    /// Ranks the launcher says it started, and the variable that says so.
    pub launcher: Option<(usize, String)>,
    pub size: usize,
    pub hdf5_version: String,
    /// HDF5_USE_FILE_LOCKING. Tables are opened without locks whatever it says.
    pub hdf5_locking: String,
    pub blas: String,
    pub ranks: Vec<RankFacts>,
    pub all_reduce: Vec<ReduceTime>,
    pub folder: Option<FolderFacts>,
    /// Things that cost speed, each with what to do.
    pub advice: Vec<String>,
}

/// Looks at the machine, and at a folder for checkpoints if one is named. Collective; every rank gets the whole diagnosis.
pub fn diagnose(comm: &Communicator, folder: Option<&Path>) -> Result<Diagnosis> {
    let (folder, sees_folder) = folder.map(|path| look_at_folder(comm, path)).transpose()?.unzip();
    comm.barrier()?;
    let clock_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let mine = RankFacts {
        rank: comm.rank(),
        node: comm.node_name(),
        process: std::process::id(),
        cores: allowed_cores("/proc/self/status"),
        threads: rayon::current_num_threads(),
        memory_bytes: memory_bytes("VmRSS:"),
        version: env!("CARGO_PKG_VERSION").to_string(),
        clock_s,
        sees_folder,
    };
    let words = serde_json::to_vec(&mine).map_err(|e| Error::internal(e.to_string()))?;
    let gathered = comm.all_gather_bytes(&words)?;
    let facts = |rank| serde_json::from_slice(gathered.of_rank(rank)).map_err(|e| Error::comm(e.to_string()));
    let ranks = (0..comm.size()).map(facts).collect::<Result<Vec<RankFacts>>>()?;
    let all_reduce =
        [4, 4 << 10, 1 << 20].into_iter().map(|bytes| time_all_reduce(comm, bytes)).collect::<Result<_>>()?;
    let mut advice = advise(&ranks);
    advice.extend(advise_on_nodes(&ranks));
    advice.extend(folder.as_ref().and_then(|folder| advise_on_folder(folder, &ranks)));
    Ok(Diagnosis {
        version: env!("CARGO_PKG_VERSION").to_string(),
        transport: comm.library(),
        mpi_library: crate::comm::mpi_library_version(),
        launcher: launcher_size().map(|(size, name)| (size, name.to_string())),
        size: comm.size(),
        hdf5_version: crate::store::hdf5_version(),
        hdf5_locking: std::env::var("HDF5_USE_FILE_LOCKING").unwrap_or_else(|_| "not set".to_string()),
        blas: crate::blas::fingerprint(),
        ranks,
        all_reduce,
        folder,
        advice,
    })
}

/// Collective.
fn time_all_reduce(comm: &Communicator, bytes: usize) -> Result<ReduceTime> {
    const REPEATS: usize = 21;
    let mut buf = vec![0u32; bytes / 4];
    let mut seconds = Vec::with_capacity(REPEATS);
    comm.all_reduce_sum(&mut buf)?;
    for _ in 0..REPEATS {
        comm.barrier()?;
        let began = Instant::now();
        comm.all_reduce_sum(&mut buf)?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(ReduceTime { bytes, fastest_s: seconds[0], median_s: seconds[REPEATS / 2] })
}

/// Rank 0 writes a file there, and every rank says whether it sees it. Collective.
fn look_at_folder(comm: &Communicator, path: &Path) -> Result<(FolderFacts, bool)> {
    // Named after rank 0's process: two doctors may look at one folder.
    let mut process = [u64::from(std::process::id())];
    comm.broadcast(&mut process, 0)?;
    let probe = path.join(format!(".consort-doctor-{}", process[0]));
    let mut words = Vec::new();
    if comm.is_root() {
        let (sync_s, problem) = match write_probe(&probe) {
            Ok(seconds) => (Some(seconds), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let facts = FolderFacts { path: path.to_path_buf(), sync_s, problem };
        words = serde_json::to_vec(&facts).unwrap_or_default(); // empty: said by all ranks below
    }
    comm.broadcast_vec(&mut words, 0)?;
    let facts = comm.agree(serde_json::from_slice(&words).map_err(|e| Error::internal(e.to_string())))?;
    let sees = probe.exists();
    comm.barrier()?; // all have looked
    if comm.is_root() {
        let _ = std::fs::remove_file(&probe); // a folder that cannot be written has none
    }
    Ok((facts, sees))
}

/// Seconds until a MiB is on the disk.
fn write_probe(probe: &Path) -> std::io::Result<f64> {
    let began = Instant::now();
    let mut file = std::fs::File::create(probe)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    Ok(began.elapsed().as_secs_f64())
}

/// What would keep checkpoints from being written or found.
fn advise_on_folder(folder: &FolderFacts, ranks: &[RankFacts]) -> Option<String> {
    const SLOW_S: f64 = 1.0;
    let path = folder.path.display();
    if let Some(problem) = &folder.problem {
        return Some(format!(
            "{path}: rank 0 cannot write there: {problem}; make the folder (mkdir -p {path}), or name another"
        ));
    }
    if let Some(blind) = ranks.iter().find(|rank| rank.sees_folder == Some(false)) {
        return Some(format!(
            "{path}: rank {} on node {} does not see what rank 0 on node {} writes there; name a folder on a file system that \
             all nodes share",
            blind.rank, blind.node, ranks[0].node
        ));
    }
    folder.sync_s.filter(|seconds| *seconds > SLOW_S).map(|seconds| {
        format!("{path}: a MiB took {seconds:.1} s to reach the disk; name a faster folder, or a longer --every")
    })
}

/// Nodes that differ where they should not: programs and clocks.
fn advise_on_nodes(ranks: &[RankFacts]) -> Vec<String> {
    const APART_S: f64 = 2.0;
    let mut advice = Vec::new();
    if let Some(other) = ranks.iter().find(|rank| rank.version != ranks[0].version) {
        advice.push(format!(
            "rank {} on node {} runs consort {}, rank 0 on node {} runs {}; install the same program on all nodes",
            other.rank, other.node, other.version, ranks[0].node, ranks[0].version
        ));
    }
    let first = ranks.iter().min_by(|a, b| a.clock_s.total_cmp(&b.clock_s));
    let last = ranks.iter().max_by(|a, b| a.clock_s.total_cmp(&b.clock_s));
    if let (Some(first), Some(last)) = (first, last)
        && last.clock_s - first.clock_s > APART_S
    {
        advice.push(format!(
            "the clock of node {} is {:.1} s ahead of that of node {}; let both follow one time server (chronyc makestep)",
            last.node,
            last.clock_s - first.clock_s,
            first.node
        ));
    }
    advice
}

/// What costs speed: threads without cores of their own.
fn advise(ranks: &[RankFacts]) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(rank) = ranks.iter().find(|rank| rank.threads > rank.cores.len()) {
        let strangled = ranks.iter().filter(|rank| rank.threads > rank.cores.len()).count();
        advice.push(format!(
            "{strangled} of {} ranks have more threads than cores (rank {}: {} threads on core {}); give each rank more cores \
             (mpirun --bind-to none, or --map-by slot:PE={}; srun --cpus-per-task {}), or fewer --threads",
            ranks.len(),
            rank.rank,
            rank.threads,
            list_cores(&rank.cores),
            rank.threads,
            rank.threads,
        ));
    }
    let mut nodes: BTreeMap<&str, Vec<&RankFacts>> = BTreeMap::new();
    ranks.iter().for_each(|rank| nodes.entry(&rank.node).or_default().push(rank));
    for (node, ranks) in nodes {
        let mut cores: Vec<usize> = ranks.iter().flat_map(|rank| rank.cores.iter().copied()).collect();
        cores.sort_unstable();
        cores.dedup();
        let threads: usize = ranks.iter().map(|rank| rank.threads).sum();
        if threads > cores.len() && ranks.len() > 1 {
            advice.push(format!(
                "node {node}: {} ranks with {threads} threads share {} cores ({}); start fewer ranks or threads there",
                ranks.len(),
                cores.len(),
                list_cores(&cores)
            ));
        }
        let masks: std::collections::BTreeSet<&Vec<usize>> = ranks.iter().map(|rank| &rank.cores).collect();
        if masks.len() == 1 && ranks.len() > 1 && ranks[0].cores.len() == 1 {
            advice.push(format!(
                "node {node}: all {} ranks are bound to core {}; launch them with mpirun --bind-to none",
                ranks.len(),
                list_cores(&ranks[0].cores)
            ));
        }
    }
    advice
}

/// Threads of each rank when `--threads` was not given: the cores of the affinity mask ÷ the ranks that share it,
/// capped by SLURM_CPUS_PER_TASK, at least 1. Not collective: asked before the world starts.
///
/// Which ranks share a mask is not known yet: when the mask is narrower than the launcher's own, the ranks of the node
/// are taken to be spread evenly over such masks.
pub fn default_threads(world: World) -> usize {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| leading_number(&text));
    let mask = allowed_cores("/proc/self/status").len().max(1);
    let on_node = match world {
        World::Threads(size) => size,
        World::Solo => 1,
        _ if launcher_size().is_none() => 1,
        _ => ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"]
            .into_iter()
            .find_map(number)
            .unwrap_or(1),
    };
    let node_cores = match world {
        World::Threads(_) => mask,
        _ => {
            let launcher = allowed_cores(&format!("/proc/{}/status", std::os::unix::process::parent_id())).len();
            number("SLURM_CPUS_ON_NODE").map_or(launcher, |cores| cores.min(launcher.max(1)))
        }
    };
    let cap = if launcher_size().is_some() { number("SLURM_CPUS_PER_TASK") } else { None };
    share(mask, node_cores, on_node).min(cap.unwrap_or(usize::MAX)).max(1)
}

/// Cores for each of `on_node` ranks with masks of `mask` cores on a node of `node_cores`.
fn share(mask: usize, node_cores: usize, on_node: usize) -> usize {
    let sharing = (on_node * mask).div_ceil(node_cores.max(mask)).max(1);
    (mask / sharing).max(1)
}

/// `4(x2),3` → 4
fn leading_number(text: &str) -> Option<usize> {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|n| *n > 0)
}

/// The cores of a process's affinity mask; empty where there is no `/proc`.
fn allowed_cores(status: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("");
    let cores = parse_cores(list);
    match cores.is_empty() && status == "/proc/self/status" {
        true => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
        false => cores,
    }
}

/// `0-2,8` → 0, 1, 2, 8
fn parse_cores(list: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// 0, 1, 2, 8 → `0-2,8`
pub fn list_cores(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => parts.push((core, core)),
        }
    }
    let text =
        |(first, last): &(usize, usize)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    parts.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Highest resident memory of this process so far, bytes; 0 where it is not known.
pub fn peak_memory_bytes() -> u64 {
    memory_bytes("VmHWM:")
}

fn memory_bytes(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("");
    value.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_go_there_and_back() {
        for list in ["0", "0-2,8", "1,3,5-7"] {
            assert_eq!(list_cores(&parse_cores(list)), list);
        }
        assert_eq!(parse_cores(""), Vec::<usize>::new());
        assert!(!allowed_cores("/proc/self/status").is_empty());
        assert!(peak_memory_bytes() > 1 << 20);
    }

    #[test]
    fn cores_are_shared_out() {
        assert_eq!(share(8, 8, 1), 8);
        assert_eq!(share(8, 8, 4), 2);
        assert_eq!(share(8, 8, 3), 2);
        assert_eq!(share(2, 2, 7), 1, "more ranks than cores");
        assert_eq!(share(1, 8, 8), 1, "each bound to its core");
        assert_eq!(share(4, 8, 2), 4, "each bound to its socket");
        assert_eq!(share(4, 8, 4), 2, "two ranks to a socket");
        assert_eq!(leading_number("4(x2),3"), Some(4));
    }

    #[test]
    fn threads_without_cores_are_noticed() {
        let facts = |rank, cores: &[usize], threads| RankFacts {
            rank,
            node: "n1".into(),
            process: rank as u32,
            cores: cores.to_vec(),
            threads,
            memory_bytes: 0,
            version: "1".into(),
            clock_s: 0.0,
            sees_folder: None,
        };
        assert!(advise(&[facts(0, &[0], 1), facts(1, &[1], 1)]).is_empty());
        let strangled = advise(&[facts(0, &[0], 2), facts(1, &[1], 2)]);
        assert!(strangled[0].contains("2 of 2 ranks") && strangled[0].contains("PE=2"), "{strangled:?}");
        let same = advise(&[facts(0, &[0], 1), facts(1, &[0], 1)]);
        assert!(same.iter().any(|line| line.contains("bound to core 0")), "{same:?}");
        assert!(advise(&[facts(0, &[0, 1], 1), facts(1, &[0, 1], 1)]).is_empty());
    }

    #[test]
    fn nodes_that_differ_are_noticed() {
        let facts = |rank, version: &str, clock_s, sees| RankFacts {
            rank,
            node: format!("n{rank}"),
            process: 1,
            cores: vec![rank],
            threads: 1,
            memory_bytes: 0,
            version: version.into(),
            clock_s,
            sees_folder: Some(sees),
        };
        let same = [facts(0, "1", 10.0, true), facts(1, "1", 11.9, true)];
        assert!(advise_on_nodes(&same).is_empty());
        let other = advise_on_nodes(&[facts(0, "1", 13.5, true), facts(1, "1", 13.0, true), facts(2, "2", 10.0, true)]);
        assert!(other[0].contains("rank 2 on node n2 runs consort 2"), "{other:?}");
        assert!(other[1].contains("node n0 is 3.5 s ahead of that of node n2"), "{other:?}");
        let folder = FolderFacts { path: "kept".into(), sync_s: Some(0.1), problem: None };
        assert_eq!(advise_on_folder(&folder, &same), None);
        let blind = advise_on_folder(&folder, &[facts(0, "1", 0.0, true), facts(1, "1", 0.0, false)]).unwrap();
        assert!(blind.contains("rank 1 on node n1 does not see"), "{blind}");
        let slow = advise_on_folder(&FolderFacts { sync_s: Some(3.0), ..folder }, &same).unwrap();
        assert!(slow.contains("took 3.0 s"), "{slow}");
    }

    #[test]
    fn a_folder_for_checkpoints_is_looked_at_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        for ranks in [1, 3] {
            for found in crate::comm::run_threads(ranks, 1, |comm| diagnose(comm, Some(folder.path()))).unwrap() {
                assert!(found.folder.unwrap().sync_s.is_some());
                assert!(found.ranks.iter().all(|rank| rank.sees_folder == Some(true)));
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            for found in crate::comm::run_threads(ranks, 1, |comm| diagnose(comm, Some(&missing))).unwrap() {
                assert!(found.advice.iter().any(|line| line.contains("cannot write there")), "{:?}", found.advice);
            }
        }
    }

    #[test]
    fn every_rank_is_in_the_diagnosis() {
        for diagnosis in crate::comm::run_threads(3, 1, |comm| diagnose(comm, None)).unwrap() {
            assert_eq!(diagnosis.ranks.len(), 3);
            assert_eq!(diagnosis.ranks[2].rank, 2);
            assert_eq!(diagnosis.all_reduce.len(), 3);
        }
    }
}
