//! This rank's rows in memory, ready to train on.

use crate::data::partition::RowPlan;
use crate::model::linear::Rows;
use crate::rng::{Draws, Stream};
use std::ops::Range;

/// Standardised rows of the units this rank owns. `x` is (rows, n_features) row-major float32.
#[derive(Clone, Debug)]
pub struct Table {
    pub plan: RowPlan,
    /// Lanes or blocks of the plan that are here.
    pub units: Range<u64>,
    /// Global number of the first row here.
    pub first_row: u64,
    pub n_features: usize,
    pub x: Vec<f32>,
    /// Class number or value.
    pub y: Vec<f64>,
    /// Row weight × class weight.
    pub weight: Vec<f64>,
    pub offset: Option<Vec<f64>>,
    /// Σ weight over all ranks.
    pub total_weight: f64,
    /// Largest |x| of each feature over all ranks, over rows of weight > 0.
    pub peak: Vec<f64>,
}

impl Table {
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            n_features: self.n_features,
            x: &self.x,
            y: &self.y,
            weight: &self.weight,
            offset: self.offset.as_deref(),
        }
    }

    /// Blocks here, as ranges of local row numbers, in order.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let local = |row: u64| (row - self.first_row) as usize;
        self.plan.blocks(self.units.clone()).into_iter().map(|rows| local(rows.start)..local(rows.end)).collect()
    }

    /// One row of every `step` global rows, which one by a draw. Not collective. `total_weight` is left for the caller,
    /// who has the ranks to add over; `peak` stays that of all rows.
    ///
    /// # Panics
    /// As [`RowPlan::thinned`].
    pub fn thinned(&self, step: u64, seed: u64) -> Table {
        let draws = Draws::new(seed, Stream::Thin);
        let n_rows = self.y.len() as u64;
        let chosen: Vec<usize> = (0..n_rows)
            .step_by(step as usize)
            .map(|run| (run + draws.below(step.min(n_rows - run), (self.first_row + run) / step, 0)) as usize)
            .collect();
        let rows = self.rows();
        Table {
            plan: self.plan.thinned(step),
            units: self.units.clone(),
            first_row: self.first_row / step,
            n_features: self.n_features,
            x: chosen.iter().flat_map(|&i| rows.row(i).iter().copied()).collect(),
            y: chosen.iter().map(|&i| self.y[i]).collect(),
            weight: chosen.iter().map(|&i| self.weight[i]).collect(),
            offset: self.offset.as_ref().map(|offset| chosen.iter().map(|&i| offset[i]).collect()),
            total_weight: 0.0,
            peak: self.peak.clone(),
        }
    }

    /// Rows of a lane here, as local row numbers.
    pub fn lane(&self, lane: u64) -> Range<usize> {
        let rows = self.plan.lane_rows(lane);
        if rows.is_empty() {
            return 0..0;
        }
        (rows.start - self.first_row) as usize..(rows.end - self.first_row) as usize
    }

    /// Lanes here, if the plan is one of lanes.
    pub fn lanes(&self) -> Range<u64> {
        self.units.clone()
    }
}

/// What a solver found; the same on every rank.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fit {
    /// (n_scores, n_features + 1), intercept last.
    pub params: Vec<f64>,
    /// Loss (mean weighted, with penalty) per iteration or epoch.
    pub losses: Vec<f64>,
    /// What the stop test looked at, per iteration or epoch.
    pub stop_values: Vec<f64>,
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

    impl Table {
        /// The part of `rank` out of `size` of a table that is here as a whole.
        pub(crate) fn of_rank(&self, rank: usize, size: usize) -> Table {
            let units = Partition::new(self.plan.n_units(), size).units_of(rank);
            let rows = self.plan.rows(units.clone());
            let local = rows.start as usize..rows.end as usize;
            Table {
                plan: self.plan.clone(),
                units,
                first_row: rows.start,
                n_features: self.n_features,
                x: self.x[local.start * self.n_features..local.end * self.n_features].to_vec(),
                y: self.y[local.clone()].to_vec(),
                weight: self.weight[local.clone()].to_vec(),
                offset: self.offset.as_ref().map(|offset| offset[local].to_vec()),
                total_weight: self.total_weight,
                peak: self.peak.clone(),
            }
        }
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
    pub(crate) fn table(n: usize, d: usize, n_lanes: u64, seed: u64, target: Target) -> Table {
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
        Table { units: 0..n_lanes, plan, first_row: 0, n_features: d, x, y, weight, offset: None, total_weight, peak }
    }
}
