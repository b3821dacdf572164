//! How much of the time that gradients are on their way is hidden behind the way back: networks on two ranks of a thread world, with a
//! network between them that takes seconds_per_byte and does not use the processor.
//!
//! `cargo bench --bench overlap`; one JSON line a case: {"bench","case","ranks","steps","bytes_step","injected_ms_step","plain_ms_step",
//! "delayed_ms_step","hidden"}, medians of alternating runs; hidden = 1 − (delayed − plain)/injected.
//! `bytes_step`: of a step's sums, as each rank gives them; a ring would send 2(p − 1)/p of them from each rank.
//! Fair: the same training, bits and processors with and without the delay, and one message at a time on the wire. Unfair to the delayed
//! one: the peaks of a step wait for all sums, as the decision has to.

use consort::comm::{Communicator, Delay, run_threads, run_threads_delayed};
use consort::config::{Kind, MlpConfig, Schedule, Solver, TrainConfig};
use consort::data::names::{Reading, TableNames};
use consort::data::synthetic;
use consort::error::Result;
use consort::train::{Silent, linear_family::train_source};
use std::time::Duration;

const ROWS: usize = 8192;
const FEATURES: usize = 784;

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
    let slowest = |of_ranks: Vec<(f64, String)>| {
        let digest = of_ranks[0].1.clone();
        (of_ranks.into_iter().fold(0.0, |most: f64, (seconds, _)| if seconds > most { seconds } else { most }), digest)
    };
    let plain = || slowest(run_threads(2, 1, train).expect("training"));
    let (first, digest) = plain();
    let seconds = share * first / steps;
    let delay = Delay { latency: Duration::ZERO, seconds_per_byte: seconds / bytes };
    let (mut of_plain, mut of_delayed) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        of_plain.push(plain().0);
        let (seconds, delayed) = slowest(run_threads_delayed(2, 1, delay, train).expect("training"));
        assert_eq!(digest, delayed, "the same bits before it is timed");
        of_delayed.push(seconds);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] / steps * 1e3
    };
    let (plain, delayed, injected) = (median(&mut of_plain), median(&mut of_delayed), seconds * 1e3);
    let case = layers.iter().map(u64::to_string).collect::<Vec<_>>().join("-");
    println!(
        "{{\"bench\":\"overlap\",\"case\":\"{FEATURES}-{case}-10, batch {batch}\",\"ranks\":2,\"steps\":{steps},\"bytes_step\":{bytes},\"injected_ms_step\":{injected:.3},\"plain_ms_step\":{plain:.3},\"delayed_ms_step\":{delayed:.3},\"hidden\":{:.3}}}",
        1.0 - (delayed - plain) / injected
    );
}
