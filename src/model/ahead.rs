//! Rows that are fetched from memory while others are worked on.

use super::kernels::TILE;
use crate::functions::prefetch;

/// The rows of the next tile, asked for little by little while the present one is worked on: a core waits for about
/// sixteen lines of memory at a time, so asked for all at once they would hold up the work.
pub struct Ahead<'a> {
    rows: [&'a [f32]; TILE],
    row: usize,
    line: usize,
    /// Lines in a 32nd of the rows.
    share: usize,
}

/// Values in a line of the cache.
const LINE: usize = 16;

impl<'a> Ahead<'a> {
    /// Empty rows where the next tile has fewer.
    pub fn new(rows: [&'a [f32]; TILE]) -> Ahead<'a> {
        Ahead { rows, row: 0, line: 0, share: rows[0].len().div_ceil(LINE).div_ceil(32 / TILE) }
    }

    /// Asks for this many 32nds of the rows.
    pub fn ask(&mut self, shares: usize) {
        let mut left = shares * self.share;
        while left > 0 && self.row < TILE {
            match self.rows[self.row].get(self.line * LINE) {
                Some(value) => {
                    prefetch(value);
                    self.line += 1;
                    left -= 1;
                }
                None => (self.row, self.line) = (self.row + 1, 0),
            }
        }
    }
}
