//! The best split of a leaf: the bins of each feature in order, those below on the left.

use super::columns::Columns;
use super::histogram::{BinsPart, Histograms};
use super::pair::Sums;
use super::split::{Bounds, Leaf, Split};
use super::{Node, PairScale, TreeConfig};
use crate::data::binned::FeatureBins;
use multiversion::multiversion;
use rayon::prelude::*;
use std::ops::Range;

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
    /// * `mine`: features of this rank.
    pub(super) fn new(
        features: &[FeatureBins],
        offsets: &[usize],
        mine: Range<usize>,
        config: &TreeConfig,
    ) -> Splitter {
        let first = offsets[mine.start];
        let feature = |number: usize| Feature {
            number: number as u32,
            bins: offsets[number] - first..offsets[number + 1] - first,
            missing: features[number].missing_bin().map(|bin| bin as u32),
            is_category: features[number].categories.is_some(),
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
            let splits = self.features.par_iter().with_min_len(16).filter(|feature| may_use(feature.number));
            let splits = splits.filter_map(|feature| leaf.best_split(feature, histogram.part(feature.bins.clone())));
            let better = |one: Split, other: Split| if other.is_better_than(&one) { other } else { one };
            splits.collect::<Vec<_>>().into_iter().reduce(better)
        };
        nodes.par_iter().map(of_node).collect()
    }
}

/// Bins whose gains are computed together, and where there are no more than a few.
const RUN: usize = 64;
const FEW: usize = 8;

/// The best cut so far.
#[derive(Clone, Copy)]
struct Cut {
    gain: f64,
    bin: usize,
    missing_left: bool,
    left: Sums,
}

impl Leaf<'_> {
    pub(super) fn best_split(&self, feature: &Feature, bins: BinsPart<'_>) -> Option<Split> {
        if feature.is_category {
            return self.best_category_split(feature, bins);
        }
        let n_values = bins.len() - usize::from(feature.missing.is_some());
        let missing = feature.missing.map(|bin| bins.get(bin as usize));
        // Where nothing is missing there is nothing after the last value.
        let n_cuts = if missing.is_some() { n_values } else { n_values.saturating_sub(1) };
        let best = match n_cuts {
            0..=FEW => self.best_cut::<FEW>(feature, bins, n_cuts, missing),
            _ => self.best_cut::<RUN>(feature, bins, n_cuts, missing),
        };
        let Cut { gain, bin, missing_left, left } = best?;
        let (feature, bin, missing) = (feature.number, bin as u32, feature.missing);
        Some(Split { gain, feature, bin, missing, missing_left, left, left_set: Vec::new() })
    }

    /// Bins in runs of N.
    fn best_cut<const N: usize>(
        &self,
        feature: &Feature,
        bins: BinsPart<'_>,
        n_cuts: usize,
        missing: Option<Sums>,
    ) -> Option<Cut> {
        let mut best: Option<Cut> = None;
        let mut below = Sums::default();
        for first in (0..n_cuts).step_by(N) {
            let n = N.min(n_cuts - first);
            let mut lefts = [Sums::default(); N];
            for (at, left) in lefts[..n].iter_mut().enumerate() {
                below = below + bins.get(first + at);
                *left = below;
            }
            self.best_of_run::<N>(feature, first, &lefts[..n], missing, &mut best);
            // Nothing that comes later leaves enough on the right.
            if !self.is_enough(self.right_of(below)) {
                break;
            }
        }
        best
    }

    /// * `lefts`: what is in bins up to the `first`, the next, …
    fn best_of_run<const N: usize>(
        &self,
        feature: &Feature,
        first: usize,
        lefts: &[Sums],
        missing: Option<Sums>,
        best: &mut Option<Cut>,
    ) {
        // Missing values on the left come before the same cut with them on the right.
        let with_missing = missing.map(|missing| self.gains::<N>(lefts, missing, feature.monotone));
        let without = self.gains::<N>(lefts, Sums::default(), feature.monotone);
        let mut most = greatest(&without);
        if let Some(gains) = &with_missing {
            most = most.max(greatest(gains));
        }
        if most == f64::NEG_INFINITY || best.is_some_and(|best| most <= best.gain) {
            return;
        }
        let with_missing = with_missing.unwrap_or([f64::NEG_INFINITY; N]);
        let Some(at) = (0..lefts.len()).find(|at| with_missing[*at] == most || without[*at] == most) else { return };
        let missing_left = with_missing[at] == most;
        let left = if missing_left { lefts[at] + missing.unwrap_or_default() } else { lefts[at] };
        *best = Some(Cut { gain: most, bin: first + at, missing_left, left });
    }

    /// Gains of cuts with `more` on the left as well; −∞ where one is not allowed or not worth it.
    fn gains<const N: usize>(&self, lefts: &[Sums], more: Sums, monotone: i8) -> [f64; N] {
        let mut gains = [f64::NEG_INFINITY; N];
        if monotone != 0 || self.bounds != Bounds::default() {
            for (gain, left) in gains.iter_mut().zip(lefts) {
                *gain = self.gain(*left + more, self.config.l2, monotone).unwrap_or(f64::NEG_INFINITY);
            }
            return gains;
        }
        let (mut gradients, mut hessians) = ([0.0; N], [0.0; N]);
        for ((gradient, hessian), left) in gradients.iter_mut().zip(&mut hessians).zip(lefts) {
            let left = *left + more;
            (*gradient, *hessian) = (left.gradient as f64, left.hessian as f64);
        }
        free_gains(self, &gradients, &hessians, &mut gains);
        gains
    }
}

/// [`Leaf::gain`] without constraints: the same operations on the same numbers, none of which is as large as 2⁵³, and no branches, so
/// that they share registers.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn free_gains(leaf: &Leaf, gradients: &[f64], hessians: &[f64], gains: &mut [f64]) {
    let [g_all, h_all, least] = [leaf.sums.gradient, leaf.sums.hessian, leaf.least_hessian].map(|sum| sum as f64);
    let (l1, l2, scale, floor, unsplit) = (leaf.config.l1, leaf.config.l2, leaf.scale, leaf.floor, leaf.unsplit);
    let score = |gradient: f64, hessian: f64| {
        let beyond = (gradient * scale.gradient).abs() - l1;
        let beyond = if beyond > 0.0 { beyond } else { 0.0 };
        beyond * beyond / (hessian * scale.hessian + l2)
    };
    for ((gain, g), h) in gains.iter_mut().zip(gradients).zip(hessians) {
        let (g_right, h_right) = (g_all - g, h_all - h);
        let found = score(*g, *h) + score(g_right, h_right) - unsplit;
        let is_allowed = (*h >= least) & (h_right >= least) & (found > floor) & (found < f64::INFINITY);
        *gain = if is_allowed { found } else { f64::NEG_INFINITY };
    }
}

/// The greatest of numbers none of which is NaN.
fn greatest(gains: &[f64]) -> f64 {
    let (eights, _) = gains.as_chunks::<8>();
    let mut most = [f64::NEG_INFINITY; 8];
    for eight in eights {
        most.iter_mut().zip(eight).for_each(|(most, gain)| *most = if gain > most { *gain } else { *most });
    }
    most.into_iter().fold(f64::NEG_INFINITY, f64::max)
}
