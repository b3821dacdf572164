//! # verify — train again under other shapes and compare digests
//!
//! In:    a [`Model`], the files it was trained on.
//! Out:   per shape (ranks × threads) the digest that came out, and whether it is the model's.
//! Talks: trains on the ranks there are; alone, also on worlds of threads in this process.
//! Never: flags, model files, printing.

use crate::comm::{Communicator, run_threads};
use crate::error::Result;
use crate::train::{Inputs, Model, Silent, train_from};

/// One training again.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Shape {
    pub ranks: usize,
    /// Of each rank.
    pub threads: usize,
    pub digest: String,
    /// Whether it is the model's.
    pub same: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verification {
    /// Of the model file.
    pub digest: String,
    /// Whether the files hold the values that the model was trained on. If not, no digest can be the same.
    pub same_inputs: bool,
    /// First rounds of boosted trees that came from another model and were not trained again, since its inputs are not known.
    pub kept_rounds: usize,
    pub shapes: Vec<Shape>,
}

impl Verification {
    /// Every shape gave the model's digest.
    pub fn holds(&self) -> bool {
        self.shapes.iter().all(|shape| shape.same)
    }
}

/// Other shapes that a process without peers tries: ranks × threads.
const SHAPES: [(usize, usize); 3] = [(1, 1), (2, 1), (3, 2)];

/// Trains on the ranks there are, then, if there is only this one, on small worlds of threads. Collective.
///
/// Of a model that was continued, the rounds that were added are trained again, on those it was continued from.
///
/// Stops after the first training if the inputs have changed.
pub fn verify(
    comm: &Communicator,
    model: &Model,
    inputs: &Inputs,
    mut tell: impl FnMut(&Shape),
) -> Result<Verification> {
    let before = model.before();
    let (base, config) = match &before {
        Some((base, config)) => (Some(base), config),
        // Models that vote are taken as they are: their inputs are not known.
        None if model.config.ensemble.as_ref().is_some_and(|ensemble| !ensemble.given.is_empty()) => {
            (Some(model), &model.config)
        }
        None => (None, &model.config),
    };
    let (again, _) = train_from(comm, inputs, config, base, &mut Silent)?;
    let mut done = Verification {
        digest: model.digest.clone(),
        same_inputs: again.input_digest == model.input_digest && again.n_rows == model.n_rows,
        kept_rounds: model.continued.as_ref().map_or(0, |from| from.rounds),
        shapes: Vec::new(),
    };
    let mut note = |done: &mut Verification, ranks, threads, digest: String| {
        let shape = Shape { ranks, threads, same: digest == model.digest, digest };
        tell(&shape);
        done.shapes.push(shape);
    };
    note(&mut done, comm.size(), rayon::current_num_threads(), again.digest);
    if comm.size() > 1 || !done.same_inputs {
        return Ok(done);
    }
    for (ranks, threads) in SHAPES {
        if (ranks, threads) == (1, rayon::current_num_threads()) {
            continue;
        }
        let digests =
            run_threads(ranks, threads, |comm| Ok(train_from(comm, inputs, config, base, &mut Silent)?.0.digest));
        note(&mut done, ranks, threads, digests?.swap_remove(0));
    }
    Ok(done)
}
