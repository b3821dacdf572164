//! Ensembles as people meet them: words and job files, any number of ranks, and everything that reads a model.

use super::*;

const MEMBERS: [&str; 4] = ["--member", "logistic", "--member", "boost --rounds 5 --name 'some trees'"];
const JOB: &str =
    "stack-folds = 3\n[[member]]\nkind = 'logistic'\n[[member]]\nkind = 'boost'\nrounds = 5\nname = 'some trees'\n";

fn json_of(told: &str) -> serde_json::Value {
    let last = told.lines().last().unwrap();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"))
}

#[test]
fn an_ensemble_is_the_same_on_any_number_of_ranks_and_everything_reads_it() {
    let folder = folder();
    table(&folder, "t.h5", 600, |x, y| {
        x.iter_mut().skip(2).step_by(12).for_each(|x| *x += 1.0);
        y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y);
    });
    let path = folder.path();
    std::fs::write(path.join("job.toml"), JOB).unwrap();
    let bag = ["train", "bag", "t.h5", "--learner", "boost", "--rounds", "4", "--members", "5"];
    let adaboost = ["train", "adaboost", "t.h5", "--learner", "boost --rounds 1 --max-leaves 4", "--members", "4"];
    let stack = ["train", "stack", "t.h5", "--config", "job.toml"];
    let vote =
        [&["train", "vote", "t.h5", "--valid-fraction", "0.3", "--vote-weights", "search"][..], &MEMBERS].concat();
    let all = [("bag", &bag[..]), ("adaboost", &adaboost), ("stack", &stack), ("vote", &vote)];
    for (kind, words) in all {
        let model = format!("{kind}.h5");
        let told = done(path, 0, &[words, &["-o", &model, "--force"]].concat());
        let whole = digest(&told);
        assert!(told.contains("members, measured on the rows"), "{told}");
        if has_mpi() {
            let three = done(path, 3, &[words, &["-o", "three.h5", "--force", "--threads", "1", "--json"]].concat());
            let three = json_of(&three);
            assert_eq!(three["digest"], whole.as_str(), "{kind}");
            assert!(three["timeline"].as_array().is_some_and(|tasks| !tasks.is_empty()) && three["busy"].is_number());
        }
        let shown = done(path, 0, &["inspect", &model]);
        assert!(shown.contains("members; ") && shown.contains("together: accuracy"), "{shown}");
        assert!(done(path, 0, &["verify", &model]).contains(&whole), "{kind}");
        assert!(done(path, 0, &["evaluate", &model, "t.h5"]).contains("accuracy"), "{kind}");
        done(path, 0, &["predict", &model, "t.h5", "-o", "p.h5", "--force"]);
        refused(path, &["predict", &model, "t.h5", "--contributions", "-o", "q.h5"], 2, &["--contributions", kind]);
        refused(path, &["export", &model, "text.txt"], 2, &[kind]);
        refused(path, &["inspect", &model, "--tree", "0"], 2, &["--tree", kind]);
    }
    // A job file and the words say the same, and so do the settings that are printed.
    let words = [&["train", "stack", "t.h5", "--stack-folds", "3", "-o", "words.h5"][..], &MEMBERS].concat();
    let told = digest(&done(path, 0, &words));
    assert_eq!(told, digest(&done(path, 0, &[&stack[..], &["-o", "stack.h5", "--force"]].concat())));
    let printed = done(path, 0, &[&stack[..], &["--print-config"]].concat());
    std::fs::write(
        path.join("printed.toml"),
        printed.lines().filter(|line| !line.starts_with("kind = \"stack")).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    assert_eq!(told, digest(&done(path, 0, &["train", "stack", "t.h5", "--config", "printed.toml", "-o", "again.h5"])));
}

#[test]
fn trained_models_vote_and_others_are_refused_by_name() {
    let folder = folder();
    table(&folder, "t.h5", 300, |_, y| y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y));
    table(&folder, "u.h5", 300, |_, y| y.iter_mut().step_by(3).for_each(|y| *y = 2));
    let path = folder.path();
    done(path, 0, &["train", "logistic", "t.h5", "-o", "a.h5"]);
    done(path, 0, &["train", "boost", "t.h5", "--rounds", "3", "-o", "b.h5"]);
    done(path, 0, &["train", "logistic", "u.h5", "-o", "c.h5"]);
    let vote = ["train", "vote", "t.h5", "--model", "a.h5", "--model", "b.h5", "-o", "v.h5"];
    let told = digest(&done(path, 0, &vote));
    assert!(done(path, 0, &["verify", "v.h5"]).contains(&told));
    let wrong = ["train", "vote", "t.h5", "--model", "a.h5", "--model", "c.h5", "-o", "w.h5"];
    refused(path, &wrong, 2, &["model 'c' predicts the classes 0, 1, 2 but model 'a' predicts the classes 0, 1"]);
    // The table has to have their columns too.
    let file = hdf5::File::create(path.join("less.h5")).unwrap();
    file.new_dataset_builder().with_data(&ndarray::Array2::<f32>::zeros((40, 2))).create("X").unwrap();
    file.new_dataset_builder().with_data(&ndarray::Array1::from_iter((0..40).map(|row| row % 2))).create("y").unwrap();
    drop(file);
    let less = ["train", "vote", "less.h5", "--model", "a.h5", "--model", "b.h5", "-o", "w.h5"];
    refused(path, &less, 3, &["have 2 columns but the model was trained on 3"]);
}

#[test]
fn words_that_make_no_ensemble_are_refused_with_what_to_do() {
    let folder = folder();
    table(&folder, "t.h5", 100, |_, _| ());
    let path = folder.path();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["bag"], &["--learner"]),
        (&["bag", "--learner", "logistic", "--members", "0"], &["--members 0"]),
        (&["bag", "--learner", "vote"], &["'vote' is an ensemble itself"]),
        (
            &["bag", "--learner", "mlp", "--scope", "local", "--lanes", "4"],
            &["--lanes", "--scope local", "as --members says", "--learner 'mlp --lanes 4'"],
        ),
        (&["vote"], &["no members", "[[member]]", "--model"]),
        (&["vote", "--member", "boost --speed 3"], &["--member 'boost --speed 3'", "--speed"]),
        (&["stack", "--member", "svm", "--shrinkage", "0.1"], &["its members'"]),
        (&["stack", "--member", "svm --name a", "--member", "boost --name a"], &["two members are called 'a'"]),
        (&["boost", "--members", "3"], &["--members is for bag and adaboost"]),
    ];
    for (words, told) in cases {
        refused(path, &[&["train", words[0], "t.h5", "-o", "m.h5"], &words[1..]].concat(), 2, told);
    }
}
