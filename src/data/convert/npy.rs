//! NumPy's arrays: one a file (npy), or several in an archive (npz).
//!
//! Source: NumPy Enhancement Proposal 1, "A simple file format for NumPy arrays", versions 1.0 to 3.0.

use super::array::{BLOCK_BYTES, Element, Kind, Look, blocks};
use super::input::{Inputs, cannot_open, cannot_read, read_up_to};
use super::table::{Column, Dictionary, Plan, TableSink, dataset_name};
use super::{ConvertOptions, ConvertReport, Format};
use crate::data::hdf5::write::{CHUNK_BYTES, Cell, Sink, Writer, changed};
use crate::data::names::{FEATURE_NAMES, TARGET_NAMES};
use crate::error::{Error, InContext, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longer headers are not numpy's.
const LONGEST_HEADER: usize = 1 << 20;
/// Rows of an array stored column by column that are put together at a time.
const TURNED_BYTES: usize = 64 << 20;

/// What a header says.
#[derive(Clone, Debug, PartialEq)]
struct Header {
    element: Stored,
    shape: Vec<usize>,
    /// The first axis varies fastest.
    fortran: bool,
    /// Bytes before the values.
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    Number(Element),
    /// Strings of this many bytes, padded with zeros.
    Bytes(usize),
    /// Strings of this many code points of four bytes.
    Unicode {
        points: usize,
        big_endian: bool,
    },
}

/// An array, and what becomes of it.
struct Array {
    file: usize,
    /// In the archive of that file.
    entry: Option<usize>,
    /// Its own, for messages.
    name: String,
    /// Of the dataset.
    dataset: String,
    header: Header,
}

/// `X.npy`, or `X.npy y.npy`, or one archive.
pub(super) fn convert(
    inputs: &mut Inputs<'_>,
    writer: &Writer,
    options: &ConvertOptions,
    format: Format,
    scratch: &Path,
) -> Result<ConvertReport> {
    let mut arrays = match format {
        Format::Npz => archive(inputs, writer, options)?,
        _ => files(inputs)?,
    };
    let n_rows = match arrays.iter().find(|array| array.dataset == "X") {
        Some(x) => x.header.shape[0],
        None => arrays.iter().map(|array| array.header.shape[0]).max().unwrap_or(0),
    };
    if let Some(y) = arrays.iter().find(|array| array.dataset == "y" && array.header.shape[0] != n_rows) {
        let message = format!("has {} values, but there are {n_rows} rows", y.header.shape[0]);
        return Err(Error::data(message)).in_dataset(&y.name).in_file(&inputs.paths[y.file]);
    }
    inputs.begin("reading");
    let mut cells = Vec::new();
    for array in &arrays {
        cells.push(array.look(inputs, scratch).in_dataset(&array.name).in_file(&inputs.paths[array.file])?);
    }
    inputs.begin("writing");
    for (array, found) in arrays.iter_mut().zip(cells) {
        array.write(inputs, writer, found, scratch).in_dataset(&array.name).in_file(&inputs.paths[array.file])?;
    }
    let is_feature = |array: &&Array| array.dataset != "y" && (array.dataset == "X" || array.header.shape[0] == n_rows);
    let has_x = arrays.iter().any(|array| array.dataset == "X");
    let features: Vec<&Array> =
        arrays.iter().filter(is_feature).filter(|array| !has_x || array.dataset == "X").collect();
    Ok(ConvertReport {
        format,
        n_rows: n_rows as u64,
        n_columns: features.iter().map(|array| array.header.shape[1..].iter().product::<usize>() as u64).sum(),
        features: features.into_iter().map(|array| array.dataset.clone()).collect(),
        target: arrays.iter().find(|array| array.dataset == "y").map(|_| "y".to_string()),
    })
}

/// One array is `X`; of two, the one with a single axis is `y`.
fn files(inputs: &Inputs<'_>) -> Result<Vec<Array>> {
    if inputs.paths.len() > 2 {
        let message = format!("{} npy files; give the features, and the targets if there are some", inputs.paths.len());
        return Err(Error::usage(message));
    }
    let mut arrays = Vec::new();
    for (file, path) in inputs.paths.iter().enumerate() {
        let header = inputs.open(file).and_then(|mut stream| Header::read(&mut stream)).in_file(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        arrays.push(Array { file, entry: None, name, dataset: "X".to_string(), header });
    }
    if arrays.len() == 2 {
        let y = usize::from(arrays[0].header.shape.len() != 1 || arrays[1].header.shape.len() == 1);
        if arrays[y].header.shape.len() != 1 {
            return Err(Error::usage("neither of the two npy files has a single axis, as targets have"));
        }
        arrays[y].dataset = "y".to_string();
    }
    Ok(arrays)
}

/// Arrays of an archive keep their names, but for the features and the target.
fn archive(inputs: &Inputs<'_>, writer: &Writer, options: &ConvertOptions) -> Result<Vec<Array>> {
    let [path] = inputs.paths else {
        return Err(Error::usage("one npz archive at a time; --append adds another, to another --group"));
    };
    let mut archive = open_archive(path)?;
    let mut arrays = Vec::new();
    for entry in 0..archive.len() {
        let mut from = archive.by_index(entry).map_err(bad_archive).in_file(path)?;
        let name = from.name().map_err(bad_archive).in_file(path)?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        let header = Header::read(&mut from).in_dataset(&name).in_file(path)?;
        arrays.push(Array { file: 0, entry: Some(entry), dataset: name.clone(), name, header });
    }
    if arrays.is_empty() {
        return Err(Error::data("has no array in it")).in_file(path);
    }
    let called = |names: &[&str]| names.iter().find_map(|name| arrays.iter().position(|array| array.name == *name));
    let y = match &options.target {
        Some(name) => match called(&[name]) {
            Some(at) => Some(at),
            None => {
                let names: Vec<&str> = arrays.iter().map(|array| array.name.as_str()).collect();
                let message = format!("no array '{name}'; there is: {}", names.join(", "));
                return Err(Error::usage(message)).for_flag("--target");
            }
        },
        // numpy.savez(path, X, y)
        None => called(&TARGET_NAMES).or_else(|| called(&["arr_1"]).filter(|&at| arrays[at].header.shape.len() == 1)),
    };
    let x = called(&FEATURE_NAMES).or_else(|| called(&["x", "arr_0"])).filter(|&x| Some(x) != y);
    let mut used = vec!["X".to_string(), "y".to_string()];
    for (at, array) in arrays.iter_mut().enumerate() {
        array.dataset = match at {
            at if Some(at) == x => "X".to_string(),
            at if Some(at) == y => "y".to_string(),
            _ => dataset_name(&array.name, &mut used, writer),
        };
    }
    Ok(arrays)
}

fn open_archive(path: &Path) -> Result<zip::ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(cannot_open).in_file(path)?;
    zip::ZipArchive::new(BufReader::new(file)).map_err(bad_archive).in_file(path)
}

fn bad_archive(e: zip::result::ZipError) -> Error {
    Error::data(format!("is a damaged archive: {e}"))
}

/// What a first pass found.
enum Found {
    Number(Cell),
    Text(Box<Plan>),
}

impl Array {
    /// Looks at all values. Errors: what HDF5 cannot store, or no training could use.
    fn look(&self, inputs: &mut Inputs<'_>, scratch: &Path) -> Result<Found> {
        let width: usize = self.header.shape[1..].iter().product();
        let mut first_row = 0;
        match self.header.element {
            Stored::Number(element) => {
                let mut all = Look::default();
                self.for_each_block(inputs, scratch, |block| {
                    let look = element.look_at(block);
                    if let Some(at) = look.infinite {
                        let row = first_row + at / width;
                        return Err(Error::data(format!("infinite value at row {row}; store a finite number, or NaN")));
                    }
                    first_row += block.len() / element.bytes / width;
                    all.merge(&look);
                    Ok(())
                })?;
                let narrow = if self.dataset == "X" { all.seen.narrowest() } else { all.seen.narrowest_of_kind() };
                Ok(Found::Number(match element.kind {
                    Kind::Bool => Cell::Bool,
                    _ => narrow.unwrap_or(element.cell()),
                }))
            }
            _ if self.header.shape.len() != 1 => {
                Err(Error::data("holds strings in more than one column; store each column as an array of its own"))
            }
            text => {
                let mut dictionary = Dictionary::default();
                self.for_each_block(inputs, scratch, |block| {
                    text.for_each_text(block, |text| {
                        dictionary.add(text).map_err(|e| Error::data(format!("row {first_row}: {e}")))?;
                        first_row += 1;
                        Ok(())
                    })
                })?;
                let name = self.dataset.clone();
                Ok(Found::Text(Box::new(Plan::of_text(Column { name, text: Some(dictionary), ..Column::default() }))))
            }
        }
    }

    fn write(&self, inputs: &mut Inputs<'_>, writer: &Writer, found: Found, scratch: &Path) -> Result<()> {
        let (n_rows, row_shape) = (self.header.shape[0] as u64, &self.header.shape[1..]);
        match (found, self.header.element) {
            (Found::Number(cell), Stored::Number(element)) => {
                let mut sink = Sink::new(writer, inputs.crew)?;
                let at = sink.dataset(writer, &self.dataset, cell, n_rows, row_shape, CHUNK_BYTES)?;
                let mut converted = Vec::new();
                self.for_each_block(inputs, scratch, |block| {
                    element.convert(block, cell, &mut converted).ok_or_else(changed)?;
                    sink.push(at, &converted)
                })?;
                sink.finish()
            }
            (Found::Text(plan), text) => {
                let mut sink = TableSink::new(&plan, writer, inputs.crew, n_rows)?;
                self.for_each_block(inputs, scratch, |block| {
                    let mut rows = plan.rows();
                    text.for_each_text(block, |text| plan.put_text(0, text, &mut rows))?;
                    sink.push(&rows)
                })?;
                sink.finish()
            }
            _ => Err(Error::internal("numbers are no strings")),
        }
    }

    /// Calls `each` with blocks of whole rows in row-major order, as they are stored.
    fn for_each_block(
        &self,
        inputs: &mut Inputs<'_>,
        scratch: &Path,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Header { element, ref shape, fortran, bytes: header_bytes } = self.header;
        let n_bytes = self.header.value_bytes();
        let row_bytes = (n_bytes / shape[0] as u64) as usize;
        let block_bytes = (BLOCK_BYTES / row_bytes).max(1) * row_bytes;
        let path = &inputs.paths[self.file];
        if let Some(entry) = self.entry {
            let mut archive = open_archive(path)?;
            let mut from = archive.by_index(entry).map_err(bad_archive)?;
            let packed_bytes = from.compressed_size();
            skip(&mut from, header_bytes)?;
            if fortran {
                let spilled = spill(&mut from, n_bytes, scratch)?;
                by_columns(&spilled, 0, shape, element.bytes(), each)?;
            } else {
                blocks(&mut from, n_bytes, block_bytes, each)?;
            }
            // The checksum of an array is looked at behind its last byte.
            match from.read(&mut [0]) {
                Ok(0) => {}
                Ok(_) => return Err(Error::data("holds more bytes than its header says")),
                Err(e) => return Err(bad_archive(e.into())),
            }
            inputs.count(packed_bytes);
            return Ok(());
        }
        let mut stream = inputs.open(self.file)?;
        skip(&mut stream, header_bytes)?;
        match (fortran, stream.is_gzip()) {
            (false, _) => blocks(&mut stream, n_bytes, block_bytes, |block| {
                inputs.report();
                each(block)
            })?,
            (true, true) => {
                let spilled = spill(&mut stream, n_bytes, scratch)?;
                by_columns(&spilled, 0, shape, element.bytes(), each)?;
            }
            (true, false) => {
                let file = File::open(path).map_err(cannot_open)?;
                by_columns(&file, header_bytes, shape, element.bytes(), each)?;
            }
        }
        let digest = stream.finish()?;
        inputs.note(self.file, digest)
    }
}

fn skip(from: &mut impl Read, n_bytes: u64) -> Result<()> {
    std::io::copy(&mut from.take(n_bytes), &mut std::io::sink()).map_err(cannot_read).map(|_| ())
}

/// The next bytes of a stream in a file without a name, so that they can be read in any order.
fn spill(from: &mut dyn Read, n_bytes: u64, scratch: &Path) -> Result<File> {
    let failed = |e: std::io::Error| Error::data(format!("cannot write a temporary file: {e}"));
    let mut file = tempfile::tempfile_in(scratch).map_err(failed).in_file(scratch)?;
    blocks(from, n_bytes, BLOCK_BYTES, |block| file.write_all(block).map_err(failed).in_file(scratch))?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

/// Calls `each` with blocks of rows, in row-major order, of an array whose first axis varies fastest.
fn by_columns(
    file: &File,
    offset: u64,
    shape: &[usize],
    element_bytes: usize,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (n_rows, width) = (shape[0], shape[1..].iter().product::<usize>());
    let row_bytes = width * element_bytes;
    let length = file.metadata().map_err(cannot_read)?.len();
    if (n_rows as u64 * row_bytes as u64).checked_add(offset).is_none_or(|end| end > length) {
        return Err(Error::data("ends before its values do"));
    }
    // Where the columns of row-major order are stored.
    let mut columns = vec![0usize];
    let mut stride = 1;
    for &n in &shape[1..] {
        columns = columns.iter().flat_map(|&at| (0..n).map(move |i| at + i * stride)).collect();
        stride *= n;
    }
    let at_once = (TURNED_BYTES / row_bytes).clamp(1, n_rows);
    let mut column = Vec::new();
    let mut block = vec![0; at_once * row_bytes];
    for first in (0..n_rows).step_by(at_once) {
        let n = at_once.min(n_rows - first);
        column.resize(n * element_bytes, 0);
        for (to, &from) in columns.iter().enumerate() {
            let at = offset + (from * n_rows + first) as u64 * element_bytes as u64;
            file.read_exact_at(&mut column, at).map_err(cannot_read)?;
            for (row, element) in column.chunks_exact(element_bytes).enumerate() {
                block[row * row_bytes + to * element_bytes..][..element_bytes].copy_from_slice(element);
            }
        }
        each(&block[..n * row_bytes])?;
    }
    Ok(())
}

impl Stored {
    fn bytes(self) -> usize {
        match self {
            Stored::Number(element) => element.bytes,
            Stored::Bytes(bytes) => bytes,
            Stored::Unicode { points, .. } => 4 * points,
        }
    }

    /// Strings without their padding, in UTF-8.
    fn for_each_text(self, block: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut text = String::new();
        for stored in block.chunks_exact(self.bytes()) {
            let Stored::Unicode { big_endian, .. } = self else {
                let end = stored.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                each(&stored[..end])?;
                continue;
            };
            text.clear();
            for point in stored.as_chunks::<4>().0 {
                let point = if big_endian { u32::from_be_bytes(*point) } else { u32::from_le_bytes(*point) };
                let point = char::from_u32(point).ok_or_else(|| Error::data("holds a string that is not Unicode"))?;
                text.push(point);
            }
            each(text.trim_end_matches('\0').as_bytes())?;
        }
        Ok(())
    }

    fn of(descr: &str) -> Result<Stored> {
        let refuse = |instead: &str| Err(Error::data(format!("has elements of type {descr}; {instead}")));
        let text = descr.trim_matches(['\'', '"']);
        if text.len() == descr.len() {
            return refuse("store each field as an array of its own");
        }
        let (big_endian, rest) = match text.as_bytes() {
            [b'>', rest @ ..] => (true, rest),
            [b'<' | b'|' | b'=', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let [code, digits @ ..] = rest else { return refuse("store it as numbers or strings") };
        let n = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
        let number = |kind, bytes| Ok(Stored::Number(Element { kind, bytes, big_endian }));
        match (code, n) {
            (b'b', Some(1)) => number(Kind::Bool, 1),
            (b'i', Some(bytes @ (1 | 2 | 4 | 8))) => number(Kind::Signed, bytes),
            (b'u', Some(bytes @ (1 | 2 | 4 | 8))) => number(Kind::Unsigned, bytes),
            (b'f', Some(bytes @ (2 | 4 | 8))) => number(Kind::Float, bytes),
            (b'S' | b'a', Some(bytes @ 1..=65_535)) => Ok(Stored::Bytes(bytes)),
            (b'U', Some(points @ 1..=65_535)) => Ok(Stored::Unicode { points, big_endian }),
            (b'O', _) => refuse("Python objects are not read: store numbers or fixed strings"),
            (b'c', _) => refuse("store the real and imaginary parts as two arrays"),
            _ => refuse("store it as numbers or strings"),
        }
    }
}

impl Header {
    fn read(from: &mut dyn Read) -> Result<Header> {
        let mut start = Vec::new();
        read_up_to(from, 8, &mut start)?;
        if start.len() < 8 || !start.starts_with(MAGIC) {
            return Err(Error::data("is not an array of numpy"));
        }
        let length_bytes = if start[6] == 1 { 2 } else { 4 };
        let mut length = Vec::new();
        read_up_to(from, length_bytes, &mut length)?;
        let n = length.iter().rev().fold(0usize, |n, &byte| n << 8 | usize::from(byte));
        if length.len() as u64 != length_bytes || n > LONGEST_HEADER {
            return Err(Error::data("has a damaged header"));
        }
        let mut text = Vec::new();
        if read_up_to(from, n as u64, &mut text)? < n as u64 {
            return Err(Error::data("ends within its header: it is truncated"));
        }
        let text = String::from_utf8(text).map_err(|_| Error::data("has a damaged header"))?;
        let mut header = Header::parse(&text)?;
        header.bytes = 8 + length_bytes + n as u64;
        Ok(header)
    }

    /// A Python dictionary: `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Header> {
        let damaged = || Error::data("has a damaged header");
        let after = |key: &str| {
            let found = ["'", "\""].iter().find_map(|quote| text.split_once(&format!("{quote}{key}{quote}")));
            found.and_then(|(_, rest)| rest.trim_start().strip_prefix(':')).map(str::trim_start).ok_or_else(damaged)
        };
        let descr = after("descr")?;
        let element = match descr.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                let end = descr[1..].find(quote).ok_or_else(damaged)?;
                Stored::of(&descr[..end + 2])?
            }
            _ => Stored::of("with fields")?,
        };
        let fortran = match after("fortran_order")? {
            text if text.starts_with("True") => true,
            text if text.starts_with("False") => false,
            _ => return Err(damaged()),
        };
        let shape = after("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(damaged)?.0;
        let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        let axis = |axis: &str| axis.trim_end_matches('L').parse::<usize>().map_err(|_| damaged());
        let shape: Vec<usize> = axes.map(axis).collect::<Result<_>>()?;
        if shape.is_empty() {
            return Err(Error::data("is a single value, not an array of rows"));
        }
        let n_bytes = shape.iter().try_fold(element.bytes(), |product, &n| product.checked_mul(n));
        let row_bytes = shape[1..].iter().try_fold(element.bytes(), |product, &n| product.checked_mul(n));
        if shape.len() > 32 || n_bytes.is_none_or(|n| n == 0 || n > 1 << 60) || row_bytes.is_none_or(|n| n >= 1 << 30) {
            return Err(Error::data(format!("has no values, or too many: its shape is {shape:?}")));
        }
        let fortran = fortran && shape.len() > 1;
        Ok(Header { element, shape, fortran, bytes: 0 })
    }

    fn value_bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.element.bytes() as u64
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
