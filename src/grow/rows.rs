//! Row numbers grouped by leaf: a split parts those of a leaf in place, each side in the order it had.

use super::Grown;
use super::pair::{Pair, Sums};
use super::split::{Split, is_in};
use crate::data::binned::{BinnedTable, Codes};
use crate::functions::prefetch_at;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that one task parts.
const TASK_ROWS: usize = 1 << 14;

/// Rows of one rank by leaf.
#[derive(Default)]
pub struct LeafRows {
    /// Row numbers; each leaf is a range of it.
    order: Vec<u32>,
    aside: Vec<u32>,
}

impl LeafRows {
    /// These rows, in one leaf, in place of others.
    pub fn reset(&mut self, rows: &[u32]) {
        self.order.resize(rows.len(), 0);
        self.aside.resize(rows.len(), 0);
        self.order.copy_from_slice(rows);
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Rows of a leaf, ascending.
    pub fn of(&self, leaf: Range<usize>) -> &[u32] {
        &self.order[leaf]
    }

    /// Brings the sides of a split that was not to be together again, rows in order.
    pub(super) fn rejoin(&mut self, rows: Range<usize>) {
        self.order[rows].sort(); // two runs, which are merged
    }

    /// Of all rows.
    pub(super) fn sums(&self, pairs: &[Pair]) -> Sums {
        let add = |sums: Sums, row: &u32| sums + pairs[*row as usize].sums();
        let parts: Vec<Sums> =
            self.order.par_chunks(TASK_ROWS).map(|rows| rows.iter().fold(Sums::default(), add)).collect();
        parts.into_iter().fold(Sums::default(), |sums, part| sums + part)
    }

    /// Parts rows that took no part in growing a tree as it says. Returns the range of each leaf. Not collective.
    pub fn follow(&mut self, table: &BinnedTable, grown: &Grown) -> Vec<Range<usize>> {
        let mut leaves: Vec<Range<usize>> = std::iter::once(0..self.len()).collect();
        for inner in &grown.inner {
            let rows = leaves[inner.leaf].clone();
            let middle = self.split(table, &[(rows.clone(), &inner.split)])[0];
            leaves[inner.leaf] = rows.start..middle;
            leaves.push(middle..rows.end);
        }
        leaves
    }

    /// Parts leaves by their splits. Returns where the right side of each begins.
    pub(super) fn split(&mut self, table: &BinnedTable, leaves: &[(Range<usize>, &Split)]) -> Vec<usize> {
        match &table.codes {
            Codes::U8(codes) => self.split_by(codes, table.n_features(), leaves),
            Codes::U16(codes) => self.split_by(codes, table.n_features(), leaves),
        }
    }

    fn split_by<C: Copy + Into<u32> + Sync>(
        &mut self,
        codes: &[C],
        n_features: usize,
        leaves: &[(Range<usize>, &Split)],
    ) -> Vec<usize> {
        // Tasks of all leaves, each with its rows and as much room aside.
        let mut tasks = Vec::new();
        let (mut order, mut aside) = (Slices::new(&mut self.order), Slices::new(&mut self.aside));
        let mut by_place: Vec<usize> = (0..leaves.len()).collect();
        by_place.sort_by_key(|&leaf| leaves[leaf].0.start);
        for leaf in by_place {
            let (rows, split) = &leaves[leaf];
            for first in rows.clone().step_by(TASK_ROWS) {
                let rows = first..(first + TASK_ROWS).min(rows.end);
                tasks.push((leaf, *split, &*order.take(rows.clone()), aside.take(rows)));
            }
        }
        let counts: Vec<(usize, usize)> = tasks
            .into_par_iter()
            .map(|(leaf, split, rows, aside)| (leaf, part(codes, n_features, split, rows, aside)))
            .collect();
        let mut n_left = vec![0; leaves.len()];
        counts.iter().for_each(|(leaf, n)| n_left[*leaf] += n);
        self.gather(leaves, &counts);
        leaves.iter().zip(n_left).map(|((rows, _), n)| rows.start + n).collect()
    }

    /// Brings what the tasks have put aside to where it belongs: left sides one after the other, then the right ones.
    fn gather(&mut self, leaves: &[(Range<usize>, &Split)], counts: &[(usize, usize)]) {
        let mut order = Slices::new(&mut self.order);
        let mut copies: Vec<(&mut [u32], &[u32], bool)> = Vec::with_capacity(2 * counts.len());
        let mut at = 0;
        while at < counts.len() {
            let leaf = counts[at].0;
            let rows = &leaves[leaf].0;
            let tasks = counts[at..].iter().take_while(|(of, _)| *of == leaf).count();
            for is_right in [false, true] {
                let mut first = if is_right {
                    rows.start + counts[at..at + tasks].iter().map(|c| c.1).sum::<usize>()
                } else {
                    rows.start
                };
                for (task, (_, n_left)) in counts[at..at + tasks].iter().enumerate() {
                    let begin = rows.start + task * TASK_ROWS;
                    let end = (begin + TASK_ROWS).min(rows.end);
                    let from = if is_right { begin + n_left..end } else { begin..begin + n_left };
                    let n = from.len();
                    copies.push((order.take(first..first + n), &self.aside[from], is_right));
                    first += n;
                }
            }
            at += tasks;
        }
        copies.into_par_iter().with_min_len(4).for_each(|(into, from, is_right)| match is_right {
            false => into.copy_from_slice(from),
            // These were put aside from the end on.
            true => into.iter_mut().zip(from.iter().rev()).for_each(|(into, row)| *into = *row),
        });
    }
}

/// Puts rows that go left at the begin of `aside`, the others from its end on. Returns how many go left.
fn part<C: Copy + Into<u32>>(codes: &[C], n_features: usize, split: &Split, rows: &[u32], aside: &mut [u32]) -> usize {
    let (bin, missing) = (split.bin, split.missing_bin());
    match split.left_set.is_empty() {
        true => part_by(codes, n_features, split, rows, aside, |code| {
            if code == missing { split.missing_left } else { code <= bin }
        }),
        false => part_by(codes, n_features, split, rows, aside, |code| is_in(&split.left_set, code)),
    }
}

fn part_by<C: Copy + Into<u32>>(
    codes: &[C],
    n_features: usize,
    split: &Split,
    rows: &[u32],
    aside: &mut [u32],
    goes_left: impl Fn(u32) -> bool,
) -> usize {
    /// Rows ahead whose bin numbers are asked for.
    const AHEAD: usize = 16;
    let column = &codes[split.feature as usize..];
    let (mut left, mut right) = (0, aside.len());
    for (at, &row) in rows.iter().enumerate() {
        if let Some(&next) = rows.get(at + AHEAD) {
            prefetch_at(column, next as usize * n_features);
        }
        let code: u32 = column[row as usize * n_features].into();
        let goes_left = goes_left(code);
        // Which side it is cannot be guessed, so it is written to both: the place that is not its own is somebody's yet to come.
        aside[left] = row;
        aside[right - 1] = row;
        left += usize::from(goes_left);
        right -= usize::from(!goes_left);
    }
    left
}

/// Parts of a slice, handed out from its begin on.
struct Slices<'a> {
    rest: &'a mut [u32],
    /// Where `rest` begins.
    at: usize,
}

impl<'a> Slices<'a> {
    fn new(rest: &'a mut [u32]) -> Slices<'a> {
        Slices { rest, at: 0 }
    }

    fn take(&mut self, range: Range<usize>) -> &'a mut [u32] {
        let rest = std::mem::take(&mut self.rest);
        let (_, rest) = rest.split_at_mut(range.start - self.at);
        let (taken, rest) = rest.split_at_mut(range.len());
        (self.rest, self.at) = (rest, range.end);
        taken
    }
}
