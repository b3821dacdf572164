//! Every parser on damaged files: it may refuse them or find other values, but neither panic nor leave anything behind, and it takes
//! no more memory than a small file can need.

use super::{ConvertOptions, convert};
use crate::data::crew::Alone;
use crate::data::damage::damage;
use crate::data::hdf5::types::open_to_read;
use crate::rng::{Draws, Stream};
use std::io::Write;
use std::path::Path;

const DAMAGES_PER_FILE: u64 = 60;

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Name, bytes, and whether rows are stored sparsely.
fn files() -> Vec<(String, Vec<u8>, bool)> {
    let csv =
        "id,site,\"a \"\"b\"\"\",y\n1,north,0.5,cat\n2,\"süd,\n2\",-1e-3,dog\n,north,NaN,cat\n4,,1e30,dog\n".repeat(3);
    let csv = csv.as_bytes();
    let libsvm = b"+1 1:0.5 3:2 # c\n-1 2:1e3\n+1 qid:7 1:-0 4:7\n";
    let mut idx = vec![0, 0, 8, 2, 0, 0, 0, 4, 0, 0, 0, 3];
    idx.extend(0..12);
    let mut files: Vec<(String, Vec<u8>, bool)> = vec![
        ("table.csv".into(), csv.to_vec(), false),
        ("table.csv.gz".into(), gzipped(csv), false),
        ("table.tsv".into(), b"a\tb\tlabel\n1\t2\t0\n3\t\t1\n".to_vec(), false),
        ("table.libsvm".into(), libsvm.to_vec(), false),
        ("sparse.libsvm".into(), libsvm.to_vec(), true),
        ("table.libsvm.gz".into(), gzipped(libsvm), true),
        ("images.idx".into(), idx.clone(), false),
        ("images.idx.gz".into(), gzipped(&idx), false),
    ];
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/formats");
    for name in
        ["fortran.npy", "plain.npz", "arrays.npz", "none.parquet", "snappy.parquet", "zstd.parquet", "gzip.parquet"]
    {
        files.push((name.to_string(), std::fs::read(formats.join(name)).unwrap(), false));
    }
    files
}

#[test]
fn damaged_files_are_refused_or_read_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.h5");
    let (mut n_read, mut n_refused) = (0, 0);
    for (number, (name, bytes, sparse)) in files().into_iter().enumerate() {
        let path = folder.path().join(&name);
        let options = ConvertOptions { sparse, replace: true, ..ConvertOptions::default() };
        std::fs::write(&path, &bytes).unwrap();
        let whole = convert(std::slice::from_ref(&path), &out, &options, &Alone, &mut |_| ());
        assert!(whole.is_ok(), "{name}: {}", whole.unwrap_err());
        let draws = Draws::new(number as u64, Stream::Synthetic);
        for draw in 0..DAMAGES_PER_FILE {
            let mut damaged = bytes.clone();
            (0..1 + draw % 3).for_each(|again| damage(&mut damaged, draws, draw * 3 + again));
            std::fs::write(&path, &damaged).unwrap();
            let _ = std::fs::remove_file(&out);
            match convert(std::slice::from_ref(&path), &out, &options, &Alone, &mut |_| ()) {
                Ok(_) => {
                    n_read += 1;
                    open_to_read(&out).unwrap();
                }
                Err(e) => {
                    n_refused += 1;
                    assert!([2, 3].contains(&e.kind().exit_code()), "{name}, damage {draw}: {e}");
                    assert!(e.to_string().contains(&name), "{name}, damage {draw}: {e}");
                    assert!(!out.exists(), "{name}, damage {draw}: {e}, and an output");
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
        let _ = std::fs::remove_file(&out);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{name} left {left:?}");
    }
    println!("{n_refused} damages refused, {n_read} read");
    assert!(n_refused > 100 && n_read > 20, "{n_refused} refused, {n_read} read");
}

/// An array of an archive has a checksum, which stands behind its last byte.
#[test]
fn a_changed_byte_of_an_archive_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("x.npz"), folder.path().join("out.h5"));
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        let mut header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (64, 2), }".to_vec();
        header.resize(127, b' ');
        header.push(b'\n');
        let values: Vec<u8> = (0..128).flat_map(|i| (f64::from(i) / 7.0).to_le_bytes()).collect();
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        archive.start_file("X.npy", zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(&header).and_then(|()| archive.write_all(&values)).unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let options = ConvertOptions { replace: true, ..ConvertOptions::default() };
            convert(std::slice::from_ref(&path), &out, &options, &Alone, &mut |_| ())
        };
        assert_eq!(read(&bytes).unwrap().n_rows, 64);
        for at in (200..bytes.len() - 200).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            let refused = read(&damaged).unwrap_err().to_string();
            assert!(refused.contains("x.npz"), "{method:?}, byte {at}: {refused}");
        }
    }
}

#[test]
fn rows_without_values_do_not_make_a_csv_of_libsvm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.svm");
    std::fs::write(&path, "1\n0 1:3 2:4\n1 3:5\n").unwrap();
    let report =
        convert(&[path], &folder.path().join("out.h5"), &ConvertOptions::default(), &Alone, &mut |_| ()).unwrap();
    assert_eq!((report.format, report.n_rows, report.n_columns), (super::Format::Libsvm, 3, 3));
}

/// Whatever is beside the output stays.
#[test]
fn an_input_that_is_called_like_an_output_under_way_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.h5.partial");
    std::fs::write(&path, "a,y\n1,2\n").unwrap();
    convert(
        std::slice::from_ref(&path),
        &folder.path().join("data.h5"),
        &ConvertOptions::default(),
        &Alone,
        &mut |_| (),
    )
    .unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,y\n1,2\n");
}
