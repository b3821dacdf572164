//! How the ranks were started, from what launchers leave in the environment, and what is wrong with it.

use super::RankFacts;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is looked at of the environment.
const VARIABLES: [&str; 19] = [
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "PMI_SIZE",
    "PMIX_RANK",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_SIZE",
    "FLUX_JOB_SIZE",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_END_TIME",
    "SLURM_NTASKS",
    "SLURM_STEP_ID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_CPUS_PER_TASK",
    "SRUN_CPUS_PER_TASK",
    "SLURM_CPUS_ON_NODE",
    "SLURM_MPI_TYPE",
    "OMP_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// What rank 0 knows of its launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// Those of the environment that say something about it.
    pub variables: BTreeMap<String, String>,
    /// The ways in which this SLURM lets MPI programs find each other (`srun --mpi=list`); None without SLURM.
    pub slurm_mpi: Option<Vec<String>>,
}

impl LaunchFacts {
    /// Of this process. Asks SLURM, which takes a moment. Not collective.
    pub(super) fn here() -> LaunchFacts {
        let value = |name: &str| std::env::var(name).ok().map(|value| (name.to_string(), value));
        LaunchFacts { variables: VARIABLES.into_iter().filter_map(value).collect(), slurm_mpi: slurm_mpi() }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    /// `4(x2),3` → 4
    fn number(&self, name: &str) -> Option<usize> {
        self.text(name).and_then(super::cores::leading_number)
    }

    fn has_slurm_mpi(&self, word: &str) -> Option<bool> {
        self.slurm_mpi.as_ref().map(|all| all.iter().any(|one| one.starts_with(word)))
    }
}

/// What `srun --mpi=list` names; None where there is no srun, or it does not answer.
fn slurm_mpi() -> Option<Vec<String>> {
    let folders = std::env::var_os("PATH")?;
    let srun = std::env::split_paths(&folders).map(|folder| folder.join("srun")).find(|path| path.is_file())?;
    plugins_of(&said(&srun, &["--mpi=list"], Duration::from_secs(5))?)
}

/// What a program writes, unless it takes longer.
fn said(program: &Path, words: &[&str], limit: Duration) -> Option<String> {
    let mut command = Command::new(program);
    // As one that was typed, not as a part of this job.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_launch(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    let out = tempfile::NamedTempFile::new().ok()?;
    let first = out.reopen().ok()?;
    let second = first.try_clone().ok()?;
    let child = command.args(words).stdin(Stdio::null()).stdout(first).stderr(second).spawn();
    let (mut child, since) = (child.ok()?, Instant::now());
    while child.try_wait().ok()?.is_none() {
        if since.elapsed() > limit {
            let _ = child.kill(); // it may have ended just now
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::read_to_string(out.path()).ok()
}

/// Not SLURM_CONF, by which srun finds the SLURM of this cluster.
fn is_of_launch(name: &str) -> bool {
    name != "SLURM_CONF" && ["SLURM_", "PMI_", "PMIX_", "OMPI_", "PRTE_"].iter().any(|start| name.starts_with(start))
}

/// The names in what srun says, if it is a list: a heading, then one a line; older ones put `srun: ` before, newer ones list versions after
/// `specific pmix plugin versions available:`.
fn plugins_of(text: &str) -> Option<Vec<String>> {
    if !text.contains("types are") {
        return None; // no SLURM is set up here
    }
    let lines = text.lines().map(|line| line.trim().trim_start_matches("srun:").trim());
    let words = lines.flat_map(|line| match line.split_once("versions available:") {
        Some((_, versions)) => versions.split([',', ' ']).collect::<Vec<_>>(),
        None if line.contains(' ') || line.ends_with(':') => Vec::new(),
        None => vec![line],
    });
    Some(words.filter(|word| !word.is_empty()).map(str::to_string).collect())
}

/// Launch mistakes, each with the line that cures it.
///
/// * `library`: the MPI library's name and version, if there is one.
/// * `is_alone`: the ranks found each other through no launcher.
pub(super) fn advise_on_launch(facts: &LaunchFacts, ranks: &[RankFacts], library: Option<&str>) -> Vec<String> {
    let mut advice = Vec::new();
    let library = library.map(|text| text.split(',').next().unwrap_or(text));
    let size = ranks.len();
    let processes = ranks.iter().map(|rank| (&rank.node, rank.process)).collect::<BTreeSet<_>>().len();
    let nodes: BTreeSet<&str> = ranks.iter().map(|rank| rank.node.as_str()).collect();
    let way = Way::of(facts, library);
    let started = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "FLUX_JOB_SIZE", "SLURM_STEP_NUM_TASKS"];
    let copies = started.iter().find_map(|name| facts.number(name).map(|n| (*name, n)));
    let tasks = facts.number("SLURM_NTASKS").filter(|_| facts.text("SLURM_JOB_ID").is_some());
    let job_nodes = facts.number("SLURM_JOB_NUM_NODES").unwrap_or(1);

    match (copies, tasks) {
        (Some((name, n)), _) if processes == 1 && n > 1 => advice.push(format!(
            "{name}={n}: {n} processes were started, but each is alone and would do all of the work; leave out --world, use a \
             program with MPI, and start it by the launcher of its own library ({}): {}",
            library.unwrap_or("none is built in"),
            way.line(n)
        )),
        (None, Some(tasks)) if processes == 1 && (tasks > 1 || job_nodes > 1) => advice.push(format!(
            "this is one process in a job of {tasks} tasks (nodes: {job_nodes}): the others are not started; use {}",
            way.line(tasks)
        )),
        (Some(_), Some(tasks)) if processes > 1 && processes < tasks => advice.push(format!(
            "{processes} ranks were started in a job of {tasks} tasks; for all of them use {}",
            way.line(tasks)
        )),
        _ => {}
    }
    if nodes.len() < job_nodes && size >= job_nodes && processes > 1 {
        advice.push(format!(
            "all {size} ranks are on {} of the job's {job_nodes} nodes; use {}",
            nodes.len(),
            way.on_all_nodes(size, job_nodes)
        ));
    }
    if let Some(wanted) = facts.number("SLURM_CPUS_PER_TASK")
        && let Some(rank) = ranks.iter().find(|rank| rank.cores.len() < wanted)
        && processes > 1
    {
        advice.push(format!(
            "the job has {wanted} cores for each task, but rank {} may use {}: {}",
            rank.rank,
            rank.cores.len(),
            match way.by_srun && processes > 1 {
                true => format!(
                    "srun does not take it over from the job since SLURM 22.05; before it: export \
                     SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK (or srun --cpus-per-task {wanted})"
                ),
                false => format!("mpirun --map-by slot:PE={wanted} --bind-to core (or --bind-to none)"),
            }
        ));
    }
    advice.extend(way.plugin_advice(facts, library));
    for name in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
        if let Some(threads) = facts.number(name).filter(|n| ranks.iter().any(|rank| *n > rank.threads)) {
            advice.push(format!(
                "{name}={threads} changes nothing here; for so many threads a rank use --threads {threads}"
            ));
        }
    }
    advice
}

/// The way to start the program here.
struct Way {
    /// The ranks here were started by srun itself, not by an mpirun in the job.
    by_srun: bool,
    /// The word after `srun --mpi=`, if srun can do it.
    plugin: Option<&'static str>,
}

impl Way {
    fn of(facts: &LaunchFacts, library: Option<&str>) -> Way {
        let wanted = wanted_plugin(library);
        let can = facts.text("SLURM_JOB_ID").is_some() && facts.has_slurm_mpi(wanted).unwrap_or(true);
        let by_srun = facts.text("OMPI_COMM_WORLD_SIZE").is_none() && facts.text("SLURM_STEP_NUM_TASKS").is_some();
        Way { by_srun, plugin: can.then_some(wanted) }
    }

    fn line(&self, n: usize) -> String {
        match self.plugin {
            Some(plugin) => format!("srun --mpi={plugin} -n {n} consort … (or mpirun -n {n} consort …)"),
            None => format!("mpirun -n {n} consort …"),
        }
    }

    fn on_all_nodes(&self, size: usize, nodes: usize) -> String {
        let of_node = size.div_ceil(nodes);
        match self.by_srun {
            true => format!("srun --nodes {nodes} --ntasks-per-node {of_node} …"),
            false => format!(
                "mpirun --map-by ppr:{of_node}:node …; if it knows of one node only it was built without SLURM: add --host \
                 $(scontrol show hostnames | sed 's/$/:{of_node}/' | paste -sd,)"
            ),
        }
    }

    /// What srun lacks for this library.
    fn plugin_advice(&self, facts: &LaunchFacts, library: Option<&str>) -> Option<String> {
        let wanted = wanted_plugin(library);
        let library = library?;
        let all = facts.slurm_mpi.as_ref().filter(|_| facts.has_slurm_mpi(wanted) == Some(false))?;
        Some(format!(
            "srun cannot start this program: its library ({library}) wants --mpi={wanted}, and srun --mpi=list has {}; use mpirun in \
             the job, or install SLURM's {wanted} plugin",
            if all.is_empty() { "none".to_string() } else { all.join(", ") }
        ))
    }
}

fn wanted_plugin(library: Option<&str>) -> &'static str {
    if library.is_some_and(|library| !library.starts_with("Open MPI")) { "pmi2" } else { "pmix" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(variables: &[(&str, &str)], plugins: Option<&[&str]>) -> LaunchFacts {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let slurm_mpi = plugins.map(|all| all.iter().map(|name| name.to_string()).collect());
        LaunchFacts { variables, slurm_mpi }
    }

    /// So many ranks with so many cores each, dealt to nodes in turn.
    fn ranks(n: usize, nodes: usize, cores: usize) -> Vec<RankFacts> {
        let rank = |rank: usize| RankFacts {
            cores: (0..cores).collect(),
            threads: cores,
            ..RankFacts::of_tests(rank, &format!("n{}", rank % nodes))
        };
        (0..n).map(rank).collect()
    }

    const OPEN_MPI: Option<&str> = Some("Open MPI v4.1.4, package: Debian OpenMPI");
    const MPICH: Option<&str> = Some("MPICH Version: 4.0.2");
    /// A batch script of 8 tasks on 2 nodes.
    const JOB: [(&str, &str); 3] = [("SLURM_JOB_ID", "17"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_NUM_NODES", "2")];

    fn all(variables: &[(&str, &str)], plugins: Option<&[&str]>, ranks: &[RankFacts], library: Option<&str>) -> String {
        advise_on_launch(&facts(variables, plugins), ranks, library).join("\n")
    }

    #[test]
    fn sound_launches_get_no_advice() {
        assert_eq!(all(&[], None, &ranks(1, 1, 4), OPEN_MPI), "");
        assert_eq!(all(&[("OMPI_COMM_WORLD_SIZE", "4")], None, &ranks(4, 1, 1), OPEN_MPI), "");
        assert_eq!(all(&[("PMI_SIZE", "4")], None, &ranks(4, 1, 1), MPICH), "");
        let mpirun = [&JOB[..], &[("OMPI_COMM_WORLD_SIZE", "8"), ("SLURM_STEP_NUM_TASKS", "2")]].concat();
        assert_eq!(all(&mpirun, Some(&["pmi2", "pmix", "pmix_v4"]), &ranks(8, 2, 1), OPEN_MPI), "");
        let srun =
            [&JOB[..], &[("SLURM_STEP_NUM_TASKS", "8"), ("PMIX_RANK", "0"), ("SLURM_CPUS_PER_TASK", "3")]].concat();
        assert_eq!(all(&srun, Some(&["pmix"]), &ranks(8, 2, 3), OPEN_MPI), "");
        // One task on one node has no others to start.
        assert_eq!(all(&[("SLURM_JOB_ID", "1"), ("SLURM_NTASKS", "1")], None, &ranks(1, 1, 4), OPEN_MPI), "");
    }

    #[test]
    fn processes_that_are_alone_are_noticed() {
        let told = all(&[("PMI_SIZE", "4")], None, &ranks(1, 1, 4), OPEN_MPI);
        assert!(told.contains("PMI_SIZE=4") && told.contains("mpirun -n 4 consort"), "{told}");
        let told = all(&[("MV2_COMM_WORLD_SIZE", "3")], None, &ranks(1, 1, 4), None);
        assert!(told.contains("each is alone") && told.contains("none is built in"), "{told}");
        let told = all(&JOB, Some(&["pmix"]), &ranks(1, 1, 4), OPEN_MPI);
        assert!(
            told.contains("one process in a job of 8 tasks (nodes: 2)") && told.contains("srun --mpi=pmix -n 8"),
            "{told}"
        );
        let told = all(&JOB, Some(&["pmi2"]), &ranks(1, 1, 4), MPICH);
        assert!(told.contains("srun --mpi=pmi2 -n 8"), "{told}");
        let told = all(&JOB, Some(&["none", "cray_shasta"]), &ranks(1, 1, 4), OPEN_MPI);
        assert!(
            told.contains("use mpirun -n 8")
                && told.contains("(Open MPI v4.1.4) wants --mpi=pmix")
                && told.contains("srun --mpi=list has none, cray_shasta"),
            "{told}"
        );
        // Ranks that are threads of one process are no processes.
        let threads: Vec<RankFacts> = ranks(4, 1, 2).into_iter().map(|rank| RankFacts { process: 7, ..rank }).collect();
        let told = all(&JOB, None, &threads, OPEN_MPI);
        assert!(told.contains("one process in a job"), "{told}");
    }

    #[test]
    fn fewer_ranks_or_nodes_than_the_job_has_are_noticed() {
        let two = [&JOB[..], &[("OMPI_COMM_WORLD_SIZE", "2")]].concat();
        let told = all(&two, None, &ranks(2, 2, 1), OPEN_MPI);
        assert!(told.contains("2 ranks were started in a job of 8 tasks"), "{told}");
        let eight = [&JOB[..], &[("OMPI_COMM_WORLD_SIZE", "8")]].concat();
        let told = all(&eight, None, &ranks(8, 1, 1), OPEN_MPI);
        assert!(told.contains("on 1 of the job's 2 nodes") && told.contains("ppr:4:node"), "{told}");
        let srun = [&JOB[..], &[("SLURM_STEP_NUM_TASKS", "8"), ("PMIX_RANK", "0")]].concat();
        let told = all(&srun, None, &ranks(8, 1, 1), OPEN_MPI);
        assert!(told.contains("srun --nodes 2 --ntasks-per-node 4"), "{told}");
    }

    #[test]
    fn cores_that_srun_or_mpirun_keep_back_are_noticed() {
        let srun =
            [&JOB[..], &[("SLURM_STEP_NUM_TASKS", "8"), ("PMIX_RANK", "0"), ("SLURM_CPUS_PER_TASK", "4")]].concat();
        let told = all(&srun, None, &ranks(8, 2, 1), OPEN_MPI);
        assert!(told.contains("4 cores for each task, but rank 0 may use 1"), "{told}");
        assert!(told.contains("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"), "{told}");
        let mpirun = [&JOB[..], &[("OMPI_COMM_WORLD_SIZE", "8"), ("SLURM_CPUS_PER_TASK", "4")]].concat();
        let told = all(&mpirun, None, &ranks(8, 2, 1), OPEN_MPI);
        assert!(told.contains("--map-by slot:PE=4") && !told.contains("SRUN_"), "{told}");
    }

    #[test]
    fn variables_without_effect_are_named() {
        let told = all(&[("OMP_NUM_THREADS", "8")], None, &ranks(1, 1, 2), OPEN_MPI);
        assert!(told.contains("OMP_NUM_THREADS=8") && told.contains("--threads 8"), "{told}");
        assert_eq!(all(&[("OMP_NUM_THREADS", "1")], None, &ranks(1, 1, 2), OPEN_MPI), "");
    }

    #[test]
    fn lists_of_plugins_of_old_and_new_sruns_are_read() {
        let old = "srun: MPI types are...\nsrun: cray_shasta\nsrun: pmi2\nsrun: pmix\nsrun: pmix_v4\nsrun: none\n";
        assert_eq!(plugins_of(old).unwrap(), ["cray_shasta", "pmi2", "pmix", "pmix_v4", "none"]);
        let new = "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\nspecific pmix plugin versions available: pmix_v3,pmix_v4\n";
        assert_eq!(plugins_of(new).unwrap(), ["none", "pmi2", "pmix", "pmix_v3", "pmix_v4"]);
        assert_eq!(plugins_of("srun: fatal: Could not establish a configuration source\n"), None);
    }

    #[test]
    fn a_program_that_does_not_answer_is_not_waited_for() {
        let sh = Path::new("/bin/sh");
        assert!(is_of_launch("SLURM_JOB_ID") && !is_of_launch("SLURM_CONF") && !is_of_launch("PATH"));
        assert_eq!(said(sh, &["-c", "echo one; echo two >&2"], Duration::from_secs(20)).unwrap(), "one\ntwo\n");
        let since = Instant::now();
        assert_eq!(said(sh, &["-c", "exec sleep 60"], Duration::from_millis(50)), None);
        assert!(since.elapsed() < Duration::from_secs(20));
    }
}
