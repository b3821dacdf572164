//! The network before the first step.

use super::super::TrainConfig;
use super::super::prepare::{Prepared, start_scores};
use super::super::sums::sum_scalars;
use crate::comm::Communicator;
use crate::config::MlpConfig;
use crate::error::{Error, InContext, Result};
use crate::exact::ExactSum;
use crate::model::Network;
use crate::model::net::{Unit, build_for};
use crate::objective::Objective;

/// Layers as the settings say, parameters drawn from the seed, and the unit of each target that is a number: its mean and deviation, so that no
/// setting has to know its scale. Collective.
pub(crate) fn start(
    comm: &Communicator,
    prepared: &Prepared<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
) -> Result<Network> {
    let of_kind = config.mlp.clone().unwrap_or_default();
    let table = &prepared.table;
    let categories = prepared.preprocess.category_features();
    if of_kind.embed > 0 && categories.is_empty() {
        let why = "no column is a category: none holds strings; name those of numbers with --categorical, or leave the flag out";
        return Err(Error::usage(why)).for_flag("--embed");
    }
    let mut network = build_for(&of_kind, table.n_features, &categories, objective.n_scores());
    network.start(config.seed);
    if has_unit(&of_kind, prepared.target.n_classes()) {
        network.units = units(comm, prepared)?;
    } else {
        network.units = vec![Unit::default(); prepared.target.n_targets()];
        network.set_last_bias(&start_scores(objective, prepared));
    }
    Ok(network)
}

/// Mean and deviation of each target. Collective.
fn units(comm: &Communicator, prepared: &Prepared<'_>) -> Result<Vec<Unit>> {
    let table = &prepared.table;
    let means: Vec<f64> = prepared.weighted_y.iter().map(|total| total / table.total_weight).collect();
    let mut squares = vec![ExactSum::new(); means.len()];
    let passed = table.each_labels(|y, weight, _| {
        for (y, w) in y.chunks_exact(means.len()).zip(weight).filter(|(_, w)| **w > 0.0) {
            for (squares, (y, mean)) in squares.iter_mut().zip(y.iter().zip(&means)) {
                squares.add(w * (y - mean) * (y - mean));
            }
        }
    });
    table.agree(comm, passed)?;
    let mut units = Vec::with_capacity(means.len());
    for (squares, mean) in squares.into_iter().zip(means) {
        let [squares] = sum_scalars(comm, &[squares])?;
        let squares =
            squares.value().ok_or_else(|| Error::data("the target is not finite, or spans too much for float64"))?;
        let deviation = (squares / table.total_weight).sqrt();
        units.push(Unit { scale: if deviation > 0.0 { deviation } else { 1.0 }, origin: mean });
    }
    Ok(units)
}

/// Whether scores are in the unit of the target.
fn has_unit(config: &MlpConfig, n_classes: usize) -> bool {
    n_classes == 0 && config.loss != crate::config::BoostLoss::Poisson
}
