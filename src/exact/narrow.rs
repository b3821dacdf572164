//! Gradients in 16 or 8 bits: what rounding and clamping lose stays with the lane, and goes into its next gradient.

use super::kernels;
use super::lanes::LaneGrid;
use super::scale::{ceil_log2, pow2};

/// Bits of a lane's integer, at least: ±3.
const LEAST_PAYLOAD: u32 = 2;

/// How a lane's gradient becomes integers of a few bits, with error feedback, and how these travel: as fields of u64 words, added
/// by the wrapping 64-bit sum (`EXACT` 2b; MPI libraries add 8 and 16 bits by themselves wrongly).
///
/// Sources: Seide, Fu, Droppo, Li, Yu, *1-bit stochastic gradient descent*, Interspeech 2014; Karimireddy, Rebjock, Stich, Jaggi, *Error
/// feedback fixes SignSGD*, ICML 2019.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NarrowGrid {
    bits: u32,
    grid: LaneGrid,
}

impl NarrowGrid {
    /// `n_lanes`: L over all ranks, a model setting; `bits`: 16 or 8. None: so many lanes leave too few bits to each. Not collective.
    ///
    /// # Panics
    /// If L is 0, or there are other bits.
    pub fn new(n_lanes: usize, bits: u32) -> Option<NarrowGrid> {
        assert!(n_lanes > 0 && (bits == 16 || bits == 8), "{bits} bits, {n_lanes} lanes");
        let payload = (bits - 1).checked_sub(ceil_log2(n_lanes as u64)).filter(|payload| *payload >= LEAST_PAYLOAD)?;
        Some(NarrowGrid { bits, grid: LaneGrid::with_payload(payload as i32) })
    }

    /// The most lanes that these bits are enough for.
    pub fn most_lanes(bits: u32) -> usize {
        1 << (bits - 1 - LEAST_PAYLOAD)
    }

    /// Numbers in a word of a message.
    fn fields(self) -> usize {
        (64 / self.bits) as usize
    }

    /// Words of a message of `n` numbers.
    pub fn message_len(self, n: usize) -> usize {
        n.div_ceil(self.fields())
    }

    /// Adds elements of a lane's gradient and what it had left, of one group, at its exponent; `residual` becomes what is left now. Not collective.
    ///
    /// # Panics
    /// If the exponent is outside −96 … 129, or the lengths differ.
    pub fn add(self, sums: &mut [u32], gradient: &[f32], residual: &mut [f32], exponent: i32) {
        assert_eq!((sums.len(), gradient.len()), (residual.len(), residual.len()), "one number an element");
        let unit = self.grid.unit(exponent);
        kernels::add_lane_fed(sums, gradient, residual, unit, self.grid.limit());
    }

    /// Sums of this rank's lanes as a message. Not collective.
    ///
    /// # Panics
    /// If the message has not [`message_len`](Self::message_len) words.
    pub fn pack(self, sums: &[u32], message: &mut [u64]) {
        assert_eq!(message.len(), self.message_len(sums.len()), "words of a message");
        for (word, sums) in message.iter_mut().zip(sums.chunks(self.fields())) {
            let field = |(i, sum): (usize, &u32)| (i64::from(*sum as i32) as u64) << (self.bits as usize * i);
            *word = sums.iter().enumerate().map(field).fold(0, u64::wrapping_add);
        }
    }

    /// The (reduced) message as sums: of each field, from the lowest, the sign is extended and what it took from those above is given back. Not
    /// collective.
    ///
    /// # Panics
    /// As [`pack`](Self::pack).
    pub fn unpack(self, message: &[u64], sums: &mut [u32]) {
        assert_eq!(message.len(), self.message_len(sums.len()), "words of a message");
        let above = 64 - self.bits;
        for (word, sums) in message.iter().zip(sums.chunks_mut(self.fields())) {
            let mut rest = *word;
            for sum in sums {
                let field = ((rest << above) as i64) >> above;
                *sum = field as u32;
                rest = (rest.wrapping_sub(field as u64) as i64 >> self.bits) as u64;
            }
        }
    }

    /// Sums as float32, as [`LaneGrid::finish`]. Not collective.
    ///
    /// # Panics
    /// If the exponent is outside −96 … 129.
    pub fn finish(self, sums: &[u32], exponent: i32, out: &mut [f32]) {
        self.grid.finish(sums, exponent, out);
    }
}

impl LaneGrid {
    fn with_payload(payload_bits: i32) -> LaneGrid {
        LaneGrid::of(payload_bits, pow2(payload_bits) - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};

    #[test]
    fn messages_added_by_words_are_the_sums_of_their_fields() {
        let draws = Draws::new(3, Stream::Synthetic);
        for bits in [8, 16] {
            for n in [1, 3, 4, 8, 9, 1_001] {
                let grid = NarrowGrid::new(4, bits).unwrap();
                // Up to the bounds: four lanes on as many ranks.
                let most = (1i64 << (bits - 3)) - 1;
                let of_rank = |rank: u64| -> Vec<i32> {
                    let draw = |i: u64| match draws.below(4, i, rank) {
                        0 => -most,
                        1 => most,
                        _ => draws.below(2 * most as u64 + 1, i, 9 + rank) as i64 - most,
                    };
                    (0..n as u64).map(|i| draw(i) as i32).collect()
                };
                let mut message = vec![0u64; grid.message_len(n)];
                let mut plain = vec![0i32; n];
                for rank in 0..4 {
                    let sums = of_rank(rank);
                    plain.iter_mut().zip(&sums).for_each(|(plain, sum)| *plain += sum);
                    let mut own = vec![0u64; message.len()];
                    grid.pack(&sums.iter().map(|sum| *sum as u32).collect::<Vec<_>>(), &mut own);
                    message.iter_mut().zip(own).for_each(|(a, b)| *a = a.wrapping_add(b));
                }
                let mut found = vec![0u32; n];
                grid.unpack(&message, &mut found);
                assert_eq!(found.iter().map(|sum| *sum as i32).collect::<Vec<_>>(), plain, "{bits} bits, {n}");
            }
        }
    }

    /// What was sent and what is left is all that there was, whatever the width.
    #[test]
    fn nothing_is_lost_in_the_long_run() {
        let draws = Draws::new(4, Stream::Synthetic);
        for (bits, n_lanes) in [(8, 1), (8, 16), (16, 64)] {
            let grid = NarrowGrid::new(n_lanes, bits).unwrap();
            let (mut residual, mut sent, mut given) = (vec![0.0f32; 50], vec![0.0f64; 50], vec![0.0f64; 50]);
            for step in 0..100 {
                // One element is far above what the exponent holds now and then.
                let gradient: Vec<f32> = (0..50)
                    .map(|i| draws.normal(i, step) as f32 * if i == 7 && step % 9 == 0 { 8.0 } else { 0.3 })
                    .collect();
                let mut sums = vec![0u32; 50];
                grid.add(&mut sums, &gradient, &mut residual, 0);
                let mut out = vec![0.0f32; 50];
                grid.finish(&sums, 0, &mut out);
                for i in 0..50 {
                    sent[i] += f64::from(out[i]);
                    given[i] += f64::from(gradient[i]);
                }
            }
            let unit = 2f64.powi(2 - bits as i32 + (n_lanes as f64).log2().ceil() as i32);
            for i in 0..50 {
                let left = f64::from(residual[i]);
                assert!((sent[i] + left - given[i]).abs() < 1e-4, "{bits} bits: {} + {left} of {}", sent[i], given[i]);
                assert!(i == 7 || left.abs() <= 1.0 + 2.0 * unit, "{left} is left of element {i}");
            }
        }
    }

    #[test]
    fn too_many_lanes_are_refused() {
        assert_eq!((NarrowGrid::most_lanes(8), NarrowGrid::most_lanes(16)), (32, 8192));
        assert!(NarrowGrid::new(32, 8).is_some() && NarrowGrid::new(33, 8).is_none());
    }
}
