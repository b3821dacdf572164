//! What values with parts of any length are in the file, and how to get them from the HDF5 library as they are there: it follows their
//! descriptors into the heap and crashes on a damaged one.
//!
//! The library converts what it reads to the type that is asked for. To it descriptors are taught here to be opaque bytes: a conversion
//! that leaves them as they are. Source: HDF5 reference manual, H5Tregister.

use super::compound::{MAX_TYPE_DEPTH, member_type, offsets_in_file};
use super::types::{is_any_length, member_names};
use hdf5::Datatype;
use hdf5_sys::h5a::H5Aread;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5t::{
    H5T_CONV_INIT, H5T_VARIABLE, H5T_bkg_t, H5T_cdata_t, H5T_class_t, H5T_pers_t, H5Tarray_create2, H5Tcopy, H5Tcreate,
    H5Tget_array_dims2, H5Tget_array_ndims, H5Tget_class, H5Tget_size, H5Tget_super, H5Tget_tag, H5Tinsert,
    H5Tregister, H5Tset_size, H5Tset_tag,
};
use std::ffi::{CStr, CString};
use std::os::raw::{c_int, c_void};
use std::sync::OnceLock;

/// A type of value in the file.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) n_bytes: usize,
    pub(crate) holds: Holds,
}

#[derive(Debug)]
pub(crate) enum Holds {
    /// Nothing of any length.
    Itself,
    /// The descriptor of a string.
    Text,
    /// The descriptor of a list.
    List(Box<Form>),
    /// Several of the same kind, along these axes.
    Values(Vec<u64>, Box<Form>),
    /// Those fields that have parts of any length, and at which byte each begins.
    Fields(Vec<(CString, usize, Form)>),
}

impl Form {
    /// Of values of this type. None: types inside types too deep, or such whose parts do not fit into them, as in a damaged file: the
    /// library goes by what they say.
    pub(crate) fn of(dtype: &Datatype, descriptor_bytes: usize) -> Option<Form> {
        Form::at_depth(dtype, descriptor_bytes, 0)
    }

    fn at_depth(dtype: &Datatype, descriptor_bytes: usize, depth: usize) -> Option<Form> {
        if depth > MAX_TYPE_DEPTH {
            return None;
        }
        let inner = |of: &Datatype| Form::at_depth(of, descriptor_bytes, depth + 1);
        let base = || -> Option<Datatype> { hdf5::h5lock!(hdf5::from_id(H5Tget_super(dtype.id()))).ok() };
        let itself = Form { n_bytes: dtype.size(), holds: Holds::Itself };
        match hdf5::h5lock!(H5Tget_class(dtype.id())) {
            H5T_class_t::H5T_VLEN => {
                Some(Form { n_bytes: descriptor_bytes, holds: Holds::List(Box::new(inner(&base()?)?)) })
            }
            H5T_class_t::H5T_STRING if is_any_length(dtype) => {
                // A list of bytes to the library, which counts them by the type that is said to be in it.
                (base()?.size() == 1).then_some(Form { n_bytes: descriptor_bytes, holds: Holds::Text })
            }
            H5T_class_t::H5T_ARRAY => {
                let base = base()?;
                let of = inner(&base)?;
                let axes = axes_of(dtype)?;
                let n_values = axes.iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
                let n_values = usize::try_from(n_values).ok()?;
                let n_bytes = n_values.checked_mul(of.n_bytes)?;
                if n_values.checked_mul(base.size()) != Some(dtype.size()) {
                    return None;
                }
                let holds = match of.holds {
                    Holds::Itself => Holds::Itself,
                    _ => Holds::Values(axes, Box::new(of)),
                };
                Some(Form { n_bytes, holds })
            }
            H5T_class_t::H5T_COMPOUND => {
                let names = member_names(dtype);
                let offsets = offsets_in_file(dtype, names.len(), descriptor_bytes)?;
                let (mut n_bytes, mut fields) = (dtype.size(), Vec::new());
                let mut ends = std::collections::BTreeMap::new();
                for ((index, name), offset) in names.into_iter().enumerate().zip(offsets) {
                    let of = member_type(dtype, index as u32)?;
                    let form = inner(&of)?;
                    // Several of no bytes cannot be in the same place either.
                    if ends.insert(offset, offset.checked_add(form.n_bytes)?).is_some() {
                        return None;
                    }
                    n_bytes = (n_bytes + form.n_bytes).checked_sub(of.size())?;
                    if !matches!(form.holds, Holds::Itself) {
                        fields.push((CString::new(name).ok()?, offset, form));
                    }
                }
                let in_order: Vec<(usize, usize)> = ends.into_iter().collect();
                let do_fit = in_order.windows(2).all(|two| two[0].1 <= two[1].0);
                if !do_fit || in_order.last().is_some_and(|(_, end)| *end > n_bytes) {
                    return None;
                }
                let holds = if fields.is_empty() { Holds::Itself } else { Holds::Fields(fields) };
                Some(Form { n_bytes, holds })
            }
            _ => Some(itself),
        }
    }

    pub(crate) fn has_descriptors(&self) -> bool {
        !matches!(self.holds, Holds::Itself)
    }

    /// The type to ask the library for, so that descriptors come as they are; of what has no descriptors nothing comes.
    pub(crate) fn as_stored(&self) -> hdf5::Result<Datatype> {
        match &self.holds {
            Holds::Itself => Err("nothing of any length".into()),
            Holds::Text | Holds::List(_) => descriptor_type(self.n_bytes),
            Holds::Values(axes, of) => {
                let of = of.as_stored()?;
                hdf5::h5lock!(hdf5::from_id(hdf5::h5check(H5Tarray_create2(
                    of.id(),
                    axes.len() as u32,
                    axes.as_ptr()
                ))?))
            }
            Holds::Fields(fields) => {
                let made = hdf5::h5lock!(hdf5::h5check(H5Tcreate(H5T_class_t::H5T_COMPOUND, self.n_bytes)))?;
                let made: Datatype = hdf5::h5lock!(hdf5::from_id(made))?;
                for (name, offset, form) in fields {
                    let of = form.as_stored()?;
                    hdf5::h5lock!(hdf5::h5check(H5Tinsert(made.id(), name.as_ptr(), *offset, of.id())))?;
                }
                Ok(made)
            }
        }
    }
}

fn axes_of(dtype: &Datatype) -> Option<Vec<u64>> {
    let n_axes = hdf5::h5lock!(H5Tget_array_ndims(dtype.id()));
    let mut axes = vec![0u64; usize::try_from(n_axes).ok()?];
    // There is room for as many axes as the type has.
    (hdf5::h5lock!(H5Tget_array_dims2(dtype.id(), axes.as_mut_ptr())) >= 0).then_some(axes)
}

/// The values of an attribute as they are in the file, of this form.
pub(crate) fn attribute_as_stored(attribute: &hdf5::Attribute, form: &Form) -> hdf5::Result<Vec<u8>> {
    const MOST_BYTES: usize = 1 << 30;
    let n_bytes = attribute.size().checked_mul(form.n_bytes).filter(|&n| n <= MOST_BYTES).ok_or("it is too large")?;
    let dtype = form.as_stored()?;
    if dtype.size() != form.n_bytes {
        return Err("its type has another size in the file".into());
    }
    let mut bytes = vec![0u8; n_bytes];
    let buffer: *mut c_void = bytes.as_mut_ptr().cast();
    // As many values of that type as the buffer has room for.
    hdf5::h5lock!(hdf5::h5check(H5Aread(attribute.id(), dtype.id(), buffer)))?;
    Ok(bytes)
}

const TAG: &CStr = c"a descriptor of something of any length, as stored";

/// The type of a descriptor as it is in the file.
pub(crate) fn descriptor_type(n_bytes: usize) -> hdf5::Result<Datatype> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let made = hdf5::h5lock!(hdf5::h5check(H5Tcreate(H5T_class_t::H5T_OPAQUE, n_bytes)))?;
    let opaque: Datatype = hdf5::h5lock!(hdf5::from_id(made))?;
    hdf5::h5lock!(hdf5::h5check(H5Tset_tag(opaque.id(), TAG.as_ptr())))?;
    let register = || -> hdf5::Result<()> {
        let text = hdf5::h5lock!(hdf5::h5check(H5Tcopy(*hdf5::globals::H5T_C_S1)))?;
        let text: Datatype = hdf5::h5lock!(hdf5::from_id(text))?;
        hdf5::h5lock!(hdf5::h5check(H5Tset_size(text.id(), H5T_VARIABLE)))?;
        // To the library strings of any length are lists of that: it asks for both.
        let (name, soft) = (c"descriptors as stored", H5T_pers_t::H5T_PERS_SOFT);
        hdf5::h5lock!(hdf5::h5check(H5Tregister(soft, name.as_ptr(), text.id(), opaque.id(), Some(leave))))?;
        Ok(())
    };
    match *KNOWN.get_or_init(|| register().is_ok()) {
        true => Ok(opaque),
        false => Err("the HDF5 library does not take a conversion of descriptors".into()),
    }
}

/// The conversion: values are left as they are. The library asks first whether it is one from this type to that.
extern "C" fn leave(
    from: hid_t,
    to: hid_t,
    conversion: *mut H5T_cdata_t,
    _n: usize,
    _stride: usize,
    _other_stride: usize,
    _values: *mut c_void,
    _others: *mut c_void,
    _options: hid_t,
) -> c_int {
    // SAFETY: called by the library, which passes a conversion of its own and two types, and gives the tag as a string to be freed.
    unsafe {
        if (*conversion).command != H5T_CONV_INIT {
            return 0;
        }
        (*conversion).need_bkg = H5T_bkg_t::H5T_BKG_NO;
        if H5Tget_class(to) != H5T_class_t::H5T_OPAQUE || H5Tget_size(from) != H5Tget_size(to) {
            return -1;
        }
        let tag = H5Tget_tag(to);
        if tag.is_null() {
            return -1;
        }
        let is_ours = CStr::from_ptr(tag) == TAG;
        hdf5_sys::h5::H5free_memory(tag.cast());
        if is_ours { 0 } else { -1 }
    }
}
