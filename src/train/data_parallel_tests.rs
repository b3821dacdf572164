use super::super::table::testing::{Target, counts, gaussian, table, three_classes, two_classes};
use super::super::{Silent, full_batch::FullBatch, lbfgs, warm_start::Start};
use super::*;
use crate::comm::run_threads;
use crate::config::{ScaleRate, WarmUp};
use crate::objective::{Logistic, Poisson, Softmax, Squared, SquaredHinge};
use crate::optim::Schedule;
use crate::train::Solver;

const SOFTMAX: Softmax = Softmax { n_classes: 3 };
const HINGE: SquaredHinge = SquaredHinge { n_classes: 2 };

fn config(solver: Solver, sync: Sync) -> TrainConfig {
    TrainConfig { solver, sync, epochs: Some(3), global_batch: 128, tolerance: 0.0, seed: 5, ..TrainConfig::default() }
}

fn zeros(table: &Table<'_>, objective: &dyn Objective) -> Vec<f64> {
    vec![0.0; objective.n_scores() * (table.n_features + 1)]
}

/// The fit on `size` ranks with `threads` threads each, without times; asserts that all ranks have the same.
fn fit_on(size: usize, threads: usize, whole: &Table<'_>, objective: &dyn Objective, config: &TrainConfig) -> Fit {
    let fits = run_threads(size, threads, |comm| {
        let part = whole.of_rank(comm.rank(), size);
        let mut fit = train(comm, &part, objective, config, zeros(whole, objective), Session::default(), &mut Silent)?;
        fit.seconds.clear();
        Ok(fit)
    })
    .unwrap();
    assert!(fits.iter().all(|fit| *fit == fits[0]));
    fits.into_iter().next().unwrap()
}

#[test]
fn ranks_and_threads_leave_no_trace() {
    let problems: [(&dyn Objective, Target); 5] = [
        (&Logistic, two_classes),
        (&SOFTMAX, three_classes),
        (&Squared, gaussian),
        (&HINGE, two_classes),
        (&Poisson, counts),
    ];
    let ways = [
        config(Solver::Sgd, Sync::Step),
        config(Solver::Adam, Sync::Step),
        config(Solver::Sgd, Sync::Every(5)),
        config(Solver::Adam, Sync::Once),
    ];
    for (objective, target) in problems {
        for n_lanes in [1, 4, 8] {
            let whole = table(1_009, 5, n_lanes, 7, target);
            for config in &ways {
                let alone = fit_on(1, 1, &whole, objective, config);
                assert!(alone.losses[2] < alone.losses[0], "{} {config:?} {:?}", objective.name(), alone.losses);
                for (size, threads) in [(1, 2), (2, 1), (3, 2), (4, 1), (7, 1)] {
                    let fit = fit_on(size, threads, &whole, objective, config);
                    assert_eq!(fit, alone, "{} on {size} × {threads}, {n_lanes} lanes", objective.name());
                }
            }
        }
    }
}

#[test]
fn fewer_rows_than_lanes_and_idle_ranks_are_legal() {
    for n_rows in [1, 15, 40] {
        let whole = table(n_rows, 2, 8, 3, gaussian);
        for sync in [Sync::Step, Sync::Every(2), Sync::Once] {
            let config = config(Solver::Sgd, sync);
            let alone = fit_on(1, 1, &whole, &Squared, &config);
            assert!(alone.params.iter().all(|p| p.is_finite()));
            assert_eq!(fit_on(11, 1, &whole, &Squared, &config), alone, "{n_rows} rows");
        }
    }
}

#[test]
fn a_table_without_weight_changes_nothing() {
    let mut whole = table(200, 2, 4, 3, gaussian);
    whole.in_memory_mut().weight.fill(0.0);
    whole.total_weight = 0.0;
    for sync in [Sync::Step, Sync::Every(2), Sync::Once] {
        let fit = fit_on(2, 1, &whole, &Squared, &config(Solver::Sgd, sync));
        assert_eq!((fit.params, fit.losses), (vec![0.0; 3], vec![0.0; 3]));
    }
}

#[derive(Default)]
struct Listener {
    warnings: Vec<String>,
    steps: Vec<(u64, u64)>,
}
impl Observer for Listener {
    fn progress(&mut self, progress: &Progress) {
        self.steps.push((progress.step, progress.of_steps));
    }
    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_string());
    }
}

#[test]
fn idle_ranks_are_reported_once_by_the_root() {
    let whole = table(1_009, 2, 4, 3, gaussian);
    let config = config(Solver::Sgd, Sync::Step);
    let heard = run_threads(7, 1, |comm| {
        let mut listener = Listener::default();
        train(
            comm,
            &whole.of_rank(comm.rank(), 7),
            &Squared,
            &config,
            zeros(&whole, &Squared),
            Session::default(),
            &mut listener,
        )?;
        Ok(listener)
    })
    .unwrap();
    assert_eq!(heard[0].warnings, ["7 ranks but only 4 lanes: the others stay idle"]);
    assert!(heard[1..].iter().all(|listener| listener.warnings.is_empty()));
    assert_eq!(heard[6].steps, [(8, 24), (16, 24), (24, 24)]);
}

/// The same course in plain doubles: every row of a step in one sum, momentum by hand.
fn plain_twin(whole: &Table<'_>, objective: &dyn Objective, config: &TrainConfig, rate: f64) -> Vec<f64> {
    let course = Course::new(whole, config).unwrap();
    let mut lanes = Lanes::of(whole, &course, config.seed, objective.n_scores());
    let all = whole.in_memory().unwrap();
    let (mut params, d) = (zeros(whole, objective), whole.n_features);
    let mut velocity = params.clone();
    let mut step = 0;
    for epoch in 0..course.epochs {
        assert_eq!(course.pools_per_epoch(), 1);
        lanes.enter(&Communicator::solo(), whole, epoch, 0).unwrap();
        for of_epoch in 0..course.steps_per_epoch as usize {
            let rows: Vec<usize> = lanes.all.iter().flat_map(|lane| lane.micro_batch(of_epoch)).collect();
            let weight: f64 = rows.iter().map(|&row| all.weight[row]).sum();
            let mut grad = vec![0.0; params.len()];
            for row in rows {
                let of_row = all.rows().row(row).dense();
                let x: Vec<f64> = of_row.iter().map(|v| f64::from(*v)).chain([1.0]).collect();
                let score = |params: &[f64]| params.iter().zip(&x).map(|(p, v)| p * v).sum();
                let mut scores: Vec<f64> = params.chunks(d + 1).map(score).collect();
                objective.gradients(&[all.y[row]], &[all.weight[row]], &mut scores);
                for (c, s) in scores.iter().enumerate() {
                    x.iter().enumerate().for_each(|(j, v)| grad[c * (d + 1) + j] += s * v / weight);
                }
            }
            let rate = rate * config.schedule.at(step, course.of_steps, course.steps_per_epoch, 0);
            (0..params.len()).filter(|j| j % (d + 1) < d).for_each(|j| grad[j] += config.l2 * params[j]);
            let length = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
            let shorter = config.clip_norm.map_or(1.0, |most| if length > most { most / length } else { 1.0 });
            for j in 0..params.len() {
                let g = grad[j] * shorter;
                velocity[j] = config.momentum * velocity[j] + g;
                params[j] -= rate * (g + config.momentum * velocity[j]);
            }
            step += 1;
        }
    }
    params
}

#[test]
fn integers_agree_with_plain_doubles() {
    for (objective, target) in
        [(&Logistic as &dyn Objective, two_classes as Target), (&SOFTMAX, three_classes), (&Poisson, counts)]
    {
        let whole = table(1_009, 5, 8, 7, target);
        let config = TrainConfig { learning_rate: Some(0.02), ..config(Solver::Sgd, Sync::Step) };
        let fit = fit_on(2, 1, &whole, objective, &config);
        let clipped = TrainConfig { clip_norm: Some(0.2), ..config.clone() };
        let of_clipped = fit_on(2, 1, &whole, objective, &clipped);
        assert_ne!(fit.params, of_clipped.params, "some gradient is longer");
        for (fit, config) in [(fit, config), (of_clipped, clipped)] {
            for (ours, plain) in fit.params.iter().zip(plain_twin(&whole, objective, &config, 0.02)) {
                // Each sum is rounded at 2^-21 or so of its largest element.
                approx::assert_relative_eq!(*ours, plain, epsilon = 1e-5, max_relative = 1e-5);
            }
        }
    }
}

#[test]
fn other_optimisers_schedules_and_averages_leave_no_trace_of_ranks() {
    let of = |solver, sync| TrainConfig { solver, sync, ..config(solver, sync) };
    let ways = [
        TrainConfig { clip_norm: Some(0.1), average: Some(0.9), ..of(Solver::Adamw, Sync::Step) },
        TrainConfig { schedule: Schedule::OneCycle, ..of(Solver::Lamb, Sync::Step) },
        TrainConfig { warm_up: Some(WarmUp::Steps(5)), ..of(Solver::Lars, Sync::Step) },
        TrainConfig { schedule: Schedule::Step, ..of(Solver::Adagrad, Sync::Step) },
        TrainConfig { average: Some(0.5), clip_norm: Some(1.0), ..of(Solver::Lars, Sync::Every(3)) },
        of(Solver::Lamb, Sync::Once),
        TrainConfig { local_after: 1, average: Some(0.5), ..of(Solver::Adam, Sync::Every(3)) },
        TrainConfig { local_after: 2, ..of(Solver::Sgd, Sync::Once) },
        TrainConfig { average: Some(0.8), beta1: Some(0.5), epsilon: Some(0.1), ..of(Solver::Adam, Sync::Every(7)) },
    ];
    let whole = table(1_009, 5, 4, 7, three_classes);
    for config in ways.map(|config| TrainConfig { weight_decay: Some(0.02), ..config }) {
        let alone = fit_on(1, 1, &whole, &SOFTMAX, &config);
        assert!(alone.losses[2] < alone.losses[0], "{config:?} {:?}", alone.losses);
        for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1)] {
            assert_eq!(fit_on(size, threads, &whole, &SOFTMAX, &config), alone, "{config:?} on {size} × {threads}");
        }
    }
}

#[test]
fn the_model_is_the_average_of_the_parameters_after_each_step() {
    let whole = table(1_009, 5, 4, 7, three_classes);
    let decay = 0.85;
    let plain = TrainConfig { schedule: Schedule::Constant, ..config(Solver::Adam, Sync::Step) };
    let comm = Communicator::solo();
    let start = zeros(&whole, &SOFTMAX);
    let (job, rules, mut lanes) = prepare(&comm, &whole, &SOFTMAX, &plain, &start).unwrap();
    let mut together = EveryStep::new(&job, rules, start);
    let (mut sum, mut weight, mut step) = (vec![0.0; 18], 0.0, 0);
    for epoch in 0..3 {
        lanes.enter(&comm, &whole, epoch, 0).unwrap();
        let n_steps = job.course.steps_per_epoch as usize;
        let weights = step_weights(&comm, &job, &lanes.all, n_steps).unwrap();
        for (of_epoch, &of_step) in weights.iter().enumerate() {
            together.step(&comm, &job, &mut lanes.all, step, of_epoch, of_step).unwrap();
            sum.iter_mut().zip(&together.params).for_each(|(sum, param)| *sum = decay * *sum + param);
            weight = decay * weight + 1.0;
            step += 1;
        }
    }
    let averaged = fit_on(2, 1, &whole, &SOFTMAX, &TrainConfig { average: Some(decay), ..plain.clone() });
    let last = fit_on(2, 1, &whole, &SOFTMAX, &plain);
    assert_eq!(last.params, together.params);
    for (found, sum) in averaged.params.iter().zip(sum) {
        approx::assert_relative_eq!(*found, sum / weight, max_relative = 1e-12);
    }
    // The average looks on: the course and its losses are as they were.
    assert_eq!(averaged.losses, last.losses);
}

#[test]
fn a_scaled_rate_is_that_of_256_rows_times_the_share_and_advice_undoes_it() {
    let whole = table(1_009, 5, 4, 7, gaussian);
    let plain = config(Solver::Sgd, Sync::Step);
    for (scale_rate, factor) in [(ScaleRate::Linear, 0.5), (ScaleRate::Sqrt, 0.5f64.sqrt())] {
        let scaled = TrainConfig { scale_rate: Some(scale_rate), learning_rate: Some(0.02), ..plain.clone() };
        let by_hand = TrainConfig { learning_rate: Some(0.02 * factor), ..plain.clone() };
        assert_eq!(fit_on(1, 1, &whole, &Squared, &scaled), fit_on(1, 1, &whole, &Squared, &by_hand));
    }
    let advised = |scale_rate| {
        let wild = TrainConfig { scale_rate, learning_rate: Some(1e6), ..plain.clone() };
        let (start, whole) = (zeros(&whole, &Poisson), table(1_009, 5, 4, 7, counts));
        let fit = train(&Communicator::solo(), &whole, &Poisson, &wild, start, Session::default(), &mut Silent);
        let text = fit.unwrap_err().to_string();
        let rate = text.strip_suffix(", as without the flag").and_then(|text| text.split(' ').next_back());
        rate.and_then(|rate| rate.parse::<f64>().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    approx::assert_relative_eq!(advised(Some(ScaleRate::Linear)), advised(None) / 0.5, max_relative = 0.1);
}

#[test]
fn defaults_come_near_the_optimum_whatever_the_scale() {
    let big = |score: f64, noise: f64| 1e12 * gaussian(score, noise);
    let small = |score: f64, noise: f64| 1e-30 * gaussian(score, noise);
    let many = |score: f64, noise: f64| libm::floor(1e4 * libm::exp(0.5 * score) + 100.0 * noise);
    let problems: [(&str, &dyn Objective, Target); 9] = [
        ("logistic", &Logistic, two_classes),
        ("softmax", &SOFTMAX, three_classes),
        ("squared", &Squared, gaussian),
        ("squared, 1e12", &Squared, big),
        ("squared, 1e-30", &Squared, small),
        ("hinge", &HINGE, two_classes),
        ("poisson", &Poisson, counts),
        ("poisson, 1e4", &Poisson, many),
        ("logistic, one class rare", &Logistic, |score, noise| f64::from(score + noise > 4.0)),
    ];
    for d in [3, 200] {
        for (name, objective, target) in problems {
            let whole = table(10_007, d, 8, 11, target);
            let shared = TrainConfig { epochs: Some(10), global_batch: 256, tolerance: 0.0, ..Default::default() };
            // As trainers start: the best model without features.
            let mut start = zeros(&whole, objective);
            let mut by_score = vec![0.0; objective.n_scores()];
            let all = whole.in_memory().unwrap();
            for (y, w) in all.y.iter().zip(&all.weight) {
                if by_score.len() == 1 { by_score[0] += w * y } else { by_score[*y as usize] += w }
            }
            for (c, score) in objective.start_scores(whole.total_weight, &by_score).into_iter().enumerate() {
                start[c * (d + 1) + d] = score;
            }
            let comm = Communicator::solo();
            let function = FullBatch::new(&comm, &whole, objective, shared.l2);
            let value = |params: &[f64]| function.evaluate(params).unwrap().unwrap().0;
            let to_the_end = TrainConfig { max_iterations: 300, ..shared.clone() };
            let best =
                value(&lbfgs::solve(&function, &to_the_end, Start::at(start.clone()), &mut Silent).unwrap().params);
            let before = value(&start);
            for (solver, sync) in [
                (Solver::Sgd, Sync::Step),
                (Solver::Adam, Sync::Step),
                (Solver::Adamw, Sync::Step),
                (Solver::Lamb, Sync::Step),
                (Solver::Lars, Sync::Step),
                (Solver::Adagrad, Sync::Step),
                (Solver::Sgd, Sync::Every(5)),
                (Solver::Sgd, Sync::Once),
            ] {
                let config = TrainConfig { solver, sync, ..shared.clone() };
                let fit =
                    train(&comm, &whole, objective, &config, start.clone(), Session::default(), &mut Silent).unwrap();
                let ours = value(&fit.params);
                let left = (ours - best) / (before - best);
                println!("{name:26} d {d:3} {solver:?} {sync:?}: {left:.1e} of the way is left");
                // Where one class is rare, gradients are as rare: ten epochs are too few for any fixed rate.
                let allowed = match (name.contains("rare"), d) {
                    // Lars takes steps of the same length in batches that have no row of it, which are most.
                    (true, _) if solver == Solver::Lars => 1.0,
                    (true, _) => 0.5,
                    (false, 3) => 0.01,
                    (false, _) => 0.25,
                };
                assert!(left < allowed, "{name}, {d} features, {solver:?} {sync:?}: {before} → {ours}, best {best}");
            }
        }
    }
}

#[test]
fn a_short_table_is_passed_often_enough_without_being_told() {
    let problems: [(&dyn Objective, Target); 3] = [(&Logistic, two_classes), (&Squared, gaussian), (&Poisson, counts)];
    for (objective, target) in problems {
        let whole = table(409, 5, 1, 3, target);
        let (comm, shared) = (Communicator::solo(), TrainConfig::default());
        let function = FullBatch::new(&comm, &whole, objective, shared.l2);
        let value = |params: &[f64]| function.evaluate(params).unwrap().unwrap().0;
        let start = zeros(&whole, objective);
        let best = value(&lbfgs::solve(&function, &shared, Start::at(start.clone()), &mut Silent).unwrap().params);
        for solver in [Solver::Sgd, Solver::Adam, Solver::Adamw, Solver::Lamb, Solver::Lars, Solver::Adagrad] {
            let config = TrainConfig { solver, ..shared.clone() };
            let fit = train(&comm, &whole, objective, &config, start.clone(), Session::default(), &mut Silent).unwrap();
            let left = (value(&fit.params) - best) / (value(&start) - best);
            println!("{:8} {solver:?}: {left:.1e} of the way is left", objective.name());
            assert!(left < 0.01, "{solver:?}: {left:e} of the way is left after {} epochs", fit.iterations);
        }
    }
}

#[test]
fn a_sudden_huge_gradient_is_entered_again_with_the_same_bits() {
    let mut whole = table(1_009, 5, 8, 7, gaussian);
    for row in [100, 600, 900] {
        let all = whole.in_memory_mut();
        (all.y[row], all.weight[row]) = (1e4 * row as f64, 1.0);
    }
    let config = config(Solver::Sgd, Sync::Step);
    let on = |size: usize| {
        let results = run_threads(size, 1, |comm| {
            let part = whole.of_rank(comm.rank(), size);
            let start = zeros(&whole, &Squared);
            let (job, rules, mut lanes) = prepare(comm, &part, &Squared, &config, &start)?;
            let mut together = EveryStep::new(&job, rules, start);
            let weights = step_weights(comm, &job, &lanes.all, job.course.steps_per_epoch as usize)?;
            for (of_epoch, &weight) in weights.iter().enumerate() {
                together.step(comm, &job, &mut lanes.all, of_epoch as u64, of_epoch, weight)?;
            }
            Ok((together.redone, together.params))
        });
        results.unwrap().swap_remove(size - 1)
    };
    let alone = on(1);
    assert!((2..8).contains(&alone.0), "the first step and some later one, not all: {}", alone.0);
    for size in [2, 3, 4, 7] {
        assert_eq!(on(size), alone, "{size} ranks");
    }
}

#[test]
fn divergence_is_one_error_on_every_rank() {
    let whole = table(1_009, 5, 8, 7, counts);
    for sync in [Sync::Step, Sync::Every(5), Sync::Once] {
        let config =
            TrainConfig { learning_rate: Some(1e6), schedule: Schedule::Constant, ..config(Solver::Sgd, sync) };
        for size in [1, 3] {
            let messages = run_threads(size, 1, |comm| {
                let part = whole.of_rank(comm.rank(), size);
                let fit =
                    train(comm, &part, &Poisson, &config, zeros(&whole, &Poisson), Session::default(), &mut Silent);
                Ok(fit.unwrap_err().to_string())
            })
            .unwrap();
            assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
            assert!(messages[0].starts_with("training diverged at step "), "{messages:?}");
            assert!(messages[0].contains("the loss is no longer finite; "), "{messages:?}");
            assert!(messages[0].ends_with(", as without the flag"), "a tenth of 1e6 would not do: {messages:?}");
        }
    }
}

#[test]
fn training_stops_once_two_epochs_in_a_row_change_little() {
    let whole = table(1_009, 2, 4, 3, gaussian);
    let config = TrainConfig { epochs: Some(200), tolerance: 1e-3, ..config(Solver::Sgd, Sync::Step) };
    let fit = fit_on(2, 1, &whole, &Squared, &config);
    assert!(fit.converged && fit.iterations < 200);
    let still: Vec<bool> = fit.stop_values.windows(2).map(|pair| pair[0] <= 1e-3 && pair[1] <= 1e-3).collect();
    let (last, before) = still.split_last().unwrap();
    assert!(*last && !before.contains(&true), "{:?}", fit.stop_values);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let whole = table(100, 2, 4, 3, gaussian);
    let message = |config: TrainConfig| {
        let fit =
            train(&Communicator::solo(), &whole, &Squared, &config, vec![0.0; 3], Session::default(), &mut Silent);
        fit.unwrap_err().to_string()
    };
    let base = config(Solver::Sgd, Sync::Step);
    assert!(message(TrainConfig { l1: 0.1, ..base.clone() }).starts_with("--l1 needs a full-batch solver"));
    assert!(message(TrainConfig { sync: Sync::Every(0), ..base.clone() }).starts_with("--sync-every 0"));
    let warm_up = Some(WarmUp::Epochs(3.0));
    assert_eq!(
        message(TrainConfig { warm_up, ..base.clone() }),
        "--warm-up takes 3 steps, but this training has no more than 3; shorten it, or raise --epochs"
    );
    assert!(message(TrainConfig { momentum: 1.0, ..base.clone() }).starts_with("--momentum 1"));
    assert!(message(TrainConfig { global_batch: 3, ..base }).starts_with("--global-batch 3"));
}
