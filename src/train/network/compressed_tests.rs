//! Gradients of which less travels: the same bits on any number of ranks, kept between steps, and as good in the end.

use super::super::Solver;
use super::super::data_parallel::Together;
use super::super::memory::network_bytes;
use super::super::table::testing::{gaussian, table, two_classes};
use super::tests::{config, fit_on};
use super::*;
use crate::config::{MlpConfig, Norm};
use crate::objective::{Logistic, Squared};

/// Shapes of ranks and threads.
const SHAPES: [(usize, usize); 6] = [(1, 2), (2, 1), (2, 2), (3, 2), (5, 1), (5, 2)];

fn same_on_all_shapes(whole: &Table<'_>, objective: &dyn Objective, config: &TrainConfig) {
    let alone = fit_on(1, 1, whole, objective, config);
    assert!(alone.losses[2] < alone.losses[0], "{:?} {:?}", config.mlp, alone.losses);
    for (size, threads) in SHAPES {
        let fit = fit_on(size, threads, whole, objective, config);
        assert_eq!(fit, alone, "{size} × {threads}, {:?}", config.mlp);
    }
}

/// Ways of which each sends some of a small network's gradient.
fn ways() -> [MlpConfig; 6] {
    let base = MlpConfig { layers: vec![19, 19], ..MlpConfig::default() };
    [
        MlpConfig { top_k: Some(0.1), ..base.clone() },
        MlpConfig { top_k: Some(0.03), norm: Norm::Batch, residual: true, dropout: 0.2, ..base.clone() },
        // Several segments and groups.
        MlpConfig { top_k: Some(0.01), layers: vec![300, 450, 3], ..base.clone() },
        MlpConfig { powersgd: Some(2), ..base.clone() },
        MlpConfig { powersgd: Some(3), norm: Norm::Batch, residual: true, dropout: 0.2, ..base.clone() },
        MlpConfig { powersgd: Some(4), layers: vec![300, 450, 3], ..base },
    ]
}

#[test]
fn ranks_and_threads_leave_no_trace_in_what_is_sent() {
    for n_lanes in [1, 4, 5] {
        let whole = table(1_009, 5, n_lanes, 7, two_classes);
        for mlp in ways() {
            let is_large = mlp.layers[0] > 100;
            if is_large && n_lanes != 4 {
                continue;
            }
            let config = TrainConfig { global_batch: 24 * n_lanes, momentum: 0.5, ..config(Solver::Sgd, mlp) };
            same_on_all_shapes(&whole, &Logistic, &config);
            if !is_large {
                let heavy =
                    TrainConfig { l2: 0.01, clip_norm: Some(0.5), average: Some(0.9), solver: Solver::Adam, ..config };
                same_on_all_shapes(&table(503, 5, n_lanes, 7, gaussian), &Squared, &heavy);
            }
        }
    }
}

#[test]
fn what_is_left_goes_into_steps_of_any_weight() {
    let mut whole = table(1_009, 5, 2, 7, two_classes);
    let rows = whole.in_memory_mut();
    let weights = rows.weight.iter_mut().enumerate();
    weights.for_each(|(row, weight)| *weight = [1e-3, 1.0, 30.0, 1e3][row * 7919 % 1009 % 4]);
    whole.total_weight = whole.in_memory_mut().weight.iter().fold(0.0, |sum, weight| sum + weight);
    let last = |change: fn(&mut MlpConfig)| {
        let mut mlp = MlpConfig { layers: vec![100, 100], ..MlpConfig::default() };
        change(&mut mlp);
        let config = TrainConfig { global_batch: 8, epochs: Some(5), ..config(Solver::Sgd, mlp) };
        fit_on(1, 2, &whole, &Logistic, &config).losses[4]
    };
    let wide = last(|_| ());
    let changes: [fn(&mut MlpConfig); 3] =
        [|mlp| mlp.top_k = Some(0.5), |mlp| mlp.top_k = Some(0.1), |mlp| mlp.powersgd = Some(8)];
    for change in changes {
        let less = last(change);
        assert!((less - wide).abs() < 0.3 * wide, "{less}, all: {wide}");
    }
}

#[test]
fn half_of_the_numbers_and_a_third_of_the_ranks_learn_as_all_do() {
    let whole = table(1_009, 5, 4, 7, two_classes);
    let last = |top_k, powersgd| {
        let mlp = MlpConfig { layers: vec![100, 100], top_k, powersgd, ..MlpConfig::default() };
        let config = TrainConfig { global_batch: 32, epochs: Some(8), ..config(Solver::Sgd, mlp) };
        fit_on(1, 2, &whole, &Logistic, &config).losses[7]
    };
    let all = last(None, None);
    for (top_k, powersgd) in [(Some(0.5), None), (None, Some(32))] {
        let less = last(top_k, powersgd);
        assert!((less - all).abs() < 0.03 * all, "{top_k:?} {powersgd:?}: {less}, all: {all}");
    }
}

/// Of a lane: what it has left, and in a checkpoint 16 bytes a number while it is taken up; of the largest numbers also what it sends with their places.
#[test]
fn the_memory_plan_has_what_each_lane_has_left_and_sends() {
    let whole = table(64, 100, 4, 7, gaussian);
    let base = MlpConfig { layers: vec![200, 200], ..MlpConfig::default() };
    let of_lane = |mlp: &MlpConfig| {
        let config = config(Solver::Sgd, mlp.clone());
        let bytes = |lanes| network_bytes(&whole.plan, &(0..lanes), whole.n_features, &config, true);
        (bytes(4) - bytes(3)) as f64
    };
    let ways = [
        (MlpConfig { gradient_bits: 8, ..base.clone() }, 0.0),
        (MlpConfig { top_k: Some(0.01), ..base.clone() }, 0.0),
        (MlpConfig { top_k: Some(0.5), ..base.clone() }, 4.0),
        (MlpConfig { powersgd: Some(4), ..base.clone() }, 0.0),
    ];
    for (mlp, of_sent) in ways {
        let config = config(Solver::Sgd, mlp.clone());
        let course = Course::new(&whole, &config).unwrap();
        let job = Job::new(&whole, &Squared, &config, course, || 0.1).unwrap();
        let step = Step::new(&Communicator::solo(), &job, super::tests::network(&whole, &Squared, &config)).unwrap();
        let used = (20.0 + of_sent) * step.n_of_lane() as f64;
        let planned = of_lane(&mlp) - of_lane(&base);
        assert!((0.98 * used..1.2 * used).contains(&planned), "{mlp:?}: {planned} for {used}");
    }
}
