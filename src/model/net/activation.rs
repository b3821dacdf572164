//! What is applied to each value by itself.

use super::operation::{Operation, Pass, Values, ValuesMut};
use crate::config::Activation;
use crate::functions::exp;
use multiversion::multiversion;

/// An [`Activation`] of rows of `width` values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activate {
    pub width: usize,
    pub by: Activation,
}

impl Operation for Activate {
    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, pass: &Pass<'_>, _: &[f32], input: Values<'_>, mut output: ValuesMut<'_>, _: &mut [f32]) {
        for row in 0..pass.rows.len() {
            let (x, y) = (input.row(row), output.row(row));
            match self.by {
                Activation::Relu => relu(x, y),
                Activation::Gelu => gelu(x, y),
                Activation::Tanh => tanh(x, y),
                Activation::Silu => silu(x, y),
            }
        }
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        _: &[f32],
        input: Values<'_>,
        output: Values<'_>,
        _: &mut [f32],
        d_output: Values<'_>,
        mut d_input: ValuesMut<'_>,
    ) {
        for row in 0..pass.rows.len() {
            let (x, y, dy, dx) = (input.row(row), output.row(row), d_output.row(row), d_input.row(row));
            match self.by {
                Activation::Relu => d_relu(x, dy, dx),
                Activation::Gelu => d_gelu(x, dy, dx),
                Activation::Tanh => d_tanh(y, dy, dx),
                Activation::Silu => d_silu(x, dy, dx),
            }
        }
    }
}

/// Largest |x| whose exponential is taken: beyond, sigmoids are 0 or 1 in float32.
const FAR: f64 = 100.0;

/// 1/(1 + e^−x).
#[inline(always)]
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x.clamp(-FAR, FAR)))
}

/// The normal distribution function by its formula 7.1.26 in Abramowitz, Stegun, *Handbook of mathematical functions*, 1964: absolute error
/// below 1e-7. Also its density.
#[inline(always)]
fn normal(x: f64) -> (f64, f64) {
    const INVERSE_ROOT_TAU: f64 = 0.398_942_280_401_432_7;
    let z = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
    let z = if z > 10.0 { 10.0 } else { z };
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let bell = exp(-z * z);
    let p = t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let below = 0.5 * p * bell;
    (if x < 0.0 { below } else { 1.0 - below }, INVERSE_ROOT_TAU * bell)
}

macro_rules! each_value {
    ($(#[$doc:meta])* $name:ident($x:ident) = $value:expr) => {
        $(#[$doc])*
        #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
        fn $name(x: &[f32], y: &mut [f32]) {
            for ($x, y) in x.iter().copied().zip(y) {
                *y = $value;
            }
        }
    };
    ($(#[$doc:meta])* $name:ident($x:ident) times d = $value:expr) => {
        $(#[$doc])*
        #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
        fn $name(x: &[f32], dy: &[f32], dx: &mut [f32]) {
            for (($x, dy), dx) in x.iter().copied().zip(dy).zip(dx) {
                // A name for it: the attribute reads the words again, without the bounds of the expression.
                let slope: f32 = $value;
                *dx = dy * slope;
            }
        }
    };
}

// −0 becomes +0.
each_value!(relu(x) = if x > 0.0 { x } else { 0.0 });
each_value!(d_relu(x) times d = if x > 0.0 { 1.0 } else { 0.0 });
each_value!(gelu(x) = (f64::from(x) * normal(f64::from(x)).0) as f32);
each_value!(
    d_gelu(x) times d = {
        let x = f64::from(x);
        let (below, density) = normal(x);
        (below + x * density) as f32
    }
);
each_value!(tanh(x) = (2.0 * sigmoid(2.0 * f64::from(x)) - 1.0) as f32);
// Of what went out.
each_value!(d_tanh(y) times d = 1.0 - y * y);
each_value!(silu(x) = (f64::from(x) * sigmoid(f64::from(x))) as f32);
each_value!(
    d_silu(x) times d = {
        let x = f64::from(x);
        let s = sigmoid(x);
        (s + x * s * (1.0 - s)) as f32
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_definitions() {
        let x: Vec<f32> = (-400..=400).map(|i| i as f32 * 0.05).collect();
        let mut y = vec![0.0; x.len()];
        let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 3e-7 * (1.0 + b.abs());
        gelu(&x, &mut y);
        for (x, y) in x.iter().map(|x| f64::from(*x)).zip(&y) {
            assert!(close(*y, x * 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)), "gelu({x}) = {y}");
        }
        tanh(&x, &mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| close(*y, libm::tanh(f64::from(*x)))));
        silu(&x, &mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| close(*y, f64::from(*x) / (1.0 + libm::exp(-f64::from(*x))))));
        relu(&[-1.0, -0.0, 0.0, 2.0, f32::MIN], &mut y[..5]);
        assert_eq!(
            y[..5].iter().map(|y| y.to_bits()).collect::<Vec<_>>(),
            [0.0f32, 0.0, 0.0, 2.0, 0.0].map(f32::to_bits)
        );
    }
}
