//! A running average of parameters, which is steadier than the last of them.

use serde::{Deserialize, Serialize};

/// `a ← D·a + (1 − D)·θ` after every step; what it says is `a/(1 − Dᵗ)`, so that the start at 0 leaves no trace.
///
/// Sources: Polyak, Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM J. Control Optim. 30, 1992; the exponential weights and
/// their correction as of Adam.
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
    pub fn add(&mut self, params: &[f64]) {
        let (decay, rest) = (self.decay, 1.0 - self.decay);
        self.power *= decay;
        self.sum.iter_mut().zip(params).for_each(|(sum, param)| *sum = decay * *sum + rest * param);
    }

    /// The average; None before the first step. Not collective.
    pub fn value(&self) -> Option<Vec<f64>> {
        let weight = 1.0 - self.power;
        (weight > 0.0).then(|| self.sum.iter().map(|sum| sum / weight).collect())
    }

    /// How many parameters it is of.
    pub fn n_params(&self) -> usize {
        self.sum.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_weighs_steps_by_powers_of_the_decay() {
        let mut average = Average::new(2, 0.75);
        assert_eq!(average.value(), None);
        let steps = [[4.0, 1.0], [8.0, 1.0], [-2.0, 1.0]];
        steps.iter().for_each(|params| average.add(params));
        let weights = [0.75 * 0.75, 0.75, 1.0];
        let expected = (4.0 * weights[0] + 8.0 * weights[1] - 2.0) / (weights[0] + weights[1] + weights[2]);
        let value = average.value().unwrap();
        approx::assert_relative_eq!(value[0], expected, max_relative = 1e-14);
        // What never moved is where it was.
        approx::assert_relative_eq!(value[1], 1.0, max_relative = 1e-15);
    }

    #[test]
    fn the_first_step_is_its_own_average() {
        let mut average = Average::new(1, 0.999);
        average.add(&[0.3]);
        approx::assert_relative_eq!(average.value().unwrap()[0], 0.3, max_relative = 1e-12);
    }
}
