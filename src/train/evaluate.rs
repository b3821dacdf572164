//! How good a model is on a table, exact and global: the same numbers on every rank and for any number of ranks.

use super::linear_family::open;
use super::measure::{Evaluation, ScoredRows, Show, measure};
use super::memory;
use super::score::{Link, Scorer, for_each_batch, rows_of_rank, table_name};
use super::{Inputs, Model, TrainReport, target};
use crate::comm::Communicator;
use crate::data::hdf5::Hdf5Source;
use crate::data::names::Need;
use crate::data::{Block, DataSource, Targets};
use crate::error::{Error, InContext, Result};
use crate::metric::Metrics;
use crate::model::TargetCoding;
use std::ops::Range;

/// What a row takes beside its features and scores, in values of eight bytes: target (as stored and coded), weight, offset.
const ROW_VALUES: u64 = 8;

/// A table that is opened to measure a model on.
pub(super) struct Opened<'m> {
    pub(super) source: Hdf5Source,
    pub(super) scorer: Scorer<'m>,
    /// The rows that are wanted.
    pub(super) rows: Range<u64>,
    /// Those of this rank.
    pub(super) blocks: Vec<Range<u64>>,
    /// Of the table and of its target, for messages.
    pub(super) name: String,
    pub(super) target_path: String,
}

/// What is known of some rows.
pub(super) struct Known {
    /// Class number or value, or (rows, targets).
    pub(super) y: Vec<f64>,
    pub(super) weight: Vec<f64>,
}

impl<'m> Opened<'m> {
    /// Collective. `rows`: None for all. Errors: columns that do not fit the model.
    pub(super) fn new(
        comm: &Communicator,
        model: &'m Model,
        inputs: &Inputs,
        rows: Option<Range<u64>>,
    ) -> Result<Opened<'m>> {
        let source = open(comm, inputs, Need::Evaluate)?;
        let name = table_name(&inputs.paths);
        target::check_number(Some(model.target.n_targets()), source.schema(), source.names()).in_file(&name)?;
        let scorer = Scorer::new(model, &source, &name)?;
        let blocks = rows_of_rank(comm, &source, rows.clone())?;
        let target_name = source.names().target.clone().unwrap_or_default();
        let target_path = source.names().path(&target_name);
        let rows = rows.unwrap_or(0..source.schema().n_rows);
        Ok(Opened { source, scorer, rows, blocks, name, target_path })
    }
}

impl Known {
    /// Of the rows of a block. Not collective. Errors: labels that were not there in training.
    pub(super) fn of(model: &Model, block: &Block) -> Result<Known> {
        let y = code_targets(&model.target, &block.target, block.first_row)?;
        Ok(Known { y, weight: block.weight.clone().unwrap_or_else(|| vec![1.0; block.n_rows]) })
    }
}

/// Measures `model` on the rows of a table whose targets are known. Collective.
///
/// `rows`: None for all. Errors: columns that do not fit the model, labels that were not there in training.
pub fn evaluate(comm: &Communicator, model: &Model, inputs: &Inputs, rows: Option<Range<u64>>) -> Result<Evaluation> {
    let Opened { mut source, scorer, blocks, name, target_path, .. } = Opened::new(comm, model, inputs, rows)?;
    let limit = inputs.reading.max_memory;
    if let Some(bytes) = limit {
        source.limit_memory(memory::of_source(bytes));
    }
    let decoded = match (&inputs.reading.scratch, blocks.first(), blocks.last()) {
        (Some(folder), Some(first), Some(last)) => source.decode_to(folder, first.start..last.end),
        _ => Ok(()),
    };
    comm.agree(decoded)?;
    // Once: only the ranks of classes' scores want a second look.
    let mut pass = |show: &mut Show<'_>| {
        for_each_batch(&mut source, &blocks, limit, ROW_VALUES + model.scores.n_scores() as u64, |batch| {
            let Known { y, weight } = Known::of(model, batch).in_dataset(&target_path).in_file(&name)?;
            let (scores, variances) = scorer.scores_and_variances(batch).in_file(&name)?;
            show(ScoredRows { y: &y, weight: &weight, scores: &scores, variances: &variances });
            Ok(())
        })
    };
    let room = limit.map(memory::of_measuring);
    let measured = measure(comm, &Link::of(model), room, &mut pass)?;
    if measured.rows == 0 {
        return Err(Error::data("all rows have weight 0: nothing to measure")).in_file(name);
    }
    Ok(measured)
}

/// Adds the metrics of one more fold, by name.
pub(super) fn add_fold(folds: &mut Vec<(String, Vec<f64>)>, metrics: &Metrics) {
    for (name, value) in metrics.iter() {
        match folds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => folds.push((name.to_string(), vec![value])),
        }
    }
}

impl TrainReport {
    /// The plain mean over folds of each metric, in the order of the folds.
    pub fn mean_of_folds(&self) -> Metrics {
        let mut means = Metrics::new();
        for (name, values) in &self.folds {
            let mut sum = 0.0;
            values.iter().for_each(|value| sum += value);
            means.push(name.as_str(), sum / values.len() as f64);
        }
        means
    }
}

/// Class numbers (or values) of stored targets.
pub(super) fn code_targets(coding: &TargetCoding, targets: &Targets, first_row: u64) -> Result<Vec<f64>> {
    let unseen = |row: usize, label: &str| {
        let names = coding.names();
        let shown = names.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 10 { ", …" } else { "" };
        Error::data(format!(
            "label '{label}' at row {} does not occur in the training data (its classes: {shown}{more})",
            first_row + row as u64
        ))
    };
    match (coding, targets) {
        (_, Targets::None) => Err(Error::data("has no target; name it with --target")),
        (TargetCoding::Number | TargetCoding::Numbers(_), Targets::Number(values)) => Ok(values.clone()),
        (TargetCoding::Integers(classes), Targets::Number(values)) => {
            let code = |(row, value): (usize, &f64)| {
                let class = classes.binary_search(&(*value as i64)).ok().filter(|_| value.trunc() == *value);
                class.map(|class| class as f64).ok_or_else(|| unseen(row, &value.to_string()))
            };
            values.iter().enumerate().map(code).collect()
        }
        (TargetCoding::Strings(classes), Targets::Text(values)) => {
            let code = |(row, value): (usize, &String)| {
                classes.binary_search(value).map(|class| class as f64).map_err(|_| unseen(row, value))
            };
            values.iter().enumerate().map(code).collect()
        }
        (TargetCoding::Strings(_), Targets::Number(_)) => {
            Err(Error::data("the target holds numbers, but the model was trained on strings"))
        }
        (_, Targets::Text(_)) => Err(Error::data("the target holds strings, but the model was trained on numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unseen_label_is_named_with_its_row() {
        let coding = TargetCoding::Integers(vec![0, 1, 5]);
        assert_eq!(code_targets(&coding, &Targets::Number(vec![5.0, 0.0]), 0), Ok(vec![2.0, 0.0]));
        let message = code_targets(&coding, &Targets::Number(vec![5.0, 3.0]), 100).unwrap_err().to_string();
        assert_eq!(message, "label '3' at row 101 does not occur in the training data (its classes: 0, 1, 5)");
        assert!(code_targets(&coding, &Targets::Number(vec![0.5]), 0).is_err());
        assert!(code_targets(&coding, &Targets::Text(vec!["a".into()]), 0).is_err());
        let strings = TargetCoding::Strings(vec!["a".into(), "b".into()]);
        assert_eq!(code_targets(&strings, &Targets::Text(vec!["b".into()]), 0), Ok(vec![1.0]));
    }
}
