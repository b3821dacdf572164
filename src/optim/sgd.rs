//! Gradient descent with momentum.

use super::{AHEAD, Optimizer, Real, check_params};
use crate::functions::prefetch_to_write;
use multiversion::multiversion;

/// `v ← μ·v + g`, then `θ ← θ − lr·v`, or with Nesterov's look-ahead `θ ← θ − lr·(g + μ·v)`.
///
/// A constant gradient moves the parameters by lr/(1 − μ) a step in the end.
/// Source: Sutskever, Martens, Dahl, Hinton, *On the importance of initialization and momentum in deep learning*,
/// ICML 2013, in the form that keeps θ at the look-ahead point.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd<F: Real = f64> {
    momentum: f64,
    nesterov: bool,
    velocity: Vec<F>,
}

impl<F: Real> Sgd<F> {
    /// At rest. `momentum`: μ in [0, 1); 0 is plain gradient descent, with or without look-ahead. Not collective.
    pub fn new(n_params: usize, momentum: f64, nesterov: bool) -> Sgd<F> {
        Sgd { momentum, nesterov, velocity: vec![F::default(); n_params] }
    }
}

impl<F: Real> Optimizer<F> for Sgd<F> {
    fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]) {
        check_params(self.velocity.len(), grad, params);
        descend(self.momentum, self.nesterov, learning_rate, grad, params, &mut self.velocity);
    }

    fn state(&self) -> Vec<(&'static str, &[F])> {
        vec![("velocity", &self.velocity)]
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])> {
        vec![("velocity", &mut self.velocity)]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn descend<F: Real>(momentum: f64, nesterov: bool, rate: f64, grad: &[F], params: &mut [F], velocity: &mut [F]) {
    for first in (0..grad.len()).step_by(AHEAD) {
        let run = first..(first + AHEAD).min(grad.len());
        let next = run.end..(run.end + AHEAD).min(grad.len());
        prefetch_to_write(&params[next.clone()]);
        prefetch_to_write(&velocity[next]);
        for ((param, &g), velocity) in params[run.clone()].iter_mut().zip(&grad[run.clone()]).zip(&mut velocity[run]) {
            let g = g.to_f64();
            let v = momentum * velocity.to_f64() + g;
            let direction = if nesterov { g + momentum * v } else { v };
            *velocity = F::fading(v);
            *param = F::from_f64(param.to_f64() - rate * direction);
        }
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
        goes_on::<f64>(|n| Box::new(Sgd::new(n, 0.9, true)));
        goes_on::<f32>(|n| Box::new(Sgd::new(n, 0.9, true)));
    }
}
