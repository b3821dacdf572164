//! Parquet: flat columns of numbers, booleans and strings. A first pass finds types and categories, a second writes.
//!
//! Memory: a page of each column, and a batch of rows.

use super::input::{Inputs, cannot_open};
use super::number::{Number, Seen};
use super::table::{Column, Dictionary, Plan, Rows, TableSink};
use super::{ConvertOptions, ConvertReport, Format, target_column};
use crate::data::hdf5::write::{Writer, changed};
use crate::error::{Error, InContext, Result, caught};
use ::parquet::basic::{ConvertedType, Type as Physical};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use rayon::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Values of a batch, over all columns.
const BATCH_VALUES: usize = 1 << 19;

/// What a column of the file is.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    name: String,
    kind: Kind,
    may_be_null: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bool,
    Int32,
    Int64,
    Unsigned32,
    Unsigned64,
    /// A whole number divided by this power of ten.
    Decimal {
        wide: bool,
        divisor: f64,
    },
    Float,
    Double,
    Text,
}

/// Values of some rows of a column.
enum Values {
    Numbers(Vec<Number>),
    /// What is missing is a string without characters.
    Texts(Vec<ByteArray>),
}

/// Numeric columns become `X`, each text column a dataset of its own, the target `y`.
pub(super) fn convert(inputs: &mut Inputs<'_>, writer: &Writer, options: &ConvertOptions) -> Result<ConvertReport> {
    let first = &inputs.paths[0];
    let fields = fields(first)?;
    let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
    let target = target_column(&names, options)?;
    for path in &inputs.paths[1..] {
        if self::fields(path)? != fields {
            return Err(Error::data("has other columns, or of other types, than the first file")).in_file(path);
        }
    }
    let fresh = |field: &Field| Column {
        name: field.name.clone(),
        seen: Seen::default(),
        text: (field.kind == Kind::Text).then(Dictionary::default),
    };
    let mut columns: Vec<Column> = fields.iter().map(fresh).collect();
    let mut n_rows = 0;
    inputs.begin("reading");
    for_each_batch(inputs, &fields, |values, n, first_row| {
        n_rows += n as u64;
        let looked: Vec<Result<()>> =
            columns.par_iter_mut().zip(&values).map(|(column, values)| look_at(column, values, first_row)).collect();
        looked.into_iter().collect()
    })?;
    if n_rows == 0 {
        return Err(Error::data("has no rows")).in_file(first);
    }
    let plan = Plan::of(columns, target, writer).in_file(first)?;
    let mut sink = TableSink::new(&plan, writer, inputs.crew, n_rows)?;
    inputs.begin("writing");
    for_each_batch(inputs, &fields, |values, n, _| {
        let per_task = n.div_ceil(rayon::current_num_threads()).max(1);
        let tasks: Vec<usize> = (0..n).step_by(per_task).collect();
        let rows: Vec<Result<Rows>> =
            tasks.into_par_iter().map(|begin| rows_of(&plan, &values, begin..(begin + per_task).min(n))).collect();
        rows.into_iter().try_for_each(|rows| sink.push(&rows?))
    })?;
    sink.finish()?;
    let (features, n_columns) = plan.features();
    Ok(ConvertReport { format: Format::Parquet, n_rows, features, n_columns, target: plan.target() })
}

fn look_at(column: &mut Column, values: &Values, first_row: u64) -> Result<()> {
    match values {
        Values::Numbers(numbers) => {
            for (row, &number) in numbers.iter().enumerate() {
                if number.is_infinite() {
                    let row = first_row + row as u64;
                    let message = format!("infinite value at row {row}; store a finite number, or none");
                    return Err(Error::data(message)).in_dataset(&column.name);
                }
                column.seen.add(number);
            }
        }
        Values::Texts(texts) => {
            let dictionary = column.text.get_or_insert_default();
            for (row, text) in texts.iter().enumerate() {
                let added = dictionary.add(text.data());
                added
                    .map_err(|e| Error::data(format!("row {}: {e}", first_row + row as u64)))
                    .in_dataset(&column.name)?;
            }
        }
    }
    Ok(())
}

fn rows_of(plan: &Plan, values: &[Values], range: std::ops::Range<usize>) -> Result<Rows> {
    let mut rows = plan.rows();
    for row in range {
        for (column, values) in values.iter().enumerate() {
            match values {
                Values::Numbers(numbers) => plan.put_number(column, numbers[row], &mut rows)?,
                Values::Texts(texts) => plan.put_text(column, texts[row].data(), &mut rows)?,
            }
        }
    }
    Ok(rows)
}

/// What the library does with a damaged file, panics included, is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work).unwrap_or_else(|_| Err(Error::data("is a damaged Parquet file")))
}

fn bad(e: ParquetError) -> Error {
    Error::data(format!("is a damaged Parquet file, or of a kind that is not read: {e}"))
}

/// A file that is read at places of its own: the crate's readers of a `File` share one position, and columns are read by
/// several threads.
struct Positioned {
    file: Arc<File>,
    at: u64,
}

impl std::io::Read for Positioned {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read_at(into, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |found| found.len())
    }
}

impl ChunkReader for Positioned {
    type T = std::io::BufReader<Positioned>;

    fn get_read(&self, start: u64) -> ::parquet::errors::Result<Self::T> {
        Ok(std::io::BufReader::new(Positioned { file: self.file.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ::parquet::errors::Result<bytes::Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(::parquet::errors::ParquetError::EOF("a column ends beyond the end of the file".to_string()));
        }
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, start)?;
        Ok(buffer.into())
    }
}

fn open(path: &Path) -> Result<SerializedFileReader<Positioned>> {
    let file = File::open(path).map_err(cannot_open)?;
    SerializedFileReader::new(Positioned { file: Arc::new(file), at: 0 }).map_err(bad)
}

fn fields(path: &Path) -> Result<Vec<Field>> {
    let found = guarded(|| {
        let reader = open(path)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let mut fields = Vec::new();
        for column in schema.columns() {
            let name = column.path().string();
            if column.max_rep_level() > 0 || column.path().parts().len() > 1 || column.max_def_level() > 1 {
                return Err(Error::data("is nested; store a flat column for each part of it")).in_dataset(&name);
            }
            let kind = kind(column.physical_type(), column.converted_type(), column.type_scale()).in_dataset(&name)?;
            fields.push(Field { name, kind, may_be_null: column.max_def_level() == 1 });
        }
        match fields.is_empty() {
            true => Err(Error::data("has no columns")),
            false => Ok(fields),
        }
    });
    found.in_file(path)
}

fn kind(physical: Physical, converted: ConvertedType, scale: i32) -> Result<Kind> {
    let unsigned = matches!(
        converted,
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
    );
    let is_decimal = converted == ConvertedType::DECIMAL && (0..=18).contains(&scale);
    let divisor = (0..scale.clamp(0, 18)).fold(1.0, |power, _| power * 10.0);
    match physical {
        Physical::BOOLEAN => Ok(Kind::Bool),
        Physical::INT32 if is_decimal => Ok(Kind::Decimal { wide: false, divisor }),
        Physical::INT64 if is_decimal => Ok(Kind::Decimal { wide: true, divisor }),
        Physical::INT32 if unsigned => Ok(Kind::Unsigned32),
        Physical::INT64 if unsigned => Ok(Kind::Unsigned64),
        Physical::INT32 => Ok(Kind::Int32),
        Physical::INT64 => Ok(Kind::Int64),
        Physical::FLOAT => Ok(Kind::Float),
        Physical::DOUBLE => Ok(Kind::Double),
        Physical::BYTE_ARRAY if converted != ConvertedType::DECIMAL => Ok(Kind::Text),
        Physical::INT96 => Err(Error::data("has timestamps of 96 bits; store them as timestamps of 64 bits")),
        _ => Err(Error::data("has bytes of fixed length, or long decimals; store it as numbers or strings")),
    }
}

/// Calls `each` with the values of some rows of all columns, how many rows they are, and how many of the file came before.
fn for_each_batch(
    inputs: &mut Inputs<'_>,
    fields: &[Field],
    mut each: impl FnMut(Vec<Values>, usize, u64) -> Result<()>,
) -> Result<()> {
    for file in 0..inputs.paths.len() {
        let path = &inputs.paths[file];
        inputs.hash(file)?;
        guarded(|| batches_of(inputs, path, fields, &mut each)).in_file(path)?;
    }
    Ok(())
}

fn batches_of(
    inputs: &mut Inputs<'_>,
    path: &Path,
    fields: &[Field],
    each: &mut impl FnMut(Vec<Values>, usize, u64) -> Result<()>,
) -> Result<()> {
    let at_once = (BATCH_VALUES / fields.len()).max(16);
    let reader = open(path)?;
    let mut first_row = 0;
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(bad)?;
        if group.num_columns() != fields.len() {
            return Err(changed());
        }
        let mut columns = Vec::new();
        for (column, field) in fields.iter().enumerate() {
            columns.push((field, group.get_column_reader(column).map_err(bad)?));
        }
        let n_rows = group.metadata().num_rows();
        let stored = group.metadata().compressed_size().max(0) as u64;
        let mut left = usize::try_from(n_rows).map_err(|_| Error::data("has a group of a negative number of rows"))?;
        while left > 0 {
            let n = left.min(at_once);
            let values: Vec<Result<Values>> =
                columns.par_iter_mut().map(|(field, reader)| read(field, reader, n).in_dataset(&field.name)).collect();
            each(values.into_iter().collect::<Result<_>>()?, n, first_row)?;
            left -= n;
            first_row += n as u64;
            inputs.count((stored as f64 * n as f64 / n_rows as f64) as u64);
        }
    }
    Ok(())
}

/// The next `n` values of a column.
fn read(field: &Field, reader: &mut ColumnReader, n: usize) -> Result<Values> {
    let nullable = field.may_be_null;
    let numbers = |values: Result<Vec<Number>>| values.map(Values::Numbers);
    match (field.kind, reader) {
        (Kind::Bool, ColumnReader::BoolColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Whole(value.into())))
        }
        (Kind::Int32, ColumnReader::Int32ColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Whole(value.into())))
        }
        (Kind::Unsigned32, ColumnReader::Int32ColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Whole((value as u32).into())))
        }
        (Kind::Int64, ColumnReader::Int64ColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Whole(value.into())))
        }
        (Kind::Unsigned64, ColumnReader::Int64ColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Whole((value as u64).into())))
        }
        (Kind::Decimal { wide: false, divisor }, ColumnReader::Int32ColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Float(f64::from(value) / divisor)))
        }
        (Kind::Decimal { wide: true, divisor }, ColumnReader::Int64ColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::Float(value as f64 / divisor)))
        }
        (Kind::Float, ColumnReader::FloatColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, |value| Number::of_f64(value.into())))
        }
        (Kind::Double, ColumnReader::DoubleColumnReader(from)) => {
            numbers(take(from, n, nullable, Number::Missing, Number::of_f64))
        }
        (Kind::Text, ColumnReader::ByteArrayColumnReader(from)) => {
            take(from, n, nullable, ByteArray::from(Vec::new()), |text| text).map(Values::Texts)
        }
        _ => Err(changed()),
    }
}

fn take<T: DataType, V: Clone>(
    from: &mut ColumnReaderImpl<T>,
    n: usize,
    may_be_null: bool,
    missing: V,
    of: impl Fn(T::T) -> V,
) -> Result<Vec<V>> {
    let (mut levels, mut stored) = (Vec::new(), Vec::new());
    let (n_read, ..) = from.read_records(n, may_be_null.then_some(&mut levels), None, &mut stored).map_err(bad)?;
    if n_read < n || (may_be_null && levels.len() != n) {
        return Err(Error::data("has fewer values than its row group has rows"));
    }
    let mut stored = stored.into_iter().map(of);
    let damaged = || Error::data("has fewer values than it says");
    match may_be_null {
        true => levels
            .iter()
            .map(|&level| if level == 0 { Ok(missing.clone()) } else { stored.next().ok_or_else(damaged) })
            .collect(),
        false => Ok(stored.collect()),
    }
}
