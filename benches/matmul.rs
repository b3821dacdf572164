//! What share of the processor's multiply-adds the products of networks make: forward, backward, and the gradient of weights.
//!
//! `cargo bench --bench matmul`; one JSON line a network, product and number of threads: {"bench","case","product","threads","gflops",
//! "peak_gflops","share","share_of_layers"}. Two operations a multiply-add. The peak is that of independent multiply-adds on vectors of the same
//! width, in registers, on as many threads, measured in turn with the products; of everything the best of the rounds counts, so that others who
//! use the machine disturb the share little.
//!
//! Work is cut as in a step: rows in strips of at most 128 that threads take and pack, gradients lane by lane (128 rows, packed first) in parts of a panel. Backward leaves
//! out the first layer, whose input has no slope. Fair: products alone, without activations, turning and integers, and on values that lie in the
//! caches a little better than within a step.

use consort::matmul::{
    Aligned, Panels, SLAB_ROWS, Segment, Start, Weights, add_packed_slab, multiply, pack, packed_len, zeros,
};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::hint::black_box;
use std::time::Instant;

/// Units of each layer, the features first, and rows of a batch.
const CASES: [(&[usize], usize); 2] = [(&[784, 512, 512, 10], 256), (&[784, 2048, 2048, 10], 1024)];
const ROUNDS: usize = 7;
/// Of a lane, and of a strip at most.
const LANE_ROWS: usize = 128;
/// Sums that do not wait for one another: two multiply-adds a cycle of four cycles each need eight.
const SUMS: usize = 16;

fn main() {
    for threads in [1, 2] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        for (widths, n_rows) in CASES {
            let layers: Vec<Layer> = widths.windows(2).map(|pair| Layer::new(pair[0], pair[1], n_rows)).collect();
            measure(&pool, widths, n_rows, layers);
        }
    }
}

/// A dense layer and the values on both sides of it.
struct Layer {
    k: usize,
    n: usize,
    n_rows: usize,
    /// (rows, k)
    input: Vec<f32>,
    /// (rows, n)
    output: Vec<f32>,
    /// (rows, n)
    d_output: Vec<f32>,
    /// (rows, k)
    d_input: Vec<f32>,
    weights: Aligned,
    turned: Aligned,
    /// Input and slopes of a lane, packed.
    packed: [Aligned; 2],
    gradient: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn new(k: usize, n: usize, n_rows: usize) -> Layer {
        let values = |len: usize| (0..len).map(|i| (i * 7_919 % 1_009) as f32 / 1_009.0 - 0.5).collect::<Vec<f32>>();
        let mut weights = zeros(k * n);
        weights.copy_from_slice(&values(k * n));
        let turned_panels = Panels::new(n, k);
        let mut turned = zeros(k * n);
        for p in 0..turned_panels.count() {
            Panels::new(k, n).transpose_panel(&weights, p, &mut turned[turned_panels.panel(p)]);
        }
        Layer {
            k,
            n,
            n_rows,
            input: values(n_rows * k),
            output: vec![0.0; n_rows * n],
            d_output: values(n_rows * n),
            d_input: vec![0.0; n_rows * k],
            weights,
            turned,
            packed: [zeros(packed_len(LANE_ROWS, k)), zeros(packed_len(LANE_ROWS, n))],
            gradient: vec![0.0; k * n],
            bias: vec![0.25; n],
        }
    }

    /// Multiply-adds of one product, times two.
    fn operations(&self) -> f64 {
        2.0 * (self.k * self.n * self.n_rows) as f64
    }

    fn forward(&mut self, strip: usize) {
        let (panels, start) = (Panels::new(self.k, self.n), Start::Bias(&self.bias));
        rows_times(&self.input, &self.weights, panels, start, strip, &mut self.output);
    }

    fn backward(&mut self, strip: usize) {
        rows_times(&self.d_output, &self.turned, Panels::new(self.n, self.k), Start::Zero, strip, &mut self.d_input);
    }

    fn gradient(&mut self) {
        let panels = Panels::new(self.k, self.n);
        for lane in (0..self.n_rows).step_by(LANE_ROWS) {
            let n_rows = LANE_ROWS.min(self.n_rows - lane);
            let (input, d_output) = (&self.input[lane * self.k..], &self.d_output[lane * self.n..]);
            let [of_input, of_output] = &mut self.packed;
            rayon::join(
                || pack(input, |row| row * self.k, n_rows, &[Segment { offset: 0, len: self.k }], of_input),
                || pack(d_output, |row| row * self.n, n_rows, &[Segment { offset: 0, len: self.n }], of_output),
            );
            let (mut parts, mut rest) = (Vec::new(), &mut self.gradient[..]);
            for p in 0..panels.count() {
                let columns = panels.columns(p);
                for first in (0..self.k).step_by(SLAB_ROWS) {
                    let n = SLAB_ROWS.min(self.k - first);
                    let slab = rest.split_off_mut(..n * columns.len()).expect("slabs make up a matrix");
                    let of_input = &of_input[packed_len(n_rows, first)..];
                    parts.push((of_input, &of_output[packed_len(n_rows, columns.start)..], columns.len(), slab));
                }
            }
            parts.into_par_iter().for_each(|(of_input, of_output, width, slab)| {
                slab.fill(0.0);
                add_packed_slab(of_input, of_output, n_rows, width, slab);
            });
        }
    }
}

/// All rows times a matrix, strip by strip.
fn rows_times(left: &[f32], weights: &[f32], panels: Panels, start: Start<'_>, strip: usize, out: &mut [f32]) {
    let (k, n) = (panels.k, panels.n);
    let whole = [Segment { offset: 0, len: k }];
    out.par_chunks_mut(strip * n).zip(left.par_chunks(strip * k)).for_each(|(out, left)| {
        multiply(
            left,
            |row| row * k,
            left.len() / k,
            &whole,
            panels,
            Weights::Wide(weights),
            start,
            out,
            |row| row * n,
        );
    });
}

fn measure(pool: &ThreadPool, widths: &[usize], n_rows: usize, mut layers: Vec<Layer>) {
    let threads = pool.current_num_threads();
    let strip = n_rows.div_ceil(2 * threads).clamp(8, LANE_ROWS).next_multiple_of(8);
    let name = widths.iter().map(|width| width.to_string()).collect::<Vec<_>>().join("-");
    type Product = fn(&mut Layer, usize);
    let products: [(&str, usize, Product); 3] = [
        ("forward", 0, |layer, strip| layer.forward(strip)),
        ("backward", 1, |layer, strip| layer.backward(strip)),
        ("gradient", 0, |layer, _| layer.gradient()),
    ];
    let mut peak = 0.0f64;
    // Seconds of each product and layer.
    let mut best = [const { Vec::new() }; 3];
    best.iter_mut().for_each(|best| best.resize(layers.len(), f64::INFINITY));
    for _ in 0..ROUNDS {
        peak = peak.max(pool.install(peak_gflops));
        for ((_, first, product), best) in products.iter().zip(&mut best) {
            for (layer, best) in layers.iter_mut().zip(best).skip(*first) {
                *best = best.min(pool.install(|| seconds(|| product(layer, strip))));
            }
        }
    }
    for ((product, first, _), best) in products.iter().zip(best) {
        let shares = layers.iter().zip(&best).skip(*first);
        let shares: Vec<f64> = shares
            .map(|(layer, seconds)| (layer.operations() / seconds / 1e9 / peak * 1000.0).round() / 1000.0)
            .collect();
        let operations: f64 = layers.iter().skip(*first).map(Layer::operations).sum();
        let gflops = operations / best.iter().skip(*first).sum::<f64>() / 1e9;
        println!(
            "{{\"bench\":\"matmul\",\"case\":\"{name}, batch {n_rows}\",\"product\":\"{product}\",\"threads\":{threads},\"gflops\":{gflops:.1},\
             \"peak_gflops\":{peak:.1},\"share\":{:.3},\"share_of_layers\":{shares:?}}}",
            gflops / peak
        );
    }
}

/// Of one call, the best of those that fit a fiftieth of a second after the first.
fn seconds(mut work: impl FnMut()) -> f64 {
    work();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.02 || best == f64::INFINITY {
        let since = Instant::now();
        work();
        best = best.min(since.elapsed().as_secs_f64());
    }
    best
}

/// Multiply-adds in registers on all threads of the pool, times two.
fn peak_gflops() -> f64 {
    const REPEATS: usize = 200_000;
    let threads = rayon::current_num_threads();
    let lanes = Arch::new().dispatch(Peak { repeats: 1 }).1;
    let of_all = seconds(|| {
        rayon::broadcast(|_| black_box(Arch::new().dispatch(Peak { repeats: black_box(REPEATS) })));
    });
    2.0 * (threads * REPEATS * SUMS * lanes) as f64 / of_all / 1e9
}

struct Peak {
    repeats: usize,
}

impl WithSimd for Peak {
    /// A number that needs all of them, and numbers in a vector.
    type Output = (f32, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, usize) {
        let (factor, term) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
        let mut sums = [term; SUMS];
        for _ in 0..self.repeats {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, term);
            }
        }
        let mut total = simd.splat_f32s(0.0);
        for sum in sums {
            total = simd.add_f32s(total, sum);
        }
        (simd.reduce_sum_f32s(total), S::F32_LANES)
    }
}
