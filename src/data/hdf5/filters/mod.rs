//! Undoes the filters of HDF5 chunks past the library, on any thread.
//!
//! In: the bytes of a chunk as they are stored, and the dataset's pipeline ([`Filter`], from the library's client values).
//! Out: the chunk as it was before its filters ([`Decoder::decode`]).
//!
//! The stored bytes are not trusted: every length in them is compared with what the chunk can be before anything is
//! allocated, and no bytes make a decoder panic. Source of the pipeline: *HDF5 File Format Specification Version 3.0*,
//! IV.A.2.l "Data Storage - Filter Pipeline"; each decoder names its own.

mod shuffle;

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// One filter of a dataset's pipeline with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Filter {
    Deflate,
    /// The bytes of equal place in all elements side by side.
    Shuffle {
        element_bytes: usize,
    },
    Fletcher32,
}

impl Filter {
    /// The filter from HDF5's registered number and the client values that the dataset stores.
    ///
    /// # Errors
    /// Why the library must decode the dataset instead.
    pub(crate) fn of(id: i32, values: &[u32]) -> std::result::Result<Filter, &'static str> {
        match id {
            1 => Ok(Filter::Deflate),
            2 => match values {
                [bytes, ..] if *bytes > 0 => Ok(Filter::Shuffle { element_bytes: *bytes as usize }),
                _ => Err("its shuffle filter does not name the bytes of an element"),
            },
            3 => Ok(Filter::Fletcher32),
            _ => Err("a filter that only the library decodes"),
        }
    }

    /// By how many bytes this filter makes any chunk longer. None where that depends on the data.
    fn added_bytes(&self) -> Option<usize> {
        match self {
            Filter::Shuffle { .. } => Some(0),
            Filter::Fletcher32 => Some(shuffle::CHECKSUM_BYTES),
            Filter::Deflate => None,
        }
    }
}

/// How many bytes a filter was given, as far as that is known before its output is looked at.
#[derive(Clone, Copy, Debug)]
struct Length {
    exact: Option<usize>,
    /// No decoder allocates more.
    most: usize,
}

impl Length {
    /// What `filters` (those that were applied before) made of a chunk of `decoded_bytes`.
    fn after<'f>(filters: impl Iterator<Item = &'f Filter>, decoded_bytes: usize) -> Length {
        let exact = filters.map(Filter::added_bytes).try_fold(decoded_bytes, |sum, added| sum.checked_add(added?));
        Length { exact, most: exact.unwrap_or(decoded_bytes.saturating_mul(16).saturating_add(64 << 10)) }
    }
}

/// Buffers and decoders of one thread, reused from chunk to chunk.
pub(crate) struct Decoder {
    /// What is yet to be decoded.
    stored: Vec<u8>,
    /// What the filter at hand makes of it.
    undone: Vec<u8>,
    inflate: libdeflater::Decompressor,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { stored: Vec::new(), undone: Vec::new(), inflate: libdeflater::Decompressor::new() }
    }

    /// Where the caller puts the stored bytes of a chunk before [`decode`](Self::decode).
    pub(crate) fn stored(&mut self) -> &mut Vec<u8> {
        &mut self.stored
    }

    /// What the last [`decode`](Self::decode) gave.
    pub(crate) fn decoded(&self) -> &[u8] {
        &self.stored
    }

    /// The chunk in [`stored`](Self::stored) as it was before its filters. Not collective.
    ///
    /// * `filters`: in the order they were applied; `mask`: bit i is set where filter i was left out.
    /// * `decoded_bytes`: of the chunk. A filter's output is bounded by 16 times that and 64 KiB.
    ///
    /// # Errors
    /// `Data`: what does not decode, or decodes to another length.
    pub(crate) fn decode<'d>(&'d mut self, filters: &[Filter], mask: u32, decoded_bytes: usize) -> Result<&'d [u8]> {
        let used = |i: &usize| mask.checked_shr(*i as u32).unwrap_or(0) & 1 == 0;
        for i in (0..filters.len()).rev().filter(used) {
            let given = Length::after((0..i).filter(used).map(|j| &filters[j]), decoded_bytes);
            self.undo(&filters[i], given)?;
        }
        match self.stored.len() == decoded_bytes {
            true => Ok(&self.stored),
            false => Err(Error::data(format!("holds {} bytes, not {decoded_bytes}", self.stored.len()))),
        }
    }

    /// Replaces `stored` with what `filter` was given.
    fn undo(&mut self, filter: &Filter, given: Length) -> Result<()> {
        let (stored, decoded) = (&self.stored[..], &mut self.undone);
        match filter {
            Filter::Deflate => inflate(&mut self.inflate, stored, given, decoded)?,
            Filter::Shuffle { element_bytes } => {
                // Nothing to exchange: the bytes are as they were.
                if *element_bytes == 1 || stored.len() < 2 * *element_bytes {
                    return Ok(());
                }
                decoded.resize(stored.len(), 0);
                shuffle::unshuffle(stored, *element_bytes, decoded);
            }
            Filter::Fletcher32 => {
                let data_bytes = shuffle::check_fletcher32(stored)?;
                self.stored.truncate(data_bytes);
                return Ok(());
            }
        }
        std::mem::swap(&mut self.stored, &mut self.undone);
        Ok(())
    }
}

/// Undoes deflate: a zlib stream (RFC 1950).
fn inflate(inflate: &mut libdeflater::Decompressor, stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
    use libdeflater::DecompressionError::InsufficientSpace;
    // The stream does not say how long its data is: where nothing else does, room is doubled until it suffices.
    let first_guess = stored.len().saturating_mul(4).saturating_add(1024).min(given.most);
    let mut room = given.exact.unwrap_or(first_guess);
    loop {
        decoded.resize(room, 0);
        match inflate.zlib_decompress(stored, decoded) {
            Ok(n) if given.exact.is_none_or(|exact| exact == n) => {
                decoded.truncate(n);
                return Ok(());
            }
            Err(InsufficientSpace) if room < given.most => room = room.saturating_mul(2).min(given.most),
            _ => return Err(Error::data("does not inflate: its bytes are damaged")),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
