//! The promises of this room: any cut gives the same bits, and the error stays within its bound.
//! The reference is a big integer in units of 2^−2148, rounded by the standard library's decimal parser.

use super::scale::exponent_of;
use crate::rng::{Draws, Stream};
use num_bigint::BigInt;
use proptest::prelude::*;

mod blocks;
mod lanes;
mod sum;

/// A seeded sequence of random numbers.
struct Random {
    draws: Draws,
    next: u64,
}

impl Random {
    fn new(seed: u64) -> Random {
        Random { draws: Draws::new(seed, Stream::Synthetic), next: 0 }
    }

    fn bits(&mut self) -> u64 {
        self.next += 1;
        self.draws.bits(self.next, 0)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in −1 … 1.
    fn uniform(&mut self) -> f64 {
        (self.bits() as i64) as f64 / (1u64 << 63) as f64
    }

    /// Any finite double that is badly scaled on purpose: denormals, ±0, 1e±30, huge ones.
    fn wild(&mut self) -> f64 {
        let x = self.uniform();
        match self.below(8) {
            0 => 0.0,
            1 => -0.0,
            2 => f64::from_bits(self.bits() >> 12),
            3 => x * 1e-30,
            4 => x * 1e30,
            5 => x * 1e300,
            _ => x,
        }
    }

    /// Deals the items to ranks, of which some may stay idle, each in an order of its own.
    fn deal<T>(&mut self, items: Vec<T>, n_ranks: usize) -> Vec<Vec<T>> {
        let mut ranks: Vec<Vec<T>> = (0..n_ranks).map(|_| Vec::new()).collect();
        for item in items {
            let rank = &mut ranks[self.below(n_ranks)];
            let place = self.below(rank.len() + 1);
            rank.insert(place, item);
        }
        ranks
    }

    /// An all-reduce with an order and association of its own.
    fn reduce(&mut self, mut words: Vec<Vec<u64>>) -> Vec<u64> {
        while words.len() > 1 {
            let one = words.swap_remove(self.below(words.len()));
            let place = self.below(words.len());
            words[place].iter_mut().zip(one).for_each(|(a, b)| *a = a.wrapping_add(b));
        }
        words.pop().unwrap()
    }
}

/// x in units of 2^−2148.
fn big(x: f64) -> BigInt {
    let magnitude = x.to_bits() & (u64::MAX >> 1);
    let field = (magnitude >> 52).max(1);
    let mantissa = if magnitude >> 52 == 0 { magnitude } else { (magnitude & ((1 << 52) - 1)) | (1 << 52) };
    let unsigned = BigInt::from(mantissa) << (field - 1 + 1074);
    if x.is_sign_negative() { -unsigned } else { unsigned }
}

/// a·b in units of 2^−2148.
fn big_product(a: f64, b: f64) -> BigInt {
    (big(a) * big(b)) >> 2148
}

/// A power of two in units of 2^−2148, rounded up to one unit.
fn big_pow2(e: i32) -> BigInt {
    BigInt::from(1) << (e + 2148).max(0)
}

/// The nearest double, by way of the exact decimal expansion. −0 made +0.
fn nearest(units: &BigInt) -> f64 {
    let digits = units * BigInt::from(5).pow(2148);
    format!("{digits}e-2148").parse::<f64>().unwrap() + 0.0
}

/// Half the distance to the neighbours of a rounded result, in units of 2^−2148.
fn half_ulp(x: f64) -> BigInt {
    big_pow2(exponent_of(x).max(-1022) - 53)
}

fn any_finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite()),
        3 => -1e3..1e3f64,
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::MAX), Just(-f64::MAX), Just(5e-324), Just(1e-30), Just(1e30)],
    ]
}

#[test]
fn the_reference_rounds_what_it_was_given() {
    let mut random = Random::new(1);
    for _ in 0..300 {
        let x = random.wild();
        assert_eq!(nearest(&big(x)), x);
        assert_eq!(big_product(x, 0.5) << 1, big(x));
    }
}
