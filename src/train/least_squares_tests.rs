use super::*;
use crate::objective::Squared;
use crate::train::Kind;
use crate::train::test_tables::{Heard, Whole, config, largest_gradient, same_on_all_cuts};

fn fit(whole: &Whole, l2: f64) -> (Fit, Heard) {
    let settings = config(Kind::Linear, l2, 1e-5);
    let start = vec![0.0; whole.d + 1];
    same_on_all_cuts(whole, |comm, table, watch| solve(comm, table, &Squared, &settings, start.clone(), watch))
}

/// Ridge by plain Gaussian elimination with pivoting on plainly summed normal equations.
fn dense_twin(whole: &Whole, l2: f64) -> Vec<f64> {
    let (d, width) = (whole.d, whole.d + 2);
    let mut a = vec![vec![0.0; width]; d + 1];
    let mut total = 0.0;
    for row in 0..whole.n() {
        let mut z: Vec<f64> = whole.x[row * d..(row + 1) * d].iter().map(|x| f64::from(*x)).collect();
        z.extend([1.0, whole.y[row] - whole.offset.as_ref().map_or(0.0, |offset| offset[row])]);
        total += whole.weight[row];
        for i in 0..=d {
            for j in 0..width {
                a[i][j] += whole.weight[row] * z[i] * z[j];
            }
        }
    }
    for (i, row) in a.iter_mut().enumerate() {
        row.iter_mut().for_each(|v| *v /= total);
        row[i] += if i < d { l2 } else { 0.0 };
    }
    for p in 0..=d {
        let pivot = (p..=d).max_by(|i, j| a[*i][p].abs().total_cmp(&a[*j][p].abs())).unwrap();
        a.swap(p, pivot);
        for i in (0..=d).filter(|i| *i != p) {
            let factor = a[i][p] / a[p][p];
            for j in p..width {
                a[i][j] -= factor * a[p][j];
            }
        }
    }
    (0..=d).map(|i| a[i][d + 1] / a[i][i]).collect()
}

#[test]
fn ridge_and_plain_least_squares_match_a_dense_twin() {
    let mut whole = Whole::random(1_009, 6).with_targets(|s| 100.0 + 7.0 * s, 0.8);
    whole.offset = Some((0..1_009).map(|i| f64::from(i % 5)).collect());
    for l2 in [0.0, 3e-4, 0.5] {
        let (found, heard) = fit(&whole, l2);
        for (found, twin) in found.params.iter().zip(dense_twin(&whole, l2)) {
            approx::assert_relative_eq!(*found, twin, max_relative = 1e-10);
        }
        assert!(largest_gradient(&whole, &Squared, l2, &found.params) <= 1e-8);
        assert!(found.converged && heard.warnings.is_empty() && heard.progress.len() == 1);
        assert!(found.stop_values[0] < 1e-13, "{:?}", found.stop_values);
    }
}

#[test]
fn a_constant_column_has_the_coefficient_zero() {
    let mut whole = Whole::random(400, 4).with_targets(|s| s, 0.1);
    whole.set_column(2, |_, _| 0.0, 2);
    for l2 in [0.0, 1e-3] {
        let (found, heard) = fit(&whole, l2);
        assert_eq!(found.params[2].to_bits(), 0);
        assert!(heard.warnings.is_empty(), "{:?}", heard.warnings);
        assert!(largest_gradient(&whole, &Squared, l2, &found.params) <= 1e-8);
    }
}

/// Two columns that differ in the seventh digit, and a target that tells them apart.
fn nearly_equal_columns() -> Whole {
    let mut whole = Whole::random(2_000, 3);
    whole.set_column(0, |row, _| 0.5 + (row % 97) as f32 / 256.0, 0);
    let ulp = 2.0f32.recip() * f32::EPSILON;
    whole.set_column(1, |row, x| x + ulp * ((row * 7 % 5) as f32 - 2.0), 0);
    whole.y =
        (0..2_000).map(|i| f64::from(whole.x[3 * i]) * 3.0 - 2.0 * f64::from(whole.x[3 * i + 1]) + 0.25).collect();
    whole
}

#[test]
fn nearly_equal_columns_take_the_qr_branch_and_keep_their_digits() {
    let whole = nearly_equal_columns();
    let (found, heard) = fit(&whole, 0.0);
    assert_eq!(heard.warnings.len(), 1, "{:?}", heard.warnings);
    assert!(heard.warnings[0].contains("solved by QR"), "{:?}", heard.warnings);
    for (found, right) in found.params.iter().zip([3.0, -2.0, 0.0, 0.25]) {
        approx::assert_relative_eq!(*found, right, epsilon = 1e-6);
    }
    // Normal equations cannot: their Cholesky fails or is far off.
    let table = whole.of_rank(&Communicator::solo());
    let equations = normal_equations(&Communicator::solo(), &table).unwrap();
    let solved = Factor::new(&equations.gram, 0.0).map(|factor| factor.solve(&equations.target).unwrap());
    let error = solved.map_or(f64::INFINITY, |solved| (solved[0] - 3.0).abs());
    assert!(error > 1e-4, "normal equations were right to {error:e}: the example is too easy");
}

#[test]
fn one_row_and_more_ranks_than_blocks() {
    let mut whole = Whole::random(1, 2).with_targets(|_| 3.0, 0.0);
    whole.weight[0] = 0.25;
    approx::assert_relative_eq!(fit(&whole, 0.5).0.params[2], 3.0, epsilon = 1e-12);
    let (found, heard) = fit(&whole, 0.0);
    assert!(!heard.warnings.is_empty(), "one row cannot tell two features and an intercept apart");
    let score = found.params[2] + found.params[0] * f64::from(whole.x[0]) + found.params[1] * f64::from(whole.x[1]);
    approx::assert_relative_eq!(score, 3.0, epsilon = 1e-12);
}

#[test]
fn tiny_and_huge_numbers_are_summed_alike() {
    let mut whole = Whole::random(500, 2).with_targets(|s| 1e-28 * s, 0.5);
    whole.weight.iter_mut().enumerate().for_each(|(i, w)| *w *= if i % 2 == 0 { 1e-30 } else { 1e30 });
    let (found, _) = fit(&whole, 0.0);
    let twin = dense_twin(&whole, 0.0);
    for (found, twin) in found.params.iter().zip(twin) {
        approx::assert_relative_eq!(*found, twin, max_relative = 1e-9);
    }
}

#[test]
fn no_weight_and_odd_targets_are_refused() {
    let comm = Communicator::solo();
    let settings = config(Kind::Linear, 0.0, 1e-5);
    let refuse = |whole: &Whole| {
        let table = whole.of_rank(&comm);
        solve(&comm, &table, &Squared, &settings, vec![0.0; 3], &mut crate::train::Silent).unwrap_err().to_string()
    };
    let mut whole = Whole::random(50, 2);
    whole.y[0] = f64::NAN;
    assert!(refuse(&whole).contains("finite targets"));
    whole.weight.fill(0.0);
    assert!(refuse(&whole).contains("nothing to fit"));
}
