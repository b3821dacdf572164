//! Whether a mini-batch training has come to anything: a loss may grow without ever being infinite.

use super::Observer;
use super::data_parallel::Job;
use super::sums::{Total, sum_blocks};
use super::table::{BlockRows, Fit};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::model::Scores;

/// From so many times the loss of the start on, what is left is no model.
const ASTRAY: f64 = 1000.0;
/// From this share of it on, the model is worse than none. Less may be by chance: a target that has nothing to do with the features.
const WORSE: f64 = 0.1;

/// Compares the mean loss of the rows that were trained on before the first step and at the end. Collective; in memory one pass over the rows for each,
/// and none where the losses of steps fell.
///
/// Infinite losses are found in the step that they come from; one that stays finite may come back (steps become shorter with every schedule but the constant one,
/// and early stopping keeps the best epoch), so that it is judged at the end only. A model that is merely worse than its start is written, with a warning: it
/// may be what was asked for, as in a study of learning rates. One whose loss has grown [a thousandfold](ASTRAY) is refused as one that diverged is: nobody
/// asked for it, and a script that looks at the exit code would go on with it. What losses are measured in is the mean of their absolute values at the start:
/// those of counts and of a Gaussian may be negative, and their mean near 0.
///
/// * `start`, `end`: the model before the first step, and the one that came of it. Neither penalties nor dropout are looked at.
///
/// # Errors
/// Usage, on every rank: the loss has grown a thousandfold.
pub(super) fn check_outcome(
    comm: &Communicator,
    job: &Job<'_, '_>,
    fit: &Fit,
    [start, end]: [&dyn Fn() -> Scores; 2],
    watch: &mut dyn Observer,
) -> Result<()> {
    let (Some(first), Some(last)) = (fit.first_loss, fit.losses.last()) else { return Ok(()) };
    if *last <= first {
        return Ok(());
    }
    let [before, unit] = mean_losses(comm, job, &start())?.unwrap_or([f64::INFINITY; 2]);
    let [after, _] = mean_losses(comm, job, &end())?.unwrap_or([f64::INFINITY; 2]);
    let told = format!("the mean loss of the rows that were trained on was {} before the first step", shown(before));
    let advice = job.advice();
    match after - before {
        grown if grown > ASTRAY * unit => {
            let error = Error::usage(format!("training went astray: {told} and is {}; {advice}", shown(after)));
            comm.agree(if comm.is_root() { Err(error) } else { Ok(()) })
        }
        grown if grown > WORSE * unit => {
            if comm.is_root() {
                watch.warning(&format!("training has made the model worse: {told} and is {}; {advice}", shown(after)));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// With four digits.
fn shown(loss: f64) -> String {
    if (1e-3..1e6).contains(&loss.abs()) || loss == 0.0 { format!("{loss:.4}") } else { format!("{loss:.3e}") }
}

/// Mean loss, and mean |loss|, of the rows here that weigh something, exact over all ranks; None: not finite. Collective; rayon over blocks.
fn mean_losses(comm: &Communicator, job: &Job<'_, '_>, scores_of: &Scores) -> Result<Option<[f64; 2]>> {
    let (table, objective) = (job.table, job.objective);
    let (k, t, units) = (objective.n_scores(), objective.n_targets(), scores_of.units());
    let of_block = |block: BlockRows<'_>| {
        let rows = block.rows;
        let which: Vec<usize> = block.range.filter(|row| rows.weight[*row] > 0.0).collect();
        let mut scores = vec![0.0; which.len() * k];
        rows.outputs_of(scores_of, &which, &mut scores);
        let (mut sums, mut y) = ([0.0; 3], vec![0.0; t]);
        for (row, scores) in which.into_iter().zip(scores.chunks_exact_mut(k)) {
            let targets = rows.y[row * t..(row + 1) * t].iter().zip(units);
            y.iter_mut().zip(targets).for_each(|(y, (target, unit))| *y = unit.target(*target));
            let weight = rows.weight[row];
            let loss = objective.gradients(&y, &[weight], scores);
            sums.iter_mut().zip([loss, loss.abs(), weight]).for_each(|(sum, of_row)| *sum += of_row);
        }
        sums.to_vec()
    };
    let mut sums = BlockSums::new(3, table.plan.n_blocks());
    let of_blocks = table.map_blocks(of_block);
    table.agree(comm, of_blocks)?.into_iter().for_each(|of_block| sums.push(of_block));
    Ok(match sum_blocks(comm, &sums)? {
        Total::Finite(total) if total[2] > 0.0 => Some([total[0] / total[2], total[1] / total[2]]),
        _ => None,
    })
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
