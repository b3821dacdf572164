//! Networks with batch norms as a whole: the same bits on any number of ranks, rows that do not count, settings that go together.

use super::super::data_parallel::{Job, Together};
use super::super::lanes::{Course, Lanes};
use super::super::linear_family::train_source;
use super::super::table::testing::{gaussian, table};
use super::super::{Kind, Model, Reading, Silent, Solver, TrainConfig};
use super::step::Step;
use crate::comm::{Communicator, run_threads};
use crate::config::{Activation, BoostLoss, MlpConfig, Norm};
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::error::Result;
use crate::model::net::build;
use crate::model::{Network, Scores};
use crate::objective::Squared;
use crate::rng::{Draws, Stream};

/// Two classes of rows of several weights; every ninth has weight 0 and values that `unused` makes.
fn rows(n: usize, unused: impl Fn(usize) -> f64) -> MemorySource {
    let draws = Draws::new(11, Stream::Synthetic);
    let is_unused = |row: usize| row % 9 == 2;
    let x = |i: usize| if is_unused(i / 5) { unused(i) } else { 40.0 + draws.normal(i as u64, 0) };
    let x: Vec<f64> = (0..n * 5).map(x).collect();
    let y = x.chunks_exact(5).map(|row| f64::from((row[0] - 40.0) * (row[1] - 40.0) > 0.3 * (row[4] - 40.0))).collect();
    let weight = (0..n).map(|row| if is_unused(row) { 0.0 } else { 1.0 + (row % 4) as f64 }).collect();
    let table = MemorySource::from_f64(x, 5).unwrap().with_target(y, TargetKind::Integer).unwrap();
    table.with_weight(weight).unwrap()
}

fn config(change: impl FnOnce(&mut MlpConfig)) -> TrainConfig {
    let mut mlp = MlpConfig { layers: vec![13, 13, 70], norm: Norm::Batch, ..MlpConfig::default() };
    change(&mut mlp);
    TrainConfig {
        solver: Solver::Adam,
        learning_rate: Some(3e-3),
        epochs: Some(4),
        global_batch: 60,
        lanes: Some(5),
        mlp: Some(mlp),
        ..TrainConfig::of(Kind::Mlp)
    }
}

fn train(size: usize, threads: usize, streamed: bool, table: &MemorySource, config: &TrainConfig) -> Result<Model> {
    let config = config.resolved()?;
    let models = run_threads(size, threads, |comm| {
        let reading = Reading { streamed, ..Reading::default() };
        let (mut table, names) = (table.clone(), TableNames::default());
        Ok(train_source(comm, &mut table, &names, &config, &reading, &mut Silent)?.0)
    })?;
    assert!(models.iter().all(|model| model.digest == models[0].digest && model.scores == models[0].scores));
    Ok(models.into_iter().next().unwrap())
}

/// Mean loss of a batch of three lanes, and its gradient: a step of SGD of rate 1.
fn loss_and_gradient(network: &Network, config: &TrainConfig) -> (f64, Vec<f64>) {
    let (comm, table) = (Communicator::solo(), table(48, network.n_features, 3, 5, gaussian));
    let course = Course::new(&table, config).unwrap();
    let mut lanes = Lanes::of(&table, &course, 1, 0);
    lanes.enter(&comm, &table, 0, 0).unwrap();
    let job = Job::new(&table, &Squared, config, course, || 1.0).unwrap();
    let mut step = Step::new(&comm, &job, network.clone()).unwrap();
    step.step(&comm, &job, &mut lanes.all, 0, 0, table.total_weight).unwrap();
    let loss = lanes.all.iter().map(|lane| lane.loss).sum::<f64>() / table.total_weight;
    let after = step.finish(&comm, &job).unwrap();
    (loss, network.params.iter().zip(after).map(|(before, after)| f64::from(*before) - after).collect())
}

#[test]
fn gradients_are_differences_of_the_loss_of_the_whole_batch() {
    for residual in [false, true] {
        let mlp =
            MlpConfig { layers: vec![6; 3], activation: Activation::Gelu, residual, ..config(|_| ()).mlp.unwrap() };
        let config = TrainConfig {
            solver: Solver::Sgd,
            learning_rate: Some(1.0),
            momentum: 0.0,
            nesterov: false,
            global_batch: 48,
            lanes: Some(3),
            epochs: Some(1),
            mlp: Some(mlp.clone()),
            ..TrainConfig::of(Kind::Mlp)
        };
        let mut network = build(&mlp, 6, 1);
        network.start(3);
        let (_, gradient) = loss_and_gradient(&network, &config);
        let scale = gradient.iter().fold(0.0f64, |scale, g| scale.max(g.abs()));
        for at in (0..gradient.len()).step_by(5) {
            let moved = |by: f32| {
                let mut network = network.clone();
                network.params[at] += by;
                loss_and_gradient(&network, &config).0
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((gradient[at] - difference).abs() < 2e-3 * scale, "{at}: {} and {difference}", gradient[at]);
        }
    }
}

fn network(model: &Model) -> &Network {
    let Scores::Mlp(network) = &model.scores else { panic!("no network") };
    network
}

#[test]
fn any_number_of_ranks_and_threads_gives_the_same_bits() {
    // A prime: lanes have unequal numbers of rows, and the last batch of an epoch is smaller.
    let table = rows(1009, |_| 0.0);
    let heavy = |config: TrainConfig| TrainConfig { clip_norm: Some(0.5), average: Some(0.9), ..config };
    let stopping = |config: TrainConfig| TrainConfig { valid_fraction: 0.3, early_stop: 1, ..config };
    for (name, config) in [
        ("plain", config(|_| ())),
        ("all", heavy(config(|mlp| (mlp.residual, mlp.dropout) = (true, 0.2)))),
        ("narrow", config(|mlp| mlp.gradient_bits = 8)),
        ("several segments", TrainConfig { epochs: Some(1), ..config(|mlp| mlp.layers = vec![520, 520, 7]) }),
        ("stopping", stopping(config(|mlp| mlp.layers = vec![9]))),
    ] {
        let alone = train(1, 1, false, &table, &config).unwrap();
        let losses = &alone.history[0].1;
        assert!(losses.len() < 2 || losses[losses.len() - 1] < 0.9 * losses[0], "{name}: {losses:?}");
        for (size, threads, streamed) in
            [(1, 2, false), (2, 1, false), (3, 2, true), (4, 1, false), (5, 2, false), (7, 1, false)]
        {
            if name == "several segments" && (size, threads) != (3, 2) {
                continue;
            }
            let model = train(size, threads, streamed, &table, &config).unwrap();
            assert_eq!(model.digest, alone.digest, "{name}: {size} ranks, {threads} threads");
            assert_eq!(model.scores, alone.scores, "{name}: {size} ranks, {threads} threads");
            assert_eq!(model.history, alone.history, "{name}: {size} ranks, {threads} threads");
        }
    }
}

#[test]
fn rows_of_weight_0_are_in_no_moment() {
    let config = config(|_| ());
    let near = train(2, 1, false, &rows(503, |_| 40.0), &config).unwrap();
    let far = train(2, 1, false, &rows(503, |i| -1e9 + i as f64), &config).unwrap();
    assert_eq!(near.preprocess.mean, far.preprocess.mean);
    assert_eq!(network(&near), network(&far));
    assert!(network(&near).running.iter().any(|moment| *moment != 0.0 && *moment != 1.0));
}

#[test]
fn weights_count_by_their_ratios() {
    let config = config(|_| ());
    let table = |factor: f64| {
        let table = rows(503, |_| 40.0);
        let weight = table.block().weight.as_ref().unwrap().iter().map(|w| w * factor).collect();
        table.with_weight(weight).unwrap()
    };
    let [one, tiny, huge] = [1.0, 2f64.powi(-200), 2f64.powi(200)].map(table);
    let one = train(1, 2, false, &one, &config).unwrap();
    for other in [tiny, huge] {
        assert_eq!(network(&train(2, 1, false, &other, &config).unwrap()), network(&one));
    }
}

#[test]
fn a_net_of_numbers_with_batch_norms_predicts_what_it_was_trained_for() {
    let draws = Draws::new(13, Stream::Synthetic);
    let x: Vec<f64> = (0..2003 * 3).map(|i| draws.normal(i as u64, 0)).collect();
    let y: Vec<f64> = x.chunks_exact(3).map(|row| 1e3 + 50.0 * (row[0] + row[1] * row[2])).collect();
    let table = MemorySource::from_f64(x, 3).unwrap().with_target(y, TargetKind::Float).unwrap();
    let config = TrainConfig {
        epochs: Some(40),
        valid_fraction: 0.2,
        ..config(|mlp| (mlp.layers, mlp.loss) = (vec![32, 32], BoostLoss::Squared))
    };
    let config = config.resolved().unwrap();
    let reports = run_threads(2, 1, |comm| {
        let (mut table, names) = (table.clone(), TableNames::default());
        Ok(train_source(comm, &mut table, &names, &config, &Reading::default(), &mut Silent)?.1)
    });
    for report in reports.unwrap() {
        // By the running moments, of rows that were not trained on.
        let r2 = report.valid.get("r2").unwrap();
        assert!(r2 > 0.9, "{r2}");
    }
}

#[test]
fn values_that_are_no_longer_finite_are_found_in_the_step_they_come_from() {
    let config = TrainConfig { solver: Solver::Sgd, learning_rate: Some(1e30), ..config(|_| ()) };
    for (size, lanes) in [(1, 5), (3, 5), (4, 2)] {
        let config = TrainConfig { lanes: Some(lanes), ..config.clone() };
        let text = train(size, 1, false, &rows(503, |_| 0.0), &config).unwrap_err().to_string();
        assert!(text.contains("training diverged at step"), "{text}");
    }
}
