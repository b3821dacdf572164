//! Gradients of a linear model, summed over the lanes every step.

use super::data_parallel::{Job, Together};
use super::lanes::{Lane, for_each_lane};
use super::learning_rate::Scales;
use super::{Solver, TrainConfig};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::{Groups, LaneSums, ScaleWindow, Verdict, Width, judge};
use crate::optim::{Adagrad, Adam, Average, Lamb, Lars, Optimizer, Real, Sgd, Tensor};
use serde::{Deserialize, Serialize};

/// What steps of the linear family are measured by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub scales: Scales,
}

impl Rules {
    /// As the settings say. Not collective.
    pub fn optimizer(&self, job: &Job<'_, '_>) -> Box<dyn Optimizer> {
        let (config, scales) = (job.config, &self.scales);
        // Coefficients reach from one end of the scores to the other: steps of their length begin there.
        let params = scales.score_unit();
        let units = Units {
            gradient: self.gradient_scale(),
            params,
            rate: if config.learning_rate.is_some() { 1.0 } else { params },
            of_free: scales.sgd(config) / scales.lars(config),
        };
        let tensors = [Tensor::new(job.table.n_features), Tensor::free(1)].repeat(job.objective.n_scores());
        optimizer(config, &tensors, units)
    }

    /// A typical |∂loss/∂score|, as a power of two.
    pub fn gradient_scale(&self) -> f64 {
        power_of_two_below(self.scales.score_gradient)
    }
}

/// What steps are measured in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    /// A typical gradient.
    gradient: f64,
    params: f64,
    /// A rate that was measured carries the scale of the scores; how much a step of adamw decays does not.
    rate: f64,
    /// Of lars: steps of free tensors.
    of_free: f64,
}

impl Units {
    /// Of networks, whose values are all of unit scale.
    pub const ONE: Units = Units { gradient: 1.0, params: 1.0, rate: 1.0, of_free: 1.0 };
}

/// The optimiser that the settings name, of all parameters or some of their tensors. Not collective.
pub(super) fn optimizer<F: Real>(config: &TrainConfig, tensors: &[Tensor], units: Units) -> Box<dyn Optimizer<F>> {
    let n = tensors.iter().map(|tensor| tensor.len).sum();
    let (betas, epsilon) = (config.betas(), config.epsilon() * units.gradient);
    let decay = config.weight_decay.unwrap_or(0.0);
    match config.solver {
        Solver::Adam => Box::new(Adam::new(n, betas, epsilon)),
        Solver::Adamw => Box::new(Adam::new(n, betas, epsilon).with_decay(decay / units.rate, tensors)),
        Solver::Lamb => Box::new(Lamb::new(tensors, betas, epsilon, decay, units.params, units.params)),
        Solver::Lars => Box::new(Lars::new(tensors, config.momentum, decay, units.params, units.of_free)),
        Solver::Adagrad => Box::new(Adagrad::new(n, epsilon)),
        _ => Box::new(Sgd::new(n, config.momentum, config.nesterov)),
    }
}

/// Adds λ₂·coefficients to a mean gradient and returns λ₂/2‖coefficients‖²; intercepts are free.
pub(super) fn add_penalty(job: &Job<'_, '_>, params: &[f64], grad: &mut [f64]) -> f64 {
    let (d, l2) = (job.table.n_features, job.config.l2);
    let mut squares = 0.0;
    for (params, grad) in params.chunks_exact(d + 1).zip(grad.chunks_exact_mut(d + 1)) {
        for (p, g) in params[..d].iter().zip(grad) {
            *g += l2 * p;
            squares += p * p;
        }
    }
    0.5 * l2 * squares
}

/// 2^ilogb(x); 1 for what has no logarithm or would leave the normal numbers.
pub(super) fn power_of_two_below(x: f64) -> f64 {
    let exponent_bits = x.to_bits() & (0x7ff << 52);
    let normal = x > 0.0 && (100 << 52..1900 << 52).contains(&exponent_bits);
    if normal { f64::from_bits(exponent_bits) } else { 1.0 }
}

/// One set of parameters; gradients of the lanes are added every step.
pub(super) struct EveryStep {
    pub(super) params: Vec<f64>,
    pub(super) optimizer: Box<dyn Optimizer>,
    pub(super) average: Option<Average>,
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
    pub(super) redone: u64,
}

impl EveryStep {
    pub fn new(job: &Job<'_, '_>, rules: Rules, params: Vec<f64>) -> EveryStep {
        let d = job.table.n_features;
        let tensors: Vec<usize> = (0..job.objective.n_scores()).flat_map(|_| [d, 1]).collect();
        let groups = Groups::new(&tensors);
        let mean_weight = job.table.total_weight / job.table.plan.n_rows().max(1) as f64;
        let n = params.len();
        assert_eq!(n, groups.n_elements(), "start has one number a parameter");
        EveryStep {
            optimizer: rules.optimizer(job),
            average: job.average(n),
            sums: LaneSums::new(&groups, job.course.n_lanes as usize, Width::W32),
            window: ScaleWindow::new(groups.len()),
            peaks: vec![0; groups.len() + 1],
            narrow: vec![0.0; n],
            grad: vec![0.0; n],
            unit: power_of_two_below(mean_weight) * rules.gradient_scale(),
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

    fn common(&mut self, _comm: &Communicator) -> Result<StepState> {
        let optimizer = self.optimizer.state().into_iter().map(|(name, values)| (name.to_string(), values.to_vec()));
        let (params, optimizer) = (self.params.clone(), optimizer.collect());
        let (window, average) = (self.window.words(), self.average.clone());
        Ok(StepState { params, optimizer, window, penalty: self.penalty, average })
    }

    fn n_of_lane(&self) -> usize {
        0
    }

    fn of_lane(&mut self, _: usize) -> Vec<f64> {
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
            return job.diverged(comm, step, Some(n_lanes - flag as u64));
        }
        match judge(peaks, &exponents) {
            Verdict::Fits => {}
            Verdict::NonFinite => return job.diverged(comm, step, None),
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
        self.penalty += weight * add_penalty(job, &self.params, &mut self.grad);
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
            false => job.diverged(comm, step, None),
        }
    }

    fn check(&self, _comm: &Communicator, _job: &Job<'_, '_>, _step: u64) -> Result<()> {
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
