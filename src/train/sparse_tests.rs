//! Sparse tables against the same rows held densely, and on other numbers of ranks.

use super::checkpoint::Session;
use super::linear_family::train_source;
use super::prepare::{HeldOut, prepare};
use super::score::Scorer;
use super::table::{LocalRows, RowBuffer, Table};
use super::{Inputs, Kind, Missing, Model, Reading, Silent, Solver, TrainConfig};
use crate::comm::{Communicator, run_threads};
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::{Block, DataSource, TargetKind};
use crate::error::Result;
use crate::model::Features;
use crate::objective::Logistic;
use crate::rng::{Draws, Stream};
use crate::train::full_batch::FullBatch;

/// `n` rows of `d` columns, three in four values 0: column 1 empty, column 2 the same in every row, row 5 full, every eleventh row
/// empty but for that; column 3 large and narrow. Weights of which some are 0.
fn table(n: usize, d: usize) -> MemorySource {
    let draws = Draws::new(31, Stream::Synthetic);
    let value = |row: usize, j: usize| {
        let (at, column) = (row as u64, j as u64);
        match j {
            1 => 0.0,
            2 => 7.0,
            3 => 1e6 + draws.normal(at, column),
            _ if row == 5 => 1.0 + column as f64,
            _ if row.is_multiple_of(11) || draws.below(4, at, 1000 + column) > 0 => 0.0,
            _ => draws.normal(at, column) * (1.0 + column as f64),
        }
    };
    let x: Vec<f64> = (0..n * d).map(|i| value(i / d, i % d)).collect();
    let score = |row: usize| x[row * d] - 0.3 * x[row * d + 4] + draws.normal(row as u64, 5000);
    let y = (0..n).map(|row| f64::from(score(row) > 0.1)).collect();
    let weight = (0..n).map(|row| if row % 13 == 3 { 0.0 } else { 0.5 + draws.uniform(row as u64, 6000) }).collect();
    let table = MemorySource::from_f64(x, d).unwrap();
    table.with_target(y, TargetKind::Integer).unwrap().with_weight(weight).unwrap()
}

fn train(comm: &Communicator, table: &MemorySource, config: &TrainConfig, streamed: bool) -> Result<Model> {
    let reading = Reading { streamed, ..Reading::default() };
    let mut source = table.clone();
    train_source(comm, &mut source, &TableNames::default(), config, &reading, &mut Silent).map(|(model, _)| model)
}

fn of(kind: Kind, solver: Solver) -> TrainConfig {
    let config =
        TrainConfig { kind, solver, max_iterations: 30, epochs: Some(3), global_batch: 128, ..TrainConfig::default() };
    config.resolved().unwrap()
}

fn every_solver() -> Vec<TrainConfig> {
    let mini_batch = [Solver::Sgd, Solver::Adam, Solver::Adamw, Solver::Lamb, Solver::Lars, Solver::Adagrad];
    let full = [Solver::Lbfgs, Solver::Newton].into_iter();
    let logistic = full.chain(mini_batch).map(|solver| of(Kind::Logistic, solver));
    let linear = [Solver::Auto, Solver::Cholesky, Solver::Qr, Solver::Sgd].map(|solver| of(Kind::Linear, solver));
    let lasso = [Solver::Lbfgs, Solver::Cd].map(|solver| TrainConfig { l1: 0.01, ..of(Kind::Linear, solver) });
    let svm = TrainConfig { valid_fraction: 0.2, ..of(Kind::Svm, Solver::Lbfgs) };
    logistic.into_iter().chain(linear).chain(lasso).chain([svm]).collect()
}

/// The prepared table with every 0 in its place.
fn spread<'t>(sparse: Table<'_>) -> Table<'t> {
    let (d, LocalRows::Memory(rows)) = (sparse.n_features, sparse.rows) else { panic!("streamed") };
    let mut x = vec![0.0f32; rows.y.len() * d];
    for (i, row) in x.chunks_exact_mut(d).enumerate() {
        rows.x.row(i, d).each(|j, value| row[j] = value as f32);
    }
    let rows = LocalRows::Memory(RowBuffer { x: Features::Dense(x), ..rows });
    let Table { plan, units, first_row, n_features, total_weight, peak, .. } = sparse;
    Table { plan, units, first_row, n_features, rows, total_weight, peak }
}

#[test]
fn value_and_gradient_are_those_of_the_same_rows_held_densely() {
    let comm = Communicator::solo();
    let config = of(Kind::Logistic, Solver::Lbfgs);
    let prepared = |source: &mut MemorySource| {
        let prepared = prepare(&comm, source, &config, &Reading::default(), None, &mut Silent).unwrap();
        (prepared.preprocess, prepared.table.peak.clone(), spread(prepared.table))
    };
    let mut source = table(1_009, 7).into_sparse();
    let (preprocess, peak, dense) = prepared(&mut source);
    let mut again = table(1_009, 7).into_sparse();
    let sparse = prepare(&comm, &mut again, &config, &Reading::default(), None, &mut Silent).unwrap();
    assert!(sparse.table.is_sparse() && !dense.is_sparse());
    // Scales as plain loops find them; no centre; the constant and the empty column have no weight.
    let block = table(1_009, 7).block().clone();
    let (crate::data::Values::F64(x), Some(w)) = (&block.values, &block.weight) else { panic!() };
    let total: f64 = w.iter().sum();
    for j in 0..7 {
        let mean = (0..1_009).map(|i| w[i] * x[i * 7 + j]).sum::<f64>() / total;
        let variance = (0..1_009).map(|i| w[i] * (x[i * 7 + j] - mean).powi(2)).sum::<f64>() / total;
        let wanted = if j == 1 || j == 2 { 0.0 } else { 1.0 / variance.sqrt() };
        approx::assert_relative_eq!(preprocess.inverse_scale[j], wanted, max_relative = 1e-9);
        assert_eq!(preprocess.mean[j], 0.0);
        let largest = (0..1_009).filter(|i| w[*i] > 0.0).map(|i| (x[i * 7 + j] * wanted).abs()).fold(0.0, f64::max);
        approx::assert_relative_eq!(peak[j], largest, max_relative = 1e-6);
    }
    let [of_dense, of_sparse] = [&dense, &sparse.table].map(|table| FullBatch::new(&comm, table, &Logistic, 0.1));
    for scale in [0.0, 1e-7, 0.3, 50.0, 1e-3] {
        let params: Vec<f64> = (0..8).map(|j| scale * (f64::from(j) - 3.5) * if j == 3 { 1e-6 } else { 1.0 }).collect();
        let (dense, sparse) = (of_dense.evaluate(&params).unwrap(), of_sparse.evaluate(&params).unwrap());
        let ((a, dense), (b, sparse)) = (dense.unwrap(), sparse.unwrap());
        approx::assert_relative_eq!(a, b, max_relative = 1e-15);
        for (a, b) in dense.iter().zip(&sparse) {
            approx::assert_relative_eq!(a, b, max_relative = 1e-15);
        }
    }
}

#[test]
fn every_solver_has_the_same_bits_on_any_ranks_and_threads_and_streamed() {
    let table = table(1_009, 7).into_sparse();
    for config in every_solver() {
        let name = format!("{} {}", config.kind.name(), config.solver.name());
        let alone = train(&Communicator::solo(), &table, &config, false).unwrap();
        assert!(alone.scores.linear().unwrap().params.iter().filter(|p| **p != 0.0).count() > 2, "{name}");
        assert_eq!(
            (alone.scores.linear().unwrap().params[1], alone.scores.linear().unwrap().params[2]),
            (0.0, 0.0),
            "{name}: columns without weight"
        );
        for (size, threads) in [(1, 2), (2, 1), (3, 2), (7, 1), (40, 1)] {
            for streamed in [false, true] {
                let models = run_threads(size, threads, |comm| train(comm, &table, &config, streamed)).unwrap();
                for model in models {
                    assert_eq!(model.digest, alone.digest, "{name}, {size} ranks, {threads} threads, {streamed}");
                    assert_eq!(model.scores, alone.scores, "{name}, {size} ranks");
                }
            }
        }
    }
}

#[test]
fn every_solver_finds_what_it_finds_in_the_same_rows_held_densely() {
    let comm = Communicator::solo();
    for config in [of(Kind::Logistic, Solver::Newton), of(Kind::Linear, Solver::Cholesky), of(Kind::Linear, Solver::Qr)]
    {
        let mut source = table(517, 7).into_sparse();
        let held = HeldOut::Fraction(0.3);
        let prepared = prepare(&comm, &mut source, &config, &Reading::default(), Some(held), &mut Silent).unwrap();
        let objective = super::prepare::objective(config.kind, prepared.target.n_classes());
        let start = vec![0.0; 8];
        let solve = |table: &Table<'_>| match config.solver {
            Solver::Newton => super::newton::solve(
                &comm,
                table,
                objective.as_ref(),
                &config,
                start.clone(),
                &mut Session::default(),
                &mut Silent,
            ),
            Solver::Qr => super::tsqr::solve(&comm, table, objective.as_ref(), &config, start.clone(), &mut Silent),
            _ => super::least_squares::solve(&comm, table, objective.as_ref(), &config, start.clone(), &mut Silent),
        };
        let of_sparse = solve(&prepared.table).unwrap();
        let of_dense = solve(&spread(prepared.table)).unwrap();
        for (sparse, dense) in of_sparse.params.iter().zip(&of_dense.params) {
            approx::assert_relative_eq!(sparse, dense, max_relative = 1e-12);
        }
    }
}

#[test]
fn a_stored_zero_leaves_no_trace() {
    // As float32 the least number is 0 too.
    let small = |x: f64| {
        let source = MemorySource::from_f64(vec![1.0, 0.0, 0.0, 2.0, 3.0, x], 2).unwrap();
        let table = source.with_target(vec![0.0, 1.0, 0.0], TargetKind::Integer).unwrap().into_sparse();
        train(&Communicator::solo(), &table, &of(Kind::Logistic, Solver::Lbfgs), false).unwrap().input_digest
    };
    assert_eq!(small(0.0), small(1e-300));
    assert_ne!(small(0.0), small(1e-30));
}

fn scores(model: &Model, source: &MemorySource) -> Vec<u64> {
    let mut source = source.clone();
    let n_rows = source.schema().n_rows;
    let mut block = Block::empty();
    source.read(0..n_rows, &mut block).unwrap();
    let scorer = Scorer::new(model, &source, "t").unwrap();
    scorer.scores(&block).unwrap().into_iter().map(f64::to_bits).collect()
}

#[test]
fn models_of_sparse_rows_predict_dense_ones_and_the_other_way_round() {
    let (dense, sparse) = (table(700, 7), table(700, 7).into_sparse());
    for trained_on in [&dense, &sparse] {
        let model = train(&Communicator::solo(), trained_on, &of(Kind::Logistic, Solver::Lbfgs), false).unwrap();
        assert_eq!(scores(&model, &dense), scores(&model, &sparse));
        assert!(scores(&model, &dense).iter().any(|s| *s != scores(&model, &dense)[0]));
    }
}

#[test]
fn missing_values_are_zero_on_demand_and_else_refused_by_place() {
    let of_missing = |missing| TrainConfig { missing, ..of(Kind::Logistic, Solver::Lbfgs) };
    let with = |x: f64| {
        let source = MemorySource::from_f64(vec![1.0, 0.0, 0.0, x, 3.0, 1.0], 2).unwrap();
        source.with_target(vec![0.0, 1.0, 0.0], TargetKind::Integer).unwrap().into_sparse()
    };
    let train = |table: &MemorySource, missing| train(&Communicator::solo(), table, &of_missing(missing), false);
    let zero = train(&with(0.0), Missing::Zero).unwrap();
    assert_eq!(train(&with(f64::NAN), Missing::Zero).unwrap().scores, zero.scores);
    for missing in [Missing::Mean, Missing::Error] {
        let message = train(&with(f64::NAN), missing).unwrap_err().to_string();
        let wanted = "row 1 has no value (NaN) in column 'X[1]'; choose --missing zero, the only way for sparse tables";
        assert_eq!(message, wanted);
    }
}

#[test]
fn a_table_that_does_not_fit_is_read_for_every_pass_and_says_what_it_needs() {
    let table = table(1_009, 7).into_sparse();
    let config = of(Kind::Logistic, Solver::Lbfgs);
    let inputs = Inputs { reading: Reading { max_memory: Some(1 << 10), ..Reading::default() }, ..Inputs::default() };
    let mut source = table.clone();
    let refused =
        train_source(&Communicator::solo(), &mut source, &TableNames::default(), &config, &inputs.reading, &mut Silent);
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("--max-memory: 0M are too few for this table and solver"), "{message}");
}
