//! Metrics of rows that are shown run by run: exact and global, the same numbers on every rank, for any number of ranks and in
//! any memory.

use super::Kind;
use super::score::Link;
use crate::comm::Communicator;
use crate::error::Result;
use crate::metric::Metrics;
use crate::metric::auc::{self, PairCount, ScoreRows, ScoreRuns};
use crate::metric::calibration::{CalibrationStats, ReliabilityBin};
use crate::metric::classification::ClassStats;
use crate::metric::regression::RegressionStats;
use rayon::prelude::*;
use std::ops::RangeInclusive;

/// Rows that one task measures.
const TASK_ROWS: usize = 4096;
/// Negative rows that are broadcast together.
const PIECE_ROWS: usize = 1 << 16;

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
    /// Rows by predicted probability; empty for numbers and for classes without probabilities.
    pub reliability: Vec<ReliabilityBin>,
}

/// Some rows whose scores are known.
#[derive(Clone, Copy)]
pub struct ScoredRows<'a> {
    /// Class number or value, or (rows, targets).
    pub y: &'a [f64],
    /// Rows of weight 0 are not counted.
    pub weight: &'a [f64],
    /// (rows, n_scores), before the inverse link.
    pub scores: &'a [f64],
    /// (rows): of the density whose mean the score is; empty where the [link](Link::has_variance) knows of none.
    pub variances: &'a [f64],
}

/// Sees some rows.
pub type Show<'s> = dyn FnMut(ScoredRows<'_>) + Send + 's;

/// Shows all rows of this rank, some at a time, the same ones every time it is called. It does not talk.
pub type Pass<'p> = dyn FnMut(&mut Show<'_>) -> Result<()> + 'p;

/// Metrics of the rows that `pass` shows. Collective. Ranks may have no rows.
///
/// * `link`: of their scores.
/// * `room`: bytes of scores that may be held. Where more are needed, rows are shown again: for the area under the ROC curve of
///   each class at least once, and once for each part of the range of scores that fits.
pub fn measure(comm: &Communicator, link: &Link, room: Option<u64>, pass: &mut Pass<'_>) -> Result<Evaluation> {
    let room = room.map_or(usize::MAX, |bytes| bytes as usize);
    if link.n_classes == 0 { numbers(comm, link, pass) } else { classes(comm, link, room, pass) }
}

fn numbers(comm: &Communicator, link: &Link, pass: &mut Pass<'_>) -> Result<Evaluation> {
    let n_targets = link.n_targets;
    let new = || vec![RegressionStats::new(); n_targets];
    let merge = |stats: &mut Vec<RegressionStats>, more: &[RegressionStats]| {
        stats.iter_mut().zip(more).for_each(|(stats, more)| stats.merge(more));
    };
    let mut stats = new();
    let shown = pass(&mut |rows| {
        let of_rows = tasks(rows, n_targets, n_targets).fold(new, |mut stats, rows| {
            let scores = rows.scores.chunks_exact(n_targets);
            for ((y, w), scores) in rows.y.chunks_exact(n_targets).zip(rows.weight).zip(scores) {
                for (stats, (y, score)) in stats.iter_mut().zip(y.iter().zip(scores)) {
                    stats.add(*y, link.number(*score), *w);
                }
            }
            let densities = rows.scores.iter().zip(rows.variances);
            for ((y, w), (mean, variance)) in rows.y.iter().zip(rows.weight).zip(densities) {
                stats[0].add_density(*y, [*mean, *variance], *w);
            }
            stats
        });
        let of_rows = of_rows.reduce(new, |mut a, b| {
            merge(&mut a, &b);
            a
        });
        merge(&mut stats, &of_rows);
    });
    comm.agree(shown)?;
    let mut words: Vec<u64> = stats.iter().flat_map(RegressionStats::to_words).collect();
    comm.all_reduce_sum(&mut words)?;
    let of_target = words.chunks_exact(words.len() / n_targets);
    let Some(done) = of_target.map(|words| RegressionStats::from_words(words).finish()).collect::<Option<Vec<_>>>()
    else {
        return Ok(Evaluation::default());
    };
    let metrics = mean_of_targets(done.iter().map(|of_target| {
        let mut metrics = Metrics::new();
        of_target.push_to(&mut metrics);
        if link.kind == Kind::Poisson {
            of_target.push_poisson_to(&mut metrics);
        }
        if link.has_variance {
            of_target.push_gaussian_to(&mut metrics);
        }
        metrics
    }));
    Ok(Evaluation { rows: done[0].n_rows, weight: done[0].weight, metrics, ..Evaluation::default() })
}

/// The plain mean of each metric over the targets: of one target what it has.
fn mean_of_targets(of_targets: impl Iterator<Item = Metrics>) -> Metrics {
    let mut sums: Vec<(String, f64, f64)> = Vec::new();
    for metrics in of_targets {
        for (name, value) in metrics.iter() {
            match sums.iter_mut().find(|(known, ..)| known == name) {
                Some((_, sum, n)) => (*sum, *n) = (*sum + value, *n + 1.0),
                None => sums.push((name.to_string(), value, 1.0)),
            }
        }
    }
    let mut means = Metrics::new();
    sums.into_iter().for_each(|(name, sum, n)| means.push(name, sum / n));
    means
}

fn classes(comm: &Communicator, link: &Link, room: usize, pass: &mut Pass<'_>) -> Result<Evaluation> {
    let n_classes = link.n_classes;
    let mut stats = Stats::new(n_classes);
    let mut held = Held::new(link, room);
    let mut weighted = false;
    let shown = pass(&mut |rows| {
        stats.merge(&stats_of(link, rows));
        weighted |= rows.weight.iter().any(|w| *w != 0.0 && *w != 1.0);
        held.add(link, rows);
    });
    comm.agree(shown)?;
    let (mut words, of_calibration) = (stats.classes.to_words(), stats.calibration.to_words());
    words.extend(of_calibration);
    comm.all_reduce_sum(&mut words)?;
    let (words, of_calibration) = words.split_at(words.len() - CalibrationStats::WORDS);
    let Some(done) = ClassStats::from_words(n_classes, words).finish() else {
        return Ok(Evaluation::default());
    };
    let mut metrics = Metrics::new();
    metrics.push("accuracy", done.accuracy);
    metrics.push("balanced_accuracy", done.balanced_accuracy);
    let mut reliability = Vec::new();
    if link.kind == Kind::Logistic {
        metrics.push("log_loss", done.log_loss);
        if let Some(calibration) = CalibrationStats::from_words(of_calibration).finish() {
            calibration.push_to(&mut metrics);
            reliability = calibration.bins;
        }
    }
    let scale = auc::weight_scale(comm.agree_any(weighted)?, done.weight);
    let is_held = !comm.agree_any(held.is_too_much)?;
    let mut of_classes = Vec::new();
    for ranked in 0..held.n_ranked {
        let mut show = |each: &mut EachScore<'_>| match is_held {
            true => {
                held.each(ranked, each);
                Ok(())
            }
            false => {
                pass(&mut |rows| each_ranked(link, rows, |y, w, scores| each(scores[ranked], held.is_of(ranked, y), w)))
            }
        };
        of_classes.push(area(comm, scale, if is_held { usize::MAX } else { room / ROW_BYTES }, &mut show)?);
    }
    metrics.push_option("auc", auc::macro_average(&of_classes));
    Ok(Evaluation { rows: done.n_rows, weight: done.weight, metrics, confusion: done.confusion, reliability })
}

/// What classes and their probabilities are measured by.
#[derive(Clone)]
struct Stats {
    classes: ClassStats,
    /// Without rows where there are no probabilities.
    calibration: CalibrationStats,
}

impl Stats {
    fn new(n_classes: usize) -> Stats {
        Stats { classes: ClassStats::new(n_classes), calibration: CalibrationStats::new() }
    }

    fn merge(&mut self, other: &Stats) {
        self.classes.merge(&other.classes);
        self.calibration.merge(&other.calibration);
    }
}

fn stats_of(link: &Link, rows: ScoredRows<'_>) -> Stats {
    let (k, n_classes) = (link.n_scores(), link.n_classes);
    let new = || Stats::new(n_classes);
    let stats = tasks(rows, 1, k).fold(new, |mut stats, rows| {
        let mut shares = vec![0.0; n_classes];
        for ((y, w), scores) in rows.y.iter().zip(rows.weight).zip(rows.scores.chunks_exact(k)) {
            link.shares(scores, &mut shares);
            stats.classes.add(*y as usize, &shares, *w);
            if link.kind == Kind::Logistic {
                stats.calibration.add(*y as usize, &shares, *w);
            }
        }
        stats
    });
    stats.reduce(new, |mut a, b| {
        a.merge(&b);
        a
    })
}

/// Calls `each` with class, weight and what rows are ranked by: the one score of two classes, else a number for each class.
fn each_ranked(link: &Link, rows: ScoredRows<'_>, mut each: impl FnMut(f64, f64, &[f64])) {
    let k = link.n_scores();
    let mut shares = Vec::new();
    let ranked = match link.kind {
        Kind::Logistic if link.n_classes > 2 => {
            shares.resize(rows.scores.len(), 0.0);
            let link_rows = |(shares, scores): (&mut [f64], &[f64])| link.shares(scores, shares);
            shares.par_chunks_mut(k).zip(rows.scores.par_chunks(k)).with_min_len(TASK_ROWS).for_each(link_rows);
            &shares[..]
        }
        _ => rows.scores,
    };
    for ((y, w), ranked) in rows.y.iter().zip(rows.weight).zip(ranked.chunks_exact(k)) {
        each(*y, *w, ranked);
    }
}

/// Sees a row's score, whether it is positive, and its weight.
type EachScore<'e> = dyn FnMut(f64, bool, f64) + Send + 'e;

/// Bytes of a row of [`ScoreRows`].
const ROW_BYTES: usize = 16;

/// The rows of a rank as long as there is room for them.
struct Held {
    y: Vec<u32>,
    weight: Vec<f64>,
    /// (rows, n_ranked)
    ranked: Vec<f64>,
    /// Numbers that rows are ranked by: one area under a curve each.
    n_ranked: usize,
    most_rows: usize,
    is_bounded: bool,
    is_too_much: bool,
}

impl Held {
    fn new(link: &Link, room: usize) -> Held {
        let n_ranked = if link.n_classes == 2 { 1 } else { link.n_scores() };
        // Beside them, one class at a time, their order.
        let most_rows = room / (12 + 8 * n_ranked + ROW_BYTES);
        let (y, weight, ranked) = Default::default();
        Held { y, weight, ranked, n_ranked, most_rows, is_bounded: room < usize::MAX, is_too_much: false }
    }

    fn add(&mut self, link: &Link, rows: ScoredRows<'_>) {
        self.is_too_much |= rows.y.len() > self.most_rows - self.y.len();
        if self.is_too_much {
            (self.y, self.weight, self.ranked) = Default::default();
            return;
        }
        if self.is_bounded && self.y.capacity() == 0 {
            // What grows by doubling would take twice the room; pages that are not used take none.
            self.y.reserve_exact(self.most_rows);
            self.weight.reserve_exact(self.most_rows);
            self.ranked.reserve_exact(self.most_rows * self.n_ranked);
        }
        each_ranked(link, rows, |y, w, ranked| {
            self.y.push(y as u32);
            self.weight.push(w);
            self.ranked.extend_from_slice(ranked);
        });
    }

    /// Whether a row of class `y` counts as positive.
    fn is_of(&self, ranked: usize, y: f64) -> bool {
        // Of two classes the score is that of class 1.
        y as usize == if self.n_ranked == 1 { 1 } else { ranked }
    }

    /// Score, side and weight of every row.
    fn each(&self, ranked: usize, each: &mut EachScore<'_>) {
        for ((y, w), scores) in self.y.iter().zip(&self.weight).zip(self.ranked.chunks_exact(self.n_ranked)) {
            each(scores[ranked], self.is_of(ranked, f64::from(*y)), *w);
        }
    }
}

/// Area under the ROC curve of rows that `show` shows as (score, is positive, weight): counted range of scores by range of
/// scores, each of at most `room` rows on any rank. Collective.
fn area(
    comm: &Communicator,
    scale: i32,
    room: usize,
    show: &mut dyn FnMut(&mut EachScore<'_>) -> Result<()>,
) -> Result<Option<f64>> {
    let (mut pairs, mut positive, mut negative) = (0u128, 0u64, 0u64);
    // The lowest is last.
    let mut ranges: Vec<RangeInclusive<i64>> = vec![auc::EVERY_KEY];
    while let Some(keys) = ranges.pop() {
        let mut rows = ScoreRows::new(keys.clone(), scale, room);
        let shown = show(&mut |score, is_positive, weight| rows.add(score, is_positive, weight));
        comm.agree(shown)?;
        if comm.agree_any(rows.is_too_many())? {
            let mut parts = rows.parts().to_vec();
            comm.all_reduce_max(&mut parts)?;
            ranges.extend(ScoreRows::split(&keys, &parts, room).into_iter().rev());
            continue;
        }
        let of_range = pairs_of(comm, &rows.into_runs())?;
        if of_range.n_not_numbers > 0 {
            return Ok(None);
        }
        pairs += of_range.pairs + 2 * u128::from(of_range.positive) * u128::from(negative);
        positive += of_range.positive;
        negative += of_range.negative;
    }
    Ok(auc::finish(pairs, positive, negative))
}

/// Sums over all ranks.
struct Pairs {
    pairs: u128,
    positive: u64,
    negative: u64,
    n_not_numbers: u64,
}

/// Each rank's negatives are shown to all in turn; what everybody counts against them is added. Collective.
fn pairs_of(comm: &Communicator, mine: &ScoreRuns) -> Result<Pairs> {
    let mut pairs = 0u128;
    for rank in 0..comm.size() {
        let (mut count, mut at) = (PairCount::new(mine), 0);
        loop {
            let mut words = if rank == comm.rank() { mine.negatives(&mut at, PIECE_ROWS) } else { Vec::new() };
            comm.broadcast_vec(&mut words, rank)?;
            if words.is_empty() {
                break;
            }
            count.add(&words);
        }
        pairs += count.finish();
    }
    let (positive, negative) = mine.weights();
    let mut sums = auc::pairs_to_words(pairs).to_vec();
    sums.extend([positive, negative, mine.n_not_numbers()]);
    comm.all_reduce_sum(&mut sums)?;
    Ok(Pairs { pairs: auc::pairs_from_words(&sums[..4]), positive: sums[4], negative: sums[5], n_not_numbers: sums[6] })
}

/// Runs of rows for rayon; statistics merge in integers, so their order leaves no trace.
///
/// * `n_targets`, `k`: targets and scores of each row.
fn tasks(rows: ScoredRows<'_>, n_targets: usize, k: usize) -> impl ParallelIterator<Item = ScoredRows<'_>> {
    let n_rows = rows.weight.len();
    assert_eq!((rows.y.len(), rows.scores.len()), (n_rows * n_targets, n_rows * k), "y and scores of {n_rows} rows");
    assert!(rows.variances.is_empty() || rows.variances.len() == n_rows, "variances of {n_rows} rows");
    let scores = rows.scores.par_chunks(TASK_ROWS * k);
    let parts = rows.y.par_chunks(TASK_ROWS * n_targets).zip(rows.weight.par_chunks(TASK_ROWS)).zip(scores).enumerate();
    parts.map(move |(task, ((y, weight), scores))| {
        let variances = rows.variances.chunks(TASK_ROWS).nth(task).unwrap_or_default();
        ScoredRows { y, weight, scores, variances }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;
    use crate::rng::{Draws, Stream};
    use std::ops::Range;

    struct Rows {
        y: Vec<f64>,
        weight: Vec<f64>,
        scores: Vec<f64>,
    }

    fn table(n: usize, n_classes: u64, k: usize) -> Rows {
        let draws = Draws::new(3, Stream::Synthetic);
        let y: Vec<f64> = (0..n).map(|i| draws.below(n_classes, i as u64, 0) as f64).collect();
        let weight = (0..n).map(|i| if i % 13 == 0 { 0.0 } else { 0.25 + draws.uniform(i as u64, 1) }).collect();
        let scores = (0..n * k).map(|i| y[i / k] * 0.3 + draws.normal(i as u64, 2)).collect();
        Rows { y, weight, scores }
    }

    const CASES: [(Kind, usize, usize); 7] = [
        (Kind::Logistic, 12, 12),
        (Kind::Logistic, 2, 1),
        (Kind::Logistic, 3, 3),
        (Kind::Svm, 2, 1),
        (Kind::Svm, 4, 4),
        (Kind::Linear, 0, 1),
        (Kind::Poisson, 0, 1),
    ];

    /// The rows `range`, shown `step` at a time; also how often.
    fn measured(
        comm: &Communicator,
        (kind, n_classes, k): (Kind, usize, usize),
        rows: &Rows,
        range: Range<usize>,
        step: usize,
        room: Option<u64>,
    ) -> Result<(Evaluation, usize)> {
        let (mut n_passes, has_variance) = (0, kind == Kind::Linear);
        let mut pass = |show: &mut Show<'_>| {
            n_passes += 1;
            for first in range.clone().step_by(step) {
                let rows_here = first..(first + step).min(range.end);
                let scores = &rows.scores[rows_here.start * k..rows_here.end * k];
                let variances: Vec<f64> =
                    scores.iter().filter(|_| has_variance).map(|score| variance(*score)).collect();
                show(ScoredRows {
                    y: &rows.y[rows_here.clone()],
                    weight: &rows.weight[rows_here.clone()],
                    scores,
                    variances: &variances,
                });
            }
            Ok(())
        };
        let link = Link::new(kind, n_classes).with_variance(has_variance);
        measure(comm, &link, room, &mut pass).map(|evaluation| (evaluation, n_passes))
    }

    /// Of the density around a score of numbers.
    fn variance(score: f64) -> f64 {
        0.25 + score * score
    }

    #[test]
    fn the_likelihood_of_densities_is_the_mean_over_rows() {
        let rows = table(9_001, 2, 1); // three tasks
        let (mut nll, mut total) = (0.0, 0.0);
        for ((y, w), score) in rows.y.iter().zip(&rows.weight).zip(&rows.scores) {
            let variance = variance(*score);
            nll += w * 0.5 * (libm::log(std::f64::consts::TAU * variance) + (y - score) * (y - score) / variance);
            total += w;
        }
        let (of_densities, _) =
            measured(&Communicator::solo(), (Kind::Linear, 0, 1), &rows, 0..9_001, 9_001, None).unwrap();
        approx::assert_relative_eq!(
            of_densities.metrics.get("gaussian_nll").unwrap(),
            nll / total,
            max_relative = 1e-12
        );
        let (of_means, _) =
            measured(&Communicator::solo(), (Kind::Poisson, 0, 1), &rows, 0..9_001, 9_001, None).unwrap();
        assert_eq!(of_means.metrics.get("gaussian_nll"), None);
    }

    #[test]
    fn any_number_of_ranks_measures_the_same_bits_in_any_room() {
        for case in CASES {
            let rows = table(1_009, case.1.max(2) as u64, case.2);
            let (alone, n_passes) = measured(&Communicator::solo(), case, &rows, 0..1_009, 1_009, None).unwrap();
            assert!(alone.rows > 900 && !alone.metrics.is_empty() && n_passes == 1);
            for (size, room) in [(1, Some(4_000)), (2, None), (3, None), (7, None), (2, Some(4_000)), (3, Some(1_500))]
            {
                let part = |comm: &Communicator| {
                    // Rank 1 has no rows.
                    let bound = |rank: usize| if rank == 1 { 0 } else { 1_009 * rank / size };
                    let (first, end) = match comm.rank() {
                        0 if size <= 2 => (0, 1_009),
                        0 => (0, 1_009 * 2 / size),
                        1 => (0, 0),
                        rank => (bound(rank), 1_009 * (rank + 1) / size),
                    };
                    measured(comm, case, &rows, first..end, 100, room)
                };
                for of_rank in run_threads(size, 2, part).unwrap() {
                    let (evaluation, n_passes) = of_rank;
                    assert_eq!(evaluation, alone, "{case:?}, {size} ranks, {room:?}");
                    assert_eq!(n_passes > 1, room.is_some() && case.1 > 0, "{case:?}, {size} ranks, {room:?}");
                }
            }
        }
    }

    #[test]
    fn rows_that_cannot_be_shown_end_on_all_ranks() {
        let failed = run_threads(3, 1, |comm: &Communicator| {
            let mut pass = |_: &mut Show<'_>| match comm.rank() {
                1 => Err(crate::error::Error::data("torn")),
                _ => Ok(()),
            };
            let of_rank = measure(comm, &Link::new(Kind::Logistic, 2), None, &mut pass);
            Ok(of_rank.map(|_| ()).map_err(|e| e.to_string()))
        });
        for of_rank in failed.unwrap() {
            assert!(of_rank.unwrap_err().contains("torn"));
        }
    }
}
