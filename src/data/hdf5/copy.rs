//! The calls into the HDF5 C library that write or copy what its safe crate cannot: chunks as they are stored, objects and
//! attributes of one file in another.

use super::compound::fields_of;
use super::sound;
use super::types::{holds_references, reason, stored_bytes};
use crate::error::{Error, Result};
use hdf5::{Attribute, Dataset, Datatype, Group, IndexType, IterationOrder, LinkType, Location};
use hdf5_sys::h5a::{H5Aclose, H5Acreate2, H5Aread, H5Awrite};
use hdf5_sys::h5d::{H5Dcreate2, H5Dvlen_reclaim, H5Dwrite, H5Dwrite_chunk};
use hdf5_sys::h5l::{H5Lget_val, H5Lunpack_elink_val};
use hdf5_sys::h5o::{H5O_COPY_WITHOUT_ATTR_FLAG, H5Ocopy};
use hdf5_sys::h5p::{
    H5P_CLS_OBJECT_COPY, H5P_DEFAULT, H5Pclose, H5Pcopy, H5Pcreate, H5Premove_filter, H5Pset_chunk, H5Pset_copy_object,
    H5Pset_deflate, H5Pset_obj_track_times, H5Pset_shuffle,
};
use hdf5_sys::h5s::{H5S_seloper_t, H5Sselect_hyperslab};
use hdf5_sys::h5t::{H5T_class_t, H5Tcopy, H5Tget_class};
use hdf5_sys::h5z::H5Z_FILTER_ALL;
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_void};

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

/// What a name of a group is.
pub(crate) enum Link {
    Hard,
    /// To a path of the same file.
    Soft(String),
    /// To a path of another file.
    External(String, String),
}

/// The names of a group and what they are, bytewise.
pub(crate) fn links_of(group: &Group) -> hdf5::Result<Vec<(String, Link)>> {
    let mut found = Vec::new();
    group.iter_visit(IndexType::Name, IterationOrder::Increasing, |name, info| {
        found.push((name.to_string(), info.link_type));
        Ok(())
    })?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
        .into_iter()
        .map(|(name, kind)| {
            let link = match kind {
                LinkType::Hard => Link::Hard,
                LinkType::Soft => Link::Soft(text(&link_value(group, &name)?)?),
                LinkType::External => external(&link_value(group, &name)?)?,
            };
            Ok((name, link))
        })
        .collect()
}

/// The bytes of a link that is not hard, ended by a zero.
fn link_value(group: &Group, name: &str) -> hdf5::Result<Vec<u8>> {
    const LONGEST: usize = 1 << 16;
    let name = zero_ended(name)?;
    let mut value = vec![0u8; LONGEST + 1];
    // SAFETY: the library writes at most LONGEST bytes; the last stays zero.
    unsafe {
        hdf5::sync::sync(|| {
            hdf5::h5check(H5Lget_val(group.id(), name.as_ptr(), value.as_mut_ptr().cast(), LONGEST, H5P_DEFAULT))
        })
    }?;
    Ok(value)
}

fn external(value: &[u8]) -> hdf5::Result<Link> {
    let (mut file, mut object) = (std::ptr::null(), std::ptr::null());
    // SAFETY: the library points both into `value`, at strings that end before its last byte, which is zero.
    unsafe {
        hdf5::sync::sync(|| {
            let flags = std::ptr::null_mut();
            hdf5::h5check(H5Lunpack_elink_val(value.as_ptr().cast(), value.len(), flags, &mut file, &mut object))
        })?;
        if file.is_null() || object.is_null() {
            return Err("an external link without a place".into());
        }
        Ok(Link::External(text(CStr::from_ptr(file).to_bytes())?, text(CStr::from_ptr(object).to_bytes())?))
    }
}

fn text(bytes: &[u8]) -> hdf5::Result<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| "a link that is not UTF-8".into())
}

fn zero_ended(name: &str) -> hdf5::Result<CString> {
    CString::new(name).map_err(|_| "a name with a zero byte".into())
}

/// Copies a dataset or a named type as it is stored, without its attributes.
pub(crate) fn copy_object(from: &Group, to: &Group, name: &str) -> hdf5::Result<()> {
    let name = zero_ended(name)?;
    // SAFETY: the names outlive the call; the list is closed after use.
    unsafe {
        hdf5::sync::sync(|| {
            let options = hdf5::h5check(H5Pcreate(*H5P_CLS_OBJECT_COPY))?;
            let copied = hdf5::h5check(H5Pset_copy_object(options, H5O_COPY_WITHOUT_ATTR_FLAG)).and_then(|_| {
                let (from, to) = (from.id(), to.id());
                hdf5::h5check(H5Ocopy(from, name.as_ptr(), to, name.as_ptr(), options, H5P_DEFAULT))
            });
            H5Pclose(options);
            copied
        })
    }
    .map(|_| ())
}

/// Copies all attributes. Returns those that cannot be, such as references, which would lead nowhere, and why.
///
/// Errors: one is damaged.
pub(crate) fn copy_attributes(from: &Location, to: &Location) -> Result<Vec<(String, String)>> {
    sound::check_attributes(from).map_err(Error::data)?;
    let mut names = match from.attr_names() {
        Ok(names) => names,
        Err(e) => return Ok(vec![("all attributes".to_string(), reason(&e))]),
    };
    names.sort();
    let mut left_out = Vec::new();
    for name in names {
        let copied = from.attr(&name).map_err(|e| reason(&e)).map(|attribute| {
            sound::check_attribute(&attribute)
                .map_err(|why| Error::data(format!("its attribute '{name}' cannot be read: {why}")))?;
            Ok(copy_attribute(&attribute, to, &name))
        });
        let copied = match copied {
            Ok(checked) => checked?,
            Err(why) => Err(why),
        };
        if let Err(why) = copied {
            left_out.push((name, why));
        }
    }
    Ok(left_out)
}

/// Of an attribute that was checked.
fn copy_attribute(attribute: &Attribute, to: &Location, name: &str) -> std::result::Result<(), String> {
    let failed = |e: hdf5::Error| reason(&e);
    let dtype = attribute.dtype().map_err(failed)?;
    if holds_references(&dtype) {
        return Err("it refers to other objects of the file".to_string());
    }
    let space = attribute.space().map_err(failed)?;
    let zero_ended = zero_ended(name).map_err(failed)?;
    let n_bytes = attribute.size().checked_mul(dtype.size()).filter(|&n| n <= 1 << 30).ok_or("it is too large")?;
    let mut bytes = vec![0u8; n_bytes];
    // SAFETY: the buffer has room for the attribute in its own type; what the library allocated inside is given back to it.
    unsafe {
        hdf5::sync::sync(|| {
            let buffer: *mut c_void = bytes.as_mut_ptr().cast();
            let of_type = hdf5::h5check(H5Tcopy(dtype.id()))?;
            let of_type: Datatype = hdf5::from_id(of_type)?;
            hdf5::h5check(H5Aread(attribute.id(), of_type.id(), buffer))?;
            let made = H5Acreate2(to.id(), zero_ended.as_ptr(), of_type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT);
            let written = hdf5::h5check(made).and_then(|made| {
                let written = hdf5::h5check(H5Awrite(made, of_type.id(), buffer));
                H5Aclose(made);
                written
            });
            H5Dvlen_reclaim(of_type.id(), space.id(), H5P_DEFAULT, buffer);
            written
        })
    }
    .map(|_| ())
    .map_err(failed)
}

/// Whether the stored bytes of an element are all there is of it: no lists, strings of any length or references inside.
pub(crate) fn is_self_contained(dataset: &Dataset) -> bool {
    let Ok(dtype) = dataset.dtype() else { return false };
    match hdf5::h5lock!(H5Tget_class(dtype.id())) {
        H5T_class_t::H5T_COMPOUND => {
            let fields = fields_of(dataset);
            !fields.is_empty() && fields.iter().all(|field| field.window().is_some())
        }
        _ => stored_bytes(&dtype).is_some(),
    }
}

/// Makes an empty dataset of the type, shape, limits and fill value of another in chunks of their own, with shuffle (if wanted) and
/// deflate (level 1–9; None: none) as its only filters.
pub(crate) fn create_like(
    like: &Dataset,
    group: &Group,
    name: &str,
    chunk: &[u64],
    shuffle: bool,
    deflate: Option<u8>,
) -> hdf5::Result<Dataset> {
    let name = zero_ended(name)?;
    let (dtype, space, create) = (like.dtype()?, like.space()?, like.dcpl()?);
    // SAFETY: `chunk` has as many entries as its length says; ids are closed or become handles that close them.
    unsafe {
        hdf5::sync::sync(|| {
            let of_type: Datatype = hdf5::from_id(hdf5::h5check(H5Tcopy(dtype.id()))?)?;
            let list = hdf5::h5check(H5Pcopy(create.id()))?;
            let set = || -> hdf5::Result<()> {
                hdf5::h5check(H5Premove_filter(list, H5Z_FILTER_ALL))?;
                hdf5::h5check(H5Pset_chunk(list, chunk.len() as i32, chunk.as_ptr()))?;
                hdf5::h5check(H5Pset_obj_track_times(list, 0))?;
                if shuffle {
                    hdf5::h5check(H5Pset_shuffle(list))?;
                }
                if let Some(level) = deflate {
                    hdf5::h5check(H5Pset_deflate(list, level.into()))?;
                }
                Ok(())
            };
            let made = set().and_then(|()| {
                let (group, default) = (group.id(), H5P_DEFAULT);
                hdf5::h5check(H5Dcreate2(group, name.as_ptr(), of_type.id(), space.id(), default, list, default))
            });
            H5Pclose(list);
            hdf5::from_id(made?)
        })
    }
}

/// Writes whole rows of strings of any length to a dataset of such strings.
///
/// # Panics
/// If these are not whole rows.
pub(crate) fn write_texts(to: &Dataset, first_row: u64, texts: &[CString]) -> hdf5::Result<()> {
    let (shape, dtype, space) = (to.shape(), to.dtype()?, to.space()?);
    let width = shape[1..].iter().product::<usize>();
    assert!(width > 0 && texts.len().is_multiple_of(width), "{} strings in rows of {width}", texts.len());
    let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let mut start = vec![0u64; shape.len()];
    start[0] = first_row;
    let mut count: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    count[0] = (texts.len() / width) as u64;
    let in_memory = hdf5::Dataspace::try_new(texts.len())?;
    // SAFETY: the selection has one entry an axis; there are as many pointers as it selects elements, each to a string that ends with
    // a zero byte and outlives the call.
    unsafe {
        hdf5::sync::sync(|| {
            let of_type: Datatype = hdf5::from_id(hdf5::h5check(H5Tcopy(dtype.id()))?)?;
            let (set, null) = (H5S_seloper_t::H5S_SELECT_SET, std::ptr::null());
            hdf5::h5check(H5Sselect_hyperslab(space.id(), set, start.as_ptr(), null, count.as_ptr(), null))?;
            let (from, into) = (in_memory.id(), space.id());
            hdf5::h5check(H5Dwrite(to.id(), of_type.id(), from, into, H5P_DEFAULT, pointers.as_ptr().cast()))
        })
    }
    .map(|_| ())
}
