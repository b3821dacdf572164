//! Lengths of vectors, the same whoever has which part of them.

/// Squares are added in runs of so many numbers, and these sums in order: parts of parameters that are cut there have the bits of the whole.
const RUN: usize = 4096;

/// √Σx². Not collective; does not allocate.
///
/// Neither overflows nor vanishes where the length itself does not. Not finite where an element is not.
pub fn norm(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0f64, |largest, x| if x.abs() <= largest { largest } else { x.abs() });
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    // A power of two, so that dividing by it does not round.
    let unit = f64::from_bits(largest.to_bits() & (0x7ff << 52)).max(f64::MIN_POSITIVE);
    let of_run = |run: &[f64]| run.iter().fold(0.0, |sum, x| sum + (x / unit) * (x / unit));
    values.chunks(RUN).fold(0.0, |sum, run| sum + of_run(run)).sqrt() * unit
}

/// Shortens `grad` to the length `most` if it is longer; its direction stays. Not collective; does not allocate.
///
/// Source: Pascanu, Mikolov, Bengio, *On the difficulty of training recurrent neural networks*, ICML 2013, algorithm 1.
pub fn clip(grad: &mut [f64], most: f64) {
    let length = norm(grad);
    if length > most {
        let factor = most / length;
        grad.iter_mut().for_each(|g| *g *= factor);
    }
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
        assert_eq!((norm(&[]), norm(&[0.0, -0.0])), (0.0, 0.0));
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
}
