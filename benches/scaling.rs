//! One rank against two, one thread each: strong scaling (the same rows) and weak scaling (rows for each rank).
//!
//! `cargo bench --bench scaling`; one JSON line a case: {"bench","case","solver","rows","features","seconds_1","seconds_2",
//! "efficiency","talk_share"}: medians of alternating `mpirun -n 1` and `-n 2`. Seconds are those of training from the table
//! in memory (`train_s`), of weak scaling those of one iteration or epoch, since another table takes another number of them;
//! efficiency is t₁/(2·t₂), weak t₁/t₂; `talk_share` what part of the training rank 0 of two spent in collectives, waiting
//! included.
//! Fair: same program, same model bits (the digests are compared). Two cores of one machine share the memory and its
//! bandwidth, which no code of ours can double; a table in cache scales better than one in memory.

use consort::data::synthetic::{self, Storage};
use consort::error::Result;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const RUNS: usize = 5;
/// Kind, its solvers, rows, features.
const CASES: [(&str, &[&str], usize, usize); 3] = [
    ("logistic", &["lbfgs", "newton", "sgd", "adam"], 400_000, 28),
    ("logistic", &["lbfgs", "sgd"], 100_000, 200),
    ("linear", &["cholesky", "qr"], 200_000, 60),
];

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("consort-scaling-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for (kind, solvers, rows, features) in CASES {
        let make = |name: &str, rows: usize| {
            let path = folder.join(name);
            let table = match kind {
                "linear" => synthetic::linear(rows, features, 0.5, 1)?,
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
    std::fs::remove_dir_all(&folder).ok();
    Ok(())
}

/// `tables`: of one rank and of two.
fn case(scaling: &str, kind: &str, solver: &str, tables: (&Path, &Path), rows: usize, features: usize) {
    let mut seconds = [Vec::new(), Vec::new()];
    let mut talk = Vec::new();
    for _ in 0..RUNS {
        let (one, two) = (train(1, kind, solver, tables.0), train(2, kind, solver, tables.1));
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

/// The `done` line of a training. Epochs and iterations are the defaults.
fn train(ranks: usize, kind: &str, solver: &str, table: &Path) -> Value {
    let mut command = Command::new(std::env::var("CONSORT_MPIEXEC").unwrap_or_else(|_| "mpirun".to_string()));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_consort"), "train", kind]);
    command.arg(table).args(["--solver", solver, "--threads", "1", "--json", "-o"]).arg(table.with_extension("model"));
    let output = command.output().expect("mpirun starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or("");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(last).expect("the last line is JSON")
}
