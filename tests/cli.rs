//! The program as people meet it: every word, alone and under a launcher; every bad input with its one message.
//!
//! What needs several ranks says SKIPPED where there is no MPI launcher (a failure if `CONSORT_REQUIRE_MPI=1`).

#[path = "cli/boost.rs"]
mod boost;
#[path = "cli/calibrate.rs"]
mod calibrate;
#[path = "cli/checkpoint.rs"]
mod checkpoint;
#[path = "cli/disks.rs"]
mod disks;
#[path = "cli/ensembles.rs"]
mod ensembles;
#[path = "cli/forest.rs"]
mod forest;
mod launch;
#[path = "cli/nodes.rs"]
mod nodes;

use hdf5::types::VarLenUnicode;
use launch::{Ended, PROGRAM, consort, end_of, has_mpi, launcher};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name).display().to_string()
}

fn done(folder: &Path, ranks: usize, words: &[&str]) -> String {
    let ended = consort(folder, ranks, words);
    assert_eq!(ended.code, Some(0), "{words:?} on {ranks} ranks:\n{}", ended.text);
    ended.text
}

/// As [`done`]; only what was written to stdout.
fn output(folder: &Path, ranks: usize, words: &[&str]) -> String {
    let ended = consort(folder, ranks, words);
    assert_eq!(ended.code, Some(0), "{words:?} on {ranks} ranks:\n{}", ended.text);
    ended.out
}

fn digest(text: &str) -> String {
    let line = text.lines().find(|line| line.starts_with("digest ")).unwrap_or_else(|| panic!("no digest in:\n{text}"));
    line["digest ".len()..].to_string()
}

fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut found: Vec<_> = entries.map(|e| (e.path(), e.metadata().unwrap().len())).collect();
    found.sort();
    found
}

/// Ends with `code` and exactly one message that holds all `parts`, alone and on three ranks, and leaves `folder` as it was.
fn refused(folder: &Path, words: &[&str], code: i32, parts: &[&str]) {
    let before = listing(folder);
    for ranks in [0, 3] {
        if ranks > 0 && !has_mpi() {
            continue;
        }
        let ended = consort(folder, ranks, words);
        assert_eq!(ended.code, Some(code), "{words:?} on {ranks} ranks:\n{}", ended.text);
        one_message(&ended, parts);
        assert_eq!(listing(folder), before, "{words:?} on {ranks} ranks left something behind");
    }
}

fn one_message(ended: &Ended, parts: &[&str]) {
    let messages: Vec<&str> =
        ended.text.lines().filter(|line| line.starts_with("consort: ") && !line.contains("warning")).collect();
    assert_eq!(messages.len(), 1, "not one message:\n{}", ended.text);
    for part in parts {
        assert!(messages[0].contains(part), "'{part}' is not in: {}", messages[0]);
    }
}

/// A table of `n` rows and three columns, X and y, in the root of `name`; `change` may spoil it.
fn table(folder: &TempDir, name: &str, n: usize, mut change: impl FnMut(&mut [f32], &mut [i32])) -> String {
    let mut x: Vec<f32> = (0..n * 3).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect();
    let mut y: Vec<i32> = x.chunks(3).map(|row| i32::from(row[0] + row[1] > 0.1)).collect();
    change(&mut x, &mut y);
    let file = hdf5::File::create(folder.path().join(name)).unwrap();
    let x = ndarray::Array2::from_shape_vec((n, 3), x).unwrap();
    file.new_dataset_builder().with_data(&x).create("X").unwrap();
    file.new_dataset_builder().with_data(&ndarray::Array1::from(y)).create("y").unwrap();
    name.to_string()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

// ---- The main job ---------------------------------------------------------------------------------------------------------

#[test]
fn a_libsvm_file_becomes_a_sparse_table_that_is_trained_on_predicted_and_verified() {
    let folder = folder();
    let row = |i: usize| {
        let (place, value) = (10 + i * 7919 % 1009, (i % 13) as f64 / 4.0);
        format!("{} {}:1 {place}:{value}\n", i32::from(i % 5 < 2), 1 + i % 5)
    };
    std::fs::write(folder.path().join("t.svm"), (0..700).map(row).collect::<String>()).unwrap();
    let run = |ranks: usize, words: &[&str]| {
        let ended = consort(folder.path(), ranks, words);
        assert_eq!(ended.code, Some(0), "{words:?}:\n{}", ended.text);
        ended.text
    };
    run(0, &["convert", "t.svm", "t.h5", "--sparse"]);
    assert!(run(0, &["inspect", "t.h5"]).contains("700 rows × 1017 sparse columns: X, target y"));
    let alone = run(0, &["train", "logistic", "t.h5", "-o", "m.h5"]);
    assert!(alone.contains("sparse: trained with lbfgs; features are divided by their scale, not centred"), "{alone}");
    if has_mpi() {
        let three = run(3, &["train", "logistic", "t.h5", "-o", "three.h5", "--max-memory", "64M"]);
        assert_eq!(digest(&three), digest(&alone));
    }
    assert!(run(0, &["train", "linear", "t.h5", "-o", "l.h5"]).contains("sparse: trained with lbfgs"));
    assert!(run(0, &["evaluate", "m.h5", "t.h5"]).contains("accuracy 1"));
    run(0, &["predict", "m.h5", "t.h5", "-o", "p.h5"]);
    run(0, &["verify", "m.h5"]);
    let file = hdf5::File::open(folder.path().join("p.h5")).unwrap();
    let found: Vec<i64> = file.dataset("prediction").unwrap().read_raw().unwrap();
    assert!(found.iter().enumerate().all(|(i, y)| *y == i64::from(i % 5 < 2)));
}

#[test]
fn the_main_job_has_the_same_bits_on_any_number_of_ranks() {
    let folder = folder();
    let at = folder.path();
    let (digits, ranks) = (data("digits.h5"), if has_mpi() { vec![0, 1, 3] } else { vec![0] });
    for kind in ["logistic", "svm"] {
        let mut seen = Vec::new();
        for &n in &ranks {
            let text = output(at, n, &["train", kind, &digits, "--group", "train", "-o", "model.h5", "--threads", "1"]);
            assert_eq!(text.lines().last().unwrap(), format!("digest {}", digest(&text)), "the digest comes last");
            done(at, n, &["predict", "model.h5", &digits, "--group", "test", "-o", "pred.h5", "--copy", "y"]);
            let bytes = std::fs::read(at.join("pred.h5")).unwrap();
            let metrics = done(at, n, &["evaluate", "model.h5", &digits, "--group", "test", "--json"]);
            let metrics: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
            seen.push((digest(&text), bytes, metrics["accuracy"].as_f64().unwrap()));
        }
        assert!(seen[0].2 > 0.88, "accuracy {}", seen[0].2);
        assert!(seen.iter().all(|one| *one == seen[0]), "{kind}: digests, predictions or metrics differ");
        predictions_fit(&at.join("pred.h5"), kind, seen[0].2);
    }
}

/// Prediction, probability or score, row and the copied column belong together.
fn predictions_fit(path: &Path, kind: &str, accuracy: f64) {
    let file = hdf5::File::open(path).unwrap();
    let predicted: Vec<i64> = file.dataset("prediction").unwrap().read_raw().unwrap();
    let truth: Vec<i64> = file.dataset("y").unwrap().read_raw().unwrap();
    let rows: Vec<u64> = file.dataset("row").unwrap().read_raw().unwrap();
    assert!(rows.iter().enumerate().all(|(i, row)| i as u64 == *row));
    let right = predicted.iter().zip(&truth).filter(|(a, b)| a == b).count();
    approx::assert_relative_eq!(right as f64 / truth.len() as f64, accuracy, max_relative = 1e-12);
    let of_classes = file.dataset(if kind == "svm" { "score" } else { "probability" }).unwrap();
    let shape = of_classes.shape();
    assert_eq!(shape, [truth.len(), 10]);
    let values: Vec<f64> = of_classes.read_raw().unwrap();
    for (row, class) in values.chunks(10).zip(&predicted) {
        assert!(row.iter().all(|v| *v <= row[*class as usize]), "the prediction is not the largest");
        if kind == "logistic" {
            approx::assert_relative_eq!(row.iter().sum::<f64>(), 1.0, max_relative = 1e-12);
        }
    }
}

#[test]
fn json_speaks_one_object_a_line_and_settings_go_round() {
    let folder = folder();
    let at = folder.path();
    let cancer = data("breast_cancer.h5");
    let words = [
        "train",
        "logistic",
        &cancer,
        "-o",
        "m.h5",
        "--solver",
        "sgd",
        "--no-nesterov",
        "--sync-every",
        "5",
        "--folds",
        "3",
        "--json",
    ];
    let text = done(at, 0, &words);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["event"].is_string()), "{text}");
    assert!(text.contains(r#""fold":"mean""#) && text.contains("accuracy"), "{text}");
    let printed = done(at, 0, &[&words[..words.len() - 1], &["--print-config"]].concat());
    std::fs::write(at.join("job.toml"), printed).unwrap();
    let again = done(at, 0, &["train", "logistic", &cancer, "-o", "m2.h5", "--config", "job.toml"]);
    let done_event = events.iter().find(|event| event["digest"].is_string()).unwrap();
    assert_eq!(done_event["digest"], digest(&again));
    let inspected = done(at, 0, &["inspect", "m.h5", "--json"]);
    assert!(inspected.contains(&digest(&again)), "{inspected}");
    let verified = done(at, 0, &["verify", "m.h5"]);
    assert!(verified.contains("4 of 4 shapes gave the digest"), "{verified}");
    for command in ["train", "predict", "evaluate", "inspect", "verify", "doctor", "convert"] {
        assert!(done(at, 0, &[command, "--help"]).contains("Usage: consort"), "{command}");
    }
    if has_mpi() {
        assert!(done(at, 2, &["verify", "m.h5"]).contains("gave the digest of the model"));
        let text = done(at, 2, &["doctor", "--checkpoint", ".", "--json"]);
        let found: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(found["launch"]["variables"]["OMPI_COMM_WORLD_SIZE"].as_str().unwrap_or("2"), "2");
        assert!(found["folder"]["sync_s"].is_f64() && found["ranks"][1]["folder"]["sees"] == true, "{text}");
    }
}

#[test]
fn validation_rows_are_measured_and_not_trained_on() {
    let folder = folder();
    let at = folder.path();
    let digits = data("digits.h5");
    let json = |ranks, words: &[&str]| -> Value {
        let text = output(at, ranks, words);
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == "metrics").reduce(|_, last| last).unwrap()
    };
    let train = ["train", "logistic", &digits, "--group", "train", "-o", "m.h5", "--threads", "1", "--json"];
    let with = |more: &[&'static str]| [&train[..], more].concat();
    let part = json(0, &with(&["--valid-fraction", "0.3"]));
    assert!(part["accuracy"].as_f64().unwrap() > 0.9, "{part}");
    assert_ne!(part, json(0, &with(&["--valid-fraction", "0.3", "--seed", "1"])), "another seed, other rows");
    if has_mpi() {
        assert_eq!(part, json(3, &with(&["--valid-fraction", "0.3"])));
    }
    table(&folder, "train.h5", 300, |_, _| {});
    table(&folder, "valid.h5", 77, |x, _| x.iter_mut().for_each(|x| *x += 0.1));
    let valid = json(0, &["train", "logistic", "train.h5", "-o", "m.h5", "--valid", "valid.h5", "--json"]);
    assert_eq!(valid["auc"], json(0, &["evaluate", "m.h5", "valid.h5", "--json"])["auc"]);
    refused(at, &["train", "logistic", "train.h5", "-o", "n.h5", "--valid", "none.h5"], 3, &["none.h5"]);
    // What cannot be measured leaves the model that is there alone.
    table(&folder, "unseen.h5", 77, |_, y| y[50] = 7);
    let before = std::fs::read(at.join("m.h5")).unwrap();
    let words = ["train", "logistic", "train.h5", "-o", "m.h5", "--l2", "0.5", "--valid", "unseen.h5"];
    refused(at, &words, 3, &["unseen.h5", "7", "50"]);
    assert_eq!(std::fs::read(at.join("m.h5")).unwrap(), before);
    refused(at, &["train", "svm", "train.h5", "-o", "n.h5", "--valid-fraction", "1"], 2, &["--valid-fraction 1"]);
}

#[test]
fn some_rows_of_a_table_train_like_a_table_of_these_rows() {
    let folder = folder();
    let at = folder.path();
    let mut rows = (Vec::new(), Vec::new());
    table(&folder, "all.h5", 400, |x, y| rows = (x[300..900].to_vec(), y[100..300].to_vec()));
    table(&folder, "some.h5", 200, |x, y| {
        x.copy_from_slice(&rows.0);
        y.copy_from_slice(&rows.1);
    });
    for solver in ["lbfgs", "adam"] {
        let words = |table, output| ["train", "logistic", table, "--solver", solver, "-o", output];
        let some = digest(&done(at, 0, &words("some.h5", "some_model.h5")));
        for ranks in [0, 3] {
            let text = done(at, ranks, &[&words("all.h5", "m.h5")[..], &["--rows", "100..300"]].concat());
            assert_eq!(digest(&text), some, "{solver}, {ranks} ranks");
        }
        assert!(done(at, 0, &["verify", "m.h5"]).contains("gave the digest of the model"));
    }
    let beyond = ["train", "logistic", "all.h5", "-o", "none.h5", "--rows", "300..401"];
    refused(at, &beyond, 2, &["all.h5", "--rows 300..401", "0..400"]);
}

#[test]
fn text_columns_weights_and_offsets_go_through_files() {
    let folder = folder();
    let at = folder.path();
    let n = 300;
    {
        let file = hdf5::File::create(at.join("t.h5")).unwrap();
        let group = file.create_group("features").unwrap();
        let colours = ["red", "green", "blue"];
        let colour: Vec<VarLenUnicode> = (0..n).map(|i| colours[i * 7 % 3].parse().unwrap()).collect();
        let size: Vec<f64> = (0..n).map(|i| (i % 17) as f64 / 4.0).collect();
        let count: Vec<u16> = (0..n).map(|i| ([9, 2, 1][i * 7 % 3] * (1 + i % 3)) as u16).collect();
        let exposure: Vec<f32> = (0..n).map(|i| ((1 + i % 3) as f32).ln()).collect();
        group.new_dataset_builder().with_data(&ndarray::Array1::from(colour)).create("colour").unwrap();
        group.new_dataset_builder().with_data(&ndarray::Array1::from(size)).create("size").unwrap();
        file.new_dataset_builder().with_data(&ndarray::Array1::from(count)).create("count").unwrap();
        file.new_dataset_builder().with_data(&ndarray::Array1::from(exposure)).create("exposure").unwrap();
    }
    let words = [
        "train",
        "poisson",
        "t.h5",
        "-o",
        "m.h5",
        "--target",
        "count",
        "--offset",
        "exposure",
        "--features",
        "features",
    ];
    let words = [&words[..], &["--l2", "0", "--tolerance", "1e-9"]].concat();
    done(at, 0, &words);
    let file = hdf5::File::open(at.join("m.h5")).unwrap();
    let names: Vec<VarLenUnicode> = file.dataset("features").unwrap().read_raw().unwrap();
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["colour=blue", "colour=green", "colour=red", "size"]);
    done(at, 0, &["predict", "m.h5", "t.h5", "-o", "p.h5", "--copy", "features/colour"]);
    let predictions = hdf5::File::open(at.join("p.h5")).unwrap();
    let rate: Vec<f64> = predictions.dataset("prediction").unwrap().read_raw().unwrap();
    for (i, rate) in rate.iter().enumerate() {
        let truth = ([9, 2, 1][i * 7 % 3] * (1 + i % 3)) as f64;
        approx::assert_relative_eq!(*rate, truth, max_relative = 1e-3);
    }
}

#[test]
fn ids_beyond_what_a_float_holds_are_carried_over() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 20, |_, y| y[0] = 1 - y[0]);
    let (signed, unsigned) = (-(1i64 << 60) - 1, u64::MAX - 2);
    {
        let file = hdf5::File::append(at.join("t.h5")).unwrap();
        let ids: Vec<i64> = (0..20).map(|i| signed - i).collect();
        file.new_dataset_builder().with_data(&ids).create("id").unwrap();
        let hashes: Vec<u64> = (0..20).map(|i| unsigned - i).collect();
        file.new_dataset_builder().with_data(&hashes).create("hash").unwrap();
    }
    done(at, 0, &["train", "logistic", "t.h5", "-o", "m.h5"]);
    done(at, 0, &["predict", "m.h5", "t.h5", "-o", "p.h5", "--copy", "id", "--copy", "hash", "--rows", "3..20"]);
    let file = hdf5::File::open(at.join("p.h5")).unwrap();
    let ids: Vec<i64> = file.dataset("id").unwrap().read_raw().unwrap();
    let hashes: Vec<u64> = file.dataset("hash").unwrap().read_raw().unwrap();
    assert_eq!((ids[0], ids[16], hashes[0], hashes[16]), (signed - 3, signed - 19, unsigned - 3, unsigned - 19));
}

// ---- Refused --------------------------------------------------------------------------------------------------------------

#[test]
fn files_and_names_that_do_not_fit_are_refused() {
    let folder = folder();
    let at = folder.path();
    refused(at, &["train", "logistic", "none.h5", "-o", "m.h5"], 3, &["none.h5"]);
    std::fs::write(at.join("text.h5"), "a,b\n1,2\n").unwrap();
    refused(at, &["train", "logistic", "text.h5", "-o", "m.h5"], 3, &["text.h5", "not an HDF5 file"]);
    table(&folder, "good.h5", 20, |_, _| {});
    let target = ["train", "logistic", "good.h5", "-o", "m.h5", "--target", "labels/none"];
    refused(at, &target, 3, &["good.h5", "labels/none"]);
    {
        let file = hdf5::File::append(at.join("good.h5")).unwrap();
        let extra = ndarray::Array2::<f32>::zeros((20, 2));
        file.new_dataset_builder().with_data(&extra).create("features").unwrap();
        let short = ndarray::Array1::<i32>::zeros(19);
        file.new_dataset_builder().with_data(&short).create("short").unwrap();
        file.new_dataset_builder().with_data(&ndarray::Array2::<f32>::zeros((0, 2))).create("empty").unwrap();
        file.new_dataset_builder().with_data(&ndarray::Array1::<i32>::zeros(0)).create("none").unwrap();
    }
    refused(at, &["train", "logistic", "good.h5", "-o", "m.h5"], 2, &["good.h5", "'X'", "'features'", "--features"]);
    let short = ["train", "logistic", "good.h5", "-o", "m.h5", "--features", "X", "--target", "short"];
    refused(at, &short, 3, &["good.h5", "20", "19", "short"]);
    let empty = ["train", "logistic", "good.h5", "-o", "m.h5", "--features", "empty", "--target", "none"];
    refused(at, &empty, 3, &["good.h5", "empty", "0 rows"]);
}

#[test]
fn files_are_named_by_patterns_and_lists_everywhere() {
    let folder = folder();
    let at = folder.path();
    std::fs::create_dir(at.join("runs")).unwrap();
    for (name, n) in [("runs/run-10.h5", 40), ("runs/run-9.h5", 60), ("runs/run-b.h5", 50), ("one.h5", 30)] {
        table(&folder, name, n, |_, _| {});
    }
    std::fs::write(at.join("runs/all.txt"), "# in order\nrun-1?.h5\n\nrun-9.h5\nrun-b.h5\n").unwrap();
    let train = |ranks: usize, words: &[&str]| {
        let all = [&["train", "logistic"], words, &["-o", "m.h5"]].concat();
        digest(&done(at, ranks, &all))
    };
    let typed = train(0, &["runs/run-10.h5", "runs/run-9.h5", "runs/run-b.h5"]);
    for ranks in if has_mpi() { vec![0, 3] } else { vec![0] } {
        for words in [&["runs/run-*.h5"], &["@runs/all.txt"], &["runs/run-[0-9a-z]*.h5"]] {
            assert_eq!(train(ranks, words), typed, "{words:?} on {ranks} ranks");
        }
        let valid = train(ranks, &["runs/*.h5", "--valid", "on?.h5", "--valid", "@runs/all.txt"]);
        assert_eq!(valid, typed);
        assert!(done(at, ranks, &["verify", "m.h5"]).contains(&typed), "the model names the files");
        done(at, ranks, &["verify", "m.h5", "@runs/all.txt"]);
        assert!(done(at, ranks, &["evaluate", "m.h5", "runs/*.h5", "one.h5"]).contains("180 rows"));
        done(at, ranks, &["predict", "m.h5", "@runs/all.txt", "*e.h5", "-o", "p.h5"]);
        assert_eq!(hdf5::File::open(at.join("p.h5")).unwrap().dataset("row").unwrap().size(), 180);
    }
    let inspected = done(at, 0, &["inspect", "runs/run-?.h5"]);
    assert!(inspected.contains("run-9.h5") && inspected.contains("run-b.h5") && !inspected.contains("run-10.h5"));

    std::fs::write(at.join("empty.txt"), "# nothing\n").unwrap();
    let refuse = |words: &[&str], code: i32, parts: &[&str]| refused(at, words, code, parts);
    refuse(&["train", "logistic", "runs/rum-*.h5", "-o", "n.h5"], 3, &["'runs/rum-*.h5' matches no file"]);
    refuse(&["train", "logistic", "one.h5", "-o", "n.h5", "--valid", "@empty.txt"], 3, &["empty.txt: names no file"]);
    refuse(&["evaluate", "m.h5", "@none.txt"], 3, &["none.txt: no such list of files"]);
    refuse(
        &["train", "logistic", "runs/*.h5", "-o", "runs/run-9.h5"],
        2,
        &["the output runs/run-9.h5 is one of the inputs"],
    );
    refuse(&["train", "logistic", "one.h5", "-o", "one.h5"], 2, &["the output one.h5 is one of the inputs"]);
    refuse(&["train", "logistic", "one.h5", "--valid", "runs/*", "-o", "runs/run-9.h5"], 2, &["the table of --valid"]);
    refuse(&["predict", "m.h5", "one.h5", "-o", "m.h5"], 2, &["the output m.h5 is the model itself"]);
}

#[test]
fn features_are_named_by_patterns_and_left_out_by_name() {
    let folder = folder();
    let at = folder.path();
    for (name, n) in [("t.h5", 90), ("u.h5", 70)] {
        let file = hdf5::File::create(at.join(name)).unwrap();
        let events = file.create_group("events").unwrap();
        for (column, name) in ["pt", "eta", "mc_pt", "mc_id", "w"].iter().enumerate() {
            let values: Vec<f32> = (0..n).map(|i| ((i * 7919 + column * 31) % 101) as f32).collect();
            events.new_dataset_builder().with_data(&values).create(*name).unwrap();
        }
        let y: Vec<u8> = (0..n).map(|i| ((i * 7919) % 101 > 40) as u8).collect();
        events.new_dataset_builder().with_data(&y).create("y").unwrap();
    }
    let words = ["train", "logistic", "t.h5", "u.h5", "-o", "m.h5", "--weight", "events/w", "--features", "/events/*"];
    let first = digest(&done(at, 0, &[&words[..], &["--exclude", "mc_*"]].concat()));
    let named = ["train", "logistic", "t.h5", "u.h5", "-o", "n.h5", "--weight", "w", "--group", "events"];
    assert_eq!(digest(&done(at, 0, &[&named[..], &["--features", "eta,pt"]].concat())), first);
    let strings = |name: &str| -> Vec<VarLenUnicode> {
        hdf5::File::open(at.join("m.h5")).unwrap().dataset(name).unwrap().read_raw().unwrap()
    };
    assert_eq!(strings("features").iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["eta", "pt"]);
    done(at, 0, &["predict", "m.h5", "u.h5", "-o", "p.h5"]);

    let printed = done(at, 0, &[&words[..], &["--exclude", "mc_*", "--exclude", "none,pt", "--print-config"]].concat());
    assert!(printed.contains("exclude = [\"mc_*\", \"none\", \"pt\"]"), "{printed}");
    std::fs::write(at.join("job.toml"), printed.replace("\"none\", \"pt\"", "")).unwrap();
    let again = done(at, 0, &["train", "logistic", "t.h5", "u.h5", "-o", "m.h5", "--config", "job.toml"]);
    assert_eq!(digest(&again), first);

    let refuse = |more: &[&str], code: i32, parts: &[&str]| refused(at, &[&words[..8], more].concat(), code, parts);
    refuse(
        &["--features", "/events/q*"],
        2,
        &["t.h5: '/events/q*' matches no dataset", "'events/mc_id' (90, float32)"],
    );
    refuse(
        &["--features", "/events/*", "--exclude", "MC_*"],
        2,
        &["--exclude 'MC_*' matches none", "/events/eta, /events/mc_id"],
    );
    refuse(&["--features", "/events/mc*", "--exclude", "mc_*"], 2, &["--exclude leaves none of the features"]);
}

#[test]
fn values_that_cannot_be_learned_from_are_refused() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "one.h5", 20, |_, y| y.fill(4));
    refused(at, &["train", "logistic", "one.h5", "-o", "m.h5"], 3, &["one.h5", "one class (4)"]);
    table(&folder, "inf.h5", 2000, |x, _| x[3 * 1234 + 1] = f32::INFINITY);
    refused(at, &["train", "linear", "inf.h5", "-o", "m.h5"], 3, &["inf.h5", "X", "1234", "inf"]);
    table(&folder, "nan.h5", 2000, |x, _| x[3 * 1234 + 1] = f32::NAN);
    let nan = ["train", "linear", "nan.h5", "-o", "m.h5", "--missing", "error"];
    refused(at, &nan, 3, &["nan.h5", "1234", "--missing mean"]);
    let some = [&nan[..], &["--rows", "1000..1500"]].concat();
    refused(at, &some, 3, &["row 1234"]);
    table(&folder, "negative.h5", 2000, |_, y| y[1717] = -3);
    refused(at, &["train", "poisson", "negative.h5", "-o", "m.h5"], 3, &["negative.h5", "-3", "row 1717"]);
    table(&folder, "many.h5", 3000, |_, y| y.iter_mut().enumerate().for_each(|(i, y)| *y = i as i32));
    refused(at, &["train", "svm", "many.h5", "-o", "m.h5"], 3, &["many.h5", "1000", "train linear"]);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 20, |_, _| {});
    let refused = |words: &[&str], parts: &[&str]| {
        refused(at, &[&["train", "logistic", "t.h5"], words].concat(), 2, parts);
    };
    refused(&["-o", "none/m.h5"], &["none", "folder"]);
    refused(&["-o", "m.h5", "--solver", "cholesky"], &["--solver", "cholesky", "lbfgs"]);
    refused(&["-o", "m.h5", "--l2", "-1"], &["--l2"]);
    refused(&["-o", "m.h5", "--solver", "adam", "--momentum", "0.5"], &["--momentum"]);
    refused(&["-o", "t.h5"], &["t.h5", "one of the inputs"]);
    table(&folder, "other.h5", 20, |_, _| {});
    refused(&["-o", "other.h5"], &["other.h5", "--force"]);
    refused(&["-o", "m.h5", "--solver", "newton", "--l1", "0.1"], &["--l1", "lbfgs"]);
    // More than the model file can hold: refused before the training, not after it.
    let ended = consort(at, 0, &["train", "logistic", "t.h5", "-o", "m.h5", "--seed", "18446744073709551615"]);
    assert!(ended.code == Some(2) && ended.text.contains("--seed"), "{:?}: {}", ended.code, ended.text);
}

#[test]
fn a_disk_that_is_full_leaves_nothing() {
    let folder = folder();
    let at = folder.path();
    let digits = data("digits.h5");
    done(at, 0, &["train", "logistic", &digits, "--group", "train", "-o", "good.h5", "--max-iterations", "3"]);
    let before = listing(at);
    let train = format!("train logistic {digits} --group train -o full.h5 --max-iterations 3");
    let again = format!("train logistic {digits} --group train -o good.h5 --max-iterations 4");
    let predict = format!("predict good.h5 {digits} --group test -o full.h5");
    for words in [train, again, predict] {
        // Files may have 2 KiB: writing more fails as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f 2; exec {PROGRAM} {words}");
        let mut command = Command::new("bash");
        command.current_dir(at).args(["-c", &script]);
        let ended = end_of(command);
        assert_eq!(ended.code, Some(3), "{words}:\n{}", ended.text);
        one_message(&ended, &[if words.contains("full.h5") { "full.h5" } else { "good.h5" }]);
        assert_eq!(listing(at), before, "{words}");
    }
}

#[test]
fn what_the_model_does_not_know_is_refused() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "train.h5", 200, |_, _| {});
    done(at, 0, &["train", "logistic", "train.h5", "-o", "m.h5"]);
    table(&folder, "unseen.h5", 200, |_, y| y[150] = 7);
    refused(at, &["evaluate", "m.h5", "unseen.h5"], 3, &["unseen.h5", "7", "150"]);
    {
        let file = hdf5::File::create(at.join("wide.h5")).unwrap();
        file.new_dataset_builder().with_data(&ndarray::Array2::<f32>::zeros((9, 4))).create("X").unwrap();
    }
    refused(at, &["predict", "m.h5", "wide.h5", "-o", "p.h5"], 3, &["wide.h5", "4 columns", "3"]);
    refused(at, &["evaluate", "m.h5", "wide.h5"], 3, &["wide.h5"]);
    refused(at, &["predict", "train.h5", "wide.h5", "-o", "p.h5"], 3, &["train.h5", "model"]);
}

// ---- One rank in trouble ----------------------------------------------------------------------------------------------------

#[test]
fn a_file_that_only_some_ranks_see_names_the_rank() {
    if !has_mpi() {
        return;
    }
    let (here, there) = (folder(), folder());
    table(&here, "t.h5", 200, |_, _| {});
    let words = ["train", "logistic", "t.h5", "-o", "m.h5"];
    let mut command = Command::new(launcher());
    command.args(["-n", "2", "-wdir"]).arg(here.path()).arg(PROGRAM).args(words).arg(":");
    command.args(["-n", "1", "-wdir"]).arg(there.path()).arg(PROGRAM).args(words);
    let ended = end_of(command);
    assert_eq!(ended.code, Some(3), "{}", ended.text);
    one_message(&ended, &["rank 2 of 3", "t.h5"]);
    assert!(!here.path().join("m.h5").exists());
    // The same name, another table.
    table(&there, "t.h5", 190, |_, _| {});
    let mut command = Command::new(launcher());
    command.args(["-n", "2", "-wdir"]).arg(here.path()).arg(PROGRAM).args(words).arg(":");
    command.args(["-n", "1", "-wdir"]).arg(there.path()).arg(PROGRAM).args(words);
    let ended = end_of(command);
    assert_eq!(ended.code, Some(3), "{}", ended.text);
    one_message(&ended, &["rank 2 of 3", "t.h5", "nodes see different files"]);
}

#[test]
fn ranks_that_are_started_differently_train_nothing() {
    if !has_mpi() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 200, |_, _| {});
    let words = ["train", "logistic", "t.h5", "-o", "m.h5", "--solver", "sgd", "--epochs", "2"];
    let cases: [(&[&str], &str); 5] = [
        (&["--seed", "7"], "other words or settings than rank 0"),
        (&["--config", "only-there.toml"], "only-there.toml"),
        (&["--lanes", "0"], "--lanes 0"),
        (&["--solver", "magic"], "invalid value 'magic'"),
        (&["--print-config"], "other words or settings than rank 0"),
    ];
    for (more, said) in cases {
        let mut command = Command::new(launcher());
        command.current_dir(at).args(["-n", "2", PROGRAM]).args(words).arg(":");
        let kept = if more[0] == "--solver" { &words[..5] } else { &words };
        command.args(["-n", "1", PROGRAM]).args(kept).args(more);
        let ended = end_of(command);
        assert_eq!(ended.code, Some(2), "{more:?}: {}", ended.text);
        one_message(&ended, &["rank 2 of 3", said]);
        assert!(!at.join("m.h5").exists(), "{more:?}");
    }
}

#[test]
fn threads_that_cannot_start_are_said_once_and_nobody_waits_for_them() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 200, |_, _| {});
    // Stacks of 1 GiB in 4 GiB of address space: the third or fourth thread is refused, and enough is left for all else.
    let script = |words: &str| {
        let mut command = Command::new("bash");
        let train = format!("ulimit -v 4000000; exec {PROGRAM} train logistic t.h5 -o m.h5 {words}");
        command.current_dir(at).args(["-c", &train]).env("RUST_MIN_STACK", "1073741824");
        command
    };
    let mut ways = vec![
        (script("--world solo --threads 16"), "cannot start 16 threads"),
        (script("--world threads:2 --threads 16"), "cannot start 16 threads"),
        (script("--world threads:16 --threads 1"), "cannot start"),
    ];
    if has_mpi() {
        let mut command = Command::new(launcher());
        command.current_dir(at).args(["-n", "2", PROGRAM, "train", "logistic", "t.h5", "-o", "m.h5", ":", "-n", "1"]);
        let one = script("--threads 16");
        command.args(["env", "RUST_MIN_STACK=1073741824"]).arg(one.get_program()).args(one.get_args());
        ways.push((command, "rank 2 of 3: cannot start 16 threads"));
    }
    for (command, said) in ways {
        let ended = end_of(command);
        assert_eq!(ended.code, Some(2), "{said}: {}", ended.text);
        one_message(&ended, &[said]);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_library_that_rounds_tiny_numbers_to_zero_is_refused_on_its_rank() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 200, |_, _| {});
    // What -ffast-math links in.
    let source = "__attribute__((constructor)) static void fast(void) \
                  { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); }";
    std::fs::write(at.join("fast.c"), source).unwrap();
    let compiled = Command::new("cc").current_dir(at).args(["-shared", "-fPIC", "-o", "fast.so", "fast.c"]).status();
    assert!(compiled.unwrap().success());
    let preload = format!("LD_PRELOAD={}", at.join("fast.so").display());
    let words = ["train", "logistic", "t.h5", "-o", "m.h5"];
    let mut alone = Command::new("env");
    alone.current_dir(at).args([&preload, PROGRAM]).args(words);
    let mut ways = vec![(alone, "-ffast-math")];
    if has_mpi() {
        let mut command = Command::new(launcher());
        command.current_dir(at).args(["-n", "2", PROGRAM]).args(words);
        command.args([":", "-n", "1", "env", &preload, PROGRAM]).args(words);
        ways.push((command, "rank 2 of 3: a library in this process"));
    }
    for (command, said) in ways {
        let ended = end_of(command);
        assert_eq!(ended.code, Some(2), "{said}: {}", ended.text);
        one_message(&ended, &[said]);
        assert!(!at.join("m.h5").exists());
    }
}

#[test]
fn a_full_log_does_not_turn_an_error_into_an_abort() {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {PROGRAM} train logistic nowhere.h5 -o m.h5 2>/dev/full")]);
    assert_eq!(end_of(command).code, Some(3));
}

#[test]
fn a_read_that_fails_on_one_rank_names_it() {
    let folder = folder();
    let at = folder.path();
    let n = 4096;
    let path = at.join("t.h5");
    let damaged = {
        let file = hdf5::File::create(&path).unwrap();
        let x = ndarray::Array2::from_shape_fn((n, 3), |(i, j)| ((i * 31 + j * 17) % 101) as f32);
        let y = ndarray::Array1::from_shape_fn(n, |i| (i % 2) as i32);
        let chunked = file.new_dataset_builder().chunk((256, 3)).fletcher32();
        let dataset = chunked.with_data(&x).create("X").unwrap();
        file.new_dataset_builder().with_data(&y).create("y").unwrap();
        dataset.chunk_info(dataset.num_chunks().unwrap() - 1).unwrap().addr
    };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[damaged as usize + 100] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    refused(at, &["train", "logistic", "t.h5", "-o", "m.h5"], 3, &["t.h5", "X"]);
    if has_mpi() {
        let ended = consort(at, 4, &["train", "logistic", "t.h5", "-o", "m.h5"]);
        one_message(&ended, &["rank 3 of 4", "t.h5", "X"]);
        assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_job() {
    if !has_mpi() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    let mark = format!("CONSORT_TEST_MARK={}", at.display());
    let killer = std::thread::spawn({
        let mark = mark.clone();
        move || {
            let since = Instant::now();
            loop {
                assert!(since.elapsed() < Duration::from_secs(60), "rank 3 never came up");
                std::thread::sleep(Duration::from_millis(50));
                if let Some(pid) = rank_3(&mark) {
                    std::thread::sleep(Duration::from_millis(1500)); // into the training
                    Command::new("kill").args(["-KILL", &pid]).status().unwrap();
                    return Instant::now();
                }
            }
        }
    });
    let digits = data("digits.h5");
    let words =
        ["train", "logistic", &digits, "--group", "train", "-o", "m.h5", "--solver", "sgd", "--epochs", "1000000"];
    let mut command = Command::new(launcher());
    let (name, value) = mark.split_once('=').unwrap();
    command.args(["-n", "4", PROGRAM]).args(words).args(["--tolerance", "0"]).current_dir(at).env(name, value);
    let ended = end_of(command);
    let killed = killer.join().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?} after the kill", killed.elapsed());
    assert!(ended.code.is_some_and(|code| code != 0), "{}", ended.text);
    assert!(ended.text.contains("rank 3"), "{}", ended.text);
    assert!(!at.join("m.h5").exists());
}

/// The process of rank 3 among those whose environment has `mark`.
fn rank_3(mark: &str) -> Option<String> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        let has = |word: &str| environment.split(|byte| *byte == 0).any(|entry| entry == word.as_bytes());
        if has(mark) && (has("OMPI_COMM_WORLD_RANK=3") || has("PMI_RANK=3")) {
            return Some(entry.file_name().to_string_lossy().into_owned());
        }
    }
    None
}

// ---- Legal, with one warning at most --------------------------------------------------------------------------------------

#[test]
fn columns_without_content_weigh_nothing_and_are_named_once() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 500, |x, _| {
        for row in x.chunks_mut(3) {
            (row[1], row[2]) = (5.5, f32::NAN);
        }
    });
    for solver in ["lbfgs", "newton", "adam"] {
        let text = done(at, 0, &["train", "logistic", "t.h5", "-o", "m.h5", "--solver", solver, "--folds", "2"]);
        let warnings: Vec<&str> = text.lines().filter(|line| line.contains("warning")).collect();
        assert_eq!(warnings.len(), 1, "{text}");
        assert!(warnings[0].contains("X[1]") && warnings[0].contains("X[2]"), "{text}");
        let file = hdf5::File::open(at.join("m.h5")).unwrap();
        let coefficients: Vec<f64> = file.dataset("params/coefficients").unwrap().read_raw().unwrap();
        assert_eq!((coefficients[1], coefficients[2]), (0.0, 0.0));
        assert_ne!(coefficients[0], 0.0);
    }
}

#[test]
fn few_rows_are_enough_for_any_number_of_ranks() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "one.h5", 1, |_, _| {});
    table(&folder, "five.h5", 5, |_, y| y.copy_from_slice(&[0, 1, 1, 0, 1]));
    for solver in ["cholesky", "qr", "lbfgs", "sgd"] {
        done(at, 0, &["train", "linear", "one.h5", "-o", "m.h5", "--solver", solver]);
    }
    refused(at, &["train", "logistic", "one.h5", "-o", "none.h5"], 3, &["one.h5", "one class"]);
    let alone = digest(&done(at, 0, &["train", "logistic", "five.h5", "-o", "m.h5"]));
    if has_mpi() {
        assert_eq!(digest(&done(at, 4, &["train", "logistic", "five.h5", "-o", "m.h5"])), alone);
        let of_one = |ranks| digest(&done(at, ranks, &["train", "linear", "one.h5", "-o", "m.h5"]));
        assert_eq!(of_one(0), of_one(3));
    }
}
