//! Sums from which means, variances and ranges of columns come, block by block.
//!
//! A block contributes Σw, Σw(x−c) and Σw(x−c)² per column, x the values that are there and c a shift near the mean
//! (the mean of the table's first block), so that nothing cancels. The contributions are added exactly elsewhere.

use multiversion::multiversion;

/// One block's share: sums, and the range of each column over rows of weight > 0 with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockMoments {
    /// (3, columns): Σw, Σw(x−c), Σw(x−c)².
    pub sums: Vec<f64>,
    /// +∞ where there is no value.
    pub min: Vec<f64>,
    /// −∞ where there is no value.
    pub max: Vec<f64>,
}

impl BlockMoments {
    pub fn new(n_columns: usize) -> BlockMoments {
        BlockMoments {
            sums: vec![0.0; 3 * n_columns],
            min: vec![f64::INFINITY; n_columns],
            max: vec![f64::NEG_INFINITY; n_columns],
        }
    }

    /// Adds one row, in order. NaN is a missing value; a row of weight 0 is not there.
    pub fn add_row(&mut self, row: &[f64], weight: f64, shift: &[f64]) {
        if weight > 0.0 {
            let (w, rest) = self.sums.split_at_mut(row.len());
            let (s1, s2) = rest.split_at_mut(row.len());
            add_row(row, weight, shift, [w, s1, s2, &mut self.min, &mut self.max]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add_row(row: &[f64], weight: f64, shift: &[f64], sums: [&mut [f64]; 5]) {
    let d = row.len();
    let [w, s1, s2, min, max] = sums.map(|s| &mut s[..d]);
    let shift = &shift[..d];
    for j in 0..d {
        let x = row[j];
        let there = !x.is_nan();
        let from_shift = if there { x - shift[j] } else { 0.0 };
        w[j] += if there { weight } else { 0.0 };
        s1[j] += weight * from_shift;
        s2[j] += weight * (from_shift * from_shift);
        min[j] = if x < min[j] { x } else { min[j] };
        max[j] = if x > max[j] { x } else { max[j] };
    }
}

/// Mean and 1/standard deviation (of the population) of every column from the exact total of the sums.
///
/// The inverse is 0 for a column that is empty or has one value; [`None`] names the first column whose
/// squares left the range of float64.
pub fn standardisation(total: &[f64], min: &[f64], max: &[f64], shift: &[f64]) -> Result<(Vec<f64>, Vec<f64>), usize> {
    let d = min.len();
    let (mut means, mut inverse_scales) = (Vec::with_capacity(d), Vec::with_capacity(d));
    for j in 0..d {
        let (w, s1, s2) = (total[j], total[d + j], total[2 * d + j]);
        if w <= 0.0 || min[j] == max[j] {
            means.push(if w > 0.0 { min[j] } else { 0.0 });
            inverse_scales.push(0.0);
            continue;
        }
        let from_shift = s1 / w;
        let variance = s2 / w - from_shift * from_shift;
        let inverse = 1.0 / variance.sqrt();
        if !variance.is_finite() {
            return Err(j);
        }
        means.push(shift[j] + from_shift);
        inverse_scales.push(if variance > 0.0 && inverse.is_finite() { inverse } else { 0.0 });
    }
    Ok((means, inverse_scales))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_far_column_do_not_cancel() {
        let values: Vec<f64> = (0..1000).map(|i| 1e12 + f64::from(i % 10)).collect();
        let mut moments = BlockMoments::new(1);
        for x in &values {
            moments.add_row(&[*x], 1.0, &[1e12]);
        }
        let (mean, inverse) = standardisation(&moments.sums, &moments.min, &moments.max, &[1e12]).unwrap();
        assert_eq!(mean, [1e12 + 4.5]);
        approx::assert_relative_eq!(inverse[0], 1.0 / 8.25f64.sqrt(), max_relative = 1e-12);
    }

    #[test]
    fn missing_values_zero_weights_and_constants_are_left_out() {
        let mut moments = BlockMoments::new(3);
        moments.add_row(&[f64::NAN, 5.0, f64::NAN], 1.0, &[0.0; 3]);
        moments.add_row(&[1.0, 5.0, f64::NAN], 1.0, &[0.0; 3]);
        moments.add_row(&[3.0, 5.0, f64::NAN], 3.0, &[0.0; 3]);
        moments.add_row(&[1e9, 1e9, 1e9], 0.0, &[0.0; 3]);
        let (mean, inverse) = standardisation(&moments.sums, &moments.min, &moments.max, &[0.0; 3]).unwrap();
        assert_eq!(mean, [2.5, 5.0, 0.0]);
        approx::assert_relative_eq!(inverse[0], 1.0 / 0.75f64.sqrt());
        assert_eq!(inverse[1..], [0.0, 0.0]);
    }
}
