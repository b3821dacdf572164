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
        BoostLoss::Squared => "regression".to_string(),
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
mod tests {
    use super::*;
    use crate::data::damage::damage;
    use crate::rng::{Draws, Stream};
    use serde_json::Value;

    fn told() -> Vec<Value> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference/lightgbm.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn text_of(case: &Value) -> &str {
        case["model"].as_str().unwrap()
    }

    fn numbers(case: &Value, name: &str) -> Vec<f64> {
        case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    }

    fn boosted(model: &Model) -> &Boosted {
        let Scores::Boosted(boosted) = &model.scores else { panic!("not boosted") };
        boosted
    }

    /// Scores, contributions and leaves of the rows of a case.
    fn say(boosted: &Boosted, case: &Value) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (k, d) = (boosted.n_scores(), boosted.n_features);
        let (mut scores, mut contributions, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        for row in case["rows"].as_array().unwrap() {
            let row: Vec<f64> =
                row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
            let (mut of_row, mut parts) = (vec![0.0; k], vec![0.0; k * (d + 1)]);
            boosted.scores(&row, &mut of_row);
            boosted.contributions(&row, &mut parts);
            scores.extend(of_row);
            contributions.extend(parts);
            leaves.extend(boosted.trees.iter().map(|tree| tree.leaf_of(&row) as f64));
        }
        (scores, contributions, leaves)
    }

    #[test]
    fn models_of_lightgbm_say_here_what_they_say_there() {
        let cases = told();
        assert_eq!(cases.len(), 18);
        for case in &cases {
            let model = from_text(text_of(case)).unwrap();
            let (scores, contributions, leaves) = say(boosted(&model), case);
            // The same sums in the same order, but for what a JSON text loses.
            for (found, right) in scores.iter().zip(numbers(case, "scores")) {
                approx::assert_relative_eq!(*found, right, max_relative = 1e-15);
            }
            assert_eq!(leaves, numbers(case, "leaves"));
            for (found, right) in contributions.iter().zip(numbers(case, "contributions")) {
                approx::assert_relative_eq!(*found, right, max_relative = 1e-9, epsilon = 1e-12);
            }
            assert_eq!(model.target.n_classes(), if scores.len() == 36 { 3 } else { model.target.n_classes() });
            assert_eq!(model.preprocess.feature_names(), ["X[0]", "X[1]", "X[2]", "X[3]"]);
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_its_start_in_the_first_trees() {
        for case in &told() {
            let mut model = from_text(text_of(case)).unwrap();
            let Scores::Boosted(boosted_here) = &mut model.scores else { panic!("not boosted") };
            boosted_here.start.iter_mut().for_each(|start| *start = 0.1);
            let again = from_text(&to_text(&model).unwrap()).unwrap();
            let (before, after) = (boosted(&model), boosted(&again));
            assert_eq!(after.start, vec![0.0; before.n_scores()]);
            assert_eq!(say(after, case).0, say(before, case).0, "bit for bit");
            assert_eq!(again.config.boost.as_ref().unwrap().loss, model.config.boost.as_ref().unwrap().loss);
            assert!(before.trees.iter().zip(&after.trees).all(|(one, other)| (
                &one.left_set,
                &one.left,
                &one.leaf_rows
            ) == (
                &other.left_set,
                &other.left,
                &other.leaf_rows
            )));
        }
    }

    #[test]
    fn categories_are_written_as_the_values_that_they_stand_for() {
        let mut model = from_text(text_of(&told()[0])).unwrap();
        let tree = Tree {
            feature: vec![2],
            threshold: vec![f64::INFINITY],
            missing_left: vec![false],
            left_set: vec![vec![0b101]],
            left: vec![-1],
            right: vec![-2],
            gain: vec![1.0],
            n_rows: vec![10],
            value: vec![-1.0, 2.0],
            leaf_rows: vec![4, 6],
        };
        model.scores = Scores::Boosted(Boosted { n_features: 4, start: vec![0.0], trees: vec![tree] });
        let column = &mut model.preprocess.columns[2];
        (column.is_category, column.values) = (true, vec![10.0, 30.0, 70.0]);
        let again = from_text(&to_text(&model).unwrap()).unwrap();
        for (code, score) in [(10.0, -1.0), (70.0, -1.0), (30.0, 2.0), (0.0, 2.0), (2.0, 2.0), (f64::NAN, 2.0)] {
            let mut found = [0.0];
            boosted(&again).scores(&[0.0, 0.0, code, 0.0], &mut found);
            assert_eq!(found, [score], "{code}");
        }
        for value in [-1.0, 0.5, 1e9] {
            model.preprocess.columns[2].values[0] = value;
            let error = to_text(&model).expect_err("no code").to_string();
            assert!(error.contains("whole numbers from 0"), "{error}");
        }
    }

    #[test]
    fn thresholds_beyond_1e300_are_written_as_they_are() {
        let mut model = from_text(text_of(&told()[0])).unwrap();
        let thresholds = [-1.5e307, 5e-324, 1.25e301, f64::MAX, f64::INFINITY];
        for threshold in thresholds {
            let Scores::Boosted(boosted) = &mut model.scores else { panic!("not boosted") };
            let at = boosted.trees[0].left_set.iter().position(Vec::is_empty).unwrap();
            boosted.trees[0].threshold[at] = threshold;
            let Scores::Boosted(again) = from_text(&to_text(&model).unwrap()).unwrap().scores else {
                panic!("not boosted")
            };
            assert_eq!(again.trees[0].threshold[at], threshold);
        }
    }

    #[test]
    fn a_model_without_trees_predicts_its_start() {
        let mut model = from_text(text_of(&told()[0])).unwrap();
        model.scores = Scores::Boosted(Boosted { n_features: 4, start: vec![0.25], trees: vec![] });
        let again = from_text(&to_text(&model).unwrap()).unwrap();
        let mut score = [0.0];
        boosted(&again).scores(&[0.0; 4], &mut score);
        assert_eq!(score, [0.25]);
    }

    #[test]
    fn what_a_loss_is_set_to_is_written_and_read() {
        let mut model = from_text(text_of(&told()[0])).unwrap();
        let settings = [
            (BoostLoss::Quantile, 0.3, 1.5, "alpha: 7"),
            (BoostLoss::Huber, 2.5, 1.5, "alpha: 0"),
            (BoostLoss::Tweedie, 0.9, 1.25, "tweedie_variance_power: 2"),
        ];
        for (loss, alpha, tweedie_power, wrong) in settings {
            let boost = BoostConfig { loss, alpha, tweedie_power, rounds: 3, ..BoostConfig::default() };
            model.config.boost = Some(boost.clone());
            let text = to_text(&model).unwrap();
            let again = from_text(&text).unwrap().config.boost.unwrap();
            assert_eq!((again.loss, again.alpha, again.tweedie_power), (loss, alpha, tweedie_power));
            let (name, _) = wrong.split_once(' ').unwrap();
            let right = text.lines().find(|line| line.starts_with(&format!("[{name}"))).unwrap();
            let error = from_text(&text.replace(right, &format!("[{wrong}]"))).expect_err(wrong).to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_text_that_was_cut_off_or_lost_trees_is_refused() {
        let text = text_of(&told()[0]).to_string();
        let at = |tree: usize| text.find(&format!("Tree={tree}\n")).unwrap();
        let last = text.find("end of trees").unwrap();
        let lost = format!("{}{}", &text[..at(1)], &text[at(2)..]);
        for (case, message) in [
            (text[..at(2)].to_string(), "cut off"),
            (text[..last].to_string(), "cut off"),
            (lost, "'tree_sizes' of the header"),
            (format!("{}\nend of trees\n", &text[..at(0)]), "has 0 trees"),
        ] {
            let error = from_text(&case).expect_err(message).to_string();
            assert!(error.contains(message), "{message}: {error}");
        }
        // No more classes are believed than there are trees.
        let header = text[..at(0)].replace("num_tree_per_iteration=1", "num_tree_per_iteration=100000000000");
        let header = header.replace("objective=binary sigmoid:1", "objective=multiclass");
        assert!(from_text(&format!("{header}\nend of trees\n")).is_err());
    }

    #[test]
    fn what_would_predict_otherwise_is_refused() {
        let text = text_of(&told()[0]).to_string();
        let broken: [(&str, &str, &str); 12] = [
            ("tree\n", "three\n", "first line"),
            ("sigmoid:1", "sigmoid:2", "'sigmoid:2'"),
            ("objective=binary", "objective=lambdarank", "lambdarank"),
            ("is_linear=0", "is_linear=1", "linear leaves"),
            ("label_index=0", "average_output", "average_output"),
            ("max_feature_idx=3", "max_feature_idx=2", "feature_names"),
            ("max_feature_idx=3", "max_feature_idx=-9223372036854775808", "max_feature_idx"),
            ("num_tree_per_iteration=1", "num_tree_per_iteration=0", "with 0 trees a round"),
            ("leaf_count=", "leaf_counts=", "lacks 'leaf_count' in tree 0"),
            ("left_child=", "left_child=7 ", "tree 0 is none"),
            ("leaf_value=", "leaf_value=x", "'leaf_value' of tree 0"),
            ("decision_type=", "decision_type=5 ", "sets"),
        ];
        for (before, after, message) in broken {
            assert!(text.contains(before), "{before}");
            let error = from_text(&text.replacen(before, after, 1)).expect_err(message).to_string();
            assert!(error.contains(message), "{message}: {error}");
        }
        assert!(from_text("").is_err());
        let sets = "num_cat=1\ncat_boundaries=0 1\ncat_threshold=1\ndecision_type=1 ";
        let far = text.replacen("threshold=", "threshold=1e300 ", 1).replacen("decision_type=", sets, 1);
        assert!(from_text(&far).expect_err("no set has this number").to_string().contains("sets"));
    }

    #[test]
    fn damaged_texts_are_read_or_refused() {
        let cases = told();
        for (at, case) in cases.iter().enumerate().filter(|(at, _)| at % 3 == 1) {
            for seed in 0..150 {
                let mut damaged = text_of(case).as_bytes().to_vec();
                // One damage alone often hides in a number.
                (0..3).for_each(|n| damage(&mut damaged, Draws::new(seed, Stream::Synthetic), 3 * at as u64 + n));
                if let Ok(model) = from_text(&String::from_utf8_lossy(&damaged)) {
                    let _ = to_text(&model);
                    if boosted(&model).n_features == 4 {
                        let _ = say(boosted(&model), case);
                    }
                }
            }
        }
    }
}
