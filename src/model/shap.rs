//! What each feature adds to a row's score: Shapley values of trees.
//!
//! Source: Lundberg, Erion and Lee, *Consistent individualized feature attribution for tree ensembles*, 2018, algorithm 2. A feature
//! that is not known sends a row to both children, by their shares of the training rows; contributions are the means over all orders
//! in which features can become known, found in one walk over the tree.

use super::tree::{Boosted, Tree};

/// Trees with longer paths are refused: the work grows with the square of them.
pub const MOST_DEPTH: usize = 4096;

impl Boosted {
    /// What features add to the scores of a row, and, last, what the mean training row has: their sum is the score.
    ///
    /// * `row`: feature values; NaN: missing.
    /// * `into`: (scores, features + 1), overwritten.
    pub fn contributions(&self, row: &[f64], into: &mut [f64]) {
        let (k, width) = (self.n_scores(), self.n_features + 1);
        into.fill(0.0);
        for (start, into) in self.start.iter().zip(into.chunks_exact_mut(width)) {
            into[width - 1] = *start;
        }
        let mut path = Vec::new();
        for (number, tree) in self.trees.iter().enumerate() {
            let into = &mut into[number % k * width..][..width];
            let (of_features, mean) = into.split_at_mut(width - 1);
            mean[0] += tree.mean_value();
            Walk { tree, row, into: of_features, path: &mut path }.start();
        }
    }
}

impl Tree {
    /// The mean leaf value of training rows.
    pub fn mean_value(&self) -> f64 {
        let (mut sum, mut n_rows) = (0.0, 0.0);
        for (value, rows) in self.value.iter().zip(&self.leaf_rows) {
            sum += value * *rows as f64;
            n_rows += *rows as f64;
        }
        // A tree of another program may not say how many there were: of one leaf it does not matter.
        let without = if self.value.len() == 1 { self.value[0] } else { 0.0 };
        if n_rows > 0.0 { sum / n_rows } else { without }
    }

    /// Splits on the longest way from the root to a leaf.
    pub fn depth(&self) -> usize {
        // Children come after their parents.
        let mut depth = vec![0; self.feature.len()];
        for node in 0..self.feature.len() {
            for child in [self.left[node], self.right[node]] {
                if let Ok(child) = usize::try_from(child) {
                    depth[child] = depth[node] + 1;
                }
            }
        }
        depth.iter().max().map_or(0, |most| most + 1)
    }

    /// Training rows below a child.
    fn rows_of(&self, child: i32) -> u64 {
        match usize::try_from(child) {
            Ok(node) => self.n_rows[node],
            Err(_) => self.leaf_rows[(-1 - child) as usize],
        }
    }
}

/// A feature on the way from the root: which share of the orders comes through it.
#[derive(Clone, Copy)]
struct Step {
    /// None: the begin.
    feature: Option<u32>,
    /// Share of the rows that go this way when the feature is not known.
    unknown: f64,
    /// 1 if the row goes this way, else 0.
    known: f64,
    /// By place: of the sets of so many known features, the weighted share that comes through.
    weight: f64,
}

struct Walk<'a> {
    tree: &'a Tree,
    row: &'a [f64],
    into: &'a mut [f64],
    /// The steps of every level of the walk, one after the other.
    path: &'a mut Vec<Step>,
}

impl Walk<'_> {
    fn start(mut self) {
        if !self.tree.feature.is_empty() {
            self.path.clear();
            let begin = Step { feature: None, unknown: 1.0, known: 1.0, weight: 1.0 };
            self.go(0, 0, begin);
        }
    }

    /// Goes to `child` by `step`, with the steps from `first` on behind it.
    fn go(&mut self, child: i32, first: usize, step: Step) {
        // Nothing comes this way, and nothing would.
        if step.unknown == 0.0 && step.known == 0.0 {
            return;
        }
        extend(self.path, first, step);
        match usize::try_from(child) {
            Err(_) => self.add_leaf((-1 - child) as usize, first),
            Ok(node) => {
                let (feature, n_rows) = (self.tree.feature[node], self.tree.n_rows[node]);
                let children = [self.tree.left[node], self.tree.right[node]];
                let goes_left = self.tree.goes_left(node, self.row[feature as usize]);
                let steps = &self.path[first..];
                let met = steps.iter().position(|step| step.feature == Some(feature));
                let before = met.map_or((1.0, 1.0), |at| (steps[at].unknown, steps[at].known));
                for (child, known) in children.into_iter().zip([goes_left, !goes_left]) {
                    let share = self.tree.rows_of(child) as f64 / (n_rows.max(1)) as f64;
                    let next = self.path.len();
                    self.path.extend_from_within(first..);
                    if let Some(at) = met {
                        unwind(self.path, next, at);
                    }
                    let known = if known { before.1 } else { 0.0 };
                    self.go(
                        child,
                        next,
                        Step { feature: Some(feature), unknown: before.0 * share, known, weight: 0.0 },
                    );
                    self.path.truncate(next);
                }
            }
        }
    }

    fn add_leaf(&mut self, leaf: usize, first: usize) {
        let steps = &self.path[first..];
        for (at, step) in steps.iter().enumerate() {
            if let Some(feature) = step.feature {
                let share = unwound(steps, at) * (step.known - step.unknown);
                self.into[feature as usize] += share * self.tree.value[leaf];
            }
        }
    }
}

/// Adds a step to those from `first` on.
fn extend(path: &mut Vec<Step>, first: usize, step: Step) {
    let n = path.len() - first;
    path.push(Step { weight: if n == 0 { 1.0 } else { 0.0 }, ..step });
    let steps = &mut path[first..];
    for at in (0..n).rev() {
        let weight = steps[at].weight;
        steps[at + 1].weight += step.known * weight * (at + 1) as f64 / (n + 1) as f64;
        steps[at].weight = step.unknown * weight * (n - at) as f64 / (n + 1) as f64;
    }
}

/// Takes step `at` out of those from `first` on, as if it had never been made.
fn unwind(path: &mut Vec<Step>, first: usize, at: usize) {
    let steps = &mut path[first..];
    let n = steps.len() - 1;
    let Step { known, unknown, .. } = steps[at];
    let mut next = steps[n].weight;
    for at in (0..n).rev() {
        if known != 0.0 {
            let weight = steps[at].weight;
            steps[at].weight = next * (n + 1) as f64 / ((at + 1) as f64 * known);
            next = weight - steps[at].weight * unknown * (n - at) as f64 / (n + 1) as f64;
        } else {
            steps[at].weight = steps[at].weight * (n + 1) as f64 / (unknown * (n - at) as f64);
        }
    }
    for at in at..n {
        steps[at] = Step { weight: steps[at].weight, ..steps[at + 1] };
    }
    path.pop();
}

/// The sum of all weights without step `at`.
fn unwound(steps: &[Step], at: usize) -> f64 {
    let n = steps.len() - 1;
    let Step { known, unknown, .. } = steps[at];
    let mut next = steps[n].weight;
    let mut total = 0.0;
    for at in (0..n).rev() {
        if known != 0.0 {
            let weight = next * (n + 1) as f64 / ((at + 1) as f64 * known);
            total += weight;
            next = steps[at].weight - weight * unknown * (n - at) as f64 / (n + 1) as f64;
        } else {
            total += steps[at].weight * (n + 1) as f64 / (unknown * (n - at) as f64);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};

    /// A tree of `n_leaves` on `d` features, any of which may come several times on a path.
    fn random_tree(draws: &mut dyn FnMut() -> f64, n_leaves: usize, d: usize) -> Tree {
        let mut tree = Tree { value: vec![draws()], leaf_rows: vec![1 << 20], ..Tree::default() };
        let mut hangs: Vec<Option<(usize, bool)>> = vec![None];
        for node in 0..n_leaves - 1 {
            let drawn = (draws() * tree.value.len() as f64) as usize;
            let largest = (0..tree.value.len()).max_by_key(|leaf| tree.leaf_rows[*leaf]).unwrap();
            let leaf = if tree.leaf_rows[drawn] < 2 { largest } else { drawn };
            let (rows, right) = (tree.leaf_rows[leaf], tree.value.len());
            let left_rows = 1 + (draws() * (rows - 1) as f64) as u64;
            if let Some((parent, is_left)) = hangs[leaf] {
                *(if is_left { &mut tree.left[parent] } else { &mut tree.right[parent] }) = node as i32;
            }
            tree.feature.push((draws() * d as f64) as u32);
            tree.threshold.push(draws());
            tree.missing_left.push(draws() < 0.5);
            tree.left_set.push(vec![]);
            tree.left.push(-1 - leaf as i32);
            tree.right.push(-1 - right as i32);
            tree.gain.push(1.0);
            tree.n_rows.push(rows);
            (tree.value[leaf], tree.leaf_rows[leaf]) = (draws(), left_rows);
            tree.value.push(draws());
            tree.leaf_rows.push(rows - left_rows);
            hangs[leaf] = Some((node, true));
            hangs.push(Some((node, false)));
        }
        tree
    }

    /// The mean value of rows of which the features of `known` are those of `row`.
    fn expected(tree: &Tree, row: &[f64], known: u32, child: i32) -> f64 {
        let Ok(node) = usize::try_from(child) else { return tree.value[(-1 - child) as usize] };
        let feature = tree.feature[node];
        let [left, right] = [tree.left[node], tree.right[node]];
        if known >> feature & 1 == 1 {
            let child = if tree.goes_left(node, row[feature as usize]) { left } else { right };
            return expected(tree, row, known, child);
        }
        let share = tree.rows_of(left) as f64 / tree.n_rows[node] as f64;
        share * expected(tree, row, known, left) + (1.0 - share) * expected(tree, row, known, right)
    }

    /// By the definition: over all sets of the other features.
    fn shapley(tree: &Tree, row: &[f64], feature: u32) -> f64 {
        let d = row.len() as u32;
        let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
        let others = (0..1u32 << d).filter(|set| set >> feature & 1 == 0);
        others
            .map(|set| {
                let n = set.count_ones();
                let share = factorial(n) * factorial(d - n - 1) / factorial(d);
                share * (expected(tree, row, set | 1 << feature, 0) - expected(tree, row, set, 0))
            })
            .sum()
    }

    #[test]
    fn contributions_are_the_shapley_values_and_add_up_to_the_score() {
        let mut n_drawn = 0;
        let mut draw = || {
            n_drawn += 1;
            Draws::new(7, Stream::Synthetic).uniform(n_drawn, 0)
        };
        for case in 0..60 {
            let (d, n_leaves) = (2 + case % 5, 2 + case % 23);
            let trees: Vec<Tree> = (0..4).map(|_| random_tree(&mut draw, n_leaves, d)).collect();
            assert!(trees.iter().all(|tree| tree.check(d).is_ok()));
            let mut row: Vec<f64> = (0..d).map(|_| draw()).collect();
            if case % 3 == 0 {
                row[case % d] = f64::NAN;
            }
            let boosted = Boosted { n_features: d, start: vec![0.5, -1.0], trees };
            let mut found = vec![9.0; 2 * (d + 1)];
            boosted.contributions(&row, &mut found);
            let mut scores = [0.0; 2];
            boosted.scores(&row, &mut scores);
            for class in 0..2 {
                let found = &found[class * (d + 1)..][..d + 1];
                for feature in 0..d {
                    let trees = [&boosted.trees[class], &boosted.trees[class + 2]];
                    let right: f64 = trees.map(|tree| shapley(tree, &row, feature as u32)).iter().sum();
                    assert!((found[feature] - right).abs() < 1e-9, "{case}: {} for {right}", found[feature]);
                }
                assert!((found.iter().sum::<f64>() - scores[class]).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_tree_of_one_leaf_and_children_without_rows_are_no_trouble() {
        let leaf = Tree { value: vec![2.0], leaf_rows: vec![5], ..Tree::default() };
        let mut empty = random_tree(&mut || 0.5, 2, 1);
        (empty.leaf_rows, empty.n_rows) = (vec![10, 0], vec![10]);
        let boosted = Boosted { n_features: 1, start: vec![1.0], trees: vec![leaf, empty.clone()] };
        for value in [0.0, 1.0] {
            let (mut found, mut score) = ([0.0; 2], [0.0]);
            boosted.contributions(&[value], &mut found);
            boosted.scores(&[value], &mut score);
            assert!(found.iter().all(|x| x.is_finite()) && (found[0] + found[1] - score[0]).abs() < 1e-12);
        }
        assert_eq!((empty.depth(), Tree::default().depth()), (1, 0));
    }
}
