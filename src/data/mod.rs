//! # data — rows on disk to rows in memory
//!
//! In:    HDF5 files (or arrays), and which rows are wanted.
//! Out:   [`Block`]s of rows, the [`Schema`] of a table, sums that merge (moments, digests).
//! Talks: never.
//! Never: ranks (except as numbers, in [`partition`]), losses, models.

pub mod binned;
mod block;
mod canonical;
pub mod convert;
pub mod copies;
pub mod crew;
#[cfg(test)]
pub(crate) mod damage;
pub mod describe;
pub mod digest;
pub mod files;
pub mod hdf5;
mod image;
pub mod memory;
pub mod moments;
pub mod names;
pub(crate) mod pages;
pub mod partition;
pub mod scratch;
pub mod sketch;
mod sparse;
pub mod synthetic;

pub use self::hdf5::TableIndex;
pub use self::image::Image;
pub use self::sparse::{SparseRows, ValueCount};

use crate::error::Result;
use std::ops::Range;

/// What a column holds, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ColumnKind {
    /// A number that f32 holds exactly (8 and 16-bit integers, bool, float16, float32).
    Narrow,
    /// A number that f32 may round (32 and 64-bit integers, float64).
    Wide,
    /// A string: a category.
    Text,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Column {
    /// `X[3]`, or the dataset's name for 1-D columns, or the name from the dataset's attribute.
    pub name: String,
    pub kind: ColumnKind,
}

/// How the target is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TargetKind {
    Integer,
    Bool,
    Float,
    Text,
}

/// What is known of a table before any row is read.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Schema {
    pub n_rows: u64,
    /// Row of the files that is row 0 here, for messages.
    pub first_file_row: u64,
    pub columns: Vec<Column>,
    /// Values that are 0 are not stored: blocks hold [`Values::Sparse`].
    pub is_sparse: bool,
    /// The shape of each row, where all columns come from one dataset of images. None too for tables in memory.
    pub image: Option<Image>,
    /// None for a table that is only predicted on.
    pub target: Option<TargetKind>,
    /// One for each number that a row's target has: several are numbers to be predicted together. None without a target.
    pub target_names: Vec<String>,
    pub has_weight: bool,
    pub has_offset: bool,
}

/// Values of the numeric columns of some rows: dense ones row-major (rows, numeric columns).
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Of a table whose [`Schema::is_sparse`], whatever the width of its columns.
    Sparse(SparseRows<f64>),
}

/// Targets of some rows, as stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    None,
    /// (rows, targets), row-major.
    Number(Vec<f64>),
    /// One a row.
    Text(Vec<String>),
}

/// A run of rows as the source stores them; reused from read to read.
#[derive(Clone, Debug)]
pub struct Block {
    pub first_row: u64,
    /// Row of the files that `first_row` is, for messages: another one where only some rows of a table are taken.
    pub first_file_row: u64,
    pub n_rows: usize,
    /// −0 is +0 and there is one NaN. `F64` when any numeric column is [`ColumnKind::Wide`].
    pub values: Values,
    /// Per text column (in the schema's order), one string a row.
    pub text: Vec<Vec<String>>,
    pub target: Targets,
    pub weight: Option<Vec<f64>>,
    pub offset: Option<Vec<f64>>,
}

/// A table that can be read by rows. Implemented over HDF5 files and over arrays.
pub trait DataSource: Send {
    fn schema(&self) -> &Schema;
    /// Replaces `into` with these global rows. Not collective. Errors name file and dataset.
    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()>;
    /// The same without features, which are then whatever they were: targets, weights and offsets. Not collective.
    fn read_labels(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        self.read(rows, into)
    }
    /// How many values these blocks of rows have. Not collective. Errors: sparse rows that cannot be read.
    fn count_values(&mut self, blocks: &[Range<u64>]) -> Result<ValueCount> {
        Ok(ValueCount::dense(blocks, self.schema().columns.len()))
    }
    /// Rows that are decoded together, about: reads that begin and end near multiples of it decode little that they do not ask for.
    fn chunk_rows(&self) -> u64 {
        1
    }
    /// Another reader of the same table for another thread, which shares with this one only what never changes. None: there is only
    /// this one. Not collective.
    fn another(&self) -> Option<Box<dyn DataSource>> {
        None
    }
    /// Takes no more than about this for what it holds between and during reads. Not collective.
    fn limit_memory(&mut self, _bytes: u64) {}
    /// Puts what takes time to decode of these rows into files in `folder`, from where it is then read. Not collective.
    fn decode_to(&mut self, _folder: &std::path::Path, _rows: Range<u64>) -> Result<()> {
        Ok(())
    }
}
