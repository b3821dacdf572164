//! HDF5 filter pipelines, undone.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// One filter of a dataset's pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Filter {
    Deflate,
    Shuffle { element_bytes: usize },
    Fletcher32,
}

impl Filter {
    pub(crate) fn of(id: i32, values: &[u32]) -> std::result::Result<Filter, &'static str> {
        match (id, values) {
            (1, _) => Ok(Filter::Deflate),
            (2, [element_bytes, ..]) => Ok(Filter::Shuffle { element_bytes: *element_bytes as usize }),
            (3, _) => Ok(Filter::Fletcher32),
            _ => Err("a filter that only the library decodes"),
        }
    }
}

/// Buffers and decoder of one thread.
pub(crate) struct Decoder {
    stored: Vec<u8>,
    other: Vec<u8>,
    inflate: libdeflater::Decompressor,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { stored: Vec::new(), other: Vec::new(), inflate: libdeflater::Decompressor::new() }
    }

    pub(crate) fn stored(&mut self) -> &mut Vec<u8> {
        &mut self.stored
    }

    pub(crate) fn decoded(&self) -> &[u8] {
        &self.stored
    }

    pub(crate) fn decode(&mut self, filters: &[Filter], mask: u32, decoded_bytes: usize) -> Result<&[u8]> {
        let used = |i: usize| mask >> i & 1 == 0;
        for (i, filter) in filters.iter().enumerate().rev().filter(|(i, _)| used(*i)) {
            let checksums = (0..i).filter(|&j| used(j) && filters[j] == Filter::Fletcher32).count();
            let given = decoded_bytes + 4 * checksums;
            match filter {
                Filter::Deflate => {
                    self.other.resize(given, 0);
                    let inflated = self.inflate.zlib_decompress(&self.stored, &mut self.other);
                    if inflated.ok() != Some(given) {
                        return Err(Error::data("does not inflate: its bytes are damaged"));
                    }
                    std::mem::swap(&mut self.stored, &mut self.other);
                }
                Filter::Shuffle { element_bytes } => {
                    unshuffle(&self.stored, *element_bytes, &mut self.other);
                    std::mem::swap(&mut self.stored, &mut self.other);
                }
                Filter::Fletcher32 => {
                    check_fletcher32(&mut self.stored)?;
                }
            }
        }
        match self.stored.len() == decoded_bytes {
            true => Ok(&self.stored),
            false => Err(Error::data(format!("holds {} bytes, not {decoded_bytes}", self.stored.len()))),
        }
    }
}

fn unshuffle(shuffled: &[u8], element_bytes: usize, into: &mut Vec<u8>) {
    into.resize(shuffled.len(), 0);
    let n = shuffled.len() / element_bytes.max(1);
    let (whole, rest) = into.split_at_mut(n * element_bytes);
    rest.copy_from_slice(&shuffled[n * element_bytes..]);
    for (e, element) in whole.chunks_exact_mut(element_bytes.max(1)).enumerate() {
        for (b, byte) in element.iter_mut().enumerate() {
            *byte = shuffled[b * n + e];
        }
    }
}

/// Takes the checksum off the end, after comparing it.
fn check_fletcher32(bytes: &mut Vec<u8>) -> Result<()> {
    let Some(data) = bytes.len().checked_sub(4) else {
        return Err(Error::data("is too short for its checksum"));
    };
    let stored = u32::from_le_bytes([bytes[data], bytes[data + 1], bytes[data + 2], bytes[data + 3]]);
    let computed = fletcher32(&bytes[..data]);
    // Old libraries stored the two halves with their bytes exchanged, and the library still accepts that.
    let exchanged = (computed & 0x00ff_00ff) << 8 | (computed >> 8) & 0x00ff_00ff;
    if stored != computed && stored != exchanged {
        return Err(Error::data("checksum failed: its bytes are damaged"));
    }
    bytes.truncate(data);
    Ok(())
}

/// Fletcher's checksum over big-endian 16-bit words, as HDF5 takes it. Source: Fletcher, *An arithmetic checksum for serial
/// transmissions*, IEEE Trans. Commun. 30 (1982); sums modulo 65,535 with end-around carry.
fn fletcher32(data: &[u8]) -> u32 {
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let (mut a, mut b) = (0u32, 0u32);
    // After 360 words the sums are still below 2³².
    for run in data.chunks(720) {
        for word in run.chunks(2) {
            a += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low));
            b += a;
        }
        (a, b) = (fold(a), fold(b));
    }
    (a, b) = (fold(a), fold(b));
    b << 16 | a
}
