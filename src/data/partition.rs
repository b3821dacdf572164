//! Which rows belong together and to whom: pure arithmetic, the same on every rank.
//!
//! A [`RowPlan`] cuts the table into lanes and each lane into blocks; it follows from the table's shape and
//! the settings, never from the number of ranks. A [`Partition`] then deals whole units (blocks of a
//! full-batch solver, lanes of a mini-batch one) to ranks.

use std::ops::Range;

/// Bounds of lanes and blocks are multiples of this many rows, so that the groups of the input digest and
/// the slots of predictions never straddle two of them.
pub const ROW_ALIGN: u64 = 16;

/// Blocks of this many rows and more are multiples of `THIN_ALIGN`, so that [`RowPlan::thinned`] has steps to choose from.
const THINNABLE_ROWS: u64 = 1024;
const THIN_ALIGN: u64 = 128;

/// Lanes and blocks of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPlan {
    n_rows: u64,
    n_lanes: u64,
    block_rows: u64,
    /// Whole lanes are dealt to ranks, else blocks.
    deals_lanes: bool,
}

impl RowPlan {
    /// One lane: the plan of a full-batch solver and of predictions.
    ///
    /// A block is about 512 Ki values, at least 512 rows and at most 8192; a small table is still cut into
    /// about 64 blocks, so that there is something to share. At least 32 rows. Long blocks can be thinned by up to 128.
    pub fn full_batch(n_rows: u64, n_columns: usize) -> RowPlan {
        let by_size = ((1 << 19) / n_columns.max(1) as u64).clamp(512, 8192);
        let by_count = n_rows.div_ceil(64).max(32);
        let rows = by_size.min(by_count);
        let block_rows = rows.next_multiple_of(if rows < THINNABLE_ROWS { ROW_ALIGN } else { THIN_ALIGN });
        RowPlan { n_rows, n_lanes: 1, block_rows, deals_lanes: false }
    }

    /// `n_lanes` equal runs of rows, each cut into blocks of its own: the plan of mini-batch training. Ranks own whole
    /// lanes, even if there is only one.
    pub fn lanes(n_rows: u64, n_columns: usize, n_lanes: u64) -> RowPlan {
        let mut plan = RowPlan::full_batch(n_rows, n_columns);
        plan.n_lanes = n_lanes;
        plan.deals_lanes = true;
        plan
    }

    /// The plan of a table that holds one row of every `step` rows of this one: block for block.
    ///
    /// # Panics
    /// If `step` does not divide the rows of a block, or the plan has several lanes.
    pub fn thinned(&self, step: u64) -> RowPlan {
        assert!(
            self.block_rows.is_multiple_of(step) && self.n_lanes == 1,
            "blocks of {} rows, step {step}",
            self.block_rows
        );
        RowPlan { n_rows: self.n_rows.div_ceil(step), block_rows: self.block_rows / step, ..self.clone() }
    }

    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    pub fn n_lanes(&self) -> u64 {
        self.n_lanes
    }

    pub fn block_rows(&self) -> u64 {
        self.block_rows
    }

    /// Rows of lane `lane`; may be empty when the table is shorter than the lanes.
    pub fn lane_rows(&self, lane: u64) -> Range<u64> {
        let groups = self.n_rows.div_ceil(ROW_ALIGN);
        let bound = |lane: u64| {
            let group = (u128::from(groups) * u128::from(lane) / u128::from(self.n_lanes)) as u64;
            (group * ROW_ALIGN).min(self.n_rows)
        };
        bound(lane)..bound(lane + 1)
    }

    /// Rows of the longest lane.
    pub fn longest_lane(&self) -> u64 {
        (0..self.n_lanes).map(|lane| self.lane_rows(lane)).map(|rows| rows.end - rows.start).max().unwrap_or(0)
    }

    /// Things that are dealt to ranks: lanes of mini-batch training, else blocks.
    pub fn n_units(&self) -> u64 {
        if self.deals_lanes { self.n_lanes } else { self.n_rows.div_ceil(self.block_rows) }
    }

    /// Number of blocks over all lanes: how many contributions a full sum has.
    pub fn n_blocks(&self) -> u64 {
        (0..self.n_lanes).map(|lane| self.blocks_in_lane(lane)).sum()
    }

    /// Blocks (runs of rows) of these units, in row order.
    pub fn blocks(&self, units: Range<u64>) -> Vec<Range<u64>> {
        let cut = |rows: Range<u64>| {
            let step = self.block_rows;
            let end = rows.end;
            rows.step_by(step as usize).map(move |first| first..(first + step).min(end))
        };
        if self.deals_lanes {
            units.flat_map(|lane| cut(self.lane_rows(lane))).collect()
        } else {
            cut(self.rows(units)).collect()
        }
    }

    /// Rows of a run of units; always contiguous.
    pub fn rows(&self, units: Range<u64>) -> Range<u64> {
        if units.is_empty() {
            return 0..0;
        }
        if self.deals_lanes {
            self.lane_rows(units.start).start..self.lane_rows(units.end - 1).end
        } else {
            (units.start * self.block_rows).min(self.n_rows)..(units.end * self.block_rows).min(self.n_rows)
        }
    }

    fn blocks_in_lane(&self, lane: u64) -> u64 {
        let rows = self.lane_rows(lane);
        (rows.end - rows.start).div_ceil(self.block_rows)
    }
}

/// Whole units dealt to ranks, balanced to within one unit; a rank may have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    n_units: u64,
    size: u64,
}

impl Partition {
    pub fn new(n_units: u64, size: usize) -> Partition {
        Partition { n_units, size: size as u64 }
    }

    pub fn units_of(&self, rank: usize) -> Range<u64> {
        let bound = |rank: u64| (u128::from(self.n_units) * u128::from(rank) / u128::from(self.size)) as u64;
        bound(rank as u64)..bound(rank as u64 + 1)
    }
}

/// Lanes when nobody says otherwise: the largest power of two ≤ min(64, batch/128, rows/256), at least 1.
pub fn default_lanes(n_rows: u64, global_batch: u64) -> u64 {
    let most = 64.min(global_batch / 128).min(n_rows / 256).max(1);
    1 << most.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_exactly_one_block_of_one_rank() {
        for n_rows in [1, 15, 16, 17, 255, 1_009, 8_191, 100_003] {
            for n_lanes in [1, 2, 7, 64] {
                let plan = RowPlan::lanes(n_rows, 28, n_lanes);
                for size in [1, 2, 3, 7, 100] {
                    let partition = Partition::new(plan.n_units(), size);
                    let mut next = 0;
                    let mut blocks = 0;
                    for rank in 0..size {
                        for block in plan.blocks(partition.units_of(rank)) {
                            assert_eq!(block.start, next, "{n_rows} rows, {n_lanes} lanes, rank {rank} of {size}");
                            assert!(block.start % ROW_ALIGN == 0 && block.end > block.start);
                            next = block.end;
                            blocks += 1;
                        }
                    }
                    assert_eq!((next, blocks), (n_rows, plan.n_blocks()));
                }
            }
        }
    }

    #[test]
    fn ranks_differ_by_at_most_one_unit() {
        let partition = Partition::new(1_009, 7);
        let counts: Vec<u64> =
            (0..7).map(|rank| partition.units_of(rank)).map(|units| units.end - units.start).collect();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    }

    #[test]
    fn lanes_follow_the_batch_and_the_rows() {
        assert_eq!([256, 1024, 4096, 1 << 20].map(|batch| default_lanes(1_000_000, batch)), [2, 8, 32, 64]);
        assert_eq!([1, 100, 600, 5_000].map(|rows| default_lanes(rows, 4096)), [1, 1, 2, 16]);
    }
}
