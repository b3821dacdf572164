//! How rows lie in memory that products read often.

use super::WIDTH;
use aligned_vec::{AVec, ConstAlign};

/// Numbers that begin a line of cache, so that none of their vectors is cut by one: what products read fastest.
pub type Aligned = AVec<f32, ConstAlign<64>>;

/// So many zeros.
pub fn zeros(n: usize) -> Aligned {
    AVec::from_iter(64, std::iter::repeat_n(0.0, n))
}

/// Whether they begin a line of cache.
pub(super) fn is_aligned(values: &[f32]) -> bool {
    values.as_ptr().align_offset(64) == 0
}

/// A run of a row's values: where it begins after the row's start, and how many there are.
///
/// A row of a dense layer is one segment; a row of a convolution is one place of the image, with a segment for each line of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: usize,
    pub len: usize,
}

/// Values that rows take which are [packed](pack), padding included.
pub const fn packed_len(n_rows: usize, width: usize) -> usize {
    n_rows * width.next_multiple_of(WIDTH)
}

/// Packs rows: [`WIDTH`] columns of all rows, row after row, then the next ones. Padding is left as it is. Not collective.
///
/// * Row r of `from` begins at `at(r)` and is made of `segments`, one after the other.
/// * `to`: [`packed_len`] values.
///
/// # Panics
/// If a slice is too short.
pub fn pack(from: &[f32], at: impl Fn(usize) -> usize, n_rows: usize, segments: &[Segment], to: &mut [f32]) {
    let (to, _) = to.as_chunks_mut::<WIDTH>();
    let mut column = 0;
    for &Segment { mut offset, mut len } in segments {
        while len > 0 {
            let (first, n) = (column % WIDTH, len.min(WIDTH - column % WIDTH));
            for (r, row) in to[column / WIDTH * n_rows..][..n_rows].iter_mut().enumerate() {
                let values = &from[at(r) + offset..][..n];
                // As many as there may be, most of the time.
                match values.try_into() {
                    Ok(values) => *row = values,
                    Err(_) => row[first..first + n].copy_from_slice(values),
                }
            }
            (column, offset, len) = (column + n, offset + n, len - n);
        }
    }
}
