//! A tree, or what is below one of its nodes, grown by one thread from rows that are all here.
//!
//! Many nodes have few rows: bins that have rows are remembered bit by bit, so that a node of ten rows looks at ten bins and not at all
//! of them. A node with few enough rows copies its bins feature by feature into memory next to each other, where the whole subtree
//! below finds them in the first cache.

use super::ForestConfig;
use super::draw::{NodeDraws, Shuffle, Way};
use super::problem::Problem;
use super::rows::{MOST_FOREST_BINS, Places};
use super::search::{Cut, Found, Mask, Search, bins_of, has};
use super::tree::Grown;
use crate::data::binned::FeatureBins;
use crate::functions::prefetch_at;
use crate::model::forest::Node;

/// From so many rows on, bins that have rows are looked for afterwards.
const MANY: usize = 256;
/// Rows of a node whose bins are copied, at most, and how many bytes they may be.
const COPIED_ROWS: usize = 1 << 13;
const COPIED_BYTES: usize = 1 << 19;
/// Copying does not pay where a node looks at so small a share of the features.
const MOST_SHARE: usize = 12;
/// Rows ahead whose bins are asked for.
const AHEAD: usize = 24;

/// A node whose subtree is to be grown.
pub(super) struct Root {
    pub(super) tree: u64,
    pub(super) way: Way,
    pub(super) depth: usize,
    /// Cell of its rows.
    pub(super) total: Vec<u64>,
}

/// What one thread grows with.
pub(super) struct Builder<'a, P: Problem> {
    problem: &'a P,
    config: &'a ForestConfig,
    features: &'a [FeatureBins],
    shuffle: Shuffle,
    /// Cells of the features that are looked at together; zeros between uses.
    cells: Vec<u64>,
    masks: Vec<Mask>,
    search: Search<'a, P>,
    /// Bins of copied rows, (features, rows).
    copied: Vec<u8>,
    moved: Vec<P::Item>,
}

/// A node that waits for its turn: where it is in the tree, its items, depth, way and cell.
struct Waiting {
    at: usize,
    items: std::ops::Range<usize>,
    depth: usize,
    way: Way,
    total: Vec<u64>,
}

impl<'a, P: Problem> Builder<'a, P> {
    pub(super) fn new(problem: &'a P, config: &'a ForestConfig, features: &'a [FeatureBins]) -> Builder<'a, P> {
        let n = config.max_features.min(features.len()).max(1);
        Builder {
            problem,
            config,
            features,
            shuffle: Shuffle::new(features.len()),
            cells: vec![0; n * MOST_FOREST_BINS * problem.width()],
            masks: vec![Mask::default(); n],
            search: Search::new(problem, config.min_rows),
            copied: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Grows what is below `root` to the end.
    ///
    /// * `items`: its rows, whose bins are at `places`; their order is not kept.
    pub(super) fn grow(&mut self, root: &Root, places: Places<'_>, items: &mut [P::Item]) -> Grown {
        let mut grown = Grown::default();
        grown.nodes.push(Node::default());
        let draws = NodeDraws::of_tree(self.config.seed, root.tree);
        let first =
            Waiting { at: 0, items: 0..items.len(), depth: root.depth, way: root.way, total: root.total.clone() };
        self.grow_from(first, draws, places, items, &mut grown);
        grown
    }

    /// Nodes are numbered as they are met: a node's children when it is split, then all that is below the left one.
    fn grow_from(
        &mut self,
        first: Waiting,
        draws: NodeDraws,
        places: Places<'_>,
        items: &mut [P::Item],
        grown: &mut Grown,
    ) {
        let mut waiting = vec![first];
        while let Some(node) = waiting.pop() {
            let of_node = &mut items[node.items.clone()];
            if let Places::ByRow { bins, stride } = places
                && self.pays_to_copy(of_node.len())
            {
                self.grow_copied(node, draws, (bins, stride), of_node, grown);
                continue;
            }
            let Some(found) = self.split_of(&node, draws, places, of_node) else {
                grown.set_leaf(node.at, self.problem, &node.total);
                continue;
            };
            let middle = node.items.start + self.part(&found, places, of_node);
            let right = node.total.iter().zip(&found.left).map(|(all, left)| all.wrapping_sub(*left)).collect();
            let child = grown.set_split(node.at, &found, &self.features[found.feature as usize]);
            let ways = draws.children(node.way);
            let (depth, items) = (node.depth + 1, node.items);
            waiting.push(Waiting { at: child + 1, items: middle..items.end, depth, way: ways[1], total: right });
            waiting.push(Waiting { at: child, items: items.start..middle, depth, way: ways[0], total: found.left });
        }
    }

    fn pays_to_copy(&self, n_rows: usize) -> bool {
        let d = self.features.len();
        n_rows <= COPIED_ROWS && n_rows * d <= COPIED_BYTES && d <= MOST_SHARE * self.config.max_features
    }

    /// The same from copied bins.
    fn grow_copied(
        &mut self,
        node: Waiting,
        draws: NodeDraws,
        (bins, stride): (&[u8], usize),
        items: &[P::Item],
        grown: &mut Grown,
    ) {
        let (mut copied, mut moved) = (std::mem::take(&mut self.copied), std::mem::take(&mut self.moved));
        let (n, d) = (items.len(), self.features.len());
        copied.resize((n * d).max(copied.len()), 0);
        moved.clear();
        for (row, item) in items.iter().enumerate() {
            if let Some(ahead) = items.get(row + AHEAD) {
                prefetch_at(bins, P::row(ahead) * stride);
            }
            let of_row = &bins[P::row(item) * stride..][..d];
            of_row.iter().enumerate().for_each(|(feature, bin)| copied[feature * n + row] = *bin);
            moved.push(P::moved(item, row as u32));
        }
        let of_copied = Places::ByFeature { bins: &copied[..n * d], n_rows: n };
        self.grow_from(Waiting { items: 0..n, ..node }, draws, of_copied, &mut moved, grown);
        (self.copied, self.moved) = (copied, moved);
    }

    /// The split of a node; None: it is a leaf.
    fn split_of(&mut self, node: &Waiting, draws: NodeDraws, places: Places<'_>, items: &[P::Item]) -> Option<Found> {
        let config = self.config;
        if config.is_leaf(self.problem, node.depth, &node.total) || self.problem.are_alike(items) {
            return None;
        }
        self.search.begin(&node.total);
        self.shuffle.restart();
        let random = config.is_extra.then_some((draws, node.way));
        // If the features that were drawn do not tell the rows apart, the next ones are looked at.
        loop {
            let mut drawn = std::mem::take(&mut self.shuffle);
            let features = drawn.next(draws, node.way, config.max_features);
            if features.is_empty() {
                self.shuffle = drawn;
                return None;
            }
            match places {
                Places::ByRow { bins, stride } => self.count_rows(features, bins, stride, items),
                Places::ByFeature { bins, n_rows } => self.count_columns(features, bins, n_rows, items),
            }
            let words = MOST_FOREST_BINS * self.problem.width();
            for ((number, cells), mask) in features.iter().zip(self.cells.chunks_exact_mut(words)).zip(&self.masks) {
                self.search.look(*number, &self.features[*number as usize], cells, mask, random);
                clear(self.problem, cells, mask);
            }
            self.shuffle = drawn;
            if let Some(found) = self.search.found() {
                return Some(found);
            }
        }
    }

    /// Fills cells and masks: all features of a row after the other.
    fn count_rows(&mut self, features: &[u32], bins: &[u8], stride: usize, items: &[P::Item]) {
        let (problem, width) = (self.problem, self.problem.width());
        let words = MOST_FOREST_BINS * width;
        for (at, item) in items.iter().enumerate() {
            if let Some(ahead) = items.get(at + AHEAD) {
                prefetch_at(bins, P::row(ahead) * stride);
            }
            let of_row = &bins[P::row(item) * stride..][..stride];
            let word = P::word(item);
            for (feature, cells) in features.iter().zip(self.cells.chunks_exact_mut(words)) {
                let bin = usize::from(of_row[*feature as usize]);
                problem.add_word(&mut cells[bin * width..(bin + 1) * width], word);
            }
        }
        for (cells, mask) in self.cells.chunks_exact(words).zip(&mut self.masks).take(features.len()) {
            *mask = mask_of(problem, cells);
        }
    }

    /// Fills cells and masks: one feature after the other.
    fn count_columns(&mut self, features: &[u32], bins: &[u8], n_rows: usize, items: &[P::Item]) {
        let (problem, width) = (self.problem, self.problem.width());
        let words = MOST_FOREST_BINS * width;
        let of_features = features.iter().zip(self.cells.chunks_exact_mut(words)).zip(&mut self.masks);
        for ((feature, cells), mask) in of_features {
            let column = &bins[*feature as usize * n_rows..][..n_rows];
            if items.len() < MANY {
                *mask = Mask::default();
                for item in items {
                    let bin = usize::from(column[P::row(item)]);
                    problem.add(&mut cells[bin * width..(bin + 1) * width], item);
                    mask[bin / 64] |= 1 << (bin % 64);
                }
            } else {
                for item in items {
                    let bin = usize::from(column[P::row(item)]);
                    problem.add(&mut cells[bin * width..(bin + 1) * width], item);
                }
                *mask = mask_of(problem, cells);
            }
        }
    }

    /// Puts the items that go left first. Returns how many.
    fn part(&self, found: &Found, places: Places<'_>, items: &mut [P::Item]) -> usize {
        let feature = found.feature as usize;
        let missing = self.features[feature].missing_bin();
        match places {
            Places::ByRow { bins, stride } => {
                found.cut.part(missing, items, |item| usize::from(bins[P::row(item) * stride + feature]))
            }
            Places::ByFeature { bins, n_rows } => {
                let column = &bins[feature * n_rows..][..n_rows];
                found.cut.part(missing, items, |item| usize::from(column[P::row(item)]))
            }
        }
    }
}

impl Cut {
    /// Puts the items whose bins go left first. Returns how many.
    pub(super) fn part<T: Copy>(&self, missing: Option<usize>, items: &mut [T], bin_of: impl Fn(&T) -> usize) -> usize {
        // A bin that nothing has.
        let missing = missing.unwrap_or(usize::MAX);
        match *self {
            Cut::UpTo { bin: last, missing_left: false } => part(items, |item| {
                let bin = bin_of(item);
                bin <= usize::from(last) && bin != missing
            }),
            Cut::UpTo { bin: last, missing_left: true } => part(items, |item| {
                let bin = bin_of(item);
                bin <= usize::from(last) || bin == missing
            }),
            Cut::OneOf(set) => part(items, |item| has(&set, bin_of(item))),
        }
    }
}

/// Items for which it holds come first, without a branch on it. Returns how many.
fn part<T: Copy>(items: &mut [T], goes_left: impl Fn(&T) -> bool) -> usize {
    // What is before `left` goes left, what is from there up to `at` goes right.
    let mut left = 0;
    for at in 0..items.len() {
        let goes_left = goes_left(&items[at]);
        items.swap(at, left);
        left += usize::from(goes_left);
    }
    left
}

/// Bins that have rows.
pub(super) fn mask_of<P: Problem>(problem: &P, cells: &[u64]) -> Mask {
    let mut mask = Mask::default();
    for (bin, cell) in cells.chunks_exact(problem.width()).enumerate() {
        mask[bin / 64] |= u64::from(problem.draws(cell) > 0) << (bin % 64);
    }
    mask
}

fn clear<P: Problem>(problem: &P, cells: &mut [u64], mask: &Mask) {
    let width = problem.width();
    bins_of(mask).for_each(|bin| cells[bin * width..(bin + 1) * width].fill(0));
}
