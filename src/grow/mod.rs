//! # grow — one tree from binned rows and gradient pairs
//!
//! In:    a [`BinnedTable`], a gradient pair of every row and a [`Communicator`].
//! Out:   a [`Grown`] tree whose leaves have no values yet, and which rows are in which leaf.
//! Talks: three times for some leaves together, only in `sync.rs`.
//! Never: files, flags, losses, shrinkage.
//!
//! Rows are partitioned, so every rank holds all features of its rows and moves them without asking anybody. Sums over rows are of
//! integers: whichever child's histogram is counted and whichever is the difference, however rows are cut, the bits are the same.

mod category;
mod columns;
mod histogram;
mod pair;
mod queue;
mod rows;
mod split;
mod sync;
#[cfg(test)]
mod tests;

pub use category::CategoryConfig;
pub use columns::ColumnSample;
pub use pair::{Pair, Sums, UNIT_BITS};
pub use rows::LeafRows;
pub use split::{Bounds, Split, leaf_value};

use crate::comm::Communicator;
use crate::config::Growth;
use crate::data::binned::{BinnedTable, deal_features};
use crate::error::Result;
use columns::{Columns, Way};
use histogram::Histograms;
use queue::Queue;
use split::{Leaf, Splitter};
use std::ops::Range;

/// How far a tree grows.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeConfig {
    pub growth: Growth,
    pub max_leaves: usize,
    /// Splits from the root to a leaf; None: any number.
    pub max_depth: Option<usize>,
    /// Rows of a leaf, at least. Where hessians differ between rows, taken to be spread over a leaf as its hessian is.
    pub min_rows: f64,
    pub min_hessian: f64,
    /// λ₁|value| and λ₂/2·value² of a leaf are added to the loss.
    pub l1: f64,
    pub l2: f64,
    /// A split that lowers the loss by no more is not made.
    pub min_gain: f64,
    pub columns: ColumnSample,
    pub categories: CategoryConfig,
    /// By feature: 1, values of leaves may not fall as it rises; −1, not rise; 0 or beyond the end: free.
    pub monotone: Vec<i8>,
    /// Features that may meet on a way from the root to a leaf, in groups; those of no group meet no other. Empty: all may.
    pub interactions: Vec<Vec<u32>>,
}

/// What a gradient and a hessian of 1 unit in a pair stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairScale {
    pub gradient: f64,
    pub hessian: f64,
}

/// A node of a grown tree that is not a leaf.
#[derive(Clone, Debug, PartialEq)]
pub struct Inner {
    pub split: Split,
    /// The number of the leaf that was split, which the left child keeps.
    pub leaf: usize,
    /// Of the children: an inner node, or a leaf.
    pub left: Child,
    pub right: Child,
    /// Rows over all ranks, of the children too.
    pub n_rows: [u64; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Inner(usize),
    Leaf(usize),
}

/// A tree as grown: inner nodes in the order in which they were split, and the rows of this rank in each leaf.
#[derive(Clone, Debug, Default)]
pub struct Grown {
    pub inner: Vec<Inner>,
    /// Ranges of the rows of [`LeafRows`], by leaf: the left child keeps the number of the leaf that was split, the right one has the next.
    pub leaves: Vec<Range<usize>>,
    /// Rows over all ranks, by leaf.
    pub leaf_rows: Vec<u64>,
    /// What the value of each leaf has to be between.
    pub bounds: Vec<Bounds>,
}

/// Leaves whose children are looked at together: some of it is in vain at the end of a tree, and the tree is the same for any number.
const BATCH: usize = 8;

/// Buffers that are kept from tree to tree.
pub struct Grower<'t> {
    table: &'t BinnedTable,
    config: TreeConfig,
    rows: LeafRows,
    histograms: Histograms,
    splitter: Splitter,
    /// Words of the largest set of bins.
    set_words: usize,
}

/// A leaf, or what was one: some are split ahead of their turn, in case it comes.
struct Node {
    rows: Range<usize>,
    /// Over all ranks.
    n_rows: u64,
    sums: Sums,
    depth: usize,
    bounds: Bounds,
    way: Way,
    /// Features of the splits above it, where it matters which.
    path: Vec<u32>,
    best: Option<Split>,
    /// Of the features that are this rank's; while it may be needed.
    histogram: Option<usize>,
    children: Option<[usize; 2]>,
}

impl<'t> Grower<'t> {
    /// For a table with these settings. Not collective; `comm` tells whose features are looked at here.
    pub fn new(comm: &Communicator, table: &'t BinnedTable, config: &TreeConfig) -> Grower<'t> {
        let offsets = table.offsets();
        let dealt = deal_features(&offsets, comm.size());
        let mine = dealt[comm.rank()].clone();
        Grower {
            table,
            config: config.clone(),
            rows: LeafRows::default(),
            splitter: Splitter::new(table, &offsets, mine, config),
            set_words: set_words(table),
            histograms: Histograms::new(offsets, &dealt, comm.rank()),
        }
    }

    /// Rows that took part, in the order that the leaves of the last tree have them.
    pub fn rows(&self) -> &LeafRows {
        &self.rows
    }

    /// Grows one tree. Collective.
    ///
    /// * `number`: of the tree, for its samples of features.
    /// * `taken`: rows here that take part.
    /// * `pairs`: of every row here.
    pub fn grow(
        &mut self,
        comm: &Communicator,
        number: u64,
        taken: &[u32],
        pairs: &[Pair],
        scale: PairScale,
    ) -> Result<Grown> {
        self.rows.reset(taken);
        self.histograms.reset();
        let config = self.config.clone();
        let columns = Columns::new(&config.columns, &config.interactions, self.table.n_features(), number);
        let mut nodes = vec![self.root(comm, pairs, scale, &columns)?];
        let mut queue = Queue::new(self.config.growth);
        queue.push(&nodes[0], 0, 0);
        let mut grown = Grown::default();
        // Where each leaf hangs: its node, and the inner node and side that lead to it.
        let mut leaves: Vec<(usize, Option<(usize, usize)>)> = vec![(0, None)];
        while leaves.len() < self.config.max_leaves {
            let Some((node, leaf)) = queue.first() else { break };
            if nodes[node].children.is_none() {
                let room = self.config.max_leaves - leaves.len();
                let batch = queue.first_unsplit(&nodes, BATCH.min(room));
                self.split_ahead(comm, pairs, scale, &columns, &mut nodes, &batch)?;
            }
            queue.pop();
            let (Some(split), Some(children)) = (nodes[node].best.clone(), nodes[node].children) else { break };
            let at = grown.inner.len();
            if let Some((parent, side)) = leaves[leaf].1 {
                grown.inner[parent].set_child(side, Child::Inner(at));
            }
            let right = leaves.len();
            let n_rows = [node, children[0], children[1]].map(|node| nodes[node].n_rows);
            grown.inner.push(Inner { split, leaf, left: Child::Leaf(leaf), right: Child::Leaf(right), n_rows });
            leaves[leaf] = (children[0], Some((at, 0)));
            leaves.push((children[1], Some((at, 1))));
            queue.push(&nodes[children[0]], children[0], leaf);
            queue.push(&nodes[children[1]], children[1], right);
        }
        for (node, _) in &leaves {
            if nodes[*node].children.is_some() {
                self.rows.rejoin(nodes[*node].rows.clone());
            }
            grown.leaves.push(nodes[*node].rows.clone());
        }
        grown.bounds = leaves.iter().map(|(node, _)| nodes[*node].bounds).collect();
        grown.leaf_rows = leaves.iter().map(|(node, _)| nodes[*node].n_rows).collect();
        Ok(grown)
    }

    /// A tree that is not split. Collective.
    pub fn one_leaf(&mut self, comm: &Communicator, taken: &[u32]) -> Result<Grown> {
        self.rows.reset(taken);
        let leaf_rows = sync::sum_counts(comm, &[taken.len() as u64])?;
        Ok(Grown {
            inner: Vec::new(),
            leaves: std::iter::once(0..taken.len()).collect(),
            leaf_rows,
            bounds: vec![Bounds::default()],
        })
    }

    /// All rows in one leaf. Collective.
    fn root(&mut self, comm: &Communicator, pairs: &[Pair], scale: PairScale, columns: &Columns<'_>) -> Result<Node> {
        let rows = 0..self.rows.len();
        let n_rows = sync::sum_counts(comm, &[rows.len() as u64])?[0];
        let histogram = self.histograms.take();
        self.histograms.count(self.table, pairs, &self.rows, &[(histogram, rows.clone())]);
        sync::sum_histograms(comm, &mut self.histograms, &[(histogram, n_rows)])?;
        let sums = sync::sum_sums(comm, self.rows.sums(pairs))?;
        let mut root = Node {
            rows,
            n_rows,
            sums,
            depth: 0,
            bounds: Bounds::default(),
            way: Way::ROOT,
            path: Vec::new(),
            best: None,
            histogram: Some(histogram),
            children: None,
        };
        let found = self.best_splits(comm, scale, columns, &[&root])?;
        root.best = found.into_iter().next().flatten();
        Ok(root)
    }

    /// Splits leaves and finds the best splits of their children: partition, count the smaller child, subtract, search. Collective.
    fn split_ahead(
        &mut self,
        comm: &Communicator,
        pairs: &[Pair],
        scale: PairScale,
        columns: &Columns<'_>,
        nodes: &mut Vec<Node>,
        batch: &[usize],
    ) -> Result<()> {
        let wanted: Vec<(Range<usize>, &Split)> = batch
            .iter()
            .filter_map(|&node| nodes[node].best.as_ref().map(|split| (nodes[node].rows.clone(), split)))
            .collect();
        let middles = self.rows.split(self.table, &wanted);
        let lefts: Vec<u64> = middles.iter().zip(&wanted).map(|(at, (rows, _))| (at - rows.start) as u64).collect();
        let lefts = sync::sum_counts(comm, &lefts)?;
        let mut to_count = Vec::new();
        let mut to_subtract = Vec::new();
        let first_child = nodes.len();
        for ((&node, middle), n_left) in batch.iter().zip(middles).zip(lefts) {
            let (at, children) = (self.histograms.take(), [nodes.len(), nodes.len() + 1]);
            let parent = &mut nodes[node];
            let Some(split) = parent.best.as_ref() else { continue };
            let bounds = Leaf::bounds_of_children(parent, split, &self.config, scale);
            let mut path = parent.path.clone();
            if !self.config.interactions.is_empty() && !path.contains(&split.feature) {
                path.push(split.feature);
            }
            let (depth, ways) = (parent.depth + 1, parent.way.children());
            let sums = [split.left, parent.sums - split.left];
            let n_rows = [n_left, parent.n_rows - n_left];
            let ranges = [parent.rows.start..middle, middle..parent.rows.end];
            // The one with fewer rows over all ranks is counted, the other is what is left.
            let smaller = usize::from(n_rows[1] < n_rows[0]);
            let of_parent = parent.histogram.take();
            let histograms = if smaller == 0 { [Some(at), of_parent] } else { [of_parent, Some(at)] };
            to_count.push((at, ranges[smaller].clone(), n_rows[smaller]));
            to_subtract.extend(of_parent.map(|parent| (parent, at)));
            parent.children = Some(children);
            for (((rows, histogram), (n_rows, sums)), (bounds, way)) in
                ranges.into_iter().zip(histograms).zip(n_rows.into_iter().zip(sums)).zip(bounds.into_iter().zip(ways))
            {
                let path = path.clone();
                nodes.push(Node {
                    rows,
                    n_rows,
                    sums,
                    depth,
                    bounds,
                    way,
                    path,
                    best: None,
                    histogram,
                    children: None,
                });
            }
        }
        let ranges: Vec<_> = to_count.iter().map(|(at, rows, _)| (*at, rows.clone())).collect();
        self.histograms.count(self.table, pairs, &self.rows, &ranges);
        let counts: Vec<_> = to_count.iter().map(|(at, _, n_rows)| (*at, *n_rows)).collect();
        sync::sum_histograms(comm, &mut self.histograms, &counts)?;
        self.histograms.subtract(&to_subtract);
        let children: Vec<&Node> = nodes[first_child..].iter().collect();
        let found = self.best_splits(comm, scale, columns, &children)?;
        for (child, best) in nodes[first_child..].iter_mut().zip(found) {
            child.best = best;
            if child.best.is_none() {
                self.histograms.give_back(child.histogram.take());
            }
        }
        Ok(())
    }

    /// The best split of each leaf over the features of all ranks. Collective.
    fn best_splits(
        &self,
        comm: &Communicator,
        scale: PairScale,
        columns: &Columns<'_>,
        nodes: &[&Node],
    ) -> Result<Vec<Option<Split>>> {
        let mine = self.splitter.best_of_mine(&self.config, scale, columns, &self.histograms, nodes);
        sync::best_of_all(comm, mine, self.set_words)
    }
}

fn set_words(table: &BinnedTable) -> usize {
    let of_categories = table.features.iter().filter(|feature| feature.categories.is_some());
    of_categories.map(|feature| feature.n_values().div_ceil(64)).max().unwrap_or(0)
}

impl Inner {
    fn set_child(&mut self, side: usize, child: Child) {
        match side {
            0 => self.left = child,
            _ => self.right = child,
        }
    }
}
