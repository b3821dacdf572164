//! Every collective against plain loops on awkward sizes and lengths, and every way in which ranks
//! can fail to talk together.

use std::cell::RefCell;

use super::call::Call;
use super::transport::{OwnedSlice, ReduceOp, Slice, SliceMut, Transport};
use super::*;

const SIZES: [usize; 5] = [1, 2, 3, 4, 7];
const LENGTHS: [usize; 3] = [0, 1, 1009];

/// What rank `rank` puts at place `i`.
fn value(rank: usize, i: usize) -> u64 {
    ((rank as u64 + 1) << 61).wrapping_mul(i as u64 + 3) ^ (rank as u64 * 7919 + i as u64)
}

fn values<T>(rank: usize, length: usize, as_type: fn(u64) -> T) -> Vec<T> {
    (0..length).map(|i| as_type(value(rank, i))).collect()
}

fn on_all_sizes(body: impl Fn(&Communicator) -> Result<()> + Sync) {
    for size in SIZES {
        run_threads(size, 1, &body).unwrap();
    }
}

#[test]
fn sums_wrap_and_equal_a_plain_loop() {
    on_all_sizes(|comm| {
        for length in LENGTHS {
            let mut wide = values(comm.rank(), length, |v| v);
            comm.all_reduce_sum(&mut wide)?;
            let mut narrow = values(comm.rank(), length, |v| v as u32);
            comm.all_reduce_sum(&mut narrow)?;
            for i in 0..length {
                let expected = (0..comm.size()).fold(0u64, |sum, r| sum.wrapping_add(value(r, i)));
                assert_eq!((wide[i], narrow[i]), (expected, expected as u32), "place {i} of {length}");
            }
        }
        Ok(())
    });
}

#[test]
fn extremes_are_signed() {
    on_all_sizes(|comm| {
        for length in LENGTHS {
            let (mut least, mut greatest) =
                (values(comm.rank(), length, |v| v as i64), values(comm.rank(), length, |v| (v >> 16) as i32));
            comm.all_reduce_min(&mut least)?;
            comm.all_reduce_max(&mut greatest)?;
            for i in 0..length {
                assert_eq!(Some(least[i]), (0..comm.size()).map(|r| value(r, i) as i64).min());
                assert_eq!(Some(greatest[i]), (0..comm.size()).map(|r| (value(r, i) >> 16) as i32).max());
            }
        }
        Ok(())
    });
}

#[test]
fn a_started_sum_equals_a_plain_one_whatever_happens_meanwhile() {
    on_all_sizes(|comm| {
        for length in LENGTHS {
            let mut plain = values(comm.rank(), length, |v| v);
            let started = comm.start_all_reduce_sum(plain.clone())?;
            let second = comm.start_all_reduce_sum(vec![1u32; 3])?;
            comm.all_reduce_sum(&mut plain)?;
            assert_eq!(second.wait()?, vec![comm.size() as u32; 3]);
            assert_eq!(started.wait()?, plain);
            drop(comm.start_all_reduce_sum(vec![1u32; length])?);
        }
        Ok(())
    });
}

#[test]
fn starting_does_not_wait_for_the_others_and_collecting_may_come_in_any_order() {
    for size in [2, 3, 5] {
        run_threads(size, 1, |comm| {
            let (first, last) = (comm.is_root(), size - 1);
            let counts: Vec<usize> = (0..size).collect();
            let start =
                |i: u64| comm.start_all_reduce_sum((0..101).map(|at| value(comm.rank(), at).wrapping_add(i)).collect());
            if comm.rank() == last {
                comm.recv(&mut [0u8], 0, 1)?; // sent by rank 0 when it has started all
            }
            let mut started: Vec<_> = (0..7).map(start).collect::<Result<_>>()?;
            let part = comm.start_reduce_scatter_sum(vec![5u32; counts.iter().sum()], &counts)?;
            if first {
                comm.send(&[1u8], last, 1)?;
            }
            comm.barrier()?;
            started.remove(5).progress()?; // and dropped
            if comm.rank() % 2 == 1 {
                started.reverse();
            }
            assert_eq!(part.wait()?, vec![5 * size as u32; comm.rank()]);
            let mut sums = started.into_iter().map(Pending::wait).collect::<Result<Vec<_>>>()?;
            if comm.rank() % 2 == 1 {
                sums.reverse();
            }
            for (sum, i) in sums.iter().zip([0, 1, 2, 3, 4, 6]) {
                let expected = (0..size).fold(0, |sum: u64, r| sum.wrapping_add(value(r, 100).wrapping_add(i)));
                assert_eq!(sum[100], expected);
            }
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_started_sum_that_a_rank_never_joins_is_an_error() {
    let [zero, one] = errors_of_two(|comm| comm.start_all_reduce_sum(vec![1u64])?.wait().map(|_| ()), |_| Ok(()));
    assert!(zero.contains("rank 0: all_reduce_sum (started) #2 u64×1 at"), "{zero}");
    assert_eq!(one, "fine");
    let [zero, one] = errors_of_two(
        |comm| {
            let mut started = comm.start_all_reduce_sum(vec![1u64])?;
            loop {
                started.progress()?; // only a look, for ever
            }
        },
        |_| Err(Error::data("torn")),
    );
    assert_eq!((zero.as_str(), one.as_str()), ("stopped because rank 1 failed: torn", "torn"));
    let [zero, one] = errors_of_two(
        |comm| comm.start_all_reduce_sum(vec![1u64])?.wait().map(|_| ()),
        |comm| comm.start_all_reduce_sum(vec![1u64; 2])?.wait().map(|_| ()),
    );
    assert_eq!(zero, one);
    assert!(zero.contains("u64×2"), "{zero}");
}

#[test]
fn a_part_that_was_laid_down_counts_although_its_rank_has_returned() {
    let sums = run_threads(3, 1, |comm| {
        let started = comm.start_all_reduce_sum(vec![comm.rank() as u64 + 1])?;
        if comm.is_root() {
            drop(started);
            return Ok(6);
        }
        started.wait().map(|sums| sums[0])
    });
    assert_eq!(sums.unwrap(), [6, 6, 6]);
}

#[test]
fn reduce_scatter_gives_each_rank_its_uneven_part() {
    on_all_sizes(|comm| {
        for scale in LENGTHS {
            let counts: Vec<usize> = (0..comm.size()).map(|r| scale * ((r + 1) % 3)).collect();
            let send = values(comm.rank(), counts.iter().sum(), |v| v);
            let mut mine = vec![0; counts[comm.rank()]];
            let mut started = comm.start_reduce_scatter_sum(send.clone(), &counts)?;
            comm.reduce_scatter_sum(&send, &counts, &mut mine)?;
            started.progress()?;
            assert_eq!(started.wait()?, mine);
            drop(comm.start_reduce_scatter_sum(send, &counts)?);
            let first: usize = counts[..comm.rank()].iter().sum();
            for (i, &sum) in mine.iter().enumerate() {
                assert_eq!(sum, (0..comm.size()).fold(0u64, |s, r| s.wrapping_add(value(r, first + i))));
            }
        }
        Ok(())
    });
}

#[test]
fn all_to_all_gives_each_rank_its_parts() {
    on_all_sizes(|comm| {
        for scale in LENGTHS {
            let part = |from: usize, to: usize| values(from + 10 * to, scale * ((from + to) % 3), |v| v as u8);
            let parts: Vec<Vec<u8>> = (0..comm.size()).map(|to| part(comm.rank(), to)).collect();
            let received = comm.all_to_all(&parts)?;
            for from in 0..comm.size() {
                assert_eq!(received.of_rank(from), part(from, comm.rank()));
            }
        }
        Ok(())
    });
}

#[test]
fn all_gather_keeps_uneven_parts_apart() {
    on_all_sizes(|comm| {
        for scale in LENGTHS {
            let length = |rank: usize| scale * (rank % 3);
            let all = comm.all_gather(&values(comm.rank(), length(comm.rank()), |v| v as f64))?;
            let bytes = comm.all_gather_bytes(&values(comm.rank(), length(comm.rank()), |v| v as u8))?;
            for rank in 0..comm.size() {
                assert_eq!(all.of_rank(rank), values(rank, length(rank), |v| v as f64));
                assert_eq!(bytes.of_rank(rank), values(rank, length(rank), |v| v as u8));
            }
        }
        Ok(())
    });
}

#[test]
fn broadcast_from_every_root() {
    on_all_sizes(|comm| {
        for root in 0..comm.size() {
            for length in LENGTHS {
                let mut buf = values(comm.rank(), length, |v| v as f32);
                comm.broadcast(&mut buf, root)?;
                assert_eq!(buf, values(root, length, |v| v as f32));
                let mut vec = values(comm.rank(), if comm.rank() == root { length } else { 5 }, |v| v as i32);
                comm.broadcast_vec(&mut vec, root)?;
                assert_eq!(vec, values(root, length, |v| v as i32));
            }
        }
        Ok(())
    });
}

#[test]
fn messages_arrive_in_order_by_tag_and_sending_does_not_wait() {
    on_all_sizes(|comm| {
        let (next, before) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
        for length in LENGTHS {
            comm.send(&values(comm.rank(), length, |v| v), next, 7)?;
            comm.send(&[1.5f64], next, 7)?;
            comm.send(&[2u8], next, MAX_TAG)?;
            let (mut tagged, mut long, mut one) = ([0u8], vec![0u64; length], [0f64]);
            comm.recv(&mut tagged, before, MAX_TAG)?;
            comm.recv(&mut long, before, 7)?;
            comm.recv(&mut one, before, 7)?;
            assert_eq!((tagged, long, one), ([2], values(before, length, |v| v), [1.5]));
        }
        Ok(())
    });
}

#[test]
fn a_message_is_taken_when_it_has_come_and_nobody_waits_for_one_that_has_not() {
    on_all_sizes(|comm| {
        let (next, before) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
        let mut taken = [0u64];
        assert!(!comm.try_recv(&mut taken, before, 3)?, "nothing was sent");
        comm.barrier()?;
        comm.send(&[comm.rank() as u64], next, 3)?;
        comm.barrier()?;
        assert!(!comm.try_recv(&mut taken, before, 4)?, "another tag");
        while !comm.try_recv(&mut taken, before, 3)? {}
        assert_eq!(taken, [before as u64]);
        assert!(!comm.try_recv(&mut taken, before, 3)?, "it was taken");
        Ok(())
    });
    let failed = run_threads(2, 1, |comm| match comm.rank() {
        0 => loop {
            comm.try_recv(&mut [0u8], 1, 0)?;
        },
        _ => Err::<(), Error>(Error::data("torn")),
    });
    assert!(failed.unwrap_err().to_string().contains("torn"), "a rank that polls learns that the other has failed");
}

#[test]
fn a_split_of_a_split_talks_among_itself() {
    on_all_sizes(|comm| {
        let half = comm.split(comm.rank() as u32 % 2)?;
        assert_eq!(half.rank(), comm.rank() / 2);
        let quarter = half.split(half.rank() as u32 % 2 + 5)?;
        let mut ranks = vec![comm.rank() as u64];
        quarter.all_reduce_sum(&mut ranks)?;
        let expected: usize = (0..comm.size()).filter(|r| r % 4 == comm.rank() % 4).sum();
        assert_eq!(ranks[0], expected as u64);
        half.barrier()?;
        comm.barrier()
    });
}

#[test]
fn agree_says_who_failed_to_everyone() {
    for failing in [vec![], vec![1], vec![3, 0], vec![2, 1], vec![0, 1, 2, 3]] {
        let said = run_threads(4, 1, |comm| {
            let local = match failing.contains(&comm.rank()) {
                true if comm.rank() == 2 => Err(Error::usage("words")),
                true => Err(Error::data(format!("disk {}", comm.rank())).at("events.h5")),
                false => Ok(comm.rank()),
            };
            let agreed = comm.agree(local);
            comm.barrier()?; // everyone is still in step
            Ok(agreed)
        })
        .unwrap();
        let Some(&lowest) = failing.iter().min() else {
            assert_eq!(said, (0..4).map(Ok).collect::<Vec<_>>());
            continue;
        };
        for (rank, answer) in said.into_iter().enumerate() {
            let error = answer.unwrap_err();
            let origin = if failing.contains(&rank) { rank } else { lowest };
            let text = if origin == 2 { "words".to_string() } else { format!("events.h5: disk {origin}") };
            assert_eq!((error.rank(), error.to_string(), error.kind()), (Some(origin), text, ErrorKind::Data));
        }
    }
}

#[test]
fn agree_any_is_true_for_all_if_for_one() {
    on_all_sizes(|comm| {
        assert!(comm.agree_any(comm.rank() + 1 == comm.size())?);
        assert!(!comm.agree_any(false)?);
        Ok(())
    });
}

/// The errors of two ranks that run different bodies.
fn errors_of_two(first: fn(&Communicator) -> Result<()>, second: fn(&Communicator) -> Result<()>) -> [String; 2] {
    let said = RefCell::new(Vec::new());
    let results = std::sync::Mutex::new(vec![String::new(); 2]);
    let ran = run_threads(2, 1, |comm| {
        comm.barrier()?;
        let result = if comm.is_root() { first(comm) } else { second(comm) };
        results.lock().unwrap()[comm.rank()] = result.as_ref().map_or_else(Error::to_string, |()| "fine".into());
        result
    });
    said.borrow_mut().push(ran.unwrap_err().to_string());
    let results = results.into_inner().unwrap();
    assert!(results.contains(&said.borrow()[0]), "{said:?} against {results:?}");
    [results[0].clone(), results[1].clone()]
}

#[test]
fn every_kind_of_mismatch_names_both_sites() {
    type Body = fn(&Communicator) -> Result<()>;
    let cases: [(Body, Body, &str); 8] = [
        (|c| c.barrier(), |c| c.all_reduce_sum(&mut [0u64]), "rank 0: barrier #2 at src/comm/tests.rs:"),
        (|c| c.all_reduce_sum(&mut [0u64]), |c| c.all_reduce_sum(&mut [0u32]), "rank 1: all_reduce_sum #2 u32×1 at"),
        (|c| c.all_reduce_sum(&mut [0u64]), |c| c.all_reduce_sum(&mut [0u64; 2]), "u64×2"),
        (|c| c.broadcast(&mut [0f64], 0), |c| c.broadcast(&mut [0f64], 1), "f64×1 root 1"),
        (|c| c.all_reduce_min(&mut [0i64]), |c| c.all_reduce_max(&mut [0i64]), "all_reduce_max #2 i64×1"),
        (|c| c.agree(Ok(())), |c| c.agree_any(true).map(|_| ()), "agree_any #2"),
        (|c| c.split(0).map(|_| ()), |c| c.all_gather(&[0u8]).map(|_| ()), "split #2"),
        (
            |c| c.reduce_scatter_sum(&[1u64; 2], &[1, 1], &mut [0]),
            |c| c.reduce_scatter_sum(&[1u64; 2], &[2, 0], &mut []),
            "reduce_scatter_sum #2 u64×2 counts",
        ),
    ];
    for (first, second, expected) in cases {
        let [zero, one] = errors_of_two(first, second);
        assert_eq!(zero, one);
        assert!(zero.starts_with("the ranks do not make the same call: rank 0:") && zero.contains(expected), "{zero}");
    }
}

#[test]
fn a_different_order_is_found() {
    let [zero, one] = errors_of_two(
        |c| c.barrier().and_then(|()| c.all_reduce_sum(&mut [0u64])),
        |c| c.all_reduce_sum(&mut [0u64]).and_then(|()| c.barrier()),
    );
    assert_eq!(zero, one);
}

#[test]
fn ranks_of_a_mismatch_are_still_in_step() {
    run_threads(3, 1, |comm| {
        let wrong = if comm.is_root() { comm.barrier() } else { comm.all_reduce_sum(&mut [0u64]) };
        assert!(wrong.is_err());
        comm.barrier()
    })
    .unwrap();
}

#[test]
fn waiting_for_a_rank_that_has_returned_is_an_error() {
    let [zero, one] = errors_of_two(|_| Ok(()), |comm| comm.barrier());
    assert_eq!(zero, "fine");
    assert!(one.contains("rank 0: finished (last: barrier #1 at"), "{one}");
    assert!(one.contains("rank 1: barrier #2 at src/comm/tests.rs"), "{one}");
}

#[test]
fn waiting_across_groups_is_an_error() {
    let error = run_threads(4, 1, |comm| {
        let half = comm.split(comm.rank() as u32 / 2)?;
        if comm.rank() == 3 { comm.barrier() } else { half.barrier().and_then(|()| comm.barrier()) }
    })
    .unwrap_err()
    .to_string();
    assert!(error.starts_with("the ranks wait for one another in vain"), "{error}");
    assert!(error.contains("rank 2: barrier #1 in color 1 of split #1 at"), "{error}");
    assert!(error.contains("barrier #2 at"), "{error}");
}

#[test]
fn receiving_what_nobody_sends_is_an_error() {
    let [zero, one] =
        errors_of_two(|comm| comm.recv(&mut [0u8], 1, 4), |comm| comm.recv(&mut [0u8], 0, 4).and(comm.barrier()));
    assert_eq!(zero, one);
    assert!(zero.contains("rank 0: recv #1 u8×1 from rank 1 tag 4 at"), "{zero}");
    assert!(Communicator::solo().recv(&mut [0u8], 0, 4).is_err());
}

#[test]
fn a_message_of_another_length_or_type_is_an_error() {
    let [_, one] = errors_of_two(|comm| comm.send(&[1u8, 2], 1, 0), |comm| comm.recv(&mut [0u8], 0, 0));
    assert_eq!(one, "the message with tag 0 from rank 0 is u8×2, but u8×1 was expected");
    let [_, one] = errors_of_two(|comm| comm.send(&[1u32], 1, 0), |comm| comm.recv(&mut [0f32], 0, 0));
    assert!(one.contains("is u32×1, but f32×1"), "{one}");
}

#[test]
fn a_rank_that_fails_alone_tells_those_who_wait() {
    let heard = std::sync::Mutex::new(Vec::new());
    let error = run_threads(3, 1, |comm| {
        if comm.rank() == 1 {
            return Err(Error::data("checksum failed"));
        }
        let waited = if comm.rank() == 0 { comm.barrier() } else { comm.recv(&mut [0u8], 1, 0) };
        heard.lock().unwrap().push(waited.clone().unwrap_err());
        waited
    })
    .unwrap_err();
    assert_eq!(error, Error::data("checksum failed"));
    for told in heard.into_inner().unwrap() {
        assert_eq!(told.to_string(), "stopped because rank 1 failed: checksum failed");
        assert_eq!((told.rank(), told.kind()), (Some(1), ErrorKind::Data));
    }
}

#[test]
fn a_panic_is_an_internal_error_with_its_words() {
    let error = run_threads(3, 2, |comm| {
        assert!(comm.rank() != 2, "rank {} broke its promise", comm.rank());
        comm.barrier()
    })
    .unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Internal, "panic: rank 2 broke its promise"));
}

#[test]
fn each_rank_has_its_own_pool() {
    let seen = run_threads(3, 2, |comm| {
        let pools = rayon::broadcast(|_| std::thread::current().name().map(String::from));
        comm.barrier()?;
        Ok(pools)
    })
    .unwrap();
    for (rank, pool) in seen.into_iter().enumerate() {
        assert_eq!(pool, [0, 1].map(|thread| Some(format!("rank {rank} thread {thread}"))));
    }
}

#[test]
fn traffic_counts_calls_and_bytes_of_parts_too() {
    run_threads(2, 1, |comm| {
        let part = comm.split(0)?;
        part.all_reduce_sum(&mut [0u64; 10])?;
        comm.all_reduce_max(&mut [0i32; 10])?;
        comm.broadcast(&mut [0u8; 7], 1)?;
        let traffic = comm.traffic();
        let of = |kind: &str| traffic.kinds.iter().find(|(name, _)| *name == kind).unwrap().1;
        assert_eq!((of("all_reduce").calls, of("all_reduce").bytes), (2, 120));
        assert_eq!((of("broadcast").calls, of("broadcast").bytes), (1, 7 * comm.rank() as u64));
        assert_eq!(traffic.total().calls, 4);
        Ok(())
    })
    .unwrap();
}

/// A world of one rank whose library spoils some reductions.
struct Spoiling(fn(SliceMut<'_>, ReduceOp));

impl Transport for Spoiling {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn checks_calls(&self, _call: &Call) -> bool {
        true
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, _buf: SliceMut<'_>, _root: usize) -> Result<()> {
        Ok(())
    }
    fn all_reduce(&self, buf: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        // Short ones are right, as where only a library's vector code is wrong.
        if buf.len() > 8 {
            (self.0)(buf, op);
        }
        Ok(())
    }
    fn reduce_scatter(&self, _send: Slice<'_>, _counts: &[usize], _recv: SliceMut<'_>, _op: ReduceOp) -> Result<()> {
        Err(Error::internal("not needed here"))
    }
    fn all_gather(&self, _send: Slice<'_>, _counts: &[usize], _recv: SliceMut<'_>) -> Result<()> {
        Err(Error::internal("not needed here"))
    }
    fn send(&self, _buf: Slice<'_>, _to: usize, _tag: u32) -> Result<()> {
        Err(Error::internal("not needed here"))
    }
    fn recv(&self, _buf: SliceMut<'_>, _from: usize, _tag: u32) -> Result<()> {
        Err(Error::internal("not needed here"))
    }
    fn has_message(&self, _from: usize, _tag: u32) -> Result<bool> {
        Err(Error::internal("not needed here"))
    }
    fn split(&self, _color: u32) -> Result<Box<dyn Transport>> {
        Err(Error::internal("not needed here"))
    }
    fn abort(&self, code: i32) -> ! {
        panic!("abort with {code}")
    }
    fn library(&self) -> String {
        "Spoiling MPI 1.0".to_string()
    }
}

#[test]
fn a_library_that_gets_one_reduction_wrong_is_refused_by_name() {
    type Spoil = fn(SliceMut<'_>, ReduceOp);
    let ways: [(&str, Spoil); 6] = [
        ("sum of u32", |buf, op| {
            if let (SliceMut::U32(sums), ReduceOp::Sum) = (buf, op) {
                sums.iter_mut().for_each(|sum| *sum = (*sum).min(i32::MAX as u32)); // saturates, as some do
            }
        }),
        ("sum of u64", |buf, op| {
            if let (SliceMut::U64(sums), ReduceOp::Sum) = (buf, op) {
                sums.iter_mut().for_each(|sum| *sum = (*sum).min(i64::MAX as u64));
            }
        }),
        ("min of i32", |buf, op| {
            if let (SliceMut::I32(least), ReduceOp::Min) = (buf, op) {
                *least.last_mut().unwrap() ^= i32::MIN;
            }
        }),
        ("max of i32", |buf, op| {
            if let (SliceMut::I32(greatest), ReduceOp::Max) = (buf, op) {
                *greatest.last_mut().unwrap() ^= i32::MIN;
            }
        }),
        ("min of i64", |buf, op| {
            if let (SliceMut::I64(least), ReduceOp::Min) = (buf, op) {
                *least.last_mut().unwrap() ^= i64::MIN;
            }
        }),
        ("max of i64", |buf, op| {
            if let (SliceMut::I64(greatest), ReduceOp::Max) = (buf, op) {
                *greatest.last_mut().unwrap() ^= i64::MIN;
            }
        }),
    ];
    for (name, spoil) in ways {
        let error = self_test(&Communicator::new(Box::new(Spoiling(spoil)))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Comm);
        let text = error.to_string();
        assert!(text.contains(&format!("gets the {name} wrong")) && text.contains("Spoiling MPI 1.0"), "{text}");
    }
}

#[test]
fn honest_worlds_pass_the_self_test() {
    on_all_sizes(self_test);
}

#[test]
fn a_slice_keeps_its_type_when_it_is_owned() {
    assert_eq!(u32::slice(&[1, 2]).to_owned(), OwnedSlice::U32(vec![1, 2]));
    assert_eq!(f64::from_owned(OwnedSlice::U32(vec![1])), None);
}
