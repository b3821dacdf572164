//! Boosting that goes on: as if it had never stopped on the same rows, from the model's own scores on others.

use super::*;

/// Goes on from a model by the rounds of `config`.
fn go_on(size: usize, threads: usize, table: &MemorySource, config: &TrainConfig, model: &Model) -> Result<Model> {
    Ok(go_on_and_report(size, threads, table, config, model)?.0)
}

fn go_on_and_report(
    size: usize,
    threads: usize,
    table: &MemorySource,
    config: &TrainConfig,
    model: &Model,
) -> Result<(Model, TrainReport)> {
    let config = config.resolved()?;
    let all = run_threads(size, threads, |comm| {
        let (names, reading) = (TableNames::default(), Reading::default());
        let mut source = table.clone();
        comm.agree(super::super::train_source(comm, &mut source, &names, &config, &reading, Some(model), &mut Silent))
    })?;
    assert!(all.iter().all(|(model, _)| *model == all[0].0), "ranks of one world differ");
    Ok(all.into_iter().next().unwrap())
}

fn of_rounds(config: &TrainConfig, rounds: u64) -> TrainConfig {
    let boost = config.boost.clone().map(|boost| BoostConfig { rounds, ..boost });
    TrainConfig { boost, ..config.clone() }
}

/// Some rounds and then the others, in other shapes, are all rounds at once.
fn same_as_at_once(name: &str, table: &MemorySource, config: &TrainConfig, parts: [u64; 2]) -> Model {
    let at_once = train(2, 1, table, &of_rounds(config, parts[0] + parts[1])).unwrap().0;
    let first = train(1, 2, table, &of_rounds(config, parts[0])).unwrap().0;
    for (size, threads) in [(1, 1), (3, 2)] {
        let whole = go_on(size, threads, table, &of_rounds(config, parts[1]), &first).unwrap();
        assert_eq!(whole.digest, at_once.digest, "{name}: {size} ranks, {threads} threads, {parts:?}");
        assert_eq!(whole, at_once, "{name}: {parts:?}");
    }
    at_once
}

/// A column of strings beside the others.
fn with_colors(table: MemorySource, n: usize, colors: &[&str]) -> MemorySource {
    let color =
        |row: usize| colors[Draws::new(5, Stream::Synthetic).below(colors.len() as u64, row as u64, 0) as usize];
    table.with_text_column("color", (0..n).map(|row| color(row).to_string()).collect()).unwrap()
}

#[test]
fn every_loss_goes_on_as_if_it_had_never_stopped() {
    let numbers = table(900, |score| 10.0 + score, TargetKind::Float);
    for loss in [BoostLoss::Squared, BoostLoss::Absolute, BoostLoss::Huber, BoostLoss::Quantile] {
        same_as_at_once(&format!("{loss:?}"), &numbers, &config(|boost| boost.loss = loss), [3, 5]);
    }
    let amounts = table(900, |score| score.exp(), TargetKind::Float);
    for loss in [BoostLoss::Poisson, BoostLoss::Gamma, BoostLoss::Tweedie] {
        same_as_at_once(&format!("{loss:?}"), &amounts, &config(|boost| boost.loss = loss), [3, 5]);
    }
    let two = table(900, |s| f64::from(s > 0.3), TargetKind::Integer);
    let model = same_as_at_once("two", &two, &config(|_| ()), [30, 70]);
    assert_eq!((boosted(&model).n_rounds(), model.history[0].1.len()), (100, 100));
    let four = table(900, |s| s.clamp(-1.0, 2.0).round() + 7.0, TargetKind::Integer);
    let model = same_as_at_once("four", &four, &config(|_| ()), [1, 4]);
    assert_eq!((boosted(&model).trees.len(), model.config.boost.unwrap().rounds, model.continued), (20, 5, None));
}

#[test]
fn samples_and_categories_go_on_as_if_they_had_never_stopped() {
    let two = with_colors(table(900, |s| f64::from(s > 0.3), TargetKind::Integer), 900, &["red", "blue", "", "green"]);
    let options: [(&str, Change); 4] = [
        ("samples", |boost| (boost.row_sample, boost.column_sample, boost.column_sample_node) = (0.6, 0.7, 0.5)),
        ("categories", |boost| (boost.categorical, boost.min_data_per_group) = (vec!["3".into()], 10)),
        ("constraints", |boost| (boost.monotone, boost.interactions) = (vec!["0:1".into()], vec!["0+1".into()])),
        // The first rounds leave nothing to split: the others are not grown.
        ("an early end", |boost| (boost.min_gain, boost.shrinkage) = (60.0, 0.5)),
    ];
    for (name, change) in options {
        let model = same_as_at_once(name, &two, &config(change), [40, 2]);
        assert_eq!(boosted(&model).n_rounds() < 40, name == "an early end", "{name}");
    }
    let balanced = TrainConfig { class_weight: ClassWeight::Balanced, seed: 5, ..config(|_| ()) };
    same_as_at_once("balanced", &two, &balanced, [2, 3]);
}

#[test]
fn early_stopping_goes_on_from_the_best_round() {
    let table = table(1100, |s| f64::from(s > 0.3), TargetKind::Integer);
    let config = TrainConfig { valid_fraction: 0.3, ..config(|boost| boost.early_stop = 3) };
    let whole = train(1, 1, &table, &of_rounds(&config, 200)).unwrap().0;
    let (n_kept, n_grown) = (boosted(&whole).n_rounds() as u64, whole.history[1].1.len() as u64);
    assert!(n_grown == n_kept + 3 && n_grown < 190, "{n_kept} of {n_grown}");
    // Before the best round, at it, at a round that was not kept, and after the end.
    for first in [2, n_kept - 1, n_kept, n_kept + 1, n_kept + 2, n_grown, n_grown + 9] {
        same_as_at_once("early stop", &table, &config, [first, 200 - first]);
    }
    // Without rows that are held out, rounds are added to those that were kept.
    let config = super::config(|boost| boost.rounds = 2);
    let longer = go_on(2, 1, &table, &config, &whole).unwrap();
    assert_eq!(boosted(&longer).n_rounds() as u64, n_kept + 2);
    assert_eq!(longer.config.boost.as_ref().unwrap().rounds, n_kept + 2);
}

#[test]
fn another_table_starts_from_what_the_model_predicts_for_it() {
    let colors = ["red", "blue", "green"];
    let old = with_colors(table(700, |s| f64::from(s > 0.3), TargetKind::Integer), 700, &colors);
    let change = |boost: &mut BoostConfig| {
        (boost.categorical, boost.min_data_per_group, boost.cat_smooth, boost.max_bins) = (vec!["3".into()], 5, 1.0, 20)
    };
    let first = train(1, 1, &old, &config(change)).unwrap().0;
    let has_sets = |model: &Model, feature: u32| {
        let sets = |tree: &crate::model::Tree| tree.feature.contains(&feature);
        boosted(model).trees.iter().any(sets)
    };
    assert!(has_sets(&first, 3));
    // Other rows, and categories that come before, between and after those that are known; one that is known is not there.
    let n = 1500;
    let x = (0..n * D).map(|i| features(2 * n)[n * D + i]);
    let x: Vec<f64> = x.map(|value| if value == 40.0 { 45.0 } else { value }).collect();
    let y: Vec<f64> = (0..n).map(|row| f64::from(score(&x, row) < 0.1)).collect();
    let weight: Vec<f64> = (0..n).map(|row| 0.5 + (row % 3) as f64).collect();
    let new = MemorySource::from_f64(x, D).unwrap().with_target(y, TargetKind::Integer).unwrap();
    let new = with_colors(new.with_weight(weight).unwrap(), n, &["amber", "blue", "cyan", "red", "white"]);
    let config = TrainConfig { valid_fraction: 0.4, ..config(change) };
    let config = of_rounds(&config, 4);
    let (model, report) = go_on_and_report(1, 1, &new, &config, &first).unwrap();
    for (size, threads) in [(2, 1), (3, 2), (7, 1)] {
        assert_eq!(go_on(size, threads, &new, &config, &first).unwrap(), model, "{size} ranks, {threads} threads");
    }
    assert_eq!(boosted(&model).n_rounds(), 10);
    assert_eq!(model.continued, Some(crate::model::Continued { rounds: 6, digest: first.digest.clone() }));
    assert_eq!(model.preprocess.columns[6].categories, ["amber", "blue", "cyan", "green", "red", "white"]);
    // The scores that it was trained with are those of its values, though the first trees know other bins and categories.
    approx::assert_relative_eq!(
        held_out_log_loss(&model, &new, 0.4),
        report.valid.get("log_loss").unwrap(),
        max_relative = 1e-9
    );
    // What was there predicts as it did, on both tables.
    let (before, settings) = model.before().unwrap();
    for table in [&old, &new] {
        assert_eq!(scores(&before, table), scores(&first, table));
    }
    // The rounds that were added are grown again from what the model holds.
    assert_eq!(go_on(2, 1, &new, &settings, &before).unwrap(), model);
    // And gone on with once more, on the same rows.
    let in_two = go_on(2, 1, &new, &of_rounds(&config, 3), &go_on(1, 1, &new, &of_rounds(&config, 1), &first).unwrap());
    assert_eq!(in_two.unwrap(), model);
}

#[test]
fn what_does_not_agree_with_the_model_is_said() {
    let two = || table(300, |s| f64::from(s > 0.0), TargetKind::Integer);
    let change = |boost: &mut BoostConfig| (boost.categorical, boost.monotone) = (vec!["3".into()], vec!["0:1".into()]);
    let config = config(change);
    let model = train(1, 1, &two(), &config).unwrap().0;
    let of = |table: &MemorySource, config: &TrainConfig| {
        go_on(2, 1, table, config, &model).map(drop).unwrap_err().to_string()
    };
    let changed = |change: Change| {
        let mut boost = config.boost.clone().unwrap();
        change(&mut boost);
        TrainConfig { boost: Some(boost), ..config.clone() }
    };
    let typed: [(Change, &str); 6] = [
        (|boost| boost.categorical.clear(), "--categorical: column 'X[3]' is a category to the model"),
        (|boost| boost.categorical.push("5".into()), "--categorical: column 'X[5]' is numbers to the model"),
        (
            |boost| boost.loss = BoostLoss::Poisson,
            "--loss: the model that is continued has trees of logistic, not of poisson",
        ),
        (|boost| boost.monotone = vec!["0:-1".into()], "--monotone: trees of the model"),
        (|boost| boost.monotone.push("1:1".into()), "--monotone: trees of the model"),
        (|boost| boost.interactions = vec!["0+1".into()], "--interactions: trees of the model"),
    ];
    for (change, message) in typed {
        let text = of(&two(), &changed(change));
        assert!(text.contains(message), "{message}: {text}");
    }
    assert!(go_on(1, 1, &two(), &changed(|boost| boost.monotone.clear()), &model).is_ok());
    let folds = TrainConfig { folds: 2, ..config.clone() };
    assert!(of(&two(), &folds).contains("--folds: the model that is continued was trained on these rows"));
    let three = table(300, |s| s.clamp(0.0, 2.0).round(), TargetKind::Integer);
    let text = of(&three, &config);
    assert!(text.contains("holds the class '2'") && text.contains("its classes are 0, 1"), "{text}");
    let other = two().with_names(&["a", "b", "c", "d", "e", "f"]);
    assert!(of(&other, &config).contains("column 0 of the features is 'a' but the model was trained on 'X[0]'"));
    assert!(of(&with_colors(two(), 300, &["red"]), &config).contains("7 columns but the model was trained on 6"));
    let words = two().with_text_target((0..300).map(|row| (row % 2).to_string()).collect()).unwrap();
    assert!(of(&words, &config).contains("the target holds strings, and the classes of the model"));
    let quantile = |alpha| super::config(|boost| (boost.loss, boost.alpha) = (BoostLoss::Quantile, alpha));
    let numbers = table(300, |s| s, TargetKind::Float);
    let model = train(1, 1, &numbers, &quantile(0.5)).unwrap().0;
    let text = go_on(2, 1, &numbers, &quantile(0.9), &model).unwrap_err().to_string();
    assert!(text.contains("trees of quantile with --alpha 0.5, not of quantile with --alpha 0.9"), "{text}");
    let plain = MemorySource::from_f64((0..60).map(f64::from).collect(), 3).unwrap();
    let plain = plain.with_target((0..20).map(f64::from).collect(), TargetKind::Float).unwrap();
    let linear = run_threads(1, 1, |comm| {
        let config = TrainConfig::of(Kind::Linear).resolved()?;
        train_source(comm, &mut plain.clone(), &TableNames::default(), &config, &Reading::default(), &mut Silent)
    });
    let text = go_on(2, 1, &plain, &quantile(0.9), &linear.unwrap()[0].0).unwrap_err().to_string();
    assert!(text.contains("--continue: goes on from boosted trees, and this is a 'linear' model"), "{text}");
}
