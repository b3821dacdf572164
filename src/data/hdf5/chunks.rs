//! Where the stored bytes of a dataset lie: found once, by one rank, through the HDF5 library and in the file's own structures.
//!
//! The library lets one thread at a time read and decode. The index travels to all ranks, which then read past it
//! ([`StoredRows`](super::stored_rows::StoredRows)). What the index cannot describe (another filter, another type) goes the
//! library's way, with the same result: the caller falls back when [`StoredIndex::of`] has a reason.

use super::compound::InFile;
use super::filters::Filter;
use super::index::{self, ChunkPlace, Sizes};
use super::types::{
    fill_bytes, filters_of, header_address, holds_references, is_any_length, read_stored, stored_bytes,
};
use crate::error::{Error, Result};
use hdf5::Dataset;
use hdf5::dataset::Layout;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// HDF5 1.10 takes time quadratic in the number of chunks to list them, some 7 ns times its square; more chunks than this are
/// not asked for.
const MOST_LISTED: u64 = 2048;

/// Where the rows of a dataset lie in its file, and what was done to them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredIndex {
    /// Behind an external link another file than that of the group.
    pub(crate) file: PathBuf,
    pub(crate) file_bytes: u64,
    /// Rows first.
    pub(super) shape: Vec<u64>,
    pub(super) element_bytes: usize,
    pub(super) big_endian: bool,
    pub(super) place: Place,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Place {
    Contiguous {
        offset: u64,
    },
    /// Small: the bytes themselves.
    Inline(Vec<u8>),
    Chunked(Chunked),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Chunked {
    /// Elements of a chunk along each axis, rows first.
    pub(super) chunk: Vec<u64>,
    /// One per chunk, row-major over the grid of chunks; None where none was written.
    pub(super) places: Places,
    /// In the order they were applied.
    pub(super) filters: Vec<Filter>,
    /// An element that was never written, as stored.
    pub(super) fill: Vec<u8>,
    /// Stored column by column: a decoded chunk has its rows along the last axis.
    pub(super) turned: bool,
}

/// Shared by all that read the dataset: there may be millions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<Option<ChunkPlace>>", into = "Vec<Option<ChunkPlace>>")]
pub(super) struct Places(Arc<Vec<Option<ChunkPlace>>>);

impl From<Vec<Option<ChunkPlace>>> for Places {
    fn from(places: Vec<Option<ChunkPlace>>) -> Places {
        Places(Arc::new(places))
    }
}

impl From<Places> for Vec<Option<ChunkPlace>> {
    fn from(places: Places) -> Vec<Option<ChunkPlace>> {
        Arc::unwrap_or_clone(places.0)
    }
}

impl std::ops::Deref for Places {
    type Target = [Option<ChunkPlace>];

    fn deref(&self) -> &[Option<ChunkPlace>] {
        &self.0
    }
}

/// The file of a dataset or attribute, which behind an external link is another one than that of its group.
pub(super) struct Beside {
    name: PathBuf,
    pub(super) file: File,
    pub(super) file_bytes: u64,
    /// Of the user block.
    pub(super) base: u64,
}

impl Beside {
    pub(super) fn of(object: &hdf5::Location) -> std::result::Result<Beside, &'static str> {
        let name = PathBuf::from(object.filename());
        let file = File::open(&name).map_err(|_| "its file cannot be opened by name")?;
        let file_bytes = file.metadata().map_err(|_| "its file cannot be looked at")?.len();
        let base = object.file().map_err(|_| "its file is not known")?.userblock();
        Ok(Beside { name, file, file_bytes, base })
    }
}

impl StoredIndex {
    /// Finds the rows of `dataset`, or says why the library has to read them. Not collective.
    ///
    /// Elements are values, or of compound datasets such that some of their fields can be descriptors of strings of any length.
    ///
    /// `transpose`: rows are the last of two axes.
    pub(crate) fn of(dataset: &Dataset, transpose: bool) -> std::result::Result<StoredIndex, &'static str> {
        let dtype = dataset.dtype().ok();
        let stored = dtype.as_ref().and_then(stored_bytes);
        let (n_bytes, big_endian) = stored.ok_or("neither a plain number, a string nor a compound type")?;
        let beside = Beside::of(dataset)?;
        let mut in_file = InFile { n_bytes, has_descriptors: false };
        if let Some(dtype) = dtype.filter(|dtype| !super::types::member_names(dtype).is_empty()) {
            let descriptor_bytes = Sizes::of(&beside.file, beside.base)?.descriptor_bytes();
            in_file = InFile::of(&dtype, descriptor_bytes).ok_or("a compound type of too many levels")?;
            // Of what has another size in memory than in the file the library tells only the former.
            in_file.has_descriptors |= holds_references(&dtype);
        }
        StoredIndex::placed(dataset, beside, in_file, big_endian, transpose)
    }

    /// As [`of`](Self::of), of strings of any length: its elements are their descriptors, which with these sizes lead to a
    /// [`Heap`](super::heap::Heap) in the same file.
    pub(crate) fn of_text(
        dataset: &Dataset,
        transpose: bool,
    ) -> std::result::Result<(StoredIndex, Sizes), &'static str> {
        if !dataset.dtype().is_ok_and(|dtype| is_any_length(&dtype)) {
            return Err("its elements are not strings of any length");
        }
        let beside = Beside::of(dataset)?;
        let sizes = Sizes::of(&beside.file, beside.base)?;
        let in_file = InFile { n_bytes: sizes.descriptor_bytes(), has_descriptors: true };
        Ok((StoredIndex::placed(dataset, beside, in_file, false, transpose)?, sizes))
    }

    /// How addresses are stored in the file of a dataset.
    pub(crate) fn sizes_of(dataset: &Dataset) -> std::result::Result<Sizes, &'static str> {
        let beside = Beside::of(dataset)?;
        Sizes::of(&beside.file, beside.base)
    }

    /// Of values of any type, with `n_bytes` each in the file, some of which are descriptors.
    pub(crate) fn of_values(dataset: &Dataset, n_bytes: usize) -> std::result::Result<StoredIndex, &'static str> {
        let in_file = InFile { n_bytes, has_descriptors: true };
        StoredIndex::placed(dataset, Beside::of(dataset)?, in_file, false, false)
    }

    /// Either, for who wants to know no more than where it lies.
    pub(crate) fn of_any(dataset: &Dataset) -> std::result::Result<StoredIndex, &'static str> {
        match dataset.dtype().is_ok_and(|dtype| is_any_length(&dtype)) {
            true => StoredIndex::of_text(dataset, false).map(|(stored, _)| stored),
            false => StoredIndex::of(dataset, false),
        }
    }

    /// What it takes in its file.
    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.place {
            Place::Contiguous { .. } => self.shape.iter().product::<u64>().saturating_mul(self.element_bytes as u64),
            Place::Inline(bytes) => bytes.len() as u64,
            Place::Chunked(chunked) => chunked.places.iter().flatten().map(|place| place.stored_bytes).sum(),
        }
    }

    fn placed(
        dataset: &Dataset,
        beside: Beside,
        element: InFile,
        big_endian: bool,
        transpose: bool,
    ) -> std::result::Result<StoredIndex, &'static str> {
        let Beside { name, file, file_bytes, base } = beside;
        let element_bytes = element.n_bytes;
        let shape: Vec<u64> = dataset.shape().iter().map(|&n| n as u64).collect();
        let turned = transpose && shape.len() == 2;
        let other_size = "its elements have another size in the file than their type";
        let place = match dataset.layout() {
            Layout::Contiguous if shape.contains(&0) => Place::Inline(Vec::new()),
            Layout::Contiguous => {
                // The library adds the user block to "nowhere" too.
                let offset = dataset.offset().filter(|&offset| offset >= base);
                let place = contiguous(offset, file_bytes, &shape, element_bytes, turned)?;
                let n_bytes = shape.iter().product::<u64>() * element_bytes as u64;
                if element.has_descriptors && dataset.storage_size() != n_bytes {
                    return Err(other_size);
                }
                place
            }
            Layout::Compact if turned => return Err("a compact dataset that is stored column by column"),
            // The library would read what the descriptors lead to.
            Layout::Compact if element.has_descriptors => {
                let header = header_address(dataset).ok_or("its header is not known")?;
                let bytes = index::compact_at(&file, base, header, &shape)?;
                let n_bytes = shape.iter().try_fold(element_bytes as u64, |product, &n| product.checked_mul(n));
                if n_bytes != Some(bytes.len() as u64) {
                    return Err(other_size);
                }
                Place::Inline(bytes)
            }
            Layout::Compact => Place::Inline(read_stored(dataset).map_err(|_| "its bytes cannot be read")?),
            Layout::Chunked => {
                if element.has_descriptors {
                    let header = header_address(dataset).ok_or("its header is not known")?;
                    if index::element_bytes_at(&file, base, header)? != element_bytes as u64 {
                        return Err(other_size);
                    }
                }
                Place::Chunked(Chunked::of(dataset, &file, &shape, element_bytes, turned)?)
            }
            _ => return Err("a virtual dataset"),
        };
        let shape = if turned { vec![shape[1], shape[0]] } else { shape };
        Ok(StoredIndex { file: name, file_bytes, shape, element_bytes, big_endian, place })
    }

    /// Whether its bytes in the file are those in memory, so that any rows of it are read alone.
    pub(crate) fn is_plain(&self) -> bool {
        match &self.place {
            Place::Chunked(chunked) => chunked.is_plain(),
            _ => true,
        }
    }

    /// Those of these rows of which something was written, as far as chunks tell: whole runs of chunks in order, cut to `rows`.
    pub(crate) fn written(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        let Place::Chunked(chunked) = &self.place else { return vec![rows.clone()] };
        let (chunk_rows, per_band) = (chunked.chunk[0], chunked.per_band(&self.shape));
        let mut runs: Vec<Range<u64>> = Vec::new();
        for band in rows.start / chunk_rows..rows.end.div_ceil(chunk_rows) {
            let places = chunked.places.iter().skip(band as usize * per_band).take(per_band);
            if places.flatten().next().is_none() {
                continue;
            }
            let (start, end) = ((band * chunk_rows).max(rows.start), ((band + 1) * chunk_rows).min(rows.end));
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> usize {
        self.element_bytes
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.shape.iter().skip(1).product::<u64>() as usize * self.element_bytes
    }
}

fn contiguous(
    offset: Option<u64>,
    file_bytes: u64,
    shape: &[u64],
    element_bytes: usize,
    turned: bool,
) -> std::result::Result<Place, &'static str> {
    let offset = offset.ok_or("its bytes were never written, or are in other files")?;
    let n_bytes = shape.iter().try_fold(element_bytes as u64, |product, &n| product.checked_mul(n));
    if n_bytes.and_then(|n| offset.checked_add(n)).is_none_or(|end| end > file_bytes) {
        return Err("it ends beyond the end of its file");
    }
    if !turned {
        return Ok(Place::Contiguous { offset });
    }
    // A column is a run of bytes: a chunk without filters.
    let (n_columns, n_rows) = (shape[0], shape[1]);
    let column_bytes = n_rows * element_bytes as u64;
    let column = |j: u64| ChunkPlace { offset: offset + j * column_bytes, stored_bytes: column_bytes, mask: 0 };
    Ok(Place::Chunked(Chunked {
        chunk: vec![n_rows, 1],
        places: (0..n_columns).map(|j| Some(column(j))).collect::<Vec<_>>().into(),
        filters: Vec::new(),
        fill: Vec::new(),
        turned: false,
    }))
}

impl Chunked {
    fn of(
        dataset: &Dataset,
        file: &File,
        shape: &[u64],
        element_bytes: usize,
        turned: bool,
    ) -> std::result::Result<Chunked, &'static str> {
        let mut chunk: Vec<u64> = dataset.chunk().unwrap_or_default().iter().map(|&n| n as u64).collect();
        if chunk.len() != shape.len() || chunk.contains(&0) {
            return Err("its chunks do not fit its shape");
        }
        let uses = filters_of(dataset).map_err(|_| "its filters cannot be read")?;
        let decoded = chunk.iter().try_fold(element_bytes as u64, |product, &n| product.checked_mul(n));
        if decoded.is_none_or(|bytes| bytes > u64::from(u32::MAX)) {
            return Err("its chunks are too large");
        }
        let mut places = match shape.contains(&0) {
            true => Vec::new(),
            false => list_chunks(dataset, file, shape, &chunk)?,
        };
        // The library does not tell filters of strings of any length what they need to know, and each chunk is then stored without.
        let left_out = |number: usize| {
            places.iter().flatten().all(|place| place.mask.checked_shr(number as u32).unwrap_or(0) & 1 == 1)
        };
        let filters = uses.iter().enumerate().map(|(number, filter)| match Filter::of(filter.id, &filter.values) {
            Err(_) if left_out(number) => Ok(Filter::Nothing),
            known => known,
        });
        let filters = filters.collect::<std::result::Result<Vec<Filter>, &str>>()?;
        let fill = match fill_bytes(dataset, element_bytes) {
            Some(fill) => fill,
            None if places.iter().all(Option::is_some) => vec![0; element_bytes],
            None => {
                let fills = super::sound::fills_of(dataset)?;
                let stored = fills.new.or(fills.old).filter(|stored| stored.len() == element_bytes);
                stored.ok_or("its fill value cannot be read")?
            }
        };
        if turned {
            let (n, m) = (shape[0].div_ceil(chunk[0]) as usize, shape[1].div_ceil(chunk[1]) as usize);
            places = (0..n * m).map(|at| places[at % n * m + at / n].clone()).collect();
            chunk.reverse();
        }
        Ok(Chunked { chunk, places: places.into(), filters, fill, turned })
    }

    /// Elements in one row of a chunk.
    pub(super) fn row_elements(&self) -> usize {
        self.chunk[1..].iter().product::<u64>() as usize
    }

    /// Chunks side by side in one run of rows.
    pub(super) fn per_band(&self, shape: &[u64]) -> usize {
        shape[1..].iter().zip(&self.chunk[1..]).map(|(n, c)| n.div_ceil(*c)).product::<u64>() as usize
    }

    /// Whether a run of rows of a chunk is a run of bytes of the file.
    pub(super) fn is_plain(&self) -> bool {
        self.filters.is_empty() && !self.turned
    }
}

/// The places of all chunks: from the file's own structures, or from the library where those are of another kind.
fn list_chunks(
    dataset: &Dataset,
    file: &File,
    shape: &[u64],
    chunk: &[u64],
) -> std::result::Result<Vec<Option<ChunkPlace>>, &'static str> {
    let base = dataset.file().map_err(|_| "its file is not known")?.userblock();
    let header = header_address(dataset).ok_or("its header is not known")?;
    let why = match index::chunks_at(file, base, header, shape, chunk) {
        Ok(places) => return Ok(places),
        Err(why) => why,
    };
    let grid: Vec<u64> = shape.iter().zip(chunk).map(|(n, c)| n.div_ceil(*c)).collect();
    let n_chunks = grid.iter().try_fold(1u64, |product, &n| product.checked_mul(n)).unwrap_or(u64::MAX);
    // HDF5 1.10 lists chunks in another order than it reads them where another axis than the first grows.
    let most = dataset.space().map_err(|_| why)?.maxdims();
    if most.first().is_some_and(Option::is_some) && most.contains(&None) {
        return Err(why);
    }
    let options = dataset.dcpl().and_then(|create| create.get_chunk_opts()).map_err(|_| why)?;
    if options.is_some_and(|options| !options.is_empty()) {
        return Err("its last chunks are not filtered");
    }
    let written = dataset.num_chunks().map(|n| n as u64).ok_or(why)?;
    if written > MOST_LISTED || n_chunks > 1 << 24 || base != 0 {
        return Err(why);
    }
    let mut places = vec![None; n_chunks as usize];
    for index in 0..written as usize {
        let info = dataset.chunk_info(index).ok_or("its chunks cannot be listed")?;
        let mut number = 0;
        for (axis, begin) in info.offset.iter().enumerate().take(shape.len()) {
            if begin % chunk[axis] != 0 || begin / chunk[axis] >= grid[axis] {
                return Err("a chunk lies outside the dataset");
            }
            number = number * grid[axis] + begin / chunk[axis];
        }
        let place = places.get_mut(number as usize).ok_or("a chunk lies outside the dataset")?;
        if place.is_some() {
            return Err("a chunk is listed twice");
        }
        *place = Some(ChunkPlace { offset: info.addr, stored_bytes: info.size, mask: info.filter_mask });
    }
    Ok(places)
}

/// What a file was when it was opened: another size or time of change later means that somebody writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) n_bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &File) -> Result<Stamp> {
        use std::os::unix::fs::MetadataExt;
        let found = file.metadata().map_err(|e| Error::data(format!("cannot be looked at: {e}")))?;
        Ok(Stamp { n_bytes: found.len(), changed: (found.mtime(), found.mtime_nsec()) })
    }
}

/// Opens a file beside the library.
pub(crate) fn open_raw(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::data("no such file on this node, though another rank sees it"),
        _ => Error::data(format!("cannot open: {e}")),
    })
}

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
