//! Settings of ensembles of any trainer, beside those that all trainings have.

use super::{BootstrapKind, Kind, Scope, Solver, TrainConfig};
use crate::data::TargetKind;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How members become one prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Voting {
    /// The mean of probabilities, or of numbers.
    #[default]
    Soft,
    /// Each member votes for one class.
    Hard,
}

/// How much each member of a vote counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VoteWeights {
    /// All alike.
    #[default]
    Equal,
    /// Found by exact line searches on the rows that are held out.
    Search,
    /// Shares of the coefficients, where above 0, of a model of the linear family on those rows.
    Logistic,
}

/// One member of a vote or a stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberConfig {
    /// For people; no two alike.
    pub name: String,
    pub config: TrainConfig,
}

/// Settings of `bag`, `adaboost`, `vote` and `stack`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnsembleConfig {
    /// What each member of a bag, or of adaboost, is.
    pub learner: Option<TrainConfig>,
    /// How many there are; of adaboost at most. Default 10.
    pub members: u64,
    /// Fewer than these are an error. Default 1.
    pub min_members: u64,
    /// Whether a member of a bag sees all rows, or one of as many equal runs of rows as there are members.
    pub scope: Scope,
    /// How the rows of a member of a bag are drawn; `Auto`, which is never stored, is `Poisson`.
    pub bootstrap: BootstrapKind,
    /// Rows drawn for a member, as a share of all. Default 1.
    pub member_rows: f64,
    /// Columns that a member sees, as a share of all. Default 1.
    pub member_columns: f64,
    pub voting: Voting,
    pub vote_weights: VoteWeights,
    /// What the weight of each member of adaboost is multiplied by. Default 1.
    pub member_rate: f64,
    /// Of a vote or a stack.
    pub member: Vec<MemberConfig>,
    /// Names of the trained models that vote, instead of members to train.
    pub given: Vec<String>,
    /// Folds whose members did not see them, which the last learner of a stack is trained on. Default 5.
    pub stack_folds: u64,
    /// Learns from the members' predictions. None: logistic for classes, linear for numbers; never stored so.
    pub last: Option<TrainConfig>,
}

impl Default for EnsembleConfig {
    fn default() -> EnsembleConfig {
        EnsembleConfig {
            learner: None,
            members: 10,
            min_members: 1,
            scope: Scope::Global,
            bootstrap: BootstrapKind::Auto,
            member_rows: 1.0,
            member_columns: 1.0,
            voting: Voting::Soft,
            vote_weights: VoteWeights::Equal,
            member_rate: 1.0,
            member: Vec::new(),
            given: Vec::new(),
            stack_folds: 5,
            last: None,
        }
    }
}

impl EnsembleConfig {
    /// Whether an ensemble of this kind looks at the setting of this name (a field of the config).
    pub fn looks_at(kind: Kind, setting: &str) -> bool {
        match setting {
            "learner" | "members" => matches!(kind, Kind::Bag | Kind::Adaboost),
            "scope" | "bootstrap" | "member_rows" | "member_columns" => kind == Kind::Bag,
            "voting" => matches!(kind, Kind::Bag | Kind::Vote),
            "vote_weights" | "given" => kind == Kind::Vote,
            "member_rate" => kind == Kind::Adaboost,
            "member" => matches!(kind, Kind::Vote | Kind::Stack),
            "stack_folds" | "last" => kind == Kind::Stack,
            _ => true,
        }
    }

    /// Members that are to be trained, with their names.
    pub fn all_members(&self) -> Vec<(String, &TrainConfig)> {
        match &self.learner {
            Some(learner) => {
                (0..self.members).map(|member| (format!("{} {member}", learner.kind.name()), learner)).collect()
            }
            None => self.member.iter().map(|member| (member.name.clone(), &member.config)).collect(),
        }
    }

    /// Whether members predict classes, as far as their settings say; None: there are none to train.
    pub fn has_classes(&self) -> Option<bool> {
        let first = self.learner.as_ref().or(self.member.first().map(|member| &member.config));
        first.map(|config| config.responds_as().is_classifier())
    }

    /// Every member's settings checked and settled, and those that this kind does not look at back at their defaults.
    ///
    /// # Errors
    /// `Usage`, naming the flag and what to do.
    pub(super) fn resolved(&self, kind: Kind, valid_fraction: f64) -> Result<EnsembleConfig> {
        let default = EnsembleConfig::default();
        let mut config = self.clone();
        macro_rules! forget {
            ($($field:ident)*) => { $(if !EnsembleConfig::looks_at(kind, stringify!($field)) { config.$field = default.$field; })* };
        }
        forget!(learner members scope bootstrap member_rows member_columns voting vote_weights given member_rate member stack_folds last);
        let name = kind.name();
        if kind == Kind::Bag && config.bootstrap == BootstrapKind::Auto {
            config.bootstrap = BootstrapKind::Poisson;
        }
        if EnsembleConfig::looks_at(kind, "learner") {
            let learner = config.learner.as_ref().ok_or_else(|| {
                Error::usage(format!("train {name} needs a learner: --learner KIND, such as --learner boost"))
            })?;
            if kind == Kind::Adaboost && learner.calibrate.is_some() {
                return Err(Error::usage(
                    "--calibrate is not for the learner of adaboost: its members vote for classes; leave it out, or train bag",
                ));
            }
            config.learner = Some(resolved_member(learner).map_err(|e| e.at("--learner"))?);
        }
        for member in &mut config.member {
            member.config = resolved_member(&member.config).map_err(|e| e.at(format!("member '{}'", member.name)))?;
        }
        if config.member.iter().any(|member| member.name.trim().is_empty()) {
            return Err(Error::usage("--name of a member is empty; give it a name, or leave the flag out"));
        }
        let mut names: Vec<&str> = config.member.iter().map(|member| member.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::usage(format!("two members are called '{}'; give each its own name", pair[0])));
        }
        if let Some(last) = &config.last {
            config.last = Some(resolved_member(last).map_err(|e| e.at("--final"))?);
        }
        let n_members = match (EnsembleConfig::looks_at(kind, "members"), config.given.len(), config.member.len()) {
            (true, ..) => config.members,
            (false, given, 0) if given > 0 => given as u64,
            (false, 0, 0) => {
                let or_models = if kind == Kind::Vote { ", or trained models with --model" } else { "" };
                return Err(Error::usage(format!(
                    "train {name} has no members: name them in the job file ([[member]] with kind = …) or with --member 'KIND FLAGS'{or_models}"
                )));
            }
            (false, 0, of_member) => of_member as u64,
            _ => return Err(Error::usage("--member and --model both name members of the vote; choose one of them")),
        };
        if n_members == 0 {
            return Err(Error::usage("--members 0: at least 1 is needed"));
        }
        if n_members > MOST_MEMBERS {
            return Err(Error::usage(format!("{n_members} members: at most {MOST_MEMBERS} are trained")));
        }
        if config.min_members == 0 || config.min_members > n_members {
            return Err(Error::usage(format!(
                "--min-members {} is not from 1 to the {n_members} members there are",
                config.min_members
            )));
        }
        let shares = [
            ("--member-rows", config.member_rows),
            ("--member-columns", config.member_columns),
            ("--member-rate", config.member_rate),
        ];
        for (flag, value) in shares {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::usage(format!("{flag} {value} is not a number above 0")));
            }
        }
        if !(1e-6..=1e6).contains(&config.member_rate) {
            return Err(Error::usage(format!("--member-rate {} is not from 1e-6 to 1e6", config.member_rate)));
        }
        if config.member_rows > 5.0 {
            return Err(Error::usage(format!("--member-rows {} is more than 5 times all rows", config.member_rows)));
        }
        if config.member_columns > 1.0 {
            return Err(Error::usage(format!(
                "--member-columns {} is more than all columns; give 1 or less",
                config.member_columns
            )));
        }
        if config.member_columns < 1.0 && config.learner.as_ref().is_some_and(TrainConfig::looks_at_images) {
            return Err(Error::usage(format!(
                "--member-columns {} leaves out pixels, but --conv of the learner looks at whole images; leave one of them out",
                config.member_columns
            )));
        }
        if config.bootstrap == BootstrapKind::None && config.member_rows > 1.0 {
            return Err(Error::usage(format!(
                "--member-rows {} is more than all rows, and --bootstrap none draws each row once at most; give 1 or less",
                config.member_rows
            )));
        }
        if !(2..=1000).contains(&config.stack_folds) {
            return Err(Error::usage(format!("--stack-folds {} is not from 2 to 1000", config.stack_folds)));
        }
        if config.vote_weights != VoteWeights::Equal && valid_fraction == 0.0 {
            return Err(Error::usage(
                "--vote-weights are learned on rows that no member has seen: hold some out with --valid-fraction, such as 0.2",
            ));
        }
        Ok(config)
    }

    /// The settings for a table that is now known: see [`TrainConfig::for_table`]. Errors (usage): members that predict numbers beside
    /// members that predict classes, by name.
    pub(super) fn for_table(&self, kind: Kind, is_sparse: bool, target: Option<TargetKind>) -> EnsembleConfig {
        let mut config = self.clone();
        let learner = config.learner.iter_mut();
        for member in config.member.iter_mut().map(|member| &mut member.config).chain(learner) {
            *member = member.for_table(is_sparse, target);
        }
        if kind == Kind::Stack {
            let (last, solver) = match config.has_classes() {
                Some(false) => (Kind::Linear, Solver::Cholesky),
                _ => (Kind::Logistic, Solver::Lbfgs),
            };
            let last = config.last.get_or_insert_with(|| TrainConfig { solver, ..TrainConfig::of(last) });
            *last = last.for_table(false, target);
        }
        config
    }

    /// Refuses members of which some predict numbers and others classes, by name. Not collective; the same on every rank.
    pub fn check_alike(&self, kind: Kind) -> Result<()> {
        let mut all: Vec<(String, &TrainConfig)> =
            self.member.iter().map(|member| (member.name.clone(), &member.config)).collect();
        all.extend(self.learner.iter().map(|learner| ("learner".to_string(), learner)));
        all.extend(self.last.iter().map(|last| ("final".to_string(), last)));
        let is_classifier = |config: &TrainConfig| config.responds_as().is_classifier();
        let what = |config: &TrainConfig| if is_classifier(config) { "classes" } else { "numbers" };
        if let [first, rest @ ..] = &all[..]
            && let Some(other) = rest.iter().find(|other| is_classifier(other.1) != is_classifier(first.1))
        {
            return Err(Error::usage(format!(
                "member '{}' ({}) predicts {} but member '{}' ({}) predicts {}; choose members that predict the same",
                first.0,
                first.1.kind.name(),
                what(first.1),
                other.0,
                other.1.kind.name(),
                what(other.1)
            )));
        }
        let is_of_numbers = all.first().is_some_and(|(_, config)| !is_classifier(config));
        if is_of_numbers && kind == Kind::Adaboost {
            return Err(Error::usage(format!(
                "adaboost is for classes, but its learner {} predicts numbers",
                all[0].1.kind.name()
            )));
        }
        if is_of_numbers && self.voting == Voting::Hard {
            return Err(Error::usage(
                "--voting hard is for classes, but the members predict numbers; use --voting soft",
            ));
        }
        Ok(())
    }
}

/// More members are a mistake in typing rather than an ensemble.
const MOST_MEMBERS: u64 = 10_000;

fn resolved_member(config: &TrainConfig) -> Result<TrainConfig> {
    if config.kind.is_ensemble() {
        let name = config.kind.name();
        return Err(Error::usage(format!(
            "'{name}' is an ensemble itself; train it by itself, and vote with its model (train vote --model)"
        )));
    }
    if config.folds > 0 {
        return Err(Error::usage("--folds is not for a member of an ensemble; leave it out"));
    }
    config.resolved()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bag(change: impl FnOnce(&mut EnsembleConfig)) -> TrainConfig {
        let mut ensemble =
            EnsembleConfig { learner: Some(TrainConfig::of(Kind::Logistic)), ..EnsembleConfig::default() };
        change(&mut ensemble);
        TrainConfig { ensemble: Some(Box::new(ensemble)), ..TrainConfig::of(Kind::Bag) }
    }

    fn refusal(config: TrainConfig) -> String {
        let error = config.resolved().unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn what_cannot_be_an_ensemble_is_refused_by_flag() {
        assert!(refusal(bag(|e| e.learner = None)).contains("--learner"));
        let calibrated = TrainConfig { calibrate: Some(crate::config::Calibrate::Platt), ..TrainConfig::of(Kind::Svm) };
        let boosted = TrainConfig { kind: Kind::Adaboost, ..bag(|e| e.learner = Some(calibrated)) };
        assert!(refusal(boosted).contains("--calibrate is not for the learner of adaboost"));
        assert!(refusal(bag(|e| e.members = 0)).starts_with("--members 0"));
        assert!(refusal(bag(|e| e.min_members = 11)).starts_with("--min-members 11"));
        assert!(refusal(bag(|e| e.member_columns = 1.5)).starts_with("--member-columns"));
        let mut of_images = TrainConfig::of(Kind::Mlp);
        of_images.mlp.as_mut().unwrap().conv = vec![8];
        let message = refusal(bag(|e| (e.learner, e.member_columns) = (Some(of_images), 0.5)));
        assert!(message.starts_with("--member-columns 0.5 leaves out pixels"), "{message}");
        assert!(
            refusal(bag(|e| (e.bootstrap, e.member_rows) = (BootstrapKind::None, 1.5))).starts_with("--member-rows")
        );
        assert!(refusal(bag(|e| e.learner = Some(bag(|_| ())))).contains("'bag' is an ensemble itself"));
        let of = |kind, member: Vec<MemberConfig>| {
            let ensemble = EnsembleConfig { member, ..EnsembleConfig::default() };
            TrainConfig { ensemble: Some(Box::new(ensemble)), ..TrainConfig::of(kind) }
        };
        assert!(refusal(of(Kind::Vote, Vec::new())).contains("no members"));
        let member = |name: &str, kind| MemberConfig { name: name.into(), config: TrainConfig::of(kind) };
        let twins = vec![member("a", Kind::Svm), member("a", Kind::Boost)];
        assert!(refusal(of(Kind::Stack, twins)).contains("two members are called 'a'"));
        let unlike = of(Kind::Stack, vec![member("a", Kind::Svm), member("b", Kind::Poisson)]).resolved().unwrap();
        let ensemble = unlike.for_table(false, None).ensemble.unwrap();
        let message = ensemble.check_alike(Kind::Stack).unwrap_err().to_string();
        assert!(
            message.starts_with("member 'a' (svm) predicts classes but member 'b' (poisson) predicts numbers"),
            "{message}"
        );
        let weighed = TrainConfig { valid_fraction: 0.0, ..of(Kind::Vote, vec![member("a", Kind::Svm)]) };
        let mut ensemble = *weighed.ensemble.clone().unwrap();
        ensemble.vote_weights = VoteWeights::Search;
        assert!(refusal(TrainConfig { ensemble: Some(Box::new(ensemble)), ..weighed }).contains("--valid-fraction"));
        assert!(refusal(TrainConfig { folds: 3, ..bag(|_| ()) }).contains("--folds"));
    }

    #[test]
    fn what_an_ensemble_does_not_look_at_goes_back_to_its_default_and_twice_is_once() {
        let odd = TrainConfig { l1: 3.0, momentum: 0.1, ..bag(|e| (e.stack_folds, e.member_rate) = (9, 0.5)) };
        let resolved = odd.resolved().unwrap();
        assert_eq!(resolved, bag(|_| ()).resolved().unwrap());
        assert_eq!(resolved.resolved().unwrap(), resolved);
        assert_eq!(resolved.ensemble.unwrap().learner.unwrap().solver, Solver::Lbfgs);
    }
}
