//! Boosted trees in the text form that LightGBM's programs read and write (`version=v4`).
//!
//! Source: LightGBM's documentation and the files that its 4.x versions write; read in its Python package by
//! `lightgbm.Booster(model_file=…)`. What its form cannot say is refused, on both ways.

use crate::config::{BoostConfig, BoostLoss, Kind, TrainConfig};
use crate::data::ColumnKind;
use crate::data::names::TableNames;
use crate::error::{Error, Result};
use crate::model::{Boosted, ColumnCode, Model, Preprocess, Scores, TargetCoding, Tree};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// Bits of `decision_type`: splits by categories; missing values go left; NaN is what is missing.
const CATEGORIES: u32 = 1;
const MISSING_LEFT: u32 = 2;
const MISSING_SHIFT: u32 = 2;
const MISSING_NONE: u32 = 0;
const MISSING_NAN: u32 = 2;
/// Larger ranges, gains and values of leaves are not written there. Thresholds are: its library reads all of them, `inf` too.
const MOST: f64 = 1e300;

/// A boosted model as such a text. Not collective.
///
/// # Errors
/// `Usage`: other models.
pub fn to_text(model: &Model) -> Result<String> {
    if let Scores::Calibrated(_) = &model.scores {
        return Err(Error::usage(
            "is a calibrated model, and LightGBM's form has no place for that; train it without --calibrate",
        ));
    }
    let (Scores::Boosted(boosted), Some(boost)) = (&model.scores, &model.config.boost) else {
        return Err(Error::usage(format!(
            "is a '{}' model; LightGBM's form holds those of 'train boost' only",
            model.config.kind.name()
        )));
    };
    let k = boosted.n_scores();
    let mut trees = boosted.trees.clone();
    if trees.is_empty() {
        trees = vec![Tree { value: vec![0.0], leaf_rows: vec![model.n_rows], ..Tree::default() }; k];
    }
    write_codes(&mut trees, &model.preprocess.columns)?;
    // It has no scores to start from: the first trees carry them.
    for (tree, start) in trees.iter_mut().zip(&boosted.start) {
        tree.value.iter_mut().for_each(|value| *value += start);
    }
    let blocks: Vec<String> = trees.iter().enumerate().map(|(number, tree)| block_of(number, tree)).collect();
    let classes = if k > 1 { k } else { 1 };
    let names = model.preprocess.feature_names();
    let names: Vec<String> = names.iter().enumerate().map(|(at, name)| word_of(at, name)).collect();
    let mut text = String::from("tree\nversion=v4\n");
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name}={value}");
    };
    line("num_class", &classes);
    line("num_tree_per_iteration", &k);
    line("label_index", &0);
    line("max_feature_idx", &(boosted.n_features as i64 - 1));
    line("objective", &objective_of(boost, k));
    line("feature_names", &names.join(" "));
    line("feature_infos", &infos_of(boosted).join(" "));
    line("tree_sizes", &joined(blocks.iter().map(String::len)));
    text.push('\n');
    blocks.iter().for_each(|block| text.push_str(block));
    text.push_str("end of trees\n\nfeature_importances:\n");
    let mut counts: Vec<(usize, &String)> =
        counts_of(boosted).into_iter().zip(&names).filter(|(n, _)| *n > 0).collect();
    counts.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    for (n, name) in counts {
        let _ = writeln!(text, "{name}={n}");
    }
    text.push_str("\nparameters:\n");
    if let Some((name, value)) = parameters_of(boost) {
        let _ = writeln!(text, "[{name}: {value}]");
    }
    text.push_str("end of parameters\n\npandas_categorical:null\n");
    Ok(text)
}

/// Sets of places among a column's categories become sets of its values, which are what a program looks up. Text has places there too.
///
/// * `columns`: those of categories are one feature each.
fn write_codes(trees: &mut [Tree], columns: &[ColumnCode]) -> Result<()> {
    /// Sets of larger ones take too much room.
    const MOST_CODE: f64 = 1e6;
    let features: Vec<&ColumnCode> = columns.iter().flat_map(|column| vec![column; column.n_features()]).collect();
    for tree in trees {
        for (feature, set) in tree.feature.iter().zip(&mut tree.left_set) {
            let column = features[*feature as usize];
            if set.is_empty() || column.values.is_empty() {
                continue;
            }
            let mut codes: Vec<u64> = Vec::new();
            for place in (0..64 * set.len()).filter(|place| set[place / 64] >> (place % 64) & 1 == 1) {
                let value = column.values.get(place).copied().unwrap_or(f64::NAN);
                if !(value.fract() == 0.0 && (0.0..=MOST_CODE).contains(&value)) {
                    return Err(Error::usage(format!(
                        "column '{}' has the category {value}; LightGBM's form holds whole numbers from 0 to {MOST_CODE}",
                        column.name
                    )));
                }
                codes.push(value as u64);
            }
            *set = vec![0; codes.last().map_or(1, |most| *most as usize / 64 + 1)];
            codes.iter().for_each(|code| set[*code as usize / 64] |= 1 << (code % 64));
        }
    }
    Ok(())
}

fn objective_of(boost: &BoostConfig, k: usize) -> String {
    match boost.loss {
        BoostLoss::Squared | BoostLoss::Gaussian => "regression".to_string(),
        BoostLoss::Absolute => "regression_l1".to_string(),
        BoostLoss::Huber => "huber".to_string(),
        BoostLoss::Quantile => "quantile".to_string(),
        BoostLoss::Poisson => "poisson".to_string(),
        BoostLoss::Gamma => "gamma".to_string(),
        BoostLoss::Tweedie => "tweedie".to_string(),
        BoostLoss::Auto | BoostLoss::Logistic if k == 1 => "binary sigmoid:1".to_string(),
        BoostLoss::Auto | BoostLoss::Logistic => format!("multiclass num_class:{k}"),
    }
}

/// What its form says of a loss behind the trees.
fn parameters_of(boost: &BoostConfig) -> Option<(&'static str, f64)> {
    match boost.loss {
        BoostLoss::Huber | BoostLoss::Quantile => Some(("alpha", boost.alpha)),
        BoostLoss::Tweedie => Some(("tweedie_variance_power", boost.tweedie_power)),
        _ => None,
    }
}

/// A name without what ends one there. What has none is called by its place, as [`from_text`] expects it.
fn word_of(at: usize, name: &str) -> String {
    if name == format!("X[{at}]") {
        return format!("Column_{at}");
    }
    let is_special = |c: char| c.is_whitespace() || c.is_control() || "\",:[]{}".contains(c);
    name.chars().map(|c| if is_special(c) { '_' } else { c }).collect()
}

/// Ranges of the thresholds, by feature: it only shows them.
fn infos_of(boosted: &Boosted) -> Vec<String> {
    let mut ranges: Vec<Option<(f64, f64)>> = vec![None; boosted.n_features];
    for tree in &boosted.trees {
        for (feature, threshold) in tree.feature.iter().zip(&tree.threshold) {
            let range = &mut ranges[*feature as usize];
            let (low, high) = range.unwrap_or((*threshold, *threshold));
            *range = Some((low.min(*threshold), high.max(*threshold)));
        }
    }
    let info = |range: Option<(f64, f64)>| match range {
        Some((low, high)) => format!("[{:e}:{:e}]", low.clamp(-MOST, MOST), high.clamp(-MOST, MOST)),
        None => "none".to_string(),
    };
    ranges.into_iter().map(info).collect()
}

fn counts_of(boosted: &Boosted) -> Vec<usize> {
    let mut counts = vec![0; boosted.n_features];
    boosted.trees.iter().flat_map(|tree| &tree.feature).for_each(|feature| counts[*feature as usize] += 1);
    counts
}

fn joined<T: Display>(values: impl Iterator<Item = T>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
}

fn block_of(number: usize, tree: &Tree) -> String {
    let numbers = |values: &[f64]| joined(values.iter().map(|value| format!("{:e}", value.clamp(-MOST, MOST))));
    let (mut thresholds, mut bounds, mut words) = (Vec::new(), vec![0], Vec::new());
    for (threshold, set) in tree.threshold.iter().zip(&tree.left_set) {
        if set.is_empty() {
            thresholds.push(*threshold);
        } else {
            thresholds.push((bounds.len() - 1) as f64);
            words.extend(set.iter().flat_map(|word| [*word as u32, (word >> 32) as u32]));
            bounds.push(words.len());
        }
    }
    let decision = |(set, missing_left): (&Vec<u64>, &bool)| match set.is_empty() {
        true => MISSING_NAN << MISSING_SHIFT | if *missing_left { MISSING_LEFT } else { 0 },
        false => CATEGORIES | MISSING_NAN << MISSING_SHIFT,
    };
    let mut text = format!("Tree={number}\n");
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name}={value}");
    };
    line("num_leaves", &tree.n_leaves());
    line("num_cat", &(bounds.len() - 1));
    if !tree.feature.is_empty() {
        line("split_feature", &joined(tree.feature.iter()));
        line("split_gain", &numbers(&tree.gain));
        line("threshold", &joined(thresholds.iter().map(|threshold| format!("{threshold:e}"))));
        line("decision_type", &joined(tree.left_set.iter().zip(&tree.missing_left).map(decision)));
        line("left_child", &joined(tree.left.iter()));
        line("right_child", &joined(tree.right.iter()));
    }
    line("leaf_value", &numbers(&tree.value));
    if !tree.feature.is_empty() {
        line("leaf_count", &joined(tree.leaf_rows.iter()));
        line("internal_count", &joined(tree.n_rows.iter()));
        if bounds.len() > 1 {
            line("cat_boundaries", &joined(bounds.iter()));
            line("cat_threshold", &joined(words.iter()));
        }
    }
    line("is_linear", &0);
    line("shrinkage", &1);
    text.push_str("\n\n");
    text
}

/// A model from such a text: features by their names, classes by their numbers. Not collective.
///
/// # Errors
/// `Data`: what is no such text, and what would predict otherwise here.
pub fn from_text(text: &str) -> Result<Model> {
    let mut sections = text.split("\nTree=");
    let header = Section::of(sections.next().unwrap_or(""), "the header");
    if text.lines().next().map(str::trim) != Some("tree") {
        return Err(Error::data("is no model of LightGBM: its first line is not 'tree'"));
    }
    for flag in ["average_output", "linear_tree"] {
        if header.values.contains_key(flag) {
            return Err(Error::data(format!("says '{flag}', which cannot be kept here")));
        }
    }
    if !text.lines().any(|line| line.trim() == "end of trees") {
        return Err(Error::data("is cut off: it has no line 'end of trees'; copy the file again"));
    }
    let k: usize = header.number("num_tree_per_iteration")?;
    let n_features = header.number::<i64>("max_feature_idx")?.checked_add(1).and_then(|n| usize::try_from(n).ok());
    let n_features = n_features.ok_or_else(|| header.wrong("max_feature_idx", "a number of features"))?;
    let names = header.words("feature_names")?;
    if names.len() != n_features {
        return Err(header.wrong("feature_names", &format!("{n_features} names, as 'max_feature_idx' says")));
    }
    let (loss, n_classes) = loss_of(header.text("objective")?, k)?;
    let trees: Vec<Tree> = sections.map(|section| tree_of(section, n_features)).collect::<Result<_>>()?;
    if k == 0 || trees.is_empty() || !trees.len().is_multiple_of(k) {
        return Err(Error::data(format!("has {} trees, which are not rounds of {k}", trees.len())));
    }
    if header.values.contains_key("tree_sizes") && header.words("tree_sizes")?.len() != trees.len() {
        return Err(header.wrong("tree_sizes", &format!("the sizes of {} trees, which is what follows", trees.len())));
    }
    let n_rows = trees.first().map_or(0, |tree| tree.leaf_rows.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)));
    let columns = names.iter().enumerate().map(|(at, name)| {
        // What has no name there is called by its place.
        let name = if *name == format!("Column_{at}") { format!("X[{at}]") } else { name.to_string() };
        ColumnCode::new(name, ColumnKind::Wide)
    });
    let mut boost = BoostConfig { loss, rounds: (trees.len() / k) as u64, ..BoostConfig::default() };
    read_parameters(&mut boost, text)?;
    let config = TrainConfig { boost: Some(boost), ..TrainConfig::of(Kind::Boost) };
    let target = match n_classes {
        0 => TargetCoding::Number,
        n => TargetCoding::Integers((0..n as i64).collect()),
    };
    let boosted = Boosted { n_features, start: vec![0.0; k], trees };
    Ok(Model {
        preprocess: Preprocess {
            columns: columns.collect(),
            image: None,
            missing: config.missing,
            mean: Vec::new(),
            inverse_scale: Vec::new(),
        },
        config,
        names: TableNames::default(),
        target,
        scores: Scores::Boosted(boosted),
        continued: None,
        history: Vec::new(),
        digest: String::new(),
        input_digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
        n_rows,
    })
}

/// The loss of an objective, and its classes (0: numbers).
fn loss_of(objective: &str, k: usize) -> Result<(BoostLoss, usize)> {
    let mut words = objective.split_whitespace();
    let name = words.next().unwrap_or("");
    if let Some(word) = words.find(|word| !["sigmoid:1", &format!("num_class:{k}")].contains(word)) {
        return Err(Error::data(format!("has the objective '{objective}'; '{word}' cannot be kept here")));
    }
    match (name, k) {
        ("regression", 1) => Ok((BoostLoss::Squared, 0)),
        ("regression_l1", 1) => Ok((BoostLoss::Absolute, 0)),
        ("huber", 1) => Ok((BoostLoss::Huber, 0)),
        ("quantile", 1) => Ok((BoostLoss::Quantile, 0)),
        ("poisson", 1) => Ok((BoostLoss::Poisson, 0)),
        ("gamma", 1) => Ok((BoostLoss::Gamma, 0)),
        ("tweedie", 1) => Ok((BoostLoss::Tweedie, 0)),
        ("binary", 1) => Ok((BoostLoss::Logistic, 2)),
        ("multiclass", k) if k > 1 => Ok((BoostLoss::Logistic, k)),
        _ => Err(Error::data(format!(
            "has the objective '{objective}' with {k} trees a round; regression, regression_l1, huber, quantile, \
             poisson, gamma, tweedie, binary and multiclass are known"
        ))),
    }
}

/// What the text says of a loss behind the trees, in lines `[name: value]`; where it says nothing, its defaults are ours.
fn read_parameters(boost: &mut BoostConfig, text: &str) -> Result<()> {
    let Some((name, _)) = parameters_of(boost) else { return Ok(()) };
    let begin = format!("[{name}: ");
    let Some(word) = text.lines().find_map(|line| line.trim().strip_prefix(&begin)?.strip_suffix(']')) else {
        return Ok(());
    };
    let is_right = |value: &f64| match boost.loss {
        BoostLoss::Huber => *value > 0.0 && value.is_finite(),
        BoostLoss::Quantile => *value > 0.0 && *value < 1.0,
        _ => *value > 1.0 && *value < 2.0,
    };
    let value = word.parse().ok().filter(is_right);
    let value = value.ok_or_else(|| Error::data(format!("says '{name}: {word}', which cannot be kept here")))?;
    match boost.loss {
        BoostLoss::Tweedie => boost.tweedie_power = value,
        _ => boost.alpha = value,
    }
    Ok(())
}

/// Lines `name=value`.
struct Section<'t> {
    what: String,
    values: BTreeMap<&'t str, &'t str>,
}

impl<'t> Section<'t> {
    fn of(text: &'t str, what: &str) -> Section<'t> {
        let pair = |line: &'t str| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (name.trim(), value.trim())
        };
        let lines = text.lines().take_while(|line| line.trim() != "end of trees");
        Section { what: what.to_string(), values: lines.map(pair).collect() }
    }

    fn text(&self, name: &str) -> Result<&'t str> {
        self.values.get(name).copied().ok_or_else(|| Error::data(format!("lacks '{name}' in {}", self.what)))
    }

    fn words(&self, name: &str) -> Result<Vec<&'t str>> {
        Ok(self.text(name)?.split_ascii_whitespace().collect())
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        let found: String = self.values.get(name).unwrap_or(&"").chars().take(40).collect();
        Error::data(format!("'{name}' of {} is '{found}'; expected {expected}", self.what))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        self.text(name)?.parse().map_err(|_| self.wrong(name, "a number"))
    }

    fn numbers<T: std::str::FromStr>(&self, name: &str) -> Result<Vec<T>> {
        let parse = |word: &str| word.parse().map_err(|_| self.wrong(name, &format!("numbers, not '{word}'")));
        self.words(name)?.into_iter().map(parse).collect()
    }
}

fn tree_of(text: &str, n_features: usize) -> Result<Tree> {
    let number: String = text.chars().take_while(char::is_ascii_digit).take(12).collect();
    let section = Section::of(text, &format!("tree {number}"));
    if section.values.get("is_linear").is_some_and(|word| *word != "0") {
        return Err(Error::data(format!("tree {number} has linear leaves, which cannot be kept here")));
    }
    let value: Vec<f64> = section.numbers("leaf_value")?;
    if value.len() < 2 {
        // One leaf has no counts.
        let tree = Tree { leaf_rows: vec![0; value.len()], value, ..Tree::default() };
        tree.check(n_features)
            .map_err(|expected| Error::data(format!("tree {number} is none: expected {expected}")))?;
        return Ok(tree);
    }
    let mut tree = Tree {
        feature: section.numbers("split_feature")?,
        threshold: section.numbers("threshold")?,
        left: section.numbers("left_child")?,
        right: section.numbers("right_child")?,
        gain: section.numbers("split_gain")?,
        n_rows: section.numbers("internal_count")?,
        leaf_rows: section.numbers("leaf_count")?,
        value,
        ..Tree::default()
    };
    let decisions: Vec<u32> = section.numbers("decision_type")?;
    let (bounds, words): (Vec<usize>, Vec<u32>) = match section.number::<usize>("num_cat")? {
        0 => Default::default(),
        _ => (section.numbers("cat_boundaries")?, section.numbers("cat_threshold")?),
    };
    for (decision, threshold) in decisions.iter().zip(&mut tree.threshold) {
        if decision & CATEGORIES != 0 {
            // The threshold is the number of a set.
            let at = *threshold as usize;
            let range = bounds.get(at..).and_then(|bounds| bounds.first_chunk());
            let range = range.and_then(|[from, to]| words.get(*from..*to));
            let set = range.filter(|set| !set.is_empty()).ok_or_else(|| section.wrong("cat_boundaries", "sets"))?;
            let word = |pair: &[u32]| u64::from(pair[0]) | pair.get(1).map_or(0, |high| u64::from(*high) << 32);
            tree.left_set.push(set.chunks(2).map(word).collect());
            tree.missing_left.push(false);
            *threshold = f64::INFINITY;
            continue;
        }
        tree.left_set.push(Vec::new());
        tree.missing_left.push(match decision >> MISSING_SHIFT {
            // A missing value is 0 there.
            MISSING_NONE => 0.0 <= *threshold,
            MISSING_NAN => decision & MISSING_LEFT != 0,
            _ => {
                return Err(
                    section.wrong("decision_type", "splits whose missing values are NaN (zero_as_missing is not kept)")
                );
            }
        });
    }
    tree.check(n_features).map_err(|expected| Error::data(format!("tree {number} is none: expected {expected}")))?;
    Ok(tree)
}

#[cfg(test)]
mod tests;
