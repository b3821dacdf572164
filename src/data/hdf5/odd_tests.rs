//! Files as they should not be, and as they may be all the same.

use super::*;
use ::hdf5::File;
use ::hdf5::types::VarLenUnicode;

fn open(path: &Path, features: &str, target: Option<&str>) -> Result<Hdf5Source> {
    let features = features.split(',').filter(|word| !word.is_empty()).map(str::to_string).collect();
    let names = TableNames { features, target: target.map(str::to_string), ..TableNames::default() };
    Hdf5Source::open(&[path.to_path_buf()], &names, if target.is_some() { Need::Train } else { Need::Predict })
}

fn values(path: &Path, features: &str) -> Vec<f64> {
    let mut source = open(path, features, None).unwrap();
    let mut block = Block::empty();
    source.read(0..source.schema().n_rows, &mut block).unwrap();
    match block.values {
        Values::F32(values) => values.into_iter().map(f64::from).collect(),
        Values::F64(values) => values,
        Values::Sparse(_) => panic!("sparse"),
    }
}

fn refused<T>(result: Result<T>) -> String {
    result.err().expect("is refused").to_string()
}

#[test]
fn what_was_never_written_is_the_fill_value_behind_a_user_block_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::with_options().with_fcpl(|create| create.userblock(512)).create(&path).unwrap();
    file.new_dataset::<f64>().fill_value(7.0).shape((40, 2)).create("X").unwrap();
    file.close().unwrap();
    assert_eq!(values(&path, "X"), vec![7.0; 80]);
}

#[test]
fn what_is_never_filled_is_zero_on_either_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    let create = file.new_dataset::<f32>().fill_value(7.0f32).fill_time(::hdf5::plist::dataset_create::FillTime::Never);
    create.chunk((10, 3)).shape((40, 3)).create("X").unwrap();
    file.close().unwrap();
    assert_eq!(values(&path, "X"), vec![0.0; 120]);
}

#[derive(::hdf5::H5Type, Clone, Copy)]
#[repr(C)]
struct Event {
    a: f64,
}

/// What is behind a link has its own name in its own file.
#[test]
fn links_into_other_files_lead_to_what_is_there_whatever_it_is_called_here() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let texts = |words: [&str; 2]| -> Vec<VarLenUnicode> { (0..20).map(|i| words[i % 2].parse().unwrap()).collect() };
    for (name, first) in [("a.h5", 0.0), ("b.h5", 1000.0)] {
        let file = File::create(at(name)).unwrap();
        let events: Vec<Event> = (0..20).map(|i| Event { a: first + f64::from(i) }).collect();
        file.new_dataset_builder().with_data(&events).create("t").unwrap();
        file.new_dataset_builder().with_data(&texts(["there", "too"])).create("label").unwrap();
        file.close().unwrap();
    }
    let file = File::create(at("links.h5")).unwrap();
    file.link_external("a.h5", "/t", "at").unwrap();
    file.link_external("b.h5", "/t", "bt").unwrap();
    file.link_external("a.h5", "/label", "kind").unwrap();
    // The same name, another dataset.
    file.new_dataset_builder().with_data(&texts(["here", "also"])).create("label").unwrap();
    file.close().unwrap();
    let expected: Vec<f64> = (0..20).flat_map(|i| [f64::from(i), 1000.0 + f64::from(i)]).collect();
    assert_eq!(values(&at("links.h5"), "at/a,bt/a"), expected);
    let mut source = open(&at("links.h5"), "at/a", Some("kind")).unwrap();
    let mut block = Block::empty();
    source.read(0..20, &mut block).unwrap();
    let Targets::Text(kinds) = block.target else { panic!("{:?}", block.target) };
    assert_eq!(kinds[..3], ["there", "too", "there"]);
}

#[test]
fn a_name_is_the_same_with_dots_and_slashes_that_stand_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    for name in ["a", "b", "y"] {
        file.new_dataset_builder().with_data(&[1.0, 2.0]).create(name).unwrap();
    }
    file.close().unwrap();
    for (features, target) in [("*", "./y"), ("./*", "y"), (".", "y"), ("/", ".//y"), ("/./*", "/y")] {
        let source = open(&path, features, Some(target)).unwrap();
        assert_eq!(source.names().features.len(), 2, "{features} {target}: {:?}", source.names());
    }
    assert!(refused(open(&path, "a,./a", Some("y"))).contains("named twice"));
}

#[test]
fn a_row_without_a_category_has_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    file.new_dataset_builder().with_data(&[1.0, 2.0, 3.0, 4.0]).create("X").unwrap();
    for (name, code) in [("missing", -1i8), ("damaged", -2)] {
        let codes = file.new_dataset_builder().with_data(&[0i8, 1, code, 1]).create(name).unwrap();
        let words = ["no", "yes"].map(|word| word.parse::<VarLenUnicode>().unwrap());
        codes.new_attr_builder().with_data(&words).create("categories").unwrap();
    }
    file.close().unwrap();
    let read = |features: &str, target: &str| {
        let mut source = open(&path, features, Some(target)).unwrap();
        refused(source.read(0..4, &mut Block::empty()))
    };
    assert!(read("X", "missing").contains("'missing': has no category at row 2"), "{}", read("X", "missing"));
    assert!(read("X", "damaged").contains("holds the code -2 at row 2"));
    let mut source = open(&path, "missing", None).unwrap();
    let mut block = Block::empty();
    source.read(0..4, &mut block).unwrap();
    assert_eq!(block.text[0], ["no", "yes", "", "yes"]);
}

#[test]
fn all_missing_values_are_missing_and_compared_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    let x = file.new_dataset_builder().with_data(&[1.0f32, -999.9, 3.0, -1.0]).create("X").unwrap();
    x.new_attr_builder().with_data(&[-999.9f64, -1.0]).create("missing_value").unwrap();
    file.close().unwrap();
    let found = values(&path, "X");
    assert!(found[0] == 1.0 && found[1].is_nan() && found[2] == 3.0 && found[3].is_nan(), "{found:?}");
}

#[test]
fn what_is_no_whole_file_is_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    file.new_dataset_builder().with_data(&[0.5f64; 500]).create("X").unwrap();
    file.new_dataset::<f32>().chunk((10, 1 << 20)).shape((10, 1usize << 31)).create("wide").unwrap();
    file.close().unwrap();
    assert!(refused(open(&path, "wide", None)).contains("has too many columns"));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 600]).unwrap();
    let text = refused(open(&path, "X", None));
    assert!(text.contains(&format!("is truncated: it has {} bytes of {}", bytes.len() - 600, bytes.len())), "{text}");
    let pipe = folder.path().join("pipe.h5");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(refused(open(&pipe, "X", None)).contains("is a pipe or a device"));
    }
}

#[test]
fn links_that_go_round_in_circles_are_followed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    file.new_dataset_builder().with_data(&[1.0, 2.0]).create("X").unwrap();
    (0..6).for_each(|i| file.link_soft("/", &format!("again{i}")).unwrap());
    file.close().unwrap();
    let file = open_to_read(&path).unwrap();
    let found = crate::data::hdf5::find::list(&file, "");
    assert_eq!(found.len(), 7, "{:?}", found.iter().map(|entry| &entry.path).collect::<Vec<_>>());
}
