//! The learning rate over time.

use serde::{Deserialize, Serialize};

/// Learning rate over time, as a factor of `learning_rate`.
///
/// None of them warms up: the default rates are measured on the first rows, so the first step already has the right length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant,
    /// Half a cosine from 1 to 0 over all steps.
    #[default]
    Cosine,
    /// 1/(1 + epoch).
    Inverse,
}

impl Schedule {
    /// The factor of step `step` (from 0) of `of_steps`: in (0, 1]. Not collective.
    pub fn at(self, step: u64, of_steps: u64, steps_per_epoch: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let share = step as f64 / of_steps.max(1) as f64;
                0.5 * (1.0 + libm::cos(std::f64::consts::PI * share))
            }
            Schedule::Inverse => 1.0 / (1 + step / steps_per_epoch.max(1)) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_as_described() {
        assert_eq!([0, 50, 99].map(|step| Schedule::Constant.at(step, 100, 10)), [1.0; 3]);
        assert_eq!([0, 9, 10, 39].map(|step| Schedule::Inverse.at(step, 100, 10)), [1.0, 1.0, 0.5, 0.25]);
        assert_eq!(Schedule::Cosine.at(0, 100, 10), 1.0);
        approx::assert_relative_eq!(Schedule::Cosine.at(50, 100, 10), 0.5, epsilon = 1e-15);
        approx::assert_relative_eq!(Schedule::Cosine.at(25, 100, 10), 0.853_553_390_593_273_8, epsilon = 1e-15);
        assert!((1..100).all(|s| Schedule::Cosine.at(s, 100, 10) < Schedule::Cosine.at(s - 1, 100, 10)));
        assert!(Schedule::Cosine.at(99, 100, 10) > 0.0);
    }
}
