//! Arrays of numbers as other formats store them: bytes to values, in blocks of bounded size.

use super::input::read_up_to;
use super::number::{Number, Seen, put};
use crate::data::hdf5::write::Cell;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::io::Read;

/// Of a block that is read, at most, unless a row is longer.
pub(super) const BLOCK_BYTES: usize = 4 << 20;
/// Of what one task looks at or converts.
const TASK_BYTES: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Signed,
    Unsigned,
    Float,
}

/// How an element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) kind: Kind,
    /// 1, 2, 4 or 8.
    pub(super) bytes: usize,
    pub(super) big_endian: bool,
}

impl Element {
    /// The type of the same values in HDF5: float16 becomes float32.
    pub(super) fn cell(self) -> Cell {
        match (self.kind, self.bytes) {
            (Kind::Bool, _) => Cell::Bool,
            (Kind::Unsigned, 1) => Cell::U8,
            (Kind::Unsigned, 2) => Cell::U16,
            (Kind::Unsigned, 4) => Cell::U32,
            (Kind::Unsigned, _) => Cell::U64,
            (Kind::Signed, 1) => Cell::I8,
            (Kind::Signed, 2) => Cell::I16,
            (Kind::Signed, 4) => Cell::I32,
            (Kind::Signed, _) => Cell::I64,
            (Kind::Float, 2 | 4) => Cell::F32,
            (Kind::Float, _) => Cell::F64,
        }
    }

    /// Whether its bytes are those of [`cell`](Self::cell), but for their order.
    fn is_cell(self) -> bool {
        self.cell().bytes() == self.bytes && self.kind != Kind::Bool
    }

    /// The value of [`bytes`](Self::bytes) bytes.
    pub(super) fn number(self, stored: &[u8]) -> Number {
        let mut bytes = [0; 8];
        let n = self.bytes.min(stored.len());
        bytes[..n].copy_from_slice(&stored[..n]);
        if self.big_endian {
            bytes[..n].reverse();
        }
        let bits = u64::from_le_bytes(bytes);
        let unused = 64 - 8 * self.bytes as u32;
        match (self.kind, self.bytes) {
            (Kind::Bool, _) => Number::Whole(i128::from(bits != 0)),
            (Kind::Unsigned, _) => Number::Whole(bits.into()),
            (Kind::Signed, _) => Number::Whole((((bits << unused) as i64) >> unused).into()),
            (Kind::Float, 2) => Number::of_f64(float16(bits as u16)),
            (Kind::Float, 4) => Number::of_f64(f64::from(f32::from_bits(bits as u32))),
            (Kind::Float, _) => Number::of_f64(f64::from_bits(bits)),
        }
    }

    /// What values there are. Not collective; rayon.
    pub(super) fn look_at(self, stored: &[u8]) -> Look {
        let tasks = stored.par_chunks(TASK_BYTES / self.bytes * self.bytes);
        let per_task = TASK_BYTES / self.bytes;
        let looks: Vec<Look> = tasks
            .enumerate()
            .map(|(task, stored)| {
                let mut look = Look::default();
                for (at, element) in stored.chunks_exact(self.bytes).enumerate() {
                    let number = self.number(element);
                    if number.is_infinite() {
                        look.infinite.get_or_insert(task * per_task + at);
                    }
                    look.seen.add(number);
                }
                look
            })
            .collect();
        let mut all = Look::default();
        looks.iter().for_each(|look| all.merge(look));
        all
    }

    /// The values as elements of `cell`, which holds all of them. None: it does not. Not collective; rayon.
    pub(super) fn convert(self, stored: &[u8], cell: Cell, into: &mut Vec<u8>) -> Option<()> {
        into.clear();
        if cell == self.cell() && self.is_cell() {
            into.extend_from_slice(stored);
            if self.big_endian != cfg!(target_endian = "big") {
                into.par_chunks_mut(TASK_BYTES).for_each(|task| {
                    task.chunks_exact_mut(self.bytes).for_each(<[u8]>::reverse);
                });
            }
            return Some(());
        }
        let tasks = stored.par_chunks(TASK_BYTES / self.bytes * self.bytes);
        let converted: Vec<Option<Vec<u8>>> = tasks
            .map(|stored| {
                let mut bytes = Vec::with_capacity(stored.len() / self.bytes * cell.bytes());
                stored
                    .chunks_exact(self.bytes)
                    .all(|element| put(cell, None, self.number(element), &mut bytes))
                    .then_some(bytes)
            })
            .collect();
        converted.into_iter().try_for_each(|bytes| {
            into.extend(bytes?);
            Some(())
        })
    }
}

/// What was seen of the values of an array; merges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) seen: Seen,
    /// The number of the first infinite value.
    pub(super) infinite: Option<usize>,
}

impl Look {
    pub(super) fn merge(&mut self, other: &Look) {
        self.seen.merge(&other.seen);
        self.infinite = self.infinite.or(other.infinite);
    }
}

/// IEEE 754 binary16.
fn float16(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, u64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction as f64 / f64::from(1u32 << 24),
        31 if fraction == 0 => f64::INFINITY,
        31 => f64::NAN,
        _ => f64::from_bits((u64::from(exponent) + 1023 - 15) << 52 | fraction << 42),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// Calls `each` with the next `n_bytes` of a stream, block by block, in this machine's byte order. Errors: it ends before.
pub(super) fn push_as_stored(
    from: &mut dyn Read,
    n_bytes: u64,
    element: Element,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut converted = Vec::new();
    blocks(from, n_bytes, BLOCK_BYTES, |block| {
        let done = element.convert(block, element.cell(), &mut converted);
        done.ok_or_else(|| Error::internal("an element does not fit its own type"))?;
        each(&converted)
    })
}

/// Calls `each` with the next `n_bytes` of a stream in blocks of `block_bytes`. Errors: it ends before.
pub(super) fn blocks(
    from: &mut dyn Read,
    n_bytes: u64,
    block_bytes: usize,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut block = Vec::new();
    let mut left = n_bytes;
    while left > 0 {
        block.clear();
        let wanted = left.min(block_bytes as u64);
        if read_up_to(from, wanted, &mut block)? < wanted {
            return Err(Error::data(format!("ends {} bytes before its values do", left - block.len() as u64)));
        }
        each(&block)?;
        left -= wanted;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_byte_order_is_read() {
        let cases: [(Kind, usize, Vec<u8>, Number); 7] = [
            (Kind::Signed, 2, (-2i16).to_le_bytes().to_vec(), Number::Whole(-2)),
            (Kind::Signed, 8, i64::MIN.to_le_bytes().to_vec(), Number::Whole(i64::MIN.into())),
            (Kind::Unsigned, 8, u64::MAX.to_le_bytes().to_vec(), Number::Whole(u64::MAX.into())),
            (Kind::Unsigned, 1, vec![200], Number::Whole(200)),
            (Kind::Float, 4, 0.1f32.to_le_bytes().to_vec(), Number::Float(f64::from(0.1f32))),
            (Kind::Float, 8, f64::NAN.to_le_bytes().to_vec(), Number::Missing),
            (Kind::Float, 2, 0xc100u16.to_le_bytes().to_vec(), Number::Float(-2.5)),
        ];
        for (kind, bytes, stored, number) in cases {
            let turned: Vec<u8> = stored.iter().rev().copied().collect();
            assert_eq!(Element { kind, bytes, big_endian: false }.number(&stored), number);
            assert_eq!(Element { kind, bytes, big_endian: true }.number(&turned), number);
            let mut into = Vec::new();
            let element = Element { kind, bytes, big_endian: true };
            element.convert(&turned, element.cell(), &mut into).unwrap();
            assert!(bytes == 2 || into == stored, "{kind:?} {bytes}");
        }
    }

    #[test]
    fn float16_is_exact() {
        for (bits, value) in
            [(0x3c00, 1.0), (0x8000, -0.0), (1, 5.960464477539063e-8), (0x7bff, 65504.0), (0x0400, 6.103515625e-5)]
        {
            assert_eq!(float16(bits).to_bits(), f64::to_bits(value), "{bits:#x}");
        }
        assert!(float16(0x7c00).is_infinite() && float16(0x7e00).is_nan());
    }
}
