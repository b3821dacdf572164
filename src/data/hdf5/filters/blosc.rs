//! Blosc (32001), the first generation: blocks that are shuffled and then compressed, in one part or in one for each byte of an
//! element.
//!
//! Source: the description of the chunk format of C-Blosc 1 (*Blosc Header Format* and *Blosc Chunk Format*, version 2 of the
//! format), and the page of number 32001 in HDF5's registry of filters; checked against files of hdf5plugin.

use super::bitshuffle::unshuffle_bits;
use super::codecs::{Codec, Codecs};
use super::shuffle::unshuffle;
use super::{Length, damaged, little_endian};
use crate::error::{Error, Result};

const HEADER_BYTES: usize = 16;
/// Of the second generation is what has a higher version.
const NEWEST: u8 = 2;
/// Blocks of elements of at most so many bytes are compressed byte by byte, if there are so many elements in them.
const MOST_PARTS: usize = 16;
const FEWEST_ELEMENTS: usize = 128;

const SHUFFLED: u8 = 1;
const COPIED: u8 = 2;
const BITS_SHUFFLED: u8 = 4;
const IN_ONE_PART: u8 = 16;

/// The header of a chunk.
struct Header {
    flags: u8,
    element_bytes: usize,
    n_bytes: usize,
    block_bytes: usize,
}

/// Undoes Blosc. `spare`: room for a block.
pub(super) fn blosc(
    codecs: &mut Codecs,
    stored: &[u8],
    given: Length,
    spare: &mut Vec<u8>,
    decoded: &mut Vec<u8>,
) -> Result<()> {
    let Some(header) = stored.get(..HEADER_BYTES) else { return Err(damaged("blosc")) };
    if header[0] > NEWEST {
        return Err(Error::data("does not decode as blosc: it is of the second generation (blosc2)"));
    }
    let number = |at: usize| little_endian(&header[at..at + 4]);
    let n_bytes = given.room(number(4)).ok_or_else(|| damaged("blosc"))?;
    let (block_bytes, n_stored) = (number(8) as usize, number(12) as usize);
    let header = Header { flags: header[2], element_bytes: usize::from(header[3]), n_bytes, block_bytes };
    let stored = stored.get(..n_stored).ok_or_else(|| damaged("blosc"))?;
    decoded.clear();
    decoded.resize(n_bytes, 0);
    header.undo(codecs, stored, spare, decoded).ok_or_else(|| damaged("blosc"))
}

impl Header {
    fn undo(&self, codecs: &mut Codecs, stored: &[u8], spare: &mut Vec<u8>, decoded: &mut [u8]) -> Option<()> {
        if self.n_bytes == 0 {
            return Some(());
        }
        if self.flags & COPIED != 0 {
            decoded.copy_from_slice(stored.get(HEADER_BYTES..HEADER_BYTES + self.n_bytes)?);
            return Some(());
        }
        if self.element_bytes == 0 || self.block_bytes == 0 {
            return None;
        }
        let codec = match self.flags >> 5 {
            0 => Codec::BloscLz,
            1 => Codec::Lz4,
            2 => Codec::Snappy,
            3 => Codec::Zlib,
            4 => Codec::Zstd,
            _ => return None,
        };
        for (i, block) in decoded.chunks_mut(self.block_bytes).enumerate() {
            let at = HEADER_BYTES + 4 * i;
            let begin = little_endian(stored.get(at..at + 4)?) as usize;
            spare.resize(block.len(), 0);
            self.decompress(codecs, codec, stored.get(begin..)?, spare)?;
            self.unshuffle(spare, block);
        }
        Some(())
    }

    /// One block before it was compressed.
    fn decompress(&self, codecs: &mut Codecs, codec: Codec, stored: &[u8], block: &mut [u8]) -> Option<()> {
        let is_split = self.flags & IN_ONE_PART == 0
            && self.element_bytes <= MOST_PARTS
            && self.block_bytes / self.element_bytes >= FEWEST_ELEMENTS
            && block.len() == self.block_bytes;
        let n_parts = if is_split { self.element_bytes } else { 1 };
        // Whole parts only: Blosc makes no others.
        if !block.len().is_multiple_of(n_parts) {
            return None;
        }
        let mut rest = stored;
        for part in block.chunks_mut(block.len() / n_parts) {
            let (n_bytes, after) = rest.split_at_checked(4)?;
            let (here, others) = after.split_at_checked(little_endian(n_bytes) as usize)?;
            rest = others;
            match here.len() == part.len() {
                true => part.copy_from_slice(here),
                false => codecs.block(codec, here, part).ok()?,
            }
        }
        Some(())
    }

    /// One block before it was shuffled.
    fn unshuffle(&self, shuffled: &[u8], block: &mut [u8]) {
        let n = block.len() / self.element_bytes;
        if self.flags & SHUFFLED != 0 && self.element_bytes > 1 {
            unshuffle(shuffled, self.element_bytes, block);
        } else if self.flags & BITS_SHUFFLED != 0 && n.is_multiple_of(8) {
            let (bits, rest) = shuffled.split_at(n * self.element_bytes);
            unshuffle_bits(bits, self.element_bytes, &mut block[..bits.len()]);
            block[bits.len()..].copy_from_slice(rest);
        } else {
            block.copy_from_slice(shuffled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(stored: &[u8], n_bytes: usize) -> Result<Vec<u8>> {
        let mut decoded = Vec::new();
        let given = Length { exact: Some(n_bytes), most: n_bytes };
        blosc(&mut Codecs::new(), stored, given, &mut Vec::new(), &mut decoded).map(|()| decoded)
    }

    /// A chunk of 20 bytes in blocks of 8.
    fn header(version: u8, flags: u8, n_stored: u32) -> Vec<u8> {
        let sizes = [20u32, 8, n_stored].map(u32::to_le_bytes).concat();
        [&[version, 1, flags, 4], &sizes[..]].concat()
    }

    #[test]
    fn chunks_that_do_not_compress_are_copied_and_others_start_where_their_header_says() {
        let bytes: Vec<u8> = (0..20).collect();
        // HDF5's filter leaves out what Blosc would only copy; other writers do not.
        let copied = [&header(2, COPIED | SHUFFLED, 36)[..], &bytes].concat();
        assert_eq!(decoded(&copied, 20).unwrap(), bytes);
        assert!(decoded(&copied[..35], 20).is_err() && decoded(&copied, 19).is_err());
        // Blocks in another order; each in one part that is as long as what it decodes to.
        let begins = [52u32, 40, 64].map(u32::to_le_bytes).concat();
        let block = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        let blocks = [block(&bytes[8..16]), block(&bytes[..8]), block(&bytes[16..])].concat();
        let stored = [&header(2, IN_ONE_PART, 72)[..], &begins, &[0; 12], &blocks].concat();
        assert_eq!(decoded(&stored, 20).unwrap(), bytes);
        let newer = [&header(3, IN_ONE_PART, 72)[..], &stored[16..]].concat();
        assert!(decoded(&newer, 20).unwrap_err().to_string().contains("blosc2"));
    }
}
