//! Settings of neural networks, beside those that all mini-batch trainings have.

use super::BoostLoss;
use crate::data::Image;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is applied to each value between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(0, x).
    #[default]
    Relu,
    /// x·Φ(x), Φ the normal distribution function: Hendrycks, Gimpel, *Gaussian error linear units*, 2016 (arXiv 1606.08415).
    Gelu,
    Tanh,
    /// x/(1 + e^−x): Elfwing, Uchibe, Doya, *Sigmoid-weighted linear units*, Neural Networks 107, 2018.
    Silu,
}

/// What brings values to one scale before they are activated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    #[default]
    None,
    /// Each row by its own mean and deviation.
    Layer,
    /// Each unit by its mean and deviation over the global batch; of a lane that steps alone over its own rows.
    Batch,
}

/// Of the numbers that products of training multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// Weights, activations and slopes are rounded to 16 bits as they enter a product; all sums, and all that lasts, are float32: Kalamkar
    /// et al., *A study of BFLOAT16 for deep learning training*, 2019 (arXiv 1905.12322).
    Bf16,
}

/// Every field can change the answer and is stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlpConfig {
    /// Units of each hidden layer; none: a linear model. Default 128, 128.
    pub layers: Vec<u64>,
    /// Channels of each stage of convolution before them, where rows are images; none by default. With some, all pixels of a channel have one
    /// mean and deviation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conv: Vec<u64>,
    /// Height, width and channels of the images that stages of convolution look at: see [`TrainConfig::for_image`](super::TrainConfig::for_image).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<[u64; 3]>,
    /// Columns that are categories, by name or place; each category is a vector that is learned. None by default: columns of strings become features of
    /// 0 and 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<String>,
    /// Numbers that stand for a category; then columns of strings are categories too. 0, the default: see
    /// [`Embedded::width_of`](crate::model::net::Embedded::width_of).
    #[serde(skip_serializing_if = "is_zero")]
    pub embed: u64,
    pub activation: Activation,
    /// Share of the units of each hidden layer that a step leaves out. Default 0.
    pub dropout: f64,
    pub norm: Norm,
    /// What goes into a hidden layer of as many units is added to what comes out of it; stages of convolution have no such path.
    pub residual: bool,
    pub loss: BoostLoss,
    /// Of `Huber`: how far from the target the loss is squared, in deviations of the target; default 1. Of `Quantile`: the quantile; default 0.5.
    pub alpha: f64,
    /// Of what products of training multiply. Predictions, and the loss of rows that are held out, are float32 always. Default float32.
    #[serde(skip_serializing_if = "is_full")]
    pub precision: Precision,
    /// Of a gradient's element on its way between ranks: 32, 16 or 8. Fewer than 32 are clamped and rounded, and each lane keeps what that loses for
    /// its next gradient. Default 32.
    pub gradient_bits: u64,
    /// Share of a lane's gradient that travels, the largest numbers of each group; the rest stays with the lane, and goes into its next gradient. Above 0,
    /// at most 0.5. Default none: everything travels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<f64>,
    /// Rank of what travels of a weight matrix's gradient, from 1 to 32; the rest stays with the lane, and goes into its next gradient. Default none:
    /// everything travels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub powersgd: Option<u64>,
}

impl Default for MlpConfig {
    fn default() -> MlpConfig {
        MlpConfig {
            layers: vec![128, 128],
            conv: Vec::new(),
            image: None,
            categorical: Vec::new(),
            embed: 0,
            activation: Activation::Relu,
            dropout: 0.0,
            norm: Norm::None,
            residual: false,
            loss: BoostLoss::Auto,
            alpha: 0.0,
            precision: Precision::F32,
            gradient_bits: 32,
            top_k: None,
            powersgd: None,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_full(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// Units of a layer, at most.
const MOST_UNITS: u64 = 1 << 20;

/// Channels of a stage of convolution, at most.
const MOST_CHANNELS: u64 = 1 << 16;

/// Numbers that stand for a category, at most.
const MOST_EMBED: u64 = 1 << 10;

/// Rank of what travels of a matrix, at most: a column each of a panel of weights.
const MOST_RANK: u64 = 32;

impl MlpConfig {
    /// The settings for rows of this shape: stages of convolution learn what they look at. Not collective; the same on every rank.
    ///
    /// # Errors
    /// `Usage`: rows that are no images, or images that are too small for so many stages.
    pub fn for_image(&self, image: Option<Image>) -> Result<MlpConfig> {
        if self.conv.is_empty() {
            return Ok(MlpConfig { image: None, ..self.clone() });
        }
        let Some(image) = image else {
            return Err(Error::usage(
                "--conv: convolution looks at images, but the rows of this table are plain columns; name with --features one dataset of \
                 shape n × height × width, or n × height × width × channels, or leave --conv out",
            ));
        };
        let halved = |n: usize| (0..self.conv.len()).fold(n, |n, _| n / 2);
        let side = image.height.min(image.width);
        if halved(side) == 0 {
            return Err(Error::usage(format!(
                "--conv: each stage halves the images, and {} of them leave nothing of {image}; at most {} fit",
                self.conv.len(),
                side.ilog2()
            )));
        }
        let image = [image.height, image.width, image.channels].map(|axis| axis as u64);
        Ok(MlpConfig { image: Some(image), ..self.clone() })
    }

    /// What the loss makes of `alpha` where nobody chose one.
    pub fn alpha(&self) -> f64 {
        match (self.alpha, self.loss) {
            (0.0, BoostLoss::Quantile) => 0.5,
            (0.0, _) => 1.0,
            (alpha, _) => alpha,
        }
    }

    /// Numbers that come out of the network for a row: one a target, one of two classes, else one a class; of the Gaussian mean and spread.
    pub fn n_outputs(&self, n_classes: usize, n_targets: usize) -> usize {
        match self.loss {
            BoostLoss::Gaussian => 2,
            _ if n_classes > 2 => n_classes,
            _ => n_targets,
        }
    }

    /// Weights between features, stages and hidden layers: nearly all parameters. Not collective.
    pub fn n_weights(&self, n_features: usize) -> u64 {
        self.matrices(n_features).iter().fold(0, |n, [k, m]| n.saturating_add(k.saturating_mul(*m)))
    }

    /// Numbers of products of thin matrices of this rank that stand for these weights, and weights where that would be no fewer. Not collective.
    pub fn n_of_rank(&self, n_features: usize, rank: u64) -> u64 {
        let of_matrix = |[k, m]: &[u64; 2]| {
            let thin = rank.min(*k).min(*m).saturating_mul(k.saturating_add(*m));
            thin.min(k.saturating_mul(*m))
        };
        self.matrices(n_features).iter().fold(0, |n, matrix| n.saturating_add(of_matrix(matrix)))
    }

    /// Inputs and outputs of each of them.
    fn matrices(&self, n_features: usize) -> Vec<[u64; 2]> {
        let mut width = n_features as u64;
        let mut matrices = Vec::new();
        if let Some([height, across, channels]) = self.image.filter(|_| !self.conv.is_empty()) {
            let mut inputs = channels;
            for outputs in &self.conv {
                matrices.push([inputs.saturating_mul(9), *outputs]);
                inputs = *outputs;
            }
            let halved = |side: u64| self.conv.iter().fold(side, |side, _| side / 2);
            width = halved(height).saturating_mul(halved(across)).saturating_mul(inputs);
        }
        for units in &self.layers {
            matrices.push([width, *units]);
            width = *units;
        }
        matrices
    }

    /// Values that dense layers keep of a row as products read them: what goes in and what comes out, in panels. Not collective.
    pub fn n_packed_of_row(&self, n_features: usize) -> u64 {
        let in_panels = |n: u64| n.saturating_add(31) / 32 * 32;
        let matrices = self.matrices(n_features);
        let dense = &matrices[matrices.len() - self.layers.len()..];
        // The last layer's outputs are not known here; they are few.
        let last = dense.last().map_or(n_features as u64, |[_, outputs]| *outputs);
        dense.iter().chain(&[[last, 32]]).fold(0, |n: u64, [inputs, outputs]| {
            n.saturating_add(in_panels(*inputs)).saturating_add(in_panels(*outputs))
        })
    }

    /// Values that all layers make of a row, with the ends of rows that are there for their vectors, about. Not collective.
    pub fn n_values_of_row(&self, n_features: usize) -> u64 {
        let operations = 2 + u64::from(self.norm != Norm::None) + u64::from(self.dropout > 0.0);
        let with_end = |n: u64| {
            let whole = n.saturating_add(15) / 16 * 16;
            whole + if whole.is_multiple_of(256) { 16 } else { 0 }
        };
        let mut n = with_end(n_features as u64);
        if let Some([mut height, mut across, _]) = self.image {
            for channels in &self.conv {
                n = n.saturating_add(
                    height.saturating_mul(across).saturating_mul(channels.saturating_mul(operations + 1)),
                );
                (height, across) = (height / 2, across / 2);
            }
        }
        self.layers.iter().fold(n, |n, units| n.saturating_add(with_end(*units).saturating_mul(operations)))
    }

    /// Whether the loss is of numbers, of which each has a score.
    pub fn takes_several_targets(&self) -> bool {
        !matches!(self.loss, BoostLoss::Logistic | BoostLoss::Gaussian)
    }

    /// The ways of sending less than 32 bits of every element that are asked for, as they are typed; more than one do not go together. Not collective.
    pub fn compressions(&self) -> Vec<String> {
        let bits = (self.gradient_bits != 32).then(|| format!("--gradient-bits {}", self.gradient_bits));
        let top_k = self.top_k.map(|share| format!("--top-k {share}"));
        let rank = self.powersgd.map(|rank| format!("--powersgd {rank}"));
        [bits, top_k, rank].into_iter().flatten().collect()
    }

    /// Not collective; the same on every rank.
    ///
    /// # Errors
    /// `Usage`, naming the flag and what to do.
    pub fn check(&self) -> Result<()> {
        if let Some(units) = self.layers.iter().find(|units| !(1..=MOST_UNITS).contains(*units)) {
            return Err(Error::usage(format!("--layers: {units} units are not from 1 to {MOST_UNITS}")));
        }
        if let Some(channels) = self.conv.iter().find(|channels| !(1..=MOST_CHANNELS).contains(*channels)) {
            return Err(Error::usage(format!("--conv: {channels} channels are not from 1 to {MOST_CHANNELS}")));
        }
        if self.embed > MOST_EMBED {
            return Err(Error::usage(format!("--embed: {} numbers are not from 1 to {MOST_EMBED}", self.embed)));
        }
        if !self.conv.is_empty() && (self.embed > 0 || !self.categorical.is_empty()) {
            return Err(Error::usage(
                "--conv: pixels are no categories; leave out --categorical and --embed, or --conv",
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::usage(format!("--dropout {} is not from 0 to below 1", self.dropout)));
        }
        if ![32, 16, 8].contains(&self.gradient_bits) {
            return Err(Error::usage(format!("--gradient-bits {}: choose 32, 16 or 8", self.gradient_bits)));
        }
        if let Some(share) = self.top_k.filter(|share| !(*share > 0.0 && *share <= 0.5)) {
            return Err(Error::usage(format!(
                "--top-k {share} is not above 0 and at most 0.5; a number that travels with its place takes 8 bytes, so to send more leave it out"
            )));
        }
        if let Some(rank) = self.powersgd.filter(|rank| !(1..=MOST_RANK).contains(rank)) {
            return Err(Error::usage(format!("--powersgd {rank}: give a rank from 1 to {MOST_RANK}")));
        }
        if let [first, second, ..] = &self.compressions()[..] {
            return Err(Error::usage(format!(
                "{first} and {second}: a gradient travels in one of these ways; leave one out"
            )));
        }
        match self.loss {
            BoostLoss::Absolute | BoostLoss::Gamma | BoostLoss::Tweedie => {
                let name = format!("{:?}", self.loss).to_lowercase();
                Err(Error::usage(format!(
                    "--loss {name} is for boost; of networks it is squared, huber, quantile, poisson, gaussian or logistic"
                )))
            }
            BoostLoss::Quantile if !(self.alpha() > 0.0 && self.alpha() < 1.0) => {
                Err(Error::usage(format!("--alpha {}: a quantile is above 0 and below 1", self.alpha)))
            }
            _ if !(self.alpha >= 0.0 && self.alpha.is_finite()) => {
                Err(Error::usage(format!("--alpha {} is not a number above 0", self.alpha)))
            }
            _ => Ok(()),
        }
    }
}
