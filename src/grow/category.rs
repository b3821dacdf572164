//! The best split of a leaf by a category: some of its values left, all others right.
//!
//! Source: Fisher, *On grouping for maximum homogeneity*, JASA 1958: in the order of gradient/hessian, the best two groups are a cut. The
//! smoothing, the further penalty and the limits are those of Ke et al., *LightGBM*, NIPS 2017, as its program has them.

use super::histogram::BinsPart;
use super::pair::Sums;
use super::search::Feature;
use super::split::{Leaf, Split};
use crate::exact::scale::order_key;

/// How categories are split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CategoryConfig {
    /// Added to hessians before categories are ordered; those of fewer rows go right.
    pub smooth: f64,
    /// Added to the L2 penalty.
    pub l2: f64,
    /// Categories of the side that has fewer, at most.
    pub most: usize,
    /// Of no more categories, one goes left and all others right.
    pub one_hot: usize,
    /// Rows of the categories between two cuts that are looked at, at least.
    pub group_rows: f64,
}

impl Leaf<'_> {
    /// * `bins`: of the categories, and last of what is missing.
    pub(super) fn best_category_split(&self, feature: &Feature, bins: BinsPart<'_>) -> Option<Split> {
        let values: Vec<Sums> = (0..bins.len().checked_sub(1)?).map(|bin| bins.get(bin)).collect();
        let config = self.config.categories;
        let mut best: Option<(f64, Sums, Vec<u32>)> = None;
        let mut offer = |left: Sums, l2: f64, chosen: &[u32]| {
            if let Some(gain) = self.gain(left, l2, 0)
                && best.as_ref().is_none_or(|(most, ..)| order_key(gain) > order_key(*most))
            {
                best = Some((gain, left, chosen.to_vec()));
            }
        };
        if values.len() <= config.one_hot {
            values.iter().enumerate().for_each(|(bin, sums)| offer(*sums, self.config.l2, &[bin as u32]));
        } else {
            let rows = |sums: Sums| sums.hessian as f64 * self.rows_of_hessian;
            let ratio = |sums: Sums| {
                let (gradient, hessian) =
                    (sums.gradient as f64 * self.scale.gradient, sums.hessian as f64 * self.scale.hessian);
                order_key(gradient / (hessian + config.smooth))
            };
            let is_used = |bin: &u32| {
                let sums = values[*bin as usize];
                sums.hessian > 0 && rows(sums) + 0.5 >= config.smooth
            };
            let mut order: Vec<u32> = (0..values.len() as u32).filter(is_used).collect();
            order.sort_by_key(|bin| (ratio(values[*bin as usize]), *bin));
            let most = config.most.min(order.len().div_ceil(2));
            for is_turned in [false, true] {
                if is_turned {
                    order.reverse();
                }
                let (mut left, mut group) = (Sums::default(), 0.0);
                for n in 1..=most {
                    let sums = values[order[n - 1] as usize];
                    left = left + sums;
                    group += rows(sums);
                    let right = self.right_of(left);
                    if !self.is_enough(right) || rows(right) + 0.5 < config.group_rows {
                        break;
                    }
                    if group + 0.5 >= config.group_rows && self.is_enough(left) {
                        group = 0.0;
                        offer(left, self.config.l2 + config.l2, &order[..n]);
                    }
                }
            }
        }
        let (gain, left, chosen) = best?;
        // As long as its last bin wants, so that a set is written in one way.
        let mut left_set = vec![0u64; *chosen.iter().max()? as usize / 64 + 1];
        chosen.iter().for_each(|bin| left_set[*bin as usize / 64] |= 1 << (bin % 64));
        let (feature, bin, missing) = (feature.number, chosen.len() as u32, feature.missing);
        Some(Split { gain, feature, bin, missing, missing_left: false, left, left_set })
    }
}
