//! This rank's passes over its rows: dictionaries, encoded rows, moments, digests. Nothing here talks; what ranks agree on
//! is in `prepare.rs`.

use super::prepare::HeldOut;
use super::sparse_scale::Ranges;
use super::stream::{batches_of, cut, encode_from};
use super::table::RowBuffer;
use super::target::Seen;
use super::{Kind, TrainConfig};
use crate::data::digest::{GROUP_ROWS, InputDigest};
use crate::data::moments::BlockMoments;
use crate::data::pages::in_large_pages;
use crate::data::{Block, DataSource, TargetKind, Targets, ValueCount, Values};
use crate::error::Result;
use crate::model::preprocess::standardise;
use crate::model::{Features, Preprocess, TargetCoding};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

/// Reads this rank's rows in runs of whole blocks.
pub(super) struct Reader<'a> {
    source: &'a mut dyn DataSource,
    blocks: Vec<Range<u64>>,
    batch: Block,
    batch_rows: u64,
    pub(super) read_s: f64,
    /// Of the blocks here.
    pub(super) count: ValueCount,
}

impl<'a> Reader<'a> {
    /// `batch_values`: values read at a time, over all columns: whole blocks, at least one. Errors: rows that cannot be counted.
    pub(super) fn new(
        source: &'a mut dyn DataSource,
        blocks: Vec<Range<u64>>,
        batch_values: u64,
    ) -> Result<Reader<'a>> {
        let count = source.count_values(&blocks)?;
        let batch_rows = batch_values / count.per_row.max(1);
        Ok(Reader { source, blocks, batch: Block::empty(), batch_rows, read_s: 0.0, count })
    }

    pub(super) fn source(&self) -> &dyn DataSource {
        self.source
    }

    /// The source and the blocks, for passes to come.
    pub(super) fn into_parts(self) -> (&'a mut dyn DataSource, Vec<Range<u64>>) {
        (self.source, self.blocks)
    }

    /// Puts what takes time to decode of these rows into files in `folder`.
    pub(super) fn decode_to(&mut self, folder: &Path) -> Result<()> {
        match (self.blocks.first(), self.blocks.last()) {
            (Some(first), Some(last)) => self.source.decode_to(folder, first.start..last.end),
            _ => Ok(()),
        }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.blocks.iter().map(|rows| (rows.end - rows.start) as usize).sum()
    }

    /// Global number of the first row here.
    fn first_row(&self) -> u64 {
        self.blocks.first().map_or(0, |rows| rows.start)
    }

    /// One pass: `visit` sees batches of rows in order, with their blocks as ranges inside the batch.
    pub(super) fn pass(&mut self, mut visit: impl FnMut(&Block, &[Range<usize>]) -> Result<()>) -> Result<()> {
        self.pass_in(self.batch_rows, |batch, blocks| visit(batch, blocks))
    }

    /// As [`pass`](Self::pass), in batches of so many rows, which `visit` may take values from.
    fn pass_in(
        &mut self,
        batch_rows: u64,
        mut visit: impl FnMut(&mut Block, &[Range<usize>]) -> Result<()>,
    ) -> Result<()> {
        let threads = rayon::current_num_threads() as u64;
        for batch in batches_of(&self.blocks, batch_rows, self.source.chunk_rows(), threads) {
            let blocks = &self.blocks[batch];
            let (first, end) = (blocks[0].start, blocks[blocks.len() - 1].end);
            let began = Instant::now();
            self.source.read(first..end, &mut self.batch)?;
            self.read_s += began.elapsed().as_secs_f64();
            let inside: Vec<Range<usize>> =
                blocks.iter().map(|rows| (rows.start - first) as usize..(rows.end - first) as usize).collect();
            visit(&mut self.batch, &inside)?;
        }
        Ok(())
    }
}

pub(super) fn first_means(reader: &mut Reader<'_>, preprocess: &Preprocess) -> Result<Vec<f64>> {
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

/// What stays in memory of the rows that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Everything: encoded, not yet standardised features, and labels. For values that float32 holds.
    Rows,
    /// Labels: features are read once more when moments are known.
    Labels,
    /// Nothing: rows are read for every pass.
    Nothing,
}

/// What the main pass collects.
pub(super) struct Gathered {
    /// As [`Keep`] says; features not yet standardised, and targets as stored.
    pub(super) rows: RowBuffer,
    /// Text targets as met here; the buffer's targets are positions in it until all ranks agree.
    strings: Vec<String>,
    pub(super) seen: Seen,
    /// Of dense columns.
    pub(super) moments: Vec<BlockMoments>,
    /// Of sparse ones.
    pub(super) ranges: Ranges,
    pub(super) digest: InputDigest,
    pub(super) moments_s: f64,
    /// Keeping and hashing rows, which is part of reading.
    encode_s: f64,
}

impl Gathered {
    /// Nothing yet, with room for the labels of `n` rows.
    pub(super) fn with_room(
        reader: &Reader<'_>,
        n: usize,
        n_features: usize,
        config: &TrainConfig,
        hold: Option<HeldOut>,
    ) -> Gathered {
        let schema = reader.source.schema();
        Gathered {
            rows: RowBuffer {
                n_features,
                x: Features::default(),
                y: Vec::with_capacity(n * schema.n_targets()),
                weight: Vec::with_capacity(n),
                offset: (schema.has_offset && config.kind == Kind::Poisson).then(|| Vec::with_capacity(n)),
                held_out: hold.map(|_| Vec::with_capacity(n)),
            },
            strings: Vec::new(),
            seen: Seen::default(),
            moments: Vec::new(),
            ranges: Ranges::new(if schema.is_sparse { n_features } else { 0 }),
            digest: InputDigest::default(),
            moments_s: 0.0,
            encode_s: 0.0,
        }
    }

    /// Targets as stored become those of the coding; weights are multiplied by those of their class.
    pub(super) fn code_targets(&mut self, coding: &TargetCoding) {
        let class = |position: std::result::Result<usize, usize>| position.map_or(-1.0, |position| position as f64);
        match coding {
            TargetCoding::Number | TargetCoding::Numbers(_) => {}
            TargetCoding::Integers(classes) => {
                self.rows.y.iter_mut().for_each(|y| *y = class(classes.binary_search(&(*y as i64))));
            }
            TargetCoding::Strings(classes) => {
                let positions: Vec<f64> = self.strings.iter().map(|s| class(classes.binary_search(s))).collect();
                self.rows.y.iter_mut().for_each(|y| *y = positions[*y as usize]);
            }
        }
    }
}

pub(super) fn gather(
    reader: &mut Reader<'_>,
    preprocess: &Preprocess,
    shift: &[f64],
    config: &TrainConfig,
    hold: Option<HeldOut>,
    keep: Keep,
) -> Result<Gathered> {
    let d = preprocess.n_features();
    let n = if keep == Keep::Nothing { 0 } else { reader.n_rows() };
    let mut out = Gathered::with_room(reader, n, d, config, hold);
    let mut positions = BTreeMap::new();
    let has_text = reader.source.schema().target == Some(TargetKind::Text);
    let as_stored = keep == Keep::Rows && preprocess.is_plain() && !has_text;
    // Values that are kept as they are stored are read in one batch, which becomes the rows.
    let batch_rows = if as_stored { u64::MAX } else { reader.batch_rows };
    if keep == Keep::Rows && !as_stored {
        *values_of(&mut out.rows.x) = in_large_pages(Vec::with_capacity(n * d));
    }
    reader.pass_in(batch_rows, |batch, blocks| {
        out.seen.add(config.responds_as(), batch)?;
        if keep != Keep::Rows {
            let began = Instant::now();
            let weights = weights_of(batch, config.seed, hold);
            match &batch.values {
                Values::Sparse(_) => out.ranges.add(batch, preprocess, &weights)?,
                _ => out.moments.extend(moments_of_batch(batch, blocks, preprocess, &weights, shift)?),
            }
            out.moments_s += began.elapsed().as_secs_f64();
        }
        if keep != Keep::Nothing {
            keep_labels(batch, config.seed, hold, &mut out, &mut positions);
        }
        let began = Instant::now();
        out.digest.merge(&digest_of(batch));
        match &mut batch.values {
            Values::F32(values) if as_stored => *values_of(&mut out.rows.x) = std::mem::take(values),
            _ if keep == Keep::Rows => keep_encoded(batch, blocks, preprocess, values_of(&mut out.rows.x))?,
            _ => {}
        }
        out.encode_s += began.elapsed().as_secs_f64();
        Ok(())
    })?;
    if keep == Keep::Rows {
        reader.batch = Block::empty();
        let began = Instant::now();
        out.moments = moments_of_kept(reader, &mut out.rows, shift);
        out.moments_s = began.elapsed().as_secs_f64();
    }
    reader.read_s += out.encode_s;
    Ok(out)
}

/// Appends the batch's labels as stored.
pub(super) fn keep_labels(
    batch: &Block,
    seed: u64,
    hold: Option<HeldOut>,
    out: &mut Gathered,
    positions: &mut BTreeMap<String, usize>,
) {
    let rows = &mut out.rows;
    match &batch.target {
        Targets::None => {}
        Targets::Number(values) => rows.y.extend_from_slice(values),
        Targets::Text(values) => {
            for value in values {
                let next = positions.len();
                let position = *positions.entry(value.clone()).or_insert(next);
                if position == out.strings.len() {
                    out.strings.push(value.clone());
                }
                rows.y.push(position as f64);
            }
        }
    }
    let first = rows.weight.len();
    match &batch.weight {
        Some(weight) => rows.weight.extend_from_slice(weight),
        None => rows.weight.resize(first + batch.n_rows, 1.0),
    }
    if let (Some(all), Some(offset)) = (&mut rows.offset, &batch.offset) {
        all.extend_from_slice(offset);
    }
    if let (Some(held_out), Some(hold)) = (&mut rows.held_out, hold) {
        for (i, w) in rows.weight[first..].iter_mut().enumerate() {
            let is_out = hold.holds_out(seed, batch.first_row + i as u64);
            held_out.push(if is_out { std::mem::take(w) } else { 0.0 });
        }
    }
}

/// Weights of rows that take part: those held out have weight 0.
pub(super) fn weights_of(batch: &Block, seed: u64, hold: Option<HeldOut>) -> Vec<f64> {
    let mut weights = batch.weight.clone().unwrap_or_else(|| vec![1.0; batch.n_rows]);
    if let Some(hold) = hold {
        for (i, w) in weights.iter_mut().enumerate() {
            if hold.holds_out(seed, batch.first_row + i as u64) {
                *w = 0.0;
            }
        }
    }
    weights
}

/// The digest of a batch, its runs of rows shared out to threads.
pub(super) fn digest_of(batch: &Block) -> InputDigest {
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
fn keep_encoded(batch: &Block, blocks: &[Range<usize>], preprocess: &Preprocess, x: &mut Vec<f32>) -> Result<()> {
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

/// Moments of the blocks here around another shift: of the rows that were kept, or of one more reading. Not collective.
pub(super) fn moments_around(
    reader: &mut Reader<'_>,
    preprocess: &Preprocess,
    gathered: &mut Gathered,
    shift: &[f64],
    config: &TrainConfig,
    hold: Option<HeldOut>,
    keep: Keep,
) -> Result<Vec<BlockMoments>> {
    if keep == Keep::Rows {
        return Ok(moments_of_kept(reader, &mut gathered.rows, shift));
    }
    let mut moments = Vec::with_capacity(reader.blocks.len());
    reader.pass(|batch, blocks| {
        let weights = weights_of(batch, config.seed, hold);
        moments.extend(moments_of_batch(batch, blocks, preprocess, &weights, shift)?);
        Ok(())
    })?;
    Ok(moments)
}

/// Moments of each block of kept rows.
fn moments_of_kept(reader: &Reader<'_>, kept: &mut RowBuffer, shift: &[f64]) -> Vec<BlockMoments> {
    let x = &*values_of(&mut kept.x);
    let (d, first_row) = (shift.len(), reader.first_row());
    let of_block = |rows: &Range<u64>| {
        let rows = (rows.start - first_row) as usize..(rows.end - first_row) as usize;
        kept_moments(&x[rows.start * d..rows.end * d], &kept.weight[rows], shift)
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
    if let (Values::F32(values), true) = (&batch.values, preprocess.is_plain()) {
        return Ok(kept_moments(&values[block.start * shift.len()..block.end * shift.len()], &weight[block], shift));
    }
    let mut moments = BlockMoments::new(shift.len());
    let mut row = vec![0.0; shift.len()];
    for i in block {
        preprocess.encode_row(batch, i, &mut row)?;
        moments.add_row(&row, weight[i], shift);
    }
    Ok(moments)
}

/// Moments of one block of rows as they are stored, (rows, features).
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

pub(super) fn standardise_in_place(x: &mut Features, preprocess: &Preprocess) {
    let x = values_of(x);
    let d = preprocess.n_features().max(1);
    x.par_chunks_mut(d * 1024).for_each(|rows| standardise(rows, &preprocess.mean, &preprocess.inverse_scale));
}

/// The values of rows that are kept as stored, which only dense ones are.
fn values_of(x: &mut Features) -> &mut Vec<f32> {
    match x {
        Features::Dense(values) => values,
        Features::Sparse(_) => panic!("sparse rows are read again when their scales are known"),
    }
}

/// Second reading of a table that float32 cannot hold as stored, or that is sparse. Returns rows and seconds of standardising.
pub(super) fn fill(reader: &mut Reader<'_>, preprocess: &Preprocess) -> Result<(Features, f64)> {
    let (is_sparse, n_rows) = (reader.source.schema().is_sparse, reader.n_rows());
    let mut x = Features::empty(is_sparse);
    match &mut x {
        Features::Dense(x) => *x = in_large_pages(Vec::with_capacity(n_rows * preprocess.n_features())),
        Features::Sparse(rows) => rows.reserve_exact(n_rows, reader.count.total as usize),
    }
    let (mut at, mut seconds) = (0, 0.0);
    reader.pass(|batch, blocks| {
        let began = Instant::now();
        encode_from(at, batch, blocks, preprocess, &mut x)?;
        at += batch.n_rows;
        seconds += began.elapsed().as_secs_f64();
        Ok(())
    })?;
    Ok((x, seconds))
}
