//! Leaves by row: each row has one place, so that nobody writes what another does; the atomics only say so to the compiler.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The leaf of each row in the tree that was grown last.
#[derive(Default)]
pub struct LeafOfRows(Vec<AtomicU32>);

/// The row took no part in growing the tree.
const FOLLOWS: u32 = 1 << 31;

impl LeafOfRows {
    pub(super) fn with_rows(n_rows: usize) -> LeafOfRows {
        LeafOfRows((0..n_rows).map(|_| AtomicU32::new(0)).collect())
    }

    pub(super) fn set(&self, row: u32, leaf: usize, is_taken: bool) {
        self.0[row as usize].store(leaf as u32 | if is_taken { 0 } else { FOLLOWS }, Relaxed);
    }

    /// Of a row.
    #[inline]
    pub fn of(&self, row: usize) -> usize {
        (self.0[row].load(Relaxed) & !FOLLOWS) as usize
    }

    /// Of a row that took part in growing the tree.
    #[inline]
    pub fn of_taken(&self, row: usize) -> Option<usize> {
        let leaf = self.0[row].load(Relaxed);
        (leaf & FOLLOWS == 0).then_some(leaf as usize)
    }

    /// Of each leaf, the rows that took part in growing the tree.
    pub fn rows_of_leaves(&self, n_leaves: usize) -> Vec<Vec<u32>> {
        let mut rows = vec![Vec::new(); n_leaves];
        for row in 0..self.0.len() {
            if let Some(leaf) = self.of_taken(row) {
                rows[leaf].push(row as u32);
            }
        }
        rows
    }
}
