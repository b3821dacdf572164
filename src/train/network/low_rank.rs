//! Gradients of weight matrices as products of two thin ones.

use super::orthonormal::orthonormal;
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

#[cfg(test)]
#[path = "low_rank_tests.rs"]
mod tests;
