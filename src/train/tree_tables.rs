//! Tables for tests of trees, with all that is wrong with real ones, and trainings of them.

use super::linear_family::train_source;
use super::score::Scorer;
use super::{Model, Reading, Silent, TrainConfig, TrainReport};
use crate::comm::run_threads;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::{Block, DataSource, TargetKind};
use crate::error::Result;
use crate::rng::{Draws, Stream};

pub(crate) const D: usize = 6;

/// Column 1 has gaps, 2 is constant, 3 a category of numbers, 4 missing altogether, 5 has huge values.
pub(crate) fn features(n: usize) -> Vec<f64> {
    let draws = Draws::new(41, Stream::Synthetic);
    let value = |row: usize, j: usize| match j {
        1 if row % 5 == 2 => f64::NAN,
        2 => 7.0,
        3 if row % 17 == 4 => f64::NAN,
        3 => draws.below(30, row as u64, 3) as f64 * 10.0 - 50.0,
        4 => f64::NAN,
        5 if row % 23 == 1 => 1e300,
        5 if row % 29 == 1 => -1e300,
        _ => draws.normal(row as u64, j as u64),
    };
    (0..n * D).map(|i| value(i / D, i % D)).collect()
}

pub(crate) fn score(x: &[f64], row: usize) -> f64 {
    let x = &x[row * D..(row + 1) * D];
    let of_category = if x[3].is_nan() { 0.5 } else { (x[3] as i64).rem_euclid(70) as f64 / 40.0 - 0.8 };
    let gap = if x[1].is_nan() { 1.0 } else { x[1] };
    x[0] + 0.5 * gap * x[0].signum() + of_category + 0.3 * Draws::new(43, Stream::Synthetic).normal(row as u64, 0)
}

/// Every thirteenth row has no weight, and then a target that is no use.
pub(crate) fn table(n: usize, target: impl Fn(f64) -> f64, kind: TargetKind) -> MemorySource {
    let x = features(n);
    let y = (0..n).map(|row| target(score(&x, row))).collect();
    let weight = (0..n as u64)
        .map(|row| if row % 13 == 3 { 0.0 } else { 0.5 + Draws::new(3, Stream::Synthetic).uniform(row, 0) });
    let table = MemorySource::from_f64(x, D).unwrap().with_target(y, kind).unwrap();
    table.with_weight(weight.collect()).unwrap()
}

pub(crate) fn train(
    size: usize,
    threads: usize,
    table: &MemorySource,
    config: &TrainConfig,
) -> Result<(Model, TrainReport)> {
    train_reading(size, threads, table, config, &Reading::default())
}

pub(crate) fn train_reading(
    size: usize,
    threads: usize,
    table: &MemorySource,
    config: &TrainConfig,
    reading: &Reading,
) -> Result<(Model, TrainReport)> {
    let config = config.resolved()?;
    let all = run_threads(size, threads, |comm| {
        let mut source = table.clone();
        let trained = train_source(comm, &mut source, &TableNames::default(), &config, reading, &mut Silent);
        comm.agree(trained)
    })?;
    assert!(all.iter().all(|(model, _)| *model == all[0].0), "ranks of one world differ");
    Ok(all.into_iter().next().unwrap())
}

pub(crate) fn scores(model: &Model, table: &MemorySource) -> Vec<f64> {
    let mut source = table.clone();
    let mut block = Block::empty();
    source.read(0..source.schema().n_rows, &mut block).unwrap();
    Scorer::new(model, &source, "table").unwrap().scores(&block).unwrap()
}
