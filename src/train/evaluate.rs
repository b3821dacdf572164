//! How good a model is on a table, exact and global: the same numbers on every rank and for any number of ranks.

use super::linear_family::open;
use super::score::{Link, Scorer, for_each_batch, rows_of_rank, table_name};
use super::{Inputs, Kind, Model, TrainReport};
use crate::comm::Communicator;
use crate::data::Targets;
use crate::data::names::Need;
use crate::error::{Error, InContext, Result};
use crate::metric::Metrics;
use crate::metric::auc::{self, AucRows, ScoreRuns};
use crate::metric::classification::ClassStats;
use crate::metric::regression::RegressionStats;
use crate::model::TargetCoding;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that one task measures.
const TASK_ROWS: usize = 4096;

/// What was measured, over all ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Rows of weight above 0.
    pub rows: u64,
    /// Σ weight.
    pub weight: f64,
    pub metrics: Metrics,
    /// Rows (not weights), `confusion[true][predicted]`; empty for numbers.
    pub confusion: Vec<Vec<u64>>,
}

/// Measures `model` on the rows of a table whose targets are known. Collective.
///
/// `rows`: None for all. Errors: columns that do not fit the model, labels that were not there in training.
pub fn evaluate(comm: &Communicator, model: &Model, inputs: &Inputs, rows: Option<Range<u64>>) -> Result<Evaluation> {
    let mut source = open(comm, inputs, Need::Evaluate)?;
    let name = table_name(&inputs.paths);
    let scorer = Scorer::new(model, &source, &name)?;
    let blocks = rows_of_rank(comm, &source, rows)?;
    let target_name = source.names().target.clone().unwrap_or_default();
    let target_path = source.names().path(&target_name);
    let (mut y, mut weight, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    let read = for_each_batch(&mut source, &blocks, |batch| {
        let coded = code_targets(&model.target, &batch.target, batch.first_row);
        y.extend(coded.in_dataset(&target_path).in_file(&name)?);
        match &batch.weight {
            Some(weights) => weight.extend_from_slice(weights),
            None => weight.resize(weight.len() + batch.n_rows, 1.0),
        }
        scores.extend(scorer.scores(batch).in_file(&name)?);
        Ok(())
    });
    comm.agree(read)?;
    let measured = metrics_of(comm, model.config.kind, model.target.n_classes(), &y, &weight, &scores)?;
    if measured.rows == 0 {
        return Err(Error::data("all rows have weight 0: nothing to measure")).in_file(name);
    }
    Ok(measured)
}

/// Metrics of rows whose scores are in memory. Collective.
///
/// * `y`: class number or value; `weight`: rows of weight 0 are not counted; `scores`: (rows, n_scores), before the
///   inverse link. Ranks may have no rows.
/// * `n_classes`: 0 for numbers.
pub fn metrics_of(
    comm: &Communicator,
    kind: Kind,
    n_classes: usize,
    y: &[f64],
    weight: &[f64],
    scores: &[f64],
) -> Result<Evaluation> {
    let link = Link::new(kind, n_classes);
    assert_eq!((y.len(), scores.len()), (weight.len(), weight.len() * link.n_scores()), "rows of y, weight and scores");
    if n_classes == 0 { numbers(comm, &link, y, weight, scores) } else { classes(comm, &link, y, weight, scores) }
}

fn numbers(comm: &Communicator, link: &Link, y: &[f64], weight: &[f64], scores: &[f64]) -> Result<Evaluation> {
    let stats = tasks(y, weight, scores, 1).fold(RegressionStats::new, |mut stats, (y, weight, scores)| {
        for ((y, w), score) in y.iter().zip(weight).zip(scores) {
            stats.add(*y, link.number(*score), *w);
        }
        stats
    });
    let merge = |mut a: RegressionStats, b: RegressionStats| {
        a.merge(&b);
        a
    };
    let mut words = stats.reduce(RegressionStats::new, merge).to_words();
    comm.all_reduce_sum(&mut words)?;
    let Some(done) = RegressionStats::from_words(&words).finish() else {
        return Ok(Evaluation::default());
    };
    let mut metrics = Metrics::new();
    done.push_to(&mut metrics);
    if link.kind == Kind::Poisson {
        done.push_poisson_to(&mut metrics);
    }
    Ok(Evaluation { rows: done.n_rows, weight: done.weight, metrics, confusion: Vec::new() })
}

fn classes(comm: &Communicator, link: &Link, y: &[f64], weight: &[f64], scores: &[f64]) -> Result<Evaluation> {
    let (k, n_classes) = (link.n_scores(), link.n_classes);
    let new = || ClassStats::new(n_classes);
    let stats = tasks(y, weight, scores, k).fold(new, |mut stats, (y, weight, scores)| {
        let mut shares = vec![0.0; n_classes];
        for ((y, w), scores) in y.iter().zip(weight).zip(scores.chunks_exact(k)) {
            link.shares(scores, &mut shares);
            stats.add(*y as usize, &shares, *w);
        }
        stats
    });
    let merge = |mut a: ClassStats, b: ClassStats| {
        a.merge(&b);
        a
    };
    let mut words = stats.reduce(new, merge).to_words();
    comm.all_reduce_sum(&mut words)?;
    let Some(done) = ClassStats::from_words(n_classes, &words).finish() else {
        return Ok(Evaluation::default());
    };
    let mut metrics = Metrics::new();
    metrics.push("accuracy", done.accuracy);
    metrics.push("balanced_accuracy", done.balanced_accuracy);
    if link.kind == Kind::Logistic {
        metrics.push("log_loss", done.log_loss);
    }
    let mut weighted = [i64::from(weight.iter().any(|w| *w != 0.0 && *w != 1.0))];
    comm.all_reduce_max(&mut weighted)?;
    let scale = auc::weight_scale(weighted[0] != 0, done.weight);
    metrics.push_option("auc", area(comm, link, y, weight, scores, scale)?);
    Ok(Evaluation { rows: done.n_rows, weight: done.weight, metrics, confusion: done.confusion })
}

/// Area under the ROC curve: of class 1 when there are two, else the mean over classes, each against the rest. Collective.
fn area(
    comm: &Communicator,
    link: &Link,
    y: &[f64],
    weight: &[f64],
    scores: &[f64],
    scale: i32,
) -> Result<Option<f64>> {
    let k = link.n_scores();
    if link.n_classes == 2 {
        let mut rows = AucRows::new();
        for ((y, w), score) in y.iter().zip(weight).zip(scores) {
            rows.add(*score, *y == 1.0, *w);
        }
        return area_of_runs(comm, &rows.into_runs(scale));
    }
    let mut shares = vec![0.0; scores.len()];
    let link_rows = |(shares, scores): (&mut [f64], &[f64])| link.shares(scores, shares);
    shares.par_chunks_mut(k).zip(scores.par_chunks(k)).with_min_len(TASK_ROWS).for_each(link_rows);
    let ranked = if link.kind == Kind::Logistic { &shares[..] } else { scores };
    let mut of_classes = Vec::with_capacity(link.n_classes);
    for class in 0..link.n_classes {
        let mut rows = AucRows::new();
        for ((y, w), ranked) in y.iter().zip(weight).zip(ranked.chunks_exact(k)) {
            rows.add(ranked[class], *y == class as f64, *w);
        }
        of_classes.push(area_of_runs(comm, &rows.into_runs(scale))?);
    }
    Ok(auc::macro_average(&of_classes))
}

/// Each rank's runs are shown to all in turn; what everybody counts against them is added. Collective.
fn area_of_runs(comm: &Communicator, mine: &ScoreRuns) -> Result<Option<f64>> {
    let mut pairs = 0u128;
    for rank in 0..comm.size() {
        let mut words = if rank == comm.rank() { mine.to_words() } else { Vec::new() };
        comm.broadcast_vec(&mut words, rank)?;
        pairs += auc::pairs_below(mine, &ScoreRuns::from_words(&words));
    }
    let (positive, negative) = mine.weights();
    let mut sums = auc::pairs_to_words(pairs).to_vec();
    sums.extend([positive, negative, mine.n_not_numbers()]);
    comm.all_reduce_sum(&mut sums)?;
    if sums[6] > 0 {
        return Ok(None);
    }
    Ok(auc::finish(auc::pairs_from_words(&sums[..4]), sums[4], sums[5]))
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

type Rows<'a> = (&'a [f64], &'a [f64], &'a [f64]);

/// Runs of rows for rayon; statistics merge in integers, so their order leaves no trace.
fn tasks<'a>(y: &'a [f64], weight: &'a [f64], scores: &'a [f64], k: usize) -> impl ParallelIterator<Item = Rows<'a>> {
    let pairs = y.par_chunks(TASK_ROWS).zip(weight.par_chunks(TASK_ROWS)).zip(scores.par_chunks(TASK_ROWS * k));
    pairs.map(|((y, weight), scores)| (y, weight, scores))
}

/// Class numbers (or values) of stored targets.
fn code_targets(coding: &TargetCoding, targets: &Targets, first_row: u64) -> Result<Vec<f64>> {
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
        (TargetCoding::Number, Targets::Number(values)) => Ok(values.clone()),
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
    use crate::comm::run_threads;
    use crate::rng::{Draws, Stream};

    fn table(n: usize, n_classes: u64, k: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let draws = Draws::new(3, Stream::Synthetic);
        let y: Vec<f64> = (0..n).map(|i| draws.below(n_classes, i as u64, 0) as f64).collect();
        let weight = (0..n).map(|i| if i % 13 == 0 { 0.0 } else { 0.25 + draws.uniform(i as u64, 1) }).collect();
        let scores = (0..n * k).map(|i| y[i / k] * 0.3 + draws.normal(i as u64, 2)).collect();
        (y, weight, scores)
    }

    #[test]
    fn any_number_of_ranks_measures_the_same_bits() {
        for (kind, n_classes, k) in [
            (Kind::Logistic, 2, 1),
            (Kind::Logistic, 3, 3),
            (Kind::Svm, 2, 1),
            (Kind::Svm, 4, 4),
            (Kind::Linear, 0, 1),
            (Kind::Poisson, 0, 1),
        ] {
            let (y, weight, scores) = table(1_009, n_classes.max(2) as u64, k);
            let alone = metrics_of(&Communicator::solo(), kind, n_classes, &y, &weight, &scores).unwrap();
            assert!(alone.rows > 900 && !alone.metrics.is_empty());
            for size in [2, 3, 7] {
                let part = |comm: &Communicator| {
                    // Rank 1 has no rows.
                    let bound = |rank: usize| if rank == 1 { 0 } else { 1_009 * rank / size };
                    let first = if comm.rank() == 1 { 0 } else { bound(comm.rank()) };
                    let end = match comm.rank() {
                        0 if size == 2 => 1_009,
                        0 => 1_009 * 2 / size,
                        1 => 0,
                        rank => 1_009 * (rank + 1) / size,
                    };
                    metrics_of(comm, kind, n_classes, &y[first..end], &weight[first..end], &scores[first * k..end * k])
                };
                for of_rank in run_threads(size, 2, part).unwrap() {
                    assert_eq!(of_rank, alone, "{kind:?}, {n_classes} classes, {size} ranks");
                }
            }
        }
    }

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
