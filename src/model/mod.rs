//! # model — inert values that predict
//!
//! In:    raw [`Block`](crate::data::Block)s of rows, or standardised rows.
//! Out:   scores; gradients and curvature of rows, added to a caller's buffer.
//! Talks: never.
//! Never: ranks, files, solvers: a model does not train itself.

pub mod kernels;
pub mod linear;
pub mod preprocess;

pub use linear::LinearModel;
pub use preprocess::{ColumnCode, Missing, Preprocess, TargetCoding};
