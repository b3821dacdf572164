//! Settings of gradient boosting, beside those that all trainings have.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The loss that trees lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoostLoss {
    /// By the target as it is stored: `Logistic` for strings, truth values and whole numbers, else `Squared`. Never stored.
    #[default]
    Auto,
    Squared,
    /// |y − prediction|: predicts medians.
    Absolute,
    /// Squared near the target, linear beyond `alpha`.
    Huber,
    /// Predicts the `alpha` quantile.
    Quantile,
    /// Two classes, or softmax of more.
    Logistic,
    Poisson,
    /// Amounts above 0, predicted by the logarithm of their mean.
    Gamma,
    /// Amounts of 0 or more, predicted by the logarithm of their mean.
    Tweedie,
    /// Mean and variance of each row, of networks.
    Gaussian,
}

/// What is said of an `alpha` without a loss that looks at it.
pub(crate) const NO_ALPHA: &str =
    "--alpha is for --loss huber or quantile, and means nothing to other losses; leave it out, or choose one of these";

impl BoostLoss {
    /// Whether the setting `alpha` changes it. What `Auto` comes to does not.
    pub fn looks_at_alpha(self) -> bool {
        matches!(self, BoostLoss::Huber | BoostLoss::Quantile)
    }
}

/// Which leaf is split next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// The one of the greatest gain.
    #[default]
    Leaf,
    /// One level of the tree after the other.
    Level,
}

/// Every field can change the answer and is stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoostConfig {
    pub loss: BoostLoss,
    /// Of `Huber`: how far from the target the loss is squared. Of `Quantile`: the quantile. Default 0.9.
    pub alpha: f64,
    /// Of `Tweedie`: the variance grows as the mean to this power, above 1 and below 2. Default 1.5.
    pub tweedie_power: f64,
    /// Trees of each score. Default 100.
    pub rounds: u64,
    /// Leaf values are multiplied by it. Default 0.1.
    pub shrinkage: f64,
    pub growth: Growth,
    /// Default 31.
    pub max_leaves: u64,
    /// Splits from the root to a leaf; 0 (the default): any number.
    pub max_depth: u64,
    /// Rows of a leaf, at least. Default 20.
    pub min_rows: u64,
    /// Σ hessian of a leaf, at least. Default 1e-3.
    pub min_hessian: f64,
    /// A split has to lower twice the loss by more. Default 0.
    pub min_gain: f64,
    /// Bins of a feature, that of missing values not counted. Default 255.
    pub max_bins: u64,
    /// Rows that bins are made from, about, chosen by a hash of the row number; of a table with no more, all. Default 200,000.
    pub bin_sample: u64,
    /// Columns of numbers that are categories, by name or by place. Columns of strings are, without being named.
    pub categorical: Vec<String>,
    /// Added to the hessian of categories before they are ordered; those of fewer rows are not split off. Default 10.
    pub cat_smooth: f64,
    /// Added to l2 where a category is split. Default 10.
    pub cat_l2: f64,
    /// Categories that go one way, at most. Default 32.
    pub max_cat_threshold: u64,
    /// Of no more categories, one goes left and all others right. Default 4.
    pub max_cat_to_onehot: u64,
    /// Rows of the categories that go one way, at least. Default 100.
    pub min_data_per_group: u64,
    /// `COLUMN:1` or `COLUMN:-1`: predictions may not fall, or not rise, as the column rises.
    pub monotone: Vec<String>,
    /// `COLUMN+COLUMN…`: groups whose columns may meet on a way from the root to a leaf; those of no group meet no other.
    pub interactions: Vec<String>,
    /// Share of the rows that a tree is grown on, chosen by a hash of the row number. Default 1.
    pub row_sample: f64,
    /// Share of the features that a tree looks at. Default 1.
    pub column_sample: f64,
    /// Share of these that a level of a tree looks at. Default 1.
    pub column_sample_level: f64,
    /// Share of these that a node looks at. Default 1.
    pub column_sample_node: f64,
    /// Stop when the loss of the rows of `valid_fraction` has not improved for so many rounds, and keep the best; 0: do not.
    pub early_stop: u64,
}

impl Default for BoostConfig {
    fn default() -> BoostConfig {
        BoostConfig {
            loss: BoostLoss::Auto,
            alpha: 0.9,
            tweedie_power: 1.5,
            rounds: 100,
            shrinkage: 0.1,
            growth: Growth::Leaf,
            max_leaves: 31,
            max_depth: 0,
            min_rows: 20,
            min_hessian: 1e-3,
            min_gain: 0.0,
            max_bins: 255,
            bin_sample: 200_000,
            categorical: Vec::new(),
            cat_smooth: 10.0,
            cat_l2: 10.0,
            max_cat_threshold: 32,
            max_cat_to_onehot: 4,
            min_data_per_group: 100,
            monotone: Vec::new(),
            interactions: Vec::new(),
            row_sample: 1.0,
            column_sample: 1.0,
            column_sample_level: 1.0,
            column_sample_node: 1.0,
            early_stop: 0,
        }
    }
}

impl BoostConfig {
    /// Errors: `Usage`, naming the flag. Not collective; the same on every rank.
    pub(super) fn check(&self, valid_fraction: f64) -> Result<()> {
        let wrong = |text: String| Err(Error::usage(text));
        if self.loss == BoostLoss::Gaussian {
            return wrong("--loss gaussian is for mlp; of boost it is squared".to_string());
        }
        for (flag, value, least, most) in [
            ("--rounds", self.rounds, 1, 1 << 24),
            ("--max-leaves", self.max_leaves, 1, 1 << 20),
            ("--max-depth", self.max_depth, 0, 1 << 20),
            ("--min-rows", self.min_rows, 0, i64::MAX as u64),
            ("--max-bins", self.max_bins, 2, 65_535),
            ("--bin-sample", self.bin_sample, 1, i64::MAX as u64),
            ("--max-cat-threshold", self.max_cat_threshold, 1, 1 << 20),
            ("--max-cat-to-onehot", self.max_cat_to_onehot, 0, 1 << 20),
            ("--min-data-per-group", self.min_data_per_group, 0, i64::MAX as u64),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(format!("{flag} {value} is not from {least} to {most}"));
            }
        }
        for (flag, value) in [
            ("--min-hessian", self.min_hessian),
            ("--min-gain", self.min_gain),
            ("--cat-smooth", self.cat_smooth),
            ("--cat-l2", self.cat_l2),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return wrong(format!("{flag} {value} is not a number of 0 or more"));
            }
        }
        let (alpha, power) = (self.alpha, self.tweedie_power);
        if self.loss == BoostLoss::Huber && !(alpha > 0.0 && alpha.is_finite()) {
            return wrong(format!(
                "--alpha {alpha} is not a number above 0: so far from the target huber's loss is squared"
            ));
        }
        if self.loss == BoostLoss::Quantile && !(alpha > 0.0 && alpha < 1.0) {
            return wrong(format!("--alpha {alpha} is not above 0 and below 1: it is the quantile that is predicted"));
        }
        if self.loss == BoostLoss::Tweedie && !(power > 1.0 && power < 2.0) {
            return wrong(format!(
                "--tweedie-power {power} is not above 1 and below 2; at 1 it is poisson, at 2 gamma"
            ));
        }
        let shares = [
            ("--shrinkage", self.shrinkage),
            ("--row-sample", self.row_sample),
            ("--column-sample", self.column_sample),
            ("--column-sample-level", self.column_sample_level),
            ("--column-sample-node", self.column_sample_node),
        ];
        for (flag, value) in shares {
            if !(value > 0.0 && value <= 1.0) {
                return wrong(format!("{flag} {value} is not above 0 and at most 1"));
            }
        }
        if self.early_stop > 0 && valid_fraction == 0.0 {
            return wrong(
                "--early-stop looks at rows that are not trained on; hold some out with --valid-fraction".into(),
            );
        }
        Ok(())
    }
}
