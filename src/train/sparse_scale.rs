//! Scales of the columns of a sparse table: 1/standard deviation over all rows, those without a value counted as 0. Columns are
//! not centred, so that zeros stay zeros.
//!
//! Moments are sums over the values that are there; what the other rows add follows from their weight. A block's share is 0 but
//! for the columns that it has values in, and becomes integers at once, at exponents that follow from the range of each column
//! (`EXACT` 2c.1): time and memory go with values and columns, not with blocks × columns.

use super::gather::{Reader, weights_of};
use super::prepare::{Fitted, HeldOut, MOST_SHIFTS, too_large, widest};
use super::sums::sum_scalars;
use super::table::share_out;
use crate::comm::Communicator;
use crate::data::Block;
use crate::data::moments::standardisation;
use crate::data::partition::RowPlan;
use crate::error::Result;
use crate::exact::scale::{bounding_exponent, ceil_log2, from_order_key, order_key};
use crate::exact::{BoundedSums, ExactSum};
use crate::model::Preprocess;
use std::ops::Range;

/// What the values of each column span, over rows of weight > 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranges {
    /// +∞ where there is no value.
    min: Vec<f64>,
    /// −∞ where there is no value.
    max: Vec<f64>,
    /// Rows with a value.
    present: Vec<u64>,
    n_rows: u64,
    weight: [ExactSum; 1],
    largest_weight: f64,
}

impl Ranges {
    pub(super) fn new(n_columns: usize) -> Ranges {
        Ranges {
            min: vec![f64::INFINITY; n_columns],
            max: vec![f64::NEG_INFINITY; n_columns],
            present: vec![0; n_columns],
            n_rows: 0,
            weight: [ExactSum::new()],
            largest_weight: 0.0,
        }
    }

    /// Adds the rows of a batch. Not collective. Errors: missing values that are not taken.
    pub(super) fn add(&mut self, batch: &Block, preprocess: &Preprocess, weight: &[f64]) -> Result<()> {
        for i in 0..batch.n_rows {
            let counts = weight[i] > 0.0;
            if counts {
                self.n_rows += 1;
                self.weight[0].add(weight[i]);
                self.largest_weight = if weight[i] > self.largest_weight { weight[i] } else { self.largest_weight };
            }
            preprocess.each_stored(batch, i, |j, x| {
                if counts {
                    self.present[j] += 1;
                    self.min[j] = if x < self.min[j] { x } else { self.min[j] };
                    self.max[j] = if x > self.max[j] { x } else { self.max[j] };
                }
            })?;
        }
        Ok(())
    }

    /// Those of all ranks, 0 among the values of columns that some row lacks; and the total weight. Collective.
    fn agreed(&self, comm: &Communicator) -> Result<(Ranges, f64)> {
        let d = self.min.len();
        // Minima first, then negated maxima, so that one MIN serves both.
        let negated = self.max.iter().chain([&self.largest_weight]).map(|x| -x);
        let mut keys: Vec<i64> = self.min.iter().copied().chain(negated).map(order_key).collect();
        comm.all_reduce_min(&mut keys)?;
        let mut counts = self.present.clone();
        counts.push(self.n_rows);
        comm.all_reduce_sum(&mut counts)?;
        let weight = sum_scalars(comm, &self.weight)?;
        let n_rows = counts.pop().expect("the rows are last");
        let mut all = Ranges {
            min: keys[..d].iter().map(|&key| from_order_key(key)).collect(),
            max: keys[d..2 * d].iter().map(|&key| -from_order_key(key)).collect(),
            largest_weight: -from_order_key(keys[2 * d]),
            present: counts,
            n_rows,
            weight,
        };
        for j in (0..d).filter(|j| all.present[*j] < n_rows) {
            all.min[j] = if all.min[j] > 0.0 { 0.0 } else { all.min[j] };
            all.max[j] = if all.max[j] < 0.0 { 0.0 } else { all.max[j] };
        }
        let total = all.weight[0].value().unwrap_or(f64::INFINITY);
        Ok((all, total))
    }
}

/// Finds the scales of all columns; their means are 0. Collective.
pub(super) fn fit(
    comm: &Communicator,
    plan: &RowPlan,
    reader: &mut Reader<'_>,
    ranges: &Ranges,
    seed: u64,
    hold: Option<HeldOut>,
    preprocess: &mut Preprocess,
) -> Result<Fitted> {
    let (ranges, weight) = ranges.agreed(comm)?;
    let d = ranges.min.len();
    let refused = |j: usize| too_large(preprocess, &ranges.min, &ranges.max, j);
    let mut shift = vec![0.0; d];
    let mut found = None;
    for _ in 0..=MOST_SHIFTS {
        let Some(mut total) = moments(comm, plan, reader, &ranges, seed, hold, preprocess, &shift)? else {
            return Err(refused(widest(&ranges.min, &ranges.max)));
        };
        // What rows without a value add: x = 0.
        for j in 0..d {
            let absent = if ranges.present[j] < ranges.n_rows { weight - total[j] } else { 0.0 };
            total[j] = if weight > 0.0 { weight } else { 0.0 };
            total[d + j] -= absent * shift[j];
            total[2 * d + j] += absent * (shift[j] * shift[j]);
        }
        let standardised = standardisation(&total, &ranges.min, &ranges.max, &shift).map_err(refused)?;
        let cancels = standardised.cancels;
        shift.clone_from(&standardised.mean);
        found = Some(standardised);
        if !cancels {
            break;
        }
    }
    let inverse_scale = found.map(|found| found.inverse_scale).unwrap_or_default();
    preprocess.mean = vec![0.0; d];
    preprocess.inverse_scale = inverse_scale;
    Ok(Fitted { min: ranges.min.clone(), max: ranges.max.clone(), cancels: false })
}

/// Moments of one thread.
struct Partial {
    sums: BoundedSums,
    /// (3, columns) of one block; zeros before and after it.
    block: Vec<f64>,
    touched: Vec<(usize, f64)>,
    failed: Result<()>,
}

/// Σw, Σw(x−c) and Σw(x−c)² of the values that are there, (3, columns). None: beyond the range of float64. Collective.
#[allow(clippy::too_many_arguments)]
fn moments(
    comm: &Communicator,
    plan: &RowPlan,
    reader: &mut Reader<'_>,
    ranges: &Ranges,
    seed: u64,
    hold: Option<HeldOut>,
    preprocess: &Preprocess,
    shift: &[f64],
) -> Result<Option<Vec<f64>>> {
    let d = shift.len();
    let base = bounding_exponent(ranges.largest_weight) + ceil_log2(plan.block_rows()) as i32 + 2;
    let farthest = |j: usize| {
        let ends = [(ranges.min[j] - shift[j]).abs(), (ranges.max[j] - shift[j]).abs()];
        let far = if ends[0] > ends[1] { ends[0] } else { ends[1] };
        bounding_exponent(if ranges.present[j] > 0 { far } else { 0.0 })
    };
    let far: Vec<i32> = (0..d).map(farthest).collect();
    let of_power = |power: i32| far.iter().map(move |e| if power == 0 { base } else { base + power * (e + 1) });
    let exponents: Vec<i32> = (0..3).flat_map(of_power).collect();
    let n_threads = rayon::current_num_threads().max(1);
    let new = || Partial {
        sums: BoundedSums::new(exponents.clone(), plan.n_blocks()),
        block: vec![0.0; 3 * d],
        touched: Vec::new(),
        failed: Ok(()),
    };
    let mut all: Vec<Partial> = (0..n_threads).map(|_| new()).collect();
    let passed = reader.pass(|batch, blocks| {
        let weights = weights_of(batch, seed, hold);
        share_out(&mut all, blocks, |partial, rows| partial.add(batch, rows, preprocess, &weights, shift));
        Ok(())
    });
    let merged = passed.and_then(|()| {
        let mut all = all.into_iter();
        let Partial { mut sums, mut failed, .. } = all.next().expect("at least one thread");
        for other in all {
            sums.merge(&other.sums);
            failed = failed.and(other.failed);
        }
        failed.map(|()| sums)
    });
    let sums = comm.agree(merged)?;
    let mut words = sums.to_words();
    comm.all_reduce_sum(&mut words)?;
    Ok(sums.finish(&words))
}

impl Partial {
    fn add(&mut self, batch: &Block, rows: Range<usize>, preprocess: &Preprocess, weight: &[f64], shift: &[f64]) {
        let d = shift.len();
        for i in rows.clone().filter(|i| weight[*i] > 0.0) {
            let added = preprocess.each_stored(batch, i, |j, x| {
                let from_shift = x - shift[j];
                self.block[j] += weight[i];
                self.block[d + j] += weight[i] * from_shift;
                self.block[2 * d + j] += weight[i] * (from_shift * from_shift);
            });
            self.failed = std::mem::replace(&mut self.failed, Ok(())).and(added);
        }
        self.touched.clear();
        for i in rows.filter(|i| weight[*i] > 0.0) {
            let taken = preprocess.each_stored(batch, i, |j, _| {
                for at in [j, d + j, 2 * d + j] {
                    let value = std::mem::take(&mut self.block[at]);
                    if value != 0.0 {
                        self.touched.push((at, value));
                    }
                }
            });
            self.failed = std::mem::replace(&mut self.failed, Ok(())).and(taken);
        }
        self.sums.add_sparse(&self.touched);
    }
}
