//! How weights lie in memory.

use std::ops::Range;

/// Columns of a panel: two registers of AVX-512.
pub const WIDTH: usize = 32;

/// A matrix (k, n) as panels of [`WIDTH`] columns: panel p holds columns 32p… of all rows, row after row; the last one may be narrower.
/// No element is padding, so a flat vector of parameters may hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panels {
    /// Rows: the inner index of a product.
    pub k: usize,
    /// Columns.
    pub n: usize,
}

impl Panels {
    /// Of a (k, n) matrix.
    pub const fn new(k: usize, n: usize) -> Panels {
        Panels { k, n }
    }

    /// Elements of the matrix.
    pub const fn len(self) -> usize {
        self.k * self.n
    }

    /// Whether it has no element.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Number of panels.
    pub const fn count(self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// Columns of panel `p`.
    pub fn columns(self, p: usize) -> Range<usize> {
        p * WIDTH..((p + 1) * WIDTH).min(self.n)
    }

    /// Elements of panel `p`, which are (k, columns) row-major.
    pub fn panel(self, p: usize) -> Range<usize> {
        let columns = self.columns(p);
        columns.start * self.k..columns.end * self.k
    }

    /// Place of element (`row`, `column`).
    pub fn at(self, row: usize, column: usize) -> usize {
        let panel = self.columns(column / WIDTH);
        panel.start * self.k + row * panel.len() + column - panel.start
    }

    /// Panels of a matrix that is given row-major. Not collective.
    ///
    /// # Panics
    /// If the lengths are not k·n.
    pub fn pack(self, rows: &[f32], to: &mut [f32]) {
        assert_eq!((rows.len(), to.len()), (self.len(), self.len()), "a {} × {} matrix", self.k, self.n);
        for p in 0..self.count() {
            let columns = self.columns(p);
            for (row, to) in rows.chunks_exact(self.n).zip(to[self.panel(p)].chunks_exact_mut(columns.len())) {
                to.copy_from_slice(&row[columns.clone()]);
            }
        }
    }

    /// The matrix row-major, of its panels. Not collective.
    ///
    /// # Panics
    /// If the lengths are not k·n.
    pub fn unpack(self, panels: &[f32], rows: &mut [f32]) {
        assert_eq!((panels.len(), rows.len()), (self.len(), self.len()), "a {} × {} matrix", self.k, self.n);
        for p in 0..self.count() {
            let columns = self.columns(p);
            for (row, from) in rows.chunks_exact_mut(self.n).zip(panels[self.panel(p)].chunks_exact(columns.len())) {
                row[columns.clone()].copy_from_slice(from);
            }
        }
    }

    /// Panel `p` of the transposed matrix (n, k), of the panels of this one. Not collective.
    ///
    /// # Panics
    /// If `from` has not k·n elements or `to` is not as long as that panel.
    pub fn transpose_panel<T: Copy>(self, from: &[T], p: usize, to: &mut [T]) {
        let columns = Panels::new(self.n, self.k).columns(p);
        assert_eq!((from.len(), to.len()), (self.len(), columns.len() * self.n), "a {} × {} matrix", self.k, self.n);
        for q in 0..self.count() {
            let mine = self.columns(q);
            let from = &from[self.panel(q)][columns.start * mine.len()..columns.end * mine.len()];
            let to = &mut to[mine.start * columns.len()..mine.end * columns.len()];
            match (from.as_chunks::<WIDTH>().0.try_into(), to.as_chunks_mut::<WIDTH>().0.try_into()) {
                (Ok(from), Ok(to)) if mine.len() == WIDTH && columns.len() == WIDTH => transpose_square(from, to),
                _ => {
                    for (c, values) in from.chunks_exact(mine.len()).enumerate() {
                        for (value, to) in values.iter().zip(to[c..].iter_mut().step_by(columns.len())) {
                            *to = *value;
                        }
                    }
                }
            }
        }
    }
}

/// The same of what is as high as wide: lengths that are known make it three times as fast.
fn transpose_square<T: Copy>(from: &[[T; WIDTH]; WIDTH], to: &mut [[T; WIDTH]; WIDTH]) {
    for (row, to) in to.iter_mut().enumerate() {
        for (from, to) in from.iter().zip(to) {
            *to = from[row];
        }
    }
}
