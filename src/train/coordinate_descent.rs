//! Lasso and elastic net by coordinate descent on the exact Gram matrix.
//!
//! The rows are read once; after that everything happens on rank 0, features in index order, and the result is
//! broadcast. The cost of a sweep does not depend on the number of rows.
//!
//! Source: Friedman, Hastie, Tibshirani, *Regularization Paths for Generalized Linear Models via Coordinate Descent*,
//! J. Stat. Softw. 33 (2010), sections 2.1 and 2.2 (covariance updates).

use super::checkpoint::{Items, Session};
use super::dense::dot;
use super::full_batch::FullBatch;
use super::least_squares::{check, evaluate};
use super::second_order::{NormalEquations, normal_equations};
use super::table::{Fit, Table};
use super::{Observer, Progress, TrainConfig};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::objective::Objective;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Sweeps after which the gradient is computed afresh, so that updates do not pile up roundings.
const REFRESH: u64 = 64;
/// Between two words of rank 0 to the others, where checkpoints are kept.
const BURST: Duration = Duration::from_millis(50);

/// Minimises `Σ w·½(score − y)²/Σ w + λ₂/2‖β‖² + λ₁‖β‖₁`, the intercept free. Collective.
///
/// * `objective`: [`Squared`](crate::objective::Squared); `start`: (n_features + 1,), intercept last.
/// * An iteration is one sweep over all features and the intercept. Ends when the largest violation of the optimality
///   conditions is at most `tolerance` times that at the start, or when a sweep changes nothing.
/// * Coefficients of features that are zero everywhere are exactly 0.
/// * `watch` hears of every sweep on rank 0 while they run, on the others afterwards.
/// * A checkpoint holds the Gram matrix as well: who goes on from it reads no rows for it again.
///
/// # Errors
/// `Usage`: too many features (see [`least_squares`](super::least_squares)). `Data`: no weight at all, or sums beyond
/// the range of numbers.
///
/// # Panics
/// If `start` has not n_features + 1 elements or the objective has several scores.
pub fn solve(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
    start: Vec<f64>,
    session: &mut Session,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    assert_eq!(
        (start.len(), objective.n_scores()),
        (table.n_features + 1, 1),
        "one score, one start for each parameter"
    );
    check(table, config, "cd")?;
    let (equations, mut fit, walk) = match session.take::<(NormalEquations, Fit, Walk)>(comm, 0..0, 0)? {
        Some((kept, _)) => kept,
        None => (normal_equations(comm, table)?, Fit { params: start, ..Fit::default() }, Walk::default()),
    };
    let mut descent = comm.is_root().then(|| Descent::new(&equations, table, config, &fit.params, walk));
    loop {
        let before = fit.iterations;
        let mut is_last = false;
        if let Some(descent) = &mut descent {
            let burst = Burst { until: session.next_due(before), time: session.is_on().then_some(BURST) };
            is_last = descent.run(config, burst, &mut fit, watch);
        }
        share(comm, config, &mut fit, &mut is_last, watch)?;
        if fit.iterations > before {
            let walk = descent.as_ref().map(|descent| &descent.walk);
            session.after(comm, fit.iterations, is_last, || {
                Ok(((&equations, &fit, walk.unwrap_or(&NOWHERE)), Items::default()))
            })?;
        }
        if is_last {
            break;
        }
    }
    if fit.params.iter().any(|p| !p.is_finite()) {
        return Err(Error::data(
            "coordinate descent: the coefficients are not finite; rescale the target or use a larger --l2",
        ));
    }
    // The loss from the rows: the quadratic form loses digits when the fit is good.
    let function = FullBatch::new(comm, table, objective, config.l2);
    let (smooth, _) = evaluate(&function, &fit.params)?;
    let loss = smooth + config.l1 * magnitudes(&fit.params[..table.n_features]);
    if let Some(last) = fit.losses.last_mut() {
        *last = loss;
    }
    Ok(fit)
}

/// Broadcasts the root's fit, and whether it has ended; the others hear of its sweeps. Collective.
fn share(
    comm: &Communicator,
    config: &TrainConfig,
    fit: &mut Fit,
    is_last: &mut bool,
    watch: &mut dyn Observer,
) -> Result<()> {
    comm.broadcast(&mut fit.params, 0)?;
    for history in [&mut fit.losses, &mut fit.stop_values, &mut fit.seconds] {
        comm.broadcast_vec(history, 0)?;
    }
    let mut ended = [u8::from(fit.converged), u8::from(*is_last)];
    comm.broadcast(&mut ended, 0)?;
    (fit.converged, *is_last) = (ended[0] == 1, ended[1] == 1);
    let heard = std::mem::replace(&mut fit.iterations, fit.losses.len() as u64);
    if !comm.is_root() {
        for (step, (loss, stop)) in (1..).zip(fit.losses.iter().zip(&fit.stop_values)).skip(heard as usize) {
            tell(step, config, *loss, *stop, watch);
        }
    }
    Ok(())
}

fn tell(step: u64, config: &TrainConfig, loss: f64, stop: f64, watch: &mut dyn Observer) {
    let of_steps = config.max_iterations;
    watch.progress(&Progress { step, of_steps, loss, gradient: Some(stop), learning_rate: None });
}

/// Where the descent is, beside the parameters; on rank 0.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Walk {
    /// target − gram·params: minus the gradient of the loss. Empty: the descent has not begun.
    residual: Vec<f64>,
    /// The violation at the start.
    first: f64,
}

static NOWHERE: Walk = Walk { residual: Vec::new(), first: 0.0 };

/// When the root tells the others how far it is.
struct Burst {
    /// After this sweep.
    until: u64,
    /// After so long. None: when it has ended.
    time: Option<Duration>,
}

/// The state of the descent on rank 0.
struct Descent<'a> {
    /// XᵀWX and XᵀWt, divided by Σw.
    gram: Vec<f64>,
    target: Vec<f64>,
    squares: f64,
    l1: f64,
    l2: f64,
    peak: &'a [f64],
    params: Vec<f64>,
    walk: Walk,
}

impl<'a> Descent<'a> {
    fn new(
        equations: &NormalEquations,
        table: &'a Table,
        config: &TrainConfig,
        start: &[f64],
        walk: Walk,
    ) -> Descent<'a> {
        let mean = |sum: &f64| sum / table.total_weight;
        let mut params = start.to_vec();
        for (param, peak) in params.iter_mut().zip(&table.peak) {
            if *peak == 0.0 {
                *param = 0.0;
            }
        }
        let mut descent = Descent {
            gram: equations.gram.iter().map(mean).collect(),
            target: equations.target.iter().map(mean).collect(),
            squares: mean(&equations.squares),
            l1: config.l1,
            l2: config.l2,
            peak: &table.peak,
            params,
            walk,
        };
        if descent.walk.residual.is_empty() {
            descent.refresh();
            descent.walk.first = descent.violation();
        }
        descent
    }

    /// Sweeps until the burst is over; whether the descent is.
    fn run(&mut self, config: &TrainConfig, burst: Burst, fit: &mut Fit, watch: &mut dyn Observer) -> bool {
        let (began, first) = (Instant::now(), self.walk.first);
        fit.converged |= first == 0.0;
        let mut is_last = true;
        while !fit.converged && (fit.losses.len() as u64) < config.max_iterations {
            let clock = Instant::now();
            let changed = self.sweep();
            let sweeps = fit.losses.len() as u64 + 1;
            // What looks like the end is looked at again with a fresh gradient.
            if sweeps.is_multiple_of(REFRESH) || self.violation() <= config.tolerance * first {
                self.refresh();
            }
            let relative = self.violation() / first;
            fit.converged = !changed || relative <= config.tolerance;
            fit.losses.push(self.value());
            fit.stop_values.push(relative);
            fit.seconds.push(clock.elapsed().as_secs_f64());
            tell(sweeps, config, self.value(), relative, watch);
            if !relative.is_finite() {
                break;
            }
            if sweeps == burst.until || burst.time.is_some_and(|time| began.elapsed() >= time) {
                is_last = fit.converged || sweeps == config.max_iterations;
                break;
            }
        }
        fit.params.clone_from(&self.params);
        is_last
    }

    fn is_intercept(&self, j: usize) -> bool {
        j == self.peak.len()
    }

    /// Minimises over each parameter in turn; says whether any changed.
    fn sweep(&mut self) -> bool {
        let width = self.params.len();
        let mut changed = false;
        for j in 0..width {
            let row = &self.gram[j * width..(j + 1) * width];
            let old = self.params[j];
            let toward = self.walk.residual[j] + row[j] * old;
            let new = match self.is_intercept(j) {
                true => toward / row[j],
                false if self.peak[j] == 0.0 => continue,
                false => soft_threshold(toward, self.l1) / (row[j] + self.l2),
            };
            if new != old {
                changed = true;
                let step = new - old;
                for (r, g) in self.walk.residual.iter_mut().zip(row) {
                    *r -= step * g;
                }
                self.params[j] = new;
            }
        }
        changed
    }

    fn refresh(&mut self) {
        let rows = self.gram.chunks_exact(self.params.len());
        self.walk.residual = rows.zip(&self.target).map(|(row, t)| t - dot(row, &self.params)).collect();
    }

    /// Largest distance of 0 from the subdifferential of the objective, over all parameters.
    fn violation(&self) -> f64 {
        let mut largest = 0.0;
        for (j, (param, residual)) in self.params.iter().zip(&self.walk.residual).enumerate() {
            let distance = match self.is_intercept(j) {
                true => residual.abs(),
                false if self.peak[j] == 0.0 => 0.0,
                false if *param > 0.0 => (residual - self.l2 * param - self.l1).abs(),
                false if *param < 0.0 => (residual - self.l2 * param + self.l1).abs(),
                false => soft_threshold(*residual, self.l1).abs(),
            };
            if distance > largest || distance.is_nan() {
                largest = distance;
            }
        }
        largest
    }

    /// The objective: ½(c − θᵀb − θᵀr) with b = target and r = b − Gθ, and both penalties.
    fn value(&self) -> f64 {
        let coefficients = &self.params[..self.peak.len()];
        let loss = 0.5 * (self.squares - dot(&self.params, &self.target) - dot(&self.params, &self.walk.residual));
        loss + 0.5 * self.l2 * dot(coefficients, coefficients) + self.l1 * magnitudes(coefficients)
    }
}

/// sign(x)·max(|x| − by, 0).
fn soft_threshold(x: f64, by: f64) -> f64 {
    if x > by {
        x - by
    } else if x < -by {
        x + by
    } else {
        0.0
    }
}

fn magnitudes(values: &[f64]) -> f64 {
    let mut sum = 0.0;
    for value in values {
        sum += value.abs();
    }
    sum
}

#[cfg(test)]
#[path = "coordinate_descent_tests.rs"]
mod tests;
