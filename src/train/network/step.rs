//! A step of a network.

use super::super::data_parallel::{Job, Together};
use super::super::early_stop::held_out_loss_of;
use super::super::every_step::power_of_two_below;
use super::super::lanes::Lane;
use super::super::sums::sum_scalars;
use super::compressed::Compressed;
use super::lanes::{Piece, pieces};
use super::norms::Norms;
use super::segments::{Grid, Made, Segment, UnderWay, enter, segments};
use super::shards::Shards;
use crate::comm::{Communicator, Element};
use crate::error::{Error, Result};
use crate::exact::{Groups, LaneGrid, NarrowGrid, ScaleWindow, Verdict, Width, judge};
use crate::model::net::{TensorSpec, Training, Turned};
use crate::model::{Network, Scores};
use crate::optim::{Average, Pieces, length, multiply, shorten};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One set of parameters; gradients of the lanes are added every step.
pub(super) struct Step {
    pub(super) network: Network,
    pub(super) optimizer: Pieces<f32>,
    /// Of the parameters of the optimiser.
    pub(super) average: Option<Average>,
    shards: Shards,
    /// Rows of the lanes here, lane after lane.
    pieces: Vec<Piece>,
    /// The pieces of each lane here.
    of_lanes: Vec<Range<usize>>,
    /// Lanes here that have rows to offer in this step, and their pieces.
    offered: Vec<(usize, Range<usize>)>,
    turned: Turned,
    norms: Norms,
    /// In the order in which they are ready.
    segments: Vec<Segment>,
    groups: Groups,
    /// Of each group, whether its parameters have no penalty.
    is_free: Vec<bool>,
    grid: Grid,
    /// Instead of the segments' words.
    compressed: Option<Compressed>,
    window: ScaleWindow,
    /// Per group, then the number of lanes less the first lane that failed (0: none did).
    peaks: Vec<i32>,
    /// Of the parameters of the optimiser, where the length of all decides on a step or parameters are averaged; else nothing.
    grad: Vec<f32>,
    /// What weights are divided by, which keeps float32 in range whatever their scale: a power of two near the weight of a typical row. Of
    /// gradients that lanes have something left of the mean weight of the step's rows: what a lane has left goes into a step that may weigh more or less.
    unit: f64,
    /// Σ over the epoch's steps of weight × penalty.
    penalty: f64,
}

/// A network of fewer parameters is stepped by every rank: one conversation costs less than two.
const LEAST_SHARED: usize = 1 << 17;
/// The same between nodes. Sums for all hide behind the way back there, and parameters could not, which have to be there before the next step: so it
/// is memory that speaks for sharing (Adam remembers 128 MiB of so many).
const LEAST_SHARED_APART: usize = 1 << 24;

impl Step {
    /// Not collective; the same answer on every rank.
    ///
    /// `comm`: of the ranks that are to share the optimiser, see [`Shards`].
    ///
    /// # Errors
    /// Usage: gradients of too few bits for so many lanes.
    pub fn new(comm: &Communicator, job: &Job<'_, '_>, network: Network) -> Result<Step> {
        let (config, n_lanes) = (job.config, job.table.lanes().count());
        let rows_of_lane = job.course.micro_batch.min(job.table.plan.longest_lane());
        let pieces = pieces(&network, job.objective.n_targets(), n_lanes, rows_of_lane as usize);
        let of_lane = |lane: usize| {
            let first = pieces.partition_point(|piece| piece.lane < lane);
            first..pieces.partition_point(|piece| piece.lane <= lane)
        };
        let of_lanes: Vec<Range<usize>> = (0..n_lanes).map(of_lane).collect();
        let lanes_of_all = job.course.n_lanes as usize;
        let (grid, n_residuals) = match config.mlp.as_ref().map_or(32, |mlp| mlp.gradient_bits) {
            32 => (Grid::Wide(LaneGrid::new(lanes_of_all, Width::W32)), 0),
            bits => match NarrowGrid::new(lanes_of_all, bits as u32) {
                Some(grid) => (Grid::Narrow(grid), n_lanes),
                None => {
                    let most = NarrowGrid::most_lanes(bits as u32);
                    return Err(Error::usage(format!(
                        "--gradient-bits {bits}: {lanes_of_all} lanes leave too few of them to each; use --lanes {most} or fewer, or more bits"
                    )));
                }
            },
        };
        let (segments, groups) = segments(&network, n_residuals);
        let compressed = Compressed::new(config, &network, &groups, [n_lanes, lanes_of_all])?;
        let of_segments: Vec<Range<usize>> = segments.iter().map(|segment| segment.params.clone()).collect();
        // Lanes that go on alone take the whole optimiser with them; where less than gradients travels, parameters should not travel either.
        let least = if comm.overlaps() { LEAST_SHARED_APART } else { LEAST_SHARED };
        let is_large = network.params.len() >= least;
        let is_shared = is_large && config.local_after == 0 && compressed.is_none();
        let (rank, n_ranks) = if is_shared { (comm.rank(), comm.size()) } else { (0, 1) };
        let shards = Shards::new(config, &network, &of_segments, rank, n_ranks);
        let optimizer = shards.optimizer(config);
        let n = optimizer.n_params();
        let average = job.average(n);
        let mean_weight = job.table.total_weight / job.table.plan.n_rows().max(1) as f64;
        Ok(Step {
            optimizer,
            shards,
            is_free: free_groups(&network, &groups),
            offered: Vec::with_capacity(n_lanes),
            turned: network.turned(),
            norms: Norms::new(&network, job.course.n_lanes),
            window: ScaleWindow::new(groups.len()),
            peaks: vec![0; groups.len() + 1],
            grid,
            grad: vec![0.0; if config.clip_norm.is_some() || average.is_some() { n } else { 0 }],
            average,
            unit: power_of_two_below(mean_weight),
            penalty: 0.0,
            pieces,
            of_lanes,
            compressed,
            segments,
            groups,
            network,
        })
    }

    /// Rows of all lanes here forward and back to where the last segment begins; their losses. Rows wait for one another in front of batch norms only.
    /// Collective where there is one; rayon over pieces.
    fn forward(
        &mut self,
        comm: &Communicator,
        job: &Job<'_, '_>,
        lanes: &mut [Lane],
        training: Training,
        of_pool: usize,
    ) -> Result<()> {
        let (network, unit, here) = (&self.network, self.unit, &*lanes);
        let n_layers = network.layers().len();
        // To where the first sums are sent that hide behind the rest of the way; else all the way.
        let sends_early = comm.overlaps() && self.compressed.is_none();
        let stop = if sends_early { self.segments.first() } else { self.segments.last() };
        let back = stop.map_or(0, |segment| segment.lowest + 1);
        // On the way back rows wait behind a batch norm.
        let free = self.norms.layers.last().map_or(back, |norm| back.max(norm + 1));
        let mut first = 0;
        for stop in 0..=self.norms.layers.len() {
            let end = self.norms.layers.get(stop).copied().unwrap_or(n_layers);
            let (moments, turned) = (&self.norms.moments, &self.turned);
            self.pieces.par_iter_mut().for_each(|piece| {
                if stop == 0 {
                    piece.fill(job, network, &here[piece.lane], of_pool, unit);
                }
                if piece.strip.n_rows > 0 {
                    piece.forward(network, first..end, training, moments, turned);
                    if end == n_layers {
                        piece.judge(job, network, unit);
                        piece.backward(network, free..n_layers, training, moments, turned);
                    }
                }
            });
            if stop == 0 {
                let has_rows = |(_, pieces): &(usize, &Range<usize>)| self.pieces[pieces.start].strip.n_rows > 0;
                let offered = self.of_lanes.iter().enumerate().filter(has_rows);
                self.offered.clear();
                self.offered.extend(offered.map(|(lane, pieces)| (lane, pieces.clone())));
            }
            if end < n_layers {
                self.norms.forward(comm, network, end, &self.pieces, &self.offered)?;
            }
            first = end;
        }
        self.backward(comm, back..free, training)?;
        for (lane, pieces) in lanes.iter_mut().zip(&self.of_lanes) {
            lane.loss = 0.0;
            for piece in &self.pieces[pieces.clone()] {
                piece.losses[..piece.strip.n_rows].iter().for_each(|loss| lane.loss += loss);
            }
        }
        Ok(())
    }

    /// Rows of all lanes here back through some layers. Collective where one is a batch norm; rayon over pieces.
    fn backward(&mut self, comm: &Communicator, layers: Range<usize>, training: Training) -> Result<()> {
        let (network, turned) = (&self.network, &self.turned);
        let mut end = layers.end;
        while end > layers.start {
            let norm = self.norms.layers.iter().rev().copied().find(|norm| (layers.start..end).contains(norm));
            if norm == Some(end - 1) {
                self.norms.backward(comm, network, end - 1, &self.pieces, &self.offered)?;
            }
            // Down to in front of the next norm, which is left for when its slopes are there.
            let next = self.norms.layers.iter().rev().copied().find(|norm| (layers.start..end - 1).contains(norm));
            let start = next.map_or(layers.start, |norm| norm + 1);
            let moments = &self.norms.moments;
            let pieces = self.pieces.par_iter_mut().filter(|piece| piece.strip.n_rows > 0);
            pieces.for_each(|piece| piece.backward(network, start..end, training, moments, turned));
            end = start;
        }
        Ok(())
    }

    /// Gradients of all segments as integers at these exponents, each one on its way to the other ranks while the next is worked out. `is_first`: the way
    /// back is still to go. Collective.
    fn reduce(&mut self, comm: &Communicator, training: Training, exponents: &[i32], is_first: bool) -> Result<()> {
        let grid = self.grid;
        // Narrow sums are not redone, so the first ones wait until there is an exponent for them.
        let only_peaks = is_first && matches!(grid, Grid::Narrow(_)) && self.window.is_empty();
        let mut under_way: Vec<(usize, UnderWay<'_>)> = Vec::new();
        let is_sent = comm.size() > 1 && !only_peaks;
        // Where sums do not go on by themselves, ranks wait for one another once, and threads do.
        let n_together = if comm.overlaps() { 1 } else { self.segments.len().max(1) };
        for number in (0..self.segments.len()).step_by(n_together) {
            if is_first && number > 0 {
                let layers = self.segments[number].lowest + 1..self.segments[number - 1].lowest + 1;
                self.backward(comm, layers, training)?;
                under_way.iter_mut().try_for_each(|(_, pending)| pending.progress())?;
            }
            let made = Made {
                network: &self.network,
                pieces: &self.pieces,
                lanes: &self.offered,
                moments: &self.norms.moments,
                grid,
                exponents,
                only_peaks,
            };
            let together = number..number + n_together;
            enter(&mut self.segments[together.clone()], &made);
            for number in together.filter(|_| is_sent) {
                under_way.push((number, self.segments[number].start(comm, grid, self.shards.bounds(number))?));
            }
            under_way.iter_mut().try_for_each(|(_, pending)| pending.progress())?;
        }
        if comm.size() == 1 {
            self.segments.iter_mut().for_each(Segment::finish_alone);
        }
        for (number, pending) in under_way {
            self.segments[number].finish(pending, grid, self.shards.mine(number))?;
        }
        Ok(())
    }

    /// Mean gradients of the sums, and a step down them. Collective where ranks share the optimiser; rayon over pieces of the parameters.
    fn commit(
        &mut self,
        comm: &Communicator,
        job: &Job<'_, '_>,
        step: u64,
        weight: f64,
        exponents: &[i32],
    ) -> Result<()> {
        let factor = self.unit / weight;
        let l2 = job.config.l2;
        let (segments, grid, groups, is_free) = (&self.segments, self.grid, &self.groups, &self.is_free);
        let compressed = &self.compressed;
        // Some parameters, which follow each other.
        let make = |wanted: Range<usize>, params: &[f32], grad: &mut [f32]| {
            for group in groups.touching(wanted.clone()) {
                let range = groups.range(group);
                let range = range.start.max(wanted.start)..range.end.min(wanted.end);
                // Segments go from the last parameter to the first.
                let at = segments.partition_point(|segment| segment.params.start > range.start);
                let here = range.start - wanted.start..range.end - wanted.start;
                let (params, grad) = (&params[here.clone()], &mut grad[here]);
                match compressed {
                    Some(compressed) => grad.copy_from_slice(compressed.sums(range)),
                    None => segments[at].sums(range, grid, exponents[group], grad),
                }
                multiply(grad, factor);
                if l2 > 0.0 && !is_free[group] {
                    let add = |(g, param): (&mut f32, &f32)| *g = (f64::from(*g) + l2 * f64::from(*param)) as f32;
                    grad.iter_mut().zip(params).for_each(add);
                }
            }
        };
        let rate = job.learning_rate(step);
        if l2 > 0.0 {
            self.penalty += weight * 0.5 * l2 * squares_of_weights(&self.network);
        }
        match job.config.clip_norm {
            None => self.optimizer.step_made(rate, &mut self.network.params, &make),
            Some(most) => {
                self.optimizer.make(&mut self.grad, &self.network.params, &make);
                let mut squares = self.optimizer.squares(&self.grad);
                if self.shards.is_shared() {
                    [squares] = sum_scalars(comm, &[squares])?;
                }
                shorten(&mut self.grad, length(&squares), most);
                self.optimizer.step(rate, &mut self.grad, &mut self.network.params);
            }
        }
        if let Some(average) = &mut self.average {
            // The gradient is done with, and as long.
            for (range, room) in self.optimizer.ranges().iter().zip(self.optimizer.split(&mut self.grad)) {
                room.copy_from_slice(&self.network.params[range.clone()]);
            }
            average.add(&self.grad);
        }
        self.spread(comm)
    }

    /// One value a parameter of all, of those of the optimiser. Collective where ranks share it.
    fn of_all<T: Element>(&self, comm: &Communicator, mut mine: Vec<T>) -> Result<Vec<T>> {
        let of_pieces = self.optimizer.split(&mut mine).into_iter().map(|values| values.to_vec()).collect();
        Ok(self.shards.gather(comm, of_pieces)?.concat())
    }

    /// Gives each rank's part of the parameters to all. Collective where ranks share the optimiser.
    fn spread(&mut self, comm: &Communicator) -> Result<()> {
        if !self.shards.is_shared() {
            return Ok(());
        }
        let params = &mut self.network.params;
        (0..self.segments.len()).try_for_each(|number| {
            let bounds = self.shards.bounds(number);
            let counts: Vec<usize> = bounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
            comm.all_gather_in_place(&mut params[bounds[0]..bounds[bounds.len() - 1]], &counts)
        })
    }
}

/// Of each group, whether its parameters have no penalty.
fn free_groups(network: &Network, groups: &Groups) -> Vec<bool> {
    let tensors = network.tensors();
    let is_free = |group| {
        let tensor = tensors.partition_point(|(_, _, range)| range.end <= groups.range(group).start);
        tensors[tensor].1.is_free
    };
    (0..groups.len()).map(is_free).collect()
}

/// Σ of the squares of all parameters that have a penalty, in one fixed order.
fn squares_of_weights(network: &Network) -> f64 {
    let of_tensor = |(_, _, range): (usize, TensorSpec, Range<usize>)| {
        network.params[range].iter().map(|param| f64::from(*param) * f64::from(*param)).sum::<f64>()
    };
    let weights: Vec<_> = network.tensors().into_iter().filter(|(_, spec, _)| !spec.is_free).collect();
    weights.into_par_iter().map(of_tensor).collect::<Vec<f64>>().into_iter().sum()
}

/// What a checkpoint holds of [`Step`].
#[derive(Serialize, Deserialize)]
pub(super) struct StepState {
    params: Vec<f32>,
    running: Vec<f32>,
    /// Of each of all pieces.
    optimizer: Vec<Vec<f32>>,
    window: Vec<i64>,
    penalty: f64,
    average: Option<Average>,
    /// Of gradients of which less travels.
    compressed: Vec<f32>,
}

impl Together for Step {
    type Common = StepState;

    /// Where ranks share the optimiser, each has all of its memory for a moment.
    fn common(&mut self, comm: &Communicator) -> Result<StepState> {
        let sums_of_all = |sums| self.of_all(comm, sums);
        Ok(StepState {
            params: self.network.params.to_vec(),
            running: self.network.running.clone(),
            average: self.average.clone().map(|average| average.with_sums(sums_of_all)).transpose()?,
            optimizer: self.shards.gather(comm, self.optimizer.state())?,
            window: self.window.words(),
            penalty: self.penalty,
            compressed: self.compressed.as_ref().map_or_else(Vec::new, Compressed::common),
        })
    }

    fn n_of_lane(&self) -> usize {
        let keeps_rest = self.compressed.is_some() || matches!(self.grid, Grid::Narrow(_));
        if keeps_rest { self.network.params.len() } else { 0 }
    }

    fn of_lane(&mut self, place: usize) -> Vec<f64> {
        if let Some(compressed) = &self.compressed {
            return compressed.left(place).iter().map(|left| f64::from(*left)).collect();
        }
        let mut left = Vec::with_capacity(self.n_of_lane());
        for segment in &mut self.segments {
            segment.each_residual(place, |of_part| left.extend(of_part.iter().map(|left| f64::from(*left))));
        }
        left
    }

    fn take_up(&mut self, common: StepState, of_lanes: &[Vec<f64>]) -> Result<()> {
        let misfit = || Error::data("the checkpoint has another number of parameters");
        let n = self.network.params.len();
        let has_average = |n_params: usize| self.average.is_some() && n_params == n;
        if common.params.len() != n
            || common.running.len() != self.network.running.len()
            || common.average.as_ref().map_or(self.average.is_some(), |average| !has_average(average.n_params()))
        {
            return Err(misfit());
        }
        self.optimizer.restore(&self.shards.select(&common.optimizer))?;
        let mine = |sums: Vec<f64>| Ok(self.shards.select(self.shards.of_pieces(&sums)).concat());
        self.average = common.average.map(|average| average.with_sums(mine)).transpose()?;
        if let Some(compressed) = &mut self.compressed {
            compressed.set_common(&common.compressed)?;
        }
        for (place, of_lane) in of_lanes.iter().enumerate() {
            let mut left = of_lane.iter();
            if let Some(compressed) = &mut self.compressed {
                compressed.left_mut(place).iter_mut().zip(&mut left).for_each(|(to, left)| *to = *left as f32);
                continue;
            }
            for segment in &mut self.segments {
                segment.each_residual(place, |of_part| {
                    of_part.iter_mut().zip(&mut left).for_each(|(to, left)| *to = *left as f32);
                });
            }
        }
        self.window = ScaleWindow::from_words(&common.window).ok_or_else(misfit)?;
        self.network.params.copy_from_slice(&common.params);
        self.network.running = common.running;
        self.penalty = common.penalty;
        Ok(())
    }

    fn step(
        &mut self,
        comm: &Communicator,
        job: &Job<'_, '_>,
        lanes: &mut [Lane],
        step: u64,
        of_pool: usize,
        weight: f64,
    ) -> Result<()> {
        // Compute: nothing lasting changes before the step is committed.
        let training = Training { seed: job.config.seed, step };
        if self.compressed.is_some() || matches!(self.grid, Grid::Narrow(_)) {
            self.unit = (weight / job.config.global_batch as f64).max(f64::MIN_POSITIVE);
        }
        self.turned.take_up(&self.network);
        self.norms.weight = weight / self.unit;
        self.forward(comm, job, lanes, training, of_pool)?;
        let mut exponents = self.window.exponents();
        match &mut self.compressed {
            Some(compressed) => compressed.enter(&self.network, &self.pieces, &self.offered, &self.norms.moments),
            None => self.reduce(comm, training, &exponents, true)?,
        }

        // Decide, from reduced values only. Activations and slopes are still here, so a redo only makes the gradients again.
        let n_lanes = job.course.n_lanes;
        self.peaks.fill(0);
        let (flag, peaks) = self.peaks.split_last_mut().expect("the flag is last");
        match &self.compressed {
            Some(compressed) => compressed.peaks(&self.offered, peaks),
            None => self.segments.iter().for_each(|segment| segment.peaks(peaks)),
        }
        for lane in lanes.iter().filter(|lane| !lane.loss.is_finite()) {
            *flag = (*flag).max((n_lanes - lane.number) as i32);
        }
        comm.all_reduce_max(&mut self.peaks)?;
        let (&flag, peaks) = self.peaks.split_last().expect("the flag is last");
        if flag > 0 {
            return job.diverged(comm, step, Some(n_lanes - flag as u64));
        }
        match (&mut self.compressed, judge(peaks, &exponents)) {
            (_, Verdict::NonFinite) => return job.diverged(comm, step, None),
            // Sent at exponents from these very peaks, so it fits.
            (Some(compressed), _) => {
                if !compressed.add(comm, &self.offered, peaks, step)? {
                    return job.diverged(comm, step, None);
                }
            }
            (None, Verdict::Fits) => {}
            // What is clamped stays with its lane, and goes into the next step.
            (None, Verdict::Redo(_)) if matches!(self.grid, Grid::Narrow(_)) && !self.window.is_empty() => {}
            (None, Verdict::Redo(wider)) => {
                exponents = wider;
                assert_eq!(judge(peaks, &exponents), Verdict::Fits, "step {step} is redone at most once");
                self.reduce(comm, training, &exponents, false)?;
            }
        }

        // Commit.
        self.commit(comm, job, step, weight, &exponents)?;
        self.norms.commit(&mut self.network);
        self.window.commit(&self.peaks[..self.groups.len()]);
        for lane in lanes {
            lane.epoch_loss += lane.loss;
            lane.epoch_weight += lane.weights[of_pool];
        }
        Ok(())
    }

    fn check(&self, comm: &Communicator, job: &Job<'_, '_>, step: u64) -> Result<()> {
        // The same on every rank.
        let is_finite = |numbers: &[f32]| numbers.par_iter().all(|number| number.is_finite());
        match is_finite(&self.network.params) && is_finite(&self.network.running) {
            true => Ok(()),
            false => job.diverged(comm, step, None),
        }
    }

    fn end_epoch(&mut self, _comm: &Communicator, _job: &Job<'_, '_>) -> Result<f64> {
        Ok(std::mem::take(&mut self.penalty))
    }

    fn held_out(&self, comm: &Communicator, job: &Job<'_, '_>, params: &[f64]) -> Result<Option<f64>> {
        let mut network = self.network.clone();
        network.set_numbers(params);
        held_out_loss_of(comm, job.table, job.objective, &Scores::Mlp(network))
    }

    fn so_far(&mut self, comm: &Communicator, _job: &Job<'_, '_>) -> Result<Vec<f64>> {
        let mut network = self.network.clone();
        if let Some(average) = self.average.as_ref().and_then(Average::value) {
            network.params.copy_from_slice(&self.of_all(comm, average)?);
        }
        Ok(network.numbers())
    }

    fn finish(mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        self.so_far(comm, job)
    }
}
