//! Tables in HDF5 files, as they are found.
//!
//! ```text
//! names typed ──find, contents──► datasets and fields ──field, table──► TableIndex, made by one rank and broadcast
//! TableIndex ──source──► rows ──read──► bytes ──stored_rows, filters──► blocks
//!                                          ├── strings of any length: descriptors, then what those lead to (text_rows, heap)
//!                                          └── what the index cannot describe: through the HDF5 library (library)
//! ```
//! `sound` opens datasets and looks at what the library would follow into the heap, where it crashes on a damaged file (`form`: what
//! such values are in the file). `index` finds chunks in the file's own structures; `sparse` is for matrices of which zeros are not stored; `write`, `copy` and
//! `repack` are for what makes tables.

pub(crate) mod advice;
pub(crate) mod chunks;
#[allow(unsafe_code)] // macros around calls of the HDF5 library
pub(crate) mod compound;
pub(crate) mod contents;
#[allow(unsafe_code)] // calls of the HDF5 library that its crate does not wrap
mod copy;
mod field;
#[cfg(test)]
mod filtered_tests;
mod filters;
pub(crate) mod find;
#[allow(unsafe_code)] // calls of the HDF5 library that its crate does not wrap
mod form;
mod heap;
mod index;
#[allow(unsafe_code)] // calls of the HDF5 library that its crate does not wrap
pub(crate) mod library;
mod other_files;
pub(crate) mod read;
mod records;
pub mod repack;
pub(crate) mod sound;
mod source;
mod sparse;
mod stored_rows;
mod table;
mod text_rows;
#[allow(unsafe_code)] // calls of the HDF5 library that its crate does not wrap
pub(crate) mod types;
pub(crate) mod write;

pub(crate) use field::Whole;
pub use source::Hdf5Source;
pub use table::TableIndex;
pub(crate) use types::reason;
