//! Chunks that make reading slow: what they cost, for `consort inspect`.

use super::find::shape_text;
use crate::data::partition::RowPlan;

/// The chunks of a run of rows, decoded, that are still read in one go.
const MOST_BAND_BYTES: u64 = 64 << 20;
/// Chunks that are smaller than this cost more to find than to read.
const LEAST_CHUNK_BYTES: u64 = 4 << 10;
const MANY_CHUNKS: u64 = 1024;
/// What may be read beside what is wanted.
const MOST_PADDING: f64 = 1.5;

/// Why these chunks hurt, if they do.
///
/// * `shape`, `chunk`: of the dataset, rows first.
/// * `is_filtered`: chunks have to be decoded whole.
pub(crate) fn advice(shape: &[u64], chunk: &[u64], element_bytes: u64, is_filtered: bool) -> Option<String> {
    let per_axis = |(n, c): (&u64, &u64)| n.div_ceil(*c);
    if shape.is_empty() || shape.len() != chunk.len() || shape.contains(&0) || chunk.contains(&0) {
        return None;
    }
    let n_chunks: u64 = shape.iter().zip(chunk).map(per_axis).try_fold(1, u64::checked_mul)?;
    let chunk_bytes = chunk.iter().try_fold(element_bytes, |product, &n| product.checked_mul(n))?;
    let row_bytes = shape[1..].iter().try_fold(element_bytes, |product, &n| product.checked_mul(n))?;
    let per_band: u64 = shape[1..].iter().zip(&chunk[1..]).map(per_axis).try_fold(1, u64::checked_mul)?;
    let band_bytes = chunk_bytes.checked_mul(per_band)?;
    let of = shape_text(chunk);
    if is_filtered && band_bytes > MOST_BAND_BYTES && shape[0] > 1 {
        let n_columns = shape[1..].iter().product::<u64>() as usize;
        let block_rows = RowPlan::full_batch(shape[0], n_columns).block_rows().min(shape[0]);
        let bands = (block_rows + chunk[0] - 1) as f64 / chunk[0] as f64;
        let times = bands * band_bytes as f64 / (block_rows * row_bytes) as f64;
        return Some(format!(
            "chunks of {of}: to read {block_rows} rows, {times:.0} times their bytes are decoded ({} MB)",
            (bands * band_bytes as f64 / 1e6).round()
        ));
    }
    if chunk_bytes < LEAST_CHUNK_BYTES && n_chunks > MANY_CHUNKS {
        return Some(format!("{n_chunks} chunks of {chunk_bytes} bytes: each is found, read and decoded for itself"));
    }
    let stored = (n_chunks * chunk_bytes) as f64;
    let padding = stored / (shape[0] * row_bytes) as f64;
    if padding > MOST_PADDING && stored > LEAST_CHUNK_BYTES as f64 * 256.0 {
        return Some(format!("chunks of {of} reach over the edges: {padding:.1} times the bytes are decoded"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_hurt_are_told_from_those_that_do_not() {
        let hurts = |shape: &[u64], chunk: &[u64], is_filtered| advice(shape, chunk, 4, is_filtered);
        for (shape, chunk, is_filtered) in [
            (&[1_000_000, 28][..], &[9362, 28][..], true),
            (&[1_000_000, 28], &[31_250, 1], true), // h5py's own guess for such shapes
            (&[1_000_000, 28], &[1_000_000, 1], false),
            (&[1000], &[1], true),
            (&[], &[], true),
            (&[0, 5], &[1, 5], true),
            (&[10, 10], &[64, 64], true),
        ] {
            assert_eq!(hurts(shape, chunk, is_filtered), None, "{shape:?} {chunk:?}");
        }
        let tall = hurts(&[1_000_000, 28], &[1_000_000, 1], true).unwrap();
        assert_eq!(tall, "chunks of 1000000 × 1: to read 8192 rows, 123 times their bytes are decoded (113 MB)");
        let small = hurts(&[1_000_000, 28], &[4, 28], true).unwrap();
        assert_eq!(small, "250000 chunks of 448 bytes: each is found, read and decoded for itself");
        let padded = hurts(&[1_000_000, 10], &[1000, 64], true).unwrap();
        assert_eq!(padded, "chunks of 1000 × 64 reach over the edges: 6.4 times the bytes are decoded");
    }
}
