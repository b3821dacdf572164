//! Some values of a row become 0 while a network is trained.

use super::operation::{Operation, Pass, Values, ValuesMut};

/// Each value is dropped with probability `rate`, and the others are multiplied by 1/(1 − rate). Which ones is drawn from (seed, step, layer,
/// global row, unit), so that the way back draws the same again and nothing is kept. Every layer draws for itself.
///
/// Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, *Dropout*, JMLR 15, 2014, in the form that leaves prediction alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    pub width: usize,
    pub rate: f64,
}

impl Dropout {
    fn apply(&self, pass: &Pass<'_>, from: Values<'_>, mut to: ValuesMut<'_>) {
        let Some(training) = pass.training else {
            (0..pass.rows.len()).for_each(|row| to.row(row).copy_from_slice(from.row(row)));
            return;
        };
        let draws = training.draws(pass.layer);
        let (keep, factor) = (1.0 - self.rate, (1.0 / (1.0 - self.rate)) as f32);
        for (slot, row) in pass.rows.iter().enumerate() {
            let first = row.wrapping_mul(self.width as u64);
            for ((to, from), unit) in to.row(slot).iter_mut().zip(from.row(slot)).zip(first..) {
                *to = if draws.takes(keep, unit) { from * factor } else { 0.0 };
            }
        }
    }
}

impl Operation for Dropout {
    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, pass: &Pass<'_>, _: &[f32], input: Values<'_>, output: ValuesMut<'_>, _: &mut [f32]) {
        self.apply(pass, input, output);
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        _: &[f32],
        _: Values<'_>,
        _: Values<'_>,
        _: &mut [f32],
        d_output: Values<'_>,
        d_input: ValuesMut<'_>,
    ) {
        self.apply(pass, d_output, d_input);
    }
}
