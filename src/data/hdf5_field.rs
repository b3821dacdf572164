//! One dataset of a table: checked when it is opened, then read by rows into columns of a block.

use super::canonical::{Value, canonicalise};
use super::hdf5_chunks::{Opened, StoredRows};
use super::hdf5_find::{column_names, element_of, shape_of, shape_text};
use super::hdf5_types::{
    BitByte, Element, Native, filters_of, number_attribute, open_dataset, read_fixed_text, read_rows, read_text,
    reason, trim_fixed,
};
use super::{ColumnKind, TargetKind};
use crate::error::{Error, InContext, Result};
use hdf5::{Dataset, File};
use rayon::prelude::*;
use std::ops::Range;

/// What is read by one call when no chunk is larger: converted while it is still in the processor's cache.
const PIECE_BYTES: u64 = 1 << 20;
/// Values that one task converts.
const TASK_VALUES: usize = 1 << 16;

/// One dataset, and where its columns go.
pub(crate) struct Field {
    pub(crate) dataset: Dataset,
    pub(crate) path: String,
    pub(crate) shape: Vec<u64>,
    /// Columns: the product of the trailing axes.
    pub(crate) width: usize,
    pub(crate) element: Element,
    pub(crate) names: Vec<String>,
    /// Rows of a chunk; 0 where the dataset is not chunked.
    pub(crate) chunk_rows: u64,
    pub(crate) packing: Packing,
    /// Where its bytes lie, or why the library has to read them.
    pub(crate) stored: std::result::Result<StoredRows, &'static str>,
}

/// What holds all whole numbers of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    I64,
    U64,
}

/// The netCDF conventions: value = stored × scale + offset, and stored values that mean "missing".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Packing {
    scale_offset: Option<(f64, f64)>,
    missing: [Option<f64>; 2],
}

impl Field {
    pub(crate) fn open(file: &File, path: &str, cache_bytes: u64, opened: &mut Opened) -> Result<Field> {
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
        let stored = StoredRows::of(&dataset, cache_bytes, opened);
        Ok(Field { dataset, path: path.to_string(), shape, width, element, names, chunk_rows, packing, stored })
    }

    pub(crate) fn must_be_one_column(self, text_allowed: bool) -> Result<Field> {
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

    pub(crate) fn kind(&self) -> ColumnKind {
        match self.element {
            _ if self.element.is_text() => ColumnKind::Text,
            _ if self.packing.scale_offset.is_some() => ColumnKind::Wide,
            Element::Integer { bytes: 1 | 2, .. } | Element::Bool | Element::Bits => ColumnKind::Narrow,
            Element::Float { bytes: 4 } => ColumnKind::Narrow,
            _ => ColumnKind::Wide,
        }
    }

    pub(crate) fn target_kind(&self) -> TargetKind {
        match self.element {
            _ if self.packing != Packing::default() => TargetKind::Float,
            Element::Integer { .. } => TargetKind::Integer,
            Element::Bool | Element::Bits => TargetKind::Bool,
            Element::Float { .. } => TargetKind::Float,
            Element::FixedText { .. } | Element::Text => TargetKind::Text,
        }
    }

    /// The type of whole numbers, if they mean what is stored.
    pub(crate) fn whole(&self) -> Option<Whole> {
        match self.element {
            _ if self.packing != Packing::default() => None,
            Element::Integer { bytes: 8, signed: false } => Some(Whole::U64),
            Element::Integer { .. } => Some(Whole::I64),
            _ => None,
        }
    }

    /// Reads (rows, width) whole numbers; HDF5 widens them to `T`.
    pub(crate) fn read_whole<T: Native>(&self, rows: Range<u64>, into: &mut [T]) -> Result<()> {
        self.read_rows(rows, into)
    }

    /// `rows` cut into runs that end where chunks end: of about a megabyte, or of several for all threads.
    fn pieces(&self, rows: Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let row_bytes = self.width as u64 * self.element.memory_bytes() as u64;
        let n_threads = if self.stored.is_ok() { 4 * rayon::current_num_threads() as u64 } else { 1 };
        let wanted = (n_threads * PIECE_BYTES / row_bytes.max(1)).max(1);
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

    /// Reads whole rows as `T`: past the library where their bytes are those of a `T`.
    fn read_rows<T: Native>(&self, rows: Range<u64>, into: &mut [T]) -> Result<()> {
        let cannot = |why: String| {
            Error::data(format!("cannot read rows {}..{} of '{}': {why}", rows.start, rows.end, self.path))
        };
        match &self.stored {
            Ok(stored) if stored.element_bytes() == size_of::<T>() => {
                stored.read(rows.clone(), bytemuck::cast_slice_mut(into)).map_err(|e| cannot(e.to_string()))
            }
            _ => read_rows(&self.dataset, &self.shape, rows.clone(), into).map_err(|e| cannot(reason(&e))),
        }
    }

    /// Reads numbers into columns `at..at + width` of `into`, which is (rows, `stride`). Canonical.
    /// Says whether one is infinite.
    pub(crate) fn read_numbers<V: Value + FromNumber>(
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
            self.read_rows(piece, here)?;
            infinite |= here.par_chunks_mut(TASK_VALUES).map(canonicalise).reduce(|| false, |a, b| a | b);
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
            self.read_rows(piece.clone(), stored)?;
            let slots = (piece.start - first) as usize..(piece.end - first) as usize;
            let plain = self.packing == Packing::default();
            let task_rows = (TASK_VALUES / stride).max(1);
            let tasks = into[slots.start * stride..slots.end * stride].par_chunks_mut(task_rows * stride);
            let converted = tasks.zip(stored.par_chunks(task_rows * self.width)).map(|(into, stored)| {
                let mut infinite = false;
                for (row, stored) in into.chunks_exact_mut(stride).zip(stored.chunks_exact(self.width)) {
                    for (value, &number) in row[at..at + self.width].iter_mut().zip(stored) {
                        *value =
                            if plain { V::of(number) } else { V::of(self.packing.unpack(number.to_f64())) }.canonical();
                        infinite |= value.is_infinite();
                    }
                }
                infinite
            });
            infinite |= converted.reduce(|| false, |a, b| a | b);
        }
        Ok(infinite)
    }

    /// Reads strings, one call of `each(column, text)` per element in row order.
    pub(crate) fn read_strings(
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
pub(crate) trait FromNumber: Native {
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

impl Field {
    /// Names the first infinite value. `first_column` counts columns of the whole table.
    pub(crate) fn infinite_in<V: Value>(
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

    pub(crate) fn read_one_column(
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
