//! Targets as an objective wants them: classes that all ranks number alike, or numbers; and what they sum to.

use super::Kind;
use super::categories::union_of_strings;
use super::sums::sum_scalars;
use super::table::Table;
use crate::comm::Communicator;
use crate::data::names::TableNames;
use crate::data::{Block, Schema, TargetKind, Targets};
use crate::error::{Error, InContext, Result};
use crate::exact::ExactSum;
use crate::model::TargetCoding;
use std::collections::BTreeSet;

/// Weights of rows on average, and targets, at least: a product of two of them is a normal number of float64.
const LEAST_SCALE: f64 = 1e-150;
/// Weights on average, at most.
const MOST_SCALE: f64 = 1e150;
/// Distinct targets of a classifier, at most.
const MOST_CLASSES: usize = 1000;

/// Targets that this rank has met: what classes there are.
#[derive(Debug, Default)]
pub struct Seen {
    integers: BTreeSet<i64>,
    strings: BTreeSet<String>,
}

impl Seen {
    /// Looks at the targets of a block. Not collective.
    ///
    /// Errors: targets that the objective does not take.
    pub fn add(&mut self, kind: Kind, block: &Block) -> Result<()> {
        match &block.target {
            Targets::None => Err(Error::data("has no target; name it with --target")),
            Targets::Text(values) => {
                for value in values {
                    if self.strings.len() <= MOST_CLASSES && !self.strings.contains(value) {
                        self.strings.insert(value.clone());
                    }
                }
                Ok(())
            }
            Targets::Number(values) if kind == Kind::Poisson => match values.iter().position(|y| *y < 0.0) {
                Some(at) => Err(Error::data(format!(
                    "the target is {} in row {}: this loss wants counts or amounts that are not negative",
                    values[at],
                    block.first_file_row + (at / (values.len() / block.n_rows)) as u64
                ))),
                None => Ok(()),
            },
            Targets::Number(_) if kind == Kind::Linear => Ok(()),
            Targets::Number(values) => self.add_integers(values),
        }
    }

    /// More than [`MOST_CLASSES`] are cut off, which is enough to refuse them.
    fn add_integers(&mut self, values: &[f64]) -> Result<()> {
        let mut last = f64::NAN;
        for &y in values {
            if y == last {
                continue;
            }
            last = y;
            if y.trunc() != y || y.abs() > 9e15 {
                return Err(Error::data(format!(
                    "the target holds {y}, which is not a class; classes are whole numbers or strings (for numbers: train linear, boost --loss squared, forest --criterion squared)"
                )));
            }
            if self.integers.len() <= MOST_CLASSES {
                self.integers.insert(y as i64);
            }
        }
        Ok(())
    }
}

/// Whether each row has as many targets as are wanted. Not collective; the same on every rank.
///
/// * `wanted`: None for any number.
///
/// Errors: it has not (data).
pub(super) fn check_number(wanted: Option<usize>, schema: &Schema, names: &TableNames) -> Result<()> {
    let found = schema.n_targets();
    let message = match wanted {
        Some(1) if found > 1 => format!(
            "has shape {} × {found} where one value a row is needed; name a dataset of one column",
            schema.n_rows
        ),
        Some(wanted) if found > 0 && found != wanted => format!(
            "has {found} values a row but the model was trained on {wanted}; name as many with --target, in the model's order"
        ),
        _ => return Ok(()),
    };
    Err(Error::data(message)).in_dataset(&names.path(names.target.as_deref().unwrap_or("y")))
}

/// What the objective cannot use whatever the rows are. Not collective; the same on every rank.
pub fn check_stored(kind: Kind, stored: Option<TargetKind>) -> Result<()> {
    match (kind, stored) {
        (Kind::Linear | Kind::Poisson, Some(TargetKind::Text)) => Err(Error::data(format!(
            "the target holds strings, but {} wants numbers; use train logistic, svm, boost --loss logistic or forest --criterion gini",
            kind.name()
        ))),
        _ => Ok(()),
    }
}

/// Classes that all ranks number alike, if the objective has classes. Collective. Of one target.
pub fn agree(comm: &Communicator, kind: Kind, stored: Option<TargetKind>, seen: &Seen) -> Result<TargetCoding> {
    match kind {
        Kind::Linear | Kind::Poisson | Kind::Boost | Kind::Forest | Kind::Mlp => Ok(TargetCoding::Number),
        Kind::Bag | Kind::Adaboost | Kind::Vote | Kind::Stack => Ok(TargetCoding::Number),
        Kind::Logistic | Kind::Svm if stored == Some(TargetKind::Text) => {
            let classes: Vec<String> = union_of_strings(comm, &seen.strings)?.into_iter().collect();
            check_classes(&classes)?;
            Ok(TargetCoding::Strings(classes))
        }
        Kind::Logistic | Kind::Svm => {
            let mine: Vec<i64> = seen.integers.iter().copied().collect();
            let all: BTreeSet<i64> = comm.all_gather(&mine)?.values.into_iter().collect();
            let classes: Vec<i64> = all.into_iter().collect();
            check_classes(&classes.iter().map(i64::to_string).collect::<Vec<_>>())?;
            Ok(TargetCoding::Integers(classes))
        }
    }
}

fn check_classes(classes: &[String]) -> Result<()> {
    match classes {
        [] | [_] => Err(Error::data(format!(
            "the target has one class ({}): at least two are needed to learn anything",
            classes.first().map_or("none", |c| c.as_str())
        ))),
        _ if classes.len() > MOST_CLASSES => Err(Error::data(format!(
            "the target has more than {MOST_CLASSES} distinct values: these are not classes; use train linear for numbers"
        ))),
        _ => Ok(()),
    }
}

/// Whether at least two classes have rows of weight above 0: with one, the loss has no minimum. Not collective.
pub fn check_weighted(target: &TargetCoding, of_class: &[f64]) -> Result<()> {
    let names = target.names();
    let mut present = names.iter().zip(of_class).filter(|(_, weight)| **weight > 0.0).map(|(name, _)| name);
    match (present.next(), present.next()) {
        (Some(only), None) => Err(Error::data(format!(
            "the target has one class ({only}) in rows of weight above 0: at least two are needed to learn anything"
        ))),
        _ => Ok(()),
    }
}

/// Refuses weights and targets whose squares are no numbers of float64: beside them everything is 0 or infinite, and a model would learn nothing without
/// a word. Collective: one more pass over the labels, and only where the mean of a target is next to nothing.
///
/// * `total`, `weighted_y`: as of [`totals`].
pub fn check_scale(
    comm: &Communicator,
    target: &TargetCoding,
    table: &Table<'_>,
    total: f64,
    weighted_y: &[f64],
) -> Result<()> {
    let of_row = total / table.plan.n_rows().max(1) as f64;
    if !(LEAST_SCALE..=MOST_SCALE).contains(&of_row) {
        return Err(Error::data(format!(
            "row weights are {of_row:.0e} on average, and their squares are no numbers any more; only their ratios count: \
             multiply all of them by one number that brings them near 1"
        )));
    }
    let n_targets = target.n_targets();
    let is_tiny = |weighted: &f64| (weighted / total).abs() < LEAST_SCALE;
    if target.n_classes() > 0 || !weighted_y.iter().any(is_tiny) {
        return Ok(());
    }
    // Bits of non-negative doubles are ordered as the numbers are.
    let mut largest = vec![0i64; n_targets];
    let passed = table.each_labels(|y, weight, _| {
        for (y, _) in y.chunks_exact(n_targets).zip(weight).filter(|(_, w)| **w > 0.0) {
            largest.iter_mut().zip(y).for_each(|(largest, y)| *largest = (*largest).max(y.abs().to_bits() as i64));
        }
    });
    table.agree(comm, passed)?;
    comm.all_reduce_max(&mut largest)?;
    let mut largest = largest.into_iter().map(|bits| f64::from_bits(bits as u64));
    match largest.find(|largest| *largest > 0.0 && *largest < LEAST_SCALE) {
        Some(largest) => Err(Error::data(format!(
            "a target is {largest:.0e} at most, and its squares are 0 in float64; multiply it by a number that brings it near 1"
        ))),
        None => Ok(()),
    }
}

/// What weights are multiplied by so that every class has the same total. Not collective.
pub fn balancing(total: f64, of_class: &[f64]) -> Vec<f64> {
    let present = of_class.iter().filter(|w| **w > 0.0).count() as f64;
    of_class.iter().map(|w| if *w > 0.0 { total / (present * w) } else { 0.0 }).collect()
}

/// Σw, and Σw of every class or Σw·y of every target; exact. Collective.
pub fn totals(comm: &Communicator, target: &TargetCoding, table: &Table<'_>) -> Result<(f64, Vec<f64>)> {
    let (n_classes, n_targets) = (target.n_classes(), target.n_targets());
    let mut sums = vec![ExactSum::new(); 1 + n_classes.max(n_targets)];
    let passed = table.each_labels(|y, weight, _| {
        for (y, w) in y.chunks_exact(n_targets).zip(weight) {
            sums[0].add(*w);
            if n_classes > 0 {
                sums[1 + y[0] as usize].add(*w);
            } else if *w > 0.0 {
                sums[1..].iter_mut().zip(y).for_each(|(sum, y)| sum.add_product(*w, *y));
            }
        }
    });
    table.agree(comm, passed)?;
    let mut values = Vec::with_capacity(sums.len());
    for sum in sums {
        let [total] = sum_scalars(comm, &[sum])?;
        values.push(total.value().ok_or_else(|| Error::data("weights or targets are not finite"))?);
    }
    let total = values.remove(0);
    Ok((total, values))
}
