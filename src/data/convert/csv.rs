//! Comma-separated values, and other separators. A first pass finds rows, types and categories, a second writes.

use super::input::Inputs;
use super::number::parse;
use super::pieces::{Cutter, Piece, for_each};
use super::table::{Column, Dictionary, Plan, Rows, TableSink};
use super::{ConvertOptions, ConvertReport, Format, target_column};
use crate::data::crew::{Crew, Kind, Shared, Work};
use crate::data::hdf5::write::{Writer, changed};
use crate::error::{Error, InContext, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read};

/// How the files are written, the same for all.
struct Layout {
    separator: Option<u8>,
    header: Option<bool>,
}

/// What one file says about itself.
#[derive(Clone, Serialize, Deserialize)]
struct Head {
    separator: u8,
    /// Names, if its first record is a header.
    names: Option<Vec<String>>,
    n_columns: usize,
}

/// Numeric columns become `X`, each text column a dataset of its own, the target `y`.
pub(super) fn convert(inputs: &mut Inputs<'_>, writer: &Writer, options: &ConvertOptions) -> Result<ConvertReport> {
    let layout = Layout { separator: options.separator, header: options.header };
    let heads = heads(inputs, &layout)?;
    let first = &inputs.paths[0];
    let names: Vec<String> = match &heads[0].names {
        Some(names) => names.clone(),
        None => (0..heads[0].n_columns).map(|column| format!("column{column}")).collect(),
    };
    let target = target_column(&names, options)?;
    let scan = scan(inputs, &heads, &names)?;
    if scan.n_rows == 0 {
        return Err(Error::data("has no rows")).in_file(first);
    }
    let n_rows = scan.n_rows;
    let plan = Plan::of(scan.settle(inputs)?, target, writer).in_file(first)?;
    let storing = Shared::new(inputs.crew, Storing { heads, plan })?;
    let Storing { heads, plan } = storing.work();
    let mut sink = TableSink::new(plan, writer, inputs.crew, n_rows)?;
    inputs.begin("writing");
    for_each(
        inputs,
        &mut (),
        |()| &storing,
        |file, start| Cutter::quoted(heads[file].separator, start),
        |(), _, rows| sink.push(&rows),
    )?;
    sink.finish()?;
    let (features, n_columns) = plan.features();
    Ok(ConvertReport { format: Format::Csv, n_rows, features, n_columns, target: plan.target() })
}

impl Layout {
    /// As told, or whichever of tab, semicolon and comma the first line has.
    fn separator(&self, start: &[u8]) -> u8 {
        let line = start.split(|&byte| byte == b'\n').next().unwrap_or(&[]);
        let found = || [b'\t', b';', b','].into_iter().find(|separator| line.contains(separator));
        self.separator.or_else(found).unwrap_or(b',')
    }
}

/// Looks at the first record of every file. Errors: files that do not fit together.
fn heads(inputs: &Inputs<'_>, layout: &Layout) -> Result<Vec<Head>> {
    let mut heads: Vec<Head> = Vec::new();
    for (file, path) in inputs.paths.iter().enumerate() {
        let head = head(inputs, file, layout).in_file(path)?;
        if let Some(first) = heads.first() {
            if head.n_columns != first.n_columns {
                let message = format!("has {} columns where the first file has {}", head.n_columns, first.n_columns);
                return Err(Error::data(message)).in_file(path);
            }
            if head.names.is_some() && head.names != first.names {
                return Err(Error::data("names its columns otherwise than the first file")).in_file(path);
            }
        }
        heads.push(head);
    }
    Ok(heads)
}

fn head(inputs: &Inputs<'_>, file: usize, layout: &Layout) -> Result<Head> {
    let mut stream = inputs.open(file)?;
    let start = stream.fill_buf().map_err(super::input::cannot_read)?;
    let separator = layout.separator(start);
    let mut rows = reader(separator, stream.take(64 << 20));
    let mut record = ::csv::ByteRecord::new();
    let found = rows.read_byte_record(&mut record).map_err(|e| Error::data(format!("cannot read: {e}")))?;
    if !found {
        return Err(Error::data("has no rows"));
    }
    let is_number = |field: &[u8]| std::str::from_utf8(field).is_ok_and(|field| field.trim().parse::<f64>().is_ok());
    let has_header = layout.header.unwrap_or_else(|| !record.iter().any(is_number));
    let name = |(column, field): (usize, &[u8])| match String::from_utf8_lossy(field).trim() {
        "" => format!("column{column}"),
        name => name.replace('\0', "_"),
    };
    let names = has_header.then(|| record.iter().enumerate().map(name).collect());
    Ok(Head { separator, names, n_columns: record.len() })
}

fn reader<R: Read>(separator: u8, from: R) -> ::csv::Reader<R> {
    ::csv::ReaderBuilder::new().delimiter(separator).has_headers(false).flexible(true).from_reader(from)
}

/// Calls `each` with every row of the piece and where it begins. Errors: a row with another number of fields.
fn records(
    piece: &Piece<'_>,
    head: &Head,
    mut each: impl FnMut(usize, &::csv::ByteRecord) -> Result<()>,
) -> Result<()> {
    let mut rows = reader(head.separator, &piece.bytes[..]);
    let mut record = ::csv::ByteRecord::new();
    let mut is_header = piece.is_first && head.names.is_some();
    while rows.read_byte_record(&mut record).map_err(|e| Error::data(format!("cannot read: {e}")))? {
        if std::mem::take(&mut is_header) {
            continue;
        }
        let begin = record.position().map_or(0, |at| at.byte() as usize);
        if record.len() != head.n_columns {
            let (line, found, expected) = (piece.line(begin), record.len(), head.n_columns);
            return Err(Error::data(format!("line {line}: has {found} fields where the others have {expected}")));
        }
        each(begin, &record)?;
    }
    Ok(())
}

/// Where something stands: file and line.
type Spot = (usize, u64);

/// What a pass has seen of a column.
#[derive(Clone, Default, Serialize, Deserialize)]
struct ColumnScan {
    column: Column,
    infinite: Option<Spot>,
    too_long: Option<Spot>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(in crate::data) struct Scan {
    n_rows: u64,
    columns: Vec<ColumnScan>,
    /// A column turned out to be of strings after numbers: those have to be looked at as strings.
    again: bool,
}

/// Every value of every file is looked at.
fn scan(inputs: &mut Inputs<'_>, heads: &[Head], names: &[String]) -> Result<Scan> {
    let named = |name: &String| ColumnScan {
        column: Column { name: name.clone(), ..Column::default() },
        ..ColumnScan::default()
    };
    let mut scan = Scan { columns: names.iter().map(named).collect(), ..Scan::default() };
    let crew: &dyn Crew = inputs.crew;
    loop {
        inputs.begin("reading");
        let shared = |scan: &Scan| Shared::new(crew, Scanning { heads: heads.to_vec(), is_text: scan.is_text() });
        let mut state = (shared(&scan)?, scan);
        for_each(
            inputs,
            &mut state,
            |(scanning, _)| scanning,
            |file, start| Cutter::quoted(heads[file].separator, start),
            |(scanning, scan), piece, found| {
                scan.merge(found, piece, heads)?;
                if scan.is_text() != scanning.work().is_text {
                    *scanning = shared(scan)?;
                }
                Ok(())
            },
        )?;
        scan = state.1;
        if !scan.again {
            return Ok(scan);
        }
        scan = scan.with_texts_only();
    }
}

/// The work of looking at pieces.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Scanning {
    heads: Vec<Head>,
    /// Columns that are known to be of strings.
    is_text: Vec<bool>,
}

impl Work for Scanning {
    const KIND: Kind = Kind::CsvScan;
    type Job<'a> = Piece<'a>;
    type Done = Scan;
    type Tool = ();

    fn run(&self, piece: &Piece<'_>, (): &mut ()) -> Result<Scan> {
        scan_piece(piece, &self.heads[piece.file], &self.is_text)
    }
}

/// The work of turning pieces into rows.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Storing {
    heads: Vec<Head>,
    plan: Plan,
}

impl Work for Storing {
    const KIND: Kind = Kind::CsvRows;
    type Job<'a> = Piece<'a>;
    type Done = Rows;
    type Tool = ();

    fn run(&self, piece: &Piece<'_>, (): &mut ()) -> Result<Rows> {
        rows_of(piece, &self.heads[piece.file], &self.plan)
    }
}

fn scan_piece(piece: &Piece<'_>, head: &Head, is_text: &[bool]) -> Result<Scan> {
    let mut is_text = is_text.to_vec();
    loop {
        let fresh = |&is_text: &bool| ColumnScan {
            column: Column { text: is_text.then(Dictionary::default), ..Column::default() },
            ..ColumnScan::default()
        };
        let mut scan = Scan { columns: is_text.iter().map(fresh).collect(), ..Scan::default() };
        records(piece, head, |begin, record| {
            for (at, field) in record.iter().enumerate() {
                let scanned = &mut scan.columns[at];
                if let Some(text) = &mut scanned.column.text {
                    text.add(field)
                        .map_err(|e| Error::data(format!("line {}: column {}: {e}", piece.line(begin), at + 1)))?;
                    continue;
                }
                let Some(written) = parse(field) else {
                    is_text[at] = true;
                    scan.again = true;
                    continue;
                };
                let spot = || (piece.file, piece.line(begin));
                if written.too_long {
                    scanned.too_long.get_or_insert_with(spot);
                    scanned.column.seen.add_long(written.number);
                } else {
                    scanned.column.seen.add(written.number);
                }
                if written.number.is_infinite() {
                    scanned.infinite.get_or_insert_with(spot);
                }
            }
            scan.n_rows += 1;
            Ok(())
        })?;
        if !scan.again {
            return Ok(scan);
        }
    }
}

impl Scan {
    fn is_text(&self) -> Vec<bool> {
        self.columns.iter().map(|scanned| scanned.column.text.is_some()).collect()
    }

    fn merge(&mut self, mut found: Scan, piece: &Piece<'_>, heads: &[Head]) -> Result<()> {
        let known = self.is_text();
        if known.iter().zip(found.is_text()).any(|(known, found)| *known && !found) {
            found = scan_piece(piece, &heads[piece.file], &known)?;
        }
        for (of, found) in self.columns.iter_mut().zip(found.columns) {
            match (&mut of.column.text, found.column.text) {
                (Some(text), Some(found)) => text.merge(found),
                (None, Some(found)) => {
                    self.again |= self.n_rows > 0;
                    of.column.text = Some(found);
                }
                _ => {}
            }
            of.column.seen.merge(&found.column.seen);
            of.infinite = of.infinite.or(found.infinite);
            of.too_long = of.too_long.or(found.too_long);
        }
        self.n_rows += found.n_rows;
        Ok(())
    }

    /// Nothing seen yet but which columns are of strings.
    fn with_texts_only(&self) -> Scan {
        let fresh = |of: &ColumnScan| ColumnScan {
            column: Column {
                name: of.column.name.clone(),
                text: of.column.text.as_ref().map(|_| Dictionary::default()),
                ..Column::default()
            },
            ..ColumnScan::default()
        };
        Scan { columns: self.columns.iter().map(fresh).collect(), ..Scan::default() }
    }

    /// Errors: numbers that cannot be stored, with file and line.
    fn settle(self, inputs: &Inputs<'_>) -> Result<Vec<Column>> {
        let mut columns = Vec::new();
        for scanned in self.columns {
            let name = &scanned.column.name;
            let refuse = |spot: Spot, what: &str| {
                Err(Error::data(format!("line {}: '{name}' {what}", spot.1))).in_file(&inputs.paths[spot.0])
            };
            let is_number = scanned.column.text.is_none();
            if let Some(spot) = scanned.infinite.filter(|_| is_number) {
                return refuse(spot, "is infinite or too large a number; write a finite number, or leave it empty");
            }
            if let Some(spot) = scanned.too_long.filter(|_| is_number && !scanned.column.seen.as_float) {
                return refuse(
                    spot,
                    "is a whole number of more than 64 bits; write it with a point to have it rounded",
                );
            }
            columns.push(scanned.column);
        }
        Ok(columns)
    }
}

fn rows_of(piece: &Piece<'_>, head: &Head, plan: &Plan) -> Result<Rows> {
    let mut rows = plan.rows();
    records(piece, head, |_, record| {
        for (column, field) in record.iter().enumerate() {
            match plan.is_text(column) {
                true => plan.put_text(column, field, &mut rows)?,
                false => plan.put_number(column, parse(field).ok_or_else(changed)?.number, &mut rows)?,
            }
        }
        Ok(())
    })?;
    Ok(rows)
}
