//! The best cut of a node by one feature: bins in order, those below on the left.

use super::draw::{NodeDraws, Way};
use super::problem::Problem;
use super::rows::MOST_FOREST_BINS;
use crate::data::binned::FeatureBins;
use crate::exact::scale::order_key;

/// Bins that have rows, bit by bit.
pub(super) type Mask = [u64; MOST_FOREST_BINS / 64];

/// What sends a row of a node to the left.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Cut {
    /// Bins up to it; missing values as said.
    UpTo { bin: u16, missing_left: bool },
    /// Bins of a set.
    OneOf(Mask),
}

pub(super) fn has(mask: &Mask, bin: usize) -> bool {
    mask[bin / 64] >> (bin % 64) & 1 == 1
}

/// The bins of a mask, ascending.
pub(super) fn bins_of(mask: &Mask) -> impl Iterator<Item = usize> + '_ {
    mask.iter().enumerate().flat_map(|(word, bits)| {
        let mut left = *bits;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (bit < 64).then_some(word * 64 + bit)
        })
    })
}

/// The best cut of a node so far, over features in the order in which they were drawn.
pub(super) struct Search<'p, P> {
    problem: &'p P,
    least_draws: u64,
    total: Vec<u64>,
    of_node: f64,
    left: Vec<u64>,
    other: Vec<u64>,
    right: Vec<u64>,
    /// The gain of the best so far; 0: there is none.
    most: f64,
    best: Option<(u32, Cut)>,
    best_left: Vec<u64>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Found {
    pub(super) feature: u32,
    pub(super) cut: Cut,
    /// How much lower Σ weight times impurity is.
    pub(super) gain: f64,
    /// Cell of the left side.
    pub(super) left: Vec<u64>,
}

impl<'p, P: Problem> Search<'p, P> {
    pub(super) fn new(problem: &'p P, min_rows: u64) -> Search<'p, P> {
        let zeros = || vec![0; problem.width()];
        Search {
            problem,
            least_draws: min_rows.max(1),
            total: zeros(),
            of_node: 0.0,
            left: zeros(),
            other: zeros(),
            right: zeros(),
            most: 0.0,
            best: None,
            best_left: zeros(),
        }
    }

    /// Another node, of these sums.
    pub(super) fn begin(&mut self, total: &[u64]) {
        self.total.copy_from_slice(total);
        self.of_node = self.problem.of_node(total);
        self.most = 0.0;
        self.best = None;
    }

    pub(super) fn found(&self) -> Option<Found> {
        let (feature, cut) = self.best?;
        Some(Found { feature, cut, gain: self.most, left: self.best_left.clone() })
    }

    /// Looks at a feature.
    ///
    /// * `cells`: of its bins; those not in `mask` are zeros.
    /// * `random`: the draws of this node, if its cut is to be a random one.
    pub(super) fn look(
        &mut self,
        number: u32,
        feature: &FeatureBins,
        cells: &[u64],
        mask: &Mask,
        random: Option<(NodeDraws, Way)>,
    ) {
        let missing = feature.missing_bin().filter(|bin| has(mask, *bin));
        let mut values = *mask;
        if let Some(bin) = missing {
            values[bin / 64] &= !(1 << (bin % 64));
        }
        match (&feature.categories, random) {
            (Some(_), None) => self.best_set(number, cells, mask, feature.missing_bin()),
            (Some(_), Some((draws, way))) => self.random_set(number, cells, mask, feature.missing_bin(), draws, way),
            (None, None) => self.best_cut(number, feature, cells, &values, missing),
            (None, Some((draws, way))) => {
                let at = draws.uniform(way, number, 0);
                self.random_cut(number, feature, cells, &values, missing, at);
            }
        }
    }

    fn cell<'c>(&self, cells: &'c [u64], bin: usize) -> &'c [u64] {
        let width = self.problem.width();
        &cells[bin * width..(bin + 1) * width]
    }

    fn add_left(&mut self, cells: &[u64], bin: usize) {
        let width = self.problem.width();
        let cell = &cells[bin * width..(bin + 1) * width];
        self.left[..width].iter_mut().zip(cell).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    }

    /// Cuts between values that rows have, halfway through the bins that nobody has.
    fn best_cut(&mut self, number: u32, feature: &FeatureBins, cells: &[u64], values: &Mask, missing: Option<usize>) {
        self.left.fill(0);
        let mut last = None;
        for bin in bins_of(values) {
            if let Some(last) = last {
                self.offer_both(number, cells, missing, (last + bin - 1) / 2);
            }
            self.add_left(cells, bin);
            last = Some(bin);
        }
        if let (Some(_), Some(_)) = (last, missing) {
            // All that have a value against those that have none.
            let bin = (feature.n_values() - 1) as u16;
            self.offer(number, Cut::UpTo { bin, missing_left: false }, false);
        }
    }

    /// A cut between the least and the greatest value, uniform over what is between them. Source: Geurts, Ernst, Wehenkel, *Extremely
    /// randomized trees*, Machine Learning 2006, table 1.
    fn random_cut(
        &mut self,
        number: u32,
        feature: &FeatureBins,
        cells: &[u64],
        values: &Mask,
        missing: Option<usize>,
        at: f64,
    ) {
        let (Some(low), Some(high)) = (bins_of(values).next(), bins_of(values).last()) else { return };
        self.left.fill(0);
        let mut cut = feature.n_values() - 1;
        if low < high {
            let [from, to] = [low, high - 1].map(|bin| feature.uppers[bin]);
            // The first bin reaches down to the one before it, as far as there is one.
            let from = if low > 0 { feature.uppers[low - 1] } else { from - (to - from) / (high - low) as f64 };
            let value = from + (to - from) * at;
            let by_value = feature.uppers.partition_point(|upper| *upper < value);
            let by_bin = low + ((high - low) as f64 * at) as usize;
            cut = if value.is_finite() { by_value } else { by_bin }.clamp(low, high - 1);
        }
        for bin in bins_of(values).take_while(|bin| *bin <= cut) {
            self.add_left(cells, bin);
        }
        match low < high {
            true => self.offer_both(number, cells, missing, cut),
            false if missing.is_some() => {
                self.offer(number, Cut::UpTo { bin: cut as u16, missing_left: false }, false);
            }
            false => {}
        }
    }

    /// Categories in order of what they are worth, cut in two. Source: Fisher, *On grouping for maximum homogeneity*, JASA 1958; for more
    /// than two classes a heuristic.
    fn best_set(&mut self, number: u32, cells: &[u64], mask: &Mask, missing: Option<usize>) {
        let mut order: Vec<(i64, usize)> =
            bins_of(mask).map(|bin| (order_key(self.problem.rank(self.cell(cells, bin), &self.total)), bin)).collect();
        order.sort_unstable();
        self.left.fill(0);
        let mut set = Mask::default();
        for (_, bin) in order.iter().take(order.len().saturating_sub(1)) {
            self.add_left(cells, *bin);
            set[bin / 64] |= 1 << (bin % 64);
            self.offer_set(number, &set, mask, missing);
        }
    }

    /// Each category on a side of its own drawing.
    fn random_set(
        &mut self,
        number: u32,
        cells: &[u64],
        mask: &Mask,
        missing: Option<usize>,
        draws: NodeDraws,
        way: Way,
    ) {
        self.left.fill(0);
        let mut set = Mask::default();
        for bin in bins_of(mask) {
            if draws.uniform(way, number, 1 + bin as u64) < 0.5 {
                self.add_left(cells, bin);
                set[bin / 64] |= 1 << (bin % 64);
            }
        }
        self.offer_set(number, &set, mask, missing);
    }

    /// What nobody knows goes right, and so do missing values: where the set has them, it is the others that go left.
    fn offer_set(&mut self, number: u32, set: &Mask, mask: &Mask, missing: Option<usize>) {
        let is_turned = missing.is_some_and(|bin| has(set, bin));
        let set = if is_turned { std::array::from_fn(|word| mask[word] & !set[word]) } else { *set };
        self.offer(number, Cut::OneOf(set), is_turned);
    }

    /// With missing values on the left, then on the right; of a node that has none, on the side of more draws.
    fn offer_both(&mut self, number: u32, cells: &[u64], missing: Option<usize>, bin: usize) {
        let bin = bin as u16;
        match missing {
            None => {
                let left = self.problem.draws(&self.left);
                let missing_left = 2 * left >= self.problem.draws(&self.total);
                self.offer(number, Cut::UpTo { bin, missing_left }, false);
            }
            Some(missing) => {
                self.offer(number, Cut::UpTo { bin, missing_left: false }, false);
                self.other.copy_from_slice(&self.left);
                self.add_left(cells, missing);
                self.offer(number, Cut::UpTo { bin, missing_left: true }, false);
                self.left.copy_from_slice(&self.other);
            }
        }
    }

    /// * `is_turned`: what is in `left` goes right.
    #[inline]
    fn offer(&mut self, number: u32, cut: Cut, is_turned: bool) {
        let gain = self.problem.gain(self.of_node, &self.total, &self.left, &mut self.right, self.least_draws);
        if let Some(gain) = gain
            && gain > self.most
        {
            self.most = gain;
            self.best = Some((number, cut));
            self.best_left.copy_from_slice(if is_turned { &self.right } else { &self.left });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::{Binary, BinaryItem};
    use super::*;

    /// Cells and mask of (bin, class) rows.
    fn counted(rows: &[(usize, u16)]) -> (Vec<u64>, Mask) {
        let (mut cells, mut mask) = (vec![0; MOST_FOREST_BINS], Mask::default());
        for (bin, class) in rows {
            Binary.add(&mut cells[*bin..bin + 1], &BinaryItem::new(0, *class, 1));
            mask[bin / 64] |= 1 << (bin % 64);
        }
        (cells, mask)
    }

    fn feature(n_values: usize, is_category: bool) -> FeatureBins {
        let uppers = if is_category { Vec::new() } else { (1..n_values).map(|upper| upper as f64).collect() };
        let categories = is_category.then(|| (0..n_values as u32).collect());
        FeatureBins { uppers, has_missing: true, categories }
    }

    fn best(rows: &[(usize, u16)], feature: &FeatureBins, min_rows: u64) -> Option<Found> {
        let (cells, mask) = counted(rows);
        let total = [cells.iter().fold(0u64, |sum, cell| sum.wrapping_add(*cell))];
        let mut search = Search::new(&Binary, min_rows);
        search.begin(&total);
        search.look(4, feature, &cells, &mask, None);
        search.found()
    }

    #[test]
    fn a_cut_lies_in_the_middle_of_the_gap() {
        let rows = [(3, 0), (3, 0), (10, 1), (12, 1)];
        let found = best(&rows, &feature(20, false), 1).unwrap();
        assert_eq!((found.feature, found.cut), (4, Cut::UpTo { bin: 6, missing_left: true }));
        assert_eq!((found.gain, found.left), (2.0, vec![2]));
        assert_eq!(best(&rows, &feature(20, false), 3), None, "no side may have three");
        assert_eq!(best(&[(3, 0), (3, 1)], &feature(20, false), 1), None, "one value");
        assert_eq!(best(&[(3, 0), (3, 1), (9, 0), (9, 1)], &feature(20, false), 1), None, "nothing gained");
    }

    #[test]
    fn missing_values_go_where_they_gain_most() {
        let missing = 20;
        let of = |rows: &[(usize, u16)]| best(rows, &feature(20, false), 1).unwrap().cut;
        assert_eq!(of(&[(3, 0), (9, 1), (missing, 1)]), Cut::UpTo { bin: 5, missing_left: false });
        assert_eq!(of(&[(3, 0), (9, 1), (missing, 0)]), Cut::UpTo { bin: 5, missing_left: true });
        assert_eq!(of(&[(3, 0), (9, 0), (missing, 1)]), Cut::UpTo { bin: 19, missing_left: false });
    }

    #[test]
    fn categories_are_cut_in_the_order_of_their_shares_and_missing_ones_go_right() {
        let found = best(&[(0, 1), (1, 0), (2, 1), (5, 0)], &feature(6, true), 1).unwrap();
        assert_eq!((found.cut, found.gain), (Cut::OneOf([0b100010, 0, 0, 0]), 2.0));
        let found = best(&[(0, 1), (1, 0), (2, 1), (6, 0)], &feature(6, true), 1).unwrap();
        assert_eq!((found.cut, found.left.clone()), (Cut::OneOf([0b101, 0, 0, 0]), vec![2 << 32 | 2]));
    }

    #[test]
    fn random_cuts_have_rows_on_both_sides() {
        let rows = [(3, 0), (7, 1), (12, 1), (19, 0)];
        let (cells, mask) = counted(&rows);
        let total = [cells.iter().fold(0u64, |sum, cell| sum.wrapping_add(*cell))];
        let mut met = std::collections::BTreeSet::new();
        for way in 0..200 {
            let mut search = Search::new(&Binary, 1);
            search.begin(&total);
            let random = Some((NodeDraws::of_tree(1, 2), Way(way)));
            search.look(0, &feature(20, false), &cells, &mask, random);
            if let Some(Found { cut: Cut::UpTo { bin, .. }, .. }) = search.found() {
                assert!((3..19).contains(&bin));
                met.insert(bin);
            }
            let mut search = Search::new(&Binary, 1);
            search.begin(&total);
            search.look(0, &feature(20, true), &cells, &mask, random);
            if let Some(Found { cut: Cut::OneOf(set), left, .. }) = search.found() {
                assert_eq!(Binary.draws(&left), bins_of(&set).count() as u64);
            }
        }
        assert!(met.len() > 6, "{met:?}");
    }
}
