use super::super::library::{BitByte, Native};
use super::*;
use crate::data::{Column, ColumnKind, TargetKind};
use ::hdf5::File;
use std::path::PathBuf;

/// A folder that is removed at the end, and a file in it made by `write`.
fn file(write: impl FnOnce(&File)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    write(&file);
    file.close().unwrap();
    (folder, path)
}

fn open(path: &std::path::Path, names: TableNames) -> Result<Hdf5Source> {
    Hdf5Source::open(&[path.to_path_buf()], &names, Need::Train)
}

fn read_all(source: &mut Hdf5Source) -> Block {
    let mut block = Block::empty();
    let n_rows = source.schema().n_rows;
    source.read(0..n_rows, &mut block).unwrap();
    block
}

fn f32s(block: &Block) -> &[f32] {
    match &block.values {
        Values::Sparse(_) => panic!("sparse"),
        Values::F32(values) => values,
        Values::F64(_) => panic!("wide values"),
    }
}

fn f64s(block: &Block) -> &[f64] {
    match &block.values {
        Values::Sparse(_) => panic!("sparse"),
        Values::F64(values) => values,
        Values::F32(_) => panic!("narrow values"),
    }
}

fn array2<T: Copy>(rows: usize, columns: usize, value: impl Fn(usize) -> T) -> ndarray::Array2<T> {
    ndarray::Array2::from_shape_fn((rows, columns), |(row, column)| value(row * columns + column))
}

#[test]
fn a_float_table_with_integer_targets_is_found_and_read() {
    let (_folder, path) = file(|file| {
        file.new_dataset_builder().with_data(&array2(7, 3, |i| i as f32 - 4.0)).create("X").unwrap();
        file.new_dataset_builder().with_data(&[0i64, 1, 0, 1, 2, 2, 0]).create("y").unwrap();
    });
    let mut source = open(&path, TableNames::default()).unwrap();
    assert_eq!(source.schema().n_rows, 7);
    assert_eq!(source.schema().columns[2], Column { name: "X[2]".into(), kind: ColumnKind::Narrow });
    assert_eq!(source.schema().target, Some(TargetKind::Integer));
    let block = read_all(&mut source);
    assert_eq!(f32s(&block), (0..21).map(|i| i as f32 - 4.0).collect::<Vec<_>>());
    assert_eq!(block.target, Targets::Number(vec![0., 1., 0., 1., 2., 2., 0.]));
}

/// Makes a dataset of any file type; `values` are given as a native type and converted by HDF5.
fn create_as<T: Native>(file: &File, name: &str, type_id: hdf5_sys::h5i::hid_t, shape: &[usize], values: &[T]) {
    use hdf5_sys::{h5d, h5p::H5P_DEFAULT, h5s::H5S_ALL};
    let name = std::ffi::CString::new(name).unwrap();
    let space = hdf5::Dataspace::try_new(shape).unwrap();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    hdf5::sync::sync(|| {
        // SAFETY: the values have the shape's number of elements of the memory type.
        unsafe {
            let made =
                h5d::H5Dcreate2(file.id(), name.as_ptr(), type_id, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            assert!(made > 0);
            let memory = T::memory_type();
            assert!(h5d::H5Dwrite(made, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.as_ptr().cast()) >= 0);
            h5d::H5Dclose(made);
        }
    });
}

/// IEEE half precision, which the library does not name.
fn float16(big_endian: bool) -> hdf5_sys::h5i::hid_t {
    use hdf5_sys::h5t::*;
    // SAFETY: a copy of a predefined type, changed as the HDF5 manual describes; the test's process keeps it.
    hdf5::sync::sync(|| unsafe {
        let half = H5Tcopy(if big_endian { *hdf5::globals::H5T_IEEE_F32BE } else { *hdf5::globals::H5T_IEEE_F32LE });
        assert!(H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0);
        assert!(H5Tset_precision(half, 16) >= 0 && H5Tset_size(half, 2) >= 0 && H5Tset_ebias(half, 15) >= 0);
        half
    })
}

fn features(names: &[&str]) -> TableNames {
    TableNames { features: names.iter().map(|name| name.to_string()).collect(), ..Default::default() }
}

fn open_for(path: &std::path::Path, names: &TableNames, need: Need) -> Result<Hdf5Source> {
    Hdf5Source::open(&[path.to_path_buf()], names, need)
}

fn message(result: Result<Hdf5Source>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn every_width_and_byte_order_is_read_exactly() {
    use hdf5::globals::*;
    let (half_le, half_be) = (float16(false), float16(true));
    let types = [
        ("i8", *H5T_STD_I8LE, -128.0, 127.0, true),
        ("i8b", *H5T_STD_I8BE, -128.0, 127.0, true),
        ("u8", *H5T_STD_U8LE, 0.0, 255.0, true),
        ("i16", *H5T_STD_I16LE, -32768.0, 32767.0, true),
        ("i16b", *H5T_STD_I16BE, -32768.0, 32767.0, true),
        ("u16", *H5T_STD_U16LE, 0.0, 65535.0, true),
        ("u16b", *H5T_STD_U16BE, 0.0, 65535.0, true),
        ("i32", *H5T_STD_I32LE, -2147483648.0, 2147483647.0, false),
        ("i32b", *H5T_STD_I32BE, -2147483648.0, 2147483647.0, false),
        ("u32", *H5T_STD_U32LE, 0.0, 4294967295.0, false),
        ("u32b", *H5T_STD_U32BE, 0.0, 4294967295.0, false),
        ("i64", *H5T_STD_I64LE, -9007199254740992.0, 9007199254740992.0, false),
        ("i64b", *H5T_STD_I64BE, -9007199254740992.0, 9007199254740992.0, false),
        ("u64", *H5T_STD_U64LE, 0.0, 9007199254740992.0, false),
        ("u64b", *H5T_STD_U64BE, 0.0, 9007199254740992.0, false),
        ("f16", half_le, -65504.0, 0.5, true),
        ("f16b", half_be, -65504.0, 0.5, true),
        ("f32", *H5T_IEEE_F32LE, -1.5e30f32 as f64, 0.1f32 as f64, true),
        ("f32b", *H5T_IEEE_F32BE, -1.5e30f32 as f64, 0.1f32 as f64, true),
        ("f64", *H5T_IEEE_F64LE, -1.5e300, 0.1, false),
        ("f64b", *H5T_IEEE_F64BE, -1.5e300, 0.1, false),
    ];
    let (_folder, path) = file(|file| {
        for (name, id, low, high, _) in types {
            create_as(file, name, id, &[3], &[low, high, 1.0]);
        }
    });
    for (name, _, low, high, narrow) in types {
        let mut source = open_for(&path, &features(&[name]), Need::Predict).unwrap();
        let block = read_all(&mut source);
        let values: Vec<f64> = match &block.values {
            Values::Sparse(_) => panic!("sparse"),
            Values::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
            Values::F64(values) => values.clone(),
        };
        assert_eq!(values, [low, high, 1.0], "{name}");
        assert_eq!(matches!(block.values, Values::F32(_)), narrow, "{name}");
        // The same as a target, and as the second column beside another type.
        let beside = if name == "u8" { "i8" } else { "u8" };
        let names = TableNames { target: Some(name.into()), ..features(&[beside, name]) };
        let block = read_all(&mut open_for(&path, &names, Need::Train).unwrap());
        assert_eq!(block.target, Targets::Number(vec![low, high, 1.0]), "{name}");
    }
}

#[test]
fn integers_above_2_to_the_53_become_the_nearest_float64() {
    let odd = [u64::MAX, (1 << 53) + 1, (1 << 62) + 257, 0x8000_0000_0000_0401];
    let signed = odd.map(|v| v as i64);
    let (_folder, path) = file(|file| {
        create_as(file, "u", *hdf5::globals::H5T_STD_U64LE, &[4], &odd);
        create_as(file, "ub", *hdf5::globals::H5T_STD_U64BE, &[4], &odd);
        create_as(file, "i", *hdf5::globals::H5T_STD_I64LE, &[4], &signed);
        create_as(file, "ib", *hdf5::globals::H5T_STD_I64BE, &[4], &signed);
    });
    for (name, expected) in [("u", odd.map(|v| v as f64)), ("i", signed.map(|v| v as f64))] {
        for name in [name.to_string(), format!("{name}b")] {
            let block = read_all(&mut open_for(&path, &features(&[&name]), Need::Predict).unwrap());
            assert_eq!(f64s(&block), expected, "{name}");
        }
    }
}

#[test]
fn every_half_precision_number_is_read_exactly() {
    // HDF5 sees the bits as integers first, so that nothing is converted while they are written.
    let finite: Vec<u16> = (0..=u16::MAX).filter(|bits| bits & 0x7c00 != 0x7c00).collect();
    let expected: Vec<f32> = finite
        .iter()
        .map(|&bits| {
            let (exponent, fraction) = ((bits >> 10) & 31, f32::from(bits & 1023));
            let size = match exponent {
                0 => fraction * 2f32.powi(-24),
                _ => (1024.0 + fraction) * 2f32.powi(i32::from(exponent) - 25),
            };
            if bits >> 15 == 1 { 0.0 - size } else { size }
        })
        .collect();
    let (_folder, path) = file(|file| {
        create_as(file, "h", float16(false), &[expected.len()], &expected);
        create_as(file, "hb", float16(true), &[expected.len()], &expected);
    });
    for name in ["h", "hb"] {
        let block = read_all(&mut open_for(&path, &features(&[name]), Need::Predict).unwrap());
        let same = f32s(&block).iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name}");
    }
}

#[test]
fn bool_and_bit_columns_are_zeros_and_ones() {
    let (_folder, path) = file(|file| {
        file.new_dataset_builder().with_data(&[true, false, true]).create("y").unwrap();
        create_as(file, "X", *hdf5::globals::H5T_STD_B8LE, &[3], &[1u8, 0, 1].map(BitByte::from));
    });
    let mut source = open(&path, TableNames::default()).unwrap();
    let block = read_all(&mut source);
    assert_eq!(source.schema().target, Some(TargetKind::Bool));
    assert_eq!(block.target, Targets::Number(vec![1.0, 0.0, 1.0]));
    assert_eq!(f32s(&block), [1.0, 0.0, 1.0]);
    let block = read_all(&mut open_for(&path, &features(&["y"]), Need::Predict).unwrap());
    assert_eq!(f32s(&block), [1.0, 0.0, 1.0]);
}

#[test]
fn trailing_axes_are_flattened_and_named() {
    let (_folder, path) = file(|file| {
        let cube = ndarray::Array3::from_shape_fn((4, 2, 3), |(i, j, k)| (100 * i + 10 * j + k) as i16);
        file.new_dataset_builder().with_data(&cube).create("data").unwrap();
    });
    let mut source = open_for(&path, &TableNames::default(), Need::Predict).unwrap();
    assert_eq!(source.schema().columns[5].name, "data[5]");
    let mut block = Block::empty();
    source.read(2..3, &mut block).unwrap();
    assert_eq!(f32s(&block), [200., 201., 202., 210., 211., 212.]);
}

#[test]
fn a_group_of_columns_with_strings_and_attribute_names() {
    use hdf5::types::{FixedAscii, FixedUnicode, VarLenAscii, VarLenUnicode};
    let (_folder, path) = file(|file| {
        let events = file.create_group("events").unwrap();
        let put = |name: &str, values: &[f32]| {
            events.new_dataset_builder().with_data(values).create(name).unwrap();
        };
        put("pt", &[1., 2., 3.]);
        put("eta", &[4., 5., 6.]);
        put("w", &[1., 0., 2.]);
        let fixed = ["a", "bc", ""].map(|text| FixedAscii::<4>::from_ascii(text).unwrap());
        events.new_dataset_builder().with_data(&fixed).create("code").unwrap();
        let fixed = ["ä", "bc", "d"].map(|text| text.parse::<FixedUnicode<4>>().unwrap());
        events.new_dataset_builder().with_data(&fixed).create("code8").unwrap();
        let any = ["x", "", "a longer one"].map(|text| VarLenAscii::from_ascii(text).unwrap());
        events.new_dataset_builder().with_data(&any).create("site").unwrap();
        let any = ["grün", "b", "grün"].map(|text| text.parse::<VarLenUnicode>().unwrap());
        events.new_dataset_builder().with_data(&any).create("label").unwrap();
        let matrix = file.new_dataset_builder().with_data(&array2(3, 2, |i| i as f64)).create("extra").unwrap();
        let names = ["low", "high"].map(|text| text.parse::<VarLenUnicode>().unwrap());
        matrix.new_attr_builder().with_data(&names).create("feature_names").unwrap();
    });
    let names = TableNames { weight: Some("events/w".into()), ..features(&["/events", "extra"]) };
    let mut source = open(&path, names).unwrap();
    let columns: Vec<&str> = source.schema().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["code", "code8", "eta", "pt", "site", "low", "high"]);
    let block = read_all(&mut source);
    assert_eq!(f64s(&block), [4., 1., 0., 1., 5., 2., 2., 3., 6., 3., 4., 5.]);
    assert_eq!(block.text, [["a", "bc", ""], ["ä", "bc", "d"], ["x", "", "a longer one"]]);
    assert_eq!(block.weight, Some(vec![1., 0., 2.]));
    assert_eq!(block.target, Targets::Text(vec!["grün".into(), "b".into(), "grün".into()]));
    // The names that were settled on open the same table again.
    let again = open(&path, source.names().clone()).unwrap();
    assert_eq!(again.schema(), source.schema());
}

#[test]
fn chunks_compression_cuts_and_files_give_equal_rows() {
    use crate::data::synthetic::{self, Storage};
    let table = synthetic::mixture(1_009, 5, 3, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut blocks = Vec::new();
    for (number, storage) in [
        Storage::default(),
        Storage { chunk_rows: Some(1), deflate: None },
        Storage { chunk_rows: Some(64), deflate: Some(1) },
        Storage { chunk_rows: Some(1_009), deflate: Some(9) },
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{number}.h5"));
        synthetic::write_hdf5(&path, "", &table, storage).unwrap();
        let mut source = open(&path, TableNames::default()).unwrap();
        blocks.push(read_all(&mut source));
        let mut cut = Block::empty();
        for rows in [0..1, 0..16, 63..65, 1_000..1_009, 500..500, 17..940] {
            source.read(rows.clone(), &mut cut).unwrap();
            let range = rows.start as usize * 5..rows.end as usize * 5;
            assert_eq!(f32s(&cut), &f32s(&blocks[number])[range], "{rows:?}");
        }
    }
    for block in &blocks {
        assert_eq!((&block.values, &block.target), (&table.block().values, &table.block().target));
    }
}

#[test]
fn many_files_are_one_table_in_the_order_given() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for part in 0..40usize {
        let path = folder.path().join(format!("{part}.h5"));
        let file = File::create(&path).unwrap();
        let n_rows = part % 4; // some are empty
        let x = array2(n_rows, 2, |i| (part * 100 + i) as f32);
        file.new_dataset_builder().with_data(&x).create("X").unwrap();
        file.new_dataset_builder().with_data(&vec![part as u8; n_rows]).create("y").unwrap();
        paths.push(path);
    }
    let mut source = Hdf5Source::open(&paths, &TableNames::default(), Need::Train).unwrap();
    assert_eq!(source.schema().n_rows, 60);
    let all = read_all(&mut source);
    assert_eq!(f32s(&all)[..6], [100., 101., 200., 201., 202., 203.]);
    let mut cut = Block::empty();
    for start in (0..60).rev() {
        source.read(start..(start + 7).min(60), &mut cut).unwrap();
        let end = (start as usize + 7).min(60);
        assert_eq!(f32s(&cut), &f32s(&all)[start as usize * 2..end * 2]);
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused_with_the_column() {
    let write = |name: &str, kind: char| {
        file(|file| {
            let make = || file.new_dataset_builder();
            make().with_data(&[1f32, 2.0]).create("a").unwrap();
            match kind {
                'w' => make().with_data(&[1f64, 0.1]).create(name).unwrap(),
                't' => {
                    make().with_data(&[hdf5::types::FixedAscii::<2>::from_ascii("x").unwrap(); 2]).create(name).unwrap()
                }
                _ => make().with_data(&[1f32, 2.0]).create(name).unwrap(),
            };
        })
    };
    let (first, text) = (write("b", 'n'), write("b", 't'));
    let paths = [first.1.clone(), text.1.clone()];
    let message_of = |paths: &[PathBuf]| message(Hdf5Source::open(paths, &features(&["a", "b"]), Need::Predict));
    let found = message_of(&paths);
    assert!(found.contains(&format!("{}: column 1, 'b', is strings", text.1.display())), "{found}");
    let other = write("c", 'n');
    let found = message_of(&[first.1.clone(), other.1]);
    assert!(found.contains("'b' is not there") && found.contains("'c' (2, float32)"), "{found}");
    // Numbers of any width go together: all are then read as the widest.
    let wide = write("b", 'w');
    let mut source = Hdf5Source::open(&[first.1, wide.1], &features(&["a", "b"]), Need::Predict).unwrap();
    assert_eq!(f64s(&read_all(&mut source)), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 0.1]);
}

#[test]
fn an_index_read_on_another_rank_gives_the_same_rows() {
    let (_folder, path) = file(|file| {
        let x = file
            .new_dataset_builder()
            .chunk((3, 2))
            .deflate(1)
            .with_data(&array2(20, 3, |i| i as f64 / 3.0))
            .create("X");
        x.unwrap().new_attr::<f64>().create("_FillValue").unwrap().write_scalar(&f64::NAN).unwrap();
        file.new_dataset_builder().with_data(&vec![1u8; 20]).create("y").unwrap();
    });
    let index = TableIndex::of(&[path], &TableNames::default(), Need::Train).unwrap();
    assert_eq!(index.through_library(), []);
    let received = TableIndex::from_bytes(&index.to_bytes().unwrap()).unwrap();
    assert_eq!(received.schema, index.schema);
    let [ours, theirs] = [index, received].map(|index| read_all(&mut Hdf5Source::of_index(index)));
    assert_eq!(f64s(&ours), f64s(&theirs));
    assert!(TableIndex::from_bytes(&[7; 5]).is_err());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let (_folder, path) = file(|file| {
        file.new_dataset_builder().with_data(&array2(20, 3, |i| i as f32)).create("X").unwrap();
        file.new_dataset_builder().with_data(&vec![1u8; 20]).create("y").unwrap();
    });
    let mut source = open(&path, TableNames::default()).unwrap();
    let mut block = Block::empty();
    source.read(0..10, &mut block).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20)); // the clock of a file system is coarse
    std::fs::write(&path, &bytes).unwrap();
    let error = source.read(10..20, &mut block).unwrap_err().to_string();
    assert!(error.contains("was changed while it was read"), "{error}");
}

#[test]
fn infinities_and_bad_weights_are_refused_by_row_and_column() {
    let (_folder, path) = file(|file| {
        let mut x = array2(20, 4, |i| i as f32);
        x[[17, 3]] = f32::NEG_INFINITY;
        x[[3, 1]] = f32::NAN;
        file.new_dataset_builder().with_data(&x).create("X").unwrap();
        file.new_dataset_builder().with_data(&vec![1.0; 20]).create("y").unwrap();
        for (name, row, value) in [("nan", 5, f64::NAN), ("negative", 6, -1.0), ("infinite", 7, f64::INFINITY)] {
            let mut values = vec![1.0; 20];
            values[row] = value;
            file.new_dataset_builder().with_data(&values).create(name).unwrap();
        }
    });
    let read = |names: &TableNames| {
        let mut block = Block::empty();
        open_for(&path, names, Need::Train).unwrap().read(0..20, &mut block).unwrap_err().to_string()
    };
    let text = read(&TableNames::default());
    assert!(text.contains("infinite value in column 3 ('X[3]') at row 17"), "{text}");
    let names = |weight: &str| TableNames { weight: Some(weight.into()), target: Some("y".into()), ..features(&["y"]) };
    assert!(read(&names("nan")).contains("'nan': NaN at row 5 is not a finite number"));
    assert!(read(&names("negative")).contains("-1 at row 6 is a negative weight"));
    assert!(read(&names("infinite")).contains("inf at row 7"));
    let text = read(&TableNames { target: Some("nan".into()), ..features(&["y"]) });
    assert!(text.contains("'nan': NaN at row 5"), "{text}");
}

#[test]
fn what_is_ambiguous_is_listed() {
    let (_folder, path) = file(|file| {
        for group in ["train", "test"] {
            let group = file.create_group(group).unwrap();
            group.new_dataset_builder().with_data(&array2(3, 2, |i| i as f32)).create("X").unwrap();
            group.new_dataset_builder().with_data(&[1u8, 0, 1]).create("y").unwrap();
        }
    });
    let error = open(&path, TableNames::default()).err().unwrap();
    assert_eq!(error.kind().exit_code(), 2);
    assert!(error.to_string().contains("test, train; choose with --group"), "{error}");
    assert!(error.to_string().contains("'train/X' (3 × 2, float32)"), "{error}");
    let source = open(&path, TableNames { group: Some("train".into()), ..Default::default() }).unwrap();
    assert_eq!(source.names().features, ["X"]);
    let other = TableNames { group: Some("/test/".into()), ..source.names().relative() };
    assert_eq!(open(&path, other).unwrap().names().path("X"), "test/X");

    let (_folder, path) = file(|file| {
        let inner = file.create_group("run").unwrap();
        inner.new_dataset_builder().with_data(&[1f32, 2.0]).create("X").unwrap();
        inner.new_dataset_builder().with_data(&[1f32, 2.0]).create("features").unwrap();
    });
    let text = message(open_for(&path, &TableNames::default(), Need::Predict));
    assert!(text.contains("X and features could each be the features; choose with --features"), "{text}");
}

#[test]
fn a_table_in_the_only_group_that_has_one_is_found() {
    let (_folder, path) = file(|file| {
        let inner = file.create_group("run/day1").unwrap();
        inner.new_dataset_builder().with_data(&[1f32, 2.0]).create("X").unwrap();
        inner.new_dataset_builder().with_data(&[1f32, 2.0]).create("target").unwrap();
    });
    let source = open(&path, TableNames::default()).unwrap();
    assert_eq!(source.names().group.as_deref(), Some("run/day1"));
    assert_eq!(source.names().target.as_deref(), Some("target"));
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let (_folder, path) = file(|file| {
        file.new_dataset_builder().with_data(&[1f32, 2.0]).create("X").unwrap();
        file.new_dataset_builder().with_data(&[1f32]).create("y").unwrap();
        file.new_dataset::<f32>().shape(()).create("scalar").unwrap();
        file.new_dataset::<f32>().shape((0, 3)).create("empty").unwrap();
        file.new_dataset::<f32>().shape((3, 0)).create("thin").unwrap();
        file.new_dataset_builder().with_data(&array2(2, 2, |i| i as f32)).create("square").unwrap();
    });
    let predict = |name: &str| message(open_for(&path, &features(&[name]), Need::Predict));
    assert!(predict("scalar").contains("is a single value"));
    assert!(predict("empty").contains("'empty': has 0 rows"));
    assert!(predict("thin").contains("has no columns (its shape is 3 × 0)"));
    assert!(predict("nowhere").contains("'nowhere' is not there; there is: 'X' (2, float32)"));
    let text = message(open(&path, TableNames::default()));
    assert!(text.contains("'X' has 2 rows but 'y' has 1"), "{text}");
    let text = message(open(&path, TableNames { weight: Some("square".into()), ..features(&["X"]) }));
    assert!(text.contains("'square': has shape 2 × 2"), "{text}");
    let text = message(open(&path, TableNames { group: Some("no".into()), ..Default::default() }));
    assert!(text.contains("there is no group 'no'"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.h5");
    assert!(message(open(&missing, TableNames::default())).ends_with("none.h5: no such file"));
    let plain = folder.path().join("plain.csv");
    std::fs::write(&plain, "a,b\n1,2\n").unwrap();
    assert!(message(open(&plain, TableNames::default())).contains("plain.csv: not an HDF5 file"));
    assert!(message(open(folder.path(), TableNames::default())).contains("is a folder"));
    let torn = folder.path().join("torn.h5");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let text = message(open(&torn, TableNames::default()));
    assert!(text.contains("torn.h5: is truncated"), "{text}");
}

#[test]
fn packed_columns_are_unpacked_as_netcdf_says() {
    let (_folder, path) = file(|file| {
        let x = file.new_dataset_builder().with_data(&[10i16, -999, -3]).create("X").unwrap();
        for (name, value) in [("scale_factor", 0.1f64), ("add_offset", 2.0), ("_FillValue", -999.0)] {
            x.new_attr_builder().with_data(&[value]).create(name).unwrap();
        }
    });
    let block = read_all(&mut open_for(&path, &TableNames::default(), Need::Predict).unwrap());
    assert_eq!(f64s(&block)[0], 10.0 * 0.1 + 2.0);
    assert!(f64s(&block)[1].is_nan());
    assert_eq!(f64s(&block)[2], -3.0 * 0.1 + 2.0);
}

#[test]
fn strings_that_are_not_utf8_are_refused_by_row() {
    let (_folder, path) = file(|file| {
        let bytes = [*b"ok\0\0", [0xff, 0xfe, 0, 0]];
        let texts = bytes.map(|b| {
            // Made through the raw bytes: the safe constructors refuse them.
            let mut text = hdf5::types::FixedAscii::<4>::new();
            // SAFETY: FixedAscii is four bytes.
            unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), (&raw mut text).cast::<u8>(), 4) };
            text
        });
        file.new_dataset_builder().with_data(&texts).create("X").unwrap();
    });
    let mut source = open_for(&path, &TableNames::default(), Need::Predict).unwrap();
    let text = source.read(0..2, &mut Block::empty()).unwrap_err().to_string();
    assert!(text.contains("'X': the string at row 1 is not UTF-8"), "{text}");
}

#[test]
fn files_of_other_software_are_read_or_refused_with_a_reason() {
    let Some(extra) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return eprintln!("skipped: CONSORT_EXTRA_DATA is not set");
    };
    let extra = PathBuf::from(extra);
    let predict = |file: &str, name: &str| {
        let mut source = open_for(&extra.join(file), &features(&[name]), Need::Predict)?;
        let mut block = Block::empty();
        source.read(0..source.schema().n_rows, &mut block).map(|()| (source.schema().clone(), block))
    };
    let (schema, _) =
        predict("hdf5-compat/mwa/Chebychev_coeff.h5", first_dataset(&extra, "mwa/Chebychev_coeff.h5").as_str())
            .unwrap();
    assert_eq!((schema.n_rows, schema.columns.len()), (361, 361 * 3));
    let (schema, _) = predict("hdf5-compat/rhdf5/h5ex_d_szip.h5", "DS1").unwrap();
    assert_eq!((schema.n_rows, schema.columns.len()), (32, 64));
    let vds = first_dataset(&extra, "hdf5lib-vds/1_vds.h5");
    assert_eq!(predict("hdf5-compat/hdf5lib-vds/1_vds.h5", &vds).unwrap().0.columns.len(), 18 * 8);
    for name in ["i1", "i2", "i4", "i8"] {
        let (_, block) = predict("hdf5-compat/pytables/blosc_bigendian.h5", name).unwrap();
        let values: Vec<f64> = match &block.values {
            Values::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
            Values::F64(values) => values.clone(),
            Values::Sparse(_) => panic!("{name} is sparse"),
        };
        assert!(values.iter().copied().eq((0..10).map(f64::from)), "{name}: {values:?}");
    }
    let (schema, block) = predict("fact-gamma-proton/gamma.hdf5", "/events").unwrap();
    assert_eq!((schema.n_rows, schema.columns.len(), block.text.len()), (1000, 263, 1));
    // Big-endian datasets equal their little-endian twins.
    let be = "hdf5-compat/hdf5lib/be_data.h5";
    let file = open_to_read(&extra.join(be)).unwrap();
    let mut n_read = 0;
    for entry in crate::data::hdf5::find::list(&file, "") {
        if matches!(entry.object, crate::data::hdf5::find::Object::Dataset(..)) {
            predict(be, &entry.path).unwrap();
            n_read += 1;
        }
    }
    assert!(n_read >= 20, "{n_read}");
}

fn first_dataset(extra: &std::path::Path, name: &str) -> String {
    let file = open_to_read(&extra.join("hdf5-compat").join(name)).unwrap();
    let entries = crate::data::hdf5::find::list(&file, "");
    let is_dataset = |object: &_| matches!(object, crate::data::hdf5::find::Object::Dataset(..));
    entries.into_iter().find(|entry| is_dataset(&entry.object)).unwrap().path
}
