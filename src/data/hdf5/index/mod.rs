//! Where a dataset's chunks lie, from the file's own structures: HDF5 1.10 takes time quadratic in their number to tell.
//!
//! In: a file and where the object header of a dataset lies in it. Out: the place of every chunk ([`chunks_at`]), or why the
//! library has to be asked. Nothing in the file is trusted: no bytes make this panic, loop or allocate more than a small
//! multiple of the file; checksums are compared where the format has them.
//!
//! Source: *HDF5 File Format Specification Version 3.0*, II (superblock), III (B-trees), IV (object headers), VII.C to VII.F
//! (chunk indexes); file names below say which.

mod arrays;
mod btree;
mod header;
mod tables;

pub(crate) use header::Fills;
use serde::{Deserialize, Serialize};
use std::fs::File;
use tables::{Cursor, Tables};

/// What was found, or why the library has to be asked.
pub(super) type Found<V> = Result<V, &'static str>;

const OUTSIDE: &str = "its index has a chunk outside of the dataset";
const TWICE: &str = "its index has a chunk twice";
const NOT_THE_INDEX: &str = "its index is not of the kind that its header says";

/// One chunk in its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkPlace {
    /// From the first byte of the file, a user block included.
    pub(crate) offset: u64,
    pub(crate) stored_bytes: u64,
    /// Bit i: filter i was left out.
    pub(crate) mask: u32,
}

/// The chunks of a dataset, row-major over its grid of chunks; None for those that were never written. Not collective.
///
/// * `base`: bytes before the superblock (the user block); `header`: of the dataset's object header, from there.
/// * `shape`, `chunk`: elements along each axis, as the library tells them; no zeros in `chunk`.
///
/// # Errors
/// Why the caller has to ask the library.
pub(crate) fn chunks_at(
    file: &File,
    base: u64,
    header: u64,
    shape: &[u64],
    chunk: &[u64],
) -> Found<Vec<Option<ChunkPlace>>> {
    let mut tables = Tables::of(file, base)?;
    let (stored, space) = header::read(&mut tables, header)?;
    let header::Stored::Chunked(layout) = stored else { return Err("it is not chunked") };
    if layout.chunk != chunk || space.shape != shape {
        return Err("its header says another shape than the library");
    }
    let mut grid = Grid::of(&tables, shape, &layout)?;
    match layout.index {
        header::Index::BTree1(root) => btree::version_1(&mut tables, root, &mut grid)?,
        header::Index::BTree2(root) => btree::version_2(&mut tables, root, &mut grid)?,
        header::Index::Single { place, stored_bytes, mask } => {
            if grid.places.len() != 1 {
                return Err(NOT_THE_INDEX);
            }
            grid.put(&vec![0; shape.len()], Entry { address: place, stored_bytes, mask })?;
        }
        header::Index::Implicit(first) => arrays::implicit(first, &space, &mut grid)?,
        header::Index::Fixed(at) => arrays::fixed(&mut tables, at, &space, &mut grid)?,
        header::Index::Extensible(at) => arrays::extensible(&mut tables, at, &space, &mut grid)?,
    }
    Ok(grid.places)
}

/// Bytes of an element in the file, from the header at `header` of a chunked dataset. Not collective.
pub(crate) fn element_bytes_at(file: &File, base: u64, header: u64) -> Found<u64> {
    match header::read(&mut Tables::of(file, base)?, header)?.0 {
        header::Stored::Chunked(layout) => {
            // Their product with the bytes of an element was checked.
            Ok(layout.chunk_bytes / layout.chunk.iter().product::<u64>())
        }
        header::Stored::Compact(_) => Err("it is not chunked"),
    }
}

/// The bytes of a compact dataset, which are in its header. Not collective.
pub(crate) fn compact_at(file: &File, base: u64, header: u64, shape: &[u64]) -> Found<Vec<u8>> {
    match header::read(&mut Tables::of(file, base)?, header)? {
        (header::Stored::Compact(bytes), space) if space.shape == shape => Ok(bytes),
        (header::Stored::Compact(_), _) => Err("its header says another shape than the library"),
        _ => Err("it is not compact"),
    }
}

/// The fill value in the header at `header`. Not collective.
pub(crate) fn fills_at(file: &File, base: u64, header: u64) -> Found<Fills> {
    header::fills(&mut Tables::of(file, base)?, header)
}

/// Whether the parts of all attributes in the header at `header` lie within them. A header that cannot be read has none. Not collective.
pub(crate) fn check_attributes_at(file: &File, base: u64, header: u64) -> Found<()> {
    let Ok(mut tables) = Tables::of(file, base) else { return Ok(()) };
    header::check_attributes(&mut tables, header)
}

/// How addresses and lengths are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// Addresses are from here: bytes before the superblock (the user block).
    pub(crate) base: u64,
    /// 2, 4 or 8.
    pub(crate) offset_bytes: usize,
    /// 2, 4 or 8.
    pub(crate) length_bytes: usize,
}

impl Sizes {
    /// From the superblock at `base`. Not collective.
    pub(crate) fn of(file: &File, base: u64) -> Found<Sizes> {
        let Tables { offset_bytes, length_bytes, .. } = Tables::of(file, base)?;
        Ok(Sizes { base, offset_bytes, length_bytes })
    }

    /// Of what an element of any length is in the file: its length, the address of a collection of the heap, and a number in it.
    pub(crate) fn descriptor_bytes(self) -> usize {
        8 + self.offset_bytes
    }
}

/// What an index says of a chunk.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// From the base. None: it was never written.
    address: Option<u64>,
    stored_bytes: u64,
    mask: u32,
}

/// The chunks found so far.
struct Grid {
    base: u64,
    file_bytes: u64,
    shape: Vec<u64>,
    chunk: Vec<u64>,
    /// Chunks along each axis.
    counts: Vec<u64>,
    /// Of a chunk without filters.
    chunk_bytes: u64,
    /// Chunks that reach beyond the dataset are stored without filters.
    plain_edges: bool,
    places: Vec<Option<ChunkPlace>>,
}

impl Grid {
    fn of(tables: &Tables, shape: &[u64], layout: &header::Layout) -> Found<Grid> {
        let counts: Vec<u64> = shape.iter().zip(&layout.chunk).map(|(n, c)| n.div_ceil(*c)).collect();
        let n_chunks = counts.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        // A chunk that was written takes some bytes of index: of more chunks than this most were not.
        let most = (1 << 20) + tables.file_bytes / 8;
        let n_chunks = n_chunks.filter(|n| *n <= most).ok_or("most of its very many chunks were never written")?;
        Ok(Grid {
            base: tables.base,
            file_bytes: tables.file_bytes,
            shape: shape.to_vec(),
            chunk: layout.chunk.clone(),
            counts,
            chunk_bytes: layout.chunk_bytes,
            plain_edges: layout.plain_edges,
            places: vec![None; usize::try_from(n_chunks).map_err(|_| "it has too many chunks")?],
        })
    }

    /// Notes the chunk at these numbers along the axes.
    fn put(&mut self, at: &[u64], entry: Entry) -> Found<()> {
        let Some(address) = entry.address else { return Ok(()) };
        if at.len() != self.counts.len() || at.iter().zip(&self.counts).any(|(i, n)| i >= n) {
            return Err(OUTSIDE);
        }
        let number = at.iter().zip(&self.counts).fold(0, |number, (i, n)| number * n + i);
        let offset = address.checked_add(self.base);
        let end = offset.and_then(|offset| offset.checked_add(entry.stored_bytes));
        let (Some(offset), true) = (offset, end.is_some_and(|end| end <= self.file_bytes)) else {
            return Err("its index has a chunk beyond the end of the file");
        };
        let mut along = at.iter().zip(&self.chunk).zip(&self.shape);
        let is_edge = self.plain_edges && along.any(|((i, c), n)| c.checked_mul(i + 1).is_none_or(|end| end > *n));
        let mask = if is_edge { u32::MAX } else { entry.mask };
        let place = &mut self.places[number as usize];
        if place.is_some() {
            return Err(TWICE);
        }
        *place = Some(ChunkPlace { offset, stored_bytes: entry.stored_bytes, mask });
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod damage_tests;
