//! Gradient boosting: trees on binned rows, each grown on what the ones before it left.
//!
//! Per round and score: gradient pairs → integers at an agreed scale → a tree → leaf values from finer integers → scores. Everything
//! that is added over rows is an integer, so trees are the same for any number of ranks. Source: Friedman, *Greedy function
//! approximation*, Annals of Statistics 2001; Chen and Guestrin, *XGBoost*, KDD 2016, section 2; histograms and leaf-wise growth: Ke
//! et al., *LightGBM*, NIPS 2017; integer pairs: Shi et al., *Quantized training of gradient boosting decision trees*, NeurIPS 2022.

mod bins;
mod constraints;
mod continued;
mod memory;
mod pairs;
mod quantiles;
mod rounds;
#[cfg(test)]
mod tests;

use super::checkpoint::Keeping;
use super::evaluate::add_fold;
use super::linear_family::{digest, median};
use super::measure::{ScoredRows, Show, measure};
use super::memory::of_measuring;
use super::prepare::HeldOut;
use super::score::Link;
use super::{Model, Observer, Reading, TrainConfig, TrainReport};
use crate::comm::Communicator;
use crate::config::{BoostConfig, BoostLoss};
use crate::data::DataSource;
use crate::data::names::TableNames;
use crate::error::{Error, InContext, Result};
use crate::metric::Metrics;
use crate::model::{Continued, Scores};
use crate::objective::PairLoss;
use bins::{BoostRows, read};
use rounds::Boosting;
use std::time::Instant;

/// What is said of a table with one.
pub(crate) const NO_OFFSET: &str = "--offset is not for boost, whose trees start from one score for all rows; leave it out; for --loss poisson, counts with the \
     logarithm of an exposure as offset are trained on as counts / exposure with --weight exposure, which has the same loss";

/// Trains on any table. Collective.
///
/// `model`: to go on from, if any. The rounds of `config` are then added to its own; see `continued.rs` for what has to agree.
pub fn train_source(
    comm: &Communicator,
    source: &mut dyn DataSource,
    names: &TableNames,
    config: &TrainConfig,
    reading: &Reading,
    model: Option<&Model>,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    let config = &model.map_or_else(|| config.clone(), |model| continued::with_loss_of(model, config));
    let boost = config.boost.as_ref().ok_or_else(|| Error::internal("boosting without its settings"))?;
    if source.schema().is_sparse {
        return Err(Error::usage(
            "boost wants a dense table, and this one is sparse; train a model of the linear family, or convert it without --sparse",
        ));
    }
    let mut folds: Vec<(String, Vec<f64>)> = Vec::new();
    if source.schema().has_offset {
        return Err(Error::usage(NO_OFFSET));
    }
    for fold in 0..config.folds {
        let hold = Some(HeldOut::Fold { fold, folds: config.folds });
        let (mut rows, records) = read(comm, source, config, reading, hold, model, &mut super::Silent)?;
        if rows.base.as_ref().is_some_and(|base| base.has_seen(rows.n_rows, &rows.input_digest.to_hex())) {
            let why = "the model that is continued was trained on these rows, so that none are new to it; cross-validate without --continue";
            return Err(Error::usage(why)).for_flag("--folds");
        }
        let (config, _) = whole(&mut rows, config);
        let boost = config.boost.as_ref().unwrap_or(boost);
        let keeper = watch.keeper().part(&format!("fold-{fold}"));
        let mut quiet = Keeping { observer: &mut super::Silent, keeper };
        let done = Boosting::new(comm, &rows, records, &config, boost)?.run(&mut quiet)?;
        add_fold(&mut folds, &metrics_of(comm, &rows, &config, reading, &done.scores)?);
    }
    let hold = (config.valid_fraction > 0.0).then_some(HeldOut::Fraction(config.valid_fraction));
    let (mut rows, records) = read(comm, source, config, reading, hold, model, watch)?;
    if rows.base.as_ref().is_some_and(|base| base.has_learned_from_held_out(config, &rows)) {
        watch.warning("the model that is continued was trained on rows that --valid-fraction holds out now: they are not new to it");
    }
    let (config, continued) = whole(&mut rows, config);
    let (config, boost) = (&config, config.boost.as_ref().unwrap_or(boost));
    let began = Instant::now();
    let done = Boosting::new(comm, &rows, records, config, boost)?.run(watch)?;
    let train_s = began.elapsed().as_secs_f64();
    if done.boosted.trees.iter().all(|tree| tree.n_leaves() == 1) {
        watch.warning(&without_splits(rows.n_rows, boost));
    }
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
        // Of the rounds that are kept.
        loss: done.losses.iter().take(done.boosted.n_rounds()).next_back().copied().unwrap_or(f64::NAN),
        folds,
        valid,
        traffic: comm.traffic(),
        streamed: done.streamed,
        ..TrainReport::default()
    };
    let mut history = vec![("loss".to_string(), done.losses)];
    if !done.valid_losses.is_empty() {
        history.push(("valid_loss".to_string(), done.valid_losses));
    }
    let rows = rows.into_binned();
    let mut model = Model {
        config: config.clone(),
        names: names.clone(),
        n_rows: rows.n_rows,
        input_digest: rows.input_digest.to_hex(),
        preprocess: rows.preprocess,
        target: rows.target,
        scores: Scores::Boosted(done.boosted),
        continued,
        history,
        digest: String::new(),
    };
    model.digest = digest(&model)?;
    Ok((model, report))
}

/// Why a model predicts the same for every row, as far as that is known. The same on every rank.
fn without_splits(n_rows: u64, boost: &BoostConfig) -> String {
    let why = match boost {
        boost if boost.max_leaves == 1 => "--max-leaves 1 asks for trees of one leaf".to_string(),
        boost if boost.min_rows.saturating_mul(2) > n_rows => {
            format!("--min-rows {} is more than half of the {n_rows} rows; lower it", boost.min_rows)
        }
        boost => format!(
            "all features may be constant or missing, or --min-rows {}, --min-hessian {} or --min-gain {} too much for these rows \
             and weights",
            boost.min_rows, boost.min_hessian, boost.min_gain
        ),
    };
    format!("no split was found in any tree, so that the model predicts the same for every row: {why}")
}

/// The settings of all rounds, and the model that the first come from. Not collective; the same on every rank.
fn whole(rows: &mut BoostRows<'_>, config: &TrainConfig) -> (TrainConfig, Option<Continued>) {
    let (n_rows, input_digest) = (rows.n_rows, rows.input_digest.to_hex());
    rows.base.as_mut().map_or_else(|| (config.clone(), None), |base| base.whole(config, n_rows, &input_digest))
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

/// Rows that are measured together.
const MEASURED_ROWS: usize = 1 << 18;

/// Metrics of the rows that were held out. Collective.
fn metrics_of(
    comm: &Communicator,
    rows: &BoostRows<'_>,
    config: &TrainConfig,
    reading: &Reading,
    scores: &[f64],
) -> Result<Metrics> {
    let Some(held_out) = &rows.held_out else { return Ok(Metrics::new()) };
    let k = scores.len() / rows.y.len().max(1);
    let (mut y, mut weight) = (Vec::new(), Vec::new());
    let mut pass = |show: &mut Show<'_>| {
        for first in (0..rows.y.len()).step_by(MEASURED_ROWS) {
            let some = first..rows.y.len().min(first + MEASURED_ROWS);
            let scores = &scores[some.start * k..some.end * k];
            show(ScoredRows {
                y: rows.y.rows(some.clone(), &mut y),
                weight: held_out.rows(some, &mut weight),
                scores,
                variances: &[],
            });
        }
        Ok(())
    };
    let room = reading.max_memory.map(of_measuring);
    Ok(measure(comm, &Link::new(config.responds_as(), rows.target.n_classes()), room, &mut pass)?.metrics)
}
