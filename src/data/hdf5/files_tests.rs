//! What the files of one table must have in common, and what they need not.

use super::*;
use crate::data::hdf5::Hdf5Source;
use crate::data::{Block, DataSource, Image, Targets, Values};
use ::hdf5::File;
use ::hdf5::types::VarLenUnicode;
use tempfile::TempDir;

/// A file of a folder, with what `write` puts into it.
fn file(folder: &TempDir, name: &str, write: impl FnOnce(&File)) -> PathBuf {
    let path = folder.path().join(name);
    let file = File::create(&path).unwrap();
    write(&file);
    file.close().unwrap();
    path
}

fn put<T: ::hdf5::H5Type>(file: &File, name: &str, values: &[T]) {
    file.new_dataset_builder().with_data(values).create(name).unwrap();
}

fn strings(values: &[&str]) -> Vec<VarLenUnicode> {
    values.iter().map(|value| value.parse().unwrap()).collect()
}

fn open(paths: &[&PathBuf], features: &[&str]) -> Result<Hdf5Source> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    let features = features.iter().map(|name| name.to_string()).collect();
    Hdf5Source::open(&paths, &TableNames { features, ..TableNames::default() }, Need::Train)
}

fn read(mut source: Hdf5Source) -> Block {
    let mut block = Block::empty();
    let n_rows = source.schema().n_rows;
    source.read(0..n_rows, &mut block).unwrap();
    block
}

fn refused(paths: &[&PathBuf], features: &[&str]) -> String {
    open(paths, features).err().expect("an error").to_string()
}

#[test]
fn numbers_of_any_width_go_together_as_the_widest() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, write_x: &dyn Fn(&File)| {
        file(&folder, name, |file| {
            write_x(file);
            put(file, "y", &[1i64, 0]);
        })
    };
    let single = write("single.h5", &|file| put(file, "X", &[0.1f32, 0.2]));
    let double = write("double.h5", &|file| put(file, "X", &[0.1f64, 0.2]));
    let byte = write("byte.h5", &|file| put(file, "X", &[7u8, 8]));
    let big = write("big.h5", &|file| put(file, "X", &[1i64 << 40, 3]));
    let narrow = [f64::from(0.1f32), f64::from(0.2f32)];
    for (paths, expected) in [
        ([&single, &double, &byte], [narrow, [0.1, 0.2], [7.0, 8.0]]),
        ([&double, &single, &single], [[0.1, 0.2], narrow, narrow]),
        ([&byte, &byte, &big], [[7.0, 8.0], [7.0, 8.0], [(1u64 << 40) as f64, 3.0]]),
    ] {
        let source = open(&paths, &[]).unwrap();
        assert_eq!(source.schema().columns[0].kind, ColumnKind::Wide, "{paths:?}");
        assert_eq!(read(source).values, Values::F64(expected.concat()), "{paths:?}");
    }
    let source = open(&[&single, &byte], &[]).unwrap();
    assert_eq!(source.schema().columns[0].kind, ColumnKind::Narrow);
}

#[test]
fn targets_of_another_kind_are_refused_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, write_y: &dyn Fn(&File)| {
        file(&folder, name, |file| {
            put(file, "X", &[1f32, 2.0]);
            write_y(file);
        })
    };
    let integer = write("integer.h5", &|file| put(file, "y", &[1i64, 0]));
    let byte = write("byte.h5", &|file| put(file, "y", &[1u8, 0]));
    let float = write("float.h5", &|file| put(file, "y", &[1f64, 0.0]));
    let text = write("text.h5", &|file| put(file, "y", &strings(&["a", "b"])));
    assert_eq!(
        read(open(&[&integer, &byte], &[]).unwrap()).target,
        Targets::Number(vec![1.0, 0.0, 1.0, 0.0]),
        "integers of any width"
    );
    for (path, what) in [(&float, "floating-point numbers"), (&text, "strings")] {
        let expected = format!(
            "{}: target 'y' is {what} but in {} it is integers; store it alike in all files of a table",
            path.display(),
            integer.display()
        );
        assert_eq!(refused(&[&integer, &byte, path], &[]), expected);
    }
}

#[test]
fn columns_of_other_names_or_numbers_are_refused_with_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, names: &[&str]| {
        file(&folder, name, |file| {
            let x = ndarray::Array2::<f32>::zeros((3, names.len()));
            let x = file.new_dataset_builder().with_data(&x).create("X").unwrap();
            x.new_attr_builder().with_data(&strings(names)).create("feature_names").unwrap();
            put(file, "y", &[1i64, 0, 1]);
        })
    };
    let good = write("good.h5", &["pt", "eta", "phi"]);
    let swapped = write("swapped.h5", &["pt", "phi", "eta"]);
    let short = write("short.h5", &["pt", "eta"]);
    let long = write("long.h5", &["pt", "eta", "phi", "z"]);
    let text = refused(&[&good, &swapped], &[]);
    let expected = format!("{}: column 1 is 'phi' but in {} it is 'eta'", swapped.display(), good.display());
    assert!(text.starts_with(&expected), "{text}");
    let text = refused(&[&good, &good, &short], &[]);
    let expected =
        format!("{}: has 2 feature columns but {} has 3 (only there: 'phi')", short.display(), good.display());
    assert!(text.starts_with(&expected), "{text}");
    let text = refused(&[&good, &long], &[]);
    assert!(text.contains("has 4 feature columns") && text.contains("(only here: 'z')"), "{text}");
    assert_eq!(open(&[&good, &good], &[]).unwrap().schema().n_rows, 6, "the same file twice is twice its rows");
}

#[test]
fn strings_and_numbers_are_not_one_column() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, write_b: &dyn Fn(&File)| {
        file(&folder, name, |file| {
            put(file, "a", &[1f32, 2.0]);
            write_b(file);
            put(file, "y", &[1i64, 0]);
        })
    };
    let number = write("number.h5", &|file| put(file, "b", &[1f32, 2.0]));
    let text = write("text.h5", &|file| put(file, "b", &strings(&["u", "v"])));
    let expected = |path: &PathBuf, what: &str, like: &PathBuf, other: &str| {
        format!("{}: column 1, 'b', is {what} but in {} it is {other};", path.display(), like.display())
    };
    let found = refused(&[&number, &text], &["a", "b"]);
    assert!(found.starts_with(&expected(&text, "strings", &number, "numbers")), "{found}");
    let found = refused(&[&text, &number], &["a", "b"]);
    assert!(found.starts_with(&expected(&number, "numbers", &text, "strings")), "{found}");
}

#[test]
fn a_dataset_that_one_file_lacks_is_named_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, names: &[&str]| {
        file(&folder, name, |file| names.iter().for_each(|name| put(file, &format!("g/{name}"), &[1i64, 0])))
    };
    let good = write("good.h5", &["a", "b", "y"]);
    let less = write("less.h5", &["a", "y"]);
    let more = write("more.h5", &["a", "b", "c", "y"]);
    let text = refused(&[&good, &less], &["g/*"]);
    assert!(text.starts_with(&format!("{}: 'g/b' is not there", less.display())), "{text}");
    // The first file says what the pattern stands for.
    let source = open(&[&good, &more], &["g/*"]).unwrap();
    assert_eq!(source.names().features, ["g/a", "g/b"]);
    let text = refused(&[&good, &write("unlabelled.h5", &["a", "b"])], &["g/*"]);
    assert!(text.contains("unlabelled.h5: 'g/y' is not there"), "{text}");
}

#[test]
fn row_counts_that_differ_in_a_file_name_it_and_both_datasets() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good.h5", |file| {
        put(file, "X", &[1f32, 2.0]);
        put(file, "y", &[1i64, 0]);
    });
    let torn = file(&folder, "torn.h5", |file| {
        put(file, "X", &[1f32, 2.0, 3.0]);
        put(file, "y", &[1i64, 0]);
    });
    let text = refused(&[&good, &torn], &[]);
    assert!(text.starts_with(&format!("{}: 'X' has 3 rows but 'y' has 2", torn.display())), "{text}");
}

#[test]
fn files_without_rows_may_stand_anywhere_and_have_any_type() {
    let folder = tempfile::tempdir().unwrap();
    let full = |name: &str, first: f32| {
        file(&folder, name, |file| {
            put(file, "a", &[first, first + 1.0]);
            put(file, "s", &strings(&["u", "v"]));
            put(file, "y", &[1i64, 0]);
        })
    };
    let (one, two) = (full("one.h5", 1.0), full("two.h5", 5.0));
    // As NumPy writes an empty list: float64 for everything.
    let empty = file(&folder, "empty.h5", |file| ["a", "s", "y"].iter().for_each(|name| put::<f64>(file, name, &[])));
    let names = ["a", "s"];
    let plain = read(open(&[&one, &two], &names).unwrap());
    for paths in [[&empty, &one, &two, &empty], [&one, &empty, &empty, &two], [&empty, &empty, &one, &two]] {
        let source = open(&paths, &names).unwrap();
        assert_eq!(source.schema(), open(&[&one, &two], &names).unwrap().schema());
        let block = read(source);
        assert_eq!((&block.values, &block.text, &block.target), (&plain.values, &plain.text, &plain.target));
    }
    let text = refused(&[&empty, &empty], &names);
    assert!(text.starts_with(&empty.display().to_string()) && text.contains("has 0 rows"), "{text}");
    // A disagreement names the file that set the types, not the empty one.
    let other = file(&folder, "other.h5", |file| {
        put(file, "a", &[1f32]);
        put(file, "s", &[1f32]);
        put(file, "y", &[1i64]);
    });
    let text = refused(&[&empty, &one, &other], &names);
    assert!(text.contains(&format!("column 1, 's', is numbers but in {} it is strings", one.display())), "{text}");
    let renamed =
        file(&folder, "renamed.h5", |file| ["b", "s", "y"].iter().for_each(|name| put::<f64>(file, name, &[])));
    assert!(refused(&[&one, &renamed], &names).contains("'a' is not there"), "names are asked of empty files too");
}

#[test]
fn rows_of_one_dataset_of_images_have_its_shape() {
    let folder = tempfile::tempdir().unwrap();
    // A file with `X` of this shape and values that count up, and what else `more` puts into it.
    let images = |name: &str, shape: &[usize], more: &dyn Fn(&File)| {
        file(&folder, name, |file| {
            let values: Vec<u8> = (0..shape.iter().product()).map(|i| i as u8).collect();
            let array = ndarray::ArrayD::from_shape_vec(shape, values).unwrap();
            file.new_dataset_builder().with_data(&array).create("X").unwrap();
            put(file, "y", &vec![1i64; shape[0]]);
            more(file);
        })
    };
    let nothing = |_: &File| {};
    let shape = |paths: &[&PathBuf], features: &[&str]| open(paths, features).unwrap().schema().image;
    let image = |height, width, channels| Some(Image { height, width, channels });
    let grey = images("grey.h5", &[5, 4, 6], &nothing);
    let other = images("other.h5", &[3, 6, 4], &nothing);
    let colour = images("colour.h5", &[3, 2, 4, 3], &nothing);
    let empty = images("empty.h5", &[0, 6, 4], &nothing);
    let flat = images("flat.h5", &[5, 24], &nothing);
    let video = images("video.h5", &[5, 2, 3, 2, 2], &nothing);
    let beside = images("beside.h5", &[5, 4, 6], &|file| put(file, "pt", &[1f32; 5]));
    let spread = images("virtual.h5", &[1, 1], &|file| {
        let mut made = file.new_dataset_builder().empty::<u8>().shape([10, 4, 6]);
        for first in [0, 5] {
            made = made.virtual_map("grey.h5", "X", [5, 4, 6], .., [10, 4, 6], (first..first + 5, .., ..));
        }
        made.create("all").unwrap();
        put(file, "label", &[0i64; 10]);
        file.unlink("y").unwrap();
    });
    assert_eq!(shape(&[&grey], &[]), image(4, 6, 1));
    assert_eq!(shape(&[&colour], &[]), image(2, 4, 3));
    assert_eq!(shape(&[&beside], &["X"]), image(4, 6, 1));
    assert_eq!(shape(&[&spread], &["all"]), image(4, 6, 1));
    assert_eq!(shape(&[&empty, &grey, &empty, &grey], &[]), image(4, 6, 1), "a file without rows has no images");
    for (paths, features) in [
        (&[&flat][..], &[][..]),
        (&[&video], &[]),
        (&[&beside], &["X", "pt"]),
        (&[&grey, &other], &[]),
        (&[&grey, &flat], &[]),
        (&[&flat, &grey, &grey], &[]),
    ] {
        assert_eq!(shape(paths, features), None, "{paths:?}");
    }
    let index = TableIndex::of(&[colour], &TableNames::default(), Need::Train).unwrap();
    assert_eq!(TableIndex::from_bytes(&index.to_bytes().unwrap()).unwrap().schema.image, image(2, 4, 3));
    assert_eq!(read(open(&[&grey], &[]).unwrap()).values, read(open(&[&flat], &[]).unwrap()).values);
}

#[test]
fn datasets_side_by_side_have_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "t.h5", |file| {
        let matrix = |name: &str, names: &[&str]| {
            let values = ndarray::Array2::from_shape_fn((2, 2), |(i, j)| (10 * i + j) as f32);
            let dataset = file.new_dataset_builder().with_data(&values).create(name).unwrap();
            if !names.is_empty() {
                dataset.new_attr_builder().with_data(&strings(names)).create("feature_names").unwrap();
            }
        };
        file.create_group("a").unwrap();
        file.create_group("b").unwrap();
        matrix("a/X", &[]);
        matrix("b/X", &[]);
        matrix("m", &["pt", "eta"]);
        matrix("n", &["pt", "phi"]);
        matrix("twice", &["q", "q"]);
        put(file, "pt", &[1u8, 2]);
        put(file, "a/pt", &[3f64, 4.0]);
        put(file, "site", &strings(&["s", "t"]));
        put(file, "y", &[1i64, 0]);
    });
    let names = |features: &[&str]| -> Vec<String> {
        open(&[&path], features).unwrap().schema().columns.iter().map(|column| column.name.clone()).collect()
    };
    assert_eq!(names(&["a/X", "site", "b/X"]), ["a/X[0]", "a/X[1]", "site", "b/X[0]", "b/X[1]"]);
    assert_eq!(names(&["m", "n"]), ["m/pt", "eta", "n/pt", "phi"]);
    assert_eq!(names(&["m", "pt", "a/pt"]), ["m/pt", "eta", "pt", "a/pt"]);
    assert_eq!(names(&["twice"]), ["twice[0]", "twice[1]"], "names that are not unique are no names");
    let block = read(open(&[&path], &["m", "site", "a/pt", "pt"]).unwrap());
    assert_eq!(block.values, Values::F64(vec![0., 1., 3., 1., 10., 11., 4., 2.]));
    assert_eq!(block.text, [["s", "t"]]);
}

/// A file with features, and targets of every shape.
fn of_targets(folder: &TempDir, name: &str, more: impl FnOnce(&File)) -> PathBuf {
    file(folder, name, |file| {
        put(file, "X", &[1f32, 2.0, 3.0]);
        let values = ndarray::Array2::from_shape_fn((3, 2), |(i, j)| (10 * i + j) as i32);
        file.new_dataset_builder().chunk((2, 1)).with_data(&values).create("y").unwrap();
        put(file, "a", &[0.5f32, 1.5, 2.5]);
        put(file, "b", &[7u8, 8, 9]);
        put(file, "a,b", &[-1f64, -2.0, -3.0]);
        put(file, "s", &strings(&["u", "v", "w"]));
        more(file);
    })
}

fn with_target(paths: &[&PathBuf], target: &str) -> Result<Hdf5Source> {
    let names = TableNames { target: Some(target.into()), features: vec!["X".into()], ..TableNames::default() };
    Hdf5Source::open(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>(), &names, Need::Train)
}

#[test]
fn several_targets_are_read_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_targets(&folder, "t.h5", |_| {});
    let targets = |target: &str, rows: std::ops::Range<u64>| {
        let mut source = with_target(&[&path], target).unwrap();
        let (kind, names) = (source.schema().target.unwrap(), source.schema().target_names.clone());
        let mut block = Block::empty();
        source.read(rows.clone(), &mut block).unwrap();
        let (whole, values) = (block.target.clone(), source.names().target.clone());
        source.read_labels(rows, &mut block).unwrap();
        assert_eq!((&block.target, values.as_deref()), (&whole, Some(target)));
        let Targets::Number(values) = whole else { panic!("numbers") };
        (kind, names.join(" "), values)
    };
    let named = |names: &str| names.to_string();
    let all = vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0];
    assert_eq!(targets("y", 0..3), (TargetKind::Integer, named("y[0] y[1]"), all));
    assert_eq!(targets("y", 1..3).2, [10.0, 11.0, 20.0, 21.0]);
    assert_eq!(targets("b,a", 1..2), (TargetKind::Float, named("b a"), vec![8.0, 1.5]));
    let three = vec![7.0, 0.0, 1.0, 0.5, 8.0, 10.0, 11.0, 1.5];
    assert_eq!(targets("b,y,a", 0..2), (TargetKind::Float, named("b y[0] y[1] a"), three));
    assert_eq!(targets("b,y", 2..3), (TargetKind::Integer, named("b y[0] y[1]"), vec![9.0, 20.0, 21.0]));
    assert_eq!(targets("a,b", 0..2), (TargetKind::Float, named("a,b"), vec![-1.0, -2.0]), "a name may have a comma");
    assert_eq!(targets("b", 0..3), (TargetKind::Integer, named("b"), vec![7.0, 8.0, 9.0]));

    // By custom too, and not among the features that a pattern stands for; as for another table that is only predicted on.
    let mut source = open(&[&path], &["X"]).unwrap();
    assert_eq!(source.schema().n_targets(), 2);
    let names = TableNames { target: Some("b,y".into()), features: vec!["?".into()], ..TableNames::default() };
    for need in [Need::Train, Need::Predict] {
        source = Hdf5Source::open(
            std::slice::from_ref(&path),
            &TableNames { exclude: vec!["s".into()], ..names.clone() },
            need,
        )
        .unwrap();
        let columns: Vec<&str> = source.schema().columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!((columns, source.schema().n_targets()), (vec!["X", "a"], if need == Need::Train { 3 } else { 0 }));
    }
    let index = TableIndex::of(&[path.clone(), path], &names, Need::Train).unwrap();
    assert_eq!(TableIndex::from_bytes(&index.to_bytes().unwrap()).unwrap().schema, index.schema);
}

#[test]
fn targets_that_do_not_go_together_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_targets(&folder, "t.h5", |file| put(file, "nan", &[0.5f64, f64::NAN, 1.0]));
    let wide = file(&folder, "wide.h5", |file| {
        put(file, "X", &[1f32]);
        let values = ndarray::Array2::from_shape_fn((1, 3), |(_, j)| j as i32);
        file.new_dataset_builder().with_data(&values).create("y").unwrap();
    });
    let refused = |paths: &[&PathBuf], target: &str| {
        let opened = with_target(paths, target);
        let read = opened.and_then(|mut source| source.read(0..3, &mut Block::empty()));
        read.expect_err("an error").to_string()
    };
    for (target, expected) in [
        ("b,b", "--target: 'b' is named twice"),
        ("b,,y", "--target: 'b,,y' lacks a name beside a comma"),
        ("b,c", "'c' is not there"),
        ("b,s", "'s': holds strings, and several targets are numbers"),
        ("b,nan", "'nan': NaN at row 1 is not a finite number"),
    ] {
        let found = refused(&[&path], target);
        assert!(found.contains(expected), "{found}");
    }
    let found = refused(&[&path, &wide], "y");
    assert!(found.starts_with(&wide.display().to_string()), "{found}");
    assert!(found.contains("target 'y' has 3 values a row but in") && found.contains("it has 2"), "{found}");
    let odd = file(&folder, "odd.h5", |file| {
        put(file, "X", &[1f32, 2.0]);
        let values = ndarray::arr2(&[[1.0, 2.0], [3.0, f64::INFINITY]]);
        let dataset = file.new_dataset_builder().with_data(&values).create("y").unwrap();
        dataset.new_attr_builder().with_data(&strings(&["px", "py"])).create("feature_names").unwrap();
    });
    let read = with_target(&[&odd], "y").unwrap().read(0..2, &mut Block::empty());
    assert!(read.unwrap_err().to_string().contains("'y': inf of 'py' at row 1 is not a finite number"));
}
