//! Numbers of 16 bits: the upper half of a float32.

use half::bf16;
use pulp::Arch;

/// The right operand of a product, as [`Panels`](super::Panels).
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    Wide(&'a [f32]),
    /// Each one counts as the float32 that it is the upper half of.
    Narrow(&'a [bf16]),
}

impl<'a> Weights<'a> {
    pub fn len(self) -> usize {
        match self {
            Weights::Wide(values) => values.len(),
            Weights::Narrow(values) => values.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some numbers from one on, or as many as there are; none if they are narrow, which are read only once.
    pub(super) fn ahead(self, from: usize, n: usize) -> &'a [f32] {
        match self {
            Weights::Wide(values) => &values[from..(from + n).min(values.len())],
            Weights::Narrow(_) => &[],
        }
    }
}

/// The nearest number of 16 bits, of two that are as near the one whose last bit is 0; beyond the largest infinity. In integers, so that loops of it are
/// made of vectors.
#[inline(always)]
pub fn round(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // What is no number stays none: its upper half alone might be infinity.
    let none = bits >> 16 | 0x40;
    bf16::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { none } else { nearest } as u16)
}

/// The same number as a float32.
#[inline(always)]
pub fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Rounds numbers one by one. Not collective.
///
/// # Panics
/// If there is not as much room as there are numbers.
pub fn round_all(from: &[f32], to: &mut [bf16]) {
    assert_eq!(from.len(), to.len(), "a place for each number");
    Arch::new().dispatch(|| to.iter_mut().zip(from).for_each(|(to, from)| *to = round(*from)));
}

/// The same, to float32 that hold numbers of 16 bits. Not collective.
///
/// # Panics
/// If there is not as much room as there are numbers.
pub fn round_between(from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "a place for each number");
    Arch::new().dispatch(|| to.iter_mut().zip(from).for_each(|(to, from)| *to = widen(round(*from))));
}

/// The same in place. Not collective.
pub fn round_in_place(values: &mut [f32]) {
    Arch::new().dispatch(|| values.iter_mut().for_each(|value| *value = widen(round(*value))));
}
