//! Constraints as they were typed, by columns, to constraints of features.

use super::super::categories::column;
use crate::config::BoostConfig;
use crate::error::{Error, InContext, Result};
use crate::model::Preprocess;

/// By feature: 1, −1 or 0; empty where nothing is constrained.
pub(super) fn monotone(boost: &BoostConfig, preprocess: &Preprocess) -> Result<Vec<i8>> {
    let wrong = |text: String| Err(Error::usage(text)).for_flag("--monotone");
    let mut directions = Vec::new();
    for word in &boost.monotone {
        let (name, direction) = match word.rsplit_once(':') {
            Some((name, "1" | "+1")) => (name, 1),
            Some((name, "-1")) => (name, -1),
            _ => return wrong(format!("'{word}' is not COLUMN:1 or COLUMN:-1")),
        };
        let at = column(preprocess, name).for_flag("--monotone")?;
        if preprocess.columns[at].is_category {
            return wrong(format!("column '{name}' is a category, which has no order"));
        }
        directions.resize(preprocess.columns.len(), 0);
        if directions[at] == -direction {
            return wrong(format!("column '{name}' is to rise and to fall; say one of them"));
        }
        directions[at] = direction;
    }
    Ok(directions)
}

/// Groups of features that may meet.
pub(super) fn interactions(boost: &BoostConfig, preprocess: &Preprocess) -> Result<Vec<Vec<u32>>> {
    let group = |words: &String| {
        let found = words.split('+').map(|name| column(preprocess, name.trim()).map(|at| at as u32));
        found.collect::<Result<Vec<u32>>>().for_flag("--interactions")
    };
    boost.interactions.iter().map(group).collect()
}
