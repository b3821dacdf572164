//! Large buffers in large pages: memory that was never touched is handed out by the page, and pages of 2 MiB cost a fifth of the time of
//! 512 small ones, which is most of the time that reading a table from the page cache takes.

/// Smaller buffers stay as they are.
const LEAST_BYTES: usize = 4 << 20;
const LARGE_PAGE: usize = 2 << 20;

/// The same buffer, its untouched pages large ones where the system has them (Linux: transparent huge pages; a hint, never an error).
pub(crate) fn in_large_pages<T>(buffer: Vec<T>) -> Vec<T> {
    let begin = buffer.as_ptr() as usize;
    let end = begin + buffer.capacity() * size_of::<T>();
    let (first, last) = (begin.next_multiple_of(LARGE_PAGE), end / LARGE_PAGE * LARGE_PAGE);
    if end - begin >= LEAST_BYTES && first < last {
        advise(first, last - first);
    }
    buffer
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a hint to the system that has no safe wrapper for memory of Vec")]
fn advise(address: usize, n_bytes: usize) {
    // SAFETY: the pages lie inside one allocation, and this hint changes neither what they hold nor whether they may be read.
    unsafe { libc::madvise(address as *mut libc::c_void, n_bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_address: usize, _n_bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_length_are_zero_and_can_be_written() {
        for n in [0, 1, 1 << 10, (4 << 20) / 8 - 1, (4 << 20) / 8, (9 << 20) / 8 + 3] {
            let mut buffer: Vec<f64> = in_large_pages(vec![0.0; n]);
            assert!(buffer.len() == n && buffer.iter().all(|&value| value == 0.0));
            buffer.iter_mut().enumerate().for_each(|(i, value)| *value = i as f64);
            assert!(buffer.iter().enumerate().all(|(i, &value)| value == i as f64));
        }
        let buffer = in_large_pages(Vec::<f32>::with_capacity(3 << 20));
        assert!(buffer.is_empty() && buffer.capacity() >= 3 << 20);
    }
}
