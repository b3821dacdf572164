//! A network as arrays: float32, one for each tensor, named by layer.
//!
//! | in `params/` | what it is |
//! |---|---|
//! | `layer_NNN_embedding_NNN` | (categories, width): the vectors of the first column of categories, of the second … |
//! | `layer_NNN_weights` | (inputs, outputs) of a dense layer |
//! | `layer_NNN_weights` | (3, 3, channels, outputs) of a convolution: lines of the window, places in a line |
//! | `layer_NNN_bias` | (outputs) |
//! | `layer_NNN_scale`, `layer_NNN_shift` | (units) of a norm |
//! | `layer_NNN_running_mean`, `layer_NNN_running_variance` | (units) of a batch norm: what predictions take |
//! | `score_unit` | deviation and mean of the target: score = output·deviation + mean; of several (targets, 2) |
//! | `mean`, `inverse_scale` | (features): z = (x − mean)·inverse_scale |
//!
//! What layers there are, the settings and the columns say.

use super::model::{finite, misfit};
use super::{Array, ModelFile};
use crate::config::MlpConfig;
use crate::data::Image;
use crate::error::Result;
use crate::model::net::{Layer, TensorSpec, Unit, build_for};
use crate::model::{Network, Preprocess, TargetCoding};
use std::ops::Range;

fn name_of(layer: usize, tensor: &str) -> String {
    format!("layer_{layer:03}_{tensor}")
}

pub(super) fn to_arrays(network: &Network, preprocess: &Preprocess) -> Vec<(String, Array)> {
    let f64s = |values: &[f64]| Array::F64 { shape: vec![values.len()], values: values.to_vec() };
    let mut arrays = vec![
        ("mean".to_string(), f64s(&preprocess.mean)),
        ("inverse_scale".to_string(), f64s(&preprocess.inverse_scale)),
    ];
    let units: Vec<f64> = network.units.iter().flat_map(|unit| [unit.scale, unit.origin]).collect();
    let shape = if network.units.len() == 1 { vec![2] } else { vec![network.units.len(), 2] };
    arrays.push(("score_unit".to_string(), Array::F64 { shape, values: units }));
    for (number, (name, spec)) in names_of(network).into_iter().enumerate() {
        arrays.push((name, Array::F32 { shape: spec.shape, values: network.tensor(number) }));
    }
    for layer in 0..network.layers().len() {
        for (name, range) in running_of(network, layer) {
            arrays.push((name, Array::F32 { shape: vec![range.len()], values: network.running[range].to_vec() }));
        }
    }
    arrays
}

/// Every tensor, with the name of its array.
fn names_of(network: &Network) -> Vec<(String, TensorSpec)> {
    let (mut last, mut of_layer) = (None, 0);
    let name = |(layer, spec, _): (usize, TensorSpec, Range<usize>)| {
        of_layer = if last == Some(layer) { of_layer + 1 } else { 0 };
        last = Some(layer);
        let name = match network.layers()[layer] {
            Layer::Embedding(_) => name_of(layer, &format!("{}_{:03}", spec.name, of_layer)),
            _ => name_of(layer, spec.name),
        };
        (name, spec)
    };
    network.tensors().into_iter().map(name).collect()
}

/// Running moments of a layer, if it is a batch norm: names, and where they are.
fn running_of(network: &Network, layer: usize) -> Vec<(String, Range<usize>)> {
    let (place, n) = (network.running_place(layer), network.running_place(layer).len() / 2);
    let ranges = [("running_mean", place.start..place.start + n), ("running_variance", place.start + n..place.end)];
    ranges
        .into_iter()
        .filter(|(_, range)| !range.is_empty())
        .map(|(name, range)| (name_of(layer, name), range))
        .collect()
}

/// Errors: arrays that are not those of the network that the settings name.
pub(super) fn from_file(
    file: &ModelFile,
    config: &MlpConfig,
    preprocess: &Preprocess,
    target: &TargetCoding,
) -> Result<Network> {
    let n_features = preprocess.n_features();
    // Convolution is built for the shape that the settings name.
    let image = config.image.map(|[height, width, channels]| Image::of_axes(&[height, width, channels]));
    let is_whole = match image {
        Some(image) => image.is_some_and(|image| image.n_values() == Some(n_features)),
        None => config.conv.is_empty(),
    };
    if !is_whole || config.for_image(image.flatten()).is_err() {
        return Err(misfit("image", &format!("a shape of {n_features} values that --conv fits, as the settings say")));
    }
    let n_outputs = config.n_outputs(target.n_classes(), target.n_targets());
    // Settings that were changed by hand may name more than any memory holds.
    let n_stored =
        |(_, array): &(String, Array)| if let Array::F32 { values, .. } = array { values.len() as u64 } else { 0 };
    let n_stored: u64 = file.arrays.iter().map(n_stored).sum();
    if config.check().is_err() || config.n_weights(n_features) > n_stored {
        return Err(misfit("layers", "the layers that the settings name"));
    }
    let mut network = build_for(config, n_features, &preprocess.category_features(), n_outputs);
    for (number, (name, spec)) in names_of(&network).into_iter().enumerate() {
        let (shape, values) = file.f32(&name)?;
        if shape != spec.shape {
            return Err(misfit(&name, &format!("the axes {:?}, as the settings say", spec.shape)));
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(misfit(&name, "finite numbers"));
        }
        network.set_tensor(number, values);
    }
    for layer in 0..network.layers().len() {
        for (name, range) in running_of(&network, layer) {
            let (shape, values) = file.f32(&name)?;
            if shape != [range.len()] {
                return Err(misfit(&name, &format!("{} numbers, as the settings say", range.len())));
            }
            let least = if name.ends_with("variance") { 0.0 } else { f32::MIN };
            if !values.iter().all(|value| (least..=f32::MAX).contains(value)) {
                return Err(misfit(&name, "finite numbers, and no variance below 0"));
            }
            network.running[range].copy_from_slice(values);
        }
    }
    let (_, units) = file.f64("score_unit")?;
    finite("score_unit", units)?;
    network.units = units.as_chunks::<2>().0.iter().map(|&[scale, origin]| Unit { scale, origin }).collect();
    if units.len() != 2 * target.n_targets() || network.units.iter().any(|unit| unit.scale <= 0.0) {
        return Err(misfit("score_unit", "a deviation above 0 and a mean of each target"));
    }
    Ok(network)
}
