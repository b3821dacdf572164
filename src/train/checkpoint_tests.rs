//! Trainings that are stopped after every step and go on with other ranks have the bits of one that was left alone.

use super::*;
use crate::comm::run_threads;
use crate::config::{
    BoostConfig, BoostLoss, ForestConfig, Kind, MlpConfig, Norm, Precision, Schedule, Solver, Sync, TrainConfig, WarmUp,
};
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::error::ErrorKind;
use crate::rng::{Draws, Stream};
use crate::train::linear_family::train_source;
use crate::train::tree_tables;
use crate::train::{Model, Reading, Silent};

/// Two classes.
fn of_trees(n: usize) -> MemorySource {
    tree_tables::table(n, |score| f64::from(score > 0.0), TargetKind::Integer)
}

/// The same without gaps and huge values.
fn of_numbers(n: usize) -> MemorySource {
    let draws = Draws::new(5, Stream::Synthetic);
    let x: Vec<f32> = (0..n * 5).map(|i| draws.normal(i as u64, 0) as f32).collect();
    let of_row = |row: &[f32]| f64::from(row[0] - row[1] + 0.5 * row[3] > 0.3 * row[4]);
    let y = x.chunks_exact(5).map(of_row).collect();
    MemorySource::from_f32(x, 5).unwrap().with_target(y, TargetKind::Integer).unwrap()
}

/// Ranks, threads, and whether rows are streamed.
const SHAPES: [(usize, usize, bool); 5] = [(2, 1, false), (1, 2, true), (5, 1, false), (3, 2, true), (1, 1, false)];

fn run(
    shape: (usize, usize, bool),
    table: &MemorySource,
    config: &TrainConfig,
    keep: Option<&CheckpointConfig>,
) -> Result<Model> {
    let (size, threads, streamed) = shape;
    let config = &config.resolved()?;
    let models = run_threads(size, threads, |comm| {
        let keeper = keep.map_or(Ok(Keeper::default()), |keep| Keeper::new(keep.clone(), config))?;
        keeper.check_resume()?;
        let mut watch = Keeping { observer: &mut Silent, keeper };
        let reading = Reading { streamed, ..Reading::default() };
        let mut source = table.clone();
        train_source(comm, &mut source, &TableNames::default(), config, &reading, &mut watch).map(|(model, _)| model)
    })?;
    Ok(models.into_iter().next().expect("a rank"))
}

fn stopping_at_once(folder: &Path, resume: Resume) -> CheckpointConfig {
    let limit = Some(Duration::from_nanos(1));
    CheckpointConfig { folder: folder.to_path_buf(), every: Every::Steps(1), keep: 2, resume, limit }
}

/// Stops after every step, until it is done; how often it was stopped.
fn in_pieces(name: &str, table: &MemorySource, config: &TrainConfig) -> usize {
    let whole = run((1, 1, false), table, config, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let keep = stopping_at_once(&folder.path().join("kept"), Resume::Auto);
    for piece in 0.. {
        match run(SHAPES[piece % SHAPES.len()], table, config, Some(&keep)) {
            Ok(model) => {
                assert_eq!(model.digest, whole.digest, "{name}");
                assert_eq!(model.history, whole.history, "{name}");
                return piece;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{name}: {error}");
                assert!(error.to_string().contains("the time limit"), "{error}");
                assert!(piece < 400, "{name} never ends");
            }
        }
    }
    unreachable!()
}

#[test]
fn boosting_goes_on_after_every_round_with_the_same_bits() {
    let table = of_trees(1031);
    let boost = BoostConfig { rounds: 6, max_leaves: 12, max_bins: 40, min_rows: 5, ..BoostConfig::default() };
    let of = |boost: BoostConfig| TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) };
    assert_eq!(in_pieces("plain", &table, &of(boost.clone())), 5);
    in_pieces("sampled", &table, &of(BoostConfig { row_sample: 0.6, column_sample: 0.7, ..boost.clone() }));
    let early = TrainConfig { valid_fraction: 0.25, ..of(BoostConfig { early_stop: 2, rounds: 30, ..boost.clone() }) };
    in_pieces("early stop", &table, &early);
    in_pieces("folds", &table, &TrainConfig { folds: 2, ..of(BoostConfig { rounds: 3, ..boost.clone() }) });
    in_pieces("median", &table, &of(BoostConfig { loss: BoostLoss::Absolute, ..boost }));
}

#[test]
fn forests_go_on_after_every_group_of_trees() {
    let table = of_trees(523);
    let of = |forest| TrainConfig { forest: Some(forest), ..TrainConfig::of(Kind::Forest) };
    let forest = ForestConfig { trees: 7, min_rows: 4, ..ForestConfig::default() };
    assert_eq!(in_pieces("forest", &table, &of(forest.clone())), 6);
    in_pieces("extra", &table, &of(ForestConfig { extra: true, trees: 3, ..forest }));
}

#[test]
fn linear_models_go_on_after_every_step_of_every_solver() {
    let table = of_numbers(523);
    let of = |solver| TrainConfig { solver, max_iterations: 8, ..TrainConfig::of(Kind::Logistic) };
    assert!(in_pieces("lbfgs", &table, &of(Solver::Lbfgs)) > 2);
    assert!(in_pieces("owl-qn", &table, &TrainConfig { l1: 1e-3, ..of(Solver::Lbfgs) }) > 2);
    assert!(in_pieces("newton", &table, &of(Solver::Newton)) > 1);
    let lasso = TrainConfig { solver: Solver::Cd, l1: 0.01, tolerance: 1e-9, ..TrainConfig::of(Kind::Linear) };
    assert!(in_pieces("cd", &table, &lasso) > 3);
    in_pieces("cd, folds", &table, &TrainConfig { folds: 2, max_iterations: 3, ..lasso });
    let steps = TrainConfig { epochs: Some(2), global_batch: 64, lanes: Some(4), ..of(Solver::Sgd) };
    assert!(in_pieces("sgd", &table, &steps) > 10);
    assert!(in_pieces("adam", &table, &TrainConfig { solver: Solver::Adam, ..steps.clone() }) > 10);
    assert!(in_pieces("local sgd", &table, &TrainConfig { sync: Sync::Every(3), ..steps.clone() }) > 10);
    assert!(in_pieces("one average", &table, &TrainConfig { sync: Sync::Once, solver: Solver::Adam, ..steps }) > 10);
}

#[test]
fn networks_go_on_after_every_step_with_their_running_moments() {
    let table = of_numbers(523);
    let of = |solver, mlp| TrainConfig {
        solver,
        epochs: Some(2),
        global_batch: 64,
        lanes: Some(4),
        mlp: Some(mlp),
        ..TrainConfig::of(Kind::Mlp)
    };
    let mlp = MlpConfig { layers: vec![9, 9], dropout: 0.2, ..MlpConfig::default() };
    let norms = MlpConfig { norm: Norm::Batch, residual: true, ..mlp.clone() };
    let narrow = MlpConfig { precision: Precision::Bf16, ..norms.clone() };
    assert!(in_pieces("network", &table, &of(Solver::Adamw, mlp)) > 10);
    assert!(in_pieces("bfloat16", &table, &of(Solver::Adamw, narrow.clone())) > 10);
    let apart = TrainConfig { sync: Sync::Every(3), local_after: 1, ..of(Solver::Sgd, narrow) };
    assert!(in_pieces("bfloat16, then apart", &table, &apart) > 10);
    assert!(in_pieces("batch norm", &table, &of(Solver::Sgd, norms.clone())) > 10);
    let stopping = TrainConfig { early_stop: 1, valid_fraction: 0.3, average: Some(0.5), ..of(Solver::Lamb, norms) };
    in_pieces("best epoch", &table, &stopping);
}

/// What is kept has as many numbers in either precision, and would be taken up without a word.
#[test]
fn a_network_in_bfloat16_does_not_go_on_from_a_checkpoint_in_float32() {
    let table = of_numbers(523);
    let of = |precision| TrainConfig {
        epochs: Some(1),
        global_batch: 128,
        mlp: Some(MlpConfig { layers: vec![9], precision, ..MlpConfig::default() }),
        ..TrainConfig::of(Kind::Mlp)
    };
    let (wide, narrow) = (of(Precision::F32), of(Precision::Bf16));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("kept");
    let stopping = stopping_at_once(&at, Resume::Auto);
    let stopped = |config| run((2, 1, false), &table, config, Some(&stopping)).unwrap_err().to_string();
    assert!(stopped(&wide).contains("after step 1,"));
    assert!(stopped(&narrow).contains("after step 1,"), "begins anew");
    assert!(stopped(&narrow).contains("after step 2,"), "goes on from its own");
    let keep = CheckpointConfig { limit: None, ..stopping };
    for config in [&wide, &narrow] {
        let alone = run((1, 1, false), &table, config, None).unwrap();
        assert_eq!(run((3, 1, false), &table, config, Some(&keep)).unwrap().digest, alone.digest);
    }
}

/// One kept by ranks that share the optimiser is taken up by more or fewer of them.
#[test]
fn networks_whose_optimiser_is_shared_go_on_after_every_step() {
    let of = |solver| TrainConfig {
        solver,
        epochs: Some(1),
        global_batch: 32,
        lanes: Some(4),
        average: Some(0.6),
        mlp: Some(MlpConfig { layers: vec![360, 366], ..MlpConfig::default() }),
        ..TrainConfig::of(Kind::Mlp)
    };
    for solver in [Solver::Adam, Solver::Lamb] {
        assert!(in_pieces("shared", &of_numbers(211), &of(solver)) > 4);
    }
}

/// Also in the midst of a round, and at the step after which lanes part.
#[test]
fn networks_whose_lanes_are_alone_go_on_after_every_step() {
    let table = of_numbers(523);
    let of = |solver, mlp, sync, local_after| TrainConfig {
        solver,
        sync,
        local_after,
        epochs: Some(3),
        global_batch: 64,
        lanes: Some(4),
        mlp: Some(mlp),
        ..TrainConfig::of(Kind::Mlp)
    };
    let mlp = MlpConfig { layers: vec![9, 9], dropout: 0.2, ..MlpConfig::default() };
    let norms = MlpConfig { norm: Norm::Batch, residual: true, ..mlp.clone() };
    assert!(in_pieces("apart", &table, &of(Solver::Adamw, mlp.clone(), Sync::Every(5), 0)) > 20);
    let stopping = TrainConfig {
        early_stop: 1,
        valid_fraction: 0.3,
        average: Some(0.5),
        ..of(Solver::Lamb, norms.clone(), Sync::Every(3), 0)
    };
    in_pieces("best epoch", &table, &stopping);
    in_pieces("one average", &table, &of(Solver::Sgd, norms.clone(), Sync::Once, 0));
    let narrow = MlpConfig { gradient_bits: 8, ..norms };
    let after = TrainConfig { average: Some(0.5), ..of(Solver::Sgd, narrow, Sync::Every(5), 2) };
    assert!(in_pieces("narrow, then apart", &table, &after) > 20);
    in_pieces("then one average", &table, &of(Solver::Adagrad, mlp, Sync::Once, 1));
}

#[test]
fn networks_that_send_some_of_their_gradients_go_on_after_every_step() {
    let table = of_numbers(523);
    let base = MlpConfig { layers: vec![40, 40], norm: Norm::Batch, ..MlpConfig::default() };
    let of = |mlp| TrainConfig {
        solver: Solver::Sgd,
        epochs: Some(2),
        global_batch: 64,
        lanes: Some(4),
        mlp: Some(mlp),
        ..TrainConfig::of(Kind::Mlp)
    };
    assert!(in_pieces("low rank", &table, &of(MlpConfig { powersgd: Some(2), ..base.clone() })) > 10);
    let largest = MlpConfig { top_k: Some(0.05), ..base };
    assert!(in_pieces("the largest", &table, &of(largest.clone())) > 10);
    in_pieces("the largest, then apart", &table, &TrainConfig { sync: Sync::Every(3), local_after: 1, ..of(largest) });
}

#[test]
fn other_optimisers_averages_and_the_best_epoch_go_on_after_every_step() {
    let table = of_numbers(523);
    let of = |solver, sync| TrainConfig {
        solver,
        sync,
        epochs: Some(2),
        global_batch: 64,
        lanes: Some(4),
        ..TrainConfig::of(Kind::Logistic)
    };
    let step = |solver| of(solver, Sync::Step);
    let adamw = TrainConfig { average: Some(0.9), clip_norm: Some(0.05), ..step(Solver::Adamw) };
    assert!(in_pieces("adamw", &table, &adamw) > 10);
    in_pieces("lamb", &table, &TrainConfig { schedule: Schedule::OneCycle, ..step(Solver::Lamb) });
    in_pieces("lars", &table, &TrainConfig { warm_up: Some(WarmUp::Epochs(0.5)), ..step(Solver::Lars) });
    in_pieces("adagrad", &table, &step(Solver::Adagrad));
    in_pieces("lanes apart", &table, &TrainConfig { average: Some(0.5), ..of(Solver::Lamb, Sync::Every(3)) });
    let stopping = TrainConfig { early_stop: 1, valid_fraction: 0.3, epochs: Some(5), ..step(Solver::Sgd) };
    // A rate at which epochs get worse.
    in_pieces("early stop", &table, &TrainConfig { learning_rate: Some(3.0), ..stopping.clone() });
    let apart = TrainConfig { sync: Sync::Every(3), average: Some(0.5), learning_rate: Some(3.0), ..stopping };
    in_pieces("early stop of lanes apart", &table, &apart);
    let after = TrainConfig { local_after: 1, average: Some(0.5), ..of(Solver::Lamb, Sync::Every(3)) };
    assert!(in_pieces("apart after an epoch", &table, &after) > 10);
}

#[test]
fn the_model_of_early_stopping_is_that_of_its_best_epoch() {
    let table = of_numbers(523);
    let schedule = Schedule::Constant;
    let base = TrainConfig { solver: Solver::Sgd, global_batch: 64, schedule, ..TrainConfig::of(Kind::Logistic) };
    let base = TrainConfig { valid_fraction: 0.3, learning_rate: Some(1.0), tolerance: 0.0, ..base };
    let stopping = TrainConfig { early_stop: 2, epochs: Some(60), ..base.clone() };
    let alone = run((1, 1, false), &table, &stopping, None).unwrap();
    for shape in SHAPES {
        let model = run(shape, &table, &stopping, None).unwrap();
        assert_eq!((&model.digest, &model.history), (&alone.digest, &alone.history), "{shape:?}");
    }
    let losses = &alone.history.iter().find(|(name, _)| name == "valid_loss").unwrap().1;
    let least = losses.iter().copied().min_by(f64::total_cmp).unwrap();
    let best = losses.iter().position(|loss| *loss == least).unwrap();
    assert!(losses.len() == best + 3 && losses.len() < 60, "stops two epochs after the best: {losses:?}");
    // A training of so many epochs and no more; its model as measured by others.
    let short = TrainConfig { epochs: Some(best as u64 + 1), ..base };
    let mut source = table.clone();
    let (names, reading) = (TableNames::default(), Reading::default());
    let comm = Communicator::solo();
    let short = short.resolved().unwrap();
    let (model, report) = train_source(&comm, &mut source, &names, &short, &reading, &mut Silent).unwrap();
    assert_eq!(model.scores, alone.scores);
    approx::assert_relative_eq!(report.valid.get("log_loss").unwrap(), least, max_relative = 1e-9);
}

#[test]
fn what_was_kept_before_a_divergence_is_whole_and_finite() {
    let table = of_numbers(523);
    let squared = TrainConfig { schedule: Schedule::Constant, epochs: Some(400), ..TrainConfig::of(Kind::Linear) };
    let numbers = table.clone().with_target((0..523).map(f64::from).collect(), TargetKind::Float).unwrap();
    for sync in [Sync::Step, Sync::Every(3)] {
        let config = TrainConfig { solver: Solver::Sgd, global_batch: 64, lanes: Some(4), sync, ..squared.clone() };
        let config = TrainConfig { learning_rate: Some(4.0), ..config };
        let folder = tempfile::tempdir().unwrap();
        let keep = CheckpointConfig { limit: None, ..stopping_at_once(folder.path(), Resume::Auto) };
        let fails =
            |keep: Option<&CheckpointConfig>| run((3, 1, false), &numbers, &config, keep).unwrap_err().to_string();
        let told = fails(None);
        assert!(told.contains("training diverged at step") && told.contains("; try --learning-rate "), "{told}");
        let kept = fails(Some(&keep));
        let steps = steps_below(folder.path());
        assert_eq!(steps.len(), 2, "{kept}");
        // It is told from what was kept, too.
        assert_eq!(fails(Some(&keep)), kept);
        let step = |folder: &PathBuf| folder.file_name().unwrap().to_string_lossy()[5..17].parse::<u64>().unwrap();
        let at: u64 = kept.split(' ').skip_while(|word| *word != "step").nth(1).unwrap().parse().unwrap();
        assert_eq!(step(&steps[1]) + 1, at, "{kept}: the last step before it");
    }
}

#[test]
fn ensembles_go_on_with_the_members_that_are_done() {
    use crate::config::{Calibrate, EnsembleConfig, MemberConfig};
    let table = of_numbers(523);
    let boost = BoostConfig { rounds: 2, max_leaves: 4, min_rows: 5, ..BoostConfig::default() };
    let learner = TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) };
    let ensemble = EnsembleConfig { members: 3, learner: Some(learner.clone()), ..EnsembleConfig::default() };
    let of = |kind, ensemble: &EnsembleConfig| TrainConfig {
        ensemble: Some(Box::new(ensemble.clone())),
        ..TrainConfig::of(kind)
    };
    assert!(in_pieces("bag", &table, &of(Kind::Bag, &ensemble)) > 3);
    assert!(in_pieces("adaboost", &table, &of(Kind::Adaboost, &ensemble)) > 3);
    let member = |name: &str, config: &TrainConfig| MemberConfig { name: name.to_string(), config: config.clone() };
    let logistic = TrainConfig { max_iterations: 5, ..TrainConfig::of(Kind::Logistic) };
    let member = vec![member("a", &learner), member("b", &logistic)];
    let stack = EnsembleConfig { member, stack_folds: 2, ..EnsembleConfig::default() };
    assert!(in_pieces("stack", &table, &of(Kind::Stack, &stack)) > 3);
    let calibrated = TrainConfig { calibrate: Some(Calibrate::Platt), calibrate_folds: Some(2), ..learner };
    assert!(in_pieces("calibrated", &table, &calibrated) > 3);
}

/// The folders of all steps below a folder.
fn steps_below(dir: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut all: Vec<PathBuf> =
        folders.flat_map(|path| if disk::is_step(&path) { vec![path] } else { steps_below(&path) }).collect();
    all.sort();
    all
}

/// Half way in one folder, then from there in another; then from each single checkpoint.
fn from_named(name: &str, table: &MemorySource, config: &TrainConfig) {
    const ALONE: (usize, usize, bool) = (1, 1, false);
    let whole = run(ALONE, table, config, None).unwrap().digest;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let until_done = |folder: &Path, resume: Resume, most: usize| {
        let keep = stopping_at_once(folder, resume);
        let run = |_: &usize| {
            run(ALONE, table, config, Some(&keep)).map_or(true, |model| {
                assert_eq!(model.digest, whole, "{name}");
                false
            })
        };
        (0..most).take_while(run).count()
    };
    let pieces = until_done(&at("all"), Resume::Auto, 400);
    assert!(pieces > 3 && pieces < 400, "{name}: {pieces}");
    assert_eq!(until_done(&at("a"), Resume::Auto, pieces / 2), pieces / 2);
    // The same command again and again, which finds in its own folder what it has done since.
    assert_eq!(until_done(&at("b"), Resume::From(at("a")), 400), pieces - pieces / 2, "{name}");

    let other = TrainConfig { seed: 9, ..config.clone() };
    for step in steps_below(&at("a")) {
        for kept in ["a", "empty"] {
            let resume = Resume::From(step.clone());
            let keep = CheckpointConfig { limit: None, keep: 1000, ..stopping_at_once(&at(kept), resume) };
            assert_eq!(run((2, 1, true), table, config, Some(&keep)).unwrap().digest, whole, "{name}: {step:?}");
            let refused = run(ALONE, table, &other, Some(&keep)).unwrap_err();
            assert!(refused.to_string().contains("other settings"), "{refused}");
        }
        std::fs::remove_dir_all(at("empty")).unwrap();
    }
    let nothing = stopping_at_once(&at("b"), Resume::From(at("none")));
    let refused = run(ALONE, table, config, Some(&nothing)).unwrap_err().to_string();
    assert!(refused.contains("--resume: ") && refused.contains("there is no such folder"), "{refused}");
}

#[test]
fn parts_go_on_from_a_folder_or_a_checkpoint_that_is_named() {
    use crate::config::{Calibrate, EnsembleConfig};
    let table = of_numbers(211);
    let boost = BoostConfig { rounds: 3, max_leaves: 4, min_rows: 5, ..BoostConfig::default() };
    let learner = TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) };
    from_named("alone", &table, &TrainConfig { max_iterations: 8, ..TrainConfig::of(Kind::Logistic) });
    from_named("folds", &table, &TrainConfig { folds: 2, ..learner.clone() });
    let calibrated = TrainConfig { calibrate: Some(Calibrate::Platt), calibrate_folds: Some(2), ..learner.clone() };
    from_named("calibrated", &table, &calibrated);
    let ensemble = EnsembleConfig { members: 3, learner: Some(learner), ..EnsembleConfig::default() };
    from_named("bag", &table, &TrainConfig { ensemble: Some(Box::new(ensemble)), ..TrainConfig::of(Kind::Bag) });
}

#[test]
fn a_named_checkpoint_that_is_damaged_is_refused() {
    let table = of_numbers(211);
    let config = TrainConfig { max_iterations: 8, ..TrainConfig::of(Kind::Logistic) };
    let folder = tempfile::tempdir().unwrap();
    run((1, 1, false), &table, &config, Some(&stopping_at_once(folder.path(), Resume::Auto))).unwrap_err();
    let step = steps_below(folder.path()).pop().unwrap();
    std::fs::write(step.join("state"), b"something else").unwrap();
    for size in [1, 3] {
        let keep = stopping_at_once(folder.path(), Resume::From(step.clone()));
        let refused = run((size, 1, false), &table, &config, Some(&keep)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Data, "{refused}");
        assert!(refused.to_string().contains("--resume: ") && refused.to_string().contains("damaged"), "{refused}");
    }
}
