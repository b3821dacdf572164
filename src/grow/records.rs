//! Binned rows as records: what is read of a row lies together, and a split moves whole records.
//!
//! A record is the bin numbers of a row, its gradient pair or two (high and low digits), and its number among the rows here. Records of a leaf are side by side, in
//! no order: whatever is done with them is a sum of integers, or goes by the row's number.

use super::pair::{Pair, Sums};
use super::{Child, Grown};
use crate::data::binned::FeatureBins;
use rayon::prelude::*;
use std::ops::Range;

/// A feature of more bins has two bytes.
const BYTE_BINS: usize = 256;
/// Features of no more bins share a byte as long as all their combinations fit in it: one addition then counts all of them.
const SHARED_BINS: usize = 16;
/// Records are a whole number of words.
pub(super) type Word = [u8; 8];

/// Where the bin number of a feature is in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) byte: usize,
    pub(super) is_wide: bool,
    /// Of a byte that is shared: bin = byte / step % n_bins.
    pub(super) step: usize,
    pub(super) n_bins: usize,
}

impl Place {
    #[inline]
    pub(super) fn bin_in(&self, record: &[Word]) -> u32 {
        let bytes = record.as_flattened();
        match self.is_wide {
            true => u16::from_le_bytes([bytes[self.byte], bytes[self.byte + 1]]).into(),
            false => self.bin_of(bytes[self.byte]),
        }
    }

    /// By the value of its byte.
    pub(super) fn bin_of(&self, byte: u8) -> u32 {
        (usize::from(byte) / self.step % self.n_bins) as u32
    }

    fn put(&self, record: &mut [Word], bin: usize) {
        let bytes = record.as_flattened_mut();
        match self.is_wide {
            true => bytes[self.byte..self.byte + 2].copy_from_slice(&(bin as u16).to_le_bytes()),
            false => bytes[self.byte] += (bin * self.step) as u8,
        }
    }
}

/// What is where in a record: bytes, numbers of two bytes, the pairs, the row's number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// By feature.
    pub(super) places: Vec<Place>,
    /// By byte: features in it.
    pub(super) bytes: Vec<Vec<usize>>,
    /// Features of two bytes.
    pub(super) wide: Vec<usize>,
    pub(super) pair_at: usize,
    /// Words of a record.
    pub(super) n_words: usize,
}

impl Layout {
    fn new(features: &[FeatureBins]) -> Layout {
        let mut bytes: Vec<Vec<usize>> = Vec::new();
        let mut wide = Vec::new();
        // By byte: combinations so far.
        let mut steps: Vec<usize> = Vec::new();
        let mut places = Vec::with_capacity(features.len());
        for (feature, bins) in features.iter().enumerate() {
            let n_bins = bins.n_bins();
            let (mut byte, mut step) = (bytes.len(), 1);
            if n_bins > BYTE_BINS {
                byte = wide.len();
                wide.push(feature);
            } else {
                let has_room = |steps: &usize| n_bins <= SHARED_BINS && steps * n_bins <= BYTE_BINS;
                byte = steps.iter().position(has_room).unwrap_or(byte);
                if byte == bytes.len() {
                    bytes.push(Vec::new());
                    steps.push(1);
                }
                bytes[byte].push(feature);
                step = steps[byte];
                // A byte of one feature with many bins is nobody else's.
                steps[byte] = if n_bins <= SHARED_BINS { step * n_bins } else { BYTE_BINS + 1 };
            }
            places.push(Place { byte, is_wide: n_bins > BYTE_BINS, step, n_bins });
        }
        let first_wide = bytes.len();
        places.iter_mut().filter(|place| place.is_wide).for_each(|place| place.byte = first_wide + 2 * place.byte);
        let pair_at = first_wide + 2 * wide.len();
        let n_words = (pair_at + 12).div_ceil(size_of::<Word>());
        Layout { places, bytes, wide, pair_at, n_words }
    }

    /// * `digit`: 0 for the high ones or the only ones, 1 for the low ones.
    #[inline]
    pub(super) fn pair_of(&self, record: &[Word], digit: usize) -> Pair {
        Pair::from_bits(number_at(record, self.pair_at + 4 * digit))
    }

    #[inline]
    pub(super) fn row_of(&self, record: &[Word]) -> u32 {
        number_at(record, self.pair_at + 8)
    }
}

#[inline]
fn number_at(record: &[Word], at: usize) -> u32 {
    let bytes = &record.as_flattened()[at..at + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[inline]
fn put_number(record: &mut [Word], at: usize, number: u32) {
    record.as_flattened_mut()[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Rows of a rank, at most: their numbers and those of leaves have to fit.
pub const MOST_ROWS: usize = 1 << 31;

/// Records that one task reads.
const TASK_ROWS: usize = 1 << 14;
/// Rows whose pairs are asked for at once.
const ROWS: usize = 256;

/// A rank's rows, by place; places change as trees grow.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    pub features: Vec<FeatureBins>,
    pub(super) layout: Layout,
    pub(super) words: Vec<Word>,
}

impl Records {
    /// Without rows, with room for `n_rows`.
    pub fn with_room(features: Vec<FeatureBins>, n_rows: usize) -> Records {
        let layout = Layout::new(&features);
        let words = Vec::with_capacity(n_rows * layout.n_words);
        Records { features, layout, words }
    }

    pub fn n_rows(&self) -> usize {
        self.words.len() / self.layout.n_words
    }

    /// Appends rows, by runs of so many. Rayon over runs.
    ///
    /// * `fill`: of run r, gets its number and a [`Run`] to put bin numbers in.
    pub fn append<E: Send>(
        &mut self,
        runs: &[usize],
        fill: impl Fn(usize, &mut Run<'_>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let (n_words, start) = (self.layout.n_words, self.words.len());
        self.words.resize(start + runs.iter().sum::<usize>() * n_words, Word::default());
        let mut rest = &mut self.words[start..];
        let mut first_row = start / n_words;
        let mut tasks = Vec::with_capacity(runs.len());
        for n_rows in runs {
            let (words, after) = rest.split_at_mut(n_rows * n_words);
            tasks.push((first_row, Run { layout: &self.layout, words }));
            first_row += n_rows;
            rest = after;
        }
        tasks.into_par_iter().enumerate().try_for_each(|(number, (first_row, mut run))| {
            for (row, record) in run.words.chunks_exact_mut(n_words).enumerate() {
                put_number(record, run.layout.pair_at + 8, (first_row + row) as u32);
            }
            fill(number, &mut run)
        })
    }

    /// The bin of a feature at a place.
    pub fn bin(&self, place: usize, feature: usize) -> u32 {
        self.layout.places[feature].bin_in(self.of(place..place + 1))
    }

    pub(super) fn of(&self, places: Range<usize>) -> &[Word] {
        &self.words[places.start * self.layout.n_words..places.end * self.layout.n_words]
    }

    /// Numbers of the rows at some places.
    pub fn rows_of(&self, places: Range<usize>) -> Vec<u32> {
        self.of(places).chunks_exact(self.layout.n_words).map(|record| self.layout.row_of(record)).collect()
    }

    /// By row, its place.
    pub fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.n_rows()];
        for (place, record) in self.words.chunks_exact(self.layout.n_words).enumerate() {
            places[self.layout.row_of(record) as usize] = place as u32;
        }
        places
    }

    /// Sets the gradient pairs at some places from the first on. Rayon over places.
    ///
    /// * `pairs_of`: writes those of some rows, by their numbers; the second of each is for low digits.
    pub(super) fn set_pairs(&mut self, n: usize, pairs_of: impl Fn(&[u32], &mut [[Pair; 2]]) + Sync) {
        let (layout, n_words) = (&self.layout, self.layout.n_words);
        self.words[..n * n_words].par_chunks_mut(ROWS * n_words).with_min_len(TASK_ROWS / ROWS).for_each(|records| {
            let (mut rows, mut pairs) = ([0; ROWS], [[Pair::default(); 2]; ROWS]);
            let n = records.len() / n_words;
            for (row, record) in rows.iter_mut().zip(records.chunks_exact(n_words)) {
                *row = layout.row_of(record);
            }
            pairs_of(&rows[..n], &mut pairs[..n]);
            for ([high, low], record) in pairs.iter().zip(records.chunks_exact_mut(n_words)) {
                put_number(record, layout.pair_at, high.to_bits());
                put_number(record, layout.pair_at + 4, low.to_bits());
            }
        });
    }

    /// Of the pairs at some places. Rayon over places.
    pub(super) fn sums(&self, places: Range<usize>, is_wide: bool) -> Sums {
        let (layout, n_words) = (&self.layout, self.layout.n_words);
        let of_record = |record: &[Word]| match is_wide {
            false => layout.pair_of(record, 0).sums(),
            true => Sums::of_digits(layout.pair_of(record, 0).sums(), layout.pair_of(record, 1).sums()),
        };
        let add = |sums: Sums, record: &[Word]| sums + of_record(record);
        let of_task = |records: &[Word]| records.chunks_exact(n_words).fold(Sums::default(), add);
        let parts: Vec<Sums> = self.of(places).par_chunks(TASK_ROWS * n_words).map(of_task).collect();
        parts.into_iter().fold(Sums::default(), |sums, part| sums + part)
    }

    /// The leaf of each row, by its number. Rayon over places.
    ///
    /// * `n_taken`: rows of so many places grew the tree; the others follow it.
    pub(super) fn leaves_of_rows(&self, grown: &Grown, n_taken: usize, leaf_of: &LeafOfRows) {
        let n_words = self.layout.n_words;
        let mut tasks = Vec::new();
        for (leaf, places) in grown.leaves.iter().enumerate() {
            tasks.extend(places.clone().step_by(TASK_ROWS).map(|at| (leaf, at..(at + TASK_ROWS).min(places.end))));
        }
        tasks.into_par_iter().for_each(|(leaf, places)| {
            for record in self.of(places).chunks_exact(n_words) {
                leaf_of.set(self.layout.row_of(record), leaf, true);
            }
        });
        self.words[n_taken * n_words..].par_chunks_exact(n_words).with_min_len(1 << 10).for_each(|record| {
            let mut at = if grown.inner.is_empty() { Child::Leaf(0) } else { Child::Inner(0) };
            let leaf = loop {
                match at {
                    Child::Leaf(leaf) => break leaf,
                    Child::Inner(node) => {
                        let inner = &grown.inner[node];
                        let bin = self.layout.places[inner.split.feature as usize].bin_in(record);
                        at = if inner.split.goes_left(bin) { inner.left } else { inner.right };
                    }
                }
            };
            leaf_of.set(self.layout.row_of(record), leaf, false);
        });
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

pub use leaf_of_rows::LeafOfRows;

/// Leaves by row: each row has one place, so that nobody writes what another does; the atomics only say so to the compiler.
mod leaf_of_rows {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// The leaf of each row in the tree that was grown last.
    #[derive(Default)]
    pub struct LeafOfRows(Vec<AtomicU32>);

    /// The row took no part in growing the tree.
    const FOLLOWS: u32 = 1 << 31;

    impl LeafOfRows {
        pub(in super::super) fn with_rows(n_rows: usize) -> LeafOfRows {
            LeafOfRows((0..n_rows).map(|_| AtomicU32::new(0)).collect())
        }

        pub(super) fn set(&self, row: u32, leaf: usize, is_taken: bool) {
            self.0[row as usize].store(leaf as u32 | if is_taken { 0 } else { FOLLOWS }, Relaxed);
        }

        /// Of a row.
        #[inline]
        pub fn of(&self, row: usize) -> usize {
            (self.0[row].load(Relaxed) & !FOLLOWS) as usize
        }

        /// Of a row that took part in growing the tree.
        #[inline]
        pub fn of_taken(&self, row: usize) -> Option<usize> {
            let leaf = self.0[row].load(Relaxed);
            (leaf & FOLLOWS == 0).then_some(leaf as usize)
        }
    }
}
