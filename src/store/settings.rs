//! Settings as a TOML text of flags: what `--print-config` prints, the model stores, and `--config` takes.

use crate::config::{BoostConfig, ForestConfig, Sync, TrainConfig};
use crate::data::names::TableNames;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Every setting that the solver looks at, and the names of the datasets, as keys that are flags with `_` for `-`.
/// Not collective.
pub fn settings_text(config: &TrainConfig, names: &TableNames) -> Result<String> {
    let failed = |e: toml::ser::Error| Error::internal(format!("settings as TOML: {e}"));
    let mut table = Table::try_from(config).map_err(failed)?;
    table.retain(|setting, _| config.looks_at(setting));
    if let (Sync::Every(steps), Some(_)) = (config.sync, table.remove("sync")) {
        table.insert("sync_every".to_string(), Value::try_from(steps).map_err(failed)?);
    } else if config.looks_at("sync") {
        table.insert("sync".to_string(), Value::try_from(config.sync).map_err(failed)?);
    }
    for of_kind in ["boost", "forest"] {
        if let Some(Value::Table(settings)) = table.remove(of_kind) {
            table.extend(settings);
        }
    }
    table.extend(Table::try_from(names).map_err(failed)?);
    toml::to_string(&table).map_err(failed)
}

/// The same, back. Not collective.
///
/// # Errors
/// `Data`, for what this program does not know.
pub fn settings_from(text: &str) -> Result<(TrainConfig, TableNames)> {
    let mut settings: Table = text.parse().map_err(unreadable)?;
    if let Some(steps) = settings.remove("sync_every") {
        let steps = steps.try_into().map_err(unreadable)?;
        settings.insert("sync".to_string(), Value::try_from(Sync::Every(steps)).map_err(unreadable)?);
    }
    let mut names = Table::new();
    for name in ["features", "exclude", "target", "weight", "offset", "group", "transpose"] {
        names.extend(settings.remove_entry(name));
    }
    // Its own settings stand beside those that all trainings have.
    let kind = settings.get("kind").and_then(Value::as_str).unwrap_or_default().to_string();
    let known = match kind.as_str() {
        "boost" => Table::try_from(BoostConfig::default()).map_err(unreadable)?,
        "forest" => Table::try_from(ForestConfig::default()).map_err(unreadable)?,
        _ => Table::new(),
    };
    if !known.is_empty() {
        let mut of_kind = Table::new();
        known.keys().for_each(|name| of_kind.extend(settings.remove_entry(name)));
        settings.insert(kind, Value::Table(of_kind));
    }
    Ok((of_table(settings)?, of_table(names)?))
}

fn of_table<T: DeserializeOwned>(table: Table) -> Result<T> {
    Value::Table(table).try_into().map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    Error::data(format!("settings that this program cannot read: {}", text.lines().next().unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kind, Solver};

    #[test]
    fn settings_come_back_whatever_the_solver() {
        let names = TableNames {
            features: vec!["a/*".into(), "b".into()],
            exclude: vec!["mc_*".into(), "a/w".into()],
            transpose: true,
            ..TableNames::default()
        };
        for solver in [Solver::Lbfgs, Solver::Newton, Solver::Sgd, Solver::Adam] {
            for sync in [Sync::Step, Sync::Every(7), Sync::Once] {
                let config =
                    TrainConfig { solver, sync, kind: Kind::Svm, nesterov: false, seed: 9, ..TrainConfig::default() };
                let config = config.resolved().unwrap();
                let text = settings_text(&config, &names).unwrap();
                assert_eq!(settings_from(&text).unwrap(), (config, names.clone()), "{text}");
                assert_eq!(text.contains("momentum"), solver == Solver::Sgd, "{text}");
            }
        }
        let older = settings_from("kind = 'svm'\nfeatures = ['X']").unwrap().1;
        assert_eq!(older, TableNames { features: vec!["X".into()], ..TableNames::default() });
        assert!(settings_from("kind = 'svm'\nspeed = 9").unwrap_err().to_string().contains("speed"));
    }
}
