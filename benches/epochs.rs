//! What exact sums cost in a whole epoch: each kind of solver's pass over the rows against a twin that adds floats.
//!
//! `cargo bench --bench epochs`; one JSON line a case: {"bench","case","rows","features","threads","exact_ms","plain_ms",
//! "ratio"}: medians of alternating runs. The sums that all solvers are made of: value and gradient (lbfgs, newton's line
//! search), the Hessian (newton), the normal equations (cholesky, cd), mini-batch steps (sgd, adam). QR adds nothing
//! across blocks.
//! Fair: both twins use the same kernels on the same blocks and threads, and agree before they are timed. Unfair to the
//! exact ones: the twins do not notice an overflow, know no zero weights, and have bits that depend on the threads.

use consort::comm::Communicator;
use consort::config::{Kind, Solver, TrainConfig};
use consort::data::partition::RowPlan;
use consort::model::Features;
use consort::model::linear::{LinearModel, Rows, add_gradient};
use consort::objective::{Logistic, Objective, Softmax};
use consort::optim::{Optimizer, Sgd};
use consort::rng::{Draws, Stream};
use consort::train::checkpoint::Session;
use consort::train::full_batch::FullBatch;
use consort::train::order::{EpochOrder, PoolShape};
use consort::train::outer::{CHUNK, OuterProducts};
use consort::train::second_order::{hessian, normal_equations};
use consort::train::table::{LocalRows, RowBuffer, Table};
use consort::train::{Silent, data_parallel};
use rayon::prelude::*;
use std::time::Instant;

fn main() {
    for (rows, features, classes) in [(400_000, 28, 2), (100_000, 200, 2), (20_000, 784, 10)] {
        gradient(&table(rows, features, classes, None), classes);
        mini_batch(&table(rows, features, classes, Some(8)), classes);
    }
    for (rows, features) in [(400_000, 28), (50_000, 200)] {
        second_order(&table(rows, features, 2, None));
    }
}

/// Standard normal features and classes that depend on them; every row weighs 1.
fn table(n_rows: usize, n_features: usize, n_classes: usize, lanes: Option<u64>) -> Table<'static> {
    let draws = Draws::new(1, Stream::Synthetic);
    let n = n_rows as u64;
    let x: Vec<f32> = (0..n_rows * n_features).into_par_iter().map(|i| draws.normal(i as u64, 0) as f32).collect();
    let class = |row: &[f32]| ((f64::from(row[0]) + 2.0) / 4.0 * n_classes as f64).clamp(0.0, n_classes as f64 - 1.0);
    let y = x.chunks_exact(n_features).map(|row| class(row).floor()).collect();
    let plan = match lanes {
        Some(lanes) => RowPlan::lanes(n, n_features, lanes),
        None => RowPlan::full_batch(n, n_features),
    };
    Table {
        units: 0..plan.n_units(),
        plan,
        first_row: 0,
        n_features,
        rows: LocalRows::Memory(RowBuffer {
            n_features,
            x: Features::Dense(x),
            y,
            weight: vec![1.0; n_rows],
            ..RowBuffer::default()
        }),
        total_weight: n_rows as f64,
        peak: vec![8.0; n_features],
    }
}

fn rows_of<'a>(table: &'a Table<'_>) -> Rows<'a> {
    table.in_memory().expect("in memory").rows()
}

fn objective(n_classes: usize) -> Box<dyn Objective> {
    if n_classes == 2 { Box::new(Logistic) } else { Box::new(Softmax { n_classes }) }
}

/// Medians of alternating runs, milliseconds.
fn report(case: &str, table: &Table<'_>, mut exact: impl FnMut() -> f64, mut plain: impl FnMut() -> f64) {
    let (mut of_exact, mut of_plain) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        of_exact.push(exact());
        of_plain.push(plain());
    }
    let median = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2] * 1e3
    };
    let (exact, plain) = (median(&mut of_exact), median(&mut of_plain));
    println!(
        "{{\"bench\":\"epochs\",\"case\":\"{case}\",\"rows\":{},\"features\":{},\"threads\":{},\"exact_ms\":{exact:.3},\"plain_ms\":{plain:.3},\"ratio\":{:.3}}}",
        table.plan.n_rows(),
        table.n_features,
        rayon::current_num_threads(),
        exact / plain
    );
}

fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

fn assert_close(exact: &[f64], plain: &[f64], scale: f64) {
    for (exact, plain) in exact.iter().zip(plain) {
        assert!((exact - plain).abs() <= 1e-9 * scale, "{exact} and {plain}");
    }
}

/// Float sums of what every block gives, added as threads finish.
fn plain_sum(table: &Table<'_>, len: usize, block: impl Fn(std::ops::Range<usize>, &mut [f64]) + Sync) -> Vec<f64> {
    let add = |mut a: Vec<f64>, b: Vec<f64>| {
        a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
        a
    };
    let of_block = |rows| {
        let mut sums = vec![0.0; len];
        block(rows, &mut sums);
        sums
    };
    table.blocks().into_par_iter().map(of_block).reduce(|| vec![0.0; len], add)
}

fn gradient(table: &Table<'_>, n_classes: usize) {
    let comm = Communicator::solo();
    let objective = objective(n_classes);
    let problem = FullBatch::new(&comm, table, objective.as_ref(), 0.0);
    let n = problem.n_params();
    let params: Vec<f64> = (0..n).map(|j| 0.01 * (j % 7) as f64).collect();
    let plain = || {
        let mut sums = plain_sum(table, n + 1, |rows, sums| {
            let (grad, loss) = sums.split_at_mut(n);
            let mut work = LinearModel::work(objective.n_scores());
            loss[0] = add_gradient(&rows_of(table), rows, &params, objective.as_ref(), &mut work, grad);
        });
        sums.iter_mut().for_each(|sum| *sum /= table.total_weight);
        sums
    };
    let (_, exact) = problem.evaluate(&params).unwrap().unwrap();
    assert_close(&exact, &plain()[..n], 1.0);
    report(
        &format!("value and gradient, {}", objective.name()),
        table,
        || seconds(|| drop(problem.evaluate(&params))),
        || seconds(|| drop(plain())),
    );
}

fn second_order(table: &Table<'_>) {
    let comm = Communicator::solo();
    let (d, n) = (table.n_features, table.n_features + 1);
    let params: Vec<f64> = (0..n).map(|j| 0.01 * (j % 7) as f64).collect();
    let model = LinearModel { n_features: d, n_scores: 1, params: params.clone() };
    let of_rows = |width: usize,
                   tail: &(dyn Fn(usize) -> Vec<f64> + Sync),
                   factors: &(dyn Fn(std::ops::Range<usize>) -> Vec<f64> + Sync)| {
        plain_sum(table, width * (width + 1) / 2, |rows, sums| {
            let mut outer = OuterProducts::new(width, 1);
            let mut lower = Vec::new();
            for first in rows.clone().step_by(CHUNK) {
                let last = (first + CHUNK).min(rows.end);
                outer.start_chunk();
                (first..last).for_each(|row| outer.push_row(rows_of(table).row(row), &tail(row)));
                outer.add_chunk(0, &factors(first..last));
            }
            outer.lower_triangles(&mut lower);
            sums.copy_from_slice(&lower);
        })
    };
    let curvatures = |rows: std::ops::Range<usize>| {
        let (mut scores, mut curvature) = (vec![0.0; rows.len()], [0.0]);
        let table = rows_of(table);
        table.scores(&model, rows.clone(), &mut scores);
        for (row, score) in rows.zip(&mut scores) {
            Logistic.curvature(&table.y[row..=row], table.weight[row], &[*score], &mut curvature);
            *score = curvature[0];
        }
        scores
    };
    let plain = || of_rows(d + 1, &|_| vec![1.0], &curvatures);
    let exact = || hessian(&comm, table, &Logistic, &params, 1.0).unwrap();
    assert_close(&exact(), &plain(), table.total_weight);
    report("Hessian, logistic", table, || seconds(|| drop(exact())), || seconds(|| drop(plain())));
    let plain =
        || of_rows(d + 2, &|row| vec![1.0, rows_of(table).y[row]], &|rows| rows_of(table).weight[rows].to_vec());
    let exact = || normal_equations(&comm, table).unwrap();
    assert_close(&[exact().gram[0]], &[plain()[0]], table.total_weight);
    report("normal equations", table, || seconds(|| drop(exact())), || seconds(|| drop(plain())));
}

/// An epoch of `sgd`, the shuffle included.
fn mini_batch(table: &Table<'_>, n_classes: usize) {
    const BATCH: u64 = 1024;
    let comm = Communicator::solo();
    let objective = objective(n_classes);
    let lanes = table.plan.n_lanes();
    let config = TrainConfig {
        kind: Kind::Logistic,
        solver: Solver::Sgd,
        epochs: Some(1),
        learning_rate: Some(0.01),
        global_batch: BATCH,
        lanes: Some(lanes),
        l2: 0.0,
        ..TrainConfig::default()
    };
    let n = objective.n_scores() * (table.n_features + 1);
    let start = vec![0.0; n];
    let train = || {
        data_parallel::train(&comm, table, objective.as_ref(), &config, start.clone(), Session::default(), &mut Silent)
            .unwrap()
    };
    let schedule = config.schedule;
    let plain = || {
        let mut params = start.clone();
        let mut optimizer = Sgd::new(n, config.momentum, config.nesterov);
        let pools = PoolShape::new(table.n_features, lanes, BATCH / lanes);
        let orders: Vec<Vec<usize>> = (0..lanes)
            .into_par_iter()
            .map(|lane| {
                let rows = table.plan.lane_rows(lane);
                let order = EpochOrder::new(config.seed, lane, rows.end - rows.start, pools);
                let mut taken = Vec::new();
                for pool in 0..(rows.end - rows.start).div_ceil(pools.pool_rows) {
                    let of_pool: Vec<u64> = order.pool_runs(pool).into_iter().flatten().collect();
                    let slots = order.slots(pool, of_pool.len()).into_iter();
                    taken.extend(slots.map(|slot| (rows.start + of_pool[slot as usize]) as usize));
                }
                taken
            })
            .collect();
        let micro = (BATCH / lanes) as usize;
        let steps = orders.iter().map(|order| order.len().div_ceil(micro)).max().unwrap_or(0);
        let mut grad = vec![0.0; n];
        let mut work: Vec<_> = (0..lanes).map(|_| (LinearModel::work(objective.n_scores()), vec![0.0; n])).collect();
        for step in 0..steps {
            let part = |order: &[usize]| (step * micro).min(order.len())..((step + 1) * micro).min(order.len());
            work.par_iter_mut().zip(&orders).for_each(|((work, grad), order)| {
                grad.fill(0.0);
                let rows = order[part(order)].iter().copied();
                add_gradient(&rows_of(table), rows, &params, objective.as_ref(), work, grad);
            });
            grad.fill(0.0);
            for (_, of_lane) in &work {
                grad.iter_mut().zip(of_lane).for_each(|(sum, g)| *sum += g);
            }
            let weight = orders.iter().map(|order| part(order).len()).sum::<usize>() as f64;
            grad.iter_mut().for_each(|g| *g /= weight);
            let rate = 0.01 * schedule.at(step as u64, steps as u64, steps as u64, 0);
            optimizer.step(rate, &grad, &mut params);
        }
        params
    };
    let exact = train().params;
    for (exact, plain) in exact.iter().zip(plain()) {
        assert!((exact - plain).abs() <= 1e-5, "{exact} and {plain}: float32 gradients differ by more than rounding");
    }
    report(&format!("sgd epoch, {}", objective.name()), table, || train().seconds[0], || seconds(|| drop(plain())));
}
