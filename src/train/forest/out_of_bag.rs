//! Which trees did not draw a row: worked out again from the seed, so that nothing of it is stored.

use super::super::TrainConfig;
use super::{bootstrap_of, n_lanes};
use crate::config::{ForestConfig, Scope};
use crate::data::partition::RowPlan;
use crate::grow::forest::TreeDraws;

/// Of the forest with these settings, trained on a table of so many rows.
pub(crate) struct OutOfBag {
    draws: Vec<TreeDraws>,
    numbers: Vec<u64>,
    /// Of the table, the row that training numbered 0.
    first_row: u64,
    /// Rows of each lane, where a tree sees one lane.
    lanes: Vec<std::ops::Range<u64>>,
}

impl OutOfBag {
    pub(crate) fn new(config: &TrainConfig, settings: &ForestConfig, n_rows: u64, numbers: &[u64]) -> OutOfBag {
        let lanes = match settings.scope {
            Scope::Global => Vec::new(),
            Scope::Local => {
                let plan = RowPlan::lanes(n_rows, 1, n_lanes(config, settings, n_rows));
                (0..plan.n_lanes()).map(|lane| plan.lane_rows(lane)).collect()
            }
        };
        let bootstrap = bootstrap_of(config, settings);
        OutOfBag {
            draws: numbers.iter().map(|number| bootstrap.of_tree(*number)).collect(),
            numbers: numbers.to_vec(),
            first_row: 0,
            lanes,
        }
    }

    /// For a table of which training saw the rows from `first` on.
    pub(crate) fn of_rows_from(self, first: u64) -> OutOfBag {
        OutOfBag { first_row: first, ..self }
    }

    /// Whether a tree did not draw a row of the table.
    #[inline]
    pub(crate) fn is_out(&self, tree: usize, row: u64) -> bool {
        let row = row - self.first_row;
        let is_of_another = !self.lanes.is_empty() && !self.lane_of(tree).contains(&row);
        is_of_another || self.draws[tree].of_row(row) == 0
    }

    fn lane_of(&self, tree: usize) -> &std::ops::Range<u64> {
        &self.lanes[(self.numbers[tree] % self.lanes.len() as u64) as usize]
    }
}
