//! # matmul — products of float32 matrices whose bits depend on nothing but the numbers
//!
//! In:    matrices of rows, and weights in [`Panels`].
//! Out:   products of them.
//! Talks: never.
//! Never: threads, layers, ranks.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner index, in order, from a start that the caller
//! chooses. So it is the same for any number of rows in the call, in any place of it, for any tiles, threads and instruction set:
//! rows may be cut up as suits the machine, a row is predicted as it was trained on, and ranks may have different
//! processors. BLAS promises none of that (`EXACT` 4.3, 4.4), and is no faster where this was measured (`benches/network.rs`).
//!
//! Weights may be numbers of 16 bits (bfloat16, [`Weights::Narrow`]), which are widened to float32 once for all rows of a call, on their way to the same
//! chain: a product of two of them is exact, so the bits do not depend on the processor here either. Instructions for bfloat16 are left out. VDPBF16PS is
//! two steps of this chain, the odd element of a pair first, but flushes denormals, and does about 0.6 times as much as float32 (one core of a Xeon with
//! AVX512-BF16; widening in registers does as much as float32). AMX would be several times faster, but adds in an order of its own; it was not tried.
//! Libraries (oneDNN) add in orders that depend on shapes and caches.
//!
//! Source of the tiles: Goto, van de Geijn, *Anatomy of high-performance matrix multiplication*, ACM TOMS 34, 2008; weights are kept in
//! the packed form all the time, and begin a line of cache where widths allow ([`Aligned`]). Rows are packed once for all the panels that they meet.

mod inner;
mod narrow;
mod outer;
mod packed;
mod panels;
mod vectors;

pub use inner::{Start, multiply, multiply_packed};
pub use narrow::{Weights, round, round_all, round_between, round_in_place, widen};
pub use outer::{SLAB_ROWS, add_packed_slab, add_slab};
pub use packed::{Aligned, Segment, pack, packed_len, zeros};
pub use panels::{Panels, WIDTH};

#[cfg(test)]
mod tests;
