//! Ranks that see other files, or run other programs, under the same names.

use super::*;
use launch::consort_apart;

/// A folder with one for each rank, all with the same table and model.
fn apart(ranks: usize) -> TempDir {
    let folder = folder();
    table(&folder, "t.h5", 20_011, |_, _| ());
    done(folder.path(), 0, &["train", "linear", "t.h5", "-o", "m.h5"]);
    for rank in 0..ranks {
        let of_rank = folder.path().join(rank.to_string());
        std::fs::create_dir(&of_rank).unwrap();
        for name in ["t.h5", "m.h5"] {
            std::fs::copy(folder.path().join(name), of_rank.join(name)).unwrap();
        }
    }
    folder
}

/// Changes the file of that name that rank 2 sees.
fn change(folder: &TempDir, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.path().join("2").join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn files_that_differ_between_nodes_are_refused_before_the_work() {
    if !has_mpi() {
        return;
    }
    let jobs: [&[&str]; 4] = [
        &["train", "linear", "t.h5", "-o", "../new.h5", "--force"],
        &["evaluate", "m.h5", "t.h5"],
        &["predict", "m.h5", "t.h5", "-o", "../new.h5", "--force"],
        &["verify", "m.h5"],
    ];
    let refused = |folder: &TempDir, words: &[&str], parts: &[&str]| {
        let ended = consort_apart(folder.path(), 3, PROGRAM, words);
        assert_eq!(ended.code, Some(3), "{words:?}\n{}", ended.text);
        one_message(&ended, parts);
        assert!(!folder.path().join("new.h5").exists());
    };
    let folder = apart(3);
    for words in jobs {
        // Copies of one file, written at other times.
        let ended = consort_apart(folder.path(), 3, PROGRAM, words);
        assert_eq!(ended.code, Some(0), "{words:?}\n{}", ended.text);
        std::fs::remove_file(folder.path().join("new.h5")).ok();
    }
    for words in jobs {
        change(&folder, "t.h5", |bytes| *bytes.last_mut().unwrap() ^= 1);
        refused(&folder, words, &["rank 2 of 3: t.h5: has other bytes on node", "copy the same file"]);
        change(&folder, "t.h5", |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    let valid = ["train", "linear", "../t.h5", "--valid", "t.h5", "-o", "../new.h5"];
    change(&folder, "t.h5", |bytes| bytes.truncate(bytes.len() - 1));
    for words in jobs.into_iter().chain([&valid[..]]) {
        refused(&folder, words, &["rank 2 of 3: t.h5: has ", "bytes on node", "which rank 0 runs on"]);
    }
    let told = consort_apart(folder.path(), 3, PROGRAM, &["doctor", "t.h5", "--json"]);
    let found: Value = serde_json::from_str(told.out.lines().last().unwrap()).unwrap();
    let advice = found["advice"].as_array().unwrap();
    assert!(
        told.code == Some(0) && advice.iter().any(|line| line.as_str().unwrap().contains("t.h5: has ")),
        "{}",
        told.text
    );
    std::fs::remove_file(folder.path().join("2/t.h5")).unwrap();
    refused(&folder, jobs[0], &["rank 2 of 3: t.h5: no such file on node", "though rank 0 on node", "sees it"]);

    let folder = apart(3);
    change(&folder, "m.h5", |bytes| bytes[2000] ^= 1);
    for words in &jobs[1..] {
        refused(&folder, words, &["rank 2 of 3: m.h5: has other bytes"]);
    }
}

#[test]
fn another_build_of_the_same_version_is_refused() {
    if !has_mpi() {
        return;
    }
    let folder = apart(3);
    for rank in 0..3 {
        std::fs::copy(PROGRAM, folder.path().join(rank.to_string()).join("consort")).unwrap();
    }
    let words = ["train", "linear", "t.h5", "-o", "../new.h5"];
    assert_eq!(consort_apart(folder.path(), 3, "./consort", &words).code, Some(0));
    // Behind its end, where nothing is looked up.
    change(&folder, "consort", |bytes| bytes.push(0));
    let ended = consort_apart(folder.path(), 3, "./consort", &words);
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    one_message(&ended, &["different versions or builds", "rank 2: version", "ranks 0, 1: version"]);
}
