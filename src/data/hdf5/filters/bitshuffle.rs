//! Bitshuffle (32008): the bits of equal place in all elements of a block side by side, the blocks compressed or not.
//!
//! Source: Masui et al., *A compression scheme for radio data in high performance computing*, Astronomy and Computing 12
//! (2015), section 4; for the frame, the page of number 32008 in HDF5's registry of filters. The transpose of eight by eight
//! bits: Warren, *Hacker's Delight*, 2nd ed., section 7-3.

use super::codecs::{Codec, Codecs};
use super::{Length, big_endian, damaged};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Elements of a block come in multiples of this.
const MULTIPLE: usize = 8;
/// A block that nobody chose: this many bytes, but not fewer elements than [`FEWEST`].
const USUAL_BYTES: usize = 8192;
const FEWEST: usize = 128;

/// What the filter was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bitshuffle {
    element_bytes: usize,
    /// Elements of a block where the blocks are not compressed; else each chunk says its own.
    block: usize,
    codec: Option<Codec>,
}

impl Bitshuffle {
    /// From the client values: two of the version, bytes of an element, elements of a block, compression.
    pub(super) fn of(values: &[u32]) -> std::result::Result<Bitshuffle, &'static str> {
        let value = |i: usize| values.get(i).copied().unwrap_or(0) as usize;
        let element_bytes = match value(2) {
            0 => return Err("its bitshuffle filter does not name the bytes of an element"),
            n => n,
        };
        let block = match value(3) {
            0 => (USUAL_BYTES / element_bytes / MULTIPLE * MULTIPLE).max(FEWEST),
            n if n.is_multiple_of(MULTIPLE) => n,
            _ => return Err("its bitshuffle filter has blocks that are no multiple of 8 elements"),
        };
        let codec = match value(4) {
            0 => None,
            2 => Some(Codec::Lz4),
            3 => Some(Codec::Zstd),
            _ => return Err("its bitshuffle filter has a compression without a name"),
        };
        Ok(Bitshuffle { element_bytes, block, codec })
    }

    /// Whether what it makes is as long as what it was given.
    pub(super) fn keeps_length(&self) -> bool {
        self.codec.is_none()
    }

    pub(super) fn undo(
        &self,
        codecs: &mut Codecs,
        stored: &[u8],
        given: Length,
        spare: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) -> Result<()> {
        let mut undo = || -> Option<()> {
            let Some(codec) = self.codec else {
                decoded.resize(stored.len(), 0);
                let blocks = self.blocks(stored.len(), self.block);
                let mut rest = (stored, &mut decoded[..]);
                for n_bytes in blocks {
                    let (from, to) = (rest.0.split_at(n_bytes), std::mem::take(&mut rest.1).split_at_mut(n_bytes));
                    unshuffle_bits(from.0, self.element_bytes, to.0);
                    rest = (from.1, to.1);
                }
                rest.1.copy_from_slice(rest.0);
                return Some(());
            };
            // Bytes of all and of a block, then each block with how many bytes it takes; what is left is stored as it was.
            let (header, mut rest) = stored.split_at_checked(12)?;
            let n_bytes = given.room(big_endian(&header[..8]))?;
            let block_bytes = usize::try_from(big_endian(&header[8..])).ok()?;
            let block = block_bytes / self.element_bytes;
            if block == 0 || !block.is_multiple_of(MULTIPLE) || !block_bytes.is_multiple_of(self.element_bytes) {
                return None;
            }
            decoded.resize(n_bytes, 0);
            let mut into = &mut decoded[..];
            for n_bytes in self.blocks(n_bytes, block) {
                let (header, after) = rest.split_at_checked(4)?;
                let (here, others) = after.split_at_checked(big_endian(header) as usize)?;
                let (block, next) = into.split_at_mut(n_bytes);
                spare.resize(n_bytes, 0);
                codecs.block(codec, here, spare).ok()?;
                unshuffle_bits(spare, self.element_bytes, block);
                (rest, into) = (others, next);
            }
            into.copy_from_slice(rest.get(..into.len())?);
            Some(())
        };
        undo().ok_or_else(|| damaged("bitshuffle"))
    }

    /// Bytes of each block of `n_bytes`: the last one is shorter; what does not fill a multiple of eight elements is in none.
    fn blocks(&self, n_bytes: usize, block: usize) -> impl Iterator<Item = usize> + use<> {
        let n = n_bytes / self.element_bytes / MULTIPLE * MULTIPLE;
        let element_bytes = self.element_bytes;
        (0..n.div_ceil(block)).map(move |i| block.min(n - i * block) * element_bytes)
    }
}

/// Undoes the transpose of (elements, bits): bit k of byte b of element e is bit e % 8 of byte (8b + k)·n/8 + e/8, of n elements.
///
/// # Panics
/// If the lengths differ or are no multiple of eight elements.
pub(super) fn unshuffle_bits(shuffled: &[u8], element_bytes: usize, into: &mut [u8]) {
    assert_eq!(shuffled.len(), into.len(), "bytes of a block");
    assert_eq!(shuffled.len() % (MULTIPLE * element_bytes), 0, "elements of a block");
    let row = shuffled.len() / element_bytes / MULTIPLE;
    if row == 0 {
        return;
    }
    for (group, elements) in into.chunks_exact_mut(MULTIPLE * element_bytes).enumerate() {
        for (b, rows) in shuffled.chunks_exact(8 * row).enumerate() {
            let bits: [u8; 8] = std::array::from_fn(|k| rows[k * row + group]);
            for (element, byte) in elements[b..].iter_mut().step_by(element_bytes).zip(transpose(bits)) {
                *element = byte;
            }
        }
    }
}

/// Bit j of byte i becomes bit i of byte j.
fn transpose(rows: [u8; 8]) -> [u8; 8] {
    let mut x = u64::from_le_bytes(rows);
    for (shift, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let differ = (x ^ (x >> shift)) & mask;
        x ^= differ ^ (differ << shift);
    }
    x.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_to_their_elements() {
        for element_bytes in [1, 2, 3, 4, 8, 16] {
            for n in [0, 8, 16, 72, 1000] {
                let bytes: Vec<u8> = (0..n * element_bytes).map(|i| ((i * i * 131) >> 3) as u8).collect();
                let mut shuffled = vec![0u8; bytes.len()];
                for e in 0..n {
                    for bit in 0..8 * element_bytes {
                        let is_set = bytes[e * element_bytes + bit / 8] >> (bit % 8) & 1;
                        shuffled[bit * n / 8 + e / 8] |= is_set << (e % 8);
                    }
                }
                let mut back = vec![0; bytes.len()];
                unshuffle_bits(&shuffled, element_bytes, &mut back);
                assert!(back == bytes, "{n} elements of {element_bytes} bytes");
            }
        }
    }
}
