//! The fields of compound datasets: what tables of h5py, PyTables and pandas are made of.

use super::types::{Element, member_names};
use crate::error::Result;
use hdf5::{Dataset, Datatype};
use hdf5_sys::h5t::{
    H5T_class_t, H5Tget_array_dims2, H5Tget_array_ndims, H5Tget_class, H5Tget_member_offset, H5Tget_member_type,
    H5Tget_super,
};

/// A field of a compound type. Fields of a field that is compound itself are called `outer/inner`.
#[derive(Clone, Debug)]
#[allow(dead_code)] // all but names are for reading fields
pub(crate) struct Member {
    pub(crate) name: String,
    /// Byte of the element at which it begins.
    pub(crate) offset: usize,
    /// Axes of a field that holds an array; empty for one value.
    pub(crate) dims: Vec<u64>,
    /// Of one value.
    pub(crate) dtype: Datatype,
}

#[allow(dead_code)] // for reading fields
impl Member {
    /// What one value of it is, or why it cannot be a column.
    pub(crate) fn element(&self) -> Result<Element> {
        Element::of(&self.dtype)
    }
}

/// The fields of a compound dataset in the order stored. Empty for every other dataset.
pub(crate) fn fields_of(dataset: &Dataset) -> Vec<Member> {
    let mut members = Vec::new();
    if let Ok(dtype) = dataset.dtype() {
        add_members(&dtype, "", 0, 0, &mut members);
    }
    members
}

/// Types inside types are looked into no deeper.
const MAX_TYPE_DEPTH: usize = 8;

fn add_members(dtype: &Datatype, outer: &str, start: usize, depth: usize, members: &mut Vec<Member>) {
    if hdf5::h5lock!(H5Tget_class(dtype.id())) != H5T_class_t::H5T_COMPOUND {
        return;
    }
    for (index, name) in member_names(dtype).into_iter().enumerate() {
        let index = index as u32;
        let of: hdf5::Result<Datatype> = hdf5::h5lock!(hdf5::from_id(H5Tget_member_type(dtype.id(), index)));
        let Ok(of) = of else { continue };
        let offset = start + hdf5::h5lock!(H5Tget_member_offset(dtype.id(), index));
        let name = if outer.is_empty() { name } else { format!("{outer}/{name}") };
        match hdf5::h5lock!(H5Tget_class(of.id())) {
            H5T_class_t::H5T_COMPOUND if depth < MAX_TYPE_DEPTH => add_members(&of, &name, offset, depth + 1, members),
            H5T_class_t::H5T_ARRAY => {
                if let Some((dims, dtype)) = array_of(&of) {
                    members.push(Member { name, offset, dims, dtype });
                }
            }
            _ => members.push(Member { name, offset, dims: Vec::new(), dtype: of }),
        }
    }
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
