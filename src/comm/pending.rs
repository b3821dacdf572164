//! A reduction under way, while the rank computes.

use std::marker::PhantomData;
use std::time::Instant;

use super::call::Call;
use super::transport::PendingReduce;
use super::{Communicator, Element};
use crate::error::{Error, Result};

/// A started reduction that owns its buffer until `wait`. Dropped without `wait`, it still
/// finishes first: peers never wait for a message that was forgotten.
#[must_use = "the sums come out of wait()"]
pub struct Pending<'comm, T> {
    comm: &'comm Communicator,
    /// That started it.
    call: Call,
    started: Box<dyn PendingReduce>,
    element: PhantomData<T>,
}

impl<'comm, T: Element> Pending<'comm, T> {
    pub(super) fn new(comm: &'comm Communicator, call: Call, started: Box<dyn PendingReduce>) -> Pending<'comm, T> {
        Pending { comm, call, started, element: PhantomData }
    }

    /// Moves the reduction on: MPI libraries do so only while they are called. Does not wait. Not collective.
    pub fn progress(&mut self) -> Result<()> {
        self.started.progress().map(|_| ())
    }

    /// The sums over all ranks, or this rank's part of them; or what was gathered. Not collective: each rank waits when it likes.
    pub fn wait(self) -> Result<Vec<T>> {
        let since = Instant::now();
        let _entered = self.comm.progress.enter(self.call);
        let sums = self.started.wait()?;
        self.comm.ledger.borrow_mut().add(self.call.kind, 0, 0, since);
        T::from_owned(sums).ok_or_else(other_type)
    }

    /// As [`wait`](Self::wait), but what comes may have values of no use after it; and the buffer that was sent, whose values are of no use either, or an
    /// empty one: for who starts the same again and again. Not collective.
    pub fn wait_with_buffers(self) -> Result<[Vec<T>; 2]> {
        let since = Instant::now();
        let _entered = self.comm.progress.enter(self.call);
        let [came, sent] = self.started.wait_with_buffers()?;
        self.comm.ledger.borrow_mut().add(self.call.kind, 0, 0, since);
        Ok([T::from_owned(came).ok_or_else(other_type)?, T::from_owned(sent).ok_or_else(other_type)?])
    }
}

fn other_type() -> Error {
    Error::internal("a started reduction came back with another type")
}
