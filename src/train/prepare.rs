//! From a data source to this rank's table in memory: classes and categories agreed, moments exact, rows standardised.
//!
//! Passes over this rank's rows: one for the dictionaries of text columns, if there are any; one for everything
//! else; one more for tables that float32 cannot hold as stored, so that they are standardised from the stored
//! values; and, rarely, up to three more for moments around a better point. The passes (in `gather.rs`) and
//! their results do not depend on ranks: only on the table and the settings.

use super::gather::{Keep, Reader, fill, first_means, gather, moments_around, standardise_in_place};
use super::sparse_scale;
use super::stream::{LabelCoding, Stream};
use super::sums::{Total, sum_blocks};
use super::table::{LocalRows, Table};
use super::{ClassWeight, Kind, Observer, TrainConfig, categories, memory, target};
use crate::comm::Communicator;
use crate::config::{BoostLoss, Categorical};
use crate::data::DataSource;
use crate::data::digest::InputDigest;
use crate::data::moments::{BlockMoments, standardisation};
use crate::data::names::Reading;
use crate::data::partition::{Partition, RowPlan};
use crate::error::{Error, InContext, Result};
use crate::exact::BlockSums;
use crate::exact::scale::{from_order_key, order_key};
use crate::functions::check_denormals;
use crate::model::preprocess::standardised;
use crate::model::{Preprocess, TargetCoding};
use crate::objective::Objective;
use crate::rng::{self, Draws};
use std::time::Instant;

/// Times that moments are taken again around the mean found, at most: each takes it 2⁵⁰ times nearer.
pub(super) const MOST_SHIFTS: usize = 3;

/// A table ready to train on, with what was learned on the way; the same on every rank but for the rows.
pub struct Prepared<'s> {
    pub table: Table<'s>,
    pub preprocess: Preprocess,
    pub target: TargetCoding,
    pub input_digest: InputDigest,
    /// Σw per class, or Σw·y of each target.
    pub weighted_y: Vec<f64>,
    pub read_s: f64,
    /// Moments and standardisation.
    pub prepare_s: f64,
}

/// Rows that are not trained on, chosen by a hash of their global number.
#[derive(Clone, Copy, Debug)]
pub enum HeldOut {
    /// Those whose hash falls on `fold` of `folds`.
    Fold { fold: u64, folds: u64 },
    /// About this share of all rows, from 0 to below 1.
    Fraction(f64),
}

impl HeldOut {
    pub fn holds_out(&self, seed: u64, row: u64) -> bool {
        match *self {
            HeldOut::Fold { fold, folds } => Draws::new(seed, rng::Stream::Fold).below(folds, row, 0) == fold,
            HeldOut::Fraction(fraction) => Draws::new(seed, rng::Stream::Valid).uniform(row, 0) < fraction,
        }
    }
}

/// Lanes and blocks for this table and these settings.
pub fn plan(n_rows: u64, n_columns: usize, config: &TrainConfig) -> RowPlan {
    match config.solver {
        solver if solver.is_mini_batch() => RowPlan::lanes(n_rows, n_columns, config.n_lanes(n_rows)),
        _ => RowPlan::full_batch(n_rows, n_columns),
    }
}

/// Reads, encodes and standardises this rank's rows, or gets ready to do so for every pass. Collective.
pub fn prepare<'s>(
    comm: &Communicator,
    source: &'s mut dyn DataSource,
    config: &TrainConfig,
    reading: &Reading,
    hold: Option<HeldOut>,
    watch: &mut dyn Observer,
) -> Result<Prepared<'s>> {
    prepare_as(comm, source, config, config.categorical(), reading, hold, watch)
}

/// The same with these columns as categories: each is one feature, the place of the row's category from 1 on, or 0 where there is
/// none, or one that training has not seen. Collective.
fn prepare_as<'s>(
    comm: &Communicator,
    source: &'s mut dyn DataSource,
    config: &TrainConfig,
    categorical: Categorical<'_>,
    reading: &Reading,
    hold: Option<HeldOut>,
    watch: &mut dyn Observer,
) -> Result<Prepared<'s>> {
    let schema = source.schema().clone();
    target::check_stored(config.responds_as(), schema.target)?;
    let plan = plan(schema.n_rows, schema.columns.len(), config);
    let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
    let mut preprocess = Preprocess::unfitted(&schema, config.missing);
    categories::mark(&mut preprocess, categorical)?;
    if schema.is_sparse && preprocess.columns.iter().any(|column| column.is_category) {
        let message = "categories cannot be those of a sparse table; store it as a dense one, or leave the flag out";
        return Err(Error::usage(message)).for_flag("--categorical");
    }
    if let Some(bytes) = reading.max_memory {
        source.limit_memory(memory::of_source(bytes));
    }
    let reader = Reader::new(source, plan.blocks(units.clone()), memory::batch_values(reading.max_memory));
    let mut reader = comm.agree(reader)?;

    categories::find(comm, &mut reader, &mut preprocess)?;
    let d = preprocess.n_features();
    let memory = memory::plan(
        comm,
        reading,
        &plan,
        &units,
        reader.source(),
        reader.count,
        &preprocess,
        config,
        hold.is_some(),
        watch.keeper().keeps(),
    )?;
    let keep = match memory.is_streamed {
        true => Keep::Nothing,
        false if schema.is_wide() || schema.is_sparse => Keep::Labels,
        false => Keep::Rows,
    };
    match (memory.is_streamed, &reading.scratch) {
        (true, Some(folder)) => comm.agree(reader.decode_to(folder))?,
        (true, None) if config.solver.is_mini_batch() => watch.warning(
            "the table does not fit into --max-memory: rows in random order are read from disk; --scratch DIR saves decoding \
             the same chunks again and again",
        ),
        _ => {}
    }
    let mut shift = match schema.is_sparse {
        true => Vec::new(),
        false => agree_shift(comm, &mut reader, &plan, &preprocess)?,
    };
    let gathered = gather(&mut reader, &preprocess, &shift, config, hold, keep)
        .and_then(|gathered| check_denormals().map(|()| gathered)); // reading may have loaded a filter plugin
    let mut gathered = comm.agree(gathered)?;
    let target = match schema.n_targets() {
        0 | 1 => target::agree(comm, config.responds_as(), schema.target, &gathered.seen)?,
        _ => TargetCoding::Numbers(schema.target_names.clone()),
    };
    gathered.code_targets(&target);

    let began = Instant::now();
    let mut fitted = match schema.is_sparse {
        true => sparse_scale::fit(comm, &plan, &mut reader, &gathered.ranges, config.seed, hold, &mut preprocess)?,
        false => fit_standardisation(comm, &plan, &gathered.moments, &shift, &mut preprocess)?,
    };
    for _ in 0..MOST_SHIFTS {
        if !fitted.cancels {
            break;
        }
        shift.clone_from(&preprocess.mean);
        let moments = moments_around(&mut reader, &preprocess, &mut gathered, &shift, config, hold, keep);
        gathered.moments = comm.agree(moments)?;
        fitted = fit_standardisation(comm, &plan, &gathered.moments, &shift, &mut preprocess)?;
    }
    if let Some(image) = preprocess.image.filter(|_| config.looks_at_images()) {
        share_scale(&mut preprocess, image.channels);
    }
    warn_of_constants(&preprocess, watch);
    let scales = preprocess.mean.iter().zip(&preprocess.inverse_scale);
    let ends = fitted.min.iter().zip(&fitted.max);
    let peak = ends.zip(scales).map(|((min, max), (mean, scale))| peak_of(*min, *max, *mean, *scale)).collect();
    if keep == Keep::Rows {
        standardise_in_place(&mut gathered.rows.x, &preprocess);
    }
    let mut prepare_s = gathered.moments_s + began.elapsed().as_secs_f64();
    if keep == Keep::Labels {
        let (rows, seconds) = comm.agree(fill(&mut reader, &preprocess))?;
        gathered.rows.x = rows;
        prepare_s += seconds;
    }
    let input_digest = agree_digest(comm, &gathered.digest)?;

    let first_row = plan.rows(units.clone()).start;
    let read_s = reader.read_s;
    let rows = match keep {
        Keep::Rows | Keep::Labels => LocalRows::Memory(gathered.rows),
        Keep::Nothing => {
            let with_offset = schema.has_offset && config.kind == Kind::Poisson;
            let labels =
                LabelCoding { target: target.clone(), class_factor: Vec::new(), hold, seed: config.seed, with_offset };
            let (source, blocks) = reader.into_parts();
            let stream = Stream::new(source, preprocess.clone(), labels, blocks, memory);
            LocalRows::Stream(Box::new(stream))
        }
    };
    let mut table = Table { plan, units, first_row, n_features: d, rows, total_weight: 0.0, peak };
    let mut totals = target::totals(comm, &target, &table)?;
    if config.class_weight == ClassWeight::Balanced && target.n_classes() > 0 {
        table.multiply_weights(target::balancing(totals.0, &totals.1));
        totals = target::totals(comm, &target, &table)?;
    }
    let (total_weight, weighted_y) = totals;
    if total_weight <= 0.0 {
        return Err(Error::data("all rows have weight 0: nothing is left to train on"));
    }
    target::check_scale(comm, &target, &table, total_weight, &weighted_y)?;
    if !matches!(hold, Some(HeldOut::Fold { .. })) {
        target::check_weighted(&target, &weighted_y)?;
    }
    table.total_weight = total_weight;
    Ok(Prepared { table, preprocess, target, input_digest, weighted_y, read_s, prepare_s })
}

/// Collective.
pub(super) fn agree_digest(comm: &Communicator, mine: &InputDigest) -> Result<InputDigest> {
    let digest = comm.all_gather(&mine.words)?;
    let mut all = InputDigest::default();
    for words in digest.values.chunks_exact(4) {
        all.merge(&InputDigest { words: [words[0], words[1], words[2], words[3]] });
    }
    Ok(all)
}

/// Column means of the table's first block: a point near the data, from which moments are taken; 0 where that block
/// has no value of weight > 0. Collective.
fn agree_shift(
    comm: &Communicator,
    reader: &mut Reader<'_>,
    plan: &RowPlan,
    preprocess: &Preprocess,
) -> Result<Vec<f64>> {
    let d = preprocess.n_features();
    let partition = Partition::new(plan.n_units(), comm.size());
    // The first lanes of a short table are empty, and so may be all of a rank.
    let has_rows = |rank: &usize| !plan.rows(partition.units_of(*rank)).is_empty();
    let owner = (0..comm.size()).find(has_rows).unwrap_or(0);
    let local = if comm.rank() == owner { first_means(reader, preprocess) } else { Ok(vec![0.0; d]) };
    let mut shift = comm.agree(local)?;
    comm.broadcast(&mut shift, owner)?;
    Ok(shift)
}

/// What standardising needs to know beyond mean and scale.
pub(super) struct Fitted {
    /// Range of each feature's stored values.
    pub(super) min: Vec<f64>,
    pub(super) max: Vec<f64>,
    /// As in [`Standardisation`](crate::data::moments::Standardisation).
    pub(super) cancels: bool,
}

/// Mean and inverse scale of places of categories: standardised, they begin at 1, and 0 is left to what is missing.
const CATEGORY: (f64, f64) = (-1.0, 1.0);

/// Exact moments over all ranks → mean and scale. Collective.
fn fit_standardisation(
    comm: &Communicator,
    plan: &RowPlan,
    moments: &[BlockMoments],
    shift: &[f64],
    preprocess: &mut Preprocess,
) -> Result<Fitted> {
    let d = shift.len();
    let mut sums = BlockSums::new(3 * d, plan.n_blocks());
    // Order keys: minima first, then negated maxima, so that one MIN serves both.
    let mut keys = vec![order_key(f64::INFINITY); 2 * d];
    for block in moments {
        for j in 0..d {
            keys[j] = keys[j].min(order_key(block.min[j]));
            keys[d + j] = keys[d + j].min(order_key(-block.max[j]));
        }
        sums.push(block.sums.clone());
    }
    comm.all_reduce_min(&mut keys)?;
    let min: Vec<f64> = keys[..d].iter().map(|&k| from_order_key(k)).collect();
    let max: Vec<f64> = keys[d..].iter().map(|&k| -from_order_key(k)).collect();
    let too_large = |j: usize| too_large(preprocess, &min, &max, j);
    let mut total = match sum_blocks(comm, &sums)? {
        Total::Finite(total) => total,
        Total::NonFinite => return Err(too_large(widest(&min, &max))),
    };
    // How categories are spread says nothing: as if there were none.
    let of_categories = preprocess.category_features();
    of_categories.iter().for_each(|(j, _)| total[*j] = 0.0);
    let found = standardisation(&total, &min, &max, shift).map_err(too_large)?;
    let (mut mean, mut inverse_scale) = (found.mean, found.inverse_scale);
    of_categories.iter().for_each(|(j, _)| (mean[*j], inverse_scale[*j]) = CATEGORY);
    preprocess.mean = mean;
    preprocess.inverse_scale = inverse_scale;
    Ok(Fitted { min, max, cancels: found.cancels })
}

/// One mean and deviation for all places of a channel, where convolution sees them alike: with one for each place, a pixel that is nearly always
/// dark would be the loudest of all where it is not.
fn share_scale(preprocess: &mut Preprocess, channels: usize) {
    let (mean, inverse_scale) = (&mut preprocess.mean, &mut preprocess.inverse_scale);
    let places = (mean.len() / channels) as f64;
    for channel in 0..channels {
        let of_channel = (channel..mean.len()).step_by(channels);
        let centre = of_channel.clone().fold(0.0, |sum, j| sum + mean[j]) / places;
        let variance = of_channel.clone().fold(0.0, |sum, j| {
            let (of_place, away) =
                (if inverse_scale[j] > 0.0 { 1.0 / inverse_scale[j] } else { 0.0 }, mean[j] - centre);
            sum + (of_place * of_place + away * away)
        }) / places;
        let inverse = 1.0 / variance.sqrt();
        let inverse = if variance > 0.0 && inverse.is_finite() { inverse } else { 0.0 };
        of_channel.for_each(|j| (mean[j], inverse_scale[j]) = (centre, inverse));
    }
}

/// The largest |standardised value| of a column that spans `min` to `max`; infinite ends: it has no value.
fn peak_of(min: f64, max: f64, mean: f64, inverse_scale: f64) -> f64 {
    let ends = [min, max].map(|x| {
        let x = if x.is_finite() { x } else { mean };
        f64::from(standardised(x, mean, inverse_scale)).abs()
    });
    if ends[0] > ends[1] { ends[0] } else { ends[1] }
}

/// The column that spans most.
pub(super) fn widest(min: &[f64], max: &[f64]) -> usize {
    let span = |j: usize| order_key((max[j] - min[j]).abs());
    (0..min.len()).max_by(|&a, &b| span(a).cmp(&span(b)).then(b.cmp(&a))).unwrap_or(0)
}

pub(super) fn too_large(preprocess: &Preprocess, min: &[f64], max: &[f64], j: usize) -> Error {
    Error::data(format!(
        "column '{}' holds values up to {:e}: too large to standardise in float64; rescale it",
        preprocess.feature_names()[j],
        if max[j] > -min[j] { max[j] } else { min[j] }
    ))
}

fn warn_of_constants(preprocess: &Preprocess, watch: &mut dyn Observer) {
    let names = preprocess.feature_names();
    let scales = names.iter().zip(&preprocess.inverse_scale);
    let constant: Vec<&str> = scales.filter(|(_, scale)| **scale == 0.0).map(|(name, _)| name.as_str()).collect();
    if !constant.is_empty() {
        let (shown, more) = (constant.len().min(5), constant.len().saturating_sub(5));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        watch.warning(&format!("constant or empty columns have weight 0: '{}'{more}", constant[..shown].join("', '")));
    }
}

/// The objective of a kind with these classes.
pub fn objective(kind: Kind, n_classes: usize) -> Box<dyn Objective> {
    use crate::objective::{Logistic, Poisson, Softmax, Squared, SquaredHinge};
    match kind {
        Kind::Linear | Kind::Boost | Kind::Forest | Kind::Mlp => Box::new(Squared),
        Kind::Bag | Kind::Adaboost | Kind::Vote | Kind::Stack => Box::new(Squared),
        Kind::Poisson => Box::new(Poisson),
        Kind::Svm => Box::new(SquaredHinge { n_classes }),
        Kind::Logistic if n_classes == 2 => Box::new(Logistic),
        Kind::Logistic => Box::new(Softmax { n_classes }),
    }
}

/// The objective that settings name: of a network of numbers for targets in units of their deviation.
pub fn objective_of(config: &TrainConfig, target: &TargetCoding) -> Box<dyn Objective> {
    use crate::objective::{Each, Gaussian, Huber, Quantile};
    let n_classes = target.n_classes();
    let Some(mlp) = &config.mlp else { return objective(config.kind, n_classes) };
    let of: Box<dyn Objective> = match mlp.loss {
        BoostLoss::Huber => Box::new(Huber { delta: mlp.alpha() }),
        BoostLoss::Quantile => Box::new(Quantile { alpha: mlp.alpha() }),
        BoostLoss::Gaussian => Box::new(Gaussian::default()),
        _ => objective(config.responds_as(), n_classes),
    };
    match target.n_targets() {
        1 => of,
        n => Box::new(Each { of, n }),
    }
}

/// Scores that fit the targets' totals.
pub fn start_scores(objective: &dyn Objective, prepared: &Prepared<'_>) -> Vec<f64> {
    let weighted_y = match (&prepared.target, prepared.target.n_classes()) {
        (TargetCoding::Number, _) => prepared.weighted_y.clone(),
        (_, 2) => vec![prepared.weighted_y[1]],
        _ => prepared.weighted_y.clone(),
    };
    objective.start_scores(prepared.table.total_weight, &weighted_y)
}

/// Starting parameters: no coefficients, and intercepts that fit the targets' totals.
pub fn start(objective: &dyn Objective, prepared: &Prepared<'_>) -> Vec<f64> {
    let stride = prepared.table.n_features + 1;
    let mut params = vec![0.0; objective.n_scores() * stride];
    let starts = start_scores(objective, prepared);
    for (of_score, start) in params.chunks_exact_mut(stride).zip(starts) {
        of_score[stride - 1] = start;
    }
    params
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
