//! Tests of calibrated classifiers: the same bits in every shape, rows scored by models that did not see them, probabilities that are
//! better than before.

use super::*;
use crate::comm::run_threads;
use crate::config::{BoostConfig, ForestConfig};
use crate::data::memory::MemorySource;
use crate::data::{TargetKind, Targets, Values, synthetic};
use crate::train::{Inputs, Kind, Silent};
use std::path::Path;

fn trained(comm: &Communicator, table: &MemorySource, config: &TrainConfig) -> Result<(Model, TrainReport)> {
    let config = config.resolved()?;
    let (names, reading) = (TableNames::default(), Reading::default());
    linear_family::train_source(comm, &mut table.clone(), &names, &config, &reading, &mut Silent)
}

fn config(kind: Kind, calibrate: Option<Calibrate>, seed: u64) -> TrainConfig {
    let mut config = TrainConfig { calibrate, seed, max_iterations: 20, ..TrainConfig::of(kind) };
    if let Some(boost) = &mut config.boost {
        *boost = BoostConfig { rounds: 4, max_leaves: 8, ..boost.clone() };
    }
    if let Some(forest) = &mut config.forest {
        *forest = ForestConfig { trees: 6, ..forest.clone() };
    }
    config
}

fn maps(model: &Model) -> &[CalibrationMap] {
    let Scores::Calibrated(of) = &model.scores else { panic!("not calibrated") };
    &of.maps
}

#[test]
fn any_number_of_ranks_and_threads_has_the_same_bits() {
    let weight = |n: usize| (0..n).map(|row| if row % 11 == 0 { 0.0 } else { 0.3 + (row % 4) as f64 }).collect();
    let two = synthetic::logistic(499, 3, 2).unwrap();
    let three = synthetic::mixture(307, 4, 3, 5).and_then(|table| table.with_weight(weight(307))).unwrap();
    for (table, kind, method, seed) in [
        (&two, Kind::Svm, Calibrate::Platt, 0),
        (&two, Kind::Boost, Calibrate::Isotonic, 3),
        (&two, Kind::Forest, Calibrate::Platt, 0),
        (&three, Kind::Logistic, Calibrate::Isotonic, 1),
        (&three, Kind::Svm, Calibrate::Isotonic, 2),
        (&three, Kind::Forest, Calibrate::Isotonic, 1),
    ] {
        let valid_fraction = if kind == Kind::Svm { 0.2 } else { 0.0 };
        let config = TrainConfig { valid_fraction, calibrate_folds: Some(3), ..config(kind, Some(method), seed) };
        let (alone, report) = trained(&Communicator::solo(), table, &config).unwrap();
        assert_eq!(maps(&alone).len(), alone.scores.n_scores());
        assert_eq!(report.valid.is_empty(), valid_fraction == 0.0);
        for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1), (70, 1)] {
            let of_ranks = run_threads(size, threads, |comm| trained(comm, table, &config)).unwrap();
            for (model, of_rank) in of_ranks {
                assert_eq!(model.digest, alone.digest, "{kind:?} {method:?}: {size} ranks × {threads}");
                assert_eq!((model, of_rank.valid), (alone.clone(), report.valid.clone()), "{kind:?}");
            }
        }
    }
}

/// Scores worked out by hand, of models that are trained by hand on tables whose rows of a fold are gone.
#[test]
fn a_row_is_scored_by_the_model_that_did_not_see_it() {
    let n = 601;
    let table = synthetic::logistic(n, 3, 9).unwrap();
    let (Values::F32(x), Targets::Number(y)) = (&table.block().values, &table.block().target) else { panic!("dense") };
    for seed in [0, 4] {
        let config = TrainConfig { calibrate_folds: Some(4), ..config(Kind::Svm, Some(Calibrate::Platt), seed) };
        let (model, _) = trained(&Communicator::solo(), &table, &config).unwrap();
        let mut points = Vec::new();
        for fold in 0..4 {
            let held_out = HeldOut::Fold { fold, folds: 4 };
            let is_out = |row: usize| held_out.holds_out(seed, row as u64);
            let weight = (0..n).map(|row| f64::from(u8::from(!is_out(row)))).collect();
            let without = table.clone().with_weight(weight).unwrap();
            let plain = TrainConfig { calibrate: None, calibrate_folds: None, ..config.clone() };
            let (of_fold, _) = trained(&Communicator::solo(), &without, &plain).unwrap();
            let scorer = Scorer::new(&of_fold, &table, "").unwrap();
            let scores = scorer.scores(table.block()).unwrap();
            assert_eq!(x.len(), 3 * scores.len());
            points.extend((0..n).filter(|row| is_out(*row)).map(|row| (scores[row], y[row])));
        }
        assert_eq!(points.len(), n, "every row once");
        let [CalibrationMap::Platt { a, b }] = maps(&model) else { panic!("platt") };
        // At the least loss of the exact scores the gradient is 0; rounding them moves it by the width of a cell.
        let positive = points.iter().filter(|(_, y)| *y == 1.0).count() as f64;
        let (low, high) = (1.0 / (n as f64 - positive + 2.0), (positive + 1.0) / (positive + 2.0));
        let (mut grad_a, mut grad_b) = (0.0, 0.0);
        for (score, y) in &points {
            let residual = 1.0 / (1.0 + libm::exp(-(a * score + b))) - if *y == 1.0 { high } else { low };
            (grad_a, grad_b) = (grad_a + residual * score, grad_b + residual);
        }
        let near = n as f64 * f64::from(2u8).recip() / 512.0;
        assert!(grad_a.abs() < near && grad_b.abs() < near, "{grad_a} {grad_b}");
        assert!(*a > 0.0);
    }
}

fn real(name: &str, group: Option<&str>) -> Inputs {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    let names = TableNames { group: group.map(str::to_string), ..TableNames::default() };
    Inputs { paths: vec![path], names, ..Inputs::default() }
}

fn log_loss(train: &Inputs, test: Option<&Inputs>, config: &TrainConfig) -> f64 {
    let config = config.resolved().unwrap();
    let comm = Communicator::solo();
    let (model, report) = linear_family::train(&comm, train, &config, &mut Silent).unwrap();
    let metrics = match test {
        Some(test) => crate::train::evaluate::evaluate(&comm, &model, test, None).unwrap().metrics,
        None => report.valid,
    };
    metrics.get("log_loss").unwrap_or(f64::NAN)
}

#[test]
fn a_forest_of_real_tables_gets_better_and_svm_gets_probabilities() {
    let (train, test) = (real("digits.h5", Some("train")), real("digits.h5", Some("test")));
    let forest = |calibrate| TrainConfig { calibrate, ..config(Kind::Forest, None, 0) };
    let before = log_loss(&train, Some(&test), &forest(None));
    let after = log_loss(&train, Some(&test), &forest(Some(Calibrate::Platt)));
    assert!(after < 0.8 * before, "digits: {before} {after}");
    let svm = log_loss(&train, Some(&test), &config(Kind::Svm, Some(Calibrate::Platt), 0));
    assert!(svm < 0.4, "digits: {svm}");
    let svm = log_loss(&train, Some(&test), &config(Kind::Svm, None, 0));
    assert!(svm.is_nan());
}

#[test]
fn boosted_trees_that_are_too_sure_of_themselves_get_better() {
    // Targets that nothing tells: the best log loss is ln 2.
    let n = 701;
    let draws = crate::rng::Draws::new(3, crate::rng::Stream::Synthetic);
    let x = (0..n * 4).map(|i| draws.normal(i, 0) as f32).collect();
    let y = (0..n).map(|row| draws.below(2, row, 1) as f64).collect();
    let table = MemorySource::from_f32(x, 4).and_then(|t| t.with_target(y, TargetKind::Integer)).unwrap();
    let loss = |calibrate| {
        let boost = Some(BoostConfig { rounds: 60, min_rows: 2, ..BoostConfig::default() });
        let config = TrainConfig { boost, valid_fraction: 0.3, ..config(Kind::Boost, calibrate, 0) };
        trained(&Communicator::solo(), &table, &config).unwrap().1.valid.get("log_loss").unwrap()
    };
    let (before, after) = (loss(None), loss(Some(Calibrate::Platt)));
    assert!(before > 0.75 && after < 0.72, "{before} {after}");
}

#[test]
fn a_calibrated_model_comes_back_with_its_bits() {
    let folder = tempfile::tempdir().unwrap();
    let table = synthetic::mixture(400, 3, 3, 1).unwrap();
    for (kind, method) in
        [(Kind::Svm, Calibrate::Platt), (Kind::Forest, Calibrate::Isotonic), (Kind::Boost, Calibrate::Platt)]
    {
        let (model, _) = trained(&Communicator::solo(), &table, &config(kind, Some(method), 0)).unwrap();
        let path = folder.path().join(format!("{kind:?}.h5"));
        crate::store::save(&path, &crate::store::model::to_file(&model, &Inputs::default()).unwrap(), false).unwrap();
        let back = crate::store::model::from_file(&crate::store::load(&path).unwrap()).unwrap();
        assert_eq!(back, model);
        assert_eq!(digest(&back).unwrap(), model.digest);
        let (plain, _) = trained(&Communicator::solo(), &table, &config(kind, None, 0)).unwrap();
        assert_ne!(plain.digest, model.digest);
        assert_eq!(Scores::uncalibrated(&model.scores), &plain.scores);
    }
}

#[test]
fn what_cannot_be_calibrated_is_refused_with_what_to_do() {
    let refused = |config: TrainConfig| config.resolved().unwrap_err().to_string();
    let platt = Some(Calibrate::Platt);
    assert!(refused(config(Kind::Linear, platt, 0)).contains("'linear' predicts numbers"));
    assert!(refused(TrainConfig { folds: 3, ..config(Kind::Svm, platt, 0) }).contains("--valid-fraction"));
    assert!(
        refused(TrainConfig { calibrate_folds: Some(1), ..config(Kind::Svm, platt, 0) })
            .contains("--calibrate-folds 1")
    );
    assert!(
        refused(TrainConfig { calibrate_folds: Some(3), ..config(Kind::Svm, None, 0) }).contains("platt or isotonic")
    );
    let numbers = synthetic::linear(200, 2, 0.1, 1).unwrap();
    for kind in [Kind::Boost, Kind::Forest] {
        let message = trained(&Communicator::solo(), &numbers, &config(kind, platt, 0)).unwrap_err().to_string();
        assert!(message.contains("--calibrate") && message.contains("predicts numbers"), "{message}");
    }
    // A class of one row is missing where that row is held out.
    let y = (0..200).map(|row| if row == 77 { 2.0 } else { f64::from(row % 2) }).collect();
    let lonely = MemorySource::from_f32((0..400).map(|i| (i * 7 % 31) as f32).collect(), 2);
    let lonely = lonely.and_then(|table| table.with_target(y, TargetKind::Integer)).unwrap();
    for kind in [Kind::Logistic, Kind::Forest] {
        let (model, _) = trained(&Communicator::solo(), &lonely, &config(kind, platt, 0)).unwrap();
        assert_eq!(maps(&model).len(), 3, "a class without rows is still one of the classes");
    }
}
