//! Splits of a leaf: which are allowed, what they gain, which of two is better.

use super::pair::Sums;
use super::{Node, PairScale, TreeConfig};
use crate::exact::scale::order_key;

/// Rows whose bin is at most `bin` go left, the others right.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// How much lower twice the loss of the leaf is.
    pub gain: f64,
    pub feature: u32,
    pub bin: u32,
    /// The bin of missing values, if the feature has one.
    pub missing: Option<u32>,
    pub missing_left: bool,
    /// Of the rows that go left.
    pub left: Sums,
    /// Of a category: bins that go left, bit b % 64 of word b / 64, and all others right; empty: the feature is a number.
    pub left_set: Vec<u64>,
}

impl Split {
    /// Whether rows of a bin go left.
    pub fn goes_left(&self, bin: u32) -> bool {
        match (self.left_set.is_empty(), Some(bin) == self.missing) {
            (true, true) => self.missing_left,
            (true, false) => bin <= self.bin,
            (false, _) => is_in(&self.left_set, bin),
        }
    }

    /// Which of two is better: a full order, so that it does not matter who finds which.
    pub(super) fn is_better_than(&self, other: &Split) -> bool {
        let key = |split: &Split| (-order_key(split.gain), split.feature, split.bin, !split.missing_left);
        key(self) < key(other)
    }
}

/// Whether a bin is in a set.
#[inline]
pub(super) fn is_in(set: &[u64], bin: u32) -> bool {
    set.get(bin as usize / 64).is_some_and(|word| word >> (bin % 64) & 1 == 1)
}

/// The value of a leaf. Sums in the loss's own units.
pub fn leaf_value(gradient: f64, hessian: f64, l1: f64, l2: f64) -> f64 {
    let of = hessian + l2;
    if of > 0.0 { -soft(gradient, l1) / of } else { 0.0 }
}

/// Nearer to 0 by `l1`, and no further.
#[inline]
fn soft(gradient: f64, l1: f64) -> f64 {
    let beyond = gradient.abs() - l1;
    if beyond > 0.0 { beyond.copysign(gradient) } else { 0.0 }
}

/// A leaf whose splits are looked at.
pub(super) struct Leaf<'a> {
    pub(super) config: &'a TreeConfig,
    pub(super) scale: PairScale,
    pub(super) sums: Sums,
    /// Rows of a unit of hessian.
    pub(super) rows_of_hessian: f64,
    /// Gains have to be above it.
    pub(super) floor: f64,
    pub(super) unsplit: f64,
    pub(super) bounds: Bounds,
    /// The least Σ hessian of a child, in units.
    pub(super) least_hessian: i64,
}

impl<'a> Leaf<'a> {
    pub(super) fn of(node: &Node, config: &'a TreeConfig, scale: PairScale) -> Leaf<'a> {
        let sums = node.sums;
        let rows_of_hessian = node.n_rows as f64 / sums.hessian.max(1) as f64;
        let floor = config.min_gain.max(0.0);
        let least = |leaf: &Leaf<'_>| {
            // What is asked for grows with the hessian: the least that is enough is found by halving.
            let (mut low, mut high) = (0, sums.hessian.max(1));
            while low < high {
                let middle = low + (high - low) / 2;
                if leaf.is_enough_hessian(middle) { high = middle } else { low = middle + 1 }
            }
            low
        };
        let (unsplit, bounds, least_hessian) = (0.0, node.bounds, 0);
        let leaf = Leaf { config, scale, sums, rows_of_hessian, floor, unsplit, bounds, least_hessian };
        Leaf { unsplit: leaf.score(sums, config.l2), least_hessian: least(&leaf), ..leaf }
    }

    pub(super) fn right_of(&self, left: Sums) -> Sums {
        self.sums - left
    }

    /// Whether a child of these sums may be.
    #[inline]
    pub(super) fn is_enough(&self, sums: Sums) -> bool {
        sums.hessian >= self.least_hessian
    }

    fn is_enough_hessian(&self, units: i64) -> bool {
        let hessian = units as f64;
        hessian * self.rows_of_hessian + 0.5 >= self.config.min_rows
            && hessian * self.scale.hessian >= self.config.min_hessian
            && units > 0
    }

    /// Of a split with these sums on the left; None: one that is not allowed or not worth it.
    #[inline]
    pub(super) fn gain(&self, left: Sums, l2: f64, monotone: i8) -> Option<f64> {
        let right = self.sums - left;
        if !self.is_enough(left) || !self.is_enough(right) {
            return None;
        }
        if monotone != 0 {
            let [left, right] = [left, right].map(|sums| self.value(sums, l2));
            if (monotone > 0 && left > right) || (monotone < 0 && left < right) {
                return None;
            }
        }
        let gain = self.score(left, l2) + self.score(right, l2) - self.unsplit;
        (gain > self.floor && gain.is_finite()).then_some(gain)
    }

    /// What a leaf of these sums lowers twice the loss by, against the value 0.
    #[inline]
    fn score(&self, sums: Sums, l2: f64) -> f64 {
        let gradient = soft(sums.gradient as f64 * self.scale.gradient, self.config.l1);
        let hessian = sums.hessian as f64 * self.scale.hessian + l2;
        if self.bounds == Bounds::default() {
            return gradient * gradient / hessian;
        }
        let value = self.value(sums, l2);
        -(2.0 * gradient + hessian * value) * value
    }

    fn value(&self, sums: Sums, l2: f64) -> f64 {
        let (gradient, hessian) =
            (sums.gradient as f64 * self.scale.gradient, sums.hessian as f64 * self.scale.hessian);
        self.bounds.clamp(leaf_value(gradient, hessian, self.config.l1, l2))
    }

    /// Between what values the children's have to be.
    pub(super) fn bounds_of_children(node: &Node, split: &Split, config: &TreeConfig, scale: PairScale) -> [Bounds; 2] {
        let monotone = config.monotone.get(split.feature as usize).copied().unwrap_or(0);
        if monotone == 0 {
            return [node.bounds; 2];
        }
        let leaf = Leaf::of(node, config, scale);
        let [left, right] = [split.left, leaf.right_of(split.left)].map(|sums| leaf.value(sums, config.l2));
        let middle = left + (right - left) / 2.0;
        let (below, above) = (Bounds { most: middle, ..node.bounds }, Bounds { least: middle, ..node.bounds });
        if monotone > 0 { [below, above] } else { [above, below] }
    }
}

/// What a leaf's value has to be between, so that constraints hold. Source: LightGBM's `monotone_constraints_method=basic`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub least: f64,
    pub most: f64,
}

impl Default for Bounds {
    /// None.
    fn default() -> Bounds {
        Bounds { least: f64::NEG_INFINITY, most: f64::INFINITY }
    }
}

impl Bounds {
    pub fn clamp(self, value: f64) -> f64 {
        value.max(self.least).min(self.most)
    }
}
