//! Gradient pairs of rows and their sums, as integers.

use std::ops::{Add, Sub};

/// Bits of a gradient with its sign, and of a hessian without: |gradient| ≤ 2¹⁵ − 1, hessian ≤ 2¹⁶ − 1.
pub const UNIT_BITS: u32 = 16;

/// Bits of a gradient and of a hessian as two pairs.
pub const WIDE_BITS: u32 = 30;

/// Bits of the low digit of a gradient, which is never negative, and of a hessian.
const LOW_BITS: [u32; 2] = [UNIT_BITS - 1, UNIT_BITS];

/// Rows whose pairs may be added as one word: 2¹⁶·(2¹⁶ − 1) < 2³², 2¹⁶·(2¹⁵ − 1) < 2³¹.
pub(super) const WORD_ROWS: usize = 1 << UNIT_BITS;

/// Gradient and hessian of a row: the gradient in the upper half, the hessian in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair(u32);

impl Pair {
    /// # Panics
    /// In debug builds, if either does not have [`UNIT_BITS`] bits.
    #[inline]
    pub fn new(gradient: i32, hessian: u32) -> Pair {
        debug_assert!(gradient.unsigned_abs() < 1 << (UNIT_BITS - 1) && hessian < 1 << UNIT_BITS);
        Pair((gradient as u32) << UNIT_BITS | hessian)
    }

    #[inline]
    pub(super) fn from_bits(bits: u32) -> Pair {
        Pair(bits)
    }

    #[inline]
    pub(super) fn to_bits(self) -> u32 {
        self.0
    }

    /// gradient·2³² + hessian, wrapping. The hessian is low, where it borrows nothing from the gradient since it is never negative.
    /// Sums of up to 2¹⁶ such words hold the sums of both (`EXACT` 2a).
    #[inline]
    pub(super) fn word(self) -> u64 {
        let gradient = (self.0 as i32) >> UNIT_BITS;
        (i64::from(gradient) << 32) as u64 | u64::from(self.0 as u16)
    }

    /// A gradient and a hessian of more bits as two pairs: high digits, low digits. Sums of these are added as
    /// `Sums::of_digits` says.
    ///
    /// # Panics
    /// In debug builds, if either does not have [`WIDE_BITS`] bits.
    #[inline]
    pub fn digits(gradient: i64, hessian: i64) -> [Pair; 2] {
        debug_assert!(gradient.unsigned_abs() < 1 << (WIDE_BITS - 1) && (hessian as u64) < 1 << WIDE_BITS);
        let (g_low, h_low) = (gradient & ((1 << LOW_BITS[0]) - 1), hessian & ((1 << LOW_BITS[1]) - 1));
        let high = Pair::new((gradient >> LOW_BITS[0]) as i32, (hessian >> LOW_BITS[1]) as u32);
        [high, Pair::new(g_low as i32, h_low as u32)]
    }

    pub fn sums(self) -> Sums {
        Sums::of_word(self.word())
    }
}

/// Σ gradient and Σ hessian of some rows, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub gradient: i64,
    pub hessian: i64,
}

impl Sums {
    /// Of what high digits sum up to, and low ones.
    #[inline]
    pub(super) fn of_digits(high: Sums, low: Sums) -> Sums {
        high.shifted() + low
    }

    /// Of high digits, as they count.
    #[inline]
    pub(super) fn shifted(self) -> Sums {
        Sums { gradient: self.gradient << LOW_BITS[0], hessian: self.hessian << LOW_BITS[1] }
    }

    /// Of a sum of words.
    #[inline]
    pub(super) fn of_word(word: u64) -> Sums {
        let hessian = word & u64::from(u32::MAX);
        Sums { gradient: (word.wrapping_sub(hessian) as i64) >> 32, hessian: hessian as i64 }
    }

    /// The sum as one word, if it is of at most [`WORD_ROWS`] rows.
    #[inline]
    pub(super) fn to_word(self) -> u64 {
        ((self.gradient << 32) as u64).wrapping_add(self.hessian as u64)
    }
}

impl Add for Sums {
    type Output = Sums;
    #[inline]
    fn add(self, other: Sums) -> Sums {
        Sums { gradient: self.gradient.wrapping_add(other.gradient), hessian: self.hessian.wrapping_add(other.hessian) }
    }
}

impl Sub for Sums {
    type Output = Sums;
    #[inline]
    fn sub(self, other: Sums) -> Sums {
        Sums { gradient: self.gradient.wrapping_sub(other.gradient), hessian: self.hessian.wrapping_sub(other.hessian) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_add_up_to_what_they_were_taken_from() {
        let most = (1i64 << (WIDE_BITS - 1)) - 1;
        for gradient in [0, 1, -1, 32_767, 32_768, -32_768, -32_769, most, -most, 123_456_789, -123_456_789] {
            for hessian in [0, 1, 65_535, 65_536, 2 * most + 1] {
                let [high, low] = Pair::digits(gradient, hessian).map(Pair::sums);
                assert_eq!(Sums::of_digits(high, low), Sums { gradient, hessian });
            }
        }
    }

    #[test]
    fn as_many_pairs_as_a_word_takes_keep_both_sums() {
        for (gradient, hessian) in [(-32_767, 65_535), (32_767, 65_535), (-1, 0), (0, 65_535), (-32_767, 0)] {
            let mut word = 0u64;
            (0..WORD_ROWS).for_each(|_| word = word.wrapping_add(Pair::new(gradient, hessian).word()));
            let n = WORD_ROWS as i64;
            let sums = Sums { gradient: i64::from(gradient) * n, hessian: i64::from(hessian) * n };
            assert_eq!(Sums::of_word(word), sums);
            assert_eq!(sums.to_word(), word);
        }
    }
}
