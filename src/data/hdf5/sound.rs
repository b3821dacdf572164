//! Whether the HDF5 library may follow what has any length into the heap of its file: it crashes on a damaged one, so its values are
//! looked at first, as they are in the file.
//!
//! Datasets are opened here: to tell how one is stored, the library follows its fill value. Attributes and datasets are checked before
//! the library reads or copies them, and strings of attributes are read here.

use super::chunks::{Beside, StoredIndex};
use super::form::{Form, Holds, attribute_as_stored};
use super::heap::{Allowance, Heap};
use super::index::{self, Found, Sizes};
use super::library::LibraryRows;
use super::read::pieces_of;
use super::stored_rows::{Decoders, StoredRows};
use super::types::{has_any_length, header_address, open_dataset, reason};
use crate::error::{Error, Result};
use hdf5::{Attribute, Dataset, Group, Location};
use std::sync::Arc;

/// Collections that are kept.
const KEEP_BYTES: u64 = 4 << 20;
/// Rows read by one call.
const READ_BYTES: u64 = 8 << 20;
/// Of a row that is still looked at.
const MOST_ROW_BYTES: u64 = 1 << 30;
const ODD_TYPE: &str = "its type is too deep, or its parts do not fit into it: the file may be damaged";

/// Opens a group. Not collective.
///
/// Errors: there is none, or the library would read beyond one of its attributes.
pub(crate) fn open_group(group: &Group, name: &str) -> hdf5::Result<Group> {
    let opened = group.group(name)?;
    check_attributes(&opened).map_err(hdf5::Error::from)?;
    Ok(opened)
}

/// Opens a dataset. Not collective.
///
/// Errors: there is none, its fill value leads astray, or the library would read beyond one of its attributes.
pub(crate) fn open(group: &Group, name: &str) -> hdf5::Result<Dataset> {
    checked(group.dataset(name)?)
}

/// As [`open`]; decoded chunks are kept up to `cache_bytes`.
pub(crate) fn open_with_cache(group: &Group, name: &str, cache_bytes: usize) -> hdf5::Result<Dataset> {
    checked(open_dataset(group, name, cache_bytes)?)
}

fn checked(dataset: Dataset) -> hdf5::Result<Dataset> {
    check_attributes(&dataset).map_err(hdf5::Error::from)?;
    match check_fill(&dataset) {
        Ok(()) => Ok(dataset),
        Err(why) => Err(hdf5::Error::from(format!("its fill value cannot be read: {why}"))),
    }
}

fn check_fill(dataset: &Dataset) -> Found<()> {
    if !dataset.dtype().is_ok_and(|dtype| has_any_length(&dtype)) {
        return Ok(());
    }
    let fills = fills_of(dataset)?;
    let stored: Vec<Vec<u8>> = [fills.new, fills.old].into_iter().flatten().collect();
    if stored.is_empty() {
        return Ok(());
    }
    let mut walk = Walk::of(dataset, 1)?;
    let form = walk.form(&dataset.dtype().map_err(|_| ODD_TYPE)?)?;
    for value in stored {
        if value.len() != form.n_bytes {
            return Err("it has another size than its type");
        }
        walk.check(&form, &value)?;
    }
    Ok(())
}

/// The fill value of a dataset as it is in the file.
pub(super) fn fills_of(dataset: &Dataset) -> Found<index::Fills> {
    let Beside { file, base, .. } = Beside::of(dataset)?;
    index::fills_at(&file, base, header_address(dataset).ok_or("its header is not known")?)
}

/// Errors: the library would crash on the values of this attribute.
pub(crate) fn check_attribute(attribute: &Attribute) -> std::result::Result<(), String> {
    let dtype = attribute.dtype().map_err(|e| reason(&e))?;
    if !has_any_length(&dtype) {
        return Form::of(&dtype, 0).map(drop).ok_or_else(|| ODD_TYPE.to_string());
    }
    let mut walk = Walk::of(attribute, attribute.size() as u64)?;
    let form = walk.form(&dtype)?;
    let values = attribute_as_stored(attribute, &form).map_err(|e| reason(&e))?;
    values.chunks_exact(form.n_bytes.max(1)).try_for_each(|value| walk.check(&form, value)).map_err(str::to_string)
}

/// Errors: the library would read beyond an attribute of this object while it lists them.
pub(crate) fn check_attributes(object: &Location) -> Found<()> {
    // What cannot be looked at here the library has looked at while it opened the object.
    let (Ok(Beside { file, base, .. }), Some(header)) = (Beside::of(object), header_address(object)) else {
        return Ok(());
    };
    index::check_attributes_at(&file, base, header)
}

/// The strings of an attribute of such of any length, up to the first zero byte each.
///
/// Errors: it is not one of those, or its file does not hold them.
pub(crate) fn texts_of(attribute: &Attribute) -> std::result::Result<Vec<Vec<u8>>, String> {
    let dtype = attribute.dtype().map_err(|e| reason(&e))?;
    let Walk { heap, mut allowance } = Walk::of(attribute, attribute.size() as u64)?;
    let form = Form::of(&dtype, heap.descriptor_bytes()).ok_or(ODD_TYPE)?;
    if !matches!(form.holds, Holds::Text) {
        return Err("it does not hold strings of any length".to_string());
    }
    let descriptors = attribute_as_stored(attribute, &form).map_err(|e| reason(&e))?;
    let mut texts = Vec::new();
    heap.read(&descriptors, &mut allowance, |_, text| {
        texts.push(text?.to_vec());
        Ok(())
    })
    .map_err(|why: &str| why.to_string())?;
    Ok(texts)
}

/// Errors: the library would crash on values of this dataset, with the first such row; or they cannot be looked at. What was never
/// written is not looked at. Not collective.
///
/// Of a virtual dataset nothing is looked at: its values are in other files.
pub(crate) fn check_values(dataset: &Dataset) -> Result<()> {
    let cannot = |why: &str| Error::data(format!("cannot be read: {why}"));
    let dtype = dataset.dtype().map_err(|e| cannot(&reason(&e)))?;
    let is_virtual = dataset.layout() == hdf5::dataset::Layout::Virtual;
    if !has_any_length(&dtype) || is_virtual || dataset.storage_size() == 0 || dataset.size() == 0 {
        return Ok(());
    }
    let mut walk = Walk::of(dataset, dataset.size() as u64).map_err(cannot)?;
    let form = walk.form(&dtype).map_err(cannot)?;
    let shape: Vec<u64> = dataset.shape().iter().map(|&n| n as u64).collect();
    let width: u64 = shape.iter().skip(1).product();
    let row_bytes = width.checked_mul(form.n_bytes as u64).filter(|n| (1..=MOST_ROW_BYTES).contains(n));
    let row_bytes = row_bytes.ok_or_else(|| cannot("its rows are too long"))?;
    let n_rows = shape.first().copied().unwrap_or(1);
    let stored = StoredIndex::of_values(dataset, form.n_bytes).and_then(|index| {
        let file = std::fs::File::open(&index.file).map_err(|_| "its file cannot be opened by name")?;
        Ok(StoredRows::new(index, Arc::new(file), Arc::<Decoders>::default(), 4 * READ_BYTES))
    });
    let library = LibraryRows::new(dataset.clone(), None);
    let step = match &stored {
        Ok(stored) => stored.rows_in(READ_BYTES).min((256 << 20) / row_bytes).max(1),
        Err(_) => (READ_BYTES / row_bytes).max(1),
    };
    let mut buffer = Vec::new();
    let written = |rows: std::ops::Range<u64>| match &stored {
        Ok(stored) => stored.index.written(&rows),
        Err(_) => vec![rows],
    };
    for rows in pieces_of(0..n_rows, step).flat_map(written) {
        buffer.resize(((rows.end - rows.start) * row_bytes) as usize, 0);
        match &stored {
            Ok(stored) => stored.read_as_stored(rows.clone(), &mut buffer, &|_| ())?,
            Err(_) => library.read_as_stored(rows.clone(), &form, &mut buffer).map_err(|e| cannot(&reason(&e)))?,
        }
        for (number, value) in buffer.chunks_exact(form.n_bytes).enumerate() {
            walk.check(&form, value).map_err(|why| {
                Error::data(format!("row {} cannot be read: {why}", rows.start + number as u64 / width))
            })?;
        }
    }
    Ok(())
}

/// The heap of the file that an object is in, and what may still be read of it.
struct Walk {
    heap: Heap,
    allowance: Allowance,
}

impl Walk {
    /// For `n` values.
    fn of(object: &Location, n: u64) -> Found<Walk> {
        let heap = heap_of(object, KEEP_BYTES)?;
        let allowance = heap.allowance(n);
        Ok(Walk { heap, allowance })
    }

    fn form(&self, dtype: &hdf5::Datatype) -> Found<Form> {
        Form::of(dtype, self.heap.descriptor_bytes()).ok_or(ODD_TYPE)
    }

    /// Follows all descriptors of a value, and those that they lead to.
    fn check(&mut self, form: &Form, value: &[u8]) -> Found<()> {
        const OTHER_SIZE: &str = "a value has another size than its type";
        match &form.holds {
            Holds::Itself => Ok(()),
            Holds::Text => self.heap.follow(value, 1, false, &mut self.allowance).map(drop),
            Holds::List(of) => {
                let wanted = of.has_descriptors();
                let values = self.heap.follow(value, of.n_bytes as u64, wanted, &mut self.allowance)?;
                values.chunks_exact(of.n_bytes.max(1)).try_for_each(|value| self.check(of, value))
            }
            Holds::Values(_, of) => value.chunks_exact(of.n_bytes.max(1)).try_for_each(|value| self.check(of, value)),
            Holds::Fields(fields) => fields.iter().try_for_each(|(_, offset, of)| {
                let part = value.get(*offset..offset.saturating_add(of.n_bytes)).ok_or(OTHER_SIZE)?;
                self.check(of, part)
            }),
        }
    }
}

/// The heap of the file that an object is in. Not collective.
pub(crate) fn heap_of(object: &Location, keep_bytes: u64) -> Found<Heap> {
    // What this program is writing itself may be in memory yet.
    if let Some(file) = object.file().ok().filter(|file| !file.is_read_only()) {
        file.flush().map_err(|_| "its file cannot be written")?;
    }
    let Beside { file, file_bytes, base, .. } = Beside::of(object)?;
    let sizes = Sizes::of(&file, base)?;
    Ok(Heap::new(Arc::new(file), file_bytes, sizes, keep_bytes))
}

#[cfg(test)]
#[path = "sound_tests.rs"]
mod tests;
