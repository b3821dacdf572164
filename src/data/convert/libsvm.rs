//! The libsvm format: `label index:value …` a row; absent values are 0. A first pass finds rows, columns and types, a second
//! writes: densely, or as compressed sparse rows.

use super::input::Inputs;
use super::number::{Number, Seen, parse, put};
use super::pieces::{Cutter, Piece, for_each};
use super::{ConvertOptions, ConvertReport, Format};
use crate::data::crew::{Kind, Plain, Shared, Work};
use crate::data::hdf5::write::{CHUNK_BYTES, Cell, Sink, SparseDatasets, Writer, changed};
use crate::error::{Error, InContext, Result};
use serde::{Deserialize, Serialize};

/// Densified rows that are handed on at a time.
const DENSE_BYTES: usize = 4 << 20;
/// Dense tables are not written larger.
const MOST_DENSE_BYTES: u128 = 1 << 42;

/// What the first pass finds.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(in crate::data) struct Scan {
    n_rows: u64,
    n_values: u64,
    has_index_0: bool,
    largest: Option<u64>,
    values: Seen,
    labels: Seen,
}

/// Stored values of some rows.
#[derive(Default, Serialize, Deserialize)]
pub(in crate::data) struct Rows {
    labels: Vec<Number>,
    /// Where each row's values end.
    ends: Plain<usize>,
    /// As written, ascending in each row.
    indices: Plain<u64>,
    values: Plain<f64>,
}

/// The work of looking at pieces.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Scanning;

impl Work for Scanning {
    const KIND: Kind = Kind::LibsvmScan;
    type Job<'a> = Piece<'a>;
    type Done = Scan;
    type Tool = ();

    fn run(&self, piece: &Piece<'_>, (): &mut ()) -> Result<Scan> {
        scan_piece(piece)
    }
}

/// The work of turning pieces into rows.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Reading;

impl Work for Reading {
    const KIND: Kind = Kind::LibsvmRows;
    type Job<'a> = Piece<'a>;
    type Done = Rows;
    type Tool = ();

    fn run(&self, piece: &Piece<'_>, (): &mut ()) -> Result<Rows> {
        rows_of(piece)
    }
}

/// Indices count from 1, unless an index 0 is there.
pub(super) fn convert(inputs: &mut Inputs<'_>, writer: &Writer, options: &ConvertOptions) -> Result<ConvertReport> {
    let mut scan = Scan::default();
    let scanning = Shared::new(inputs.crew, Scanning)?;
    inputs.begin("reading");
    for_each(
        inputs,
        &mut scan,
        |_| &scanning,
        |_, _| Cutter::lines(),
        |scan, _, found| {
            scan.merge(&found);
            Ok(())
        },
    )?;
    let first = u64::from(!scan.has_index_0);
    let n_columns = scan.largest.map_or(0, |index| index + 1 - first).max(options.n_features.unwrap_or(0) as u64);
    if scan.n_rows == 0 || n_columns == 0 {
        return Err(Error::data("has no rows or no values")).in_file(&inputs.paths[0]);
    }
    let mut sink = Sink::new(writer, inputs.crew)?;
    let label = scan.labels.narrowest_of_kind().unwrap_or(Cell::F64);
    let y = sink.dataset(writer, "y", label, scan.n_rows, &[], CHUNK_BYTES)?;
    let mut table = match options.sparse {
        true => Table::sparse(&mut sink, writer, &scan, first, n_columns)?,
        false => Table::dense(&mut sink, writer, &scan, first, n_columns).in_file(&inputs.paths[0])?,
    };
    let reading = Shared::new(inputs.crew, Reading)?;
    inputs.begin("writing");
    let mut bytes = Vec::new();
    for_each(
        inputs,
        &mut (),
        |()| &reading,
        |_, _| Cutter::lines(),
        |(), _, rows| {
            bytes.clear();
            if !rows.labels.iter().all(|&number| put(label, None, number, &mut bytes)) {
                return Err(changed());
            }
            sink.push(y, &bytes)?;
            table.push(&mut sink, &rows)
        },
    )?;
    sink.finish()?;
    Ok(ConvertReport {
        format: Format::Libsvm,
        n_rows: scan.n_rows,
        features: vec!["X".to_string()],
        n_columns,
        target: Some("y".to_string()),
    })
}

/// The datasets of the features.
enum Table {
    Dense { x: usize, cell: Cell, first: u64, n_columns: usize },
    Sparse { datasets: SparseDatasets, cell: Cell, first: u64 },
}

impl Table {
    fn dense(sink: &mut Sink<'_>, writer: &Writer, scan: &Scan, first: u64, n_columns: u64) -> Result<Table> {
        let mut values = scan.values;
        values.add(Number::Whole(0));
        let cell = values.narrowest().unwrap_or(Cell::F64);
        let n_bytes = u128::from(scan.n_rows) * u128::from(n_columns) * cell.bytes() as u128;
        if n_bytes > MOST_DENSE_BYTES {
            return Err(Error::data(format!(
                "{} rows × {n_columns} columns are too many to store densely; convert with --sparse",
                scan.n_rows
            )));
        }
        let x = sink.dataset(writer, "X", cell, scan.n_rows, &[n_columns as usize], CHUNK_BYTES)?;
        Ok(Table::Dense { x, cell, first, n_columns: n_columns as usize })
    }

    fn sparse(sink: &mut Sink<'_>, writer: &Writer, scan: &Scan, first: u64, n_columns: u64) -> Result<Table> {
        let cell = scan.values.float().unwrap_or(Cell::F64);
        let datasets = writer.sparse(sink, "X", cell, [scan.n_rows, n_columns], scan.n_values, CHUNK_BYTES)?;
        Ok(Table::Sparse { datasets, cell, first })
    }

    fn push(&mut self, sink: &mut Sink<'_>, rows: &Rows) -> Result<()> {
        match self {
            Table::Dense { x, cell, first, n_columns } => push_dense(sink, rows, *x, *cell, *first, *n_columns),
            Table::Sparse { datasets, cell, first } => {
                let mut bytes = Vec::with_capacity(rows.values.len() * cell.bytes());
                rows.values.iter().all(|&value| put(*cell, None, Number::of_f64(value), &mut bytes));
                // An index 0 that was not there before becomes a column that there is not.
                datasets.push(sink, &bytes, rows.indices.iter().map(|index| index.wrapping_sub(*first)), &rows.ends)
            }
        }
    }
}

fn push_dense(sink: &mut Sink<'_>, rows: &Rows, x: usize, cell: Cell, first: u64, n_columns: usize) -> Result<()> {
    let row_bytes = n_columns * cell.bytes();
    let at_once = (DENSE_BYTES / row_bytes).max(1);
    let (mut bytes, mut element) = (Vec::new(), Vec::new());
    let mut begin = 0;
    for ends in rows.ends.chunks(at_once) {
        bytes.clear();
        bytes.resize(ends.len() * row_bytes, 0);
        for (&end, row) in ends.iter().zip(bytes.chunks_exact_mut(row_bytes)) {
            for (&index, &value) in rows.indices[begin..end].iter().zip(&rows.values[begin..end]) {
                element.clear();
                let column = index.checked_sub(first).filter(|&column| column < n_columns as u64);
                let (Some(column), true) = (column, put(cell, None, Number::of_f64(value), &mut element)) else {
                    return Err(changed());
                };
                row[column as usize * cell.bytes()..][..cell.bytes()].copy_from_slice(&element);
            }
            begin = end;
        }
        sink.push(x, &bytes)?;
    }
    Ok(())
}

impl Scan {
    fn merge(&mut self, other: &Scan) {
        self.n_rows += other.n_rows;
        self.n_values += other.n_values;
        self.has_index_0 |= other.has_index_0;
        self.largest = self.largest.max(other.largest);
        self.values.merge(&other.values);
        self.labels.merge(&other.labels);
    }
}

fn scan_piece(piece: &Piece<'_>) -> Result<Scan> {
    let rows = rows_of(piece)?;
    let mut scan = Scan { n_rows: rows.labels.len() as u64, n_values: rows.values.len() as u64, ..Scan::default() };
    scan.has_index_0 = rows.indices.contains(&0);
    scan.largest = rows.indices.iter().copied().max();
    rows.values.iter().for_each(|&value| scan.values.add(Number::of_f64(value)));
    rows.labels.iter().for_each(|&label| scan.labels.add(label));
    Ok(scan)
}

fn rows_of(piece: &Piece<'_>) -> Result<Rows> {
    let mut rows = Rows::default();
    let mut order = Vec::new();
    for (number, line) in piece.bytes.split(|&byte| byte == b'\n').enumerate() {
        let at_line = |what: String| Error::data(format!("line {}: {what}", piece.first_line + number as u64));
        let line = line.split(|&byte| byte == b'#').next().unwrap_or(&[]);
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let Some(label) = fields.next() else { continue };
        let shown = |field: &[u8]| String::from_utf8_lossy(&field[..field.len().min(40)]).into_owned();
        let begin = rows.indices.len();
        for field in fields.filter(|field| !field.starts_with(b"qid:")) {
            let Some((index, value)) = pair(field) else {
                return Err(at_line(format!("'{}' is not index:value", shown(field))));
            };
            if value.is_infinite() {
                return Err(at_line(format!("infinite or too large value at index {index}")));
            }
            rows.indices.push(index);
            rows.values.push(value);
        }
        sort(&mut rows, begin, &mut order).map_err(|index| at_line(format!("index {index} is there twice")))?;
        rows.ends.push(rows.indices.len());
        match parse(label) {
            Some(written) if matches!(written.number, Number::Whole(_) | Number::Float(_)) => {
                if written.number.is_infinite() {
                    return Err(at_line(format!("the label '{}' is infinite or too large", shown(label))));
                }
                rows.labels.push(written.number);
            }
            _ => return Err(at_line(format!("the label '{}' is not one number", shown(label)))),
        }
    }
    Ok(rows)
}

/// `index:value`. An index has a place in an int64.
fn pair(field: &[u8]) -> Option<(u64, f64)> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    let (index, value) = (std::str::from_utf8(&field[..colon]).ok()?, std::str::from_utf8(&field[colon + 1..]).ok()?);
    let index = index.parse().ok().filter(|&index: &u64| index < i64::MAX as u64)?;
    Some((index, value.parse().ok()?))
}

/// Puts the values from `begin` on in the order of their indices. Errors: an index that is there twice.
fn sort(rows: &mut Rows, begin: usize, order: &mut Vec<(u64, f64)>) -> std::result::Result<(), u64> {
    let indices = &mut rows.indices[begin..];
    if indices.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let values = &mut rows.values[begin..];
    order.clear();
    order.extend(indices.iter().copied().zip(values.iter().copied()));
    order.sort_by_key(|&(index, _)| index);
    for (at, &(index, value)) in order.iter().enumerate() {
        (indices[at], values[at]) = (index, value);
    }
    match order.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(pair[0].0),
        None => Ok(()),
    }
}
