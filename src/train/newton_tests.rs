use super::*;
use crate::comm::run_threads;
use crate::model::linear::{LinearModel, add_hessian};
use crate::objective::{Logistic, Poisson, Softmax, Squared, SquaredHinge};
use crate::train::Kind;
use crate::train::test_tables::{Whole, config, largest_gradient, same_on_all_cuts};

/// Solves on every cut, and the gradient at the result is zero.
fn check(whole: &Whole, objective: &dyn Objective, l2: f64) -> Fit {
    let settings = config(Kind::Logistic, l2, 1e-10);
    let start = vec![0.0; objective.n_scores() * (whole.d + 1)];
    let (fit, heard) = same_on_all_cuts(whole, |comm, table, watch| {
        solve(comm, table, objective, &settings, start.clone(), &mut Session::default(), watch)
    });
    assert!(fit.converged, "{}: {:?}", objective.name(), fit.stop_values);
    let gradient = largest_gradient(whole, objective, l2, &fit.params);
    assert!(gradient <= 1e-8, "{}: gradient {gradient:e} after {} steps", objective.name(), fit.iterations);
    assert_eq!(heard.progress.len() as u64, fit.iterations);
    assert!(fit.iterations <= 20, "{}: {} iterations", objective.name(), fit.iterations);
    fit
}

#[test]
fn every_objective_finds_its_optimum_on_any_number_of_ranks() {
    let table = Whole::random(1_009, 5);
    let two = |s: f64| f64::from(s > 0.0);
    let three = |s: f64| if s < -0.5 { 0.0 } else { f64::from(s > 0.7) + 1.0 };
    check(&table.clone().with_targets(two, 1.0), &Logistic, 3e-4);
    check(&table.clone().with_targets(two, 1.0), &SquaredHinge { n_classes: 2 }, 3e-4);
    check(&table.clone().with_targets(three, 1.0), &Softmax { n_classes: 3 }, 3e-4);
    check(&table.clone().with_targets(three, 1.0), &SquaredHinge { n_classes: 3 }, 1e-3);
    check(&table.clone().with_targets(|s| (s * 2.0).abs().floor(), 0.3), &Poisson, 0.0);
    check(&table.with_targets(|s| 10.0 * s, 1.0), &Squared, 0.0);
}

#[test]
fn softmax_without_penalty_is_singular_and_still_solved() {
    // A constant added to all scores changes nothing: the Hessian has d + 1 zero eigenvalues.
    let three = |s: f64| if s < -0.5 { 0.0 } else { f64::from(s > 0.7) + 1.0 };
    check(&Whole::random(517, 3).with_targets(three, 2.0), &Softmax { n_classes: 3 }, 0.0);
}

#[test]
fn zero_and_duplicate_columns_and_offsets() {
    let mut whole = Whole::random(300, 5).with_targets(|s| f64::from(s > 0.0), 1.5);
    whole.set_column(1, |_, _| 0.0, 1);
    whole.set_column(4, |_, x| x, 2);
    whole.offset = Some((0..300).map(|i| 0.01 * f64::from(i % 11)).collect());
    for l2 in [0.0, 1e-3] {
        let fit = check(&whole, &Logistic, l2);
        assert_eq!(fit.params[1], 0.0, "the constant column");
        approx::assert_relative_eq!(fit.params[2], fit.params[4], epsilon = 1e-3);
    }
}

#[test]
fn rows_of_no_weight_do_not_count_whatever_they_hold() {
    let whole = Whole::random(300, 3).with_targets(|s| f64::from(s > 0.0), 1.0);
    let fit = check(&whole, &Logistic, 1e-3);
    let mut other = whole.clone();
    for row in (0..300).filter(|row| whole.weight[*row] == 0.0) {
        other.x[row * 3] = 1e30;
        other.y[row] = 1.0 - other.y[row];
    }
    assert_eq!(check(&other, &Logistic, 1e-3).params, fit.params);
}

#[test]
fn one_row_has_a_ridge_solution() {
    let mut whole = Whole::random(1, 2).with_targets(|_| 3.0, 0.0);
    whole.weight[0] = 2.0;
    let fit = check(&whole, &Squared, 0.5);
    approx::assert_relative_eq!(fit.params[2], 3.0, epsilon = 1e-9);
}

#[test]
fn exact_hessian_equals_the_plain_sum() {
    let mut whole = Whole::random(100, 4).with_targets(|s| if s < 0.0 { 0.0 } else { 2.0 }, 0.0);
    whole.offset = Some((0..100).map(|i| 0.1 * f64::from(i % 3)).collect());
    let objective = Softmax { n_classes: 3 };
    let params: Vec<f64> = (0..15).map(|i| 0.1 * f64::from(i % 4) - 0.15).collect();
    run_threads(2, 1, |comm| {
        let table = whole.of_rank(comm);
        let weight = largest_weight(comm, &table)?;
        let lower = hessian(comm, &table, &objective, &params, weight)?;
        let mut plain = vec![vec![0.0; 25]; 6];
        let solo = whole.of_rank(&Communicator::solo());
        add_hessian(
            &solo.in_memory().unwrap().rows(),
            0..100,
            &params,
            &objective,
            &mut LinearModel::work(3),
            &mut plain,
        );
        let mut k = 0;
        for sum in plain {
            for i in 0..5 {
                for j in 0..=i {
                    approx::assert_relative_eq!(lower[k], sum[i * 5 + j], epsilon = 1e-12, max_relative = 1e-12);
                    k += 1;
                }
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn too_many_parameters_are_refused_by_name() {
    let whole = Whole::random(20, 784);
    let settings = config(Kind::Logistic, 1e-3, 1e-5);
    let objective = Softmax { n_classes: 10 };
    let comm = Communicator::solo();
    let error = solve(
        &comm,
        &whole.of_rank(&comm),
        &objective,
        &settings,
        vec![0.0; 7850],
        &mut Session::default(),
        &mut crate::train::Silent,
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("7850 parameters, more than 2000; use --solver lbfgs"), "{text}");
    assert_eq!(error.kind().exit_code(), 2);
}
