//! Files that other programs wrote have the values that they read.

use super::tests::{convert, formats, input, numbers, texts, type_of};
use super::{ConvertOptions, Format};
use std::path::Path;

#[test]
fn parquet_files_of_other_software_are_read_in_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    for compression in ["none", "snappy", "zstd", "gzip"] {
        let out = folder.path().join(format!("{compression}.h5"));
        let from = formats(&format!("{compression}.parquet"));
        let report = convert(&[from.clone(), from], &out, &ConvertOptions::default()).unwrap();
        assert_eq!((report.n_rows, report.n_columns, report.format), (166, 7, Format::Parquet));
        assert_eq!(report.features, ["X", "site"]);
        let x = numbers(&out, "X");
        for row in 0..166 {
            let i = row % 83;
            let unsigned = ((i as u64 * 50_000_003) % (1 << 32)) as f64;
            let expected = [(i % 7) as f64, (i % 5) as f64, unsigned, i as f64 / 8.0];
            assert_eq!(x[row * 6..][..4], expected, "{compression} row {row}");
            assert!(if i % 6 == 0 { x[row * 6 + 4].is_nan() } else { x[row * 6 + 4] == i as f64 / 4.0 });
            assert_eq!(x[row * 6 + 5], f64::from(i % 3 == 0));
        }
        let site = |i: usize| if i == 4 { "" } else { ["north", "süd", ""][i % 3] };
        assert!(texts(&out, "site").iter().enumerate().all(|(row, text)| text == site(row % 83)));
        assert!(texts(&out, "y").iter().enumerate().all(|(row, text)| text == ["cat", "dog"][row % 83 % 2]));
        assert_eq!(type_of(&out, "X"), "float64");
    }
    let error =
        convert(&[formats("nested.parquet")], &folder.path().join("o"), &ConvertOptions::default()).unwrap_err();
    assert!(error.to_string().contains("'list.list.element': is nested"), "{error}");
}

#[test]
fn arrays_of_numpy_keep_their_values_in_any_order_of_axes_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let x: Vec<f64> = (0..83 * 6).map(|i| f64::from(i - 100)).collect();
    let out = folder.path().join("npz.h5");
    let report = convert(&[formats("arrays.npz")], &out, &ConvertOptions::default()).unwrap();
    assert_eq!((report.n_rows, report.n_columns, report.format), (83, 6, Format::Npz));
    assert_eq!((report.features, report.target), (vec!["X".to_string()], Some("y".to_string())));
    assert_eq!((numbers(&out, "X"), type_of(&out, "X")), (x.clone(), "int16".into()));
    assert!(texts(&out, "y").iter().enumerate().all(|(i, text)| text == ["ä", "bb", "c"][i % 3]));
    assert!(numbers(&out, "weight").iter().enumerate().all(|(i, weight)| *weight == i as f64 / 2.0));
    assert_eq!(type_of(&out, "weight"), "float32");
    let file = hdf5::File::open(&out).unwrap();
    assert!(
        file.dataset("flag").unwrap().read_raw::<bool>().unwrap().iter().enumerate().all(|(i, f)| *f == (i % 2 == 0))
    );

    let out = folder.path().join("plain.h5");
    convert(&[formats("plain.npz")], &out, &ConvertOptions::default()).unwrap();
    let expected = |k: usize| (k / 3 * 6 + k % 3) as f64 - 100.0 + 0.1;
    assert!(numbers(&out, "X").iter().enumerate().all(|(k, v)| *v == expected(k)));
    assert!(numbers(&out, "y").iter().enumerate().all(|(i, v)| *v == (i % 4) as f64));

    let gzipped = input(folder.path(), "fortran.npy.gz", &std::fs::read(formats("fortran.npy")).unwrap());
    for (number, fortran) in [formats("fortran.npy"), gzipped].into_iter().enumerate() {
        let out = folder.path().join(format!("npy{number}.h5"));
        let report = convert(&[formats("bytes.npy"), fortran], &out, &ConvertOptions::default()).unwrap();
        assert_eq!((report.n_rows, report.n_columns, report.format), (83, 6, Format::Npy));
        assert_eq!(numbers(&out, "X"), x);
        assert_eq!(hdf5::File::open(&out).unwrap().dataset("X").unwrap().shape(), [83, 2, 3]);
        assert!(texts(&out, "y").iter().enumerate().all(|(i, text)| text == ["no", "yes"][i % 2]));
    }
    let error = convert(&[formats("objects.npy")], &folder.path().join("o"), &ConvertOptions::default()).unwrap_err();
    assert!(error.to_string().contains("Python objects are not read"), "{error}");
}

// ---- Files of others, compared with what pandas 3.0 and scikit-learn read (BLAKE3 of float64 and of lines) ---------------

fn hash(numbers: &[f64]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    blake3::hash(&bytes).to_hex()[..32].to_string()
}

fn hash_of_texts(texts: &[String]) -> String {
    blake3::hash(texts.join("\n").as_bytes()).to_hex()[..32].to_string()
}

#[test]
fn csv_files_of_others_have_the_values_that_pandas_reads() {
    let Some(extra) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return eprintln!("skipped: CONSORT_EXTRA_DATA is not set");
    };
    let folder = tempfile::tempdir().unwrap();
    type Case = (&'static str, &'static str, u64, &'static str, &'static [&'static str], &'static str, &'static str);
    let cases: [Case; 6] = [
        (
            "kddcup99/kddcup.data_10_percent.gz",
            "-1",
            494_021,
            "eb78e3b87ea0e42605f92b9c5bd4e281",
            &[
                "036af83c24217c4f913dc30fee8277c0",
                "5b05e7a25c171ae7dc416665b9c2d716",
                "719b51e4552fdd3c0a2c9d69e6bb30cc",
            ],
            "d9641d14c0b82f729bf60ee0bf206221",
            "float64",
        ),
        (
            "kddcup99/corrected.gz",
            "-1",
            311_029,
            "2f92139d7fb337635261574347898e20",
            &[
                "83c2dd147bda61169e1bbc0fcf47fe6c",
                "84394d603396ec1297eac2144d6ea6c3",
                "7649deee526196846a5a5436e13acebe",
            ],
            "0fbc47e288b3d630e916edfdc85a353e",
            "float64",
        ),
        (
            "covtype-20k/covtype.20k.data.gz",
            "-1",
            20_000,
            "84bcf99979d7080ae798e35aa9029f55",
            &[],
            "20b45e3ef9e07952eb34d6afb88dc54f",
            "int16",
        ),
        (
            "casp-protein/CASP.csv.gz",
            "0",
            45_730,
            "aa661e0df13bb6258301ddf6109ddda8",
            &[],
            "e50f62cdcdbe462ba28681bc2378e9b3",
            "float64",
        ),
        (
            "higgs-subset/binary.test.gz",
            "0",
            500,
            "7f10dd5e46855549872a95cf18bfe2c4",
            &[],
            "18e9065f3c68acd50e20a7c6c8b9361d",
            "float64",
        ),
        (
            "california-housing/cal_housing.data.gz",
            "-1",
            20_640,
            "7785caa910c02bf1ef608b0fba059611",
            &[],
            "cc299ab723433e6c63fb9611894666e9",
            "float64",
        ),
    ];
    for (number, (name, target, n_rows, x, columns, y, cell)) in cases.into_iter().enumerate() {
        let out = folder.path().join(format!("{number}.h5"));
        let options = ConvertOptions { target: Some(target.into()), ..Default::default() };
        let report = convert(&[Path::new(&extra).join(name)], &out, &options).unwrap();
        assert_eq!((report.n_rows, hash(&numbers(&out, "X"))), (n_rows, x.to_string()), "{name}");
        assert_eq!(type_of(&out, "X"), cell, "{name}");
        let found: Vec<String> =
            report.features[1..].iter().map(|column| hash_of_texts(&texts(&out, column))).collect();
        assert_eq!(found, columns, "{name}");
        let is_text = name.starts_with("kdd");
        let found = if is_text { hash_of_texts(&texts(&out, "y")) } else { hash(&numbers(&out, "y")) };
        assert_eq!(found, y, "{name}");
    }
}

#[test]
fn libsvm_and_idx_files_of_others_have_the_values_that_scikit_learn_reads() {
    let Some(extra) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return eprintln!("skipped: CONSORT_EXTRA_DATA is not set");
    };
    let extra = Path::new(&extra);
    let folder = tempfile::tempdir().unwrap();
    for sparse in [false, true] {
        let out = folder.path().join(format!("{sparse}.h5"));
        let options = ConvertOptions { n_features: Some(123), sparse, ..Default::default() };
        let report = convert(&[extra.join("a9a/a9a.gz")], &out, &options).unwrap();
        assert_eq!((report.n_rows, report.n_columns), (32_560, 123));
        assert_eq!(hash(&numbers(&out, "y")), "4ac88bae501abac2097f10d72587b119");
        if sparse {
            let found = ["X/data", "X/indices", "X/indptr"].map(|name| hash(&numbers(&out, name)));
            let expected = [
                "8cb0e99014abd24dd40ec9ddfdd28db5",
                "30d43e09ce1c47c9d122ff0a36cb4b8f",
                "0a2e87821cc5af0604780adc1f773148",
            ];
            assert_eq!(found, expected);
        } else {
            assert_eq!(hash(&numbers(&out, "X")), "85235ec5e317511968aec9a08e96aa2d");
        }
    }
    for (part, n_rows, x, y) in [
        ("train", 60_000, "ec767f59d2de6f56bff5bdc679f5f8f2", "918f45d88ccbb945075d132befc6718f"),
        ("t10k", 10_000, "87cb157ec1de201ac0710f50cbe45f8e", "d86c9f8a2ad3a510a445d67bd3b2c999"),
    ] {
        let out = folder.path().join(format!("{part}.h5"));
        let inputs =
            ["images-idx3", "labels-idx1"].map(|kind| extra.join(format!("fashion-mnist/{part}-{kind}-ubyte.gz")));
        let report = convert(&inputs, &out, &ConvertOptions::default()).unwrap();
        assert_eq!((report.n_rows, report.n_columns), (n_rows, 784));
        assert_eq!((hash(&numbers(&out, "X")), hash(&numbers(&out, "y"))), (x.to_string(), y.to_string()));
    }
}
