//! The learning rate over time.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Learning rate over time, as a factor of `learning_rate`.
///
/// But for `OneCycle` none of them warms up by itself: the default rates are measured on the first rows, so the first step already has the right length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant,
    /// Half a cosine from 1 to 0 over all steps.
    #[default]
    Cosine,
    /// 1/(1 + epoch).
    Inverse,
    /// 1, from half of the steps on 1/10, and from three quarters of them on 1/100.
    Step,
    /// Half a cosine from 1/25 to 1 over the first three tenths of the steps, another to 1/250,000 at the last one.
    ///
    /// Source: Smith, Topin, *Super-convergence*, 2018 (arXiv 1708.07120), with the shape and the numbers of PyTorch's `OneCycleLR`; momentum stays.
    #[serde(rename = "one-cycle")]
    OneCycle,
}

/// Of [`Schedule::OneCycle`]: the factor at the first and at the last step, and the share of the steps that it rises.
const FIRST: f64 = 1.0 / 25.0;
const LAST: f64 = FIRST / 1e4;
const RISING: f64 = 0.3;

impl Schedule {
    /// The factor of step `step` (from 0) of `of_steps`: in (0, 1]. Not collective.
    ///
    /// `warm_up`: steps, fewer than all, over which the factor rises evenly to the first one of the schedule, which takes the others. Source: Goyal et al., *Accurate, large
    /// minibatch SGD*, 2017 (arXiv 1706.02677), section 2.2.
    pub fn at(self, step: u64, of_steps: u64, steps_per_epoch: u64, warm_up: u64) -> f64 {
        if step < warm_up {
            return (step + 1) as f64 / warm_up as f64;
        }
        let (step, of_steps) = (step - warm_up, of_steps.saturating_sub(warm_up));
        match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let share = step as f64 / of_steps.max(1) as f64;
                0.5 * (1.0 + libm::cos(PI * share))
            }
            Schedule::Inverse => 1.0 / (1 + step / steps_per_epoch.max(1)) as f64,
            Schedule::Step if step < of_steps.div_ceil(2) => 1.0,
            Schedule::Step if step < of_steps - of_steps / 4 => 0.1,
            Schedule::Step => 0.01,
            Schedule::OneCycle => {
                let (step, last) = (step as f64, of_steps.saturating_sub(1) as f64);
                let top = RISING * of_steps as f64 - 1.0;
                let between = |from: f64, to: f64, share: f64| to + 0.5 * (from - to) * (1.0 + libm::cos(PI * share));
                match step < top {
                    true => between(FIRST, 1.0, step / top),
                    false if last > top => between(1.0, LAST, (step - top) / (last - top)),
                    false => 1.0,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_as_described() {
        assert_eq!([0, 50, 99].map(|step| Schedule::Constant.at(step, 100, 10, 0)), [1.0; 3]);
        assert_eq!([0, 9, 10, 39].map(|step| Schedule::Inverse.at(step, 100, 10, 0)), [1.0, 1.0, 0.5, 0.25]);
        assert_eq!(Schedule::Cosine.at(0, 100, 10, 0), 1.0);
        approx::assert_relative_eq!(Schedule::Cosine.at(50, 100, 10, 0), 0.5, epsilon = 1e-15);
        approx::assert_relative_eq!(Schedule::Cosine.at(25, 100, 10, 0), 0.853_553_390_593_273_8, epsilon = 1e-15);
        assert!((1..100).all(|s| Schedule::Cosine.at(s, 100, 10, 0) < Schedule::Cosine.at(s - 1, 100, 10, 0)));
        assert!(Schedule::Cosine.at(99, 100, 10, 0) > 0.0);
        assert_eq!([0, 49, 50, 74, 75, 99].map(|s| Schedule::Step.at(s, 100, 10, 0)), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
    }

    /// Its corners, and what PyTorch's documentation of `OneCycleLR` gives for `total_steps=101`: the top is at step 0.3·101 − 1 = 29.3.
    #[test]
    fn one_cycle_rises_to_the_learning_rate_and_falls_to_next_to_nothing() {
        let at = |step| Schedule::OneCycle.at(step, 101, 10, 0);
        approx::assert_relative_eq!(at(0), 0.04, max_relative = 1e-14);
        approx::assert_relative_eq!(at(100), 4e-6, max_relative = 1e-9);
        assert!(at(29) > 0.9995 && at(30) > 0.9995 && at(29) <= 1.0 && at(30) <= 1.0);
        assert!((1..30).all(|s| at(s) > at(s - 1)) && (31..101).all(|s| at(s) < at(s - 1)));
        let middle = 1.0 - 0.96 * 0.5 * (1.0 + libm::cos(PI * 15.0 / 29.3));
        approx::assert_relative_eq!(at(15), middle, max_relative = 1e-14);
        for of_steps in 1..8 {
            let all: Vec<f64> = (0..of_steps).map(|step| Schedule::OneCycle.at(step, of_steps, 1, 0)).collect();
            assert!(all.iter().all(|factor| *factor > 0.0 && *factor <= 1.0), "{all:?}");
        }
    }

    #[test]
    fn warming_up_rises_evenly_and_leaves_the_other_steps_to_the_schedule() {
        let all = [Schedule::Constant, Schedule::Cosine, Schedule::Inverse, Schedule::Step, Schedule::OneCycle];
        for schedule in all {
            assert_eq!([0, 1, 3].map(|step| schedule.at(step, 100, 10, 4)), [0.25, 0.5, 1.0]);
            for step in [4, 5, 50, 99] {
                assert_eq!(schedule.at(step, 100, 10, 4), schedule.at(step - 4, 96, 10, 0), "{schedule:?} {step}");
            }
        }
    }
}
