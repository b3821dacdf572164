use super::super::fixed::{self, to_f64, to_fixed};
use super::super::kernels;
use super::super::scale::{NON_FINITE, ZERO, contribution_bits, pow2};
use super::super::{BlockSums, BoundedSums};
use super::*;

proptest! {
    #[test]
    fn the_fast_conversion_is_the_plain_one(
        values in proptest::collection::vec((any_finite(), 0i32..120), 1..40), n in 1u64.., into in any::<i64>(),
    ) {
        let s = contribution_bits(n);
        let x: Vec<f64> = values.iter().map(|&(x, _)| x).collect();
        let exponents: Vec<i32> = values.iter().map(|&(x, above)| exponent_of(x).clamp(-1074, 1023).saturating_add(above).min(1023)).collect();
        let (mut low, mut high) = (vec![into as u64; x.len()], vec![into >> 63; x.len()]);
        prop_assert_eq!(kernels::add_fixed(&mut low, &mut high, &x, &exponents, s), 0);
        for j in 0..x.len() {
            let sum = (i128::from(high[j]) << 64) | i128::from(low[j]);
            prop_assert_eq!(sum, i128::from(into) + to_fixed(x[j], s - 1 - exponents[j]), "{:e} at {}", x[j], exponents[j]);
        }
    }

    #[test]
    fn integers_are_rounded_as_the_reference_rounds(q in any::<i128>(), drop in 0u32..127, exponent in -1200i32..1100) {
        let q = q >> drop;
        let exact = if exponent >= 0 { BigInt::from(q) << (exponent + 2148) } else { (BigInt::from(q) << 2148) >> -exponent };
        prop_assert_eq!(to_f64(q < 0, q.unsigned_abs(), exponent).to_bits(), nearest(&exact).to_bits());
    }

    #[test]
    fn limbs_join_to_what_was_split(q in any::<i128>(), drop in 2u32..127, n_ranks in 1u64..=1 << 21) {
        let q = q >> drop.max(23);
        let summed = fixed::split(q).map(|limb| limb.wrapping_mul(n_ranks));
        prop_assert_eq!(fixed::join(&summed), q * i128::from(n_ranks));
    }
}

#[test]
fn halves_are_rounded_to_even() {
    for (x, shift, q) in [(0.5, 0, 0), (1.5, 0, 2), (2.5, 0, 2), (-0.5, 0, 0), (-1.5, 0, -2), (pow2(-1074), 1073, 0)] {
        assert_eq!(to_fixed(x, shift), q);
    }
    // The same through the sum: S = 100, E = 99 makes the unit 1.
    for (x, sum) in [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-2.5, -2.0), (-3.5, -4.0), (pow2(52) + 0.5, pow2(52))] {
        let mut sums = BoundedSums::new(vec![99], 1);
        sums.add(&[x]);
        assert_eq!(sums.finish(&sums.to_words()), Some(vec![sum]), "{x}");
    }
}

/// `n` contributions of `len` elements, each element with a scale of its own.
fn contributions(random: &mut Random, n: usize, len: usize) -> Vec<Vec<f64>> {
    let scales: Vec<f64> = (0..len).map(|_| random.wild()).collect();
    (0..n)
        .map(|_| {
            scales
                .iter()
                .map(|&s| if random.below(9) == 0 { random.wild() * 1e-8 } else { random.uniform() * s })
                .collect()
        })
        .collect()
}

fn block_sums(ranks: Vec<Vec<Vec<f64>>>, len: usize, n: u64, random: &mut Random) -> Vec<f64> {
    let ranks: Vec<BlockSums> = ranks
        .into_iter()
        .map(|blocks| {
            let mut sums = BlockSums::new(len, n);
            blocks.into_iter().for_each(|block| sums.push(block));
            sums
        })
        .collect();
    let mut agreed = vec![ZERO; len];
    for rank in &ranks {
        agreed.iter_mut().zip(rank.exponents()).for_each(|(all, own)| *all = (*all).max(own));
    }
    let words = random.reduce(ranks.iter().map(|rank| rank.limbs(&agreed)).collect());
    ranks[0].finish(&agreed, &words)
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn any_cut_of_the_blocks_gives_the_same_sums_within_the_bound() {
    let mut random = Random::new(7);
    for (n, len) in [(1, 1), (2, 3), (17, 513), (97, 31), (5, 1030), (40, 0)] {
        let blocks = contributions(&mut random, n, len);
        let alone = block_sums(vec![blocks.clone()], len, n as u64, &mut random);
        for n_ranks in [1, 2, 3, 7, 12] {
            let ranks = random.deal(blocks.clone(), n_ranks);
            let sums = block_sums(ranks, len, n as u64, &mut random);
            assert_eq!(bits(&sums), bits(&alone), "{n} blocks on {n_ranks} ranks");
        }
        for j in 0..len {
            let exact: BigInt = blocks.iter().map(|block| big(block[j])).sum();
            let e = blocks.iter().map(|block| exponent_of(block[j])).max().unwrap();
            let error = (big(alone[j]) - exact).magnitude().clone();
            let bound = match e {
                ZERO => BigInt::ZERO,
                e => big_pow2(e - contribution_bits(n as u64)) * n + half_ulp(alone[j]),
            };
            assert!(BigInt::from(error) <= bound, "element {j}: {:e}", alone[j]);
        }
    }
}

#[test]
fn any_cut_of_bounded_contributions_gives_the_same_words() {
    let mut random = Random::new(8);
    for (n, len) in [(3, 5), (64, 40), (31, 700)] {
        let blocks = contributions(&mut random, n, len);
        let above = random.below(20) as i32;
        let largest = |j: usize| blocks.iter().map(|block| exponent_of(block[j])).max().unwrap().max(-1074);
        let exponents: Vec<i32> = (0..len).map(|j| largest(j) + above).collect();
        let fresh = BoundedSums::new(exponents.clone(), n as u64);
        let mut alone = fresh.clone();
        blocks.iter().for_each(|block| alone.add(block));
        let value = alone.finish(&alone.to_words()).unwrap();
        for n_ranks in [1, 2, 5, 9] {
            let ranks = random.deal(blocks.clone(), n_ranks).into_iter().map(|share| {
                let mut threads = [fresh.clone(), fresh.clone(), fresh.clone()];
                share.iter().for_each(|block| threads[random.below(3)].add(block));
                let [mut sum, second, third] = threads;
                sum.merge(&third);
                sum.merge(&second);
                sum.to_words()
            });
            let ranks: Vec<Vec<u64>> = ranks.collect();
            let words = random.reduce(ranks);
            assert_eq!(fresh.finish(&words).map(|v| bits(&v)), Some(bits(&value)), "{n_ranks} ranks");
        }
        for j in 0..len {
            let exact: BigInt = blocks.iter().map(|block| big(block[j])).sum();
            let error = BigInt::from((big(value[j]) - exact).magnitude().clone());
            let e = exponents[j].min(1023);
            assert!(error <= big_pow2(e - contribution_bits(n as u64)) * n + half_ulp(value[j]), "element {j}");
        }
    }
}

#[test]
fn contributions_at_their_bound_never_overflow() {
    for log2_n in [0, 1, 24, 25, 26, 40, 63] {
        for x in [pow2(4).next_down(), -pow2(4).next_down(), pow2(3)] {
            let mut sums = BoundedSums::new(vec![3], 1 << log2_n);
            sums.add(&[x]);
            for _ in 0..log2_n {
                let twin = sums.clone();
                sums.merge(&twin);
            }
            let error = if log2_n > 40 { pow2(log2_n - 50) } else { 0.0 }; // S is below the 53 bits of x + 25 there
            let sum = sums.finish(&sums.to_words()).unwrap()[0];
            assert!((sum - x * pow2(log2_n)).abs() <= error, "2^{log2_n} times {x}: {sum}");
        }
    }
}

#[test]
fn what_is_beyond_its_bound_is_counted_not_added() {
    let mut sums = BoundedSums::new(vec![0, 0, ZERO, 1023, NON_FINITE], 9);
    sums.add(&[1.5, -1.999, 0.0, f64::MAX, -f64::MAX]);
    sums.add(&[1.5, -0.0, -0.0, -f64::MAX, 1.0]);
    assert_eq!(sums.finish(&sums.to_words()), Some(vec![3.0, -1.999, 0.0, 0.0, -f64::MAX]));
    for bad in [2.0, -2.0, 1e300, f64::NAN, f64::INFINITY] {
        let mut there = BoundedSums::new(vec![0, 0, ZERO, 1023, NON_FINITE], 9);
        there.add(&[bad, 0.0, 0.0, 0.0, 0.0]);
        let words = Random::new(1).reduce(vec![sums.to_words(), there.to_words()]);
        assert_eq!(words[15], 1);
        assert_eq!(sums.finish(&words), None, "{bad}");
        let mut thread = sums.clone();
        thread.merge(&there);
        assert_eq!(thread.finish(&thread.to_words()), None, "{bad} of another thread");
    }
}

#[test]
fn a_non_finite_contribution_spoils_its_element_only() {
    let blocks =
        vec![vec![1.0, f64::NAN, 2.0, 0.0], vec![1e30, 1.0, f64::NEG_INFINITY, -0.0], vec![1e-30, 1.0, 1.0, 0.0]];
    let mut sums = BlockSums::new(4, 3);
    blocks.iter().for_each(|block| sums.push(block.clone()));
    assert_eq!(sums.exponents(), [99, NON_FINITE, NON_FINITE, ZERO]);
    for n_ranks in [1, 2, 3] {
        let mut random = Random::new(n_ranks as u64);
        let ranks = random.deal(blocks.clone(), n_ranks);
        let sums = block_sums(ranks, 4, 3, &mut random);
        assert_eq!((sums[0], sums[3].to_bits()), (1e30, 0));
        assert!(sums[1].is_nan() && sums[2].is_nan());
    }
}

#[test]
#[should_panic(expected = "element 1 has exponent 3 here but 2 was agreed")]
fn an_exponent_that_was_not_agreed_upon_is_our_bug() {
    let mut sums = BlockSums::new(2, 1);
    sums.push(vec![1.0, 8.0]);
    sums.limbs(&[0, 2]);
}

#[test]
#[should_panic(expected = "only 1 contributions were announced")]
fn more_contributions_than_announced_are_our_bug() {
    let mut sums = BoundedSums::new(vec![0], 1);
    sums.add(&[1.0]);
    sums.add(&[1.0]);
}

#[test]
fn a_sparse_contribution_is_the_dense_one_without_its_zeros() {
    let mut random = Random::new(77);
    let n = 40;
    let exponents: Vec<i32> = (0..30).map(|j| j * 9 - 140).collect();
    let (mut dense, mut sparse) = (BoundedSums::new(exponents.clone(), n), BoundedSums::new(exponents.clone(), n));
    for _ in 0..n {
        // Some are beyond their bound; one is not a number.
        let value = |(j, &e): (usize, &i32), random: &mut Random| match random.below(4) {
            0 => pow2(e) * 2.5 * random.uniform(),
            1 if j == 7 => f64::NAN,
            _ => 0.0,
        };
        let x: Vec<f64> = exponents.iter().enumerate().map(|at| value(at, &mut random)).collect();
        dense.add(&x);
        let mut stored: Vec<(usize, f64)> = x.into_iter().enumerate().filter(|(_, x)| *x != 0.0).collect();
        stored.reverse();
        sparse.add_sparse(&stored);
    }
    assert_eq!(sparse, dense);
    assert!(dense.finish(&dense.to_words()).is_none());
}
