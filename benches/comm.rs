//! Our all-reduce against bare `MPI_Allreduce`, in the same run: one JSON line per length.
//!
//! `mpirun -n 2 $(cargo bench --bench comm --no-run 2>&1 | …path…)`; started plainly: a world of one. On several nodes with several
//! ranks each, long sums of ours go node first; `--bytes N` measures that
//! length only, `--rounds N` so many times.
//! Fair: same library, same ranks, u32 sums, best of five rounds, alternating. Ours includes the check
//! that all ranks make the same call (one more small all-reduce) and the copy into the scratch that
//! replaces the in-place form; the bare call has its result in a second buffer. `started`: four sums of a quarter each, all started
//! before the first is waited for, with a copy of each into a buffer of its own.

use std::process::ExitCode;
use std::time::Instant;

use consort::comm::{Communicator, World, bare_all_reduce_u32, run_world};
use consort::error::Result;

/// Bytes, and calls per round.
const CASES: [(usize, u32); 7] =
    [(4, 2000), (4 << 10, 1000), (64 << 10, 200), (256 << 10, 100), (1 << 20, 40), (8 << 20, 6), (64 << 20, 2)];

fn main() -> ExitCode {
    ExitCode::from(run_world(World::Mpi, 1, measure) as u8)
}

/// Seconds a call of the best of the rounds.
struct Best(f64);

impl Best {
    fn time(&mut self, comm: &Communicator, calls: u32, mut call: impl FnMut() -> Result<()>) -> Result<()> {
        comm.barrier()?;
        let since = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        self.0 = self.0.min(since.elapsed().as_secs_f64() / f64::from(calls));
        Ok(())
    }
}

fn measure(comm: &Communicator) -> Result<i32> {
    let words: Vec<String> = std::env::args().collect();
    let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1)?.parse().ok());
    let (only, rounds): (Option<usize>, Option<usize>) = (after("--bytes"), after("--rounds"));
    if comm.is_root() {
        println!("{} | node {} | {} ranks × 1 thread", comm.library(), comm.node_name(), comm.size());
    }
    for (bytes, calls) in CASES.into_iter().filter(|(bytes, _)| only.is_none_or(|only| only == *bytes)) {
        let mut ours = vec![1u32; bytes / 4];
        let (send, mut recv) = (vec![1u32; bytes / 4], vec![0u32; bytes / 4]);
        let [mut best_ours, mut best_bare, mut best_started] = [const { Best(f64::INFINITY) }; 3];
        comm.all_reduce_sum(&mut ours)?;
        bare_all_reduce_u32(&send, &mut recv);
        assert_eq!(ours, recv, "equal before it is fast");
        for _ in 0..rounds.unwrap_or(5) {
            best_ours.time(comm, calls, || comm.all_reduce_sum(&mut ours))?;
            best_bare.time(comm, calls, || {
                bare_all_reduce_u32(&send, &mut recv);
                Ok(())
            })?;
            best_started.time(comm, calls, || {
                let quarters = send.chunks(send.len().div_ceil(4));
                let started: Vec<_> =
                    quarters.map(|quarter| comm.start_all_reduce_sum(quarter.to_vec())).collect::<Result<_>>()?;
                started.into_iter().try_for_each(|pending| pending.wait().map(|_| ()))
            })?;
        }
        if comm.is_root() {
            println!(
                "{{\"bench\":\"all_reduce\",\"ranks\":{},\"bytes\":{bytes},\"ours_us\":{:.2},\"bare_us\":{:.2},\
                 \"started_us\":{:.2},\"ours_gb_s\":{:.3},\"bare_gb_s\":{:.3}}}",
                comm.size(),
                best_ours.0 * 1e6,
                best_bare.0 * 1e6,
                best_started.0 * 1e6,
                bytes as f64 / best_ours.0 / 1e9,
                bytes as f64 / best_bare.0 / 1e9
            );
        }
    }
    Ok(0)
}
