//! Our all-reduce against bare `MPI_Allreduce`, in the same run: one JSON line per length.
//!
//! `mpirun -n 2 $(cargo bench --bench comm --no-run 2>&1 | …path…)`; started plainly: a world of one.
//! Fair: same library, same ranks, u32 sums, best of five rounds, alternating. Ours includes the check
//! that all ranks make the same call (one more small all-reduce) and the copy into the scratch that
//! replaces the in-place form; the bare call has its result in a second buffer.

use std::process::ExitCode;
use std::time::Instant;

use consort::comm::{Communicator, World, bare_all_reduce_u32, run_world};
use consort::error::Result;

/// Bytes, and calls per round.
const CASES: [(usize, u32); 4] = [(4, 2000), (4 << 10, 1000), (1 << 20, 40), (64 << 20, 2)];

fn main() -> ExitCode {
    ExitCode::from(run_world(World::Mpi, 1, measure) as u8)
}

fn measure(comm: &Communicator) -> Result<i32> {
    if comm.is_root() {
        println!("{} | node {} | {} ranks × 1 thread", comm.library(), comm.node_name(), comm.size());
    }
    for (bytes, calls) in CASES {
        let mut ours = vec![1u32; bytes / 4];
        let (send, mut recv) = (vec![1u32; bytes / 4], vec![0u32; bytes / 4]);
        let (mut best_ours, mut best_bare) = (f64::INFINITY, f64::INFINITY);
        comm.all_reduce_sum(&mut ours)?;
        bare_all_reduce_u32(&send, &mut recv);
        assert_eq!(ours, recv, "equal before it is fast");
        for _ in 0..5 {
            comm.barrier()?;
            let since = Instant::now();
            for _ in 0..calls {
                comm.all_reduce_sum(&mut ours)?;
            }
            best_ours = best_ours.min(since.elapsed().as_secs_f64() / f64::from(calls));
            comm.barrier()?;
            let since = Instant::now();
            for _ in 0..calls {
                bare_all_reduce_u32(&send, &mut recv);
            }
            best_bare = best_bare.min(since.elapsed().as_secs_f64() / f64::from(calls));
        }
        if comm.is_root() {
            println!(
                "{{\"bench\":\"all_reduce\",\"ranks\":{},\"bytes\":{bytes},\"ours_us\":{:.2},\"bare_us\":{:.2},\
                 \"ours_gb_s\":{:.3},\"bare_gb_s\":{:.3}}}",
                comm.size(),
                best_ours * 1e6,
                best_bare * 1e6,
                bytes as f64 / best_ours / 1e9,
                bytes as f64 / best_bare / 1e9
            );
        }
    }
    Ok(0)
}
