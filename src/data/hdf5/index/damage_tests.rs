//! The index reader on damaged files: it may refuse or find other places, but neither panic, nor loop, nor go outside of the file.

use super::super::types::header_address;
use super::tables::lookup3;
use super::*;
use crate::data::damage::damage;
use crate::rng::{Draws, Stream};
use hdf5::Extent;
use hdf5::plist::dataset_create::AllocTime;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A dataset whose index is read.
struct Indexed {
    header: u64,
    shape: Vec<u64>,
    chunk: Vec<u64>,
}

/// A file with an index of every kind that its version has.
fn made(path: &Path, latest: bool) -> Vec<Indexed> {
    let mut builder = hdf5::File::with_options();
    if latest {
        builder.with_fapl(|access| access.libver_latest());
    }
    let file = builder.create(path).unwrap();
    let fixed = |n: usize| Extent::new(n, Some(n));
    let growing = Extent::resizable;
    type Case = (Vec<Extent>, Vec<usize>, bool, bool);
    let cases: Vec<Case> = vec![
        (vec![fixed(10)], vec![10], true, false),
        (vec![fixed(20)], vec![2], false, true),
        (vec![fixed(103), fixed(5)], vec![10, 2], true, false),
        (vec![fixed(1025)], vec![1], false, false),
        (vec![growing(3)], vec![1], false, false),
        (vec![growing(150)], vec![1], true, false),
        (vec![growing(40), growing(9)], vec![3, 3], true, false),
        (vec![growing(40), growing(40)], vec![2, 2], false, false),
    ];
    for (i, (shape, chunk, deflated, early)) in cases.into_iter().enumerate() {
        let mut builder = file.new_dataset::<u8>().chunk(&chunk[..]);
        if deflated {
            builder = builder.deflate(1);
        }
        if early {
            builder = builder.alloc_time(Some(AllocTime::Early));
        }
        let now: Vec<usize> = shape.iter().map(|extent| extent.dim).collect();
        let dataset = builder.shape(shape).create(format!("d{i}").as_str()).unwrap();
        let n: usize = now.iter().product();
        let values = (0..n).map(|i| i as u8).collect();
        dataset.write(&ndarray::ArrayD::from_shape_vec(ndarray::IxDyn(&now), values).unwrap()).unwrap();
    }
    file.close().unwrap();
    let file = hdf5::File::open(path).unwrap();
    let wide = |sizes: Vec<usize>| -> Vec<u64> { sizes.iter().map(|&n| n as u64).collect() };
    let datasets = file.datasets().unwrap();
    let indexed = datasets.iter().map(|dataset| Indexed {
        header: header_address(dataset).unwrap(),
        shape: wide(dataset.shape()),
        chunk: wide(dataset.chunk().unwrap()),
    });
    indexed.collect()
}

/// Structures with a checksum, from their first byte to that after their seal.
fn sealed(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    const SIGNATURES: [&[u8]; 10] =
        [b"OHDR", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB", b"BTHD", b"BTLF", b"BTIN"];
    let mut found = Vec::new();
    for at in 0..bytes.len().saturating_sub(8) {
        if !SIGNATURES.contains(&&bytes[at..at + 4]) {
            continue;
        }
        let is_end = |end: &usize| bytes[end - 4..*end] == lookup3(&bytes[at..end - 4]).to_le_bytes();
        // No structure of these files is longer.
        found.extend((at + 8..=bytes.len().min(at + 2500)).find(is_end).map(|end| at..end));
    }
    found
}

/// Reads all indexes of a file; returns how many were found. What is found lies within the file.
fn read_all(file: &File, indexed: &[Indexed]) -> usize {
    let file_bytes = file.metadata().unwrap().len();
    let mut n_found = 0;
    for Indexed { header, shape, chunk } in indexed {
        let Ok(places) = chunks_at(file, 0, *header, shape, chunk) else { continue };
        let n_chunks: u64 = shape.iter().zip(chunk).map(|(n, c)| n.div_ceil(*c)).product();
        assert!(places.len() as u64 == n_chunks && places.capacity() as u64 <= n_chunks + 8);
        for place in places.iter().flatten() {
            assert!(place.offset + place.stored_bytes <= file_bytes);
        }
        n_found += 1;
    }
    n_found
}

#[test]
fn damaged_indexes_neither_panic_nor_lead_out_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for latest in [false, true] {
        let (path, copy) = (folder.path().join(format!("{latest}.h5")), folder.path().join("damaged.h5"));
        let indexed = made(&path, latest);
        let bytes = std::fs::read(&path).unwrap();
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&copy).unwrap();
        let draws = Draws::new(u64::from(latest), Stream::Synthetic);
        let mut counts = [0, 0];
        // Anywhere in the file.
        for draw in 0..200 {
            let mut damaged = bytes.clone();
            (0..1 + draw % 4).for_each(|again| damage(&mut damaged, draws, draw * 4 + again));
            file.set_len(damaged.len() as u64).unwrap();
            file.write_all_at(&damaged, 0).unwrap();
            let n_found = read_all(&file, &indexed);
            counts[0] += indexed.len() - n_found;
            counts[1] += n_found;
        }
        assert!(counts[0] > 50 && counts[1] > 50, "{counts:?}");
        // Within the structures: what has no checksum is found by its signature, and checksums are made right again.
        let structures = match latest {
            true => sealed(&bytes),
            false => {
                (0..bytes.len() - 200).filter(|&at| bytes[at..].starts_with(b"TREE")).map(|at| at..at + 200).collect()
            }
        };
        assert!(structures.len() >= 8, "{}", structures.len());
        let headers = if latest {
            Vec::new()
        } else {
            indexed.iter().map(|i| i.header as usize..i.header as usize + 200).collect()
        };
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut counts = [0, 0];
        for (number, place) in structures.iter().chain(&headers).enumerate() {
            let n_sealed = if latest { 4 } else { 0 };
            for draw in 0..60 {
                let mut body = bytes[place.start..place.end - n_sealed].to_vec();
                let n = body.len();
                damage(&mut body, draws, (number as u64 + 1) << 32 | draw);
                body.resize(n, 0);
                if latest {
                    body.extend(lookup3(&body).to_le_bytes());
                }
                file.write_all_at(&body, place.start as u64).unwrap();
                let n_found = read_all(&file, &indexed);
                file.write_all_at(&bytes[place.clone()], place.start as u64).unwrap();
                counts[usize::from(n_found == indexed.len())] += 1;
            }
        }
        assert_eq!(read_all(&file, &indexed), indexed.len(), "the file as it was");
        println!("latest {latest}: {} structures, {counts:?} damages that hurt and that do not", structures.len());
        assert!(counts[0] > 300 && counts[1] > 100, "{counts:?}");
    }
}
