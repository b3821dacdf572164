//! Ensembles give the same bits on any number of ranks and threads, whoever trains which member; members that fail are named.

use super::*;
use crate::comm::run_threads;
use crate::config::{
    BoostConfig, BoostLoss, BootstrapKind, ClassWeight, ForestConfig, MemberConfig, MlpConfig, Scope, Solver,
    VoteWeights, Voting,
};
use crate::data::memory::MemorySource;
use crate::data::{Block, TargetKind};
use crate::train::linear_family;
use crate::train::score::Scorer;

const SHAPES: [(usize, usize); 4] = [(1, 2), (2, 1), (3, 2), (5, 1)];

/// Hears warnings.
#[derive(Default)]
struct Ear(Vec<String>);
impl Observer for Ear {
    fn progress(&mut self, _: &crate::train::Progress) {}
    fn warning(&mut self, message: &str) {
        self.0.push(message.to_string());
    }
}

/// `n` rows of 5 columns (one of strings); the class depends on some of them. Weights from 0.
fn table(n: u64, seed: u64, target: impl Fn(f64) -> f64, kind: TargetKind) -> MemorySource {
    let draws = Draws::new(seed, Stream::Synthetic);
    let x: Vec<f32> = (0..n * 4).map(|i| draws.normal(i / 4, i % 4) as f32).collect();
    let score = |row: u64| {
        f64::from(x[row as usize * 4]) - 0.6 * f64::from(x[row as usize * 4 + 1]) + 0.4 * draws.normal(row, 9)
    };
    let y = (0..n).map(|row| target(score(row))).collect();
    let sites = (0..n).map(|row| format!("s{}", draws.below(3, row, 11))).collect();
    let weight = (0..n).map(|row| if row % 11 == 0 { 0.0 } else { 0.5 + draws.uniform(row, 12) }).collect();
    MemorySource::from_f32(x, 4)
        .and_then(|t| t.with_target(y, kind))
        .and_then(|t| t.with_text_column("site", sites))
        .and_then(|t| t.with_weight(weight))
        .unwrap()
}

fn two(n: u64) -> MemorySource {
    table(n, 1, |score| f64::from(score > 0.2), TargetKind::Integer)
}

fn three(n: u64) -> MemorySource {
    table(n, 2, |score| score.clamp(-1.0, 1.0).round(), TargetKind::Integer)
}

fn numbers(n: u64) -> MemorySource {
    table(n, 3, |score| 3.0 + score, TargetKind::Float)
}

fn boost() -> TrainConfig {
    let boost = BoostConfig { rounds: 4, max_leaves: 6, shrinkage: 0.3, ..BoostConfig::default() };
    TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) }
}

fn forest() -> TrainConfig {
    let forest = ForestConfig { trees: 3, ..ForestConfig::default() };
    TrainConfig { forest: Some(forest), ..TrainConfig::of(Kind::Forest) }
}

fn of(kind: Kind, change: impl FnOnce(&mut EnsembleConfig)) -> TrainConfig {
    let mut ensemble = EnsembleConfig { members: 4, ..EnsembleConfig::default() };
    change(&mut ensemble);
    TrainConfig { ensemble: Some(Box::new(ensemble)), seed: 7, ..TrainConfig::of(kind) }
}

fn bag(learner: TrainConfig, change: impl FnOnce(&mut EnsembleConfig)) -> TrainConfig {
    of(Kind::Bag, |ensemble| {
        ensemble.learner = Some(learner);
        change(ensemble);
    })
}

fn train(
    size: usize,
    threads: usize,
    table: &MemorySource,
    config: &TrainConfig,
) -> Result<(Model, TrainReport, Vec<String>)> {
    let config = config.resolved()?;
    let all = run_threads(size, threads, |comm| {
        let (mut source, mut ear) = (table.clone(), Ear::default());
        let trained = linear_family::train_source(
            comm,
            &mut source,
            &TableNames::default(),
            &config,
            &Reading::default(),
            &mut ear,
        );
        let (model, report) = comm.agree(trained)?;
        Ok((model, report, ear.0))
    })?;
    assert!(all.iter().all(|of_rank| of_rank.0 == all[0].0 && of_rank.2 == all[0].2), "ranks of one world differ");
    Ok(all.into_iter().next().unwrap())
}

fn refusal(table: &MemorySource, config: &TrainConfig) -> String {
    let of = |size| train(size, 1, table, config).map(|_| ()).unwrap_err();
    let alone = of(1);
    assert!(matches!(alone.kind(), ErrorKind::Usage | ErrorKind::Data), "{alone}");
    assert!(of(3).to_string().contains(&alone.to_string()), "{} on 3 ranks; {alone} on 1", of(3));
    alone.to_string()
}

fn ensemble(model: &Model) -> &Ensemble {
    let Scores::Ensemble(ensemble) = &model.scores else { panic!("no ensemble") };
    ensemble
}

fn scores(model: &Model, table: &MemorySource) -> Vec<f64> {
    let (mut source, mut block) = (table.clone(), Block::empty());
    source.read(0..source.schema().n_rows, &mut block).unwrap();
    Scorer::new(model, &source, "table").unwrap().scores(&block).unwrap()
}

/// The model of one rank, after all cuts gave the same, and it came back from its file.
fn same_on_all_cuts(name: &str, table: &MemorySource, config: &TrainConfig) -> (Model, TrainReport, Vec<String>) {
    let alone = train(1, 1, table, config).unwrap();
    let bits = |model: &Model| scores(model, table).iter().map(|score| score.to_bits()).collect::<Vec<_>>();
    for (size, threads) in SHAPES {
        let (model, report, warnings) = train(size, threads, table, config).unwrap();
        let shape = format!("{name}: {size} ranks, {threads} threads");
        assert_eq!(model.digest, alone.0.digest, "{shape}");
        assert_eq!(model, alone.0, "{shape}");
        assert_eq!(warnings, alone.2, "{shape}");
        assert_eq!(bits(&model), bits(&alone.0), "{shape}");
        assert_eq!(report.valid, alone.1.valid, "{shape}");
        let (here, there) = (report.ensemble.unwrap(), alone.1.ensemble.as_ref().unwrap());
        assert_eq!(
            (&here.members, &here.metrics, here.disagreement),
            (&there.members, &there.metrics, there.disagreement)
        );
        assert_eq!(
            here.timeline.iter().map(|t| &t.name).collect::<Vec<_>>(),
            there.timeline.iter().map(|t| &t.name).collect::<Vec<_>>()
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.h5");
    let file = crate::store::model::to_file(&alone.0, &crate::train::Inputs::default()).unwrap();
    crate::store::save(&path, &file, false).unwrap();
    let back = crate::store::model::from_file(&crate::store::load(&path).unwrap()).unwrap();
    assert_eq!(back, alone.0, "{name}: from its file");
    assert_eq!(digest(&back).unwrap(), alone.0.digest);
    alone
}

#[test]
fn bags_of_any_learner_give_the_same_bits_on_any_number_of_ranks_and_threads() {
    let sgd =
        TrainConfig { solver: Solver::Sgd, epochs: Some(20), global_batch: 256, ..TrainConfig::of(Kind::Logistic) };
    for (name, table, learner) in [
        ("logistic", two(1_009), TrainConfig::of(Kind::Logistic)),
        ("svm", three(1_009), TrainConfig::of(Kind::Svm)),
        ("sgd", three(1_009), sgd),
        ("boost", two(401), boost()),
        ("boost of numbers", numbers(401), boost()),
        ("linear", numbers(1_009), TrainConfig::of(Kind::Linear)),
        ("forest", three(401), forest()),
    ] {
        for scope in [Scope::Global, Scope::Local] {
            let config = bag(learner.clone(), |ensemble| ensemble.scope = scope);
            let (model, report, _) = same_on_all_cuts(&format!("{name} {scope:?}"), &table, &config);
            let members = &ensemble(&model).members;
            assert_eq!(members.len(), 4);
            assert!(
                members.windows(2).all(|pair| pair[0].model.digest != pair[1].model.digest),
                "{name}: members are alike"
            );
            let n_rows = members.iter().map(|member| member.model.n_rows).sum::<u64>();
            let all = table.schema().n_rows;
            assert_eq!(n_rows, if scope == Scope::Local { all } else { 4 * all });
            let metrics = report.ensemble.unwrap().metrics;
            let good = metrics.get("accuracy").map_or_else(|| metrics.get("r2").unwrap() > 0.3, |share| share > 0.7);
            assert!(good, "{name} {scope:?} learns: {metrics}");
        }
    }
}

#[test]
fn samples_of_rows_and_columns_and_held_out_rows_give_the_same_bits() {
    let table = two(1_009);
    let change = |ensemble: &mut EnsembleConfig| {
        (ensemble.bootstrap, ensemble.member_rows, ensemble.member_columns) = (BootstrapKind::None, 0.6, 0.5);
        (ensemble.voting, ensemble.members) = (Voting::Hard, 7);
    };
    let config = TrainConfig { valid_fraction: 0.3, ..bag(boost(), change) };
    let (model, report, _) = same_on_all_cuts("samples", &table, &config);
    let members = &ensemble(&model).members;
    assert!(members.iter().all(|member| member.columns.as_ref().is_some_and(|columns| columns.len() == 3)));
    assert!(members.iter().any(|member| member.columns != members[0].columns));
    assert!(report.valid.get("auc").unwrap() > 0.7 && report.ensemble.unwrap().held_out);
    // Of votes of seven, shares are sevenths.
    assert!(scores(&model, &table).iter().all(|share| ((share * 7.0).round() / 7.0 - share).abs() < 1e-15));
}

#[test]
fn a_mean_is_that_of_its_members_row_by_row() {
    let table = three(307);
    let (model, ..) = train(2, 1, &table, &bag(TrainConfig::of(Kind::Logistic), |_| ())).unwrap();
    let all = scores(&model, &table);
    let mut mean = vec![0.0; all.len()];
    for member in &ensemble(&model).members {
        let link = crate::train::score::Link::of(&member.model);
        for (row, of_row) in scores(&member.model, &table).chunks_exact(3).enumerate() {
            let mut shares = [0.0; 3];
            link.shares(of_row, &mut shares);
            (0..3).for_each(|class| mean[row * 3 + class] += shares[class] / 4.0);
        }
    }
    assert!(all.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-15));
}

#[test]
fn a_member_without_two_classes_is_left_out_by_name_or_too_many_are() {
    // All of class 1 but the first run of rows: only that lane has both.
    let n = 640;
    let draws = Draws::new(5, Stream::Synthetic);
    let x: Vec<f32> = (0..n * 2).map(|i| draws.normal(i, 0) as f32).collect();
    let y: Vec<f64> = (0..n).map(|row| if row < 128 { (row % 2) as f64 } else { 1.0 }).collect();
    let table = MemorySource::from_f32(x, 2).unwrap().with_target(y, TargetKind::Integer).unwrap();
    let config = |min_members| {
        bag(TrainConfig::of(Kind::Logistic), |ensemble| {
            (ensemble.scope, ensemble.members, ensemble.min_members) = (Scope::Local, 5, min_members);
        })
    };
    let (model, _, warnings) = same_on_all_cuts("one class", &table, &config(1));
    assert_eq!(ensemble(&model).members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["logistic 0"]);
    let expected = "left out: logistic 1, logistic 2, logistic 3 and logistic 4: the target has one class (1)";
    assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{warnings:?}");
    let message = refusal(&table, &config(2));
    let expected =
        "1 of 5 members could be trained, and --min-members is 2; logistic 1, logistic 2, logistic 3 and logistic 4: ";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn that_variances_of_members_are_left_out_is_said() {
    let of = |loss| {
        let mlp = MlpConfig { layers: vec![3], loss, ..MlpConfig::default() };
        TrainConfig { mlp: Some(mlp), epochs: Some(1), ..TrainConfig::of(Kind::Mlp) }
    };
    let warned = |loss| {
        let (_, _, warnings) = train(3, 1, &numbers(157), &bag(of(loss), |e| e.members = 2)).unwrap();
        warnings.iter().any(|warning| warning.contains("variances") && warning.contains("left out"))
    };
    assert!(warned(BoostLoss::Gaussian));
    assert!(!warned(BoostLoss::Squared));
}

#[test]
fn class_weights_of_numbers_are_refused_by_every_kind_that_looks_at_the_target_first() {
    for (mut config, instead) in
        [(boost(), "--loss logistic"), (forest(), "--criterion gini"), (TrainConfig::of(Kind::Mlp), "--loss logistic")]
    {
        config.class_weight = ClassWeight::Balanced;
        let message = refusal(&numbers(157), &config);
        assert!(message.contains("--class-weight balances classes") && message.contains(instead), "{message}");
    }
}

#[test]
fn more_members_than_runs_of_rows_leave_some_without_any() {
    let config = bag(TrainConfig::of(Kind::Linear), |e| (e.scope, e.members) = (Scope::Local, 12));
    let (model, _, warnings) = same_on_all_cuts("short", &numbers(100), &config);
    assert_eq!(ensemble(&model).members.len(), 7);
    assert!(warnings.iter().any(|warning| warning.contains("more members than runs of 16 rows")), "{warnings:?}");
}

#[test]
fn a_damaged_ensemble_is_refused_with_its_group() {
    let (model, ..) =
        train(1, 1, &two(307), &bag(TrainConfig::of(Kind::Logistic), |e| e.member_columns = 0.7)).unwrap();
    let good = crate::store::model::to_file(&model, &crate::train::Inputs::default()).unwrap();
    assert_eq!(crate::store::model::from_file(&good).unwrap(), model);
    type Spoil = fn(&mut crate::store::ModelFile);
    let broken: [(Spoil, &str); 6] = [
        (|file| drop(file.parts.remove(2)), "members/002"),
        (|file| file.parts[1].1.arrays.clear(), "members/001"),
        (|file| file.parts.swap(0, 1), "members/00"),
        (|file| drop(file.strings.iter_mut().find(|s| s.0 == "member_names").unwrap().1.pop()), "member_weight"),
        (|file| file.attributes.retain(|(name, _)| name != "combine"), "combines its members by 'nothing'"),
        (|file| file.arrays[0].1 = crate::store::Array::F64 { shape: vec![4], values: vec![0.0; 4] }, "member_weight"),
    ];
    for (i, (spoil, named)) in broken.iter().enumerate() {
        let mut file = good.clone();
        spoil(&mut file);
        if i == 2 {
            file.parts.swap(0, 1);
            file.parts[0].0 = "members/001".into();
            file.parts[1].0 = "members/000".into();
        }
        let error = crate::store::model::from_file(&file).expect_err(&format!("case {i}"));
        assert!(error.kind() == ErrorKind::Data && error.to_string().contains(named), "case {i}: {error}");
    }
}

fn member(name: &str, config: TrainConfig) -> MemberConfig {
    MemberConfig { name: name.to_string(), config }
}

fn mixed() -> Vec<MemberConfig> {
    vec![
        member("lines", TrainConfig::of(Kind::Logistic)),
        member("svm", TrainConfig::of(Kind::Svm)),
        member("trees", boost()),
        member("forest", forest()),
    ]
}

fn of_numbers() -> Vec<MemberConfig> {
    vec![member("lines", TrainConfig::of(Kind::Linear)), member("trees", boost())]
}

#[test]
fn votes_and_their_weights_give_the_same_bits_on_any_number_of_ranks_and_threads() {
    for (weights, voting) in [
        (VoteWeights::Equal, Voting::Soft),
        (VoteWeights::Equal, Voting::Hard),
        (VoteWeights::Search, Voting::Soft),
        (VoteWeights::Search, Voting::Hard),
        (VoteWeights::Logistic, Voting::Soft),
    ] {
        for (name, table, member) in
            [("two", two(701), mixed()), ("three", three(701), mixed()), ("numbers", numbers(701), of_numbers())]
        {
            if name == "numbers" && voting == Voting::Hard {
                continue;
            }
            let config = TrainConfig {
                valid_fraction: 0.3,
                ..of(Kind::Vote, |e| (e.member, e.vote_weights, e.voting) = (member, weights, voting))
            };
            let (model, report, _) = same_on_all_cuts(&format!("{name} {weights:?} {voting:?}"), &table, &config);
            let found: Vec<f64> = ensemble(&model).members.iter().map(|member| member.weight).collect();
            match weights {
                VoteWeights::Equal => assert!(found.iter().all(|w| *w == 1.0)),
                _ => assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name} {weights:?}: {found:?}"),
            }
            assert!(report.ensemble.unwrap().members.len() == found.len());
        }
    }
}

#[test]
fn searched_weights_are_no_worse_than_any_others_on_the_rows_held_out() {
    let table = three(1_009);
    let of_weights = |weights: VoteWeights| TrainConfig {
        valid_fraction: 0.4,
        ..of(Kind::Vote, |e| (e.member, e.vote_weights) = (mixed(), weights))
    };
    let (found, report, _) = train(1, 2, &table, &of_weights(VoteWeights::Search)).unwrap();
    let least = report.ensemble.unwrap().metrics.get("log_loss").unwrap();
    let log_loss = |weights: [f64; 3]| {
        let mut model = found.clone();
        let Scores::Ensemble(ensemble) = &mut model.scores else { panic!("no ensemble") };
        ensemble.members.iter_mut().zip(weights).for_each(|(member, weight)| member.weight = weight);
        let (scores, block) = (scores(&model, &table), table.block());
        let crate::data::Targets::Number(y) = &block.target else { panic!("numbers") };
        let weight = block.weight.as_ref().unwrap();
        let (mut loss, mut total) = (0.0, 0.0);
        for row in 0..y.len() {
            if HeldOut::Fraction(0.4).holds_out(super::hold_seed(&found.config), row as u64) {
                loss -= weight[row] * scores[row * 3 + (y[row] + 1.0) as usize].max(f64::EPSILON).ln();
                total += weight[row];
            }
        }
        loss / total
    };
    let own: Vec<f64> = ensemble(&found).members.iter().map(|member| member.weight).collect();
    assert!((log_loss([own[0], own[1], own[2]]) - least).abs() < 1e-9, "the slow twin measures the same");
    for a in 0..=10 {
        for b in 0..=10 - a {
            let weights = [f64::from(a), f64::from(b), f64::from(10 - a - b)].map(|w| w / 10.0);
            assert!(log_loss(weights) > least - 1e-7, "{weights:?} is better than {own:?}");
        }
    }
}

#[test]
fn searched_weights_do_not_hang_on_the_order_of_members_that_predict_zeros() {
    let member = |kind: Kind| MemberConfig { name: kind.name().into(), config: TrainConfig::of(kind) };
    let weights = |first: Kind, second: Kind| {
        let config = TrainConfig {
            valid_fraction: 0.4,
            ..of(Kind::Vote, |e| {
                (e.member, e.vote_weights) = (vec![member(first), member(second)], VoteWeights::Search)
            })
        };
        let (model, ..) = train(2, 1, &two(1_009), &config).unwrap();
        ensemble(&model).members.iter().map(|member| member.weight).collect::<Vec<f64>>()
    };
    // What svm predicts is 0 or 1: wrong ones cost more than any weight of it brings.
    let (one, other) = (weights(Kind::Logistic, Kind::Svm), weights(Kind::Svm, Kind::Logistic));
    assert!((one[0] - other[1]).abs() < 1e-3 && one[0] > 0.3, "{one:?} {other:?}");
}

#[test]
fn members_may_hold_out_rows_of_their_own() {
    let mut stopping = TrainConfig { valid_fraction: 0.2, ..TrainConfig::of(Kind::Boost) };
    stopping.boost.iter_mut().for_each(|boost| (boost.rounds, boost.early_stop) = (20, 3));
    let member = vec![MemberConfig { name: "b".into(), config: stopping }];
    let config = TrainConfig { valid_fraction: 0.3, ..of(Kind::Vote, |e| e.member = member) };
    let (model, report, _) = train(2, 1, &two(701), &config).unwrap();
    assert_eq!((ensemble(&model).members.len(), report.ensemble.unwrap().members.len()), (1, 1));
}

#[test]
fn stacks_give_the_same_bits_on_any_number_of_ranks_and_threads() {
    for (name, table, member, last) in [
        ("two", two(701), mixed(), None),
        ("three", three(701), mixed(), None),
        ("three, trees last", three(701), mixed(), Some(boost())),
        ("numbers", numbers(701), of_numbers(), None),
    ] {
        let config = of(Kind::Stack, |e| (e.member, e.last, e.stack_folds) = (member, last.clone(), 3));
        let (model, report, _) = same_on_all_cuts(name, &table, &config);
        let Combine::Stack(found) = &ensemble(&model).combine else { panic!("no last learner") };
        assert_eq!(
            found.config.kind,
            last.map_or(if name == "numbers" { Kind::Linear } else { Kind::Logistic }, |_| Kind::Boost)
        );
        assert_eq!(report.ensemble.unwrap().timeline.len(), 4 * ensemble(&model).members.len());
    }
}

#[test]
fn the_last_learner_of_a_stack_sees_what_members_predict_for_rows_that_they_have_not_seen() {
    // Trees to purity know every row that they have seen: on those they are always right, so that a last learner that saw that would
    // trust them alone. The target is a coin's, but for what the linear member can know.
    let table = table(1_009, 4, |score| f64::from(score > 0.0), TargetKind::Integer);
    let pure = BoostConfig { rounds: 40, max_leaves: 200, min_rows: 1, shrinkage: 1.0, ..BoostConfig::default() };
    let trees = TrainConfig { boost: Some(pure), ..TrainConfig::of(Kind::Boost) };
    let members = vec![member("lines", TrainConfig::of(Kind::Logistic)), member("trees", trees)];
    let (model, report, _) = train(2, 1, &table, &of(Kind::Stack, |e| e.member = members)).unwrap();
    let of_members = report.ensemble.unwrap().members;
    assert!(of_members[1].metrics.get("accuracy").unwrap() > 0.999, "trees know the rows");
    let Combine::Stack(last) = &ensemble(&model).combine else { panic!("no last learner") };
    let params = &last.scores.linear().unwrap().params;
    assert!(params[0] > params[1], "the lines count more than the trees: {params:?}");
}

#[test]
fn adaboost_gives_the_same_bits_and_each_member_counts_by_its_error() {
    let stumps = BoostConfig { rounds: 1, max_leaves: 3, ..BoostConfig::default() };
    let stumps = TrainConfig { boost: Some(stumps), ..TrainConfig::of(Kind::Boost) };
    for (name, table, learner) in [
        ("two", two(1_009), stumps.clone()),
        ("three", three(1_009), stumps),
        ("svm", three(701), TrainConfig::of(Kind::Svm)),
    ] {
        for valid_fraction in if name == "two" { vec![0.0, 0.3] } else { vec![0.0] } {
            let config = of(Kind::Adaboost, |e| (e.learner, e.members) = (Some(learner.clone()), 4));
            let config = TrainConfig { valid_fraction, ..config };
            let (model, report, _) = same_on_all_cuts(name, &table, &config);
            let members = &ensemble(&model).members;
            assert!(members.len() > 1 && members.iter().all(|member| member.weight > 0.0), "{name}");
            let report = report.ensemble.unwrap();
            let (first, all) = (report.members[0].metrics.get("accuracy"), report.metrics.get("accuracy"));
            // Four members of three classes may still take turns.
            let least = if name == "two" { first.map(|share| share - 0.02) } else { Some(0.55) };
            assert!(all >= least, "{name}: {first:?} → {all:?}");
        }
    }
}

/// Written out for two members, in plain floats.
#[test]
fn the_second_member_of_adaboost_is_that_of_rows_weighed_as_the_paper_has_it() {
    let table = two(701).with_weight(vec![1.0; 701]).unwrap();
    let config = of(Kind::Adaboost, |e| (e.learner, e.members) = (Some(TrainConfig::of(Kind::Logistic)), 2));
    let (model, ..) = train(1, 1, &table, &config).unwrap();
    let members = &ensemble(&model).members;
    let crate::data::Targets::Number(y) = &table.block().target else { panic!("numbers") };
    let wrong: Vec<bool> =
        scores(&members[0].model, &table).iter().zip(y).map(|(s, y)| (*s > 0.0) != (*y == 1.0)).collect();
    let error = wrong.iter().filter(|wrong| **wrong).count() as f64 / 701.0;
    assert!((members[0].weight - ((1.0 - error) / error).ln()).abs() < 1e-5);
    let factor = |wrong: &bool| if *wrong { (1.0 - error) / error } else { 1.0 };
    let total: f64 = wrong.iter().map(factor).sum();
    let weighed = table.clone().with_weight(wrong.iter().map(|w| factor(w) * 701.0 / total).collect()).unwrap();
    let (_, learner) = config.ensemble.as_ref().unwrap().all_members().remove(0);
    let (again, ..) = train(1, 1, &weighed, learner).unwrap();
    let params = |model: &Model| model.scores.linear().unwrap().params.clone();
    assert!(
        params(&again).iter().zip(params(&members[1].model)).all(|(a, b)| (a - b).abs() < 1e-3),
        "{:?}",
        params(&again)
    );
}

#[test]
fn adaboost_ends_where_a_member_is_perfect_and_is_refused_where_it_cannot_be() {
    let n = 300u32;
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let easy = MemorySource::from_f32(x.clone(), 1).unwrap();
    let easy = easy.with_target((0..n).map(|i| f64::from(u8::from(i >= 150))).collect(), TargetKind::Integer).unwrap();
    let config = of(Kind::Adaboost, |e| e.learner = Some(boost()));
    let (model, _, warnings) = same_on_all_cuts("easy", &easy, &config);
    assert_eq!(ensemble(&model).members.len(), 1);
    assert!(warnings.iter().any(|warning| warning.starts_with("boost 0 mistakes no row")), "{warnings:?}");
    let message = refusal(&numbers(101), &of(Kind::Adaboost, |e| e.learner = Some(TrainConfig::of(Kind::Linear))));
    assert!(message.starts_with("adaboost is for classes"), "{message}");
    // Balanced noise with one constant feature: nothing is better than chance.
    let noise = MemorySource::from_f32(vec![1.0; 300], 1).unwrap();
    let noise = noise.with_target((0..n).map(|i| f64::from(i % 2)).collect(), TargetKind::Integer).unwrap();
    let message = refusal(&noise, &of(Kind::Adaboost, |e| e.learner = Some(TrainConfig::of(Kind::Logistic))));
    assert!(message.contains("no better than chance"), "{message}");
}

#[test]
fn members_that_fail_in_a_vote_or_a_stack_are_named() {
    let sparse = MemorySource::from_f32((0..2_000).map(|i| ((i * 7919) % 13) as f32).collect(), 4).unwrap();
    let sparse = sparse
        .with_target((0..500).map(|i| f64::from(i % 3 == 0)).collect(), TargetKind::Integer)
        .unwrap()
        .into_sparse();
    for kind in [Kind::Vote, Kind::Stack] {
        let all = vec![member("lines", TrainConfig::of(Kind::Logistic)), member("trees", boost())];
        let (model, _, warnings) = train(3, 1, &sparse, &of(kind, |e| e.member = all.clone())).unwrap();
        assert_eq!(ensemble(&model).members.len(), 1);
        assert!(warnings.iter().any(|w| w.starts_with("left out: trees: ") && w.contains("sparse")), "{warnings:?}");
        let message = refusal(&sparse, &of(kind, |e| (e.member, e.min_members) = (all.clone(), 2)));
        assert!(message.starts_with("1 of 2 members could be trained, and --min-members is 2; trees: "), "{message}");
    }
}

#[test]
fn trained_models_vote_if_their_columns_and_classes_are_the_same() {
    let table = two(701);
    let model = |table: &MemorySource, config: TrainConfig| train(1, 1, table, &config).unwrap().0;
    let (a, b) = (model(&table, TrainConfig::of(Kind::Logistic)), model(&table, boost()));
    let voters = of_models(vec![("a".into(), a.clone()), ("b".into(), b.clone()), ("b".into(), b.clone())]).unwrap();
    assert_eq!(ensemble(&voters).members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a", "b", "b 2"]);
    let given = vec!["a".to_string(), "b".to_string(), "b 2".to_string()];
    let config = TrainConfig {
        valid_fraction: 0.3,
        ..of(Kind::Vote, |e| (e.given, e.vote_weights) = (given, VoteWeights::Search))
    };
    let config = config.resolved().unwrap();
    let vote = |size| {
        run_threads(size, 1, |comm| {
            let (mut source, names, reading) = (table.clone(), TableNames::default(), Reading::default());
            Ok(train_source(comm, &mut source, &names, &config, &reading, Some(&voters), &mut Ear::default())?.0)
        })
        .unwrap()
        .remove(0)
    };
    let alone = vote(1);
    assert_eq!(vote(3), alone);
    let weights: Vec<f64> = ensemble(&alone).members.iter().map(|member| member.weight).collect();
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{weights:?}");

    let other_classes = model(&three(701), TrainConfig::of(Kind::Svm));
    let message = of_models(vec![("a".into(), a.clone()), ("c".into(), other_classes)]).unwrap_err().to_string();
    assert!(
        message.starts_with("model 'c' predicts the classes -1, 0, 1 but model 'a' predicts the classes 0, 1"),
        "{message}"
    );
    let fewer = MemorySource::from_f32((0..100).map(|i| (i % 9) as f32).collect(), 1).unwrap();
    let fewer = fewer.with_target((0..100).map(|i| f64::from(i % 2)).collect(), TargetKind::Integer).unwrap();
    let fewer = model(&fewer, TrainConfig::of(Kind::Logistic));
    let message = of_models(vec![("a".into(), a), ("d".into(), fewer)]).unwrap_err().to_string();
    assert!(message.contains("model 'd' was trained on other columns than model 'a' (1 columns and 5)"), "{message}");
}
