//! One rank against two, one thread each: strong scaling (the same rows) and weak scaling (rows for each rank); and bytes of a step of networks on 2, 3
//! and 4 ranks.
//!
//! `cargo bench --bench scaling`; `-- bytes` for these alone, `-- seconds` for the others.
//!
//! Seconds, one JSON line a case: {"bench","case","solver","rows","features","seconds_1","seconds_2","efficiency","talk_share"}: medians of
//! alternating `mpirun -n 1` and `-n 2`. Seconds are those of training from the table in memory (`train_s`), of weak scaling those of one
//! iteration or epoch, since another table takes another number of them; efficiency is t₁/(2·t₂), weak t₁/t₂; `talk_share` what part of the
//! training rank 0 of two spent in collectives, waiting included.
//! Fair: same program, same model bits (the digests are compared). Two cores of one machine share the memory and its bandwidth, which no code
//! of ours can double; a table in cache scales better than one in memory.
//!
//! Bytes, one line a case: {"bench","case","ranks","bits","is_shared","given_step","bytes_step","ring_bytes","ratio"}. `given_step` is what rank 0
//! gives to the collectives of a step, all kinds together, as `traffic` counts: to an all-reduce its whole buffer, to a reduce-scatter what
//! is for others, to an all-gather its own part; losses, weights and peaks too; the difference between five epochs and two, so that what is done
//! once does not count. `bytes_step` is what it would send if each of them were a ring: 2(p−1)/p of an all-reduce, all of a reduce-scatter, p−1 times an
//! all-gather. `ring_bytes` is 2(p−1)/p·n, n the bytes of the parameters in so many bits: the least that an all-reduce of them can do. What really travels
//! the library decides by the size: Open MPI chooses among several algorithms, and within one machine copies through memory. `is_shared`: ranks share what the
//! optimiser remembers, and parameters come back in 32 bits whatever gradients go in.

use consort::data::TargetKind;
use consort::data::memory::MemorySource;
use consort::data::synthetic::{self, Storage};
use consort::error::Result;
use consort::rng::{Draws, Stream};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const RUNS: usize = 5;
/// Kind, its solvers, rows, features.
const CASES: [(&str, &[&str], usize, usize); 4] = [
    ("mlp", &["adamw"], 30_000, 784),
    ("logistic", &["lbfgs", "newton", "sgd", "adam"], 400_000, 28),
    ("logistic", &["lbfgs", "sgd"], 100_000, 200),
    ("linear", &["cholesky", "qr"], 200_000, 60),
];
/// Of a network of 784-512-512-10.
const MLP: [&str; 4] = ["--layers", "512,512", "--epochs", "3"];

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("consort-scaling-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let measures = |what: &str| !asked.iter().any(|word| ["bytes", "seconds"].contains(&&word[..]) && word != what);
    if measures("seconds") {
        seconds(&folder)?;
    }
    if measures("bytes") {
        bytes(&folder)?;
    }
    std::fs::remove_dir_all(&folder).ok();
    Ok(())
}

/// Ten classes, each around a point of its own.
fn classes(rows: usize, features: usize) -> Result<MemorySource> {
    let draws = Draws::new(1, Stream::Synthetic);
    let class = |row: usize| draws.below(10, row as u64, 0);
    let value = |at: usize| {
        let (row, j) = (at / features, at % features);
        let centre = draws.normal(class(row) * features as u64 + j as u64, 1);
        (0.1 * centre + draws.normal(at as u64, 2)) as f32
    };
    let table = MemorySource::from_f32((0..rows * features).map(value).collect(), features)?;
    table.with_target((0..rows).map(|row| class(row) as f64).collect(), TargetKind::Integer)
}

fn seconds(folder: &Path) -> Result<()> {
    for (kind, solvers, rows, features) in CASES {
        let make = |name: &str, rows: usize| {
            let path = folder.join(name);
            let table = match kind {
                "linear" => synthetic::linear(rows, features, 0.5, 1)?,
                "mlp" => classes(rows, features)?,
                _ => synthetic::logistic(rows, features, 1)?,
            };
            synthetic::write_hdf5(&path, "", &table, Storage::default()).map(|()| path)
        };
        let half = make(&format!("{kind}-{features}-half.h5"), rows / 2)?;
        let whole = make(&format!("{kind}-{features}.h5"), rows)?;
        for solver in solvers {
            case("strong", kind, solver, (&whole, &whole), rows, features);
            case("weak", kind, solver, (&half, &whole), rows, features);
        }
    }
    Ok(())
}

/// What a step of a small network and of one whose optimiser is shared gives to collectives.
fn bytes(folder: &Path) -> Result<()> {
    const ROWS: usize = 2048;
    let path = folder.join("images.h5");
    synthetic::write_hdf5(&path, "", &classes(ROWS, 784)?, Storage::default())?;
    let steps_of_epoch = ROWS as f64 / 256.0;
    for (layers, n_params) in [("128", 784 * 128 + 128 + 1_290), ("512,512", 784 * 512 + 512 + 512 * 513 + 5_130)] {
        for bits in [32, 16, 8] {
            for ranks in [2, 3, 4] {
                let bits_text = bits.to_string();
                let traffic = |epochs: &str| {
                    let more = ["--layers", layers, "--lanes", "4", "--gradient-bits", &bits_text, "--epochs", epochs];
                    train(ranks, "mlp", "adamw", &path, &more)["traffic"].clone()
                };
                let (two, five) = (traffic("2"), traffic("5"));
                let of_step = |kind: &str| {
                    let of = |traffic: &Value| traffic[kind]["bytes"].as_f64().unwrap_or(0.0);
                    (of(&five) - of(&two)) / (3.0 * steps_of_epoch)
                };
                let (p, kinds) = (ranks as f64, five.as_object().expect("traffic"));
                let sent = |kind: &str| match kind {
                    "all_reduce" => 2.0 * (p - 1.0) / p * of_step(kind),
                    "all_gather" => (p - 1.0) * of_step(kind),
                    _ => of_step(kind),
                };
                let given: f64 = kinds.keys().map(|kind| of_step(kind)).sum();
                let bytes: f64 = kinds.keys().map(|kind| sent(kind)).sum();
                let ring = 2.0 * (p - 1.0) / p * (n_params * bits / 8) as f64;
                let is_shared = of_step("reduce_scatter") > 0.0;
                println!(
                    "{{\"bench\":\"scaling\",\"case\":\"bytes, 784-{}-10\",\"ranks\":{ranks},\"bits\":{bits},\"is_shared\":{is_shared},\
                     \"given_step\":{given:.0},\"bytes_step\":{bytes:.0},\"ring_bytes\":{ring:.0},\"ratio\":{:.3}}}",
                    layers.replace(',', "-"),
                    bytes / ring
                );
            }
        }
    }
    Ok(())
}

/// `tables`: of one rank and of two.
fn case(scaling: &str, kind: &str, solver: &str, tables: (&Path, &Path), rows: usize, features: usize) {
    let mut seconds = [Vec::new(), Vec::new()];
    let mut talk = Vec::new();
    for _ in 0..RUNS {
        let more = if kind == "mlp" { &MLP[..] } else { &[] };
        let (one, two) = (train(1, kind, solver, tables.0, more), train(2, kind, solver, tables.1, more));
        assert!(tables.0 != tables.1 || one["digest"] == two["digest"], "{kind} {solver}: other bits on two ranks");
        let of = |done: &Value, field: &str| done[field].as_f64().expect("a number of seconds");
        let field = if scaling == "strong" { "train_s" } else { "epoch_s" };
        seconds[0].push(of(&one, field));
        seconds[1].push(of(&two, field));
        let kinds = two["traffic"].as_object().expect("traffic").values();
        talk.push(kinds.filter_map(|kind| kind["seconds"].as_f64()).sum::<f64>() / of(&two, "train_s"));
    }
    let [one, two] = seconds.map(median);
    let efficiency = if scaling == "strong" { one / (2.0 * two) } else { one / two };
    println!(
        "{{\"bench\":\"scaling\",\"case\":\"{scaling}, {kind}\",\"solver\":\"{solver}\",\"rows\":{rows},\"features\":{features},\
         \"seconds_1\":{one:.5},\"seconds_2\":{two:.5},\"efficiency\":{efficiency:.3},\"talk_share\":{:.3}}}",
        median(talk)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The `done` line of a training. Epochs and iterations are the defaults, where no words say more.
fn train(ranks: usize, kind: &str, solver: &str, table: &Path, more: &[&str]) -> Value {
    let mut command = Command::new(std::env::var("CONSORT_MPIEXEC").unwrap_or_else(|_| "mpirun".to_string()));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    // Bytes are counted on more ranks than there may be cores.
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command.args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_consort"), "train", kind]);
    command.arg(table).args(["--solver", solver, "--threads", "1", "--json", "-o"]).arg(table.with_extension("model"));
    command.args(more).arg("--force");
    let output = command.output().expect("mpirun starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or("");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(last).expect("the last line is JSON")
}
