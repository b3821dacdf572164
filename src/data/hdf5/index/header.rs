//! The object header of a dataset: its dataspace and its layout, if that is chunked or compact; its fill value.
//!
//! Source: *HDF5 File Format Specification Version 3.0*, IV.A.1 (headers of versions 1 and 2), IV.A.2.b (dataspace),
//! IV.A.2.e and f (fill value, old and new), IV.A.2.i (data layout, versions 1 to 4; compact: 3 and 4),
//! IV.A.2.m (attribute), IV.A.2.q (continuation).

use super::tables::check_seal;
use super::{Cursor, Found, Tables};

/// Blocks of one header. Each attribute may have made one.
const MOST_BLOCKS: usize = 1 << 16;
/// HDF5's own limit.
const MOST_AXES: usize = 32;
const NOT_A_HEADER: &str = "its header is of another version";

/// Elements along each axis.
pub(super) struct Space {
    pub(super) shape: Vec<u64>,
    /// What the shape may grow to. None: any size.
    pub(super) most: Vec<Option<u64>>,
}

/// How the values are stored.
pub(super) enum Stored {
    Chunked(Layout),
    /// In the header.
    Compact(Vec<u8>),
}

/// How chunks are stored.
pub(super) struct Layout {
    pub(super) chunk: Vec<u64>,
    /// Of a chunk without filters.
    pub(super) chunk_bytes: u64,
    /// Chunks that reach beyond the dataset are stored without filters.
    pub(super) plain_edges: bool,
    pub(super) index: Index,
}

/// Addresses of indexes. None: nothing was written yet.
pub(super) enum Index {
    BTree1(Option<u64>),
    Single {
        place: Option<u64>,
        stored_bytes: u64,
        mask: u32,
    },
    /// All chunks lie one after the other.
    Implicit(Option<u64>),
    Fixed(Option<u64>),
    Extensible(Option<u64>),
    BTree2(Option<u64>),
}

/// What an element is that was never written, as stored. None: nothing was chosen.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fills {
    pub(crate) new: Option<Vec<u8>>,
    /// Of a message for old versions of the library.
    pub(crate) old: Option<Vec<u8>>,
}

/// What of the messages was found so far.
#[derive(Default)]
struct Messages {
    /// Only fill values and attributes are looked for.
    fills_only: bool,
    fills: Fills,
    has_bad_attribute: bool,
    layout: Option<Stored>,
    space: Option<Space>,
    /// Blocks that are yet to be read: address and bytes.
    blocks: Vec<(u64, u64)>,
}

/// Reads the header at `address`.
pub(super) fn read(tables: &mut Tables, address: u64) -> Found<(Stored, Space)> {
    let mut messages = Messages::default();
    // They may come in different blocks.
    messages.read_until(tables, address, |found| found.layout.is_some() && found.space.is_some())?;
    match (messages.layout, messages.space) {
        (Some(layout), Some(space)) => Ok((layout, space)),
        _ => Err("its header has no layout of chunks"),
    }
}

/// Errors: the parts of an attribute do not lie within it.
pub(super) fn check_attributes(tables: &mut Tables, address: u64) -> Found<()> {
    let mut messages = Messages { fills_only: true, ..Messages::default() };
    // The library says itself what it does not find in a header.
    let _ = messages.read_until(tables, address, |found| found.has_bad_attribute);
    match messages.has_bad_attribute {
        true => Err("the parts of an attribute are longer than all of it: the file is damaged"),
        false => Ok(()),
    }
}

/// Reads the fill value from the header at `address`, whatever its layout.
pub(super) fn fills(tables: &mut Tables, address: u64) -> Found<Fills> {
    let mut messages = Messages { fills_only: true, ..Messages::default() };
    messages.read_until(tables, address, |_| false)?;
    Ok(messages.fills)
}

/// The first block of a header of version 2. Says whether messages have a creation order.
fn read_first_2(tables: &mut Tables, address: u64, start: &[u8], messages: &mut Messages) -> Found<bool> {
    let mut cursor = tables.cursor(start);
    cursor.take(4)?;
    if cursor.byte()? != 2 {
        return Err(NOT_A_HEADER);
    }
    let flags = cursor.byte()?;
    let times = if flags & 0x20 != 0 { 16 } else { 0 };
    let attributes = if flags & 0x10 != 0 { 4 } else { 0 };
    cursor.take(times + attributes)?;
    let size = cursor.number(1 << (flags & 3))?;
    let before = start.len() - cursor.len();
    let n_bytes = usize::try_from(size).ok().and_then(|size| size.checked_add(before + 4)).ok_or(NOT_A_HEADER)?;
    let whole = tables.read(address, n_bytes)?;
    let ordered = flags & 4 != 0;
    messages.take_2(tables, &check_seal(&whole)?[before..], ordered)?;
    Ok(ordered)
}

impl Messages {
    /// Takes the messages of the header at `address`, block by block, until there is enough or no other block.
    fn read_until(&mut self, tables: &mut Tables, address: u64, is_enough: impl Fn(&Messages) -> bool) -> Found<()> {
        let start = tables.read_at_most(address, 64)?;
        let versioned = start.starts_with(b"OHDR");
        // Version 2: creation order in each message.
        let ordered = match versioned {
            true => read_first_2(tables, address, &start, self)?,
            false => {
                let mut cursor = tables.cursor(&start);
                if cursor.byte()? != 1 {
                    return Err(NOT_A_HEADER);
                }
                cursor.take(7)?;
                self.blocks.push((address.checked_add(16).ok_or(NOT_A_HEADER)?, cursor.number(4)?));
                false
            }
        };
        for _ in 0..MOST_BLOCKS {
            if is_enough(self) {
                return Ok(());
            }
            let Some((at, n_bytes)) = self.blocks.pop() else { return Ok(()) };
            let n_bytes = usize::try_from(n_bytes).map_err(|_| NOT_A_HEADER)?;
            if versioned {
                let block = tables.read_sealed(at, n_bytes, b"OCHK")?;
                self.take_2(tables, &block, ordered)?;
            } else {
                let block = tables.read(at, n_bytes)?;
                self.take_1(tables, &block)?;
            }
        }
        Err("its header has too many blocks")
    }

    /// Messages of a block of a header of version 1.
    fn take_1(&mut self, tables: &Tables, block: &[u8]) -> Found<()> {
        let mut cursor = tables.cursor(block);
        while cursor.len() >= 8 {
            let (kind, size) = (cursor.number(2)?, cursor.number(2)?);
            let flags = cursor.byte()?;
            cursor.take(3)?;
            self.take(kind, flags, tables.cursor(cursor.take(size as usize)?))?;
        }
        Ok(())
    }

    /// Messages of a block of a header of version 2. What is too short for a message is a gap.
    fn take_2(&mut self, tables: &Tables, block: &[u8], ordered: bool) -> Found<()> {
        let mut cursor = tables.cursor(block);
        let order_bytes = if ordered { 2 } else { 0 };
        while cursor.len() >= 4 + order_bytes {
            let (kind, size, flags) = (cursor.number(1)?, cursor.number(2)?, cursor.byte()?);
            cursor.take(order_bytes)?;
            self.take(kind, flags, tables.cursor(cursor.take(size as usize)?))?;
        }
        Ok(())
    }

    fn take(&mut self, kind: u64, flags: u8, mut message: Cursor) -> Found<()> {
        let is_shared = flags & 2 != 0;
        match kind {
            0x04 | 0x05 if self.fills_only && is_shared => return Err("its header shares its fill value with others"),
            0x04 if self.fills_only => self.fills.old = fill_of(&mut message, true)?,
            0x05 if self.fills_only => self.fills.new = fill(&mut message)?,
            0x01 | 0x08 if self.fills_only => {}
            0x0c if !is_shared => self.has_bad_attribute |= !attribute_fits(&mut message),
            0x01 | 0x08 if is_shared => return Err("its header shares its shape or layout with others"),
            0x01 => self.space = Some(space(&mut message)?),
            0x08 => self.layout = Some(layout(&mut message)?),
            0x10 => {
                let address = message.address()?.ok_or(NOT_A_HEADER)?;
                self.blocks.push((address, message.length()?));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether name, type and dataspace of an attribute lie within its message.
fn attribute_fits(message: &mut Cursor) -> bool {
    let mut take_all = || -> Found<()> {
        let version = message.byte()?;
        message.take(1)?;
        let sizes = [message.number(2)?, message.number(2)?, message.number(2)?];
        if version == 3 {
            message.take(1)?;
        }
        for size in sizes {
            let size = if version == 1 { size.next_multiple_of(8) } else { size };
            message.take(size as usize)?;
        }
        Ok(())
    };
    take_all().is_ok()
}

fn fill(message: &mut Cursor) -> Found<Option<Vec<u8>>> {
    let version = message.byte()?;
    let is_there = match version {
        1 | 2 => {
            message.take(2)?;
            message.byte()? != 0
        }
        3 => message.byte()? & 0x20 != 0,
        _ => return Err("its fill value is of a newer version"),
    };
    fill_of(message, is_there)
}

/// A fill value after its length. Without a length it is zeros.
fn fill_of(message: &mut Cursor, is_there: bool) -> Found<Option<Vec<u8>>> {
    if !is_there {
        return Ok(None);
    }
    let n_bytes = message.word()? as usize;
    // A length of -1 says that there is none.
    match n_bytes {
        0 | 0xffff_ffff => Ok(None),
        n_bytes => Ok(Some(message.take(n_bytes)?.to_vec())),
    }
}

fn space(message: &mut Cursor) -> Found<Space> {
    let version = message.byte()?;
    let n_axes = usize::from(message.byte()?);
    let has_most = message.byte()? & 1 != 0;
    match version {
        1 => message.take(5)?,
        2 => message.take(1)?,
        _ => return Err("its dataspace is of a newer version"),
    };
    if n_axes > MOST_AXES {
        return Err("its dataspace has too many axes");
    }
    let shape: Vec<u64> = (0..n_axes).map(|_| message.length()).collect::<Found<_>>()?;
    let most = match has_most {
        false => shape.iter().map(|&n| Some(n)).collect(),
        true => (0..n_axes)
            .map(|_| {
                let unlimited = u64::MAX >> (64 - 8 * message.length_bytes());
                message.length().map(|n| (n != unlimited).then_some(n))
            })
            .collect::<Found<_>>()?,
    };
    Ok(Space { shape, most })
}

fn layout(message: &mut Cursor) -> Found<Stored> {
    match message.byte()? {
        1 | 2 => {
            let n_sizes = message.byte()?;
            chunked_only(message.byte()?)?;
            message.take(5)?;
            let root = message.address()?;
            Layout::of(message, n_sizes, 4, |_, _| Ok((Index::BTree1(root), 0)))
        }
        3 => {
            if let Some(compact) = compact_or_chunked(message)? {
                return Ok(compact);
            }
            let n_sizes = message.byte()?;
            let root = message.address()?;
            Layout::of(message, n_sizes, 4, |_, _| Ok((Index::BTree1(root), 0)))
        }
        4 => {
            if let Some(compact) = compact_or_chunked(message)? {
                return Ok(compact);
            }
            let (flags, n_sizes, width) = (message.byte()?, message.byte()?, message.byte()?);
            if !(1..=8).contains(&width) {
                return Err("its layout has sizes of another width");
            }
            Layout::of(message, n_sizes, width.into(), |message, chunk_bytes| {
                Ok((index(message, flags, chunk_bytes)?, flags))
            })
        }
        _ => Err("its layout is of a newer version"),
    }
}

fn chunked_only(class: u8) -> Found<()> {
    if class == 2 { Ok(()) } else { Err("it is not chunked") }
}

/// What is stored in the header itself, or None where chunks follow.
fn compact_or_chunked(message: &mut Cursor) -> Found<Option<Stored>> {
    match message.byte()? {
        0 => {
            let n_bytes = message.number(2)? as usize;
            Ok(Some(Stored::Compact(message.take(n_bytes)?.to_vec())))
        }
        class => chunked_only(class).map(|()| None),
    }
}

impl Layout {
    /// Sizes of a chunk along the axes and of an element, then what is made of the rest by `index` (with flags).
    fn of(
        message: &mut Cursor,
        n_sizes: u8,
        width: usize,
        index: impl FnOnce(&mut Cursor, u64) -> Found<(Index, u8)>,
    ) -> Found<Stored> {
        let mut sizes: Vec<u64> = (0..n_sizes).map(|_| message.number(width)).collect::<Found<_>>()?;
        let chunk_bytes = sizes.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let chunk_bytes = chunk_bytes.filter(|n| *n > 0).ok_or("its chunks have an impossible size")?;
        sizes.pop().filter(|_| !sizes.is_empty() && sizes.len() <= MOST_AXES).ok_or("its chunks have no axes")?;
        let (index, flags) = index(message, chunk_bytes)?;
        Ok(Stored::Chunked(Layout { chunk: sizes, chunk_bytes, plain_edges: flags & 1 != 0, index }))
    }
}

/// The kind of index of a layout of version 4.
fn index(message: &mut Cursor, flags: u8, chunk_bytes: u64) -> Found<Index> {
    let kind = message.byte()?;
    let (mut stored_bytes, mut mask) = (chunk_bytes, 0);
    let n_parameters = match kind {
        1 if flags & 2 != 0 => {
            (stored_bytes, mask) = (message.length()?, message.word()?);
            0
        }
        1 | 2 => 0,
        3 => 1,
        4 => 5,
        5 => 6,
        _ => return Err("its index is of a newer kind"),
    };
    // The indexes tell them again.
    message.take(n_parameters)?;
    let at = message.address()?;
    Ok(match kind {
        1 => Index::Single { place: at, stored_bytes, mask },
        2 => Index::Implicit(at),
        3 => Index::Fixed(at),
        4 => Index::Extensible(at),
        _ => Index::BTree2(at),
    })
}
