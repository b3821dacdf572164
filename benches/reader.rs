//! Reading a table into memory: MB/s (decoded) by filter and chunk shape, against the HDF5 library in C and, where nothing is to be
//! decoded, against plain `pread` calls of two threads.
//!
//! `cargo bench --bench reader` makes its own files; `cargo bench --bench reader -- FILE DATASET` takes one that is there, which is
//! how `reader.py` sets it beside h5py. One JSON line a case: medians of alternating runs, files in the page cache, every run
//! into fresh memory. Fair: the library is given a chunk cache that holds whatever it decodes once. Unfair to Consort: its time
//! has the opening, the index, and NaN and −0 made one of a kind.

use consort::data::hdf5::Hdf5Source;
use consort::data::names::{Need, TableNames};
use consort::data::{Block, DataSource, Values};
use consort::rng::{Draws, Stream};
use rayon::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const RUNS: usize = 7;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [file, dataset] = &words[..] {
        return time(file, Path::new(file), dataset, None);
    }
    let folder = tempfile::tempdir().expect("a folder for tables");
    for (case, rows, chunk, filters) in [
        ("contiguous", 1_000_000, None, Filters::None),
        ("chunks", 1_000_000, Some((8192, 28)), Filters::None),
        ("chunks", 1_000_000, Some((8192, 28)), Filters::Deflate),
        ("chunks", 1_000_000, Some((8192, 28)), Filters::DeflateShuffle),
        ("chunks", 1_000_000, Some((8192, 28)), Filters::Fletcher),
        ("small chunks", 200_000, Some((64, 28)), Filters::DeflateShuffle),
        ("tiles", 1_000_000, Some((8192, 7)), Filters::DeflateShuffle),
        ("columns", 1_000_000, Some((1_000_000, 1)), Filters::DeflateShuffle),
    ] {
        let path = folder.path().join("table.h5");
        let offset = write(&path, rows, 28, chunk, filters);
        let chunk = chunk.map_or(String::new(), |(n, m)| format!(" {n}x{m}"));
        time(&format!("{case}{chunk}, {filters:?}"), &path, "X", offset);
        std::fs::remove_file(&path).expect("the table is gone");
    }
}

#[derive(Clone, Copy, Debug)]
enum Filters {
    None,
    Deflate,
    DeflateShuffle,
    Fletcher,
}

/// Where the values begin, if they lie in one place.
fn write(path: &Path, rows: usize, columns: usize, chunk: Option<(usize, usize)>, filters: Filters) -> Option<u64> {
    let draws = Draws::new(1, Stream::Synthetic);
    let values: Vec<f32> = (0..rows * columns).into_par_iter().map(|i| draws.normal(i as u64, 0) as f32).collect();
    let values = ndarray::Array2::from_shape_vec((rows, columns), values).expect("rows × columns");
    let file = hdf5::File::create(path).expect("a file");
    let mut builder = file.new_dataset_builder();
    if let Some(chunk) = chunk {
        builder = builder.chunk(chunk);
    }
    builder = match filters {
        Filters::None => builder,
        Filters::Deflate => builder.deflate(1),
        Filters::DeflateShuffle => builder.shuffle().deflate(1),
        Filters::Fletcher => builder.fletcher32(),
    };
    builder.with_data(&values).create("X").expect("a dataset").offset()
}

fn time(case: &str, path: &Path, dataset: &str, offset: Option<u64>) {
    let pools: Vec<rayon::ThreadPool> =
        [1, 2].into_iter().map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads")).collect();
    let n_bytes = match consort_read(path, dataset).values {
        Values::F32(values) => std::mem::size_of_val(&values[..]),
        Values::F64(values) => std::mem::size_of_val(&values[..]),
        Values::Sparse(_) => panic!("{dataset} is sparse"),
    };
    let mut seconds: [Vec<f64>; 4] = Default::default();
    for _ in 0..RUNS {
        for (pool, seconds) in pools.iter().zip(&mut seconds) {
            seconds.push(timed(|| pool.install(|| consort_read(path, dataset))));
        }
        seconds[2].push(timed(|| library_read(path, dataset)));
        if let Some(offset) = offset {
            seconds[3].push(timed(|| pools[1].install(|| plain_read(path, offset, n_bytes))));
        }
    }
    let mb_per_s = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        n_bytes as f64 / 1e6 / seconds[seconds.len() / 2]
    };
    let [one, two, library, plain] = &mut seconds;
    let (one, two, library) = (mb_per_s(one), mb_per_s(two), mb_per_s(library));
    let plain = if plain.is_empty() { "null".to_string() } else { format!("{:.0}", mb_per_s(plain)) };
    println!(
        "{{\"bench\":\"reader\",\"case\":\"{case}\",\"mb\":{:.0},\"consort_1_thread\":{one:.0},\"consort_2_threads\":{two:.0},\"library\":{library:.0},\"pread_2_threads\":{plain},\"over_library\":{:.2}}}",
        n_bytes as f64 / 1e6,
        two / library
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let began = Instant::now();
    let done = work();
    let seconds = began.elapsed().as_secs_f64();
    drop(done);
    seconds
}

fn consort_read(path: &Path, dataset: &str) -> Block {
    let names = TableNames { features: vec![dataset.to_string()], ..TableNames::default() };
    let mut source = Hdf5Source::open(&[PathBuf::from(path)], &names, Need::Predict).expect("a table");
    let mut block = Block::empty();
    let n_rows = source.schema().n_rows;
    source.read(0..n_rows, &mut block).expect("rows");
    block
}

fn library_read(path: &Path, dataset: &str) -> Vec<f32> {
    let file = hdf5::File::open(path).expect("a file");
    file.dataset(dataset).and_then(|dataset| dataset.read_raw::<f32>()).expect("values")
}

/// What reading costs where there is nothing else to do: two threads, a megabyte a call.
fn plain_read(path: &Path, offset: u64, n_bytes: usize) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let file = File::open(path).expect("a file");
    let mut bytes = vec![0u8; n_bytes];
    bytes.par_chunks_mut(PIECE).enumerate().for_each(|(piece, into)| {
        file.read_exact_at(into, offset + (piece * PIECE) as u64).expect("bytes");
    });
    bytes
}
