//! Settings as a TOML text of flags: what `--print-config` prints, the model stores, and `--config` takes.

use crate::config::{
    BoostConfig, EnsembleConfig, ForestConfig, Kind, MemberConfig, MlpConfig, Precision, Sync, TrainConfig,
};
use crate::data::names::TableNames;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Every setting that the solver looks at, and the names of the datasets, as keys that are flags with `_` for `-`. Members of an
/// ensemble are tables of such keys. Not collective.
pub fn settings_text(config: &TrainConfig, names: &TableNames) -> Result<String> {
    let mut table = table_of(config)?;
    table.extend(Table::try_from(names).map_err(failed)?);
    toml::to_string(&table).map_err(failed)
}

fn failed(e: toml::ser::Error) -> Error {
    Error::internal(format!("settings as TOML: {e}"))
}

/// The settings that are looked at; those of `boost` and of ensembles beside those that all trainings have.
fn table_of(config: &TrainConfig) -> Result<Table> {
    let mut table = Table::try_from(config).map_err(failed)?;
    table.retain(|setting, _| config.looks_at(setting));
    if let (Sync::Every(steps), Some(_)) = (config.sync, table.remove("sync")) {
        table.insert("sync_every".to_string(), Value::try_from(steps).map_err(failed)?);
    } else if config.looks_at("sync") {
        table.insert("sync".to_string(), Value::try_from(config.sync).map_err(failed)?);
    }
    for of_kind in ["boost", "forest", "mlp"] {
        if let Some(Value::Table(settings)) = table.remove(of_kind) {
            table.extend(settings);
        }
    }
    table.remove("ensemble");
    if let Some(ensemble) = &config.ensemble {
        let mut of_ensemble = Table::try_from(&**ensemble).map_err(failed)?;
        of_ensemble.retain(|setting, _| EnsembleConfig::looks_at(config.kind, setting));
        if ensemble.given.is_empty() {
            of_ensemble.remove("given");
        }
        table.extend(of_ensemble.into_iter().filter(|(name, _)| !MEMBERS.contains(&name.as_str())));
        if let Some(learner) = &ensemble.learner {
            table.insert("learner".to_string(), Value::Table(table_of(learner)?));
        }
        if let Some(last) = &ensemble.last {
            table.insert("final".to_string(), Value::Table(table_of(last)?));
        }
        let member = |member: &MemberConfig| {
            let mut table = table_of(&member.config)?;
            table.insert("name".to_string(), Value::String(member.name.clone()));
            Ok(Value::Table(table))
        };
        if !ensemble.member.is_empty() {
            let all = ensemble.member.iter().map(member).collect::<Result<Vec<_>>>()?;
            table.insert("member".to_string(), Value::Array(all));
        }
    }
    Ok(table)
}

/// Settings of an ensemble that are those of models.
const MEMBERS: [&str; 3] = ["learner", "member", "last"];

/// The same, back. Not collective.
///
/// # Errors
/// `Data`, for what this program does not know.
pub fn settings_from(text: &str) -> Result<(TrainConfig, TableNames)> {
    let mut settings: Table = text.parse().map_err(unreadable)?;
    let mut names = Table::new();
    for name in ["features", "exclude", "target", "weight", "offset", "group", "transpose"] {
        names.extend(settings.remove_entry(name));
    }
    Ok((config_of(settings, 0)?, of_table(names)?))
}

/// `depth`: ensembles that these are the settings of a member of.
fn config_of(mut settings: Table, depth: usize) -> Result<TrainConfig> {
    if let Some(steps) = settings.remove("sync_every") {
        let steps = steps.try_into().map_err(unreadable)?;
        settings.insert("sync".to_string(), Value::try_from(Sync::Every(steps)).map_err(unreadable)?);
    }
    let kind: Option<Kind> = settings.get("kind").cloned().and_then(|kind| kind.try_into().ok());
    // Its own settings stand beside those that all trainings have.
    let known = match kind {
        Some(Kind::Boost) => Table::try_from(BoostConfig::default()).map_err(unreadable)?,
        Some(Kind::Forest) => Table::try_from(ForestConfig::default()).map_err(unreadable)?,
        Some(Kind::Mlp) => {
            // What is left out where it says nothing is known as well.
            let full = MlpConfig {
                conv: vec![1],
                image: Some([1; 3]),
                categorical: vec![String::new()],
                embed: 1,
                precision: Precision::Bf16,
                top_k: Some(0.5),
                powersgd: Some(1),
                ..MlpConfig::default()
            };
            Table::try_from(full).map_err(unreadable)?
        }
        _ => Table::new(),
    };
    if let (Some(kind), false) = (kind, known.is_empty()) {
        let mut of_kind = Table::new();
        known.keys().for_each(|name| of_kind.extend(settings.remove_entry(name)));
        settings.insert(kind.name().to_string(), Value::Table(of_kind));
    }
    let mut ensemble = None;
    if kind.is_some_and(Kind::is_ensemble) {
        if depth > 0 {
            return Err(unreadable("a member of an ensemble is an ensemble"));
        }
        let mut one = |name: &str| -> Result<Option<TrainConfig>> {
            settings.remove(name).map(|table| config_of(table.try_into().map_err(unreadable)?, depth + 1)).transpose()
        };
        let (learner, last) = (one("learner")?, one("final")?);
        let all: Vec<Table> = settings.remove("member").map_or(Ok(Vec::new()), Value::try_into).map_err(unreadable)?;
        let member = |mut table: Table| {
            let name = table.remove("name").ok_or_else(|| unreadable("a member without a name"))?;
            let name = name.try_into().map_err(unreadable)?;
            Ok(MemberConfig { name, config: config_of(table, depth + 1)? })
        };
        let member = all.into_iter().map(member).collect::<Result<Vec<_>>>()?;
        let known = Table::try_from(EnsembleConfig::default()).map_err(unreadable)?;
        let mut own = Table::new();
        known.keys().for_each(|name| own.extend(settings.remove_entry(name)));
        ensemble = Some(Box::new(EnsembleConfig { learner, last, member, ..of_table(own)? }));
    }
    Ok(TrainConfig { ensemble, ..of_table(settings)? })
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
    use crate::config::{Kind, ScaleRate, Solver, WarmUp};

    #[test]
    fn settings_come_back_whatever_the_solver() {
        let names = TableNames {
            features: vec!["a/*".into(), "b".into()],
            exclude: vec!["mc_*".into(), "a/w".into()],
            transpose: true,
            ..TableNames::default()
        };
        for solver in [Solver::Lbfgs, Solver::Newton, Solver::Sgd, Solver::Adam, Solver::Lamb] {
            for sync in [Sync::Step, Sync::Every(7), Sync::Once] {
                let config =
                    TrainConfig { solver, sync, kind: Kind::Svm, nesterov: false, seed: 9, ..TrainConfig::default() };
                let steps = TrainConfig {
                    warm_up: Some(WarmUp::Epochs(0.5)),
                    scale_rate: Some(ScaleRate::Linear),
                    learning_rate: Some(0.1),
                    clip_norm: Some(1e300),
                    local_after: if sync == Sync::Step { 0 } else { 2 },
                    average: (sync != Sync::Once).then_some(0.999),
                    early_stop: if sync == Sync::Once { 0 } else { 3 },
                    valid_fraction: 0.1,
                    ..config.clone()
                };
                let (config, steps) = (config.resolved().unwrap(), steps.resolved().unwrap());
                let text = settings_text(&config, &names).unwrap();
                let new =
                    ["local_after", "warm_up", "scale_rate", "clip_norm", "average", "early_stop", "beta1", "epsilon"];
                assert!(new.iter().all(|setting| !text.contains(setting)), "as before where nobody asks: {text}");
                assert_eq!(text.contains("weight_decay = 0.01"), solver == Solver::Lamb, "{text}");
                let of_steps = settings_text(&steps, &names).unwrap();
                assert_eq!(of_steps.contains("warm_up = \"0.5epochs\""), solver.is_mini_batch(), "{of_steps}");
                assert_eq!(settings_from(&of_steps).unwrap(), (steps, names.clone()), "{of_steps}");
                assert_eq!(settings_from(&text).unwrap(), (config, names.clone()), "{text}");
                assert_eq!(text.contains("momentum"), solver == Solver::Sgd, "{text}");
            }
        }
        let member =
            |name: &str, kind| MemberConfig { name: name.into(), config: TrainConfig::of(kind).resolved().unwrap() };
        let of_members = EnsembleConfig {
            learner: Some(TrainConfig { solver: Solver::Adam, sync: Sync::Every(7), ..TrainConfig::of(Kind::Svm) }),
            member: vec![member("a b", Kind::Boost), member("=", Kind::Logistic)],
            last: Some(TrainConfig::of(Kind::Boost)),
            scope: crate::config::Scope::Local,
            min_members: 2,
            ..EnsembleConfig::default()
        };
        for kind in [Kind::Bag, Kind::Adaboost, Kind::Vote, Kind::Stack] {
            let ensemble = Some(Box::new(of_members.clone()));
            let config = TrainConfig { seed: 9, ensemble, ..TrainConfig::of(kind) }.resolved().unwrap();
            let config = config.for_table(false, None);
            let text = settings_text(&config, &names).unwrap();
            assert_eq!(settings_from(&text).unwrap(), (config, names.clone()), "{text}");
            assert_eq!(text.contains("[[member]]"), matches!(kind, Kind::Vote | Kind::Stack), "{text}");
            assert_eq!(text.contains("[final]"), kind == Kind::Stack, "{text}");
        }
        let older = settings_from("kind = 'svm'\nfeatures = ['X']").unwrap().1;
        assert_eq!(older, TableNames { features: vec!["X".into()], ..TableNames::default() });
        assert!(settings_from("kind = 'svm'\nspeed = 9").unwrap_err().to_string().contains("speed"));
    }
}
