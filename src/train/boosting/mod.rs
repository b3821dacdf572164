//! Gradient boosting: trees on binned rows, each grown on what the ones before it left.
//!
//! Per round and score: gradient pairs → integers at an agreed scale → a tree → leaf values from finer integers → scores. Everything
//! that is added over rows is an integer, so trees are the same for any number of ranks. Source: Friedman, *Greedy function
//! approximation*, Annals of Statistics 2001; Chen and Guestrin, *XGBoost*, KDD 2016, section 2; histograms and leaf-wise growth: Ke
//! et al., *LightGBM*, NIPS 2017; integer pairs: Shi et al., *Quantized training of gradient boosting decision trees*, NeurIPS 2022.

mod bins;
mod categories;
mod constraints;
mod quantiles;
mod rounds;
#[cfg(test)]
mod tests;

use super::linear_family::{digest, median};
use super::measure::{ScoredRows, Show, measure};
use super::prepare::HeldOut;
use super::{Model, Observer, Reading, TrainConfig, TrainReport, memory};
use crate::comm::Communicator;
use crate::config::{BoostConfig, BoostLoss};
use crate::data::DataSource;
use crate::data::names::TableNames;
use crate::error::{Error, Result};
use crate::metric::Metrics;
use crate::model::{Preprocess, Scores};
use crate::objective::PairLoss;
use bins::{BinnedRows, read};
use rounds::Boosting;
use std::time::Instant;

/// Trains on any table. Collective.
pub fn train_source(
    comm: &Communicator,
    source: &mut dyn DataSource,
    names: &TableNames,
    config: &TrainConfig,
    reading: &Reading,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    let boost = config.boost.as_ref().ok_or_else(|| Error::internal("boosting without its settings"))?;
    if source.schema().is_sparse {
        return Err(Error::usage(
            "boost wants a dense table, and this one is sparse; train a model of the linear family, or convert it without --sparse",
        ));
    }
    let mut folds: Vec<(String, Vec<f64>)> = Vec::new();
    for fold in 0..config.folds {
        let hold = Some(HeldOut::Fold { fold, folds: config.folds });
        let (rows, records) = read(comm, source, config, boost, reading, hold)?;
        let done = Boosting::new(comm, &rows, records, config, boost)?.run(&mut super::Silent)?;
        for (name, value) in metrics_of(comm, &rows, config, reading, &done.scores)?.iter() {
            match folds.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => folds.push((name.to_string(), vec![value])),
            }
        }
    }
    let hold = (config.valid_fraction > 0.0).then_some(HeldOut::Fraction(config.valid_fraction));
    let (rows, records) = read(comm, source, config, boost, reading, hold)?;
    let began = Instant::now();
    let done = Boosting::new(comm, &rows, records, config, boost)?.run(watch)?;
    let train_s = began.elapsed().as_secs_f64();
    let valid = match hold {
        Some(_) => metrics_of(comm, &rows, config, reading, &done.scores)?,
        None => Metrics::new(),
    };
    let report = TrainReport {
        rows: rows.n_rows,
        features: rows.preprocess.n_features(),
        read_s: rows.read_s,
        train_s: rows.bin_s + train_s,
        epoch_s: median(&done.seconds),
        iterations: done.boosted.n_rounds() as u64,
        converged: true,
        stop_value: 0.0,
        loss: done.losses.last().copied().unwrap_or(f64::NAN),
        folds,
        valid,
        traffic: comm.traffic(),
        ..TrainReport::default()
    };
    let mut history = vec![("loss".to_string(), done.losses)];
    if !done.valid_losses.is_empty() {
        history.push(("valid_loss".to_string(), done.valid_losses));
    }
    let mut model = Model {
        config: config.clone(),
        names: names.clone(),
        n_rows: rows.n_rows,
        input_digest: rows.input_digest.to_hex(),
        preprocess: Preprocess { mean: Vec::new(), inverse_scale: Vec::new(), ..rows.preprocess },
        target: rows.target,
        scores: Scores::Boosted(done.boosted),
        history,
        digest: String::new(),
    };
    model.digest = digest(&model)?;
    Ok((model, report))
}

/// The loss of these settings and so many classes (0: numbers).
fn loss_of(boost: &BoostConfig, n_classes: usize) -> PairLoss {
    match (boost.loss, n_classes) {
        (BoostLoss::Absolute, _) => PairLoss::Absolute,
        (BoostLoss::Huber, _) => PairLoss::Huber { delta: boost.alpha },
        (BoostLoss::Quantile, _) => PairLoss::Quantile { alpha: boost.alpha },
        (BoostLoss::Poisson, _) => PairLoss::Poisson,
        (BoostLoss::Gamma, _) => PairLoss::Gamma,
        (BoostLoss::Tweedie, _) => PairLoss::Tweedie { power: boost.tweedie_power },
        (_, 0) => PairLoss::Squared,
        (_, 2) => PairLoss::Logistic,
        (_, n_classes) => PairLoss::Softmax { n_classes },
    }
}

/// Metrics of the rows that were held out. Collective.
fn metrics_of(
    comm: &Communicator,
    rows: &BinnedRows,
    config: &TrainConfig,
    reading: &Reading,
    scores: &[f64],
) -> Result<Metrics> {
    let Some(held_out) = &rows.labels.held_out else { return Ok(Metrics::new()) };
    let mut pass = |show: &mut Show<'_>| {
        show(ScoredRows { y: &rows.labels.y, weight: held_out, scores });
        Ok(())
    };
    let room = reading.max_memory.map(memory::of_measuring);
    Ok(measure(comm, config.responds_as(), rows.target.n_classes(), room, &mut pass)?.metrics)
}
