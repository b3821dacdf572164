//! How good each member is, how good they are together, and how much they differ: one pass over the table.

use super::super::evaluate::code_targets;
use super::super::gather::digest_of;
use super::super::measure::{ScoredRows, Show, measure};
use super::super::memory::of_measuring;
use super::super::prepare::agree_digest;
use super::super::score::{Link, for_each_batch};
use super::super::{Kind, Model};
use super::score::{EnsembleScorer, to_scores};
use super::{MemberReport, Work, held_out, hold_seed};
use crate::data::Block;
use crate::data::digest::InputDigest;
use crate::data::partition::{Partition, RowPlan};
use crate::error::{Error, Result};
use crate::metric::Metrics;
use crate::metric::classification::{ClassStats, most_probable};
use crate::metric::regression::RegressionStats;
use crate::model::{Combine, Scores};
use rayon::prelude::*;

/// What the pass found; the same on every rank.
pub(super) struct Measured {
    pub(super) members: Vec<MemberReport>,
    pub(super) metrics: Metrics,
    /// Of the rows that are held out, with the area under the curve. Empty: none are.
    pub(super) valid: Metrics,
    pub(super) disagreement: Option<f64>,
    /// Mean log loss, or half the mean squared error.
    pub(super) loss: f64,
    pub(super) input_digest: InputDigest,
}

impl Measured {
    /// For the model file: one number a member where all have it, or one in all.
    pub(super) fn history(&self) -> Vec<(String, Vec<f64>)> {
        let mut history = Vec::new();
        let names = ["accuracy", "balanced_accuracy", "log_loss", "rmse", "mae", "r2"];
        for name in names {
            let of_members: Option<Vec<f64>> = self.members.iter().map(|member| member.metrics.get(name)).collect();
            history.extend(of_members.map(|values| (format!("member_{name}"), values)));
            history.extend(self.metrics.get(name).map(|value| (format!("ensemble_{name}"), vec![value])));
        }
        history.extend(self.disagreement.map(|share| ("disagreement".to_string(), vec![share])));
        history
    }
}

/// Of predictions that are classes or numbers.
#[derive(Clone)]
enum Stats {
    Classes(Box<ClassStats>),
    Numbers(Box<RegressionStats>),
}

impl Stats {
    fn new(n_classes: usize) -> Stats {
        match n_classes {
            0 => Stats::Numbers(Box::new(RegressionStats::new())),
            _ => Stats::Classes(Box::new(ClassStats::new(n_classes))),
        }
    }

    /// `predictions`: (rows, classes) or (rows).
    fn add(&mut self, y: &[f64], weight: &[f64], predictions: &[f64]) {
        let rows = y.iter().zip(weight);
        match self {
            Stats::Numbers(stats) => rows.zip(predictions).for_each(|((y, w), number)| stats.add(*y, *number, *w)),
            Stats::Classes(stats) => {
                let shares = predictions.chunks_exact(predictions.len().checked_div(y.len()).unwrap_or(1).max(1));
                rows.zip(shares).for_each(|((y, w), shares)| stats.add(*y as usize, shares, *w));
            }
        }
    }

    fn to_words(&self) -> Vec<u64> {
        match self {
            Stats::Classes(stats) => stats.to_words(),
            Stats::Numbers(stats) => stats.to_words(),
        }
    }

    /// Metrics and loss of these words; `has_shares`: shares of classes are more than a choice. None: no row had weight.
    fn finish(n_classes: usize, words: &[u64], has_shares: bool) -> Option<(Metrics, f64, u64)> {
        let mut metrics = Metrics::new();
        if n_classes == 0 {
            let done = RegressionStats::from_words(words).finish()?;
            done.push_to(&mut metrics);
            let rmse = metrics.get("rmse").unwrap_or(f64::NAN);
            return Some((metrics, 0.5 * rmse * rmse, done.n_rows));
        }
        let done = ClassStats::from_words(n_classes, words).finish()?;
        metrics.push("accuracy", done.accuracy);
        metrics.push("balanced_accuracy", done.balanced_accuracy);
        if has_shares {
            metrics.push("log_loss", done.log_loss);
        }
        Some((metrics, done.log_loss, done.n_rows))
    }
}

/// Measures each member and the ensemble on the rows that are held out, or else on those trained on, and hashes the table. Collective.
pub(super) fn measure_members(work: &mut Work<'_>, model: &Model) -> Result<Measured> {
    let Scores::Ensemble(ensemble) = &model.scores else { return Err(Error::internal("no ensemble to measure")) };
    let (comm, config, n_classes) = (work.comm, work.config, model.target.n_classes());
    let scorer = EnsembleScorer::new(ensemble, &model.preprocess.columns, &model.target)?;
    let (n_rows, n_columns) = (model.n_rows, model.preprocess.columns.len());
    let plan = RowPlan::full_batch(n_rows, n_columns);
    let blocks = plan.blocks(Partition::new(plan.n_units(), comm.size()).units_of(comm.rank()));
    let (hold, limit) = (held_out(config), work.reading.max_memory);
    let made = 8 + (n_classes.max(1) * (ensemble.members.len() + 2)) as u64;
    let weight_of = |batch: &Block| -> Vec<f64> {
        let mut weight = batch.weight.clone().unwrap_or_else(|| vec![1.0; batch.n_rows]);
        for (w, row) in weight.iter_mut().zip(batch.first_row..) {
            if hold.is_some_and(|hold| !hold.holds_out(hold_seed(config), row)) {
                *w = 0.0;
            }
        }
        weight
    };

    let mut stats = vec![Stats::new(n_classes); ensemble.members.len() + 1];
    let (mut differing, mut digest) = (0u64, InputDigest::default());
    let passed = for_each_batch(work.source, &blocks, limit, made, |batch| {
        digest.merge(&digest_of(batch));
        let y = code_targets(&model.target, &batch.target, batch.first_row)?;
        let weight = weight_of(batch);
        let mut all = scorer.of_members(batch)?;
        let combined = scorer.combined(batch, &all)?;
        differing = differing.wrapping_add(differing_pairs(&all, &weight, n_classes));
        all.push(combined);
        stats.par_iter_mut().zip(&all).for_each(|(stats, predictions)| stats.add(&y, &weight, predictions));
        Ok(())
    });
    comm.agree(passed)?;
    let mut words: Vec<u64> = stats.iter().flat_map(Stats::to_words).collect();
    words.push(differing);
    comm.all_reduce_sum(&mut words)?;
    let input_digest = agree_digest(comm, &digest)?;

    let differing = words.pop().unwrap_or(0);
    let of_one = words.len() / stats.len();
    let mut done = Vec::with_capacity(stats.len());
    for (i, words) in words.chunks_exact(of_one).enumerate() {
        let has_shares = match ensemble.members.get(i) {
            Some(member) => member.model.responds_as() != Kind::Svm,
            None => !matches!(ensemble.combine, Combine::Vote),
        };
        let none = || {
            Error::data("no row has weight to measure the members on; hold out more, or fewer, with --valid-fraction")
        };
        done.push(Stats::finish(n_classes, words, has_shares).ok_or_else(none)?);
    }
    let (metrics, loss, n_measured) = done.pop().unwrap_or_default();
    let n = ensemble.members.len() as u64;
    let pairs = (n * n.saturating_sub(1) / 2) as f64 * n_measured as f64;
    let disagreement = (n_classes > 0 && n > 1).then(|| differing as f64 / pairs);
    let members = ensemble.members.iter().zip(done);
    let members = members
        .map(|(member, (metrics, ..))| MemberReport {
            name: member.name.clone(),
            kind: member.model.config.kind,
            weight: member.weight,
            metrics,
        })
        .collect();

    let mut valid = Metrics::new();
    if hold.is_some() {
        let source = &mut *work.source;
        let mut pass = |show: &mut Show<'_>| {
            for_each_batch(source, &blocks, limit, made, |batch| {
                let y = code_targets(&model.target, &batch.target, batch.first_row)?;
                let scores = to_scores(scorer.combined(batch, &scorer.of_members(batch)?)?, n_classes);
                show(ScoredRows { y: &y, weight: &weight_of(batch), scores: &scores, variances: &[] });
                Ok(())
            })
        };
        valid = measure(comm, &Link::of(model), limit.map(of_measuring), &mut pass)?.metrics;
    }
    Ok(Measured { members, metrics, valid, disagreement, loss, input_digest })
}

/// Pairs of members that predict different classes, over the rows of weight above 0.
fn differing_pairs(of_members: &[Vec<f64>], weight: &[f64], n_classes: usize) -> u64 {
    if n_classes == 0 {
        return 0;
    }
    let of_row = |row: usize| {
        let mut votes = vec![0u64; n_classes];
        for of_member in of_members {
            votes[most_probable(&of_member[row * n_classes..(row + 1) * n_classes])] += 1;
        }
        let n = of_members.len() as u64;
        (n * n - votes.iter().map(|votes| votes * votes).sum::<u64>()) / 2
    };
    (0..weight.len()).into_par_iter().filter(|row| weight[*row] > 0.0).map(of_row).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_differ_are_counted_as_if_one_by_one() {
        let of = |classes: [usize; 3]| -> Vec<f64> {
            classes.iter().flat_map(|class| (0..3).map(move |c| f64::from(u8::from(c == *class)))).collect()
        };
        let all = [of([0, 1, 2]), of([0, 2, 2]), of([0, 0, 1]), of([0, 2, 2])];
        assert_eq!(differing_pairs(&all, &[1.0, 1.0, 1.0], 3), 5 + 3);
        assert_eq!(differing_pairs(&all, &[1.0, 0.0, 1.0], 3), 3);
    }
}
