//! Sums over rows of products of two of their values: the gradient of weights.

use super::packed::{pack, packed_len};
use super::vectors::{load, store};
use super::{Aligned, Segment, WIDTH, zeros};
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;

/// Rows of weights that one call should take: the slab and what it is made of stay in the first two caches.
pub const SLAB_ROWS: usize = 3 * WIDTH;

/// `slab[j][c] += Σ_row left[row][j]·right[row][c]`, rows in order, each product and sum rounded once together. Not collective.
///
/// * `left`: [packed](super::pack) rows, from the panel on whose first column is j = 0.
/// * `right`: as many packed rows, of which these are the columns of one panel; best if [`Aligned`].
/// * `slab`: (n, width) row-major, width ≤ [`WIDTH`].
///
/// # Panics
/// If a slice is too short or `width` too large.
pub fn add_packed_slab(left: &[f32], right: &[f32], n_rows: usize, width: usize, slab: &mut [f32]) {
    assert!((1..=WIDTH).contains(&width) && slab.len().is_multiple_of(width), "a slab of {width} columns");
    if n_rows > 0 {
        let (left, _) = left[..packed_len(n_rows, slab.len() / width)].as_chunks();
        let (right, _) = right[..n_rows * WIDTH].as_chunks();
        Arch::new().dispatch(Outer { left, right, width, slab });
    }
}

/// Rows that [`add_slab`] packs at once.
const PACKED_ROWS: usize = 128;

thread_local! {
    static ROOM: RefCell<[Aligned; 2]> = RefCell::new([zeros(0), zeros(PACKED_ROWS * WIDTH)]);
}

/// The same of rows that lie anywhere: those of `left` begin at `left_at(row)` with the wanted values, those of `right` at `right_at(row)` with `width`
/// values. Not collective.
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
    let [of_left, of_right] = [slab.len() / width, width].map(|len| [Segment { offset: 0, len }]);
    ROOM.with_borrow_mut(|[packed_left, packed_right]| {
        let n_left = packed_len(PACKED_ROWS, slab.len() / width);
        if packed_left.len() < n_left {
            *packed_left = zeros(n_left);
        }
        for first in (0..n_rows).step_by(PACKED_ROWS) {
            let n = PACKED_ROWS.min(n_rows - first);
            pack(left, |row| left_at(first + row), n, &of_left, packed_left);
            pack(right, |row| right_at(first + row), n, &of_right, packed_right);
            add_packed_slab(packed_left, packed_right, n, width, slab);
        }
    });
}

struct Outer<'a> {
    left: &'a [[f32; WIDTH]],
    right: &'a [[f32; WIDTH]],
    width: usize,
    slab: &'a mut [f32],
}

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Outer { right, width, slab, .. } = self;
        for (left, slab) in self.left.chunks_exact(right.len()).zip(slab.chunks_mut(WIDTH * width)) {
            if width == WIDTH {
                add::<S>(simd, left, right, width, slab.as_chunks_mut().0);
            } else {
                let mut whole = [[0.0; WIDTH]; WIDTH];
                let whole = &mut whole[..slab.len() / width];
                let rows = whole.iter_mut().zip(slab.chunks_exact(width));
                rows.for_each(|(to, from)| to[..width].copy_from_slice(from));
                add::<S>(simd, left, right, width, whole);
                slab.chunks_exact_mut(width).zip(whole).for_each(|(to, from)| to.copy_from_slice(&from[..width]));
            }
        }
    }
}

/// Some rows of a slab, at most as many as `left` has columns, of which the first `width` columns are wanted.
#[inline(always)]
fn add<S: Simd>(simd: S, left: &[[f32; WIDTH]], right: &[[f32; WIDTH]], width: usize, mut slab: &mut [[f32; WIDTH]]) {
    // Thirty-two registers hold twelve rows of two vectors and more; sixteen hold four.
    let is_tall = S::F32_LANES == 16;
    let mut first = 0;
    while !slab.is_empty() {
        let n = match slab.len() {
            12.. if is_tall => rows::<S, 12>(simd, left, first, right, width, slab),
            8.. if is_tall => rows::<S, 8>(simd, left, first, right, width, slab),
            4.. => rows::<S, 4>(simd, left, first, right, width, slab),
            _ => rows::<S, 1>(simd, left, first, right, width, slab),
        };
        (first, slab) = (first + n, &mut slab[n..]);
    }
}

/// The first MR rows of a slab, which are of columns `first`… of `left`. Returns how many.
#[inline(always)]
fn rows<S: Simd, const MR: usize>(
    simd: S,
    left: &[[f32; WIDTH]],
    first: usize,
    right: &[[f32; WIDTH]],
    width: usize,
    slab: &mut [[f32; WIDTH]],
) -> usize {
    let (lanes, slab) = (S::F32_LANES, slab.first_chunk_mut::<MR>().expect("MR rows"));
    for column in (0..width).step_by(2 * lanes) {
        match column + lanes < width {
            true => vectors::<S, MR, 2>(simd, left, first, right, column, slab),
            false => vectors::<S, MR, 1>(simd, left, first, right, column, slab),
        }
    }
    MR
}

/// Of MR rows NV vectors of columns from `column` on.
#[inline(always)]
fn vectors<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    left: &[[f32; WIDTH]],
    first: usize,
    right: &[[f32; WIDTH]],
    column: usize,
    slab: &mut [[f32; WIDTH]; MR],
) {
    // Loops of known lengths: the sums of others would not stay in registers.
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    for r in 0..MR {
        sums[r] = load::<S, NV>(&slab[r], column);
    }
    for (left, right) in left.iter().zip(right) {
        let xs: &[f32; MR] = left[first..][..MR].try_into().expect("MR values");
        let right = load::<S, NV>(right, column);
        for r in 0..MR {
            let x = simd.splat_f32s(xs[r]);
            for v in 0..NV {
                sums[r][v] = simd.mul_add_f32s(x, right[v], sums[r][v]);
            }
        }
    }
    for r in 0..MR {
        store::<S, NV>(&sums[r], &mut slab[r], column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};
    use pulp::Scalar;

    #[test]
    fn processors_with_and_without_vectors_have_the_same_bits() {
        let draws = Draws::new(31, Stream::Synthetic);
        let numbers = |n: usize, of| (0..n).map(|i| draws.normal(i as u64, of) as f32).collect::<Vec<f32>>();
        for (m, k, width) in [(1, 1, 1), (3, 29, 32), (9, 12, 31), (7, 13, 16), (5, 25, 10), (2, 96, 17)] {
            let (left, right) = (numbers(packed_len(m, k), 0), numbers(m * WIDTH, 1));
            let before = numbers(k * width, 2);
            let (of_left, of_right) = (left.as_chunks().0, right.as_chunks().0);
            let bits = |slab: Vec<f32>| slab.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            let by = |make: &dyn Fn(Outer<'_>)| {
                let mut slab = before.clone();
                make(Outer { left: of_left, right: of_right, width, slab: &mut slab });
                bits(slab)
            };
            let plain = by(&|outer| Simd::vectorize(Scalar::new(), outer));
            #[cfg(target_arch = "x86_64")]
            {
                use pulp::x86::{V3, V4};
                for vectors in [
                    V3::try_new().map(|simd| by(&|outer| Simd::vectorize(simd, outer))),
                    V4::try_new().map(|simd| by(&|outer| Simd::vectorize(simd, outer))),
                ] {
                    assert!(vectors.is_none_or(|vectors| vectors == plain), "{m} rows, {k} × {width}");
                }
            }
            let mut slab = before.clone();
            add_packed_slab(&left, &right, m, width, &mut slab);
            assert_eq!(bits(slab), plain, "{m} rows, {k} × {width}");
        }
    }
}
