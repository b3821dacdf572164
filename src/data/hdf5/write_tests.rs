use super::*;
use crate::data::crew::Alone;

/// Writes `rows` in pieces of odd lengths, and returns what the library reads.
fn written<T: H5Type + bytemuck::Pod>(cell: Cell, values: &[T], row_shape: &[usize], chunk_bytes: usize) -> Vec<T> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let writer = Writer::append(&path, "a/b").unwrap();
    let mut sink = Sink::new(&writer, &Alone).unwrap();
    let n_rows = values.len() / row_shape.iter().product::<usize>();
    let at = sink.dataset(&writer, "X", cell, n_rows as u64, row_shape, chunk_bytes).unwrap();
    let bytes: &[u8] = bytemuck::cast_slice(values);
    for (k, piece) in bytes.chunks(977).enumerate() {
        let (a, b) = piece.split_at(piece.len().min(k % 5));
        sink.push(at, a).unwrap();
        sink.push(at, b).unwrap();
    }
    sink.finish().unwrap();
    writer.close().unwrap();
    File::open(&path).unwrap().dataset("a/b/X").unwrap().read_raw().unwrap()
}

#[test]
fn the_library_reads_what_was_written_past_its_filters() {
    let mut draw = 1u64;
    let mut next = || {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        draw >> 33
    };
    for (n_rows, width) in [(1, 1), (15, 3), (16, 3), (1009, 7), (4099, 1)] {
        let noise: Vec<f64> = (0..n_rows * width).map(|_| f64::from_bits(next() << 31 | next() >> 1)).collect();
        let noise: Vec<f64> = noise.into_iter().map(|v| if v.is_nan() { 0.0 } else { v }).collect();
        let even: Vec<i16> = (0..n_rows * width).map(|i| (i % 100) as i16 - 50).collect();
        let small: Vec<u8> = (0..n_rows * width).map(|_| next() as u8).collect();
        for chunk_bytes in [64, 5000, 1 << 20] {
            assert_eq!(written(Cell::F64, &noise, &[width], chunk_bytes), noise, "{n_rows} × {width}");
            assert_eq!(written(Cell::I16, &even, &[width], chunk_bytes), even, "{n_rows} × {width}");
            assert_eq!(written(Cell::U8, &small, &[width, 1], chunk_bytes), small, "{n_rows} × {width}");
        }
    }
}

#[test]
fn too_few_and_too_many_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::append(&folder.path().join("t.h5"), "").unwrap();
    let mut sink = Sink::new(&writer, &Alone).unwrap();
    let x = sink.dataset(&writer, "X", Cell::U8, 5, &[2], 1 << 20).unwrap();
    sink.push(x, &[1; 10]).unwrap();
    let y = sink.dataset(&writer, "y", Cell::Text(3), 2, &[], 1 << 20).unwrap();
    assert!(sink.push(x, &[1]).unwrap_err().to_string().contains("changed"));
    assert!(sink.push_text(y, b"long").is_err());
    sink.push_text(y, b"abc").unwrap();
    assert!(sink.finish().unwrap_err().to_string().starts_with("'y'"));
}

#[test]
fn attributes_may_be_larger_than_an_object_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let writer = Writer::append(&path, "").unwrap();
    let mut sink = Sink::new(&writer, &Alone).unwrap();
    sink.dataset(&writer, "X", Cell::Bool, 0, &[2], 1 << 20).unwrap();
    sink.finish().unwrap();
    let names: Vec<String> = (0..10_000).map(|i| format!("category {i}")).collect();
    writer.text_attribute("X", "categories", &names).unwrap();
    writer.word_attribute("", "version", "1").unwrap();
    writer.word_attribute("", "version", "2").unwrap();
    writer.close().unwrap();
    let file = File::open(&path).unwrap();
    let found: Vec<VarLenUnicode> = file.dataset("X").unwrap().attr("categories").unwrap().read_raw().unwrap();
    assert_eq!(found.len(), names.len());
    assert!(found.iter().zip(&names).all(|(found, name)| found.as_str() == name));
    assert_eq!(file.attr("version").unwrap().read_scalar::<VarLenUnicode>().unwrap().as_str(), "2");
}

#[test]
fn chunks_are_whole_rows_of_about_a_megabyte() {
    assert_eq!(chunk_rows(4, 10, CHUNK_BYTES), 10);
    assert_eq!(chunk_rows(28 * 4, 1 << 40, CHUNK_BYTES), 9376);
    assert_eq!(chunk_rows(100_000, 1000, CHUNK_BYTES), 16);
    assert_eq!(chunk_rows(2 << 20, 1000, CHUNK_BYTES), 1);
    assert_eq!(chunk_rows(0, 0, CHUNK_BYTES), 1);
}
