//! Whole tables for tests, and what a rank holds of them.

use super::table::{Fit, LocalRows, RowBuffer, Table};
use super::{Kind, Observer, Progress, TrainConfig};
use crate::comm::{Communicator, run_threads};
use crate::data::partition::{Partition, RowPlan};
use crate::error::Result;
use crate::exact::ExactSum;
use crate::model::Features;
use crate::rng::{Draws, Stream};

/// All rows of a standardised table.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub d: usize,
    pub x: Vec<f32>,
    pub y: Vec<f64>,
    pub weight: Vec<f64>,
    pub offset: Option<Vec<f64>>,
}

impl Whole {
    /// Standard normal features, weights in [0, 1) of which every seventh is 0, and targets 0.
    pub fn random(n: usize, d: usize) -> Whole {
        let draws = Draws::new(23, Stream::Synthetic);
        Whole {
            d,
            x: (0..n * d).map(|i| draws.normal(i as u64, 0) as f32).collect(),
            y: vec![0.0; n],
            weight: (0..n).map(|i| if i % 7 == 3 { 0.0 } else { draws.uniform(i as u64, 1) }).collect(),
            offset: None,
        }
    }

    pub fn n(&self) -> usize {
        self.y.len()
    }

    /// Σ_j x[j]·(−0.9)^j + noise·normal.
    pub fn score(&self, row: usize, noise: f64) -> f64 {
        let mut score = noise * Draws::new(29, Stream::Synthetic).normal(row as u64, 0);
        let mut factor = 1.0;
        for x in &self.x[row * self.d..(row + 1) * self.d] {
            score += factor * f64::from(*x);
            factor *= -0.9;
        }
        score
    }

    pub fn with_targets(mut self, y: impl Fn(f64) -> f64, noise: f64) -> Whole {
        self.y = (0..self.n()).map(|row| y(self.score(row, noise))).collect();
        self
    }

    pub fn set_column(&mut self, j: usize, value: impl Fn(usize, f32) -> f32, like: usize) {
        for row in 0..self.n() {
            self.x[row * self.d + j] = value(row, self.x[row * self.d + like]);
        }
    }

    /// Blocks of at least 32 rows, dealt to ranks as training does.
    pub fn of_rank(&self, comm: &Communicator) -> Table<'static> {
        let plan = RowPlan::full_batch(self.n() as u64, self.d);
        let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
        let rows = plan.rows(units.clone());
        let (a, b) = (rows.start as usize, rows.end as usize);
        let mut total = ExactSum::new();
        self.weight.iter().for_each(|w| total.add(*w));
        let mut peak = vec![0.0f64; self.d];
        for (row, w) in self.x.chunks(self.d.max(1)).zip(&self.weight) {
            for (p, x) in peak.iter_mut().zip(row) {
                if *w > 0.0 && f64::from(x.abs()) > *p {
                    *p = f64::from(x.abs());
                }
            }
        }
        Table {
            plan,
            units,
            first_row: rows.start,
            n_features: self.d,
            rows: LocalRows::Memory(RowBuffer {
                n_features: self.d,
                x: Features::Dense(self.x[a * self.d..b * self.d].to_vec()),
                y: self.y[a..b].to_vec(),
                weight: self.weight[a..b].to_vec(),
                offset: self.offset.as_ref().map(|offset| offset[a..b].to_vec()),
                held_out: None,
            }),
            total_weight: total.value().unwrap(),
            peak,
        }
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub(crate) struct Heard {
    pub warnings: Vec<String>,
    pub progress: Vec<Progress>,
}

impl Observer for Heard {
    fn progress(&mut self, progress: &Progress) {
        self.progress.push(progress.clone());
    }
    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_owned());
    }
}

pub(crate) fn config(kind: Kind, l2: f64, tolerance: f64) -> TrainConfig {
    TrainConfig { kind, l2, tolerance, ..TrainConfig::default() }
}

/// The fit on one rank, after all cuts into ranks and threads have given the same bits, losses and warnings.
pub(crate) fn same_on_all_cuts(
    whole: &Whole,
    solve: impl Fn(&Communicator, &Table<'_>, &mut Heard) -> Result<Fit> + Sync,
) -> (Fit, Heard) {
    let bits = |values: &[f64]| -> Vec<u64> { values.iter().map(|v| v.to_bits()).collect() };
    let mut alone: Option<(Fit, Heard)> = None;
    for size in [1, 2, 3, 4, 7] {
        for threads in [1, 2] {
            let fits = run_threads(size, threads, |comm| {
                let mut heard = Heard::default();
                let fit = solve(comm, &whole.of_rank(comm), &mut heard)?;
                Ok((fit, heard))
            });
            for (rank, (fit, heard)) in fits.unwrap().into_iter().enumerate() {
                let Some((one, heard_alone)) = &alone else {
                    alone = Some((fit, heard));
                    continue;
                };
                let place = format!("rank {rank} of {size}, {threads} threads");
                assert_eq!(bits(&fit.params), bits(&one.params), "{place}");
                assert_eq!(bits(&fit.losses), bits(&one.losses), "{place}");
                assert_eq!(bits(&fit.stop_values), bits(&one.stop_values), "{place}");
                assert_eq!((fit.iterations, fit.converged), (one.iterations, one.converged), "{place}");
                assert_eq!(heard.warnings, heard_alone.warnings, "{place}");
                assert_eq!(heard.progress, heard_alone.progress, "{place}");
            }
        }
    }
    alone.unwrap()
}

/// Largest element of the gradient of the smooth objective, by plain loops over the whole table.
pub(crate) fn largest_gradient(
    whole: &Whole,
    objective: &dyn crate::objective::Objective,
    l2: f64,
    params: &[f64],
) -> f64 {
    let (d, k) = (whole.d, objective.n_scores());
    let mut grad = vec![0.0; params.len()];
    let mut total = 0.0;
    for row in 0..whole.n() {
        let x = &whole.x[row * d..(row + 1) * d];
        let mut scores: Vec<f64> = params
            .chunks(d + 1)
            .map(|p| x.iter().zip(p).fold(p[d], |s, (x, p)| s + f64::from(*x) * p))
            .map(|s| s + whole.offset.as_ref().map_or(0.0, |offset| offset[row]))
            .collect();
        objective.gradients(&[whole.y[row]], &[whole.weight[row]], &mut scores);
        total += whole.weight[row];
        for c in 0..k {
            for j in 0..d {
                grad[c * (d + 1) + j] += scores[c] * f64::from(x[j]);
            }
            grad[c * (d + 1) + d] += scores[c];
        }
    }
    let mut largest = 0.0f64;
    for (j, (g, p)) in grad.iter().zip(params).enumerate() {
        let penalty = if j % (d + 1) == d { 0.0 } else { l2 * p };
        largest = largest.max((g / total + penalty).abs());
    }
    largest
}
