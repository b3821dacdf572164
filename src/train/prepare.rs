//! From a data source to this rank's table in memory: classes and categories agreed, moments exact, rows standardised.
//!
//! Passes over this rank's rows: one for the dictionaries of text columns, if there are any; one for everything
//! else; one more for tables that float32 cannot hold as stored, so that they are standardised from the stored
//! values; and, rarely, one more of those for moments around a better point. The passes and their results do not depend on ranks: only on the table and the settings.

use super::sums::{Total, sum_blocks};
use super::table::Table;
use super::target;
use super::{ClassWeight, Kind, Observer, Solver, TrainConfig};
use crate::comm::Communicator;
use crate::config::Missing;
use crate::data::digest::{GROUP_ROWS, InputDigest};
use crate::data::moments::{BlockMoments, standardisation};
use crate::data::partition::{Partition, RowPlan, default_lanes};
use crate::data::{Block, DataSource, Targets, Values};
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::exact::scale::{from_order_key, order_key};
use crate::functions::check_denormals;
use crate::model::preprocess::{standardise, standardised};
use crate::model::{Preprocess, TargetCoding};
use crate::objective::Objective;
use crate::rng::{Draws, Stream};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

/// Values read at a time, over all columns: whole blocks, at least one.
const BATCH_VALUES: u64 = 4 << 20;
/// More distinct strings than this are not categories.
const MOST_CATEGORIES: usize = 10_000;

/// Times that moments are taken again around the mean found, at most: each takes it 2⁵⁰ times nearer.
const MOST_SHIFTS: usize = 3;

/// A table ready to train on, with what was learned on the way; the same on every rank but for the rows.
pub struct Prepared {
    pub table: Table,
    pub preprocess: Preprocess,
    pub target: TargetCoding,
    pub input_digest: InputDigest,
    /// Σw per class, or Σw·y.
    pub weighted_y: Vec<f64>,
    /// True for local rows that were held out; empty when none were.
    pub held_out: Vec<bool>,
    /// Row weights as stored, before folds and class weights.
    pub stored_weight: Vec<f64>,
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
            HeldOut::Fold { fold, folds } => Draws::new(seed, Stream::Fold).below(folds, row, 0) == fold,
            HeldOut::Fraction(fraction) => Draws::new(seed, Stream::Valid).uniform(row, 0) < fraction,
        }
    }
}

/// Lanes and blocks for this table and these settings.
pub fn plan(n_rows: u64, n_columns: usize, config: &TrainConfig) -> RowPlan {
    match config.solver {
        Solver::Sgd | Solver::Adam => {
            let lanes = config.lanes.unwrap_or_else(|| default_lanes(n_rows, config.global_batch));
            RowPlan::lanes(n_rows, n_columns, lanes)
        }
        _ => RowPlan::full_batch(n_rows, n_columns),
    }
}

/// Reads, encodes and standardises this rank's rows. Collective.
pub fn prepare(
    comm: &Communicator,
    source: &mut dyn DataSource,
    config: &TrainConfig,
    hold: Option<HeldOut>,
    watch: &mut dyn Observer,
) -> Result<Prepared> {
    let schema = source.schema().clone();
    let plan = plan(schema.n_rows, schema.columns.len(), config);
    let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
    let mut reader = Reader::new(source, &plan, units.clone());
    let mut preprocess = Preprocess::unfitted(&schema, config.missing);

    if preprocess.has_text() {
        let local = local_categories(&mut reader, preprocess.columns.iter().filter(|c| is_text(c)).count());
        agree_categories(comm, local, &mut preprocess)?;
    }
    let mut shift = agree_shift(comm, &mut reader, &plan, &preprocess)?;
    let keep_raw = schema.columns.iter().all(|c| c.kind != crate::data::ColumnKind::Wide);
    let gathered = gather(&mut reader, &preprocess, &shift, config, hold, keep_raw)
        .and_then(|gathered| check_denormals().map(|()| gathered)); // reading may have loaded a filter plugin
    let mut gathered = comm.agree(gathered)?;

    let target =
        target::agree(comm, config.kind, schema.target, reader.first_row(), &mut gathered.y, &gathered.strings)?;
    let began = Instant::now();
    let mut fitted = fit_standardisation(comm, &plan, &gathered.moments, &shift, &mut preprocess)?;
    for _ in 0..MOST_SHIFTS {
        if !fitted.cancels {
            break;
        }
        shift.clone_from(&preprocess.mean);
        gathered.moments = comm.agree(moments_around(&mut reader, &preprocess, &gathered, &shift, keep_raw))?;
        fitted = fit_standardisation(comm, &plan, &gathered.moments, &shift, &mut preprocess)?;
    }
    warn_of_constants(&preprocess, watch);
    let d = preprocess.n_features();
    let mut x = std::mem::take(&mut gathered.x);
    if keep_raw {
        standardise_in_place(&mut x, &preprocess);
    }
    let mut prepare_s = gathered.moments_s + began.elapsed().as_secs_f64();
    if !keep_raw {
        let filled = fill(&mut reader, &preprocess, gathered.y.len());
        let (rows, seconds) = comm.agree(filled)?;
        x = rows;
        prepare_s += seconds;
    }

    let digest = comm.all_gather(&gathered.digest.words)?;
    let mut input_digest = InputDigest::default();
    for words in digest.values.chunks_exact(4) {
        input_digest.merge(&InputDigest { words: [words[0], words[1], words[2], words[3]] });
    }

    let stored_weight = gathered.weight.clone();
    let mut weight = gathered.weight;
    for (w, out) in weight.iter_mut().zip(&gathered.held_out) {
        if *out {
            *w = 0.0;
        }
    }
    if config.class_weight == ClassWeight::Balanced {
        target::balance(comm, target.n_classes(), &gathered.y, &mut weight)?;
    }
    let (total_weight, weighted_y) = target::totals(comm, target.n_classes(), &gathered.y, &weight)?;
    if total_weight <= 0.0 {
        return Err(Error::data("all rows have weight 0: nothing is left to train on"));
    }
    if !matches!(hold, Some(HeldOut::Fold { .. })) {
        target::check_weighted(&target, &weighted_y)?;
    }
    let first_row = plan.rows(units.clone()).start;
    let table = Table {
        plan,
        units,
        first_row,
        n_features: d,
        x,
        y: gathered.y,
        weight,
        offset: gathered.offset,
        total_weight,
        peak: fitted.peak,
    };
    Ok(Prepared {
        table,
        preprocess,
        target,
        input_digest,
        weighted_y,
        held_out: gathered.held_out,
        stored_weight,
        read_s: reader.read_s,
        prepare_s,
    })
}

fn is_text(column: &crate::model::ColumnCode) -> bool {
    column.kind == crate::data::ColumnKind::Text
}

/// Reads this rank's rows in runs of whole blocks.
struct Reader<'a> {
    source: &'a mut dyn DataSource,
    blocks: Vec<Range<u64>>,
    batch: Block,
    n_columns: usize,
    read_s: f64,
}

impl<'a> Reader<'a> {
    fn new(source: &'a mut dyn DataSource, plan: &RowPlan, units: Range<u64>) -> Reader<'a> {
        let n_columns = source.schema().columns.len();
        Reader { source, blocks: plan.blocks(units), batch: Block::empty(), n_columns, read_s: 0.0 }
    }

    fn n_rows(&self) -> usize {
        self.blocks.iter().map(|rows| (rows.end - rows.start) as usize).sum()
    }

    /// Global number of the first row here.
    fn first_row(&self) -> u64 {
        self.blocks.first().map_or(0, |rows| rows.start)
    }

    /// One pass: `visit` sees batches of rows in order, with their blocks as ranges inside the batch.
    fn pass(&mut self, mut visit: impl FnMut(&Block, &[Range<usize>]) -> Result<()>) -> Result<()> {
        let mut at = 0;
        while at < self.blocks.len() {
            let first = self.blocks[at].start;
            let mut next = at + 1;
            while next < self.blocks.len() && (self.blocks[next].end - first) * self.n_columns as u64 <= BATCH_VALUES {
                next += 1;
            }
            let began = Instant::now();
            self.source.read(first..self.blocks[next - 1].end, &mut self.batch)?;
            self.read_s += began.elapsed().as_secs_f64();
            let inside: Vec<Range<usize>> = self.blocks[at..next]
                .iter()
                .map(|rows| (rows.start - first) as usize..(rows.end - first) as usize)
                .collect();
            visit(&self.batch, &inside)?;
            at = next;
        }
        Ok(())
    }
}

/// Distinct strings of every text column here, sorted.
fn local_categories(reader: &mut Reader<'_>, n_text: usize) -> Result<Vec<BTreeSet<String>>> {
    let mut found = vec![BTreeSet::new(); n_text];
    reader.pass(|batch, _| {
        for (set, column) in found.iter_mut().zip(&batch.text) {
            for value in column {
                if !set.contains(value) {
                    set.insert(value.clone());
                }
            }
            if set.len() > MOST_CATEGORIES {
                break;
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// The union of all ranks' categories, column by column. Collective.
fn agree_categories(
    comm: &Communicator,
    local: Result<Vec<BTreeSet<String>>>,
    preprocess: &mut Preprocess,
) -> Result<()> {
    let local = comm.agree(local)?;
    for (column, mine) in preprocess.columns.iter_mut().filter(|c| is_text(c)).zip(local) {
        let union = union_of_strings(comm, &mine)?;
        if union.len() > MOST_CATEGORIES {
            return Err(Error::data(format!(
                "text column '{}' has more than {MOST_CATEGORIES} distinct values; leave it out with --features",
                column.name
            )));
        }
        column.categories = union.into_iter().collect();
    }
    Ok(())
}

/// Collective.
pub fn union_of_strings(comm: &Communicator, mine: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut bytes = Vec::new();
    for value in mine {
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    let gathered = comm.all_gather_bytes(&bytes)?;
    let mut union = BTreeSet::new();
    let mut rest = gathered.values.as_slice();
    while let Some((len, tail)) = rest.split_first_chunk::<8>() {
        let (value, tail) = tail.split_at(u64::from_le_bytes(*len) as usize);
        union.insert(String::from_utf8_lossy(value).into_owned());
        rest = tail;
    }
    Ok(union)
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
    let owner = (0..comm.size()).find(|&rank| partition.units_of(rank).contains(&0)).unwrap_or(0);
    let local = if comm.rank() == owner { first_means(reader, preprocess) } else { Ok(vec![0.0; d]) };
    let mut shift = comm.agree(local)?;
    comm.broadcast(&mut shift, owner)?;
    Ok(shift)
}

fn first_means(reader: &mut Reader<'_>, preprocess: &Preprocess) -> Result<Vec<f64>> {
    let d = preprocess.n_features();
    let first = reader.blocks.first().cloned().unwrap_or(0..0);
    reader.source.read(first, &mut reader.batch)?;
    let mut moments = BlockMoments::new(d);
    let (mut row, origin) = (vec![0.0; d], vec![0.0; d]);
    for i in 0..reader.batch.n_rows {
        preprocess.encode_row(&reader.batch, i, &mut row)?;
        let counts = reader.batch.weight.as_ref().is_none_or(|weight| weight[i] > 0.0);
        moments.add_row(&row, f64::from(counts), &origin);
    }
    let mean = |j: usize| {
        let (n, sum) = (moments.sums[j], moments.sums[d + j]);
        let mean = sum / n;
        if n > 0.0 && mean.is_finite() { mean } else { 0.0 }
    };
    Ok((0..d).map(mean).collect())
}

/// What the main pass collects.
struct Gathered {
    /// Encoded, not yet standardised rows, when they are kept.
    x: Vec<f32>,
    y: Vec<f64>,
    weight: Vec<f64>,
    offset: Option<Vec<f64>>,
    held_out: Vec<bool>,
    /// Text targets as met here; `y` holds positions in it until all ranks agree.
    strings: Vec<String>,
    moments: Vec<BlockMoments>,
    digest: InputDigest,
    moments_s: f64,
    /// Keeping and hashing rows, which is part of reading.
    encode_s: f64,
}

fn gather(
    reader: &mut Reader<'_>,
    preprocess: &Preprocess,
    shift: &[f64],
    config: &TrainConfig,
    hold: Option<HeldOut>,
    keep_raw: bool,
) -> Result<Gathered> {
    let n = reader.n_rows();
    let d = preprocess.n_features();
    let schema = reader.source.schema().clone();
    let mut out = Gathered {
        x: Vec::with_capacity(if keep_raw { n * d } else { 0 }),
        y: Vec::with_capacity(n),
        weight: Vec::with_capacity(n),
        offset: (schema.has_offset && config.kind == Kind::Poisson).then(|| Vec::with_capacity(n)),
        held_out: Vec::with_capacity(if hold.is_some() { n } else { 0 }),
        strings: Vec::new(),
        moments: Vec::new(),
        digest: InputDigest::default(),
        moments_s: 0.0,
        encode_s: 0.0,
    };
    let mut positions = std::collections::BTreeMap::new();
    reader.pass(|batch, blocks| {
        match &batch.target {
            Targets::None => return Err(Error::data("has no target; name it with --target")),
            Targets::Number(values) => out.y.extend_from_slice(values),
            Targets::Text(values) => {
                for value in values {
                    let next = positions.len();
                    let position = *positions.entry(value.clone()).or_insert(next);
                    if position == out.strings.len() {
                        out.strings.push(value.clone());
                    }
                    out.y.push(position as f64);
                }
            }
        }
        let first = out.weight.len();
        match &batch.weight {
            Some(weight) => out.weight.extend_from_slice(weight),
            None => out.weight.resize(first + batch.n_rows, 1.0),
        }
        if let (Some(all), Some(offset)) = (&mut out.offset, &batch.offset) {
            all.extend_from_slice(offset);
        }
        if let Some(hold) = hold {
            out.held_out.extend((0..batch.n_rows).map(|i| hold.holds_out(config.seed, batch.first_row + i as u64)));
        }
        if keep_raw {
            let began = Instant::now();
            encode(batch, blocks, preprocess, &mut out.x)?;
            out.encode_s += began.elapsed().as_secs_f64();
        } else {
            let began = Instant::now();
            let weights = masked(&out.weight[first..], &out.held_out[first.min(out.held_out.len())..]);
            out.moments.extend(moments_of_batch(batch, blocks, preprocess, &weights, shift)?);
            out.moments_s += began.elapsed().as_secs_f64();
        }
        let began = Instant::now();
        out.digest.merge(&digest_of(batch));
        out.encode_s += began.elapsed().as_secs_f64();
        Ok(())
    })?;
    if keep_raw {
        let began = Instant::now();
        out.moments = moments_of_kept(reader, &out.x, &masked(&out.weight, &out.held_out), shift);
        out.moments_s = began.elapsed().as_secs_f64();
    }
    reader.read_s += out.encode_s;
    Ok(out)
}

/// Weights of rows that take part: those held out have weight 0.
fn masked(weight: &[f64], held_out: &[bool]) -> Vec<f64> {
    let held_out = held_out.iter().copied().chain(std::iter::repeat(false));
    weight.iter().zip(held_out).map(|(w, out)| if out { 0.0 } else { *w }).collect()
}

/// The digest of a batch, its runs of rows shared out to threads.
fn digest_of(batch: &Block) -> InputDigest {
    let groups = batch.n_rows.div_ceil(GROUP_ROWS as usize);
    let parts = rayon::current_num_threads().min(groups).max(1);
    let bound = |part: usize| (groups * part / parts * GROUP_ROWS as usize).min(batch.n_rows);
    let digests: Vec<InputDigest> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let mut digest = InputDigest::default();
            digest.add_rows(batch, bound(part)..bound(part + 1));
            digest
        })
        .collect();
    let mut all = InputDigest::default();
    for digest in &digests {
        all.merge(digest);
    }
    all
}

/// Appends the batch's encoded rows to `x`; each value is one that float32 holds exactly.
fn encode(batch: &Block, blocks: &[Range<usize>], preprocess: &Preprocess, x: &mut Vec<f32>) -> Result<()> {
    if let (Values::F32(values), false, Missing::Mean) = (&batch.values, preprocess.has_text(), preprocess.missing) {
        x.extend_from_slice(values);
        return Ok(());
    }
    let d = preprocess.n_features();
    let start = x.len();
    x.resize(start + batch.n_rows * d, 0.0);
    let done: Result<Vec<()>> = blocks
        .par_iter()
        .zip(cut(&mut x[start..], blocks, d))
        .map(|(block, part)| {
            let mut row = vec![0.0; d];
            for (slot, i) in block.clone().enumerate() {
                preprocess.encode_row(batch, i, &mut row)?;
                for (x, value) in part[slot * d..(slot + 1) * d].iter_mut().zip(&row) {
                    *x = *value as f32;
                }
            }
            Ok(())
        })
        .collect();
    done.map(|_| ())
}

/// The rows of each block, (rows, width), out of those of a batch.
fn cut<'x>(mut rows: &'x mut [f32], blocks: &[Range<usize>], width: usize) -> Vec<&'x mut [f32]> {
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, rest) = rows.split_at_mut(block.len() * width);
        parts.push(part);
        rows = rest;
    }
    parts
}

/// Moments of the blocks here around another shift: of the rows that were kept, or of one more reading. Not collective.
fn moments_around(
    reader: &mut Reader<'_>,
    preprocess: &Preprocess,
    gathered: &Gathered,
    shift: &[f64],
    keep_raw: bool,
) -> Result<Vec<BlockMoments>> {
    let weights = masked(&gathered.weight, &gathered.held_out);
    if keep_raw {
        return Ok(moments_of_kept(reader, &gathered.x, &weights, shift));
    }
    let first_row = reader.first_row();
    let mut moments = Vec::with_capacity(reader.blocks.len());
    reader.pass(|batch, blocks| {
        let weights = &weights[(batch.first_row - first_row) as usize..];
        moments.extend(moments_of_batch(batch, blocks, preprocess, weights, shift)?);
        Ok(())
    })?;
    Ok(moments)
}

/// Moments of each block of kept rows.
fn moments_of_kept(reader: &Reader<'_>, x: &[f32], weight: &[f64], shift: &[f64]) -> Vec<BlockMoments> {
    let (d, first_row) = (shift.len(), reader.first_row());
    let of_block = |rows: &Range<u64>| {
        let rows = (rows.start - first_row) as usize..(rows.end - first_row) as usize;
        kept_moments(&x[rows.start * d..rows.end * d], &weight[rows], shift)
    };
    reader.blocks.par_iter().map(of_block).collect()
}

/// Moments of each block of a batch that is not kept.
fn moments_of_batch(
    batch: &Block,
    blocks: &[Range<usize>],
    preprocess: &Preprocess,
    weight: &[f64],
    shift: &[f64],
) -> Result<Vec<BlockMoments>> {
    blocks.par_iter().map(|block| encoded_moments(batch, block.clone(), preprocess, weight, shift)).collect()
}

/// Moments of one block that is not kept.
fn encoded_moments(
    batch: &Block,
    block: Range<usize>,
    preprocess: &Preprocess,
    weight: &[f64],
    shift: &[f64],
) -> Result<BlockMoments> {
    let mut moments = BlockMoments::new(shift.len());
    let mut row = vec![0.0; shift.len()];
    for i in block {
        preprocess.encode_row(batch, i, &mut row)?;
        moments.add_row(&row, weight[i], shift);
    }
    Ok(moments)
}

/// Moments of one block of kept rows, (rows, features).
fn kept_moments(x: &[f32], weight: &[f64], shift: &[f64]) -> BlockMoments {
    let d = shift.len();
    let mut moments = BlockMoments::new(d);
    let mut row = vec![0.0; d];
    for (kept, w) in x.chunks_exact(d.max(1)).zip(weight) {
        for (x, kept) in row.iter_mut().zip(kept) {
            *x = f64::from(*kept);
        }
        moments.add_row(&row, *w, shift);
    }
    moments
}

/// What standardising needs to know beyond mean and scale.
struct Fitted {
    /// Largest |standardised value| of each feature.
    peak: Vec<f64>,
    /// As in [`Standardisation`](crate::data::moments::Standardisation).
    cancels: bool,
}

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
    let names = preprocess.feature_names();
    let too_large = |j: usize| {
        Error::data(format!(
            "column '{}' holds values up to {:e}: too large to standardise in float64; rescale it",
            names[j],
            if max[j] > -min[j] { max[j] } else { min[j] }
        ))
    };
    let total = match sum_blocks(comm, &sums)? {
        Total::Finite(total) => total,
        Total::NonFinite => {
            let widest = (0..d).max_by(|&a, &b| {
                let span = |j: usize| order_key((max[j] - min[j]).abs());
                span(a).cmp(&span(b)).then(b.cmp(&a))
            });
            return Err(too_large(widest.unwrap_or(0)));
        }
    };
    let found = standardisation(&total, &min, &max, shift).map_err(too_large)?;
    let (mean, inverse_scale) = (found.mean, found.inverse_scale);
    let peak = (0..d)
        .map(|j| {
            let ends = [min[j], max[j]].map(|x| {
                let x = if x.is_finite() { x } else { mean[j] };
                f64::from(standardised(x, mean[j], inverse_scale[j])).abs()
            });
            if ends[0] > ends[1] { ends[0] } else { ends[1] }
        })
        .collect();
    preprocess.mean = mean;
    preprocess.inverse_scale = inverse_scale;
    Ok(Fitted { peak, cancels: found.cancels })
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

fn standardise_in_place(x: &mut [f32], preprocess: &Preprocess) {
    let d = preprocess.n_features().max(1);
    x.par_chunks_mut(d * 1024).for_each(|rows| standardise(rows, &preprocess.mean, &preprocess.inverse_scale));
}

/// Second reading of a table that float32 cannot hold as stored. Returns rows and seconds of standardising.
fn fill(reader: &mut Reader<'_>, preprocess: &Preprocess, n_rows: usize) -> Result<(Vec<f32>, f64)> {
    let d = preprocess.n_features();
    let mut x = vec![0.0f32; n_rows * d];
    let (mut at, mut seconds) = (0, 0.0);
    reader.pass(|batch, blocks| {
        let began = Instant::now();
        let parts = cut(&mut x[at * d..(at + batch.n_rows) * d], blocks, d);
        let done: Result<Vec<()>> = blocks
            .par_iter()
            .zip(parts)
            .map(|(block, part)| {
                let mut row = vec![0.0; d];
                for (slot, i) in block.clone().enumerate() {
                    preprocess.encode_row(batch, i, &mut row)?;
                    for j in 0..d {
                        part[slot * d + j] = standardised(row[j], preprocess.mean[j], preprocess.inverse_scale[j]);
                    }
                }
                Ok(())
            })
            .collect();
        done?;
        at += batch.n_rows;
        seconds += began.elapsed().as_secs_f64();
        Ok(())
    })?;
    Ok((x, seconds))
}

/// The objective of a kind with these classes.
pub fn objective(kind: Kind, n_classes: usize) -> Box<dyn Objective> {
    use crate::objective::{Logistic, Poisson, Softmax, Squared, SquaredHinge};
    match kind {
        Kind::Linear => Box::new(Squared),
        Kind::Poisson => Box::new(Poisson),
        Kind::Svm => Box::new(SquaredHinge { n_classes }),
        Kind::Logistic if n_classes == 2 => Box::new(Logistic),
        Kind::Logistic => Box::new(Softmax { n_classes }),
    }
}

/// Starting parameters: no coefficients, intercepts that fit the targets' totals.
pub fn start(objective: &dyn Objective, prepared: &Prepared) -> Vec<f64> {
    let weighted_y = match (&prepared.target, prepared.target.n_classes()) {
        (TargetCoding::Number, _) => prepared.weighted_y.clone(),
        (_, 2) => vec![prepared.weighted_y[1]],
        _ => prepared.weighted_y.clone(),
    };
    let stride = prepared.table.n_features + 1;
    let mut params = vec![0.0; objective.n_scores() * stride];
    let starts = objective.start_scores(prepared.table.total_weight, &weighted_y);
    for (of_score, start) in params.chunks_exact_mut(stride).zip(starts) {
        of_score[stride - 1] = start;
    }
    params
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
