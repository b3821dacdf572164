use super::super::library::LibraryRows;
use super::super::write::Writer;
use super::*;
use crate::data::damage::damage;
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::{Block, DataSource, Targets};
use crate::rng::{Draws, Stream};
use ::hdf5::plist::file_create::{Sizeof, SizeofInfo};
use ::hdf5::types::VarLenUnicode;
use ::hdf5::{Dataset, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Words of every kind there is: empty, short, of more bytes than letters, some that fill a collection and some that need a larger one.
fn word(row: usize) -> String {
    match row % 97 {
        0 | 13 => String::new(),
        5 => "grün 漢字 🦀".to_string(),
        31 => "x".repeat(4096 + row),
        47 => format!("{row}-").repeat(2500),
        68 => "long ".repeat(20_000 + row),
        rest => format!("{rest}").repeat(1 + row % 7),
    }
}

fn words(n: usize) -> Vec<VarLenUnicode> {
    (0..n).map(|row| word(row).parse().unwrap()).collect()
}

fn ours(rows: &TextRows, of: Range<u64>, width: usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut allowance = rows.allowance((of.end - of.start) * width as u64);
    rows.read(of, width, &mut allowance, &mut Vec::new(), |index, text| {
        assert_eq!(index, found.len());
        found.push(String::from_utf8_lossy(text).into_owned());
        Ok(())
    })?;
    Ok(found)
}

/// With so much room for collections.
fn with_room(rows: TextRows, keep_bytes: u64) -> TextRows {
    TextRows { heap: rows.heap.with_room(keep_bytes), ..rows }
}

/// Rows of a dataset both ways, at some cuts and with room for one collection or for many.
pub(crate) fn same_both_ways(dataset: &Dataset, place: &str) -> std::result::Result<(), &'static str> {
    let shape: Vec<u64> = dataset.shape().iter().map(|&n| n as u64).collect();
    let (n, width) = (shape[0], shape[1..].iter().product::<u64>() as usize);
    for keep_bytes in [0, 1 << 20, 1 << 26] {
        let rows = with_room(TextRows::of(dataset)?, keep_bytes);
        for of in [0..n, n / 3..n, n / 2..(n / 2 + 1).min(n), n..n, 0..n / 2, 0..n] {
            let mut theirs = Vec::new();
            let each = |_, text: &[u8]| {
                theirs.push(String::from_utf8_lossy(text).into_owned());
                Ok(())
            };
            LibraryRows::new(dataset.clone(), None).read_text(of.clone(), each).unwrap();
            let ours = ours(&rows, of.clone(), width).unwrap_or_else(|e| panic!("{place}, rows {of:?}: {e}"));
            assert!(ours == theirs, "{place}, rows {of:?}, room {keep_bytes}");
        }
    }
    Ok(())
}

fn open_all(path: &Path) -> Vec<Dataset> {
    File::open(path).unwrap().datasets().unwrap()
}

#[test]
fn strings_of_any_length_are_those_that_the_library_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let sizes = |sizeof_addr, sizeof_size| SizeofInfo { sizeof_addr, sizeof_size };
    for (user_block, sizes, latest) in [
        (0, sizes(Sizeof::Bytes8, Sizeof::Bytes8), false),
        (512, sizes(Sizeof::Bytes8, Sizeof::Bytes8), true),
        (2048, sizes(Sizeof::Bytes4, Sizeof::Bytes4), false),
        (0, sizes(Sizeof::Bytes4, Sizeof::Bytes8), false),
        (0, sizes(Sizeof::Bytes8, Sizeof::Bytes4), false),
    ] {
        let mut options = File::with_options();
        options.with_fcpl(|create| create.userblock(user_block).sizes(sizes));
        if latest {
            options.with_fapl(|access| access.libver_latest());
        }
        let file = options.create(&path).unwrap();
        let texts = words(1009);
        let builder = || file.new_dataset_builder();
        builder().with_data(&texts).create("contiguous").unwrap();
        builder().chunk(100).shuffle().deflate(1).with_data(&texts).create("deflated").unwrap();
        builder().chunk(7).with_data(&texts[..50]).create("plain_chunks").unwrap();
        builder().with_data(&texts[..1]).create("one").unwrap();
        let ascii = ["a", "", "longer"].map(|text| ::hdf5::types::VarLenAscii::from_ascii(text).unwrap());
        builder().with_data(&ascii).create("ascii").unwrap();
        let layout = ::hdf5::dataset::Layout::Compact;
        builder().layout(layout).with_data(&texts[..90]).create("compact").unwrap();
        let table = ndarray::Array2::from_shape_vec((200, 5), texts[..1000].to_vec()).unwrap();
        builder().chunk((30, 2)).deflate(3).with_data(&table).create("table").unwrap();
        // Written again: objects and collections were freed and used again.
        let again = builder().chunk(100).with_data(&texts).create("again").unwrap();
        let turned: Vec<VarLenUnicode> = texts.iter().rev().cloned().collect();
        again.write(&turned).unwrap();
        again.write_slice(&texts[..300], 500..800).unwrap();
        // Chunks of their own that nobody wrote, and an end that came later.
        let shape = ::hdf5::Extent::resizable(100);
        let holes = file.new_dataset::<VarLenUnicode>().chunk(10).deflate(1).shape(shape).create("holes").unwrap();
        holes.write_slice(&texts[..25], 30..55).unwrap();
        holes.resize(1000).unwrap();
        holes.write_slice(&texts[..3], 997..1000).unwrap();
        drop((again, holes));
        file.close().unwrap();
        for dataset in open_all(&path) {
            let place = format!("{} in {user_block}, {sizes:?}", dataset.name());
            same_both_ways(&dataset, &place).unwrap_or_else(|why| panic!("{place}: {why}"));
        }
    }
}

#[test]
fn strings_that_were_never_written_are_empty_or_the_fill_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = File::create(&path).unwrap();
    let fill: VarLenUnicode = "nothing".parse().unwrap();
    let builder = || file.new_dataset::<VarLenUnicode>().shape(40);
    builder().create("contiguous").unwrap();
    builder().chunk(10).create("chunked").unwrap();
    builder().chunk(10).fill_value(fill.clone()).create("filled").unwrap();
    let whole = builder().chunk(10).fill_value(fill).create("filled_whole").unwrap();
    whole.write(&words(40)).unwrap();
    drop(whole);
    file.close().unwrap();
    let mut ways = Vec::new();
    for dataset in open_all(&path) {
        ways.push((dataset.name(), same_both_ways(&dataset, &dataset.name()).err()));
        let names = TableNames { features: vec![dataset.name()], ..TableNames::default() };
        let mut source = Hdf5Source::open(std::slice::from_ref(&path), &names, Need::Predict).unwrap();
        let mut block = Block::empty();
        source.read(38..40, &mut block).unwrap();
        let expected = match dataset.name().as_str() {
            "/filled" => vec!["nothing".to_string(); 2],
            "/filled_whole" => vec![word(38), word(39)],
            _ => vec![String::new(); 2],
        };
        assert_eq!(block.text[0], expected, "{}", dataset.name());
    }
    let never = "its bytes were never written, or are in other files";
    assert_eq!(
        ways,
        [
            ("/chunked".to_string(), None),
            ("/contiguous".to_string(), Some(never)),
            ("/filled".to_string(), None),
            ("/filled_whole".to_string(), None),
        ]
    );
}

#[derive(hdf5::H5Type, Clone)]
#[repr(C)]
struct Inner {
    kind: VarLenUnicode,
    size: i16,
}

#[derive(hdf5::H5Type, Clone)]
#[repr(C)]
struct Reading {
    site: VarLenUnicode,
    depth: f64,
    list: ::hdf5::types::VarLenArray<u16>,
    inner: Inner,
    pair: [VarLenUnicode; 2],
    label: VarLenUnicode,
    count: u32,
}

/// The library tells where fields are in memory, where a string takes fewer bytes than its descriptor does in the file.
#[test]
fn fields_beside_strings_of_any_length_are_read_from_where_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let reading = |row: usize| Reading {
        site: word(row).parse().unwrap(),
        depth: row as f64 / 4.0,
        list: ::hdf5::types::VarLenArray::from_slice(&[row as u16, 1, 2][..row % 3]),
        inner: Inner { kind: word(row + 1).parse().unwrap(), size: -(row as i16) },
        pair: [word(row + 2).parse().unwrap(), word(row + 3).parse().unwrap()],
        label: format!("class {}", row % 3).parse().unwrap(),
        count: row as u32 * 7,
    };
    for (sizeof_addr, latest) in [(Sizeof::Bytes8, false), (Sizeof::Bytes4, true)] {
        let mut options = File::with_options();
        options.with_fcpl(|create| create.sizes(SizeofInfo { sizeof_addr, sizeof_size: Sizeof::Bytes8 }));
        if latest {
            options.with_fapl(|access| access.libver_latest());
        }
        let file = options.create(&path).unwrap();
        let rows: Vec<Reading> = (0..300).map(reading).collect();
        file.new_dataset_builder().with_data(&rows).create("contiguous").unwrap();
        file.new_dataset_builder().chunk(41).shuffle().deflate(1).with_data(&rows).create("chunked").unwrap();
        let layout = ::hdf5::dataset::Layout::Compact;
        file.new_dataset_builder().layout(layout).with_data(&rows[..270]).create("compact").unwrap();
        file.close().unwrap();
        for name in ["contiguous", "chunked", "compact"] {
            let field = |field: &str| format!("{name}/{field}");
            let names = TableNames {
                features: ["site", "depth", "inner/kind", "inner/size", "pair"].map(field).to_vec(),
                target: Some(field("label")),
                weight: Some(field("count")),
                ..TableNames::default()
            };
            let mut source = Hdf5Source::open(std::slice::from_ref(&path), &names, Need::Train).unwrap();
            assert_eq!(source.through_library(), [], "{name}");
            let mut block = Block::empty();
            for of in [0..source.schema().n_rows, 100..131] {
                source.read(of.clone(), &mut block).unwrap();
                let rows = || of.clone().map(|row| row as usize);
                let crate::data::Values::F64(values) = &block.values else { panic!("narrow") };
                let numbers = rows().flat_map(|row| [row as f64 / 4.0, -(row as f64)]);
                assert!(values.iter().copied().eq(numbers), "{name} {of:?}");
                for (column, ahead) in [0, 1, 2, 3].into_iter().enumerate() {
                    assert!(
                        block.text[column].iter().cloned().eq(rows().map(|row| word(row + ahead))),
                        "{name} {column}"
                    );
                }
                let weights = rows().map(|row| row as f64 * 7.0);
                assert!(block.weight.as_ref().unwrap().iter().copied().eq(weights), "{name}");
                let Targets::Text(labels) = &block.target else { panic!("no strings") };
                assert!(labels.iter().cloned().eq(rows().map(|row| format!("class {}", row % 3))), "{name}");
            }
        }
    }
}

/// A file of strings at a path, the place of its first descriptor, and those of its collections.
fn small_file(path: &Path) -> (u64, Vec<usize>) {
    let writer = Writer::append(path, "").unwrap();
    let long = "long ".repeat(14_000);
    // The library packs up to 64 KiB of them together.
    let text = |row: usize| match row {
        200 => long.clone(),
        0..20 => format!("row {row}"),
        _ => format!("row {row} {}", "x".repeat(300)),
    };
    let texts: Vec<String> = (0..400).map(text).collect();
    writer.text("y", &texts).unwrap();
    writer.close().unwrap();
    let file = File::open(path).unwrap();
    let first = file.dataset("y").unwrap().offset().unwrap();
    let bytes = std::fs::read(path).unwrap();
    let collections = (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"GCOL")).collect();
    (first, collections)
}

#[test]
fn what_is_wrong_with_a_heap_is_said_with_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let (first, collections) = small_file(&path);
    let bytes = std::fs::read(&path).unwrap();
    let descriptor = |row: usize| first as usize + 16 * row;
    let of_row = |row: usize| {
        let at = descriptor(row) + 4;
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    let (small, large, other) = (of_row(0), of_row(200), of_row(399));
    assert!(small != other && collections.len() == 3, "{collections:?}");
    let read = |at: usize, patch: &[u8]| {
        let mut damaged = bytes.clone();
        damaged[at..at + patch.len()].copy_from_slice(patch);
        std::fs::write(&path, &damaged).unwrap();
        let names = TableNames { features: vec!["y".to_string()], ..TableNames::default() };
        let mut source = Hdf5Source::open(std::slice::from_ref(&path), &names, Need::Predict)?;
        let mut block = Block::empty();
        source.read(0..400, &mut block).map(|()| block.text.remove(0))
    };
    let expected: Vec<String> = read(0, &bytes[..1]).unwrap();
    assert_eq!((expected[7].as_str(), expected[200].len()), ("row 7", 70_000));
    // Descriptors of nothing: no length, no address.
    assert_eq!(read(descriptor(7), &[0; 4]).unwrap()[7], "");
    assert_eq!(read(descriptor(7) + 4, &[0; 8]).unwrap()[7], "");
    let is_refused = |at: usize, patch: &[u8], row: usize, why: &str| {
        let error = read(at, patch).unwrap_err().to_string();
        let expected = format!("t.h5: 'y': the string at row {row} cannot be read: {why}");
        assert!(error.contains(&expected), "{at}: {error}\n{expected}");
    };
    // The library took these four for the length of a buffer, or went wherever they led.
    is_refused(descriptor(7), &[6], 7, "it has another length");
    is_refused(descriptor(7), &[255; 4], 7, "it has another length");
    is_refused(descriptor(200), &[255; 4], 200, "it has another length");
    is_refused(descriptor(7) + 4, &[255, 255, 255, 255, 255, 255, 255, 127], 7, "its descriptor leads out of the file");
    is_refused(descriptor(7) + 4, &(bytes.len() as u64 - 3).to_le_bytes(), 7, "its descriptor leads to no collection");
    is_refused(descriptor(7) + 4, &96u64.to_le_bytes(), 7, "its descriptor leads to no collection");
    is_refused(descriptor(7) + 4, &[255; 8], 7, "it has a length, but its descriptor leads nowhere");
    is_refused(descriptor(7) + 12, &[0; 4], 7, "its descriptor names an object");
    is_refused(descriptor(7) + 12, &[255; 4], 7, "its descriptor names an object");
    is_refused(descriptor(200) + 12, &[9], 200, "its descriptor names an object");
    is_refused(small, b"GCOX", 0, "its descriptor leads to no collection");
    is_refused(small + 8, &[0; 8], 0, "the objects of its collection");
    is_refused(small + 8, &[255; 8], 0, "its collection in the file's heap ends beyond the end");
    is_refused(
        small + 8,
        &(u64::from(u32::MAX) << 12).to_le_bytes(),
        0,
        "its collection in the file's heap ends beyond",
    );
    is_refused(small + 24, &[255; 8], 0, "the objects of its collection");
    is_refused(small + 24, &65_520u64.to_le_bytes(), 0, "the objects of its collection");
    is_refused(small + 16, &[0; 16], 0, "its descriptor names an object");
    is_refused(large + 24, &[255; 8], 200, "the objects of its collection");
}

#[test]
fn many_rows_of_one_long_string_take_no_more_than_the_file_and_some() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let (first, _) = small_file(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = |row: usize| first as usize + 16 * row..first as usize + 16 * (row + 1);
    // Some may share it.
    let rows = TextRows::of(&open_all(&path)[0]).unwrap();
    bytes.copy_within(at(200), at(3).start);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(ours(&rows, 0..100, 1).unwrap()[3].len(), 70_000);
    (0..400).for_each(|row| bytes.copy_within(at(200), at(row).start));
    std::fs::write(&path, &bytes).unwrap();
    let rows = TextRows::of(&open_all(&path)[0]).unwrap();
    let error = ours(&rows, 0..400, 1).unwrap_err().to_string();
    let most = (bytes.len() + 64 * 400) / 70_000;
    assert!(
        error.contains(&format!("the string at row {most} cannot be read: the strings so far are longer")),
        "{error}"
    );
}

#[test]
fn damaged_categories_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = File::create(&path).unwrap();
    let group = file.create_group("kind").unwrap();
    group.new_dataset_builder().with_data(&[0i8, 1, 0]).create("codes").unwrap();
    let texts = ["no", "yes"].map(|text| text.parse::<VarLenUnicode>().unwrap());
    group.new_dataset_builder().with_data(&texts).create("categories").unwrap();
    let first = group.dataset("categories").unwrap().offset().unwrap() as usize;
    drop(group);
    file.close().unwrap();
    let names = TableNames { features: vec!["kind".to_string()], ..TableNames::default() };
    let read = || {
        let mut source = Hdf5Source::open(std::slice::from_ref(&path), &names, Need::Predict)?;
        let mut block = Block::empty();
        source.read(0..3, &mut block).map(|()| block.text.remove(0))
    };
    assert_eq!(read().unwrap(), ["no", "yes", "no"]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[first + 16..first + 20].fill(0x7f);
    std::fs::write(&path, &bytes).unwrap();
    let error = read().unwrap_err().to_string();
    assert!(
        error.contains("'kind': 'categories': the string at row 1 cannot be read: it has another length"),
        "{error}"
    );
}

#[test]
fn damaged_heaps_neither_panic_nor_give_more_than_the_file_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("t.h5");
    let (first, collections) = small_file(&path);
    let bytes = std::fs::read(&path).unwrap();
    let (index, sizes) = StoredIndex::of_text(&open_all(&path)[0], false).unwrap();
    let copy = folder.path().join("damaged.h5");
    let copy = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(copy);
    let file = Arc::new(copy.unwrap());
    // Descriptors, each collection's begin, and anywhere.
    let mut places = vec![first as usize..first as usize + 6400, 0..bytes.len()];
    places.extend(collections.iter().map(|&at| at..(at + 256).min(bytes.len())));
    let draws = Draws::new(4, Stream::Synthetic);
    let mut counts = [0, 0];
    for draw in 0..3000u64 {
        let place = places[draw as usize % places.len()].clone();
        let mut damaged = bytes[place.clone()].to_vec();
        (0..1 + draw % 4).for_each(|again| damage(&mut damaged, draws, draw * 4 + again));
        // Every second as long as it was, so that what comes after is where it was.
        if draw % 2 == 0 {
            damaged.resize(place.len(), 0);
        }
        let damaged = [&bytes[..place.start], &damaged, &bytes[place.end..]].concat();
        file.set_len(damaged.len() as u64).unwrap();
        file.write_all_at(&damaged, 0).unwrap();
        let index = StoredIndex { file_bytes: damaged.len() as u64, ..index.clone() };
        let heap = Heap::new(file.clone(), damaged.len() as u64, sizes, [0, 1 << 20][draw as usize % 2]);
        let rows = StoredRows::new(index, file.clone(), Arc::default(), 0);
        let rows = TextRows::new(Descriptors::Alone(Box::new(rows)), heap);
        match ours(&rows, 0..400, 1) {
            Ok(texts) => {
                assert_eq!(texts.len(), 400);
                // Each byte that is not UTF-8 is shown as three.
                assert!(texts.iter().map(String::len).sum::<usize>() <= 3 * (damaged.len() + 64 * 400));
                counts[0] += 1;
            }
            Err(e) => {
                let text = e.to_string();
                assert!(text.contains("the string at row") || text.contains("the file ends before"), "{text}");
                counts[1] += 1;
            }
        }
    }
    println!("{counts:?} read and refused");
    assert!(counts[0] > 300 && counts[1] > 300, "{counts:?}");
}
