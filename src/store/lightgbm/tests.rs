//! Texts of LightGBM's form, written and read; and what is refused.

use super::*;
use crate::data::damage::damage;
use crate::rng::{Draws, Stream};
use serde_json::Value;

fn told() -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference/lightgbm.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text_of(case: &Value) -> &str {
    case["model"].as_str().unwrap()
}

fn numbers(case: &Value, name: &str) -> Vec<f64> {
    case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn boosted(model: &Model) -> &Boosted {
    let Scores::Boosted(boosted) = &model.scores else { panic!("not boosted") };
    boosted
}

/// Scores, contributions and leaves of the rows of a case.
fn say(boosted: &Boosted, case: &Value) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (k, d) = (boosted.n_scores(), boosted.n_features);
    let (mut scores, mut contributions, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
    for row in case["rows"].as_array().unwrap() {
        let row: Vec<f64> = row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
        let (mut of_row, mut parts) = (vec![0.0; k], vec![0.0; k * (d + 1)]);
        boosted.scores(&row, &mut of_row);
        boosted.contributions(&row, &mut parts);
        scores.extend(of_row);
        contributions.extend(parts);
        leaves.extend(boosted.trees.iter().map(|tree| tree.leaf_of(&row) as f64));
    }
    (scores, contributions, leaves)
}

#[test]
fn models_of_lightgbm_say_here_what_they_say_there() {
    let cases = told();
    assert_eq!(cases.len(), 18);
    for case in &cases {
        let model = from_text(text_of(case)).unwrap();
        let (scores, contributions, leaves) = say(boosted(&model), case);
        // The same sums in the same order, but for what a JSON text loses.
        for (found, right) in scores.iter().zip(numbers(case, "scores")) {
            approx::assert_relative_eq!(*found, right, max_relative = 1e-15);
        }
        assert_eq!(leaves, numbers(case, "leaves"));
        for (found, right) in contributions.iter().zip(numbers(case, "contributions")) {
            approx::assert_relative_eq!(*found, right, max_relative = 1e-9, epsilon = 1e-12);
        }
        assert_eq!(model.target.n_classes(), if scores.len() == 36 { 3 } else { model.target.n_classes() });
        assert_eq!(model.preprocess.feature_names(), ["X[0]", "X[1]", "X[2]", "X[3]"]);
    }
}

#[test]
fn what_is_written_is_read_back_with_its_start_in_the_first_trees() {
    for case in &told() {
        let mut model = from_text(text_of(case)).unwrap();
        let Scores::Boosted(boosted_here) = &mut model.scores else { panic!("not boosted") };
        boosted_here.start.iter_mut().for_each(|start| *start = 0.1);
        let again = from_text(&to_text(&model).unwrap()).unwrap();
        let (before, after) = (boosted(&model), boosted(&again));
        assert_eq!(after.start, vec![0.0; before.n_scores()]);
        assert_eq!(say(after, case).0, say(before, case).0, "bit for bit");
        assert_eq!(again.config.boost.as_ref().unwrap().loss, model.config.boost.as_ref().unwrap().loss);
        assert!(before.trees.iter().zip(&after.trees).all(|(one, other)| (&one.left_set, &one.left, &one.leaf_rows)
            == (&other.left_set, &other.left, &other.leaf_rows)));
    }
}

#[test]
fn categories_are_written_as_the_values_that_they_stand_for() {
    let mut model = from_text(text_of(&told()[0])).unwrap();
    let tree = Tree {
        feature: vec![2],
        threshold: vec![f64::INFINITY],
        missing_left: vec![false],
        left_set: vec![vec![0b101]],
        left: vec![-1],
        right: vec![-2],
        gain: vec![1.0],
        n_rows: vec![10],
        value: vec![-1.0, 2.0],
        leaf_rows: vec![4, 6],
    };
    model.scores = Scores::Boosted(Boosted { n_features: 4, start: vec![0.0], trees: vec![tree] });
    let column = &mut model.preprocess.columns[2];
    (column.is_category, column.values) = (true, vec![10.0, 30.0, 70.0]);
    let again = from_text(&to_text(&model).unwrap()).unwrap();
    for (code, score) in [(10.0, -1.0), (70.0, -1.0), (30.0, 2.0), (0.0, 2.0), (2.0, 2.0), (f64::NAN, 2.0)] {
        let mut found = [0.0];
        boosted(&again).scores(&[0.0, 0.0, code, 0.0], &mut found);
        assert_eq!(found, [score], "{code}");
    }
    for value in [-1.0, 0.5, 1e9] {
        model.preprocess.columns[2].values[0] = value;
        let error = to_text(&model).expect_err("no code").to_string();
        assert!(error.contains("whole numbers from 0"), "{error}");
    }
}

#[test]
fn thresholds_beyond_1e300_are_written_as_they_are() {
    let mut model = from_text(text_of(&told()[0])).unwrap();
    let thresholds = [-1.5e307, 5e-324, 1.25e301, f64::MAX, f64::INFINITY];
    for threshold in thresholds {
        let Scores::Boosted(boosted) = &mut model.scores else { panic!("not boosted") };
        let at = boosted.trees[0].left_set.iter().position(Vec::is_empty).unwrap();
        boosted.trees[0].threshold[at] = threshold;
        let Scores::Boosted(again) = from_text(&to_text(&model).unwrap()).unwrap().scores else {
            panic!("not boosted")
        };
        assert_eq!(again.trees[0].threshold[at], threshold);
    }
}

#[test]
fn a_model_without_trees_predicts_its_start() {
    let mut model = from_text(text_of(&told()[0])).unwrap();
    model.scores = Scores::Boosted(Boosted { n_features: 4, start: vec![0.25], trees: vec![] });
    let again = from_text(&to_text(&model).unwrap()).unwrap();
    let mut score = [0.0];
    boosted(&again).scores(&[0.0; 4], &mut score);
    assert_eq!(score, [0.25]);
}

#[test]
fn what_a_loss_is_set_to_is_written_and_read() {
    let mut model = from_text(text_of(&told()[0])).unwrap();
    let settings = [
        (BoostLoss::Quantile, 0.3, 1.5, "alpha: 7"),
        (BoostLoss::Huber, 2.5, 1.5, "alpha: 0"),
        (BoostLoss::Tweedie, 0.9, 1.25, "tweedie_variance_power: 2"),
    ];
    for (loss, alpha, tweedie_power, wrong) in settings {
        let boost = BoostConfig { loss, alpha, tweedie_power, rounds: 3, ..BoostConfig::default() };
        model.config.boost = Some(boost.clone());
        let text = to_text(&model).unwrap();
        let again = from_text(&text).unwrap().config.boost.unwrap();
        assert_eq!((again.loss, again.alpha, again.tweedie_power), (loss, alpha, tweedie_power));
        let (name, _) = wrong.split_once(' ').unwrap();
        let right = text.lines().find(|line| line.starts_with(&format!("[{name}"))).unwrap();
        let error = from_text(&text.replace(right, &format!("[{wrong}]"))).expect_err(wrong).to_string();
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn a_text_that_was_cut_off_or_lost_trees_is_refused() {
    let text = text_of(&told()[0]).to_string();
    let at = |tree: usize| text.find(&format!("Tree={tree}\n")).unwrap();
    let last = text.find("end of trees").unwrap();
    let lost = format!("{}{}", &text[..at(1)], &text[at(2)..]);
    for (case, message) in [
        (text[..at(2)].to_string(), "cut off"),
        (text[..last].to_string(), "cut off"),
        (lost, "'tree_sizes' of the header"),
        (format!("{}\nend of trees\n", &text[..at(0)]), "has 0 trees"),
    ] {
        let error = from_text(&case).expect_err(message).to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    // No more classes are believed than there are trees.
    let header = text[..at(0)].replace("num_tree_per_iteration=1", "num_tree_per_iteration=100000000000");
    let header = header.replace("objective=binary sigmoid:1", "objective=multiclass");
    assert!(from_text(&format!("{header}\nend of trees\n")).is_err());
}

#[test]
fn what_would_predict_otherwise_is_refused() {
    let text = text_of(&told()[0]).to_string();
    let broken: [(&str, &str, &str); 12] = [
        ("tree\n", "three\n", "first line"),
        ("sigmoid:1", "sigmoid:2", "'sigmoid:2'"),
        ("objective=binary", "objective=lambdarank", "lambdarank"),
        ("is_linear=0", "is_linear=1", "linear leaves"),
        ("label_index=0", "average_output", "average_output"),
        ("max_feature_idx=3", "max_feature_idx=2", "feature_names"),
        ("max_feature_idx=3", "max_feature_idx=-9223372036854775808", "max_feature_idx"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=0", "with 0 trees a round"),
        ("leaf_count=", "leaf_counts=", "lacks 'leaf_count' in tree 0"),
        ("left_child=", "left_child=7 ", "tree 0 is none"),
        ("leaf_value=", "leaf_value=x", "'leaf_value' of tree 0"),
        ("decision_type=", "decision_type=5 ", "sets"),
    ];
    for (before, after, message) in broken {
        assert!(text.contains(before), "{before}");
        let error = from_text(&text.replacen(before, after, 1)).expect_err(message).to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    assert!(from_text("").is_err());
    let sets = "num_cat=1\ncat_boundaries=0 1\ncat_threshold=1\ndecision_type=1 ";
    let far = text.replacen("threshold=", "threshold=1e300 ", 1).replacen("decision_type=", sets, 1);
    assert!(from_text(&far).expect_err("no set has this number").to_string().contains("sets"));
}

#[test]
fn damaged_texts_are_read_or_refused() {
    let cases = told();
    for (at, case) in cases.iter().enumerate().filter(|(at, _)| at % 3 == 1) {
        for seed in 0..150 {
            let mut damaged = text_of(case).as_bytes().to_vec();
            // One damage alone often hides in a number.
            (0..3).for_each(|n| damage(&mut damaged, Draws::new(seed, Stream::Synthetic), 3 * at as u64 + n));
            if let Ok(model) = from_text(&String::from_utf8_lossy(&damaged)) {
                let _ = to_text(&model);
                if boosted(&model).n_features == 4 {
                    let _ = say(boosted(&model), case);
                }
            }
        }
    }
}
