//! A running average of parameters, which is steadier than the last of them.

use super::Real;
use crate::error::Result;
use multiversion::multiversion;
use serde::{Deserialize, Serialize};

/// `a ← D·a + (1 − D)·θ` after every step; what it says is `a/(1 − Dᵗ)`, so that the start at 0 leaves no trace.
///
/// Sources: Polyak, Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM J. Control Optim. 30, 1992; the exponential weights and
/// their correction as of Adam.
///
/// Doubles even if the parameters are not: at D = 0.9999 an f32 stays where it is as soon as a is within 0.03 % of θ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    decay: f64,
    sum: Vec<f64>,
    /// Dᵗ, a product carried from step to step.
    power: f64,
}

impl Average {
    /// Of nothing yet. `decay`: D in (0, 1). Not collective.
    pub fn new(n_params: usize, decay: f64) -> Average {
        Average { decay, sum: vec![0.0; n_params], power: 1.0 }
    }

    /// Takes in the parameters after a step. Not collective; does not allocate.
    pub fn add<F: Real>(&mut self, params: &[F]) {
        self.power *= self.decay;
        add(self.decay, params, &mut self.sum);
    }

    /// The average; None before the first step. Not collective.
    pub fn value<F: Real>(&self) -> Option<Vec<F>> {
        let weight = 1.0 - self.power;
        (weight > 0.0).then(|| self.sum.iter().map(|sum| F::from_f64(sum / weight)).collect())
    }

    /// The same with other sums, such as those of more or fewer parameters. Not collective by itself. Errors: those of `sums`.
    pub fn with_sums(self, sums: impl FnOnce(Vec<f64>) -> Result<Vec<f64>>) -> Result<Average> {
        Ok(Average { sum: sums(self.sum)?, ..self })
    }

    /// How many parameters it is of.
    pub fn n_params(&self) -> usize {
        self.sum.len()
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add<F: Real>(decay: f64, params: &[F], sums: &mut [f64]) {
    let rest = 1.0 - decay;
    sums.iter_mut().zip(params).for_each(|(sum, param)| *sum = decay * *sum + rest * param.to_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_weighs_steps_by_powers_of_the_decay() {
        let mut average = Average::new(2, 0.75);
        assert_eq!(average.value::<f64>(), None);
        let steps = [[4.0, 1.0], [8.0, 1.0], [-2.0, 1.0]];
        steps.iter().for_each(|params| average.add(params));
        let weights = [0.75 * 0.75, 0.75, 1.0];
        let expected = (4.0 * weights[0] + 8.0 * weights[1] - 2.0) / (weights[0] + weights[1] + weights[2]);
        let value = average.value::<f64>().unwrap();
        approx::assert_relative_eq!(value[0], expected, max_relative = 1e-14);
        // What never moved is where it was.
        approx::assert_relative_eq!(value[1], 1.0, max_relative = 1e-15);
    }

    #[test]
    fn the_first_step_is_its_own_average() {
        let mut average = Average::new(1, 0.999);
        average.add(&[0.3]);
        approx::assert_relative_eq!(average.value::<f64>().unwrap()[0], 0.3, max_relative = 1e-12);
    }

    /// Half an ulp of an f32 is more than a step of its average, which must not stop for that.
    #[test]
    fn the_average_of_single_floats_gets_where_they_are() {
        let mut average = Average::new(1, 0.9999);
        average.add(&[1.0f32]);
        (0..200_000).for_each(|_| average.add(&[1.0001f32]));
        let value: Vec<f32> = average.value().unwrap();
        assert_eq!(value, [1.0001f32]);
    }
}
