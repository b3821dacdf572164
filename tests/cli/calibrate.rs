//! Calibrated classifiers, reliability and permutation importance as people meet them.

use super::*;

#[test]
fn svm_gets_probabilities_and_everything_reads_them() {
    let folder = folder();
    table(&folder, "t.h5", 600, |_, y| y.iter_mut().step_by(7).for_each(|y| *y = 1 - *y));
    let path = folder.path();
    for method in ["platt", "isotonic"] {
        let words =
            ["train", "svm", "t.h5", "--calibrate", method, "--calibrate-folds", "3", "--valid-fraction", "0.2"];
        let told = done(path, 0, &[&words[..], &["--force", "-o", "svm.h5"]].concat());
        assert!(told.contains("valid | accuracy") && told.contains("ece"), "{told}");
        if has_mpi() {
            let told = done(path, 3, &[&words[..], &["--threads", "2", "-o", "three.h5", "--force"]].concat());
            let same = digest(&done(path, 0, &[&words[..], &["--force", "-o", "svm.h5"]].concat()));
            assert_eq!(digest(&told), same);
        }
        let shown = done(path, 0, &["inspect", "svm.h5"]);
        assert!(shown.contains("calibrated:") && shown.contains(&format!("calibrate = \"{method}\"")), "{shown}");
        assert!(done(path, 0, &["verify", "svm.h5"]).contains(&digest(&told)));
        done(path, 0, &["predict", "svm.h5", "t.h5", "-o", "p.h5", "--force"]);
        let file = hdf5::File::open(path.join("p.h5")).unwrap();
        let p = file.dataset("probability").unwrap().read_raw::<f64>().unwrap();
        assert_eq!(p.len(), 1200);
        assert!(p.chunks(2).all(|pair| (0.0..=1.0).contains(&pair[0]) && pair[0] + pair[1] == 1.0));
        assert!(!file.link_exists("score"));
    }
    refused(
        path,
        &["predict", "svm.h5", "t.h5", "--contributions", "-o", "q.h5"],
        2,
        &["--contributions", "--calibrate"],
    );
    refused(path, &["export", "svm.h5", "text.txt"], 2, &["calibrated"]);
    refused(path, &["train", "linear", "t.h5", "--calibrate", "platt", "-o", "q.h5"], 2, &["--calibrate", "linear"]);
    refused(
        path,
        &["train", "svm", "t.h5", "--calibrate-folds", "4", "-o", "q.h5"],
        2,
        &["--calibrate-folds", "platt"],
    );
    done(path, 0, &["train", "boost", "t.h5", "--rounds", "3", "--calibrate", "platt", "-o", "boost.h5"]);
    refused(
        path,
        &["train", "boost", "t.h5", "--continue", "boost.h5", "-o", "q.h5"],
        2,
        &["--continue", "--calibrate"],
    );
    assert!(done(path, 0, &["inspect", "boost.h5", "--tree", "0"]).contains("tree 0 of 3"));
}

#[test]
fn evaluate_says_how_often_probabilities_came_true_and_what_matters() {
    let folder = folder();
    table(&folder, "t.h5", 500, |_, y| y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y));
    let path = folder.path();
    done(path, 0, &["train", "logistic", "t.h5", "-o", "m.h5"]);
    let told = done(path, 0, &["evaluate", "m.h5", "t.h5", "--permutation", "3"]);
    assert!(told.contains("brier 0.") && told.contains("how often it came true"), "{told}");
    assert!(told.contains("0.9 to 1.0") && told.contains("mean and spread of 3 permutations"), "{told}");
    let json = output(path, 0, &["evaluate", "m.h5", "t.h5", "--permutation", "3", "--json"]);
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bins = lines[0]["reliability"].as_array().unwrap();
    assert_eq!((bins.len(), bins.iter().map(|bin| bin["rows"].as_u64().unwrap()).sum::<u64>()), (10, 500));
    assert_eq!((lines[1]["event"].as_str(), lines[1]["metric"].as_str()), (Some("permutation"), Some("log_loss")));
    let worse = |column: usize| lines[1]["columns"][column]["mean"].as_f64().unwrap();
    assert!((0..lines[1]["columns"].as_array().unwrap().len()).any(|column| worse(column) > 0.05), "{json}");
    if has_mpi() {
        let words = ["evaluate", "m.h5", "t.h5", "--permutation", "3", "--json", "--threads", "1"];
        assert_eq!(output(path, 3, &words), json);
    }
    let other = output(path, 0, &["evaluate", "m.h5", "t.h5", "--permutation", "3", "--seed", "4", "--json"]);
    assert_eq!(other.lines().next(), json.lines().next());
    assert_ne!(other, json);
}
