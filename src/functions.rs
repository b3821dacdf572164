//! Transcendental functions that give the same bits on every processor, and vectorise.
//!
//! The system's `exp` and `log` differ between machines (EXACT law 4.7); the `libm` crate's do not, but are
//! called once a row. These two are plain arithmetic in one fixed order, without branches, so a loop over rows
//! becomes SIMD code; no operation here is ever contracted to a fused one.
//!
//! [`check_denormals`] looks at the one mode of the processor that others could change under all arithmetic.

use crate::error::{Error, Result};
use std::hint::black_box;

/// Refuses a pool of threads of which one rounds numbers below 2^−1022 to zero. Not collective.
///
/// Loading a library that was linked with -ffast-math sets that mode, for the loading thread and those it starts; an HDF5 filter
/// plugin may come in the middle of a run, on one thread of one rank (`EXACT` 4.6). So it is asked at the start of a world
/// and once more when the table was read.
pub fn check_denormals() -> Result<()> {
    let kept = rayon::broadcast(|_| black_box(f64::MIN_POSITIVE) * black_box(0.5) > 0.0);
    match kept.into_iter().all(|kept| kept) {
        true => Ok(()),
        false => Err(Error::usage(
            "a library in this process rounds numbers below 2e-308 to zero, so results would depend on where it is loaded; \
             use a build of it without -ffast-math (look at LD_PRELOAD and at HDF5_PLUGIN_PATH)",
        )),
    }
}

/// exp(x) for x ≤ 0 (and up to 700), relative error below 4e-16; 0 below −708, where exp is subnormal.
///
/// x = k·ln 2 + r with |r| ≤ ½ ln 2; exp(r) by its Taylor polynomial of degree 13 (remainder below 2^−58),
/// evaluated by Horner's rule; 2^k is put together from bits.
#[inline]
pub fn exp(x: f64) -> f64 {
    const LOG2_E: f64 = std::f64::consts::LOG2_E;
    // ln 2 in two parts, the first with trailing zeros, so that k·LN2_HIGH is exact (fdlibm's constants).
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Adding and subtracting 1.5·2^52 rounds to the nearest integer.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const INVERSE_FACTORIALS: [f64; 14] = [
        1.0,
        1.0,
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0,
    ];
    let below = x < -708.0;
    let clamped = if below { -708.0 } else { x };
    let shifted = clamped * LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (clamped - k * LN2_HIGH) - k * LN2_LOW;
    let mut p = INVERSE_FACTORIALS[13];
    for n in (0..13).rev() {
        p = p * r + INVERSE_FACTORIALS[n];
    }
    // The low bits of `shifted` hold k in two's complement: 2^k as an exponent field.
    let two_k = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let result = p * two_k;
    if below { 0.0 } else { result }
}

/// log(1 + x) for 0 ≤ x ≤ 1, absolute error below 3e-16, relative below 5e-16.
///
/// s = x/(2 + x) lies in [0, 1/3]; log(1 + x) = 2 artanh(s) = 2s(1 + s²/3 + s⁴/5 + …), 17 terms (remainder below 2^−55).
#[inline]
pub fn log_1p_unit(x: f64) -> f64 {
    let s = x / (2.0 + x);
    let z = s * s;
    let mut p = 1.0 / 33.0;
    for n in (0..16).rev() {
        p = p * z + 1.0 / f64::from(2 * n + 1);
    }
    2.0 * (s * p)
}

/// Asks the processor to have a value at hand soon.
#[inline(always)]
#[allow(
    unsafe_code,
    reason = "a hint to the processor that has no safe wrapper; a pass over a large table takes 0.8 of the time"
)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and cannot fault; the address is that of a value we hold.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// [`prefetch`] of a value of a slice; of none beyond its end.
#[inline(always)]
pub fn prefetch_at<T>(values: &[T], at: usize) {
    if let Some(value) = values.get(at) {
        prefetch(value);
    }
}

/// Asks the processor to have these values at hand soon, to be written: cores that read them lately have to let go of them first, which
/// takes long for one line of a cache after the other, and no longer for many at once.
#[inline(always)]
#[allow(unsafe_code, reason = "a hint to the processor that has no safe wrapper")]
pub fn prefetch_to_write<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>().clamp(1, 64)) {
        // SAFETY: the instruction reads and writes nothing that a program can see, whatever the address; processors that do not know it pass over it.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly))
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        for i in 0..=1_400_000 {
            let x = -700.0 + f64::from(i) * 0.001 + 1e-5 * f64::from(i % 7);
            let reference = libm::exp(x);
            assert!(((exp(x) - reference) / reference).abs() < 5e-16, "exp({x}) = {} not {reference}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-800.0), 0.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn log_1p_unit_is_within_two_units_of_the_last_place() {
        for i in 0..=1_000_000 {
            let x = f64::from(i) * 1e-6;
            let reference = libm::log1p(x);
            assert!((log_1p_unit(x) - reference).abs() <= 6e-16 * reference.max(1e-300), "log1p({x})");
        }
        assert_eq!(log_1p_unit(0.0), 0.0);
    }
}
