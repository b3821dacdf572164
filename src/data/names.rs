//! Which datasets of a file are the features, the target, the weight and the offset: as typed, or as found.

use crate::error::{Error, Result};
use std::ops::Range;
use std::path::PathBuf;

/// Names of datasets, relative to `group`. Made from `--features`, `--exclude`, `--target`, `--weight`, `--offset`,
/// `--group` and `--transpose`; stored in the model after they were found, so that a model of `train/X` reads `test/X`.
///
/// A field `pt` of a compound dataset `events` is called `events/pt`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct TableNames {
    /// Datasets and fields, groups that stand for all their 1-D datasets, compound datasets that stand for all their fields,
    /// or patterns (`*`, `?`, `[…]`, not across a `/`; `**` for any groups) in bytewise order of what they match. After they
    /// were found: datasets and fields. Empty: find `X`, `features` or `data`.
    pub features: Vec<String>,
    /// Names or patterns of what is left out of `features`, by the path from the group or by the last name. Empty after they
    /// were found.
    pub exclude: Vec<String>,
    /// None: find `y`, `target`, `labels` or `label`.
    pub target: Option<String>,
    /// Importance of each row. None: every row counts 1.
    pub weight: Option<String>,
    /// Added to each row's score. None: 0.
    pub offset: Option<String>,
    /// Where the other names start. None: the root, or the one group that has them.
    pub group: Option<String>,
    /// 2-D datasets are stored column by column, as MATLAB writes them: rows are the last axis.
    pub transpose: bool,
}

impl TableNames {
    /// The same names, each written in one way: without empty parts and `.`, which stand for nothing.
    pub(crate) fn tidy(&self) -> TableNames {
        let all = |names: &[String]| names.iter().map(|name| tidy(name)).collect();
        let one = |name: &Option<String>| name.as_deref().map(tidy);
        TableNames {
            features: all(&self.features),
            exclude: all(&self.exclude),
            target: one(&self.target),
            weight: one(&self.weight),
            offset: one(&self.offset),
            group: one(&self.group),
            transpose: self.transpose,
        }
    }

    /// The same names without the group, for reading the like table of another group or file.
    pub fn relative(&self) -> TableNames {
        TableNames { group: None, ..self.clone() }
    }

    /// `name` under the group: `X` → `train/X`. A name that starts with `/` is taken from the root.
    pub fn path(&self, name: &str) -> String {
        join(self.group.as_deref().unwrap_or(""), name)
    }
}

/// Which rows to train on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    pub paths: Vec<PathBuf>,
    pub names: TableNames,
    /// Of all files' rows, counted from the first file's first. None: all.
    pub rows: Option<Range<u64>>,
    pub reading: Reading,
}

/// How a table is read; never what comes of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Bytes that each rank may take for the table and the buffers of its training. None: what it takes.
    pub max_memory: Option<u64>,
    /// Rows are read for every pass even where they would fit.
    pub streamed: bool,
    /// Folder of this node for decoded chunks of tables that do not fit. None: they are decoded again for every pass.
    pub scratch: Option<PathBuf>,
}

fn tidy(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("{}{}", if name.starts_with('/') { "/" } else { "" }, parts.join("/"))
}

/// `name` under `group`, without a leading or trailing slash.
pub(crate) fn join(group: &str, name: &str) -> String {
    let group = group.trim_matches('/');
    if name.starts_with('/') || group.is_empty() {
        return name.trim_matches('/').to_string();
    }
    let name = name.trim_matches('/');
    if name.is_empty() { group.to_string() } else { format!("{group}/{name}") }
}

/// Whether a name that is not there may be a pattern of names.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// A pattern of paths: `*`, `?` and `[…]` stand for characters of one name, `**` for any number of groups.
pub(crate) struct Pattern {
    word: String,
    pattern: glob::Pattern,
}

impl Pattern {
    /// Errors: brackets that do not close, stars in places where they mean nothing.
    pub(crate) fn of(word: &str) -> Result<Pattern> {
        let refuse = |e: glob::PatternError| Error::usage(format!("'{word}' is not a pattern of names: {}", e.msg));
        Ok(Pattern { word: word.to_string(), pattern: glob::Pattern::new(word).map_err(refuse)? })
    }

    /// The group that every match is below, as written: the names before the first that is a pattern.
    pub(crate) fn base(&self) -> &str {
        let start = self.word.find(['*', '?', '[']).unwrap_or(self.word.len());
        self.word[..start].rfind('/').map_or("", |end| &self.word[..end.max(1)])
    }

    /// How many names a match has after `base`. None: any number.
    pub(crate) fn levels(&self) -> Option<usize> {
        let rest = self.word[self.base().len()..].trim_matches('/');
        (!rest.contains("**")).then(|| rest.split('/').count())
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        self.pattern.matches_with(path, options) || self.word == path
    }
}

/// What features may be called when no name was given.
pub const FEATURE_NAMES: [&str; 3] = ["X", "features", "data"];
/// What the target may be called when no name was given.
pub const TARGET_NAMES: [&str; 4] = ["y", "target", "labels", "label"];

/// What the table is wanted for: decides which parts must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Features and target, and weight and offset if named.
    Train,
    /// The same as [`Need::Train`].
    Evaluate,
    /// Features, and offset if named. The target and the weight are not looked at.
    Predict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_to_their_group_with_one_slash() {
        assert_eq!(join("", "X"), "X");
        assert_eq!(join("/train/", "X"), "train/X");
        assert_eq!(join("train", "/events"), "events");
        assert_eq!(join("train", ""), "train");
    }

    #[test]
    fn patterns_know_where_they_begin_and_how_deep_they_go() {
        let of = |word: &str| {
            let pattern = Pattern::of(word).unwrap();
            (pattern.base().to_string(), pattern.levels())
        };
        assert_eq!(of("*"), (String::new(), Some(1)));
        assert_eq!(of("pt_?"), (String::new(), Some(1)));
        assert_eq!(of("/*"), ("/".to_string(), Some(1)));
        assert_eq!(of("/events/*"), ("/events".to_string(), Some(1)));
        assert_eq!(of("run/*/pt[0-9]"), ("run".to_string(), Some(2)));
        assert_eq!(of("run/**/pt"), ("run".to_string(), None));
        let matches = |word: &str, path: &str| Pattern::of(word).unwrap().matches(path);
        assert!(matches("mc_*", "mc_pt") && !matches("mc_*", "mc_/pt") && !matches("mc_*", "MC_pt"));
        assert!(matches("**/pt", "a/b/pt") && matches("**/pt", "pt") && matches("E[MeV]", "E[MeV]"));
        assert!(Pattern::of("a[").is_err_and(|e| e.to_string().starts_with("'a[' is not a pattern")));
    }
}
