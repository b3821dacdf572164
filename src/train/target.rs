//! Targets as an objective wants them: classes that all ranks number alike, or numbers; and what they sum to.

use super::Kind;
use super::prepare::union_of_strings;
use super::sums::sum_scalars;
use crate::comm::Communicator;
use crate::data::TargetKind;
use crate::error::{Error, Result};
use crate::exact::ExactSum;
use crate::model::TargetCoding;
use std::collections::BTreeSet;

/// Distinct targets of a classifier, at most.
const MOST_CLASSES: usize = 1000;

/// Classes, or proof that the targets are numbers that the objective takes; `y` becomes class numbers. Collective.
pub fn agree(
    comm: &Communicator,
    kind: Kind,
    stored: Option<TargetKind>,
    first_row: u64,
    y: &mut [f64],
    strings: &[String],
) -> Result<TargetCoding> {
    let is_text = stored == Some(TargetKind::Text);
    match kind {
        Kind::Linear | Kind::Poisson => {
            if is_text {
                return Err(Error::data(format!(
                    "the target holds strings, but {} wants numbers; use train logistic or train svm",
                    if kind == Kind::Linear { "linear" } else { "poisson" }
                )));
            }
            let negative = y.iter().position(|y| kind == Kind::Poisson && *y < 0.0);
            comm.agree(match negative {
                Some(row) => Err(Error::data(format!(
                    "the target is {} in row {}: poisson wants counts that are not negative",
                    y[row],
                    first_row + row as u64
                ))),
                None => Ok(()),
            })?;
            Ok(TargetCoding::Number)
        }
        Kind::Logistic | Kind::Svm if is_text => {
            let mine: BTreeSet<String> = strings.iter().cloned().collect();
            let classes: Vec<String> = union_of_strings(comm, &mine)?.into_iter().collect();
            check_classes(&classes)?;
            let positions: Vec<f64> =
                strings.iter().map(|s| classes.binary_search(s).map_or(-1.0, |position| position as f64)).collect();
            for y in y.iter_mut() {
                *y = positions[*y as usize];
            }
            Ok(TargetCoding::Strings(classes))
        }
        Kind::Logistic | Kind::Svm => {
            let mine = comm.agree(local_integers(y))?;
            let all: BTreeSet<i64> = comm.all_gather(&mine)?.values.into_iter().collect();
            let classes: Vec<i64> = all.into_iter().collect();
            check_classes(&classes.iter().map(i64::to_string).collect::<Vec<_>>())?;
            for y in y.iter_mut() {
                *y = classes.binary_search(&(*y as i64)).map_or(-1.0, |position| position as f64);
            }
            Ok(TargetCoding::Integers(classes))
        }
    }
}

/// Distinct whole numbers among the targets; more than [`MOST_CLASSES`] are cut off, which is enough to refuse them.
fn local_integers(y: &[f64]) -> Result<Vec<i64>> {
    let mut found = BTreeSet::new();
    let mut last = f64::NAN;
    for &y in y {
        if y == last {
            continue;
        }
        last = y;
        if y.trunc() != y || y.abs() > 9e15 {
            return Err(Error::data(format!(
                "the target holds {y}, which is not a class; classes are whole numbers or strings (train linear for numbers)"
            )));
        }
        found.insert(y as i64);
        if found.len() > MOST_CLASSES {
            break;
        }
    }
    Ok(found.into_iter().collect())
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

/// Multiplies weights so that every class has the same total. Collective.
pub fn balance(comm: &Communicator, n_classes: usize, y: &[f64], weight: &mut [f64]) -> Result<()> {
    let (total, of_class) = totals(comm, n_classes, y, weight)?;
    let present = of_class.iter().filter(|w| **w > 0.0).count() as f64;
    let factor: Vec<f64> = of_class.iter().map(|w| if *w > 0.0 { total / (present * w) } else { 0.0 }).collect();
    for (w, y) in weight.iter_mut().zip(y) {
        *w *= factor[*y as usize];
    }
    Ok(())
}

/// Σw, and Σw of every class or Σw·y; exact. Collective.
pub fn totals(comm: &Communicator, n_classes: usize, y: &[f64], weight: &[f64]) -> Result<(f64, Vec<f64>)> {
    let mut sums = vec![ExactSum::new(); 1 + n_classes.max(1)];
    for (y, w) in y.iter().zip(weight) {
        sums[0].add(*w);
        if n_classes > 0 {
            sums[1 + *y as usize].add(*w);
        } else if *w > 0.0 {
            sums[1].add_product(*w, *y);
        }
    }
    let mut values = Vec::with_capacity(sums.len());
    for sum in sums {
        let [total] = sum_scalars(comm, &[sum])?;
        values.push(total.value().ok_or_else(|| Error::data("weights or targets are not finite"))?);
    }
    let total = values.remove(0);
    Ok((total, values))
}
