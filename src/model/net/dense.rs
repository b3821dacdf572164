//! Every output sees every input: y = xW + b.

use super::operation::{Init, Operation, Part, Pass, Seen, TensorSpec, Values, ValuesMut};
use crate::matmul::{
    Panels, SLAB_ROWS, Segment, Start, WIDTH, add_packed_slab, multiply, multiply_packed, pack, packed_len,
};
use half::bf16;
use std::ops::Range;

/// `inputs` × `outputs` weights, then `outputs` biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    /// Deviation of the starting weights, times √inputs: √2 before rectifiers (He), 1 before what is straight at 0 (Glorot, LeCun).
    pub gain: f64,
}

impl Dense {
    fn panels(&self) -> Panels {
        Panels::new(self.inputs, self.outputs)
    }

    /// Of the weights as [`backward`](Operation::backward) multiplies by them.
    fn turned_panels(&self) -> Panels {
        Panels::new(self.outputs, self.inputs)
    }

    /// Of what is kept of `n_rows` rows, where inputs are; slopes are in front.
    fn inputs_at(&self, n_rows: usize) -> usize {
        packed_len(n_rows, self.outputs)
    }
}

/// Runs of at most [`SLAB_ROWS`] rows of each panel.
pub(super) fn slabs(panels: Panels, runs: &[Range<usize>]) -> Vec<Part> {
    let mut parts = Vec::new();
    for p in 0..panels.count() {
        let (start, width) = (panels.panel(p).start, panels.columns(p).len());
        for run in runs {
            for first in run.clone().step_by(SLAB_ROWS) {
                let last = (first + SLAB_ROWS).min(run.end);
                parts.push(Part { range: start + first * width..start + last * width, tensor: 0, at: [p, first] });
            }
        }
    }
    parts
}

impl Operation for Dense {
    fn width(&self) -> usize {
        self.outputs
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let deviation = self.gain / (self.inputs.max(1) as f64).sqrt();
        let (shape, init) = (vec![self.inputs, self.outputs], Init::Normal(deviation));
        vec![
            TensorSpec { name: "weights", shape, is_free: false, init },
            TensorSpec { name: "bias", shape: vec![self.outputs], is_free: true, init: Init::Constant(0.0) },
        ]
    }

    fn n_weights(&self) -> usize {
        self.panels().len()
    }

    fn turned_parts(&self) -> Vec<Range<usize>> {
        let turned = self.turned_panels();
        (0..turned.count()).map(|p| turned.panel(p)).collect()
    }

    fn turn(&self, params: &[f32], part: usize, turned: &mut [f32]) {
        self.panels().transpose_panel(&params[..self.panels().len()], part, turned);
    }

    fn turn_narrow(&self, weights: &[bf16], part: usize, turned: &mut [bf16]) {
        self.panels().transpose_panel(weights, part, turned);
    }

    /// Slopes and inputs, packed.
    fn kept(&self) -> usize {
        self.inputs_at(1) + packed_len(1, self.inputs)
    }

    fn forward(&self, pass: &Pass<'_>, params: &[f32], input: Values<'_>, output: ValuesMut<'_>, kept: &mut [f32]) {
        let bias = &params[self.panels().len()..];
        let row = [Segment { offset: 0, len: self.inputs }];
        let (from, to) = (input.stride, output.stride);
        let (n_rows, start, panels) = (pass.rows.len(), Start::Bias(bias), self.panels());
        // Nothing is kept where there is no way back.
        if kept.is_empty() {
            multiply(input.all, |r| r * from, n_rows, &row, panels, pass.factors, start, output.all, |r| r * to);
        } else {
            let inputs = &mut kept[self.inputs_at(n_rows)..];
            pack(input.all, |r| r * from, n_rows, &row, inputs);
            multiply_packed(inputs, n_rows, panels, pass.factors, start, output.all, |r| r * to);
        }
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        _: &[f32],
        _: Values<'_>,
        _: Values<'_>,
        slopes: &mut [f32],
        _: Values<'_>,
        d_input: ValuesMut<'_>,
    ) {
        let (n_rows, panels) = (pass.rows.len(), self.turned_panels());
        multiply_packed(slopes, n_rows, panels, pass.factors, Start::Zero, d_input.all, |r| r * d_input.stride);
    }

    fn keep_slopes(&self, n_rows: usize, d_output: Values<'_>, kept: &mut [f32]) {
        let row = [Segment { offset: 0, len: self.outputs }];
        pack(d_output.all, |r| r * d_output.stride, n_rows, &row, kept);
    }

    fn parts(&self) -> Vec<Part> {
        let whole = 0..self.inputs;
        let mut parts = slabs(self.panels(), std::slice::from_ref(&whole));
        let bias = self.panels().len();
        parts.extend(bias_parts(bias, self.outputs));
        parts
    }

    fn add_gradient(&self, part: &Part, seen: &Seen<'_>, gradient: &mut [f32]) {
        let n_rows = seen.n_rows;
        match (part.tensor, part.at) {
            (0, [p, first]) => {
                let inputs = &seen.kept[self.inputs_at(n_rows) + packed_len(n_rows, first)..];
                let slopes = &seen.kept[packed_len(n_rows, p * WIDTH)..];
                add_packed_slab(inputs, slopes, n_rows, self.panels().columns(p).len(), gradient);
            }
            (_, [first, _]) => {
                let slopes = &seen.kept[packed_len(n_rows, first)..];
                add_columns(0, n_rows, &Values { all: slopes, stride: WIDTH, width: WIDTH }, gradient);
            }
        }
    }
}

/// Runs of a panel's columns of biases that begin at `start` of the layer's parameters.
pub(super) fn bias_parts(start: usize, n: usize) -> impl Iterator<Item = Part> {
    let panels = Panels::new(1, n);
    (0..panels.count()).map(move |p| {
        let columns = panels.columns(p);
        Part { range: start + columns.start..start + columns.end, tensor: 1, at: [columns.start, 0] }
    })
}

/// `gradient[c] += Σ_row d[row][first + c]`, rows in order.
pub(super) fn add_columns(first: usize, n_rows: usize, d: &Values<'_>, gradient: &mut [f32]) {
    for row in 0..n_rows {
        gradient.iter_mut().zip(&d.row(row)[first..]).for_each(|(sum, value)| *sum += value);
    }
}
