//! Mini-batch gradients: lanes as integers at predicted exponents (`EXACT` 2b and 3).

use super::kernels;
use super::scale::{pow2, pow2_f32};
use super::width::Width;
use super::window::LOWEST;
use std::ops::Range;

/// Elements that share an exponent, at most.
const GROUP: usize = 65_536;
/// Peaks from here on are those of infinities and NaN.
pub(super) const NON_FINITE_PEAK: i32 = 0x7f80_0000;
/// Room that a redone step leaves above its peak.
const MARGIN: i32 = 2;

/// Groups of a flat parameter vector: each tensor cut every 65,536 elements; a group shares one exponent.
///
/// Keep tensors of different size of gradient apart (bias from weights): an element is rounded at 2^−17 of its group's peak.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Group g covers bounds[g]..bounds[g + 1].
    bounds: Vec<usize>,
}

impl Groups {
    /// The tensors lie one after the other in the flat vector; empty ones give no group. Not collective.
    pub fn new(tensor_lens: &[usize]) -> Groups {
        let mut bounds = vec![0];
        let mut start = 0;
        for &len in tensor_lens {
            let end = start + len;
            bounds.extend((start + GROUP..end).step_by(GROUP));
            if len > 0 {
                bounds.push(end);
            }
            start = end;
        }
        Groups { bounds }
    }

    /// Groups that end where their maker says: g covers `bounds[g]..bounds[g + 1]`. Not collective.
    ///
    /// # Panics
    /// If they do not rise from 0, or a group has more than 65,536 elements.
    pub fn of_bounds(bounds: Vec<usize>) -> Groups {
        let is_sound = |pair: &[usize]| pair[0] < pair[1] && pair[1] - pair[0] <= GROUP;
        assert!(bounds.first() == Some(&0) && bounds.windows(2).all(is_sound), "bounds of groups rise from 0");
        Groups { bounds }
    }

    /// Number of groups. Not collective.
    pub fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Whether there is no group, hence no element. Not collective.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the flat vector. Not collective.
    pub fn n_elements(&self) -> usize {
        self.bounds[self.len()]
    }

    /// The elements of group g in the flat vector. Not collective.
    pub fn range(&self, g: usize) -> Range<usize> {
        self.bounds[g]..self.bounds[g + 1]
    }

    /// The groups that hold some of these elements. Not collective.
    pub fn touching(&self, elements: Range<usize>) -> Range<usize> {
        let first = self.bounds.partition_point(|bound| *bound <= elements.start).saturating_sub(1);
        first..self.bounds.partition_point(|bound| *bound < elements.end)
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.bounds.windows(2).map(|pair| pair[0]..pair[1])
    }
}

/// E(K) = max((K >> 23) − 127, −96): |g| < 2^(E+1) for all elements of a group whose peak is K.
pub(super) fn peak_exponent(peak: i32) -> i32 {
    ((peak >> 23) - 127).max(LOWEST)
}

/// What the reduced peaks say about the exponents that were used (`EXACT` 3).
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing was clamped: the sums are right, commit the step.
    Fits,
    /// Some group was clamped: compute the same step again with these exponents, once. Then it fits.
    Redo(Vec<i32>),
    /// Some gradient is infinite or NaN: the solver's rule decides.
    NonFinite,
}

/// Judges reduced peaks against the exponents that were used. Not collective; the same on all ranks, since both are.
///
/// Redo carries Ê := E(K) + 2 for the saturated groups, the others unchanged.
///
/// # Panics
/// If there is not one exponent a peak.
pub fn judge(peaks: &[i32], exponents: &[i32]) -> Verdict {
    assert_eq!(peaks.len(), exponents.len(), "one peak and one exponent for each group");
    if peaks.iter().any(|&peak| peak >= NON_FINITE_PEAK) {
        return Verdict::NonFinite;
    }
    let wider = |(&peak, &used): (&i32, &i32)| {
        let needed = peak_exponent(peak);
        if needed > used { needed + MARGIN } else { used }
    };
    let wanted: Vec<i32> = peaks.iter().zip(exponents).map(wider).collect();
    if wanted == exponents { Verdict::Fits } else { Verdict::Redo(wanted) }
}

/// Words of the sum, one an element.
#[derive(Clone, Debug)]
enum Words {
    W64(Vec<u64>),
    W32(Vec<u32>),
}

/// How a lane's gradient becomes integers of 32 bits, for callers who make it run by run and keep the words themselves: what
/// [`LaneSums`] does, with the same bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneGrid {
    payload_bits: i32,
    limit: f64,
}

impl LaneGrid {
    /// `n_lanes`: L over all ranks, a model setting. Not collective.
    ///
    /// # Panics
    /// If L is 0 or above 65,536.
    pub fn new(n_lanes: usize, width: Width) -> LaneGrid {
        LaneGrid { payload_bits: width.payload_bits(n_lanes) as i32, limit: width.limit(n_lanes) }
    }

    /// b bits of a lane's integer, and what it is clamped to.
    pub(super) fn of(payload_bits: i32, limit: f64) -> LaneGrid {
        LaneGrid { payload_bits, limit }
    }

    /// What an integer of 1 stands for.
    pub(super) fn unit(&self, exponent: i32) -> f64 {
        pow2(self.unit_exponent(exponent))
    }

    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    /// K = max(bits(g) & 0x7fffffff) of some elements, to be merged by MAX of i32. Not collective.
    pub fn peak(gradient: &[f32]) -> i32 {
        kernels::peak_f32(gradient)
    }

    /// The least exponent at which elements of this (reduced) peak are not cut; None: one of them is infinite or NaN. Not collective.
    ///
    /// For who knows the peaks before words are made; who does not predicts with [`ScaleWindow`](super::ScaleWindow).
    pub fn exponent_of(peak: i32) -> Option<i32> {
        (peak < NON_FINITE_PEAK).then(|| peak_exponent(peak))
    }

    /// Adds elements of a lane's gradient, of one group, at its exponent; returns their [`peak`](Self::peak). Not collective.
    ///
    /// # Panics
    /// If the exponent is outside −96 … 129.
    pub fn add(&self, words: &mut [u32], gradient: &[f32], exponent: i32) -> i32 {
        let (peak, up) = (Self::peak(gradient), -self.unit_exponent(exponent));
        // Of fewer bits what is rounded to 2^b is clamped too.
        if self.payload_bits >= 24 && peak_exponent(peak) <= exponent {
            kernels::add_lane_32_within(words, gradient, pow2_f32(up));
        } else {
            kernels::add_lane_32(words, gradient, pow2(up), self.limit);
        }
        peak
    }

    /// [`add`](Self::add), after which `values` are what was added, exactly: for who keeps the rest. Not collective.
    ///
    /// # Panics
    /// As `add`.
    pub fn send(&self, words: &mut [u32], values: &mut [f32], exponent: i32) {
        kernels::send_lane_32(words, values, self.unit(exponent), self.limit);
    }

    /// Sums of (reduced) words, as [`LaneSums::finish`]. Not collective.
    ///
    /// # Panics
    /// If the exponent is outside −96 … 129.
    pub fn finish(&self, words: &[u32], exponent: i32, out: &mut [f32]) {
        kernels::finish_32(out, words, pow2(self.unit_exponent(exponent)));
    }

    /// −k: an integer of 1 stands for 2^(Ê + 1 − b).
    fn unit_exponent(&self, exponent: i32) -> i32 {
        let allowed = LOWEST..=127 + MARGIN;
        assert!(allowed.contains(&exponent), "exponent {exponent} is outside {allowed:?}");
        exponent + 1 - self.payload_bits
    }
}

/// One lane-sum in progress on this rank: Σ over its lanes of q = clamp(rint(g·2^k), ±Q), k = b − 1 − Ê (`EXACT` 2b).
///
/// A step: [`clear`](Self::clear), then for each of the rank's lanes [`add`](Self::add) and [`peaks`](Self::peaks) (or both
/// at once, [`add_with_peaks`](Self::add_with_peaks)), SUM-reduce the words, MAX-reduce the peaks, [`judge`], then
/// [`finish`](Self::finish) or redo. L lanes cannot overflow the words, on however many ranks they are.
///
/// Error of a sum, against the exact sum of the f32 gradients: at most L·2^(Ê−b), where Ê exceeds the exponent of the
/// group's largest element by 2 as a rule, then one rounding to f32. (Above 128 lanes at 32 bits an element within half a
/// unit of 2^(Ê+1) is cut to Q: at most twice that.)
#[derive(Clone, Debug)]
pub struct LaneSums {
    groups: Groups,
    words: Words,
    grid: LaneGrid,
}

impl LaneSums {
    /// Zero sums. `n_lanes`: L over all ranks, a model setting. Memory: one word an element. Not collective.
    ///
    /// # Panics
    /// If L is 0 or above 65,536.
    pub fn new(groups: &Groups, n_lanes: usize, width: Width) -> LaneSums {
        let n = groups.n_elements();
        LaneSums {
            groups: groups.clone(),
            words: match width {
                Width::W64 => Words::W64(vec![0; n]),
                Width::W32 => Words::W32(vec![0; n]),
            },
            grid: LaneGrid::new(n_lanes, width),
        }
    }

    /// Raises `peaks` (one a group, from 0) to K = max(bits(g) & 0x7fffffff) of a lane's gradient. Merge by MAX of i32: NaN is
    /// above infinity is above all numbers. Not collective.
    ///
    /// # Panics
    /// If the lengths are not those of the groups.
    pub fn peaks(groups: &Groups, gradient: &[f32], peaks: &mut [i32]) {
        assert_eq!(gradient.len(), groups.n_elements(), "one gradient element a parameter");
        assert_eq!(peaks.len(), groups.len(), "one peak a group");
        for (range, peak) in groups.ranges().zip(peaks) {
            *peak = (*peak).max(kernels::peak_f32(&gradient[range]));
        }
    }

    /// Back to zero. Not collective.
    pub fn clear(&mut self) {
        match &mut self.words {
            Words::W64(words) => words.fill(0),
            Words::W32(words) => words.fill(0),
        }
    }

    /// Adds a lane's gradient at the predicted exponents, one a group. What is too large for them is clamped, which is
    /// seen from the peaks. Not collective.
    ///
    /// # Panics
    /// If the lengths are not those of the groups, or an exponent is outside −96 … 129.
    pub fn add(&mut self, gradient: &[f32], exponents: &[i32]) {
        assert_eq!(gradient.len(), self.groups.n_elements(), "one gradient element a parameter");
        assert_eq!(exponents.len(), self.groups.len(), "one exponent a group");
        for (g, &exponent) in exponents.iter().enumerate() {
            self.add_group(g, &gradient[self.groups.range(g)], exponent);
        }
    }

    /// As [`add`](Self::add) and [`peaks`](Self::peaks), group by group while the group is in cache. Not collective.
    ///
    /// # Panics
    /// As they do.
    pub fn add_with_peaks(&mut self, gradient: &[f32], exponents: &[i32], peaks: &mut [i32]) {
        assert_eq!(gradient.len(), self.groups.n_elements(), "one gradient element a parameter");
        assert_eq!(exponents.len(), self.groups.len(), "one exponent a group");
        assert_eq!(peaks.len(), self.groups.len(), "one peak a group");
        for (g, (&exponent, peak)) in exponents.iter().zip(peaks).enumerate() {
            let gradient = &gradient[self.groups.range(g)];
            *peak = (*peak).max(kernels::peak_f32(gradient));
            self.add_group(g, gradient, exponent);
        }
    }

    /// Adds one group of a lane's gradient: for callers that make gradients group by group. Not collective.
    ///
    /// # Panics
    /// If `gradient` has not the length of group g, or the exponent is outside −96 … 129.
    pub fn add_group(&mut self, g: usize, gradient: &[f32], exponent: i32) {
        let range = self.groups.range(g);
        assert_eq!(gradient.len(), range.len(), "one gradient element a parameter of group {g}");
        match &mut self.words {
            Words::W64(words) => {
                let scale = pow2(-self.grid.unit_exponent(exponent));
                kernels::add_lane_64(&mut words[range], gradient, scale, self.grid.limit);
            }
            Words::W32(words) => {
                self.grid.add(&mut words[range], gradient, exponent);
            }
        }
    }

    /// The words, to be SUM-reduced in place, wrapping. Not collective.
    ///
    /// # Panics
    /// If the width is not [`Width::W32`].
    pub fn words_u32(&mut self) -> &mut [u32] {
        match &mut self.words {
            Words::W32(words) => words,
            Words::W64(_) => panic!("these lane sums are 64 bits wide: use words_u64"),
        }
    }

    /// The words, to be SUM-reduced in place, wrapping. Not collective.
    ///
    /// # Panics
    /// If the width is not [`Width::W64`].
    pub fn words_u64(&mut self) -> &mut [u64] {
        match &mut self.words {
            Words::W64(words) => words,
            Words::W32(_) => panic!("these lane sums are 32 bits wide: use words_u32"),
        }
    }

    /// The (reduced) sums, at the exponents they were added with: `out[j]` = Σ over lanes, rounded once to f32; infinite if beyond
    /// the largest f32; never −0. A sum, not a mean. Not collective.
    ///
    /// # Panics
    /// If the lengths are not those of the groups, or an exponent is outside −96 … 129.
    pub fn finish(&self, exponents: &[i32], out: &mut [f32]) {
        assert_eq!(out.len(), self.groups.n_elements(), "one sum a parameter");
        assert_eq!(exponents.len(), self.groups.len(), "one exponent a group");
        for (range, &exponent) in self.groups.ranges().zip(exponents) {
            match &self.words {
                Words::W64(words) => {
                    let unit = pow2(self.grid.unit_exponent(exponent));
                    kernels::finish_64(&mut out[range.clone()], &words[range], unit);
                }
                Words::W32(words) => self.grid.finish(&words[range.clone()], exponent, &mut out[range]),
            }
        }
    }
}
