//! Weighted quantiles of each leaf's rows over all ranks, exact: a digit of the answer after the other, by counts that are integers.

use super::super::binning::Column;
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::scale::pow2;
use crate::metric::auc::weight_scale;
use rayon::prelude::*;

/// Bits that a pass finds, of 32.
const DIGIT_BITS: u32 = 8;
const N_DIGITS: usize = 1 << DIGIT_BITS;
/// Rows that one task counts.
const TASK_ROWS: usize = 1 << 14;

/// A quantile of rows that count by their weight.
pub(super) struct Quantiles<'a> {
    /// By local row.
    weight: &'a Column,
    /// Weights are counted as integers after so many doublings: see [`weight_scale`].
    scale: i32,
    /// Above 0, below 1.
    share: f64,
}

impl<'a> Quantiles<'a> {
    /// `total_weight`: over all ranks. Collective.
    pub(super) fn new(comm: &Communicator, weight: &'a Column, total_weight: f64, share: f64) -> Result<Quantiles<'a>> {
        let is_weighted = (0..weight.len()).any(|row| ![0.0, 1.0].contains(&weight.get(row)));
        let is_weighted = comm.agree_any(is_weighted)?;
        Ok(Quantiles { weight, scale: weight_scale(is_weighted, total_weight), share })
    }

    /// The least value of each leaf that at least this share of its weight does not exceed; 0 for a leaf without weight. Collective.
    ///
    /// * `leaves`: rows here of each leaf.
    /// * `value`: of a row.
    pub(super) fn of_leaves(
        &self,
        comm: &Communicator,
        leaves: &[&[u32]],
        value: impl Fn(usize) -> f32 + Sync,
    ) -> Result<Vec<f64>> {
        let up = pow2(self.scale);
        // Found digits of each leaf's answer, and the weight that is to be reached among the values that begin with them.
        let (mut found, mut wanted) = (vec![0u32; leaves.len()], vec![None; leaves.len()]);
        let tasks: Vec<(usize, &[u32])> = leaves
            .iter()
            .enumerate()
            .flat_map(|(leaf, rows)| rows.chunks(TASK_ROWS).map(move |rows| (leaf, rows)))
            .collect();
        for shift in (0..u32::BITS).step_by(DIGIT_BITS as usize).rev() {
            let counts = tasks.par_iter().map(|(leaf, rows)| {
                let mut counts = [0u64; N_DIGITS];
                for row in *rows {
                    let key = key_of(value(*row as usize));
                    if u64::from(key ^ found[*leaf]) >> (shift + DIGIT_BITS) == 0 {
                        let weight = (self.weight.get(*row as usize) * up).round_ties_even() as u64;
                        counts[(key >> shift) as usize % N_DIGITS] += weight;
                    }
                }
                counts
            });
            let mut sums = vec![0u64; leaves.len() * N_DIGITS];
            for ((leaf, _), counts) in tasks.iter().zip(counts.collect::<Vec<_>>()) {
                sums[leaf * N_DIGITS..][..N_DIGITS].iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            comm.all_reduce_sum(&mut sums)?;
            for ((sums, found), wanted) in sums.chunks_exact(N_DIGITS).zip(&mut found).zip(&mut wanted) {
                let of_all: u64 = sums.iter().sum();
                let mut left =
                    wanted.unwrap_or_else(|| ((of_all as f64 * self.share).ceil() as u64).clamp(1, of_all.max(1)));
                let digit = sums.iter().position(|weight| {
                    let is_reached = *weight >= left;
                    left -= if is_reached { 0 } else { *weight };
                    is_reached
                });
                *found |= (digit.unwrap_or(0) as u32) << shift;
                // Nothing has weight here: no value is to be found.
                *wanted = Some(if digit.is_some() { left } else { u64::MAX });
            }
        }
        let value =
            |(key, wanted): (u32, Option<u64>)| if wanted == Some(u64::MAX) { 0.0 } else { value_of(key).into() };
        Ok(found.into_iter().zip(wanted).map(value).collect())
    }
}

/// In the order of the numbers; −0 below +0.
fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;
    use crate::data::partition::Partition;
    use crate::rng::{Draws, Stream};

    /// By sorting.
    fn plain(rows: &[usize], values: &[f32], weight: &[f64], share: f64) -> f64 {
        let mut sorted: Vec<(f32, f64)> = rows.iter().map(|row| (values[*row], weight[*row])).collect();
        sorted.retain(|(_, w)| *w > 0.0);
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        let total: f64 = sorted.iter().map(|(_, w)| w).sum();
        let mut sum = 0.0;
        sorted
            .iter()
            .find(|(_, w)| {
                sum += w;
                sum >= total * share
            })
            .map_or(0.0, |(value, _)| f64::from(*value))
    }

    #[test]
    fn quantiles_are_those_of_sorted_rows_on_any_number_of_ranks() {
        for (n, n_leaves, is_weighted) in [(1, 1, false), (50, 3, false), (40_001, 7, false), (3_000, 5, true)] {
            let draws = Draws::new(n, Stream::Synthetic);
            let values: Vec<f32> = (0..n).map(|row| ((draws.normal(row, 0) * 16.0).round() / 8.0) as f32).collect();
            // Weights whose sums are exact, so that the plain way has no errors of its own.
            let weight: Vec<f64> =
                (0..n).map(|row| if is_weighted { draws.below(5, row, 2) as f64 / 4.0 } else { 1.0 }).collect();
            let leaf_of: Vec<usize> = (0..n).map(|row| draws.below(n_leaves, row, 3) as usize).collect();
            let n = n as usize;
            for share in [0.5, 0.1, 0.99] {
                let right: Vec<f64> = (0..n_leaves as usize)
                    .map(|leaf| (0..n).filter(|row| leaf_of[*row] == leaf).collect::<Vec<_>>())
                    .map(|rows| plain(&rows, &values, &weight, share))
                    .collect();
                for ranks in [1, 2, 3] {
                    let found = run_threads(ranks, 2, |comm| {
                        let mine = Partition::new(n as u64, ranks).units_of(comm.rank());
                        let (first, end) = (mine.start as usize, mine.end as usize);
                        let rows = |leaf: usize| {
                            (first..end)
                                .filter(|row| leaf_of[*row] == leaf)
                                .map(|row| (row - first) as u32)
                                .collect::<Vec<_>>()
                        };
                        let leaves: Vec<Vec<u32>> = (0..n_leaves as usize).map(rows).collect();
                        let leaves: Vec<&[u32]> = leaves.iter().map(|rows| &rows[..]).collect();
                        let of_rows = Column::of(weight[first..end].to_vec());
                        let quantiles = Quantiles::new(comm, &of_rows, weight.iter().sum(), share)?;
                        quantiles.of_leaves(comm, &leaves, |row| values[first + row])
                    });
                    assert!(found.unwrap().into_iter().all(|found| found == right), "{n} rows, {ranks} ranks, {share}");
                }
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_numbers() {
        let sorted = [f32::NEG_INFINITY, -2.5, -1e-40, -0.0, 0.0, 1e-40, 2.5, f32::INFINITY];
        assert!(sorted.windows(2).all(|pair| key_of(pair[0]) < key_of(pair[1])));
        assert!(sorted.iter().all(|value| value_of(key_of(*value)).to_bits() == value.to_bits()));
    }
}
