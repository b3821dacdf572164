//! Bytes of a file's structures: read with bounds and a budget, taken apart in order, their checksums compared.

use super::Found;
use std::fs::File;
use std::os::unix::fs::FileExt;

const SHORT: &str = "its index ends too early";
const BEYOND: &str = "its index lies beyond the end of the file";

/// The structures of one file.
pub(super) struct Tables<'f> {
    file: &'f File,
    /// Addresses are from here.
    pub(super) base: u64,
    pub(super) file_bytes: u64,
    pub(super) offset_bytes: usize,
    pub(super) length_bytes: usize,
    /// Bytes that may still be read: structures that point to each other in a circle end here.
    budget: u64,
}

impl<'f> Tables<'f> {
    /// Reads the superblock at `base`: versions 0 to 3 have the sizes of addresses and lengths, which is all that is needed.
    pub(super) fn of(file: &'f File, base: u64) -> Found<Tables<'f>> {
        let file_bytes = file.metadata().map_err(|_| "its file cannot be looked at")?.len();
        let budget = file_bytes.saturating_mul(4).saturating_add(1 << 20);
        let mut tables = Tables { file, base, file_bytes, offset_bytes: 8, length_bytes: 8, budget };
        let superblock = tables.read(0, 16)?;
        if superblock[..8] != *b"\x89HDF\r\n\x1a\n" {
            return Err("its file does not begin where the library says");
        }
        let (offset_bytes, length_bytes) = match superblock[8] {
            0 | 1 => (superblock[13], superblock[14]),
            2 | 3 => (superblock[9], superblock[10]),
            _ => return Err("its file has a newer superblock"),
        };
        if ![2, 4, 8].contains(&offset_bytes) || ![2, 4, 8].contains(&length_bytes) {
            return Err("its file has addresses of another size");
        }
        (tables.offset_bytes, tables.length_bytes) = (offset_bytes.into(), length_bytes.into());
        Ok(tables)
    }

    /// `n_bytes` at `address`.
    pub(super) fn read(&mut self, address: u64, n_bytes: usize) -> Found<Vec<u8>> {
        let bytes = self.read_at_most(address, n_bytes)?;
        if bytes.len() == n_bytes { Ok(bytes) } else { Err(BEYOND) }
    }

    /// `n_bytes` at `address`, or those up to the end of the file.
    pub(super) fn read_at_most(&mut self, address: u64, n_bytes: usize) -> Found<Vec<u8>> {
        let at = address.checked_add(self.base).ok_or(BEYOND)?;
        let n_bytes = self.file_bytes.checked_sub(at).ok_or(BEYOND)?.min(n_bytes as u64);
        self.budget = self.budget.checked_sub(n_bytes).ok_or("its index is larger than its file")?;
        let mut bytes = vec![0; n_bytes as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(|_| "its index cannot be read")?;
        Ok(bytes)
    }

    /// A structure of `n_bytes` that begins with `signature` and ends with its checksum: what is between.
    pub(super) fn read_sealed(&mut self, address: u64, n_bytes: usize, signature: &[u8]) -> Found<Vec<u8>> {
        let mut bytes = self.read(address, n_bytes)?;
        let n_body = check_seal(&bytes)?.len();
        if !bytes.starts_with(signature) || n_body < signature.len() {
            return Err(super::NOT_THE_INDEX);
        }
        bytes.truncate(n_body);
        bytes.drain(..signature.len());
        Ok(bytes)
    }

    pub(super) fn cursor<'b>(&self, bytes: &'b [u8]) -> Cursor<'b> {
        Cursor { rest: bytes, offset_bytes: self.offset_bytes, length_bytes: self.length_bytes }
    }
}

/// Takes bytes apart from their beginning. All numbers are little-endian.
pub(super) struct Cursor<'b> {
    rest: &'b [u8],
    offset_bytes: usize,
    length_bytes: usize,
}

impl<'b> Cursor<'b> {
    pub(super) fn take(&mut self, n_bytes: usize) -> Found<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n_bytes).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of at most 8 bytes.
    pub(super) fn number(&mut self, n_bytes: usize) -> Found<u64> {
        let mut wide = [0; 8];
        wide.get_mut(..n_bytes).ok_or(SHORT)?.copy_from_slice(self.take(n_bytes)?);
        Ok(u64::from_le_bytes(wide))
    }

    pub(super) fn byte(&mut self) -> Found<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn word(&mut self) -> Found<u32> {
        Ok(self.number(4)? as u32)
    }

    /// None: no address, which is stored as all ones.
    pub(super) fn address(&mut self) -> Found<Option<u64>> {
        let address = self.number(self.offset_bytes)?;
        Ok((address != u64::MAX >> (64 - 8 * self.offset_bytes)).then_some(address))
    }

    pub(super) fn length(&mut self) -> Found<u64> {
        self.number(self.length_bytes)
    }

    pub(super) fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }
}

/// The bytes before the checksum at the end, if it is theirs.
pub(super) fn check_seal(bytes: &[u8]) -> Found<&[u8]> {
    let (body, seal) = bytes.split_last_chunk::<4>().ok_or(SHORT)?;
    match u32::from_le_bytes(*seal) == lookup3(body) {
        true => Ok(body),
        false => Err("the checksum of its index is wrong: the file is damaged"),
    }
}

/// Jenkins' hash lookup3 (`hashlittle` with 0), which HDF5 seals its structures with.
/// Source: Jenkins, *lookup3.c* (2006), public domain.
pub(super) fn lookup3(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    // The last block, even a whole one, is mixed differently.
    let n_mixed = bytes.len().saturating_sub(1) / 12 * 12;
    let (mixed, last) = bytes.split_at(n_mixed);
    let words = |block: &[u8]| {
        let mut padded = [0; 12];
        padded[..block.len()].copy_from_slice(block);
        [0, 4, 8].map(|at| u32::from_le_bytes([padded[at], padded[at + 1], padded[at + 2], padded[at + 3]]))
    };
    let add = |a: &mut u32, b: &mut u32, c: &mut u32, block: &[u8]| {
        let [x, y, z] = words(block);
        (*a, *b, *c) = (a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
    };
    let step = |x: &mut u32, y: u32, turn: u32| *x = x.wrapping_sub(y) ^ y.rotate_left(turn);
    for block in mixed.chunks_exact(12) {
        add(&mut a, &mut b, &mut c, block);
        for (turn_a, turn_b, turn_c) in [(4, 6, 8), (16, 19, 4)] {
            step(&mut a, c, turn_a);
            c = c.wrapping_add(b);
            step(&mut b, a, turn_b);
            a = a.wrapping_add(c);
            step(&mut c, b, turn_c);
            b = b.wrapping_add(a);
        }
    }
    if last.is_empty() {
        return c;
    }
    add(&mut a, &mut b, &mut c, last);
    let step = |x: &mut u32, y: u32, turn: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(turn));
    step(&mut c, b, 14);
    step(&mut a, c, 11);
    step(&mut b, a, 25);
    step(&mut c, b, 16);
    step(&mut a, c, 4);
    step(&mut b, a, 14);
    step(&mut c, b, 24);
    c
}
