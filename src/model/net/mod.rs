//! Neural networks: layers one after the other, with paths around some of them.
//!
//! Rows go through by themselves ([`Operation`]), so they may be cut into [`Strip`]s of any length, and a row is predicted with the bits that
//! it is trained with. Sums over rows (gradients, moments of batch norm) are asked for part by part of the parameters.
//!
//! | file | what it has |
//! |---|---|
//! | `build.rs` | layers from settings, starting parameters |
//! | `operation.rs` | what every kind of layer does |
//! | `embedding.rs`, `dense.rs`, `convolution.rs`, `pooling.rs`, `activation.rs`, `dropout.rs`, `norm.rs`, `batch_norm.rs` | the kinds |
//! | `strip.rs` | rows on their way |
//! | `turned.rs` | what products want of the parameters, once a step |

mod activation;
mod batch_norm;
mod build;
mod convolution;
mod dense;
mod dropout;
mod embedding;
mod norm;
pub mod operation;
mod pooling;
mod predict;
mod strip;
mod turned;

pub use activation::Activate;
pub use batch_norm::{BatchMoments, BatchNorm};
pub use build::{build, build_for};
pub use convolution::Convolution;
pub use dense::Dense;
pub use dropout::Dropout;
pub use embedding::{Embedded, Embedding};
pub use norm::LayerNorm;
pub use operation::{Init, Operation, Part, Pass, Seen, TensorSpec, Training};
pub use pooling::Pooling;
pub use strip::Strip;
pub use turned::Turned;

use crate::config::Precision;
use crate::matmul::{Aligned, zeros};
use std::ops::Range;
use strip::Added;

/// One layer, without its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    Embedding(Embedding),
    Dense(Dense),
    Convolution(Convolution),
    Pooling(Pooling),
    Activate(Activate),
    Dropout(Dropout),
    LayerNorm(LayerNorm),
    BatchNorm(BatchNorm),
    /// What goes into the layer of this number, an earlier one, is added.
    Skip {
        from: usize,
        width: usize,
    },
}

/// Layers and their parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub n_features: usize,
    layers: Vec<Layer>,
    /// Where the parameters of each layer are.
    places: Vec<Range<usize>>,
    /// Tensor after tensor, layer after layer; matrices as [`Panels`](crate::matmul::Panels).
    pub params: Aligned,
    /// Running moments of batch norms, layer after layer.
    pub running: Vec<f32>,
    /// Where those of each layer are.
    running_places: Vec<Range<usize>>,
    /// One a target; classes have one.
    pub units: Vec<Unit>,
    /// Two numbers come out, of which the first is the score and the second says how far targets are from it: see
    /// [`Gaussian`](crate::objective::Gaussian).
    pub has_variance: bool,
    /// Of what products multiply in training; all else is float32, and so are predictions.
    pub precision: Precision,
}

/// From what comes out to a score: times `scale`, plus `origin`. Of classes 1 and 0; of numbers the deviation and mean of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    pub scale: f64,
    pub origin: f64,
}

impl Default for Unit {
    fn default() -> Unit {
        Unit { scale: 1.0, origin: 0.0 }
    }
}

impl Unit {
    /// A target in the unit of the loss of training.
    pub fn target(self, y: f64) -> f64 {
        (y - self.origin) / self.scale
    }
}

impl Layer {
    fn operation(&self) -> Option<&dyn Operation> {
        match self {
            Layer::Embedding(layer) => Some(layer),
            Layer::Dense(layer) => Some(layer),
            Layer::Convolution(layer) => Some(layer),
            Layer::Pooling(layer) => Some(layer),
            Layer::Activate(layer) => Some(layer),
            Layer::Dropout(layer) => Some(layer),
            Layer::LayerNorm(layer) => Some(layer),
            Layer::BatchNorm(layer) => Some(layer),
            Layer::Skip { .. } => None,
        }
    }

    /// Values of a row that comes out.
    pub fn width(&self) -> usize {
        match self {
            Layer::Skip { width, .. } => *width,
            layer => layer.operation().map_or(0, Operation::width),
        }
    }

    /// Itself, if rows have to wait in front of it for the moments of the batch.
    pub fn batch_norm(&self) -> Option<&BatchNorm> {
        match self {
            Layer::BatchNorm(norm) => Some(norm),
            _ => None,
        }
    }

    /// Parameters, the first ones, that rows are multiplied by.
    fn n_weights(&self) -> usize {
        self.operation().map_or(0, Operation::n_weights)
    }

    /// Numbers that a pass keeps for each row.
    fn kept(&self) -> usize {
        self.operation().map_or(0, Operation::kept)
    }

    /// The same without what a dense layer packs for gradients, which passes by once.
    fn kept_of_values(&self) -> usize {
        if let Layer::Dense(_) = self { 0 } else { self.kept() }
    }

    fn n_params(&self) -> usize {
        self.operation().map_or(0, |layer| layer.tensors().iter().map(TensorSpec::len).sum())
    }
}

/// Where runs of these lengths are that lie one after the other.
fn places_of(lens: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut end = 0;
    let after = |len| {
        let start = end;
        end += len;
        start..end
    };
    lens.map(after).collect()
}

impl Network {
    /// With parameters 0; [`start`](Self::start) gives others. Not collective.
    pub fn new(n_features: usize, layers: Vec<Layer>) -> Network {
        let places = places_of(layers.iter().map(Layer::n_params));
        let norms = |layer: &Layer| layer.batch_norm().map_or(0, BatchNorm::n_running);
        let running_places = places_of(layers.iter().map(norms));
        let [n_params, n_running] = [&places, &running_places].map(|places| places.last().map_or(0, |last| last.end));
        let (params, mut running) = (zeros(n_params), vec![0.0; n_running]);
        for (layer, place) in layers.iter().zip(&running_places) {
            layer.batch_norm().into_iter().for_each(|norm| norm.start(&mut running[place.clone()]));
        }
        let (units, has_variance, precision) = (vec![Unit::default()], false, Precision::F32);
        Network { n_features, layers, places, params, running, running_places, units, has_variance, precision }
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether products of training multiply numbers of 16 bits.
    fn is_narrow(&self) -> bool {
        self.precision == Precision::Bf16
    }

    /// Scores of a row.
    pub fn n_scores(&self) -> usize {
        if self.has_variance { 1 } else { self.n_outputs() }
    }

    /// Of a score.
    pub fn unit(&self, score: usize) -> Unit {
        if let [one] = self.units[..] { one } else { self.units[score] }
    }

    /// Numbers that come out of the last layer for a row.
    pub fn n_outputs(&self) -> usize {
        self.layers.last().map_or(self.n_features, Layer::width)
    }

    /// The parameters of a layer, among all.
    pub fn place(&self, layer: usize) -> Range<usize> {
        self.places[layer].clone()
    }

    /// The running moments of a layer, among all: mean, then variance, of each channel of a batch norm; of others nothing.
    pub fn running_place(&self, layer: usize) -> Range<usize> {
        self.running_places[layer].clone()
    }

    /// Moments for a pass through a layer: those of the batch in training, else the running ones.
    fn moments<'a>(&'a self, layer: usize, training: Option<Training>, of_batch: &'a [Vec<f32>]) -> &'a [f32] {
        match training {
            None => &self.running[self.running_place(layer)],
            Some(_) => of_batch.get(layer).map_or(&[], |moments| moments),
        }
    }

    /// Tensors of all layers: the layer's number, what it is, and its place among the parameters.
    pub fn tensors(&self) -> Vec<(usize, TensorSpec, Range<usize>)> {
        let mut all = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let mut at = self.places[number].start;
            for spec in layer.operation().map(Operation::tensors).unwrap_or_default() {
                let range = at..at + spec.len();
                at = range.end;
                all.push((number, spec, range));
            }
        }
        all
    }

    /// Parts of a layer's parameters whose gradients are made one by one; ranges among all parameters.
    pub fn parts(&self, layer: usize) -> Vec<Part> {
        let start = self.places[layer].start;
        let shifted = |part: Part| Part { range: part.range.start + start..part.range.end + start, ..part };
        self.layers[layer].operation().map(Operation::parts).unwrap_or_default().into_iter().map(shifted).collect()
    }

    /// Values of a row that goes into each layer, and last of what comes out.
    fn widths(&self) -> Vec<usize> {
        std::iter::once(self.n_features).chain(self.layers.iter().map(Layer::width)).collect()
    }

    /// Room for rows. `is_trained`: also for the way back.
    pub fn strip(&self, capacity: usize, is_trained: bool) -> Strip {
        let kept: Vec<usize> =
            self.layers.iter().map(|layer| if is_trained { layer.kept() } else { layer.kept_of_values() }).collect();
        let is_rounded: Vec<bool> =
            self.layers.iter().map(|layer| is_trained && self.is_narrow() && layer.n_weights() > 0).collect();
        Strip::new(&self.widths(), &kept, &is_rounded, capacity, is_trained)
    }

    /// Values of a row in all buffers of a [`strip`](Self::strip).
    pub fn values_of_row(&self) -> usize {
        let is_rounded = |layer: &Layer| self.is_narrow() && layer.n_weights() > 0;
        let widths = self.widths();
        let rounded = self.layers.iter().zip(&widths).filter(|(layer, _)| is_rounded(layer)).map(|(_, width)| width);
        widths.iter().chain(rounded).sum::<usize>() + self.layers.iter().map(Layer::kept_of_values).sum::<usize>()
    }

    /// Rows of a strip through some layers. Not collective; does not allocate once threads have their room.
    ///
    /// `turned`: of these parameters; nothing where the strip has no way back.
    pub fn forward(
        &self,
        layers: Range<usize>,
        training: Option<Training>,
        moments: &[Vec<f32>],
        turned: &Turned,
        strip: &mut Strip,
    ) {
        for number in layers {
            match &self.layers[number] {
                Layer::Skip { from, .. } => {
                    let (input, output, _) = strip.across(number);
                    output.all.copy_from_slice(input.all);
                    strip.add(Added::Values, *from, number + 1);
                }
                layer => {
                    let Some(operation) = layer.operation() else { continue };
                    let (rows, weights) = (std::mem::take(&mut strip.rows), std::mem::take(&mut strip.weights));
                    let (moments, n) = (self.moments(number, training, moments), strip.n_rows);
                    let params = &self.params[self.place(number)];
                    let factors = turned.forward(number, params, operation.n_weights());
                    let (rows_of, weights_of) = (&rows[..n], &weights[..n]);
                    let pass = Pass { training, rows: rows_of, weights: weights_of, layer: number, moments, factors };
                    let (input, output, kept) = strip.across(number);
                    operation.forward(&pass, params, input, output, kept);
                    (strip.rows, strip.weights) = (rows, weights);
                }
            }
        }
    }

    /// ∂loss/∂ of what goes into these layers, the last one first; nothing of what goes into the network. Not collective; does not allocate once threads have their room.
    pub fn backward(
        &self,
        layers: Range<usize>,
        training: Option<Training>,
        moments: &[Vec<f32>],
        turned: &Turned,
        strip: &mut Strip,
    ) {
        if layers.end == self.layers.len() {
            self.keep_slopes(layers.end, strip);
        }
        for number in layers.rev().filter(|number| *number > 0) {
            match &self.layers[number] {
                Layer::Skip { .. } => {
                    let (_, _, _, d_output, d_input) = strip.back(number);
                    d_input.all.copy_from_slice(d_output.all);
                }
                layer => {
                    let Some(operation) = layer.operation() else { continue };
                    let (rows, weights) = (std::mem::take(&mut strip.rows), std::mem::take(&mut strip.weights));
                    let (moments, n) = (self.moments(number, training, moments), strip.n_rows);
                    let factors = turned.backward(number);
                    let (rows_of, weights_of) = (&rows[..n], &weights[..n]);
                    let pass = Pass { training, rows: rows_of, weights: weights_of, layer: number, moments, factors };
                    let (input, output, kept, d_output, d_input) = strip.back(number);
                    let params = &self.params[self.place(number)];
                    operation.backward(&pass, params, input, output, kept, d_output, d_input);
                    (strip.rows, strip.weights) = (rows, weights);
                }
            }
            for (skip, layer) in self.layers.iter().enumerate() {
                if matches!(layer, Layer::Skip { from, .. } if *from == number) {
                    strip.add(Added::Slopes, skip + 1, number);
                }
            }
            self.keep_slopes(number, strip);
        }
    }

    /// Slopes of what goes into a layer are there: nothing is added to them any more.
    fn keep_slopes(&self, number: usize, strip: &mut Strip) {
        let Some(before) = number.checked_sub(1) else { return };
        strip.round_slopes(number);
        if let Some(operation) = self.layers[before].operation() {
            let n_rows = strip.n_rows;
            let (_, _, kept, d_output, _) = strip.back(before);
            operation.keep_slopes(n_rows, d_output, kept);
        }
    }

    /// The gradient of a part: what the rows of these strips give, in order. Not collective; does not allocate once threads have their room.
    pub fn gradient<'s>(
        &self,
        layer: usize,
        part: &Part,
        moments: &[Vec<f32>],
        strips: impl Iterator<Item = &'s Strip>,
        gradient: &mut [f32],
    ) {
        let start = self.places[layer].start;
        let own = Part { range: part.range.start - start..part.range.end - start, ..part.clone() };
        let moments = moments.get(layer).map_or(&[][..], |moments| moments);
        gradient.fill(0.0);
        let Some(operation) = self.layers[layer].operation() else { return };
        for strip in strips {
            let (kept, d_output) = (&strip.kept[layer], strip.slopes(layer + 1));
            let seen = Seen { n_rows: strip.n_rows, input: strip.input(layer), kept, d_output, moments };
            operation.add_gradient(&own, &seen, gradient);
        }
    }
}

#[cfg(test)]
mod tests;
