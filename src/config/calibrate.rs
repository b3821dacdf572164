//! How a classifier's probabilities are made true.

use serde::{Deserialize, Serialize};

/// The map from a model's scores to probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibrate {
    /// 1/(1 + exp(−a·score − b)): two numbers a class, for few rows.
    Platt,
    /// The rising steps nearest to what happened: any rising map, for many rows (a thousand and more).
    Isotonic,
}

impl Calibrate {
    /// Parts that the rows are cut into to find scores of rows that a model did not see, unless another number is asked for.
    pub const FOLDS: u64 = 5;

    /// The word of `--calibrate`.
    pub fn name(self) -> &'static str {
        match self {
            Calibrate::Platt => "platt",
            Calibrate::Isotonic => "isotonic",
        }
    }
}
