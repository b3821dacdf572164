//! The promise: the same bits for any number of ranks, threads, chunk shape, compression and number of files.
//!
//! Every solver is trained on the same values in other shapes; the digests (of parameters, settings and inputs)
//! and the parameters themselves must be equal, bit for bit.

use consort::comm::run_threads;
use consort::config::{
    BoostConfig, BoostLoss, EnsembleConfig, ForestConfig, MemberConfig, Missing, MlpConfig, Norm, Precision, Scope,
    VoteWeights,
};
use consort::data::memory::MemorySource;
use consort::data::names::TableNames;
use consort::data::synthetic::{self, Storage};
use consort::data::{TargetKind, Targets, Values};
use consort::model::{CalibrationMap, Scores, Tree};
use consort::train::{
    Calibrate, ClassWeight, Inputs, Kind, Model, Reading, Schedule, Silent, Solver, Sync, TrainConfig, train,
};
use std::path::{Path, PathBuf};

fn run(size: usize, threads: usize, inputs: &Inputs, config: &TrainConfig) -> Model {
    let config = config.resolved().unwrap();
    let models = run_threads(size, threads, |comm| Ok(train(comm, inputs, &config, &mut Silent)?.0)).unwrap();
    for model in &models {
        assert!(same_bits(model, &models[0]), "ranks of one world differ");
    }
    models.into_iter().next().unwrap()
}

/// Bits of coefficients, or of what is in the trees.
fn params(model: &Model) -> Vec<u64> {
    params_of(&model.scores)
}

fn params_of(scores: &Scores) -> Vec<u64> {
    match scores {
        Scores::Linear(linear) => linear.params.iter().map(|p| p.to_bits()).collect(),
        Scores::Mlp(network) => network.numbers().iter().map(|p| p.to_bits()).collect(),
        Scores::Boosted(boosted) => {
            let of_tree = |tree: &Tree| {
                let features = tree.feature.iter().map(|feature| u64::from(*feature)).collect::<Vec<_>>();
                let numbers = tree.threshold.iter().chain(&tree.gain).chain(&tree.value).map(|x| x.to_bits());
                features.into_iter().chain(numbers.collect::<Vec<_>>()).chain(tree.leaf_rows.clone())
            };
            boosted.start.iter().map(|x| x.to_bits()).chain(boosted.trees.iter().flat_map(of_tree)).collect()
        }
        Scores::Forest(forest) => {
            let mut bits = Vec::new();
            forest.each_bytes(|bytes| bits.extend(bytes.iter().map(|byte| u64::from(*byte))));
            bits.extend(forest.importance.iter().map(|of| of.gain.to_bits()));
            bits
        }
        Scores::Ensemble(ensemble) => {
            let weights = ensemble.members.iter().map(|member| member.weight.to_bits());
            weights.chain(ensemble.members.iter().flat_map(|member| params(&member.model))).collect()
        }
        Scores::Calibrated(of) => {
            let of_map = |map: &CalibrationMap| match map {
                CalibrationMap::Platt { a, b } => vec![a.to_bits(), b.to_bits()],
                CalibrationMap::Isotonic { x, y } => x.iter().chain(y).map(|x| x.to_bits()).collect(),
            };
            params_of(&of.model.scores).into_iter().chain(of.maps.iter().flat_map(of_map)).collect()
        }
    }
}

fn same_bits(a: &Model, b: &Model) -> bool {
    let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    a.digest == b.digest
        && params(a) == params(b)
        && bits(&a.preprocess.mean) == bits(&b.preprocess.mean)
        && bits(&a.preprocess.inverse_scale) == bits(&b.preprocess.inverse_scale)
}

/// All shapes of job and storage for one table and one config.
fn check(name: &str, tables: &[Inputs], config: &TrainConfig) {
    let alone = run(1, 1, &tables[0], config);
    let has_learned = match alone.scores.uncalibrated() {
        Scores::Linear(linear) => linear.params.iter().any(|p| *p != 0.0),
        Scores::Mlp(_) => alone.history[0].1.windows(2).all(|pair| pair[1] < pair[0]),
        Scores::Boosted(boosted) => boosted.trees.iter().any(|tree| tree.n_leaves() > 1),
        Scores::Forest(forest) => forest.trees.iter().any(|tree| tree.n_leaves() > 1),
        Scores::Ensemble(ensemble) => !ensemble.members.is_empty(),
        Scores::Calibrated(_) => false,
    };
    assert!(has_learned, "{name}: nothing was learned");
    for (shape, inputs) in tables.iter().enumerate() {
        for size in [1, 2, 3, 4, 7] {
            for threads in [1, 2] {
                let model = run(size, threads, inputs, config);
                assert!(same_bits(&model, &alone), "{name}: {size} ranks, {threads} threads, storage {shape}");
            }
        }
        let streamed = Inputs { reading: Reading { streamed: true, ..Reading::default() }, ..inputs.clone() };
        for (size, threads) in [(1, 2), (3, 1), (7, 2)] {
            let model = run(size, threads, &streamed, config);
            assert!(same_bits(&model, &alone), "{name}: streamed, {size} ranks, storage {shape}");
        }
    }
}

#[test]
fn rows_from_many_pools_and_batches_are_taken_in_the_same_order_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.h5");
    let storage = Storage { chunk_rows: Some(1000), deflate: Some(1) };
    synthetic::write_hdf5(&path, "", &synthetic::logistic(30_011, 150, 5).unwrap(), storage).unwrap();
    let inputs = Inputs { paths: vec![path], ..Inputs::default() };
    let streamed = Inputs { reading: Reading { streamed: true, ..Reading::default() }, ..inputs.clone() };
    let base = TrainConfig { kind: Kind::Logistic, epochs: Some(2), lanes: Some(4), ..TrainConfig::default() };
    for (solver, sync) in [(Solver::Sgd, Sync::Step), (Solver::Adam, Sync::Every(7)), (Solver::Lbfgs, Sync::Step)] {
        let config = match solver {
            Solver::Lbfgs => TrainConfig { kind: Kind::Logistic, solver, ..TrainConfig::default() },
            _ => TrainConfig { solver, sync, ..base.clone() },
        };
        let alone = run(1, 2, &inputs, &config);
        let scratch = Some(folder.path().to_path_buf());
        let decoded = Inputs { reading: Reading { scratch, ..streamed.reading.clone() }, ..inputs.clone() };
        for size in [1, 3] {
            for inputs in [&streamed, &decoded] {
                assert!(same_bits(&run(size, 1, inputs, &config), &alone), "{solver:?} on {size} ranks");
            }
        }
    }
}

fn solvers(kind: Kind) -> Vec<TrainConfig> {
    let base = TrainConfig { kind, max_iterations: 12, epochs: Some(2), global_batch: 256, ..TrainConfig::default() };
    let with = |solver, l1| TrainConfig { solver, l1, ..base.clone() };
    let mut all = vec![
        with(Solver::Lbfgs, 0.0),
        with(Solver::Lbfgs, 0.01),
        with(Solver::Sgd, 0.0),
        with(Solver::Adam, 0.0),
        TrainConfig { sync: Sync::Every(2), ..with(Solver::Sgd, 0.0) },
        TrainConfig { sync: Sync::Once, lanes: Some(4), ..with(Solver::Adam, 0.0) },
        TrainConfig { clip_norm: Some(0.1), average: Some(0.9), ..with(Solver::Adamw, 0.0) },
        TrainConfig { schedule: Schedule::OneCycle, ..with(Solver::Lamb, 0.0) },
        TrainConfig { early_stop: 1, valid_fraction: 0.3, ..with(Solver::Lars, 0.0) },
        with(Solver::Adagrad, 0.0),
    ];
    match kind {
        Kind::Linear => all.extend([with(Solver::Cholesky, 0.0), with(Solver::Qr, 0.0), with(Solver::Cd, 0.01)]),
        _ => all.push(with(Solver::Newton, 0.0)),
    }
    all
}

/// The same values as contiguous data, in awkward chunks, deflated, and cut into two files.
fn tables(folder: &Path, name: &str, table: &consort::data::memory::MemorySource) -> Vec<Inputs> {
    let storages = [(None, None), (Some(7), None), (Some(64), Some(1)), (Some(1000), Some(4))];
    storages
        .iter()
        .enumerate()
        .map(|(i, &(chunk_rows, deflate))| {
            let path: PathBuf = folder.join(format!("{name}-{i}.h5"));
            synthetic::write_hdf5(&path, "", table, Storage { chunk_rows, deflate }).unwrap();
            Inputs { paths: vec![path], ..Inputs::default() }
        })
        .collect()
}

#[test]
fn linear_has_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path(), "linear", &synthetic::linear(1_009, 5, 0.1, 1).unwrap());
    for config in solvers(Kind::Linear) {
        check(&format!("{config:?}"), &tables, &config);
    }
}

#[test]
fn logistic_has_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path(), "logistic", &synthetic::logistic(1_009, 5, 2).unwrap());
    for config in solvers(Kind::Logistic) {
        check(&format!("{config:?}"), &tables, &config);
    }
}

#[test]
fn softmax_and_svm_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path(), "mixture", &synthetic::mixture(1_009, 5, 3, 3).unwrap());
    for kind in [Kind::Logistic, Kind::Svm] {
        for config in solvers(kind) {
            check(&format!("{config:?}"), &tables, &config);
        }
    }
}

#[test]
fn networks_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let base = TrainConfig { epochs: Some(2), global_batch: 256, lanes: Some(4), ..TrainConfig::of(Kind::Mlp) };
    let plain = MlpConfig { layers: vec![33, 33], ..MlpConfig::default() };
    let ways = [
        (Solver::Adamw, plain.clone()),
        (Solver::Sgd, MlpConfig { dropout: 0.3, norm: Norm::Layer, residual: true, ..plain.clone() }),
        (Solver::Adamw, MlpConfig { precision: Precision::Bf16, norm: Norm::Layer, residual: true, ..plain.clone() }),
        (Solver::Sgd, MlpConfig { gradient_bits: 16, ..plain.clone() }),
        (Solver::Sgd, MlpConfig { gradient_bits: 8, ..plain.clone() }),
        (Solver::Sgd, MlpConfig { top_k: Some(0.05), ..plain.clone() }),
        (Solver::Sgd, MlpConfig { powersgd: Some(3), ..plain.clone() }),
    ];
    for (name, table) in [
        ("mixture", synthetic::mixture(1_009, 5, 3, 3).unwrap()),
        ("linear", synthetic::linear(1_009, 5, 0.1, 1).unwrap()),
    ] {
        let tables = tables(folder.path(), name, &table);
        for (solver, mlp) in &ways {
            let config = TrainConfig { solver: *solver, mlp: Some(mlp.clone()), ..base.clone() };
            check(&format!("{config:?}"), &tables, &config);
        }
        let mlp = Some(MlpConfig { norm: Norm::Batch, ..plain.clone() });
        let apart = TrainConfig { solver: Solver::Adam, sync: Sync::Every(3), mlp, ..base.clone() };
        check("apart", &tables[..2], &apart);
        check("apart after an epoch", &tables[..1], &TrainConfig { local_after: 1, ..apart });
    }
}

#[test]
fn poisson_has_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path(), "poisson", &synthetic::poisson(1_009, 5, 4).unwrap());
    for config in solvers(Kind::Poisson) {
        check(&format!("{config:?}"), &tables, &config);
    }
}

#[test]
fn boosted_trees_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let boost = |change: &dyn Fn(&mut BoostConfig)| {
        let mut boost = BoostConfig { rounds: 4, max_leaves: 9, max_bins: 30, min_rows: 4, ..BoostConfig::default() };
        change(&mut boost);
        TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) }
    };
    let linear = tables(folder.path(), "linear", &synthetic::linear(1_009, 5, 0.1, 1).unwrap());
    for loss in [BoostLoss::Squared, BoostLoss::Absolute] {
        check(&format!("{loss:?}"), &linear, &boost(&|boost| boost.loss = loss));
    }
    let mixture = tables(folder.path(), "mixture", &synthetic::mixture(1_009, 5, 3, 3).unwrap());
    check("classes", &mixture, &boost(&|_| ()));
    let sampled = |boost: &mut BoostConfig| (boost.row_sample, boost.column_sample_node) = (0.5, 0.5);
    check("samples", &mixture[..1], &boost(&sampled));
    let stopping = TrainConfig {
        valid_fraction: 0.3,
        ..boost(&|boost| (boost.early_stop, boost.categorical) = (2, vec!["X[1]".into()]))
    };
    check("early stop", &mixture[..1], &stopping);
}

#[test]
fn calibrated_classifiers_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path(), "calibrated", &synthetic::mixture(701, 5, 3, 8).unwrap());
    let config = TrainConfig { max_iterations: 10, calibrate_folds: Some(2), ..TrainConfig::default() };
    for (kind, calibrate) in [(Kind::Svm, Calibrate::Platt), (Kind::Logistic, Calibrate::Isotonic)] {
        check("calibrated", &tables[..2], &TrainConfig { kind, calibrate: Some(calibrate), ..config.clone() });
    }
}

#[test]
fn forests_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let forest = |change: &dyn Fn(&mut ForestConfig)| {
        let mut forest = ForestConfig { trees: 5, max_bins: 30, ..ForestConfig::default() };
        change(&mut forest);
        TrainConfig { forest: Some(forest), ..TrainConfig::of(Kind::Forest) }
    };
    let linear = tables(folder.path(), "linear", &synthetic::linear(1_009, 5, 0.1, 1).unwrap());
    check("numbers", &linear, &forest(&|_| ()));
    let mixture = tables(folder.path(), "mixture", &synthetic::mixture(1_009, 5, 3, 3).unwrap());
    check("classes", &mixture, &forest(&|_| ()));
    check("extra-trees", &mixture[..1], &forest(&|forest| forest.extra = true));
    check("lanes", &mixture[..1], &TrainConfig { lanes: Some(3), ..forest(&|forest| forest.scope = Scope::Local) });
}

#[test]
fn ensembles_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let boost = TrainConfig {
        boost: Some(BoostConfig { rounds: 3, max_leaves: 5, ..BoostConfig::default() }),
        ..TrainConfig::of(Kind::Boost)
    };
    let logistic = TrainConfig { max_iterations: 12, ..TrainConfig::of(Kind::Logistic) };
    let ensemble = |kind: Kind, change: &dyn Fn(&mut EnsembleConfig)| {
        let mut ensemble = EnsembleConfig { members: 3, stack_folds: 2, ..EnsembleConfig::default() };
        change(&mut ensemble);
        TrainConfig { ensemble: Some(Box::new(ensemble)), ..TrainConfig::of(kind) }
    };
    let member = |name: &str, config: &TrainConfig| MemberConfig { name: name.into(), config: config.clone() };
    let both = || vec![member("trees", &boost), member("lines", &logistic)];
    let mixture = tables(folder.path(), "mixture", &synthetic::mixture(1_009, 5, 3, 3).unwrap());
    check("bag", &mixture[..2], &ensemble(Kind::Bag, &|e| (e.learner, e.member_columns) = (Some(boost.clone()), 0.6)));
    let local = |e: &mut EnsembleConfig| (e.learner, e.scope) = (Some(logistic.clone()), Scope::Local);
    check("bag of lanes", &mixture[..1], &ensemble(Kind::Bag, &local));
    check("adaboost", &mixture[..1], &ensemble(Kind::Adaboost, &|e| e.learner = Some(boost.clone())));
    check("stack", &mixture[..1], &ensemble(Kind::Stack, &|e| e.member = both()));
    let vote = ensemble(Kind::Vote, &|e| (e.member, e.vote_weights) = (both(), VoteWeights::Search));
    check("vote", &mixture[..1], &TrainConfig { valid_fraction: 0.3, ..vote });
}

/// The filters that a dataset of numbers can have here.
#[derive(Clone, Copy, Debug)]
enum Filters {
    None,
    Deflate,
    ShuffleDeflate,
    ShuffleDeflateFletcher,
}

/// Writes rows of `X` (n, 5) and `y`; `chunk`: rows and columns.
fn write_rows(path: &Path, x: &[f32], y: &[f64], chunk: Option<(usize, usize)>, filters: Filters) {
    let file = hdf5::File::create(path).unwrap();
    let x = ndarray::ArrayView2::from_shape((y.len(), 5), x).unwrap();
    let mut builder = file.new_dataset_builder();
    if let Some((rows, columns)) = chunk {
        builder = builder.chunk((rows.min(y.len()), columns));
        builder = match filters {
            Filters::None => builder,
            Filters::Deflate => builder.deflate(1),
            Filters::ShuffleDeflate => builder.shuffle().deflate(6),
            Filters::ShuffleDeflateFletcher => builder.shuffle().deflate(2).fletcher32(),
        };
    }
    builder.with_data(&x).create("X").unwrap();
    file.new_dataset_builder().with_data(y).create("y").unwrap();
}

#[test]
fn every_chunk_shape_compression_and_number_of_files_has_one_digest() {
    let folder = tempfile::tempdir().unwrap();
    let table = synthetic::logistic(1_009, 5, 5).unwrap();
    let consort::data::Values::F32(x) = &table.block().values else { panic!("narrow") };
    let consort::data::Targets::Number(y) = &table.block().target else { panic!("numbers") };
    let chunks = [None, Some((64, 5)), Some((7, 3)), Some((1_009, 1)), Some((200, 2))];
    let filters = [Filters::None, Filters::Deflate, Filters::ShuffleDeflate, Filters::ShuffleDeflateFletcher];
    let cuts: [&[usize]; 3] = [&[0, 1_009], &[0, 1, 333, 1_009], &[0, 16, 17, 300, 304, 700, 1_008, 1_009]];
    let config =
        TrainConfig { kind: Kind::Logistic, solver: Solver::Lbfgs, max_iterations: 5, ..TrainConfig::default() };
    let epochs = TrainConfig { solver: Solver::Sgd, epochs: Some(1), global_batch: 128, ..config.clone() };
    let mut alone: Option<(Model, Model)> = None;
    let mut n_shapes = 0;
    let shapes =
        (0..chunks.len() * filters.len() * cuts.len()).map(|n| (chunks[n % 5], filters[n / 5 % 4], cuts[n / 20]));
    for (chunk, filters, cuts) in shapes {
        let part = |(i, bounds): (usize, &[usize])| {
            let path = folder.path().join(format!("{n_shapes}-{i}.h5"));
            let rows = bounds[0]..bounds[1];
            write_rows(&path, &x[rows.start * 5..rows.end * 5], &y[rows], chunk, filters);
            path
        };
        let paths = cuts.windows(2).enumerate().map(part).collect();
        let inputs = Inputs { paths, ..Inputs::default() };
        let size = 1 + n_shapes % 3;
        let found = (run(size, 1, &inputs, &config), run(size, 1, &inputs, &epochs));
        let (first, second) = alone.get_or_insert_with(|| found.clone());
        let what = format!("{chunk:?} {filters:?} {} files", cuts.len() - 1);
        assert!(same_bits(&found.0, first) && same_bits(&found.1, second), "{what}");
        n_shapes += 1;
    }
    assert_eq!(n_shapes, 5 * 4 * 3);
}

/// Three in four values are 0; a column is empty, a row is full, some rows have no value.
fn sparse(kind: Kind, rows: std::ops::Range<usize>) -> MemorySource {
    const D: usize = 9;
    let whole = match kind {
        Kind::Linear => synthetic::linear(1_009, D, 0.1, 7).unwrap(),
        _ => synthetic::logistic(1_009, D, 7).unwrap(),
    };
    let (Values::F32(x), Targets::Number(y)) = (&whole.block().values, &whole.block().target) else { panic!() };
    let value = |i: usize| match (i / D, i % D) {
        (_, 4) => 0.0,
        (17, _) => 1.0,
        (row, _) if row % 10 == 3 => 0.0,
        _ if x[i].abs() < 1.15 => 0.0,
        _ => x[i],
    };
    let table = MemorySource::from_f32((rows.start * D..rows.end * D).map(value).collect(), D).unwrap();
    let of = if kind == Kind::Linear { TargetKind::Float } else { TargetKind::Integer };
    table.with_target(y[rows].to_vec(), of).unwrap().into_sparse()
}

#[test]
fn sparse_tables_have_the_same_bits_in_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Linear, Kind::Logistic] {
        let mut tables = tables(folder.path(), kind.name(), &sparse(kind, 0..1_009));
        let mut paths = Vec::new();
        for (i, bounds) in [0, 1, 333, 1_009].windows(2).enumerate() {
            let path = folder.path().join(format!("{}-part-{i}.h5", kind.name()));
            let storage = Storage { chunk_rows: Some(100), deflate: None };
            synthetic::write_hdf5(&path, "", &sparse(kind, bounds[0]..bounds[1]), storage).unwrap();
            paths.push(path);
        }
        tables.truncate(2);
        tables.push(Inputs { paths, ..Inputs::default() });
        for config in solvers(kind) {
            check(&format!("sparse {config:?}"), &tables, &config);
        }
    }
}

#[test]
fn a_table_cut_into_files_has_the_bits_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let table = synthetic::logistic(1_009, 5, 5).unwrap();
    let consort::data::Values::F32(x) = &table.block().values else { panic!("narrow") };
    let consort::data::Targets::Number(y) = &table.block().target else { panic!("numbers") };
    let write = |name: String, rows: std::ops::Range<usize>| {
        let path = folder.path().join(name);
        write_rows(&path, &x[rows.start * 5..rows.end * 5], &y[rows], None, Filters::None);
        path
    };
    let parts = [0, 1, 333, 1_009].windows(2).enumerate();
    let paths = parts.map(|(i, bounds)| write(format!("part-{i}.h5"), bounds[0]..bounds[1])).collect();
    let one = write("one.h5".to_string(), 0..1_009);
    let tables = [Inputs { paths: vec![one], ..Inputs::default() }, Inputs { paths, ..Inputs::default() }];
    for config in solvers(Kind::Logistic) {
        check("files", &tables, &config);
    }
}

#[test]
fn real_tables_with_text_weights_offsets_and_folds_have_the_same_bits() {
    let data = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    let names = |group: &str, weight: &str, offset: &str| {
        let word = |w: &str| (!w.is_empty()).then(|| w.to_string());
        TableNames { group: word(group), weight: word(weight), offset: word(offset), ..TableNames::default() }
    };
    let base = TrainConfig { max_iterations: 8, epochs: Some(2), ..TrainConfig::default() };
    let cancer = Inputs {
        paths: vec![data("breast_cancer.h5")],
        names: names("", "row_weight", ""),
        rows: None,
        ..Inputs::default()
    };
    let counts = Inputs {
        paths: vec![data("counts.h5")],
        names: names("groups", "", "offset"),
        rows: None,
        ..Inputs::default()
    };
    for solver in [Solver::Lbfgs, Solver::Newton, Solver::Sgd] {
        for class_weight in [ClassWeight::None, ClassWeight::Balanced] {
            let config = TrainConfig { solver, class_weight, folds: 3, missing: Missing::Zero, ..base.clone() };
            check("breast cancer", std::slice::from_ref(&cancer), &config);
        }
        let config = TrainConfig { kind: Kind::Poisson, solver, ..base.clone() };
        check("counts", std::slice::from_ref(&counts), &config);
    }
}

#[test]
fn another_seed_or_setting_gives_another_digest() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path(), "seeds", &synthetic::logistic(500, 3, 6).unwrap());
    let base = TrainConfig { solver: Solver::Sgd, epochs: Some(2), global_batch: 128, ..TrainConfig::default() };
    let one = run(1, 1, &tables[0], &base);
    let seed = run(1, 1, &tables[0], &TrainConfig { seed: 1, ..base.clone() });
    assert!(one.digest != seed.digest && one.scores != seed.scores);
    let l2 = run(1, 1, &tables[0], &TrainConfig { l2: 0.1, ..base });
    assert_ne!(one.digest, l2.digest);
}
