//! LAMB: Adam's steps, as long as the tensor that they change.

use super::moments::Moments;
use super::{Optimizer, Real, Tensor, each_tensor, norm};
use multiversion::multiversion;

/// `r = m̂/(√v̂ + ε) + λ·θ/u`, then `θ ← θ − lr·(φ(‖θ‖)/‖r‖)·r` for every tensor; φ(‖θ‖) = max(‖θ‖, φ₀).
///
/// u is the unit of the parameters: their course is that of θ/u with unit 1. A tensor of length 0 with φ₀ = 0 and free tensors go `lr·u·r`; these do not
/// decay either.
/// Source: You, Li, Reddi et al., *Large batch optimization for deep learning: training BERT in 76 minutes*, ICLR 2020, algorithm 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Lamb<F: Real = f64> {
    epsilon: f64,
    decay: f64,
    unit: f64,
    least: f64,
    tensors: Vec<Tensor>,
    moments: Moments<F>,
    /// r of this step.
    direction: Vec<F>,
}

impl<F: Real> Lamb<F> {
    /// * `tensors`: all parameters, in order.
    /// * `betas`, `epsilon`: as of [`Adam`](super::Adam); `decay`: λ.
    /// * `unit`: u; `least`: φ₀, which lets parameters that start at 0 get away from there, in units of the parameters. Not collective.
    pub fn new(tensors: &[Tensor], betas: [f64; 2], epsilon: f64, decay: f64, unit: f64, least: f64) -> Lamb<F> {
        let n = tensors.iter().map(|tensor| tensor.len).sum();
        let (tensors, moments) = (tensors.to_vec(), Moments::new(n, betas));
        Lamb { epsilon, decay, unit, least, tensors, moments, direction: vec![F::default(); n] }
    }
}

impl<F: Real> Optimizer<F> for Lamb<F> {
    fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]) {
        let (unit, decay, least) = (self.unit, self.decay / self.unit, self.least);
        let factors = self.moments.begin(self.epsilon, 1.0, grad, params);
        let (direction, moments) = (&mut self.direction, &mut self.moments);
        each_tensor(&self.tensors, |place, is_free| {
            let (params, direction) = (&mut params[place.clone()], &mut direction[place.clone()]);
            moments.step(factors, place.clone(), &grad[place], direction, |_, r| r);
            let mut length = unit;
            if !is_free {
                if decay > 0.0 {
                    add(decay, params, direction);
                }
                let (of_params, of_step) = (norm(params), norm(direction));
                let of_params = if of_params < least { least } else { of_params };
                if of_params > 0.0 && of_step > 0.0 {
                    length = of_params / of_step;
                }
            }
            add(-(learning_rate * length), direction, params);
        });
    }

    fn state(&self) -> Vec<(&'static str, &[F])> {
        self.moments.state()
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])> {
        self.moments.state_mut()
    }
}

/// `sums[j] += factor·x[j]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add<F: Real>(factor: f64, x: &[F], sums: &mut [F]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum = F::from_f64(sum.to_f64() + factor * x.to_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::goes_on;
    use super::*;

    const TENSORS: [Tensor; 3] = [Tensor::new(2), Tensor::free(1), Tensor::new(3)];

    /// Algorithm 2 of the paper in plain loops, as `torch_optimizer.Lamb` has it with bias correction and without a bound from above.
    fn plain(steps: usize, rate: f64, betas: [f64; 2], epsilon: f64, decay: f64, params: &mut [f64; 6]) {
        let (mut m, mut v) = ([0.0; 6], [0.0; 6]);
        for t in 1..=steps {
            let mut r = [0.0; 6];
            for j in 0..6 {
                let g = gradient(t, j);
                m[j] = betas[0] * m[j] + (1.0 - betas[0]) * g;
                v[j] = betas[1] * v[j] + (1.0 - betas[1]) * g * g;
                let [of_m, of_v] = betas.map(|beta| 1.0 - libm::pow(beta, t as f64));
                r[j] = m[j] / of_m / ((v[j] / of_v).sqrt() + epsilon) + if j == 2 { 0.0 } else { decay * params[j] };
            }
            for (range, is_free) in [(0..2, false), (2..3, true), (3..6, false)] {
                let length = |values: &[f64]| values[range.clone()].iter().map(|x| x * x).sum::<f64>().sqrt();
                let (weight, update) = (length(&params[..]), length(&r));
                let trust = if is_free || weight == 0.0 || update == 0.0 { 1.0 } else { weight / update };
                range.clone().for_each(|j| params[j] -= rate * trust * r[j]);
            }
        }
    }

    fn gradient(step: usize, place: usize) -> f64 {
        libm::sin((3 * step + 5 * place) as f64)
    }

    #[test]
    fn steps_follow_the_paper_and_scaled_units_leave_no_trace() {
        // The last tensor starts at 0.
        let start = [0.5, -2.0, 3.0, 0.0, 0.0, 0.0];
        let (betas, epsilon) = ([0.8, 0.95], 1e-6);
        for unit in [1.0, libm::ldexp(1.0, 40)] {
            let mut lamb = Lamb::new(&TENSORS, betas, epsilon, 0.3, unit, 0.0);
            let mut params = start.map(|param| param * unit);
            for t in 1..=20 {
                lamb.step(0.07, &std::array::from_fn::<f64, 6, _>(|j| gradient(t, j)), &mut params);
                let mut expected = start;
                plain(t, 0.07, betas, epsilon, 0.3, &mut expected);
                for (found, expected) in params.iter().zip(expected) {
                    approx::assert_relative_eq!(found / unit, expected, max_relative = 1e-10, epsilon = 1e-12);
                }
            }
        }
    }

    #[test]
    fn short_tensors_step_as_far_as_the_least_length_says() {
        let mut lamb = Lamb::new(&[Tensor::new(4)], [0.9, 0.999], 1e-12, 0.0, 1.0, 2.0);
        let mut params = [0.0; 4];
        lamb.step(0.1, &[1.0, -3.0, 0.01, 5.0], &mut params);
        // ‖r‖ = 2: every |r| is 1.
        for (found, expected) in params.iter().zip([-0.1, 0.1, -0.1, -0.1]) {
            approx::assert_relative_eq!(*found, expected, max_relative = 1e-9);
        }
    }

    #[test]
    fn a_restored_optimiser_continues_with_the_same_bits() {
        goes_on::<f64>(|n| {
            Box::new(Lamb::new(&[Tensor::new(n - 1), Tensor::free(1)], [0.9, 0.999], 1e-6, 0.01, 2.0, 0.5))
        });
        goes_on::<f32>(|n| {
            Box::new(Lamb::new(&[Tensor::new(n - 1), Tensor::free(1)], [0.9, 0.999], 1e-6, 0.01, 2.0, 0.5))
        });
    }
}
