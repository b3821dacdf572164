//! What every kind of layer does with some rows.

use crate::matmul::Weights;
use crate::rng::{Draws, FastDraws, Stream};
use half::bf16;
use std::ops::Range;

/// Values of some rows, row after row with gaps.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    pub all: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
    /// Values of a row.
    pub width: usize,
}

impl<'a> Values<'a> {
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.all[row * self.stride..][..self.width]
    }
}

/// The same, to be written.
pub struct ValuesMut<'a> {
    pub all: &'a mut [f32],
    pub stride: usize,
    pub width: usize,
}

impl ValuesMut<'_> {
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.all[row * self.stride..][..self.width]
    }
}

/// From one row of so many values to the next: whole vectors, and not a multiple of what would send the rows to the same places of a cache.
pub const fn stride_of(width: usize) -> usize {
    let whole = width.next_multiple_of(16);
    if whole.is_multiple_of(256) { whole + 16 } else { whole }
}

/// A run of the parameters of a layer whose gradient is made at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of the layer's own parameters.
    pub range: Range<usize>,
    /// Which of the layer's tensors, and where in it, as the layer has it.
    pub tensor: usize,
    pub at: [usize; 2],
}

/// How a tensor begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal, of this deviation.
    Normal(f64),
    Constant(f32),
}

/// One tensor of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: &'static str,
    /// As it is stored for people, row-major; a matrix lies in memory as [`Panels`](crate::matmul::Panels).
    pub shape: Vec<usize>,
    /// Does not decay.
    pub is_free: bool,
    pub init: Init,
}

impl TensorSpec {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is known of the step that rows go through.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// None: prediction, where nothing is dropped.
    pub training: Option<Training>,
    /// Global number of each row.
    pub rows: &'a [u64],
    /// Of each row.
    pub weights: &'a [f64],
    /// The layer's number.
    pub layer: usize,
    /// Of [`BatchNorm`](super::BatchNorm): those of the batch, or in predictions the running ones.
    pub moments: &'a [f32],
    /// What rows are multiplied by: the first [`n_weights`](Operation::n_weights) parameters, or on the way back as many, turned. If these are
    /// rounded to 16 bits, so are the values that go in, and the slopes that come back.
    pub factors: Weights<'a>,
}

/// Keys of what is drawn in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training {
    pub seed: u64,
    pub step: u64,
}

impl Training {
    /// Draws of a layer in this step.
    pub fn draws(self, layer: usize) -> FastDraws {
        FastDraws::new(Draws::new(self.seed, Stream::Dropout), self.step * 4096 + layer as u64)
    }
}

/// The rows of one lane that lie in one strip, as a layer sees them when its gradient is made.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub n_rows: usize,
    pub input: Values<'a>,
    pub kept: &'a [f32],
    /// ∂loss/∂output.
    pub d_output: Values<'a>,
    pub moments: &'a [f32],
}

/// One layer, without its parameters. Not one of these talks, and none lets a row see another.
pub trait Operation: Send + Sync {
    /// Values of a row that goes out.
    fn width(&self) -> usize;

    /// The layer's parameters, one tensor after the other.
    fn tensors(&self) -> Vec<TensorSpec> {
        Vec::new()
    }

    /// Numbers for each row that a pass keeps for later, padding included.
    fn kept(&self) -> usize {
        0
    }

    /// Parameters, the first ones, that rows are multiplied by.
    fn n_weights(&self) -> usize {
        0
    }

    /// Pieces of what is turned that may be worked out at once: ranges that make up [`n_weights`](Self::n_weights).
    fn turned_parts(&self) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// Works out one of them, once a step.
    fn turn(&self, _params: &[f32], _part: usize, _turned: &mut [f32]) {}

    /// The same of weights that are rounded.
    fn turn_narrow(&self, _weights: &[bf16], _part: usize, _turned: &mut [bf16]) {}

    /// `n_rows` rows of output.
    fn forward(&self, pass: &Pass<'_>, params: &[f32], input: Values<'_>, output: ValuesMut<'_>, kept: &mut [f32]);

    /// ∂loss/∂input of the rows.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        pass: &Pass<'_>,
        params: &[f32],
        input: Values<'_>,
        output: Values<'_>,
        kept: &mut [f32],
        d_output: Values<'_>,
        d_input: ValuesMut<'_>,
    );

    /// Slopes of what comes out are there, all of them: what comes before [`backward`](Self::backward) and gradients, which may read nothing else of them.
    fn keep_slopes(&self, _n_rows: usize, _d_output: Values<'_>, _kept: &mut [f32]) {}

    /// The layer's parameters in runs whose gradients are made one by one, in order and without gaps.
    fn parts(&self) -> Vec<Part> {
        Vec::new()
    }

    /// Adds to `gradient`, the parameters of a part, what the rows of a strip give: rows in order, one chain for each parameter, so that strips
    /// leave no trace.
    fn add_gradient(&self, _part: &Part, _seen: &Seen<'_>, _gradient: &mut [f32]) {}
}
