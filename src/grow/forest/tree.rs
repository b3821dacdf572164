//! Grown trees: nodes in an order of their own, values of leaves, gains of splits.

use super::problem::Problem;
use super::search::{Cut, Found};
use crate::data::binned::FeatureBins;
use crate::model::forest::{LEAF, MISSING_LEFT, Node, OF_SET};

/// A tree, or what is below a node of it. Node 0 is the root; all that is below a left child comes before what is below the right one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grown {
    pub nodes: Vec<Node>,
    /// Of classes: (leaves, shares).
    pub shares: Vec<f32>,
    pub n_leaves: u32,
    /// By split, those below a left child before those below the right one: the feature, and how much lower Σ weight times impurity became.
    pub gains: Vec<(u32, f64)>,
    /// Bins of categories that go left, of the nodes that ask for sets: bit b % 64 of word b / 64, and no more words than it takes.
    pub sets: Vec<Vec<u64>>,
}

impl Grown {
    pub(super) fn set_leaf<P: Problem>(&mut self, at: usize, problem: &P, total: &[u64]) {
        let value = problem.leaf(total, &mut self.shares);
        self.nodes[at] = Node { value, feature: LEAF, child: self.n_leaves };
        self.n_leaves += 1;
    }

    /// Returns the left child.
    pub(super) fn set_split(&mut self, at: usize, found: &Found, feature: &FeatureBins) -> usize {
        let child = self.nodes.len();
        let (value, bits) = match &found.cut {
            Cut::UpTo { bin, missing_left } => {
                (feature.value_of(usize::from(*bin)), if *missing_left { MISSING_LEFT } else { 0 })
            }
            Cut::OneOf(set) => {
                let n_words = set.iter().rposition(|word| *word != 0).map_or(1, |last| last + 1);
                self.sets.push(set[..n_words].to_vec());
                ((self.sets.len() - 1) as f64, OF_SET)
            }
        };
        self.nodes[at] = Node { value, feature: found.feature | bits, child: child as u32 };
        self.nodes.extend([Node::default(); 2]);
        self.gains.push((found.feature, found.gain));
        child
    }

    /// Puts a tree in the place of a node that has nothing below it yet, as if it had been grown there.
    pub(super) fn graft(&mut self, at: usize, below: &Grown) {
        // The root goes to its place, all others to the end.
        let (first, first_leaf, first_set) = (self.nodes.len() as u32, self.n_leaves, self.sets.len());
        let moved = |node: &Node| match node.feature {
            feature if feature & LEAF != 0 => Node { child: node.child + first_leaf, ..*node },
            feature if feature & OF_SET != 0 => {
                Node { value: node.value + first_set as f64, child: node.child - 1 + first, ..*node }
            }
            _ => Node { child: node.child - 1 + first, ..*node },
        };
        let mut all = below.nodes.iter().map(moved);
        self.nodes[at] = all.next().expect("a tree has a root");
        self.nodes.extend(all);
        self.shares.extend_from_slice(&below.shares);
        self.n_leaves += below.n_leaves;
        self.gains.extend_from_slice(&below.gains);
        self.sets.extend(below.sets.iter().cloned());
    }

    /// As bytes, and back; None: not such bytes.
    pub(super) fn put(&self, bytes: &mut Vec<u8>) {
        let lengths = [self.nodes.len(), self.shares.len(), self.n_leaves as usize, self.gains.len(), self.sets.len()];
        lengths.iter().for_each(|n| bytes.extend_from_slice(&(*n as u64).to_le_bytes()));
        for node in &self.nodes {
            bytes.extend_from_slice(&node.value.to_le_bytes());
            bytes.extend_from_slice(&node.feature.to_le_bytes());
            bytes.extend_from_slice(&node.child.to_le_bytes());
        }
        self.shares.iter().for_each(|share| bytes.extend_from_slice(&share.to_le_bytes()));
        for (feature, gain) in &self.gains {
            bytes.extend_from_slice(&feature.to_le_bytes());
            bytes.extend_from_slice(&gain.to_le_bytes());
        }
        for set in &self.sets {
            bytes.extend_from_slice(&(set.len() as u32).to_le_bytes());
            set.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        }
    }

    /// Takes it from the front of some bytes.
    pub(super) fn take(bytes: &mut &[u8]) -> Option<Grown> {
        fn next<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (taken, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(*taken)
        }
        let mut length = || next(bytes).map(|word| u64::from_le_bytes(word) as usize);
        let (n_nodes, n_shares, n_leaves, n_gains, n_sets) = (length()?, length()?, length()?, length()?, length()?);
        let mut grown = Grown { n_leaves: u32::try_from(n_leaves).ok()?, ..Grown::default() };
        for _ in 0..n_nodes {
            let value = f64::from_le_bytes(next(bytes)?);
            let [feature, child] = [u32::from_le_bytes(next(bytes)?), u32::from_le_bytes(next(bytes)?)];
            grown.nodes.push(Node { value, feature, child });
        }
        for _ in 0..n_shares {
            grown.shares.push(f32::from_le_bytes(next(bytes)?));
        }
        for _ in 0..n_gains {
            grown.gains.push((u32::from_le_bytes(next(bytes)?), f64::from_le_bytes(next(bytes)?)));
        }
        for _ in 0..n_sets {
            let n = u32::from_le_bytes(next(bytes)?);
            let set: Option<Vec<u64>> = (0..n).map(|_| next(bytes).map(u64::from_le_bytes)).collect();
            grown.sets.push(set?);
        }
        Some(grown)
    }
}
