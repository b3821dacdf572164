//! A tree as people read it.

use super::print::count;
use crate::model::{ColumnCode, Tree};
use crate::report::number;
use serde_json::{Value, json};

/// Deeper levels are not moved to the right any more: of a long path, lines would grow with the square of it.
const MOST_INDENT: usize = 64;

/// A tree as indented lines: what a row has to be for the lines below.
///
/// * `columns`: each is a feature.
/// * `features`: their names.
pub(super) fn drawn(tree: &Tree, columns: &[ColumnCode], features: &[String]) -> String {
    let mut lines = Vec::new();
    // Nodes still to be drawn, the next one last: child, levels above it, and what leads to it.
    let root = if tree.feature.is_empty() { -1 } else { 0 };
    let mut open: Vec<(i32, usize, String)> = vec![(root, 0, "all".to_string())];
    while let Some((child, level, condition)) = open.pop() {
        let indent = "  ".repeat(level.min(MOST_INDENT) + 1);
        let Ok(node) = usize::try_from(child) else {
            let leaf = (-1 - child) as usize;
            let rows = count(tree.leaf_rows[leaf], "row");
            lines.push(format!("{indent}{condition}: leaf {leaf} adds {}, {rows}", number(tree.value[leaf], 6)));
            continue;
        };
        let gain = number(tree.gain[node], 6);
        lines.push(format!("{indent}{condition}: {}, gain {gain}", count(tree.n_rows[node], "row")));
        let feature = tree.feature[node] as usize;
        let name = &features[feature];
        let [left, right] = match tree.left_set[node].is_empty() {
            true => {
                let missing =
                    [tree.missing_left[node], !tree.missing_left[node]].map(|m| if m { " or missing" } else { "" });
                // All digits, and an exponent where there would be many zeros.
                let threshold = format!("{:?}", tree.threshold[node]);
                [format!("{name} <= {threshold}{}", missing[0]), format!("{name} > {threshold}{}", missing[1])]
            }
            false => {
                let set = &tree.left_set[node];
                let has = |place: &usize| set[place / 64] >> (place % 64) & 1 == 1;
                let categories = (0..64 * set.len()).filter(has).map(|place| category(columns.get(feature), place));
                let categories: Vec<String> = categories.collect();
                [format!("{name} in {{{}}}", categories.join(", ")), format!("{name} is another or missing")]
            }
        };
        open.push((tree.right[node], level + 1, right));
        open.push((tree.left[node], level + 1, left));
    }
    lines.join("\n")
}

/// Of each column what places in a tree's sets stand for: texts, numbers, or nothing.
pub(super) fn categories_of(columns: &[ColumnCode]) -> Vec<Value> {
    let of_column = |column: &ColumnCode| match column.categories.is_empty() {
        true => json!(column.values),
        false => json!(column.categories),
    };
    columns.iter().map(of_column).collect()
}

/// The category at a place of a column's dictionary; of a column without one, as a program may have written it, places are categories.
fn category(column: Option<&ColumnCode>, place: usize) -> String {
    let text = column.and_then(|column| column.categories.get(place).cloned());
    let value = || column.and_then(|column| column.values.get(place)).map(f64::to_string);
    text.or_else(value).unwrap_or_else(|| place.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ColumnKind;

    #[test]
    fn categories_are_called_by_what_they_are() {
        let tree = Tree {
            feature: vec![0, 1, 2, 3],
            threshold: vec![f64::INFINITY, f64::INFINITY, f64::INFINITY, 0.5],
            missing_left: vec![false, false, false, true],
            left_set: vec![vec![0b101], vec![0b10], vec![0, 1], vec![]],
            left: vec![-1, -2, -3, -4],
            right: vec![1, 2, 3, -5],
            gain: vec![4.0, 3.0, 2.0, 1.0],
            n_rows: vec![10, 9, 8, 7],
            value: vec![0.5, 1.5, 2.5, 3.5, -4.5],
            leaf_rows: vec![1, 1, 1, 3, 4],
        };
        let mut columns: Vec<ColumnCode> =
            ["town", "code", "raw", "x"].map(|name| ColumnCode::new(name.to_string(), ColumnKind::Wide)).into();
        columns[0].categories = ["Ulm", "Trier", "Köln"].map(String::from).into();
        columns[1].values = vec![-2.0, 10.5];
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let lines = [
            "  all: 10 rows, gain 4.000000",
            "    town in {Ulm, Köln}: leaf 0 adds 0.500000, 1 row",
            "    town is another or missing: 9 rows, gain 3.000000",
            "      code in {10.5}: leaf 1 adds 1.500000, 1 row",
            "      code is another or missing: 8 rows, gain 2.000000",
            "        raw in {64}: leaf 2 adds 2.500000, 1 row",
            "        raw is another or missing: 7 rows, gain 1.000000",
            "          x <= 0.5 or missing: leaf 3 adds 3.500000, 3 rows",
            "          x > 0.5: leaf 4 adds -4.500000, 4 rows",
        ];
        assert_eq!(drawn(&tree, &columns, &names).lines().collect::<Vec<_>>(), lines);
        assert_eq!(categories_of(&columns[..2]), [json!(["Ulm", "Trier", "Köln"]), json!([-2.0, 10.5])]);
        let leaf = Tree { value: vec![2.0], leaf_rows: vec![3], ..Tree::default() };
        assert_eq!(drawn(&leaf, &columns, &names), "  all: leaf 0 adds 2.000000, 3 rows");
    }
}
