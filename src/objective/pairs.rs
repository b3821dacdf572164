//! Gradient and hessian of each row by its scores, as boosting wants them.

use super::logistic::sigmoid_and_softplus;
use super::softmax;
use crate::functions::exp;
use multiversion::multiversion;

/// A loss whose trees are grown on gradient pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairLoss {
    Squared,
    /// y in {0, 1}
    Logistic,
    /// y is a class number. Hessians are those of one class against the others, times n/(n − 1).
    Softmax {
        n_classes: usize,
    },
    /// The hessian is e^0.7 times too large, which keeps steps short where a leaf's scores are far too low: LightGBM's
    /// `poisson_max_delta_step`.
    Poisson,
}

impl PairLoss {
    pub fn n_scores(self) -> usize {
        if let PairLoss::Softmax { n_classes } = self { n_classes } else { 1 }
    }

    /// Writes w·∂loss/∂score and w·∂²loss/∂score² of rows, and returns Σ w·loss. Rows of weight 0 add nothing.
    ///
    /// * `scores`, `pairs`: (rows, n_scores), row-major.
    pub fn pairs(self, y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
        match self {
            PairLoss::Squared => squared(y, weight, scores, pairs),
            PairLoss::Logistic => logistic(y, weight, scores, pairs),
            PairLoss::Poisson => poisson(y, weight, scores, pairs),
            PairLoss::Softmax { n_classes } => of_classes(n_classes, y, weight, scores, pairs),
        }
    }
}

fn squared(y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    let mut loss = 0.0;
    for (((y, w), score), pair) in y.iter().zip(weight).zip(scores).zip(pairs) {
        let residual = score - y;
        if *w > 0.0 {
            loss += w * 0.5 * residual * residual;
        }
        *pair = if *w > 0.0 { [(w * residual) as f32, *w as f32] } else { [0.0; 2] };
    }
    loss
}

/// Eight rows at a time, so that their exponentials share registers; losses are added in the order of the rows.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn logistic(y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    let mut loss = 0.0;
    for (((scores, y), weight), pairs) in
        scores.chunks(8).zip(y.chunks(8)).zip(weight.chunks(8)).zip(pairs.chunks_mut(8))
    {
        let mut losses = [0.0; 8];
        for ((((score, y), w), pair), of_row) in scores.iter().zip(y).zip(weight).zip(pairs).zip(&mut losses) {
            let (p, softplus) = sigmoid_and_softplus(*score);
            *of_row = w * (softplus - y * *score);
            *pair = [(w * (p - y)) as f32, (w * (p * (1.0 - p))) as f32];
        }
        for of_row in &losses[..scores.len()] {
            loss += of_row;
        }
    }
    loss
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn poisson(y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    /// e^0.7
    const LONGER: f64 = 2.013_752_707_470_476_5;
    let mut loss = 0.0;
    for (((y, w), score), pair) in y.iter().zip(weight).zip(scores).zip(pairs) {
        let mean = exp(*score);
        if *w > 0.0 {
            loss += w * (mean - y * score);
        }
        *pair = if *w > 0.0 { [(w * (mean - y)) as f32, (w * mean * LONGER) as f32] } else { [0.0; 2] };
    }
    loss
}

fn of_classes(n_classes: usize, y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    let factor = n_classes as f64 / (n_classes - 1) as f64;
    let mut loss = 0.0;
    let mut shares = vec![0.0; n_classes];
    let rows = scores.chunks_exact(n_classes).zip(pairs.chunks_exact_mut(n_classes));
    for ((y, w), (scores, pairs)) in y.iter().zip(weight).zip(rows) {
        if *w <= 0.0 {
            pairs.fill([0.0; 2]);
            continue;
        }
        shares.copy_from_slice(scores);
        let log_total = softmax::to_shares(&mut shares);
        loss += w * (log_total - scores[*y as usize]);
        for (class, (p, pair)) in shares.iter().zip(pairs).enumerate() {
            let hit = f64::from(class == *y as usize);
            *pair = [(w * (p - hit)) as f32, (w * factor * p * (1.0 - p)) as f32];
        }
    }
    loss
}
