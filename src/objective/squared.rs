//! ½(score − y)².

use super::{Objective, by_residual, mean};

#[derive(Clone, Copy, Debug)]
pub struct Squared;

impl Objective for Squared {
    fn name(&self) -> &'static str {
        "squared"
    }

    fn n_scores(&self) -> usize {
        1
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        by_residual(y, weight, scores, |residual| [0.5 * residual * residual, residual])
    }

    fn curvature(&self, _y: &[f64], weight: f64, _scores: &[f64], curvature: &mut [f64]) {
        curvature[0] = weight;
    }

    fn score_scale(&self) -> f64 {
        0.0
    }

    fn typical_curvature(&self) -> f64 {
        1.0
    }

    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        vec![mean(weight, weighted_y[0])]
    }

    fn to_prediction(&self, _scores: &mut [f64]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        for score in [-3.0, 0.0, 2.5] {
            super::super::check_derivatives(&Squared, &[0.7], &[score]);
        }
    }

    #[test]
    fn a_row_of_weight_0_adds_nothing_whatever_its_target() {
        let mut scores = [0.5, 2.0];
        assert_eq!(Squared.gradients(&[1e300, 1.0], &[0.0, 1.0], &mut scores), 0.5);
        assert_eq!(scores, [0.0, 1.0]);
    }
}
