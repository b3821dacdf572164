//! The best split of a leaf: one pass over the bins of each feature.

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
}

impl Split {
    /// A bin that no row has, where there is none of missing values.
    pub(super) fn missing_bin(&self) -> u32 {
        self.missing.unwrap_or(u32::MAX)
    }

    /// Which of two is better: a full order, so that it does not matter who finds which.
    pub(super) fn is_better_than(&self, other: &Split) -> bool {
        let key = |split: &Split| (-order_key(split.gain), split.feature, split.bin, !split.missing_left);
        key(self) < key(other)
    }
}

/// What a leaf of these sums lowers twice the loss by, against the value 0.
pub(super) fn score(gradient: f64, hessian: f64, config: &TreeConfig) -> f64 {
    let g = soft(gradient, config.l1);
    g * g / (hessian + config.l2)
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

struct Feature {
    number: u32,
    /// Its bins in a histogram of this rank's features.
    bins: Range<usize>,
    missing: Option<u32>,
}

impl Splitter {
    pub(super) fn new(table: &BinnedTable, offsets: &[usize], mine: Range<usize>) -> Splitter {
        let first = offsets[mine.start];
        let feature = |number: usize| Feature {
            number: number as u32,
            bins: offsets[number] - first..offsets[number + 1] - first,
            missing: table.features[number].missing_bin().map(|bin| bin as u32),
        };
        Splitter { features: mine.map(feature).collect() }
    }

    /// The best split of each leaf by this rank's features; None where none is allowed. Not collective. Rayon over leaves and features.
    pub(super) fn best_of_mine(
        &self,
        config: &TreeConfig,
        scale: PairScale,
        histograms: &Histograms,
        nodes: &[&Node],
    ) -> Vec<Option<Split>> {
        let of_node = |node: &&Node| {
            let histogram = histograms.of(node.histogram?);
            if config.max_depth.is_some_and(|most| node.depth >= most) || (node.n_rows as f64) < 2.0 * config.min_rows {
                return None;
            }
            let leaf = Leaf::of(node, config, scale);
            let splits = self.features.par_iter().with_min_len(4);
            let splits = splits.filter_map(|feature| leaf.best_split(feature, &histogram[feature.bins.clone()]));
            splits.reduce_with(|one, other| if other.is_better_than(&one) { other } else { one })
        };
        nodes.par_iter().map(of_node).collect()
    }
}

/// A leaf whose splits are looked at.
struct Leaf<'a> {
    config: &'a TreeConfig,
    scale: PairScale,
    sums: Sums,
    /// Rows of a unit of hessian.
    rows_of_hessian: f64,
    /// Gains have to be above it.
    floor: f64,
    unsplit: f64,
}

impl<'a> Leaf<'a> {
    fn of(node: &Node, config: &'a TreeConfig, scale: PairScale) -> Leaf<'a> {
        let sums = node.sums;
        let unsplit = score(sums.gradient as f64 * scale.gradient, sums.hessian as f64 * scale.hessian, config);
        let rows_of_hessian = node.n_rows as f64 / sums.hessian.max(1) as f64;
        Leaf { config, scale, sums, rows_of_hessian, floor: config.min_gain.max(0.0), unsplit }
    }

    fn best_split(&self, feature: &Feature, bins: &[Sums]) -> Option<Split> {
        let (values, missing) = match feature.missing {
            Some(_) => (&bins[..bins.len() - 1], bins[bins.len() - 1]),
            None => (bins, Sums::default()),
        };
        let mut best: Option<Split> = None;
        let mut below = Sums::default();
        for (bin, sums) in values.iter().enumerate() {
            below = below + *sums;
            let is_last = bin + 1 == values.len();
            // Where nothing is missing both sides of it are the same, and after the last value there is nothing.
            for missing_left in [true, false] {
                if (missing_left && (feature.missing.is_none() || is_last)) || (is_last && feature.missing.is_none()) {
                    continue;
                }
                let left = if missing_left { below + missing } else { below };
                let Some(gain) = self.gain(left) else { continue };
                if best.as_ref().is_none_or(|best| order_key(gain) > order_key(best.gain)) {
                    let (number, bin) = (feature.number, bin as u32);
                    best = Some(Split { gain, feature: number, bin, missing: feature.missing, missing_left, left });
                }
            }
        }
        best
    }

    /// Of a split with these sums on the left; None: one that is not allowed or not worth it.
    #[inline]
    fn gain(&self, left: Sums) -> Option<f64> {
        let right = self.sums - left;
        let [left_hessian, right_hessian] = [left, right].map(|sums| sums.hessian as f64);
        let enough = |hessian: f64| {
            hessian * self.rows_of_hessian + 0.5 >= self.config.min_rows
                && hessian * self.scale.hessian >= self.config.min_hessian
                && hessian > 0.0
        };
        if !enough(left_hessian) || !enough(right_hessian) {
            return None;
        }
        let score = |sums: Sums, hessian: f64| {
            score(sums.gradient as f64 * self.scale.gradient, hessian * self.scale.hessian, self.config)
        };
        let gain = score(left, left_hessian) + score(right, right_hessian) - self.unsplit;
        (gain > self.floor && gain.is_finite()).then_some(gain)
    }
}
