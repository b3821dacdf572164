//! Reductions under way: their buffers may neither move nor go until MPI is done with them.

use std::ops::Range;
use std::os::raw::c_int;

use mpi::ffi;

use super::super::transport::{ElementType, OwnedSlice, PendingReduce, ReduceOp};
use super::datatype::{count, no_request, operator, ranges, raw, raw_mut, segments, starts};
use super::exchange::{self, Parts, SUMS_TAG};
use super::{SEGMENT_BYTES, check, is_running};
use crate::error::Result;

/// A reduction with all that MPI reads and writes.
pub(super) struct Started {
    sent: OwnedSlice,
    received: OwnedSlice,
    /// Elements from each rank, and where they begin.
    places: [Vec<c_int>; 2],
    /// Of a reduce-scatter: what of `sent` is to be combined with what is received, which is as much from each other rank.
    own: Option<Range<usize>>,
    op: ReduceOp,
    requests: Vec<ffi::MPI_Request>,
}

impl Started {
    fn new(sent: OwnedSlice, received: OwnedSlice, places: [Vec<c_int>; 2], op: ReduceOp) -> Box<Started> {
        Box::new(Started { sent, received, places, own: None, op, requests: Vec::new() })
    }

    pub(super) fn all_reduce(buf: OwnedSlice, op: ReduceOp, comm: ffi::MPI_Comm) -> Result<Box<Started>> {
        let mut started = Started::new(buf.clone(), buf, Default::default(), op);
        let from = raw(started.sent.as_slice());
        let to = raw_mut(&mut started.received.as_slice_mut());
        for (first, n) in segments(from.len, from.bytes, SEGMENT_BYTES) {
            let mut request = no_request();
            // SAFETY: `sent` and `received` are two heap allocations of equal length owned by `Started`,
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

    /// Every rank sends every other one its part, and combines what it gets: as many bytes as a reduce-scatter, while the libraries'
    /// own (`MPI_Ireduce_scatter`) sends all to one rank first, and their `MPI_Ialltoallv` takes twice the time within a node.
    ///
    /// * `room`: becomes what is received, of the same type.
    /// * `counts`: Σ counts elements are sent, and `counts[rank]` come from each rank. Equal on all ranks, and far below 2³¹.
    pub(super) fn reduce_scatter(
        send: OwnedSlice,
        room: OwnedSlice,
        counts: &[usize],
        rank: usize,
        op: ReduceOp,
        comm: ffi::MPI_Comm,
    ) -> Result<Box<Started>> {
        let (n, size) = (counts[rank], counts.len());
        assert_eq!(room.element(), send.element(), "room for what is sent");
        let mut started = Started::new(send, room.of_len(n * (size - 1)), Default::default(), op);
        // The first part that comes is where the sum will be.
        let slot = |other: usize| (other + size - rank - 1) % size;
        let of_other = |other: usize| if other == rank { 0..0 } else { slot(other) * n..(slot(other) + 1) * n };
        let parts = ranges(counts);
        started.own = Some(parts[rank].clone());
        let from = Parts { buffer: raw(started.sent.as_slice()), of_ranks: parts };
        let of_ranks = (0..size).map(of_other).collect();
        let to = Parts { buffer: raw_mut(&mut started.received.as_slice_mut()), of_ranks };
        // SAFETY: as above; `Communicator` checked that `sent` holds Σ counts elements, and `received` holds counts[rank] for each other rank.
        unsafe { exchange::post(&from, &to, (rank, SUMS_TAG), comm, &mut started.requests)? };
        Ok(started)
    }

    /// * `counts`: elements from each rank; `send` holds counts[rank]. Equal on all ranks, and together far below 2³¹.
    pub(super) fn all_gather(send: OwnedSlice, counts: &[usize], comm: ffi::MPI_Comm) -> Result<Box<Started>> {
        let as_ints = |values: &[usize]| values.iter().map(|&n| count(n)).collect::<Vec<c_int>>();
        let places = [as_ints(counts), as_ints(&starts(counts))];
        let received = send.element().zeros(counts.iter().sum());
        let mut started = Started::new(send, received, places, ReduceOp::Sum);
        let from = raw(started.sent.as_slice());
        let to = raw_mut(&mut started.received.as_slice_mut());
        let mut request = no_request();
        // SAFETY: as above; `sent` holds counts[rank] elements (asserted by the caller), and `received` Σ counts. Counts and places are
        // owned by `Started` too.
        let code = unsafe {
            let [counts, starts] = started.places.each_ref().map(|places| places.as_ptr());
            let (from_at, to_at, kind) = (from.at.cast(), to.at.cast(), from.datatype);
            ffi::MPI_Iallgatherv(from_at, count(from.len), kind, to_at, counts, starts, kind, comm, &mut request)
        };
        check(code, "MPI_Iallgatherv")?;
        started.requests.push(request);
        Ok(started)
    }

    fn wait_for_parts(&mut self) -> Result<()> {
        self.complete()?;
        if let Some(own) = &self.own {
            self.received.reduce(self.sent.as_slice().part(own.clone()), self.op);
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        // SAFETY: the buffers are alive in self.
        unsafe { exchange::wait(self.requests.drain(..)) }
    }
}

impl PendingReduce for Started {
    fn wait(mut self: Box<Self>) -> Result<OwnedSlice> {
        self.wait_for_parts()?;
        let received = std::mem::replace(&mut self.received, ElementType::U8.empty());
        Ok(match &self.own {
            Some(own) => received.of_len(own.len()),
            None => received,
        })
    }

    fn wait_with_buffers(mut self: Box<Self>) -> Result<[OwnedSlice; 2]> {
        self.wait_for_parts()?;
        Ok([&mut self.received, &mut self.sent].map(|values| std::mem::replace(values, ElementType::U8.empty())))
    }

    fn progress(&mut self) -> Result<bool> {
        let mut is_over = true;
        for request in &mut self.requests {
            let mut done: c_int = 0;
            // SAFETY: as in `complete`; a request that is done becomes the null request, which may be tested and waited for.
            check(unsafe { ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE) }, "MPI_Test")?;
            is_over &= done != 0;
        }
        Ok(is_over)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let ended = self.requests.is_empty() || (is_running() && self.complete().is_ok());
        if !ended {
            // MPI may still write there: better leaked than freed.
            std::mem::forget(std::mem::replace(&mut self.sent, ElementType::U8.empty()));
            std::mem::forget(std::mem::replace(&mut self.received, ElementType::U8.empty()));
            std::mem::forget(std::mem::take(&mut self.places));
        }
    }
}
