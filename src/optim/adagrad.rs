//! AdaGrad: parameters that have moved much move less.

use super::{Optimizer, Real, check_params};
use multiversion::multiversion;

/// `s ← s + g²`, then `θ ← θ − lr·g/(√s + ε)`.
///
/// Source: Duchi, Hazan, Singer, *Adaptive subgradient methods for online learning and stochastic optimization*, JMLR 2011, with
/// diagonal matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad<F: Real = f64> {
    epsilon: f64,
    squares: Vec<F>,
}

impl<F: Real> Adagrad<F> {
    /// `epsilon`: ε, in units of the gradient: 1e-10 of a typical one. Not collective.
    pub fn new(n_params: usize, epsilon: f64) -> Adagrad<F> {
        Adagrad { epsilon, squares: vec![F::default(); n_params] }
    }
}

impl<F: Real> Optimizer<F> for Adagrad<F> {
    fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]) {
        check_params(self.squares.len(), grad, params);
        descend(self.epsilon, learning_rate, grad, params, &mut self.squares);
    }

    fn state(&self) -> Vec<(&'static str, &[F])> {
        vec![("squares", &self.squares)]
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])> {
        vec![("squares", &mut self.squares)]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn descend<F: Real>(epsilon: f64, rate: f64, grad: &[F], params: &mut [F], squares: &mut [F]) {
    for ((param, &g), squares) in params.iter_mut().zip(grad).zip(squares) {
        let g = g.to_f64();
        let s = squares.to_f64() + g * g;
        *squares = F::from_f64(s);
        *param = F::from_f64(param.to_f64() - rate * g / (s.sqrt() + epsilon));
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
        goes_on::<f64>(|n| Box::new(Adagrad::new(n, 1e-10)));
        goes_on::<f32>(|n| Box::new(Adagrad::new(n, 1e-10)));
    }
}
