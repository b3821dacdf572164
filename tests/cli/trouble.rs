//! One rank in trouble: the others learn of it, and one message names it.

use super::*;

#[test]
fn a_file_that_only_some_ranks_see_names_the_rank() {
    if !has_mpi() {
        return;
    }
    let (here, there) = (folder(), folder());
    table(&here, "t.h5", 200, |_, _| {});
    let words = ["train", "logistic", "t.h5", "-o", "m.h5"];
    let mut command = Command::new(launcher());
    command.args(["-n", "2", "-wdir"]).arg(here.path()).arg(PROGRAM).args(words).arg(":");
    command.args(["-n", "1", "-wdir"]).arg(there.path()).arg(PROGRAM).args(words);
    let ended = end_of(command);
    assert_eq!(ended.code, Some(3), "{}", ended.text);
    one_message(&ended, &["rank 2 of 3", "t.h5"]);
    assert!(!here.path().join("m.h5").exists());
    // The same name, another table.
    table(&there, "t.h5", 190, |_, _| {});
    let mut command = Command::new(launcher());
    command.args(["-n", "2", "-wdir"]).arg(here.path()).arg(PROGRAM).args(words).arg(":");
    command.args(["-n", "1", "-wdir"]).arg(there.path()).arg(PROGRAM).args(words);
    let ended = end_of(command);
    assert_eq!(ended.code, Some(3), "{}", ended.text);
    one_message(&ended, &["rank 2 of 3", "t.h5: has ", "bytes on node"]);
}

#[test]
fn ranks_that_are_started_differently_train_nothing() {
    if !has_mpi() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 200, |_, _| {});
    let words = ["train", "logistic", "t.h5", "-o", "m.h5", "--solver", "sgd", "--epochs", "2"];
    let cases: [(&[&str], &str); 5] = [
        (&["--seed", "7"], "other words or settings than rank 0"),
        (&["--config", "only-there.toml"], "only-there.toml"),
        (&["--lanes", "0"], "--lanes 0"),
        (&["--solver", "magic"], "invalid value 'magic'"),
        (&["--print-config"], "other words or settings than rank 0"),
    ];
    for (more, said) in cases {
        let mut command = Command::new(launcher());
        command.current_dir(at).args(["-n", "2", PROGRAM]).args(words).arg(":");
        let kept = if more[0] == "--solver" { &words[..5] } else { &words };
        command.args(["-n", "1", PROGRAM]).args(kept).args(more);
        let ended = end_of(command);
        assert_eq!(ended.code, Some(2), "{more:?}: {}", ended.text);
        one_message(&ended, &["rank 2 of 3", said]);
        assert!(!at.join("m.h5").exists(), "{more:?}");
    }
}

#[test]
fn threads_that_cannot_start_are_said_once_and_nobody_waits_for_them() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 200, |_, _| {});
    // Stacks of 1 GiB in 4 GiB of address space: the third or fourth thread is refused, and enough is left for all else.
    let script = |words: &str| {
        let mut command = Command::new("bash");
        let train = format!("ulimit -v 4000000; exec {PROGRAM} train logistic t.h5 -o m.h5 {words}");
        command.current_dir(at).args(["-c", &train]).env("RUST_MIN_STACK", "1073741824");
        command
    };
    let mut ways = vec![
        (script("--world solo --threads 16"), "cannot start 16 threads"),
        (script("--world threads:2 --threads 16"), "cannot start 16 threads"),
        (script("--world threads:16 --threads 1"), "cannot start"),
    ];
    if has_mpi() {
        let mut command = Command::new(launcher());
        command.current_dir(at).args(["-n", "2", PROGRAM, "train", "logistic", "t.h5", "-o", "m.h5", ":", "-n", "1"]);
        let one = script("--threads 16");
        command.args(["env", "RUST_MIN_STACK=1073741824"]).arg(one.get_program()).args(one.get_args());
        ways.push((command, "rank 2 of 3: cannot start 16 threads"));
    }
    for (command, said) in ways {
        let ended = end_of(command);
        assert_eq!(ended.code, Some(2), "{said}: {}", ended.text);
        one_message(&ended, &[said]);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_library_that_rounds_tiny_numbers_to_zero_is_refused_on_its_rank() {
    let folder = folder();
    let at = folder.path();
    table(&folder, "t.h5", 200, |_, _| {});
    // What -ffast-math links in.
    let source = "__attribute__((constructor)) static void fast(void) \
                  { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); }";
    std::fs::write(at.join("fast.c"), source).unwrap();
    let compiled = Command::new("cc").current_dir(at).args(["-shared", "-fPIC", "-o", "fast.so", "fast.c"]).status();
    assert!(compiled.unwrap().success());
    let preload = format!("LD_PRELOAD={}", at.join("fast.so").display());
    let words = ["train", "logistic", "t.h5", "-o", "m.h5"];
    let mut alone = Command::new("env");
    alone.current_dir(at).args([&preload, PROGRAM]).args(words);
    let mut ways = vec![(alone, "-ffast-math")];
    if has_mpi() {
        let mut command = Command::new(launcher());
        command.current_dir(at).args(["-n", "2", PROGRAM]).args(words);
        command.args([":", "-n", "1", "env", &preload, PROGRAM]).args(words);
        ways.push((command, "rank 2 of 3: a library in this process"));
    }
    for (command, said) in ways {
        let ended = end_of(command);
        assert_eq!(ended.code, Some(2), "{said}: {}", ended.text);
        one_message(&ended, &[said]);
        assert!(!at.join("m.h5").exists());
    }
}

#[test]
fn a_full_log_does_not_turn_an_error_into_an_abort() {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {PROGRAM} train logistic nowhere.h5 -o m.h5 2>/dev/full")]);
    assert_eq!(end_of(command).code, Some(3));
}

#[test]
fn a_read_that_fails_on_one_rank_names_it() {
    let folder = folder();
    let at = folder.path();
    let n = 4096;
    let path = at.join("t.h5");
    let damaged = {
        let file = hdf5::File::create(&path).unwrap();
        let x = ndarray::Array2::from_shape_fn((n, 3), |(i, j)| ((i * 31 + j * 17) % 101) as f32);
        let y = ndarray::Array1::from_shape_fn(n, |i| (i % 2) as i32);
        let chunked = file.new_dataset_builder().chunk((256, 3)).fletcher32();
        let dataset = chunked.with_data(&x).create("X").unwrap();
        file.new_dataset_builder().with_data(&y).create("y").unwrap();
        dataset.chunk_info(dataset.num_chunks().unwrap() - 1).unwrap().addr
    };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[damaged as usize + 100] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    refused(at, &["train", "logistic", "t.h5", "-o", "m.h5"], 3, &["t.h5", "X"]);
    if has_mpi() {
        let ended = consort(at, 4, &["train", "logistic", "t.h5", "-o", "m.h5"]);
        one_message(&ended, &["rank 3 of 4", "t.h5", "X"]);
        assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_job() {
    if !has_mpi() {
        return;
    }
    let folder = folder();
    let at = folder.path();
    let mark = format!("CONSORT_TEST_MARK={}", at.display());
    let killer = std::thread::spawn({
        let mark = mark.clone();
        move || {
            let since = Instant::now();
            loop {
                assert!(since.elapsed() < Duration::from_secs(60), "rank 3 never came up");
                std::thread::sleep(Duration::from_millis(50));
                if let Some(pid) = rank_3(&mark) {
                    std::thread::sleep(Duration::from_millis(1500)); // into the training
                    Command::new("kill").args(["-KILL", &pid]).status().unwrap();
                    return Instant::now();
                }
            }
        }
    });
    let digits = data("digits.h5");
    let words =
        ["train", "logistic", &digits, "--group", "train", "-o", "m.h5", "--solver", "sgd", "--epochs", "1000000"];
    let mut command = Command::new(launcher());
    let (name, value) = mark.split_once('=').unwrap();
    command.args(["-n", "4", PROGRAM]).args(words).args(["--tolerance", "0"]).current_dir(at).env(name, value);
    let ended = end_of(command);
    let killed = killer.join().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?} after the kill", killed.elapsed());
    assert!(ended.code.is_some_and(|code| code != 0), "{}", ended.text);
    assert!(ended.text.contains("rank 3"), "{}", ended.text);
    assert!(!at.join("m.h5").exists());
}

/// The process of rank 3 among those whose environment has `mark`.
fn rank_3(mark: &str) -> Option<String> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        let has = |word: &str| environment.split(|byte| *byte == 0).any(|entry| entry == word.as_bytes());
        if has(mark) && (has("OMPI_COMM_WORLD_RANK=3") || has("PMI_RANK=3")) {
            return Some(entry.file_name().to_string_lossy().into_owned());
        }
    }
    None
}
