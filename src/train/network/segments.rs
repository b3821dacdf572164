//! Gradients of runs of layers: made part by part, each turned into integers while it is in cache.

use super::lanes::Piece;
use crate::exact::{Groups, LaneGrid};
use crate::matmul::{SLAB_ROWS, WIDTH};
use crate::model::Network;
use crate::model::net::Part;
use std::ops::Range;

/// Parameters of a segment, at least, if there are so many: a message of a megabyte.
const LEAST: usize = 1 << 18;
/// Elements that share an exponent, at most.
const GROUP: usize = 65_536;

/// A run of layers whose gradient travels in one message.
pub(super) struct Segment {
    pub layers: Range<usize>,
    /// Its parameters among all.
    pub params: Range<usize>,
    parts: Vec<LayerPart>,
    /// One number a parameter: Σ over the lanes here.
    pub words: Vec<u32>,
    /// One a part.
    peaks: Vec<i32>,
}

/// A part of the parameters of a layer.
struct LayerPart {
    layer: usize,
    part: Part,
    group: usize,
}

/// Cuts a network into segments, in the order in which they are ready, that is from the last layer to the first, and groups its parameters.
/// Not collective; a function of the network.
pub(super) fn segments(network: &Network) -> (Vec<Segment>, Groups) {
    let mut bounds = vec![0];
    let mut all: Vec<Vec<LayerPart>> = Vec::new();
    for layer in 0..network.layers().len() {
        let mut tensor = None;
        let mut of_layer = Vec::new();
        for part in network.parts(layer) {
            // A group is of one tensor.
            let is_open = tensor == Some(part.tensor) && part.range.end - bounds[bounds.len() - 2] <= GROUP;
            if is_open {
                bounds.pop();
            }
            bounds.push(part.range.end);
            tensor = Some(part.tensor);
            of_layer.push(LayerPart { layer, group: bounds.len() - 2, part });
        }
        all.push(of_layer);
    }
    let mut segments = Vec::new();
    let (mut end, mut parts) = (all.len(), Vec::new());
    for layer in (0..all.len()).rev() {
        parts.splice(0..0, all.pop().expect("one entry a layer"));
        let n: usize = network.place(end - 1).end - network.place(layer).start;
        if n >= LEAST || layer == 0 {
            let params = network.place(layer).start..network.place(end - 1).end;
            let (words, peaks) = (vec![0; params.len()], vec![0; parts.len()]);
            segments.push(Segment { layers: layer..end, params, parts: std::mem::take(&mut parts), words, peaks });
            end = layer;
        }
    }
    (segments, Groups::of_bounds(bounds))
}

/// What gradients are made from.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub network: &'a Network,
    /// Lane after lane.
    pub pieces: &'a [Piece],
    /// The pieces of each lane here that has a row to offer.
    pub lanes: &'a [Range<usize>],
    pub moments: &'a [Vec<f32>],
    pub grid: LaneGrid,
    /// One a group.
    pub exponents: &'a [i32],
}

impl Segment {
    /// Makes the gradients of the lanes here, and their words at these exponents. Not collective; rayon over parts.
    pub fn enter(&mut self, made: &Made<'_>) {
        enter(made, &self.parts, &mut self.words, &mut self.peaks);
    }

    /// Raises peaks of groups to those of the last [`enter`](Self::enter). Not collective.
    pub fn peaks(&self, peaks: &mut [i32]) {
        for (part, peak) in self.parts.iter().zip(&self.peaks) {
            peaks[part.group] = peaks[part.group].max(*peak);
        }
    }
}

/// Halves the parts among threads.
fn enter(made: &Made<'_>, parts: &[LayerPart], words: &mut [u32], peaks: &mut [i32]) {
    match parts {
        [] => {}
        [one] => {
            peaks[0] = 0;
            words.fill(0);
            let mut slab = [0.0f32; SLAB_ROWS * WIDTH];
            let slab = &mut slab[..one.part.range.len()];
            for pieces in made.lanes {
                slab.fill(0.0);
                for piece in &made.pieces[pieces.clone()] {
                    made.network.add_gradient(one.layer, &one.part, made.moments, &piece.strip, slab);
                }
                peaks[0] = peaks[0].max(LaneGrid::peak(slab));
                made.grid.add(words, slab, made.exponents[one.group]);
            }
        }
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            let (words_left, words_right) = words.split_at_mut(right[0].part.range.start - left[0].part.range.start);
            let (peaks_left, peaks_right) = peaks.split_at_mut(left.len());
            rayon::join(|| enter(made, left, words_left, peaks_left), || enter(made, right, words_right, peaks_right));
        }
    }
}
