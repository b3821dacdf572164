//! The linear family from open files to a model: prepare, solve, cross-validate, digest.

use super::checkpoint::{Keeping, Key};
use super::evaluate::add_fold;
use super::full_batch::FullBatch;
use super::measure::{ScoredRows, Show, measure};
use super::prepare::{HeldOut, Prepared, objective_of, prepare, start};
use super::score::Link;
use super::table::{Fit, RowBuffer};
use super::warm_start::warm_start;
use super::{
    Inputs, Kind, Model, Observer, Reading, Silent, Solver, TrainConfig, TrainReport, boosting, calibrate,
    coordinate_descent, data_parallel, ensemble, forest, lbfgs, least_squares, memory, network, newton, target, tsqr,
};
use crate::comm::Communicator;
use crate::config::{BoostLoss, ClassWeight};
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::{DataSource, TableIndex};
use crate::error::{Error, InContext, Result};
use crate::metric::Metrics;
use crate::model::{CalibrationMap, LinearModel, Scores};
use crate::nodes::agree_on_files;
use rayon::prelude::*;
use std::ops::Range;
use std::time::Instant;

/// Opens the inputs: one rank looks at the files, all read them. Collective.
///
/// # Errors
/// Also `Data`: files that are not the same on all nodes.
pub fn open(comm: &Communicator, inputs: &Inputs, need: Need) -> Result<Hdf5Source> {
    let looked = if comm.is_root() {
        TableIndex::of(&inputs.paths, &inputs.names, need).and_then(|index| index.to_bytes())
    } else {
        Ok(Vec::new())
    };
    let mut bytes = comm.agree(looked)?;
    comm.broadcast_vec(&mut bytes, 0)?;
    let index = comm.agree(TableIndex::from_bytes(&bytes))?;
    agree_on_files(comm, &index.files())?;
    let mut source = Hdf5Source::of_index(index);
    if let Some(rows) = &inputs.rows {
        source.keep_rows(rows.clone()).in_file(inputs.paths.first().cloned().unwrap_or_default())?;
    }
    Ok(source)
}

/// The same for a training with these settings, or for what comes of it. Collective.
///
/// # Errors
/// Also `Data`: more targets than it takes.
pub fn open_for(comm: &Communicator, inputs: &Inputs, need: Need, config: &TrainConfig) -> Result<Hdf5Source> {
    let source = open(comm, inputs, need)?;
    check_targets(config, &source, source.names()).in_file(inputs.paths.first().cloned().unwrap_or_default())?;
    Ok(source)
}

fn check_targets(config: &TrainConfig, source: &dyn DataSource, names: &TableNames) -> Result<()> {
    let found = source.schema().n_targets();
    match &config.mlp {
        Some(mlp) if found > 1 && mlp.loss == BoostLoss::Gaussian => Err(Error::usage(format!(
            "is of one target, and '{}' has {found} values a row; name one of them with --target, or choose squared, huber, quantile or poisson",
            names.target.as_deref().unwrap_or("y")
        )))
        .for_flag("--loss gaussian"),
        _ => {
            let wanted = if config.takes_several_targets() { None } else { Some(1) };
            target::check_number(wanted, source.schema(), names)
        }
    }
}

/// Refuses to balance what turned out to be numbers: a floating-point target, where nobody chose a loss or criterion.
fn check_class_weight(config: &TrainConfig) -> Result<()> {
    if config.class_weight == ClassWeight::None || config.responds_as().is_classifier() {
        return Ok(());
    }
    let instead = if config.kind == Kind::Forest { "--criterion gini" } else { "--loss logistic" };
    Err(Error::usage(format!(
        "--class-weight balances classes, and floating-point targets are taken as numbers; leave it out, or give {instead}"
    )))
}

/// Trains one model of the linear family. Collective; the same model on every rank.
///
/// `config` must be [resolved](TrainConfig::resolved).
pub fn train(
    comm: &Communicator,
    inputs: &Inputs,
    config: &TrainConfig,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    train_from(comm, inputs, config, None, watch)
}

/// As [`train`]; with a model of boosted trees, training goes on from them. Collective.
///
/// A vote of trained models ([`ensemble::of_models`]) is weighed and measured. Of boosted trees, the rounds of `config` are then added to those of the model. With its inputs and its other settings the outcome is that of all
/// rounds at once, bit for bit. Another table may be gone on with that has the same columns and classes.
///
/// # Errors
/// `Usage` or `Data` for what does not agree with the model: columns, categories, classes, loss, constraints.
pub fn train_from(
    comm: &Communicator,
    inputs: &Inputs,
    config: &TrainConfig,
    model: Option<&Model>,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    // What every rank finds wrong in the same reduced values is agreed on as well, so that it is said once.
    comm.agree(open_and_train(comm, inputs, config, model, watch))
}

fn open_and_train(
    comm: &Communicator,
    inputs: &Inputs,
    config: &TrainConfig,
    from: Option<&Model>,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    let mut source = open_for(comm, inputs, Need::Train, config)?;
    let names = source.names().relative();
    let file = inputs.paths.first().cloned().unwrap_or_default();
    let trained = match from {
        Some(_) if config.kind.is_ensemble() => {
            let config = config.for_table(source.schema().is_sparse, source.schema().target_kind());
            ensemble::train_source(comm, &mut source, &names, &config, &inputs.reading, from, watch)
        }
        Some(_) => boosting::train_source(comm, &mut source, &names, config, &inputs.reading, from, watch),
        None => train_source(comm, &mut source, &names, config, &inputs.reading, watch),
    };
    let (mut model, mut report) = trained.in_file(file)?;
    model.names = names;
    report.through_library = source.through_library();
    report.traffic = comm.traffic();
    Ok((model, report))
}

/// The same from any table. Collective.
pub fn train_source(
    comm: &Communicator,
    source: &mut dyn DataSource,
    names: &TableNames,
    config: &TrainConfig,
    reading: &Reading,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    check_targets(config, source, names)?;
    if config.calibrate.is_some() {
        return calibrate::train_source(comm, source, names, config, reading, watch);
    }
    let is_sparse = source.schema().is_sparse;
    let config = &config.for_table(is_sparse, source.schema().target_kind());
    if config.kind.is_ensemble() {
        return ensemble::train_source(comm, source, names, config, reading, None, watch);
    }
    check_class_weight(config)?;
    if config.kind == Kind::Boost {
        return boosting::train_source(comm, source, names, config, reading, None, watch);
    }
    if config.kind == Kind::Forest {
        return forest::train_source(comm, source, names, config, reading, watch);
    }
    let config = &config.for_image(source.schema().image)?;
    let mut folds: Vec<(String, Vec<f64>)> = Vec::new();
    for fold in 0..config.folds {
        let held_out = HeldOut::Fold { fold, folds: config.folds };
        let prepared = prepare(comm, source, config, reading, Some(held_out), &mut Silent)?;
        let objective = objective_of(config, &prepared.target);
        let keeper = watch.keeper().part(&format!("fold-{fold}"));
        let (_, scores) = solve(comm, &prepared, objective.as_ref(), config, &mut Keeping { observer: watch, keeper })?;
        let metrics = held_out_metrics(comm, &prepared, config, reading, &scores)?;
        add_fold(&mut folds, &metrics);
    }

    let held_out = (config.valid_fraction > 0.0).then_some(HeldOut::Fraction(config.valid_fraction));
    let prepared = prepare(comm, source, config, reading, held_out, watch)?;
    let objective = objective_of(config, &prepared.target);
    let began = Instant::now();
    let (fit, scores) = solve(comm, &prepared, objective.as_ref(), config, watch)?;
    let solve_s = began.elapsed().as_secs_f64();

    let valid = match held_out {
        Some(_) => held_out_metrics(comm, &prepared, config, reading, &scores)?,
        None => Metrics::new(),
    };
    let n_features = prepared.table.n_features;
    let report = TrainReport {
        rows: prepared.table.plan.n_rows(),
        features: n_features,
        read_s: prepared.read_s,
        train_s: prepared.prepare_s + solve_s,
        epoch_s: median(&fit.seconds),
        iterations: fit.iterations,
        converged: fit.converged,
        stop_value: fit.stop_values.last().copied().unwrap_or(0.0),
        loss: fit.losses.last().copied().unwrap_or(f64::NAN),
        folds,
        valid,
        traffic: comm.traffic(),
        streamed: prepared.table.streamed(),
        is_sparse,
        ..TrainReport::default()
    };
    let mut history = vec![("loss".to_string(), fit.losses), ("stop_value".to_string(), fit.stop_values)];
    if !fit.valid_losses.is_empty() {
        history.push(("valid_loss".to_string(), fit.valid_losses));
    }
    let mut model = Model {
        config: config.clone(),
        names: names.clone(),
        n_rows: report.rows,
        input_digest: prepared.input_digest.to_hex(),
        preprocess: prepared.preprocess,
        target: prepared.target,
        scores,
        continued: None,
        history,
        digest: String::new(),
    };
    model.digest = digest(&model)?;
    Ok((model, report))
}

/// One solver call. Collective.
fn solve(
    comm: &Communicator,
    prepared: &Prepared<'_>,
    objective: &dyn crate::objective::Objective,
    config: &TrainConfig,
    watch: &mut dyn Observer,
) -> Result<(Fit, Scores)> {
    let table = &prepared.table;
    let key = Key::new(config, table.plan.n_rows(), &prepared.input_digest.to_hex())?;
    if config.kind == Kind::Mlp {
        let mut network = network::start(comm, prepared, objective, config)?;
        let session = watch.keeper().open(comm, key.and(b"first loss"), watch)?;
        let fit = network::train(comm, table, objective, config, &network, session, watch)?;
        network.set_numbers(&fit.params);
        return Ok((fit, Scores::Mlp(network)));
    }
    let start = start(objective, prepared);
    let fit = match config.solver {
        Solver::Lbfgs => {
            let problem = FullBatch::new(comm, table, objective, config.l2);
            let mut session = watch.keeper().open(comm, key, watch)?;
            let state = match session.take(comm, 0..0, 0)? {
                Some((state, _)) => state,
                None => lbfgs::State::at(&problem, config, warm_start(&problem, config, start)?)?,
            };
            lbfgs::go_on(&problem, config, state, &mut session, watch)
        }
        Solver::Newton => {
            let mut session = watch.keeper().open(comm, key, watch)?;
            newton::solve(comm, table, objective, config, start, &mut session, watch)
        }
        Solver::Cholesky => least_squares::solve(comm, table, objective, config, start, watch),
        Solver::Qr => tsqr::solve(comm, table, objective, config, start, watch),
        Solver::Cd => {
            let mut session = watch.keeper().open(comm, key, watch)?;
            coordinate_descent::solve(comm, table, objective, config, start, &mut session, watch)
        }
        solver if solver.is_mini_batch() => {
            // What is kept of a step has changed since the first version.
            let session = watch.keeper().open(comm, key.and(b"steps 3"), watch)?;
            data_parallel::train(comm, table, objective, config, start, session, watch)
        }
        _ => Err(Error::internal("the solver was not resolved before training")),
    }?;
    let (n_features, n_scores, params) = (table.n_features, objective.n_scores(), fit.params.clone());
    Ok((fit, Scores::Linear(LinearModel { n_features, n_scores, params })))
}

/// Blocks whose rows are measured together.
const MEASURED_BLOCKS: usize = 64;

/// The rows of some blocks that were held out, with their scores.
#[derive(Default)]
struct HeldOutRows {
    y: Vec<f64>,
    weight: Vec<f64>,
    scores: Vec<f64>,
    variances: Vec<f64>,
}

impl HeldOutRows {
    fn of(buffer: &RowBuffer, block: &Range<usize>, by: &Scores) -> HeldOutRows {
        let (rows, held_out) = (buffer.rows(), buffer.held_out.as_deref().unwrap_or_default());
        let which: Vec<usize> = block.clone().filter(|row| held_out.get(*row).is_some_and(|w| *w != 0.0)).collect();
        let mut scores = vec![0.0; which.len() * by.n_scores()];
        let mut variances = vec![0.0; if by.has_variance() { which.len() } else { 0 }];
        match by {
            Scores::Mlp(network) if by.has_variance() => {
                network.scores_and_variances(which.iter().map(|row| rows.row(*row)), &mut scores, &mut variances);
            }
            _ => rows.scores_of(by, &which, &mut scores),
        }
        let t = rows.n_targets();
        let y = which.iter().flat_map(|row| rows.y[row * t..(row + 1) * t].iter().copied()).collect();
        let weight = which.iter().map(|row| held_out[*row]).collect();
        HeldOutRows { y, weight, scores, variances }
    }

    fn append(&mut self, more: HeldOutRows) {
        self.y.extend(more.y);
        self.weight.extend(more.weight);
        self.scores.extend(more.scores);
        self.variances.extend(more.variances);
    }
}

/// Metrics of the rows that were held out. Collective.
fn held_out_metrics(
    comm: &Communicator,
    prepared: &Prepared<'_>,
    config: &TrainConfig,
    reading: &Reading,
    scores: &Scores,
) -> Result<Metrics> {
    let n_classes = prepared.target.n_classes();
    let table = &prepared.table;
    let mut pass = |show: &mut Show<'_>| {
        table.each_batch(|buffer, blocks, _| {
            for blocks in blocks.chunks(MEASURED_BLOCKS) {
                let scored: Vec<_> = blocks.par_iter().map(|block| HeldOutRows::of(buffer, block, scores)).collect();
                let mut all = HeldOutRows::default();
                scored.into_iter().for_each(|rows| all.append(rows));
                show(ScoredRows { y: &all.y, weight: &all.weight, scores: &all.scores, variances: &all.variances });
            }
        })
    };
    let room = reading.max_memory.map(memory::of_measuring);
    let link = Link::new(config.responds_as(), n_classes).for_targets(prepared.target.n_targets());
    let link = link.with_variance(scores.has_variance());
    Ok(measure(comm, &link, room, &mut pass)?.metrics)
}

/// BLAKE3 of the parameters, of every setting that can change them, and of the input values. Not collective.
///
/// Names, paths and the shape of the job are left out: the same values under other names give the same digest.
pub fn digest(model: &Model) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    // Cross-validation measures, as do rows out of bag; it does not touch the model.
    let mut settings = TrainConfig { folds: 0, ..model.config.clone() };
    settings.forest.iter_mut().for_each(|forest| forest.oob = false);
    let settings = serde_json::to_vec(&settings).map_err(|e| Error::internal(e.to_string()))?;
    hasher.update(b"consort model 1\n");
    for part in [&settings[..], model.input_digest.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&model.n_rows.to_le_bytes());
    let preprocess = &model.preprocess;
    let mut hash_numbers = |numbers: &[f64]| {
        hasher.update(&(numbers.len() as u64).to_le_bytes());
        for number in numbers {
            hasher.update(&number.to_bits().to_le_bytes());
        }
    };
    hash_numbers(&preprocess.mean);
    hash_numbers(&preprocess.inverse_scale);
    match &model.scores {
        Scores::Linear(linear) => hash_numbers(&linear.params),
        Scores::Mlp(network) => {
            let units = network.units.iter().flat_map(|unit| [unit.scale, unit.origin]);
            hash_numbers(&network.numbers().into_iter().chain(units).collect::<Vec<_>>());
        }
        Scores::Boosted(boosted) => {
            let trees = postcard::to_allocvec(boosted).map_err(|e| Error::internal(e.to_string()))?;
            hasher.update(&trees);
        }
        Scores::Forest(forest) => forest.each_bytes(|bytes| {
            hasher.update(bytes);
        }),
        Scores::Ensemble(ensemble) => ensemble.hash(&mut hasher),
        Scores::Calibrated(of) => {
            for map in &of.maps {
                match map {
                    CalibrationMap::Platt { a, b } => hash_numbers(&[*a, *b]),
                    CalibrationMap::Isotonic { x, y } => [x, y].into_iter().for_each(|numbers| hash_numbers(numbers)),
                }
            }
            hasher.update(of.model.digest.as_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
