//! The function that full-batch solvers minimise, with its exact gradient over all ranks.

use super::sums::{Total, sum_blocks};
use super::table::Table;
use crate::comm::Communicator;
use crate::error::Result;
use crate::exact::BlockSums;
use crate::model::linear::{LinearModel, add_gradient};
use crate::objective::Objective;

/// `f(θ) = Σ w·loss / Σ w + λ₂/2 ‖coefficients‖²`: the smooth part of the objective. The intercept is free.
pub struct FullBatch<'a, 's> {
    pub comm: &'a Communicator,
    pub table: &'a Table<'s>,
    pub objective: &'a dyn Objective,
    pub l2: f64,
}

/// Value and gradient at a point; `None` where they are not finite.
pub type Evaluation = Option<(f64, Vec<f64>)>;

impl FullBatch<'_, '_> {
    pub fn n_params(&self) -> usize {
        self.objective.n_scores() * (self.table.n_features + 1)
    }

    /// True for parameters that are penalised: all but the intercepts.
    pub fn is_penalised(&self, param: usize) -> bool {
        param % (self.table.n_features + 1) != self.table.n_features
    }

    /// Value and gradient at `params`, the same bits on every rank. Collective.
    pub fn evaluate(&self, params: &[f64]) -> Result<Evaluation> {
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
        let Total::Finite(mut total) = sum_blocks(self.comm, &sums)? else { return Ok(None) };
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
}
