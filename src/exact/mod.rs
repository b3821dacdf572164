//! # exact — sums that do not depend on who adds first
//!
//! In:    contributions: what one block, lane or row adds, as floats.
//! Out:   integers that may be added in any order, and the floats they stand for.
//! Talks: never; [`comm`](crate::comm) adds the integers.
//! Never: ranks, files, models.
//!
//! A contribution becomes an integer **once**, at a power-of-two scale that every rank knows; from there on only
//! integers are added, modulo 2^W, which is commutative and associative. So blocks, threads, ranks and the shape of the
//! reduction leave no trace in the result. The four ways to know the scale (`EXACT` 2) are the four sums of this room:
//!
//! | sum | scale | keeps | words an element | error of the sum |
//! |---|---|---|---|---|
//! | [`ExactSum`] | none needed | 132 limbs | 133 in all | rounded once, ties to even |
//! | [`BlockSums`] | agreed after the pass | all contributions | 3 × u64 | ≤ N·2^(E−S), then one rounding |
//! | [`BoundedSums`] | bound known beforehand | one i128 an element | 3 × u64 | ≤ N·2^(E−S), then one rounding |
//! | [`LaneSums`] | predicted by [`ScaleWindow`], judged, redone | one word an element | 1 × u32 or u64 | ≤ L·2^(Ê−b), then one rounding |
//!
//! N contributions (blocks), L lanes, S = min(100, 125 − ⌈log2 N⌉), b = W − 1 − ⌈log2 L⌉. Nothing here is collective.

mod blocks;
mod fixed;
mod kernels;
mod lanes;
mod narrow;
pub mod scale;
mod sum;
mod width;
mod window;

pub use blocks::{BlockSums, BoundedSums};
pub use lanes::{Groups, LaneGrid, LaneSums, Verdict, judge};
pub use narrow::NarrowGrid;
pub use sum::ExactSum;
pub use width::Width;
pub use window::ScaleWindow;

#[cfg(test)]
mod tests;
