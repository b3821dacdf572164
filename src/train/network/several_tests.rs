//! Several targets of a row: each is learned in its own unit, and the bits are the same on any number of ranks.

use super::super::linear_family::{train, train_source};
use super::super::{Inputs, Kind, Reading, Silent, Solver, TrainConfig};
use super::head_tests::{numbers, trained};
use crate::comm::{Communicator, run_threads};
use crate::config::{BoostLoss, MlpConfig};
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::synthetic::{self, Storage};
use crate::model::{Scores, TargetCoding};
use crate::rng::{Draws, Stream};
use std::path::Path;

/// A prime: ranks and lanes have unequal numbers of rows.
const ROWS: usize = 2003;
/// Of the columns of a dataset that says nothing of them.
const NAMES: [&str; 3] = ["y[0]", "y[1]", "y[2]"];

fn x(row: usize) -> [f64; 2] {
    let draws = Draws::new(11, Stream::Synthetic);
    [0, 1].map(|of| 4.0 * draws.uniform(row as u64, of) - 2.0)
}

/// Targets of other means and deviations by far.
fn numbers_of(row: usize) -> [f64; 3] {
    let [a, b] = x(row);
    [1e4 + 300.0 * a, -0.5 + 1e-3 * (b - 0.5 * a), a * b]
}

fn counts_of(row: usize) -> [f64; 3] {
    let [a, b] = x(row);
    [100.0 * libm::exp(a), libm::exp(0.5 * b), 3.0].map(f64::round)
}

/// Every eleventh row has weight 0 and targets far away.
fn table(of: fn(usize) -> [f64; 3], kind: TargetKind) -> MemorySource {
    let is_out = |row: usize| row % 11 == 5;
    let targets = (0..ROWS).flat_map(|row| if is_out(row) { [1e6, 1e5, 1e6] } else { of(row) }).collect();
    let weight = (0..ROWS).map(|row| if is_out(row) { 0.0 } else { 1.0 }).collect();
    let table = MemorySource::from_f64((0..ROWS).flat_map(x).collect(), 2).unwrap();
    table.with_targets(targets, &NAMES, kind).and_then(|table| table.with_weight(weight)).unwrap()
}

fn write(folder: &Path, table: &MemorySource) -> Inputs {
    let path = folder.join("table.h5");
    synthetic::write_hdf5(&path, "", table, Storage::default()).unwrap();
    let names = TableNames { weight: Some("weight".into()), ..TableNames::default() };
    Inputs { paths: vec![path], names, ..Inputs::default() }
}

fn config(loss: BoostLoss) -> TrainConfig {
    TrainConfig {
        solver: Solver::Adam,
        epochs: Some(30),
        global_batch: 65,
        lanes: Some(5),
        learning_rate: Some(1e-2),
        mlp: Some(MlpConfig { layers: vec![23], loss, ..MlpConfig::default() }),
        ..TrainConfig::of(Kind::Mlp)
    }
}

/// Share of the variance of a target that is not explained, over rows of weight above 0.
fn left(found: &[f64], of: fn(usize) -> [f64; 3], target: usize) -> f64 {
    let rows: Vec<usize> = (0..ROWS).filter(|row| row % 11 != 5).collect();
    let mean = rows.iter().map(|row| of(*row)[target]).sum::<f64>() / rows.len() as f64;
    let squares = |from: &dyn Fn(usize) -> f64| {
        rows.iter().map(|row| (of(*row)[target] - from(*row)) * (of(*row)[target] - from(*row))).sum::<f64>()
    };
    squares(&|row| found[3 * row + target]) / squares(&|_| mean)
}

#[test]
fn every_target_is_learned_whatever_its_unit_and_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = write(folder.path(), &table(numbers_of, TargetKind::Float));
    for loss in [BoostLoss::Squared, BoostLoss::Huber, BoostLoss::Quantile] {
        let (model, reader, measured) = trained(&inputs, &config(loss));
        assert_eq!(model.target, TargetCoding::Numbers(NAMES.map(String::from).to_vec()));
        assert_eq!(model.scores.n_scores(), 3);
        let found = numbers(&reader, "prediction");
        assert_eq!(found.len(), 3 * ROWS);
        for target in 0..3 {
            let left = left(&found, numbers_of, target);
            assert!(left < 0.05, "{loss:?}, target {target}: {left} of the variance is left");
        }
        assert!(measured.metrics.get("r2").unwrap() > 0.95, "{loss:?}");
        let Scores::Mlp(network) = &model.scores else { panic!("a network") };
        approx::assert_relative_eq!(network.units[0].origin, 1e4, max_relative = 1e-2);
        approx::assert_relative_eq!(network.units[1].scale, 1e-3 * (20.0f64 / 12.0).sqrt(), max_relative = 0.1);
    }
}

#[test]
fn counts_are_predicted_above_0() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = write(folder.path(), &table(counts_of, TargetKind::Integer));
    let (model, reader, _) = trained(&inputs, &config(BoostLoss::Poisson));
    let found = numbers(&reader, "prediction");
    assert!(found.iter().all(|count| *count > 0.0));
    for (target, most) in [(0, 0.05), (1, 0.3)] {
        let left = left(&found, counts_of, target);
        assert!(left < most, "target {target}: {left} of the variance is left");
    }
    let Scores::Mlp(network) = &model.scores else { panic!("a network") };
    assert!(network.units.iter().all(|unit| (unit.scale, unit.origin) == (1.0, 0.0)) && network.units.len() == 3);
}

/// Rows that are held out are measured per target, and rows that are read for every pass give the same bits.
#[test]
fn reading_rows_again_changes_nothing() {
    let config = TrainConfig { valid_fraction: 0.2, early_stop: 3, ..config(BoostLoss::Auto) }.resolved().unwrap();
    let digest = |size: usize, threads: usize, streamed: bool| {
        let reading = Reading { streamed, ..Reading::default() };
        let of_ranks = run_threads(size, threads, |comm| {
            // Whole numbers are no classes where there are several.
            let (names, mut table) = (TableNames::default(), table(numbers_of, TargetKind::Integer));
            train_source(comm, &mut table, &names, &config, &reading, &mut Silent)
        });
        let of_ranks = of_ranks.unwrap();
        let (model, report) = &of_ranks[0];
        assert!(of_ranks.iter().all(|(other, _)| other.digest == model.digest));
        assert!(report.valid.get("r2").unwrap() > 0.9, "{:?}", report.valid);
        let (_, losses) = model.history.iter().find(|(name, _)| name == "valid_loss").unwrap();
        assert!(losses.iter().any(|loss| *loss < 0.05), "{losses:?}");
        model.digest.clone()
    };
    let alone = digest(1, 1, false);
    for (size, threads, streamed) in [(1, 2, true), (3, 1, true), (2, 2, false)] {
        assert_eq!(digest(size, threads, streamed), alone, "{size} × {threads}, streamed: {streamed}");
    }
}

#[test]
fn losses_of_one_target_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = write(folder.path(), &table(counts_of, TargetKind::Integer));
    for (loss, expected) in [
        (BoostLoss::Gaussian, "--loss gaussian: is of one target, and 'y' has 3 values a row"),
        (BoostLoss::Logistic, "'y': has shape 2003 × 3 where one value a row is needed"),
    ] {
        let found = train(&Communicator::solo(), &inputs, &config(loss).resolved().unwrap(), &mut Silent);
        let found = found.unwrap_err().to_string();
        assert!(found.contains(expected), "{found}");
    }
}
