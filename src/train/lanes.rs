//! The rows of mini-batch training: how long it lasts, and which rows each lane takes at each step.

use super::TrainConfig;
use super::table::Table;
use crate::error::{Error, Result};
use crate::model::LinearModel;
use crate::model::linear::{Work, add_gradient};
use crate::objective::Objective;
use crate::rng::{Draws, Stream};
use rayon::prelude::*;
use std::ops::Range;

/// Passes and steps when nobody says: a table that fills few batches is passed more often, because what a solver can do
/// is a matter of steps.
const LEAST_EPOCHS: u64 = 10;
const LEAST_STEPS: u64 = 1000;

/// Lanes and steps of a training: a function of the table's shape and the settings, never of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    pub n_lanes: u64,
    /// Rows of a lane in a step; the last ones of an epoch may be fewer.
    pub micro_batch: u64,
    /// ⌈longest lane / micro-batch⌉.
    pub steps_per_epoch: u64,
    pub epochs: u64,
    pub of_steps: u64,
}

impl Course {
    /// Not collective; the same answer on every rank.
    ///
    /// # Errors
    /// Usage: a global batch that the lanes cannot share.
    pub fn new(table: &Table, config: &TrainConfig) -> Result<Course> {
        let (batch, n_lanes) = (config.global_batch, table.plan.n_lanes());
        if n_lanes == 0 || n_lanes > 1 << 16 {
            return Err(Error::usage(format!("--lanes {n_lanes}: give a number from 1 to 65536")));
        }
        if batch == 0 || batch % n_lanes != 0 {
            let below = batch / n_lanes * n_lanes;
            let near = if below == 0 { n_lanes.to_string() } else { format!("{below} or {}", below + n_lanes) };
            let what = format!("--global-batch {batch} does not divide by {n_lanes} lanes");
            return Err(Error::usage(format!("{what}; use {near}, or set --lanes")));
        }
        let micro_batch = batch / n_lanes;
        let steps_per_epoch = table.plan.longest_lane().div_ceil(micro_batch);
        let default_epochs = || LEAST_EPOCHS.max(LEAST_STEPS.div_ceil(steps_per_epoch.max(1)));
        let epochs = config.epochs.unwrap_or_else(default_epochs);
        let of_steps = steps_per_epoch.saturating_mul(epochs);
        Ok(Course { n_lanes, micro_batch, steps_per_epoch, epochs, of_steps })
    }

    /// Epoch (from 1) of a step (from 0), for people.
    pub fn epoch_of(&self, step: u64) -> u64 {
        step / self.steps_per_epoch.max(1) + 1
    }
}

/// One lane here: its rows in this epoch's order, and the buffers of its micro-batches.
pub struct Lane {
    /// Global number.
    pub number: u64,
    /// Local row numbers.
    pub rows: Range<usize>,
    /// Rows of weight > 0, relative to the lane's first, in the order they are taken.
    order: Vec<u32>,
    /// Micro-batch t is `order[ends[t]..ends[t + 1]]`.
    ends: Vec<usize>,
    /// Σ weight of each micro-batch.
    pub weights: Vec<f64>,
    work: Work,
    /// Σ w·∂loss/∂params and Σ w·loss of the last micro-batch.
    pub grad: Vec<f64>,
    pub loss: f64,
    /// Σ w·loss and Σ w of the epoch's steps so far, penalty included where the lane has parameters of its own.
    pub epoch_loss: f64,
    pub epoch_weight: f64,
}

impl Lane {
    /// The lanes of this rank, in order. Not collective.
    pub fn of(table: &Table, course: &Course, n_scores: usize) -> Vec<Lane> {
        let n_params = n_scores * (table.n_features + 1);
        let steps = course.steps_per_epoch as usize;
        let make = |number| {
            let rows = table.lane(number);
            assert!(u32::try_from(rows.len()).is_ok(), "lane {number} has {} rows", rows.len());
            Lane {
                number,
                order: Vec::with_capacity(rows.len()),
                rows,
                ends: Vec::with_capacity(steps + 1),
                weights: vec![0.0; steps],
                work: LinearModel::work(n_scores),
                grad: vec![0.0; n_params],
                loss: 0.0,
                epoch_loss: 0.0,
                epoch_weight: 0.0,
            }
        };
        table.lanes().map(make).collect()
    }

    /// Puts the rows into the order of `epoch` (from 0): a function of (seed, epoch, lane). Not collective.
    ///
    /// Fisher–Yates from the end over all rows of the lane; a row of weight 0 keeps its slot in a micro-batch and is left out of it.
    pub fn start_epoch(&mut self, seed: u64, epoch: u64, course: &Course, weight: &[f64]) {
        let draws = Draws::new(seed, Stream::Shuffle);
        let counter = epoch * course.n_lanes + self.number;
        let n = self.rows.len();
        self.order.clear();
        self.order.extend(0..n as u32);
        for i in (1..n).rev() {
            self.order.swap(i, draws.below(i as u64 + 1, i as u64, counter) as usize);
        }
        self.ends.clear();
        self.ends.push(0);
        let (mut kept, micro_batch) = (0, course.micro_batch as usize);
        for (step, of_step) in self.weights.iter_mut().enumerate() {
            *of_step = 0.0;
            for slot in (step * micro_batch).min(n)..((step + 1) * micro_batch).min(n) {
                let row = self.order[slot];
                let w = weight[self.rows.start + row as usize];
                if w > 0.0 {
                    *of_step += w;
                    self.order[kept] = row;
                    kept += 1;
                }
            }
            self.ends.push(kept);
        }
        self.order.truncate(kept);
        (self.epoch_loss, self.epoch_weight) = (0.0, 0.0);
    }

    /// Local numbers of the rows of this epoch's micro-batch `step`, in order. Not collective.
    pub fn micro_batch(&self, step: usize) -> impl ExactSizeIterator<Item = usize> + Clone + use<'_> {
        let first = self.rows.start;
        self.order[self.ends[step]..self.ends[step + 1]].iter().map(move |&row| first + row as usize)
    }

    /// Gradient and loss of micro-batch `step` at `params`, into [`grad`](Self::grad) and [`loss`](Self::loss). Not collective; does
    /// not allocate.
    pub fn compute(&mut self, table: &Table, objective: &dyn Objective, step: usize, params: &[f64]) {
        let first = self.rows.start;
        let which = self.order[self.ends[step]..self.ends[step + 1]].iter().map(|&row| first + row as usize);
        self.grad.fill(0.0);
        self.loss = add_gradient(&table.rows(), which, params, objective, &mut self.work, &mut self.grad);
    }
}

/// Calls `visit` for each lane, in parallel if there are several. Not collective.
pub fn for_each_lane<L: Send>(lanes: &mut [L], visit: impl Fn(&mut L) + Send + Sync) {
    match lanes {
        [only] => visit(only),
        several => several.par_iter_mut().for_each(visit),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::testing;
    use super::*;

    #[test]
    fn an_epoch_takes_every_row_of_weight_once() {
        let mut table = testing::table(1_009, 2, 4, 1, testing::gaussian);
        table.weight[17] = 0.0;
        let config = TrainConfig { global_batch: 64, ..TrainConfig::default() };
        let course = Course::new(&table, &config).unwrap();
        // 64 groups of 16 rows over 4 lanes: 256 rows, 16 a step.
        assert_eq!((course.micro_batch, course.steps_per_epoch, course.of_steps), (16, 16, 1008));
        let mut orders = Vec::new();
        for epoch in 0..2 {
            let mut seen = vec![0; 1_009];
            let mut order = Vec::new();
            for lane in &mut Lane::of(&table, &course, 1) {
                lane.start_epoch(3, epoch, &course, &table.weight);
                for step in 0..16 {
                    let rows = lane.micro_batch(step);
                    assert!(rows.len() <= 16);
                    let weight = rows.clone().fold(0.0, |sum, row| sum + table.weight[row]);
                    assert_eq!(weight, lane.weights[step]);
                    for row in rows {
                        assert!(lane.rows.contains(&row));
                        seen[row] += 1;
                        order.push(row);
                    }
                }
            }
            let zeros = table.weight.iter().filter(|w| **w == 0.0).count();
            assert!(zeros > 10);
            assert!((0..1_009).all(|row| seen[row] == usize::from(table.weight[row] > 0.0)));
            orders.push(order);
        }
        assert_ne!(orders[0], orders[1]);
    }

    #[test]
    fn a_batch_that_lanes_cannot_share_is_refused_with_neighbours_that_can() {
        let table = testing::table(100, 2, 8, 1, testing::gaussian);
        let message = |global_batch| {
            Course::new(&table, &TrainConfig { global_batch, ..TrainConfig::default() }).unwrap_err().to_string()
        };
        assert_eq!(message(1_001), "--global-batch 1001 does not divide by 8 lanes; use 1000 or 1008, or set --lanes");
        assert_eq!(message(3), "--global-batch 3 does not divide by 8 lanes; use 8, or set --lanes");
    }
}
