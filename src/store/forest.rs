//! A random forest as arrays: nodes of all trees one after the other, in 16 bytes each, and shares of all leaves.
//!
//! | in `params/` | what it is |
//! |---|---|
//! | `tree_nodes`, `tree_numbers` | (trees): nodes of each; what its draws are numbered by |
//! | `node_value` | threshold: values up to it go left; number of a set; value of a leaf |
//! | `node_feature` | feature; plus 2³¹ where missing values go left, 2³⁰ where a set is asked for, 2²⁹ for a leaf |
//! | `node_child` | left child in its tree, next to which is the right one; number of a leaf |
//! | `leaf_share` | (leaves, scores), of classes |
//! | `tree_sets`, `set_words`, `sets` | sets of each tree, words of each set, the words: bit p is the feature's category at place p |
//! | `category_counts`, `categories` | (features): categories of each; the categories, as columns number them |
//! | `importance_gain`, `importance_splits` | (features) |

use super::model::misfit;
use super::{Array, ModelFile};
use crate::error::Result;
use crate::model::forest::{Forest, ForestTree, Importance, Node};

fn u64s(values: impl Iterator<Item = u64>) -> Array {
    let values: Vec<u64> = values.collect();
    Array::U64 { shape: vec![values.len()], values }
}

fn u32s(values: impl Iterator<Item = u32>) -> Array {
    let values: Vec<u32> = values.collect();
    Array::U32 { shape: vec![values.len()], values }
}

fn f64s(values: impl Iterator<Item = f64>) -> Array {
    let values: Vec<f64> = values.collect();
    Array::F64 { shape: vec![values.len()], values }
}

pub(super) fn to_arrays(forest: &Forest) -> Vec<(String, Array)> {
    let trees = || forest.trees.iter();
    let nodes = || trees().flat_map(|tree| &tree.nodes);
    let sets = || trees().flat_map(|tree| &tree.sets);
    let shares: Vec<f32> = trees().flat_map(|tree| tree.shares.iter().copied()).collect();
    let arrays = [
        ("n_features", u64s(std::iter::once(forest.n_features as u64))),
        ("tree_nodes", u64s(trees().map(|tree| tree.nodes.len() as u64))),
        ("tree_numbers", u64s(forest.numbers.iter().copied())),
        ("category_counts", u64s(forest.categories.iter().map(|of| of.len() as u64))),
        ("categories", u32s(forest.categories.iter().flatten().copied())),
        ("node_value", f64s(nodes().map(|node| node.value))),
        ("node_feature", u32s(nodes().map(|node| node.feature))),
        ("node_child", u32s(nodes().map(|node| node.child))),
        ("leaf_share", Array::F32 { shape: vec![shares.len() / forest.n_scores, forest.n_scores], values: shares }),
        ("tree_sets", u64s(trees().map(|tree| tree.sets.len() as u64))),
        ("set_words", u64s(sets().map(|set| set.len() as u64))),
        ("sets", u64s(sets().flatten().copied())),
        ("importance_gain", f64s(forest.importance.iter().map(|of| of.gain))),
        ("importance_splits", u64s(forest.importance.iter().map(|of| of.splits))),
    ];
    arrays.map(|(name, values)| (name.to_string(), values)).into()
}

/// Errors: arrays that are not there or make no forest.
pub(super) fn from_file(file: &ModelFile, has_classes: bool) -> Result<Forest> {
    let (shape, mut shares) = file.f32("leaf_share")?;
    let &[_, n_scores] = shape else { return Err(misfit("leaf_share", "two axes")) };
    let n_features = file.u64("n_features")?.1.first().map_or(0, |n| *n as usize);
    let (value, feature, child) = (file.f64("node_value")?.1, file.u32("node_feature")?.1, file.u32("node_child")?.1);
    for (name, len) in [("node_feature", feature.len()), ("node_child", child.len())] {
        if len != value.len() {
            return Err(misfit(name, &format!("{} entries, as many as 'node_value' has", value.len())));
        }
    }
    let mut nodes = value.iter().zip(feature).zip(child).map(|((value, feature), child)| Node {
        value: *value,
        feature: *feature,
        child: *child,
    });
    let (mut words, mut sets) = (file.u64("set_words")?.1, file.u64("sets")?.1);
    let (tree_nodes, tree_sets) = (file.u64("tree_nodes")?.1, file.u64("tree_sets")?.1);
    if tree_sets.len() != tree_nodes.len() {
        return Err(misfit("tree_sets", &format!("{} entries, as many as 'tree_nodes' has", tree_nodes.len())));
    }
    let mut trees = Vec::with_capacity(tree_nodes.len());
    for (n_nodes, n_sets) in tree_nodes.iter().zip(tree_sets) {
        let n_nodes = usize::try_from(*n_nodes).unwrap_or(usize::MAX);
        let of_tree: Vec<Node> = nodes.by_ref().take(n_nodes).collect();
        if of_tree.len() != n_nodes {
            return Err(misfit("tree_nodes", "as many nodes as 'node_value' has"));
        }
        let too_short = |name: &str| misfit(name, "as many entries as the trees say");
        let n_shares = if has_classes { n_nodes.div_ceil(2) * n_scores } else { 0 };
        let of_leaves = take(&mut shares, n_shares).ok_or_else(|| too_short("leaf_share"))?;
        let of_sets = usize::try_from(*n_sets).ok().and_then(|n| take(&mut words, n));
        let mut left = Vec::new();
        for n_words in of_sets.ok_or_else(|| too_short("set_words"))? {
            let set = usize::try_from(*n_words).ok().and_then(|n| take(&mut sets, n));
            left.push(set.ok_or_else(|| too_short("sets"))?.to_vec());
        }
        trees.push(ForestTree { nodes: of_tree, shares: of_leaves.to_vec(), sets: left });
    }
    for (name, n_left) in
        [("node_value", nodes.len()), ("leaf_share", shares.len()), ("set_words", words.len()), ("sets", sets.len())]
    {
        if n_left > 0 {
            return Err(misfit(name, "no more entries than the trees say"));
        }
    }
    let (counts, mut all) = (file.u64("category_counts")?.1, file.u32("categories")?.1);
    let of_feature = |n: &u64| usize::try_from(*n).ok().and_then(|n| take(&mut all, n)).map(<[u32]>::to_vec);
    let categories: Option<Vec<Vec<u32>>> = counts.iter().map(of_feature).collect();
    let categories = categories.filter(|_| all.is_empty());
    let categories = categories.ok_or_else(|| misfit("categories", "as many as 'category_counts' says"))?;
    let numbers = file.u64("tree_numbers")?.1.to_vec();
    let (gain, splits) = (file.f64("importance_gain")?.1, file.u64("importance_splits")?.1);
    let importance =
        gain.iter().zip(splits).map(|(gain, splits)| Importance { gain: *gain, splits: *splits }).collect();
    let forest = Forest { n_features, n_scores, has_classes, categories, trees, numbers, importance };
    forest.check().map_err(|expected| misfit("trees", &expected))?;
    Ok(forest)
}

/// The first `n`; None: there are fewer.
fn take<'v, T>(values: &mut &'v [T], n: usize) -> Option<&'v [T]> {
    let (taken, rest) = values.split_at_checked(n)?;
    *values = rest;
    Some(taken)
}
