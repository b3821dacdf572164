//! Targets and weights of rows as the integers that trees are grown from.

use super::super::binning::BinnedRows;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::scale::{bounding_exponent, from_order_key, order_key, scale_by_pow2};
use crate::grow::forest::MOST_DRAWS;
use crate::rng::{Draws, FastDraws, Stream};

/// Weights of the rows here as whole numbers.
pub(super) struct Weights {
    pub(super) values: Vec<u64>,
    /// Every row of every rank has weight 0 or 1.
    pub(super) are_units: bool,
    /// No less than the sum over all ranks.
    sum: u64,
}

/// Bits of the sum of all weights: for classes, and for numbers, where targets want bits too.
const CLASS_BITS: i32 = 48;
const NUMBER_BITS: i32 = 28;

impl Weights {
    /// Weights that are whole and add up to few enough bits, and equal ones, stay what they are to each other; others are rounded up or
    /// down by a hash of the row, right on average, to parts of their sum. Collective.
    pub(super) fn new(comm: &Communicator, rows: &BinnedRows, seed: u64) -> Result<Weights> {
        let bits = if rows.target.n_classes() == 0 { NUMBER_BITS } else { CLASS_BITS };
        let most = scale_by_pow2(1.0, bits);
        let weights = || (0..rows.weight.len()).map(|row| rows.weight.get(row)).filter(|weight| *weight > 0.0);
        let is_whole = |weight: f64| libm::trunc(weight) == weight;
        let greatest = weights().fold(0.0, |most: f64, weight| if weight > most { weight } else { most });
        let least = weights().fold(f64::INFINITY, |least, weight| if weight < least { weight } else { least });
        let mut agreed = [order_key(greatest), -order_key(least), i64::from(!weights().all(is_whole))];
        comm.all_reduce_max(&mut agreed)?;
        let are_units = agreed[0] == -agreed[1];
        let are_whole = agreed[2] == 0 && rows.total_weight <= most;
        let draws = FastDraws::new(Draws::new(seed, Stream::Rounding), u64::MAX);
        let of_row = |row: usize| match rows.weight.get(row) {
            weight if weight <= 0.0 => 0,
            _ if are_units => 1,
            weight if are_whole => weight as u64,
            weight => {
                let up = (draws.bits(rows.first_row + row as u64) >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
                libm::floor(weight / rows.total_weight * most + up) as u64
            }
        };
        let values = (0..rows.weight.len()).map(of_row).collect();
        // Rounding up adds no more than one a row.
        let sum = if are_units { rows.n_rows } else { (1u64 << bits).saturating_add(rows.n_rows) };
        Ok(Weights { values, are_units, sum })
    }
}

/// Numbers as `zero + target·unit`.
pub(super) struct Targets {
    pub(super) values: Vec<i64>,
    pub(super) zero: f64,
    pub(super) unit: f64,
    pub(super) range: [f64; 2],
}

/// Targets beyond it would add up to no number.
const MOST_TARGET: f64 = 1e300;
/// The least power of two is 2 to the −1074.
const MOST_SHIFT: i32 = 1074;

impl Targets {
    /// As fine as sums over all draws of all rows allow, up to 2⁻⁵² of the range. Collective.
    ///
    /// Errors: a target is too large (data).
    pub(super) fn new(comm: &Communicator, rows: &BinnedRows, weights: &Weights) -> Result<Targets> {
        let taken = || (0..rows.y.len()).filter(|row| weights.values[*row] > 0).map(|row| rows.y.get(row));
        let mut ends = [i64::MIN; 2];
        for y in taken() {
            ends = [ends[0].max(order_key(y)), ends[1].max(-order_key(y))];
        }
        comm.all_reduce_max(&mut ends)?;
        let (most, least) = (from_order_key(ends[0]), from_order_key(-ends[1]));
        if let Some(far) = [least, most].into_iter().find(|end| end.abs() > MOST_TARGET) {
            return Err(Error::data(format!(
                "the target is {far:e} in some row, and means are not taken of numbers beyond {MOST_TARGET:e}; \
                 leave such rows out, by a weight of 0"
            )));
        }
        let zero = most / 2.0 + least / 2.0;
        let half = (most - zero).max(zero - least);
        let sum = weights.sum.saturating_mul(u64::from(MOST_DRAWS));
        let bits = (62 - (u64::BITS - sum.leading_zeros()) as i32).clamp(8, 52);
        // |target| < 2^bits.
        let shift = if half > 0.0 { (bits - 1 - bounding_exponent(half)).min(MOST_SHIFT) } else { 0 };
        let value = |row: usize| libm::floor(scale_by_pow2(rows.y.get(row) - zero, shift) + 0.5) as i64;
        let values = (0..rows.y.len()).map(|row| if weights.values[row] > 0 { value(row) } else { 0 }).collect();
        Ok(Targets { values, zero, unit: scale_by_pow2(1.0, -shift), range: [least, most] })
    }
}
