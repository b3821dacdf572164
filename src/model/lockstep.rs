//! Boosted trees laid out for rows by the thousand: same leaves and same bits as [`Boosted::scores`], a few times as fast.
//!
//! A walk through a tree waits: for its node, for the row's value, and for the branch that was guessed wrong. So here `GROUP` rows
//! walk together, their loads overlap, and the next node is a sum instead of a branch: the two children lie side by side, the one
//! at `child + 1` is for values up to the threshold. A row that has come to its leaf stays there: a leaf asks for a value that is up to
//! nothing. Nodes are 16 bytes; the values of a group lie feature by feature, so that a node knows where all its rows' values are.
//!
//! A missing value takes no test of its own: nodes that send it left read a copy of the feature in which it is −∞, below every
//! threshold; in all others it is NaN, which is up to none. Source of walking some rows in lockstep: Asadi, Lin and de Vries,
//! *Runtime optimizations for tree-based machine learning models*, IEEE TKDE 2014.

use super::tree::{Boosted, Tree, is_in};

/// Rows that walk together: their places fit the registers. Measured: 16 take a quarter longer, 32 twice as long.
const GROUP: usize = 8;
/// Steps between two looks whether all of a group have come to their leaves.
const STEPS: usize = 2;
/// Values of the rows that one tree after the other is shown: they stay in the cache of one core; at least one group.
const BLOCK_VALUES: usize = 16 << 10;
/// The column of leaves: NaN in every row.
const NOWHERE: u32 = 0;
/// Bit of a column: the node asks for a set of categories.
const OF_SET: u32 = 1 << 31;

/// An inner node, or a leaf.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Node {
    /// Values up to it go to `child + 1`. Of a leaf its value; of a set the number of the tree's node that has it.
    threshold: f64,
    column: u32,
    /// Node of the tree for all else. Of a leaf itself.
    child: u32,
}

/// Where a tree is.
#[derive(Clone, Copy, Debug)]
struct Place {
    first: usize,
    end: usize,
    /// Of its shortest path.
    steps: usize,
    has_sets: bool,
}

/// [`Boosted`] for prediction. Trees are as [`Tree::check`] wants them.
pub struct Lockstep<'m> {
    boosted: &'m Boosted,
    /// Of all trees, one after the other; the levels of a tree from its root on.
    nodes: Vec<Node>,
    /// By node: the number of the leaf, 0 for others.
    leaves: Vec<u32>,
    trees: Vec<Place>,
    /// Features whose values are columns, after [`NOWHERE`]: as they are, then with −∞ for missing values.
    as_they_are: Vec<u32>,
    low: Vec<u32>,
}

impl<'m> Lockstep<'m> {
    /// Takes about half the memory of the trees themselves. Not collective.
    pub fn new(boosted: &'m Boosted) -> Lockstep<'m> {
        let is_low = |tree: &Tree, node: usize| tree.left_set[node].is_empty() && tree.missing_left[node];
        let mut used = vec![[false; 2]; boosted.n_features];
        for tree in &boosted.trees {
            for (node, feature) in tree.feature.iter().enumerate() {
                used[*feature as usize][usize::from(is_low(tree, node))] = true;
            }
        }
        let all = |low: usize| (0..boosted.n_features as u32).filter(|j| used[*j as usize][low]).collect::<Vec<u32>>();
        let (as_they_are, low) = (all(0), all(1));
        let mut column_of = vec![[NOWHERE; 2]; boosted.n_features];
        for (column, feature) in as_they_are.iter().enumerate() {
            column_of[*feature as usize][0] = 1 + column as u32;
        }
        for (column, feature) in low.iter().enumerate() {
            column_of[*feature as usize][1] = (1 + as_they_are.len() + column) as u32;
        }

        let n_nodes = boosted.trees.iter().map(|tree| 2 * tree.n_leaves() - 1).sum();
        let (mut nodes, mut leaves) = (Vec::with_capacity(n_nodes), Vec::with_capacity(n_nodes));
        let mut trees = Vec::with_capacity(boosted.trees.len());
        // (node as its tree numbers it, splits above it), in the order of `nodes`.
        let mut order: Vec<(i32, usize)> = Vec::new();
        for tree in &boosted.trees {
            let first = nodes.len();
            let mut steps = None;
            order.clear();
            order.push((if tree.feature.is_empty() { -1 } else { 0 }, 0));
            let mut at = 0;
            while let Some((number, depth)) = order.get(at).copied() {
                let (node, leaf) = match usize::try_from(number) {
                    Ok(inner) => {
                        let child = order.len() as u32;
                        order.extend([(tree.right[inner], depth + 1), (tree.left[inner], depth + 1)]);
                        let column = column_of[tree.feature[inner] as usize][usize::from(is_low(tree, inner))];
                        let node = match tree.left_set[inner].is_empty() {
                            true => Node { threshold: tree.threshold[inner], column, child },
                            false => Node { threshold: inner as f64, column: column | OF_SET, child },
                        };
                        (node, 0)
                    }
                    Err(_) => {
                        let leaf = (-1 - number) as u32;
                        steps.get_or_insert(depth);
                        (Node { threshold: tree.value[leaf as usize], column: NOWHERE, child: at as u32 }, leaf)
                    }
                };
                nodes.push(node);
                leaves.push(leaf);
                at += 1;
            }
            let has_sets = tree.left_set.iter().any(|set| !set.is_empty());
            trees.push(Place { first, end: nodes.len(), steps: steps.unwrap_or(0), has_sets });
        }
        Lockstep { boosted, nodes, leaves, trees, as_they_are, low }
    }

    /// Scores of rows of feature values: `rows` is (rows, features), `scores` (rows, scores). Not collective.
    pub fn scores(&self, rows: &[f64], scores: &mut [f64]) {
        let k = self.boosted.n_scores();
        for of_row in scores.chunks_exact_mut(k) {
            of_row.copy_from_slice(&self.boosted.start);
        }
        self.walk_all(rows, scores.len() / k, |tree, row, node| {
            scores[row * k + tree % k] += self.nodes[node].threshold;
        });
    }

    /// The leaf of each row in each tree: `rows` is (rows, features), `leaves` (rows, trees). Not collective.
    pub fn leaves(&self, rows: &[f64], leaves: &mut [u32]) {
        let n_trees = self.trees.len();
        self.walk_all(rows, leaves.len() / n_trees.max(1), |tree, row, node| {
            leaves[row * n_trees + tree] = self.leaves[node];
        });
    }

    /// Shows (tree, row, node that is its leaf): of each row the trees in order.
    fn walk_all(&self, rows: &[f64], n_rows: usize, mut show: impl FnMut(usize, usize, usize)) {
        let d = self.boosted.n_features;
        let width = 1 + self.as_they_are.len() + self.low.len();
        let n_groups = (BLOCK_VALUES / (width * GROUP)).clamp(1, n_rows.div_ceil(GROUP).max(1));
        let mut columns = vec![[f64::NAN; GROUP]; n_groups * width];
        let block_rows = n_groups * GROUP;
        for first in (0..n_rows).step_by(block_rows) {
            let block = first..(first + block_rows).min(n_rows);
            for (slot, row) in rows[block.start * d..block.end * d].chunks_exact(d.max(1)).enumerate() {
                let columns = &mut columns[slot / GROUP * width + 1..][..width - 1];
                let (as_they_are, low) = columns.split_at_mut(self.as_they_are.len());
                for (column, feature) in as_they_are.iter_mut().zip(&self.as_they_are) {
                    column[slot % GROUP] = row[*feature as usize];
                }
                for (column, feature) in low.iter_mut().zip(&self.low) {
                    let value = row[*feature as usize];
                    column[slot % GROUP] = if value.is_nan() { f64::NEG_INFINITY } else { value };
                }
            }
            for (number, place) in self.trees.iter().enumerate() {
                let nodes = &self.nodes[place.first..place.end];
                for (group, columns) in block.clone().step_by(GROUP).zip(columns.chunks_exact(width)) {
                    let reached = match place.has_sets {
                        false => walk::<false>(nodes, &[], columns, place.steps),
                        true => walk::<true>(nodes, &self.boosted.trees[number].left_set, columns, place.steps),
                    };
                    for (row, node) in (group..block.end).zip(reached) {
                        show(number, row, place.first + node as usize);
                    }
                }
            }
        }
    }
}

/// The leaves of a group of rows. `steps`: of the shortest path.
#[inline(always)]
fn walk<const SETS: bool>(
    nodes: &[Node],
    sets: &[Vec<u64>],
    columns: &[[f64; GROUP]],
    mut steps: usize,
) -> [u32; GROUP] {
    let mut reached = [0u32; GROUP];
    loop {
        for _ in 0..steps {
            for (slot, at) in reached.iter_mut().enumerate() {
                let node = nodes[*at as usize];
                let value = columns[(node.column & !OF_SET) as usize][slot];
                let goes_left = match SETS && node.column & OF_SET != 0 {
                    true => is_in(&sets[node.threshold as usize], value),
                    false => value <= node.threshold,
                };
                *at = node.child + u32::from(goes_left);
            }
        }
        let left = reached.iter().fold(NOWHERE, |left, at| left | nodes[*at as usize].column);
        if left == NOWHERE {
            return reached;
        }
        steps = STEPS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};

    /// Draws one after the other.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 += 1;
            Draws::new(11, Stream::Synthetic).below(n as u64, self.0, 0) as usize
        }

        fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
            values[self.below(values.len())]
        }
    }

    /// Values and thresholds alike, so that they are often equal.
    const NUMBERS: [f64; 16] = [
        f64::NEG_INFINITY,
        -1e300,
        -3.5,
        -f64::MIN_POSITIVE,
        -0.0,
        0.0,
        f64::from_bits(1),
        0.1,
        0.1f32 as f64,
        1.0,
        2.0,
        64.0,
        130.0,
        16_777_217.0,
        f64::MAX,
        f64::INFINITY,
    ];

    /// Splits a drawn leaf again and again, the last one if the tree is a chain; one node in `sets` asks for a set.
    fn random_tree(random: &mut Random, n_leaves: usize, d: usize, is_chain: bool, sets: usize) -> Tree {
        let value = |random: &mut Random| random.one_of(&[0.1, -0.3, 1e-17, 1e9, -0.0, 7.0]);
        let mut tree = Tree { value: vec![value(random)], leaf_rows: vec![1], ..Tree::default() };
        let mut hangs: Vec<Option<(usize, bool)>> = vec![None];
        for node in 0..n_leaves - 1 {
            let leaf = if is_chain { tree.value.len() - 1 } else { random.below(tree.value.len()) };
            if let Some((parent, is_left)) = hangs[leaf] {
                *(if is_left { &mut tree.left[parent] } else { &mut tree.right[parent] }) = node as i32;
            }
            let is_set = sets > 0 && random.below(sets) == 0;
            tree.feature.push(random.below(d) as u32);
            tree.threshold.push(random.one_of(&NUMBERS));
            tree.missing_left.push(random.below(2) == 0);
            tree.left_set.push(if is_set { vec![random.below(1 << 20) as u64, 1] } else { vec![] });
            tree.left.push(-1 - leaf as i32);
            tree.right.push(-1 - tree.value.len() as i32);
            tree.gain.push(1.0);
            tree.n_rows.push(1);
            tree.value[leaf] = value(random);
            tree.value.push(value(random));
            tree.leaf_rows.push(1);
            // A chain that goes on at its left or at its right.
            if is_chain && random.below(2) == 0 {
                (tree.left[node], tree.right[node]) = (tree.right[node], tree.left[node]);
                (hangs[leaf], _) = (Some((node, false)), hangs.push(Some((node, true))));
            } else {
                (hangs[leaf], _) = (Some((node, true)), hangs.push(Some((node, false))));
            }
        }
        assert_eq!(tree.check(d), Ok(()));
        tree
    }

    fn agrees(random: &mut Random, boosted: &Boosted, n_rows: usize) {
        let (d, k, n_trees) = (boosted.n_features, boosted.n_scores(), boosted.trees.len());
        let value = |random: &mut Random| match random.below(4) {
            0 => f64::NAN,
            1 => random.below(70) as f64,
            _ => random.one_of(&NUMBERS),
        };
        let rows: Vec<f64> = (0..n_rows * d).map(|_| value(random)).collect();
        let (mut plain, mut found) = (vec![9.0; n_rows * k], vec![7.0; n_rows * k]);
        boosted.scores(&rows, &mut plain);
        let forest = Lockstep::new(boosted);
        forest.scores(&rows, &mut found);
        let bits = |scores: &[f64]| scores.iter().map(|score| score.to_bits()).collect::<Vec<u64>>();
        assert_eq!(bits(&found), bits(&plain), "{n_rows} rows, {d} features, {k} scores, {n_trees} trees");
        let mut leaves = vec![u32::MAX; n_rows * n_trees];
        forest.leaves(&rows, &mut leaves);
        for (at, leaf) in leaves.iter().enumerate() {
            let row = &rows[at / n_trees * d..][..d];
            assert_eq!(*leaf as usize, boosted.trees[at % n_trees].leaf_of(row), "leaf {at}");
        }
    }

    #[test]
    fn the_plain_walk_says_the_same_bits() {
        let mut random = Random(0);
        let row_counts = [0, 1, 7, 8, 9, 64, 513];
        for case in 0..140 {
            let (d, k) = (1 + case % 6, [1, 1, 3, 7][case % 4]);
            let tree = |random: &mut Random| {
                let (n_leaves, is_chain) = (1 + random.below(40), random.below(4) == 0);
                random_tree(random, n_leaves, d, is_chain, [0, 0, 5, 1][case % 4])
            };
            let trees = (0..k * (1 + case % 5)).map(|_| tree(&mut random)).collect();
            let start = (0..k).map(|class| 0.1 * class as f64 - 0.2).collect();
            agrees(&mut random, &Boosted { n_features: d, start, trees }, row_counts[case % row_counts.len()]);
        }
    }

    #[test]
    fn chains_of_sixty_splits_wide_tables_and_trees_of_one_leaf_too() {
        let mut random = Random(1 << 32);
        let chains = (0..3).map(|_| random_tree(&mut random, 61, 2, true, 0)).collect();
        agrees(&mut random, &Boosted { n_features: 2, start: vec![0.5], trees: chains }, 101);
        // More columns than a block has values for: a group at a time.
        let wide = (0..2).map(|_| random_tree(&mut random, 6000, 5000, false, 9)).collect();
        agrees(&mut random, &Boosted { n_features: 5000, start: vec![0.5, -0.5], trees: wide }, 21);
        let leaf = Tree { value: vec![0.1], leaf_rows: vec![1], ..Tree::default() };
        agrees(&mut random, &Boosted { n_features: 0, start: vec![0.2], trees: vec![leaf.clone(), leaf] }, 13);
        agrees(&mut random, &Boosted { n_features: 3, start: vec![0.2, 0.3], trees: vec![] }, 13);
    }
}
