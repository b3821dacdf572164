//! Rows that do not fit into memory: read, encoded and standardised anew for every pass, but for as many as fit, which stay. Where
//! order does not matter each thread reads rows for itself and works on them; else the next ones are read while threads work on those
//! that are there. Blocks, their order and their bits are those of a table in memory.

use super::Streamed;
use super::gather::standardise_in_place;
use super::memory::MemoryPlan;
use super::prepare::HeldOut;
use super::table::RowBuffer;
use crate::data::{Block, DataSource, Targets, Values};
use crate::error::{Error, Result};
use crate::model::preprocess::{standardise, standardised};
use crate::model::{Features, Preprocess, TargetCoding};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Each has a source of its own; the first serves whatever is read by one thread at a time.
    readers: Vec<Mutex<Reader<'s>>>,
    pub preprocess: Preprocess,
    labels: LabelCoding,
    pub is_sparse: bool,
    /// Global rows of the blocks here, in order.
    blocks: Vec<Range<u64>>,
    /// Runs of blocks that one reader reads at a time.
    pieces: Vec<Range<usize>>,
    /// Runs of blocks that all threads work on at a time.
    batches: Vec<Range<usize>>,
    /// By piece: room for those that stay once they were read, spread over the table.
    kept: Vec<Option<Mutex<Kept>>>,
    costs: Mutex<Costs>,
}

#[derive(Default)]
struct Kept {
    rows: RowBuffer,
    is_filled: bool,
}

#[derive(Default)]
struct Costs {
    read: Duration,
    waited: Duration,
}

struct Reader<'s> {
    source: Source<'s>,
    /// As stored; reused.
    raw: Block,
    /// Ready; reused.
    rows: RowBuffer,
    read: Duration,
    n_rows: u64,
}

enum Source<'s> {
    Given(&'s mut dyn DataSource),
    Another(Box<dyn DataSource>),
}

impl Source<'_> {
    fn get(&mut self) -> &mut dyn DataSource {
        match self {
            Source::Given(source) => *source,
            Source::Another(source) => &mut **source,
        }
    }
}

impl<'s> Reader<'s> {
    fn new(source: Source<'s>) -> Mutex<Reader<'s>> {
        let (raw, rows) = (Block::empty(), RowBuffer::default());
        Mutex::new(Reader { source, raw, rows, read: Duration::ZERO, n_rows: 0 })
    }

    fn read(&mut self, rows: Range<u64>) -> Result<()> {
        let began = Instant::now();
        self.n_rows += rows.end - rows.start;
        self.source.get().read(rows, &mut self.raw)?;
        self.read += began.elapsed();
        Ok(())
    }
}

impl<'s> Stream<'s> {
    /// * `blocks`: those of this rank.
    pub fn new(
        source: &'s mut dyn DataSource,
        preprocess: Preprocess,
        labels: LabelCoding,
        blocks: Vec<Range<u64>>,
        memory: MemoryPlan,
    ) -> Stream<'s> {
        if let Some(bytes) = memory.source_bytes {
            source.limit_memory(bytes);
        }
        let is_sparse = source.schema().is_sparse;
        let pieces = batches_of(&blocks, memory.piece_rows, source.chunk_rows(), 1);
        let batches = batches_of(&blocks, memory.batch_rows, source.chunk_rows(), rayon::current_num_threads() as u64);
        let others: Vec<_> = (1..memory.n_readers).map_while(|_| source.another()).map(Source::Another).collect();
        let readers = std::iter::once(Source::Given(source)).chain(others).map(Reader::new).collect();
        let rows_of = |piece: &Range<usize>| blocks[piece.end - 1].end - blocks[piece.start].start;
        let n_kept = memory.kept_rows / pieces.iter().map(rows_of).max().unwrap_or(1).max(1);
        let n_pieces = pieces.len() as u64;
        let stays = |number: u64| (number + 1) * n_kept / n_pieces > number * n_kept / n_pieces;
        let kept = (0..n_pieces).map(|number| stays(number).then(Mutex::default)).collect();
        Stream { readers, preprocess, labels, is_sparse, blocks, pieces, batches, kept, costs: Mutex::default() }
    }

    /// From now on weights are multiplied by the factor of their class.
    pub fn weigh_classes(&mut self, factors: Vec<f64>) {
        self.labels.class_factor = factors;
        for kept in self.kept.iter_mut().flatten() {
            kept.get_mut().unwrap_or_else(PoisonError::into_inner).is_filled = false;
        }
    }

    /// How many threads read at the same time.
    pub fn n_readers(&self) -> usize {
        self.readers.len()
    }

    /// Calls `visit` with every run of a few whole blocks: rows, blocks among them, and the global number of the first row. Each of
    /// `states`, of which there are no more than readers, has a thread that reads and visits rows of its own, so that decoded rows are
    /// worked on in the cache they are in and no thread waits for another. Which state sees what is left to the clock.
    pub fn each_piece<S: Send>(
        &self,
        states: &mut [S],
        visit: impl Fn(&mut S, &RowBuffer, &[Range<usize>], u64) + Sync,
    ) -> Result<()> {
        let n_readers = states.len();
        let next = Mutex::new(0);
        let pass = |(state, reader): (&mut S, &Mutex<Reader<'_>>)| -> Result<Duration> {
            let reader = &mut *lock(reader);
            let before = reader.read;
            loop {
                let run = self.next_run(&mut lock(&next), n_readers);
                if run.is_empty() {
                    return Ok(reader.read - before);
                }
                for number in run {
                    let read =
                        self.visit_piece(reader, number, |rows, inside, first| visit(state, rows, inside, first));
                    if read.is_err() {
                        *lock(&next) = self.pieces.len();
                    }
                    read?;
                }
            }
        };
        let passed: Vec<Result<Duration>> =
            states.par_iter_mut().zip(&self.readers).with_max_len(1).map(pass).collect();
        let mut costs = lock(&self.costs);
        for read in passed {
            let of_mean = read? / n_readers as u32;
            costs.read += of_mean;
            costs.waited += of_mean;
        }
        Ok(())
    }

    /// Pieces for a reader that has none: a part of those that are left, so that chunks between two pieces are decoded once, and
    /// all readers end at about the same time.
    fn next_run(&self, next: &mut usize, n_readers: usize) -> Range<usize> {
        let first = *next;
        *next += (self.pieces.len() - first).div_ceil(2 * n_readers);
        first..*next
    }

    fn visit_piece(
        &self,
        reader: &mut Reader<'_>,
        number: usize,
        visit: impl FnOnce(&RowBuffer, &[Range<usize>], u64),
    ) -> Result<()> {
        let piece = &self.pieces[number];
        let first_row = self.blocks[piece.start].start;
        if let Some(kept) = &self.kept[number] {
            let kept = &mut *lock(kept);
            if !kept.is_filled {
                self.fill(reader, piece, &mut kept.rows)?;
                kept.is_filled = true;
            }
            visit(&kept.rows, &self.inside(piece), first_row);
            return Ok(());
        }
        let mut rows = std::mem::take(&mut reader.rows);
        let filled = self.fill(reader, piece, &mut rows);
        if filled.is_ok() {
            visit(&rows, &self.inside(piece), first_row);
        }
        reader.rows = rows;
        filled
    }

    /// As [`Table::each_batch`](super::table::Table::each_batch): the next rows are read while threads work on those that are there.
    pub fn each_batch(&self, mut visit: impl FnMut(&RowBuffer, &[Range<usize>], u64) + Send) -> Result<()> {
        for reader in &self.readers {
            let mut reader = lock(reader);
            (reader.raw, reader.rows) = (Block::empty(), RowBuffer::default());
        }
        let reader = &mut *lock(&self.readers[0]);
        let before = reader.read;
        let (mut now, mut next) = (RowBuffer::default(), RowBuffer::default());
        let mut waited = Duration::ZERO;
        if let Some(first) = self.batches.first() {
            let began = Instant::now();
            self.fill(reader, first, &mut next)?;
            waited += began.elapsed();
        }
        for (number, batch) in self.batches.iter().enumerate() {
            std::mem::swap(&mut now, &mut next);
            let began = Instant::now();
            let (worked, filled) = rayon::join(
                || {
                    visit(&now, &self.inside(batch), self.blocks[batch.start].start);
                    began.elapsed()
                },
                || self.batches.get(number + 1).map_or(Ok(()), |batch| self.fill(reader, batch, &mut next)),
            );
            filled?;
            waited += began.elapsed().saturating_sub(worked);
        }
        reader.raw = Block::empty();
        let mut costs = lock(&self.costs);
        costs.read += reader.read - before;
        costs.waited += waited;
        Ok(())
    }

    /// As [`Table::each_labels`](super::table::Table::each_labels).
    pub fn each_labels(&self, mut visit: impl FnMut(&[f64], &[f64], Option<&[f64]>)) -> Result<()> {
        let mut buffer = RowBuffer::default();
        let reader = &mut *lock(&self.readers[0]);
        for batch in &self.batches {
            reader.source.get().read_labels(self.rows_of(batch), &mut reader.raw)?;
            self.labels.code(&reader.raw, &mut buffer)?;
            visit(&buffer.y, &buffer.weight, buffer.offset.as_deref());
        }
        reader.raw = Block::empty();
        Ok(())
    }

    /// Appends runs of global rows to `into`, in this order.
    pub fn read_runs(&self, runs: &[Range<u64>], into: &mut RowBuffer) -> Result<()> {
        let reader = &mut *lock(&self.readers[0]);
        let before = reader.read;
        let mut run_rows = RowBuffer::default();
        let n_rows = runs.iter().map(|run| (run.end - run.start) as usize).sum();
        self.make_kind(&mut into.x);
        if let Features::Dense(x) = &mut into.x {
            x.reserve_exact(n_rows * self.preprocess.n_features());
        }
        into.y.reserve_exact(n_rows * self.labels.target.n_targets());
        into.weight.reserve_exact(n_rows);
        for run in runs {
            reader.read(run.clone())?;
            self.labels.code(&reader.raw, &mut run_rows)?;
            let rows = 0..reader.raw.n_rows;
            encode_from(into.weight.len(), &reader.raw, std::slice::from_ref(&rows), &self.preprocess, &mut into.x)?;
            into.append_labels(&run_rows);
        }
        lock(&self.costs).read += reader.read - before;
        Ok(())
    }

    /// What reading has cost so far.
    pub fn costs(&self) -> Streamed {
        let rows = self.readers.iter().map(|reader| lock(reader).n_rows).sum();
        let costs = lock(&self.costs);
        Streamed { read_s: costs.read.as_secs_f64(), wait_s: costs.waited.as_secs_f64(), rows }
    }

    fn rows_of(&self, batch: &Range<usize>) -> Range<u64> {
        self.blocks[batch.start].start..self.blocks[batch.end - 1].end
    }

    /// Blocks among the rows of a run of them.
    fn inside(&self, batch: &Range<usize>) -> Vec<Range<usize>> {
        let first = self.blocks[batch.start].start;
        let local = |rows: &Range<u64>| (rows.start - first) as usize..(rows.end - first) as usize;
        self.blocks[batch.clone()].iter().map(local).collect()
    }

    fn fill(&self, reader: &mut Reader<'_>, batch: &Range<usize>, into: &mut RowBuffer) -> Result<()> {
        self.make_kind(&mut into.x);
        if self.preprocess.is_plain() {
            exchange(&mut reader.raw.values, &mut into.x);
        }
        reader.read(self.rows_of(batch))?;
        self.labels.code(&reader.raw, into)?;
        into.n_features = self.preprocess.n_features();
        if self.preprocess.is_plain() && exchange(&mut reader.raw.values, &mut into.x) {
            standardise_in_place(&mut into.x, &self.preprocess);
            return Ok(());
        }
        encode_from(0, &reader.raw, &self.inside(batch), &self.preprocess, &mut into.x)
    }

    /// A buffer that was never filled is of no kind yet.
    fn make_kind(&self, x: &mut Features) {
        if x.is_sparse() != self.is_sparse {
            *x = Features::empty(self.is_sparse);
        }
    }
}

fn lock<V>(value: &Mutex<V>) -> MutexGuard<'_, V> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
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
/// are decoded together, and leave each of `threads` as many chunks as the others where there is room for that.
pub fn batches_of(blocks: &[Range<u64>], batch_rows: u64, chunk_rows: u64, threads: u64) -> Vec<Range<usize>> {
    let longest = blocks.iter().map(|block| block.end - block.start).max().unwrap_or(0);
    let room = batch_rows.saturating_sub(longest).max(1);
    let units = [chunk_rows.saturating_mul(threads), chunk_rows, 1];
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
            (TargetCoding::Number | TargetCoding::Numbers(_), Targets::Number(values)) => {
                into.y.extend_from_slice(values)
            }
            (TargetCoding::Integers(classes), Targets::Number(values)) => {
                for value in values {
                    into.y.push(class_of(position(classes, *value as i64))?);
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

/// Where in sorted classes this one is; most are numbers without gaps.
fn position(classes: &[i64], class: i64) -> Option<usize> {
    let guess = class.wrapping_sub(*classes.first()?) as usize;
    match classes.get(guess) == Some(&class) {
        true => Some(guess),
        false => classes.binary_search(&class).ok(),
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
#[path = "stream_tests.rs"]
mod tests;
