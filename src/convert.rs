//! # convert — files to HDF5, with all ranks at work
//!
//! In:    files of other formats to convert, or an HDF5 file to store anew.
//! Out:   one HDF5 file, written by rank 0: the same bytes for any number of ranks and threads.
//! Talks: rank 0 sends work to the others, which answer until it says that there is no more.
//! Never: flags, formats, what the work is.
//!
//! Only rank 0 looks at files. It cuts what it reads into jobs, which the ranks parse and compress while it takes what came of
//! earlier ones. A rank that fails, or panics, answers with that; rank 0 then removes what it wrote, and all ranks end with one error.

use crate::comm::Communicator;
use crate::data::convert::{ConvertOptions, ConvertReport, Progress};
use crate::data::crew::{Crew, Hand, Message};
use crate::data::hdf5::repack::{RepackOptions, RepackReport};
use crate::error::{Error, Result, caught};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// Tag of messages from rank 0, and the first of those to it: one for each kind of work.
const WORK: u32 = 1;
const ANSWERS: u32 = 16;

/// As [`data::convert::convert`](crate::data::convert::convert), with the work shared by all ranks; the report on rank 0. Collective.
pub fn convert(
    comm: &Communicator,
    inputs: &[PathBuf],
    out: &Path,
    options: &ConvertOptions,
    watch: &mut dyn FnMut(&Progress),
) -> Result<Option<ConvertReport>> {
    share(comm, |crew| crate::data::convert::convert(inputs, out, options, crew, watch))
}

/// As [`repack`](crate::data::hdf5::repack::repack), with the work shared by all ranks; the report on rank 0. Collective.
pub fn repack(
    comm: &Communicator,
    input: &Path,
    out: &Path,
    options: &RepackOptions,
    watch: &mut dyn FnMut(&Progress),
) -> Result<Option<RepackReport>> {
    share(comm, |crew| crate::data::hdf5::repack::repack(input, out, options, crew, watch))
}

/// Rank 0 leads, with the others for a crew, which it sends home whatever became of the work. Collective.
fn share<T>(comm: &Communicator, lead: impl FnOnce(&dyn Crew) -> Result<T>) -> Result<Option<T>> {
    let threads = comm.all_gather(&[rayon::current_num_threads() as u64])?.values;
    let done = if comm.is_root() {
        let threads = threads.into_iter().map(|n| n.max(1) as usize).collect();
        let ranks = Ranks { comm, threads, unanswered: RefCell::default() };
        let led = caught(|| lead(&ranks)).and_then(|led| led);
        let ended = ranks.end();
        led.and_then(|done| ended.map(|()| Some(done)))
    } else {
        serve(comm).map(|()| None)
    };
    comm.agree(done)
}

/// In place of a kind of work: there will be no more.
const END: u64 = u64::MAX;

/// The ranks of a communicator, seen from rank 0.
struct Ranks<'c> {
    comm: &'c Communicator,
    threads: Vec<usize>,
    /// Rank and kind.
    unanswered: RefCell<Vec<(usize, u32)>>,
}

impl Crew for Ranks<'_> {
    fn threads(&self) -> Vec<usize> {
        self.threads.clone()
    }

    fn hand(&self, rank: usize, message: Message) -> Result<()> {
        let head = [u64::from(message.kind), u64::from(message.wants_answer), message.bytes.len() as u64];
        self.comm.send(&head, rank, WORK)?;
        self.comm.send(&message.bytes, rank, WORK)?;
        if message.wants_answer {
            self.unanswered.borrow_mut().push((rank, message.kind));
        }
        Ok(())
    }

    fn answer(&self, rank: usize, kind: u32) -> Result<Vec<u8>> {
        let mut unanswered = self.unanswered.borrow_mut();
        match unanswered.iter().position(|asked| *asked == (rank, kind)) {
            Some(at) => unanswered.remove(at),
            None => return Err(Error::internal(format!("rank {rank} was asked for nothing of kind {kind}"))),
        };
        let mut length = [0u64];
        self.comm.recv(&mut length, rank, ANSWERS + kind)?;
        receive(self.comm, length[0], rank, ANSWERS + kind)
    }
}

impl Ranks<'_> {
    /// Takes the answers that nobody wanted any more, since no message may be left at the end, and sends the ranks home.
    fn end(&self) -> Result<()> {
        (1..self.comm.size()).try_for_each(|rank| self.comm.send(&[END, 0, 0], rank, WORK))?;
        loop {
            let next = self.unanswered.borrow().first().copied();
            match next {
                Some((rank, kind)) => drop(self.answer(rank, kind)?),
                None => return Ok(()),
            }
        }
    }
}

fn receive(comm: &Communicator, length: u64, from: usize, tag: u32) -> Result<Vec<u8>> {
    let mut message = vec![0u8; length as usize];
    comm.recv(&mut message, from, tag)?;
    Ok(message)
}

/// Does what rank 0 says until it says that there is no more.
fn serve(comm: &Communicator) -> Result<()> {
    let mut hand = Hand::default();
    loop {
        let mut head = [0u64; 3];
        comm.recv(&mut head, 0, WORK)?;
        let [kind, wants_answer, length] = head;
        if kind == END {
            return Ok(());
        }
        let bytes = receive(comm, length, 0, WORK)?;
        let message = Message { kind: kind as u32, wants_answer: wants_answer != 0, bytes };
        if let Some(answer) = hand.take(&message) {
            comm.send(&[answer.len() as u64], 0, ANSWERS + message.kind)?;
            comm.send(&answer, 0, ANSWERS + message.kind)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{World, run_threads, run_world};
    use crate::data::convert::whole_or_not_at_all;
    use crate::data::crew::Alone;
    use crate::data::crew::tests::{Fault, work_with};
    use std::io::Write;

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        match name.ends_with(".gz") {
            true => {
                let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                gzip.write_all(bytes).unwrap();
                gzip.finish().unwrap();
            }
            false => file.write_all(bytes).unwrap(),
        }
        path
    }

    /// Of several pieces. A column of numbers has strings late in the file, one has few strings, one too many for categories.
    fn csv(n: usize) -> String {
        let word = |i: usize| match i % 7 {
            0 => "\"two\nlines\"".to_string(),
            1 => String::new(),
            k => format!("\"a, {k}\"\"\""),
        };
        let row = |i: usize| {
            let late = if i + 9 > n { format!("late{i}") } else { (i % 90).to_string() };
            format!("{i},{:.3},{},{late},w{},{}\n", (i * 7919 % 1009) as f64 / 8.0, word(i), i * 31 % 12_007, i % 3)
        };
        "a,b,word,late,many,label\n".to_string() + &(0..n).map(row).collect::<String>()
    }

    fn libsvm(n: usize) -> String {
        let row = |i: usize| format!("{} {}:1 {}:{}\n", i % 2, 1 + i % 5, 10 + i * 7919 % 29, (i % 13) as f64 / 4.0);
        (0..n).map(row).collect()
    }

    fn npy(n_rows: usize, n_columns: usize) -> Vec<u8> {
        let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({n_rows}, {n_columns}), }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        (0..n_rows * n_columns).for_each(|i| bytes.extend(((i * i % 10_007) as f64 / 7.0).to_le_bytes()));
        bytes
    }

    /// The output of every number of ranks and threads is that of one process without a crew.
    fn all_alike(out: &Path, alone: impl Fn(), run: impl Fn(&Communicator) -> Result<bool> + Sync) {
        alone();
        let expected = std::fs::read(out).unwrap();
        for ranks in [1, 2, 3, 5] {
            for threads in [1, 2] {
                std::fs::remove_file(out).unwrap();
                let reported = run_threads(ranks, threads, &run).unwrap();
                assert_eq!(reported, (0..ranks).map(|rank| rank == 0).collect::<Vec<_>>(), "who reports");
                assert!(std::fs::read(out).unwrap() == expected, "{ranks} ranks × {threads} threads");
            }
        }
    }

    #[test]
    fn any_number_of_ranks_and_threads_converts_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/formats");
        let plain = file(folder.path(), "plain.csv", csv(70_000).as_bytes());
        let zipped = file(folder.path(), "zipped.csv.gz", csv(40_000).as_bytes());
        let svm = file(folder.path(), "t.svm", libsvm(140_000).as_bytes());
        let sparse = ConvertOptions { sparse: true, ..Default::default() };
        let npy = file(folder.path(), "x.npy", &npy(60_000, 7));
        let cases: [(Vec<PathBuf>, ConvertOptions); 7] = [
            (vec![plain.clone()], ConvertOptions::default()),
            (vec![zipped.clone()], ConvertOptions::default()),
            (vec![plain, zipped], ConvertOptions::default()),
            (vec![svm.clone()], ConvertOptions::default()),
            (vec![svm], sparse),
            (vec![npy], ConvertOptions::default()),
            (vec![formats.join("snappy.parquet")], ConvertOptions::default()),
        ];
        let out = folder.path().join("out.h5");
        for (inputs, options) in cases {
            println!("{inputs:?}");
            all_alike(
                &out,
                || drop(crate::data::convert::convert(&inputs, &out, &options, &Alone, &mut |_| ()).unwrap()),
                |comm| convert(comm, &inputs, &out, &options, &mut |_| ()).map(|report| report.is_some()),
            );
            std::fs::remove_file(&out).unwrap();
        }
    }

    #[test]
    fn any_number_of_ranks_and_threads_repacks_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("in.h5"), folder.path().join("out.h5"));
        let table = crate::data::synthetic::logistic(70_001, 13, 1).unwrap();
        let storage = crate::data::synthetic::Storage { chunk_rows: Some(1009), deflate: Some(1) };
        for group in ["a", "b", "b/c"] {
            crate::data::synthetic::write_hdf5(&input, group, &table, storage).unwrap();
        }
        for options in [RepackOptions::default(), RepackOptions { deflate: None, chunk_bytes: 10_000, replace: false }]
        {
            all_alike(
                &out,
                || drop(crate::data::hdf5::repack::repack(&input, &out, &options, &Alone, &mut |_| ()).unwrap()),
                |comm| repack(comm, &input, &out, &options, &mut |_| ()).map(|report| report.is_some()),
            );
            std::fs::remove_file(&out).unwrap();
        }
    }

    /// Ways to fail; `ragged.csv` and `whole.csv` lie in the folder.
    const TRIALS: [(&str, &str); 4] = [
        ("ragged", "ragged.csv: line 70002: has 2 fields where the others have 6"),
        ("job-fails", "wrong on purpose"),
        ("job-panics", "on purpose"),
        ("first-panics", "on purpose"),
    ];

    fn inputs_of_trials(folder: &Path) {
        let text = csv(70_000);
        file(folder, "whole.csv", text.as_bytes());
        file(folder, "ragged.csv", (text.replace("two\nlines", "two lines") + "1,2\n").as_bytes());
    }

    fn fail(comm: &Communicator, folder: &Path, trial: &str) -> Result<()> {
        let out = folder.join("out.h5");
        let faulty = |fault: Fault| {
            share(comm, |crew| {
                whole_or_not_at_all(&out, |partial| {
                    std::fs::write(partial, "begun").unwrap();
                    work_with(crew, fault)
                })
            })
            .map(drop)
        };
        let converted = |input: &str, watch: &mut dyn FnMut(&Progress)| {
            convert(comm, &[folder.join(input)], &out, &ConvertOptions::default(), watch).map(drop)
        };
        match trial {
            "ragged" => converted("ragged.csv", &mut |_| ()),
            "job-fails" => faulty(Fault::Error),
            "job-panics" => faulty(Fault::Panic),
            "first-panics" => converted("whole.csv", &mut |at| {
                assert!(at.doing == "reading" || at.done_bytes < 1 << 21, "on purpose");
            }),
            // Files of this process are not to become longer than they may be on a disk that is full.
            "disk-full" => converted("whole.csv", &mut |at| {
                if at.doing == "writing" && at.done_bytes == 0 {
                    let me = std::process::id().to_string();
                    let limited = std::process::Command::new("prlimit").args(["--pid", &me, "--fsize=100000"]).status();
                    assert!(limited.unwrap().success());
                }
            }),
            other => panic!("no trial {other}"),
        }
    }

    fn listed(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_fails_on_any_rank_ends_all_and_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        inputs_of_trials(folder.path());
        for (trial, message) in TRIALS {
            for (ranks, threads) in [(1, 2), (2, 1), (3, 2), (5, 1)] {
                let failed = std::sync::Mutex::new(Vec::new());
                let error = run_threads(ranks, threads, |comm| {
                    let done = fail(comm, folder.path(), trial);
                    failed.lock().unwrap().push(done.as_ref().map_err(Error::rank).copied());
                    done
                });
                let error = error.unwrap_err();
                assert!(error.to_string().contains(message), "{trial} on {ranks}: {error}");
                assert_eq!(*failed.lock().unwrap(), vec![Err(Some(0)); ranks], "{trial}: all know of it");
                assert_eq!(listed(folder.path()), 2, "{trial} on {ranks} ranks left something behind");
            }
        }
    }

    /// This test starts itself, on three processes, once for each way to fail.
    #[test]
    fn what_fails_on_a_process_is_said_once_and_ends_all() {
        const FOLDER: &str = "CONSORT_TEST_FOLDER";
        const TRIAL: &str = "CONSORT_TEST_TRIAL";
        if let (Some(folder), Ok(trial)) = (std::env::var_os(FOLDER), std::env::var(TRIAL)) {
            let code = run_world(World::Auto, 1, |comm| fail(comm, Path::new(&folder), &trial).map(|()| 0));
            std::process::exit(code);
        }
        let launcher = std::env::var("CONSORT_MPIEXEC").unwrap_or_else(|_| "mpirun".to_string());
        let found = cfg!(feature = "mpi") && std::process::Command::new(&launcher).arg("--version").output().is_ok();
        if !found {
            assert!(std::env::var("CONSORT_REQUIRE_MPI").is_err() || !cfg!(feature = "mpi"), "no '{launcher}'");
            println!("SKIPPED: no MPI launcher");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        inputs_of_trials(folder.path());
        for (trial, message) in TRIALS.into_iter().chain([("disk-full", "cannot write")]) {
            // A write past the limit is to fail, not to kill.
            let script = "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture --test-threads=1";
            let done = std::process::Command::new("timeout")
                .args(["60", &launcher, "-n", "3", "sh", "-c", script])
                .arg(std::env::current_exe().unwrap())
                .arg("convert::tests::what_fails_on_a_process_is_said_once_and_ends_all")
                .env(FOLDER, folder.path())
                .env(TRIAL, trial)
                .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
                .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
                .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
                .env("OMPI_MCA_mpi_yield_when_idle", "1")
                .env("OMPI_MCA_hwloc_base_binding_policy", "none")
                .output()
                .unwrap();
            let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            let code = if trial.contains("panics") { 70 } else { 3 };
            assert_eq!(done.status.code(), Some(code), "{trial}:\n{text}");
            let said: Vec<&str> = text.lines().filter(|line| line.contains("consort: ")).collect();
            assert!(said.len() == 1 && said[0].contains(message), "{trial}:\n{text}");
            assert_eq!(said[0].contains("rank 2 of 3"), trial == "job-panics", "{trial}:\n{text}");
            assert_eq!(listed(folder.path()), 2, "{trial} left something behind");
        }
    }
}
