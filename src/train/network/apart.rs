//! Local SGD of networks: every lane steps alone, and now and then the lanes' parameters are averaged.

use super::super::Sync;
use super::super::data_parallel::{Job, Together};
use super::super::early_stop::held_out_loss_of;
use super::super::every_step::power_of_two_below;
use super::super::lanes::Lane;
use super::lanes::pieces;
use super::own::{Alike, Own};
use super::shards::optimizer_of_all;
use super::step::Step;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::{Groups, LaneGrid, Width};
use crate::model::{Network, Scores};
use crate::optim::Average;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Numbers whose difference from the common point is worked out at a time.
const RUN: usize = 4096;

/// Lanes here with a network each, and the point at which all lanes last were together.
///
/// Every H steps ([`Sync::Every`]), and at the end, `θ ← θ₀ + Σ w_l·(θ_l − θ₀)/Σ w_l`: θ₀ the last common point, w_l the weight of the rows that lane l
/// has taken since. Running moments of batch norms are averaged as parameters are; those of a step are of the lane's rows alone. What optimisers remember stays
/// with their lanes. With [`Sync::Once`] the only average is that at the end.
///
/// Traffic: an average costs what one gradient of 32 bits does, 4 bytes a parameter and 4 a group of them: differences are contributions of lanes, and become
/// integers at exponents from peaks that are reduced first, so that nothing is cut and nothing done twice. One is rounded by at most 2^(⌈log2 L⌉ − 31) of its group's
/// largest. That is less than what float32 parameters lose, so the 24 bytes of wider sums would buy nothing.
///
/// Memory: of each lane here 12 bytes a parameter and 4 for each number that the optimiser keeps of one (see [`Own`]); of the rank another 4, and 4 in an average.
///
/// Source: Stich, *Local SGD converges fast and communicates little*, ICLR 2019.
pub(super) struct Apart {
    /// The last common point.
    common: Network,
    /// Of the common points.
    average: Option<Average>,
    /// In the order of the rank's lanes.
    own: Vec<Own>,
    alike: Alike,
    /// Of the parameters, then of the running moments.
    groups: Groups,
    grid: LaneGrid,
    /// Steps from one average to the next.
    every: u64,
    steps_apart: u64,
    /// Σ weight over all lanes since the last average.
    weight: f64,
    last_step: u64,
    /// Numbers that the optimiser of a lane keeps.
    n_of_optimizer: usize,
}

impl Apart {
    /// Not collective; the same answer on every rank.
    pub fn new(job: &Job<'_, '_>, network: Network) -> Apart {
        let n_lanes = job.table.lanes().count();
        let micro_batch = job.course.micro_batch.min(job.table.plan.longest_lane()) as usize;
        let mut rows = pieces(&network, job.objective.n_targets(), n_lanes, micro_batch).into_iter().peekable();
        let make = |(place, lane): (usize, u64)| {
            let of_lane = std::iter::from_fn(|| rows.next_if(|piece| piece.lane == place)).collect();
            Own::new(job, lane, &network, of_lane)
        };
        let own = job.table.lanes().enumerate().map(make).collect();
        let mean_weight = job.table.total_weight / job.table.plan.n_rows().max(1) as f64;
        Apart {
            average: job.average(network.params.len()),
            own,
            alike: Alike::new(&network, power_of_two_below(mean_weight)),
            groups: groups(&network),
            grid: LaneGrid::new(job.course.n_lanes as usize, Width::W32),
            every: if let Sync::Every(steps) = job.config.sync { steps } else { u64::MAX },
            steps_apart: 0,
            weight: 0.0,
            last_step: 0,
            n_of_optimizer: optimizer_of_all(job.config, &network).state().iter().map(Vec::len).sum(),
            common: network,
        }
    }

    /// Lanes that go on alone from where they are together, each with what the optimiser remembers. What lanes have left of gradients is forgotten: less than one
    /// step's. Not collective.
    pub fn part(together: &Step, job: &Job<'_, '_>) -> Result<Apart> {
        let mut apart = Apart::new(job, together.network.clone());
        let state = together.optimizer.state();
        apart.own.iter_mut().try_for_each(|own| own.optimizer.restore(&state))?;
        apart.average.clone_from(&together.average);
        Ok(apart)
    }

    /// Brings the lanes to their weighted mean. Collective; rayon over groups.
    fn meet(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<()> {
        self.check(comm, job, self.last_step)?;
        let (common, groups, grid) = (&self.common, &self.groups, self.grid);
        let with_rows = self.own.iter().filter(|own| own.weight > 0.0);
        let lanes: Vec<(&Network, f64)> = with_rows.map(|own| (&own.network, own.weight / self.weight)).collect();
        let differences = |group, visit: &mut dyn FnMut(usize, &[f32])| {
            lanes.iter().for_each(|(own, share)| each_run(own, common, *share, groups.range(group), visit));
        };
        let peak = |group| {
            let mut peak = 0;
            differences(group, &mut |_, run| peak = peak.max(LaneGrid::peak(run)));
            peak
        };
        let mut peaks: Vec<i32> = (0..groups.len()).into_par_iter().map(peak).collect();
        comm.all_reduce_max(&mut peaks)?;
        let exponents: Option<Vec<i32>> = peaks.into_iter().map(LaneGrid::exponent_of).collect();
        let Some(exponents) = exponents else { return job.diverged(comm, self.last_step, None) };

        let mut words = vec![0; groups.n_elements()];
        split(groups, &mut words).into_par_iter().enumerate().for_each(|(group, words)| {
            differences(group, &mut |at, run| {
                grid.add(&mut words[at..at + run.len()], run, exponents[group]);
            });
        });
        comm.all_reduce_sum(&mut words)?;
        let mut moved = vec![0.0; words.len()];
        split(groups, &mut moved).into_par_iter().enumerate().for_each(|(group, moved)| {
            grid.finish(&words[groups.range(group)], exponents[group], moved);
        });
        let (of_params, of_running) = moved.split_at(self.common.params.len());
        let add = |(value, by): (&mut f32, &f32)| *value = (f64::from(*value) + f64::from(*by)) as f32;
        self.common.params.par_iter_mut().zip(of_params).for_each(add);
        self.common.running.iter_mut().zip(of_running).for_each(add);

        let common = &self.common;
        self.own.par_iter_mut().for_each(|own| {
            own.network.params.copy_from_slice(&common.params);
            own.network.running.copy_from_slice(&common.running);
            own.weight = 0.0;
        });
        (self.steps_apart, self.weight) = (0, 0.0);
        if let Some(average) = &mut self.average {
            average.add(&self.common.params);
        }
        Ok(())
    }
}

/// Groups of the parameters, tensor by tensor, and of the running moments: means and variances of each layer apart.
fn groups(network: &Network) -> Groups {
    let of_tensors = network.tensors().into_iter().map(|(_, _, range)| range.len());
    let of_moments = (0..network.layers().len()).flat_map(|layer| [network.running_place(layer).len() / 2; 2]);
    Groups::new(&of_tensors.chain(of_moments).collect::<Vec<_>>())
}

/// The values of each group.
fn split<'v, T>(groups: &Groups, mut values: &'v mut [T]) -> Vec<&'v mut [T]> {
    let of_group = |group| values.split_off_mut(..groups.range(group).len()).expect("a value for each number");
    (0..groups.len()).map(of_group).collect()
}

/// Some parameters, or some running moments, whose numbers come after those.
fn numbers(network: &Network, range: Range<usize>) -> &[f32] {
    let n = network.params.len();
    if range.start < n { &network.params[range] } else { &network.running[range.start - n..range.end - n] }
}

/// Calls `visit` with `share` × (what a lane has − what is common) of some numbers, run by run, and where in them a run begins.
fn each_run(own: &Network, common: &Network, share: f64, range: Range<usize>, visit: &mut dyn FnMut(usize, &[f32])) {
    let mut run = [0.0; RUN];
    let (own, common) = (numbers(own, range.clone()), numbers(common, range));
    for (at, (own, common)) in own.chunks(RUN).zip(common.chunks(RUN)).enumerate() {
        let run = &mut run[..own.len()];
        for (to, (own, common)) in run.iter_mut().zip(own.iter().zip(common)) {
            *to = (share * (f64::from(*own) - f64::from(*common))) as f32;
        }
        visit(at * RUN, run);
    }
}

/// What a checkpoint holds of [`Apart`], beside the lanes.
#[derive(Serialize, Deserialize)]
pub(super) struct ApartState {
    params: Vec<f32>,
    running: Vec<f32>,
    average: Option<Average>,
    steps_apart: u64,
    weight: f64,
    last_step: u64,
}

impl Together for Apart {
    type Common = ApartState;

    fn common(&mut self, _comm: &Communicator) -> Result<ApartState> {
        Ok(ApartState {
            params: self.common.params.to_vec(),
            running: self.common.running.clone(),
            average: self.average.clone(),
            steps_apart: self.steps_apart,
            weight: self.weight,
            last_step: self.last_step,
        })
    }

    fn n_of_lane(&self) -> usize {
        self.common.params.len() + self.common.running.len() + self.n_of_optimizer + 2
    }

    fn of_lane(&mut self, place: usize) -> Vec<f64> {
        let own = &self.own[place];
        let mut numbers = own.network.numbers();
        numbers.extend(own.optimizer.state().concat().into_iter().map(f64::from));
        numbers.extend([own.weight, own.failed.map_or(-1.0, |step| step as f64)]);
        numbers
    }

    fn take_up(&mut self, state: ApartState, of_lanes: &[Vec<f64>]) -> Result<()> {
        let of_average = |average: &Option<Average>| average.as_ref().map(Average::n_params);
        let is_misfit = state.params.len() != self.common.params.len()
            || state.running.len() != self.common.running.len()
            || of_average(&state.average) != of_average(&self.average);
        if is_misfit || of_lanes.len() != self.own.len() {
            return Err(Error::data("the checkpoint has another number of parameters or lanes"));
        }
        let n = state.params.len() + state.running.len();
        for (own, numbers) in self.own.iter_mut().zip(of_lanes) {
            let (of_network, mut rest) = numbers.split_at(n);
            own.network.set_numbers(of_network);
            let mut pieces = own.optimizer.state();
            for values in &mut pieces {
                let (kept, after) = rest.split_at(values.len());
                values.iter_mut().zip(kept).for_each(|(value, kept)| *value = *kept as f32);
                rest = after;
            }
            own.optimizer.restore(&pieces)?;
            own.weight = rest[0];
            own.failed = (rest[1] >= 0.0).then_some(rest[1] as u64);
        }
        self.common.params.copy_from_slice(&state.params);
        (self.common.running, self.average) = (state.running, state.average);
        (self.steps_apart, self.weight, self.last_step) = (state.steps_apart, state.weight, state.last_step);
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
        let alike = &self.alike;
        let of_lanes = self.own.par_iter_mut().zip(lanes);
        of_lanes.try_for_each(|(own, lane)| own.step(job, alike, lane, step, of_pool))?;
        self.last_step = step;
        self.steps_apart += 1;
        self.weight += weight;
        if self.steps_apart >= self.every { self.meet(comm, job) } else { Ok(()) }
    }

    /// If lanes of several ranks have failed, the earliest step is named, then the lowest lane.
    fn check(&self, comm: &Communicator, job: &Job<'_, '_>, _step: u64) -> Result<()> {
        let n_lanes = job.course.n_lanes;
        let key = |own: &Own| own.failed.map(|step| (step * n_lanes + own.lane) as i64);
        let mut first = [self.own.iter().filter_map(key).min().unwrap_or(i64::MAX)];
        comm.all_reduce_min(&mut first)?;
        match first[0] {
            i64::MAX => Ok(()),
            key => job.diverged(comm, key as u64 / n_lanes, Some(key as u64 % n_lanes)),
        }
    }

    fn end_epoch(&mut self, _comm: &Communicator, _job: &Job<'_, '_>) -> Result<f64> {
        Ok(0.0) // lanes have counted their penalties
    }

    fn held_out(&self, comm: &Communicator, job: &Job<'_, '_>, params: &[f64]) -> Result<Option<f64>> {
        let mut network = self.common.clone();
        network.set_numbers(params);
        held_out_loss_of(comm, job.table, job.objective, &Scores::Mlp(network))
    }

    fn so_far(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        if self.steps_apart > 0 {
            self.meet(comm, job)?;
        }
        let mut network = self.common.clone();
        if let Some(average) = self.average.as_ref().and_then(Average::value) {
            network.params.copy_from_slice(&average);
        }
        Ok(network.numbers())
    }

    fn finish(mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        self.so_far(comm, job)
    }
}
