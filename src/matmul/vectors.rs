//! Vectors of rows whose lengths are known: what is checked for every vector costs the registers of those that are worked with.

use super::WIDTH;
use pulp::Simd;

/// NV vectors of a row, from `column` on.
#[inline(always)]
pub(super) fn load<S: Simd, const NV: usize>(row: &[f32; WIDTH], column: usize) -> [S::f32s; NV] {
    let (vectors, _) = S::as_simd_f32s(&row[column..column + NV * S::F32_LANES]);
    vectors.try_into().expect("NV vectors")
}

/// Puts them back.
#[inline(always)]
pub(super) fn store<S: Simd, const NV: usize>(vectors: &[S::f32s; NV], row: &mut [f32; WIDTH], column: usize) {
    let (to, _) = S::as_mut_simd_f32s(&mut row[column..column + NV * S::F32_LANES]);
    to.copy_from_slice(vectors);
}
