//! Layer norm: each row's values are brought to mean 0 and deviation 1, then scaled and moved.

use super::operation::{Init, Operation, Part, Pass, Seen, TensorSpec, Values, ValuesMut};
use crate::matmul::WIDTH;
use std::ops::Range;

/// Added to variances.
pub const EPSILON: f32 = 1e-5;

/// y = γ·(x − mean)/√(variance + ε) + β over the values of a row. γ, then β.
///
/// Source: Ba, Kiros, Hinton, *Layer normalization*, 2016 (arXiv 1607.06450).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    pub width: usize,
}

/// Accumulators of sums over a row: value j goes to number j mod 16, and they are added in order.
const ACCUMULATORS: usize = 16;

/// Σ of what `of` makes of each value's place, always in the same order.
#[inline(always)]
fn sum(n: usize, of: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0f32; ACCUMULATORS];
    let whole = n / ACCUMULATORS * ACCUMULATORS;
    for first in (0..whole).step_by(ACCUMULATORS) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += of(first + lane);
        }
    }
    for (sum, j) in sums.iter_mut().zip(whole..n) {
        *sum += of(j);
    }
    sums.iter().fold(0.0, |total, sum| total + sum)
}

/// The specs of γ and β.
pub(super) fn scale_and_shift(width: usize) -> Vec<TensorSpec> {
    let spec = |name, value| TensorSpec { name, shape: vec![width], is_free: true, init: Init::Constant(value) };
    vec![spec("scale", 1.0), spec("shift", 0.0)]
}

/// Runs of γ, then of β.
pub(super) fn scale_parts(width: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    for tensor in 0..2 {
        for first in (0..width).step_by(WIDTH) {
            let range: Range<usize> = tensor * width + first..tensor * width + (first + WIDTH).min(width);
            parts.push(Part { range, tensor, at: [first, 0] });
        }
    }
    parts
}

impl Operation for LayerNorm {
    fn width(&self) -> usize {
        self.width
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        scale_and_shift(self.width)
    }

    /// Mean and inverse deviation.
    fn kept(&self) -> usize {
        2
    }

    fn forward(&self, pass: &Pass<'_>, params: &[f32], input: Values<'_>, mut output: ValuesMut<'_>, kept: &mut [f32]) {
        let (scale, shift) = params.split_at(self.width);
        for (row, kept) in (0..pass.rows.len()).zip(kept.chunks_exact_mut(2)) {
            let (x, y) = (input.row(row), output.row(row));
            let n = self.width as f32;
            let mean = sum(x.len(), |j| x[j]) / n;
            let variance = sum(x.len(), |j| (x[j] - mean) * (x[j] - mean)) / n;
            let inverse = 1.0 / (variance + EPSILON).sqrt();
            for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                *y = (x - mean) * inverse * scale + shift;
            }
            kept.copy_from_slice(&[mean, inverse]);
        }
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        params: &[f32],
        input: Values<'_>,
        _: Values<'_>,
        kept: &mut [f32],
        d_output: Values<'_>,
        mut d_input: ValuesMut<'_>,
    ) {
        let scale = &params[..self.width];
        for (row, kept) in (0..pass.rows.len()).zip(kept.chunks_exact(2)) {
            let (x, dy, dx) = (input.row(row), d_output.row(row), d_input.row(row));
            let (n, mean, inverse) = (self.width as f32, kept[0], kept[1]);
            let of = |j: usize| dy[j] * scale[j];
            let normal = |j: usize| (x[j] - mean) * inverse;
            let plain = sum(x.len(), of) / n;
            let along = sum(x.len(), |j| of(j) * normal(j)) / n;
            for (j, dx) in dx.iter_mut().enumerate() {
                *dx = inverse * (of(j) - plain - normal(j) * along);
            }
        }
    }

    fn parts(&self) -> Vec<Part> {
        scale_parts(self.width)
    }

    fn add_gradient(&self, part: &Part, seen: &Seen<'_>, gradient: &mut [f32]) {
        let [first, _] = part.at;
        if part.tensor == 1 {
            return super::dense::add_columns(first, seen.n_rows, &seen.d_output, gradient);
        }
        for (row, kept) in (0..seen.n_rows).zip(seen.kept.chunks_exact(2)) {
            let (x, dy) = (&seen.input.row(row)[first..], &seen.d_output.row(row)[first..]);
            for ((g, x), dy) in gradient.iter_mut().zip(x).zip(dy) {
                *g += dy * ((x - kept[0]) * kept[1]);
            }
        }
    }
}
