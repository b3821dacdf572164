//! Sums of weighted outer products of rows, Σ f·z zᵀ with z = (x, 1) or (x, 1, target): the hot loop of Newton's
//! Hessian and of the normal equations.
//!
//! Rows are converted to float64 once, `CHUNK` at a time, into panels of `NR` columns; a register tile of MR × NR
//! sums then runs over the rows of the chunk. Every sum has one accumulator and takes the rows in order, so the shape of
//! the tiles and the instruction set leave the bits alone: they equal those of
//! [`add_outer_products`](crate::model::kernels::add_outer_products), the plain twin.

use crate::model::Row;
use multiversion::multiversion;

/// Rows converted at a time: a panel of them (32 KiB) stays in the first cache. Not part of the answer.
pub const CHUNK: usize = 256;
/// Columns of a panel.
const NR: usize = 16;
/// Rows of a register tile.
const MR: usize = 4;

/// Several sums of outer products over the same rows, with different factors. Not `Sync`: one per thread.
pub struct OuterProducts {
    width: usize,
    n_panels: usize,
    n_rows: usize,
    /// Panel p: (CHUNK, NR).
    right: Vec<f64>,
    /// Panel q: (CHUNK, MR), times the factor.
    left: Vec<f64>,
    /// (stride, stride) each, stride = n_panels·NR; below the diagonal only.
    sums: Vec<Vec<f64>>,
}

impl OuterProducts {
    /// `n_sums` sums of vectors z of `width` elements, all zero. Not collective.
    ///
    /// Memory: n_sums × width² × 8 bytes, and width × 4 KiB.
    pub fn new(width: usize, n_sums: usize) -> OuterProducts {
        let n_panels = width.div_ceil(NR);
        let stride = n_panels * NR;
        OuterProducts {
            width,
            n_panels,
            n_rows: 0,
            right: vec![0.0; stride * CHUNK],
            left: vec![0.0; stride * CHUNK],
            sums: vec![vec![0.0; stride * stride]; n_sums],
        }
    }

    /// Makes all sums zero.
    pub fn clear(&mut self) {
        for sum in &mut self.sums {
            sum.fill(0.0);
        }
    }

    /// Forgets the rows of the last chunk; the sums stay.
    pub fn start_chunk(&mut self) {
        self.n_rows = 0;
    }

    /// Appends the row z = (x, tail) to the chunk.
    ///
    /// # Panics
    /// If z has not `width` elements or the chunk already has [`CHUNK`] rows.
    pub fn push_row(&mut self, x: Row<'_>, tail: &[f64]) {
        assert!(self.n_rows < CHUNK, "a chunk has {CHUNK} rows");
        let d = self.width - tail.len();
        let slot = self.n_rows * NR;
        match x {
            Row::Dense(values) => {
                assert_eq!(values.len(), d, "a row has one value for each column");
                for (p, values) in values.chunks(NR).enumerate() {
                    let panel = &mut self.right[p * CHUNK * NR + slot..][..values.len()];
                    for (to, from) in panel.iter_mut().zip(values) {
                        *to = f64::from(*from);
                    }
                }
            }
            Row::Sparse(..) => {
                self.right.chunks_exact_mut(CHUNK * NR).for_each(|panel| panel[slot..slot + NR].fill(0.0));
                x.each(|j, value| self.right[j / NR * CHUNK * NR + slot + j % NR] = value);
            }
        }
        for (j, value) in (d..).zip(tail) {
            self.right[j / NR * CHUNK * NR + slot + j % NR] = *value;
        }
        self.n_rows += 1;
    }

    /// Adds `Σ factor[r]·z_r z_rᵀ` over the rows of the chunk to one sum.
    ///
    /// # Panics
    /// If there is not one factor for each row.
    pub fn add_chunk(&mut self, sum: usize, factor: &[f64]) {
        assert_eq!(factor.len(), self.n_rows, "one factor for each row of the chunk");
        scale_rows(&self.right, factor, &mut self.left);
        multiply(&self.left, &self.right, self.n_rows, self.n_panels, &mut self.sums[sum]);
    }

    /// Writes the lower triangles, sum after sum, row after row: element (i, j ≤ i) of sum s at
    /// `s·w(w+1)/2 + i(i+1)/2 + j`, w = width.
    pub fn lower_triangles(&self, out: &mut Vec<f64>) {
        let stride = self.n_panels * NR;
        out.clear();
        for sum in &self.sums {
            for i in 0..self.width {
                out.extend_from_slice(&sum[i * stride..i * stride + i + 1]);
            }
        }
    }
}

/// Panels of NR columns times the factor of the row, as panels of MR columns.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn scale_rows(right: &[f64], factor: &[f64], left: &mut [f64]) {
    for (panel, four) in right.chunks_exact(CHUNK * NR).zip(left.chunks_exact_mut(CHUNK * NR)) {
        for (q, quarter) in four.chunks_exact_mut(CHUNK * MR).enumerate() {
            for ((from, to), f) in panel.chunks_exact(NR).zip(quarter.chunks_exact_mut(MR)).zip(factor) {
                for l in 0..MR {
                    to[l] = f * from[q * MR + l];
                }
            }
        }
    }
}

/// `sum[i][j] += Σ_r left_r[i]·right_r[j]` for all tiles that touch j ≤ i.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn multiply(left: &[f64], right: &[f64], n_rows: usize, n_panels: usize, sum: &mut [f64]) {
    let stride = n_panels * NR;
    for p in 0..n_panels {
        let right = &right[p * CHUNK * NR..p * CHUNK * NR + n_rows * NR];
        for q in p * NR / MR..stride / MR {
            let left = &left[q * CHUNK * MR..q * CHUNK * MR + n_rows * MR];
            let to = &mut sum[q * MR * stride + p * NR..];
            // Sixteen registers of 256 bits hold half a tile, 32 of 512 bits a whole one.
            if multiversion::target::target_cfg_f!(target_feature = "avx512f") {
                tile::<NR>(left, right, 0, to, stride);
            } else {
                tile::<8>(left, right, 0, to, stride);
                tile::<8>(left, right, 8, to, stride);
            }
        }
    }
}

/// One register tile: MR rows of the sum, columns `first..first + W` of a panel.
#[inline(always)]
fn tile<const W: usize>(left: &[f64], right: &[f64], first: usize, sum: &mut [f64], stride: usize) {
    let mut s = [[0.0f64; W]; MR];
    for i in 0..MR {
        s[i].copy_from_slice(&sum[i * stride + first..i * stride + first + W]);
    }
    for (a, b) in left.chunks_exact(MR).zip(right.chunks_exact(NR)) {
        let b: &[f64; W] = b[first..first + W].try_into().expect("W columns");
        for i in 0..MR {
            for l in 0..W {
                s[i][l] += a[i] * b[l];
            }
        }
    }
    for i in 0..MR {
        sum[i * stride + first..i * stride + first + W].copy_from_slice(&s[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kernels::{TILE, add_outer_products, fill_tile};
    use crate::rng::{Draws, Stream};

    #[test]
    fn tiles_have_the_bits_of_the_plain_loop() {
        let draws = Draws::new(17, Stream::Synthetic);
        for (n, d) in [(1, 1), (3, 15), (300, 16), (517, 37)] {
            let x: Vec<f32> = (0..n * d).map(|i| draws.normal(i as u64, 0) as f32).collect();
            let factor: Vec<f64> = (0..n).map(|i| if i % 5 == 3 { 0.0 } else { draws.uniform(i as u64, 1) }).collect();
            let mut plain = vec![0.0; (d + 1) * (d + 1)];
            let mut tile = vec![0.0; TILE * d];
            for first in (0..n).step_by(TILE) {
                let last = (first + TILE).min(n);
                let of_tile = std::array::from_fn(|i| if first + i < last { factor[first + i] } else { 0.0 });
                fill_tile(x[first * d..last * d].chunks(d), d, &mut tile);
                add_outer_products(&tile, &of_tile, d, &mut plain);
            }
            let mut fast = OuterProducts::new(d + 1, 2);
            for first in (0..n).step_by(CHUNK) {
                let last = (first + CHUNK).min(n);
                fast.start_chunk();
                for i in first..last {
                    fast.push_row(Row::Dense(&x[i * d..(i + 1) * d]), &[1.0]);
                }
                fast.add_chunk(1, &factor[first..last]);
            }
            let mut lower = Vec::new();
            fast.lower_triangles(&mut lower);
            let mut k = (d + 1) * (d + 2) / 2;
            assert!(lower[..k].iter().all(|v| *v == 0.0));
            for i in 0..=d {
                for j in 0..=i {
                    assert_eq!(lower[k].to_bits(), plain[i * (d + 1) + j].to_bits(), "{n} rows, ({i}, {j}) of {d}");
                    k += 1;
                }
            }
        }
    }
}
