//! Binned rows as records: what is read of a row lies together, and a split moves whole records.
//!
//! A record is the bin numbers of a row, its gradient pair or two (high and low digits), and its number among the rows here. Records of
//! a leaf are side by side, in no order: whatever is done with them is a sum of integers, or goes by the row's number. Where they do
//! not fit into memory they are in a file, cut into pages that no record leaves: a leaf is then a run of records in each page, and what
//! is read and written is what a split moves.

use super::layout::{Layout, Word};
use super::leaf_of::LeafOfRows;
use super::pair::{Pair, Sums};
use super::{Child, Grown};
use crate::data::binned::FeatureBins;
use crate::data::scratch::Scratch;
use crate::error::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a rank, at most: their numbers and those of leaves have to fit.
pub const MOST_ROWS: usize = 1 << 31;

/// Records that one task reads.
const TASK_ROWS: usize = 1 << 14;
/// Rows whose pairs are asked for at once.
const ROWS: usize = 256;

/// A rank's rows, by place; places change as trees grow.
#[derive(Debug)]
pub struct Records {
    pub features: Vec<FeatureBins>,
    pub(super) layout: Layout,
    n_rows: usize,
    pub(super) held: Held,
}

/// Where records are.
#[derive(Debug)]
pub(super) enum Held {
    Memory(Vec<Word>),
    File { scratch: Scratch, page_rows: usize },
}

impl Records {
    /// Without rows, with room for `n_rows` in memory.
    pub fn with_room(features: Vec<FeatureBins>, n_rows: usize) -> Records {
        let layout = Layout::new(&features);
        let held = Held::Memory(Vec::with_capacity(n_rows * layout.n_words));
        Records { features, layout, n_rows: 0, held }
    }

    /// Without rows, which will be in a file, in pages of so many. A thread holds one page at a time.
    pub fn in_file(features: Vec<FeatureBins>, scratch: Scratch, page_rows: usize) -> Records {
        let layout = Layout::new(&features);
        Records { features, layout, n_rows: 0, held: Held::File { scratch, page_rows: page_rows.max(1) } }
    }

    /// Bytes of a record of these features.
    pub fn bytes_of_row(features: &[FeatureBins]) -> usize {
        Layout::new(features).n_words * size_of::<Word>()
    }

    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Records that were read from a file, and seconds of reading and writing, added over threads; None: they are in memory.
    pub fn file_costs(&self) -> Option<(u64, f64)> {
        let Held::File { scratch, .. } = &self.held else { return None };
        let (bytes, seconds) = scratch.costs();
        Some((bytes / (self.layout.n_words * size_of::<Word>()) as u64, seconds))
    }

    /// Nothing that is done with them can fail.
    pub(super) fn are_in_memory(&self) -> bool {
        matches!(self.held, Held::Memory(_))
    }

    /// Records that are read together, at most.
    pub(super) fn page_rows(&self) -> usize {
        match self.held {
            Held::Memory(_) => MOST_ROWS,
            Held::File { page_rows, .. } => page_rows,
        }
    }

    /// Runs of places that no record leaves.
    pub(super) fn pages(&self) -> Vec<Range<usize>> {
        pieces(std::slice::from_ref(&(0..self.n_rows)), self.page_rows()).collect()
    }

    /// Appends rows, by runs of so many. Rayon over runs.
    ///
    /// * `fill`: of run r, gets its number and a [`Run`] to put bin numbers in.
    pub fn append(&mut self, runs: &[usize], fill: impl Fn(usize, &mut Run<'_>) -> Result<()> + Sync) -> Result<()> {
        let n_words = self.layout.n_words;
        let n_new: usize = runs.iter().sum();
        let mut to_file = Vec::new();
        let words = match &mut self.held {
            Held::Memory(words) => words,
            Held::File { .. } => &mut to_file,
        };
        let start = words.len();
        words.resize(start + n_new * n_words, Word::default());
        let mut rest = &mut words[start..];
        let mut first_row = self.n_rows;
        let mut tasks = Vec::with_capacity(runs.len());
        for n_rows in runs {
            let (words, after) = rest.split_at_mut(n_rows * n_words);
            tasks.push((first_row, Run { layout: &self.layout, words }));
            first_row += n_rows;
            rest = after;
        }
        tasks.into_par_iter().enumerate().try_for_each(|(number, (first_row, mut run))| {
            for (row, record) in run.words.chunks_exact_mut(n_words).enumerate() {
                run.layout.put_row(record, (first_row + row) as u32);
            }
            fill(number, &mut run)
        })?;
        if let Held::File { scratch, .. } = &self.held {
            scratch.write((self.n_rows * n_words * size_of::<Word>()) as u64, to_file.as_flattened())?;
        }
        self.n_rows += n_new;
        Ok(())
    }

    /// Records at some runs of places, each within a page, one after the other; in memory there is one run at most.
    ///
    /// * `buffer`: for what is in a file.
    pub(super) fn read<'r>(&'r self, runs: &[Range<usize>], buffer: &'r mut Vec<Word>) -> Result<&'r [Word]> {
        let n_words = self.layout.n_words;
        match (&self.held, runs) {
            (_, []) => Ok(&[]),
            (Held::Memory(words), runs) => Ok(&words[runs[0].start * n_words..runs[0].end * n_words]),
            (Held::File { scratch, .. }, runs) => {
                let n = n_words * runs.iter().map(Range::len).sum::<usize>();
                buffer.resize(buffer.len().max(n), Word::default());
                let mut at = 0;
                for run in runs {
                    let end = at + run.len() * n_words;
                    scratch
                        .read((run.start * n_words * size_of::<Word>()) as u64, buffer[at..end].as_flattened_mut())?;
                    at = end;
                }
                Ok(&buffer[..n])
            }
        }
    }

    /// Calls `visit` with the number of each run of places and its records, which it may change. Runs are disjoint, and each is within
    /// a page. Rayon over runs.
    pub(super) fn change<T: Send>(
        &mut self,
        runs: &[Range<usize>],
        visit: impl Fn(usize, &mut [Word]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let n_words = self.layout.n_words;
        if let Held::Memory(words) = &mut self.held {
            let mut by_place: Vec<usize> = (0..runs.len()).collect();
            by_place.sort_by_key(|&run| (runs[run].start, runs[run].end));
            let mut slices = Slices { rest: words, at: 0, n_words };
            let mut tasks: Vec<(usize, &mut [Word])> =
                by_place.into_iter().map(|run| (run, slices.take(runs[run].clone()))).collect();
            tasks.sort_by_key(|(run, _)| *run);
            return Ok(tasks.into_par_iter().map(|(run, records)| visit(run, records)).collect());
        }
        let this = &*self;
        let of_run = |buffer: &mut Vec<Word>, (number, run): (usize, &Range<usize>)| {
            let n = this.read(std::slice::from_ref(run), buffer)?.len();
            let done = visit(number, &mut buffer[..n]);
            if let Held::File { scratch, .. } = &this.held {
                scratch.write((run.start * n_words * size_of::<Word>()) as u64, buffer[..n].as_flattened())?;
            }
            Ok(done)
        };
        runs.par_iter().enumerate().map_init(Vec::new, of_run).collect()
    }

    /// Calls `visit` with one page of rows after the other. Errors: pages that cannot be read.
    pub fn each_page(&self, mut visit: impl FnMut(&Page<'_>)) -> Result<()> {
        let mut buffer = Vec::new();
        for places in self.pages() {
            let records = self.read(std::slice::from_ref(&places), &mut buffer)?;
            visit(&Page { layout: &self.layout, first_row: places.start, records });
        }
        Ok(())
    }

    /// Sets the gradient pairs at some places. Returns their sums. Rayon over places.
    ///
    /// * `pairs_of`: writes those of some rows, by their numbers; the second of each is for low digits.
    pub(super) fn set_pairs(
        &mut self,
        places: &[Range<usize>],
        is_wide: bool,
        pairs_of: impl Fn(&[u32], &mut [[Pair; 2]]) + Sync,
    ) -> Result<Sums> {
        let layout = self.layout.clone();
        let tasks: Vec<Range<usize>> = pieces(places, TASK_ROWS).collect();
        let parts = self.change(&tasks, |_, records| {
            let (mut rows, mut pairs) = ([0; ROWS], [[Pair::default(); 2]; ROWS]);
            let mut sums = [Sums::default(); 2];
            for records in records.chunks_mut(ROWS * layout.n_words) {
                let n = records.len() / layout.n_words;
                for (row, record) in rows.iter_mut().zip(records.chunks_exact(layout.n_words)) {
                    *row = layout.row_of(record);
                }
                pairs_of(&rows[..n], &mut pairs[..n]);
                for (pairs, record) in pairs.iter().zip(records.chunks_exact_mut(layout.n_words)) {
                    layout.put_pairs(record, *pairs);
                    sums = [sums[0] + pairs[0].sums(), sums[1] + pairs[1].sums()];
                }
            }
            if is_wide { Sums::of_digits(sums[0], sums[1]) } else { sums[0] }
        });
        Ok(parts?.into_iter().fold(Sums::default(), |sums, part| sums + part))
    }

    /// The leaf of each row, by its number. Rayon over places.
    ///
    /// * `others`: places of rows that did not grow the tree, but follow it.
    pub(super) fn leaves_of_rows(&self, grown: &Grown, others: &[Range<usize>], leaf_of: &LeafOfRows) -> Result<()> {
        let n_words = self.layout.n_words;
        let of_leaf = |(leaf, places): (usize, _)| pieces(places, TASK_ROWS).map(move |places| (Some(leaf), places));
        let leaves = grown.leaves.iter().map(|places| &places[..]).enumerate().flat_map(of_leaf);
        let tasks: Vec<_> = leaves.chain(pieces(others, TASK_ROWS).map(|places| (None, places))).collect();
        tasks
            .into_par_iter()
            .map_init(Vec::new, |buffer, (leaf, places)| {
                for record in self.read(&[places], buffer)?.chunks_exact(n_words) {
                    let row = self.layout.row_of(record);
                    leaf_of.set(row, leaf.unwrap_or_else(|| self.leaf_by_bins(grown, record)), leaf.is_some());
                }
                Ok(())
            })
            .collect()
    }

    fn leaf_by_bins(&self, grown: &Grown, record: &[Word]) -> usize {
        let mut at = if grown.inner.is_empty() { Child::Leaf(0) } else { Child::Inner(0) };
        loop {
            match at {
                Child::Leaf(leaf) => return leaf,
                Child::Inner(node) => {
                    let inner = &grown.inner[node];
                    let bin = self.layout.places[inner.split.feature as usize].bin_in(record);
                    at = if inner.split.goes_left(bin) { inner.left } else { inner.right };
                }
            }
        }
    }
}

/// Runs of places in pieces of at most so many.
pub(super) fn pieces(runs: &[Range<usize>], n: usize) -> impl Iterator<Item = Range<usize>> {
    runs.iter().flat_map(move |run| run.clone().step_by(n).map(move |at| at..run.end.min(at + n)))
}

/// Some rows, next to each other, by place.
pub struct Page<'a> {
    layout: &'a Layout,
    /// The least of the rows' numbers.
    pub first_row: usize,
    records: &'a [Word],
}

impl Page<'_> {
    pub fn n_rows(&self) -> usize {
        self.records.len() / self.layout.n_words
    }

    /// By row, its place in the page.
    pub fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.n_rows()];
        for (place, record) in self.records.chunks_exact(self.layout.n_words).enumerate() {
            places[self.layout.row_of(record) as usize - self.first_row] = place as u32;
        }
        places
    }

    /// The bin of a feature at a place in the page.
    pub fn bin(&self, place: usize, feature: usize) -> u32 {
        let n_words = self.layout.n_words;
        self.layout.places[feature].bin_in(&self.records[place * n_words..(place + 1) * n_words])
    }
}

/// Rows that are being appended.
pub struct Run<'a> {
    layout: &'a Layout,
    words: &'a mut [Word],
}

impl Run<'_> {
    /// Puts the bin of a feature, once, in a row of the run.
    pub fn put(&mut self, row: usize, feature: usize, bin: usize) {
        let n_words = self.layout.n_words;
        self.layout.places[feature].put(&mut self.words[row * n_words..(row + 1) * n_words], bin);
    }
}

/// Parts of some records, handed out from the first on.
pub(super) struct Slices<'a> {
    pub(super) rest: &'a mut [Word],
    /// The place at which `rest` begins.
    pub(super) at: usize,
    pub(super) n_words: usize,
}

impl<'a> Slices<'a> {
    pub(super) fn take(&mut self, places: Range<usize>) -> &'a mut [Word] {
        let rest = std::mem::take(&mut self.rest);
        let (_, rest) = rest.split_at_mut((places.start - self.at) * self.n_words);
        let (taken, rest) = rest.split_at_mut(places.len() * self.n_words);
        (self.rest, self.at) = (rest, places.end);
        taken
    }
}
