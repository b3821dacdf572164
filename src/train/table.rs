//! This rank's rows in memory, ready to train on.

use crate::data::partition::RowPlan;
use crate::model::linear::Rows;
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

    /// Rows of a lane here, as local row numbers.
    pub fn lane(&self, lane: u64) -> Range<usize> {
        let rows = self.plan.lane_rows(lane);
        if rows.is_empty() {
            return 0..0;
        }
        (rows.start - self.first_row) as usize..(rows.end - self.first_row) as usize
    }

    /// Lanes here; all of a one-lane plan's table counts as lane 0 where its rows are.
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
