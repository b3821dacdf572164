//! Streams of codecs that crates decode: zlib, zstd, bzip2, LZ4 and Snappy.
//!
//! Sources: RFC 1950 (zlib), RFC 8878 (zstd), *LZ4 Block Format Description*, *Snappy compressed format description*; for the
//! frame of the filter 32004, the page of that number in HDF5's registry of filters.

use super::lzf::{blosclz, lzf};
use super::{Length, big_endian, damaged};
use crate::error::Result;

/// How the blocks within a filter's frame are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Codec {
    BloscLz,
    Lz4,
    Snappy,
    Zlib,
    Zstd,
}

/// Decoders that have a state, made when they are needed first.
pub(super) struct Codecs {
    inflate: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    snappy: snap::raw::Decoder,
    /// A block of BloscLZ.
    lz: Vec<u8>,
}

impl Codecs {
    pub(super) fn new() -> Codecs {
        let (inflate, snappy) = (libdeflater::Decompressor::new(), snap::raw::Decoder::new());
        Codecs { inflate, zstd: None, snappy, lz: Vec::new() }
    }

    /// Undoes one block that is known to have been as long as `decoded`.
    pub(super) fn block(&mut self, codec: Codec, stored: &[u8], decoded: &mut [u8]) -> Result<()> {
        let (name, n) = match codec {
            Codec::BloscLz => {
                blosclz(stored, decoded.len(), &mut self.lz)?;
                decoded[..self.lz.len()].copy_from_slice(&self.lz);
                ("blosclz", Some(self.lz.len()))
            }
            Codec::Lz4 => ("lz4", lz4_flex::block::decompress_into(stored, decoded).ok()),
            Codec::Snappy => ("snappy", self.snappy.decompress(stored, decoded).ok()),
            Codec::Zlib => ("zlib", self.inflate.zlib_decompress(stored, decoded).ok()),
            Codec::Zstd => ("zstd", self.zstd_into(stored, decoded)),
        };
        if n == Some(decoded.len()) { Ok(()) } else { Err(damaged(name)) }
    }

    fn zstd_into(&mut self, stored: &[u8], decoded: &mut [u8]) -> Option<usize> {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        self.zstd.as_mut()?.decompress_to_buffer(stored, decoded).ok()
    }

    /// Undoes deflate (1): a zlib stream, which does not say how long its data is.
    pub(super) fn deflate(&mut self, stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
        use libdeflater::DecompressionError::InsufficientSpace;
        grow(stored.len(), None, given, decoded, |room| match self.inflate.zlib_decompress(stored, room) {
            Ok(n) => Undone::Bytes(n),
            Err(InsufficientSpace) => Undone::NoRoom,
            Err(_) => Undone::Damaged,
        })
        .ok_or_else(|| damaged("deflate"))
    }

    /// Undoes zstd (32015): frames, of which most say how long their data is.
    pub(super) fn zstd(&mut self, stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
        let told = zstd::bulk::Decompressor::upper_bound(stored);
        grow(stored.len(), told, given, decoded, |room| match self.zstd_into(stored, room) {
            Some(n) => Undone::Bytes(n),
            None => Undone::NoRoom,
        })
        .ok_or_else(|| damaged("zstd"))
    }
}

/// What came of a try with so much room.
enum Undone {
    Bytes(usize),
    NoRoom,
    Damaged,
}

/// Gives `undo` room for what was given, or, where nothing says how much that is, twice as much until it suffices.
///
/// `told`: what the stored bytes themselves say.
fn grow(
    stored_bytes: usize,
    told: Option<usize>,
    given: Length,
    decoded: &mut Vec<u8>,
    mut undo: impl FnMut(&mut [u8]) -> Undone,
) -> Option<()> {
    let first_guess = told.unwrap_or(stored_bytes.saturating_mul(4).saturating_add(1024)).min(given.most);
    let mut room = given.exact.unwrap_or(first_guess);
    loop {
        decoded.resize(room, 0);
        match undo(decoded) {
            Undone::Bytes(n) if given.exact.is_none_or(|exact| exact == n) => {
                decoded.truncate(n);
                return Some(());
            }
            Undone::NoRoom if given.exact.is_none() && room < given.most => {
                room = room.saturating_mul(2).clamp(1024.min(given.most), given.most);
            }
            _ => return None,
        }
    }
}

/// Undoes bzip2 (307): one stream.
pub(super) fn bzip2(stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
    grow(stored.len(), None, given, decoded, |room| {
        let mut stream = bzip2::Decompress::new(false);
        let mut status = stream.decompress(stored, room);
        if status.is_ok_and(|status| status != bzip2::Status::StreamEnd) && stream.total_out() as usize == room.len() {
            // The end may be behind the last byte: it is looked for with room for one more.
            let rest = stored.get(stream.total_in() as usize..).unwrap_or_default();
            status = stream.decompress(rest, &mut [0]);
        }
        let n = stream.total_out() as usize;
        match status {
            Ok(bzip2::Status::StreamEnd) if n <= room.len() => Undone::Bytes(n),
            Ok(_) if n > room.len() => Undone::NoRoom,
            _ => Undone::Damaged,
        }
    })
    .ok_or_else(|| damaged("bzip2"))
}

/// Undoes h5py's LZF (32000).
pub(super) fn lzf_stream(stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
    lzf(stored, given.exact.unwrap_or(given.most), decoded)
}

/// Undoes LZ4 (32004): bytes of all and of a block, then each block with how many bytes it takes; one that would take as many
/// as it decodes to is stored as it was. Numbers are big-endian.
pub(super) fn lz4_frame(stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
    let mut undo = || -> Option<()> {
        let (header, mut rest) = stored.split_at_checked(12)?;
        let n_bytes = given.room(big_endian(&header[..8]))?;
        let block_bytes = usize::try_from(big_endian(&header[8..])).ok()?;
        decoded.clear();
        decoded.resize(n_bytes, 0);
        if block_bytes == 0 {
            return decoded.is_empty().then_some(());
        }
        for block in decoded.chunks_mut(block_bytes) {
            let (header, after) = rest.split_at_checked(4)?;
            let (here, others) = after.split_at_checked(big_endian(header) as usize)?;
            rest = others;
            if here.len() == block.len() {
                block.copy_from_slice(here);
            } else if lz4_flex::block::decompress_into(here, block).ok()? != block.len() {
                return None;
            }
        }
        Some(())
    };
    undo().ok_or_else(|| damaged("lz4"))
}
