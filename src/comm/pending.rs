//! An all-reduce under way, while the rank computes.

use std::marker::PhantomData;
use std::time::Instant;

use super::call::Kind;
use super::transport::PendingReduce;
use super::{Communicator, Element};
use crate::error::{Error, Result};

/// A started all-reduce that owns its buffer until `wait`. Dropped without `wait`, it still
/// finishes first: peers never wait for a message that was forgotten.
#[must_use = "the sums come out of wait()"]
pub struct Pending<'comm, T> {
    comm: &'comm Communicator,
    started: Box<dyn PendingReduce>,
    element: PhantomData<T>,
}

impl<'comm, T: Element> Pending<'comm, T> {
    pub(super) fn new(comm: &'comm Communicator, started: Box<dyn PendingReduce>) -> Pending<'comm, T> {
        Pending { comm, started, element: PhantomData }
    }

    /// The sums over all ranks. Not collective: each rank waits when it likes.
    pub fn wait(self) -> Result<Vec<T>> {
        let since = Instant::now();
        let sums = self.started.wait()?;
        self.comm.ledger.borrow_mut().add(Kind::AllReduce, 0, 0, since);
        T::from_owned(sums).ok_or_else(|| Error::internal("a started all-reduce came back with another type"))
    }
}
