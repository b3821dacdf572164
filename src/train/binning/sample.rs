//! The ends of bins from a sample of the rows: the same for any number of ranks.

use super::Column;
use crate::comm::Communicator;
use crate::data::Block;
use crate::data::binned::{FeatureBins, deal_features};
use crate::data::sketch::bin_ends;
use crate::error::Result;
use crate::exact::scale::order_key;
use crate::model::{ColumnCode, Preprocess};
use crate::rng::{Draws, FastDraws, Stream};
use rayon::prelude::*;
use std::ops::Range;

/// What the bins of some features are made from.
pub(super) struct Sampled {
    draws: FastDraws,
    share: f64,
    features: Range<usize>,
    /// By feature.
    values: Vec<Column>,
    has_missing: Vec<bool>,
}

impl Sampled {
    /// * `n_sampled`: rows, about, of `n_rows`.
    pub(super) fn new(features: Range<usize>, n_sampled: u64, n_rows: u64, seed: u64) -> Sampled {
        Sampled {
            draws: FastDraws::new(Draws::new(seed, Stream::Bins), 0),
            share: n_sampled as f64 / n_rows.max(1) as f64,
            values: vec![Column::default(); features.len()],
            has_missing: vec![false; features.len()],
            features,
        }
    }

    /// Rows of weight 0 are not sampled; that one of them has no value is noted, since it will need a bin. Rayon over blocks.
    ///
    /// * `weight`: of the rows of the batch, and of any after.
    pub(super) fn add(
        &mut self,
        batch: &Block,
        blocks: &[Range<usize>],
        weight: &[f64],
        preprocess: &Preprocess,
    ) -> Result<()> {
        let (draws, share) = (self.draws, self.share);
        let of_block = |block: &Range<usize>| {
            let (mut taken, mut missing) = (Vec::new(), vec![false; self.features.len()]);
            let mut row = vec![0.0; preprocess.n_features()];
            for i in block.clone() {
                preprocess.encode_row(batch, i, &mut row)?;
                let row = &row[self.features.clone()];
                missing.iter_mut().zip(row).for_each(|(missing, value)| *missing |= value.is_nan());
                if weight[i] > 0.0 && draws.takes(share, batch.first_row + i as u64) {
                    taken.extend_from_slice(row);
                }
            }
            Ok((taken, missing))
        };
        let found: Vec<(Vec<f64>, Vec<bool>)> = blocks.par_iter().map(of_block).collect::<Result<_>>()?;
        for (taken, missing) in &found {
            self.has_missing.iter_mut().zip(missing).for_each(|(all, one)| *all |= *one);
            for row in taken.chunks_exact(self.features.len().max(1)) {
                for (values, value) in self.values.iter_mut().zip(row).filter(|(_, value)| !value.is_nan()) {
                    values.push(*value);
                }
            }
        }
        Ok(())
    }

    /// The bins of the features. Each rank makes those of some. Collective.
    ///
    /// * `columns`: each is a feature.
    pub(super) fn bins(self, comm: &Communicator, max_bins: usize, columns: &[ColumnCode]) -> Result<Vec<FeatureBins>> {
        let columns = &columns[self.features.clone()];
        let mut missing: Vec<i32> = self.has_missing.iter().map(|missing| i32::from(*missing)).collect();
        comm.all_reduce_max(&mut missing)?;
        let owners = deal_features(&(0..=columns.len()).collect::<Vec<_>>(), comm.size());
        let mut mine: Vec<Column> = Vec::new();
        for (feature, values) in self.values.into_iter().enumerate() {
            let all = match comm.size() {
                1 => values,
                _ => Column::of(comm.all_gather(&values.into_values())?.values),
            };
            if owners[comm.rank()].contains(&feature) {
                mine.push(all);
            }
        }
        let of_columns = &columns[owners[comm.rank()].clone()];
        let ends: Vec<Vec<f64>> = mine
            .into_par_iter()
            .zip(of_columns)
            .map(|(values, column)| {
                let values = values.into_values();
                if column.is_category { counts_of(&values, column) } else { ends_of(values, max_bins) }
            })
            .collect();
        let lengths: Vec<u64> = ends.iter().map(|ends| ends.len() as u64).collect();
        let lengths = comm.all_gather(&lengths)?.values;
        let all = comm.all_gather(&ends.concat())?.values;
        let mut rest = &all[..];
        let bins = lengths.iter().zip(missing).zip(columns).map(|((&n, missing), column)| {
            let (ends, after) = rest.split_at(n as usize);
            rest = after;
            if column.is_category {
                let counts: Vec<u64> = ends.iter().map(|count| *count as u64).collect();
                return FeatureBins::of_categories(&counts, max_bins);
            }
            FeatureBins { uppers: ends.to_vec(), has_missing: missing != 0, categories: None }
        });
        Ok(bins.collect())
    }
}

/// How often each category of a column is among `values`, which are their places.
fn counts_of(values: &[f64], column: &ColumnCode) -> Vec<f64> {
    let mut counts = vec![0.0; column.categories.len().max(column.values.len())];
    values.iter().for_each(|place| counts[*place as usize] += 1.0);
    counts
}

/// Ends of the bins of values, in any order.
fn ends_of(mut values: Vec<f64>, max_bins: usize) -> Vec<f64> {
    values.sort_unstable_by_key(|value| order_key(*value));
    let mut counted: Vec<(f64, u64)> = Vec::new();
    for value in values {
        match counted.last_mut() {
            Some((last, n)) if *last == value => *n += 1,
            _ => counted.push((value, 1)),
        }
    }
    bin_ends(&counted, max_bins)
}
