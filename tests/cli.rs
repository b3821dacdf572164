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
#[path = "cli/network.rs"]
mod network;
#[path = "cli/nodes.rs"]
mod nodes;
#[path = "cli/refused.rs"]
mod refused;
#[path = "cli/slurm.rs"]
mod slurm;
#[path = "cli/trouble.rs"]
mod trouble;

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
