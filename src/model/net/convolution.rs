//! Every place of an image sees the 3 × 3 places around it.

use super::dense::{add_columns, slabs};
use super::operation::{Init, Operation, Part, Pass, Seen, TensorSpec, Values, ValuesMut};
use crate::matmul::{Panels, Segment, Start, add_slab, multiply};
use half::bf16;
use std::ops::Range;

/// Places of a window along each axis.
const SIDE: usize = 3;

/// `y[v][u][o] = b[o] + Σ x[v + j − 1][u + i − 1][c]·W[j][i][c][o]`, x being 0 beyond the image: as many places come out as went in.
///
/// A row is (height, width, channels); weights are (3, 3, channels, outputs), then `outputs` biases.
///
/// A place of the image is a row of the product with the weights. Its window is three runs of a copy of the image with a margin of zeros, so
/// that nothing is gathered: an implicit product, as in Chetlur et al., *cuDNN*, 2014 (arXiv 1410.0759).
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub outputs: usize,
    /// Deviation of the starting weights, times √(9·channels).
    pub gain: f64,
    /// Where the window of each place begins in an image with a margin, in places.
    starts: Vec<u32>,
}

impl Convolution {
    /// Of images (height, width, channels).
    ///
    /// # Panics
    /// If an image with its margin has 2³² places or more.
    pub fn new([height, width, channels]: [usize; 3], outputs: usize, gain: f64) -> Convolution {
        let starts = (0..height * width).map(|place| {
            let start = place / width * (width + SIDE - 1) + place % width;
            u32::try_from(start).expect("an image below 2³² places")
        });
        Convolution { height, width, channels, outputs, gain, starts: starts.collect() }
    }

    fn places(&self) -> usize {
        self.height * self.width
    }

    fn panels(&self) -> Panels {
        Panels::new(SIDE * SIDE * self.channels, self.outputs)
    }

    /// Of the weights as [`backward`](Operation::backward) multiplies by them.
    fn turned_panels(&self) -> Panels {
        Panels::new(SIDE * SIDE * self.outputs, self.channels)
    }

    /// Places of an image with its margin.
    fn with_margin(&self) -> usize {
        (self.height + SIDE - 1) * (self.width + SIDE - 1)
    }

    /// From one line of an image with its margin to the next, of so many channels.
    fn line(&self, channels: usize) -> usize {
        (self.width + SIDE - 1) * channels
    }

    /// A window in an image of so many channels, line by line.
    fn window(&self, channels: usize) -> [Segment; SIDE] {
        [0, 1, 2].map(|line| Segment { offset: line * self.line(channels), len: SIDE * channels })
    }

    /// Copies an image into the middle of one with a margin. The margin is 0 from the start.
    fn frame(&self, channels: usize, image: &[f32], framed: &mut [f32]) {
        let (line, of_line) = (self.line(channels), self.width * channels);
        let inner = framed[line + channels..].chunks_mut(line);
        inner.zip(image.chunks_exact(of_line)).for_each(|(to, from)| to[..of_line].copy_from_slice(from));
    }

    /// Values that are kept of a row, and of them those of its image with a margin; the rest is room for slopes.
    fn split_kept<'k>(&self, kept: &'k mut [f32]) -> (&'k mut [f32], &'k mut [f32]) {
        let rows = kept.len() / self.kept();
        kept.split_at_mut(rows * self.with_margin() * self.channels)
    }

    /// Lines and columns of the window in the other direction, outputs in the place of channels.
    fn turn_any<T: Copy>(&self, weights: &[T], part: usize, turned: &mut [T]) {
        let (panels, channels) = (self.panels(), self.turned_panels().columns(part));
        for (at, to) in turned.chunks_exact_mut(channels.len()).enumerate() {
            let (place, output) = (SIDE * SIDE - 1 - at / self.outputs, at % self.outputs);
            for (channel, to) in channels.clone().zip(to) {
                *to = weights[panels.at(place * self.channels + channel, output)];
            }
        }
    }
}

impl Operation for Convolution {
    fn width(&self) -> usize {
        self.places() * self.outputs
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let deviation = self.gain / ((SIDE * SIDE * self.channels) as f64).sqrt();
        let (shape, init) = (vec![SIDE, SIDE, self.channels, self.outputs], Init::Normal(deviation));
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
        self.turn_any(params, part, turned);
    }

    fn turn_narrow(&self, weights: &[bf16], part: usize, turned: &mut [bf16]) {
        self.turn_any(weights, part, turned);
    }

    /// The image with a margin, and room for slopes with one, of which the first row's is taken.
    fn kept(&self) -> usize {
        self.with_margin() * (self.channels + self.outputs)
    }

    fn forward(&self, pass: &Pass<'_>, params: &[f32], input: Values<'_>, output: ValuesMut<'_>, kept: &mut [f32]) {
        let bias = &params[self.panels().len()..];
        let (channels, outputs) = (self.channels, self.outputs);
        let (images, _) = self.split_kept(kept);
        let images = images.chunks_exact_mut(self.with_margin() * channels);
        for ((row, image), out) in (0..pass.rows.len()).zip(images).zip(output.all.chunks_mut(output.stride)) {
            self.frame(channels, input.row(row), image);
            let (window, start) = (self.window(channels), Start::Bias(bias));
            let from = |place: usize| self.starts[place] as usize * channels;
            multiply(image, from, self.places(), &window, self.panels(), pass.factors, start, out, |place| {
                place * outputs
            });
        }
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        _: &[f32],
        _: Values<'_>,
        _: Values<'_>,
        kept: &mut [f32],
        d_output: Values<'_>,
        d_input: ValuesMut<'_>,
    ) {
        let (channels, outputs, panels) = (self.channels, self.outputs, self.turned_panels());
        let (_, slopes) = self.split_kept(kept);
        let Some(slopes) = slopes.get_mut(..self.with_margin() * outputs) else { return };
        for (row, out) in (0..pass.rows.len()).zip(d_input.all.chunks_mut(d_input.stride)) {
            self.frame(outputs, d_output.row(row), slopes);
            let (window, start) = (self.window(outputs), Start::Zero);
            let from = |place: usize| self.starts[place] as usize * outputs;
            multiply(slopes, from, self.places(), &window, panels, pass.factors, start, out, |place| place * channels);
        }
    }

    fn parts(&self) -> Vec<Part> {
        let lines = [0, 1, 2].map(|line| line * SIDE * self.channels..(line + 1) * SIDE * self.channels);
        let mut parts = slabs(self.panels(), &lines);
        parts.extend(super::dense::bias_parts(self.panels().len(), self.outputs));
        parts
    }

    fn add_gradient(&self, part: &Part, seen: &Seen<'_>, gradient: &mut [f32]) {
        let (channels, outputs, image) = (self.channels, self.outputs, self.with_margin() * self.channels);
        let [p, inner] = part.at;
        let of_line = SIDE * channels;
        for row in 0..seen.n_rows {
            let d = seen.d_output.row(row);
            if part.tensor == 1 {
                add_columns(p, self.places(), &Values { all: d, stride: outputs, width: outputs }, gradient);
                continue;
            }
            let columns = self.panels().columns(p);
            let offset = row * image + inner / of_line * self.line(channels) + inner % of_line;
            let left = |place: usize| offset + self.starts[place] as usize * channels;
            let right = |place: usize| place * outputs + columns.start;
            add_slab(seen.kept, left, d, right, self.places(), columns.len(), gradient);
        }
    }
}

#[cfg(test)]
#[path = "convolution_tests.rs"]
mod tests;
