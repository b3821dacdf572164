//! The two widths in which parameters are kept.

use serde::{Serialize, de::DeserializeOwned};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A number that parameters, gradients and an optimiser's memory are made of: f32 for networks, where memory counts, else f64.
///
/// What becomes of an element in a step is worked out in f64 and rounded once to be kept, so that one loop serves both.
pub trait Real:
    sealed::Sealed + Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// Numbers whose sum a double is: see [`parts`](Self::parts).
    const PARTS: usize;
    /// Whether squares neither overflow nor vanish as doubles.
    const SQUARES_FIT: bool;

    fn to_f64(self) -> f64;

    /// The nearest, ties to even.
    fn from_f64(x: f64) -> Self;

    /// The same for a mean that may fade: an f32 below 2^−126 is 0. Else it would get stuck at the smallest numbers there are (0.9 of one is
    /// rounded to one), which some processors take a hundred times as long with.
    fn fading(x: f64) -> Self;

    /// Numbers that add up to `x` without rounding: one f64, or three f32 if 2^−97 ≤ |x| < 2^127. What they lack below is less than 2^−149.
    fn parts(x: f64, parts: &mut [Self]) {
        let mut rest = x;
        for part in parts {
            *part = Self::from_f64(rest);
            rest -= part.to_f64();
        }
    }

    /// What [`parts`](Self::parts) cut.
    fn of_parts(parts: &[Self]) -> f64 {
        parts.iter().fold(0.0, |sum, part| sum + part.to_f64())
    }
}

impl Real for f64 {
    const PARTS: usize = 1;
    const SQUARES_FIT: bool = false;

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }

    #[inline(always)]
    fn fading(x: f64) -> f64 {
        x
    }
}

impl Real for f32 {
    const PARTS: usize = 3;
    const SQUARES_FIT: bool = true;

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }

    #[inline(always)]
    fn fading(x: f64) -> f32 {
        let x = x as f32;
        if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_double() {
        let cut = |x: f64| {
            let mut parts = [0.0f32; 3];
            f32::parts(x, &mut parts);
            f32::of_parts(&parts)
        };
        let mut power = 1.0;
        for beta in [0.9, 0.999, 0.5, 0.123_456_789] {
            for _ in 0..400 {
                power *= beta;
                if power < libm::ldexp(1.0, -97) {
                    // Of no consequence: what is asked for is 1 − power.
                    assert!((cut(power) - power).abs() < libm::ldexp(1.0, -149));
                    power = 1.0 / 3.0;
                } else {
                    assert_eq!(cut(power), power);
                }
            }
        }
        assert_eq!((cut(1.0), cut(0.0), cut(-1.0 / 3.0)), (1.0, 0.0, -1.0 / 3.0));
    }

    #[test]
    fn a_fading_mean_ends_at_0() {
        let mut mean = 1.0f32;
        for _ in 0..1000 {
            mean = f32::fading(0.9 * mean.to_f64());
            assert!(mean == 0.0 || mean.is_normal());
        }
        assert_eq!(mean, 0.0);
        assert!(f32::fading(f64::NAN).is_nan() && f32::fading(1e39).is_infinite());
        assert_eq!(f32::fading(f64::from(f32::MIN_POSITIVE)), f32::MIN_POSITIVE);
    }
}
