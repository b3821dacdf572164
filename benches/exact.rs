//! What exactness costs: each sum of `exact` against the plain float sum it replaces, nanoseconds an element.
//!
//! `cargo bench --bench exact`; one JSON line a case: {"bench","case","n","ns_per_element","plain_ns_per_element"}.
//! Before anything is timed, the exact sum is compared with the plain one. Best of several repetitions.

use consort::exact::{BlockSums, BoundedSums, ExactSum, Groups, LaneSums, ScaleWindow, Verdict, Width, judge};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    scalars();
    for (len, blocks) in [(1 << 10, 256), (1 << 16, 16)] {
        vectors(len, blocks);
    }
    for (n, n_lanes) in [(1 << 16, 64), (1 << 22, 8)] {
        for width in [Width::W32, Width::W64] {
            lanes(n, n_lanes, width);
        }
    }
}

/// Uniform in −1 … 1, the same in every run.
fn numbers(n: usize) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as i64) as f64 / (1u64 << 63) as f64
    };
    (0..n).map(|_| next()).collect()
}

/// Nanoseconds an element, best of the repetitions that fit half a second (at least 5).
fn time(elements: usize, mut work: impl FnMut()) -> f64 {
    let (start, mut best, mut repetitions) = (Instant::now(), f64::INFINITY, 0);
    while repetitions < 5 || start.elapsed().as_secs_f64() < 0.5 {
        let begin = Instant::now();
        work();
        best = best.min(begin.elapsed().as_secs_f64());
        repetitions += 1;
    }
    best * 1e9 / elements as f64
}

fn report(case: &str, n: usize, ns: f64, plain_ns: f64) {
    println!(
        "{{\"bench\":\"exact\",\"case\":\"{case}\",\"n\":{n},\"ns_per_element\":{ns:.3},\"plain_ns_per_element\":{plain_ns:.3}}}"
    );
}

fn check(case: &str, exact: f64, plain: f64, tolerance: f64) {
    assert!((exact - plain).abs() <= tolerance, "{case}: {exact} but {plain} by plain sums");
}

fn scalars() {
    let n = 1 << 16;
    let x = numbers(n);
    let sum = |x: &[f64]| x.iter().collect::<ExactSum>();
    check("ExactSum", sum(&x).value().unwrap(), x.iter().sum(), 1e-9);
    let plain = time(n, || {
        black_box(black_box(&x).iter().fold(0.0, |s, x| s + x));
    });
    let exact = time(n, || {
        black_box(sum(black_box(&x)));
    });
    report("ExactSum::add", n, exact, plain);
    let products = |x: &[f64]| {
        let mut sum = ExactSum::new();
        x.windows(2).for_each(|w| sum.add_product(w[0], w[1]));
        sum
    };
    check("add_product", products(&x).value().unwrap(), x.windows(2).map(|w| w[0] * w[1]).sum(), 1e-9);
    let plain = time(n, || {
        black_box(black_box(&x).windows(2).fold(0.0, |s, w| s + w[0] * w[1]));
    });
    let exact = time(n, || {
        black_box(products(black_box(&x)));
    });
    report("ExactSum::add_product", n, exact, plain);
    let one = sum(&x);
    let wire = time(1, || {
        black_box(ExactSum::from_words(&black_box(&one).to_words()).value());
    });
    report("ExactSum words, back and value (a sum)", 1, wire, 0.0);
}

fn vectors(len: usize, blocks: usize) {
    let contributions: Vec<Vec<f64>> = numbers(len * blocks).chunks(len).map(<[f64]>::to_vec).collect();
    let n = len * blocks;
    let mut plain_sum = vec![0.0; len];
    let plain = time(n, || {
        plain_sum.fill(0.0);
        for block in black_box(&contributions) {
            plain_sum.iter_mut().zip(block).for_each(|(s, x)| *s += x);
        }
    });

    let mut sums = BlockSums::new(len, blocks as u64);
    contributions.iter().for_each(|block| sums.push(block.clone()));
    let agreed = sums.exponents();
    let exact = sums.finish(&agreed, &sums.limbs(&agreed));
    (0..len).for_each(|j| check("BlockSums", exact[j], plain_sum[j], 1e-11));
    let ns = time(n, || {
        black_box(sums.limbs(black_box(&agreed)));
    });
    report(&format!("BlockSums::limbs, {len} sums of {blocks}"), n, ns, plain);
    let limbs = sums.limbs(&agreed);
    let ns = time(len, || {
        black_box(sums.finish(black_box(&agreed), &limbs));
    });
    report(&format!("BlockSums::finish, {len} sums"), len, ns, 0.0);

    let fresh = BoundedSums::new(vec![0; len], blocks as u64);
    let mut bounded = fresh.clone();
    contributions.iter().for_each(|block| bounded.add(block));
    let exact = bounded.finish(&bounded.to_words()).unwrap();
    (0..len).for_each(|j| check("BoundedSums", exact[j], plain_sum[j], 1e-11));
    let ns = time(n, || {
        let mut sums = fresh.clone();
        black_box(&contributions).iter().for_each(|block| sums.add(block));
        black_box(&sums);
    });
    report(&format!("BoundedSums::add, {len} sums of {blocks}"), n, ns, plain);
}

fn lanes(n: usize, n_lanes: usize, width: Width) {
    let n_distinct = 4;
    let gradients: Vec<Vec<f32>> =
        numbers(n * n_distinct).chunks(n).map(|lane| lane.iter().map(|&x| x as f32).collect()).collect();
    let groups = Groups::new(&[n]);
    let mut plain_sum = vec![0.0f32; n];
    let elements = n * n_distinct;
    let plain = time(elements, || {
        plain_sum.fill(0.0);
        for lane in black_box(&gradients) {
            plain_sum.iter_mut().zip(lane).for_each(|(s, g)| *s += g);
        }
    });

    let mut peaks = vec![0; groups.len()];
    gradients.iter().for_each(|lane| LaneSums::peaks(&groups, lane, &mut peaks));
    let mut window = ScaleWindow::new(groups.len());
    window.commit(&peaks);
    let exponents = window.exponents();
    assert_eq!(judge(&peaks, &exponents), Verdict::Fits);
    let mut sums = LaneSums::new(&groups, n_lanes, width);
    gradients.iter().for_each(|lane| sums.add(lane, &exponents));
    let mut out = vec![0.0; n];
    sums.finish(&exponents, &mut out);
    (0..n).for_each(|j| check("LaneSums", f64::from(out[j]), f64::from(plain_sum[j]), 1e-4));

    let case = |what: &str| format!("LaneSums::{what}, {width:?}, {n_lanes} lanes");
    let ns = time(elements, || black_box(&gradients).iter().for_each(|lane| sums.add(lane, &exponents)));
    report(&case("add"), n, ns, plain);
    let ns = time(elements, || {
        black_box(&gradients).iter().for_each(|lane| LaneSums::peaks(&groups, lane, &mut peaks));
    });
    report(&case("peaks"), n, ns, plain);
    let ns = time(elements, || {
        black_box(&gradients).iter().for_each(|lane| sums.add_with_peaks(lane, &exponents, &mut peaks));
    });
    report(&case("add_with_peaks"), n, ns, plain);
    let ns = time(n, || sums.finish(&exponents, black_box(&mut out)));
    report(&case("finish"), n, ns, plain);
}
