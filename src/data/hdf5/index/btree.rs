//! Chunk indexes that are B-trees.
//!
//! Source: *HDF5 File Format Specification Version 3.0*, III.A.1 (version 1, node type 1), III.A.2 (version 2, record types 10
//! and 11).

use super::{Entry, Found, Grid, NOT_THE_INDEX, Tables};

/// No tree over the chunks of a file is deeper.
const MOST_LEVELS: u16 = 32;
/// Children of a node of version 1 unless the file was made with another number: a first guess of its size.
const USUAL_CHILDREN: usize = 64;

/// Puts the chunks of a B-tree of version 1 into `grid`.
pub(super) fn version_1(tables: &mut Tables, root: Option<u64>, grid: &mut Grid) -> Found<()> {
    let Some(root) = root else { return Ok(()) };
    node_1(tables, root, None, grid)
}

/// One node and those below it. `level`: what it has to have; None for the root.
fn node_1(tables: &mut Tables, address: u64, level: Option<u8>, grid: &mut Grid) -> Found<()> {
    let n_axes = grid.counts.len();
    // Bytes, mask, and the first element along each axis and within the element.
    let key_bytes = 8 + 8 * (n_axes + 1);
    let before = 8 + 2 * tables.offset_bytes;
    let child_bytes = key_bytes + tables.offset_bytes;
    let mut node = tables.read_at_most(address, before + USUAL_CHILDREN * child_bytes)?;
    let mut cursor = tables.cursor(&node);
    let (signature, kind, found) = (cursor.take(4)?, cursor.byte()?, cursor.byte()?);
    let n_children = cursor.number(2)? as usize;
    if signature != b"TREE" || kind != 1 || level.is_some_and(|level| level != found) || u16::from(found) > MOST_LEVELS
    {
        return Err(NOT_THE_INDEX);
    }
    // Every node below the root holds something: so all paths end in new chunks, or in one that was there before.
    if n_children == 0 && level.is_some() {
        return Err("its index has an empty node");
    }
    // The key after the last child says nothing new.
    let needed = before + n_children * child_bytes;
    if needed > node.len() {
        node = tables.read(address, needed)?;
    }
    let mut cursor = tables.cursor(&node);
    cursor.take(before)?;
    let mut at = vec![0; n_axes];
    for _ in 0..n_children {
        let (stored_bytes, mask) = (cursor.number(4)?, cursor.word()?);
        for (i, chunk) in at.iter_mut().zip(&grid.chunk) {
            let first = cursor.number(8)?;
            if found == 0 && first % chunk != 0 {
                return Err("its index has a chunk that begins within another");
            }
            *i = first / chunk;
        }
        cursor.take(8)?;
        let child = cursor.address()?.ok_or("its index has a child without address")?;
        match found {
            0 => grid.put(&at, Entry { address: Some(child), stored_bytes, mask })?,
            level => node_1(tables, child, Some(level - 1), grid)?,
        }
    }
    Ok(())
}

/// What is the same for all nodes of a tree of version 2.
struct Tree2 {
    kind: u8,
    node_bytes: usize,
    record_bytes: usize,
    /// Bytes that hold how many records a child has.
    count_bytes: usize,
    /// The same for all records at and below a child, by the child's height.
    total_bytes: Vec<usize>,
}

/// Puts the chunks of a B-tree of version 2 into `grid`.
pub(super) fn version_2(tables: &mut Tables, header: Option<u64>, grid: &mut Grid) -> Found<()> {
    let Some(header) = header else { return Ok(()) };
    let n_bytes = 4 + 12 + tables.offset_bytes + 2 + tables.length_bytes + 4;
    let header = tables.read_sealed(header, n_bytes, b"BTHD")?;
    let mut cursor = tables.cursor(&header);
    let (version, kind, node_bytes) = (cursor.byte()?, cursor.byte()?, cursor.number(4)? as usize);
    let (record_bytes, depth) = (cursor.number(2)? as usize, cursor.number(2)? as u16);
    cursor.take(2)?;
    let (root, n_records) = (cursor.address()?, cursor.number(2)? as usize);
    let plain_bytes = tables.offset_bytes + 8 * grid.counts.len();
    let is_kind = match kind {
        10 => record_bytes == plain_bytes,
        11 => (plain_bytes + 5..=plain_bytes + 12).contains(&record_bytes),
        _ => false,
    };
    if version != 0 || !is_kind || depth > MOST_LEVELS {
        return Err(NOT_THE_INDEX);
    }
    let Some(root) = root else { return Ok(()) };
    let tree = Tree2::of(tables, kind, node_bytes, record_bytes, depth)?;
    tree.node(tables, root, n_records, depth, grid)
}

impl Tree2 {
    fn of(tables: &Tables, kind: u8, node_bytes: usize, record_bytes: usize, depth: u16) -> Found<Tree2> {
        /// Signature, version, kind and checksum.
        const AROUND: usize = 10;
        let bytes_for = |most: u64| (most.max(1).ilog2() as usize) / 8 + 1;
        let most_in_leaf = node_bytes.saturating_sub(AROUND) / record_bytes;
        let count_bytes = bytes_for(most_in_leaf as u64);
        let (mut most_below, mut total_bytes) = (most_in_leaf as u64, vec![0]);
        for height in 1..=usize::from(depth) {
            let child_bytes = tables.offset_bytes + count_bytes + total_bytes[height - 1];
            let most_here = node_bytes.saturating_sub(AROUND + child_bytes) / (record_bytes + child_bytes);
            let most = most_below.checked_mul(most_here as u64 + 1).and_then(|n| n.checked_add(most_here as u64));
            most_below = most.ok_or("its index is too deep")?;
            total_bytes.push(bytes_for(most_below));
        }
        Ok(Tree2 { kind, node_bytes, record_bytes, count_bytes, total_bytes })
    }

    /// One node and those below it. `height`: 0 for a leaf.
    fn node(&self, tables: &mut Tables, address: u64, n_records: usize, height: u16, grid: &mut Grid) -> Found<()> {
        let child_bytes = match usize::from(height) {
            0 => 0,
            height => tables.offset_bytes + self.count_bytes + self.total_bytes[height - 1],
        };
        let signature = if height == 0 { b"BTLF" } else { b"BTIN" };
        let n_children = if height == 0 { 0 } else { n_records + 1 };
        let n_bytes = 4 + 2 + n_records * self.record_bytes + n_children * child_bytes + 4;
        // With nothing in it, a node of a file that is a circle would cost nothing.
        if n_bytes > self.node_bytes || n_records == 0 && height < self.total_bytes.len() as u16 - 1 {
            return Err(NOT_THE_INDEX);
        }
        let node = tables.read_sealed(address, n_bytes, signature)?;
        let mut cursor = tables.cursor(&node);
        if cursor.byte()? != 0 || cursor.byte()? != self.kind {
            return Err(NOT_THE_INDEX);
        }
        for _ in 0..n_records {
            self.record(cursor.take(self.record_bytes)?, tables, grid)?;
        }
        for _ in 0..n_children {
            let child = cursor.address()?.ok_or("its index has a child without address")?;
            let n_records = cursor.number(self.count_bytes)? as usize;
            cursor.take(child_bytes - tables.offset_bytes - self.count_bytes)?;
            self.node(tables, child, n_records, height - 1, grid)?;
        }
        Ok(())
    }

    fn record(&self, record: &[u8], tables: &Tables, grid: &mut Grid) -> Found<()> {
        let n_axes = grid.counts.len();
        let mut cursor = tables.cursor(record);
        let address = cursor.address()?;
        let (mut stored_bytes, mut mask) = (grid.chunk_bytes, 0);
        if self.kind == 11 {
            stored_bytes = cursor.number(self.record_bytes - tables.offset_bytes - 4 - 8 * n_axes)?;
            mask = cursor.word()?;
        }
        let at: Vec<u64> = (0..n_axes).map(|_| cursor.number(8)).collect::<Found<_>>()?;
        grid.put(&at, Entry { address, stored_bytes, mask })
    }
}
