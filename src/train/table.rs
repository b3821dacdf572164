//! This rank's rows, ready to train on: in memory, or read from their source for every pass.

use super::Streamed;
use super::stream::Stream;
use crate::comm::Communicator;
use crate::data::partition::RowPlan;
use crate::error::Result;
use crate::model::Features;
use crate::model::linear::Rows;
use crate::rng::{Draws, Stream as DrawStream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Standardised rows of the units this rank owns.
///
/// Not one of its methods talks. Those that pass over rows can fail where these are read: [`agree`](Self::agree) makes that known
/// to all ranks before the next collective.
pub struct Table<'s> {
    pub plan: RowPlan,
    /// Lanes or blocks of the plan that are here.
    pub units: Range<u64>,
    /// Global number of the first row here.
    pub first_row: u64,
    pub n_features: usize,
    pub rows: LocalRows<'s>,
    /// Σ weight over all ranks.
    pub total_weight: f64,
    /// Largest |x| of each feature over all ranks, over rows of weight > 0.
    pub peak: Vec<f64>,
}

/// Where the rows are; the same kind on every rank.
pub enum LocalRows<'s> {
    Memory(RowBuffer),
    Stream(Box<Stream<'s>>),
}

/// Some rows with what belongs to them.
#[derive(Clone, Debug, Default)]
pub struct RowBuffer {
    pub n_features: usize,
    /// Standardised.
    pub x: Features,
    /// Class number or value; where there are several, (rows, targets).
    pub y: Vec<f64>,
    /// Row weight × class weight; 0 for rows that were held out.
    pub weight: Vec<f64>,
    pub offset: Option<Vec<f64>>,
    /// Weight as stored of rows that were held out, 0 for those trained on. None: none were held out.
    pub held_out: Option<Vec<f64>>,
}

impl RowBuffer {
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            n_features: self.n_features,
            x: &self.x,
            y: &self.y,
            weight: &self.weight,
            offset: self.offset.as_deref(),
        }
    }
}

/// One block of a pass.
#[derive(Clone)]
pub struct BlockRows<'a> {
    /// Rows of several blocks.
    pub rows: Rows<'a>,
    /// As in [`RowBuffer`].
    pub held_out: Option<&'a [f64]>,
    /// The block among these rows.
    pub range: Range<usize>,
    /// Global number of the block's first row.
    pub first_row: u64,
}

impl Table<'_> {
    /// Calls `visit` with runs of whole blocks in order: rows, blocks among them, and the global number of the first row.
    pub fn each_batch(&self, mut visit: impl FnMut(&RowBuffer, &[Range<usize>], u64) + Send) -> Result<()> {
        match &self.rows {
            LocalRows::Memory(buffer) => {
                visit(buffer, &self.blocks(), self.first_row);
                Ok(())
            }
            LocalRows::Stream(stream) => stream.each_batch(visit),
        }
    }

    /// What `of_block` makes of every block here, in order; rayon over blocks.
    pub fn map_blocks<R: Send>(&self, of_block: impl Fn(BlockRows<'_>) -> R + Send + Sync) -> Result<Vec<R>> {
        let of_blocks = |buffer: &RowBuffer, blocks: &[Range<usize>], first_row: u64| -> Vec<R> {
            blocks.par_iter().map(|range| of_block(buffer.block(range.clone(), first_row))).collect()
        };
        match &self.rows {
            LocalRows::Memory(buffer) => Ok(of_blocks(buffer, &self.blocks(), self.first_row)),
            LocalRows::Stream(stream) => {
                let mut made: Vec<Vec<(u64, Vec<R>)>> = (0..stream.n_readers()).map(|_| Vec::new()).collect();
                stream.each_piece(&mut made, |made, buffer, blocks, first_row| {
                    made.push((first_row, of_blocks(buffer, blocks, first_row)));
                })?;
                let mut all: Vec<(u64, Vec<R>)> = made.into_iter().flatten().collect();
                all.sort_unstable_by_key(|(first_row, _)| *first_row);
                Ok(all.into_iter().flat_map(|(_, made)| made).collect())
            }
        }
    }

    /// Blocks are added to one accumulator for each thread: which goes where is left to the clock, so that only what merges
    /// exactly may be accumulated.
    pub fn fold_blocks<W: Send>(
        &self,
        new: impl Fn() -> W,
        add: impl Fn(&mut W, BlockRows<'_>) + Send + Sync,
    ) -> Result<Vec<W>> {
        let n_blocks = self.plan.blocks(self.units.clone()).len();
        let mut all: Vec<W> = (0..rayon::current_num_threads().min(n_blocks).max(1)).map(|_| new()).collect();
        let add_blocks = |all: &mut [W], buffer: &RowBuffer, blocks: &[Range<usize>], first_row: u64| {
            share_out(all, blocks, |accumulator, range| add(accumulator, buffer.block(range, first_row)));
        };
        match &self.rows {
            LocalRows::Memory(buffer) => add_blocks(&mut all, buffer, &self.blocks(), self.first_row),
            LocalRows::Stream(stream) => {
                let of_reader = all.len().div_ceil(stream.n_readers());
                let mut readers: Vec<&mut [W]> = all.chunks_mut(of_reader).collect();
                stream.each_piece(&mut readers, |all, buffer, blocks, first_row| {
                    add_blocks(all, buffer, blocks, first_row);
                })?;
            }
        }
        Ok(all)
    }

    pub fn is_sparse(&self) -> bool {
        match &self.rows {
            LocalRows::Memory(buffer) => buffer.x.is_sparse(),
            LocalRows::Stream(stream) => stream.is_sparse,
        }
    }

    /// Values of a row, for lengths that are measured in memory: of a sparse table a guess that does not depend on what is stored.
    pub fn row_values(&self) -> usize {
        if self.is_sparse() { self.n_features.min(SPARSE_ROW_VALUES) } else { self.n_features }
    }

    /// Calls `visit` with targets, weights and offsets of all rows here, in order; features are not read.
    pub fn each_labels(&self, mut visit: impl FnMut(&[f64], &[f64], Option<&[f64]>)) -> Result<()> {
        match &self.rows {
            LocalRows::Memory(buffer) => {
                visit(&buffer.y, &buffer.weight, buffer.offset.as_deref());
                Ok(())
            }
            LocalRows::Stream(stream) => stream.each_labels(visit),
        }
    }

    /// The result of a pass, or on every rank the error of the one where rows could not be read. Collective where rows are
    /// read; in memory nothing can fail.
    pub fn agree<V>(&self, comm: &Communicator, local: Result<V>) -> Result<V> {
        match &self.rows {
            LocalRows::Memory(_) => local,
            LocalRows::Stream(_) => comm.agree(local),
        }
    }

    /// What reading has cost, where rows are read for every pass.
    pub fn streamed(&self) -> Option<Streamed> {
        match &self.rows {
            LocalRows::Memory(_) => None,
            LocalRows::Stream(stream) => Some(stream.costs()),
        }
    }

    /// The rows, where they are in memory.
    pub fn in_memory(&self) -> Option<&RowBuffer> {
        match &self.rows {
            LocalRows::Memory(buffer) => Some(buffer),
            LocalRows::Stream(_) => None,
        }
    }

    /// Blocks here, as ranges of local row numbers, in order.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let local = |row: u64| (row - self.first_row) as usize;
        self.plan.blocks(self.units.clone()).into_iter().map(|rows| local(rows.start)..local(rows.end)).collect()
    }

    /// One row of every `step` global rows, which one by a draw; in memory. `total_weight` is left for the caller, who has the
    /// ranks to add over; `peak` stays that of all rows.
    ///
    /// # Panics
    /// As [`RowPlan::thinned`].
    pub fn thinned(&self, step: u64, seed: u64) -> Result<Table<'static>> {
        let draws = Draws::new(seed, DrawStream::Thin);
        let is_sparse = self.is_sparse();
        let of_block = |block: BlockRows<'_>| {
            let n_rows = block.range.len() as u64;
            let chosen = (0..n_rows).step_by(step as usize).map(|run| {
                let drawn = draws.below(step.min(n_rows - run), (block.first_row + run) / step, 0);
                block.range.start + (run + drawn) as usize
            });
            let (x, offset) = (Features::empty(is_sparse), block.rows.offset.map(|_| Vec::new()));
            let mut thin = RowBuffer { x, offset, ..RowBuffer::default() };
            let n_targets = block.rows.n_targets();
            for i in chosen {
                thin.x.push(block.rows.row(i));
                thin.y.extend_from_slice(&block.rows.y[i * n_targets..(i + 1) * n_targets]);
                thin.weight.push(block.rows.weight[i]);
                if let (Some(all), Some(offset)) = (&mut thin.offset, block.rows.offset) {
                    all.push(offset[i]);
                }
            }
            thin
        };
        let x = Features::empty(is_sparse);
        let mut rows = RowBuffer { n_features: self.n_features, x, ..RowBuffer::default() };
        for block in self.map_blocks(of_block)? {
            rows.x.append(&block.x);
            rows.y.extend(block.y);
            rows.weight.extend(block.weight);
            if let Some(offset) = block.offset {
                rows.offset.get_or_insert_default().extend(offset);
            }
        }
        Ok(Table {
            plan: self.plan.thinned(step),
            units: self.units.clone(),
            first_row: self.first_row / step,
            n_features: self.n_features,
            rows: LocalRows::Memory(rows),
            total_weight: 0.0,
            peak: self.peak.clone(),
        })
    }

    /// Multiplies the weight of every row by the factor of its class.
    pub fn multiply_weights(&mut self, of_class: Vec<f64>) {
        match &mut self.rows {
            LocalRows::Memory(buffer) => {
                buffer.weight.iter_mut().zip(&buffer.y).for_each(|(w, y)| *w *= of_class[*y as usize]);
            }
            LocalRows::Stream(stream) => stream.weigh_classes(of_class),
        }
    }

    /// Lanes here, if the plan is one of lanes.
    pub fn lanes(&self) -> Range<u64> {
        self.units.clone()
    }
}

/// What a row of a sparse table is taken to hold.
const SPARSE_ROW_VALUES: usize = 64;

/// Blocks are added to one accumulator for each thread: which goes where is left to the clock.
pub fn share_out<W: Send>(all: &mut [W], blocks: &[Range<usize>], add: impl Fn(&mut W, Range<usize>) + Send + Sync) {
    let next = AtomicUsize::new(0);
    all.par_iter_mut().for_each(|accumulator| {
        while let Some(range) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
            add(accumulator, range.clone());
        }
    });
}

impl RowBuffer {
    fn block(&self, range: Range<usize>, first_row: u64) -> BlockRows<'_> {
        let first_row = first_row + range.start as u64;
        BlockRows { rows: self.rows(), held_out: self.held_out.as_deref(), range, first_row }
    }
}

/// What a solver found; the same on every rank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// (n_scores, n_features + 1), intercept last.
    pub params: Vec<f64>,
    /// Loss (mean weighted, with penalty) per iteration or epoch.
    pub losses: Vec<f64>,
    /// What the stop test looked at, per iteration or epoch.
    pub stop_values: Vec<f64>,
    /// Loss of the rows that were held out per epoch, where early stopping looks at it; kept by who does.
    #[serde(skip)]
    pub valid_losses: Vec<f64>,
    /// Loss of the first step's rows before it, of mini-batch solvers, without penalty; kept by who looks at it.
    #[serde(skip)]
    pub first_loss: Option<f64>,
    pub iterations: u64,
    pub converged: bool,
    /// Wall seconds of each iteration or epoch.
    pub seconds: Vec<f64>,
}

/// Tables with known answers, whole or a rank's part of them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::data::partition::Partition;
    use crate::rng::Stream;

    impl Table<'_> {
        pub(crate) fn in_memory_mut(&mut self) -> &mut RowBuffer {
            match &mut self.rows {
                LocalRows::Memory(buffer) => buffer,
                LocalRows::Stream(_) => panic!("rows are read"),
            }
        }

        /// The part of `rank` out of `size` of a table that is here as a whole.
        pub(crate) fn of_rank(&self, rank: usize, size: usize) -> Table<'static> {
            let all = self.in_memory().unwrap();
            let units = Partition::new(self.plan.n_units(), size).units_of(rank);
            let rows = self.plan.rows(units.clone());
            let local = rows.start as usize..rows.end as usize;
            Table {
                plan: self.plan.clone(),
                units,
                first_row: rows.start,
                n_features: self.n_features,
                rows: LocalRows::Memory(RowBuffer {
                    n_features: self.n_features,
                    x: rows_of(&all.x, local.clone(), self.n_features),
                    y: all.y[local.clone()].to_vec(),
                    weight: all.weight[local.clone()].to_vec(),
                    offset: all.offset.as_ref().map(|offset| offset[local].to_vec()),
                    held_out: None,
                }),
                total_weight: self.total_weight,
                peak: self.peak.clone(),
            }
        }
    }

    /// Some of these rows.
    pub(crate) fn rows_of(all: &Features, rows: Range<usize>, n_features: usize) -> Features {
        let mut some = Features::empty(all.is_sparse());
        rows.for_each(|row| some.push(all.row(row, n_features)));
        some
    }

    /// Target of a row from its linear score and a standard normal.
    pub(crate) type Target = fn(f64, f64) -> f64;
    pub(crate) fn gaussian(score: f64, noise: f64) -> f64 {
        score + 0.5 * noise
    }
    pub(crate) fn two_classes(score: f64, noise: f64) -> f64 {
        f64::from(score + noise > 0.0)
    }
    pub(crate) fn three_classes(score: f64, noise: f64) -> f64 {
        f64::from(score + noise > -0.5) + f64::from(score + noise > 0.5)
    }
    pub(crate) fn counts(score: f64, noise: f64) -> f64 {
        let rate = libm::exp(0.5 * score + 1.0);
        let y = rate + noise * rate.sqrt();
        if y > 0.0 { y.round() } else { 0.0 }
    }

    /// `n` standardised rows of `d` features that share a common part; weights from 0 (every seventh row or so) to 2.
    pub(crate) fn table(n: usize, d: usize, n_lanes: u64, seed: u64, target: Target) -> Table<'static> {
        let draws = Draws::new(seed, Stream::Synthetic);
        let mut x: Vec<f64> = Vec::with_capacity(n * d);
        for row in 0..n as u64 {
            let common = draws.normal(row, 1_000_000);
            x.extend((0..d as u64).map(|j| draws.normal(row, j) + 0.7 * common));
        }
        for j in 0..d {
            let column = |x: &[f64]| x[j..].iter().step_by(d).copied().collect::<Vec<f64>>();
            let mean = column(&x).iter().fold(0.0, |s, v| s + v) / n as f64;
            let variance = column(&x).iter().fold(0.0, |s, v| s + (v - mean) * (v - mean)) / n as f64;
            for v in x[j..].iter_mut().step_by(d) {
                *v = (*v - mean) / variance.sqrt().max(1e-12);
            }
        }
        let mut y = Vec::with_capacity(n);
        for row in 0..n {
            let mut score = 0.2;
            for j in 0..d {
                let sign = if j % 2 == 0 { 1.0 } else { -0.5 };
                score += sign / (d as f64).sqrt() * x[row * d + j];
            }
            y.push(target(score, draws.normal(row as u64, 2_000_000)));
        }
        let weight: Vec<f64> = (0..n as u64)
            .map(|row| if draws.below(7, row, 3_000_000) == 0 { 0.0 } else { 2.0 * draws.uniform(row, 3_000_001) })
            .collect();
        let x: Vec<f32> = x.into_iter().map(|v| v as f32).collect();
        let peak = (0..d).map(|j| x[j..].iter().step_by(d).fold(0.0f64, |p, v| p.max(f64::from(v.abs())))).collect();
        let plan = RowPlan::lanes(n as u64, d, n_lanes);
        let total_weight = weight.iter().fold(0.0, |s, w| s + w);
        let x = Features::Dense(x);
        let rows = LocalRows::Memory(RowBuffer { n_features: d, x, y, weight, offset: None, held_out: None });
        Table { units: 0..n_lanes, plan, first_row: 0, n_features: d, rows, total_weight, peak }
    }
}
