//! Gradient descent with momentum.

use super::{Optimizer, array, check_params};
use crate::error::Result;

/// `v ← μ·v + g`, then `θ ← θ − lr·v`, or with Nesterov's look-ahead `θ ← θ − lr·(g + μ·v)`.
///
/// A constant gradient moves the parameters by lr/(1 − μ) a step in the end.
/// Source: Sutskever, Martens, Dahl, Hinton, *On the importance of initialization and momentum in deep learning*,
/// ICML 2013, in the form that keeps θ at the look-ahead point.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    velocity: Vec<f64>,
}

impl Sgd {
    /// At rest. `momentum`: μ in [0, 1); 0 is plain gradient descent, with or without look-ahead. Not collective.
    pub fn new(n_params: usize, momentum: f64, nesterov: bool) -> Sgd {
        Sgd { momentum, nesterov, velocity: vec![0.0; n_params] }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, learning_rate: f64, grad: &[f64], params: &mut [f64]) {
        check_params(self.velocity.len(), grad, params);
        let momentum = self.momentum;
        for ((param, &g), velocity) in params.iter_mut().zip(grad).zip(&mut self.velocity) {
            *velocity = momentum * *velocity + g;
            let direction = if self.nesterov { g + momentum * *velocity } else { *velocity };
            *param -= learning_rate * direction;
        }
    }

    fn state(&self) -> Vec<(&'static str, &[f64])> {
        vec![("velocity", &self.velocity)]
    }

    fn restore(&mut self, state: &[(&str, &[f64])]) -> Result<()> {
        let velocity = array(state, "velocity", self.velocity.len())?;
        self.velocity.copy_from_slice(velocity);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::goes_on;
    use super::*;

    /// Three steps with gradients 1, −2, 0.5 at rate 0.1 and momentum 0.5, by hand.
    #[test]
    fn steps_follow_the_recurrence() {
        for (nesterov, expected) in [(false, [-0.1, 0.05, 0.075]), (true, [-0.15, 0.125, 0.0875])] {
            let mut sgd = Sgd::new(1, 0.5, nesterov);
            let mut params = [0.0];
            // velocities 1, −1.5, −0.25
            for (g, expected) in [1.0, -2.0, 0.5].into_iter().zip(expected) {
                sgd.step(0.1, &[g], &mut params);
                approx::assert_relative_eq!(params[0], expected, epsilon = 1e-15);
            }
        }
    }

    #[test]
    fn a_restored_optimiser_continues_with_the_same_bits() {
        goes_on(|n| Box::new(Sgd::new(n, 0.9, true)));
    }
}
