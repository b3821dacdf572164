//! # optim — from a gradient to new parameters
//!
//! In:    a mean gradient, from [`train`](crate::train); the same on every rank.
//! Out:   changed parameters, the same on every rank.
//! Talks: never.
//! Never: ranks, rows, losses.
//!
//! Steps go element by element in plain loops, so a slice of the parameters may be stepped alone: [`Pieces`] of them, by several threads or
//! ranks. Those of [`Lamb`] and [`Lars`] also look at the length of each tensor, which is added up in one fixed order.
//! All is for f64 and for f32 ([`Real`]): f32 is only how numbers are kept.

mod adagrad;
mod adam;
mod average;
mod lamb;
mod lars;
mod moments;
mod norm;
mod pieces;
mod real;
mod schedule;
mod sgd;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use average::Average;
pub use lamb::Lamb;
pub use lars::{Lars, TRUST};
pub use norm::{RUN, add_squares, clip, length, multiply, norm, shorten};
pub use pieces::{Pieces, cut};
pub use real::Real;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::error::{Error, Result};
use std::ops::Range;

/// A run of parameters that belong together, such as the weights of a score or of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub len: usize,
    /// Neither decays nor has its own length looked at: intercepts, biases.
    pub is_free: bool,
}

impl Tensor {
    /// Weights.
    pub const fn new(len: usize) -> Tensor {
        Tensor { len, is_free: false }
    }

    /// Intercepts.
    pub const fn free(len: usize) -> Tensor {
        Tensor { len, is_free: true }
    }
}

/// Calls `visit` with the place of each tensor among all parameters, and whether it is free.
fn each_tensor(tensors: &[Tensor], mut visit: impl FnMut(Range<usize>, bool)) {
    let mut first = 0;
    for tensor in tensors {
        visit(first..first + tensor.len, tensor.is_free);
        first += tensor.len;
    }
}

/// Parameters that are asked for before their turn comes.
const AHEAD: usize = 512;

/// A step of other parameters than at construction is our own mistake.
fn check_params<F>(n_params: usize, grad: &[F], params: &[F]) {
    assert_eq!((grad.len(), params.len()), (n_params, n_params), "one number a parameter");
}

/// A rule that turns gradients into steps, with what it remembers from step to step.
pub trait Optimizer<F: Real = f64>: Send {
    /// Changes `params` by one step. Not collective; does not allocate.
    ///
    /// * `learning_rate`: of this step, the [`Schedule`]'s factor included.
    /// * `grad`, `params`: equally long, as at construction. The gradient is of the mean loss, penalty included.
    ///
    /// # Panics
    /// If a length is not that of construction.
    fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]);

    /// What a checkpoint must hold to go on with the same bits: named arrays. Not collective.
    fn state(&self) -> Vec<(&'static str, &[F])>;

    /// The same to be written to. Not collective.
    fn state_mut(&mut self) -> Vec<(&'static str, &mut [F])>;

    /// Takes up the arrays of [`state`](Self::state). Not collective.
    ///
    /// # Errors
    /// Data: an array is absent or of another length. Then nothing has changed.
    fn restore(&mut self, state: &[(&str, &[F])]) -> Result<()> {
        let own = self.state_mut();
        let given = own.iter().map(|(name, own)| array(state, name, own.len())).collect::<Result<Vec<_>>>()?;
        own.into_iter().zip(given).for_each(|((_, own), given)| own.copy_from_slice(given));
        Ok(())
    }
}

/// The array `name` of a checkpoint, which must hold `len` numbers.
fn array<'a, F>(state: &[(&str, &'a [F])], name: &str, len: usize) -> Result<&'a [F]> {
    let found = state.iter().find(|(given, _)| *given == name);
    let (_, values) = found.ok_or_else(|| Error::data(format!("the optimiser's state has no array '{name}'")))?;
    if values.len() != len {
        let found = values.len();
        return Err(Error::data(format!("the optimiser's '{name}' has {found} numbers but {len} were expected")));
    }
    Ok(values)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod testing {
    use super::*;

    /// What an optimiser of three parameters does after its state was taken up by another one; states that do not fit are refused.
    pub fn goes_on<F: Real>(make: impl Fn(usize) -> Box<dyn Optimizer<F>>) {
        let real = |values: [f64; 3]| values.map(F::from_f64);
        let mut whole = make(3);
        let mut params = real([0.3, -0.7, 2.0]);
        for step in 0..3 {
            whole.step(0.1, &real([1.0, 2.0, 0.1 * f64::from(step)]), &mut params);
        }
        let mut again = make(3);
        again.restore(&whole.state()).unwrap();
        let mut copy = params;
        for step in 0..3 {
            let grad = real([-0.3, 0.1 * f64::from(step), 5.0]);
            whole.step(0.1, &grad, &mut params);
            again.step(0.1, &grad, &mut copy);
            assert_eq!(params, copy);
        }
        let mut fresh = make(3);
        let mut other = params;
        fresh.step(0.1, &real([-0.3, 0.1, 5.0]), &mut params);
        whole.step(0.1, &real([-0.3, 0.1, 5.0]), &mut other);
        assert_ne!(params, other, "the state matters");
        assert!(make(2).restore(&whole.state()).is_err());
        assert!(whole.restore(&[]).is_err());
    }
}
