//! Least squares by QR of the rows themselves, without normal equations: twice the digits.
//!
//! Every block of rows becomes a small triangular factor R; pairs of factors are joined and factorised again. The tree
//! hangs on blocks, not on ranks: node (level, i) joins the blocks i·2^level … (i+1)·2^level − 1. A rank reduces the
//! aligned subtrees of its run of blocks and sends those; rank 0 finishes the tree. So every factorisation has the same
//! operands on any number of ranks.
//!
//! Source: Demmel, Grigori, Hoemmen, Langou, *Communication-optimal parallel and sequential QR and LU factorizations*,
//! SIAM J. Sci. Comput. 34 (2012).

use super::full_batch::FullBatch;
use super::least_squares::{check, evaluate, finished, from_root};
use super::table::{Fit, RowBuffer, Table};
use super::{Observer, TrainConfig};
use crate::blas;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::scale::ceil_log2;
use crate::objective::Objective;
use ndarray_linalg::{Lapack, MatrixLayout};
use std::ops::Range;
use std::time::Instant;

/// A feature of which no more than this share is left after removing the features before it counts as their combination.
pub const DEPENDENT: f64 = 1e-12;

/// Messages of this module.
const TAG: u32 = 71;

/// Minimises `Σ w·½(score − y)²/Σ w + λ₂/2‖coefficients‖²` by QR. Collective.
///
/// * `objective`: [`Squared`](crate::objective::Squared); it gives loss and gradient of the result.
/// * `start` sets only the number of parameters: the answer does not depend on it.
/// * With λ₂ = 0, a feature that is a combination of the intercept and the features before it gets the coefficient 0,
///   and a warning names it by its number (from 0); so does, without a warning, a feature that is zero everywhere.
/// * Cost: 4·rows·features² operations in LAPACK, on fixed shapes: blocks are padded with zero rows to full size.
///   Memory: some (features + 2)² × 16 bytes for each thread and level of the tree.
///
/// # Errors
/// `Usage`: λ₁ > 0, more than [`MAX_FEATURES`](super::least_squares::MAX_FEATURES), ranks on different processors.
/// `Data`: no weight at all, or a factor that is not finite.
///
/// # Panics
/// If `start` has not n_features + 1 elements or the objective has several scores.
pub fn solve(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
    start: Vec<f64>,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    let clock = Instant::now();
    assert_eq!(
        (start.len(), objective.n_scores()),
        (table.n_features + 1, 1),
        "one score, one start for each parameter"
    );
    check(table, config, "qr")?;
    blas::prepare(comm)?;
    let triangle = reduce(comm, table)?;
    let local = triangle.map_or(Ok(Vec::new()), |triangle| minimise(triangle, table, config));
    let mut values = from_root(comm, local)?;
    let dependent = values.split_off(start.len());
    if !dependent.is_empty() {
        let names: Vec<String> = dependent.iter().map(|j| j.to_string()).collect();
        watch.warning(&format!(
            "combinations of the features before them, so their coefficients are set to 0: feature {}; --l2 above 0 would share the weight",
            names.join(", ")
        ));
    }
    let function = FullBatch::new(comm, table, objective, config.l2);
    let at = evaluate(&function, &values)?;
    let (_, at_zero) = evaluate(&function, &vec![0.0; start.len()])?;
    Ok(finished(values, &at, super::dense::largest_magnitude(&at_zero), clock, watch))
}

/// An upper triangle by columns: column j has j + 1 elements. Columns: intercept, features, target.
type Triangle = Vec<f64>;

/// The tree over the blocks of all ranks, and the shape of a leaf.
struct Tree {
    n_blocks: u64,
    /// Rows of a leaf's matrix: of a full block, and at least as many as columns.
    leaf_rows: usize,
    width: usize,
}

/// Blocks that are in memory at the same time.
struct Leaves<'a> {
    tree: &'a Tree,
    buffer: &'a RowBuffer,
    blocks: &'a [Range<usize>],
    /// Number of the first of them.
    first: u64,
}

/// A node joins blocks index·2^level …; clipped at the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    level: u32,
    index: u64,
}

impl Node {
    fn blocks(self, n_blocks: u64) -> Range<u64> {
        (self.index << self.level).min(n_blocks)..((self.index + 1) << self.level).min(n_blocks)
    }

    /// The two nodes below; the right one is absent if it has no blocks: then the left one passes up unchanged.
    fn children(self, n_blocks: u64) -> (Node, Option<Node>) {
        let child = |index| Node { level: self.level - 1, index };
        let right = child(2 * self.index + 1);
        (child(2 * self.index), (!right.blocks(n_blocks).is_empty()).then_some(right))
    }

    /// Largest nodes below this one that lie within a run of blocks, in order.
    fn within(self, run: &Range<u64>, n_blocks: u64, found: &mut Vec<Node>) {
        let own = self.blocks(n_blocks);
        if own.start >= run.start && own.end <= run.end {
            found.push(self);
        } else if own.start < run.end && run.start < own.end {
            let (left, right) = self.children(n_blocks);
            left.within(run, n_blocks, found);
            if let Some(right) = right {
                right.within(run, n_blocks, found);
            }
        }
    }
}

/// The triangle of the whole table, on rank 0. Collective.
fn reduce(comm: &Communicator, table: &Table<'_>) -> Result<Option<Triangle>> {
    let width = table.n_features + 2;
    let first = table.plan.blocks(0..table.units.start).len() as u64;
    let leaf_rows = width.max(table.plan.block_rows() as usize);
    let tree = Tree { n_blocks: table.plan.n_blocks(), leaf_rows, width };
    let run = first..first + table.plan.blocks(table.units.clone()).len() as u64;
    let runs = comm.all_gather(&[run.start, run.end])?;
    let runs: Vec<Range<u64>> = (0..comm.size()).map(|rank| runs.of_rank(rank)[0]..runs.of_rank(rank)[1]).collect();
    let mut own = comm.agree(tree.of_rank(table, first))?.into_iter();
    let finish = || -> Result<Option<Triangle>> {
        if !comm.is_root() {
            for triangle in own.by_ref() {
                comm.send(&triangle, 0, TAG)?;
            }
            return Ok(None);
        }
        // Visited from left to right, hence in the order in which each rank sends.
        let mut take = |rank: usize| match rank {
            0 => Ok(own.next().expect("a triangle for each node of this rank")),
            rank => {
                let mut triangle = vec![0.0; width * (width + 1) / 2];
                comm.recv(&mut triangle, rank, TAG).map(|()| triangle)
            }
        };
        tree.assemble(tree.top(), &runs, &mut take).map(Some)
    };
    let result = { finish }();
    comm.agree(result)
}

impl Leaves<'_> {
    /// The triangle of a node whose blocks are all here; subtrees in parallel.
    fn factor(&self, node: Node) -> Result<Triangle> {
        if node.level == 0 {
            return self.leaf(&self.blocks[(node.index - self.first) as usize]);
        }
        match node.children(self.tree.n_blocks) {
            (left, None) => self.factor(left),
            (left, Some(right)) => {
                let (left, right) = rayon::join(|| self.factor(left), || self.factor(right));
                self.tree.join(&left?, &right?)
            }
        }
    }

    /// Rows √w·(1, x, t) of a block, and zero rows up to the fixed shape.
    fn leaf(&self, block: &Range<usize>) -> Result<Triangle> {
        let (table, rows, width) = (self.buffer.rows(), self.tree.leaf_rows, self.tree.width);
        let mut matrix = vec![0.0; rows * width];
        for (slot, row) in block.clone().enumerate().filter(|(_, row)| table.weight[*row] != 0.0) {
            let root = libm::sqrt(table.weight[row]);
            let target = table.y[row] - table.offset.map_or(0.0, |offset| offset[row]);
            matrix[slot] = root;
            table.row(row).each(|j, x| matrix[(j + 1) * rows + slot] = root * x);
            matrix[(width - 1) * rows + slot] = root * target;
        }
        triangularise(matrix, rows, width)
    }
}

impl Tree {
    fn top(&self) -> Node {
        Node { level: ceil_log2(self.n_blocks), index: 0 }
    }

    /// Triangles of the largest nodes within this rank's run of blocks, in order; `first`: the number of its first block.
    fn of_rank(&self, table: &Table<'_>, first: u64) -> Result<Vec<Triangle>> {
        let mut done: Vec<(Node, Triangle)> = Vec::new();
        let mut failed = Ok(());
        let mut next = first;
        table.each_batch(|buffer, blocks, _| {
            let run = next..next + blocks.len() as u64;
            let leaves = Leaves { tree: self, buffer, blocks, first: next };
            let mut nodes = Vec::new();
            if !run.is_empty() && failed.is_ok() {
                self.top().within(&run, self.n_blocks, &mut nodes);
            }
            next = run.end;
            for node in nodes {
                failed = leaves.factor(node).and_then(|triangle| self.add(&mut done, node, triangle));
                if failed.is_err() {
                    break;
                }
            }
        })?;
        failed.map(|()| done.into_iter().map(|(_, triangle)| triangle).collect())
    }

    /// Adds the node to those on its left; what is complete becomes the node above.
    fn add(&self, done: &mut Vec<(Node, Triangle)>, mut node: Node, mut triangle: Triangle) -> Result<()> {
        while node.level < self.top().level {
            let above = Node { level: node.level + 1, index: node.index / 2 };
            match (above.children(self.n_blocks), done.last()) {
                ((_, None), _) => {}
                ((left, Some(right)), Some((last, _))) if right == node && left == *last => {
                    let (_, left) = done.pop().expect("the last one");
                    triangle = self.join(&left, &triangle)?;
                }
                _ => break,
            }
            node = above;
        }
        done.push((node, triangle));
        Ok(())
    }

    /// The triangle of a node from those that the ranks made.
    fn assemble(
        &self,
        node: Node,
        runs: &[Range<u64>],
        take: &mut impl FnMut(usize) -> Result<Triangle>,
    ) -> Result<Triangle> {
        let own = node.blocks(self.n_blocks);
        if let Some(rank) = runs.iter().position(|run| own.start >= run.start && own.end <= run.end) {
            return take(rank);
        }
        match node.children(self.n_blocks) {
            (left, None) => self.assemble(left, runs, take),
            (left, Some(right)) => {
                let left = self.assemble(left, runs, take)?;
                let right = self.assemble(right, runs, take)?;
                self.join(&left, &right)
            }
        }
    }

    fn join(&self, above: &Triangle, below: &Triangle) -> Result<Triangle> {
        let (width, rows) = (self.width, 2 * self.width);
        let mut matrix = vec![0.0; rows * width];
        for (j, column) in matrix.chunks_exact_mut(rows).enumerate() {
            column[..=j].copy_from_slice(column_of(above, j));
            column[width..=width + j].copy_from_slice(column_of(below, j));
        }
        triangularise(matrix, rows, width)
    }
}

fn column_of(triangle: &[f64], j: usize) -> &[f64] {
    &triangle[j * (j + 1) / 2..(j + 1) * (j + 2) / 2]
}

/// R of a column-major matrix with at least as many rows as columns, by LAPACK's geqrf.
fn triangularise(mut matrix: Vec<f64>, rows: usize, columns: usize) -> Result<Triangle> {
    let layout = MatrixLayout::F { col: columns as i32, lda: rows as i32 };
    f64::householder(layout, &mut matrix).map_err(|e| Error::internal(format!("LAPACK refuses a QR: {e}")))?;
    let upper = matrix.chunks_exact(rows).enumerate().flat_map(|(j, column)| column[..=j].iter().copied());
    Ok(upper.collect())
}

/// (coefficients, intercept, then the numbers of dependent features). On rank 0.
fn minimise(mut triangle: Triangle, table: &Table<'_>, config: &TrainConfig) -> Result<Vec<f64>> {
    let d = table.n_features;
    let width = d + 2;
    if config.l2 > 0.0 {
        triangle = add_ridge(&triangle, width, libm::sqrt(config.l2 * table.total_weight))?;
    }
    if triangle.iter().any(|r| !r.is_finite()) {
        return Err(Error::data(
            "QR: the products of features and targets are beyond the range of numbers; rescale the target",
        ));
    }
    let columns: Vec<Vec<f64>> = (0..width).map(|j| column_of(&triangle, j).to_vec()).collect();
    let is_full = (0..=d).all(|j| columns[j][j].abs() > DEPENDENT * norm(&columns[j]));
    let (solution, pivots) = if is_full { solve_triangle(&columns, (0..=d).collect()) } else { solve_echelon(columns) };
    let mut result = solution[1..].to_vec();
    result.push(solution[0]);
    let is_dependent = |j: &usize| table.peak[*j] != 0.0 && !pivots.contains(&(j + 1));
    result.extend((0..d).filter(is_dependent).map(|j| j as f64));
    Ok(result)
}

/// R of (R; root·I on the coefficients).
fn add_ridge(triangle: &[f64], width: usize, root: f64) -> Result<Triangle> {
    let rows = 2 * width - 2;
    let mut matrix = vec![0.0; rows * width];
    for (j, column) in matrix.chunks_exact_mut(rows).enumerate() {
        column[..=j].copy_from_slice(column_of(triangle, j));
        if (1..width - 1).contains(&j) {
            column[width + j - 1] = root;
        }
    }
    triangularise(matrix, rows, width)
}

/// Back substitution. Row p of the staircase has its pivot in column `pivots[p]`; the last column is the right-hand side.
/// Parameters without a pivot are 0.
fn solve_triangle(columns: &[Vec<f64>], pivots: Vec<usize>) -> (Vec<f64>, Vec<usize>) {
    let mut solution = vec![0.0; columns.len() - 1];
    let mut right = columns[columns.len() - 1].clone();
    for (p, &j) in pivots.iter().enumerate().rev() {
        let value = right[p] / columns[j][p];
        for (r, c) in right[..p].iter_mut().zip(&columns[j]) {
            *r -= value * c;
        }
        solution[j] = value;
    }
    (solution, pivots)
}

/// Solves a triangle with dependent columns: Householder reflections column after column, where a column of which
/// (almost) nothing is left below the staircase is passed over. Plain loops.
fn solve_echelon(mut columns: Vec<Vec<f64>>) -> (Vec<f64>, Vec<usize>) {
    let width = columns.len();
    columns.iter_mut().for_each(|column| column.resize(width, 0.0));
    let mut pivots = Vec::new();
    for j in 0..width - 1 {
        let p = pivots.len();
        let below = norm(&columns[j][p..]);
        if below <= DEPENDENT * norm(&columns[j]) {
            continue;
        }
        let alpha = if columns[j][p] > 0.0 { -below } else { below };
        let mut reflector = columns[j][p..].to_vec();
        reflector[0] -= alpha;
        let squares = super::dense::dot(&reflector, &reflector);
        for column in &mut columns[j..] {
            let factor = 2.0 * super::dense::dot(&reflector, &column[p..]) / squares;
            for (c, r) in column[p..].iter_mut().zip(&reflector) {
                *c -= factor * r;
            }
        }
        pivots.push(j);
    }
    solve_triangle(&columns, pivots)
}

/// √Σx², scaled by the largest so that squares neither overflow nor vanish.
fn norm(x: &[f64]) -> f64 {
    let largest = super::dense::largest_magnitude(x);
    if largest == 0.0 {
        return 0.0;
    }
    let mut sum = 0.0;
    for x in x {
        sum += (x / largest) * (x / largest);
    }
    largest * libm::sqrt(sum)
}

#[cfg(test)]
#[path = "tsqr_tests.rs"]
mod tests;
