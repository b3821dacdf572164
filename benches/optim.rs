//! What a step of the optimisers costs, nanoseconds a parameter and milliseconds a step, on one thread and on all.
//!
//! `cargo bench --bench optim`; one JSON line a case: {"bench","case","kept","n","threads","ns_per_element","ms"}. Best of the
//! repetitions that fit a third of a second. 700,000 parameters are those of a 784-512-512-10 network, roughly.

use consort::optim::{Adagrad, Adam, Lamb, Lars, Optimizer, Pieces, Real, Sgd, Tensor, cut, norm};
use std::hint::black_box;
use std::time::Instant;

const TENSORS: [Tensor; 4] = [Tensor::new(784 * 512), Tensor::free(512), Tensor::new(512 * 512), Tensor::new(43_000)];

type Make<F> = fn(&[Tensor]) -> Box<dyn Optimizer<F>>;

fn main() {
    of_width::<f32>("f32");
    of_width::<f64>("f64");
}

fn of_width<F: Real>(kept: &str) {
    let n = n_params(&TENSORS);
    let of_place = |i: usize| F::from_f64((i * 7_919 % 1_009) as f64 / 1_009.0 - 0.5);
    let mut grad: Vec<F> = (0..n).map(of_place).collect();
    let cases: [(&str, bool, Make<F>); 6] = [
        ("sgd, momentum", false, |tensors| Box::new(Sgd::new(n_params(tensors), 0.9, false))),
        ("sgd, nesterov", false, |tensors| Box::new(Sgd::new(n_params(tensors), 0.9, true))),
        ("adamw", false, |t| Box::new(Adam::new(n_params(t), [0.9, 0.999], 1e-8).with_decay(0.01, t))),
        ("adagrad", false, |tensors| Box::new(Adagrad::new(n_params(tensors), 1e-10))),
        ("lamb", true, |tensors| Box::new(Lamb::new(tensors, [0.9, 0.999], 1e-6, 0.01, 1.0, 0.0))),
        ("lars", true, |tensors| Box::new(Lars::new(tensors, 0.9, 0.01, 0.0, 1.0))),
    ];
    for (case, whole_tensors, make) in cases {
        let mut params = grad.clone();
        let mut one = make(&TENSORS);
        report(case, kept, n, 1, time(|| one.step(1e-4, black_box(&grad), &mut params)));
        let mut pieces = Pieces::new(&cut(&TENSORS, whole_tensors), |_| true, make);
        let threads = rayon::current_num_threads();
        report(case, kept, n, threads, time(|| pieces.step(1e-4, black_box(&mut grad), &mut params)));
    }
    report("norm", kept, n, 1, time(|| norm(black_box(&grad))));
    let pieces: Pieces<F> =
        Pieces::new(&cut(&TENSORS, false), |_| true, |tensors| Box::new(Sgd::new(n_params(tensors), 0.9, false)));
    let threads = rayon::current_num_threads();
    report("squares", kept, n, threads, time(|| pieces.squares(black_box(&grad))));
}

fn n_params(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.len).sum()
}

/// Seconds, best of the repetitions.
fn time<T>(mut work: impl FnMut() -> T) -> f64 {
    let (start, mut best, mut repetitions) = (Instant::now(), f64::INFINITY, 0);
    while repetitions < 5 || start.elapsed().as_secs_f64() < 0.33 {
        let begin = Instant::now();
        black_box(work());
        best = best.min(begin.elapsed().as_secs_f64());
        repetitions += 1;
    }
    best
}

fn report(case: &str, kept: &str, n: usize, threads: usize, seconds: f64) {
    println!(
        "{{\"bench\":\"optim\",\"case\":\"{case}\",\"kept\":\"{kept}\",\"n\":{n},\"threads\":{threads},\"ns_per_element\":{:.3},\"ms\":{:.3}}}",
        seconds * 1e9 / n as f64,
        seconds * 1e3
    );
}
