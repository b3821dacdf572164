//! Rows of one dataset into columns of a block: past the HDF5 library where the index says how, else through it.

use super::field::{FieldIndex, Packing};
use super::library::{BitByte, LibraryRows, Native};
use super::records::RecordField;
use super::stored_rows::StoredRows;
use super::text_rows::TextRows;
use super::types::{Element, reason, trim_fixed};
use crate::data::canonical::{Value, canonicalise};
use crate::error::{Error, InContext, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Values that one task converts.
const TASK_VALUES: usize = 1 << 16;

/// One dataset, or a field of one, that can be read by rows.
pub(crate) struct Field {
    pub(crate) index: FieldIndex,
    pub(crate) bytes: Bytes,
    /// What is read by one call for each thread when no chunk is larger.
    pub(crate) piece_bytes: u64,
}

/// The way to a dataset's bytes.
pub(crate) enum Bytes {
    Stored(Box<StoredRows>),
    Record(RecordField),
    Text(TextRows),
    Library(LibraryRows),
}

/// Rows of about so many bytes: whole chunks of them, at least one.
pub(crate) fn whole_chunks(n_bytes: u64, row_bytes: u64, chunk_rows: u64) -> u64 {
    let wanted = (n_bytes / row_bytes.max(1)).max(1);
    match chunk_rows {
        0 => wanted,
        chunk => wanted.div_ceil(chunk).saturating_mul(chunk),
    }
}

/// `rows` cut at the multiples of `step`.
pub(crate) fn pieces_of(rows: Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = rows.start;
    std::iter::from_fn(move || {
        let end = (at / step + 1).saturating_mul(step).min(rows.end);
        let piece = at..end;
        at = end;
        (!piece.is_empty()).then_some(piece)
    })
}

impl Field {
    /// Reads (rows, width) whole numbers, widened to `T`: i64 or u64, as `FieldIndex::whole` says.
    pub(crate) fn read_whole<T: Wide>(&self, rows: Range<u64>, into: &mut [T]) -> Result<()> {
        match self.index.element {
            Element::Integer { bytes: 1, signed: true } => self.widen::<i8, T>(rows, into),
            Element::Integer { bytes: 2, signed: true } => self.widen::<i16, T>(rows, into),
            Element::Integer { bytes: 4, signed: true } => self.widen::<i32, T>(rows, into),
            Element::Integer { signed: true, .. } => self.widen::<i64, T>(rows, into),
            Element::Integer { bytes: 1, .. } => self.widen::<u8, T>(rows, into),
            Element::Integer { bytes: 2, .. } => self.widen::<u16, T>(rows, into),
            Element::Integer { bytes: 4, .. } => self.widen::<u32, T>(rows, into),
            Element::Integer { .. } => self.widen::<u64, T>(rows, into),
            _ => Err(Error::internal("read other values as whole numbers")).in_dataset(&self.index.path),
        }
    }

    fn widen<S: Native + Default, T: Wide>(&self, rows: Range<u64>, into: &mut [T]) -> Result<()> {
        let mut stored = vec![S::default(); into.len()];
        self.read_rows(rows, &mut stored)?;
        into.iter_mut().zip(stored).for_each(|(to, from)| *to = T::widen(from));
        Ok(())
    }

    /// `rows` cut into runs that end where chunks end: of about a megabyte, or of several for all threads.
    fn pieces(&self, rows: Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let n_threads = match self.bytes {
            Bytes::Stored(_) | Bytes::Record(_) | Bytes::Text(_) => 4 * rayon::current_num_threads() as u64,
            Bytes::Library(_) => 1,
        };
        let element_bytes = match &self.bytes {
            Bytes::Text(text) => text.descriptor_bytes(),
            _ => self.index.element.memory_bytes(),
        };
        let row_bytes = self.index.width as u64 * element_bytes as u64;
        pieces_of(rows, whole_chunks(n_threads * self.piece_bytes, row_bytes, self.index.chunk_rows))
    }

    /// Reads whole rows as `T`, which is what is stored.
    fn read_rows<T: Native>(&self, rows: Range<u64>, into: &mut [T]) -> Result<()> {
        let cannot = |why: String| self.cannot_read(rows.clone(), &why);
        match &self.bytes {
            Bytes::Stored(stored) => {
                assert_eq!(stored.element_bytes(), size_of::<T>(), "'{}'", self.index.path);
                stored.read(rows.clone(), bytemuck::cast_slice_mut(into)).map_err(|e| cannot(e.to_string()))
            }
            Bytes::Record(field) => {
                field.read(rows.clone(), bytemuck::cast_slice_mut(into)).map_err(|e| cannot(e.to_string()))
            }
            Bytes::Library(library) => library.read_numbers(rows.clone(), into).map_err(|e| cannot(reason(&e))),
            Bytes::Text(_) => Err(Error::internal("read strings as numbers")).in_dataset(&self.index.path),
        }
    }

    fn cannot_read(&self, rows: Range<u64>, why: &str) -> Error {
        Error::data(format!("cannot read rows {}..{} of '{}': {why}", rows.start, rows.end, self.index.path))
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
        match self.index.element {
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
            Element::Float { .. } if self.is_half() => self.convert::<half::f16, V>(rows, into, stride, at, scratch),
            Element::Float { bytes } if bytes == size_of::<V>() && self.is_whole(stride) => self.read_as_is(rows, into),
            Element::Float { bytes: 4 } => self.convert::<f32, V>(rows, into, stride, at, scratch),
            Element::Float { .. } => self.convert::<f64, V>(rows, into, stride, at, scratch),
            Element::FixedText { .. } | Element::Text => {
                Err(Error::internal("read strings as numbers")).in_dataset(&self.index.path)
            }
        }
    }

    /// Its float32 are stored as float16; the library converts them itself.
    fn is_half(&self) -> bool {
        match &self.bytes {
            Bytes::Stored(stored) => stored.element_bytes() == 2,
            Bytes::Record(field) => field.element_bytes() == 2,
            Bytes::Library(_) | Bytes::Text(_) => false,
        }
    }

    /// The dataset is all of the table's columns, as stored.
    fn is_whole(&self, stride: usize) -> bool {
        stride == self.index.width && self.index.packing == Packing::default()
    }

    fn read_as_is<V: Value + Native>(&self, rows: Range<u64>, into: &mut [V]) -> Result<bool> {
        if let Bytes::Stored(stored) = &self.bytes {
            let infinite = AtomicBool::new(false);
            let check = |piece: &mut [u8]| {
                if canonicalise(bytemuck::cast_slice_mut::<u8, V>(piece)) {
                    infinite.store(true, Ordering::Relaxed);
                }
            };
            let read = stored.read_then(rows.clone(), bytemuck::cast_slice_mut(into), &check);
            return read.map_err(|e| self.cannot_read(rows, &e.to_string())).map(|()| infinite.into_inner());
        }
        let mut infinite = false;
        let mut rest = into;
        for piece in self.pieces(rows) {
            let (here, after) = rest.split_at_mut((piece.end - piece.start) as usize * self.index.width);
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
            let n_elements = (piece.end - piece.start) as usize * self.index.width;
            scratch.resize(scratch.len().max((n_elements * size_of::<T>()).div_ceil(8)), 0);
            let stored: &mut [T] = &mut bytemuck::cast_slice_mut::<u64, T>(scratch)[..n_elements];
            self.read_rows(piece.clone(), stored)?;
            let slots = (piece.start - first) as usize..(piece.end - first) as usize;
            let plain = self.index.packing == Packing::default();
            let task_rows = (TASK_VALUES / stride).max(1);
            let tasks = into[slots.start * stride..slots.end * stride].par_chunks_mut(task_rows * stride);
            let converted = tasks.zip(stored.par_chunks(task_rows * self.index.width)).map(|(into, stored)| {
                let mut infinite = false;
                if self.is_whole(stride) {
                    for (value, &number) in into.iter_mut().zip(stored) {
                        *value = V::of(number).canonical();
                        infinite |= value.is_infinite();
                    }
                    return infinite;
                }
                for (row, stored) in into.chunks_exact_mut(stride).zip(stored.chunks_exact(self.index.width)) {
                    for (value, &number) in row[at..at + self.index.width].iter_mut().zip(stored) {
                        *value = if plain { V::of(number) } else { V::of(self.index.packing.unpack(number.to_f64())) }
                            .canonical();
                        infinite |= value.is_infinite();
                    }
                }
                infinite
            });
            infinite |= converted.reduce(|| false, |a, b| a | b);
        }
        Ok(infinite)
    }

    /// Reads strings, one call of `each(column, text)` per element in row order; None where a code says that there is none.
    pub(crate) fn read_strings(
        &self,
        rows: Range<u64>,
        scratch: &mut Vec<u64>,
        mut each: impl FnMut(usize, Option<String>),
    ) -> Result<()> {
        if let Some(categories) = &self.index.categories {
            return self.read_codes(rows, categories, each);
        }
        let mut allowance = match &self.bytes {
            Bytes::Text(text) => Some(text.allowance((rows.end - rows.start).saturating_mul(self.index.width as u64))),
            _ => None,
        };
        for piece in self.pieces(rows) {
            let mut add = |index: usize, bytes: &[u8]| match std::str::from_utf8(bytes) {
                Ok(text) => {
                    each(index % self.index.width, Some(text.to_string()));
                    Ok(())
                }
                Err(_) => Err(Error::data(format!(
                    "the string at row {} is not UTF-8; store it as UTF-8 or as class numbers",
                    piece.start + (index / self.index.width) as u64
                ))),
            };
            match (self.index.element, &self.bytes, &mut allowance) {
                (Element::FixedText { bytes, padded_with_spaces }, ..) => {
                    let n_bytes = (piece.end - piece.start) as usize * self.index.width * bytes;
                    scratch.resize(scratch.len().max(n_bytes.div_ceil(8)), 0);
                    let stored = &mut bytemuck::cast_slice_mut::<u64, u8>(scratch)[..n_bytes];
                    match &self.bytes {
                        Bytes::Stored(rows) => rows.read(piece.clone(), stored),
                        Bytes::Record(field) => field.read(piece.clone(), stored),
                        Bytes::Library(library) => library.read_fixed_text(piece.clone(), bytes, stored),
                        Bytes::Text(_) => Err(Error::internal("strings of a fixed length are not in a heap")),
                    }
                    .in_dataset(&self.index.path)?;
                    for (index, text) in stored.chunks(bytes.max(1)).enumerate() {
                        add(index, trim_fixed(text, padded_with_spaces)).in_dataset(&self.index.path)?;
                    }
                }
                (_, Bytes::Text(text), Some(allowance)) => {
                    let read = text.read(piece.clone(), self.index.width, allowance, scratch, add);
                    read.in_dataset(&self.index.path)?;
                }
                (_, Bytes::Library(library), _) => {
                    library.read_text(piece.clone(), add).in_dataset(&self.index.path)?;
                }
                (_, Bytes::Stored(_) | Bytes::Record(_) | Bytes::Text(_), _) => {
                    return Err(Error::internal("strings of any length are not in one place"));
                }
            }
        }
        Ok(())
    }

    /// Codes of strings; −1 is none, as pandas writes what is missing.
    fn read_codes(
        &self,
        rows: Range<u64>,
        categories: &[String],
        mut each: impl FnMut(usize, Option<String>),
    ) -> Result<()> {
        for piece in self.pieces(rows) {
            let mut codes = vec![0i64; (piece.end - piece.start) as usize * self.index.width];
            self.read_whole(piece.clone(), &mut codes)?;
            for (index, code) in codes.into_iter().enumerate() {
                let text = usize::try_from(code).ok().and_then(|code| categories.get(code)).cloned();
                if text.is_none() && code != -1 {
                    return Err(Error::data(format!(
                        "'{}' holds the code {code} at row {}, but it has {} categories",
                        self.index.path,
                        piece.start + (index / self.index.width) as u64,
                        categories.len()
                    )));
                }
                each(index % self.index.width, text);
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

/// A type that holds all whole numbers.
pub(crate) trait Wide: Native + Default {
    fn widen<S: Native>(number: S) -> Self;
}

impl Wide for i64 {
    fn widen<S: Native>(number: S) -> i64 {
        number.to_i64()
    }
}

impl Wide for u64 {
    fn widen<S: Native>(number: S) -> u64 {
        number.to_i64() as u64
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
            if let Some(column) = values[at..at + self.index.width].iter().position(|value| value.is_infinite()) {
                return Error::data(format!(
                    "infinite value in column {} ('{}') at row {}; store a finite number, or NaN for a missing value",
                    first_column + column,
                    self.index.names[column],
                    first_row + row as u64
                ))
                .at(format!("'{}'", self.index.path));
            }
        }
        Error::internal("an infinite value was seen and is gone")
    }

    /// As [`read_numbers`](Self::read_numbers) of numbers that all have to be good. `bad`: why one is not.
    pub(crate) fn read_checked(
        &self,
        rows: Range<u64>,
        into: &mut [f64],
        stride: usize,
        at: usize,
        scratch: &mut Vec<u64>,
        bad: impl Fn(f64) -> Option<&'static str>,
    ) -> Result<()> {
        self.read_numbers(rows.clone(), into, stride, at, scratch)?;
        let of_rows = into.chunks_exact(stride).map(|row| &row[at..at + self.index.width]);
        let found = of_rows.enumerate().find_map(|(row, values)| {
            let column = values.iter().position(|value| bad(*value).is_some())?;
            Some((row, column, values[column]))
        });
        let Some((row, column, value)) = found else { return Ok(()) };
        let of = if self.index.width > 1 { format!(" of '{}'", self.index.names[column]) } else { String::new() };
        Err(Error::data(format!(
            "{value}{of} at row {} is {}; correct it or leave the row out",
            rows.start + row as u64,
            bad(value).unwrap_or("wrong")
        )))
        .in_dataset(&self.index.path)
    }
}

/// Why a number cannot be a target or an offset.
pub(crate) fn not_finite(value: f64) -> Option<&'static str> {
    (!value.is_finite()).then_some("not a finite number")
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
