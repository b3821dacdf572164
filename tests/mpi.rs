//! The shared cases on real MPI. Started plainly, this program launches itself under
//! `${CONSORT_MPIEXEC:-mpirun}` on 1, 2, 3, 4 and 7 ranks, and then once for each way to fail.

mod cases;
mod launch;

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use consort::comm::{Communicator, World, bare_all_reduce_u32, run_threads, run_world};
use consort::error::{Error, Result};
use launch::{Ended, end_of, launcher};

const SIZES: [usize; 5] = [1, 2, 3, 4, 7];
/// A lost rank ends the job within this time.
const LOSS_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().position(|word| word == "--inside") {
        Some(at) => {
            let mode = words.get(at + 1).map_or("cases", String::as_str).to_string();
            ExitCode::from(run_world(World::Auto, 2, |comm| inside(comm, &mode)) as u8)
        }
        None => launch_all(),
    }
}

/// What a rank does.
fn inside(comm: &Communicator, mode: &str) -> Result<i32> {
    let last = comm.rank() + 1 == comm.size();
    match mode {
        "cases" => return run_cases(comm),
        "sums" | "started-sums" | "bare-sums" => return long_sums(comm, mode),
        // A rank that is gone while the others wait for it.
        "killed" if last => {
            let me = std::process::id().to_string();
            Command::new("kill").args(["-KILL", &me]).status().expect("kill is a program");
        }
        "panics" if last => panic!("on purpose"),
        // On every thread of the rank: both those that talk to MPI and those that do not.
        "panics-in-loop" if last => rayon::broadcast(|_| panic!("on purpose")).into_iter().collect(),
        "fails-alone" if last => return Err(Error::data("checksum failed")),
        "returns-early" if last => return Ok(0),
        "agrees" => comm.agree(if last { Err(Error::data("checksum failed").at("x.h5")) } else { Ok(()) })?,
        "interrupted" => return Ok(75),
        "fails-in-part" => {
            let part = comm.split(u32::from(last))?;
            part.agree(if last { Err(Error::data("in a part")) } else { Ok(()) })?;
        }
        _ => {}
    }
    loop {
        comm.barrier()?;
    }
}

/// Ten sums of 4 MiB by us or by the library, for `tests/hosts.sh`, which counts the bytes between the hosts.
fn long_sums(comm: &Communicator, mode: &str) -> Result<i32> {
    const LENGTH: usize = 1 << 20;
    let mine = vec![comm.rank() as u32 + 1; LENGTH];
    for _ in 0..10 {
        let mut sums = mine.clone();
        match mode {
            "sums" => comm.all_reduce_sum(&mut sums)?,
            "started-sums" => sums = comm.start_all_reduce_sum(sums)?.wait()?,
            _ => bare_all_reduce_u32(&mine, &mut sums),
        }
        let expected = (comm.size() * (comm.size() + 1) / 2) as u32;
        assert!(sums.iter().all(|sum| *sum == expected), "{mode}");
    }
    Ok(0)
}

fn run_cases(comm: &Communicator) -> Result<i32> {
    let mut failed = 0;
    for (name, case) in cases::CASES {
        let result = comm.agree(case(comm));
        if let Err(error) = &result {
            failed += 1;
            if error.rank() == Some(comm.rank()) {
                println!("    FAILED {name}: rank {} of {}: {error}", comm.rank(), comm.size());
            }
        }
    }
    if comm.is_root() {
        println!("    {} on {} ranks: {} cases, {failed} failed", comm.library(), comm.size(), cases::CASES.len());
    }
    Ok(i32::from(failed > 0))
}

fn launch(size: usize, mode: &str) -> Ended {
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(launcher());
    command.args(["-n", &size.to_string()]).arg(this).args(["--inside", mode]);
    end_of(command)
}

fn launch_all() -> ExitCode {
    if Command::new(launcher()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("SKIPPED: no MPI launcher '{}'; set CONSORT_MPIEXEC", launcher());
        let required = std::env::var("CONSORT_REQUIRE_MPI").is_ok_and(|v| v == "1");
        return ExitCode::from(u8::from(required));
    }
    let mut tally = Tally::default();
    for size in SIZES {
        let in_threads = run_threads(size, 1, |comm| {
            cases::CASES.iter().try_for_each(|(name, case)| comm.agree(case(comm)).map_err(|e| e.at(*name)))
        });
        let text = in_threads.as_ref().map_or_else(Error::to_string, |_| String::new());
        tally.note(&format!("cases on {size} threads"), in_threads.is_ok(), &text, None);
        let ended = launch(size, "cases");
        print!("{}", ended.text);
        tally.check(&format!("cases on {size} ranks"), &ended, Some(0), &[]);
    }
    ways_to_end(&mut tally);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    ExitCode::from(u8::from(tally.failed > 0))
}

/// Each way to end, its exit code (where the launcher passes it on) and what must be said.
fn ways_to_end(tally: &mut Tally) {
    let ways: [(&str, Option<i32>, &[&str]); 8] = [
        ("killed", None, &[]),
        ("panics", None, &["consort: rank 2 of 3: internal error: on purpose at tests/mpi.rs:"]),
        ("panics-in-loop", None, &["consort: rank 2 of 3: internal error: on purpose at tests/mpi.rs:"]),
        ("fails-alone", Some(3), &["consort: rank 2 of 3: checksum failed"]),
        ("fails-in-part", Some(3), &["consort: rank 2 of 3: in a part"]),
        ("returns-early", Some(4), &["rank 2: end of the program #", "ranks 0, 1: barrier #", "tests/mpi.rs:"]),
        ("agrees", Some(3), &["consort: rank 2 of 3: x.h5: checksum failed"]),
        ("interrupted", Some(75), &[]),
    ];
    for (mode, code, words) in ways {
        let ended = launch(3, mode);
        tally.check(mode, &ended, code, words);
        let lines = ended.text.matches("consort: ").count();
        tally.note(&format!("{mode}: said once"), lines == usize::from(!words.is_empty()), &ended.text, None);
        tally.note(&format!("{mode}: in time"), ended.took < LOSS_LIMIT, &ended.text, Some(ended.took));
    }
    let mut wrong = Command::new(std::env::current_exe().expect("this program has a path"));
    wrong.args(["--inside", "cases"]).env("PMI_SIZE", "8");
    // Under the launcher's own library this is one process that was told it is one of eight.
    tally.check("wrong launcher", &end_of(wrong), Some(4), &["8 processes (PMI_SIZE=8), but MPI sees a world of 1"]);
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// `code` None: anything but success.
    fn check(&mut self, name: &str, ended: &Ended, code: Option<i32>, words: &[&str]) {
        let code_right = match (ended.code, code) {
            (None, _) => false,
            (Some(found), Some(expected)) => found == expected,
            (Some(found), None) => found != 0,
        };
        let right = code_right && words.iter().all(|w| ended.text.contains(w));
        let text = format!("exit code {:?} (expected {code:?}, words {words:?})\n{}", ended.code, ended.text);
        self.note(name, right, &text, Some(ended.took));
    }

    fn note(&mut self, name: &str, right: bool, text: &str, took: Option<Duration>) {
        let took = took.map_or(String::new(), |t| format!(" ({:.2} s)", t.as_secs_f64()));
        if right {
            self.passed += 1;
            println!("ok      {name}{took}");
        } else {
            self.failed += 1;
            println!("FAILED  {name}{took}: {text}");
        }
    }
}
