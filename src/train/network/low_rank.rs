//! Gradients of weight matrices as products of two thin ones.

use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::scale::{exponent_of_f32, pow2};
use crate::exact::{Groups, LaneGrid};
use crate::matmul::{Panels, Segment, Start, WIDTH, Weights, add_slab, multiply};
use crate::model::Network;
use crate::rng::{Draws, Stream};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a matrix that one thread multiplies at a time. Not part of the answer.
const RUN: usize = 256;
/// Of the square of a column's length: what is left of one that is a sum of the others. Rounding in f64 leaves 2^−106.
const VANISHED: f64 = pow2(-80);

/// PowerSGD. M_l: what lane l holds of a weight matrix (k, n), Q: (n, r), known to all. Lanes send P_l = M_l·Q; the columns of Σ P_l are made orthonormal, P̂;
/// lanes send Q_l = M_lᵀ·P̂; the gradient is P̂·(Σ Q_l)ᵀ, and M_l − P̂·Q_lᵀ stays with lane l. Σ Q_l is the next step's Q.
///
/// * The matrix of a tensor has the last axis as columns and all others as rows: inputs × outputs, of a convolution places and channels × channels that come
///   out, of an embedding categories × numbers. Its rank is min(r, k, n). Where r·(k + n) numbers are no fewer than k·n, and of all other tensors, every number
///   travels, in 32 bits.
/// * Products of lanes are chains of float32 in a fixed order; each column (of 65,536 numbers at most) is rounded to integers at an exponent from its reduced peak. Q_l
///   is what was sent: rounding stays with the lane.
/// * Orthonormal columns are made in float64, in order, by plain loops: every rank makes the same of the same sums.
/// * A column of Q is scaled by a power of two, which leaves P̂ alone. One that is 0, for the columns of P were no more, is drawn anew by (seed, column, step), as all
///   are at the start.
///
/// Traffic of a rank and step: 4 · r · (k + n) bytes a matrix, and 8 a column for its peaks.
///
/// Source: Vogels, Karimireddy, Jaggi, *PowerSGD: practical low-rank gradient compression for distributed optimization*, NeurIPS 2019, algorithms 1 and 2.
pub(super) struct LowRank {
    matrices: Vec<Matrix>,
    /// The other parameters.
    rest: Vec<Range<usize>>,
    /// Of what lanes send first: the columns of P, matrix after matrix, then the rest.
    first: Groups,
    /// Of what they send second: the columns of Q.
    second: Groups,
    draws: Draws,
}

/// What lanes hold of a weight matrix.
struct Matrix {
    /// (k, n).
    panels: Panels,
    /// Among the parameters.
    range: Range<usize>,
    rank: usize,
    /// Number of its first column among those of all matrices.
    column: u64,
    /// Q: (n, rank), row-major.
    basis: Vec<f32>,
}

impl LowRank {
    /// Not collective; a function of the network, the rank and the seed.
    pub fn new(network: &Network, rank: usize, seed: u64) -> LowRank {
        let (mut matrices, mut rest) = (Vec::new(), Vec::new());
        for (_, spec, range) in network.tensors() {
            let (k, n) = match &spec.shape[..] {
                [] | [_] => (1, range.len()),
                [inner @ .., n] => (inner.iter().product(), *n),
            };
            let rank = rank.min(k).min(n);
            match rank * (k + n) < k * n {
                true => matrices.push((Panels::new(k, n), range, rank)),
                false if range.is_empty() => {}
                false => rest.push(range),
            }
        }
        LowRank::of(matrices, rest, seed)
    }

    /// Of matrices and their ranks, and the other parameters.
    fn of(matrices: Vec<(Panels, Range<usize>, usize)>, rest: Vec<Range<usize>>, seed: u64) -> LowRank {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (panels, _, rank) in &matrices {
            first.extend(vec![panels.k; *rank]);
            second.extend(vec![panels.n; *rank]);
        }
        first.extend(rest.iter().map(Range::len));
        let draws = Draws::new(seed, Stream::LowRank);
        let mut column = 0;
        let matrix = |(panels, range, rank): (Panels, Range<usize>, usize)| {
            let mut matrix = Matrix { panels, range, rank, column, basis: vec![0.0; panels.n * rank] };
            column += rank as u64;
            (0..rank).for_each(|c| matrix.draw(c, draws, 0));
            matrix
        };
        let matrices = matrices.into_iter().map(matrix).collect();
        LowRank { matrices, rest, first: Groups::new(&first), second: Groups::new(&second), draws }
    }

    /// Takes from what lanes hold (one number a parameter each) what they send; `sums` becomes that of all lanes. False: something is no longer finite.
    /// Collective; rayon over lanes, matrices, and runs of them.
    pub fn add(
        &mut self,
        comm: &Communicator,
        grid: LaneGrid,
        mut lanes: Vec<&mut [f32]>,
        step: u64,
        sums: &mut [f32],
    ) -> Result<bool> {
        let mut sent: Vec<Vec<f32>> = lanes.par_iter().map(|held| self.first_of(held)).collect();
        let Some(of_all) = exchange(comm, grid, &self.first, &mut sent)? else { return Ok(false) };
        let n_columns: usize = self.matrices.iter().map(|matrix| matrix.panels.k * matrix.rank).sum();
        self.each_rest(&of_all[n_columns..], sums, |sum, value| *sum = value);
        for (held, sent) in lanes.iter_mut().zip(&sent) {
            self.each_rest(&sent[n_columns..], held, |left, sent| *left -= sent);
        }

        let tall = cut(&of_all, self.matrices.iter().map(|matrix| matrix.panels.k * matrix.rank));
        let of_matrix = |(matrix, columns): (&Matrix, &[f32])| orthonormal(columns, matrix.rank);
        let directions: Vec<Vec<f32>> = self.matrices.par_iter().zip(tall).map(of_matrix).collect();
        let second_of = |held: &&mut [f32]| -> Vec<f32> {
            let of_matrix = |(matrix, directions): (&Matrix, &Vec<f32>)| matrix.second(held, directions);
            let columns: Vec<Vec<f32>> = self.matrices.par_iter().zip(&directions).map(of_matrix).collect();
            columns.concat()
        };
        let mut sent: Vec<Vec<f32>> = lanes.par_iter().map(second_of).collect();
        let Some(of_all) = exchange(comm, grid, &self.second, &mut sent)? else { return Ok(false) };

        self.each_product(&directions, &of_all, sums, |sum, product| *sum = product);
        lanes.par_iter_mut().zip(&sent).for_each(|(held, sent)| {
            self.each_product(&directions, sent, held, |left, product| *left -= product);
        });
        let mut rest = &of_all[..];
        for matrix in &mut self.matrices {
            let columns = rest.split_off(..matrix.panels.n * matrix.rank).expect("columns of each matrix");
            matrix.take_up(columns, self.draws, step + 1);
        }
        Ok(true)
    }

    /// What a lane sends first.
    fn first_of(&self, held: &[f32]) -> Vec<f32> {
        let columns: Vec<Vec<f32>> = self.matrices.par_iter().map(|matrix| matrix.first(held)).collect();
        let mut all = columns.concat();
        self.rest.iter().for_each(|range| all.extend_from_slice(&held[range.clone()]));
        all
    }

    /// Visits the other parameters, with values one after the other.
    fn each_rest(&self, mut values: &[f32], params: &mut [f32], visit: impl Fn(&mut f32, f32)) {
        for range in &self.rest {
            let of_range = values.split_off(..range.len()).expect("a value for each");
            params[range.clone()].iter_mut().zip(of_range).for_each(|(param, value)| visit(param, *value));
        }
    }

    /// Visits the elements of all matrices, with those of P̂·Qᵀ.
    fn each_product(
        &self,
        directions: &[Vec<f32>],
        columns: &[f32],
        params: &mut [f32],
        visit: impl Fn(&mut f32, f32) + Sync,
    ) {
        let (mut rest, mut end, mut tasks) = (params, 0, Vec::new());
        let columns = cut(columns, self.matrices.iter().map(|matrix| matrix.panels.n * matrix.rank));
        for ((matrix, directions), columns) in self.matrices.iter().zip(directions).zip(columns) {
            let between = rest.split_off_mut(..matrix.range.start - end);
            let elements = rest.split_off_mut(..matrix.range.len());
            let (Some(_), Some(elements)) = (between, elements) else {
                unreachable!("matrices are among the parameters")
            };
            end = matrix.range.end;
            tasks.push((matrix, directions, columns, elements));
        }
        tasks.into_par_iter().for_each(|(matrix, directions, columns, elements)| {
            matrix.each_product(directions, columns, elements, &visit);
        });
    }

    /// All of Q, for a checkpoint.
    pub fn bases(&self) -> Vec<f32> {
        self.matrices.iter().flat_map(|matrix| &matrix.basis).copied().collect()
    }

    /// Takes up [`bases`](Self::bases). Not collective. Errors: there are more or fewer (data).
    pub fn set_bases(&mut self, bases: &[f32]) -> Result<()> {
        if bases.len() != self.matrices.iter().map(|matrix| matrix.basis.len()).sum::<usize>() {
            return Err(Error::data("the checkpoint has matrices of another rank"));
        }
        let mut rest = bases;
        for matrix in &mut self.matrices {
            let basis = rest.split_off(..matrix.basis.len()).expect("as many as were counted");
            matrix.basis.copy_from_slice(basis);
        }
        Ok(())
    }
}

impl Matrix {
    /// M·Q of a lane: (rank, k), column after column. `held`: one number a parameter.
    fn first(&self, held: &[f32]) -> Vec<f32> {
        let (matrix, panels, rank) = (&held[self.range.clone()], self.panels, self.rank);
        let mut rows = vec![0.0; panels.k * rank];
        rows.par_chunks_mut(RUN * rank).enumerate().for_each(|(run, rows)| {
            let mut product = vec![0.0; rows.len()];
            for p in 0..panels.count() {
                let columns = panels.columns(p);
                let width = columns.len();
                let basis = &self.basis[columns.start * rank..columns.end * rank];
                let (whole, n_rows) = ([Segment { offset: 0, len: width }], rows.len() / rank);
                let from = &matrix[panels.panel(p)][run * RUN * width..];
                let of_basis = Panels::new(width, rank);
                let start = Start::Zero;
                multiply(
                    from,
                    |row| row * width,
                    n_rows,
                    &whole,
                    of_basis,
                    Weights::Wide(basis),
                    start,
                    &mut product,
                    |row| row * rank,
                );
                rows.iter_mut().zip(&product).for_each(|(sum, product)| *sum += product);
            }
        });
        transposed(&rows, rank)
    }

    /// Mᵀ·P̂ of a lane: (rank, n), column after column. `directions`: P̂ (k, rank).
    fn second(&self, held: &[f32], directions: &[f32]) -> Vec<f32> {
        let (matrix, panels, rank) = (&held[self.range.clone()], self.panels, self.rank);
        let mut rows = vec![0.0; panels.n * rank];
        rows.par_chunks_mut(WIDTH * rank).enumerate().for_each(|(p, slab)| {
            let (width, panel) = (panels.columns(p).len(), &matrix[panels.panel(p)]);
            add_slab(panel, |row| row * width, directions, |row| row * rank, panels.k, rank, slab);
        });
        transposed(&rows, rank)
    }

    /// Visits its elements, with those of P̂·Qᵀ. `columns`: of Q, (rank, n).
    fn each_product(
        &self,
        directions: &[f32],
        columns: &[f32],
        elements: &mut [f32],
        visit: &(impl Fn(&mut f32, f32) + Sync),
    ) {
        let (panels, rank) = (self.panels, self.rank);
        let turned = Panels::new(rank, panels.n);
        let mut weights = vec![0.0; columns.len()];
        turned.pack(columns, &mut weights);
        let (mut tasks, mut rest) = (Vec::new(), elements);
        for p in 0..panels.count() {
            let panel = rest.split_off_mut(..panels.panel(p).len()).expect("panels make up a matrix");
            tasks.push((panels.columns(p).len(), &weights[turned.panel(p)], panel));
        }
        tasks.into_par_iter().for_each(|(width, weights, panel)| {
            let mut product = vec![0.0; RUN.min(panels.k) * width];
            for (run, elements) in panel.chunks_mut(RUN * width).enumerate() {
                let (whole, n_rows) = ([Segment { offset: 0, len: rank }], elements.len() / width);
                let (from, of_run) = (&directions[run * RUN * rank..], Panels::new(rank, width));
                let start = Start::Zero;
                multiply(
                    from,
                    |row| row * rank,
                    n_rows,
                    &whole,
                    of_run,
                    Weights::Wide(weights),
                    start,
                    &mut product,
                    |row| row * width,
                );
                elements.iter_mut().zip(&product).for_each(|(element, product)| visit(element, *product));
            }
        });
    }

    /// The next Q: these columns, (rank, n), each by a power of two that brings its largest number between 1 and 2.
    fn take_up(&mut self, columns: &[f32], draws: Draws, counter: u64) {
        let rank = self.rank;
        for (c, column) in columns.chunks_exact(self.panels.n).enumerate() {
            let largest = f32::from_bits(LaneGrid::peak(column) as u32);
            if largest == 0.0 {
                self.draw(c, draws, counter);
                continue;
            }
            let scale = pow2(-exponent_of_f32(largest));
            let of_column = self.basis[c..].iter_mut().step_by(rank);
            of_column.zip(column).for_each(|(to, value)| *to = (f64::from(*value) * scale) as f32);
        }
    }

    /// Draws a column of Q.
    fn draw(&mut self, c: usize, draws: Draws, counter: u64) {
        let first = (self.column + c as u64) << 32;
        let of_column = self.basis[c..].iter_mut().step_by(self.rank);
        of_column.enumerate().for_each(|(row, to)| *to = draws.normal(first + row as u64, counter) as f32);
    }
}

/// Adds what lanes send, each group at an exponent from its reduced peak; `lanes` becomes what was sent, exactly. None: something is not finite. Collective;
/// rayon over groups.
fn exchange(comm: &Communicator, grid: LaneGrid, groups: &Groups, lanes: &mut [Vec<f32>]) -> Result<Option<Vec<f32>>> {
    let peak = |group| lanes.iter().map(|lane| LaneGrid::peak(&lane[groups.range(group)])).max().unwrap_or(0);
    let mut peaks: Vec<i32> = (0..groups.len()).into_par_iter().map(peak).collect();
    comm.all_reduce_max(&mut peaks)?;
    let exponents: Option<Vec<i32>> = peaks.into_iter().map(LaneGrid::exponent_of).collect();
    let Some(exponents) = exponents else { return Ok(None) };
    let mut words = vec![0; groups.n_elements()];
    for lane in lanes {
        let lens = || exponents.iter().enumerate().map(|(group, _)| groups.range(group).len());
        let tasks = cut_mut(&mut words, lens()).into_par_iter().zip(cut_mut(lane, lens())).zip(&exponents);
        tasks.for_each(|((words, values), exponent)| grid.send(words, values, *exponent));
    }
    comm.all_reduce_sum(&mut words)?;
    let mut sums = vec![0.0; words.len()];
    let lens = (0..groups.len()).map(|group| groups.range(group).len());
    cut_mut(&mut sums, lens).into_par_iter().enumerate().for_each(|(group, sums)| {
        grid.finish(&words[groups.range(group)], exponents[group], sums);
    });
    Ok(Some(sums))
}

/// Runs of these lengths, one after the other; what follows them is left out.
fn cut(mut values: &[f32], lens: impl Iterator<Item = usize>) -> Vec<&[f32]> {
    lens.map(|len| values.split_off(..len).expect("runs of these lengths")).collect()
}

fn cut_mut<T>(mut values: &mut [T], lens: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    lens.map(|len| values.split_off_mut(..len).expect("runs of these lengths")).collect()
}

/// A row-major matrix of `width` columns, column after column.
fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|c| rows[c..].iter().step_by(width)).copied().collect()
}

/// Columns, given one after the other, as orthonormal ones in the same space: (k, rank) row-major. Those that are sums of columns before them are 0. Not
/// collective; one fixed order of float64.
///
/// Each column is freed of those before it twice: what is left after once may be little, and then it is not at right angles to them. Source: Giraud, Langou,
/// Rozložník, van den Eshof, *Rounding error analysis of the classical Gram–Schmidt orthogonalization process*, Numerische Mathematik 101, 2005.
fn orthonormal(columns: &[f32], rank: usize) -> Vec<f32> {
    let k = columns.len() / rank;
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(rank);
    for column in columns.chunks_exact(k) {
        let mut column: Vec<f64> = column.iter().map(|value| f64::from(*value)).collect();
        let before = dot(&column, &column);
        for _ in 0..2 {
            for other in &done {
                let along = dot(&column, other);
                column.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        let square = dot(&column, &column);
        let scale = if square > before * VANISHED { 1.0 / square.sqrt() } else { 0.0 };
        column.iter_mut().for_each(|value| *value *= scale);
        done.push(column);
    }
    let mut rows = vec![0.0; columns.len()];
    for (c, column) in done.iter().enumerate() {
        rows[c..].iter_mut().step_by(rank).zip(column).for_each(|(to, value)| *to = *value as f32);
    }
    rows
}

/// Σ a·b: eight sums, each in order, then these in order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.into_iter().fold(0.0, |total, sum| total + sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;
    use crate::config::MlpConfig;
    use crate::exact::Width;
    use crate::model::net::build;

    #[test]
    fn columns_become_orthonormal_and_sums_of_others_vanish() {
        let draws = Draws::new(3, Stream::Synthetic);
        for (k, rank) in [(1, 1), (5, 5), (97, 4), (1_009, 32)] {
            let mut columns: Vec<f32> = (0..k * rank).map(|i| draws.normal(i as u64, 0) as f32).collect();
            if rank == 4 {
                // The third is nearly a multiple of the first, the fourth is one.
                for i in 0..k {
                    columns[2 * k + i] = 3.0 * columns[i] + 1e-6 * columns[k + i] * columns[i];
                    columns[3 * k + i] = -2.0 * columns[i];
                }
            }
            let rows = orthonormal(&columns, rank);
            for a in 0..rank {
                for b in 0..=a {
                    let product = rows.chunks_exact(rank).map(|row| f64::from(row[a]) * f64::from(row[b])).sum::<f64>();
                    let wanted = if a == b && !(rank == 4 && a == 3) { 1.0 } else { 0.0 };
                    assert!((product - wanted).abs() < 1e-6, "columns {a} and {b} of {rank}: {product}");
                }
            }
            if rank == 4 {
                assert!(rows.iter().skip(3).step_by(4).all(|value| *value == 0.0));
            }
        }
    }

    #[test]
    fn tensors_are_matrices_where_thin_ones_are_smaller() {
        let mlp = MlpConfig { conv: vec![8, 16], image: Some([8, 8, 1]), layers: vec![40, 3], ..MlpConfig::default() };
        let low_rank = LowRank::new(&build(&mlp, 64, 1), 4, 7);
        let found: Vec<_> =
            low_rank.matrices.iter().map(|matrix| (matrix.panels.k, matrix.panels.n, matrix.rank)).collect();
        // 9 × 8 is more than 4 · 17, but 40 × 3 less than 3 · 43.
        assert_eq!(found, [(9, 8, 4), (72, 16, 4), (64, 40, 4)]);
        let n: usize = low_rank.rest.iter().map(Range::len).sum();
        let of_matrices: usize = low_rank.matrices.iter().map(|matrix| matrix.range.len()).sum();
        assert_eq!(n + of_matrices, build(&mlp, 64, 1).params.len());
        assert!(low_rank.rest.iter().any(|range| range.len() == 120));
    }

    const SHAPES: [(usize, usize, usize); 2] = [(37, 41, 3), (301, 33, 2)];
    const BETWEEN: usize = 13;

    /// Two matrices, something before, between and after them.
    fn low_rank() -> (LowRank, usize) {
        let before = 0..BETWEEN;
        let (mut end, mut matrices, mut rest) = (BETWEEN, Vec::new(), Vec::from([before]));
        for (k, n, rank) in SHAPES {
            matrices.push((Panels::new(k, n), end..end + k * n, rank));
            rest.push(end + k * n..end + k * n + BETWEEN);
            end += k * n + BETWEEN;
        }
        (LowRank::of(matrices, rest, 9), end)
    }

    /// Of a lane: a part that is the same in each step, and noise.
    fn gradient(lane: usize, step: u64, n: usize) -> Vec<f32> {
        let draws = Draws::new(8 + lane as u64, Stream::Synthetic);
        let of = |i: u64| draws.normal(i, 0) + 0.5 * draws.normal(i, 1 + step) + libm::sin(i as f64);
        (0..n as u64).map(|i| of(i) as f32).collect()
    }

    fn rows_of(panels: Panels, values: &[f32]) -> Vec<f64> {
        let mut rows = vec![0.0; values.len()];
        panels.unpack(values, &mut rows);
        rows.into_iter().map(f64::from).collect()
    }

    /// The same in plain loops of float64 without rounding, of a matrix of all lanes, row-major; the sum. `basis`: (n, rank).
    fn plain_step(held: &mut [Vec<f64>], basis: &mut [f64], k: usize, rank: usize) -> Vec<f64> {
        let n = basis.len() / rank;
        let mut tall = vec![vec![0.0; k]; rank];
        for (c, column) in tall.iter_mut().enumerate() {
            for (i, sum) in column.iter_mut().enumerate() {
                *sum = held.iter().flat_map(|m| (0..n).map(|j| m[i * n + j] * basis[j * rank + c])).sum();
            }
        }
        for c in 0..rank {
            for other in 0..c {
                let along: f64 = (0..k).map(|i| tall[c][i] * tall[other][i]).sum();
                (0..k).for_each(|i| tall[c][i] -= along * tall[other][i]);
            }
            let length = tall[c].iter().map(|value| value * value).sum::<f64>().sqrt();
            tall[c].iter_mut().for_each(|value| *value /= length);
        }
        let mut sum = vec![0.0; k * n];
        basis.fill(0.0);
        for m in held {
            for c in 0..rank {
                let along: Vec<f64> = (0..n).map(|j| (0..k).map(|i| m[i * n + j] * tall[c][i]).sum()).collect();
                for (i, j) in (0..k).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    m[i * n + j] -= tall[c][i] * along[j];
                    sum[i * n + j] += tall[c][i] * along[j];
                }
                (0..n).for_each(|j| basis[j * rank + c] += along[j]);
            }
        }
        sum
    }

    #[test]
    fn any_number_of_ranks_sends_what_plain_loops_send_and_nothing_is_lost() {
        const STEPS: u64 = 8;
        let (one, n) = low_rank();
        for n_lanes in [1, 6] {
            let grid = LaneGrid::new(n_lanes, Width::W32);
            let on = |size: usize, threads: usize| {
                let of_ranks = run_threads(size, threads, |comm| {
                    let (mut low_rank, _) = low_rank();
                    let own: Vec<usize> = (0..n_lanes).filter(|lane| lane % size == comm.rank()).collect();
                    let mut held = vec![vec![0.0f32; n]; own.len()];
                    let mut of_steps = Vec::new();
                    for step in 0..STEPS {
                        for (held, lane) in held.iter_mut().zip(&own) {
                            held.iter_mut().zip(gradient(*lane, step, n)).for_each(|(held, g)| *held += g);
                        }
                        let mut sums = vec![7.0; n];
                        let lanes = held.iter_mut().map(|held| &mut held[..]).collect();
                        assert!(low_rank.add(comm, grid, lanes, step, &mut sums)?);
                        of_steps.push(sums);
                    }
                    Ok((of_steps, low_rank.bases(), held))
                });
                let of_ranks = of_ranks.unwrap();
                let mut held = vec![Vec::new(); n_lanes];
                for (rank, (of_steps, bases, of_rank)) in of_ranks.iter().enumerate() {
                    assert!((of_steps, bases) == (&of_ranks[0].0, &of_ranks[0].1), "rank {rank} of {size}");
                    of_rank.iter().enumerate().for_each(|(at, of_lane)| held[at * size + rank].clone_from(of_lane));
                }
                (of_ranks[0].0.clone(), of_ranks[0].1.clone(), held)
            };
            let alone = on(1, 1);
            for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1), (7, 2)] {
                assert!(on(size, threads) == alone, "{size} ranks, {threads} threads, {n_lanes} lanes");
            }
            let (of_steps, _, held) = alone;
            let mut given = vec![0.0; n];
            for (lane, step) in (0..n_lanes).flat_map(|lane| (0..STEPS).map(move |step| (lane, step))) {
                given.iter_mut().zip(gradient(lane, step, n)).for_each(|(given, g)| *given += f64::from(g));
            }
            for (at, given) in given.into_iter().enumerate() {
                let sent: f64 = of_steps.iter().map(|sums| f64::from(sums[at])).sum();
                let left: f64 = held.iter().map(|held| f64::from(held[at])).sum();
                assert!((sent + left - given).abs() < 2e-4, "{sent} + {left} of {given}");
                if one.rest.iter().any(|range| range.contains(&at)) {
                    assert!(left.abs() < 1e-6, "{left} of what travels whole");
                }
            }
            for (matrix, (k, _, rank)) in one.matrices.iter().zip(SHAPES) {
                let mut basis: Vec<f64> = matrix.basis.iter().map(|value| f64::from(*value)).collect();
                let mut of_lanes = vec![vec![0.0; matrix.range.len()]; n_lanes];
                for step in 0..STEPS {
                    for (lane, held) in of_lanes.iter_mut().enumerate() {
                        let given = rows_of(matrix.panels, &gradient(lane, step, n)[matrix.range.clone()]);
                        held.iter_mut().zip(given).for_each(|(held, g)| *held += g);
                    }
                    let plain = plain_step(&mut of_lanes, &mut basis, k, rank);
                    let found = rows_of(matrix.panels, &of_steps[step as usize][matrix.range.clone()]);
                    let largest = plain.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
                    for (found, plain) in found.iter().zip(&plain) {
                        assert!((found - plain).abs() < 1e-4 * largest, "step {step}: {found}, {plain} of {largest}");
                    }
                }
            }
        }
    }

    /// One step of lanes alone with a matrix.
    fn step(low_rank: &mut LowRank, lanes: &mut [Vec<f32>], step: u64) -> Vec<f32> {
        let mut sums = vec![7.0; lanes[0].len()];
        let grid = LaneGrid::new(lanes.len(), Width::W32);
        let lanes = lanes.iter_mut().map(|lane| &mut lane[..]).collect();
        assert!(low_rank.add(&Communicator::solo(), grid, lanes, step, &mut sums).unwrap());
        sums
    }

    #[test]
    fn all_of_a_matrix_of_no_higher_rank_is_sent_at_once() {
        let draws = Draws::new(4, Stream::Synthetic);
        for (k, n, rank, whole) in [(5, 7, 5, 5), (70, 5, 5, 5), (40, 67, 2, 2), (40, 67, 3, 2)] {
            // Lanes whose noise is no longer there in the sum.
            let noise = |at: usize| draws.normal(at as u64, 0) as f32;
            let thin = |at: usize| {
                let of =
                    |r: u64| draws.normal(at as u64 / n as u64, 1 + r) * draws.normal(at as u64 % n as u64, 20 + r);
                (0..whole).map(of).sum::<f64>() as f32
            };
            let mut rows = vec![vec![0.0; k * n]; 2];
            for at in 0..k * n {
                (rows[0][at], rows[1][at]) = (thin(at) + noise(at), -noise(at));
            }
            let panels = Panels::new(k, n);
            let mut lanes = vec![vec![0.0; k * n]; 2];
            lanes.iter_mut().zip(&rows).for_each(|(lane, rows)| panels.pack(rows, lane));
            let mut low_rank = LowRank::of(vec![(panels, 0..k * n, rank)], Vec::new(), 5);
            let sums = rows_of(panels, &step(&mut low_rank, &mut lanes, 0));
            for (at, sum) in sums.iter().enumerate() {
                let given = f64::from(rows[0][at]) + f64::from(rows[1][at]);
                assert!((sum - given).abs() < 2e-5, "{k} × {n}, rank {rank}, {at}: {sum}, {given}");
            }
        }
    }

    #[test]
    fn columns_that_vanish_are_drawn_anew_and_what_is_not_finite_is_told() {
        let (panels, rank) = (Panels::new(20, 35), 3);
        let matrix = || LowRank::of(vec![(panels, 0..700, rank)], Vec::new(), 5);
        let drawn = |c: u64, counter| -> Vec<f32> {
            let draws = Draws::new(5, Stream::LowRank);
            (0..35).map(|row| draws.normal((c << 32) + row, counter) as f32).collect()
        };
        let column = |low_rank: &LowRank, c: usize| -> Vec<f32> {
            low_rank.matrices[0].basis[c..].iter().step_by(rank).copied().collect()
        };
        // Nothing to send, then one row.
        let mut low_rank = matrix();
        let before = low_rank.bases();
        assert!(step(&mut low_rank, &mut [vec![0.0; 700]], 4).iter().all(|sum| *sum == 0.0));
        assert_ne!(low_rank.bases(), before);
        assert_eq!(column(&low_rank, 2), drawn(2, 5));
        let mut one_row = vec![0.0; 700];
        (0..35).for_each(|j| one_row[panels.at(3, j)] = 1.0 + j as f32 / 8.0);
        let given = one_row.clone();
        let sums = step(&mut low_rank, &mut [one_row], 5);
        assert!(sums.iter().zip(&given).all(|(sum, given)| (sum - given).abs() < 1e-5));
        let first = column(&low_rank, 0);
        assert!((first[34] / first[0] - 5.25).abs() < 1e-5 && (1.0..2.0).contains(&first[34].abs()), "{first:?}");
        assert_eq!([column(&low_rank, 1), column(&low_rank, 2)], [drawn(1, 6), drawn(2, 6)]);

        let mut again = matrix();
        again.set_bases(&low_rank.bases()).unwrap();
        assert_eq!(again.bases(), low_rank.bases());
        assert!(again.set_bases(&before[1..]).is_err());
        // Finite, but not their products.
        let mut huge = vec![f32::MAX; 700];
        let (grid, mut sums) = (LaneGrid::new(1, Width::W32), vec![0.0; 700]);
        let solo = Communicator::solo();
        assert!(!low_rank.add(&solo, grid, vec![&mut huge[..]], 6, &mut sums).unwrap());
    }
}
