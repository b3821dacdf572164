//! How much of the time that gradients are on their way is hidden behind the way back: networks on two ranks of a thread world, with a
//! network between them that takes seconds_per_byte and does not use the processor.
//!
//! `cargo bench --bench overlap`; one JSON line a case: {"bench","case","ranks","steps","bytes_step","share_of_step","injected_ms_step",
//! "hidden","least","most"}. hidden = 1 − (time that ranks stood still until the network had carried what they wait for) / (time that it carried),
//! of all collectives of the training, the first epoch's and those of the beginning and end included; median, least and most of five runs.
//! It is not the difference of two epochs' seconds, which on a busy machine says more of the machine than of the network.
//! `bytes_step`: of a step's sums, as each rank gives them; a ring would send 2(p − 1)/p of them from each rank. `share_of_step`: what they take,
//! of what a step takes without.
//! Fair: the bits are compared with those without delay, and there is one message at a time on the wire. Unfair to us: the peaks of a step wait
//! for all sums, as the decision has to.

use consort::comm::{Communicator, Delay, LineTime, run_threads, run_threads_timed};
use consort::config::{Kind, MlpConfig, Schedule, Solver, TrainConfig};
use consort::data::names::{Reading, TableNames};
use consort::data::synthetic;
use consort::error::Result;
use consort::train::{Silent, linear_family::train_source};
use std::time::Duration;

const ROWS: usize = 8192;
const FEATURES: usize = 784;
const RUNS: usize = 5;

fn main() {
    // What is on its way in a step, as a share of what a step takes without.
    for (layers, batch) in [(vec![512, 512], 256), (vec![2048, 2048], 1024)] {
        for share in [0.1, 0.25, 0.4] {
            measure(&layers, batch, share);
        }
    }
}

fn measure(layers: &[u64], batch: u64, share: f64) {
    let config = TrainConfig {
        solver: Solver::Sgd,
        schedule: Schedule::Constant,
        learning_rate: Some(0.01),
        global_batch: batch,
        lanes: Some(2),
        epochs: Some(2),
        tolerance: 0.0,
        mlp: Some(MlpConfig { layers: layers.to_vec(), ..MlpConfig::default() }),
        ..TrainConfig::of(Kind::Mlp)
    };
    let config = config.resolved().expect("settings that fit");
    let steps = ROWS as f64 / batch as f64;
    let mut width = FEATURES as u64;
    let mut n_params = 0;
    for units in layers.iter().chain(&[10]) {
        n_params += (width + 1) * units;
        width = *units;
    }
    let bytes = 4.0 * n_params as f64;
    let train = |comm: &Communicator| -> Result<(f64, String)> {
        let mut source = synthetic::mixture(ROWS, FEATURES, 10, 3)?;
        let (model, report) =
            train_source(comm, &mut source, &TableNames::default(), &config, &Reading::default(), &mut Silent)?;
        Ok((report.epoch_s, model.digest))
    };
    let (plain, digest) = run_threads(2, 1, train).expect("training").swap_remove(0);
    let seconds = share * plain / steps;
    let delay = Delay { latency: Duration::ZERO, seconds_per_byte: seconds / bytes };
    let hidden_of = |_| {
        let (of_ranks, times) = run_threads_timed(2, 1, delay, train).expect("training");
        assert!(of_ranks.iter().all(|(_, delayed)| *delayed == digest), "the same bits before it is timed");
        let of_all = |time: fn(&LineTime) -> Duration| times.iter().map(time).sum::<Duration>().as_secs_f64();
        1.0 - of_all(|time| time.waited) / of_all(|time| time.carried)
    };
    let mut hidden: Vec<f64> = (0..RUNS).map(hidden_of).collect();
    hidden.sort_by(f64::total_cmp);
    let case = layers.iter().map(u64::to_string).collect::<Vec<_>>().join("-");
    println!(
        "{{\"bench\":\"overlap\",\"case\":\"{FEATURES}-{case}-10, batch {batch}\",\"ranks\":2,\"steps\":{steps},\"bytes_step\":{bytes},\"share_of_step\":{share},\"injected_ms_step\":{:.3},\"hidden\":{:.3},\"least\":{:.3},\"most\":{:.3}}}",
        seconds * 1e3,
        hidden[RUNS / 2],
        hidden[0],
        hidden[RUNS - 1]
    );
}
