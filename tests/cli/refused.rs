//! Words, settings, files and values that do not fit: one message each, and nothing is left behind.

use super::*;

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
    refused(&["-o", "m.h5", "--solver", "sgd", "--weight-decay", "0.1"], &["--weight-decay means nothing", "sgd"]);
    refused(&["-o", "m.h5", "--average", "0.9"], &["--average means nothing", "lbfgs"]);
    refused(&["-o", "m.h5", "--early-stop", "3"], &["--early-stop means nothing", "lbfgs"]);
    refused(&["-o", "m.h5", "--solver", "adagrad", "--beta1", "0.9"], &["--beta1 means nothing", "adagrad"]);
    refused(&["-o", "m.h5", "--solver", "adam", "--no-nesterov"], &["--no-nesterov means nothing"]);
    refused(&["-o", "m.h5", "--solver", "sgd", "--early-stop", "3"], &["--early-stop", "--valid-fraction"]);
    refused(&["-o", "m.h5", "--solver", "sgd", "--scale-rate", "linear"], &["--scale-rate", "--learning-rate"]);
    let long = ["-o", "m.h5", "--solver", "sgd", "--epochs", "2", "--warm-up", "9steps"];
    refused(&long, &["--warm-up takes 9 steps", "no more than 2"]);
    refused(&["-o", "t.h5"], &["t.h5", "one of the inputs"]);
    table(&folder, "other.h5", 20, |_, _| {});
    refused(&["-o", "other.h5"], &["other.h5", "--force"]);
    refused(&["-o", "m.h5", "--solver", "newton", "--l1", "0.1"], &["--l1", "lbfgs"]);
    refused(&["-o", "m.h5", "--solver", "sgd", "--warm-up", "5m"], &["--warm-up", "write 500steps or 0.5epochs"]);
    // More than the model file can hold: refused before the training, not after it.
    refused(&["-o", "m.h5", "--seed", "18446744073709551615"], &["--seed"]);
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
