//! Bags: one trainer many times, each on rows and columns of its own.
//!
//! With scope `global` a member sees all rows, weighed by how often they were drawn. With scope `local` it sees one run of the rows, and
//! one rank trains it: only members travel. Source: Breiman, *Bagging predictors*, Machine Learning 1996; columns: Ho, *The random
//! subspace method*, IEEE PAMI 1998; members of runs of rows: Chan and Stolfo, *Meta-learning for multistrategy and parallel learning*,
//! 1993.

use super::super::Kind;
use super::super::TrainConfig;
use super::super::linear_family::train_source;
use super::super::score::for_each_batch;
use super::super::target::{self, Seen};
use super::deal::{Task, cost, deal};
use super::view::{View, Weighing, sampled_columns};
use super::{Outcome, Work, member_seed, trained, without_held_out};
use crate::config::{BootstrapKind, Scope, Voting};
use crate::data::partition::{Partition, RowPlan};
use crate::error::{Error, Result};
use crate::model::{Combine, Member, TargetCoding};

/// Trains the members of a bag. Collective.
pub(super) fn train(work: &mut Work<'_>) -> Result<Outcome> {
    let (config, ensemble) = (work.config, work.ensemble);
    let learner = ensemble.learner.as_ref().ok_or_else(|| Error::internal("a bag without a learner"))?;
    let schema = work.source.schema().clone();
    let (n_rows, n_columns) = (schema.n_rows, schema.columns.len());
    let is_local = ensemble.scope == Scope::Local;
    let lanes = RowPlan::lanes(n_rows, n_columns, ensemble.members);
    let rows_of = |member: u64| if is_local { lanes.lane_rows(member) } else { 0..n_rows };
    let columns_of = |member: u64| {
        (ensemble.member_columns < 1.0)
            .then(|| sampled_columns(n_columns, ensemble.member_columns, config.seed, member))
    };
    let names: Vec<String> = ensemble.all_members().into_iter().map(|(name, _)| name).collect();
    let n_seen = columns_of(0).map_or(n_columns, |columns| columns.len());
    let task = |(member, name): (usize, &String)| {
        let rows = rows_of(member as u64);
        Task { name: name.clone(), cost: cost(learner, rows.end - rows.start, n_seen) }
    };
    let tasks: Vec<Task> = names.iter().enumerate().map(task).collect();

    let (source, table_names, reading) = (&mut *work.source, work.names, work.reading);
    let dealt = deal(work.comm, &tasks, is_local, work.watch, &mut |group, task, watch| {
        let member = task as u64;
        let rows = rows_of(member);
        if rows.is_empty() {
            return Err(Error::data(format!(
                "no row is in its run of the {n_rows}: there are more members than runs of 16 rows"
            )));
        }
        let mut weighings = without_held_out(config);
        let (seed, share) = (config.seed, ensemble.member_rows);
        match ensemble.bootstrap {
            BootstrapKind::Poisson | BootstrapKind::Auto => {
                weighings.push(Weighing::Bootstrap { seed, member, mean: share })
            }
            BootstrapKind::None if share < 1.0 => weighings.push(Weighing::Sample { seed, member, share }),
            BootstrapKind::None => {}
        }
        let mut view = View::new(&mut *source, weighings).with_rows(rows);
        if let Some(columns) = columns_of(member) {
            view = view.with_columns(columns);
        }
        let learner = TrainConfig { seed: member_seed(config.seed, member), ..learner.clone() };
        train_source(group, &mut view, table_names, &learner, reading, watch)
    })?;
    let kept = trained(dealt.made, &names, ensemble.min_members, work.watch)?;
    let member = |(number, made): (usize, super::Made)| Member {
        name: names[number].clone(),
        model: made.model,
        columns: columns_of(number as u64).map(|columns| columns.into_iter().map(|column| column as u32).collect()),
        weight: 1.0,
    };
    let members: Vec<Member> = kept.into_iter().map(member).collect();
    let combine = if ensemble.voting == Voting::Hard { Combine::Vote } else { Combine::Mean };
    Ok(Outcome { members, combine, timeline: dealt.timeline, read_s: dealt.read_s })
}

/// The classes of the whole table, of which a run of the rows may have some only. Collective.
pub(super) fn classes(work: &mut Work<'_>) -> Result<Option<TargetCoding>> {
    if work.ensemble.has_classes() == Some(false) {
        return Ok(Some(TargetCoding::Number));
    }
    let schema = work.source.schema().clone();
    let plan = RowPlan::full_batch(schema.n_rows, schema.columns.len());
    let blocks = plan.blocks(Partition::new(plan.n_units(), work.comm.size()).units_of(work.comm.rank()));
    let mut seen = Seen::default();
    let looked =
        for_each_batch(work.source, &blocks, work.reading.max_memory, 4, |batch| seen.add(Kind::Logistic, batch));
    work.comm.agree(looked)?;
    target::agree(work.comm, Kind::Logistic, schema.target, &seen).map(Some)
}
