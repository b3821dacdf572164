//! # store — values that stay, in HDF5 files
//!
//! In:    a [`ModelFile`] (inert values), or predictions as bytes of rows.
//! Out:   files that appear whole or not at all, and the same values again.
//! Talks: never; the caller broadcasts [`Offsets`](predictions::Offsets) and [`agree`](crate::comm::Communicator::agree)s.
//! Never: ranks, what a model is, training, tables to train on.
//!
//! A model file, as h5py sees it:
//!
//! ```python
//! f = h5py.File("model.h5")
//! weights, features = f["params/weights"][:], f["features"].asstr()[:]
//! settings = tomllib.loads(f.attrs["settings"])
//! ```
//!
//! | object | what it is |
//! |---|---|
//! | attributes `format`, `format_version` | `consort-model`, 1 |
//! | attributes `kind`, `settings`, `digest`, `program_version` | kind of model, TOML, 64 hex digits, version that wrote it |
//! | attribute `sealed` of the root | 1: behind the end of the HDF5 file are its BLAKE3 and what marks it; a damaged file is refused |
//! | further string attributes | [`ModelFile::attributes`] |
//! | `/params/NAME` | [`ModelFile::arrays`]: float32, float64, int64, uint64 |
//! | `/features`, `/classes`, … | [`ModelFile::strings`]: UTF-8, variable length |
//! | `/history/NAME` | [`ModelFile::history`]: float64 |
//! | `/GROUP`, `/GROUP/GROUP` with attributes | [`ModelFile::parts`]: models inside this one (`members/000`), each laid out as a file is |
//!
//! The same model gives the same bytes: no time stamps.

mod calibrated;
pub mod checkpoint;
mod forest;
mod hdf5;
pub mod lightgbm;
mod members;
pub mod model;
mod network;
mod output;
pub mod predictions;
mod seal;
pub mod settings;
mod trees;

use std::path::Path;

pub use self::hdf5::{Array, Cell, Reader, Writer, hdf5_version};
pub use self::output::{PartialFile, check_output};
use crate::error::{Error, InContext, Result};
use crate::faults::{self, Point};

/// The `format` attribute of a model file.
pub const MODEL_FORMAT: &str = "consort-model";
/// The `format` attribute of a predictions file.
pub const PREDICTIONS_FORMAT: &str = "consort-predictions";
/// The newest layout of a model file that this program reads, and the one it writes.
pub const MODEL_FORMAT_VERSION: u64 = 1;

/// Root attributes that have their own field in [`ModelFile`].
const RESERVED: [&str; 7] = ["format", "format_version", "kind", "settings", "digest", "program_version", "sealed"];

/// What a model file holds. The model room turns a model into this and back; nothing here knows what it means.
///
/// Names of arrays, strings and histories have no `/`; those of strings are not `params` or `history`; order is kept.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ModelFile {
    /// The kind of model: `linear`, `boost`, …
    pub kind: String,
    /// Parameters and whatever else is needed to predict.
    pub arrays: Vec<(String, Array)>,
    /// Lists of names: `features`, `classes`, … No NUL inside.
    pub strings: Vec<(String, Vec<String>)>,
    /// The model settings, as TOML.
    pub config: String,
    /// Facts in words: target, units, seed, fingerprint of the processor, …
    pub attributes: Vec<(String, String)>,
    /// Losses and metrics, one number a step, epoch or round.
    pub history: Vec<(String, Vec<f64>)>,
    /// 64 hex digits; see `PROMISES` section 1.
    pub digest: String,
    /// Version of the program that trained the model.
    pub program_version: String,
    /// Models that this one is made of, by the group that holds them: `members/000`, `final`, … At most one `/` in a name.
    pub parts: Vec<(String, ModelFile)>,
}

impl ModelFile {
    /// The array of this name.
    ///
    /// # Errors
    /// `Data`, naming the array: the file lacks something that its kind of model needs.
    pub fn array(&self, name: &str) -> Result<&Array> {
        let found = self.arrays.iter().find(|(known, _)| known == name).map(|(_, array)| array);
        found.ok_or_else(|| Error::data("the model file lacks this array")).in_dataset(&format!("params/{name}"))
    }

    /// Shape and values of a float32 array. Errors as [`array`](Self::array), and for another type.
    pub fn f32(&self, name: &str) -> Result<(&[usize], &[f32])> {
        match self.array(name)? {
            Array::F32 { shape, values } => Ok((shape, values)),
            other => Err(wrong_type(name, "float32", other)),
        }
    }

    /// Shape and values of a float64 array. Errors as [`array`](Self::array), and for another type.
    pub fn f64(&self, name: &str) -> Result<(&[usize], &[f64])> {
        match self.array(name)? {
            Array::F64 { shape, values } => Ok((shape, values)),
            other => Err(wrong_type(name, "float64", other)),
        }
    }

    /// Shape and values of an int64 array. Errors as [`array`](Self::array), and for another type.
    pub fn i64(&self, name: &str) -> Result<(&[usize], &[i64])> {
        match self.array(name)? {
            Array::I64 { shape, values } => Ok((shape, values)),
            other => Err(wrong_type(name, "int64", other)),
        }
    }

    /// Shape and values of a uint32 array. Errors as [`array`](Self::array), and for another type.
    pub fn u32(&self, name: &str) -> Result<(&[usize], &[u32])> {
        match self.array(name)? {
            Array::U32 { shape, values } => Ok((shape, values)),
            other => Err(wrong_type(name, "uint32", other)),
        }
    }

    /// Shape and values of a uint64 array. Errors as [`array`](Self::array), and for another type.
    pub fn u64(&self, name: &str) -> Result<(&[usize], &[u64])> {
        match self.array(name)? {
            Array::U64 { shape, values } => Ok((shape, values)),
            other => Err(wrong_type(name, "uint64", other)),
        }
    }

    /// The list of this name. Errors as [`array`](Self::array).
    pub fn strings(&self, name: &str) -> Result<&[String]> {
        let found = self.strings.iter().find(|(known, _)| known == name).map(|(_, list)| list.as_slice());
        found.ok_or_else(|| Error::data("the model file lacks this list")).in_dataset(name)
    }

    /// The further attribute of this name, if any.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn wrong_type(name: &str, expected: &str, found: &Array) -> Error {
    let message = format!("expected {expected}, found {} of shape {:?}", found.type_name(), found.shape());
    Error::data(message).at(format!("'params/{name}'"))
}

/// Writes a model file: beside, synchronised, renamed. Not collective; one rank calls it.
///
/// Replaces a file that Consort wrote; another one only with `force`. Call [`check_output`] before training with the same
/// arguments, so that what is wrong with the place is known before hours of work.
///
/// # Errors
/// `Usage` as [`check_output`]; `Data` when writing fails (a full disk). Then nothing is left behind, and what was at `path` is untouched.
pub fn save(path: &Path, model: &ModelFile, force: bool) -> Result<()> {
    check_names(model).in_file(path)?;
    let partial = PartialFile::begin(path, force)?;
    write_model(partial.path(), model).in_file(path)?;
    partial.commit()
}

/// Writes a text file: beside, synchronised, renamed. Not collective; one rank calls it.
///
/// # Errors
/// As [`save`].
pub fn save_text(path: &Path, text: &str, force: bool) -> Result<()> {
    let partial = PartialFile::begin(path, force)?;
    let written = std::fs::write(partial.path(), text);
    written.map_err(|e| Error::data(format!("cannot write the file: {e}"))).in_file(path)?;
    partial.commit()
}

fn write_model(path: &Path, model: &ModelFile) -> Result<()> {
    let writer = Writer::create(path)?;
    write_group(&writer, "", model)?;
    writer.number_attribute("/", "sealed", 1)?;
    faults::before(Point::ModelWrite).map_err(|e| Error::data(format!("cannot write the file: {e}")))?;
    writer.finish()?;
    seal::put(path)
}

/// A model to a group: the empty name is the root.
fn write_group(writer: &Writer, group: &str, model: &ModelFile) -> Result<()> {
    let (at, inside) = if group.is_empty() { ("/", String::new()) } else { (group, format!("{group}/")) };
    writer.text_attribute(at, "format", MODEL_FORMAT)?;
    writer.number_attribute(at, "format_version", MODEL_FORMAT_VERSION)?;
    writer.text_attribute(at, "kind", &model.kind)?;
    writer.text_attribute(at, "settings", &model.config)?;
    writer.text_attribute(at, "digest", &model.digest)?;
    writer.text_attribute(at, "program_version", &model.program_version)?;
    for (name, value) in &model.attributes {
        writer.text_attribute(at, name, value)?;
    }
    for (name, list) in &model.strings {
        writer.strings(&format!("{inside}{name}"), list)?;
    }
    writer.group(&format!("{inside}params"))?;
    for (name, array) in &model.arrays {
        writer.array(&format!("{inside}params/{name}"), array)?;
    }
    writer.group(&format!("{inside}history"))?;
    for (name, values) in &model.history {
        let values = Array::F64 { shape: vec![values.len()], values: values.clone() };
        writer.array(&format!("{inside}history/{name}"), &values)?;
    }
    let mut folder = None;
    for (name, part) in &model.parts {
        match name.split_once('/') {
            Some((of, _)) if folder != Some(of) => {
                writer.group(&format!("{inside}{of}"))?;
                folder = Some(of);
            }
            _ => {}
        }
        let name = format!("{inside}{name}");
        writer.group(&name)?;
        write_group(writer, &name, part)?;
    }
    Ok(())
}

/// A name that HDF5 would read as a path, or twice the same name, is a bug of the room that made the model.
fn check_names(model: &ModelFile) -> Result<()> {
    let groups: [(&str, Vec<&str>, &[&str]); 4] = [
        ("array", model.arrays.iter().map(|(name, _)| name.as_str()).collect(), &[]),
        ("strings", model.strings.iter().map(|(name, _)| name.as_str()).collect(), &["params", "history"]),
        ("attribute", model.attributes.iter().map(|(name, _)| name.as_str()).collect(), &RESERVED),
        ("history", model.history.iter().map(|(name, _)| name.as_str()).collect(), &[]),
    ];
    for (what, mut names, taken) in groups {
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let unfit = |name: &&str| name.is_empty() || *name == "." || name.contains(['/', '\0']) || taken.contains(name);
        if let Some(name) = twice.or_else(|| names.into_iter().find(|name| unfit(name))) {
            return Err(Error::internal(format!("'{name}' cannot be the name of a model's {what}")));
        }
    }
    model.parts.iter().try_for_each(|(_, part)| check_names(part))
}

/// Models inside models inside models, at most; a file that says more is damaged.
const MOST_DEPTH: usize = 8;

/// Reads a model file. Not collective.
///
/// # Errors
/// `Data`, naming the file and: that it is missing, not HDF5, damaged, HDF5 of another sort (and what it holds), or written
/// by a newer program (and by which version).
pub fn load(path: &Path) -> Result<ModelFile> {
    let reader = Reader::open(path)?;
    check_format(&reader).in_file(path)?;
    // Older files have none.
    if reader.number_attribute("/", "sealed")?.is_some() && !reader.is_sealed() {
        return Err(Error::data(
            "has lost its seal: it was cut off, or opened for writing by another program, such as h5py with 'r+'; take another copy, or, \
             if it was changed on purpose, remove the attribute 'sealed' of its root",
        ))
        .in_file(path);
    }
    read_group(&reader, "", path, MOST_DEPTH)
}

/// The model in a group: the empty name is the root.
fn read_group(reader: &Reader, group: &str, path: &Path, depth: usize) -> Result<ModelFile> {
    let (at, inside) = if group.is_empty() { ("/", String::new()) } else { (group, format!("{group}/")) };
    let text = |name: &str| {
        let value = reader.text_attribute(at, name)?.ok_or_else(|| lacks(name));
        if group.is_empty() { value.in_file(path) } else { value.in_dataset(group).in_file(path) }
    };
    let mut model = ModelFile {
        kind: text("kind")?,
        config: text("settings")?,
        digest: text("digest")?,
        program_version: text("program_version")?,
        ..ModelFile::default()
    };
    for name in reader.attribute_names(at)?.into_iter().filter(|name| !RESERVED.contains(&name.as_str())) {
        let value = text(&name)?;
        model.attributes.push((name, value));
    }
    for name in reader.names(at)? {
        let object = format!("{inside}{name}");
        if reader.is_text(&object)? {
            let list = reader.strings(&object)?;
            model.strings.push((name, list));
        } else if !["params", "history"].contains(&name.as_str()) && reader.is_group(&object)? {
            if depth == 0 {
                return Err(Error::data("models inside models without an end")).in_dataset(&object).in_file(path);
            }
            // A group with the attributes of a model is one; another holds some.
            match reader.attribute_names(&object)?.iter().any(|name| name == "kind") {
                true => model.parts.push((name, read_group(reader, &object, path, depth - 1)?)),
                false => {
                    for part in reader.names(&object)? {
                        let read = read_group(reader, &format!("{object}/{part}"), path, depth - 1)?;
                        model.parts.push((format!("{name}/{part}"), read));
                    }
                }
            }
        }
    }
    for name in reader.names(&format!("{inside}params"))? {
        let array = reader.array(&format!("{inside}params/{name}"))?;
        model.arrays.push((name, array));
    }
    for name in reader.names(&format!("{inside}history"))? {
        let path_inside = format!("{inside}history/{name}");
        match reader.array(&path_inside)? {
            Array::F64 { values, .. } => model.history.push((name, values)),
            other => {
                let error = Error::data(format!("expected float64, found {}", other.type_name()));
                return Err(error).in_dataset(&path_inside).in_file(path);
            }
        }
    }
    Ok(model)
}

/// The `format` attribute of an HDF5 file ([`MODEL_FORMAT`], [`PREDICTIONS_FORMAT`], …); `None` for a file of others. Not
/// collective. Errors as [`load`] for what is not HDF5.
pub fn format_of(path: &Path) -> Result<Option<String>> {
    let reader = Reader::open(path)?;
    // An attribute of this name that is not a string is somebody else's.
    Ok(reader.text_attribute("/", "format").unwrap_or(None))
}

/// Refuses a sealed file that is damaged; any other passes. Not collective; before the HDF5 library is shown it.
///
/// # Errors
/// `Data`, naming the file.
pub fn check_seal(path: &Path) -> Result<()> {
    seal::check(path).map(|_| ()).in_file(path)
}

fn check_format(reader: &Reader) -> Result<()> {
    match reader.text_attribute("/", "format").unwrap_or(None).as_deref() {
        Some(MODEL_FORMAT) => {}
        Some(PREDICTIONS_FORMAT) => return Err(Error::data("holds predictions written by consort, not a model")),
        Some(other) if other.starts_with("consort-") => {
            return Err(Error::data(format!("is a '{other}' file, not a model")));
        }
        _ => return Err(Error::data(format!("is HDF5 but not a consort model; it holds {}", list_of(reader)))),
    }
    let version = reader.number_attribute("/", "format_version")?.ok_or_else(|| lacks("format_version"))?;
    if version == 0 || version > MODEL_FORMAT_VERSION {
        let writer = reader.text_attribute("/", "program_version").unwrap_or(None);
        let by = writer.map_or(String::new(), |version| format!(", written by consort {version}"));
        return Err(Error::data(format!(
            "has model format {version}{by}; this is consort {}, which reads formats up to {MODEL_FORMAT_VERSION}: use the newer program",
            env!("CARGO_PKG_VERSION")
        )));
    }
    Ok(())
}

fn lacks(attribute: &str) -> Error {
    Error::data(format!("lacks the attribute '{attribute}' of a consort model"))
}

/// The first names in a file that is not ours, for its owner to recognise it.
fn list_of(reader: &Reader) -> String {
    const SHOWN: usize = 5;
    match reader.names("/") {
        Ok(names) if names.is_empty() => "nothing".to_owned(),
        Ok(names) => {
            let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("'{name}'")).collect();
            let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
            shown.join(", ") + &more
        }
        Err(_) => "nothing that can be listed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
