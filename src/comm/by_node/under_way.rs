//! Sums that are on their way: each in parts, each part in stages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::super::call::Call;
use super::super::transport::{ElementType, OwnedSlice, PendingReduce, ReduceOp, Transport};
use super::Limits;
use crate::error::{Error, Result};

/// The stages of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Within the node.
    Scatter,
    /// Between the nodes: all of it, or a reduce-scatter.
    Between,
    /// Between the nodes: the all-gather to that.
    Spread,
    /// Within the node.
    Gather,
    Over,
}

/// Sums under way, in the order of their start.
///
/// No sum begins a stage before all earlier ones have: then all ranks make the calls of a stage in the same order, although each moves
/// on when it likes.
pub(super) struct UnderWay {
    pub(super) stages: [Box<dyn Transport>; 4],
    pub(super) ways: Ways,
    pub(super) limits: Limits,
    pub(super) part_bytes: usize,
    pub(super) state: RefCell<State>,
}

/// Who takes which part of a sum.
pub(super) struct Ways {
    /// Places that all nodes have: the ranks there take part between the nodes.
    pub(super) n_ways: usize,
    pub(super) has_way: bool,
    /// Rank in the node.
    pub(super) place: usize,
    /// Ranks of this node.
    pub(super) within: usize,
    /// Nodes, for a rank that has a way.
    pub(super) between: usize,
}

impl Ways {
    /// Elements for each rank of the node.
    fn within(&self, n: usize) -> Vec<usize> {
        share(n, self.n_ways, self.within)
    }

    /// Elements for each node, of those of this rank.
    fn between(&self, n: usize) -> Vec<usize> {
        share(self.within(n)[self.place], self.between, self.between)
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Number of the first part in the queue.
    first: u64,
    queue: VecDeque<Part>,
    failed: Option<Error>,
}

/// A part of a started sum.
struct Part {
    call: Call,
    element: ElementType,
    len: usize,
    stage: Stage,
    /// None when it is over.
    doing: Option<Box<dyn PendingReduce>>,
    sums: Option<OwnedSlice>,
    is_taken: bool,
}

impl UnderWay {
    pub(super) fn is_empty(&self) -> bool {
        self.state.borrow().queue.iter().all(|part| part.stage == Stage::Over)
    }

    /// The number of the new part.
    pub(super) fn push(&self, values: OwnedSlice, call: Call) -> Result<u64> {
        self.advance()?; // what was started earlier comes first
        let (element, len) = (values.element(), values.len());
        let [scatter, ..] = &self.stages;
        scatter.checks_calls(&call);
        let room = values.element().empty();
        let doing = Some(scatter.start_reduce_scatter(values, room, &self.ways.within(len), ReduceOp::Sum)?);
        let mut state = self.state.borrow_mut();
        state.queue.push_back(Part { call, element, len, stage: Stage::Scatter, doing, sums: None, is_taken: false });
        Ok(state.first + state.queue.len() as u64 - 1)
    }

    /// Moves every part on as far as it goes without waiting.
    pub(super) fn advance(&self) -> Result<()> {
        let mut state = self.state.borrow_mut();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        let mut before = Stage::Over;
        for at in 0..state.queue.len() {
            if let Err(error) = self.advance_part(&mut state.queue[at], before) {
                state.failed = Some(error.clone());
                return Err(error);
            }
            before = state.queue[at].stage;
        }
        Ok(())
    }

    /// As far as `before`, the stage of the one before it.
    fn advance_part(&self, part: &mut Part, before: Stage) -> Result<()> {
        while part.stage < before && self.next_stage(part) <= before {
            let Some(doing) = part.doing.as_mut() else { return Ok(()) };
            if !doing.progress()? {
                return Ok(());
            }
            let Some(values) = part.doing.take().map(|doing| doing.wait()).transpose()? else { return Ok(()) };
            self.begin_next(part, values)?;
        }
        // Its stage may be over, though the next one may not begin: the library moves it on all the same.
        part.doing.as_mut().map_or(Ok(()), |doing| doing.progress().map(|_| ()))
    }

    /// Whether a part is a reduce-scatter and an all-gather between the nodes.
    fn is_halved(&self, part: &Part) -> bool {
        let messages = self.ways.n_ways * self.ways.between;
        part.element.bytes() * part.len / messages >= self.limits.message_bytes
    }

    fn next_stage(&self, part: &Part) -> Stage {
        match part.stage {
            Stage::Scatter if self.ways.has_way => Stage::Between,
            Stage::Between if self.is_halved(part) => Stage::Spread,
            Stage::Scatter | Stage::Between | Stage::Spread => Stage::Gather,
            Stage::Gather | Stage::Over => Stage::Over,
        }
    }

    /// `values`: what the stage gave.
    fn begin_next(&self, part: &mut Part, values: OwnedSlice) -> Result<()> {
        let [_, between, spread, gather] = &self.stages;
        let counts = self.ways.between(part.len);
        let next = self.next_stage(part);
        let transport = match next {
            Stage::Scatter | Stage::Between => between,
            Stage::Spread => spread,
            Stage::Gather | Stage::Over => gather,
        };
        transport.checks_calls(&part.call);
        part.doing = match next {
            Stage::Scatter | Stage::Over => {
                part.sums = Some(values);
                None
            }
            Stage::Between if self.is_halved(part) => {
                let room = values.element().empty();
                Some(transport.start_reduce_scatter(values, room, &counts, ReduceOp::Sum)?)
            }
            Stage::Between => Some(transport.start_all_reduce(values, ReduceOp::Sum)?),
            Stage::Spread => Some(transport.start_all_gather(values, &counts)?),
            Stage::Gather => Some(transport.start_all_gather(values, &self.ways.within(part.len))?),
        };
        part.stage = next;
        Ok(())
    }

    /// Moves all on until `is_done`.
    pub(super) fn until(&self, mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
        loop {
            self.advance()?;
            if is_done()? {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    fn are_over(&self, numbers: &Range<u64>) -> bool {
        let state = self.state.borrow();
        numbers.clone().all(|number| state.queue[(number - state.first) as usize].stage == Stage::Over)
    }

    /// The sums of a part that is over, or that nobody wants; its place in the queue goes when it is the first.
    fn take(&self, number: u64) -> Option<OwnedSlice> {
        let mut state = self.state.borrow_mut();
        let at = (number - state.first) as usize;
        state.queue[at].is_taken = true;
        let sums = state.queue[at].sums.take();
        while state.queue.front().is_some_and(|part| part.is_taken && part.stage == Stage::Over) {
            state.queue.pop_front();
            state.first += 1;
        }
        sums
    }
}

/// A sum under way, in parts.
pub(super) struct Started {
    pub(super) under_way: Rc<UnderWay>,
    pub(super) element: ElementType,
    pub(super) numbers: Range<u64>,
}

impl PendingReduce for Started {
    fn wait(mut self: Box<Self>) -> Result<OwnedSlice> {
        self.under_way.until(|| Ok(self.under_way.are_over(&self.numbers)))?;
        let mut sums = self.element.empty();
        for number in std::mem::take(&mut self.numbers) {
            let part =
                self.under_way.take(number).ok_or_else(|| Error::internal("a part of a sum is over without sums"))?;
            match sums.len() {
                0 => sums = part,
                _ => sums.append(&part),
            }
        }
        Ok(sums)
    }

    fn progress(&mut self) -> Result<bool> {
        self.under_way.advance()?;
        Ok(self.under_way.are_over(&self.numbers))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.numbers.is_empty() {
            // After a failure nothing moves any more, and there is nobody to tell.
            let _ = self.under_way.until(|| Ok(self.under_way.are_over(&self.numbers)));
            self.numbers.clone().for_each(|number| drop(self.under_way.take(number)));
        }
    }
}

/// A reduction that the inner transport has under way: while it is waited for, sums of ours must move on, since other ranks may wait
/// for them first.
pub(super) struct Beside {
    pub(super) inner: Box<dyn PendingReduce>,
    pub(super) under_way: Rc<UnderWay>,
}

impl PendingReduce for Beside {
    fn wait(mut self: Box<Self>) -> Result<OwnedSlice> {
        if !self.under_way.is_empty() {
            self.under_way.until(|| Ok(self.inner.progress()? || self.under_way.is_empty()))?;
        }
        self.inner.wait()
    }

    fn progress(&mut self) -> Result<bool> {
        self.under_way.advance()?;
        self.inner.progress()
    }
}

/// How many of `n` elements each rank of a node takes: the first `n_ways` as good as equally many.
fn share(n: usize, n_ways: usize, size: usize) -> Vec<usize> {
    let begin = |way: usize| way.min(n_ways) * n / n_ways;
    (0..size).map(|place| begin(place + 1) - begin(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_share_all_elements() {
        for (n, n_ways, size) in [(0, 1, 1), (1, 3, 5), (101, 3, 3), (7, 4, 9), (1009, 8, 8)] {
            let counts = share(n, n_ways, size);
            assert_eq!((counts.len(), counts.iter().sum::<usize>()), (size, n));
            let (least, most) = (*counts[..n_ways].iter().min().unwrap(), *counts[..n_ways].iter().max().unwrap());
            assert!(most - least <= 1 && counts[n_ways..].iter().all(|n| *n == 0));
        }
    }
}
