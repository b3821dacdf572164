//! Exact sums over ranks: integers travel, floats come out. Every function here is collective.

use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::{BlockSums, ExactSum};

/// A global sum, or the news that some contribution was infinite or not a number. The same on every rank.
pub enum Total {
    Finite(Vec<f64>),
    NonFinite,
}

/// Sums block contributions over all ranks at agreed exponents. Collective.
///
/// Two all-reduces: 4 bytes an element for the exponents, 24 for the sums.
pub fn sum_blocks(comm: &Communicator, sums: &BlockSums) -> Result<Total> {
    let mut exponents = sums.exponents();
    comm.all_reduce_max(&mut exponents)?;
    if exponents.contains(&i32::MAX) {
        return Ok(Total::NonFinite);
    }
    let mut limbs = sums.limbs(&exponents);
    comm.all_reduce_sum(&mut limbs)?;
    Ok(Total::Finite(sums.finish(&exponents, &limbs)))
}

/// Adds scalar sums over all ranks. Collective.
pub fn sum_scalars<const N: usize>(comm: &Communicator, sums: &[ExactSum; N]) -> Result<[ExactSum; N]> {
    let mut words: Vec<u64> = sums.iter().flat_map(|sum| sum.to_words()).collect();
    comm.all_reduce_sum(&mut words)?;
    Ok(std::array::from_fn(|i| ExactSum::from_words(&words[i * ExactSum::WORDS..(i + 1) * ExactSum::WORDS])))
}
