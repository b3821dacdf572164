//! The words for how mini-batch solvers take their steps.

use super::{whole, word};
use crate::config::{ScaleRate, Schedule, WarmUp};
use clap::Args;

/// Settings of sgd, adam, adamw, lamb, lars and adagrad.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Mini-batch solvers")]
pub struct StepFlags {
    /// Passes over the table. Default 10, or on a short table as many as make 1000 steps.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub epochs: Option<u64>,
    /// Length of a step. Default: measured on the first rows, for features and targets of any scale; of uncorrelated features and scores of unit
    /// deviation 0.1 for sgd, 0.01 for adam and adamw, 0.1 for adagrad, 0.02 for lamb, 5 for lars. Of mlp it is not measured: 0.05 for sgd, 0.001 for
    /// adam and adamw, 0.01 for adagrad and lamb, 1 for lars.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub learning_rate: Option<f64>,
    /// Learning rate over the steps: constant, cosine (to 0 at the end), inverse (1/(1 + epoch)), step (a tenth after half of the steps, a hundredth after
    /// three quarters) or one-cycle (up from 1/25 over three tenths of the steps, then down to nothing). Default cosine.
    #[arg(long, value_parser = word::<Schedule>)]
    pub schedule: Option<Schedule>,
    /// The learning rate first rises evenly for so long, such as 500steps or 0.5epochs; the schedule takes the other steps. Default: it does not.
    #[arg(long, value_name = "Nsteps|Nepochs", value_parser = word::<WarmUp>)]
    pub warm_up: Option<WarmUp>,
    /// Multiply --learning-rate by the global batch ÷ 256 (linear), or by its root (sqrt). Default: do not.
    #[arg(long, value_name = "HOW", value_parser = word::<ScaleRate>)]
    pub scale_rate: Option<ScaleRate>,
    /// Rows per step, over all lanes. Default 1024, of mlp 256.
    #[arg(long, value_name = "ROWS", value_parser = whole())]
    pub global_batch: Option<u64>,
    /// Row streams that a batch is taken from, or that the trees of a forest with --scope local see one of; more ranks than lanes are
    /// idle. Default: the largest power of two ≤ 64, global batch ÷ 128 (a forest: trees) and rows ÷ 256, at least 1.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub lanes: Option<u64>,
    /// Lanes take this many steps of their own before an exact average (local SGD), where communication is
    /// dear. Default: gradients are summed every step.
    #[arg(long, value_name = "STEPS", value_parser = whole(), conflicts_with = "sync")]
    pub sync_every: Option<u64>,
    /// step: gradients are summed every step (the default); once: lanes train alone and are averaged at the end.
    #[arg(long, value_name = "WHEN", value_parser = ["step", "once"])]
    pub sync: Option<String>,
    /// With --sync-every or --sync once: in the first EPOCHS epochs gradients are summed every step, after that lanes are alone (post-local SGD). Default 0.
    #[arg(long, value_name = "EPOCHS", value_parser = whole())]
    pub local_after: Option<u64>,
    /// Momentum of sgd and lars, 0 to below 1. Default 0.9.
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub momentum: Option<f64>,
    /// Momentum of sgd without Nesterov's look-ahead.
    #[arg(long)]
    pub no_nesterov: bool,
    /// Coefficients shrink by learning rate × λ a step, beside what the gradient does (adamw; a measured rate counts in units of the scores); lamb and
    /// lars add λ × coefficients to their direction. Intercepts are free. Default 0.01, of lars 0. --l2 is another thing: part of what is minimised.
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// Shorten a step's mean gradient, penalty included, to this length where it is longer. Default: never; of sgd and lars with --loss gaussian 1.
    #[arg(long, value_name = "LENGTH", allow_negative_numbers = true)]
    pub clip_norm: Option<f64>,
    /// How much of the mean gradient the next step keeps (adam, adamw, lamb). Default 0.9.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub beta1: Option<f64>,
    /// How much of the mean squared gradient the next step keeps (adam, adamw, lamb). Default 0.999.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub beta2: Option<f64>,
    /// Added to the root of that, in units of a typical gradient. Default 1e-8, of lamb 1e-6, of adagrad 1e-10.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub epsilon: Option<f64>,
    /// The model is the running average of the parameters after each step (with --sync-every: each time that lanes meet), of which the next one keeps
    /// this share, such as 0.999. Default: the last parameters.
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    pub average: Option<f64>,
}
