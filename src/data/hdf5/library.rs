//! Rows of a dataset through the HDF5 library: the way of whatever its index cannot describe. One thread at a time.

use super::compound::Member;
use super::form::Form;
use super::sound::heap_of;
use super::types::{Element, reason};
use crate::error::{Error, Result};
use hdf5::{Dataset, Datatype};
use hdf5_sys::h5d::{H5Dread, H5Dvlen_reclaim};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5s::{H5S_seloper_t, H5Sselect_hyperslab};
use hdf5_sys::h5t::{H5T_class_t, H5Tarray_create2, H5Tcopy, H5Tcreate, H5Tget_size, H5Tinsert};
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::os::raw::{c_char, c_void};

/// The elements of a dataset, or one field of each.
pub(crate) struct LibraryRows {
    dataset: Dataset,
    shape: Vec<u64>,
    member: Option<Member>,
}

impl LibraryRows {
    /// `member`: a field of the dataset's compound type.
    pub(crate) fn new(dataset: Dataset, member: Option<Member>) -> LibraryRows {
        let shape = dataset.shape().iter().map(|&n| n as u64).collect();
        LibraryRows { dataset, shape, member }
    }

    pub(crate) fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Reads whole rows, converted to `T`: (rows, trailing axes of the dataset, axes of the field). Not collective.
    ///
    /// # Panics
    /// If `into` does not have that length.
    pub(crate) fn read_numbers<T: Native>(&self, rows: Range<u64>, into: &mut [T]) -> hdf5::Result<()> {
        assert_eq!(into.len(), self.n_values(&rows));
        let memory_type = self.memory_type(T::memory_type())?;
        // The library leaves alone what was never written and is never filled.
        into.fill(T::zeroed());
        // SAFETY: the length was just checked, and every bit pattern is a `T` (it is `Pod`).
        unsafe { self.read_into(rows, &memory_type, into.as_mut_ptr().cast()) }
    }

    /// Reads whole rows of fixed strings: as [`read_numbers`](Self::read_numbers), with `bytes` as last axis.
    pub(crate) fn read_fixed_text(&self, rows: Range<u64>, bytes: usize, into: &mut [u8]) -> Result<()> {
        assert_eq!(into.len(), self.n_values(&rows) * bytes);
        let failed = |e: hdf5::Error| Error::data(reason(&e));
        let dtype = self.value_type().map_err(failed)?;
        if dtype.size() != bytes {
            return Err(Error::data("its type changed while it was read"));
        }
        let memory_type = self.memory_type(dtype.id()).map_err(failed)?;
        into.fill(0);
        // SAFETY: the element size and the length were just checked.
        unsafe { self.read_into(rows, &memory_type, into.as_mut_ptr().cast()) }.map_err(failed)
    }

    /// Reads whole rows of strings of any length as bytes, one call of `each` per string.
    pub(crate) fn read_text(&self, rows: Range<u64>, mut each: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        let failed = |e: hdf5::Error| Error::data(reason(&e));
        let dtype = self.value_type().map_err(failed)?;
        if Element::of(&dtype)? != Element::Text {
            return Err(Error::data("its type changed while it was read"));
        }
        // Those of a virtual dataset lead into the heaps of other files, which were looked at before.
        if self.dataset.layout() == hdf5::dataset::Layout::Virtual {
            return self.read_virtual_text(rows, &dtype, each);
        }
        let heap = heap_of(&self.dataset, 8 << 20).map_err(Error::data)?;
        let form =
            Form::of(&dtype, heap.descriptor_bytes()).ok_or_else(|| Error::internal("strings without a form"))?;
        let n_values = self.n_values(&rows);
        let mut descriptors = vec![0u8; n_values * form.n_bytes];
        self.read_as_stored(rows.clone(), &form, &mut descriptors).map_err(failed)?;
        let width = (n_values as u64 / (rows.end - rows.start).max(1)).max(1);
        heap.read(&descriptors, &mut heap.allowance(n_values as u64), |index, text| match text {
            Ok(text) => each(index, text),
            Err(why) => {
                let row = rows.start + index as u64 / width;
                Err(Error::data(format!("the string at row {row} cannot be read: {why}")))
            }
        })
    }

    fn read_virtual_text(
        &self,
        rows: Range<u64>,
        dtype: &Datatype,
        mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let failed = |e: hdf5::Error| Error::data(reason(&e));
        let memory_type = self.memory_type(dtype.id()).map_err(failed)?;
        let n_values = self.n_values(&rows);
        let mut pointers: Vec<*mut c_char> = vec![std::ptr::null_mut(); n_values];
        // SAFETY: a value of this type is one pointer, and there are as many as values.
        unsafe { self.read_into(rows, &memory_type, pointers.as_mut_ptr().cast()) }.map_err(failed)?;
        let mut result = Ok(());
        for (index, &pointer) in pointers.iter().enumerate() {
            // SAFETY: HDF5 made each pointer null or a string that ends with a zero byte.
            let bytes = if pointer.is_null() { &[][..] } else { unsafe { CStr::from_ptr(pointer) }.to_bytes() };
            result = each(index, bytes);
            if result.is_err() {
                break;
            }
        }
        let space = hdf5::Dataspace::try_new(n_values).map_err(failed)?;
        // SAFETY: pointers of this type, from H5Dread with default memory management.
        unsafe {
            hdf5::sync::sync(|| H5Dvlen_reclaim(dtype.id(), space.id(), H5P_DEFAULT, pointers.as_mut_ptr().cast()));
        }
        result
    }

    /// Reads whole rows of values of this form as they are in the file: their descriptors, and zeros between.
    pub(crate) fn read_as_stored(&self, rows: Range<u64>, form: &Form, into: &mut [u8]) -> hdf5::Result<()> {
        let memory_type = self.memory_type(form.as_stored()?.id())?;
        let dims = self.member.as_ref().map_or(&[][..], |member| &member.dims);
        let value_bytes = form.n_bytes.checked_mul(dims.iter().product::<u64>() as usize);
        if value_bytes != Some(memory_type.size()) || self.n_values(&rows).checked_mul(form.n_bytes) != Some(into.len())
        {
            return Err("its type has another size in the file".into());
        }
        into.fill(0);
        // SAFETY: the length was just checked.
        unsafe { self.read_into(rows, &memory_type, into.as_mut_ptr().cast()) }
    }

    fn n_values(&self, rows: &Range<u64>) -> usize {
        let dims = self.member.as_ref().map_or(&[][..], |member| &member.dims);
        ((rows.end - rows.start) * self.shape.iter().skip(1).chain(dims).product::<u64>()) as usize
    }

    /// The type of one value.
    fn value_type(&self) -> hdf5::Result<Datatype> {
        match &self.member {
            None => self.dataset.dtype(),
            Some(member) => Ok(member.dtype.clone()),
        }
    }

    /// What an element is in memory: the values of the field alone, each of the type `value`.
    fn memory_type(&self, value: hid_t) -> hdf5::Result<Datatype> {
        let Some(member) = &self.member else { return hdf5::h5lock!(hdf5::from_id(H5Tcopy(value))) };
        let mut of: Datatype = match member.dims.len() {
            0 => hdf5::h5lock!(hdf5::from_id(H5Tcopy(value)))?,
            n_axes => hdf5::h5lock!(hdf5::from_id(H5Tarray_create2(value, n_axes as u32, member.dims.as_ptr())))?,
        };
        for name in member.names.iter().rev() {
            let name = CString::new(name.as_str()).map_err(|_| hdf5::Error::from("a name with a zero byte"))?;
            let outer: Datatype =
                hdf5::h5lock!(hdf5::from_id(H5Tcreate(H5T_class_t::H5T_COMPOUND, H5Tget_size(of.id()))))?;
            hdf5::h5lock!(hdf5::h5check(H5Tinsert(outer.id(), name.as_ptr(), 0, of.id())))?;
            of = outer;
        }
        Ok(of)
    }

    /// # Safety
    /// `buffer` must have room for the rows' elements in `memory_type`.
    unsafe fn read_into(&self, rows: Range<u64>, memory_type: &Datatype, buffer: *mut c_void) -> hdf5::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let file_space = self.dataset.space()?;
        if self.shape.is_empty() {
            let (dataset, memory_type, all) = (self.dataset.id(), memory_type.id(), hdf5_sys::h5s::H5S_ALL);
            // SAFETY: one element, for which the caller vouches.
            let read = || unsafe { H5Dread(dataset, memory_type, all, all, H5P_DEFAULT, buffer) };
            return hdf5::sync::sync(|| hdf5::h5check(read())).map(|_| ());
        }
        let mut count: Vec<u64> = self.shape.clone();
        let mut start = vec![0; count.len()];
        (start[0], count[0]) = (rows.start, rows.end - rows.start);
        if file_space.ndim() != count.len() {
            return Err("its shape changed while it was read".into());
        }
        let memory_shape: Vec<usize> = count.iter().map(|&n| n as usize).collect();
        let memory_space = hdf5::Dataspace::try_new(memory_shape)?;
        let (dataset, memory_type) = (self.dataset.id(), memory_type.id());
        // SAFETY: start and count have one entry per dimension (checked), rows outside the dataset make
        // H5Dread fail, and the caller vouches for the buffer.
        unsafe {
            hdf5::sync::sync(|| {
                hdf5::h5check(H5Sselect_hyperslab(
                    file_space.id(),
                    H5S_seloper_t::H5S_SELECT_SET,
                    start.as_ptr(),
                    std::ptr::null(),
                    count.as_ptr(),
                    std::ptr::null(),
                ))?;
                hdf5::h5check(H5Dread(dataset, memory_type, memory_space.id(), file_space.id(), H5P_DEFAULT, buffer))
            })
        }
        .map(|_| ())
    }
}

/// A number type that HDF5 can deliver: its memory type, and what becomes of it.
pub(crate) trait Native: bytemuck::Pod + Send + Sync {
    fn memory_type() -> hid_t;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    /// Of whole numbers; those from 2⁶³ on as their bits.
    fn to_i64(self) -> i64;
}

macro_rules! native {
    ($($number:ty: $id:ident),*) => {$(
        impl Native for $number {
            fn memory_type() -> hid_t { *hdf5::globals::$id }
            fn to_f32(self) -> f32 { self as f32 }
            fn to_f64(self) -> f64 { self as f64 }
            fn to_i64(self) -> i64 { self as i64 }
        }
    )*};
}

native!(
    i8: H5T_NATIVE_INT8, u8: H5T_NATIVE_UINT8, i16: H5T_NATIVE_INT16, u16: H5T_NATIVE_UINT16,
    i32: H5T_NATIVE_INT32, u32: H5T_NATIVE_UINT32, i64: H5T_NATIVE_INT64, u64: H5T_NATIVE_UINT64,
    f32: H5T_NATIVE_FLOAT, f64: H5T_NATIVE_DOUBLE
);

/// Read past the library only, whose releases before 1.14 have no such type: what it would deliver has the same length.
impl Native for half::f16 {
    fn memory_type() -> hid_t {
        *hdf5::globals::H5T_NATIVE_INT16
    }
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn to_i64(self) -> i64 {
        f32::from(self) as i64
    }
}

/// A byte of eight flags: HDF5 does not convert bit fields to integers.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BitByte(u8);

// SAFETY: a transparent wrapper of u8, of which every bit pattern is valid.
unsafe impl bytemuck::Zeroable for BitByte {}
unsafe impl bytemuck::Pod for BitByte {}

impl From<u8> for BitByte {
    fn from(bits: u8) -> BitByte {
        BitByte(bits)
    }
}

impl Native for BitByte {
    fn memory_type() -> hid_t {
        *hdf5::globals::H5T_NATIVE_B8
    }
    fn to_f32(self) -> f32 {
        f32::from(self.0)
    }
    fn to_f64(self) -> f64 {
        f64::from(self.0)
    }
    fn to_i64(self) -> i64 {
        i64::from(self.0)
    }
}
