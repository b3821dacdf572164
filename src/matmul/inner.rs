//! Rows times weights.

use super::narrow::widen;
use super::packed::{is_aligned, pack, packed_len};
use super::vectors::{load, store};
use super::{Aligned, Panels, Segment, WIDTH, Weights, zeros};
use crate::functions::prefetch_all;
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use std::ops::Range;

/// Inner indices that are worked through while a panel's part of them is in the first cache. Not part of the answer.
const BLOCK: usize = 192;

/// Rows that go through all panels at once: packed, they stay in the second cache. Not part of the answer.
const MOST_ROWS: usize = 128;

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room::new());
}

/// What a product works on lies together here.
struct Room {
    /// All rows, packed to the width of a block.
    rows: Aligned,
    /// A panel's part of a block, unless it can be read where it is.
    weights: Aligned,
    /// Of the columns of a panel, what the blocks so far add up to: (rows, [`WIDTH`]).
    sums: Aligned,
}

impl Room {
    fn new() -> Room {
        Room { rows: zeros(0), weights: zeros(BLOCK * WIDTH), sums: zeros(MOST_ROWS * WIDTH) }
    }

    /// Takes up rows of (k, n) weights.
    fn pack(&mut self, left: &[f32], left_at: impl Fn(usize) -> usize, n_rows: usize, segments: &[Segment], k: usize) {
        let n = packed_len::<BLOCK>(n_rows, k.max(1));
        if self.rows.len() < n {
            self.rows = zeros(n);
        }
        pack::<BLOCK>(left, left_at, n_rows, segments, &mut self.rows);
    }
}

/// What the chain of an element begins with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// One number a column.
    Bias(&'a [f32]),
}

/// `out[row][c] = start_c + Σ_j left[row][j]·weights[j][c]`, j in order, each product and sum rounded once together. Not collective.
///
/// * `n_rows` rows; row r of `left` begins at `left_at(r)` and is made of `segments`, whose lengths add up to `panels.k`.
/// * `weights`: [`Panels`] of the matrix (k, n).
/// * Row r of `out` begins at `out_at(r)` and has n values.
///
/// # Panics
/// If a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn multiply(
    left: &[f32],
    left_at: impl Fn(usize) -> usize,
    n_rows: usize,
    segments: &[Segment],
    panels: Panels,
    weights: Weights<'_>,
    start: Start<'_>,
    out: &mut [f32],
    out_at: impl Fn(usize) -> usize,
) {
    assert_eq!(weights.len(), panels.len(), "a {} × {} matrix", panels.k, panels.n);
    assert_eq!(segments.iter().map(|segment| segment.len).sum::<usize>(), panels.k, "segments make up a row");
    ROOM.with_borrow_mut(|room| {
        for first in (0..n_rows).step_by(MOST_ROWS) {
            let (n_rows, out_at) = (MOST_ROWS.min(n_rows - first), |row| out_at(first + row));
            room.pack(left, |row| left_at(first + row), n_rows, segments, panels.k);
            Arch::new().dispatch(Multiply { n_rows, panels, weights, start, room, out: &mut *out, out_at });
        }
    });
}

struct Multiply<'a, O> {
    n_rows: usize,
    panels: Panels,
    weights: Weights<'a>,
    start: Start<'a>,
    room: &'a mut Room,
    out: &'a mut [f32],
    out_at: O,
}

impl<O: Fn(usize) -> usize> WithSimd for Multiply<'_, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // The sums of a panel stay in the first cache, its weights are read in order, and rows come from the second cache.
        for p in 0..self.panels.count() {
            for block in 0..self.panels.k.div_ceil(BLOCK).max(1) {
                self.part::<S>(simd, block, p);
            }
        }
    }
}

impl<O: Fn(usize) -> usize> Multiply<'_, O> {
    /// All rows, the columns of panel `p`, the inner indices of a block.
    #[inline(always)]
    fn part<S: Simd>(&mut self, simd: S, block: usize, p: usize) {
        // Thirty-two registers hold eight rows of two vectors and more; sixteen hold four.
        let tall = if S::F32_LANES == 16 { 8 } else { 4 };
        let (n_rows, columns) = (self.n_rows, self.panels.columns(p));
        let inner = block * BLOCK..((block + 1) * BLOCK).min(self.panels.k);
        let panel = self.panels.panel(p).start;
        let of_part = panel + inner.start * columns.len()..panel + inner.end * columns.len();
        // What comes next among the weights, of which each tile asks for some lines.
        let mut ahead = self.weights.ahead(of_part.end, of_part.len());
        let share = ahead.len().div_ceil(n_rows.div_ceil(tall));
        let Room { rows, weights: room, sums } = &mut *self.room;
        let (weights, stride) = lay(self.weights, of_part, columns.len(), S::F32_LANES, room);
        let start = match (block, self.start) {
            (0, Start::Zero) => Some(&[][..]),
            (0, Start::Bias(bias)) => Some(&bias[columns.clone()]),
            _ => None,
        };
        let is_last = (block + 1) * BLOCK >= self.panels.k;
        let (rows, _) = rows.as_chunks();
        let rows = &rows[block * n_rows..][..n_rows];
        let mut row = 0;
        while row < n_rows {
            ahead.split_off(..share.min(ahead.len())).into_iter().for_each(prefetch_all);
            let at = |r: usize| (self.out_at)(row + r) + columns.start;
            let (rows, sums) = (&rows[row..], &mut sums[row * WIDTH..]);
            let tile = Tile { weights, stride, width: columns.len(), start, sums, is_last, out: self.out };
            row += match n_rows - row {
                8.. if tall == 8 => tile.rows::<S, 8>(simd, rows, at),
                4.. => tile.rows::<S, 4>(simd, rows, at),
                _ => tile.rows::<S, 1>(simd, rows, at),
            };
        }
    }
}

/// A panel's part of a block as products read it: rows of whole vectors, none of which is cut by a line of cache. It is copied into `room` unless it lies so
/// among the weights. Returns it, and how far it is from one row to the next.
#[inline(always)]
fn lay<'a>(
    weights: Weights<'a>,
    of_part: Range<usize>,
    width: usize,
    lanes: usize,
    room: &'a mut [f32],
) -> (&'a [f32], usize) {
    let stride = width.next_multiple_of(lanes);
    let room = &mut room[..of_part.len() / width * stride];
    let rows = room.chunks_exact_mut(stride);
    match weights {
        Weights::Wide(of_all) if stride == width && is_aligned(&of_all[of_part.clone()]) => {
            return (&of_all[of_part], stride);
        }
        Weights::Wide(of_all) => {
            rows.zip(of_all[of_part].chunks_exact(width)).for_each(|(to, from)| to[..width].copy_from_slice(from));
        }
        Weights::Narrow(of_all) => {
            let rows = rows.zip(of_all[of_part].chunks_exact(width));
            rows.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, from)| *to = widen(*from)));
        }
    }
    (room, stride)
}

/// Some rows, the columns of a panel, the inner indices of a block.
struct Tile<'a> {
    weights: &'a [f32],
    /// From one row of the weights to the next, in numbers: whole vectors.
    stride: usize,
    /// Columns, of which the last vector may have fewer than it holds.
    width: usize,
    /// What sums begin with, a number a column or nothing for 0; None: they go on.
    start: Option<&'a [f32]>,
    /// Those so far, from the first row on.
    sums: &'a mut [f32],
    /// Sums go out.
    is_last: bool,
    out: &'a mut [f32],
}

impl Tile<'_> {
    /// The first MR rows, of which row r goes out at `at(r)`. Returns how many.
    #[inline(always)]
    fn rows<S: Simd, const MR: usize>(mut self, simd: S, rows: &[[f32; BLOCK]], at: impl Fn(usize) -> usize) -> usize {
        let rows = rows.first_chunk::<MR>().expect("MR rows");
        let lanes = S::F32_LANES;
        let mut first = 0;
        while first + lanes < self.stride {
            self.vectors::<S, MR, 2>(simd, rows, first, &at);
            first += 2 * lanes;
        }
        if first < self.stride {
            self.vectors::<S, MR, 1>(simd, rows, first, &at);
        }
        MR
    }

    /// NV vectors of columns from `first` on, the last of which may go into padding.
    #[inline(always)]
    fn vectors<S: Simd, const MR: usize, const NV: usize>(
        &mut self,
        simd: S,
        rows: &[[f32; BLOCK]; MR],
        first: usize,
        at: &impl Fn(usize) -> usize,
    ) {
        let lanes = S::F32_LANES;
        let (weights, _) = S::as_simd_f32s(self.weights);
        // Loops, not `array::from_fn`, which is a function of its own, without the registers of this one.
        let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
        let n = self.width - first;
        match self.start {
            Some([]) => {}
            Some(bias) => {
                load(simd, &bias[first..], n, &mut sums[0]);
                sums = [sums[0]; MR];
            }
            None => {
                for r in 0..MR {
                    load(simd, &self.sums[r * WIDTH + first..], NV * lanes, &mut sums[r]);
                }
            }
        }
        for (j, of_row) in (0..BLOCK).zip(weights.chunks_exact(self.stride / lanes)) {
            let of_row: [S::f32s; NV] = of_row[first / lanes..][..NV].try_into().expect("NV vectors");
            for r in 0..MR {
                let x = simd.splat_f32s(rows[r][j]);
                for v in 0..NV {
                    sums[r][v] = simd.mul_add_f32s(x, of_row[v], sums[r][v]);
                }
            }
        }
        if self.is_last {
            for r in 0..MR {
                store(simd, &sums[r], n, &mut self.out[at(r) + first..]);
            }
        } else {
            for r in 0..MR {
                store(simd, &sums[r], NV * lanes, &mut self.sums[r * WIDTH + first..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::round_all;
    use super::*;
    use crate::rng::{Draws, Stream};
    use half::bf16;
    use pulp::Scalar;

    /// A product by vectors of one kind.
    fn product<S: Simd>(simd: S, left: &[f32], panels: Panels, weights: Weights<'_>) -> Vec<u32> {
        let (n_rows, whole) = (left.len() / panels.k, [Segment { offset: 0, len: panels.k }]);
        let (mut out, mut room) = (vec![0.0; n_rows * panels.n], Room::new());
        room.pack(left, |row| row * panels.k, n_rows, &whole, panels.k);
        let (start, out_at) = (Start::Zero, |row| row * panels.n);
        simd.vectorize(Multiply { n_rows, panels, weights, room: &mut room, start, out: &mut out, out_at });
        out.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn processors_with_and_without_vectors_have_the_same_bits() {
        let draws = Draws::new(29, Stream::Synthetic);
        let numbers = |n: usize, of| (0..n).map(|i| draws.normal(i as u64, of) as f32).collect::<Vec<f32>>();
        for (m, k, n) in [(1, 1, 1), (9, 300, 10), (17, 7, 33), (13, 64, 65), (8, 20, 31)] {
            let (panels, left, wide) = (Panels::new(k, n), numbers(m * k, 0), numbers(k * n, 1));
            let mut narrow = vec![bf16::ZERO; k * n];
            round_all(&wide, &mut narrow);
            for weights in [Weights::Wide(&wide), Weights::Narrow(&narrow)] {
                let plain = product(Scalar::new(), &left, panels, weights);
                #[cfg(target_arch = "x86_64")]
                {
                    use pulp::x86::{V3, V4};
                    for vectors in [
                        V3::try_new().map(|simd| product(simd, &left, panels, weights)),
                        V4::try_new().map(|simd| product(simd, &left, panels, weights)),
                    ] {
                        assert!(vectors.is_none_or(|vectors| vectors == plain), "{m} × {k} × {n}");
                    }
                }
                let mut out = vec![0.0; m * n];
                let whole = [Segment { offset: 0, len: k }];
                multiply(&left, |r| r * k, m, &whole, panels, weights, Start::Zero, &mut out, |r| r * n);
                assert_eq!(out.into_iter().map(f32::to_bits).collect::<Vec<u32>>(), plain, "{m} × {k} × {n}");
            }
        }
    }
}
