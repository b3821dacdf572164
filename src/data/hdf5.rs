//! A table in one or many HDF5 files, read through the HDF5 library by hyperslab.

use super::canonical::Value;
use super::hdf5_chunks::Opened;
use super::hdf5_field::{Field, FromNumber, Whole, bad_weight};
use super::hdf5_find::resolve;
use super::hdf5_types::{Native, open_to_read};
use super::names::{Need, TableNames, join};
use super::{Block, Column, ColumnKind, DataSource, Schema, TargetKind, Targets, Values};
use crate::error::{Error, InContext, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files kept open at a time; a table of more files opens them as it reads.
const MAX_OPEN_FILES: usize = 32;
/// Decoded chunks kept for all datasets of a file together.
const CHUNK_CACHE_BYTES: u64 = 64 << 20;

/// A table in one or many HDF5 files, their rows one after another in the order given.
///
/// Not collective. Files are opened to read only and without locks. At most 32 are open at a time, each
/// with up to 64 MiB of decoded chunks.
pub struct Hdf5Source {
    schema: Schema,
    names: TableNames,
    parts: Vec<Part>,
    /// Indices of the parts whose files are open, the longest unused first.
    open: Vec<usize>,
    need: Need,
    first_whole: Option<Whole>,
    /// Reused between reads: elements before conversion. u64 so that it is aligned for every number.
    scratch: Vec<u64>,
}

/// One file's rows.
struct Part {
    path: PathBuf,
    names: TableNames,
    first_row: u64,
    n_rows: u64,
    fields: Option<Fields>,
}

/// The open datasets of one file.
struct Fields {
    features: Vec<Field>,
    target: Option<Field>,
    weight: Option<Field>,
    offset: Option<Field>,
}

impl Hdf5Source {
    /// Opens a table. Not collective.
    ///
    /// Errors: no such file or not HDF5 (data), names that are not there or not unique (usage), types that
    /// cannot be columns, filters that cannot be decoded, row counts that differ, files that do not fit together.
    pub fn open(paths: &[PathBuf], names: &TableNames, need: Need) -> Result<Hdf5Source> {
        let Some(first) = paths.first() else {
            return Err(Error::usage("no data file was named"));
        };
        let mut source = Hdf5Source {
            schema: Schema {
                n_rows: 0,
                first_file_row: 0,
                columns: Vec::new(),
                target: None,
                has_weight: false,
                has_offset: false,
            },
            names: names.clone(),
            parts: Vec::new(),
            open: Vec::new(),
            need,
            first_whole: None,
            scratch: Vec::new(),
        };
        for (index, path) in paths.iter().enumerate() {
            // The features of the first file are those of all; each file may have them in another group.
            let wanted = match index {
                0 => names.clone(),
                _ => TableNames { group: names.group.clone(), ..source.names.clone() },
            };
            let (found, fields) = open_fields(path, &wanted, need).in_file(path)?;
            let n_rows = fields.n_rows().in_file(path)?;
            let schema = fields.schema(n_rows);
            if index == 0 {
                source.names = found.clone();
                source.first_whole = fields.features.first().and_then(Field::whole);
                source.schema = Schema { n_rows: 0, ..schema };
            } else {
                source.check_like_first(&schema, &fields, first).in_file(path)?;
            }
            let first_row = source.schema.n_rows;
            source.schema.n_rows += n_rows;
            source.parts.push(Part { path: path.clone(), names: found, first_row, n_rows, fields: Some(fields) });
            source.note_use(index);
        }
        if source.schema.n_rows == 0 {
            return Err(Error::data("has 0 rows")).in_dataset(&source.names.features.join(", ")).in_file(first);
        }
        Ok(source)
    }

    /// From now on the table has only these of its rows, counted from 0 again, as if the files had no others. Not collective.
    ///
    /// Errors: rows that the table does not have (usage).
    pub fn keep_rows(&mut self, rows: Range<u64>) -> Result<()> {
        let n_rows = self.schema.n_rows;
        if rows.is_empty() || rows.end > n_rows {
            let message = format!("--rows {}..{}: the table has rows 0..{n_rows}", rows.start, rows.end);
            return Err(Error::usage(message));
        }
        self.schema.first_file_row += rows.start;
        self.schema.n_rows = rows.end - rows.start;
        Ok(())
    }

    /// The names that were settled on, features as datasets. `relative()` of it reads the like table elsewhere.
    pub fn names(&self) -> &TableNames {
        &self.names
    }

    /// The type of the first feature if it is stored as whole numbers.
    pub(crate) fn first_whole(&self) -> Option<Whole> {
        self.first_whole
    }

    /// The only feature of a table as stored: no float comes between, so numbers beyond 2⁵³ stay what they are.
    /// `T`: what [`first_whole`](Self::first_whole) says. Not collective.
    pub(crate) fn read_whole<T: Native + Default>(&mut self, rows: Range<u64>) -> Result<Vec<T>> {
        let wanted = self.first_whole;
        let mut all = vec![T::default(); (rows.end - rows.start) as usize];
        self.visit_parts(rows, |fields, local, slot, _| {
            let field = &fields.features[0];
            let n_rows = (local.end - local.start) as usize;
            match field.whole() == wanted {
                true => field.read_whole(local, &mut all[slot..slot + n_rows]),
                false => Err(Error::data("is not stored as in the first file")).in_dataset(&field.path),
            }
        })?;
        Ok(all)
    }

    /// Calls `visit` with the fields of each file that has some of these rows, its own numbers of them, and how many of
    /// `rows` come before.
    fn visit_parts(
        &mut self,
        rows: Range<u64>,
        mut visit: impl FnMut(&Fields, Range<u64>, usize, &mut Vec<u64>) -> Result<()>,
    ) -> Result<()> {
        let first = self.schema.first_file_row;
        let rows = first + rows.start..first + rows.end;
        let first = self.parts.partition_point(|part| part.first_row + part.n_rows <= rows.start);
        for index in first..self.parts.len() {
            let part = &self.parts[index];
            let here = rows.start.max(part.first_row)..rows.end.min(part.first_row + part.n_rows);
            if here.is_empty() {
                if part.first_row >= rows.end {
                    break;
                }
                continue;
            }
            let path = part.path.clone();
            let slot = (here.start - rows.start) as usize;
            let local = here.start - part.first_row..here.end - part.first_row;
            self.open_part(index).in_file(&path)?;
            if let Some(fields) = &self.parts[index].fields {
                visit(fields, local, slot, &mut self.scratch).in_file(&path)?;
            }
        }
        Ok(())
    }

    fn check_like_first(&self, found: &Schema, fields: &Fields, first: &Path) -> Result<()> {
        let first = first.display();
        let (here, there) = (&found.columns, &self.schema.columns);
        if here.len() != there.len() {
            return Err(Error::data(format!(
                "has {} feature columns but {first} has {}; all files of a table need the same columns",
                here.len(),
                there.len()
            )));
        }
        for (column, (a, b)) in here.iter().zip(there).enumerate() {
            if a != b {
                return Err(Error::data(format!(
                    "column {column} is '{}' ({}) but in {first} it is '{}' ({}); all files of a table need the same columns",
                    a.name,
                    kind_text(a.kind),
                    b.name,
                    kind_text(b.kind)
                )));
            }
        }
        if found.target != self.schema.target {
            let name = fields.target.as_ref().map_or("target", |field| &field.path);
            return Err(Error::data(format!(
                "target '{name}' is {} but in {first} it is {}",
                target_text(found.target),
                target_text(self.schema.target)
            )));
        }
        Ok(())
    }

    /// Opens the part's file if it is not, closing the longest unused.
    fn open_part(&mut self, index: usize) -> Result<()> {
        let part = &mut self.parts[index];
        if part.fields.is_none() {
            let (_, fields) = open_fields(&part.path, &part.names, self.need)?;
            if fields.n_rows()? != part.n_rows {
                return Err(Error::data(
                    "has another number of rows than when it was opened; do not write to it meanwhile",
                ));
            }
            part.fields = Some(fields);
        }
        self.note_use(index);
        Ok(())
    }

    fn note_use(&mut self, index: usize) {
        self.open.retain(|&other| other != index);
        self.open.push(index);
        if self.open.len() > MAX_OPEN_FILES {
            let closed = self.open.remove(0);
            self.parts[closed].fields = None;
        }
    }
}

impl DataSource for Hdf5Source {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    /// # Panics
    /// If `rows` reaches beyond the table.
    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        assert!(rows.start <= rows.end && rows.end <= self.schema.n_rows, "rows {rows:?} of {}", self.schema.n_rows);
        into.reset(&self.schema, rows.clone());
        self.visit_parts(rows, |fields, local, slot, scratch| fields.read(local, slot, into, scratch))
    }
}

/// Opens the datasets of one file.
fn open_fields(path: &Path, names: &TableNames, need: Need) -> Result<(TableNames, Fields)> {
    let file = open_to_read(path).map_err(without_place(path))?;
    let names = resolve(&file, names, need)?;
    let full = |name: &String| join(names.group.as_deref().unwrap_or(""), name);
    let with_target = need != Need::Predict;
    let paths: Vec<String> = names.features.iter().map(&full).collect();
    let target = names.target.as_ref().filter(|_| with_target).map(&full);
    let weight = names.weight.as_ref().filter(|_| with_target).map(&full);
    let offset = names.offset.as_ref().map(&full);
    let cache = CHUNK_CACHE_BYTES / (paths.len() as u64 + 3);
    let mut opened = Opened::new();
    let mut features = Vec::new();
    for path in &paths {
        features.push(Field::open(&file, path, cache, &mut opened).in_dataset(path)?);
    }
    unique_names(&mut features);
    let mut single = |path: Option<String>, text: bool| match path {
        Some(path) => Field::open(&file, &path, cache, &mut opened)
            .and_then(|field| field.must_be_one_column(text))
            .in_dataset(&path)
            .map(Some),
        None => Ok(None),
    };
    let fields = Fields {
        target: single(target, true)?,
        weight: single(weight, false)?,
        offset: single(offset, false)?,
        features,
    };
    Ok((names, fields))
}

/// `open_to_read` names the file already; the callers here name it once, outermost.
fn without_place(path: &Path) -> impl Fn(Error) -> Error {
    let prefix = format!("{}: ", path.display());
    move |e| {
        let text = e.to_string();
        Error::new(e.kind(), text.strip_prefix(&prefix).unwrap_or(&text))
    }
}

/// 1-D datasets are called by their last name; where that is not unique, by their path.
fn unique_names(features: &mut [Field]) {
    let mut counts = std::collections::BTreeMap::new();
    for name in features.iter().flat_map(|field| &field.names) {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    for field in features.iter_mut() {
        let prefix = field.path.rsplit_once('/').map_or("", |(prefix, _)| prefix).to_string();
        for name in &mut field.names {
            if counts.get(name).is_some_and(|&n| n > 1) && !prefix.is_empty() {
                *name = format!("{prefix}/{name}");
            }
        }
    }
}

impl Fields {
    fn all(&self) -> impl Iterator<Item = &Field> {
        self.features.iter().chain([&self.target, &self.weight, &self.offset].into_iter().flatten())
    }

    /// The rows that all datasets agree on.
    fn n_rows(&self) -> Result<u64> {
        let mut fields = self.all();
        let Some(first) = fields.next() else { return Ok(0) };
        for field in fields {
            if field.shape[0] != first.shape[0] {
                return Err(Error::data(format!(
                    "'{}' has {} rows but '{}' has {}; the datasets of a table need one value a row each",
                    first.path, first.shape[0], field.path, field.shape[0]
                )));
            }
        }
        Ok(first.shape[0])
    }

    fn schema(&self, n_rows: u64) -> Schema {
        let mut columns = Vec::new();
        for field in &self.features {
            columns.extend(field.names.iter().map(|name| Column { name: name.clone(), kind: field.kind() }));
        }
        Schema {
            n_rows,
            first_file_row: 0,
            columns,
            target: self.target.as_ref().map(Field::target_kind),
            has_weight: self.weight.is_some(),
            has_offset: self.offset.is_some(),
        }
    }

    /// Reads rows of this file into the block from its row `slot` on.
    fn read(&self, rows: Range<u64>, slot: usize, into: &mut Block, scratch: &mut Vec<u64>) -> Result<()> {
        match &mut into.values {
            Values::F32(values) => self.read_features(rows.clone(), slot, values, scratch)?,
            Values::F64(values) => self.read_features(rows.clone(), slot, values, scratch)?,
        }
        let mut first_text = 0;
        for field in self.features.iter().filter(|field| field.element.is_text()) {
            let columns = &mut into.text[first_text..first_text + field.width];
            field.read_strings(rows.clone(), scratch, |column, text| columns[column].push(text))?;
            first_text += field.width;
        }
        let n_rows = (rows.end - rows.start) as usize;
        if let Some(field) = &self.target {
            match &mut into.target {
                Targets::Number(target) => {
                    let here = &mut target[slot..slot + n_rows];
                    field.read_one_column(rows.clone(), here, scratch, |v| {
                        (!v.is_finite()).then_some("not a finite number")
                    })?;
                }
                Targets::Text(target) => field.read_strings(rows.clone(), scratch, |_, text| target.push(text))?,
                Targets::None => {}
            }
        }
        if let (Some(field), Some(weight)) = (&self.weight, &mut into.weight) {
            field.read_one_column(rows.clone(), &mut weight[slot..slot + n_rows], scratch, bad_weight)?;
        }
        if let (Some(field), Some(offset)) = (&self.offset, &mut into.offset) {
            let here = &mut offset[slot..slot + n_rows];
            field.read_one_column(rows, here, scratch, |v| (!v.is_finite()).then_some("not a finite number"))?;
        }
        Ok(())
    }

    fn read_features<V: Value + FromNumber>(
        &self,
        rows: Range<u64>,
        slot: usize,
        values: &mut [V],
        scratch: &mut Vec<u64>,
    ) -> Result<()> {
        let numeric = || self.features.iter().filter(|field| !field.element.is_text());
        let stride: usize = numeric().map(|field| field.width).sum();
        let n_rows = (rows.end - rows.start) as usize;
        let here = &mut values[slot * stride..(slot + n_rows) * stride];
        let mut at = 0;
        let mut first_column = 0;
        for field in &self.features {
            if !field.element.is_text() {
                if field.read_numbers(rows.clone(), here, stride, at, scratch)? {
                    return Err(field.infinite_in(here, stride, at, first_column, rows.start));
                }
                at += field.width;
            }
            first_column += field.width;
        }
        Ok(())
    }
}

fn kind_text(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Narrow => "a number of float32 precision",
        ColumnKind::Wide => "a number of more than float32 precision",
        ColumnKind::Text => "strings",
    }
}

fn target_text(kind: Option<TargetKind>) -> &'static str {
    match kind {
        None => "absent",
        Some(TargetKind::Integer) => "integers",
        Some(TargetKind::Bool) => "true or false",
        Some(TargetKind::Float) => "floating-point numbers",
        Some(TargetKind::Text) => "strings",
    }
}

#[cfg(test)]
#[allow(unsafe_code)] // odd types are written through calls of the HDF5 library that its crate does not wrap
#[path = "hdf5_tests.rs"]
mod tests;
