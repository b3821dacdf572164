//! A normal distribution of each row's own mean and variance: minus the logarithm of its density at the target.

use super::{Objective, mean};
use crate::functions::{exp, log_1p_unit};

/// ½(ln v + (y − m)²/v) with v = v₀ + exp(s); the scores are m and s. (The term ½ ln 2π does not depend on the model.)
///
/// Predictions are m and v. The loss is convex in each of the scores, but not in both at once: it is for gradient descent.
///
/// v₀ keeps all finite. Where a model comes to hit its targets, ½(s + (y − m)²·exp(−s)) alone has no minimum: s falls for ever, and the next target that is
/// missed sends exp(−s) anywhere. With v₀ the slope by s fades as exp(s)/v, so that s hardly falls below ln v₀, and rises from there as soon as a target
/// is missed; had s been cut off, its slope would be 0 there and it could not come back. From s = ln v₀ + 5 on the two losses agree to 1 % of v.
///
/// Source: Nix, Weigend, *Estimating the mean and variance of the target probability distribution*, ICNN 1994. `torch.nn.GaussianNLLLoss` has max(v, 1e-6).
#[derive(Clone, Copy, Debug)]
pub struct Gaussian {
    /// v₀ in (0, 1], in units of the target, squared.
    pub least: f64,
}

impl Default for Gaussian {
    /// For targets in units of their own deviation.
    fn default() -> Gaussian {
        Gaussian { least: Gaussian::LEAST }
    }
}

/// What the loss and its derivatives are made of.
struct Spread {
    log_variance: f64,
    /// 1/v.
    precision: f64,
    /// exp(s)/v, in 0 … 1.
    share: f64,
}

impl Gaussian {
    /// v₀ of targets whose deviation is 1: a thousandth of it.
    pub const LEAST: f64 = 1e-6;

    /// Nothing here overflows, whatever s.
    #[inline]
    fn spread(self, s: f64) -> Spread {
        let e = exp(-s.abs());
        if s >= 0.0 {
            let of_least = self.least * e;
            let share = 1.0 / (1.0 + of_least);
            return Spread { log_variance: s + log_1p_unit(of_least), precision: e * share, share };
        }
        let variance = self.least + e;
        Spread { log_variance: libm::log(variance), precision: 1.0 / variance, share: e / variance }
    }
}

impl Objective for Gaussian {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn n_scores(&self) -> usize {
        2
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for ((scores, y), &w) in scores.chunks_exact_mut(2).zip(y).zip(weight) {
            if w == 0.0 {
                scores.fill(0.0);
                continue;
            }
            let Spread { log_variance, precision, share } = self.spread(scores[1]);
            let residual = scores[0] - y;
            let slope = residual * precision;
            let far = residual * slope;
            loss += w * (0.5 * (log_variance + far));
            scores[0] = w * slope;
            scores[1] = w * (0.5 * share * (1.0 - far));
        }
        loss
    }

    fn curvature(&self, y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
        let Spread { precision, share, .. } = self.spread(scores[1]);
        let residual = scores[0] - y[0];
        let far = residual * residual * precision;
        let of_both = -weight * residual * precision * share;
        let of_spread = 0.5 * share * ((1.0 - share) * (1.0 - far) + share * far);
        curvature.copy_from_slice(&[weight * precision, of_both, of_both, weight * of_spread]);
    }

    /// Of the mean where targets deviate by 1; of s it is half as much.
    fn typical_curvature(&self) -> f64 {
        1.0
    }

    fn score_scale(&self) -> f64 {
        0.0
    }

    /// `weighted_y`: Σ w·y and, if it is known, Σ w·y². Then mean and variance are those of the targets, which is best without features; else s = 0, the best for
    /// targets in units of their deviation.
    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        let m = mean(weight, weighted_y[0]);
        let variance = weighted_y.get(1).map_or(1.0, |squares| mean(weight, *squares) - m * m);
        let above = variance - self.least;
        vec![m, libm::log(if above > self.least { above } else { self.least })]
    }

    fn to_prediction(&self, scores: &mut [f64]) {
        for row in scores.chunks_exact_mut(2) {
            row[1] = self.least + libm::exp(row[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_derivatives;
    use super::*;

    const WIDE: Gaussian = Gaussian { least: 0.3 };

    #[test]
    fn derivatives_match_differences() {
        for scores in [[0.7, 0.0], [0.2, -1.5], [-1.0, 0.8], [2.0, 3.0], [0.69, -3.0]] {
            check_derivatives(&Gaussian::default(), &[0.7], &scores);
            check_derivatives(&WIDE, &[0.7], &scores);
        }
        // Where v₀ is all there is.
        check_derivatives(&WIDE, &[0.7], &[1.1, -9.0]);
    }

    /// PyTorch documents `GaussianNLLLoss` as ½(ln max(v, 1e-6) + (input − target)²/max(v, 1e-6)).
    #[test]
    fn losses_are_those_of_the_density() {
        for (m, s) in [(0.0, 0.0), (1.5, 2.0), (-2.0, -3.0), (0.1, 40.0)] {
            let mut scores = [m, s];
            let loss = Gaussian::default().gradients(&[0.3], &[2.0], &mut scores);
            let v: f64 = libm::exp(s);
            approx::assert_relative_eq!(
                loss,
                libm::log(v) + (m - 0.3) * (m - 0.3) / v,
                max_relative = 1e-4,
                epsilon = 1e-5
            );
            let mut prediction = [m, s];
            Gaussian::default().to_prediction(&mut prediction);
            assert_eq!(prediction[0], m);
            approx::assert_relative_eq!(prediction[1], v, max_relative = 1e-4);
        }
    }

    #[test]
    fn nothing_overflows_and_every_slope_leads_back() {
        for s in [-1e300, -1e4, -708.5, -60.0, 60.0, 708.5, 1e4, 1e300] {
            for residual in [0.0, 1e-9, 1.0, -1e6] {
                let mut scores = [residual, s];
                let loss = Gaussian::default().gradients(&[0.0], &[1.0], &mut scores);
                assert!(loss.is_finite() && scores.iter().all(|slope| slope.is_finite()), "{s} {residual}");
                let mut curvature = [0.0; 4];
                Gaussian::default().curvature(&[0.0], 1.0, &[residual, s], &mut curvature);
                assert!(curvature.iter().all(|c| c.is_finite()), "{s} {residual}");
            }
        }
        // A model that was sure of itself and misses: the slope by s asks for more variance.
        for s in [-13.0, -20.0, -25.0] {
            let mut scores = [1.0, s];
            Gaussian::default().gradients(&[0.0], &[1.0], &mut scores);
            assert!(scores[1] < -0.1, "{s}: {}", scores[1]);
        }
        let mut scores = [f64::NAN, 0.0];
        assert!(Gaussian::default().gradients(&[0.0], &[1.0], &mut scores).is_nan());
    }

    /// Small steps down from targets that are hit: s stays near ln v₀ instead of falling for ever.
    #[test]
    fn variance_of_targets_that_are_hit_stays_in_reach() {
        let mut s = 0.0;
        for _ in 0..100_000 {
            let mut scores = [0.0, s];
            Gaussian::default().gradients(&[0.0], &[1.0], &mut scores);
            s -= 0.1 * scores[1];
        }
        assert!(s < -13.0 && s > -25.0, "{s}");
    }

    #[test]
    fn starts_are_the_best_without_features() {
        let (y, weight) = ([1.0, 4.0, 2.0, -3.0, f64::NAN], [1.0, 2.0, 0.5, 1.5, 0.0]);
        let sum = |of: fn(f64) -> f64| (0..4).map(|i| weight[i] * of(y[i])).sum::<f64>();
        for objective in [Gaussian::default(), WIDE] {
            let start = objective.start_scores(5.0, &[sum(|y| y), sum(|y| y * y)]);
            let mut scores = start.repeat(5);
            objective.gradients(&y, &weight, &mut scores);
            for score in 0..2 {
                let slope: f64 = scores.chunks(2).map(|row| row[score]).sum();
                approx::assert_abs_diff_eq!(slope, 0.0, epsilon = 1e-12);
            }
            let of_mean = objective.start_scores(5.0, &[sum(|y| y)]);
            assert_eq!(of_mean[0], start[0]);
            assert!(of_mean[1].abs() < 0.4);
        }
        // Constant targets have no variance, and no rows have nothing.
        assert!(Gaussian::default().start_scores(2.0, &[6.0, 18.0]).iter().all(|s| s.is_finite()));
        assert!(Gaussian::default().start_scores(0.0, &[0.0]).iter().all(|s| s.is_finite()));
    }

    #[test]
    fn a_row_of_weight_0_adds_nothing_whatever_its_target() {
        let mut scores = [0.5, 1.0, 2.0, 0.0];
        let loss = Gaussian::default().gradients(&[f64::NAN, 1.0], &[0.0, 1.0], &mut scores);
        assert!(loss.is_finite());
        assert_eq!(scores[..2], [0.0, 0.0]);
    }
}
