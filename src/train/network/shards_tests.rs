//! Ranks that share the optimiser of a network large enough for it.

use super::super::data_parallel::Together;
use super::super::table::testing::{gaussian, table};
use super::step::Step;
use super::tests::{config, fit_on, network};
use super::*;
use crate::comm::{Delay, TrafficOf, run_threads, run_threads_delayed};
use crate::config::MlpConfig;
use crate::objective::Squared;
use crate::train::Silent;
use std::time::Duration;

/// 135 424 parameters in several segments, the first ones of several groups.
fn large() -> MlpConfig {
    MlpConfig { layers: vec![360, 366], ..MlpConfig::default() }
}

#[test]
fn ranks_that_share_the_optimiser_leave_no_trace() {
    let whole = table(211, 5, 4, 7, gaussian);
    let of = |solver| TrainConfig {
        epochs: Some(2),
        global_batch: 64,
        learning_rate: Some(2e-3),
        ..config(solver, large())
    };
    let narrow = |bits| MlpConfig { gradient_bits: bits, ..large() };
    let ways = [
        of(Solver::Sgd),
        TrainConfig { average: Some(0.7), ..of(Solver::Adam) },
        TrainConfig { clip_norm: Some(0.3), l2: 0.01, ..of(Solver::Adamw) },
        TrainConfig { clip_norm: Some(0.3), l2: 0.01, average: Some(0.7), ..of(Solver::Lamb) },
        TrainConfig { mlp: Some(narrow(8)), ..of(Solver::Lars) },
        TrainConfig { mlp: Some(narrow(16)), ..of(Solver::Adagrad) },
    ];
    for config in ways {
        let alone = fit_on(1, 1, &whole, &Squared, &config);
        for (size, threads) in [(2, 2), (3, 1), (5, 1)] {
            assert_eq!(fit_on(size, threads, &whole, &Squared, &config), alone, "{config:?} on {size} × {threads}");
        }
    }
}

#[test]
fn sums_that_hide_behind_the_way_back_are_those_that_ranks_share() {
    let whole = table(211, 5, 4, 7, gaussian);
    let of = |mlp| TrainConfig {
        epochs: Some(2),
        global_batch: 64,
        learning_rate: Some(2e-3),
        mlp: Some(mlp),
        ..config(Solver::Adam, large())
    };
    let delay = Delay { latency: Duration::from_micros(50), seconds_per_byte: 1e-10 };
    for config in [of(large()), of(MlpConfig { gradient_bits: 8, ..large() })] {
        let alone = fit_on(1, 1, &whole, &Squared, &config);
        for size in [2, 3] {
            let fits = run_threads_delayed(size, 2, delay, |comm| {
                let part = whole.of_rank(comm.rank(), size);
                let network = network(&whole, &Squared, &config);
                let mut fit = train(comm, &part, &Squared, &config, &network, Session::default(), &mut Silent)?;
                fit.seconds.clear();
                let scattered = |(kind, of): &(&str, TrafficOf)| *kind == "reduce_scatter" && of.bytes > 0;
                assert!(!comm.traffic().kinds.iter().any(scattered), "parameters could not hide");
                Ok(fit)
            });
            assert!(fits.unwrap().iter().all(|fit| *fit == alone), "{config:?} on {size} ranks");
        }
    }
}

#[test]
fn each_rank_remembers_its_share_and_sends_what_an_all_reduce_does() {
    let whole = table(211, 5, 4, 7, gaussian);
    let config = TrainConfig { epochs: Some(1), global_batch: 64, ..config(Solver::Adam, large()) };
    let n = network(&whole, &Squared, &config).params.len();
    for size in [1, 2, 3, 5] {
        let of_ranks = run_threads(size, 1, |comm| {
            let part = whole.of_rank(comm.rank(), size);
            let course = Course::new(&part, &config)?;
            let job = Job::new(&part, &Squared, &config, course, || 1e-3)?;
            let mut step = Step::new(comm, &job, network(&whole, &Squared, &config))?;
            let mut lanes = Lanes::of(&part, &course, config.seed, 0);
            lanes.enter(comm, &part, 0, 0)?;
            let so_far =
                |name| comm.traffic().kinds.iter().find(|(kind, _)| *kind == name).map_or(0, |(_, of)| of.bytes);
            let names = ["reduce_scatter", "all_gather", "all_reduce"];
            // The first step is sent twice: nothing has told yet how large gradients are.
            step.step(comm, &job, &mut lanes.all, 0, 0, 64.0)?;
            let before = names.map(so_far);
            step.step(comm, &job, &mut lanes.all, 1, 1, 64.0)?;
            let [summed, gathered, small] = [0, 1, 2].map(|at| so_far(names[at]) - before[at]);
            let kept: usize = step.optimizer.state().iter().map(Vec::len).sum();
            Ok((step.optimizer.n_params(), kept, summed + gathered, small))
        })
        .unwrap();
        assert_eq!(of_ranks.iter().map(|(params, ..)| params).sum::<usize>(), n);
        for (params, kept, sent, small) in of_ranks {
            assert!(params.abs_diff(n / size) <= 20_000, "{params} of {n} on one of {size} ranks");
            assert!((2 * params..2 * params + 100).contains(&kept), "{kept} numbers of {params} parameters");
            if size > 1 {
                // What others step goes out as sums, what is stepped here as parameters.
                assert_eq!(sent, 4 * n as u64);
                assert!(small < 1024, "{small} bytes of peaks");
            }
        }
    }
}
