//! Trainings that are told to stop, killed, and started again on other numbers of ranks.

use super::*;
use launch::{children_of, send};
use std::process::{Child, Stdio};

const SETTINGS: [&str; 9] = ["train", "boost", "t.h5", "--rounds", "40", "--max-leaves", "8", "-o", "m.h5"];
const KEPT: [&str; 4] = ["--checkpoint", "kept", "--every", "3steps"];

fn some_table() -> (TempDir, String) {
    let folder = folder();
    table(&folder, "t.h5", 900, |_, y| y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y));
    let whole = digest(&done(folder.path(), 0, &SETTINGS));
    std::fs::remove_file(folder.path().join("m.h5")).unwrap();
    (folder, whole)
}

fn steps(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("kept")).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    all.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("step-"));
    all.sort();
    all
}

fn is_marked(folder: &Path) -> bool {
    folder.join("kept/requeue").exists()
}

/// Starts a long training in the background and waits until it has written a checkpoint.
fn started(folder: &Path, ranks: usize, rounds: &str) -> Child {
    let words = [&SETTINGS[..3], &["--rounds", rounds], &SETTINGS[5..], &KEPT].concat();
    let child = launch::command(folder, ranks, &words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while steps(folder).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_time_limit_ends_in_a_checkpoint_until_it_is_done() {
    let (folder, whole) = some_table();
    let path = folder.path();
    // Less than what is left for the way out: every run stops at its first look.
    let words = [&SETTINGS[..], &KEPT, &["--time-limit", "1s"]].concat();
    for run in 0..8 {
        let ended = consort(path, if has_mpi() { [0, 3, 2][run % 3] } else { 0 }, &words);
        assert_eq!(ended.code, Some(75), "{}", ended.text);
        one_message(&ended, &["the time limit", &format!("after step {}", run + 1), "goes on from there"]);
        assert!(is_marked(path) && !path.join("m.h5").exists());
        assert!(run == 0 || ended.text.contains(&format!("goes on after step {run}")), "{}", ended.text);
        assert!(steps(path).len() <= 2, "--keep 2: {:?}", steps(path));
    }
    let told = done(path, 0, &[&SETTINGS[..], &KEPT].concat());
    assert_eq!(digest(&told), whole);
    assert!(told.contains("goes on after step 8") && !is_marked(path), "{told}");
    // With other settings it is another training.
    let ended = consort(path, 0, &[&SETTINGS[..], &KEPT, &["--seed", "7", "--row-sample", "0.5"]].concat());
    assert!(ended.text.contains("other settings or another input") && ended.code == Some(0), "{}", ended.text);
}

#[test]
fn signals_end_in_a_checkpoint() {
    let (folder, _) = some_table();
    let path = folder.path();
    for (signal, marked) in [("-USR1", true), ("-TERM", true), ("-INT", false)] {
        std::fs::remove_dir_all(path.join("kept")).ok();
        let mut child = started(path, 0, "100000");
        send(signal, child.id());
        assert_eq!(child.wait().unwrap().code(), Some(75), "{signal}");
        assert_eq!(is_marked(path), marked, "{signal}");
    }
}

/// The first rank that leaves makes the launcher end the others by SIGTERM, which is not to be taken for a wish to go on later.
#[test]
fn an_interrupted_rank_marks_nothing_and_neither_do_the_others() {
    if !has_mpi() {
        return;
    }
    let (folder, _) = some_table();
    let path = folder.path();
    let mut child = started(path, 3, "100000");
    send("-INT", children_of(&child)[1]);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(!is_marked(path) && !path.join("m.h5").exists());
    // A mark of a run before is gone as soon as another one begins, whatever becomes of that.
    for table in ["gone.h5", "gone*.h5", "t.h5"] {
        std::fs::write(path.join("kept/requeue"), "").unwrap();
        let output = if table == "t.h5" { "t.h5" } else { "m.h5" };
        let ended = consort(path, 5, &[&["train", "boost", table, "-o", output, "--force"], &KEPT[..]].concat());
        assert!(matches!(ended.code, Some(2 | 3)) && !is_marked(path), "{table}: {}", ended.text);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_said_before_the_work() {
    let (folder, _) = some_table();
    std::fs::write(folder.path().join("kept"), "a file").unwrap();
    let ended = consort(folder.path(), 0, &[&SETTINGS[..], &KEPT].concat());
    one_message(&ended, &["--checkpoint", "kept: the folder cannot be made"]);
    assert_eq!(ended.code, Some(2), "{}", ended.text);
}

#[test]
fn a_killed_rank_ends_the_job_and_another_number_of_ranks_goes_on() {
    if !has_mpi() {
        return;
    }
    let (folder, _) = some_table();
    let path = folder.path();
    let mut child = started(path, 3, "100000");
    let since = Instant::now();
    send("-KILL", children_of(&child)[1]);
    assert!(!child.wait().unwrap().success());
    assert!(since.elapsed() < Duration::from_secs(20));
    // As far as it had come, and one more step.
    let last = steps(path).pop().unwrap().file_name().unwrap().to_string_lossy()[5..17].parse::<u64>().unwrap();
    let rounds = (last + 1).to_string();
    let words = [&SETTINGS[..3], &["--rounds", &rounds], &SETTINGS[5..]].concat();
    let whole = digest(&done(path, 0, &words));
    // Settings are part of what a checkpoint is of: the same number of rounds is asked for again.
    let kept = [&words[..], &KEPT].concat();
    std::fs::remove_dir_all(path.join("kept")).unwrap();
    assert_eq!(consort(path, 2, &[&kept[..], &["--time-limit", "1s"]].concat()).code, Some(75));
    assert_eq!(digest(&done(path, 5, &kept)), whole);
}

#[test]
fn damaged_checkpoints_are_passed_over_and_the_one_before_is_used() {
    let (folder, whole) = some_table();
    let path = folder.path();
    let stopped = [&SETTINGS[..], &KEPT, &["--time-limit", "1s"]].concat();
    for _ in 0..3 {
        assert_eq!(consort(path, 0, &stopped).code, Some(75));
    }
    let newest = steps(path).pop().unwrap();
    let state = newest.join("state");
    let mut bytes = std::fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 16;
    std::fs::write(&state, bytes).unwrap();
    let told = done(path, 0, &[&SETTINGS[..], &KEPT].concat());
    assert!(
        told.contains("passed over") && told.contains("damaged") && told.contains("goes on after step 2"),
        "{told}"
    );
    assert_eq!(digest(&told), whole);
}

#[test]
fn the_start_says_from_which_step_in_json() {
    let (folder, _) = some_table();
    let path = folder.path();
    let words = [&SETTINGS[..], &KEPT, &["--json"]].concat();
    let first = |text: &str| serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap();
    for step in 0..2 {
        let ended = consort(path, 0, &[&words[..], &["--time-limit", "1s"]].concat());
        let start = first(&ended.out);
        assert_eq!((&start["event"], &start["resumed_step"]), (&"start".into(), &step.into()), "{}", ended.text);
    }
    std::fs::rename(path.join("kept"), path.join("old")).unwrap();
    let told = output(path, 0, &[&words[..], &["--resume", "old"]].concat());
    assert_eq!(first(&told)["resumed_step"], 2, "{told}");
    let without = output(path, 0, &[&SETTINGS[..], &["--json"]].concat());
    assert_eq!(first(&without)["resumed_step"], 0);
}

#[test]
fn missing_values_and_ranks_without_rows_go_on_too() {
    let (folder, ranks) = (folder(), if has_mpi() { [0, 5, 3] } else { [0; 3] });
    let path = folder.path();
    // A few rows are one block: all ranks but one have none.
    table(&folder, "t.h5", 37, |x, y| {
        x.iter_mut().step_by(5).for_each(|x| *x = f32::NAN);
        y.iter_mut().step_by(4).for_each(|y| *y = 1 - *y);
    });
    let jobs: [&[&str]; 4] = [
        &["train", "boost", "t.h5", "--rounds", "4", "--min-rows", "2", "--max-leaves", "4", "-o", "m.h5"],
        &["train", "forest", "t.h5", "--trees", "4", "--min-rows", "2", "-o", "m.h5"],
        &["train", "logistic", "t.h5", "--max-iterations", "5", "-o", "m.h5"],
        &["train", "logistic", "t.h5", "--solver", "adam", "--epochs", "3", "--global-batch", "16", "-o", "m.h5"],
    ];
    for words in jobs {
        let whole = digest(&done(path, 0, words));
        let kept = [words, &["--checkpoint", "kept", "--every", "1steps", "--time-limit", "1s"]].concat();
        let mut runs = 0;
        let told = loop {
            let ended = consort(path, ranks[runs % ranks.len()], &kept);
            runs += 1;
            match ended.code {
                Some(75) => assert!(runs < 40, "{words:?} never ends"),
                code => break (code, ended.text),
            }
        };
        assert!(told.0 == Some(0) && runs > 3, "{words:?}, {runs} runs:\n{}", told.1);
        assert_eq!(digest(&told.1), whole, "{words:?}");
        std::fs::remove_dir_all(path.join("kept")).unwrap();
    }
}

#[test]
fn solvers_of_one_pass_keep_nothing_and_go_on_to_their_end() {
    let (folder, _) = some_table();
    let path = folder.path();
    for solver in ["cholesky", "qr"] {
        let words = ["train", "linear", "t.h5", "--solver", solver, "-o", "m.h5"];
        let whole = digest(&done(path, 0, &words));
        // Left by a run that was killed.
        std::fs::create_dir_all(path.join("kept")).unwrap();
        std::fs::write(path.join("kept/requeue"), "").unwrap();
        let told = done(path, if has_mpi() { 3 } else { 0 }, &[&words[..], &KEPT, &["--time-limit", "1s"]].concat());
        assert_eq!(digest(&told), whole);
        assert!(steps(path).is_empty() && !is_marked(path), "{told}");
    }
}

#[test]
fn what_cannot_be_kept_is_said_before_the_work() {
    let (folder, _) = some_table();
    let path = folder.path();
    std::fs::write(path.join("file"), "").unwrap();
    let refuse = |words: &[&str], parts: &[&str]| refused(path, &[&SETTINGS[..], words].concat(), 2, parts);
    refuse(&["--checkpoint", "file"], &["--checkpoint", "file"]);
    refuse(&["--checkpoint", "kept", "--every", "soon"], &["--every", "'soon'", "5m"]);
    refuse(&["--checkpoint", "kept", "--every", "0steps"], &["--every", "100steps"]);
    refuse(&["--checkpoint", "kept", "--time-limit", "0"], &["--time-limit"]);
    std::fs::create_dir(path.join("kept")).unwrap();
    refuse(
        &["--checkpoint", "kept", "--resume", "kept"],
        &["--resume: kept: holds no checkpoint of a training with these"],
    );
    let missing = "kept/step-000000000007-01234567";
    refuse(&["--checkpoint", "kept", "--resume", missing], &["--resume: ", missing, "no such folder"]);
}
