//! A hash of the input values that does not depend on how the rows are spread over ranks, blocks or files.
//!
//! Every run of 16 global rows is hashed with BLAKE3; the hashes are added as four wrapping integers,
//! so that any order and any grouping of the runs gives the same digest.

use super::{Block, Targets, Values};

/// Rows hashed together; blocks begin at multiples of it.
pub const GROUP_ROWS: u64 = 16;

/// The digest of some rows; `merge` adds that of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InputDigest {
    /// Sums of the hashes' little-endian words, wrapping: they may be added by an integer all-reduce.
    pub words: [u64; 4],
}

impl InputDigest {
    /// Adds these rows of a block. Not collective.
    ///
    /// Values are hashed as float32 (the training type): −0 and +0, and all NaNs, alike.
    ///
    /// # Panics
    /// If the first row's global number is not a multiple of 16: that is a bug in the caller. Rows that end elsewhere
    /// than at a multiple of 16 must be the last of the table, or the digest is another one.
    pub fn add_rows(&mut self, block: &Block, rows: std::ops::Range<usize>) {
        let first_row = block.first_row;
        assert_eq!((first_row + rows.start as u64) % GROUP_ROWS, 0, "runs begin at multiples of {GROUP_ROWS} rows");
        let mut numbers = Vec::new();
        let mut bytes = Vec::new();
        for start in rows.clone().step_by(GROUP_ROWS as usize) {
            let rows = start..(start + GROUP_ROWS as usize).min(rows.end);
            bytes.clear();
            bytes.extend_from_slice(&(first_row + start as u64).to_le_bytes());
            bytes.extend_from_slice(&(rows.len() as u64).to_le_bytes());
            let here = |n_values: usize| {
                let width = n_values.checked_div(block.n_rows).unwrap_or(0);
                rows.start * width..rows.end * width
            };
            match &block.values {
                Values::F32(values) => push_f32(&mut bytes, &values[here(values.len())]),
                Values::F64(values) => {
                    numbers.clear();
                    numbers.extend(values[here(values.len())].iter().map(|&value| value as f32 + 0.0));
                    push_f32(&mut bytes, &numbers);
                }
                Values::Sparse(all) => rows.clone().for_each(|row| push_sparse(&mut bytes, all.row(row))),
            }
            push_rest(&mut bytes, block, rows);
            self.add_hash(&bytes);
        }
    }

    /// Adds the digest of other rows.
    pub fn merge(&mut self, other: &InputDigest) {
        for (word, other) in self.words.iter_mut().zip(other.words) {
            *word = word.wrapping_add(other);
        }
    }

    /// 64 hex digits.
    pub fn to_hex(&self) -> String {
        self.words.iter().map(|word| format!("{word:016x}")).collect()
    }

    fn add_hash(&mut self, bytes: &[u8]) {
        let hash = blake3::hash(bytes);
        for (word, bytes) in self.words.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
            *word = word.wrapping_add(u64::from_le_bytes(*bytes));
        }
    }
}

/// A row as the columns and values that are not 0 as float32, after how many there are: what is stored of zeros leaves no trace.
fn push_sparse(bytes: &mut Vec<u8>, (columns, values): (&[u32], &[f64])) {
    let begin = bytes.len();
    bytes.extend_from_slice(b"s\0\0\0\0");
    let mut n_values = 0u32;
    for (column, value) in columns.iter().zip(values) {
        let value = *value as f32 + 0.0;
        if value != 0.0 {
            bytes.extend_from_slice(&column.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
            n_values += 1;
        }
    }
    bytes[begin + 1..begin + 5].copy_from_slice(&n_values.to_le_bytes());
}

/// Appends the values' little-endian bytes. They are canonical already.
fn push_f32(bytes: &mut Vec<u8>, values: &[f32]) {
    if cfg!(target_endian = "little") {
        bytes.extend_from_slice(bytemuck::cast_slice(values));
    } else {
        values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    }
}

fn push_f64(bytes: &mut Vec<u8>, values: &[f64]) {
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

/// Targets, weights, offsets and text of some rows. Each part begins with a letter, so that no part can
/// be taken for another; each string with its length.
fn push_rest(bytes: &mut Vec<u8>, block: &Block, rows: std::ops::Range<usize>) {
    match &block.target {
        Targets::None => {}
        Targets::Number(target) => {
            bytes.push(b'y');
            let of_row = target.len().checked_div(block.n_rows).unwrap_or(0);
            push_f64(bytes, &target[rows.start * of_row..rows.end * of_row]);
        }
        Targets::Text(target) => {
            bytes.push(b'Y');
            push_text(bytes, &target[rows.clone()]);
        }
    }
    for (letter, values) in [(b'w', &block.weight), (b'o', &block.offset)] {
        if let Some(values) = values {
            bytes.push(letter);
            push_f64(bytes, &values[rows.clone()]);
        }
    }
    for column in &block.text {
        bytes.push(b't');
        push_text(bytes, &column[rows.clone()]);
    }
}

fn push_text(bytes: &mut Vec<u8>, texts: &[String]) {
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSource;
    use crate::data::memory::MemorySource;
    use crate::data::synthetic;

    fn digest(source: &mut MemorySource, block_rows: u64) -> InputDigest {
        let n_rows = source.schema().n_rows;
        let mut block = Block::empty();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < n_rows {
            let end = (at + block_rows).min(n_rows);
            source.read(at..end, &mut block).unwrap();
            let mut part = InputDigest::default();
            part.add_rows(&block, 0..block.n_rows);
            parts.push(part);
            at = end;
        }
        let mut sum = InputDigest::default();
        parts.iter().rev().for_each(|part| sum.merge(part));
        sum
    }

    #[test]
    fn any_cut_at_multiples_of_16_rows_gives_the_same_digest() {
        let mut table = synthetic::mixture(1_009, 5, 3, 7).unwrap();
        let targets = (0..3 * 1_009).map(f64::from).collect();
        let several = table.clone().with_targets(targets, &["a", "b", "c"], crate::data::TargetKind::Float).unwrap();
        for mut table in [table.clone(), several] {
            let whole = digest(&mut table, 1_024);
            for block_rows in [16, 48, 160, 512] {
                assert_eq!(digest(&mut table, block_rows), whole, "{block_rows} rows");
            }
        }
        let whole = digest(&mut table, 1_024);
        assert_eq!(whole.to_hex().len(), 64);
    }

    #[test]
    fn every_part_of_a_row_counts_and_its_place_too() {
        let base = || MemorySource::from_f32((0..40).map(|i| i as f32).collect(), 2).unwrap();
        let texts = |first: &str| (0..20).map(|i| if i == 0 { first.to_string() } else { String::new() }).collect();
        let mut tables = [
            base(),
            MemorySource::from_f32((0..40).map(|i| (i ^ 1) as f32).collect(), 2).unwrap(),
            MemorySource::from_f32((0..40).map(|i| ((i + 32) % 40) as f32).collect(), 2).unwrap(),
            base().with_target(vec![0.0; 20], crate::data::TargetKind::Float).unwrap(),
            base().with_targets(vec![0.0; 40], &["y", "z"], crate::data::TargetKind::Float).unwrap(),
            base().with_weight(vec![0.0; 20]).unwrap(),
            base().with_offset(vec![0.0; 20]).unwrap(),
            base().with_text_column("t", texts("a")).unwrap(),
            base().with_text_column("t", texts("b")).unwrap(),
        ];
        let digests: Vec<InputDigest> = tables.iter_mut().map(|table| digest(table, 32)).collect();
        for (i, a) in digests.iter().enumerate() {
            for (j, b) in digests.iter().enumerate() {
                assert_eq!(a == b, i == j, "tables {i} and {j}");
            }
        }
    }

    #[test]
    fn float64_values_that_are_equal_as_float32_hash_alike() {
        let mut narrow = MemorySource::from_f32(vec![0.1, -0.0, f32::NAN], 1).unwrap();
        let mut wide = MemorySource::from_f64(vec![f64::from(0.1f32) + 1e-12, -1e-300, f64::NAN], 1).unwrap();
        assert_eq!(digest(&mut narrow, 16), digest(&mut wide, 16));
    }
}
