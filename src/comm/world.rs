//! Which world a program runs in, and how it ends: one function for `main`.

use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::threads::run_ranks;
use super::{Communicator, self_test};
use crate::error::{Error, ErrorKind, Result, is_catching, panic_text};
use crate::faults;
use crate::functions::check_denormals;

/// The most ranks that one process plays.
const MOST_THREAD_RANKS: usize = 4096;

/// Where the ranks come from: the words of `--world`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum World {
    /// MPI when a launcher's environment is present, else one rank.
    #[default]
    Auto,
    Mpi,
    /// One rank, whatever the environment says.
    Solo,
    /// So many ranks as threads of this process.
    Threads(usize),
}

impl FromStr for World {
    type Err = Error;

    fn from_str(word: &str) -> Result<World> {
        let threads = |n: &str| n.parse().ok().filter(|n| (1..=MOST_THREAD_RANKS).contains(n)).map(World::Threads);
        match word {
            "auto" => Some(World::Auto),
            "mpi" => Some(World::Mpi),
            "solo" => Some(World::Solo),
            _ => word.strip_prefix("threads:").and_then(threads),
        }
        .ok_or_else(|| {
            Error::usage(format!(
                "'{word}' is no world; use auto, mpi, solo or threads:N with N from 1 to {MOST_THREAD_RANKS}"
            ))
        })
    }
}

/// How many processes the launcher says it started, and the variable that says so. Not collective.
///
/// `SLURM_NTASKS` is never asked: a batch script has it too, where one process runs. A step of one task without PMIx is no
/// launcher either: a shell of `srun --pty` has one, and there every program is alone.
pub fn launcher_size() -> Option<(usize, &'static str)> {
    size_from(|name| std::env::var(name).ok())
}

/// The number that the launcher says this process has; None without one. Not collective.
pub fn launcher_rank() -> Option<usize> {
    let names = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"];
    names.iter().find_map(|name| std::env::var(name).ok()).and_then(|text| text.trim().parse().ok())
}

fn size_from(get: impl Fn(&str) -> Option<String>) -> Option<(usize, &'static str)> {
    let size = |name: &'static str| get(name)?.trim().parse().ok().map(|size: usize| (size, name));
    let step = || size("SLURM_STEP_NUM_TASKS").filter(|(tasks, _)| *tasks > 1 || get("PMIX_RANK").is_some());
    size("OMPI_COMM_WORLD_SIZE").or_else(|| size("PMI_SIZE")).or_else(step)
}

/// Name and version of the MPI library this program was built with, for `doctor`. Not collective.
/// `None` without MPI.
pub fn mpi_library_version() -> Option<String> {
    #[cfg(feature = "mpi")]
    return Some(super::mpi::library_version());
    #[cfg(not(feature = "mpi"))]
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Mpi,
    Solo,
    Threads(usize),
}

/// Which world it is, from the words, the launcher's environment and what was built.
fn choose(world: World, launcher: Option<(usize, &str)>, has_mpi: bool) -> Result<Chosen> {
    match (world, launcher) {
        (World::Threads(size), _) => Ok(Chosen::Threads(size)),
        (World::Solo, _) => Ok(Chosen::Solo),
        (World::Mpi, _) if !has_mpi => Err(Error::usage(
            "this program was built without MPI; build it with --features mpi, or use --world threads:N",
        )),
        (World::Auto, Some((size, name))) if !has_mpi && size > 1 => Err(Error::comm(format!(
            "{name}={size}: started as {size} processes, but this program was built without MPI, so each would train \
             alone and overwrite the others' files; build it with --features mpi, or start one process"
        ))),
        (World::Mpi, _) => Ok(Chosen::Mpi),
        (World::Auto, Some(_)) if has_mpi => Ok(Chosen::Mpi),
        (World::Auto, _) => Ok(Chosen::Solo),
    }
}

/// Open MPI ends a process that srun started without PMIx, with exit code 1 and a page about how SLURM was built.
/// `--world mpi` lets it try: there are builds of it with another PMI.
fn check_plugin(world: World, launcher: Option<(usize, &str)>, has_pmix: bool, library: &str) -> Result<()> {
    match (world, launcher) {
        (World::Auto, Some((size, "SLURM_STEP_NUM_TASKS"))) if !has_pmix && library.starts_with("Open MPI") => {
            Err(Error::comm(format!(
                "srun started {size} processes, but without PMIx, by which Open MPI finds them; use srun --mpi=pmix, or \
                 mpirun in the job (an Open MPI with another PMI: --world mpi)"
            )))
        }
        _ => Ok(()),
    }
}

/// Is the world as large as the launcher says? Otherwise the program and the launcher speak different
/// dialects of MPI, and each process believes to be alone.
#[cfg_attr(not(feature = "mpi"), allow(dead_code))]
fn check_size(size: usize, launcher: Option<(usize, &str)>, library: &str) -> Result<()> {
    match launcher {
        Some((expected, name)) if expected != size => Err(Error::comm(format!(
            "the launcher started {expected} processes ({name}={expected}), but MPI sees a world of {size}: this \
             program was probably built with another MPI library than the launcher's (found: {library}); srun wants \
             --mpi=pmix for Open MPI and --mpi=pmi2 for MPICH"
        ))),
        _ => Ok(()),
    }
}

/// Runs `body` on every rank of the chosen world, each inside its own rayon pool of `threads`
/// threads; the exit code of this process.
///
/// `body` returns the exit code of a success (0, or 75 when interrupted), the same on all ranks.
/// What it prints is its own affair (`comm.is_root()`); errors are printed here, once: a failure
/// that all ranks know of by the rank it happened on, any other by each rank that has it, which then
/// ends the job at once, so that no peer waits for it. A panic ends it with code 70.
pub fn run_world(world: World, threads: usize, body: impl Fn(&Communicator) -> Result<i32> + Sync) -> i32 {
    let launcher = launcher_size();
    let library = mpi_library_version().unwrap_or_default();
    let plugin = check_plugin(world, launcher, std::env::var_os("PMIX_RANK").is_some(), &library);
    let chosen = match plugin.and_then(|()| choose(world, launcher, cfg!(feature = "mpi"))) {
        Ok(chosen) => chosen,
        Err(error) => return refuse(&error),
    };
    match chosen {
        Chosen::Threads(size) => run_as_threads(size, threads, body),
        Chosen::Solo => in_pool(threads, |ready| {
            let _hook = Hook::set(1, None);
            run_body(&Communicator::solo(), ready, &body)
        }),
        #[cfg(feature = "mpi")]
        Chosen::Mpi => in_pool(threads, |ready| run_on_mpi(launcher, ready, &body)),
        #[cfg(not(feature = "mpi"))]
        Chosen::Mpi => unreachable!("choose() knows what was built"),
    }
}

/// A line on stderr. A disk that is full under the log must not turn an error into an abort.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "consort: {line}");
}

/// Says why no world can be started. With several processes, only the first one says it; the others wait a moment, since
/// the launcher ends all as soon as one has failed.
fn refuse(error: &Error) -> i32 {
    match launcher_rank().is_none_or(|rank| rank == 0) {
        true => say(format_args!("{error}")),
        false => std::thread::sleep(std::time::Duration::from_secs(1)),
    }
    error.kind().exit_code()
}

/// The whole life of a rank, MPI's start and end included, happens on one thread of its pool: that
/// is the thread MPI calls the main one, and parallel loops start from inside the pool. Where the system refuses the threads,
/// perhaps on this rank alone, the rank still starts, to say so to the others.
fn in_pool(threads: usize, run: impl FnOnce(Result<()>) -> i32 + Send) -> i32 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).start_handler(|_| RANK.set(0)).build();
    match pool {
        Ok(pool) => pool.install(|| run(Ok(()))),
        Err(e) => run(Err(Error::usage(format!("cannot start {threads} threads: {e}")))),
    }
}

fn run_as_threads(size: usize, threads: usize, body: impl Fn(&Communicator) -> Result<i32> + Sync) -> i32 {
    let hook = Hook::set(size, None);
    let ran = run_ranks(
        size,
        threads,
        |rank, _| RANK.set(rank),
        |_, transport| transport,
        |comm| {
            self_test(comm)?;
            comm.agree(check_denormals().and_then(|()| faults::begin(0)))?;
            let code = body(comm)?;
            comm.end()?;
            Ok(code)
        },
    );
    drop(hook);
    match ran {
        Ok(codes) => codes.into_iter().max().unwrap_or(0),
        Err((rank, error)) => {
            report(rank, size, &error);
            error.kind().exit_code()
        }
    }
}

/// The body on a process's own communicator, from self-test to the last common call; unless some rank is not `ready`.
fn run_body(comm: &Communicator, ready: Result<()>, body: impl Fn(&Communicator) -> Result<i32>) -> i32 {
    let begin = || ready.and_then(|()| check_denormals()).and_then(|()| faults::begin(comm.rank()));
    let run = || self_test(comm).and_then(|()| comm.agree(begin())).and_then(|()| body(comm));
    let ran = catch_unwind(AssertUnwindSafe(run));
    let mut result = ran.unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
    let mut reported = false;
    // A mismatch with a peer's call costs both sides one more common end; more rounds are a bug.
    for _ in 0..4 {
        if let Err(error) = &result {
            let reporter = if comm.size() == 1 { Some(0) } else { comm.reporter_of(error) };
            if !reported && reporter.is_none_or(|rank| rank == comm.rank()) {
                report(comm.rank(), comm.size(), error);
            }
            reported = true;
            if reporter.is_none() {
                comm.transport.abort(error.kind().exit_code());
            }
        }
        match comm.end() {
            Ok(()) => return result.unwrap_or_else(|error| error.kind().exit_code()),
            Err(error) if comm.size() == 1 => {
                report(0, 1, &error);
                return error.kind().exit_code();
            }
            Err(error) => result = result.and(Err(error)),
        }
    }
    comm.transport.abort(ErrorKind::Comm.exit_code())
}

#[cfg(feature = "mpi")]
fn run_on_mpi(
    launcher: Option<(usize, &'static str)>,
    ready: Result<()>,
    body: impl Fn(&Communicator) -> Result<i32>,
) -> i32 {
    use super::by_node::{Limits, by_node};
    use super::call::hash_bytes;
    use super::mpi;
    use super::transport::Transport;
    let world = match mpi::start() {
        Ok(world) => world,
        Err(error) => return refuse(&error),
    };
    let size = world.size();
    let node = hash_bytes(world.node_name().as_bytes());
    let world =
        check_size(size, launcher, &world.library()).and_then(|()| by_node(Box::new(world), node, Limits::default()));
    let comm = match world {
        Ok(world) => Communicator::new(world),
        Err(error) => {
            refuse(&error);
            match size {
                1 => mpi::finalize(),
                _ => mpi::abort_job(error.kind().exit_code()),
            }
            return error.kind().exit_code();
        }
    };
    RANK.set(comm.rank());
    let hook = Hook::set_for_rank(comm.rank(), comm.size(), Some(mpi::abort_job));
    let code = run_body(&comm, ready, body);
    drop(comm);
    mpi::finalize();
    drop(hook);
    code
}

fn report(rank: usize, size: usize, error: &Error) {
    if error.is_panic() {
        return; // the hook has said it, with its place
    }
    match size {
        1 => say(format_args!("{error}")),
        _ => say(format_args!("rank {rank} of {size}: {error}")),
    }
}

thread_local! {
    /// The rank this thread works for, for the message of a panic.
    static RANK: Cell<usize> = const { Cell::new(0) };
}

type AnyHook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// Our words for a panic while a world runs; the former words afterwards.
struct Hook {
    former: Option<AnyHook>,
}

impl Hook {
    fn set(size: usize, abort: Option<fn(i32) -> !>) -> Hook {
        Hook::install(None, size, abort)
    }

    /// All threads of this process work for one rank.
    #[cfg(feature = "mpi")]
    fn set_for_rank(rank: usize, size: usize, abort: Option<fn(i32) -> !>) -> Hook {
        Hook::install(Some(rank), size, abort)
    }

    fn install(process_rank: Option<usize>, size: usize, abort: Option<fn(i32) -> !>) -> Hook {
        let former = std::panic::take_hook();
        let said = AtomicBool::new(false);
        std::panic::set_hook(Box::new(move |info| {
            if said.swap(true, Ordering::Relaxed) {
                return; // another thread of the same loop was first, and is ending the job
            }
            let rank = process_rank.unwrap_or_else(|| RANK.get());
            let text = panic_text(info.payload());
            let place = info.location().map_or(String::new(), |at| format!(" at {}:{}", at.file(), at.line()));
            match size {
                1 => say(format_args!("internal error: {text}{place}")),
                _ => say(format_args!("rank {rank} of {size}: internal error: {text}{place}")),
            }
            // Caught, it goes to all ranks as an error.
            if let Some(abort) = abort.filter(|_| !is_catching()) {
                abort(ErrorKind::Internal.exit_code());
            }
        }));
        Hook { former: Some(former) }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(former) = self.former.take()
            && !std::thread::panicking()
        {
            std::panic::set_hook(former);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_world() {
        assert_eq!("threads:3".parse(), Ok(World::Threads(3)));
        assert_eq!("auto".parse(), Ok(World::Auto));
        for wrong in ["threads:0", "threads:", "threads:x", "threads:18446744073709551615", "MPI", ""] {
            assert_eq!(wrong.parse::<World>().unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_batch_scripts_own_task_count_is_not_a_launcher() {
        let get = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string())
        };
        assert_eq!(size_from(get(&[("SLURM_NTASKS", "8")])), None);
        assert_eq!(size_from(get(&[("SLURM_STEP_NUM_TASKS", "8")])), Some((8, "SLURM_STEP_NUM_TASKS")));
        assert_eq!(size_from(get(&[("SLURM_STEP_NUM_TASKS", "1")])), None, "a shell of srun --pty");
        let pmix = &[("SLURM_STEP_NUM_TASKS", "1"), ("PMIX_RANK", "0")];
        assert_eq!(size_from(get(pmix)), Some((1, "SLURM_STEP_NUM_TASKS")));
        let both = &[("SLURM_STEP_NUM_TASKS", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(size_from(get(both)), Some((4, "OMPI_COMM_WORLD_SIZE")));
        assert_eq!(size_from(get(&[("PMI_SIZE", "2")])), Some((2, "PMI_SIZE")));
    }

    #[test]
    fn a_program_without_mpi_refuses_to_run_as_several_copies() {
        let eight = Some((8, "PMI_SIZE"));
        assert!(choose(World::Auto, eight, false).unwrap_err().to_string().contains("PMI_SIZE=8"));
        assert_eq!(choose(World::Auto, Some((1, "PMI_SIZE")), false), Ok(Chosen::Solo));
        assert_eq!(choose(World::Auto, None, true), Ok(Chosen::Solo));
        assert_eq!(choose(World::Auto, eight, true), Ok(Chosen::Mpi));
        assert_eq!(choose(World::Threads(3), eight, false), Ok(Chosen::Threads(3)));
        assert_eq!(choose(World::Mpi, None, false).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_launcher_of_another_library_is_noticed() {
        let error = check_size(1, Some((8, "PMI_SIZE")), "Open MPI v4.1.4").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Comm);
        assert!(error.to_string().contains("another MPI library") && error.to_string().contains("Open MPI v4.1.4"));
        assert_eq!(check_size(8, Some((8, "PMI_SIZE")), ""), Ok(()));
        assert_eq!(check_size(1, None, ""), Ok(()));
    }

    #[test]
    fn srun_without_pmix_is_refused_before_open_mpi_ends_the_process() {
        let step = Some((2, "SLURM_STEP_NUM_TASKS"));
        let error = check_plugin(World::Auto, step, false, "Open MPI v4.1.4").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Comm);
        assert!(error.to_string().contains("--mpi=pmix"));
        assert_eq!(check_plugin(World::Auto, step, true, "Open MPI v4.1.4"), Ok(()));
        assert_eq!(check_plugin(World::Auto, step, false, "MPICH Version: 4.0.2"), Ok(()));
        assert_eq!(check_plugin(World::Mpi, step, false, "Open MPI v4.1.4"), Ok(()));
        assert_eq!(check_plugin(World::Auto, Some((2, "PMI_SIZE")), false, "Open MPI v4.1.4"), Ok(()));
    }

    #[test]
    fn exit_codes_of_a_thread_world() {
        let code = |body: fn(&Communicator) -> Result<i32>| run_world(World::Threads(3), 1, body);
        assert_eq!(code(|_| Ok(0)), 0);
        assert_eq!(code(|_| Ok(75)), 75);
        assert_eq!(code(|comm| comm.agree(if comm.is_root() { Ok(0) } else { Err(Error::data("torn")) })), 3);
        assert_eq!(code(|comm| if comm.rank() == 2 { Ok(0) } else { comm.barrier().map(|()| 0) }), 4);
        assert_eq!(code(|comm| comm.send(&[1u8], 0, 0).map(|()| 0)), 4);
    }
}
