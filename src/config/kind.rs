//! What is trained, and by which solver: the words for them, and what goes with what.

use serde::{Deserialize, Serialize};

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Linear,
    Logistic,
    Svm,
    Poisson,
    Boost,
    Forest,
    Mlp,
    Bag,
    Adaboost,
    Vote,
    Stack,
}

/// How it is trained. `Auto` is resolved by the config's check, before training, and never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    #[default]
    Auto,
    /// Exact normal equations and Cholesky; falls back to `Qr` when they are ill-conditioned (linear only).
    Cholesky,
    /// Tall-skinny QR over blocks (linear only).
    Qr,
    /// Coordinate descent on the exact Gram matrix: lasso and elastic net (linear only).
    Cd,
    Newton,
    /// With `l1` > 0: OWL-QN.
    Lbfgs,
    Sgd,
    Adam,
    Adamw,
    Lamb,
    Lars,
    Adagrad,
}

impl Kind {
    /// The word typed after `train`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Linear => "linear",
            Kind::Logistic => "logistic",
            Kind::Svm => "svm",
            Kind::Poisson => "poisson",
            Kind::Boost => "boost",
            Kind::Forest => "forest",
            Kind::Mlp => "mlp",
            Kind::Bag => "bag",
            Kind::Adaboost => "adaboost",
            Kind::Vote => "vote",
            Kind::Stack => "stack",
        }
    }

    /// Whether it is of trees, which want neither standardised features nor a solver.
    pub fn has_trees(self) -> bool {
        matches!(self, Kind::Boost | Kind::Forest)
    }

    /// Whether it is made of models that any trainer makes.
    pub fn is_ensemble(self) -> bool {
        matches!(self, Kind::Bag | Kind::Adaboost | Kind::Vote | Kind::Stack)
    }

    /// Whether targets are classes.
    pub fn is_classifier(self) -> bool {
        matches!(self, Kind::Logistic | Kind::Svm)
    }

    /// Solvers that can train it.
    pub fn solvers(self) -> &'static [Solver] {
        match self {
            Kind::Boost | Kind::Forest | Kind::Bag | Kind::Adaboost | Kind::Vote | Kind::Stack => &[],
            Kind::Linear => &[
                Solver::Cholesky,
                Solver::Qr,
                Solver::Cd,
                Solver::Lbfgs,
                Solver::Sgd,
                Solver::Adam,
                Solver::Adamw,
                Solver::Lamb,
                Solver::Lars,
                Solver::Adagrad,
            ],
            Kind::Mlp => &[Solver::Sgd, Solver::Adam, Solver::Adamw, Solver::Lamb, Solver::Lars, Solver::Adagrad],
            _ => &[
                Solver::Lbfgs,
                Solver::Newton,
                Solver::Sgd,
                Solver::Adam,
                Solver::Adamw,
                Solver::Lamb,
                Solver::Lars,
                Solver::Adagrad,
            ],
        }
    }
}

impl Solver {
    /// The word of `--solver`.
    pub fn name(self) -> &'static str {
        match self {
            Solver::Auto => "auto",
            Solver::Cholesky => "cholesky",
            Solver::Qr => "qr",
            Solver::Cd => "cd",
            Solver::Newton => "newton",
            Solver::Lbfgs => "lbfgs",
            Solver::Sgd => "sgd",
            Solver::Adam => "adam",
            Solver::Adamw => "adamw",
            Solver::Lamb => "lamb",
            Solver::Lars => "lars",
            Solver::Adagrad => "adagrad",
        }
    }

    /// Whether it takes steps on mini-batches of lanes rather than on all rows.
    pub fn is_mini_batch(self) -> bool {
        matches!(self, Solver::Sgd | Solver::Adam | Solver::Adamw | Solver::Lamb | Solver::Lars | Solver::Adagrad)
    }

    /// Whether it solves one system instead of improving step by step.
    pub fn is_direct(self) -> bool {
        matches!(self, Solver::Cholesky | Solver::Qr)
    }

    /// Whether it can hold parameters at exactly 0 (`--l1`).
    pub(super) fn knows_l1(self) -> bool {
        matches!(self, Solver::Cd | Solver::Lbfgs)
    }
}
