//! What only mini-batch solvers have: words for it, its defaults, and what goes with what.

use super::{BoostLoss, Schedule, Solver, Sync, TrainConfig};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How long the learning rate rises before its schedule begins: `500steps` or `0.5epochs`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WarmUp {
    Steps(u64),
    Epochs(f64),
}

/// What a learning rate that was given is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleRate {
    /// Global batch / 256: Goyal et al., *Accurate, large minibatch SGD*, 2017 (arXiv 1706.02677).
    Linear,
    /// √(global batch / 256), as LAMB's authors do.
    Sqrt,
}

impl ScaleRate {
    /// For this global batch.
    pub fn factor(self, global_batch: u64) -> f64 {
        let share = global_batch as f64 / 256.0;
        match self {
            ScaleRate::Linear => share,
            ScaleRate::Sqrt => share.sqrt(),
        }
    }
}

impl WarmUp {
    /// In steps.
    pub fn steps(self, steps_per_epoch: u64) -> u64 {
        match self {
            WarmUp::Steps(steps) => steps,
            WarmUp::Epochs(epochs) => (epochs * steps_per_epoch as f64).ceil() as u64,
        }
    }
}

impl FromStr for WarmUp {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<WarmUp, String> {
        let number = |unit: &str| word.strip_suffix(unit).or(word.strip_suffix(&unit[..unit.len() - 1])).map(str::trim);
        let steps = number("steps").and_then(|number| number.parse().ok()).filter(|steps| (1..1 << 53).contains(steps));
        let epochs = number("epochs").and_then(|number| number.parse().ok());
        match (steps, epochs.filter(|epochs| *epochs > 0.0 && *epochs < 1e9)) {
            (Some(steps), _) => Ok(WarmUp::Steps(steps)),
            (None, Some(epochs)) => Ok(WarmUp::Epochs(epochs)),
            _ => Err(format!("'{word}' is neither a number of steps nor of epochs; write 500steps or 0.5epochs")),
        }
    }
}

impl fmt::Display for WarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WarmUp::Steps(steps) => write!(f, "{steps}steps"),
            WarmUp::Epochs(epochs) => write!(f, "{epochs}epochs"),
        }
    }
}

impl TryFrom<String> for WarmUp {
    type Error = String;

    fn try_from(word: String) -> std::result::Result<WarmUp, String> {
        word.parse()
    }
}

impl From<WarmUp> for String {
    fn from(of: WarmUp) -> String {
        of.to_string()
    }
}

impl TrainConfig {
    /// β₁ and β₂ of Adam's kin.
    pub fn betas(&self) -> [f64; 2] {
        [self.beta1.unwrap_or(0.9), self.beta2.unwrap_or(0.999)]
    }

    /// ε in units of a typical gradient. The defaults are those of the papers, of `adagrad` PyTorch's.
    pub fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(match self.solver {
            Solver::Lamb => 1e-6,
            Solver::Adagrad => 1e-10,
            _ => 1e-8,
        })
    }

    /// Whether this solver looks at the setting of this name, if it is one of mini-batch solvers.
    pub(super) fn steps_look_at(&self, setting: &str) -> Option<bool> {
        let one_of = |solvers: &[Solver]| solvers.contains(&self.solver);
        Some(match setting {
            "epochs" | "learning_rate" | "schedule" | "global_batch" | "lanes" | "sync" => self.solver.is_mini_batch(),
            "local_after" | "clip_norm" | "warm_up" | "scale_rate" => self.solver.is_mini_batch(),
            "average" | "early_stop" => self.solver.is_mini_batch(),
            "momentum" => one_of(&[Solver::Sgd, Solver::Lars]),
            "nesterov" => one_of(&[Solver::Sgd]),
            "weight_decay" => one_of(&[Solver::Adamw, Solver::Lamb, Solver::Lars]),
            "beta1" | "beta2" => one_of(&[Solver::Adam, Solver::Adamw, Solver::Lamb]),
            "epsilon" => one_of(&[Solver::Adam, Solver::Adamw, Solver::Lamb, Solver::Adagrad]),
            _ => return None,
        })
    }

    /// Numbers in their range, whatever the solver.
    pub(super) fn check_step_numbers(&self) -> Result<()> {
        let above_0 =
            [("--learning-rate", self.learning_rate), ("--clip-norm", self.clip_norm), ("--epsilon", self.epsilon)];
        for (flag, value) in above_0 {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                return Err(Error::usage(format!("{flag} {value} is not a number above 0")));
            }
        }
        if let Some(decay) = self.weight_decay.filter(|decay| !(*decay >= 0.0 && decay.is_finite())) {
            return Err(Error::usage(format!("--weight-decay {decay} is not a number of 0 or more")));
        }
        let below_1 = [("--momentum", Some(self.momentum)), ("--beta1", self.beta1), ("--beta2", self.beta2)];
        for (flag, value) in below_1 {
            if let Some(value) = value.filter(|value| !(0.0..1.0).contains(value)) {
                return Err(Error::usage(format!("{flag} {value} is not from 0 to below 1")));
            }
        }
        match self.average {
            Some(decay) if !(decay > 0.0 && decay < 1.0) => {
                Err(Error::usage(format!("--average {decay} is not above 0 and below 1, such as 0.999")))
            }
            _ => Ok(()),
        }
    }

    /// What goes together, for a solver that is known to be a mini-batch one; defaults that hang on it.
    pub(super) fn settle_steps(&mut self) -> Result<()> {
        self.check_batch()?;
        if self.steps_look_at("weight_decay") == Some(true) {
            let usual = if self.solver == Solver::Lars { 0.0 } else { 0.01 };
            self.weight_decay = Some(self.weight_decay.unwrap_or(usual));
        }
        // The better a Gaussian fits, the steeper it is: gradients grow as 1/deviation and curvature as 1/variance, without end where targets are hit. No
        // rate that learns from the start is short enough for that, so steps are made short where they would be long. Adam's kin do so by themselves.
        let is_gaussian = self.mlp.as_ref().is_some_and(|mlp| mlp.loss == BoostLoss::Gaussian);
        if is_gaussian && matches!(self.solver, Solver::Sgd | Solver::Lars) {
            self.clip_norm = Some(self.clip_norm.unwrap_or(1.0));
        }
        if self.scale_rate.is_some() && self.learning_rate.is_none() {
            let why = if self.mlp.is_some() { "give it too" } else { "the default is measured for this batch already" };
            return Err(Error::usage(format!("--scale-rate multiplies --learning-rate, which is not given: {why}")));
        }
        if self.warm_up.is_some() && self.schedule == Schedule::OneCycle {
            return Err(Error::usage("--warm-up: --schedule one-cycle warms up by itself; leave one of them out"));
        }
        if self.early_stop > 0 && self.valid_fraction == 0.0 {
            return Err(Error::usage(
                "--early-stop looks at rows that are not trained on; hold some out with --valid-fraction",
            ));
        }
        if self.sync == Sync::Step && self.local_after > 0 {
            return Err(Error::usage(
                "--local-after says when lanes go on alone; say with --sync-every after how many steps they meet, or with --sync once that they never do",
            ));
        }
        let compression = self.mlp.as_ref().and_then(|mlp| mlp.compressions().into_iter().next());
        if let Some(flag) = compression.filter(|_| self.sync != Sync::Step && self.local_after == 0) {
            return Err(Error::usage(format!(
                "{flag}: lanes that step alone send no gradients; leave it out, or let them add gradients first with --local-after"
            )));
        }
        if self.sync == Sync::Once {
            let needs = [("--early-stop", self.early_stop > 0), ("--average", self.average.is_some())];
            if let Some((flag, _)) = needs.iter().find(|(_, is_on)| *is_on) {
                return Err(Error::usage(format!(
                    "{flag} looks at the model as it is trained, but with --sync once there is none before the end; use --sync-every"
                )));
            }
        }
        Ok(())
    }

    /// The batch is dealt to lanes in equal parts. The default rule is looked at for a long table: a shorter one has a
    /// smaller power of two, which divides too.
    fn check_batch(&self) -> Result<()> {
        let lanes = self.n_lanes(u64::MAX);
        if lanes == 0 {
            return Err(Error::usage("--lanes 0: at least 1 is needed"));
        }
        if self.global_batch.is_multiple_of(lanes) {
            return Ok(());
        }
        let above = self.global_batch.next_multiple_of(lanes);
        let use_instead = match above - lanes {
            0 => above.to_string(),
            below => format!("{below} or {above}"),
        };
        Err(Error::usage(format!(
            "--global-batch {} does not divide by {lanes} lanes; use {use_instead}, or set --lanes",
            self.global_batch
        )))
    }
}
