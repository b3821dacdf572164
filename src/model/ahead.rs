//! Rows that are fetched from memory while others are worked on.

use super::kernels::TILE;

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

#[inline]
#[allow(
    unsafe_code,
    reason = "a hint to the processor that has no safe wrapper; a pass over a large table takes 0.8 of the time"
)]
fn prefetch(value: &f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and cannot fault; the address is that of a value we hold.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
