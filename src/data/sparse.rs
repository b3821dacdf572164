//! Rows of which only the values that are not 0 are there.

use crate::error::Result;
use std::ops::Range;

/// Compressed sparse rows: columns rise within a row, and no value is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseRows<V> {
    /// Where each row begins, and where the last one ends: (rows + 1).
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<V>,
}

impl<V> Default for SparseRows<V> {
    /// No rows.
    fn default() -> SparseRows<V> {
        SparseRows { starts: vec![0], columns: Vec::new(), values: Vec::new() }
    }
}

impl<V: Copy> SparseRows<V> {
    pub fn n_rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Values that are there.
    pub fn n_values(&self) -> usize {
        self.values.len()
    }

    /// Columns and values of row `i`.
    pub fn row(&self, i: usize) -> (&[u32], &[V]) {
        let here = self.starts[i]..self.starts[i + 1];
        (&self.columns[here.clone()], &self.values[here])
    }

    /// Takes all rows away from row `n_rows` on, and keeps the memory.
    pub fn truncate(&mut self, n_rows: usize) {
        self.starts.truncate(n_rows + 1);
        let end = self.starts.last().copied().unwrap_or(0);
        self.columns.truncate(end);
        self.values.truncate(end);
    }

    /// Appends a row; columns rise and no value is 0.
    pub fn push_row(&mut self, row: impl IntoIterator<Item = (u32, V)>) {
        for (column, value) in row {
            self.columns.push(column);
            self.values.push(value);
        }
        self.starts.push(self.values.len());
    }

    /// Appends some rows of another table of the same columns.
    pub fn append(&mut self, other: &SparseRows<V>, rows: Range<usize>) {
        let (from, to) = (other.starts[rows.start], self.values.len());
        let entries = from..other.starts[rows.end];
        self.columns.extend_from_slice(&other.columns[entries.clone()]);
        self.values.extend_from_slice(&other.values[entries]);
        self.starts.extend(other.starts[rows.start + 1..=rows.end].iter().map(|end| end - from + to));
    }

    /// Makes room for more rows and values, and for no more than these.
    pub fn reserve_exact(&mut self, n_rows: usize, n_values: usize) {
        self.starts.reserve_exact(n_rows);
        self.columns.reserve_exact(n_values);
        self.values.reserve_exact(n_values);
    }
}

/// How many values rows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueCount {
    pub total: u64,
    /// Of a row on average, in the block that has most; rounded up.
    pub per_row: u64,
}

impl ValueCount {
    /// Of rows that have a value in each of `n_columns` columns.
    pub(super) fn dense(blocks: &[Range<u64>], n_columns: usize) -> ValueCount {
        let n_rows: u64 = blocks.iter().map(|rows| rows.end - rows.start).sum();
        ValueCount { total: n_rows.saturating_mul(n_columns as u64), per_row: n_columns as u64 }
    }

    /// Adds what `of_block` counts.
    pub(super) fn of(blocks: &[Range<u64>], mut of_block: impl FnMut(Range<u64>) -> Result<u64>) -> Result<ValueCount> {
        let mut count = ValueCount { total: 0, per_row: 0 };
        for rows in blocks.iter().filter(|rows| !rows.is_empty()) {
            let n_values = of_block(rows.clone())?;
            count.total += n_values;
            count.per_row = count.per_row.max(n_values.div_ceil(rows.end - rows.start));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_pushed_appended_and_cut() {
        let mut rows = SparseRows::default();
        rows.push_row([(1, 2.0), (7, -1.0)]);
        rows.push_row([]);
        rows.push_row([(0, 5.0)]);
        let mut more = SparseRows::default();
        more.push_row([(3, 1.5)]);
        more.append(&rows, 1..3);
        more.append(&rows, 0..0);
        assert_eq!((more.n_rows(), more.n_values()), (3, 2));
        assert_eq!([0, 1, 2].map(|i| more.row(i)), [(&[3][..], &[1.5][..]), (&[], &[]), (&[0], &[5.0])]);
        more.truncate(1);
        assert_eq!((more.n_rows(), more.n_values(), more.row(0)), (1, 1, (&[3][..], &[1.5][..])));
    }
}
