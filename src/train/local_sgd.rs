//! Local SGD: every lane steps alone, and now and then the lanes' parameters are averaged.

use super::Sync;
use super::data_parallel::{Job, Together};
use super::every_step::{EveryStep, Rules, add_penalty};
use super::lanes::Lane;
use super::sums::{Total, sum_blocks};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::optim::{Average, Optimizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Parameters and optimiser of every lane here, and the point at which the lanes last were together.
///
/// Every H steps ([`Sync::Every`]), and at the end, `θ ← θ₀ + Σ w_l·(θ_l − θ₀)/Σ w_l`: θ₀ the last common point, w_l the weight of the rows that
/// lane l has taken since. The differences are contributions of lanes, so the average is exact on any number of ranks; the
/// optimisers' moments stay with their lanes. With [`Sync::Once`] the only average is that at the end.
///
/// Traffic: an average costs 28 bytes a parameter and a few small messages; steps between cost nothing.
/// Sources: Stich, *Local SGD converges fast and communicates little*, ICLR 2019; Zinkevich, Weimer, Smola, Li, *Parallelized
/// stochastic gradient descent*, NIPS 2010 (one average).
pub(super) struct Apart {
    common: Vec<f64>,
    /// Of the common points.
    average: Option<Average>,
    /// In the order of the rank's lanes.
    own: Vec<Own>,
    /// Steps from one average to the next.
    every: u64,
    steps_apart: u64,
    last_step: u64,
    /// Numbers of a lane in a checkpoint.
    n_of_lane: usize,
}

/// What belongs to one lane.
struct Own {
    lane: u64,
    params: Vec<f64>,
    optimizer: Box<dyn Optimizer>,
    grad: Vec<f64>,
    /// Σ weight of the rows taken since the last average.
    weight: f64,
    /// The first step that gave something infinite.
    failed: Option<u64>,
}

impl Apart {
    pub fn new(job: &Job<'_, '_>, rules: Rules, start: Vec<f64>) -> Apart {
        let n = start.len();
        let make = |lane| Own {
            lane,
            params: start.clone(),
            optimizer: rules.optimizer(job),
            grad: vec![0.0; n],
            weight: 0.0,
            failed: None,
        };
        let every = if let Sync::Every(steps) = job.config.sync { steps } else { u64::MAX };
        let of_optimizer: usize = rules.optimizer(job).state().iter().map(|(_, values)| values.len()).sum();
        let n_of_lane = n + of_optimizer + 2;
        let own = job.table.lanes().map(make).collect();
        Apart { own, common: start, average: job.average(n), every, steps_apart: 0, last_step: 0, n_of_lane }
    }

    /// Lanes that go on alone from where they are together, each with what the optimiser remembers. Not collective.
    pub fn part(job: &Job<'_, '_>, rules: Rules, together: &EveryStep) -> Result<Apart> {
        let mut apart = Apart::new(job, rules, together.params.clone());
        let state = together.optimizer.state();
        apart.own.iter_mut().try_for_each(|own| own.optimizer.restore(&state))?;
        apart.average.clone_from(&together.average);
        Ok(apart)
    }

    /// Brings the lanes to their weighted mean. Collective.
    fn meet(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<()> {
        self.check(comm, job, self.last_step)?;
        let mut sums = BlockSums::new(self.common.len() + 1, job.course.n_lanes);
        for own in &self.own {
            let differences = own.params.iter().zip(&self.common).map(|(param, common)| own.weight * (param - common));
            sums.push(differences.chain([own.weight]).collect());
        }
        let Total::Finite(mut total) = sum_blocks(comm, &sums)? else {
            return job.diverged(comm, self.last_step, None);
        };
        let weight = total.pop().expect("the weight is last");
        if weight > 0.0 {
            for (common, sum) in self.common.iter_mut().zip(&total) {
                *common += sum / weight;
            }
        }
        for own in &mut self.own {
            own.params.copy_from_slice(&self.common);
            own.weight = 0.0;
        }
        self.steps_apart = 0;
        if let Some(average) = &mut self.average {
            average.add(&self.common);
        }
        Ok(())
    }
}

impl Own {
    /// One step of this lane alone. Not collective.
    fn step(&mut self, job: &Job<'_, '_>, lane: &mut Lane, step: u64, of_pool: usize) {
        let weight = lane.weights[of_pool];
        if weight == 0.0 || self.failed.is_some() {
            return;
        }
        lane.compute(job.table, job.objective, of_pool, &self.params);
        for (grad, sum) in self.grad.iter_mut().zip(&lane.grad) {
            *grad = sum / weight;
        }
        let penalty = add_penalty(job, &self.params, &mut self.grad);
        job.descend(self.optimizer.as_mut(), step, &mut self.grad, &mut self.params);
        lane.epoch_loss += lane.loss + weight * penalty;
        lane.epoch_weight += weight;
        self.weight += weight;
        if !lane.loss.is_finite() || self.params.iter().any(|p| !p.is_finite()) {
            self.failed = Some(step);
        }
    }
}

/// What a checkpoint holds of [`Apart`], beside the lanes.
#[derive(Serialize, Deserialize)]
pub(super) struct ApartState {
    common: Vec<f64>,
    steps_apart: u64,
    last_step: u64,
    average: Option<Average>,
}

impl Together for Apart {
    type Common = ApartState;

    fn common(&mut self, _comm: &Communicator) -> Result<ApartState> {
        let (common, average) = (self.common.clone(), self.average.clone());
        Ok(ApartState { common, steps_apart: self.steps_apart, last_step: self.last_step, average })
    }

    fn n_of_lane(&self) -> usize {
        self.n_of_lane
    }

    fn of_lane(&mut self, place: usize) -> Vec<f64> {
        let own = &self.own[place];
        let mut numbers = own.params.clone();
        own.optimizer.state().into_iter().for_each(|(_, values)| numbers.extend(values));
        numbers.extend([own.weight, own.failed.map_or(-1.0, |step| step as f64)]);
        numbers
    }

    fn take_up(&mut self, state: ApartState, of_lanes: &[Vec<f64>]) -> Result<()> {
        let n = self.common.len();
        let of_average = |average: &Option<Average>| average.as_ref().map(Average::n_params);
        let is_misfit = state.common.len() != n || of_average(&state.average) != of_average(&self.average);
        if is_misfit || of_lanes.len() != self.own.len() {
            return Err(Error::data("the checkpoint has another number of parameters or lanes"));
        }
        for (own, numbers) in self.own.iter_mut().zip(of_lanes) {
            let (params, mut rest) = numbers.split_at(n);
            own.params.copy_from_slice(params);
            let shape: Vec<(&str, usize)> =
                own.optimizer.state().into_iter().map(|(name, values)| (name, values.len())).collect();
            let mut arrays = Vec::new();
            for (name, len) in shape {
                let (values, after) = rest.split_at(len);
                arrays.push((name, values));
                rest = after;
            }
            own.optimizer.restore(&arrays)?;
            own.weight = rest[0];
            own.failed = (rest[1] >= 0.0).then_some(rest[1] as u64);
        }
        (self.common, self.average) = (state.common, state.average);
        (self.steps_apart, self.last_step) = (state.steps_apart, state.last_step);
        Ok(())
    }

    fn step(
        &mut self,
        comm: &Communicator,
        job: &Job<'_, '_>,
        lanes: &mut [Lane],
        step: u64,
        of_pool: usize,
        _weight: f64,
    ) -> Result<()> {
        match (&mut self.own[..], lanes) {
            ([own], [lane]) => own.step(job, lane, step, of_pool),
            (own, lanes) => {
                own.par_iter_mut().zip(lanes.par_iter_mut()).for_each(|(own, lane)| own.step(job, lane, step, of_pool))
            }
        }
        self.last_step = step;
        self.steps_apart += 1;
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
        Ok(0.0)
    }

    fn so_far(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        if self.steps_apart > 0 {
            self.meet(comm, job)?;
        }
        Ok(self.average.as_ref().and_then(Average::value).unwrap_or_else(|| self.common.clone()))
    }

    fn finish(mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        self.so_far(comm, job)
    }
}
