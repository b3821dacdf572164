//! Lanes that step alone: the bits of any number of ranks, a twin in plain loops, what a meeting costs, and the epochs before.

use super::super::data_parallel::Together;
use super::super::memory::network_bytes;
use super::super::table::testing::{gaussian, table, two_classes};
use super::tests::{config, fit_on, network};
use super::*;
use crate::comm::run_threads;
use crate::config::{Activation, MlpConfig, Norm, Schedule};
use crate::objective::{Logistic, Squared};
use crate::train::Silent;

/// Rows of several weights, every ninth of weight 0.
fn weighted(n_lanes: u64) -> Table<'static> {
    let mut whole = table(1_009, 3, n_lanes, 7, gaussian);
    let weight = |row: usize| if row % 9 == 2 { 0.0 } else { 1.0 + (row % 4) as f64 };
    whole.in_memory_mut().weight.iter_mut().enumerate().for_each(|(row, w)| *w = weight(row));
    whole.total_weight = whole.in_memory().unwrap().weight.iter().sum();
    whole
}

#[test]
fn ranks_and_threads_leave_no_trace() {
    let narrow = MlpConfig { layers: vec![19, 19], ..MlpConfig::default() };
    let normed = MlpConfig { norm: Norm::Batch, residual: true, dropout: 0.2, ..narrow.clone() };
    let of = |solver, mlp: &MlpConfig, sync| TrainConfig { sync, ..config(solver, mlp.clone()) };
    let ways = [
        of(Solver::Sgd, &narrow, Sync::Every(3)),
        TrainConfig {
            l2: 0.01,
            clip_norm: Some(0.5),
            average: Some(0.9),
            ..of(Solver::Adamw, &normed, Sync::Every(5))
        },
        of(Solver::Lamb, &MlpConfig { norm: Norm::Layer, ..narrow.clone() }, Sync::Once),
        TrainConfig { local_after: 1, ..of(Solver::Sgd, &normed, Sync::Every(4)) },
        TrainConfig {
            local_after: 2,
            average: Some(0.5),
            ..of(Solver::Adam, &MlpConfig { gradient_bits: 8, ..narrow.clone() }, Sync::Every(3))
        },
    ];
    for n_lanes in [1, 4, 8] {
        let whole = table(1_009, 5, n_lanes, 7, two_classes);
        for config in &ways {
            let alone = fit_on(1, 1, &whole, &Logistic, config);
            assert!(alone.losses[2] < alone.losses[0], "{config:?} {:?}", alone.losses);
            for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1), (5, 2), (11, 1)] {
                let fit = fit_on(size, threads, &whole, &Logistic, config);
                assert_eq!(fit, alone, "{size} × {threads}, {n_lanes} lanes, {config:?}");
            }
        }
    }
}

/// A tensor that is of two segments: its optimiser, in pieces of both, is taken up by lanes that go on alone.
#[test]
fn lanes_part_from_networks_of_several_segments() {
    let whole = table(64, 300, 4, 7, two_classes);
    for solver in [Solver::Sgd, Solver::Adam] {
        let mlp = MlpConfig { layers: vec![128], ..MlpConfig::default() };
        let config = TrainConfig {
            sync: Sync::Every(2),
            local_after: 1,
            epochs: Some(2),
            global_batch: 16,
            ..config(solver, mlp)
        };
        let alone = fit_on(1, 1, &whole, &Logistic, &config);
        assert_eq!(fit_on(3, 2, &whole, &Logistic, &config), alone, "{solver:?}");
    }
}

/// Several groups of a tensor, and strips of several threads in a lane.
#[test]
fn wide_networks_have_the_same_bits_as_well() {
    let config = TrainConfig {
        sync: Sync::Every(2),
        epochs: Some(1),
        ..config(Solver::Sgd, MlpConfig { layers: vec![300, 450, 3], ..MlpConfig::default() })
    };
    let whole = weighted(2);
    let alone = fit_on(1, 1, &whole, &Squared, &config);
    for (size, threads) in [(1, 3), (2, 2), (3, 1)] {
        assert_eq!(fit_on(size, threads, &whole, &Squared, &config), alone, "{size} × {threads}");
    }
}

#[test]
fn fewer_rows_than_lanes_and_no_weight_at_all_are_legal() {
    for n_rows in [1, 15, 40] {
        let mut whole = table(n_rows, 2, 8, 3, gaussian);
        for (sync, local_after) in [(Sync::Every(2), 0), (Sync::Once, 0), (Sync::Every(1), 1)] {
            let mlp = MlpConfig { layers: vec![5], norm: Norm::Batch, ..MlpConfig::default() };
            let config = TrainConfig { sync, local_after, ..config(Solver::Sgd, mlp) };
            let alone = fit_on(1, 1, &whole, &Squared, &config);
            assert!(alone.params.iter().all(|p| p.is_finite()));
            assert_eq!(fit_on(11, 1, &whole, &Squared, &config), alone, "{n_rows} rows");
            whole.in_memory_mut().weight.fill(0.0);
            let total = std::mem::take(&mut whole.total_weight);
            let fit = fit_on(3, 1, &whole, &Squared, &config);
            assert_eq!(fit.params, network(&whole, &Squared, &config).numbers());
            whole.in_memory_mut().weight.fill(1.0);
            whole.total_weight = total;
        }
    }
}

type Tensors = Vec<Vec<f64>>;

/// A hidden layer of tanh in doubles: every lane row by row, momentum by hand, weighted means.
fn plain_twin(whole: &Table<'_>, config: &TrainConfig, start: &Network, every: usize) -> Tensors {
    let course = Course::new(whole, config).unwrap();
    let mut lanes = Lanes::of(whole, &course, config.seed, 0);
    let (all, d, rate) = (whole.in_memory().unwrap(), whole.n_features, config.learning_rate.unwrap());
    // Weights as (inputs, outputs), biases.
    let tensors: Tensors = (0..4).map(|at| start.tensor(at).into_iter().map(f64::from).collect()).collect();
    let n_hidden = tensors[1].len();
    let mut common = tensors.clone();
    let zeros = |like: &Tensors| -> Tensors { like.iter().map(|of| vec![0.0; of.len()]).collect() };
    let mut own = vec![(tensors.clone(), zeros(&tensors), 0.0); lanes.all.len()];
    let mut steps = 0;
    let mut meet = |own: &mut Vec<(Tensors, Tensors, f64)>| {
        let total: f64 = own.iter().map(|(_, _, weight)| weight).sum();
        for (t, of_tensor) in common.iter_mut().enumerate() {
            for (i, value) in of_tensor.iter_mut().enumerate() {
                *value = own.iter().map(|(params, _, weight)| weight * params[t][i]).sum::<f64>() / total;
            }
        }
        own.iter_mut().for_each(|(params, _, weight)| (*params, *weight) = (common.clone(), 0.0));
        common.clone()
    };
    for epoch in 0..course.epochs {
        lanes.enter(&Communicator::solo(), whole, epoch, 0).unwrap();
        for of_epoch in 0..course.steps_per_epoch as usize {
            for (lane, (params, velocity, taken)) in lanes.all.iter().zip(&mut own) {
                let rows: Vec<usize> = lane.micro_batch(of_epoch).collect();
                let weight: f64 = rows.iter().map(|row| all.weight[*row]).sum();
                let mut grad = zeros(params);
                for row in rows {
                    let x = all.rows().row(row).dense();
                    let before = |h: usize| (0..d).map(|j| f64::from(x[j]) * params[0][j * n_hidden + h]).sum::<f64>();
                    let hidden: Vec<f64> = (0..n_hidden).map(|h| libm::tanh(before(h) + params[1][h])).collect();
                    let score: f64 = params[3][0] + hidden.iter().zip(&params[2]).map(|(h, w)| h * w).sum::<f64>();
                    let slope = all.weight[row] / weight * (score - all.y[row]);
                    grad[3][0] += slope;
                    for h in 0..n_hidden {
                        grad[2][h] += slope * hidden[h];
                        let back = slope * params[2][h] * (1.0 - hidden[h] * hidden[h]);
                        grad[1][h] += back;
                        (0..d).for_each(|j| grad[0][j * n_hidden + h] += back * f64::from(x[j]));
                    }
                }
                for ((params, velocity), grad) in params.iter_mut().zip(velocity).zip(&grad) {
                    for ((param, v), g) in params.iter_mut().zip(velocity).zip(grad) {
                        *v = config.momentum * *v + g;
                        *param -= rate * (g + config.momentum * *v);
                    }
                }
                *taken += weight;
            }
            steps += 1;
            if steps % every == 0 {
                meet(&mut own);
            }
        }
    }
    if steps % every == 0 { own.swap_remove(0).0 } else { meet(&mut own) }
}

#[test]
fn plain_loops_come_to_the_same_parameters() {
    let mlp = MlpConfig { layers: vec![6], activation: Activation::Tanh, ..MlpConfig::default() };
    for (n_lanes, every) in [(1, 4), (4, 3), (8, 5)] {
        let whole = weighted(n_lanes);
        let config = TrainConfig {
            sync: Sync::Every(every),
            learning_rate: Some(0.03),
            schedule: Schedule::Constant,
            ..config(Solver::Sgd, mlp.clone())
        };
        let mut found = network(&whole, &Squared, &config);
        let twin = plain_twin(&whole, &config, &found, every as usize);
        let start = found.clone();
        found.set_numbers(&fit_on(2, 1, &whole, &Squared, &config).params);
        assert!((0..4).all(|at| found.tensor(at) != start.tensor(at)));
        for (at, plain) in twin.iter().enumerate() {
            for (ours, plain) in found.tensor(at).iter().zip(plain) {
                approx::assert_relative_eq!(f64::from(*ours), plain, epsilon = 2e-5, max_relative = 2e-5);
            }
        }
    }
}

#[test]
fn meeting_after_every_step_without_momentum_is_adding_gradients() {
    for (norm, n_lanes) in [(Norm::None, 1), (Norm::None, 8), (Norm::Batch, 1)] {
        let whole = weighted(n_lanes);
        let mlp = MlpConfig { layers: vec![19, 19], norm, ..MlpConfig::default() };
        let of = |sync| TrainConfig { sync, momentum: 0.0, nesterov: false, ..config(Solver::Sgd, mlp.clone()) };
        let [step, apart] = [Sync::Step, Sync::Every(1)].map(|sync| fit_on(2, 1, &whole, &Squared, &of(sync)));
        for (a, b) in step.params.iter().zip(&apart.params) {
            approx::assert_relative_eq!(*a, *b, epsilon = 1e-4, max_relative = 1e-4);
        }
        for (a, b) in step.losses.iter().zip(&apart.losses) {
            approx::assert_relative_eq!(*a, *b, max_relative = 1e-4);
        }
        // It tells: lanes that meet less often come to somewhere else.
        let rare = fit_on(2, 1, &whole, &Squared, &of(Sync::Every(8)));
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4 + 1e-4 * a.abs();
        assert!(n_lanes == 1 || !step.params.iter().zip(&rare.params).all(is_near));
    }
}

/// What one of two ranks gives to all-reduces, in bytes, of a network of so many parameters; epochs of 8 steps.
fn bytes(config: &TrainConfig) -> (f64, f64) {
    let whole = table(1_009, 5, 8, 7, gaussian);
    let of_ranks = run_threads(2, 1, |comm| {
        let (part, start) = (whole.of_rank(comm.rank(), 2), network(&whole, &Squared, config));
        let n_params = start.params.len() as f64;
        train(comm, &part, &Squared, config, &start, Session::default(), &mut Silent)?;
        let (_, of_kind) = comm.traffic().kinds.into_iter().find(|(name, _)| *name == "all_reduce").unwrap();
        Ok((of_kind.bytes as f64, n_params))
    });
    of_ranks.unwrap()[0]
}

#[test]
fn meeting_every_h_steps_costs_an_hth_of_the_bytes() {
    let mlp = MlpConfig { layers: vec![150, 150], ..MlpConfig::default() };
    let of = |sync, local_after| {
        let learning_rate = Some(1e-3);
        let config =
            TrainConfig { epochs: Some(4), sync, local_after, learning_rate, ..config(Solver::Sgd, mlp.clone()) };
        let (bytes, n_params) = bytes(&config);
        bytes / 4.0 / n_params
    };
    // 32 steps: 32 gradients; 32, 4 or 1 averages; of two epochs 16 gradients, then 2 averages.
    for (sync, local_after, times) in [
        (Sync::Step, 0, 32.0),
        (Sync::Every(1), 0, 32.0),
        (Sync::Every(8), 0, 4.0),
        (Sync::Once, 0, 1.0),
        (Sync::Every(8), 2, 18.0),
    ] {
        let found = of(sync, local_after);
        assert!((times..1.08 * times + 0.2).contains(&found), "{sync:?} after {local_after}: {found} and {times}");
    }
}

#[test]
fn lanes_part_after_the_epochs_that_were_said_with_what_the_optimiser_remembers() {
    let mlp = MlpConfig { layers: vec![19, 19], ..MlpConfig::default() };
    let of = |sync, local_after, epochs| TrainConfig {
        sync,
        local_after,
        epochs: Some(epochs),
        schedule: Schedule::Constant,
        ..config(Solver::Adam, mlp.clone())
    };
    let on = |n_lanes, config: &TrainConfig| fit_on(2, 1, &table(1_009, 5, n_lanes, 7, gaussian), &Squared, config);
    let (step, post) = (on(4, &of(Sync::Step, 0, 4)), on(4, &of(Sync::Every(3), 2, 4)));
    assert_eq!(step.losses[..2], post.losses[..2]);
    assert_ne!(step.losses[2], post.losses[2]);
    // What comes of one lane is nearly the same alone or not, unless its moments were lost.
    let (step, post) = (on(1, &of(Sync::Step, 0, 4)), on(1, &of(Sync::Every(3), 2, 4)));
    for (a, b) in step.losses.iter().zip(&post.losses) {
        approx::assert_relative_eq!(*a, *b, max_relative = 1e-4);
    }
    let whole = table(1_009, 5, 1, 7, gaussian);
    let config = of(Sync::Every(3), 2, 4);
    let (comm, course) = (Communicator::solo(), Course::new(&whole, &config).unwrap());
    let job = Job::new(&whole, &Squared, &config, course, || 1e-3).unwrap();
    let mut together = Step::new(&comm, &job, network(&whole, &Squared, &config)).unwrap();
    let mut lanes = Lanes::of(&whole, &course, config.seed, 0);
    lanes.enter(&comm, &whole, 0, 0).unwrap();
    let weight = lanes.all[0].weights[0];
    together.step(&comm, &job, &mut lanes.all, 0, 0, weight).unwrap();
    let mut apart = Apart::part(&together, &job).unwrap();
    let kept: Vec<f64> = together.optimizer.state().concat().into_iter().map(f64::from).collect();
    let n = together.network.params.len();
    let of_lane = apart.of_lane(0);
    assert!(kept.iter().any(|number| *number != 0.0));
    assert_eq!(of_lane[..n], together.network.numbers()[..]);
    assert_eq!(of_lane[n..of_lane.len() - 2], kept[..]);
}

#[test]
fn epochs_together_that_leave_none_apart_are_refused() {
    let whole = table(1_009, 5, 4, 7, gaussian);
    let config = TrainConfig { sync: Sync::Every(3), local_after: 3, ..config(Solver::Sgd, MlpConfig::default()) };
    let start = network(&whole, &Squared, &config);
    let failed = train(&Communicator::solo(), &whole, &Squared, &config, &start, Session::default(), &mut Silent);
    let message = failed.unwrap_err().to_string();
    assert_eq!(
        message,
        "--local-after 3: this training has 3 epochs, so that lanes would never be alone; give fewer, or raise --epochs"
    );
}

#[test]
fn a_lane_that_diverges_is_named_with_its_step_on_every_rank() {
    let whole = table(1_009, 5, 4, 7, gaussian);
    for (sync, norm) in [(Sync::Every(3), Norm::None), (Sync::Once, Norm::None), (Sync::Every(3), Norm::Batch)] {
        let config = TrainConfig {
            sync,
            learning_rate: Some(1e30),
            epochs: Some(40),
            ..config(Solver::Sgd, MlpConfig { layers: vec![19, 19], norm, ..MlpConfig::default() })
        };
        let of_size = |size: usize| {
            let messages = run_threads(size, 1, |comm| {
                let part = whole.of_rank(comm.rank(), size);
                let start = network(&whole, &Squared, &config);
                let failed = train(comm, &part, &Squared, &config, &start, Session::default(), &mut Silent);
                Ok(failed.unwrap_err().to_string())
            });
            let messages = messages.unwrap();
            assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
            messages[0].replace("rank 0: ", "")
        };
        let alone = of_size(1);
        assert!(
            alone.contains("diverged at step") && alone.contains(", lane ") && alone.contains("--learning-rate 5.0e-2"),
            "{alone}"
        );
        for size in [3, 5] {
            let found = of_size(size);
            assert!(found.ends_with(&alone) || alone.ends_with(&found), "{found} and {alone}");
        }
    }
}

/// Of a lane: parameters, gradients and what the optimiser remembers, turned weights behind the first layer, and in a checkpoint 16 bytes a number while it is
/// taken up. Biases and the last layer, a hundredth, are left to what the plan has for the rank.
#[test]
fn the_memory_plan_has_what_each_lane_keeps_for_itself() {
    let whole = table(64, 100, 4, 7, gaussian);
    let mlp = MlpConfig { layers: vec![200, 200], ..MlpConfig::default() };
    let of_lane = |config: &TrainConfig| {
        let bytes = |lanes| network_bytes(&whole.plan, &(0..lanes), whole.n_features, config, true);
        (bytes(4) - bytes(3)) as f64
    };
    for solver in [Solver::Sgd, Solver::Adam, Solver::Adamw, Solver::Lamb, Solver::Lars, Solver::Adagrad] {
        let together = config(solver, mlp.clone());
        let alone = TrainConfig { sync: Sync::Every(3), ..together.clone() };
        let planned = of_lane(&alone) - of_lane(&together);
        let course = Course::new(&whole, &alone).unwrap();
        let job = Job::new(&whole, &Squared, &alone, course, || 0.1).unwrap();
        let network = network(&whole, &Squared, &alone);
        let n_params = network.params.len();
        let n_kept = Apart::new(&job, network).n_of_lane();
        let used = (4 * (n_kept + n_params + 200 * 200) + 16 * n_kept) as f64;
        assert!((0.98 * used..1.2 * used).contains(&planned), "{solver:?}: {planned} for {used}");
    }
}
