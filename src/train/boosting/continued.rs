//! Going on from the trees of a model: what must agree with it, its trees by the categories of this table, the scores they give.
//!
//! On the rows and with the settings that the model was trained with, everything goes on as if it had never stopped: draws are by the
//! number of the round, and a score is the start and the leaf values in the order of the rounds. Rows are led through the model's trees
//! by their values, since the bins of another table are others.

use super::super::categories;
use super::super::score::check_columns;
use super::super::{Model, TrainConfig};
use super::bins::BoostRows;
use super::{constraints, loss_of};
use crate::config::{BoostConfig, BoostLoss};
use crate::data::{Block, Schema, TargetKind};
use crate::error::{Error, InContext, Result};
use crate::exact::scale::{from_order_key, order_key};
use crate::model::{Boosted, Continued, Preprocess, Scores, TargetCoding, Tree};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

/// Where boosting goes on; the same on every rank but for the scores.
pub(super) struct Base<'a> {
    model: &'a Model,
    /// Sets of categories are by their places in this table's dictionaries.
    pub(super) boosted: Boosted,
    /// (rows here, scores)
    pub(super) scores: Vec<f64>,
    /// Nothing will be split by going on.
    pub(super) is_over: bool,
}

impl<'a> Base<'a> {
    /// Errors: what is known without reading rows does not agree with the model. Not collective; the same on every rank.
    ///
    /// * `preprocess`: columns that are marked as categories or not.
    pub(super) fn new(
        model: &'a Model,
        config: &TrainConfig,
        schema: &Schema,
        preprocess: &Preprocess,
    ) -> Result<Base<'a>> {
        let (Scores::Boosted(boosted), Some(before), Some(boost)) = (&model.scores, &model.config.boost, &config.boost)
        else {
            let name = model.config.kind.name();
            return Err(Error::usage(format!("goes on from boosted trees, and this is a '{name}' model")))
                .for_flag("--continue");
        };
        check_columns(model, schema)?;
        for (column, known) in preprocess.columns.iter().zip(&model.preprocess.columns) {
            if column.is_category != known.is_category {
                let (name, place) = (&column.name, if known.is_category { "a category" } else { "numbers" });
                return Err(Error::usage(format!(
                    "column '{name}' is {place} to the model that is continued; leave the flag out, and columns are what they are to it"
                )))
                .for_flag("--categorical");
            }
        }
        let n_classes = model.target.n_classes();
        let is_class = config.responds_as().is_classifier();
        if is_class != (n_classes > 0) || loss_of(before, n_classes) != loss_of(boost, n_classes) {
            let (found, expected) = (loss_words(boost), loss_words(before));
            return Err(Error::usage(format!(
                "the model that is continued has trees of {expected}, not of {found}; leave the flag out, or train a model of its own"
            )))
            .for_flag("--loss");
        }
        match (&model.target, schema.target) {
            (TargetCoding::Strings(_), Some(kind)) if kind != TargetKind::Text => {
                return Err(Error::data(
                    "the target holds numbers, and the classes of the model that is continued are strings",
                ));
            }
            (TargetCoding::Integers(_), Some(TargetKind::Text)) => {
                return Err(Error::data(
                    "the target holds strings, and the classes of the model that is continued are whole numbers",
                ));
            }
            _ => {}
        }
        check_constraints(before, boost, preprocess)?;
        Ok(Base { model, boosted: boosted.clone(), scores: Vec::new(), is_over: false })
    }

    /// Adds the model's categories to those of the table, and numbers the sets of its trees by both. Not collective.
    ///
    /// Errors: there are too many (data).
    pub(super) fn join_categories(&mut self, preprocess: &mut Preprocess) -> Result<()> {
        // By feature: the new place of each category of the model.
        let mut places: Vec<Vec<usize>> = Vec::new();
        for (column, known) in preprocess.columns.iter_mut().zip(&self.model.preprocess.columns) {
            let texts: BTreeSet<&String> = column.categories.iter().chain(&known.categories).collect();
            let keys = column.values.iter().chain(&known.values).map(|value| order_key(*value));
            let keys: Vec<i64> = keys.collect::<BTreeSet<i64>>().into_iter().collect();
            let texts: Vec<String> = texts.into_iter().cloned().collect();
            let of_texts = known.categories.iter().map(|text| texts.partition_point(|other| other < text));
            let of_keys = known.values.iter().map(|value| keys.partition_point(|other| *other < order_key(*value)));
            places.push(of_texts.chain(of_keys).collect());
            column.categories = texts;
            column.values = keys.into_iter().map(from_order_key).collect();
            categories::check_number(column)?;
        }
        for tree in &mut self.boosted.trees {
            for (feature, set) in tree.feature.iter().zip(&mut tree.left_set) {
                let places = &places[*feature as usize];
                if !set.is_empty() && !places.is_empty() {
                    *set = renumbered(set, places);
                }
            }
        }
        Ok(())
    }

    /// The model's classes. Errors: the table has others (data).
    pub(super) fn classes(&self, found: &TargetCoding) -> Result<TargetCoding> {
        let known = self.model.target.names();
        match found.names().into_iter().find(|name| !known.contains(name)) {
            None => Ok(self.model.target.clone()),
            Some(name) => Err(Error::data(format!(
                "the target holds the class '{name}', which the model that is continued does not know; its classes are {}",
                known.join(", ")
            ))),
        }
    }

    /// Adds the scores of a batch's rows. Rayon over blocks. Not collective.
    pub(super) fn add_rows(&mut self, batch: &Block, blocks: &[Range<usize>], preprocess: &Preprocess) -> Result<()> {
        /// Rows that a tree is walked by before the next.
        const ROWS: usize = 64;
        let (boosted, k, d) = (&self.boosted, self.boosted.n_scores(), self.boosted.n_features.max(1));
        let start = self.scores.len();
        self.scores.resize(start + batch.n_rows * k, 0.0);
        let mut rest = &mut self.scores[start..];
        let mut tasks = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (of_block, after) = rest.split_at_mut(block.len() * k);
            tasks.push((block.start, of_block));
            rest = after;
        }
        tasks.into_par_iter().try_for_each(|(first, scores)| {
            let mut rows = vec![0.0; ROWS * d];
            for (tile, scores) in scores.chunks_mut(ROWS * k).enumerate() {
                let n = scores.len() / k;
                for (i, row) in rows.chunks_exact_mut(d).take(n).enumerate() {
                    preprocess.encode_row(batch, first + tile * ROWS + i, row)?;
                }
                boosted.scores(&rows[..n * d], scores);
            }
            Ok(())
        })
    }

    /// The model was trained on these rows.
    pub(super) fn has_seen(&self, n_rows: u64, input_digest: &str) -> bool {
        self.model.input_digest == input_digest && self.model.n_rows == n_rows
    }

    /// The rows are the model's, but those that are held out are not those that were.
    pub(super) fn has_learned_from_held_out(&self, config: &TrainConfig, rows: &BoostRows<'_>) -> bool {
        let held_out = |config: &TrainConfig| (config.valid_fraction, config.seed);
        config.valid_fraction > 0.0
            && held_out(config) != held_out(&self.model.config)
            && self.has_seen(rows.n_rows, &rows.input_digest.to_hex())
    }

    /// How a boosting of all rounds is set, and which of them it does not grow itself. `config`: its rounds are those to be added. Not
    /// collective; the same on every rank.
    ///
    /// Rounds are added to those there are; with the data and settings of the model to those that were asked for then, as if it had
    /// been asked for all at once.
    pub(super) fn whole(
        &mut self,
        config: &TrainConfig,
        n_rows: u64,
        input_digest: &str,
    ) -> (TrainConfig, Option<Continued>) {
        let is_same = self.has_seen(n_rows, input_digest) && settings(config) == settings(&self.model.config);
        let n_rounds = self.boosted.n_rounds();
        let (mut config, mut before) = (config.clone(), n_rounds as u64);
        if let (Some(boost), Some(of_model)) = (&mut config.boost, &self.model.config.boost) {
            if is_same {
                before = of_model.rounds;
                let is_grown_here = self.model.continued.as_ref().is_none_or(|from| from.rounds < n_rounds);
                self.is_over = is_grown_here && n_rounds > 0 && is_over(&self.boosted, boost);
            }
            boost.rounds = before.saturating_add(boost.rounds);
        }
        let from = Continued { rounds: n_rounds, digest: self.model.digest.clone() };
        (config, if is_same { self.model.continued.clone() } else { Some(from) })
    }

    /// What the model's history of this name says of its rounds; nothing where it says not enough.
    pub(super) fn history(&self, name: &str) -> Vec<f64> {
        let n_rounds = self.boosted.n_rounds();
        let of_name = self.model.history.iter().find(|(known, values)| known == name && values.len() >= n_rounds);
        of_name.map_or_else(Vec::new, |(_, values)| values[..n_rounds].to_vec())
    }
}

/// These settings, with the model's loss where none was chosen.
pub(super) fn with_loss_of(model: &Model, config: &TrainConfig) -> TrainConfig {
    let mut config = config.clone();
    if let (Some(boost), Some(of_model)) = (&mut config.boost, &model.config.boost)
        && boost.loss == BoostLoss::Auto
    {
        boost.loss = of_model.loss;
    }
    config
}

/// Whether the last round did nothing, so that no later one will: each sees the same rows and features.
pub(super) fn is_over(boosted: &Boosted, boost: &BoostConfig) -> bool {
    let columns = [boost.column_sample, boost.column_sample_level, boost.column_sample_node];
    let sees_all = boost.row_sample == 1.0 && columns.iter().all(|share| *share == 1.0);
    let last = boosted.trees.rchunks(boosted.n_scores()).next().unwrap_or(&[]);
    // What one leaf adds may be what the rounding of pairs left over.
    let does_nothing =
        |(tree, start): (&Tree, &f64)| tree.n_leaves() == 1 && tree.value[0].abs() <= 1e-6 * (1.0 + start.abs());
    sees_all && last.iter().zip(&boosted.start).all(does_nothing)
}

/// All but how many rounds there are, and what changes no model.
fn settings(config: &TrainConfig) -> TrainConfig {
    let mut config = TrainConfig { folds: 0, solver_may_change: false, ..config.clone() };
    config.boost.iter_mut().for_each(|boost| boost.rounds = 0);
    config
}

fn loss_words(boost: &BoostConfig) -> String {
    let name = format!("{:?}", boost.loss).to_lowercase();
    match boost.loss {
        BoostLoss::Huber | BoostLoss::Quantile => format!("{name} with --alpha {}", boost.alpha),
        BoostLoss::Tweedie => format!("{name} with --tweedie-power {}", boost.tweedie_power),
        _ => name,
    }
}

/// Errors: constraints that the model's trees were not grown under, which the sum of all trees would break.
fn check_constraints(before: &BoostConfig, boost: &BoostConfig, preprocess: &Preprocess) -> Result<()> {
    let (old, new) = (constraints::monotone(before, preprocess)?, constraints::monotone(boost, preprocess)?);
    let is_kept = new.iter().enumerate().all(|(at, way)| *way == 0 || old.get(at) == Some(way));
    let groups = |boost| {
        let mut groups = constraints::interactions(boost, preprocess)?;
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort_unstable();
        Ok::<_, Error>(groups)
    };
    let flag = match is_kept {
        false => "--monotone",
        true if !boost.interactions.is_empty() && groups(before)? != groups(boost)? => "--interactions",
        true => return Ok(()),
    };
    let why =
        "trees of the model that is continued were grown without this; leave the flag out, or train a model of its own";
    Err(Error::usage(why)).for_flag(flag)
}

/// A set of categories by their new places.
fn renumbered(set: &[u64], places: &[usize]) -> Vec<u64> {
    // Never empty: a node without a set splits by its threshold.
    let mut new = vec![0];
    for (category, place) in places.iter().enumerate() {
        if set.get(category / 64).is_some_and(|word| word >> (category % 64) & 1 == 1) {
            new.resize(new.len().max(place / 64 + 1), 0);
            new[place / 64] |= 1 << (place % 64);
        }
    }
    new
}
