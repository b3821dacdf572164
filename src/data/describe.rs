//! What is in an HDF5 file and how it would be read: for `consort inspect`.

use super::hdf5::Hdf5Source;
use super::hdf5::chunks::StoredIndex;
use super::hdf5::find::{Object, list, shape_text};
use super::hdf5::types::{FilterUse, OpenFile, attributes_of, chunk_of, filters_of, open_to_read, type_name_of};
use super::names::{Need, TableNames};
use super::{DataSource, Schema};
use crate::error::{Error, InContext, Result};
use std::fmt;
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
        attributes: Vec::new(),
    };
    match object {
        Object::Group => {
            let attributes = file.group(&path).map(|group| attributes_of(&group)).unwrap_or_default();
            Described { attributes, ..nothing }
        }
        Object::Dataset(shape, dataset) => Described {
            kind: "dataset".to_string(),
            shape,
            element_type: type_name_of(&dataset),
            chunk: chunk_of(&dataset),
            filters: filters_of(&dataset).unwrap_or_default(),
            through_library: StoredIndex::of(&dataset, false).err().map(str::to_string),
            attributes: attributes_of(&dataset),
            ..nothing
        },
        Object::Other(kind) => Described { kind, ..nothing },
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({} bytes)", self.file, self.file_bytes)?;
        for object in &self.objects {
            writeln!(f, "{object}")?;
        }
        if let Some(table) = &self.table {
            let schema = &table.schema;
            let group = table.names.group.as_ref().map(|group| format!(" in group '{group}'")).unwrap_or_default();
            writeln!(
                f,
                "read as: {} rows, {} {}columns from {}{group}",
                schema.n_rows,
                schema.columns.len(),
                if schema.is_sparse { "sparse " } else { "" },
                table.names.features.join(", ")
            )?;
            if let (Some(target), Some(kind)) = (&table.names.target, schema.target) {
                writeln!(f, "target: {target} ({kind:?})")?;
            }
        }
        match &self.why_not {
            Some(why) => writeln!(f, "not trained on without flags: {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.path.matches('/').count();
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        write!(f, "{:width$}{name}", "", width = 2 + 2 * depth)?;
        match self.kind.as_str() {
            "group" => write!(f, "/")?,
            "dataset" => write!(f, "  {}  {}", shape_text(&self.shape), self.element_type)?,
            other => write!(f, "  ({other})")?,
        }
        if let Some(chunk) = &self.chunk {
            write!(f, "  chunks {}", shape_text(chunk))?;
        }
        for filter in &self.filters {
            write!(f, "  {}{}", filter.name, if filter.available { "" } else { " (no decoder here)" })?;
        }
        if let Some(why) = &self.through_library {
            write!(f, "  (through the library: {why})")?;
        }
        for (name, value) in &self.attributes {
            write!(f, "  @{name}={value}")?;
        }
        Ok(())
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
        let text = found.to_string();
        assert!(text.contains("X  40 × 3  float32  chunks 16 × 3  shuffle  deflate"), "{text}");
        assert!(text.contains("40 rows, 3 columns from X in group 'train'"), "{text}");
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
                    let text = describe(&path).unwrap().to_string();
                    assert!(text.lines().count() > 1, "{text}");
                    n_files += 1;
                }
            }
        }
        assert!(n_files > 0);
    }
}
