//! Node first, then between the nodes: large sums of a world of several nodes with several ranks each.
//!
//! ```text
//!            node A          node B           n: the buffer, k: ranks of the smallest node
//!  within    a0 a1           b0 b1            reduce-scatter: each of the first k ranks has n/k of its node's sum
//!  between   a0+b0  a1+b1    (all links)      reduce-scatter and all-gather with the ranks of the same place on the other nodes
//!  within    all-gather                       the whole sum on every rank
//! ```
//! A node sends and gets 2 (nodes − 1)/nodes · n, however many ranks it has. A ring over all ranks has 2 (ranks − 1)/ranks · n, and if
//! neighbours in rank order are on different nodes, as many times more as a node has ranks. The sums are integers, so the bits are the same.
//!
//! Source: the hierarchical all-reduce of Horovod and NCCL; Jia et al., arXiv 1807.11205, section 5.

mod under_way;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::Location;
use std::rc::Rc;

use super::call::{Call, Kind};
use super::transport::{ElementType, Erased, OwnedSlice, PendingReduce, ReduceOp, Slice, SliceMut, Transport};
use crate::error::Result;
use under_way::{Beside, Started, UnderWay, Ways};

/// Which sums go by node, and in which parts.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Shorter sums are left to the library: three conversations instead of one cost more than their bytes.
    pub least_bytes: usize,
    /// A sum goes in parts, of each of which a rank takes so many bytes between the nodes: one part is there while the next is within.
    pub share_bytes: usize,
    /// Between the nodes, a sum is a reduce-scatter and an all-gather if every message has so many bytes; else the library chooses, which
    /// sends more of them to some nodes.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { least_bytes: 128 << 10, share_bytes: 512 << 10, message_bytes: 4 << 10 }
    }
}

/// Puts long sums on their way by nodes, where the world has several with several ranks each; elsewhere it is `inner`. *Collective.*
///
/// * `node`: a number that ranks of one node have in common. If ranks of several nodes have, that costs time, but no bits.
pub fn by_node(inner: Box<dyn Transport>, node: u64, limits: Limits) -> Result<Box<dyn Transport>> {
    let call = Call {
        sequence: 0,
        kind: Kind::Split,
        variant: " by node",
        element: None,
        length: None,
        peer: None,
        extra: 0,
        group: None,
        site: Location::caller(),
    };
    inner.checks_calls(&call);
    let (rank, size) = (inner.rank(), inner.size());
    let mut all = vec![0u64; size];
    inner.all_gather(u64::slice(&[node]), &vec![1; size], u64::slice_mut(&mut all))?;
    let mut nodes: Vec<u64> = Vec::new();
    all.iter().for_each(|node| {
        if !nodes.contains(node) {
            nodes.push(*node);
        }
    });
    let ranks_of = |node: &u64| all.iter().filter(|other| *other == node).count();
    let (n_ways, most) = (nodes.iter().map(ranks_of).min().unwrap_or(1), nodes.iter().map(ranks_of).max().unwrap_or(1));
    if nodes.len() == 1 || nodes.len() == size {
        return Ok(inner);
    }
    let place = all[..rank].iter().filter(|other| **other == node).count();
    let node = nodes.iter().position(|other| *other == node).unwrap_or(0) as u32;
    let split = |color: u32| {
        inner.checks_calls(&call);
        inner.split(color)
    };
    // What a rank gets from its node is far from 2³¹ elements, however many ranks there are.
    let part_bytes = limits.share_bytes.min((32 << 20) / most) * n_ways;
    let way = place.min(n_ways) as u32;
    // One communicator for every stage: sums are in different stages on different ranks, and what belongs together on a communicator is
    // only known by its order there.
    let stages = [split(node)?, split(way)?, split(way)?, split(node)?];
    let [within, between, ..] = stages.each_ref().map(|stage| stage.size());
    let ways = Ways { n_ways, has_way: place < n_ways, place, within, between };
    let under_way = Rc::new(UnderWay { stages, ways, limits, part_bytes, state: RefCell::default() });
    let (call, has_started) = (Cell::new(call), Cell::new(false));
    Ok(Box::new(ByNode { inner, call, has_started, under_way }))
}

/// A world of several nodes.
struct ByNode {
    inner: Box<dyn Transport>,
    call: Cell<Call>,
    /// A sum was started since the last call of all ranks that each left with none under way. The same on all ranks.
    has_started: Cell<bool>,
    under_way: Rc<UnderWay>,
}

impl ByNode {
    fn goes_by_node(&self, len: usize, element: ElementType, op: ReduceOp) -> bool {
        op == ReduceOp::Sum && len * element.bytes() >= self.under_way.limits.least_bytes && len > 0
    }

    /// Before a call of all ranks that waits: all of them have started what this rank has under way, and come here or wait for it.
    fn settle(&self) -> Result<()> {
        if !self.under_way.is_empty() {
            self.under_way.until(|| Ok(self.under_way.is_empty()))?;
        }
        self.has_started.set(false);
        Ok(())
    }

    fn beside(&self, inner: Box<dyn PendingReduce>) -> Box<dyn PendingReduce> {
        Box::new(Beside { inner, under_way: self.under_way.clone() })
    }
}

impl Transport for ByNode {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn checks_calls(&self, call: &Call) -> bool {
        self.call.set(*call);
        self.inner.checks_calls(call)
    }

    fn barrier(&self) -> Result<()> {
        self.settle()?;
        self.inner.barrier()
    }

    fn broadcast(&self, buf: SliceMut<'_>, root: usize) -> Result<()> {
        self.settle()?;
        self.inner.broadcast(buf, root)
    }

    fn all_reduce(&self, mut buf: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        let element = buf.as_slice().element();
        if self.goes_by_node(buf.len(), element, op) {
            buf.copy_from(&self.start_all_reduce(buf.as_slice().to_owned(), op)?.wait()?, 0);
            self.has_started.set(false); // nothing is over before what was started earlier
            return Ok(());
        }
        if !self.has_started.get() {
            return self.inner.all_reduce(buf, op);
        }
        // A short one between sums under way, such as the comparison of calls: they move on meanwhile. All ranks are here or none.
        let started = self.inner.start_all_reduce(buf.as_slice().to_owned(), op)?;
        buf.copy_from(&self.beside(started).wait()?, 0);
        Ok(())
    }

    fn reduce_scatter(&self, send: Slice<'_>, counts: &[usize], recv: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        self.settle()?;
        self.inner.reduce_scatter(send, counts, recv, op)
    }

    fn all_gather(&self, send: Slice<'_>, counts: &[usize], recv: SliceMut<'_>) -> Result<()> {
        self.settle()?;
        self.inner.all_gather(send, counts, recv)
    }

    fn all_gather_in_place(&self, buf: SliceMut<'_>, counts: &[usize]) -> Result<()> {
        self.settle()?;
        self.inner.all_gather_in_place(buf, counts)
    }

    fn send(&self, buf: Slice<'_>, to: usize, tag: u32) -> Result<()> {
        self.inner.send(buf, to, tag)
    }

    fn recv(&self, buf: SliceMut<'_>, from: usize, tag: u32) -> Result<()> {
        if !self.under_way.is_empty() {
            // The sender may wait for a sum that needs this rank.
            self.under_way.until(|| Ok(self.under_way.is_empty() || self.inner.has_message(from, tag)?))?;
        }
        self.inner.recv(buf, from, tag)
    }

    fn has_message(&self, from: usize, tag: u32) -> Result<bool> {
        self.under_way.advance()?;
        self.inner.has_message(from, tag)
    }

    fn split(&self, color: u32) -> Result<Box<dyn Transport>> {
        self.settle()?;
        self.inner.split(color)
    }

    fn start_all_reduce(&self, mut buf: OwnedSlice, op: ReduceOp) -> Result<Box<dyn PendingReduce>> {
        let element = buf.element();
        if !self.goes_by_node(buf.len(), element, op) {
            return Ok(self.beside(self.inner.start_all_reduce(buf, op)?));
        }
        self.has_started.set(true);
        let n_parts = (buf.len() * element.bytes()).div_ceil(self.under_way.part_bytes);
        let step = buf.len().div_ceil(n_parts);
        let mut parts: Vec<OwnedSlice> =
            (1..n_parts).rev().map(|part| buf.split_off(step.saturating_mul(part).min(buf.len()))).collect();
        parts.push(buf);
        let mut numbers: Option<Range<u64>> = None;
        for part in parts.into_iter().rev() {
            let number = self.under_way.push(part, self.call.get())?;
            numbers = Some(numbers.map_or(number, |numbers| numbers.start)..number + 1);
        }
        let numbers = numbers.unwrap_or_default();
        Ok(Box::new(Started { under_way: self.under_way.clone(), element, numbers }))
    }

    fn start_reduce_scatter(
        &self,
        send: OwnedSlice,
        room: OwnedSlice,
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Box<dyn PendingReduce>> {
        Ok(self.beside(self.inner.start_reduce_scatter(send, room, counts, op)?))
    }

    fn start_all_gather(&self, send: OwnedSlice, counts: &[usize]) -> Result<Box<dyn PendingReduce>> {
        Ok(self.beside(self.inner.start_all_gather(send, counts)?))
    }

    fn abort(&self, code: i32) -> ! {
        self.inner.abort(code)
    }

    fn finish(&self) -> Result<()> {
        self.inner.finish()
    }

    fn has_processes(&self) -> bool {
        self.inner.has_processes()
    }

    fn library(&self) -> String {
        self.inner.library()
    }

    fn node_name(&self) -> String {
        self.inner.node_name()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Communicator;
    use super::super::threads::run_ranks;
    use super::*;
    use crate::comm::Pending;
    use crate::error::Error;

    /// Node of each rank: neighbours together, dealt out, unequal, a node with one rank, one node, as many nodes as ranks.
    const WORLDS: [&[u64]; 8] = [
        &[7, 7, 9, 9],
        &[7, 9, 7, 9],
        &[3, 3, 3, 1, 1, 8, 8],
        &[5, 5, 5, 2],
        &[1, 2, 3, 1, 2],
        &[4, 4, 4],
        &[1, 2, 3],
        &[6],
    ];
    const LIMITS: Limits = Limits { least_bytes: 24, share_bytes: 120, message_bytes: 32 };

    fn on_nodes(nodes: &[u64], body: impl Fn(&Communicator) -> Result<()> + Sync) {
        let dress = |rank: usize, inner| by_node(inner, nodes[rank], LIMITS).expect("the ranks split");
        run_ranks(nodes.len(), 1, |_, _| (), dress, body).map_err(|(_, error)| error).unwrap();
    }

    fn value(rank: usize, i: usize) -> u64 {
        ((rank as u64 + 1) << 61).wrapping_mul(i as u64 + 3) ^ (rank as u64 * 7919 + i as u64)
    }

    fn values(comm: &Communicator, n: usize, first: usize) -> Vec<u64> {
        (0..n).map(|i| value(comm.rank(), first + i)).collect()
    }

    fn expected(comm: &Communicator, n: usize, first: usize) -> Vec<u64> {
        (0..n).map(|i| (0..comm.size()).fold(0u64, |sum, rank| sum.wrapping_add(value(rank, first + i)))).collect()
    }

    #[test]
    fn sums_by_node_equal_a_plain_loop() {
        for nodes in WORLDS {
            on_nodes(nodes, |comm| {
                for n in [0, 1, 2, 3, 5, 101, 1009] {
                    let mut wide = values(comm, n, 0);
                    let mut narrow: Vec<u32> = wide.iter().map(|v| *v as u32).collect();
                    let mut greatest: Vec<i64> = wide.iter().map(|v| *v as i64).collect();
                    let (started, short) =
                        (comm.start_all_reduce_sum(wide.clone())?, comm.start_all_reduce_sum(narrow.clone())?);
                    comm.all_reduce_sum(&mut wide)?;
                    comm.all_reduce_sum(&mut narrow)?;
                    comm.all_reduce_max(&mut greatest)?;
                    assert_eq!(wide, expected(comm, n, 0), "{n} on {nodes:?}");
                    assert_eq!(narrow, wide.iter().map(|v| *v as u32).collect::<Vec<_>>());
                    assert_eq!((started.wait()?, short.wait()?), (wide, narrow));
                    let most = |i| (0..comm.size()).map(|rank| value(rank, i) as i64).max().unwrap();
                    assert_eq!(greatest, (0..n).map(most).collect::<Vec<_>>());
                }
                Ok(())
            });
        }
    }

    /// Ranks move on, wait and drop in an order of their own; between the starts they make all other calls.
    #[test]
    fn started_sums_go_their_way_whatever_each_rank_waits_for_first() {
        for nodes in WORLDS {
            for seed in 0..8u64 {
                on_nodes(nodes, |comm| {
                    let mut draw = seed << 32 | comm.rank() as u64;
                    let mut pick = |n: usize| {
                        draw = draw.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                        (draw >> 33) as usize % n
                    };
                    let mut under_way: Vec<(Pending<'_, u64>, usize)> = Vec::new();
                    for step in 0..40usize {
                        let (hash, n) = (seed as usize * 31 + step * 7, 1 + step * 11 % 300);
                        under_way.push((comm.start_all_reduce_sum(values(comm, n, step))?, step));
                        match hash % 5 {
                            0 => assert!(!comm.agree_any(false)?),
                            1 => comm.barrier()?,
                            2 => drop(comm.all_gather(&[1u8])?),
                            3 => {
                                let other = comm.size() - 1 - comm.rank();
                                comm.send(&[step as u64], other, 1)?;
                                comm.recv(&mut [0u64], other, 1)?;
                            }
                            _ => {}
                        }
                        while under_way.len() > pick(9) {
                            let (mut sums, first) = under_way.swap_remove(pick(under_way.len()));
                            match pick(4) {
                                0 => drop(sums),
                                1 => sums.progress()?,
                                _ => assert_eq!(sums.wait()?, expected(comm, 1 + first * 11 % 300, first)),
                            }
                        }
                    }
                    Ok(())
                });
            }
        }
    }

    /// What a started reduction allows: here rank 1 tells rank 0 only when it has the sums, and rank 0 hears it before it asks for them.
    #[test]
    fn a_rank_that_waits_for_a_message_moves_sums_on() {
        for nodes in WORLDS.into_iter().filter(|nodes| nodes.len() > 2) {
            on_nodes(nodes, |comm| {
                let sums = comm.start_all_reduce_sum(values(comm, 1009, 0))?;
                let counts = vec![1; comm.size()];
                let later = comm.start_reduce_scatter_sum(vec![1u32; comm.size()], &counts)?;
                if comm.rank() == 0 {
                    comm.recv(&mut [0u8], 1, 3)?;
                } else if comm.rank() == 2 {
                    assert_eq!(later.wait()?, [comm.size() as u32]);
                    assert_eq!(sums.wait()?, expected(comm, 1009, 0));
                    return Ok(());
                }
                assert_eq!(sums.wait()?, expected(comm, 1009, 0));
                if comm.rank() == 1 {
                    comm.send(&[1u8], 0, 3)?;
                }
                later.wait().map(|_| ())
            });
        }
    }

    #[test]
    fn a_rank_that_fails_ends_the_sums_of_the_others() {
        let nodes = [1, 1, 2, 2];
        let dress = |rank: usize, inner| by_node(inner, nodes[rank], LIMITS).expect("the ranks split");
        let ran = run_ranks(
            4,
            1,
            |_, _| (),
            dress,
            |comm| match comm.rank() {
                3 => Err(Error::data("torn")),
                _ => comm.start_all_reduce_sum(vec![1u64; 101])?.wait(),
            },
        );
        assert_eq!(ran.unwrap_err(), (3, Error::data("torn")));
    }
}
