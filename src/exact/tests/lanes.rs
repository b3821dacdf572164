use super::super::fixed::{to_f64, to_fixed};
use super::super::lanes::peak_exponent;
use super::super::scale::{pow2, pow2_f32};
use super::super::{Groups, LaneSums, ScaleWindow, Verdict, Width, judge, kernels};
use super::*;

const WIDTHS: [Width; 2] = [Width::W32, Width::W64];
const LANES: [usize; 5] = [1, 3, 8, 64, 200];

/// Q = 2^b − 1, or the largest double below.
fn largest(width: Width, n_lanes: usize) -> i128 {
    let b = width.payload_bits(n_lanes);
    (1 << b) - (1 << b.saturating_sub(53))
}

fn any_finite_f32() -> impl Strategy<Value = f32> {
    prop_oneof![
        3 => any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite()),
        1 => -2.0..2.0f32,
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f32::MAX), Just(f32::MIN), Just(1e-45), Just(1e-30), Just(1e30)],
    ]
}

proptest! {
    #[test]
    fn the_fast_lane_is_the_plain_one(
        mut g in proptest::collection::vec(any_finite_f32(), 1..70), exponent in -96i32..=129, lanes in 0usize..5, fits: bool,
    ) {
        let n_lanes = LANES[lanes];
        if fits {
            // Those that are too large lose powers of two.
            let most = exponent.min(127);
            g.iter_mut().filter(|g| exponent_of(f64::from(**g)) > most).enumerate().for_each(|(i, g)| {
                *g *= pow2_f32(most - exponent_of(f64::from(*g)) - i as i32);
            });
        }
        let groups = Groups::new(&[g.len()]);
        for width in WIDTHS {
            let mut sums = LaneSums::new(&groups, n_lanes, width);
            sums.add(&g, &[exponent]);
            let up = width.payload_bits(n_lanes) as i32 - 1 - exponent;
            for (j, &g) in g.iter().enumerate() {
                let q = largest(width, n_lanes);
                let beyond = exponent_of(f64::from(g)) > exponent;
                let plain = if beyond { if g > 0.0 { q } else { -q } } else { to_fixed(f64::from(g), up).clamp(-q, q) };
                let fast = match width {
                    Width::W32 => i128::from(sums.words_u32()[j] as i32),
                    Width::W64 => i128::from(sums.words_u64()[j] as i64),
                };
                prop_assert_eq!(fast, plain, "{:e} at 2^{}, {:?}", g, exponent, width);
            }
        }
    }

    #[test]
    fn sums_are_rounded_once_to_f32(sums in proptest::collection::vec((any::<i64>(), 0u32..64), 1..30), exponent in -158i32..100) {
        let words: Vec<u64> = sums.iter().map(|&(q, drop)| (q >> drop) as u64).collect();
        let narrow: Vec<u32> = words.iter().map(|&q| q as u32).collect();
        let (mut wide_out, mut narrow_out) = (vec![0.0; words.len()], vec![0.0; words.len()]);
        kernels::finish_64(&mut wide_out, &words, pow2(exponent));
        kernels::finish_32(&mut narrow_out, &narrow, pow2(exponent));
        let rounded = |q: i64| {
            let exact = if exponent >= 0 { BigInt::from(q) << (exponent + 2148) } else { (BigInt::from(q) << 2148) >> -exponent };
            format!("{}e-2148", exact * BigInt::from(5).pow(2148)).parse::<f32>().unwrap() + 0.0
        };
        for j in 0..words.len() {
            prop_assert_eq!(wide_out[j].to_bits(), rounded(words[j] as i64).to_bits());
            prop_assert_eq!(narrow_out[j].to_bits(), rounded(i64::from(narrow[j] as i32)).to_bits());
        }
    }

    #[test]
    fn the_window_returns_from_its_words(
        steps in proptest::collection::vec(proptest::collection::vec(0i32..0x7f80_0000, 5), 0..40),
    ) {
        let mut window = ScaleWindow::new(5);
        steps.iter().for_each(|peaks| window.commit(peaks));
        prop_assert_eq!(ScaleWindow::from_words(&window.words()), Some(window.clone()));
        for (g, exponent) in window.exponents().into_iter().enumerate() {
            let seen: Vec<i32> = steps.iter().map(|peaks| peaks[g]).filter(|&peak| peak > 0).collect();
            let last = &seen[seen.len().saturating_sub(16)..];
            prop_assert_eq!(exponent, last.iter().map(|&peak| peak_exponent(peak) + 2).max().unwrap_or(-96));
        }
    }
}

#[test]
fn a_bit_below_the_doubles_breaks_the_tie_of_the_floats() {
    // 2^60 + 2^36 is half way between two f32; as a double, 2^60 + 2^36 + 1 would be that tie again.
    let tie = (1i64 << 60) + (1 << 36);
    let words = [tie, tie + 1, tie - 1, -tie, -tie - 1, 3 * (1 << 36) + (1 << 60) - 1].map(|q| q as u64);
    let mut out = [0.0; 6];
    kernels::finish_64(&mut out, &words, 1.0);
    let (at, next) = (pow2_f32(60), pow2_f32(60).next_up());
    assert_eq!(out, [at, next, at, -at, -next, next]);
}

#[test]
fn groups_cut_each_tensor_every_65536_elements() {
    let groups = Groups::new(&[65_536, 10, 0, 65_537, 200_000]);
    let ranges: Vec<_> = (0..groups.len()).map(|g| groups.range(g)).collect();
    let lens: Vec<usize> = ranges.iter().map(|range| range.len()).collect();
    assert_eq!(lens, [65_536, 10, 65_536, 1, 65_536, 65_536, 65_536, 3_392]);
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(groups.n_elements(), ranges.last().unwrap().end);
    assert!(Groups::new(&[]).is_empty() && Groups::new(&[0, 0]).is_empty());
}

#[test]
fn the_window_forgets_after_sixteen_peaks_and_skips_zeros() {
    let peak = |x: f32| x.to_bits() as i32;
    let mut window = ScaleWindow::new(2);
    assert_eq!(window.exponents(), [-96, -96]);
    window.commit(&[peak(8.0), 0]);
    for _ in 0..100 {
        window.commit(&[0, 0]);
    }
    assert_eq!(window.exponents(), [5, -96], "a layer that rests keeps its scale");
    for _ in 0..15 {
        window.commit(&[peak(1.0), peak(1e-45)]);
    }
    assert_eq!(window.exponents(), [5, -94]);
    window.commit(&[peak(1.0), peak(f32::MAX)]);
    assert_eq!(window.exponents(), [2, 129]);
}

#[test]
fn damaged_words_are_no_window() {
    let mut window = ScaleWindow::new(2);
    window.commit(&[1, 0x3f80_0000]);
    let words = window.words();
    assert_eq!(words.len(), 5);
    for damaged in [vec![], words[..4].to_vec(), [&words[..], &[0]].concat(), vec![-1], vec![i64::MAX]] {
        assert_eq!(ScaleWindow::from_words(&damaged), None);
    }
    for (place, word) in [(0, 3), (1, 0xff), (2, -1), (1, 5)] {
        let mut damaged = words.clone();
        damaged[place] = word;
        assert_eq!(ScaleWindow::from_words(&damaged), None, "word {place} = {word}");
    }
}

#[test]
fn totals_at_the_clamp_never_overflow() {
    let groups = Groups::new(&[4]);
    let huge = [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY];
    for n_lanes in LANES {
        for width in WIDTHS {
            let q = largest(width, n_lanes);
            let mut sums = LaneSums::new(&groups, n_lanes, width);
            for lane in 1..=n_lanes as i128 {
                sums.add(&huge, &[-96]);
                let totals: Vec<i128> = match width {
                    Width::W32 => sums.words_u32().iter().map(|&word| i128::from(word as i32)).collect(),
                    Width::W64 => sums.words_u64().iter().map(|&word| i128::from(word as i64)).collect(),
                };
                assert_eq!(totals, [lane * q, -lane * q, lane * q, -lane * q], "{n_lanes} lanes of {width:?}");
            }
        }
    }
}

/// Lane gradients of one step: three tensors of very different scale, an outlier now and then.
fn gradients(random: &mut Random, lens: &[usize], n_lanes: usize, outliers: bool) -> Vec<Vec<f32>> {
    let lane = |random: &mut Random| {
        let mut g = Vec::new();
        for (t, &len) in lens.iter().enumerate() {
            let scale = [1e-3, 1e-30, 1e20, 1e-42][t];
            g.extend((0..len).map(|_| (random.uniform() * random.uniform() * scale) as f32));
            if outliers && random.below(40) == 0 {
                let place = g.len() - 1 - random.below(len);
                g[place] *= 3e4;
            }
        }
        g
    };
    (0..n_lanes).map(|_| lane(random)).collect()
}

struct Step {
    sums: Vec<f32>,
    peaks: Vec<i32>,
}

/// One pass over a step: the ranks' lanes at these exponents, reduced in a random order.
fn pass(
    ranks: &[Vec<Vec<f32>>],
    groups: &Groups,
    n_lanes: usize,
    width: Width,
    exponents: &[i32],
    random: &mut Random,
) -> Step {
    let mut peaks = vec![0; groups.len()];
    let mut words = Vec::new();
    for (r, lanes) in ranks.iter().enumerate() {
        let mut sums = LaneSums::new(groups, n_lanes, width);
        let mut own = vec![0; groups.len()];
        for lane in lanes {
            if r % 2 == 0 {
                sums.add(lane, exponents);
                LaneSums::peaks(groups, lane, &mut own);
            } else {
                sums.add_with_peaks(lane, exponents, &mut own);
            }
        }
        peaks.iter_mut().zip(own).for_each(|(all, own)| *all = (*all).max(own));
        words.push(match width {
            Width::W32 => sums.words_u32().iter().map(|&word| u64::from(word)).collect(),
            Width::W64 => sums.words_u64().to_vec(),
        });
    }
    let reduced = random.reduce(words);
    let mut sums = LaneSums::new(groups, n_lanes, width);
    match width {
        Width::W32 => sums.words_u32().iter_mut().zip(reduced).for_each(|(word, sum)| *word = sum as u32),
        Width::W64 => sums.words_u64().copy_from_slice(&reduced),
    }
    let mut out = vec![f32::NAN; groups.n_elements()];
    sums.finish(exponents, &mut out);
    Step { sums: out, peaks }
}

/// A run of committed steps: bits of all sums, the redone steps, and the window at the end.
fn run(seed: u64, n_ranks: usize, n_lanes: usize, width: Width) -> (Vec<Vec<u32>>, Vec<usize>, ScaleWindow) {
    let lens = [37, 5, 11, 3];
    let groups = Groups::new(&lens);
    let (mut data, mut cut) = (Random::new(seed), Random::new(seed + n_ranks as u64 * 1000));
    let mut window = ScaleWindow::new(groups.len());
    let (mut bits, mut redone) = (Vec::new(), Vec::new());
    for step in 0..25 {
        let lanes = gradients(&mut data, &lens, n_lanes, true);
        let ranks = cut.deal(lanes.clone(), n_ranks);
        let mut exponents = window.exponents();
        let mut done = pass(&ranks, &groups, n_lanes, width, &exponents, &mut cut);
        if let Verdict::Redo(wider) = judge(&done.peaks, &exponents) {
            redone.push(step);
            exponents = wider;
            done = pass(&ranks, &groups, n_lanes, width, &exponents, &mut cut);
        }
        assert_eq!(judge(&done.peaks, &exponents), Verdict::Fits, "one redo suffices");
        window.commit(&done.peaks);
        check_bound(&lanes, &done.sums, &groups, &exponents, width);
        bits.push(done.sums.iter().map(|x| x.to_bits()).collect());
    }
    (bits, redone, window)
}

/// |sum − exact| ≤ L·2^(Ê−b) (twice that above 128 lanes of 32 bits) and half a unit of the f32.
fn check_bound(lanes: &[Vec<f32>], sums: &[f32], groups: &Groups, exponents: &[i32], width: Width) {
    let b = width.payload_bits(lanes.len()) as i32;
    for (g, &exponent) in exponents.iter().enumerate() {
        for j in groups.range(g) {
            let exact: BigInt = lanes.iter().map(|lane| big(f64::from(lane[j]))).sum();
            let error = BigInt::from((big(f64::from(sums[j])) - exact).magnitude().clone());
            let half = big_pow2(exponent_of(f64::from(sums[j])).max(-126) - 24);
            let bound = big_pow2(exponent - b + i32::from(b < 24)) * lanes.len();
            assert!(error <= bound + half, "element {j} of {} lanes", lanes.len());
        }
    }
}

#[test]
fn any_cut_of_the_lanes_gives_the_same_sums_verdicts_and_redos() {
    for width in WIDTHS {
        for n_lanes in [1, 3, 8, 64, 200] {
            let (bits, redone, window) = run(n_lanes as u64, 1, n_lanes, width);
            assert!(redone.first() == Some(&0) && redone.len() < 25, "{redone:?}");
            for n_ranks in [2, 3, 7] {
                let (other_bits, other_redone, other_window) = run(n_lanes as u64, n_ranks, n_lanes, width);
                assert_eq!(other_redone, redone, "{n_lanes} lanes, {n_ranks} ranks");
                assert_eq!(other_window, window);
                assert!(other_bits == bits, "{n_lanes} lanes, {n_ranks} ranks: the sums differ");
            }
        }
    }
}

#[test]
fn peaks_order_numbers_below_infinity_below_nan() {
    let groups = Groups::new(&[3, 2]);
    let mut peaks = vec![0; 2];
    LaneSums::peaks(&groups, &[-0.0, 0.0, -0.0, 1.0, -2.0], &mut peaks);
    assert_eq!(peaks, [0, 0x4000_0000]);
    assert_eq!(judge(&peaks, &[-96, 1]), Verdict::Fits);
    assert_eq!(judge(&peaks, &[-96, 0]), Verdict::Redo(vec![-96, 3]));
    LaneSums::peaks(&groups, &[f32::MAX, 0.0, 0.0, 1.0, 1.0], &mut peaks);
    assert_eq!(judge(&peaks, &[-96, 5]), Verdict::Redo(vec![129, 5]));
    for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
        let mut peaks = peaks.clone();
        LaneSums::peaks(&groups, &[0.0, odd, 0.0, 1.0, 1.0], &mut peaks);
        assert_eq!(judge(&peaks, &[129, 129]), Verdict::NonFinite);
    }
}

#[test]
fn long_tensors_give_the_bits_of_their_groups() {
    let mut random = Random::new(5);
    let n = 140_003;
    let groups = Groups::new(&[n]);
    let g: Vec<f32> = (0..n).map(|j| (random.uniform() * if j < 65_536 { 1.0 } else { 1e-6 }) as f32).collect();
    let exponents = [2, -18, -18];
    let mut sums = LaneSums::new(&groups, 8, Width::W32);
    sums.add(&vec![1.0; n], &[0, 0, 0]);
    sums.clear();
    sums.add(&g, &exponents);
    let mut by_group = LaneSums::new(&groups, 8, Width::W32);
    (0..3).for_each(|i| by_group.add_group(i, &g[groups.range(i)], exponents[i]));
    assert_eq!(sums.words_u32(), by_group.words_u32());
    let mut out = vec![0.0; n];
    sums.finish(&exponents, &mut out);
    for (j, (&out, &g)) in out.iter().zip(&g).enumerate() {
        let unit = exponents[j / 65_536] + 1 - 28;
        let q = to_fixed(f64::from(g), -unit);
        assert_eq!(out, to_f64(q < 0, q.unsigned_abs(), unit) as f32);
    }
}

#[test]
#[should_panic(expected = "these lane sums are 32 bits wide")]
fn words_of_another_width_are_our_bug() {
    LaneSums::new(&Groups::new(&[1]), 1, Width::W32).words_u64();
}
