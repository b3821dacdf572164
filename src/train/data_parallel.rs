//! Mini-batch training over lanes: local gradients → integers → all-reduce → one step, the same on every rank.

use super::checkpoint::{Items, Session};
use super::early_stop::{Held, held_out_loss};
use super::lanes::{Course, Lane, Lanes, for_each_lane};
use super::learning_rate::Scales;
use super::sums::{Total, sum_blocks, sum_scalars};
use super::table::{Fit, Table};
use super::{Observer, Progress, Solver, Sync, TrainConfig, local_sgd};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::{BlockSums, ExactSum, Groups, LaneSums, ScaleWindow, Verdict, Width, judge};
use crate::objective::Objective;
use crate::optim::{Adagrad, Adam, Average, Lamb, Lars, Optimizer, Sgd, Tensor, clip};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
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
/// * [`Sync::Step`] makes two all-reduces a step: 4 bytes a group of parameters, 4 a parameter; two small ones more an epoch.
///
/// # Errors
/// Usage, on every rank: settings that do not fit together, or a loss that is no longer finite.
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
    let (job, lanes) = prepare(comm, table, objective, config, &start)?;
    if comm.is_root() && comm.size() as u64 > job.course.n_lanes {
        watch.warning(&format!("{} ranks but only {} lanes: the others stay idle", comm.size(), job.course.n_lanes));
    }
    match config.sync {
        Sync::Step => run(comm, &job, lanes, EveryStep::new(&job, start), session, watch),
        Sync::Every(_) | Sync::Once => run(comm, &job, lanes, local_sgd::Apart::new(&job, start), session, watch),
    }
}

/// The lanes of this rank, and the learning rate. Collective.
fn prepare<'a, 's>(
    comm: &Communicator,
    table: &'a Table<'s>,
    objective: &'a dyn Objective,
    config: &'a TrainConfig,
    start: &[f64],
) -> Result<(Job<'a, 's>, Lanes)> {
    check(config)?;
    let course = Course::new(table, config)?;
    let mut lanes = Lanes::of(table, &course, config.seed, objective.n_scores());
    lanes.enter(comm, table, 0, 0)?;
    let step_rows = match config.sync {
        Sync::Step => config.global_batch.min(table.plan.n_rows()),
        Sync::Every(_) | Sync::Once => course.micro_batch.min(table.plan.longest_lane()),
    };
    let scales = Scales::measure(comm, table, objective, start, &lanes.all, &course, step_rows)?;
    let scale_of_rate = config.scale_rate.map_or(1.0, |scale| scale.factor(config.global_batch));
    let rate = match config.learning_rate {
        Some(rate) => rate * scale_of_rate,
        None => scales.rate(config, table.n_features),
    };
    let warm_up = config.warm_up.map_or(0, |warm_up| warm_up.steps(course.steps_per_epoch));
    if warm_up > 0 && warm_up >= course.of_steps {
        return Err(Error::usage(format!(
            "--warm-up takes {warm_up} steps, but this training has no more than {}; shorten it, or raise --epochs",
            course.of_steps
        )));
    }
    Ok((Job { table, objective, config, course, rate, scale_of_rate, warm_up, scales }, lanes))
}

/// What mini-batch training cannot do. Not collective; the same on every rank.
fn check(config: &TrainConfig) -> Result<()> {
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
    /// Steps over which the rate rises.
    warm_up: u64,
    pub scales: Scales,
}

impl Job<'_, '_> {
    pub fn optimizer(&self, n_params: usize) -> Box<dyn Optimizer> {
        let config = self.config;
        let (betas, epsilon) = (config.betas(), config.epsilon() * self.gradient_scale());
        let decay = config.weight_decay.unwrap_or(0.0);
        // Coefficients reach from one end of the scores to the other: steps of their length begin there.
        let unit = self.scales.score_unit();
        let n_scores = self.objective.n_scores();
        let tensors = [Tensor::new(self.table.n_features), Tensor::free(1)].repeat(n_scores);
        match config.solver {
            Solver::Adam => Box::new(Adam::new(n_params, betas, epsilon)),
            Solver::Adamw => {
                // A rate that was measured carries the scale of the scores; how much a step decays does not.
                let of_rate = if config.learning_rate.is_some() { 1.0 } else { unit };
                Box::new(Adam::new(n_params, betas, epsilon).with_decay(decay / of_rate, &tensors))
            }
            Solver::Lamb => Box::new(Lamb::new(&tensors, betas, epsilon, decay, unit, unit)),
            Solver::Lars => {
                let of_free = self.scales.sgd(config) / self.scales.lars(config);
                Box::new(Lars::new(&tensors, config.momentum, decay, unit, of_free))
            }
            Solver::Adagrad => Box::new(Adagrad::new(n_params, epsilon)),
            _ => Box::new(Sgd::new(n_params, config.momentum, config.nesterov)),
        }
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

    /// A typical |∂loss/∂score|, as a power of two.
    pub fn gradient_scale(&self) -> f64 {
        power_of_two_below(self.scales.score_gradient)
    }

    pub fn learning_rate(&self, step: u64) -> f64 {
        self.rate * self.config.schedule.at(step, self.course.of_steps, self.course.steps_per_epoch, self.warm_up)
    }

    /// Adds λ₂·coefficients to a mean gradient and returns λ₂/2‖coefficients‖²; intercepts are free.
    pub fn add_penalty(&self, params: &[f64], grad: &mut [f64]) -> f64 {
        let (d, l2) = (self.table.n_features, self.config.l2);
        let mut squares = 0.0;
        for (params, grad) in params.chunks_exact(d + 1).zip(grad.chunks_exact_mut(d + 1)) {
            for (p, g) in params[..d].iter().zip(grad) {
                *g += l2 * p;
                squares += p * p;
            }
        }
        0.5 * l2 * squares
    }

    /// The same error on every rank. Collective.
    pub fn diverged<V>(&self, comm: &Communicator, step: u64, lane: u64) -> Result<V> {
        let error = Error::usage(format!(
            "training diverged at step {} (epoch {}, lane {lane}): the loss is no longer finite; try --learning-rate {:.1e}",
            step + 1,
            self.course.epoch_of(step),
            self.rate / self.scale_of_rate / 10.0,
        ));
        match comm.agree(if comm.is_root() { Err(error) } else { Ok(()) }) {
            Err(error) => Err(error),
            Ok(()) => unreachable!("the root has failed"),
        }
    }
}

/// 2^ilogb(x); 1 for what has no logarithm or would leave the normal numbers.
fn power_of_two_below(x: f64) -> f64 {
    let exponent_bits = x.to_bits() & (0x7ff << 52);
    let normal = x > 0.0 && (100 << 52..1900 << 52).contains(&exponent_bits);
    if normal { f64::from_bits(exponent_bits) } else { 1.0 }
}

/// How lanes are brought together.
pub(super) trait Together {
    /// State between steps that all ranks have alike.
    type Common: Serialize + DeserializeOwned;
    fn common(&self) -> Self::Common;
    /// The parameters that all lanes last had in common.
    fn common_params(&self) -> &[f64];
    /// Numbers that each lane has for itself.
    fn n_of_lane(&self) -> usize;
    /// Those of a lane here, by its place.
    fn of_lane(&self, place: usize) -> Vec<f64>;
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
    /// An error on all ranks if a step has led to infinity: such a state is not kept. Collective.
    fn check(&self, comm: &Communicator, job: &Job<'_, '_>) -> Result<()>;
    /// Called after each epoch's last step; returns what its losses lack of the penalty, weighted. Collective.
    fn end_epoch(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<f64>;
    /// The model after an epoch; lanes that are apart meet for it. Collective.
    fn so_far(&mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>>;
    /// The model. Collective.
    fn finish(self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>>;
}

/// All epochs. Collective.
fn run(
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
        held_out_loss(comm, job.table, job.objective, together.common_params())?;
    }
    let numbers = job.table.lanes();
    let of_item = 2 + together.n_of_lane();
    // Sums of the epoch that was under way.
    let mut epoch_sums = None;
    if let Some(((kept, kept_held, common), items)) = session.take(comm, numbers.clone(), of_item)? {
        (fit, held) = (kept, kept_held);
        let mut of_lanes: Vec<Vec<f64>> = items.chunks_exact(of_item).map(<[f64]>::to_vec).collect();
        epoch_sums = Some(of_lanes.iter_mut().map(|of| of.drain(..2).collect::<Vec<f64>>()).collect::<Vec<_>>());
        comm.agree(together.take_up(common, &of_lanes))?;
    }
    let resumed = session.resumed_step();
    let take_sums = |lanes: &mut [Lane], sums: Vec<Vec<f64>>| {
        lanes.iter_mut().zip(sums).for_each(|(lane, sums)| (lane.epoch_loss, lane.epoch_weight) = (sums[0], sums[1]));
    };
    // The epoch of the last step that was done: its end may be to do.
    for epoch in resumed.saturating_sub(1) / course.steps_per_epoch.max(1)..course.epochs {
        let since = Instant::now();
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
                    }
                    let is_last = step + 1 == course.of_steps;
                    if session.may_keep(step + 1, is_last) {
                        together.check(comm, job)?;
                    }
                    session.after(comm, step + 1, is_last, || {
                        let sums = |lane: &Lane| [lane.epoch_loss, lane.epoch_weight];
                        let of_lane = |(place, lane)| sums(lane).into_iter().chain(together.of_lane(place));
                        let of_lanes = lanes.iter().enumerate().flat_map(of_lane).collect();
                        (
                            (fit.clone(), held.clone(), together.common()),
                            Items { range: numbers.clone(), numbers: Cow::Owned(of_lanes) },
                        )
                    })?;
                }
                Ok(())
            })?;
        }
        if let Some(sums) = epoch_sums.take() {
            take_sums(&mut lanes.all, sums);
        }
        let next_step = first + course.steps_per_epoch;
        let penalty = together.end_epoch(comm, job)?;
        let Some(loss) = epoch_loss(comm, &lanes.all, penalty)? else {
            return job.diverged(comm, next_step.saturating_sub(1), 0);
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
            let Some(loss) = held_out_loss(comm, job.table, job.objective, &params)? else {
                return job.diverged(comm, next_step.saturating_sub(1), 0);
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
fn step_weights(comm: &Communicator, job: &Job<'_, '_>, lanes: &[Lane], n_steps: usize) -> Result<Vec<f64>> {
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

/// One set of parameters; gradients of the lanes are added every step.
struct EveryStep {
    params: Vec<f64>,
    optimizer: Box<dyn Optimizer>,
    average: Option<Average>,
    groups: Groups,
    sums: LaneSums,
    window: ScaleWindow,
    /// Per group, then the number of lanes less the first lane that failed (0: none did).
    peaks: Vec<i32>,
    /// A lane's gradient in units of `unit`, then the sum's.
    narrow: Vec<f32>,
    grad: Vec<f64>,
    /// Power of two near the weighted gradient of a typical row by its score: keeps float32 in range whatever the scale of
    /// targets and weights.
    unit: f64,
    /// Σ over the epoch's steps of weight × penalty.
    penalty: f64,
    /// Steps that were entered a second time.
    redone: u64,
}

impl EveryStep {
    fn new(job: &Job<'_, '_>, params: Vec<f64>) -> EveryStep {
        let d = job.table.n_features;
        let tensors: Vec<usize> = (0..job.objective.n_scores()).flat_map(|_| [d, 1]).collect();
        let groups = Groups::new(&tensors);
        let mean_weight = job.table.total_weight / job.table.plan.n_rows().max(1) as f64;
        let n = params.len();
        assert_eq!(n, groups.n_elements(), "start has one number a parameter");
        EveryStep {
            optimizer: job.optimizer(n),
            average: job.average(n),
            sums: LaneSums::new(&groups, job.course.n_lanes as usize, Width::W32),
            window: ScaleWindow::new(groups.len()),
            peaks: vec![0; groups.len() + 1],
            narrow: vec![0.0; n],
            grad: vec![0.0; n],
            unit: power_of_two_below(mean_weight) * job.gradient_scale(),
            penalty: 0.0,
            redone: 0,
            params,
            groups,
        }
    }

    /// Enters the lanes' gradients as integers and finds the peaks of this rank. Not collective.
    fn enter(&mut self, lanes: &[Lane], n_lanes: u64, exponents: &[i32]) {
        self.sums.clear();
        self.peaks.fill(0);
        let (flag, peaks) = self.peaks.split_last_mut().expect("the flag is last");
        for lane in lanes {
            let mut finite = lane.loss.is_finite();
            for (narrow, g) in self.narrow.iter_mut().zip(&lane.grad) {
                *narrow = (g / self.unit) as f32;
                finite &= narrow.is_finite();
            }
            if finite {
                self.sums.add_with_peaks(&self.narrow, exponents, peaks);
            } else {
                *flag = (*flag).max((n_lanes - lane.number) as i32);
            }
        }
    }
}

/// What a checkpoint holds of [`EveryStep`].
#[derive(Serialize, Deserialize)]
pub(super) struct StepState {
    params: Vec<f64>,
    optimizer: Vec<(String, Vec<f64>)>,
    window: Vec<i64>,
    penalty: f64,
    average: Option<Average>,
}

impl Together for EveryStep {
    type Common = StepState;

    fn common(&self) -> StepState {
        let optimizer = self.optimizer.state().into_iter().map(|(name, values)| (name.to_string(), values.to_vec()));
        let (params, optimizer) = (self.params.clone(), optimizer.collect());
        let (window, average) = (self.window.words(), self.average.clone());
        StepState { params, optimizer, window, penalty: self.penalty, average }
    }

    fn common_params(&self) -> &[f64] {
        &self.params
    }

    fn n_of_lane(&self) -> usize {
        0
    }

    fn of_lane(&self, _: usize) -> Vec<f64> {
        Vec::new()
    }

    fn take_up(&mut self, common: StepState, _: &[Vec<f64>]) -> Result<()> {
        let misfit = || Error::data("the checkpoint has another number of parameters");
        let of_average = |average: &Option<Average>| average.as_ref().map(Average::n_params);
        if common.params.len() != self.params.len() || of_average(&common.average) != of_average(&self.average) {
            return Err(misfit());
        }
        let state: Vec<(&str, &[f64])> =
            common.optimizer.iter().map(|(name, values)| (&name[..], &values[..])).collect();
        self.optimizer.restore(&state)?;
        self.window = ScaleWindow::from_words(&common.window).ok_or_else(misfit)?;
        (self.params, self.penalty, self.average) = (common.params, common.penalty, common.average);
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
        for_each_lane(lanes, |lane| lane.compute(job.table, job.objective, of_pool, &self.params));
        let n_lanes = job.course.n_lanes;
        let mut exponents = self.window.exponents();
        self.enter(lanes, n_lanes, &exponents);

        // Reduce what decides; the gradients themselves are still here, so a redo only enters them again.
        comm.all_reduce_max(&mut self.peaks)?;
        let (&flag, peaks) = self.peaks.split_last().expect("the flag is last");
        if flag > 0 {
            return job.diverged(comm, step, n_lanes - flag as u64);
        }
        match judge(peaks, &exponents) {
            Verdict::Fits => {}
            Verdict::NonFinite => return job.diverged(comm, step, 0),
            Verdict::Redo(wider) => {
                let agreed = self.peaks.clone();
                exponents = wider;
                self.enter(lanes, n_lanes, &exponents);
                self.peaks = agreed;
                self.redone += 1;
            }
        }
        let peaks = &self.peaks[..self.groups.len()];
        assert_eq!(judge(peaks, &exponents), Verdict::Fits, "step {step} is redone at most once");
        comm.all_reduce_sum(self.sums.words_u32())?;
        self.sums.finish(&exponents, &mut self.narrow);

        // Commit.
        let factor = self.unit / weight;
        for (grad, sum) in self.grad.iter_mut().zip(&self.narrow) {
            *grad = f64::from(*sum) * factor;
        }
        self.penalty += weight * job.add_penalty(&self.params, &mut self.grad);
        job.descend(self.optimizer.as_mut(), step, &mut self.grad, &mut self.params);
        if let Some(average) = &mut self.average {
            average.add(&self.params);
        }
        self.window.commit(peaks);
        for lane in lanes {
            lane.epoch_loss += lane.loss;
            lane.epoch_weight += lane.weights[of_pool];
        }
        match self.params.iter().all(|p| p.is_finite()) {
            true => Ok(()),
            false => job.diverged(comm, step, 0),
        }
    }

    fn check(&self, _comm: &Communicator, _job: &Job<'_, '_>) -> Result<()> {
        Ok(()) // every step was
    }

    fn end_epoch(&mut self, _comm: &Communicator, _job: &Job<'_, '_>) -> Result<f64> {
        Ok(std::mem::take(&mut self.penalty))
    }

    fn so_far(&mut self, _comm: &Communicator, _job: &Job<'_, '_>) -> Result<Vec<f64>> {
        Ok(self.average.as_ref().and_then(Average::value).unwrap_or_else(|| self.params.clone()))
    }

    fn finish(mut self, comm: &Communicator, job: &Job<'_, '_>) -> Result<Vec<f64>> {
        self.so_far(comm, job)
    }
}

#[cfg(test)]
#[path = "data_parallel_tests.rs"]
mod tests;
