//! # doctor — this machine, as the program sees it
//!
//! In:    the environment, `/proc`, the ranks there are, what `srun` says.
//! Out:   a [`Diagnosis`]: libraries, ranks → nodes → cores → threads, message times, memory, and what is wrong.
//! Talks: gathers a line of every rank; times all-reduces.
//! Never: files of the user, flags, printing.

mod advice;
mod cores;
mod folder;
mod launch;

pub use cores::{default_threads, list_cores, peak_memory_bytes};
pub use folder::{FolderFacts, FolderView};
pub use launch::LaunchFacts;

use crate::comm::{Communicator, launcher_size};
use crate::error::{Error, Result};
use crate::nodes;
use advice::{advise, advise_on_folder, advise_on_nodes};
use cores::{allowed_cores, memory_bytes};
use launch::advise_on_launch;
use serde::{Deserialize, Serialize};
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
    /// Cores of its node that its launcher may use.
    pub node_cores: usize,
    pub threads: usize,
    /// Resident now, bytes.
    pub memory_bytes: u64,
    /// Of the program that this rank runs.
    pub version: String,
    /// The same for the same file of a program; "unknown" where the system does not show it.
    pub build: String,
    /// Wall clock right after a barrier, seconds since 1970.
    pub clock_s: f64,
    /// What it saw of the folder of `--checkpoint`; None without one.
    pub folder: Option<FolderView>,
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
    pub launch: LaunchFacts,
    pub size: usize,
    pub hdf5_version: String,
    /// HDF5_USE_FILE_LOCKING. Tables are opened without locks whatever it says.
    pub hdf5_locking: String,
    pub blas: String,
    pub ranks: Vec<RankFacts>,
    pub all_reduce: Vec<ReduceTime>,
    pub folder: Option<FolderFacts>,
    /// Input files that were compared.
    pub data: Vec<PathBuf>,
    /// What is wrong, each with what to do.
    pub advice: Vec<String>,
}

/// Looks at the machine, at a folder for checkpoints if one is named, and at input files. Collective; every rank gets the whole diagnosis.
pub fn diagnose(comm: &Communicator, folder: Option<&Path>, data: &[PathBuf]) -> Result<Diagnosis> {
    let (folder, view) = folder.map(|path| folder::look_at(comm, path)).transpose()?.unzip();
    let launch = nodes::from_root(comm, LaunchFacts::here)?;
    comm.barrier()?;
    let clock_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let mine = RankFacts {
        rank: comm.rank(),
        node: comm.node_name(),
        process: std::process::id(),
        cores: allowed_cores("/proc/self/status"),
        node_cores: cores::node_cores(),
        threads: rayon::current_num_threads(),
        memory_bytes: memory_bytes("VmRSS:"),
        version: env!("CARGO_PKG_VERSION").to_string(),
        build: nodes::build_text(nodes::build()),
        clock_s,
        folder: view,
    };
    let words = serde_json::to_vec(&mine).map_err(|e| Error::internal(e.to_string()))?;
    let gathered = comm.all_gather_bytes(&words)?;
    let facts = |rank| serde_json::from_slice(gathered.of_rank(rank)).map_err(|e| Error::comm(e.to_string()));
    let ranks = (0..comm.size()).map(facts).collect::<Result<Vec<RankFacts>>>()?;
    let all_reduce =
        [4, 4 << 10, 1 << 20].into_iter().map(|bytes| time_all_reduce(comm, bytes)).collect::<Result<_>>()?;
    let mpi_library = crate::comm::mpi_library_version();
    let mut advice = advise_on_launch(&launch, &ranks, mpi_library.as_deref());
    advice.extend(advise(&ranks));
    advice.extend(advise_on_nodes(&ranks));
    advice.extend(folder.iter().flat_map(|folder| advise_on_folder(folder, &ranks)));
    // What differs is one more thing to say, and the same on all ranks.
    advice.extend(nodes::agree_on_files(comm, data).err().map(|e| e.to_string()));
    let refused: Option<String> = nodes::from_root(comm, || data.iter().find_map(|path| folder::refused(path)))?;
    advice.extend(refused);
    Ok(Diagnosis {
        version: env!("CARGO_PKG_VERSION").to_string(),
        transport: comm.library(),
        mpi_library,
        launcher: launcher_size().map(|(size, name)| (size, name.to_string())),
        launch,
        size: comm.size(),
        hdf5_version: crate::store::hdf5_version(),
        hdf5_locking: std::env::var("HDF5_USE_FILE_LOCKING").unwrap_or_else(|_| "not set".to_string()),
        blas: crate::blas::fingerprint(),
        ranks,
        all_reduce,
        folder,
        data: data.to_vec(),
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

#[cfg(test)]
mod tests;
