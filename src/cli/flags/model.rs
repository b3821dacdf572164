//! The words that say what is trained, and how: of all trainers, of boosting, of forests.

use super::network::NetworkFlags;
use super::steps::StepFlags;
use super::{whole, word};
use crate::config::{
    BoostLoss, BootstrapKind, Calibrate, ClassWeight, Criterion, Growth, MaxFeatures, Missing, Scope, Solver,
};
use clap::Args;

/// What is trained, and how.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct ModelFlags {
    #[command(flatten)]
    pub settings: SettingFlags,
    #[command(flatten)]
    pub steps: StepFlags,
    #[command(flatten)]
    pub boost: BoostFlags,
    #[command(flatten)]
    pub forest: ForestFlags,
    #[command(flatten)]
    pub network: NetworkFlags,
}

/// Settings that can change the model; all are stored in it.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingFlags {
    /// linear: cholesky, qr, cd, lbfgs. Others: lbfgs, newton. On mini-batches, any of them and mlp: sgd, adam, adamw, lamb, lars, adagrad. Default auto:
    /// cholesky (cd with --l1) for linear, adamw for mlp, lbfgs for the others and for sparse tables.
    #[arg(long, value_parser = word::<Solver>)]
    pub solver: Option<Solver>,
    /// λ₁‖w‖₁ is added to the mean weighted loss, w on standardised features. Default 0. Boost: taken off a leaf's gradient.
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true)]
    pub l1: Option<f64>,
    /// λ₂/2·‖w‖² is added to the mean weighted loss (scikit-learn's C is 1/(nλ₂)). Default 3e-4, of mlp 0. Boost: added to the
    /// hessian of a leaf; default 0.
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true)]
    pub l2: Option<f64>,
    /// Stop when the largest element of the gradient is this much smaller than without coefficients; on mini-batches, when the
    /// loss of two epochs in a row has changed by no more than this share of it. 0 never stops early. Default 1e-5.
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pub tolerance: Option<f64>,
    /// Iterations of full-batch solvers (newton, lbfgs, cd). Default 1000.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub max_iterations: Option<u64>,
    /// What a missing value (NaN) becomes: mean (of the column; not of sparse tables), zero, or error. Default mean.
    #[arg(long, value_parser = word::<Missing>)]
    pub missing: Option<Missing>,
    /// none; balanced: every class gets the same total weight; bootstrap (forest): it does in the rows that each tree drew. Default none.
    #[arg(long, value_parser = word::<ClassWeight>)]
    pub class_weight: Option<ClassWeight>,
    /// Also train and measure K times on all rows but a K-th, chosen by a hash of the row number. Default 0: do not.
    #[arg(long, value_name = "K", value_parser = whole())]
    pub folds: Option<u64>,
    /// Share of the rows, chosen by a hash of the row number, that is measured instead of trained on. Default 0.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub valid_fraction: Option<f64>,
    /// Stop when the loss of the rows of --valid-fraction has not improved for so many rounds of boost or epochs of mini-batch solvers, and keep the best.
    /// Default 0: do not.
    #[arg(long, value_name = "N", value_parser = whole(), visible_alias = "early-stopping-rounds")]
    pub early_stop: Option<u64>,
    /// Key of every random draw. Default 0; never the clock.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub seed: Option<u64>,
    /// Make probabilities of a classifier's scores that come true: platt (a logistic curve; for few rows) or isotonic (any rising map; for
    /// a thousand rows and more). svm gets probabilities that way. Default: as the model says.
    #[arg(long, value_name = "MAP", value_parser = word::<Calibrate>)]
    pub calibrate: Option<Calibrate>,
    /// Models trained beside it for --calibrate, each without one fold of the rows, chosen by a hash of the row number. Default 5.
    #[arg(long, value_name = "K", value_parser = whole())]
    pub calibrate_folds: Option<u64>,
}

/// Settings of `boost` alone.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Boosting")]
pub struct BoostFlags {
    /// Numbers: squared, huber, quantile, poisson; boost: absolute, gamma, tweedie too; mlp: gaussian (mean and variance of each row) too. Classes:
    /// logistic (softmax for more than two).
    /// Default: logistic for strings, truth values and whole numbers, squared for floating-point targets.
    #[arg(long, value_parser = word::<BoostLoss>, visible_alias = "objective")]
    pub loss: Option<BoostLoss>,
    /// huber: how far from the target the loss is squared (mlp: in deviations of the target); quantile: which one. Default 0.9, of mlp 1 and 0.5.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub alpha: Option<f64>,
    /// tweedie: the variance grows as the mean to this power, between 1 and 2. Default 1.5.
    #[arg(long, value_name = "F", allow_negative_numbers = true, visible_alias = "tweedie-variance-power")]
    pub tweedie_power: Option<f64>,
    /// Trees of each score; with --continue, those to be added. Default 100.
    #[arg(long, value_name = "N", value_parser = whole(), visible_alias = "num-iterations")]
    pub rounds: Option<u64>,
    /// Leaf values are multiplied by it. Default 0.1.
    #[arg(long, value_name = "F", allow_negative_numbers = true, visible_alias = "eta")]
    pub shrinkage: Option<f64>,
    /// leaf: the leaf of the greatest gain is split next; level: one level after the other. Default leaf.
    #[arg(long, value_parser = word::<Growth>)]
    pub growth: Option<Growth>,
    /// Leaves of a tree. Default 31.
    #[arg(long, value_name = "N", value_parser = whole(), visible_alias = "num-leaves")]
    pub max_leaves: Option<u64>,
    /// Splits from the root to a leaf; 0: any number. Default 0.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub max_depth: Option<u64>,
    /// Rows of a leaf, at least; where hessians differ, rows are taken to be spread as the hessian is; of a forest, each as often as it was drawn. Default 20, of a forest 1.
    #[arg(long, value_name = "ROWS", value_parser = whole(), visible_alias = "min-data-in-leaf")]
    pub min_rows: Option<u64>,
    /// Sum of the hessian of a leaf, at least. Default 1e-3.
    #[arg(long, value_name = "H", allow_negative_numbers = true, visible_alias = "min-child-weight")]
    pub min_hessian: Option<f64>,
    /// A split has to lower twice the loss by more. Default 0.
    #[arg(long, value_name = "GAIN", allow_negative_numbers = true, visible_alias = "min-split-gain")]
    pub min_gain: Option<f64>,
    /// Bins of a feature, without that of missing values, 2 to 65535, of a forest to 255. Default 255.
    #[arg(long, value_name = "N", value_parser = whole(), visible_alias = "max-bin")]
    pub max_bins: Option<u64>,
    /// Rows that bins are made from, about, chosen by a hash of the row number; of a table with no more, all. Default 200000.
    #[arg(long, value_name = "ROWS", value_parser = whole(), visible_alias = "bin-construct-sample-cnt")]
    pub bin_sample: Option<u64>,
    /// Columns of numbers that are categories, by name or by number from 0. Columns of strings are, without being named; of mlp where they are named, or
    /// with --embed.
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',', visible_alias = "categorical-feature")]
    pub categorical: Option<Vec<String>>,
    /// Categories: added to their hessian before they are ordered; those of fewer rows are not split off. Default 10.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub cat_smooth: Option<f64>,
    /// Categories: added to --l2 where one is split. Default 10.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub cat_l2: Option<f64>,
    /// Categories that go one way, at most. Default 32.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub max_cat_threshold: Option<u64>,
    /// Of no more categories, one goes one way and all others the other. Default 4.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub max_cat_to_onehot: Option<u64>,
    /// Rows of the categories that go one way, at least. Default 100.
    #[arg(long, value_name = "ROWS", value_parser = whole())]
    pub min_data_per_group: Option<u64>,
    /// Columns as which predictions may not fall (COLUMN:1) or not rise (COLUMN:-1).
    #[arg(long, value_name = "COLUMN:±1,…", value_delimiter = ',', visible_alias = "monotone-constraints")]
    pub monotone: Option<Vec<String>>,
    /// Groups of columns (A+B+C) that may meet on a way from the root to a leaf; those of no group meet no other.
    #[arg(long, value_name = "A+B,…", value_delimiter = ',', visible_alias = "interaction-constraints")]
    pub interactions: Option<Vec<String>>,
    /// Share of the rows that a tree is grown on, chosen by a hash of the row number; of a forest how often a row is drawn, on average. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true, visible_alias = "subsample")]
    pub row_sample: Option<f64>,
    /// Share of the features that a tree looks at. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true, visible_alias = "colsample-bytree")]
    pub column_sample: Option<f64>,
    /// Share of these that each level of a tree looks at. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true, visible_alias = "colsample-bylevel")]
    pub column_sample_level: Option<f64>,
    /// Share of these that each node looks at. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true, visible_alias = "colsample-bynode")]
    pub column_sample_node: Option<f64>,
}

/// What only `forest` has; it takes --max-depth, --min-rows, --max-bins, --bin-sample, --categorical and --row-sample of boost too.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Forests")]
pub struct ForestFlags {
    /// Trees. Default 100.
    #[arg(long, value_name = "N", value_parser = whole(), visible_alias = "n-estimators")]
    pub trees: Option<u64>,
    /// Extra-trees: cuts are drawn at random, and without --bootstrap poisson every tree takes every row once.
    #[arg(long)]
    pub extra: bool,
    /// What splits lower: gini or entropy of classes, squared error of numbers. Default: gini for strings, truth values and whole
    /// numbers, squared for floating-point targets.
    #[arg(long, value_parser = word::<Criterion>)]
    pub criterion: Option<Criterion>,
    /// Features that a node looks at: sqrt, log2, all, a number, or a share such as 0.3. Default: sqrt for classes, all for numbers.
    #[arg(long, value_name = "N", value_parser = word::<MaxFeatures>)]
    pub max_features: Option<MaxFeatures>,
    /// global: every tree sees all rows; local: the rows of one of --lanes, which are not exchanged. Default global. bag: likewise its
    /// members, each of one of as many equal runs of rows as there are --members.
    #[arg(long, value_parser = word::<Scope>)]
    pub scope: Option<Scope>,
    /// How a tree's rows are drawn: poisson (with replacement, --row-sample times on average) or none. Default poisson; of --extra none.
    /// bag: likewise the rows of a member, of which --member-rows are drawn.
    #[arg(long, value_parser = word::<BootstrapKind>)]
    pub bootstrap: Option<BootstrapKind>,
    /// Measure every row by the trees that did not draw it.
    #[arg(long)]
    pub oob: bool,
}
