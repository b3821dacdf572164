//! The best split of a leaf: one pass over the bins of each feature.

use super::columns::Columns;
use super::histogram::Histograms;
use super::pair::Sums;
use super::{Node, PairScale, TreeConfig};
use crate::data::binned::BinnedTable;
use crate::exact::scale::order_key;
use rayon::prelude::*;
use std::ops::Range;

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
    /// A bin that no row has, where there is none of missing values.
    pub(super) fn missing_bin(&self) -> u32 {
        self.missing.unwrap_or(u32::MAX)
    }

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

/// Looks for splits among the features of one rank.
pub(super) struct Splitter {
    features: Vec<Feature>,
}

pub(super) struct Feature {
    pub(super) number: u32,
    /// Its bins in a histogram of this rank's features.
    bins: Range<usize>,
    pub(super) missing: Option<u32>,
    is_category: bool,
    /// 1: leaf values may not fall as the feature rises; −1: not rise; 0: they may do as they like.
    monotone: i8,
}

impl Splitter {
    pub(super) fn new(table: &BinnedTable, offsets: &[usize], mine: Range<usize>, config: &TreeConfig) -> Splitter {
        let first = offsets[mine.start];
        let feature = |number: usize| Feature {
            number: number as u32,
            bins: offsets[number] - first..offsets[number + 1] - first,
            missing: table.features[number].missing_bin().map(|bin| bin as u32),
            is_category: table.features[number].categories.is_some(),
            monotone: config.monotone.get(number).copied().unwrap_or(0),
        };
        Splitter { features: mine.map(feature).collect() }
    }

    /// The best split of each leaf by this rank's features; None where none is allowed. Not collective. Rayon over leaves and features.
    pub(super) fn best_of_mine(
        &self,
        config: &TreeConfig,
        scale: PairScale,
        columns: &Columns<'_>,
        histograms: &Histograms,
        nodes: &[&Node],
    ) -> Vec<Option<Split>> {
        let of_node = |node: &&Node| {
            let histogram = histograms.of(node.histogram?);
            if config.max_depth.is_some_and(|most| node.depth >= most) || (node.n_rows as f64) < 2.0 * config.min_rows {
                return None;
            }
            let leaf = Leaf::of(node, config, scale);
            let allowed = columns.of_node(node.depth, node.way, &node.path);
            let may_use = |feature: u32| allowed.as_ref().is_none_or(|allowed| allowed.binary_search(&feature).is_ok());
            let splits = self.features.par_iter().with_min_len(4).filter(|feature| may_use(feature.number));
            let splits = splits.filter_map(|feature| leaf.best_split(feature, &histogram[feature.bins.clone()]));
            let better = |one: Split, other: Split| if other.is_better_than(&one) { other } else { one };
            splits.collect::<Vec<_>>().into_iter().reduce(better)
        };
        nodes.par_iter().map(of_node).collect()
    }
}

/// A leaf whose splits are looked at.
pub(super) struct Leaf<'a> {
    pub(super) config: &'a TreeConfig,
    pub(super) scale: PairScale,
    sums: Sums,
    /// Rows of a unit of hessian.
    pub(super) rows_of_hessian: f64,
    /// Gains have to be above it.
    floor: f64,
    unsplit: f64,
    bounds: Bounds,
    /// The least Σ hessian of a child, in units.
    least_hessian: i64,
}

impl<'a> Leaf<'a> {
    fn of(node: &Node, config: &'a TreeConfig, scale: PairScale) -> Leaf<'a> {
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

    fn best_split(&self, feature: &Feature, bins: &[Sums]) -> Option<Split> {
        if feature.is_category {
            return self.best_category_split(feature, bins);
        }
        let (values, missing) = match feature.missing {
            Some(_) => (&bins[..bins.len() - 1], bins[bins.len() - 1]),
            None => (bins, Sums::default()),
        };
        // Gain, bin, missing values left.
        let mut best: Option<(f64, usize, bool, Sums)> = None;
        let mut offer = |left: Sums, bin: usize, missing_left: bool| {
            if let Some(gain) = self.gain(left, self.config.l2, feature.monotone)
                && best.is_none_or(|(most, ..)| gain > most)
            {
                best = Some((gain, bin, missing_left, left));
            }
        };
        let mut below = Sums::default();
        // Where nothing is missing both sides of it are the same, and after the last value there is nothing.
        for (bin, sums) in values.iter().enumerate().take(values.len().saturating_sub(1)) {
            below = below + *sums;
            if feature.missing.is_some() {
                offer(below + missing, bin, true);
            } else if !self.is_enough(self.sums - below) {
                break;
            }
            offer(below, bin, false);
        }
        if let (Some(_), Some(last)) = (feature.missing, values.len().checked_sub(1)) {
            offer(below + values[last], last, false);
        }
        let (gain, bin, missing_left, left) = best?;
        let (feature, bin, missing) = (feature.number, bin as u32, feature.missing);
        Some(Split { gain, feature, bin, missing, missing_left, left, left_set: Vec::new() })
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
