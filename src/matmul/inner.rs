//! Rows times weights.

use super::narrow::widen;
use super::packed::{is_aligned, pack, packed_len};
use super::vectors::{load, store};
use super::{Aligned, Panels, Segment, WIDTH, Weights, zeros};
use crate::functions::prefetch;
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use std::ops::Range;

/// Inner indices that are worked through while a panel's part of them is in the first cache: whole panels of packed rows. Not part of the answer.
const BLOCK: usize = 6 * WIDTH;

/// Rows that go through all panels at once: they stay in the second cache. Not part of the answer.
const MOST_ROWS: usize = 128;

/// Inner indices that are worked through in one go, for each of which a line of weights is asked for.
const STEP: usize = 8;
const LINE: usize = 16;

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room { weights: zeros(BLOCK * WIDTH), sums: zeros(MOST_ROWS * WIDTH) });
    static ROWS: RefCell<Aligned> = RefCell::new(zeros(0));
}

/// What a product works on beside its rows.
struct Room {
    /// A panel's part of a block, unless it can be read where it is.
    weights: Aligned,
    /// Of the columns of a panel, what the blocks so far add up to: (rows, [`WIDTH`]).
    sums: Aligned,
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
/// * `left`: `n_rows` rows of `panels.k` values, [packed](super::pack).
/// * `weights`: [`Panels`] of the matrix (k, n).
/// * Row r of `out` begins at `out_at(r)` and has n values.
///
/// # Panics
/// If a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn multiply_packed(
    left: &[f32],
    n_rows: usize,
    panels: Panels,
    weights: Weights<'_>,
    start: Start<'_>,
    out: &mut [f32],
    out_at: impl Fn(usize) -> usize,
) {
    assert_eq!(weights.len(), panels.len(), "a {} × {} matrix", panels.k, panels.n);
    let (left, _) = left[..packed_len(n_rows, panels.k)].as_chunks();
    ROOM.with_borrow_mut(|room| {
        Arch::new().dispatch(Multiply { left, n_rows, panels, weights, start, room, out, out_at });
    });
}

/// The same of rows that lie anywhere: row r of `left` begins at `left_at(r)` and is made of `segments`, whose lengths add up to `panels.k`. Not collective.
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
    assert_eq!(segments.iter().map(|segment| segment.len).sum::<usize>(), panels.k, "segments make up a row");
    ROWS.with_borrow_mut(|rows| {
        for first in (0..n_rows).step_by(MOST_ROWS) {
            let n_rows = MOST_ROWS.min(n_rows - first);
            let n = packed_len(n_rows, panels.k);
            if rows.len() < n {
                *rows = zeros(n);
            }
            pack(left, |row| left_at(first + row), n_rows, segments, rows);
            multiply_packed(rows, n_rows, panels, weights, start, out, |row| out_at(first + row));
        }
    });
}

struct Multiply<'a, O> {
    left: &'a [[f32; WIDTH]],
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
        for first in (0..self.n_rows).step_by(MOST_ROWS) {
            for p in 0..self.panels.count() {
                for block in 0..self.panels.k.div_ceil(BLOCK).max(1) {
                    self.part::<S>(simd, first..self.n_rows.min(first + MOST_ROWS), block, p);
                }
            }
        }
    }
}

impl<O: Fn(usize) -> usize> Multiply<'_, O> {
    /// Some rows, the columns of panel `p`, the inner indices of a block.
    #[inline(always)]
    fn part<S: Simd>(&mut self, simd: S, rows: Range<usize>, block: usize, p: usize) {
        // Thirty-two registers hold eight rows of two vectors and more; sixteen hold four.
        let tall = if S::F32_LANES == 16 { 8 } else { 4 };
        let columns = self.panels.columns(p);
        let inner = block * BLOCK..((block + 1) * BLOCK).min(self.panels.k);
        let panel = self.panels.panel(p).start;
        let of_part = panel + inner.start * columns.len()..panel + inner.end * columns.len();
        // What comes next among the weights, of which each tile asks for some.
        let ahead = self.weights.ahead(of_part.end, of_part.len());
        let mut ahead = ahead.chunks(ahead.len().div_ceil(rows.len().div_ceil(tall)).max(1));
        let Room { weights: room, sums } = &mut *self.room;
        let weights = lay(self.weights, of_part, columns.len(), room.as_chunks_mut().0);
        let mut start = [0.0; WIDTH];
        if let Start::Bias(bias) = self.start {
            start[..columns.len()].copy_from_slice(&bias[columns.clone()]);
        }
        let start = (block == 0).then_some(&start);
        let is_last = (block + 1) * BLOCK >= self.panels.k;
        let left = self.left.get(block * (BLOCK / WIDTH) * self.n_rows..).unwrap_or_default();
        let (sums, _) = sums.as_chunks_mut();
        let mut done = 0;
        while done < rows.len() {
            let left = left.get(rows.start + done..).unwrap_or_default();
            let ahead = ahead.next().unwrap_or_default();
            let tile = Tile { left, n_rows: self.n_rows, weights, width: columns.len(), start, ahead };
            let sums = &mut sums[done..];
            let n = match rows.len() - done {
                8.. if tall == 8 => tile.rows::<S, 8>(simd, sums),
                4.. => tile.rows::<S, 4>(simd, sums),
                _ => tile.rows::<S, 1>(simd, sums),
            };
            for (r, sums) in sums[..n].iter().enumerate().filter(|_| is_last) {
                let at = (self.out_at)(rows.start + done + r) + columns.start;
                let to = &mut self.out[at..][..columns.len()];
                // Mostly whole vectors, for which a call of a function would take longer than they do.
                match to.first_chunk_mut() {
                    Some(to) => *to = *sums,
                    None => to.copy_from_slice(&sums[..columns.len()]),
                }
            }
            done += n;
        }
    }
}

/// A panel's part of a block as products read it: whole rows, none of which is cut by a line of cache. It is copied into `room` unless it lies so among
/// the weights.
#[inline(always)]
fn lay<'a>(
    weights: Weights<'a>,
    of_part: Range<usize>,
    width: usize,
    room: &'a mut [[f32; WIDTH]],
) -> &'a [[f32; WIDTH]] {
    let room = &mut room[..of_part.len() / width];
    match weights {
        Weights::Wide(of_all) if width == WIDTH && is_aligned(&of_all[of_part.clone()]) => {
            return of_all[of_part].as_chunks().0;
        }
        Weights::Wide(of_all) => {
            let rows = room.iter_mut().zip(of_all[of_part].chunks_exact(width));
            rows.for_each(|(to, from)| to[..width].copy_from_slice(from));
        }
        Weights::Narrow(of_all) => {
            let rows = room.iter_mut().zip(of_all[of_part].chunks_exact(width));
            rows.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, from)| *to = widen(*from)));
        }
    }
    room
}

/// Some rows, the columns of a panel, the inner indices of a block.
struct Tile<'a> {
    /// From the first row on: so many inner indices of all rows of the call, then the next.
    left: &'a [[f32; WIDTH]],
    n_rows: usize,
    weights: &'a [[f32; WIDTH]],
    /// Columns that are wanted.
    width: usize,
    /// What sums begin with; None: they go on.
    start: Option<&'a [f32; WIDTH]>,
    /// What is to be asked for meanwhile, a little now and then: much at once would be in the way of what is wanted now.
    ahead: &'a [f32],
}

impl Tile<'_> {
    /// The sums of the first MR rows. Returns how many.
    #[inline(always)]
    fn rows<S: Simd, const MR: usize>(&self, simd: S, sums: &mut [[f32; WIDTH]]) -> usize {
        let sums = sums.first_chunk_mut::<MR>().expect("MR rows");
        let lanes = S::F32_LANES;
        for column in (0..self.width).step_by(2 * lanes) {
            match column + lanes < self.width {
                true => self.vectors::<S, MR, 2>(simd, column, sums),
                false => self.vectors::<S, MR, 1>(simd, column, sums),
            }
        }
        MR
    }

    /// NV vectors of columns from `column` on.
    #[inline(always)]
    fn vectors<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        column: usize,
        of_rows: &mut [[f32; WIDTH]; MR],
    ) {
        // Loops of known lengths, not `array::from_fn`, which is a function of its own: the sums of others would not stay in registers.
        let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
        match self.start {
            Some(start) => sums = [load::<S, NV>(start, column); MR],
            None => {
                for r in 0..MR {
                    sums[r] = load::<S, NV>(&of_rows[r], column);
                }
            }
        }
        let (mut ahead, _) = self.ahead.as_chunks::<LINE>();
        for (left, weights) in self.left.chunks(self.n_rows).zip(self.weights.chunks(WIDTH)) {
            let rows = left.first_chunk::<MR>().expect("MR rows");
            let (steps, rest) = weights.as_chunks::<STEP>();
            for (step, weights) in (0..WIDTH / STEP).zip(steps) {
                if let Some((line, later)) = ahead.split_first() {
                    prefetch(line);
                    ahead = later;
                }
                for j in 0..STEP {
                    let weights = load::<S, NV>(&weights[j], column);
                    for r in 0..MR {
                        let x = simd.splat_f32s(rows[r][step * STEP + j]);
                        for v in 0..NV {
                            sums[r][v] = simd.mul_add_f32s(x, weights[v], sums[r][v]);
                        }
                    }
                }
            }
            for (j, weights) in (steps.len() * STEP..WIDTH).zip(rest) {
                let weights = load::<S, NV>(weights, column);
                for r in 0..MR {
                    let x = simd.splat_f32s(rows[r][j]);
                    for v in 0..NV {
                        sums[r][v] = simd.mul_add_f32s(x, weights[v], sums[r][v]);
                    }
                }
            }
        }
        for r in 0..MR {
            store::<S, NV>(&sums[r], &mut of_rows[r], column);
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
        let n_rows = left.len() / panels.k;
        let mut packed = zeros(packed_len(n_rows, panels.k));
        packed.fill(f32::NAN);
        pack(left, |row| row * panels.k, n_rows, &[Segment { offset: 0, len: panels.k }], &mut packed);
        let (left, _) = packed.as_chunks();
        let mut room = Room { weights: zeros(BLOCK * WIDTH), sums: zeros(MOST_ROWS * WIDTH) };
        let (mut out, start) = (vec![0.0; n_rows * panels.n], Start::Zero);
        let out_at = |row| row * panels.n;
        simd.vectorize(Multiply { left, n_rows, panels, weights, room: &mut room, start, out: &mut out, out_at });
        out.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn processors_with_and_without_vectors_have_the_same_bits() {
        let draws = Draws::new(29, Stream::Synthetic);
        let numbers = |n: usize, of| (0..n).map(|i| draws.normal(i as u64, of) as f32).collect::<Vec<f32>>();
        for (m, k, n) in [(1, 1, 1), (131, 193, 34), (9, 300, 10), (17, 7, 33), (13, 64, 65), (8, 20, 31)] {
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
