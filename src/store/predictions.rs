//! The predictions file: written by several ranks, each its own rows, without parallel HDF5.
//!
//! One rank [`create`]s the file beside its target, with contiguous datasets whose place is allocated at once, and closes it. Every
//! rank then writes its rows as bytes at known [`Offsets`], past the HDF5 library; one rank [`commit`]s. In a job:
//!
//! ```text
//! let made = if comm.is_root() { create(path, &layout, force) } else { Ok(Offsets::default()) };
//! let mut words = comm.agree(made)?.to_words();
//! comm.broadcast_vec(&mut words, 0)?;
//! let offsets = Offsets::from_words(&words)?;
//! let written = write_my_rows(RowWriter::open(path, &offsets));        // … .write(0, row, &bytes_of_f64(…)) …, .finish()
//! let agreed = comm.agree(written);
//! if comm.is_root() { match agreed { Ok(_) => commit(path, &offsets), Err(_) => discard(path, &offsets) } }
//! ```
//!
//! The file has the same bytes for any number of writers.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::hdf5::{Cell, Writer};
use super::output::{PartialFile, beside, rename_synced};
use super::{PREDICTIONS_FORMAT, check_output};
use crate::error::{Error, InContext, Result};

/// The layout of predictions files that this program writes, in the attribute `format_version`.
pub const PREDICTIONS_FORMAT_VERSION: u64 = 1;

/// One dataset of the file: a value, or several, for every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowDataset {
    /// Path in the file; groups are made. A column copied from the input keeps its path.
    pub name: String,
    /// Type of a value.
    pub cell: Cell,
    /// Axes behind that of the rows; none: a value each.
    pub row_shape: Vec<usize>,
}

impl RowDataset {
    /// A dataset of shape (n_rows).
    pub fn column(name: impl Into<String>, cell: Cell) -> RowDataset {
        RowDataset::array(name, cell, &[])
    }

    /// A dataset of shape (n_rows, width).
    pub fn matrix(name: impl Into<String>, cell: Cell, width: usize) -> RowDataset {
        RowDataset::array(name, cell, &[width])
    }

    /// A dataset of shape (n_rows, …).
    pub fn array(name: impl Into<String>, cell: Cell, row_shape: &[usize]) -> RowDataset {
        RowDataset { name: name.into(), cell, row_shape: row_shape.to_vec() }
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.cell.n_bytes() * self.row_shape.iter().product::<usize>()
    }
}

/// What a predictions file will hold. Datasets are spoken of by their place in `datasets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Rows over all ranks.
    pub n_rows: u64,
    /// `prediction`, `probability`, `row`, copied columns, …
    pub datasets: Vec<RowDataset>,
    /// Lists of names that everybody knows, written at once: `classes`.
    pub strings: Vec<(String, Vec<String>)>,
    /// String attributes of the root: digest of the model, program version, … not `format` or `format_version`.
    pub attributes: Vec<(String, String)>,
}

/// Where the rows go: small, equal on all ranks, sent as words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Process number of the creator, part of the partial file's name.
    tag: u64,
    n_rows: u64,
    /// Of each dataset: first byte in the file, bytes of a row.
    datasets: Vec<(u64, u64)>,
}

impl Offsets {
    /// For [`broadcast_vec`](crate::comm::Communicator::broadcast_vec): tag, rows, then offset and row size of each dataset.
    pub fn to_words(&self) -> Vec<u64> {
        let mut words = vec![self.tag, self.n_rows];
        words.extend(self.datasets.iter().flat_map(|(offset, row_bytes)| [*offset, *row_bytes]));
        words
    }

    /// What these words stand for.
    ///
    /// # Errors
    /// `Internal` if they did not come from [`to_words`](Self::to_words).
    pub fn from_words(words: &[u64]) -> Result<Offsets> {
        match words {
            [tag, n_rows, pairs @ ..] if pairs.len() % 2 == 0 => {
                let datasets = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                Ok(Offsets { tag: *tag, n_rows: *n_rows, datasets })
            }
            _ => Err(Error::internal(format!("{} words are no offsets of a predictions file", words.len()))),
        }
    }
}

/// Makes the file beside `path`, with every dataset in its place and no rows. Not collective: one rank only.
///
/// Rows that nobody writes are zero. The file is not removed when the process ends: call [`commit`] or [`discard`].
///
/// # Errors
/// `Usage` as [`check_output`], and for a dataset name that is empty or occurs twice; `Data` when writing fails, nothing is left then.
pub fn create(path: &Path, layout: &Layout, force: bool) -> Result<Offsets> {
    check_output(path, force)?;
    check_names(layout).in_file(path)?;
    let partial = PartialFile::begin(path, force)?;
    let datasets = write_frame(partial.path(), layout).in_file(path)?;
    partial.keep();
    Ok(Offsets { tag: u64::from(std::process::id()), n_rows: layout.n_rows, datasets })
}

/// Everything but the rows. Returns first byte and bytes of a row of each dataset.
fn write_frame(partial: &Path, layout: &Layout) -> Result<Vec<(u64, u64)>> {
    let writer = Writer::create(partial)?;
    writer.text_attribute("/", "format", PREDICTIONS_FORMAT)?;
    writer.number_attribute("/", "format_version", PREDICTIONS_FORMAT_VERSION)?;
    for (name, value) in &layout.attributes {
        writer.text_attribute("/", name, value)?;
    }
    for (name, list) in &layout.strings {
        writer.strings(name, list)?;
    }
    let n_rows = usize::try_from(layout.n_rows).map_err(|_| Error::data("too many rows"))?;
    let mut datasets = Vec::new();
    for dataset in &layout.datasets {
        let shape: Vec<usize> = [n_rows].into_iter().chain(dataset.row_shape.iter().copied()).collect();
        let offset = writer.allocate(&dataset.name, dataset.cell, &shape)?;
        datasets.push((offset, dataset.row_bytes() as u64));
    }
    writer.finish()?;
    let synced = File::open(partial).and_then(|file| file.sync_all());
    synced.map_err(|e| Error::data(format!("cannot write the file: {e}")))?;
    Ok(datasets)
}

/// The names come from flags (`--copy`): what HDF5 would refuse is said before.
fn check_names(layout: &Layout) -> Result<()> {
    let lists = layout.strings.iter().map(|(name, _)| name.as_str());
    let mut names: Vec<&str> = layout
        .datasets
        .iter()
        .map(|dataset| dataset.name.as_str())
        .chain(lists)
        .map(|name| name.trim_matches('/'))
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::usage(format!("two columns of the predictions have the name '{}'", pair[0])));
    }
    let within = |outer: &str| names.iter().any(|name| name.starts_with(&format!("{outer}/")));
    if let Some(name) = names.iter().find(|name| name.is_empty() || within(name)) {
        return Err(Error::usage(format!("'{name}' cannot be the name of a column of the predictions")));
    }
    Ok(())
}

/// One rank's hand on the file. Not collective.
#[derive(Debug)]
pub struct RowWriter {
    file: File,
    /// Of the finished file, for messages.
    path: std::path::PathBuf,
    offsets: Offsets,
}

impl RowWriter {
    /// Opens the file that [`create`] made for `path` (any rank, after the root has created it).
    ///
    /// # Errors
    /// `Data`: for example a folder that this node does not see.
    pub fn open(path: &Path, offsets: &Offsets) -> Result<RowWriter> {
        let partial = beside(path, &offsets.tag.to_string())?;
        let file = OpenOptions::new().write(true).open(&partial);
        let file = file.map_err(|e| Error::data(format!("cannot open the predictions to write rows: {e}")));
        Ok(RowWriter { file: file.in_file(path)?, path: path.to_owned(), offsets: offsets.clone() })
    }

    /// Writes the bytes of whole rows, from the global row `first_row` on, into dataset `dataset` of the layout.
    /// Rows may be written in any order.
    ///
    /// # Errors
    /// `Data`: a full disk, a lost file system.
    ///
    /// # Panics
    /// If there is no such dataset, or the bytes are not whole rows of it.
    pub fn write(&self, dataset: usize, first_row: u64, bytes: &[u8]) -> Result<()> {
        let (offset, row_bytes) = self.offsets.datasets[dataset];
        let n_bytes = bytes.len() as u64;
        if n_bytes == 0 {
            return Ok(());
        }
        assert!(row_bytes > 0 && n_bytes.is_multiple_of(row_bytes), "{n_bytes} bytes are not rows of {row_bytes}");
        let n_rows = n_bytes / row_bytes;
        let end = first_row.checked_add(n_rows).filter(|end| *end <= self.offsets.n_rows);
        assert!(end.is_some(), "{n_rows} rows from {first_row}: the file has {}", self.offsets.n_rows);
        let written = self.file.write_all_at(bytes, offset + first_row * row_bytes);
        written
            .map_err(|e| Error::data(format!("cannot write predictions from row {first_row} on: {e}")))
            .in_file(&self.path)
    }

    /// Synchronises this rank's rows to the disk.
    ///
    /// # Errors
    /// `Data`: what the operating system could not write after all.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::data(format!("cannot write predictions: {e}"))).in_file(&self.path)
    }
}

/// Gives the file its name, after every writer has finished. Not collective: one rank only.
///
/// # Errors
/// `Data`; the partial file is removed, what was at `path` is untouched.
pub fn commit(path: &Path, offsets: &Offsets) -> Result<()> {
    let renamed = rename_synced(&beside(path, &offsets.tag.to_string())?, path);
    if renamed.is_err() {
        discard(path, offsets);
    }
    renamed
}

/// Removes the unfinished file; what was at `path` is untouched. Not collective: one rank only.
pub fn discard(path: &Path, offsets: &Offsets) {
    if let Ok(partial) = beside(path, &offsets.tag.to_string()) {
        // Called when something else has failed: that error is the one to report.
        let _ = std::fs::remove_file(partial);
    }
}

/// Little-endian bytes for a [`Cell::F64`] dataset.
pub fn bytes_of_f64(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes for a [`Cell::F32`] dataset.
pub fn bytes_of_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes for a [`Cell::U32`] dataset.
pub fn bytes_of_u32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes for a [`Cell::I64`] dataset.
pub fn bytes_of_i64(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes for a [`Cell::U64`] dataset.
pub fn bytes_of_u64(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Bytes for a [`Cell::Text`] dataset of `width` bytes a string: filled up with NUL.
///
/// # Errors
/// `Data` for a string that is longer or has a NUL inside: it would not come back.
pub fn bytes_of_text<S: AsRef<str>>(values: &[S], width: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * width);
    for value in values {
        let text = value.as_ref();
        if text.len() > width || text.contains('\0') {
            return Err(Error::data(format!("{text:?} does not fit a text column of {width} bytes without NUL")));
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len() + width - text.len(), 0);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::names_in;
    use super::super::{Array, Reader, format_of};
    use super::*;
    use std::ops::Range;

    const N_ROWS: u64 = 101;
    const CLASSES: [&str; 3] = ["electron", "µ", "τ⁻"];

    fn layout(n_rows: u64) -> Layout {
        Layout {
            n_rows,
            datasets: vec![
                RowDataset::column("prediction", Cell::Text(8)),
                RowDataset::matrix("probability", Cell::F32, 3),
                RowDataset::column("row", Cell::U64),
                RowDataset::column("train/id", Cell::I16),
                RowDataset::column("train/time", Cell::F64),
            ],
            strings: vec![("classes".into(), CLASSES.map(str::to_owned).to_vec())],
            attributes: vec![("digest".into(), "ab".repeat(32))],
        }
    }

    fn write_rows(writer: &RowWriter, rows: Range<u64>) {
        let first = rows.start;
        let of_rows = || rows.clone();
        let labels: Vec<_> = of_rows().map(|row| CLASSES[row as usize % 3]).collect();
        writer.write(0, first, &bytes_of_text(&labels, 8).unwrap()).unwrap();
        let probabilities: Vec<f32> = of_rows().flat_map(|row| [row as f32, -0.0, 1.0 / (row as f32 + 1.0)]).collect();
        writer.write(1, first, &bytes_of_f32(&probabilities)).unwrap();
        writer.write(2, first, &bytes_of_u64(&of_rows().collect::<Vec<_>>())).unwrap();
        let ids: Vec<u8> = of_rows().flat_map(|row| (-(row as i16)).to_le_bytes()).collect();
        writer.write(3, first, &ids).unwrap();
        writer.write(4, first, &bytes_of_f64(&of_rows().map(|row| 1e9 + row as f64).collect::<Vec<_>>())).unwrap();
    }

    fn file_of(folder: &Path, name: &str, cuts: &[u64]) -> Vec<u8> {
        let path = folder.join(name);
        let made = create(&path, &layout(N_ROWS), false).unwrap();
        let offsets = Offsets::from_words(&made.to_words()).unwrap();
        std::thread::scope(|scope| {
            for pair in cuts.windows(2) {
                let (path, offsets) = (&path, &offsets);
                scope.spawn(move || {
                    let writer = RowWriter::open(path, offsets).unwrap();
                    write_rows(&writer, pair[0]..pair[1]);
                    writer.finish().unwrap();
                });
            }
        });
        commit(&path, &offsets).unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn three_uneven_writers_give_the_bytes_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let alone = file_of(folder.path(), "alone.h5", &[0, N_ROWS]);
        assert_eq!(alone, file_of(folder.path(), "three.h5", &[0, 7, 90, N_ROWS]));
        assert_eq!(alone, file_of(folder.path(), "idle.h5", &[0, 0, 1, 1, N_ROWS, N_ROWS]));
        assert_eq!(names_in(folder.path()), ["alone.h5", "idle.h5", "three.h5"]);

        let path = folder.path().join("three.h5");
        assert_eq!(format_of(&path).unwrap().as_deref(), Some(PREDICTIONS_FORMAT));
        let reader = Reader::open(&path).unwrap();
        let rows = Array::U64 { shape: vec![101], values: (0..N_ROWS).collect() };
        assert_eq!(reader.array("row").unwrap(), rows);
        let ids = Array::I64 { shape: vec![101], values: (0..101).map(|row: i64| -row).collect() };
        assert_eq!(reader.array("train/id").unwrap(), ids);
        let Array::F32 { shape, values } = reader.array("probability").unwrap() else { panic!("float32") };
        assert_eq!(shape, [101, 3]);
        assert_eq!(
            (values[3 * 50], values[3 * 50 + 1].to_bits(), values[3 * 50 + 2]),
            (50.0, (-0.0f32).to_bits(), 1.0 / 51.0)
        );
        assert!(reader.is_text("prediction").unwrap());
        assert_eq!(reader.strings("classes").unwrap(), CLASSES);
        assert_eq!(reader.text_attribute("/", "digest").unwrap(), Some("ab".repeat(32)));
    }

    #[test]
    fn no_rows_at_all_is_a_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.h5");
        let offsets = create(&path, &layout(0), false).unwrap();
        let writer = RowWriter::open(&path, &offsets).unwrap();
        write_rows(&writer, 0..0);
        writer.finish().unwrap();
        commit(&path, &offsets).unwrap();
        assert_eq!(Reader::open(&path).unwrap().array("probability").unwrap().shape(), [0, 3]);
    }

    #[test]
    fn a_failed_run_leaves_the_old_predictions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pred.h5");
        let old = file_of(folder.path(), "pred.h5", &[0, N_ROWS]);
        let offsets = create(&path, &layout(5), false).unwrap(); // our own file: may be replaced
        RowWriter::open(&path, &offsets).unwrap().write(2, 1, &bytes_of_u64(&[1, 2])).unwrap();
        discard(&path, &offsets);
        assert_eq!(std::fs::read(&path).unwrap(), old);
        assert_eq!(names_in(folder.path()), ["pred.h5"]);
        assert!(RowWriter::open(&path, &offsets).unwrap_err().to_string().contains("cannot open the predictions"));
        assert!(commit(&path, &offsets).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), old);
    }

    #[test]
    fn bad_places_and_names_are_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        assert!(create(&folder.path().join("no/pred.h5"), &layout(1), false).is_err());
        for copied in ["prediction", "/row", "", "train", "row/x", "classes"] {
            let mut layout = layout(1);
            layout.datasets.push(RowDataset::column(copied, Cell::U8));
            let error = create(&folder.path().join("pred.h5"), &layout, false).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Usage, "{copied}: {error}");
        }
        assert!(names_in(folder.path()).is_empty());
        assert!(Offsets::from_words(&[1, 2, 3]).is_err());
        assert!(bytes_of_text(&["µµ"], 3).is_err() && bytes_of_text(&["a\0"], 3).is_err());
    }

    #[test]
    #[should_panic(expected = "the file has 5")]
    fn rows_beyond_the_end_are_our_bug() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pred.h5");
        let offsets = create(&path, &layout(5), false).unwrap();
        let _ = RowWriter::open(&path, &offsets).unwrap().write(2, 4, &bytes_of_u64(&[1, 2]));
    }
}
