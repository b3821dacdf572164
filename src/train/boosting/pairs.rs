//! Gradient pairs of rows: how large they are, as integers that trees are grown on, and their sums by leaf.

use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::scale::{ceil_log2, exponent_of, from_order_key, order_key, pow2};
use crate::functions::prefetch_at;
use crate::grow::{LeafOfRows, Pair, PairScale, UNIT_BITS, WIDE_BITS};
use crate::rng::FastDraws;
use multiversion::multiversion;
use rayon::prelude::*;

/// Rows of a task.
const TASK_ROWS: usize = 1 << 14;

/// w·∂loss and w·∂²loss of a rank's rows, for one score.
pub(super) struct Pairs<'a> {
    pub(super) pairs: &'a [[f32; 2]],
    /// Global number of the first row here.
    pub(super) first_row: u64,
    /// Of the whole table.
    pub(super) n_rows: u64,
}

/// Largest |gradient| and hessian of a tree's rows, as powers of two that are above them.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// None: all are 0.
    pub(super) gradient: Option<i32>,
    hessian: Option<i32>,
    /// The largest are so far above the others that 16 bits would say nothing of these.
    is_heavy: bool,
}

impl Pairs<'_> {
    /// Largest |gradient| and hessian. Collective.
    pub(super) fn agree_bounds(&self, comm: &Communicator) -> Result<Bounds> {
        let of_tasks: Vec<[f32; 2]> = self.pairs.par_chunks(TASK_ROWS).map(most_of).collect();
        let mut keys = [order_key(0.0); 2];
        for most in of_tasks {
            for (key, most) in keys.iter_mut().zip(most) {
                *key = (*key).max(order_key(f64::from(most)));
            }
        }
        comm.all_reduce_max(&mut keys)?;
        let most = keys.map(from_order_key);
        if most.contains(&f64::INFINITY) {
            return Err(Error::data(
                "gradients are beyond 3e38: targets or weights are too large; rescale them, or ask for another --loss",
            ));
        }
        let exponent = |most: f64| (most > 0.0).then(|| exponent_of(most));
        let mut bounds = Bounds { gradient: exponent(most[0]), hessian: exponent(most[1]), is_heavy: false };
        bounds.is_heavy = self.is_heavy(comm, bounds)?;
        Ok(bounds)
    }

    /// Whether most gradients, or most hessians, that are not 0 would have less than 2 units of 16 bits. Collective.
    fn is_heavy(&self, comm: &Communicator, bounds: Bounds) -> Result<bool> {
        let least = [pow2(bounds.gradient.unwrap_or(0) - 13), pow2(bounds.hessian.unwrap_or(0) - 14)];
        let mut counts = [0u64; 4];
        let of_rows = |pairs: &[[f32; 2]]| sizes_of(pairs, least);
        for of_task in self.pairs.par_chunks(TASK_ROWS).map(of_rows).collect::<Vec<_>>() {
            counts.iter_mut().zip(of_task).for_each(|(count, of_task)| *count += of_task);
        }
        comm.all_reduce_sum(&mut counts)?;
        Ok(2 * counts[0] > counts[2] || 2 * counts[1] > counts[3])
    }

    /// Σ gradient and Σ hessian of each leaf's rows, from integers that are finer than those that trees are grown on. Collective.
    pub(super) fn leaf_sums(
        &self,
        comm: &Communicator,
        bounds: Bounds,
        leaf_of: &LeafOfRows,
        n_leaves: usize,
    ) -> Result<Vec<[f64; 2]>> {
        // So many rows of so many bits make no more than 62.
        let bits = 52.min(62 - ceil_log2(self.n_rows) as i32);
        let exponents = [bounds.gradient, bounds.hessian].map(|e| bits - 1 - e.unwrap_or(0));
        let ups = exponents.map(pow2);
        // Each task has sums of all leaves.
        let task_rows = TASK_ROWS.max(4 * n_leaves);
        let of_task = |(task, pairs): (usize, &[[f32; 2]])| {
            let mut sums = vec![[0i64; 2]; n_leaves];
            add_pairs(&mut sums, leaf_of, task * task_rows, pairs, ups);
            sums
        };
        let mut words = vec![0u64; 2 * n_leaves];
        for sums in self.pairs.par_chunks(task_rows).enumerate().map(of_task).collect::<Vec<_>>() {
            words.iter_mut().zip(sums.as_flattened()).for_each(|(word, sum)| *word = word.wrapping_add(*sum as u64));
        }
        comm.all_reduce_sum(&mut words)?;
        let [down_g, down_h] = exponents.map(|e| pow2(-e));
        let value = |words: &[u64]| [words[0] as i64 as f64 * down_g, words[1] as i64 as f64 * down_h];
        Ok(words.chunks_exact(2).map(value).collect())
    }
}

/// Largest |gradient| and hessian of rows, none of which is NaN: the loss is finite.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn most_of(pairs: &[[f32; 2]]) -> [f32; 2] {
    let larger = |one: f32, other: f32| if other > one { other } else { one };
    let more = |most: [f32; 2], pair: &[f32; 2]| [larger(most[0], pair[0].abs()), larger(most[1], pair[1])];
    let (eights, rest) = pairs.as_chunks::<8>();
    let mut most = [[0.0; 2]; 8];
    for eight in eights {
        most.iter_mut().zip(eight).for_each(|(most, pair)| *most = more(*most, pair));
    }
    most.iter().chain(rest).fold([0.0; 2], more)
}

/// How many gradients and hessians of rows are below `least` and not 0, and how many are not 0.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn sizes_of(pairs: &[[f32; 2]], least: [f64; 2]) -> [u64; 4] {
    let mut counts = [0; 4];
    for pair in pairs {
        for side in 0..2 {
            let size = f64::from(pair[side].abs());
            counts[side] += u64::from(size > 0.0 && size < least[side]);
            counts[2 + side] += u64::from(size > 0.0);
        }
    }
    counts
}

/// Pairs as integers, rounded up or down by a draw so that sums are right on average (`EXACT` 2a).
pub(super) struct Rounding<'a> {
    pub(super) pairs: &'a Pairs<'a>,
    pub(super) bounds: Bounds,
    pub(super) draws: FastDraws,
}

impl Rounding<'_> {
    /// Of a gradient with its sign, and of a hessian. Sums of many bits stay below 2⁵³, so that gains are of numbers that are exact.
    fn bits(&self) -> i32 {
        match self.bounds.is_heavy {
            false => UNIT_BITS as i32,
            true => (WIDE_BITS as i32).min(53 - ceil_log2(self.pairs.n_rows) as i32),
        }
    }

    /// Doublings of gradients and hessians.
    fn exponents(&self) -> [i32; 2] {
        let bits = self.bits();
        [bits - 2 - self.bounds.gradient.unwrap_or(0), bits - 1 - self.bounds.hessian.unwrap_or(0)]
    }

    pub(super) fn scale(&self) -> PairScale {
        let [gradient, hessian] = self.exponents().map(|exponent| pow2(-exponent));
        PairScale { gradient, hessian, is_wide: self.bounds.is_heavy }
    }
}

/// Those of some rows.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(super) fn round_pairs(rounding: &Rounding, rows: &[u32], units: &mut [[Pair; 2]]) {
    let Pairs { pairs, first_row, .. } = *rounding.pairs;
    rows.iter().for_each(|row| prefetch_at(pairs, *row as usize));
    let [up_g, up_h] = rounding.exponents().map(pow2);
    let most = pow2(rounding.bits() - 1) - 1.0;
    let half = |bits: u64| (bits as u32 as f64) * (1.0 / 4_294_967_296.0);
    for (row, unit) in rows.iter().zip(units) {
        let [g, h] = pairs[*row as usize];
        let drawn = rounding.draws.bits(first_row + u64::from(*row));
        let (g, h) = (f64::from(g) * up_g + half(drawn), f64::from(h) * up_h + half(drawn >> 32));
        let (g, h) = (g.floor().clamp(-most, most), h.floor().clamp(0.0, 2.0 * most + 1.0));
        *unit = match rounding.bounds.is_heavy {
            false => [Pair::new(g as i32, h as u32), Pair::default()],
            true => Pair::digits(g as i64, h as i64),
        };
    }
}

/// Adds pairs as integers, each multiplied before it is rounded, to the sums of their rows' leaves.
///
/// * `first_row`: the number of the first row.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add_pairs(
    sums: &mut [[i64; 2]],
    leaf_of: &LeafOfRows,
    first_row: usize,
    pairs: &[[f32; 2]],
    [up_g, up_h]: [f64; 2],
) {
    for (row, [g, h]) in pairs.iter().enumerate() {
        let Some(leaf) = leaf_of.of_taken(first_row + row) else { continue };
        let [g_sum, h_sum] = &mut sums[leaf];
        *g_sum = g_sum.wrapping_add((f64::from(*g) * up_g).round_ties_even() as i64);
        *h_sum = h_sum.wrapping_add((f64::from(*h) * up_h).round_ties_even() as i64);
    }
}
