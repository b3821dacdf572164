//! Where what is in a record: bins of features by byte or two, the gradient pairs, the row's number.

use super::pair::Pair;
use crate::data::binned::FeatureBins;

/// A feature of more bins has two bytes.
const BYTE_BINS: usize = 256;
/// Features of no more bins share a byte as long as all their combinations fit in it: one addition then counts all of them.
pub(super) const SHARED_BINS: usize = 16;
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

    pub(super) fn put(&self, record: &mut [Word], bin: usize) {
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
    pub(super) fn new(features: &[FeatureBins]) -> Layout {
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

    pub(super) fn put_pairs(&self, record: &mut [Word], pairs: [Pair; 2]) {
        put_number(record, self.pair_at, pairs[0].to_bits());
        put_number(record, self.pair_at + 4, pairs[1].to_bits());
    }

    #[inline]
    pub(super) fn row_of(&self, record: &[Word]) -> u32 {
        number_at(record, self.pair_at + 8)
    }

    pub(super) fn put_row(&self, record: &mut [Word], row: u32) {
        put_number(record, self.pair_at + 8, row);
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
