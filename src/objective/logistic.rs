//! Binary logistic loss: log(1 + exp(score)) − y·score, y in {0, 1}.

use super::Objective;

#[derive(Clone, Copy, Debug)]
pub struct Logistic;

/// (probability of class 1, log(1 + exp(score))), without overflow. One exponential serves both.
#[inline]
fn sigmoid_and_softplus(score: f64) -> (f64, f64) {
    let e = crate::functions::exp(-score.abs());
    let p_small = e / (1.0 + e);
    let p = if score >= 0.0 { 1.0 - p_small } else { p_small };
    let positive = if score > 0.0 { score } else { 0.0 };
    (p, positive + crate::functions::log_1p_unit(e))
}

impl Objective for Logistic {
    fn name(&self) -> &'static str {
        "logistic"
    }

    fn n_scores(&self) -> usize {
        1
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for ((score, y), w) in scores.iter_mut().zip(y).zip(weight) {
            let (p, softplus) = sigmoid_and_softplus(*score);
            loss += w * (softplus - y * *score);
            *score = w * (p - y);
        }
        loss
    }

    fn curvature(&self, _y: f64, weight: f64, scores: &[f64], curvature: &mut [f64]) {
        let (p, _) = sigmoid_and_softplus(scores[0]);
        curvature[0] = weight * (p * (1.0 - p));
    }

    fn typical_curvature(&self) -> f64 {
        0.25
    }

    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        let p = if weight > 0.0 { weighted_y[0] / weight } else { 0.5 };
        vec![if p > 0.0 && p < 1.0 { libm::log(p / (1.0 - p)) } else { 0.0 }]
    }

    fn to_prediction(&self, scores: &mut [f64]) {
        for score in scores {
            *score = sigmoid_and_softplus(*score).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        for score in [-30.0, -1.0, 0.1, 4.0] {
            for y in [0.0, 1.0] {
                super::super::check_derivatives(&Logistic, y, &[score]);
            }
        }
    }

    #[test]
    fn large_scores_stay_finite() {
        let mut scores = [-800.0, 800.0, 0.0];
        let loss = Logistic.gradients(&[1.0, 0.0, 1.0], &[1.0; 3], &mut scores);
        approx::assert_relative_eq!(loss, 1600.0 + std::f64::consts::LN_2);
        assert_eq!(scores, [-1.0, 1.0, -0.5]);
    }
}
