//! Votes: several trainers, or trained models, and how much each of them counts.
//!
//! Weights that are searched make the loss of the rows that no member has seen least: over the simplex, one member after the other, by
//! line searches that halve the interval by the sign of an exact derivative. The losses are convex, so that there is one minimum.

use super::super::evaluate::code_targets;
use super::super::linear_family::train_source;
use super::super::memory::of_measuring;
use super::super::prepare::HeldOut;
use super::super::score::{check_columns, for_each_batch};
use super::super::sums::sum_scalars;
use super::super::{Kind, Missing, Model, Solver, TrainConfig};
use super::deal::{Task, cost, deal};
use super::score::MemberScorer;
use super::stacking::Stacked;
use super::view::{View, Weighing};
use super::{Outcome, Work, held_out, hold_seed, trained, without_held_out};
use crate::comm::Communicator;
use crate::config::{EnsembleConfig, VoteWeights, Voting};
use crate::data::names::TableNames;
use crate::data::partition::{Partition, RowPlan};
use crate::error::{Error, Result};
use crate::exact::ExactSum;
use crate::metric::classification::{EPS, most_probable};
use crate::model::ensemble::{stacked_names, stacked_width, union_of};
use crate::model::{Combine, Ensemble, Member, Preprocess, Scores, TargetCoding};
use rayon::prelude::*;

/// Trains the members of a vote, or takes those that are given, and weighs them. Collective.
pub(super) fn train(work: &mut Work<'_>, given: Option<&Model>) -> Result<Outcome> {
    let ensemble = work.ensemble;
    if let Some(given) = given {
        check_columns(given, work.source.schema())?;
        if given.target.n_classes() == 0 && ensemble.voting == Voting::Hard {
            return Err(Error::usage(
                "--voting hard is for classes, but the models predict numbers; use --voting soft",
            ));
        }
    }
    let (members, timeline, read_s) = match given.map(|model| &model.scores) {
        Some(Scores::Ensemble(given)) => (given.members.clone(), Vec::new(), 0.0),
        Some(_) => return Err(Error::internal("models that vote are not those of a vote")),
        None if ensemble.member.is_empty() => {
            return Err(Error::usage("the models that vote are not at hand; name them with --model"));
        }
        None => train_members(work)?,
    };
    let combine = if ensemble.voting == Voting::Hard { Combine::Vote } else { Combine::Mean };
    let mut outcome = Outcome { members, combine, timeline, read_s };
    let weights = match ensemble.vote_weights {
        VoteWeights::Equal => None,
        _ if outcome.members.len() == 1 => None,
        VoteWeights::Search => Some(searched(work, &outcome.members)?),
        VoteWeights::Logistic => learned(work, &outcome.members)?,
    };
    match weights {
        Some(weights) => outcome.members.iter_mut().zip(weights).for_each(|(member, weight)| member.weight = weight),
        None => outcome.members.iter_mut().for_each(|member| member.weight = 1.0),
    }
    Ok(outcome)
}

type Trained = (Vec<Member>, Vec<super::TaskTime>, f64);

fn train_members(work: &mut Work<'_>) -> Result<Trained> {
    let (config, ensemble) = (work.config, work.ensemble);
    let schema = work.source.schema().clone();
    let names: Vec<String> = ensemble.member.iter().map(|member| member.name.clone()).collect();
    let task = |member: &crate::config::MemberConfig| Task {
        name: member.name.clone(),
        cost: cost(&member.config, schema.n_rows, schema.columns.len()),
    };
    let tasks: Vec<Task> = ensemble.member.iter().map(task).collect();
    let (source, table_names, reading) = (&mut *work.source, work.names, work.reading);
    let dealt = deal(work.comm, &tasks, false, work.watch, &mut |group, task, watch| {
        let mut view = View::new(&mut *source, without_held_out(config));
        train_source(group, &mut view, table_names, &ensemble.member[task].config, reading, watch)
    })?;
    let kept = trained(dealt.made, &names, ensemble.min_members, work.watch)?;
    let member = |(number, made): (usize, super::Made)| Member {
        name: names[number].clone(),
        model: made.model,
        columns: None,
        weight: 1.0,
    };
    Ok((kept.into_iter().map(member).collect(), dealt.timeline, dealt.read_s))
}

/// The scorers of members that see all columns, and the classes of all of them.
pub(super) fn scorers(members: &[Member]) -> Result<(Vec<MemberScorer<'_>>, TargetCoding)> {
    let target = union_of(members.iter().map(|member| &member.model.target));
    let target = target.ok_or_else(|| Error::data("some members predict classes, others other classes or numbers"))?;
    let mut all = Vec::with_capacity(members.len());
    for member in members {
        let is_text = member.model.preprocess.columns.iter().map(|column| column.is_text()).collect();
        all.push(MemberScorer::new(&member.model, None, is_text, &target)?);
    }
    Ok((all, target))
}

/// Rows of this rank that are held out, and what each member predicts for them.
struct Known {
    y: Vec<f64>,
    weight: Vec<f64>,
    /// Per member: (rows, width). Of a hard vote 1 for the class of the most share.
    of_members: Vec<Vec<f64>>,
    width: usize,
    loss: Loss,
}

/// What weights make least.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    /// Of the true class's share.
    Log,
    /// Of shares, which are votes, or of numbers.
    Squared,
}

impl Known {
    /// Collective.
    fn gather(work: &mut Work<'_>, members: &[Member]) -> Result<Known> {
        let (scorers, target) = scorers(members)?;
        let (n_classes, config, comm) = (target.n_classes(), work.config, work.comm);
        let is_hard = work.ensemble.voting == Voting::Hard;
        let width = n_classes.max(1);
        let loss = if is_hard || n_classes == 0 { Loss::Squared } else { Loss::Log };
        let (y, weight) = (Vec::new(), Vec::new());
        let mut known = Known { y, weight, of_members: vec![Vec::new(); members.len()], width, loss };
        let schema = work.source.schema();
        let plan = RowPlan::full_batch(schema.n_rows, schema.columns.len());
        let blocks = plan.blocks(Partition::new(plan.n_units(), comm.size()).units_of(comm.rank()));
        let hold = held_out(config).unwrap_or(HeldOut::Fraction(0.0));
        let limit = work.reading.max_memory;
        let room = limit.map_or(u64::MAX, of_measuring);
        let made = 8 + (width * (members.len() + 1)) as u64;
        let gathered = for_each_batch(work.source, &blocks, limit, made, |batch| {
            let all_y = code_targets(&target, &batch.target, batch.first_row)?;
            let weight_of = |row: usize| batch.weight.as_ref().map_or(1.0, |weight| weight[row]);
            let is_known =
                |row: &usize| hold.holds_out(hold_seed(config), batch.first_row + *row as u64) && weight_of(*row) > 0.0;
            let rows: Vec<usize> = (0..batch.n_rows).filter(is_known).collect();
            known.y.extend(rows.iter().map(|row| all_y[*row]));
            known.weight.extend(rows.iter().map(|row| weight_of(*row)));
            for (of_member, scorer) in known.of_members.iter_mut().zip(&scorers) {
                let mut predicted = scorer.predictions(batch)?;
                if is_hard {
                    predicted.chunks_exact_mut(width).for_each(to_vote);
                }
                rows.iter().for_each(|row| of_member.extend_from_slice(&predicted[row * width..(row + 1) * width]));
            }
            let held = 8 * known.y.len() as u64 * (2 + known.of_members.len() * width) as u64;
            match held > room {
                true => Err(Error::usage(format!(
                    "--vote-weights: what the members predict for the rows that are held out takes more than the {room} bytes that \
                     --max-memory leaves; hold out fewer with --valid-fraction"
                ))),
                false => Ok(()),
            }
        });
        comm.agree(gathered)?;
        let mut n_known = [known.y.len() as u64];
        comm.all_reduce_sum(&mut n_known)?;
        match n_known[0] {
            0 => Err(Error::data(
                "no row that --valid-fraction holds out has weight: nothing to weigh the members by; hold out more",
            )),
            _ => Ok(known),
        }
    }

    /// The derivative of the summed loss by `share`, where the mix is (1 − share)·mix + share·member. Collective.
    fn slope(&self, comm: &Communicator, mix: &[f64], member: usize, share: f64) -> Result<f64> {
        let width = self.width;
        let of_row = |sum: &mut ExactSum, row: usize| {
            let here = row * width..(row + 1) * width;
            let (p, q) = (&mix[here.clone()], &self.of_members[member][here]);
            let (y, w) = (self.y[row], self.weight[row]);
            let at = |class: usize| (1.0 - share) * p[class] + share * q[class];
            match self.loss {
                Loss::Log => {
                    // Where a share comes to nothing, its row is what matters most.
                    let mixed = at(y as usize);
                    let mixed = if mixed > EPS { mixed } else { EPS };
                    sum.add(w * (p[y as usize] - q[y as usize]) / mixed);
                }
                Loss::Squared => {
                    for class in 0..width {
                        let wanted = if width == 1 { y } else { f64::from(u8::from(class == y as usize)) };
                        sum.add(w * 2.0 * (at(class) - wanted) * (q[class] - p[class]));
                    }
                }
            }
        };
        let sum = (0..self.y.len()).into_par_iter().with_min_len(1024).fold(ExactSum::new, |mut sum, row| {
            of_row(&mut sum, row);
            sum
        });
        let sum = sum.reduce(ExactSum::new, |mut a, b| {
            a.merge(&b);
            a
        });
        let [total] = sum_scalars(comm, &[sum])?;
        total.value().ok_or_else(|| Error::data("members predict numbers too large to weigh the members by"))
    }

    /// What the members predict with these weights, which add up to 1.
    fn mixed(&self, weights: &[f64]) -> Vec<f64> {
        let mut mix = vec![0.0; self.y.len() * self.width];
        for (of_member, weight) in self.of_members.iter().zip(weights) {
            mix.par_iter_mut().zip(of_member).for_each(|(mix, share)| *mix += weight * share);
        }
        mix
    }
}

fn to_vote(shares: &mut [f64]) {
    let class = most_probable(shares);
    shares.fill(0.0);
    shares[class] = 1.0;
}

/// Rounds over all members, at most.
const MOST_SWEEPS: usize = 30;
/// Halvings of an interval.
const HALVINGS: usize = 30;
/// A round that changes no weight by more ends the search.
const LEAST_CHANGE: f64 = 1e-5;

/// Weights that make the loss least; they add up to 1. Collective: decisions are taken from exact sums.
fn searched(work: &mut Work<'_>, members: &[Member]) -> Result<Vec<f64>> {
    let known = Known::gather(work, members)?;
    let (comm, n) = (work.comm, members.len());
    let mut weights = vec![1.0 / n as f64; n];
    for _ in 0..MOST_SWEEPS {
        let before = weights.clone();
        for member in 0..n {
            let mix = known.mixed(&weights);
            // From where this member is gone to where it is alone.
            let own = weights[member];
            let (mut low, mut high) = (if own < 1.0 { -own / (1.0 - own) } else { 0.0 }, 1.0);
            let at_low = known.slope(comm, &mix, member, low)?;
            let share = match at_low >= 0.0 {
                true => low,
                false => {
                    for _ in 0..HALVINGS {
                        let middle = 0.5 * (low + high);
                        match known.slope(comm, &mix, member, middle)? < 0.0 {
                            true => low = middle,
                            false => high = middle,
                        }
                    }
                    low
                }
            };
            weights.iter_mut().for_each(|weight| *weight *= 1.0 - share);
            weights[member] += share;
            let sum = weights.iter_mut().fold(0.0, |sum, weight| {
                *weight = if *weight > 1e-12 { *weight } else { 0.0 };
                sum + *weight
            });
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        if before.iter().zip(&weights).all(|(before, now)| (before - now).abs() < LEAST_CHANGE) {
            break;
        }
    }
    Ok(weights)
}

/// Shares of the coefficients that a model of the linear family gives to what the members predict, where above 0; None: none is.
/// Collective.
fn learned(work: &mut Work<'_>, members: &[Member]) -> Result<Option<Vec<f64>>> {
    let (scorers, target) = scorers(members)?;
    let n_classes = target.n_classes();
    let held_out = held_out(work.config).ok_or_else(|| Error::internal("weights are learned without rows"))?;
    let names = stacked_names(members.iter().map(|member| member.name.as_str()), &target);
    let mut view = View::new(&mut *work.source, vec![Weighing::Only { held_out, seed: hold_seed(work.config) }]);
    let mut stacked = Stacked::new(&mut view, names, vec![scorers], n_classes, hold_seed(work.config));
    let (kind, solver) =
        if n_classes == 0 { (Kind::Linear, Solver::Cholesky) } else { (Kind::Logistic, Solver::Lbfgs) };
    let config = TrainConfig { solver, seed: work.config.seed, ..TrainConfig::of(kind) };
    let names = TableNames::default();
    let (model, _) = train_source(work.comm, &mut stacked, &names, &config, work.reading, work.watch)?;
    let Scores::Linear(linear) = &model.scores else { return Err(Error::internal("a linear model is none")) };
    let (width, stride) = (stacked_width(n_classes), linear.n_features + 1);
    let coefficient = |score: usize, feature: usize| {
        linear.params[score * stride + feature] * model.preprocess.inverse_scale[feature]
    };
    // Of each class, what the member's share of it adds to its score.
    let of_member = |member: usize| (0..width).fold(0.0, |sum, class| sum + coefficient(class, member * width + class));
    let weights: Vec<f64> = (0..members.len()).map(of_member).map(|w| if w > 0.0 { w } else { 0.0 }).collect();
    let sum = weights.iter().fold(0.0, |sum, weight| sum + weight);
    if sum <= 0.0 {
        work.watch.warning("--vote-weights logistic: no member gets a coefficient above 0; all count alike");
        return Ok(None);
    }
    Ok(Some(weights.into_iter().map(|weight| weight / sum).collect()))
}

/// Trained models as a vote whose weights are to be found. Not collective; all ranks alike.
///
/// Errors (usage): their columns or classes differ, by name.
pub fn of_models(models: Vec<(String, Model)>) -> Result<Model> {
    let Some((first_name, first)) = models.first() else { return Err(Error::usage("no models that vote")) };
    for (name, model) in &models {
        check_columns_alike((first_name, first), (name, model))?;
        if model.names.offset != first.names.offset {
            let text = |model: &Model| model.names.offset.as_ref().map_or("none".into(), |name| format!("'{name}'"));
            return Err(Error::usage(format!(
                "model '{name}' has the offset {} but model '{first_name}' has {}; vote with models of the same offset",
                text(model),
                text(first)
            )));
        }
        if model.target != first.target {
            let text = |model: &Model| match &model.target {
                TargetCoding::Number => "numbers".to_string(),
                target => format!("the classes {}", target.names().join(", ")),
            };
            return Err(Error::usage(format!(
                "model '{name}' predicts {} but model '{first_name}' predicts {}; vote with models of the same classes",
                text(model),
                text(first)
            )));
        }
    }
    let mut columns = first.preprocess.columns.clone();
    for column in &mut columns {
        *column = crate::model::ColumnCode::new(column.name.clone(), column.kind);
        column.is_category = column.is_text();
    }
    let (n_features, n_scores, target) = (columns.len(), stacked_width(first.target.n_classes()), first.target.clone());
    let image =
        first.preprocess.image.filter(|_| models.iter().all(|(_, of)| of.preprocess.image == first.preprocess.image));
    let preprocess = Preprocess { columns, image, missing: Missing::Mean, mean: Vec::new(), inverse_scale: Vec::new() };
    let (names, mut members): (_, Vec<Member>) = (first.names.clone(), Vec::new());
    for (name, model) in models {
        let is_taken = |name: &str| members.iter().any(|member: &Member| member.name == name);
        let mut numbered = (2..).map(|number| format!("{name} {number}"));
        let name = match is_taken(&name) {
            true => numbered.find(|name| !is_taken(name)).unwrap_or_default(),
            false => name.clone(),
        };
        members.push(Member { name, model, columns: None, weight: 1.0 });
    }
    let given = members.iter().map(|member| member.name.clone()).collect();
    let ensemble = EnsembleConfig { given, ..EnsembleConfig::default() };
    Ok(Model {
        config: TrainConfig { ensemble: Some(Box::new(ensemble)), ..TrainConfig::of(Kind::Vote) },
        names,
        preprocess,
        target,
        scores: Scores::Ensemble(Box::new(Ensemble { n_features, n_scores, members, combine: Combine::Mean })),
        continued: None,
        history: Vec::new(),
        digest: String::new(),
        input_digest: String::new(),
        n_rows: 0,
    })
}

fn check_columns_alike(first: (&str, &Model), other: (&str, &Model)) -> Result<()> {
    let names = |model: &Model| -> Vec<(String, bool)> {
        model.preprocess.columns.iter().map(|column| (column.name.clone(), column.is_text())).collect()
    };
    let (wanted, found) = (names(first.1), names(other.1));
    if wanted == found {
        return Ok(());
    }
    let odd = wanted.iter().zip(&found).find(|(a, b)| a != b);
    let what = match odd {
        Some((a, b)) if a.0 == b.0 => format!("'{}' holds strings in one and numbers in the other", a.0),
        Some((a, b)) => format!("'{}' stands where the other has '{}'", b.0, a.0),
        None => format!("{} columns and {}", found.len(), wanted.len()),
    };
    Err(Error::usage(format!(
        "model '{}' was trained on other columns than model '{}' ({what}); vote with models of the same columns",
        other.0, first.0
    )))
}
