//! The rows of mini-batch training: how long it lasts, and which rows each lane takes at each step.

use super::TrainConfig;
use super::order::{EpochOrder, PoolShape};
use super::table::{LocalRows, RowBuffer, Table};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::model::LinearModel;
use crate::model::linear::{Rows, Work, add_gradient};
use crate::objective::Objective;
use rayon::prelude::*;
use std::ops::Range;

/// Passes and steps when nobody says: a table that fills few batches is passed more often, because what a solver can do
/// is a matter of steps.
const LEAST_EPOCHS: u64 = 10;
const LEAST_STEPS: u64 = 1000;

/// Lanes and steps of a training: a function of the table's shape and the settings, never of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    pub n_lanes: u64,
    /// Rows of a lane in a step; the last ones of an epoch may be fewer.
    pub micro_batch: u64,
    /// ⌈longest lane / micro-batch⌉.
    pub steps_per_epoch: u64,
    pub epochs: u64,
    pub of_steps: u64,
    pub pools: PoolShape,
}

impl Course {
    /// Not collective; the same answer on every rank.
    ///
    /// # Errors
    /// Usage: a global batch that the lanes cannot share.
    pub fn new(table: &Table<'_>, config: &TrainConfig) -> Result<Course> {
        let (batch, n_lanes) = (config.global_batch, table.plan.n_lanes());
        if n_lanes == 0 || n_lanes > 1 << 16 {
            return Err(Error::usage(format!("--lanes {n_lanes}: give a number from 1 to 65536")));
        }
        if batch == 0 || batch % n_lanes != 0 {
            let below = batch / n_lanes * n_lanes;
            let near = if below == 0 { n_lanes.to_string() } else { format!("{below} or {}", below + n_lanes) };
            let what = format!("--global-batch {batch} does not divide by {n_lanes} lanes");
            return Err(Error::usage(format!("{what}; use {near}, or set --lanes")));
        }
        let micro_batch = batch / n_lanes;
        let steps_per_epoch = table.plan.longest_lane().div_ceil(micro_batch);
        let default_epochs = || LEAST_EPOCHS.max(LEAST_STEPS.div_ceil(steps_per_epoch.max(1)));
        let epochs = config.epochs.unwrap_or_else(default_epochs);
        let of_steps = steps_per_epoch.saturating_mul(epochs);
        let pools = PoolShape::new(table.row_values(), n_lanes, micro_batch);
        Ok(Course { n_lanes, micro_batch, steps_per_epoch, epochs, of_steps, pools })
    }

    pub fn pools_per_epoch(&self) -> u64 {
        self.steps_per_epoch.div_ceil(self.steps_per_pool())
    }

    /// Of all pools but an epoch's last, which may have fewer.
    pub fn steps_per_pool(&self) -> u64 {
        self.pools.pool_rows / self.micro_batch
    }

    /// Steps of an epoch that take rows of this pool.
    pub fn steps_of(&self, pool: u64) -> Range<u64> {
        let first = pool * self.steps_per_pool();
        first..(first + self.steps_per_pool()).min(self.steps_per_epoch)
    }

    /// Epoch (from 1) of a step (from 0), for people.
    pub fn epoch_of(&self, step: u64) -> u64 {
        step / self.steps_per_epoch.max(1) + 1
    }
}

/// The lanes of this rank, and the pool of rows they are at: the same for all lanes.
pub struct Lanes {
    pub all: Vec<Lane>,
    seed: u64,
    course: Course,
    /// Epoch and pool.
    at: Option<(u64, u64)>,
    /// Rows of the pool to come, lane by lane, where they are read.
    ahead: Option<Ahead>,
    /// Buffers of the pool before, to be filled again.
    spare: Vec<RowBuffer>,
}

/// An epoch and its pool, and what came of reading that.
type Ahead = ((u64, u64), Result<Vec<RowBuffer>>);

/// One lane here: its rows in this epoch's order, and the buffers of its micro-batches.
pub struct Lane {
    /// Global number.
    pub number: u64,
    /// Global rows.
    rows: Range<u64>,
    order: EpochOrder,
    /// The pool's rows, where they are not those of the table in memory.
    buffer: Option<RowBuffer>,
    /// The pool's rows, as numbers in the lane.
    runs: Vec<Range<u64>>,
    /// The row that the numbers in `taken` count from.
    base: usize,
    /// Rows of weight > 0 of the pool, in the order they are taken.
    taken: Vec<u32>,
    /// Micro-batch t of the pool is `taken[ends[t]..ends[t + 1]]`.
    ends: Vec<usize>,
    /// Σ weight of each micro-batch of the pool.
    pub weights: Vec<f64>,
    work: Work,
    /// Σ w·∂loss/∂params and Σ w·loss of the last micro-batch.
    pub grad: Vec<f64>,
    pub loss: f64,
    /// Σ w·loss and Σ w of the epoch's steps so far, penalty included where the lane has parameters of its own.
    pub epoch_loss: f64,
    pub epoch_weight: f64,
}

impl Lanes {
    /// The lanes of this rank, at no pool yet. Not collective.
    pub fn of(table: &Table<'_>, course: &Course, seed: u64, n_scores: usize) -> Lanes {
        let n_params = n_scores * (table.n_features + 1);
        let make = |number| {
            let rows = table.plan.lane_rows(number);
            let n_rows = rows.end - rows.start;
            assert!(u32::try_from(n_rows).is_ok(), "lane {number} has {n_rows} rows");
            Lane {
                number,
                order: EpochOrder::new(seed, number, n_rows, course.pools),
                rows,
                buffer: None,
                runs: Vec::new(),
                base: 0,
                taken: Vec::new(),
                ends: Vec::new(),
                weights: Vec::new(),
                work: LinearModel::work(n_scores),
                grad: vec![0.0; n_params],
                loss: 0.0,
                epoch_loss: 0.0,
                epoch_weight: 0.0,
            }
        };
        Lanes {
            all: table.lanes().map(make).collect(),
            seed,
            course: *course,
            at: None,
            ahead: None,
            spare: Vec::new(),
        }
    }

    /// Goes to a pool of an epoch (both from 0): its rows and their order. Collective where rows are read.
    pub fn enter(&mut self, comm: &Communicator, table: &Table<'_>, epoch: u64, pool: u64) -> Result<()> {
        if self.at == Some((epoch, pool)) {
            return Ok(());
        }
        let (seed, course) = (self.seed, self.course);
        if self.at.is_none_or(|(at, _)| at != epoch) {
            for_each_lane(&mut self.all, |lane| {
                lane.order = order_of(seed, &course, epoch, lane);
                (lane.epoch_loss, lane.epoch_weight) = (0.0, 0.0);
            });
        }
        self.at = Some((epoch, pool));
        if let LocalRows::Stream(_) = table.rows {
            let read = match self.ahead.take() {
                Some((which, read)) if which == (epoch, pool) => read,
                _ => read_pools(table, &self.runs_of(epoch, pool), std::mem::take(&mut self.spare)),
            };
            for (lane, buffer) in self.all.iter_mut().zip(comm.agree(read)?) {
                self.spare.extend(lane.buffer.replace(buffer));
            }
        }
        for_each_lane(&mut self.all, |lane| lane.start_pool(table, &course, pool));
        Ok(())
    }

    /// Works through the pool, in `work`, while the rows of the next one are read.
    pub fn while_reading_ahead<V>(&mut self, table: &Table<'_>, work: impl FnOnce(&mut [Lane]) -> V) -> V {
        let next = match (&table.rows, self.at) {
            (LocalRows::Stream(_), Some((epoch, pool))) => match pool + 1 < self.course.pools_per_epoch() {
                true => Some((epoch, pool + 1)),
                false => Some((epoch + 1, 0)).filter(|(epoch, _)| *epoch < self.course.epochs),
            },
            _ => None,
        };
        let Some(next) = next else { return work(&mut self.all) };
        let runs = self.runs_of(next.0, next.1);
        let spare = std::mem::take(&mut self.spare);
        let (lanes, ahead) = (&mut self.all, &mut self.ahead);
        // The rank talks while it works, so it stays in its own thread.
        rayon::in_place_scope(|scope| {
            scope.spawn(|_| *ahead = Some((next, read_pools(table, &runs, spare))));
            work(lanes)
        })
    }

    /// Global rows of every lane's pool, as they are read.
    fn runs_of(&self, epoch: u64, pool: u64) -> Vec<Vec<Range<u64>>> {
        let of_lane = |lane: &Lane| {
            let order = match self.at {
                Some((at, _)) if at == epoch => lane.order.clone(),
                _ => order_of(self.seed, &self.course, epoch, lane),
            };
            let global = |run: Range<u64>| lane.rows.start + run.start..lane.rows.start + run.end;
            order.pool_runs(pool).into_iter().map(global).collect()
        };
        self.all.iter().map(of_lane).collect()
    }
}

fn order_of(seed: u64, course: &Course, epoch: u64, lane: &Lane) -> EpochOrder {
    EpochOrder::new(seed, epoch * course.n_lanes + lane.number, lane.rows.end - lane.rows.start, course.pools)
}

/// Reads the runs of every lane; `spare`: buffers to fill. Not collective.
fn read_pools(table: &Table<'_>, runs: &[Vec<Range<u64>>], mut spare: Vec<RowBuffer>) -> Result<Vec<RowBuffer>> {
    let LocalRows::Stream(stream) = &table.rows else { return Err(Error::internal("read rows that are in memory")) };
    let read = |runs: &Vec<Range<u64>>| {
        let mut buffer = spare.pop().unwrap_or_default();
        buffer.n_features = table.n_features;
        buffer.clear();
        stream.read_runs(runs, &mut buffer).map(|()| buffer)
    };
    runs.iter().map(read).collect()
}

impl Lane {
    /// Puts the rows of the pool into their order; a row of weight 0 keeps its slot in a micro-batch and is left out of it.
    fn start_pool(&mut self, table: &Table<'_>, course: &Course, pool: u64) {
        let runs = self.order.pool_runs(pool);
        let n_rows: u64 = runs.iter().map(|run| run.end - run.start).sum();
        let slots = self.order.slots(pool, n_rows as usize);
        self.taken = match &self.buffer {
            Some(_) => slots,
            None => {
                self.base = (self.rows.start - table.first_row) as usize;
                let rows: Vec<u32> = runs.clone().into_iter().flatten().map(|row| row as u32).collect();
                slots.into_iter().map(|slot| rows[slot as usize]).collect()
            }
        };
        self.runs = runs;
        let weight = match &self.buffer {
            Some(buffer) => &buffer.weight,
            None => &table.in_memory().expect("rows are in memory or read").weight,
        };
        self.ends.clear();
        self.ends.push(0);
        self.weights.clear();
        let (mut kept, n, micro_batch) = (0, self.taken.len(), course.micro_batch as usize);
        for step in 0..course.steps_of(pool).count() {
            let mut of_step = 0.0;
            for slot in (step * micro_batch).min(n)..((step + 1) * micro_batch).min(n) {
                let row = self.taken[slot];
                let w = weight[self.base + row as usize];
                if w > 0.0 {
                    of_step += w;
                    self.taken[kept] = row;
                    kept += 1;
                }
            }
            self.weights.push(of_step);
            self.ends.push(kept);
        }
        self.taken.truncate(kept);
    }

    /// The rows that [`micro_batch`](Self::micro_batch) numbers.
    pub fn rows<'a>(&'a self, table: &'a Table<'_>) -> Rows<'a> {
        match &self.buffer {
            Some(buffer) => buffer.rows(),
            None => table.in_memory().expect("rows are in memory or read").rows(),
        }
    }

    /// Numbers of the rows of the pool's micro-batch `step`, in order. Not collective.
    pub fn micro_batch(&self, step: usize) -> impl ExactSizeIterator<Item = usize> + Clone + use<'_> {
        self.taken[self.ends[step]..self.ends[step + 1]].iter().map(move |&row| self.base + row as usize)
    }

    /// Global number of one of these rows.
    pub fn global_row(&self, row: usize) -> u64 {
        match &self.buffer {
            None => self.rows.start + (row - self.base) as u64,
            Some(_) => {
                let mut left = row as u64;
                for run in &self.runs {
                    let n = run.end - run.start;
                    if left < n {
                        return self.rows.start + run.start + left;
                    }
                    left -= n;
                }
                panic!("row {row} is not in the pool")
            }
        }
    }

    /// Gradient and loss of the pool's micro-batch `step` at `params`, into [`grad`](Self::grad) and [`loss`](Self::loss). Not
    /// collective; does not allocate.
    pub fn compute(&mut self, table: &Table<'_>, objective: &dyn Objective, step: usize, params: &[f64]) {
        let rows = match &self.buffer {
            Some(buffer) => buffer.rows(),
            None => table.in_memory().expect("rows are in memory or read").rows(),
        };
        let base = self.base;
        let which = self.taken[self.ends[step]..self.ends[step + 1]].iter().map(|&row| base + row as usize);
        self.grad.fill(0.0);
        self.loss = add_gradient(&rows, which, params, objective, &mut self.work, &mut self.grad);
    }
}

/// Calls `visit` for each lane, in parallel if there are several. Not collective.
pub fn for_each_lane<L: Send>(lanes: &mut [L], visit: impl Fn(&mut L) + Send + Sync) {
    match lanes {
        [only] => visit(only),
        several => several.par_iter_mut().for_each(visit),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::testing;
    use super::*;

    #[test]
    fn an_epoch_takes_every_row_of_weight_once() {
        let mut table = testing::table(1_009, 2, 4, 1, testing::gaussian);
        let buffer = table.in_memory_mut();
        buffer.weight[17] = 0.0;
        let weight = buffer.weight.clone();
        let config = TrainConfig { global_batch: 64, ..TrainConfig::default() };
        let course = Course::new(&table, &config).unwrap();
        // 64 groups of 16 rows over 4 lanes: 256 rows, 16 a step.
        assert_eq!((course.micro_batch, course.steps_per_epoch, course.of_steps), (16, 16, 1008));
        let mut orders = Vec::new();
        let mut lanes = Lanes::of(&table, &course, 3, 1);
        for epoch in 0..2 {
            let mut seen = vec![0; 1_009];
            let mut order = Vec::new();
            lanes.enter(&Communicator::solo(), &table, epoch, 0).unwrap();
            for lane in &lanes.all {
                for step in 0..16 {
                    let rows = lane.micro_batch(step);
                    assert!(rows.len() <= 16);
                    let weight = rows.clone().fold(0.0, |sum, row| sum + weight[row]);
                    assert_eq!(weight, lane.weights[step]);
                    for row in rows {
                        assert!(lane.rows.contains(&(row as u64)));
                        seen[row] += 1;
                        order.push(row);
                    }
                }
            }
            let zeros = weight.iter().filter(|w| **w == 0.0).count();
            assert!(zeros > 10);
            assert!((0..1_009).all(|row| seen[row] == usize::from(weight[row] > 0.0)));
            orders.push(order);
        }
        assert_ne!(orders[0], orders[1]);
    }

    #[test]
    fn a_batch_that_lanes_cannot_share_is_refused_with_neighbours_that_can() {
        let table = testing::table(100, 2, 8, 1, testing::gaussian);
        let message = |global_batch| {
            Course::new(&table, &TrainConfig { global_batch, ..TrainConfig::default() }).unwrap_err().to_string()
        };
        assert_eq!(message(1_001), "--global-batch 1001 does not divide by 8 lanes; use 1000 or 1008, or set --lanes");
        assert_eq!(message(3), "--global-batch 3 does not divide by 8 lanes; use 8, or set --lanes");
    }
}
