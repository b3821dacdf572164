//! Losses of a residual, score − y, that far targets pull less: Huber's and the quantiles'.

use super::{Objective, by_residual, mean};

/// ½r² for |r| ≤ δ, δ(|r| − ½δ) beyond.
///
/// Source: Huber, *Robust estimation of a location parameter*, Annals of Mathematical Statistics 35, 1964; the scale is that of PyTorch's `huber_loss`.
#[derive(Clone, Copy, Debug)]
pub struct Huber {
    /// δ, above 0, in units of the target.
    pub delta: f64,
}

impl Huber {
    /// Loss and slope.
    #[inline(always)]
    pub(super) fn of(self, residual: f64) -> [f64; 2] {
        let short = residual.clamp(-self.delta, self.delta);
        [short * (residual - 0.5 * short), short]
    }
}

impl Objective for Huber {
    fn name(&self) -> &'static str {
        "huber"
    }

    fn n_scores(&self) -> usize {
        1
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        by_residual(y, weight, scores, |residual| self.of(residual))
    }

    fn curvature(&self, y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
        curvature[0] = if (scores[0] - y[0]).abs() <= self.delta { weight } else { 0.0 };
    }

    fn score_scale(&self) -> f64 {
        0.0
    }

    fn typical_curvature(&self) -> f64 {
        1.0
    }

    /// The mean, which is the best for a large δ: totals say nothing of how far which targets are.
    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        vec![mean(weight, weighted_y[0])]
    }

    fn to_prediction(&self, _scores: &mut [f64]) {}
}

/// α·(y − score) where the score is below the target, else (1 − α)·(score − y): the best score is the α quantile of the targets.
///
/// Source: Koenker, Bassett, *Regression quantiles*, Econometrica 46, 1978.
#[derive(Clone, Copy, Debug)]
pub struct Quantile {
    /// α in (0, 1).
    pub alpha: f64,
}

impl Quantile {
    /// Loss and slope; on the target, the slope from above.
    #[inline(always)]
    pub(super) fn of(self, residual: f64) -> [f64; 2] {
        let slope = if residual >= 0.0 { 1.0 - self.alpha } else { -self.alpha };
        [slope * residual, slope]
    }
}

impl Objective for Quantile {
    fn name(&self) -> &'static str {
        "quantile"
    }

    fn n_scores(&self) -> usize {
        1
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        by_residual(y, weight, scores, |residual| self.of(residual))
    }

    /// None: it is in the kink.
    fn curvature(&self, _y: &[f64], _weight: f64, _scores: &[f64], curvature: &mut [f64]) {
        curvature[0] = 0.0;
    }

    fn score_scale(&self) -> f64 {
        0.0
    }

    /// That of the mean over rows: the density of the targets at the score, which is at most 1/√(2π) of normal ones whose deviation is 1.
    fn typical_curvature(&self) -> f64 {
        0.4
    }

    /// The mean: no quantile is known from totals. It is at most √(α/(1 − α)) deviations below the quantile, and at most √((1 − α)/α) above (Cantelli's
    /// inequality).
    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        vec![mean(weight, weighted_y[0])]
    }

    fn to_prediction(&self, _scores: &mut [f64]) {}
}

#[cfg(test)]
mod tests {
    use super::super::{Squared, check_derivatives};
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        for score in [-3.0, -0.15, 0.69, 0.71, 1.6, 2.5] {
            check_derivatives(&Huber { delta: 0.8 }, &[0.7], &[score]);
            check_derivatives(&Quantile { alpha: 0.2 }, &[0.7], &[score]);
        }
    }

    /// By hand, as `torch.nn.functional.huber_loss(reduction="sum")` documents it.
    #[test]
    fn losses_are_as_documented() {
        let huber = |delta: f64, residual: f64| {
            let mut scores = [3.0 + residual];
            (Huber { delta }.gradients(&[3.0], &[2.0], &mut scores), scores[0])
        };
        assert_eq!(huber(2.0, 1.0), (1.0, 2.0));
        assert_eq!(huber(2.0, -2.0), (4.0, -4.0));
        assert_eq!(huber(2.0, -5.0), (2.0 * 2.0 * (5.0 - 1.0), -4.0));
        let quantile = |residual: f64| {
            let mut scores = [3.0 + residual];
            (Quantile { alpha: 0.75 }.gradients(&[3.0], &[2.0], &mut scores), scores[0])
        };
        assert_eq!(quantile(-4.0), (6.0, -1.5));
        assert_eq!(quantile(4.0), (2.0, 0.5));
        assert_eq!(quantile(0.0), (0.0, 0.5));
    }

    #[test]
    fn a_far_delta_is_the_squared_loss() {
        let (y, weight) = ([0.3, -1.0, 7.0, 2.0, 1e9], [1.0, 0.5, 2.0, 0.0, 3.0]);
        let scores = [1.0, 4.0, -2.0, 0.1, -1e9];
        let (mut huber, mut squared) = (scores, scores);
        let losses =
            (Huber { delta: 1e12 }.gradients(&y, &weight, &mut huber), Squared.gradients(&y, &weight, &mut squared));
        approx::assert_relative_eq!(losses.0, losses.1, max_relative = 1e-15);
        assert_eq!(huber, squared);
    }

    /// Among all scores on a grid the loss is least at the quantile of the targets.
    #[test]
    fn the_best_score_is_the_quantile() {
        let y: Vec<f64> = (0..101).map(|i| f64::from(i * i)).collect();
        let weight = vec![1.0; y.len()];
        for (alpha, expected) in [(0.1, 100.0), (0.5, 2500.0), (0.9, 8100.0)] {
            let loss = |score: f64| Quantile { alpha }.gradients(&y, &weight, &mut vec![score; y.len()]);
            let best = (0..101).map(|i| f64::from(i * i)).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap();
            assert_eq!(best, expected, "{alpha}");
            assert!(loss(best + 3.0) > loss(best) && loss(best - 3.0) > loss(best));
        }
    }

    #[test]
    fn a_row_of_weight_0_adds_nothing_whatever_its_target() {
        let objectives: [&dyn Objective; 2] = [&Huber { delta: 1.0 }, &Quantile { alpha: 0.5 }];
        for objective in objectives {
            for y in [f64::NAN, f64::INFINITY, 1e300] {
                let mut scores = [0.5];
                assert_eq!(objective.gradients(&[y], &[0.0], &mut scores), 0.0);
                assert_eq!(scores, [0.0]);
            }
        }
    }
}
