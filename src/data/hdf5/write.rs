//! Writes datasets of a table: for `convert` and `repack`, and for tests and benches.

use super::copy::write_chunk;
use super::types::reason;
use crate::data::crew::{Crew, Kind, Plain, Round, Shared, Work, as_bytes};
use crate::data::synthetic::Storage;
use crate::error::{Error, InContext, Result};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenUnicode};
use hdf5::{Dataset, File, Group, H5Type};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Datasets that go into one group of one file.
pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    group: Group,
}

/// Of a chunk, about.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Deflate level of chunks. Measured on tables of `convert`, see `benches/results/`.
pub(crate) const DEFLATE: u8 = 1;
/// Chunks that wait to be compressed take no more memory than this, or one chunk.
const WAITING_BYTES: usize = 64 << 20;
/// Of a chunk that is one of a round, on average. Tests have small tables, and want several rounds.
const LEAST_BYTES: usize = if cfg!(test) { 1 << 13 } else { CHUNK_BYTES / 2 };

/// Rows that make a chunk of about `chunk_bytes`: a multiple of 16 unless rows are long, at most `n_rows`.
pub(crate) fn chunk_rows(row_bytes: usize, n_rows: u64, chunk_bytes: usize) -> u64 {
    let rows = chunk_bytes / row_bytes.max(1);
    let rows = if row_bytes > CHUNK_BYTES { 1 } else { rows.next_multiple_of(16).max(16) };
    (rows as u64).min(n_rows.max(1))
}

/// The elements of a dataset that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cell {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// HDF5's FALSE and TRUE, as h5py writes them.
    Bool,
    /// UTF-8 of this many bytes at most, with zeros after it.
    Text(usize),
}

impl Cell {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Cell::U8 | Cell::I8 | Cell::Bool => 1,
            Cell::U16 | Cell::I16 => 2,
            Cell::U32 | Cell::I32 | Cell::F32 => 4,
            Cell::U64 | Cell::I64 | Cell::F64 => 8,
            Cell::Text(bytes) => bytes,
        }
    }

    fn descriptor(self) -> TypeDescriptor {
        let (unsigned, integer) = (TypeDescriptor::Unsigned, TypeDescriptor::Integer);
        match self {
            Cell::U8 => unsigned(IntSize::U1),
            Cell::U16 => unsigned(IntSize::U2),
            Cell::U32 => unsigned(IntSize::U4),
            Cell::U64 => unsigned(IntSize::U8),
            Cell::I8 => integer(IntSize::U1),
            Cell::I16 => integer(IntSize::U2),
            Cell::I32 => integer(IntSize::U4),
            Cell::I64 => integer(IntSize::U8),
            Cell::F32 => TypeDescriptor::Float(FloatSize::U4),
            Cell::F64 => TypeDescriptor::Float(FloatSize::U8),
            Cell::Bool => TypeDescriptor::Boolean,
            Cell::Text(bytes) => TypeDescriptor::FixedUnicode(bytes),
        }
    }
}

impl Writer {
    /// Opens the file to add to it, or makes it; then the group, which may be there already.
    pub(crate) fn append(path: &Path, group: &str) -> Result<Writer> {
        let file = open_to_write(path)?;
        let mut at = file.group("/").map_err(failed).in_file(path)?;
        for name in group.split('/').filter(|name| !name.is_empty()) {
            let next = if at.link_exists(name) {
                at.group(name)
            } else {
                at.create_group_builder().obj_track_times(false).create(name)
            };
            at = next.map_err(|e| Error::data(format!("cannot make group '{group}': {}", reason(&e)))).in_file(path)?;
        }
        Ok(Writer { path: path.to_path_buf(), file, group: at })
    }

    /// The same file, another group below this one.
    pub(crate) fn inner(&self, group: &str) -> Result<Writer> {
        let made = self
            .group
            .create_group_builder()
            .obj_track_times(false)
            .create(group)
            .map_err(failed)
            .in_dataset(group)
            .in_file(&self.path)?;
        Ok(Writer { path: self.path.clone(), file: self.file.clone(), group: made })
    }

    /// Makes the datasets of a sparse matrix by rows in a group `name`, in the layout of AnnData, to be filled in `sink`.
    ///
    /// `n_values`: that are stored. Source of the layout: the specification of AnnData's file format, "Sparse arrays", version 0.1.0.
    pub(crate) fn sparse(
        &self,
        sink: &mut Sink<'_>,
        name: &str,
        cell: Cell,
        [n_rows, n_columns]: [u64; 2],
        n_values: u64,
        chunk_bytes: usize,
    ) -> Result<SparseDatasets> {
        let group = self.inner(name)?;
        let index = if n_columns <= i32::MAX as u64 { Cell::I32 } else { Cell::I64 };
        let data = sink.dataset(&group, "data", cell, n_values, &[], chunk_bytes)?;
        let indices = sink.dataset(&group, "indices", index, n_values, &[], chunk_bytes)?;
        let indptr = sink.dataset(&group, "indptr", Cell::I64, n_rows + 1, &[], chunk_bytes)?;
        sink.push(indptr, &0i64.to_ne_bytes())?;
        group.word_attribute("", "encoding-type", "csr_matrix")?;
        group.word_attribute("", "encoding-version", "0.1.0")?;
        group.number_attribute("", "shape", &[n_rows as i64, n_columns as i64])?;
        Ok(SparseDatasets { data, indices, indptr, index, n_columns, end: 0 })
    }

    /// Whether the group has something of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.group.link_exists(name)
    }

    /// A dataset of numbers. `shape[0]` rows; `values` in row-major order.
    pub(crate) fn numbers<T: H5Type>(&self, name: &str, values: &[T], shape: &[usize], storage: Storage) -> Result<()> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        let mut builder = self.group.new_dataset_builder();
        if let Some(rows) = storage.chunk_rows {
            let mut chunk = shape.to_vec();
            chunk[0] = rows.clamp(1, shape[0].max(1));
            builder = builder.chunk(chunk);
            if let Some(level) = storage.deflate {
                builder = builder.shuffle().deflate(level);
            }
        }
        let view = ndarray::ArrayViewD::from_shape(shape, values).map_err(|e| Error::internal(e.to_string()))?;
        let made = builder.with_data(view).create(name);
        made.map(|_| ()).map_err(failed).in_dataset(name).in_file(&self.path)
    }

    /// A 1-D dataset of UTF-8 strings of any length.
    pub(crate) fn text(&self, name: &str, values: &[String]) -> Result<()> {
        let texts = var_len(values).in_dataset(name).in_file(&self.path)?;
        let made = self.group.new_dataset_builder().with_data(&texts).create(name);
        made.map(|_| ()).map_err(failed).in_dataset(name).in_file(&self.path)
    }

    /// A list of strings as an attribute of a dataset, or of the group itself (`""`).
    pub(crate) fn text_attribute(&self, dataset: &str, name: &str, values: &[String]) -> Result<()> {
        let texts = var_len(values).in_dataset(dataset).in_file(&self.path)?;
        self.attribute(dataset, name, |at| at.new_attr_builder().with_data(&texts).create(name).map(|_| ()))
    }

    /// One string as an attribute.
    pub(crate) fn word_attribute(&self, dataset: &str, name: &str, value: &str) -> Result<()> {
        let text = var_len(&[value.to_string()]).in_dataset(dataset).in_file(&self.path)?.remove(0);
        self.attribute(dataset, name, |at| at.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text))
    }

    /// Some numbers as an attribute.
    pub(crate) fn number_attribute(&self, dataset: &str, name: &str, values: &[i64]) -> Result<()> {
        self.attribute(dataset, name, |at| at.new_attr_builder().with_data(values).create(name).map(|_| ()))
    }

    /// One number as an attribute, in the type that the data has.
    pub(crate) fn fill_attribute<T: H5Type>(&self, dataset: &str, name: &str, value: T) -> Result<()> {
        self.attribute(dataset, name, |at| at.new_attr::<T>().create(name)?.write_scalar(&value))
    }

    /// In place of one of the same name.
    fn attribute(
        &self,
        dataset: &str,
        name: &str,
        write: impl FnOnce(&hdf5::Location) -> hdf5::Result<()>,
    ) -> Result<()> {
        let replace = |at: &hdf5::Location| {
            if at.attr(name).is_ok() {
                at.delete_attr(name)?;
            }
            write(at)
        };
        let written = match dataset {
            "" => replace(&self.group),
            name => self.group.dataset(name).and_then(|dataset| replace(&dataset)),
        };
        written.map_err(failed).in_dataset(dataset).in_file(&self.path)
    }

    /// Flushes and closes the file: an error that HDF5 met late is met here.
    pub(crate) fn close(self) -> Result<()> {
        drop(self.group);
        self.file.flush().and_then(|()| self.file.close()).map_err(failed).in_file(&self.path)
    }
}

/// Opens a file to add to it, or makes it.
pub(super) fn open_to_write(path: &Path) -> Result<File> {
    // Format 1.8: attributes of more than 64 KiB, such as ten thousand categories, have a place in it.
    let mut options = File::with_options();
    options.with_fapl(|access| access.file_locking(false).libver_v18());
    // Without times, so that the same rows make the same bytes.
    let opened = options.with_fcpl(|create| create.obj_track_times(false)).append(path);
    opened.map_err(|e| Error::data(format!("cannot be written: {}", reason(&e)))).in_file(path)
}

fn var_len(values: &[String]) -> Result<Vec<VarLenUnicode>> {
    // A zero byte would end the string early.
    let text = |(at, value): (usize, &String)| {
        let parsed = value.parse();
        parsed.map_err(|_| Error::data(format!("the string at row {at} has a zero byte, which HDF5 cannot store")))
    };
    values.iter().enumerate().map(text).collect()
}

pub(super) fn failed(e: hdf5::Error) -> Error {
    Error::data(format!("cannot write: {}", reason(&e)))
}

/// The datasets of [`Writer::sparse`].
pub(crate) struct SparseDatasets {
    data: usize,
    indices: usize,
    indptr: usize,
    /// Of the indices.
    index: Cell,
    n_columns: u64,
    /// Values so far.
    end: u64,
}

impl SparseDatasets {
    /// The next rows: `values` as bytes of the cell, the column of each, and where each row's values end among them.
    /// Errors: a column or a row that was not announced.
    pub(crate) fn push(
        &mut self,
        sink: &mut Sink<'_>,
        values: &[u8],
        columns: impl ExactSizeIterator<Item = u64>,
        ends: &[usize],
    ) -> Result<()> {
        let n_values = columns.len() as u64;
        sink.push(self.data, values)?;
        let mut bytes = Vec::with_capacity(columns.len() * self.index.bytes());
        for column in columns {
            if column >= self.n_columns {
                return Err(changed());
            }
            match self.index {
                Cell::I32 => bytes.extend((column as i32).to_ne_bytes()),
                _ => bytes.extend((column as i64).to_ne_bytes()),
            }
        }
        sink.push(self.indices, &bytes)?;
        bytes.clear();
        ends.iter().for_each(|&row_end| bytes.extend((self.end as i64 + row_end as i64).to_ne_bytes()));
        self.end += n_values;
        sink.push(self.indptr, &bytes)
    }
}

/// Datasets that are filled side by side from their first row to their last. Chunks are compressed by all threads of all ranks
/// and handed to the library, by this one, as they are stored. Holds 64 MiB of chunks that wait, as many that are compressed
/// meanwhile, and one chunk of each dataset.
pub(crate) struct Sink<'c> {
    path: PathBuf,
    packing: Shared<'c, Packs>,
    datasets: Vec<Filling>,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    compressing: Option<Compressing<'c>>,
}

/// Dataset and first row of chunks that are being compressed.
type Compressing<'c> = (Vec<(usize, u64)>, Round<'c, (u32, Plain<u8>)>);

/// How a [`Sink`] stores a dataset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    pub(crate) chunk_rows: u64,
    /// Level 1–9. None: not compressed.
    pub(crate) deflate: Option<u8>,
}

struct Filling {
    dataset: Dataset,
    name: String,
    n_axes: usize,
    row_bytes: usize,
    n_rows: u64,
    chunk_rows: u64,
    /// Bytes side by side that belong together, if the shuffle filter is on.
    shuffled: Option<usize>,
    deflate: Option<u8>,
    /// The chunk being filled.
    chunk: Vec<u8>,
    /// Rows in full chunks.
    rows_done: u64,
}

struct Waiting {
    dataset: usize,
    first_row: u64,
    bytes: Vec<u8>,
}

impl<'c> Sink<'c> {
    pub(crate) fn new(writer: &Writer, crew: &'c dyn Crew) -> Result<Sink<'c>> {
        Sink::of(&writer.path, crew)
    }

    /// For datasets of the file `path`.
    pub(crate) fn of(path: &Path, crew: &'c dyn Crew) -> Result<Sink<'c>> {
        let packing = Shared::new(crew, Packs)?;
        Ok(Sink {
            path: path.to_path_buf(),
            packing,
            datasets: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            compressing: None,
        })
    }

    /// Makes a dataset of `n_rows` × `row_shape` to be filled, in chunks of about `chunk_bytes`; its number for
    /// [`push`](Self::push).
    pub(crate) fn dataset(
        &mut self,
        writer: &Writer,
        name: &str,
        cell: Cell,
        n_rows: u64,
        row_shape: &[usize],
        chunk_bytes: usize,
    ) -> Result<usize> {
        let row_bytes = row_shape.iter().try_fold(cell.bytes(), |product, &n| product.checked_mul(n));
        let row_bytes = row_bytes
            .filter(|&bytes| bytes > 0 && bytes < 1 << 30)
            .ok_or_else(|| Error::data(format!("rows of shape {row_shape:?} are empty, or too long to be stored")))
            .in_dataset(name)?;
        let rows = chunk_rows(row_bytes, n_rows, chunk_bytes);
        // The bytes of small integers and of texts have no planes that are more alike than their neighbours.
        let shuffle = cell.bytes() > 1 && !matches!(cell, Cell::Text(_));
        let shape: Vec<usize> = std::iter::once(n_rows as usize).chain(row_shape.iter().copied()).collect();
        let chunk: Vec<usize> = std::iter::once(rows as usize).chain(row_shape.iter().copied()).collect();
        let mut builder = writer.group.new_dataset_builder().obj_track_times(false).chunk(chunk);
        if shuffle {
            builder = builder.shuffle();
        }
        let made = builder.deflate(DEFLATE).empty_as(cell.descriptor()).shape(shape).create(name);
        let dataset = made.map_err(failed).in_dataset(name).in_file(&self.path)?;
        let element_bytes = shuffle.then(|| cell.bytes());
        let packing = Packing { chunk_rows: rows, deflate: Some(DEFLATE) };
        Ok(self.add(dataset, name, row_bytes, element_bytes, packing))
    }

    /// A dataset that is there already, of chunks of whole rows, with the filters that `shuffled` (bytes of an element) and
    /// `packing` say, in this order, or none.
    pub(crate) fn add(
        &mut self,
        dataset: Dataset,
        name: &str,
        row_bytes: usize,
        shuffled: Option<usize>,
        packing: Packing,
    ) -> usize {
        let shape = dataset.shape();
        self.datasets.push(Filling {
            dataset,
            name: name.to_string(),
            n_axes: shape.len(),
            row_bytes,
            n_rows: shape.first().map_or(0, |&n| n as u64),
            chunk_rows: packing.chunk_rows,
            shuffled,
            deflate: packing.deflate,
            chunk: Vec::new(),
            rows_done: 0,
        });
        self.datasets.len() - 1
    }

    /// The next bytes of a dataset, in row-major order and this machine's byte order. Not collective; rayon over chunks.
    ///
    /// # Errors
    /// More rows than the dataset has; what cannot be written.
    pub(crate) fn push(&mut self, dataset: usize, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let filling = &mut self.datasets[dataset];
            let full = (filling.chunk_rows.min(filling.n_rows - filling.rows_done)) as usize * filling.row_bytes;
            if full == 0 {
                return Err(changed()).in_dataset(&filling.name);
            }
            if filling.chunk.capacity() == 0 {
                // A larger one grows as it is filled: the rows may never come.
                filling.chunk.reserve_exact((filling.chunk_rows as usize * filling.row_bytes).min(2 * CHUNK_BYTES));
            }
            let (here, after) = bytes.split_at(bytes.len().min(full - filling.chunk.len()));
            filling.chunk.extend_from_slice(here);
            bytes = after;
            if filling.chunk.len() == full {
                self.chunk_is_full(dataset)?;
            }
        }
        Ok(())
    }

    /// As [`push`](Self::push): one text, padded with zeros to the bytes of a row.
    pub(crate) fn push_text(&mut self, dataset: usize, text: &[u8]) -> Result<()> {
        const ZEROS: [u8; 1024] = [0; 1024];
        let Some(mut missing) = self.datasets[dataset].row_bytes.checked_sub(text.len()) else {
            return Err(changed()).in_dataset(&self.datasets[dataset].name);
        };
        self.push(dataset, text)?;
        while missing > 0 {
            let n = missing.min(ZEROS.len());
            self.push(dataset, &ZEROS[..n])?;
            missing -= n;
        }
        Ok(())
    }

    fn chunk_is_full(&mut self, dataset: usize) -> Result<()> {
        let filling = &mut self.datasets[dataset];
        let mut bytes = std::mem::take(&mut filling.chunk);
        // The last one has rows that the dataset has not.
        bytes.resize(filling.chunk_rows as usize * filling.row_bytes, 0);
        self.waiting_bytes += bytes.len();
        self.waiting.push(Waiting { dataset, first_row: filling.rows_done, bytes });
        filling.rows_done += filling.chunk_rows.min(filling.n_rows - filling.rows_done);
        // Small chunks wait for more of them, since a round of all ranks takes its time.
        let enough = (4 * self.packing.n_threads()).max(16);
        let is_round = self.waiting.len() >= enough && self.waiting_bytes >= enough * LEAST_BYTES;
        if is_round || self.waiting_bytes >= WAITING_BYTES { self.compress() } else { Ok(()) }
    }

    /// Has the chunks that wait compressed, and writes meanwhile those that were before.
    fn compress(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let (mut jobs, mut places) = (Vec::new(), Vec::new());
        for chunk in &waiting {
            let of = &self.datasets[chunk.dataset];
            jobs.push(Unpacked { bytes: Cow::Borrowed(&chunk.bytes), shuffled: of.shuffled, deflate: of.deflate });
            places.push((chunk.dataset, chunk.first_row));
        }
        let round = self.packing.start(&jobs)?;
        let before = self.compressing.replace((places, round));
        self.write(before)
    }

    fn write(&self, compressed: Option<Compressing<'_>>) -> Result<()> {
        let Some((places, round)) = compressed else { return Ok(()) };
        for ((dataset, first_row), stored) in places.into_iter().zip(round.finish()?) {
            let of = &self.datasets[dataset];
            let (mask, bytes) = stored?;
            let mut begin = vec![0; of.n_axes];
            begin[0] = first_row;
            write_chunk(&of.dataset, &begin, mask, &bytes).map_err(failed).in_dataset(&of.name).in_file(&self.path)?;
        }
        Ok(())
    }

    /// Writes all chunks that are full, in the order in which they became so.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.compress()?;
        let last = self.compressing.take();
        self.write(last)
    }

    /// Writes what is left. Errors: a dataset that did not get all its rows.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self.datasets.iter().find(|filling| filling.rows_done != filling.n_rows) {
            Some(filling) => Err(changed()).in_dataset(&filling.name),
            None => Ok(()),
        }
    }
}

/// The rows are counted before they are written.
pub(crate) fn changed() -> Error {
    Error::data("an input changed while it was read; do not write to it meanwhile")
}

/// The work of compressing chunks, on whatever rank.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::data) struct Packs;

/// A full chunk.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Unpacked<'a> {
    #[serde(borrow, serialize_with = "as_bytes")]
    bytes: Cow<'a, [u8]>,
    shuffled: Option<usize>,
    deflate: Option<u8>,
}

impl Work for Packs {
    const KIND: Kind = Kind::Pack;
    type Job<'a> = Unpacked<'a>;
    type Done = (u32, Plain<u8>);
    type Tool = Packer;

    fn run(&self, chunk: &Unpacked<'_>, packer: &mut Packer) -> Result<(u32, Plain<u8>)> {
        let (mask, bytes) = packer.pack(&chunk.bytes, chunk.shuffled, chunk.deflate);
        Ok((mask, Plain(bytes)))
    }
}

/// Compressor and buffer of one thread.
#[derive(Default)]
pub(in crate::data) struct Packer {
    compressor: Option<(u8, libdeflater::Compressor)>,
    shuffled: Vec<u8>,
}

impl Packer {
    /// The stored bytes of a chunk, and bit i set where filter i was left out: deflate where it gains nothing.
    fn pack(&mut self, bytes: &[u8], shuffled: Option<usize>, deflate: Option<u8>) -> (u32, Vec<u8>) {
        let bytes = match shuffled {
            Some(element_bytes) => {
                shuffle(bytes, element_bytes, &mut self.shuffled);
                &self.shuffled
            }
            None => bytes,
        };
        let Some(level) = deflate else { return (0, bytes.to_vec()) };
        if self.compressor.as_ref().is_none_or(|(of, _)| *of != level) {
            let of = libdeflater::CompressionLvl::new(i32::from(level)).unwrap_or_default();
            self.compressor = Some((level, libdeflater::Compressor::new(of)));
        }
        // No room for more than the bytes themselves: what does not fit is stored as it is.
        let mut stored = vec![0; bytes.len()];
        let compressed = self.compressor.as_mut().map(|(_, compressor)| compressor.zlib_compress(bytes, &mut stored));
        match compressed {
            Some(Ok(n)) => {
                stored.truncate(n);
                stored.shrink_to_fit();
                (0, stored)
            }
            _ => (1 << u32::from(shuffled.is_some()), bytes.to_vec()),
        }
    }
}

/// HDF5's shuffle: byte b of element e goes to b·n + e.
fn shuffle(bytes: &[u8], element_bytes: usize, into: &mut Vec<u8>) {
    /// Elements whose bytes stay in the first-level cache.
    const TILE: usize = 1024;
    into.resize(bytes.len(), 0);
    let n = bytes.len() / element_bytes;
    let (whole, rest) = bytes.split_at(n * element_bytes);
    into[n * element_bytes..].copy_from_slice(rest);
    for (tile, elements) in whole.chunks(TILE * element_bytes).enumerate() {
        let (at, m) = (tile * TILE, elements.len() / element_bytes);
        for b in 0..element_bytes {
            let plane = &mut into[b * n + at..][..m];
            match element_bytes {
                2 => gather::<2>(elements, b, plane),
                4 => gather::<4>(elements, b, plane),
                8 => gather::<8>(elements, b, plane),
                _ => plane.iter_mut().enumerate().for_each(|(e, to)| *to = elements[e * element_bytes + b]),
            }
        }
    }
}

fn gather<const B: usize>(elements: &[u8], b: usize, plane: &mut [u8]) {
    for (to, element) in plane.iter_mut().zip(elements.as_chunks::<B>().0) {
        *to = element[b];
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
