//! Conversations that must go the same way in every world: threads, Open MPI, MPICH.

use consort::comm::{Communicator, self_test};
use consort::error::{Error, Result};

pub type Case = (&'static str, fn(&Communicator) -> Result<()>);

pub const CASES: &[Case] = &[
    ("sums wrap across segments", sums_wrap_across_segments),
    ("awkward lengths", awkward_lengths),
    ("extremes are signed", extremes_are_signed),
    ("started sums overlap with other collectives", started_sums),
    ("started sums in any order", started_sums_in_any_order),
    ("reduce-scatter with uneven parts across segments", uneven_reduce_scatter),
    ("all-gather with uneven parts", uneven_all_gather),
    ("all-gather beyond one message", long_all_gather),
    ("all-to-all with uneven parts beyond one message", uneven_all_to_all),
    ("broadcast from every root", broadcasts),
    ("messages keep their order", messages),
    ("messages are polled", polled_messages),
    ("a message that does not fit", message_that_does_not_fit),
    ("split of a split", split_of_a_split),
    ("mismatches are named and the ranks stay in step", mismatches),
    ("agree names the lowest failing rank", agreement),
    ("the operators are honest", self_test),
];

/// An error unless `right`.
fn ensure(right: bool, what: impl Fn() -> String) -> Result<()> {
    if right { Ok(()) } else { Err(Error::internal(what())) }
}

fn value(rank: usize, i: usize) -> u64 {
    ((rank as u64 + 1) << 62).wrapping_mul(i as u64 + 3) ^ (rank as u64 * 7919 + i as u64)
}

fn sum(size: usize, i: usize) -> u64 {
    (0..size).fold(0, |sum, rank| sum.wrapping_add(value(rank, i)))
}

fn values(rank: usize, length: usize) -> Vec<u64> {
    (0..length).map(|i| value(rank, i)).collect()
}

fn sums_wrap_across_segments(comm: &Communicator) -> Result<()> {
    const LENGTH: usize = 3_000_001;
    let mut buf = values(comm.rank(), LENGTH);
    comm.all_reduce_sum(&mut buf)?;
    let wrong = (0..LENGTH).find(|&i| buf[i] != sum(comm.size(), i));
    ensure(wrong.is_none(), || format!("place {wrong:?} of {LENGTH}"))
}

fn awkward_lengths(comm: &Communicator) -> Result<()> {
    for length in [0, 1, 1009] {
        let mut wide = values(comm.rank(), length);
        let mut narrow: Vec<u32> = wide.iter().map(|&v| v as u32).collect();
        comm.all_reduce_sum(&mut wide)?;
        comm.all_reduce_sum(&mut narrow)?;
        let right = (0..length).all(|i| wide[i] == sum(comm.size(), i) && narrow[i] == wide[i] as u32);
        comm.agree(ensure(right, || format!("length {length}")))?;
        comm.broadcast(&mut wide, 0)?;
        let mut all = wide.clone();
        comm.broadcast_vec(&mut all, comm.size() - 1)?;
        comm.agree(ensure(all == wide, || format!("broadcast of length {length}")))?;
    }
    Ok(())
}

fn extremes_are_signed(comm: &Communicator) -> Result<()> {
    let mine: Vec<i64> = values(comm.rank(), 1009).iter().map(|&v| v as i64).collect();
    let (mut least, mut greatest) = (mine.clone(), mine.iter().map(|&v| (v >> 32) as i32).collect::<Vec<_>>());
    comm.all_reduce_min(&mut least)?;
    comm.all_reduce_max(&mut greatest)?;
    let all = |i: usize| (0..comm.size()).map(move |rank| value(rank, i) as i64);
    let right =
        |i: usize| Some(least[i]) == all(i).min() && Some(greatest[i]) == all(i).map(|v| (v >> 32) as i32).max();
    ensure((0..1009).all(right), || "an extreme is wrong".into())
}

fn started_sums(comm: &Communicator) -> Result<()> {
    const LENGTH: usize = 1_200_007;
    let long = comm.start_all_reduce_sum(values(comm.rank(), LENGTH))?;
    let short = comm.start_all_reduce_sum(vec![u32::MAX; 5])?;
    let forgotten = comm.start_all_reduce_sum(vec![1u64; 1009])?;
    let empty = comm.start_all_reduce_sum(Vec::<u64>::new())?;
    let mut between = [1u64];
    comm.all_reduce_sum(&mut between)?;
    drop(forgotten);
    let short = short.wait()?;
    let long = long.wait()?;
    let size = comm.size();
    let right = between == [size as u64]
        && empty.wait()?.is_empty()
        && short == vec![u32::MAX.wrapping_mul(size as u32); 5]
        && (0..LENGTH).all(|i| long[i] == sum(size, i));
    ensure(right, || "a started sum is wrong".into())
}

/// Long enough to go by node where there are several, each in parts; every rank waits in an order of its own.
fn started_sums_in_any_order(comm: &Communicator) -> Result<()> {
    const LENGTHS: [usize; 6] = [700_001, 1009, 17_000, 1_200_007, 40_009, 33_000];
    let (rank, size) = (comm.rank(), comm.size());
    let mut started = Vec::new();
    for length in LENGTHS {
        started.push((comm.start_all_reduce_sum(values(rank, length))?, length));
        comm.agree(Ok(()))?;
    }
    let counts = vec![1009; size];
    let part = comm.start_reduce_scatter_sum(values(rank, 1009 * size), &counts)?;
    let mut plain = values(rank, 90_001);
    if rank % 3 == 1 {
        started.iter_mut().try_for_each(|(pending, _)| pending.progress())?;
    }
    comm.all_reduce_sum(&mut plain)?;
    started.rotate_left(rank % LENGTHS.len());
    let mut right = (0..90_001).all(|i| plain[i] == sum(size, i));
    if rank == 0 && size > 1 {
        comm.recv(&mut [0u8], size - 1, 5)?; // that one has all its sums when it sends
    }
    for (pending, length) in started {
        let sums = pending.wait()?;
        right &= sums.len() == length && (0..length).all(|i| sums[i] == sum(size, i));
    }
    let part = part.wait()?;
    right &= (0..1009).all(|i| part[i] == sum(size, 1009 * rank + i));
    if rank == size - 1 && size > 1 {
        comm.send(&[1u8], 0, 5)?;
    }
    ensure(right, || "a sum is wrong".into())
}

fn uneven_reduce_scatter(comm: &Communicator) -> Result<()> {
    for scale in [0, 1, 1009, 400_009] {
        let counts: Vec<usize> = (0..comm.size()).map(|rank| scale * ((rank + 1) % 3)).collect();
        let send = values(comm.rank(), counts.iter().sum());
        let mut mine = vec![0; counts[comm.rank()]];
        comm.reduce_scatter_sum(&send, &counts, &mut mine)?;
        let first: usize = counts[..comm.rank()].iter().sum();
        let wrong = (0..mine.len()).find(|&i| mine[i] != sum(comm.size(), first + i));
        comm.agree(ensure(wrong.is_none(), || format!("scale {scale}: place {wrong:?}")))?;
    }
    Ok(())
}

fn uneven_all_gather(comm: &Communicator) -> Result<()> {
    for scale in [0, 1, 1009] {
        let length = |rank: usize| scale * (rank % 3);
        let all = comm.all_gather(&values(comm.rank(), length(comm.rank())))?;
        let right = (0..comm.size()).all(|rank| all.of_rank(rank) == values(rank, length(rank)));
        comm.agree(ensure(right, || format!("scale {scale}")))?;
    }
    Ok(())
}

/// More than 64 MiB in all: several rounds.
fn long_all_gather(comm: &Communicator) -> Result<()> {
    let length = |rank: usize| 9_000_000 / comm.size() + rank * 1009;
    let all = comm.all_gather(&values(comm.rank(), length(comm.rank())))?;
    let right = (0..comm.size()).all(|rank| all.of_rank(rank) == values(rank, length(rank)));
    ensure(right, || "a part is wrong".into())
}

fn uneven_all_to_all(comm: &Communicator) -> Result<()> {
    for scale in [0, 1, 1009, 900_001] {
        let part = |from: usize, to: usize| values(from, scale * ((from + 2 * to) % 3));
        let parts: Vec<Vec<u64>> = (0..comm.size()).map(|to| part(comm.rank(), to)).collect();
        let received = comm.all_to_all(&parts)?;
        let right = (0..comm.size()).all(|from| received.of_rank(from) == part(from, comm.rank()));
        comm.agree(ensure(right, || format!("scale {scale}")))?;
    }
    Ok(())
}

fn broadcasts(comm: &Communicator) -> Result<()> {
    for root in 0..comm.size() {
        let mut floats: Vec<f64> = values(comm.rank(), 1009).iter().map(|&v| v as f64).collect();
        comm.broadcast(&mut floats, root)?;
        let expected: Vec<f64> = values(root, 1009).iter().map(|&v| v as f64).collect();
        let mut words = if comm.rank() == root { vec![1u8, 2, root as u8] } else { vec![0; comm.rank()] };
        comm.broadcast_vec(&mut words, root)?;
        comm.agree(ensure(floats == expected && words == [1, 2, root as u8], || format!("root {root}")))?;
    }
    Ok(())
}

fn messages(comm: &Communicator) -> Result<()> {
    let (next, before) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
    for length in [0, 1, 1009, 300_007] {
        comm.send(&values(comm.rank(), length), next, 7)?;
        comm.send(&[1.5f32], next, 7)?;
        comm.send(&[2u8], next, 8)?;
        let (mut tagged, mut long, mut one) = ([0u8], vec![0u64; length], [0f32]);
        comm.recv(&mut tagged, before, 8)?;
        comm.recv(&mut long, before, 7)?;
        comm.recv(&mut one, before, 7)?;
        let right = tagged == [2] && one == [1.5] && long == values(before, length);
        comm.agree(ensure(right, || format!("length {length}")))?;
    }
    Ok(())
}

fn polled_messages(comm: &Communicator) -> Result<()> {
    let (next, before) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
    let mut taken = [0u64];
    let none = comm.try_recv(&mut taken, before, 5)?;
    comm.barrier()?;
    comm.send(&[comm.rank() as u64], next, 5)?;
    while !comm.try_recv(&mut taken, before, 5)? {}
    let again = comm.try_recv(&mut taken, before, 5)?;
    ensure(!none && !again && taken == [before as u64], || format!("polled: {none}, {taken:?}, {again}"))
}

fn message_that_does_not_fit(comm: &Communicator) -> Result<()> {
    let (next, before) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
    comm.send(&[1u32, 2], next, 1)?;
    comm.send(&[3u8], next, 1)?;
    let (mut long, mut after) = ([0u64], [0u8]);
    let refused = comm.recv(&mut long, before, 1);
    comm.recv(&mut after, before, 1)?;
    let right = refused.is_err_and(|e| e.to_string().contains("is u32×2, but u64×1 was expected")) && after == [3];
    ensure(right, || "the message was taken".into())
}

fn split_of_a_split(comm: &Communicator) -> Result<()> {
    let half = comm.split(comm.rank() as u32 % 2)?;
    let quarter = half.split(half.rank() as u32 % 2)?;
    let mut ranks = [comm.rank() as u64];
    quarter.all_reduce_sum(&mut ranks)?;
    let expected: usize = (0..comm.size()).filter(|rank| rank % 4 == comm.rank() % 4).sum();
    drop(half);
    ensure(ranks[0] == expected as u64 && quarter.size() == (comm.size() - comm.rank() % 4).div_ceil(4), || {
        format!("sum {} instead of {expected}", ranks[0])
    })
}

fn mismatches(comm: &Communicator) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let odd = comm.rank() + 1 == comm.size();
    let (sum, mut numbers) = ([0u64], [0i64; 3]);
    let errors = [
        if odd { comm.barrier() } else { comm.all_reduce_sum(&mut sum.clone()) },
        if odd { comm.all_reduce_max(&mut numbers[..2]) } else { comm.all_reduce_max(&mut numbers) },
        if odd { comm.all_reduce_sum(&mut [0u32]) } else { comm.all_reduce_sum(&mut sum.clone()) },
        comm.broadcast(&mut numbers, usize::from(odd)),
        if odd { comm.agree(Ok(())) } else { comm.barrier() },
    ];
    let expected = ["barrier #", "i64×2", "u32×1", "root 1", "agree #"];
    for (result, expected) in errors.into_iter().zip(expected) {
        let text = result.map_or_else(|e| e.to_string(), |()| "nobody noticed".to_string());
        let right = text.starts_with("the ranks do not make the same call: rank")
            && text.contains(expected)
            && text.contains("tests/cases/mod.rs:")
            && text.contains(&format!("rank {}: ", comm.size() - 1));
        comm.agree(ensure(right, || format!("{expected}: {text}")))?;
        let mut everybody = text.clone().into_bytes();
        comm.broadcast_vec(&mut everybody, 0)?;
        comm.agree(ensure(everybody == text.as_bytes(), || "the ranks were told different things".into()))?;
    }
    Ok(())
}

fn agreement(comm: &Communicator) -> Result<()> {
    let (rank, size) = (comm.rank(), comm.size());
    for failing in [vec![], vec![size - 1], vec![0, size - 1], (0..size).collect()] {
        let local = if failing.contains(&rank) { Err(Error::data(format!("disk {rank}"))) } else { Ok(rank) };
        let agreed = comm.agree(local);
        let expected = failing.iter().min().map(|&lowest| if failing.contains(&rank) { rank } else { lowest });
        let right = match (&agreed, expected) {
            (Ok(value), None) => *value == rank,
            (Err(e), Some(origin)) => e.rank() == Some(origin) && e.to_string() == format!("disk {origin}"),
            _ => false,
        };
        comm.agree(ensure(right, || format!("{failing:?}: {agreed:?}")))?;
        let any = comm.agree_any(failing.contains(&rank))?;
        comm.agree(ensure(any != failing.is_empty(), || format!("{failing:?}: any is {any}")))?;
    }
    Ok(())
}
