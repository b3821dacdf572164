//! # exact — sums that do not depend on who adds first
//!
//! In:    contributions: what one block, lane or row adds, as floats.
//! Out:   integers that may be added in any order, and the floats they stand for.
//! Talks: never; [`comm`](crate::comm) adds the integers.
//! Never: ranks, files, models.

/// A sum of doubles without any rounding until the end: 68 limbs of 32 payload bits cover every finite double
/// (`EXACT` 2c.4). Adding values and merging sums in any order gives the same `value`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactSum {
    _private: (),
}
impl Default for ExactSum {
    fn default() -> Self {
        ExactSum::new()
    }
}
impl ExactSum {
    /// u64 words on the wire; wrapping addition of words of different ranks merges them.
    pub const WORDS: usize = 70;
    pub fn new() -> ExactSum {
        todo!()
    }
    pub fn add(&mut self, _x: f64) {
        todo!()
    }
    /// Adds the exact product a·b (split in two doubles by Dekker/Veltkamp, no fma).
    pub fn add_product(&mut self, _a: f64, _b: f64) {
        todo!()
    }
    pub fn merge(&mut self, _other: &ExactSum) {
        todo!()
    }
    /// Rounded once, to nearest even. NaN/inf were counted: then `None`.
    pub fn value(&self) -> Option<f64> {
        todo!()
    }
    pub fn to_words(&self) -> [u64; ExactSum::WORDS] {
        todo!()
    }
    pub fn from_words(_words: &[u64]) -> ExactSum {
        todo!()
    }
}

/// Contributions of whole blocks to a vector of sums, full batch (`EXACT` 2c.2: agreed exponents).
///
/// 1. `push` each block's contribution (f64, len) — order free;
/// 2. `exponents()`: per element, the largest exponent seen (i32; i32::MAX = non-finite; i32::MIN = all zero). The caller MAX-reduces it;
/// 3. `limbs(&agreed)`: three u64 limbs an element of the rank's own integer sum. The caller SUM-reduces them;
/// 4. `finish(&agreed, &limbs)`: f64 sums.
pub struct BlockSums {
    _private: (),
}
impl BlockSums {
    /// `n_contributions`: over all ranks, fixes S.
    pub fn new(_len: usize, _n_contributions: u64) -> BlockSums {
        todo!()
    }
    pub fn push(&mut self, _contribution: Vec<f64>) {
        todo!()
    }
    pub fn exponents(&self) -> Vec<i32> {
        todo!()
    }
    pub fn limbs(&self, _agreed: &[i32]) -> Vec<u64> {
        todo!()
    }
    pub fn finish(&self, _agreed: &[i32], _limbs: &[u64]) -> Vec<f64> {
        todo!()
    }
}

/// Contributions to a vector of sums whose exponents are bounded beforehand (`EXACT` 2c.1): integers at once, nothing kept.
#[derive(Clone)]
pub struct BoundedSums {
    _private: (),
}
impl BoundedSums {
    /// `exponents[j]`: |contribution[j]| < 2^(exponents[j]+1) for each of `n_contributions`.
    pub fn new(_exponents: Vec<i32>, _n_contributions: u64) -> BoundedSums {
        todo!()
    }
    /// Counts contributions beyond their bound (saturated, NaN) instead of adding them wrongly.
    pub fn add(&mut self, _contribution: &[f64]) {
        todo!()
    }
    pub fn merge(&mut self, _other: &BoundedSums) {
        todo!()
    }
    /// 3 limbs an element, then the count of contributions beyond their bound.
    pub fn to_words(&self) -> Vec<u64> {
        todo!()
    }
    /// None if any contribution was beyond its bound.
    pub fn finish(&self, _words: &[u64]) -> Option<Vec<f64>> {
        todo!()
    }
}
