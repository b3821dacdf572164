//! Which features a node may be split by: samples for trees, levels and nodes, and groups that may meet.
//!
//! A sample is a function of the seed, the tree, the level or the node's way from the root, and the feature: it does not matter who
//! draws it, or when.

use crate::rng::{Draws, Stream};

/// Shares of the features, each of those that the one before left; 1: all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColumnSample {
    pub tree: f64,
    pub level: f64,
    pub node: f64,
    pub seed: u64,
}

impl ColumnSample {
    /// Whether every node may be split by every feature.
    pub fn is_all(&self) -> bool {
        [self.tree, self.level, self.node].iter().all(|share| *share >= 1.0)
    }
}

/// A node, named by its way from the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way(u64);

impl Way {
    pub(super) const ROOT: Way = Way(1);

    /// Of the two children: left, right.
    pub(super) fn children(self) -> [Way; 2] {
        let draws = Draws::new(0, Stream::TreeColumns);
        [0, 1].map(|side| Way(draws.bits(self.0, side)))
    }
}

/// Of one tree.
pub(super) struct Columns<'a> {
    sample: &'a ColumnSample,
    interactions: &'a [Vec<u32>],
    tree: u64,
    /// Features of the tree, ascending.
    of_tree: Vec<u32>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(
        sample: &'a ColumnSample,
        interactions: &'a [Vec<u32>],
        n_features: usize,
        tree: u64,
    ) -> Columns<'a> {
        let all: Vec<u32> = (0..n_features as u32).collect();
        let mut columns = Columns { sample, interactions, tree, of_tree: Vec::new() };
        columns.of_tree = columns.take(all, sample.tree, 0, 0);
        columns
    }

    /// Features that a node may be split by, ascending; None: all.
    ///
    /// * `path`: features of the splits above it.
    pub(super) fn of_node(&self, depth: usize, way: Way, path: &[u32]) -> Option<Vec<u32>> {
        let is_free = self.interactions.is_empty() || path.is_empty();
        if is_free && self.sample.is_all() {
            return None;
        }
        let mut columns = self.take(self.of_tree.clone(), self.sample.level, 1, depth as u64);
        if !is_free {
            let together = |group: &&Vec<u32>| path.iter().all(|feature| group.contains(feature));
            let groups: Vec<&Vec<u32>> = self.interactions.iter().filter(together).collect();
            columns.retain(|feature| path.contains(feature) || groups.iter().any(|group| group.contains(feature)));
        }
        Some(self.take(columns, self.sample.node, 2, way.0))
    }

    /// This share of some features: those that draw the least, at least one.
    fn take(&self, mut columns: Vec<u32>, share: f64, purpose: u64, of: u64) -> Vec<u32> {
        let n = ((columns.len() as f64 * share).round() as usize).max(1);
        if n >= columns.len() {
            return columns;
        }
        let draws = Draws::new(self.sample.seed, Stream::TreeColumns);
        let of = draws.bits(draws.bits(self.tree, purpose), of);
        columns.select_nth_unstable_by_key(n - 1, |feature| (draws.bits(u64::from(*feature), of), *feature));
        columns.truncate(n);
        columns.sort_unstable();
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_their_share_and_lie_within_those_before() {
        let sample = ColumnSample { tree: 0.5, level: 0.5, node: 0.5, seed: 3 };
        let of = |tree| Columns::new(&sample, &[], 40, tree);
        let mut met = vec![0; 40];
        for tree in 0..50 {
            let columns = of(tree);
            assert_eq!(columns.of_tree.len(), 20);
            let [left, right] = Way::ROOT.children();
            let nodes = [(1, left), (1, right), (2, left.children()[0])];
            let of_nodes = nodes.map(|(depth, way)| columns.of_node(depth, way, &[]).unwrap());
            assert!(of_nodes.iter().all(|node| node.len() == 5 && node.iter().all(|f| columns.of_tree.contains(f))));
            assert!(of_nodes[0] != of_nodes[1] && of_nodes[0] != of_nodes[2]);
            let of_level: std::collections::BTreeSet<u32> = of_nodes[..2].iter().flatten().copied().collect();
            assert!(of_level.len() <= 10, "both are of the ten of their level");
            of_nodes[0].iter().for_each(|feature| met[*feature as usize] += 1);
            assert_eq!(of_nodes[0], of(tree).of_node(1, left, &[]).unwrap());
        }
        assert!(met.iter().all(|n| (1..=16).contains(n)), "each feature about six times of fifty: {met:?}");
        let one = ColumnSample { tree: 1e-9, level: 1.0, node: 1.0, seed: 0 };
        assert_eq!(Columns::new(&one, &[], 7, 0).of_tree.len(), 1);
    }

    #[test]
    fn groups_bound_what_meets() {
        let all = ColumnSample { tree: 1.0, level: 1.0, node: 1.0, seed: 0 };
        let groups = [vec![0, 1], vec![1, 2, 4]];
        let columns = Columns::new(&all, &groups, 6, 0);
        let of = |path: &[u32]| columns.of_node(1, Way::ROOT, path);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[1]), Some(vec![0, 1, 2, 4]));
        assert_eq!(of(&[1, 2]), Some(vec![1, 2, 4]));
        assert_eq!(of(&[5]), Some(vec![5]), "of no group: with itself alone");
        assert_eq!(Columns::new(&all, &[], 6, 0).of_node(3, Way::ROOT, &[1]), None);
    }
}
