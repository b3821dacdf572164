//! Categories of columns, numbered alike on all ranks.

use super::gather::Reader;
use crate::comm::Communicator;
use crate::config::Categorical;
use crate::data::Values;
use crate::error::{Error, InContext, Result};
use crate::exact::scale::{from_order_key, order_key};
use crate::model::{ColumnCode, Preprocess};
use std::collections::BTreeSet;

/// Categories of a column that is one feature, at most: to trees each is a bin.
const MOST: usize = 65_000;
/// Strings that become features of their own, at most.
const MOST_FEATURES: usize = 10_000;

/// Marks the columns that are categories. Not collective; the same on every rank.
///
/// Errors: a name that is none (usage).
pub(super) fn mark(preprocess: &mut Preprocess, categorical: Categorical<'_>) -> Result<()> {
    let (all_strings, named) = match categorical {
        Categorical::None => (false, &[][..]),
        Categorical::Named(named) => (false, named),
        Categorical::StringsAnd(named) => (true, named),
    };
    for column in &mut preprocess.columns {
        column.is_category = all_strings && column.is_text();
    }
    for name in named {
        let place = column(preprocess, name).for_flag("--categorical")?;
        preprocess.columns[place].is_category = true;
    }
    Ok(())
}

/// The column of this name, or of this number. Errors: there is none (usage).
pub(super) fn column(preprocess: &Preprocess, name: &str) -> Result<usize> {
    let columns = &preprocess.columns;
    let by_place = || name.parse::<usize>().ok().filter(|place| *place < columns.len());
    columns.iter().position(|column| column.name == name).or_else(by_place).ok_or_else(|| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).take(20).collect();
        let and_more = if columns.len() > names.len() { ", …" } else { "" };
        Error::usage(format!("there is no column '{name}'; there is: {}{and_more}", names.join(", ")))
    })
}

/// Reads all rows once and gives the columns of strings, and those that are marked, their categories. Reads nothing where there
/// are no such columns, and says so. Collective.
///
/// Errors: a column has too many (data).
pub(super) fn find(comm: &Communicator, reader: &mut Reader<'_>, preprocess: &mut Preprocess) -> Result<bool> {
    let columns = &preprocess.columns;
    if !columns.iter().any(|column| column.is_text() || column.is_category) {
        return Ok(false);
    }
    let most: Vec<usize> = columns.iter().filter(|column| column.is_text()).map(most_of).collect();
    let mut texts = vec![BTreeSet::<String>::new(); most.len()];
    // By column of numbers: keys that are in the order of the values.
    let is_category: Vec<bool> = columns.iter().filter(|c| !c.is_text()).map(|c| c.is_category).collect();
    let mut keys = vec![BTreeSet::<i64>::new(); is_category.len()];
    let passed = reader.pass(|batch, _| {
        for ((known, most), column) in texts.iter_mut().zip(&most).zip(&batch.text) {
            for text in column {
                if known.len() <= *most && !known.contains(text) {
                    known.insert(text.clone());
                }
            }
        }
        for (number, known) in keys.iter_mut().enumerate().filter(|(number, _)| is_category[*number]) {
            let mut add = |value: f64| {
                if !value.is_nan() && known.len() <= MOST {
                    known.insert(order_key(value));
                }
            };
            match &batch.values {
                Values::F32(values) => {
                    values.iter().skip(number).step_by(is_category.len()).for_each(|v| add(f64::from(*v)))
                }
                Values::F64(values) => values.iter().skip(number).step_by(is_category.len()).for_each(|v| add(*v)),
                Values::Sparse(_) => return Err(Error::internal("categories of a sparse table")),
            }
        }
        Ok(())
    });
    comm.agree(passed)?;
    let (mut texts, mut keys) = (texts.into_iter(), keys.into_iter());
    for column in &mut preprocess.columns {
        if column.is_text() {
            let mine = texts.next().unwrap_or_default();
            column.categories = union_of_strings(comm, &mine)?.into_iter().collect();
        } else if let Some(mine) = keys.next().filter(|_| column.is_category) {
            let mine: Vec<i64> = mine.into_iter().collect();
            let all: BTreeSet<i64> = comm.all_gather(&mine)?.values.into_iter().collect();
            column.values = all.into_iter().map(from_order_key).collect();
        }
        check_number(column)?;
    }
    Ok(true)
}

fn most_of(column: &ColumnCode) -> usize {
    if column.is_category { MOST } else { MOST_FEATURES }
}

/// Errors: a column has too many categories (data).
pub(super) fn check_number(column: &ColumnCode) -> Result<()> {
    let (name, most) = (&column.name, most_of(column));
    match column.n_categories() <= most {
        true => Ok(()),
        false if column.is_category => Err(Error::data(format!(
            "column '{name}' has more than {most} categories; leave it out with --exclude, or keep it a number"
        ))),
        false => Err(Error::data(format!(
            "text column '{name}' has more than {most} distinct values; leave it out with --features"
        ))),
    }
}

/// Those of all ranks. Collective.
pub(super) fn union_of_strings(comm: &Communicator, mine: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut bytes = Vec::new();
    for value in mine {
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    let gathered = comm.all_gather_bytes(&bytes)?;
    let mut union = BTreeSet::new();
    let mut rest = gathered.values.as_slice();
    while let Some((len, tail)) = rest.split_first_chunk::<8>() {
        let (value, tail) = tail.split_at(u64::from_le_bytes(*len) as usize);
        union.insert(String::from_utf8_lossy(value).into_owned());
        rest = tail;
    }
    Ok(union)
}
