//! What a rank may hold: whether its rows stay in memory, and how large buffers are where they do not. Run settings decide here,
//! and here only: nothing of this changes a bit of the answer.

use super::order::POOL_BYTES;
use super::{Solver, TrainConfig, warm_start};
use crate::comm::Communicator;
use crate::data::Schema;
use crate::data::names::Reading;
use crate::data::partition::RowPlan;
use crate::error::{Error, InContext, Result};
use std::ops::Range;

/// Less is refused: buffers that small would be read in bits and pieces.
pub const LEAST_BYTES: u64 = 32 << 20;
/// Values that are read at a time where memory does not matter.
const BATCH_VALUES: u64 = 1 << 20;
/// What the source of a table gets of a large limit.
const MOST_OF_SOURCE: u64 = 128 << 20;

/// How the rows of a table are held, on all ranks alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Rows are read for every pass.
    pub is_streamed: bool,
    /// Rows that are read together then; whole blocks, one at least.
    pub batch_rows: u64,
}

/// Values read at a time while a table is looked through: 8 bytes each, an eighth of the limit.
pub fn batch_values(limit: Option<u64>) -> u64 {
    limit.map_or(BATCH_VALUES, |limit| (limit / 64).min(BATCH_VALUES))
}

/// What the source may hold.
pub fn of_source(limit: u64) -> u64 {
    (limit / 4).min(MOST_OF_SOURCE)
}

/// Decides for all ranks. Collective.
///
/// Errors: what has to be held at any rate is more than the limit (usage).
#[allow(clippy::too_many_arguments)]
pub fn plan(
    comm: &Communicator,
    reading: &Reading,
    plan: &RowPlan,
    units: &Range<u64>,
    schema: &Schema,
    n_features: usize,
    config: &TrainConfig,
    holds_out: bool,
) -> Result<MemoryPlan> {
    let threads = rayon::current_num_threads() as u64;
    let Some(limit) = reading.max_memory else {
        return Ok(MemoryPlan { is_streamed: reading.streamed, batch_rows: threads * plan.block_rows() });
    };
    let rows = plan.rows(units.clone());
    let label_bytes = 16 + 8 * u64::from(schema.has_offset) + 8 * u64::from(holds_out);
    let row_bytes = 4 * n_features as u64 + label_bytes;
    let raw_bytes = schema.columns.len() as u64 * if schema.is_wide() { 8 } else { 4 };
    let solver = solver_bytes(plan, units, n_features, config, threads);
    let source = of_source(limit) + 8 * batch_values(Some(limit));

    let in_memory = (rows.end - rows.start).saturating_mul(row_bytes).saturating_add(source + solver.in_memory);
    let mut too_large = [i64::from(in_memory > limit || reading.streamed)];
    comm.all_reduce_max(&mut too_large)?;
    if too_large[0] == 0 {
        return Ok(MemoryPlan { is_streamed: false, batch_rows: 0 });
    }
    // Two buffers of rows that are ready, and one of rows as stored.
    let streamed_bytes = 2 * row_bytes + raw_bytes;
    let block = plan.block_rows().min(plan.n_rows()) * streamed_bytes;
    let left = limit.saturating_sub(source + solver.streamed);
    let mut needed = [(source + solver.streamed + block) as i64];
    comm.all_reduce_max(&mut needed)?;
    if needed[0] as u64 > limit {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(Error::usage(format!(
            "{}M are too few for this table and solver: buffers and sums take about {}M, however many ranks there are",
            limit >> 20,
            mib(needed[0] as u64)
        )))
        .for_flag("--max-memory");
    }
    let batch_rows = (left / 2 / streamed_bytes).min(4 * threads * plan.block_rows());
    Ok(MemoryPlan { is_streamed: true, batch_rows })
}

/// Bytes that a solver holds beside the rows.
struct SolverBytes {
    in_memory: u64,
    streamed: u64,
}

fn solver_bytes(
    plan: &RowPlan,
    units: &Range<u64>,
    n_features: usize,
    config: &TrainConfig,
    threads: u64,
) -> SolverBytes {
    let width = n_features as u64 + 1;
    // Classes are not known yet; a few scores are a guess on the small side.
    let n_blocks = plan.blocks(units.clone()).len() as u64;
    let accumulators = (threads + 1) * 36 * width * width / 2;
    let thin = warm_start::thinned_rows(plan, width as usize) * (4 * width + 24);
    let vectors = 40 * 8 * width + n_blocks * 8 * width;
    let pools = 2 * POOL_BYTES.max(config.global_batch * 4 * width);
    match config.solver {
        Solver::Sgd | Solver::Adam => SolverBytes { in_memory: vectors, streamed: vectors + pools },
        Solver::Lbfgs => SolverBytes { in_memory: vectors + thin, streamed: vectors + thin },
        Solver::Newton => SolverBytes { in_memory: vectors + accumulators, streamed: vectors + accumulators },
        _ => SolverBytes { in_memory: accumulators, streamed: accumulators },
    }
}
