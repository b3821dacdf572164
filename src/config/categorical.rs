//! What of a table a training can take: columns as categories, several targets.

use super::{MlpConfig, TrainConfig};

/// The columns that become one feature each, the place of the row's category. Names are of columns, or their places from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Categorical<'c> {
    /// None: a column of strings becomes one feature a category, 1 where the row is of it and else 0.
    None,
    /// These. Other columns of strings become features of 0 and 1.
    Named(&'c [String]),
    /// All columns of strings, and these.
    StringsAnd(&'c [String]),
}

impl TrainConfig {
    /// Which columns this training takes as categories. Of an ensemble, each member says it for itself.
    pub fn categorical(&self) -> Categorical<'_> {
        if let Some(mlp) = &self.mlp {
            let named = &mlp.categorical;
            return if mlp.embed > 0 { Categorical::StringsAnd(named) } else { Categorical::Named(named) };
        }
        match (&self.boost, &self.forest) {
            (Some(boost), _) => Categorical::StringsAnd(&boost.categorical),
            (_, Some(forest)) => Categorical::StringsAnd(&forest.categorical),
            _ => Categorical::None,
        }
    }

    /// Whether rows may have several targets, numbers that are predicted together.
    pub fn takes_several_targets(&self) -> bool {
        self.mlp.as_ref().is_some_and(MlpConfig::takes_several_targets)
    }
}
