//! What is drawn at random for a tree: how often it takes a row, and which features a node looks at. Functions of the seed, the tree,
//! and the row or the node's way from the root, so that it does not matter who draws, or when.

use crate::rng::{Draws, FastDraws, Stream};
use std::sync::Arc;

/// A row is drawn no more often.
pub const MOST_DRAWS: u32 = 15;

/// How often the rows of the trees are drawn: Poisson, which is what drawing n of n rows with replacement comes to for a long table. Source:
/// Oza and Russell, *Online bagging and boosting*, AISTATS 2001.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    seed: u64,
    /// Share of all draws of 64 bits that are below the entry of 0, 1, … draws. Empty: every row is drawn once.
    below: Arc<[u64]>,
}

impl Bootstrap {
    /// Every tree takes every row once.
    pub fn none(seed: u64) -> Bootstrap {
        Bootstrap { seed, below: Arc::new([]) }
    }

    /// * `mean`: draws of a row, above 0.
    pub fn poisson(seed: u64, mean: f64) -> Bootstrap {
        let mut share = libm::exp(-mean);
        let (mut sum, mut below) = (0.0, Vec::with_capacity(MOST_DRAWS as usize));
        for n in 1..=MOST_DRAWS {
            sum += share;
            below.push((sum * (1u64 << 53) as f64) as u64);
            share *= mean / n as f64;
        }
        Bootstrap { seed, below: below.into() }
    }

    /// Those of a tree.
    pub fn of_tree(&self, tree: u64) -> TreeDraws {
        TreeDraws { draws: FastDraws::new(Draws::new(self.seed, Stream::TreeRows), tree), below: self.below.clone() }
    }
}

/// How often a tree takes each row.
#[derive(Clone)]
pub struct TreeDraws {
    draws: FastDraws,
    below: Arc<[u64]>,
}

impl TreeDraws {
    /// Of a row by its number in the table.
    #[inline]
    pub fn of_row(&self, row: u64) -> u32 {
        if self.below.is_empty() {
            return 1;
        }
        let drawn = self.draws.bits(row) >> 11;
        // The first two or three settle most.
        let mut n = 0;
        while n < self.below.len() && drawn >= self.below[n] {
            n += 1;
        }
        n as u32
    }
}

/// A node, named by its way from the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way(pub(super) u64);

/// Draws for the nodes of one tree.
#[derive(Clone, Copy)]
pub(super) struct NodeDraws(FastDraws);

impl NodeDraws {
    pub(super) const ROOT: Way = Way(1);

    pub(super) fn of_tree(seed: u64, tree: u64) -> NodeDraws {
        NodeDraws(FastDraws::new(Draws::new(seed, Stream::TreeColumns), tree))
    }

    /// Left and right.
    pub(super) fn children(self, way: Way) -> [Way; 2] {
        [0, 1].map(|side| Way(self.0.bits(way.0.wrapping_mul(2).wrapping_add(side))))
    }

    /// Number `of` at a node.
    #[inline]
    fn bits(self, way: Way, of: u64) -> u64 {
        self.0.bits(way.0 ^ of.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    /// Uniform in [0, 1), for a feature at a node.
    pub(super) fn uniform(self, way: Way, feature: u32, purpose: u64) -> f64 {
        let bits = self.bits(way, 1 << 40 | purpose << 32 | u64::from(feature));
        (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// Features in the order in which a node looks at them.
#[derive(Default)]
pub(super) struct Shuffle {
    order: Vec<u32>,
    swapped: Vec<usize>,
}

impl Shuffle {
    pub(super) fn new(n_features: usize) -> Shuffle {
        Shuffle { order: (0..n_features as u32).collect(), swapped: Vec::new() }
    }

    /// The next `n` features of a node that has been shown `self.swapped`; fewer where there are no more.
    pub(super) fn next(&mut self, draws: NodeDraws, way: Way, n: usize) -> &[u32] {
        let first = self.swapped.len();
        let end = (first + n).min(self.order.len());
        for at in first..end {
            let left = (self.order.len() - at) as u128;
            let other = at + ((u128::from(draws.bits(way, at as u64)) * left) >> 64) as usize;
            self.order.swap(at, other);
            self.swapped.push(other);
        }
        &self.order[first..end]
    }

    /// For another node.
    pub(super) fn restart(&mut self) {
        while let Some(other) = self.swapped.pop() {
            self.order.swap(self.swapped.len(), other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_as_often_as_poisson_says() {
        for mean in [0.3, 1.0, 2.5] {
            let bootstrap = Bootstrap::poisson(5, mean);
            let mut counts = [0u64; MOST_DRAWS as usize + 1];
            for tree in 0..20 {
                let draws = bootstrap.of_tree(tree);
                (0..10_000).for_each(|row| counts[draws.of_row(row) as usize] += 1);
            }
            let n = 200_000.0;
            let mut share = libm::exp(-mean);
            for (times, count) in counts.iter().enumerate().take(6) {
                let expected = n * share;
                assert!((*count as f64 - expected).abs() < 5.0 * expected.sqrt() + 1.0, "{mean}: {times}: {count}");
                share *= mean / (times + 1) as f64;
            }
        }
        assert!((0..100).all(|row| Bootstrap::none(1).of_tree(3).of_row(row) == 1));
    }

    #[test]
    fn a_node_is_shown_every_feature_once_whatever_nodes_came_before() {
        let draws = NodeDraws::of_tree(7, 0);
        let mut shuffle = Shuffle::new(11);
        let mut all = |way: Way, n: usize| {
            shuffle.restart();
            let mut shown = Vec::new();
            loop {
                let next = shuffle.next(draws, way, n).to_vec();
                if next.is_empty() {
                    return shown;
                }
                shown.extend(next);
            }
        };
        let [left, right] = draws.children(NodeDraws::ROOT);
        let one = all(left, 3);
        let mut sorted = one.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..11).collect::<Vec<u32>>());
        assert_ne!(one, all(right, 3));
        assert_eq!(one, all(left, 4), "however many at a time");
        let firsts: std::collections::BTreeSet<u32> = (0..200).map(|way| all(Way(way), 1)[0]).collect();
        assert_eq!(firsts.len(), 11);
    }
}
