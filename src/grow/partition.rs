//! A split parts the records of a leaf in place: those that go left first.
//!
//! Source: Hoare, *Quicksort*, The Computer Journal 1962; sides looked up for a block at a time, so that no branch is guessed: Edelkamp
//! and Weiß, *BlockQuicksort*, ESA 2016.

use super::records::{Records, Word};
use super::split::Split;
use crate::functions::prefetch_at;
use rayon::prelude::*;
use std::ops::Range;

/// Fewer records are not worth a task.
const LEAST_TASK_ROWS: usize = 1 << 13;
/// Records that change their places at a time where the parts of tasks are brought together.
const PIECE_ROWS: usize = 1 << 11;

impl Records {
    /// Records for which it holds come first. Returns how many. Rayon over records.
    ///
    /// * `is_first`: by the row's number.
    pub(super) fn bring_forward(&mut self, is_first: impl Fn(u32) -> bool + Sync) -> usize {
        let layout = self.layout.clone();
        let n_rows = self.n_rows();
        let all = 0..n_rows;
        self.part(std::slice::from_ref(&all), |_, records| {
            part(records, layout.n_words, |record| is_first(layout.row_of(record)))
        })[0]
    }

    /// Parts leaves by their splits. Returns where the right side of each begins. Rayon over leaves and records.
    pub(super) fn split(&mut self, leaves: &[(Range<usize>, &Split)]) -> Vec<usize> {
        let (places, n_words) = (self.layout.places.clone(), self.layout.n_words);
        let ranges: Vec<Range<usize>> = leaves.iter().map(|(places, _)| places.clone()).collect();
        self.part(&ranges, |leaf, records| {
            let split = leaves[leaf].1;
            let place = places[split.feature as usize];
            if place.is_wide {
                return part(records, n_words, |record| split.goes_left(place.bin_in(record)));
            }
            let goes_left: [bool; 256] = std::array::from_fn(|byte| split.goes_left(place.bin_of(byte as u8)));
            let (word, byte) = (place.byte / size_of::<Word>(), place.byte % size_of::<Word>());
            part(records, n_words, |record| goes_left[usize::from(record[word][byte])])
        })
    }

    /// Parts disjoint runs of records. Returns where the second part of each begins.
    ///
    /// * `part_task`: parts some of a run's records, and says how many are in the first part.
    fn part(&mut self, runs: &[Range<usize>], part_task: impl Fn(usize, &mut [Word]) -> usize + Sync) -> Vec<usize> {
        let n_words = self.layout.n_words;
        let mut by_place: Vec<usize> = (0..runs.len()).collect();
        by_place.sort_by_key(|&run| (runs[run].start, runs[run].end));
        let mut records = Slices { rest: &mut self.words, at: 0, n_words };
        let mut tasks = Vec::new();
        for run in by_place {
            let places = &runs[run];
            let n_tasks = (places.len() / LEAST_TASK_ROWS).clamp(1, rayon::current_num_threads());
            let bound = |task: usize| places.start + places.len() * task / n_tasks;
            for task in 0..n_tasks {
                let places = bound(task)..bound(task + 1);
                tasks.push((run, places.clone(), records.take(places)));
            }
        }
        let parted: Vec<(usize, Range<usize>, usize)> =
            tasks.into_par_iter().map(|(run, places, records)| (run, places, part_task(run, records))).collect();
        let mut middles = vec![0; runs.len()];
        for tasks in parted.chunk_by(|one, next| one.0 == next.0) {
            let run = tasks[0].0;
            middles[run] = runs[run].start + tasks.iter().map(|task| task.2).sum::<usize>();
            if tasks.len() > 1 {
                let bounds = tasks.iter().map(|(_, places, n)| (places.clone(), places.start + n));
                self.join(runs[run].clone(), middles[run], bounds.collect());
            }
        }
        middles
    }

    /// Brings the first parts of a run's tasks together.
    ///
    /// * `tasks`: places, and where the second part begins.
    fn join(&mut self, run: Range<usize>, middle: usize, tasks: Vec<(Range<usize>, usize)>) {
        let n_words = self.layout.n_words;
        let (first, second) =
            self.words[run.start * n_words..run.end * n_words].split_at_mut((middle - run.start) * n_words);
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

/// Parts of some records, handed out from the first on.
struct Slices<'a> {
    rest: &'a mut [Word],
    /// The place at which `rest` begins.
    at: usize,
    n_words: usize,
}

impl<'a> Slices<'a> {
    fn take(&mut self, places: Range<usize>) -> &'a mut [Word] {
        let rest = std::mem::take(&mut self.rest);
        let (_, rest) = rest.split_at_mut((places.start - self.at) * self.n_words);
        let (taken, rest) = rest.split_at_mut(places.len() * self.n_words);
        (self.rest, self.at) = (rest, places.end);
        taken
    }
}
