//! The idx format: two zero bytes, a type, the number of axes, the axes and the values, all big-endian.
//!
//! Source: the description of the format that accompanies the MNIST database.

use super::array::{Element, Kind, push_as_stored};
use super::input::{Inputs, Stream, cannot_read};
use super::{ConvertReport, Format};
use crate::data::hdf5::write::{CHUNK_BYTES, Sink, Writer};
use crate::error::{Error, InContext, Result};
use std::io::Read;

struct Header {
    element: Element,
    shape: Vec<usize>,
}

/// One file of rows, or two: the one with a single axis has the labels.
pub(super) fn convert(inputs: &mut Inputs<'_>, writer: &Writer) -> Result<ConvertReport> {
    let mut headers = Vec::new();
    for (file, path) in inputs.paths.iter().enumerate() {
        headers.push(inputs.open(file).and_then(|mut stream| header(&mut stream)).in_file(path)?);
    }
    let labels = match headers.len() {
        1 => None,
        2 => match headers.iter().position(|header| header.shape.len() == 1) {
            Some(at) => Some(at),
            None => return Err(Error::usage("neither of the two idx files has a single axis, as labels have")),
        },
        n => return Err(Error::usage(format!("{n} idx files; give the images and the labels"))),
    };
    let images = &headers[usize::from(labels == Some(0))];
    if let Some(labels) = labels
        && headers[labels].shape[0] != images.shape[0]
    {
        let (n_images, n_labels) = (images.shape[0], headers[labels].shape[0]);
        return Err(Error::data(format!("{n_images} images but {n_labels} labels")));
    }
    inputs.begin("writing");
    for (file, header) in headers.iter().enumerate() {
        let path = &inputs.paths[file];
        let name = if Some(file) == labels { "y" } else { "X" };
        let (n_rows, row_shape) = (header.shape[0] as u64, &header.shape[1..]);
        let mut sink = Sink::new(writer, inputs.crew)?;
        let at = sink.dataset(writer, name, header.element.cell(), n_rows, row_shape, CHUNK_BYTES).in_file(path)?;
        let mut stream = inputs.open(file)?;
        self::header(&mut stream).in_file(path)?;
        let n_bytes = header.shape.iter().product::<usize>() as u64 * header.element.bytes as u64;
        push_as_stored(&mut stream, n_bytes, header.element, |bytes| {
            inputs.report();
            sink.push(at, bytes)
        })
        .in_file(path)?;
        sink.finish()?;
        if stream.read(&mut [0]).map_err(cannot_read).in_file(path)? > 0 {
            let message = format!("has more values than its axes {:?} say", header.shape);
            return Err(Error::data(message)).in_file(path);
        }
        let digest = stream.finish().in_file(path)?;
        inputs.note(file, digest)?;
    }
    Ok(ConvertReport {
        format: Format::Idx,
        n_rows: images.shape[0] as u64,
        features: vec!["X".to_string()],
        n_columns: images.shape[1..].iter().product::<usize>() as u64,
        target: labels.map(|_| "y".to_string()),
    })
}

fn header(stream: &mut Stream) -> Result<Header> {
    let mut start = [0; 4];
    stream.read_exact(&mut start).map_err(cannot_read)?;
    let [0, 0, code, n_axes] = start else { return Err(Error::data("not an idx file")) };
    let (kind, bytes) = match code {
        0x08 => (Kind::Unsigned, 1),
        0x09 => (Kind::Signed, 1),
        0x0b => (Kind::Signed, 2),
        0x0c => (Kind::Signed, 4),
        0x0d => (Kind::Float, 4),
        0x0e => (Kind::Float, 8),
        _ => return Err(Error::data(format!("has the unknown idx type {code:#04x}"))),
    };
    let mut shape = Vec::new();
    for _ in 0..n_axes {
        let mut axis = [0; 4];
        stream.read_exact(&mut axis).map_err(cannot_read)?;
        shape.push(u32::from_be_bytes(axis) as usize);
    }
    let n_bytes = shape.iter().try_fold(bytes, |product: usize, &n| product.checked_mul(n));
    if shape.is_empty() || n_bytes.is_none_or(|n| n == 0 || n > i64::MAX as usize) {
        return Err(Error::data(format!("has no values, or too many: its axes are {shape:?}")));
    }
    Ok(Header { element: Element { kind, bytes, big_endian: true }, shape })
}
