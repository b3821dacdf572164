//! Exact second-order sums over all ranks: the Hessian of an objective, and the normal equations of least squares.
//!
//! A block's sums are turned into integers at exponents that are known before the pass (`EXACT` 2c.1), so nothing is
//! kept and threads and ranks leave no trace. Memory: one accumulator (28 bytes a sum) for each thread.

use super::outer::{CHUNK, OuterProducts};
use super::table::{BlockRows, Table};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::BoundedSums;
use crate::exact::scale::{bounding_exponent, ceil_log2, from_order_key, order_key};
use crate::model::LinearModel;
use crate::model::linear::Rows;
use crate::objective::Objective;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Largest of |values| over all ranks, element by element; an infinity if one is infinite or NaN. Collective.
pub fn global_peaks(comm: &Communicator, values: &[f64]) -> Result<Vec<f64>> {
    let mut keys: Vec<i64> =
        values.iter().map(|v| order_key(if v.is_nan() { f64::INFINITY } else { v.abs() })).collect();
    comm.all_reduce_max(&mut keys)?;
    Ok(keys.into_iter().map(from_order_key).collect())
}

/// Largest weight of a row over all ranks. Collective.
pub fn largest_weight(comm: &Communicator, table: &Table<'_>) -> Result<f64> {
    let mut key = 0;
    let passed = table.each_labels(|_, weight, _| weight.iter().for_each(|w| key = key.max(order_key(*w))));
    table.agree(comm, passed)?;
    Ok(global_peaks(comm, &[from_order_key(key)])?[0])
}

/// The Hessian of `Σ w·loss` (not divided by Σ w, without penalty), the same bits on every rank. Collective.
///
/// * `params`: (n_scores, n_features + 1), intercept last.
/// * `largest_weight`: of all rows, from [`largest_weight`].
///
/// Returns for each pair of scores (a, b ≤ a), in the order (0,0), (1,0), (1,1), (2,0), …, the lower triangle of
/// `Σ w·∂²loss/∂score_a∂score_b·z zᵀ`, z = (x, 1), row after row: [`expand`] makes the matrix of it.
///
/// # Errors
/// `Data`, if the Hessian is beyond the range of float64.
///
/// The numbers are those of [`add_hessian`](crate::model::linear::add_hessian), block by block.
pub fn hessian(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    params: &[f64],
    largest_weight: f64,
) -> Result<Vec<f64>> {
    let (d, k) = (table.n_features, objective.n_scores());
    let n_pairs = k * (k + 1) / 2;
    let model = LinearModel { n_features: d, n_scores: k, params: params.to_vec() };
    let factor = match curvature_bound(objective) {
        Some(bound) => bound * largest_weight,
        None => largest_curvature(comm, table, objective, &model)?,
    };
    let mut peaks = table.peak.clone();
    peaks.push(1.0);
    let of_pair = outer_exponents(&peaks, factor, table.plan.block_rows());
    let exponents: Vec<i32> = of_pair.iter().copied().cycle().take(n_pairs * of_pair.len()).collect();
    let work = || (OuterProducts::new(d + 1, n_pairs), vec![Vec::with_capacity(CHUNK); n_pairs]);
    let sums = sum_over_blocks(comm, table, exponents, work, |(outer, factors), block, out| {
        let rows = &block.rows;
        outer.clear();
        for chunk in chunks(block.range) {
            outer.start_chunk();
            factors.iter_mut().for_each(Vec::clear);
            each_curvature(rows, objective, &model, chunk, |row, curvature| {
                if curvature.iter().all(|c| *c == 0.0) {
                    return;
                }
                outer.push_row(rows.row(row), &[1.0]);
                let mut pair = 0;
                for a in 0..k {
                    for b in 0..=a {
                        factors[pair].push(curvature[a * k + b]);
                        pair += 1;
                    }
                }
            });
            for (pair, factors) in factors.iter().enumerate() {
                outer.add_chunk(pair, factors);
            }
        }
        outer.lower_triangles(out);
    })?;
    sums.ok_or_else(|| {
        Error::data("the second derivatives of the loss are beyond the range of numbers; rescale the weights or use --solver lbfgs")
    })
}

/// The full matrix (n_scores·w)², row-major, w = n_features + 1, of what [`hessian`] returns. Not collective.
pub fn expand(lower: &[f64], width: usize, n_scores: usize) -> Vec<f64> {
    let n = width * n_scores;
    let mut full = vec![0.0; n * n];
    let mut next = lower.iter();
    for a in 0..n_scores {
        for b in 0..=a {
            for i in 0..width {
                for j in 0..=i {
                    let value = *next.next().expect("one value for each pair");
                    for (i, j) in [(i, j), (j, i)] {
                        full[(a * width + i) * n + b * width + j] = value;
                        full[(b * width + j) * n + a * width + i] = value;
                    }
                }
            }
        }
    }
    full
}

/// The sums that least squares needs, z = (x, 1), t = y − offset; rows of weight 0 are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormalEquations {
    /// n_features + 1.
    pub width: usize,
    /// Σ w·z zᵀ, (width, width), symmetric.
    pub gram: Vec<f64>,
    /// Σ w·t·z, (width,).
    pub target: Vec<f64>,
    /// Σ w·t².
    pub squares: f64,
}

/// XᵀWX, XᵀWt and tᵀWt of all rows in one pass, the same bits on every rank. Collective.
///
/// # Errors
/// `Data`, if a target is not finite or a sum is beyond the range of float64.
pub fn normal_equations(comm: &Communicator, table: &Table<'_>) -> Result<NormalEquations> {
    let d = table.n_features;
    let key = |t: f64| order_key(if t.is_nan() { f64::INFINITY } else { t.abs() });
    let mut largest = 0;
    let passed = table.each_labels(|y, weight, offset| {
        for row in (0..y.len()).filter(|row| weight[*row] != 0.0) {
            largest = largest.max(key(y[row] - offset.map_or(0.0, |offset| offset[row])));
        }
    });
    table.agree(comm, passed)?;
    let weight = largest_weight(comm, table)?;
    let largest_target = global_peaks(comm, &[from_order_key(largest)])?[0];
    if !largest_target.is_finite() {
        return Err(Error::data("a target is infinite or not a number: least squares needs finite targets"));
    }
    let mut peaks = table.peak.clone();
    peaks.extend([1.0, largest_target]);
    let exponents = outer_exponents(&peaks, weight, table.plan.block_rows());
    let work = || (OuterProducts::new(d + 2, 1), Vec::with_capacity(CHUNK));
    let sums = sum_over_blocks(comm, table, exponents, work, |(outer, factors), block, out| {
        let rows = &block.rows;
        let target = |row: usize| rows.y[row] - rows.offset.map_or(0.0, |offset| offset[row]);
        outer.clear();
        for chunk in chunks(block.range) {
            outer.start_chunk();
            factors.clear();
            for row in chunk.filter(|row| rows.weight[*row] != 0.0) {
                outer.push_row(rows.row(row), &[1.0, target(row)]);
                factors.push(rows.weight[row]);
            }
            outer.add_chunk(0, factors);
        }
        outer.lower_triangles(out);
    })?;
    let sums = sums.ok_or_else(|| {
        Error::data("the products of features and targets are beyond the range of numbers; rescale the target")
    })?;
    let full = expand(&sums, d + 2, 1);
    let width = d + 1;
    let row = |i: usize| &full[i * (d + 2)..i * (d + 2) + width];
    let gram = (0..width).flat_map(|i| row(i).iter().copied()).collect();
    Ok(NormalEquations { width, gram, target: row(width).to_vec(), squares: full[full.len() - 1] })
}

/// A bound of |∂²loss/∂score²| that holds at every point, where there is one.
fn curvature_bound(objective: &dyn Objective) -> Option<f64> {
    match objective.name() {
        "logistic" => Some(0.25),
        "softmax" => Some(0.5),
        "squared" => Some(1.0),
        "squared_hinge" => Some(2.0),
        _ => None,
    }
}

/// Largest |w·∂²loss/∂score²| of all rows at this model. Collective.
fn largest_curvature(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    model: &LinearModel,
) -> Result<f64> {
    let of_block = |block: BlockRows<'_>| {
        let mut largest = 0;
        for chunk in chunks(block.range) {
            each_curvature(&block.rows, objective, model, chunk, |_, curvature| {
                for c in curvature {
                    largest = largest.max(order_key(if c.is_nan() { f64::INFINITY } else { c.abs() }));
                }
            });
        }
        largest
    };
    let mine = table.agree(comm, table.map_blocks(of_block))?.into_iter().max().unwrap_or(0);
    Ok(global_peaks(comm, &[from_order_key(mine)])?[0])
}

/// Visits the rows of weight ≠ 0 with w·∂²loss/∂score∂score, (n_scores, n_scores).
fn each_curvature(
    rows: &Rows<'_>,
    objective: &dyn Objective,
    model: &LinearModel,
    which: Range<usize>,
    mut visit: impl FnMut(usize, &[f64]),
) {
    let k = model.n_scores;
    let mut scores = vec![0.0; which.len() * k];
    let mut curvature = vec![0.0; k * k];
    rows.scores(model, which.clone(), &mut scores);
    for (row, scores) in which.zip(scores.chunks_exact_mut(k)) {
        if rows.weight[row] == 0.0 {
            continue;
        }
        if let Some(offset) = rows.offset {
            scores.iter_mut().for_each(|score| *score += offset[row]);
        }
        objective.curvature(&rows.y[row..=row], rows.weight[row], scores, &mut curvature);
        visit(row, &curvature);
    }
}

fn chunks(block: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = block.end;
    block.step_by(CHUNK).map(move |first| first..(first + CHUNK).min(end))
}

/// Exponents of a block's `Σ f·z_i·z_j`, |f| ≤ `factor` and |z_i| ≤ `peaks[i]`, lower triangle (`EXACT` 2c.1).
///
/// The three factors lie below 2^(e+1) each, so R of their products add up to less than 2^(Σe + 3 + ⌈log2 R⌉): the
/// exponent is one more than needed, which pays for the roundings inside the block.
fn outer_exponents(peaks: &[f64], factor: f64, block_rows: u64) -> Vec<i32> {
    let of_peak: Vec<i32> = peaks.iter().map(|peak| bounding_exponent(*peak)).collect();
    let rest = bounding_exponent(factor) + 3 + ceil_log2(block_rows) as i32;
    let pairs = (0..peaks.len()).flat_map(|i| (0..=i).map(move |j| (i, j)));
    pairs.map(|(i, j)| of_peak[i] + of_peak[j] + rest).collect()
}

/// Adds what `add(work, block, out)` writes for each block over threads and ranks; None if a contribution was beyond its
/// bound. Collective.
fn sum_over_blocks<W: Send>(
    comm: &Communicator,
    table: &Table<'_>,
    exponents: Vec<i32>,
    work: impl Fn() -> W,
    add: impl Fn(&mut W, BlockRows<'_>, &mut Vec<f64>) + Send + Sync,
) -> Result<Option<Vec<f64>>> {
    let new = || {
        let sums = BoundedSums::new(exponents.clone(), table.plan.n_blocks());
        (sums, work(), Vec::with_capacity(exponents.len()))
    };
    let partial = table.fold_blocks(new, |(sums, work, out), block| {
        add(work, block, out);
        sums.add(out);
    });
    let mut partial = table.agree(comm, partial)?.into_iter().map(|(sums, ..)| sums);
    let mut sums = partial.next().expect("at least one accumulator");
    for other in partial {
        sums.merge(&other);
    }
    let mut words = sums.to_words();
    comm.all_reduce_sum(&mut words)?;
    Ok(sums.finish(&words))
}
