//! # train::forest — random forests and extra-trees
//!
//! In:    any dense [`DataSource`] with a target.
//! Out:   a [`Model`] of trees that are averaged, the same on every rank.
//! Talks: yes; growing trees does so in `grow::forest`.
//! Never: how a tree is grown, flags.
//!
//! Every tree sees all rows, whichever rank has them, or (`--scope local`) those of one lane, which one rank has. Source: Breiman, *Random
//! forests*, Machine Learning 2001; Geurts, Ernst, Wehenkel, *Extremely randomized trees*, Machine Learning 2006.

mod goal;
mod out_of_bag;
#[cfg(test)]
mod tests;

pub(crate) use out_of_bag::OutOfBag;

use super::binning::{BinnedRows, Binning, each_bin, groups};
use super::checkpoint::{Items, Keeping, Key};
use super::evaluate::add_fold;
use super::linear_family::{digest, median};
use super::measure::{ScoredRows, Show, measure};
use super::prepare::HeldOut;
use super::score::Link;
use super::{ClassWeight, Model, Observer, Progress, Reading, TrainConfig, TrainReport, memory};
use crate::comm::Communicator;
use crate::config::{BootstrapKind, Criterion, ForestConfig, Scope};
use crate::data::DataSource;
use crate::data::names::TableNames;
use crate::data::partition::{Partition, RowPlan};
use crate::error::{Error, InContext, Result};
use crate::grow::forest::{self as grow, BinRows, Bootstrap, Goal, Grown, Lane, Rows, WAVE_BYTES};
use crate::metric::Metrics;
use crate::model::Scores;
use crate::model::forest::{Forest, ForestTree, Importance};
use goal::{Targets, Weights};
use std::time::Instant;

/// Trains on any table. Collective; the same model on every rank.
pub fn train_source(
    comm: &Communicator,
    source: &mut dyn DataSource,
    names: &TableNames,
    config: &TrainConfig,
    reading: &Reading,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    if source.schema().is_sparse {
        return Err(Error::usage(
            "forest wants a dense table, and this one is sparse; train a model of the linear family, or convert it without --sparse",
        ));
    }
    if source.schema().has_offset {
        return Err(Error::usage("--offset is for poisson only; 'forest' has none"));
    }
    let mut folds: Vec<(String, Vec<f64>)> = Vec::new();
    for fold in 0..config.folds {
        let hold = Some(HeldOut::Fold { fold, folds: config.folds });
        let keeper = watch.keeper().part(&format!("fold-{fold}"));
        let mut quiet = Keeping { observer: &mut super::Silent, keeper };
        let fit = Fit::new(comm, source, config, reading, hold, &mut quiet)?;
        add_fold(&mut folds, &fit.held_out_metrics(comm, reading)?);
    }
    let hold = (config.valid_fraction > 0.0).then_some(HeldOut::Fraction(config.valid_fraction));
    let fit = Fit::new(comm, source, config, reading, hold, watch)?;
    let began = Instant::now();
    if fit.forest.trees.iter().all(|tree| tree.n_leaves() == 1) {
        watch.warning(
            "no split was found in any tree, so that the model predicts the same for every row: all features may be constant or missing, \
             or --min-rows too much for these rows",
        );
    }
    let valid = fit.held_out_metrics(comm, reading)?;
    let oob = if fit.settings.oob { fit.out_of_bag_metrics(comm, reading, watch)? } else { Metrics::new() };
    let measured_s = began.elapsed().as_secs_f64();
    let rows = fit.rows;
    let report = TrainReport {
        rows: rows.n_rows,
        features: rows.preprocess.n_features(),
        read_s: rows.read_s,
        train_s: rows.bin_s + fit.grow_s + measured_s,
        epoch_s: median(&fit.seconds),
        iterations: fit.forest.trees.len() as u64,
        converged: true,
        loss: f64::NAN,
        folds,
        valid,
        oob,
        traffic: comm.traffic(),
        ..TrainReport::default()
    };
    let mut model = Model {
        config: config.clone(),
        names: names.clone(),
        n_rows: rows.n_rows,
        input_digest: rows.input_digest.to_hex(),
        preprocess: rows.preprocess,
        target: rows.target,
        scores: Scores::Forest(fit.forest),
        continued: None,
        history: report.oob.iter().map(|(name, value)| (format!("oob_{name}"), vec![value])).collect(),
        digest: String::new(),
    };
    model.digest = digest(&model)?;
    Ok((model, report))
}

/// A forest and the rows it was grown from.
struct Fit<'c> {
    config: &'c TrainConfig,
    settings: &'c ForestConfig,
    rows: BinnedRows,
    bins: BinRows,
    forest: Forest,
    grow_s: f64,
    /// Of each tree, about.
    seconds: Vec<f64>,
}

impl<'c> Fit<'c> {
    /// Reads, bins, and grows all trees. Collective.
    fn new(
        comm: &Communicator,
        source: &mut dyn DataSource,
        config: &'c TrainConfig,
        reading: &Reading,
        hold: Option<HeldOut>,
        watch: &mut dyn Observer,
    ) -> Result<Fit<'c>> {
        let settings = config.forest.as_ref().ok_or_else(|| Error::internal("a forest without its settings"))?;
        let (rows, bins) = read(comm, source, config, settings, reading, hold)?;
        let began = Instant::now();
        let (forest, seconds) = grow_all(comm, config, settings, &rows, &bins, reading, watch)?;
        Ok(Fit { config, settings, rows, bins, forest, grow_s: began.elapsed().as_secs_f64(), seconds })
    }

    /// Metrics of the rows that were held out. Collective.
    fn held_out_metrics(&self, comm: &Communicator, reading: &Reading) -> Result<Metrics> {
        let Some(held_out) = &self.rows.held_out else { return Ok(Metrics::new()) };
        let all = |_: usize, _: usize| true;
        self.metrics(comm, reading, |row| held_out.get(row), &all)
    }

    /// Metrics of the training rows, each by the trees that did not draw it; rows that all trees drew are left out. Collective.
    fn out_of_bag_metrics(&self, comm: &Communicator, reading: &Reading, watch: &mut dyn Observer) -> Result<Metrics> {
        let out = OutOfBag::new(self.config, self.settings, self.rows.n_rows, &self.forest.numbers);
        let first_row = self.rows.first_row;
        let takes = |tree: usize, row: usize| out.is_out(tree, first_row + row as u64);
        let n_trees = self.forest.trees.len();
        let is_drawn = |row: &usize| self.rows.weight.get(*row) > 0.0 && !(0..n_trees).any(|tree| takes(tree, *row));
        let mut n_drawn = [(0..self.rows.y.len()).filter(is_drawn).count() as u64];
        comm.all_reduce_sum(&mut n_drawn)?;
        if n_drawn[0] > 0 {
            watch
                .warning(&format!("--oob: {} rows were drawn by all {n_trees} trees and are not measured", n_drawn[0]));
        }
        self.metrics(comm, reading, |row| self.rows.weight.get(row), &takes)
    }

    /// Of rows by the trees that `takes` (tree, row) names. Collective.
    fn metrics(
        &self,
        comm: &Communicator,
        reading: &Reading,
        weight_of: impl Fn(usize) -> f64,
        takes: &(impl Fn(usize, usize) -> bool + Sync),
    ) -> Result<Metrics> {
        let rows = &self.rows;
        let k = self.forest.n_scores;
        let mut y = Vec::new();
        let mut pass = |show: &mut Show<'_>| {
            for first in (0..rows.y.len()).step_by(MEASURED_ROWS) {
                let some = first..rows.y.len().min(first + MEASURED_ROWS);
                let mut scores = vec![0.0; some.len() * k];
                score_bins(&self.forest, &self.bins, first, &mut scores, takes);
                let weight: Vec<f64> = some
                    .clone()
                    .zip(scores.chunks_exact(k))
                    .map(|(row, scores)| if scores[0].is_nan() { 0.0 } else { weight_of(row) })
                    .collect();
                scores.iter_mut().filter(|score| score.is_nan()).for_each(|score| *score = 0.0);
                show(ScoredRows { y: rows.y.rows(some, &mut y), weight: &weight, scores: &scores, variances: &[] });
            }
            Ok(())
        };
        let room = reading.max_memory.map(memory::of_measuring);
        Ok(measure(comm, &Link::of_predictions(rows.target.n_classes()), room, &mut pass)?.metrics)
    }
}

/// Rows that are measured together.
const MEASURED_ROWS: usize = 1 << 17;
/// Rows that one task scores.
const TASK_ROWS: usize = 512;

/// Scores of some rows by their bins. Rayon over rows.
fn score_bins(
    forest: &Forest,
    bins: &BinRows,
    first: usize,
    scores: &mut [f64],
    takes: &(impl Fn(usize, usize) -> bool + Sync),
) {
    use rayon::prelude::*;
    let (d, k) = (forest.n_features, forest.n_scores);
    scores.par_chunks_mut(TASK_ROWS * k).enumerate().for_each(|(task, scores)| {
        let first = first + task * TASK_ROWS;
        let mut values = vec![0.0; scores.len() / k * d];
        for (row, values) in values.chunks_exact_mut(d.max(1)).enumerate() {
            bins.values(first + row, values);
        }
        forest.scores_of(&values, scores, |tree, row| takes(tree, first + row));
    });
}

/// Lanes of a forest whose trees see one lane each: as asked for, or as many as there are trees, powers of two up to 64 of at least 256 rows.
pub(super) fn n_lanes(config: &TrainConfig, settings: &ForestConfig, n_rows: u64) -> u64 {
    let most = settings.trees.min(64).min(n_rows / 256).max(1);
    config.lanes.unwrap_or(1 << most.ilog2())
}

pub(super) fn plan_of(config: &TrainConfig, settings: &ForestConfig, n_rows: u64, n_columns: usize) -> RowPlan {
    match settings.scope {
        Scope::Global => RowPlan::full_batch(n_rows, n_columns),
        Scope::Local => RowPlan::lanes(n_rows, n_columns, n_lanes(config, settings, n_rows)),
    }
}

/// Reads and bins the rows of this rank. Collective.
fn read(
    comm: &Communicator,
    source: &mut dyn DataSource,
    config: &TrainConfig,
    settings: &ForestConfig,
    reading: &Reading,
    hold: Option<HeldOut>,
) -> Result<(BinnedRows, BinRows)> {
    let schema = source.schema();
    let plan = plan_of(config, settings, schema.n_rows, schema.columns.len());
    let mut binning = Binning::open(comm, source, config, reading, plan, hold)?;
    binning.find_categories(comm)?;
    let (n_features, n_rows) = (binning.preprocess.n_features(), binning.schema.n_rows);
    let groups = groups(comm, reading, settings.bin_sample, &binning.reader, n_features, n_rows)?;
    let wanted = (settings.max_bins, settings.bin_sample);
    let (labels, features) = binning.sample(comm, wanted, &groups, |_| Ok(()), Ok)?;
    let cells = cell_bytes(settings, n_features, labels.target.n_classes());
    comm.agree(check_memory(reading, labels.n_rows() as u64, n_features, cells))?;
    let mut bins = BinRows::with_room(features, labels.n_rows());
    binning.pass(comm, |batch, blocks, preprocess| {
        let runs: Vec<usize> = blocks.iter().map(std::ops::Range::len).collect();
        let (features, stride) = (bins.features.clone(), bins.stride());
        bins.append(&runs, |number, run| {
            each_bin(&features, batch, &blocks[number], preprocess, |row, j, bin| run[row * stride + j] = bin as u8)
        })
    })?;
    Ok((binning.finish(comm, labels)?, bins))
}

/// Bytes of a row's labels, weights and goal, and of a tree's item of it, at most.
const LABEL_BYTES: u64 = 32;
const ITEM_BYTES: u64 = 24;

/// What rows take whatever is done with them.
fn held_bytes(n_rows: u64, n_features: usize) -> u64 {
    n_rows * (BinRows::bytes_of_row(n_features) as u64 + LABEL_BYTES)
}

/// What all threads count nodes in.
fn cell_bytes(settings: &ForestConfig, n_features: usize, n_classes: usize) -> u64 {
    let words = n_classes.max(2) as u64 + 1;
    let bins = settings.max_features.of(n_features) as u64 * grow::MOST_FOREST_BINS as u64;
    rayon::current_num_threads() as u64 * bins * words * 8
}

/// Errors: the binned rows of this rank do not fit (usage). Not collective.
fn check_memory(reading: &Reading, n_rows: u64, n_features: usize, cells: u64) -> Result<()> {
    let held = held_bytes(n_rows, n_features) + cells;
    let Some(limit) = reading.max_memory else { return memory::check_machine("rows", held + n_rows * ITEM_BYTES) };
    let wanted = held + n_rows * ITEM_BYTES * rayon::current_num_threads() as u64;
    let is_enough =
        |limit: u64| wanted + memory::of_source(limit) + 8 * memory::batch_values(Some(limit)) <= memory::usable(limit);
    match is_enough(limit) {
        true => Ok(()),
        false => Err(Error::usage(format!(
            "{}M are too few: a forest keeps the binned rows of its ranks in memory, and those of this rank, with what its threads count nodes \
             in, want {}M; take more ranks, or train boost",
            limit >> 20,
            memory::least(limit >> 20, |mega_bytes| is_enough(mega_bytes << 20))
        )))
        .for_flag("--max-memory"),
    }
}

/// Trees that are grown together, and bytes of rows that a rank takes from others at a time: free, since they change no bit, but the same on
/// every rank. Collective.
fn trees_at_a_time(
    comm: &Communicator,
    reading: &Reading,
    n_rows: usize,
    n_features: usize,
    cells: u64,
) -> Result<(u64, u64)> {
    let room = match reading.max_memory {
        None => 4 * WAVE_BYTES,
        Some(limit) => memory::usable(limit).saturating_sub(held_bytes(n_rows as u64, n_features) + cells) / 2,
    };
    let trees = (room / (n_rows as u64 * ITEM_BYTES).max(1)).clamp(1, 1 << 20);
    // What travels together is decided by both: they have to be the same on all ranks.
    let mut agreed = [trees as i64, (room / 2).min(WAVE_BYTES) as i64];
    comm.all_reduce_min(&mut agreed)?;
    Ok((agreed[0] as u64, agreed[1] as u64))
}

/// Trees that are grown together at least where state is kept, and how many groups there are then at most.
const TREES_OF_STEP: u64 = 16;
const STEPS_OF_FOREST: u64 = 64;

/// All trees. Collective.
fn grow_all(
    comm: &Communicator,
    config: &TrainConfig,
    settings: &ForestConfig,
    rows: &BinnedRows,
    bins: &BinRows,
    reading: &Reading,
    watch: &mut dyn Observer,
) -> Result<(Forest, Vec<f64>)> {
    let n_classes = rows.target.n_classes();
    let d = bins.features.len();
    let weights = Weights::new(comm, rows, config.seed)?;
    let class: Vec<u16> = match n_classes {
        0 => Vec::new(),
        _ => (0..rows.y.len()).map(|row| rows.y.get(row) as u16).collect(),
    };
    let targets = if n_classes == 0 { Some(Targets::new(comm, rows, &weights)?) } else { None };
    let goal = match &targets {
        Some(targets) => {
            Goal::Numbers { target: &targets.values, zero: targets.zero, unit: targets.unit, range: targets.range }
        }
        None => Goal::Classes { n_classes, is_entropy: settings.criterion == Criterion::Entropy, class: &class },
    };
    let here = Rows {
        bins,
        goal,
        weight: Some(&weights.values),
        are_units: weights.are_units,
        first_row: rows.first_row,
        n_all_rows: rows.n_rows,
    };
    let how = grow::ForestConfig {
        seed: config.seed,
        max_features: settings.max_features.of(d),
        min_rows: settings.min_rows,
        max_depth: (settings.max_depth > 0).then_some(settings.max_depth as usize),
        is_extra: settings.extra,
        bootstrap: bootstrap_of(config, settings),
        is_balanced: config.class_weight == ClassWeight::Bootstrap,
    };
    let scope = match settings.scope {
        Scope::Global => grow::Scope::Global,
        Scope::Local => {
            if let Some(lane) = (0..rows.plan.n_lanes()).find(|lane| rows.plan.lane_rows(*lane).is_empty()) {
                let (n_lanes, n_rows) = (rows.plan.n_lanes(), rows.n_rows);
                return Err(Error::usage(format!("lane {lane} of {n_lanes} gets no rows of {n_rows}; use fewer")))
                    .for_flag("--lanes");
            }
            grow::Scope::Local(lanes(comm, rows))
        }
    };
    let mut forest = Forest {
        n_features: d,
        n_scores: if n_classes > 2 { n_classes } else { 1 },
        has_classes: n_classes > 0,
        categories: bins.features.iter().map(|feature| feature.categories.clone().unwrap_or_default()).collect(),
        trees: Vec::new(),
        numbers: Vec::new(),
        importance: vec![Importance::default(); d],
    };
    let (mut at_a_time, room) = trees_at_a_time(comm, reading, rows.y.len(), d, cell_bytes(settings, d, n_classes))?;
    let mut seconds = Vec::new();
    let mut done = 0;
    let key = Key::new(config, rows.n_rows, &rows.input_digest.to_hex())?;
    let mut session = watch.keeper().open(comm, key, watch)?;
    if let Some((kept, _)) = session.take::<(Forest, Vec<f64>)>(comm, 0..0, 0)? {
        ((forest, seconds), done) = (kept, session.resumed_step());
    }
    if session.is_on() {
        // What is lost at most; trees that are grown together change no bit.
        at_a_time = at_a_time.min(TREES_OF_STEP.max(settings.trees / STEPS_OF_FOREST));
    }
    while done < settings.trees {
        let began = Instant::now();
        let end = session.next_due(done).min(settings.trees).min(done + at_a_time);
        let grown = grow::grow(comm, &here, &how, &scope, done..end, room)?;
        for (number, tree) in (done..end).zip(grown).filter(|(_, tree)| !tree.nodes.is_empty()) {
            add_tree(&mut forest, number, tree);
        }
        seconds.push(began.elapsed().as_secs_f64() / (end - done) as f64);
        done = end;
        watch.progress(&Progress {
            step: done,
            of_steps: settings.trees,
            loss: f64::NAN,
            gradient: None,
            learning_rate: None,
        });
        session.after(comm, done, done == settings.trees, || Ok(((&forest, &seconds), Items::default())))?;
    }
    let n_left_out = settings.trees - forest.trees.len() as u64;
    let why = "had no rows of weight above 0 to grow from: raise --row-sample, or use fewer --lanes";
    match n_left_out {
        0 => {}
        n if n == settings.trees => return Err(Error::data(format!("all {n} trees {why}"))),
        n => watch.warning(&format!("left out: {n} of {} trees {why}", settings.trees)),
    }
    let n = forest.trees.len() as f64;
    forest.importance.iter_mut().for_each(|of| of.gain /= n);
    Ok((forest, seconds))
}

fn bootstrap_of(config: &TrainConfig, settings: &ForestConfig) -> Bootstrap {
    match settings.bootstrap {
        BootstrapKind::None => Bootstrap::none(config.seed),
        _ => Bootstrap::poisson(config.seed, settings.row_sample),
    }
}

/// The rank of every lane, and where its rows are there. Not collective; the same on every rank.
fn lanes(comm: &Communicator, rows: &BinnedRows) -> Vec<Lane> {
    let partition = Partition::new(rows.plan.n_units(), comm.size());
    let of_rank = |rank: usize| {
        let units = partition.units_of(rank);
        let first = rows.plan.rows(units.clone()).start;
        let of_lane = move |lane: u64| {
            let rows = rows.plan.lane_rows(lane);
            Lane { rank, rows: (rows.start - first) as usize..(rows.end - first) as usize }
        };
        units.map(of_lane)
    };
    (0..comm.size()).flat_map(of_rank).collect()
}

/// Appends a tree, and what its splits gained as shares of all that they did.
fn add_tree(forest: &mut Forest, number: u64, grown: Grown) {
    let all: f64 = grown.gains.iter().fold(0.0, |sum, (_, gain)| sum + gain);
    for (feature, gain) in &grown.gains {
        let of = &mut forest.importance[*feature as usize];
        of.gain += if all > 0.0 { gain / all } else { 0.0 };
        of.splits += 1;
    }
    forest.trees.push(ForestTree { nodes: grown.nodes, shares: grown.shares, sets: grown.sets });
    forest.numbers.push(number);
}
