use super::super::library::{LibraryRows, Native};
use super::super::stored_rows::StoredRows;
use super::super::text_rows::tests::same_both_ways as same_text;
use super::super::types::{is_any_length, open_to_read, read_stored, stored_bytes};
use super::*;
use hdf5::H5Type;
use hdf5::filters::{Filter as Written, ScaleOffset};
use ndarray::{ArrayD, IxDyn};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(dataset: &Dataset, keep_bytes: u64) -> std::result::Result<StoredRows, &'static str> {
    let index = StoredIndex::of(dataset, false)?;
    let file = Arc::new(open_raw(&index.file).unwrap());
    Ok(StoredRows::new(index, file, Arc::default(), keep_bytes))
}

/// Rows of a dataset both ways, at some cuts.
fn same_both_ways<T: Native + Default>(dataset: &Dataset, stored: &StoredRows, place: &str) {
    let shape: Vec<u64> = dataset.shape().iter().map(|&n| n as u64).collect();
    let (n, width) = (shape[0], shape[1..].iter().product::<u64>());
    // Whole, in consecutive pieces that cut chunks, and out of order.
    let pieces = (0..n).step_by(17).map(|first| first..(first + 17).min(n));
    let odd = [0..n, 0..1, n / 3..n, n / 2..n / 2 + 1, n - 1..n, n..n, 0..n];
    for rows in odd.into_iter().chain(pieces) {
        let mut ours = vec![T::default(); ((rows.end - rows.start) * width) as usize];
        let mut theirs = ours.clone();
        LibraryRows::new(dataset.clone(), None).read_numbers(rows.clone(), &mut theirs).unwrap();
        stored.read(rows.clone(), bytemuck::cast_slice_mut(&mut ours)).unwrap();
        let (ours, theirs): (&[u8], &[u8]) = (bytemuck::cast_slice(&ours), bytemuck::cast_slice(&theirs));
        assert!(ours == theirs, "{place}, rows {rows:?}");
    }
}

/// The bytes of strings and enumerations, whole.
fn same_stored_bytes(dataset: &Dataset, stored: &StoredRows, place: &str) {
    let theirs = read_stored(dataset).unwrap();
    let mut ours = vec![0; theirs.len()];
    stored.read(0..dataset.shape()[0] as u64, &mut ours).unwrap();
    assert!(ours == theirs, "{place}");
}

fn written<T: H5Type + Native + Default>(scaled: Written, value: impl Fn(usize) -> T) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = hdf5::File::create(&path).unwrap();
    let pipelines: [&[Written]; 8] = [
        &[],
        &[Written::deflate(1)],
        &[Written::shuffle(), Written::deflate(6)],
        &[Written::shuffle(), Written::fletcher32()],
        &[Written::fletcher32(), Written::deflate(1)],
        &[Written::shuffle(), Written::deflate(1), Written::fletcher32()],
        // All bits are there: it has nothing to do.
        &[Written::nbit()],
        &[scaled, Written::deflate(1)],
    ];
    let shapes: [(&[usize], &[usize]); 7] = [
        (&[1009], &[100]),
        (&[1], &[1]),
        (&[103, 5], &[10, 5]),
        (&[103, 5], &[103, 2]),
        (&[64, 7], &[1, 3]),
        (&[29, 4, 6], &[8, 3, 4]),
        (&[11, 3, 2, 5], &[4, 2, 2, 3]),
    ];
    for (i, (shape, chunk)) in shapes.into_iter().enumerate() {
        let n = shape.iter().product();
        let data = ArrayD::from_shape_vec(IxDyn(shape), (0..n).map(&value).collect()).unwrap();
        for (j, filters) in pipelines.into_iter().enumerate() {
            let chunked = file.new_dataset_builder().chunk(chunk).set_filters(filters);
            chunked.with_data(&data).create(format!("d{i}_{j}").as_str()).unwrap();
        }
        file.new_dataset_builder().with_data(&data).create(format!("plain{i}").as_str()).unwrap();
    }
    file.close().unwrap();
    let file = hdf5::File::open(&path).unwrap();
    for dataset in file.datasets().unwrap() {
        for keep_bytes in [0, 1 << 20] {
            let stored = open(&dataset, keep_bytes).unwrap_or_else(|why| panic!("{}: {why}", dataset.name()));
            same_both_ways::<T>(&dataset, &stored, &dataset.name());
        }
    }
}

/// A dataset of numbers in fewer bits, and the comparison that is due when the file was closed.
fn scaled<T: H5Type + Native + Default>(
    file: &hdf5::File,
    due: &mut Vec<fn(&Dataset, &str)>,
    by: ScaleOffset,
    fill: Option<T>,
    values: impl Iterator<Item = T>,
) {
    let values: Vec<T> = values.collect();
    let builder = file.new_dataset::<T>().chunk(100).set_filters(&[Written::scale_offset(by)]);
    let builder = if let Some(fill) = fill { builder.fill_value(fill) } else { builder };
    let dataset = builder.shape(values.len() + 150).create(format!("d{}", due.len()).as_str()).unwrap();
    // The last chunk but one is written in part, the last one not at all.
    dataset.write_slice(&values, ..values.len()).unwrap();
    due.push(|dataset, place| same_both_ways::<T>(dataset, &open(dataset, 0).unwrap(), place));
}

#[test]
fn scaled_numbers_are_those_of_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = hdf5::File::create(&path).unwrap();
    let mut due = Vec::new();
    // From one bit to all of them, some that lose bits, with and without fill values among them.
    for range in [1i64, 2, 3, 100, 127, 128, 255, 256, 1 << 20, i64::MAX] {
        for by in [0, 3, 8, 13] {
            let by = ScaleOffset::Integer(by);
            let values: Vec<i64> = (0..333i64).map(|i| (i * i * 7919 * 1_000_003 % range) - range / 2).collect();
            let values = || values.iter().copied();
            scaled(&file, &mut due, by, None, values().map(|v| v as u8));
            scaled(&file, &mut due, by, Some(3), values().map(|v| v as u8));
            scaled(&file, &mut due, by, Some(-1), values().map(|v| v as i8));
            scaled(&file, &mut due, by, Some(5), values().map(|v| v as u16));
            scaled(&file, &mut due, by, Some(-7), values().map(|v| v as i16));
            scaled(&file, &mut due, by, None, values().map(|v| v as u32));
            scaled(&file, &mut due, by, Some(-7), values().map(|v| v as i32));
            scaled(&file, &mut due, by, Some(1 << 40), values().map(|v| v as u64));
            scaled(&file, &mut due, by, None, values());
        }
    }
    for digits in [0, 1, 3, 7, 12, 22] {
        let by = ScaleOffset::FloatDScale(digits);
        for scale in [1e-9, 1.0, 1e6, 1e30] {
            let values = || (0..333).map(|i| f64::from(i).sin() * scale);
            scaled(&file, &mut due, by, None, values());
            scaled(&file, &mut due, by, Some(-99.5), values());
            scaled(&file, &mut due, by, Some(7.25), values().map(|v| v as f32));
            scaled(&file, &mut due, by, Some((f64::from(5).sin() * scale) as f32), values().map(|v| v as f32));
        }
    }
    // The library would show what it was given, not what it stored.
    file.close().unwrap();
    let file = hdf5::File::open(&path).unwrap();
    for (number, compare) in due.iter().enumerate() {
        let dataset = file.dataset(&format!("d{number}")).unwrap();
        let values = &filters_of(&dataset).unwrap()[0].values;
        compare(&dataset, &format!("d{number}, {:?}, client values {values:?}", dataset.dtype().unwrap()));
    }
}

#[test]
fn datasets_that_grow_along_another_axis_are_read_as_the_library_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = hdf5::File::with_options().with_fapl(|access| access.libver_latest()).create(&path).unwrap();
    for (name, most) in [("second", [Some(19), None]), ("first", [None, Some(400)]), ("both", [None, None])] {
        let shape = [hdf5::Extent::new(7, most[0]), hdf5::Extent::new(300, most[1])];
        let dataset = file.new_dataset::<i32>().chunk((2, 2)).deflate(1).shape(shape).create(name).unwrap();
        dataset.write(&ndarray::Array2::from_shape_fn((7, 300), |(i, j)| (i * 1000 + j) as i32)).unwrap();
    }
    file.close().unwrap();
    let file = hdf5::File::open(&path).unwrap();
    for dataset in file.datasets().unwrap() {
        same_both_ways::<i32>(&dataset, &open(&dataset, 0).unwrap(), &dataset.name());
    }
}

#[test]
fn every_shape_and_pipeline_gives_the_bytes_of_the_library() {
    let digits = |n| Written::scale_offset(ScaleOffset::FloatDScale(n));
    let bits = |n| Written::scale_offset(ScaleOffset::Integer(n));
    written(bits(0), |i| (i * 37 % 251) as u8);
    written(bits(0), |i| (i * 7919 % 60_000) as i16);
    written(digits(2), |i| (i as f32).sin());
    written(digits(5), |i| (i as f64 * 1e9).cos());
}

/// All datasets under these files and groups that have rows.
fn datasets(path: &Path, found: &mut Vec<Dataset>) {
    let mut paths = vec![path.to_path_buf()];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let Ok(file) = open_to_read(&path) else { continue };
        let mut groups = vec![file.as_group().unwrap()];
        while let Some(group) = groups.pop() {
            groups.extend(group.groups().unwrap_or_default());
            found.extend(group.datasets().unwrap_or_default());
        }
    }
    found.retain(|dataset| dataset.shape().first().is_some_and(|&n| n > 0));
}

#[test]
fn real_files_give_the_bytes_of_the_library() {
    let mut found = Vec::new();
    datasets(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data"), &mut found);
    match std::env::var_os("CONSORT_EXTRA_DATA") {
        Some(extra) => datasets(Path::new(&extra), &mut found),
        None => println!("SKIPPED: files of other programs (CONSORT_EXTRA_DATA names no folder)"),
    }
    let (mut ours, mut big_endian, mut texts) = (0, 0, 0);
    // Decoders past the library have files of their own.
    found.retain(|dataset| filters_of(dataset).is_ok_and(|filters| filters.iter().all(|filter| filter.available)));
    for dataset in &found {
        let place = format!("{} {}", dataset.filename(), dataset.name());
        if is_any_length(&dataset.dtype().unwrap()) {
            match same_text(dataset, &place) {
                Ok(()) => texts += 1,
                Err(why) => println!("{place}: {why}"),
            }
            continue;
        }
        match open(dataset, 1000) {
            Err(why) => println!("{place}: {why}"),
            Ok(stored) => {
                let dtype = dataset.dtype().unwrap();
                // The crate has no name for bit fields.
                let number = dtype.to_descriptor().unwrap_or(hdf5::types::TypeDescriptor::Boolean);
                use hdf5::types::TypeDescriptor::{Float, Integer, Unsigned};
                match (&number, stored_bytes(&dtype).unwrap().0) {
                    (Integer(_), 1) => same_both_ways::<i8>(dataset, &stored, &place),
                    (Integer(_), 2) => same_both_ways::<i16>(dataset, &stored, &place),
                    (Integer(_), 4) => same_both_ways::<i32>(dataset, &stored, &place),
                    (Integer(_), _) => same_both_ways::<i64>(dataset, &stored, &place),
                    (Unsigned(_), 1) => same_both_ways::<u8>(dataset, &stored, &place),
                    (Unsigned(_), 2) => same_both_ways::<u16>(dataset, &stored, &place),
                    (Unsigned(_), 4) => same_both_ways::<u32>(dataset, &stored, &place),
                    (Unsigned(_), _) => same_both_ways::<u64>(dataset, &stored, &place),
                    (Float(_), 4) => same_both_ways::<f32>(dataset, &stored, &place),
                    (Float(_), _) => same_both_ways::<f64>(dataset, &stored, &place),
                    _ => same_stored_bytes(dataset, &stored, &place),
                }
                ours += 1;
                big_endian += usize::from(stored.index.big_endian);
            }
        }
    }
    assert!(ours >= 20, "{ours} datasets were read past the library");
    assert!(big_endian > 0 || std::env::var_os("CONSORT_EXTRA_DATA").is_none());
    assert!(texts >= 3, "{texts} datasets of strings of any length were read past the library");
    println!(
        "{ours} of {} datasets past the library, {big_endian} of them big-endian, and {texts} of strings",
        found.len()
    );
}

#[test]
fn chunks_that_were_never_written_hold_the_fill_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = hdf5::File::create(folder.path().join("t.h5")).unwrap();
    let builder = || file.new_dataset::<f32>().chunk((100, 2)).shape((1000, 3)).deflate(1);
    let datasets = [builder().create("zeros").unwrap(), builder().fill_value(-1.5f32).create("filled").unwrap()];
    for dataset in datasets {
        same_both_ways::<f32>(&dataset, &open(&dataset, 0).unwrap(), "nothing written");
        dataset.write_slice(&ndarray::Array2::from_elem((50, 2), 7.0f32), (420..470, 1..3)).unwrap();
        file.flush().unwrap();
        same_both_ways::<f32>(&dataset, &open(&dataset, 1 << 20).unwrap(), "some chunks written");
    }
}

#[test]
fn columns_after_one_another_are_read_as_rows() {
    let folder = tempfile::tempdir().unwrap();
    let file = hdf5::File::create(folder.path().join("t.h5")).unwrap();
    let by_column = ndarray::Array2::from_shape_fn((5, 103), |(column, row)| (row * 5 + column) as i32);
    let plain = file.new_dataset_builder().with_data(&by_column).create("plain").unwrap();
    let chunked = file.new_dataset_builder().chunk((2, 10)).deflate(1).with_data(&by_column).create("chunked").unwrap();
    file.flush().unwrap();
    for dataset in [plain, chunked] {
        let index = StoredIndex::of(&dataset, true).unwrap();
        let raw = Arc::new(open_raw(&index.file).unwrap());
        let stored = StoredRows::new(index, raw, Arc::default(), 1 << 20);
        for rows in [0..103u64, 7..8, 9..31, 95..103] {
            let mut into = vec![0i32; (rows.end - rows.start) as usize * 5];
            stored.read(rows.clone(), bytemuck::cast_slice_mut(&mut into)).unwrap();
            assert!(into.iter().copied().eq(rows.start as i32 * 5..rows.end as i32 * 5), "{} {rows:?}", dataset.name());
        }
    }
}

#[test]
fn damaged_chunks_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = hdf5::File::create(&path).unwrap();
    let data: Vec<f32> = (0..6000).map(|i| (i as f32).sin()).collect();
    let data = ndarray::Array2::from_shape_vec((2000, 3), data).unwrap();
    let builder = || file.new_dataset_builder().chunk((100, 3));
    let deflated = builder().shuffle().deflate(1).with_data(&data).create("deflated").unwrap();
    let checked = builder().fletcher32().with_data(&data).create("checked").unwrap();
    let places = [&deflated, &checked].map(|dataset| dataset.chunk_info(7).unwrap().addr);
    drop((deflated, checked));
    file.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    places.iter().for_each(|&at| bytes[at as usize + 60] ^= 0x55);
    std::fs::write(&path, &bytes).unwrap();
    let file = hdf5::File::open(&path).unwrap();
    for (name, why) in [("deflated", "chunk 7 (rows 700 on)"), ("checked", "checksum failed")] {
        let stored = open(&file.dataset(name).unwrap(), 0).unwrap();
        let mut into = vec![0u8; 2000 * 12];
        let error = stored.read(0..2000, &mut into).unwrap_err().to_string();
        assert!(error.contains("chunk 7") && error.contains(why), "{name}: {error}");
        stored.read(0..700, &mut into[..700 * 12]).unwrap();
    }
    drop(file);
    // The table ends within the last chunks.
    bytes.truncate(places[1] as usize + 50);
    let short = folder.path().join("short.h5");
    std::fs::write(&short, &bytes).unwrap();
    assert!(hdf5::File::open(&short).is_err(), "the library notices it when the file is opened");
}
