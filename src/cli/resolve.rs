//! From words to checked jobs, before any rank talks to another. Messages name the flag.

use super::flags::{
    BoostFlags, CheckpointFlags, ConvertFlags, EvaluateFlags, ForestFlags, MemoryFlags, ModelFlags, NetworkFlags,
    PredictFlags, RepackFlags, TableFlags, TrainFlags, VerifyFlags, Words,
};
use super::problem::Problem;
use super::{members, steps};
use crate::config::{BoostConfig, NO_ALPHA};
use crate::data::convert::ConvertOptions;
use crate::data::hdf5::repack::RepackOptions;
use crate::data::names::TableNames;
use crate::error::{Error, InContext, Result};
use crate::predict::PredictConfig;
use crate::train::boosting::NO_OFFSET;
use crate::train::{CheckpointConfig, Every, Inputs, Kind, Model, Reading, Resume, TrainConfig};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A checked `train`.
#[derive(Clone, Debug)]
pub struct TrainJob {
    pub inputs: Inputs,
    /// Of a model that is continued, what is settled when it is known.
    pub config: TrainConfig,
    pub continued: Option<Continued>,
    /// Trained models that vote.
    pub models: Vec<PathBuf>,
    /// Files of the validation table; none: there is none.
    pub valid: Vec<PathBuf>,
    pub output: PathBuf,
    pub force: bool,
    pub checkpoint: Option<CheckpointConfig>,
}

/// A model that training goes on from, and the settings that were typed: the others are its own.
#[derive(Clone, Debug)]
pub struct Continued {
    pub model: PathBuf,
    typed: Box<ModelFlags>,
}

pub fn train(flags: &TrainFlags) -> Result<TrainJob> {
    let kind = flags.kind.ok_or_else(|| {
        Error::usage(
            "train needs a KIND: linear, logistic, svm, poisson, mlp, boost, forest, bag, adaboost, vote or stack",
        )
    })?;
    let names = names(&flags.table);
    if names.offset.is_some() && kind == Kind::Boost {
        return Err(Error::usage(NO_OFFSET));
    }
    if names.offset.is_some() && kind != Kind::Poisson {
        return Err(Error::usage(format!("--offset is for poisson only; '{}' has none", kind.name())));
    }
    members::check_for(kind, &flags.ensemble)?;
    let config = match &flags.continued {
        Some(_) if kind != Kind::Boost => {
            let name = kind.name();
            return Err(Error::usage(format!("--continue goes on from boosted trees; 'train {name}' has none")));
        }
        Some(_) => TrainConfig::of(kind),
        None if kind.is_ensemble() => members::settings(kind, flags)?,
        None => settings(TrainConfig::of(kind), &flags.model)?,
    };
    let output = match &flags.output {
        Some(output) => output.clone(),
        None if flags.print_config => PathBuf::new(),
        None => return Err(Error::usage("train needs an output: -o MODEL.h5")),
    };
    if !flags.print_config {
        some_files("train", &flags.data)?;
    }
    let valid = flags.valid.clone();
    check_valid(&valid, &config)?;
    let inputs =
        Inputs { paths: flags.data.clone(), names, rows: flags.rows.clone(), reading: reading(&flags.memory)? };
    let continued =
        flags.continued.as_ref().map(|model| Continued { model: model.clone(), typed: Box::new(flags.model.clone()) });
    let models = flags.ensemble.model.clone();
    Ok(TrainJob {
        inputs,
        config,
        continued,
        models,
        valid,
        output,
        force: flags.force,
        checkpoint: checkpoint(&flags.checkpoint)?,
    })
}

/// Where and when state is kept. The deadline is that of this process: ranks agree on it whenever they look.
fn checkpoint(flags: &CheckpointFlags) -> Result<Option<CheckpointConfig>> {
    let Some(folder) = flags.checkpoint.clone() else { return Ok(None) };
    if folder.to_str().is_none() {
        return Err(Error::usage("the name is not UTF-8; name another folder, or this one by a link"))
            .for_flag("--checkpoint");
    }
    let every = match &flags.every {
        None => Every::Time(Duration::from_secs(300)),
        Some(text) => match text.strip_suffix("steps").or_else(|| text.strip_suffix("step")) {
            None => Every::Time(time_of(text).for_flag("--every")?),
            Some(steps) => match steps.trim().parse() {
                Ok(steps) if steps > 0 => Every::Steps(steps),
                _ => {
                    return Err(Error::usage(format!(
                        "'{text}': give a time or a number of steps, such as 5m or 100steps"
                    )))
                    .for_flag("--every");
                }
            },
        },
    };
    let resume = match flags.resume.as_deref() {
        None | Some("auto") => Resume::Auto,
        Some("never") => Resume::Never,
        Some(path) => Resume::From(PathBuf::from(path)),
    };
    let limit = flags.time_limit.as_deref().map(time_of).transpose().for_flag("--time-limit")?;
    Ok(Some(CheckpointConfig { folder, every, keep: flags.keep.unwrap_or(2) as usize, resume, limit }))
}

/// A time as it is typed: `90`, `90s`, `5m`, `1.5h`.
pub fn time_of(text: &str) -> Result<Duration> {
    let wrong =
        || Error::usage(format!("'{text}' is no time; give a number of seconds, minutes or hours: 90s, 5m, 1h"));
    let (number, unit) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1.0),
        Some('m') => (&text[..text.len() - 1], 60.0),
        Some('h') => (&text[..text.len() - 1], 3600.0),
        _ => (text, 1.0),
    };
    let seconds = number.trim().parse::<f64>().map_err(|_| wrong())? * unit;
    match seconds > 0.0 && seconds < 1e9 {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(wrong()),
    }
}

fn check_valid(valid: &[PathBuf], config: &TrainConfig) -> Result<()> {
    match valid.is_empty() || config.valid_fraction == 0.0 {
        true => Ok(()),
        false => Err(Error::usage("--valid and --valid-fraction both name validation rows; choose one of them")),
    }
}

/// The job with the names and settings of the model that it goes on from, where nothing else was typed.
pub fn going_on(job: &TrainJob, from: &Continued, model: &Model) -> Result<TrainJob> {
    let name = model.config.kind.name();
    let (Kind::Boost, Some(boost)) = (model.config.kind, model.config.boost.clone()) else {
        return Err(Error::usage(format!("is a '{name}' model; --continue goes on from boosted trees")));
    };
    let typed = &from.typed.settings;
    if model.config.calibrate.is_some() || typed.calibrate.is_some() || typed.calibrate_folds.is_some() {
        return Err(Error::usage(
            "--continue goes on from trees as they were trained, and calibrated ones were trained once for each fold beside that: \
             train all rounds at once with --calibrate",
        ));
    }
    let boost = Some(BoostConfig { rounds: BoostConfig::default().rounds, ..boost });
    let config = settings(TrainConfig { folds: 0, boost, ..model.config.clone() }, &from.typed)?;
    check_valid(&job.valid, &config)?;
    let inputs = Inputs { names: names_for(model, &job.inputs.names), ..job.inputs.clone() };
    Ok(TrainJob { inputs, config, ..job.clone() })
}

fn reading(flags: &MemoryFlags) -> Result<Reading> {
    if flags.scratch.is_some() && flags.max_memory.is_none() {
        return Err(Error::usage("--scratch is for tables larger than --max-memory; give that too"));
    }
    Ok(Reading { max_memory: flags.max_memory, scratch: flags.scratch.clone(), streamed: false })
}

/// `config`: where nothing was typed.
pub(super) fn settings(mut config: TrainConfig, typed: &ModelFlags) -> Result<TrainConfig> {
    boost_settings(&mut config, &typed.boost)?;
    forest_settings(&mut config, &typed.forest, &typed.boost)?;
    network_settings(&mut config, &typed.network, &typed.boost)?;
    let flags = &typed.settings;
    macro_rules! take {
        ($($field:ident)*) => { $(if let Some(value) = flags.$field { config.$field = value; })* };
    }
    take!(solver l1 l2 tolerance max_iterations missing class_weight folds valid_fraction seed);
    config.calibrate = flags.calibrate;
    config.calibrate_folds = flags.calibrate_folds;
    steps::take(&mut config, &typed.steps);
    if let Some(times) = flags.early_stop {
        match &mut config.boost {
            Some(boost) => boost.early_stop = times,
            None => config.early_stop = times,
        }
    }
    let config = config.resolved()?;
    check_words_fit(&config, typed)?;
    Ok(config)
}

/// Settings that boosts and forests share.
const OF_ALL_TREES: [&str; 6] = ["max_depth", "min_rows", "max_bins", "bin_sample", "categorical", "row_sample"];

/// Settings that boosts and networks share.
const OF_NETWORKS: [&str; 3] = ["loss", "alpha", "categorical"];

/// Takes what was typed for `boost`. Errors: it was typed for another kind.
fn boost_settings(config: &mut TrainConfig, flags: &BoostFlags) -> Result<()> {
    let mut typed = None;
    let has_other_trees = config.kind.has_trees() && config.boost.is_none();
    macro_rules! take {
        ($($field:ident)*) => { $(if let Some(value) = flags.$field.clone() {
            let is_shared = (has_other_trees && OF_ALL_TREES.contains(&stringify!($field)))
                || (config.mlp.is_some() && OF_NETWORKS.contains(&stringify!($field)));
            typed = typed.or((!is_shared).then_some(stringify!($field)));
            if let Some(boost) = &mut config.boost { boost.$field = value; }
        })* };
    }
    take!(loss alpha tweedie_power rounds shrinkage growth max_leaves max_depth min_rows min_hessian min_gain max_bins bin_sample categorical cat_smooth cat_l2 max_cat_threshold max_cat_to_onehot min_data_per_group
        monotone interactions row_sample column_sample column_sample_level column_sample_node);
    match (typed, &config.boost) {
        (Some(setting), None) => {
            let (flag, kind) = (setting.replace('_', "-"), config.kind.name());
            Err(Error::usage(match has_other_trees {
                true => format!("--{flag} is for boost only; '{kind}' has no such setting"),
                false => format!("--{flag} is for boost only; 'train {kind}' has no trees"),
            }))
        }
        // Job files that `--print-config` wrote have the default, whatever the loss.
        (_, Some(boost)) if boost.alpha != BoostConfig::default().alpha && !boost.loss.looks_at_alpha() => {
            Err(Error::usage(NO_ALPHA))
        }
        _ => Ok(()),
    }
}

/// Takes what was typed for `forest`. Errors: it was typed for another kind.
fn forest_settings(config: &mut TrainConfig, flags: &ForestFlags, shared: &BoostFlags) -> Result<()> {
    let mut typed = None;
    macro_rules! take {
        ($($field:ident)*) => { $(if let Some(value) = flags.$field {
            typed = typed.or(Some(stringify!($field)));
            if let Some(forest) = &mut config.forest { forest.$field = value; }
        })* };
    }
    take!(trees criterion max_features scope bootstrap);
    for (is_typed, name) in [(flags.extra, "extra"), (flags.oob, "oob")] {
        typed = typed.or(is_typed.then_some(name));
    }
    match (typed, &mut config.forest) {
        (Some(setting), None) => Err(Error::usage(format!(
            "--{} is for forest only; 'train {}' has no such setting",
            setting.replace('_', "-"),
            config.kind.name()
        ))),
        (_, Some(forest)) => {
            (forest.extra, forest.oob) = (flags.extra, flags.oob);
            macro_rules! take_shared {
                ($($field:ident)*) => { $(if let Some(value) = shared.$field.clone() { forest.$field = value; })* };
            }
            take_shared!(max_depth min_rows max_bins bin_sample categorical row_sample);
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

/// Takes what was typed for `mlp`. Errors: it was typed for another kind.
fn network_settings(config: &mut TrainConfig, flags: &NetworkFlags, shared: &BoostFlags) -> Result<()> {
    let mut typed = flags.residual.then_some("residual");
    let name = config.kind.name();
    macro_rules! take {
        ($from:ident: $($field:ident)*) => { $(if let Some(value) = $from.$field.clone() {
            typed = typed.or(Some(stringify!($field)));
            if let Some(mlp) = &mut config.mlp { mlp.$field = value.into(); }
        })* };
    }
    take!(flags: layers conv embed activation dropout norm precision gradient_bits top_k powersgd);
    match (typed, &mut config.mlp) {
        (Some(setting), None) => {
            Err(Error::usage(format!("--{} is for mlp only; 'train {name}' has no layers", setting.replace('_', "-"))))
        }
        (_, Some(mlp)) => {
            mlp.residual = flags.residual;
            if mlp.layers == [0] {
                mlp.layers.clear();
            }
            if let Some(loss) = shared.loss {
                mlp.loss = loss;
            }
            if let Some(alpha) = shared.alpha {
                mlp.alpha = alpha;
            }
            if let Some(categorical) = &shared.categorical {
                mlp.categorical = categorical.clone();
            }
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

/// A flag that the solver would not look at is a misunderstanding.
fn check_words_fit(config: &TrainConfig, words: &ModelFlags) -> Result<()> {
    let flags = &words.settings;
    let mut typed = vec![
        ("l1", "l1", flags.l1.is_some()),
        ("l2", "l2", flags.l2.is_some()),
        ("tolerance", "tolerance", flags.tolerance.is_some()),
        ("max_iterations", "max-iterations", flags.max_iterations.is_some()),
        ("missing", "missing", flags.missing.is_some()),
        // Boosts have one of their own.
        ("early_stop", "early-stop", flags.early_stop.is_some() && config.boost.is_none()),
    ];
    typed.extend(steps::typed(&words.steps));
    if let Some((setting, flag, _)) = typed.iter().find(|(setting, _, typed)| *typed && !config.looks_at(setting)) {
        let instead = match *setting {
            "epochs" if config.looks_at("max_iterations") => " (its passes are --max-iterations)",
            "max_iterations" if config.looks_at("epochs") => " (its passes are --epochs)",
            _ => "",
        };
        if config.kind.has_trees() {
            let hint = if *setting == "lanes" { ", or give --scope local too" } else { "" };
            return Err(Error::usage(format!("--{flag} means nothing to {}; leave it out{hint}", config.kind.name())));
        }
        return Err(Error::usage(format!(
            "--{flag} means nothing to --solver {}{instead}; leave it out, or choose another solver",
            config.solver.name()
        )));
    }
    Ok(())
}

/// A checked `predict`; the rest follows from the model.
pub fn predict(flags: &PredictFlags) -> Result<(PathBuf, PredictConfig)> {
    let model = model(&flags.model, "predict")?;
    let output = flags.output.clone().ok_or_else(|| Error::usage("predict needs an output: -o PRED.h5"))?;
    some_files("predict", &flags.data)?;
    let config = PredictConfig {
        inputs: Inputs {
            paths: flags.data.clone(),
            names: names(&flags.table),
            reading: Reading { max_memory: flags.max_memory, ..Reading::default() },
            ..Inputs::default()
        },
        output,
        rows: flags.rows.clone(),
        copy: flags.copy.clone(),
        contributions: flags.contributions,
        leaves: flags.leaves,
        out_of_bag: flags.oob,
        force: flags.force,
    };
    Ok((model, config))
}

pub fn evaluate(flags: &EvaluateFlags) -> Result<(PathBuf, Inputs)> {
    let model = model(&flags.model, "evaluate")?;
    some_files("evaluate", &flags.data)?;
    let reading = reading(&flags.memory)?;
    Ok((model, Inputs { paths: flags.data.clone(), names: names(&flags.table), reading, ..Inputs::default() }))
}

pub fn verify(flags: &VerifyFlags) -> Result<(PathBuf, Reading)> {
    Ok((model(&flags.model, "verify")?, reading(&flags.memory)?))
}

pub fn convert(flags: &ConvertFlags) -> Result<(Vec<PathBuf>, PathBuf, ConvertOptions)> {
    let Some((out, inputs)) = flags.files.split_last().filter(|(_, inputs)| !inputs.is_empty()) else {
        return Err(Error::usage("convert needs at least one input, then the output: convert IN… OUT.h5"));
    };
    if let Some(input) = inputs.iter().find(|input| same_file(input, out)) {
        return Err(Error::usage(format!("the output {} is one of the inputs", input.display())));
    }
    let separator = match flags.separator {
        Some(char) => Some(
            u8::try_from(char).map_err(|_| Error::usage("one ASCII character is wanted")).for_flag("--separator")?,
        ),
        None => None,
    };
    let options = ConvertOptions {
        format: flags.format,
        group: flags.group.clone(),
        append: flags.append,
        replace: flags.force,
        target: flags.target.clone(),
        separator,
        header: if flags.header { Some(true) } else { flags.no_header.then_some(false) },
        n_features: flags.n_features,
        sparse: flags.sparse,
    };
    Ok((inputs.to_vec(), out.clone(), options))
}

pub fn repack(flags: &RepackFlags) -> Result<RepackOptions> {
    if same_file(&flags.input, &flags.output) {
        return Err(Error::usage(format!("the output {} is the input", flags.output.display())));
    }
    Ok(RepackOptions {
        chunk_bytes: flags.chunk_size as usize,
        deflate: (flags.deflate > 0).then_some(flags.deflate),
        replace: flags.force,
    })
}

/// The names to read another table by: the model's, relative to any group, where nothing else was typed.
pub fn names_for(model: &Model, typed: &TableNames) -> TableNames {
    let stored = model.names.relative();
    // An empty name says: none.
    let name = |typed: &Option<String>, stored: Option<String>| match typed.as_deref() {
        Some("") => None,
        Some(name) => Some(name.to_string()),
        None => stored,
    };
    TableNames {
        features: if typed.features.is_empty() { stored.features } else { typed.features.clone() },
        exclude: typed.exclude.clone(),
        target: name(&typed.target, stored.target),
        weight: name(&typed.weight, stored.weight),
        offset: name(&typed.offset, stored.offset),
        group: typed.group.clone(),
        // How a file is written is its own affair, as the group is.
        transpose: typed.transpose,
    }
}

fn names(flags: &TableFlags) -> TableNames {
    TableNames {
        features: flags.features.clone(),
        exclude: flags.exclude.clone(),
        target: flags.target.clone(),
        weight: flags.weight.clone(),
        offset: flags.offset.clone(),
        group: flags.group.clone(),
        transpose: flags.transpose,
    }
}

fn model(path: &Option<PathBuf>, command: &str) -> Result<PathBuf> {
    path.clone().ok_or_else(|| Error::usage(format!("{command} needs a model: {command} MODEL.h5 …")))
}

fn some_files(command: &str, data: &[PathBuf]) -> Result<()> {
    match data.is_empty() {
        true => Err(Error::usage(format!("{command} needs at least one data file"))),
        false => Ok(()),
    }
}

/// Refuses an output that is one of these files; `what` says what they are to the command. Looks at the files.
pub fn check_apart(output: &Path, files: impl IntoIterator<Item = impl AsRef<Path>>, what: &str) -> Result<()> {
    match files.into_iter().any(|file| same_file(file.as_ref(), output)) {
        true => Err(Error::usage(format!("the output {} is {what}; choose another output", output.display()))),
        false => Ok(()),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The words with those of `--config` added: keys that were not typed become flags and arguments.
///
/// A key is a long flag without its dashes, or the name of an argument (`kind`, `data`, `model`, `files`); `_` stands for `-` too.
pub fn with_config(mut words: Vec<OsString>) -> std::result::Result<Vec<OsString>, Problem> {
    let command = Words::command();
    let matches = command.clone().try_get_matches_from(&words)?;
    let Some((name, typed)) = matches.subcommand() else { return Ok(words) };
    let Some(file) = typed.get_one::<PathBuf>("config") else { return Ok(words) };
    let text = std::fs::read_to_string(file).map_err(|e| Error::usage(format!("cannot read it: {e}")));
    let text = text.in_file(file).for_flag("--config")?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Error::usage(e.to_string())).in_file(file)?;
    let mut built = command.find_subcommand(name).cloned().unwrap_or_default();
    built.build();
    let mut places: Vec<(usize, OsString)> = Vec::new();
    for (key, value) in &table {
        let added = words_of(&built, typed, key, value).in_file(file)?;
        match added {
            Added::Flags(flags) => words.extend(flags),
            Added::Arguments(index, values) => places.extend(values.into_iter().map(|value| (index, value))),
            Added::Nothing => {}
        }
    }
    places.sort_by_key(|(index, _)| *index);
    words.extend(places.into_iter().map(|(_, value)| value));
    Ok(words)
}

pub(super) enum Added {
    Flags(Vec<OsString>),
    /// The position of the argument, and its values.
    Arguments(usize, Vec<OsString>),
    Nothing,
}

pub(super) fn words_of(command: &clap::Command, typed: &ArgMatches, key: &str, value: &toml::Value) -> Result<Added> {
    let flag = key.replace('_', "-");
    if let Some(value) = members::as_words(key, value)? {
        return words_of(command, typed, key, &value);
    }
    // `nesterov = false` is the flag --no-nesterov.
    let negated = format!("no-{flag}");
    if let (Some(_), toml::Value::Boolean(on)) =
        (command.get_arguments().find(|arg| arg.get_long() == Some(negated.as_str())), value)
    {
        return words_of(command, typed, &negated, &toml::Value::Boolean(!on));
    }
    let known = |arg: &&Arg| {
        let is_key = arg.get_long() == Some(flag.as_str()) || (arg.is_positional() && arg.get_id().as_str() == flag);
        is_key && !["config", "help", "version"].contains(&arg.get_id().as_str())
    };
    let Some(arg) = command.get_arguments().find(known) else {
        let word = command.get_name();
        return Err(Error::usage(format!(
            "'{key}' is no flag of `consort {word}`; `consort {word} --help` lists them"
        )));
    };
    if typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
        return Ok(Added::Nothing);
    }
    let values = match value {
        // Of other lists none is the default.
        toml::Value::Array(values) if values.is_empty() && flag == "layers" => vec!["0".into()],
        toml::Value::Array(values) => values.iter().map(|value| plain(key, value)).collect::<Result<Vec<_>>>()?,
        value => vec![plain(key, value)?],
    };
    if let Some(index) = arg.get_index() {
        return Ok(Added::Arguments(index, values.into_iter().map(OsString::from).collect()));
    }
    if let ArgAction::SetTrue = arg.get_action() {
        return match value {
            toml::Value::Boolean(true) => Ok(Added::Flags(vec![format!("--{flag}").into()])),
            toml::Value::Boolean(false) => Ok(Added::Nothing),
            _ => Err(Error::usage(format!("'{key}' is true or false"))),
        };
    }
    Ok(Added::Flags(values.into_iter().map(|value| format!("--{flag}={value}").into()).collect()))
}

fn plain(key: &str, value: &toml::Value) -> Result<String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        _ => Err(Error::usage(format!("'{key}' is a number, a text, true or false, or a list of these"))),
    }
}
