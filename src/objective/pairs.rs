//! Gradient and hessian of each row by its scores, as boosting wants them.

use super::logistic::sigmoid_and_softplus;
use super::{Huber, Quantile, softmax};
use crate::functions::exp;
use multiversion::multiversion;

/// A loss whose trees are grown on gradient pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PairLoss {
    Squared,
    /// |y − score|. Hessians are 1; leaves take the median of what is left: see [`leaf_quantile`](Self::leaf_quantile).
    Absolute,
    /// As [`Huber`].
    Huber {
        delta: f64,
    },
    /// As [`Quantile`].
    Quantile {
        alpha: f64,
    },
    /// y in {0, 1}
    Logistic,
    /// y is a class number. Hessians are those of one class against the others, times n/(n − 1).
    Softmax {
        n_classes: usize,
    },
    /// The hessian is e^0.7 times too large, which keeps steps short where a leaf's scores are far too low: LightGBM's
    /// `poisson_max_delta_step`.
    Poisson,
    /// Of amounts above 0; the score is the logarithm of the mean. Hessians are half-way from the second derivative to what is expected
    /// of it, 1: leaves whose targets are r times the means step by 2·(r − 1)/(r + 1), near ln r and never beyond it (its Padé
    /// approximant). By the second derivative they would step by 1 − 1/r, which small amounts send to infinity.
    Gamma,
    /// Of amounts of 0 or more, whose variance grows as the mean to `power`, 1 < power < 2; the score is the logarithm of the mean
    /// (Jørgensen, *Exponential dispersion models*, 1987).
    Tweedie {
        power: f64,
    },
}

impl PairLoss {
    pub fn n_scores(self) -> usize {
        if let PairLoss::Softmax { n_classes } = self { n_classes } else { 1 }
    }

    /// Where the loss has no curvature, leaf values are this quantile of y − score instead of −gradient/hessian, and scores start
    /// at the targets' (Friedman, *Greedy function approximation*, 2001, section 4.3).
    pub fn leaf_quantile(self) -> Option<f64> {
        match self {
            PairLoss::Absolute => Some(0.5),
            PairLoss::Quantile { alpha } => Some(alpha),
            _ => None,
        }
    }

    /// The hessian that a leaf of these sums steps by. Poisson: where the targets are more than 3 times the means, r times, a step of
    /// 2·(r − 1)/(r + 1), which is below ln r, instead of one of (r − 1)/e^0.7.
    pub fn leaf_hessian(self, gradient: f64, hessian: f64) -> f64 {
        match self {
            PairLoss::Poisson => hessian.max(hessian / LONGER - 0.5 * gradient),
            _ => hessian,
        }
    }

    /// Writes w·∂loss/∂score and w·∂²loss/∂score² of rows, and returns Σ w·loss. Rows of weight 0 add nothing.
    ///
    /// * `scores`, `pairs`: (rows, n_scores), row-major.
    pub fn pairs(self, y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
        match self {
            PairLoss::Squared => each_row(y, weight, scores, pairs, |y, score| {
                let residual = score - y;
                [0.5 * residual * residual, residual, 1.0]
            }),
            PairLoss::Absolute => each_row(y, weight, scores, pairs, |y, score| {
                let residual = score - y;
                [residual.abs(), sign(residual), 1.0]
            }),
            PairLoss::Huber { delta } => each_row(y, weight, scores, pairs, |y, score| {
                let [loss, slope] = Huber { delta }.of(score - y);
                [loss, slope, 1.0]
            }),
            PairLoss::Quantile { alpha } => each_row(y, weight, scores, pairs, |y, score| {
                let [loss, slope] = Quantile { alpha }.of(score - y);
                [loss, slope, 1.0]
            }),
            PairLoss::Logistic => logistic(y, weight, scores, pairs),
            PairLoss::Softmax { n_classes } => of_classes(n_classes, y, weight, scores, pairs),
            PairLoss::Poisson => poisson(y, weight, scores, pairs),
            PairLoss::Gamma => gamma(y, weight, scores, pairs),
            PairLoss::Tweedie { power } => tweedie(power, y, weight, scores, pairs),
        }
    }
}

/// e^0.7
const LONGER: f64 = 2.013_752_707_470_476_5;

/// −1, 0 or 1.
#[inline]
fn sign(x: f64) -> f64 {
    f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0))
}

/// By loss, gradient and hessian of a row from target and score. Rows of weight 0 may hold anything.
#[inline(always)]
fn each_row(
    y: &[f64],
    weight: &[f64],
    scores: &[f64],
    pairs: &mut [[f32; 2]],
    of_row: impl Fn(f64, f64) -> [f64; 3],
) -> f64 {
    let mut loss = 0.0;
    for (((y, w), score), pair) in y.iter().zip(weight).zip(scores).zip(pairs) {
        let [of_row, gradient, hessian] = of_row(*y, *score);
        if *w > 0.0 {
            loss += w * of_row;
        }
        *pair = if *w > 0.0 { [(w * gradient) as f32, (w * hessian) as f32] } else { [0.0; 2] };
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
        // The last rows too: of a number that is known, nothing is left to be asked.
        let [scores, y, weight] = [scores, y, weight].map(|rows| {
            let mut eight = [0.0; 8];
            eight.iter_mut().zip(rows).for_each(|(one, row)| *one = *row);
            eight
        });
        let (mut losses, mut gradients, mut hessians) = ([0.0; 8], [0.0; 8], [0.0; 8]);
        for i in 0..8 {
            let (p, softplus) = sigmoid_and_softplus(scores[i]);
            losses[i] = weight[i] * (softplus - y[i] * scores[i]);
            gradients[i] = weight[i] * (p - y[i]);
            hessians[i] = weight[i] * (p * (1.0 - p));
        }
        for (((pair, of_row), g), h) in pairs.iter_mut().zip(losses).zip(gradients).zip(hessians) {
            loss += of_row;
            *pair = [g as f32, h as f32];
        }
    }
    loss
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn poisson(y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    each_row(y, weight, scores, pairs, |y, score| {
        let mean = exp(score);
        [mean - y * score, mean - y, mean * LONGER]
    })
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn gamma(y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    each_row(y, weight, scores, pairs, |y, score| {
        let ratio = y * exp(-score);
        [ratio + score, 1.0 - ratio, 0.5 * (1.0 + ratio)]
    })
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn tweedie(power: f64, y: &[f64], weight: &[f64], scores: &[f64], pairs: &mut [[f32; 2]]) -> f64 {
    let (one, two) = (1.0 - power, 2.0 - power);
    each_row(y, weight, scores, pairs, |y, score| {
        let (of_y, of_mean) = (y * exp(one * score), exp(two * score));
        [of_mean / two - of_y / one, of_mean - of_y, two * of_mean - one * of_y]
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(loss: PairLoss, y: f64, scores: &[f64]) -> (f64, Vec<[f32; 2]>) {
        let mut pairs = vec![[9.0; 2]; scores.len()];
        let loss = loss.pairs(&[y], &[1.5], scores, &mut pairs);
        (loss, pairs)
    }

    #[test]
    fn gradients_and_hessians_match_differences() {
        let numbers = [
            PairLoss::Squared,
            PairLoss::Huber { delta: 0.8 },
            PairLoss::Logistic,
            PairLoss::Poisson,
            PairLoss::Gamma,
            PairLoss::Tweedie { power: 1.3 },
            PairLoss::Absolute,
            PairLoss::Quantile { alpha: 0.2 },
        ];
        let step = 1e-4;
        for loss in numbers {
            for (y, score) in [(1.0, 0.3), (1.0, 1.4), (0.0, -0.7), (1.0, -1.2)] {
                let y = if loss == PairLoss::Gamma { y + 0.5 } else { y };
                let [below, here, above] = [-step, 0.0, step].map(|by| at(loss, y, &[score + by]));
                let slope = (above.0 - below.0) / (2.0 * step);
                let curvature = (above.0 - 2.0 * here.0 + below.0) / (step * step);
                let [gradient, hessian] = here.1[0].map(f64::from);
                assert!((gradient - slope).abs() < 1e-5 * (1.0 + slope.abs()), "{loss:?}: {gradient} for {slope}");
                let right = match loss {
                    PairLoss::Absolute | PairLoss::Quantile { .. } => 1.5,
                    PairLoss::Huber { delta } if (score - y).abs() > delta => 1.5,
                    PairLoss::Poisson => LONGER * curvature,
                    PairLoss::Gamma => 0.5 * (curvature + 1.5),
                    _ => curvature,
                };
                assert!((hessian - right).abs() < 1e-4 * (1.0 + right.abs()), "{loss:?}: {hessian} for {right}");
            }
        }
    }

    #[test]
    fn steps_of_gamma_go_towards_the_mean_and_not_beyond_it() {
        for power in [-300, -9, -1, 1, 9, 300] {
            let ln_ratio = 0.1 * f64::from(power);
            let [gradient, hessian] = at(PairLoss::Gamma, exp(ln_ratio + 0.4), &[0.4]).1[0].map(f64::from);
            let share = -gradient / hessian / ln_ratio;
            let least = if ln_ratio.abs() < 0.2 { 0.999 } else { 0.06 };
            assert!(share > least && share < 1.0, "{share} of {ln_ratio}");
        }
    }

    #[test]
    fn leaves_of_poisson_step_towards_the_mean_and_not_beyond_it() {
        for ratio in [1e-6, 0.3, 0.9, 1.1, 3.0, 3.1, 50.0, 1e12] {
            let [gradient, hessian] = at(PairLoss::Poisson, ratio * exp(0.4), &[0.4]).1[0].map(f64::from);
            let step = -gradient / PairLoss::Poisson.leaf_hessian(gradient, hessian);
            let right = if ratio < 3.0 { (ratio - 1.0) / LONGER } else { 2.0 * (ratio - 1.0) / (ratio + 1.0) };
            assert!((step - right).abs() < 1e-2 * (1.0 + right.abs()), "{step} for {right}");
            assert!(step / ratio.ln() < 1.0 + 1e-6, "{step} of {ratio}");
        }
    }

    #[test]
    fn softmax_has_the_gradient_of_its_loss() {
        let scores = [0.2, -0.4, 1.1];
        for class in 0..3 {
            let (_, pairs) = at(PairLoss::Softmax { n_classes: 3 }, f64::from(class), &scores);
            for j in 0..3 {
                let moved = |by: f64| {
                    let mut scores = scores;
                    scores[j] += by;
                    at(PairLoss::Softmax { n_classes: 3 }, f64::from(class), &scores).0
                };
                let (slope, curvature) =
                    ((moved(1e-4) - moved(-1e-4)) / 2e-4, (moved(1e-4) - 2.0 * moved(0.0) + moved(-1e-4)) / 1e-8);
                assert!((f64::from(pairs[j][0]) - slope).abs() < 1e-5);
                assert!((f64::from(pairs[j][1]) - 1.5 * curvature).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn rows_of_weight_0_add_nothing_whatever_they_hold() {
        let losses = [
            PairLoss::Squared,
            PairLoss::Absolute,
            PairLoss::Huber { delta: 1.0 },
            PairLoss::Quantile { alpha: 0.5 },
            PairLoss::Poisson,
            PairLoss::Gamma,
            PairLoss::Tweedie { power: 1.5 },
        ];
        for loss in losses {
            for y in [f64::NAN, -1.0, 0.0, f64::INFINITY] {
                let mut pairs = [[9.0; 2]];
                assert_eq!(loss.pairs(&[y], &[0.0], &[1.0], &mut pairs), 0.0, "{loss:?}");
                assert_eq!(pairs, [[0.0; 2]]);
            }
        }
    }
}
