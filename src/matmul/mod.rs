//! # matmul — products of float32 matrices whose bits depend on nothing but the numbers
//!
//! In:    matrices of rows, and weights in [`Panels`].
//! Out:   products of them, written or handed on tile by tile.
//! Talks: never.
//! Never: threads, layers, ranks.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner index, in order, from a start that the caller
//! chooses. So it is the same for any number of rows in the call, in any place of it, for any tiles, threads and instruction set:
//! rows may be cut up as suits the machine, a row is predicted as it was trained on, and ranks may have different
//! processors. BLAS promises none of that (`EXACT` 4.3, 4.4), and is no faster where this was measured (`benches/network.rs`).
//!
//! Source of the tiles: Goto, van de Geijn, *Anatomy of high-performance matrix multiplication*, ACM TOMS 34, 2008; weights are kept in
//! the packed form all the time, so that nothing is packed.

mod inner;
mod outer;
mod panels;

pub use inner::{Start, multiply};
pub use outer::{SLAB_ROWS, add_slab};
pub use panels::{Panels, WIDTH};

/// A run of a row's values: where it begins after the row's start, and how many there are.
///
/// A row of a dense layer is one segment; a row of a convolution is one place of the image, with a segment for each line of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: usize,
    pub len: usize,
}

#[cfg(test)]
mod tests;
