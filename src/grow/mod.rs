//! # grow — one tree from binned rows and gradient pairs
//!
//! In:    [`Records`] of binned rows, a gradient pair of every row and a [`Communicator`].
//! Out:   a [`Grown`] tree whose leaves have no values yet, and which rows are in which leaf.
//! Talks: three times for some leaves together, only in `sync.rs`.
//! Never: names of files, flags, losses, shrinkage.
//!
//! Rows are partitioned, so every rank holds all features of its rows and moves them without asking anybody. Sums over rows are of
//! integers: whichever child's histogram is counted and whichever is the difference, however rows are cut, the bits are the same.

mod category;
mod columns;
mod count;
pub mod forest;
mod histogram;
mod layout;
mod leaf_of;
mod pair;
mod partition;
mod queue;
mod records;
mod search;
mod split;
mod sync;
#[cfg(test)]
mod tests;

pub use category::CategoryConfig;
pub use columns::ColumnSample;
pub use histogram::histogram_bytes;
pub use leaf_of::LeafOfRows;
pub use pair::{Pair, Sums, UNIT_BITS, WIDE_BITS};
pub use records::{MOST_ROWS, Page, Records, Run};
pub use split::{Bounds, Split, leaf_value};

use crate::comm::Communicator;
use crate::config::Growth;
use crate::data::binned::{FeatureBins, deal_features, offsets_of};
use crate::error::{Error, Result};
use columns::{Columns, Way};
use histogram::{Difference, Histograms, ToCount};
use queue::Queue;
use search::Splitter;
use split::Leaf;
use std::ops::Range;
use sync::Sent;

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
    /// Pairs have high and low digits: [`Pair::digits`].
    pub is_wide: bool,
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

/// A tree as grown: inner nodes in the order in which they were split, and the places of this rank's records in each leaf.
#[derive(Clone, Debug, Default)]
pub struct Grown {
    pub inner: Vec<Inner>,
    /// Places of [`Records`] in runs, by leaf: the left child keeps the number of the leaf that was split, the right one has the next.
    leaves: Vec<Vec<Range<usize>>>,
    /// Rows over all ranks, by leaf.
    pub leaf_rows: Vec<u64>,
    /// What the value of each leaf has to be between.
    pub bounds: Vec<Bounds>,
}

/// Leaves whose children are looked at together: some of it is in vain at the end of a tree, and the tree is the same for any number.
const BATCH: usize = 8;

/// Messages that the histograms of these leaves are sent in.
const PARTS: usize = 2;

/// A rank's records and what is kept from tree to tree.
pub struct Grower {
    config: TreeConfig,
    records: Records,
    /// Places of rows that take part, and of the others.
    taken: Vec<Range<usize>>,
    others: Vec<Range<usize>>,
    leaf_of: LeafOfRows,
    histograms: Histograms,
    splitter: Splitter,
    /// Words of the largest set of bins.
    set_words: usize,
}

/// A leaf, or what was one: some are split ahead of their turn, in case it comes.
struct Node {
    /// In runs that are not empty.
    places: Vec<Range<usize>>,
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

impl Grower {
    /// For records with these settings; all rows take part. Not collective; `comm` tells whose features are looked at here.
    pub fn new(comm: &Communicator, records: Records, config: &TreeConfig) -> Grower {
        let offsets = offsets_of(&records.features);
        let dealt = deal_features(&offsets, comm.size());
        let mine = dealt[comm.rank()].clone();
        Grower {
            config: config.clone(),
            taken: records.pages(),
            others: Vec::new(),
            leaf_of: LeafOfRows::with_rows(records.n_rows()),
            splitter: Splitter::new(&records.features, &offsets, mine, config),
            set_words: set_words(&records.features),
            histograms: Histograms::new(offsets, &dealt),
            records,
        }
    }

    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Calls `visit` with one page of rows after the other. Collective; pages are each rank's own.
    pub fn each_page(&self, comm: &Communicator, visit: impl FnMut(&Page<'_>)) -> Result<()> {
        let done = self.records.each_page(visit);
        self.agree(comm, done)
    }

    /// The leaf of each row in the tree that was grown last.
    pub fn leaf_of(&self) -> &LeafOfRows {
        &self.leaf_of
    }

    /// Which rows take part in growing the next trees, by their numbers. Collective.
    pub fn choose(&mut self, comm: &Communicator, is_taken: impl Fn(u32) -> bool + Sync) -> Result<()> {
        let middles = self.records.bring_forward(is_taken);
        let middles = self.agree(comm, middles)?;
        let parted = self.records.pages().into_iter().zip(middles);
        (self.taken, self.others) = parted.map(|(page, middle)| (page.start..middle, middle..page.end)).unzip();
        self.taken.retain(|run| !run.is_empty());
        Ok(())
    }

    /// What may have failed on some ranks where records are in files. Collective.
    fn agree<T>(&self, comm: &Communicator, done: Result<T>) -> Result<T> {
        if self.records.are_in_memory() { done } else { comm.agree(done) }
    }

    /// Grows one tree. Collective.
    ///
    /// * `number`: of the tree, for its samples of features.
    /// * `pairs_of`: writes the gradient pairs of some rows, by their numbers; the second of each is for low digits.
    pub fn grow(
        &mut self,
        comm: &Communicator,
        number: u64,
        scale: PairScale,
        pairs_of: impl Fn(&[u32], &mut [[Pair; 2]]) + Sync,
    ) -> Result<Grown> {
        let sums = self.records.set_pairs(&self.taken, scale.is_wide, pairs_of);
        let sums = self.agree(comm, sums)?;
        self.histograms.reset(scale.is_wide);
        let config = self.config.clone();
        let columns = Columns::new(&config.columns, &config.interactions, self.records.features.len(), number);
        let mut nodes = vec![self.root(comm, scale, &columns, sums)?];
        let mut queue = Queue::new(self.config.growth);
        queue.push(&nodes[0], 0, 0);
        let mut grown = Grown::default();
        // Where each leaf hangs: its node, and the inner node and side that lead to it.
        let mut leaves: Vec<(usize, Option<(usize, usize)>)> = vec![(0, None)];
        while leaves.len() < self.config.max_leaves {
            let Some((node, leaf)) = queue.first() else { break };
            if nodes[node].children.is_none() {
                let room = self.config.max_leaves - leaves.len();
                let batch = queue.first_unsplit(&nodes, BATCH, room.div_ceil(2));
                self.split_ahead(comm, scale, &columns, &mut nodes, &batch)?;
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
        grown.leaves = leaves.iter().map(|(node, _)| nodes[*node].places.clone()).collect();
        grown.bounds = leaves.iter().map(|(node, _)| nodes[*node].bounds).collect();
        grown.leaf_rows = leaves.iter().map(|(node, _)| nodes[*node].n_rows).collect();
        let done = self.records.leaves_of_rows(&grown, &self.others, &self.leaf_of);
        self.agree(comm, done)?;
        Ok(grown)
    }

    /// A tree that is not split. Collective.
    pub fn one_leaf(&mut self, comm: &Communicator) -> Result<Grown> {
        let grown = Grown {
            inner: Vec::new(),
            leaves: vec![self.taken.clone()],
            leaf_rows: sync::sum_counts(comm, &[rows_of(&self.taken)])?,
            bounds: vec![Bounds::default()],
        };
        let done = self.records.leaves_of_rows(&grown, &self.others, &self.leaf_of);
        self.agree(comm, done)?;
        Ok(grown)
    }

    /// All rows in one leaf. Collective.
    ///
    /// * `sums`: of the rows here.
    fn root(&mut self, comm: &Communicator, scale: PairScale, columns: &Columns<'_>, sums: Sums) -> Result<Node> {
        let places = self.taken.clone();
        let n_rows = sync::sum_counts(comm, &[rows_of(&places)])?[0];
        let number = self.histograms.take();
        let to_count = [ToCount { number, places: places.clone(), n_rows }];
        let sent = self.count(comm, &to_count, &mut None)?;
        sync::receive_histograms(&mut self.histograms, &to_count, comm.rank(), sent)?;
        let sums = sync::sum_sums(comm, sums)?;
        let mut root = Node {
            places,
            n_rows,
            sums,
            depth: 0,
            bounds: Bounds::default(),
            way: Way::ROOT,
            path: Vec::new(),
            best: None,
            histogram: Some(number),
            children: None,
        };
        let mine = self.splitter.best_of_mine(&self.config, scale, columns, &self.histograms, &[&root]);
        root.best = sync::best_of_all(comm, mine, self.set_words)?.into_iter().next().flatten();
        Ok(root)
    }

    /// Counts leaves here, and sends what was counted. Collective.
    ///
    /// * `before`: what was sent before, and moves on meanwhile.
    fn count<'c>(&mut self, comm: &'c Communicator, leaves: &[ToCount], before: &mut Sent<'_>) -> Result<Sent<'c>> {
        let progress = || before.as_mut().map_or(Ok(()), |sent| sent.progress());
        let counted = self.histograms.count(&self.records, leaves, progress);
        self.agree(comm, counted)?;
        sync::send_histograms(comm, &self.histograms, leaves)
    }

    /// Splits leaves and finds the best splits of their children: partition, count the smaller child, subtract, search. Collective.
    fn split_ahead(
        &mut self,
        comm: &Communicator,
        scale: PairScale,
        columns: &Columns<'_>,
        nodes: &mut Vec<Node>,
        batch: &[usize],
    ) -> Result<()> {
        let sides = self.part(comm, nodes, batch)?;
        let lefts: Vec<u64> = sides.iter().map(|sides| rows_of(&sides[0])).collect();
        let lefts = sync::sum_counts(comm, &lefts)?;
        let first_child = nodes.len();
        let (mut to_count, mut to_subtract) = (Vec::new(), Vec::new());
        for ((node, places), n_left) in batch.iter().zip(sides).zip(lefts) {
            let (smaller, difference) = self.add_children(scale, nodes, *node, places, n_left)?;
            to_count.push(smaller);
            to_subtract.push(difference);
        }
        // The sums of some leaves travel while the next ones are counted.
        let n_parts = if comm.size() > 1 { PARTS.min(to_count.len()) } else { 1 };
        let bound = |part: usize| to_count.len() * part / n_parts.max(1);
        let part = |part: usize| bound(part)..bound(part + 1);
        let mut found = Vec::new();
        let mut sent = self.count(comm, &to_count[part(0)], &mut None)?;
        for at in 0..n_parts {
            let is_last = at + 1 == n_parts;
            let next = if is_last { None } else { self.count(comm, &to_count[part(at + 1)], &mut sent)? };
            sync::receive_histograms(&mut self.histograms, &to_count[part(at)], comm.rank(), sent)?;
            self.histograms.subtract(&to_subtract[part(at)]);
            let children: Vec<&Node> = nodes[first_child..][2 * bound(at)..2 * bound(at + 1)].iter().collect();
            found.extend(self.splitter.best_of_mine(&self.config, scale, columns, &self.histograms, &children));
            sent = next;
        }
        let found = sync::best_of_all(comm, found, self.set_words)?;
        for (child, best) in nodes[first_child..].iter_mut().zip(found) {
            child.best = best;
            if child.best.is_none() {
                self.histograms.give_back(child.histogram.take());
            }
        }
        Ok(())
    }

    /// Parts the records of leaves by their splits. Returns the places of the left side and of the right one. Collective.
    fn part(&mut self, comm: &Communicator, nodes: &[Node], batch: &[usize]) -> Result<Vec<[Vec<Range<usize>>; 2]>> {
        let runs = batch.iter().flat_map(|&node| nodes[node].places.iter().zip(nodes[node].best.iter().cycle()));
        let runs: Vec<(Range<usize>, &Split)> = runs.map(|(run, split)| (run.clone(), split)).collect();
        let middles = self.records.split(&runs);
        let mut middles = self.agree(comm, middles)?.into_iter();
        let sides = |node: &usize| {
            let mut sides = [Vec::new(), Vec::new()];
            for (run, middle) in nodes[*node].places.iter().zip(middles.by_ref()) {
                for (side, run) in sides.iter_mut().zip([run.start..middle, middle..run.end]) {
                    side.extend((!run.is_empty()).then_some(run));
                }
            }
            sides
        };
        Ok(batch.iter().map(sides).collect())
    }

    /// Adds the two children of a node. Returns which histogram is to be counted, and which is then a difference. Not collective.
    ///
    /// * `places`: of the rows here that go left, and of those that go right.
    /// * `n_left`: rows that go left, over all ranks.
    fn add_children(
        &mut self,
        scale: PairScale,
        nodes: &mut Vec<Node>,
        node: usize,
        places: [Vec<Range<usize>>; 2],
        n_left: u64,
    ) -> Result<(ToCount, Difference)> {
        let children = [nodes.len(), nodes.len() + 1];
        let parent = &mut nodes[node];
        let (Some(split), Some(of_parent)) = (&parent.best, parent.histogram.take()) else {
            return Err(Error::internal("a leaf without a split was to be split"));
        };
        parent.children = Some(children);
        let bounds = Leaf::bounds_of_children(parent, split, &self.config, scale);
        let mut path = parent.path.clone();
        if !self.config.interactions.is_empty() && !path.contains(&split.feature) {
            path.push(split.feature);
        }
        let (depth, ways) = (parent.depth + 1, parent.way.children());
        let sums = [split.left, parent.sums - split.left];
        let n_rows = [n_left, parent.n_rows - n_left];
        // The one with fewer rows over all ranks is counted, the other is what is left.
        let smaller = usize::from(n_rows[1] < n_rows[0]);
        let number = self.histograms.take();
        let to_count = ToCount { number, places: places[smaller].clone(), n_rows: n_rows[smaller] };
        let difference = Difference { larger: of_parent, smaller: number, n_rows: n_rows[1 - smaller] };
        for (side, places) in places.into_iter().enumerate() {
            nodes.push(Node {
                places,
                n_rows: n_rows[side],
                sums: sums[side],
                depth,
                bounds: bounds[side],
                way: ways[side],
                path: path.clone(),
                best: None,
                histogram: Some(if side == smaller { number } else { of_parent }),
                children: None,
            });
        }
        Ok((to_count, difference))
    }
}

fn rows_of(places: &[Range<usize>]) -> u64 {
    places.iter().map(|run| run.len() as u64).sum()
}

fn set_words(features: &[FeatureBins]) -> usize {
    let of_categories = features.iter().filter(|feature| feature.categories.is_some());
    of_categories.map(|feature| feature.n_values().div_ceil(64)).max().unwrap_or(0)
}

impl Grown {
    pub fn n_leaves(&self) -> usize {
        self.leaves.len()
    }
}

impl Inner {
    fn set_child(&mut self, side: usize, child: Child) {
        match side {
            0 => self.left = child,
            _ => self.right = child,
        }
    }
}
