//! Standardised rows, dense or sparse: all that solvers ask of a row. Sums over a row's values have the same bits either way,
//! because a value that is 0 adds nothing to them and the others keep their order and their accumulators.

use super::kernels::{ACCUMULATORS, add_up};
use crate::data::SparseRows;

/// Some standardised rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    /// (rows, n_features), row-major.
    Dense(Vec<f32>),
    /// Zeros are left out.
    Sparse(SparseRows<f32>),
}

impl Default for Features {
    /// No rows, dense.
    fn default() -> Features {
        Features::Dense(Vec::new())
    }
}

impl Features {
    /// No rows.
    pub fn empty(is_sparse: bool) -> Features {
        if is_sparse { Features::Sparse(SparseRows::default()) } else { Features::default() }
    }

    pub fn is_sparse(&self) -> bool {
        matches!(self, Features::Sparse(_))
    }

    /// The values of dense rows. None: they are sparse.
    pub fn dense(&self) -> Option<&[f32]> {
        match self {
            Features::Dense(values) => Some(values),
            Features::Sparse(_) => None,
        }
    }

    /// Row `i` of rows of `n_features`.
    pub fn row(&self, i: usize, n_features: usize) -> Row<'_> {
        match self {
            Features::Dense(values) => Row::Dense(&values[i * n_features..(i + 1) * n_features]),
            Features::Sparse(rows) => {
                let (columns, values) = rows.row(i);
                Row::Sparse(columns, values)
            }
        }
    }

    /// Appends a row of the same kind.
    ///
    /// # Panics
    /// If it is of the other kind.
    pub fn push(&mut self, row: Row<'_>) {
        match (self, row) {
            (Features::Dense(all), Row::Dense(values)) => all.extend_from_slice(values),
            (Features::Sparse(all), Row::Sparse(columns, values)) => {
                all.push_row(columns.iter().copied().zip(values.iter().copied()));
            }
            _ => panic!("a row of another kind than the rows before it"),
        }
    }

    /// Appends the rows of `other`, which are of the same kind.
    ///
    /// # Panics
    /// If they are of the other kind.
    pub fn append(&mut self, other: &Features) {
        match (self, other) {
            (Features::Dense(all), Features::Dense(more)) => all.extend_from_slice(more),
            (Features::Sparse(all), Features::Sparse(more)) => all.append(more, 0..more.n_rows()),
            _ => panic!("rows of another kind than those before them"),
        }
    }

    /// Takes all rows away and keeps the memory.
    pub fn clear(&mut self) {
        match self {
            Features::Dense(values) => values.clear(),
            Features::Sparse(rows) => rows.truncate(0),
        }
    }
}

/// A standardised row.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    Dense(&'a [f32]),
    /// Columns and values.
    Sparse(&'a [u32], &'a [f32]),
}

impl<'a> Row<'a> {
    /// Visits column and value of all that is there, in order: of a dense row zeros too.
    #[inline(always)]
    pub fn each(self, mut visit: impl FnMut(usize, f64)) {
        match self {
            Row::Dense(values) => values.iter().enumerate().for_each(|(j, x)| visit(j, f64::from(*x))),
            Row::Sparse(columns, values) => {
                columns.iter().zip(values).for_each(|(j, x)| visit(*j as usize, f64::from(*x)));
            }
        }
    }

    /// The values of a dense row; none of a sparse one.
    pub fn dense(self) -> &'a [f32] {
        match self {
            Row::Dense(values) => values,
            Row::Sparse(..) => &[],
        }
    }

    /// `Σ_j x[j]·params[j]` and the intercept, which is last: the bits of [`tile_scores`](super::kernels::tile_scores).
    pub fn score(self, params: &[f64]) -> f64 {
        let mut sums = [0.0f64; ACCUMULATORS];
        self.each(|j, x| sums[j % ACCUMULATORS] += x * params[j]);
        add_up(&sums) + params[params.len() - 1]
    }

    /// `sum[j] += factor·x[j]`.
    pub fn add_scaled(self, factor: f64, sum: &mut [f64]) {
        self.each(|j, x| sum[j] += factor * x);
    }
}
