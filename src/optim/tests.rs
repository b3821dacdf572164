//! Every optimiser against the recurrences in plain loops: to the last bit, with f64 and with f32.

use super::*;

const N: usize = 4_201;
const TENSORS: [Tensor; 3] = [Tensor::new(4_099), Tensor::free(1), Tensor::new(101)];
const BETAS: [f64; 2] = [0.9, 0.999];

/// Steps `optimizer` and its plain twin, which takes the step's number, gradients, and the parameters as doubles.
fn same_bits<F: Real>(
    name: &str,
    mut optimizer: impl Optimizer<F>,
    mut twin: impl FnMut(i32, f64, &[f64], &mut [f64], fn(f64) -> f64),
) {
    let kept: fn(f64) -> f64 = |x| F::from_f64(x).to_f64();
    let number = |seed: usize, i: usize| kept(libm::ldexp(libm::sin((seed * 31 + i * 7) as f64), (i % 23) as i32 - 11));
    let mut plain: Vec<f64> = (0..N).map(|i| number(1, i)).collect();
    let mut params: Vec<F> = plain.iter().map(|x| F::from_f64(*x)).collect();
    for step in 1..=5 {
        let grad: Vec<f64> = (0..N).map(|i| number(step as usize + 1, i)).collect();
        let rate = 0.1 / f64::from(step);
        optimizer.step(rate, &grad.iter().map(|g| F::from_f64(*g)).collect::<Vec<F>>(), &mut params);
        twin(step, rate, &grad, &mut plain, kept);
        let differ = (0..N).find(|&i| params[i].to_f64().to_bits() != plain[i].to_bits());
        assert_eq!(differ, None, "{name}, step {step}, {}", std::any::type_name::<F>());
    }
}

fn all<F: Real>() {
    for nesterov in [false, true] {
        let mut velocity = [0.0; N];
        same_bits::<F>("sgd", Sgd::new(N, 0.9, nesterov), |_, rate, grad, params, kept| {
            for i in 0..N {
                let v = 0.9 * velocity[i] + grad[i];
                params[i] = kept(params[i] - rate * if nesterov { grad[i] + 0.9 * v } else { v });
                velocity[i] = kept(v);
            }
        });
    }
    let mut squares = [0.0; N];
    same_bits::<F>("adagrad", Adagrad::new(N, 1e-10), |_, rate, grad, params, kept| {
        for i in 0..N {
            let s = squares[i] + grad[i] * grad[i];
            params[i] = kept(params[i] - rate * grad[i] / (s.sqrt() + 1e-10));
            squares[i] = kept(s);
        }
    });
    for decay in [0.0, 0.3] {
        let adam = Adam::new(N, BETAS, 1e-8);
        let adam = if decay > 0.0 { adam.with_decay(decay, &TENSORS) } else { adam };
        let mut moments = Plain::new();
        same_bits::<F>("adam", adam, |step, rate, grad, params, kept| {
            for i in 0..N {
                let (mean, root) = moments.of(i, step, grad[i], 1e-8, kept);
                let factor = if decay > 0.0 && i != 4_099 { 1.0 - rate * decay } else { 1.0 };
                params[i] = kept(params[i] * factor - rate * mean / root);
            }
        });
    }
    let mut moments = Plain::new();
    same_bits::<F>("lamb", Lamb::new(&TENSORS, BETAS, 1e-6, 0.3, 2.0, 0.5), |step, rate, grad, params, kept| {
        let mut r = [0.0; N];
        for i in 0..N {
            let (mean, root) = moments.of(i, step, grad[i], 1e-6, kept);
            r[i] = kept(mean / root);
        }
        each_tensor(&TENSORS, |place, is_free| {
            let (params, r) = (&mut params[place.clone()], &mut r[place]);
            if !is_free {
                (0..r.len()).for_each(|i| r[i] = kept(r[i] + 0.15 * params[i]));
            }
            let length = if is_free { 2.0 } else { plain_norm(params) / plain_norm(r) };
            (0..r.len()).for_each(|i| params[i] = kept(params[i] - rate * length * r[i]));
        });
    });
    let mut velocity = [0.0; N];
    same_bits::<F>("lars", Lars::new(&TENSORS, 0.9, 0.2, 0.0, 0.7), |_, rate, grad, params, kept| {
        each_tensor(&TENSORS, |place, is_free| {
            let decay = if is_free { 0.0 } else { 0.2 };
            let length = plain_norm(&params[place.clone()]);
            let trust = TRUST * length / (plain_norm(&grad[place.clone()]) + decay * length);
            let rate = rate * if is_free { 0.7 } else { trust };
            for i in place {
                let v = 0.9 * velocity[i] + rate * (grad[i] + decay * params[i]);
                params[i] = kept(params[i] - v);
                velocity[i] = kept(v);
            }
        });
    });
}

struct Plain {
    m: [f64; N],
    v: [f64; N],
}

impl Plain {
    fn new() -> Plain {
        Plain { m: [0.0; N], v: [0.0; N] }
    }

    /// m̂ and √v̂ + ε.
    fn of(&mut self, i: usize, step: i32, g: f64, epsilon: f64, kept: fn(f64) -> f64) -> (f64, f64) {
        let [of_m, of_v] = BETAS.map(|beta| 1.0 / (1.0 - (0..step).fold(1.0, |power, _| power * beta)));
        let m = BETAS[0] * self.m[i] + (1.0 - BETAS[0]) * g;
        let v = BETAS[1] * self.v[i] + (1.0 - BETAS[1]) * (g * g);
        (self.m[i], self.v[i]) = (kept(m), kept(v));
        (m * of_m, (v * of_v).sqrt() + epsilon)
    }
}

/// Runs of 4096 squares, the first numbers first. Within range: no unit is needed.
fn plain_norm(values: &[f64]) -> f64 {
    values.chunks(4096).fold(0.0, |sum, run| sum + run.iter().fold(0.0, |sum, x| sum + x * x)).sqrt()
}

#[test]
fn steps_have_the_bits_of_plain_loops() {
    all::<f64>();
    all::<f32>();
}
