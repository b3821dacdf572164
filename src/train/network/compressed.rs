//! Gradients of which less travels than every number: what a lane does not send goes into its next gradient.

use super::super::TrainConfig;
use super::lanes::Piece;
use super::low_rank::LowRank;
use super::top_k::TopK;
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::{Groups, LaneGrid, Width};
use crate::matmul::{SLAB_ROWS, WIDTH};
use crate::model::Network;
use crate::model::net::Part;
use rayon::prelude::*;
use std::ops::Range;

/// The other way to add the gradients of lanes, beside the integers of every number that [`Segment`](super::segments::Segment) sends.
///
/// A lane holds one float32 a parameter: what it has left, and within a step its gradient too. What it sends is taken from that as it is sent, rounded
/// to integers, so sent and left are all that was given. Lanes and what each of them chooses are the same on any number of ranks, and integers are added:
/// so are the sums.
///
/// A step sends when all of its gradient is there, for what is sent, and at which exponents, is known only then: nothing is hidden behind the way back. In return
/// nothing is predicted, cut or redone. A lane without rows in a step sends nothing, and keeps what it has left.
///
/// Memory: of each lane here 4 bytes a parameter; of the rank 8 more.
pub(super) struct Compressed {
    way: Way,
    /// Of all layers, in order: the layer, and a run of parameters.
    parts: Vec<(usize, Part)>,
    groups: Groups,
    grid: LaneGrid,
    /// Of each lane here.
    held: Vec<Vec<f32>>,
    /// What the lanes have sent in a step, added: one a parameter.
    sums: Vec<f32>,
}

/// What of it travels.
enum Way {
    TopK(TopK),
    LowRank(LowRank),
}

/// The lanes here that have rows in a step, in order, and their pieces.
type Offered<'o> = &'o [(usize, Range<usize>)];

impl Compressed {
    /// None: every number travels. Not collective; the same answer on every rank.
    ///
    /// * `n_lanes`: here, and over all ranks.
    ///
    /// # Errors
    /// Usage: a network that is too large.
    pub fn new(
        config: &TrainConfig,
        network: &Network,
        groups: &Groups,
        n_lanes: [usize; 2],
    ) -> Result<Option<Compressed>> {
        let n = network.params.len();
        let Some(mlp) = &config.mlp else { return Ok(None) };
        let way = match (mlp.top_k, mlp.powersgd) {
            (Some(share), _) => Way::TopK(TopK::new(share, n)?),
            (None, Some(rank)) => Way::LowRank(LowRank::new(network, rank as usize, config.seed)),
            (None, None) => return Ok(None),
        };
        let layers = 0..network.layers().len();
        Ok(Some(Compressed {
            way,
            parts: layers.flat_map(|layer| network.parts(layer).into_iter().map(move |part| (layer, part))).collect(),
            groups: groups.clone(),
            grid: LaneGrid::new(n_lanes[1], Width::W32),
            held: vec![vec![0.0; n]; n_lanes[0]],
            sums: vec![0.0; n],
        }))
    }

    /// Makes the gradients of the lanes here. Not collective; rayon over lanes and parts.
    pub fn enter(&mut self, network: &Network, pieces: &[Piece], offered: Offered<'_>, moments: &[Vec<f32>]) {
        let mut tasks = Vec::new();
        for (mut held, (_, of_lane)) in offering(&mut self.held, offered).into_iter().zip(offered) {
            for (layer, part) in &self.parts {
                let held = held.split_off_mut(..part.range.len()).expect("parts make up the parameters");
                tasks.push((*layer, part, &pieces[of_lane.clone()], held));
            }
        }
        tasks.into_par_iter().for_each(|(layer, part, pieces, held)| {
            let mut slab = [0.0f32; SLAB_ROWS * WIDTH];
            let slab = &mut slab[..held.len()];
            network.gradient(layer, part, moments, pieces.iter().map(|piece| &piece.strip), slab);
            held.iter_mut().zip(slab).for_each(|(held, gradient)| *held += *gradient);
        });
    }

    /// Raises peaks of groups to those of what the lanes here hold. Not collective; rayon over groups.
    pub fn peaks(&self, offered: Offered<'_>, peaks: &mut [i32]) {
        let groups = &self.groups;
        peaks.par_iter_mut().enumerate().for_each(|(group, peak)| {
            for (lane, _) in offered {
                *peak = (*peak).max(LaneGrid::peak(&self.held[*lane][groups.range(group)]));
            }
        });
    }

    /// Sends what is to be sent, and adds it over all lanes; false: something is no longer finite. Collective; rayon over lanes and groups.
    ///
    /// `peaks`: the reduced ones of what the lanes hold.
    pub fn add(&mut self, comm: &Communicator, offered: Offered<'_>, peaks: &[i32], step: u64) -> Result<bool> {
        let exponents: Option<Vec<i32>> = peaks.iter().map(|peak| LaneGrid::exponent_of(*peak)).collect();
        let Some(exponents) = exponents else { return Ok(false) };
        let held = offering(&mut self.held, offered);
        match &mut self.way {
            Way::TopK(top_k) => {
                top_k.add(comm, &self.groups, self.grid, held, &exponents, &mut self.sums).map(|()| true)
            }
            Way::LowRank(low_rank) => low_rank.add(comm, self.grid, held, step, &mut self.sums),
        }
    }

    /// Sums of some parameters (their numbers among all). Not collective.
    pub fn sums(&self, range: Range<usize>) -> &[f32] {
        &self.sums[range]
    }

    /// What all ranks have alike between steps, beside the network. Not collective.
    pub fn common(&self) -> Vec<f32> {
        match &self.way {
            Way::TopK(_) => Vec::new(),
            Way::LowRank(low_rank) => low_rank.bases(),
        }
    }

    /// Takes up [`common`](Self::common). Not collective. Errors: it does not fit (data).
    pub fn set_common(&mut self, common: &[f32]) -> Result<()> {
        match &mut self.way {
            Way::TopK(_) => Ok(()),
            Way::LowRank(low_rank) => low_rank.set_bases(common),
        }
    }

    /// Of a lane here, by its place: what it has left between steps.
    pub fn left(&self, place: usize) -> &[f32] {
        &self.held[place]
    }

    /// The same, to be set.
    pub fn left_mut(&mut self, place: usize) -> &mut [f32] {
        &mut self.held[place]
    }
}

/// What lanes hold that have rows in this step.
fn offering<'h>(held: &'h mut [Vec<f32>], offered: Offered<'_>) -> Vec<&'h mut [f32]> {
    let mut wanted = offered.iter().map(|(lane, _)| *lane).peekable();
    let is_wanted = |(lane, _): &(usize, &mut Vec<f32>)| wanted.next_if_eq(lane).is_some();
    held.iter_mut().enumerate().filter(is_wanted).map(|(_, held)| &mut held[..]).collect()
}
