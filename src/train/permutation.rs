//! Permutation importance: how much worse a model is when a column's values come from other rows. For any model and table.
//!
//! Which row a value comes from is a function of (seed, repeat, row) and of the table's shape: the whole blocks of
//! [`RowPlan::full_batch`] change places, and the rows of a block too; a last block that is shorter keeps its place. So every row gives
//! its values once, a rank reads one more block for each of its own, and nothing is exchanged but sums. In one repeat all columns
//! come from the same rows, so that columns are compared by the same draws.
//!
//! Source: Fisher, Rudin, Dominici, *All models are wrong, but many are useful*, JMLR 20, 2019; as scikit-learn's
//! `permutation_importance`.

use super::evaluate::{Known, Opened};
use super::memory;
use super::score::Link;
use super::{Inputs, Kind, Model};
use crate::comm::Communicator;
use crate::data::partition::RowPlan;
use crate::data::{Block, ColumnKind, DataSource, Schema, SparseRows, Values};
use crate::error::{Error, InContext, Result};
use crate::exact::ExactSum;
use crate::metric::classification::{most_probable, row_log_loss};
use crate::rng::{Draws, Stream};
use rayon::prelude::*;
use std::ops::Range;

/// How much each column matters; the same on every rank.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Permutation {
    /// What gets worse: `log_loss`, of `svm` `accuracy`, of numbers `rmse`.
    pub metric: &'static str,
    /// Its value with every column in its place.
    pub value: f64,
    /// In the order of the table.
    pub columns: Vec<PermutedColumn>,
}

/// A column whose values came from other rows.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PermutedColumn {
    pub name: String,
    /// Of `worse`.
    pub mean: f64,
    /// Standard deviation of `worse`, around their mean.
    pub std: f64,
    /// By how much the metric was worse, for each repeat: it rose, or the accuracy fell.
    pub worse: Vec<f64>,
}

/// Measures the model on a table whose targets are known, `repeats` times for each column. Collective.
///
/// * `rows`: None for all.
/// * Costs columns × repeats times the scoring of all rows, and 1 + repeats times their reading; memory for two blocks, and for
///   one more on each thread.
///
/// Errors: as [`evaluate`](super::evaluate::evaluate).
pub fn permutation(
    comm: &Communicator,
    model: &Model,
    inputs: &Inputs,
    rows: Option<Range<u64>>,
    repeats: u64,
    seed: u64,
) -> Result<Permutation> {
    if model.target.n_targets() > 1 {
        let why = "worked out for models of one target, and this one predicts several numbers a row; leave it out";
        return Err(Error::usage(why)).for_flag("--permutation");
    }
    let mut opened = Opened::new(comm, model, inputs, rows)?;
    if let Some(bytes) = inputs.reading.max_memory {
        opened.source.limit_memory(memory::of_source(bytes));
    }
    let link = Link::of(model);
    let n_columns = opened.source.schema().columns.len();
    let mut sums = vec![ExactSum::new(); 2 + n_columns * repeats as usize];
    comm.agree(add_blocks(&mut opened, model, &link, repeats, seed, &mut sums))?;
    let mut words: Vec<u64> = sums.iter().flat_map(|sum| sum.to_words()).collect();
    comm.all_reduce_sum(&mut words)?;
    let number = |words: &[u64]| ExactSum::from_words(words).value().unwrap_or(f64::NAN);
    let sums: Vec<f64> = words.chunks_exact(ExactSum::WORDS).map(number).collect();
    let weight = sums[0];
    if weight == 0.0 {
        return Err(Error::data("all rows have weight 0: nothing to measure")).in_file(opened.name);
    }
    let metric = match link.kind {
        Kind::Svm => "accuracy",
        _ if link.n_classes > 0 => "log_loss",
        _ => "rmse",
    };
    let loss = |sum: f64| if metric == "rmse" { libm::sqrt(sum / weight) } else { sum / weight };
    let here = loss(sums[1]);
    let names = opened.source.schema().columns.iter().map(|column| column.name.clone());
    let columns = names.enumerate().map(|(column, name)| {
        let of_column = sums[2..].iter().skip(column).step_by(n_columns);
        let worse: Vec<f64> = of_column.map(|sum| loss(*sum) - here).collect();
        let (mean, std) = mean_and_std(&worse);
        PermutedColumn { name, mean, std, worse }
    });
    let value = if metric == "accuracy" { 1.0 - here } else { here };
    Ok(Permutation { metric, value, columns: columns.collect() })
}

/// Adds Σw, the summed loss with all columns in place, and that of every column of every repeat. Not collective.
fn add_blocks(
    opened: &mut Opened<'_>,
    model: &Model,
    link: &Link,
    repeats: u64,
    seed: u64,
    sums: &mut [ExactSum],
) -> Result<()> {
    let schema = opened.source.schema().clone();
    let donors = Donors::new(&opened.rows, schema.columns.len(), seed, repeats);
    let (mut block, mut other) = (Block::empty(), Block::empty());
    for rows in opened.blocks.clone() {
        opened.source.read(rows.clone(), &mut block)?;
        let known = Known::of(model, &block).in_dataset(&opened.target_path);
        let Known { y, weight } = known.in_file(&opened.name)?;
        weight.iter().for_each(|w| sums[0].add(*w));
        sums[1].merge(&summed_loss(link, &y, &weight, &opened.scorer.scores(&block).in_file(&opened.name)?));
        for repeat in 0..repeats {
            let (from, order) = donors.of(&rows, repeat);
            opened.source.read(from, &mut other)?;
            let scorer = &opened.scorer;
            let of_column = |mixed: &mut Block, column: usize| -> Result<ExactSum> {
                mix(mixed, &block, &other, &schema, column, &order);
                let scores = scorer.scores(mixed);
                restore(mixed, &block, &schema, column);
                Ok(summed_loss(link, &y, &weight, &scores?))
            };
            let columns = (0..schema.columns.len()).into_par_iter();
            let losses: Vec<Result<ExactSum>> = columns.map_init(|| block.clone(), of_column).collect();
            for (column, loss) in losses.into_iter().enumerate() {
                let at = 2 + repeat as usize * schema.columns.len() + column;
                sums[at].merge(&loss.in_file(&opened.name)?);
            }
        }
    }
    Ok(())
}

/// Σ w·loss of some rows: −ln p of the true class, 1 for a wrong class, or the squared error.
fn summed_loss(link: &Link, y: &[f64], weight: &[f64], scores: &[f64]) -> ExactSum {
    let mut sum = ExactSum::new();
    let mut shares = vec![0.0; link.n_classes];
    let rows = y.iter().zip(weight).zip(scores.chunks_exact(link.n_scores()));
    for ((y, w), scores) in rows.filter(|((_, w), _)| **w != 0.0) {
        let loss = if link.n_classes == 0 {
            let error = link.number(scores[0]) - y;
            error * error
        } else {
            link.shares(scores, &mut shares);
            match link.kind {
                Kind::Svm => f64::from(u8::from(most_probable(&shares) != *y as usize)),
                _ => row_log_loss(shares[*y as usize]),
            }
        };
        sum.add_product(*w, loss);
    }
    sum
}

/// Where values come from.
struct Donors {
    first_row: u64,
    block_rows: u64,
    /// For each repeat the place of the block that each whole block gets its values from.
    of_blocks: Vec<Vec<u64>>,
    draws: Draws,
}

impl Donors {
    fn new(rows: &Range<u64>, n_columns: usize, seed: u64, repeats: u64) -> Donors {
        let n_rows = rows.end - rows.start;
        let plan = RowPlan::full_batch(n_rows, n_columns);
        let block_rows = plan.blocks(0..1).first().map_or(n_rows, |block| block.end - block.start);
        let draws = Draws::new(seed, Stream::Permutation);
        let of_blocks = (0..repeats).map(|repeat| order(draws, n_rows / block_rows, repeat, 0)).collect();
        Donors { first_row: rows.start, block_rows, of_blocks, draws }
    }

    /// For the rows of a block: a block of as many rows, and which of them each row gets its value from.
    fn of(&self, rows: &Range<u64>, repeat: u64) -> (Range<u64>, Vec<u64>) {
        let (n_rows, block) = (rows.end - rows.start, (rows.start - self.first_row) / self.block_rows);
        let from = self.of_blocks[repeat as usize].get(block as usize).copied().unwrap_or(block);
        let first = self.first_row + from * self.block_rows;
        (first..first + n_rows, order(self.draws, n_rows, repeat, 1 + block))
    }
}

/// The numbers below n in an order drawn for (repeat, salt).
fn order(draws: Draws, n: u64, repeat: u64, salt: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..n).collect();
    // Fewer than 2³² repeats and 2³² blocks.
    all.sort_by_cached_key(|i| (draws.bits(*i, repeat << 32 | salt), *i));
    all
}

/// The values of a column of `mixed`, which are those of `block`, become those of `other`, row i that of row `order[i]`.
fn mix(mixed: &mut Block, block: &Block, other: &Block, schema: &Schema, column: usize, order: &[u64]) {
    let order = order.iter().map(|row| *row as usize);
    if schema.columns[column].kind == ColumnKind::Text {
        let place = place_of(schema, column);
        mixed.text[place] = order.map(|row| other.text[place][row].clone()).collect();
        return;
    }
    let (place, width) = (place_of(schema, column), schema.n_numeric());
    match (&mut mixed.values, &other.values, &block.values) {
        (Values::F32(mixed), Values::F32(other), _) => {
            order.enumerate().for_each(|(i, row)| mixed[i * width + place] = other[row * width + place]);
        }
        (Values::F64(mixed), Values::F64(other), _) => {
            order.enumerate().for_each(|(i, row)| mixed[i * width + place] = other[row * width + place]);
        }
        (Values::Sparse(mixed), Values::Sparse(other), Values::Sparse(block)) => {
            *mixed = mixed_rows(block, other, place as u32, order);
        }
        _ => unreachable!("blocks of one table hold their values alike"),
    }
}

/// Sparse rows with one column from other rows.
fn mixed_rows(
    block: &SparseRows<f64>,
    other: &SparseRows<f64>,
    place: u32,
    order: impl Iterator<Item = usize>,
) -> SparseRows<f64> {
    let mut mixed = SparseRows::default();
    for (i, row) in order.enumerate() {
        let ((columns, values), (there, from)) = (block.row(i), other.row(row));
        let given = there.binary_search(&place).ok().map(|at| (place, from[at]));
        let own = |range: Range<usize>| columns[range.clone()].iter().copied().zip(values[range].iter().copied());
        let before = columns.partition_point(|column| *column < place);
        let after = columns.partition_point(|column| *column <= place);
        mixed.push_row(own(0..before).chain(given).chain(own(after..columns.len())));
    }
    mixed
}

/// Undoes [`mix`].
fn restore(mixed: &mut Block, block: &Block, schema: &Schema, column: usize) {
    if let (Values::Sparse(mixed), Values::Sparse(block)) = (&mut mixed.values, &block.values) {
        mixed.clone_from(block);
        return;
    }
    let in_place: Vec<u64> = (0..block.n_rows as u64).collect();
    mix(mixed, block, block, schema, column, &in_place);
}

/// The place of a column among those of text, or those of numbers.
fn place_of(schema: &Schema, column: usize) -> usize {
    let is_text = |column: usize| schema.columns[column].kind == ColumnKind::Text;
    (0..column).filter(|before| is_text(*before) == is_text(column)).count()
}

fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let (mut sum, mut squares) = (0.0, 0.0);
    values.iter().for_each(|value| sum += value);
    let mean = sum / n;
    values.iter().for_each(|value| squares += (value - mean) * (value - mean));
    (mean, libm::sqrt(squares / n))
}

#[cfg(test)]
#[path = "permutation_tests.rs"]
mod tests;
