//! Other formats to HDF5: idx (MNIST), csv and tsv, libsvm; each also gzipped.
//!
//! A table is held in memory while it is converted.

mod csv;
mod idx;
mod libsvm;

use super::hdf5_write::{Writer, chunk_rows};
use super::names::TARGET_NAMES;
use super::synthetic::Storage;
use crate::error::{Error, InContext, Result};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What the inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Arrays of bytes or numbers, as MNIST's files.
    Idx,
    /// Comma-separated values, or another separator.
    Csv,
    /// `label index:value …`, stored densely.
    Libsvm,
}

/// How to convert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvertOptions {
    /// None: by the content.
    pub format: Option<Format>,
    /// Group that the datasets go to. Empty: the root.
    pub group: String,
    /// Add to a file that is there, so that `train` and `test` land in one.
    pub append: bool,
    /// Replace a file that is there.
    pub replace: bool,
    /// Target column of a csv file: its name, or its number from 0, or from the end (−1 is the last).
    /// None: the column called `y`, `target`, `labels` or `label`, if there is one.
    pub target: Option<String>,
    /// Field separator of a csv file. None: tab, semicolon or comma, whichever the first line has.
    pub separator: Option<u8>,
    /// Whether the first line of a csv file names the columns. None: if no field of it is a number.
    pub header: Option<bool>,
    /// Columns of a libsvm table, if more than its largest index says.
    pub n_features: Option<usize>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ConvertReport {
    pub format: Format,
    pub n_rows: u64,
    /// Names for `--features`, relative to the group.
    pub features: Vec<String>,
    /// Columns in `features`, trailing axes flattened.
    pub n_columns: u64,
    pub target: Option<String>,
}

/// A column of a text format.
pub(crate) enum TextColumn {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// Converts files into one table of `out`. Not collective.
///
/// Several csv or libsvm files follow one another by rows; idx takes images and labels. The output is written
/// beside (`.partial`) and renamed: a failed run leaves an existing file as it was.
pub fn convert(inputs: &[PathBuf], out: &Path, options: &ConvertOptions) -> Result<ConvertReport> {
    let Some(first) = inputs.first() else {
        return Err(Error::usage("no file to convert was named"));
    };
    let exists = out.exists();
    if exists && !options.append && !options.replace {
        return Err(Error::usage("is there already; use --force to replace it or --append to add to it")).in_file(out);
    }
    let format = match options.format {
        Some(format) => format,
        None => sniff(first).in_file(first)?,
    };
    let partial = partial_path(out);
    let written = write_partial(inputs, out, &partial, format, exists && options.append, options);
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    let report = written?;
    std::fs::File::open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial, out))
        .map_err(|e| Error::data(format!("cannot be renamed from {}: {e}", partial.display())))
        .in_file(out)?;
    Ok(report)
}

fn write_partial(
    inputs: &[PathBuf],
    out: &Path,
    partial: &Path,
    format: Format,
    append: bool,
    options: &ConvertOptions,
) -> Result<ConvertReport> {
    let _ = std::fs::remove_file(partial);
    if append {
        std::fs::copy(out, partial).map_err(|e| Error::data(format!("cannot be copied: {e}"))).in_file(out)?;
    }
    let writer = Writer::append(partial, &options.group)?;
    if writer.has("X") || writer.has("y") {
        return Err(Error::usage(format!("group '{}' has a table already; choose another --group", options.group)))
            .in_file(out);
    }
    let report = match format {
        Format::Idx => idx::convert(inputs, &writer)?,
        Format::Csv => csv::convert(inputs, &writer, options)?,
        Format::Libsvm => libsvm::convert(inputs, &writer, options)?,
    };
    writer.close()?;
    Ok(report)
}

fn partial_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_os_string();
    name.push(".partial");
    PathBuf::from(name)
}

/// The bytes of a file, decompressed if they are gzip.
fn reader(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::data("no such file"),
        _ => Error::data(format!("cannot open: {e}")),
    });
    let mut file = BufReader::with_capacity(1 << 16, file.in_file(path)?);
    let start = file.fill_buf().map_err(|e| Error::data(format!("cannot read: {e}"))).in_file(path)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, flate2::bufread::MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

/// The format by the first bytes.
fn sniff(path: &Path) -> Result<Format> {
    let mut start = Vec::new();
    let read = reader(path)?.take(1 << 16).read_to_end(&mut start);
    read.map_err(|e| Error::data(format!("cannot read: {e}")))?;
    if start.len() >= 4 && start[..2] == [0, 0] && (1..=8).contains(&start[3]) {
        return Ok(Format::Idx);
    }
    if start.starts_with(b"\x89HDF") {
        return Err(Error::usage("is an HDF5 file already"));
    }
    if start.contains(&0) {
        return Err(Error::data("is none of idx, csv and libsvm; it has zero bytes"));
    }
    let text = String::from_utf8_lossy(&start);
    let line = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or("");
    let is_pair = |field: &str| field.split_once(':').is_some_and(|(index, _)| index.parse::<u32>().is_ok());
    let mut fields = line.split_whitespace();
    let label_is_number = fields.next().is_some_and(|label| label.parse::<f64>().is_ok());
    let has_pair = line.split_whitespace().nth(1).is_some_and(|field| is_pair(field) || field.starts_with("qid:"));
    Ok(if label_is_number && has_pair { Format::Libsvm } else { Format::Csv })
}

/// Writes `x` (rows, columns) as float32 if that is exact, else as float64; compressed.
fn write_features(writer: &Writer, x: &[f64], n_columns: usize) -> Result<()> {
    let shape = [x.len() / n_columns.max(1), n_columns];
    let exact = x.iter().all(|&value| value.is_nan() || f64::from(value as f32) == value);
    let bytes = if exact { 4 } else { 8 };
    let storage = Storage { chunk_rows: Some(chunk_rows(n_columns * bytes, shape[0])), deflate: Some(1) };
    match exact {
        true => writer.numbers("X", &x.iter().map(|&value| value as f32).collect::<Vec<f32>>(), &shape, storage),
        false => writer.numbers("X", x, &shape, storage),
    }
}

fn write_target(writer: &Writer, target: &TextColumn) -> Result<()> {
    let plain = Storage::default();
    match target {
        TextColumn::Integers(values) => writer.numbers("y", values, &[values.len()], plain),
        TextColumn::Floats(values) => writer.numbers("y", values, &[values.len()], plain),
        TextColumn::Texts(values) => writer.text("y", values),
    }
}

impl TextColumn {
    /// Integers if every field is one; else numbers, with `?`, `NA`, `null`, `NaN` and nothing for missing;
    /// else strings.
    fn of(fields: Vec<String>) -> TextColumn {
        if let Some(integers) = fields.iter().map(|field| field.trim().parse().ok()).collect() {
            return TextColumn::Integers(integers);
        }
        match fields.iter().map(|field| number(field)).collect() {
            Some(floats) => TextColumn::Floats(floats),
            None => TextColumn::Texts(fields),
        }
    }
}

fn number(field: &str) -> Option<f64> {
    match field.trim() {
        "" | "?" | "NA" | "N/A" | "null" | "NULL" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
