//! Full-batch sums of block results: an i128 an element, three limbs on the wire (`EXACT` 2c).

use super::fixed::{self, LIMBS};
use super::kernels;
use super::scale::{NON_FINITE, ZERO, contribution_bits, exponent_of};

/// Elements whose 128-bit sums stay in the first cache while all contributions pass.
const TILE: usize = 512;

/// Contributions of whole blocks to a vector of sums, full batch (`EXACT` 2c.2: agreed exponents).
///
/// 1. [`push`](Self::push) each block's contribution (f64, len) — in any order;
/// 2. [`exponents`](Self::exponents): per element; the caller MAX-reduces them (i32);
/// 3. [`limbs`](Self::limbs)`(&agreed)`: three u64 an element; the caller SUM-reduces them (wrapping);
/// 4. [`finish`](Self::finish)`(&agreed, &limbs)`: the sums.
///
/// Each contribution is converted once, with the exponent all ranks agreed on: `q = rint(x·2^(S−1−E))`. Error of a sum:
/// at most N·2^(E−S) (about 2^(E−80) at a million blocks), then one rounding to f64.
/// Memory: every pushed contribution is kept, blocks × len × 8 bytes: for short vectors.
#[derive(Clone, Debug)]
pub struct BlockSums {
    contributions: Vec<Vec<f64>>,
    /// Per element: the largest of the bits of |x|.
    peaks: Vec<u64>,
    n_contributions: u64,
}

impl BlockSums {
    /// Sums of vectors of `len` elements. `n_contributions`: blocks over all ranks (or any bound on it that is the
    /// same on all); it fixes S. Not collective.
    pub fn new(len: usize, n_contributions: u64) -> BlockSums {
        BlockSums { contributions: Vec::new(), peaks: vec![0; len], n_contributions }
    }

    /// Keeps one block's contribution. Not collective.
    ///
    /// # Panics
    /// If its length is not `len`, or more than `n_contributions` are pushed.
    pub fn push(&mut self, contribution: Vec<f64>) {
        assert_eq!(contribution.len(), self.peaks.len(), "a contribution has one value for each sum");
        assert!(
            (self.contributions.len() as u64) < self.n_contributions,
            "only {} contributions were announced",
            self.n_contributions
        );
        kernels::raise_peaks(&mut self.peaks, &contribution);
        self.contributions.push(contribution);
    }

    /// Per element the largest exponent among the pushed contributions, |x| < 2^(e+1): [`ZERO`] (i32::MIN) if all are zero or
    /// nothing was pushed, [`NON_FINITE`] (i32::MAX) if one is infinite or NaN. Not collective: MAX-reduce the result.
    pub fn exponents(&self) -> Vec<i32> {
        self.peaks.iter().map(|&peak| exponent_of(f64::from_bits(peak))).collect()
    }

    /// This rank's sum of its contributions at the `agreed` exponents: element j in words 3j, 3j+1, 3j+2.
    /// Not collective: SUM-reduce the result, wrapping; right for up to 2^21 ranks. A non-finite element gives no sum.
    ///
    /// # Panics
    /// If `agreed` is shorter or longer than the sums, or lies below this rank's own exponents.
    pub fn limbs(&self, agreed: &[i32]) -> Vec<u64> {
        assert_eq!(agreed.len(), self.peaks.len(), "one agreed exponent for each sum");
        for (j, (own, &agreed)) in self.exponents().into_iter().zip(agreed).enumerate() {
            assert!(own <= agreed, "element {j} has exponent {own} here but {agreed} was agreed");
        }
        let s = contribution_bits(self.n_contributions);
        let usable: Vec<i32> = agreed.iter().map(|&e| usable(e)).collect();
        let mut words = Vec::with_capacity(LIMBS * agreed.len());
        let (mut low, mut high) = ([0u64; TILE], [0i64; TILE]);
        for start in (0..agreed.len()).step_by(TILE) {
            let tile = start..agreed.len().min(start + TILE);
            let (low, high) = (&mut low[..tile.len()], &mut high[..tile.len()]);
            low.fill(0);
            high.fill(0);
            for contribution in &self.contributions {
                kernels::add_fixed(low, high, &contribution[tile.clone()], &usable[tile.clone()], s);
            }
            words.extend(low.iter().zip(&*high).flat_map(|(&low, &high)| fixed::split(wide(low, high))));
        }
        words
    }

    /// The sums: `limbs` after the reduction, at the `agreed` exponents. +0 where all contributions were zero, NaN where one was
    /// not finite. Not collective.
    ///
    /// # Panics
    /// If the lengths are not those of [`exponents`](Self::exponents) and [`limbs`](Self::limbs).
    pub fn finish(&self, agreed: &[i32], limbs: &[u64]) -> Vec<f64> {
        assert_eq!(agreed.len(), self.peaks.len(), "one agreed exponent for each sum");
        assert_eq!(limbs.len(), LIMBS * agreed.len(), "three limbs for each sum");
        let s = contribution_bits(self.n_contributions);
        let sum = |(limbs, &e): (&[u64], &i32)| match e {
            NON_FINITE => f64::NAN,
            ZERO => 0.0,
            e => finished(fixed::join(limbs), usable(e), s),
        };
        limbs.chunks_exact(LIMBS).zip(agreed).map(sum).collect()
    }
}

/// Contributions to a vector of sums whose exponents are bounded beforehand (`EXACT` 2c.1): integers at once, nothing kept.
///
/// `EXACT` 2c.1 gives the bounds for XᵀX and for gradients with bounded residual. Error of a sum: at most N·2^(E−S), S =
/// min(100, 125 − ⌈log2 N⌉), then one rounding to f64. Memory: 20 bytes an element.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundedSums {
    exponents: Vec<i32>,
    low: Vec<u64>,
    high: Vec<i64>,
    beyond: u64,
    added: u64,
    n_contributions: u64,
}

impl BoundedSums {
    /// `exponents[j]`: `|contribution[j]| < 2^(exponents[j]+1)` for each of `n_contributions` (over all ranks). Not collective.
    ///
    /// Exponents above 1023 mean 1023 (any finite double fits), below −1074 mean −1074. The same on all ranks.
    pub fn new(exponents: Vec<i32>, n_contributions: u64) -> BoundedSums {
        let len = exponents.len();
        let exponents = exponents.into_iter().map(usable).collect();
        BoundedSums { exponents, low: vec![0; len], high: vec![0; len], beyond: 0, added: 0, n_contributions }
    }

    /// Adds one block's contribution (len). What is beyond its bound (too large, infinite, NaN) is counted and left out.
    /// Not collective.
    ///
    /// # Panics
    /// If its length is not that of the exponents, or more than `n_contributions` are added.
    pub fn add(&mut self, contribution: &[f64]) {
        assert_eq!(contribution.len(), self.exponents.len(), "a contribution has one value for each sum");
        self.count(1);
        let s = contribution_bits(self.n_contributions);
        let beyond = kernels::add_fixed(&mut self.low, &mut self.high, contribution, &self.exponents, s);
        self.beyond = self.beyond.wrapping_add(beyond);
    }

    /// Adds one block's contribution, 0 but for these elements: element and value, no element twice. As [`add`](Self::add).
    ///
    /// # Panics
    /// If there is no such element, or more than `n_contributions` are added.
    pub fn add_sparse(&mut self, contribution: &[(usize, f64)]) {
        self.count(1);
        let s = contribution_bits(self.n_contributions);
        for &(j, x) in contribution {
            let beyond = kernels::add_fixed_one(&mut self.low[j], &mut self.high[j], x, self.exponents[j], s);
            self.beyond = self.beyond.wrapping_add(beyond);
        }
    }

    /// Adds the contributions of another partial sum (another thread's). Not collective.
    ///
    /// # Panics
    /// If the other was made with other exponents or another `n_contributions`.
    pub fn merge(&mut self, other: &BoundedSums) {
        assert!(self.exponents == other.exponents, "only sums at the same exponents can be merged");
        assert_eq!(self.n_contributions, other.n_contributions, "only sums of the same width can be merged");
        self.count(other.added);
        for j in 0..self.low.len() {
            let sum = wide(self.low[j], self.high[j]).wrapping_add(wide(other.low[j], other.high[j]));
            (self.low[j], self.high[j]) = (sum as u64, (sum >> 64) as i64);
        }
        self.beyond = self.beyond.wrapping_add(other.beyond);
    }

    /// Three limbs an element (element j in words 3j, 3j+1, 3j+2), then the count of contributions beyond their bound.
    /// Not collective: SUM-reduce the result, wrapping; right for up to 2^21 ranks.
    pub fn to_words(&self) -> Vec<u64> {
        let limbs = self.low.iter().zip(&self.high).flat_map(|(&low, &high)| fixed::split(wide(low, high)));
        limbs.chain([self.beyond]).collect()
    }

    /// The sums, from the reduced words; None if any contribution of any rank was beyond its bound. Not collective.
    ///
    /// # Panics
    /// If `words` has not the length of [`to_words`](Self::to_words).
    pub fn finish(&self, words: &[u64]) -> Option<Vec<f64>> {
        assert_eq!(words.len(), LIMBS * self.exponents.len() + 1, "three limbs for each sum, and the count");
        let s = contribution_bits(self.n_contributions);
        let limbs = words.chunks_exact(LIMBS).zip(&self.exponents);
        (words[words.len() - 1] == 0).then(|| limbs.map(|(limbs, &e)| finished(fixed::join(limbs), e, s)).collect())
    }

    fn count(&mut self, contributions: u64) {
        self.added += contributions;
        assert!(self.added <= self.n_contributions, "only {} contributions were announced", self.n_contributions);
    }
}

/// Exponents that a finite double can have: what lies outside means "any finite" above and "only zero" below.
fn usable(exponent: i32) -> i32 {
    exponent.clamp(-1074, 1023)
}

fn wide(low: u64, high: i64) -> i128 {
    (i128::from(high) << 64) | i128::from(low)
}

/// The float of an integer at exponent e: q·2^(e+1−s).
fn finished(q: i128, exponent: i32, s: i32) -> f64 {
    fixed::to_f64(q < 0, q.unsigned_abs(), exponent + 1 - s)
}
