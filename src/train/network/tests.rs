use super::super::table::testing::{gaussian, table, two_classes};
use super::super::{Silent, table::testing::Target};
use super::*;
use crate::comm::run_threads;
use crate::config::{Kind, MlpConfig, Norm, Schedule};
use crate::model::net::build;
use crate::objective::{Logistic, Squared};

pub(super) fn config(solver: Solver, mlp: MlpConfig) -> TrainConfig {
    TrainConfig {
        solver,
        epochs: Some(3),
        global_batch: 128,
        tolerance: 0.0,
        seed: 5,
        mlp: Some(mlp),
        ..TrainConfig::of(Kind::Mlp)
    }
}

pub(super) fn network(whole: &Table<'_>, objective: &dyn Objective, config: &TrainConfig) -> Network {
    let mut network = build(config.mlp.as_ref().unwrap(), whole.n_features, objective.n_scores());
    network.start(config.seed);
    network
}

/// The fit on `size` ranks with `threads` threads each, without times; asserts that all ranks have the same.
pub(super) fn fit_on(
    size: usize,
    threads: usize,
    whole: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
) -> Fit {
    let fits = run_threads(size, threads, |comm| {
        let part = whole.of_rank(comm.rank(), size);
        let network = network(whole, objective, config);
        let mut fit = train(comm, &part, objective, config, &network, Session::default(), &mut Silent)?;
        fit.seconds.clear();
        Ok(fit)
    })
    .unwrap();
    assert!(fits.iter().all(|fit| *fit == fits[0]));
    fits.into_iter().next().unwrap()
}

#[test]
fn ranks_and_threads_leave_no_trace() {
    let narrow = MlpConfig { layers: vec![19, 19], ..MlpConfig::default() };
    let normed = MlpConfig { norm: Norm::Layer, residual: true, dropout: 0.2, ..narrow.clone() };
    let problems: [(&dyn Objective, Target); 2] = [(&Logistic, two_classes), (&Squared, gaussian)];
    for (objective, target) in problems {
        for n_lanes in [1, 4, 8] {
            let whole = table(1_009, 5, n_lanes, 7, target);
            let ways = [
                config(Solver::Sgd, narrow.clone()),
                config(Solver::Adamw, normed.clone()),
                TrainConfig {
                    l2: 0.01,
                    clip_norm: Some(0.5),
                    average: Some(0.9),
                    ..config(Solver::Lamb, narrow.clone())
                },
                config(Solver::Sgd, MlpConfig { gradient_bits: 8, ..narrow.clone() }),
                // Several segments, so that sums are on their way while others are made.
                config(Solver::Sgd, MlpConfig { layers: vec![300, 450, 3], ..narrow.clone() }),
            ];
            for config in &ways[..if n_lanes == 4 && objective.n_scores() == 1 { 5 } else { 4 }] {
                let alone = fit_on(1, 1, &whole, objective, config);
                assert!(alone.losses[2] < alone.losses[0], "{} {config:?} {:?}", objective.name(), alone.losses);
                for (size, threads) in [(1, 2), (3, 2), (7, 1)] {
                    let fit = fit_on(size, threads, &whole, objective, config);
                    assert_eq!(fit, alone, "{} on {size} × {threads}, {n_lanes} lanes", objective.name());
                }
            }
        }
    }
}

/// The same bits as on one lane would not be asked for: the number of lanes is a setting. But the fit is nearly that of float sums.
#[test]
fn lanes_change_sums_by_their_rounding_only() {
    let of = |n_lanes, norm| {
        let whole = table(512, 5, n_lanes, 7, gaussian);
        // All rows in every step, so that lanes are all that differs.
        let config = TrainConfig {
            global_batch: 512,
            epochs: Some(20),
            schedule: Schedule::Constant,
            ..config(Solver::Sgd, MlpConfig { norm, ..MlpConfig::default() })
        };
        fit_on(1, 2, &whole, &Squared, &config)
    };
    for norm in [Norm::None, Norm::Batch] {
        let (one, eight) = (of(1, norm), of(8, norm));
        for (a, b) in one.losses.iter().zip(&eight.losses) {
            approx::assert_relative_eq!(*a, *b, max_relative = 1e-4);
        }
    }
}

#[test]
fn weights_of_rows_count_as_copies_of_them() {
    let mut whole = table(256, 4, 1, 3, two_classes);
    let rows = whole.in_memory_mut();
    rows.weight.iter_mut().enumerate().for_each(|(row, weight)| *weight = if row % 2 == 0 { 1024.0 } else { 0.0 });
    whole.total_weight = 128.0 * 1024.0;
    let config = TrainConfig { global_batch: 256, ..config(Solver::Sgd, MlpConfig::default()) };
    let heavy = fit_on(1, 1, &whole, &Logistic, &config);
    let rows = whole.in_memory_mut();
    rows.weight.iter_mut().for_each(|weight| *weight /= 1024.0);
    whole.total_weight /= 1024.0;
    let light = fit_on(1, 1, &whole, &Logistic, &config);
    assert_eq!(heavy.params, light.params);
}

/// What a lane has left goes into steps that weigh a thousandth or a thousand times as much.
#[test]
fn few_bits_learn_from_steps_of_any_weight() {
    let mut whole = table(1_009, 5, 2, 7, two_classes);
    let rows = whole.in_memory_mut();
    rows.weight
        .iter_mut()
        .enumerate()
        .for_each(|(row, weight)| *weight = [1e-3, 1.0, 30.0, 1e3][row * 7919 % 1009 % 4]);
    whole.total_weight = whole.in_memory_mut().weight.iter().fold(0.0, |sum, weight| sum + weight);
    let last = |bits| {
        let mlp = MlpConfig { gradient_bits: bits, ..MlpConfig::default() };
        let config = TrainConfig { global_batch: 8, epochs: Some(5), ..config(Solver::Sgd, mlp) };
        fit_on(1, 2, &whole, &Logistic, &config).losses[4]
    };
    let wide = last(32);
    for bits in [16, 8] {
        let narrow = last(bits);
        assert!((narrow - wide).abs() < 0.3 * wide, "{bits} bits: {narrow}, 32 bits: {wide}");
    }
}

#[test]
fn a_rate_that_diverges_is_named_with_the_step_on_every_rank() {
    let whole = table(1_009, 5, 4, 7, gaussian);
    let config = TrainConfig {
        learning_rate: Some(1e6),
        epochs: Some(40),
        ..config(Solver::Sgd, MlpConfig { layers: vec![19, 19], ..MlpConfig::default() })
    };
    let messages = run_threads(3, 1, |comm| {
        let part = whole.of_rank(comm.rank(), 3);
        let network = network(&whole, &Squared, &config);
        let failed = train(comm, &part, &Squared, &config, &network, Session::default(), &mut Silent);
        Ok(failed.unwrap_err().to_string())
    })
    .unwrap();
    for message in &messages {
        assert!(
            message.contains("diverged at step")
                && message.ends_with("try --learning-rate 5.0e-2, as without the flag"),
            "{message}"
        );
    }
    assert_eq!(messages[0], messages[2]);
}

/// At the first step there is no telling: what is the more likely comes first.
#[test]
fn a_first_step_to_infinity_names_a_wild_rate_before_the_data() {
    let mut whole = table(512, 5, 4, 7, gaussian);
    let told = |whole: &Table<'_>, learning_rate, sync| {
        // One step an epoch, after which parameters are looked at.
        let config =
            TrainConfig { global_batch: 512, learning_rate, sync, ..config(Solver::Sgd, MlpConfig::default()) };
        let start = network(whole, &Squared, &config);
        let solo = Communicator::solo();
        let failed = train(&solo, whole, &Squared, &config, &start, Session::default(), &mut Silent);
        let message = failed.unwrap_err().to_string();
        let (diverged, advice) = message.split_once("no longer finite; ").unwrap();
        assert!(diverged.contains("diverged at step 1 "), "{message}");
        advice.to_string()
    };
    for sync in [Sync::Step, Sync::Once, Sync::Every(3)] {
        let advice = told(&whole, Some(1e300), sync);
        assert!(advice.starts_with("try --learning-rate 5.0e-2, as without the flag; if "), "{sync:?}: {advice}");
        assert!(advice.contains("look for targets"), "{sync:?}: {advice}");
    }
    whole.in_memory_mut().y[3] = 1e300;
    for sync in [Sync::Step, Sync::Once, Sync::Every(3)] {
        for rate in [None, Some(0.05)] {
            let advice = told(&whole, rate, sync);
            assert!(advice.starts_with("look for targets"), "{sync:?}: {advice}");
            assert!(advice.ends_with("try --learning-rate 5.0e-3"), "{sync:?}: {advice}");
        }
    }
}
