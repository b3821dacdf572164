//! # train::calibrate — probabilities that come true
//!
//! In:    any table of classes, and the settings of any classifier.
//! Out:   a [`Model`] trained on all rows, whose scores a map makes probabilities of.
//! Talks: yes; trains once on all rows and once without each fold.
//! Never: how a classifier is trained, flags.
//!
//! The map is fitted to scores that each row got from the model that did not see it; folds go by a hash of the global row. Rows are
//! counted on a fixed grid of scores, in integers, so that all ranks fit the same map. Source: Platt, *Probabilistic outputs for support
//! vector machines*, 1999; Zadrozny, Elkan, *Transforming classifier scores into accurate multiclass probability estimates*, KDD 2002; as
//! scikit-learn's `CalibratedClassifierCV(ensemble=False)`.

mod fit;
#[cfg(test)]
mod tests;

use super::checkpoint::Keeping;
use super::ensemble::view::{View, Weighing};
use super::evaluate::Known;
use super::linear_family::{self, digest};
use super::measure::{ScoredRows, Show, measure};
use super::prepare::HeldOut;
use super::score::{Link, Scorer, for_each_batch};
use super::sums::sum_scalars;
use super::{Model, Observer, Progress, Reading, TrainConfig, TrainReport, memory};
use crate::comm::Communicator;
use crate::config::Calibrate;
use crate::data::names::TableNames;
use crate::data::partition::{Partition, RowPlan};
use crate::data::{Block, DataSource};
use crate::error::{Error, InContext, Result};
use crate::exact::ExactSum;
use crate::metric::Metrics;
use crate::metric::auc::weight_scale;
use crate::model::Scores;
use crate::model::calibrated::{Calibrated, CalibrationMap, to_mapped};
use fit::{Grid, counted, fit};
use std::ops::Range;
use std::time::Instant;

/// Maps that are fitted in one pass, with and without `--max-memory`: a megabyte of counts each.
const MAPS_A_PASS: [usize; 2] = [4, 64];

/// Trains a classifier and calibrates it. Collective; the same model on every rank.
///
/// # Errors
/// `Usage`, if the target is not of classes; `Data`, if a class has rows in one fold only; what the trainer says.
pub fn train_source(
    comm: &Communicator,
    source: &mut dyn DataSource,
    names: &TableNames,
    config: &TrainConfig,
    reading: &Reading,
    watch: &mut dyn Observer,
) -> Result<(Model, TrainReport)> {
    let Some(method) = config.calibrate else { return Err(Error::internal("nothing to calibrate by")) };
    let n_folds = config.calibrate_folds.unwrap_or(Calibrate::FOLDS);
    let of_model = TrainConfig { calibrate: None, calibrate_folds: None, ..config.clone() };
    let schema = source.schema().clone();
    if !of_model.for_table(schema.is_sparse, schema.target_kind()).responds_as().is_classifier() {
        return Err(Error::usage(format!(
            "calibrates probabilities of classes, but this '{}' predicts numbers, as the target holds them; leave it out",
            config.kind.name()
        )))
        .for_flag("--calibrate");
    }
    // More follows when it is done.
    let keeper = watch.keeper().part("whole");
    let mut of_whole = Keeping { observer: watch, keeper };
    let (model, mut report) = linear_family::train_source(comm, source, names, &of_model, reading, &mut of_whole)?;
    let began = Instant::now();
    let mut of_folds = Vec::new();
    for fold in 0..n_folds {
        let held_out = HeldOut::Fold { fold, folds: n_folds };
        let mut view = View::new(source, vec![Weighing::Without { held_out, seed: config.seed }]);
        let keeper = watch.keeper().part(&format!("calibration-{fold}"));
        let mut watch = Keeping { observer: &mut ProgressOnly(watch), keeper };
        let trained = linear_family::train_source(comm, &mut view, names, &of_model, reading, &mut watch);
        let (of_fold, _) = trained.map_err(|e| e.at(format!("without calibration fold {fold} of {n_folds}")))?;
        if of_fold.target != model.target {
            return Err(Error::data(format!(
                "a class has no rows outside of calibration fold {fold} of {n_folds}; use other --calibrate-folds or another --seed"
            )));
        }
        of_folds.push(of_fold);
    }
    let plan = RowPlan::full_batch(schema.n_rows, schema.columns.len());
    let blocks = plan.blocks(Partition::new(plan.n_units(), comm.size()).units_of(comm.rank()));
    let mut rows = Rows { source, blocks, config: &of_model, limit: reading.max_memory };
    let maps = fit_maps(comm, &mut rows, &model, &of_folds, method)?;
    drop(of_folds);
    let mut calibrated = Model {
        config: TrainConfig { calibrate: Some(method), calibrate_folds: Some(n_folds), ..model.config.clone() },
        names: names.clone(),
        preprocess: model.preprocess.clone(),
        target: model.target.clone(),
        continued: None,
        history: model.history.clone(),
        digest: String::new(),
        input_digest: model.input_digest.clone(),
        n_rows: model.n_rows,
        scores: Scores::Calibrated(Box::new(Calibrated { model, maps })),
    };
    calibrated.digest = digest(&calibrated)?;
    report.valid = rows.valid_metrics(comm, &calibrated)?;
    report.train_s += began.elapsed().as_secs_f64();
    Ok((calibrated, report))
}

/// Tells of progress; what there is to warn of was said of the model of all rows.
struct ProgressOnly<'w>(&'w mut dyn Observer);

impl Observer for ProgressOnly<'_> {
    fn progress(&mut self, progress: &Progress) {
        self.0.progress(progress);
    }

    fn warning(&mut self, _: &str) {}
}

/// The rows of this rank.
struct Rows<'s> {
    source: &'s mut dyn DataSource,
    blocks: Vec<Range<u64>>,
    config: &'s TrainConfig,
    limit: Option<u64>,
}

impl Rows<'_> {
    /// Shows all rows, with their classes and weights; those that `--valid-fraction` holds out with weight 0, or only these with
    /// their own. Not collective.
    fn each_batch(
        &mut self,
        model: &Model,
        is_valid: bool,
        mut visit: impl FnMut(&Block, &[f64], &[f64]) -> Result<()>,
    ) -> Result<()> {
        let hold = (self.config.valid_fraction > 0.0).then_some(HeldOut::Fraction(self.config.valid_fraction));
        let made = 8 + 2 * model.scores.n_scores() as u64;
        for_each_batch(self.source, &self.blocks, self.limit, made, |batch| {
            let Known { y, mut weight } = Known::of(model, batch)?;
            for (w, row) in weight.iter_mut().zip(batch.first_row..) {
                if hold.is_some_and(|hold| hold.holds_out(self.config.seed, row)) != is_valid {
                    *w = 0.0;
                }
            }
            visit(batch, &y, &weight)
        })
    }

    /// Metrics of the rows that `--valid-fraction` held out. Collective.
    fn valid_metrics(&mut self, comm: &Communicator, model: &Model) -> Result<Metrics> {
        if self.config.valid_fraction == 0.0 {
            return Ok(Metrics::new());
        }
        let room = self.limit.map(memory::of_measuring);
        let mut pass = |show: &mut Show<'_>| {
            let scorer = Scorer::new(model, self.source, "the table")?;
            self.each_batch(model, true, |batch, y, weight| {
                show(ScoredRows { y, weight, scores: &scorer.scores(batch)?, variances: &[] });
                Ok(())
            })
        };
        Ok(measure(comm, &Link::of(model), room, &mut pass)?.metrics)
    }
}

/// A map for each score of `model`, from scores that each row got from the model that did not see it. Collective.
fn fit_maps(
    comm: &Communicator,
    rows: &mut Rows<'_>,
    model: &Model,
    of_folds: &[Model],
    method: Calibrate,
) -> Result<Vec<CalibrationMap>> {
    let (mut total, mut is_weighted) = (ExactSum::new(), false);
    let passed = rows.each_batch(model, false, |_, _, weight| {
        for w in weight {
            total.add(*w);
            is_weighted |= *w != 0.0 && *w != 1.0;
        }
        Ok(())
    });
    comm.agree(passed)?;
    let [total] = sum_scalars(comm, &[total])?;
    let total = total.value().ok_or_else(|| Error::data("weights are not finite"))?;
    let scale = weight_scale(comm.agree_any(is_weighted)?, total);
    let grid = if model.scores.are_predictions() { Grid::SHARES } else { Grid::SCORES };
    let scorers: Result<Vec<Scorer<'_>>> =
        of_folds.iter().map(|model| Scorer::new(model, rows.source, "the table")).collect();
    let scorers = scorers?;
    let folds = of_folds.len() as u64;
    let k = model.scores.n_scores();
    let maps_a_pass = MAPS_A_PASS[usize::from(rows.limit.is_none())];
    let mut maps = Vec::with_capacity(k);
    while maps.len() < k {
        let here = maps.len()..(maps.len() + maps_a_pass).min(k);
        let mut words = vec![0u64; here.len() * 2 * Grid::POINTS];
        let mut is_number = true;
        let seed = rows.config.seed;
        let passed = rows.each_batch(model, false, |batch, y, weight| {
            for (fold, (scorer, of_fold)) in scorers.iter().zip(of_folds).enumerate() {
                let held_out = HeldOut::Fold { fold: fold as u64, folds };
                let mut scores = scorer.scores(batch)?;
                for (row, scores) in scores.chunks_exact_mut(k).enumerate() {
                    if weight[row] == 0.0 || !held_out.holds_out(seed, batch.first_row + row as u64) {
                        continue;
                    }
                    to_mapped(of_fold, scores);
                    let count = libm::rint(libm::scalbn(weight[row], scale)) as u64;
                    for (map, class) in here.clone().enumerate() {
                        let is_of = y[row] as usize == if k == 1 { 1 } else { class };
                        is_number &= !scores[class].is_nan();
                        let point = grid.nearest(scores[class]);
                        words[2 * (map * Grid::POINTS + point) + usize::from(is_of)] += count;
                    }
                }
            }
            Ok(())
        });
        comm.agree(passed)?;
        if comm.agree_any(!is_number)? {
            return Err(Error::data("a score is not a number: there is nothing to calibrate")).for_flag("--calibrate");
        }
        comm.all_reduce_sum(&mut words)?;
        maps.extend(words.chunks_exact(2 * Grid::POINTS).map(|words| fit(method, &counted(grid, words), scale)));
    }
    Ok(maps)
}
