//! Sums over rows of products of two of their values: the gradient of weights.

use super::WIDTH;
use super::inner::ROUND;
use pulp::{Arch, Simd, WithSimd};

/// Rows of weights that one call should take: the slab and what it is made of stay in the first two caches.
pub const SLAB_ROWS: usize = 96;

/// `slab[j][c] += Σ_row left[row][j]·right[row][c]`, rows in order, each product and sum rounded once together. Not collective.
///
/// * `n_rows` rows; those of `left` begin at `left_at(row)` with the wanted values, those of `right` at `right_at(row)` with `width` ≤
///   [`WIDTH`] values.
/// * `slab`: (n, width) row-major, n ≤ the values of a row of `left`.
///
/// # Panics
/// If a slice is too short or `width` too large.
pub fn add_slab(
    left: &[f32],
    left_at: impl Fn(usize) -> usize,
    right: &[f32],
    right_at: impl Fn(usize) -> usize,
    n_rows: usize,
    width: usize,
    slab: &mut [f32],
) {
    assert!((1..=WIDTH).contains(&width) && slab.len().is_multiple_of(width), "a slab of {width} columns");
    Arch::new().dispatch(Outer { left, left_at, right, right_at, n_rows, width, slab });
}

struct Outer<'a, L, R> {
    left: &'a [f32],
    left_at: L,
    right: &'a [f32],
    right_at: R,
    n_rows: usize,
    width: usize,
    slab: &'a mut [f32],
}

impl<L: Fn(usize) -> usize, R: Fn(usize) -> usize> WithSimd for Outer<'_, L, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let n = self.slab.len() / self.width;
        let tall = if S::F32_LANES == 16 { 12 } else { 4 };
        let mut j = 0;
        while j + tall <= n {
            match tall {
                12 => self.tile::<S, 12>(simd, j),
                _ => self.tile::<S, 4>(simd, j),
            }
            j += tall;
        }
        while j + 4 <= n {
            self.tile::<S, 4>(simd, j);
            j += 4;
        }
        // Three rows are a line of the window of a grey image.
        match n - j {
            3 => self.tile::<S, 3>(simd, j),
            2 => self.tile::<S, 2>(simd, j),
            1 => self.tile::<S, 1>(simd, j),
            _ => {}
        }
    }
}

impl<L: Fn(usize) -> usize, R: Fn(usize) -> usize> Outer<'_, L, R> {
    /// MR rows of the slab from `j` on.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize>(&mut self, simd: S, j: usize) {
        let (lanes, width) = (S::F32_LANES, self.width);
        let mut first = 0;
        while first + 2 * lanes <= width {
            self.vectors::<S, MR, 2>(simd, j, first);
            first += 2 * lanes;
        }
        while first + lanes <= width {
            self.vectors::<S, MR, 1>(simd, j, first);
            first += lanes;
        }
        if first < width {
            self.partial::<S, MR>(simd, j, first);
        }
    }

    #[inline(always)]
    fn vectors<S: Simd, const MR: usize, const NV: usize>(&mut self, simd: S, j: usize, first: usize) {
        let len = NV * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
        for r in 0..MR {
            let (values, _) = S::as_simd_f32s(&self.slab[(j + r) * self.width + first..][..len]);
            sums[r].copy_from_slice(values);
        }
        let whole = self.n_rows - self.n_rows % ROUND;
        for row in (0..whole).step_by(ROUND) {
            sums = self.round::<S, MR, NV, ROUND>(simd, row, j, first, sums);
        }
        for row in whole..self.n_rows {
            sums = self.round::<S, MR, NV, 1>(simd, row, j, first, sums);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let (values, _) = S::as_mut_simd_f32s(&mut self.slab[(j + r) * self.width + first..][..len]);
            values.copy_from_slice(&sums);
        }
    }

    /// N rows from `row` on.
    #[inline(always)]
    fn round<S: Simd, const MR: usize, const NV: usize, const N: usize>(
        &self,
        simd: S,
        row: usize,
        j: usize,
        first: usize,
        mut sums: [[S::f32s; NV]; MR],
    ) -> [[S::f32s; NV]; MR] {
        let (mut xs, mut rights) = ([&[0.0; MR]; N], [&self.right[..0]; N]);
        for i in 0..N {
            xs[i] = self.left[(self.left_at)(row + i) + j..][..MR].try_into().expect("MR values");
            rights[i] = &self.right[(self.right_at)(row + i) + first..][..NV * S::F32_LANES];
        }
        for i in 0..N {
            let (right, _) = S::as_simd_f32s(rights[i]);
            let right: [S::f32s; NV] = right.try_into().expect("NV vectors");
            for r in 0..MR {
                let x = simd.splat_f32s(xs[i][r]);
                for v in 0..NV {
                    sums[r][v] = simd.mul_add_f32s(x, right[v], sums[r][v]);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn partial<S: Simd, const MR: usize>(&mut self, simd: S, j: usize, first: usize) {
        let len = self.width - first;
        let mut sums = [simd.splat_f32s(0.0); MR];
        for r in 0..MR {
            sums[r] = simd.partial_load_f32s(&self.slab[(j + r) * self.width + first..][..len]);
        }
        for row in 0..self.n_rows {
            let x: &[f32; MR] = self.left[(self.left_at)(row) + j..][..MR].try_into().expect("MR values");
            let right = simd.partial_load_f32s(&self.right[(self.right_at)(row) + first..][..len]);
            for r in 0..MR {
                sums[r] = simd.mul_add_f32s(simd.splat_f32s(x[r]), right, sums[r]);
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            simd.partial_store_f32s(&mut self.slab[(j + r) * self.width + first..][..len], sums);
        }
    }
}
