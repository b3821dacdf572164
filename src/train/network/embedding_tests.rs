//! Categories as vectors: learned from rows with the same bits on any number of ranks, and nothing is said of those that were not seen.

use super::super::linear_family::{train, train_source};
use super::super::{Inputs, Kind, Reading, Silent, Solver, TrainConfig};
use super::head_tests::{numbers, trained};
use crate::comm::{Communicator, run_threads};
use crate::config::{BoostLoss, MlpConfig};
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::synthetic::{self, Storage};
use crate::model::{Model, Scores};
use crate::predict::{PredictConfig, predict};
use crate::rng::{Draws, Stream};
use crate::store::{Array, Reader};
use std::path::Path;

/// A prime: ranks and lanes have unequal numbers of rows.
const ROWS: usize = 2003;
/// Cells and sites.
const CATEGORIES: [u64; 2] = [150, 7];

/// (cell, site) of a row.
fn places(row: usize) -> [u64; 2] {
    let draws = Draws::new(13, Stream::Synthetic);
    [0, 1].map(|column| draws.below(CATEGORIES[column], row as u64, column as u64))
}

/// What belongs to a cell: another number for each, whose order says nothing.
fn height(cell: u64) -> f64 {
    Draws::new(14, Stream::Synthetic).normal(cell, 0)
}

fn y(row: usize) -> f64 {
    let [cell, site] = places(row);
    10.0 * height(cell) + 2.0 * height(1000 + site)
}

/// A number that says nothing, a cell (odd numbers), and a site (strings).
fn table(cell: impl Fn(usize) -> f64, site: impl Fn(usize) -> String) -> MemorySource {
    let noise = |row: usize| Draws::new(15, Stream::Synthetic).normal(row as u64, 0);
    let x = (0..ROWS).flat_map(|row| [noise(row), cell(row)]).collect();
    let table = MemorySource::from_f64(x, 2).unwrap();
    let table = table.with_text_column("site", (0..ROWS).map(site).collect());
    table.and_then(|table| table.with_target((0..ROWS).map(y).collect(), TargetKind::Float)).unwrap()
}

fn known() -> MemorySource {
    table(|row| (2 * places(row)[0] + 1) as f64 - 100.0, |row| format!("s{}", places(row)[1]))
}

fn write(folder: &Path, table: &MemorySource) -> Inputs {
    let path = folder.join("table.h5");
    synthetic::write_hdf5(&path, "", table, Storage::default()).unwrap();
    let names = TableNames { features: vec!["X".into(), "site".into()], ..TableNames::default() };
    Inputs { paths: vec![path], names, ..Inputs::default() }
}

fn config(mlp: MlpConfig) -> TrainConfig {
    TrainConfig {
        solver: Solver::Adam,
        epochs: Some(30),
        global_batch: 65,
        lanes: Some(5),
        learning_rate: Some(2e-2),
        mlp: Some(MlpConfig { layers: vec![11], loss: BoostLoss::Squared, ..mlp }),
        ..TrainConfig::of(Kind::Mlp)
    }
}

fn named(columns: &[&str]) -> MlpConfig {
    MlpConfig { categorical: columns.iter().map(|column| column.to_string()).collect(), ..MlpConfig::default() }
}

/// Share of the variance that predictions leave.
fn left(predicted: &[f64]) -> f64 {
    let mean = (0..ROWS).map(y).sum::<f64>() / ROWS as f64;
    let squares = |of: &dyn Fn(usize) -> f64| (0..ROWS).map(|row| (y(row) - of(row)) * (y(row) - of(row))).sum::<f64>();
    squares(&|row| predicted[row]) / squares(&|_| mean)
}

fn shapes(model: &Model) -> Vec<Vec<usize>> {
    let Scores::Mlp(network) = &model.scores else { panic!("a network") };
    let tensors = network.tensors().into_iter().filter(|(_, spec, _)| spec.name == "embedding");
    tensors.map(|(_, spec, _)| spec.shape).collect()
}

fn predicted(model: &Model, table: &MemorySource) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let config = PredictConfig {
        inputs: write(folder.path(), table),
        output: folder.path().join("predicted.h5"),
        rows: None,
        copy: Vec::new(),
        contributions: false,
        leaves: false,
        out_of_bag: false,
        force: false,
    };
    predict(&Communicator::solo(), model, &config).unwrap();
    let Array::F64 { values, .. } = Reader::open(&config.output).unwrap().array("prediction").unwrap() else {
        panic!("float64")
    };
    values
}

#[test]
fn what_belongs_to_a_category_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = write(folder.path(), &known());
    let ways = [
        (named(&["1", "site"]), vec![vec![150, 26], vec![7, 5]]),
        (MlpConfig { embed: 33, gradient_bits: 16, ..named(&["X[1]"]) }, vec![vec![150, 33], vec![7, 33]]),
    ];
    for (mlp, expected) in ways {
        let (model, reader, _) = trained(&inputs, &config(mlp.clone()));
        assert_eq!(shapes(&model), expected, "{mlp:?}");
        let left = left(&numbers(&reader, "prediction"));
        assert!(left < 0.02, "{mlp:?}: {left} of the variance is left");

        // What was not seen is what is missing, whatever it is.
        let site = |row| format!("s{}", places(row)[1]);
        let of = |cell: f64| predicted(&model, &table(|_| cell, site));
        let missing = of(f64::NAN);
        assert_eq!(of(-0.5), missing);
        assert_eq!(of(1e9), missing);
        assert_ne!(of(-99.0), missing);
        let elsewhere =
            |to: &str| predicted(&model, &table(|row| (2 * places(row)[0] + 1) as f64 - 100.0, |_| to.to_string()));
        assert_eq!(elsewhere(""), elsewhere("s7"));
        assert_ne!(elsewhere("s0"), elsewhere("s1"));
    }
    // As a number the column says next to nothing.
    let (model, reader, _) = trained(&inputs, &config(named(&["site"])));
    assert_eq!(shapes(&model), [[7, 5]]);
    let left = left(&numbers(&reader, "prediction"));
    assert!(left > 0.5, "{left}");
}

#[test]
fn reading_rows_again_changes_nothing() {
    let config = config(named(&["1", "site"])).resolved().unwrap();
    let digest = |size: usize, threads: usize, streamed: bool| {
        let reading = Reading { streamed, ..Reading::default() };
        let of_ranks = run_threads(size, threads, |comm| {
            train_source(comm, &mut known(), &TableNames::default(), &config, &reading, &mut Silent)
        });
        of_ranks.unwrap().into_iter().map(|(model, _)| model.digest).next().unwrap()
    };
    let alone = digest(1, 1, false);
    for (size, threads) in [(1, 2), (3, 1)] {
        assert_eq!(digest(size, threads, true), alone, "{size} × {threads}");
    }
}

#[test]
fn settings_without_categories_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = write(folder.path(), &known());
    let numbers =
        Inputs { names: TableNames { features: vec!["X".into()], ..TableNames::default() }, ..inputs.clone() };
    for (inputs, mlp, expected) in [
        (&numbers, MlpConfig { embed: 3, ..named(&[]) }, "--embed: no column is a category"),
        (&inputs, named(&["cell"]), "--categorical: there is no column 'cell'"),
    ] {
        let refused = run_threads(2, 1, |comm| {
            Ok(train(comm, inputs, &config(mlp.clone()).resolved()?, &mut Silent).unwrap_err().to_string())
        });
        for found in refused.unwrap() {
            assert!(found.contains(expected), "{found}");
        }
    }
    let conv = MlpConfig { conv: vec![3], ..named(&["1"]) };
    assert!(config(conv).resolved().unwrap_err().to_string().starts_with("--conv: pixels are no categories"));
    let wide = MlpConfig { embed: 1025, ..named(&["1"]) };
    assert!(config(wide).resolved().unwrap_err().to_string().starts_with("--embed: 1025"));
}
