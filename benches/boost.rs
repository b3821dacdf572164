//! The two loops of boosted trees alone: one tree grown, and rows walked through trees.
//!
//! `cargo bench --bench boost`; one JSON line a case, medians. `grow`: {"case","rows","features","threads","seconds"} of a tree of 255
//! leaves; "flags" has 14 features of 255 bins and 40 of two, which share bytes; the records of "file" are in one, in pages of 65,536
//! rows. `walk`: {"case","seconds","plain_seconds","ratio"} for
//! rows through 100 trees on one thread, laid out for it and by the plain walk; the scores are compared.
//! Fair: the same trees and rows. Pairs are drawn, so that leaves are of all sizes, as in the first rounds of a hard problem.

use consort::comm::run_threads;
use consort::config::{BoostConfig, Growth};
use consort::data::TargetKind;
use consort::data::binned::FeatureBins;
use consort::data::memory::MemorySource;
use consort::data::names::TableNames;
use consort::data::scratch::Scratch;
use consort::error::Result;
use consort::grow::{CategoryConfig, ColumnSample, Grower, Pair, PairScale, Records, Run, TreeConfig};
use consort::model::{Lockstep, Scores};
use consort::rng::{Draws, Stream};
use consort::train::boosting::train_source;
use consort::train::{Kind, Reading, Silent, TrainConfig};
use std::time::Instant;

const TREES: usize = 7;

fn main() -> Result<()> {
    let flags = [vec![255; 14], vec![2; 40]].concat();
    let features = vec![255; 28];
    let cases = [
        ("grow", 1_000_000, &features, None),
        ("grow, file", 1_000_000, &features, Some(1 << 16)),
        ("grow, flags", 500_000, &flags, None),
    ];
    for (case, n_rows, bins, page_rows) in cases {
        for threads in [1, 2] {
            let grown = run_threads(1, threads, |comm| grow(comm, table(n_rows, bins, page_rows)?));
            let seconds = grown?.remove(0);
            let features = bins.len();
            println!(
                "{{\"bench\":\"boost\",\"case\":\"{case}\",\"rows\":{n_rows},\"features\":{features},\"threads\":{threads},\"seconds\":{seconds:.4}}}"
            );
        }
    }
    walk()
}

/// * `page_rows`: in a file, of so many rows a page.
fn table(n_rows: usize, bins: &[usize], page_rows: Option<usize>) -> Result<Records> {
    let of = |n: &usize| FeatureBins { uppers: (1..*n).map(|upper| upper as f64).collect(), ..FeatureBins::default() };
    let features: Vec<FeatureBins> = bins.iter().map(of).collect();
    let mut records = match page_rows {
        None => Records::with_room(features, n_rows),
        Some(page_rows) => Records::in_file(features, Scratch::in_folder(None)?, page_rows),
    };
    let draws = Draws::new(1, Stream::Synthetic);
    let runs = vec![1000; n_rows / 1000];
    let fill = |number: usize, run: &mut Run<'_>| {
        for row in 0..1000 {
            for (feature, n) in bins.iter().enumerate() {
                run.put(row, feature, draws.below(*n as u64, (number * 1000 + row) as u64, feature as u64) as usize);
            }
        }
        Ok(())
    };
    records.append(&runs, fill)?;
    Ok(records)
}

fn grow(comm: &consort::comm::Communicator, records: Records) -> Result<f64> {
    let config = TreeConfig {
        growth: Growth::Leaf,
        max_leaves: 255,
        max_depth: None,
        min_rows: 20.0,
        min_hessian: 1e-3,
        l1: 0.0,
        l2: 0.0,
        min_gain: 0.0,
        columns: ColumnSample { tree: 1.0, level: 1.0, node: 1.0, seed: 0 },
        categories: CategoryConfig { smooth: 10.0, l2: 10.0, most: 32, one_hot: 4, group_rows: 100.0 },
        monotone: vec![],
        interactions: vec![],
    };
    let scale = PairScale { gradient: 1.0 / 16_384.0, hessian: 1.0 / 32_768.0, is_wide: false };
    let mut grower = Grower::new(comm, records, &config);
    let mut seconds = Vec::new();
    for tree in 0..TREES as u64 {
        let draws = Draws::new(tree, Stream::Synthetic);
        let began = Instant::now();
        grower.grow(comm, tree, scale, |rows, pairs| {
            for (row, pair) in rows.iter().zip(pairs) {
                let drawn = draws.bits(u64::from(*row), 0);
                *pair = [Pair::new((drawn % 60_000) as i32 - 30_000, (drawn >> 32) as u32 % 8192), Pair::default()];
            }
        })?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok(median(seconds))
}

fn walk() -> Result<()> {
    let (n, d) = (100_000, 28);
    let draws = Draws::new(2, Stream::Synthetic);
    let x: Vec<f64> = (0..n * d).map(|i| draws.normal((i / d) as u64, (i % d) as u64)).collect();
    let y = x.chunks_exact(d).map(|row| f64::from(row[0] * row[1] + row[2] > 0.3)).collect();
    let table = MemorySource::from_f64(x.clone(), d)?.with_target(y, TargetKind::Integer)?;
    let boost = BoostConfig { rounds: 100, max_leaves: 255, ..BoostConfig::default() };
    let config = TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) }.resolved()?;
    let (model, _) = run_threads(1, 2, |comm| {
        let (mut source, names, reading) = (table.clone(), TableNames::default(), Reading::default());
        train_source(comm, &mut source, &names, &config, &reading, None, &mut Silent)
    })?
    .remove(0);
    let Scores::Boosted(boosted) = &model.scores else { unreachable!("boosting makes trees") };
    let (mut plain, mut found) = (vec![0.0; n], vec![0.0; n]);
    let (mut plain_seconds, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..TREES {
        let began = Instant::now();
        boosted.scores(&x, &mut plain);
        plain_seconds.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        Lockstep::new(boosted).scores(&x, &mut found);
        seconds.push(began.elapsed().as_secs_f64());
    }
    assert!(plain.iter().zip(&found).all(|(one, other)| one.to_bits() == other.to_bits()), "other bits");
    let (plain, laid_out) = (median(plain_seconds), median(seconds));
    println!(
        "{{\"bench\":\"boost\",\"case\":\"walk\",\"seconds\":{laid_out:.4},\"plain_seconds\":{plain:.4},\"ratio\":{:.3}}}",
        laid_out / plain
    );
    Ok(())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
