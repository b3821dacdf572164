use super::super::ExactSum;
use super::super::scale::pow2;
use super::*;

/// What is added: a number, or the product of two.
fn term() -> impl Strategy<Value = (f64, Option<f64>)> {
    (any_finite(), proptest::option::of(any_finite()))
}

fn add(sum: &mut ExactSum, (a, b): (f64, Option<f64>)) {
    match b {
        None => sum.add(a),
        Some(b) => sum.add_product(a, b),
    }
}

proptest! {
    #[test]
    fn the_sum_is_the_exact_one_rounded_once(terms in proptest::collection::vec(term(), 0..40)) {
        let mut sum = ExactSum::new();
        terms.iter().for_each(|&term| add(&mut sum, term));
        let exact: BigInt = terms.iter().map(|&(a, b)| b.map_or(big(a), |b| big_product(a, b))).sum();
        prop_assert_eq!(sum.value().unwrap().to_bits(), nearest(&exact).to_bits());
    }

    #[test]
    fn any_cut_of_the_terms_gives_the_same_words(
        terms in proptest::collection::vec(term(), 0..60), n_ranks in 1usize..9, seed in any::<u64>(),
    ) {
        let mut alone = ExactSum::new();
        terms.iter().for_each(|&term| add(&mut alone, term));
        let mut random = Random::new(seed);
        let sums: Vec<ExactSum> = random.deal(terms, n_ranks).into_iter().map(|share| {
            let (mut sum, mut thread) = (ExactSum::new(), ExactSum::new());
            for (i, term) in share.into_iter().enumerate() {
                add(if i % 2 == 0 { &mut sum } else { &mut thread }, term);
            }
            sum.merge(&thread);
            sum
        }).collect();
        let merged = sums.iter().fold(ExactSum::new(), |mut all, sum| { all.merge(sum); all });
        let reduced = random.reduce(sums.iter().map(|sum| sum.to_words().to_vec()).collect());
        prop_assert_eq!(&merged, &alone);
        prop_assert_eq!(&ExactSum::from_words(&reduced), &alone);
        prop_assert_eq!(ExactSum::from_words(&reduced).value().map(f64::to_bits), alone.value().map(f64::to_bits));
    }
}

fn of(values: &[f64]) -> f64 {
    values.iter().collect::<ExactSum>().value().unwrap()
}

#[test]
fn ties_go_to_even_unless_the_smallest_bit_breaks_them() {
    assert_eq!(of(&[1.0, pow2(-53)]), 1.0);
    assert_eq!(of(&[1.0 + pow2(-52), pow2(-53)]), 1.0 + pow2(-51));
    assert_eq!(of(&[1.0, pow2(-53), pow2(-1074)]), 1.0 + pow2(-52));
    assert_eq!(of(&[-1.0, -pow2(-53), -pow2(-1074)]), -1.0 - pow2(-52));
    assert_eq!(of(&[1.0, pow2(-53), -pow2(-1074)]), 1.0);
    let mut sum: ExactSum = [1.0, pow2(-53)].iter().collect();
    sum.add_product(pow2(-1074), pow2(-1074));
    assert_eq!(sum.value(), Some(1.0 + pow2(-52)), "a bit at 2^-2148 is not lost");
}

#[test]
fn products_below_the_smallest_double_are_kept_until_they_count() {
    let mut sum = ExactSum::new();
    sum.add_product(pow2(-537), pow2(-538)); // 2^-1075, half the smallest double
    assert_eq!(sum.value(), Some(0.0), "a tie, to even");
    let mut above = sum.clone();
    above.add_product(pow2(-1074), pow2(-1074));
    assert_eq!(above.value(), Some(pow2(-1074)));
    sum.add_product(-pow2(-537), pow2(-537));
    assert_eq!(sum.value().unwrap().to_bits(), 0, "-2^-1075 rounds to +0");
    for _ in 0..5 {
        sum.add_product(-pow2(-538), pow2(-537));
    }
    assert_eq!(sum.value(), Some(-3.0 * pow2(-1074)));
}

#[test]
fn what_passes_the_largest_double_may_return() {
    assert_eq!(of(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
    assert_eq!(of(&[f64::MAX, pow2(969)]), f64::MAX);
    assert_eq!(of(&[f64::MAX, pow2(970)]), f64::INFINITY, "the tie above the largest");
    let mut sum: ExactSum = [3.0].iter().collect();
    sum.add_product(f64::MAX, f64::MAX);
    assert_eq!(sum.value(), Some(f64::INFINITY));
    for _ in 0..55 {
        let twin = sum.clone();
        sum.merge(&twin);
    }
    assert_eq!(sum.value(), Some(f64::INFINITY), "also with the top limb in use");
    sum = [3.0].iter().collect();
    sum.add_product(f64::MAX, f64::MAX);
    sum.add_product(f64::MAX, -f64::MAX);
    assert_eq!(sum.value(), Some(3.0));
}

#[test]
fn infinities_and_nans_are_counted_on_every_rank() {
    let mut here: ExactSum = [1.0, f64::NAN, f64::INFINITY].iter().collect();
    here.add_product(0.0, f64::NEG_INFINITY);
    let there: ExactSum = [2.0].iter().collect();
    let words = Random::new(3).reduce(vec![here.to_words().to_vec(), there.to_words().to_vec()]);
    let all = ExactSum::from_words(&words);
    assert_eq!((all.value(), all.non_finite()), (None, 3));
    assert_ne!(there, [2.0, f64::NAN].iter().collect());
}

#[test]
fn nothing_and_minus_zeros_are_plus_zero() {
    for values in [&[][..], &[-0.0], &[-0.0, 0.0], &[1e300, -1e300], &[-5e-324, 5e-324]] {
        assert_eq!(of(values).to_bits(), 0, "{values:?}");
    }
}

#[test]
fn two_million_ranks_merge_by_words() {
    for x in [1.0 / 3.0, -1.0 / 3.0, -5e-324, 1e300] {
        let one: ExactSum = [x, x, 2.0 * x].iter().collect();
        let words = one.to_words().map(|word| word.wrapping_mul(1 << 21));
        assert_eq!(ExactSum::from_words(&words).value(), Some(x * 4.0 * pow2(21)));
    }
}
