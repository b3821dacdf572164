//! Columns at right angles, of length 1.

use crate::exact::scale::pow2;

/// Of the square of a column's length: what is left of one that is a sum of the others. Rounding in f64 leaves 2^−106.
const VANISHED: f64 = pow2(-80);

/// Columns, given one after the other, as orthonormal ones in the same space: (k, rank) row-major. Those that are sums of columns before them are 0. Not
/// collective; one fixed order of float64.
///
/// Each column is freed of those before it twice: what is left after once may be little, and then it is not at right angles to them. Source: Giraud, Langou,
/// Rozložník, van den Eshof, *Rounding error analysis of the classical Gram–Schmidt orthogonalization process*, Numerische Mathematik 101, 2005.
pub(super) fn orthonormal(columns: &[f32], rank: usize) -> Vec<f32> {
    let k = columns.len() / rank;
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(rank);
    for column in columns.chunks_exact(k) {
        let mut column: Vec<f64> = column.iter().map(|value| f64::from(*value)).collect();
        let before = dot(&column, &column);
        for _ in 0..2 {
            for other in &done {
                let along = dot(&column, other);
                column.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        let square = dot(&column, &column);
        let scale = if square > before * VANISHED { 1.0 / square.sqrt() } else { 0.0 };
        column.iter_mut().for_each(|value| *value *= scale);
        done.push(column);
    }
    let mut rows = vec![0.0; columns.len()];
    for (c, column) in done.iter().enumerate() {
        rows[c..].iter_mut().step_by(rank).zip(column).for_each(|(to, value)| *to = *value as f32);
    }
    rows
}

/// Σ a·b: eight sums, each in order, then these in order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.into_iter().fold(0.0, |total, sum| total + sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};

    #[test]
    fn columns_become_orthonormal_and_sums_of_others_vanish() {
        let draws = Draws::new(3, Stream::Synthetic);
        for (k, rank) in [(1, 1), (5, 5), (97, 4), (1_009, 32)] {
            let mut columns: Vec<f32> = (0..k * rank).map(|i| draws.normal(i as u64, 0) as f32).collect();
            if rank == 4 {
                // The third is nearly a multiple of the first, the fourth is one.
                for i in 0..k {
                    columns[2 * k + i] = 3.0 * columns[i] + 1e-6 * columns[k + i] * columns[i];
                    columns[3 * k + i] = -2.0 * columns[i];
                }
            }
            let rows = orthonormal(&columns, rank);
            for a in 0..rank {
                for b in 0..=a {
                    let product = rows.chunks_exact(rank).map(|row| f64::from(row[a]) * f64::from(row[b])).sum::<f64>();
                    let wanted = if a == b && !(rank == 4 && a == 3) { 1.0 } else { 0.0 };
                    assert!((product - wanted).abs() < 1e-6, "columns {a} and {b} of {rank}: {product}");
                }
            }
            if rank == 4 {
                assert!(rows.iter().skip(3).step_by(4).all(|value| *value == 0.0));
            }
        }
    }
}
