//! Sums of gradient pairs by bin: counted over rows, or the difference of two.

use super::pair::{Pair, Sums, WORD_ROWS};
use super::rows::LeafRows;
use crate::data::binned::{BinnedTable, Codes};
use crate::functions::prefetch_at;
use rayon::prelude::*;
use std::ops::Range;

/// Rows ahead whose bin numbers and pairs are asked for: those of a leaf lie apart.
const AHEAD: usize = 12;
/// Fewer rows are not worth a task.
const LEAST_TASK_ROWS: usize = 1 << 11;
/// Tasks for each thread, so that they end at about the same time.
const TASKS_OF_THREAD: usize = 4;

/// Histograms of leaves. A histogram is the sums of all bins of some features, side by side.
pub(super) struct Histograms {
    /// Where the bins of each feature begin, and where the last ends.
    offsets: Vec<usize>,
    /// Bins of each rank.
    dealt: Vec<Range<usize>>,
    rank: usize,
    /// Of this rank's features, over all ranks' rows; by number.
    stored: Vec<Vec<Sums>>,
    free: Vec<usize>,
    /// Of all features, over this rank's rows: those counted last. Unused where there is one rank.
    counted: Vec<Vec<Sums>>,
    /// What tasks count in.
    words: Vec<Vec<u64>>,
}

impl Histograms {
    /// `dealt`: features of each rank.
    pub(super) fn new(offsets: Vec<usize>, dealt: &[Range<usize>], rank: usize) -> Histograms {
        let dealt = dealt.iter().map(|features| offsets[features.start]..offsets[features.end]).collect();
        let (stored, free, counted, words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Histograms { offsets, dealt, rank, stored, free, counted, words }
    }

    /// All numbers are free again.
    pub(super) fn reset(&mut self) {
        self.free = (0..self.stored.len()).rev().collect();
    }

    /// The number of a histogram that nobody uses.
    pub(super) fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.stored.push(vec![Sums::default(); self.dealt[self.rank].len()]);
            self.stored.len() - 1
        })
    }

    pub(super) fn give_back(&mut self, number: Option<usize>) {
        self.free.extend(number);
    }

    /// The bins of this rank's features.
    pub(super) fn of(&self, number: usize) -> &[Sums] {
        &self.stored[number]
    }

    pub(super) fn dealt(&self) -> &[Range<usize>] {
        &self.dealt
    }

    pub(super) fn of_mut(&mut self, number: usize) -> &mut [Sums] {
        &mut self.stored[number]
    }

    /// Of all features, over this rank's rows: the `at`th of those counted last.
    pub(super) fn counted(&self, at: usize) -> &[Sums] {
        &self.counted[at]
    }

    /// Counts leaves, given by histogram and rows. Not collective: with several ranks these have to be summed next. Rayon over runs
    /// of rows.
    pub(super) fn count(
        &mut self,
        table: &BinnedTable,
        pairs: &[Pair],
        rows: &LeafRows,
        leaves: &[(usize, Range<usize>)],
    ) {
        let n_bins = self.offsets[self.offsets.len() - 1];
        let tasks = tasks_of(leaves);
        let wave = 2 * TASKS_OF_THREAD * rayon::current_num_threads();
        let n_words = self.words.len().max(wave.min(tasks.len()));
        // A bin number of 8 bits then needs no look at how many bins its feature has.
        let is_narrow = matches!(table.codes, Codes::U8(_));
        let task_words = if is_narrow { NARROW * table.n_features() } else { n_bins };
        self.words.resize_with(n_words, || vec![0; task_words]);
        let is_solo = self.dealt.len() == 1;
        if !is_solo && self.counted.len() < leaves.len() {
            self.counted.resize_with(leaves.len(), || vec![Sums::default(); n_bins]);
        }
        let number = |leaf: usize| if is_solo { leaves[leaf].0 } else { leaf };
        let all = if is_solo { &mut self.stored } else { &mut self.counted };
        let mut sums: Vec<Vec<Sums>> = (0..leaves.len()).map(|leaf| std::mem::take(&mut all[number(leaf)])).collect();

        let (bins, offsets) = (&self.offsets, &self.offsets[..self.offsets.len() - 1]);
        for tasks in tasks.chunks(wave) {
            tasks.par_iter().zip(&mut self.words).for_each(|(task, words)| {
                words.fill(0);
                let rows = rows.of(task.rows.clone());
                match &table.codes {
                    Codes::U8(codes) => add_narrow_rows(codes, offsets.len(), rows, pairs, words),
                    Codes::U16(codes) => add_rows(codes, offsets, rows, pairs, words),
                }
            });
            let of_leaves: Vec<&[Task]> = tasks.chunk_by(|one, next| one.leaf == next.leaf).collect();
            let bounds = of_leaves.iter().scan(0, |end, tasks| {
                *end += tasks.len();
                Some(*end - tasks.len()..*end)
            });
            let words: Vec<&[Vec<u64>]> = bounds.map(|bounds| &self.words[bounds]).collect();
            let leaves = of_leaves[0][0].leaf..of_leaves[of_leaves.len() - 1][0].leaf + 1;
            sums[leaves].par_iter_mut().zip(of_leaves).zip(words).for_each(|((sums, tasks), words)| {
                if tasks[0].is_first {
                    sums.fill(Sums::default());
                }
                for words in words {
                    let add = |(sum, word): (&mut Sums, &u64)| *sum = *sum + Sums::of_word(*word);
                    match is_narrow {
                        true => bins.windows(2).zip(words.chunks_exact(NARROW)).for_each(|(bins, words)| {
                            sums[bins[0]..bins[1]].iter_mut().zip(words).for_each(add);
                        }),
                        false => sums.iter_mut().zip(words).for_each(add),
                    }
                }
            });
        }
        let all = if is_solo { &mut self.stored } else { &mut self.counted };
        sums.into_iter().enumerate().for_each(|(leaf, sums)| all[number(leaf)] = sums);
    }

    /// Of each (larger, smaller): the larger becomes their difference. Not collective. Rayon over histograms.
    pub(super) fn subtract(&mut self, pairs: &[(usize, usize)]) {
        let mut larger: Vec<Vec<Sums>> = pairs.iter().map(|(at, _)| std::mem::take(&mut self.stored[*at])).collect();
        let stored = &self.stored;
        larger.par_iter_mut().zip(pairs).for_each(|(larger, (_, smaller))| {
            larger.iter_mut().zip(&stored[*smaller]).for_each(|(larger, smaller)| *larger = *larger - *smaller);
        });
        larger.into_iter().zip(pairs).for_each(|(sums, (at, _))| self.stored[*at] = sums);
    }
}

/// Some rows of a leaf that are counted by one thread.
struct Task {
    leaf: usize,
    /// The first of its leaf.
    is_first: bool,
    rows: Range<usize>,
}

/// No task has more rows than a word takes. A leaf without rows has one too, so that its histogram is set to 0.
fn tasks_of(leaves: &[(usize, Range<usize>)]) -> Vec<Task> {
    let n_rows: usize = leaves.iter().map(|(_, rows)| rows.len()).sum();
    let task_rows = n_rows.div_ceil(TASKS_OF_THREAD * rayon::current_num_threads());
    let task_rows = task_rows.clamp(LEAST_TASK_ROWS, WORD_ROWS);
    let of_leaf = |(leaf, (_, rows)): (usize, &(usize, Range<usize>))| {
        let rows = rows.clone();
        let n_tasks = rows.len().div_ceil(task_rows).max(1);
        let bound = move |task: usize| rows.start + rows.len() * task / n_tasks;
        (0..n_tasks).map(move |task| Task { leaf, is_first: task == 0, rows: bound(task)..bound(task + 1) })
    };
    leaves.iter().enumerate().flat_map(of_leaf).collect()
}

/// Places of a feature whose bin numbers have 8 bits, in the words of a task.
const NARROW: usize = 256;

/// As [`add_rows`], with [`NARROW`] words for each feature.
fn add_narrow_rows(codes: &[u8], n_features: usize, rows: &[u32], pairs: &[Pair], words: &mut [u64]) {
    let (words, _) = words.as_chunks_mut::<NARROW>();
    for (at, &row) in rows.iter().enumerate() {
        if let Some(&next) = rows.get(at + AHEAD) {
            prefetch_at(codes, next as usize * n_features);
            prefetch_at(codes, (next as usize + 1) * n_features - 1);
            prefetch_at(pairs, next as usize);
        }
        let Pair(word) = pairs[row as usize];
        let first = row as usize * n_features;
        for (code, sums) in codes[first..first + n_features].iter().zip(words.iter_mut()) {
            let sum = &mut sums[usize::from(*code)];
            *sum = sum.wrapping_add(word);
        }
    }
}

/// Adds the pairs of rows to their bins; at most as many as a word takes.
fn add_rows<C: Copy + Into<usize>>(codes: &[C], offsets: &[usize], rows: &[u32], pairs: &[Pair], words: &mut [u64]) {
    let n_features = offsets.len();
    for (at, &row) in rows.iter().enumerate() {
        if let Some(&next) = rows.get(at + AHEAD) {
            prefetch_at(codes, next as usize * n_features);
            prefetch_at(codes, (next as usize + 1) * n_features - 1);
            prefetch_at(pairs, next as usize);
        }
        let Pair(word) = pairs[row as usize];
        let first = row as usize * n_features;
        for (code, offset) in codes[first..first + n_features].iter().zip(offsets) {
            let bin: usize = (*code).into();
            let sum = &mut words[offset + bin];
            *sum = sum.wrapping_add(word);
        }
    }
}
