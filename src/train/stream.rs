//! Rows that do not fit into memory: read, encoded and standardised anew for every pass, the next ones while threads work on
//! those that are there, but for as many as fit, which stay. Blocks, their order and their bits are those of a table in memory.

use super::Streamed;
use super::gather::standardise_in_place;
use super::prepare::HeldOut;
use super::table::RowBuffer;
use crate::data::{Block, DataSource, Targets, Values};
use crate::error::{Error, Result};
use crate::model::preprocess::{standardise, standardised};
use crate::model::{Features, Preprocess, TargetCoding};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How targets and weights come from what is stored.
#[derive(Clone, Debug)]
pub struct LabelCoding {
    pub target: TargetCoding,
    /// What weights of each class are multiplied by; empty: nothing.
    pub class_factor: Vec<f64>,
    pub hold: Option<HeldOut>,
    pub seed: u64,
    /// Offsets are looked at.
    pub with_offset: bool,
}

/// A table's rows behind their source.
pub struct Stream<'s> {
    source: Mutex<Source<'s>>,
    pub preprocess: Preprocess,
    labels: LabelCoding,
    pub is_sparse: bool,
    /// Global rows of the blocks here, in order.
    blocks: Vec<Range<u64>>,
    /// Runs of blocks that are read together.
    batches: Vec<Range<usize>>,
    buffers: Mutex<Buffers>,
}

#[derive(Default)]
struct Buffers {
    /// One is worked on, the other is filled.
    turns: [RowBuffer; 2],
    /// By batch: room for those that stay once they were read, spread over the table.
    kept: Vec<Option<Kept>>,
}

#[derive(Default)]
struct Kept {
    rows: RowBuffer,
    is_filled: bool,
}

struct Source<'s> {
    rows: &'s mut dyn DataSource,
    /// As stored; reused.
    raw: Block,
    read: Duration,
    waited: Duration,
    n_rows: u64,
}

impl Source<'_> {
    fn read(&mut self, rows: Range<u64>) -> Result<()> {
        let began = Instant::now();
        self.n_rows += rows.end - rows.start;
        self.rows.read(rows, &mut self.raw)?;
        self.read += began.elapsed();
        Ok(())
    }
}

impl<'s> Stream<'s> {
    /// * `blocks`: those of this rank.
    /// * `batch_rows`: rows that are read together, at most, unless a block has more.
    /// * `kept_rows`: rows that may stay in memory beside them.
    pub fn new(
        source: &'s mut dyn DataSource,
        preprocess: Preprocess,
        labels: LabelCoding,
        blocks: Vec<Range<u64>>,
        batch_rows: u64,
        kept_rows: u64,
    ) -> Stream<'s> {
        let batches = batches_of(&blocks, batch_rows, source.chunk_rows());
        let is_sparse = source.schema().is_sparse;
        let source =
            Source { rows: source, raw: Block::empty(), read: Duration::ZERO, waited: Duration::ZERO, n_rows: 0 };
        let rows_of = |batch: &Range<usize>| blocks[batch.end - 1].end - blocks[batch.start].start;
        let n_kept = kept_rows / batches.iter().map(rows_of).max().unwrap_or(1).max(1);
        let n_batches = batches.len() as u64;
        let stays = |number: u64| (number + 1) * n_kept / n_batches > number * n_kept / n_batches;
        let kept = (0..n_batches).map(|number| stays(number).then(Kept::default)).collect();
        let buffers = Mutex::new(Buffers { turns: Default::default(), kept });
        Stream { source: Mutex::new(source), preprocess, labels, is_sparse, blocks, batches, buffers }
    }

    /// From now on weights are multiplied by the factor of their class.
    pub fn weigh_classes(&mut self, factors: Vec<f64>) {
        self.labels.class_factor = factors;
        let buffers = self.buffers.get_mut().unwrap_or_else(PoisonError::into_inner);
        buffers.kept.iter_mut().flatten().for_each(|kept| kept.is_filled = false);
    }

    /// As [`Table::each_batch`](super::table::Table::each_batch).
    pub fn each_batch(&self, mut visit: impl FnMut(&RowBuffer, &[Range<usize>], u64) + Send) -> Result<()> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { turns: [now, next], kept } = &mut *buffers;
        let (mut now, mut next) = (now, next);
        let must_read = |kept: &[Option<Kept>], number: usize| kept[number].as_ref().is_none_or(|kept| !kept.is_filled);
        // The batch that `next` holds.
        let mut ahead = None;
        for number in 0..self.batches.len() {
            let is_new = must_read(kept, number);
            if is_new && ahead.take() != Some(number) {
                let began = Instant::now();
                self.fill(number, next)?;
                self.lock_source().waited += began.elapsed();
            }
            if is_new && let Some(kept) = &mut kept[number] {
                kept.is_filled = true;
                std::mem::swap(&mut kept.rows, next);
            } else if is_new {
                std::mem::swap(&mut now, &mut next);
            }
            let rows = kept[number].as_ref().map_or(&*now, |kept| &kept.rows);
            let first_row = self.blocks[self.batches[number].start].start;
            let inside: Vec<Range<usize>> = self.blocks[self.batches[number].clone()]
                .iter()
                .map(|rows| (rows.start - first_row) as usize..(rows.end - first_row) as usize)
                .collect();
            let following = match ahead {
                None => (number + 1..self.batches.len()).find(|&later| must_read(kept, later)),
                Some(_) => None,
            };
            let began = Instant::now();
            let (worked, filled) = rayon::join(
                || {
                    visit(rows, &inside, first_row);
                    began.elapsed()
                },
                || following.map_or(Ok(()), |later| self.fill(later, next)),
            );
            filled?;
            ahead = ahead.or(following);
            self.lock_source().waited += began.elapsed().saturating_sub(worked);
        }
        Ok(())
    }

    /// As [`Table::each_labels`](super::table::Table::each_labels).
    pub fn each_labels(&self, mut visit: impl FnMut(&[f64], &[f64], Option<&[f64]>)) -> Result<()> {
        let mut buffer = RowBuffer::default();
        let mut source = self.lock_source();
        let source = &mut *source;
        for batch in &self.batches {
            source.rows.read_labels(self.rows_of(batch), &mut source.raw)?;
            self.labels.code(&source.raw, &mut buffer)?;
            visit(&buffer.y, &buffer.weight, buffer.offset.as_deref());
        }
        Ok(())
    }

    /// Appends runs of global rows to `into`, in this order.
    pub fn read_runs(&self, runs: &[Range<u64>], into: &mut RowBuffer) -> Result<()> {
        let mut source = self.lock_source();
        let source = &mut *source;
        let mut run_rows = RowBuffer::default();
        let n_rows = runs.iter().map(|run| (run.end - run.start) as usize).sum();
        self.make_kind(&mut into.x);
        if let Features::Dense(x) = &mut into.x {
            x.reserve_exact(n_rows * self.preprocess.n_features());
        }
        into.y.reserve_exact(n_rows);
        into.weight.reserve_exact(n_rows);
        for run in runs {
            source.read(run.clone())?;
            self.labels.code(&source.raw, &mut run_rows)?;
            let rows = 0..source.raw.n_rows;
            encode_from(into.y.len(), &source.raw, std::slice::from_ref(&rows), &self.preprocess, &mut into.x)?;
            into.append_labels(&run_rows);
        }
        Ok(())
    }

    /// What reading has cost so far.
    pub fn costs(&self) -> Streamed {
        let source = self.lock_source();
        Streamed { read_s: source.read.as_secs_f64(), wait_s: source.waited.as_secs_f64(), rows: source.n_rows }
    }

    fn rows_of(&self, batch: &Range<usize>) -> Range<u64> {
        self.blocks[batch.start].start..self.blocks[batch.end - 1].end
    }

    fn fill(&self, number: usize, into: &mut RowBuffer) -> Result<()> {
        let batch = &self.batches[number];
        let rows = self.rows_of(batch);
        let first = rows.start;
        let mut source = self.lock_source();
        let source = &mut *source;
        self.make_kind(&mut into.x);
        if self.preprocess.is_plain() {
            exchange(&mut source.raw.values, &mut into.x);
        }
        source.read(rows)?;
        self.labels.code(&source.raw, into)?;
        into.n_features = self.preprocess.n_features();
        if self.preprocess.is_plain() && exchange(&mut source.raw.values, &mut into.x) {
            standardise_in_place(&mut into.x, &self.preprocess);
            return Ok(());
        }
        let inside: Vec<Range<usize>> = self.blocks[batch.clone()]
            .iter()
            .map(|rows| (rows.start - first) as usize..(rows.end - first) as usize)
            .collect();
        encode_from(0, &source.raw, &inside, &self.preprocess, &mut into.x)
    }

    /// A buffer that was never filled is of no kind yet.
    fn make_kind(&self, x: &mut Features) {
        if x.is_sparse() != self.is_sparse {
            *x = Features::empty(self.is_sparse);
        }
    }

    fn lock_source(&self) -> std::sync::MutexGuard<'_, Source<'s>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exchanges values as stored and the memory for values that are ready, where they are of one kind.
fn exchange(values: &mut Values, x: &mut Features) -> bool {
    match (values, x) {
        (Values::F32(values), Features::Dense(x)) => std::mem::swap(values, x),
        _ => return false,
    }
    true
}

/// Runs of blocks that are read together, of at most so many rows unless a block has more. They begin near multiples of the rows that
/// are decoded together, and leave every thread as many chunks as the others where there is room for that.
pub fn batches_of(blocks: &[Range<u64>], batch_rows: u64, chunk_rows: u64) -> Vec<Range<usize>> {
    let longest = blocks.iter().map(|block| block.end - block.start).max().unwrap_or(0);
    let room = batch_rows.saturating_sub(longest).max(1);
    let units = [chunk_rows.saturating_mul(rayon::current_num_threads() as u64), chunk_rows, 1];
    let unit = units.into_iter().find(|&unit| unit <= room).unwrap_or(1);
    let step = room / unit * unit;
    let mut batches: Vec<Range<usize>> = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if block.start / step == blocks[batch.start].start / step => batch.end = number + 1,
            _ => batches.push(number..number + 1),
        }
    }
    batches
}

impl RowBuffer {
    /// No rows, and the memory there is.
    pub fn clear(&mut self) {
        self.x.clear();
        self.y.clear();
        self.weight.clear();
        self.offset = None;
        self.held_out = None;
    }

    fn append_labels(&mut self, other: &RowBuffer) {
        self.y.extend_from_slice(&other.y);
        self.weight.extend_from_slice(&other.weight);
        for (all, more) in [(&mut self.offset, &other.offset), (&mut self.held_out, &other.held_out)] {
            if let Some(more) = more {
                all.get_or_insert_default().extend_from_slice(more);
            }
        }
    }
}

impl LabelCoding {
    /// Replaces targets, weights and offsets of `into` by those of the block.
    pub fn code(&self, block: &Block, into: &mut RowBuffer) -> Result<()> {
        into.y.clear();
        match (&self.target, &block.target) {
            (TargetCoding::Number, Targets::Number(values)) => into.y.extend_from_slice(values),
            (TargetCoding::Integers(classes), Targets::Number(values)) => {
                for value in values {
                    into.y.push(class_of(classes.binary_search(&(*value as i64)).ok())?);
                }
            }
            (TargetCoding::Strings(classes), Targets::Text(values)) => {
                for value in values {
                    into.y.push(class_of(classes.binary_search(value).ok())?);
                }
            }
            _ => return Err(Error::data("its target changed while it was read")),
        }
        into.weight.clear();
        match &block.weight {
            Some(weight) => into.weight.extend_from_slice(weight),
            None => into.weight.resize(block.n_rows, 1.0),
        }
        into.held_out = self.hold.map(|hold| {
            let mut held_out = vec![0.0; block.n_rows];
            for (i, (w, out)) in into.weight.iter_mut().zip(&mut held_out).enumerate() {
                if hold.holds_out(self.seed, block.first_row + i as u64) {
                    *out = std::mem::take(w);
                }
            }
            held_out
        });
        if !self.class_factor.is_empty() {
            into.weight.iter_mut().zip(&into.y).for_each(|(w, y)| *w *= self.class_factor[*y as usize]);
        }
        into.offset = block.offset.clone().filter(|_| self.with_offset);
        Ok(())
    }
}

fn class_of(position: Option<usize>) -> Result<f64> {
    match position {
        Some(class) => Ok(class as f64),
        None => Err(Error::data("its target changed while it was read: there is a class that was not there before")),
    }
}

/// Puts the standardised rows of a batch, in these blocks, behind the first `n_before` rows of `into`, in place of what is there.
pub fn encode_from(
    n_before: usize,
    batch: &Block,
    blocks: &[Range<usize>],
    preprocess: &Preprocess,
    into: &mut Features,
) -> Result<()> {
    match into {
        Features::Dense(x) => {
            let d = preprocess.n_features();
            x.resize((n_before + batch.n_rows) * d, 0.0);
            encode(batch, blocks, preprocess, &mut x[n_before * d..])
        }
        Features::Sparse(rows) => {
            rows.truncate(n_before);
            preprocess.standardise_sparse(batch, 0..batch.n_rows, rows)
        }
    }
}

/// Standardised rows of these blocks of a batch into `out`, (rows, features): every value from the stored one, rounded once.
pub fn encode(batch: &Block, blocks: &[Range<usize>], preprocess: &Preprocess, out: &mut [f32]) -> Result<()> {
    let d = preprocess.n_features();
    let parts = cut(out, blocks, d);
    let is_plain = preprocess.is_plain();
    let done: Result<Vec<()>> = blocks
        .par_iter()
        .zip(parts)
        .map(|(block, part)| {
            if let (Values::F32(values), true) = (&batch.values, is_plain) {
                part.copy_from_slice(&values[block.start * d..block.end * d]);
                standardise(part, &preprocess.mean, &preprocess.inverse_scale);
                return Ok(());
            }
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
    done.map(|_| ())
}

/// The rows of each block, (rows, width), out of those of a batch.
pub fn cut<'x>(mut rows: &'x mut [f32], blocks: &[Range<usize>], width: usize) -> Vec<&'x mut [f32]> {
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, rest) = rows.split_at_mut(block.len() * width);
        parts.push(part);
        rows = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_block_once_within_their_rows_and_end_near_chunks() {
        for (first, block, n_blocks) in [(0, 64, 40), (640, 64, 33), (0, 1000, 7), (96, 48, 100), (0, 16, 0)] {
            let blocks: Vec<Range<u64>> = (0..n_blocks).map(|i| first + i * block..first + (i + 1) * block).collect();
            for (batch_rows, chunk_rows) in [(1, 1), (200, 1), (700, 100), (700, 128), (5000, 512), (u64::MAX, 8192)] {
                let batches = batches_of(&blocks, batch_rows, chunk_rows);
                assert!(batches.iter().cloned().flatten().eq(0..blocks.len()), "{batch_rows} {chunk_rows}");
                for batch in &batches {
                    let n_rows = blocks[batch.end - 1].end - blocks[batch.start].start;
                    assert!(n_rows <= batch_rows || batch.len() == 1, "{n_rows} rows where {batch_rows} are read");
                    let since_chunk = blocks[batch.start].start % chunk_rows;
                    let is_near = since_chunk < block || batch.start == 0 || chunk_rows + block > batch_rows;
                    assert!(is_near, "{since_chunk} rows behind the beginning of a chunk");
                }
            }
        }
    }
}
