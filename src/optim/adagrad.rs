//! AdaGrad: parameters that have moved much move less.

use super::{Optimizer, array, check_params};
use crate::error::Result;

/// `s ← s + g²`, then `θ ← θ − lr·g/(√s + ε)`.
///
/// Source: Duchi, Hazan, Singer, *Adaptive subgradient methods for online learning and stochastic optimization*, JMLR 2011, with
/// diagonal matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    epsilon: f64,
    squares: Vec<f64>,
}

impl Adagrad {
    /// `epsilon`: ε, in units of the gradient: 1e-10 of a typical one. Not collective.
    pub fn new(n_params: usize, epsilon: f64) -> Adagrad {
        Adagrad { epsilon, squares: vec![0.0; n_params] }
    }
}

impl Optimizer for Adagrad {
    fn step(&mut self, learning_rate: f64, grad: &[f64], params: &mut [f64]) {
        check_params(self.squares.len(), grad, params);
        for ((param, &g), squares) in params.iter_mut().zip(grad).zip(&mut self.squares) {
            *squares += g * g;
            *param -= learning_rate * g / (squares.sqrt() + self.epsilon);
        }
    }

    fn state(&self) -> Vec<(&'static str, &[f64])> {
        vec![("squares", &self.squares)]
    }

    fn restore(&mut self, state: &[(&str, &[f64])]) -> Result<()> {
        let squares = array(state, "squares", self.squares.len())?;
        self.squares.copy_from_slice(squares);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::goes_on;
    use super::*;

    /// Gradients 3, −4, 12: roots 3, 5, 13. A parameter whose gradient is 0 stays.
    #[test]
    fn steps_follow_the_recurrence() {
        let mut adagrad = Adagrad::new(2, 1e-10);
        let mut params = [1.0, 1.0];
        let mut expected = 1.0;
        for (g, root) in [(3.0, 3.0), (-4.0, 5.0), (12.0, 13.0)] {
            adagrad.step(0.1, &[g, 0.0], &mut params);
            expected -= 0.1 * g / root;
            approx::assert_relative_eq!(params[0], expected, max_relative = 1e-9);
        }
        assert_eq!(params[1], 1.0);
    }

    #[test]
    fn a_restored_optimiser_continues_with_the_same_bits() {
        goes_on(|n| Box::new(Adagrad::new(n, 1e-10)));
    }
}
