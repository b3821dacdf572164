//! Squared hinge, one against the rest: Σ_c max(0, 1 − t_c·score_c)², t_c = +1 for the row's class and −1 else.
//! With two classes there is one score, positive for class 1.

use super::Objective;

#[derive(Clone, Copy, Debug)]
pub struct SquaredHinge {
    pub n_classes: usize,
}

impl SquaredHinge {
    /// +1 or −1 for score `c` of a row of class `y`.
    fn sign(&self, y: f64, c: usize) -> f64 {
        let positive = if self.n_classes == 2 { y == 1.0 } else { y == c as f64 };
        if positive { 1.0 } else { -1.0 }
    }
}

impl Objective for SquaredHinge {
    fn name(&self) -> &'static str {
        "squared_hinge"
    }

    fn n_scores(&self) -> usize {
        if self.n_classes == 2 { 1 } else { self.n_classes }
    }

    fn gradients(&self, y: &[f64], weight: &[f64], scores: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for ((row, &y), &w) in scores.chunks_exact_mut(self.n_scores()).zip(y).zip(weight) {
            for (c, score) in row.iter_mut().enumerate() {
                let sign = self.sign(y, c);
                let slack = 1.0 - sign * *score;
                let slack = if slack > 0.0 { slack } else { 0.0 };
                loss += w * (slack * slack);
                *score = w * (-2.0 * sign * slack);
            }
        }
        loss
    }

    fn curvature(&self, y: &[f64], weight: f64, scores: &[f64], curvature: &mut [f64]) {
        let k = self.n_scores();
        curvature.fill(0.0);
        for (c, score) in scores.iter().enumerate() {
            if self.sign(y[0], c) * score < 1.0 {
                curvature[c * k + c] = 2.0 * weight;
            }
        }
    }

    fn typical_curvature(&self) -> f64 {
        2.0
    }

    fn start_scores(&self, _weight: f64, _weighted_y: &[f64]) -> Vec<f64> {
        vec![0.0; self.n_scores()]
    }

    fn to_prediction(&self, _scores: &mut [f64]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        for y in [0.0, 1.0] {
            super::super::check_derivatives(&SquaredHinge { n_classes: 2 }, &[y], &[0.4]);
        }
        super::super::check_derivatives(&SquaredHinge { n_classes: 3 }, &[2.0], &[0.4, -1.5, 3.0]);
    }
}
