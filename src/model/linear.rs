//! Linear scores of standardised rows, and what full-batch and mini-batch solvers need of them.

use super::Scores;
use super::ahead::Ahead;
use super::features::{Features, Row};
use super::kernels::{TILE, add_outer_products, add_scaled_rows, fill_tile, tile_scores};
use crate::objective::Objective;
use std::ops::Range;

/// `score_c = intercept_c + Σ_j coefficient_c[j]·z_j`, z standardised.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearModel {
    pub n_features: usize,
    pub n_scores: usize,
    /// (n_scores, n_features + 1), row-major, intercept last.
    pub params: Vec<f64>,
}

/// Rows with what belongs to them; the unit that [`LinearModel`]'s sums take.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub n_features: usize,
    /// Standardised, of the whole table in memory.
    pub x: &'a Features,
    /// (rows, targets)
    pub y: &'a [f64],
    pub weight: &'a [f64],
    /// Added to every score of the row.
    pub offset: Option<&'a [f64]>,
}

impl<'a> Rows<'a> {
    pub fn row(&self, i: usize) -> Row<'a> {
        self.x.row(i, self.n_features)
    }

    /// Scores of some rows, (rows, n_scores), without offset. Not collective.
    pub fn scores(&self, model: &LinearModel, rows: Range<usize>, scores: &mut [f64]) {
        match self.x {
            Features::Dense(x) => {
                model.scores(&x[rows.start * self.n_features..rows.end * self.n_features], scores);
            }
            Features::Sparse(_) => {
                for (row, scores) in rows.zip(scores.chunks_exact_mut(model.n_scores)) {
                    model.score_row(self.row(row), scores);
                }
            }
        }
    }

    /// Scores of the rows of these numbers by a model of standardised rows, (rows, n_scores), offset included. Not collective.
    ///
    /// # Panics
    /// If it is another model.
    pub fn scores_of(&self, by: &Scores, which: &[usize], scores: &mut [f64]) {
        match by {
            Scores::Linear(linear) => {
                for (row, scores) in which.iter().zip(scores.chunks_exact_mut(linear.n_scores)) {
                    linear.score_row(self.row(*row), scores);
                }
            }
            Scores::Mlp(network) => network.scores(which.iter().map(|row| self.row(*row)), scores),
            _ => panic!("trees take rows as they are stored"),
        }
        if let Some(offset) = self.offset {
            for (row, scores) in which.iter().zip(scores.chunks_exact_mut(by.n_scores())) {
                scores.iter_mut().for_each(|score| *score += offset[*row]);
            }
        }
    }

    /// What the loss of training is made of instead of them, (rows, outputs), in its unit: the same, but of a network. Not collective.
    ///
    /// # Panics
    /// As [`scores_of`](Self::scores_of).
    pub fn outputs_of(&self, by: &Scores, which: &[usize], outputs: &mut [f64]) {
        match by {
            Scores::Mlp(network) => network.outputs(which.iter().map(|row| self.row(*row)), outputs),
            _ => self.scores_of(by, which, outputs),
        }
    }

    /// Targets of each row; 0 where there are no rows.
    pub fn n_targets(&self) -> usize {
        self.y.len().checked_div(self.weight.len()).unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.weight.len()
    }

    pub fn is_empty(&self) -> bool {
        self.weight.is_empty()
    }
}

/// Buffers of one thread; made once per block or lane.
pub struct Work {
    /// (TILE, n_features), made at first use.
    tile: Vec<f64>,
    n_rows: usize,
    scores: Vec<f64>,
    curvature: Vec<f64>,
    y: [f64; TILE],
    weight: [f64; TILE],
    /// Bits of the largest |w·∂loss/∂score| of sparse rows, as those of magnitudes are ordered: NaN is above all.
    pub peak: u64,
}

impl LinearModel {
    pub fn zeros(n_features: usize, n_scores: usize) -> LinearModel {
        LinearModel { n_features, n_scores, params: vec![0.0; n_scores * (n_features + 1)] }
    }

    /// Parameters of one score: features, then the intercept.
    pub fn stride(&self) -> usize {
        self.n_features + 1
    }

    pub fn work(n_scores: usize) -> Work {
        Work {
            tile: Vec::new(),
            n_rows: 0,
            scores: vec![0.0; TILE * n_scores],
            curvature: vec![0.0; n_scores * n_scores],
            y: [0.0; TILE],
            weight: [0.0; TILE],
            peak: 0,
        }
    }

    /// Scores of one standardised row, (n_scores): the bits of [`scores`](Self::scores). Not collective.
    pub fn score_row(&self, row: Row<'_>, scores: &mut [f64]) {
        for (score, params) in scores.iter_mut().zip(self.params.chunks_exact(self.stride())) {
            *score = row.score(params);
        }
    }

    /// Scores of standardised dense rows, (rows, n_scores). Not collective.
    pub fn scores(&self, rows: &[f32], scores: &mut [f64]) {
        let mut of_tile = vec![0.0; TILE * self.n_scores];
        let mut tile = vec![0.0; TILE * self.n_features];
        let n_rows = scores.len() / self.n_scores;
        for first in (0..n_rows).step_by(TILE) {
            let last = (first + TILE).min(n_rows);
            let of_tile_rows = (first..last).map(|i| &rows[i * self.n_features..(i + 1) * self.n_features]);
            fill_tile(of_tile_rows, self.n_features, &mut tile);
            tile_scores(&tile, &self.params, self.n_scores, &mut of_tile);
            scores[first * self.n_scores..last * self.n_scores]
                .copy_from_slice(&of_tile[..(last - first) * self.n_scores]);
        }
    }
}

/// Adds `Σ w·∂loss/∂params` of the rows numbered `which` to `grad` and returns Σ w·loss. Not collective.
///
/// * `params`, `grad`: (n_scores, n_features + 1), as [`LinearModel::params`].
/// * Rows enter in the order of `which`, [`TILE`] at a time: that order is part of the answer.
pub fn add_gradient(
    rows: &Rows<'_>,
    which: impl ExactSizeIterator<Item = usize>,
    params: &[f64],
    objective: &dyn Objective,
    work: &mut Work,
    grad: &mut [f64],
) -> f64 {
    let k = objective.n_scores();
    let stride = rows.n_features + 1;
    let mut loss = 0.0;
    for_each_tile(rows, which, params, k, work, |work, numbers, ahead| {
        let n = work.n_rows;
        loss += objective.gradients(&work.y[..n], &work.weight[..n], &mut work.scores[..n * k]);
        ahead.ask(12);
        for c in 0..k {
            let factor: [f64; TILE] = std::array::from_fn(|i| if i < n { work.scores[i * k + c] } else { 0.0 });
            let (coefficients, intercept) = grad[c * stride..(c + 1) * stride].split_at_mut(stride - 1);
            match rows.x {
                Features::Dense(_) => add_scaled_rows(&work.tile, stride - 1, &factor, coefficients),
                Features::Sparse(_) => {
                    for (&i, f) in numbers.iter().zip(factor) {
                        rows.row(i).add_scaled(f, coefficients);
                        work.peak = work.peak.max(f.abs().to_bits());
                    }
                }
            }
            for f in factor {
                intercept[0] += f;
            }
        }
    });
    loss
}

/// Adds the lower triangle of `Σ w·∂²loss/∂params²` of the rows numbered `which` to `hessian`. Not collective.
///
/// `hessian`: (n_params, n_params), row-major; within a pair of scores only entries (j, l) with j ≥ l are filled: the
/// caller mirrors them.
pub fn add_hessian(
    rows: &Rows<'_>,
    which: impl ExactSizeIterator<Item = usize>,
    params: &[f64],
    objective: &dyn Objective,
    work: &mut Work,
    blocks: &mut [Vec<f64>],
) {
    let k = objective.n_scores();
    assert!(!rows.x.is_sparse(), "outer products of dense rows");
    for_each_tile(rows, which, params, k, work, |work, _, _| {
        let mut curvatures = [const { Vec::new() }; TILE];
        for i in 0..work.n_rows {
            let scores = &work.scores[i * k..(i + 1) * k];
            objective.curvature(&work.y[i..=i], work.weight[i], scores, &mut work.curvature);
            curvatures[i] = work.curvature.clone();
        }
        let mut pair = 0;
        for a in 0..k {
            for b in 0..=a {
                let factor: [f64; TILE] =
                    std::array::from_fn(|i| if i < work.n_rows { curvatures[i][a * k + b] } else { 0.0 });
                if factor.iter().any(|f| *f != 0.0) {
                    add_outer_products(&work.tile, &factor, rows.n_features, &mut blocks[pair]);
                }
                pair += 1;
            }
        }
    });
}

/// Visits the rows tile by tile, with their numbers, and scores (offset included), targets and weights in `work`; a visit should
/// ask for the last 12 of 32 shares of the rows ahead. Of sparse rows there is no tile of values.
fn for_each_tile(
    rows: &Rows<'_>,
    mut which: impl ExactSizeIterator<Item = usize>,
    params: &[f64],
    n_scores: usize,
    work: &mut Work,
    mut visit: impl FnMut(&mut Work, &[usize], &mut Ahead),
) {
    let mut take = move || {
        let n = which.len().min(TILE);
        let mut numbers = [0usize; TILE];
        numbers.iter_mut().zip(&mut which).for_each(|(number, next)| *number = next);
        (numbers, n)
    };
    let is_sparse = rows.x.is_sparse();
    work.tile.resize(if is_sparse { 0 } else { TILE * rows.n_features }, 0.0);
    let (mut numbers, mut n) = take();
    while n > 0 {
        let (next_numbers, next_n) = take();
        let mut ahead =
            Ahead::new(std::array::from_fn(|i| if i < next_n { rows.row(next_numbers[i]).dense() } else { &[] }));
        work.n_rows = n;
        if is_sparse {
            for (&i, scores) in numbers[..n].iter().zip(work.scores.chunks_exact_mut(n_scores)) {
                let of_scores = params.chunks_exact(rows.n_features + 1);
                scores.iter_mut().zip(of_scores).for_each(|(score, params)| *score = rows.row(i).score(params));
            }
        } else {
            let present = numbers[..n].iter().map(|&i| {
                ahead.ask(1);
                rows.row(i).dense()
            });
            fill_tile(present, rows.n_features, &mut work.tile);
            ahead.ask(4);
            tile_scores(&work.tile, params, n_scores, &mut work.scores);
        }
        for (slot, &i) in numbers[..n].iter().enumerate() {
            work.y[slot] = rows.y[i];
            work.weight[slot] = rows.weight[i];
            if let Some(offset) = rows.offset {
                for score in &mut work.scores[slot * n_scores..(slot + 1) * n_scores] {
                    *score += offset[i];
                }
            }
        }
        ahead.ask(8);
        visit(work, &numbers[..n], &mut ahead);
        (numbers, n) = (next_numbers, next_n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Logistic, Poisson, Softmax, SquaredHinge};
    use crate::rng::{Draws, Stream};

    /// Loss and gradient of `objective` on a small table against central differences in every parameter.
    fn check_gradient(objective: &dyn Objective, classes: u64) {
        let (n, d, k) = (19, 5, objective.n_scores());
        let draws = Draws::new(11, Stream::Synthetic);
        let x = Features::Dense((0..n * d).map(|i| draws.normal(i as u64, 0) as f32).collect());
        let y: Vec<f64> = (0..n).map(|i| draws.below(classes, i as u64, 1) as f64).collect();
        let weight: Vec<f64> = (0..n).map(|i| draws.uniform(i as u64, 2)).collect();
        let offset: Vec<f64> = (0..n).map(|i| 0.1 * draws.normal(i as u64, 3)).collect();
        let rows = Rows { n_features: d, x: &x, y: &y, weight: &weight, offset: Some(&offset) };
        let params: Vec<f64> = (0..k * (d + 1)).map(|i| 0.3 * draws.normal(i as u64, 4)).collect();
        let at = |params: &[f64]| {
            let mut grad = vec![0.0; params.len()];
            let loss = add_gradient(&rows, 0..n, params, objective, &mut LinearModel::work(k), &mut grad);
            (loss, grad)
        };
        let (_, grad) = at(&params);
        let step = 1e-5;
        for j in 0..params.len() {
            let (mut up, mut down) = (params.clone(), params.clone());
            up[j] += step;
            down[j] -= step;
            let difference = (at(&up).0 - at(&down).0) / (2.0 * step);
            approx::assert_relative_eq!(grad[j], difference, epsilon = 1e-7, max_relative = 1e-6);
        }
    }

    #[test]
    fn gradient_matches_differences() {
        check_gradient(&Logistic, 2);
        check_gradient(&Poisson, 5);
        check_gradient(&Softmax { n_classes: 3 }, 3);
        check_gradient(&SquaredHinge { n_classes: 4 }, 4);
    }
}
