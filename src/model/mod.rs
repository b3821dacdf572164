//! # model — inert values that predict
//!
//! In:    raw [`Block`](crate::data::Block)s of rows, or standardised rows.
//! Out:   scores; gradients and curvature of rows, added to a caller's buffer.
//! Talks: never.
//! Never: ranks, files, solvers: a model does not train itself.

pub mod ahead;
pub mod features;
pub mod kernels;
pub mod linear;
pub mod preprocess;

pub use features::{Features, Row};
pub use linear::LinearModel;
pub use preprocess::{ColumnCode, Preprocess, TargetCoding};

use crate::config::TrainConfig;
use crate::data::names::TableNames;

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
