//! # train::ensemble — several models trained side by side, combined into one
//!
//! In:    any table, and the settings of the members.
//! Out:   one [`Model`] that holds them all.
//! Talks: deals members to groups of ranks; each member's trainer talks within its group.
//! Never: how a member is trained: any trainer of this room does, on a [`View`](view::View) of the table.

mod adaboost;
mod bagging;
pub mod deal;
mod diversity;
pub mod score;
mod stacking;
#[cfg(test)]
mod tests;
pub mod view;
mod voting;

pub use voting::of_models;

use super::linear_family::{digest, median};
use super::prepare::HeldOut;
use super::{Kind, Model, Observer, Reading, TrainConfig, TrainReport};
use crate::comm::Communicator;
use crate::config::EnsembleConfig;
use crate::data::DataSource;
use crate::data::names::TableNames;
use crate::error::{Error, ErrorKind, Result};
use crate::metric::Metrics;
use crate::model::ensemble::{stacked_width, union_of};
use crate::model::{Combine, Ensemble, Member, Preprocess, Scores};
use crate::rng::{Draws, Stream};
use deal::{Made, TaskTime, several};
use std::time::Instant;
use view::Weighing;

/// What is known of an ensemble beyond what is known of any training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnsembleReport {
    pub members: Vec<MemberReport>,
    /// The same metrics of the ensemble, of the same rows.
    pub metrics: Metrics,
    /// Whether those rows were held out from all members; else they are those trained on.
    pub held_out: bool,
    /// The mean share of rows for which two members predict different classes. None: they predict numbers, or there is one.
    pub disagreement: Option<f64>,
    /// Which ranks trained what, and when.
    pub timeline: Vec<TaskTime>,
    /// The least share of the time of [`timeline`](Self::timeline) that a rank spent on tasks.
    pub busy: f64,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberReport {
    pub name: String,
    pub kind: Kind,
    /// How much it counts.
    pub weight: f64,
    pub metrics: Metrics,
}

/// What members are made from.
struct Work<'a> {
    comm: &'a Communicator,
    source: &'a mut dyn DataSource,
    names: &'a TableNames,
    config: &'a TrainConfig,
    ensemble: &'a EnsembleConfig,
    reading: &'a Reading,
    watch: &'a mut dyn Observer,
}

/// Members that are trained, and how they are combined.
struct Outcome {
    members: Vec<Member>,
    combine: Combine,
    timeline: Vec<TaskTime>,
    read_s: f64,
}

/// Trains an ensemble on any table. Collective; the same model on every rank.
///
/// * `config`: [resolved](TrainConfig::resolved), and for this table.
/// * `given`: a vote of trained models ([`of_models`]), where the settings name some.
///
/// # Errors
/// `Usage` or `Data`: members that do not predict the same, or fewer than `min_members` that could be trained.
pub fn train_source(
    comm: &Communicator,
    source: &mut dyn DataSource,
    names: &TableNames,
    config: &TrainConfig,
    reading: &Reading,
    given: Option<&Model>,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    let began = Instant::now();
    let ensemble = config.ensemble.as_deref().ok_or_else(|| Error::internal("an ensemble without its settings"))?;
    ensemble.check_alike(config.kind)?;
    let schema = source.schema().clone();
    let mut work = Work { comm, source, names, config, ensemble, reading, watch };
    let outcome = match config.kind {
        Kind::Bag => bagging::train(&mut work)?,
        Kind::Adaboost => adaboost::train(&mut work)?,
        Kind::Vote => voting::train(&mut work, given)?,
        Kind::Stack => stacking::train(&mut work)?,
        kind => return Err(Error::internal(format!("'{}' is not an ensemble", kind.name()))),
    };
    if outcome.members.iter().any(|member| member.model.scores.has_variance()) {
        work.watch.warning(
            "the variances that members predict (--loss gaussian) are left out: an ensemble predicts one number a row; train one mlp by itself for them",
        );
    }
    let target = match (config.kind, ensemble.scope) {
        (Kind::Bag, crate::config::Scope::Local) => bagging::classes(&mut work)?,
        _ => union_of(outcome.members.iter().map(|member| &member.model.target)),
    };
    let target = target
        .ok_or_else(|| Error::data("some members predict classes that are strings, others whole numbers or none"))?;
    let mut preprocess = Preprocess::unfitted(&schema, super::Missing::Mean);
    // One feature each, whatever members make of them.
    preprocess.columns.iter_mut().for_each(|column| column.is_category = column.is_text());
    let (n_scores, n_features) = (stacked_width(target.n_classes()), preprocess.columns.len());
    let Outcome { members, combine, timeline, read_s } = outcome;
    let scores = Scores::Ensemble(Box::new(Ensemble { n_features, n_scores, members, combine }));
    let mut model = Model {
        config: config.clone(),
        names: names.clone(),
        n_rows: schema.n_rows,
        input_digest: String::new(),
        preprocess,
        target,
        scores,
        continued: None,
        history: Vec::new(),
        digest: String::new(),
    };
    let measured = diversity::measure_members(&mut work, &model)?;
    model.history = measured.history();
    model.input_digest = measured.input_digest.to_hex();
    model.digest = digest(&model)?;
    let seconds: Vec<f64> = timeline.iter().map(|task| task.end_s - task.start_s).collect();
    let report = TrainReport {
        rows: schema.n_rows,
        features: n_features,
        read_s,
        train_s: began.elapsed().as_secs_f64() - read_s,
        epoch_s: median(&seconds),
        iterations: measured.members.len() as u64,
        converged: true,
        loss: measured.loss,
        valid: measured.valid.clone(),
        traffic: comm.traffic(),
        is_sparse: schema.is_sparse,
        ensemble: Some(EnsembleReport {
            members: measured.members,
            metrics: measured.metrics,
            held_out: held_out(config).is_some(),
            disagreement: measured.disagreement,
            busy: deal::busy(&timeline, comm.size()),
            timeline,
        }),
        ..TrainReport::default()
    };
    Ok((model, report))
}

/// Rows that no member is trained on, if there are any.
fn held_out(config: &TrainConfig) -> Option<HeldOut> {
    (config.valid_fraction > 0.0).then_some(HeldOut::Fraction(config.valid_fraction))
}

/// What keeps them from a member.
fn without_held_out(config: &TrainConfig) -> Vec<Weighing> {
    held_out(config).map(|held_out| Weighing::Without { held_out, seed: hold_seed(config) }).into_iter().collect()
}

/// The seed of the rows that an ensemble holds out and of its folds: another one than its members', which may hold out rows and have folds of
/// their own.
fn hold_seed(config: &TrainConfig) -> u64 {
    member_seed(config.seed, u64::MAX)
}

/// The seed of a member: settings are stored as numbers that people read.
fn member_seed(seed: u64, member: u64) -> u64 {
    Draws::new(seed, Stream::MemberSeed).bits(member, 0) >> 32
}

/// The members that could be trained, by their number; the others are left out with a warning. Not collective; all ranks alike.
///
/// # Errors
/// Fewer than `min_members` are left; says why, of each.
fn trained(
    dealt: Vec<Result<Made>>,
    names: &[String],
    min_members: u64,
    watch: &mut dyn Observer,
) -> Result<Vec<(usize, Made)>> {
    let mut kept = Vec::new();
    let mut reasons: Vec<(Error, Vec<&str>)> = Vec::new();
    for (member, made) in dealt.into_iter().enumerate() {
        match made {
            Ok(made) => {
                if !made.converged {
                    watch.warning(&format!("{}: stopped before it converged; it is kept", names[member]));
                }
                kept.push((member, made));
            }
            Err(error) => match reasons.iter_mut().find(|(known, _)| *known == error) {
                Some((_, of)) => of.push(&names[member]),
                None => reasons.push((error, vec![&names[member]])),
            },
        }
    }
    let text = |(error, of): &(Error, Vec<&str>)| format!("{}: {error}", several(of));
    if kept.len() as u64 >= min_members.max(1) {
        reasons.iter().for_each(|reason| watch.warning(&format!("left out: {}", text(reason))));
        return Ok(kept);
    }
    if reasons.is_empty() {
        let (kept, all) = (kept.len(), names.len());
        return Err(Error::data(format!("ended after {kept} of {all} members, and --min-members is {min_members}")));
    }
    let is_usage = reasons.iter().all(|(error, _)| error.kind() == ErrorKind::Usage);
    let kind = if is_usage { ErrorKind::Usage } else { ErrorKind::Data };
    let all = reasons.iter().map(text).collect::<Vec<_>>().join("; ");
    Err(Error::new(
        kind,
        format!(
            "{} of {} members could be trained, and --min-members is {min_members}; {all}",
            kept.len(),
            names.len()
        ),
    ))
}
