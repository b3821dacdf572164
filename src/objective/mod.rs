//! # objective — loss, gradient and curvature of rows
//!
//! In:    targets, weights and scores of some rows.
//! Out:   sums of losses; per-row derivatives by the scores.
//! Talks: never.
//! Never: ranks, files, parameters.

mod each;
mod gaussian;
mod hinge;
mod logistic;
mod pairs;
mod poisson;
mod residual;
mod softmax;
mod squared;

pub use each::Each;
pub use gaussian::Gaussian;
pub use hinge::SquaredHinge;
pub use logistic::Logistic;
pub use pairs::PairLoss;
pub use poisson::Poisson;
pub use residual::{Huber, Quantile};
pub use softmax::Softmax;
pub use squared::Squared;

/// A loss that is a sum over rows, convex in the scores (but for [`Gaussian`]). Scores are (rows, n_scores), row-major.
pub trait Objective: Send + Sync {
    fn name(&self) -> &'static str;

    /// 1, the number of classes, 2 (mean and logarithm of the variance), or the number of targets.
    fn n_scores(&self) -> usize;

    /// Targets of a row; `y` is (rows, n_targets).
    fn n_targets(&self) -> usize {
        1
    }

    /// Overwrites `scores` with w·∂loss/∂score and returns Σ w·loss. Rows of weight 0 add nothing, whatever they hold.
    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64;

    /// [`gradients`](Self::gradients), and w·loss of each row into `losses`: what a row has does not depend on the others.
    fn gradients_of_rows(&self, y: &[f64], weight: &[f64], scores: &mut [f64], losses: &mut [f64]) {
        let rows = y.chunks(self.n_targets()).zip(weight.chunks(1)).zip(scores.chunks_mut(self.n_scores()));
        rows.zip(losses).for_each(|(((y, weight), scores), loss)| *loss = self.gradients(y, weight, scores));
    }

    /// Overwrites `curvature` with w·∂²loss/∂score∂score of one row, (n_scores, n_scores), symmetric.
    fn curvature(&self, y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]);

    /// A typical ∂²loss/∂score² at the start: how long the first step of a quasi-Newton solver may be.
    fn typical_curvature(&self) -> f64;

    /// An upper bound of the eigenvalues of ∂²loss/∂score² of a row with target `y`, over the scores between `start` and a
    /// good fit: how short a step on a few rows must be. Default: [`typical_curvature`](Self::typical_curvature).
    fn largest_curvature(&self, _y: f64, _start: f64) -> f64 {
        self.typical_curvature()
    }

    /// How far apart the scores of a good fit lie at least; 0 where they are in the target's own units (squared).
    fn score_scale(&self) -> f64 {
        2.0
    }

    /// Scores that minimise the loss of a model without features, from Σw and, per score, Σ w·y (for classes: the weight of the class).
    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64>;

    /// Inverse link, in place: scores (rows, n_scores) become predictions, as many.
    fn to_prediction(&self, scores: &mut [f64]);

    /// Why `y` cannot be a target of this loss, if so.
    fn refuses(&self, _y: f64) -> Option<&'static str> {
        None
    }
}

/// Overwrites `scores` with w times the slope that `of` gives beside the loss of score − y; returns Σ w·loss. For losses of one score.
#[inline(always)]
fn by_residual(y: &[f64], weight: &[f64], scores: &mut [f64], of: impl Fn(f64) -> [f64; 2]) -> f64 {
    let mut total = 0.0;
    for ((score, y), w) in scores.iter_mut().zip(y).zip(weight) {
        if *w == 0.0 {
            *score = 0.0; // whatever the target: 0·∞ is not 0
            continue;
        }
        let [loss, slope] = of(*score - y);
        total += w * loss;
        *score = w * slope;
    }
    total
}

/// Σ w·y/Σ w, or 0 of no rows.
fn mean(weight: f64, weighted_y: f64) -> f64 {
    if weight > 0.0 { weighted_y / weight } else { 0.0 }
}

/// Central differences of the loss and of the gradient against what the objective says, at one row.
#[cfg(test)]
pub(crate) fn check_derivatives(objective: &dyn Objective, y: &[f64], scores: &[f64]) {
    let k = scores.len();
    let weight = 1.7;
    let gradient = |s: &[f64]| {
        let mut s = s.to_vec();
        let loss = objective.gradients(y, &[weight], &mut s);
        (loss, s)
    };
    let (_, analytic) = gradient(scores);
    let mut curvature = vec![0.0; k * k];
    objective.curvature(y, weight, scores, &mut curvature);
    let step = 1e-5;
    for j in 0..k {
        let (mut up, mut down) = (scores.to_vec(), scores.to_vec());
        up[j] += step;
        down[j] -= step;
        let ((loss_up, grad_up), (loss_down, grad_down)) = (gradient(&up), gradient(&down));
        approx::assert_relative_eq!(
            analytic[j],
            (loss_up - loss_down) / (2.0 * step),
            epsilon = 1e-7,
            max_relative = 1e-6
        );
        for i in 0..k {
            let difference = (grad_up[i] - grad_down[i]) / (2.0 * step);
            approx::assert_relative_eq!(curvature[i * k + j], difference, epsilon = 1e-6, max_relative = 1e-5);
        }
    }
}
