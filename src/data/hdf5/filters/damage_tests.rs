//! Decoders on damaged bytes: they may refuse or give other values, but neither panic nor take more memory than a chunk can.

use super::super::index::chunks_at;
use super::super::types::{filters_of, header_address, open_to_read, stored_bytes};
use super::*;
use crate::data::damage::damage;
use crate::rng::{Draws, Stream};
use std::os::unix::fs::FileExt;

const DAMAGES_PER_CHUNK: u64 = 150;

/// A chunk as it is stored.
struct Chunk {
    name: String,
    filters: Vec<Filter>,
    mask: u32,
    stored: Vec<u8>,
    decoded_bytes: usize,
}

/// The chunks of every dataset of a file that is decoded past the library.
fn chunks(path: &std::path::Path) -> Vec<Chunk> {
    let file = open_to_read(path).unwrap();
    let raw = std::fs::File::open(path).unwrap();
    let mut groups = vec![file.as_group().unwrap()];
    let mut chunks = Vec::new();
    while let Some(group) = groups.pop() {
        groups.extend(group.groups().unwrap());
        for dataset in group.datasets().unwrap() {
            let uses = filters_of(&dataset).unwrap();
            let filters: std::result::Result<Vec<Filter>, _> =
                uses.iter().map(|of| Filter::of(of.id, &of.values)).collect();
            let (Ok(filters), Some((element_bytes, _))) = (filters, stored_bytes(&dataset.dtype().unwrap())) else {
                continue;
            };
            let wide = |sizes: Vec<usize>| -> Vec<u64> { sizes.iter().map(|&n| n as u64).collect() };
            let (shape, chunk) = (wide(dataset.shape()), wide(dataset.chunk().unwrap()));
            let header = header_address(&dataset).unwrap();
            for place in chunks_at(&raw, 0, header, &shape, &chunk).unwrap().into_iter().flatten() {
                let mut stored = vec![0; place.stored_bytes as usize];
                raw.read_exact_at(&mut stored, place.offset).unwrap();
                let decoded_bytes = chunk.iter().product::<u64>() as usize * element_bytes;
                let name = dataset.name();
                chunks.push(Chunk { name, filters: filters.clone(), mask: place.mask, stored, decoded_bytes });
            }
        }
    }
    chunks
}

/// Datasets of the library's own filters, one chunk each.
fn of_the_library(path: &std::path::Path) {
    use hdf5::filters::{Filter as Written, ScaleOffset};
    let file = hdf5::File::create(path).unwrap();
    let values: Vec<i32> = (0..500).map(|i| i * i % 1009 - 300).collect();
    let floats: Vec<f64> = values.iter().map(|&v| f64::from(v) / 7.0).collect();
    let scaled = |mode| Written::scale_offset(mode);
    let pipelines: [&[Written]; 6] = [
        &[Written::deflate(6)],
        &[Written::shuffle(), Written::deflate(6), Written::fletcher32()],
        &[Written::fletcher32(), Written::deflate(6)],
        &[Written::fletcher32()],
        &[scaled(ScaleOffset::Integer(0))],
        &[scaled(ScaleOffset::Integer(0)), Written::shuffle(), Written::deflate(1)],
    ];
    for (i, filters) in pipelines.into_iter().enumerate() {
        let builder = file.new_dataset_builder().chunk(500).set_filters(filters);
        builder.with_data(&values).create(format!("d{i}").as_str()).unwrap();
    }
    let builder = file.new_dataset_builder().chunk(500).set_filters(&[scaled(ScaleOffset::FloatDScale(3))]);
    builder.with_data(&floats).create("floats").unwrap();
    file.close().unwrap();
}

#[test]
fn damaged_chunks_neither_panic_nor_take_more_memory_than_a_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    of_the_library(&path);
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts/filtered.h5");
    let chunks: Vec<Chunk> = [chunks(&path), chunks(&committed)].into_iter().flatten().collect();
    let (mut n_refused, mut n_decoded, mut n_sealed) = (0, 0, 0);
    for (number, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.mask == 0) {
        let draws = Draws::new(number as u64, Stream::Synthetic);
        // The long ones take their time.
        let n = if chunk.decoded_bytes > 10_000 { DAMAGES_PER_CHUNK / 5 } else { DAMAGES_PER_CHUNK };
        let is_sealed = chunk.filters.last() == Some(&Filter::Fletcher32);
        for draw in 0..n {
            let mut stored = chunk.stored.clone();
            (0..1 + draw % 3).for_each(|again| damage(&mut stored, draws, draw * 3 + again));
            let is_same = stored == chunk.stored;
            let longest = stored.len().max(chunk.decoded_bytes);
            let mut decoder = Decoder::new();
            decoder.stored().extend_from_slice(&stored);
            let decoded = decoder.decode(&chunk.filters, chunk.mask, chunk.decoded_bytes).map(<[u8]>::len);
            match decoded {
                Ok(n_bytes) => {
                    assert_eq!(n_bytes, chunk.decoded_bytes, "{}", chunk.name);
                    assert!(!is_sealed || is_same, "{}: damage {draw} was not noticed", chunk.name);
                    n_decoded += 1;
                }
                Err(e) => {
                    assert!(e.to_string().len() < 100, "{}: {e}", chunk.name);
                    n_refused += 1;
                    n_sealed += usize::from(is_sealed);
                }
            }
            // A vector that grows has up to twice what it needs.
            let most = match chunk.filters.len() {
                1 => 2 * longest + 64,
                _ => 2 * longest.max(16 * chunk.decoded_bytes + (64 << 10)),
            };
            for buffer in [&decoder.stored, &decoder.undone, &decoder.spare] {
                assert!(buffer.capacity() <= most, "{}: {} bytes, not {most}", chunk.name, buffer.capacity());
            }
        }
    }
    println!(
        "{} chunks: {n_refused} damages refused, {n_decoded} decoded, {n_sealed} noticed by a checksum",
        chunks.len()
    );
    assert!(n_refused > 10_000 && n_decoded > 1000 && n_sealed > 1000, "{n_refused} {n_decoded} {n_sealed}");
}
