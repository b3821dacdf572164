//! What the losses of numbers lead networks to: the same bits on any number of ranks, and predictions that are what the loss asks for.

use super::super::evaluate::evaluate;
use super::super::linear_family::train;
use super::super::measure::Evaluation;
use super::super::prepare::HeldOut;
use super::super::{Inputs, Kind, Model, Silent, Solver, TrainConfig};
use crate::comm::{Communicator, run_threads};
use crate::config::{BoostLoss, MlpConfig};
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::synthetic::{self, Storage};
use crate::metric::regression::gaussian_nll;
use crate::model::Scores;
use crate::predict::{PredictConfig, predict};
use crate::rng::{Draws, Stream};
use crate::store::{Array, Reader, load, model, save};
use std::path::Path;

/// A prime: ranks and lanes have unequal numbers of rows.
const ROWS: usize = 3001;
/// Where targets are, and how they are spread there.
const CENTRE: f64 = 300.0;

/// (x, noise) of a row: two features in ±2, and a number that is not known.
fn row(row: usize) -> ([f64; 2], f64) {
    let draws = Draws::new(7, Stream::Synthetic);
    let x = |of: u64| 4.0 * draws.uniform(row as u64, of) - 2.0;
    ([x(0), x(1)], draws.normal(row as u64, 2))
}

/// Mean of the targets of such rows.
fn mean(x: [f64; 2]) -> f64 {
    CENTRE + 20.0 * x[0]
}

/// Their deviation.
fn deviation(x: [f64; 2]) -> f64 {
    if x[1] < 0.0 { 3.0 } else { 15.0 }
}

/// Rows with targets; every eleventh has weight 0 and a target far away.
fn table(folder: &Path, target: impl Fn(usize) -> f64) -> Inputs {
    table_of(folder, &(0..ROWS).collect::<Vec<_>>(), target)
}

/// Some of these rows, by their numbers.
fn table_of(folder: &Path, which: &[usize], target: impl Fn(usize) -> f64) -> Inputs {
    let x = which.iter().flat_map(|number| row(*number).0).collect();
    let is_out = |number: usize| number % 11 == 5;
    let y = which.iter().map(|number| if is_out(*number) { -1e6 } else { target(*number) }).collect();
    let weight = which.iter().map(|number| if is_out(*number) { 0.0 } else { 1.0 }).collect();
    let table = MemorySource::from_f64(x, 2).unwrap();
    let table = table.with_target(y, TargetKind::Float).unwrap().with_weight(weight).unwrap();
    let path = folder.join("table.h5");
    synthetic::write_hdf5(&path, "", &table, Storage::default()).unwrap();
    let names = TableNames { weight: Some("weight".into()), ..TableNames::default() };
    Inputs { paths: vec![path], names, ..Inputs::default() }
}

fn config(loss: BoostLoss, alpha: f64) -> TrainConfig {
    TrainConfig {
        solver: Solver::Adam,
        epochs: Some(25),
        global_batch: 65,
        lanes: Some(5),
        learning_rate: Some(5e-3),
        mlp: Some(MlpConfig { layers: vec![19], loss, alpha, ..MlpConfig::default() }),
        ..TrainConfig::of(Kind::Mlp)
    }
}

/// The model, the bytes of its predictions, and how good it is: the same on all cuts, and after it was stored.
pub(super) fn trained(inputs: &Inputs, config: &TrainConfig) -> (Model, Reader, Evaluation) {
    let folder = tempfile::tempdir().unwrap();
    let config = config.resolved().unwrap();
    let mut alone: Option<(Model, Vec<u8>, Evaluation)> = None;
    for (size, threads) in [(1, 1), (1, 2), (2, 1), (3, 2), (5, 1)] {
        let path = folder.path().join(format!("{size}x{threads}.h5"));
        let of_job = |comm: &Communicator| {
            let (model, _) = train(comm, inputs, &config, &mut Silent)?;
            let path = folder.path().join(format!("model-{size}x{threads}-{}.h5", comm.rank()));
            save(&path, &model::to_file(&model, inputs)?, false)?;
            let stored = model::from_file(&load(&path)?)?;
            assert_eq!(stored.scores, model.scores);
            let config = PredictConfig {
                inputs: inputs.clone(),
                output: folder.path().join(format!("{size}x{threads}.h5")),
                rows: None,
                copy: Vec::new(),
                contributions: false,
                leaves: false,
                out_of_bag: false,
                force: false,
            };
            predict(comm, &stored, &config)?;
            let measured = evaluate(comm, &stored, inputs, None)?;
            Ok((model, measured))
        };
        for (model, measured) in run_threads(size, threads, of_job).unwrap() {
            let bytes = std::fs::read(&path).unwrap();
            let (one, bytes_of_one, measured_of_one) =
                alone.get_or_insert_with(|| (model.clone(), bytes.clone(), measured.clone()));
            assert_eq!(model.digest, one.digest, "{size} ranks, {threads} threads");
            assert!(bytes == *bytes_of_one, "{size} ranks, {threads} threads");
            assert_eq!(measured, *measured_of_one, "{size} ranks, {threads} threads");
        }
    }
    let reader = Reader::open(&folder.path().join("1x1.h5")).unwrap();
    let (model, _, measured) = alone.unwrap();
    (model, reader, measured)
}

pub(super) fn numbers(reader: &Reader, name: &str) -> Vec<f64> {
    let Array::F64 { values, .. } = reader.array(name).unwrap() else { panic!("{name} holds no float64") };
    values
}

/// Mean of what rows of weight above 0 give.
fn average(of: impl Fn(usize) -> f64, which: impl Fn(usize) -> bool) -> f64 {
    let rows: Vec<usize> = (0..ROWS).filter(|row| row % 11 != 5 && which(*row)).collect();
    rows.iter().map(|row| of(*row)).sum::<f64>() / rows.len() as f64
}

#[test]
fn a_quantile_has_its_share_of_rows_below() {
    let folder = tempfile::tempdir().unwrap();
    let target = |number: usize| {
        let (x, noise) = row(number);
        mean(x) + deviation(x) * noise
    };
    let inputs = table(folder.path(), target);
    for alpha in [0.1, 0.9] {
        let (_, reader, _) = trained(&inputs, &config(BoostLoss::Quantile, alpha));
        let predicted = numbers(&reader, "prediction");
        let is_below = |row: usize| f64::from(target(row) < predicted[row]);
        for (name, share) in [
            ("all", average(is_below, |_| true)),
            ("narrow", average(is_below, |number| row(number).0[1] < -0.3)),
            ("wide", average(is_below, |number| row(number).0[1] > 0.3)),
        ] {
            assert!((share - alpha).abs() < 0.04, "{name} rows: {share} below, not {alpha}");
        }
    }
}

#[test]
fn hubers_loss_does_not_follow_targets_far_away() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = table(folder.path(), |number| {
        let (x, noise) = row(number);
        if number % 20 == 1 { mean(x) + 2000.0 } else { mean(x) + 3.0 * noise }
    });
    let error_of = |loss, alpha| {
        let (_, reader, _) = trained(&inputs, &config(loss, alpha));
        let predicted = numbers(&reader, "prediction");
        average(|number| (predicted[number] - mean(row(number).0)).abs(), |_| true)
    };
    // Targets deviate by about 440, so that this is about 4.
    let (huber, squared) = (error_of(BoostLoss::Huber, 0.01), error_of(BoostLoss::Squared, 0.0));
    assert!(huber < 4.0, "{huber}");
    assert!(squared > 50.0, "{squared}");
}

#[test]
fn a_gaussian_says_how_far_targets_are_from_its_mean() {
    let folder = tempfile::tempdir().unwrap();
    let target = |number: usize| {
        let (x, noise) = row(number);
        mean(x) + deviation(x) * noise
    };
    let inputs = table(folder.path(), target);
    let (model, reader, measured) = trained(&inputs, &config(BoostLoss::Gaussian, 0.0));
    let (predicted, variance) = (numbers(&reader, "prediction"), numbers(&reader, "variance"));
    let error = average(|number| (predicted[number] - mean(row(number).0)).abs(), |_| true);
    assert!(error < 2.0, "{error}");
    for (side, expected) in [(-1.0, 3.0), (1.0, 15.0)] {
        let found = average(|number| variance[number].sqrt(), |number| row(number).0[1] * side > 0.8);
        assert!((found / expected - 1.0).abs() < 0.2, "deviation {found}, not {expected}");
    }
    // What is measured is of the mean, and of the pair.
    let rmse = average(|row| (target(row) - predicted[row]) * (target(row) - predicted[row]), |_| true).sqrt();
    approx::assert_relative_eq!(measured.metrics.get("rmse").unwrap(), rmse, max_relative = 1e-9);
    let nll = average(|row| gaussian_nll(target(row), predicted[row], variance[row]), |_| true);
    approx::assert_relative_eq!(measured.metrics.get("gaussian_nll").unwrap(), nll, max_relative = 1e-9);
    let best = average(
        |number| gaussian_nll(target(number), mean(row(number).0), deviation(row(number).0) * deviation(row(number).0)),
        |_| true,
    );
    // One variance for all rows would be 0.4 worse.
    assert!(nll < best + 0.2, "{nll}, and the density that targets were drawn from has {best}");
    assert_eq!((model.scores.n_scores(), model.scores.has_variance()), (1, true));
}

/// Half of the way, at least, from the best density that is the same for all rows to the one that targets were drawn from.
#[test]
fn every_solver_learns_a_gaussian_at_its_default_rate() {
    let folder = tempfile::tempdir().unwrap();
    // Some targets are hit as nearly as can be: there the loss is steepest.
    let target = |number: usize| {
        let (x, noise) = row(number);
        mean(x) + deviation(x) * if x[1] < 0.0 { 0.01 * noise } else { noise }
    };
    let inputs = table(folder.path(), target);
    for solver in [Solver::Sgd, Solver::Lars, Solver::Adamw, Solver::Lamb, Solver::Adagrad] {
        let plain = config(BoostLoss::Gaussian, 0.0);
        let config = TrainConfig { solver, learning_rate: None, epochs: Some(40), ..plain }.resolved().unwrap();
        let measured = run_threads(1, 2, |comm| {
            let (model, _) = train(comm, &inputs, &config, &mut Silent)?;
            evaluate(comm, &model, &inputs, None)
        });
        let metrics = measured.unwrap().remove(0).metrics;
        let (nll, r2) = (metrics.get("gaussian_nll").unwrap(), metrics.get("r2").unwrap());
        // One variance for all rows: ½ ln(2π·25²) + ½.
        assert!(nll < 4.64 - 0.8, "{solver:?}: {nll}");
        assert!(r2 > 0.5, "{solver:?}: {r2}");
    }
}

#[test]
fn rows_held_out_are_measured_by_the_loss_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = table(folder.path(), |number| {
        let (x, noise) = row(number);
        mean(x) + deviation(x) * noise
    });
    let config = TrainConfig { valid_fraction: 0.3, early_stop: 2, ..config(BoostLoss::Gaussian, 0.0) };
    let (model, _, measured) = trained(&inputs, &config);
    let Scores::Mlp(network) = &model.scores else { panic!("no network") };
    let (_, held_out) = model.history.iter().find(|(name, _)| name == "valid_loss").unwrap();
    let least = held_out.iter().copied().fold(f64::INFINITY, f64::min);
    // The loss is in units of the target's deviation, and lacks ½ ln 2π; other rows than those held out are measured too.
    let in_units =
        measured.metrics.get("gaussian_nll").unwrap() - network.unit(0).scale.ln() - 0.5 * std::f64::consts::TAU.ln();
    assert!((least - in_units).abs() < 0.1, "{least}, {in_units}");
}

#[test]
fn the_likelihood_of_rows_held_out_is_that_of_their_densities() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = table(folder.path(), |number| {
        let (x, noise) = row(number);
        mean(x) + deviation(x) * noise
    });
    let config = TrainConfig { valid_fraction: 0.3, epochs: Some(3), ..config(BoostLoss::Gaussian, 0.0) };
    let config = config.resolved().unwrap();
    let of_ranks = run_threads(2, 2, |comm| train(comm, &inputs, &config, &mut Silent)).unwrap();
    let valid = &of_ranks[1].1.valid;
    // The same rows as a table of their own, by the way of `evaluate`.
    let held_out = HeldOut::Fraction(0.3);
    let which: Vec<usize> = (0..ROWS).filter(|row| held_out.holds_out(config.seed, *row as u64)).collect();
    let alone = tempfile::tempdir().unwrap();
    let inputs = table_of(alone.path(), &which, |number| {
        let (x, noise) = row(number);
        mean(x) + deviation(x) * noise
    });
    let measured = evaluate(&Communicator::solo(), &of_ranks[0].0, &inputs, None).unwrap();
    assert!(valid.get("gaussian_nll").is_some_and(f64::is_finite), "{valid:?}");
    assert_eq!(*valid, measured.metrics);
    // Folds too.
    let config = TrainConfig { folds: 2, valid_fraction: 0.0, ..config };
    let of_ranks = run_threads(1, 2, |comm| train(comm, &inputs, &config, &mut Silent)).unwrap();
    assert!(of_ranks[0].1.mean_of_folds().get("gaussian_nll").is_some_and(f64::is_finite));
}

#[test]
fn a_target_of_classes_is_refused_by_losses_of_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let x = (0..200).map(f64::from).collect();
    let labels = (0..100).map(|row| if row % 2 == 0 { "a" } else { "b" }.to_string()).collect();
    let table = MemorySource::from_f64(x, 2).unwrap().with_text_target(labels).unwrap();
    let path = folder.path().join("classes.h5");
    synthetic::write_hdf5(&path, "", &table, Storage::default()).unwrap();
    let inputs = Inputs { paths: vec![path], ..Inputs::default() };
    for loss in [BoostLoss::Huber, BoostLoss::Quantile, BoostLoss::Gaussian] {
        let config = config(loss, 0.0).resolved().unwrap();
        let refused = run_threads(2, 1, |comm| Ok(train(comm, &inputs, &config, &mut Silent).err()));
        for error in refused.unwrap() {
            let text = error.expect("strings are no numbers").to_string();
            assert!(text.contains("string"), "{text}");
        }
    }
}
