//! Which leaf is split next.

use super::Node;
use crate::config::Growth;
use crate::exact::scale::order_key;
use std::collections::BTreeMap;

/// Leaves that can be split, the next one first: a full order, so that nothing is left to chance.
pub(super) struct Queue {
    growth: Growth,
    /// (what growth looks at, leaf number) to node and leaf.
    leaves: BTreeMap<(i64, usize), (usize, usize)>,
}

impl Queue {
    pub(super) fn new(growth: Growth) -> Queue {
        Queue { growth, leaves: BTreeMap::new() }
    }

    /// A leaf; nothing happens if it cannot be split.
    pub(super) fn push(&mut self, node: &Node, number: usize, leaf: usize) {
        let Some(split) = &node.best else { return };
        let key = match self.growth {
            Growth::Leaf => -order_key(split.gain),
            Growth::Level => node.depth as i64,
        };
        self.leaves.insert((key, leaf), (number, leaf));
    }

    /// Node and number of the next leaf.
    pub(super) fn first(&self) -> Option<(usize, usize)> {
        self.leaves.first_key_value().map(|(_, leaf)| *leaf)
    }

    pub(super) fn pop(&mut self) {
        self.leaves.pop_first();
    }

    /// Nodes of the next leaves that have no children yet, at most `n`, among the first `of_first`.
    pub(super) fn first_unsplit(&self, nodes: &[Node], n: usize, of_first: usize) -> Vec<usize> {
        let next = self.leaves.values().take(of_first);
        let unsplit = next.map(|(node, _)| *node).filter(|node| nodes[*node].children.is_none());
        unsplit.take(n).collect()
    }
}
