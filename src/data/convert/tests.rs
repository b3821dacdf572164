use super::{ConvertOptions, ConvertReport, Format};
use crate::data::crew::Alone;
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::{Block, ColumnKind, DataSource, TargetKind, Targets, Values};
use crate::error::Result;
use hdf5::types::VarLenUnicode;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) fn convert(inputs: &[PathBuf], out: &Path, options: &ConvertOptions) -> Result<ConvertReport> {
    super::convert(inputs, out, options, &Alone, &mut |_| ())
}

/// Writes `bytes`, gzipped if the name says so.
pub(super) fn input(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
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

/// Numbers of a dataset as float64.
#[test]
fn a_format_can_be_said_and_a_flag_that_means_nothing_for_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let labels = input(folder.path(), "labels.txt", b"1\n0\n1\n");
    let parquet = formats("snappy.parquet");
    let out = folder.path().join("out.h5");
    let refused = |path: &PathBuf, options: &ConvertOptions| {
        let text = convert(std::slice::from_ref(path), &out, options).unwrap_err().to_string();
        assert!(!out.exists());
        text
    };
    let asked: [(ConvertOptions, &str); 4] = [
        (
            ConvertOptions { separator: Some(b';'), ..Default::default() },
            "--separator: is for csv; this is read as parquet",
        ),
        (ConvertOptions { header: Some(false), ..Default::default() }, "--no-header: is for csv;"),
        (ConvertOptions { n_features: Some(3), ..Default::default() }, "--n-features: is for libsvm;"),
        (ConvertOptions { sparse: true, ..Default::default() }, "--sparse: is for libsvm;"),
    ];
    for (options, message) in asked {
        let text = refused(&parquet, &options);
        assert!(text.contains("snappy.parquet: ") && text.contains(message), "{text}");
    }
    let as_csv = ConvertOptions { format: Some(Format::Csv), sparse: true, ..Default::default() };
    assert!(refused(&labels, &as_csv).contains("--sparse: is for libsvm; this is read as csv"));
    let target = ConvertOptions { format: Some(Format::Libsvm), target: Some("y".into()), ..Default::default() };
    assert!(refused(&labels, &target).contains("--target: is for csv, npz, parquet;"));
    // Labels without values look like csv.
    let wide = ConvertOptions { n_features: Some(2), ..Default::default() };
    let said =
        ConvertOptions { format: Some(Format::Libsvm), n_features: Some(2), replace: true, ..Default::default() };
    for options in [wide, said] {
        let report = convert(std::slice::from_ref(&labels), &out, &options).unwrap();
        assert_eq!((report.format, report.n_rows, report.n_columns), (Format::Libsvm, 3, 2));
    }
    assert_eq!(
        convert(&[labels], &out, &ConvertOptions { replace: true, ..Default::default() }).unwrap().format,
        Format::Csv
    );
}

pub(super) fn formats(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/formats").join(name)
}

pub(super) fn numbers(path: &Path, name: &str) -> Vec<f64> {
    hdf5::File::open(path).unwrap().dataset(name).unwrap().read_raw().unwrap()
}

pub(super) fn type_of(path: &Path, name: &str) -> String {
    crate::data::hdf5::types::type_name_of(&hdf5::File::open(path).unwrap().dataset(name).unwrap())
}

/// The strings that codes of a dataset stand for, or its own.
pub(super) fn texts(path: &Path, name: &str) -> Vec<String> {
    let dataset = hdf5::File::open(path).unwrap().dataset(name).unwrap();
    match dataset.attr("categories") {
        Ok(attribute) => {
            let categories: Vec<VarLenUnicode> = attribute.read_raw().unwrap();
            assert!(categories.is_sorted_by_key(|category| category.as_bytes()), "{name}");
            let codes: Vec<u64> = dataset.read_raw().unwrap();
            codes.into_iter().map(|code| categories[code as usize].to_string()).collect()
        }
        Err(_) => {
            let mut texts = Vec::new();
            let shape = [dataset.size() as u64];
            let bytes = dataset.dtype().unwrap().size();
            let mut stored = vec![0; bytes * dataset.size()];
            crate::data::hdf5::library::LibraryRows::new(dataset.clone(), None)
                .read_fixed_text(0..shape[0], bytes, &mut stored)
                .unwrap();
            for text in stored.chunks(bytes) {
                texts.push(String::from_utf8(crate::data::hdf5::types::trim_fixed(text, false).to_vec()).unwrap());
            }
            texts
        }
    }
}

#[test]
fn a_converted_file_says_what_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let (a, b) = (b"m,y\n1,2\n".to_vec(), b"m,y\n300,2\n".to_vec());
    let inputs = [input(folder.path(), "a.csv", &a), input(folder.path(), "b.csv.gz", &b)];
    let options = ConvertOptions { group: "g".into(), ..Default::default() };
    convert(&inputs, &out, &options).unwrap();
    let group = hdf5::File::open(&out).unwrap().group("g").unwrap();
    let strings = |at: &hdf5::Location, name: &str| -> Vec<String> {
        let found: Vec<VarLenUnicode> = at.attr(name).unwrap().read_raw().unwrap();
        found.iter().map(|text| text.to_string()).collect()
    };
    assert_eq!(strings(&group, "source"), ["a.csv", "b.csv.gz"]);
    let digests: Vec<String> =
        inputs.iter().map(|path| blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()).collect();
    assert_eq!(strings(&group, "source_digest"), digests);
    assert_eq!(strings(&group.dataset("X").unwrap(), "feature_names"), ["m"]);
    assert!(group.attr("program_version").is_ok());
    assert_eq!(type_of(&out, "g/X"), "uint16");
    assert_eq!(type_of(&out, "g/y"), "uint8");
    // The same inputs give the same bytes.
    let again = folder.path().join("again.h5");
    convert(&inputs, &again, &options).unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn large_whole_numbers_stay_exact_beside_fractions_and_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let path = input(folder.path(), "t.csv", b"id,part,real,y\n9007199254740993,-9007199254740993,0.5,1\n5,,1,0\n");
    let report = convert(&[path], &out, &ConvertOptions::default()).unwrap();
    assert_eq!(report.features, ["X", "id", "part"]);
    let file = hdf5::File::open(&out).unwrap();
    assert_eq!(file.dataset("id").unwrap().read_raw::<i64>().unwrap(), [9_007_199_254_740_993, 5]);
    assert_eq!(file.dataset("part").unwrap().read_raw::<i64>().unwrap(), [-9_007_199_254_740_993, i64::MIN]);
    drop(file); // opened with locks
    let (_, block) = read(&out, TableNames { features: vec!["part".into()], ..Default::default() });
    let Values::F64(values) = block.values else { panic!("narrow") };
    assert!(values[1].is_nan(), "{values:?}");
}

#[test]
fn a_column_of_few_strings_is_one_of_codes_and_one_of_many_is_stored_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (n, kind) in [(256, "uint8"), (257, "uint16"), (10_000, "uint16"), (10_001, "unicode (len 6)")] {
        let out = folder.path().join(format!("{n}.h5"));
        // Numbers first: that the column is one of strings is seen late, pieces later.
        let words: Vec<String> =
            (0..200_000).map(|i| if i < n - 1 { format!("{i}") } else { format!("w{}", n - 1) }).collect();
        let text: String = words.iter().map(|word| format!("{word},1\n")).collect();
        let path = input(folder.path(), "t.csv", format!("s,y\n{text}").as_bytes());
        let report = convert(&[path], &out, &ConvertOptions::default()).unwrap();
        assert_eq!((report.n_rows, &report.features[..]), (200_000, &["s".to_string()][..]));
        assert!(type_of(&out, "s").starts_with(kind), "{}", type_of(&out, "s"));
        assert!(texts(&out, "s") == words, "{n}");
    }
}

#[test]
fn quotes_newlines_and_pieces_do_not_change_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let plain: Vec<(i64, String)> = (0..60_000)
        .map(|i| (i * 7919 % 100_003, ["a\nb", "c,\"d\"", "", "é 5\" e"][i as usize % 4].repeat(9)))
        .collect();
    let mut text = String::from("\u{feff}n,\"word\r\n\"\r\n");
    for (i, (number, word)) in plain.iter().enumerate() {
        let quoted = format!("\"{}\"", word.replace('"', "\"\""));
        text.push_str(&format!("{}{number},{quoted}\r\n", if i % 1000 == 7 { "\n" } else { "" }));
    }
    assert!(text.len() > 2 << 20);
    let out = folder.path().join("out.h5");
    let path = input(folder.path(), "t.csv.gz", text.as_bytes());
    let options = ConvertOptions { target: Some("1".into()), ..Default::default() };
    let report = convert(&[path], &out, &options).unwrap();
    assert_eq!(report.n_rows, 60_000);
    assert!(numbers(&out, "X").iter().zip(&plain).all(|(found, (number, _))| *found == *number as f64));
    assert!(texts(&out, "y").iter().zip(&plain).all(|(found, (_, word))| found == word));
}

#[test]
fn what_cannot_be_stored_is_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let many: String = (0..300_000).map(|i| format!("{i},0.5\n")).collect();
    let cases: [(&str, String, &str); 9] = [
        ("a.csv", format!("a,y\n{many}1\n"), "a.csv: line 300002: has 1 fields where the others have 2"),
        ("b.csv", "a,y\n1,2\n\n1,2,3\n".into(), "b.csv: line 4: has 3 fields"),
        ("c.csv", format!("a,y\n{many}1,1e999\n"), "c.csv: line 300002: 'y' is infinite or too large"),
        (
            "d.csv",
            "a,y\n1,2\n\"18446744073709551616\",2\n".into(),
            "line 3: 'a' is a whole number of more than 64 bits",
        ),
        ("e.csv", "a,y\n1,2\n\"x\ny\",2\n\"z,1\n".into(), "e.csv: line 5: a quote"),
        ("f.csv", "a,y\n".into(), "f.csv: has no rows"),
        ("g.csv", "".into(), "g.csv: has no rows"),
        ("h.svm", "1 2:3\n1 3:1 3:2\n".into(), "h.svm: line 2: index 3 is there twice"),
        ("i.svm", "1 2:3\n1 3:1e999\n".into(), "i.svm: line 2: infinite"),
    ];
    let out = folder.path().join("out.h5");
    for (name, text, expected) in cases {
        let path = input(folder.path(), name, text.as_bytes());
        let error = convert(&[path], &out, &ConvertOptions::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind().exit_code(), 3);
        assert!(!out.exists() && !folder.path().join("out.h5.partial").exists());
    }
    let bytes = input(folder.path(), "j.csv", b"a,y\ntext,1\nt\xffxt,2\n");
    let error = convert(&[bytes], &out, &ConvertOptions::default()).unwrap_err();
    assert!(error.to_string().contains("line 3: column 1: has bytes that are not UTF-8"), "{error}");
    let cut = input(folder.path(), "k.csv.gz", many.as_bytes());
    let length = std::fs::metadata(&cut).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(length / 2).unwrap();
    let error = convert(&[cut], &out, &ConvertOptions::default()).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let text: String =
        (0..150_000u64).map(|i| format!("{},{},w{}\n", i * 7919 % 1009, i as f64 / 7.0, i * i % 501)).collect();
    let path = input(folder.path(), "t.csv", text.as_bytes());
    let mut files = Vec::new();
    for threads in [1, 2, 5] {
        let out = folder.path().join(format!("{threads}.h5"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| convert(std::slice::from_ref(&path), &out, &ConvertOptions::default())).unwrap();
        files.push(std::fs::read(&out).unwrap());
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn libsvm_rows_are_stored_sparsely_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let a = input(folder.path(), "a", b"2.5 3:2 1:0.5\n-1 # nothing\n");
    let b = input(folder.path(), "b", b"1 qid:3 4:8 6:0\n");
    let options = ConvertOptions { sparse: true, ..Default::default() };
    let report = convert(&[a, b], &out, &options).unwrap();
    assert_eq!((report.n_rows, report.n_columns), (3, 6));
    assert_eq!(numbers(&out, "X/data"), [0.5, 2.0, 8.0, 0.0]);
    assert_eq!(numbers(&out, "X/indices"), [0.0, 2.0, 3.0, 5.0]);
    assert_eq!(numbers(&out, "X/indptr"), [0.0, 2.0, 2.0, 4.0]);
    assert_eq!(numbers(&out, "y"), [2.5, -1.0, 1.0]);
    let group = hdf5::File::open(&out).unwrap().group("X").unwrap();
    assert_eq!(group.attr("shape").unwrap().read_raw::<i64>().unwrap(), [3, 6]);
    let word = |name: &str| group.attr(name).unwrap().read_scalar::<VarLenUnicode>().unwrap().to_string();
    assert_eq!((word("encoding-type"), word("encoding-version")), ("csr_matrix".into(), "0.1.0".into()));
    let types = ["X/data", "X/indices", "X/indptr"].map(|name| type_of(&out, name));
    assert_eq!(types, ["float32", "int32", "int64"]);
}

#[test]
fn progress_goes_from_nothing_to_everything_twice() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..200_000).map(|i| format!("{i},1\n")).collect();
    let path = input(folder.path(), "t.csv", text.as_bytes());
    let mut seen = Vec::new();
    let out = folder.path().join("out.h5");
    super::convert(&[path], &out, &ConvertOptions::default(), &Alone, &mut |progress| seen.push(*progress)).unwrap();
    for doing in ["reading", "writing"] {
        let of: Vec<u64> = seen.iter().filter(|at| at.doing == doing).map(|at| at.done_bytes).collect();
        assert_eq!((of[0], of.last()), (0, Some(&(text.len() as u64))), "{doing}");
        assert!(of.is_sorted());
    }
}
