//! Models against those of scikit-learn, statsmodels and scipy on the same tables (`data/reference/README.md`).
//!
//! Consort holds standardised values as float32, the others as float64: a coefficient can differ by the rounding
//! (6e-8 of a value) times how ill-conditioned the problem is. Objectives are minima, so they agree to the square of that.

use consort::comm::run_threads;
use consort::config::{
    BoostConfig, BoostLoss, BootstrapKind, Calibrate, EnsembleConfig, ForestConfig, MaxFeatures, MemberConfig,
};
use consort::data::memory::MemorySource;
use consort::data::names::TableNames;
use consort::data::{Block, DataSource, TargetKind};
use consort::train::boosting::train_source;
use consort::train::linear_family;
use consort::train::score::Scorer;
use consort::train::{ClassWeight, Inputs, Kind, Reading, Silent, Solver, TrainConfig, train};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
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

/// Rows of a table of numbers: (rows, columns) values and a target each.
#[derive(Default)]
struct Rows {
    x: Vec<f64>,
    y: Vec<f64>,
}

/// Rows to train on and rows to test with, as `rows_of` of `reference/public_tables.py` takes them from a file.
fn rows_of(folder: &Path, file: &str, n_columns: usize) -> [Rows; 2] {
    let packed = std::fs::File::open(folder.join(file)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let table = file.split('/').next().unwrap();
    let has_header = ["casp-protein", "california-housing"].contains(&table);
    let every = if table == "kddcup99" { 10 } else { 1 };
    let lines = text.lines().skip(usize::from(has_header)).step_by(every);
    let cells: Vec<Vec<&str>> = lines.map(|line| line.trim().split([',', '\t', ' ']).collect()).collect();
    let texts = [1, 2, 3].map(|column| match table {
        "kddcup99" => cells.iter().map(|row| row[column]).collect::<BTreeSet<_>>(),
        _ => BTreeSet::new(),
    });
    let number = |column: usize, cell: &str| match (1..=3).contains(&column).then(|| &texts[column - 1]) {
        Some(texts) if !texts.is_empty() => texts.iter().position(|text| *text == cell).unwrap() as f64,
        _ => cell.parse().unwrap_or_else(|_| panic!("{file}: '{cell}'")),
    };
    let mut parts = [Rows::default(), Rows::default()];
    for (row, cells) in cells.iter().enumerate() {
        let part = &mut parts[usize::from(row % 4 == 3)];
        let (first, last) = (cells[0], cells[cells.len() - 1]);
        let start = part.x.len();
        if table == "a9a" {
            part.x.resize(start + n_columns, 0.0);
            for (place, value) in cells[1..].iter().map(|cell| cell.split_once(':').unwrap()) {
                part.x[start + place.parse::<usize>().unwrap() - 1] = value.parse().unwrap();
            }
        } else {
            let of_row =
                if ["higgs-subset", "casp-protein"].contains(&table) { &cells[1..] } else { &cells[..cells.len() - 1] };
            part.x.extend(of_row.iter().enumerate().map(|(column, cell)| number(column, cell)));
        }
        assert_eq!(part.x.len() - start, n_columns, "{file}: row {row}");
        part.y.push(match table {
            "kddcup99" => ["normal.", "neptune.", "smurf."].iter().position(|class| *class == last).unwrap_or(3) as f64,
            "covtype-20k" => last.parse::<f64>().unwrap() - 1.0,
            "california-housing" => last.parse::<f64>().unwrap() / 100_000.0,
            _ => first.parse().unwrap(),
        });
    }
    parts
}

/// Mean loss of one row's scores, as `measure` of `reference/make_boost.py` has it.
fn loss_of_row(loss: &str, alpha: f64, power: f64, y: f64, scores: &[f64]) -> f64 {
    let score = scores[0];
    let far = (y - score).abs();
    match loss {
        "logistic" => score.exp().ln_1p() - y * score,
        "softmax" => scores.iter().map(|score| score.exp()).sum::<f64>().ln() - scores[y as usize],
        "squared" => far * far / 2.0,
        "absolute" => far,
        "huber" => {
            if far <= alpha {
                far * far / 2.0
            } else {
                alpha * (far - alpha / 2.0)
            }
        }
        "quantile" => {
            if y >= score {
                alpha * far
            } else {
                (1.0 - alpha) * far
            }
        }
        "poisson" => score.exp() - y * score,
        "gamma" => y / score.exp() + score,
        "tweedie" => ((2.0 - power) * score).exp() / (2.0 - power) - y * ((1.0 - power) * score).exp() / (1.0 - power),
        other => panic!("{other}"),
    }
}

/// How far models of the same settings differ from program to program, and with the draw of rows and columns, is how well the
/// settings determine a model. So the figures of all programs, seeds and samples of a table give a range, and ours may be above
/// the worst of its sample by no more than its width.
#[test]
fn boosted_trees_are_as_good_as_those_of_other_programs() {
    let Some(folder) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return println!("SKIPPED: boosted trees on public tables (CONSORT_EXTRA_DATA names no folder)");
    };
    let text = std::fs::read_to_string(data("reference/boost.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let settings = &reference["settings"];
    let (alpha, power) = (reference["alpha"].as_f64().unwrap(), reference["power"].as_f64().unwrap());
    let mut worse = Vec::new();
    for case in reference["cases"].as_array().unwrap() {
        let (name, loss) = (case["name"].as_str().unwrap(), case["loss"].as_str().unwrap());
        let n_columns = case["columns"].as_u64().unwrap() as usize;
        let is_class = ["logistic", "softmax"].contains(&loss);
        let kind = if is_class { TargetKind::Integer } else { TargetKind::Float };
        let [trained, tested] = rows_of(Path::new(&folder), case["file"].as_str().unwrap(), n_columns);
        assert_eq!(
            [trained.y.len(), tested.y.len()].map(Value::from),
            [&case["train_rows"], &case["test_rows"]].map(Value::clone)
        );
        let [train_table, test_table] = [&trained, &tested].map(|rows| {
            MemorySource::from_f64(rows.x.clone(), n_columns).unwrap().with_target(rows.y.clone(), kind).unwrap()
        });
        let mut block = Block::empty();
        test_table.clone().read(0..tested.y.len() as u64, &mut block).unwrap();
        for (sample, shares) in reference["samples"].as_object().unwrap() {
            let boost = BoostConfig {
                loss: serde_json::from_value(if loss == "softmax" { "logistic".into() } else { loss.into() }).unwrap(),
                alpha,
                tweedie_power: power,
                rounds: settings["rounds"].as_u64().unwrap(),
                max_leaves: settings["leaves"].as_u64().unwrap(),
                max_bins: settings["bins"].as_u64().unwrap(),
                shrinkage: settings["shrinkage"].as_f64().unwrap(),
                min_rows: settings["min_rows"].as_u64().unwrap(),
                categorical: case["categories"].as_array().unwrap().iter().map(Value::to_string).collect(),
                row_sample: shares["rows"].as_f64().unwrap(),
                column_sample_node: shares["columns"].as_f64().unwrap(),
                ..BoostConfig::default()
            };
            assert!(boost.loss != BoostLoss::Auto);
            let config = TrainConfig {
                l2: settings["l2"].as_f64().unwrap(),
                boost: Some(boost),
                ..TrainConfig::of(Kind::Boost)
            };
            let config = config.resolved().unwrap();
            let (model, _) = run_threads(1, 2, |comm| {
                let mut source = train_table.clone();
                train_source(comm, &mut source, &TableNames::default(), &config, &Reading::default(), None, &mut Silent)
            })
            .unwrap()
            .swap_remove(0);
            let scores = Scorer::new(&model, &test_table, "test").unwrap().scores(&block).unwrap();
            let k = scores.len() / tested.y.len();
            let of_row = |(y, scores): (&f64, &[f64])| loss_of_row(loss, alpha, power, *y, scores);
            let ours = tested.y.iter().zip(scores.chunks_exact(k)).map(of_row).sum::<f64>() / tested.y.len() as f64;
            let losses_of = |is_asked: &dyn Fn(&Value) -> bool| {
                let figures = case["figures"].as_array().unwrap().iter().filter(|figure| is_asked(figure));
                let losses: Vec<f64> = figures.map(|figure| figure["loss"].as_f64().unwrap()).collect();
                let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
                (least, losses.into_iter().fold(f64::NEG_INFINITY, f64::max))
            };
            let (least, most) = losses_of(&|figure| figure["sample"] == sample.as_str());
            let of_all = losses_of(&|_| true);
            let line = format!("{name}, {sample}: {ours:.6}, others {least:.6} to {most:.6}");
            println!("{line}");
            if ours > most + (of_all.1 - of_all.0) {
                worse.push(line);
            }
        }
    }
    assert!(worse.is_empty(), "worse than the others differ:\n{}", worse.join("\n"));
}

/// Seeds of ours that are averaged.
const SEEDS: u64 = 3;

/// The settings that `reference/make_ensemble.py` gives scikit-learn's ensemble of this name.
fn ensemble_of(name: &str, l2: f64) -> TrainConfig {
    let forest = |change: &dyn Fn(&mut ForestConfig)| {
        let mut forest = ForestConfig { trees: 100, min_rows: 2, ..ForestConfig::default() };
        change(&mut forest);
        TrainConfig { forest: Some(forest), ..TrainConfig::of(Kind::Forest) }
    };
    let linear = |kind: Kind, calibrate| TrainConfig { l2, tolerance: 1e-7, calibrate, ..TrainConfig::of(kind) };
    let logistic = || linear(Kind::Logistic, None);
    let member = |name: &str, config| MemberConfig { name: name.to_string(), config };
    let members = || vec![member("l", logistic()), member("f", forest(&|forest| forest.trees = 50))];
    let ensemble = |kind: Kind, ensemble| TrainConfig { ensemble: Some(Box::new(ensemble)), ..TrainConfig::of(kind) };
    let default = EnsembleConfig::default;
    match name {
        "forest" => forest(&|_| ()),
        "extra" => forest(&|forest| forest.extra = true),
        "bag" => ensemble(Kind::Bag, EnsembleConfig { learner: Some(logistic()), ..default() }),
        "adaboost" => {
            // One tree of all rows and features.
            let tree = forest(&|forest| {
                (forest.trees, forest.max_depth, forest.min_rows) = (1, 3, 1);
                (forest.bootstrap, forest.max_features) = (BootstrapKind::None, MaxFeatures::All);
            });
            ensemble(Kind::Adaboost, EnsembleConfig { learner: Some(tree), members: 30, ..default() })
        }
        "vote" => ensemble(Kind::Vote, EnsembleConfig { member: members(), ..default() }),
        "stack" => ensemble(Kind::Stack, EnsembleConfig { member: members(), last: Some(logistic()), ..default() }),
        "platt" => linear(Kind::Svm, Some(Calibrate::Platt)),
        "isotonic" => linear(Kind::Svm, Some(Calibrate::Isotonic)),
        other => panic!("{other}"),
    }
}

/// As `figures_of` of `reference/make_ensemble.py`: −ln of the share of a row's class, or the squared error.
fn loss_of_prediction(is_class: bool, y: f64, prediction: &[f64]) -> f64 {
    match (is_class, prediction) {
        (false, prediction) => (prediction[0] - y) * (prediction[0] - y),
        (true, [of_second]) => -(if y == 1.0 { *of_second } else { 1.0 - of_second }).clamp(1e-15, 1.0).ln(),
        (true, shares) => -shares[y as usize].clamp(1e-15, 1.0).ln(),
    }
}

/// The mean of a few seeds may be above the worst of scikit-learn's ten by no more than these differ.
#[test]
fn ensembles_are_as_good_as_those_of_scikit_learn() {
    let Some(folder) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return println!("SKIPPED: ensembles on public tables (CONSORT_EXTRA_DATA names no folder)");
    };
    let text = std::fs::read_to_string(data("reference/ensemble.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let mut worse = Vec::new();
    for case in reference["cases"].as_array().unwrap() {
        let (table, name) = (case["table"].as_str().unwrap(), case["ensemble"].as_str().unwrap());
        let config = ensemble_of(name, reference["l2"].as_f64().unwrap());
        let (n_columns, is_class) = (case["columns"].as_u64().unwrap() as usize, case["is_class"] == true);
        let kind = if is_class { TargetKind::Integer } else { TargetKind::Float };
        let [trained, tested] = rows_of(Path::new(&folder), case["file"].as_str().unwrap(), n_columns);
        let [train_table, test_table] = [&trained, &tested].map(|rows| {
            MemorySource::from_f64(rows.x.clone(), n_columns).unwrap().with_target(rows.y.clone(), kind).unwrap()
        });
        let mut block = Block::empty();
        test_table.clone().read(0..tested.y.len() as u64, &mut block).unwrap();
        let mut ours = 0.0;
        for seed in 0..SEEDS {
            let config = TrainConfig { seed, ..config.clone() }.resolved().unwrap();
            let (model, _) = run_threads(1, 2, |comm| {
                let mut source = train_table.clone();
                let names = TableNames::default();
                linear_family::train_source(comm, &mut source, &names, &config, &Reading::default(), &mut Silent)
            })
            .unwrap()
            .swap_remove(0);
            let scores = Scorer::new(&model, &test_table, "test").unwrap().scores(&block).unwrap();
            let k = scores.len() / tested.y.len();
            let of_row = |(y, scores): (&f64, &[f64])| loss_of_prediction(is_class, *y, scores);
            ours += tested.y.iter().zip(scores.chunks_exact(k)).map(of_row).sum::<f64>() / tested.y.len() as f64;
        }
        ours /= SEEDS as f64;
        let losses: Vec<f64> =
            case["figures"].as_array().unwrap().iter().map(|figure| figure["loss"].as_f64().unwrap()).collect();
        let (least, most) = losses.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let line = format!("{table}, {name}: {ours:.6}, scikit-learn {least:.6} to {most:.6}");
        println!("{line}");
        if ours > most + (most - least) {
            worse.push(line);
        }
    }
    assert!(worse.is_empty(), "worse than seeds differ:\n{}", worse.join("\n"));
}
