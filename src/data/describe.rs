//! What is in an HDF5 file and how it would be read: for `consort inspect`.

use super::hdf5::Hdf5Source;
use super::hdf5::advice::advice;
use super::hdf5::chunks::StoredIndex;
use super::hdf5::find::{Object, list};
use super::hdf5::types::{FilterUse, OpenFile, attributes_of, chunk_of, filters_of, open_to_read, type_name_of};
use super::names::{Need, TableNames};
use super::{DataSource, Schema};
use crate::error::{Error, InContext, Result};
use std::path::Path;

/// The tree of a file, and the table that would be read from it without any flag.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Description {
    /// As given.
    pub file: String,
    pub file_bytes: u64,
    /// Bytewise order of paths; groups before what is in them.
    pub objects: Vec<Described>,
    /// The names and schema found for training, else for prediction.
    pub table: Option<Table>,
    /// Why the file cannot be read without flags for training; None if it can.
    pub why_not: Option<String>,
}

/// How the file would be read.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Table {
    pub names: TableNames,
    pub schema: Schema,
}

/// A group or a dataset.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Described {
    /// From the root, without a leading slash.
    pub path: String,
    /// `group`, `dataset`, or what is wrong with the link.
    pub kind: String,
    /// Rows first. Empty for groups and single values.
    pub shape: Vec<u64>,
    /// Such as `float32 big-endian`; empty for groups.
    pub element_type: String,
    /// None: contiguous, compact or virtual.
    pub chunk: Option<Vec<u64>>,
    /// In the order they were applied.
    pub filters: Vec<FilterUse>,
    /// Why its rows are read through the HDF5 library, one thread at a time. None: past it, by all threads.
    pub through_library: Option<String>,
    /// What its chunks cost that other chunks would not.
    pub advice: Option<String>,
    /// Name, and the value where it is short, else type and shape.
    pub attributes: Vec<(String, String)>,
}

/// Describes a file. Not collective. Errors: no such file, not an HDF5 file; odd contents are described, not refused.
pub fn describe(path: &Path) -> Result<Description> {
    let file = open_to_read(path)?;
    let file_bytes = std::fs::metadata(path).map_err(|e| Error::data(e.to_string())).in_file(path)?.len();
    let objects = list(&file, "").into_iter().map(|entry| described(&file, entry.path, entry.object)).collect();
    let open = |need| Hdf5Source::open(&[path.to_path_buf()], &TableNames::default(), need);
    let (source, why_not) = match open(Need::Train) {
        Ok(source) => (Some(source), None),
        Err(why) => (open(Need::Predict).ok(), Some(why.to_string())),
    };
    let table = source.map(|source| Table { names: source.names().clone(), schema: source.schema().clone() });
    Ok(Description { file: path.display().to_string(), file_bytes, objects, table, why_not })
}

fn described(file: &OpenFile, path: String, object: Object) -> Described {
    let nothing = Described {
        path: path.clone(),
        kind: "group".to_string(),
        shape: Vec::new(),
        element_type: String::new(),
        chunk: None,
        filters: Vec::new(),
        through_library: None,
        advice: None,
        attributes: Vec::new(),
    };
    match object {
        Object::Group => {
            let attributes = file.group(&path).map(|group| attributes_of(&group)).unwrap_or_default();
            Described { attributes, ..nothing }
        }
        Object::Dataset(shape, dataset) => {
            let chunk = chunk_of(&dataset);
            let stored = StoredIndex::of_any(&dataset);
            let mut filters = filters_of(&dataset).unwrap_or_default();
            // Past the library every filter has a decoder.
            filters.iter_mut().for_each(|filter| filter.available |= stored.is_ok());
            let advice = match (&chunk, &stored) {
                (Some(chunk), Ok(stored)) => advice(&shape, chunk, stored.element_bytes() as u64, !filters.is_empty()),
                _ => None,
            };
            Described {
                kind: "dataset".to_string(),
                shape,
                element_type: type_name_of(&dataset),
                chunk,
                filters,
                through_library: stored.err().map(str::to_string),
                advice,
                attributes: attributes_of(&dataset),
                ..nothing
            }
        }
        Object::Other(kind) => Described { kind, ..nothing },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::{self, Storage};

    #[test]
    fn a_table_is_described_with_its_storage_and_how_it_would_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.h5");
        let storage = Storage { chunk_rows: Some(16), deflate: Some(1) };
        synthetic::write_hdf5(&path, "train", &synthetic::logistic(40, 3, 1).unwrap(), storage).unwrap();
        let found = describe(&path).unwrap();
        assert_eq!(found.why_not, None);
        let paths: Vec<&str> = found.objects.iter().map(|object| object.path.as_str()).collect();
        assert_eq!(paths, ["train", "train/X", "train/y"]);
        assert_eq!(found.objects[1].chunk, Some(vec![16, 3]));
        let filters: Vec<&str> = found.objects[1].filters.iter().map(|filter| filter.name.as_str()).collect();
        assert_eq!(filters, ["shuffle", "deflate"]);
        let table = found.table.as_ref().unwrap();
        assert_eq!((table.schema.n_rows, table.names.group.as_deref()), (40, Some("train")));
        assert!(serde_json::to_string(&found).unwrap().contains("\"n_rows\":40"));
    }

    #[test]
    fn every_file_of_other_software_is_described() {
        let Some(extra) = std::env::var_os("CONSORT_EXTRA_DATA") else {
            return eprintln!("skipped: CONSORT_EXTRA_DATA is not set");
        };
        let mut folders = vec![Path::new(&extra).join("hdf5-compat")];
        let mut n_files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    assert!(describe(&path).unwrap().file_bytes > 0, "{}", path.display());
                    n_files += 1;
                }
            }
        }
        assert!(n_files > 0);
    }
}
