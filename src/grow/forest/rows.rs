//! A rank's binned rows for forests: one byte a value, row by row, so that all features of a row are in a line or two of the cache.

use crate::data::binned::FeatureBins;
use crate::error::Result;
use rayon::prelude::*;

/// Bins of a feature, that of missing values among them, at most: their numbers have 8 bits.
pub const MOST_FOREST_BINS: usize = 256;

/// Rows begin at multiples of it.
const ALIGN: usize = 16;

/// Binned rows; a row's number is its place.
pub struct BinRows {
    pub features: Vec<FeatureBins>,
    stride: usize,
    /// (rows, stride)
    bins: Vec<u8>,
}

/// Where bins are.
#[derive(Clone, Copy)]
pub(super) enum Places<'a> {
    /// (rows, stride): a row's bins, and no more than a few bytes after them.
    ByRow { bins: &'a [u8], stride: usize },
    /// (features, rows)
    ByFeature { bins: &'a [u8], n_rows: usize },
}

impl BinRows {
    /// None yet, with room for `n_rows`.
    ///
    /// # Panics
    /// If a feature has more than [`MOST_FOREST_BINS`] bins.
    pub fn with_room(features: Vec<FeatureBins>, n_rows: usize) -> BinRows {
        assert!(features.iter().all(|feature| feature.n_bins() <= MOST_FOREST_BINS), "bins of more than a byte");
        let stride = features.len().max(1).next_multiple_of(ALIGN);
        BinRows { bins: Vec::with_capacity(n_rows * stride), features, stride }
    }

    pub fn n_rows(&self) -> usize {
        self.bins.len() / self.stride
    }

    /// Bytes of a row of so many features.
    pub fn bytes_of_row(n_features: usize) -> usize {
        n_features.max(1).next_multiple_of(ALIGN)
    }

    /// Appends runs of rows. Rayon over runs.
    ///
    /// * `fill`: puts the bins of a run: its number, and (rows, [`stride`](Self::stride)) bytes of 0.
    pub fn append(&mut self, runs: &[usize], fill: impl Fn(usize, &mut [u8]) -> Result<()> + Sync) -> Result<()> {
        let first = self.bins.len();
        self.bins.resize(first + runs.iter().sum::<usize>() * self.stride, 0);
        let mut rest = &mut self.bins[first..];
        let mut tasks = Vec::with_capacity(runs.len());
        for n_rows in runs {
            let (run, after) = rest.split_at_mut(n_rows * self.stride);
            tasks.push(run);
            rest = after;
        }
        tasks.into_par_iter().enumerate().try_for_each(|(number, run)| fill(number, run))
    }

    /// Bytes from row to row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The bins of a row, (features).
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bins[row * self.stride..][..self.features.len()]
    }

    /// The bin of a feature of a row.
    pub(super) fn bin(&self, row: usize, feature: u32) -> usize {
        self.bins[row * self.stride + feature as usize].into()
    }

    pub(super) fn places(&self) -> Places<'_> {
        Places::ByRow { bins: &self.bins, stride: self.stride }
    }

    /// Values that fall into the bins of a row, which every tree leads where it leads the row: (features).
    pub fn values(&self, row: usize, values: &mut [f64]) {
        for ((value, feature), bin) in values.iter_mut().zip(&self.features).zip(self.row(row)) {
            *value = feature.value_of(usize::from(*bin));
        }
    }
}
