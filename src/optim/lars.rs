//! LARS: gradient descent with momentum whose steps are as long as the tensor that they change.

use super::{Optimizer, Real, Tensor, check_params, each_tensor, norm};
use multiversion::multiversion;

/// Of the paper: steps are so much of a tensor's length at learning rate 1.
pub const TRUST: f64 = 0.001;

/// `v ← μ·v + lr·τ·(g + λθ)`, then `θ ← θ − v`, with `τ = 0.001·φ(‖θ‖)/(‖g‖ + λ‖θ‖)` for every tensor; φ(‖θ‖) = max(‖θ‖, φ₀).
///
/// Free tensors do not decay, and their τ is a constant. So is that of a tensor without length or gradient: 1.
/// Source: You, Gitman, Ginsburg, *Large batch training of convolutional networks*, 2017 (arXiv 1708.03888), algorithm 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Lars<F: Real = f64> {
    momentum: f64,
    decay: f64,
    least: f64,
    of_free: f64,
    tensors: Vec<Tensor>,
    velocity: Vec<F>,
}

impl<F: Real> Lars<F> {
    /// * `tensors`: all parameters, in order. `momentum`: μ in [0, 1); `decay`: λ.
    /// * `least`: φ₀, which lets parameters that start at 0 get away from there, in units of the parameters.
    /// * `of_free`: τ of free tensors, usually 1. Not collective.
    pub fn new(tensors: &[Tensor], momentum: f64, decay: f64, least: f64, of_free: f64) -> Lars<F> {
        let n = tensors.iter().map(|tensor| tensor.len).sum();
        Lars { momentum, decay, least, of_free, tensors: tensors.to_vec(), velocity: vec![F::default(); n] }
    }
}

impl<F: Real> Optimizer<F> for Lars<F> {
    fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]) {
        check_params(self.velocity.len(), grad, params);
        let (momentum, least, of_free, velocity) = (self.momentum, self.least, self.of_free, &mut self.velocity);
        let decay_of_weights = self.decay;
        each_tensor(&self.tensors, |range, is_free| {
            let (params, grad) = (&mut params[range.clone()], &grad[range.clone()]);
            let (mut trust, mut decay) = (of_free, 0.0);
            if !is_free {
                decay = decay_of_weights;
                let length = norm(params);
                let (of_params, of_step) = (if length < least { least } else { length }, norm(grad) + decay * length);
                trust = if of_params > 0.0 && of_step > 0.0 { TRUST * of_params / of_step } else { 1.0 };
            }
            let rate = learning_rate * trust;
            descend(momentum, rate, decay, grad, params, &mut velocity[range]);
        });
    }

    fn state(&self) -> Vec<(&'static str, &[F])> {
        vec![("velocity", &self.velocity)]
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])> {
        vec![("velocity", &mut self.velocity)]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn descend<F: Real>(momentum: f64, rate: f64, decay: f64, grad: &[F], params: &mut [F], velocity: &mut [F]) {
    for ((param, g), velocity) in params.iter_mut().zip(grad).zip(velocity) {
        let before = param.to_f64();
        let v = momentum * velocity.to_f64() + rate * (g.to_f64() + decay * before);
        *velocity = F::fading(v);
        *param = F::from_f64(before - v);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::goes_on;
    use super::*;

    /// Algorithm 1 of the paper by hand: ‖θ‖ = 5, ‖g‖ = 10, λ = 0.2, so τ = 0.001·5/(10 + 1).
    #[test]
    fn steps_follow_the_paper() {
        let mut lars = Lars::new(&[Tensor::new(2), Tensor::free(1)], 0.5, 0.2, 0.0, 1.0);
        let mut params = [3.0, -4.0, 7.0];
        lars.step(2.0, &[6.0, 8.0, 0.25], &mut params);
        let rate = 2.0 * 0.001 * 5.0 / 11.0;
        let v = [rate * (6.0 + 0.6), rate * (8.0 - 0.8), 0.5];
        let expected = [3.0 - v[0], -4.0 - v[1], 6.5];
        (0..3).for_each(|j| approx::assert_relative_eq!(params[j], expected[j], max_relative = 1e-14));
        lars.step(2.0, &[0.0, 0.0, 0.0], &mut params);
        // Without a gradient the decay alone gives the direction: τ = 0.001/λ.
        let rate = 2.0 * 0.001 / 0.2;
        let second: [f64; 3] =
            std::array::from_fn(|j| expected[j] - (0.5 * v[j] + if j < 2 { rate * 0.2 * expected[j] } else { 0.0 }));
        (0..3).for_each(|j| approx::assert_relative_eq!(params[j], second[j], max_relative = 1e-14));
    }

    #[test]
    fn steps_from_zero_are_as_long_as_the_least_length_says_whatever_the_gradient() {
        for scale in [1e-30, 1.0, 1e30] {
            let mut lars = Lars::new(&[Tensor::new(2)], 0.9, 0.0, 4.0, 1.0);
            let mut params = [0.0; 2];
            lars.step(10.0, &[3.0 * scale, -4.0 * scale], &mut params);
            approx::assert_relative_eq!(norm(&params), 0.04, max_relative = 1e-14);
        }
        let mut still = Lars::new(&[Tensor::new(2)], 0.9, 0.0, 0.0, 1.0);
        let mut params = [0.0; 2];
        still.step(10.0, &[0.0; 2], &mut params);
        assert_eq!(params, [0.0; 2]);
    }

    #[test]
    fn a_restored_optimiser_continues_with_the_same_bits() {
        goes_on::<f64>(|n| Box::new(Lars::new(&[Tensor::new(n - 1), Tensor::free(1)], 0.9, 0.01, 0.5, 0.1)));
        goes_on::<f32>(|n| Box::new(Lars::new(&[Tensor::new(n - 1), Tensor::free(1)], 0.9, 0.01, 0.5, 0.1)));
    }
}
