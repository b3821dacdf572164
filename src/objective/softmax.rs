//! Multinomial logistic loss: log Σ exp(score_c) − score_y, y a class number.

use super::Objective;

#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    pub n_classes: usize,
}

/// Replaces the scores of one row by probabilities and returns log Σ exp(score).
pub(super) fn to_shares(scores: &mut [f64]) -> f64 {
    let mut largest = scores[0];
    for &score in &scores[1..] {
        if score > largest {
            largest = score;
        }
    }
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = crate::functions::exp(*score - largest);
        sum += *score;
    }
    for score in scores.iter_mut() {
        *score /= sum;
    }
    largest + libm::log(sum)
}

impl Objective for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn n_scores(&self) -> usize {
        self.n_classes
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for ((row, y), &w) in scores.chunks_exact_mut(self.n_classes).zip(y).zip(weight) {
            let class = *y as usize;
            let of_class = row[class];
            let log_sum = to_shares(row);
            loss += w * (log_sum - of_class);
            row[class] -= 1.0;
            for r in row {
                *r *= w;
            }
        }
        loss
    }

    fn curvature(&self, _y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
        let mut p = scores.to_vec();
        to_shares(&mut p);
        for (a, row) in curvature.chunks_exact_mut(self.n_classes).enumerate() {
            for (b, c) in row.iter_mut().enumerate() {
                *c = weight * if a == b { p[a] * (1.0 - p[a]) } else { -(p[a] * p[b]) };
            }
        }
    }

    fn typical_curvature(&self) -> f64 {
        1.0 / self.n_classes as f64
    }

    /// diag(p) − ppᵀ has eigenvalues up to ½ (two classes at ½ each), never more.
    fn largest_curvature(&self, _y: f64, _start: f64) -> f64 {
        0.5
    }

    fn start_scores(&self, weight: f64, weighted_y: &[f64]) -> Vec<f64> {
        // Classes of weight 0 start as if they had half of the smallest share, so that all starts are finite.
        let smallest = weighted_y
            .iter()
            .copied()
            .filter(|w| *w > 0.0)
            .fold(weight.max(f64::MIN_POSITIVE), |a, b| if b < a { b } else { a });
        let logs: Vec<f64> = weighted_y.iter().map(|w| libm::log(if *w > 0.0 { *w } else { 0.5 * smallest })).collect();
        let mut mean = 0.0;
        for log in &logs {
            mean += log / self.n_classes as f64;
        }
        logs.iter().map(|log| log - mean).collect()
    }

    fn to_prediction(&self, scores: &mut [f64]) {
        for row in scores.chunks_exact_mut(self.n_classes) {
            to_shares(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        for y in [0.0, 1.0, 2.0] {
            super::super::check_derivatives(&Softmax { n_classes: 3 }, &[y], &[0.3, -1.0, 2.0]);
        }
    }
}
