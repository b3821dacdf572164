//! The order in which a lane takes its rows in an epoch: runs of rows in random order, rows in random order inside a bounded pool.
//!
//! A table that is read from disk would be read row by row under a full shuffle. Here runs of consecutive rows are permuted, and
//! the rows of a pool of runs among themselves, so that a pool is all that has to be in memory. A lane that fits into one pool
//! is shuffled as a whole. Both permutations are a function of (seed, epoch, lane): in memory and streamed the order is the same.

use crate::rng::{Draws, Stream};
use std::ops::Range;

/// Bytes of all lanes' pools together, unless a micro-batch is larger.
pub const POOL_BYTES: u64 = 4 << 20;
/// Runs that a pool is made of.
const RUNS_PER_POOL: u64 = 8;
/// Draws for runs are numbered from here on, above those for rows.
const RUN_DRAWS: u64 = 1 << 63;

/// A row of a pool: its features, target, weight and, in half of the uses, an offset or what was held out.
pub const fn row_bytes(n_features: usize) -> u64 {
    4 * n_features as u64 + 24
}

/// Lengths of runs and pools: a function of table and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    pub run_rows: u64,
    /// A multiple of the micro-batch.
    pub pool_rows: u64,
}

impl PoolShape {
    pub fn new(n_features: usize, n_lanes: u64, micro_batch: u64) -> PoolShape {
        let fitting = POOL_BYTES / (n_lanes.max(1) * row_bytes(n_features));
        let pool_rows = (fitting / micro_batch * micro_batch).max(micro_batch);
        PoolShape { run_rows: (pool_rows / RUNS_PER_POOL).next_multiple_of(16).max(16), pool_rows }
    }
}

/// One lane's order in one epoch.
#[derive(Clone, Debug)]
pub struct EpochOrder {
    n_rows: u64,
    shape: PoolShape,
    /// Numbers of the runs, in the order they are taken.
    runs: Vec<u32>,
    draws: Draws,
    counter: u64,
}

impl EpochOrder {
    /// * `counter`: another one for every epoch and lane.
    pub fn new(seed: u64, counter: u64, n_rows: u64, shape: PoolShape) -> EpochOrder {
        let draws = Draws::new(seed, Stream::Shuffle);
        let mut runs: Vec<u32> = (0..n_rows.div_ceil(shape.run_rows) as u32).collect();
        shuffle(&mut runs, |i, n| draws.below(n, RUN_DRAWS | i, counter));
        EpochOrder { n_rows, shape, runs, draws, counter }
    }

    /// Rows of a pool, numbered from the lane's first, as the runs lie in the table.
    pub fn pool_runs(&self, pool: u64) -> Vec<Range<u64>> {
        let wanted = pool * self.shape.pool_rows..(pool + 1) * self.shape.pool_rows;
        let mut found = Vec::new();
        let mut at = 0;
        for &run in &self.runs {
            let first = u64::from(run) * self.shape.run_rows;
            let n = self.shape.run_rows.min(self.n_rows - first);
            let here = wanted.start.max(at)..wanted.end.min(at + n);
            if !here.is_empty() {
                found.push(first + here.start - at..first + here.end - at);
            }
            at += n;
            if at >= wanted.end {
                break;
            }
        }
        found
    }

    /// The order in which the `n_rows` rows of a pool are taken, numbered as they were read.
    pub fn slots(&self, pool: u64, n_rows: usize) -> Vec<u32> {
        let mut slots: Vec<u32> = (0..n_rows as u32).collect();
        let first = pool * self.shape.pool_rows;
        shuffle(&mut slots, |i, n| self.draws.below(n, first + i, self.counter));
        slots
    }
}

/// Fisher–Yates from the end; `below(i, i + 1)` draws a number from 0 to i.
fn shuffle(items: &mut [u32], below: impl Fn(u64, u64) -> u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(i as u64, i as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_takes_every_row_once_and_a_pool_only_rows_of_its_runs() {
        for (n_rows, micro_batch) in [(1u64, 4u64), (1_009, 7), (4_096, 64), (0, 5)] {
            let shape = PoolShape { run_rows: 48, pool_rows: 7 * micro_batch };
            let mut epochs = Vec::new();
            for counter in [0, 1] {
                let order = EpochOrder::new(3, counter, n_rows, shape);
                let mut taken = Vec::new();
                for pool in 0..n_rows.div_ceil(shape.pool_rows) {
                    let rows: Vec<u64> = order.pool_runs(pool).into_iter().flatten().collect();
                    assert!(rows.len() as u64 == shape.pool_rows || (pool + 1) * shape.pool_rows > n_rows);
                    taken.extend(order.slots(pool, rows.len()).into_iter().map(|slot| rows[slot as usize]));
                }
                let mut sorted = taken.clone();
                sorted.sort_unstable();
                assert!(sorted.iter().copied().eq(0..n_rows));
                epochs.push(taken);
            }
            assert!(n_rows < 2 || epochs[0] != epochs[1], "every epoch has an order of its own");
        }
    }

    #[test]
    fn a_lane_that_fits_into_a_pool_is_shuffled_as_a_whole() {
        let shape = PoolShape::new(28, 8, 128);
        assert_eq!(shape, PoolShape { run_rows: 480, pool_rows: 3840 });
        let order = EpochOrder::new(0, 0, 3_800, shape);
        let rows: Vec<u64> = order.pool_runs(0).into_iter().flatten().collect();
        let slots = order.slots(0, rows.len());
        // Neighbours of the order lie far apart in the table: a third of all on average.
        let gaps: u64 = slots.windows(2).map(|w| rows[w[0] as usize].abs_diff(rows[w[1] as usize])).sum();
        assert!((1140..1390).contains(&(gaps / 3_800)), "{}", gaps / 3_800);
    }
}
