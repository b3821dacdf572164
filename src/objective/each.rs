//! Several targets of a row, each with a score of its own.

use super::Objective;

/// The mean over the targets of a row of what one loss makes of each: targets and scores are (rows, n).
pub struct Each {
    /// A loss of one score.
    pub of: Box<dyn Objective>,
    /// Targets of a row.
    pub n: usize,
}

impl Objective for Each {
    fn name(&self) -> &'static str {
        self.of.name()
    }

    fn n_scores(&self) -> usize {
        self.n
    }

    fn n_targets(&self) -> usize {
        self.n
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        let rows = y.chunks_exact(self.n).zip(weight).zip(scores.chunks_exact_mut(self.n));
        for ((y, w), scores) in rows {
            let share = w / self.n as f64;
            for (y, score) in y.iter().zip(scores) {
                loss += self.of.gradients(&[*y], &[share], std::slice::from_mut(score));
            }
        }
        loss
    }

    fn curvature(&self, y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
        curvature.fill(0.0);
        let share = weight / self.n as f64;
        for (j, (y, score)) in y.iter().zip(scores).enumerate() {
            let at = j * (self.n + 1);
            self.of.curvature(&[*y], share, &[*score], &mut curvature[at..at + 1]);
        }
    }

    fn typical_curvature(&self) -> f64 {
        self.of.typical_curvature() / self.n as f64
    }

    fn score_scale(&self) -> f64 {
        self.of.score_scale()
    }

    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        weighted_y.iter().flat_map(|of_target| self.of.start_scores(weight, &[*of_target])).collect()
    }

    fn to_prediction(&self, scores: &mut [f64]) {
        self.of.to_prediction(scores);
    }

    fn refuses(&self, y: f64) -> Option<&'static str> {
        self.of.refuses(y)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Huber, Poisson, Squared, check_derivatives};
    use super::*;

    fn each(of: impl Objective + 'static) -> Each {
        Each { of: Box::new(of), n: 3 }
    }

    #[test]
    fn derivatives_match_differences() {
        check_derivatives(&each(Squared), &[0.7, -2.0, 0.1], &[0.2, 1.5, -0.3]);
        check_derivatives(&each(Huber { delta: 0.8 }), &[0.7, -2.0, 0.1], &[0.2, 1.5, -0.3]);
        check_derivatives(&each(Poisson), &[0.0, 2.0, 7.0], &[0.2, 1.5, -0.3]);
    }

    #[test]
    fn the_loss_of_a_row_is_the_mean_of_its_targets() {
        let (y, weight) = ([1.0, 4.0, -2.0, f64::NAN, 0.0, 1.0, 3.0, 3.0, 0.5], [0.5, 0.0, 2.0]);
        let scores: Vec<f64> = (0..9).map(|i| 0.3 * f64::from(i) - 1.0).collect();
        let mut slopes = scores.clone();
        let loss = each(Squared).gradients(&y, &weight, &mut slopes);
        let mut expected = 0.0;
        for (i, (y, score)) in y.iter().zip(&scores).enumerate().filter(|(i, _)| weight[i / 3] > 0.0) {
            let residual = score - y;
            expected += weight[i / 3] / 3.0 * 0.5 * residual * residual;
            approx::assert_relative_eq!(slopes[i], weight[i / 3] / 3.0 * residual, max_relative = 1e-14);
        }
        approx::assert_relative_eq!(loss, expected, max_relative = 1e-14);
        assert_eq!(slopes[3..6], [0.0; 3], "a row of weight 0");
        assert_eq!(each(Squared).start_scores(2.0, &[1.0, -4.0, 0.0]), [0.5, -2.0, 0.0]);
    }
}
