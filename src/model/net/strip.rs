//! Some rows of one lane on their way through a network and back, with all the room they take.

use super::operation::{Values, ValuesMut, stride_of};
use crate::matmul::{Aligned, round_between, round_in_place, zeros};

/// Buffers of up to `capacity` rows of one lane. Strips are dealt to threads; how rows are cut into them is not part of the answer.
#[derive(Clone, Debug, Default)]
pub struct Strip {
    pub n_rows: usize,
    /// Global number of each row.
    pub rows: Vec<u64>,
    /// Weight of each row, in the unit of the slopes; 1 where nobody says.
    pub weights: Vec<f64>,
    /// What goes into each layer, and last what comes out: (rows, stride).
    values: Vec<Vec<f32>>,
    /// ∂loss/∂ of the same.
    slopes: Vec<Vec<f32>>,
    /// What goes into each layer that multiplies in 16 bits, rounded to them; of other layers nothing. What went before is apart, as other layers see it
    /// too.
    rounded: Vec<Vec<f32>>,
    /// What layers keep of each row.
    pub(super) kept: Vec<Aligned>,
    widths: Vec<usize>,
}

impl Strip {
    /// * `widths`: of what goes into each layer, and last of what comes out.
    /// * `kept`: numbers of a row that each layer keeps.
    /// * `is_rounded`: whether each layer multiplies in 16 bits.
    /// * `is_trained`: there is a way back.
    pub(super) fn new(
        widths: &[usize],
        kept: &[usize],
        is_rounded: &[bool],
        capacity: usize,
        is_trained: bool,
    ) -> Strip {
        let buffers = |is_wanted: bool| -> Vec<Vec<f32>> {
            let len = |width: &usize| if is_wanted { capacity * stride_of(*width) } else { 0 };
            widths.iter().map(|width| vec![0.0; len(width)]).collect()
        };
        let rounded = |(is_rounded, width): (&bool, &usize)| {
            vec![0.0; if *is_rounded { capacity * stride_of(*width) } else { 0 }]
        };
        Strip {
            n_rows: 0,
            rows: vec![0; capacity],
            weights: vec![1.0; capacity],
            values: buffers(true),
            slopes: buffers(is_trained),
            rounded: is_rounded.iter().zip(widths).map(rounded).collect(),
            kept: kept.iter().map(|kept| zeros(kept * capacity)).collect(),
            widths: widths.to_vec(),
        }
    }

    pub fn capacity(&self) -> usize {
        self.rows.len()
    }

    /// What goes into layer `at`; of the number of layers: what comes out of the last one.
    pub fn values(&self, at: usize) -> Values<'_> {
        Values { all: &self.values[at], stride: stride_of(self.widths[at]), width: self.widths[at] }
    }

    /// The same as layer `at` sees it: rounded, if it multiplies in 16 bits and rows have been there.
    pub(super) fn input(&self, at: usize) -> Values<'_> {
        match self.rounded[at].is_empty() {
            true => self.values(at),
            false => Values { all: &self.rounded[at], ..self.values(at) },
        }
    }

    pub fn values_mut(&mut self, at: usize) -> ValuesMut<'_> {
        ValuesMut { all: &mut self.values[at], stride: stride_of(self.widths[at]), width: self.widths[at] }
    }

    /// ∂loss/∂ of them.
    pub fn slopes(&self, at: usize) -> Values<'_> {
        Values { all: &self.slopes[at], stride: stride_of(self.widths[at]), width: self.widths[at] }
    }

    pub fn slopes_mut(&mut self, at: usize) -> ValuesMut<'_> {
        ValuesMut { all: &mut self.slopes[at], stride: stride_of(self.widths[at]), width: self.widths[at] }
    }

    /// Slopes of what goes into layer `at` are there: they are rounded, if they come out of one that multiplies in 16 bits. Nothing else looks at them.
    pub(super) fn round_slopes(&mut self, at: usize) {
        if at > 0 && !self.rounded[at - 1].is_empty() {
            let n = self.n_rows * stride_of(self.widths[at]);
            round_in_place(&mut self.slopes[at][..n]);
        }
    }

    /// What goes into layer `at`, rounded if it multiplies in 16 bits, what comes out of it, and what it keeps.
    pub(super) fn across(&mut self, at: usize) -> (Values<'_>, ValuesMut<'_>, &mut [f32]) {
        let (before, after) = self.values.split_at_mut(at + 1);
        let (from, to) = (self.widths[at], self.widths[at + 1]);
        let (mut input, rounded) = (&before[at], &mut self.rounded[at]);
        if !rounded.is_empty() {
            let n = self.n_rows * stride_of(from);
            round_between(&input[..n], &mut rounded[..n]);
            input = rounded;
        }
        (
            Values { all: input, stride: stride_of(from), width: from },
            ValuesMut { all: &mut after[0], stride: stride_of(to), width: to },
            &mut self.kept[at],
        )
    }

    /// The same on the way back: input, output, what was kept, ∂output and ∂input.
    pub(super) fn back(&mut self, at: usize) -> (Values<'_>, Values<'_>, &mut [f32], Values<'_>, ValuesMut<'_>) {
        let (from, to) = (self.widths[at], self.widths[at + 1]);
        let (before, after) = self.slopes.split_at_mut(at + 1);
        (
            Values { all: &self.values[at], stride: stride_of(from), width: from },
            Values { all: &self.values[at + 1], stride: stride_of(to), width: to },
            &mut self.kept[at],
            Values { all: &after[0], stride: stride_of(to), width: to },
            ValuesMut { all: &mut before[at], stride: stride_of(from), width: from },
        )
    }

    /// Adds the values or slopes of one place to another, which is of the same width.
    pub(super) fn add(&mut self, what: Added, from: usize, to: usize) {
        let all = if what == Added::Values { &mut self.values } else { &mut self.slopes };
        let (from, to) = match from < to {
            true => {
                let (before, after) = all.split_at_mut(to);
                (&before[from], &mut after[0])
            }
            false => {
                let (before, after) = all.split_at_mut(from);
                (&after[0], &mut before[to])
            }
        };
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    }
}

/// What [`Strip::add`] adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    Values,
    Slopes,
}
