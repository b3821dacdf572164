//! How long a mini-batch step may be when nobody says: measured on the first rows, so that data of any scale train without
//! tuning.
//!
//! **Sgd.** A step of rate η on a mini-batch of m rows is stable, row noise included, up to about 1/η = λ + ρ/m, where λ is the
//! largest eigenvalue of the mean curvature `E[w κ z zᵀ]` and ρ the largest `w κ ‖z‖²` of a row (Ma, Bassily, Belkin, *The power
//! of interpolation*, ICML 2018, theorem 3); z = (x, 1), κ bounds the curvature of the row's loss by its score. Momentum μ
//! makes steps 1/(1 − μ) times longer in the end, hence the default `η = (1 − μ)/(λ + ρ/m + λ₂)`: 0.1 at momentum 0.9 and unit
//! curvature. Multiplying targets of squared loss, counts or row weights by any factor leaves the model's course as it was.
//!
//! **Adam, AdamW.** Steps are about η in every parameter, whatever the gradient, so η carries the scale of the scores:
//! `η = σ·min(0.01, 0.5/√((d + 1)·λ/κ̄))`, σ the root mean square of the rows' own Newton steps |∂loss/∂score|/κ at the start
//! (for squared loss: the deviation of the targets), at least 2 for classes and counts, whose scores have no unit. The second bound keeps the scores of
//! d + 1 parameters that all move the same way within σ/2 a step. **AdaGrad** likewise, with 0.1 and 1 for 0.01 and 0.5: its steps
//! become shorter as 1/√t.
//!
//! **LAMB, LARS.** A step's length is η times that of the coefficients of a score, or η·σ while these are shorter than σ, as they are at the start:
//! `η = min(0.02, 0.5/√(λ/κ̄))`, of LARS with 0.05 for 0.02, then times (1 − μ)/0.001, its trust coefficient. Intercepts take steps of η·σ (LAMB) or those
//! of sgd (LARS).
//!
//! The numbers are from seven problems (two and three classes, one of them rare, squared loss, hinge, counts) of 3, 5 and 200 features, each tried at 0.1 to
//! 10 times such rates: twice the rate diverges nowhere, and what is left of the way to the optimum after ten epochs is mostly near the best of
//! them (AdaGrad and LARS would take longer steps on 200 features that are alike). LARS does badly where a class is rare, at any rate.

use super::lanes::{Course, Lane};
use super::sums::{Total, sum_blocks};
use super::table::{BlockRows, Table};
use super::{Solver, TrainConfig};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::model::Row;
use crate::model::linear::Rows;
use crate::objective::Objective;
use crate::optim::TRUST;
use crate::rng::{Draws, Stream};
use rayon::prelude::*;

/// η of each solver where no feature is like another, for scores of unit deviation; of the last two a share of the coefficients' length.
const ADAM: f64 = 0.01;
const ADAGRAD: f64 = 0.1;
const LAMB: f64 = 0.02;
const LARS: f64 = 0.05;

/// Rows, at most, that curvature is measured on: the first of each lane's first epoch.
const SAMPLE: u64 = 4096;
/// Iterations for the largest eigenvalue: they miss a few per cent of it, and the rate leaves a factor of 13 to the limit.
const POWER_ITERATIONS: usize = 12;

/// What the first rows say about the scale of the problem; the same on every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    /// λ: the largest eigenvalue of the mean curvature.
    pub curvature: f64,
    /// ρ/m: the largest curvature that one row brings into a step.
    pub row_curvature: f64,
    /// κ̄: mean curvature of a row's loss by its score.
    pub score_curvature: f64,
    /// Root mean square of |∂loss/∂score|.
    pub score_gradient: f64,
    /// σ: root mean square of |∂loss/∂score|/κ, or the objective's own scale where that is more.
    pub score_scale: f64,
}

impl Scales {
    /// Measures at `start`; lanes must be in the order of the first epoch. Collective: 27 small all-reduces.
    ///
    /// `step_rows`: rows that one step averages over.
    ///
    /// # Errors
    /// Data: a loss or its curvature is not finite on those rows.
    pub fn measure(
        comm: &Communicator,
        table: &Table<'_>,
        objective: &dyn Objective,
        start: &[f64],
        lanes: &[Lane],
        course: &Course,
        step_rows: u64,
    ) -> Result<Scales> {
        let samples: Vec<Sample> =
            lanes.par_iter().map(|lane| Sample::of(table, objective, start, lane, course)).collect();
        let sums = sum(comm, course, 4, samples.iter().map(|sample| sample.sums.to_vec()).collect())?;
        let weight = if sums[0] > 0.0 { sums[0] } else { 1.0 };
        let mean_weight = table.total_weight / table.plan.n_rows().max(1) as f64;
        let share = row_share(table, objective, start, mean_weight * step_rows as f64);
        let share = table.agree(comm, share)?;
        Ok(Scales {
            curvature: largest_eigenvalue(comm, table, course, &samples, weight)?,
            row_curvature: largest(comm, share)?,
            score_curvature: sums[1] / weight,
            score_gradient: (sums[2] / weight).sqrt(),
            score_scale: (sums[3] / weight).sqrt().max(objective.score_scale()),
        })
    }

    /// η of the solver of these settings. Not collective.
    pub fn rate(&self, config: &TrainConfig, n_features: usize) -> f64 {
        match config.solver {
            Solver::Adam | Solver::Adamw => self.by_parameter(ADAM, 0.5, n_features),
            Solver::Adagrad => self.by_parameter(ADAGRAD, 1.0, n_features),
            Solver::Lamb => self.relative(LAMB),
            Solver::Lars => self.lars(config),
            _ => self.sgd(config),
        }
    }

    /// η of gradient descent with momentum. Not collective.
    pub fn sgd(&self, config: &TrainConfig) -> f64 {
        let rate = (1.0 - config.momentum) / (self.curvature + self.row_curvature + config.l2);
        if rate > 0.0 && rate.is_finite() { rate } else { 0.1 }
    }

    /// η of LARS. Not collective.
    pub fn lars(&self, config: &TrainConfig) -> f64 {
        (1.0 - config.momentum) * self.relative(LARS) / TRUST
    }

    /// η of steps that are about η in every parameter, for scores of unit deviation at most `most`; if all move the same way, scores move
    /// by `of_scale`·σ.
    fn by_parameter(&self, most: f64, of_scale: f64, n_features: usize) -> f64 {
        let spread = (n_features + 1) as f64 * self.curvature / self.score_curvature;
        let bound = of_scale / spread.sqrt();
        let rate = self.score_scale * if bound < most { bound } else { most };
        if rate > 0.0 && rate.is_finite() { rate } else { most }
    }

    /// η of steps whose length is η of the coefficients', or of σ at the start.
    fn relative(&self, most: f64) -> f64 {
        let bound = 0.5 / (self.curvature / self.score_curvature).sqrt();
        if bound > 0.0 && bound < most { bound } else { most }
    }

    /// σ, or 1 where it is nothing that could be a unit: the scores have no scale yet. Not collective.
    pub fn score_unit(&self) -> f64 {
        let unit = self.score_scale;
        if unit > 0.0 && unit.is_finite() { unit } else { 1.0 }
    }
}

/// Adds one vector of `len` sums a lane over all ranks. Collective.
fn sum(comm: &Communicator, course: &Course, len: usize, contributions: Vec<Vec<f64>>) -> Result<Vec<f64>> {
    let mut sums = BlockSums::new(len, course.n_lanes);
    for contribution in contributions {
        sums.push(contribution);
    }
    match sum_blocks(comm, &sums)? {
        Total::Finite(total) => Ok(total),
        Total::NonFinite => {
            let error = Error::data("the loss is not finite at the start of training; look for infinite values");
            comm.agree(if comm.is_root() { Err(error) } else { Ok(Vec::new()) })
        }
    }
}

/// The largest of a non-negative number of all ranks. Collective.
fn largest(comm: &Communicator, local: f64) -> Result<f64> {
    // Bits of non-negative doubles are ordered as the numbers are.
    let mut key = [local.to_bits() as i64];
    comm.all_reduce_max(&mut key)?;
    Ok(f64::from_bits(key[0] as u64))
}

/// Some rows of a lane, with w·κ of each.
struct Sample<'a> {
    /// What `rows` are numbers in.
    all: Rows<'a>,
    rows: Vec<usize>,
    curvature: Vec<f64>,
    /// Σ of w, w·κ, w·|g|², w·|g|²/κ², g = ∂loss/∂score.
    sums: [f64; 4],
}

impl<'a> Sample<'a> {
    fn of(
        table: &'a Table<'_>,
        objective: &dyn Objective,
        start: &[f64],
        lane: &'a Lane,
        course: &Course,
    ) -> Sample<'a> {
        let most = course.micro_batch.min(SAMPLE.div_ceil(course.n_lanes)) as usize;
        let rows: Vec<usize> = lane.micro_batch(0).take(most).collect();
        let mut sample =
            Sample { all: lane.rows(table), curvature: Vec::with_capacity(rows.len()), rows, sums: [0.0; 4] };
        let mut scores = vec![0.0; objective.n_scores()];
        let all = lane.rows(table);
        for &row in &sample.rows {
            let w = all.weight[row];
            let offset = all.offset.map_or(0.0, |offset| offset[row]);
            for (score, params) in scores.iter_mut().zip(start.chunks_exact(table.n_features + 1)) {
                *score = offset + dot(all.row(row), params);
            }
            let kappa = objective.largest_curvature(all.y[row], scores[0]);
            objective.gradients(&all.y[row..row + 1], &[1.0], &mut scores);
            let mut squares = 0.0;
            for g in &scores {
                squares += g * g;
            }
            sample.curvature.push(w * kappa);
            let steps = if kappa > 0.0 { squares / (kappa * kappa) } else { 0.0 };
            for (sum, value) in sample.sums.iter_mut().zip([1.0, kappa, squares, steps]) {
                *sum += w * value;
            }
        }
        sample
    }
}

/// `Σ_j x[j]·params[j]` and the intercept, in order.
fn dot(x: Row<'_>, params: &[f64]) -> f64 {
    let mut sum = params[params.len() - 1];
    x.each(|j, x| sum += x * params[j]);
    sum
}

/// The largest eigenvalue of `Σ w κ z zᵀ / weight` over the samples, by power iteration. Collective.
fn largest_eigenvalue(
    comm: &Communicator,
    table: &Table<'_>,
    course: &Course,
    samples: &[Sample<'_>],
    weight: f64,
) -> Result<f64> {
    let n = table.n_features + 1;
    let draws = Draws::new(0, Stream::Init);
    let mut v: Vec<f64> = (0..n as u64).map(|j| draws.normal(j, 0)).collect();
    let mut eigenvalue = normalise(&mut v);
    for _ in 0..POWER_ITERATIONS {
        let product = |sample: &Sample<'_>| {
            let mut product = vec![0.0; n];
            for (&row, curvature) in sample.rows.iter().zip(&sample.curvature) {
                let x = sample.all.row(row);
                let factor = curvature * dot(x, &v);
                x.add_scaled(factor, &mut product);
                product[n - 1] += factor;
            }
            product
        };
        v = sum(comm, course, n, samples.par_iter().map(product).collect())?;
        eigenvalue = normalise(&mut v) / weight;
    }
    Ok(eigenvalue)
}

/// Divides `v` by its length and returns that; a zero vector stays.
fn normalise(v: &mut [f64]) -> f64 {
    let mut largest = 0.0f64;
    for x in v.iter() {
        largest = if x.abs() > largest { x.abs() } else { largest };
    }
    if largest == 0.0 {
        return 0.0;
    }
    // Divided first, so that squares neither overflow nor vanish.
    let mut squares = 0.0;
    for x in v.iter_mut() {
        *x /= largest;
        squares += *x * *x;
    }
    let length = squares.sqrt();
    for x in v.iter_mut() {
        *x /= length;
    }
    largest * length
}

/// The largest `κ ‖z‖²·min(1, w/of_step)` of the rows here, `of_step` the weight of a typical step. Not collective.
fn row_share(table: &Table<'_>, objective: &dyn Objective, start: &[f64], of_step: f64) -> Result<f64> {
    let of_row = |rows: &Rows<'_>, row: usize| {
        let w = rows.weight[row];
        if w <= 0.0 {
            return 0.0;
        }
        let mut squares = 1.0;
        rows.row(row).each(|_, x| squares += x * x);
        let offset = rows.offset.map_or(0.0, |offset| offset[row]);
        let kappa = objective.largest_curvature(rows.y[row], offset + start[table.n_features]);
        let share = if w < of_step { w / of_step } else { 1.0 };
        let value = kappa * squares * share;
        if value.is_finite() { value } else { f64::MAX }
    };
    // A maximum of finite numbers ≥ 0: the same in any order.
    let larger = |a: f64, b: f64| if b > a { b } else { a };
    let of_block = |block: BlockRows<'_>| block.range.map(|row| of_row(&block.rows, row)).fold(0.0, larger);
    Ok(table.map_blocks(of_block)?.into_iter().fold(0.0, larger))
}
