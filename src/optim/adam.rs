//! Adam and AdamW: every parameter has a step of its own.

use super::moments::Moments;
use super::{Optimizer, Real, Tensor, each_tensor};

/// `θ ← (1 − lr·λ)·θ`, then `θ ← θ − lr·m̂/(√v̂ + ε)`; m̂ and v̂ are running means of gradients and their squares.
///
/// With λ = 0 it is Adam, else AdamW: the decay is no part of the gradient, so that it is not divided by √v̂. Parameters of free tensors do not decay.
/// Sources: Kingma, Ba, *Adam: a method for stochastic optimization*, ICLR 2015, algorithm 1; Loshchilov, Hutter, *Decoupled weight
/// decay regularization*, ICLR 2019, algorithm 2, with the learning rate in the decay, as it is usually written.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam<F: Real = f64> {
    epsilon: f64,
    decay: f64,
    tensors: Vec<Tensor>,
    moments: Moments<F>,
}

impl<F: Real> Adam<F> {
    /// * `betas`: β₁, β₂ in [0, 1), usually 0.9 and 0.999.
    /// * `epsilon`: ε, in units of the gradient: 1e-8 of a typical one. Not collective.
    pub fn new(n_params: usize, betas: [f64; 2], epsilon: f64) -> Adam<F> {
        Adam { epsilon, decay: 0.0, tensors: Vec::new(), moments: Moments::new(n_params, betas) }
    }

    /// The same with decay. `decay`: λ, per unit of the learning rate; `tensors`: all parameters, in order. Not collective.
    pub fn with_decay(self, decay: f64, tensors: &[Tensor]) -> Adam<F> {
        Adam { decay, tensors: tensors.to_vec(), ..self }
    }
}

impl<F: Real> Optimizer<F> for Adam<F> {
    fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]) {
        let factors = self.moments.begin(self.epsilon, learning_rate, grad, params);
        if self.decay > 0.0 {
            let kept = 1.0 - learning_rate * self.decay;
            let moments = &mut self.moments;
            each_tensor(&self.tensors, |place, is_free| {
                let kept = if is_free { 1.0 } else { kept };
                let (grad, params) = (&grad[place.clone()], &mut params[place.clone()]);
                moments.step(factors, place, grad, params, |param, by| param * kept - by);
            });
        } else {
            self.moments.step(factors, 0..params.len(), grad, params, |param, by| param - by);
        }
    }

    fn state(&self) -> Vec<(&'static str, &[F])> {
        self.moments.state()
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])> {
        self.moments.state_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::goes_on;
    use super::*;

    const BETAS: [f64; 2] = [0.9, 0.999];

    /// PyTorch 2's `torch.optim.Adam(lr=0.1)` in float64 on θ = 0.5 with gradients 1, −2, 0.5 follows the same recurrence; here it
    /// is written out once more with the powers by hand.
    #[test]
    fn steps_follow_the_recurrence() {
        let mut adam = Adam::new(1, BETAS, 1e-8);
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

    /// `torch.optim.AdamW` as its documentation writes it: θ ← θ − γλθ, then Adam's step, with a bias correction of step length and root each.
    #[test]
    fn decay_is_apart_from_the_gradient_and_leaves_free_tensors_alone() {
        let tensors = [Tensor::new(2), Tensor::free(1), Tensor::new(1)];
        let (rate, decay, betas, epsilon) = (0.07, 0.3, [0.8, 0.95], 1e-6);
        let mut adam = Adam::new(4, betas, epsilon).with_decay(decay, &tensors);
        let mut params = [0.5, -2.0, 3.0, 1.5];
        let (mut plain, mut m, mut v) = (params, [0.0; 4], [0.0; 4]);
        for t in 1..=20 {
            let grad: [f64; 4] = std::array::from_fn(|j| libm::sin((3 * t + 5 * j) as f64));
            adam.step(rate, &grad, &mut params);
            for j in 0..4 {
                plain[j] -= if j == 2 { 0.0 } else { rate * decay * plain[j] };
                m[j] = betas[0] * m[j] + (1.0 - betas[0]) * grad[j];
                v[j] = betas[1] * v[j] + (1.0 - betas[1]) * grad[j] * grad[j];
                let correction = betas.map(|beta| 1.0 - libm::pow(beta, t as f64));
                plain[j] -= rate / correction[0] * m[j] / (v[j].sqrt() / correction[1].sqrt() + epsilon);
                approx::assert_relative_eq!(params[j], plain[j], max_relative = 1e-10);
            }
        }
    }

    #[test]
    fn scaled_gradients_give_the_same_steps() {
        let run = |scale: f64| {
            let mut adam = Adam::new(2, BETAS, 1e-8 * scale);
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
        goes_on::<f64>(|n| Box::new(Adam::new(n, BETAS, 1e-8)));
        goes_on::<f32>(|n| Box::new(Adam::new(n, BETAS, 1e-8)));
        goes_on::<f64>(|n| Box::new(Adam::new(n, BETAS, 1e-8).with_decay(0.1, &[Tensor::new(n)])));
        goes_on::<f32>(|n| Box::new(Adam::new(n, BETAS, 1e-8).with_decay(0.1, &[Tensor::new(n)])));
    }
}
