//! # train::binning — from a data source to a rank's binned rows
//!
//! In:    any [`DataSource`], how many bins are wanted.
//! Out:   the ends of bins, the same on every rank; [`BinnedRows`]: labels, and what a visitor makes of the values.
//! Talks: yes: categories, classes, a sample of values, sums of weights.
//! Never: trees, losses, what rows become once they are binned.

mod column;
mod sample;

pub(super) use column::Column;

use super::gather::{Gathered, Reader, digest_of, keep_labels};
use super::prepare::{HeldOut, agree_digest};
use super::table::{LocalRows, Table};
use super::{ClassWeight, Reading, TrainConfig, categories, memory, target};
use crate::comm::Communicator;
use crate::data::binned::FeatureBins;
use crate::data::digest::InputDigest;
use crate::data::partition::{Partition, RowPlan};
use crate::data::{Block, DataSource, Schema};
use crate::error::{Error, Result};
use crate::functions::check_denormals;
use crate::model::{Preprocess, TargetCoding};
use sample::Sampled;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// What is known of a rank's rows; all but the rows is the same on every rank.
pub(super) struct BinnedRows {
    pub(super) plan: RowPlan,
    /// Blocks of rows here, by local number.
    pub(super) blocks: Vec<Range<usize>>,
    /// Global number of the first row here.
    pub(super) first_row: u64,
    /// Of the whole table.
    pub(super) n_rows: u64,
    pub(super) y: Column,
    /// 0 for rows that are held out, and for these apart.
    pub(super) weight: Column,
    pub(super) held_out: Option<Column>,
    pub(super) preprocess: Preprocess,
    pub(super) target: TargetCoding,
    /// Σw over all ranks, and Σw of every class or Σw·y.
    pub(super) total_weight: f64,
    pub(super) weighted_y: Vec<f64>,
    pub(super) input_digest: InputDigest,
    pub(super) read_s: f64,
    /// Of sampling, ends of bins, and bin numbers.
    pub(super) bin_s: f64,
}

/// A table whose values are being binned.
pub(super) struct Binning<'s, 'c> {
    pub(super) reader: Reader<'s>,
    pub(super) preprocess: Preprocess,
    pub(super) schema: Schema,
    config: &'c TrainConfig,
    hold: Option<HeldOut>,
    plan: RowPlan,
    units: Range<u64>,
    bin_s: f64,
}

impl<'s, 'c> Binning<'s, 'c> {
    /// Columns are marked as categories or not; nothing is read yet. Collective.
    ///
    /// * `plan`: how rows are dealt to ranks.
    pub(super) fn open(
        comm: &Communicator,
        source: &'s mut dyn DataSource,
        config: &'c TrainConfig,
        reading: &Reading,
        plan: RowPlan,
        hold: Option<HeldOut>,
    ) -> Result<Binning<'s, 'c>> {
        let schema = source.schema().clone();
        target::check_stored(config.responds_as(), schema.target)?;
        let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
        let mut preprocess = Preprocess::unfitted(&schema, config.missing);
        if let Some(bytes) = reading.max_memory {
            source.limit_memory(memory::of_source(bytes));
        }
        let reader = Reader::new(source, plan.blocks(units.clone()), memory::batch_values(reading.max_memory));
        let reader = comm.agree(reader)?;
        categories::mark(&mut preprocess, config.categorical())?;
        Ok(Binning { reader, preprocess, schema, config, hold, plan, units, bin_s: 0.0 })
    }

    /// Reads all rows once if there are categories, and numbers them. Collective.
    pub(super) fn find_categories(&mut self, comm: &Communicator) -> Result<bool> {
        categories::find(comm, &mut self.reader, &mut self.preprocess)
    }

    /// Labels of the rows here, the classes, and the bins of all features. Collective.
    ///
    /// * `groups`: features whose values are sampled in one pass, pass by pass.
    /// * `check`: is shown every batch of rows.
    /// * `classes`: what the classes that were found are to be numbered as.
    pub(super) fn sample(
        &mut self,
        comm: &Communicator,
        (max_bins, bin_sample): (u64, u64),
        groups: &[Range<usize>],
        mut check: impl FnMut(&Block) -> Result<()>,
        classes: impl FnOnce(TargetCoding) -> Result<TargetCoding>,
    ) -> Result<(Labels, Vec<FeatureBins>)> {
        let (config, hold, responds_as) = (self.config, self.hold, self.config.responds_as());
        let (n_rows, first_row) = (self.schema.n_rows, self.plan.rows(self.units.clone()).start);
        let (reader, preprocess) = (&mut self.reader, &self.preprocess);
        let sample = |features: &Range<usize>| Sampled::new(features.clone(), bin_sample, n_rows, config.seed);
        let mut sampled = sample(&groups[0]);
        let mut gathered = Gathered::with_room(reader, reader.n_rows(), preprocess.n_features(), config, hold);
        let mut positions = BTreeMap::new();
        let passed = reader.pass(|batch, blocks| {
            gathered.seen.add(responds_as, batch)?;
            check(batch)?;
            keep_labels(batch, config.seed, hold, &mut gathered, &mut positions);
            gathered.digest.merge(&digest_of(batch));
            sampled.add(batch, blocks, &gathered.rows.weight[(batch.first_row - first_row) as usize..], preprocess)
        });
        comm.agree(passed.and_then(|()| check_denormals()))?; // reading may have loaded a filter plugin
        let target = classes(target::agree(comm, responds_as, self.schema.target, &gathered.seen)?)?;
        gathered.code_targets(&target);

        let began = Instant::now();
        let mut bins = sampled.bins(comm, max_bins as usize, &preprocess.columns)?;
        for features in &groups[1..] {
            let mut sampled = sample(features);
            let weight = &gathered.rows.weight;
            let passed = reader.pass(|batch, blocks| {
                sampled.add(batch, blocks, &weight[(batch.first_row - first_row) as usize..], preprocess)
            });
            comm.agree(passed)?;
            bins.extend(sampled.bins(comm, max_bins as usize, &preprocess.columns)?);
        }
        self.bin_s += began.elapsed().as_secs_f64();
        Ok((Labels { gathered, target }, bins))
    }

    /// Shows all rows here once more, to be binned; the time it takes counts as binning. Collective.
    pub(super) fn pass(
        &mut self,
        comm: &Communicator,
        mut visit: impl FnMut(&Block, &[Range<usize>], &Preprocess) -> Result<()>,
    ) -> Result<()> {
        let mut bin_s = 0.0;
        let preprocess = &self.preprocess;
        let passed = self.reader.pass(|batch, blocks| {
            let began = Instant::now();
            let done = visit(batch, blocks, preprocess);
            bin_s += began.elapsed().as_secs_f64();
            done
        });
        self.bin_s += bin_s;
        comm.agree(passed.and_then(|()| check_denormals()))
    }

    /// Sums of labels, and all that is to be known of the rows. Collective.
    ///
    /// Errors: nothing to train on (data).
    pub(super) fn finish(self, comm: &Communicator, labels: Labels) -> Result<BinnedRows> {
        let (config, target) = (self.config, labels.target);
        let input_digest = agree_digest(comm, &labels.gathered.digest)?;
        let first_row = self.plan.rows(self.units.clone()).start;
        let mut table = Table {
            plan: self.plan.clone(),
            units: self.units,
            first_row,
            n_features: 0,
            rows: LocalRows::Memory(labels.gathered.rows),
            total_weight: 0.0,
            peak: Vec::new(),
        };
        let mut totals = target::totals(comm, &target, &table)?;
        if config.class_weight == ClassWeight::Balanced && target.n_classes() > 0 {
            table.multiply_weights(target::balancing(totals.0, &totals.1));
            totals = target::totals(comm, &target, &table)?;
        }
        let (total_weight, weighted_y) = totals;
        if total_weight <= 0.0 {
            return Err(Error::data("all rows have weight 0: nothing is left to train on"));
        }
        if !matches!(self.hold, Some(HeldOut::Fold { .. })) {
            target::check_weighted(&target, &weighted_y)?;
        }
        let blocks = table.blocks();
        let LocalRows::Memory(rows) = table.rows else { return Err(Error::internal("labels are not in memory")) };
        Ok(BinnedRows {
            blocks,
            first_row,
            n_rows: self.schema.n_rows,
            plan: self.plan,
            y: Column::of(rows.y),
            weight: Column::of(rows.weight),
            held_out: rows.held_out.map(Column::of),
            preprocess: self.preprocess,
            target,
            total_weight,
            weighted_y,
            input_digest,
            read_s: self.reader.read_s,
            bin_s: self.bin_s,
        })
    }
}

/// Features whose values are sampled in one pass over the table, pass by pass; the same on every rank. Collective.
///
/// * `reader`: of the rows here.
/// * `n_all_rows`: of the whole table.
pub(super) fn groups(
    comm: &Communicator,
    reading: &Reading,
    bin_sample: u64,
    reader: &Reader<'_>,
    n_features: usize,
    n_all_rows: u64,
) -> Result<Vec<Range<usize>>> {
    let mut most = [i64::MAX];
    if let Some(limit) = reading.max_memory {
        let n_rows = reader.n_rows();
        let read = memory::of_source(limit) + 8 * memory::batch_values(Some(limit)) + 16 * n_rows as u64;
        // Of a feature: values sampled here while they grow, and those of all ranks, sorted and counted by each thread.
        let sampled = bin_sample.min(n_all_rows);
        let here = (sampled as f64 * n_rows as f64 / n_all_rows.max(1) as f64) as u64;
        let left = memory::usable(limit).saturating_sub(read + 32 * sampled * rayon::current_num_threads() as u64);
        most[0] = (left / (2 * 8 * here).max(1)) as i64;
    }
    comm.all_reduce_min(&mut most)?;
    let most = usize::try_from(most[0]).unwrap_or(usize::MAX).clamp(1, n_features.max(1));
    Ok((0..n_features.max(1)).step_by(most).map(|first| first..n_features.min(first + most)).collect())
}

/// Targets and weights of the rows here.
pub(super) struct Labels {
    gathered: Gathered,
    pub(super) target: TargetCoding,
}

impl Labels {
    pub(super) fn n_rows(&self) -> usize {
        self.gathered.rows.y.len()
    }
}

/// Rows whose bins are looked for together.
const ROWS: usize = 8;

/// Shows the bins of a block of rows, one feature of a few rows after the other: row in the block, feature, bin. Not collective.
pub(super) fn each_bin(
    features: &[FeatureBins],
    batch: &Block,
    block: &Range<usize>,
    preprocess: &Preprocess,
    mut show: impl FnMut(usize, usize, usize),
) -> Result<()> {
    let d = features.len();
    let mut rows = vec![0.0; ROWS * d];
    for first in block.clone().step_by(ROWS) {
        let n = ROWS.min(block.end - first);
        for (row, values) in rows.chunks_exact_mut(d.max(1)).take(n).enumerate() {
            preprocess.encode_row(batch, first + row, values)?;
        }
        for (j, bins) in features.iter().enumerate() {
            let found = bins.bins_of::<ROWS>(std::array::from_fn(|row| rows[row * d + j]));
            for (row, bin) in found.into_iter().take(n).enumerate() {
                show(first - block.start + row, j, bin);
            }
        }
    }
    Ok(())
}
