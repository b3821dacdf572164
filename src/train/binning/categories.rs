//! Categories of columns, numbered alike on all ranks.

use super::super::gather::Reader;
use super::super::prepare::union_of_strings;
use crate::comm::Communicator;
use crate::data::Values;
use crate::error::{Error, InContext, Result};
use crate::exact::scale::{from_order_key, order_key};
use crate::model::{ColumnCode, Preprocess};
use std::collections::BTreeSet;

/// Categories of a column, at most: each has a bin.
const MOST: usize = 65_000;

/// Marks the columns that are categories: strings, and those that are named. Not collective; the same on every rank.
///
/// Errors: a name that is none (usage).
pub(in crate::train) fn mark(preprocess: &mut Preprocess, named: &[String]) -> Result<()> {
    for column in &mut preprocess.columns {
        column.is_category = column.is_text();
    }
    for name in named {
        let place = column(preprocess, name).for_flag("--categorical")?;
        preprocess.columns[place].is_category = true;
    }
    Ok(())
}

/// The column of this name, or of this number. Every column is a feature of trees. Errors: there is none (usage).
pub(in crate::train) fn column(preprocess: &Preprocess, name: &str) -> Result<usize> {
    let columns = &preprocess.columns;
    let by_place = || name.parse::<usize>().ok().filter(|place| *place < columns.len());
    columns.iter().position(|column| column.name == name).or_else(by_place).ok_or_else(|| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).take(20).collect();
        let and_more = if columns.len() > names.len() { ", …" } else { "" };
        Error::usage(format!("there is no column '{name}'; there is: {}{and_more}", names.join(", ")))
    })
}

/// Reads all rows once and gives each marked column its categories. Collective.
pub(in crate::train) fn find(comm: &Communicator, reader: &mut Reader<'_>, preprocess: &mut Preprocess) -> Result<()> {
    let columns = &preprocess.columns;
    let mut texts = vec![BTreeSet::<String>::new(); columns.iter().filter(|column| column.is_text()).count()];
    // By column of numbers: keys that are in the order of the values.
    let is_category: Vec<bool> = columns.iter().filter(|c| !c.is_text()).map(|c| c.is_category).collect();
    let mut keys = vec![BTreeSet::<i64>::new(); is_category.len()];
    let passed = reader.pass(|batch, _| {
        for (known, column) in texts.iter_mut().zip(&batch.text) {
            for text in column {
                if known.len() <= MOST && !known.contains(text) {
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
        let mine = if column.is_text() { (texts.next(), None) } else { (None, keys.next()) };
        if !column.is_category {
            continue;
        }
        match mine {
            (Some(texts), _) => column.categories = union_of_strings(comm, &texts)?.into_iter().collect(),
            (_, keys) => {
                let mine: Vec<i64> = keys.into_iter().flatten().collect();
                let all: BTreeSet<i64> = comm.all_gather(&mine)?.values.into_iter().collect();
                column.values = all.into_iter().map(from_order_key).collect();
            }
        }
        check_number(column)?;
    }
    Ok(())
}

/// Errors: a column has more categories than there are bins for (data).
pub(in crate::train) fn check_number(column: &ColumnCode) -> Result<()> {
    match column.categories.len().max(column.values.len()) <= MOST {
        true => Ok(()),
        false => Err(Error::data(format!(
            "column '{}' has more than {MOST} categories; leave it out with --exclude, or keep it a number",
            column.name
        ))),
    }
}
