//! Early stopping of mini-batch solvers: the loss of the rows held out, and the parameters that had the least.

use super::sums::{Total, sum_blocks};
use super::table::{BlockRows, Table};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::model::{LinearModel, Scores};
use crate::objective::Objective;
use serde::{Deserialize, Serialize};

/// What was seen of the rows held out, epoch by epoch; the same on every rank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub losses: Vec<f64>,
    best: Option<(f64, usize)>,
    /// Of the best epoch.
    params: Vec<f64>,
}

impl Held {
    /// Takes in the loss after an epoch; whether so many have gone by since the best. Not collective.
    pub fn add(&mut self, loss: f64, params: Vec<f64>, patience: u64) -> bool {
        self.losses.push(loss);
        let epoch = self.losses.len();
        let before = self.best;
        let is_still = is_still(&mut self.best, loss, epoch, patience);
        if self.best != before {
            self.params = params;
        }
        is_still
    }

    /// The parameters of the best epoch; None if there was none. Not collective.
    pub fn into_best(self) -> Option<Vec<f64>> {
        self.best.map(|_| self.params)
    }
}

/// Notes a loss that is less than the best so far; whether `patience` times have gone by since that. Not collective.
///
/// Of equal losses the earlier one stays the best.
pub(super) fn is_still(best: &mut Option<(f64, usize)>, loss: f64, at: usize, patience: u64) -> bool {
    match *best {
        Some((least, when)) if loss >= least => (at - when) as u64 >= patience,
        _ => {
            *best = Some((loss, at));
            false
        }
    }
}

/// Mean loss of the rows that were held out, without penalty, exact over all ranks; None: not finite. Collective.
///
/// # Errors
/// Data: no such row has a weight above 0.
pub(super) fn held_out_loss(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    params: &[f64],
) -> Result<Option<f64>> {
    let k = objective.n_scores();
    let model = LinearModel { n_features: table.n_features, n_scores: k, params: params.to_vec() };
    held_out_loss_of(comm, table, objective, &Scores::Linear(model))
}

/// The same of any scores of standardised rows. Collective.
pub(super) fn held_out_loss_of(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    scores_of: &Scores,
) -> Result<Option<f64>> {
    let (k, t, units) = (objective.n_scores(), objective.n_targets(), scores_of.units());
    let of_block = |block: BlockRows<'_>| {
        let (rows, held_out) = (block.rows, block.held_out.unwrap_or_default());
        let which: Vec<usize> = block.range.filter(|row| held_out.get(*row).is_some_and(|w| *w > 0.0)).collect();
        let mut scores = vec![0.0; which.len() * k];
        rows.outputs_of(scores_of, &which, &mut scores);
        let targets = |row: &usize| rows.y[row * t..(row + 1) * t].iter().zip(units).map(|(y, unit)| unit.target(*y));
        let y: Vec<f64> = which.iter().flat_map(targets).collect();
        let weight: Vec<f64> = which.iter().map(|row| held_out[*row]).collect();
        vec![objective.gradients(&y, &weight, &mut scores), weight.iter().fold(0.0, |sum, w| sum + w)]
    };
    let mut sums = BlockSums::new(2, table.plan.n_blocks());
    let of_blocks = table.map_blocks(of_block);
    table.agree(comm, of_blocks)?.into_iter().for_each(|of_block| sums.push(of_block));
    match sum_blocks(comm, &sums)? {
        Total::Finite(total) if total[1] > 0.0 => Ok(Some(total[0] / total[1])),
        Total::Finite(_) => Err(Error::data("no row of weight above 0 was held out; raise --valid-fraction")),
        Total::NonFinite => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_equal_epochs_is_the_best_and_patience_ends() {
        let mut held = Held::default();
        let still: Vec<bool> = [5.0, 3.0, 3.0, 2.0, 2.5, 2.0]
            .iter()
            .map(|loss| held.add(*loss, vec![held.losses.len() as f64], 2))
            .collect();
        assert_eq!(still, [false, false, false, false, false, true]);
        assert_eq!(held.losses.len(), 6);
        assert_eq!(held.into_best(), Some(vec![3.0]));
        assert_eq!(Held::default().into_best(), None);
    }
}
