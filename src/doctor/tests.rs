//! What the doctor sees and says.

use super::cores::{leading_number, parse_cores, share};
use super::*;

impl RankFacts {
    /// One with core 0 and a thread.
    pub(super) fn of_tests(rank: usize, node: &str) -> RankFacts {
        RankFacts {
            rank,
            node: node.to_string(),
            process: 100 + rank as u32,
            cores: vec![0],
            node_cores: 1,
            threads: 1,
            memory_bytes: 0,
            version: "1".to_string(),
            build: "0".to_string(),
            clock_s: 0.0,
            folder: None,
        }
    }
}

#[test]
fn lists_of_cores_go_there_and_back() {
    for list in ["0", "0-2,8", "1,3,5-7"] {
        assert_eq!(list_cores(&parse_cores(list)), list);
    }
    assert_eq!(parse_cores(""), Vec::<usize>::new());
    assert!(!allowed_cores("/proc/self/status").is_empty());
    assert!(peak_memory_bytes() > 1 << 20);
}

#[test]
fn cores_are_shared_out() {
    assert_eq!(share(8, 8, 1), 8);
    assert_eq!(share(8, 8, 4), 2);
    assert_eq!(share(8, 8, 3), 2);
    assert_eq!(share(2, 2, 7), 1, "more ranks than cores");
    assert_eq!(share(1, 8, 8), 1, "each bound to its core");
    assert_eq!(share(4, 8, 2), 4, "each bound to its socket");
    assert_eq!(share(4, 8, 4), 2, "two ranks to a socket");
    assert_eq!(leading_number("4(x2),3"), Some(4));
}

#[test]
fn threads_without_cores_are_noticed() {
    let facts = |rank, cores: &[usize], threads| RankFacts {
        cores: cores.to_vec(),
        threads,
        ..RankFacts::of_tests(rank, "n1")
    };
    assert!(advise(&[facts(0, &[0], 1), facts(1, &[1], 1)]).is_empty());
    let strangled = advise(&[facts(0, &[0], 2), facts(1, &[1], 2)]);
    assert!(strangled[0].contains("2 of 2 ranks") && strangled[0].contains("PE=2"), "{strangled:?}");
    let same = advise(&[facts(0, &[0], 1), facts(1, &[0], 1)]);
    assert!(same.iter().any(|line| line.contains("bound to core 0")), "{same:?}");
    assert!(advise(&[facts(0, &[0, 1], 1), facts(1, &[0, 1], 1)]).is_empty());
    let bound = |node_cores| [0, 1].map(|rank| RankFacts { node_cores, ..facts(rank, &[rank], 1) });
    let idle = advise(&bound(16));
    assert!(idle[0].contains("bound to 2 of the 16 cores") && idle[0].contains("slot:PE=8"), "{idle:?}");
    assert!(advise(&bound(2)).is_empty());
}

#[test]
fn nodes_that_differ_are_noticed() {
    let facts = |rank, version: &str, clock_s, sees| RankFacts {
        version: version.into(),
        clock_s,
        folder: Some(FolderView { sees, is_locked: None }),
        ..RankFacts::of_tests(rank, &format!("n{rank}"))
    };
    let same = [facts(0, "1", 10.0, true), facts(1, "1", 11.9, true)];
    assert!(advise_on_nodes(&same).is_empty());
    let other = advise_on_nodes(&[facts(0, "1", 13.5, true), facts(1, "1", 13.0, true), facts(2, "2", 10.0, true)]);
    assert!(other[0].contains("rank 2 on node n2 runs consort 2"), "{other:?}");
    assert!(other[1].contains("node n0 is 3.5 s ahead of that of node n2"), "{other:?}");
    let folder = FolderFacts { path: "kept".into(), sync_s: Some(0.1), problem: None, lock_problem: None };
    assert!(advise_on_folder(&folder, &same).is_empty());
    let blind = &advise_on_folder(&folder, &[facts(0, "1", 0.0, true), facts(1, "1", 0.0, false)])[0];
    assert!(blind.contains("rank 1 on node n1 does not see"), "{blind}");
    let lock_problem = Some("not supported".to_string());
    let slow = advise_on_folder(&FolderFacts { sync_s: Some(3.0), lock_problem, ..folder }, &same);
    assert!(slow[0].contains("took 3.0 s") && slow[1].contains("export HDF5_USE_FILE_LOCKING=FALSE"), "{slow:?}");
}

#[test]
fn a_folder_for_checkpoints_is_looked_at_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    for ranks in [1, 3] {
        for found in crate::comm::run_threads(ranks, 1, |comm| diagnose(comm, Some(folder.path()), &[])).unwrap() {
            assert!(found.folder.unwrap().sync_s.is_some());
            let views: Vec<FolderView> = found.ranks.iter().filter_map(|rank| rank.folder).collect();
            assert!(views.len() == ranks && views.iter().all(|view| view.sees));
            assert!(
                views[0].is_locked.is_none() && views[1..].iter().all(|view| view.is_locked == Some(true)),
                "{views:?}"
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for found in crate::comm::run_threads(ranks, 1, |comm| diagnose(comm, Some(&missing), &[])).unwrap() {
            assert!(found.advice.iter().any(|line| line.contains("cannot write there")), "{:?}", found.advice);
        }
    }
}

#[test]
fn every_rank_is_in_the_diagnosis() {
    for diagnosis in crate::comm::run_threads(3, 1, |comm| diagnose(comm, None, &[])).unwrap() {
        assert_eq!(diagnosis.ranks.len(), 3);
        assert_eq!(diagnosis.ranks[2].rank, 2);
        assert_eq!(diagnosis.all_reduce.len(), 3);
    }
}

#[test]
fn tables_that_cannot_be_opened_or_are_being_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (good, written, missing) = (folder.path().join("a.h5"), folder.path().join("b.h5"), folder.path().join("c.h5"));
    std::fs::write(&good, b"a").unwrap();
    std::fs::write(&written, b"b").unwrap();
    let writer = std::fs::File::open(&written).unwrap();
    rustix::fs::flock(&writer, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let told = |path: &Path| {
        let found = crate::comm::run_threads(2, 1, |comm| diagnose(comm, None, &[good.clone(), path.to_path_buf()]));
        found.unwrap().into_iter().map(|found| found.advice.join("\n")).collect::<Vec<_>>()
    };
    for (path, word) in [(&written, "a program that writes to it"), (&missing, "rank 0 cannot open it")] {
        let of_file = |line: &str| line.starts_with(&path.display().to_string()) && line.contains(word);
        assert!(told(path).iter().all(|advice| advice.lines().any(of_file)), "{:?}", told(path));
    }
    drop(writer);
    // A process that another test starts at this moment holds the lock until it runs its program.
    let is_free = |_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        told(&written).iter().all(|advice| !advice.contains("b.h5"))
    };
    assert!((0..100).any(is_free), "{:?}", told(&written));
}
