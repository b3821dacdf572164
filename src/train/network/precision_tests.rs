//! Products of numbers of 16 bits: the same bits however a job is cut, a step in plain loops, and what is learned.

use super::super::table::testing::{gaussian, table, two_classes};
use super::tests::{config, fit_on, network};
use super::*;
use crate::config::{Activation, MlpConfig, Norm, Precision, Schedule};
use crate::objective::{Logistic, Squared};
use half::bf16;

fn narrow(mlp: MlpConfig) -> MlpConfig {
    MlpConfig { precision: Precision::Bf16, ..mlp }
}

#[test]
fn ranks_and_threads_leave_no_trace_in_sixteen_bits() {
    let base = narrow(MlpConfig { layers: vec![19, 19], ..MlpConfig::default() });
    let normed = MlpConfig { norm: Norm::Batch, residual: true, dropout: 0.2, ..base.clone() };
    let ways = [
        config(Solver::Sgd, base.clone()),
        TrainConfig { l2: 0.01, clip_norm: Some(0.5), average: Some(0.9), ..config(Solver::Adamw, normed.clone()) },
        config(Solver::Sgd, MlpConfig { gradient_bits: 8, ..base.clone() }),
        config(Solver::Sgd, MlpConfig { top_k: Some(0.1), ..base.clone() }),
        config(Solver::Sgd, MlpConfig { powersgd: Some(2), ..base.clone() }),
        TrainConfig { sync: Sync::Every(3), ..config(Solver::Sgd, MlpConfig { norm: Norm::Batch, ..base.clone() }) },
        TrainConfig { sync: Sync::Once, local_after: 1, ..config(Solver::Sgd, base.clone()) },
        // Several segments, and an optimiser that ranks share.
        config(Solver::Sgd, MlpConfig { layers: vec![300, 450, 3], ..base.clone() }),
    ];
    let whole = table(1_009, 5, 4, 7, two_classes);
    for config in &ways {
        let alone = fit_on(1, 1, &whole, &Logistic, config);
        assert!(alone.losses[2] < alone.losses[0], "{config:?} {:?}", alone.losses);
        for (size, threads) in [(1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2), (7, 1), (7, 2)] {
            assert_eq!(fit_on(size, threads, &whole, &Logistic, config), alone, "{size} × {threads}, {config:?}");
        }
        let mlp = MlpConfig { precision: Precision::F32, ..config.mlp.clone().unwrap() };
        let wide = fit_on(1, 2, &whole, &Logistic, &TrainConfig { mlp: Some(mlp), ..config.clone() });
        assert_ne!(wide.params, alone.params);
        for (a, b) in wide.losses.iter().zip(&alone.losses) {
            assert!((a - b).abs() < 0.02 * a, "{config:?}: {:?} and {:?}", wide.losses, alone.losses);
        }
    }
}

fn rounded(x: f64) -> f64 {
    f64::from(bf16::from_f32(x as f32))
}

/// Parameters after one step down the mean gradient, with one hidden layer of tanh: sums in doubles, and what enters a product goes through `round`.
fn plain_step(whole: &Table<'_>, start: &Network, rate: f64, round: fn(f64) -> f64) -> Vec<Vec<f64>> {
    let (rows, d) = (whole.in_memory().unwrap(), whole.n_features);
    let mut tensors: Vec<Vec<f64>> = (0..4).map(|at| start.tensor(at).into_iter().map(f64::from).collect()).collect();
    let before = tensors.clone();
    let n = before[1].len();
    for row in 0..rows.y.len() {
        let x: Vec<f64> = (0..d).map(|j| round(f64::from(dense(rows.rows().row(row))[j]))).collect();
        let sum = |c: usize| (0..d).fold(before[1][c], |sum, j| sum + x[j] * round(before[0][j * n + c]));
        let hidden: Vec<f64> = (0..n).map(|c| libm::tanh(sum(c))).collect();
        let mut out = [(0..n).fold(before[3][0], |sum, c| sum + round(hidden[c]) * round(before[2][c]))];
        Squared.gradients(&[rows.y[row]], &[rows.weight[row]], &mut out);
        let d_out = round(out[0]);
        let step = rate / whole.total_weight;
        tensors[3][0] -= step * d_out;
        for c in 0..n {
            tensors[2][c] -= step * round(hidden[c]) * d_out;
            let d_hidden = round(d_out * round(before[2][c]) * (1.0 - hidden[c] * hidden[c]));
            tensors[1][c] -= step * d_hidden;
            (0..d).for_each(|j| tensors[0][j * n + c] -= step * x[j] * d_hidden);
        }
    }
    tensors
}

fn dense(row: crate::model::Row<'_>) -> &[f32] {
    match row {
        crate::model::Row::Dense(values) => values,
        crate::model::Row::Sparse(..) => panic!("a row of numbers"),
    }
}

#[test]
fn a_step_is_that_of_plain_loops_which_round() {
    let whole = table(203, 5, 1, 7, gaussian);
    let mlp = MlpConfig { layers: vec![9], activation: Activation::Tanh, ..MlpConfig::default() };
    let of = |mlp| TrainConfig {
        global_batch: 203,
        epochs: Some(1),
        momentum: 0.0,
        nesterov: false,
        schedule: Schedule::Constant,
        learning_rate: Some(1.0),
        ..config(Solver::Sgd, mlp)
    };
    for sync in [Sync::Step, Sync::Once] {
        let step = |mlp: &MlpConfig| {
            let config = TrainConfig { sync, ..of(mlp.clone()) };
            let mut end = network(&whole, &Squared, &config);
            let start = end.clone();
            end.set_numbers(&fit_on(1, 1, &whole, &Squared, &config).params);
            (start, end)
        };
        let (start, by_narrow) = step(&narrow(mlp.clone()));
        let (_, by_wide) = step(&mlp);
        let off = |end: &Network, twin: &[Vec<f64>]| {
            let pairs = (0..4).flat_map(|at| end.tensor(at).into_iter().zip(&twin[at]));
            pairs.fold(0.0, |sum: f64, (a, b)| sum + (f64::from(a) - b) * (f64::from(a) - b)).sqrt()
        };
        let (by_rounding, plain) = (plain_step(&whole, &start, 1.0, rounded), plain_step(&whole, &start, 1.0, |x| x));
        assert!(off(&by_wide, &plain) < 2e-6, "{sync:?}: {}", off(&by_wide, &plain));
        // A number that is as near to two of 16 bits goes the other way now and then.
        let (near, far) = (off(&by_narrow, &by_rounding), off(&by_narrow, &plain));
        assert!(near < 0.05 * far && far > 1e-4, "{sync:?}: {near} from the twin, {far} from one that does not round");
    }
}
