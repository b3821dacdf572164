//! # config — the settings of a training
//!
//! In:    what a person chose, by flags, by a settings file or in Rust.
//! Out:   a checked [`TrainConfig`]; everything in it can change the answer, and is stored in the model.
//! Talks: never.
//! Never: files, ranks, threads, paths: they may not change the answer.

mod boost;
mod calibrate;
mod categorical;
mod ensemble;
mod forest;
mod kind;
mod mlp;
mod steps;

pub use crate::optim::Schedule;
pub(crate) use boost::NO_ALPHA;
pub use boost::{BoostConfig, BoostLoss, Growth};
pub use calibrate::Calibrate;
pub use categorical::Categorical;
pub use ensemble::{EnsembleConfig, MemberConfig, VoteWeights, Voting};
pub use forest::{BootstrapKind, Criterion, ForestConfig, MaxFeatures, Scope};
pub use kind::{Kind, Solver};
pub use mlp::{Activation, MlpConfig, Norm, Precision};
pub use steps::{ScaleRate, WarmUp};

use crate::data::partition::default_lanes;
use crate::data::{Image, TargetKind};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How often mini-batch lanes are brought together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Gradients are summed every step.
    #[default]
    Step,
    /// Local SGD: parameters are averaged every so many steps.
    Every(u64),
    /// Parameters are averaged once, at the end.
    Once,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeight {
    #[default]
    None,
    /// Every class gets the same total weight.
    Balanced,
    /// The same in the rows that each tree of a forest drew.
    Bootstrap,
}

/// What a missing value (NaN) becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The column's mean over training rows that have a value.
    #[default]
    Mean,
    /// The number 0, also in the column's moments.
    Zero,
    /// An error that names the row and the column.
    Error,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Settings of the linear family. Every field can change the answer and is stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    pub kind: Kind,
    pub solver: Solver,
    /// λ₁‖w‖₁ is added to the mean weighted loss, w on standardised features. Default 0.
    pub l1: f64,
    /// λ₂/2‖w‖² is added to the mean weighted loss. Default 3e-4, of boost, forest and mlp 0.
    pub l2: f64,
    /// Stop when the gradient is this much smaller than at the start (largest element), on mini-batches when the loss of two epochs in a row has changed
    /// by no more than this share of it; 0 never stops early. Default 1e-5.
    pub tolerance: f64,
    /// Iterations of full-batch solvers. Default 1000.
    pub max_iterations: u64,
    /// Passes of mini-batch solvers. None: 10, or on a short table as many as make a thousand steps.
    pub epochs: Option<u64>,
    /// Of mini-batch solvers. None: measured on the first rows, see `learning_rate.rs`; 0.1 for sgd and adagrad, 0.01 for adam and adamw, 0.02 for lamb and
    /// 5 for lars on uncorrelated features with unit curvature. Of networks, whose values are of unit scale, it is not measured: 0.001 for adam and adamw, 0.01 for
    /// adagrad and lamb, 0.05 for sgd, 1 for lars.
    pub learning_rate: Option<f64>,
    pub schedule: Schedule,
    /// Rows per step over all lanes. Default 1024, of mlp 256.
    pub global_batch: u64,
    /// Lanes; None: the default rule.
    pub lanes: Option<u64>,
    /// Of sgd and lars. Default 0.9.
    pub momentum: f64,
    /// Nesterov's look-ahead of sgd. Default true.
    pub nesterov: bool,
    pub sync: Sync,
    /// Epochs in which gradients are summed every step, before `sync` begins: post-local SGD. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub local_after: u64,
    /// λ of the decay that is no part of the gradient: of adamw and lamb 0.01, of lars 0. None: not settled, or of another solver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// A step's mean gradient, penalty included, is shortened to this length if it is longer. None: never; of sgd and lars on networks of
    /// Gaussian loss 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Of adam, adamw and lamb. None: 0.9 and 0.999.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// In units of a typical gradient, of adam, adamw, lamb and adagrad. None: 1e-8, 1e-8, 1e-6, 1e-10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// How long the learning rate rises first. None: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
    /// What the learning rate is multiplied by. None: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_rate: Option<ScaleRate>,
    /// Decay of the running average of the parameters that is the model. None: the model is the last parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// Epochs of mini-batch solvers without a lesser loss on the rows held out, after which the best parameters are the model; 0: never.
    #[serde(skip_serializing_if = "is_zero")]
    pub early_stop: u64,
    pub missing: Missing,
    pub class_weight: ClassWeight,
    /// Cross-validation folds; 0: none.
    pub folds: u64,
    /// Share of the rows, chosen by a hash of the row number, that is measured instead of trained on. Default 0.
    pub valid_fraction: f64,
    pub seed: u64,
    /// What makes probabilities of a classifier's scores; None: itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrate: Option<Calibrate>,
    /// Models that are trained beside it for that, each without one fold of the rows. None: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrate_folds: Option<u64>,
    /// Of `boost`; None for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boost: Option<BoostConfig>,
    /// Of `forest`; None for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forest: Option<ForestConfig>,
    /// Of `mlp`; None for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp: Option<MlpConfig>,
    /// Of `bag`, `adaboost`, `vote` and `stack`; None for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Box<EnsembleConfig>>,
    /// `Auto` was settled for a dense table: see [`for_table`](TrainConfig::for_table). Never stored.
    #[serde(skip)]
    pub solver_may_change: bool,
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig {
            kind: Kind::Logistic,
            solver: Solver::Auto,
            l1: 0.0,
            l2: 3e-4,
            tolerance: 1e-5,
            max_iterations: 1000,
            epochs: None,
            learning_rate: None,
            schedule: Schedule::Cosine,
            global_batch: 1024,
            lanes: None,
            momentum: 0.9,
            nesterov: true,
            sync: Sync::Step,
            local_after: 0,
            weight_decay: None,
            clip_norm: None,
            beta1: None,
            beta2: None,
            epsilon: None,
            warm_up: None,
            scale_rate: None,
            average: None,
            early_stop: 0,
            missing: Missing::Mean,
            class_weight: ClassWeight::None,
            folds: 0,
            valid_fraction: 0.0,
            seed: 0,
            calibrate: None,
            calibrate_folds: None,
            boost: None,
            forest: None,
            mlp: None,
            ensemble: None,
            solver_may_change: false,
        }
    }
}

impl TrainConfig {
    /// The defaults of a kind.
    pub fn of(kind: Kind) -> TrainConfig {
        let defaults = TrainConfig { kind, ..TrainConfig::default() };
        match kind {
            Kind::Boost => TrainConfig { l2: 0.0, boost: Some(BoostConfig::default()), ..defaults },
            Kind::Forest => TrainConfig { l2: 0.0, forest: Some(ForestConfig::default()), ..defaults },
            Kind::Mlp => TrainConfig { l2: 0.0, global_batch: 256, mlp: Some(MlpConfig::default()), ..defaults },
            kind if kind.is_ensemble() => TrainConfig { ensemble: Some(Box::default()), ..defaults },
            _ => defaults,
        }
    }

    /// Checked, with `auto` settled, and with the settings that this solver does not look at back at their defaults, so
    /// that they cannot change the digest. Not collective; the same on every rank. Resolving twice changes nothing.
    ///
    /// # Errors
    /// `Usage`, naming the flag and what to do.
    pub fn resolved(&self) -> Result<TrainConfig> {
        if self.kind.is_ensemble() {
            return self.resolved_ensemble();
        }
        let mut config = self.clone();
        config.check_numbers()?;
        config.solver = config.settle_solver()?;
        config.solver_may_change |= self.solver == Solver::Auto && self.kind == Kind::Linear;
        if let Some(boost) = &config.boost {
            boost.check(config.valid_fraction)?;
        }
        if let Some(forest) = &mut config.forest {
            *forest = forest.resolved()?;
            if config.lanes == Some(0) {
                return Err(Error::usage("--lanes 0: at least 1 is needed"));
            }
        }
        if let Some(mlp) = &config.mlp {
            mlp.check()?;
            if mlp.alpha != 0.0 && !mlp.loss.looks_at_alpha() {
                return Err(Error::usage(NO_ALPHA));
            }
        }
        if config.class_weight == ClassWeight::Bootstrap && config.kind != Kind::Forest {
            return Err(Error::usage(format!(
                "--class-weight bootstrap balances the rows that each tree of a forest drew; '{}' draws none: use balanced",
                config.kind.name()
            )));
        }
        if config.class_weight != ClassWeight::None && !config.responds_as().is_classifier() {
            return Err(Error::usage(format!(
                "--class-weight balances classes, but '{}' predicts numbers; leave it out, or weigh rows with --weight",
                config.kind.name()
            )));
        }
        config.settle_calibration()?;
        if config.solver.is_mini_batch() {
            config.settle_steps()?;
        }
        let default = TrainConfig::default();
        macro_rules! forget {
            ($($field:ident)*) => { $(if !config.looks_at(stringify!($field)) { config.$field = default.$field; })* };
        }
        forget!(l1 l2 missing tolerance max_iterations epochs learning_rate schedule global_batch lanes momentum nesterov sync
            local_after weight_decay clip_norm beta1 beta2 epsilon warm_up scale_rate average early_stop);
        Ok(config)
    }

    fn resolved_ensemble(&self) -> Result<TrainConfig> {
        self.check_numbers()?;
        if self.folds > 0 {
            return Err(Error::usage("--folds is not for ensembles; hold rows out with --valid-fraction"));
        }
        let ensemble = self.ensemble.clone().unwrap_or_default().resolved(self.kind, self.valid_fraction)?;
        let (kind, valid_fraction, seed) = (self.kind, self.valid_fraction, self.seed);
        Ok(TrainConfig { kind, valid_fraction, seed, ensemble: Some(Box::new(ensemble)), ..TrainConfig::default() })
    }

    /// The settings for a table that is now known: where nobody chose a solver, a sparse one is passed over by `Lbfgs`, since the
    /// matrices of the others grow with the square of its columns; where nobody chose a loss of `boost`, the target as it is stored
    /// does, and likewise the criterion of `forest`. Not collective; the same on every rank.
    pub fn for_table(&self, is_sparse: bool, target: Option<TargetKind>) -> TrainConfig {
        let solver = if self.solver_may_change && is_sparse { Solver::Lbfgs } else { self.solver };
        let mut config = TrainConfig { solver, solver_may_change: false, ..self.clone() };
        if let Some(boost) = config.boost.as_mut().filter(|boost| boost.loss == BoostLoss::Auto) {
            boost.loss = if target == Some(TargetKind::Float) { BoostLoss::Squared } else { BoostLoss::Logistic };
        }
        if let Some(mlp) = config.mlp.as_mut().filter(|mlp| mlp.loss == BoostLoss::Auto) {
            mlp.loss = if target == Some(TargetKind::Float) { BoostLoss::Squared } else { BoostLoss::Logistic };
        }
        if let Some(forest) = &mut config.forest {
            if forest.criterion == Criterion::Auto {
                forest.criterion = if target == Some(TargetKind::Float) { Criterion::Squared } else { Criterion::Gini };
            }
            if forest.max_features == MaxFeatures::Auto {
                let is_number = forest.criterion == Criterion::Squared;
                forest.max_features = if is_number { MaxFeatures::All } else { MaxFeatures::Sqrt };
            }
        }
        if let Some(ensemble) = &mut config.ensemble {
            **ensemble = ensemble.for_table(self.kind, is_sparse, target);
        }
        config
    }

    /// The same for rows of a shape that is now known, if any: see [`MlpConfig::for_image`]. Not collective; the same on every rank.
    pub fn for_image(&self, image: Option<Image>) -> Result<TrainConfig> {
        let mlp = self.mlp.as_ref().map(|mlp| mlp.for_image(image)).transpose()?;
        Ok(TrainConfig { mlp, ..self.clone() })
    }

    /// Whether places of an image are seen alike.
    pub fn looks_at_images(&self) -> bool {
        self.mlp.as_ref().is_some_and(|mlp| !mlp.conv.is_empty())
    }

    /// The kind of the linear family with the same targets, predictions and metrics: itself, but for trees. Of an ensemble, as far as
    /// its settings say: see [`Model::responds_as`](crate::model::Model::responds_as).
    pub fn responds_as(&self) -> Kind {
        let kind = self.of_scores();
        // What is calibrated has probabilities.
        if self.calibrate.is_some() && kind == Kind::Svm { Kind::Logistic } else { kind }
    }

    fn of_scores(&self) -> Kind {
        if let Some(forest) = &self.forest {
            return if forest.criterion == Criterion::Squared { Kind::Linear } else { Kind::Logistic };
        }
        if let Some(ensemble) = &self.ensemble {
            return if ensemble.has_classes() == Some(false) { Kind::Linear } else { Kind::Logistic };
        }
        let of_boost = self.boost.as_ref().map(|boost| boost.loss);
        match of_boost.or(self.mlp.as_ref().map(|mlp| mlp.loss)) {
            None => self.kind,
            Some(BoostLoss::Auto | BoostLoss::Logistic) => Kind::Logistic,
            Some(BoostLoss::Squared | BoostLoss::Absolute | BoostLoss::Huber) => Kind::Linear,
            Some(BoostLoss::Quantile | BoostLoss::Gaussian) => Kind::Linear,
            Some(BoostLoss::Poisson | BoostLoss::Gamma | BoostLoss::Tweedie) => Kind::Poisson,
        }
    }

    /// Whether this solver looks at the setting of this name (a field of the config). The others cannot change a model.
    pub fn looks_at(&self, setting: &str) -> bool {
        if self.kind.is_ensemble() {
            return matches!(setting, "kind" | "valid_fraction" | "seed" | "ensemble");
        }
        match setting {
            "solver" | "missing" => !self.kind.has_trees(),
            "l1" => !matches!(self.kind, Kind::Forest | Kind::Mlp),
            "l2" => self.kind != Kind::Forest,
            "lanes" if self.kind == Kind::Forest => {
                self.forest.as_ref().is_some_and(|forest| forest.scope == Scope::Local)
            }
            "max_iterations" | "tolerance" if self.kind.has_trees() => false,
            "max_iterations" => !self.solver.is_mini_batch() && !self.solver.is_direct(),
            "tolerance" => !self.solver.is_direct(),
            _ => self.steps_look_at(setting).unwrap_or(true),
        }
    }

    /// Lanes of a mini-batch solver for a table of this many rows: `--lanes`, or the default rule.
    pub fn n_lanes(&self, n_rows: u64) -> u64 {
        self.lanes.unwrap_or_else(|| default_lanes(n_rows, self.global_batch))
    }

    fn check_numbers(&self) -> Result<()> {
        let not_negative = [("--l1", self.l1), ("--l2", self.l2), ("--tolerance", self.tolerance)];
        for (flag, value) in not_negative {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::usage(format!("{flag} {value} is not a number of 0 or more")));
            }
        }
        self.check_step_numbers()?;
        let at_least_1 = [
            ("--max-iterations", self.max_iterations),
            ("--epochs", self.epochs.unwrap_or(1)),
            ("--global-batch", self.global_batch),
        ];
        for (flag, value) in at_least_1 {
            if value == 0 {
                return Err(Error::usage(format!("{flag} 0: at least 1 is needed")));
            }
        }
        if self.folds == 1 {
            return Err(Error::usage("--folds 1 leaves nothing to train on; use 2 or more, or 0 for none"));
        }
        if !(0.0..1.0).contains(&self.valid_fraction) {
            return Err(Error::usage(format!("--valid-fraction {} is not from 0 to below 1", self.valid_fraction)));
        }
        if self.folds > 0 && self.valid_fraction > 0.0 {
            return Err(Error::usage("--folds and --valid-fraction both hold rows out; choose one of them"));
        }
        match self.sync {
            Sync::Every(0) => Err(Error::usage("--sync-every 0: at least 1 step is needed")),
            _ => Ok(()),
        }
    }

    fn settle_calibration(&mut self) -> Result<()> {
        let name = self.kind.name();
        match (self.calibrate, self.calibrate_folds) {
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                return Err(Error::usage("--calibrate-folds is for --calibrate platt or isotonic; give one of them"));
            }
            (Some(_), Some(folds)) if !(2..=1000).contains(&folds) => {
                return Err(Error::usage(format!("--calibrate-folds {folds} is not from 2 to 1000")));
            }
            (Some(_), _) if !self.responds_as().is_classifier() => {
                return Err(Error::usage(format!(
                    "--calibrate makes probabilities of classes, but '{name}' predicts numbers; leave it out"
                )));
            }
            (Some(_), _) if self.folds > 0 => {
                return Err(Error::usage(
                    "--folds would train every calibrated model again; measure it by --valid-fraction or --valid",
                ));
            }
            (Some(_), folds) => self.calibrate_folds = Some(folds.unwrap_or(Calibrate::FOLDS)),
        }
        Ok(())
    }

    fn settle_solver(&self) -> Result<Solver> {
        let solver = match (self.solver, self.kind) {
            (Solver::Auto, kind) if kind.has_trees() => return Ok(Solver::Auto),
            (_, kind) if kind.has_trees() => {
                return Err(Error::usage(format!("--solver is for the linear family; '{}' has none", kind.name())));
            }
            (Solver::Auto, Kind::Linear) if self.l1 > 0.0 => Solver::Cd,
            (Solver::Auto, Kind::Linear) => Solver::Cholesky,
            (Solver::Auto, Kind::Mlp) => Solver::Adamw,
            (Solver::Auto, _) => Solver::Lbfgs,
            (chosen, _) => chosen,
        };
        let known = self.kind.solvers();
        let words = |of: &mut dyn Iterator<Item = &Solver>| of.map(|s| s.name()).collect::<Vec<_>>().join(", ");
        if !known.contains(&solver) {
            return Err(Error::usage(format!(
                "--solver {} does not train '{}'; choose one of {}",
                solver.name(),
                self.kind.name(),
                words(&mut known.iter())
            )));
        }
        if self.l1 > 0.0 && !known.iter().any(|solver| solver.knows_l1()) {
            return Err(Error::usage(format!(
                "--l1 {}: no solver of '{}' can hold parameters at zero; leave --l1 out, or shrink them with --l2 or --weight-decay",
                self.l1,
                self.kind.name()
            )));
        }
        if self.l1 > 0.0 && !solver.knows_l1() {
            return Err(Error::usage(format!(
                "--solver {} cannot hold parameters at zero as --l1 {} asks; choose --solver {}, or leave --l1 out",
                solver.name(),
                self.l1,
                words(&mut known.iter().filter(|s| s.knows_l1())).replace(", ", " or ")
            )));
        }
        Ok(solver)
    }
}

#[cfg(test)]
mod tests;
