//! The inner loops of linear models: scores of rows, and sums of outer products.
//!
//! Plain loops in one fixed order, without BLAS, so the linear family has the same bits on every processor:
//! an instruction set changes how many of the fixed accumulators fit one register, never the order of additions.
//! Values are float32, products and sums float64; nothing is contracted to a fused multiply-add.

use multiversion::multiversion;

/// Rows that the kernels take at a time. A gradient's sum runs over the rows of a tile in order, so this is part of the answer.
pub const TILE: usize = 8;

/// Accumulators of a dot product; part of the answer.
pub const ACCUMULATORS: usize = 8;

/// The sum of the accumulators, as a tree.
#[inline(always)]
pub fn add_up(s: &[f64; ACCUMULATORS]) -> f64 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// Copies up to [`TILE`] rows of `d` values to `tile`, (TILE, d), as float64; the slots left over become zero rows.
///
/// One pass in memory order, so that the processor streams the rows; all sums then read them from cache.
pub fn fill_tile<'a>(rows: impl Iterator<Item = &'a [f32]>, d: usize, tile: &mut [f64]) {
    let mut n = 0;
    for row in rows {
        widen(&row[..d], &mut tile[n * d..(n + 1) * d]);
        n += 1;
    }
    tile[n * d..].fill(0.0);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn widen(from: &[f32], to: &mut [f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f64::from(*from);
    }
}

/// `scores[i·k + c] = intercept_c + Σ_j x_i[j]·coefficient_c[j]`.
///
/// * `tile`: (TILE, n_features); `params`: (n_scores, n_features + 1), intercept last; `scores`: at least `TILE·n_scores`.
/// * Element j goes to accumulator j mod 8; the eight are added as a tree, then the intercept.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub fn tile_scores(tile: &[f64], params: &[f64], n_scores: usize, scores: &mut [f64]) {
    let stride = params.len() / n_scores;
    let d = stride - 1;
    for c in 0..n_scores {
        let of_class = &params[c * stride..(c + 1) * stride];
        let (coefficients, intercept) = (&of_class[..d], of_class[d]);
        for half in 0..2 {
            let rows: [&[f64]; 4] = std::array::from_fn(|i| &tile[(half * 4 + i) * d..(half * 4 + i + 1) * d]);
            let mut sums = [[0.0f64; ACCUMULATORS]; 4];
            let whole = d - d % ACCUMULATORS;
            let mut j = 0;
            while j < whole {
                let w: &[f64; ACCUMULATORS] = coefficients[j..j + ACCUMULATORS].try_into().expect("eight");
                for i in 0..4 {
                    let x: &[f64; ACCUMULATORS] = rows[i][j..j + ACCUMULATORS].try_into().expect("eight");
                    for l in 0..ACCUMULATORS {
                        sums[i][l] += x[l] * w[l];
                    }
                }
                j += ACCUMULATORS;
            }
            for l in 0..d - whole {
                for i in 0..4 {
                    sums[i][l] += rows[i][whole + l] * coefficients[whole + l];
                }
            }
            for i in 0..4 {
                scores[(half * 4 + i) * n_scores + c] = add_up(&sums[i]) + intercept;
            }
        }
    }
}

/// `sum[j] += Σ_i factor[i]·x_i[j]` for j below `sum.len()` ≤ d, over the tile's rows in order.
///
/// `tile`: (TILE, d).
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub fn add_scaled_rows(tile: &[f64], d: usize, factor: &[f64; TILE], sum: &mut [f64]) {
    let n = sum.len();
    let [r0, r1, r2, r3, r4, r5, r6, r7]: [&[f64]; TILE] = std::array::from_fn(|i| &tile[i * d..i * d + n]);
    for j in 0..n {
        let mut s = sum[j];
        s += factor[0] * r0[j];
        s += factor[1] * r1[j];
        s += factor[2] * r2[j];
        s += factor[3] * r3[j];
        s += factor[4] * r4[j];
        s += factor[5] * r5[j];
        s += factor[6] * r6[j];
        s += factor[7] * r7[j];
        sum[j] = s;
    }
}

/// Adds the lower triangle of `Σ_i factor[i]·z_i z_iᵀ`, z = (x, 1), to `sum` (d + 1, d + 1), row-major.
pub fn add_outer_products(tile: &[f64], factor: &[f64; TILE], d: usize, sum: &mut [f64]) {
    let stride = d + 1;
    for a in 0..d {
        let scaled: [f64; TILE] = std::array::from_fn(|i| factor[i] * tile[i * d + a]);
        add_scaled_rows(tile, d, &scaled, &mut sum[a * stride..a * stride + a + 1]);
    }
    let last = &mut sum[d * stride..];
    add_scaled_rows(tile, d, factor, &mut last[..d]);
    for f in factor {
        last[d] += f;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};

    fn rows(n: usize, d: usize) -> Vec<f32> {
        let draws = Draws::new(5, Stream::Synthetic);
        (0..n * d).map(|i| draws.normal(i as u64, 0) as f32).collect()
    }

    fn tile(x: &[f32], d: usize) -> Vec<f64> {
        let mut tile = vec![f64::NAN; TILE * d];
        fill_tile(x.chunks(d), d, &mut tile);
        tile
    }

    #[test]
    fn scores_match_the_plain_loop() {
        for (n, d, k) in [(1, 1, 1), (3, 7, 2), (8, 8, 1), (5, 17, 3), (8, 200, 4)] {
            let x = rows(n, d);
            let params: Vec<f64> = rows(k, d + 1).iter().map(|v| f64::from(*v)).collect();
            let mut scores = vec![0.0; TILE * k];
            tile_scores(&tile(&x, d), &params, k, &mut scores);
            for i in 0..n {
                for c in 0..k {
                    let of_class = &params[c * (d + 1)..(c + 1) * (d + 1)];
                    let mut plain = of_class[d];
                    for j in 0..d {
                        plain += f64::from(x[i * d + j]) * of_class[j];
                    }
                    approx::assert_relative_eq!(scores[i * k + c], plain, epsilon = 1e-12, max_relative = 1e-12);
                }
            }
        }
    }

    #[test]
    fn outer_products_match_the_plain_loop() {
        for (n, d) in [(1, 1), (3, 7), (8, 33)] {
            let x = rows(n, d);
            let mut factor = [0.0; TILE];
            for (i, f) in factor.iter_mut().enumerate().take(n) {
                *f = 0.5 + i as f64;
            }
            let mut sum = vec![0.0; (d + 1) * (d + 1)];
            add_outer_products(&tile(&x, d), &factor, d, &mut sum);
            let z = |i: usize, j: usize| if j == d { 1.0 } else { f64::from(x[i * d + j]) };
            for a in 0..=d {
                for b in 0..=a {
                    let mut plain = 0.0;
                    for (i, f) in factor.iter().enumerate().take(n) {
                        plain += f * z(i, a) * z(i, b);
                    }
                    approx::assert_relative_eq!(sum[a * (d + 1) + b], plain, epsilon = 1e-12, max_relative = 1e-12);
                }
            }
        }
    }
}
