//! Boosted trees as arrays: those of all trees one after the other, and how many inner nodes each has.

use super::model::misfit;
use super::{Array, ModelFile};
use crate::error::Result;
use crate::model::{Boosted, Tree};

fn f64s(values: Vec<f64>) -> Array {
    Array::F64 { shape: vec![values.len()], values }
}

fn i64s(values: Vec<i64>) -> Array {
    Array::I64 { shape: vec![values.len()], values }
}

fn u64s(values: Vec<u64>) -> Array {
    Array::U64 { shape: vec![values.len()], values }
}

/// (name, values); `start` has one for each score.
pub(super) fn to_arrays(boosted: &Boosted) -> Vec<(String, Array)> {
    let trees = &boosted.trees;
    let sets = || trees.iter().flat_map(|tree| &tree.left_set);
    let arrays = [
        ("n_features", u64s(vec![boosted.n_features as u64])),
        ("start", f64s(boosted.start.clone())),
        ("tree_inner", u64s(trees.iter().map(|tree| tree.feature.len() as u64).collect())),
        ("tree_feature", u64s(trees.iter().flat_map(|tree| tree.feature.iter().map(|f| u64::from(*f))).collect())),
        ("tree_threshold", f64s(trees.iter().flat_map(|tree| tree.threshold.iter().copied()).collect())),
        (
            "tree_missing_left",
            u64s(trees.iter().flat_map(|tree| tree.missing_left.iter().map(|l| u64::from(*l))).collect()),
        ),
        ("tree_set_words", u64s(sets().map(|set| set.len() as u64).collect())),
        ("tree_sets", u64s(sets().flatten().copied().collect())),
        ("tree_left", i64s(trees.iter().flat_map(|tree| tree.left.iter().map(|c| i64::from(*c))).collect())),
        ("tree_right", i64s(trees.iter().flat_map(|tree| tree.right.iter().map(|c| i64::from(*c))).collect())),
        ("tree_gain", f64s(trees.iter().flat_map(|tree| tree.gain.iter().copied()).collect())),
        ("tree_rows", u64s(trees.iter().flat_map(|tree| tree.n_rows.iter().copied()).collect())),
        ("tree_value", f64s(trees.iter().flat_map(|tree| tree.value.iter().copied()).collect())),
        ("tree_leaf_rows", u64s(trees.iter().flat_map(|tree| tree.leaf_rows.iter().copied()).collect())),
    ];
    arrays.map(|(name, values)| (name.to_string(), values)).into()
}

/// Errors: arrays that are not there or make no trees.
pub(super) fn from_file(file: &ModelFile) -> Result<Boosted> {
    let start = file.f64("start")?.1.to_vec();
    let n_features = file.u64("n_features")?.1.first().map_or(0, |n| *n as usize);
    let inner = file.u64("tree_inner")?.1;
    let feature = file.u64("tree_feature")?.1;
    let threshold = file.f64("tree_threshold")?.1;
    let missing_left = file.u64("tree_missing_left")?.1;
    let (set_words, mut sets) = (file.u64("tree_set_words")?.1, file.u64("tree_sets")?.1);
    let (left, right) = (file.i64("tree_left")?.1, file.i64("tree_right")?.1);
    let gain = file.f64("tree_gain")?.1;
    let n_rows = file.u64("tree_rows")?.1;
    let value = file.f64("tree_value")?.1;
    let leaf_rows = file.u64("tree_leaf_rows")?.1;
    if start.is_empty() || start.iter().any(|start| !start.is_finite()) || !inner.len().is_multiple_of(start.len()) {
        return Err(misfit("start", "finite numbers, and as many trees for each"));
    }
    let total = inner.iter().try_fold(0usize, |sum, n| sum.checked_add(usize::try_from(*n).ok()?));
    let n_inner = total.ok_or_else(|| misfit("tree_inner", "numbers of inner nodes"))?;
    let lengths = [
        ("tree_feature", feature.len()),
        ("tree_threshold", threshold.len()),
        ("tree_missing_left", missing_left.len()),
        ("tree_set_words", set_words.len()),
        ("tree_left", left.len()),
        ("tree_right", right.len()),
        ("tree_gain", gain.len()),
        ("tree_rows", n_rows.len()),
    ];
    if let Some((name, _)) = lengths.iter().find(|(_, len)| *len != n_inner) {
        return Err(misfit(name, &format!("{n_inner} entries, as 'tree_inner' says")));
    }
    let n_leaves = n_inner.saturating_add(inner.len());
    for (name, len) in [("tree_value", value.len()), ("tree_leaf_rows", leaf_rows.len())] {
        if len != n_leaves {
            return Err(misfit(name, &format!("{n_leaves} entries, as 'tree_inner' says")));
        }
    }
    let (mut at, mut leaf) = (0, 0);
    let mut trees = Vec::with_capacity(inner.len());
    for n in inner {
        let (nodes, leaves) = (at..at + *n as usize, leaf..leaf + *n as usize + 1);
        (at, leaf) = (nodes.end, leaves.end);
        let mut left_set = Vec::with_capacity(nodes.len());
        for n_words in &set_words[nodes.clone()] {
            let split = usize::try_from(*n_words).ok().and_then(|n_words| sets.split_at_checked(n_words));
            let (set, rest) = split.ok_or_else(|| misfit("tree_sets", "as many words as 'tree_set_words' says"))?;
            left_set.push(set.to_vec());
            sets = rest;
        }
        let node = |child: &i64| i32::try_from(*child).unwrap_or(i32::MIN);
        let tree = Tree {
            feature: feature[nodes.clone()].iter().map(|f| u32::try_from(*f).unwrap_or(u32::MAX)).collect(),
            threshold: threshold[nodes.clone()].to_vec(),
            missing_left: missing_left[nodes.clone()].iter().map(|l| *l != 0).collect(),
            left_set,
            left: left[nodes.clone()].iter().map(node).collect(),
            right: right[nodes.clone()].iter().map(node).collect(),
            gain: gain[nodes.clone()].to_vec(),
            n_rows: n_rows[nodes].to_vec(),
            value: value[leaves.clone()].to_vec(),
            leaf_rows: leaf_rows[leaves].to_vec(),
        };
        tree.check(n_features).map_err(|expected| misfit(&format!("tree {}", trees.len()), expected))?;
        trees.push(tree);
    }
    Ok(Boosted { n_features, start, trees })
}
