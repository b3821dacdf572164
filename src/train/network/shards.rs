//! Which rank keeps what the optimiser remembers of which parameters.

use super::super::every_step::{Units, optimizer};
use super::super::{Solver, TrainConfig};
use super::segments::segments;
use crate::comm::{Communicator, Element};
use crate::error::Result;
use crate::model::Network;
use crate::optim::{Pieces, Tensor, cut};
use std::ops::Range;

/// The parameters of a network in pieces, each of which one rank steps: sums of gradients go to it alone, and all get what it makes of the piece. An
/// all-reduce is these two halves too, so that as many bytes travel, while the optimiser's memory and work are shared. Steps of pieces are those of the whole,
/// so that the ranks leave no trace.
///
/// Source: Rajbhandari, Rasley, Ruwase, He, *ZeRO: memory optimizations toward training trillion parameter models*, SC 2020 (stages 1 and 2).
pub(super) struct Shards {
    rank: usize,
    n_ranks: usize,
    pieces: Vec<Tensor>,
    /// The rank that steps each.
    owners: Vec<usize>,
    /// Of each segment, where the part of each rank begins, and where the last one's ends.
    bounds: Vec<Vec<usize>>,
}

impl Shards {
    /// * `segments`: the parameters of each, which together are all, from the last to the first.
    /// * `n_ranks`: that share the work; 1: every rank does all of it.
    ///
    /// Not collective; the same on every rank but for `rank`.
    pub fn new(
        config: &TrainConfig,
        network: &Network,
        segments: &[Range<usize>],
        rank: usize,
        n_ranks: usize,
    ) -> Shards {
        let tensors = tensors(network);
        let is_whole = steps_whole_tensors(config);
        let mut loads = vec![0; n_ranks];
        let (mut pieces, mut owners) = (Vec::new(), Vec::new());
        if is_whole {
            pieces = cut(&tensors, true);
            owners = deal(&pieces, &mut loads);
        } else {
            // No piece is of two segments, since a rank's part of a segment goes to it as a whole.
            for segment in segments.iter().rev() {
                let within = cut(&within(&tensors, segment), false);
                owners.extend(deal(&within, &mut loads));
                pieces.extend(within);
            }
        }
        let starts: Vec<usize> = places(&pieces).map(|place| place.start).collect();
        let of_segment = |segment: &Range<usize>| {
            let first = starts.partition_point(|start| *start <= segment.start).saturating_sub(1);
            let last = starts.partition_point(|start| *start < segment.end);
            let begin = |rank| {
                let piece = first + owners[first..last].partition_point(|owner| *owner < rank);
                if piece == last { segment.end } else { starts[piece].max(segment.start) }
            };
            (0..=n_ranks).map(begin).collect()
        };
        let bounds = segments.iter().map(of_segment).collect();
        Shards { rank: rank.min(n_ranks - 1), n_ranks, pieces, owners, bounds }
    }

    /// Whether ranks share the work.
    pub fn is_shared(&self) -> bool {
        self.n_ranks > 1
    }

    /// Where the part of each rank of a segment begins, and where the last one's ends.
    pub fn bounds(&self, segment: usize) -> &[usize] {
        &self.bounds[segment]
    }

    /// This rank's part of a segment.
    pub fn mine(&self, segment: usize) -> Range<usize> {
        self.bounds[segment][self.rank]..self.bounds[segment][self.rank + 1]
    }

    /// The optimiser of this rank's pieces.
    pub fn optimizer(&self, config: &TrainConfig) -> Pieces<f32> {
        Pieces::new(
            &self.pieces,
            |piece| self.owners[piece] == self.rank,
            |tensors| optimizer(config, tensors, Units::ONE),
        )
    }

    /// Values of all pieces, in order, of those of each rank's. Collective where ranks share the work.
    ///
    /// `mine`: of this rank's pieces, each as many as its owner likes.
    pub fn gather<T: Element>(&self, comm: &Communicator, mine: Vec<Vec<T>>) -> Result<Vec<Vec<T>>> {
        if !self.is_shared() {
            return Ok(mine);
        }
        let lens = comm.all_gather(&mine.iter().map(|values| values.len() as u64).collect::<Vec<_>>())?;
        let values = comm.all_gather(&mine.concat())?;
        let mut of_ranks: Vec<(&[u64], &[T])> =
            (0..self.n_ranks).map(|rank| (lens.of_rank(rank), values.of_rank(rank))).collect();
        let next = |owner: &usize| {
            let (lens, values) = &mut of_ranks[*owner];
            let len = lens.split_off_first().map_or(0, |len| *len as usize);
            values.split_off(..len).unwrap_or_default().to_vec()
        };
        Ok(self.owners.iter().map(next).collect())
    }

    /// Of values of all pieces, those of this rank's. Not collective.
    pub fn select<V>(&self, all: impl IntoIterator<Item = V>) -> Vec<V> {
        self.owners.iter().zip(all).filter(|(owner, _)| **owner == self.rank).map(|(_, values)| values).collect()
    }

    /// Of one value a parameter, those of each piece. Not collective.
    pub fn of_pieces<'v, T>(&self, values: &'v [T]) -> Vec<&'v [T]> {
        places(&self.pieces).map(|place| &values[place]).collect()
    }
}

/// The optimiser of all parameters that the settings name, in the pieces of [`Shards`], so that one takes up the state of the other. Not collective.
pub(super) fn optimizer_of_all(config: &TrainConfig, network: &Network) -> Pieces<f32> {
    let of_segments: Vec<Range<usize>> = segments(network, 0).0.into_iter().map(|segment| segment.params).collect();
    Shards::new(config, network, &of_segments, 0, 1).optimizer(config)
}

fn tensors(network: &Network) -> Vec<Tensor> {
    let of = |(_, spec, range): (usize, crate::model::net::TensorSpec, Range<usize>)| Tensor {
        len: range.len(),
        is_free: spec.is_free,
    };
    network.tensors().into_iter().map(of).collect()
}

/// Whether the optimiser looks at the length of a tensor.
fn steps_whole_tensors(config: &TrainConfig) -> bool {
    matches!(config.solver, Solver::Lamb | Solver::Lars)
}

/// Where each tensor is among all parameters.
fn places(tensors: &[Tensor]) -> impl Iterator<Item = Range<usize>> {
    tensors.iter().scan(0, |end, tensor| {
        *end += tensor.len;
        Some(*end - tensor.len..*end)
    })
}

/// What lies in some parameters of each tensor.
fn within(tensors: &[Tensor], params: &Range<usize>) -> Vec<Tensor> {
    let overlap = |place: Range<usize>| place.end.min(params.end).saturating_sub(place.start.max(params.start));
    places(tensors).zip(tensors).map(|(place, tensor)| Tensor { len: overlap(place), ..*tensor }).collect()
}

/// Gives pieces, which follow each other, to ranks in their order; who has less than others so far gets more.
fn deal(pieces: &[Tensor], loads: &mut [usize]) -> Vec<usize> {
    let new: usize = pieces.iter().map(|piece| piece.len).sum();
    let even = (loads.iter().sum::<usize>() + new).div_ceil(loads.len());
    let wanted: Vec<usize> = loads.iter().map(|load| even.saturating_sub(*load)).collect();
    // Pieces and wants are laid side by side; a piece is its rank's in whose want its middle lies.
    let (stretch, mut rank, mut end) = (wanted.iter().sum::<usize>() as u128, 0, wanted[0]);
    let owner = |(place, piece): (Range<usize>, &Tensor)| {
        let middle = (place.start + place.end) as u128 * stretch / (2 * new.max(1)) as u128;
        while rank + 1 < loads.len() && end as u128 <= middle {
            rank += 1;
            end += wanted[rank];
        }
        loads[rank] += piece.len;
        rank
    };
    places(pieces).zip(pieces).map(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors_of(lens: &[usize]) -> Vec<Tensor> {
        lens.iter().map(|len| Tensor::new(*len)).collect()
    }

    #[test]
    fn pieces_are_dealt_in_order_and_evenly() {
        for n_ranks in [1, 2, 3, 7, 64] {
            let mut loads = vec![0; n_ranks];
            for round in 0..40 {
                let lens: Vec<usize> =
                    (0..9).map(|piece| if (piece + round) % 4 == 3 { 1_023 } else { 16_384 }).collect();
                let owners = deal(&tensors_of(&lens), &mut loads);
                assert!(owners.is_sorted() && owners.iter().all(|owner| *owner < n_ranks), "{n_ranks}: {owners:?}");
            }
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least <= 2 * 16_384, "{n_ranks} ranks: {loads:?}");
        }
        assert_eq!(deal(&tensors_of(&[10; 4]), &mut [0, 0]), [0, 0, 1, 1]);
        assert!(deal(&[], &mut [0, 0, 0]).is_empty());
        // A piece for every other rank, not all for the last.
        assert_eq!(deal(&tensors_of(&[10; 2]), &mut [0; 4]), [1, 3]);
    }

    #[test]
    fn what_lies_in_a_segment_keeps_its_kind() {
        let tensors = [Tensor::new(10), Tensor::free(4), Tensor::new(6)];
        let lens =
            |range| within(&tensors, &range).iter().map(|tensor| (tensor.len, tensor.is_free)).collect::<Vec<_>>();
        assert_eq!(lens(7..12), [(3, false), (2, true), (0, false)]);
        assert_eq!(lens(14..20), [(0, false), (0, true), (6, false)]);
    }
}
