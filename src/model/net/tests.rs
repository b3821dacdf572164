//! Against a twin in plain loops of float64: what comes out, and gradients by its central differences.

use super::*;
use crate::config::{Activation, MlpConfig, Norm, Precision};
use crate::rng::{Draws, Stream};
use half::bf16;

const ROWS: usize = 13;
const TRAINING: Training = Training { seed: 5, step: 3 };

fn configs() -> Vec<MlpConfig> {
    let base = MlpConfig { layers: vec![17, 17, 5], ..MlpConfig::default() };
    let mut all =
        vec![MlpConfig { layers: vec![], ..base.clone() }, MlpConfig { layers: vec![33, 70], ..base.clone() }];
    for activation in [Activation::Relu, Activation::Gelu, Activation::Tanh, Activation::Silu] {
        all.push(MlpConfig { activation, ..base.clone() });
        all.push(MlpConfig { activation, norm: Norm::Layer, residual: true, dropout: 0.3, ..base.clone() });
        // Six features are an image of three lines.
        let conv = MlpConfig { conv: vec![5], image: Some([3, 2, 1]), layers: vec![4], activation, ..base.clone() };
        all.push(MlpConfig { norm: Norm::Layer, dropout: 0.3, ..conv.clone() });
        all.push(conv);
    }
    // Vectors of the rule's widths, and of more than a panel; around the first hidden layer goes a path.
    let categorical = vec!["1".to_string(), "4".to_string()];
    let embedding = MlpConfig { categorical, activation: Activation::Tanh, ..base };
    all.push(MlpConfig { layers: vec![4 + 4 + 17, 5], residual: true, ..embedding.clone() });
    all.push(MlpConfig { embed: 40, layers: vec![], ..embedding });
    all
}

fn network(config: &MlpConfig) -> Network {
    let categories = if config.categorical.is_empty() { &[][..] } else { &[(1, 5), (4, 70)] };
    let mut network = build_for(config, 6, categories, 3);
    network.start(7);
    // Biases and norms away from where they begin.
    let draws = Draws::new(8, Stream::Synthetic);
    let params = network.params.iter_mut().enumerate();
    params.for_each(|(i, param)| *param += 0.1 * draws.normal(i as u64, 0) as f32);
    network
}

#[test]
fn the_memory_plan_has_the_rows_of_a_strip() {
    let base = MlpConfig::default();
    for layers in [vec![], vec![8, 1, 40], vec![64, 256]] {
        let config = MlpConfig { layers, ..base.clone() };
        let strip = build_for(&config, 6, &[], 3).strip(ROWS, true);
        let kept: usize = strip.kept.iter().map(|kept| kept.len()).sum();
        assert_eq!(kept as u64, ROWS as u64 * config.n_packed_of_row(6), "{:?}", config.layers);
        let values: usize = (0..=2 * config.layers.len()).map(|at| strip.values(at).all.len()).sum();
        assert_eq!(values as u64, ROWS as u64 * config.n_values_of_row(6), "{:?}", config.layers);
    }
}

fn inputs(network: &Network) -> Vec<f64> {
    let draws = Draws::new(9, Stream::Synthetic);
    let mut x: Vec<f64> = (0..ROWS * 6).map(|i| f64::from(draws.normal(i as u64, 0) as f32)).collect();
    if let Layer::Embedding(embedding) = &network.layers()[0] {
        for column in embedding.columns() {
            // Few categories, so that rows share them; some are not known.
            let places = [0, 1, column.n_categories, column.n_categories / 2 + 1, column.n_categories + 1];
            for (row, x) in x.chunks_exact_mut(6).enumerate() {
                x[column.feature] = places[(row * 7 + column.feature) % 5] as f64;
            }
        }
    }
    x
}

/// Σ of the outputs times these is the loss.
fn weights(k: usize) -> Vec<f64> {
    let draws = Draws::new(10, Stream::Synthetic);
    (0..ROWS * k).map(|i| f64::from(draws.normal(i as u64, 0) as f32)).collect()
}

fn global_row(row: usize) -> u64 {
    1_000_003 * row as u64 + 17
}

/// What comes out of a row, layer by layer as the definitions say; `params`: of all tensors, each row-major.
fn twin(network: &Network, tensors: &[Vec<f64>], x: &[f64], row: u64) -> Vec<f64> {
    let mut values = vec![x.to_vec()];
    let mut tensors = tensors.iter();
    for (number, layer) in network.layers().iter().enumerate() {
        let x = values.last().unwrap();
        let next = match layer {
            Layer::Dense(dense) => {
                let (w, b) = (tensors.next().unwrap(), tensors.next().unwrap());
                let of = |c: usize| (0..dense.inputs).fold(b[c], |sum, j| sum + x[j] * w[j * dense.outputs + c]);
                (0..dense.outputs).map(of).collect()
            }
            Layer::Embedding(embedding) => {
                let columns = embedding.columns();
                let is_number = |feature: &usize| columns.iter().all(|column| column.feature != *feature);
                let mut next: Vec<f64> = (0..x.len()).filter(is_number).map(|feature| x[feature]).collect();
                for column in columns {
                    let (vectors, place) = (tensors.next().unwrap(), x[column.feature] as usize);
                    let vector = |j: usize| match place {
                        0 => 0.0,
                        place => vectors.get((place - 1) * column.width + j).copied().unwrap_or(0.0),
                    };
                    next.extend((0..column.width).map(vector));
                }
                next
            }
            Layer::Convolution(of) => {
                let (w, b) = (tensors.next().unwrap(), tensors.next().unwrap());
                let (places, window) = (of.height * of.width, 9 * of.channels);
                let seen = |place: usize, j: usize| {
                    let (line, column) =
                        (place / of.width + j / (3 * of.channels), place % of.width + j / of.channels % 3);
                    let is_inside = (1..=of.height).contains(&line) && (1..=of.width).contains(&column);
                    if is_inside {
                        x[((line - 1) * of.width + column - 1) * of.channels + j % of.channels]
                    } else {
                        0.0
                    }
                };
                let out = |place: usize, c: usize| {
                    (0..window).fold(b[c], |sum, j| sum + seen(place, j) * w[j * of.outputs + c])
                };
                (0..places * of.outputs).map(|at| out(at / of.outputs, at % of.outputs)).collect()
            }
            Layer::Pooling(of) => {
                let value = |y: usize, u: usize, c: usize| x[(y * of.width + u) * of.channels + c];
                let out = |at: usize| {
                    let (place, c) = (at / of.channels, at % of.channels);
                    let (y, u) = (2 * (place / (of.width / 2)), 2 * (place % (of.width / 2)));
                    value(y, u, c).max(value(y, u + 1, c)).max(value(y + 1, u, c)).max(value(y + 1, u + 1, c))
                };
                (0..(of.height / 2) * (of.width / 2) * of.channels).map(out).collect()
            }
            Layer::Activate(activate) => {
                let of = |x: &f64| match activate.by {
                    Activation::Relu => x.max(0.0),
                    Activation::Gelu => x * 0.5 * libm::erfc(-x / 2f64.sqrt()),
                    Activation::Tanh => libm::tanh(*x),
                    Activation::Silu => x / (1.0 + libm::exp(-x)),
                };
                x.iter().map(of).collect()
            }
            Layer::Dropout(dropout) => {
                let draws = TRAINING.draws(number);
                let is_kept = |unit: usize| draws.takes(1.0 - dropout.rate, row * dropout.width as u64 + unit as u64);
                let of = |(unit, x)| if is_kept(unit) { x / (1.0 - dropout.rate) } else { 0.0 };
                x.iter().enumerate().map(of).collect()
            }
            Layer::LayerNorm(norm) => {
                let (scale, shift) = (tensors.next().unwrap(), tensors.next().unwrap());
                let n = norm.width as f64;
                let mean = x.iter().fold(0.0, |s, x| s + x) / n;
                let variance = x.iter().fold(0.0, |s, x| s + (x - mean) * (x - mean)) / n;
                let of = |j: usize| (x[j] - mean) / (variance + 1e-5).sqrt() * scale[j] + shift[j];
                (0..norm.width).map(of).collect()
            }
            Layer::BatchNorm(_) => panic!("its rows are not by themselves: see batch_norm.rs"),
            Layer::Skip { from, .. } => x.iter().zip(&values[*from]).map(|(a, b)| a + b).collect(),
        };
        values.push(next);
    }
    values.pop().unwrap()
}

fn tensors_of(network: &Network) -> Vec<Vec<f64>> {
    let widened = |number| network.tensor(number).into_iter().map(f64::from).collect();
    (0..network.tensors().len()).map(widened).collect()
}

fn loss(network: &Network, tensors: &[Vec<f64>]) -> f64 {
    let (x, k) = (inputs(network), network.n_scores());
    let c = weights(k);
    (0..ROWS).fold(0.0, |sum, row| {
        let out = twin(network, tensors, &x[row * 6..(row + 1) * 6], global_row(row));
        out.iter().zip(&c[row * k..]).fold(sum, |sum, (out, c)| sum + out * c)
    })
}

/// The rows in strips of these lengths, forward and back.
fn strips(network: &Network, lens: &[usize]) -> Vec<Strip> {
    let (x, k, n_layers) = (inputs(network), network.n_scores(), network.layers().len());
    let c = weights(k);
    let mut turned = network.turned();
    turned.take_up(network);
    let mut first = 0;
    let mut one = |len: usize| {
        let mut strip = network.strip(len, true);
        strip.n_rows = len;
        for slot in 0..len {
            let row = first + slot;
            strip.rows[slot] = global_row(row);
            let values: Vec<f32> = x[row * 6..(row + 1) * 6].iter().map(|x| *x as f32).collect();
            Network::put(crate::model::Row::Dense(&values), &mut strip, slot);
        }
        network.forward(0..n_layers, Some(TRAINING), &[], &turned, &mut strip);
        for slot in 0..len {
            let of_row = c[(first + slot) * k..].iter().map(|c| *c as f32);
            strip.slopes_mut(n_layers).row(slot).iter_mut().zip(of_row).for_each(|(slope, c)| *slope = c);
        }
        network.backward(1..n_layers, Some(TRAINING), &[], &turned, &mut strip);
        first += len;
        strip
    };
    lens.iter().map(|len| one(*len)).collect()
}

fn gradient(network: &Network, strips: &[Strip]) -> Vec<f32> {
    let mut gradient = vec![0.0; network.params.len()];
    for layer in 0..network.layers().len() {
        for part in network.parts(layer) {
            network.gradient(layer, &part, &[], strips.iter(), &mut gradient[part.range.clone()]);
        }
    }
    gradient
}

#[test]
fn outputs_and_gradients_are_those_of_the_twin() {
    for config in configs() {
        let network = network(&config);
        let strips = strips(&network, &[ROWS]);
        let (tensors, x) = (tensors_of(&network), inputs(&network));
        for row in 0..ROWS {
            let plain = twin(&network, &tensors, &x[row * 6..(row + 1) * 6], global_row(row));
            for (out, plain) in strips[0].values(network.layers().len()).row(row).iter().zip(plain) {
                approx::assert_relative_eq!(f64::from(*out), plain, epsilon = 2e-5, max_relative = 2e-5);
            }
        }
        let mut found = network.clone();
        found.params.copy_from_slice(&gradient(&network, &strips));
        for (number, tensor) in tensors_of(&found).into_iter().enumerate() {
            let scale = tensor.iter().fold(0.1, |scale: f64, g| scale.max(g.abs()));
            // A few elements of each.
            for at in (0..tensor.len()).step_by(tensor.len() / 7 + 1) {
                let step = 1e-6;
                let moved = |by: f64| {
                    let mut tensors = tensors.clone();
                    tensors[number][at] += by;
                    loss(&network, &tensors)
                };
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                assert!(
                    (tensor[at] - difference).abs() <= 5e-5 * scale,
                    "{config:?}: tensor {number}, {at}: {} and {difference}",
                    tensor[at]
                );
            }
        }
    }
}

#[test]
fn strips_leave_no_trace() {
    let narrow = configs().into_iter().map(|config| MlpConfig { precision: Precision::Bf16, ..config });
    for config in configs().into_iter().chain(narrow) {
        let network = network(&config);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let whole = strips(&network, &[ROWS]);
        let of_whole = gradient(&network, &whole);
        for lens in [vec![1; ROWS], vec![8, 5], vec![3, 9, 1], vec![0, 12, 1, 0]] {
            let cut = strips(&network, &lens);
            assert_eq!(bits(&gradient(&network, &cut)), bits(&of_whole), "{lens:?} {config:?}");
            let mut row = 0;
            for strip in &cut {
                for slot in 0..strip.n_rows {
                    let last = network.layers().len();
                    assert_eq!(bits(strip.values(last).row(slot)), bits(whole[0].values(last).row(row)));
                    row += 1;
                }
            }
        }
    }
}

#[test]
fn a_row_is_predicted_with_the_bits_it_has_alone() {
    let network = network(&MlpConfig { dropout: 0.5, ..MlpConfig::default() });
    let rows: Vec<Vec<f32>> = inputs(&network).chunks(6).map(|row| row.iter().map(|x| *x as f32).collect()).collect();
    let mut all = vec![0.0; ROWS * 3];
    network.scores(rows.iter().map(|row| crate::model::Row::Dense(row)), &mut all);
    for (row, scores) in rows.iter().zip(all.chunks_exact(3)) {
        let mut alone = [0.0; 3];
        network.scores([crate::model::Row::Dense(row)].into_iter(), &mut alone);
        assert_eq!(alone, scores);
    }
    // Sparse rows are the same rows.
    let row = [0.0, 1.5, 0.0, 0.0, -2.0, 0.0];
    let (mut dense, mut sparse) = ([0.0; 3], [0.0; 3]);
    network.scores([crate::model::Row::Dense(&row)].into_iter(), &mut dense);
    network.scores([crate::model::Row::Sparse(&[1, 4], &[1.5, -2.0])].into_iter(), &mut sparse);
    assert_eq!(dense, sparse);
}

#[test]
fn parts_cover_every_parameter_once_in_order() {
    for config in configs() {
        let network = network(&config);
        let mut end = 0;
        for part in (0..network.layers().len()).flat_map(|layer| network.parts(layer)) {
            assert_eq!(part.range.start, end);
            end = part.range.end;
        }
        assert_eq!(end, network.params.len());
    }
}

#[test]
fn starting_weights_have_the_deviations_of_he_and_glorot() {
    let mut network = build(&MlpConfig { layers: vec![300], ..MlpConfig::default() }, 200, 100);
    network.start(1);
    let deviation = |number: usize| {
        let values = network.tensor(number);
        (values.iter().fold(0.0, |s, v| s + f64::from(*v) * f64::from(*v)) / values.len() as f64).sqrt()
    };
    approx::assert_relative_eq!(deviation(0), (2.0f64 / 200.0).sqrt(), max_relative = 0.02);
    approx::assert_relative_eq!(deviation(2), (2.0f64 / 400.0).sqrt(), max_relative = 0.02);
    assert_eq!(deviation(1), 0.0);
    let mut other = network.clone();
    other.start(2);
    assert_ne!(network, other);
}

#[test]
fn vectors_of_categories_begin_as_long_as_a_number() {
    let config = MlpConfig { layers: vec![3], ..MlpConfig::default() };
    let mut network = build_for(&config, 4, &[(0, 3), (2, 10_000), (3, 0)], 1);
    network.start(1);
    let Layer::Embedding(embedding) = &network.layers()[0] else { panic!("an embedding") };
    let of = |column: &Embedded| (column.feature, column.n_categories, column.width);
    // 1.6·3^0.56 = 2.96; 1.6·10000^0.56 = 278. A column without categories passes.
    assert_eq!(embedding.columns().iter().map(of).collect::<Vec<_>>(), [(0, 3, 3), (2, 10_000, 50)]);
    assert_eq!((network.layers()[0].width(), network.n_features), (2 + 3 + 50, 4));
    let length = network.tensor(1).iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / 10_000.0;
    approx::assert_relative_eq!(length, 1.0, max_relative = 0.01);
}

/// Layers in plain loops of float32 that round what enters a product: values and slopes of each row, as strips have them, and the gradient of each tensor.
struct Narrow {
    values: Vec<Vec<Vec<f32>>>,
    slopes: Vec<Vec<Vec<f32>>>,
    gradients: Vec<Vec<f32>>,
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect()
}

/// What an image shows around one of its places, window place after window place, and 0 beyond it.
fn around(of: &Convolution, image: &[f32], channels: usize, place: usize) -> Vec<f32> {
    let one = |j: usize| {
        let (line, column) = (place / of.width + j / (3 * channels), place % of.width + j / channels % 3);
        let is_inside = (1..=of.height).contains(&line) && (1..=of.width).contains(&column);
        if is_inside { image[((line - 1) * of.width + column - 1) * channels + j % channels] } else { 0.0 }
    };
    (0..9 * channels).map(one).collect()
}

/// One product: the chain of a column of weights.
fn chain(start: f32, left: &[f32], weight: impl Fn(usize) -> f32) -> f32 {
    left.iter().enumerate().fold(start, |sum, (j, x)| x.mul_add(weight(j), sum))
}

/// Of dense layers, convolutions, rectifiers and paths around them.
fn narrow_twin(network: &Network, x: &[f32], last_slopes: &[f32]) -> Narrow {
    let n_layers = network.layers().len();
    let mut first_tensor = vec![0];
    first_tensor.extend(network.layers().iter().map(|layer| layer.operation().map_or(0, |of| of.tensors().len())));
    (1..first_tensor.len()).for_each(|at| first_tensor[at] += first_tensor[at - 1]);
    let tensors: Vec<Vec<f32>> = (0..network.tensors().len()).map(|number| network.tensor(number)).collect();
    let is_product = |layer: usize| matches!(network.layers()[layer], Layer::Dense(_) | Layer::Convolution(_));
    let mut gradients: Vec<Vec<f32>> = tensors.iter().map(|tensor| vec![0.0; tensor.len()]).collect();
    let (mut all_values, mut all_slopes) = (Vec::new(), Vec::new());
    for row in 0..ROWS {
        let mut values = vec![x[row * 6..(row + 1) * 6].to_vec()];
        for (number, layer) in network.layers().iter().enumerate() {
            let x = values.last().unwrap();
            let next: Vec<f32> = match layer {
                Layer::Dense(Dense { outputs: n, .. }) => {
                    let (w, b) = (rounded(&tensors[first_tensor[number]]), &tensors[first_tensor[number] + 1]);
                    (0..*n).map(|c| chain(b[c], &rounded(x), |j| w[j * n + c])).collect()
                }
                Layer::Convolution(of) => {
                    let (w, b, n) =
                        (rounded(&tensors[first_tensor[number]]), &tensors[first_tensor[number] + 1], of.outputs);
                    let out = |at: usize| {
                        let seen = around(of, &rounded(x), of.channels, at / n);
                        chain(b[at % n], &seen, |j| w[j * n + at % n])
                    };
                    (0..of.height * of.width * n).map(out).collect()
                }
                Layer::Activate(_) => x.iter().map(|x| if *x > 0.0 { *x } else { 0.0 }).collect(),
                Layer::Skip { from, .. } => x.iter().zip(&values[*from]).map(|(a, b)| a + b).collect(),
                other => panic!("no twin of {other:?}"),
            };
            values.push(next);
        }
        let mut slopes = vec![Vec::new(); n_layers + 1];
        let n = network.n_outputs();
        slopes[n_layers] = rounded(&last_slopes[row * n..(row + 1) * n]);
        for number in (0..n_layers).rev() {
            let (x, d, t) = (&values[number], slopes[number + 1].clone(), first_tensor[number]);
            let mut back: Vec<f32> = match &network.layers()[number] {
                Layer::Dense(Dense { inputs, outputs: n, .. }) => {
                    let w = rounded(&tensors[t]);
                    for (at, gradient) in gradients[t].iter_mut().enumerate() {
                        *gradient = rounded(x)[at / n].mul_add(d[at % n], *gradient);
                    }
                    gradients[t + 1].iter_mut().zip(&d).for_each(|(gradient, d)| *gradient += d);
                    (0..*inputs).map(|j| chain(0.0, &d, |c| w[j * n + c])).collect()
                }
                Layer::Convolution(of) => {
                    let (w, n, m) = (rounded(&tensors[t]), of.outputs, of.channels);
                    for place in 0..of.height * of.width {
                        let (seen, d) = (around(of, &rounded(x), m, place), &d[place * n..]);
                        for (at, gradient) in gradients[t].iter_mut().enumerate() {
                            *gradient = seen[at / n].mul_add(d[at % n], *gradient);
                        }
                        gradients[t + 1].iter_mut().zip(d).for_each(|(gradient, d)| *gradient += d);
                    }
                    let of_place = |at: usize| {
                        let seen = around(of, &d, n, at / m);
                        chain(0.0, &seen, |j| w[((8 - j / n) * m + at % m) * n + j % n])
                    };
                    (0..of.height * of.width * m).map(of_place).collect()
                }
                Layer::Activate(_) => x.iter().zip(&d).map(|(x, d)| d * f32::from(u8::from(*x > 0.0))).collect(),
                _ => d,
            };
            for (skip, layer) in network.layers().iter().enumerate() {
                if matches!(layer, Layer::Skip { from, .. } if *from == number) {
                    back.iter_mut().zip(&slopes[skip + 1]).for_each(|(to, from)| *to += from);
                }
            }
            slopes[number] = if number > 0 && is_product(number - 1) { rounded(&back) } else { back };
        }
        all_values.push(values);
        all_slopes.push(slopes);
    }
    Narrow { values: all_values, slopes: all_slopes, gradients }
}

#[test]
fn sixteen_bits_have_the_bits_of_plain_loops_that_round() {
    let base = MlpConfig { precision: Precision::Bf16, ..MlpConfig::default() };
    for config in [
        MlpConfig { layers: vec![], ..base.clone() },
        MlpConfig { layers: vec![33, 70, 5], ..base.clone() },
        MlpConfig { layers: vec![17, 17, 17], residual: true, ..base.clone() },
    ] {
        same_as_narrow_twin(&network(&config));
    }
    // Two stages, without pooling.
    let stage = |channels, outputs| Layer::Convolution(Convolution::new([3, 2, channels], outputs, 1.0));
    let activate = |width| Layer::Activate(Activate { width, by: Activation::Relu });
    let dense = Layer::Dense(Dense { inputs: 42, outputs: 3, gain: 1.0 });
    let mut network = Network::new(6, vec![stage(1, 5), activate(30), stage(5, 7), activate(42), dense]);
    network.precision = Precision::Bf16;
    network.start(3);
    same_as_narrow_twin(&network);
}

fn same_as_narrow_twin(network: &Network) {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let x: Vec<f32> = inputs(network).into_iter().map(|x| x as f32).collect();
    let slopes: Vec<f32> = weights(network.n_scores()).into_iter().map(|c| c as f32).collect();
    let (strips, twin) = (strips(network, &[5, 8]), narrow_twin(network, &x, &slopes));
    let n_layers = network.layers().len();
    for row in 0..ROWS {
        let (strip, slot) = if row < 5 { (&strips[0], row) } else { (&strips[1], row - 5) };
        for at in 0..=n_layers {
            assert_eq!(bits(strip.values(at).row(slot)), bits(&twin.values[row][at]), "row {row}, into layer {at}");
            // Nothing goes back in front of the first layer.
            if at > 0 {
                let found = bits(strip.slopes(at).row(slot));
                assert_eq!(found, bits(&twin.slopes[row][at]), "row {row}, slopes into layer {at}");
            }
        }
    }
    let mut found = network.clone();
    found.params.copy_from_slice(&gradient(network, &strips));
    for (number, wanted) in twin.gradients.iter().enumerate() {
        assert_eq!(bits(&found.tensor(number)), bits(wanted), "gradient of tensor {number}");
    }
    // Predictions are those of float32.
    let (rows, k) = (|| x.chunks(6).map(crate::model::Row::Dense), network.n_scores());
    let (mut narrow, mut wide) = (vec![0.0; ROWS * k], vec![0.0; ROWS * k]);
    network.scores(rows(), &mut narrow);
    Network { precision: Precision::F32, ..network.clone() }.scores(rows(), &mut wide);
    assert_eq!(narrow, wide);
    let trained = (0..ROWS).map(|row| f64::from(twin.values[row][n_layers][0]));
    assert!(trained.zip(wide.iter().step_by(k)).any(|(a, b)| a != *b), "rounding is seen");
}
