//! Poisson loss with log link: exp(score) − y·score, y ≥ 0. (The term log y! does not depend on the model.)

use super::Objective;

#[derive(Clone, Copy, Debug)]
pub struct Poisson;

impl Objective for Poisson {
    fn name(&self) -> &'static str {
        "poisson"
    }

    fn n_scores(&self) -> usize {
        1
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for ((score, y), &w) in scores.iter_mut().zip(y).zip(weight) {
            if w == 0.0 {
                *score = 0.0;
                continue;
            }
            let rate = libm::exp(*score);
            loss += w * (rate - y * *score);
            *score = w * (rate - y);
        }
        loss
    }

    fn curvature(&self, _y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
        curvature[0] = if weight == 0.0 { 0.0 } else { weight * libm::exp(scores[0]) };
    }

    fn typical_curvature(&self) -> f64 {
        1.0
    }

    /// The rate: at the start exp(start), and y is what a good fit makes of it on average.
    fn largest_curvature(&self, y: f64, start: f64) -> f64 {
        let rate = libm::exp(start);
        if y > rate { y } else { rate }
    }

    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        let mean = super::mean(weight, weighted_y[0]);
        vec![if mean > 0.0 { libm::log(mean) } else { 0.0 }]
    }

    fn to_prediction(&self, scores: &mut [f64]) {
        for score in scores {
            *score = libm::exp(*score);
        }
    }

    fn refuses(&self, y: f64) -> Option<&'static str> {
        (y < 0.0).then_some("is negative, but counts are wanted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        for score in [-4.0, 0.0, 3.0] {
            super::super::check_derivatives(&Poisson, &[2.0], &[score]);
        }
    }
}
