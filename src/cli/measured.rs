//! How good a model is, in print: metrics, reliability, confusion, permutation importance.

use super::print::{Printer, count, event};
use crate::metric::calibration::ReliabilityBin;
use crate::train::Model;
use crate::train::measure::Evaluation;
use crate::train::permutation::{Permutation, PermutedColumn};
use serde_json::{Value, json};

/// Larger confusion matrices are printed as JSON only.
const MOST_SHOWN_CLASSES: usize = 20;
/// Columns shown by importance, at most.
const MOST_SHOWN_COLUMNS: usize = 50;

impl Printer {
    /// Metrics and what they are made of.
    pub fn evaluation(&self, model: &Model, measured: &Evaluation) {
        let classes = model.target.names();
        let text = || {
            let mut text = format!("{} | {}", count(measured.rows, "row"), measured.metrics);
            if !measured.reliability.is_empty() {
                let of = if classes.len() == 2 { format!("of {}", classes[1]) } else { "of the likeliest".to_string() };
                text.push_str(&format!("\nrows by predicted probability {of}, and how often it came true:\n"));
                text.push_str(&reliability_table(&measured.reliability));
            }
            if !measured.confusion.is_empty() && classes.len() <= MOST_SHOWN_CLASSES {
                text.push_str("\nrows of each true class (down) by predicted class (across):\n");
                text.push_str(&confusion_table(&classes, &measured.confusion));
            }
            text
        };
        let value = || {
            let mut value = event(
                "metrics",
                [("rows", json!(measured.rows)), ("weight", json!(measured.weight))],
                &measured.metrics,
            );
            if let (Value::Object(fields), false) = (&mut value, measured.confusion.is_empty()) {
                fields.insert("classes".to_string(), json!(classes));
                fields.insert("confusion".to_string(), json!(measured.confusion));
                if !measured.reliability.is_empty() {
                    fields.insert("reliability".to_string(), json!(measured.reliability));
                }
            }
            value
        };
        self.say(text, value);
    }

    /// The columns that matter most come first in the text.
    pub fn permutation(&self, found: &Permutation) {
        self.say(
            || permutation_text(found),
            || json!({"event": "permutation", "metric": found.metric, "value": found.value, "columns": found.columns}),
        );
    }
}

fn confusion_table(classes: &[String], confusion: &[Vec<u64>]) -> String {
    let cells = confusion.iter().flatten().map(|n| n.to_string().len());
    let names = classes.iter().map(|class| class.chars().count());
    let width = cells.chain(names).max().unwrap_or(1);
    let head: Vec<String> = classes.iter().map(|class| format!("{class:>width$}")).collect();
    let mut lines = vec![format!("{:width$}  {}", "", head.join("  "))];
    for (class, row) in classes.iter().zip(confusion) {
        let row: Vec<String> = row.iter().map(|n| format!("{n:>width$}")).collect();
        lines.push(format!("{class:>width$}  {}", row.join("  ")));
    }
    lines.join("\n")
}

/// A line for each bin.
fn reliability_table(bins: &[ReliabilityBin]) -> String {
    let share = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
    let width = bins.iter().map(|bin| bin.rows.to_string().len()).max().unwrap_or(1).max(4);
    let mut lines = vec![format!("probability  {:>width$}  predicted  observed", "rows")];
    lines.extend(bins.iter().map(|bin| {
        let (predicted, observed) = (share(bin.predicted), share(bin.observed));
        format!("{:.1} to {:.1}   {:>width$}  {predicted:>9}  {observed:>8}", bin.lower, bin.upper, bin.rows)
    }));
    lines.join("\n")
}

fn permutation_text(found: &Permutation) -> String {
    let change = if found.metric == "accuracy" { "falls" } else { "rises" };
    let repeats = found.columns.first().map_or(0, |column| column.worse.len());
    let mut columns: Vec<&PermutedColumn> = found.columns.iter().collect();
    columns.sort_by(|one, other| other.mean.total_cmp(&one.mean));
    let n_hidden = columns.len().saturating_sub(MOST_SHOWN_COLUMNS);
    columns.truncate(MOST_SHOWN_COLUMNS);
    let width = columns.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
    let (metric, times) = (found.metric, count(repeats, "permutation"));
    let mut lines = vec![format!(
        "{metric} is {:.6}; by how much it {change} when a column's values come from other rows (mean and spread of {times}):",
        found.value
    )];
    let line = |column: &PermutedColumn| format!("{:width$}  {:>10.6} ± {:.6}", column.name, column.mean, column.std);
    lines.extend(columns.into_iter().map(line));
    if n_hidden > 0 {
        lines.push(format!("and {n_hidden} more"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reliability_table_is_aligned_and_says_what_is_not_there() {
        let bin = |rows, predicted| ReliabilityBin {
            lower: 0.1,
            upper: 0.2,
            rows,
            weight: rows as f64,
            predicted,
            observed: predicted.map(|p| p / 2.0),
        };
        let table = reliability_table(&[bin(12345, Some(0.15)), bin(0, None)]);
        let expected = "probability   rows  predicted  observed\n\
                        0.1 to 0.2   12345     0.1500    0.0750\n\
                        0.1 to 0.2       0          -         -";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_confusion_matrix_is_aligned() {
        let table = confusion_table(&["e".into(), "muon".into()], &[vec![1, 20000], vec![3, 4]]);
        assert_eq!(table, "           e   muon\n    e      1  20000\n muon      3      4");
    }

    #[test]
    fn the_columns_that_matter_most_come_first() {
        let column = |name: &str, mean| PermutedColumn { name: name.into(), mean, std: 0.5, worse: vec![mean; 2] };
        let columns = vec![column("a", -0.25), column("energy", 1.5)];
        let text = permutation_text(&Permutation { metric: "accuracy", value: 0.75, columns });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("accuracy is 0.750000; by how much it falls"), "{text}");
        assert!(lines[0].contains("2 permutations"), "{text}");
        assert_eq!(lines[1..], ["energy    1.500000 ± 0.500000", "a        -0.250000 ± 0.500000"]);
    }
}
