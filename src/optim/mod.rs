//! # optim — from a gradient to new parameters
//!
//! In:    a mean gradient, from [`train`](crate::train); the same on every rank.
//! Out:   changed parameters, the same on every rank.
//! Talks: never.
//! Never: ranks, rows, losses.
//!
//! Everything here goes element by element in plain loops, so a slice of the parameters may be stepped alone.

mod adam;
mod schedule;
mod sgd;

pub use adam::Adam;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::error::{Error, Result};

/// A rule that turns gradients into steps, with what it remembers from step to step.
pub trait Optimizer: Send {
    /// Changes `params` by one step. Not collective; does not allocate.
    ///
    /// * `learning_rate`: of this step, the [`Schedule`]'s factor included.
    /// * `grad`, `params`: equally long, as at construction. The gradient is of the mean loss, penalty included.
    ///
    /// # Panics
    /// If a length is not that of construction.
    fn step(&mut self, learning_rate: f64, grad: &[f64], params: &mut [f64]);

    /// What a checkpoint must hold to go on with the same bits: named arrays. Not collective.
    fn state(&self) -> Vec<(&'static str, &[f64])>;

    /// Takes up the arrays of [`state`](Self::state). Not collective.
    ///
    /// # Errors
    /// Data: an array is absent or of another length. Then nothing has changed.
    fn restore(&mut self, state: &[(&str, &[f64])]) -> Result<()>;
}

/// The array `name` of a checkpoint, which must hold `len` numbers.
fn array<'a>(state: &[(&str, &'a [f64])], name: &str, len: usize) -> Result<&'a [f64]> {
    let found = state.iter().find(|(given, _)| *given == name);
    let (_, values) = found.ok_or_else(|| Error::data(format!("the optimiser's state has no array '{name}'")))?;
    if values.len() != len {
        let found = values.len();
        return Err(Error::data(format!("the optimiser's '{name}' has {found} numbers but {len} were expected")));
    }
    Ok(values)
}
