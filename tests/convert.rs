//! `convert` and `repack` on several ranks: the bytes of one, and one message for what goes wrong.
//!
//! Says SKIPPED where there is no MPI launcher (a failure if `CONSORT_REQUIRE_MPI=1`).

mod launch;

use launch::{PROGRAM, consort, end_of, has_mpi};
use std::path::Path;
use std::process::Command;

/// About 25 bytes a row; the last lines as told.
fn table(folder: &Path, name: &str, n_rows: usize, last: &str) -> usize {
    let row = |i: usize| format!("{i},{:.4},\"site, {}\",{}\n", (i * 7919 % 10_007) as f64 / 16.0, i % 30, i % 2);
    let text = "n,mass,site,label\n".to_string() + &(0..n_rows).map(row).collect::<String>() + last;
    std::fs::write(folder.join(name), &text).unwrap();
    text.lines().count()
}

#[test]
fn any_number_of_processes_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    table(folder, "t.csv", 800_000, "");
    let done = |ranks: usize, words: &[&str]| {
        let ended = consort(folder, ranks, words);
        assert_eq!(ended.code, Some(0), "{words:?} on {ranks} ranks:\n{}", ended.text);
        assert_eq!(ended.out.matches(" | ").count(), 1, "said once:\n{}", ended.text);
    };
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    done(0, &["convert", "t.csv", "one.h5", "--threads", "1"]);
    done(0, &["repack", "one.h5", "again.h5", "--chunk-size", "200k", "--threads", "1"]);
    if !has_mpi() {
        return;
    }
    for (ranks, threads) in [(1, "2"), (2, "1"), (3, "2"), (5, "1")] {
        done(ranks, &["convert", "t.csv", "many.h5", "--threads", threads, "--force"]);
        assert!(bytes("many.h5") == bytes("one.h5"), "convert on {ranks} ranks");
        done(ranks, &["repack", "one.h5", "many.h5", "--chunk-size", "200k", "--threads", threads, "--force"]);
        assert!(bytes("many.h5") == bytes("again.h5"), "repack on {ranks} ranks");
    }
}

#[test]
fn what_goes_wrong_late_is_said_once_and_ends_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let n_lines = table(folder, "ragged.csv", 250_000, "1,2\n");
    table(folder, "whole.csv", 250_000, "");
    let late = format!("ragged.csv: line {n_lines}: has 2 fields where the others have 4");
    for ranks in [0, 2, 3, 5] {
        if ranks > 0 && !has_mpi() {
            continue;
        }
        for (words, code, part) in [
            (["convert", "ragged.csv", "out.h5"], 3, late.as_str()),
            (["convert", "whole.csv", "none/out.h5"], 2, "none"),
            (["repack", "whole.csv", "out.h5"], 3, "whole.csv"),
        ] {
            let ended = consort(folder, ranks, &words);
            assert_eq!(ended.code, Some(code), "{words:?} on {ranks} ranks:\n{}", ended.text);
            let messages: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("consort: ")).collect();
            assert!(messages.len() == 1 && messages[0].contains(part), "{words:?} on {ranks} ranks:\n{}", ended.text);
            assert_eq!(
                std::fs::read_dir(folder).unwrap().count(),
                2,
                "{words:?} on {ranks} ranks left something behind"
            );
        }
    }
}

#[test]
fn a_disk_that_is_full_is_said_once_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    table(folder, "t.csv", 250_000, "");
    assert_eq!(consort(folder, 0, &["convert", "t.csv", "t.h5"]).code, Some(0));
    for words in ["convert t.csv out.h5", "repack t.h5 out.h5 --chunk-size 100k"] {
        // Files may have 200 KiB: writing more fails as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f 200; exec {PROGRAM} {words} --world threads:3");
        let mut command = Command::new("bash");
        command.current_dir(folder).args(["-c", &script]);
        let ended = end_of(command);
        assert_eq!(ended.code, Some(3), "{words}:\n{}", ended.text);
        let messages: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("consort: ")).collect();
        assert!(messages.len() == 1 && messages[0].contains("cannot write"), "{words}:\n{}", ended.text);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2, "{words} left something behind");
    }
}
