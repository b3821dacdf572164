//! What of a dataset lies in other files: the HDF5 library takes a source of a virtual dataset that it cannot open for one that was
//! never written, and raw bytes behind the end of an external file for zeros, and says nothing.

use super::sound;
use super::types::{reason, virtual_sources_of};
use crate::error::{Error, Result};
use hdf5::plist::dataset_create::{ExternalFile, Layout};
use hdf5::{Dataset, File};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Virtual datasets of virtual datasets are followed so far.
const MAX_DEPTH: usize = 8;

/// Errors: a source of this virtual dataset, or of one that it is made of, is missing or cannot be opened; a file of raw bytes is
/// missing or too short. Other datasets need no other file.
pub(super) fn check(dataset: &Dataset) -> Result<()> {
    check_raw(dataset)?;
    check_to(dataset, MAX_DEPTH)
}

/// The bytes of a dataset with external storage lie in these files one after another.
fn check_raw(dataset: &Dataset) -> Result<()> {
    let files = dataset.dcpl().map(|create| create.external()).unwrap_or_default();
    let element_bytes = dataset.dtype().map_or(0, |dtype| dtype.size() as u64);
    let mut left = (dataset.size() as u64).saturating_mul(element_bytes);
    for ExternalFile { name, offset, size } in files {
        // 0 stands for as much as there is.
        let wanted = if size == 0 { left } else { left.min(size as u64) };
        let place = raw_place(&dataset.filename(), &name);
        let found = std::fs::metadata(&place).map_err(|e| {
            let place = place.display();
            Error::data(format!("has its bytes in {place}, which cannot be looked at: {e}; put the file there"))
        })?;
        let n_bytes = (offset as u64).saturating_add(wanted);
        if found.is_file() && found.len() < n_bytes {
            return Err(Error::data(format!(
                "has its bytes in {}, which ends after {} bytes where {n_bytes} are needed: the file is truncated",
                place.display(),
                found.len()
            )));
        }
        left -= wanted;
    }
    Ok(())
}

/// Source: HDF5 reference manual, H5Pset_external and H5Pset_efile_prefix.
fn raw_place(file: &str, name: &str) -> PathBuf {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    match std::env::var("HDF5_EXTFILE_PREFIX") {
        Ok(prefix) => Path::new(&prefix.replace("${ORIGIN}", &folder.to_string_lossy())).join(name),
        Err(_) => PathBuf::from(name),
    }
}

fn check_to(dataset: &Dataset, depth: usize) -> Result<()> {
    if dataset.layout() != Layout::Virtual {
        return Ok(());
    }
    if depth == 0 {
        return Err(Error::data(format!("is made of virtual datasets, more than {MAX_DEPTH} deep")));
    }
    let sources = virtual_sources_of(dataset)?.into_iter().map(|(path, name)| (first_of(&path), first_of(&name)));
    sources.collect::<BTreeSet<_>>().iter().try_for_each(|(path, name)| check_source(dataset, path, name, depth))
}

fn check_source(dataset: &Dataset, path: &str, name: &str, depth: usize) -> Result<()> {
    let places = places_of(Path::new(&dataset.filename()), path);
    let Some(found) = places.iter().find(|place| place.is_file()) else {
        let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(Error::data(format!(
            "is a virtual dataset, and its source '{path}' is missing (looked for {}); put the file there",
            looked.join(", ")
        )));
    };
    let cannot = |what: &str| {
        Error::data(format!(
            "is a virtual dataset, and its source '{name}' in {} cannot be opened: {what}",
            found.display()
        ))
    };
    // As the library opens it.
    let opened = if path == "." { dataset.file() } else { File::open(found) };
    let opened = opened.map_err(|e| cannot(&reason(&e)))?;
    let source = sound::open(&opened, name).map_err(|e| cannot(&reason(&e)))?;
    sound::check_values(&source).map_err(|e| cannot(&e.to_string()))?;
    check_to(&source, depth - 1)
}

/// Where the library looks for a source. Source: HDF5 reference manual, H5Pset_virtual and H5Pset_virtual_prefix.
fn places_of(file: &Path, source: &str) -> Vec<PathBuf> {
    if source == "." {
        return vec![file.to_path_buf()];
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut places = Vec::new();
    let mut relative = Path::new(source);
    if relative.is_absolute() {
        places.push(relative.to_path_buf());
        relative = relative.file_name().map_or(relative, Path::new);
    }
    if let Some(prefixes) = std::env::var_os("HDF5_VDS_PREFIX") {
        let prefixes = prefixes.to_string_lossy().replace("${ORIGIN}", &folder.to_string_lossy());
        places.extend(prefixes.split(':').map(|prefix| Path::new(prefix).join(relative)));
    }
    places.push(folder.join(relative));
    places.push(relative.to_path_buf());
    if let Ok(real) = file.canonicalize() {
        places.push(real.parent().unwrap_or(Path::new("")).join(relative));
    }
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places
}

/// The first of the names that a pattern of the library stands for: `%b` is a number from 0 on, `%%` a percent sign.
fn first_of(pattern: &str) -> String {
    pattern.replace("%b", "0").replace("%%", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_looked_for_where_the_library_looks() {
        let places = |source: &str| places_of(Path::new("/none/v.h5"), source);
        assert_eq!(places("."), [Path::new("/none/v.h5")]);
        assert_eq!(places("a/b.h5"), [Path::new("/none/a/b.h5"), Path::new("a/b.h5")]);
        assert_eq!(places("/x/b.h5"), [Path::new("/x/b.h5"), Path::new("/none/b.h5"), Path::new("b.h5")]);
        assert_eq!(first_of("part%%-%b.h5"), "part%-0.h5");
    }

    #[test]
    fn a_file_of_raw_bytes_that_is_missing_or_too_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let raw = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let file = File::create(folder.path().join("t.h5")).unwrap();
        let made = file.new_dataset::<f64>().external(&raw("a"), 8, 80).external(&raw("b"), 0, 0).shape(25).create("x");
        let dataset = made.unwrap();
        std::fs::write(raw("a"), [0; 88]).unwrap();
        assert!(check(&dataset).unwrap_err().to_string().contains("cannot be looked at"));
        std::fs::write(raw("b"), [0; 119]).unwrap();
        let short = check(&dataset).unwrap_err().to_string();
        assert!(short.contains("ends after 119 bytes where 120 are needed"), "{short}");
        std::fs::write(raw("b"), [0; 120]).unwrap();
        check(&dataset).unwrap();
    }
}
