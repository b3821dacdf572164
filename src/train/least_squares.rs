//! Linear regression and ridge from exact normal equations, with a way out when they are ill-conditioned.
//!
//! One pass sums XᵀWX and XᵀWy exactly; rank 0 solves. Normal equations square the condition of the table, so rank 0
//! also estimates it, and its decision "go on with QR" is broadcast. One step of refinement with a gradient from the
//! rows removes what the rounding of the Gram matrix cost.
//!
//! Source: Golub, Van Loan, *Matrix Computations*, 4th ed., sections 5.3 and 3.5.3; Higham, *Accuracy and Stability of
//! Numerical Algorithms*, 2nd ed., section 20.4.

use super::dense::{Factor, largest_magnitude};
use super::full_batch::FullBatch;
use super::second_order::{NormalEquations, normal_equations};
use super::table::{Fit, Table};
use super::{Observer, Progress, TrainConfig, tsqr};
use crate::blas;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::objective::Objective;
use std::time::Instant;

/// Below this reciprocal condition of the scaled normal matrix more than half of the digits would be lost: QR is used.
pub const LEAST_RECIPROCAL_CONDITION: f64 = 1e-10;

/// More features than this are refused: the Gram matrix alone would take gigabytes for each thread.
pub const MAX_FEATURES: usize = 16_384;

/// Minimises `Σ w·½(score − y)²/Σ w + λ₂/2‖coefficients‖²` by Cholesky, or by [`tsqr`] if that would be inaccurate.
/// Collective.
///
/// * `objective`: [`Squared`](crate::objective::Squared); it gives loss and gradient of the result.
/// * `start` sets only the number of parameters: the answer does not depend on it.
/// * Coefficients of features that are zero everywhere are exactly 0. λ₂ may be 0.
/// * Cost: one pass of rows × features²/2 multiply-adds, two of rows × features; one message of 12 × features² bytes.
///
/// # Errors
/// `Usage`: λ₁ > 0, more than [`MAX_FEATURES`], ranks on different processors. `Data`: no weight at all, or sums beyond the range of numbers.
///
/// # Panics
/// If `start` has not n_features + 1 elements or the objective has several scores.
pub fn solve(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
    start: Vec<f64>,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    let clock = Instant::now();
    let function = FullBatch::new(comm, table, objective, config.l2);
    assert_eq!(
        (start.len(), objective.n_scores()),
        (table.n_features + 1, 1),
        "one score, one start for each parameter"
    );
    check(table, config, "cholesky")?;
    blas::prepare(comm)?;
    let equations = normal_equations(comm, table)?;
    let local = if comm.is_root() { factorise(&equations, table, config) } else { Ok((None, 0.0)) };
    let (factor, condition) = comm.agree(local)?;
    let mut condition = [condition];
    comm.broadcast(&mut condition, 0)?;
    if condition[0] < LEAST_RECIPROCAL_CONDITION {
        watch.warning(&format!(
            "the features are nearly dependent (reciprocal condition {:.1e} of the normal equations): solved by QR instead of Cholesky; a larger --l2 would steady the coefficients",
            condition[0]
        ));
        return tsqr::solve(comm, table, objective, config, start, watch);
    }
    // The gradient at θ = 0 is known from the pass: −XᵀWt/Σw.
    let first = largest_magnitude(&equations.target) / table.total_weight;
    let solve = |b: &[f64]| factor.as_ref().map_or(Ok(Vec::new()), |factor| factor.solve(b));
    let right: Vec<f64> = equations.target.iter().map(|b| b / table.total_weight).collect();
    let mut params = from_root(comm, solve(&right))?;
    let mut at = evaluate(&function, &params)?;
    let step = from_root(comm, solve(&at.1))?;
    let refined: Vec<f64> = params.iter().zip(&step).map(|(p, s)| p - s).collect();
    let after = evaluate(&function, &refined)?;
    if largest_magnitude(&after.1) <= largest_magnitude(&at.1) {
        (params, at) = (refined, after);
    }
    Ok(finished(params, &at, first, clock, watch))
}

/// What least squares, TSQR and coordinate descent refuse alike. Not collective: the same on every rank.
pub(super) fn check(table: &Table<'_>, config: &TrainConfig, solver: &str) -> Result<()> {
    if config.l1 > 0.0 && solver != "cd" {
        return Err(Error::usage(format!("--solver {solver} cannot minimise an --l1 penalty; use --solver cd")));
    }
    if table.n_features > MAX_FEATURES {
        let gigabytes = 14.0 * (table.n_features as f64) * (table.n_features as f64) / 1e9;
        return Err(Error::usage(format!(
            "--solver {solver} sums a matrix of features × features: {} features would take {gigabytes:.0} GB for each \
             thread; use --solver lbfgs",
            table.n_features
        )));
    }
    if table.total_weight > 0.0 && table.total_weight.is_finite() {
        return Ok(());
    }
    Err(Error::data(format!("the weights of all rows add up to {}: there is nothing to fit", table.total_weight)))
}

/// The factor of XᵀWX/Σw + λ₂ (coefficients only) and its reciprocal condition; 0 without a factor.
fn factorise(equations: &NormalEquations, table: &Table<'_>, config: &TrainConfig) -> Result<(Option<Factor>, f64)> {
    let width = equations.width;
    let mut matrix: Vec<f64> = equations.gram.iter().map(|g| g / table.total_weight).collect();
    for j in (0..table.n_features).filter(|j| table.peak[*j] != 0.0) {
        matrix[j * width + j] += config.l2;
    }
    let Some(factor) = Factor::new(&matrix, 0.0) else { return Ok((None, 0.0)) };
    let condition = factor.reciprocal_condition()?;
    Ok((Some(factor), condition))
}

/// The root's vector on every rank, or its error. Collective.
pub(super) fn from_root(comm: &Communicator, local: Result<Vec<f64>>) -> Result<Vec<f64>> {
    let mut values = comm.agree(local)?;
    comm.broadcast_vec(&mut values, 0)?;
    Ok(values)
}

/// Loss and gradient of a solution. Collective.
pub(super) fn evaluate(function: &FullBatch<'_, '_>, params: &[f64]) -> Result<(f64, Vec<f64>)> {
    let evaluation = function.evaluate(params)?;
    evaluation.ok_or_else(|| Error::data("the loss of the solution is not finite: targets or weights are too large"))
}

/// The fit of a solver that needs one step; tells the observer of it.
pub(super) fn finished(
    params: Vec<f64>,
    at: &(f64, Vec<f64>),
    first: f64,
    clock: Instant,
    watch: &mut dyn Observer,
) -> Fit {
    let relative = if first > 0.0 { largest_magnitude(&at.1) / first } else { 0.0 };
    watch.progress(&Progress { step: 1, of_steps: 1, loss: at.0, gradient: Some(relative), learning_rate: None });
    Fit {
        params,
        losses: vec![at.0],
        stop_values: vec![relative],
        valid_losses: Vec::new(),
        first_loss: None,
        iterations: 1,
        converged: true,
        seconds: vec![clock.elapsed().as_secs_f64()],
    }
}

#[cfg(test)]
#[path = "least_squares_tests.rs"]
mod tests;
