//! Files that appear whole or not at all: written beside, synchronised, renamed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::hdf5::Reader;
use crate::error::{Error, InContext, Result};
use crate::faults::{self, Point};

/// Checks, before any work is done, that an output can be written to `path`. Not collective; for the rank that will write.
///
/// * The folder exists and a file can be made in it (one is made and removed again).
/// * What is at `path` now, if anything, is a file that Consort wrote (an HDF5 file with the root attribute
///   `format = "consort-…"`), or `force` is set. Whatever is not a regular file is refused even then.
///
/// # Errors
/// `Usage`, naming the folder or file, and what to do.
pub fn check_output(path: &Path, force: bool) -> Result<()> {
    check_place(path, force)?;
    let probe = beside(path, "probe")?;
    let made = OpenOptions::new().write(true).create(true).truncate(true).open(&probe);
    if let Err(e) = made.and_then(|_| std::fs::remove_file(&probe)) {
        return Err(Error::usage(format!("cannot write into the folder '{}': {e}", folder_of(path).display())))
            .in_file(path);
    }
    Ok(())
}

fn check_place(path: &Path, force: bool) -> Result<()> {
    let check = || {
        let folder = folder_of(path);
        if path.file_name().is_none() {
            return Err(Error::usage("the output needs a file name"));
        }
        if !folder.is_dir() {
            return Err(Error::usage(format!(
                "there is no folder '{}'; make it first, or choose another output",
                folder.display()
            )));
        }
        match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::usage(format!("cannot look at the present file: {e}"))),
            Ok(meta) if !meta.is_file() => Err(Error::usage("exists and is not a regular file; choose another output")),
            Ok(_) if force || is_ours(path) => Ok(()),
            Ok(_) => Err(Error::usage(
                "exists and was not written by consort; choose another output, or replace it with --force",
            )),
        }
    };
    check().in_file(path)
}

/// True for an HDF5 file with a root attribute `format` that begins with `consort-`.
fn is_ours(path: &Path) -> bool {
    let format = Reader::open(path).and_then(|reader| reader.text_attribute("/", "format"));
    matches!(format, Ok(Some(format)) if format.starts_with("consort-"))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// `FOLDER/.NAME.partial-TAG` for `FOLDER/NAME`.
pub(super) fn beside(path: &Path, tag: &str) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::usage("the output needs a file name")).in_file(path);
    };
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(format!(".partial-{tag}"));
    Ok(folder_of(path).join(partial))
}

/// A file under way to `path`: written as `.NAME.partial-PID` in the same folder; removed unless it is committed.
///
/// Not collective. What is at `path` stays untouched until [`commit`](Self::commit) replaces it in one step.
#[derive(Debug)]
pub struct PartialFile {
    target: PathBuf,
    partial: PathBuf,
    settled: bool,
}

impl PartialFile {
    /// Chooses the name beside `path`, removes what an earlier process of the same number left there; creates nothing.
    ///
    /// # Errors
    /// As [`check_output`].
    pub fn begin(path: &Path, force: bool) -> Result<PartialFile> {
        check_place(path, force)?;
        let partial = beside(path, &std::process::id().to_string())?;
        match std::fs::remove_file(&partial) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::usage(format!("cannot remove a left-over: {e}"))).in_file(&partial)
            }
            _ => Ok(PartialFile { target: path.to_owned(), partial, settled: false }),
        }
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Synchronises the file, gives it its name, synchronises the folder. The writer must have closed it.
    ///
    /// # Errors
    /// `Data`; the partial file is removed.
    pub fn commit(self) -> Result<()> {
        rename_synced(&self.partial, &self.target)?;
        self.keep();
        Ok(())
    }

    /// Leaves the partial file where it is: others go on with it.
    pub(super) fn keep(mut self) {
        self.settled = true;
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.settled {
            // An error is on its way already; a partial file that cannot be removed has a name that says what it is.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

pub(super) fn rename_synced(partial: &Path, target: &Path) -> Result<()> {
    let synced = File::open(partial).and_then(|file| file.sync_all());
    synced.map_err(|e| Error::data(format!("cannot write the file: {e}"))).in_file(partial)?;
    let renamed = faults::before(Point::Rename).and_then(|()| std::fs::rename(partial, target));
    renamed.map_err(|e| Error::data(format!("cannot rename '{}' to it: {e}", partial.display()))).in_file(target)?;
    let open = faults::before(Point::Renamed).and_then(|()| File::open(folder_of(target)));
    match open.and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot synchronise a folder; the rename itself has happened.
        Err(e) if !matches!(e.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Unsupported) => {
            Err(Error::data(format!("cannot synchronise the folder: {e}"))).in_file(target)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::os::unix::fs::PermissionsExt;

    /// Names in a folder, sorted.
    pub(in crate::store) fn names_in(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn refusal(path: &Path, force: bool) -> String {
        let error = check_output(path, force).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert_eq!(PartialFile::begin(path, force).map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::Usage));
        error.to_string()
    }

    #[test]
    fn a_missing_folder_is_named_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let text = refusal(&folder.path().join("no/such/model.h5"), true);
        assert!(text.contains("no folder") && text.contains("no/such'"), "{text}");
        assert!(refusal(Path::new("/"), true).contains("file name"));
        assert!(check_output(&folder.path().join("model.h5"), false).is_ok());
        assert_eq!(names_in(folder.path()), Vec::<String>::new(), "the probe is gone");
    }

    #[test]
    fn a_foreign_file_is_replaced_by_force_only() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("notes.h5");
        std::fs::write(&notes, "years of work").unwrap();
        assert!(refusal(&notes, false).contains("--force"));
        assert!(check_output(&notes, true).is_ok());
        assert!(refusal(folder.path(), true).contains("not a regular file"));
        assert!(refusal(Path::new("/dev/null"), true).contains("not a regular file"));
    }

    #[test]
    fn an_abandoned_file_leaves_nothing_and_the_old_one_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let partial = PartialFile::begin(&path, true).unwrap();
        std::fs::write(partial.path(), "half").unwrap();
        drop(partial);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        let partial = PartialFile::begin(&path, true).unwrap();
        std::fs::write(partial.path(), "new").unwrap();
        partial.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names_in(folder.path()), ["out"]);
        assert!(PartialFile::begin(&path, true).unwrap().commit().is_err(), "nothing was written");
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn a_read_only_folder_is_found_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
        let path = folder.path().join("model.h5");
        if std::fs::write(folder.path().join("root"), "").is_ok() {
            eprintln!("skipped: this user may write anywhere");
            return;
        }
        let text = check_output(&path, false).unwrap_err().to_string();
        assert!(text.contains("cannot write into the folder"), "{text}");
    }
}
