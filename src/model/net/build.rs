//! Networks from settings, and what their parameters begin with.

use super::{
    Activate, BatchNorm, Convolution, Dense, Dropout, Embedded, Embedding, Init, Layer, LayerNorm, Network, Pooling,
};
use crate::config::{Activation, BoostLoss, MlpConfig, Norm};
use crate::matmul::Panels;
use crate::rng::{Draws, Stream};
use rayon::prelude::*;

/// Hidden layers as the settings say, then one that gives `n_outputs`. Not collective.
///
/// Stages of convolution come first, if any are wanted and rows are images; or else, if there are columns of categories, their embedding.
///
/// A hidden layer is dense → norm → activation → dropout, around which a residual path goes where as many values come out as went in
/// (He, Zhang, Ren, Sun, *Deep residual learning*, CVPR 2016).
///
/// `categories`: features that are places of categories, with how many there are, as
/// [`category_features`](crate::model::Preprocess::category_features) has them.
pub fn build_for(config: &MlpConfig, n_features: usize, categories: &[(usize, usize)], n_outputs: usize) -> Network {
    let mut layers = Vec::new();
    let mut width = match config.image {
        Some(image) if !config.conv.is_empty() => convolutions(config, image.map(|axis| axis as usize), &mut layers),
        _ => embedding(config, n_features, categories, &mut layers),
    };
    for &units in &config.layers {
        let (from, outputs) = (layers.len(), units as usize);
        let gain = gain(config.activation, width, outputs);
        layers.push(Layer::Dense(Dense { inputs: width, outputs, gain }));
        match config.norm {
            Norm::None => {}
            Norm::Layer => layers.push(Layer::LayerNorm(LayerNorm { width: outputs })),
            Norm::Batch => layers.push(Layer::BatchNorm(BatchNorm { channels: outputs, places: 1 })),
        }
        layers.push(Layer::Activate(Activate { width: outputs, by: config.activation }));
        if config.dropout > 0.0 {
            layers.push(Layer::Dropout(Dropout { width: outputs, rate: config.dropout }));
        }
        if config.residual && outputs == width {
            layers.push(Layer::Skip { from, width });
        }
        width = outputs;
    }
    layers.push(Layer::Dense(Dense { inputs: width, outputs: n_outputs, gain: glorot(width, n_outputs) }));
    let mut network = Network::new(n_features, layers);
    network.has_variance = config.loss == BoostLoss::Gaussian;
    network.precision = config.precision;
    network
}

/// The same of features that are all numbers. Not collective.
pub fn build(config: &MlpConfig, n_features: usize, n_outputs: usize) -> Network {
    build_for(config, n_features, &[], n_outputs)
}

/// A vector for each category, if there are any. Gives the values that come out.
fn embedding(config: &MlpConfig, n_features: usize, categories: &[(usize, usize)], layers: &mut Vec<Layer>) -> usize {
    let column = |&(feature, n_categories): &(usize, usize)| {
        let width = if config.embed > 0 { config.embed as usize } else { Embedded::width_of(n_categories) };
        Embedded { feature, n_categories, width }
    };
    // A column that is missing everywhere passes: there is nothing to learn of it.
    let columns: Vec<Embedded> = categories.iter().filter(|(_, n)| *n > 0).map(column).collect();
    if columns.is_empty() {
        return n_features;
    }
    let layer = Layer::Embedding(Embedding::new(n_features, columns));
    let width = layer.width();
    layers.push(layer);
    width
}

/// A stage for each number of channels: convolution → norm → activation → pooling → dropout. Gives the values that come out.
fn convolutions(
    config: &MlpConfig,
    [mut height, mut width, mut channels]: [usize; 3],
    layers: &mut Vec<Layer>,
) -> usize {
    for &outputs in &config.conv {
        let outputs = outputs as usize;
        let gain = gain(config.activation, 9 * channels, 9 * outputs);
        layers.push(Layer::Convolution(Convolution::new([height, width, channels], outputs, gain)));
        match config.norm {
            Norm::None => {}
            Norm::Layer => layers.push(Layer::LayerNorm(LayerNorm { width: height * width * outputs })),
            Norm::Batch => layers.push(Layer::BatchNorm(BatchNorm { channels: outputs, places: height * width })),
        }
        let pooling = Pooling { height, width, channels: outputs };
        (height, width, channels) = (height / 2, width / 2, outputs);
        match config.activation {
            // What never falls may as well be applied to the largest alone.
            by @ (Activation::Relu | Activation::Tanh) => {
                layers.push(Layer::Pooling(pooling));
                layers.push(Layer::Activate(Activate { width: height * width * channels, by }));
            }
            by @ (Activation::Gelu | Activation::Silu) => {
                layers.push(Layer::Activate(Activate { width: pooling.height * pooling.width * channels, by }));
                layers.push(Layer::Pooling(pooling));
            }
        }
        if config.dropout > 0.0 {
            layers.push(Layer::Dropout(Dropout { width: height * width * channels, rate: config.dropout }));
        }
    }
    height * width * channels
}

/// Deviation of starting weights, times √inputs.
fn gain(activation: Activation, inputs: usize, outputs: usize) -> f64 {
    match activation {
        // He, Zhang, Ren, Sun, *Delving deep into rectifiers*, ICCV 2015.
        Activation::Relu | Activation::Gelu | Activation::Silu => 2f64.sqrt(),
        Activation::Tanh => glorot(inputs, outputs),
    }
}

/// Variance 2/(inputs + outputs): Glorot, Bengio, *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010.
fn glorot(inputs: usize, outputs: usize) -> f64 {
    (2.0 * inputs as f64 / (inputs + outputs).max(1) as f64).sqrt()
}

impl Network {
    /// Starting parameters of a seed. Not collective; a function of the seed and the shape of the network.
    pub fn start(&mut self, seed: u64) {
        let draws = Draws::new(seed, Stream::Init);
        for (number, (_, spec, range)) in self.tensors().into_iter().enumerate() {
            let values: Vec<f32> = match spec.init {
                Init::Constant(value) => vec![value; range.len()],
                Init::Normal(deviation) => {
                    let draw = |at: usize| (deviation * draws.normal(at as u64, number as u64)) as f32;
                    (0..range.len()).into_par_iter().map(draw).collect()
                }
            };
            self.set_tensor(number, &values);
        }
    }

    /// What is added last to each score begins with these. Not collective.
    pub fn set_last_bias(&mut self, scores: &[f64]) {
        let last = self.params.len() - scores.len();
        for (at, score) in scores.iter().enumerate() {
            self.params[last + at] = self.unit(at).target(*score) as f32;
        }
    }

    /// All that training changes, as a fit holds it: parameters, then the running moments of batch norms. Not collective.
    pub fn numbers(&self) -> Vec<f64> {
        self.params.iter().chain(&self.running).map(|number| f64::from(*number)).collect()
    }

    /// Takes up [`numbers`](Self::numbers). Not collective.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn set_numbers(&mut self, numbers: &[f64]) {
        let n = self.params.len();
        assert_eq!(numbers.len(), n + self.running.len(), "one number a parameter and running moment");
        let (params, running) = numbers.split_at(n);
        self.params.iter_mut().zip(params).for_each(|(param, number)| *param = *number as f32);
        self.running.iter_mut().zip(running).for_each(|(running, number)| *running = *number as f32);
    }

    /// Values of a tensor, row-major. Not collective.
    pub fn tensor(&self, number: usize) -> Vec<f32> {
        let (_, spec, range) = self.tensors().swap_remove(number);
        let mut values = self.params[range].to_vec();
        if let Some(panels) = panels_of(&spec.shape) {
            let packed = values.clone();
            panels.unpack(&packed, &mut values);
        }
        values
    }

    /// Sets a tensor to values given row-major. Not collective.
    ///
    /// # Panics
    /// If their number is another.
    pub fn set_tensor(&mut self, number: usize, values: &[f32]) {
        let (_, spec, range) = self.tensors().swap_remove(number);
        match panels_of(&spec.shape) {
            Some(panels) => panels.pack(values, &mut self.params[range]),
            None => self.params[range].copy_from_slice(values),
        }
    }
}

/// How a tensor of these axes lies in memory, if not as it is written: all axes but the last are the inner index.
fn panels_of(shape: &[usize]) -> Option<Panels> {
    match shape {
        [] | [_] => None,
        [inner @ .., n] => Some(Panels::new(inner.iter().product(), *n)),
    }
}
