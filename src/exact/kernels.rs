//! The loops that touch every element: compiled for AVX-512, AVX2 and the baseline, chosen at run time.
//!
//! Every instruction used is exactly rounded and Rust never contracts a·b + c, so all versions give the same bits.
//! Rounding to nearest even is done by adding and taking away 1.5·2^52: the sum's low mantissa bits are the integer.

use multiversion::multiversion;

/// 1.5·2^52: added to |v| ≤ 2^51 it leaves rint(v), ties to even, in the low 52 bits, in two's complement.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const MAGIC_BITS: i64 = MAGIC.to_bits() as i64;
const TWO_50: f64 = (1u64 << 50) as f64;

/// 2^e for −1022 ≤ e ≤ 1023, without a branch.
#[inline(always)]
fn normal_pow2(e: i64) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// `(high[j], low[j]) += rint(x[j]·2^(s−1−exponents[j]))` as 128-bit integers; returns how many x are not below their bound,
/// |x| < 2^(exponents[j]+1); those (NaN, infinities) add nothing. Not collective.
///
/// * all slices of one length; −1074 ≤ exponents ≤ 1023; 51 ≤ s ≤ 100.
///
/// y = x·2^(s−51−e), |y| < 2^50, is cut into h = rint(y) and l = rint((y − h)·2^50): h·2^50 + l = rint(y·2^50) with ties to
/// even, since h·2^50 is even. y is made by two factors since 2^(s−51−e) may be no double; what the product loses below
/// 2^−1022 is far below a half.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn add_fixed(low: &mut [u64], high: &mut [i64], x: &[f64], exponents: &[i32], s: i32) -> u64 {
    let n = x.len();
    let (low, high, exponents) = (&mut low[..n], &mut high[..n], &exponents[..n]);
    let limit = normal_pow2(i64::from(s - 50));
    let mut beyond = 0u64;
    for j in 0..n {
        beyond = beyond.wrapping_add(add_one(&mut low[j], &mut high[j], x[j], exponents[j], s, limit));
    }
    beyond
}

/// [`add_fixed`] of one element: for those that are scattered.
#[inline]
pub fn add_fixed_one(low: &mut u64, high: &mut i64, x: f64, exponent: i32, s: i32) -> u64 {
    add_one(low, high, x, exponent, s, normal_pow2(i64::from(s - 50)))
}

/// 1 where |y| ≥ `limit`: x is beyond its bound.
#[inline(always)]
fn add_one(low: &mut u64, high: &mut i64, x: f64, exponent: i32, s: i32, limit: f64) -> u64 {
    let up = i64::from(s - 51 - exponent);
    let half = up >> 1;
    let y = x * normal_pow2(half) * normal_pow2(up - half);
    let fits = y.abs() < limit;
    let y = if fits { y } else { 0.0 };
    let shifted = y + MAGIC;
    let h = (shifted.to_bits() as i64).wrapping_sub(MAGIC_BITS);
    let rest = (y - (shifted - MAGIC)) * TWO_50;
    let l = ((rest + MAGIC).to_bits() as i64).wrapping_sub(MAGIC_BITS);
    let h_low = (h << 50) as u64;
    let q_low = h_low.wrapping_add(l as u64);
    let q_high = (h >> 14).wrapping_add(l >> 63).wrapping_add(i64::from(q_low < h_low));
    let sum = low.wrapping_add(q_low);
    *high = high.wrapping_add(q_high).wrapping_add(i64::from(sum < q_low));
    *low = sum;
    u64::from(!fits)
}

/// `peaks[j] = max(peaks[j], bits of |x[j]|)`: orders as the magnitudes do, infinity above numbers, NaN above infinity.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn raise_peaks(peaks: &mut [u64], x: &[f64]) {
    for (peak, x) in peaks.iter_mut().zip(x) {
        *peak = (*peak).max(x.to_bits() & (u64::MAX >> 1));
    }
}

/// max(bits(g) & 0x7fffffff), 0 for an empty slice.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn peak_f32(g: &[f32]) -> i32 {
    g.iter().fold(0, |peak, g| peak.max((g.to_bits() & 0x7fff_ffff) as i32))
}

/// `sums[j] += clamp(rint(g[j]·scale), ±limit)`, wrapping. `limit` ≤ 2^31 − 1. NaN adds something arbitrary.
///
/// In f64: the product with a power of two is exact and every limit below 2^31 is a double.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn add_lane_32(sums: &mut [u32], g: &[f32], scale: f64, limit: f64) {
    for (sum, &g) in sums.iter_mut().zip(g) {
        let v = (f64::from(g) * scale).clamp(-limit, limit);
        *sum = sum.wrapping_add((v + MAGIC).to_bits() as u32);
    }
}

/// 1.5·2^23: the same for f32 and |v| ≤ 2^22. Its bits are [`MAGIC_F32_BITS`] above those of 0.
const MAGIC_F32: f32 = 12_582_912.0;
const MAGIC_F32_BITS: u32 = MAGIC_F32.to_bits();
/// The same of a high half, less what the bits of the low one are too many: both together need nothing taken away.
const MAGIC_HIGH: f32 = MAGIC_F32 + ((1 << 16) - (MAGIC_F32_BITS >> 16)) as f32;

/// [`add_lane_32`] where no |g[j]|·scale reaches 2^31 and nothing is clamped: in f32, twice as many in a vector. `scale`: a power of two.
///
/// v = h·2^16 + l, h = rint(v/2^16): the same cut as in [`add_fixed`]. h·2^16 and l are floats whose bits are among those of v.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn add_lane_32_within(sums: &mut [u32], g: &[f32], scale: f32) {
    const TWO_16: f32 = 65_536.0;
    for (sum, &g) in sums.iter_mut().zip(g) {
        let v = g * scale;
        let high = v * (1.0 / TWO_16) + MAGIC_HIGH;
        let low = v - (high - MAGIC_HIGH) * TWO_16 + MAGIC_F32;
        *sum = sum.wrapping_add((high.to_bits() << 16).wrapping_add(low.to_bits()));
    }
}

/// q = clamp(rint(values[j]/unit), ±limit): `sums[j] += q`, wrapping, and `values[j] = q·unit`. `limit` ≤ 2^31 − 1, `unit` a power of two.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn send_lane_32(sums: &mut [u32], values: &mut [f32], unit: f64, limit: f64) {
    let scale = 1.0 / unit;
    for (sum, value) in sums.iter_mut().zip(values) {
        let shifted = (f64::from(*value) * scale).clamp(-limit, limit) + MAGIC;
        *sum = sum.wrapping_add(shifted.to_bits() as u32);
        *value = ((shifted - MAGIC) * unit) as f32;
    }
}

/// v = g[j] + residual[j] in f32: `sums[j] += q = clamp(rint(v/unit), ±limit)`, wrapping, and `residual[j] = v − q·unit`. `limit` ≤ 2^31 − 1, `unit` a
/// power of two.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn add_lane_fed(sums: &mut [u32], g: &[f32], residual: &mut [f32], unit: f64, limit: f64) {
    let scale = 1.0 / unit;
    for ((sum, &g), residual) in sums.iter_mut().zip(g).zip(residual) {
        let v = f64::from(g + *residual);
        let shifted = (v * scale).clamp(-limit, limit) + MAGIC;
        *sum = sum.wrapping_add(shifted.to_bits() as u32);
        *residual = (v - (shifted - MAGIC) * unit) as f32;
    }
}

/// `sums[j] += clamp(rint(g[j]·scale), ±limit)`, wrapping. `limit` < 2^63. NaN adds something arbitrary.
///
/// v = h·2^32 + l, h = rint(v/2^32): the same cut as in [`add_fixed`].
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn add_lane_64(sums: &mut [u64], g: &[f32], scale: f64, limit: f64) {
    const TWO_32: f64 = 4_294_967_296.0;
    for (sum, &g) in sums.iter_mut().zip(g) {
        let v = (f64::from(g) * scale).clamp(-limit, limit);
        let shifted = v * (1.0 / TWO_32) + MAGIC;
        let rest = v - (shifted - MAGIC) * TWO_32;
        let h = shifted.to_bits() << 32;
        let l = (rest + MAGIC).to_bits().wrapping_sub(MAGIC_BITS as u64);
        *sum = sum.wrapping_add(h).wrapping_add(l);
    }
}

/// `out[j] = sums[j]·unit` as f32, rounded once: the product in f64 is exact. Adding 0.0 makes −0 (a tiny negative) +0. `unit`: a power of two.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn finish_32(out: &mut [f32], sums: &[u32], unit: f64) {
    let narrow = unit as f32;
    // What is normal is rounded where the integer becomes a float.
    if narrow.is_normal() {
        out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum as i32 as f32 * narrow);
    } else {
        out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = (f64::from(sum as i32) * unit) as f32 + 0.0);
    }
}

/// `out[j] = sums[j]·unit` as f32, rounded once.
///
/// Integers of more than 53 bits are first cut to 52 bits by rounding to odd (drop 11 bits; if any was set, set the
/// last kept one), which never changes the rounding to 24 bits that follows.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn finish_64(out: &mut [f32], sums: &[u64], unit: f64) {
    const DROPPED: i64 = (1 << 11) - 1;
    for (out, &sum) in out.iter_mut().zip(sums) {
        let sum = sum as i64;
        let odd = (sum & !DROPPED) | (((sum & DROPPED).wrapping_add(DROPPED)) & (DROPPED + 1));
        let small = sum.wrapping_add(1 << 52) as u64 <= 1 << 53;
        *out = ((if small { sum } else { odd }) as f64 * unit) as f32 + 0.0;
    }
}
