//! A decision tree as arrays of nodes, and a sum of such trees.

use serde::{Deserialize, Serialize};

/// A tree on feature values. Node 0 is the root; a tree of one leaf has no nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// By inner node, as all of the next.
    pub feature: Vec<u32>,
    /// Values up to it go left.
    pub threshold: Vec<f64>,
    /// Where missing values go.
    pub missing_left: Vec<bool>,
    /// Categories that go left: bit c % 64 of word c / 64; all else goes right, categories that nobody knew too. Empty: the node
    /// splits by its threshold.
    pub left_set: Vec<Vec<u64>>,
    /// Number of an inner node, or −1 − number of a leaf.
    pub left: Vec<i32>,
    pub right: Vec<i32>,
    /// How much lower twice the loss was made.
    pub gain: Vec<f64>,
    /// Training rows.
    pub n_rows: Vec<u64>,
    /// By leaf.
    pub value: Vec<f64>,
    pub leaf_rows: Vec<u64>,
}

impl Tree {
    pub fn n_leaves(&self) -> usize {
        self.value.len()
    }

    /// Whether a row with this value of the node's feature goes left; NaN: missing.
    #[inline]
    pub fn goes_left(&self, node: usize, value: f64) -> bool {
        let set = &self.left_set[node];
        if !set.is_empty() {
            return is_in(set, value);
        }
        if value.is_nan() { self.missing_left[node] } else { value <= self.threshold[node] }
    }

    /// The leaf of a row of feature values; NaN: missing.
    pub fn leaf_of(&self, row: &[f64]) -> usize {
        let mut at = if self.feature.is_empty() { -1 } else { 0 };
        while at >= 0 {
            let node = at as usize;
            let goes_left = self.goes_left(node, row[self.feature[node] as usize]);
            at = if goes_left { self.left[node] } else { self.right[node] };
        }
        (-1 - at) as usize
    }

    /// Why this is no tree, if so: it may come from a file.
    pub fn check(&self, n_features: usize) -> Result<(), &'static str> {
        let n = self.feature.len();
        let lengths = [
            self.threshold.len(),
            self.missing_left.len(),
            self.left_set.len(),
            self.left.len(),
            self.right.len(),
            self.gain.len(),
            self.n_rows.len(),
        ];
        if lengths.iter().any(|len| *len != n) || self.value.len() != n + 1 || self.leaf_rows.len() != n + 1 {
            return Err("arrays of one length, and one leaf more than inner nodes");
        }
        if self.feature.iter().any(|feature| *feature as usize >= n_features) {
            return Err("splits by the model's features");
        }
        if self.threshold.iter().any(|t| t.is_nan()) || self.value.iter().any(|value| !value.is_finite()) {
            return Err("finite values");
        }
        // Each but the root is the child of one that comes before it: no cycles, and all are reached.
        let (mut inner, mut leaves) = (vec![false; n], vec![false; n + 1]);
        for node in 0..n {
            for child in [self.left[node], self.right[node]] {
                let seen = match usize::try_from(child) {
                    Ok(child) if child > node => inner.get_mut(child),
                    Ok(_) => None,
                    Err(_) => leaves.get_mut((-1 - i64::from(child)) as usize),
                };
                match seen {
                    Some(seen) if !*seen => *seen = true,
                    _ => return Err("children that come after their parent, each of one"),
                }
            }
        }
        Ok(())
    }
}

/// What a feature did in some trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Importance {
    /// How much lower its splits made twice the loss.
    pub gain: f64,
    pub splits: u64,
    /// Training rows of the nodes that it split, added up.
    pub cover: u64,
}

/// Whether a category is in a set. What is behind the point is cut off, as LightGBM's models expect; those of training are whole
/// numbers of 0 or more. NaN and what is −1 or less are in none.
#[inline]
pub(super) fn is_in(set: &[u64], value: f64) -> bool {
    let category = value as u64;
    value > -1.0 && set.get((category / 64) as usize).is_some_and(|word| word >> (category % 64) & 1 == 1)
}

/// Score c of a row is `start[c]` plus the leaf values of the trees of class c, added in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Boosted {
    pub n_features: usize,
    pub start: Vec<f64>,
    /// (rounds, scores), row-major.
    pub trees: Vec<Tree>,
}

impl Boosted {
    pub fn n_scores(&self) -> usize {
        self.start.len()
    }

    pub fn n_rounds(&self) -> usize {
        self.trees.len() / self.start.len().max(1)
    }

    /// What each feature did in all trees.
    pub fn importance(&self) -> Vec<Importance> {
        let mut all = vec![Importance::default(); self.n_features];
        for tree in &self.trees {
            for ((feature, gain), n_rows) in tree.feature.iter().zip(&tree.gain).zip(&tree.n_rows) {
                let of = &mut all[*feature as usize];
                of.gain += gain;
                of.splits += 1;
                of.cover = of.cover.saturating_add(*n_rows);
            }
        }
        all
    }

    /// Scores of rows of feature values: `rows` is (rows, features), `scores` (rows, scores). Not collective.
    ///
    /// The plain walk that [`Lockstep`](super::Lockstep), which many rows want, is held to.
    pub fn scores(&self, rows: &[f64], scores: &mut [f64]) {
        let (d, k) = (self.n_features, self.n_scores());
        for of_row in scores.chunks_exact_mut(k) {
            of_row.copy_from_slice(&self.start);
        }
        for (number, tree) in self.trees.iter().enumerate() {
            for (slot, scores) in scores.chunks_exact_mut(k).enumerate() {
                scores[number % k] += tree.value[tree.leaf_of(&rows[slot * d..(slot + 1) * d])];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stump(threshold: f64) -> Tree {
        Tree {
            feature: vec![1],
            threshold: vec![threshold],
            missing_left: vec![false],
            left_set: vec![vec![]],
            left: vec![-1],
            right: vec![-2],
            gain: vec![1.0],
            n_rows: vec![10],
            value: vec![-1.0, 2.0],
            leaf_rows: vec![4, 6],
        }
    }

    #[test]
    fn rows_go_where_thresholds_say_and_missing_values_where_they_were_told() {
        let tree = stump(0.5);
        for (value, leaf) in
            [(0.5, 0), (f64::NEG_INFINITY, 0), (0.5f64.next_up(), 1), (f64::NAN, 1), (f64::INFINITY, 1)]
        {
            assert_eq!(tree.leaf_of(&[9.0, value]), leaf, "{value}");
        }
        let boosted = Boosted {
            n_features: 2,
            start: vec![0.25],
            trees: vec![tree, Tree { value: vec![3.0], leaf_rows: vec![10], ..Tree::default() }],
        };
        let mut scores = [0.0; 2];
        boosted.scores(&[0.0, 0.0, 0.0, 1.0], &mut scores);
        assert_eq!(scores, [2.25, 5.25]);
    }

    #[test]
    fn categories_of_the_set_go_left_and_all_else_goes_right() {
        let tree = Tree { left_set: vec![vec![1 << 3, 1 << 1]], missing_left: vec![true], ..stump(f64::INFINITY) };
        for (value, leaf) in [
            (3.0, 0),
            (65.0, 0),
            (0.0, 1),
            (64.0, 1),
            (3.5, 0),
            (65.999, 0),
            (66.0, 1),
            (-3.0, 1),
            (1e300, 1),
            (f64::NAN, 1),
            (f64::INFINITY, 1),
        ] {
            assert_eq!(tree.leaf_of(&[9.0, value]), leaf, "{value}");
        }
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        assert_eq!(stump(0.5).check(2), Ok(()));
        let broken: [fn(&mut Tree); 6] = [
            |tree| tree.feature[0] = 2,
            |tree| tree.left[0] = 0,
            |tree| tree.right[0] = -1,
            |tree| tree.right[0] = i32::MIN,
            |tree| tree.value[1] = f64::NAN,
            |tree| tree.threshold.clear(),
        ];
        for (case, spoil) in broken.iter().enumerate() {
            let mut tree = stump(0.5);
            spoil(&mut tree);
            assert!(tree.check(2).is_err(), "case {case}");
        }
    }
}
