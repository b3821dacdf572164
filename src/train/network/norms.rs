//! What batch norms want of all rows of a step: exact sums over the lanes of all ranks.

use super::super::sums::{Total, sum_blocks};
use super::lanes::Piece;
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::BlockSums;
use crate::model::Network;
use crate::model::net::BatchMoments;
use rayon::prelude::*;
use std::ops::Range;

/// Channels that one task sums.
const TASK_CHANNELS: usize = 64;

/// The moments of a step's batch, layer by layer.
pub(super) struct Norms {
    /// The layers that want them, in order.
    pub layers: Vec<usize>,
    /// Of every layer, for its passes; empty of others.
    pub moments: Vec<Vec<f32>>,
    /// Of each of `layers`.
    of_batch: Vec<BatchMoments>,
    n_lanes: u64,
    /// Σ w of the rows of the step, in the unit of slopes.
    pub weight: f64,
}

impl Norms {
    pub fn new(network: &Network, n_lanes: u64) -> Norms {
        let norms = network.layers().iter().map(|layer| layer.batch_norm());
        let layers: Vec<usize> = norms.clone().enumerate().filter_map(|(at, norm)| norm.map(|_| at)).collect();
        Norms {
            moments: norms.map(|norm| norm.map_or_else(Vec::new, |norm| vec![0.0; norm.n_moments()])).collect(),
            of_batch: vec![BatchMoments::default(); layers.len()],
            layers,
            n_lanes,
            weight: 0.0,
        }
    }

    /// The moments of what goes into a layer, whose rows have come so far. What is not finite gives NaN, so that the step is judged as any other. Collective;
    /// rayon over lanes and channels.
    pub fn forward(
        &mut self,
        comm: &Communicator,
        network: &Network,
        layer: usize,
        pieces: &[Piece],
        lanes: &[(usize, Range<usize>)],
    ) -> Result<()> {
        let Some(norm) = network.layers()[layer].batch_norm() else { return Ok(()) };
        // Near the mean of this batch, as soon as some have run.
        let around = &network.running[network.running_place(layer)][..norm.channels];
        let of_lane = |pieces: &[Piece], first: usize, [plain, squares]: [&mut [f64]; 2]| {
            for piece in pieces {
                let (strip, n) = (&piece.strip, piece.strip.n_rows);
                let sums = [&mut *plain, &mut *squares];
                norm.add_moments(&strip.values(layer), &strip.weights[..n], around, first, sums);
            }
        };
        let sums = self.sum(comm, norm.channels, pieces, lanes, of_lane)?;
        let (of_channels, squares) = sums.split_at(2 * norm.channels);
        let (plain, around_mean) = of_channels.split_at(norm.channels);
        let weights = [self.weight, squares[0]];
        let of_batch = norm.finish_moments([plain, around_mean], around, weights, &mut self.moments[layer]);
        if let Some(place) = self.layers.iter().position(|norm| *norm == layer) {
            self.of_batch[place] = of_batch;
        }
        Ok(())
    }

    /// The mean slopes of what comes out of a layer, whose slopes are there. Collective; rayon over lanes and channels.
    pub fn backward(
        &mut self,
        comm: &Communicator,
        network: &Network,
        layer: usize,
        pieces: &[Piece],
        lanes: &[(usize, Range<usize>)],
    ) -> Result<()> {
        let Some(norm) = network.layers()[layer].batch_norm() else { return Ok(()) };
        let moments = &self.moments[layer];
        let of_lane = |pieces: &[Piece], first: usize, [plain, along]: [&mut [f64]; 2]| {
            for piece in pieces {
                let (strip, sums) = (&piece.strip, [&mut *plain, &mut *along]);
                norm.add_slopes(&strip.values(layer), &strip.slopes(layer + 1), strip.n_rows, moments, first, sums);
            }
        };
        let sums = self.sum(comm, norm.channels, pieces, lanes, of_lane)?;
        let (plain, along) = sums[..2 * norm.channels].split_at(norm.channels);
        norm.finish_slopes([plain, along], self.weight, &mut self.moments[layer]);
        Ok(())
    }

    /// The step is done: the running moments take up those of its batch. Not collective.
    pub fn commit(&self, network: &mut Network) {
        for (layer, of_batch) in self.layers.iter().zip(&self.of_batch) {
            if let Some(norm) = network.layers()[*layer].batch_norm().copied() {
                let place = network.running_place(*layer);
                norm.run_on(of_batch, &mut network.running[place]);
            }
        }
    }

    /// Two sums a channel over all lanes, and then Σ w²; NaN if one of them is not finite. Every lane's sums go along its rows in order, in float64; lanes are added
    /// exactly. Collective: two small all-reduces.
    fn sum(
        &self,
        comm: &Communicator,
        channels: usize,
        pieces: &[Piece],
        lanes: &[(usize, Range<usize>)],
        of_lane: impl Fn(&[Piece], usize, [&mut [f64]; 2]) + Sync,
    ) -> Result<Vec<f64>> {
        let contribution = |(_, of_lane_here): &(usize, Range<usize>)| {
            let (mut sums, pieces) = (vec![0.0; 2 * channels + 1], &pieces[of_lane_here.clone()]);
            let (of_channels, squares) = sums.split_at_mut(2 * channels);
            let (one, other) = of_channels.split_at_mut(channels);
            let tasks = one.par_chunks_mut(TASK_CHANNELS).zip(other.par_chunks_mut(TASK_CHANNELS)).enumerate();
            tasks.for_each(|(task, (one, other))| of_lane(pieces, task * TASK_CHANNELS, [one, other]));
            for piece in pieces {
                piece.strip.weights[..piece.strip.n_rows].iter().for_each(|w| squares[0] += w * w);
            }
            sums
        };
        let mut sums = BlockSums::new(2 * channels + 1, self.n_lanes);
        let contributions: Vec<Vec<f64>> = lanes.par_iter().map(contribution).collect();
        contributions.into_iter().for_each(|of_lane| sums.push(of_lane));
        Ok(match sum_blocks(comm, &sums)? {
            Total::Finite(sums) => sums,
            Total::NonFinite => vec![f64::NAN; 2 * channels + 1],
        })
    }
}
