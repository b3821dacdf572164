//! Networks as people meet them: trained on any number of ranks, kept and gone on with, read, predicted with, refused.

use super::*;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits.h5");

fn train(folder: &Path, ranks: usize, model: &str, words: &[&str]) -> String {
    let about = ["train", "mlp", DIGITS, "--group", "train", "--layers", "40,40", "--learning-rate", "0.005"];
    let steps = ["--global-batch", "64", "--lanes", "4", "--epochs", "6", "--force", "-o"];
    done(folder, ranks, &[&about[..], &steps, &[model], words].concat())
}

#[test]
fn a_network_is_the_same_on_any_number_of_ranks_and_everything_reads_it() {
    let folder = folder();
    let path = folder.path();
    let words = ["--dropout", "0.1", "--norm", "layer", "--residual", "--activation", "gelu"];
    let whole = digest(&train(path, 0, "whole.h5", &words));
    let narrow = digest(&train(path, 0, "narrow.h5", &["--gradient-bits", "8", "--solver", "sgd"]));
    assert_ne!(narrow, whole);
    if has_mpi() {
        for ranks in [2, 3] {
            assert_eq!(digest(&train(path, ranks, "ranks.h5", &[&words[..], &["--threads", "2"]].concat())), whole);
            assert_eq!(digest(&train(path, ranks, "bits.h5", &["--gradient-bits", "8", "--solver", "sgd"])), narrow);
        }
    }
    assert!(done(path, 0, &["verify", "whole.h5"]).contains(&whole));
    let shown = done(path, 0, &["inspect", "whole.h5"]);
    assert!(shown.contains("dense 64 → 40, layer norm, gelu, dropout 0.1, dense 40 → 40"), "{shown}");
    let told = done(path, 0, &["evaluate", "whole.h5", DIGITS, "--group", "test"]);
    let accuracy: f64 = told.split("accuracy ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(accuracy > 0.85, "{told}");
    // A part is predicted with the bits of the whole.
    done(path, 0, &["predict", "whole.h5", DIGITS, "--group", "test", "-o", "p.h5"]);
    done(path, 0, &["predict", "whole.h5", DIGITS, "--group", "test", "--rows", "17..20", "-o", "part.h5"]);
    let shares = |name: &str| {
        let file = hdf5::File::open(path.join(name)).unwrap();
        file.dataset("probability").unwrap().read_raw::<f64>().unwrap()
    };
    assert_eq!(shares("part.h5"), shares("p.h5")[17 * 10..20 * 10]);
    refused(
        path,
        &["predict", "whole.h5", DIGITS, "--group", "test", "--leaves", "-o", "q.h5"],
        2,
        &["--leaves", "network"],
    );
}

#[test]
fn a_network_that_was_stopped_goes_on_to_the_same_bits() {
    let folder = folder();
    let path = folder.path();
    for words in [
        &["--average", "0.9", "--norm", "layer"][..],
        &["--gradient-bits", "16", "--solver", "sgd"],
        &["--precision", "bf16", "--norm", "batch"],
        // Steps that are kept are in the midst of a round.
        &["--sync-every", "5", "--norm", "batch", "--solver", "adam"],
    ] {
        let whole = digest(&train(path, 0, "whole.h5", words));
        let kept = ["--checkpoint", "kept", "--every", "7steps", "--keep", "100"];
        assert_eq!(digest(&train(path, 0, "kept.h5", &[words, &kept].concat())), whole);
        // Only an early step is left.
        let mut steps: Vec<_> =
            std::fs::read_dir(path.join("kept")).unwrap().map(|entry| entry.unwrap().path()).collect();
        steps.retain(|path| path.is_dir());
        steps.sort();
        assert!(steps.len() > 3, "{steps:?}");
        steps.drain(..2).for_each(drop);
        steps.iter().for_each(|path| std::fs::remove_dir_all(path).unwrap());
        let ranks = if has_mpi() { 3 } else { 0 };
        let told = train(path, ranks, "again.h5", &[words, &kept].concat());
        assert!(told.contains("goes on") || told.contains("resum") || told.contains("after step"), "{told}");
        assert_eq!(digest(&told), whole);
        std::fs::remove_dir_all(path.join("kept")).unwrap();
    }
}

#[test]
fn a_network_that_multiplies_sixteen_bits_is_the_same_everywhere_and_as_good() {
    let folder = folder();
    let path = folder.path();
    let words = ["--precision", "bf16", "--norm", "batch", "--epochs", "20"];
    let about = [
        "train",
        "mlp",
        DIGITS,
        "--group",
        "train",
        "--lanes",
        "4",
        "--global-batch",
        "64",
        "--learning-rate",
        "0.003",
    ];
    let of =
        |ranks, model: &str, more: &[&str]| done(path, ranks, &[&about[..], more, &["--force", "-o", model]].concat());
    let narrow = digest(&of(0, "narrow.h5", &words));
    for ranks in if has_mpi() { &[2, 3][..] } else { &[] } {
        assert_eq!(digest(&of(*ranks, "ranks.h5", &words)), narrow);
    }
    assert_ne!(digest(&of(0, "wide.h5", &words[2..])), narrow);
    assert_eq!(
        digest(&of(0, "again.h5", &[&["--precision", "f32"], &words[2..]].concat())),
        digest(&of(0, "wide.h5", &words[2..]))
    );
    assert!(done(path, 0, &["verify", "narrow.h5"]).contains(&narrow));
    let settings = |model: &str| done(path, 0, &["inspect", model]);
    assert!(settings("narrow.h5").contains("precision = \"bf16\""), "{}", settings("narrow.h5"));
    assert!(!settings("wide.h5").contains("precision"));
    let accuracy = |model: &str| -> f64 {
        let told = done(path, 0, &["evaluate", model, DIGITS, "--group", "test"]);
        told.split("accuracy ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    let (in_narrow, in_wide) = (accuracy("narrow.h5"), accuracy("wide.h5"));
    assert!(in_wide > 0.9 && (in_narrow - in_wide).abs() <= 0.01, "{in_narrow} and {in_wide}");
    // As a job file.
    let printed = done(path, 0, &[&about[..], &words, &["--print-config"]].concat());
    std::fs::write(path.join("printed.toml"), printed).unwrap();
    assert_eq!(digest(&done(path, 0, &["train", "mlp", DIGITS, "--config", "printed.toml", "-o", "job.h5"])), narrow);
    // A member of an ensemble.
    let bag =
        ["train", "bag", DIGITS, "--group", "train", "--learner", "mlp --precision bf16 --epochs 2", "--members", "2"];
    done(path, 0, &[&bag[..], &["-o", "bag.h5"]].concat());
    assert!(settings("bag.h5").contains("bf16"), "{}", settings("bag.h5"));
}

#[test]
fn no_hidden_layer_goes_round_as_a_setting() {
    let folder = folder();
    let path = folder.path();
    let words = ["train", "mlp", DIGITS, "--group", "train", "--layers", "0", "--epochs", "1"];
    let told = digest(&done(path, 0, &[&words[..], &["-o", "m.h5"]].concat()));
    let printed = done(path, 0, &[&words[..], &["--print-config"]].concat());
    std::fs::write(path.join("printed.toml"), printed).unwrap();
    let again = done(path, 0, &["train", "mlp", DIGITS, "--config", "printed.toml", "-o", "again.h5"]);
    assert_eq!(digest(&again), told);
    let other = done(path, 0, &["train", "mlp", DIGITS, "--group", "train", "--epochs", "1", "-o", "other.h5"]);
    assert_ne!(digest(&other), told);
}

#[test]
fn lanes_of_networks_that_step_alone_send_less_and_learn_as_well() {
    let folder = folder();
    let path = folder.path();
    let ways = [
        &[][..],
        &["--sync-every", "8"],
        &["--sync-every", "8", "--local-after", "3"],
        &["--sync", "once", "--local-after", "4", "--gradient-bits", "16"],
    ];
    let mut sent = Vec::new();
    for words in ways {
        let whole = digest(&train(path, 0, "whole.h5", words));
        assert!(done(path, 0, &["verify", "whole.h5"]).contains(&whole), "{words:?}");
        let told = done(path, 0, &["evaluate", "whole.h5", DIGITS, "--group", "test"]);
        let accuracy: f64 = told.split("accuracy ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(accuracy > 0.85, "{words:?}: {told}");
        if has_mpi() {
            assert_eq!(digest(&train(path, 3, "ranks.h5", &[words, &["--threads", "2"]].concat())), whole, "{words:?}");
            let told = train(path, 2, "two.h5", &[words, &["--json"]].concat());
            let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
            assert_eq!(last["digest"], whole, "{words:?}");
            sent.push(last["traffic"]["all_reduce"]["bytes"].as_f64().unwrap());
        }
    }
    if has_mpi() {
        // 22 steps in each of six epochs: 132 sums of gradients, 17 averages, 66 and 9.
        assert!(sent[1] < 0.2 * sent[0] && (0.5 * sent[0]..0.6 * sent[0]).contains(&sent[2]), "{sent:?}");
    }
}

#[test]
fn networks_that_send_some_of_their_gradients_are_the_same_on_any_number_of_ranks() {
    let folder = folder();
    let path = folder.path();
    let ways =
        [&["--solver", "sgd"][..], &["--top-k", "0.05", "--solver", "sgd"], &["--powersgd", "2", "--solver", "sgd"]];
    let mut sent = Vec::new();
    for words in ways {
        let whole = digest(&train(path, 0, "whole.h5", words));
        assert!(done(path, 0, &["verify", "whole.h5"]).contains(&whole), "{words:?}");
        let told = done(path, 0, &["evaluate", "whole.h5", DIGITS, "--group", "test"]);
        let accuracy: f64 = told.split("accuracy ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(accuracy > 0.75, "{words:?}: {told}");
        if has_mpi() {
            assert_eq!(digest(&train(path, 3, "ranks.h5", &[words, &["--threads", "2"]].concat())), whole, "{words:?}");
            let told = train(path, 2, "two.h5", &[words, &["--json"]].concat());
            let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
            assert_eq!(last["digest"], whole, "{words:?}");
            let bytes = |kind: &str| last["traffic"][kind]["bytes"].as_f64().unwrap_or(0.0);
            sent.push(bytes("all_reduce") + bytes("all_gather"));
        }
        let kept = ["--checkpoint", "kept", "--every", "40steps", "--keep", "100"];
        assert_eq!(digest(&train(path, 0, "kept.h5", &[words, &kept].concat())), whole);
        let mut steps: Vec<_> =
            std::fs::read_dir(path.join("kept")).unwrap().map(|entry| entry.unwrap().path()).collect();
        steps.retain(|path| path.is_dir());
        steps.sort();
        steps.drain(..1).for_each(drop);
        steps.iter().for_each(|path| std::fs::remove_dir_all(path).unwrap());
        let ranks = if has_mpi() { 3 } else { 0 };
        assert_eq!(digest(&train(path, ranks, "again.h5", &[words, &kept].concat())), whole, "{words:?}");
        std::fs::remove_dir_all(path.join("kept")).unwrap();
    }
    if has_mpi() {
        assert!(sent[1..].iter().all(|bytes| *bytes < 0.4 * sent[0]), "{sent:?}");
    }
}

#[test]
fn settings_that_fit_no_network_are_refused() {
    let folder = folder();
    let path = folder.path();
    let with = |words: &[&str]| -> Vec<String> {
        let all = [&["train", "mlp", DIGITS, "--group", "train", "-o", "m.h5"][..], words].concat();
        all.into_iter().map(String::from).collect()
    };
    for (words, parts) in [
        (&["--layers", "0,10"][..], &["--layers", "0 units"][..]),
        (&["--dropout", "1"], &["--dropout 1"]),
        (&["--gradient-bits", "12"], &["--gradient-bits 12", "32, 16 or 8"]),
        (
            &["--gradient-bits", "8", "--lanes", "64", "--global-batch", "640"],
            &["--gradient-bits 8", "64 lanes", "--lanes 32"],
        ),
        (&["--top-k", "0.6"], &["--top-k 0.6", "at most 0.5"]),
        (&["--top-k", "0"], &["--top-k 0 ", "above 0"]),
        (&["--powersgd", "0"], &["--powersgd 0", "from 1 to 32"]),
        (&["--top-k", "0.1", "--gradient-bits", "8"], &["--gradient-bits 8", "--top-k 0.1", "leave one out"]),
        (&["--top-k", "0.1", "--powersgd", "4"], &["--top-k 0.1", "--powersgd 4", "leave one out"]),
        (&["--sync-every", "5", "--top-k", "0.1"], &["--top-k 0.1", "--local-after"]),
        (&["--sync", "once", "--powersgd", "2"], &["--powersgd 2", "--local-after"]),
        (&["--loss", "gamma"], &["--loss gamma", "boost"]),
        (&["--solver", "lbfgs"], &["--solver lbfgs", "mlp", "adamw"]),
        (&["--precision", "f16"], &["'f16'", "--precision", "`f32` or `bf16`"]),
        (&["--sync", "onc"], &["'onc'", "--sync", "step, once"]),
        (&["--layer", "5"], &["'--layer'", "'--layers'"]),
        (&["--local-after", "5"], &["--local-after", "--sync-every"]),
        (&["--sync-every", "5", "--local-after", "3", "--epochs", "3"], &["--local-after 3", "3 epochs"]),
        (&["--sync-every", "5", "--gradient-bits", "8"], &["--gradient-bits 8", "--local-after"]),
        (&["--sync", "once", "--average", "0.9"], &["--average", "--sync-every"]),
        (&["--global-batch", "3", "--lanes", "8"], &["--global-batch 3", "8 lanes"]),
        (&["--rounds", "5"], &["--rounds", "boost"]),
        (
            &["--learning-rate", "1e9", "--solver", "sgd", "--loss", "squared"],
            &["diverged at step", "--learning-rate 5.0e-2"],
        ),
    ] {
        let words = with(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refused(path, &words, 2, parts);
        assert!(!path.join("m.h5").exists());
    }
    for words in [["--layers", "5"], ["--precision", "bf16"]] {
        let about = ["train", "logistic", DIGITS, "--group", "train", "-o", "m.h5"];
        refused(path, &[&about[..], &words].concat(), 2, &[words[0], "mlp"]);
    }
}

/// A table of images.
fn images(path: &Path, height: usize, width: usize) {
    let (n, file) = (60, hdf5::File::create(path).unwrap());
    let pixel = |(row, i, j): (usize, usize, usize)| ((row * 31 + i * 7 + j * 3 + i * j * row) % 17) as f32;
    let x = ndarray::Array3::from_shape_fn((n, height, width), pixel);
    file.new_dataset_builder().with_data(&x).create("X").unwrap();
    file.new_dataset_builder().with_data(&ndarray::Array1::from_iter((0..n).map(|row| row % 3))).create("y").unwrap();
    file.close().unwrap();
}

#[test]
fn images_of_another_shape_are_refused_though_they_have_as_many_pixels() {
    let folder = folder();
    let path = folder.path();
    images(&path.join("square.h5"), 6, 6);
    images(&path.join("flat.h5"), 3, 12);
    let words = ["--conv", "3", "--layers", "5", "--epochs", "1", "--lanes", "1", "-o", "m.h5"];
    done(path, 0, &[&["train", "mlp", "square.h5"][..], &words].concat());
    let told =
        ["flat.h5", "the images are 3 × 12 × 1 but the model was trained on 6 × 6 × 1", "train on images like these"];
    refused(path, &["predict", "m.h5", "flat.h5", "-o", "p.h5"], 3, &told);
    refused(path, &["evaluate", "m.h5", "flat.h5"], 3, &told);
    done(path, 0, &["evaluate", "m.h5", "square.h5"]);

    // Somebody makes the model say that it fits them, without its seal, which would tell.
    let bytes = std::fs::read(path.join("m.h5")).unwrap();
    std::fs::write(path.join("edited.h5"), &bytes[..bytes.len() - 48]).unwrap();
    let file = hdf5::File::open_rw(path.join("edited.h5")).unwrap();
    let shape: VarLenUnicode = "[3,12,1]".parse().unwrap();
    file.attr("image").unwrap().write_scalar(&shape).unwrap();
    file.delete_attr("sealed").unwrap();
    file.close().unwrap();
    let told = ["edited.h5", "'image'", "images of 6 × 6 × 1", "found 3 × 12 × 1", "train the model again"];
    refused(path, &["predict", "edited.h5", "flat.h5", "-o", "p.h5"], 3, &told);
    refused(path, &["evaluate", "edited.h5", "square.h5"], 3, &told);
    refused(path, &["inspect", "edited.h5"], 3, &told);
}

#[test]
fn categories_and_several_targets_from_words() {
    let folder = folder();
    let path = folder.path();
    let n = 601;
    let file = hdf5::File::create(path.join("t.h5")).unwrap();
    let put = |name: &str, values: Vec<f64>| {
        file.new_dataset_builder().with_data(&ndarray::Array1::from(values)).create(name).unwrap();
    };
    let cell = |row: usize| row * 37 % 11;
    let x = |row: usize| (row * 101 % 89) as f64 / 44.0 - 1.0;
    put("x", (0..n).map(x).collect());
    put("cell", (0..n).map(|row| cell(row) as f64).collect());
    put("a", (0..n).map(|row| (cell(row) * 5 % 11) as f64 + 0.5 * x(row)).collect());
    put("b", (0..n).map(|row| 1e-3 * (cell(row) * cell(row) * 7 % 11) as f64).collect());
    file.close().unwrap();
    let words = |more: &[&'static str]| -> Vec<&str> {
        let about = ["train", "mlp", "t.h5", "--features", "x,cell", "--target", "a,b", "--layers", "16"];
        let steps = ["--lanes", "4", "--epochs", "40", "--learning-rate", "0.02", "--force", "-o", "m.h5"];
        [&about[..], &steps, &["--global-batch", "32"], more].concat()
    };
    let embedded = words(&["--categorical", "cell", "--embed", "3"]);
    let alone = digest(&done(path, 0, &embedded));
    if has_mpi() {
        assert_eq!(digest(&done(path, 3, &embedded)), alone);
    }
    assert!(done(path, 0, &["verify", "m.h5"]).contains(&alone));
    let shown = done(path, 0, &["inspect", "m.h5"]);
    assert!(shown.contains("embedding 11 × 3, dense 4 → 16"), "{shown}");
    let told = done(path, 0, &["evaluate", "m.h5", "t.h5"]);
    let r2: f64 = told.split("r2 ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(r2 > 0.95, "{told}");
    done(path, 0, &["predict", "m.h5", "t.h5", "-o", "p.h5"]);
    let predicted = hdf5::File::open(path.join("p.h5")).unwrap();
    assert_eq!(predicted.dataset("prediction").unwrap().shape(), [n, 2]);

    refused(path, &words(&["--loss", "gaussian"]), 2, &["--loss gaussian", "'a,b' has 2 values a row"]);
    refused(path, &words(&["--embed", "3"]), 2, &["--embed", "--categorical"]);
    refused(path, &words(&["--categorical", "site"]), 2, &["--categorical", "'site'", "cell"]);
    refused(
        path,
        &["train", "logistic", DIGITS, "--group", "train", "--embed", "5", "-o", "q.h5"],
        2,
        &["--embed", "mlp"],
    );
}
