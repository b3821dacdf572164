//! What is wrong with cores, nodes and folder, each with what to do.

use super::cores::list_cores;
use super::folder::no_locks;
use super::{FolderFacts, RankFacts};
use std::collections::{BTreeMap, BTreeSet};

/// What would keep checkpoints from being written or found.
pub(super) fn advise_on_folder(folder: &FolderFacts, ranks: &[RankFacts]) -> Vec<String> {
    const SLOW_S: f64 = 1.0;
    let path = folder.path.display();
    if let Some(problem) = &folder.problem {
        return vec![format!(
            "{path}: rank 0 cannot write there: {problem}; make the folder (mkdir -p {path}), or name another"
        )];
    }
    if let Some(blind) = ranks.iter().find(|rank| rank.folder.is_some_and(|view| !view.sees)) {
        return vec![format!(
            "{path}: rank {} on node {} does not see what rank 0 on node {} writes there; name a folder on a file system that \
             all nodes share",
            blind.rank, blind.node, ranks[0].node
        )];
    }
    let mut advice = Vec::new();
    if let Some(seconds) = folder.sync_s.filter(|seconds| *seconds > SLOW_S) {
        advice.push(format!(
            "{path}: a MiB took {seconds:.1} s to reach the disk; name a faster folder, or a longer --every"
        ));
    }
    if let Some(problem) = &folder.lock_problem {
        advice.push(no_locks(&folder.path, problem));
    }
    advice
}

/// Nodes that differ where they should not: programs and clocks.
pub(super) fn advise_on_nodes(ranks: &[RankFacts]) -> Vec<String> {
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
pub(super) fn advise(ranks: &[RankFacts]) -> Vec<String> {
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
        let masks: BTreeSet<&Vec<usize>> = ranks.iter().map(|rank| &rank.cores).collect();
        if masks.len() == 1 && ranks.len() > 1 && ranks[0].cores.len() == 1 {
            advice.push(format!(
                "node {node}: all {} ranks are bound to core {}; launch them with mpirun --bind-to none",
                ranks.len(),
                list_cores(&ranks[0].cores)
            ));
        } else if let Some(all) = ranks.iter().map(|rank| rank.node_cores).max()
            && all > cores.len()
        {
            let each = all / ranks.len();
            advice.push(format!(
                "node {node}: the ranks are bound to {} of the {all} cores there; launch them with mpirun --bind-to none (or --map-by \
                 slot:PE={each}), srun --cpus-per-task {each}",
                cores.len(),
            ));
        }
    }
    advice
}
