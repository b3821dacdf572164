//! Doubles to 128-bit integers and back, each rounded once to nearest even; and the integers' form on the wire.

use super::scale::scale_by_pow2;

/// Payload bits of a limb on the wire.
const LIMB_BITS: u32 = 42;
const LIMB_MASK: i128 = (1 << LIMB_BITS) - 1;
/// u64 words an integer takes on the wire.
pub const LIMBS: usize = 3;

/// rint(x·2^shift), ties to even, from the mantissa by shifts: the plain twin of
/// [`kernels::add_fixed`](super::kernels::add_fixed), which does the same in floats.
///
/// # Panics
/// If x is not finite or the result needs more than 126 bits.
#[cfg(test)]
pub fn to_fixed(x: f64, shift: i32) -> i128 {
    assert!(x.is_finite(), "{x} has no integer");
    let bits = x.to_bits();
    let field = ((bits >> 52) & 0x7ff) as i32;
    let mantissa = (bits & ((1 << 52) - 1)) | (u64::from(field != 0) << 52);
    let up = field.max(1) - 1075 + shift;
    let magnitude = if up >= 0 {
        assert!(mantissa == 0 || up <= 73, "{x:e}·2^{shift} is beyond 126 bits");
        u128::from(mantissa) << if mantissa == 0 { 0 } else { up }
    } else {
        shift_right_to_even(u128::from(mantissa), up.unsigned_abs())
    };
    if bits >> 63 == 0 { magnitude as i128 } else { -(magnitude as i128) }
}

/// magnitude / 2^by, to nearest, ties to even.
fn shift_right_to_even(magnitude: u128, by: u32) -> u128 {
    match by {
        0 => magnitude,
        1..=127 => {
            let floor = magnitude >> by;
            let rest = magnitude << (128 - by);
            let half = 1 << 127;
            floor + u128::from(rest > half || (rest == half && floor & 1 == 1))
        }
        128 => u128::from(magnitude > 1 << 127),
        _ => 0,
    }
}

/// ±magnitude·2^exponent rounded once to the nearest double, ties to even, also into the denormals; infinite on
/// overflow; never −0.
pub fn to_f64(negative: bool, magnitude: u128, exponent: i32) -> f64 {
    if magnitude == 0 {
        return 0.0;
    }
    let top_bit = 127 - magnitude.leading_zeros() as i32;
    let unit = (top_bit + exponent - 52).max(-1074).max(exponent);
    let mantissa = shift_right_to_even(magnitude, (unit - exponent) as u32);
    let rounded = scale_by_pow2(mantissa as f64, unit);
    if negative && rounded != 0.0 { -rounded } else { rounded }
}

/// The integer as limbs: two in [0, 2^42), the top one signed. Element-wise wrapping sums of the limbs of up to
/// 2^21 integers join to the integers' sum, if that fits 126 bits.
pub fn split(q: i128) -> [u64; LIMBS] {
    [(q & LIMB_MASK) as u64, ((q >> LIMB_BITS) & LIMB_MASK) as u64, (q >> (2 * LIMB_BITS)) as u64]
}

/// The integer of summed [`split`] limbs.
pub fn join(limbs: &[u64]) -> i128 {
    let [low, middle, top] = [limbs[0], limbs[1], limbs[2]].map(|limb| i128::from(limb as i64));
    low.wrapping_add(middle << LIMB_BITS).wrapping_add(top << (2 * LIMB_BITS))
}
