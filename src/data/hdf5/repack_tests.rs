use super::*;
use crate::data::crew::Alone;
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::synthetic::{self, Storage};
use crate::data::{Block, DataSource};

fn rows_of(path: &Path, names: &TableNames) -> Block {
    let mut source = Hdf5Source::open(&[path.to_path_buf()], names, Need::Train).unwrap();
    let mut block = Block::empty();
    source.read(0..source.schema().n_rows, &mut block).unwrap();
    block
}

fn quiet(input: &Path, out: &Path, options: &RepackOptions) -> Result<RepackReport> {
    repack(input, out, options, &Alone, &mut |_| ())
}

/// A table whose rows lie in several chunks each, with an attribute, beside links and a string of any length.
fn odd_file(folder: &Path) -> PathBuf {
    let path = folder.join("odd.h5");
    let file = hdf5::File::create(&path).unwrap();
    let group = file.create_group("train").unwrap();
    let x = ndarray::Array2::from_shape_fn((5000, 7), |(i, j)| (i * 7 + j) as f32);
    let made = group.new_dataset_builder().chunk((3000, 2)).shuffle().deflate(3).with_data(&x).create("X").unwrap();
    made.new_attr::<f64>().create("unit_factor").unwrap().write_scalar(&2.5).unwrap();
    let y = ndarray::Array1::from_shape_fn(5000, |i| (i % 3) as i64);
    group.new_dataset_builder().with_data(&y).create("y").unwrap();
    let note: hdf5::types::VarLenUnicode = "measured at night".parse().unwrap();
    file.new_dataset::<hdf5::types::VarLenUnicode>().create("note").unwrap().write_scalar(&note).unwrap();
    file.link_hard("/train/X", "same").unwrap();
    file.link_soft("/train", "soft").unwrap();
    file.link_external("elsewhere.h5", "/x", "far").unwrap();
    file.link_hard("/train", "/train/round").unwrap();
    file.new_attr::<i32>().create("run").unwrap().write_scalar(&42).unwrap();
    path
}

#[test]
fn a_repacked_file_has_the_same_rows_links_and_attributes() {
    let folder = tempfile::tempdir().unwrap();
    let path = odd_file(folder.path());
    let names = TableNames { group: Some("train".to_string()), ..TableNames::default() };
    let expected = rows_of(&path, &names);
    for (chunk_bytes, deflate) in [(CHUNK_BYTES, Some(1)), (1 << 12, Some(9)), (1 << 14, None)] {
        let out = folder.path().join("out.h5");
        let options = RepackOptions { chunk_bytes, deflate, replace: true };
        let report = quiet(&path, &out, &options).unwrap();
        assert_eq!(report.repacked, 1, "y and the note are small: {report:?}");
        assert_eq!(report.left_out, []);
        let found = rows_of(&out, &names);
        assert_eq!(found.values, expected.values);
        assert_eq!(found.target, expected.target);
        let file = open_to_read(&out).unwrap();
        let x = file.dataset("train/X").unwrap();
        assert_eq!(x.chunk().unwrap()[1], 7, "whole rows");
        assert_eq!(x.filters().len(), if deflate.is_some() { 2 } else { 0 });
        assert_eq!(x.attr("unit_factor").unwrap().read_scalar::<f64>().unwrap(), 2.5);
        assert_eq!(file.attr("run").unwrap().read_scalar::<i32>().unwrap(), 42);
        assert_eq!(header_address(&file.dataset("same").unwrap()), header_address(&x), "one dataset of two names");
        assert_eq!(file.dataset("soft/X").unwrap().shape(), [5000, 7]);
        assert!(file.link_exists("far") && file.dataset("far").is_err());
        assert_eq!(file.dataset("train/round/round/y").unwrap().shape(), [5000]);
        let note: hdf5::types::VarLenUnicode = file.dataset("note").unwrap().read_scalar().unwrap();
        assert_eq!(note.as_str(), "measured at night");
    }
}

#[test]
fn every_layout_is_the_same_when_repacked() {
    let layouts = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts");
    // Links and virtual datasets name files beside them.
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&layouts).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let (mut n_files, mut n_tables, mut n_repacked) = (0, 0, 0);
    let paths: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in paths {
        if !path.extension().is_some_and(|of| of == "h5" || of == "mat" || of == "h5ad") {
            continue;
        }
        let out = folder.path().join("out.h5");
        let options = RepackOptions { replace: true, ..RepackOptions::default() };
        let report = repack_from(1, &path, &out, &options, &Alone, &mut |_| ())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        n_repacked += report.repacked;
        let names = TableNames::default();
        if Hdf5Source::open(std::slice::from_ref(&path), &names, Need::Train).is_ok() {
            let (expected, found) = (rows_of(&path, &names), rows_of(&out, &names));
            // NaN is not equal to itself.
            assert_eq!(format!("{expected:?}"), format!("{found:?}"), "{}", path.display());
            n_tables += 1;
        }
        let list = |path: &Path| -> Vec<(String, Vec<u64>, String)> {
            let file = open_to_read(path).unwrap();
            let entries = crate::data::hdf5::find::list(&file, "");
            let described = entries.into_iter().map(|entry| match entry.object {
                crate::data::hdf5::find::Object::Dataset(shape, dataset) => {
                    (entry.path, shape, crate::data::hdf5::types::type_name_of(&dataset))
                }
                _ => (entry.path, Vec::new(), String::new()),
            });
            described.collect()
        };
        let there = |name: &String| !name.contains("link");
        let (mut before, mut after) = (list(&path), list(&out));
        before.retain(|(name, ..)| there(name));
        after.retain(|(name, ..)| there(name));
        assert_eq!(before.len(), after.len(), "{}", path.display());
        n_files += 1;
    }
    assert!(n_files > 10 && n_tables > 5 && n_repacked > 20, "{n_files} {n_tables} {n_repacked}");
}

#[test]
fn an_output_that_is_there_stays_and_a_damaged_input_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let storage = Storage { chunk_rows: Some(1000), deflate: Some(1) };
    synthetic::write_hdf5(&path, "", &synthetic::logistic(20_000, 10, 1).unwrap(), storage).unwrap();
    let out = folder.path().join("out.h5");
    std::fs::write(&out, "precious").unwrap();
    let message = quiet(&path, &out, &RepackOptions::default()).unwrap_err().to_string();
    assert!(message.ends_with("out.h5: is there already; use --force to replace it"), "{message}");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let other = folder.path().join("other.h5");
    let message = quiet(&path, &other, &RepackOptions::default()).unwrap_err().to_string();
    assert!(message.contains("t.h5") && message.contains("'X'") && message.contains("chunk"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn strings_that_a_damaged_heap_does_not_hold_are_refused_before_the_library_copies_them() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("texts.h5"), folder.path().join("out.h5"));
    let words: Vec<hdf5::types::VarLenUnicode> = (0..300).map(|row| format!("word {row}").parse().unwrap()).collect();
    let first = {
        let file = hdf5::File::create(&path).unwrap();
        file.new_dataset_builder().with_data(&words).create("words").unwrap().offset().unwrap()
    };
    quiet(&path, &out, &RepackOptions { replace: true, ..RepackOptions::default() }).unwrap();
    std::fs::remove_file(&out).unwrap();
    // A descriptor is a length, an address and the object's number.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&60_000u32.to_le_bytes(), first + 4 * 16 + 12).unwrap();
    let error = quiet(&path, &out, &RepackOptions::default()).unwrap_err().to_string();
    assert!(error.contains("'words'") && error.contains("the string at row 4"), "{error}");
    assert!(!out.exists());
}

#[test]
fn strings_keep_their_fill_value_whatever_their_chunks() {
    use hdf5::types::VarLenUnicode;
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("texts.h5"), folder.path().join("out.h5"));
    let text = |word: String| -> VarLenUnicode { word.parse().unwrap() };
    let words: Vec<VarLenUnicode> = (0..300).map(|row| text(format!("word {row}"))).collect();
    {
        let file = hdf5::File::create(&path).unwrap();
        for (name, chunk) in [("chunked", Some(50)), ("whole", None)] {
            let made = file.new_dataset::<VarLenUnicode>().fill_value(text("none".to_string()));
            let made = if let Some(chunk) = chunk { made.chunk(chunk) } else { made };
            made.shape(300).create(name).unwrap().write(&words).unwrap();
        }
    }
    quiet(&path, &out, &RepackOptions::default()).unwrap();
    let file = open_to_read(&out).unwrap();
    for name in ["chunked", "whole"] {
        let dataset = file.dataset(name).unwrap();
        assert_eq!(dataset.read_raw::<VarLenUnicode>().unwrap(), words, "{name}");
        assert!(has_own_fill_value(&dataset), "{name}");
    }
}

#[test]
fn strings_that_were_never_written_stay_the_fill_value() {
    use hdf5::types::VarLenUnicode;
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("texts.h5"), folder.path().join("out.h5"));
    let text = |word: &str| -> VarLenUnicode { word.parse().unwrap() };
    // Far longer than what many rows may share of the heap.
    let long = "unknown ".repeat(500);
    let fills = [("none", "none"), ("empty", ""), ("long", &long)];
    {
        let file = hdf5::File::create(&path).unwrap();
        for (name, fill) in fills {
            let made = || file.new_dataset::<VarLenUnicode>().fill_value(text(fill));
            made().shape(3000).create(format!("{name} whole").as_str()).unwrap();
            made().chunk(100).shape(3000).create(format!("{name} chunked").as_str()).unwrap();
            let some = made().chunk((10, 2)).shape((3000, 3)).create(format!("{name} some").as_str()).unwrap();
            some.write_slice(&ndarray::arr2(&[[text("x"), text(""), text("y")]]), (1234..1235, ..)).unwrap();
        }
    }
    quiet(&path, &out, &RepackOptions::default()).unwrap();
    let [n_before, n_after] = [&path, &out].map(|path| std::fs::metadata(path).unwrap().len());
    assert!(n_after < n_before + (64 << 10), "{n_after} bytes of {n_before}");
    // HDF5 1.10 cannot read such a fill value of a whole dataset where it may not write.
    let (before, after) = (hdf5::File::open_rw(&path).unwrap(), hdf5::File::open_rw(&out).unwrap());
    for (name, fill) in fills {
        for way in ["whole", "chunked", "some"] {
            let name = format!("{name} {way}");
            let read = |file: &hdf5::File| file.dataset(&name).unwrap().read_raw::<VarLenUnicode>().unwrap();
            let found = read(&after);
            assert_eq!(found, read(&before), "{name}");
            assert_eq!(found[0].as_str(), fill, "{name}");
        }
    }
}

#[test]
fn a_dataset_of_strings_without_a_place_for_one_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let input = odd_file(folder.path());
    {
        let file = hdf5::File::append(&input).unwrap();
        file.new_dataset::<hdf5::types::VarLenUnicode>().shape(hdf5::Extents::Null).create("none").unwrap();
    }
    let out = folder.path().join("out.h5");
    quiet(&input, &out, &RepackOptions::default()).unwrap();
    let none = hdf5::File::open(&out).unwrap().dataset("none").unwrap();
    assert!(none.space().unwrap().is_null());
}
