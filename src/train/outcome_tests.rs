//! Trainings whose loss grows and stays finite.

use super::super::linear_family::train_source;
use super::super::test_tables::Heard;
use super::super::{Kind, Reading, Schedule, Solver, Sync, TrainConfig};
use super::*;
use crate::comm::run_threads;
use crate::config::{BoostLoss, MlpConfig};
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::rng::{Draws, Stream};

/// A prime number of rows with a target near `centre`; the last one's target is `far`.
fn table(centre: f64, far: f64) -> MemorySource {
    let draws = Draws::new(17, Stream::Synthetic);
    let x: Vec<f64> = (0..1009 * 2).map(|i| draws.normal(i, 0)).collect();
    let y = |row: &[f64]| centre + row[0] - 0.5 * row[1] * row[1];
    let mut y: Vec<f64> = x.chunks_exact(2).map(y).collect();
    y[1008] += far;
    MemorySource::from_f64(x, 2).unwrap().with_target(y, TargetKind::Float).unwrap()
}

fn network(rate: f64, loss: BoostLoss) -> TrainConfig {
    let mlp = MlpConfig { layers: vec![19], loss, ..MlpConfig::default() };
    let config = TrainConfig {
        solver: Solver::Adam,
        schedule: Schedule::Constant,
        epochs: Some(4),
        ..TrainConfig::of(Kind::Mlp)
    };
    TrainConfig { mlp: Some(mlp), learning_rate: Some(rate), global_batch: 64, lanes: Some(4), ..config }
}

/// The warnings of the root, or the error of every rank, which leave out what ranks there are.
fn told(size: usize, table: &MemorySource, config: &TrainConfig) -> Result<Vec<String>> {
    let config = config.resolved()?;
    let heard = run_threads(size, 2, |comm| {
        let (mut table, mut heard) = (table.clone(), Heard::default());
        let names = TableNames::default();
        let trained = train_source(comm, &mut table, &names, &config, &Reading::default(), &mut heard);
        Ok((trained.map(|_| ()).map_err(|error| error.to_string().replace("rank 0: ", "")), heard.warnings))
    });
    let heard = heard?;
    assert!(heard.iter().all(|of_rank| of_rank.0.is_err() == heard[0].0.is_err()), "{heard:?}");
    match heard.into_iter().next().unwrap() {
        (Ok(()), warnings) => Ok(warnings),
        (Err(error), _) => Err(Error::usage(error)),
    }
}

#[test]
fn a_loss_that_grew_and_is_finite_is_an_error_or_a_warning_on_any_number_of_ranks() {
    let plain = table(0.0, 0.0);
    let linear = TrainConfig { solver: Solver::Sgd, schedule: Schedule::Constant, ..TrainConfig::of(Kind::Linear) };
    let linear = TrainConfig { learning_rate: Some(4.0), epochs: Some(30), ..linear };
    for (name, config) in [
        ("network", network(300.0, BoostLoss::Squared)),
        ("lanes alone", TrainConfig { sync: Sync::Every(3), ..network(300.0, BoostLoss::Squared) }),
        ("linear", linear),
    ] {
        let alone = told(1, &plain, &config).expect_err(name).to_string();
        assert!(
            alone.contains("training went astray: the mean loss") && alone.contains("before the first step"),
            "{name}: {alone}"
        );
        assert!(alone.contains("; try --learning-rate "), "{name}: {alone}");
        for size in [2, 5] {
            let found = told(size, &plain, &config).unwrap_err().to_string();
            assert!(found.contains(&alone), "{name} on {size} ranks: {found}; on one: {alone}");
        }
    }
    let worse = network(3.0, BoostLoss::Squared);
    let alone = told(1, &plain, &worse).unwrap();
    assert!(alone.iter().any(|text| text.starts_with("training has made the model worse: the mean loss")), "{alone:?}");
    assert_eq!(told(3, &plain, &worse).unwrap(), alone);
}

#[test]
fn trainings_that_learn_are_left_alone_whatever_their_losses_are() {
    for (name, table, config) in [
        ("squared", table(0.0, 0.0), network(1e-3, BoostLoss::Squared)),
        ("negative losses", table(0.0, 0.0), network(5e-3, BoostLoss::Gaussian)),
        (
            "nearly 0 at the start: counts around e",
            table(2.7, 0.0).with_target(vec![2.7; 1009], TargetKind::Float).unwrap(),
            network(1e-3, BoostLoss::Poisson),
        ),
        // The first step has not seen it, so that the loss of the epoch is a thousand times that of the step.
        ("a target far away", table(0.0, 1e5), network(1e-3, BoostLoss::Squared)),
        (
            "a target far away, linear",
            table(0.0, 1e5),
            TrainConfig {
                solver: Solver::Sgd,
                epochs: Some(10),
                global_batch: 64,
                lanes: Some(2),
                ..TrainConfig::of(Kind::Linear)
            },
        ),
        (
            "a penalty that is all there is",
            table(0.0, 0.0),
            TrainConfig { l2: 1e3, ..network(1e-4, BoostLoss::Squared) },
        ),
    ] {
        assert_eq!(told(2, &table, &config).unwrap(), Vec::<String>::new(), "{name}");
    }
}
