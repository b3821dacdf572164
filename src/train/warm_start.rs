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
use super::sums::sum_scalars;
use super::table::Table;
use super::{Silent, TrainConfig};
use crate::data::partition::RowPlan;
use crate::error::{ErrorKind, Result};
use crate::exact::ExactSum;
use serde::{Deserialize, Serialize};

/// Rows that a thinned table has at least, and for each parameter.
const LEAST_ROWS: u64 = 4096;
const ROWS_PER_PARAM: u64 = 16;
/// Thinning by less is not worth it.
const LEAST_STEP: u64 = 8;
/// The Hessian of more parameters, for each row that is left out, costs more than the passes it saves.
const PARAMS_PER_STEP: u64 = 16;
/// Rows of typical curvature that the intercept sees at least, for each parameter of a score.
const CURVED_ROWS_PER_PARAM: usize = 4;
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

/// A start for `problem` from the optimum of a thinned table, or `params` itself where the table is small, or where its
/// thinned rows do not stand for all of them. Collective.
pub fn warm_start(problem: &FullBatch<'_, '_>, config: &TrainConfig, params: Vec<f64>) -> Result<Start> {
    // Rare columns, which sparse tables are made of, are what thinned rows know little of.
    if problem.table.is_sparse() {
        return Ok(Start::at(params));
    }
    let Some(step) = step(problem.table.plan.n_rows(), problem.table.plan.block_rows(), params.len()) else {
        return Ok(Start::at(params));
    };
    let (comm, objective) = (problem.comm, problem.objective);
    let mut thin = problem.table.agree(problem.comm, problem.table.thinned(step, config.seed))?;
    if !weigh(problem, &mut thin, step, params.len())? {
        return Ok(Start::at(params));
    }
    let thinned = FullBatch::new(comm, &thin, objective, problem.l2);
    let Some((value, grad)) = thinned.evaluate(&params)? else { return Ok(Start::at(params)) };
    let reference = largest(&pseudo_gradient(&thinned, config.l1, &params, &grad));
    let rough = TrainConfig { tolerance: TOLERANCE, ..config.clone() };
    let from = Start { evaluated: Some((value, grad)), ..Start::at(params.clone()) };
    let fit = lbfgs::solve(&thinned, &rough, from, &mut Silent)?;
    let lower = match hessian(comm, &thin, objective, &fit.params, largest_weight(comm, &thin)?) {
        Ok(lower) => lower,
        Err(beyond_range) if beyond_range.kind() == ErrorKind::Data => return Ok(Start::at(params)),
        Err(error) => return Err(error),
    };
    let matrix = mean_curvature(&thinned, &lower);
    if reference == 0.0 || !is_typical(&thinned, &matrix) {
        return Ok(Start::at(params));
    }
    let evaluated = problem.evaluate(&fit.params)?;
    if evaluated.is_none() {
        return Ok(Start::at(params));
    }
    // OWL-QN walks along the axes of the coefficients, which another metric would turn.
    let curvature = if config.l1 > 0.0 { None } else { damped(matrix, problem.n_params()) };
    Ok(Start { params: fit.params, reference: Some(reference), evaluated, curvature })
}

/// Adds up the weights of the thinned rows. False: they are not a part of the whole like any other, because few rows weigh
/// nearly everything. Collective.
fn weigh(problem: &FullBatch<'_, '_>, thin: &mut Table<'_>, step: u64, n_params: usize) -> Result<bool> {
    let mut sums = [ExactSum::new(), ExactSum::new()];
    thin.each_labels(|_, weight, _| {
        for w in weight {
            sums[0].add(*w);
            sums[1].add_product(*w, *w);
        }
    })?;
    let [total, squares] = sum_scalars(problem.comm, &sums)?;
    let (Some(total), Some(squares)) = (total.value(), squares.value()) else { return Ok(false) };
    thin.total_weight = total;
    let share = total * step as f64 / problem.table.total_weight;
    // Kish's effective number of rows.
    let effective = total * total / squares;
    Ok((0.5..=2.0).contains(&share) && effective >= 0.5 * wanted_rows(n_params) as f64)
}

/// Every row counts as much as it should: the curvature along an intercept is that of rows enough, and along each feature,
/// which has variance 1 in the whole table, about the same. Rare classes and rare columns fail: thinned rows know little of
/// them. Not collective; the same on every rank.
fn is_typical(thinned: &FullBatch<'_, '_>, matrix: &[f64]) -> bool {
    let (n, width) = (thinned.n_params(), thinned.table.n_features + 1);
    let diagonal = |j: usize| matrix[j * n + j] - if thinned.is_penalised(j) { thinned.l2 } else { 0.0 };
    (0..thinned.objective.n_scores()).all(|score| {
        let of_intercept = diagonal(score * width + width - 1);
        let rows = thinned.table.plan.n_rows() as f64 * of_intercept / thinned.objective.typical_curvature();
        let used = |j: &usize| thinned.table.peak[*j] > 0.0;
        let like_it = |j: usize| (0.25..=4.0).contains(&(diagonal(score * width + j) / of_intercept));
        rows >= (CURVED_ROWS_PER_PARAM * width) as f64 && (0..width - 1).filter(used).all(like_it)
    })
}

/// Every how many rows one is taken: a power of two, so that blocks stay blocks. None: all of them.
fn step(n_rows: u64, block_rows: u64, n_params: usize) -> Option<u64> {
    let most = 1 << block_rows.trailing_zeros();
    let step = most.min(1 << (n_rows / wanted_rows(n_params)).max(1).ilog2());
    (step >= LEAST_STEP && n_params as u64 <= PARAMS_PER_STEP * step).then_some(step)
}

/// Rows of the thinned table of a plan; 0 where none is made.
pub fn thinned_rows(plan: &RowPlan, n_params: usize) -> u64 {
    step(plan.n_rows(), plan.block_rows(), n_params).map_or(0, |step| plan.n_rows() / step)
}

fn wanted_rows(n_params: usize) -> u64 {
    LEAST_ROWS.max(ROWS_PER_PARAM * n_params as u64)
}

/// Σ w·loss″/Σ w + λ₂ on the coefficients, (parameters, parameters), from the triangles of [`hessian`].
fn mean_curvature(problem: &FullBatch<'_, '_>, lower: &[f64]) -> Vec<f64> {
    let mut matrix = expand(lower, problem.table.n_features + 1, problem.objective.n_scores());
    for (j, row) in matrix.chunks_exact_mut(problem.n_params()).enumerate() {
        row.iter_mut().for_each(|entry| *entry /= problem.table.total_weight);
        if problem.is_penalised(j) {
            row[j] += problem.l2;
        }
    }
    matrix
}

/// Its factor, with a little added on the diagonal: where only differences of scores matter (softmax) there is a direction
/// without curvature.
fn damped(mut matrix: Vec<f64>, n: usize) -> Option<Cholesky> {
    const DAMPING: f64 = 1e-4;
    let mut trace = 0.0;
    for j in 0..n {
        trace += matrix[j * n + j];
    }
    for j in 0..n {
        matrix[j * n + j] += DAMPING * trace / n as f64;
    }
    Cholesky::new(matrix, n)
}

/// `LLᵀ = A` in plain loops: the same bits on every processor. For a few hundred unknowns.
#[derive(Serialize, Deserialize)]
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
        assert_eq!(step(60_000, 672, 7850), None, "too many parameters for the rows");
        assert_eq!(step(32_768, 256, 200), None, "too many parameters for the step");
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
            let solve = |comm: &Communicator, table: &Table<'_>, is_warm: bool| {
                let problem = FullBatch::new(comm, table, objective, config.l2);
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

    /// Passes over all rows of a fit from a thinned start and of one from zero.
    fn passes(whole: &Whole, l2: f64) -> [u64; 2] {
        let config = config(Kind::Logistic, l2, 1e-6);
        let comm = Communicator::solo();
        let table = whole.of_rank(&comm);
        [true, false].map(|is_warm| {
            let counted = Communicator::solo();
            let problem = FullBatch::new(&counted, &table, &Logistic, l2);
            let mut start = Start::at(vec![0.0; problem.n_params()]);
            if is_warm {
                start = warm_start(&problem, &config, start.params).unwrap();
            }
            let before = counted.traffic().total().calls;
            let fit = lbfgs::solve(&problem, &config, start, &mut Silent).unwrap();
            assert!(fit.converged);
            (counted.traffic().total().calls - before) / 2
        })
    }

    #[test]
    fn rows_that_do_not_stand_for_all_cost_no_passes() {
        let dense = || Whole::random(70_001, 6).with_targets(|s| f64::from(s > 0.3), 1.0);
        // A column of 30 ones, standardised; weights on every hundredth row; one class of 40 rows; one row that weighs most.
        let mut rare = dense();
        rare.set_column(3, |row, _| if row % 2333 == 7 { 48.0 } else { -0.02 }, 3);
        let mut sparse = dense();
        sparse.weight.iter_mut().enumerate().for_each(|(row, w)| *w = f64::from(u8::from(row % 100 == 3)));
        let mut imbalanced = dense();
        imbalanced.y.iter_mut().enumerate().for_each(|(row, y)| *y = f64::from(u8::from(row % 1750 == 9)));
        let mut heavy = dense();
        heavy.weight[35_000] = 1e8;
        for (name, whole) in [("rare", rare), ("sparse", sparse), ("imbalanced", imbalanced), ("heavy", heavy)] {
            for l2 in [3e-4, 1e-7] {
                let [warm, cold] = passes(&whole, l2);
                assert!(warm <= cold + 4, "{name}, l2 {l2}: {warm} passes, {cold} from zero");
            }
        }
    }
}
