//! # train — everything put together: tables, models, objectives, solvers and ranks
//!
//! In:    a [`Communicator`](crate::comm::Communicator), input files, a checked config.
//! Out:   a [`Model`] and a [`TrainReport`], the same on every rank.
//! Talks: yes; the only room that combines ranks with data and models.
//! Never: flags, printing (an [`Observer`] does that), file names other than the inputs'.

mod binning;
pub mod boosting;
pub mod calibrate;
mod categories;
pub mod checkpoint;
pub mod coordinate_descent;
pub mod data_parallel;
pub mod dense;
mod early_stop;
pub mod ensemble;
pub mod evaluate;
mod every_step;
pub mod forest;
pub mod full_batch;
mod gather;
mod lanes;
pub mod lbfgs;
mod learning_rate;
pub mod least_squares;
pub mod linear_family;
mod local_sgd;
pub mod measure;
pub mod memory;
mod network;
pub mod newton;
pub mod order;
mod outcome;
pub mod outer;
pub mod permutation;
mod post_local;
pub mod prepare;
pub mod score;
pub mod second_order;
mod sparse_scale;
#[cfg(test)]
mod sparse_tests;
pub mod stream;
pub mod sums;
pub mod table;
mod target;
#[cfg(test)]
mod target_tests;
#[cfg(test)]
mod test_tables;
#[cfg(test)]
mod tree_tables;
pub mod tsqr;
pub mod warm_start;

pub use crate::config::{Calibrate, ClassWeight, Kind, Missing, Schedule, Solver, Sync, TrainConfig};
pub use crate::data::names::{Inputs, Reading};
pub use crate::model::Model;
pub use checkpoint::{CheckpointConfig, Every, Keeper, Resume};
pub use linear_family::{train, train_from};

use crate::comm::Traffic;
use crate::metric::Metrics;
use std::path::Path;

/// One step as seen by a person: global numbers, the same on every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Iterations or steps done.
    pub step: u64,
    pub of_steps: u64,
    /// Mean weighted loss with penalty; NaN where there is none.
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
    /// Training goes on after this step, whose state was in a folder.
    fn resumed(&mut self, _step: u64, _folder: &Path) {}
    /// Where this part of the training keeps its state. By default nowhere.
    fn keeper(&self) -> Keeper {
        Keeper::default()
    }
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
    /// Metrics of the rows that `valid_fraction` held out; else none.
    pub valid: Metrics,
    /// Of a forest: metrics of training rows by the trees that did not draw them, if they were asked for.
    pub oob: Metrics,
    pub traffic: Traffic,
    /// Where rows were read for every pass; None: they were held in memory.
    pub streamed: Option<Streamed>,
    /// Zeros were not stored: features were divided by their scale, not centred.
    pub is_sparse: bool,
    /// Datasets that were read through the HDF5 library, one thread at a time, and why.
    pub through_library: Vec<(String, String)>,
    /// Of an ensemble.
    pub ensemble: Option<ensemble::EnsembleReport>,
}

/// Reading rows for every pass, after the table was prepared; of this rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Streamed {
    /// Seconds of reading and decoding; the mean over threads where each reads for itself.
    pub read_s: f64,
    /// Seconds of these that nobody worked on other rows; a thread that reads for itself does not.
    pub wait_s: f64,
    /// Rows times passes.
    pub rows: u64,
}
