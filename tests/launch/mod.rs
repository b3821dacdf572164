//! Programs started, watched, and stopped when they hang.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TIME_LIMIT: Duration = Duration::from_secs(120);

/// How a program ended.
#[allow(dead_code, reason = "not every test that starts programs looks at all of it")]
pub struct Ended {
    /// `None`: it hung and was stopped.
    pub code: Option<i32>,
    pub out: String,
    /// stdout, then stderr.
    pub text: String,
    pub took: Duration,
}

#[allow(dead_code, reason = "not every test that starts programs has several ranks")]
pub fn launcher() -> String {
    std::env::var("CONSORT_MPIEXEC").unwrap_or_else(|_| "mpirun".to_string())
}

/// With room for more ranks than cores.
#[allow(dead_code, reason = "not every test that starts programs does so in its own way")]
pub fn roomy(command: &mut Command) -> &mut Command {
    command
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_mpi_yield_when_idle", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none")
}

/// Runs it to its end.
pub fn end_of(mut command: Command) -> Ended {
    let since = Instant::now();
    let child = roomy(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the launcher was found before");
    let out = std::thread::spawn({
        let from = child.stdout.take().expect("piped");
        move || all_of(from)
    });
    let err = std::thread::spawn({
        let from = child.stderr.take().expect("piped");
        move || all_of(from)
    });
    let code = wait(&mut child, since);
    let out = out.join().unwrap_or_default();
    let text = out.clone() + &err.join().unwrap_or_default();
    Ended { code, out, text, took: since.elapsed() }
}

fn all_of(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).to_string()
}

/// The exit code; after the time limit the launcher is asked, then forced, to end.
fn wait(child: &mut Child, since: Instant) -> Option<i32> {
    let mut asked = false;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return if asked { None } else { Some(status.code().unwrap_or(-1)) };
        }
        if since.elapsed() > TIME_LIMIT && !asked {
            Command::new("kill").arg(child.id().to_string()).status().ok();
            asked = true;
        }
        if since.elapsed() > TIME_LIMIT + Duration::from_secs(10) {
            child.kill().ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[allow(dead_code, reason = "some tests start programs in their own way")]
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_consort");

/// Whether there is a launcher. Without one SKIPPED is said, or the test fails where it has to be there.
#[allow(dead_code, reason = "not every test that starts programs asks")]
pub fn has_mpi() -> bool {
    let found = cfg!(feature = "mpi")
        && Command::new(launcher()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        let required = std::env::var("CONSORT_REQUIRE_MPI").is_ok_and(|v| v == "1");
        assert!(!required || !cfg!(feature = "mpi"), "no MPI launcher '{}'; set CONSORT_MPIEXEC", launcher());
        println!("SKIPPED: what needs several ranks");
    }
    found
}

/// The program in `folder`, on `ranks` ranks; 0: without a launcher.
#[allow(dead_code, reason = "some tests start programs in their own way")]
pub fn command(folder: &Path, ranks: usize, words: &[&str]) -> Command {
    let mut command = match ranks {
        0 => Command::new(PROGRAM),
        _ => {
            let mut command = Command::new(launcher());
            command.args(["-n", &ranks.to_string(), PROGRAM]);
            command
        }
    };
    roomy(&mut command).current_dir(folder).args(words);
    command
}

/// Runs the program to its end.
#[allow(dead_code, reason = "some tests start programs in their own way")]
pub fn consort(folder: &Path, ranks: usize, words: &[&str]) -> Ended {
    end_of(command(folder, ranks, words))
}

/// The processes that this one started: of a launcher, the ranks in their order.
#[allow(dead_code, reason = "not every test kills ranks")]
pub fn children_of(child: &Child) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[allow(dead_code, reason = "not every test sends signals")]
pub fn send(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Runs the program to its end with each rank in a folder of its own below `folder`, `0`, `1`, …, and a program there if `program` is its name.
#[allow(dead_code, reason = "some tests start programs in their own way")]
pub fn consort_apart(folder: &Path, ranks: usize, program: &str, words: &[&str]) -> Ended {
    let script = format!(r#"cd "${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}" && exec {program} "$@""#);
    let mut command = Command::new(launcher());
    command.args(["-n", &ranks.to_string(), "sh", "-c", &script, "sh"]).args(words).current_dir(folder);
    end_of(command)
}
