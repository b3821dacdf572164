//! Why words cannot be taken.

use crate::error::Error;
use clap::error::ErrorKind;

pub enum Problem {
    /// Nothing is wrong with them: help or the version is asked for, or there are none.
    Words(clap::Error),
    Settings(Error),
}

impl From<clap::Error> for Problem {
    fn from(error: clap::Error) -> Problem {
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Problem::Words(error),
            _ => Problem::Settings(in_one_line(&error)),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Settings(error)
    }
}

/// How clap's tip begins that has the word behind `--`: as a data file, which nobody means by an unknown flag.
const AS_A_VALUE: &str = "to pass '";

/// What clap found wrong, and its tips, without the usage that follows in its own form.
pub fn in_one_line(error: &clap::Error) -> Error {
    let text = error.to_string();
    let found = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    let mut line = found.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    let tips: Vec<&str> = tips.filter(|tip| !tip.starts_with(AS_A_VALUE)).collect();
    tips.iter().for_each(|tip| line += &format!("; {tip}"));
    if tips.is_empty() && [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand].contains(&error.kind()) {
        line += "; --help lists those that there are";
    }
    Error::usage(line)
}

#[cfg(test)]
mod tests {
    use super::super::flags::Words;
    use super::*;
    use clap::Parser;

    fn refusal(words: &[&str]) -> String {
        match Words::try_parse_from([&["consort"], words].concat()).map_err(Problem::from) {
            Err(Problem::Settings(error)) => error.to_string(),
            Err(Problem::Words(error)) => panic!("{words:?} ask for {error}"),
            Ok(words) => panic!("taken: {words:?}"),
        }
    }

    #[test]
    fn what_is_wrong_with_words_is_said_in_one_line() {
        let cases: [(&[&str], &[&str]); 9] = [
            (&["train", "mlp", "--precision", "f16"], &["'f16'", "--precision", "`f32` or `bf16`"]),
            (&["train", "mlp", "--solver", "newto"], &["'newto'", "--solver", "`newton`"]),
            (&["train", "mlp", "--sync", "onc"], &["'onc'", "--sync", "[possible values: step, once]", "; ", "'once'"]),
            (&["train", "mlp", "--epochs", "many"], &["'many'", "--epochs", "invalid digit"]),
            (&["train", "mlp", "--keep", "2"], &["required", ": --checkpoint <DIR>"]),
            (&["train", "mlp", "--out", "m.h5"], &["'--out'", "; ", "'--output'"]),
            (&["train", "mlp", "-z"], &["'-z'", "; --help lists"]),
            (&["train", "mlp", "--zzz"], &["'--zzz'", "; --help lists"]),
            (&["zzz"], &["'zzz'", "; --help lists"]),
        ];
        for (words, parts) in cases {
            let line = refusal(words);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(!line.contains("Usage") && !line.starts_with("error") && !line.contains("'-- "), "{line}");
            parts.iter().for_each(|part| assert!(line.contains(part), "'{part}' is not in: {line}"));
        }
    }

    #[test]
    fn help_and_the_version_are_no_refusals() {
        for words in [&["--help"][..], &["--version"], &["train", "--help"], &[], &["train"]] {
            let problem = Words::try_parse_from([&["consort"], words].concat()).map_err(Problem::from);
            assert!(matches!(problem, Err(Problem::Words(_))), "{words:?}");
        }
    }
}
