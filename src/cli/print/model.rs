//! What is in a model, for people and for programs.

use super::super::tree::{categories_of, drawn};
use super::{Printer, count, members, shortened};
use crate::error::{Error, Result};
use crate::model::forest::ForestTree;
use crate::model::{CalibrationMap, Scores};
use crate::store::ModelFile;
use crate::train::Model;
use serde_json::{Value, json};
use std::path::Path;

impl Printer {
    pub fn model(&self, path: &Path, file: &ModelFile, model: &Model) {
        let text = || {
            let features = model.preprocess.feature_names();
            let mut lines = vec![
                format!("{}: a {} model of consort {}", path.display(), file.kind, file.program_version),
                format!("  trained on {}", count(model.n_rows, "row")),
                format!("  features ({}): {}", features.len(), shortened(&features)),
            ];
            lines.extend(model.preprocess.image.map(|image| format!("  of images of {image}")));
            if model.target.n_classes() > 0 {
                let classes = model.target.names();
                lines.push(format!("  classes ({}): {}", classes.len(), shortened(&classes)));
            }
            if let Scores::Calibrated(of) = &model.scores {
                lines.push(format!("  calibrated: {}", maps_text(&of.maps)));
            }
            let scores = model.scores.uncalibrated();
            if let Scores::Boosted(boosted) = scores {
                lines.push(format!(
                    "  {} of {}",
                    count(boosted.trees.len(), "tree"),
                    count(boosted.n_rounds(), "round")
                ));
                lines.extend(model.continued.as_ref().map(|from| {
                    format!("  continued after {} of the model of digest {}", count(from.rounds, "round"), from.digest)
                }));
                let all = boosted.importance().into_iter();
                let head = "share of the gain, splits, rows that met one";
                let rows = all.map(|of| (of.gain, of.splits, format!("{:>7}  {}", of.splits, of.cover)));
                lines.extend(importance_table(head, rows.collect(), &features));
            }
            if let Scores::Forest(forest) = scores {
                let depth = forest.trees.iter().map(ForestTree::depth).max().unwrap_or(0);
                let (trees, nodes) = (count(forest.trees.len(), "tree"), count(forest.n_nodes(), "node"));
                lines.push(format!("  {trees} of {nodes}, the deepest of {}", count(depth, "level")));
                let rows = forest.importance.iter().map(|of| (of.gain, of.splits, format!("{:>7}", of.splits)));
                lines.extend(importance_table("share of the gain, splits", rows.collect(), &features));
            }
            if let Scores::Mlp(network) = scores {
                lines.push(format!("  {}: {}", count(network.params.len(), "parameter"), network.describe()));
            }
            if let Scores::Ensemble(ensemble) = &model.scores {
                lines.extend(members::kept(ensemble, &model.history));
            }
            lines.push("  settings:".to_string());
            lines.extend(file.config.lines().filter(|line| !line.is_empty()).map(|line| format!("    {line}")));
            lines.push(format!("  digest {}", file.digest));
            lines.join("\n")
        };
        let value = || {
            json!({"event": "model", "file": path.display().to_string(), "kind": file.kind, "rows": model.n_rows,
            "features": model.preprocess.feature_names(), "image": model.preprocess.image, "classes": model.target.names(), "settings": file.config,
            "continued": model.continued.as_ref().map(|from| json!({"rounds": from.rounds, "digest": from.digest})),
            "input_digest": model.input_digest, "digest": file.digest, "version": file.program_version,
            "history": file.history.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "importance": match model.scores.uncalibrated() {
                Scores::Boosted(boosted) => json!(boosted.importance()),
                Scores::Forest(forest) => json!(forest.importance),
                Scores::Linear(_) | Scores::Mlp(_) | Scores::Ensemble(_) | Scores::Calibrated(_) => Value::Null,
            },
            "members": if let Scores::Ensemble(ensemble) = &model.scores { Some(members::kept_json(ensemble)) } else { None }})
        };
        self.say(text, value);
    }

    /// A tree of a boosted model. Errors: there is no such tree.
    pub fn tree(&self, model: &Model, number: usize) -> Result<()> {
        let Scores::Boosted(boosted) = model.scores.uncalibrated() else {
            return Err(Error::usage(format!("--tree: a '{}' model has none", model.config.kind.name())));
        };
        let Some(tree) = boosted.trees.get(number) else {
            return Err(Error::usage(format!(
                "--tree {number}: there are {}, from 0 on",
                count(boosted.trees.len(), "tree")
            )));
        };
        let features = model.preprocess.feature_names();
        self.say(
            || {
                let k = boosted.n_scores();
                let class = if k > 1 { format!(", class {}", model.target.names()[number % k]) } else { String::new() };
                let leaves =
                    if tree.n_leaves() == 1 { "1 leaf".to_string() } else { format!("{} leaves", tree.n_leaves()) };
                format!(
                    "tree {number} of {}, round {}{class}: {leaves}\n{}",
                    boosted.trees.len(),
                    number / k,
                    drawn(tree, &model.preprocess.columns, &features)
                )
            },
            || json!({"event": "tree", "number": number, "features": features, "categories": categories_of(&model.preprocess.columns), "tree": tree}),
        );
        Ok(())
    }
}

/// The maps of a calibrated model, of which one for each class may be too many to say.
fn maps_text(maps: &[CalibrationMap]) -> String {
    match maps {
        [CalibrationMap::Platt { a, b }] => format!("probability = 1/(1 + exp(-({a:.6}·score + {b:.6})))"),
        [CalibrationMap::Isotonic { x, .. }] => format!("isotonic, {}", count(x.len(), "point")),
        maps => {
            let points = |map: &CalibrationMap| if let CalibrationMap::Isotonic { x, .. } = map { x.len() } else { 0 };
            match maps.iter().map(points).sum::<usize>() {
                0 => "platt, each class against the rest".to_string(),
                points => format!("isotonic, each class against the rest, {}", count(points, "point")),
            }
        }
    }
}

/// Features shown by importance, at most.
const MOST_IMPORTANT: usize = 20;

/// The features that splits gained most by: lines.
///
/// * `all`: of each feature gain, splits, and what is said of it beside the share of the gain.
fn importance_table(head: &str, all: Vec<(f64, u64, String)>, features: &[String]) -> Vec<String> {
    let total: f64 = all.iter().map(|of| of.0).sum();
    let mut order: Vec<usize> = (0..all.len()).filter(|feature| all[*feature].1 > 0).collect();
    order.sort_by(|one, other| all[*other].0.total_cmp(&all[*one].0));
    let n_hidden = order.len().saturating_sub(MOST_IMPORTANT);
    order.truncate(MOST_IMPORTANT);
    let width = order.iter().map(|feature| features[*feature].chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!("  importance: {head}")];
    lines.extend(order.iter().map(|feature| {
        let (gain, _, said) = &all[*feature];
        let share = if total > 0.0 { 100.0 * gain / total } else { 0.0 };
        format!("    {:width$}  {share:5.1} %  {said}", features[*feature])
    }));
    if n_hidden > 0 {
        lines.push(format!("    and {n_hidden} more"));
    }
    lines
}
