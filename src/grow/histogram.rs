//! Sums of gradient pairs by bin: counted over rows, or the difference of two.

use super::BATCH;
use super::count::{Counter, add_to};
use super::pair::{Sums, WORD_ROWS};
use super::records::Records;
use crate::data::binned::FeatureBins;
use crate::error::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Fewer rows are not worth a task.
const LEAST_TASK_ROWS: usize = 1 << 11;
/// Tasks for each thread, so that they end at about the same time.
const TASKS_OF_THREAD: usize = 4;

/// The sums of all bins of some features, side by side: of few rows a bin is one word, else two (`EXACT` 2a).
#[derive(Clone, Debug, Default)]
pub(super) struct Bins {
    /// Words of a bin: 1, a sum of [`Pair`](super::Pair) words; 2, Σ gradient and Σ hessian.
    pub(super) width: usize,
    pub(super) words: Vec<u64>,
}

impl Bins {
    /// So many bins, all of them 0.
    fn clear(&mut self, n_bins: usize, width: usize) {
        self.width = width;
        self.words.clear();
        self.words.resize(n_bins * self.width, 0);
    }

    pub(super) fn part(&self, bins: Range<usize>) -> BinsPart<'_> {
        BinsPart { width: self.width, words: &self.words[bins.start * self.width..bins.end * self.width] }
    }

    /// Becomes the difference, with so many words a bin.
    fn subtract(&mut self, smaller: &Bins, width: usize) {
        match (self.width, smaller.width) {
            (1, 1) => {
                self.words.iter_mut().zip(&smaller.words).for_each(|(word, other)| *word = word.wrapping_sub(*other))
            }
            (_, 2) => {
                self.words.iter_mut().zip(&smaller.words).for_each(|(word, other)| *word = word.wrapping_sub(*other))
            }
            _ => self.words.chunks_exact_mut(2).zip(&smaller.words).for_each(|(words, other)| {
                let other = Sums::of_word(*other);
                words[0] = words[0].wrapping_sub(other.gradient as u64);
                words[1] = words[1].wrapping_sub(other.hessian as u64);
            }),
        }
        if self.width == 2 && width == 1 {
            for bin in 0..self.words.len() / 2 {
                self.words[bin] = self.part(bin..bin + 1).get(0).to_word();
            }
            self.words.truncate(self.words.len() / 2);
            self.width = 1;
        }
    }
}

/// Bins of a feature.
#[derive(Clone, Copy)]
pub(super) struct BinsPart<'a> {
    pub(super) width: usize,
    pub(super) words: &'a [u64],
}

impl BinsPart<'_> {
    pub(super) fn len(&self) -> usize {
        self.words.len() / self.width
    }

    #[inline]
    pub(super) fn get(&self, bin: usize) -> Sums {
        match self.width {
            1 => Sums::of_word(self.words[bin]),
            _ => Sums { gradient: self.words[2 * bin] as i64, hessian: self.words[2 * bin + 1] as i64 },
        }
    }
}

/// A leaf whose rows are counted.
pub(super) struct ToCount {
    /// The number of its histogram.
    pub(super) number: usize,
    /// Places here, in runs within pages.
    pub(super) places: Vec<Range<usize>>,
    /// Over all ranks.
    pub(super) n_rows: u64,
}

/// Two histograms of which the first becomes the difference.
pub(super) struct Difference {
    pub(super) larger: usize,
    pub(super) smaller: usize,
    /// Of the difference, over all ranks.
    pub(super) n_rows: u64,
}

/// Histograms of leaves.
pub(super) struct Histograms {
    /// Where the bins of each feature begin, and where the last ends.
    offsets: Vec<usize>,
    /// Bins of each rank.
    dealt: Vec<Range<usize>>,
    /// Of this rank's features, over all ranks' rows; by number.
    stored: Vec<Bins>,
    free: Vec<usize>,
    /// Of all features, over this rank's rows: those counted last. Unused where there is one rank.
    counted: Vec<Bins>,
    /// What tasks count in.
    counters: Vec<Counter>,
    /// Pairs have two digits.
    is_wide: bool,
}

impl Histograms {
    /// `dealt`: features of each rank.
    pub(super) fn new(offsets: Vec<usize>, dealt: &[Range<usize>]) -> Histograms {
        let dealt = dealt.iter().map(|features| offsets[features.start]..offsets[features.end]).collect();
        let (stored, free, counted, counters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Histograms { offsets, dealt, stored, free, counted, counters, is_wide: false }
    }

    /// All numbers are free again, for pairs of one digit or of two.
    pub(super) fn reset(&mut self, is_wide: bool) {
        self.is_wide = is_wide;
        self.free = (0..self.stored.len()).rev().collect();
    }

    /// Words of a bin for so many rows over all ranks.
    pub(super) fn width_of(&self, n_rows: u64) -> usize {
        if !self.is_wide && n_rows <= WORD_ROWS as u64 { 1 } else { 2 }
    }

    /// The number of a histogram that nobody uses.
    pub(super) fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.stored.push(Bins::default());
            self.stored.len() - 1
        })
    }

    pub(super) fn give_back(&mut self, number: Option<usize>) {
        self.free.extend(number);
    }

    /// The bins of this rank's features.
    pub(super) fn of(&self, number: usize) -> &Bins {
        &self.stored[number]
    }

    pub(super) fn dealt(&self) -> &[Range<usize>] {
        &self.dealt
    }

    /// Of all features, over this rank's rows: the `at`th of those counted last.
    pub(super) fn counted(&self, at: usize) -> &Bins {
        &self.counted[at]
    }

    /// Sets the sums of this rank's features over all ranks' rows, as words.
    pub(super) fn store(&mut self, number: usize, width: usize, words: &[u64]) {
        let bins = &mut self.stored[number];
        bins.width = width;
        bins.words.clear();
        bins.words.extend_from_slice(words);
    }

    /// Counts leaves. Not collective: with several ranks these have to be summed next. Rayon over runs of rows.
    ///
    /// * `meanwhile`: is called now and then.
    pub(super) fn count(
        &mut self,
        records: &Records,
        leaves: &[ToCount],
        mut meanwhile: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let n_bins = self.offsets[self.offsets.len() - 1];
        let tasks = tasks_of(leaves, records.page_rows());
        let wave = 2 * TASKS_OF_THREAD * rayon::current_num_threads();
        let n_counters = self.counters.len().max(wave.min(tasks.len()));
        self.counters.resize_with(n_counters, || Counter::new(&records.layout));
        let is_solo = self.dealt.len() == 1;
        if !is_solo && self.counted.len() < leaves.len() {
            self.counted.resize_with(leaves.len(), Bins::default);
        }
        let number = |leaf: usize| if is_solo { leaves[leaf].number } else { leaf };
        let all = if is_solo { &mut self.stored } else { &mut self.counted };
        let mut sums: Vec<Bins> = (0..leaves.len()).map(|leaf| std::mem::take(&mut all[number(leaf)])).collect();
        sums.iter_mut().zip(leaves).for_each(|(bins, leaf)| bins.clear(n_bins, self.width_of(leaf.n_rows)));

        let (offsets, layout) = (&self.offsets, &records.layout);
        let n_digits = if self.is_wide { 2 } else { 1 };
        for (tasks, digit) in tasks.chunks(wave).flat_map(|tasks| (0..n_digits).map(move |digit| (tasks, digit))) {
            let counted = tasks.par_iter().zip(&mut self.counters).map_init(Vec::new, |buffer, (task, counter)| {
                counter.count(layout, digit, records.read(&task.places, buffer)?);
                Ok(())
            });
            counted.collect::<Result<()>>()?;
            meanwhile()?;
            let mut rest = &self.counters[..];
            let mut of_leaves = Vec::new();
            for tasks in tasks.chunk_by(|one, next| one.leaf == next.leaf) {
                let (counters, after) = rest.split_at(tasks.len());
                of_leaves.push(counters);
                rest = after;
            }
            let leaves = tasks[0].leaf..tasks[tasks.len() - 1].leaf + 1;
            let is_high = digit + 1 < n_digits;
            sums[leaves].par_iter_mut().zip(of_leaves).for_each(|(bins, counters)| {
                counters.iter().for_each(|counter| add_to(bins, counter, layout, offsets, is_high));
            });
        }
        let all = if is_solo { &mut self.stored } else { &mut self.counted };
        sums.into_iter().enumerate().for_each(|(leaf, sums)| all[number(leaf)] = sums);
        Ok(())
    }

    /// The larger ones become differences. Not collective. Rayon over histograms.
    pub(super) fn subtract(&mut self, pairs: &[Difference]) {
        let mut larger: Vec<Bins> = pairs.iter().map(|pair| std::mem::take(&mut self.stored[pair.larger])).collect();
        let this = &*self;
        larger.par_iter_mut().zip(pairs).for_each(|(larger, pair)| {
            larger.subtract(&this.stored[pair.smaller], this.width_of(pair.n_rows));
        });
        larger.into_iter().zip(pairs).for_each(|(bins, pair)| self.stored[pair.larger] = bins);
    }
}

/// Bytes of the histograms of a tree of so many leaves, at most.
///
/// * `n_mine`: bins of the features that are a rank's own.
pub fn histogram_bytes(features: &[FeatureBins], n_mine: u64, max_leaves: u64, n_ranks: usize) -> u64 {
    let n_bins: u64 = features.iter().map(|feature| feature.n_bins() as u64).sum();
    let of_counters = (Counter::BYTES * features.len() as u64).max(8 * n_bins);
    let n_counters = (2 * TASKS_OF_THREAD * rayon::current_num_threads()) as u64;
    // Of those that are counted, what is sent and what comes back from all ranks.
    let of_batch = if n_ranks > 1 { 16 * BATCH as u64 * (2 * n_bins + n_mine * n_ranks as u64) } else { 0 };
    let of_leaves = (16 * n_mine).saturating_mul(max_leaves.saturating_add(BATCH as u64));
    of_leaves.saturating_add(of_batch + n_counters * of_counters)
}

/// Some rows of a leaf that are counted by one thread.
struct Task {
    leaf: usize,
    places: Vec<Range<usize>>,
}

/// No task has more rows than a word takes, or a page has. A leaf without rows has one too.
fn tasks_of(leaves: &[ToCount], page_rows: usize) -> Vec<Task> {
    let n_rows: usize = leaves.iter().flat_map(|leaf| leaf.places.iter().map(Range::len)).sum();
    let task_rows = n_rows.div_ceil(TASKS_OF_THREAD * rayon::current_num_threads());
    let task_rows = task_rows.clamp(LEAST_TASK_ROWS, WORD_ROWS).min(page_rows);
    let mut tasks = Vec::new();
    for (number, leaf) in leaves.iter().enumerate() {
        let n_rows: usize = leaf.places.iter().map(Range::len).sum();
        // About as many rows for each.
        let task_rows = n_rows.div_ceil(n_rows.div_ceil(task_rows).max(1));
        let (mut places, mut room) = (Vec::new(), task_rows);
        for run in &leaf.places {
            let mut run = run.clone();
            while !run.is_empty() {
                let end = run.end.min(run.start + room);
                room -= end - run.start;
                places.push(run.start..end);
                run.start = end;
                if room == 0 {
                    tasks.push(Task { leaf: number, places: std::mem::take(&mut places) });
                    room = task_rows;
                }
            }
        }
        if !places.is_empty() || n_rows == 0 {
            tasks.push(Task { leaf: number, places });
        }
    }
    tasks
}
