//! Programs that die, panic or meet broken disks at any instant, and what the next one makes of it.
//!
//! `CONSORT_KILLS`: how many trainings are killed (default 40); `CONSORT_FAULT_SEED`: where and when; a failure says its own.
//! What needs several ranks says SKIPPED where there is no MPI launcher (a failure if `CONSORT_REQUIRE_MPI=1`).

mod launch;

use launch::{Ended, PROGRAM, end_of, has_mpi, launcher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A training, and how its state is kept.
struct Case {
    words: Vec<String>,
    every: u64,
    /// Its steps are counted from the first to the last, not part by part.
    is_one: bool,
    /// Fewer have too little memory.
    least_ranks: usize,
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name).display().to_string()
}

/// Every way of training that has a state of its own.
fn cases() -> Vec<Case> {
    let (digits, cancer, casp) = (data("digits.h5"), data("breast_cancer.h5"), data("casp.h5"));
    let digits = [digits.as_str(), "--group", "train"];
    // More than fits into the memory that two ranks may use.
    let streamed = [vec![casp.as_str(); 12], vec!["--max-memory", "32M"]].concat();
    let case = |every: u64, is_one: bool, parts: &[&[&str]]| Case {
        least_ranks: 1 + usize::from(parts.concat().contains(&"--max-memory")),
        words: parts.concat().iter().map(|word| word.to_string()).collect(),
        every,
        is_one,
    };
    let members = ["--member", "logistic", "--member", "boost --rounds 4"];
    vec![
        case(3, true, &[&["boost"], &digits, &["--rounds", "8", "--max-leaves", "6", "--row-sample", "0.7"]]),
        case(1, true, &[&["forest"], &digits, &["--trees", "60"]]),
        case(4, true, &[&["logistic"], &digits, &["--solver", "lbfgs"]]),
        case(7, true, &[&["logistic"], &digits, &["--solver", "sgd", "--epochs", "8"]]),
        case(5, true, &[&["logistic"], &digits, &["--solver", "adam", "--epochs", "8"]]),
        case(5, false, &[&["logistic"], &digits, &["--solver", "sgd", "--epochs", "6", "--sync-every", "3"]]),
        case(
            5,
            false,
            &[&["mlp"], &digits, &["--layers", "9", "--epochs", "4", "--sync-every", "3", "--local-after", "2"]],
        ),
        // So many parameters that ranks share what the optimiser remembers.
        case(
            4,
            true,
            &[&["mlp"], &digits, &["--layers", "512,200", "--epochs", "3", "--lanes", "4", "--global-batch", "128"]],
        ),
        case(2, true, &[&["logistic", &cancer, "--solver", "newton"]]),
        case(2, false, &[&["linear", &casp, "--l1", "0.01"]]),
        case(1, false, &[&["bag", &cancer, "--learner", "boost --rounds 3", "--members", "5"]]),
        case(1, false, &[&["adaboost", &cancer, "--learner", "boost --rounds 1 --max-leaves 4", "--members", "5"]]),
        case(2, false, &[&["stack", &cancer, "--stack-folds", "3"], &members]),
        case(1, true, &[&["boost"], &streamed, &["--rounds", "4", "--max-leaves", "6"]]),
        case(40, true, &[&["linear"], &streamed, &["--solver", "adam", "--epochs", "1"]]),
        case(3, false, &[&["logistic", &cancer, "--folds", "3"]]),
        case(1, false, &[&["boost", &cancer, "--rounds", "3", "--folds", "2"]]),
        case(1, false, &[&["boost", &cancer, "--rounds", "3", "--calibrate", "platt"]]),
    ]
}

/// SplitMix64.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// Runs `consort train`, on `ranks` ranks, with a fault or none.
fn train(folder: &Path, ranks: usize, words: &[String], more: &[&str], fault: &str) -> Ended {
    let mut command = Command::new(launcher());
    command.args(["-n", &ranks.to_string(), PROGRAM, "train"]).args(words).args([
        "-o",
        "m.h5",
        "--threads",
        "1",
        "--json",
    ]);
    command.args(more).current_dir(folder).env("CONSORT_FAULT", fault);
    end_of(command)
}

/// The value of the last `"name":…` in what was printed.
fn field(text: &str, name: &str) -> Option<String> {
    let after = text.rsplit(&format!("\"{name}\":")).next().filter(|_| text.contains(&format!("\"{name}\":")))?;
    Some(after.chars().skip_while(|c| *c == '"').take_while(|c| c.is_alphanumeric()).collect())
}

/// Everything below a folder.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        found.extend(all_below(&entry.path()));
    }
    found
}

fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".partial"))
}

/// What a fault said of itself before it happened: steps of its run so far, and the time.
fn said(ended: &Ended) -> Option<(u64, f64)> {
    let line = ended.text.lines().find(|line| line.starts_with("fault: "))?;
    let mut parts = line.split(", ");
    let steps = parts.nth(1)?.split(' ').next()?.parse().ok()?;
    Some((steps, parts.next()?.trim().parse().ok()?))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A fault that was asked for.
struct Asked {
    kind: &'static str,
    rank: usize,
    text: String,
}

fn draw(draws: &mut Draws, ranks: usize, calls: u64, is_kill: bool) -> Asked {
    const STAGES: [&str; 10] = [
        "step",
        "checkpoint-folder",
        "checkpoint-write",
        "checkpoint-flush",
        "checkpoint-digest",
        "checkpoint-prune",
        "rename",
        "renamed",
        "model-write",
        "read",
    ];
    const WRITES: [&str; 6] =
        ["checkpoint-folder", "checkpoint-write", "checkpoint-flush", "rename", "renamed", "model-write"];
    let kind = if is_kill { "kill" } else { draws.of(&["panic", "read", "write", "full", "kill"]) };
    let point = match kind {
        "read" => draws.of(&["read", "checkpoint-read"]),
        "write" | "full" => draws.of(&WRITES),
        _ if draws.below(2) == 0 => "collective",
        _ => draws.of(&STAGES),
    };
    let (rank, count) = match point {
        "collective" => (draws.below(ranks), 1 + draws.next() % calls),
        "step" | "read" => (draws.below(ranks), 1 + draws.next() % 4),
        "model-write" => (0, 1),
        // Most of a checkpoint is written by rank 0.
        _ => (if draws.below(4) == 0 { draws.below(ranks) } else { 0 }, 1 + draws.next() % 4),
    };
    Asked { kind, rank, text: format!("{kind}:{rank}:{point}:{count}") }
}

/// Whether what was printed names the rank and the cause.
fn check_words(ended: &Ended, asked: &Asked, ranks: usize) {
    let text = &ended.text;
    let ours: Vec<&str> =
        text.lines().filter(|line| line.starts_with("consort: ") && !line.contains("warning")).collect();
    let rank = asked.rank;
    if asked.kind == "kill" {
        let named = text.contains(&format!("rank {rank}")) || text.contains(&format!("RANK {rank}"));
        assert!(
            named && (text.contains("signal 9") || text.contains("SIGNAL: 9")),
            "not rank {rank} and its end:\n{text}"
        );
        return;
    }
    assert_eq!(ours.len(), 1, "not one message:\n{text}");
    let cause = match asked.kind {
        "panic" => "internal error: injected",
        "full" => "No space left",
        _ => "Input/output error",
    };
    let whose = if ranks == 1 { "consort: ".to_string() } else { format!("rank {rank} of {ranks}: ") };
    assert!(ours[0].contains(&whose) && ours[0].contains(cause), "not '{whose}' and '{cause}':\n{text}");
    assert_eq!(ended.code, Some(if asked.kind == "panic" { 70 } else { 3 }), "{text}");
}

/// What an undisturbed run gives, and how often its ranks talk.
struct Whole {
    digest: String,
    calls: u64,
}

/// One training, interrupted until it is done. Seconds from each fault to the end of its job.
fn survive(case: &Case, whole: &Whole, draws: &mut Draws) -> Vec<f64> {
    let folder = TempDir::new().unwrap();
    let (at, kept) = (folder.path(), folder.path().join("kept"));
    let every = format!("{}steps", case.every);
    let keep = ["--checkpoint", "kept", "--every", &every];
    let (mut ranks, mut resumed_at_least, mut calls) = (2 + draws.below(4), 0, whole.calls);
    let (mut took, mut hits, mut wanted) = (Vec::new(), 0, 1 + draws.below(3));
    loop {
        let asked = (hits < wanted).then(|| draw(draws, ranks, calls, hits == 0));
        let ended = train(at, ranks, &case.words, &keep, asked.as_ref().map_or("", |asked| asked.text.as_str()));
        let end = now();
        let what = asked.as_ref().map_or("undisturbed".to_string(), |asked| asked.text.clone());
        let what = format!("{what} on {ranks} ranks, after {hits} faults");
        assert!(ended.code.is_some(), "{what}: HANGS:\n{}", ended.text);
        let resumed = field(&ended.out, "resumed_step").and_then(|step| step.parse::<u64>().ok()).unwrap_or(0);
        // That it was killed before it could say so is no loss.
        let has_begun = ended.out.contains("\"resume\"") || ended.out.contains("\"progress\"");
        if ended.out.contains("passed over") {
            resumed_at_least = 0; // it could not be read, by request
        }
        if case.is_one && has_begun {
            assert!(
                resumed >= resumed_at_least,
                "{what}: goes on from {resumed}, not {resumed_at_least}:\n{}",
                ended.text
            );
        }
        let model = at.join("m.h5");
        if model.exists() {
            let found = consort::store::load(&model).unwrap_or_else(|e| panic!("{what}: a broken model: {e}"));
            assert_eq!(found.digest, whole.digest, "{what}");
        }
        if ended.code == Some(0) {
            assert_eq!(field(&ended.out, "digest").as_ref(), Some(&whole.digest), "{what}:\n{}", ended.text);
            // After the last call of a rank its fault may still happen, or there were too few calls.
            if asked.is_none() || hits > 0 {
                break;
            }
            std::fs::remove_dir_all(&kept).ok();
            std::fs::remove_file(&model).ok();
            calls = (calls / 2).max(1);
            continue;
        }
        let asked = asked.unwrap_or_else(|| panic!("{what}: exit code {:?}:\n{}", ended.code, ended.text));
        let (steps, since) = said(&ended).unwrap_or_else(|| panic!("{what}: failed by itself:\n{}", ended.text));
        check_words(&ended, &asked, ranks);
        if asked.kind != "kill" && asked.kind != "panic" {
            let left: Vec<PathBuf> = all_below(at).into_iter().filter(|path| is_partial(path)).collect();
            // What is left on rank 0 may be of a rank that was killed before.
            assert!(hits > 0 || left.is_empty(), "{what}: left behind: {left:?}");
        }
        // The steps since the last checkpoint are lost, at most one interval of them.
        resumed_at_least = resumed_at_least.max((resumed + steps).saturating_sub(1) / case.every * case.every);
        took.push(end - since);
        hits += 1;
        wanted = wanted.max(hits);
        let others: Vec<usize> = (case.least_ranks..=5).filter(|others| *others != ranks).collect();
        ranks = others[draws.below(others.len())];
    }
    let left: Vec<PathBuf> = all_below(&kept).into_iter().filter(|path| is_partial(path)).collect();
    assert!(left.is_empty(), "half checkpoints are left: {left:?}");
    took
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Work on some things at once: most of the time they wait for launchers.
fn side_by_side(n: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| 2 * n.get().min(4)) {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::SeqCst) {
                        i if i < n => work(i),
                        _ => return,
                    }
                }
            });
        }
    });
}

#[test]
fn whatever_kills_a_training_the_next_one_ends_with_the_same_bits() {
    if !has_mpi() {
        return;
    }
    let (n, seed) = (number("CONSORT_KILLS", 40) as usize, number("CONSORT_FAULT_SEED", 6));
    println!("CONSORT_KILLS={n} CONSORT_FAULT_SEED={seed}");
    let cases = cases();
    let wholes: Vec<Mutex<Option<Whole>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    side_by_side(cases.len().min(n), |i| {
        let folder = TempDir::new().unwrap();
        let ended = train(folder.path(), 2, &cases[i].words, &["--checkpoint", "kept", "--every", "1000000steps"], "");
        assert_eq!(ended.code, Some(0), "{:?}:\n{}", cases[i].words, ended.text);
        let calls = ended
            .out
            .split("\"calls\":")
            .skip(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap());
        let digest = field(&ended.out, "digest").unwrap();
        *wholes[i].lock().unwrap() = Some(Whole { digest, calls: calls.sum() });
    });
    let wholes: Vec<Option<Whole>> = wholes.into_iter().map(|whole| whole.into_inner().unwrap()).collect();
    let (all, ok) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    side_by_side(n, |i| {
        let at = i % cases.len();
        let mut draws = Draws(seed.wrapping_mul(1_000_003).wrapping_add(i as u64));
        let run = std::panic::AssertUnwindSafe(|| survive(&cases[at], wholes[at].as_ref().unwrap(), &mut draws));
        match std::panic::catch_unwind(run) {
            Ok(took) => all.lock().unwrap().extend(took),
            // Its words are on stderr already.
            Err(_) => panic!("training {i} of CONSORT_FAULT_SEED={seed}: {:?}", cases[at].words),
        }
        ok.fetch_add(1, Ordering::SeqCst);
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by(f64::total_cmp);
    println!(
        "{} of {n} killed trainings ended with the same digest; {} faults, from each to the end of the job: median {:.2} s, longest {:.2} s",
        ok.into_inner(),
        all.len(),
        all[all.len() / 2],
        all[all.len() - 1]
    );
}

#[test]
fn a_network_that_loses_a_rank_or_its_disk_goes_on_to_the_same_bits() {
    if !has_mpi() {
        return;
    }
    let digits = data("digits.h5");
    // 131,072 parameters are enough for ranks to share what the optimiser remembers.
    for (layers, is_shared) in [("19", false), ("512,200", true)] {
        let words = ["mlp", &digits, "--group", "train", "--layers", layers, "--norm", "batch", "--average", "0.9"];
        let steps = ["--global-batch", "128", "--lanes", "4", "--epochs", "3"];
        let words: Vec<String> = words.iter().chain(&steps).map(|word| word.to_string()).collect();
        let keep = ["--checkpoint", "kept", "--every", "4steps"];
        let whole = train(TempDir::new().unwrap().path(), 3, &words, &[], "");
        assert_eq!(!whole.out.contains("\"reduce_scatter\":{\"calls\":0"), is_shared, "{}", whole.out);
        for (kind, rank, point, ranks, then) in [
            ("kill", 1, "step:11", 3, 2),
            ("kill", 0, "checkpoint-write:4", 2, 3),
            ("full", 0, "checkpoint-write:4", 2, 4),
        ] {
            let folder = TempDir::new().unwrap();
            let asked = Asked { kind, rank, text: format!("{kind}:{rank}:{point}") };
            let ended = train(folder.path(), ranks, &words, &keep, &asked.text);
            assert!(said(&ended).is_some(), "{layers}, {}:\n{}", asked.text, ended.text);
            check_words(&ended, &asked, ranks);
            assert!(!folder.path().join("m.h5").exists(), "{layers}, {}", asked.text);
            let again = train(folder.path(), then, &words, &keep, "");
            assert_eq!(again.code, Some(0), "{layers}, {}, then:\n{}", asked.text, again.text);
            let resumed = field(&again.out, "resumed_step").and_then(|step| step.parse::<u64>().ok());
            assert_eq!(resumed, Some(if kind == "kill" && rank == 1 { 8 } else { 4 }), "{layers}, {}", asked.text);
            assert_eq!(field(&again.out, "digest"), field(&whole.out, "digest"), "{layers}, {}", asked.text);
        }
    }
}

/// As [`train`], in one process.
fn train_alone(folder: &Path, words: &[&str], fault: &str) -> Ended {
    let mut command = Command::new(PROGRAM);
    command.arg("train").args(words).args(["-o", "m.h5", "--threads", "1", "--json"]);
    command.current_dir(folder).env("CONSORT_FAULT", fault);
    end_of(command)
}

#[test]
fn every_point_may_be_the_last_one_of_a_run() {
    let cancer = data("breast_cancer.h5");
    let words = ["boost", &cancer, "--rounds", "5", "--max-leaves", "4", "--row-sample", "0.8"];
    let kept = [&words[..], &["--checkpoint", "kept", "--every", "2steps", "--keep", "1"]].concat();
    let told = [&kept[..], &["--time-limit", "1s"]].concat();
    let folder = TempDir::new().unwrap();
    let whole = field(&train_alone(folder.path(), &words, "").out, "digest").unwrap();
    let mut faults = Vec::new();
    for point in
        ["step", "checkpoint-folder", "checkpoint-write", "checkpoint-flush", "checkpoint-digest", "rename", "renamed"]
    {
        for count in 1..=4 {
            let kinds: &[&str] = if point == "step" || point == "checkpoint-digest" {
                &["kill", "panic"]
            } else {
                &["kill", "panic", "write", "full"]
            };
            faults.extend(kinds.iter().map(|kind| (*kind, point, count)));
        }
    }
    faults.extend(["kill", "panic"].map(|kind| (kind, "checkpoint-prune", 1)));
    faults.extend(
        ["kill", "panic", "write", "full"].iter().flat_map(|kind| [(*kind, "marker", 1), (*kind, "model-write", 1)]),
    );
    faults.extend(["kill", "panic", "read"].map(|kind| (kind, "read", 2)));
    let n_calls = 90; // and a few of them are beyond its end
    faults.extend((1..=n_calls).map(|count| ("kill", "collective", count)));
    let hits = AtomicUsize::new(0);
    side_by_side(faults.len(), |i| {
        let (kind, point, count) = faults[i];
        let fault = format!("{kind}:0:{point}:{count}");
        let folder = TempDir::new().unwrap();
        let at = folder.path();
        let ended = train_alone(at, if point == "marker" { &told } else { &kept }, &fault);
        if said(&ended).is_some() {
            hits.fetch_add(1, Ordering::SeqCst);
            check_end(&ended, kind, &fault);
        } else {
            assert!(point == "collective" || count > 2, "{fault}: never came to it:\n{}", ended.text);
            assert_eq!(ended.code, Some(0), "{fault}:\n{}", ended.text);
        }
        let halves =
            |folder: &Path| -> Vec<PathBuf> { all_below(folder).into_iter().filter(|path| is_partial(path)).collect() };
        let left = halves(at);
        assert!(kind == "kill" || kind == "panic" || left.is_empty(), "{fault}: left behind: {left:?}");
        let ended = train_alone(at, &kept, "");
        assert_eq!(ended.code, Some(0), "{fault}, then:\n{}", ended.text);
        assert_eq!(field(&ended.out, "digest").as_ref(), Some(&whole), "{fault}");
        let left = halves(&at.join("kept"));
        assert!(left.is_empty(), "{fault}: in the end there are {left:?}");
        assert!(!at.join("kept/requeue").exists(), "{fault}");
    });
    let hits = hits.into_inner();
    println!("{hits} of {} faults came to their point", faults.len());
    assert!(hits > faults.len() / 2);
}

/// Exit code and message of a run alone.
fn check_end(ended: &Ended, kind: &str, fault: &str) {
    let (code, cause) = match kind {
        "kill" => return assert!(ended.code.is_some_and(|code| code != 0), "{fault}: {}", ended.text),
        "panic" => (70, "internal error: injected"),
        "full" => (3, "No space left"),
        _ => (3, "Input/output error"),
    };
    let ours: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("consort: ")).collect();
    if fault.contains("marker") && kind != "panic" {
        // The state is kept by then.
        assert!(ours.len() == 2 && ours[0].contains("warning") && ours[0].contains(cause), "{fault}:\n{}", ended.text);
        return assert_eq!(ended.code, Some(75), "{fault}:\n{}", ended.text);
    }
    assert!(ours.len() == 1 && ours[0].contains(cause), "{fault}:\n{}", ended.text);
    assert_eq!(ended.code, Some(code), "{fault}:\n{}", ended.text);
}

#[test]
fn a_rank_that_is_late_changes_nothing_and_words_that_mean_nothing_are_refused() {
    if !has_mpi() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let words = ["logistic".to_string(), data("breast_cancer.h5")];
    let run = |fault: &str| train(folder.path(), 3, &words, &[], fault);
    let whole = field(&run("").out, "digest").unwrap();
    let late = run("delay:1:collective:9:700,delay:2:collective:20:400");
    assert_eq!(field(&late.out, "digest"), Some(whole), "{}", late.text);
    assert_eq!(late.text.matches("fault: Delay").count(), 2, "{}", late.text);
    let ended = run("kill:1:nowhere:3");
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    assert_eq!(ended.text.matches("consort: ").count(), 1, "{}", ended.text);
    assert!(ended.text.contains("'kill:1:nowhere:3'") && ended.text.contains("checkpoint-write"), "{}", ended.text);
}

#[test]
fn a_member_that_cannot_be_read_for_names_its_rank() {
    if !has_mpi() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let cancer = data("breast_cancer.h5");
    let words = ["bag", &cancer, "--learner", "boost --rounds 3", "--members", "5"].map(str::to_string);
    for rank in [1, 4] {
        let ended = train(folder.path(), 5, &words, &[], &format!("read:{rank}:read:2"));
        check_words(&ended, &Asked { kind: "read", rank, text: String::new() }, 5);
    }
}
