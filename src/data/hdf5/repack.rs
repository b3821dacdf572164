//! The same file with other chunks and other compression: for `consort repack`.

use super::chunks::{StoredIndex, open_raw};
use super::copy::{Link, copy_attributes, copy_object, create_like, is_self_contained, links_of, write_texts};
use super::read::pieces_of;
use super::sound;
use super::stored_rows::{Decoders, StoredRows};
use super::text_rows::TextRows;
use super::types::{
    filters_of, has_any_length, has_other_files, has_own_fill_value, header_address, holds_references, is_any_length,
    open_to_read, reason,
};
use super::write::{CHUNK_BYTES, DEFLATE, Packing, Sink, chunk_rows, failed, open_to_write};
use crate::data::convert::{Progress, whole_or_not_at_all};
use crate::data::crew::Crew;
use crate::error::{Error, InContext, Result};
use hdf5::dataset::Layout;
use hdf5::{Dataset, Group, LocationType};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to store the datasets.
#[derive(Clone, Debug, PartialEq)]
pub struct RepackOptions {
    /// Of a chunk, about. A chunk is a run of whole rows.
    pub chunk_bytes: usize,
    /// Level 1–9 of deflate, after shuffle. None: not compressed.
    pub deflate: Option<u8>,
    /// Replace a file that is there.
    pub replace: bool,
}

impl Default for RepackOptions {
    fn default() -> RepackOptions {
        RepackOptions { chunk_bytes: CHUNK_BYTES, deflate: Some(DEFLATE), replace: false }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct RepackReport {
    /// Datasets with new chunks.
    pub repacked: usize,
    /// Datasets that were copied as they are, and why; small ones are not named.
    pub copied: Vec<(String, String)>,
    /// What the new file lacks, and why.
    pub left_out: Vec<(String, String)>,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Smaller datasets are copied as they are.
const SMALL_BYTES: u64 = 64 << 10;
/// Rows read by one call.
const READ_BYTES: u64 = 16 << 20;
/// If the chunks that hold the same rows are larger, they go decoded to a file beside the output first.
const MOST_BYTES: u64 = 256 << 20;

/// Writes every group, dataset, attribute and link of the HDF5 file `input` to `out`: numbers, strings of fixed length and
/// compounds of them in chunks of whole rows, the rest as it is stored. Not collective: `crew` shares the work. `watch` hears how far
/// it is.
///
/// The output is written beside (`.partial`) and renamed. Values, types, attributes and limits of shapes stay as they are; what
/// refers to other objects (dimension scales do) is left out and said in the report.
///
/// # Errors
/// `Usage`: an output that is there. `Data`: what cannot be read or written, with file and dataset.
pub fn repack(
    input: &Path,
    out: &Path,
    options: &RepackOptions,
    crew: &dyn Crew,
    watch: &mut dyn FnMut(&Progress),
) -> Result<RepackReport> {
    repack_from(SMALL_BYTES, input, out, options, crew, watch)
}

fn repack_from(
    small_bytes: u64,
    input: &Path,
    out: &Path,
    options: &RepackOptions,
    crew: &dyn Crew,
    watch: &mut dyn FnMut(&Progress),
) -> Result<RepackReport> {
    if out.exists() && !options.replace {
        return Err(Error::usage("is there already; use --force to replace it")).in_file(out);
    }
    let bytes_of = |path: &Path| std::fs::metadata(path).map(|found| found.len()).unwrap_or(0);
    let from = open_to_read(input)?;
    let mut report = whole_or_not_at_all(out, |partial| {
        let to = open_to_write(partial)?;
        let mut repacker = Repacker {
            input,
            folder: out
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or(Path::new("."))
                .to_path_buf(),
            options,
            small_bytes,
            moves: folder_of(input).canonicalize().ok() != folder_of(out).canonicalize().ok(),
            sink: Sink::of(partial, crew)?,
            done: BTreeMap::new(),
            report: RepackReport::default(),
            watch,
            progress: Progress { doing: "writing", done_bytes: 0, of_bytes: bytes_of(input) },
        };
        let root = |file: &hdf5::File| file.group("/").map_err(failed);
        repacker.group(&root(&from).in_file(input)?, &root(&to).in_file(partial)?, "")?;
        repacker.sink.finish().in_file(input)?;
        to.flush().and_then(|()| to.close()).map_err(failed).in_file(partial)?;
        Ok(repacker.report)
    })?;
    (report.bytes_before, report.bytes_after) = (bytes_of(input), bytes_of(out));
    Ok(report)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

struct Repacker<'a> {
    input: &'a Path,
    /// Of the output.
    folder: PathBuf,
    options: &'a RepackOptions,
    small_bytes: u64,
    /// The output is in another folder than the input.
    moves: bool,
    sink: Sink<'a>,
    /// Where objects of the input are in the output, by the address of their header: an object can have several names.
    done: BTreeMap<u64, String>,
    report: RepackReport,
    watch: &'a mut dyn FnMut(&Progress),
    progress: Progress,
}

impl Repacker<'_> {
    fn group(&mut self, from: &Group, to: &Group, path: &str) -> Result<()> {
        // Of other groups it is said where they are met.
        let copied = self.attributes(from, to, path);
        if path.is_empty() {
            copied.in_dataset("/").in_file(self.input)?
        } else {
            copied?
        }
        self.done.extend(header_address(from).map(|address| (address, format!("/{path}"))));
        let links = links_of(from).map_err(cannot_read).in_dataset(path).in_file(self.input)?;
        for (name, link) in links {
            let inner = crate::data::names::join(path, &name);
            let made = match link {
                Link::Soft(target) => to.link_soft(&target, &name).map_err(failed),
                Link::External(file, target) => {
                    if self.moves {
                        let why = format!("a link to '{file}', which is now looked for beside the output");
                        self.report.copied.push((inner.clone(), why));
                    }
                    to.link_external(&file, &target, &name).map_err(failed)
                }
                Link::Hard => self.object(from, to, &name, &inner),
            };
            made.in_dataset(&inner).in_file(self.input)?;
        }
        Ok(())
    }

    fn object(&mut self, from: &Group, to: &Group, name: &str, path: &str) -> Result<()> {
        match from.loc_type_by_name(name).map_err(cannot_read)? {
            LocationType::Group => {
                let inner = from.group(name).map_err(cannot_read)?;
                if self.linked(header_address(&inner), to, name)? {
                    return Ok(());
                }
                let made = to.create_group_builder().obj_track_times(false).create(name).map_err(failed)?;
                self.group(&inner, &made, path)
            }
            LocationType::Dataset => {
                let dataset = sound::open(from, name).map_err(cannot_read)?;
                let address = header_address(&dataset);
                if self.linked(address, to, name)? {
                    return Ok(());
                }
                let made = self.dataset(from, &dataset, to, name, path)?;
                self.done.extend(address.map(|address| (address, format!("/{path}"))));
                self.attributes(&dataset, &made, path)
            }
            _ => copy_object(from, to, name).map_err(failed),
        }
    }

    /// Whether the object is in the output already and now has this name too.
    fn linked(&self, address: Option<u64>, to: &Group, name: &str) -> Result<bool> {
        match address.and_then(|address| self.done.get(&address)) {
            Some(there) => to.link_hard(there, name).map(|()| true).map_err(failed),
            None => Ok(false),
        }
    }

    fn attributes(&mut self, from: &hdf5::Location, to: &hdf5::Location, path: &str) -> Result<()> {
        let left_out = copy_attributes(from, to)?;
        self.report.left_out.extend(left_out.into_iter().map(|(name, why)| (format!("{path}@{name}"), why)));
        Ok(())
    }

    /// Returns the dataset in the output.
    fn dataset(&mut self, from: &Group, dataset: &Dataset, to: &Group, name: &str, path: &str) -> Result<Dataset> {
        let is_text = dataset.dtype().is_ok_and(|dtype| is_any_length(&dtype));
        if is_text && dataset.size() > 0 && !dataset.shape().is_empty() {
            let is_elsewhere = dataset.layout() == Layout::Virtual || has_other_files(dataset);
            match TextRows::of(dataset) {
                Ok(rows) => return self.texts(Some(&rows), dataset, to, name),
                // Nothing to be read: the fill value is all there is.
                Err(_) if !is_elsewhere && dataset.storage_size() == 0 => return self.texts(None, dataset, to, name),
                Err(_) => {}
            }
        }
        let why = match StoredIndex::of(dataset, false) {
            Err(_) if self.moves && dataset.layout() == Layout::Virtual => {
                "a virtual dataset, whose sources are now looked for beside the output"
            }
            Err(why) => why,
            Ok(_) if !is_self_contained(dataset) => "not of plain numbers and strings alone",
            Ok(index) => {
                let shape: Vec<u64> = dataset.shape().iter().map(|&n| n as u64).collect();
                let n_bytes = shape.iter().try_fold(index.element_bytes() as u64, |product, &n| product.checked_mul(n));
                let row_bytes = n_bytes.unwrap_or(0) / shape.first().copied().unwrap_or(0).max(1);
                match n_bytes {
                    Some(n_bytes) if n_bytes < self.small_bytes.max(1) || shape.is_empty() => "",
                    Some(_) if row_bytes <= 1 << 30 => return self.rows(index, dataset, to, name, &shape, row_bytes),
                    _ => "its rows are too long to be chunks",
                }
            }
        };
        if let Some(why) = cannot_be_copied(dataset)? {
            return Err(Error::data(why));
        }
        sound::check_values(dataset)?;
        copy_object(from, to, name).map_err(failed)?;
        if !why.is_empty() {
            self.report.copied.push((path.to_string(), why.to_string()));
        }
        if dataset.dtype().is_ok_and(|dtype| holds_references(&dtype)) {
            self.report.left_out.push((path.to_string(), "its references lead nowhere in another file".to_string()));
        }
        to.dataset(name).map_err(failed)
    }

    /// All strings of a dataset, in new chunks of descriptors. The library does not copy the fill value of such a dataset and can crash
    /// on a damaged heap, and what it has no decoder for it cannot copy at all. What was never written is not written here either: it
    /// is the fill value again.
    ///
    /// `rows`: None where nothing was written.
    fn texts(&mut self, rows: Option<&TextRows>, dataset: &Dataset, to: &Group, name: &str) -> Result<Dataset> {
        const ROW_STRINGS: u64 = 1 << 14;
        /// In the output.
        const DESCRIPTOR_BYTES: usize = 16;
        let shape: Vec<u64> = dataset.shape().iter().map(|&n| n as u64).collect();
        let width = shape[1..].iter().product::<u64>();
        let row_bytes = width as usize * DESCRIPTOR_BYTES;
        let mut rows_of_chunk = chunk_rows(row_bytes, shape[0], self.options.chunk_bytes);
        // What of a chunk is not written the library fills, each row with a copy of its own.
        if let (Some(rows), Some(&most)) = (rows, dataset.chunk().unwrap_or_default().first())
            && rows.written(&(0..shape[0])) != std::slice::from_ref(&(0..shape[0]))
        {
            rows_of_chunk = rows_of_chunk.min(most as u64);
        }
        let chunk: Vec<u64> = std::iter::once(rows_of_chunk).chain(shape[1..].iter().copied()).collect();
        let made = create_like(dataset, to, name, &chunk, false, self.options.deflate).map_err(failed)?;
        let Some(rows) = rows else { return Ok(made) };
        let (mut allowance, mut scratch) = (rows.allowance(dataset.size() as u64), Vec::new());
        let pieces = pieces_of(0..shape[0], (ROW_STRINGS / width).max(1));
        for piece in pieces.flat_map(|piece| rows.written(&piece)) {
            let mut texts = Vec::new();
            rows.read(piece.clone(), width as usize, &mut allowance, &mut scratch, |_, text| {
                texts.push(CString::new(text).map_err(|_| Error::internal("a string with a zero byte"))?);
                Ok(())
            })?;
            write_texts(&made, piece.start, &texts).map_err(failed)?;
        }
        if shape[0] * row_bytes as u64 >= self.small_bytes {
            self.report.repacked += 1;
        }
        Ok(made)
    }

    /// All rows of a dataset, in new chunks.
    fn rows(
        &mut self,
        index: StoredIndex,
        dataset: &Dataset,
        to: &Group,
        name: &str,
        shape: &[u64],
        row_bytes: u64,
    ) -> Result<Dataset> {
        let (options, row_bytes) = (self.options, row_bytes as usize);
        let rows_of_chunk = chunk_rows(row_bytes, shape[0], options.chunk_bytes);
        let chunk: Vec<u64> = std::iter::once(rows_of_chunk).chain(shape[1..].iter().copied()).collect();
        let is_text = dataset.dtype().is_ok_and(|of| super::types::Element::of(&of).is_ok_and(|of| of.is_text()));
        let element_bytes = index.element_bytes();
        let shuffled = (options.deflate.is_some() && element_bytes > 1 && !is_text).then_some(element_bytes);
        let made = create_like(dataset, to, name, &chunk, shuffled.is_some(), options.deflate).map_err(failed)?;
        let packing = Packing { chunk_rows: rows_of_chunk, deflate: options.deflate };
        let number = self.sink.add(made.clone(), name, row_bytes, shuffled, packing);
        let file = Arc::new(open_raw(&index.file)?);
        let mut stored = StoredRows::new(index, file, Arc::<Decoders>::default(), MOST_BYTES);
        let mut step = stored.rows_in(READ_BYTES);
        if step.saturating_mul(row_bytes as u64) > MOST_BYTES && !stored.is_plain() {
            let decoded = tempfile::tempfile_in(&self.folder)
                .map_err(|e| Error::data(format!("no file can be made in {}: {e}", self.folder.display())))?;
            let (index, _) = stored.decode_to(0..shape[0], &decoded, 0)?;
            stored = StoredRows::new(index, Arc::new(decoded), Arc::<Decoders>::default(), MOST_BYTES);
        }
        if stored.is_plain() {
            step = (READ_BYTES / row_bytes as u64).max(1);
        }
        let mut buffer = Vec::new();
        let mut done = 0;
        let first = self.progress.done_bytes;
        let stored_bytes = dataset.storage_size();
        for rows in pieces_of(0..shape[0], step) {
            buffer.resize((rows.end - rows.start) as usize * row_bytes, 0);
            stored.read_as_stored(rows.clone(), &mut buffer, &|_| ())?;
            self.sink.push(number, &buffer)?;
            done += rows.end - rows.start;
            self.progress.done_bytes =
                first + (u128::from(stored_bytes) * u128::from(done) / u128::from(shape[0])) as u64;
            (self.watch)(&self.progress);
        }
        // Before anything else has its place in the file: how many chunks wait depends on ranks and threads.
        self.sink.flush()?;
        self.report.repacked += 1;
        Ok(made)
    }
}

/// Why the library would crash on a dataset or write a damaged one, if so: on bytes that do not fit its shape it fails and crashes
/// then; on parts of any length it has to decode chunks, and their
/// fill value it does not copy. Errors: filters that cannot be told.
fn cannot_be_copied(dataset: &Dataset) -> Result<Option<String>> {
    let Ok(dtype) = dataset.dtype() else { return Ok(None) };
    if !has_any_length(&dtype) {
        let (needed, stored) = ((dataset.size() as u64).saturating_mul(dtype.size() as u64), dataset.storage_size());
        let is_other = dataset.layout() == Layout::Contiguous && ![0, needed].contains(&stored);
        return Ok((is_other && !has_other_files(dataset))
            .then(|| format!("has {stored} bytes where its shape and type need {needed}: the file is damaged")));
    }
    if let Some(filter) = filters_of(dataset)?.iter().find(|filter| !filter.available) {
        return Ok(Some(format!(
            "has parts of any length in chunks compressed with {}, which the HDF5 library here cannot decode; leave it out, or store it \
             with deflate",
            filter.name
        )));
    }
    Ok(has_own_fill_value(dataset).then(|| {
        "has parts of any length and a fill value of its own, which the HDF5 library copies as a reference into the old file; store \
         it without a fill value"
            .to_string()
    }))
}

fn cannot_read(e: hdf5::Error) -> Error {
    Error::data(format!("cannot be read: {}", reason(&e)))
}

#[cfg(test)]
#[path = "repack_tests.rs"]
mod tests;
