//! Small dense systems on one rank: Cholesky of a symmetric matrix scaled to a unit diagonal, and plain loops.

use crate::error::{Error, Result};
use ndarray::{Array1, Array2, OwnedRepr};
use ndarray_linalg::{CholeskyFactorized, FactorizeCInto, SolveC, UPLO};

/// `D⁻¹AD⁻¹ + damping·I = LLᵀ`, D = √diag(A). Rows of A with a zero diagonal (hence zero rows, A being semidefinite) stand
/// for parameters that nothing depends on: they are pinned, and every solution is 0 there.
pub struct Factor {
    cholesky: CholeskyFactorized<OwnedRepr<f64>>,
    /// 1/D; 0 where pinned.
    scale: Vec<f64>,
    norm: f64,
}

impl Factor {
    /// Factorises the symmetric matrix `a` (n, n) by LAPACK's potrf; None if it is not positive definite or not finite.
    /// Not collective.
    pub fn new(a: &[f64], damping: f64) -> Option<Factor> {
        let n = a.len().isqrt();
        let inverse_root = |i: usize| {
            let diagonal = a[i * n + i];
            if diagonal == 0.0 { 0.0 } else { 1.0 / libm::sqrt(diagonal) }
        };
        let scale: Vec<f64> = (0..n).map(inverse_root).collect();
        if scale.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let mut scaled = vec![0.0; n * n];
        let mut norm = 0.0;
        for i in 0..n {
            let mut sum = 0.0;
            for j in 0..n {
                let value = match (i == j, scale[i] * scale[j] == 0.0) {
                    (true, _) => 1.0 + damping,
                    (false, true) => 0.0,
                    (false, false) => (scale[i] * a[i * n + j]) * scale[j],
                };
                scaled[i * n + j] = value;
                sum += value.abs();
            }
            norm = if sum > norm || sum.is_nan() { sum } else { norm };
        }
        if !norm.is_finite() {
            return None;
        }
        let scaled = Array2::from_shape_vec((n, n), scaled).expect("n rows of n");
        let cholesky = scaled.factorizec_into(UPLO::Lower).ok()?;
        Some(Factor { cholesky, scale, norm })
    }

    /// x of (A + damping·D²)·x = b; 0 where pinned. Not collective.
    ///
    /// # Errors
    /// `Internal`, if LAPACK refuses its arguments.
    pub fn solve(&self, b: &[f64]) -> Result<Vec<f64>> {
        let scaled = b.iter().zip(&self.scale).map(|(b, s)| b * s).collect();
        let solved = self.solve_scaled(scaled)?;
        Ok(solved.iter().zip(&self.scale).map(|(x, s)| if *s == 0.0 { 0.0 } else { x * s }).collect())
    }

    /// 1/(‖S‖₁·‖S⁻¹‖₁) of the scaled matrix S: 1 for the identity, near 0 for a singular one. Not collective.
    ///
    /// ‖S⁻¹‖₁ is estimated from below, nearly always within a factor of three, by about six solutions.
    /// Source: Higham, *FORTRAN codes for estimating the one-norm of a real or complex matrix*, ACM TOMS 14 (1988).
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn reciprocal_condition(&self) -> Result<f64> {
        let n = self.scale.len();
        let mut x = vec![1.0 / n as f64; n];
        let mut estimate = 0.0;
        for _ in 0..5 {
            let y = self.solve_scaled(x.clone())?;
            let norm = sum_of_magnitudes(&y);
            if norm <= estimate {
                break;
            }
            estimate = norm;
            let z = self.solve_scaled(y.iter().map(|y| if *y < 0.0 { -1.0 } else { 1.0 }).collect())?;
            let mut largest = 0;
            for j in 1..n {
                if z[j].abs() > z[largest].abs() {
                    largest = j;
                }
            }
            if z[largest].abs() <= dot(&z, &x) {
                break;
            }
            x.fill(0.0);
            x[largest] = 1.0;
        }
        let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let alternating = (0..n).map(|i| sign(i) * (1.0 + i as f64 / (n.max(2) - 1) as f64)).collect();
        let other = 2.0 * sum_of_magnitudes(&self.solve_scaled(alternating)?) / (3.0 * n as f64);
        let inverse_norm = if other > estimate { other } else { estimate };
        let condition = self.norm * inverse_norm;
        Ok(if condition.is_finite() { 1.0 / condition } else { 0.0 })
    }

    fn solve_scaled(&self, b: Vec<f64>) -> Result<Vec<f64>> {
        let solved = self.cholesky.solvec_into(Array1::from_vec(b));
        solved.map(|x| x.to_vec()).map_err(|e| Error::internal(format!("LAPACK refuses a Cholesky solution: {e}")))
    }
}

/// Σ aᵢbᵢ in index order.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

/// Largest |aᵢ|; 0 of none.
pub fn largest_magnitude(a: &[f64]) -> f64 {
    let mut largest = 0.0;
    for a in a {
        if a.abs() > largest {
            largest = a.abs();
        }
    }
    largest
}

fn sum_of_magnitudes(a: &[f64]) -> f64 {
    let mut sum = 0.0;
    for a in a {
        sum += a.abs();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_row_is_pinned_and_the_rest_is_solved() {
        let a = [4.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 3.0];
        let x = Factor::new(&a, 0.0).unwrap().solve(&[8.0, 5.0, 8.0]).unwrap();
        assert_eq!(x[1], 0.0);
        approx::assert_relative_eq!(x[0], 1.0, epsilon = 1e-14);
        approx::assert_relative_eq!(x[2], 2.0, epsilon = 1e-14);
    }

    #[test]
    fn condition_of_a_known_matrix() {
        // [[1, c], [c, 1]]: ‖S‖₁ = 1 + c, ‖S⁻¹‖₁ = 1/(1 − c).
        for c in [0.0, 0.5, 1.0 - 1e-6, 1.0 - 1e-12] {
            let known = (1.0 - c) / (1.0 + c);
            let found = Factor::new(&[9.0, 3.0 * c, 3.0 * c, 1.0], 0.0).unwrap().reciprocal_condition().unwrap();
            approx::assert_relative_eq!(found, known, max_relative = 1e-3);
        }
        assert!(Factor::new(&[1.0, 2.0, 2.0, 1.0], 0.0).is_none(), "indefinite");
        assert!(Factor::new(&[1.0, f64::NAN, f64::NAN, 1.0], 0.0).is_none(), "not a number");
    }
}
