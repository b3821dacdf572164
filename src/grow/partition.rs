//! A split parts the records of a leaf in place: those that go left first.
//!
//! Source: Hoare, *Quicksort*, The Computer Journal 1962; sides looked up for a block at a time, so that no branch is guessed: Edelkamp
//! and Weiß, *BlockQuicksort*, ESA 2016.

use super::layout::Word;
use super::records::{Held, Records, Slices};
use super::split::Split;
use crate::error::Result;
use crate::functions::prefetch_at;
use rayon::prelude::*;
use std::ops::Range;

/// Fewer records are not worth a task.
const LEAST_TASK_ROWS: usize = 1 << 13;
/// Records that change their places at a time where the parts of tasks are brought together.
const PIECE_ROWS: usize = 1 << 11;

impl Records {
    /// Records for which it holds come first, in each page. Returns where the others begin. Rayon over records.
    ///
    /// * `is_first`: by the row's number.
    pub(super) fn bring_forward(&mut self, is_first: impl Fn(u32) -> bool + Sync) -> Result<Vec<usize>> {
        let layout = self.layout.clone();
        self.part(&self.pages(), |_, records| part(records, layout.n_words, |record| is_first(layout.row_of(record))))
    }

    /// Parts runs of records by splits. Returns where the right side of each begins. Rayon over runs and records.
    pub(super) fn split(&mut self, runs: &[(Range<usize>, &Split)]) -> Result<Vec<usize>> {
        let (layout, n_words) = (self.layout.clone(), self.layout.n_words);
        let places: Vec<Range<usize>> = runs.iter().map(|(places, _)| places.clone()).collect();
        self.part(&places, |run, records| {
            let split = runs[run].1;
            let place = layout.places[split.feature as usize];
            if place.is_wide {
                return part(records, n_words, |record| split.goes_left(place.bin_in(record)));
            }
            let goes_left: [bool; 256] = std::array::from_fn(|byte| split.goes_left(place.bin_of(byte as u8)));
            let (word, byte) = (place.byte / size_of::<Word>(), place.byte % size_of::<Word>());
            part(records, n_words, |record| goes_left[usize::from(record[word][byte])])
        })
    }

    /// Parts disjoint runs of records, each within a page. Returns where the second part of each begins.
    ///
    /// * `part_task`: parts some of a run's records, and says how many are in the first part.
    fn part(
        &mut self,
        runs: &[Range<usize>],
        part_task: impl Fn(usize, &mut [Word]) -> usize + Sync,
    ) -> Result<Vec<usize>> {
        let most_tasks = if self.are_in_memory() { rayon::current_num_threads() } else { 1 };
        let of_run = |(run, places): (usize, &Range<usize>)| {
            let places = places.clone();
            let n_tasks = (places.len() / LEAST_TASK_ROWS).clamp(1, most_tasks);
            let bound = move |task: usize| places.start + places.len() * task / n_tasks;
            (0..n_tasks).map(move |task| (run, bound(task)..bound(task + 1)))
        };
        let (of_runs, tasks): (Vec<usize>, Vec<Range<usize>>) = runs.iter().enumerate().flat_map(of_run).unzip();
        let firsts = self.change(&tasks, |task, records| part_task(of_runs[task], records))?;
        let mut middles: Vec<usize> = runs.iter().map(|run| run.start).collect();
        firsts.iter().zip(&of_runs).for_each(|(n, run)| middles[*run] += n);
        if let Held::Memory(words) = &mut self.held {
            let n_words = self.layout.n_words;
            let mut parted = tasks.into_iter().zip(firsts);
            for tasks in of_runs.chunk_by(|one, next| one == next) {
                let (run, of_run) = (&runs[tasks[0]], parted.by_ref().take(tasks.len()));
                let of_run = of_run.map(|(places, n)| (places.clone(), places.start + n)).collect();
                join(
                    &mut words[run.start * n_words..run.end * n_words],
                    n_words,
                    run.clone(),
                    middles[tasks[0]],
                    of_run,
                );
            }
        }
        Ok(middles)
    }
}

/// Brings the first parts of a run's tasks together.
///
/// * `tasks`: places, and where the second part begins.
fn join(records: &mut [Word], n_words: usize, run: Range<usize>, middle: usize, tasks: Vec<(Range<usize>, usize)>) {
    if tasks.len() < 2 {
        return;
    }
    let (first, second) = records.split_at_mut((middle - run.start) * n_words);
    let mut first = Slices { rest: first, at: run.start, n_words };
    let mut second = Slices { rest: second, at: middle, n_words };
    // As many records are in front that do not belong there as are behind.
    let in_front = tasks.iter().map(|(places, parted)| *parted..places.end.min(middle).max(*parted));
    let behind = tasks.iter().map(|(places, parted)| places.start.max(middle).min(*parted)..*parted);
    let mut in_front = in_front.filter(|places| !places.is_empty());
    let mut behind = behind.filter(|places| !places.is_empty());
    let (mut one, mut other) = (0..0, 0..0);
    let mut swaps = Vec::new();
    loop {
        if one.is_empty() {
            one = in_front.next().unwrap_or(0..0);
        }
        if other.is_empty() {
            other = behind.next().unwrap_or(0..0);
        }
        let n = one.len().min(other.len()).min(PIECE_ROWS);
        if n == 0 {
            break;
        }
        swaps.push((first.take(one.start..one.start + n), second.take(other.start..other.start + n)));
        one.start += n;
        other.start += n;
    }
    swaps.into_par_iter().for_each(|(one, other)| one.swap_with_slice(other));
}

/// Records whose sides are looked up at a time.
const BLOCK: usize = 128;
/// Records ahead that are asked for.
const AHEAD: usize = 2 * BLOCK;

/// Records that go left come first. Returns how many.
fn part(records: &mut [Word], n_words: usize, goes_left: impl Fn(&[Word]) -> bool) -> usize {
    let at = |records: &[Word], place: usize| goes_left(&records[place * n_words..(place + 1) * n_words]);
    let (mut low, mut high) = (0, records.len() / n_words);
    // Within the block at either end: those that are on the wrong side, and which of them are still there.
    let (mut of_low, mut of_high) = ([0u8; BLOCK], [0u8; BLOCK]);
    let (mut wrong_low, mut wrong_high) = (0..0, 0..0);
    while high - low > 2 * BLOCK {
        if wrong_low.is_empty() {
            wrong_low = 0..0;
            for i in 0..BLOCK {
                prefetch_at(records, (low + i + AHEAD) * n_words);
                of_low[wrong_low.end] = i as u8;
                wrong_low.end += usize::from(!at(records, low + i));
            }
        }
        if wrong_high.is_empty() {
            wrong_high = 0..0;
            for i in 0..BLOCK {
                prefetch_at(records, (high - 1 - i).saturating_sub(AHEAD) * n_words);
                of_high[wrong_high.end] = i as u8;
                wrong_high.end += usize::from(at(records, high - 1 - i));
            }
        }
        let n = wrong_low.len().min(wrong_high.len());
        for (one, other) in of_low[wrong_low.clone()].iter().zip(&of_high[wrong_high.clone()]).take(n) {
            swap(records, n_words, low + usize::from(*one), high - 1 - usize::from(*other));
        }
        wrong_low.start += n;
        wrong_high.start += n;
        low += if wrong_low.is_empty() { BLOCK } else { 0 };
        high -= if wrong_high.is_empty() { BLOCK } else { 0 };
    }
    // What is between: the blocks at both ends too, if some of them are still wrong.
    loop {
        while low < high && at(records, low) {
            low += 1;
        }
        while low < high && !at(records, high - 1) {
            high -= 1;
        }
        if low >= high {
            return low;
        }
        swap(records, n_words, low, high - 1);
        low += 1;
        high -= 1;
    }
}

#[inline]
fn swap(records: &mut [Word], n_words: usize, one: usize, other: usize) {
    for word in 0..n_words {
        records.swap(one * n_words + word, other * n_words + word);
    }
}
