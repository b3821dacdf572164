//! Where L-BFGS starts on a large table: at the optimum of a thinned one, with its curvature.
//!
//! One row out of every run of rows is solved first, for the price of about one pass over all rows. Its optimum lies a
//! statistical error away from the real one, and its Hessian is the real one up to a factor 1 ± √(parameters/rows), so that
//! a few passes over all rows remain. Both follow from table and settings alone, and are sums like all others.
//!
//! Sources: Byrd, Chin, Neveitt and Nocedal, *On the use of stochastic Hessian information in optimization methods for
//! machine learning*, SIAM J. Optim. 21 (2011), section 3; Nocedal and Wright, *Numerical Optimization* (2006), section 7.2,
//! for the initial matrix of the two-loop recursion.

use super::full_batch::{Evaluation, FullBatch};
use super::lbfgs::{self, dot, largest, pseudo_gradient};
use super::second_order::{expand, hessian, largest_weight};
use super::target::totals;
use super::{Silent, TrainConfig};
use crate::error::{ErrorKind, Result};

/// Rows that a thinned table has at least, and for each parameter.
const LEAST_ROWS: u64 = 4096;
const ROWS_PER_PARAM: u64 = 16;
/// Thinning by less is not worth it.
const LEAST_STEP: u64 = 8;
/// The Hessian of more parameters, for each row that is left out, costs more than the passes it saves.
const PARAMS_PER_STEP: u64 = 16;
/// What the thinned table is solved to: further than its statistical error is wasted.
const TOLERANCE: f64 = 1e-3;

/// Where to start.
pub struct Start {
    pub params: Vec<f64>,
    /// Largest element of the (pseudo-)gradient that the stop test compares with. None: that at `params`.
    pub reference: Option<f64>,
    /// Value and gradient there, where they are known.
    pub evaluated: Evaluation,
    /// The curvature there, where it is known.
    pub curvature: Option<Cholesky>,
}

impl Start {
    /// A point about which nothing is known.
    pub fn at(params: Vec<f64>) -> Start {
        Start { params, reference: None, evaluated: None, curvature: None }
    }
}

/// A start for `problem` from the optimum of a thinned table, or `params` itself where the table is small. Collective.
pub fn warm_start(problem: &FullBatch<'_>, config: &TrainConfig, params: Vec<f64>) -> Result<Start> {
    let Some(step) = step(problem.table.plan.n_rows(), problem.table.plan.block_rows(), params.len()) else {
        return Ok(Start::at(params));
    };
    let (comm, objective) = (problem.comm, problem.objective);
    let mut thin = problem.table.thinned(step, config.seed);
    (thin.total_weight, _) = totals(comm, 0, &thin.y, &thin.weight)?;
    let thinned = FullBatch { table: &thin, ..*problem };
    if thin.total_weight <= 0.0 {
        return Ok(Start::at(params));
    }
    let Some((_, grad)) = thinned.evaluate(&params)? else { return Ok(Start::at(params)) };
    let reference = largest(&pseudo_gradient(&thinned, config.l1, &params, &grad));
    let rough = TrainConfig { tolerance: TOLERANCE, ..config.clone() };
    let fit = lbfgs::solve(&thinned, &rough, Start::at(params.clone()), &mut Silent)?;
    let evaluated = problem.evaluate(&fit.params)?;
    if evaluated.is_none() {
        return Ok(Start::at(params));
    }
    let mut curvature = None;
    // OWL-QN walks along the axes of the coefficients, which another metric would turn.
    if params.len() as u64 <= PARAMS_PER_STEP * step && config.l1 == 0.0 {
        match hessian(comm, &thin, objective, &fit.params, largest_weight(comm, &thin)?) {
            Ok(lower) => curvature = damped(problem, &lower, thin.total_weight),
            Err(beyond_range) if beyond_range.kind() == ErrorKind::Data => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Start { params: fit.params, reference: Some(reference), evaluated, curvature })
}

/// Every how many rows one is taken: a power of two, so that blocks stay blocks. None: all of them.
fn step(n_rows: u64, block_rows: u64, n_params: usize) -> Option<u64> {
    let wanted = LEAST_ROWS.max(ROWS_PER_PARAM * n_params as u64);
    let most = 1 << block_rows.trailing_zeros();
    let step = most.min(1 << (n_rows / wanted).max(1).ilog2());
    (step >= LEAST_STEP).then_some(step)
}

/// Σ w·loss″/Σ w + λ₂ on the coefficients, and a little on everything: scores that only their differences matter of
/// (softmax) have a direction without curvature.
fn damped(problem: &FullBatch<'_>, lower: &[f64], total_weight: f64) -> Option<Cholesky> {
    const DAMPING: f64 = 1e-4;
    let mut matrix = expand(lower, problem.table.n_features + 1, problem.objective.n_scores());
    let n = problem.n_params();
    let mut trace = 0.0;
    for (j, row) in matrix.chunks_exact_mut(n).enumerate() {
        row.iter_mut().for_each(|entry| *entry /= total_weight);
        if problem.is_penalised(j) {
            row[j] += problem.l2;
        }
        trace += row[j];
    }
    for j in 0..n {
        matrix[j * n + j] += DAMPING * trace / n as f64;
    }
    Cholesky::new(matrix, n)
}

/// `LLᵀ = A` in plain loops: the same bits on every processor. For a few hundred unknowns.
pub struct Cholesky {
    n: usize,
    /// (n, n), row-major; the lower triangle holds L.
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factorises a symmetric (n, n) matrix; None if it is not positive definite or not finite. Not collective.
    pub fn new(mut matrix: Vec<f64>, n: usize) -> Option<Cholesky> {
        for i in 0..n {
            let (above, rest) = matrix.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let of_j = &above[j * n..j * n + j + 1];
                row[j] = (row[j] - dot(&row[..j], &of_j[..j])) / of_j[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        Some(Cholesky { n, lower: matrix })
    }

    /// `b` becomes A⁻¹b. Not collective.
    pub fn solve(&self, b: &mut [f64]) {
        let row = |i: usize| &self.lower[i * self.n..i * self.n + i + 1];
        for i in 0..self.n {
            b[i] = (b[i] - dot(&row(i)[..i], &b[..i])) / row(i)[i];
        }
        for i in (0..self.n).rev() {
            b[i] /= row(i)[i];
            let x = b[i];
            for (b, l) in b[..i].iter_mut().zip(row(i)) {
                *b -= l * x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Communicator;
    use crate::config::Kind;
    use crate::objective::{Logistic, Objective, Poisson, Softmax};
    use crate::train::table::Table;
    use crate::train::test_tables::{Whole, config, same_on_all_cuts};

    #[test]
    fn the_step_keeps_blocks_and_leaves_enough_rows() {
        assert_eq!(step(500_000, 2688, 201), Some(64), "of 128, which would leave too few rows");
        assert_eq!(step(1_000_000, 8192, 29), Some(128));
        assert_eq!(step(30_000, 8192, 29), None, "too few rows");
        assert_eq!(step(60_000, 672, 7850), None, "too many parameters");
        assert_eq!(step(1, 32, 2), None);
    }

    #[test]
    fn cholesky_solves() {
        let a = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let mut b = [1.0, -2.0, 0.5];
        let x = b;
        Cholesky::new(a.to_vec(), 3).unwrap().solve(&mut b);
        for i in 0..3 {
            approx::assert_relative_eq!(dot(&a[i * 3..i * 3 + 3], &b), x[i], epsilon = 1e-14);
        }
        assert!(Cholesky::new(vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::new(vec![f64::NAN], 1).is_none());
    }

    #[test]
    fn it_ends_where_a_cold_start_ends_in_fewer_passes() {
        let softmax = Softmax { n_classes: 3 };
        type Case<'a> = (&'a dyn Objective, Kind, fn(f64) -> f64);
        let cases: [Case<'_>; 3] = [
            (&Logistic, Kind::Logistic, |s| f64::from(s > 0.3)),
            (&softmax, Kind::Logistic, |s| f64::from(s > -0.5) + f64::from(s > 0.5)),
            (&Poisson, Kind::Poisson, |s| (s + 2.0).abs().floor()),
        ];
        for (objective, kind, target) in cases {
            let whole = Whole::random(70_001, 6).with_targets(target, 1.0);
            let config = config(kind, 3e-4, 1e-7);
            let solve = |comm: &Communicator, table: &Table, is_warm: bool| {
                let problem = FullBatch { comm, table, objective, l2: config.l2 };
                let mut start = Start::at(vec![0.0; problem.n_params()]);
                if is_warm {
                    start = warm_start(&problem, &config, start.params)?;
                    assert!(start.curvature.is_some() && start.reference.is_some());
                }
                lbfgs::solve(&problem, &config, start, &mut Silent)
            };
            let (warm, _) = same_on_all_cuts(&whole, |comm, table, _| solve(comm, table, true));
            let comm = Communicator::solo();
            let cold = solve(&comm, &whole.of_rank(&comm), false).unwrap();
            assert!(warm.converged && cold.converged);
            assert!(warm.iterations < cold.iterations, "{} and {}", warm.iterations, cold.iterations);
            for (warm, cold) in warm.params.iter().zip(&cold.params) {
                approx::assert_relative_eq!(warm, cold, epsilon = 1e-5, max_relative = 1e-5);
            }
        }
    }
}
