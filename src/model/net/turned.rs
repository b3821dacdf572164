//! What products want of the parameters, once a step.

use super::Network;
use super::operation::Operation;
use crate::matmul::{Aligned, Weights, round_all, zeros};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Weights as the way back multiplies by them, and if products are narrow, as the way forward does.
#[derive(Clone, Debug, Default)]
pub struct Turned {
    layers: Vec<OfLayer>,
}

#[derive(Clone, Debug)]
struct OfLayer {
    /// Of what is turned, the runs that may be worked out at once.
    parts: Vec<Range<usize>>,
    /// Turned; empty where products are narrow, and in front of the first layer, behind which nothing goes.
    wide: Aligned,
    /// The weights as they are among the parameters, rounded, and turned.
    narrow: [Vec<bf16>; 2],
}

/// Numbers that one task rounds.
const RUN: usize = 1 << 14;

impl Network {
    /// Room for what layers want of the parameters in training. Not collective.
    pub fn turned(&self) -> Turned {
        let of = |(number, layer): (usize, &super::Layer)| {
            let n_weights = layer.n_weights();
            let n_turned = if number > 0 { n_weights } else { 0 };
            let room = |n| vec![bf16::ZERO; n];
            OfLayer {
                parts: layer.operation().filter(|_| number > 0).map(Operation::turned_parts).unwrap_or_default(),
                wide: zeros(if self.is_narrow() { 0 } else { n_turned }),
                narrow: if self.is_narrow() { [room(n_weights), room(n_turned)] } else { Default::default() },
            }
        };
        Turned { layers: self.layers().iter().enumerate().map(of).collect() }
    }
}

impl Turned {
    /// Takes up the parameters. Not collective; rayon over parts.
    ///
    /// # Panics
    /// If this is the room of another network.
    pub fn take_up(&mut self, network: &Network) {
        self.layers.par_iter_mut().enumerate().for_each(|(number, of_layer)| {
            let Some(operation) = network.layers()[number].operation() else { return };
            let params = &network.params[network.place(number)];
            let OfLayer { parts, wide, narrow: [weights, turned] } = of_layer;
            if !weights.is_empty() {
                let from = params[..weights.len()].par_chunks(RUN);
                weights.par_chunks_mut(RUN).zip(from).for_each(|(to, from)| round_all(from, to));
                each_part(parts, turned, |part, to| operation.turn_narrow(weights, part, to));
            } else {
                each_part(parts, wide, |part, to| operation.turn(params, part, to));
            }
        });
    }

    /// The first parameters of a layer as products multiply by them on the way forward: rounded, if that is wanted.
    pub(super) fn forward<'a>(&'a self, layer: usize, params: &'a [f32], n_weights: usize) -> Weights<'a> {
        match self.layers.get(layer) {
            Some(OfLayer { narrow: [weights, _], .. }) if !weights.is_empty() => Weights::Narrow(weights),
            _ => Weights::Wide(&params[..n_weights]),
        }
    }

    /// The same turned, for the way back.
    pub(super) fn backward(&self, layer: usize) -> Weights<'_> {
        let OfLayer { wide, narrow: [_, turned], .. } = &self.layers[layer];
        if turned.is_empty() { Weights::Wide(wide) } else { Weights::Narrow(turned) }
    }
}

fn each_part<T: Send>(parts: &[Range<usize>], mut values: &mut [T], make: impl Fn(usize, &mut [T]) + Sync) {
    let of_part = |part: &Range<usize>| values.split_off_mut(..part.len()).expect("parts make up what is turned");
    let each: Vec<&mut [T]> = parts.iter().map(of_part).collect();
    each.into_par_iter().enumerate().for_each(|(part, to)| make(part, to));
}
