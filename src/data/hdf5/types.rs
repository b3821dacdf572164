//! The calls into the HDF5 C library that the safe crate does not offer: what type the elements of a dataset have, how they are
//! stored, and what its attributes say.

use crate::error::{Error, InContext, Result};
use hdf5::{Dataset, Datatype, File, Group};
use hdf5_sys::h5d::{H5D_fill_time_t, H5D_fill_value_t, H5Dopen2, H5Dread};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5o::{H5O_INFO_BASIC, H5O_info1_t, H5Oget_info2};
use hdf5_sys::h5p::{
    H5P_DEFAULT, H5Pclose, H5Pcreate, H5Pfill_value_defined, H5Pget_fill_time, H5Pget_fill_value, H5Pget_filter2,
    H5Pget_nfilters, H5Pget_virtual_count, H5Pget_virtual_dsetname, H5Pget_virtual_filename, H5Pset_chunk_cache,
};
use hdf5_sys::h5t::{
    H5T_class_t, H5T_norm_t, H5T_sign_t, H5T_str_t, H5Tdetect_class, H5Tequal, H5Tget_class, H5Tget_ebias,
    H5Tget_fields, H5Tget_member_name, H5Tget_nmembers, H5Tget_norm, H5Tget_order, H5Tget_precision, H5Tget_sign,
    H5Tget_strpad, H5Tget_super, H5Tis_variable_str,
};
use hdf5_sys::h5z::{H5Z_filter_t, H5Zfilter_avail};
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_void};
use std::path::Path;

/// What one element of a dataset is, and so how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Element {
    /// `bytes` is the width in memory (1, 2, 4, 8): the stored width rounded up.
    Integer { bytes: usize, signed: bool },
    /// HDF5 enum FALSE/TRUE, as h5py writes it.
    Bool,
    /// A bit field of one byte, as PyTables writes booleans.
    Bits,
    /// `bytes` is the width in memory: 4 for float16 and float32, 8 for wider ones.
    Float { bytes: usize },
    /// Strings of a fixed number of bytes.
    FixedText { bytes: usize, padded_with_spaces: bool },
    /// Strings of any length.
    Text,
}

impl Element {
    /// The element type of `dtype`, or why it cannot be a column and what to do about it.
    pub(crate) fn of(dtype: &Datatype) -> Result<Element> {
        let class = hdf5::h5lock!(H5Tget_class(dtype.id()));
        let size = dtype.size();
        match class {
            H5T_class_t::H5T_INTEGER => integer(dtype.id(), size),
            H5T_class_t::H5T_ENUM => match dtype.to_descriptor() {
                Ok(hdf5::types::TypeDescriptor::Boolean) => Ok(Element::Bool),
                Ok(hdf5::types::TypeDescriptor::Enum(of)) => {
                    Ok(Element::Integer { bytes: of.size as usize, signed: of.signed })
                }
                _ => Err(unsupported("is an enumeration over an odd integer", "store it as int64")),
            },
            H5T_class_t::H5T_FLOAT => {
                let order = hdf5::h5lock!(H5Tget_order(dtype.id()));
                if order == hdf5_sys::h5t::H5T_order_t::H5T_ORDER_VAX {
                    return Err(unsupported("has VAX byte order", "store it as float64"));
                }
                Ok(Element::Float { bytes: if size == 2 || size == 4 { 4 } else { 8 } })
            }
            H5T_class_t::H5T_BITFIELD if size == 1 => Ok(Element::Bits),
            H5T_class_t::H5T_STRING if is_any_length(dtype) => Ok(Element::Text),
            H5T_class_t::H5T_STRING => {
                let padding = hdf5::h5lock!(H5Tget_strpad(dtype.id()));
                Ok(Element::FixedText { bytes: size, padded_with_spaces: padding == H5T_str_t::H5T_STR_SPACEPAD })
            }
            H5T_class_t::H5T_COMPOUND if member_names(dtype) == ["r", "i"] => {
                Err(unsupported("holds complex numbers", "name their parts, which are the fields r and i"))
            }
            H5T_class_t::H5T_COMPOUND => Err(unsupported(
                &format!("is compound (fields {})", member_names(dtype).join(", ")),
                "name one of its fields, as in NAME/FIELD",
            )),
            H5T_class_t::H5T_BITFIELD => Err(unsupported("is a bit field wider than a byte", "store it as integers")),
            H5T_class_t::H5T_REFERENCE => {
                Err(unsupported("holds references", "name the datasets that they point to with --features"))
            }
            H5T_class_t::H5T_OPAQUE => Err(unsupported("is opaque", "store it as numbers or strings")),
            H5T_class_t::H5T_VLEN => {
                Err(unsupported("has a list of another length in each row", "store a fixed number of columns"))
            }
            H5T_class_t::H5T_ARRAY => {
                Err(unsupported("has arrays as elements", "store it as a dataset with one more dimension"))
            }
            H5T_class_t::H5T_TIME => Err(unsupported("has HDF5's time type", "store seconds as float64")),
            _ => Err(unsupported("has a type that HDF5 does not name", "store it as numbers or strings")),
        }
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(self, Element::Text | Element::FixedText { .. })
    }

    /// Bytes an element takes in memory while it is read.
    pub(crate) fn memory_bytes(self) -> usize {
        match self {
            Element::Integer { bytes, .. } | Element::Float { bytes } | Element::FixedText { bytes, .. } => bytes,
            Element::Bool | Element::Bits => 1,
            Element::Text => std::mem::size_of::<*mut c_char>(),
        }
    }
}

/// A short name of a type for people: `float32 big-endian`, `uint8`, `string (var len)`.
pub(crate) fn type_name(dtype: &Datatype) -> String {
    let class = hdf5::h5lock!(H5Tget_class(dtype.id()));
    let bits = dtype.size() * 8;
    let mut name = match class {
        H5T_class_t::H5T_INTEGER if hdf5::h5lock!(H5Tget_sign(dtype.id())) == H5T_sign_t::H5T_SGN_NONE => {
            format!("uint{bits}")
        }
        H5T_class_t::H5T_INTEGER => format!("int{bits}"),
        H5T_class_t::H5T_FLOAT => format!("float{bits}"),
        H5T_class_t::H5T_BITFIELD => format!("bits{bits}"),
        H5T_class_t::H5T_OPAQUE => format!("opaque ({} bytes)", dtype.size()),
        H5T_class_t::H5T_COMPOUND => format!("compound ({})", member_names(dtype).join(", ")),
        H5T_class_t::H5T_TIME => "time".to_string(),
        H5T_class_t::H5T_VLEN => "list of any length".to_string(),
        H5T_class_t::H5T_ARRAY => "array".to_string(),
        H5T_class_t::H5T_REFERENCE => "reference".to_string(),
        _ => dtype.to_descriptor().map(|of| of.to_string()).unwrap_or_else(|_| "unknown type".to_string()),
    };
    let is_number = matches!(class, H5T_class_t::H5T_INTEGER | H5T_class_t::H5T_FLOAT);
    if is_number && dtype.byte_order() == hdf5::datatype::ByteOrder::BigEndian && bits > 8 {
        name.push_str(" big-endian");
    }
    name
}

fn integer(id: hid_t, size: usize) -> Result<Element> {
    let signed = hdf5::h5lock!(H5Tget_sign(id)) != H5T_sign_t::H5T_SGN_NONE;
    if size == 0 || size > 8 || hdf5::h5lock!(H5Tget_precision(id)) > 64 {
        return Err(unsupported("has integers wider than 64 bits", "store it as float64 or int64"));
    }
    Ok(Element::Integer { bytes: size.next_power_of_two(), signed })
}

fn unsupported(what: &str, instead: &str) -> Error {
    Error::data(format!("{what}, which cannot be a column; {instead}, or leave it out with --features"))
}

/// Names of a compound type's fields, in the order stored.
pub(crate) fn member_names(dtype: &Datatype) -> Vec<String> {
    let n_members = hdf5::h5lock!(H5Tget_nmembers(dtype.id())).max(0) as u32;
    let mut names = Vec::new();
    for member in 0..n_members {
        hdf5::h5lock!({
            let name = H5Tget_member_name(dtype.id(), member);
            if name.is_null() {
                names.push(String::new());
            } else {
                names.push(CStr::from_ptr(name).to_string_lossy().into_owned());
                hdf5_sys::h5::H5free_memory(name.cast());
            }
        });
    }
    names
}

/// The last words of HDF5's own error stack, for the end of a message.
pub(crate) fn reason(error: &hdf5::Error) -> String {
    let text = error.to_string();
    if let hdf5::Error::Internal(_) = error {
        return text;
    }
    if is_of_another_version(&text) {
        return newer_format();
    }
    // What the operating system said is the end of the matter.
    if let Some((_, after)) = text.rsplit_once("error message = '")
        && let Some((message, _)) = after.split_once('\'')
    {
        return message.to_string();
    }
    match text.rsplit_once(": ") {
        Some((_, last)) if !last.is_empty() => last.to_string(),
        _ => text,
    }
}

/// Whether the library complains of a version number that it does not know.
fn is_of_another_version(text: &str) -> bool {
    ["bad version number", "wrong version number", "bad superblock version", "bad object header version"]
        .iter()
        .any(|of| text.contains(of))
        || text.contains("version number out of range")
}

fn newer_format() -> String {
    let (major, minor, release) = hdf5::library_version();
    format!(
        "it is written in a newer format than the HDF5 library {major}.{minor}.{release} here reads, or damaged; where it can be read, \
         rewrite it with h5repack --low=0 --high=2, or in h5py with File(..., libver=('earliest', 'v110'))"
    )
}

/// Opens a file to read only, without taking a lock. Not collective. Needs HDF5 1.10.7 or newer.
pub(crate) fn open_to_read(path: &Path) -> Result<File> {
    open_unplaced(path).in_file(path)
}

fn open_unplaced(path: &Path) -> Result<File> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::data("no such file")),
        Err(e) => return Err(Error::data(format!("cannot open: {e}"))),
        Ok(found) if found.is_dir() => {
            return Err(Error::data("is a folder, not an HDF5 file; name the files in it"));
        }
        Ok(found) if !found.is_file() => {
            return Err(Error::data("is a pipe or a device, not a file; HDF5 has to be read at any place"));
        }
        Ok(_) => {}
    }
    std::fs::File::open(path).map_err(|e| Error::data(format!("cannot open: {e}")))?;
    // As the library opens the sources of virtual datasets: one that is open with other locks is to it as if it were missing. The
    // program has switched locks off; elsewhere one that somebody holds or that a file system does not know is no reason not to read.
    let without_locks = || File::with_options().with_fapl(|access| access.file_locking(false)).open(path);
    File::open(path).or_else(|_| without_locks()).map_err(|e| {
        if is_hdf5(path) {
            match told_bytes(&e.to_string()) {
                Some((there, told)) => {
                    Error::data(format!("is truncated: it has {there} bytes of {told}; copy it again"))
                }
                None => Error::data(format!("cannot open this HDF5 file: {}", reason(&e))),
            }
        } else {
            Error::data("not an HDF5 file; `consort convert` makes one of csv, libsvm and idx files")
        }
    })
}

/// How many bytes a file that is too short has, and how many its superblock says, from what the library complains of.
fn told_bytes(text: &str) -> Option<(u64, u64)> {
    let number = |name: &str| -> Option<u64> {
        let (_, after) = text.split_once(name)?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let (there, told) = (number("eof = ")?, number("stored_eof = ")?);
    (there < told).then_some((there, told))
}

/// Whether HDF5's signature is at one of the places where it may be.
fn is_hdf5(path: &Path) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    let Ok(mut file) = std::fs::File::open(path) else { return false };
    let mut at = 0;
    for _ in 0..16 {
        let mut found = [0; 8];
        if file.seek(SeekFrom::Start(at)).is_err() || file.read_exact(&mut found).is_err() {
            return false;
        }
        if found == *b"\x89HDF\r\n\x1a\n" {
            return true;
        }
        at = if at == 0 { 512 } else { at * 2 };
    }
    false
}

/// Opens a dataset whose decoded chunks are kept up to `cache_bytes`.
pub(crate) fn open_dataset(group: &Group, name: &str, cache_bytes: usize) -> hdf5::Result<Dataset> {
    let name = CString::new(name).map_err(|_| hdf5::Error::from("a name with a zero byte"))?;
    // SAFETY: `name` outlives the call, the access list is closed after use, and the id that H5Dopen2
    // returns is checked before it becomes a handle that closes it.
    unsafe {
        hdf5::sync::sync(|| {
            let access = hdf5::h5check(H5Pcreate(*hdf5::globals::H5P_DATASET_ACCESS))?;
            let set = hdf5::h5check(H5Pset_chunk_cache(access, 521, cache_bytes, 1.0));
            let opened = set.and_then(|_| hdf5::h5check(H5Dopen2(group.id(), name.as_ptr(), access)));
            H5Pclose(access);
            hdf5::from_id(opened?)
        })
    }
}

/// Width in bytes, and whether it is big-endian, of a type that is stored as this machine or its mirror image would: one of
/// the standard integers, float32 or float64. None for all others.
pub(crate) fn standard_bytes(dtype: &Datatype) -> Option<(usize, bool)> {
    macro_rules! ids {
        ($($id:ident: $bytes:literal $big_endian:literal),*) => { [$((*hdf5::globals::$id, $bytes, $big_endian)),*] };
    }
    let standard = ids!(
        H5T_STD_I8LE: 1 false, H5T_STD_U8LE: 1 false, H5T_STD_I8BE: 1 true, H5T_STD_U8BE: 1 true,
        H5T_STD_I16LE: 2 false, H5T_STD_U16LE: 2 false, H5T_STD_I16BE: 2 true, H5T_STD_U16BE: 2 true,
        H5T_STD_I32LE: 4 false, H5T_STD_U32LE: 4 false, H5T_STD_I32BE: 4 true, H5T_STD_U32BE: 4 true,
        H5T_STD_I64LE: 8 false, H5T_STD_U64LE: 8 false, H5T_STD_I64BE: 8 true, H5T_STD_U64BE: 8 true,
        H5T_IEEE_F32LE: 4 false, H5T_IEEE_F32BE: 4 true, H5T_IEEE_F64LE: 8 false, H5T_IEEE_F64BE: 8 true
    );
    let is = |id: hid_t| hdf5::h5lock!(H5Tequal(dtype.id(), id)) > 0;
    standard.into_iter().find(|(id, ..)| is(*id)).map(|(_, bytes, big_endian)| (bytes, big_endian))
}

/// Width in bytes, and whether the bytes have to be turned round, of a type whose stored bytes are those of a number or a
/// string of fixed length in memory, or of several such side by side: a compound's are taken as they are in memory, which is not
/// how those with strings or lists of any length are stored ([`InFile`](super::compound::InFile)). None for all others.
pub(crate) fn stored_bytes(dtype: &Datatype) -> Option<(usize, bool)> {
    match hdf5::h5lock!(H5Tget_class(dtype.id())) {
        H5T_class_t::H5T_STRING if is_any_length(dtype) => None,
        H5T_class_t::H5T_STRING => Some((dtype.size(), false)).filter(|(bytes, _)| *bytes > 0),
        H5T_class_t::H5T_BITFIELD if dtype.size() == 1 => Some((1, false)),
        H5T_class_t::H5T_ENUM => {
            let base: Datatype = hdf5::h5lock!(hdf5::from_id(H5Tget_super(dtype.id()))).ok()?;
            standard_bytes(&base)
        }
        H5T_class_t::H5T_COMPOUND => Some((dtype.size(), false)),
        H5T_class_t::H5T_FLOAT if dtype.size() == 2 => half_bytes(dtype),
        _ => standard_bytes(dtype),
    }
}

/// Whether it is the type of strings of any length.
pub(crate) fn is_any_length(dtype: &Datatype) -> bool {
    hdf5::h5lock!(H5Tis_variable_str(dtype.id())) > 0
}

/// Whether values of this type are lists or strings of any length, or have some inside.
pub(crate) fn has_any_length(dtype: &Datatype) -> bool {
    is_any_length(dtype) || hdf5::h5lock!(H5Tdetect_class(dtype.id(), H5T_class_t::H5T_VLEN)) != 0 || {
        // A string of any length is of the class of strings to some versions of the library.
        let descriptor_bytes = 0;
        super::compound::InFile::of(dtype, descriptor_bytes).is_none_or(|in_file| in_file.has_descriptors)
    }
}

/// Whether somebody has chosen what unwritten elements are.
pub(crate) fn has_own_fill_value(dataset: &Dataset) -> bool {
    let Ok(create) = dataset.dcpl() else { return false };
    let mut defined = H5D_fill_value_t::H5D_FILL_VALUE_ERROR;
    let told = hdf5::h5lock!(H5Pfill_value_defined(create.id(), &mut defined)) >= 0;
    told && defined == H5D_fill_value_t::H5D_FILL_VALUE_USER_DEFINED
}

/// Whether a dataset has its bytes in other files.
pub(crate) fn has_other_files(dataset: &Dataset) -> bool {
    dataset.dcpl().is_ok_and(|create| !create.external().is_empty())
}

/// Whether values of this type are references or have some inside, in a list too.
pub(crate) fn holds_references(dtype: &Datatype) -> bool {
    if hdf5::h5lock!(H5Tdetect_class(dtype.id(), H5T_class_t::H5T_REFERENCE)) != 0 {
        return true;
    }
    // Of lists the library looks at no more than that they are lists.
    let class = hdf5::h5lock!(H5Tget_class(dtype.id()));
    let of: hdf5::Result<Datatype> = match class {
        H5T_class_t::H5T_VLEN | H5T_class_t::H5T_ARRAY => hdf5::h5lock!(hdf5::from_id(H5Tget_super(dtype.id()))),
        _ => return false,
    };
    of.is_ok_and(|of| holds_references(&of))
}

/// As [`stored_bytes`], of IEEE 754's binary16, which HDF5 1.10 has no name for.
fn half_bytes(dtype: &Datatype) -> Option<(usize, bool)> {
    let id = dtype.id();
    let mut fields = [0usize; 5];
    let [sign, exponent, exponent_bits, mantissa, mantissa_bits] = &mut fields;
    let told = hdf5::h5lock!(H5Tget_fields(id, sign, exponent, exponent_bits, mantissa, mantissa_bits)) >= 0;
    let is_half = told && fields == [15, 10, 5, 0, 10] && hdf5::h5lock!(H5Tget_ebias(id)) == 15;
    let is_whole = hdf5::h5lock!(H5Tget_norm(id)) == H5T_norm_t::H5T_NORM_IMPLIED;
    match dtype.byte_order() {
        hdf5::datatype::ByteOrder::LittleEndian if is_half && is_whole => Some((2, false)),
        hdf5::datatype::ByteOrder::BigEndian if is_half && is_whole => Some((2, true)),
        _ => None,
    }
}

/// The bytes of an element that was never written, as stored: what the dataset says, else zeros (of strings of any length the
/// descriptor of an empty one). None where the dataset says something that has parts of any length.
pub(crate) fn fill_bytes(dataset: &Dataset, element_bytes: usize) -> Option<Vec<u8>> {
    let create = dataset.dcpl().ok()?;
    let dtype = dataset.dtype().ok()?;
    let mut fill = vec![0u8; element_bytes];
    let mut defined = H5D_fill_value_t::H5D_FILL_VALUE_ERROR;
    if hdf5::h5lock!(H5Pfill_value_defined(create.id(), &mut defined)) < 0 {
        return None;
    }
    let mut time = H5D_fill_time_t::H5D_FILL_TIME_ERROR;
    if hdf5::h5lock!(H5Pget_fill_time(create.id(), &mut time)) < 0 {
        return None;
    }
    if defined != H5D_fill_value_t::H5D_FILL_VALUE_USER_DEFINED || time == H5D_fill_time_t::H5D_FILL_TIME_NEVER {
        return Some(fill);
    }
    // A value of such a type points to memory; with a string of any length it has another size there.
    if dtype.size() != element_bytes || hdf5::h5lock!(H5Tdetect_class(dtype.id(), H5T_class_t::H5T_VLEN)) != 0 {
        return None;
    }
    let buffer: *mut c_void = fill.as_mut_ptr().cast();
    (hdf5::h5lock!(H5Pget_fill_value(create.id(), dtype.id(), buffer)) >= 0).then_some(fill)
}

/// Where the object header of a dataset or group lies in its file, counted from the end of the user block.
pub(crate) fn header_address(object: &hdf5::Location) -> Option<u64> {
    let mut info = H5O_info1_t::default();
    (hdf5::h5lock!(H5Oget_info2(object.id(), &mut info, H5O_INFO_BASIC)) >= 0).then_some(info.addr)
}

/// All bytes of a small dataset as stored.
pub(crate) fn read_stored(dataset: &Dataset) -> hdf5::Result<Vec<u8>> {
    let dtype = dataset.dtype()?;
    let mut bytes = vec![0u8; dataset.size() * dtype.size()];
    let all = hdf5_sys::h5s::H5S_ALL;
    let buffer: *mut c_void = bytes.as_mut_ptr().cast();
    // The type in memory is that of the file: no conversion, and as many bytes as were made room for.
    hdf5::h5lock!(hdf5::h5check(H5Dread(dataset.id(), dtype.id(), all, all, H5P_DEFAULT, buffer)))?;
    Ok(bytes)
}

/// A filter of a dataset's pipeline.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FilterUse {
    /// HDF5's registered number of the filter.
    pub id: i32,
    /// Its name, such as `deflate`.
    pub name: String,
    /// Whether the HDF5 library of this machine can decode it; in a description, whether anything here can.
    pub available: bool,
    /// What the filter was told when the dataset was made.
    #[serde(skip)]
    pub values: Vec<u32>,
}

/// The filters of a dataset in the order they were applied.
pub(crate) fn filters_of(dataset: &Dataset) -> Result<Vec<FilterUse>> {
    let create = dataset.dcpl().map_err(|e| Error::data(format!("cannot read how it is stored: {}", reason(&e))))?;
    let n_filters = hdf5::h5lock!(H5Pget_nfilters(create.id())).max(0) as u32;
    let mut filters = Vec::new();
    for index in 0..n_filters {
        let mut name = [0 as c_char; 64];
        let mut values = [0u32; 64];
        let (mut flags, mut n_values, mut config) = (0, values.len(), 0);
        let id: H5Z_filter_t = hdf5::h5lock!(H5Pget_filter2(
            create.id(),
            index,
            &mut flags,
            &mut n_values,
            values.as_mut_ptr(),
            name.len() - 1,
            name.as_mut_ptr(),
            &mut config,
        ));
        // SAFETY: the last byte is zero and was kept out of HDF5's reach above.
        let stored = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let available = hdf5::h5lock!(H5Zfilter_avail(id)) > 0;
        let values = values[..n_values.min(values.len())].to_vec();
        filters.push(FilterUse { id, name: filter_name(id, stored), available, values });
    }
    Ok(filters)
}

/// File and dataset of each piece of a virtual dataset, as stored.
pub(crate) fn virtual_sources_of(dataset: &Dataset) -> Result<Vec<(String, String)>> {
    let cannot = |e: hdf5::Error| Error::data(format!("its sources cannot be listed: {}", reason(&e)));
    let create = dataset.dcpl().map_err(cannot)?;
    let text = |read: &dyn Fn(*mut c_char, usize) -> isize| -> hdf5::Result<String> {
        let n_bytes = usize::try_from(hdf5::h5lock!(read(std::ptr::null_mut(), 0))).map_err(|_| "no name")?;
        let mut bytes = vec![0u8; n_bytes + 1];
        hdf5::h5lock!(read(bytes.as_mut_ptr().cast(), bytes.len()));
        bytes.truncate(n_bytes);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut n_pieces = 0;
    hdf5::h5lock!(hdf5::h5check(H5Pget_virtual_count(create.id(), &mut n_pieces))).map_err(cannot)?;
    let of_piece = |i: usize| {
        // SAFETY: the library writes no more than `n` bytes to `to`, and only counts where that is null.
        let file = text(&|to, n| unsafe { H5Pget_virtual_filename(create.id(), i, to, n) })?;
        let name = text(&|to, n| unsafe { H5Pget_virtual_dsetname(create.id(), i, to, n) })?;
        Ok((file, name))
    };
    (0..n_pieces).map(of_piece).collect::<hdf5::Result<_>>().map_err(cannot)
}

fn filter_name(id: H5Z_filter_t, stored: String) -> String {
    let known = match id {
        1 => "deflate",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scaleoffset",
        307 => "bzip2",
        32000 => "lzf",
        32001 => "blosc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "zfp",
        32015 => "zstd",
        32026 => "blosc2",
        _ => return if stored.is_empty() { format!("filter {id}") } else { stored },
    };
    known.to_string()
}

/// The strings of an attribute, if it is there and holds strings.
pub(crate) fn text_attribute(object: &hdf5::Location, name: &str) -> Option<Vec<String>> {
    use hdf5_sys::h5a::H5Aread;
    let attribute = object.attr(name).ok()?;
    let dtype = attribute.dtype().ok()?;
    let n_elements = attribute.size();
    match Element::of(&dtype).ok()? {
        Element::FixedText { bytes, padded_with_spaces } => {
            let mut buffer = vec![0u8; n_elements.checked_mul(bytes)?];
            // SAFETY: the buffer has the attribute's number of elements of the attribute's own type.
            let read = unsafe { hdf5::sync::sync(|| H5Aread(attribute.id(), dtype.id(), buffer.as_mut_ptr().cast())) };
            (read >= 0).then_some(())?;
            buffer
                .chunks(bytes.max(1))
                .map(|text| std::str::from_utf8(trim_fixed(text, padded_with_spaces)).ok().map(str::to_string))
                .collect()
        }
        Element::Text => {
            let texts = super::sound::texts_of(&attribute).ok()?;
            texts.into_iter().map(|text| String::from_utf8(text).ok()).collect()
        }
        _ => None,
    }
}

/// The number in an attribute of one element, if there is one.
pub(crate) fn number_attribute(object: &hdf5::Location, name: &str) -> Option<Vec<f64>> {
    let attribute = object.attr(name).ok()?;
    let element = Element::of(&attribute.dtype().ok()?).ok()?;
    match element {
        Element::Integer { .. } | Element::Float { .. } => attribute.read_raw::<f64>().ok(),
        _ => None,
    }
}

/// A fixed string without its padding: up to the first zero byte, or without spaces at the end.
pub(crate) fn trim_fixed(text: &[u8], padded_with_spaces: bool) -> &[u8] {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let text = &text[..end];
    match padded_with_spaces {
        true => &text[..text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1)],
        false => text,
    }
}

/// A file of the HDF5 library, for rooms that do not name it.
pub(crate) type OpenFile = File;

/// [`type_name`] of a dataset's elements.
pub(crate) fn type_name_of(dataset: &Dataset) -> String {
    dataset.dtype().map(|of| type_name(&of)).unwrap_or_else(|e| format!("unknown type ({})", reason(&e)))
}

/// The chunk shape of a dataset. None where it is not chunked.
pub(crate) fn chunk_of(dataset: &Dataset) -> Option<Vec<u64>> {
    Some(dataset.chunk()?.iter().map(|&n| n as u64).collect())
}

/// Every attribute: its name, and its value if that is one number or a few strings, else its type and shape.
pub(crate) fn attributes_of(object: &hdf5::Location) -> Vec<(String, String)> {
    const SHOWN: usize = 60;
    if let Err(why) = super::sound::check_attributes(object) {
        return vec![("attributes".to_string(), format!("cannot be read: {why}"))];
    }
    let mut names = match object.attr_names() {
        Ok(names) => names,
        Err(e) => return vec![("attributes".to_string(), format!("cannot be read: {}", reason(&e)))],
    };
    names.sort();
    let value = |name: &String| {
        if let Some([number]) = number_attribute(object, name).as_deref() {
            return number.to_string();
        }
        if let Some(texts) = text_attribute(object, name) {
            let text = texts.join(",");
            if text.chars().count() <= SHOWN {
                return format!("'{text}'");
            }
            return format!("'{}…'", text.chars().take(SHOWN).collect::<String>());
        }
        match object.attr(name) {
            Ok(attribute) => {
                if let Err(why) = super::sound::check_attribute(&attribute) {
                    return format!("cannot be read: {why}");
                }
                let kind = attribute.dtype().map(|of| type_name(&of)).unwrap_or_else(|_| "unknown type".to_string());
                format!("{kind} {:?}", attribute.shape())
            }
            Err(e) => format!("cannot be read: {}", reason(&e)),
        }
    };
    names.into_iter().map(|name| (name.clone(), value(&name))).collect()
}
