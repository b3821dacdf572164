//! The files that the words of a person stand for: names, patterns that the shell left alone, and lists of both.

use crate::error::{Error, InContext, Result};
use glob::{MatchOptions, Pattern};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A longer list is refused: it is something else.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// As a shell does it: a leading dot is not matched by `*`.
const LIKE_A_SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The files of all words, in their order. Looks at the file system. Not collective.
///
/// * A name is that file, whether it is there or not.
/// * A pattern (`*`, `?`, `[…]`, `**` for any folders) that is not the name of a file: what it matches, in bytewise order.
/// * `@list.txt`: the files of that list, a name or a pattern a line, from the list's folder. Empty lines and lines that start
///   with `#` are skipped. `./@name` is a file of that name.
///
/// The same file may come several times.
///
/// # Errors
/// `Data`: a pattern that matches nothing, a folder that cannot be read, a list that is not there or names nothing.
pub fn expand(words: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for word in words {
        match word.to_str().and_then(|word| word.strip_prefix('@')) {
            Some(list) => add_list(Path::new(list), &mut files)?,
            None => add_word(Path::new(""), word, &mut files)?,
        }
    }
    Ok(files)
}

/// Adds the files of one word that is relative to `folder`.
fn add_word(folder: &Path, word: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let path = folder.join(word);
    let text = match word.to_str() {
        Some(text) if is_pattern(text) && path.symlink_metadata().is_err() => text,
        _ => {
            files.push(path);
            return Ok(());
        }
    };
    // The folder is a name, whatever characters it has.
    let Some(folder) = folder.to_str() else {
        return Err(Error::data("patterns are for folders whose names are UTF-8")).in_file(path);
    };
    let pattern = Path::new(&Pattern::escape(folder)).join(text).to_string_lossy().into_owned();
    let matched = glob::glob_with(&pattern, LIKE_A_SHELL)
        .map_err(|e| Error::data(format!("'{text}' is neither a file nor a pattern of files: {}", e.msg)))?;
    let mut found = Vec::new();
    for file in matched {
        match file {
            Ok(file) => found.push(file),
            Err(e) => return Err(Error::data(format!("cannot be searched: {}", e.error()))).in_file(e.path()),
        }
    }
    if found.is_empty() {
        return Err(Error::data(format!("'{text}' matches no file")));
    }
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    files.append(&mut found);
    Ok(())
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn add_list(list: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let before = files.len();
    let text = read_list(list).in_file(list)?;
    let folder = list.parent().unwrap_or(Path::new(""));
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let added = match line.starts_with('@') {
            true => Err(Error::data(format!("'{line}' is a list in a list; name its files here, or write ./{line}"))),
            false => add_word(folder, Path::new(line), files),
        };
        added.map_err(|e| e.at(format!("line {}", number + 1))).in_file(list)?;
    }
    match files.len() > before {
        true => Ok(()),
        false => Err(Error::data("names no file; write a file name or a pattern on each line")).in_file(list),
    }
}

fn read_list(list: &Path) -> Result<String> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::data("no such list of files"),
        std::io::ErrorKind::InvalidData => Error::data("is not a list of file names: it is not UTF-8 text"),
        _ => Error::data(format!("cannot read this list of files: {e}")),
    };
    let mut text = String::new();
    let file = std::fs::File::open(list).map_err(failed)?;
    file.take(MAX_LIST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > MAX_LIST_BYTES {
        true => Err(Error::data("is not a list of file names: it has more than 64 MiB")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with empty files of these names.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn names(at: &tempfile::TempDir, words: &[&str]) -> Result<Vec<String>> {
        let words: Vec<PathBuf> = words
            .iter()
            .map(|word| match word.strip_prefix('@') {
                Some(list) => format!("@{}", at.path().join(list).display()).into(),
                None => at.path().join(word),
            })
            .collect();
        let short = |path: PathBuf| path.strip_prefix(at.path()).unwrap().to_string_lossy().into_owned();
        Ok(expand(&words)?.into_iter().map(short).collect())
    }

    #[test]
    fn patterns_are_expanded_in_bytewise_order_and_names_stay() {
        let at = folder(&[
            "run-10.h5",
            "run-2.h5",
            "run-B.h5",
            "run-a.h5",
            ".run-0.h5",
            "other.h5",
            "x/run-1.h5",
            "x/y/r.h5",
        ]);
        let found = |words: &[&str]| names(&at, words).unwrap();
        assert_eq!(found(&["run-*.h5"]), ["run-10.h5", "run-2.h5", "run-B.h5", "run-a.h5"]);
        assert_eq!(
            found(&["run-?.h5", "other.h5", "none.h5"]),
            ["run-2.h5", "run-B.h5", "run-a.h5", "other.h5", "none.h5"]
        );
        assert_eq!(found(&["run-[!0-9].h5", "run-B.h5"]), ["run-B.h5", "run-a.h5", "run-B.h5"], "twice is twice");
        assert_eq!(found(&["*/*.h5"]), ["x/run-1.h5"], "* does not cross a /");
        assert_eq!(found(&["x/**/*.h5"]), ["x/run-1.h5", "x/y/r.h5"]);
    }

    #[test]
    fn a_file_whose_name_looks_like_a_pattern_is_that_file() {
        let at = folder(&["a[1].h5", "a1.h5", "b*.h5", "b2.h5"]);
        assert_eq!(names(&at, &["a[1].h5", "b*.h5"]).unwrap(), ["a[1].h5", "b*.h5"]);
        assert_eq!(names(&at, &["b?.h5"]).unwrap(), ["b*.h5", "b2.h5"]);
    }

    #[test]
    fn a_list_names_files_from_its_own_folder() {
        let at = folder(&["l[1]/run-2.h5", "l[1]/run-1.h5", "l[1]/#odd.h5", "top.h5"]);
        let list = at.path().join("l[1]/all.txt");
        let absolute = at.path().join("top.h5");
        let text =
            format!("\u{feff}# all runs\r\n\r\n  run-2.h5 \r\nrun-*.h5\n./#odd.h5\n{}\n../top.h5", absolute.display());
        std::fs::write(&list, text).unwrap();
        let found = names(&at, &["@l[1]/all.txt", "top.h5"]).unwrap();
        let expected =
            ["l[1]/run-2.h5", "l[1]/run-1.h5", "l[1]/run-2.h5", "l[1]/./#odd.h5", "top.h5", "l[1]/../top.h5", "top.h5"];
        assert_eq!(found.iter().map(Path::new).collect::<Vec<_>>(), expected.map(Path::new));
    }

    #[test]
    fn what_stands_for_no_file_is_refused_by_name() {
        let at = folder(&["run-1.h5"]);
        let refused = |words: &[&str]| names(&at, words).unwrap_err().to_string();
        for (name, text) in
            [("empty.txt", "\n# nothing\n"), ("odd.txt", "run-1.h5\n\nrum-*.h5\n"), ("inner.txt", "@odd.txt")]
        {
            std::fs::write(at.path().join(name), text).unwrap();
        }
        std::fs::write(at.path().join("binary"), [0xff, 0xfe]).unwrap();
        assert!(refused(&["run-1.h5", "rum-*.h5"]).ends_with("rum-*.h5' matches no file"));
        assert!(
            refused(&["@empty.txt"]).ends_with("empty.txt: names no file; write a file name or a pattern on each line")
        );
        assert!(refused(&["@odd.txt"]).ends_with("odd.txt: line 3: 'rum-*.h5' matches no file"));
        assert!(refused(&["@inner.txt"]).contains("inner.txt: line 1: '@odd.txt' is a list in a list"));
        assert!(refused(&["@none.txt"]).ends_with("none.txt: no such list of files"));
        assert!(refused(&["@binary"]).contains("is not UTF-8 text"));
        assert!(refused(&["run-[.h5"]).contains("is neither a file nor a pattern of files"));
    }
}
