//! Models against those of scikit-learn, statsmodels and scipy on the same tables (`data/reference/README.md`).
//!
//! Consort holds standardised values as float32, the others as float64: a coefficient can differ by the rounding
//! (6e-8 of a value) times how ill-conditioned the problem is. Objectives are minima, so they agree to the square of that.

use consort::comm::run_threads;
use consort::data::names::TableNames;
use consort::train::{ClassWeight, Inputs, Kind, Silent, Solver, TrainConfig, train};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Trains what `reference/NAME.json` describes with `solver` and compares everything that is stored there.
fn agrees(name: &str, solver: Solver, coefficient_tolerance: f64) {
    let text = std::fs::read_to_string(data("reference").join(format!("{name}.json"))).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let settings = &reference["settings"];
    let word = |value: &Value| value.as_str().map(str::to_string);
    let kind = match reference["kind"].as_str().unwrap() {
        "linear" => Kind::Linear,
        "logistic" => Kind::Logistic,
        "svm" => Kind::Svm,
        "poisson" => Kind::Poisson,
        other => panic!("{other}"),
    };
    let config = TrainConfig {
        kind,
        solver,
        l1: settings["l1"].as_f64().unwrap(),
        l2: settings["l2"].as_f64().unwrap(),
        class_weight: match settings["class_weight"].as_str() {
            Some("balanced") => ClassWeight::Balanced,
            _ => ClassWeight::None,
        },
        tolerance: 1e-9,
        max_iterations: 20_000,
        ..TrainConfig::default()
    };
    let inputs = Inputs {
        paths: vec![data(reference["data"].as_str().unwrap())],
        names: TableNames {
            group: word(&reference["group"]),
            weight: word(&settings["weight"]),
            offset: word(&settings["offset"]),
            ..TableNames::default()
        },
        ..Inputs::default()
    };
    let config = config.resolved().unwrap();
    let (model, report) = run_threads(2, 1, |comm| train(comm, &inputs, &config, &mut Silent)).unwrap().swap_remove(0);

    for (found, expected) in model.preprocess.mean.iter().zip(numbers(&reference["means"])) {
        approx::assert_relative_eq!(*found, expected, max_relative = 1e-12, epsilon = 1e-13);
    }
    for (found, expected) in model.preprocess.inverse_scale.iter().zip(numbers(&reference["scales"])) {
        if *found != 0.0 {
            approx::assert_relative_eq!(1.0 / found, expected, max_relative = 1e-10);
        }
    }
    // One against the rest: the reference gives one minimum a class, Consort minimises their sum.
    let objective = match &reference["objective"] {
        Value::Array(_) => numbers(&reference["objective"]).iter().sum(),
        one => one.as_f64().unwrap(),
    };
    assert!(
        (report.loss - objective).abs() <= 2e-6 * objective.abs().max(1e-3),
        "{name}: objective {} instead of {objective} ({} iterations, stop value {:e})",
        report.loss,
        report.iterations,
        report.stop_value
    );
    let expected: Vec<Vec<f64>> = reference["coefficients"].as_array().unwrap().iter().map(numbers).collect();
    let intercepts = numbers(&reference["intercepts"]);
    let largest = expected.iter().flatten().fold(0.0f64, |largest, c| largest.max(c.abs()));
    let stride = model.scores.n_features() + 1;
    // Softmax intercepts may be shifted together: the reference has them sum to zero.
    let shift = if model.scores.n_scores() > 1 && kind == Kind::Logistic {
        model.scores.linear().unwrap().params.chunks(stride).map(|of_class| of_class[stride - 1]).sum::<f64>()
            / intercepts.len() as f64
    } else {
        0.0
    };
    for (c, (expected, intercept)) in expected.iter().zip(&intercepts).enumerate() {
        let of_class = &model.scores.linear().unwrap().params[c * stride..(c + 1) * stride];
        for (j, (found, expected)) in of_class.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= coefficient_tolerance * largest,
                "{name}: coefficient {j} of class {c} is {found} instead of {expected}"
            );
        }
        let found = of_class[stride - 1] - shift;
        assert!(
            (found - intercept).abs() <= coefficient_tolerance * largest.max(intercept.abs()),
            "{name}: intercept {c} is {found} instead of {intercept}"
        );
    }
}

#[test]
fn ridge_agrees() {
    for solver in [Solver::Cholesky, Solver::Qr, Solver::Lbfgs] {
        agrees("linear_ridge_casp", solver, 1e-5);
        agrees("linear_ridge_diabetes", solver, 1e-5);
    }
}

#[test]
fn least_squares_without_a_penalty_agrees() {
    for solver in [Solver::Cholesky, Solver::Qr] {
        agrees("linear_plain_diabetes", solver, 1e-4);
    }
}

#[test]
fn lasso_and_elastic_net_agree() {
    for name in ["linear_lasso_casp", "linear_lasso_diabetes", "linear_elastic_casp", "linear_elastic_diabetes"] {
        for solver in [Solver::Cd, Solver::Lbfgs] {
            agrees(name, solver, 1e-4);
        }
    }
}

#[test]
fn binary_logistic_agrees() {
    for name in ["logistic_l2_breast_cancer", "logistic_weighted_breast_cancer", "logistic_balanced_breast_cancer"] {
        for solver in [Solver::Newton, Solver::Lbfgs] {
            agrees(name, solver, 1e-4);
        }
    }
}

#[test]
fn logistic_with_l1_agrees() {
    for name in ["logistic_l1_breast_cancer", "logistic_elastic_breast_cancer"] {
        agrees(name, Solver::Lbfgs, 1e-3);
    }
}

#[test]
fn softmax_agrees() {
    agrees("softmax_l2_digits", Solver::Lbfgs, 1e-3);
    agrees("softmax_l2_digits", Solver::Newton, 1e-3);
}

#[test]
fn squared_hinge_agrees() {
    for solver in [Solver::Newton, Solver::Lbfgs] {
        agrees("svm_breast_cancer", solver, 1e-3);
        agrees("svm_digits", solver, 1e-3);
    }
}

#[test]
fn poisson_agrees() {
    for name in ["poisson_l2_counts", "poisson_strong_counts", "poisson_offset_counts", "poisson_plain_offset_counts"] {
        for solver in [Solver::Newton, Solver::Lbfgs] {
            agrees(name, solver, 1e-4);
        }
    }
}
