//! # model — inert values that predict
//!
//! In:    raw [`Block`](crate::data::Block)s of rows, or standardised rows.
//! Out:   scores; gradients and curvature of rows, added to a caller's buffer.
//! Talks: never.
//! Never: ranks, files, solvers: a model does not train itself.

pub mod ahead;
pub mod calibrated;
pub mod ensemble;
pub mod features;
pub mod forest;
pub mod kernels;
pub mod linear;
pub mod lockstep;
pub mod net;
pub mod preprocess;
pub mod shap;
pub mod tree;

pub use calibrated::{Calibrated, CalibrationMap};
pub use ensemble::{Combine, Ensemble, Member};
pub use features::{Features, Row};
pub use forest::Forest;
pub use linear::LinearModel;
pub use lockstep::Lockstep;
pub use net::Network;
pub use preprocess::{ColumnCode, Preprocess, TargetCoding};
pub use tree::{Boosted, Tree};

use crate::config::{Kind, TrainConfig};
use crate::data::names::TableNames;
use net::Unit;

/// What makes scores of features.
#[derive(Clone, Debug, PartialEq)]
pub enum Scores {
    /// Of standardised features.
    Linear(LinearModel),
    /// Likewise.
    Mlp(Network),
    /// Of features as stored.
    Boosted(Boosted),
    /// Likewise; its scores are predictions.
    Forest(Forest),
    /// Of what other models predict.
    Ensemble(Box<Ensemble>),
    /// Of a classifier, made probabilities, which are predictions.
    Calibrated(Box<Calibrated>),
}

impl Scores {
    /// Scores of a row: 1, or the number of classes.
    pub fn n_scores(&self) -> usize {
        match self {
            Scores::Linear(linear) => linear.n_scores,
            Scores::Mlp(network) => network.n_scores(),
            Scores::Boosted(boosted) => boosted.n_scores(),
            Scores::Forest(forest) => forest.n_scores,
            Scores::Ensemble(ensemble) => ensemble.n_scores,
            Scores::Calibrated(of) => of.model.scores.n_scores(),
        }
    }

    /// Whether they are what is predicted, rather than what an inverse link makes it from.
    pub fn are_predictions(&self) -> bool {
        match self {
            Scores::Linear(_) | Scores::Mlp(_) | Scores::Boosted(_) => false,
            Scores::Forest(_) | Scores::Ensemble(_) | Scores::Calibrated(_) => true,
        }
    }

    /// Whether each row has a variance beside its score.
    pub fn has_variance(&self) -> bool {
        matches!(self, Scores::Mlp(network) if network.has_variance)
    }

    /// What the loss of training is measured in, of each target.
    pub fn units(&self) -> &[Unit] {
        match self {
            Scores::Mlp(network) => &network.units,
            _ => &[Unit { scale: 1.0, origin: 0.0 }],
        }
    }

    /// Whether it matters where in an image a feature is.
    pub fn look_at_images(&self) -> bool {
        match self {
            Scores::Mlp(network) => network.layers().iter().any(|layer| matches!(layer, net::Layer::Convolution(_))),
            Scores::Ensemble(ensemble) => ensemble.members.iter().any(|member| member.model.scores.look_at_images()),
            Scores::Calibrated(of) => of.model.scores.look_at_images(),
            Scores::Linear(_) | Scores::Boosted(_) | Scores::Forest(_) => false,
        }
    }

    /// Features of a row.
    pub fn n_features(&self) -> usize {
        match self {
            Scores::Linear(linear) => linear.n_features,
            Scores::Mlp(network) => network.n_features,
            Scores::Boosted(boosted) => boosted.n_features,
            Scores::Forest(forest) => forest.n_features,
            Scores::Ensemble(ensemble) => ensemble.n_features,
            Scores::Calibrated(of) => of.model.scores.n_features(),
        }
    }

    /// Trees, of a model that has some.
    pub fn n_trees(&self) -> usize {
        match self {
            Scores::Linear(_) | Scores::Mlp(_) | Scores::Ensemble(_) => 0,
            Scores::Boosted(boosted) => boosted.trees.len(),
            Scores::Forest(forest) => forest.trees.len(),
            Scores::Calibrated(of) => of.model.scores.n_trees(),
        }
    }

    /// The coefficients, of a linear model.
    pub fn linear(&self) -> Option<&LinearModel> {
        match self {
            Scores::Linear(linear) => Some(linear),
            Scores::Mlp(_) | Scores::Boosted(_) | Scores::Forest(_) | Scores::Ensemble(_) => None,
            Scores::Calibrated(of) => of.model.scores.linear(),
        }
    }

    /// What was calibrated; else itself.
    pub fn uncalibrated(&self) -> &Scores {
        match self {
            Scores::Calibrated(of) => of.model.scores.uncalibrated(),
            _ => self,
        }
    }
}

/// A trained model with everything needed to predict; the same bits on every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub config: TrainConfig,
    /// As resolved (relative to the group), so that other files are read alike.
    pub names: TableNames,
    pub preprocess: Preprocess,
    pub target: TargetCoding,
    pub scores: Scores,
    /// Boosted trees that began as another model; None too where it was as if trained at once.
    pub continued: Option<Continued>,
    /// Per iteration or epoch: (name, values); names `loss`, `gradient`.
    pub history: Vec<(String, Vec<f64>)>,
    /// BLAKE3 of parameters, settings and input values, as 64 hex digits.
    pub digest: String,
    /// Of the inputs alone, 64 hex digits.
    pub input_digest: String,
    pub n_rows: u64,
}

/// What boosted trees were continued from.
#[derive(Clone, Debug, PartialEq)]
pub struct Continued {
    /// Rounds that were there.
    pub rounds: usize,
    /// Digest of the model they came from.
    pub digest: String,
}

impl Model {
    /// The kind of the linear family with the same targets and predictions; of an ensemble by whether it has classes.
    pub fn responds_as(&self) -> Kind {
        match &self.scores {
            Scores::Calibrated(_) => Kind::Logistic,
            Scores::Ensemble(_) if self.target.n_classes() > 0 => Kind::Logistic,
            Scores::Ensemble(_) => Kind::Linear,
            _ => self.config.responds_as(),
        }
    }

    /// The model that this one was continued from, with the settings that it was continued with, whose rounds are those that were added.
    /// Its own settings, rows and inputs are not known any more.
    pub fn before(&self) -> Option<(Model, TrainConfig)> {
        let (Some(from), Scores::Boosted(boosted)) = (&self.continued, &self.scores) else { return None };
        let mut config = self.config.clone();
        let rounds = from.rounds.min(boosted.n_rounds());
        config.boost.iter_mut().for_each(|boost| boost.rounds = boost.rounds.saturating_sub(rounds as u64));
        let trees = boosted.trees[..rounds * boosted.n_scores()].to_vec();
        let model = Model {
            scores: Scores::Boosted(Boosted { trees, ..boosted.clone() }),
            continued: None,
            digest: from.digest.clone(),
            input_digest: String::new(),
            n_rows: 0,
            ..self.clone()
        };
        Some((model, config))
    }
}
