//! Undoes the filters of HDF5 chunks past the library, on any thread.
//!
//! In: the bytes of a chunk as they are stored, and the dataset's pipeline ([`Filter`], from the library's client values).
//! Out: the chunk as it was before its filters ([`Decoder::decode`]).
//!
//! The stored bytes are not trusted: every length in them is compared with what the chunk can be before anything is
//! allocated, and no bytes make a decoder panic. Source of the pipeline: *HDF5 File Format Specification Version 3.0*,
//! IV.A.2.l "Data Storage - Filter Pipeline"; each decoder names its own.

mod bitshuffle;
mod blosc;
mod codecs;
mod lzf;
mod scaleoffset;
mod shuffle;

use crate::error::{Error, Result};
use bitshuffle::Bitshuffle;
use codecs::{Codec, Codecs};
use scaleoffset::ScaleOffset;
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
    /// Numbers in as many bits as their range needs.
    ScaleOffset(ScaleOffset),
    Bzip2,
    Lzf,
    Blosc,
    Lz4,
    Bitshuffle(Bitshuffle),
    Zstd,
    /// One that had nothing to do.
    Nothing,
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
            4 => Err("szip is decoded by the HDF5 library only"),
            5 => match values {
                [_, full_precision, ..] if *full_precision != 0 => Ok(Filter::Nothing),
                _ => Err("its numbers have fewer bits than their bytes (nbit), which the HDF5 library converts"),
            },
            6 => ScaleOffset::of(values).map(Filter::ScaleOffset),
            307 => Ok(Filter::Bzip2),
            32000 => Ok(Filter::Lzf),
            32001 => Ok(Filter::Blosc),
            32004 => Ok(Filter::Lz4),
            32008 => Bitshuffle::of(values).map(Filter::Bitshuffle),
            32015 => Ok(Filter::Zstd),
            _ => Err("a filter that only the library decodes"),
        }
    }

    /// By how many bytes this filter makes any chunk longer. None where that depends on the data.
    fn added_bytes(&self) -> Option<usize> {
        match self {
            Filter::Shuffle { .. } | Filter::Nothing => Some(0),
            Filter::Fletcher32 => Some(shuffle::CHECKSUM_BYTES),
            Filter::Bitshuffle(bits) => bits.keeps_length().then_some(0),
            Filter::ScaleOffset(numbers) => numbers.keeps_length().then_some(0),
            Filter::Deflate | Filter::Bzip2 | Filter::Lzf | Filter::Blosc | Filter::Lz4 | Filter::Zstd => None,
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

    /// The length that stored bytes tell of themselves, if it can be.
    fn room(&self, told: u64) -> Option<usize> {
        let told = usize::try_from(told).ok()?;
        (told <= self.most && self.exact.is_none_or(|exact| exact == told)).then_some(told)
    }
}

fn damaged(name: &str) -> Error {
    Error::data(format!("does not decode as {name}: its bytes are damaged"))
}

/// A number of at most 8 bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A number of at most 8 bytes.
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Buffers and decoders of one thread, reused from chunk to chunk.
pub(crate) struct Decoder {
    /// What is yet to be decoded.
    stored: Vec<u8>,
    /// What the filter at hand makes of it.
    undone: Vec<u8>,
    /// A block of the filter at hand.
    spare: Vec<u8>,
    codecs: Codecs,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { stored: Vec::new(), undone: Vec::new(), spare: Vec::new(), codecs: Codecs::new() }
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

    /// As [`decode`](Self::decode), into memory of the caller's, which has the length of the chunk.
    pub(crate) fn decode_into(&mut self, filters: &[Filter], mask: u32, into: &mut [u8]) -> Result<()> {
        let used = |i: &usize| mask.checked_shr(*i as u32).unwrap_or(0) & 1 == 0;
        let mut applied = (0..filters.len().min(32)).filter(used).map(|i| (i, &filters[i]));
        match (applied.next(), applied.next()) {
            // What most pipelines end with goes straight to where it is wanted.
            (Some((i, Filter::Shuffle { element_bytes })), _) => {
                let shuffled = self.decode(filters, mask | 1 << i, into.len())?;
                shuffle::unshuffle(shuffled, *element_bytes, into);
            }
            (Some((_, Filter::Deflate)), None) => self.codecs.block(Codec::Zlib, &self.stored, into)?,
            _ => into.copy_from_slice(self.decode(filters, mask, into.len())?),
        }
        Ok(())
    }

    /// Replaces `stored` with what `filter` was given.
    fn undo(&mut self, filter: &Filter, given: Length) -> Result<()> {
        let (stored, decoded) = (&self.stored[..], &mut self.undone);
        match filter {
            Filter::Nothing => return Ok(()),
            Filter::Deflate => self.codecs.deflate(stored, given, decoded)?,
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
            Filter::ScaleOffset(numbers) if numbers.is_plain() => return Ok(()),
            Filter::ScaleOffset(numbers) => numbers.undo(stored, given, decoded)?,
            Filter::Bzip2 => codecs::bzip2(stored, given, decoded)?,
            Filter::Lzf => codecs::lzf_stream(stored, given, decoded)?,
            Filter::Blosc => blosc::blosc(&mut self.codecs, stored, given, &mut self.spare, decoded)?,
            Filter::Lz4 => codecs::lz4_frame(stored, given, decoded)?,
            Filter::Bitshuffle(bits) => bits.undo(&mut self.codecs, stored, given, &mut self.spare, decoded)?,
            Filter::Zstd => self.codecs.zstd(stored, given, decoded)?,
        }
        std::mem::swap(&mut self.stored, &mut self.undone);
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod damage_tests;
