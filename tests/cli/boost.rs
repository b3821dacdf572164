//! Boosted trees as people meet them: trained on any number of ranks, continued, read, carried to another program and back.

use super::*;

const SETTINGS: [&str; 6] = ["--max-leaves", "7", "--row-sample", "0.7", "--force", "-o"];

fn train(folder: &Path, ranks: usize, model: &str, words: &[&str]) -> String {
    digest(&done(folder, ranks, &[&["train", "boost", "t.h5"], &SETTINGS[..], &[model], words].concat()))
}

#[test]
fn a_model_that_is_continued_is_the_one_that_was_trained_at_once() {
    let folder = folder();
    table(&folder, "t.h5", 900, |x, y| {
        x.iter_mut().skip(2).step_by(12).for_each(|x| *x = f32::NAN);
        y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y);
    });
    let path = folder.path();
    let whole = train(path, 0, "whole.h5", &["--rounds", "12"]);
    train(path, 0, "part.h5", &["--rounds", "5"]);
    let more = ["--rounds", "7", "--continue", "part.h5"];
    assert_eq!(train(path, 0, "joined.h5", &more), whole);
    assert!(done(path, 0, &["verify", "joined.h5"]).contains(&whole));
    if has_mpi() {
        assert_eq!(train(path, 3, "three.h5", &["--rounds", "12", "--threads", "2"]), whole);
        assert_eq!(train(path, 2, "two.h5", &more), whole);
        assert!(done(path, 2, &["verify", "two.h5"]).contains(&whole));
    }
    // Other settings: rounds are added to those there are, and only these are trained again.
    train(path, 0, "other.h5", &["--rounds", "3", "--shrinkage", "0.3", "--continue", "part.h5"]);
    assert!(done(path, 0, &["inspect", "other.h5"]).contains("continued after 5 rounds"));
    done(path, 0, &["verify", "other.h5"]);
    done(path, 0, &["train", "logistic", "t.h5", "-o", "linear.h5"]);
    refused(
        path,
        &["train", "boost", "t.h5", "--continue", "linear.h5", "-o", "new.h5"],
        2,
        &["linear.h5", "boosted trees"],
    );
    refused(path, &["train", "logistic", "t.h5", "--continue", "part.h5", "-o", "new.h5"], 2, &["--continue"]);
    refused(
        path,
        &["train", "boost", "t.h5", "--continue", "part.h5", "--loss", "squared", "-o", "new.h5"],
        2,
        &["--loss"],
    );
    done(path, 0, &["train", "boost", "t.h5", "--loss", "squared", "-o", "numbers.h5"]);
    refused(
        path,
        &["train", "boost", "t.h5", "--continue", "numbers.h5", "--loss", "logistic", "-o", "new.h5"],
        2,
        &["--loss", "squared"],
    );
    table(&folder, "classes.h5", 300, |_, y| y[7] = 2);
    refused(path, &["train", "boost", "classes.h5", "--continue", "part.h5", "-o", "new.h5"], 3, &["class '2'"]);
}

#[test]
fn trees_go_to_the_text_form_and_back_and_predict_the_same() {
    let folder = folder();
    table(&folder, "t.h5", 700, |x, _| x.iter_mut().step_by(7).for_each(|x| *x = f32::NAN));
    let path = folder.path();
    train(path, 0, "m.h5", &["--rounds", "9"]);
    done(path, 0, &["export", "m.h5", "m.txt"]);
    done(path, 0, &["import", "m.txt", "again.h5"]);
    let scores = |model: &str, out: &str| {
        done(path, 0, &["predict", model, "t.h5", "-o", out, "--contributions", "--leaves"]);
        let file = hdf5::File::open(path.join(out)).unwrap();
        let leaves: Vec<u32> = file.dataset("leaf").unwrap().read_raw().unwrap();
        (file.dataset("probability").unwrap().read_raw::<f64>().unwrap(), leaves)
    };
    let (before, after) = (scores("m.h5", "p.h5"), scores("again.h5", "q.h5"));
    assert_eq!(before.0, after.0);
    assert_eq!(before.1, after.1);
    // What was learned elsewhere is gone on from too.
    let more = done(path, 0, &["train", "boost", "t.h5", "--rounds", "2", "--continue", "again.h5", "-o", "more.h5"]);
    assert_ne!(digest(&more), "");
    assert!(done(path, 0, &["inspect", "more.h5"]).contains("continued after 9 rounds"));
}

/// A table of `X` and a target of numbers.
fn amounts(folder: &TempDir, name: &str, n: usize, d: usize, x: impl Fn(usize) -> f64, y: impl Fn(usize) -> f64) {
    let file = hdf5::File::create(folder.path().join(name)).unwrap();
    let x = ndarray::Array2::from_shape_vec((n, d), (0..n * d).map(x).collect()).unwrap();
    file.new_dataset_builder().with_data(&x).create("X").unwrap();
    file.new_dataset_builder().with_data(&ndarray::Array1::from_iter((0..n).map(y))).create("y").unwrap();
}

#[test]
fn what_boost_cannot_learn_from_has_its_one_message() {
    let folder = folder();
    let path = folder.path();
    let number = |i: usize| (i * 7919 % 101) as f64;
    let train = |name: &'static str| ["train", "boost", name, "--loss", "squared", "-o", "new.h5"];
    amounts(&folder, "nan.h5", 60, 2, number, |row| if row == 41 { f64::NAN } else { number(row) });
    refused(path, &train("nan.h5"), 3, &["nan.h5", "'y'", "41"]);
    amounts(&folder, "inf.h5", 60, 2, |i| if i == 31 { f64::NEG_INFINITY } else { number(i) }, number);
    refused(path, &train("inf.h5"), 3, &["inf.h5", "infinite value in column 1", "row 15", "NaN for a missing value"]);
    amounts(&folder, "none.h5", 60, 0, number, number);
    refused(path, &train("none.h5"), 3, &["none.h5", "has no columns"]);
    amounts(&folder, "good.h5", 60, 2, number, number);
    refused(path, &[&train("good.h5")[..], &["--offset", "y"]].concat(), 2, &["--offset is not for boost", "--weight"]);
}

#[test]
fn a_constant_model_is_warned_of_once_and_large_losses_are_short() {
    let folder = folder();
    let path = folder.path();
    amounts(&folder, "t.h5", 3, 1, |i| i as f64, |row| 1e30 * row as f64);
    let words = ["train", "boost", "t.h5", "--force", "-o", "m.h5"];
    let alone = done(path, 0, &words);
    for ranks in if has_mpi() { vec![0, 5] } else { vec![0] } {
        let text = done(path, ranks, &words);
        let warnings: Vec<&str> = text.lines().filter(|line| line.contains("warning: no split was found")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("--min-rows 20 is more than half of the 3 rows"), "{text}");
        // Half of the mean of 1e60, 0 and 1e60.
        assert!(text.contains("3 rows × 1 feature | loss 3.333333e59 | grown after 1 round\n"), "{text}");
        assert_eq!(digest(&text), digest(&alone), "more ranks than rows");
    }
}

#[test]
fn a_disk_that_is_full_leaves_no_part_of_a_boosted_model() {
    let folder = folder();
    table(&folder, "t.h5", 900, |_, _| {});
    let path = folder.path();
    train(path, 0, "good.h5", &["--rounds", "3"]);
    let before = listing(path);
    for model in ["new.h5", "good.h5"] {
        // Files may have 2 KiB.
        let script =
            format!("trap '' XFSZ; ulimit -f 2; exec {PROGRAM} train boost t.h5 --rounds 40 --force -o {model}");
        let mut command = Command::new("bash");
        command.current_dir(path).args(["-c", &script]);
        let ended = end_of(command);
        assert_eq!(ended.code, Some(3), "{}", ended.text);
        one_message(&ended, &[model]);
        assert_eq!(listing(path), before);
    }
    refused(path, &["train", "boost", "t.h5", "-o", "no/such/folder/m.h5"], 2, &["no/such/folder"]);
}
