//! A table in one or many HDF5 files, read by rows as its index says.

use super::chunks::{Stamp, StoredIndex, open_raw};
use super::field::{Access, FieldIndex, Found, Whole};
use super::heap::Heap;
use super::index::Sizes;
use super::library::LibraryRows;
use super::other_files;
use super::read::{Bytes, Field, FromNumber, Wide, bad_weight, not_finite, pieces_of};
use super::records::{RecordField, Records, Window};
use super::sound::open_with_cache;
use super::stored_rows::{Decoders, StoredRows};
use super::table::{Fields, TableIndex};
use super::text_rows::{Descriptors, TextRows};
use super::types::{Element, open_to_read, reason};
use crate::data::canonical::Value;
use crate::data::names::{Need, TableNames};
use crate::data::scratch::file_in;
use crate::data::{Block, DataSource, Schema, Targets, ValueCount, Values};
use crate::error::{Error, InContext, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files kept open at a time; a table of more files opens them as it reads.
const MAX_OPEN_FILES: usize = 32;
/// Of each further reader, which goes through the rows in order; there may be many.
const MAX_OPEN_BESIDE: usize = 2;
/// Decoded chunks kept for all datasets of a file together, unless told otherwise.
const KEEP_BYTES: u64 = 64 << 20;
/// What is read by one call for each thread when no chunk is larger: converted while it is still in the processor's cache.
const PIECE_BYTES: u64 = 1 << 20;

/// A table in one or many HDF5 files, their rows one after another in the order given.
///
/// Not collective. Files are opened to read only and without locks, past the HDF5 library where the index says how. At most
/// 32 are open at a time.
pub struct Hdf5Source {
    index: Arc<TableIndex>,
    /// The parts whose files are open.
    parts: Vec<Option<OpenPart>>,
    /// Indices of those, the longest unused first.
    recent: Vec<usize>,
    max_open: usize,
    keep_bytes: u64,
    piece_bytes: u64,
    decoders: Arc<Decoders>,
    /// Chunks that were decoded to a file of this node.
    decoded: Option<Arc<Decoded>>,
    /// Reused between reads: elements before conversion. u64 so that it is aligned for every number.
    scratch: Vec<u64>,
}

/// A file without a name, which is gone when it is closed, and what is where in it.
struct Decoded {
    file: Arc<File>,
    /// By part and path of the dataset, or of the field of one.
    datasets: BTreeMap<(usize, String), StoredIndex>,
}

/// The open datasets of one file.
struct OpenPart {
    fields: Fields<Field>,
    /// The compound datasets among them, by path.
    records: BTreeMap<String, Arc<Records>>,
    piece_bytes: u64,
    files: Vec<OpenFile>,
}

struct OpenFile {
    path: PathBuf,
    file: Arc<File>,
    stamp: Stamp,
}

impl Hdf5Source {
    /// Opens a table by looking at its files. Not collective.
    ///
    /// Errors: as [`TableIndex::of`].
    pub fn open(paths: &[PathBuf], names: &TableNames, need: Need) -> Result<Hdf5Source> {
        TableIndex::of(paths, names, need).map(Hdf5Source::of_index)
    }

    /// The table of an index that this rank or another has made. Files are opened when they are read. Not collective.
    pub fn of_index(index: TableIndex) -> Hdf5Source {
        Hdf5Source {
            parts: index.parts.iter().map(|_| None).collect(),
            index: Arc::new(index),
            recent: Vec::new(),
            max_open: MAX_OPEN_FILES,
            keep_bytes: KEEP_BYTES,
            piece_bytes: PIECE_BYTES,
            decoders: Arc::default(),
            decoded: None,
            scratch: Vec::new(),
        }
    }

    /// From now on the table has only these of its rows, counted from 0 again, as if the files had no others. Not collective.
    ///
    /// Errors: rows that the table does not have (usage).
    pub fn keep_rows(&mut self, rows: Range<u64>) -> Result<()> {
        let schema = &mut Arc::make_mut(&mut self.index).schema;
        let n_rows = schema.n_rows;
        if rows.is_empty() || rows.end > n_rows {
            let message = format!("--rows {}..{}: the table has rows 0..{n_rows}", rows.start, rows.end);
            return Err(Error::usage(message));
        }
        schema.first_file_row += rows.start;
        schema.n_rows = rows.end - rows.start;
        Ok(())
    }

    /// The names that were settled on, features as datasets. `relative()` of it reads the like table elsewhere.
    pub fn names(&self) -> &TableNames {
        &self.index.names
    }

    /// As [`TableIndex::through_library`].
    pub fn through_library(&self) -> Vec<(String, String)> {
        self.index.through_library()
    }

    /// The type of the first feature if it is stored as whole numbers.
    pub(crate) fn first_whole(&self) -> Option<Whole> {
        let first = self.index.parts.iter().find(|part| part.n_rows > 0);
        first.and_then(|part| part.fields.features.first()).and_then(FieldIndex::whole)
    }

    /// The only feature of a table as stored: no float comes between, so numbers beyond 2⁵³ stay what they are.
    /// `T`: what [`first_whole`](Self::first_whole) says. Not collective.
    pub(crate) fn read_whole<T: Wide>(&mut self, rows: Range<u64>) -> Result<Vec<T>> {
        let wanted = self.first_whole();
        let mut all = vec![T::default(); (rows.end - rows.start) as usize];
        self.visit_parts(rows, |part, local, slot, _| {
            let field = &part.fields.features[0];
            let n_rows = (local.end - local.start) as usize;
            match field.index.whole() == wanted {
                true => field.read_whole(local, &mut all[slot..slot + n_rows]),
                false => Err(Error::data("is not stored as in the first file")).in_dataset(&field.index.path),
            }
        })?;
        Ok(all)
    }

    /// Calls `visit` with each file that has some of these rows, its own numbers of them, and how many of
    /// `rows` come before.
    fn visit_parts(
        &mut self,
        rows: Range<u64>,
        mut visit: impl FnMut(&OpenPart, Range<u64>, usize, &mut Vec<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut slot = 0;
        for (number, local) in self.parts_of(rows) {
            let path = self.index.parts[number].path.clone();
            let n_rows = (local.end - local.start) as usize;
            self.open_part(number).in_file(&path)?;
            if let Some(part) = &self.parts[number] {
                visit(part, local, slot, &mut self.scratch).in_file(&path)?;
                part.check_unchanged().in_file(&path)?;
            }
            slot += n_rows;
        }
        Ok(())
    }

    /// The files that have some of these rows of the table, and their own numbers of them.
    fn parts_of(&self, rows: Range<u64>) -> Vec<(usize, Range<u64>)> {
        let first = self.index.schema.first_file_row;
        let rows = first + rows.start..first + rows.end;
        let all = &self.index.parts;
        let mut found = Vec::new();
        for number in all.partition_point(|part| part.first_row + part.n_rows <= rows.start)..all.len() {
            let part = &all[number];
            if part.first_row >= rows.end {
                break;
            }
            let here = rows.start.max(part.first_row)..rows.end.min(part.first_row + part.n_rows);
            if !here.is_empty() {
                found.push((number, here.start - part.first_row..here.end - part.first_row));
            }
        }
        found
    }

    fn close_all(&mut self) {
        self.parts.iter_mut().for_each(|part| *part = None);
        self.recent.clear();
    }

    /// Opens the part's file if it is not, closing the longest unused.
    fn open_part(&mut self, number: usize) -> Result<()> {
        if self.parts[number].is_none() {
            self.parts[number] = Some(self.open_fields(number)?);
        }
        self.recent.retain(|&other| other != number);
        self.recent.push(number);
        if self.recent.len() > self.max_open {
            let closed = self.recent.remove(0);
            self.parts[closed] = None;
        }
        Ok(())
    }
}

impl DataSource for Hdf5Source {
    fn schema(&self) -> &Schema {
        &self.index.schema
    }

    /// # Panics
    /// If `rows` reaches beyond the table.
    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        let n_rows = self.index.schema.n_rows;
        assert!(rows.start <= rows.end && rows.end <= n_rows, "rows {rows:?} of {n_rows}");
        into.reset(&self.index.schema, rows.clone());
        self.visit_parts(rows, |part, local, slot, scratch| {
            part.each_piece(local, slot, |rows, slot| {
                part.fields.read_features(rows.clone(), slot, into, scratch)?;
                part.fields.read_labels(rows, slot, into, scratch)
            })
        })
    }

    fn read_labels(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        into.reset(&self.index.schema, rows.clone());
        self.visit_parts(rows, |part, local, slot, scratch| {
            part.each_piece(local, slot, |rows, slot| part.fields.read_labels(rows, slot, into, scratch))
        })
    }

    /// Each chunk that holds some of the rows is decoded once. The file has no name: it is gone when the source is.
    fn decode_to(&mut self, folder: &Path, rows: Range<u64>) -> Result<()> {
        self.decoded = None;
        let file = Arc::new(file_in(folder)?);
        let mut datasets = BTreeMap::new();
        let mut n_bytes = 0;
        for (number, local) in self.parts_of(rows) {
            let path = self.index.parts[number].path.clone();
            self.open_part(number).in_file(&path)?;
            let Some(part) = &self.parts[number] else { continue };
            for (name, stored, rows) in part.all_stored(local).in_file(&path)? {
                if !stored.is_plain() {
                    let decoded = stored.decode_to(rows, &file, n_bytes);
                    let (index, more) = decoded.in_dataset(name).in_file(&path)?;
                    datasets.insert((number, name.to_string()), index);
                    n_bytes += more;
                }
            }
            part.check_unchanged().in_file(&path)?;
        }
        self.decoded = Some(Arc::new(Decoded { file, datasets }));
        self.close_all();
        Ok(())
    }

    fn count_values(&mut self, blocks: &[Range<u64>]) -> Result<ValueCount> {
        if !self.index.schema.is_sparse {
            // A string takes as much as so many values.
            let text = self.index.parts.iter().map(|part| part.text_bytes().div_ceil(8)).max().unwrap_or(0);
            let more_targets = self.index.schema.n_targets().saturating_sub(1);
            return Ok(ValueCount::dense(blocks, self.index.schema.columns.len() + more_targets + text as usize));
        }
        ValueCount::of(blocks, |rows| {
            let mut n_values = 0;
            self.visit_parts(rows, |part, local, _, _| {
                if let Some(sparse) = &part.fields.sparse {
                    n_values += sparse.count(local)?;
                }
                Ok(())
            })?;
            Ok(n_values)
        })
    }

    /// Of the dataset with most bytes a row, in the file with most rows.
    fn chunk_rows(&self) -> u64 {
        let Some(part) = self.index.parts.iter().max_by_key(|part| part.n_rows) else { return 1 };
        let row_bytes = |field: &&FieldIndex| field.width * field.element.memory_bytes();
        let widest = part.fields.of_rows().max_by_key(row_bytes).filter(|_| self.decoded.is_none());
        widest.map_or(1, |field| field.chunk_rows.clamp(1, part.n_rows.max(1)))
    }

    /// It opens files of its own: the system reads ahead by open file.
    fn another(&self) -> Option<Box<dyn DataSource>> {
        Some(Box::new(Hdf5Source {
            index: self.index.clone(),
            parts: self.parts.iter().map(|_| None).collect(),
            recent: Vec::new(),
            max_open: MAX_OPEN_BESIDE,
            keep_bytes: self.keep_bytes,
            piece_bytes: self.piece_bytes,
            decoders: self.decoders.clone(),
            decoded: self.decoded.clone(),
            scratch: Vec::new(),
        }))
    }

    fn limit_memory(&mut self, bytes: u64) {
        self.keep_bytes = bytes / 3; // and half as much again while chunks side by side are decoded
        self.piece_bytes = (bytes / 8).clamp(1 << 16, PIECE_BYTES);
        self.close_all();
    }
}

impl Hdf5Source {
    /// Opens the datasets of a part: those whose bytes are known past the library, the others through it.
    fn open_fields(&self, number: usize) -> Result<OpenPart> {
        let part = &self.index.parts[number];
        let mut files: Vec<OpenFile> = Vec::new();
        let mut library = None;
        // Chunks of all datasets are likely to hold as many rows.
        let row_bytes = |field: &FieldIndex| match field.element {
            // The descriptor, and as much again for what it leads to.
            Element::Text => 32 * field.width as u64,
            element => (field.width * element.memory_bytes()).max(1) as u64,
        };
        let all_bytes = part.fields.all().map(row_bytes).sum::<u64>().max(1);
        let share = |bytes: u64| {
            (u128::from(self.keep_bytes) * u128::from(bytes.min(all_bytes)) / u128::from(all_bytes)) as u64
        };
        let stored_rows =
            |files: &mut Vec<OpenFile>, name: &str, stored: &StoredIndex, keep_bytes: u64| -> Result<StoredRows> {
                let decoded = self.decoded.as_deref();
                let decoded = decoded.and_then(|all| Some((all, all.datasets.get(&(number, name.to_string()))?)));
                let (stored, file) = match decoded {
                    Some((all, stored)) => (stored, all.file.clone()),
                    None => (stored, open_once(files, &stored.file, stored.file_bytes)?),
                };
                Ok(StoredRows::new(stored.clone(), file, self.decoders.clone(), keep_bytes))
            };
        let mut records = BTreeMap::new();
        for (name, stored) in &part.records {
            let rows = stored_rows(&mut files, name, stored, share(stored.row_bytes() as u64))?;
            records.insert(name.clone(), Arc::new(Records::new(rows)));
        }
        let heap = |files: &mut Vec<OpenFile>, stored: &StoredIndex, sizes: Sizes, keep_bytes: u64| -> Result<Heap> {
            let file = open_once(files, &stored.file, stored.file_bytes)?;
            Ok(Heap::new(file, stored.file_bytes, sizes, keep_bytes))
        };
        let mut open = |field: &FieldIndex| -> Result<Field> {
            let in_records = |window: Window| match records.get(&field.dataset) {
                Some(records) => Ok(RecordField { records: records.clone(), window }),
                None => Err(Error::internal("a field without its dataset")).in_dataset(&field.path),
            };
            let keep_bytes = share(row_bytes(field));
            let bytes = match &field.access {
                Access::Direct(stored) => {
                    Bytes::Stored(Box::new(stored_rows(&mut files, &field.path, stored, keep_bytes)?))
                }
                Access::InRecords(window) => Bytes::Record(in_records(*window)?),
                Access::Text(stored, sizes) => {
                    let rows = stored_rows(&mut files, &field.path, stored, keep_bytes / 2)?;
                    let heap = heap(&mut files, stored, *sizes, keep_bytes / 2)?;
                    Bytes::Text(TextRows::new(Descriptors::Alone(Box::new(rows)), heap))
                }
                Access::TextInRecords(window, sizes) => {
                    let descriptors = in_records(*window)?;
                    let stored = &part.records[&field.dataset];
                    let heap = heap(&mut files, stored, *sizes, keep_bytes / 2)?;
                    Bytes::Text(TextRows::new(Descriptors::InRecords(descriptors), heap))
                }
                Access::Library(_) => {
                    let file = match &library {
                        Some(file) => file,
                        None => library.insert(open_to_read(&part.path).map_err(without_place(&part.path))?),
                    };
                    Bytes::Library(open_in_library(file, field, keep_bytes).in_dataset(&field.path)?)
                }
            };
            Ok(Field { index: field.clone(), bytes, piece_bytes: self.piece_bytes })
        };
        let fields = part.fields.try_map(&mut open)?;
        Ok(OpenPart { fields, records, piece_bytes: self.piece_bytes, files })
    }
}

/// Opens a dataset, or a field of one, through the library.
fn open_in_library(file: &hdf5::File, field: &FieldIndex, keep_bytes: u64) -> Result<LibraryRows> {
    // Chunks of one run of rows stay decoded, so that reads that cut them do not decode them again.
    let row_bytes = field.width as u64 * field.element.memory_bytes() as u64;
    let cache = field.chunk_rows.saturating_mul(row_bytes).saturating_mul(2).min(keep_bytes);
    let dataset = open_with_cache(file, &field.dataset, cache as usize)
        .map_err(|e| Error::data(format!("cannot be opened: {}", reason(&e))))?;
    other_files::check(&dataset)?;
    let member = match field.path == field.dataset {
        true => None,
        false => Found::at(file, &field.path)?.member,
    };
    let rows = LibraryRows::new(dataset, member);
    match rows.shape() == field.shape {
        true => Ok(rows),
        false => Err(Error::data(CHANGED)),
    }
}

impl OpenPart {
    /// Every dataset that is read past the library, by path, and which of its elements these rows need.
    fn all_stored(&self, rows: Range<u64>) -> Result<Vec<(&str, &StoredRows, Range<u64>)>> {
        let mut fields: Vec<_> = self.fields.of_rows().map(|field| (field, rows.clone())).collect();
        if let Some(sparse) = &self.fields.sparse {
            fields.extend(sparse.elements_of(rows.clone())?);
        }
        let alone = fields.into_iter().filter_map(|(field, elements)| match &field.bytes {
            Bytes::Stored(stored) => Some((field.index.path.as_str(), &**stored, elements)),
            Bytes::Text(TextRows { descriptors: Descriptors::Alone(stored), .. }) => {
                Some((field.index.path.as_str(), &**stored, elements))
            }
            _ => None,
        });
        let records = self.records.iter().map(|(path, records)| (path.as_str(), &records.stored, rows.clone()));
        Ok(alone.chain(records).collect())
    }

    /// Calls `visit` with runs of these rows, and each one's slot: the fields of compound datasets are taken from elements that
    /// are read once for all of them, so many as may be in memory.
    fn each_piece(
        &self,
        rows: Range<u64>,
        slot: usize,
        mut visit: impl FnMut(Range<u64>, usize) -> Result<()>,
    ) -> Result<()> {
        let n_bytes = 4 * rayon::current_num_threads() as u64 * self.piece_bytes;
        let step = self.records.values().map(|records| records.stored.rows_in(n_bytes)).max().unwrap_or(u64::MAX);
        let first = rows.start;
        for piece in pieces_of(rows, step) {
            for (path, records) in &self.records {
                records.load(piece.clone()).in_dataset(path)?;
            }
            visit(piece.clone(), slot + (piece.start - first) as usize)?;
        }
        Ok(())
    }

    /// Errors: a file was written to since it was opened.
    fn check_unchanged(&self) -> Result<()> {
        for file in &self.files {
            if Stamp::of(&file.file)? != file.stamp {
                return Err(Error::data(CHANGED));
            }
        }
        Ok(())
    }
}

const CHANGED: &str = "was changed while it was read; do not write to it meanwhile, or train on a copy";

/// The raw file of this name, opened once.
fn open_once(files: &mut Vec<OpenFile>, path: &Path, n_bytes: u64) -> Result<Arc<File>> {
    if let Some(open) = files.iter().find(|open| open.path == path) {
        return Ok(open.file.clone());
    }
    let file = Arc::new(open_raw(path)?);
    let stamp = Stamp::of(&file)?;
    if stamp.n_bytes != n_bytes {
        return Err(Error::data(format!(
            "has {} bytes here and had {n_bytes} when it was looked at: it was changed, or nodes see different files under this name",
            stamp.n_bytes
        )));
    }
    files.push(OpenFile { path: path.to_path_buf(), file: file.clone(), stamp });
    Ok(file)
}

/// `open_to_read` names the file already; the callers here name it once, outermost.
pub(super) fn without_place(path: &Path) -> impl Fn(Error) -> Error {
    let prefix = format!("{}: ", path.display());
    move |e| {
        let text = e.to_string();
        Error::new(e.kind(), text.strip_prefix(&prefix).unwrap_or(&text))
    }
}

impl Fields<Field> {
    /// Reads rows of this file into the block from its row `slot` on.
    fn read_features(&self, rows: Range<u64>, slot: usize, into: &mut Block, scratch: &mut Vec<u64>) -> Result<()> {
        match &mut into.values {
            Values::F32(values) => self.read_numbers(rows.clone(), slot, values, scratch)?,
            Values::F64(values) => self.read_numbers(rows.clone(), slot, values, scratch)?,
            Values::Sparse(all) => match &self.sparse {
                Some(sparse) => sparse.read(rows.clone(), all, scratch)?,
                None => return Err(Error::internal("read dense features as sparse ones")),
            },
        }
        let mut first_text = 0;
        for field in self.features.iter().filter(|field| field.index.is_text()) {
            let columns = &mut into.text[first_text..first_text + field.index.width];
            field.read_strings(rows.clone(), scratch, |column, text| columns[column].push(text.unwrap_or_default()))?;
            first_text += field.index.width;
        }
        Ok(())
    }

    /// Targets, weights and offsets.
    fn read_labels(&self, rows: Range<u64>, slot: usize, into: &mut Block, scratch: &mut Vec<u64>) -> Result<()> {
        let n_rows = (rows.end - rows.start) as usize;
        let of_row: usize = self.targets.iter().map(|field| field.index.width).sum();
        let mut at = 0;
        for field in &self.targets {
            match &mut into.target {
                Targets::Number(target) => {
                    let here = &mut target[slot * of_row..(slot + n_rows) * of_row];
                    field.read_checked(rows.clone(), here, of_row, at, scratch, not_finite)?;
                    at += field.index.width;
                }
                Targets::Text(target) => {
                    let mut none = None;
                    field.read_strings(rows.clone(), scratch, |_, text| {
                        if text.is_none() && none.is_none() {
                            none = Some(rows.start + (target.len() - slot) as u64);
                        }
                        target.push(text.unwrap_or_default());
                    })?;
                    if let Some(row) = none {
                        let what = format!("has no category at row {row}; give it one or leave the row out");
                        return Err(Error::data(what)).in_dataset(&field.index.path);
                    }
                }
                Targets::None => {}
            }
        }
        if let (Some(field), Some(weight)) = (&self.weight, &mut into.weight) {
            field.read_checked(rows.clone(), &mut weight[slot..slot + n_rows], 1, 0, scratch, bad_weight)?;
        }
        if let (Some(field), Some(offset)) = (&self.offset, &mut into.offset) {
            let here = &mut offset[slot..slot + n_rows];
            field.read_checked(rows, here, 1, 0, scratch, not_finite)?;
        }
        Ok(())
    }

    fn read_numbers<V: Value + FromNumber>(
        &self,
        rows: Range<u64>,
        slot: usize,
        values: &mut [V],
        scratch: &mut Vec<u64>,
    ) -> Result<()> {
        let numeric = || self.features.iter().filter(|field| !field.index.is_text());
        let stride: usize = numeric().map(|field| field.index.width).sum();
        let n_rows = (rows.end - rows.start) as usize;
        let here = &mut values[slot * stride..(slot + n_rows) * stride];
        let mut at = 0;
        let mut first_column = 0;
        for field in &self.features {
            if !field.index.is_text() {
                if field.read_numbers(rows.clone(), here, stride, at, scratch)? {
                    return Err(field.infinite_in(here, stride, at, first_column, rows.start));
                }
                at += field.index.width;
            }
            first_column += field.index.width;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(unsafe_code)] // odd types are written through calls of the HDF5 library that its crate does not wrap
#[path = "source_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "odd_tests.rs"]
mod odd_tests;

#[cfg(test)]
#[path = "corpus_tests.rs"]
mod corpus_tests;
