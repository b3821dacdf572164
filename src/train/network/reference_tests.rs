//! Step by step against PyTorch: the same nets, starting parameters and batches (`data/reference/networks.py`).

use super::super::lanes::Lanes;
use super::super::table::{LocalRows, RowBuffer};
use super::step::Step;
use super::*;
use crate::config::{Activation, BoostLoss, Kind, MlpConfig, Norm, Schedule};
use crate::data::partition::RowPlan;
use crate::model::net::build;
use crate::model::{Features, TargetCoding};
use crate::train::data_parallel::Together;
use crate::train::prepare::objective_of;

fn file() -> hdf5::File {
    hdf5::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/data/reference/networks.h5")).unwrap()
}

fn floats(file: &hdf5::File, name: &str) -> Vec<f64> {
    file.dataset(name).unwrap().read_raw::<f64>().unwrap()
}

/// Rows of the reference as a table of a step.
fn table_of(x: &[f64], y: &[f64], rows: &[usize]) -> Table<'static> {
    let (d, plan) = (x.len() / y.len(), RowPlan::lanes(rows.len() as u64, 1, 1));
    let values = rows.iter().flat_map(|row| &x[row * d..(row + 1) * d]).map(|x| *x as f32).collect();
    Table {
        units: 0..plan.n_units(),
        plan,
        first_row: 0,
        n_features: d,
        rows: LocalRows::Memory(RowBuffer {
            n_features: d,
            x: Features::Dense(values),
            y: rows.iter().map(|row| y[*row]).collect(),
            weight: vec![1.0; rows.len()],
            ..RowBuffer::default()
        }),
        total_weight: rows.len() as f64,
        peak: vec![8.0; d],
    }
}

/// A tensor of PyTorch's as it is here: axes the other way round. Its images are (channel, place), of `channels` where a dense layer sees some.
fn turned(values: &[f64], shape: &[usize], channels: usize) -> Vec<f32> {
    let of = |at: &dyn Fn(usize) -> usize| (0..values.len()).map(|i| values[at(i)] as f32).collect();
    match *shape {
        [outputs, inputs] => of(&|i| {
            let (output, input) = (i % outputs, i / outputs);
            output * inputs + input % channels * (inputs / channels) + input / channels
        }),
        [outputs, channels, 3, 3] => {
            of(&|i| (i % outputs * channels + i / outputs % channels) * 9 + i / outputs / channels)
        }
        _ => of(&|i| i),
    }
}

fn check(name: &str, mlp: MlpConfig, solver: Solver, features: &str, target: &str) {
    let file = file();
    let (x, y) = (floats(&file, features), floats(&file, target));
    let n_classes = if mlp.loss == BoostLoss::Logistic { if target.ends_with("positive") { 2 } else { 3 } } else { 0 };
    let rate = match solver {
        Solver::Sgd => 0.05,
        Solver::Adagrad => 0.01,
        _ => 1e-3,
    };
    let batches: Vec<usize> = floats(&file, &format!("{name}/batches")).into_iter().map(|row| row as usize).collect();
    let losses = floats(&file, &format!("{name}/losses"));
    let batch = batches.len() / losses.len();
    let config = TrainConfig {
        solver,
        learning_rate: Some(rate),
        schedule: Schedule::Constant,
        global_batch: batch as u64,
        lanes: Some(1),
        epochs: Some(1),
        weight_decay: (solver == Solver::Adamw).then_some(0.01),
        mlp: Some(mlp),
        ..TrainConfig::of(Kind::Mlp)
    };
    let target = match n_classes {
        0 => TargetCoding::Number,
        n => TargetCoding::Integers((0..n).collect()),
    };
    let objective = objective_of(&config, &target);
    let mut network = build(config.mlp.as_ref().unwrap(), x.len() / y.len(), objective.n_scores());
    let layout: Vec<hdf5::types::VarLenUnicode> = file.dataset(&format!("{name}/layout")).unwrap().read_raw().unwrap();
    let shapes: Vec<Vec<usize>> =
        layout.iter().map(|line| line.split(' ').skip(1).map(|n| n.parse().unwrap()).collect()).collect();
    let tensors = |values: &[f64]| -> Vec<Vec<f32>> {
        let (mut at, mut channels) = (0, 1);
        let one = |shape: &Vec<usize>| {
            let n: usize = shape.iter().product();
            at += n;
            let values = turned(&values[at - n..at], shape, channels);
            match shape.len() {
                4 => channels = shape[0],
                2 => channels = 1,
                _ => {}
            }
            values
        };
        shapes.iter().map(one).collect()
    };
    let start = tensors(&floats(&file, &format!("{name}/start")));
    start.iter().enumerate().for_each(|(number, values)| network.set_tensor(number, values));
    let comm = Communicator::solo();
    let mut together = None;
    for (step, rows) in batches.chunks(batch).enumerate() {
        let table = table_of(&x, &y, rows);
        let course = Course::new(&table, &config).unwrap();
        let job = Job::new(&table, objective.as_ref(), &config, course, || rate).unwrap();
        let mut lanes = Lanes::of(&table, &course, 0, 0);
        lanes.enter(&comm, &table, 0, 0).unwrap();
        let net = together.get_or_insert_with(|| Step::new(&comm, &job, network.clone()).unwrap());
        net.step(&comm, &job, &mut lanes.all, step as u64, 0, batch as f64).unwrap();
        let loss = lanes.all[0].loss / batch as f64;
        assert!(
            (loss - losses[step]).abs() <= 1e-4 * losses[step].abs().max(1.0),
            "{name}, step {step}: {loss} and {}",
            losses[step]
        );
    }
    let table = table_of(&x, &y, &batches[..batch]);
    let job = Job::new(&table, objective.as_ref(), &config, Course::new(&table, &config).unwrap(), || rate).unwrap();
    network.set_numbers(&together.unwrap().finish(&comm, &job).unwrap());
    if !network.running.is_empty() {
        for (found, end) in network.running.iter().zip(floats(&file, &format!("{name}/running"))) {
            assert!((f64::from(*found) - end).abs() <= 1e-4 * end.abs().max(1.0), "{name}, running: {found} and {end}");
        }
    }
    for (number, end) in tensors(&floats(&file, &format!("{name}/end"))).into_iter().enumerate() {
        for (found, end) in network.tensor(number).into_iter().zip(end) {
            assert!((found - end).abs() <= 2e-4 * end.abs().max(1.0), "{name}, tensor {number}: {found} and {end}");
        }
    }
}

const X: &str = "table/x";

#[test]
fn activations_norms_and_residuals_follow_pytorch() {
    let base = MlpConfig { layers: vec![16, 12], loss: BoostLoss::Logistic, ..MlpConfig::default() };
    let sgd = |name: &str, mlp: MlpConfig| check(name, mlp, Solver::Sgd, X, "table/class");
    sgd("dense_relu", base.clone());
    sgd("dense_gelu", MlpConfig { activation: Activation::Gelu, ..base.clone() });
    sgd("dense_tanh", MlpConfig { activation: Activation::Tanh, ..base.clone() });
    sgd("dense_silu", MlpConfig { activation: Activation::Silu, ..base.clone() });
    sgd("layer_norm", MlpConfig { norm: Norm::Layer, ..base.clone() });
    sgd("batch_norm", MlpConfig { norm: Norm::Batch, ..base.clone() });
    let residual = MlpConfig { layers: vec![12, 12, 12], residual: true, ..base.clone() };
    sgd("residual", residual.clone());
    sgd("residual_layer_norm", MlpConfig { norm: Norm::Layer, ..residual });
}

#[test]
fn optimisers_follow_pytorch() {
    let base = MlpConfig { layers: vec![16, 12], loss: BoostLoss::Logistic, ..MlpConfig::default() };
    check("dense_relu_adam", base.clone(), Solver::Adam, X, "table/class");
    check("dense_relu_adamw", base.clone(), Solver::Adamw, X, "table/class");
    check("dense_relu_adagrad", base, Solver::Adagrad, X, "table/class");
}

#[test]
fn heads_follow_pytorch() {
    let of = |loss, alpha| MlpConfig { layers: vec![16, 12], loss, alpha, ..MlpConfig::default() };
    for (name, loss, alpha, target) in [
        ("logistic", BoostLoss::Logistic, 0.0, "table/positive"),
        ("squared", BoostLoss::Squared, 0.0, "table/target"),
        ("huber", BoostLoss::Huber, 1.0, "table/target"),
        ("poisson", BoostLoss::Poisson, 0.0, "table/count"),
        ("quantile", BoostLoss::Quantile, 0.9, "table/target"),
        ("gaussian", BoostLoss::Gaussian, 0.0, "table/target"),
    ] {
        check(name, of(loss, alpha), Solver::Sgd, X, target);
    }
}

#[test]
fn convolution_follows_pytorch() {
    let mlp = MlpConfig { conv: vec![8, 16], image: Some([8, 8, 1]), layers: vec![20], ..MlpConfig::default() };
    check("convolution", MlpConfig { loss: BoostLoss::Logistic, ..mlp }, Solver::Sgd, "images/x", "images/class");
}
