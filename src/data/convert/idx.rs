//! The idx format: two zero bytes, a type, the number of axes, the axes and the values, all big-endian.
//!
//! Source: the description of the format that accompanies the MNIST database.

use super::{ConvertReport, Format, reader};
use crate::data::hdf5_write::{Writer, chunk_rows};
use crate::data::synthetic::Storage;
use crate::error::{Error, InContext, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

struct Array {
    code: u8,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// One file of rows, or two: the one with a single axis has the labels.
pub(super) fn convert(inputs: &[PathBuf], writer: &Writer) -> Result<ConvertReport> {
    let mut arrays = Vec::new();
    for path in inputs {
        arrays.push(read(path).in_file(path)?);
    }
    let labels = match arrays.len() {
        1 => None,
        2 => {
            let Some(at) = arrays.iter().position(|array| array.shape.len() == 1) else {
                return Err(Error::usage("neither of the two idx files has a single axis, as labels have"));
            };
            Some(arrays.remove(at))
        }
        n => return Err(Error::usage(format!("{n} idx files; give the images and the labels"))),
    };
    let images = arrays.remove(0);
    if let Some(labels) = &labels {
        if labels.shape[0] != images.shape[0] {
            return Err(Error::data(format!("{} images but {} labels", images.shape[0], labels.shape[0])));
        }
        write(writer, "y", labels, Storage::default())?;
    }
    let n_columns = images.shape[1..].iter().product::<usize>();
    let row_bytes = images.bytes.len() / images.shape[0].max(1);
    let storage = Storage { chunk_rows: Some(chunk_rows(row_bytes, images.shape[0])), deflate: Some(1) };
    write(writer, "X", &images, storage)?;
    Ok(ConvertReport {
        format: Format::Idx,
        n_rows: images.shape[0] as u64,
        features: vec!["X".to_string()],
        n_columns: n_columns as u64,
        target: labels.map(|_| "y".to_string()),
    })
}

fn read(path: &Path) -> Result<Array> {
    let mut bytes = Vec::new();
    reader(path)?.read_to_end(&mut bytes).map_err(|e| Error::data(format!("cannot read: {e}")))?;
    let [0, 0, code, n_axes, ..] = bytes[..] else { return Err(Error::data("not an idx file")) };
    let width = width(code)?;
    let start = 4 + 4 * usize::from(n_axes);
    let Some(axes) = bytes.get(4..start).filter(|axes| !axes.is_empty()) else {
        return Err(Error::data("ends within its list of axes"));
    };
    let shape: Vec<usize> =
        axes.chunks_exact(4).map(|axis| u32::from_be_bytes([axis[0], axis[1], axis[2], axis[3]]) as usize).collect();
    let expected = shape.iter().try_fold(width, |product, &n| product.checked_mul(n));
    let found = bytes.len() - start;
    if expected != Some(found) || found == 0 {
        return Err(Error::data(format!("has {found} bytes of values, but its axes {shape:?} need another number")));
    }
    bytes.drain(..start);
    Ok(Array { code, shape, bytes })
}

fn width(code: u8) -> Result<usize> {
    match code {
        0x08 | 0x09 => Ok(1),
        0x0b => Ok(2),
        0x0c | 0x0d => Ok(4),
        0x0e => Ok(8),
        _ => Err(Error::data(format!("has the unknown idx type {code:#04x}"))),
    }
}

fn write(writer: &Writer, name: &str, array: &Array, storage: Storage) -> Result<()> {
    macro_rules! as_numbers {
        ($number:ty) => {{
            let (words, _) = array.bytes.as_chunks::<{ size_of::<$number>() }>();
            let values: Vec<$number> = words.iter().map(|&word| <$number>::from_be_bytes(word)).collect();
            writer.numbers(name, &values, &array.shape, storage)
        }};
    }
    match array.code {
        0x08 => writer.numbers(name, &array.bytes, &array.shape, storage),
        0x09 => as_numbers!(i8),
        0x0b => as_numbers!(i16),
        0x0c => as_numbers!(i32),
        0x0d => as_numbers!(f32),
        _ => as_numbers!(f64),
    }
}
