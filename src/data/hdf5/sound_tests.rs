use super::super::heap::Heap;
use super::super::repack::{RepackOptions, repack};
use super::super::text_rows::TextRows;
use super::super::types::{attributes_of, open_to_read, text_attribute};
use super::*;
use crate::data::crew::Alone;
use crate::data::damage::damage;
use crate::data::describe::describe;
use crate::rng::{Draws, Stream};
use ::hdf5::File;
use ::hdf5::types::{VarLenArray, VarLenUnicode};
use std::os::unix::fs::FileExt;
use std::path::Path;

#[derive(hdf5::H5Type, Clone)]
#[repr(C)]
struct Named {
    size: i16,
    name: VarLenUnicode,
}

#[derive(hdf5::H5Type, Clone)]
#[repr(C)]
struct Reading {
    site: VarLenUnicode,
    depth: f64,
    list: VarLenArray<u16>,
    inner: Named,
    pair: [VarLenUnicode; 2],
}

const ROWS: usize = 60;

fn text(word: &str) -> VarLenUnicode {
    word.parse().unwrap()
}

/// A file with everything that leads into the heap: attributes of strings, lists and compounds, a compound dataset, one of lists, and
/// one of strings with a fill value and chunks that were never written.
fn made(path: &Path, latest: bool) {
    let mut options = File::with_options();
    if latest {
        options.with_fapl(|access| access.libver_latest());
    }
    let file = options.create(path).unwrap();
    let title = file.new_attr::<VarLenUnicode>().create("heading").unwrap();
    title.write_scalar(&text("a title")).unwrap();
    let x = file.new_dataset_builder().with_data(&ndarray::Array2::<f64>::zeros((ROWS, 2))).create("X").unwrap();
    x.new_attr_builder().with_data(&[text("mass"), text("energy")]).create("columns").unwrap();
    x.new_attr_builder().with_data(&[Named { size: 3, name: text("m") }]).create("named").unwrap();
    x.new_attr_builder().with_data(&[VarLenArray::from_slice(&[1u16, 2, 3])]).create("list").unwrap();
    let rows: Vec<Reading> = (0..ROWS)
        .map(|row| Reading {
            site: text(&format!("site {row}")),
            depth: row as f64,
            list: VarLenArray::from_slice(&[7u16, 8, 9][..row % 4]),
            inner: Named { size: 1, name: text(&format!("inner {}", row % 5)) },
            pair: [text("a"), text(&format!("b{row}"))],
        })
        .collect();
    file.new_dataset_builder().chunk(20).with_data(&rows).create("readings").unwrap();
    let lists: Vec<VarLenArray<u16>> = rows.iter().map(|row| row.list.clone()).collect();
    file.new_dataset_builder().with_data(&lists).create("lists").unwrap();
    let filled = file.new_dataset::<VarLenUnicode>().chunk(10).fill_value(text("none")).shape(ROWS);
    filled.create("filled").unwrap().write_slice(&[text("k"), text("l")], 13..15).unwrap();
    file.close().unwrap();
}

fn quiet(input: &Path, out: &Path) -> Result<()> {
    let options = RepackOptions { replace: true, ..RepackOptions::default() };
    repack(input, out, &options, &Alone, &mut |_| ()).map(drop)
}

#[test]
fn what_leads_into_a_whole_heap_is_read_and_may_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    for latest in [false, true] {
        let path = folder.path().join(format!("{latest}.h5"));
        made(&path, latest);
        let file = open_to_read(&path).unwrap();
        let x = open(&file, "X").unwrap();
        assert_eq!(text_attribute(&file, "heading").unwrap(), ["a title"]);
        assert_eq!(text_attribute(&x, "columns").unwrap(), ["mass", "energy"]);
        assert_eq!(text_attribute(&x, "list"), None);
        for name in x.attr_names().unwrap() {
            check_attribute(&x.attr(&name).unwrap()).unwrap();
        }
        for name in ["readings", "lists", "filled"] {
            check_values(&open(&file, name).unwrap()).unwrap();
        }
        // Through the library as in the file.
        let dataset = open(&file, "readings").unwrap();
        let walk = Walk::of(&dataset, 1).unwrap();
        let form = walk.form(&dataset.dtype().unwrap()).unwrap();
        let index = StoredIndex::of_values(&dataset, form.n_bytes).unwrap();
        let raw = Arc::new(std::fs::File::open(&path).unwrap());
        let stored = StoredRows::new(index, raw, Arc::default(), 0);
        let mut ways = [(); 2].map(|()| vec![0; ROWS * form.n_bytes]);
        stored.read_as_stored(0..ROWS as u64, &mut ways[0], &|_| ()).unwrap();
        LibraryRows::new(dataset, None).read_as_stored(0..ROWS as u64, &form, &mut ways[1]).unwrap();
        let (Holds::Fields(fields), [past, through]) = (&form.holds, &ways) else { panic!("{form:?}") };
        assert_eq!((fields.len(), form.n_bytes), (4, 96), "all but the depth");
        for (row, (past, through)) in past.chunks(form.n_bytes).zip(through.chunks(form.n_bytes)).enumerate() {
            // Of the field inside a field its number is not asked for.
            let strings = [0..16, 24..40, 48..64, 64..96];
            strings
                .into_iter()
                .for_each(|place| assert_eq!(past[place.clone()], through[place.clone()], "{row} {place:?}"));
        }
        let out = folder.path().join("out.h5");
        quiet(&path, &out).unwrap();
        let new = open_to_read(&out).unwrap();
        let sites = |file: &File| -> Vec<Reading> { open(file, "readings").unwrap().read_raw().unwrap() };
        assert!(sites(&file).iter().zip(&sites(&new)).all(|(a, b)| a.site == b.site && a.list == b.list));
        assert_eq!(attributes_of(&file), attributes_of(&new));
    }
}

/// The places of `what` in `bytes`.
fn places_of(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    (0..bytes.len() - what.len()).filter(|&at| bytes[at..].starts_with(what)).collect()
}

#[test]
fn descriptors_that_lead_astray_are_refused_before_the_library_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("t.h5"), folder.path().join("out.h5"));
    made(&path, false);
    let bytes = std::fs::read(&path).unwrap();
    let heap = places_of(&bytes, b"GCOL")[0] as u64;
    let of_descriptor = places_of(&bytes, &heap.to_le_bytes());
    // A header that grew can have a name twice: its old place is not cleared.
    let after = |name: &[u8]| -> Vec<usize> {
        let next = |at: usize| of_descriptor.iter().copied().find(|place| *place > at);
        places_of(&bytes, name).into_iter().filter_map(next).collect()
    };
    let refused = |places: &[usize], offset: i64, patch: &[u8]| {
        let mut damaged = bytes.clone();
        for place in places {
            let at = (*place as i64 + offset) as usize;
            damaged[at..at + patch.len()].copy_from_slice(patch);
        }
        std::fs::write(&path, &damaged).unwrap();
        describe(&path).unwrap();
        let message = quiet(&path, &out).unwrap_err().to_string();
        assert!(!out.exists());
        message
    };
    let is_said = |message: String, what: &str| assert!(message.contains(what), "{message}");
    let (heading, columns) = (after(b"heading\0"), after(b"columns\0"));
    is_said(refused(&heading, 0, &[255; 8]), "t.h5: '/': its attribute 'heading' cannot be read: it has a length, but");
    is_said(refused(&columns, -4, &[9]), "t.h5: 'X': its attribute 'columns' cannot be read: it has another length");
    is_said(
        refused(&columns, 8, &[255, 255]),
        "its attribute 'columns' cannot be read: its descriptor names an object",
    );
    is_said(
        refused(&columns, 0, &[0, 0, 0, 127]),
        "its attribute 'columns' cannot be read: its descriptor leads out of",
    );
    // The fourth row of the first chunk.
    let file = open_to_read(&path).unwrap();
    let chunk = file.dataset("readings").unwrap().chunk_info(0).unwrap().addr as usize;
    drop(file);
    is_said(
        refused(&[chunk + 3 * 96 + 24], 0, &[200]),
        "t.h5: 'readings': row 3 cannot be read: it has another length",
    );
    is_said(
        refused(&[chunk + 3 * 96 + 64 + 12], 0, &[200, 200]),
        "t.h5: 'readings': row 3 cannot be read: its descriptor",
    );
    // An object whose number is that of another: the library would take the last one.
    let second = heap as usize + 16 + 16 + 8;
    is_said(refused(&[second], 0, &bytes[heap as usize + 16..heap as usize + 18]), "the objects of its collection");
    // Free space of no length: the library would go round there for ever.
    is_said(
        refused(&[second], 0, &[0; 16]),
        "the objects of its collection in the file's heap do not follow one another",
    );
}

#[test]
fn a_fill_value_that_leads_astray_is_refused_when_its_dataset_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    for latest in [false, true] {
        made(&path, latest);
        let file = open_to_read(&path).unwrap();
        let fills = fills_of(&open(&file, "filled").unwrap()).unwrap();
        let fill = fills.new.unwrap();
        assert_eq!(fill.len(), 16);
        assert_eq!(fills_of(&open(&file, "readings").unwrap()).unwrap().new, None);
        // A fill value read past the library.
        let rows = TextRows::of(&open(&file, "filled").unwrap()).unwrap();
        let mut texts = Vec::new();
        let each = |_: usize, text: &[u8]| {
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            Ok(())
        };
        rows.read(12..21, 1, &mut rows.allowance(9), &mut Vec::new(), each).unwrap();
        assert_eq!(texts, ["none", "k", "l", "none", "none", "none", "none", "none", "none"]);
        assert_eq!(rows.written(&(0..60)), std::slice::from_ref(&(10..20)));
        assert_eq!(rows.written(&(12..15)), std::slice::from_ref(&(12..15)));
        assert_eq!(rows.written(&(20..60)), []);
        drop((rows, file));
        if latest {
            // Its header has a checksum.
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        for at in places_of(&bytes, &fill) {
            bytes[at + 4..at + 12].copy_from_slice(&96u64.to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let file = open_to_read(&path).unwrap();
        let message = reason(&open(&file, "filled").unwrap_err());
        assert_eq!(
            message,
            "its fill value cannot be read: its descriptor leads to no collection of the file's heap: the file is damaged"
        );
        drop(file);
        let message = quiet(&path, &folder.path().join("out.h5")).unwrap_err().to_string();
        assert!(message.contains("'filled': cannot be read: its fill value"), "{message}");
    }
}

#[test]
fn a_layout_of_a_newer_version_is_said_with_the_version_that_is_read_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    made(&path, false);
    let mut bytes = std::fs::read(&path).unwrap();
    let file = open_to_read(&path).unwrap();
    let place = file.dataset("X").unwrap().offset().unwrap();
    drop(file);
    // Version 3, contiguous, there.
    let layout = places_of(&bytes, &[&[3, 1][..], &place.to_le_bytes()].concat())[0];
    bytes[layout] = 5;
    std::fs::write(&path, &bytes).unwrap();
    let message = quiet(&path, &folder.path().join("out.h5")).unwrap_err().to_string();
    let (major, minor, release) = ::hdf5::library_version();
    let expected = format!("newer format than the HDF5 library {major}.{minor}.{release} here reads");
    assert!(message.contains("'X'") && message.contains(&expected) && message.contains("--high=2"), "{message}");
}

/// The library in this process would crash on many of these.
#[test]
fn damaged_heaps_behind_attributes_compounds_and_lists_never_reach_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("t.h5"), folder.path().join("out.h5"));
    made(&path, false);
    let bytes = std::fs::read(&path).unwrap();
    let collections = places_of(&bytes, b"GCOL");
    let (heap, draws) = (collections[0], Draws::new(5, Stream::Synthetic));
    let descriptors = places_of(&bytes, &(heap as u64).to_le_bytes());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let mut counts = [0, 0];
    for draw in 0..400u64 {
        // The begin of the heap, its objects, or one descriptor.
        let place = match draw % 4 {
            0 => heap..heap + 200,
            1 => heap..heap + 4096,
            _ => {
                let at = descriptors[draws.below(descriptors.len() as u64, draw, 9) as usize];
                at - 4..at + 12
            }
        };
        let mut damaged = bytes[place.clone()].to_vec();
        damage(&mut damaged, draws, draw);
        damaged.resize(place.len(), 0);
        file.write_all_at(&damaged, place.start as u64).unwrap();
        describe(&path).unwrap();
        let repacked = quiet(&path, &out);
        assert_eq!(out.exists(), repacked.is_ok());
        let _ = std::fs::remove_file(&out);
        counts[usize::from(repacked.is_err())] += 1;
        file.write_all_at(&bytes[place.clone()], place.start as u64).unwrap();
    }
    println!("{counts:?} repacked and refused");
    assert!(counts[0] > 40 && counts[1] > 150, "{counts:?}");
    quiet(&path, &out).unwrap();
}

#[test]
fn a_heap_is_followed_only_where_the_library_would_come_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    made(&path, false);
    let file = open_to_read(&path).unwrap();
    let heap: Heap = heap_of(&file, 0).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = places_of(&bytes, b"GCOL")[0] as u64;
    let descriptor =
        |n: u32, at: u64, number: u32| [&n.to_le_bytes()[..], &at.to_le_bytes(), &number.to_le_bytes()].concat();
    let mut allowance = heap.allowance(8);
    let mut follow = |descriptor: Vec<u8>, each: u64, wanted| heap.follow(&descriptor, each, wanted, &mut allowance);
    assert_eq!(follow(descriptor(7, at, 1), 1, true).unwrap(), b"a title");
    assert_eq!(follow(descriptor(1, at, 1), 7, false).unwrap(), b"");
    assert_eq!(follow(descriptor(9, 0, 1), 1, true).unwrap(), b"", "without an address");
    // The library would copy seven bytes to a place for none.
    assert!(follow(descriptor(0, at, 1), 1, true).unwrap_err().contains("another length"));
    assert!(follow(descriptor(7, at, 1), u64::MAX, true).unwrap_err().contains("another length"));
    assert!(follow(descriptor(0, u64::MAX, 1), 1, true).unwrap_err().contains("leads nowhere"));
}
