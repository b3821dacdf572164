//! Boosting as a whole: the same bits however a job is cut, options that do what they say, tables with something wrong.

use super::super::linear_family::train_source;
use super::super::prepare::HeldOut;
use super::super::test_tables::Heard;
use super::super::tree_tables::{D, features, score, scores, table, train, train_reading};
use super::super::{Model, Reading, Silent, TrainReport};
use crate::comm::run_threads;
use crate::config::{BoostConfig, BoostLoss, ClassWeight, Growth, Kind, TrainConfig};
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::{Block, DataSource, TargetKind};
use crate::error::Result;
use crate::model::{Boosted, Scores};
use crate::rng::{Draws, Stream};

mod continued;
mod edges;

/// What is set otherwise.
type Change = fn(&mut BoostConfig);

fn config(change: impl FnOnce(&mut BoostConfig)) -> TrainConfig {
    let mut boost = BoostConfig { rounds: 6, max_leaves: 12, max_bins: 40, min_rows: 5, ..BoostConfig::default() };
    change(&mut boost);
    TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) }
}

fn boosted(model: &Model) -> &Boosted {
    let Scores::Boosted(boosted) = &model.scores else { panic!("not boosted") };
    boosted
}

/// Of the rows that `valid_fraction` holds out, by what the model predicts for their values.
fn held_out_log_loss(model: &Model, table: &MemorySource, fraction: f64) -> f64 {
    let scores = scores(model, table);
    let block = table.block();
    let crate::data::Targets::Number(y) = &block.target else { panic!("numbers") };
    let weight = block.weight.as_ref().unwrap();
    let (mut loss, mut total) = (0.0, 0.0);
    for row in 0..y.len() {
        if HeldOut::Fraction(fraction).holds_out(model.config.seed, row as u64) {
            loss += weight[row] * (scores[row].exp().ln_1p() - y[row] * scores[row]);
            total += weight[row];
        }
    }
    loss / total
}

/// The model of one rank, after all cuts gave the same.
fn same_on_all_cuts(name: &str, table: &MemorySource, config: &TrainConfig) -> (Model, TrainReport) {
    let alone = train(1, 1, table, config).unwrap();
    for (size, threads, streamed) in
        [(1, 2, false), (2, 1, false), (3, 2, false), (5, 1, false), (8, 1, false), (1, 2, true), (3, 1, true)]
    {
        let reading = Reading { streamed, ..Reading::default() };
        let (model, report) = train_reading(size, threads, table, config, &reading).unwrap();
        assert_eq!(model.digest, alone.0.digest, "{name}: {size} ranks, {threads} threads");
        assert_eq!(boosted(&model), boosted(&alone.0), "{name}");
        assert_eq!(report.valid, alone.1.valid, "{name}");
    }
    let history = &alone.0.history[0].1;
    assert!(history.len() < 2 || history[history.len() - 1] < history[0], "{name} learns: {history:?}");
    alone
}

#[test]
fn every_loss_gives_the_same_bits_on_any_number_of_ranks_and_threads() {
    let amounts = table(900, |score| score.exp(), TargetKind::Float);
    let numbers = table(900, |score| 10.0 + score, TargetKind::Float);
    for loss in [BoostLoss::Squared, BoostLoss::Absolute, BoostLoss::Huber, BoostLoss::Quantile] {
        same_on_all_cuts(&format!("{loss:?}"), &numbers, &config(|boost| boost.loss = loss));
    }
    for loss in [BoostLoss::Poisson, BoostLoss::Gamma, BoostLoss::Tweedie] {
        same_on_all_cuts(&format!("{loss:?}"), &amounts, &config(|boost| boost.loss = loss));
    }
    same_on_all_cuts("two", &table(900, |s| f64::from(s > 0.3), TargetKind::Integer), &config(|_| ()));
    same_on_all_cuts("four", &table(900, |s| s.clamp(-1.0, 2.0).round() + 7.0, TargetKind::Integer), &config(|_| ()));
}

#[test]
fn every_option_gives_the_same_bits_on_any_number_of_ranks_and_threads() {
    let table = table(1100, |s| f64::from(s > 0.3), TargetKind::Integer);
    let options: [(&str, Change); 10] = [
        ("level", |boost| (boost.growth, boost.max_depth) = (Growth::Level, 3)),
        ("samples", |boost| (boost.row_sample, boost.column_sample, boost.column_sample_node) = (0.6, 0.7, 0.5)),
        ("categories", |boost| (boost.categorical, boost.min_data_per_group) = (vec!["3".into()], 10)),
        ("two bins", |boost| boost.max_bins = 2),
        ("many bins", |boost| boost.max_bins = 60_000),
        ("few rows for bins", |boost| boost.bin_sample = 50),
        ("monotone", |boost| boost.monotone = vec!["0:1".into()]),
        ("groups", |boost| boost.interactions = vec!["0+1".into(), "3+5".into()]),
        ("one leaf", |boost| boost.max_leaves = 1),
        ("large leaves", |boost| (boost.min_rows, boost.min_gain, boost.min_hessian) = (100, 0.5, 2.0)),
    ];
    for (name, change) in options {
        let (model, _) = same_on_all_cuts(name, &table, &config(change));
        let n_leaves = boosted(&model).trees.iter().map(|tree| tree.n_leaves()).max();
        assert_eq!(n_leaves == Some(1), name == "one leaf", "{name}");
    }
    let stopping = TrainConfig { valid_fraction: 0.3, ..config(|boost| (boost.early_stop, boost.rounds) = (3, 200)) };
    let (model, report) = same_on_all_cuts("early stop", &table, &stopping);
    let losses = &model.history[1].1;
    let best = (0..losses.len()).min_by(|one, other| losses[*one].total_cmp(&losses[*other])).unwrap();
    assert_eq!(boosted(&model).n_rounds(), best + 1, "the best round is the last that is kept");
    assert!(losses.len() < 200 && losses.len() == best + 4 && report.valid.get("auc").unwrap() > 0.8);
    let folds = TrainConfig { folds: 2, ..config(|_| ()) };
    let (_, report) = same_on_all_cuts("folds", &table, &folds);
    assert!(report.folds.iter().any(|(name, values)| name == "auc" && values.len() == 2));
    let balanced = TrainConfig { class_weight: ClassWeight::Balanced, l1: 0.1, l2: 2.0, ..config(|_| ()) };
    same_on_all_cuts("balanced", &table, &balanced);
}

#[test]
fn categories_split_by_what_they_do_and_not_by_their_numbers() {
    let table = table(3000, |s| s, TargetKind::Float);
    let loss = |change: fn(&mut BoostConfig)| {
        let (model, report) = train(2, 1, &table, &config(change)).unwrap();
        (report.loss, boosted(&model).importance()[3], model)
    };
    let (as_number, ..) = loss(|boost| boost.rounds = 20);
    let (as_category, importance, model) = loss(|boost| {
        (boost.rounds, boost.categorical, boost.cat_smooth, boost.min_data_per_group) =
            (20, vec!["X[3]".into()], 1.0, 5)
    });
    assert!(as_category < as_number, "{as_category} for {as_number}");
    assert!(importance.splits > 0);
    // A category that nobody knew goes where what is missing goes.
    let mut x = features(50);
    let of = |value: f64, x: &mut Vec<f64>| {
        x.chunks_mut(D).for_each(|row| row[3] = value);
        scores(&model, &MemorySource::from_f64(x.clone(), D).unwrap())
    };
    assert_eq!(of(12_345.0, &mut x), of(f64::NAN, &mut x));
    assert_ne!(of(40.0, &mut x), of(f64::NAN, &mut x));
}

#[test]
fn predictions_are_as_monotone_as_they_were_told_to_be() {
    let table = table(2000, |s| (3.0 * s).sin(), TargetKind::Float);
    for (word, sign) in [("X[0]:1", 1.0), ("0:-1", -1.0)] {
        let change =
            |boost: &mut BoostConfig| (boost.monotone, boost.rounds, boost.shrinkage) = (vec![word.into()], 15, 0.5);
        let (model, _) = train(3, 1, &table, &config(change)).unwrap();
        let of_features = features(40);
        for row in of_features.chunks(D) {
            let mut x = Vec::new();
            for step in -30..30 {
                x.extend_from_slice(row);
                let at = x.len() - D;
                x[at] = f64::from(step) / 10.0;
            }
            let scores = scores(&model, &MemorySource::from_f64(x, D).unwrap());
            assert!(scores.windows(2).all(|pair| sign * (pair[1] - pair[0]) >= 0.0), "{word}: {scores:?}");
        }
    }
}

#[test]
fn scores_of_the_model_are_those_it_was_trained_with() {
    // Held-out metrics come from bins, evaluation from values. 40,000 rows are more than scores are added to in one go.
    let change = |boost: &mut BoostConfig| (boost.categorical, boost.min_data_per_group) = (vec!["3".into()], 10);
    let config = TrainConfig { valid_fraction: 0.4, ..config(change) };
    for n in [1500, 40_000] {
        let table = table(n, |s| f64::from(s > 0.0), TargetKind::Integer);
        let (model, report) = train(1, 2, &table, &config).unwrap();
        let loss = held_out_log_loss(&model, &table, 0.4);
        approx::assert_relative_eq!(loss, report.valid.get("log_loss").unwrap(), max_relative = 1e-9);
    }
}

#[test]
fn bins_that_do_not_fit_into_memory_are_in_a_file_and_the_model_is_the_same() {
    // 70,000 records of 24 bytes, and what is kept of each row beside: 36 more.
    let table = table(70_000, |s| f64::from(s > 0.3), TargetKind::Integer);
    let config = config(|boost| (boost.categorical, boost.row_sample) = (vec!["3".into()], 0.7));
    let (alone, _) = train(1, 2, &table, &config).unwrap();
    let within = |bytes: u64| Reading { max_memory: Some(bytes), ..Reading::default() };
    for (bytes, warns) in [(1 << 30, false), (4 << 20, true)] {
        let trained = run_threads(2, 1, |comm| {
            let mut heard = Heard::default();
            let (mut source, names) = (table.clone(), TableNames::default());
            let config = config.resolved()?;
            let (model, _) = train_source(comm, &mut source, &names, &config, &within(bytes), &mut heard)?;
            Ok((model.digest, heard.warnings.len()))
        });
        assert!(trained.unwrap().into_iter().all(|trained| trained == (alone.digest.clone(), usize::from(warns))));
    }
    let text = train_reading(2, 1, &table, &config, &within(2 << 20)).unwrap_err().to_string();
    assert!(text.contains("--max-memory: 2M are too few: targets, scores and gradients"), "{text}");
    let nowhere = Reading { scratch: Some("/nowhere".into()), ..within(4 << 20) };
    let text = train_reading(2, 1, &table, &config, &nowhere).unwrap_err().to_string();
    assert!(text.contains("--scratch: no file can be made in /nowhere"), "{text}");
}

#[test]
fn what_cannot_be_trained_on_is_said() {
    let of = |table: &MemorySource, config: &TrainConfig| train(2, 1, table, config).map(drop).unwrap_err().to_string();
    let numbers = |target: fn(f64) -> f64| table(300, target, TargetKind::Float);
    let loss = |loss| config(|boost| boost.loss = loss);
    assert!(of(&table(300, |_| 4.0, TargetKind::Integer), &config(|_| ())).contains("one class (4)"));
    assert!(of(&numbers(|s| s), &loss(BoostLoss::Poisson)).contains("not negative"));
    assert!(of(&numbers(|s| s.max(0.0)), &loss(BoostLoss::Gamma)).contains("gamma wants amounts above 0"));
    assert!(of(&numbers(|s| s), &loss(BoostLoss::Logistic)).contains("not a class"));
    let alone: Change = |boost| (boost.loss, boost.min_rows, boost.max_leaves) = (BoostLoss::Absolute, 1, 300);
    assert!(of(&numbers(|s| if s > 1.5 { -1e300 } else { s }), &config(alone)).contains("beyond 3e38"));
    let typed: [(Change, &str); 9] = [
        (|boost| boost.categorical = vec!["color".into()], "--categorical: there is no column 'color'; there is: X[0]"),
        (|boost| boost.monotone = vec!["9:1".into()], "--monotone: there is no column '9'"),
        (|boost| boost.monotone = vec!["0".into()], "'0' is not COLUMN:1 or COLUMN:-1"),
        (|boost| boost.monotone = vec!["0:1".into(), "X[0]:-1".into()], "to rise and to fall"),
        (|boost| (boost.monotone, boost.categorical) = (vec!["3:1".into()], vec!["3".into()]), "is a category"),
        (|boost| boost.interactions = vec!["0+z".into()], "--interactions: there is no column 'z'"),
        (|boost| boost.max_bins = 1, "--max-bins 1 is not from 2 to 65535"),
        (|boost| (boost.loss, boost.alpha) = (BoostLoss::Quantile, 1.0), "--alpha 1"),
        (|boost| boost.early_stop = 3, "--early-stop"),
    ];
    for (change, message) in typed {
        let text = of(&table(300, |s| f64::from(s > 0.0), TargetKind::Integer), &config(change));
        assert!(text.contains(message), "{message}: {text}");
    }
}

#[test]
fn a_category_may_have_the_first_bin_of_a_word_as_its_last() {
    // Only category 64 of 80 is another.
    let n = 4000;
    let category = |row: usize| (row * 7919 % 80) as f64;
    let x: Vec<f64> = (0..n).map(category).collect();
    let y = (0..n).map(|row| f64::from(category(row) == 64.0) * 10.0).collect();
    let table = MemorySource::from_f64(x, 1).unwrap().with_target(y, TargetKind::Float).unwrap();
    let config = config(|boost| {
        (boost.categorical, boost.max_bins, boost.min_data_per_group) = (vec!["0".into()], 255, 1);
        boost.cat_smooth = 0.0;
    });
    let (model, _) = train(1, 1, &table, &config).unwrap();
    assert_eq!(boosted(&model).trees[0].left_set[0], vec![0, 1]);
}

#[test]
fn gradients_beyond_32_bits_are_refused() {
    let table = table(300, |s| s * 1e39, TargetKind::Float);
    let error = train(2, 1, &table, &config(|_| {})).expect_err("too large").to_string();
    assert!(error.contains("rescale"), "{error}");
    let close = self::table(300, |s| s * 1e30, TargetKind::Float);
    assert!(boosted(&train(1, 1, &close, &config(|_| {})).unwrap().0).trees[0].n_leaves() > 1);
}

#[test]
fn rows_without_weight_have_no_say_in_bins() {
    let n = 600;
    let of = |more: f64| {
        let x = features(n).into_iter().enumerate().map(|(i, x)| if i / D % 13 == 3 { x + more } else { x }).collect();
        let all = table(n, |s| s, TargetKind::Float);
        let mut block = Block::empty();
        all.clone().read(0..n as u64, &mut block).unwrap();
        let crate::data::Targets::Number(y) = block.target else { panic!("numbers") };
        let table = MemorySource::from_f64(x, D).unwrap().with_target(y, TargetKind::Float).unwrap();
        table.with_weight(block.weight.unwrap()).unwrap()
    };
    let trees = |more| boosted(&train(1, 1, &of(more), &config(|_| {})).unwrap().0).clone();
    assert_eq!(trees(0.0), trees(1e3));
}

#[test]
fn a_few_heavy_rows_do_not_hide_what_the_others_say() {
    let n = 2000;
    let is_heavy = |row: usize| row % 700 == 5;
    let x = features(n);
    let y: Vec<f64> = (0..n).map(|row| score(&x, row)).collect();
    let table = MemorySource::from_f64(x, D).unwrap().with_target(y.clone(), TargetKind::Float).unwrap();
    let table = table.with_weight((0..n).map(|row| if is_heavy(row) { 1e8 } else { 1.0 }).collect()).unwrap();
    let (model, _) = same_on_all_cuts("heavy", &table, &config(|boost| (boost.rounds, boost.max_leaves) = (40, 31)));
    let scores = scores(&model, &table);
    let off = (0..n).filter(|row| !is_heavy(*row)).map(|row| (scores[row] - y[row]).abs()).sum::<f64>() / n as f64;
    // With 16 bits it is 0.898.
    assert!(off < 0.82, "{off}");
}
