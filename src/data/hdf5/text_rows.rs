//! Rows of strings of any length, read past the HDF5 library: their descriptors as all stored elements, then what those lead to.

use super::chunks::{StoredIndex, open_raw};
use super::heap::{Allowance, Heap};
use super::records::RecordField;
use super::stored_rows::{Decoders, StoredRows};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// Strings of a dataset or of a field of one.
pub(crate) struct TextRows {
    pub(crate) descriptors: Descriptors,
    heap: Heap,
}

/// The way to the descriptors of strings.
pub(crate) enum Descriptors {
    Alone(Box<StoredRows>),
    InRecords(RecordField),
}

impl TextRows {
    /// `heap`: that of the file that the descriptors were written to.
    pub(crate) fn new(descriptors: Descriptors, heap: Heap) -> TextRows {
        TextRows { descriptors, heap }
    }

    /// Of a dataset that is read once. Errors: why the library has to read it.
    pub(crate) fn of(dataset: &hdf5::Dataset) -> std::result::Result<TextRows, &'static str> {
        const KEEP_BYTES: u64 = 8 << 20;
        let (index, sizes) = StoredIndex::of_text(dataset, false)?;
        let file = Arc::new(open_raw(&index.file).map_err(|_| "its file cannot be opened by name")?);
        let heap = Heap::new(file.clone(), index.file_bytes, sizes, KEEP_BYTES);
        let descriptors = StoredRows::new(index, file, Arc::<Decoders>::default(), KEEP_BYTES);
        Ok(TextRows::new(Descriptors::Alone(Box::new(descriptors)), heap))
    }

    pub(crate) fn descriptor_bytes(&self) -> usize {
        self.heap.descriptor_bytes()
    }

    /// As [`Heap::allowance`].
    pub(crate) fn allowance(&self, n: u64) -> Allowance {
        self.heap.allowance(n)
    }

    /// Those of these rows of which something was written, as far as chunks tell.
    pub(crate) fn written(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        match &self.descriptors {
            Descriptors::Alone(stored) => stored.index.written(rows),
            Descriptors::InRecords(_) => vec![rows.clone()],
        }
    }

    /// Reads whole rows of `width` strings: one call of `each` per string with its number from the first row on and its bytes. Not
    /// collective.
    ///
    /// Errors: those of `each`, what cannot be read or decoded, and a string that the file does not hold, with its row.
    pub(crate) fn read(
        &self,
        rows: Range<u64>,
        width: usize,
        allowance: &mut Allowance,
        scratch: &mut Vec<u64>,
        mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let n_bytes = (rows.end - rows.start) as usize * width * self.descriptor_bytes();
        scratch.resize(scratch.len().max(n_bytes.div_ceil(8)), 0);
        let descriptors = &mut bytemuck::cast_slice_mut::<u64, u8>(scratch)[..n_bytes];
        match &self.descriptors {
            Descriptors::Alone(stored) => stored.read(rows.clone(), descriptors)?,
            Descriptors::InRecords(field) => field.read(rows.clone(), descriptors)?,
        }
        self.heap.read(descriptors, allowance, |index, text| match text {
            Ok(text) => each(index, text),
            Err(why) => {
                let row = rows.start + (index / width) as u64;
                Err(Error::data(format!("the string at row {row} cannot be read: {why}")))
            }
        })
    }
}

#[cfg(test)]
#[path = "text_rows_tests.rs"]
pub(crate) mod tests;
