//! Targets and weights of rows as the integers that trees are grown from.

use super::super::binning::BinnedRows;
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::scale::{bounding_exponent, from_order_key, order_key, scale_by_pow2};
use crate::grow::forest::{MOST_DRAWS, MOST_WEIGHT};

/// Weights of the rows here as whole numbers.
pub(super) struct Weights {
    pub(super) values: Vec<u32>,
    /// Every row of every rank has weight 0 or 1.
    pub(super) are_units: bool,
    /// Over all ranks.
    most: u32,
}

impl Weights {
    /// Weights that are whole and small enough, and equal ones, stay what they are to each other; others are rounded to
    /// multiples of the greatest divided by [`MOST_WEIGHT`], and are at least one. Collective.
    pub(super) fn new(comm: &Communicator, rows: &BinnedRows) -> Result<Weights> {
        let weights = || (0..rows.weight.len()).map(|row| rows.weight.get(row)).filter(|weight| *weight > 0.0);
        let is_whole = |weight: f64| libm::trunc(weight) == weight && weight <= f64::from(MOST_WEIGHT);
        let greatest = weights().fold(0.0, |most: f64, weight| if weight > most { weight } else { most });
        let least = weights().fold(f64::INFINITY, |least, weight| if weight < least { weight } else { least });
        let mut agreed = [order_key(greatest), -order_key(least), i64::from(!weights().all(is_whole))];
        comm.all_reduce_max(&mut agreed)?;
        let (greatest, least) = (from_order_key(agreed[0]), from_order_key(-agreed[1]));
        let are_units = greatest == least;
        let of_weight = |weight: f64| match weight {
            weight if weight <= 0.0 => 0,
            _ if are_units => 1,
            weight if agreed[2] == 0 => weight as u32,
            weight => (libm::floor(weight / greatest * f64::from(MOST_WEIGHT) + 0.5) as u32).max(1),
        };
        let values = (0..rows.weight.len()).map(|row| of_weight(rows.weight.get(row))).collect();
        Ok(Weights { values, are_units, most: of_weight(greatest) })
    }
}

/// Numbers as `zero + target·unit`.
pub(super) struct Targets {
    pub(super) values: Vec<i64>,
    pub(super) zero: f64,
    pub(super) unit: f64,
}

impl Targets {
    /// As fine as sums over all draws of all rows allow, up to 2⁻⁴⁰ of the range. Collective.
    pub(super) fn new(comm: &Communicator, rows: &BinnedRows, weights: &Weights) -> Result<Targets> {
        let taken = || (0..rows.y.len()).filter(|row| weights.values[*row] > 0).map(|row| rows.y.get(row));
        let mut ends = [i64::MIN; 2];
        for y in taken() {
            ends = [ends[0].max(order_key(y)), ends[1].max(-order_key(y))];
        }
        comm.all_reduce_max(&mut ends)?;
        let (most, least) = (from_order_key(ends[0]), from_order_key(-ends[1]));
        let zero = most / 2.0 + least / 2.0;
        let half = (most - zero).max(zero - least);
        let bits_of = |n: u64| (u64::BITS - n.leading_zeros()) as i32;
        let draws = rows.n_rows.saturating_mul(u64::from(MOST_DRAWS)).saturating_mul(u64::from(weights.most));
        let bits = (62 - bits_of(draws)).clamp(8, 40);
        // |target| < 2^bits.
        let shift = if half > 0.0 { bits - 1 - bounding_exponent(half) } else { 0 };
        let value = |row: usize| libm::floor(scale_by_pow2(rows.y.get(row) - zero, shift) + 0.5) as i64;
        let values = (0..rows.y.len()).map(|row| if weights.values[row] > 0 { value(row) } else { 0 }).collect();
        Ok(Targets { values, zero, unit: scale_by_pow2(1.0, -shift) })
    }
}
