//! Forests from tables: the same for any shape of the job, out of bag as a slow twin says, good enough.

use super::super::tree_tables::{scores, table, train};
use super::super::{Model, TrainReport};
use crate::config::{BootstrapKind, ClassWeight, Criterion, ForestConfig, Kind, MaxFeatures, Scope, TrainConfig};
use crate::data::memory::MemorySource;
use crate::data::{TargetKind, Targets};
use crate::grow::forest::Bootstrap;
use crate::model::Scores;
use crate::model::forest::Forest;

fn config(change: impl FnOnce(&mut ForestConfig)) -> TrainConfig {
    let mut forest = ForestConfig { trees: 7, max_bins: 40, min_rows: 2, ..ForestConfig::default() };
    change(&mut forest);
    TrainConfig { forest: Some(forest), ..TrainConfig::of(Kind::Forest) }
}

fn forest(model: &Model) -> &Forest {
    let Scores::Forest(forest) = &model.scores else { panic!("no forest") };
    forest
}

fn two_classes(n: usize) -> MemorySource {
    table(n, |score| f64::from(score > 0.3), TargetKind::Integer)
}

fn three_classes(n: usize) -> MemorySource {
    table(n, |score| (score * 1.5).floor().clamp(-1.0, 1.0), TargetKind::Integer)
}

fn numbers(n: usize) -> MemorySource {
    table(n, |score| 1e6 + score, TargetKind::Float)
}

/// The model of one rank, after all cuts gave the same.
fn same_on_all_cuts(name: &str, table: &MemorySource, config: &TrainConfig) -> (Model, TrainReport) {
    let alone = train(1, 1, table, config).unwrap();
    for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1), (8, 3)] {
        let (model, report) = train(size, threads, table, config).unwrap();
        assert_eq!(model.digest, alone.0.digest, "{name}: {size} ranks, {threads} threads");
        assert!(model == alone.0, "{name}");
        assert_eq!(
            (&report.valid, &report.oob, &report.folds),
            (&alone.1.valid, &alone.1.oob, &alone.1.folds),
            "{name}"
        );
    }
    assert!(forest(&alone.0).trees.iter().any(|tree| tree.n_leaves() > 5), "{name} grows");
    alone
}

#[test]
fn every_kind_of_forest_gives_the_same_bits_on_any_number_of_ranks_and_threads() {
    let (two, three, numbers) = (two_classes(901), three_classes(901), numbers(901));
    same_on_all_cuts("two", &two, &config(|_| ()));
    same_on_all_cuts("two of 11 trees", &two, &config(|forest| (forest.trees, forest.min_rows) = (11, 1)));
    same_on_all_cuts("three", &three, &config(|_| ()));
    same_on_all_cuts("entropy", &two, &config(|forest| forest.criterion = Criterion::Entropy));
    same_on_all_cuts("numbers", &numbers, &config(|forest| forest.max_features = MaxFeatures::Share(0.5)));
    same_on_all_cuts("extra", &three, &config(|forest| forest.extra = true));
    same_on_all_cuts("extra numbers", &numbers, &config(|forest| (forest.extra, forest.max_depth) = (true, 6)));
    same_on_all_cuts("categories", &two, &config(|forest| forest.categorical = vec!["3".into()]));
    for class_weight in [ClassWeight::Balanced, ClassWeight::Bootstrap] {
        let config = TrainConfig { class_weight, ..config(|forest| forest.oob = true) };
        let (_, report) = same_on_all_cuts("balanced", &three, &config);
        assert!(report.oob.get("balanced_accuracy").unwrap() > 0.5, "{}", report.oob);
    }
    let held_out = TrainConfig { valid_fraction: 0.3, ..config(|forest| forest.row_sample = 0.6) };
    same_on_all_cuts("held out", &two, &held_out);
    same_on_all_cuts("folds", &two, &TrainConfig { folds: 3, ..config(|_| ()) });
}

#[test]
fn lanes_give_the_same_bits_on_any_number_of_ranks_and_threads() {
    let local = |lanes| TrainConfig {
        lanes,
        ..config(|forest| (forest.scope, forest.oob, forest.trees) = (Scope::Local, true, 9))
    };
    for lanes in [None, Some(1), Some(3), Some(4)] {
        same_on_all_cuts("two", &two_classes(1201), &local(lanes));
        same_on_all_cuts("numbers", &numbers(1201), &local(lanes));
    }
    let error = train(2, 1, &two_classes(40), &local(Some(5))).unwrap_err().to_string();
    assert!(error.contains("--lanes") && error.contains("no rows"), "{error}");
}

#[test]
fn out_of_bag_is_what_a_slow_twin_says() {
    for seed in [0, 5] {
        let table = two_classes(701);
        let config = TrainConfig { seed, ..config(|forest| (forest.oob, forest.row_sample) = (true, 1.3)) };
        let (model, report) = train(3, 1, &table, &config).unwrap();
        let (forest, block) = (forest(&model), table.block());
        let (Targets::Number(y), Some(weight)) = (&block.target, &block.weight) else { panic!("numbers") };
        let bootstrap = Bootstrap::poisson(seed, 1.3);
        let (mut right, mut all, mut n_measured) = (0.0, 0.0, 0);
        let mut row_values = vec![0.0; forest.n_features];
        for row in 0..y.len() {
            model.preprocess.encode_row(block, row, &mut row_values).unwrap();
            let (mut sum, mut n) = (0.0, 0);
            for (number, tree) in forest.trees.iter().enumerate() {
                if bootstrap.of_tree(number as u64).of_row(row as u64) == 0 {
                    sum += f64::from(tree.shares[tree.leaf_of(&row_values).child as usize]);
                    n += 1;
                }
            }
            if n > 0 && weight[row] > 0.0 {
                right += if (sum / f64::from(n) > 0.5) == (y[row] == 1.0) { weight[row] } else { 0.0 };
                all += weight[row];
                n_measured += 1;
            }
        }
        let accuracy = report.oob.get("accuracy").unwrap();
        assert!((accuracy - right / all).abs() < 1e-12, "{accuracy} {}", right / all);
        assert!(n_measured > 500 && accuracy > 0.65, "{n_measured} {accuracy}");
    }
}

#[test]
fn a_grown_forest_knows_its_rows_and_leaves_hold_the_means_of_numbers() {
    let table = numbers(503);
    let whole = config(|forest| (forest.bootstrap, forest.min_rows, forest.trees) = (BootstrapKind::None, 1, 2));
    let (model, _) = train(1, 2, &table, &whole).unwrap();
    let block = table.block();
    let (Targets::Number(y), Some(weight)) = (&block.target, &block.weight) else { panic!("numbers") };
    let scores = scores(&model, &table);
    // Rows that no bins tell apart share a leaf: most are alone in theirs.
    let exact = (0..y.len()).filter(|row| weight[*row] > 0.0 && (scores[*row] - y[*row]).abs() < 1e-5).count();
    assert!(exact > 400, "{exact}");
    let one_leaf = config(|forest| (forest.bootstrap, forest.min_rows) = (BootstrapKind::None, 400));
    let (model, _) = train(1, 1, &table, &one_leaf).unwrap();
    let mean = (0..y.len()).map(|row| weight[row] * y[row]).sum::<f64>() / weight.iter().sum::<f64>();
    let found = forest(&model).trees[0].nodes[0].value;
    // Weights are rounded to 1/16384 of the greatest.
    assert!((found - mean).abs() < 1e-3, "{found} {mean}");
}

#[test]
fn settings_that_mean_nothing_are_refused_by_name() {
    let refused = |change: fn(&mut ForestConfig)| config(change).resolved().unwrap_err().to_string();
    assert!(refused(|forest| forest.trees = 0).contains("--trees 0"));
    assert!(refused(|forest| forest.max_bins = 256).contains("--max-bins 256"));
    assert!(refused(|forest| forest.row_sample = 0.0).contains("--row-sample 0"));
    assert!(refused(|forest| (forest.extra, forest.row_sample) = (true, 0.5)).contains("--bootstrap poisson"));
    assert!(refused(|forest| (forest.extra, forest.oob) = (true, true)).contains("--oob"));
    for (word, expected) in [("sqrt", 5), ("log2", 4), ("all", 28), ("9", 9), ("0.25", 7), ("1.0", 28), ("99", 28)] {
        let max_features: MaxFeatures = word.parse().unwrap();
        assert_eq!((max_features.of(28), max_features.to_string().parse()), (expected, Ok(max_features)), "{word}");
    }
    for word in ["0", "0.0", "-1", "1.5", "many", ""] {
        assert!(word.parse::<MaxFeatures>().is_err(), "{word}");
    }
}

#[test]
fn rows_of_one_class_or_of_one_value_are_said_or_kept_as_one_leaf() {
    let one_class = train(2, 1, &table(300, |_| 1.0, TargetKind::Integer), &config(|_| ())).unwrap_err().to_string();
    assert!(one_class.contains("class"), "{one_class}");
    let (model, _) = train(3, 1, &table(300, |_| 2.5, TargetKind::Float), &config(|_| ())).unwrap();
    assert!(forest(&model).trees.iter().all(|tree| tree.nodes.len() == 1 && tree.nodes[0].value == 2.5));
}
