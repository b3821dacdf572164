//! The members of an ensemble in words: on the command line one text each, in a job file tables of the same flags.

use super::flags::{EnsembleFlags, MemberWords, ModelFlags, SettingFlags, TrainFlags};
use super::problem::in_one_line;
use super::resolve::{self, Added, words_of};
use crate::config::{EnsembleConfig, Kind, MemberConfig, Scope, TrainConfig};
use crate::error::{Error, InContext, Result};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::path::Path;

/// Refuses what was typed of ensembles for another kind, or for one that does not look at it.
pub fn check_for(kind: Kind, flags: &EnsembleFlags) -> Result<()> {
    let typed = [
        ("learner", flags.learner.is_some()),
        ("members", flags.members.is_some()),
        ("min_members", flags.min_members.is_some()),
        ("member_rows", flags.member_rows.is_some()),
        ("member_columns", flags.member_columns.is_some()),
        ("voting", flags.voting.is_some()),
        ("vote_weights", flags.vote_weights.is_some()),
        ("member_rate", flags.member_rate.is_some()),
        ("member", !flags.member.is_empty()),
        ("given", !flags.model.is_empty()),
        ("stack_folds", flags.stack_folds.is_some()),
        ("last", flags.last.is_some()),
    ];
    let is_unwanted = |setting: &str| !kind.is_ensemble() || !EnsembleConfig::looks_at(kind, setting);
    match typed.iter().find(|(setting, typed)| *typed && is_unwanted(setting)) {
        None => Ok(()),
        Some((setting, _)) => {
            let flag = match *setting {
                "given" => "model".to_string(),
                "last" => "final".to_string(),
                setting => setting.replace('_', "-"),
            };
            let of: Vec<&str> = [Kind::Bag, Kind::Adaboost, Kind::Vote, Kind::Stack]
                .into_iter()
                .filter(|kind| EnsembleConfig::looks_at(*kind, setting))
                .map(Kind::name)
                .collect();
            Err(Error::usage(format!(
                "--{flag} is for {}; it means nothing to 'train {}'",
                of.join(" and "),
                kind.name()
            )))
        }
    }
}

/// The settings of an ensemble as typed, checked.
pub fn settings(kind: Kind, flags: &TrainFlags) -> Result<TrainConfig> {
    let typed = &flags.ensemble;
    let mut config = TrainConfig::of(kind);
    let mut ensemble = EnsembleConfig::default();
    macro_rules! take {
        ($to:ident, $from:expr, $($field:ident)*) => { $(if let Some(value) = $from.$field { $to.$field = value; })* };
    }
    let top = &flags.model.settings;
    take!(config, top, seed valid_fraction folds);
    take!(ensemble, typed, members min_members member_rows member_columns voting vote_weights member_rate stack_folds);
    let seed = config.seed;
    // What is not the ensemble's is the learner's.
    let mut rest = flags.model.clone();
    rest.settings = SettingFlags { seed: None, valid_fraction: None, folds: None, ..rest.settings };
    if kind == Kind::Bag {
        ensemble.scope = rest.forest.scope.take().unwrap_or_default();
        ensemble.bootstrap = rest.forest.bootstrap.take().unwrap_or_default();
        if ensemble.scope == Scope::Local && rest.steps.lanes.is_some() {
            return Err(Error::usage(
                "--lanes: with --scope local a bag cuts the rows into as many runs as --members says; give that instead, or write lanes of a \
                 learner of mini-batches inside it (--learner 'mlp --lanes 4')",
            ));
        }
    }
    let is_typed = rest != ModelFlags::default();
    ensemble.learner = match &typed.learner {
        None => None,
        Some(text) => {
            let words = member_words(text).for_flag("--learner")?;
            let has_own = words.model != ModelFlags::default();
            if has_own && is_typed {
                return Err(Error::usage(format!(
                    "--learner '{text}' has flags of its own, and others stand beside it; write all of them in one place"
                )));
            }
            let typed = if has_own { &words.model } else { &rest };
            Some(member_of(words.kind, typed, seed).for_flag("--learner")?)
        }
    };
    if is_typed && ensemble.learner.is_none() && EnsembleConfig::looks_at(kind, "member") {
        return Err(Error::usage(format!(
            "'train {}' takes --seed and --valid-fraction only; other settings are its members': write them there, as in \
             --member 'boost --rounds 20' or [[member]]",
            kind.name()
        )));
    }
    for text in &typed.member {
        let place = format!("--member '{text}'");
        let words = member_words(text).for_flag(&place)?;
        let config = member_of(words.kind, &words.model, seed).for_flag(&place)?;
        let alike = ensemble.member.iter().filter(|member| member.config.kind == config.kind).count();
        let name = words.name.unwrap_or_else(|| match alike {
            0 => config.kind.name().to_string(),
            n => format!("{} {}", config.kind.name(), n + 1),
        });
        ensemble.member.push(MemberConfig { name, config });
    }
    if let Some(text) = &typed.last {
        let words = member_words(text).for_flag("--final")?;
        ensemble.last = Some(member_of(words.kind, &words.model, seed).for_flag("--final")?);
    }
    ensemble.given = typed.model.iter().map(|path| name_of(path)).collect();
    TrainConfig { ensemble: Some(Box::new(ensemble)), ..config }.resolved()
}

/// What a trained model is called among others: its file, without folder and ending.
pub fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn member_of(kind: Option<Kind>, typed: &ModelFlags, seed: u64) -> Result<TrainConfig> {
    let kind = kind.ok_or_else(|| Error::usage("a member begins with its KIND, such as logistic or boost"))?;
    if kind.is_ensemble() {
        let name = kind.name();
        return Err(Error::usage(format!(
            "'{name}' is an ensemble itself; train it by itself, and vote with its model (train vote --model)"
        )));
    }
    resolve::settings(TrainConfig { seed, ..TrainConfig::of(kind) }, typed)
}

fn member_words(text: &str) -> Result<MemberWords> {
    let words = split(text)?;
    MemberWords::try_parse_from(std::iter::once("member".to_string()).chain(words)).map_err(|e| in_one_line(&e))
}

/// Words apart at spaces; those in quotes are one.
fn split(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Error::usage("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// A word as [`split`] takes it for one.
fn quoted(word: &str) -> String {
    match word.is_empty() || word.contains(|letter: char| letter.is_whitespace() || ['\'', '"', '\\'].contains(&letter))
    {
        true => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        false => word.to_string(),
    }
}

/// Tables of a job file that are members, as the texts that the command line has for them; None: it is another key.
pub fn as_words(key: &str, value: &toml::Value) -> Result<Option<toml::Value>> {
    let text = |value: &toml::Value| match value {
        toml::Value::Table(table) => text_of(table).map(toml::Value::String).in_dataset(key),
        other => Ok(other.clone()),
    };
    match value {
        toml::Value::Table(_) if ["learner", "final"].contains(&key) => text(value).map(Some),
        toml::Value::Array(all) if key == "member" && all.iter().any(toml::Value::is_table) => {
            Ok(Some(toml::Value::Array(all.iter().map(text).collect::<Result<_>>()?)))
        }
        _ => Ok(None),
    }
}

fn text_of(table: &toml::Table) -> Result<String> {
    let mut command = MemberWords::command();
    command.build();
    let nothing_typed = command.clone().try_get_matches_from(["member"]).map_err(|e| Error::usage(e.to_string()))?;
    let (mut first, mut rest): (Vec<OsString>, Vec<OsString>) = Default::default();
    for (key, value) in table {
        match words_of(&command, &nothing_typed, key, value)? {
            Added::Arguments(_, words) => first.extend(words),
            Added::Flags(flags) => rest.extend(flags),
            Added::Nothing => {}
        }
    }
    Ok(first.into_iter().chain(rest).map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_quotes_are_one_and_quoting_is_undone() {
        let words = split(r#"boost  --rounds 20 --name 'a b' --categorical "c \"d\",e\\""#).unwrap();
        assert_eq!(words, ["boost", "--rounds", "20", "--name", "a b", "--categorical", r#"c "d",e\"#]);
        for word in ["plain", "two words", "it's", r#"a"b\c"#, ""] {
            assert_eq!(split(&quoted(word)).unwrap(), [word]);
        }
        assert!(split("'open").is_err());
    }

    #[test]
    fn a_table_says_what_the_words_say() {
        let table: toml::Table =
            "name = 'a b'\nkind = 'logistic'\nsolver = 'sgd'\nnesterov = false\nl2 = 0.5".parse().unwrap();
        let words = member_words(&text_of(&table).unwrap()).unwrap();
        assert_eq!((words.kind, words.name.as_deref()), (Some(Kind::Logistic), Some("a b")));
        assert!(words.model.steps.no_nesterov && words.model.settings.l2 == Some(0.5));
        let unknown = text_of(&"kind = 'svm'\nspeed = 3".parse().unwrap()).unwrap_err().to_string();
        assert!(unknown.contains("'speed' is no flag of `consort member`"), "{unknown}");
    }
}
