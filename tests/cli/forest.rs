//! Forests as people meet them: trained on any number of ranks, measured out of bag, read, predicted with.

use super::*;

const SETTINGS: [&str; 7] = ["--trees", "12", "--min-rows", "2", "--oob", "--force", "-o"];

fn train(folder: &Path, ranks: usize, model: &str, words: &[&str]) -> String {
    done(folder, ranks, &[&["train", "forest", "t.h5"], &SETTINGS[..], &[model], words].concat())
}

#[test]
fn a_forest_is_the_same_on_any_number_of_ranks_and_everything_reads_it() {
    let folder = folder();
    table(&folder, "t.h5", 900, |x, y| {
        x.iter_mut().skip(2).step_by(12).for_each(|x| *x = f32::NAN);
        y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y);
    });
    let path = folder.path();
    let told = train(path, 0, "whole.h5", &[]);
    assert!(told.contains("out of bag | accuracy 0."), "{told}");
    let whole = digest(&told);
    // The same without measuring; another one with other rows or cuts.
    assert_eq!(
        digest(&done(path, 0, &["train", "forest", "t.h5", "--trees", "12", "--min-rows", "2", "-o", "plain.h5"])),
        whole
    );
    let local = digest(&train(path, 0, "local.h5", &["--scope", "local", "--lanes", "3"]));
    assert_ne!(local, whole);
    if has_mpi() {
        assert_eq!(digest(&train(path, 3, "three.h5", &["--threads", "2"])), whole);
        assert_eq!(digest(&train(path, 2, "two.h5", &["--scope", "local", "--lanes", "3"])), local);
    }
    assert!(done(path, 0, &["verify", "whole.h5"]).contains(&whole));
    let shown = done(path, 0, &["inspect", "whole.h5"]);
    assert!(shown.contains("12 trees of") && shown.contains("importance: share of the gain, splits"), "{shown}");
    assert!(done(path, 0, &["evaluate", "whole.h5", "t.h5"]).contains("log_loss"));
    done(path, 0, &["predict", "whole.h5", "t.h5", "--leaves", "-o", "p.h5"]);
    refused(path, &["predict", "whole.h5", "t.h5", "--contributions", "-o", "q.h5"], 2, &["--contributions", "forest"]);
    refused(path, &["export", "whole.h5", "text.txt"], 2, &["forest"]);
    refused(path, &["inspect", "whole.h5", "--tree", "0"], 2, &["--tree", "forest"]);
}

#[test]
fn rows_are_predicted_out_of_bag_by_the_trees_that_did_not_draw_them() {
    let folder = folder();
    table(&folder, "t.h5", 400, |_, y| y.iter_mut().step_by(5).for_each(|y| *y = 1 - *y));
    table(&folder, "less.h5", 300, |_, _| ());
    let path = folder.path();
    let oob = |words: &[&str]| {
        let told = done(path, 0, words);
        let line = told.lines().find(|line| line.starts_with("out of bag")).unwrap().to_string();
        let accuracy =
            line.split("accuracy ").nth(1).unwrap().split_whitespace().next().unwrap().parse::<f64>().unwrap();
        (accuracy, told)
    };
    let (accuracy, _) = oob(&["train", "forest", "t.h5", "--trees", "40", "--min-rows", "1", "--oob", "-o", "m.h5"]);
    assert!((0.5..0.9).contains(&accuracy), "a fifth of the classes is turned: {accuracy}");
    // Rows that were drawn are known by heart.
    let seen = done(path, 0, &["evaluate", "m.h5", "t.h5"]);
    let seen: f64 = seen.split("accuracy ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(seen > accuracy + 0.1, "{seen} {accuracy}");
    done(path, 0, &["predict", "m.h5", "t.h5", "--oob", "-o", "p.h5"]);
    if has_mpi() {
        done(path, 3, &["predict", "m.h5", "t.h5", "--oob", "-o", "p3.h5"]);
        assert_eq!(std::fs::read(path.join("p.h5")).unwrap(), std::fs::read(path.join("p3.h5")).unwrap());
    }
    refused(path, &["predict", "m.h5", "less.h5", "--oob", "-o", "q.h5"], 2, &["--oob", "300 rows", "400"]);
    done(path, 0, &["train", "forest", "t.h5", "--trees", "2", "-o", "few.h5"]);
    refused(path, &["predict", "few.h5", "t.h5", "--oob", "-o", "q.h5"], 3, &["--oob", "2 trees", "more trees"]);
    done(path, 0, &["train", "forest", "t.h5", "--trees", "3", "--extra", "-o", "extra.h5"]);
    refused(path, &["predict", "extra.h5", "t.h5", "--oob", "-o", "q.h5"], 2, &["--oob", "--bootstrap poisson"]);
    done(path, 0, &["train", "logistic", "t.h5", "-o", "linear.h5"]);
    refused(path, &["predict", "linear.h5", "t.h5", "--oob", "-o", "q.h5"], 2, &["--oob", "logistic"]);
}

#[test]
fn words_that_mean_nothing_to_a_forest_are_refused_by_name() {
    let folder = folder();
    table(&folder, "t.h5", 100, |_, _| ());
    let path = folder.path();
    let refuse = |words: &[&str], told: &[&str]| {
        refused(path, &[&["train", "forest", "t.h5", "-o", "m.h5"], words].concat(), 2, told);
    };
    refuse(&["--rounds", "5"], &["--rounds", "boost"]);
    refuse(&["--l2", "1"], &["--l2", "forest"]);
    refuse(&["--lanes", "2"], &["--lanes", "--scope local"]);
    refuse(&["--oob", "--extra"], &["--oob", "--bootstrap"]);
    refuse(&["--solver", "lbfgs"], &["--solver", "forest"]);
    refused(path, &["train", "logistic", "t.h5", "--trees", "3", "-o", "m.h5"], 2, &["--trees", "forest"]);
    refused(
        path,
        &["train", "boost", "t.h5", "--class-weight", "bootstrap", "-o", "m.h5"],
        2,
        &["--class-weight", "forest"],
    );
}
