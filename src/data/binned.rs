//! How values are cut into bins: what histograms of features are counted by.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// More bins of a feature, the one of missing values among them, are not had: their numbers have 16 bits.
pub const MOST_BINS: usize = 1 << 16;

/// How the values of a feature are cut into bins: bin b holds what is above `uppers[b − 1]` and not above `uppers[b]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureBins {
    /// Ascending and distinct; the last bin has no upper end.
    pub uppers: Vec<f64>,
    /// Some row has no value: these have a bin of their own, the last.
    pub has_missing: bool,
    /// The feature is a category, and bin b holds that of number `categories[b]`, ascending; all others are with the missing.
    pub categories: Option<Vec<u32>>,
}

impl FeatureBins {
    /// Of at most `max_bins` categories that were met the most, each `counts[category]` times.
    pub fn of_categories(counts: &[u64], max_bins: usize) -> FeatureBins {
        let mut categories: Vec<u32> = (0..counts.len() as u32).collect();
        categories.sort_by_key(|category| std::cmp::Reverse(counts[*category as usize]));
        categories.truncate(max_bins);
        categories.sort_unstable();
        FeatureBins { uppers: Vec::new(), has_missing: true, categories: Some(categories) }
    }

    pub fn n_values(&self) -> usize {
        self.categories.as_ref().map_or(self.uppers.len() + 1, Vec::len)
    }

    pub fn n_bins(&self) -> usize {
        self.n_values() + usize::from(self.has_missing)
    }

    pub fn missing_bin(&self) -> Option<usize> {
        self.has_missing.then(|| self.n_values())
    }

    /// A value that falls into a bin.
    pub fn value_of(&self, bin: usize) -> f64 {
        match &self.categories {
            _ if self.missing_bin() == Some(bin) => f64::NAN,
            Some(categories) => categories[bin].into(),
            None => self.uppers.get(bin).copied().unwrap_or(f64::INFINITY),
        }
    }

    /// The bin of a value. NaN where no row was missing in training: the first.
    pub fn bin_of(&self, value: f64) -> usize {
        if value.is_nan() {
            return self.missing_bin().unwrap_or(0);
        }
        if let Some(categories) = &self.categories {
            let bin = categories.binary_search_by(|category| f64::from(*category).total_cmp(&value));
            return bin.unwrap_or(categories.len());
        }
        let (mut first, mut n) = (0, self.uppers.len());
        while n > 0 {
            let half = n / 2;
            // A conditional move, not a branch: which half it is cannot be guessed.
            first += if self.uppers[first + half] < value { n - half } else { 0 };
            n = half;
        }
        first
    }
}

impl FeatureBins {
    /// [`bin_of`](Self::bin_of) of several values: their searches do not wait for each other.
    #[inline]
    pub fn bins_of<const N: usize>(&self, values: [f64; N]) -> [usize; N] {
        if self.categories.is_some() {
            return values.map(|value| self.bin_of(value));
        }
        let (mut first, mut n) = ([0; N], self.uppers.len());
        while n > 0 {
            let half = n / 2;
            for (first, value) in first.iter_mut().zip(&values) {
                *first += if self.uppers[*first + half] < *value { n - half } else { 0 };
            }
            n = half;
        }
        if let Some(missing) = self.missing_bin() {
            first.iter_mut().zip(&values).filter(|(_, value)| value.is_nan()).for_each(|(bin, _)| *bin = missing);
        }
        first
    }
}

/// Where the bins of each feature begin when those of all features are put side by side, and where the last ends.
pub fn offsets_of(features: &[FeatureBins]) -> Vec<usize> {
    let mut offsets = vec![0];
    offsets.extend(features.iter().scan(0, |end, feature| {
        *end += feature.n_bins();
        Some(*end)
    }));
    offsets
}

/// Features of each of `size` ranks: runs of about as many bins.
pub fn deal_features(offsets: &[usize], size: usize) -> Vec<Range<usize>> {
    let (n_features, n_bins) = (offsets.len() - 1, offsets[offsets.len() - 1]);
    let bound = |rank: usize| match rank == size {
        true => n_features,
        false => offsets[..n_features].partition_point(|&first| first * size < rank * n_bins),
    };
    (0..size).map(|rank| bound(rank)..bound(rank + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bin_whose_end_they_do_not_pass() {
        for n in 0..40 {
            let uppers: Vec<f64> = (0..n).map(f64::from).collect();
            let bins = FeatureBins { uppers: uppers.clone(), has_missing: n % 2 == 0, categories: None };
            for value in (-4..2 * n + 4).map(|half| f64::from(half) / 2.0).chain([f64::INFINITY, f64::NEG_INFINITY]) {
                assert_eq!(bins.bin_of(value), uppers.iter().filter(|upper| **upper < value).count(), "{value} of {n}");
            }
            assert_eq!(bins.bin_of(f64::NAN), if n % 2 == 0 { n as usize + 1 } else { 0 });
            let several = [0.5, f64::NAN, -3.0, f64::from(n), 1.0];
            assert_eq!(bins.bins_of(several), several.map(|value| bins.bin_of(value)));
        }
    }

    #[test]
    fn the_most_frequent_categories_have_bins_and_the_others_are_with_the_missing() {
        let bins = FeatureBins::of_categories(&[5, 0, 7, 5, 1], 3);
        assert_eq!(bins.categories, Some(vec![0, 2, 3]));
        assert_eq!([0.0, 2.0, 3.0, 1.0, 4.0, 99.0, f64::NAN].map(|value| bins.bin_of(value)), [0, 1, 2, 3, 3, 3, 3]);
        assert_eq!((bins.n_bins(), bins.missing_bin()), (4, Some(3)));
        let none = FeatureBins::of_categories(&[], 255);
        assert_eq!((none.n_bins(), none.bin_of(f64::NAN)), (1, 0));
    }

    #[test]
    fn every_feature_belongs_to_one_rank() {
        for widths in [vec![], vec![5], vec![1, 255, 3, 3, 100, 7], vec![10; 100]] {
            let mut offsets = vec![0];
            widths.iter().for_each(|width| offsets.push(offsets[offsets.len() - 1] + width));
            for size in [1, 2, 3, 7, 200] {
                let dealt = deal_features(&offsets, size);
                assert_eq!(dealt.len(), size);
                assert_eq!((dealt[0].start, dealt[size - 1].end), (0, widths.len()));
                assert!(dealt.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
    }
}
