//! Sums from which means, variances and ranges of columns come, block by block.
//!
//! A block contributes Σw, Σw(x−c) and Σw(x−c)² per column, x the values that are there and c a shift near the mean
//! (the mean of the table's first block, or the mean itself where that turns out to be far from it), so that nothing
//! cancels. The contributions are added exactly elsewhere.

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

/// What the moments of all rows say of every column.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardisation {
    pub mean: Vec<f64>,
    /// 1/standard deviation (of the population); 0 for a column that is empty or has one value.
    pub inverse_scale: Vec<f64>,
    /// The mean of some column is so far from its shift that little is left of its variance: take the moments again,
    /// around `mean`.
    pub cancels: bool,
}

/// Squared distance of mean and shift, in variances, from which on more than 20 of the variance's 53 bits are lost.
const MOST_CANCELLATION: f64 = (1 << 20) as f64;

/// Mean and scale of every column from the exact total of the sums.
///
/// [`Err`] names the first column whose squares left the range of float64.
pub fn standardisation(total: &[f64], min: &[f64], max: &[f64], shift: &[f64]) -> Result<Standardisation, usize> {
    let d = min.len();
    let (mut mean, mut inverse_scale) = (Vec::with_capacity(d), Vec::with_capacity(d));
    let mut cancels = false;
    for j in 0..d {
        let (w, s1, s2) = (total[j], total[d + j], total[2 * d + j]);
        if w <= 0.0 || min[j] == max[j] {
            mean.push(if w > 0.0 { min[j] } else { 0.0 });
            inverse_scale.push(0.0);
            continue;
        }
        let from_shift = s1 / w;
        let square = from_shift * from_shift;
        let variance = s2 / w - square;
        let inverse = 1.0 / variance.sqrt();
        if !variance.is_finite() {
            return Err(j);
        }
        cancels |= square > MOST_CANCELLATION * variance;
        mean.push(shift[j] + from_shift);
        inverse_scale.push(if variance > 0.0 && inverse.is_finite() { inverse } else { 0.0 });
    }
    Ok(Standardisation { mean, inverse_scale, cancels })
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
        let found = standardisation(&moments.sums, &moments.min, &moments.max, &[1e12]).unwrap();
        assert_eq!((found.mean, found.cancels), (vec![1e12 + 4.5], false));
        approx::assert_relative_eq!(found.inverse_scale[0], 1.0 / 8.25f64.sqrt(), max_relative = 1e-12);
    }

    #[test]
    fn missing_values_zero_weights_and_constants_are_left_out() {
        let mut moments = BlockMoments::new(3);
        moments.add_row(&[f64::NAN, 5.0, f64::NAN], 1.0, &[0.0; 3]);
        moments.add_row(&[1.0, 5.0, f64::NAN], 1.0, &[0.0; 3]);
        moments.add_row(&[3.0, 5.0, f64::NAN], 3.0, &[0.0; 3]);
        moments.add_row(&[1e9, 1e9, 1e9], 0.0, &[0.0; 3]);
        let found = standardisation(&moments.sums, &moments.min, &moments.max, &[0.0; 3]).unwrap();
        assert_eq!((found.mean, found.cancels), (vec![2.5, 5.0, 0.0], false));
        approx::assert_relative_eq!(found.inverse_scale[0], 1.0 / 0.75f64.sqrt());
        assert_eq!(found.inverse_scale[1..], [0.0, 0.0]);
    }
}
