//! From a data source to this rank's binned rows: one pass for labels and a sample of values, one for bin numbers.

use super::super::gather::{Gathered, Reader, digest_of, keep_labels};
use super::super::prepare::{HeldOut, agree_digest};
use super::super::table::{LocalRows, Table};
use super::super::{ClassWeight, Model, Observer, Reading, TrainConfig, memory, target};
use super::column::Column;
use super::continued::Base;
use super::memory::RowBytes;
use super::{categories, constraints, loss_of};
use crate::comm::Communicator;
use crate::config::BoostLoss;
use crate::data::binned::{FeatureBins, deal_features};
use crate::data::digest::InputDigest;
use crate::data::partition::{Partition, RowPlan};
use crate::data::scratch::Scratch;
use crate::data::sketch::bin_ends;
use crate::data::{Block, DataSource, Targets};
use crate::error::{Error, Result};
use crate::exact::scale::order_key;
use crate::functions::check_denormals;
use crate::grow::Records;
use crate::model::{ColumnCode, Preprocess, TargetCoding};
use crate::rng::{Draws, FastDraws, Stream};
use rayon::prelude::*;
use std::ops::Range;
use std::time::Instant;

/// What is known of a rank's rows; all but the rows is the same on every rank.
pub(super) struct BinnedRows<'a> {
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
    /// Where boosting goes on, if a model is continued.
    pub(super) base: Option<Base<'a>>,
    pub(super) read_s: f64,
    /// Of sampling, ends of bins, and bin numbers.
    pub(super) bin_s: f64,
}

/// `model`: to be continued, if any. Collective.
pub(super) fn read<'a>(
    comm: &Communicator,
    source: &mut dyn DataSource,
    config: &TrainConfig,
    reading: &Reading,
    hold: Option<HeldOut>,
    model: Option<&'a Model>,
    watch: &mut dyn Observer,
) -> Result<(BinnedRows<'a>, Records)> {
    let boost = config.boost.as_ref().ok_or_else(|| Error::internal("boosting without its settings"))?;
    let schema = source.schema().clone();
    let responds_as = config.responds_as();
    target::check_stored(responds_as, schema.target)?;
    let plan = RowPlan::full_batch(schema.n_rows, schema.columns.len());
    let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
    let mut preprocess = Preprocess::unfitted(&schema, config.missing);
    if let Some(bytes) = reading.max_memory {
        source.limit_memory(memory::of_source(bytes));
    }
    let reader = Reader::new(source, plan.blocks(units.clone()), memory::batch_values(reading.max_memory));
    let mut reader = comm.agree(reader)?;
    categories::mark(&mut preprocess, &boost.categorical)?;
    // What is wrong with them is said before anything is read.
    constraints::monotone(boost, &preprocess)?;
    constraints::interactions(boost, &preprocess)?;
    let mut base = model.map(|model| Base::new(model, config, &schema, &preprocess)).transpose()?;
    if preprocess.columns.iter().any(|column| column.is_category) {
        categories::find(comm, &mut reader, &mut preprocess)?;
        base.iter_mut().try_for_each(|base| base.join_categories(&mut preprocess))?;
    }
    let first_row = plan.rows(units.clone()).start;
    let groups = super::memory::groups(comm, reading, boost, &reader, preprocess.n_features(), schema.n_rows)?;
    let sample = |features: &Range<usize>| Sampled::new(features.clone(), boost.bin_sample, schema.n_rows, config.seed);
    let mut sampled = sample(&groups[0]);
    let mut gathered = Gathered::with_room(&reader, reader.n_rows(), preprocess.n_features(), config, hold);
    let mut positions = std::collections::BTreeMap::new();
    let passed = reader.pass(|batch, blocks| {
        gathered.seen.add(responds_as, batch.first_file_row, &batch.target)?;
        check_amounts(boost.loss, batch)?;
        keep_labels(batch, config.seed, hold, &mut gathered, &mut positions);
        gathered.digest.merge(&digest_of(batch));
        sampled.add(batch, blocks, &gathered.rows.weight[(batch.first_row - first_row) as usize..], &preprocess)
    });
    comm.agree(passed.and_then(|()| check_denormals()))?; // reading may have loaded a filter plugin
    let target = target::agree(comm, responds_as, schema.target, &gathered.seen)?;
    let target = base.as_ref().map_or_else(|| Ok(target.clone()), |base| base.classes(&target))?;
    gathered.code_targets(&target);

    let began = Instant::now();
    let mut bins = sampled.bins(comm, boost.max_bins as usize, &preprocess.columns)?;
    for features in &groups[1..] {
        let mut sampled = sample(features);
        let weight = &gathered.rows.weight;
        let passed = reader.pass(|batch, blocks| {
            sampled.add(batch, blocks, &weight[(batch.first_row - first_row) as usize..], &preprocess)
        });
        comm.agree(passed)?;
        bins.extend(sampled.bins(comm, boost.max_bins as usize, &preprocess.columns)?);
    }
    let loss = loss_of(boost, target.n_classes());
    let of_scores = loss.n_scores() as u64 * if model.is_some() { 24 } else { 16 };
    let of_labels = 16 + if hold.is_some() { 8 } else { 0 } + if loss.leaf_quantile().is_some() { 4 } else { 0 };
    // The last 4 are the leaf.
    let of_depth = if boost.max_depth > 0 { 1 << boost.max_depth.min(40) } else { u64::MAX };
    let max_leaves = boost.max_leaves.min(of_depth).min(schema.n_rows);
    let row_bytes = RowBytes { n_rows: gathered.rows.y.len(), of_row: of_labels + of_scores + 4 };
    let mut records = match super::memory::plan(comm, reading, &row_bytes, &bins, max_leaves)? {
        None => Records::with_room(bins, row_bytes.n_rows),
        Some(page_rows) => {
            let scratch = comm.agree(Scratch::in_folder(reading.scratch.as_deref()))?;
            let mega_bytes = (row_bytes.n_rows * Records::bytes_of_row(&bins)).div_ceil(1 << 20);
            let hint = if reading.scratch.is_none() { "; --scratch DIR names another folder" } else { "" };
            let folder = scratch.folder().display();
            watch.warning(&format!(
                "the binned rows of a rank ({mega_bytes}M) do not fit into memory: they are kept in a file in {folder}{hint}"
            ));
            Records::in_file(bins, scratch, page_rows)
        }
    };
    let mut bin_s = began.elapsed().as_secs_f64();
    let passed = reader.pass(|batch, blocks| {
        let began = Instant::now();
        let done = append(&mut records, batch, blocks, &preprocess);
        bin_s += began.elapsed().as_secs_f64();
        done.and_then(|()| base.iter_mut().try_for_each(|base| base.add_rows(batch, blocks, &preprocess)))
    });
    comm.agree(passed.and_then(|()| check_denormals()))?;
    let input_digest = agree_digest(comm, &gathered.digest)?;
    let read_s = reader.read_s;

    let rows = plan.rows(units.clone());
    let mut labels = Table {
        plan: plan.clone(),
        units: units.clone(),
        first_row: rows.start,
        n_features: 0,
        rows: LocalRows::Memory(gathered.rows),
        total_weight: 0.0,
        peak: Vec::new(),
    };
    let mut totals = target::totals(comm, target.n_classes(), &labels)?;
    if config.class_weight == ClassWeight::Balanced && target.n_classes() > 0 {
        labels.multiply_weights(target::balancing(totals.0, &totals.1));
        totals = target::totals(comm, target.n_classes(), &labels)?;
    }
    let (total_weight, weighted_y) = totals;
    if total_weight <= 0.0 {
        return Err(Error::data("all rows have weight 0: nothing is left to train on"));
    }
    if !matches!(hold, Some(HeldOut::Fold { .. })) {
        target::check_weighted(&target, &weighted_y)?;
    }
    let blocks = labels.blocks();
    let LocalRows::Memory(labels) = labels.rows else { return Err(Error::internal("labels are not in memory")) };
    let rows = BinnedRows {
        blocks,
        first_row: rows.start,
        n_rows: schema.n_rows,
        plan,
        y: Column::of(labels.y),
        weight: Column::of(labels.weight),
        held_out: labels.held_out.map(Column::of),
        preprocess,
        target,
        total_weight,
        weighted_y,
        input_digest,
        base,
        read_s,
        bin_s,
    };
    Ok((rows, records))
}

/// Errors: targets that `gamma` does not take.
fn check_amounts(loss: BoostLoss, batch: &Block) -> Result<()> {
    let Targets::Number(values) = &batch.target else { return Ok(()) };
    match values.iter().position(|y| *y <= 0.0) {
        Some(row) if loss == BoostLoss::Gamma => Err(Error::data(format!(
            "the target is {} in row {}: gamma wants amounts above 0; tweedie takes 0 too",
            values[row],
            batch.first_file_row + row as u64
        ))),
        _ => Ok(()),
    }
}

/// What the bins of some features are made from.
struct Sampled {
    draws: FastDraws,
    share: f64,
    features: Range<usize>,
    /// By feature.
    values: Vec<Column>,
    has_missing: Vec<bool>,
}

impl Sampled {
    /// * `n_sampled`: rows, about, of `n_rows`.
    fn new(features: Range<usize>, n_sampled: u64, n_rows: u64, seed: u64) -> Sampled {
        Sampled {
            draws: FastDraws::new(Draws::new(seed, Stream::Bins), 0),
            share: n_sampled as f64 / n_rows.max(1) as f64,
            values: vec![Column::default(); features.len()],
            has_missing: vec![false; features.len()],
            features,
        }
    }

    /// Rows of weight 0 are not sampled; that one of them has no value is noted, since it will need a bin. Rayon over blocks.
    ///
    /// * `weight`: of the rows of the batch, and of any after.
    fn add(&mut self, batch: &Block, blocks: &[Range<usize>], weight: &[f64], preprocess: &Preprocess) -> Result<()> {
        let (draws, share) = (self.draws, self.share);
        let of_block = |block: &Range<usize>| {
            let (mut taken, mut missing) = (Vec::new(), vec![false; self.features.len()]);
            let mut row = vec![0.0; preprocess.n_features()];
            for i in block.clone() {
                preprocess.encode_row(batch, i, &mut row)?;
                let row = &row[self.features.clone()];
                missing.iter_mut().zip(row).for_each(|(missing, value)| *missing |= value.is_nan());
                if weight[i] > 0.0 && draws.takes(share, batch.first_row + i as u64) {
                    taken.extend_from_slice(row);
                }
            }
            Ok((taken, missing))
        };
        let found: Vec<(Vec<f64>, Vec<bool>)> = blocks.par_iter().map(of_block).collect::<Result<_>>()?;
        for (taken, missing) in &found {
            self.has_missing.iter_mut().zip(missing).for_each(|(all, one)| *all |= *one);
            for row in taken.chunks_exact(self.features.len().max(1)) {
                for (values, value) in self.values.iter_mut().zip(row).filter(|(_, value)| !value.is_nan()) {
                    values.push(*value);
                }
            }
        }
        Ok(())
    }

    /// The bins of the features. Each rank makes those of some. Collective.
    ///
    /// * `columns`: each is a feature.
    fn bins(self, comm: &Communicator, max_bins: usize, columns: &[ColumnCode]) -> Result<Vec<FeatureBins>> {
        let columns = &columns[self.features.clone()];
        let mut missing: Vec<i32> = self.has_missing.iter().map(|missing| i32::from(*missing)).collect();
        comm.all_reduce_max(&mut missing)?;
        let owners = deal_features(&(0..=columns.len()).collect::<Vec<_>>(), comm.size());
        let mut mine: Vec<Column> = Vec::new();
        for (feature, values) in self.values.into_iter().enumerate() {
            let all = match comm.size() {
                1 => values,
                _ => Column::of(comm.all_gather(&values.into_values())?.values),
            };
            if owners[comm.rank()].contains(&feature) {
                mine.push(all);
            }
        }
        let of_columns = &columns[owners[comm.rank()].clone()];
        let ends: Vec<Vec<f64>> = mine
            .into_par_iter()
            .zip(of_columns)
            .map(|(values, column)| {
                let values = values.into_values();
                if column.is_category { counts_of(&values, column) } else { ends_of(values, max_bins) }
            })
            .collect();
        let lengths: Vec<u64> = ends.iter().map(|ends| ends.len() as u64).collect();
        let lengths = comm.all_gather(&lengths)?.values;
        let all = comm.all_gather(&ends.concat())?.values;
        let mut rest = &all[..];
        let bins = lengths.iter().zip(missing).zip(columns).map(|((&n, missing), column)| {
            let (ends, after) = rest.split_at(n as usize);
            rest = after;
            if column.is_category {
                let counts: Vec<u64> = ends.iter().map(|count| *count as u64).collect();
                return FeatureBins::of_categories(&counts, max_bins);
            }
            FeatureBins { uppers: ends.to_vec(), has_missing: missing != 0, categories: None }
        });
        Ok(bins.collect())
    }
}

/// How often each category of a column is among `values`, which are their places.
fn counts_of(values: &[f64], column: &ColumnCode) -> Vec<f64> {
    let mut counts = vec![0.0; column.categories.len().max(column.values.len())];
    values.iter().for_each(|place| counts[*place as usize] += 1.0);
    counts
}

/// Ends of the bins of values, in any order.
fn ends_of(mut values: Vec<f64>, max_bins: usize) -> Vec<f64> {
    values.sort_unstable_by_key(|value| order_key(*value));
    let mut counted: Vec<(f64, u64)> = Vec::new();
    for value in values {
        match counted.last_mut() {
            Some((last, n)) if *last == value => *n += 1,
            _ => counted.push((value, 1)),
        }
    }
    bin_ends(&counted, max_bins)
}

/// Rows whose bins are looked for together.
const ROWS: usize = 8;

/// Appends the bin numbers of a batch. Rayon over blocks.
fn append(records: &mut Records, batch: &Block, blocks: &[Range<usize>], preprocess: &Preprocess) -> Result<()> {
    let features = records.features.clone();
    let d = features.len();
    let runs: Vec<usize> = blocks.iter().map(Range::len).collect();
    records.append(&runs, |number, run| {
        let mut rows = vec![0.0; ROWS * d];
        for first in blocks[number].clone().step_by(ROWS) {
            let n = ROWS.min(blocks[number].end - first);
            for (row, values) in rows.chunks_exact_mut(d.max(1)).take(n).enumerate() {
                preprocess.encode_row(batch, first + row, values)?;
            }
            for (j, bins) in features.iter().enumerate() {
                let found = bins.bins_of::<ROWS>(std::array::from_fn(|row| rows[row * d + j]));
                for (row, bin) in found.into_iter().take(n).enumerate() {
                    run.put(first - blocks[number].start + row, j, bin);
                }
            }
        }
        Ok(())
    })
}
