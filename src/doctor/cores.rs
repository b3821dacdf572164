//! Cores, threads and memory of this process and its launcher.

use crate::comm::{World, launcher_size};

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
        _ => node_cores(),
    };
    let cap = if launcher_size().is_some() { number("SLURM_CPUS_PER_TASK") } else { None };
    share(mask, node_cores, on_node).min(cap.unwrap_or(usize::MAX)).max(1)
}

/// Cores of this node that its launcher may use; of SLURM's no more than the job has there.
pub(super) fn node_cores() -> usize {
    let launcher = allowed_cores(&format!("/proc/{}/status", std::os::unix::process::parent_id())).len();
    let of_job = std::env::var("SLURM_CPUS_ON_NODE").ok().and_then(|text| leading_number(&text));
    of_job.map_or(launcher, |cores| cores.min(launcher.max(1)))
}

/// Cores for each of `on_node` ranks with masks of `mask` cores on a node of `node_cores`.
pub(super) fn share(mask: usize, node_cores: usize, on_node: usize) -> usize {
    let sharing = (on_node * mask).div_ceil(node_cores.max(mask)).max(1);
    (mask / sharing).max(1)
}

/// `4(x2),3` → 4
pub(super) fn leading_number(text: &str) -> Option<usize> {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|n| *n > 0)
}

/// The cores of a process's affinity mask; empty where there is no `/proc`.
pub(super) fn allowed_cores(status: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("");
    let cores = parse_cores(list);
    match cores.is_empty() && status == "/proc/self/status" {
        true => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
        false => cores,
    }
}

/// `0-2,8` → 0, 1, 2, 8
pub(super) fn parse_cores(list: &str) -> Vec<usize> {
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

pub(super) fn memory_bytes(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("");
    value.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
