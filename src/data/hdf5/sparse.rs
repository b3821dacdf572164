//! A sparse matrix stored by rows: a group of `data`, `indices` and `indptr`, as SciPy and AnnData keep it.
//!
//! Its three datasets are stored as all others are, so that every rank reads the runs of elements that its rows need.
//! Source of the layout: the specification of AnnData's file format, "Sparse arrays".

use super::contents::names_beside;
use super::field::{FieldIndex, MOST_COLUMNS, RecordIndexes};
use super::read::Field;
use super::sound;
use super::types::{Element, reason, text_attribute};
use crate::data::SparseRows;
use crate::error::{Error, InContext, Result};
use hdf5::{File, Group};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Range;

/// The matrix of one file; `F` is a dataset: described, or open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sparse<F> {
    pub(super) path: String,
    pub(super) n_rows: u64,
    /// Of the columns.
    pub(super) names: Vec<String>,
    pub(super) data: F,
    indices: F,
    indptr: F,
}

impl<F> Sparse<F> {
    pub(super) fn all(&self) -> [&F; 3] {
        [&self.data, &self.indices, &self.indptr]
    }

    pub(super) fn try_map<G>(&self, make: &mut impl FnMut(&F) -> Result<G>) -> Result<Sparse<G>> {
        let (data, indices, indptr) = (make(&self.data)?, make(&self.indices)?, make(&self.indptr)?);
        Ok(Sparse { path: self.path.clone(), n_rows: self.n_rows, names: self.names.clone(), data, indices, indptr })
    }
}

impl Sparse<FieldIndex> {
    /// Errors: what is not a matrix by rows, or does not fit together.
    pub(super) fn of(file: &File, path: &str) -> Result<Sparse<FieldIndex>> {
        let group =
            sound::open_group(file, path).map_err(|e| Error::data(format!("cannot be opened: {}", reason(&e))))?;
        let format = ["encoding-type", "h5sparse_format"].into_iter().find_map(|name| text_attribute(&group, name));
        let format = format.and_then(|words| words.into_iter().next()).unwrap_or_default();
        if format.starts_with("csc") {
            return Err(Error::data(format!("is stored by columns ({format}): {BY_ROWS}")));
        }
        let [n_rows, n_columns] = shape_of(&group)?;
        let field = |name: &str| {
            let path = format!("{path}/{name}");
            let field =
                FieldIndex::of(file, &path, false, &mut RecordIndexes::new()).and_then(FieldIndex::must_be_one_number);
            field.in_dataset(&path)
        };
        let (data, indices, indptr) = (field("data")?, field("indices")?, field("indptr")?);
        if indptr.n_rows != n_rows + 1 && indptr.n_rows == n_columns + 1 {
            return Err(Error::data(format!("is stored by columns, as its indptr shows: {BY_ROWS}")));
        }
        let fits = indptr.n_rows == n_rows + 1 && data.n_rows == indices.n_rows;
        if !fits || indices.whole().is_none() || indptr.whole().is_none() {
            return Err(Error::data(format!(
                "is no sparse matrix by rows: its shape is {n_rows} × {n_columns}, and it has {} data, {} indices and {} indptr; \
                 wanted are as many indices as data and {} indptr, both whole numbers",
                data.n_rows,
                indices.n_rows,
                indptr.n_rows,
                n_rows + 1
            )));
        }
        if n_columns == 0 || n_columns > MOST_COLUMNS {
            return Err(Error::data(format!("has {n_columns} columns; from 1 to {MOST_COLUMNS} can be trained on")));
        }
        let base = path.rsplit('/').next().unwrap_or(path);
        let names = names_beside(file, path, n_columns as usize)
            .filter(|names| names.iter().collect::<BTreeSet<_>>().len() == names.len())
            .unwrap_or_else(|| (0..n_columns).map(|column| format!("{base}[{column}]")).collect());
        Ok(Sparse { path: path.to_string(), n_rows, names, data, indices, indptr })
    }
}

const BY_ROWS: &str = "a row would be all over the file; store it by rows, as SciPy's tocsr() does, and name that";

/// Rows and columns, from the attribute that AnnData writes now or wrote before.
fn shape_of(group: &Group) -> Result<[u64; 2]> {
    let numbers = |name: &str| -> Option<Vec<i64>> {
        let attribute = group.attr(name).ok()?;
        let element = Element::of(&attribute.dtype().ok()?).ok()?;
        let is_shape = attribute.size() == 2 && matches!(element, Element::Integer { .. });
        is_shape.then(|| attribute.read_raw::<i64>().ok()).flatten()
    };
    let shape = ["shape", "h5sparse_shape"].into_iter().find_map(numbers);
    match shape.as_deref() {
        Some(&[n_rows, n_columns]) if n_rows >= 0 && n_columns >= 0 && n_rows < i64::MAX => {
            Ok([n_rows as u64, n_columns as u64])
        }
        _ => Err(Error::data(
            "has no attribute 'shape' of two whole numbers, which a sparse matrix needs: (rows, columns)",
        )),
    }
}

impl Sparse<Field> {
    /// Appends rows of this file: columns in order, zeros left out, canonical. Errors: what is wrong with a row, by its number.
    pub(super) fn read(&self, rows: Range<u64>, into: &mut SparseRows<f64>, scratch: &mut Vec<u64>) -> Result<()> {
        let bounds = self.bounds(rows.clone())?;
        let (Some(&first), Some(&end)) = (bounds.first(), bounds.last()) else { return Ok(()) };
        let n_values = (end - first) as usize;
        let mut columns = vec![0i64; n_values];
        let mut values = vec![0.0f64; n_values];
        self.indices.read_whole(first..end, &mut columns)?;
        self.data.read_numbers(first..end, &mut values, 1, 0, scratch)?;
        into.reserve_exact(bounds.len(), n_values);
        let mut sorted = Vec::new();
        for (row, ends) in (rows.start..).zip(bounds.windows(2)) {
            let here = (ends[0] - first) as usize..(ends[1] - first) as usize;
            self.check_row(row, &columns[here.clone()], &values[here.clone()])?;
            sorted.clear();
            sorted.extend(columns[here.clone()].iter().map(|&column| column as u32).zip(values[here].iter().copied()));
            if !sorted.is_sorted_by(|a, b| a.0 < b.0) {
                sorted.sort_by_key(|(column, _)| *column);
                if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    let column = pair[0].0;
                    return Err(self.wrong(row, format!("column {column} is there twice; store one value for it")));
                }
            }
            into.push_row(sorted.iter().copied().filter(|(_, value)| *value != 0.0));
        }
        Ok(())
    }

    /// The datasets, and which of their elements these rows of the file need. Errors: as [`read`](Self::read).
    pub(super) fn elements_of(&self, rows: Range<u64>) -> Result<[(&Field, Range<u64>); 3]> {
        let bounds = self.bounds(rows.clone())?;
        let values = bounds.first().copied().unwrap_or(0)..bounds.last().copied().unwrap_or(0);
        Ok([(&self.data, values.clone()), (&self.indices, values), (&self.indptr, rows.start..rows.end + 1)])
    }

    /// How many values are stored for these rows. Errors: as [`read`](Self::read).
    pub(super) fn count(&self, rows: Range<u64>) -> Result<u64> {
        let bounds = self.bounds(rows)?;
        Ok(bounds.last().unwrap_or(&0) - bounds.first().unwrap_or(&0))
    }

    /// Where each of these rows begins among the values, and where the last ends.
    fn bounds(&self, rows: Range<u64>) -> Result<Vec<u64>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut stored = vec![0i64; (rows.end - rows.start) as usize + 1];
        self.indptr.read_whole(rows.start..rows.end + 1, &mut stored)?;
        let (n_values, n_columns) = (self.data.index.n_rows, self.names.len() as u64);
        for (row, ends) in (rows.start..).zip(stored.windows(2)) {
            let in_order = 0 <= ends[0] && ends[0] <= ends[1] && ends[1] as u64 <= n_values;
            if !in_order {
                return Err(self.wrong(
                    row,
                    format!(
                        "its values are said to be {}..{} of {n_values}: indptr has to rise from 0 to the number of values",
                        ends[0], ends[1]
                    ),
                ));
            }
            let of_row = (ends[1] - ends[0]) as u64;
            if of_row > n_columns {
                return Err(self.wrong(row, format!("it has {of_row} values, more than the {n_columns} columns")));
            }
        }
        Ok(stored.into_iter().map(|end| end as u64).collect())
    }

    fn check_row(&self, row: u64, columns: &[i64], values: &[f64]) -> Result<()> {
        let n_columns = self.names.len();
        if let Some(column) = columns.iter().find(|column| !(0..n_columns as i64).contains(*column)) {
            return Err(self.wrong(row, format!("there is no column {column}: the matrix has columns 0..{n_columns}")));
        }
        if let Some(at) = values.iter().position(|value| value.is_infinite()) {
            let (column, name) = (columns[at], &self.names[columns[at] as usize]);
            return Err(self.wrong(row, format!("infinite value in column {column} ('{name}'); store a finite number")));
        }
        Ok(())
    }

    fn wrong(&self, row: u64, what: String) -> Error {
        Error::data(format!("row {row}: {what}")).at(format!("'{}'", self.path))
    }
}

#[cfg(test)]
#[path = "sparse_tests.rs"]
mod tests;
