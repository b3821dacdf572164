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
