//! Mini-batch training over lanes: local gradients → integers → all-reduce → one step, the same on every rank.

use super::checkpoint::{Items, Session};
use super::early_stop::{Held, held_out_loss};
use super::every_step::{EveryStep, Rules};
use super::lanes::{Course, Lane, Lanes};
use super::learning_rate::Scales;
use super::outcome::check_outcome;
use super::post_local::PostLocal;
use super::sums::{Total, sum_blocks, sum_scalars};
use super::table::{Fit, Table};
use super::{Observer, Progress, Sync, TrainConfig, local_sgd};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::{BlockSums, ExactSum};
use crate::model::{LinearModel, Scores};
use crate::objective::Objective;
use crate::optim::{Average, Optimizer, clip};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::time::Instant;

/// Epochs in a row that change little before training ends: losses of mini-batches are noisy, so one may be by chance.
const STILL_EPOCHS: usize = 2;

/// Trains by stochastic gradient descent, Adam or one of their kin from `start`; the same fit on every rank. Collective.
///
/// * `table`: standardised rows of the lanes that this rank owns (maybe none), of a plan made by
///   [`RowPlan::lanes`](crate::data::partition::RowPlan::lanes).
/// * `start`, and the fit's parameters: (n_scores, n_features + 1), intercept last.
/// * A step takes the next micro-batch of each lane, adds their gradients as integers, divides once by the step's weight and adds
///   `l2` times the coefficients. A step whose rows all have weight 0 changes nothing.
/// * `fit.losses`: per epoch, Σ w·loss/Σ w over its steps, each at the parameters it started from, with penalty;
///   `fit.iterations`: epochs. Epochs end early once |Δloss| ≤ `tolerance`·|loss| twice in a row (0: never).
/// * With `average`, the model is the running average of the parameters after each step (of lanes that are apart: after each time they meet).
/// * With `early_stop`, the rows held out are measured after each epoch, for which lanes that are apart meet; the parameters of the best epoch are the fit.
/// * [`Sync::Step`] makes two all-reduces a step: 4 bytes a group of parameters, 4 a parameter; two small ones more an epoch, and two after the first step.
///
/// # Errors
/// Usage, on every rank: settings that do not fit together, or a loss that is no longer finite, or has gone astray (`outcome.rs`).
///
/// Source: `EXACT` 2b and 3.
pub fn train(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
    start: Vec<f64>,
    session: Session,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    let (job, rules, lanes) = prepare(comm, table, objective, config, &start)?;
    warn_of_idle(comm, &job, watch);
    let (n_features, n_scores) = (table.n_features, objective.n_scores());
    let of = |params: &[f64]| Scores::Linear(LinearModel { n_features, n_scores, params: params.to_vec() });
    let at_start = start.clone();
    let fit = match (config.sync, config.local_after) {
        (Sync::Step, _) => run(comm, &job, lanes, EveryStep::new(&job, rules, start), session, watch),
        (_, 0) => run(comm, &job, lanes, local_sgd::Apart::new(&job, rules, start), session, watch),
        (_, after) => {
            let first = EveryStep::new(&job, rules.clone(), start);
            let part = |first: &EveryStep, job: &Job<'_, '_>| local_sgd::Apart::part(job, rules.clone(), first);
            run(comm, &job, lanes, PostLocal::new(first, after, part), session, watch)
        }
    }?;
    check_outcome(comm, &job, &fit, [&|| of(&at_start), &|| of(&fit.params)], watch)?;
    Ok(fit)
}

/// Says that some ranks have no lane. Not collective.
pub(super) fn warn_of_idle(comm: &Communicator, job: &Job<'_, '_>, watch: &mut dyn Observer) {
    if comm.is_root() && comm.size() as u64 > job.course.n_lanes {
        watch.warning(&format!("{} ranks but only {} lanes: the others stay idle", comm.size(), job.course.n_lanes));
    }
}

/// The lanes of this rank, the learning rate, and what else is measured. Collective.
fn prepare<'a, 's>(
    comm: &Communicator,
    table: &'a Table<'s>,
    objective: &'a dyn Objective,
    config: &'a TrainConfig,
    start: &[f64],
) -> Result<(Job<'a, 's>, Rules, Lanes)> {
    check(config)?;
    let course = Course::new(table, config)?;
    let mut lanes = Lanes::of(table, &course, config.seed, objective.n_scores());
    lanes.enter(comm, table, 0, 0)?;
    let step_rows = match config.sync {
        Sync::Step => config.global_batch.min(table.plan.n_rows()),
        Sync::Every(_) | Sync::Once => course.micro_batch.min(table.plan.longest_lane()),
    };
    let scales = Scales::measure(comm, table, objective, start, &lanes.all, &course, step_rows)?;
    let job = Job::new(table, objective, config, course, || scales.rate(config, table.n_features))?;
    Ok((job, Rules { scales }, lanes))
}

/// What mini-batch training cannot do. Not collective; the same on every rank.
pub(super) fn check(config: &TrainConfig) -> Result<()> {
    if !config.solver.is_mini_batch() {
        return Err(Error::internal(format!("{:?} is not a mini-batch solver", config.solver)));
    }
    if config.l1 > 0.0 {
        return Err(Error::usage("--l1 needs a full-batch solver; leave --solver out or use --solver lbfgs"));
    }
    if !(0.0..1.0).contains(&config.momentum) {
        return Err(Error::usage(format!("--momentum {}: give a number from 0 to below 1", config.momentum)));
    }
    if config.learning_rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(Error::usage("--learning-rate: give a number above 0"));
    }
    if config.sync == Sync::Every(0) {
        return Err(Error::usage("--sync-every 0: give a number of steps, from 1"));
    }
    Ok(())
}

/// Everything that stays the same from step to step; holds no communicator, so threads may share it.
pub(super) struct Job<'a, 's> {
    pub table: &'a Table<'s>,
    pub objective: &'a dyn Objective,
    pub config: &'a TrainConfig,
    pub course: Course,
    /// Learning rate before the schedule.
    pub rate: f64,
    /// What the rate that was given was multiplied by.
    scale_of_rate: f64,
    /// The rate where nobody gives one.
    usual_rate: f64,
    /// Steps over which the rate rises.
    warm_up: u64,
}

impl<'a, 's> Job<'a, 's> {
    /// Not collective; the same on every rank.
    ///
    /// * `default_rate`: the learning rate where nobody gave one.
    ///
    /// # Errors
    /// Usage: the learning rate would rise for longer than the training lasts, or lanes be alone after its end.
    pub fn new(
        table: &'a Table<'s>,
        objective: &'a dyn Objective,
        config: &'a TrainConfig,
        course: Course,
        default_rate: impl FnOnce() -> f64,
    ) -> Result<Job<'a, 's>> {
        let scale_of_rate = config.scale_rate.map_or(1.0, |scale| scale.factor(config.global_batch));
        let usual_rate = default_rate();
        let rate = config.learning_rate.map_or(usual_rate, |rate| rate * scale_of_rate);
        let warm_up = config.warm_up.map_or(0, |warm_up| warm_up.steps(course.steps_per_epoch));
        if warm_up > 0 && warm_up >= course.of_steps {
            return Err(Error::usage(format!(
                "--warm-up takes {warm_up} steps, but this training has no more than {}; shorten it, or raise --epochs",
                course.of_steps
            )));
        }
        let together = config.local_after;
        if together > 0 && together >= course.epochs {
            return Err(Error::usage(format!(
                "--local-after {together}: this training has {} epochs, so that lanes would never be alone; give fewer, or raise --epochs",
                course.epochs
            )));
        }
        Ok(Job { table, objective, config, course, rate, scale_of_rate, usual_rate, warm_up })
    }

    /// A running average of the parameters, if one is wanted.
    pub fn average(&self, n_params: usize) -> Option<Average> {
        self.config.average.map(|decay| Average::new(n_params, decay))
    }

    /// One step down a mean gradient, penalty included, which may be shortened. Not collective.
    pub fn descend(&self, optimizer: &mut dyn Optimizer, step: u64, grad: &mut [f64], params: &mut [f64]) {
        if let Some(most) = self.config.clip_norm {
            clip(grad, most);
        }
        optimizer.step(self.learning_rate(step), grad, params);
    }

    pub fn learning_rate(&self, step: u64) -> f64 {
        self.rate * self.config.schedule.at(step, self.course.of_steps, self.course.steps_per_epoch, self.warm_up)
    }

    /// Whether the rate that was given is nothing like the usual one.
    fn is_wild(&self) -> bool {
        self.rate > 20.0 * self.usual_rate
    }

    /// What to do about steps that were too long, for people: a rate that is nothing like the usual one is not worth a tenth of it.
    pub fn advice(&self) -> String {
        let (given, usual) = (self.rate / self.scale_of_rate, self.usual_rate / self.scale_of_rate);
        match self.is_wild() {
            true => format!("try --learning-rate {usual:.1e}, as without the flag"),
            false => format!("try --learning-rate {:.1e}", given / 10.0),
        }
    }

    /// The same error on every rank. Collective.
    ///
    /// * `lane`: the first one that failed; None where only their sum is known.
    pub fn diverged<V>(&self, comm: &Communicator, step: u64, lane: Option<u64>) -> Result<V> {
        let lane = lane.map_or(String::new(), |lane| format!(", lane {lane}"));
        const LOOK: &str = "look for targets, weights or features that are far beyond all others";
        // The first rows are judged before the rate counts, unless lanes are alone, or the first step is the last before parameters are looked at.
        let advice = match step {
            0 if self.is_wild() => format!("{}; if that diverges too, {LOOK}", self.advice()),
            0 => format!("{LOOK}; if there are none, {}", self.advice()),
            _ => self.advice(),
        };
        let error = Error::usage(format!(
            "training diverged at step {} (epoch {}{lane}): the loss is no longer finite; {advice}",
            step + 1,
            self.course.epoch_of(step),
        ));
        match comm.agree(if comm.is_root() { Err(error) } else { Ok(()) }) {
            Err(error) => Err(error),
            Ok(()) => unreachable!("the root has failed"),
        }
    }
}

/// How lanes are brought together.
pub(super) trait Together {
    /// State between steps that all ranks have alike.
    type Common: Serialize + DeserializeOwned;
    /// Collective.
    fn common(&mut self, comm: &Communicator) -> Result<Self::Common>;
    /// Numbers that each lane has for itself.
    fn n_of_lane(&self) -> usize;
    /// Those of a lane here, by its place.
    fn of_lane(&mut self, place: usize) -> Vec<f64>;
    /// Called before the first step of each epoch (from 0), and before a checkpoint of one of its steps is taken up. Not collective; errors are
    /// those of every rank.
    fn enter_epoch(&mut self, _job: &Job<'_, '_>, _epoch: u64) -> Result<()> {
        Ok(())
    }
    /// Takes up the state of a checkpoint. Not collective. Errors: it does not fit (data).
    fn take_up(&mut self, common: Self::Common, of_lanes: &[Vec<f64>]) -> Result<()>;
    /// Step `step` (from 0): the pool's step `of_pool`, whose rows weigh `weight` > 0 over all lanes. Collective.
    fn step(
        &mut self,
        comm: &Communicator,
        job: &Job<'_, '_>,
        lanes: &mut [Lane],
        step: u64,
        of_pool: usize,
        weight: f64,
    ) -> Result<()>;
    /// An error on all ranks if a step has led to infinity, where this is not known: such a state is not kept. `step`: the last one that was done. Collective.
    fn check(&self, comm: &Communicator, job: &Job<'_, '_>, step: u64) -> Result<()>;
    /// Called after each epoch's last step, which was checked; returns what its losses lack of the penalty, weighted. Collective.
    fn end_epoch(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<f64>;
    /// Mean loss of the rows held out by these parameters, without penalty; None: not finite. Collective.
    fn held_out(&self, comm: &Communicator, job: &Job<'_, '_>, params: &[f64]) -> Result<Option<f64>> {
        held_out_loss(comm, job.table, job.objective, params)
    }
    /// The model after an epoch; lanes that are apart meet for it. Collective.
    fn so_far(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>>;
    /// The model. Collective.
    fn finish(self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>>;
}

/// All epochs. Collective.
pub(super) fn run(
    comm: &Communicator,
    job: &Job<'_, '_>,
    mut lanes: Lanes,
    mut together: impl Together,
    mut session: Session,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    let (config, course) = (job.config, &job.course);
    let mut fit = Fit::default();
    let mut held = Held::default();
    if config.early_stop > 0 {
        // That no row was held out is said before the first epoch.
        let params = together.so_far(comm, job)?;
        together.held_out(comm, job, &params)?;
    }
    let resumed = session.resumed_step();
    // The epoch of the last step that was done: its end may be to do.
    let first_epoch = resumed.saturating_sub(1) / course.steps_per_epoch.max(1);
    together.enter_epoch(job, first_epoch)?;
    let numbers = job.table.lanes();
    let of_item = 2 + together.n_of_lane();
    // Sums of the epoch that was under way.
    let mut epoch_sums = None;
    if let Some(((kept, first_loss, kept_held, common), items)) = session.take(comm, numbers.clone(), of_item)? {
        (fit, held) = (Fit { first_loss, ..kept }, kept_held);
        let mut of_lanes: Vec<Vec<f64>> = items.chunks_exact(of_item).map(<[f64]>::to_vec).collect();
        epoch_sums = Some(of_lanes.iter_mut().map(|of| of.drain(..2).collect::<Vec<f64>>()).collect::<Vec<_>>());
        comm.agree(together.take_up(common, &of_lanes))?;
    }
    let take_sums = |lanes: &mut [Lane], sums: Vec<Vec<f64>>| {
        lanes.iter_mut().zip(sums).for_each(|(lane, sums)| (lane.epoch_loss, lane.epoch_weight) = (sums[0], sums[1]));
    };
    for epoch in first_epoch..course.epochs {
        let since = Instant::now();
        together.enter_epoch(job, epoch)?;
        let first = epoch * course.steps_per_epoch;
        for pool in 0..course.pools_per_epoch() {
            let steps = course.steps_of(pool);
            if first + steps.end <= resumed {
                continue;
            }
            lanes.enter(comm, job.table, epoch, pool)?;
            if let Some(sums) = epoch_sums.take() {
                take_sums(&mut lanes.all, sums);
            }
            let weights = step_weights(comm, job, &lanes.all, steps.clone().count())?;
            lanes.while_reading_ahead(job.table, |lanes| -> Result<()> {
                for (of_pool, (step, &weight)) in steps.zip(&weights).enumerate() {
                    let step = first + step;
                    if step < resumed {
                        continue;
                    }
                    if weight > 0.0 {
                        together.step(comm, job, lanes, step, of_pool, weight)?;
                        if fit.first_loss.is_none() {
                            // Lanes have seen nothing else yet.
                            fit.first_loss = Some(epoch_loss(comm, lanes, 0.0)?.unwrap_or(f64::INFINITY));
                        }
                    }
                    let is_last = step + 1 == course.of_steps;
                    if session.may_keep(step + 1, is_last) {
                        together.check(comm, job, step)?;
                    }
                    session.after(comm, step + 1, is_last, || {
                        let sums = |lane: &Lane| [lane.epoch_loss, lane.epoch_weight];
                        let of_lane = |(place, lane)| sums(lane).into_iter().chain(together.of_lane(place));
                        let of_lanes = lanes.iter().enumerate().flat_map(of_lane).collect();
                        let items = Items { range: numbers.clone(), numbers: Cow::Owned(of_lanes) };
                        Ok(((fit.clone(), fit.first_loss, held.clone(), together.common(comm)?), items))
                    })?;
                }
                Ok(())
            })?;
        }
        if let Some(sums) = epoch_sums.take() {
            take_sums(&mut lanes.all, sums);
        }
        let next_step = first + course.steps_per_epoch;
        together.check(comm, job, next_step.saturating_sub(1))?;
        let penalty = together.end_epoch(comm, job)?;
        let Some(loss) = epoch_loss(comm, &lanes.all, penalty)? else {
            return job.diverged(comm, next_step.saturating_sub(1), None);
        };
        let change = fit.losses.last().map_or(f64::INFINITY, |before| relative_change(*before, loss));
        fit.losses.push(loss);
        fit.stop_values.push(change);
        fit.iterations = epoch + 1;
        fit.seconds.push(since.elapsed().as_secs_f64());
        let learning_rate = Some(job.learning_rate(next_step.saturating_sub(1)));
        let of_steps = course.of_steps;
        watch.progress(&Progress { step: next_step, of_steps, loss, gradient: None, learning_rate });
        if config.early_stop > 0 {
            let params = together.so_far(comm, job)?;
            let Some(loss) = together.held_out(comm, job, &params)? else {
                return job.diverged(comm, next_step.saturating_sub(1), None);
            };
            if held.add(loss, params, config.early_stop) {
                break;
            }
        }
        let small = |change: &&f64| **change <= config.tolerance;
        if config.tolerance > 0.0 && fit.stop_values.iter().rev().take_while(small).count() >= STILL_EPOCHS {
            fit.converged = true;
            break;
        }
    }
    let last = together.finish(comm, job)?;
    fit.valid_losses.clone_from(&held.losses);
    fit.params = held.into_best().unwrap_or(last);
    Ok(fit)
}

/// |Δ|/|loss|, 0 where nothing changed.
fn relative_change(before: f64, loss: f64) -> f64 {
    let change = (loss - before).abs();
    if change == 0.0 { 0.0 } else { change / loss.abs().max(f64::MIN_POSITIVE) }
}

/// Σ weight of the rows of each of the pool's steps, over all lanes. Collective.
pub(super) fn step_weights(comm: &Communicator, job: &Job<'_, '_>, lanes: &[Lane], n_steps: usize) -> Result<Vec<f64>> {
    let mut sums = BlockSums::new(n_steps, job.course.n_lanes);
    for lane in lanes {
        sums.push(lane.weights.clone());
    }
    match sum_blocks(comm, &sums)? {
        Total::Finite(weights) => Ok(weights),
        Total::NonFinite => Err(Error::internal("a row weight is not finite")),
    }
}

/// Mean loss of the epoch; None if it is not finite. Collective.
fn epoch_loss(comm: &Communicator, lanes: &[Lane], penalty: f64) -> Result<Option<f64>> {
    let mut sums = [ExactSum::new(), ExactSum::new()];
    for lane in lanes {
        sums[0].add(lane.epoch_loss);
        sums[1].add(lane.epoch_weight);
    }
    let [loss, weight] = sum_scalars(comm, &sums)?;
    let (Some(loss), Some(weight)) = (loss.value(), weight.value()) else { return Ok(None) };
    let mean = if weight > 0.0 { (loss + penalty) / weight } else { 0.0 };
    Ok(mean.is_finite().then_some(mean))
}

#[cfg(test)]
#[path = "data_parallel_tests.rs"]
mod tests;
