//! The calls into the HDF5 C library that write or copy what its safe crate cannot: chunks as they are stored.

use hdf5::Dataset;
use hdf5_sys::h5d::H5Dwrite_chunk;
use hdf5_sys::h5p::H5P_DEFAULT;

/// Stores the chunk that begins at the element `begin`: its bytes have been through the dataset's filters already, but for
/// those whose bit is set in `mask`.
pub(crate) fn write_chunk(dataset: &Dataset, begin: &[u64], mask: u32, bytes: &[u8]) -> hdf5::Result<()> {
    if begin.len() != dataset.ndim() {
        return Err("a chunk of other axes than its dataset".into());
    }
    // SAFETY: `begin` has one entry per axis (checked), and the library reads `bytes.len()` bytes of `bytes`.
    unsafe {
        hdf5::sync::sync(|| {
            let buffer = bytes.as_ptr().cast();
            hdf5::h5check(H5Dwrite_chunk(dataset.id(), H5P_DEFAULT, mask, begin.as_ptr(), bytes.len(), buffer))
        })
    }
    .map(|_| ())
}
