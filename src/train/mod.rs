//! # train — everything put together: tables, models, objectives, solvers and ranks
//!
//! In:    a [`Communicator`](crate::comm::Communicator), input files, a checked config.
//! Out:   a [`Model`] and a [`TrainReport`], the same on every rank.
//! Talks: yes; the only room that combines ranks with data and models.
//! Never: flags, printing (an [`Observer`] does that), file names other than the inputs'.

pub mod config;
pub mod coordinate_descent;
pub mod data_parallel;
pub mod dense;
pub mod evaluate;
pub mod full_batch;
mod lanes;
pub mod lbfgs;
mod learning_rate;
pub mod least_squares;
pub mod linear_family;
mod local_sgd;
pub mod newton;
pub mod outer;
pub mod prepare;
pub mod score;
pub mod second_order;
pub mod sums;
pub mod table;
#[cfg(test)]
mod test_tables;
pub mod tsqr;

pub use crate::optim::Schedule;
pub use linear_family::train;

use crate::comm::Traffic;
use crate::data::names::TableNames;
use crate::model::{LinearModel, Missing, Preprocess, TargetCoding};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Linear,
    Logistic,
    Svm,
    Poisson,
}

/// How it is trained. `Auto` is resolved by the config's check, before training, and never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    #[default]
    Auto,
    /// Exact normal equations and Cholesky; falls back to `Qr` when they are ill-conditioned (linear only).
    Cholesky,
    /// Tall-skinny QR over blocks (linear only).
    Qr,
    /// Coordinate descent on the exact Gram matrix: lasso and elastic net (linear only).
    Cd,
    Newton,
    /// With `l1` > 0: OWL-QN.
    Lbfgs,
    Sgd,
    Adam,
}

/// How often mini-batch lanes are brought together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Gradients are summed every step.
    #[default]
    Step,
    /// Local SGD: parameters are averaged every so many steps.
    Every(u64),
    /// Parameters are averaged once, at the end.
    Once,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeight {
    #[default]
    None,
    /// Every class gets the same total weight.
    Balanced,
}

/// Settings of the linear family. Every field can change the answer and is stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    pub kind: Kind,
    pub solver: Solver,
    /// λ₁‖w‖₁ is added to the mean weighted loss, w on standardised features. Default 0.
    pub l1: f64,
    /// λ₂/2‖w‖² is added to the mean weighted loss. Default 3e-4.
    pub l2: f64,
    /// Stop when the gradient is this much smaller than at the start (largest element); 0 never stops early. Default 1e-5.
    pub tolerance: f64,
    /// Iterations of full-batch solvers. Default 1000.
    pub max_iterations: u64,
    /// Passes of mini-batch solvers. Default 10.
    pub epochs: u64,
    /// Of mini-batch solvers. None: measured on the first rows, see `learning_rate.rs`; 0.1 for sgd and 0.01 for adam on
    /// uncorrelated features with unit curvature.
    pub learning_rate: Option<f64>,
    pub schedule: Schedule,
    /// Rows per step over all lanes. Default 1024.
    pub global_batch: u64,
    /// Lanes; None: the default rule.
    pub lanes: Option<u64>,
    /// SGD momentum. Default 0.9.
    pub momentum: f64,
    /// Nesterov's look-ahead. Default true.
    pub nesterov: bool,
    pub sync: Sync,
    pub missing: Missing,
    pub class_weight: ClassWeight,
    /// Cross-validation folds; 0: none.
    pub folds: u64,
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig {
            kind: Kind::Logistic,
            solver: Solver::Auto,
            l1: 0.0,
            l2: 3e-4,
            tolerance: 1e-5,
            max_iterations: 1000,
            epochs: 10,
            learning_rate: None,
            schedule: Schedule::Cosine,
            global_batch: 1024,
            lanes: None,
            momentum: 0.9,
            nesterov: true,
            sync: Sync::Step,
            missing: Missing::Mean,
            class_weight: ClassWeight::None,
            folds: 0,
            seed: 0,
        }
    }
}

/// Which rows to train on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    pub paths: Vec<PathBuf>,
    pub names: TableNames,
}

/// A trained model with everything needed to predict; the same bits on every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub config: TrainConfig,
    /// As resolved (relative to the group), so that other files are read alike.
    pub names: TableNames,
    pub preprocess: Preprocess,
    pub target: TargetCoding,
    pub linear: LinearModel,
    /// Per iteration or epoch: (name, values); names `loss`, `gradient`.
    pub history: Vec<(String, Vec<f64>)>,
    /// BLAKE3 of parameters, settings and input values, as 64 hex digits.
    pub digest: String,
    /// Of the inputs alone, 64 hex digits.
    pub input_digest: String,
    pub n_rows: u64,
}

/// One step as seen by a person: global numbers, the same on every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Iterations or steps done.
    pub step: u64,
    pub of_steps: u64,
    /// Mean weighted loss with penalty.
    pub loss: f64,
    /// Largest element of the gradient relative to the start; full batch only.
    pub gradient: Option<f64>,
    pub learning_rate: Option<f64>,
}

/// Told of progress; prints on the root.
pub trait Observer {
    fn progress(&mut self, progress: &Progress);
    /// One line for the person, such as a constant column.
    fn warning(&mut self, message: &str);
}

/// An observer that listens to nothing.
pub struct Silent;
impl Observer for Silent {
    fn progress(&mut self, _: &Progress) {}
    fn warning(&mut self, _: &str) {}
}

/// What a training cost and how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainReport {
    pub rows: u64,
    pub features: usize,
    pub read_s: f64,
    pub train_s: f64,
    /// Median seconds per iteration or epoch.
    pub epoch_s: f64,
    pub iterations: u64,
    pub converged: bool,
    /// The value the stop test looked at last.
    pub stop_value: f64,
    pub loss: f64,
    /// Metrics per fold and their mean, when folds were asked for: (name, values by fold).
    pub folds: Vec<(String, Vec<f64>)>,
    pub traffic: Traffic,
}
