//! The architecture, checked: arrows between rooms point down only, and what may be named where.
//!
//! Reads every file under `src/`. Rules (a) to (f) are those of the crate's documentation in `src/lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms and the rooms they may use. A room may always use itself and the ground floor.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("rng", &[]),
    ("functions", &[]),
    ("exact", &[]),
    ("faults", &[]),
    ("comm", &[]),
    ("blas", &["comm"]),
    ("data", &[]),
    ("nodes", &["comm", "data"]),
    ("grow", &["comm", "config", "data", "model"]),
    ("matmul", &[]),
    ("objective", &[]),
    ("metric", &[]),
    ("optim", &[]),
    ("guard", &["comm"]),
    ("config", &["data", "optim"]),
    ("model", &["config", "data", "matmul", "objective"]),
    ("store", &["config", "data", "model"]),
    // Members of ensembles travel between ranks as what their files hold.
    (
        "train",
        &[
            "blas",
            "comm",
            "config",
            "data",
            "grow",
            "guard",
            "matmul",
            "metric",
            "model",
            "nodes",
            "objective",
            "optim",
            "store",
        ],
    ),
    ("predict", &["comm", "config", "data", "metric", "model", "nodes", "objective", "store", "train"]),
    ("convert", &["comm", "data"]),
    ("verify", &["comm", "data", "model", "train"]),
    ("doctor", &["blas", "comm", "data", "nodes", "store"]),
    ("report", &["data", "train"]),
    ("slurm", &[]),
    (
        "cli",
        &[
            "blas", "comm", "config", "convert", "data", "doctor", "guard", "metric", "model", "nodes", "predict",
            "report", "slurm", "store", "train", "verify",
        ],
    ),
    ("main", &["comm", "cli", "blas"]),
];
const GROUND: [&str; 5] = ["error", "rng", "functions", "exact", "faults"];

fn files() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&src, &mut found);
    found.sort();
    assert!(found.len() > 40, "only {} files under src/", found.len());
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&src).unwrap().to_path_buf(), text)
        })
        .collect()
}

/// `train/prepare.rs` → `train`; `error.rs` → `error`.
fn room(path: &Path) -> String {
    path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_string()
}

fn is_test(path: &Path) -> bool {
    path.file_stem().unwrap().to_str().unwrap().contains("test") || path.iter().any(|part| part == "tests")
}

/// The file without comments and without its tests.
fn code(text: &str) -> String {
    let before_tests = text.split("\nmod tests {").next().unwrap();
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Room names that follow `crate::` in `code`.
fn rooms_used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for after in code.split("crate::").skip(1) {
        let names: Vec<String> = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(|name| name.trim().to_string()).collect(),
            None => vec![after.to_string()],
        };
        for name in names {
            used.push(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used
}

#[test]
fn arrows_between_rooms_point_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        let room = room(&path);
        if room == "lib" || is_test(&path) {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: room '{room}' is not in the table", path.display()));
            continue;
        };
        for used in rooms_used(&code(&text)) {
            let known = MAY_USE.iter().any(|(name, _)| *name == used);
            if known && used != room && !allowed.contains(&used.as_str()) && !GROUND.contains(&used.as_str()) {
                wrong.push(format!("{}: '{room}' may not use '{used}'", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn foreign_libraries_are_named_in_their_rooms_only() {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        let name = path.to_str().unwrap();
        let code = code(&text);
        let names = |word: &str| {
            code.match_indices(word)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
        };
        if (names("mpi::ffi") || names("mpi::traits") || names("mpi::topology") || names("mpi::environment"))
            && !name.starts_with("comm/mpi/")
        {
            wrong.push(format!("{name} names rsmpi"));
        }
        let hdf5 = names("hdf5_sys::") || names("hdf5::") || code.contains("use ::hdf5");
        if hdf5 && !(name.starts_with("data/hdf5/") || name == "store/hdf5.rs") && !is_test(&path) {
            wrong.push(format!("{name} names hdf5"));
        }
        let ours = [
            "comm/mpi/datatype.rs",
            "comm/mpi/exchange.rs",
            "comm/mpi/mod.rs",
            "comm/mpi/started.rs",
            "data/hdf5/copy.rs",
            "data/hdf5/form.rs",
            "data/hdf5/library.rs",
            "data/hdf5/types.rs",
            "data/pages.rs",
            "main.rs",
            "blas.rs",
            "functions.rs",
        ];
        let is_unsafe = names("unsafe {") || names("unsafe fn") || names("unsafe impl") || names("unsafe extern");
        if is_unsafe && !ours.contains(&name) && !is_test(&path) {
            wrong.push(format!("{name} has unsafe code"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn collectives_are_called_in_the_rooms_that_may_talk() {
    let silent =
        ["data", "objective", "metric", "optim", "config", "model", "store", "exact", "rng", "functions", "error"];
    for (path, text) in files() {
        if silent.contains(&room(&path).as_str()) && !is_test(&path) {
            let code = code(&text);
            for word in ["Communicator", "all_reduce", "all_gather(", ".broadcast("] {
                assert!(!code.contains(word), "{}: '{word}' in a room that never talks", path.display());
            }
        }
    }
}

#[test]
fn every_room_opens_with_its_signpost() {
    for (path, text) in files().into_iter().filter(|(path, _)| path.ends_with("mod.rs") && !is_test(path)) {
        let lines: Vec<&str> = text.lines().take(12).collect();
        let room = room(&path);
        let inner = path.iter().count() > 2;
        assert!(inner || lines[0].starts_with(&format!("//! # {room} — ")), "{}: first line", path.display());
        for word in ["In: ", "Out:", "Talks:", "Never:"] {
            assert!(
                inner || lines.iter().any(|line| line.starts_with(&format!("//! {word}"))),
                "{}: no line '{word}'",
                path.display()
            );
        }
    }
}

#[test]
fn the_crate_documentation_lists_every_room() {
    let all = files();
    let lib = &all.iter().find(|(path, _)| path == Path::new("lib.rs")).unwrap().1;
    for (path, _) in &all {
        let room = room(path);
        assert!(
            room == "lib" || room == "main" || lib.contains(&format!("`{room}`")),
            "src/lib.rs does not mention room '{room}'"
        );
    }
}

/// Calls whose bits or order depend on the machine (EXACT law 4.7 and 4.8): forbidden outside tests.
#[test]
fn nothing_calls_what_changes_bits() {
    let words = [
        ".mul_add(",
        ".powi(",
        ".powf(",
        ".exp()",
        ".exp2()",
        ".exp_m1()",
        ".ln()",
        ".ln_1p()",
        ".log10()",
        ".log2()",
        ".sin()",
        ".cos()",
        ".tan()",
        ".tanh()",
        ".cbrt()",
        ".hypot(",
        "HashMap",
        "HashSet",
        "MAXLOC",
        "sum_axis(",
        "reduce_with(",
    ];
    let mut wrong = Vec::new();
    for (path, text) in files().into_iter().filter(|(path, _)| !is_test(path)) {
        let code = code(&text);
        let called = words.iter().filter(|word| code.contains(**word));
        wrong.extend(called.map(|word| format!("{}: {word}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
