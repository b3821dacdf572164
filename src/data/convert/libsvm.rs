//! The libsvm format: `label index:value …` a row; stored densely, absent values are 0.

use super::{ConvertOptions, ConvertReport, Format, TextColumn, reader, write_features, write_target};
use crate::data::hdf5_write::Writer;
use crate::error::{Error, InContext, Result};
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// The stored values of all rows.
#[derive(Default)]
struct Sparse {
    labels: Vec<String>,
    /// (row, index as written, value), in row order.
    values: Vec<(usize, usize, f64)>,
}

/// Indices count from 1, unless an index 0 is there.
pub(super) fn convert(inputs: &[PathBuf], writer: &Writer, options: &ConvertOptions) -> Result<ConvertReport> {
    let mut table = Sparse::default();
    for path in inputs {
        read(path, &mut table).in_file(path)?;
    }
    let n_rows = table.labels.len();
    let first = usize::from(!table.values.iter().any(|&(_, index, _)| index == 0));
    let largest = table.values.iter().map(|&(_, index, _)| index + 1 - first).max().unwrap_or(0);
    let n_columns = largest.max(options.n_features.unwrap_or(0));
    if n_rows == 0 || n_columns == 0 {
        return Err(Error::data("has no rows or no values")).in_file(&inputs[0]);
    }
    let n_values = n_rows.checked_mul(n_columns).filter(|&n| n < 1 << 36);
    let Some(n_values) = n_values else {
        return Err(Error::data(format!("{n_rows} rows × {n_columns} columns are too many to store densely")))
            .in_file(&inputs[0]);
    };
    let mut x = vec![0.0; n_values];
    for (row, index, value) in table.values {
        x[row * n_columns + index - first] = value;
    }
    write_features(writer, &x, n_columns)?;
    write_target(writer, &TextColumn::of(table.labels))?;
    Ok(ConvertReport {
        format: Format::Libsvm,
        n_rows: n_rows as u64,
        features: vec!["X".to_string()],
        n_columns: n_columns as u64,
        target: Some("y".to_string()),
    })
}

fn read(path: &Path, into: &mut Sparse) -> Result<()> {
    for (number, line) in reader(path)?.lines().enumerate() {
        let line = line.map_err(|e| Error::data(format!("cannot read line {}: {e}", number + 1)))?;
        let line = line.split('#').next().unwrap_or("");
        let mut fields = line.split_whitespace();
        let Some(label) = fields.next() else { continue };
        let row = into.labels.len();
        let bad = |field: &str| Error::data(format!("line {}: '{field}' is not index:value", number + 1));
        for field in fields.filter(|field| !field.starts_with("qid:")) {
            let (index, value) = field.split_once(':').ok_or_else(|| bad(field))?;
            let index: u32 = index.parse().map_err(|_| bad(field))?;
            let value: f64 = value.parse().map_err(|_| bad(field))?;
            if value.is_infinite() {
                return Err(Error::data(format!("line {}: infinite value at index {index}", number + 1)));
            }
            into.values.push((row, index as usize, value));
        }
        if label.parse::<f64>().is_err() {
            return Err(Error::data(format!("line {}: the label '{label}' is not one number", number + 1)));
        }
        into.labels.push(label.trim_start_matches('+').to_string());
    }
    Ok(())
}
