//! What a rank holds while it boosts, and whether its records stay in memory. Nothing of this changes a bit of the model.

use super::super::gather::Reader;
use super::super::{Reading, memory};
use crate::comm::Communicator;
use crate::config::BoostConfig;
use crate::data::binned::{FeatureBins, deal_features, offsets_of};
use crate::error::{Error, InContext, Result};
use crate::grow::{MOST_ROWS, Records, histogram_bytes};
use std::ops::Range;

/// Rows of a page: fewer where memory is tight, but reading fewer at a time is slow.
const PAGE_ROWS: u64 = 1 << 16;
const LEAST_PAGE_ROWS: u64 = 1 << 9;

/// Features whose values are sampled in one pass over the table, pass by pass; the same on every rank. Collective.
///
/// * `reader`: of the rows here.
/// * `n_all_rows`: of the whole table.
pub(super) fn groups(
    comm: &Communicator,
    reading: &Reading,
    boost: &BoostConfig,
    reader: &Reader<'_>,
    n_features: usize,
    n_all_rows: u64,
) -> Result<Vec<Range<usize>>> {
    let mut most = [i64::MAX];
    if let Some(limit) = reading.max_memory {
        let n_rows = reader.n_rows();
        let read = memory::of_source(limit) + 8 * memory::batch_values(Some(limit)) + 16 * n_rows as u64;
        // Of a feature: values sampled here while they grow, and those of all ranks, sorted and counted by each thread.
        let sampled = boost.bin_sample.min(n_all_rows);
        let here = (sampled as f64 * n_rows as f64 / n_all_rows.max(1) as f64) as u64;
        let left = memory::usable(limit).saturating_sub(read + 32 * sampled * rayon::current_num_threads() as u64);
        most[0] = (left / (2 * 8 * here).max(1)) as i64;
    }
    comm.all_reduce_min(&mut most)?;
    let most = usize::try_from(most[0]).unwrap_or(usize::MAX).clamp(1, n_features.max(1));
    Ok((0..n_features.max(1)).step_by(most).map(|first| first..n_features.min(first + most)).collect())
}

/// A rank's rows and what is kept of each beside its record.
pub(super) struct RowBytes {
    pub(super) n_rows: usize,
    /// Target, weight, scores, pairs, leaf.
    pub(super) of_row: u64,
}

/// Of records that do not fit into memory, the rows of a page; None: they fit. The same on all ranks, but for the rows. Collective.
///
/// Errors: more rows than a rank takes; what has to be in memory at any rate does not fit into it (usage).
pub(super) fn plan(
    comm: &Communicator,
    reading: &Reading,
    rows: &RowBytes,
    bins: &[FeatureBins],
    max_leaves: u64,
) -> Result<Option<usize>> {
    let n_rows = rows.n_rows as u64;
    let record_bytes = Records::bytes_of_row(bins) as u64;
    let offsets = offsets_of(bins);
    let mine = deal_features(&offsets, comm.size())[comm.rank()].clone();
    let n_mine = offsets[mine.end] - offsets[mine.start];
    let of_records = record_bytes.saturating_mul(n_rows);
    let of_histograms = histogram_bytes(bins, n_mine as u64, max_leaves, comm.size());
    let at_any_rate = of_histograms.saturating_add(rows.of_row * n_rows);
    let threads = rayon::current_num_threads() as u64;
    let page_rows = |left: u64| (left / 2 / threads / record_bytes).min(PAGE_ROWS);
    let fits = match reading.max_memory {
        _ if rows.n_rows > MOST_ROWS => Err(Error::usage(format!(
            "boost takes at most {MOST_ROWS} rows a rank, and this one has {n_rows}: take more ranks"
        ))),
        // Trees may have far fewer leaves than they are allowed: only rows are sure to be there.
        None => memory::check_machine(of_records.saturating_add(rows.of_row * n_rows))
            .map(|()| (!reading.streamed, LEAST_PAGE_ROWS)),
        Some(limit) => {
            let left = |limit: u64| {
                let of_reading = memory::of_source(limit) + 8 * memory::batch_values(Some(limit));
                memory::usable(limit).saturating_sub(at_any_rate.saturating_add(of_reading))
            };
            let is_enough = |limit: u64| page_rows(left(limit)) >= LEAST_PAGE_ROWS || left(limit) >= of_records;
            match is_enough(limit) {
                false => Err(Error::usage(format!(
                    "{}M are too few: targets, scores and gradients of this rank's rows and histograms of {max_leaves} leaves want \
                     {}M; more ranks have fewer rows and features each, fewer --max-leaves or --max-bins smaller histograms",
                    limit >> 20,
                    least(limit >> 20, |mega_bytes| is_enough(mega_bytes << 20))
                )))
                .for_flag("--max-memory"),
                true => Ok((of_records <= left(limit) && !reading.streamed, page_rows(left(limit)))),
            }
        }
    };
    let (fits, page_rows) = comm.agree(fits)?;
    Ok(comm.agree_any(!fits)?.then_some(page_rows.max(1) as usize))
}

/// The least number above one that is not enough that is, if a few more are never worse.
fn least(not_enough: u64, is_enough: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (not_enough, 2 * not_enough.max(1));
    while !is_enough(high) && high < 1 << 40 {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_enough(middle) { high = middle } else { low = middle }
    }
    high
}
