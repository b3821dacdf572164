//! Settings of random forests, beside those that all trainings have.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a split of a forest is to lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// By the target as it is stored: `Gini` for strings, truth values and whole numbers, else `Squared`. Never stored.
    #[default]
    Auto,
    /// Gini impurity of classes.
    Gini,
    /// Entropy of classes.
    Entropy,
    /// Squared error of numbers.
    Squared,
}

/// Which rows a member of an ensemble sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All rows.
    #[default]
    Global,
    /// Those of one lane: one of `lanes` runs of rows.
    Local,
}

/// How a tree's rows are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootstrapKind {
    /// `Poisson`, of extra-trees `None`. Never stored.
    #[default]
    Auto,
    /// With replacement: Poisson-distributed times.
    Poisson,
    /// Every row once.
    None,
}

/// How many features a node looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MaxFeatures {
    /// `Sqrt` for classes, `All` for numbers. Never stored.
    #[default]
    Auto,
    Sqrt,
    Log2,
    All,
    Count(u64),
    Share(f64),
}

impl FromStr for MaxFeatures {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<MaxFeatures, String> {
        let wrong =
            || format!("'{word}' is not sqrt, log2, all, a number of features such as 5, or a share such as 0.3");
        match word {
            "auto" => Ok(MaxFeatures::Auto),
            "sqrt" => Ok(MaxFeatures::Sqrt),
            "log2" => Ok(MaxFeatures::Log2),
            "all" => Ok(MaxFeatures::All),
            word => match (word.parse::<u64>(), word.parse::<f64>()) {
                (Ok(count), _) if (1..1 << 32).contains(&count) => Ok(MaxFeatures::Count(count)),
                (Err(_), Ok(share)) if share > 0.0 && share <= 1.0 => Ok(MaxFeatures::Share(share)),
                _ => Err(wrong()),
            },
        }
    }
}

impl fmt::Display for MaxFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxFeatures::Auto => f.write_str("auto"),
            MaxFeatures::Sqrt => f.write_str("sqrt"),
            MaxFeatures::Log2 => f.write_str("log2"),
            MaxFeatures::All => f.write_str("all"),
            MaxFeatures::Count(count) => write!(f, "{count}"),
            // 1 would be a number of features.
            MaxFeatures::Share(share) => write!(f, "{share:?}"),
        }
    }
}

impl TryFrom<String> for MaxFeatures {
    type Error = String;

    fn try_from(word: String) -> std::result::Result<MaxFeatures, String> {
        word.parse()
    }
}

impl From<MaxFeatures> for String {
    fn from(of: MaxFeatures) -> String {
        of.to_string()
    }
}

impl MaxFeatures {
    /// Of so many features, at least one.
    pub fn of(self, n_features: usize) -> usize {
        let d = n_features as f64;
        let wanted = match self {
            MaxFeatures::Sqrt => libm::sqrt(d) as usize,
            MaxFeatures::Log2 => libm::log2(d) as usize,
            MaxFeatures::Auto | MaxFeatures::All => n_features,
            MaxFeatures::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            MaxFeatures::Share(share) => (share * d) as usize,
        };
        wanted.clamp(1, n_features.max(1))
    }
}

/// Every field but `oob` can change the answer, and all are stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForestConfig {
    pub criterion: Criterion,
    /// Default 100.
    pub trees: u64,
    /// Extra-trees: a node draws one cut at random for each feature that it looks at, and every row is taken once.
    pub extra: bool,
    pub scope: Scope,
    pub bootstrap: BootstrapKind,
    /// Times that a row is drawn for a tree, on average; without a bootstrap it is 1. Default 1.
    pub row_sample: f64,
    pub max_features: MaxFeatures,
    /// Splits from the root to a leaf; 0 (the default): any number.
    pub max_depth: u64,
    /// Rows of a leaf, at least, each as often as it was drawn. Default 1.
    pub min_rows: u64,
    /// Bins of a feature, that of missing values not counted. Default 255.
    pub max_bins: u64,
    /// Rows that bins are made from, about, chosen by a hash of the row number; of a table with no more, all. Default 200,000.
    pub bin_sample: u64,
    /// Columns of numbers that are categories, by name or by place. Columns of strings are, without being named.
    pub categorical: Vec<String>,
    /// Measure rows by the trees that did not draw them.
    pub oob: bool,
}

impl Default for ForestConfig {
    fn default() -> ForestConfig {
        ForestConfig {
            criterion: Criterion::Auto,
            trees: 100,
            extra: false,
            scope: Scope::Global,
            bootstrap: BootstrapKind::Auto,
            row_sample: 1.0,
            max_features: MaxFeatures::Auto,
            max_depth: 0,
            min_rows: 1,
            max_bins: 255,
            bin_sample: 200_000,
            categorical: Vec::new(),
            oob: false,
        }
    }
}

impl ForestConfig {
    /// With all settled that does not hang on the table. Errors: `Usage`, naming the flag. Not collective; the same on every rank.
    pub(super) fn resolved(&self) -> Result<ForestConfig> {
        let mut config = self.clone();
        if config.bootstrap == BootstrapKind::Auto {
            config.bootstrap = if config.extra { BootstrapKind::None } else { BootstrapKind::Poisson };
        }
        for (flag, value, least, most) in [
            ("--trees", self.trees, 1, 1 << 24),
            ("--max-depth", self.max_depth, 0, 1 << 20),
            ("--min-rows", self.min_rows, 0, i64::MAX as u64),
            ("--max-bins", self.max_bins, 2, 255),
            ("--bin-sample", self.bin_sample, 1, i64::MAX as u64),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Error::usage(format!("{flag} {value} is not from {least} to {most}")));
            }
        }
        if !(self.row_sample > 0.0 && self.row_sample <= 5.0) {
            return Err(Error::usage(format!("--row-sample {} is not above 0 and at most 5", self.row_sample)));
        }
        let is_drawn = config.bootstrap == BootstrapKind::Poisson;
        if !is_drawn && self.row_sample != 1.0 {
            return Err(Error::usage(
                "--row-sample is how often a bootstrap draws a row; give --bootstrap poisson too",
            ));
        }
        if self.oob && !is_drawn && self.scope == Scope::Global {
            return Err(Error::usage(
                "--oob measures rows by the trees that did not draw them, and without a bootstrap every tree draws all rows; give --bootstrap poisson",
            ));
        }
        Ok(config)
    }
}
