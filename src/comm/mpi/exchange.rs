//! Collectives as messages between every two ranks.

use std::ops::Range;
use std::os::raw::c_int;

use mpi::ffi;

use super::super::MAX_TAG;
use super::check;
use super::datatype::{Raw, count, no_request};
use crate::error::Result;

/// Parts that are added up, and parts that are gathered; messages of one kind are taken in the order of their calls, which is the same on all ranks.
pub(super) const SUMS_TAG: u32 = MAX_TAG + 2;
pub(super) const GATHER_TAG: u32 = MAX_TAG + 3;

/// Where the part of each rank is, and of how many elements.
pub(super) struct Parts<P> {
    pub buffer: Raw<P>,
    pub of_ranks: Vec<Range<usize>>,
}

/// Starts a receive from and a send to every other rank; the requests are added to `requests`, also those before one that fails.
///
/// # Safety
/// The parts lie inside their buffers; those received do not overlap each other, nor what is sent. The buffers are there, and nobody else uses what is
/// received or changes what is sent, until the requests are done.
pub(super) unsafe fn post(
    send: &Parts<*const u8>,
    receive: &Parts<*mut u8>,
    (rank, tag): (usize, u32),
    comm: ffi::MPI_Comm,
    requests: &mut Vec<ffi::MPI_Request>,
) -> Result<()> {
    let size = send.of_ranks.len();
    // Everybody begins with another one, and room is there before anything comes.
    let others = |step: usize| (rank + step) % size;
    for from in (1..size).rev().map(others) {
        let part = &receive.of_ranks[from];
        let (to, n, kind) = (receive.buffer, count(part.len()), receive.buffer.datatype);
        let mut request = no_request();
        // SAFETY: the caller's promise.
        let code = unsafe {
            let at = to.at.add(part.start * to.bytes).cast();
            ffi::MPI_Irecv(at, n, kind, count(from), tag as c_int, comm, &mut request)
        };
        check(code, "MPI_Irecv")?;
        requests.push(request);
    }
    for to in (1..size).map(others) {
        let part = &send.of_ranks[to];
        let (from, n, kind) = (send.buffer, count(part.len()), send.buffer.datatype);
        let mut request = no_request();
        // SAFETY: the caller's promise.
        let code = unsafe {
            let at = from.at.add(part.start * from.bytes).cast();
            ffi::MPI_Isend(at, n, kind, count(to), tag as c_int, comm, &mut request)
        };
        check(code, "MPI_Isend")?;
        requests.push(request);
    }
    Ok(())
}

/// Waits for all requests; the first error, if any.
///
/// # Safety
/// Their buffers are there.
pub(super) unsafe fn wait(requests: impl IntoIterator<Item = ffi::MPI_Request>) -> Result<()> {
    let mut first = Ok(());
    for mut request in requests {
        // SAFETY: each request came from MPI, or is null after it was done, and is waited for once; the caller's promise.
        let done = check(unsafe { ffi::MPI_Wait(&mut request, ffi::RSMPI_STATUS_IGNORE) }, "MPI_Wait");
        first = first.and(done);
    }
    first
}
