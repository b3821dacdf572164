//! Limited-memory BFGS, and OWL-QN where there is an L1 penalty.
//!
//! All vectors are replicated: every rank does the same arithmetic in plain loops on reduced values, so all take the
//! same decisions. Sources: Nocedal and Wright, *Numerical Optimization* (2006), algorithms 7.4 and 7.5; Andrew and
//! Gao, *Scalable training of L1-regularized log-linear models*, ICML 2007 (OWL-QN); the line search brackets a step
//! that satisfies the weak Wolfe conditions by bisection (Lewis and Overton, *Nonsmooth optimization via quasi-Newton
//! methods*, 2013, section 3).

use super::checkpoint::{Items, Session};
use super::full_batch::FullBatch;
use super::table::Fit;
use super::warm_start::{Cholesky, Start};
use super::{Observer, Progress, TrainConfig};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Instant;

/// Pairs (s, y) that are remembered.
const MEMORY: usize = 10;
/// Sufficient decrease and curvature of the line search.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Trials of one line search.
const TRIALS: usize = 40;

#[derive(Serialize, Deserialize)]
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    rho: f64,
}

/// Σ aᵢbᵢ in index order.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

/// Largest |vᵢ|; 0 of none.
pub fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |largest, x| if x.abs() > largest { x.abs() } else { largest })
}

/// The smallest subgradient of smooth part + λ₁|coefficient|: the gradient itself without a penalty.
pub fn pseudo_gradient(problem: &FullBatch<'_, '_>, l1: f64, params: &[f64], grad: &[f64]) -> Vec<f64> {
    let mut out = grad.to_vec();
    if l1 > 0.0 {
        for (j, (g, &p)) in out.iter_mut().zip(params).enumerate() {
            if !problem.is_penalised(j) {
                continue;
            }
            *g = if p > 0.0 {
                *g + l1
            } else if p < 0.0 {
                *g - l1
            } else if *g + l1 < 0.0 {
                *g + l1
            } else if *g - l1 > 0.0 {
                *g - l1
            } else {
                0.0
            };
        }
    }
    out
}

fn l1_norm(problem: &FullBatch<'_, '_>, params: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (j, p) in params.iter().enumerate() {
        if problem.is_penalised(j) {
            sum += p.abs();
        }
    }
    sum
}

/// −H·gradient by the two-loop recursion, which begins with the inverse of `curvature`, or of `first_scale`·I.
fn direction(pairs: &VecDeque<Pair>, curvature: Option<&Cholesky>, first_scale: f64, gradient: &[f64]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = pair.rho * dot(&pair.s, &q);
        for (q, y) in q.iter_mut().zip(&pair.y) {
            *q -= alpha * y;
        }
        alphas.push(alpha);
    }
    match curvature {
        Some(curvature) => curvature.solve(&mut q),
        None => {
            let scale = pairs.back().map_or(first_scale, |last| 1.0 / (last.rho * dot(&last.y, &last.y)));
            for q in &mut q {
                *q *= scale;
            }
        }
    }
    for (pair, alpha) in pairs.iter().zip(alphas.iter().rev()) {
        let beta = pair.rho * dot(&pair.y, &q);
        for (q, s) in q.iter_mut().zip(&pair.s) {
            *q += (alpha - beta) * s;
        }
    }
    q
}

/// State between iterations; all of it the same on every rank.
#[derive(Serialize, Deserialize)]
pub struct State {
    params: Vec<f64>,
    value: f64,
    grad: Vec<f64>,
    /// Largest element of the (pseudo-)gradient that the stop test compares with.
    at_start: f64,
    pairs: VecDeque<Pair>,
    curvature: Option<Cholesky>,
    fit: Fit,
    /// [`FullBatch::bound`]: the scale of the next sums hangs on it.
    bound: f64,
}

impl State {
    /// Evaluates the problem at the start, unless that is done. Collective.
    ///
    /// # Errors
    /// `Data`: the loss is not finite there.
    pub fn at(problem: &FullBatch<'_, '_>, config: &TrainConfig, start: Start) -> Result<State> {
        let Start { params, reference, evaluated, curvature } = start;
        let evaluated = if evaluated.is_some() { evaluated } else { problem.evaluate(&params)? };
        let Some((smooth, grad)) = evaluated else {
            return Err(Error::data("the loss is not finite at the start; look at the targets and offsets"));
        };
        let value = smooth + config.l1 * l1_norm(problem, &params);
        let at_start = reference.unwrap_or_else(|| largest(&pseudo_gradient(problem, config.l1, &params, &grad)));
        let pairs = VecDeque::with_capacity(MEMORY);
        Ok(State { params, value, grad, at_start, pairs, curvature, fit: Fit::default(), bound: problem.bound() })
    }
}

/// The same, borrowed.
#[derive(Serialize)]
struct Keep<'a> {
    params: &'a [f64],
    value: f64,
    grad: &'a [f64],
    at_start: f64,
    pairs: &'a VecDeque<Pair>,
    curvature: &'a Option<Cholesky>,
    fit: &'a Fit,
    bound: f64,
}

/// Minimises `problem` + λ₁‖coefficients‖₁ from `start`. Collective.
///
/// Stops when the largest element of the (pseudo-)gradient is at most `tolerance` times the start's reference,
/// when no step improves the value any more, or after `max_iterations`.
pub fn solve(problem: &FullBatch<'_, '_>, config: &TrainConfig, start: Start, watch: &mut dyn Observer) -> Result<Fit> {
    go_on(problem, config, State::at(problem, config, start)?, &mut Session::default(), watch)
}

/// As [`solve`] from some iteration on, keeping the state. Collective.
pub fn go_on(
    problem: &FullBatch<'_, '_>,
    config: &TrainConfig,
    state: State,
    session: &mut Session,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    let l1 = config.l1;
    let State { mut params, mut value, mut grad, at_start, mut pairs, mut curvature, mut fit, bound } = state;
    problem.set_bound(bound);
    let mut pseudo = pseudo_gradient(problem, l1, &params, &grad);
    let first_scale = 1.0 / (problem.objective.typical_curvature() + config.l2);
    let mut stop_value = if at_start > 0.0 { largest(&pseudo) / at_start } else { 0.0 };

    while fit.iterations < config.max_iterations {
        fit.converged = stop_value <= config.tolerance && (config.tolerance > 0.0 || at_start == 0.0);
        if fit.converged {
            break;
        }
        let began = Instant::now();
        let mut towards = direction(&pairs, curvature.as_ref(), first_scale, &pseudo);
        if l1 > 0.0 {
            // OWL-QN: stay in the orthant that the pseudo-gradient points into.
            for (d, g) in towards.iter_mut().zip(&pseudo) {
                if *d * *g >= 0.0 {
                    *d = 0.0;
                }
            }
        }
        let slope = dot(&towards, &pseudo);
        if slope.is_nan() || slope >= 0.0 {
            if pairs.is_empty() && curvature.is_none() {
                break;
            }
            pairs.clear();
            curvature = None;
            continue;
        }
        let Some(next) = line_search(problem, l1, &params, value, &pseudo, &towards, slope)? else {
            // No step improves the value: either at rounding level, or the memory has gone stale.
            if pairs.is_empty() && curvature.is_none() {
                break;
            }
            pairs.clear();
            curvature = None;
            continue;
        };
        if next.step < 0.5 {
            // The metric promised more than there was: every trial is a pass over all rows.
            curvature = None;
        }
        let s: Vec<f64> = next.params.iter().zip(&params).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next.grad.iter().zip(&grad).map(|(a, b)| a - b).collect();
        let along = dot(&s, &y);
        if along > 1e-300 && along > 1e-14 * dot(&y, &y) {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(Pair { s, y, rho: 1.0 / along });
        }
        (params, value, grad) = (next.params, next.value, next.grad);
        pseudo = pseudo_gradient(problem, l1, &params, &grad);
        stop_value = if at_start > 0.0 { largest(&pseudo) / at_start } else { 0.0 };
        fit.iterations += 1;
        fit.losses.push(value);
        fit.stop_values.push(stop_value);
        fit.seconds.push(began.elapsed().as_secs_f64());
        watch.progress(&Progress {
            step: fit.iterations,
            of_steps: config.max_iterations,
            loss: value,
            gradient: Some(stop_value),
            learning_rate: None,
        });
        let is_last = fit.iterations == config.max_iterations || stop_value <= config.tolerance;
        session.after(problem.comm, fit.iterations, is_last, || {
            let (pairs, curvature, bound) = (&pairs, &curvature, problem.bound());
            let kept = Keep { params: &params, value, grad: &grad, at_start, pairs, curvature, fit: &fit, bound };
            Ok((kept, Items::default()))
        })?;
    }
    fit.converged |= stop_value <= config.tolerance;
    if fit.losses.is_empty() {
        fit.losses.push(value);
        fit.stop_values.push(stop_value);
    }
    fit.params = params;
    Ok(fit)
}

struct Accepted {
    /// In units of the direction.
    step: f64,
    params: Vec<f64>,
    value: f64,
    grad: Vec<f64>,
}

/// A step along `towards` that decreases the value enough and, without L1, flattens the slope enough. Collective.
fn line_search(
    problem: &FullBatch<'_, '_>,
    l1: f64,
    params: &[f64],
    value: f64,
    pseudo: &[f64],
    towards: &[f64],
    slope: f64,
) -> Result<Option<Accepted>> {
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut step = 1.0;
    let mut best: Option<Accepted> = None;
    for _ in 0..TRIALS {
        let mut trial: Vec<f64> = params.iter().zip(towards).map(|(p, d)| p + step * d).collect();
        if l1 > 0.0 {
            for (j, t) in trial.iter_mut().enumerate() {
                // The orthant of a coefficient at 0 is the one the pseudo-gradient descends into.
                let sign = if params[j] == 0.0 { -pseudo[j] } else { params[j] };
                if problem.is_penalised(j) && *t * sign <= 0.0 {
                    *t = 0.0;
                }
            }
        }
        let moved: Vec<f64> = trial.iter().zip(params).map(|(t, p)| t - p).collect();
        if largest(&moved) == 0.0 {
            break;
        }
        let decrease = if l1 > 0.0 { dot(pseudo, &moved) } else { step * slope };
        let evaluated = problem.evaluate(&trial)?;
        let found = evaluated.map(|(smooth, grad)| (smooth + l1 * l1_norm(problem, &trial), grad));
        match found {
            // A trial that is not finite is simply too long.
            Some((new_value, grad)) if new_value <= value + DECREASE * decrease && new_value < value => {
                let flat = l1 > 0.0 || dot(&grad, towards) >= CURVATURE * slope;
                best = Some(Accepted { step, params: trial, value: new_value, grad });
                if flat {
                    break;
                }
                low = step;
            }
            _ => high = step,
        }
        step = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * step };
    }
    Ok(best)
}
