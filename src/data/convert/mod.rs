//! Other formats to HDF5: csv and tsv, libsvm, npy and npz, Parquet, idx (MNIST); text, npy and idx also gzipped.
//!
//! In: files. Out: one table in a group of an HDF5 file, types narrowed without loss, chunked and compressed. Every format is read
//! twice from beginning to end: once to find rows, types and categories, once to write them. Memory does not grow with the files.

mod array;
pub(super) mod csv;
mod idx;
mod input;
pub(super) mod libsvm;
mod npy;
mod number;
mod parquet;
mod pieces;
mod table;

use super::crew::Crew;
use super::hdf5::write::Writer;
use super::names::TARGET_NAMES;
use crate::error::{Error, InContext, Result};
use input::{Inputs, cannot_read};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Arrays of bytes or numbers, as MNIST's files.
    Idx,
    /// Comma-separated values, or another separator.
    Csv,
    /// `label index:value …`.
    Libsvm,
    /// An array of numpy.
    Npy,
    /// An archive of them.
    Npz,
    /// Flat columns.
    Parquet,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Idx => "idx",
            Format::Csv => "csv",
            Format::Libsvm => "libsvm",
            Format::Npy => "npy",
            Format::Npz => "npz",
            Format::Parquet => "parquet",
        }
    }
}

/// How to convert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvertOptions {
    /// None: by the content.
    pub format: Option<Format>,
    /// Group that the datasets go to. Empty: the root.
    pub group: String,
    /// Add to a file that is there, so that `train` and `test` land in one.
    pub append: bool,
    /// Replace a file that is there.
    pub replace: bool,
    /// Target column of a csv or Parquet file: its name, or its number from 0, or from the end (−1 is the last); target array of
    /// an npz file. None: the one called `y`, `target`, `labels` or `label`, if there is one.
    pub target: Option<String>,
    /// Field separator of a csv file. None: tab, semicolon or comma, whichever the first line has.
    pub separator: Option<u8>,
    /// Whether the first line of a csv file names the columns. None: if no field of it is a number.
    pub header: Option<bool>,
    /// Columns of a libsvm table, if more than its largest index says.
    pub n_features: Option<usize>,
    /// A libsvm table becomes compressed sparse rows, not a dense table.
    pub sparse: bool,
}

impl ConvertOptions {
    /// Errors: what was asked for means nothing for this format.
    fn suit(&self, format: Format) -> Result<()> {
        use Format::{Csv, Libsvm, Npz, Parquet};
        let header = if self.header == Some(false) { "--no-header" } else { "--header" };
        let rules: [(&'static str, bool, &[Format]); 5] = [
            ("--separator", self.separator.is_some(), &[Csv]),
            (header, self.header.is_some(), &[Csv]),
            ("--target", self.target.is_some(), &[Csv, Npz, Parquet]),
            ("--n-features", self.n_features.is_some(), &[Libsvm]),
            ("--sparse", self.sparse, &[Libsvm]),
        ];
        let Some((flag, _, suited)) = rules.iter().find(|(_, given, suited)| *given && !suited.contains(&format))
        else {
            return Ok(());
        };
        let suited: Vec<&str> = suited.iter().map(|format| format.name()).collect();
        let (suited, found) = (suited.join(", "), format.name());
        Err(Error::usage(format!("is for {suited}; this is read as {found} (--format says otherwise)"))).for_flag(flag)
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ConvertReport {
    pub format: Format,
    pub n_rows: u64,
    /// Names for `--features`, relative to the group.
    pub features: Vec<String>,
    /// Columns in `features`, trailing axes flattened.
    pub n_columns: u64,
    pub target: Option<String>,
}

/// How far a pass over the inputs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `reading`, `writing`.
    pub doing: &'static str,
    pub done_bytes: u64,
    pub of_bytes: u64,
}

/// Converts files into one table of `out`. Not collective: `crew` shares the work, and this rank reads and writes. `watch` hears
/// how far it is. The file has the same bytes whoever shares.
///
/// Several csv, libsvm or Parquet files follow one another by rows; idx and npy take features and targets. The output is written
/// beside (`.partial`) and renamed: a failed run leaves an existing file as it was. The group gets the attributes `source` (names
/// of the inputs), `source_digest` (BLAKE3 of the bytes of each) and `program_version`.
///
/// # Errors
/// `Usage`: an output that is there, names that are not. `Data`: inputs that cannot be read, or hold what cannot be stored; with
/// file and line.
pub fn convert(
    inputs: &[PathBuf],
    out: &Path,
    options: &ConvertOptions,
    crew: &dyn Crew,
    watch: &mut dyn FnMut(&Progress),
) -> Result<ConvertReport> {
    if inputs.is_empty() {
        return Err(Error::usage("no file to convert was named"));
    }
    let exists = out.exists();
    if exists && !options.append && !options.replace {
        return Err(Error::usage("is there already; use --force to replace it or --append to add to it")).in_file(out);
    }
    let mut inputs = Inputs::new(inputs, crew, watch)?;
    let format = match options.format {
        Some(format) => format,
        None => match sniff(&inputs).in_file(&inputs.paths[0])? {
            // Rows of labels alone look like csv.
            Format::Csv if options.sparse || options.n_features.is_some() => Format::Libsvm,
            found => found,
        },
    };
    options.suit(format).in_file(&inputs.paths[0])?;
    whole_or_not_at_all(out, |partial| {
        if exists && options.append {
            std::fs::copy(out, partial).map_err(|e| Error::data(format!("cannot be copied: {e}"))).in_file(out)?;
        }
        write(&mut inputs, out, partial, format, options)
    })
}

/// Calls `write` with a name beside `out`, and renames what it wrote there. What fails leaves nothing behind.
pub(crate) fn whole_or_not_at_all<T>(out: &Path, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    // Hidden, and of this process alone: neither an input nor another run's.
    let mut name = std::ffi::OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(format!(".partial-{}", std::process::id()));
    let partial = Partial(out.with_file_name(name));
    partial.remove();
    let result = write(&partial.0)?;
    std::fs::File::open(&partial.0)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial.0, out))
        .map_err(|e| Error::data(format!("cannot be renamed from {}: {e}", partial.0.display())))
        .in_file(out)?;
    Ok(result)
}

/// A file that goes away unless it has been renamed, whether by an error or by a panic.
struct Partial(PathBuf);

impl Partial {
    fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.remove();
    }
}

fn write(
    inputs: &mut Inputs<'_>,
    out: &Path,
    partial: &Path,
    format: Format,
    options: &ConvertOptions,
) -> Result<ConvertReport> {
    let writer = Writer::append(partial, &options.group)?;
    if writer.has("X") || writer.has("y") {
        return Err(Error::usage(format!("group '{}' has a table already; choose another --group", options.group)))
            .in_file(out);
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let report = match format {
        Format::Idx => idx::convert(inputs, &writer)?,
        Format::Csv => csv::convert(inputs, &writer, options)?,
        Format::Libsvm => libsvm::convert(inputs, &writer, options)?,
        Format::Npy | Format::Npz => npy::convert(inputs, &writer, options, format, folder)?,
        Format::Parquet => parquet::convert(inputs, &writer, options)?,
    };
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = inputs.paths.iter().map(name).collect();
    writer.text_attribute("", "source", &names)?;
    writer.text_attribute("", "source_digest", &inputs.digests()?)?;
    writer.word_attribute("", "program_version", env!("CARGO_PKG_VERSION"))?;
    writer.close()?;
    Ok(report)
}

/// The format by the first bytes.
fn sniff(inputs: &Inputs<'_>) -> Result<Format> {
    let mut start = Vec::new();
    inputs.open(0)?.take(1 << 16).read_to_end(&mut start).map_err(cannot_read)?;
    if start.len() >= 4 && start[..2] == [0, 0] && (1..=8).contains(&start[3]) {
        return Ok(Format::Idx);
    }
    let known: [(&[u8], Format); 3] =
        [(npy::MAGIC, Format::Npy), (b"PK\x03\x04", Format::Npz), (b"PAR1", Format::Parquet)];
    if let Some((_, format)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Ok(*format);
    }
    if start.starts_with(b"\x89HDF") {
        return Err(Error::usage("is an HDF5 file already; `consort repack` gives it other chunks"));
    }
    if start.contains(&0) {
        return Err(Error::data("is none of csv, libsvm, npy, npz, Parquet and idx; it has zero bytes"));
    }
    let text = String::from_utf8_lossy(&start);
    let is_pair = |field: &str| field.split_once(':').is_some_and(|(index, _)| index.parse::<u32>().is_ok());
    // Rows without values have a label only.
    let is_row = |line: &str| {
        let mut fields = line.split_whitespace();
        let label_is_number = fields.next().is_some_and(|label| label.parse::<f64>().is_ok());
        label_is_number && fields.next().is_some_and(|field| is_pair(field) || field.starts_with("qid:"))
    };
    Ok(if text.lines().any(is_row) { Format::Libsvm } else { Format::Csv })
}

fn target_column(names: &[String], options: &ConvertOptions) -> Result<Option<usize>> {
    let Some(wanted) = &options.target else {
        return Ok(TARGET_NAMES.iter().find_map(|name| names.iter().position(|column| column == name)));
    };
    if let Some(column) = names.iter().position(|name| name == wanted) {
        return Ok(Some(column));
    }
    let from_end = |number: i64| if number < 0 { number + names.len() as i64 } else { number };
    match wanted.parse().map(from_end) {
        Ok(column) if (0..names.len() as i64).contains(&column) => Ok(Some(column as usize)),
        _ => Err(Error::usage(format!("no column '{wanted}'; there is: {}", names.join(", ")))).for_flag("--target"),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "damage_tests.rs"]
mod damage_tests;

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod foreign_tests;
