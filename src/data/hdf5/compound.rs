//! The fields of compound datasets: what tables of h5py, PyTables and pandas are made of.

use super::records::Window;
use super::types::{Element, member_names, stored_bytes};
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
    /// Byte of the element at which it begins.
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
        let n_values = self.dims.iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
        let n_bytes = usize::try_from(n_values).ok()?.checked_mul(element_bytes)?;
        Some(Window { offset: self.offset, n_bytes, element_bytes, big_endian })
    }
}

/// The fields of a compound dataset in the order stored. Empty for every other dataset.
pub(crate) fn fields_of(dataset: &Dataset) -> Vec<Member> {
    let mut members = Vec::new();
    if let Ok(dtype) = dataset.dtype() {
        add_members(&dtype, &[], 0, &mut members);
    }
    members
}

/// Types inside types are looked into no deeper.
const MAX_TYPE_DEPTH: usize = 8;

fn add_members(dtype: &Datatype, outer: &[String], start: usize, members: &mut Vec<Member>) {
    if hdf5::h5lock!(H5Tget_class(dtype.id())) != H5T_class_t::H5T_COMPOUND {
        return;
    }
    for (index, name) in member_names(dtype).into_iter().enumerate() {
        let index = index as u32;
        let of: hdf5::Result<Datatype> = hdf5::h5lock!(hdf5::from_id(H5Tget_member_type(dtype.id(), index)));
        let Ok(of) = of else { continue };
        let offset = start + hdf5::h5lock!(H5Tget_member_offset(dtype.id(), index));
        let names = [outer, &[name]].concat();
        match hdf5::h5lock!(H5Tget_class(of.id())) {
            H5T_class_t::H5T_COMPOUND if outer.len() < MAX_TYPE_DEPTH => add_members(&of, &names, offset, members),
            H5T_class_t::H5T_ARRAY => {
                if let Some((dims, dtype)) = array_of(&of) {
                    members.push(Member { names, offset, dims, dtype });
                }
            }
            _ => members.push(Member { names, offset, dims: Vec::new(), dtype: of }),
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
