//! Are the reductions of this MPI library the ones we rely on? Some saturate where they must wrap,
//! some compare unsigned numbers as signed, some vendors' collectives have mapped types wrongly.
//! Every (type, operator) pair in use is tried at the start of a world; it takes microseconds.

use super::{Communicator, Ordered, Summable};
use crate::error::{Error, Result};

/// Long enough for a library's vector code and its tail.
const LENGTH: usize = 200;

/// Tries every reduction in use with numbers that wrap and change sign; refuses a library that gets
/// one wrong, by name. *Collective.*
pub fn self_test(comm: &Communicator) -> Result<()> {
    let mut wrong = Vec::new();
    let sums32 = |bits: u64| (bits >> 32) as u32;
    if !sums_right(comm, sums32, u32::wrapping_add)? {
        wrong.push("sum of u32");
    }
    if !sums_right(comm, |bits| bits, u64::wrapping_add)? {
        wrong.push("sum of u64");
    }
    let [min32, max32] = extremes_right(comm, |bits| (bits >> 32) as i32)?;
    let [min64, max64] = extremes_right(comm, |bits| bits as i64)?;
    let tried = [(min32, "min of i32"), (max32, "max of i32"), (min64, "min of i64"), (max64, "max of i64")];
    wrong.extend(tried.iter().filter(|(right, _)| !right).map(|(_, name)| *name));
    comm.agree(match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::comm(format!(
            "this message-passing library gets the {} wrong, so results would depend on the number of ranks; \
             use another one (found: {})",
            wrong.join(" and the "),
            comm.library()
        ))),
    })
}

/// What `rank` puts at place `i`: bits without pattern, with the corners at the front.
fn contribution(rank: usize, i: usize) -> u64 {
    match i {
        0 => u64::MAX,
        1 => (1 << 63) | (1 << 31),
        2 => ((1 << 63) - 1) << (rank % 2),
        3 => 0x7fff_ffff_7fff_ffff,
        _ => scramble(((rank as u64) << 32) | i as u64),
    }
}

/// The finisher of splitmix64: any fixed bijection without visible pattern would do.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn sums_right<T: Summable + PartialEq>(comm: &Communicator, from: fn(u64) -> T, add: fn(T, T) -> T) -> Result<bool> {
    let at = |rank: usize| move |i: usize| from(contribution(rank, i));
    let mut sums: Vec<T> = (0..LENGTH).map(at(comm.rank())).collect();
    comm.all_reduce_sum(&mut sums)?;
    let expected = |i: usize| (1..comm.size()).fold(at(0)(i), |sum, rank| add(sum, at(rank)(i)));
    Ok((0..LENGTH).all(|i| sums[i] == expected(i)))
}

fn extremes_right<T: Ordered + Ord>(comm: &Communicator, from: fn(u64) -> T) -> Result<[bool; 2]> {
    let at = |rank: usize| move |i: usize| from(contribution(rank, i));
    let mine: Vec<T> = (0..LENGTH).map(at(comm.rank())).collect();
    let (mut least, mut greatest) = (mine.clone(), mine);
    comm.all_reduce_min(&mut least)?;
    comm.all_reduce_max(&mut greatest)?;
    let all = |i: usize| (0..comm.size()).map(move |rank| at(rank)(i));
    Ok([(0..LENGTH).all(|i| all(i).min() == Some(least[i])), (0..LENGTH).all(|i| all(i).max() == Some(greatest[i]))])
}
