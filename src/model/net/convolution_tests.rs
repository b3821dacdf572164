//! Convolution and pooling against plain loops in float64, and whole networks of them against differences.

use super::*;
use crate::config::Activation;
use crate::matmul::Weights;
use crate::model::net::operation::stride_of;
use crate::model::net::{Activate, Dense, Layer, Network, Pooling, Strip, Turned};
use crate::rng::{Draws, Stream};

fn numbers(n: usize, of: u64) -> Vec<f32> {
    let draws = Draws::new(29, Stream::Synthetic);
    (0..n).map(|i| draws.normal(i as u64, of) as f32).collect()
}

/// Rows with gaps of NaN.
fn rows(n_rows: usize, width: usize, of: u64) -> Vec<f32> {
    let mut all = vec![f32::NAN; n_rows * stride_of(width)];
    let values = numbers(n_rows * width, of);
    for (row, values) in all.chunks_exact_mut(stride_of(width)).zip(values.chunks_exact(width)) {
        row[..width].copy_from_slice(values);
    }
    all
}

fn values(all: &[f32], width: usize) -> Values<'_> {
    Values { all, stride: stride_of(width), width }
}

fn values_mut(all: &mut [f32], width: usize) -> ValuesMut<'_> {
    ValuesMut { all, stride: stride_of(width), width }
}

/// What a layer gives for rows that go through in strips of some lengths: outputs, ∂inputs and the gradient.
fn through(layer: &Convolution, params: &[f32], x: &[f32], dy: &[f32], strips: &[usize]) -> [Vec<f32>; 3] {
    let (inputs, outputs) = (layer.places() * layer.channels, layer.width());
    let mut turned = vec![0.0; layer.n_weights()];
    for (part, range) in layer.turned_parts().into_iter().enumerate() {
        layer.turn(params, part, &mut turned[range]);
    }
    let (mut y, mut dx, mut gradient) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()], vec![0.0; params.len()]);
    let mut first = 0;
    for &n_rows in strips {
        let range = |width: usize| first * stride_of(width)..(first + n_rows) * stride_of(width);
        let ids: Vec<u64> = (0..n_rows as u64).collect();
        let weights = vec![1.0; n_rows];
        let factors = Weights::Wide(&params[..layer.n_weights()]);
        let pass = Pass { training: None, rows: &ids, weights: &weights, layer: 0, moments: &[], factors };
        let back = Pass { factors: Weights::Wide(&turned), ..pass };
        // There may be room for more rows.
        let mut kept = vec![0.0; layer.kept() * (n_rows + 1)];
        let (input, slopes) = (values(&x[range(inputs)], inputs), values(&dy[range(outputs)], outputs));
        // Twice: nothing of the first time may be left in the margins.
        for _ in 0..2 {
            layer.forward(&pass, params, input, values_mut(&mut y[range(outputs)], outputs), &mut kept);
            let output = values(&y[range(outputs)], outputs);
            let out = values_mut(&mut dx[range(inputs)], inputs);
            layer.backward(&back, params, input, output, &mut kept, slopes, out);
        }
        let seen = Seen { n_rows, input, kept: &kept, d_output: slopes, moments: &[] };
        let mut end = 0;
        for part in layer.parts() {
            assert_eq!(part.range.start, end, "parts without gaps");
            end = part.range.end;
            layer.add_gradient(&part, &seen, &mut gradient[part.range.clone()]);
        }
        assert_eq!(end, params.len());
        first += n_rows;
    }
    [y, dx, gradient]
}

#[test]
fn places_see_their_windows_as_in_plain_loops_in_strips_of_any_length() {
    for ([height, width, channels], outputs) in
        [([5, 7, 3], 4), ([1, 1, 2], 3), ([2, 3, 1], 33), ([3, 1, 5], 1), ([4, 6, 40], 65), ([9, 8, 1], 32)]
    {
        let layer = Convolution::new([height, width, channels], outputs, 1.0);
        let (n_rows, panels) = (5, layer.panels());
        let (from, to) = (layer.places() * channels, layer.width());
        let plain = numbers(panels.len(), 1);
        let mut params = numbers(panels.len() + outputs, 2);
        panels.pack(&plain, &mut params[..panels.len()]);
        let (x, dy) = (rows(n_rows, from, 3), rows(n_rows, to, 4));
        let [y, dx, gradient] = through(&layer, &params, &x, &dy, &[5]);

        let (mut y2, mut dx2) = (vec![0f64; y.len()], vec![0f64; dx.len()]);
        let (mut weights2, mut bias2) = (vec![0f64; panels.len()], vec![0f64; outputs]);
        for row in 0..n_rows {
            for (v, u, o) in
                (0..height).flat_map(|v| (0..width).flat_map(move |u| (0..outputs).map(move |o| (v, u, o))))
            {
                let out = row * stride_of(to) + (v * width + u) * outputs + o;
                y2[out] = f64::from(params[panels.len() + o]);
                bias2[o] += f64::from(dy[out]);
                for (j, i, c) in (0..3).flat_map(|j| (0..3).flat_map(move |i| (0..channels).map(move |c| (j, i, c)))) {
                    let (down, right) = ((v + j).wrapping_sub(1), (u + i).wrapping_sub(1));
                    if down < height && right < width {
                        let at = row * stride_of(from) + (down * width + right) * channels + c;
                        let w = ((j * 3 + i) * channels + c) * outputs + o;
                        y2[out] += f64::from(x[at]) * f64::from(plain[w]);
                        dx2[at] += f64::from(dy[out]) * f64::from(plain[w]);
                        weights2[w] += f64::from(x[at]) * f64::from(dy[out]);
                    }
                }
            }
        }
        let mut weights = vec![0.0; panels.len()];
        panels.unpack(&gradient[..panels.len()], &mut weights);
        let what = format!("{height} × {width} × {channels} → {outputs}");
        // Chains of at most 3240 products of numbers near 1.
        let close = |name: &str, a: &[f32], b: &[f64]| {
            for (at, (a, b)) in a.iter().zip(b).enumerate().filter(|(_, (a, _))| !a.is_nan()) {
                assert!((f64::from(*a) - b).abs() < 2e-4, "{name}[{at}] of {what}: {a}, not {b}");
            }
        };
        close("output", &y, &y2);
        close("slope", &dx, &dx2);
        close("weights", &weights, &weights2);
        close("bias", &gradient[panels.len()..], &bias2);
        assert!(y.iter().filter(|y| !y.is_nan()).count() == n_rows * to, "{what}: nothing beside the rows");
        assert!(dx.iter().filter(|dx| !dx.is_nan()).count() == n_rows * from, "{what}");

        let bits = |all: &[Vec<f32>; 3]| all.clone().map(|of| of.iter().map(|v| v.to_bits()).collect::<Vec<u32>>());
        for strips in [&[1, 1, 1, 1, 1][..], &[2, 3], &[4, 1]] {
            let again = through(&layer, &params, &x, &dy, strips);
            assert_eq!(
                bits(&again),
                bits(&[y.clone(), dx.clone(), gradient.clone()]),
                "{what} in strips of {strips:?}"
            );
        }
    }
}

#[test]
fn pooling_takes_the_first_of_the_largest_and_leaves_an_odd_line_and_column_out() {
    let pool = Pooling { height: 3, width: 5, channels: 2 };
    #[rustfmt::skip]
    let x = [
        1.0, 9.0,  1.0, 8.0,   0.0, -1.0,  5.0, -2.0,  99.0, 99.0,
        1.0, 9.0,  2.0, 9.0,  -0.0, -3.0,  5.0, -1.0,  99.0, 99.0,
        99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0,
    ];
    let ids = [7];
    let factors = Weights::Wide(&[]);
    let pass = Pass { training: None, rows: &ids, weights: &[1.0], layer: 0, moments: &[], factors };
    let (mut y, mut dx, mut kept) = (vec![f32::NAN; 4], vec![f32::NAN; 30], vec![f32::NAN; pool.kept()]);
    let input = Values { all: &x, stride: 30, width: 30 };
    pool.forward(&pass, &[], input, ValuesMut { all: &mut y, stride: 4, width: 4 }, &mut kept);
    assert_eq!(y, [2.0, 9.0, 5.0, -1.0]);
    let (output, dy) = (Values { all: &y, stride: 4, width: 4 }, [0.5, 0.25, 3.0, 4.0]);
    let slopes = Values { all: &dy, stride: 4, width: 4 };
    let out = ValuesMut { all: &mut dx, stride: 30, width: 30 };
    pool.backward(&pass, &[], input, output, &mut kept, slopes, out);
    let mut wanted = [0.0; 30];
    (wanted[12], wanted[1], wanted[6], wanted[5]) = (0.5, 0.25, 3.0, 4.0);
    assert_eq!(dx, wanted);
    let thin = Pooling { height: 2, width: 3, channels: 1 };
    assert_eq!((thin.width(), Pooling { height: 1, ..thin }.width()), (1, 0));
}

/// Σ of what comes out, times weights of its own.
fn loss(network: &Network, strip: &mut Strip, of: &[f32]) -> f64 {
    let last = network.layers().len();
    network.forward(0..last, None, &[], &Turned::default(), strip);
    let out = strip.values(last);
    (0..strip.n_rows).flat_map(|row| out.row(row)).zip(of).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
}

#[test]
fn gradients_of_stages_are_differences_of_the_loss() {
    for activation in [Activation::Tanh, Activation::Gelu] {
        let activate = |width| Layer::Activate(Activate { width, by: activation });
        let mut network = Network::new(
            7 * 6 * 2,
            vec![
                Layer::Convolution(Convolution::new([7, 6, 2], 5, 1.0)),
                activate(7 * 6 * 5),
                Layer::Pooling(Pooling { height: 7, width: 6, channels: 5 }),
                Layer::Convolution(Convolution::new([3, 3, 5], 4, 1.0)),
                Layer::Pooling(Pooling { height: 3, width: 3, channels: 4 }),
                activate(4),
                Layer::Dense(Dense { inputs: 4, outputs: 3, gain: 1.0 }),
            ],
        );
        network.start(3);
        let mut strip = network.strip(4, true);
        strip.n_rows = 3;
        let x = numbers(3 * network.n_features, 8);
        for row in 0..3 {
            strip.values_mut(0).row(row).copy_from_slice(&x[row * network.n_features..][..network.n_features]);
        }
        let weights = numbers(9, 9);
        let last = network.layers().len();
        loss(&network, &mut strip, &weights);
        for row in 0..3 {
            strip.slopes_mut(last).row(row).copy_from_slice(&weights[row * 3..][..3]);
        }
        let mut turned = network.turned();
        turned.take_up(&network);
        network.backward(0..last, None, &[], &turned, &mut strip);
        let mut gradient = vec![0.0; network.params.len()];
        for layer in 0..last {
            for part in network.parts(layer) {
                let range = part.range.clone();
                network.gradient(layer, &part, &[], std::iter::once(&strip), &mut gradient[range]);
            }
        }
        for at in 0..gradient.len() {
            let (before, step) = (network.params[at], 2f32.powi(-9));
            let mut of = |by: f32| {
                network.params[at] = before + by;
                loss(&network, &mut strip, &weights)
            };
            let difference = (of(step) - of(-step)) / (2.0 * f64::from(step));
            network.params[at] = before;
            assert!(
                (difference - f64::from(gradient[at])).abs() < 2e-3 * (1.0 + difference.abs()),
                "parameter {at} with {activation:?}: {} and by difference {difference}",
                gradient[at]
            );
        }
    }
}
