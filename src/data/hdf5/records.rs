//! Elements of a compound dataset read whole and once, for all the fields that are taken from them.

use super::stored_rows::StoredRows;
use crate::error::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Where in an element the values of a field lie, one after another.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) offset: usize,
    pub(crate) n_bytes: usize,
    pub(crate) element_bytes: usize,
    pub(crate) big_endian: bool,
}

/// A compound dataset, and the rows of it that were read last.
pub(crate) struct Records {
    pub(crate) stored: StoredRows,
    last: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    rows: Range<u64>,
    bytes: Vec<u8>,
}

/// One field of all elements.
pub(crate) struct RecordField {
    pub(crate) records: Arc<Records>,
    pub(crate) window: Window,
}

impl Records {
    pub(crate) fn new(stored: StoredRows) -> Records {
        Records { stored, last: Mutex::default() }
    }

    /// Reads rows, of which fields are then taken. Not collective.
    pub(crate) fn load(&self, rows: Range<u64>) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.load(&self.stored, rows)
    }
}

impl Loaded {
    fn load(&mut self, stored: &StoredRows, rows: Range<u64>) -> Result<()> {
        self.rows = 0..0;
        self.bytes.resize((rows.end - rows.start) as usize * stored.row_bytes(), 0);
        stored.read(rows.clone(), &mut self.bytes)?;
        self.rows = rows;
        Ok(())
    }
}

impl RecordField {
    pub(crate) fn element_bytes(&self) -> usize {
        self.window.element_bytes
    }

    /// Reads whole rows: (rows, elements of a row, window), in the byte order of this machine. Not collective.
    pub(crate) fn read(&self, rows: Range<u64>, into: &mut [u8]) -> Result<()> {
        const TASK_ELEMENTS: usize = 1 << 14;
        let (stored, window) = (&self.records.stored, self.window);
        let mut last = self.records.last.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.start < last.rows.start || rows.end > last.rows.end {
            last.load(stored, rows.clone())?;
        }
        let first = (rows.start - last.rows.start) as usize * stored.row_bytes();
        let elements = &last.bytes[first..first + (rows.end - rows.start) as usize * stored.row_bytes()];
        let tasks = into.par_chunks_mut(TASK_ELEMENTS * window.n_bytes);
        tasks.zip(elements.par_chunks(TASK_ELEMENTS * stored.element_bytes())).for_each(|(into, elements)| {
            let elements = elements.chunks_exact(stored.element_bytes());
            match window.n_bytes {
                1 => take::<1>(elements, window.offset, into),
                2 => take::<2>(elements, window.offset, into),
                4 => take::<4>(elements, window.offset, into),
                8 => take::<8>(elements, window.offset, into),
                n => into.chunks_exact_mut(n).zip(elements).for_each(|(to, element)| {
                    to.copy_from_slice(&element[window.offset..window.offset + n]);
                }),
            }
            if window.big_endian {
                into.chunks_exact_mut(window.element_bytes).for_each(<[u8]>::reverse);
            }
        });
        Ok(())
    }
}

/// Bytes `offset..offset + B` of each element: a length known to the compiler is copied without a call.
fn take<'e, const B: usize>(elements: impl Iterator<Item = &'e [u8]>, offset: usize, into: &mut [u8]) {
    for (to, element) in into.as_chunks_mut::<B>().0.iter_mut().zip(elements) {
        to.copy_from_slice(&element[offset..offset + B]);
    }
}
