//! A random forest: trees whose leaves are averaged. Sixteen bytes a node.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bits of [`Node::feature`]: missing values go left; the node asks for a set of categories; it is a leaf.
pub const MISSING_LEFT: u32 = 1 << 31;
pub const OF_SET: u32 = 1 << 30;
pub const LEAF: u32 = 1 << 29;
const NUMBER: u32 = LEAF - 1;

/// An inner node, or a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Values up to it go left; of a set its number; of a leaf of numbers its value.
    pub value: f64,
    /// Its number, and bits that say what the node is.
    pub feature: u32,
    /// The left child, next to which is the right one. Of a leaf its number.
    pub child: u32,
}

impl Node {
    pub fn is_leaf(&self) -> bool {
        self.feature & LEAF != 0
    }

    /// The feature that an inner node asks for.
    pub fn number(&self) -> usize {
        (self.feature & NUMBER) as usize
    }
}

/// One tree. Node 0 is the root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForestTree {
    pub nodes: Vec<Node>,
    /// Of classes: (leaves, scores).
    pub shares: Vec<f32>,
    /// Of the nodes that ask for sets, which of the feature's categories go left: place p by bit p % 64 of word p / 64; all else goes right.
    pub sets: Vec<Vec<u64>>,
}

/// What a feature did in all trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Share of all that the splits of a tree gained, averaged over trees (*mean decrease in impurity*).
    pub gain: f64,
    pub splits: u64,
}

/// Trees whose leaves are averaged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forest {
    pub n_features: usize,
    /// 1 for numbers and two classes (the share of the second), else classes.
    pub n_scores: usize,
    /// Leaves hold shares of classes.
    pub has_classes: bool,
    /// By feature: the categories that its sets are of, ascending; none of one that is a number.
    pub categories: Vec<Vec<u32>>,
    pub trees: Vec<ForestTree>,
    /// By tree: what its random draws are numbered by. Trees that drew no row are not there.
    pub numbers: Vec<u64>,
    /// By feature.
    pub importance: Vec<Importance>,
}

/// Rows that walk together: their loads overlap.
const GROUP: usize = 8;

impl ForestTree {
    #[inline]
    fn goes_left(&self, node: &Node, value: f64, categories: &[Vec<u32>]) -> bool {
        if node.feature & OF_SET != 0 {
            let place = categories[node.number()].binary_search_by(|category| f64::from(*category).total_cmp(&value));
            return place.is_ok_and(|place| super::tree::is_in(&self.sets[node.value as usize], place as f64));
        }
        value <= node.value || (value.is_nan() && node.feature & MISSING_LEFT != 0)
    }

    /// The leaves of up to [`GROUP`] rows of feature values, NaN where one is missing: `rows` is (rows, features).
    fn leaves_of(&self, rows: &[f64], categories: &[Vec<u32>]) -> [u32; GROUP] {
        let d = categories.len();
        let n = rows.len() / d.max(1);
        let mut at = [0u32; GROUP];
        let mut walking = true;
        while walking {
            walking = false;
            for (slot, at) in at.iter_mut().enumerate().take(n) {
                let node = &self.nodes[*at as usize];
                if !node.is_leaf() {
                    let is_right = !self.goes_left(node, rows[slot * d + node.number()], categories);
                    *at = node.child + u32::from(is_right);
                    walking = true;
                }
            }
        }
        at
    }

    pub fn n_leaves(&self) -> usize {
        self.nodes.len().div_ceil(2)
    }

    pub fn depth(&self) -> usize {
        let mut depths = vec![0usize; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.is_leaf()) {
            // Children come after their parent.
            let child = node.child as usize;
            depths[child] = depths[at] + 1;
            depths[child + 1] = depths[at] + 1;
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// Why this is no tree, if so: it may come from a file.
    fn check(&self, forest: &Forest) -> Result<(), &'static str> {
        let n = self.nodes.len();
        if n.is_multiple_of(2) {
            return Err("one leaf more than inner nodes");
        }
        let n_leaves = self.n_leaves();
        if self.shares.len() != if forest.has_classes { n_leaves * forest.n_scores } else { 0 } {
            return Err("shares of every leaf");
        }
        if self.shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return Err("shares from 0 to 1");
        }
        let (mut reached, mut leaves) = (vec![false; n], vec![false; n_leaves]);
        reached[0] = true;
        for (at, node) in self.nodes.iter().enumerate() {
            let child = node.child as usize;
            if node.is_leaf() {
                match leaves.get_mut(child) {
                    Some(seen) if !*seen && node.value.is_finite() => *seen = true,
                    _ => return Err("leaves of their own numbers, with finite values"),
                }
                continue;
            }
            let is_of_set = node.feature & OF_SET != 0;
            let has_set = node.value >= 0.0 && (node.value as usize) < self.sets.len();
            if node.number() >= forest.n_features || node.value.is_nan() || (is_of_set && !has_set) {
                return Err("splits by the model's features");
            }
            if child <= at || child + 1 >= n || reached[child] || reached[child + 1] {
                return Err("children that come after their parent, each of one");
            }
            (reached[child], reached[child + 1]) = (true, true);
        }
        Ok(())
    }
}

impl Forest {
    /// Why this is no forest, if so: it may come from a file.
    pub fn check(&self) -> Result<(), String> {
        let check = |(number, tree): (usize, &ForestTree)| {
            tree.check(self).map_err(|expected| format!("tree {number}: {expected}"))
        };
        let of_features = [self.importance.len(), self.categories.len()];
        if self.trees.is_empty() || of_features != [self.n_features; 2] || self.n_scores == 0 {
            return Err("trees, and importance and categories of every feature".to_string());
        }
        if self.numbers.len() != self.trees.len() || self.numbers.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("a number of every tree, ascending".to_string());
        }
        if self.categories.iter().any(|of| of.windows(2).any(|pair| pair[0] >= pair[1])) {
            return Err("ascending categories".to_string());
        }
        self.trees.par_iter().enumerate().try_for_each(check)
    }

    /// Shows all that predictions hang on, as bytes: for a digest.
    pub fn each_bytes(&self, mut show: impl FnMut(&[u8])) {
        show(&[self.n_features as u64, self.n_scores as u64, self.trees.len() as u64].map(u64::to_le_bytes).concat());
        for categories in &self.categories {
            show(&(categories.len() as u64).to_le_bytes());
            show(&categories.iter().flat_map(|category| category.to_le_bytes()).collect::<Vec<u8>>());
        }
        for (tree, number) in self.trees.iter().zip(&self.numbers) {
            show(&number.to_le_bytes());
            let node = |node: &Node| {
                let (value, feature, child) =
                    (node.value.to_le_bytes(), node.feature.to_le_bytes(), node.child.to_le_bytes());
                value.into_iter().chain(feature).chain(child)
            };
            show(&(tree.nodes.len() as u64).to_le_bytes());
            show(&tree.nodes.iter().flat_map(node).collect::<Vec<u8>>());
            show(&tree.shares.iter().flat_map(|share| share.to_le_bytes()).collect::<Vec<u8>>());
            for set in &tree.sets {
                show(&(set.len() as u64).to_le_bytes());
                show(&set.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
    }

    pub fn n_nodes(&self) -> usize {
        self.trees.iter().map(|tree| tree.nodes.len()).sum()
    }

    /// What a leaf says: (scores).
    fn add(&self, tree: &ForestTree, leaf: &Node, scores: &mut [f64]) {
        match self.has_classes {
            true => {
                let shares = &tree.shares[leaf.child as usize * self.n_scores..][..self.n_scores];
                scores.iter_mut().zip(shares).for_each(|(score, share)| *score += f64::from(*share));
            }
            false => scores[0] += leaf.value,
        }
    }

    /// The mean over all trees, in their order: `rows` is (rows, features), `scores` (rows, scores). Not collective.
    pub fn scores(&self, rows: &[f64], scores: &mut [f64]) {
        self.scores_of(rows, scores, |_, _| true);
    }

    /// The mean over the trees that `takes` (tree, row) names; NaN for a row that no tree is named for. Not collective.
    pub fn scores_of(&self, rows: &[f64], scores: &mut [f64], takes: impl Fn(usize, usize) -> bool) {
        let (d, k) = (self.n_features, self.n_scores);
        scores.fill(0.0);
        let mut counts = vec![0u32; scores.len() / k];
        self.walk_all(rows, counts.len(), |number, row, leaf| {
            if takes(number, row) {
                let tree = &self.trees[number];
                self.add(tree, &tree.nodes[leaf as usize], &mut scores[row * k..(row + 1) * k]);
                counts[row] += 1;
            }
        });
        debug_assert_eq!(rows.len(), counts.len() * d);
        for (scores, count) in scores.chunks_exact_mut(k).zip(counts) {
            // A row without trees: 0/0.
            scores.iter_mut().for_each(|score| *score /= f64::from(count));
        }
    }

    /// The leaf of each row in each tree: `rows` is (rows, features), `leaves` (rows, trees). Not collective.
    pub fn leaves(&self, rows: &[f64], leaves: &mut [u32]) {
        let n = self.trees.len();
        self.walk_all(rows, leaves.len() / n.max(1), |tree, row, leaf| {
            leaves[row * n + tree] = self.trees[tree].nodes[leaf as usize].child;
        });
    }

    /// Shows (tree, row, node that is its leaf): of each row the trees in order.
    fn walk_all(&self, rows: &[f64], n_rows: usize, mut show: impl FnMut(usize, usize, u32)) {
        let d = self.n_features;
        for (number, tree) in self.trees.iter().enumerate() {
            for first in (0..n_rows).step_by(GROUP) {
                let end = (first + GROUP).min(n_rows);
                let leaves = tree.leaves_of(&rows[first * d..end * d], &self.categories);
                for (row, leaf) in (first..end).zip(leaves) {
                    show(number, row, leaf);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(child: u32, value: f64) -> Node {
        Node { value, feature: LEAF, child }
    }

    /// x0 ≤ 1 (missing left)? (x1 in {0, 65}? 10 : 20) : (x0 ≤ 2 (missing right)? 30 : 40)
    fn tree() -> ForestTree {
        ForestTree {
            nodes: vec![
                Node { value: 1.0, feature: MISSING_LEFT, child: 1 },
                Node { value: 0.0, feature: 1 | OF_SET, child: 3 },
                Node { value: 2.0, feature: 0, child: 5 },
                leaf(0, 10.0),
                leaf(1, 20.0),
                leaf(2, 30.0),
                leaf(3, 40.0),
            ],
            shares: Vec::new(),
            sets: vec![vec![0b1001]],
        }
    }

    fn forest() -> Forest {
        let one = ForestTree { nodes: vec![leaf(0, 100.0)], ..ForestTree::default() };
        Forest {
            n_features: 2,
            n_scores: 1,
            has_classes: false,
            // Feature 1: categories 0 and 65 are those of the set.
            categories: vec![Vec::new(), vec![0, 3, 64, 65]],
            trees: vec![tree(), one],
            numbers: vec![0, 3],
            importance: vec![Importance::default(); 2],
        }
    }

    #[test]
    fn rows_walk_to_their_leaves_and_are_averaged_over_the_trees_that_take_them() {
        let (nan, forest) = (f64::NAN, forest());
        forest.check().unwrap();
        let rows = [
            ([1.0, 0.0], 10.0),
            ([nan, 65.0], 10.0),
            ([0.5, 64.0], 20.0),
            ([0.5, nan], 20.0),
            ([1.5, nan], 30.0),
            ([2.0, 3.0], 30.0),
            ([2.1, 3.0], 40.0),
            ([f64::INFINITY, 0.0], 40.0),
            ([-1e300, 65.0], 10.0),
        ];
        let values: Vec<f64> = rows.iter().flat_map(|(row, _)| *row).collect();
        let mut scores = vec![7.0; rows.len()];
        forest.scores(&values, &mut scores);
        for ((row, expected), score) in rows.iter().zip(&scores) {
            let node = forest.trees[0].leaves_of(row, &forest.categories)[0];
            assert_eq!(forest.trees[0].nodes[node as usize].value, *expected);
            assert_eq!(*score, (expected + 100.0) / 2.0);
        }
        forest.scores_of(&values, &mut scores, |tree, row| row != 3 && (tree == 0 || row == 0));
        assert_eq!((scores[0], scores[1]), (55.0, 10.0));
        assert!(scores[3].is_nan());
        let mut leaves = vec![9; 2 * rows.len()];
        forest.leaves(&values, &mut leaves);
        assert_eq!(leaves[..6], [0, 0, 0, 0, 1, 0]);
        assert_eq!((forest.trees[0].depth(), forest.trees[1].depth(), forest.n_nodes()), (2, 0, 8));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let broken: [fn(&mut ForestTree); 7] = [
            |tree| tree.nodes[2].child = 3,
            |tree| tree.nodes[2].child = 6,
            |tree| tree.nodes[1].child = 1,
            |tree| tree.nodes[1].value = 1.0,
            |tree| tree.nodes[0].feature = 2,
            |tree| tree.nodes[3].child = 1,
            |tree| tree.nodes[4].value = f64::NAN,
        ];
        for (at, damage) in broken.into_iter().enumerate() {
            let mut forest = forest();
            damage(&mut forest.trees[0]);
            assert!(forest.check().is_err(), "{at}");
        }
        let mut forest = forest();
        forest.has_classes = true;
        assert!(forest.check().unwrap_err().contains("shares"));
    }
}
