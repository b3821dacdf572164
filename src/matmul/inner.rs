//! Rows times weights.

use super::narrow::widen;
use super::{Panels, Segment, WIDTH, Weights};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;

/// Inner indices that are worked through while a panel's part of them is in the first cache. Not part of the answer.
const BLOCK: usize = 256;
/// Inner indices, or rows, of a round: addresses are worked out once for all of them. With four, sums fall out of the registers.
pub(super) const ROUND: usize = 2;

thread_local! {
    /// A panel's part of a block as float32: all rows meet it there, so that widening it costs next to nothing.
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
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
    let run = |room: &mut [f32]| {
        Arch::new().dispatch(Multiply { left, left_at, n_rows, segments, panels, weights, room, start, out, out_at });
    };
    match weights {
        Weights::Wide(_) => run(&mut []),
        Weights::Narrow(_) => WIDENED.with_borrow_mut(|room| {
            room.resize(BLOCK * WIDTH, 0.0);
            run(room);
        }),
    }
}

struct Multiply<'a, L, O> {
    left: &'a [f32],
    left_at: L,
    n_rows: usize,
    segments: &'a [Segment],
    panels: Panels,
    weights: Weights<'a>,
    /// For a part of weights that are to be widened.
    room: &'a mut [f32],
    start: Start<'a>,
    out: &'a mut [f32],
    out_at: O,
}

impl<L: Fn(usize) -> usize, O: Fn(usize) -> usize> WithSimd for Multiply<'_, L, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let segments = self.segments;
        if self.panels.k == 0 {
            self.pass::<S>(simd, 0, &[]);
        }
        // The rows' part of a block stays in the second cache while all panels meet it. Short segments share one.
        let (mut inner, mut next) = (0, 0);
        while next < segments.len() {
            let first = next;
            let mut len = 0;
            while next < segments.len() && len + segments[next].len <= BLOCK {
                len += segments[next].len;
                next += 1;
            }
            if next > first {
                self.pass::<S>(simd, inner, &segments[first..next]);
            } else {
                let Segment { offset, len: of_segment } = segments[next];
                for first in (0..of_segment).step_by(BLOCK) {
                    let run = Segment { offset: offset + first, len: BLOCK.min(of_segment - first) };
                    self.pass::<S>(simd, inner + first, &[run]);
                }
                len = of_segment;
                next += 1;
            }
            inner += len;
        }
    }
}

impl<L: Fn(usize) -> usize, O: Fn(usize) -> usize> Multiply<'_, L, O> {
    /// All rows and panels, some runs of inner indices, of which the first is `inner`.
    #[inline(always)]
    fn pass<S: Simd>(&mut self, simd: S, inner: usize, runs: &[Segment]) {
        // Thirty-two registers hold eight rows of two vectors and more; sixteen hold four.
        let tall = if S::F32_LANES == 16 { 8 } else { 4 };
        let panels = self.panels;
        let len: usize = runs.iter().map(|run| run.len).sum();
        for p in 0..panels.count() {
            let (column, width) = (panels.columns(p).start, panels.columns(p).len());
            let of_block = panels.panel(p).start + inner * width..panels.panel(p).start + (inner + len) * width;
            let room = std::mem::take(&mut self.room);
            let part = match self.weights {
                Weights::Wide(weights) => &weights[of_block],
                Weights::Narrow(weights) => {
                    let room = &mut room[..of_block.len()];
                    widen_all(&weights[of_block], room);
                    &*room
                }
            };
            let mut row = 0;
            while row + tall <= self.n_rows {
                match tall {
                    8 => self.tile::<S, 8>(simd, part, column, width, runs, row, inner == 0),
                    _ => self.tile::<S, 4>(simd, part, column, width, runs, row, inner == 0),
                }
                row += tall;
            }
            while row + 4 <= self.n_rows {
                self.tile::<S, 4>(simd, part, column, width, runs, row, inner == 0);
                row += 4;
            }
            while row < self.n_rows {
                self.tile::<S, 1>(simd, part, column, width, runs, row, inner == 0);
                row += 1;
            }
            self.room = room;
        }
    }

    /// MR rows, the columns of a panel.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn tile<S: Simd, const MR: usize>(
        &mut self,
        simd: S,
        part: &[f32],
        column: usize,
        width: usize,
        runs: &[Segment],
        row: usize,
        is_first: bool,
    ) {
        let (mut rows, mut outs) = ([&self.left[..0]; MR], [0; MR]);
        for r in 0..MR {
            rows[r] = &self.left[(self.left_at)(row + r)..];
            outs[r] = (self.out_at)(row + r) + column;
        }
        if is_first {
            for at in outs {
                let out = &mut self.out[at..at + width];
                match self.start {
                    Start::Zero => out.fill(0.0),
                    Start::Bias(bias) => out.copy_from_slice(&bias[column..column + width]),
                }
            }
        }
        let lanes = S::F32_LANES;
        let mut first = 0;
        if width.is_multiple_of(lanes) {
            while first + 2 * lanes <= width {
                vectors::<S, MR, 2>(simd, rows, runs, part, width, first, self.out, outs);
                first += 2 * lanes;
            }
            while first < width {
                vectors::<S, MR, 1>(simd, rows, runs, part, width, first, self.out, outs);
                first += lanes;
            }
        }
        while first < width {
            partial::<S, MR>(simd, rows, runs, part, width, first, self.out, outs);
            first += lanes;
        }
    }
}

#[inline(always)]
fn widen_all(from: &[bf16], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = widen(*from));
}

/// The values of MR rows in a run.
#[inline(always)]
fn cut<'a, const MR: usize>(rows: [&'a [f32]; MR], run: &Segment) -> [&'a [f32]; MR] {
    let mut of_run = [&rows[0][..0]; MR];
    for r in 0..MR {
        of_run[r] = &rows[r][run.offset..][..run.len];
    }
    of_run
}

/// MR rows, NV whole vectors of columns from `first` on; `width` is a multiple of a vector.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn vectors<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    rows: [&[f32]; MR],
    runs: &[Segment],
    part: &[f32],
    width: usize,
    first: usize,
    out: &mut [f32],
    outs: [usize; MR],
) {
    let lanes = S::F32_LANES;
    let (mut part, _) = S::as_simd_f32s(part);
    let (stride, first_vector) = (width / lanes, first / lanes);
    assert!(stride <= WIDTH && first_vector + NV <= stride);
    // Loops, not `array::from_fn`, which is a function of its own, without the registers of this one.
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    for r in 0..MR {
        let (values, _) = S::as_simd_f32s(&out[outs[r] + first..][..NV * lanes]);
        sums[r].copy_from_slice(values);
    }
    for run in runs {
        let (rows, n) = (cut(rows, run), run.len);
        let (of_run, after) = part.split_at(n * stride);
        part = after;
        let whole = n - n % ROUND;
        for j in (0..whole).step_by(ROUND) {
            sums = round::<S, MR, NV, ROUND>(simd, rows, j, &of_run[j * stride + first_vector..], stride, sums);
        }
        for j in whole..n {
            sums = round::<S, MR, NV, 1>(simd, rows, j, &of_run[j * stride + first_vector..], stride, sums);
        }
    }
    for (at, sums) in outs.into_iter().zip(sums) {
        let (values, _) = S::as_mut_simd_f32s(&mut out[at + first..][..NV * lanes]);
        values.copy_from_slice(&sums);
    }
}

/// N inner indices from `j` on; `weights` begin at those of the first one, and those of the next are `stride` further.
#[inline(always)]
fn round<S: Simd, const MR: usize, const NV: usize, const N: usize>(
    simd: S,
    rows: [&[f32]; MR],
    j: usize,
    weights: &[S::f32s],
    stride: usize,
    mut sums: [[S::f32s; NV]; MR],
) -> [[S::f32s; NV]; MR] {
    let mut xs = [&[0.0; N]; MR];
    for r in 0..MR {
        xs[r] = rows[r][j..][..N].try_into().expect("N values");
    }
    let weights = &weights[..(N - 1) * stride + NV];
    for i in 0..N {
        let of_row: [S::f32s; NV] = weights[i * stride..][..NV].try_into().expect("NV vectors");
        for r in 0..MR {
            let x = simd.splat_f32s(xs[r][i]);
            for v in 0..NV {
                sums[r][v] = simd.mul_add_f32s(x, of_row[v], sums[r][v]);
            }
        }
    }
    sums
}

/// MR rows, one vector of columns from `first` on, which may be cut short.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn partial<S: Simd, const MR: usize>(
    simd: S,
    rows: [&[f32]; MR],
    runs: &[Segment],
    part: &[f32],
    width: usize,
    first: usize,
    out: &mut [f32],
    outs: [usize; MR],
) {
    let last = (first + S::F32_LANES).min(width);
    let mut sums = [simd.splat_f32s(0.0); MR];
    for r in 0..MR {
        sums[r] = simd.partial_load_f32s(&out[outs[r] + first..outs[r] + last]);
    }
    let mut of_rows = part.chunks_exact(width);
    for run in runs {
        let rows = cut(rows, run);
        for j in 0..run.len {
            let of_row = simd.partial_load_f32s(&of_rows.next().expect("a row of weights")[first..last]);
            for r in 0..MR {
                sums[r] = simd.mul_add_f32s(simd.splat_f32s(rows[r][j]), of_row, sums[r]);
            }
        }
    }
    for (at, sums) in outs.into_iter().zip(sums) {
        simd.partial_store_f32s(&mut out[at + first..at + last], sums);
    }
}

#[cfg(test)]
mod tests {
    use super::super::round_all;
    use super::*;
    use crate::rng::{Draws, Stream};
    use pulp::Scalar;

    /// A product by vectors of one kind.
    fn product<S: Simd>(simd: S, left: &[f32], panels: Panels, weights: Weights<'_>) -> Vec<u32> {
        let (n_rows, whole) = (left.len() / panels.k, [Segment { offset: 0, len: panels.k }]);
        let (mut out, mut room) = (vec![0.0; n_rows * panels.n], vec![0.0; BLOCK * WIDTH]);
        simd.vectorize(Multiply {
            left,
            left_at: |row| row * panels.k,
            n_rows,
            segments: &whole,
            panels,
            weights,
            room: &mut room,
            start: Start::Zero,
            out: &mut out,
            out_at: |row| row * panels.n,
        });
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
