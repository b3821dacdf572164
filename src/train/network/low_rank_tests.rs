//! What is sent of matrices is what plain loops send, on any number of ranks, and nothing is lost.

use super::*;
use crate::comm::run_threads;
use crate::config::MlpConfig;
use crate::exact::Width;
use crate::model::net::build;

#[test]
fn tensors_are_matrices_where_thin_ones_are_smaller() {
    let mlp = MlpConfig { conv: vec![8, 16], image: Some([8, 8, 1]), layers: vec![40, 3], ..MlpConfig::default() };
    let low_rank = LowRank::new(&build(&mlp, 64, 1), 4, 7);
    let found: Vec<_> =
        low_rank.matrices.iter().map(|matrix| (matrix.panels.k, matrix.panels.n, matrix.rank)).collect();
    // 9 × 8 is more than 4 · 17, but 40 × 3 less than 3 · 43.
    assert_eq!(found, [(9, 8, 4), (72, 16, 4), (64, 40, 4)]);
    let n: usize = low_rank.rest.iter().map(Range::len).sum();
    let of_matrices: usize = low_rank.matrices.iter().map(|matrix| matrix.range.len()).sum();
    assert_eq!(n + of_matrices, build(&mlp, 64, 1).params.len());
    assert!(low_rank.rest.iter().any(|range| range.len() == 120));
    // What the memory plan takes for it: all that lanes send but biases and the last layer.
    let sent = low_rank.first.n_elements() + low_rank.second.n_elements();
    let left_out = build(&mlp, 64, 1).params.len() - mlp.n_weights(64) as usize;
    assert_eq!(mlp.n_of_rank(64, 4) as usize, sent - left_out);
}

const SHAPES: [(usize, usize, usize); 2] = [(37, 41, 3), (301, 33, 2)];
const BETWEEN: usize = 13;

/// Two matrices, something before, between and after them.
fn low_rank() -> (LowRank, usize) {
    let before = 0..BETWEEN;
    let (mut end, mut matrices, mut rest) = (BETWEEN, Vec::new(), Vec::from([before]));
    for (k, n, rank) in SHAPES {
        matrices.push((Panels::new(k, n), end..end + k * n, rank));
        rest.push(end + k * n..end + k * n + BETWEEN);
        end += k * n + BETWEEN;
    }
    (LowRank::of(matrices, rest, 9), end)
}

/// Of a lane: a part that is the same in each step, and noise.
fn gradient(lane: usize, step: u64, n: usize) -> Vec<f32> {
    let draws = Draws::new(8 + lane as u64, Stream::Synthetic);
    let of = |i: u64| draws.normal(i, 0) + 0.5 * draws.normal(i, 1 + step) + libm::sin(i as f64);
    (0..n as u64).map(|i| of(i) as f32).collect()
}

fn rows_of(panels: Panels, values: &[f32]) -> Vec<f64> {
    let mut rows = vec![0.0; values.len()];
    panels.unpack(values, &mut rows);
    rows.into_iter().map(f64::from).collect()
}

/// The same in plain loops of float64 without rounding, of a matrix of all lanes, row-major; the sum. `basis`: (n, rank).
fn plain_step(held: &mut [Vec<f64>], basis: &mut [f64], k: usize, rank: usize) -> Vec<f64> {
    let n = basis.len() / rank;
    let mut tall = vec![vec![0.0; k]; rank];
    for (c, column) in tall.iter_mut().enumerate() {
        for (i, sum) in column.iter_mut().enumerate() {
            *sum = held.iter().flat_map(|m| (0..n).map(|j| m[i * n + j] * basis[j * rank + c])).sum();
        }
    }
    for c in 0..rank {
        for other in 0..c {
            let along: f64 = (0..k).map(|i| tall[c][i] * tall[other][i]).sum();
            (0..k).for_each(|i| tall[c][i] -= along * tall[other][i]);
        }
        let length = tall[c].iter().map(|value| value * value).sum::<f64>().sqrt();
        tall[c].iter_mut().for_each(|value| *value /= length);
    }
    let mut sum = vec![0.0; k * n];
    basis.fill(0.0);
    for m in held {
        for c in 0..rank {
            let along: Vec<f64> = (0..n).map(|j| (0..k).map(|i| m[i * n + j] * tall[c][i]).sum()).collect();
            for (i, j) in (0..k).flat_map(|i| (0..n).map(move |j| (i, j))) {
                m[i * n + j] -= tall[c][i] * along[j];
                sum[i * n + j] += tall[c][i] * along[j];
            }
            (0..n).for_each(|j| basis[j * rank + c] += along[j]);
        }
    }
    sum
}

#[test]
fn any_number_of_ranks_sends_what_plain_loops_send_and_nothing_is_lost() {
    const STEPS: u64 = 8;
    let (one, n) = low_rank();
    for n_lanes in [1, 6] {
        let grid = LaneGrid::new(n_lanes, Width::W32);
        let on = |size: usize, threads: usize| {
            let of_ranks = run_threads(size, threads, |comm| {
                let (mut low_rank, _) = low_rank();
                let own: Vec<usize> = (0..n_lanes).filter(|lane| lane % size == comm.rank()).collect();
                let mut held = vec![vec![0.0f32; n]; own.len()];
                let mut of_steps = Vec::new();
                for step in 0..STEPS {
                    for (held, lane) in held.iter_mut().zip(&own) {
                        held.iter_mut().zip(gradient(*lane, step, n)).for_each(|(held, g)| *held += g);
                    }
                    let mut sums = vec![7.0; n];
                    let lanes = held.iter_mut().map(|held| &mut held[..]).collect();
                    assert!(low_rank.add(comm, grid, lanes, step, &mut sums)?);
                    of_steps.push(sums);
                }
                Ok((of_steps, low_rank.bases(), held))
            });
            let of_ranks = of_ranks.unwrap();
            let mut held = vec![Vec::new(); n_lanes];
            for (rank, (of_steps, bases, of_rank)) in of_ranks.iter().enumerate() {
                assert!((of_steps, bases) == (&of_ranks[0].0, &of_ranks[0].1), "rank {rank} of {size}");
                of_rank.iter().enumerate().for_each(|(at, of_lane)| held[at * size + rank].clone_from(of_lane));
            }
            (of_ranks[0].0.clone(), of_ranks[0].1.clone(), held)
        };
        let alone = on(1, 1);
        for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1), (7, 2)] {
            assert!(on(size, threads) == alone, "{size} ranks, {threads} threads, {n_lanes} lanes");
        }
        let (of_steps, _, held) = alone;
        let mut given = vec![0.0; n];
        for (lane, step) in (0..n_lanes).flat_map(|lane| (0..STEPS).map(move |step| (lane, step))) {
            given.iter_mut().zip(gradient(lane, step, n)).for_each(|(given, g)| *given += f64::from(g));
        }
        for (at, given) in given.into_iter().enumerate() {
            let sent: f64 = of_steps.iter().map(|sums| f64::from(sums[at])).sum();
            let left: f64 = held.iter().map(|held| f64::from(held[at])).sum();
            assert!((sent + left - given).abs() < 2e-4, "{sent} + {left} of {given}");
            if one.rest.iter().any(|range| range.contains(&at)) {
                assert!(left.abs() < 1e-6, "{left} of what travels whole");
            }
        }
        for (matrix, (k, _, rank)) in one.matrices.iter().zip(SHAPES) {
            let mut basis: Vec<f64> = matrix.basis.iter().map(|value| f64::from(*value)).collect();
            let mut of_lanes = vec![vec![0.0; matrix.range.len()]; n_lanes];
            for step in 0..STEPS {
                for (lane, held) in of_lanes.iter_mut().enumerate() {
                    let given = rows_of(matrix.panels, &gradient(lane, step, n)[matrix.range.clone()]);
                    held.iter_mut().zip(given).for_each(|(held, g)| *held += g);
                }
                let plain = plain_step(&mut of_lanes, &mut basis, k, rank);
                let found = rows_of(matrix.panels, &of_steps[step as usize][matrix.range.clone()]);
                let largest = plain.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
                for (found, plain) in found.iter().zip(&plain) {
                    assert!((found - plain).abs() < 1e-4 * largest, "step {step}: {found}, {plain} of {largest}");
                }
            }
        }
    }
}

/// One step of lanes alone with a matrix.
fn step(low_rank: &mut LowRank, lanes: &mut [Vec<f32>], step: u64) -> Vec<f32> {
    let mut sums = vec![7.0; lanes[0].len()];
    let grid = LaneGrid::new(lanes.len(), Width::W32);
    let lanes = lanes.iter_mut().map(|lane| &mut lane[..]).collect();
    assert!(low_rank.add(&Communicator::solo(), grid, lanes, step, &mut sums).unwrap());
    sums
}

#[test]
fn all_of_a_matrix_of_no_higher_rank_is_sent_at_once() {
    let draws = Draws::new(4, Stream::Synthetic);
    for (k, n, rank, whole) in [(5, 7, 5, 5), (70, 5, 5, 5), (40, 67, 2, 2), (40, 67, 3, 2)] {
        // Lanes whose noise is no longer there in the sum.
        let noise = |at: usize| draws.normal(at as u64, 0) as f32;
        let thin = |at: usize| {
            let of = |r: u64| draws.normal(at as u64 / n as u64, 1 + r) * draws.normal(at as u64 % n as u64, 20 + r);
            (0..whole).map(of).sum::<f64>() as f32
        };
        let mut rows = vec![vec![0.0; k * n]; 2];
        for at in 0..k * n {
            (rows[0][at], rows[1][at]) = (thin(at) + noise(at), -noise(at));
        }
        let panels = Panels::new(k, n);
        let mut lanes = vec![vec![0.0; k * n]; 2];
        lanes.iter_mut().zip(&rows).for_each(|(lane, rows)| panels.pack(rows, lane));
        let mut low_rank = LowRank::of(vec![(panels, 0..k * n, rank)], Vec::new(), 5);
        let sums = rows_of(panels, &step(&mut low_rank, &mut lanes, 0));
        for (at, sum) in sums.iter().enumerate() {
            let given = f64::from(rows[0][at]) + f64::from(rows[1][at]);
            assert!((sum - given).abs() < 2e-5, "{k} × {n}, rank {rank}, {at}: {sum}, {given}");
        }
    }
}

#[test]
fn columns_that_vanish_are_drawn_anew_and_what_is_not_finite_is_told() {
    let (panels, rank) = (Panels::new(20, 35), 3);
    let matrix = || LowRank::of(vec![(panels, 0..700, rank)], Vec::new(), 5);
    let drawn = |c: u64, counter| -> Vec<f32> {
        let draws = Draws::new(5, Stream::LowRank);
        (0..35).map(|row| draws.normal((c << 32) + row, counter) as f32).collect()
    };
    let column = |low_rank: &LowRank, c: usize| -> Vec<f32> {
        low_rank.matrices[0].basis[c..].iter().step_by(rank).copied().collect()
    };
    // Nothing to send, then one row.
    let mut low_rank = matrix();
    let before = low_rank.bases();
    assert!(step(&mut low_rank, &mut [vec![0.0; 700]], 4).iter().all(|sum| *sum == 0.0));
    assert_ne!(low_rank.bases(), before);
    assert_eq!(column(&low_rank, 2), drawn(2, 5));
    let mut one_row = vec![0.0; 700];
    (0..35).for_each(|j| one_row[panels.at(3, j)] = 1.0 + j as f32 / 8.0);
    let given = one_row.clone();
    let sums = step(&mut low_rank, &mut [one_row], 5);
    assert!(sums.iter().zip(&given).all(|(sum, given)| (sum - given).abs() < 1e-5));
    let first = column(&low_rank, 0);
    assert!((first[34] / first[0] - 5.25).abs() < 1e-5 && (1.0..2.0).contains(&first[34].abs()), "{first:?}");
    assert_eq!([column(&low_rank, 1), column(&low_rank, 2)], [drawn(1, 6), drawn(2, 6)]);

    let mut again = matrix();
    again.set_bases(&low_rank.bases()).unwrap();
    assert_eq!(again.bases(), low_rank.bases());
    assert!(again.set_bases(&before[1..]).is_err());
    // Finite, but not their products.
    let mut huge = vec![f32::MAX; 700];
    let (grid, mut sums) = (LaneGrid::new(1, Width::W32), vec![0.0; 700]);
    let solo = Communicator::solo();
    assert!(!low_rank.add(&solo, grid, vec![&mut huge[..]], 6, &mut sums).unwrap());
}
