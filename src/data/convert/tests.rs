use super::*;
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::{Block, ColumnKind, DataSource, TargetKind, Targets, Values};
use std::io::Write;

/// Writes `bytes`, gzipped if the name says so.
fn input(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    let file = std::fs::File::create(&path).unwrap();
    if name.ends_with(".gz") {
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap();
    } else {
        (&file).write_all(bytes).unwrap();
    }
    path
}

fn read(path: &Path, names: TableNames) -> (Hdf5Source, Block) {
    let mut source = Hdf5Source::open(&[path.to_path_buf()], &names, Need::Train).unwrap();
    let mut block = Block::empty();
    source.read(0..source.schema().n_rows, &mut block).unwrap();
    (source, block)
}

fn idx(code: u8, shape: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, shape.len() as u8];
    shape.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    bytes.extend(values);
    bytes
}

#[test]
fn images_and_labels_of_train_and_test_land_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("digits.h5");
    let images: Vec<u8> = (0..3 * 4).collect();
    for (group, append) in [("train", false), ("test", true)] {
        let x = input(folder.path(), &format!("{group}-x.gz"), &idx(8, &[3, 2, 2], &images));
        let y = input(folder.path(), &format!("{group}-y"), &idx(8, &[3], &[7, 8, 9]));
        let options = ConvertOptions { group: group.into(), append, ..Default::default() };
        let report = convert(&[y, x], &out, &options).unwrap();
        assert_eq!((report.n_rows, report.n_columns, report.format), (3, 4, Format::Idx));
    }
    for group in ["train", "test"] {
        let (source, block) = read(&out, TableNames { group: Some(group.into()), ..Default::default() });
        assert_eq!(source.schema().columns.len(), 4);
        assert_eq!(block.values, Values::F32(images.iter().map(|&v| f32::from(v)).collect()));
        assert_eq!(block.target, Targets::Number(vec![7., 8., 9.]));
    }
    assert!(!folder.path().join("digits.h5.partial").exists());
}

#[test]
fn an_idx_file_of_another_length_than_its_axes_say_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    for bytes in [idx(8, &[3, 2], &[1; 5]), idx(8, &[u32::MAX, u32::MAX, u32::MAX], &[1]), vec![0, 0, 8, 3, 0]] {
        let x = input(folder.path(), "x", &bytes);
        assert_eq!(convert(&[x], &out, &ConvertOptions::default()).unwrap_err().kind().exit_code(), 3);
        assert!(!out.exists() && !folder.path().join("out.h5.partial").exists());
    }
}

#[test]
fn csv_columns_become_numbers_strings_and_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let text = "mass,site,\"count, all\",label\n1.5,north,3,cat\n,south,4,dog\n2.5,\"a \"\"b\"\"\",-5,cat\n";
    let path = input(folder.path(), "t.csv.gz", text.as_bytes());
    let report = convert(&[path], &out, &ConvertOptions::default()).unwrap();
    assert_eq!(report.features, ["X", "site"]);
    let (source, block) = read(&out, TableNames { features: report.features, ..Default::default() });
    let names: Vec<&str> = source.schema().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["mass", "count, all", "site"]);
    assert_eq!(source.schema().columns[0].kind, ColumnKind::Narrow);
    let Values::F32(values) = &block.values else { panic!("wide") };
    assert_eq!(values[..2], [1.5, 3.0]);
    assert!(values[2].is_nan());
    assert_eq!(block.text, [["north", "south", "a \"b\""]]);
    assert_eq!(block.target, Targets::Text(vec!["cat".into(), "dog".into(), "cat".into()]));
}

#[test]
fn a_table_without_header_takes_its_target_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"1\t0.1\t2\n0\t0.2\t3\n";
    for (target, expected) in [("0", vec![1.0, 0.0]), ("-1", vec![2.0, 3.0])] {
        let out = folder.path().join(format!("out{target}.h5"));
        let path = input(folder.path(), "t.tsv", text);
        let options = ConvertOptions { target: Some(target.into()), ..Default::default() };
        convert(&[path], &out, &options).unwrap();
        let (source, block) = read(&out, TableNames::default());
        assert_eq!(source.schema().target, Some(TargetKind::Integer));
        assert!(source.schema().is_wide(), "0.1 is not a float32");
        assert_eq!(block.target, Targets::Number(expected));
    }
    let path = input(folder.path(), "t.tsv", text);
    let options = ConvertOptions { target: Some("3".into()), ..Default::default() };
    assert_eq!(convert(&[path], &folder.path().join("o.h5"), &options).unwrap_err().kind().exit_code(), 2);
}

#[test]
fn float_targets_stay_floats_even_when_they_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let path = input(folder.path(), "t.csv", b"a,y\n1,2.0\n2,3.0\n");
    convert(&[path], &out, &ConvertOptions::default()).unwrap();
    assert_eq!(read(&out, TableNames::default()).0.schema().target, Some(TargetKind::Float));
}

#[test]
fn libsvm_rows_are_stored_densely() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let a = input(folder.path(), "a.gz", b"+1 1:0.5 3:2\n-1 2:1 # a note\n");
    let b = input(folder.path(), "b", b"\n1 qid:3 4:8\n");
    let options = ConvertOptions { n_features: Some(5), ..Default::default() };
    convert(&[a, b], &out, &options).unwrap();
    let (_, block) = read(&out, TableNames::default());
    let expected = vec![0.5, 0., 2., 0., 0., 0., 1., 0., 0., 0., 0., 0., 0., 8., 0.];
    assert_eq!(block.values, Values::F32(expected));
    assert_eq!(block.target, Targets::Number(vec![1., -1., 1.]));
    let bad = input(folder.path(), "c", b"1 1:2\n1 2:x\n");
    let message = convert(&[bad], &folder.path().join("o.h5"), &ConvertOptions::default()).unwrap_err().to_string();
    assert!(message.ends_with("line 2: '2:x' is not index:value"), "{message}");
}

#[test]
fn a_file_that_is_there_stays_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let out = input(folder.path(), "out.h5", b"precious");
    let path = input(folder.path(), "t.csv", b"a,y\n1,2\n");
    assert_eq!(
        convert(std::slice::from_ref(&path), &out, &ConvertOptions::default()).unwrap_err().kind().exit_code(),
        2
    );
    let bad = input(folder.path(), "bad.csv", b"a,y\n1,2\n3\n");
    let replace = ConvertOptions { replace: true, ..Default::default() };
    assert!(convert(&[bad], &out, &replace).is_err());
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    convert(&[path], &out, &replace).unwrap();
    assert_eq!(read(&out, TableNames::default()).1.n_rows, 1);
}

#[test]
fn real_files_are_converted() {
    let Some(extra) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return eprintln!("skipped: CONSORT_EXTRA_DATA is not set");
    };
    let folder = tempfile::tempdir().unwrap();
    let by_target = |target: &str| ConvertOptions { target: Some(target.into()), ..Default::default() };
    let cases = [
        (
            vec!["fashion-mnist/t10k-images-idx3-ubyte.gz", "fashion-mnist/t10k-labels-idx1-ubyte.gz"],
            by_target(""),
            10_000,
            784,
        ),
        (vec!["higgs-subset/binary.test.gz"], by_target("0"), 500, 28),
        (vec!["casp-protein/CASP.csv.gz"], by_target("0"), 45_730, 9),
        (vec!["a9a/a9a.t.gz"], ConvertOptions { n_features: Some(123), ..Default::default() }, 16_281, 123),
        (vec!["california-housing/cal_housing.data.gz"], by_target("-1"), 20_640, 8),
    ];
    for (number, (names, options, n_rows, n_columns)) in cases.into_iter().enumerate() {
        let inputs: Vec<PathBuf> = names.iter().map(|name| Path::new(&extra).join(name)).collect();
        let out = folder.path().join(format!("{number}.h5"));
        let report = convert(&inputs, &out, &options).unwrap();
        assert_eq!((report.n_rows, report.n_columns), (n_rows, n_columns), "{names:?}");
        assert_eq!(read(&out, TableNames::default()).1.n_rows as u64, n_rows);
    }
}
