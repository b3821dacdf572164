//! Exponents, exact powers of two and order keys of floats. Everything is done on the bits: no rounding, no library
//! function, the same on every processor.

/// [`exponent_of`] of a zero: no exponent at all, below every other.
pub const ZERO: i32 = i32::MIN;
/// [`exponent_of`] of an infinity or NaN: above every other, so that a MAX over ranks keeps it.
pub const NON_FINITE: i32 = i32::MAX;

/// The exponent e of |x|: 2^e ≤ |x| < 2^(e+1), −1074 … 1023, denormals included. Not collective.
/// [`ZERO`] for ±0, [`NON_FINITE`] for infinities and NaN.
pub fn exponent_of(x: f64) -> i32 {
    let magnitude = x.to_bits() & (u64::MAX >> 1);
    match (magnitude >> 52) as i32 {
        0 if magnitude == 0 => ZERO,
        0 => 63 - magnitude.leading_zeros() as i32 - 1074,
        0x7ff => NON_FINITE,
        field => field - 1023,
    }
}

/// The exponent e of |x|: 2^e ≤ |x| < 2^(e+1), −149 … 127, denormals included. Not collective.
/// [`ZERO`] for ±0, [`NON_FINITE`] for infinities and NaN.
pub fn exponent_of_f32(x: f32) -> i32 {
    exponent_of(f64::from(x))
}

/// 2^e exactly, denormal results included; 0 below 2^−1074 and infinity above 2^1023. Not collective.
pub const fn pow2(e: i32) -> f64 {
    f64::from_bits(match e {
        1024.. => 0x7ff << 52,
        -1022..=1023 => ((e + 1023) as u64) << 52,
        -1074..=-1023 => 1 << (e + 1074),
        _ => 0,
    })
}

/// 2^e exactly, denormal results included; 0 below 2^−149 and infinity above 2^127. Not collective.
pub const fn pow2_f32(e: i32) -> f32 {
    f32::from_bits(match e {
        128.. => 0xff << 23,
        -126..=127 => ((e + 127) as u32) << 23,
        -149..=-127 => 1 << (e + 149),
        _ => 0,
    })
}

/// x·2^e, exact unless the result overflows (then infinite) or loses bits below 2^−1074 (then rounded; twice if e is
/// below −1074 as well, so do not use it to round). Any e. Not collective.
///
/// Done by factors, so that 2^e itself need not be a double: 2^−1074 · 2^2000 is exact.
pub fn scale_by_pow2(x: f64, e: i32) -> f64 {
    let e = e.clamp(-2200, 2200);
    let (first, second) = (e / 3, e / 3);
    x * pow2(first) * pow2(second) * pow2(e - first - second)
}

/// [`exponent_of`] for sums of exponents: far below every double for a zero, far above for infinities and NaN, and far enough from the
/// ends of i32 to be added to others. Not collective.
pub fn bounding_exponent(x: f64) -> i32 {
    match exponent_of(x) {
        ZERO => -100_000,
        e => e.min(100_000),
    }
}

/// ⌈log2 n⌉; 0 for n = 0 and 1. Not collective.
pub const fn ceil_log2(n: u64) -> u32 {
    if n <= 1 { 0 } else { 64 - (n - 1).leading_zeros() }
}

/// S, the bits of one full-batch contribution: min(100, 125 − ⌈log2 N⌉), so that N contributions of |q| ≤ 2^S stay
/// within 2^125 (`EXACT` 2c). `n_contributions` is counted over all ranks. Not collective.
pub const fn contribution_bits(n_contributions: u64) -> i32 {
    let room = 125 - ceil_log2(n_contributions) as i32;
    if room < 100 { room } else { 100 }
}

/// An integer that orders as the float does: `a < b ⇔ order_key(a) < order_key(b)`. Not collective.
///
/// −0 counts as +0. Floats are compared through this key when a maximum crosses ranks (`EXACT` 4.1).
///
/// # Panics
/// If x is NaN: it has no place in an order; callers count NaNs apart.
pub fn order_key(x: f64) -> i64 {
    assert!(!x.is_nan(), "order_key of NaN: count it apart");
    let i = (x + 0.0).to_bits() as i64;
    i ^ (((i >> 63) as u64) >> 1) as i64
}

/// The float of an [`order_key`]. Not collective.
pub fn from_order_key(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// As [`order_key`], for f32.
///
/// # Panics
/// If x is NaN.
pub fn order_key_f32(x: f32) -> i32 {
    assert!(!x.is_nan(), "order_key_f32 of NaN: count it apart");
    let i = (x + 0.0).to_bits() as i32;
    i ^ (((i >> 31) as u32) >> 1) as i32
}

/// The float of an [`order_key_f32`]. Not collective.
pub fn from_order_key_f32(key: i32) -> f32 {
    f32::from_bits((key ^ (((key >> 31) as u32) >> 1) as i32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_power_of_two_has_its_own_exponent() {
        for e in -1074..=1023 {
            assert_eq!(exponent_of(pow2(e)), e);
            assert_eq!(exponent_of(-pow2(e)), e);
            if e < 1023 {
                assert_eq!(exponent_of(pow2(e + 1).next_down()), e, "the last below 2^{}", e + 1);
                assert_eq!(pow2(e) * 2.0, pow2(e + 1));
            }
        }
        for e in -149..=127 {
            assert_eq!(exponent_of_f32(pow2_f32(e)), e);
            assert_eq!(f64::from(pow2_f32(e)), pow2(e));
        }
        assert_eq!((pow2(-1075), pow2(1024)), (0.0, f64::INFINITY));
        assert_eq!((pow2_f32(-150), pow2_f32(128)), (0.0, f32::INFINITY));
        for zero in [0.0, -0.0] {
            assert_eq!(exponent_of(zero), ZERO);
        }
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(exponent_of(odd), NON_FINITE);
        }
    }

    #[test]
    fn scaling_crosses_the_whole_range_exactly() {
        for e in -1074..=1023 {
            for by in [-2097, -1100, -1, 0, 1, 1000, 2097] {
                if (-1074..=1023).contains(&(e + by)) {
                    assert_eq!(scale_by_pow2(pow2(e), by), pow2(e + by), "2^{e} by 2^{by}");
                }
            }
        }
        assert_eq!(scale_by_pow2(1.5, i32::MAX), f64::INFINITY);
        assert_eq!(scale_by_pow2(1.5, i32::MIN), 0.0);
    }

    #[test]
    fn order_keys_sort_as_the_numbers_do_and_return() {
        let sorted = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -1.0,
            -pow2(-1074),
            0.0,
            pow2(-1074),
            1e-300,
            1.0,
            f64::MAX,
            f64::INFINITY,
        ];
        assert!(sorted.windows(2).all(|w| order_key(w[0]) < order_key(w[1])));
        assert!(sorted.iter().all(|&x| from_order_key(order_key(x)).to_bits() == x.to_bits()));
        assert_eq!(order_key(-0.0), order_key(0.0));
        assert_eq!(from_order_key(order_key(-0.0)).to_bits(), 0);
        assert_eq!(order_key_f32(-0.0), order_key_f32(0.0));
        let small: Vec<f32> =
            vec![f32::NEG_INFINITY, -2.0, -f32::from_bits(1), 0.0, f32::from_bits(1), 2.0, f32::INFINITY];
        assert!(small.windows(2).all(|w| order_key_f32(w[0]) < order_key_f32(w[1])));
        assert!(small.iter().all(|&x| from_order_key_f32(order_key_f32(x)).to_bits() == x.to_bits()));
    }

    #[test]
    fn contributions_leave_room_for_their_number() {
        assert_eq!([0, 1, 2, 3, 4, 5, u64::MAX].map(ceil_log2), [0, 0, 1, 2, 2, 3, 64]);
        assert_eq!([1, 1 << 25, (1 << 25) + 1, 1 << 40, u64::MAX].map(contribution_bits), [100, 100, 99, 85, 61]);
    }
}
