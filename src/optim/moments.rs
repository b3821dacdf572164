//! Running means of gradients and of their squares, which Adam and its kin step by.

use super::{AHEAD, Real, check_params};
use crate::functions::prefetch_to_write;
use multiversion::multiversion;
use std::ops::Range;

/// `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`; m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) at step t.
///
/// The powers are products carried from step to step, the same on every machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moments<F: Real> {
    betas: [f64; 2],
    mean: Vec<F>,
    square: Vec<F>,
    /// β₁ᵗ and β₂ᵗ, each in [`PARTS`](Real::PARTS): they are doubles, whatever the parameters are.
    powers: Vec<F>,
}

/// What is the same for all parameters of a step.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    betas: [f64; 2],
    /// 1/(1 − βᵗ).
    corrections: [f64; 2],
    epsilon: f64,
    /// What m̂/(√v̂ + ε) is multiplied by.
    rate: f64,
}

impl<F: Real> Moments<F> {
    pub fn new(n_params: usize, betas: [f64; 2]) -> Moments<F> {
        let zeros = || vec![F::default(); n_params];
        let mut powers = vec![F::default(); 2 * F::PARTS];
        powers.chunks_exact_mut(F::PARTS).for_each(|parts| F::parts(1.0, parts));
        Moments { betas, mean: zeros(), square: zeros(), powers }
    }

    /// Begins a step; [`step`](Self::step) must follow for every parameter. Not collective.
    pub fn begin(&mut self, epsilon: f64, rate: f64, grad: &[F], params: &[F]) -> Factors {
        check_params(self.mean.len(), grad, params);
        let mut corrections = [0.0; 2];
        for ((parts, beta), correction) in self.powers.chunks_exact_mut(F::PARTS).zip(self.betas).zip(&mut corrections)
        {
            let power = F::of_parts(parts) * beta;
            F::parts(power, parts);
            *correction = 1.0 / (1.0 - power);
        }
        Factors { betas: self.betas, corrections, epsilon, rate }
    }

    /// Takes in the gradient of the parameters at `place`, and makes `apply(x, rate·m̂/(√v̂ + ε))` of each x of `out`. `grad`, `out`: of these
    /// parameters. Not collective; does not allocate.
    pub fn step(
        &mut self,
        factors: Factors,
        place: Range<usize>,
        grad: &[F],
        out: &mut [F],
        apply: impl Fn(f64, f64) -> f64,
    ) {
        step(factors, grad, &mut self.mean[place.clone()], &mut self.square[place], out, apply);
    }

    pub fn state(&self) -> Vec<(&'static str, &[F])> {
        vec![("mean", &self.mean), ("square", &self.square), ("powers", &self.powers)]
    }

    pub fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])> {
        vec![("mean", &mut self.mean), ("square", &mut self.square), ("powers", &mut self.powers)]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn step<F: Real, A: Fn(f64, f64) -> f64>(
    factors: Factors,
    grad: &[F],
    mean: &mut [F],
    square: &mut [F],
    out: &mut [F],
    apply: A,
) {
    let Factors { betas: [beta_1, beta_2], corrections: [of_mean, of_square], epsilon, rate } = factors;
    for first in (0..grad.len()).step_by(AHEAD) {
        let run = first..(first + AHEAD).min(grad.len());
        let next = run.end..(run.end + AHEAD).min(grad.len());
        [&out[next.clone()], &mean[next.clone()], &square[next]].into_iter().for_each(prefetch_to_write);
        let state = mean[run.clone()].iter_mut().zip(&mut square[run.clone()]);
        for ((out, &g), (mean, square)) in out[run.clone()].iter_mut().zip(&grad[run]).zip(state) {
            let g = g.to_f64();
            let m = beta_1 * mean.to_f64() + (1.0 - beta_1) * g;
            let v = beta_2 * square.to_f64() + (1.0 - beta_2) * (g * g);
            (*mean, *square) = (F::fading(m), F::fading(v));
            let root = (v * of_square).sqrt() + epsilon;
            *out = F::from_f64(apply(out.to_f64(), rate * (m * of_mean) / root));
        }
    }
}
