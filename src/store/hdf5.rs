//! Named arrays, strings and attributes in an HDF5 file: the only file of this room that names the `hdf5` crate.
//!
//! [`Writer`] and [`Reader`] take objects by path (`params/w`). Every error is of kind `Data` and names file and object.
//! Nothing here is collective. The HDF5 library has one global lock: these calls are for one rank at a time, not for row loops.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ::hdf5::plist::dataset_create::{AllocTime, FillTime};
use ::hdf5::plist::file_create::{AttrCreationOrder, LinkCreationOrder};
use ::hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use ::hdf5::{Dataset, File, H5Type, LocationType};
use ::hdf5::{IndexType, IterationOrder};
use ndarray::ArrayView;

use super::seal;
use crate::data::hdf5::{reason, sound};
use crate::error::{Error, InContext, Result};

/// Row-major numbers of one type, any number of axes, as they are in the file.
///
/// `shape` multiplies to the number of `values`; at least one axis (one number has shape `[1]`).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Array {
    F32 { shape: Vec<usize>, values: Vec<f32> },
    F64 { shape: Vec<usize>, values: Vec<f64> },
    I64 { shape: Vec<usize>, values: Vec<i64> },
    U32 { shape: Vec<usize>, values: Vec<u32> },
    U64 { shape: Vec<usize>, values: Vec<u64> },
}

impl Array {
    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Array::F32 { shape, .. }
            | Array::F64 { shape, .. }
            | Array::I64 { shape, .. }
            | Array::U32 { shape, .. }
            | Array::U64 { shape, .. } => shape,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Array::F32 { values, .. } => values.len(),
            Array::F64 { values, .. } => values.len(),
            Array::I64 { values, .. } => values.len(),
            Array::U32 { values, .. } => values.len(),
            Array::U64 { values, .. } => values.len(),
        }
    }

    /// True without values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type in words, for messages: `float32`, `float64`, `int64`, `uint32`, `uint64`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Array::F32 { .. } => "float32",
            Array::F64 { .. } => "float64",
            Array::I64 { .. } => "int64",
            Array::U32 { .. } => "uint32",
            Array::U64 { .. } => "uint64",
        }
    }
}

/// One value of a dataset whose bytes are written past the library (see [`predictions`](super::predictions)). Little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cell {
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// UTF-8 of this many bytes (at least 1), filled up with NUL.
    Text(usize),
}

impl Cell {
    /// Size of one value.
    pub fn n_bytes(self) -> usize {
        match self {
            Cell::I8 | Cell::U8 => 1,
            Cell::I16 | Cell::U16 => 2,
            Cell::F32 | Cell::I32 | Cell::U32 => 4,
            Cell::F64 | Cell::I64 | Cell::U64 => 8,
            Cell::Text(n_bytes) => n_bytes,
        }
    }

    fn descriptor(self) -> TypeDescriptor {
        match self {
            Cell::F32 => TypeDescriptor::Float(FloatSize::U4),
            Cell::F64 => TypeDescriptor::Float(FloatSize::U8),
            Cell::I8 => TypeDescriptor::Integer(IntSize::U1),
            Cell::I16 => TypeDescriptor::Integer(IntSize::U2),
            Cell::I32 => TypeDescriptor::Integer(IntSize::U4),
            Cell::I64 => TypeDescriptor::Integer(IntSize::U8),
            Cell::U8 => TypeDescriptor::Unsigned(IntSize::U1),
            Cell::U16 => TypeDescriptor::Unsigned(IntSize::U2),
            Cell::U32 => TypeDescriptor::Unsigned(IntSize::U4),
            Cell::U64 => TypeDescriptor::Unsigned(IntSize::U8),
            Cell::Text(n_bytes) => TypeDescriptor::FixedUnicode(n_bytes),
        }
    }
}

// The type descriptors above are the machine's own; the bytes are written as little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "store writes little-endian bytes as they are in memory");

/// A new HDF5 file. Without [`finish`](Self::finish) its content is thrown away (the file itself stays, empty).
///
/// Errors do not name the file: it lies beside its target under another name.
/// No time stamps are stored: the same content gives the same bytes.
pub struct Writer {
    /// None only after `finish`.
    file: Option<File>,
    /// Only to give the space back.
    path: PathBuf,
}

impl Writer {
    /// Creates the file, which must not exist.
    pub fn create(path: &Path) -> Result<Writer> {
        let mut options = File::with_options();
        options.with_fapl(|access| access.file_locking(false)).with_fcpl(|list| {
            list.obj_track_times(false).link_creation_order(LinkCreationOrder::Indexed);
            list.attr_creation_order(AttrCreationOrder::Indexed)
        });
        let file = options.create_excl(path);
        let file = file.map_err(|e| failed("cannot create the file", &e))?;
        Ok(Writer { file: Some(file), path: path.to_owned() })
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("a writer has its file until it is finished")
    }

    /// Makes a group whose members are listed in the order they are written.
    pub fn group(&self, name: &str) -> Result<()> {
        let builder = self.file().create_group_builder().obj_track_times(false);
        let made = builder.with_gcpl(|list| list.link_creation_order(LinkCreationOrder::Indexed)).create(name);
        made.map(|_| ()).map_err(|e| failed("cannot make the group", &e)).in_dataset(name)
    }

    /// Writes an array as a contiguous dataset at this path.
    ///
    /// # Panics
    /// If the shape does not multiply to the number of values.
    pub fn array(&self, name: &str, array: &Array) -> Result<()> {
        match array {
            Array::F32 { shape, values } => self.numbers(name, shape, values),
            Array::F64 { shape, values } => self.numbers(name, shape, values),
            Array::I64 { shape, values } => self.numbers(name, shape, values),
            Array::U32 { shape, values } => self.numbers(name, shape, values),
            Array::U64 { shape, values } => self.numbers(name, shape, values),
        }
    }

    fn numbers<T: H5Type>(&self, name: &str, shape: &[usize], values: &[T]) -> Result<()> {
        let view = ArrayView::from_shape(shape, values).unwrap_or_else(|e| panic!("'{name}' {shape:?}: {e}"));
        assert!(!shape.is_empty(), "'{name}': an array has at least one axis");
        let written = self.file().new_dataset_builder().with_data(view).create(name);
        written.map(|_| ()).map_err(|e| failed("cannot write the array", &e)).in_dataset(name)
    }

    /// Writes a 1-D dataset of variable-length UTF-8 strings. A NUL inside a string is refused: HDF5 would cut it there.
    pub fn strings(&self, name: &str, values: &[String]) -> Result<()> {
        let write = || {
            let values = values.iter().map(|text| unicode(text)).collect::<Result<Vec<_>>>()?;
            let written = self.file().new_dataset_builder().with_data(&values).create(name);
            written.map(|_| ()).map_err(|e| failed("cannot write the strings", &e))
        };
        write().in_dataset(name)
    }

    /// Writes a scalar string attribute of a group (`/` for the root), of any length.
    pub fn text_attribute(&self, group: &str, name: &str, value: &str) -> Result<()> {
        let write = || {
            let value = unicode(value)?;
            let group = self.file().group(group).map_err(|e| failed("cannot open the group", &e))?;
            let attribute = group.new_attr::<VarLenUnicode>().create(name);
            let written = attribute.and_then(|attribute| attribute.write_scalar(&value));
            written.map_err(|e| failed("cannot write the attribute", &e))
        };
        write().in_dataset(name)
    }

    /// Writes a scalar integer attribute of a group (`/` for the root).
    pub fn number_attribute(&self, group: &str, name: &str, value: u64) -> Result<()> {
        let attribute = self.file().group(group).and_then(|group| group.new_attr::<u64>().create(name));
        let written = attribute.and_then(|attribute| attribute.write_scalar(&value));
        written.map_err(|e| failed("cannot write the attribute", &e)).in_dataset(name)
    }

    /// Makes a contiguous dataset with its place in the file, but no values, and returns where its bytes begin. Groups in
    /// `name` are made. Its rows may be written by anybody once the file is finished. 0 for a dataset without values.
    pub fn allocate(&self, name: &str, cell: Cell, shape: &[usize]) -> Result<u64> {
        let allocate = || {
            let builder = self.file().new_dataset_builder().empty_as(cell.descriptor());
            let builder = builder.alloc_time(Some(AllocTime::Early)).fill_time(FillTime::Never).shape(shape);
            let dataset = builder.create(name).map_err(|e| failed("cannot make the dataset", &e))?;
            match dataset.offset() {
                Some(offset) => Ok(offset),
                None if shape.contains(&0) => Ok(0),
                None => Err(Error::internal("the HDF5 library gave no place to a contiguous dataset")),
            }
        };
        allocate().in_dataset(name)
    }

    /// Hands everything to the operating system and closes the file. Not synchronised to the disk: see
    /// [`PartialFile::commit`](super::output::PartialFile::commit).
    pub fn finish(mut self) -> Result<()> {
        self.file().flush().map_err(|e| failed("cannot write the file", &e))?;
        match self.file.take() {
            Some(file) => file.close().map_err(|e| failed("cannot close the file", &e)),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.file.is_some() {
            // When the disk is full, the library would try to flush again at close, fail, and keep the file open until the
            // end of the process, where it fails once more. Giving the space back first lets it close; the caller removes
            // the file. Nothing to report: an error is on its way already.
            let _ = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(0));
        }
    }
}

/// An HDF5 file opened to be read, without a lock. Its content is somebody's: nothing in it is believed.
pub struct Reader {
    file: File,
    path: PathBuf,
    n_bytes: u64,
    is_sealed: bool,
}

impl Reader {
    /// Opens the file. Says apart: missing, not HDF5, HDF5 but damaged or cut off, damaged by its seal.
    pub fn open(path: &Path) -> Result<Reader> {
        let open = || {
            let meta = std::fs::metadata(path).map_err(|e| Error::data(format!("cannot open the file: {e}")))?;
            if !meta.is_file() {
                return Err(Error::data("not a regular file"));
            }
            let is_sealed = seal::check(path)?;
            let open = File::with_options().with_fapl(|access| access.file_locking(false)).open(path);
            let file = open.map_err(|e| match has_signature(path) {
                Err(io) => Error::data(format!("cannot read the file: {io}")),
                Ok(false) => Error::data("not an HDF5 file"),
                Ok(true) => failed("an HDF5 file that is damaged or cut off", &e),
            })?;
            Ok(Reader { file, path: path.to_owned(), n_bytes: meta.len(), is_sealed })
        };
        open().in_file(path)
    }

    /// Whether it ends with its seal, which was looked at first.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The scalar string attribute of a group (`/` for the root), or `None` if there is none of this name.
    pub fn text_attribute(&self, group: &str, name: &str) -> Result<Option<String>> {
        let read = || {
            let attribute = self.file.group(group).and_then(|group| group.attr(name));
            let attribute = attribute.map_err(|e| failed("cannot open the attribute", &e))?;
            sound::check_attribute(&attribute)
                .map_err(|why| Error::data(format!("cannot read the attribute: {why}")))?;
            let descriptor = attribute.dtype().and_then(|dtype| dtype.to_descriptor());
            let value = match descriptor.map_err(|e| failed("cannot read its type", &e))? {
                TypeDescriptor::VarLenUnicode => attribute.read_scalar().map(|v: VarLenUnicode| v.as_bytes().to_vec()),
                TypeDescriptor::VarLenAscii => attribute.read_scalar().map(|v: VarLenAscii| v.as_bytes().to_vec()),
                other => return Err(Error::data(format!("expected text, found {other}"))),
            };
            utf8(&value.map_err(|e| failed("cannot read the attribute", &e))?)
        };
        if !self.attribute_names(group)?.iter().any(|known| known == name) {
            return Ok(None);
        }
        read().map(Some).in_dataset(name).in_file(&self.path)
    }

    /// The scalar integer attribute of a group (`/` for the root), or `None` if there is none of this name.
    pub fn number_attribute(&self, group: &str, name: &str) -> Result<Option<u64>> {
        if !self.attribute_names(group)?.iter().any(|known| known == name) {
            return Ok(None);
        }
        let value = self.file.group(group).and_then(|group| group.attr(name)?.read_scalar::<u64>());
        value.map(Some).map_err(|e| failed("cannot read the attribute", &e)).in_dataset(name).in_file(&self.path)
    }

    /// Attributes of a group (`/` for the root): in the order they were written if the file knows it, else by name.
    pub fn attribute_names(&self, group: &str) -> Result<Vec<String>> {
        let list = || {
            let group = self.file.group(group)?;
            let written = group.attr_names_by(IndexType::CreationOrder, IterationOrder::Increasing);
            written.or_else(|_| group.attr_names_by(IndexType::Name, IterationOrder::Increasing))
        };
        list().map_err(|e| failed("cannot list the attributes", &e)).in_dataset(group).in_file(&self.path)
    }

    /// Members of a group (`/` for the root): in the order they were written if the file knows it, else by name.
    pub fn names(&self, group: &str) -> Result<Vec<String>> {
        let list = || {
            let group = self.file.group(group)?;
            let written = group.member_names_by(IndexType::CreationOrder, IterationOrder::Increasing);
            written.or_else(|_| group.member_names_by(IndexType::Name, IterationOrder::Increasing))
        };
        list().map_err(|e| failed("cannot list the group", &e)).in_dataset(group).in_file(&self.path)
    }

    /// True if there is an object of this path (each step of it is looked at).
    pub fn has(&self, name: &str) -> bool {
        let steps = name.match_indices('/').map(|(at, _)| &name[..at]).filter(|step| !step.is_empty());
        steps.chain([name]).all(|step| self.file.link_exists(step))
    }

    /// True if the object is a group.
    pub fn is_group(&self, name: &str) -> Result<bool> {
        let kind = self.file.loc_type_by_name(name).map_err(|e| failed("cannot look at the object", &e));
        Ok(kind.in_dataset(name).in_file(&self.path)? == LocationType::Group)
    }

    /// True if the object is a dataset of strings.
    pub fn is_text(&self, name: &str) -> Result<bool> {
        let look = || {
            let kind = self.file.loc_type_by_name(name).map_err(|e| failed("cannot look at the object", &e))?;
            if kind != LocationType::Dataset {
                return Ok(false);
            }
            Ok(matches!(
                type_of(&self.dataset(name)?)?,
                TypeDescriptor::VarLenUnicode
                    | TypeDescriptor::VarLenAscii
                    | TypeDescriptor::FixedUnicode(_)
                    | TypeDescriptor::FixedAscii(_)
            ))
        };
        look().in_dataset(name).in_file(&self.path)
    }

    /// The numbers of a dataset; narrower integers are widened. Other types are refused.
    pub fn array(&self, name: &str) -> Result<Array> {
        let read = || {
            let dataset = self.dataset(name)?;
            let shape = self.believable_shape(&dataset)?;
            Ok(match type_of(&dataset)? {
                TypeDescriptor::Float(FloatSize::U4) => Array::F32 { shape, values: numbers(&dataset)? },
                TypeDescriptor::Float(FloatSize::U8) => Array::F64 { shape, values: numbers(&dataset)? },
                TypeDescriptor::Integer(_) => Array::I64 { shape, values: numbers(&dataset)? },
                TypeDescriptor::Unsigned(IntSize::U4) => Array::U32 { shape, values: numbers(&dataset)? },
                TypeDescriptor::Unsigned(_) => Array::U64 { shape, values: numbers(&dataset)? },
                other => return Err(Error::data(format!("expected numbers, found {other}"))),
            })
        };
        read().in_dataset(name).in_file(&self.path)
    }

    /// The strings of a 1-D dataset of variable-length text.
    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        let read = || {
            let dataset = self.dataset(name)?;
            let shape = self.believable_shape(&dataset)?;
            if shape.len() != 1 {
                return Err(Error::data(format!("expected a list of strings, found the shape {shape:?}")));
            }
            sound::check_values(&dataset)?;
            match type_of(&dataset)? {
                TypeDescriptor::VarLenUnicode => {
                    numbers::<VarLenUnicode>(&dataset)?.iter().map(|text| utf8(text.as_bytes())).collect()
                }
                TypeDescriptor::VarLenAscii => {
                    numbers::<VarLenAscii>(&dataset)?.iter().map(|text| utf8(text.as_bytes())).collect()
                }
                other => Err(Error::data(format!("expected variable-length strings, found {other}"))),
            }
        };
        read().in_dataset(name).in_file(&self.path)
    }

    fn dataset(&self, name: &str) -> Result<Dataset> {
        sound::open(&self.file, name).map_err(|e| failed("cannot open the dataset", &e))
    }

    /// The shape, after a look at whether the file can hold so much: a damaged shape must not ask for all the memory.
    fn believable_shape(&self, dataset: &Dataset) -> Result<Vec<usize>> {
        let mut shape = dataset.get_shape().map_err(|e| failed("cannot read its shape", &e))?;
        let value_bytes = dataset.dtype().map_err(|e| failed("cannot read its type", &e))?.size();
        let n_bytes = shape.iter().try_fold(value_bytes, |product, axis| product.checked_mul(*axis));
        // Deflate at its best shrinks 1032 to 1.
        if n_bytes.is_none_or(|n_bytes| n_bytes as u64 / 1100 > self.n_bytes) {
            let message = format!("the shape {shape:?} is more than this file of {} bytes can hold", self.n_bytes);
            return Err(Error::data(message));
        }
        if shape.is_empty() {
            shape.push(1);
        }
        Ok(shape)
    }
}

/// Version of the HDF5 library, such as `1.10.8`.
pub fn hdf5_version() -> String {
    let (major, minor, release) = ::hdf5::library_version();
    format!("{major}.{minor}.{release}")
}

fn numbers<T: H5Type>(dataset: &Dataset) -> Result<Vec<T>> {
    dataset.read_raw().map_err(|e| failed("cannot read the values", &e))
}

fn type_of(dataset: &Dataset) -> Result<TypeDescriptor> {
    dataset.dtype().and_then(|dtype| dtype.to_descriptor()).map_err(|e| failed("cannot read its type", &e))
}

fn unicode(text: &str) -> Result<VarLenUnicode> {
    VarLenUnicode::from_str(text)
        .map_err(|_| Error::data(format!("HDF5 cannot hold a text with a NUL in it: {text:?}")))
}

fn utf8(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::data("the text is not UTF-8"))
}

fn failed(what: &str, error: &::hdf5::Error) -> Error {
    Error::data(format!("{what}: {}", reason(error)))
}

/// An HDF5 file has its signature at byte 0, 512, 1024, 2048, …
fn has_signature(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path)?;
    let n_bytes = file.metadata()?.len();
    let mut found = [0; 8];
    let mut at = 0;
    while at + 8 <= n_bytes {
        file.read_exact_at(&mut found, at)?;
        if &found == b"\x89HDF\r\n\x1a\n" {
            return Ok(true);
        }
        at = if at == 0 { 512 } else { 2 * at };
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_bits_and_strings_their_letters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let writer = Writer::create(&path).unwrap();
        writer.group("numbers").unwrap();
        let odd = f64::from_bits(0x7ff8_0000_0000_0123);
        let of_f64 = Array::F64 { shape: vec![2, 3], values: vec![0.0, -0.0, odd, f64::INFINITY, 5e-324, f64::MIN] };
        let of_i64 = Array::I64 { shape: vec![2], values: vec![i64::MIN, -1] };
        let of_u64 = Array::U64 { shape: vec![1], values: vec![u64::MAX] };
        let none = Array::F32 { shape: vec![0, 7], values: vec![] };
        for (name, array) in [("z", &of_f64), ("a", &of_i64), ("m", &of_u64), ("none", &none)] {
            writer.array(&format!("numbers/{name}"), array).unwrap();
        }
        let words: Vec<String> = ["", "jet", "µ⁺µ⁻", "日本"].map(str::to_owned).to_vec();
        writer.strings("words", &words).unwrap();
        writer.strings("no_words", &[]).unwrap();
        writer.text_attribute("/", "long", &"ü".repeat(100_000)).unwrap();
        writer.number_attribute("/", "n", u64::MAX).unwrap();
        writer.finish().unwrap();

        let reader = Reader::open(&path).unwrap();
        let Array::F64 { shape, values } = reader.array("numbers/z").unwrap() else { panic!("float64") };
        assert_eq!(shape, [2, 3]);
        let Array::F64 { values: expected, .. } = of_f64 else { unreachable!() };
        assert!(values.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{values:?}");
        assert_eq!(reader.array("numbers/a").unwrap(), of_i64);
        assert_eq!(reader.array("numbers/m").unwrap(), of_u64);
        assert_eq!(reader.array("numbers/none").unwrap(), none);
        assert_eq!(reader.strings("words").unwrap(), words);
        assert!(reader.strings("no_words").unwrap().is_empty());
        assert_eq!(reader.names("numbers").unwrap(), ["z", "a", "m", "none"], "as written");
        assert_eq!(reader.names("/").unwrap(), ["numbers", "words", "no_words"]);
        assert_eq!(reader.text_attribute("/", "long").unwrap().unwrap().len(), 200_000);
        assert_eq!(reader.number_attribute("/", "n").unwrap(), Some(u64::MAX));
        assert_eq!(reader.text_attribute("/", "missing").unwrap(), None);
        assert!(reader.has("numbers/z") && !reader.has("numbers/q") && !reader.has("nothing/at/all"));
        assert!(reader.is_text("words").unwrap() && !reader.is_text("numbers").unwrap());
    }

    #[test]
    fn errors_name_file_and_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let writer = Writer::create(&path).unwrap();
        writer.strings("words", &["a".into()]).unwrap();
        writer.text_attribute("/", "text", "t").unwrap();
        let refused = writer.strings("bad", &["a\0b".into()]).unwrap_err().to_string();
        assert!(refused.contains("'bad'") && refused.contains("NUL"), "{refused}");
        writer.finish().unwrap();
        let reader = Reader::open(&path).unwrap();
        for error in [
            reader.array("words").unwrap_err(),
            reader.array("missing").unwrap_err(),
            reader.names("missing").unwrap_err(),
            reader.number_attribute("/", "text").unwrap_err(),
        ] {
            assert_eq!(error.kind(), crate::error::ErrorKind::Data);
            let text = error.to_string();
            assert!(text.contains("a.h5: '"), "{text}");
        }
    }
}
