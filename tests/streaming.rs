//! Tables that do not fit into `--max-memory`, and what ranks do to a file: the program itself, measured from outside.
//!
//! What needs several ranks says SKIPPED where there is no MPI launcher (a failure if `CONSORT_REQUIRE_MPI=1`); what counts
//! system calls says so where there is no strace. `CONSORT_LONG=1`: more solvers, and more ranks.

mod launch;

use hdf5::{Dataset, File};
use launch::{Ended, end_of, launcher};
use ndarray::{Array1, ArrayView2, s};
use serde_json::Value;
use std::fmt::{self, Display};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_consort");
const FEATURES: usize = 28;

fn answers(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn has_mpi() -> bool {
    let found = cfg!(feature = "mpi") && answers(&launcher(), &["--version"]);
    if !found {
        let required = std::env::var("CONSORT_REQUIRE_MPI").is_ok_and(|v| v == "1");
        assert!(!required || !cfg!(feature = "mpi"), "no MPI launcher '{}'; set CONSORT_MPIEXEC", launcher());
        println!("SKIPPED: what needs several ranks");
    }
    found
}

fn is_long() -> bool {
    std::env::var_os("CONSORT_LONG").is_some()
}

/// The program on `ranks` ranks, `threads` threads each; `before` comes before the program on the rank's line.
fn launched(ranks: usize, threads: usize, words: &[&str], before: impl Fn(usize) -> Vec<String>) -> Ended {
    let threads = threads.to_string();
    let of_rank = |rank: usize| {
        let mut line = before(rank);
        line.push(PROGRAM.to_string());
        line.extend(words.iter().map(|word| word.to_string()));
        line.extend(["--threads".to_string(), threads.clone()]);
        line
    };
    if ranks == 1 {
        let line = of_rank(0);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        return end_of(command);
    }
    let mut command = Command::new(launcher());
    for rank in 0..ranks {
        let between = if rank > 0 { vec![":"] } else { vec![] };
        command.args(between).args(["-n", "1"]).args(of_rank(rank));
    }
    end_of(command)
}

/// The last line that the program wrote, which must be JSON, and what it measured.
fn last_line_and_metrics(ranks: usize, threads: usize, words: &[&str]) -> (Value, Vec<Value>) {
    let ended = launched(ranks, threads, words, |_| Vec::new());
    assert_eq!(ended.code, Some(0), "{words:?} on {ranks} ranks:\n{}", ended.text);
    let last = serde_json::from_str(ended.out.lines().last().unwrap_or("")).unwrap();
    let lines = ended.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    (last, lines.filter(|line| line["event"] == "metrics").collect())
}

fn last_line(ranks: usize, threads: usize, words: &[&str]) -> Value {
    last_line_and_metrics(ranks, threads, words).0
}

/// How a table is stored: rows of a chunk and deflate with shuffle, or neither.
#[derive(Clone, Copy)]
struct Stored {
    chunk_rows: Option<usize>,
    deflate: Option<u8>,
}

impl Stored {
    fn dataset<T: hdf5::H5Type>(self, file: &File, name: &str, shape: &[usize]) -> Dataset {
        let mut builder = file.new_dataset_builder();
        if let Some(rows) = self.chunk_rows {
            let chunk: Vec<usize> = std::iter::once(rows.min(shape[0])).chain(shape[1..].iter().copied()).collect();
            builder = builder.chunk(chunk);
        }
        if let Some(level) = self.deflate {
            builder = builder.shuffle().deflate(level);
        }
        builder.empty::<T>().shape(shape).create(name).unwrap()
    }
}

/// `n` rows of `d` features, float32 `X`, and classes `y` that depend on them, written piece by piece. The values are multiples of 1/256, which
/// deflate soon has done with.
fn write_table(path: &Path, [n, d]: [usize; 2], stored: Stored) {
    const PIECE: usize = 1 << 16;
    let file = File::create(path).unwrap();
    let x = stored.dataset::<f32>(&file, "X", &[n, d]);
    let y = stored.dataset::<u8>(&file, "y", &[n]);
    let mut state = 88_172_645_463_325_252u64;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    for first in (0..n).step_by(PIECE) {
        let rows = first..(first + PIECE).min(n);
        let values: Vec<f32> = (0..rows.len() * d).map(|_| (noise() * 1024.0).round() / 256.0).collect();
        let class = |row: &[f32]| u8::from(row[0] - 0.5 * row[1] + 0.25 * row[2] + 2.0 * noise() > 0.2);
        let classes: Vec<u8> = values.chunks_exact(d).map(class).collect();
        x.write_slice(ArrayView2::from_shape((rows.len(), d), &values).unwrap(), s![rows.clone(), ..]).unwrap();
        y.write_slice(&Array1::from(classes), s![rows]).unwrap();
    }
}

// ---- Larger than memory ---------------------------------------------------------------------------------------------------

const LIMIT: usize = 32 << 20;

/// Resident memory of the greatest of `ranks` ranks that have read nothing.
fn bare_memory(ranks: usize, threads: usize) -> u64 {
    let doctor = last_line(ranks, threads, &["doctor", "--json"]);
    let of_ranks = doctor["ranks"].as_array().unwrap();
    of_ranks.iter().map(|rank| rank["memory_bytes"].as_u64().unwrap()).max().unwrap()
}

#[test]
fn a_table_of_eight_times_the_memory_trains_to_the_bits_of_memory_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let n = 8 * LIMIT / (4 * FEATURES) + 1_009;
    let (deflated, contiguous, narrow, wide) = (at("deflated.h5"), at("contiguous.h5"), at("narrow.h5"), at("wide.h5"));
    let (model, scratch) = (at("model.h5"), at(""));
    write_table(Path::new(&deflated), [n, FEATURES], Stored { chunk_rows: Some(8192), deflate: Some(1) });
    write_table(Path::new(&contiguous), [n, FEATURES], Stored { chunk_rows: None, deflate: None });
    // Labels take more than values here.
    write_table(Path::new(&narrow), [LIMIT / 8, 4], Stored { chunk_rows: None, deflate: None });
    // Bins of these rows, of a byte each, are 18 MB.
    write_table(Path::new(&wide), [60_000, 300], Stored { chunk_rows: Some(2048), deflate: Some(1) });
    let shapes: &[(usize, usize)] = if has_mpi() { &[(1, 2), (3, 1)] } else { &[(1, 2)] };
    let bare: Vec<u64> = shapes.iter().map(|&(ranks, threads)| bare_memory(ranks, threads)).collect();

    let of_boost = ["--rounds", "3", "--max-leaves", "7", "--max-bins", "31", "--row-sample", "0.8"];
    let cases: [(&str, &str, &[&str], &[&str]); 10] = [
        ("logistic lbfgs", &deflated, &["--max-iterations", "5"], &[]),
        ("logistic newton", &contiguous, &["--max-iterations", "2", "--valid", &contiguous], &[]),
        ("logistic sgd", &deflated, &["--epochs", "1", "--valid-fraction", "0.4"], &["--scratch", &scratch]),
        ("logistic sgd", &narrow, &["--epochs", "1"], &[]),
        ("boost", &wide, &of_boost, &["--scratch", &scratch]),
        ("logistic adam", &contiguous, &["--epochs", "1"], &[]),
        ("linear cholesky", &deflated, &[], &[]),
        ("linear qr", &contiguous, &[], &[]),
        ("linear cd", &contiguous, &["--l1", "0.01"], &[]),
        ("svm lbfgs", &contiguous, &["--max-iterations", "5"], &[]),
    ];
    let n_cases = if is_long() { cases.len() } else { 8 };
    for (name, table, settings, of_run) in &cases[..n_cases] {
        let solver: &[&str] = match name.split_once(' ') {
            Some((kind, solver)) => &[kind, "--solver", solver],
            None => &[name],
        };
        let words = [&["train"], solver, &[table, "--json", "-o", &model], *settings].concat();
        let (in_memory, measured) = last_line_and_metrics(1, 2, &words);
        assert!(in_memory["streamed"].is_null(), "{name}: {in_memory}");
        let words = [&words, *of_run, &["--max-memory", "32M"]].concat();
        for (&(ranks, threads), bare) in shapes.iter().zip(&bare) {
            let (streamed, measured_streamed) = last_line_and_metrics(ranks, threads, &words);
            let held = streamed["peak_memory_bytes"].as_u64().unwrap() - bare;
            println!("{name} on {ranks} x {threads}: {:.1} MiB, {}", held as f64 / 1_048_576.0, streamed["streamed"]);
            assert_eq!(streamed["digest"], in_memory["digest"], "{name} on {ranks} ranks");
            assert_eq!(measured_streamed, measured, "{name} on {ranks} ranks");
            assert!(streamed["streamed"]["rows"].as_u64() > Some(0), "{name} on {ranks} ranks: {streamed}");
            assert!(held <= LIMIT as u64, "{name} on {ranks} ranks: {held} bytes");
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "only tables and model are left: {left:?}");
}

// ---- What ranks do to a file ----------------------------------------------------------------------------------------------

/// System calls of one rank on the file of a table.
#[derive(Debug, Default, PartialEq)]
struct Calls {
    opens: usize,
    /// Size, time of change: no data moves.
    looks: usize,
    /// Of a dataset's stored bytes.
    data_reads: usize,
    /// Anything else that reads or moves: what the HDF5 library does to find its way.
    metadata: Vec<String>,
}

impl Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calls { opens, looks, data_reads, metadata } = self;
        write!(f, "{opens:5} opens {looks:5} looks {:5} metadata reads {data_reads:5} data reads", metadata.len())
    }
}

impl Calls {
    /// From the files that `strace -ff -y` wrote for one rank, one for each thread.
    fn of(trace: &Path, table: &Path, stored: &[Range<u64>]) -> Calls {
        let mut calls = Calls::default();
        let (folder, prefix) = (trace.parent().unwrap(), format!("{}.", trace.file_name().unwrap().to_str().unwrap()));
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix));
        let table = format!("<{}>", table.display());
        for file in files {
            let text = String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).to_string();
            for line in text.lines().filter(|line| line.contains(&table)) {
                let (call, rest) = line.split_once('(').unwrap();
                match call {
                    "openat" => calls.opens += 1,
                    "fstat" | "newfstatat" | "statx" => calls.looks += 1,
                    "pread64" if is_inside(rest, stored) => calls.data_reads += 1,
                    _ => calls.metadata.push(line.to_string()),
                }
            }
        }
        calls
    }
}

/// `3</tmp/x.h5>, ""..., 4096, 2048) = 4096`: size and place of what was read.
fn is_inside(rest: &str, stored: &[Range<u64>]) -> bool {
    let arguments = rest.rsplit_once(')').map_or("", |(arguments, _)| arguments);
    let mut last: Vec<u64> = arguments.rsplit(", ").take(2).map(|number| number.parse().unwrap()).collect();
    last.reverse();
    stored.iter().any(|range| range.start <= last[1] && last[1] + last[0] <= range.end)
}

/// Where in the file the values of a dataset lie.
fn stored_ranges(dataset: &Dataset) -> Vec<Range<u64>> {
    match dataset.offset() {
        Some(offset) => std::iter::once(offset..offset + dataset.storage_size()).collect(),
        None => {
            let info = |number| dataset.chunk_info(number).unwrap();
            (0..dataset.num_chunks().unwrap()).map(info).map(|info| info.addr..info.addr + info.size).collect()
        }
    }
}

#[test]
fn ranks_other_than_the_first_open_the_file_once_and_read_nothing_but_rows() {
    let folder = tempfile::tempdir().unwrap();
    let traced = "openat,openat2,fstat,newfstatat,statx,read,readv,pread64,preadv,preadv2,lseek,mmap";
    let works = answers(
        "strace",
        &["-f", "-y", "-o", "/dev/null", "-e", &format!("trace=?{}", traced.replace(',', ",?")), "true"],
    );
    if !has_mpi() {
        return;
    }
    if !works {
        return println!("SKIPPED: no strace that may look at processes");
    }
    for (name, stored) in [
        ("deflated", Stored { chunk_rows: Some(512), deflate: Some(1) }),
        ("chunked", Stored { chunk_rows: Some(512), deflate: None }),
        ("contiguous", Stored { chunk_rows: None, deflate: None }),
    ] {
        // Canonical: strace shows files as the kernel knows them.
        let at: PathBuf = folder.path().canonicalize().unwrap();
        let table = at.join(format!("{name}.h5"));
        write_table(&table, [20_011, FEATURES], stored);
        let ranges: Vec<Range<u64>> = {
            let file = File::open(&table).unwrap();
            ["X", "y"].iter().flat_map(|name| stored_ranges(&file.dataset(name).unwrap())).collect()
        };
        let (input, model) = (table.display().to_string(), at.join("model.h5").display().to_string());
        let words = ["train", "logistic", &input, "-o", &model, "--max-iterations", "3"];
        let mut alone = None;
        let sizes: &[usize] = if is_long() { &[1, 2, 8, 32] } else { &[1, 2, 5] };
        for &size in sizes {
            let trace = |rank: usize| at.join(format!("{name}-{size}-{rank}"));
            let ended = launched(size, 1, &words, |rank| {
                let line =
                    ["strace", "-ff", "-y", "-s", "0", "-o", trace(rank).to_str().unwrap(), "-e"].map(String::from);
                [&line[..], &[format!("trace=?{}", traced.replace(',', ",?"))]].concat()
            });
            assert_eq!(ended.code, Some(0), "{name} on {size} ranks:\n{}", ended.text);
            let calls: Vec<Calls> = (0..size).map(|rank| Calls::of(&trace(rank), &table, &ranges)).collect();
            let most = |count: fn(&Calls) -> usize| calls[1..].iter().map(count).max().unwrap_or(0);
            println!("{name:10} {size:2} ranks, the first:  {}", calls[0]);
            let (opens, looks, reads) = (most(|c| c.opens), most(|c| c.looks), most(|c| c.data_reads));
            println!(
                "{name:10} {size:2} ranks, any other:  {opens:5} opens {looks:5} looks {:5} metadata reads {reads:5} data reads",
                most(|c| c.metadata.len())
            );
            let first = alone.get_or_insert((calls[0].opens, calls[0].metadata.len()));
            assert!(first.1 > 0, "the library's own calls were not seen");
            assert_eq!((calls[0].opens, calls[0].metadata.len()), *first, "{name}: the first of {size} ranks");
            for (rank, calls) in calls.iter().enumerate().skip(1) {
                assert_eq!(calls.metadata, [""; 0], "{name}: rank {rank} of {size}");
                assert_eq!(calls.opens, 1, "{name}: rank {rank} of {size}");
                assert!(calls.data_reads > 0, "{name}: rank {rank} of {size}: {calls}");
            }
        }
    }
}
