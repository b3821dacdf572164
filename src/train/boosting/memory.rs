//! What a rank holds while it boosts, and whether its records stay in memory. Nothing of this changes a bit of the model.

use super::super::{Reading, memory};
use crate::comm::Communicator;
use crate::data::binned::{FeatureBins, deal_features, offsets_of};
use crate::error::{Error, InContext, Result};
use crate::grow::{MOST_ROWS, Records, histogram_bytes};

/// Rows of a page: fewer where memory is tight, but reading fewer at a time is slow.
const PAGE_ROWS: u64 = 1 << 16;
const LEAST_PAGE_ROWS: u64 = 1 << 9;

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
        None => memory::check_machine("rows", of_records.saturating_add(rows.of_row * n_rows))
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
                    memory::least(limit >> 20, |mega_bytes| is_enough(mega_bytes << 20))
                )))
                .for_flag("--max-memory"),
                true => Ok((of_records <= left(limit) && !reading.streamed, page_rows(left(limit)))),
            }
        }
    };
    let (fits, page_rows) = comm.agree(fits)?;
    Ok(comm.agree_any(!fits)?.then_some(page_rows.max(1) as usize))
}
