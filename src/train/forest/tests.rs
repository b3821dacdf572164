//! Forests from tables: the same for any shape of the job, out of bag as a slow twin says, good enough.

use super::super::tree_tables::{scores, table, train, train_reading};
use super::super::{Model, Reading, TrainReport};
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

/// As [`same_on_cuts`], of a forest that grows.
fn same_on_all_cuts(name: &str, table: &MemorySource, config: &TrainConfig) -> (Model, TrainReport) {
    let alone = same_on_cuts(name, table, config);
    assert!(forest(&alone.0).trees.iter().any(|tree| tree.n_leaves() > 5), "{name} grows");
    alone
}

/// The model of one rank, after all cuts gave the same.
fn same_on_cuts(name: &str, table: &MemorySource, config: &TrainConfig) -> (Model, TrainReport) {
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
        let d = forest.n_features;
        let mut values = vec![0.0; y.len() * d];
        for (row, values) in values.chunks_exact_mut(d).enumerate() {
            model.preprocess.encode_row(block, row, values).unwrap();
        }
        let mut leaves = vec![0; y.len() * forest.trees.len()];
        forest.leaves(&values, &mut leaves);
        for row in 0..y.len() {
            let (mut sum, mut n) = (0.0, 0);
            for (number, tree) in forest.trees.iter().enumerate() {
                if bootstrap.of_tree(number as u64).of_row(row as u64) == 0 {
                    sum += f64::from(tree.shares[leaves[row * forest.trees.len() + number] as usize]);
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
    // Weights are rounded, up or down, to 2⁻²⁸ of their sum.
    assert!((found - mean).abs() < 1e-4, "{found} {mean}");
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

/// A table of one feature, 0 in the first half of the rows and 1 in the second.
fn halves(y: Vec<f64>, weight: Vec<f64>, kind: TargetKind) -> MemorySource {
    let n = y.len();
    let x = (0..n).map(|row| f64::from(row >= n / 2)).collect();
    MemorySource::from_f64(x, 1).unwrap().with_target(y, kind).unwrap().with_weight(weight).unwrap()
}

#[test]
fn rows_of_little_weight_count_as_much_as_they_weigh() {
    // A hundred thousand rows of 1e-6 against twenty of 1.
    let n = 100_020;
    let weight: Vec<f64> = (0..n).map(|row| if row % 5001 == 0 { 1.0 } else { 1e-6 }).collect();
    let y: Vec<f64> = (0..n).map(|row| f64::from(row % 5001 == 0)).collect();
    let whole = config(|forest| (forest.bootstrap, forest.trees, forest.max_depth) = (BootstrapKind::None, 1, 1));
    let expected = 20.0 / (20.0 + 0.1);
    for kind in [TargetKind::Integer, TargetKind::Float] {
        let table = halves(y.clone(), weight.clone(), kind);
        let share = scores(&train(2, 1, &table, &whole).unwrap().0, &table)[7];
        assert!((share - expected).abs() < 1e-3, "{kind:?}: {share} {expected}");
    }
    // Classes of very different sizes come to the same.
    let balanced = TrainConfig { class_weight: ClassWeight::Bootstrap, ..whole };
    let table = halves(y, vec![1.0; n], TargetKind::Integer);
    let share = scores(&train(3, 1, &table, &balanced).unwrap().0, &table)[7];
    assert!((share - 0.5).abs() < 1e-3, "{share}");
}

#[test]
fn targets_over_many_decades_are_told_apart() {
    let whole = config(|forest| (forest.bootstrap, forest.trees, forest.min_rows) = (BootstrapKind::None, 1, 1));
    for far in [1e6, 1e9, 9.97e12] {
        let mut y: Vec<f64> = (0..400).map(|row| if row < 200 { 1.0 } else { 2.0 }).collect();
        y[399] = far;
        let x = (0..400).map(|row| if row == 399 { 2.0 } else { f64::from(row >= 200) }).collect();
        let table = MemorySource::from_f64(x, 1).unwrap().with_target(y.clone(), TargetKind::Float).unwrap();
        let found = scores(&train(2, 1, &table, &whole).unwrap().0, &table);
        assert!(
            found.iter().zip(&y).all(|(found, y)| (found - y).abs() <= 0.01 * y),
            "{far:e}: {:?}",
            &found[198..202]
        );
    }
    let far = train(1, 1, &halves(vec![-1e301; 40], vec![1.0; 40], TargetKind::Float), &whole).unwrap_err().to_string();
    assert!(far.contains("1e301") && far.contains("1e300"), "{far}");
    let tiny: Vec<f64> = (0..40).map(|row| if row < 20 { 1e-320 } else { 3e-320 }).collect();
    let table = halves(tiny.clone(), vec![1.0; 40], TargetKind::Float);
    assert_eq!(scores(&train(1, 1, &table, &whole).unwrap().0, &table), tiny);
}

#[test]
fn trees_without_rows_are_left_out_with_a_word() {
    let table = three_classes(300);
    let seldom = config(|forest| (forest.row_sample, forest.trees, forest.oob) = (0.005, 40, true));
    let (model, _) = same_on_cuts("seldom", &table, &seldom);
    let n = forest(&model).trees.len();
    assert!((10..40).contains(&n) && forest(&model).numbers.len() == n, "{n}");
    for shares in scores(&model, &table).chunks_exact(3) {
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
    }
    let never = train(2, 1, &table, &config(|forest| forest.row_sample = 1e-9)).unwrap_err().to_string();
    assert!(never.contains("all 7 trees") && never.contains("--row-sample"), "{never}");
}

#[test]
fn memory_limits_change_nothing_on_ranks_of_unequal_rows() {
    let table = two_classes(5003);
    let config = config(|forest| forest.trees = 9);
    let alone = train(1, 1, &table, &config).unwrap().0;
    for (size, mega_bytes) in [(4, 32), (3, 33), (7, 40)] {
        let reading = Reading { max_memory: Some(mega_bytes << 20), ..Reading::default() };
        let (model, _) = train_reading(size, 1, &table, &config, &reading).unwrap();
        assert_eq!(model.digest, alone.digest, "{size} ranks, {mega_bytes}M");
    }
}
