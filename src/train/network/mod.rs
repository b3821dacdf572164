//! Neural networks by mini-batches: every step adds the lanes' gradients as integers, segment by segment while others are still
//! being worked out; or lanes step alone, and are averaged now and then.
//!
//! | file | what it does |
//! |---|---|
//! | `start.rs` | the network before the first step: layers, parameters, the unit of the target |
//! | `step.rs` | a step: forward, backward, reduce, decide, commit |
//! | `lanes.rs` | rows of lanes in strips, and what comes of them |
//! | `norms.rs` | moments over the whole batch, which rows wait for |
//! | `segments.rs` | gradients of runs of layers as integers |
//! | `shards.rs` | who keeps what the optimiser remembers |
//! | `compressed.rs` | gradients of which less travels, and what lanes have left of them |
//! | `top_k.rs`, `low_rank.rs`, `orthonormal.rs` | the largest numbers; products of thin matrices, of which one has columns at right angles |
//! | `apart.rs` | lanes that step alone, and their average |
//! | `own.rs` | a step of one of them |

mod apart;
mod compressed;
mod lanes;
mod low_rank;
mod norms;
mod orthonormal;
mod own;
mod segments;
#[cfg(test)]
mod several_tests;
mod shards;
mod start;
mod step;
mod top_k;

pub(super) use start::start;

use super::checkpoint::Session;
use super::data_parallel::{Job, check, run, warn_of_idle};
use super::lanes::{Course, Lanes};
use super::outcome::check_outcome;
use super::post_local::PostLocal;
use super::table::{Fit, Table};
use super::{Observer, Solver, Sync, TrainConfig};
use crate::comm::Communicator;
use crate::error::Result;
use crate::model::{Network, Scores};
use crate::objective::Objective;
use apart::Apart;
use step::Step;

/// Learning rates where nobody gave one, for a network whose values are all of unit scale.
fn default_rate(solver: Solver) -> f64 {
    match solver {
        Solver::Adam | Solver::Adamw => 1e-3,
        Solver::Adagrad => 1e-2,
        Solver::Lamb => 1e-2,
        Solver::Lars => 1.0,
        _ => 0.05,
    }
}

/// Trains from the parameters that a network has; the same fit on every rank. Collective.
///
/// * `table`: standardised rows of the lanes that this rank owns (maybe none).
/// * `fit.params`: those of the network, float32 as float64.
///
/// # Errors
/// Usage, on every rank: settings that do not fit together, or a loss that is no longer finite, or has [gone astray](check_outcome).
pub(super) fn train(
    comm: &Communicator,
    table: &Table<'_>,
    objective: &dyn Objective,
    config: &TrainConfig,
    start: &Network,
    session: Session,
    watch: &mut dyn Observer,
) -> Result<Fit> {
    check(config)?;
    let course = Course::new(table, config)?;
    let lanes = Lanes::of(table, &course, config.seed, 0);
    let job = Job::new(table, objective, config, course, || default_rate(config.solver))?;
    warn_of_idle(comm, &job, watch);
    let network = start.clone();
    let fit = match (config.sync, config.local_after) {
        (Sync::Step, _) => run(comm, &job, lanes, Step::new(comm, &job, network)?, session, watch),
        (_, 0) => run(comm, &job, lanes, Apart::new(&job, network), session, watch),
        (_, after) => {
            let together = PostLocal::new(Step::new(comm, &job, network)?, after, Apart::part);
            run(comm, &job, lanes, together, session, watch)
        }
    }?;
    let at_end = || {
        let mut network = start.clone();
        network.set_numbers(&fit.params);
        Scores::Mlp(network)
    };
    check_outcome(comm, &job, &fit, [&|| Scores::Mlp(start.clone()), &at_end], watch)?;
    Ok(fit)
}

#[cfg(test)]
mod apart_tests;
#[cfg(test)]
mod compressed_tests;
#[cfg(test)]
mod convolution_tests;
#[cfg(test)]
mod embedding_tests;
#[cfg(test)]
mod head_tests;
#[cfg(test)]
mod norm_tests;
#[cfg(test)]
mod precision_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod shards_tests;
#[cfg(test)]
mod tests;
