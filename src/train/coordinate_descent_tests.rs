use super::*;
use crate::objective::Squared;
use crate::train::Kind;
use crate::train::test_tables::{Heard, Whole, config, largest_gradient, same_on_all_cuts};

fn fit(whole: &Whole, l1: f64, l2: f64) -> (Fit, Heard) {
    let settings = TrainConfig { l1, ..config(Kind::Linear, l2, 1e-12) };
    let start = vec![0.0; whole.d + 1];
    same_on_all_cuts(whole, |comm, table, watch| {
        solve(comm, table, &Squared, &settings, start.clone(), &mut Session::default(), watch)
    })
}

/// Mean gradient of the squared loss alone, by plain loops.
fn gradient(whole: &Whole, params: &[f64]) -> Vec<f64> {
    let d = whole.d;
    let mut grad = vec![0.0; d + 1];
    let mut total = 0.0;
    for row in 0..whole.n() {
        let x = &whole.x[row * d..(row + 1) * d];
        let mut residual = params[d] - whole.y[row];
        for (x, p) in x.iter().zip(params) {
            residual += f64::from(*x) * p;
        }
        for (g, x) in grad.iter_mut().zip(x) {
            *g += whole.weight[row] * residual * f64::from(*x);
        }
        grad[d] += whole.weight[row] * residual;
        total += whole.weight[row];
    }
    grad.iter().map(|g| g / total).collect()
}

#[test]
fn lasso_and_elastic_net_satisfy_the_optimality_conditions() {
    let whole = Whole::random(1_009, 8).with_targets(|s| 20.0 + 3.0 * s, 2.0);
    for (l1, l2) in [(0.1, 0.0), (1.5, 0.0), (0.8, 0.3), (1e9, 0.0)] {
        let (found, heard) = fit(&whole, l1, l2);
        assert!(
            found.converged && heard.progress.len() as u64 == found.iterations,
            "λ₁ = {l1}: {:?}",
            found.stop_values
        );
        let grad = gradient(&whole, &found.params);
        assert!(grad[8].abs() < 1e-9, "intercept: {}", grad[8]);
        for (g, p) in grad[..8].iter().zip(&found.params) {
            let smooth = g + l2 * p;
            if *p == 0.0 {
                assert!(smooth.abs() <= l1 + 1e-9, "λ₁ = {l1}: {smooth} at a zero");
            } else {
                approx::assert_relative_eq!(smooth, -l1 * p.signum(), epsilon = 1e-9);
            }
        }
        let zeros = found.params[..8].iter().filter(|p| **p == 0.0).count();
        assert!(l1 < 1.0 || zeros > 0, "λ₁ = {l1} leaves all coefficients");
        assert_eq!(zeros == 8, l1 == 1e9);
    }
}

#[test]
fn without_l1_it_is_ridge() {
    let whole = Whole::random(300, 4).with_targets(|s| s, 0.5);
    let (found, _) = fit(&whole, 0.0, 0.01);
    assert!(largest_gradient(&whole, &Squared, 0.01, &found.params) <= 1e-9);
}

#[test]
fn constant_and_duplicate_columns_and_one_row() {
    let mut whole = Whole::random(300, 5).with_targets(|s| s, 0.5);
    whole.set_column(1, |_, _| 0.0, 1);
    whole.set_column(4, |_, x| x, 2);
    let (found, _) = fit(&whole, 0.05, 0.0);
    assert!(found.converged);
    assert_eq!(found.params[1], 0.0);
    let mut one = Whole::random(1, 2).with_targets(|_| 3.0, 0.0);
    one.weight[0] = 1.0;
    let (found, _) = fit(&one, 0.1, 0.1);
    approx::assert_relative_eq!(found.params[2], 3.0, epsilon = 1e-9);
}
