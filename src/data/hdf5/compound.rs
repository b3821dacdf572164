//! The fields of compound datasets: what tables of h5py, PyTables and pandas are made of.

use super::records::Window;
use super::types::{Element, is_any_length, member_names, stored_bytes};
use crate::error::Result;
use hdf5::{Dataset, Datatype};
use hdf5_sys::h5t::{
    H5T_class_t, H5Tget_array_dims2, H5Tget_array_ndims, H5Tget_class, H5Tget_member_offset, H5Tget_member_type,
    H5Tget_super,
};

/// A field of a compound type.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The last is its own; those before are of the fields that it is inside of, outermost first.
    pub(crate) names: Vec<String>,
    /// Byte of the stored element at which it begins.
    pub(crate) offset: usize,
    /// Axes of a field that holds an array; empty for one value.
    pub(crate) dims: Vec<u64>,
    /// Of one value.
    pub(crate) dtype: Datatype,
}

impl Member {
    /// Fields of a field that is compound itself are called `outer/inner`.
    pub(crate) fn name(&self) -> String {
        self.names.join("/")
    }

    /// What one value of it is, or why it cannot be a column.
    pub(crate) fn element(&self) -> Result<Element> {
        Element::of(&self.dtype)
    }

    /// Where its values lie in an element of the dataset, if they are stored as numbers or strings are in memory.
    pub(crate) fn window(&self) -> Option<Window> {
        let (element_bytes, big_endian) = stored_bytes(&self.dtype)?;
        self.window_of(element_bytes, big_endian)
    }

    /// Where the descriptors of its values lie, if those are strings of any length.
    pub(crate) fn descriptors(&self, descriptor_bytes: usize) -> Option<Window> {
        is_any_length(&self.dtype).then(|| self.window_of(descriptor_bytes, false))?
    }

    fn window_of(&self, element_bytes: usize, big_endian: bool) -> Option<Window> {
        let n_values = self.dims.iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
        let n_bytes = usize::try_from(n_values).ok()?.checked_mul(element_bytes)?;
        Some(Window { offset: self.offset, n_bytes, element_bytes, big_endian })
    }
}

/// The fields of a compound dataset in the order stored. Empty for every other dataset.
pub(crate) fn fields_of(dataset: &Dataset) -> Vec<Member> {
    let mut members = Vec::new();
    if let Ok(dtype) = dataset.dtype() {
        add_members(&dtype, &[], 0, descriptor_bytes_of(dataset), &mut members);
    }
    members
}

/// Bytes of a descriptor of a list or string of any length in the dataset's file: a length, an address and a number.
fn descriptor_bytes_of(dataset: &Dataset) -> usize {
    let sizes = dataset.file().and_then(|file| file.fcpl()).map(|create| create.sizes());
    8 + sizes.map_or(8, |sizes| sizes.sizeof_addr as usize)
}

/// What an element of a type is in the file, of which the library tells only how it would be in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFile {
    pub(crate) n_bytes: usize,
    /// Some of it has any length and lies elsewhere: here are descriptors of its place, where in memory are pointers.
    pub(crate) has_descriptors: bool,
}

impl InFile {
    /// None: types inside types too deep.
    pub(crate) fn of(dtype: &Datatype, descriptor_bytes: usize) -> Option<InFile> {
        InFile::at_depth(dtype, descriptor_bytes, 0)
    }

    fn at_depth(dtype: &Datatype, descriptor_bytes: usize, depth: usize) -> Option<InFile> {
        if depth > MAX_TYPE_DEPTH {
            return None;
        }
        let as_in_memory = InFile { n_bytes: dtype.size(), has_descriptors: false };
        match hdf5::h5lock!(H5Tget_class(dtype.id())) {
            H5T_class_t::H5T_VLEN => Some(InFile { n_bytes: descriptor_bytes, has_descriptors: true }),
            H5T_class_t::H5T_STRING if is_any_length(dtype) => {
                Some(InFile { n_bytes: descriptor_bytes, has_descriptors: true })
            }
            H5T_class_t::H5T_ARRAY => {
                let of: Datatype = hdf5::h5lock!(hdf5::from_id(H5Tget_super(dtype.id()))).ok()?;
                let n_values = dtype.size().checked_div(of.size())?;
                let of = InFile::at_depth(&of, descriptor_bytes, depth + 1)?;
                Some(InFile { n_bytes: n_values.checked_mul(of.n_bytes)?, has_descriptors: of.has_descriptors })
            }
            H5T_class_t::H5T_COMPOUND => {
                let mut all = as_in_memory;
                for index in 0..member_names(dtype).len() as u32 {
                    let of = member_type(dtype, index)?;
                    let in_file = InFile::at_depth(&of, descriptor_bytes, depth + 1)?;
                    all.n_bytes = (all.n_bytes + in_file.n_bytes).checked_sub(of.size())?;
                    all.has_descriptors |= in_file.has_descriptors;
                }
                Some(all)
            }
            _ => Some(as_in_memory),
        }
    }
}

pub(super) fn member_type(dtype: &Datatype, index: u32) -> Option<Datatype> {
    hdf5::h5lock!(hdf5::from_id(H5Tget_member_type(dtype.id(), index))).ok()
}

/// Types inside types are looked into no deeper.
pub(super) const MAX_TYPE_DEPTH: usize = 8;

fn add_members(dtype: &Datatype, outer: &[String], start: usize, descriptor_bytes: usize, members: &mut Vec<Member>) {
    if hdf5::h5lock!(H5Tget_class(dtype.id())) != H5T_class_t::H5T_COMPOUND {
        return;
    }
    let names = member_names(dtype);
    let Some(offsets) = offsets_in_file(dtype, names.len(), descriptor_bytes) else { return };
    for ((index, name), offset) in names.into_iter().enumerate().zip(offsets) {
        let Some(of) = member_type(dtype, index as u32) else { continue };
        let offset = start + offset;
        let names = [outer, &[name]].concat();
        match hdf5::h5lock!(H5Tget_class(of.id())) {
            H5T_class_t::H5T_COMPOUND if outer.len() < MAX_TYPE_DEPTH => {
                add_members(&of, &names, offset, descriptor_bytes, members);
            }
            H5T_class_t::H5T_ARRAY => {
                if let Some((dims, dtype)) = array_of(&of) {
                    members.push(Member { names, offset, dims, dtype });
                }
            }
            _ => members.push(Member { names, offset, dims: Vec::new(), dtype: of }),
        }
    }
}

/// Where the members of a compound type begin in the file: the library tells where they would in memory, where those of
/// any length take other bytes and move all that come after them.
pub(super) fn offsets_in_file(dtype: &Datatype, n_members: usize, descriptor_bytes: usize) -> Option<Vec<usize>> {
    let mut offsets: Vec<usize> =
        (0..n_members).map(|index| hdf5::h5lock!(H5Tget_member_offset(dtype.id(), index as u32))).collect();
    let mut in_order: Vec<usize> = (0..n_members).collect();
    in_order.sort_by_key(|&index| offsets[index]);
    let (mut longer, mut shorter) = (0, 0);
    for index in in_order {
        offsets[index] = (offsets[index] + longer).checked_sub(shorter)?;
        let of = member_type(dtype, index as u32)?;
        longer += InFile::of(&of, descriptor_bytes).map_or(of.size(), |in_file| in_file.n_bytes);
        shorter += of.size();
    }
    Some(offsets)
}

/// The axes of an array type, outer ones first, and the type of its values.
fn array_of(dtype: &Datatype) -> Option<(Vec<u64>, Datatype)> {
    let mut axes = Vec::new();
    let mut of = dtype.clone();
    while hdf5::h5lock!(H5Tget_class(of.id())) == H5T_class_t::H5T_ARRAY {
        let n_axes = hdf5::h5lock!(H5Tget_array_ndims(of.id()));
        let mut dims = vec![0u64; usize::try_from(n_axes).ok()?];
        // There is room for as many axes as the type has.
        let read = hdf5::h5lock!(H5Tget_array_dims2(of.id(), dims.as_mut_ptr()));
        if read < 0 || axes.len() > MAX_TYPE_DEPTH {
            return None;
        }
        axes.append(&mut dims);
        of = hdf5::h5lock!(hdf5::from_id(H5Tget_super(of.id()))).ok()?;
    }
    Some((axes, of))
}
