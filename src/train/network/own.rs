//! A lane that steps alone: parameters, optimiser, and its rows on their way.

use super::super::data_parallel::Job;
use super::super::lanes::Lane;
use super::lanes::Piece;
use super::norms::Norms;
use super::shards::optimizer_of_all;
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::ExactSum;
use crate::model::Network;
use crate::model::net::{Part, Training, Turned};
use crate::optim::{Pieces, length, multiply, shorten};
use rayon::prelude::*;
use std::ops::Range;

/// What belongs to one lane: about 12 bytes a parameter and 4 for each number that its optimiser keeps of one.
pub(super) struct Own {
    /// Global number.
    pub lane: u64,
    pub network: Network,
    pub optimizer: Pieces<f32>,
    /// Rows of its micro-batch.
    pieces: Vec<Piece>,
    turned: Turned,
    /// Of the micro-batch alone.
    norms: Norms,
    grad: Vec<f32>,
    /// Σ weight of the rows taken since lanes last met.
    pub weight: f64,
    /// The first step that gave something infinite.
    pub failed: Option<u64>,
}

/// What lanes have alike.
pub(super) struct Alike {
    /// Of the parameters, in order, each with its layer.
    parts: Vec<(usize, Part)>,
    /// Parameters that have a penalty.
    penalised: Vec<Range<usize>>,
    /// Power of two near the weight of a typical row: keeps float32 in range whatever the scale of weights.
    unit: f64,
}

impl Alike {
    /// Not collective.
    pub fn new(network: &Network, unit: f64) -> Alike {
        let of_layer = |layer| network.parts(layer).into_iter().map(move |part| (layer, part));
        let penalised = network.tensors().into_iter().filter(|(_, spec, _)| !spec.is_free);
        Alike {
            parts: (0..network.layers().len()).flat_map(of_layer).collect(),
            penalised: penalised.map(|(_, _, range)| range).collect(),
            unit,
        }
    }
}

impl Own {
    /// At these parameters. Not collective.
    pub fn new(job: &Job<'_, '_>, lane: u64, network: &Network, pieces: Vec<Piece>) -> Own {
        Own {
            lane,
            optimizer: optimizer_of_all(job.config, network),
            pieces,
            turned: network.turned(),
            norms: Norms::new(network, 1),
            grad: vec![0.0; network.params.len()],
            weight: 0.0,
            failed: None,
            network: network.clone(),
        }
    }

    /// One step of this lane. Not collective; rayon over pieces and parts, whose cut leaves no trace.
    pub fn step(&mut self, job: &Job<'_, '_>, alike: &Alike, lane: &mut Lane, step: u64, of_pool: usize) -> Result<()> {
        let weight = lane.weights[of_pool];
        if weight == 0.0 || self.failed.is_some() {
            return Ok(());
        }
        self.turned.take_up(&self.network);
        self.norms.weight = weight / alike.unit;
        self.pass(job, lane, Training { seed: job.config.seed, step }, of_pool, alike.unit)?;
        self.add_gradients(&alike.parts, alike.unit / weight);
        let penalty = self.add_penalty(job.config.l2, &alike.penalised);
        if let Some(most) = job.config.clip_norm {
            let squares: ExactSum = self.optimizer.squares(&self.grad);
            shorten(&mut self.grad, length(&squares), most);
        }
        self.optimizer.step(job.learning_rate(step), &mut self.grad, &mut self.network.params);
        self.norms.commit(&mut self.network);

        lane.loss = 0.0;
        for piece in &self.pieces {
            piece.losses[..piece.strip.n_rows].iter().for_each(|loss| lane.loss += loss);
        }
        lane.epoch_loss += lane.loss + weight * penalty;
        lane.epoch_weight += weight;
        self.weight += weight;
        if !lane.loss.is_finite() || !self.network.params.par_iter().all(|param| param.is_finite()) {
            self.failed = Some(step);
        }
        Ok(())
    }

    /// Rows forward and back, which wait for one another at batch norms only.
    fn pass(&mut self, job: &Job<'_, '_>, lane: &Lane, training: Training, of_pool: usize, unit: f64) -> Result<()> {
        // Moments are of this lane: a world of one.
        let (alone, here) = (Communicator::solo(), [(0, 0..self.pieces.len())]);
        let (network, turned, n_layers) = (&self.network, &self.turned, self.network.layers().len());
        let stops = self.norms.layers.clone();
        // On the way back rows wait behind a batch norm.
        let free = stops.last().map_or(0, |norm| norm + 1);
        let mut first = 0;
        for stop in 0..=stops.len() {
            let end = stops.get(stop).copied().unwrap_or(n_layers);
            let moments = &self.norms.moments;
            self.pieces.par_iter_mut().for_each(|piece| {
                if stop == 0 {
                    piece.fill(job, network, lane, of_pool, unit);
                }
                if piece.strip.n_rows > 0 {
                    piece.forward(network, first..end, training, moments, turned);
                    if end == n_layers {
                        piece.judge(job, network, unit);
                        piece.backward(network, free..n_layers, training, moments, turned);
                    }
                }
            });
            if end < n_layers {
                self.norms.forward(&alone, network, end, &self.pieces, &here)?;
            }
            first = end;
        }
        for (at, norm) in stops.iter().enumerate().rev() {
            self.norms.backward(&alone, network, *norm, &self.pieces, &here)?;
            let start = if at == 0 { 0 } else { stops[at - 1] + 1 };
            let moments = &self.norms.moments;
            let pieces = self.pieces.par_iter_mut().filter(|piece| piece.strip.n_rows > 0);
            pieces.for_each(|piece| piece.backward(network, start..norm + 1, training, moments, turned));
        }
        Ok(())
    }

    /// Σ over the rows of ∂loss/∂params, times `factor`.
    fn add_gradients(&mut self, parts: &[(usize, Part)], factor: f64) {
        let (network, pieces, moments) = (&self.network, &self.pieces, &self.norms.moments);
        let make = |layer: usize, part: &Part, grad: &mut [f32]| {
            network.gradient(layer, part, moments, pieces.iter().map(|piece| &piece.strip), grad);
            multiply(grad, factor);
        };
        each_part(parts, &mut self.grad, &make);
    }

    /// Adds λ₂·params to the mean gradient and returns λ₂/2‖params‖²; biases are free.
    fn add_penalty(&mut self, l2: f64, penalised: &[Range<usize>]) -> f64 {
        if l2 == 0.0 {
            return 0.0;
        }
        let mut squares = 0.0;
        for range in penalised {
            let params = &self.network.params[range.clone()];
            for (grad, param) in self.grad[range.clone()].iter_mut().zip(params) {
                *grad = (f64::from(*grad) + l2 * f64::from(*param)) as f32;
                squares += f64::from(*param) * f64::from(*param);
            }
        }
        0.5 * l2 * squares
    }
}

/// Halves the parts among threads; `grad`: of all of them.
fn each_part(parts: &[(usize, Part)], grad: &mut [f32], make: &(impl Fn(usize, &Part, &mut [f32]) + Sync)) {
    match parts {
        [] => {}
        [(layer, part)] => make(*layer, part, grad),
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            let (of_left, of_right) = grad.split_at_mut(right[0].1.range.start - left[0].1.range.start);
            rayon::join(|| each_part(left, of_left, make), || each_part(right, of_right, make));
        }
    }
}
