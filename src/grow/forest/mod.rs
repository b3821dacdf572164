//! # grow::forest — many trees at once, to the end
//!
//! In:    [`BinRows`], what their targets and weights are, and a [`Communicator`].
//! Out:   [`Grown`] trees, the same on every rank.
//! Talks: a few times per level for many nodes of many trees together, then once to bring rows together; only in `sync.rs`.
//! Never: names of files, flags, thresholds chosen by hand, votes.
//!
//! A node of many rows is counted by all ranks, each its own rows, and the sums of many nodes travel in one message (`top.rs`). A node
//! of few rows is given to one rank, to which the others send the rows that they have of it, and which grows all that is below
//! alone (`finish.rs`, `subtree.rs`). Where the one ends and the other begins changes no bit: sums are of integers, and what a node
//! draws at random hangs on its way from the root. Source: Breiman, *Random forests*, Machine Learning 2001; growing small nodes on
//! one machine: Panda et al., *PLANET*, VLDB 2009.

mod draw;
mod finish;
mod problem;
mod rows;
mod search;
mod subtree;
mod sync;
#[cfg(test)]
mod tests;
mod top;
mod tree;

pub use draw::{Bootstrap, MOST_DRAWS, TreeDraws};
pub use rows::{BinRows, MOST_FOREST_BINS};
pub use tree::Grown;

use crate::comm::Communicator;
use crate::error::Result;
use problem::{Binary, BinaryItem, ClassItem, Classes, NumberItem, Numbers, Problem};
use rayon::prelude::*;
use std::ops::Range;

/// How trees are grown.
#[derive(Clone, Debug)]
pub struct ForestConfig {
    pub seed: u64,
    /// Features that a node looks at; more where these do not tell its rows apart.
    pub max_features: usize,
    /// Rows of a leaf, at least, each as often as it was drawn.
    pub min_rows: u64,
    /// Splits from the root to a leaf; None: any number.
    pub max_depth: Option<usize>,
    /// Cuts are drawn at random, one for each feature that a node looks at.
    pub is_extra: bool,
    pub bootstrap: Bootstrap,
    /// Classes have the same weight in the rows of each tree.
    pub is_balanced: bool,
}

impl ForestConfig {
    fn is_leaf<P: Problem>(&self, problem: &P, depth: usize, total: &[u64]) -> bool {
        self.max_depth.is_some_and(|most| depth >= most)
            || problem.draws(total) < 2 * self.min_rows.max(1)
            || problem.is_pure(total)
    }
}

/// What trees are to predict, of the rows here.
pub enum Goal<'a> {
    Classes {
        n_classes: usize,
        is_entropy: bool,
        class: &'a [u16],
    },
    /// `zero + target·unit`, none beyond `range`. |target·weight| summed over all draws of all ranks stays below 2⁶³.
    Numbers {
        target: &'a [i64],
        zero: f64,
        unit: f64,
        range: [f64; 2],
    },
}

/// The rows that trees are grown from, here.
pub struct Rows<'a> {
    pub bins: &'a BinRows,
    pub goal: Goal<'a>,
    /// Whole numbers that add up to at most 2⁴⁸ over all ranks, for numbers 2²⁸; rows of 0 take no part. None: all are 1.
    pub weight: Option<&'a [u64]>,
    /// All weights of all ranks are 0 or 1.
    pub are_units: bool,
    /// Number of the first row in the table.
    pub first_row: u64,
    /// Of the whole table.
    pub n_all_rows: u64,
}

/// What the weights of a class come to in a tree whose classes are balanced.
const BALANCED_WEIGHT: f64 = (1u64 << 40) as f64;

/// Where the rows of a tree are.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All rows of all ranks.
    Global,
    /// Those of one lane, which one rank has: tree t is of lane t mod lanes.
    Local(Vec<Lane>),
}

/// Rows of one rank.
#[derive(Clone, Debug)]
pub struct Lane {
    pub rank: usize,
    /// Places in its [`Rows`]; on other ranks whatever.
    pub rows: Range<usize>,
}

impl Scope {
    fn lane_of(&self, tree: u64) -> Option<&Lane> {
        match self {
            Scope::Global => None,
            Scope::Local(lanes) => Some(&lanes[(tree % lanes.len() as u64) as usize]),
        }
    }
}

/// Bytes of rows that a rank takes from others at a time, where nobody limits memory.
pub const WAVE_BYTES: u64 = 64 << 20;

/// Grows some trees. Collective; the same trees on every rank. One that drew no row has no nodes.
///
/// * `room`: bytes of rows that a rank may take from others at a time.
pub fn grow(
    comm: &Communicator,
    rows: &Rows<'_>,
    config: &ForestConfig,
    scope: &Scope,
    trees: Range<u64>,
    room: u64,
) -> Result<Vec<Grown>> {
    let driver = Driver { rank: comm.rank(), rows, config, scope, room };
    match rows.goal {
        Goal::Classes { n_classes: 2, is_entropy: false, class }
            if rows.are_units && !config.is_balanced && rows.n_all_rows < 1 << 28 =>
        {
            let item = |row: usize, draws: u32| BinaryItem::new(row as u32, class[row], draws);
            driver.grow(comm, &Binary, trees, item)
        }
        Goal::Classes { n_classes, is_entropy, class } => {
            let problem = Classes { n_classes, is_entropy };
            let weight = |row: usize| rows.weight.map_or(1, |weight| weight[row]);
            match config.is_balanced {
                false => driver.grow(comm, &problem, trees, |row, draws| {
                    ClassItem::new(row as u32, class[row], weight(row) * u64::from(draws), draws as u16)
                }),
                true => driver.grow_balanced(comm, &problem, trees, class, weight),
            }
        }
        Goal::Numbers { target, zero, unit, range } => {
            driver.grow(comm, &Numbers { zero, unit, range }, trees, |row, draws| {
                let weight = rows.weight.map_or(1, |weight| weight[row]);
                NumberItem::new(row as u32, target[row], weight as u32 * draws, draws)
            })
        }
    }
}

/// Where the smallest node that all ranks count begins, in parts of what a thread grows: fewer parts mean idle threads at the end, more
/// of them messages.
const TASKS_OF_THREAD: u64 = 4;

struct Driver<'a> {
    rank: usize,
    rows: &'a Rows<'a>,
    config: &'a ForestConfig,
    scope: &'a Scope,
    room: u64,
}

impl Driver<'_> {
    /// * `item`: of a row, by its place, that was drawn so often.
    fn grow<P: Problem>(
        &self,
        comm: &Communicator,
        problem: &P,
        trees: Range<u64>,
        item: impl Fn(usize, u32) -> P::Item + Sync,
    ) -> Result<Vec<Grown>> {
        let items: Vec<Vec<P::Item>> = trees.clone().into_par_iter().map(|tree| self.items(tree, &item)).collect();
        self.grow_from(comm, problem, trees, items)
    }

    /// The weights of each class come to the same in a tree. Collective.
    fn grow_balanced(
        &self,
        comm: &Communicator,
        problem: &Classes,
        trees: Range<u64>,
        class: &[u16],
        weight: impl Fn(usize) -> u64 + Sync,
    ) -> Result<Vec<Grown>> {
        let k = problem.n_classes;
        let item = |row: usize, draws: u32| {
            ClassItem::new(row as u32, class[row], weight(row) * u64::from(draws), draws as u16)
        };
        let mut items: Vec<Vec<ClassItem>> =
            trees.clone().into_par_iter().map(|tree| self.items(tree, &item)).collect();
        let mut totals: Vec<u64> = items.par_iter().flat_map_iter(|items| total_of(problem, items)).collect();
        sync::sum(comm, &mut totals)?;
        for (items, total) in items.iter_mut().zip(totals.chunks_exact(k + 1)) {
            let of_class: Vec<f64> =
                total[..k].iter().map(|weight| BALANCED_WEIGHT / (*weight).max(1) as f64).collect();
            items.par_iter_mut().for_each(|item| item.multiply(&of_class));
        }
        self.grow_from(comm, problem, trees, items)
    }

    /// The rows here that a tree takes.
    fn items<T>(&self, tree: u64, item: &impl Fn(usize, u32) -> T) -> Vec<T> {
        let draws = self.config.bootstrap.of_tree(tree);
        let places = match self.scope.lane_of(tree) {
            None => 0..self.rows.bins.n_rows(),
            Some(lane) if lane.rank == self.rank => lane.rows.clone(),
            Some(_) => 0..0,
        };
        let mut items = Vec::new();
        for row in places {
            let takes_part = self.rows.weight.is_none_or(|weight| weight[row] > 0);
            let n = draws.of_row(self.rows.first_row + row as u64);
            if takes_part && n > 0 {
                items.push(item(row, n));
            }
        }
        items
    }

    fn grow_from<P: Problem>(
        &self,
        comm: &Communicator,
        problem: &P,
        trees: Range<u64>,
        items: Vec<Vec<P::Item>>,
    ) -> Result<Vec<Grown>> {
        let width = problem.width();
        let mut totals: Vec<u64> = items.par_iter().flat_map_iter(|items| total_of(problem, items)).collect();
        sync::sum(comm, &mut totals)?;
        let draws: u64 = totals.chunks_exact(width).map(|total| problem.draws(total)).sum();
        let limit = match self.scope {
            Scope::Global => self.limit::<P>(comm, trees.end - trees.start, draws)?,
            Scope::Local(_) => u64::MAX,
        };
        let mut top = top::Top::new(self, trees);
        let below = top.grow(comm, problem, items, &totals, limit)?;
        let grown = finish::grow(comm, self, problem, below)?;
        Ok(top.assemble(problem, grown))
    }

    /// Draws of the largest nodes that are given to one rank: there are enough of them for all threads, and enough that travel together.
    /// Collective.
    fn limit<P: Problem>(&self, comm: &Communicator, n_trees: u64, draws: u64) -> Result<u64> {
        let threads = rayon::current_num_threads() as u64;
        let n_tasks = TASKS_OF_THREAD * sync::sum_one(comm, threads)?;
        // Whole trees may be tasks enough.
        let limit = if n_trees < n_tasks { draws / n_tasks } else { u64::MAX };
        if comm.size() == 1 {
            return Ok(limit);
        }
        let row_bytes = (P::ITEM_BYTES + self.rows.bins.features.len()) as u64;
        Ok(limit.min(sync::least(comm, self.room / row_bytes / (2 * threads))?))
    }
}

fn total_of<P: Problem>(problem: &P, items: &[P::Item]) -> Vec<u64> {
    let mut total = vec![0; problem.width()];
    items.iter().for_each(|item| problem.add(&mut total, item));
    total
}
