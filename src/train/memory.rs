//! What a rank may hold: whether its rows stay in memory, and how large buffers are where they do not. Run settings decide here,
//! and here only: nothing of this changes a bit of the answer.

use super::order::{POOL_BYTES, row_bytes};
use super::{Solver, TrainConfig, warm_start};
use crate::comm::Communicator;
use crate::config::{MlpConfig, Precision, Sync};
use crate::data::names::Reading;
use crate::data::partition::RowPlan;
use crate::data::{DataSource, ValueCount};
use crate::error::{Error, InContext, Result};
use crate::model::Preprocess;
use std::ops::Range;

/// Less is refused: buffers that small would be read in bits and pieces.
pub const LEAST_BYTES: u64 = 32 << 20;
/// Values that are read at a time where memory does not matter.
const BATCH_VALUES: u64 = 1 << 20;
/// What one more reader holds of each column.
const NAME_BYTES: u64 = 64;
/// What the source of a table gets of a large limit.
const MOST_OF_SOURCE: u64 = 128 << 20;

/// How the rows of a table are held, on all ranks alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Rows are read for every pass.
    pub is_streamed: bool,
    /// Readers then, each on a thread of its own with rows of its own; at least one.
    pub n_readers: u64,
    /// Rows that one of them reads at a time; whole blocks, one at least.
    pub piece_rows: u64,
    /// Rows that are read together where all threads work on the same, the next ones meanwhile; whole blocks, one at least.
    pub batch_rows: u64,
    /// Rows that stay in memory beside those.
    pub kept_rows: u64,
    /// What the source of each reader may hold. None: what it likes.
    pub source_bytes: Option<u64>,
}

/// Values read at a time while a table is looked through: 8 bytes each, an eighth of what there is.
pub fn batch_values(limit: Option<u64>) -> u64 {
    limit.map_or(BATCH_VALUES, |limit| (usable(limit) / 64).min(BATCH_VALUES))
}

/// What the source may hold.
pub fn of_source(limit: u64) -> u64 {
    (usable(limit) / 4).min(MOST_OF_SOURCE)
}

/// What may be held of rows that are measured, beside what is trained on.
pub fn of_measuring(limit: u64) -> u64 {
    usable(limit) / 8
}

/// A quarter is left to what is not counted: decoders, stacks of threads, holes between what was freed and what is held; of a
/// large limit 256 MiB.
pub fn usable(limit: u64) -> u64 {
    limit - (limit / 4).min(256 << 20)
}

/// Decides for all ranks. Collective.
///
/// `keeps`: checkpoints are written, and may be taken up.
///
/// Errors: what has to be held at any rate is more than the limit (usage).
#[allow(clippy::too_many_arguments)]
pub fn plan(
    comm: &Communicator,
    reading: &Reading,
    plan: &RowPlan,
    units: &Range<u64>,
    source: &dyn DataSource,
    count: ValueCount,
    preprocess: &Preprocess,
    config: &TrainConfig,
    holds_out: bool,
    keeps: bool,
) -> Result<MemoryPlan> {
    let threads = rayon::current_num_threads() as u64;
    let Some(limit) = reading.max_memory else {
        let rows = plan.rows(units.clone());
        let values = if source.schema().is_sparse {
            count.total * 8
        } else {
            (rows.end - rows.start).saturating_mul(4 * preprocess.n_features() as u64)
        };
        let of_network = network_bytes(plan, units, preprocess.n_features(), config, keeps);
        comm.agree(check_machine("network", of_network))?;
        comm.agree(check_machine("rows", values.saturating_add((rows.end - rows.start).saturating_mul(16))))?;
        let batch_rows = threads * plan.block_rows();
        return Ok(MemoryPlan {
            is_streamed: reading.streamed,
            n_readers: threads,
            piece_rows: 2 * plan.block_rows(),
            batch_rows,
            kept_rows: 2 * batch_rows,
            source_bytes: None,
        });
    };
    let (schema, n_features) = (source.schema(), preprocess.n_features());
    let rows = plan.rows(units.clone());
    let n_targets = schema.n_targets().max(1) as u64;
    let label_bytes = 8 + 8 * n_targets + 8 * u64::from(schema.has_offset) + 8 * u64::from(holds_out);
    let of = if schema.is_sparse { ValueBytes::SPARSE } else { ValueBytes::dense(schema.is_wide()) };
    // Encoded features are at least as many as the columns they come from.
    let n_values = if schema.is_sparse { count.total } else { (rows.end - rows.start) * n_features as u64 };
    let row_values = if schema.is_sparse { count.per_row } else { n_features as u64 };
    let row_bytes = of.ready * row_values + label_bytes;
    let is_one_kind = !schema.is_sparse && !schema.is_wide() && preprocess.is_plain();
    // What a row has beyond its columns is text.
    let text_bytes = if schema.is_sparse { 0 } else { 8 * count.per_row.saturating_sub(schema.columns.len() as u64) };
    let raw_values = if schema.is_sparse { count.per_row } else { schema.columns.len() as u64 };
    let raw_bytes = text_bytes + if is_one_kind { 0 } else { of.raw * raw_values };
    let mut solver = solver_bytes(plan, units, schema.is_sparse, row_values, n_features, config, threads);
    let of_network = network_bytes(plan, units, n_features, config, keeps);
    solver.in_memory = solver.in_memory.saturating_add(of_network);
    solver.streamed = solver.streamed.saturating_add(of_network);
    if config.solver.is_mini_batch() {
        solver.streamed += of_targets(config, if schema.is_sparse { 0 } else { n_features }, n_targets);
    }
    // At least one block is read at a time.
    let of_block =
        if schema.is_sparse || text_bytes > 0 { count.per_row * plan.block_rows().min(plan.n_rows()) } else { 0 };
    let batch = batch_values(Some(limit)).max(of_block);
    let chunk_rows = source.chunk_rows();
    let of_source = of_source(limit);
    let source = of_source + of.read * batch + of.column * n_features as u64;
    let of_measuring = if holds_out { of_measuring(limit) } else { 0 };
    let (typed, limit) = (limit, usable(limit));

    // Labels as stored stay until all rows are read.
    let stored_bytes = 8 * (n_targets + u64::from(schema.has_weight) + u64::from(schema.has_offset));
    let held = (rows.end - rows.start) * (label_bytes + stored_bytes);
    let held = of.ready.saturating_mul(n_values).saturating_add(held);
    let in_memory = held.saturating_add(source + solver.in_memory);
    let mut too_large = [i64::from(in_memory > limit - of_measuring || reading.streamed)];
    comm.all_reduce_max(&mut too_large)?;
    if too_large[0] == 0 {
        return Ok(MemoryPlan::default());
    }
    // Pools are gone when rows are measured.
    let of_measuring = if config.solver.is_mini_batch() { 0 } else { of_measuring };
    let limit = limit - of_measuring;
    // Two buffers of rows that are ready, and one of rows as stored where those are others.
    let streamed_bytes = 2 * row_bytes + raw_bytes;
    let block = plan.block_rows().min(plan.n_rows()) * streamed_bytes;
    let left = limit.saturating_sub(source + solver.streamed);
    // Of these the source and the batch that is read grow with the limit.
    let fixed = solver.streamed + block + of.column * n_features as u64;
    let mut needed = [(source + solver.streamed + block) as i64, fixed as i64, batch as i64];
    comm.all_reduce_max(&mut needed)?;
    if needed[0] as u64 > limit {
        let fixed = (needed[1] as u64 + of.read * if of_block > 0 { needed[2] as u64 } else { 0 }) as f64;
        let mut share = 0.25 + if of_block > 0 { 0.0 } else { of.read as f64 / 64.0 };
        share += if of_measuring > 0 { 0.125 } else { 0.0 };
        return Err(Error::usage(format!(
            "{}M are too few for this table and solver: buffers and sums take about {}M, however many ranks there are",
            typed >> 20,
            (fixed / (1.0 - share) / 3.0 * 4.0 / f64::from(1 << 20)) as u64 + 1
        )))
        .for_flag("--max-memory");
    }
    // A piece is one chunk at least, wherever blocks begin. Readers of other threads have names of columns of their own.
    let piece_rows = plan.block_rows() + chunk_rows.max(plan.block_rows());
    let of_reader = piece_rows.saturating_mul(row_bytes + raw_bytes).saturating_add(NAME_BYTES * n_features as u64);
    let n_readers = (left / of_reader).clamp(1, threads);
    let piece_rows = piece_rows.min(left / n_readers / (row_bytes + raw_bytes));
    // The buffers of readers and those of batches are never there together.
    let room = (left / 2).max(n_readers * of_reader).max(block).min(left);
    let enough = threads * (4 * plan.block_rows()).max(chunk_rows.saturating_mul(2)) + plan.block_rows();
    let batch_rows = (room / streamed_bytes).min(enough);
    let used = block.max(batch_rows * streamed_bytes).max(n_readers.saturating_mul(of_reader));
    let kept_rows = match config.solver.is_mini_batch() {
        true => 0, // they go by pools of rows from everywhere
        false => left.saturating_sub(used) / row_bytes,
    };
    let source_bytes = Some(of_source / n_readers);
    Ok(MemoryPlan { is_streamed: true, n_readers, piece_rows, batch_rows, kept_rows, source_bytes })
}

/// Errors: what no memory of this machine can hold, such as rows (usage). The system would end the job without a word.
pub fn check_machine(what: &str, wanted: u64) -> Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match total {
        Some(kib) if wanted / 1024 > kib => {
            let way_out = match what {
                "network" => "choose smaller --layers, or a smaller --global-batch",
                _ => "say with --max-memory what a rank may take, or take more nodes",
            };
            let (wanted, there) = (wanted >> 30, kib >> 20);
            Err(Error::usage(format!("a rank's {what} takes {wanted} GiB and this machine has {there} GiB; {way_out}")))
        }
        _ => Ok(()),
    }
}

/// What a value takes.
struct ValueBytes {
    /// Standardised; of sparse rows with its column.
    ready: u64,
    /// As stored, in a batch.
    raw: u64,
    /// While it is read.
    read: u64,
    /// A column's names in all the places that know them.
    column: u64,
}

impl ValueBytes {
    /// Columns are read as int64 and values as float64 before they become a row.
    const SPARSE: ValueBytes = ValueBytes { ready: 8, raw: 12, read: 28, column: 400 };

    fn dense(is_wide: bool) -> ValueBytes {
        ValueBytes { ready: 4, raw: if is_wide { 8 } else { 4 }, read: 8, column: 0 }
    }
}

/// What all targets but the first take in two pools, which are cut as if each row had one.
fn of_targets(config: &TrainConfig, n_features: usize, n_targets: u64) -> u64 {
    let pool_rows = POOL_BYTES / row_bytes(n_features);
    2 * pool_rows.max(config.global_batch) * 8 * (n_targets - 1)
}

/// What a network, its optimiser and the rows on their way through it take; 0 of other models.
///
/// `keeps`: checkpoints are written, and may be taken up.
pub(super) fn network_bytes(
    plan: &RowPlan,
    units: &Range<u64>,
    n_features: usize,
    config: &TrainConfig,
    keeps: bool,
) -> u64 {
    let Some(mlp) = &config.mlp else { return 0 };
    let lanes = units.end - units.start;
    // Parameters as they are, turned, at the start and as float64 twice (32), gradients twice (8), moments (8), and what they are written as (12), or a
    // checkpoint of them as numbers and as bytes (24).
    let mut of_weight = if keeps { 72 } else { 60 };
    // Copies that are measured, and the best ones.
    of_weight += if config.early_stop > 0 { 24 } else { 0 } + if config.average.is_some() { 8 } else { 0 };
    of_weight += lanes * lane_bytes(mlp, config, keeps);
    // Sums apart from words.
    of_weight += if mlp.top_k.is_some() || mlp.powersgd.is_some() { 8 } else { 0 };
    // Numbers that travel with their places: of each lane here, of this rank, and of all.
    let (here, all) = (lanes as f64, plan.n_lanes() as f64);
    of_weight +=
        mlp.top_k.map_or(0, |share| (8.0 * (share * here + (share * here).min(1.0) + share * all)).ceil() as u64);
    // Thin matrices: of each lane what it sends, twice while it is put together; of the rank their words, sums, columns at right angles, and those in float64.
    let of_matrices = mlp.powersgd.map_or(0, |rank| mlp.n_of_rank(n_features, rank).saturating_mul(8 * lanes + 24));
    let rows = lanes * (config.global_batch / plan.n_lanes().max(1)).min(plan.longest_lane());
    // Forward and back, float32; and what products see, where that is rounded.
    let of_value = if mlp.precision == Precision::Bf16 { 12 } else { 8 };
    let of_values = mlp.n_values_of_row(n_features).saturating_mul(of_value);
    // Numbers, weights, losses, targets and scores.
    const OF_ROW: u64 = 64;
    let of_row = of_values.saturating_add(mlp.n_packed_of_row(n_features).saturating_mul(4)).saturating_add(OF_ROW);
    let of_rows = rows.saturating_mul(of_row);
    mlp.n_weights(n_features).saturating_mul(of_weight).saturating_add(of_matrices).saturating_add(of_rows)
}

/// What each lane here keeps for itself of a weight, and the same twice as float64 when it is taken up from a checkpoint, once as bytes or apart.
fn lane_bytes(mlp: &MlpConfig, config: &TrainConfig, keeps: bool) -> u64 {
    let in_checkpoint = if keeps { 16 } else { 0 };
    // What it has not sent.
    let left = if mlp.compressions().is_empty() { 0 } else { 4 + in_checkpoint };
    if config.sync == Sync::Step {
        return left;
    }
    let n_of_optimizer = match config.solver {
        Solver::Adam | Solver::Adamw | Solver::Lamb => 2,
        _ => 1,
    };
    let direction = if config.solver == Solver::Lamb { 4 } else { 0 };
    // Parameters as they are and turned, and gradients.
    let own = 12 + 4 * n_of_optimizer + direction + in_checkpoint * (1 + n_of_optimizer);
    // Lanes part while what they had together is still there.
    left + own
}

/// Bytes that a solver holds beside the rows.
struct SolverBytes {
    in_memory: u64,
    streamed: u64,
}

fn solver_bytes(
    plan: &RowPlan,
    units: &Range<u64>,
    is_sparse: bool,
    row_values: u64,
    n_features: usize,
    config: &TrainConfig,
    threads: u64,
) -> SolverBytes {
    let width = n_features as u64 + 1;
    // Classes are not known yet; a few scores are a guess on the small side.
    let n_blocks = plan.blocks(units.clone()).len() as u64;
    let accumulators = (threads + 1) * 36 * width * width / 2;
    if is_sparse && !config.solver.is_direct() && config.solver != Solver::Newton && config.solver != Solver::Cd {
        // One gradient for each thread, or for each lane; nothing for each block.
        let lanes = units.end - units.start;
        let gradients = if config.solver.is_mini_batch() { lanes * 24 * width } else { (threads + 1) * 36 * width };
        let pools = 2 * POOL_BYTES.max(config.global_batch * (row_bytes(0) + 8 * row_values)) * 5 / 4;
        let vectors = 40 * 8 * width + gradients;
        return SolverBytes { in_memory: vectors, streamed: vectors + pools };
    }
    let thin = warm_start::thinned_rows(plan, width as usize) * (4 * width + 24);
    let vectors = 40 * 8 * width + n_blocks * 8 * width;
    // Rows of two pools, and the order of one.
    let pools = 2 * POOL_BYTES.max(config.global_batch * row_bytes(n_features)) * 5 / 4;
    match config.solver {
        solver if solver.is_mini_batch() => SolverBytes { in_memory: vectors, streamed: vectors + pools },
        Solver::Lbfgs => SolverBytes { in_memory: vectors + thin, streamed: vectors + thin },
        Solver::Newton => SolverBytes { in_memory: vectors + accumulators, streamed: vectors + accumulators },
        _ => SolverBytes { in_memory: accumulators, streamed: accumulators },
    }
}

/// The least number above one that is not enough that is, if a few more are never worse.
pub(super) fn least(not_enough: u64, is_enough: impl Fn(u64) -> bool) -> u64 {
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
