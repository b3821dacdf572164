//! The network before the first step.

use super::super::TrainConfig;
use super::super::prepare::{Prepared, start_scores};
use super::super::sums::sum_scalars;
use crate::comm::Communicator;
use crate::config::MlpConfig;
use crate::error::{Error, Result};
use crate::exact::ExactSum;
use crate::model::Network;
use crate::model::net::build;
use crate::objective::Objective;

/// Layers as the settings say, parameters drawn from the seed, and the unit of a target that is a number: its mean and deviation, so that no
/// setting has to know its scale. Collective.
pub(crate) fn start(
    comm: &Communicator,
    prepared: &Prepared<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
) -> Result<Network> {
    let of_kind = config.mlp.clone().unwrap_or_default();
    let table = &prepared.table;
    let mut network = build(&of_kind, table.n_features, objective.n_scores());
    network.start(config.seed);
    if has_unit(&of_kind, prepared.target.n_classes()) {
        let mean = prepared.weighted_y[0] / table.total_weight;
        let mut squares = ExactSum::new();
        let passed = table.each_labels(|y, weight, _| {
            for (y, w) in y.iter().zip(weight).filter(|(_, w)| **w > 0.0) {
                squares.add(w * (y - mean) * (y - mean));
            }
        });
        table.agree(comm, passed)?;
        let [squares] = sum_scalars(comm, &[squares])?;
        let squares =
            squares.value().ok_or_else(|| Error::data("the target is not finite, or spans too much for float64"))?;
        let deviation = (squares / table.total_weight).sqrt();
        (network.origin, network.unit) = (mean, if deviation > 0.0 { deviation } else { 1.0 });
    } else {
        network.set_last_bias(&start_scores(objective, prepared));
    }
    Ok(network)
}

/// Whether scores are in the unit of the target.
fn has_unit(config: &MlpConfig, n_classes: usize) -> bool {
    n_classes == 0 && config.loss != crate::config::BoostLoss::Poisson
}
