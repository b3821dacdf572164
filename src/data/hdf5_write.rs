//! Writes datasets of a table: for `convert`, and for tests and benches.

use super::hdf5_types::reason;
use super::synthetic::Storage;
use crate::error::{Error, InContext, Result};
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group, H5Type};
use std::path::{Path, PathBuf};

/// Datasets that go into one group of one file.
pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    group: Group,
}

/// Rows of a chunk of a dataset that grows.
const CHUNK_BYTES: usize = 1 << 20;

/// Rows that make a chunk of about a megabyte: a multiple of 16, at most `n_rows`.
pub(crate) fn chunk_rows(row_bytes: usize, n_rows: usize) -> usize {
    let rows = (CHUNK_BYTES / row_bytes.max(1)).next_multiple_of(16).max(16);
    rows.min(n_rows.max(1))
}

impl Writer {
    /// Opens the file to add to it, or makes it; then the group, which may be there already.
    pub(crate) fn append(path: &Path, group: &str) -> Result<Writer> {
        let opened = File::with_options().with_fapl(|access| access.file_locking(false)).append(path);
        let file = opened.map_err(|e| Error::data(format!("cannot be written: {}", reason(&e)))).in_file(path)?;
        let mut at = file.group("/").map_err(failed).in_file(path)?;
        for name in group.split('/').filter(|name| !name.is_empty()) {
            let next = if at.link_exists(name) { at.group(name) } else { at.create_group(name) };
            at = next.map_err(|e| Error::data(format!("cannot make group '{group}': {}", reason(&e)))).in_file(path)?;
        }
        Ok(Writer { path: path.to_path_buf(), file, group: at })
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
        let mut texts = Vec::with_capacity(values.len());
        for (row, value) in values.iter().enumerate() {
            // A zero byte would end the string early.
            let text: VarLenUnicode = value
                .parse()
                .map_err(|_| Error::data(format!("the string at row {row} has a zero byte, which HDF5 cannot store")))
                .in_dataset(name)
                .in_file(&self.path)?;
            texts.push(text);
        }
        let made = self.group.new_dataset_builder().with_data(&texts).create(name);
        made.map(|_| ()).map_err(failed).in_dataset(name).in_file(&self.path)
    }

    /// A list of strings as an attribute of a dataset.
    pub(crate) fn text_attribute(&self, dataset: &str, name: &str, values: &[String]) -> Result<()> {
        let texts: Vec<VarLenUnicode> = values.iter().filter_map(|value| value.parse().ok()).collect();
        let write = || self.group.dataset(dataset)?.new_attr_builder().with_data(&texts).create(name).map(|_| ());
        write().map_err(failed).in_dataset(dataset).in_file(&self.path)
    }

    /// Flushes and closes the file: an error that HDF5 met late is met here.
    pub(crate) fn close(self) -> Result<()> {
        drop(self.group);
        self.file.flush().and_then(|()| self.file.close()).map_err(failed).in_file(&self.path)
    }
}

fn failed(e: hdf5::Error) -> Error {
    Error::data(format!("cannot write: {}", reason(&e)))
}
