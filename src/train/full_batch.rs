//! The function that full-batch solvers minimise, with its exact gradient over all ranks.

use super::sums::{Total, sum_blocks, sum_scalars};
use super::table::{BlockRows, Table};
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::scale::{bounding_exponent, ceil_log2};
use crate::exact::{BlockSums, BoundedSums, ExactSum};
use crate::model::linear::{LinearModel, Work, add_gradient};
use crate::objective::Objective;
use std::cell::Cell;

/// `f(θ) = Σ w·loss / Σ w + λ₂/2 ‖coefficients‖²`: the smooth part of the objective. The intercept is free.
pub struct FullBatch<'a, 's> {
    pub comm: &'a Communicator,
    pub table: &'a Table<'s>,
    pub objective: &'a dyn Objective,
    pub l2: f64,
    /// Of sparse rows: what |w·∂loss/∂score| should stay below, from the pass before.
    bound: Cell<f64>,
}

/// Value and gradient at a point; `None` where they are not finite.
pub type Evaluation = Option<(f64, Vec<f64>)>;

impl<'a, 's> FullBatch<'a, 's> {
    /// What a pass learned about the scale of the next one's sums: state, which checkpoints hold. Not collective.
    pub fn bound(&self) -> f64 {
        self.bound.get()
    }

    /// Takes up a [`bound`](Self::bound). Not collective.
    pub fn set_bound(&self, bound: f64) {
        self.bound.set(bound);
    }

    pub fn new(
        comm: &'a Communicator,
        table: &'a Table<'s>,
        objective: &'a dyn Objective,
        l2: f64,
    ) -> FullBatch<'a, 's> {
        FullBatch { comm, table, objective, l2, bound: Cell::new(0.0) }
    }

    pub fn n_params(&self) -> usize {
        self.objective.n_scores() * (self.table.n_features + 1)
    }

    /// True for parameters that are penalised: all but the intercepts.
    pub fn is_penalised(&self, param: usize) -> bool {
        param % (self.table.n_features + 1) != self.table.n_features
    }

    /// Value and gradient at `params`, the same bits on every rank. Collective.
    pub fn evaluate(&self, params: &[f64]) -> Result<Evaluation> {
        let sums = if self.table.is_sparse() { self.sparse_sums(params)? } else { self.sums(params)? };
        let Some(mut total) = sums else { return Ok(None) };
        let weight = self.table.total_weight;
        let mut value = total.pop().expect("the loss is last") / weight;
        let mut squares = 0.0;
        for (j, (g, p)) in total.iter_mut().zip(params).enumerate() {
            *g /= weight;
            if self.is_penalised(j) {
                *g += self.l2 * p;
                squares += p * p;
            }
        }
        value += 0.5 * self.l2 * squares;
        let finite = value.is_finite() && total.iter().all(|g| g.is_finite());
        Ok(finite.then_some((value, total)))
    }

    /// Σ w·∂loss/∂params, then Σ w·loss. None: not finite. Collective.
    fn sums(&self, params: &[f64]) -> Result<Option<Vec<f64>>> {
        let contributions = self.table.map_blocks(|block| {
            let mut sums = vec![0.0; params.len() + 1];
            let (grad, loss) = sums.split_at_mut(params.len());
            let mut work = LinearModel::work(self.objective.n_scores());
            loss[0] = add_gradient(&block.rows, block.range, params, self.objective, &mut work, grad);
            sums
        });
        let mut sums = BlockSums::new(params.len() + 1, self.table.plan.n_blocks());
        for contribution in self.table.agree(self.comm, contributions)? {
            sums.push(contribution);
        }
        match sum_blocks(self.comm, &sums)? {
            Total::Finite(total) => Ok(Some(total)),
            Total::NonFinite => Ok(None),
        }
    }

    /// The same of sparse rows. A block's contribution is 0 but for the columns that it has values in, so that time and memory go
    /// with the values, not with blocks × columns: it becomes integers at once, at exponents that follow from the largest
    /// |w·∂loss/∂score| (`EXACT` 2c.1). That is guessed from the pass before; where the guess was too small, or so large that
    /// it costs digits, all ranks pass again. Collective.
    fn sparse_sums(&self, params: &[f64]) -> Result<Option<Vec<f64>>> {
        let mut bound = self.bound.get();
        loop {
            let (sums, largest) = self.bounded_sums(params, bound)?;
            if !largest.is_finite() {
                return Ok(None);
            }
            self.bound.set(ROOM_TO_GROW * largest);
            if largest <= bound && bound <= MOST_ROOM * largest {
                return Ok(sums);
            }
            bound = largest;
        }
    }

    /// Sums of contributions within `bound`, and the largest |w·∂loss/∂score| there was. Collective.
    fn bounded_sums(&self, params: &[f64], bound: f64) -> Result<(Option<Vec<f64>>, f64)> {
        let (table, objective) = (self.table, self.objective);
        let rows = ceil_log2(table.plan.block_rows()) as i32;
        let of_feature = |peak: f64| bounding_exponent(bound) + bounding_exponent(peak) + 2 + rows;
        let of_score = table.peak.iter().copied().chain([1.0]).map(of_feature);
        let exponents: Vec<i32> = of_score.collect::<Vec<_>>().repeat(objective.n_scores());
        let new = || Partial {
            sums: BoundedSums::new(exponents.clone(), table.plan.n_blocks()),
            loss: ExactSum::new(),
            grad: vec![0.0; params.len()],
            touched: Vec::new(),
            work: LinearModel::work(objective.n_scores()),
        };
        let partial = table.fold_blocks(new, |partial, block| partial.add(block, params, objective));
        let mut partial = table.agree(self.comm, partial)?.into_iter();
        let mut all = partial.next().expect("at least one accumulator");
        for other in partial {
            all.sums.merge(&other.sums);
            all.loss.merge(&other.loss);
            all.work.peak = all.work.peak.max(other.work.peak);
        }
        let mut peak = [all.work.peak as i64];
        self.comm.all_reduce_max(&mut peak)?;
        let mut words = all.sums.to_words();
        self.comm.all_reduce_sum(&mut words)?;
        let [loss] = sum_scalars(self.comm, &[all.loss])?;
        let sums = all.sums.finish(&words).zip(loss.value()).map(|(mut sums, loss)| {
            sums.push(loss);
            sums
        });
        Ok((sums, f64::from_bits(peak[0] as u64)))
    }
}

/// What the next pass may exceed this one's largest |w·∂loss/∂score| by, and what a bound may be too large by.
const ROOM_TO_GROW: f64 = 4.0;
const MOST_ROOM: f64 = 65_536.0;

/// What one thread adds up of sparse rows.
struct Partial {
    sums: BoundedSums,
    loss: ExactSum,
    /// Of one block; zeros before and after it.
    grad: Vec<f64>,
    touched: Vec<(usize, f64)>,
    work: Work,
}

impl Partial {
    fn add(&mut self, block: BlockRows<'_>, params: &[f64], objective: &dyn Objective) {
        let stride = block.rows.n_features + 1;
        let loss = add_gradient(&block.rows, block.range.clone(), params, objective, &mut self.work, &mut self.grad);
        self.loss.add(loss);
        self.touched.clear();
        let mut take = |j: usize| {
            for at in (j..self.grad.len()).step_by(stride) {
                let value = std::mem::take(&mut self.grad[at]);
                if value != 0.0 {
                    self.touched.push((at, value));
                }
            }
        };
        block.range.for_each(|row| block.rows.row(row).each(|j, _| take(j)));
        take(stride - 1);
        self.sums.add_sparse(&self.touched);
    }
}
