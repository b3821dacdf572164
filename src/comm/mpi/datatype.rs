//! Our slices and operations in MPI's terms: address, count, datatype and operator; and the parts that long ones travel in.

use std::ops::Range;
use std::os::raw::c_int;

use mpi::ffi;

use super::super::transport::{ElementType, ReduceOp, Slice, SliceMut};

pub(super) fn count(elements: usize) -> c_int {
    c_int::try_from(elements).expect("segments are far shorter than 2³¹ elements")
}

pub(super) fn datatype(element: ElementType) -> ffi::MPI_Datatype {
    // SAFETY: reads of constants that the shim library initialises before main; never written.
    unsafe {
        match element {
            ElementType::U8 => ffi::RSMPI_UINT8_T,
            ElementType::I32 => ffi::RSMPI_INT32_T,
            ElementType::U32 => ffi::RSMPI_UINT32_T,
            ElementType::I64 => ffi::RSMPI_INT64_T,
            ElementType::U64 => ffi::RSMPI_UINT64_T,
            ElementType::F32 => ffi::RSMPI_FLOAT,
            ElementType::F64 => ffi::RSMPI_DOUBLE,
        }
    }
}

pub(super) fn operator(op: ReduceOp) -> ffi::MPI_Op {
    // SAFETY: as in `datatype`.
    unsafe {
        match op {
            ReduceOp::Sum => ffi::RSMPI_SUM,
            ReduceOp::Min => ffi::RSMPI_MIN,
            ReduceOp::Max => ffi::RSMPI_MAX,
        }
    }
}

pub(super) fn no_request() -> ffi::MPI_Request {
    // SAFETY: as in `datatype`.
    unsafe { ffi::RSMPI_REQUEST_NULL }
}

/// Address, length, MPI's type and bytes per element of a slice.
#[derive(Clone, Copy)]
pub(super) struct Raw<P> {
    pub at: P,
    pub len: usize,
    pub datatype: ffi::MPI_Datatype,
    pub bytes: usize,
}

macro_rules! address {
    ($slice:expr, $kind:ident, $as_ptr:ident) => {
        match $slice {
            $kind::U8(s) => s.$as_ptr().cast(),
            $kind::I32(s) => s.$as_ptr().cast(),
            $kind::U32(s) => s.$as_ptr().cast(),
            $kind::I64(s) => s.$as_ptr().cast(),
            $kind::U64(s) => s.$as_ptr().cast(),
            $kind::F32(s) => s.$as_ptr().cast(),
            $kind::F64(s) => s.$as_ptr().cast(),
        }
    };
}

pub(super) fn raw(slice: Slice<'_>) -> Raw<*const u8> {
    let (element, len) = (slice.element(), slice.len());
    Raw { at: address!(slice, Slice, as_ptr), len, datatype: datatype(element), bytes: element.bytes() }
}

pub(super) fn raw_mut(slice: &mut SliceMut<'_>) -> Raw<*mut u8> {
    let (element, len) = (slice.as_slice().element(), slice.len());
    Raw { at: address!(slice, SliceMut, as_mut_ptr), len, datatype: datatype(element), bytes: element.bytes() }
}

/// The parts of `len` elements that travel in one message each.
pub(super) fn segments(len: usize, bytes: usize, limit: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = (limit / bytes).max(1);
    (0..len).step_by(step).map(move |first| (first, step.min(len - first)))
}

/// Running totals: where the part of each rank begins.
pub(super) fn starts(counts: &[usize]) -> Vec<usize> {
    let begin = |sum: &mut usize, &n: &usize| {
        *sum += n;
        Some(*sum - n)
    };
    counts.iter().scan(0, begin).collect()
}

/// The part of each rank, one after the other.
pub(super) fn ranges(counts: &[usize]) -> Vec<Range<usize>> {
    starts(counts).into_iter().zip(counts).map(|(start, n)| start..start + n).collect()
}
