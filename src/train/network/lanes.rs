//! The rows of lanes on their way through a network.

use super::super::data_parallel::Job;
use super::super::lanes::Lane;
use crate::model::Network;
use crate::model::net::{Strip, Training, Turned};
use std::ops::Range;

/// Rows of a strip, at most: more threads than lanes share a lane, and a strip's values stay in cache.
const MOST_ROWS: usize = 128;

/// Rows of one lane that one thread takes through the network. How lanes are cut into them is not part of the answer.
pub(super) struct Piece {
    /// Place of the lane among those here.
    pub lane: usize,
    /// Its first row in the lane's micro-batch.
    first: usize,
    pub strip: Strip,
    /// w·loss of each row.
    pub losses: Vec<f64>,
    /// (rows, targets), in the unit of the loss.
    y: Vec<f64>,
    scores: Vec<f64>,
    /// Of the rows, as the loss has them.
    weights: Vec<f64>,
}

/// Pieces for the lanes of this rank, lane after lane. Not collective.
///
/// `n_targets`: of a row.
pub(super) fn pieces(network: &Network, n_targets: usize, n_lanes: usize, micro_batch: usize) -> Vec<Piece> {
    let threads = rayon::current_num_threads();
    let even = (n_lanes * micro_batch).div_ceil(2 * threads);
    let rows = even.clamp(8, MOST_ROWS).next_multiple_of(8).min(network.strip_rows(MOST_ROWS));
    let of_lane = |lane| {
        (0..micro_batch).step_by(rows).map(move |first| {
            let n = rows.min(micro_batch - first);
            Piece {
                lane,
                first,
                strip: network.strip(n, true),
                losses: vec![0.0; n],
                y: vec![0.0; n * n_targets],
                scores: vec![0.0; n * network.n_outputs()],
                weights: vec![0.0; n],
            }
        })
    };
    (0..n_lanes).flat_map(of_lane).collect()
}

impl Piece {
    /// Takes its rows of the pool's micro-batch `of_pool`, with their weights in units of `unit`. Not collective.
    pub fn fill(&mut self, job: &Job<'_, '_>, network: &Network, lane: &Lane, of_pool: usize, unit: f64) {
        let (rows, t) = (lane.rows(job.table), job.objective.n_targets());
        let mine = lane.micro_batch(of_pool).skip(self.first).take(self.strip.capacity());
        self.strip.n_rows = mine.len();
        for (slot, row) in mine.enumerate() {
            Network::put(rows.row(row), &mut self.strip, slot);
            let (y, targets) = (&mut self.y[slot * t..], &rows.y[row * t..(row + 1) * t]);
            for (y, (target, unit)) in y.iter_mut().zip(targets.iter().zip(&network.units)) {
                *y = unit.target(*target);
            }
            self.strip.weights[slot] = rows.weight[row] / unit;
            self.strip.rows[slot] = lane.global_row(row);
        }
    }

    /// Losses of the rows, and ∂loss/∂ of what came out of the network in units of `unit`, a power of two. Not collective.
    pub fn judge(&mut self, job: &Job<'_, '_>, network: &Network, unit: f64) {
        let (k, t, last) = (network.n_outputs(), job.objective.n_targets(), network.layers().len());
        let (n, per_unit, out) = (self.strip.n_rows, 1.0 / unit, self.strip.values(last));
        for (slot, scores) in self.scores[..n * k].chunks_exact_mut(k).enumerate() {
            scores.iter_mut().zip(out.row(slot)).for_each(|(score, out)| *score = f64::from(*out));
        }
        self.weights.iter_mut().zip(&self.strip.weights).for_each(|(to, weight)| *to = weight * unit);
        let (y, scores) = (&self.y[..n * t], &mut self.scores[..n * k]);
        job.objective.gradients_of_rows(y, &self.weights[..n], scores, &mut self.losses[..n]);
        let mut slopes = self.strip.slopes_mut(last);
        for (slot, scores) in scores.chunks_exact(k).enumerate() {
            slopes.row(slot).iter_mut().zip(scores).for_each(|(slope, score)| *slope = (*score * per_unit) as f32);
        }
    }

    /// Rows forward through some layers.
    pub fn forward(
        &mut self,
        network: &Network,
        layers: Range<usize>,
        training: Training,
        moments: &[Vec<f32>],
        turned: &Turned,
    ) {
        network.forward(layers, Some(training), moments, turned, &mut self.strip);
    }

    /// Rows back through some layers.
    pub fn backward(
        &mut self,
        network: &Network,
        layers: Range<usize>,
        training: Training,
        moments: &[Vec<f32>],
        turned: &Turned,
    ) {
        network.backward(layers, Some(training), moments, turned, &mut self.strip);
    }
}
