//! Comma-separated values, and other separators.

use super::{ConvertOptions, ConvertReport, Format, TARGET_NAMES, TextColumn, reader, write_features, write_target};
use crate::data::hdf5_write::Writer;
use crate::error::{Error, InContext, Result};
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Columns of strings, and their names if the file has a header.
struct Fields {
    header: Option<Vec<String>>,
    columns: Vec<Vec<String>>,
}

/// Numeric columns become `X`, each text column a dataset of its own, the target `y`.
pub(super) fn convert(inputs: &[PathBuf], writer: &Writer, options: &ConvertOptions) -> Result<ConvertReport> {
    let mut fields = Fields { header: None, columns: Vec::new() };
    for (index, path) in inputs.iter().enumerate() {
        read(path, index == 0, options, &mut fields).in_file(path)?;
    }
    let n_rows = fields.columns.first().map_or(0, Vec::len);
    if n_rows == 0 {
        return Err(Error::data("has no rows")).in_file(&inputs[0]);
    }
    let n_columns = fields.columns.len();
    let names: Vec<String> = match fields.header {
        Some(header) => header,
        None => (0..n_columns).map(|column| format!("column{column}")).collect(),
    };
    let target_at = target_column(&names, options)?;
    let (mut numeric, mut texts, mut target) = (Vec::new(), Vec::new(), None);
    for (column, values) in fields.columns.into_iter().enumerate() {
        let values = TextColumn::of(values);
        refuse_infinite(&values).in_dataset(&names[column]).in_file(&inputs[0])?;
        match values {
            values if Some(column) == target_at => target = Some(values),
            TextColumn::Integers(values) => {
                numeric.push((names[column].clone(), values.into_iter().map(|value| value as f64).collect()));
            }
            TextColumn::Floats(values) => numeric.push((names[column].clone(), values)),
            TextColumn::Texts(values) => texts.push((names[column].clone(), values)),
        }
    }
    let mut features = write_numeric(writer, &numeric, n_rows)?;
    let mut used = vec!["X".to_string(), "y".to_string()];
    for (name, values) in &texts {
        let name = dataset_name(name, &mut used);
        writer.text(&name, values)?;
        features.push(name);
    }
    if let Some(target) = &target {
        write_target(writer, target)?;
    }
    Ok(ConvertReport {
        format: Format::Csv,
        n_rows: n_rows as u64,
        features,
        n_columns: (numeric.len() + texts.len()) as u64,
        target: target.map(|_| "y".to_string()),
    })
}

fn read(path: &Path, is_first: bool, options: &ConvertOptions, into: &mut Fields) -> Result<()> {
    let mut input = reader(path)?;
    let start = input.fill_buf().map_err(|e| Error::data(format!("cannot read: {e}")))?;
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or(&[]);
    let separator = options
        .separator
        .unwrap_or_else(|| [b'\t', b';', b','].into_iter().find(|separator| line.contains(separator)).unwrap_or(b','));
    let mut rows = ::csv::ReaderBuilder::new().delimiter(separator).has_headers(false).from_reader(input);
    let mut record = ::csv::StringRecord::new();
    let mut is_first_line = true;
    while rows.read_record(&mut record).map_err(|e| Error::data(format!("cannot read: {e}")))? {
        if std::mem::take(&mut is_first_line) {
            let is_number = |field: &str| field.trim().parse::<f64>().is_ok();
            let has_header = options.header.unwrap_or_else(|| !record.iter().any(is_number));
            if is_first {
                into.columns = vec![Vec::new(); record.len()];
            } else if record.len() != into.columns.len() {
                return Err(Error::data(format!(
                    "has {} columns where the first file has {}",
                    record.len(),
                    into.columns.len()
                )));
            }
            if has_header {
                let header: Vec<String> = record.iter().map(|name| name.trim().to_string()).collect();
                if is_first {
                    into.header = Some(header);
                } else if into.header.as_ref() != Some(&header) {
                    return Err(Error::data("names its columns otherwise than the first file"));
                }
                continue;
            }
        }
        for (column, field) in into.columns.iter_mut().zip(&record) {
            column.push(field.to_string());
        }
    }
    Ok(())
}

fn target_column(names: &[String], options: &ConvertOptions) -> Result<Option<usize>> {
    let Some(wanted) = &options.target else {
        return Ok(TARGET_NAMES.iter().find_map(|name| names.iter().position(|column| column == name)));
    };
    if let Some(column) = names.iter().position(|name| name == wanted) {
        return Ok(Some(column));
    }
    let from_end = |number: i64| if number < 0 { number + names.len() as i64 } else { number };
    match wanted.parse().map(from_end) {
        Ok(column) if (0..names.len() as i64).contains(&column) => Ok(Some(column as usize)),
        _ => Err(Error::usage(format!("no column '{wanted}'; there is: {}", names.join(", ")))).for_flag("--target"),
    }
}

fn refuse_infinite(column: &TextColumn) -> Result<()> {
    let TextColumn::Floats(values) = column else { return Ok(()) };
    match values.iter().position(|value| value.is_infinite()) {
        None => Ok(()),
        Some(row) => Err(Error::data(format!("infinite value at row {row}; write a finite number, or leave it empty"))),
    }
}

/// Writes the numeric columns as `X` with their names; none makes no dataset.
fn write_numeric(writer: &Writer, columns: &[(String, Vec<f64>)], n_rows: usize) -> Result<Vec<String>> {
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let mut x = Vec::with_capacity(n_rows * columns.len());
    for row in 0..n_rows {
        x.extend(columns.iter().map(|(_, values)| values[row]));
    }
    write_features(writer, &x, columns.len())?;
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    writer.text_attribute("X", "feature_names", &names)?;
    Ok(vec!["X".to_string()])
}

/// A name that HDF5 takes and that is not used yet.
fn dataset_name(column: &str, used: &mut Vec<String>) -> String {
    let mut name = column.replace(['/', '\0'], "_");
    if name.is_empty() || name == "." {
        name = "column".to_string();
    }
    while used.contains(&name) {
        name.push('_');
    }
    used.push(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::super::number;
    use super::*;

    #[test]
    fn missing_values_have_many_spellings() {
        for text in ["", " ", "?", "NA", "nan", "NaN", "null"] {
            assert!(number(text).is_some_and(f64::is_nan), "'{text}'");
        }
        assert_eq!(number(" 1e3 "), Some(1000.0));
        assert_eq!(number("tcp"), None);
    }

    #[test]
    fn names_of_datasets_are_unique_and_without_slashes() {
        let mut used = vec!["X".to_string()];
        assert_eq!(dataset_name("X", &mut used), "X_");
        assert_eq!(dataset_name("a/b", &mut used), "a_b");
    }
}
