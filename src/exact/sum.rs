//! The scale-free sum: a fixed-point number long enough for every product of two doubles (`EXACT` 2c.4).

use super::fixed;

/// Payload bits of a limb; the other half of its i64 holds sign and carries that were not passed on yet.
const LIMB_BITS: u32 = 32;
const LIMB_MASK: i64 = (1 << LIMB_BITS) - 1;
/// Bit 0 of limb 0 stands for 2^−2148: the square of the smallest double, 2^−1074.
const LOWEST: i32 = -2148;
/// Up to the last bit of the square of the largest double, below 2^2048; the top limb's own 59 spare bits are for carries.
const LIMBS: usize = 132;
/// Additions before carries must be passed on: each adds less than 2^32 to a limb, 2^30 of them stay below 2^62.
const MAX_PENDING: u32 = 1 << 30;

/// A sum of doubles, and of products of two doubles, without any rounding until the end (`EXACT` 2c.4).
///
/// Adding values and merging sums in any order and grouping gives the same `value`: the sum is a fixed-point number of 132 limbs
/// of 32 bits, from 2^−2148 to 2^2076. That is longer than the 68 limbs which cover sums of doubles, so that every
/// product of two finite doubles is exact too, even where the product itself would overflow or underflow; nothing is
/// ever rounded or lost. Infinities and NaN are counted, not summed.
///
/// For scalars: loss, weights, metrics. An addition costs a few ns, a message 1,064 bytes.
#[derive(Clone, Debug)]
pub struct ExactSum {
    /// Σ limb[i]·2^(32 i − 2148); |limb[i]| ≤ (pending + 1)·2^32 below the top.
    limbs: [i64; LIMBS],
    pending: u32,
    non_finite: u64,
}

impl Default for ExactSum {
    fn default() -> Self {
        ExactSum::new()
    }
}

impl ExactSum {
    /// u64 words on the wire; wrapping addition of words of different ranks merges them.
    pub const WORDS: usize = LIMBS + 1;

    /// The empty sum, 0. Not collective.
    pub fn new() -> ExactSum {
        ExactSum { limbs: [0; LIMBS], pending: 0, non_finite: 0 }
    }

    /// Adds x exactly; counts it if it is infinite or NaN. Not collective.
    #[inline]
    pub fn add(&mut self, x: f64) {
        let Some((mantissa, place)) = parts(x) else {
            self.non_finite += 1;
            return;
        };
        self.make_room();
        let offset = (place as i32 + 1074) as usize; // places count from 2^-1074, limbs from 2^-2148
        let shift = (offset % 32) as u32;
        let low = mantissa << shift;
        let high = (mantissa >> 33) >> (31 - shift);
        let sign = (x.to_bits() as i64) >> 63;
        let limbs = &mut self.limbs[offset / 32..][..3];
        for (limb, piece) in limbs.iter_mut().zip([low as u32 as i64, (low >> 32) as i64, high as i64]) {
            *limb += (piece ^ sign) - sign;
        }
    }

    /// Adds the exact product a·b, all 106 bits of it, whatever its exponent; counted if a or b is infinite or NaN.
    /// Not collective. No fma and no splitting of doubles: the mantissas are multiplied as integers.
    #[inline]
    pub fn add_product(&mut self, a: f64, b: f64) {
        let (Some((a_mantissa, a_place)), Some((b_mantissa, b_place))) = (parts(a), parts(b)) else {
            self.non_finite += 1;
            return;
        };
        self.make_room();
        let product = u128::from(a_mantissa) * u128::from(b_mantissa);
        let offset = (a_place + b_place) as usize;
        let shift = (offset % 32) as u32;
        let low = product << shift;
        let high = (product >> 97) >> (31 - shift);
        let sign = ((a.to_bits() ^ b.to_bits()) as i64) >> 63;
        let pieces = [low as u32, (low >> 32) as u32, (low >> 64) as u32, (low >> 96) as u32, high as u32];
        let limbs = &mut self.limbs[offset / 32..][..5];
        for (limb, piece) in limbs.iter_mut().zip(pieces) {
            *limb += (i64::from(piece) ^ sign) - sign;
        }
    }

    /// Adds all that the other sum holds. Not collective.
    pub fn merge(&mut self, other: &ExactSum) {
        self.pass_carries();
        for (limb, other) in self.limbs.iter_mut().zip(&other.limbs) {
            *limb = limb.wrapping_add(*other);
        }
        self.pending = other.pending + 1;
        self.non_finite = self.non_finite.wrapping_add(other.non_finite);
    }

    /// The sum rounded once, to nearest, ties to even; infinite if it is beyond the largest double; never −0.
    /// None if infinities or NaN were counted. Not collective.
    pub fn value(&self) -> Option<f64> {
        (self.non_finite == 0).then(|| self.rounded())
    }

    /// How many of the added values (or products) were infinite or NaN. Not collective.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// The sum on the wire: limbs with all carries passed on, then the count of non-finite values. Equal sums have equal words.
    /// Not collective: SUM-reduce the words, wrapping; right for up to 2^21 ranks.
    pub fn to_words(&self) -> [u64; ExactSum::WORDS] {
        let sum = self.normalised();
        std::array::from_fn(|i| if i < LIMBS { sum.limbs[i] as u64 } else { sum.non_finite })
    }

    /// The sum of (summed) words of [`to_words`](Self::to_words). Not collective.
    ///
    /// # Panics
    /// If there are not [`WORDS`](Self::WORDS).
    pub fn from_words(words: &[u64]) -> ExactSum {
        assert_eq!(words.len(), ExactSum::WORDS, "words of one exact sum");
        let mut sum = ExactSum::new();
        for (limb, &word) in sum.limbs.iter_mut().zip(words) {
            *limb = word as i64;
        }
        sum.non_finite = words[LIMBS];
        sum.pass_carries();
        sum
    }

    #[inline(always)]
    fn make_room(&mut self) {
        if self.pending >= MAX_PENDING {
            self.pass_carries();
        }
        self.pending += 1;
    }

    /// Brings all limbs but the top into [0, 2^32): the one such form of the sum.
    #[cold]
    fn pass_carries(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let total = *limb + carry;
            *limb = total & LIMB_MASK;
            carry = total >> LIMB_BITS;
        }
        self.limbs[LIMBS - 1] = self.limbs[LIMBS - 1].wrapping_add(carry);
        self.pending = 0;
    }

    fn normalised(&self) -> ExactSum {
        let mut sum = self.clone();
        sum.pass_carries();
        sum
    }

    fn rounded(&self) -> f64 {
        let mut sum = self.normalised();
        let negative = sum.limbs[LIMBS - 1] < 0;
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = limb.wrapping_neg());
            sum.pass_carries();
        }
        if sum.limbs[LIMBS - 1] > LIMB_MASK {
            return if negative { f64::NEG_INFINITY } else { f64::INFINITY }; // beyond 2^2076
        }
        let top = sum.limbs.iter().rposition(|&limb| limb != 0).unwrap_or(0).max(3);
        let window = (top - 3..=top).rev().fold(0u128, |window, i| (window << LIMB_BITS) | sum.limbs[i] as u128);
        let below = sum.limbs[..top - 3].iter().any(|&limb| limb != 0);
        // At least 97 bits are significant if anything lies below: a set last bit only breaks ties, which is its purpose.
        fixed::to_f64(negative, window | u128::from(below), LOWEST + (LIMB_BITS as i32) * (top as i32 - 3))
    }
}

/// |x| = mantissa·2^(place − 1074), 0 ≤ place ≤ 2045; None if x is not finite.
#[inline(always)]
fn parts(x: f64) -> Option<(u64, u32)> {
    let bits = x.to_bits();
    let field = ((bits >> 52) & 0x7ff) as u32;
    let mantissa = (bits & ((1 << 52) - 1)) | (u64::from(field != 0) << 52);
    (field != 0x7ff).then_some((mantissa, field.max(1) - 1))
}

/// Equal sums of equally many non-finite values, however they were added.
impl PartialEq for ExactSum {
    fn eq(&self, other: &ExactSum) -> bool {
        self.to_words() == other.to_words()
    }
}

impl Extend<f64> for ExactSum {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|x| self.add(x));
    }
}

impl FromIterator<f64> for ExactSum {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> ExactSum {
        let mut sum = ExactSum::new();
        sum.extend(values);
        sum
    }
}

impl<'a> FromIterator<&'a f64> for ExactSum {
    fn from_iter<I: IntoIterator<Item = &'a f64>>(values: I) -> ExactSum {
        values.into_iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_are_passed_on_before_a_limb_overflows() {
        for sign in [1.0, -1.0] {
            // As after 2^30 − 1 additions of the worst pieces to every limb.
            let mut sum = ExactSum::new();
            sum.limbs[..LIMBS - 1].fill(sign as i64 * i64::from(MAX_PENDING - 1) * LIMB_MASK);
            sum.pending = MAX_PENDING - 1;
            let same = ExactSum::from_words(&sum.to_words());
            let mut full = sum.clone();
            full.add(sign * f64::MAX);
            assert_eq!(full.pending, MAX_PENDING);
            full.add(sign * f64::MAX);
            assert_eq!(full.pending, 1, "the carries were passed on");
            let mut merged = same.clone();
            merged.merge(&sum);
            merged.merge(&full);
            full.add(-sign * f64::MAX);
            full.add(-sign * f64::MAX);
            assert_eq!(full, same);
            assert!(merged.value().is_some());
        }
    }
}
