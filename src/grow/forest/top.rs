//! The nodes of many rows: level by level, all ranks count their rows of many nodes of many trees, and each decides on some of them.

use super::draw::{NodeDraws, Shuffle, Way};
use super::problem::Problem;
use super::search::{Found, Search};
use super::subtree::{Root, mask_of};
use super::tree::Grown;
use super::{Driver, sync};
use crate::comm::Communicator;
use crate::error::Result;
use crate::model::forest::Node;
use rayon::prelude::*;
use std::ops::Range;

/// Words of cells that are summed in one message, about, where nobody limits memory.
const MESSAGE_WORDS: usize = 1 << 22;
/// Parts of the room for rows that cells, their sum and this rank's share of it may take.
const PARTS_OF_ROOM: u64 = 32;
/// Rows that one task counts.
const TASK_ROWS: usize = 1 << 16;

/// What became of a node.
enum State {
    Open,
    /// Cell of its rows.
    Leaf(Vec<u64>),
    /// Left child, next to which is the right one.
    Split(Found, usize),
    /// Grown elsewhere: number among those.
    Below(usize),
}

/// A node whose rows are looked at by all ranks.
struct Open<T> {
    /// Places in the group of trees, and among the nodes.
    tree: usize,
    node: usize,
    depth: usize,
    way: Way,
    total: Vec<u64>,
    /// Features that were drawn in vain, in times of `max_features`.
    tried: usize,
    /// Those that it is their turn to be looked at.
    drawn: Vec<u32>,
    items: Vec<T>,
}

/// A node, and if it is split how, and the items of either side.
type Parted<T> = (Open<T>, Option<(Found, [Vec<T>; 2])>);

/// A node that is grown to the end by one rank, with what rows of it are here.
pub(super) struct Below<T> {
    pub(super) root: Root,
    /// Over all ranks, each as often as it was drawn.
    pub(super) draws: u64,
    pub(super) items: Vec<T>,
}

/// The upper nodes of some trees.
pub(super) struct Top<'a> {
    driver: &'a Driver<'a>,
    first_tree: u64,
    trees: Vec<Vec<State>>,
}

impl<'a> Top<'a> {
    pub(super) fn new(driver: &'a Driver<'a>, trees: Range<u64>) -> Top<'a> {
        let roots = trees.clone().map(|_| vec![State::Open]).collect();
        Top { driver, first_tree: trees.start, trees: roots }
    }

    /// Grows until no node has more draws than `limit`. Returns the nodes that are left to grow. Collective.
    ///
    /// * `items`: of each tree, the rows here.
    /// * `totals`: cells of the trees' rows.
    pub(super) fn grow<P: Problem>(
        &mut self,
        comm: &Communicator,
        problem: &P,
        items: Vec<Vec<P::Item>>,
        totals: &[u64],
        limit: u64,
    ) -> Result<Vec<Below<P::Item>>> {
        let mut open: Vec<Open<P::Item>> = Vec::new();
        let mut below = Vec::new();
        for (tree, (items, total)) in items.into_iter().zip(totals.chunks_exact(problem.width())).enumerate() {
            let root = Open {
                tree,
                node: 0,
                depth: 0,
                way: NodeDraws::ROOT,
                total: total.to_vec(),
                tried: 0,
                drawn: Vec::new(),
                items,
            };
            self.place(problem, root, limit, &mut open, &mut below);
        }
        let most_words = MESSAGE_WORDS.min((sync::least(comm, self.driver.room)? / PARTS_OF_ROOM / 8) as usize);
        while !open.is_empty() {
            open.par_iter_mut().for_each_init(
                || Shuffle::new(self.driver.rows.bins.features.len()),
                |shuffle, node| node.drawn = self.features_of(shuffle, node),
            );
            let mut next = Vec::new();
            let mut rest = open.into_iter().peekable();
            while rest.peek().is_some() {
                let mut words = 0;
                let mut some = Vec::new();
                while let Some(node) = rest.next_if(|_| words < most_words || some.is_empty()) {
                    words += self.words_of(problem, &node);
                    some.push(node);
                }
                let found = self.find(comm, problem, &some)?;
                let parted: Vec<_> =
                    some.into_par_iter().zip(found).map(|(node, found)| self.part::<P>(node, found)).collect();
                for (node, split) in parted {
                    match split {
                        None => self.again(node, &mut next),
                        Some((found, sides)) => {
                            let children = self.split(problem, node, found, sides);
                            children
                                .into_iter()
                                .for_each(|child| self.place(problem, child, limit, &mut next, &mut below));
                        }
                    }
                }
            }
            open = next;
        }
        Ok(below)
    }

    /// Where a new node belongs.
    fn place<P: Problem>(
        &mut self,
        problem: &P,
        node: Open<P::Item>,
        limit: u64,
        open: &mut Vec<Open<P::Item>>,
        below: &mut Vec<Below<P::Item>>,
    ) {
        let draws = problem.draws(&node.total);
        if draws == 0 {
            self.trees[node.tree].clear();
            return;
        }
        let state = &mut self.trees[node.tree][node.node];
        if self.driver.config.is_leaf(problem, node.depth, &node.total) {
            *state = State::Leaf(node.total);
        } else if draws <= limit {
            *state = State::Below(below.len());
            let tree = self.first_tree + node.tree as u64;
            let root = Root { tree, way: node.way, depth: node.depth, total: node.total };
            below.push(Below { root, draws, items: node.items });
        } else {
            open.push(node);
        }
    }

    /// A node whose features did not tell its rows apart: the next ones, or none are left.
    fn again<T>(&mut self, mut node: Open<T>, next: &mut Vec<Open<T>>) {
        node.tried += 1;
        if node.tried * self.driver.config.max_features < self.driver.rows.bins.features.len() {
            next.push(node);
        } else {
            self.trees[node.tree][node.node] = State::Leaf(node.total);
        }
    }

    fn split<P: Problem>(
        &mut self,
        problem: &P,
        node: Open<P::Item>,
        found: Found,
        sides: [Vec<P::Item>; 2],
    ) -> [Open<P::Item>; 2] {
        let nodes = &mut self.trees[node.tree];
        let child = nodes.len();
        nodes.extend([State::Open, State::Open]);
        let mut right = vec![0; problem.width()];
        for ((right, all), left) in right.iter_mut().zip(&node.total).zip(&found.left) {
            *right = all.wrapping_sub(*left);
        }
        let totals = [found.left.clone(), right];
        nodes[node.node] = State::Split(found, child);
        let draws = NodeDraws::of_tree(self.driver.config.seed, self.first_tree + node.tree as u64);
        let mut made = totals.into_iter().zip(draws.children(node.way)).zip(sides).enumerate().map(
            |(side, ((total, way), items))| Open {
                tree: node.tree,
                node: child + side,
                depth: node.depth + 1,
                way,
                total,
                tried: 0,
                drawn: Vec::new(),
                items,
            },
        );
        [made.next(), made.next()].map(|child| child.expect("two sides"))
    }

    /// The items of both sides, if the node is split.
    fn part<P: Problem>(&self, mut node: Open<P::Item>, found: Option<Found>) -> Parted<P::Item> {
        let Some(found) = found else { return (node, None) };
        let bins = self.driver.rows.bins;
        let missing = bins.features[found.feature as usize].missing_bin();
        let mut items = std::mem::take(&mut node.items);
        let bin_of = |item: &P::Item| bins.bin(P::row(item), found.feature);
        let middle = found.cut.part(missing, &mut items, bin_of);
        let right = items.split_off(middle);
        items.shrink_to_fit();
        (node, Some((found, [items, right])))
    }

    fn features_of<T>(&self, shuffle: &mut Shuffle, node: &Open<T>) -> Vec<u32> {
        let config = self.driver.config;
        let draws = NodeDraws::of_tree(config.seed, self.first_tree + node.tree as u64);
        shuffle.restart();
        shuffle.next(draws, node.way, node.tried * config.max_features);
        shuffle.next(draws, node.way, config.max_features).to_vec()
    }

    /// Words of the cells of the features that a node looks at next.
    fn words_of<P: Problem>(&self, problem: &P, node: &Open<P::Item>) -> usize {
        let features = &self.driver.rows.bins.features;
        node.drawn.iter().map(|feature| features[*feature as usize].n_bins() * problem.width()).sum()
    }

    /// The best splits of some nodes by the features that it is their turn to look at. Collective.
    fn find<P: Problem>(
        &self,
        comm: &Communicator,
        problem: &P,
        nodes: &[Open<P::Item>],
    ) -> Result<Vec<Option<Found>>> {
        let (config, bins) = (self.driver.config, self.driver.rows.bins);
        let sizes: Vec<usize> = nodes.iter().map(|node| self.words_of(problem, node)).collect();
        let mut cells = vec![0; sizes.iter().sum()];
        let mut rest = &mut cells[..];
        let mut tasks = Vec::with_capacity(nodes.len());
        for (node, size) in nodes.iter().zip(&sizes) {
            let (of_node, after) = rest.split_at_mut(*size);
            tasks.push((node, of_node));
            rest = after;
        }
        tasks.into_par_iter().for_each(|(node, cells)| self.count(problem, node, cells));
        let dealt = deal(&sizes, comm.size());
        let words_of: Vec<usize> = dealt.iter().map(|nodes| sizes[nodes.clone()].iter().sum()).collect();
        let mine = sync::share_cells(comm, cells, &words_of)?;
        let my_nodes = dealt[comm.rank()].clone();
        let mut rest = &mine[..];
        let tasks: Vec<_> = my_nodes
            .map(|node| {
                let (cells, after) = rest.split_at(sizes[node]);
                rest = after;
                (&nodes[node], cells)
            })
            .collect();
        let search = |(node, mut cells): (&Open<P::Item>, &[u64])| {
            let draws = NodeDraws::of_tree(config.seed, self.first_tree + node.tree as u64);
            let random = config.is_extra.then_some((draws, node.way));
            let mut search = Search::new(problem, config.min_rows);
            search.begin(&node.total);
            for number in &node.drawn {
                let feature = &bins.features[*number as usize];
                let (of_feature, after) = cells.split_at(feature.n_bins() * problem.width());
                search.look(*number, feature, of_feature, &mask_of(problem, of_feature), random);
                cells = after;
            }
            search.found()
        };
        sync::share_found(comm, tasks.into_par_iter().map(search).collect())
    }

    /// Adds the rows here to the cells of the features that a node looks at. Rayon over rows.
    fn count<P: Problem>(&self, problem: &P, node: &Open<P::Item>, cells: &mut [u64]) {
        let (bins, width) = (self.driver.rows.bins, problem.width());
        let add = |cells: &mut [u64], items: &[P::Item]| {
            for item in items {
                let row = bins.row(P::row(item));
                let (word, mut first) = (P::word(item), 0);
                for feature in &node.drawn {
                    let at = first + usize::from(row[*feature as usize]) * width;
                    problem.add_word(&mut cells[at..at + width], word);
                    first += bins.features[*feature as usize].n_bins() * width;
                }
            }
        };
        let task_rows = TASK_ROWS.max(node.items.len() / (2 * rayon::current_num_threads()));
        if node.items.len() <= task_rows {
            return add(cells, &node.items);
        }
        let of_task = |items: &[P::Item]| {
            let mut cells = vec![0; cells.len()];
            add(&mut cells, items);
            cells
        };
        let counted: Vec<Vec<u64>> = node.items.par_chunks(task_rows).map(of_task).collect();
        for of_task in counted {
            cells.iter_mut().zip(of_task).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
        }
    }

    /// The trees, with what was grown below their upper nodes.
    pub(super) fn assemble<P: Problem>(self, problem: &P, mut grown: Vec<Grown>) -> Vec<Grown> {
        let features = &self.driver.rows.bins.features;
        let of_tree = |states: &Vec<State>| {
            match states[..] {
                [] => return Ok(Grown::default()),
                [State::Below(number)] => return Err(number),
                _ => {}
            }
            let mut tree = Grown { nodes: vec![Node::default()], ..Grown::default() };
            let mut waiting = vec![(0, 0)];
            while let Some((node, at)) = waiting.pop() {
                match &states[node] {
                    State::Leaf(total) => tree.set_leaf(at, problem, total),
                    State::Below(number) => tree.graft(at, &grown[*number]),
                    State::Split(found, child) => {
                        let place = tree.set_split(at, found, &features[found.feature as usize]);
                        waiting.extend([(child + 1, place + 1), (*child, place)]);
                    }
                    State::Open => unreachable!("all nodes were grown"),
                }
            }
            Ok(tree)
        };
        let trees: Vec<_> = self.trees.par_iter().map(of_tree).collect();
        trees.into_iter().map(|tree| tree.unwrap_or_else(|number| std::mem::take(&mut grown[number]))).collect()
    }
}

/// Nodes of each of `size` ranks: runs of about as many words.
fn deal(sizes: &[usize], size: usize) -> Vec<Range<usize>> {
    let all: usize = sizes.iter().sum();
    let begins: Vec<usize> = sizes
        .iter()
        .scan(0, |before, words| {
            *before += words;
            Some(*before - words)
        })
        .collect();
    let bound = |rank: usize| match rank == size {
        true => sizes.len(),
        false => begins.partition_point(|first| first * size < rank * all),
    };
    (0..size).map(|rank| bound(rank)..bound(rank + 1)).collect()
}
