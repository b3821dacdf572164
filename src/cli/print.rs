//! What people and programs read: tables for the ones, one JSON object per line (`event` first) for the others.

use super::resolve::TrainJob;
use crate::comm::Traffic;
use crate::config::Kind;
use crate::data::convert::ConvertReport;
use crate::data::describe::Description;
use crate::data::hdf5::repack::RepackReport;
use crate::doctor::{Diagnosis, list_cores};
use crate::metric::Metrics;
use crate::predict::PredictReport;
use crate::report::{number, print_line};
use crate::train::{Model, TrainReport};
use crate::verify::{Shape, Verification};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

mod members;
mod model;

/// Speaks on the root, in one of two languages.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    pub speaks: bool,
    pub json: bool,
}

/// What `done` of `train` says beyond the report.
pub struct TrainCosts {
    pub ranks: usize,
    pub threads: usize,
    pub write_s: f64,
    pub peak_memory_bytes: u64,
}

/// What a training took; `pass`: what it did again and again.
fn costs_text(report: &TrainReport, costs: &TrainCosts, pass: &str) -> String {
    let total = report.traffic.total();
    format!(
        "read {:.2} s | train {:.2} s ({:.2e} s per {pass}) | write {:.2} s | peak memory {} | {}, {}",
        report.read_s,
        report.train_s,
        report.epoch_s,
        costs.write_s,
        size_text(costs.peak_memory_bytes),
        count(total.calls, "message"),
        size_text(total.bytes)
    )
}

impl Printer {
    pub(super) fn say(&self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) {
        match (self.speaks, self.json) {
            (false, _) => {}
            (true, true) => print_line(&value().to_string()),
            (true, false) => print_line(&text()),
        }
    }

    /// As JSON it is returned instead where checkpoints are kept: by then the step is not known that the run begins from.
    pub fn train_start(&self, job: &TrainJob, ranks: usize, threads: usize) -> Option<Value> {
        let kind = job.config.kind.name();
        let solver = job.config.looks_at("solver").then(|| job.config.solver.name());
        let text = || {
            let with = solver.map(|solver| format!(" with {solver}")).unwrap_or_default();
            format!("train {kind}{with} | {} | {}", count(ranks, "rank"), count(threads, "thread"))
        };
        let value = || {
            json!({"event": "start", "command": "train", "kind": kind, "solver": solver, "data": names(&job.inputs.paths),
                   "ranks": ranks, "threads": threads, "resumed_step": 0, "version": env!("CARGO_PKG_VERSION")})
        };
        if self.json && self.speaks && job.checkpoint.is_some() {
            return Some(value());
        }
        self.say(text, value);
        None
    }

    /// `valid`: metrics of validation rows, if there are any.
    pub fn train_done(
        &self,
        model: &Model,
        report: &TrainReport,
        valid: Option<&Metrics>,
        costs: &TrainCosts,
        output: &Path,
    ) {
        self.folds(report);
        if !report.oob.is_empty() {
            self.say(
                || format!("out of bag | {}", report.oob),
                || event("metrics", [("part", json!("oob"))], &report.oob),
            );
        }
        if let Some(metrics) = valid {
            self.say(|| format!("valid | {metrics}"), || event("metrics", [("part", json!("valid"))], metrics));
        }
        let text = || {
            let has_trees = model.config.kind.has_trees();
            if let Some(ensemble) = &report.ensemble {
                return format!(
                    "{}{} × {}\n{}\n{}\nmodel {}\ndigest {}",
                    notes(model, report),
                    count(report.rows, "row"),
                    count(report.features, "column"),
                    members::trained(ensemble),
                    costs_text(report, costs, "member"),
                    output.display(),
                    model.digest
                );
            }
            let ended = match report.converged {
                _ if has_trees => "grown",
                true => "converged",
                false => "stopped",
            };
            let stop_value = if has_trees { String::new() } else { format!(", stop value {:.1e}", report.stop_value) };
            let loss = match report.loss.is_nan() {
                true => String::new(),
                false => format!("loss {} | ", number(report.loss, 6)),
            };
            let pass = match model.config.solver.is_mini_batch() {
                _ if model.config.kind == Kind::Boost => "round",
                _ if model.config.kind == Kind::Forest => "tree",
                true => "epoch",
                false => "iteration",
            };
            format!(
                "{}{} × {} | {loss}{ended} after {}{stop_value}\n{}\nmodel {}\ndigest {}",
                notes(model, report),
                count(report.rows, "row"),
                count(report.features, "feature"),
                count(report.iterations, pass),
                costs_text(report, costs, pass),
                output.display(),
                model.digest
            )
        };
        let value = || {
            let streamed = report.streamed.map(|s| json!({"read_s": s.read_s, "wait_s": s.wait_s, "rows": s.rows}));
            let mut value = json!({"event": "done", "digest": model.digest, "streamed": streamed, "sparse": report.is_sparse,
                   "through_library": report.through_library, "rows": report.rows, "features": report.features,
                   "ranks": costs.ranks, "threads": costs.threads, "read_s": report.read_s, "train_s": report.train_s,
                   "epoch_s": report.epoch_s, "write_s": costs.write_s, "peak_memory_bytes": costs.peak_memory_bytes,
                   "traffic": traffic(&report.traffic), "loss": report.loss, "iterations": report.iterations,
                   "converged": report.converged, "stop_value": report.stop_value, "output": output.display().to_string()});
            if let (Value::Object(fields), Some(ensemble)) = (&mut value, &report.ensemble) {
                fields.extend(members::as_json(ensemble));
            }
            value
        };
        self.say(text, value);
    }

    /// Metrics of each fold, and their mean.
    fn folds(&self, report: &TrainReport) {
        let n_folds = report.folds.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        for fold in 0..n_folds {
            let mut metrics = Metrics::new();
            for (name, values) in &report.folds {
                metrics.push_option(name.as_str(), values.get(fold).copied());
            }
            self.say(|| format!("fold {fold} | {metrics}"), || event("metrics", [("fold", json!(fold))], &metrics));
        }
        if n_folds > 0 {
            let mean = report.mean_of_folds();
            self.say(
                || format!("mean of {n_folds} folds | {mean}"),
                || event("metrics", [("fold", json!("mean"))], &mean),
            );
        }
    }

    pub fn predicted(&self, report: &PredictReport, output: &Path) {
        self.say(
            || format!("{} | {} | {}", count(report.rows, "row"), report.datasets.join(", "), output.display()),
            || {
                json!({"event": "done", "command": "predict", "rows": report.rows, "datasets": report.datasets, "score_s": report.score_s,
                      "output": output.display().to_string()})
            },
        );
    }

    pub fn written(&self, command: &str, output: &Path, digest: &str) {
        self.say(
            || format!("{}\ndigest {digest}", output.display()),
            || json!({"event": "done", "command": command, "output": output.display().to_string(), "digest": digest}),
        );
    }

    pub fn description(&self, found: &Description) {
        let text = || {
            let mut lines = vec![format!("{}: {}", found.file, size_text(found.file_bytes))];
            let width = found.objects.iter().map(|object| object.path.chars().count()).max().unwrap_or(0);
            for object in &found.objects {
                let mut line = format!("  {:width$}  {}", object.path, object.kind);
                if !object.element_type.is_empty() {
                    let shape: Vec<String> = object.shape.iter().map(u64::to_string).collect();
                    line.push_str(&format!("  {} [{}]", object.element_type, shape.join(" × ")));
                }
                if let Some(chunk) = &object.chunk {
                    let chunk: Vec<String> = chunk.iter().map(u64::to_string).collect();
                    line.push_str(&format!("  chunks of {}", chunk.join(" × ")));
                }
                for filter in &object.filters {
                    line.push_str(&format!(" {}", filter.name));
                }
                if let Some(why) = &object.through_library {
                    line.push_str(&format!(" (read through the library: {why})"));
                }
                lines.push(line);
                for (name, value) in &object.attributes {
                    lines.push(format!("  {:width$}    @{name} = {value}", ""));
                }
            }
            let slow = found.objects.iter().filter_map(|object| Some((object, object.advice.as_ref()?)));
            lines.extend(slow.clone().map(|(object, advice)| format!("  slow to read: {} has {advice}", object.path)));
            if slow.count() > 0 {
                lines.push(format!("  better chunks: consort repack {} OUT.h5", found.file));
            }
            if let Some(table) = &found.table {
                let names = &table.names;
                let group = names.group.as_deref().map(|group| format!(" of group {group}")).unwrap_or_default();
                let target = match (names.target.as_deref(), table.schema.n_targets()) {
                    (None, _) => "no target".to_string(),
                    (Some(target), 0 | 1) => format!("target {target}"),
                    (Some(target), n) => format!("target {target} of {n} numbers a row"),
                };
                lines.push(format!(
                    "  would be read as {} × {}: {}, {target}{group}",
                    count(table.schema.n_rows, "row"),
                    count(table.schema.columns.len(), if table.schema.is_sparse { "sparse column" } else { "column" }),
                    names.features.join(", ")
                ));
                lines.extend(table.schema.image.map(|image| format!("  each row an image of {image}")));
            }
            lines.extend(found.why_not.iter().map(|why| format!("  cannot be trained on as it stands: {why}")));
            lines.join("\n")
        };
        let value = || {
            let mut fields = Map::new();
            fields.insert("event".to_string(), json!("data"));
            if let Ok(Value::Object(found)) = serde_json::to_value(found) {
                fields.extend(found);
            }
            Value::Object(fields)
        };
        self.say(text, value);
    }

    pub fn converted(&self, report: &ConvertReport, output: &Path) {
        let text = || {
            let target = report.target.as_deref().map_or("no target".to_string(), |target| format!("target {target}"));
            let (rows, columns) = (count(report.n_rows, "row"), count(report.n_columns, "column"));
            let mut text =
                format!("{rows} × {columns}: {}, {target} | {}", report.features.join(", "), output.display());
            if report.features.len() > 1 {
                text.push_str(&format!("\nto train on all of them: --features {}", report.features.join(",")));
            }
            text
        };
        self.say(text, || {
            json!({"event": "done", "command": "convert", "rows": report.n_rows, "columns": report.n_columns,
                   "format": report.format, "features": report.features, "target": report.target,
                   "output": output.display().to_string()})
        });
    }

    pub fn repacked(&self, report: &RepackReport, output: &Path) {
        let text = || {
            let named = |(path, why): &(String, String)| format!("{path} ({why})");
            let mut text = format!(
                "{} in new chunks, {} bytes before, {} after | {}",
                count(report.repacked, "dataset"),
                report.bytes_before,
                report.bytes_after,
                output.display()
            );
            for (what, list) in [("copied as stored", &report.copied), ("left out", &report.left_out)] {
                if !list.is_empty() {
                    text.push_str(&format!("\n{what}: {}", list.iter().map(named).collect::<Vec<_>>().join(", ")));
                }
            }
            text
        };
        self.say(text, || {
            json!({"event": "done", "command": "repack", "repacked": report.repacked, "copied": report.copied,
                   "left_out": report.left_out, "bytes_before": report.bytes_before, "bytes_after": report.bytes_after,
                   "output": output.display().to_string()})
        });
    }

    pub fn shape(&self, shape: &Shape) {
        let (ranks, threads) = (count(shape.ranks, "rank"), count(shape.threads, "thread"));
        self.say(
            || format!("{ranks} × {threads} | digest {} | {}", shape.digest, if shape.same { "ok" } else { "differs" }),
            || json!({"event": "shape", "ranks": shape.ranks, "threads": shape.threads, "digest": shape.digest, "same": shape.same}),
        );
    }

    pub fn verified(&self, done: &Verification) {
        self.say(
            || {
                let ok = done.shapes.iter().filter(|shape| shape.same).count();
                let kept = match done.kept_rounds {
                    0 => String::new(),
                    n => format!(
                        "; the first {n} rounds are of the model that it was continued from, and were not trained again"
                    ),
                };
                format!(
                    "{ok} of {} gave the digest of the model{kept}\ndigest {}",
                    count(done.shapes.len(), "shape"),
                    done.digest
                )
            },
            || {
                json!({"event": "done", "command": "verify", "digest": done.digest, "same_inputs": done.same_inputs,
                       "kept_rounds": done.kept_rounds, "holds": done.holds()})
            },
        );
    }

    pub fn diagnosis(&self, found: &Diagnosis) {
        let text = || {
            let mut lines = vec![
                format!("consort {} | {} | {}", found.version, count(found.size, "rank"), found.transport),
                format!("MPI       {}", found.mpi_library.as_deref().unwrap_or("not built in")),
                match &found.launcher {
                    Some((size, name)) => format!("launcher  {name}={size}"),
                    None => "launcher  none".to_string(),
                },
                format!("build     {}", found.ranks.first().map_or("", |rank| &rank.build)),
                format!(
                    "HDF5      {} | HDF5_USE_FILE_LOCKING {} (tables are opened without locks)",
                    found.hdf5_version, found.hdf5_locking
                ),
                format!("BLAS      {}", found.blas),
                String::new(),
                "rank  node                  threads  memory  cores".to_string(),
            ];
            for rank in &found.ranks {
                let (node, memory) = (&rank.node, size_text(rank.memory_bytes));
                lines.push(format!(
                    "{:>4}  {node:<20}  {:>7}  {memory:>6}  {}",
                    rank.rank,
                    rank.threads,
                    list_cores(&rank.cores)
                ));
            }
            lines.push(String::new());
            for time in &found.all_reduce {
                let (bytes, fastest, median) =
                    (size_text(time.bytes as u64), seconds(time.fastest_s), seconds(time.median_s));
                lines.push(format!("all-reduce of {bytes:>6}: {fastest} (median {median})"));
            }
            if let Some((path, sync_s)) = found.folder.as_ref().and_then(|f| Some((&f.path, f.sync_s?))) {
                let is_local = found.ranks.iter().any(|r| r.folder.is_some_and(|view| view.is_locked == Some(false)));
                let locks = match found.folder.as_ref().and_then(|folder| folder.lock_problem.as_ref()) {
                    Some(_) => "files cannot be locked",
                    None if is_local => "locks are not seen by all ranks",
                    None => "files can be locked",
                };
                let (path, seconds) = (path.display(), seconds(sync_s));
                lines.push(format!("checkpoint {path}: a MiB is on the disk after {seconds}; {locks}"));
            }
            lines.extend(found.advice.iter().map(|advice| format!("advice: {advice}")));
            lines.join("\n")
        };
        self.say(text, || {
            let mut fields = Map::new();
            fields.insert("event".to_string(), json!("doctor"));
            if let Ok(Value::Object(found)) = serde_json::to_value(found) {
                fields.extend(found);
            }
            Value::Object(fields)
        });
    }
}

pub(super) fn event<const N: usize>(name: &str, first: [(&str, Value); N], metrics: &Metrics) -> Value {
    let mut fields = Map::new();
    fields.insert("event".to_string(), json!(name));
    fields.extend(first.map(|(name, value)| (name.to_string(), value)));
    fields.extend(metrics.to_json());
    Value::Object(fields)
}

fn traffic(traffic: &Traffic) -> Value {
    let kind = |(name, of): &(&str, crate::comm::TrafficOf)| {
        (name.to_string(), json!({"calls": of.calls, "bytes": of.bytes, "seconds": of.seconds}))
    };
    Value::Object(traffic.kinds.iter().map(kind).collect())
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

pub(super) fn count(n: impl std::fmt::Display, what: &str) -> String {
    let n = n.to_string();
    if n == "1" { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn shortened(words: &[String]) -> String {
    match words {
        [first @ .., last] if words.len() > 12 => format!("{}, …, {last}", first[..10].join(", ")),
        _ => words.join(", "),
    }
}

/// `512 B`, `4.0K`, `31M`, `1.5G`: powers of 1024.
fn size_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) => {
            let size = bytes as f64 / *unit as f64;
            if size < 10.0 { format!("{size:.1}{name}") } else { format!("{size:.0}{name}") }
        }
    }
}

fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// How the table was read, where it was not simply held in memory: whole lines.
fn notes(model: &Model, report: &TrainReport) -> String {
    let mut lines = String::new();
    if report.is_sparse {
        let solver = model.config.solver.name();
        lines.push_str(&format!("sparse: trained with {solver}; features are divided by their scale, not centred\n"));
    }
    for (dataset, why) in &report.through_library {
        lines.push_str(&format!("'{dataset}' was read through the HDF5 library, one thread at a time: {why}\n"));
    }
    if let Some(streamed) = report.streamed {
        lines.push_str(&format!(
            "streamed: {} on rank 0, {:.2} s of reading and decoding, threads without rows for {:.2} s\n",
            count(streamed.rows, "row"),
            streamed.read_s,
            streamed.wait_s
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes() {
        assert_eq!((count(1, "rank"), count(0, "rank")), ("1 rank".into(), "0 ranks".into()));
        assert_eq!([0, 4096, 31 << 20, 3 << 29].map(size_text), ["0 B", "4.0K", "31M", "1.5G"]);
        assert_eq!([5e-7, 2.2e-4, 0.0399, 2.0].map(seconds), ["0.5 µs", "220.0 µs", "39.90 ms", "2.00 s"]);
    }
}
