//! All that growing forests says to other ranks.

use super::search::Found;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use std::ops::Range;

/// Adds words over all ranks. Collective.
pub(super) fn sum(comm: &Communicator, words: &mut [u64]) -> Result<()> {
    comm.all_reduce_sum(words)
}

pub(super) fn sum_one(comm: &Communicator, word: u64) -> Result<u64> {
    let mut words = [word];
    comm.all_reduce_sum(&mut words)?;
    Ok(words[0])
}

pub(super) fn least(comm: &Communicator, number: u64) -> Result<u64> {
    let mut least = [i64::try_from(number).unwrap_or(i64::MAX)];
    comm.all_reduce_min(&mut least)?;
    Ok(least[0] as u64)
}

/// The cells of some nodes, one node after the other, summed: each rank gets those of its own nodes. Collective.
///
/// * `words_of`: of each rank's nodes.
pub(super) fn share_cells(comm: &Communicator, words: Vec<u64>, words_of: &[usize]) -> Result<Vec<u64>> {
    if comm.size() == 1 {
        return Ok(words);
    }
    let mut mine = vec![0; words_of[comm.rank()]];
    comm.reduce_scatter_sum(&words, words_of, &mut mine)?;
    Ok(mine)
}

/// What was found for each rank's nodes, of all ranks in order. Collective.
pub(super) fn share_found(comm: &Communicator, mine: Vec<Option<Found>>) -> Result<Vec<Option<Found>>> {
    if comm.size() == 1 {
        return Ok(mine);
    }
    let failed = |e: postcard::Error| Error::internal(format!("splits of nodes: {e}"));
    let bytes = comm.agree(postcard::to_allocvec(&mine).map_err(failed))?;
    let all = comm.all_gather_bytes(&bytes)?;
    let of_rank = |rank| postcard::from_bytes::<Vec<Option<Found>>>(all.of_rank(rank)).map_err(failed);
    let found: Result<Vec<_>> = (0..comm.size()).map(of_rank).collect();
    Ok(comm.agree(found)?.concat())
}

/// Rows for the ranks that finish their nodes. Returns what came from each rank. Collective.
pub(super) fn send_rows(comm: &Communicator, parts: Vec<Vec<u8>>) -> Result<(Vec<u8>, Vec<Range<usize>>)> {
    let received = comm.all_to_all(&parts)?;
    let bounds = received.bounds.windows(2).map(|pair| pair[0]..pair[1]).collect();
    Ok((received.values, bounds))
}

/// What was grown on every rank, of all ranks in order. Collective.
pub(super) fn share_grown(comm: &Communicator, mine: Vec<u8>) -> Result<Vec<u8>> {
    if comm.size() == 1 {
        return Ok(mine);
    }
    Ok(comm.all_gather_bytes(&mine)?.values)
}
