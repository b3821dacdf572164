//! Vectors that may be cut short.

use pulp::Simd;

/// Loads the first `n` numbers, or as many as the vectors hold.
#[inline(always)]
pub(super) fn load<S: Simd, const NV: usize>(simd: S, from: &[f32], n: usize, to: &mut [S::f32s; NV]) {
    let lanes = S::F32_LANES;
    if n >= NV * lanes {
        let (values, _) = S::as_simd_f32s(&from[..NV * lanes]);
        to.copy_from_slice(values);
    } else {
        for v in 0..NV {
            to[v] = simd.partial_load_f32s(&from[v * lanes..n.min((v + 1) * lanes)]);
        }
    }
}

/// Stores the first `n` numbers, or as many as the vectors hold.
#[inline(always)]
pub(super) fn store<S: Simd, const NV: usize>(simd: S, from: &[S::f32s; NV], n: usize, to: &mut [f32]) {
    let lanes = S::F32_LANES;
    if n >= NV * lanes {
        let (values, _) = S::as_mut_simd_f32s(&mut to[..NV * lanes]);
        values.copy_from_slice(from);
    } else {
        for v in 0..NV {
            simd.partial_store_f32s(&mut to[v * lanes..n.min((v + 1) * lanes)], from[v]);
        }
    }
}
