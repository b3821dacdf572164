//! Post-local SGD: gradients are summed every step for some epochs, then lanes go on alone.

use super::data_parallel::{Job, Together};
use super::lanes::Lane;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// One way of bringing lanes together, and another one from an epoch on. Which of them it is hangs on the epoch alone, so a checkpoint is always of the way
/// of its step.
///
/// Source: Lin, Stich, Patel, Jaggi, *Don't use large mini-batches, use local SGD*, ICLR 2020.
pub(super) struct PostLocal<T, A, F> {
    way: Way<T, A>,
    /// Epochs of the first way.
    after: u64,
    /// Makes the second of the first.
    part: F,
}

/// The way that lanes go, or what is kept of it.
#[derive(Serialize, Deserialize)]
pub(super) enum Way<T, A> {
    Together(T),
    Apart(A),
}

impl<T, A, F: Fn(&T, &Job<'_, '_>) -> Result<A>> PostLocal<T, A, F> {
    /// * `after`: epochs of `together`.
    /// * `part`: what lanes go on with, from what is there after these.
    pub fn new(together: T, after: u64, part: F) -> PostLocal<T, A, F> {
        PostLocal { way: Way::Together(together), after, part }
    }
}

/// The same call, whichever way it is.
macro_rules! either {
    ($way:expr, $of:ident => $call:expr) => {
        match $way {
            Way::Together($of) => $call,
            Way::Apart($of) => $call,
        }
    };
}

impl<T: Together, A: Together, F: Fn(&T, &Job<'_, '_>) -> Result<A>> Together for PostLocal<T, A, F> {
    type Common = Way<T::Common, A::Common>;

    fn common(&mut self, comm: &Communicator) -> Result<Self::Common> {
        Ok(match &mut self.way {
            Way::Together(together) => Way::Together(together.common(comm)?),
            Way::Apart(apart) => Way::Apart(apart.common(comm)?),
        })
    }

    fn n_of_lane(&self) -> usize {
        either!(&self.way, way => way.n_of_lane())
    }

    fn of_lane(&mut self, place: usize) -> Vec<f64> {
        either!(&mut self.way, way => way.of_lane(place))
    }

    fn enter_epoch(&mut self, job: &Job<'_, '_>, epoch: u64) -> Result<()> {
        if let Way::Together(together) = &self.way
            && epoch >= self.after
        {
            self.way = Way::Apart((self.part)(together, job)?);
        }
        Ok(())
    }

    fn take_up(&mut self, common: Self::Common, of_lanes: &[Vec<f64>]) -> Result<()> {
        match (&mut self.way, common) {
            (Way::Together(together), Way::Together(common)) => together.take_up(common, of_lanes),
            (Way::Apart(apart), Way::Apart(common)) => apart.take_up(common, of_lanes),
            _ => Err(Error::data("the checkpoint is of an epoch before lanes were alone, or after")),
        }
    }

    fn step(
        &mut self,
        comm: &Communicator,
        job: &Job<'_, '_>,
        lanes: &mut [Lane],
        step: u64,
        of_pool: usize,
        weight: f64,
    ) -> Result<()> {
        either!(&mut self.way, way => way.step(comm, job, lanes, step, of_pool, weight))
    }

    fn check(&self, comm: &Communicator, job: &Job<'_, '_>, step: u64) -> Result<()> {
        either!(&self.way, way => way.check(comm, job, step))
    }

    fn end_epoch(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<f64> {
        either!(&mut self.way, way => way.end_epoch(comm, job))
    }

    fn held_out(&self, comm: &Communicator, job: &Job<'_, '_>, params: &[f64]) -> Result<Option<f64>> {
        either!(&self.way, way => way.held_out(comm, job, params))
    }

    fn so_far(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        either!(&mut self.way, way => way.so_far(comm, job))
    }

    fn finish(self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        either!(self.way, way => way.finish(comm, job))
    }
}
