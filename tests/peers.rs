//! Ranks that are stopped, killed or suspended, by real MPI: the job ends in bounded time and says whom it lost.
#![cfg(feature = "mpi")]

mod launch;

use launch::{Ended, children_of, command, has_mpi, send};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// Longer than any run here may take; a job that hangs is one that takes it.
const BOUND: Duration = Duration::from_secs(30);

/// A training without an end, whose parts (folders under the one for checkpoints) have all made one.
fn under_way(folder: &Path, ranks: usize, words: &[&str], parts: &[&str]) -> Child {
    let table = format!("{}/data/breast_cancer.h5", env!("CARGO_MANIFEST_DIR"));
    let kept = ["-o", "m.h5", "--checkpoint", "kept", "--every", "2s"];
    let words = [&["train", words[0], &table], &words[1..], &kept].concat();
    let mut command = command(folder, ranks, &words);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    let is_kept = |part: &&str| {
        let mut entries = std::fs::read_dir(folder.join("kept").join(part)).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    };
    while !parts.iter().all(is_kept) {
        assert!(since.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

const ENDLESS: [&str; 7] = ["logistic", "--solver", "sgd", "--epochs", "1000000000", "--tolerance", "0"];

/// How it ended, from now on; killed after [`BOUND`].
fn end_of(child: Child) -> Ended {
    let (since, pid) = (Instant::now(), child.id());
    let waits = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !waits.is_finished() {
        if since.elapsed() > BOUND {
            send("-KILL", pid);
            panic!("hung for {BOUND:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = waits.join().unwrap();
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    Ended { code: ended.status.code(), out: String::new(), text, took: since.elapsed() }
}

fn no_model(folder: &TempDir) {
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.collect();
    assert!(names == ["kept"], "{names:?}");
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_string()
}

#[test]
fn a_stopped_rank_ends_the_job_with_its_name() {
    if !has_mpi() {
        return;
    }
    for (ranks, stopped) in [(3, 1), (2, 0), (4, 0)] {
        let folder = tempdir().unwrap();
        let child = under_way(folder.path(), ranks, &[&ENDLESS[..], &["--stall-timeout", "3s"]].concat(), &["."]);
        send("-STOP", children_of(&child)[stopped]);
        let ended = end_of(child);
        assert_eq!(ended.code, Some(4), "{}", ended.text);
        let said: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("consort: rank")).collect();
        let named = format!("rank {stopped} of {ranks} on {} has not been heard for ", host());
        assert!(said.len() == 1 && said[0].contains(&named), "{}", ended.text);
        assert!(said[0].contains("its last finished call: ") && said[0].contains(" at src/"), "{}", ended.text);
        // Where the others wait; rank 0 knows it of all.
        assert!(said[0].contains(": in ") && (stopped == 0 || !said[0].contains("watched by")), "{}", ended.text);
        no_model(&folder);
    }
}

/// MPI itself would wait for it for ever.
#[test]
fn a_rank_stopped_while_mpi_starts_ends_the_job() {
    if !has_mpi() {
        return;
    }
    let folder = tempdir().unwrap();
    let table = format!("{}/data/breast_cancer.h5", env!("CARGO_MANIFEST_DIR"));
    let mut command = command(folder.path(), 3, &["train", "logistic", &table, "-o", "m.h5", "--stall-timeout", "2s"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while children_of(&child).len() < 3 {
        assert!(since.elapsed() < Duration::from_secs(60), "no ranks after a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    send("-STOP", children_of(&child)[1]);
    let ended = end_of(child);
    assert_eq!(ended.code, Some(4), "{}", ended.text);
    assert!(ended.text.contains("the ranks have not come together for 10 s"), "{}", ended.text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_rank_ends_the_job_at_once() {
    if !has_mpi() {
        return;
    }
    for killed in [0, 2] {
        let folder = tempdir().unwrap();
        let child = under_way(folder.path(), 3, &ENDLESS, &["."]);
        send("-KILL", children_of(&child)[killed]);
        let ended = end_of(child);
        assert!(ended.code.is_some_and(|code| code != 0), "{}", ended.text);
        assert!(ended.text.contains(&format!("rank {killed}")) && ended.text.contains("signal 9"), "{}", ended.text);
        no_model(&folder);
    }
}

/// As when a batch system suspends a job for another one: all are silent, and none is lost.
#[test]
fn a_job_that_was_suspended_goes_on() {
    if !has_mpi() {
        return;
    }
    let folder = tempdir().unwrap();
    let child = under_way(folder.path(), 3, &[&ENDLESS[..], &["--stall-timeout", "2s"]].concat(), &["."]);
    let ranks = children_of(&child);
    ranks.iter().for_each(|&pid| send("-STOP", pid));
    std::thread::sleep(Duration::from_secs(5));
    ranks.iter().for_each(|&pid| send("-CONT", pid));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(children_of(&child), ranks, "all are still there");
    send("-USR1", child.id()); // passed on to the ranks
    let ended = end_of(child);
    assert!(ended.text.contains("SIGUSR1") && !ended.text.contains("has not been heard"), "{}", ended.text);
    assert!(folder.path().join("kept/requeue").exists());
}

/// Groups of ranks train members of their own, and do not talk to one another meanwhile.
#[test]
fn a_signal_to_one_rank_stops_the_groups_that_do_not_talk_to_it() {
    if !has_mpi() {
        return;
    }
    let folder = tempdir().unwrap();
    let words = [
        "bag",
        "--learner",
        "logistic",
        "--solver",
        "sgd",
        "--epochs",
        "1000000000",
        "--tolerance",
        "0",
        "--members",
        "3",
    ];
    let child = under_way(folder.path(), 3, &words, &["task-0", "task-1", "task-2"]);
    send("-USR1", children_of(&child)[2]);
    let ended = end_of(child);
    assert!(ended.text.contains("SIGUSR1"), "{}", ended.text);
    assert!(folder.path().join("kept/requeue").exists());
    no_model(&folder);
}
