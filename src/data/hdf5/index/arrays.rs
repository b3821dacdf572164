//! Chunk indexes that number the chunks: implicit, fixed array and extensible array.
//!
//! Chunks are numbered row-major over the grid of the largest shape the dataset may have; the one axis without limit, if there
//! is one, goes first. Source: *HDF5 File Format Specification Version 3.0*, VII.C (implicit), VII.D (fixed array), VII.E
//! (extensible array).

use super::header::Space;
use super::{Cursor, Entry, Found, Grid, NOT_THE_INDEX, OUTSIDE, Tables};

/// The grid, filled by the number of a chunk.
struct Numbered<'g> {
    grid: &'g mut Grid,
    /// Axes from the slowest.
    order: Vec<usize>,
    /// Chunks that one step along each axis of `order` passes.
    steps: Vec<u64>,
    /// Of the last chunk inside the dataset.
    last: u64,
    /// Of all chunks of the largest shape. None: without limit.
    n_chunks: Option<u64>,
    at: Vec<u64>,
}

impl Numbered<'_> {
    fn of<'g>(space: &Space, grid: &'g mut Grid) -> Found<Numbered<'g>> {
        let too_many = "its largest shape has too many chunks";
        let counts: Vec<Option<u64>> =
            space.most.iter().zip(&grid.chunk).map(|(most, chunk)| most.map(|most| most.div_ceil(*chunk))).collect();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&axis| counts[axis].is_some());
        let mut steps = vec![1u64; order.len()];
        for i in (1..order.len()).rev() {
            let below = counts[order[i]].ok_or("more than one of its axes has no limit")?;
            steps[i - 1] = steps[i].checked_mul(below).ok_or(too_many)?;
        }
        let mut last = 0u64;
        for (axis, step) in order.iter().zip(&steps) {
            let along = grid.counts[*axis].checked_sub(1).and_then(|i| i.checked_mul(*step));
            last = along.and_then(|along| last.checked_add(along)).ok_or(too_many)?;
        }
        let n_chunks = match order.first().map(|&axis| counts[axis]) {
            Some(Some(slowest)) => Some(slowest.checked_mul(steps[0]).ok_or(too_many)?),
            Some(None) => None,
            None => Some(1),
        };
        Ok(Numbered { at: vec![0; order.len()], grid, order, steps, last, n_chunks })
    }

    fn put(&mut self, number: u64, entry: Entry) -> Found<()> {
        if entry.address.is_none() {
            return Ok(());
        }
        let mut rest = number;
        for (&axis, &step) in self.order.iter().zip(&self.steps) {
            // No step is zero unless an axis is empty, and then there is no chunk.
            self.at[axis] = rest.checked_div(step).ok_or(OUTSIDE)?;
            rest %= step;
        }
        self.grid.put(&self.at, entry)
    }
}

/// Chunks one after the other from `first` on.
pub(super) fn implicit(first: Option<u64>, space: &Space, grid: &mut Grid) -> Found<()> {
    let Some(first) = first else { return Ok(()) };
    let mut chunks = Numbered::of(space, grid)?;
    if chunks.n_chunks.is_none() {
        return Err(NOT_THE_INDEX);
    }
    let (stored_bytes, counts) = (chunks.grid.chunk_bytes, chunks.grid.counts.clone());
    // Of a dataset that can grow only some numbers are in its grid now.
    let mut at = vec![0u64; counts.len()];
    for _ in 0..chunks.grid.places.len() {
        let number = chunks.order.iter().zip(&chunks.steps).map(|(&axis, step)| at[axis] * step).sum::<u64>();
        let address = number.checked_mul(stored_bytes).and_then(|after| first.checked_add(after));
        chunks.put(number, Entry { address: Some(address.ok_or(OUTSIDE)?), stored_bytes, mask: 0 })?;
        for axis in (0..at.len()).rev() {
            at[axis] += 1;
            if at[axis] < counts[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    Ok(())
}

/// How the elements of an array are stored.
struct Elements {
    n_bytes: usize,
    is_filtered: bool,
}

impl Elements {
    fn of(client: u8, n_bytes: u8, tables: &Tables) -> Found<Elements> {
        let n_bytes = usize::from(n_bytes);
        let is_filtered = match client {
            0 if n_bytes == tables.offset_bytes => false,
            1 if (5..=12).contains(&n_bytes.saturating_sub(tables.offset_bytes)) => true,
            _ => return Err(NOT_THE_INDEX),
        };
        Ok(Elements { n_bytes, is_filtered })
    }

    fn client(&self) -> u8 {
        u8::from(self.is_filtered)
    }

    /// `n` elements for the chunks from number `first` on.
    fn put(&self, cursor: &mut Cursor, n: u64, first: u64, chunks: &mut Numbered) -> Found<()> {
        for number in first..first.saturating_add(n) {
            let before = cursor.len();
            let mut entry = Entry { address: cursor.address()?, stored_bytes: chunks.grid.chunk_bytes, mask: 0 };
            if self.is_filtered {
                entry.stored_bytes = cursor.number(self.n_bytes - (before - cursor.len()) - 4)?;
                entry.mask = cursor.word()?;
            }
            chunks.put(number, entry)?;
        }
        Ok(())
    }

    /// Bytes of `n` elements.
    fn bytes(&self, n: u64) -> Found<usize> {
        usize::try_from(n).ok().and_then(|n| n.checked_mul(self.n_bytes)).ok_or(NOT_THE_INDEX)
    }

    /// Pages that follow a block: each is there if its bit of `written` (from the highest of a byte) is set.
    fn put_pages(
        &self,
        tables: &mut Tables,
        mut at: u64,
        mut numbers: std::ops::Range<u64>,
        page: u64,
        is_written: impl Fn(usize) -> bool,
        chunks: &mut Numbered,
    ) -> Found<()> {
        let mut index = 0;
        while numbers.start < numbers.end.min(chunks.last.saturating_add(1)) {
            let n = page.min(numbers.end - numbers.start);
            let n_bytes = self.bytes(n)?.checked_add(4).ok_or(NOT_THE_INDEX)?;
            if is_written(index) {
                let bytes = tables.read_sealed(at, n_bytes, b"")?;
                self.put(&mut tables.cursor(&bytes), n, numbers.start, chunks)?;
            }
            at = at.checked_add(n_bytes as u64).ok_or(NOT_THE_INDEX)?;
            numbers.start += n;
            index += 1;
        }
        Ok(())
    }
}

fn bit(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte << (index % 8) & 0x80 != 0)
}

/// Elements of a page, from its exponent.
fn page_elements(bits: u8) -> Found<u64> {
    if bits < 32 { Ok(1 << bits) } else { Err(NOT_THE_INDEX) }
}

/// Puts the chunks of a fixed array into `grid`.
pub(super) fn fixed(tables: &mut Tables, header: Option<u64>, space: &Space, grid: &mut Grid) -> Found<()> {
    let Some(header) = header else { return Ok(()) };
    let mut chunks = Numbered::of(space, grid)?;
    let n_bytes = 8 + tables.length_bytes + tables.offset_bytes + 4;
    let bytes = tables.read_sealed(header, n_bytes, b"FAHD")?;
    let mut cursor = tables.cursor(&bytes);
    let (version, client, element_bytes) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    let (page, n) = (page_elements(cursor.byte()?)?, cursor.length()?);
    let elements = Elements::of(client, element_bytes, tables)?;
    if version != 0 || chunks.n_chunks != Some(n) {
        return Err(NOT_THE_INDEX);
    }
    let Some(block) = cursor.address()? else { return Ok(()) };
    let n_pages = if n > page { n.div_ceil(page) } else { 0 };
    let bits_bytes = usize::try_from(n_pages.div_ceil(8)).map_err(|_| NOT_THE_INDEX)?;
    let here = if n_pages == 0 { elements.bytes(n)? } else { bits_bytes };
    let n_bytes = here.checked_add(6 + tables.offset_bytes + 4).ok_or(NOT_THE_INDEX)?;
    let bytes = tables.read_sealed(block, n_bytes, b"FADB")?;
    let mut cursor = tables.cursor(&bytes);
    if cursor.byte()? != 0 || cursor.byte()? != client || cursor.address()? != Some(header) {
        return Err(NOT_THE_INDEX);
    }
    if n_pages == 0 {
        return elements.put(&mut cursor, n, 0, &mut chunks);
    }
    let bits = cursor.take(bits_bytes)?;
    let after = block.checked_add(n_bytes as u64).ok_or(NOT_THE_INDEX)?;
    elements.put_pages(tables, after, 0..n, page, |index| bit(bits, index), &mut chunks)
}

/// What is the same for all blocks of an extensible array.
struct Extensible {
    header: u64,
    elements: Elements,
    page: u64,
    /// Bytes that hold where a block begins in the array.
    start_bytes: usize,
}

/// Puts the chunks of an extensible array into `grid`.
///
/// Super block u has 2^(u/2) data blocks of 2^((u+1)/2) times the smallest number of elements. The data blocks of the first
/// ones are listed in the index block itself.
pub(super) fn extensible(tables: &mut Tables, header: Option<u64>, space: &Space, grid: &mut Grid) -> Found<()> {
    let Some(header) = header else { return Ok(()) };
    let mut chunks = Numbered::of(space, grid)?;
    let n_bytes = 12 + 6 * tables.length_bytes + tables.offset_bytes + 4;
    let bytes = tables.read_sealed(header, n_bytes, b"EAHD")?;
    let mut cursor = tables.cursor(&bytes);
    let (version, client, element_bytes) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    let (number_bits, n_direct, smallest) = (cursor.byte()?, u64::from(cursor.byte()?), cursor.byte()?);
    let (fewest_blocks, page) = (cursor.byte()?, page_elements(cursor.byte()?)?);
    cursor.take(6 * tables.length_bytes)?;
    let elements = Elements::of(client, element_bytes, tables)?;
    let is_sound = version == 0
        && (1..=64).contains(&number_bits)
        && smallest.is_power_of_two()
        && smallest.ilog2() <= number_bits.into()
        && fewest_blocks.is_power_of_two();
    if !is_sound {
        return Err(NOT_THE_INDEX);
    }
    let Some(index_block) = cursor.address()? else { return Ok(()) };
    let start_bytes = usize::from(number_bits).div_ceil(8);
    let array = Extensible { header, elements, page, start_bytes };
    let n_supers = 1 + u32::from(number_bits) - smallest.ilog2();
    let n_listed = n_supers.min(2 * fewest_blocks.ilog2());
    let n_blocks = |u: u32| 1u64 << (u / 2);
    let n_listed_blocks: u64 = (0..n_listed).map(n_blocks).sum();
    let n_addresses = n_listed_blocks as usize + (n_supers - n_listed) as usize;
    let n_bytes = array.elements.bytes(n_direct)? + n_addresses * tables.offset_bytes + 6 + tables.offset_bytes + 4;
    let bytes = tables.read_sealed(index_block, n_bytes, b"EAIB")?;
    let mut cursor = tables.cursor(&bytes);
    array.check(&mut cursor)?;
    array.elements.put(&mut cursor, n_direct, 0, &mut chunks)?;
    let mut first = n_direct;
    for u in 0..n_supers {
        if first > chunks.last {
            break;
        }
        let n = u64::from(smallest).checked_shl(u.div_ceil(2)).filter(|n| *n > 0).ok_or(NOT_THE_INDEX)?;
        if u >= n_listed {
            if let Some(at) = cursor.address()? {
                array.super_block(tables, at, n_blocks(u), first, n, &mut chunks)?;
            }
        } else if n > array.page {
            return Err(NOT_THE_INDEX);
        } else {
            for i in 0..n_blocks(u) {
                if let Some(at) = cursor.address()? {
                    array.data_block(tables, at, first + i * n, n, |_| false, &mut chunks)?;
                }
            }
        }
        first = n.checked_mul(n_blocks(u)).and_then(|n| first.checked_add(n)).ok_or(NOT_THE_INDEX)?;
    }
    Ok(())
}

impl Extensible {
    /// The begin of every block: version, client and whose it is.
    fn check(&self, cursor: &mut Cursor) -> Found<()> {
        let is_ours =
            cursor.byte()? == 0 && cursor.byte()? == self.elements.client() && cursor.address()? == Some(self.header);
        if is_ours { Ok(()) } else { Err(NOT_THE_INDEX) }
    }

    /// `n_blocks` data blocks of `n` elements each, for the chunks from number `first` on.
    fn super_block(
        &self,
        tables: &mut Tables,
        at: u64,
        n_blocks: u64,
        first: u64,
        n: u64,
        chunks: &mut Numbered,
    ) -> Found<()> {
        let n_pages = if n > self.page { n / self.page } else { 0 };
        let sizes = n_blocks.checked_mul(n_pages.div_ceil(8)).zip(n_blocks.checked_mul(tables.offset_bytes as u64));
        let n_bits = sizes.filter(|(bits, rest)| bits.saturating_add(*rest) <= tables.file_bytes);
        let (n_bits, n_addresses) = n_bits.ok_or(NOT_THE_INDEX)?;
        let n_bytes = (n_bits + n_addresses) as usize + 6 + tables.offset_bytes + self.start_bytes + 4;
        let bytes = tables.read_sealed(at, n_bytes, b"EASB")?;
        let mut cursor = tables.cursor(&bytes);
        self.check(&mut cursor)?;
        cursor.take(self.start_bytes)?;
        let bits = cursor.take(n_bits as usize)?;
        for i in 0..n_blocks {
            let begin = i.checked_mul(n).and_then(|after| first.checked_add(after)).ok_or(NOT_THE_INDEX)?;
            if begin > chunks.last {
                break;
            }
            let Some(at) = cursor.address()? else { continue };
            let is_written = |page: usize| bit(bits, (i * n_pages) as usize + page);
            self.data_block(tables, at, begin, n, is_written, chunks)?;
        }
        Ok(())
    }

    fn data_block(
        &self,
        tables: &mut Tables,
        at: u64,
        first: u64,
        n: u64,
        is_written: impl Fn(usize) -> bool,
        chunks: &mut Numbered,
    ) -> Found<()> {
        let is_paged = n > self.page;
        let here = if is_paged { 0 } else { self.elements.bytes(n)? };
        let n_bytes = 6 + tables.offset_bytes + self.start_bytes + here + 4;
        let bytes = tables.read_sealed(at, n_bytes, b"EADB")?;
        let mut cursor = tables.cursor(&bytes);
        self.check(&mut cursor)?;
        cursor.take(self.start_bytes)?;
        if !is_paged {
            return self.elements.put(&mut cursor, n, first, chunks);
        }
        let after = at.checked_add(n_bytes as u64).ok_or(NOT_THE_INDEX)?;
        let numbers = first..first.checked_add(n).ok_or(NOT_THE_INDEX)?;
        self.elements.put_pages(tables, after, numbers, self.page, is_written, chunks)
    }
}
