//! A table in one or many HDF5 files, read through the HDF5 library by hyperslab.

use super::canonical::{Value, canonicalise};
use super::hdf5_find::{column_names, element_of, resolve, shape_of, shape_text};
use super::hdf5_types::{
    BitByte, Element, Native, filters_of, number_attribute, open_dataset, open_to_read, read_fixed_text, read_rows,
    read_text, reason, trim_fixed,
};
use super::names::{Need, TableNames, join};
use super::{Block, Column, ColumnKind, DataSource, Schema, TargetKind, Targets, Values};
use crate::error::{Error, InContext, Result};
use hdf5::{Dataset, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Files kept open at a time; a table of more files opens them as it reads.
const MAX_OPEN_FILES: usize = 32;
/// Decoded chunks kept for all datasets of a file together.
const CHUNK_CACHE_BYTES: u64 = 64 << 20;
/// What is read by one call when no chunk is larger: converted while it is still in the processor's cache.
const PIECE_BYTES: u64 = 1 << 20;

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
    /// Bytes and modification time (ns since 1970) when it was opened first.
    stamp: (u64, u128),
}

/// The open datasets of one file.
struct Fields {
    features: Vec<Field>,
    target: Option<Field>,
    weight: Option<Field>,
    offset: Option<Field>,
}

/// One dataset, and where its columns go.
struct Field {
    dataset: Dataset,
    path: String,
    shape: Vec<u64>,
    /// Columns: the product of the trailing axes.
    width: usize,
    element: Element,
    names: Vec<String>,
    /// Rows of a chunk; 0 where the dataset is not chunked.
    chunk_rows: u64,
    packing: Packing,
}

/// The netCDF conventions: value = stored × scale + offset, and stored values that mean "missing".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Packing {
    scale_offset: Option<(f64, f64)>,
    missing: [Option<f64>; 2],
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
            schema: Schema { n_rows: 0, columns: Vec::new(), target: None, has_weight: false, has_offset: false },
            names: names.clone(),
            parts: Vec::new(),
            open: Vec::new(),
            need,
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
                source.schema = Schema { n_rows: 0, ..schema };
            } else {
                source.check_like_first(&schema, &fields, first).in_file(path)?;
            }
            let first_row = source.schema.n_rows;
            source.schema.n_rows += n_rows;
            let stamp = stamp(path).in_file(path)?;
            source.parts.push(Part {
                path: path.clone(),
                names: found,
                first_row,
                n_rows,
                fields: Some(fields),
                stamp,
            });
            source.note_use(index);
        }
        if source.schema.n_rows == 0 {
            return Err(Error::data("has no rows")).in_file(first);
        }
        Ok(source)
    }

    /// The names that were settled on, features as datasets. `relative()` of it reads the like table elsewhere.
    pub fn names(&self) -> &TableNames {
        &self.names
    }

    /// A number that is equal on ranks that see the same files: of sizes, modification times and schema,
    /// not of the values. Not collective.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for part in &self.parts {
            hasher.update(&part.stamp.0.to_le_bytes());
            hasher.update(&part.stamp.1.to_le_bytes());
            hasher.update(&part.n_rows.to_le_bytes());
        }
        hasher.update(format!("{:?}", self.schema).as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Rows of a chunk of the first feature dataset, or 0 if it is contiguous: reads that begin and end
    /// at its multiples decode each chunk once.
    pub fn chunk_rows(&self) -> u64 {
        let fields = self.parts.first().and_then(|part| part.fields.as_ref());
        fields.and_then(|fields| fields.features.first()).map_or(0, |field| field.chunk_rows)
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
                fields.read(local, slot, into, &mut self.scratch).in_file(&path)?;
            }
        }
        Ok(())
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
    let mut features = Vec::new();
    for path in &paths {
        features.push(Field::open(&file, path, cache).in_dataset(path)?);
    }
    unique_names(&mut features);
    let single = |path: Option<String>, text: bool| match path {
        Some(path) => Field::open(&file, &path, cache)
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

impl Field {
    fn open(file: &File, path: &str, cache_bytes: u64) -> Result<Field> {
        let probe = file.dataset(path).map_err(|e| Error::data(format!("cannot be opened: {}", reason(&e))))?;
        let shape = shape_of(&probe);
        let element = element_of(&probe)?;
        if let Some(missing) = filters_of(&probe)?.into_iter().find(|filter| !filter.available) {
            return Err(Error::data(format!(
                "is compressed with the filter {} (number {}), for which no decoder is here; install the plugin and set \
                 HDF5_PLUGIN_PATH, or rewrite the file with h5repack -f GZIP=1 where it can be read",
                missing.name, missing.id
            )));
        }
        if shape.is_empty() {
            return Err(Error::data("is a single value, not a column; leave it out with --features"));
        }
        let width = shape[1..].iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let width = match width {
            Some(0) => {
                return Err(Error::data(format!("has no columns (its shape is {})", shape_text(&shape))));
            }
            Some(width) if width <= u32::MAX as u64 => width as usize,
            _ => {
                return Err(Error::data(format!("has too many columns (its shape is {})", shape_text(&shape))));
            }
        };
        let chunk_rows = probe.chunk().and_then(|chunk| chunk.first().copied()).unwrap_or(0) as u64;
        let band_bytes = chunk_rows.saturating_mul(width as u64).saturating_mul(element.memory_bytes() as u64);
        drop(probe);
        // Chunks of one run of rows stay decoded, so that reads that cut them do not decode them again.
        let dataset = open_dataset(file, path, band_bytes.saturating_mul(2).min(cache_bytes) as usize)
            .map_err(|e| Error::data(format!("cannot be opened: {}", reason(&e))))?;
        let base = path.rsplit('/').next().unwrap_or(path);
        let names = match column_names(&dataset, width) {
            Some(names) => names,
            None if shape.len() == 1 => vec![base.to_string()],
            None => (0..width).map(|column| format!("{base}[{column}]")).collect(),
        };
        let packing = if element.is_text() { Packing::default() } else { Packing::of(&dataset) };
        Ok(Field { dataset, path: path.to_string(), shape, width, element, names, chunk_rows, packing })
    }

    fn must_be_one_column(self, text_allowed: bool) -> Result<Field> {
        if self.width != 1 {
            return Err(Error::data(format!(
                "has shape {} where one value a row is needed; name a dataset of one column",
                shape_text(&self.shape)
            )));
        }
        if self.element.is_text() && !text_allowed {
            return Err(Error::data("holds strings where numbers are needed"));
        }
        Ok(self)
    }

    fn kind(&self) -> ColumnKind {
        match self.element {
            _ if self.element.is_text() => ColumnKind::Text,
            _ if self.packing.scale_offset.is_some() => ColumnKind::Wide,
            Element::Integer { bytes: 1 | 2, .. } | Element::Bool | Element::Bits => ColumnKind::Narrow,
            Element::Float { bytes: 4 } => ColumnKind::Narrow,
            _ => ColumnKind::Wide,
        }
    }

    fn target_kind(&self) -> TargetKind {
        match self.element {
            _ if self.packing != Packing::default() => TargetKind::Float,
            Element::Integer { .. } => TargetKind::Integer,
            Element::Bool | Element::Bits => TargetKind::Bool,
            Element::Float { .. } => TargetKind::Float,
            Element::FixedText { .. } | Element::Text => TargetKind::Text,
        }
    }

    /// `rows` cut into runs that end where chunks end and are about a megabyte.
    fn pieces(&self, rows: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let row_bytes = self.width as u64 * self.element.memory_bytes() as u64;
        let wanted = (PIECE_BYTES / row_bytes.max(1)).max(1);
        let step = match self.chunk_rows {
            0 => wanted,
            chunk => wanted.div_ceil(chunk).saturating_mul(chunk),
        };
        let mut at = rows.start;
        std::iter::from_fn(move || {
            if at >= rows.end {
                return None;
            }
            let end = (at / step + 1).saturating_mul(step).min(rows.end);
            let piece = at..end;
            at = end;
            Some(piece)
        })
    }

    fn cannot_read(&self, rows: &Range<u64>, e: &hdf5::Error) -> Error {
        Error::data(format!("cannot read rows {}..{} of '{}': {}", rows.start, rows.end, self.path, reason(e)))
    }

    /// Reads numbers into columns `at..at + width` of `into`, which is (rows, `stride`). Canonical.
    /// Says whether one is infinite.
    fn read_numbers<V: Value + FromNumber>(
        &self,
        rows: Range<u64>,
        into: &mut [V],
        stride: usize,
        at: usize,
        scratch: &mut Vec<u64>,
    ) -> Result<bool> {
        match self.element {
            Element::Integer { bytes: 1, signed: true } => self.convert::<i8, V>(rows, into, stride, at, scratch),
            Element::Integer { bytes: 2, signed: true } => self.convert::<i16, V>(rows, into, stride, at, scratch),
            Element::Integer { bytes: 4, signed: true } => self.convert::<i32, V>(rows, into, stride, at, scratch),
            Element::Integer { signed: true, .. } => self.convert::<i64, V>(rows, into, stride, at, scratch),
            Element::Integer { bytes: 1, .. } => self.convert::<u8, V>(rows, into, stride, at, scratch),
            Element::Integer { bytes: 2, .. } => self.convert::<u16, V>(rows, into, stride, at, scratch),
            Element::Integer { bytes: 4, .. } => self.convert::<u32, V>(rows, into, stride, at, scratch),
            Element::Integer { .. } => self.convert::<u64, V>(rows, into, stride, at, scratch),
            Element::Bool => self.convert::<i8, V>(rows, into, stride, at, scratch),
            Element::Bits => self.convert::<BitByte, V>(rows, into, stride, at, scratch),
            Element::Float { bytes } if bytes == size_of::<V>() && self.is_whole(stride) => self.read_as_is(rows, into),
            Element::Float { bytes: 4 } => self.convert::<f32, V>(rows, into, stride, at, scratch),
            Element::Float { .. } => self.convert::<f64, V>(rows, into, stride, at, scratch),
            Element::FixedText { .. } | Element::Text => {
                Err(Error::internal("read strings as numbers")).in_dataset(&self.path)
            }
        }
    }

    /// The dataset is all of the table's columns, as stored.
    fn is_whole(&self, stride: usize) -> bool {
        stride == self.width && self.packing == Packing::default()
    }

    fn read_as_is<V: Value + Native>(&self, rows: Range<u64>, into: &mut [V]) -> Result<bool> {
        let mut infinite = false;
        let mut rest = into;
        for piece in self.pieces(rows) {
            let (here, after) = rest.split_at_mut((piece.end - piece.start) as usize * self.width);
            read_rows(&self.dataset, &self.shape, piece.clone(), here).map_err(|e| self.cannot_read(&piece, &e))?;
            infinite |= canonicalise(here);
            rest = after;
        }
        Ok(infinite)
    }

    fn convert<T: Native, V: Value + FromNumber>(
        &self,
        rows: Range<u64>,
        into: &mut [V],
        stride: usize,
        at: usize,
        scratch: &mut Vec<u64>,
    ) -> Result<bool> {
        let mut infinite = false;
        let first = rows.start;
        for piece in self.pieces(rows) {
            let n_elements = (piece.end - piece.start) as usize * self.width;
            scratch.resize(scratch.len().max((n_elements * size_of::<T>()).div_ceil(8)), 0);
            let stored: &mut [T] = &mut bytemuck::cast_slice_mut::<u64, T>(scratch)[..n_elements];
            read_rows(&self.dataset, &self.shape, piece.clone(), stored).map_err(|e| self.cannot_read(&piece, &e))?;
            let slot = (piece.start - first) as usize;
            let plain = self.packing == Packing::default();
            for (row, stored) in stored.chunks_exact(self.width).enumerate() {
                let start = (slot + row) * stride + at;
                for (value, &number) in into[start..start + self.width].iter_mut().zip(stored) {
                    *value =
                        if plain { V::of(number) } else { V::of(self.packing.unpack(number.to_f64())) }.canonical();
                    infinite |= value.is_infinite();
                }
            }
        }
        Ok(infinite)
    }

    /// Reads strings, one call of `each(column, text)` per element in row order.
    fn read_strings(
        &self,
        rows: Range<u64>,
        scratch: &mut Vec<u64>,
        mut each: impl FnMut(usize, String),
    ) -> Result<()> {
        for piece in self.pieces(rows) {
            let mut add = |index: usize, bytes: &[u8]| match std::str::from_utf8(bytes) {
                Ok(text) => {
                    each(index % self.width, text.to_string());
                    Ok(())
                }
                Err(_) => Err(Error::data(format!(
                    "the string at row {} is not UTF-8; store it as UTF-8 or as class numbers",
                    piece.start + (index / self.width) as u64
                ))),
            };
            match self.element {
                Element::FixedText { bytes, padded_with_spaces } => {
                    let n_bytes = (piece.end - piece.start) as usize * self.width * bytes;
                    scratch.resize(scratch.len().max(n_bytes.div_ceil(8)), 0);
                    let stored = &mut bytemuck::cast_slice_mut::<u64, u8>(scratch)[..n_bytes];
                    read_fixed_text(&self.dataset, &self.shape, piece.clone(), bytes, stored).in_dataset(&self.path)?;
                    for (index, text) in stored.chunks(bytes.max(1)).enumerate() {
                        add(index, trim_fixed(text, padded_with_spaces)).in_dataset(&self.path)?;
                    }
                }
                _ => read_text(&self.dataset, &self.shape, piece.clone(), add).in_dataset(&self.path)?,
            }
        }
        Ok(())
    }
}

/// A value type that a stored number becomes, to nearest.
trait FromNumber: Native {
    fn of<T: Native>(number: T) -> Self;
}

impl FromNumber for f32 {
    #[inline(always)]
    fn of<T: Native>(number: T) -> f32 {
        number.to_f32()
    }
}

impl FromNumber for f64 {
    #[inline(always)]
    fn of<T: Native>(number: T) -> f64 {
        number.to_f64()
    }
}

impl Packing {
    fn of(dataset: &Dataset) -> Packing {
        let scale = number_attribute(dataset, "scale_factor");
        let offset = number_attribute(dataset, "add_offset");
        let scale_offset = if scale.is_some() || offset.is_some() {
            Some((scale.unwrap_or(1.0), offset.unwrap_or(0.0)))
        } else {
            None
        };
        Packing {
            scale_offset,
            missing: [number_attribute(dataset, "_FillValue"), number_attribute(dataset, "missing_value")],
        }
    }

    /// Two roundings, as `EXACT` law 10 says.
    fn unpack(self, stored: f64) -> f64 {
        if self.missing.contains(&Some(stored)) {
            return f64::NAN;
        }
        match self.scale_offset {
            Some((scale, offset)) => stored * scale + offset,
            None => stored,
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

impl Field {
    /// Names the first infinite value. `first_column` counts columns of the whole table.
    fn infinite_in<V: Value>(
        &self,
        values: &[V],
        stride: usize,
        at: usize,
        first_column: usize,
        first_row: u64,
    ) -> Error {
        for (row, values) in values.chunks_exact(stride).enumerate() {
            if let Some(column) = values[at..at + self.width].iter().position(|value| value.is_infinite()) {
                return Error::data(format!(
                    "infinite value in column {} ('{}') at row {}; store a finite number, or NaN for a missing value",
                    first_column + column,
                    self.names[column],
                    first_row + row as u64
                ))
                .at(format!("'{}'", self.path));
            }
        }
        Error::internal("an infinite value was seen and is gone")
    }

    fn read_one_column(
        &self,
        rows: Range<u64>,
        into: &mut [f64],
        scratch: &mut Vec<u64>,
        bad: impl Fn(f64) -> Option<&'static str>,
    ) -> Result<()> {
        self.read_numbers(rows.clone(), into, 1, 0, scratch)?;
        match into.iter().position(|&value| bad(value).is_some()) {
            None => Ok(()),
            Some(row) => Err(Error::data(format!(
                "{} at row {} is {}; correct it or leave the row out",
                into[row],
                rows.start + row as u64,
                bad(into[row]).unwrap_or("wrong")
            )))
            .in_dataset(&self.path),
        }
    }
}

/// Why a number cannot be a row's weight.
pub(crate) fn bad_weight(weight: f64) -> Option<&'static str> {
    if !weight.is_finite() {
        Some("not a finite number")
    } else if weight < 0.0 {
        Some("a negative weight")
    } else {
        None
    }
}

fn stamp(path: &Path) -> Result<(u64, u128)> {
    let found = std::fs::metadata(path).map_err(|e| Error::data(format!("cannot look at it: {e}")))?;
    let changed = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((found.len(), changed.map_or(0, |since| since.as_nanos())))
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
#[path = "hdf5_tests.rs"]
mod tests;
