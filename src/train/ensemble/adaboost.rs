//! AdaBoost for any number of classes: each member is trained on rows that weigh more the more often they were mistaken.
//!
//! Members come one after the other, each trained by all ranks. A row's weight is kept as its logarithm, a whole number of steps of
//! 2^−20, so that the largest of all rows is one for any number of ranks; errors are exact sums. Source: Zhu, Zou, Rosset, Hastie,
//! *Multi-class AdaBoost*, Statistics and Its Interface 2009 (SAMME).

use super::super::checkpoint::Keeping;
use super::super::evaluate::code_targets;
use super::super::forest;
use super::super::linear_family::train_source;
use super::super::prepare::plan;
use super::super::score::for_each_batch;
use super::super::sums::sum_scalars;
use super::super::{Model, TrainConfig};
use super::deal::{TaskTime, is_of_data};
use super::score::MemberScorer;
use super::view::{View, Weighing};
use super::{Made, Outcome, Work, held_out, hold_seed, member_seed, trained, without_held_out};
use crate::data::partition::Partition;
use crate::error::{Error, Result};
use crate::exact::ExactSum;
use crate::metric::classification::most_probable;
use crate::model::{Combine, Member};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Steps of a row's logarithm of one.
const STEPS: f64 = (1u64 << 20) as f64;

/// Trains members one after the other. Collective.
pub(super) fn train(work: &mut Work<'_>) -> Result<Outcome> {
    let (comm, config, ensemble) = (work.comm, work.config, work.ensemble);
    let learner = ensemble.learner.as_ref().ok_or_else(|| Error::internal("adaboost without a learner"))?;
    let names: Vec<String> = ensemble.all_members().into_iter().map(|(name, _)| name).collect();
    let schema = work.source.schema().clone();
    // The rows that the learner reads on this rank.
    let n_columns = schema.columns.len();
    let plan = match &learner.forest {
        Some(settings) => forest::plan_of(learner, settings, schema.n_rows, n_columns),
        None => plan(schema.n_rows, n_columns, learner),
    };
    let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
    let (rows, blocks) = (plan.rows(units.clone()), plan.blocks(units));
    let mut steps = vec![0i64; (rows.end - rows.start) as usize];
    let mut mistakes = vec![false; steps.len()];
    let (mut made, mut alphas, mut timeline, mut read_s): (Vec<Result<Made>>, Vec<f64>, Vec<TaskTime>, f64) =
        Default::default();
    let began = Instant::now();
    let mut factors = Arc::new(vec![1.0; steps.len()]);
    for (member, name) in names.iter().enumerate() {
        let start_s = began.elapsed().as_secs_f64();
        let mut weighings = without_held_out(config);
        weighings.push(Weighing::Given { first_row: rows.start, factors: factors.clone() });
        let mut view = View::new(&mut *work.source, weighings);
        let own = TrainConfig { seed: member_seed(config.seed, member as u64), ..learner.clone() };
        // All ranks get here with the same models, and fail alike.
        let keeper = work.watch.keeper().part(&format!("member-{member}"));
        let mut watch = Keeping { observer: &mut *work.watch, keeper };
        let done = train_source(comm, &mut view, work.names, &own, work.reading, &mut watch);
        let is_of_data = done.as_ref().err().is_some_and(is_of_data);
        let done = comm.agree(done);
        timeline.push(TaskTime {
            name: name.clone(),
            first_rank: 0,
            ranks: comm.size(),
            start_s,
            end_s: began.elapsed().as_secs_f64(),
        });
        let (model, report) = match done {
            Ok(done) => done,
            Err(error) if is_of_data => {
                made.push(Err(error));
                break;
            }
            Err(error) => return Err(error),
        };
        read_s += report.read_s;
        let n_classes = model.target.n_classes();
        let (wrong, all) = errors(work, &model, &rows, &blocks, &factors, &mut mistakes)?;
        let error = wrong / all;
        let chance = 1.0 - 1.0 / n_classes as f64;
        if error >= chance {
            work.watch.warning(&format!(
                "{name} is no better than chance on the rows as they weigh now (error {error:.4}): adaboost ends before it"
            ));
            if made.is_empty() {
                made.push(Err(Error::data("is no better than chance")));
            }
            break;
        }
        made.push(Ok(Made { model, loss: report.loss, converged: report.converged }));
        if error <= 0.0 {
            // It counts more than all others together.
            let sum = alphas.iter().fold(0.0, |sum, alpha| sum + alpha);
            alphas.push(sum + 1.0);
            work.watch.warning(&format!("{name} mistakes no row: adaboost ends with it"));
            break;
        }
        let alpha = ensemble.member_rate * (libm::log((1.0 - error) / error) + libm::log(n_classes as f64 - 1.0));
        let alpha = libm::rint(alpha * STEPS);
        alphas.push(alpha / STEPS);
        steps.iter_mut().zip(&mistakes).filter(|(_, wrong)| **wrong).for_each(|(step, _)| *step += alpha as i64);
        factors = Arc::new(reweighed(work, &steps, &rows, &blocks)?);
    }
    let kept = trained(made, &names, ensemble.min_members, work.watch)?;
    let member = |((number, made), weight): ((usize, Made), f64)| Member {
        name: names[number].clone(),
        model: made.model,
        columns: None,
        weight,
    };
    let members = kept.into_iter().zip(alphas).map(member).collect();
    Ok(Outcome { members, combine: Combine::Vote, timeline, read_s })
}

/// Σw of the rows that a member mistakes, and of all; marks the mistakes here. Collective.
fn errors(
    work: &mut Work<'_>,
    model: &Model,
    rows: &Range<u64>,
    blocks: &[Range<u64>],
    factors: &[f64],
    mistakes: &mut [bool],
) -> Result<(f64, f64)> {
    let (config, n_classes) = (work.config, model.target.n_classes());
    let hold = held_out(config);
    let is_text = model.preprocess.columns.iter().map(|column| column.is_text()).collect();
    let scorer = MemberScorer::new(model, None, is_text, &model.target)?;
    let mut sums = [ExactSum::new(), ExactSum::new()];
    let passed = for_each_batch(work.source, blocks, work.reading.max_memory, 8 + 2 * n_classes as u64, |batch| {
        let y = code_targets(&model.target, &batch.target, batch.first_row)?;
        let shares = scorer.predictions(batch)?;
        for (i, of_row) in shares.chunks_exact(n_classes).enumerate() {
            let row = batch.first_row + i as u64;
            let here = (row - rows.start) as usize;
            mistakes[here] = most_probable(of_row) != y[i] as usize;
            if hold.is_none_or(|hold| !hold.holds_out(hold_seed(config), row)) {
                let w = batch.weight.as_ref().map_or(1.0, |weight| weight[i]) * factors[here];
                sums[1].add(w);
                if mistakes[here] {
                    sums[0].add(w);
                }
            }
        }
        Ok(())
    });
    work.comm.agree(passed)?;
    let [wrong, all] = sum_scalars(work.comm, &sums)?.map(|sum| sum.value());
    wrong.zip(all).ok_or_else(|| Error::data("weights are not finite"))
}

/// What each row's weight is multiplied by, so that all weigh as much together as they are stored. Collective.
fn reweighed(work: &mut Work<'_>, steps: &[i64], rows: &Range<u64>, blocks: &[Range<u64>]) -> Result<Vec<f64>> {
    let mut most = [steps.iter().copied().max().unwrap_or(i64::MIN)];
    work.comm.all_reduce_max(&mut most)?;
    let mut factors: Vec<f64> = steps.iter().map(|step| libm::exp((step - most[0]) as f64 / STEPS)).collect();
    let (config, hold) = (work.config, held_out(work.config));
    let mut sums = [ExactSum::new(), ExactSum::new()];
    let source = &mut *work.source;
    let passed = blocks.iter().try_for_each(|block| {
        let mut batch = crate::data::Block::empty();
        source.read_labels(block.clone(), &mut batch)?;
        for i in 0..batch.n_rows {
            let row = batch.first_row + i as u64;
            if hold.is_none_or(|hold| !hold.holds_out(hold_seed(config), row)) {
                let w = batch.weight.as_ref().map_or(1.0, |weight| weight[i]);
                sums[0].add(w);
                sums[1].add(w * factors[(row - rows.start) as usize]);
            }
        }
        Ok(())
    });
    work.comm.agree(passed)?;
    let [stored, now] = sum_scalars(work.comm, &sums)?.map(|sum| sum.value());
    let (stored, now) = stored.zip(now).ok_or_else(|| Error::data("weights are not finite"))?;
    let scale = stored / now;
    factors.iter_mut().for_each(|factor| *factor *= scale);
    Ok(factors)
}
