//! Reductions under way: their buffers may neither move nor go until MPI is done with them.

use std::os::raw::c_int;

use mpi::ffi;

use super::super::transport::{ElementType, OwnedSlice, PendingReduce, ReduceOp};
use super::{SEGMENT_BYTES, check, count, is_running, no_request, operator, raw, raw_mut, segments};
use crate::error::Result;

/// A reduction with all that MPI reads and writes.
pub(super) struct Started {
    sent: OwnedSlice,
    sums: OwnedSlice,
    /// Of a reduce-scatter: elements of each rank.
    counts: Vec<c_int>,
    requests: Vec<ffi::MPI_Request>,
}

impl Started {
    pub(super) fn all_reduce(buf: OwnedSlice, op: ReduceOp, comm: ffi::MPI_Comm) -> Result<Box<Started>> {
        let mut started = Box::new(Started { sums: buf.clone(), sent: buf, counts: Vec::new(), requests: Vec::new() });
        let from = raw(started.sent.as_slice_mut().as_slice());
        let to = raw_mut(&mut started.sums.as_slice_mut());
        for (first, n) in segments(from.len, from.bytes, SEGMENT_BYTES) {
            let mut request = no_request();
            // SAFETY: `sent` and `sums` are two heap allocations of equal length owned by `Started`,
            // which gives them out or frees them only after all requests are done.
            let code = unsafe {
                let (from_at, to_at) = (from.at.add(first * from.bytes).cast(), to.at.add(first * from.bytes).cast());
                ffi::MPI_Iallreduce(from_at, to_at, count(n), from.datatype, operator(op), comm, &mut request)
            };
            check(code, "MPI_Iallreduce")?;
            started.requests.push(request);
        }
        Ok(started)
    }

    /// * `counts`: Σ counts elements are sent, and `counts[rank]` come back. Equal on all ranks, and far below 2³¹.
    pub(super) fn reduce_scatter(
        send: OwnedSlice,
        counts: &[usize],
        rank: usize,
        op: ReduceOp,
        comm: ffi::MPI_Comm,
    ) -> Result<Box<Started>> {
        let sums = send.element().zeros(counts[rank]);
        let counts = counts.iter().map(|&n| count(n)).collect();
        let mut started = Box::new(Started { sent: send, sums, counts, requests: Vec::new() });
        let from = raw(started.sent.as_slice_mut().as_slice());
        let to = raw_mut(&mut started.sums.as_slice_mut());
        let mut request = no_request();
        // SAFETY: as above; `Communicator` checked that `sent` holds Σ counts elements, and `sums` holds counts[rank]. The counts are
        // owned by `Started` too.
        let code = unsafe {
            let counts = started.counts.as_ptr();
            let (from_at, to_at) = (from.at.cast(), to.at.cast());
            ffi::MPI_Ireduce_scatter(from_at, to_at, counts, from.datatype, operator(op), comm, &mut request)
        };
        check(code, "MPI_Ireduce_scatter")?;
        started.requests.push(request);
        Ok(started)
    }

    fn complete(&mut self) -> Result<()> {
        for mut request in self.requests.drain(..) {
            // SAFETY: the request came from MPI, is waited for once, and its buffers are alive in self.
            check(unsafe { ffi::MPI_Wait(&mut request, ffi::RSMPI_STATUS_IGNORE) }, "MPI_Wait")?;
        }
        Ok(())
    }
}

impl PendingReduce for Started {
    fn wait(mut self: Box<Self>) -> Result<OwnedSlice> {
        self.complete()?;
        Ok(std::mem::replace(&mut self.sums, ElementType::U8.empty()))
    }

    fn progress(&mut self) -> Result<()> {
        for request in &mut self.requests {
            let mut done: c_int = 0;
            // SAFETY: as in `complete`; a request that is done becomes the null request, which may be tested and waited for.
            check(unsafe { ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE) }, "MPI_Test")?;
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let ended = self.requests.is_empty() || (is_running() && self.complete().is_ok());
        if !ended {
            // MPI may still write there: better leaked than freed.
            std::mem::forget(std::mem::replace(&mut self.sent, ElementType::U8.empty()));
            std::mem::forget(std::mem::replace(&mut self.sums, ElementType::U8.empty()));
            std::mem::forget(std::mem::take(&mut self.counts));
        }
    }
}
