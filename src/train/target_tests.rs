//! Several targets a row, from a table to what is measured of a model.

use super::evaluate::evaluate;
use super::linear_family::train_source;
use super::permutation::permutation;
use super::prepare::prepare;
use super::score::Link;
use super::table::{LocalRows, RowBuffer};
use super::{Inputs, Kind, Model, Reading, Silent, Solver, TrainConfig};
use crate::comm::{Communicator, run_threads};
use crate::config::EnsembleConfig;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::synthetic::{Storage, write_hdf5};
use crate::data::{DataSource, TargetKind};
use crate::model::{LinearModel, Preprocess, Scores, TargetCoding};
use crate::predict::{PredictConfig, predict};
use crate::store::{Array, Reader};
use crate::train::measure::{ScoredRows, Show, measure};
use std::path::Path;

const NAMES: [&str; 3] = ["u", "v", "w"];

fn y(row: usize, target: usize) -> f64 {
    (row * 7919 % 97) as f64 / 7.0 - 30.0 * target as f64
}

fn targets(n: usize) -> Vec<f64> {
    (0..3 * n).map(|i| y(i / 3, i % 3)).collect()
}

/// Two features, three targets, and weights of which some are 0.
fn table(n: usize) -> MemorySource {
    let x = (0..2 * n).map(|i| (i * 31 % 1009) as f32).collect();
    let weight = (0..n).map(|row| if row % 13 == 4 { 0.0 } else { 0.25 + (row % 3) as f64 }).collect();
    let table = MemorySource::from_f32(x, 2).unwrap().with_targets(targets(n), &NAMES, TargetKind::Float);
    table.and_then(|table| table.with_weight(weight)).unwrap()
}

/// What would be learned of these is nothing, and measured as nothing or all.
#[test]
fn weights_and_targets_whose_squares_are_no_numbers_are_refused_on_every_rank() {
    let train = |size: usize, table: &MemorySource, kind: Kind| {
        let config = TrainConfig { epochs: Some(1), ..TrainConfig::of(kind) }.resolved().unwrap();
        let told = run_threads(size, 1, |comm| {
            let (mut table, names) = (table.clone(), TableNames::default());
            let trained = train_source(comm, &mut table, &names, &config, &Reading::default(), &mut Silent);
            Ok(trained.err().map(|error| error.to_string()))
        });
        let told = told.unwrap();
        assert!(told.iter().all(|of_rank| *of_rank == told[0]), "{told:?}");
        told.into_iter().next().unwrap()
    };
    let x: Vec<f32> = (0..211).map(|row| (row * 31 % 101) as f32).collect();
    let table = |of_y: f64, of_weight: f64| {
        let y = (0..211).map(|row| of_y * ((row * 13 % 7) as f64 - 3.0)).collect();
        let weight = (0..211).map(|row| of_weight * (row % 4) as f64).collect();
        let table = MemorySource::from_f32(x.clone(), 1).unwrap().with_target(y, TargetKind::Float).unwrap();
        table.with_weight(weight).unwrap()
    };
    for kind in [Kind::Mlp, Kind::Linear] {
        for size in [1, 3] {
            for (of_y, of_weight, part) in [
                (1.0, 1e-300, "row weights are 1e-300"),
                (1.0, 1e300, "row weights are"),
                (1e-200, 1.0, "a target is 3e-200"),
            ] {
                let told = train(size, &table(of_y, of_weight), kind).unwrap_or_default();
                assert!(told.contains(part), "{kind:?}, targets · {of_y}, weights · {of_weight}: {told}");
            }
            for (of_y, of_weight) in [(1.0, 1.0), (0.0, 1.0), (1e-140, 1e-140), (1e-140, 1e140)] {
                assert_eq!(train(size, &table(of_y, of_weight), kind), None, "targets · {of_y}, weights · {of_weight}");
            }
        }
    }
}

/// A linear model of several targets as no trainer makes it.
fn model(n_rows: u64) -> Model {
    let table = table(17);
    let mut preprocess = Preprocess::unfitted(table.schema(), Default::default());
    (preprocess.mean, preprocess.inverse_scale) = (vec![500.0; 2], vec![0.01; 2]);
    let params = (0..9).map(|i| f64::from(i) - 4.0).collect();
    Model {
        config: TrainConfig { kind: Kind::Linear, ..TrainConfig::default() },
        names: TableNames::default(),
        preprocess,
        target: TargetCoding::Numbers(NAMES.map(String::from).to_vec()),
        scores: Scores::Linear(LinearModel { n_features: 2, n_scores: 3, params }),
        continued: None,
        history: Vec::new(),
        digest: String::new(),
        input_digest: String::new(),
        n_rows,
    }
}

fn inputs(folder: &Path, name: &str, table: &MemorySource) -> Inputs {
    let path = folder.join(name);
    write_hdf5(&path, "", table, Storage { chunk_rows: Some(64), deflate: Some(1) }).unwrap();
    Inputs { paths: vec![path], ..Inputs::default() }
}

#[test]
fn rows_keep_their_targets_however_the_table_is_cut_and_read() {
    for (n, solver) in [(1_009, Solver::Lbfgs), (1_009, Solver::Adam), (37, Solver::Adam)] {
        let config = TrainConfig { kind: Kind::Linear, solver, global_batch: 64, ..TrainConfig::default() };
        for (size, threads) in [(1, 1), (2, 2), (3, 1), (5, 2)] {
            for streamed in [false, true] {
                let of_ranks = run_threads(size, threads, |comm| {
                    let (mut source, reading) = (table(n), Reading { streamed, ..Reading::default() });
                    let prepared = prepare(comm, &mut source, &config, &reading, None, &mut Silent)?;
                    assert_eq!(prepared.target, TargetCoding::Numbers(NAMES.map(String::from).to_vec()));
                    let table = &prepared.table;
                    let (mut rows, mut labels) = (Vec::new(), Vec::new());
                    table.each_batch(|buffer, _, _| rows.extend_from_slice(&buffer.y))?;
                    table.each_labels(|y, _, _| labels.extend_from_slice(y))?;
                    assert_eq!(labels, rows);
                    if let (LocalRows::Stream(stream), true) = (&table.rows, rows.len() >= 48) {
                        let (mut pool, first) = (RowBuffer::default(), table.first_row);
                        stream.read_runs(&[first + 5..first + 9, first..first + 3], &mut pool)?;
                        assert_eq!(pool.y, [&rows[15..27], &rows[..9]].concat());
                        assert_eq!((pool.rows().len(), pool.x.dense().unwrap().len()), (7, 14));
                    }
                    let step = 4;
                    let thin = table.thinned(step, 3)?;
                    let thin = thin.in_memory().unwrap();
                    for (y, row) in thin.y.chunks_exact(3).zip(0..thin.rows().len()) {
                        let x = thin.rows().row(row).dense()[0].to_bits();
                        let mut found = false;
                        table.each_batch(|buffer, blocks, _| {
                            for row in blocks.iter().cloned().flatten() {
                                let same = buffer.rows().row(row).dense()[0].to_bits() == x;
                                found |= same && buffer.y[3 * row..3 * row + 3] == *y;
                            }
                        })?;
                        assert!(found, "row {row} of those that are left has the targets of another");
                    }
                    Ok((rows, prepared.weighted_y, prepared.input_digest))
                });
                let of_ranks = of_ranks.unwrap();
                let place = format!("{size} × {threads}, streamed {streamed}");
                let all: Vec<f64> = of_ranks.iter().flat_map(|(rows, ..)| rows.clone()).collect();
                assert_eq!(all, targets(n), "{place}");
                for (_, weighted_y, digest) in &of_ranks {
                    assert_eq!((weighted_y, digest), (&of_ranks[0].1, &of_ranks[0].2), "{place}");
                    for (target, found) in weighted_y.iter().enumerate() {
                        let of_row =
                            |row: usize| if row % 13 == 4 { 0.0 } else { y(row, target) * (0.25 + (row % 3) as f64) };
                        let sum = (0..n).map(of_row).fold(0.0, |sum, wy| sum + wy);
                        approx::assert_relative_eq!(*found, sum, max_relative = 1e-12);
                    }
                }
            }
        }
    }
}

#[test]
fn trainings_of_one_target_refuse_several() {
    let refused = |config: TrainConfig| {
        let (config, names) = (config.resolved().unwrap(), TableNames::default());
        let trained =
            train_source(&Communicator::solo(), &mut table(97), &names, &config, &Reading::default(), &mut Silent);
        trained.unwrap_err().to_string()
    };
    let bag = EnsembleConfig { learner: Some(TrainConfig::of(Kind::Linear)), ..EnsembleConfig::default() };
    let bag = TrainConfig { ensemble: Some(Box::new(bag)), ..TrainConfig::of(Kind::Bag) };
    let kinds = [Kind::Linear, Kind::Logistic, Kind::Svm, Kind::Poisson, Kind::Boost, Kind::Forest];
    for config in kinds.map(TrainConfig::of).into_iter().chain([bag]) {
        let kind = config.kind;
        let found = refused(config);
        let expected = "'y': has shape 97 × 3 where one value a row is needed; name a dataset of one column";
        assert_eq!(found, expected, "{}", kind.name());
    }
    let folder = tempfile::tempdir().unwrap();
    let several = inputs(folder.path(), "t.h5", &table(97));
    let trained =
        super::train(&Communicator::solo(), &several, &TrainConfig::of(Kind::Linear).resolved().unwrap(), &mut Silent);
    let found = trained.unwrap_err().to_string();
    assert!(
        found.ends_with("t.h5: 'y': has shape 97 × 3 where one value a row is needed; name a dataset of one column"),
        "{found}"
    );
}

#[test]
fn several_targets_are_measured_by_the_mean_of_what_each_is_measured_by() {
    let folder = tempfile::tempdir().unwrap();
    let n = 9_001;
    let several = inputs(folder.path(), "t.h5", &table(n));
    let model = model(n as u64);
    let found = evaluate(&Communicator::solo(), &model, &several, None).unwrap();
    let (mut sums, names) = (vec![0.0; 3], ["rmse", "mae", "r2"]);
    for target in 0..3 {
        let of_one = table(n).with_target((0..n).map(|row| y(row, target)).collect(), TargetKind::Float).unwrap();
        let of_one = inputs(folder.path(), &format!("{target}.h5"), &of_one);
        let Scores::Linear(linear) = &model.scores else { panic!("linear") };
        let params = linear.params[3 * target..3 * target + 3].to_vec();
        let scores = Scores::Linear(LinearModel { n_scores: 1, params, ..linear.clone() });
        let model = Model { scores, target: TargetCoding::Number, ..model.clone() };
        let measured = evaluate(&Communicator::solo(), &model, &of_one, None).unwrap();
        assert_eq!((measured.rows, measured.weight), (found.rows, found.weight));
        sums.iter_mut().zip(names).for_each(|(sum, name)| *sum += measured.metrics.get(name).unwrap());
        // Tables and models of other numbers of targets.
        let wrong = evaluate(&Communicator::solo(), &model, &several, None).unwrap_err().to_string();
        assert!(wrong.contains("'y': has shape 9001 × 3 where one value a row is needed"), "{wrong}");
    }
    for (name, sum) in names.into_iter().zip(sums) {
        assert_eq!(found.metrics.get(name), Some(sum / 3.0), "{name}");
    }
    for (size, threads) in [(2, 2), (3, 1), (5, 2)] {
        let of_ranks = run_threads(size, threads, |comm| evaluate(comm, &model, &several, None));
        assert!(of_ranks.unwrap().iter().all(|of_rank| *of_rank == found), "{size} ranks");
    }
    let two = MemorySource::from_f32(vec![0.5; 10], 2).unwrap();
    let two =
        inputs(folder.path(), "two.h5", &two.with_targets(vec![1.5; 10], &["a", "b"], TargetKind::Float).unwrap());
    let wrong = evaluate(&Communicator::solo(), &model, &two, None).unwrap_err().to_string();
    assert!(wrong.contains("'y': has 2 values a row but the model was trained on 3; "), "{wrong}");
    let wrong = permutation(&Communicator::solo(), &model, &several, None, 1, 0).unwrap_err().to_string();
    assert!(wrong.starts_with("--permutation: "), "{wrong}");
}

#[test]
fn a_rank_without_rows_measures_several_targets_with_the_others() {
    let (y, weight, scores) = (vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 2.0], vec![1.0, 0.0, 3.0, 1.0]);
    let measured = |comm: &Communicator| {
        let mut pass = |show: &mut Show<'_>| {
            if comm.rank() == 0 {
                show(ScoredRows { y: &y, weight: &weight, scores: &scores, variances: &[] });
            }
            Ok(())
        };
        measure(comm, &Link::new(Kind::Linear, 0).for_targets(2), None, &mut pass)
    };
    for of_rank in run_threads(3, 1, measured).unwrap() {
        // Of the first target all are right; the second is 2 and 3 off.
        assert_eq!(of_rank.metrics.get("mae"), Some((0.0 + 8.0 / 3.0) / 2.0));
        assert_eq!((of_rank.rows, of_rank.weight), (2, 3.0));
    }
}

#[test]
fn several_targets_are_predicted_as_columns_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let n = 101;
    let (model, several) = (model(n as u64), inputs(folder.path(), "t.h5", &table(n)));
    let mut files = Vec::new();
    for size in [1, 3] {
        let config = PredictConfig {
            inputs: several.clone(),
            output: folder.path().join(format!("{size}.h5")),
            rows: None,
            copy: Vec::new(),
            contributions: false,
            leaves: false,
            out_of_bag: false,
            force: false,
        };
        run_threads(size, 1, |comm| predict(comm, &model, &config)).unwrap();
        files.push(std::fs::read(&config.output).unwrap());
    }
    assert!(files[0] == files[1], "bytes of 1 and 3 ranks");
    let reader = Reader::open(&folder.path().join("1.h5")).unwrap();
    assert_eq!(reader.strings("targets").unwrap(), NAMES);
    let Array::F64 { shape, values } = reader.array("prediction").unwrap() else { panic!("float64") };
    assert_eq!(shape, [n, 3]);
    let Scores::Linear(linear) = &model.scores else { panic!("linear") };
    for (i, value) in values.iter().enumerate() {
        let x = |j: usize| f64::from((((2 * (i / 3) + j) * 31 % 1009) as f64 - 500.0) as f32 * 0.01);
        let params = &linear.params[3 * (i % 3)..];
        approx::assert_relative_eq!(*value, params[0] * x(0) + params[1] * x(1) + params[2], epsilon = 1e-4);
    }
}
