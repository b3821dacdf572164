//! Batch norm: each channel's values are brought to mean 0 and deviation 1 over the global batch, then scaled and moved.

use super::norm::{EPSILON, scale_and_shift, scale_parts};
use super::operation::{Operation, Part, Pass, Seen, TensorSpec, Values, ValuesMut};

/// Part of what was that stays when moments of a batch enter the running ones.
const STAYS: f64 = 0.9;
/// Channels whose factors are worked out together.
const TILE: usize = 64;

/// y = γ·(x − mean)/√(variance + ε) + β, moments over the rows of the global batch, by their weights, and over the places of a row. γ, then β.
///
/// Moments are sums over rows, which a layer cannot have by itself: who trains adds [`add_moments`](Self::add_moments) of all lanes exactly, and on the
/// way back [`add_slopes`](Self::add_slopes), and gives what [`finish_moments`](Self::finish_moments) and [`finish_slopes`](Self::finish_slopes) make of
/// them to every pass. Predictions take the running moments.
///
/// Source: Ioffe, Szegedy, *Batch normalization*, ICML 2015; running moments as PyTorch's `BatchNorm1d` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    pub channels: usize,
    /// Places of a row, such as those of an image; a place has all channels side by side.
    pub places: usize,
}

/// Of a batch: mean and variance of each channel, as the running moments take them up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchMoments {
    pub mean: Vec<f64>,
    /// Of the values that the batch was drawn from: larger than that of the batch by n/(n − 1).
    pub variance: Vec<f64>,
}

impl BatchNorm {
    /// Numbers of a pass's moments: mean, inverse deviation, mean slope, mean slope along the normal values, of each channel.
    pub fn n_moments(&self) -> usize {
        4 * self.channels
    }

    /// Numbers of the running moments: mean, then variance, of each channel.
    pub fn n_running(&self) -> usize {
        2 * self.channels
    }

    /// Adds Σ w·(x − a) and Σ w·(x − a)² of some channels, row after row, so that strips leave no trace. Not collective.
    ///
    /// * `first`: the first of the channels; `sums`: as long as there are channels.
    /// * `around`: a, of all channels; near the mean, or the variance would be a small difference of large numbers.
    pub fn add_moments(
        &self,
        input: &Values<'_>,
        weights: &[f64],
        around: &[f32],
        first: usize,
        sums: [&mut [f64]; 2],
    ) {
        let [plain, squares] = sums;
        let around = &around[first..first + plain.len()];
        for (row, w) in weights.iter().enumerate() {
            for place in input.row(row).chunks_exact(self.channels) {
                let of_channels = place[first..].iter().zip(around);
                for (((x, a), plain), squares) in of_channels.zip(&mut *plain).zip(&mut *squares) {
                    let from = f64::from(*x) - f64::from(*a);
                    let weighted = w * from;
                    *plain += weighted;
                    *squares += weighted * from;
                }
            }
        }
    }

    /// What a pass forward wants, of sums over the global batch: mean and inverse deviation into `moments`. Not collective.
    ///
    /// * `sums`: of all channels, as [`add_moments`](Self::add_moments) has them.
    /// * `weight`, `squares`: Σ w and Σ w² of the rows of the batch, w in the same unit.
    pub fn finish_moments(
        &self,
        sums: [&[f64]; 2],
        around: &[f32],
        [weight, squares]: [f64; 2],
        moments: &mut [f32],
    ) -> BatchMoments {
        let total = weight * self.places as f64;
        // 1 − 1/n for n values of one weight.
        let share = 1.0 - squares / (weight * weight) / self.places as f64;
        let unbiased = if share > 0.0 { 1.0 / share } else { 1.0 };
        let mut of_batch = BatchMoments::default();
        for (channel, (plain, squares)) in sums[0].iter().zip(sums[1]).enumerate() {
            let from = plain / total;
            let variance = squares / total - from * from;
            let variance = if variance < 0.0 { 0.0 } else { variance };
            let mean = f64::from(around[channel]) + from;
            moments[channel] = mean as f32;
            moments[self.channels + channel] = (1.0 / (variance + f64::from(EPSILON)).sqrt()) as f32;
            of_batch.mean.push(mean);
            of_batch.variance.push(variance * unbiased);
        }
        of_batch
    }

    /// Adds Σ ∂loss/∂y and Σ ∂loss/∂y·(x − mean)/deviation of some channels, row after row. Not collective.
    pub fn add_slopes(
        &self,
        input: &Values<'_>,
        d_output: &Values<'_>,
        n_rows: usize,
        moments: &[f32],
        first: usize,
        sums: [&mut [f64]; 2],
    ) {
        let [plain, along] = sums;
        let n = plain.len();
        let (mean, inverse) = (&moments[first..first + n], &moments[self.channels + first..][..n]);
        for row in 0..n_rows {
            let places = input.row(row).chunks_exact(self.channels).zip(d_output.row(row).chunks_exact(self.channels));
            for (x, dy) in places {
                let of_channels = x[first..].iter().zip(&dy[first..]).zip(mean).zip(inverse);
                for ((((x, dy), mean), inverse), sums) in of_channels.zip(plain.iter_mut().zip(&mut *along)) {
                    let normal = (x - mean) * inverse;
                    *sums.0 += f64::from(*dy);
                    *sums.1 += f64::from(*dy) * f64::from(normal);
                }
            }
        }
    }

    /// What a pass back wants, of sums over the global batch: the means of both, into `moments`. Not collective.
    pub fn finish_slopes(&self, sums: [&[f64]; 2], weight: f64, moments: &mut [f32]) {
        let total = weight * self.places as f64;
        let (_, slopes) = moments.split_at_mut(2 * self.channels);
        for (mean, sum) in slopes.iter_mut().zip(sums[0].iter().chain(sums[1])) {
            *mean = (sum / total) as f32;
        }
    }

    /// Takes the moments of a batch into the running ones. Not collective.
    pub fn run_on(&self, of_batch: &BatchMoments, running: &mut [f32]) {
        for (running, new) in running.iter_mut().zip(of_batch.mean.iter().chain(&of_batch.variance)) {
            *running = (STAYS * f64::from(*running) + (1.0 - STAYS) * new) as f32;
        }
    }

    /// Where the running moments begin.
    pub fn start(&self, running: &mut [f32]) {
        let (mean, variance) = running.split_at_mut(self.channels);
        mean.fill(0.0);
        variance.fill(1.0);
    }

    /// Shows the places of rows by tiles of channels: the first channel of the tile, and where the tile lies in a row.
    fn each_tile(&self, n_rows: usize, mut show: impl FnMut(usize, usize, usize, usize)) {
        for first in (0..self.channels).step_by(TILE) {
            let n = TILE.min(self.channels - first);
            for row in 0..n_rows {
                (0..self.places).for_each(|place| show(row, first, place * self.channels + first, n));
            }
        }
    }
}

impl Operation for BatchNorm {
    fn width(&self) -> usize {
        self.channels * self.places
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        scale_and_shift(self.channels)
    }

    fn forward(&self, pass: &Pass<'_>, params: &[f32], input: Values<'_>, mut output: ValuesMut<'_>, _: &mut [f32]) {
        let (scale, shift) = params.split_at(self.channels);
        let (mean, spread) = pass.moments.split_at(self.channels);
        let (is_trained, mut inverse) = (pass.training.is_some(), [0.0f32; TILE]);
        self.each_tile(pass.rows.len(), |row, first, at, n| {
            if row == 0 && at == first {
                let of_tile = inverse.iter_mut().zip(&spread[first..first + n]);
                // A variance where moments are the running ones.
                of_tile.for_each(|(inverse, s)| *inverse = if is_trained { *s } else { 1.0 / (s + EPSILON).sqrt() });
            }
            let (x, y) = (&input.row(row)[at..at + n], &mut output.row(row)[at..at + n]);
            let (scale, shift, mean) = (&scale[first..first + n], &shift[first..first + n], &mean[first..first + n]);
            for (j, y) in y.iter_mut().enumerate() {
                *y = (x[j] - mean[j]) * inverse[j] * scale[j] + shift[j];
            }
        });
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        params: &[f32],
        input: Values<'_>,
        _: Values<'_>,
        _: &mut [f32],
        d_output: Values<'_>,
        mut d_input: ValuesMut<'_>,
    ) {
        let of = |which: usize| &pass.moments[which * self.channels..(which + 1) * self.channels];
        let (scale, mean, inverse, plain, along) = (&params[..self.channels], of(0), of(1), of(2), of(3));
        self.each_tile(pass.rows.len(), |row, first, at, n| {
            let (x, dy) = (&input.row(row)[at..at + n], &d_output.row(row)[at..at + n]);
            let (dx, of) = (&mut d_input.row(row)[at..at + n], first..first + n);
            let (scale, mean, inverse) = (&scale[of.clone()], &mean[of.clone()], &inverse[of.clone()]);
            let (plain, along, w) = (&plain[of.clone()], &along[of], pass.weights[row] as f32);
            for (j, dx) in dx.iter_mut().enumerate() {
                let normal = (x[j] - mean[j]) * inverse[j];
                *dx = scale[j] * inverse[j] * (dy[j] - w * (plain[j] + normal * along[j]));
            }
        });
    }

    fn parts(&self) -> Vec<Part> {
        scale_parts(self.channels)
    }

    fn add_gradient(&self, part: &Part, seen: &Seen<'_>, gradient: &mut [f32]) {
        let ([first, _], n) = (part.at, gradient.len());
        let (mean, inverse) = (&seen.moments[first..first + n], &seen.moments[self.channels + first..][..n]);
        for row in 0..seen.n_rows {
            let (x, dy) = (seen.input.row(row), seen.d_output.row(row));
            for at in (first..self.width()).step_by(self.channels) {
                let (x, dy) = (&x[at..at + n], &dy[at..at + n]);
                match part.tensor {
                    0 => (0..n).for_each(|j| gradient[j] += dy[j] * ((x[j] - mean[j]) * inverse[j])),
                    _ => gradient.iter_mut().zip(dy).for_each(|(g, dy)| *g += dy),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::{Training, stride_of};
    use super::*;
    use crate::matmul::Weights;
    use crate::rng::{Draws, Stream};

    const ROWS: usize = 11;

    fn draw(i: usize, of: u64) -> f64 {
        Draws::new(3, Stream::Synthetic).normal(i as u64, of)
    }

    /// A layer with rows of several weights.
    struct Rows {
        norm: BatchNorm,
        x: Vec<f32>,
        weights: Vec<f64>,
        params: Vec<f32>,
        /// ∂loss/∂y.
        c: Vec<f32>,
    }

    impl Rows {
        fn new(channels: usize, places: usize) -> Rows {
            let norm = BatchNorm { channels, places };
            let stride = stride_of(norm.width());
            let weights: Vec<f64> = (0..ROWS).map(|row| 0.25 + row as f64 % 3.0).collect();
            // Each channel has a mean and a deviation of its own.
            let x = |i: usize| 3.0 * (i % stride % channels % 7) as f64 + (1.0 + (i % 2) as f64) * draw(i, 0);
            Rows {
                norm,
                x: (0..ROWS * stride).map(|i| x(i) as f32).collect(),
                c: (0..ROWS * stride).map(|i| (weights[i / stride] * draw(i, 1)) as f32).collect(),
                weights,
                params: (0..2 * channels).map(|i| (1.0 + 0.3 * draw(i, 2)) as f32).collect(),
            }
        }

        fn stride(&self) -> usize {
            stride_of(self.norm.width())
        }

        fn of<'a>(&self, all: &'a [f32], rows: std::ops::Range<usize>) -> Values<'a> {
            let stride = self.stride();
            Values { all: &all[rows.start * stride..rows.end * stride], stride, width: self.norm.width() }
        }

        /// Means and deviations of the channels, by the definitions.
        fn plain_moments(&self, x: &[f64]) -> Vec<[f64; 2]> {
            let BatchNorm { channels, places } = self.norm;
            let of_channel = |channel: usize| {
                let each = (0..ROWS).flat_map(|row| (0..places).map(move |place| (row, place * channels + channel)));
                let values = each.map(|(row, at)| (self.weights[row], x[row * self.stride() + at]));
                let values: Vec<(f64, f64)> = values.collect();
                let total: f64 = values.iter().map(|(w, _)| w).sum();
                let mean = values.iter().map(|(w, x)| w * x).sum::<f64>() / total;
                let variance = values.iter().map(|(w, x)| w * (x - mean) * (x - mean)).sum::<f64>() / total;
                [mean, variance]
            };
            (0..channels).map(of_channel).collect()
        }

        fn plain(&self, x: &[f64], params: &[f64]) -> Vec<f64> {
            let (moments, c) = (self.plain_moments(x), self.norm.channels);
            let of = |(i, x): (usize, &f64)| {
                let channel = i % self.stride() % c;
                let [mean, variance] = moments[channel];
                (x - mean) / (variance + 1e-5).sqrt() * params[channel] + params[c + channel]
            };
            x.iter().enumerate().map(of).collect()
        }

        fn loss(&self, x: &[f64], params: &[f64]) -> f64 {
            let is_value = |i: usize| i % self.stride() < self.norm.width();
            let y = self.plain(x, params);
            y.iter().zip(&self.c).enumerate().filter(|(i, _)| is_value(*i)).map(|(_, (y, c))| y * f64::from(*c)).sum()
        }

        /// Moments for the passes, from rows in strips of these lengths and channels in tasks of so many.
        fn moments(&self, strips: &[usize], task: usize, around: &[f32]) -> (Vec<f32>, BatchMoments) {
            let (norm, n) = (self.norm, self.norm.channels);
            let mut moments = vec![0.0; norm.n_moments()];
            let sum = |moments: Option<&[f32]>| {
                let mut sums = [vec![0.0; n], vec![0.0; n]];
                let mut start = 0;
                for len in strips {
                    let rows = start..start + len;
                    for first in (0..n).step_by(task) {
                        let end = (first + task).min(n);
                        let [one, other] = &mut sums;
                        let sums = [&mut one[first..end], &mut other[first..end]];
                        let (x, weights) = (self.of(&self.x, rows.clone()), &self.weights[rows.clone()]);
                        match moments {
                            None => norm.add_moments(&x, weights, around, first, sums),
                            Some(m) => norm.add_slopes(&x, &self.of(&self.c, rows.clone()), *len, m, first, sums),
                        }
                    }
                    start += len;
                }
                sums
            };
            let weight: f64 = self.weights.iter().sum();
            let squares: f64 = self.weights.iter().map(|w| w * w).sum();
            let [one, other] = sum(None);
            let of_batch = norm.finish_moments([&one, &other], around, [weight, squares], &mut moments);
            let [one, other] = sum(Some(&moments));
            norm.finish_slopes([&one, &other], weight, &mut moments);
            (moments, of_batch)
        }

        fn pass<'a>(&'a self, rows: &'a [u64], moments: &'a [f32], training: Option<Training>) -> Pass<'a> {
            Pass { training, rows, weights: &self.weights, layer: 1, moments, factors: Weights::Wide(&[]) }
        }
    }

    const TRAINING: Option<Training> = Some(Training { seed: 0, step: 0 });

    #[test]
    fn values_and_slopes_are_those_of_the_definitions() {
        for (channels, places) in [(1, 1), (5, 1), (3, 4), (70, 2)] {
            let rows = Rows::new(channels, places);
            let (norm, stride) = (rows.norm, rows.stride());
            let numbers: Vec<u64> = (0..ROWS as u64).collect();
            let (moments, _) = rows.moments(&[ROWS], 64, &vec![0.0; channels]);
            let pass = rows.pass(&numbers, &moments, TRAINING);
            let (mut y, mut dx) = (vec![0.0; ROWS * stride], vec![0.0; ROWS * stride]);
            let width = norm.width();
            let (x, dy) = (rows.of(&rows.x, 0..ROWS), rows.of(&rows.c, 0..ROWS));
            norm.forward(&pass, &rows.params, x, ValuesMut { all: &mut y, stride, width }, &mut []);
            let out = Values { all: &y, stride, width };
            norm.backward(&pass, &rows.params, x, out, &mut [], dy, ValuesMut { all: &mut dx, stride, width });
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let (x_wide, params) = (wide(&rows.x), wide(&rows.params));
            let plain = rows.plain(&x_wide, &params);
            let values = (0..ROWS * stride).filter(|i| i % stride < width);
            values.clone().for_each(|i| approx::assert_relative_eq!(f64::from(y[i]), plain[i], epsilon = 1e-5));
            let difference = |move_by: &dyn Fn(f64) -> f64| (move_by(1e-5) - move_by(-1e-5)) / 2e-5;
            for i in values.step_by(7) {
                let moved = |by: f64| {
                    let mut x = x_wide.clone();
                    x[i] += by;
                    rows.loss(&x, &params)
                };
                approx::assert_relative_eq!(f64::from(dx[i]), difference(&moved), epsilon = 2e-5, max_relative = 1e-4);
            }
            let seen = Seen { n_rows: ROWS, input: x, kept: &[], d_output: dy, moments: &moments };
            for part in norm.parts() {
                let mut gradient = vec![0.0; part.range.len()];
                norm.add_gradient(&part, &seen, &mut gradient);
                for (j, g) in part.range.zip(gradient) {
                    let moved = |by: f64| {
                        let mut params = params.clone();
                        params[j] += by;
                        rows.loss(&x_wide, &params)
                    };
                    approx::assert_relative_eq!(f64::from(g), difference(&moved), epsilon = 5e-5, max_relative = 1e-4);
                }
            }
        }
    }

    #[test]
    fn strips_tasks_and_where_moments_are_taken_from_leave_no_trace() {
        for (channels, places) in [(5, 1), (70, 3)] {
            let rows = Rows::new(channels, places);
            let around = vec![0.5; channels];
            let (whole, of_batch) = rows.moments(&[ROWS], 64, &around);
            for (strips, task) in [(vec![1; ROWS], 64), (vec![3, 0, 8], 1), (vec![10, 1], 7)] {
                assert_eq!(rows.moments(&strips, task, &around), (whole.clone(), of_batch.clone()));
            }
            // Far away, only float64 is lost; and what is in the running moments is of more than these rows.
            let (far, _) = rows.moments(&[ROWS], 64, &vec![-1e4; channels]);
            far.iter().zip(&whole).for_each(|(far, near)| {
                approx::assert_relative_eq!(far, near, epsilon = 1e-6, max_relative = 1e-6);
            });
            let wide: Vec<f64> = rows.x.iter().map(|x| f64::from(*x)).collect();
            let total: f64 = rows.weights.iter().sum();
            let n = total * total / rows.weights.iter().map(|w| w * w).sum::<f64>() * places as f64;
            for (channel, [mean, variance]) in rows.plain_moments(&wide).into_iter().enumerate() {
                approx::assert_relative_eq!(of_batch.mean[channel], mean, max_relative = 1e-12, epsilon = 1e-12);
                let unbiased = variance * n / (n - 1.0);
                approx::assert_relative_eq!(of_batch.variance[channel], unbiased, max_relative = 1e-10);
            }
        }
    }

    #[test]
    fn predictions_take_the_running_moments() {
        let rows = Rows::new(3, 1);
        let mut running = vec![0.0; rows.norm.n_running()];
        rows.norm.start(&mut running);
        assert_eq!(running, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        let (_, of_batch) = rows.moments(&[ROWS], 64, &[0.0; 3]);
        // After so many steps of the same batch they are its own.
        (0..400).for_each(|_| rows.norm.run_on(&of_batch, &mut running));
        let numbers = [0];
        let (mut y, stride) = (vec![0.0; rows.stride()], rows.stride());
        let pass = rows.pass(&numbers, &running, None);
        rows.norm.forward(
            &pass,
            &rows.params,
            rows.of(&rows.x, 0..1),
            ValuesMut { all: &mut y, stride, width: 3 },
            &mut [],
        );
        for channel in 0..3 {
            let normal = (f64::from(rows.x[channel]) - of_batch.mean[channel])
                / (of_batch.variance[channel] + f64::from(EPSILON)).sqrt();
            let expected = normal * f64::from(rows.params[channel]) + f64::from(rows.params[3 + channel]);
            approx::assert_relative_eq!(f64::from(y[channel]), expected, epsilon = 1e-5);
        }
    }

    #[test]
    fn one_row_and_constant_values_are_finite() {
        let norm = BatchNorm { channels: 2, places: 1 };
        let mut moments = vec![0.0; norm.n_moments()];
        let of_batch = norm.finish_moments([&[3.0, 0.0], &[9.0, 0.0]], &[0.0, 5.0], [1.0, 1.0], &mut moments);
        assert_eq!((of_batch.mean, of_batch.variance), (vec![3.0, 5.0], vec![0.0, 0.0]));
        assert!(moments.iter().all(|m| m.is_finite()));
    }
}
