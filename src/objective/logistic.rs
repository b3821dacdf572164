//! Binary logistic loss: log(1 + exp(score)) − y·score, y in {0, 1}.

use super::Objective;
use multiversion::multiversion;

#[derive(Clone, Copy, Debug)]
pub struct Logistic;

/// (probability of class 1, log(1 + exp(score))), without overflow. One exponential serves both.
#[inline]
pub(super) fn sigmoid_and_softplus(score: f64) -> (f64, f64) {
    let e = crate::functions::exp(-score.abs());
    let p_small = e / (1.0 + e);
    let p = if score >= 0.0 { 1.0 - p_small } else { p_small };
    let positive = if score > 0.0 { score } else { 0.0 };
    (p, positive + crate::functions::log_1p_unit(e))
}

/// Eight rows at a time, so that their exponentials share registers; losses are added in the order of the rows.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn gradients(y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
    let mut loss = 0.0;
    for ((scores, y), weight) in scores.chunks_mut(8).zip(y.chunks(8)).zip(weight.chunks(8)) {
        let mut losses = [0.0; 8];
        for (((score, y), w), of_row) in scores.iter_mut().zip(y).zip(weight).zip(&mut losses) {
            let (p, softplus) = sigmoid_and_softplus(*score);
            *of_row = w * (softplus - y * *score);
            *score = w * (p - y);
        }
        for of_row in &losses[..scores.len()] {
            loss += of_row;
        }
    }
    loss
}

/// The same, a loss a row.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn gradients_of_rows(y: &[f64], weight: &[f64], scores: &mut [f64], losses: &mut [f64]) {
    for (((score, y), w), loss) in scores.iter_mut().zip(y).zip(weight).zip(losses) {
        let (p, softplus) = sigmoid_and_softplus(*score);
        // As a sum from 0 on.
        *loss = 0.0 + w * (softplus - y * *score);
        *score = w * (p - y);
    }
}

impl Objective for Logistic {
    fn name(&self) -> &'static str {
        "logistic"
    }

    fn n_scores(&self) -> usize {
        1
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        gradients(y, weight, scores)
    }

    fn gradients_of_rows(&self, y: &[f64], weight: &[f64], scores: &mut [f64], losses: &mut [f64]) {
        gradients_of_rows(y, weight, scores, losses);
    }

    fn curvature(&self, _y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
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
                super::super::check_derivatives(&Logistic, &[y], &[score]);
            }
        }
    }

    #[test]
    fn rows_have_the_bits_that_they_have_alone() {
        let scores: Vec<f64> = (0..37).map(|i| f64::from(i) * 1.7 - 31.0).collect();
        let y: Vec<f64> = (0..37).map(|i| f64::from(i % 3 % 2)).collect();
        let weight: Vec<f64> = (0..37).map(|i| f64::from(i % 5) * 0.3).collect();
        let (mut together, mut losses) = (scores.clone(), vec![0.0; 37]);
        Logistic.gradients_of_rows(&y, &weight, &mut together, &mut losses);
        for i in 0..37 {
            let mut alone = [scores[i]];
            let loss = Logistic.gradients(&y[i..=i], &weight[i..=i], &mut alone);
            assert_eq!([loss, alone[0]].map(f64::to_bits), [losses[i], together[i]].map(f64::to_bits), "row {i}");
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
