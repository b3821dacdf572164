//! Which datasets of a file are the features, the target, the weight and the offset: as typed, or as found.

use std::ops::Range;
use std::path::PathBuf;

/// Names of datasets, relative to `group`. Made from `--features`, `--target`, `--weight`, `--offset` and
/// `--group`; stored in the model after they were found, so that a model of `train/X` reads `test/X`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TableNames {
    /// Datasets, or groups that stand for all their 1-D datasets. Empty: find `X`, `features` or `data`.
    pub features: Vec<String>,
    /// None: find `y`, `target`, `labels` or `label`.
    pub target: Option<String>,
    /// Importance of each row. None: every row counts 1.
    pub weight: Option<String>,
    /// Added to each row's score. None: 0.
    pub offset: Option<String>,
    /// Where the other names start. None: the root, or the one group that has them.
    pub group: Option<String>,
}

impl TableNames {
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

/// `name` under `group`, without a leading or trailing slash.
pub(crate) fn join(group: &str, name: &str) -> String {
    let group = group.trim_matches('/');
    if name.starts_with('/') || group.is_empty() {
        return name.trim_matches('/').to_string();
    }
    let name = name.trim_matches('/');
    if name.is_empty() { group.to_string() } else { format!("{group}/{name}") }
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
}
