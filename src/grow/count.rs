//! The inner loop: the pairs of some rows, added up by the bytes of their records, and from bytes to the bins of features.

use super::histogram::Bins;
use super::layout::{Layout, Place, SHARED_BINS, Word};
use super::pair::Sums;

/// Values of a byte.
const VALUES: usize = 256;
/// Bytes that are counted together: their sums are in the first cache, with some of the records.
const GROUP: usize = 16;
/// Records that are read again for the next group.
const TILE_ROWS: usize = 1 << 9;

/// Sums by the bytes of records, and by the bins of features of two bytes.
pub(super) struct Counter {
    of_bytes: Vec<[u64; VALUES]>,
    of_wide: Vec<Vec<u64>>,
}

impl Counter {
    /// Of each feature at most, and of more for those of two bytes.
    pub(super) const BYTES: u64 = (VALUES * size_of::<u64>()) as u64;

    pub(super) fn new(layout: &Layout) -> Counter {
        let of_wide = layout.wide.iter().map(|feature| vec![0; layout.places[*feature].n_bins]).collect();
        Counter { of_bytes: vec![[0; VALUES]; layout.bytes.len()], of_wide }
    }

    /// Sums of a digit of these records, of which there are at most as many as a word takes.
    pub(super) fn count(&mut self, layout: &Layout, digit: usize, records: &[Word]) {
        self.of_bytes.fill([0; VALUES]);
        self.of_wide.iter_mut().for_each(|sums| sums.fill(0));
        for tile in records.chunks(TILE_ROWS * layout.n_words) {
            for (number, sums) in self.of_bytes.chunks_mut(GROUP).enumerate() {
                let first_word = number * GROUP / size_of::<Word>();
                match <&mut [_; GROUP]>::try_from(&mut *sums) {
                    Ok(sums) => add_group(layout, digit, first_word, tile, sums),
                    Err(_) => add_bytes(layout, digit, first_word, tile, sums),
                }
            }
            for (feature, sums) in layout.wide.iter().zip(&mut self.of_wide) {
                let place = layout.places[*feature];
                for record in tile.chunks_exact(layout.n_words) {
                    let sum = &mut sums[place.bin_in(record) as usize];
                    *sum = sum.wrapping_add(layout.pair_of(record, digit).word());
                }
            }
        }
    }
}

fn add_group(layout: &Layout, digit: usize, first_word: usize, records: &[Word], sums: &mut [[u64; VALUES]; GROUP]) {
    for record in records.chunks_exact(layout.n_words) {
        let word = layout.pair_of(record, digit).word();
        let bytes: &[Word; GROUP / size_of::<Word>()] = record[first_word..].first_chunk().expect("a whole group");
        for (byte, sums) in bytes.as_flattened().iter().zip(&mut *sums) {
            let sum = &mut sums[usize::from(*byte)];
            *sum = sum.wrapping_add(word);
        }
    }
}

/// As [`add_group`], for the bytes that are left: whole words first.
fn add_bytes(layout: &Layout, digit: usize, first_word: usize, records: &[Word], sums: &mut [[u64; VALUES]]) {
    let (whole, rest) = sums.as_chunks_mut::<{ size_of::<Word>() }>();
    for record in records.chunks_exact(layout.n_words) {
        let word = layout.pair_of(record, digit).word();
        let bytes = &record[first_word..];
        for (bytes, sums) in bytes.iter().zip(&mut *whole) {
            for (byte, sums) in bytes.iter().zip(sums) {
                let sum = &mut sums[usize::from(*byte)];
                *sum = sum.wrapping_add(word);
            }
        }
        for (byte, sums) in bytes[whole.len()..].as_flattened().iter().zip(&mut *rest) {
            let sum = &mut sums[usize::from(*byte)];
            *sum = sum.wrapping_add(word);
        }
    }
}

/// Adds what was counted to the bins of features.
///
/// * `offsets`: of each feature's bins.
/// * `is_high`: these are high digits.
pub(super) fn add_to(bins: &mut Bins, counter: &Counter, layout: &Layout, offsets: &[usize], is_high: bool) {
    let width = bins.width;
    let add_words = |bins: &mut [u64], sums: &[u64]| add_words(bins, width, sums, is_high);
    let of_feature = |feature: usize| width * offsets[feature]..width * offsets[feature + 1];
    for (features, sums) in layout.bytes.iter().zip(&counter.of_bytes) {
        if let [feature] = features[..] {
            add_words(&mut bins.words[of_feature(feature)], sums);
            continue;
        }
        // The last feature changes least often along the values of a byte; once it is added up, the others are what is left.
        let mut left = *sums;
        for feature in features.iter().rev() {
            let Place { step, n_bins, .. } = layout.places[*feature];
            let of_bytes = &mut left[..step * n_bins];
            let mut of_bins = [0u64; SHARED_BINS];
            for (sum, run) in of_bins.iter_mut().zip(of_bytes.chunks(step)) {
                *sum = run.iter().fold(0, |sum, word| sum.wrapping_add(*word));
            }
            add_words(&mut bins.words[of_feature(*feature)], &of_bins);
            let (first, others) = of_bytes.split_at_mut(step);
            for run in others.chunks(step) {
                first.iter_mut().zip(run).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
            }
        }
    }
    for (feature, sums) in layout.wide.iter().zip(&counter.of_wide) {
        add_words(&mut bins.words[of_feature(*feature)], sums);
    }
}

/// Adds sums of pair words to bins of `width` words.
fn add_words(bins: &mut [u64], width: usize, sums: &[u64], is_high: bool) {
    match width {
        1 => bins.iter_mut().zip(sums).for_each(|(bin, sum)| *bin = bin.wrapping_add(*sum)),
        _ => bins.chunks_exact_mut(2).zip(sums).for_each(|(bin, sum)| {
            let sums = if is_high { Sums::of_word(*sum).shifted() } else { Sums::of_word(*sum) };
            bin[0] = bin[0].wrapping_add(sums.gradient as u64);
            bin[1] = bin[1].wrapping_add(sums.hessian as u64);
        }),
    }
}
