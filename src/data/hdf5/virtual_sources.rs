//! What a virtual dataset is made of: the HDF5 library takes a source that it cannot open for one that was never written, and says
//! nothing.

use super::types::{reason, virtual_sources_of};
use crate::error::{Error, Result};
use hdf5::plist::dataset_create::Layout;
use hdf5::{Dataset, File};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Virtual datasets of virtual datasets are followed so far.
const MAX_DEPTH: usize = 8;

/// Errors: a source of this virtual dataset, or of one that it is made of, is missing or cannot be opened. Other datasets have none.
pub(super) fn check(dataset: &Dataset) -> Result<()> {
    check_to(dataset, MAX_DEPTH)
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
    let source = opened.dataset(name).map_err(|e| cannot(&reason(&e)))?;
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
}
