//! A model's scores of a table's rows, and what they say: the common part of `predict` and `evaluate`.

use super::ensemble::score::EnsembleScorer;
use super::forest::OutOfBag;
use super::memory;
use super::prepare::objective;
use super::{Kind, Model};
use crate::comm::Communicator;
use crate::config::{BootstrapKind, Scope as ForestScope};
use crate::data::hdf5::Hdf5Source;
use crate::data::partition::{Partition, RowPlan};
use crate::data::{Block, ColumnKind, DataSource, Schema, SparseRows, Values};
use crate::error::{Error, InContext, Result};
use crate::functions::check_denormals;
use crate::metric::classification::most_probable;
use crate::model::preprocess::standardised;
use crate::model::{Calibrated, Features, Forest, LinearModel, Lockstep, Network, Row, Scores};
use crate::objective::Objective;
use rayon::prelude::*;
use std::ops::Range;
use std::path::PathBuf;

/// Values read at a time where memory does not matter: whole blocks, at least one.
const BATCH_VALUES: u64 = 4 << 20;
/// Rows that one task scores.
const TASK_ROWS: usize = 512;

/// From scores to what people want to know.
pub struct Link {
    pub kind: Kind,
    /// 0 for numbers.
    pub n_classes: usize,
    /// Numbers that are predicted of a row; 1 for a class.
    pub n_targets: usize,
    /// Whether a score comes with the variance of the density whose mean it is.
    pub has_variance: bool,
    /// Whose inverse link it is; None: scores are predictions.
    objective: Option<Box<dyn Objective>>,
}

impl Link {
    /// Of scores before the inverse link.
    pub fn new(kind: Kind, n_classes: usize) -> Link {
        Link { kind, n_classes, n_targets: 1, has_variance: false, objective: Some(objective(kind, n_classes)) }
    }

    /// Of scores that are predictions: numbers, the share of class 1 of two classes, or the share of each class.
    pub fn of_predictions(n_classes: usize) -> Link {
        let kind = if n_classes == 0 { Kind::Linear } else { Kind::Logistic };
        Link { kind, n_classes, n_targets: 1, has_variance: false, objective: None }
    }

    /// Of a model's scores.
    pub fn of(model: &Model) -> Link {
        let link = match model.scores.are_predictions() {
            true => Link::of_predictions(model.target.n_classes()),
            false => Link::new(model.config.responds_as(), model.target.n_classes()),
        };
        link.for_targets(model.target.n_targets()).with_variance(model.scores.has_variance())
    }

    /// The same of as many scores as targets.
    pub fn for_targets(self, n_targets: usize) -> Link {
        Link { n_targets, ..self }
    }

    /// The same of scores that come with variances, or without.
    pub fn with_variance(self, has_variance: bool) -> Link {
        Link { has_variance, ..self }
    }

    pub fn n_scores(&self) -> usize {
        let of_classes = if self.n_classes > 2 { self.n_classes } else { 1 };
        self.objective.as_ref().map_or(of_classes, |objective| objective.n_scores()).max(self.n_targets)
    }

    /// A number's prediction.
    pub fn number(&self, score: f64) -> f64 {
        let mut score = [score];
        self.predict(&mut score);
        score[0]
    }

    fn predict(&self, scores: &mut [f64]) {
        self.objective.iter().for_each(|objective| objective.to_prediction(scores));
    }

    /// Each class's share of one row, (n_classes): its probability, or for `svm`, which has none, 1 for the class
    /// of the largest score.
    pub fn shares(&self, scores: &[f64], shares: &mut [f64]) {
        match (self.kind, scores) {
            (Kind::Svm, scores) => {
                shares.fill(0.0);
                shares[self.largest(scores)] = 1.0;
            }
            (_, [score]) => {
                shares[1] = self.number(*score);
                shares[0] = 1.0 - shares[1];
            }
            (_, scores) => {
                shares.copy_from_slice(scores);
                self.predict(shares);
            }
        }
    }

    /// The class of the largest score, the lower one on a tie.
    fn largest(&self, scores: &[f64]) -> usize {
        if let [score] = scores { usize::from(*score > 0.0) } else { most_probable(scores) }
    }
}

/// Scores rows of a table as its model wants them.
pub struct Scorer<'m> {
    model: &'m Model,
    by: By<'m>,
    /// Only trees that did not draw a row are asked.
    out_of_bag: Option<OutOfBag>,
}

/// What scores rows.
enum By<'m> {
    Linear(&'m LinearModel),
    Network(&'m Network),
    Trees(Lockstep<'m>),
    Forest(&'m Forest),
    Members(Box<EnsembleScorer<'m>>),
    /// Of what is calibrated, and by what.
    Calibrated(Box<Scorer<'m>>, &'m Calibrated),
}

impl<'m> Scorer<'m> {
    /// Checks that the table has the model's columns. `table`: its name for messages. Not collective; all ranks alike.
    pub fn new(model: &'m Model, source: &dyn DataSource, table: &str) -> Result<Scorer<'m>> {
        check_columns(model, source.schema()).in_file(table)?;
        Scorer::unchecked(model)
    }

    /// For tables that are known to have the model's columns.
    pub(super) fn unchecked(model: &'m Model) -> Result<Scorer<'m>> {
        let by = match &model.scores {
            Scores::Linear(linear) => By::Linear(linear),
            Scores::Mlp(network) => By::Network(network),
            Scores::Boosted(boosted) => By::Trees(Lockstep::new(boosted)),
            Scores::Forest(forest) => By::Forest(forest),
            Scores::Ensemble(ensemble) => {
                let columns = &model.preprocess.columns;
                By::Members(Box::new(EnsembleScorer::new(ensemble, columns, &model.target)?))
            }
            Scores::Calibrated(of) => By::Calibrated(Box::new(Scorer::unchecked(&of.model)?), of),
        };
        Ok(Scorer { model, by, out_of_bag: None })
    }

    /// Of the table that a forest was trained on: each row by the trees that did not draw it. Not collective; all ranks alike.
    ///
    /// * `rows`: those that are to be predicted; where the forest was trained on some rows of the table, these.
    pub fn out_of_bag(
        model: &'m Model,
        source: &dyn DataSource,
        rows: Option<&Range<u64>>,
        table: &str,
    ) -> Result<Scorer<'m>> {
        if let Scores::Calibrated(of) = &model.scores {
            let by = By::Calibrated(Box::new(Scorer::out_of_bag(&of.model, source, rows, table)?), of);
            return Ok(Scorer { model, by, out_of_bag: None });
        }
        let wrong = |text: String| Err(Error::usage(text)).for_flag("--oob");
        let (Scores::Forest(forest), Some(settings)) = (&model.scores, &model.config.forest) else {
            return wrong(format!("a '{}' model draws no rows for trees; it is for forests", model.config.kind.name()));
        };
        if settings.bootstrap == BootstrapKind::None && settings.scope == ForestScope::Global {
            return wrong("every tree of this forest took every row; train it with --bootstrap poisson".to_string());
        }
        let found = source.schema().n_rows;
        // The row that training numbered 0.
        let first = match rows {
            _ if found == model.n_rows => 0,
            Some(rows) if rows.end - rows.start == model.n_rows => rows.start,
            _ => {
                return wrong(format!(
                    "wants the rows that the forest was trained on: {table} has {found} rows, and these were {}; give --rows as training did",
                    model.n_rows
                ));
            }
        };
        let out_of_bag =
            Some(OutOfBag::new(&model.config, settings, model.n_rows, &forest.numbers).of_rows_from(first));
        Ok(Scorer { out_of_bag, ..Scorer::new(model, source, table)? })
    }

    /// Scores as [`scores`](Self::scores), and the variance of each row where the model has one; else no variances. Not collective; rayon over rows.
    pub fn scores_and_variances(&self, block: &Block) -> Result<(Vec<f64>, Vec<f64>)> {
        let By::Network(network) = self.by else { return Ok((self.scores(block)?, Vec::new())) };
        if !network.has_variance {
            return Ok((self.scores(block)?, Vec::new()));
        }
        let d = network.n_features.max(1);
        let (mut scores, mut variances) = (vec![0.0; block.n_rows], vec![0.0; block.n_rows]);
        let tasks = scores.par_chunks_mut(TASK_ROWS).zip(variances.par_chunks_mut(TASK_ROWS)).enumerate();
        let scored = tasks.map(|(task, (scores, variances))| -> Result<()> {
            let first = task * TASK_ROWS;
            let rows = self.standardised(block, first..first + scores.len())?;
            network.scores_and_variances(rows.chunks_exact(d).map(Row::Dense), scores, variances);
            Ok(())
        });
        scored.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()?;
        Ok((scores, variances))
    }

    /// (rows, n_scores), offset included. Not collective; rayon over rows, each on its own.
    pub fn scores(&self, block: &Block) -> Result<Vec<f64>> {
        if let By::Members(members) = &self.by {
            return members.scores(block); // each adds the offset to its own
        }
        if let By::Calibrated(scorer, of) = &self.by {
            let mut scores = scorer.scores(block)?;
            let rows = scores.par_chunks_exact_mut(self.model.scores.n_scores()).with_min_len(TASK_ROWS);
            rows.for_each(|scores| of.to_probabilities(scores));
            return Ok(scores);
        }
        let (preprocess, of_features) = (&self.model.preprocess, &self.model.scores);
        let (d, k) = (of_features.n_features(), of_features.n_scores());
        let mut scores = vec![0.0; block.n_rows * k];
        let keeps_zeros = matches!(block.values, Values::Sparse(_)) && preprocess.keeps_zeros();
        let score = |(task, scores): (usize, &mut [f64])| -> Result<()> {
            let first = task * TASK_ROWS;
            let n_rows = scores.len() / k;
            match &self.by {
                By::Members(_) => {}
                By::Trees(forest) => forest.scores(&self.encoded(block, first..first + n_rows)?, scores),
                By::Forest(forest) => {
                    let rows = self.encoded(block, first..first + n_rows)?;
                    let first_row = block.first_row + first as u64;
                    match &self.out_of_bag {
                        None => forest.scores(&rows, scores),
                        Some(out) => {
                            forest.scores_of(&rows, scores, |tree, row| out.is_out(tree, first_row + row as u64));
                            if let Some(row) = scores.chunks_exact(k).position(|scores| scores[0].is_nan()) {
                                return Err(Error::data(format!(
                                    "row {} was drawn by all {} trees, so that none can predict it unseen; train more trees",
                                    first_row + row as u64,
                                    forest.trees.len()
                                )))
                                .for_flag("--oob");
                            }
                        }
                    }
                }
                By::Calibrated(..) => return Err(Error::internal("calibrated scores are those of another model")),
                By::Linear(linear) if keeps_zeros => {
                    let mut rows = SparseRows::default();
                    preprocess.standardise_sparse(block, first..first + n_rows, &mut rows)?;
                    let rows = Features::Sparse(rows);
                    for (slot, scores) in scores.chunks_exact_mut(k).enumerate() {
                        linear.score_row(rows.row(slot, d), scores);
                    }
                }
                By::Linear(linear) => linear.scores(&self.standardised(block, first..first + n_rows)?, scores),
                By::Network(network) => {
                    let rows = self.standardised(block, first..first + n_rows)?;
                    network.scores(rows.chunks_exact(d.max(1)).map(Row::Dense), scores);
                }
            }
            if let Some(offset) = &block.offset {
                for (scores, offset) in scores.chunks_exact_mut(k).zip(&offset[first..]) {
                    scores.iter_mut().for_each(|score| *score += offset);
                }
            }
            Ok(())
        };
        let scored: Vec<Result<()>> = scores.par_chunks_mut(TASK_ROWS * k).enumerate().map(score).collect();
        scored.into_iter().collect::<Result<()>>()?;
        Ok(scores)
    }
}

impl Scorer<'_> {
    /// What each feature adds to each score, and last what is left, (rows, n_scores, features + 1): their sum is the score. Of a
    /// linear model coefficient times standardised value, of trees Shapley values. Not collective; rayon over rows.
    pub fn contributions(&self, block: &Block) -> Result<Vec<f64>> {
        let (preprocess, of_features) = (&self.model.preprocess, &self.model.scores);
        let (d, k) = (of_features.n_features(), of_features.n_scores());
        let mut all = vec![0.0; block.n_rows * k * (d + 1)];
        let of_task = |(task, all): (usize, &mut [f64])| -> Result<()> {
            let first = task * TASK_ROWS;
            let n_rows = all.len() / (k * (d + 1));
            let rows = self.encoded(block, first..first + n_rows)?;
            for (slot, of_row) in all.chunks_exact_mut(k * (d + 1)).enumerate() {
                let row = &rows[slot * d..(slot + 1) * d];
                match of_features {
                    Scores::Ensemble(_) => return Err(Error::usage("--contributions: a model of several has none")),
                    Scores::Boosted(boosted) => boosted.contributions(row, of_row),
                    Scores::Forest(_) => return Err(Error::internal("contributions of a forest")),
                    Scores::Mlp(_) => return Err(Error::internal("contributions of a network")),
                    Scores::Calibrated(_) => return Err(Error::internal("contributions to probabilities")),
                    Scores::Linear(linear) => {
                        for (of_score, params) in of_row.chunks_exact_mut(d + 1).zip(linear.params.chunks_exact(d + 1))
                        {
                            for j in 0..d {
                                let z = standardised(row[j], preprocess.mean[j], preprocess.inverse_scale[j]);
                                of_score[j] = params[j] * f64::from(z);
                            }
                            of_score[d] = params[d];
                        }
                    }
                }
                if let Some(offset) = &block.offset {
                    of_row.chunks_exact_mut(d + 1).for_each(|of_score| of_score[d] += offset[first + slot]);
                }
            }
            Ok(())
        };
        let done: Vec<Result<()>> = all.par_chunks_mut(TASK_ROWS * k * (d + 1)).enumerate().map(of_task).collect();
        done.into_iter().collect::<Result<()>>()?;
        Ok(all)
    }

    /// The leaf of each row in each tree, (rows, trees); nothing of a linear model. Not collective; rayon over rows.
    pub fn leaves(&self, block: &Block) -> Result<Vec<u32>> {
        if let By::Calibrated(scorer, _) = &self.by {
            return scorer.leaves(block);
        }
        let n_trees = self.model.scores.n_trees();
        let mut all = vec![0; block.n_rows * n_trees];
        let of_task = |(task, all): (usize, &mut [u32])| -> Result<()> {
            let first = task * TASK_ROWS;
            let rows = self.encoded(block, first..first + all.len() / n_trees)?;
            match &self.by {
                By::Trees(trees) => trees.leaves(&rows, all),
                By::Forest(forest) => forest.leaves(&rows, all),
                By::Linear(_) | By::Network(_) | By::Members(_) | By::Calibrated(..) => {}
            }
            Ok(())
        };
        let tasks = all.par_chunks_mut((TASK_ROWS * n_trees).max(1)).enumerate();
        let done: Vec<Result<()>> = tasks.map(of_task).collect();
        done.into_iter().collect::<Result<()>>()?;
        Ok(all)
    }

    /// Rows as the model takes them, (rows, features).
    fn standardised(&self, block: &Block, rows: Range<usize>) -> Result<Vec<f32>> {
        let preprocess = &self.model.preprocess;
        let d = self.model.scores.n_features();
        let (mut encoded, mut all) = (vec![0.0; d], Vec::with_capacity(rows.len() * d));
        for i in rows {
            preprocess.encode_row(block, i, &mut encoded)?;
            let moments = preprocess.mean.iter().zip(&preprocess.inverse_scale);
            let rescaled = encoded.iter().zip(moments);
            all.extend(rescaled.map(|(x, (mean, scale))| standardised(*x, *mean, *scale)));
        }
        Ok(all)
    }

    /// Rows as numbers, (rows, features).
    fn encoded(&self, block: &Block, rows: Range<usize>) -> Result<Vec<f64>> {
        let d = self.model.scores.n_features();
        let mut encoded = vec![0.0; rows.len() * d];
        for (i, row) in rows.zip(encoded.chunks_exact_mut(d.max(1))) {
            self.model.preprocess.encode_row(block, i, row)?;
        }
        Ok(encoded)
    }
}

/// Do the table's columns fit the model's? Not collective; the same on every rank.
pub(super) fn check_columns(model: &Model, schema: &Schema) -> Result<()> {
    let (wanted, found) = (&model.preprocess.columns, &schema.columns);
    let missing = wanted.iter().find(|w| !found.iter().any(|f| f.name == w.name));
    if model.scores.look_at_images() {
        model.preprocess.check_image(schema.image)?;
    }
    if wanted.len() != found.len() {
        // Said in pixels where both are images.
        schema.image.map_or(Ok(()), |image| model.preprocess.check_image(Some(image)))?;
        let first = match missing {
            Some(column) => format!("first missing: '{}'", column.name),
            None => {
                let extra = found.iter().find(|f| !wanted.iter().any(|w| f.name == w.name));
                format!("first that it does not know: '{}'", extra.map_or("?", |column| &column.name))
            }
        };
        return Err(Error::data(format!(
            "the features have {} columns but the model was trained on {} ({first}); choose columns with --features",
            found.len(),
            wanted.len()
        )));
    }
    for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
        if wanted.name != found.name && !(is_numbered(&wanted.name) && is_numbered(&found.name)) {
            return Err(Error::data(format!(
                "column {i} of the features is '{}' but the model was trained on '{}' there; choose columns with \
                 --features, in the model's order",
                found.name, wanted.name
            )));
        }
        let is_text = |kind: ColumnKind| kind == ColumnKind::Text;
        if is_text(wanted.kind) != is_text(found.kind) {
            let word = |kind| if is_text(kind) { "strings" } else { "numbers" };
            return Err(Error::data(format!(
                "column '{}' holds {} but the model was trained on {}",
                found.name,
                word(found.kind),
                word(wanted.kind)
            )));
        }
    }
    Ok(())
}

/// `X[3]`: a column that is known by its place only.
fn is_numbered(name: &str) -> bool {
    let inside = name.rsplit_once('[').and_then(|(_, tail)| tail.strip_suffix(']'));
    inside.is_some_and(|tail| !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit() || b == b','))
}

/// The name of a table for messages: its file, or the first of them.
pub fn table_name(paths: &[PathBuf]) -> String {
    match paths {
        [] => String::new(),
        [path] => path.display().to_string(),
        [path, rest @ ..] => format!("{} (and {} more)", path.display(), rest.len()),
    }
}

/// This rank's blocks of the wanted rows, in row order. Not collective; all ranks fail alike.
pub fn rows_of_rank(comm: &Communicator, source: &Hdf5Source, rows: Option<Range<u64>>) -> Result<Vec<Range<u64>>> {
    let schema = source.schema();
    let rows = rows.unwrap_or(0..schema.n_rows);
    if rows.is_empty() || rows.end > schema.n_rows {
        let message = format!("--rows {}..{}: the table has rows 0..{}", rows.start, rows.end, schema.n_rows);
        return Err(Error::usage(message));
    }
    let plan = RowPlan::full_batch(rows.end - rows.start, schema.columns.len());
    let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
    let shifted = |block: Range<u64>| block.start + rows.start..block.end + rows.start;
    Ok(plan.blocks(units).into_iter().map(shifted).collect())
}

/// Reads these blocks in runs and shows each run. Not collective.
///
/// * `limit`: bytes that the rank may take.
/// * `made`: values of eight bytes that are made of a row.
pub fn for_each_batch(
    source: &mut dyn DataSource,
    blocks: &[Range<u64>],
    limit: Option<u64>,
    made: u64,
    mut visit: impl FnMut(&Block) -> Result<()>,
) -> Result<()> {
    let per_row = source.count_values(blocks)?.per_row.max(1);
    let (per_row, most) = match limit {
        None => (per_row, BATCH_VALUES),
        Some(bytes) => (per_row + made, memory::batch_values(Some(bytes))),
    };
    let mut batch = Block::empty();
    let mut at = 0;
    while at < blocks.len() {
        let first = blocks[at].start;
        at += 1;
        while at < blocks.len() && (blocks[at].end - first) * per_row <= most {
            at += 1;
        }
        source.read(first..blocks[at - 1].end, &mut batch)?;
        visit(&batch)?;
    }
    check_denormals() // reading may have loaded a filter plugin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::memory::MemorySource;
    use crate::data::names::TableNames;
    use crate::data::{Image, synthetic};
    use crate::train::linear_family::train_source;
    use crate::train::{Reading, Silent, TrainConfig};

    #[test]
    fn columns_known_by_place() {
        for (name, numbered) in [("X[3]", true), ("a/b[0,2]", true), ("X", false), ("X[]", false), ("pt[GeV]", false)] {
            assert_eq!(is_numbered(name), numbered, "{name}");
        }
    }

    #[test]
    fn images_of_another_size_are_named_by_their_shape_and_the_shape_is_no_part_of_a_digest() {
        let image = |height, width| Image { height, width, channels: 1 };
        let flat = synthetic::logistic(97, 6, 3).unwrap();
        let train = |table: &MemorySource| {
            let config = TrainConfig::default().resolved().unwrap();
            let (names, reading) = (TableNames::default(), Reading::default());
            train_source(&Communicator::solo(), &mut table.clone(), &names, &config, &reading, &mut Silent).unwrap().0
        };
        let of_images = train(&flat.clone().with_image(image(2, 3)));
        assert_eq!(of_images.preprocess.image, Some(image(2, 3)));
        assert_eq!(of_images.digest, train(&flat).digest);
        let wider = synthetic::logistic(9, 8, 3).unwrap().with_image(image(2, 4));
        let refused = check_columns(&of_images, wider.schema()).unwrap_err().to_string();
        assert!(refused.starts_with("the images are 2 × 4 × 1 but the model was trained on 2 × 3 × 1; "), "{refused}");
        // What is made of columns does not ask how they lie.
        assert_eq!(check_columns(&of_images, flat.clone().with_image(image(3, 2)).schema()), Ok(()));
        assert_eq!(check_columns(&of_images, flat.schema()), Ok(()));
    }

    #[test]
    fn two_classes_share_one_score_and_ties_go_to_the_lower_class() {
        let mut shares = [0.0; 2];
        Link::new(Kind::Logistic, 2).shares(&[0.0], &mut shares);
        assert_eq!((shares, most_probable(&shares)), ([0.5, 0.5], 0));
        Link::new(Kind::Svm, 2).shares(&[0.1], &mut shares);
        assert_eq!(shares, [0.0, 1.0]);
        Link::new(Kind::Svm, 2).shares(&[0.0], &mut shares);
        assert_eq!(shares, [1.0, 0.0]);
        let mut shares = [0.0; 3];
        Link::new(Kind::Svm, 3).shares(&[-2.0, -1.0, -1.0], &mut shares);
        assert_eq!(shares, [0.0, 1.0, 0.0]);
    }
}
