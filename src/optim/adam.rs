//! Adam: every parameter has a step of its own.

use super::{Optimizer, array};
use crate::error::{Error, Result};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;

/// `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `θ ← θ − lr·m̂/(√v̂ + ε)`; β₁ = 0.9, β₂ = 0.999.
///
/// m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) at step t; the powers are products carried from step to step, the same on every machine.
/// Source: Kingma, Ba, *Adam: a method for stochastic optimization*, ICLR 2015, algorithm 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    epsilon: f64,
    mean: Vec<f64>,
    square: Vec<f64>,
    /// β₁ᵗ and β₂ᵗ.
    powers: [f64; 2],
}

impl Adam {
    /// `epsilon`: ε, in units of the gradient: 1e-8 of a typical one. Not collective.
    pub fn new(n_params: usize, epsilon: f64) -> Adam {
        Adam { epsilon, mean: vec![0.0; n_params], square: vec![0.0; n_params], powers: [1.0, 1.0] }
    }
}

impl Optimizer for Adam {
    fn step(&mut self, learning_rate: f64, grad: &[f64], params: &mut [f64]) {
        assert_eq!((grad.len(), params.len()), (self.mean.len(), self.mean.len()), "one number a parameter");
        self.powers[0] *= BETA_1;
        self.powers[1] *= BETA_2;
        let (of_mean, of_square) = (1.0 / (1.0 - self.powers[0]), 1.0 / (1.0 - self.powers[1]));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((param, &g), (mean, square)) in params.iter_mut().zip(grad).zip(moments) {
            *mean = BETA_1 * *mean + (1.0 - BETA_1) * g;
            *square = BETA_2 * *square + (1.0 - BETA_2) * (g * g);
            *param -= learning_rate * (*mean * of_mean) / ((*square * of_square).sqrt() + self.epsilon);
        }
    }

    fn state(&self) -> Vec<(&'static str, &[f64])> {
        vec![("mean", &self.mean), ("square", &self.square), ("powers", &self.powers)]
    }

    fn restore(&mut self, state: &[(&str, &[f64])]) -> Result<()> {
        let n = self.mean.len();
        let (mean, square) = (array(state, "mean", n)?, array(state, "square", n)?);
        let powers = array(state, "powers", 2)?;
        self.powers = powers.try_into().map_err(|_| Error::internal("two powers"))?;
        self.mean.copy_from_slice(mean);
        self.square.copy_from_slice(square);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch 2's `torch.optim.Adam(lr=0.1)` in float64 on θ = 0.5 with gradients 1, −2, 0.5 follows the same recurrence; here it
    /// is written out once more with the powers by hand.
    #[test]
    fn steps_follow_the_recurrence() {
        let mut adam = Adam::new(1, 1e-8);
        let mut params = [0.5];
        adam.step(0.1, &[1.0], &mut params);
        approx::assert_relative_eq!(params[0], 0.5 - 0.1 / (1.0 + 1e-8), max_relative = 1e-12);
        adam.step(0.1, &[-2.0], &mut params);
        let (m, v) = (0.9 * 0.1 - 0.2, 0.999 * 0.001 + 0.004);
        let second = 0.1 * (m / 0.19) / (f64::sqrt(v / 0.001_999) + 1e-8);
        approx::assert_relative_eq!(params[0], 0.4 - second, max_relative = 1e-8);
        adam.step(0.1, &[0.5], &mut params);
        let (m, v) = (0.9 * m + 0.05, 0.999 * v + 0.000_25);
        let third = 0.1 * (m / 0.271) / (f64::sqrt(v / 0.002_997_001) + 1e-8);
        approx::assert_relative_eq!(params[0], 0.4 - second - third, max_relative = 1e-8);
    }

    #[test]
    fn scaled_gradients_give_the_same_steps() {
        let run = |scale: f64| {
            let mut adam = Adam::new(2, 1e-8 * scale);
            let mut params = [0.0, 1.0];
            for t in 0..20 {
                adam.step(0.01, &[scale * f64::from(t - 7), -scale * 0.3], &mut params);
            }
            params
        };
        let (one, other) = (run(1.0), run(f64::from_bits((1023 - 90) << 52)));
        approx::assert_relative_eq!(one[0], other[0], max_relative = 1e-12);
        approx::assert_relative_eq!(one[1], other[1], max_relative = 1e-12);
    }

    #[test]
    fn a_restored_optimiser_continues_with_the_same_bits() {
        let mut whole = Adam::new(2, 1e-8);
        let mut params = [0.3, -0.7];
        whole.step(0.1, &[1.0, 2.0], &mut params);
        let mut again = Adam::new(2, 1e-8);
        again.restore(&whole.state()).unwrap();
        let mut copy = params;
        whole.step(0.1, &[-0.3, 0.1], &mut params);
        again.step(0.1, &[-0.3, 0.1], &mut copy);
        assert_eq!(params, copy);
        assert!(Adam::new(1, 1e-8).restore(&whole.state()).is_err());
    }
}
