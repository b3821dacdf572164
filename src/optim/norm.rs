//! Lengths of vectors, the same whoever has which part of them.

use super::Real;
use crate::exact::ExactSum;
use multiversion::multiversion;

/// Squares are added in runs of so many numbers, from where a tensor starts: parts of it that are cut there have the bits of the whole.
pub const RUN: usize = 4096;
/// A sum of doubles waits for the one before it; that many runs can be added meanwhile.
const AT_ONCE: usize = 8;

/// √Σx²: squares in runs, the sums of these in order. Not collective; does not allocate.
///
/// Neither overflows nor vanishes where the length itself does not. Not finite where an element is not.
pub fn norm<F: Real>(values: &[F]) -> f64 {
    let mut unit = 1.0;
    if !F::SQUARES_FIT {
        let largest = largest(values);
        if largest == 0.0 || !largest.is_finite() {
            return largest;
        }
        // A power of two, so that dividing by it does not round.
        unit = f64::from_bits(largest.to_bits() & (0x7ff << 52)).max(f64::MIN_POSITIVE);
    }
    let mut sum = 0.0;
    each_run(values, 1.0 / unit, |of_run| sum += of_run);
    sum.sqrt() * unit
}

/// Adds Σx² to `total`, each run's sum as one contribution. Not collective; does not allocate.
///
/// The parts of a vector may come in any order and from any rank, if each starts where a tensor does or a multiple of [`RUN`] after it, and ends
/// so too. Squares are doubles: those of f64 above 1e154 count as infinite.
pub fn add_squares<F: Real>(values: &[F], total: &mut ExactSum) {
    each_run(values, 1.0, |of_run| total.add(of_run));
}

/// The length of what was added by [`add_squares`]; infinite if a number was not finite. Not collective.
pub fn length(squares: &ExactSum) -> f64 {
    squares.value().map_or(f64::INFINITY, f64::sqrt)
}

/// Shortens `grad` to the length `most` if it is longer; its direction stays. Not collective; does not allocate.
///
/// Source: Pascanu, Mikolov, Bengio, *On the difficulty of training recurrent neural networks*, ICML 2013, algorithm 1.
pub fn clip<F: Real>(grad: &mut [F], most: f64) {
    let length = norm(grad);
    shorten(grad, length, most);
}

/// The same of a part of a gradient, whose whole has this length. Not collective; does not allocate.
pub fn shorten<F: Real>(part: &mut [F], length: f64, most: f64) {
    if length > most {
        multiply(part, most / length);
    }
}

/// `values[j]·factor`, the product in f64. Not collective.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn multiply<F: Real>(values: &mut [F], factor: f64) {
    values.iter_mut().for_each(|x| *x = F::from_f64(x.to_f64() * factor));
}

/// The largest |x|; NaN is larger than all numbers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn largest<F: Real>(values: &[F]) -> f64 {
    // Bits order as magnitudes do.
    let bits = values.iter().fold(0i64, |largest, x| largest.max((x.to_f64().to_bits() & (u64::MAX >> 1)) as i64));
    f64::from_bits(bits as u64)
}

/// Calls `visit` with Σ (x·factor)² of every run, in order.
fn each_run<F: Real>(values: &[F], factor: f64, mut visit: impl FnMut(f64)) {
    let groups = values.chunks_exact(AT_ONCE * RUN);
    let rest = groups.remainder();
    for group in groups {
        squares_of_runs(group, factor).into_iter().for_each(&mut visit);
    }
    for run in rest.chunks(RUN) {
        visit(run.iter().fold(0.0, |sum, x| sum + square(*x, factor)));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn squares_of_runs<F: Real>(runs: &[F], factor: f64) -> [f64; AT_ONCE] {
    let runs: [&[F]; AT_ONCE] = std::array::from_fn(|run| &runs[run * RUN..][..RUN]);
    let mut sums = [0.0; AT_ONCE];
    for place in 0..RUN {
        for (sum, run) in sums.iter_mut().zip(runs) {
            *sum += square(run[place], factor);
        }
    }
    sums
}

#[inline(always)]
fn square<F: Real>(x: F, factor: f64) -> f64 {
    let x = x.to_f64() * factor;
    x * x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right_at_every_scale() {
        for exponent in [-1060, -600, -3, 0, 5, 900, 1020] {
            let scale = libm::ldexp(1.0, exponent);
            assert_eq!(norm(&[3.0 * scale, 0.0, -4.0 * scale]), 5.0 * scale, "2^{exponent}");
        }
        assert_eq!((norm::<f64>(&[]), norm(&[0.0, -0.0])), (0.0, 0.0));
        assert!(norm(&[1.0, f64::NAN, 2.0]).is_nan() && norm(&[f64::INFINITY, 1.0]).is_infinite());
        let many = vec![0.1; 3 * RUN + 17];
        approx::assert_relative_eq!(norm(&many), 0.1 * libm::sqrt(many.len() as f64), max_relative = 1e-13);
    }

    #[test]
    fn parts_cut_at_runs_add_up_to_the_same_bits() {
        let of_place = |i: usize| libm::ldexp(libm::sin(i as f64), (i % 40) as i32);
        let values: Vec<f64> = (0..2 * RUN + 301).map(of_place).collect();
        // Another unit than that of the whole: powers of two leave no trace.
        let unit = libm::ldexp(1.0, 3);
        let of_run = |run: &[f64]| run.iter().fold(0.0, |sum, x| sum + (x / unit) * (x / unit));
        let of_part = |part: &[f64]| part.chunks(RUN).map(of_run).collect::<Vec<f64>>();
        let parts = [of_part(&values[..RUN]), of_part(&values[RUN..])].concat();
        assert_eq!(norm(&values), parts.iter().fold(0.0, |sum, part| sum + part).sqrt() * unit);
    }

    #[test]
    fn only_longer_gradients_are_shortened() {
        let mut grad = [3.0, -4.0];
        clip(&mut grad, 5.0);
        assert_eq!(grad, [3.0, -4.0]);
        clip(&mut grad, 2.5);
        assert_eq!(grad, [1.5, -2.0]);
    }

    #[test]
    fn many_runs_at_once_have_the_bits_of_one_after_the_other() {
        let of_place = |i: usize| libm::ldexp(libm::sin(i as f64), (i % 40) as i32 - 20);
        for n in [AT_ONCE * RUN - 1, AT_ONCE * RUN, 2 * AT_ONCE * RUN + 3 * RUN + 17] {
            let values: Vec<f32> = (0..n).map(|i| of_place(i) as f32).collect();
            let of_run = |run: &[f32]| run.iter().fold(0.0, |sum, x| sum + f64::from(*x) * f64::from(*x));
            let expected = values.chunks(RUN).map(of_run).fold(0.0, |sum, run| sum + run).sqrt();
            assert_eq!(norm(&values), expected, "{n}");
        }
    }

    #[test]
    fn lengths_of_single_floats_are_right_at_every_scale() {
        for exponent in [-146, -30, 0, 125] {
            let scale = libm::ldexp(1.0, exponent) as f32;
            assert_eq!(norm(&[3.0 * scale, 0.0, -4.0 * scale]), 5.0 * f64::from(scale), "2^{exponent}");
        }
        assert!(norm(&[1.0f32, f32::NAN]).is_nan() && norm(&[f32::INFINITY, 1.0]).is_infinite());
    }

    #[test]
    fn squares_of_parts_in_any_order_are_those_of_the_whole() {
        let values: Vec<f32> = (0..19 * RUN + 61).map(|i| libm::sin((i * i) as f64) as f32).collect();
        let mut whole = ExactSum::new();
        add_squares(&values, &mut whole);
        approx::assert_relative_eq!(length(&whole), norm(&values), max_relative = 1e-14);
        for cuts in [&[RUN][..], &[9 * RUN, 10 * RUN], &[RUN, 2 * RUN, 17 * RUN, 19 * RUN]] {
            let (mut parts, mut rest) = (ExactSum::new(), &values[..]);
            for cut in cuts.iter().rev() {
                let (before, after) = rest.split_at(*cut);
                let mut part = ExactSum::new();
                add_squares(after, &mut part);
                parts.merge(&part);
                rest = before;
            }
            add_squares(rest, &mut parts);
            assert_eq!(parts, whole, "{cuts:?}");
        }
        add_squares(&[f32::NAN], &mut whole);
        assert!(length(&whole).is_infinite());
    }

    #[test]
    fn a_part_is_shortened_as_the_whole_is() {
        let grad: Vec<f32> = (0..301).map(|i| libm::cos(i as f64) as f32).collect();
        let (mut whole, mut part) = (grad.clone(), grad[..97].to_vec());
        let length = norm(&grad);
        clip(&mut whole, 0.3);
        shorten(&mut part, length, 0.3);
        assert_eq!(part, whole[..97]);
        approx::assert_relative_eq!(norm(&whole), 0.3, max_relative = 1e-7);
    }
}
