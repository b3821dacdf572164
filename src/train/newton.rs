//! Newton's method with exact sums: few passes, for models of few parameters.
//!
//! Every iteration sums gradient and Hessian exactly over all ranks; rank 0 solves the system and broadcasts the step;
//! the line search looks at global values only. So all ranks walk the same path whatever their number.
//!
//! Source: Boyd, Vandenberghe, *Convex Optimization*, section 9.5; for the squared hinge the generalised Hessian of
//! Mangasarian (2002); for Marquardt's scaled damping Nocedal, Wright, *Numerical Optimization*, section 10.3.

use super::checkpoint::{Items, Session};
use super::dense::{Factor, dot, largest_magnitude};
use super::full_batch::FullBatch;
use super::second_order::{expand, hessian, largest_weight};
use super::table::{Fit, Table};
use super::{Observer, Progress, TrainConfig};
use crate::blas;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::objective::Objective;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// More parameters than this are refused: the Hessian would take seconds to factorise and its sums would fill memory.
pub const MAX_PARAMS: usize = 2000;

/// Smallest damping, relative to the diagonal: enough for the flat directions of softmax, too little to slow the rest.
const LEAST_DAMPING: f64 = 1e-12;
/// Halvings of a step before the search gives up.
const MAX_HALVINGS: u32 = 60;
/// Share of the predicted decrease that a step must reach (Armijo).
const ARMIJO: f64 = 1e-4;

/// Minimises `Σ w·loss/Σ w + λ₂/2‖coefficients‖²` by damped Newton steps. Collective.
///
/// * `start`: (n_scores, n_features + 1), intercept last. Coefficients of features that are zero everywhere become 0.
/// * Ends when the largest element of the gradient is at most `tolerance` times that at the start, or when a step can no
///   longer lower the loss by more than rounding; both count as converged.
/// * Each iteration: one pass for the Hessian (rows × params² multiply-adds) and one for each trial point; messages of
///   12 × params² bytes.
///
/// # Errors
/// `Usage`: more than [`MAX_PARAMS`] parameters, λ₁ > 0, or ranks on different processors. `Data`: a loss that is not
/// finite at the start, or a Hessian that no damping makes positive definite.
///
/// # Panics
/// If `start` has not n_scores × (n_features + 1) elements.
pub fn solve(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
    start: Vec<f64>,
    session: &mut Session,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    let function = FullBatch::new(comm, table, objective, config.l2);
    assert_eq!(start.len(), function.n_params(), "one start for each parameter");
    refuse_settings(start.len(), config)?;
    blas::prepare(comm)?;
    let weight = largest_weight(comm, table)?;
    let state = match session.take(comm, 0..0, 0)? {
        Some((state, _)) => state,
        None => State::at(&function, table, start)?,
    };
    let State { mut params, mut value, mut grad, first, mut damping, mut fit, bound } = state;
    function.set_bound(bound);
    while !fit.converged && fit.iterations < config.max_iterations {
        let clock = Instant::now();
        let lower = hessian(comm, table, objective, &params, weight)?;
        let step = solve_on_root(comm, &function, &lower, &grad, &mut damping)?;
        match search(&function, &params, value, &grad, &step)? {
            Search::Found { point, value: lower_value, grad: new_grad } => {
                (params, value, grad) = (point, lower_value, new_grad);
            }
            Search::AtRounding => fit.converged = true,
            Search::Failed => {
                watch.warning("newton: no step along the Newton direction lowers the loss; stopped at the best point");
                break;
            }
        }
        let relative = largest_magnitude(&grad) / first;
        fit.converged |= relative <= config.tolerance;
        fit.iterations += 1;
        fit.losses.push(value);
        fit.stop_values.push(relative);
        fit.seconds.push(clock.elapsed().as_secs_f64());
        watch.progress(&Progress {
            step: fit.iterations,
            of_steps: config.max_iterations,
            loss: value,
            gradient: Some(relative),
            learning_rate: None,
        });
        let is_last = fit.converged || fit.iterations == config.max_iterations;
        session.after(comm, fit.iterations, is_last, || {
            let (params, grad, fit, bound) = (params.clone(), grad.clone(), fit.clone(), function.bound());
            Ok((State { params, value, grad, first, damping, fit, bound }, Items::default()))
        })?;
    }
    fit.params = params;
    Ok(fit)
}

/// State between iterations; all of it the same on every rank.
#[derive(Serialize, Deserialize)]
struct State {
    params: Vec<f64>,
    value: f64,
    grad: Vec<f64>,
    /// Largest element of the gradient at the start.
    first: f64,
    damping: f64,
    fit: Fit,
    /// [`FullBatch::bound`]: the scale of the next sums hangs on it.
    bound: f64,
}

impl State {
    /// Evaluates the function at the start. Collective.
    fn at(function: &FullBatch<'_, '_>, table: &Table<'_>, start: Vec<f64>) -> Result<State> {
        let mut params = start;
        pin_constant(&mut params, table);
        let (value, grad) = function.evaluate(&params)?.ok_or_else(|| {
            Error::data(
                "the loss is not finite at the start: targets, weights or offsets are too large, or all weights are 0",
            )
        })?;
        let first = largest_magnitude(&grad);
        let fit = Fit { converged: first == 0.0, ..Fit::default() };
        Ok(State { params, value, grad, first, damping: LEAST_DAMPING, fit, bound: function.bound() })
    }
}

fn refuse_settings(n_params: usize, config: &TrainConfig) -> Result<()> {
    if n_params > MAX_PARAMS {
        return Err(Error::usage(format!(
            "--solver newton solves for all parameters at once: this model has {n_params} parameters, more than \
             {MAX_PARAMS}; use --solver lbfgs"
        )));
    }
    if config.l1 > 0.0 {
        return Err(Error::usage("--solver newton cannot minimise an --l1 penalty; use --solver lbfgs"));
    }
    Ok(())
}

/// Features that are zero everywhere get the coefficient 0; the Newton steps then leave it there.
fn pin_constant(params: &mut [f64], table: &Table<'_>) {
    for of_score in params.chunks_exact_mut(table.n_features + 1) {
        for (coefficient, peak) in of_score.iter_mut().zip(&table.peak) {
            if *peak == 0.0 {
                *coefficient = 0.0;
            }
        }
    }
}

/// −(H/Σw + λ₂)⁻¹·grad, solved on rank 0 and broadcast with the damping it took. Collective.
fn solve_on_root(
    comm: &Communicator,
    function: &FullBatch<'_, '_>,
    lower: &[f64],
    grad: &[f64],
    damping: &mut f64,
) -> Result<Vec<f64>> {
    let local = if comm.is_root() { newton_step(function, lower, grad, *damping) } else { Ok(Vec::new()) };
    let mut step = comm.agree(local)?;
    comm.broadcast_vec(&mut step, 0)?;
    *damping = step.pop().expect("the damping is last");
    Ok(step)
}

/// The step, then the damping for the next iteration.
fn newton_step(function: &FullBatch<'_, '_>, lower: &[f64], grad: &[f64], mut damping: f64) -> Result<Vec<f64>> {
    let n = grad.len();
    let mut matrix = expand(lower, function.table.n_features + 1, function.objective.n_scores());
    matrix.iter_mut().for_each(|h| *h /= function.table.total_weight);
    for j in (0..n).filter(|j| function.is_penalised(*j)) {
        matrix[j * n + j] += function.l2;
    }
    while damping <= 1.0 {
        if let Some(factor) = Factor::new(&matrix, damping) {
            let mut step = factor.solve(grad)?;
            step.iter_mut().for_each(|s| *s = -*s);
            if step.iter().all(|s| s.is_finite()) && dot(&step, grad) <= 0.0 {
                // A damping that was needed once is tried smaller next time, never kept for good.
                let next = damping / 100.0;
                step.push(if next > LEAST_DAMPING { next } else { LEAST_DAMPING });
                return Ok(step);
            }
        }
        damping *= 100.0;
    }
    Err(Error::data(
        "newton: the matrix of second derivatives cannot be factorised; use a larger --l2 or --solver lbfgs",
    ))
}

enum Search {
    Found {
        point: Vec<f64>,
        value: f64,
        grad: Vec<f64>,
    },
    /// The predicted decrease is lost in the rounding of the loss, and the gradient falls no more.
    AtRounding,
    Failed,
}

/// Halves the step until the loss falls enough; trials with a loss that is not finite are rejected. Collective.
fn search(function: &FullBatch<'_, '_>, params: &[f64], value: f64, grad: &[f64], step: &[f64]) -> Result<Search> {
    let slope = dot(grad, step);
    // Below this, values cannot tell better from worse: then the gradient has to shrink by half, at the full step.
    let rounding = 1e-15 * value.abs();
    let at_rounding = -0.5 * slope <= rounding;
    let mut length = 1.0;
    for _ in 0..MAX_HALVINGS {
        let point: Vec<f64> = params.iter().zip(step).map(|(p, s)| p + length * s).collect();
        let trial = function.evaluate(&point)?;
        if at_rounding {
            let better = trial.filter(|(_, g)| largest_magnitude(g) < 0.5 * largest_magnitude(grad));
            return Ok(better.map_or(Search::AtRounding, |(value, grad)| Search::Found { point, value, grad }));
        }
        if let Some((trial_value, trial_grad)) = trial {
            // Sums of many rows are not exact inside a block: near the end values may seem to rise by a few ulps.
            let near = length == 1.0 && trial_value <= value + 100.0 * rounding;
            let enough = trial_value <= value + ARMIJO * length * slope;
            if enough || (near && largest_magnitude(&trial_grad) < 0.5 * largest_magnitude(grad)) {
                return Ok(Search::Found { point, value: trial_value, grad: trial_grad });
            }
        }
        length *= 0.5;
    }
    Ok(if -slope <= 1e4 * rounding { Search::AtRounding } else { Search::Failed })
}

#[cfg(test)]
#[path = "newton_tests.rs"]
mod tests;
