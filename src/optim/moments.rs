//! Running means of gradients and of their squares, which Adam and its kin step by.

use super::{array, check_params};
use crate::error::{Error, Result};

/// `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`; m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) at step t.
///
/// The powers are products carried from step to step, the same on every machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moments {
    betas: [f64; 2],
    mean: Vec<f64>,
    square: Vec<f64>,
    /// β₁ᵗ and β₂ᵗ.
    powers: [f64; 2],
}

impl Moments {
    pub fn new(n_params: usize, betas: [f64; 2]) -> Moments {
        Moments { betas, mean: vec![0.0; n_params], square: vec![0.0; n_params], powers: [1.0, 1.0] }
    }

    /// Takes a gradient in; calls `visit` for every parameter in order: its place, m̂, √v̂ + ε, and itself. Not collective; does not allocate.
    pub fn step(
        &mut self,
        epsilon: f64,
        grad: &[f64],
        params: &mut [f64],
        mut visit: impl FnMut(usize, f64, f64, &mut f64),
    ) {
        check_params(self.mean.len(), grad, params);
        let [beta_1, beta_2] = self.betas;
        self.powers[0] *= beta_1;
        self.powers[1] *= beta_2;
        let (of_mean, of_square) = (1.0 / (1.0 - self.powers[0]), 1.0 / (1.0 - self.powers[1]));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for (place, ((param, &g), (mean, square))) in params.iter_mut().zip(grad).zip(moments).enumerate() {
            *mean = beta_1 * *mean + (1.0 - beta_1) * g;
            *square = beta_2 * *square + (1.0 - beta_2) * (g * g);
            visit(place, *mean * of_mean, (*square * of_square).sqrt() + epsilon, param);
        }
    }

    pub fn state(&self) -> Vec<(&'static str, &[f64])> {
        vec![("mean", &self.mean), ("square", &self.square), ("powers", &self.powers)]
    }

    pub fn restore(&mut self, state: &[(&str, &[f64])]) -> Result<()> {
        let n = self.mean.len();
        let (mean, square) = (array(state, "mean", n)?, array(state, "square", n)?);
        let powers = array(state, "powers", 2)?;
        self.powers = powers.try_into().map_err(|_| Error::internal("two powers"))?;
        self.mean.copy_from_slice(mean);
        self.square.copy_from_slice(square);
        Ok(())
    }
}
