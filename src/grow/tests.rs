//! The grower against a plain one that counts every leaf anew and looks at every split.

use super::*;
use crate::comm::run_threads;
use crate::data::binned::{Codes, FeatureBins};
use crate::data::partition::Partition;
use crate::rng::{Draws, Stream};

struct Case {
    n_rows: usize,
    bins: Vec<usize>,
    /// Every how many features have a bin for missing values.
    missing_every: usize,
    config: TreeConfig,
    seed: u64,
}

fn config() -> TreeConfig {
    TreeConfig {
        growth: Growth::Leaf,
        max_leaves: 31,
        max_depth: None,
        min_rows: 5.0,
        min_hessian: 1e-3,
        l1: 0.0,
        l2: 0.5,
        min_gain: 0.0,
    }
}

const SCALE: PairScale = PairScale { gradient: 1.0 / 16_384.0, hessian: 1.0 / 32_768.0 };

/// Codes and pairs with something to learn, ties and empty bins among them.
fn table(case: &Case) -> (BinnedTable, Vec<Pair>) {
    let draws = Draws::new(case.seed, Stream::Synthetic);
    let features: Vec<FeatureBins> = case
        .bins
        .iter()
        .enumerate()
        .map(|(j, n)| FeatureBins {
            uppers: (1..*n).map(|upper| upper as f64).collect(),
            has_missing: case.missing_every > 0 && j % case.missing_every == 0,
            categories: None,
        })
        .collect();
    let mut table = BinnedTable::with_room(features, case.n_rows);
    let mut pairs = Vec::new();
    for row in 0..case.n_rows as u64 {
        let mut score = 0.0;
        for (j, bins) in table.features.iter().enumerate() {
            let mut bin = draws.below(bins.n_bins() as u64, row, j as u64);
            // The last feature says the same as the first: every split has a tie.
            if j + 1 == case.bins.len() && case.bins[j] == case.bins[0] && j > 0 {
                bin = draws.below(bins.n_values() as u64, row, 0);
            }
            score += (bin as f64 / bins.n_bins() as f64 - 0.5) * if j % 2 == 0 { 1.0 } else { -0.3 };
            match &mut table.codes {
                Codes::U8(codes) => codes.push(bin as u8),
                Codes::U16(codes) => codes.push(bin as u16),
            }
        }
        let gradient = (score + 0.2 * draws.normal(row, 1000)) * 8000.0;
        let hessian = 8000.0 + 4000.0 * draws.uniform(row, 1001);
        pairs.push(Pair::new(gradient.clamp(-32_767.0, 32_767.0) as i32, hessian as u32));
    }
    table.n_rows = case.n_rows;
    (table, pairs)
}

/// One leaf of the plain grower.
struct PlainLeaf {
    rows: Vec<u32>,
    depth: usize,
}

/// The best split of some rows: every feature, bin and side of missing values in order, the first of the greatest gain.
fn plain_split(table: &BinnedTable, pairs: &[Pair], leaf: &PlainLeaf, config: &TreeConfig) -> Option<Split> {
    let total = leaf.rows.iter().fold(Sums::default(), |sums, row| sums + pairs[*row as usize].sums());
    let n = leaf.rows.len() as f64;
    if config.max_depth.is_some_and(|most| leaf.depth >= most) || n < 2.0 * config.min_rows {
        return None;
    }
    let score = |sums: Sums| {
        let (g, h) = (sums.gradient as f64 * SCALE.gradient, sums.hessian as f64 * SCALE.hessian);
        let g = if g.abs() > config.l1 { (g.abs() - config.l1).copysign(g) } else { 0.0 };
        g * g / (h + config.l2)
    };
    let mut best: Option<Split> = None;
    for (feature, bins) in table.features.iter().enumerate() {
        let missing = bins.missing_bin();
        for bin in 0..bins.n_values() {
            for missing_left in [true, false] {
                let goes_left = |row: &&u32| {
                    let code = table.bin(**row as usize, feature);
                    if Some(code) == missing { missing_left } else { code <= bin }
                };
                if missing.is_none() && missing_left
                    || bin + 1 == bins.n_values() && (missing.is_none() || missing_left)
                {
                    continue;
                }
                let left =
                    leaf.rows.iter().filter(goes_left).fold(Sums::default(), |s, row| s + pairs[*row as usize].sums());
                let right = total - left;
                let enough = |sums: Sums| {
                    sums.hessian > 0
                        && sums.hessian as f64 * (n / total.hessian as f64) + 0.5 >= config.min_rows
                        && sums.hessian as f64 * SCALE.hessian >= config.min_hessian
                };
                let gain = score(left) + score(right) - score(total);
                if enough(left)
                    && enough(right)
                    && gain > config.min_gain
                    && best.as_ref().is_none_or(|b| gain > b.gain)
                {
                    let missing = missing.map(|bin| bin as u32);
                    best = Some(Split { gain, feature: feature as u32, bin: bin as u32, missing, missing_left, left });
                }
            }
        }
    }
    best
}

/// Splits in order: (leaf, split), and the rows of each leaf.
fn plain_tree(
    table: &BinnedTable,
    pairs: &[Pair],
    taken: &[u32],
    config: &TreeConfig,
) -> (Vec<(usize, Split)>, Vec<Vec<u32>>) {
    let mut leaves = vec![PlainLeaf { rows: taken.to_vec(), depth: 0 }];
    let mut best = vec![plain_split(table, pairs, &leaves[0], config)];
    let mut splits = Vec::new();
    while leaves.len() < config.max_leaves {
        let mut next: Option<usize> = None;
        for (leaf, split) in best.iter().enumerate() {
            let Some(split) = split else { continue };
            let is_before = |other: usize| match config.growth {
                Growth::Leaf => split.gain > best[other].as_ref().unwrap().gain,
                Growth::Level => leaves[leaf].depth < leaves[other].depth,
            };
            if next.is_none_or(is_before) {
                next = Some(leaf);
            }
        }
        let Some(leaf) = next else { break };
        let split = best[leaf].clone().unwrap();
        let goes_left = |row: &u32| {
            let code = table.bin(*row as usize, split.feature as usize) as u32;
            if Some(code) == split.missing { split.missing_left } else { code <= split.bin }
        };
        let depth = leaves[leaf].depth + 1;
        let (left, right): (Vec<u32>, Vec<u32>) = leaves[leaf].rows.iter().partition(|row| goes_left(row));
        leaves[leaf] = PlainLeaf { rows: left, depth };
        leaves.push(PlainLeaf { rows: right, depth });
        best[leaf] = plain_split(table, pairs, &leaves[leaf], config);
        best.push(plain_split(table, pairs, &leaves[leaves.len() - 1], config));
        splits.push((leaf, split));
    }
    (splits, leaves.into_iter().map(|leaf| leaf.rows).collect())
}

/// The rows of one rank.
fn part(table: &BinnedTable, rows: Range<usize>) -> BinnedTable {
    let d = table.n_features();
    let codes = match &table.codes {
        Codes::U8(codes) => Codes::U8(codes[rows.start * d..rows.end * d].to_vec()),
        Codes::U16(codes) => Codes::U16(codes[rows.start * d..rows.end * d].to_vec()),
    };
    BinnedTable { n_rows: rows.len(), features: table.features.clone(), codes }
}

#[test]
fn trees_are_those_of_the_plain_grower_on_any_number_of_ranks() {
    let cases = [
        Case { n_rows: 3000, bins: vec![16, 255, 3, 1, 40, 16], missing_every: 2, config: config(), seed: 1 },
        Case { n_rows: 3000, bins: vec![300, 7, 300], missing_every: 0, config: config(), seed: 2 },
        Case {
            n_rows: 2000,
            bins: vec![20, 20, 2],
            missing_every: 1,
            config: TreeConfig { growth: Growth::Level, max_depth: Some(4), l1: 0.1, ..config() },
            seed: 3,
        },
        Case {
            n_rows: 7,
            bins: vec![3, 4],
            missing_every: 1,
            config: TreeConfig { min_rows: 1.0, ..config() },
            seed: 4,
        },
        Case {
            n_rows: 500,
            bins: vec![9; 4],
            missing_every: 3,
            config: TreeConfig { max_leaves: 1, ..config() },
            seed: 5,
        },
        Case { n_rows: 400, bins: vec![1, 1], missing_every: 0, config: config(), seed: 6 },
    ];
    for case in &cases {
        let (table, pairs) = table(case);
        let taken: Vec<u32> = (0..case.n_rows as u32).filter(|row| row % 11 != 3).collect();
        let (splits, leaves) = plain_tree(&table, &pairs, &taken, &case.config);
        assert!(case.seed > 3 || splits.len() > 8, "{} splits", splits.len());
        for (size, threads) in [(1, 1), (1, 3), (2, 1), (3, 2), (5, 1)] {
            let found = run_threads(size, threads, |comm| {
                let units = Partition::new(case.n_rows as u64, comm.size()).units_of(comm.rank());
                let rows = units.start as usize..units.end as usize;
                let here = part(&table, rows.clone());
                let taken: Vec<u32> = taken
                    .iter()
                    .filter(|row| rows.contains(&(**row as usize)))
                    .map(|row| row - rows.start as u32)
                    .collect();
                let mut grower = Grower::new(comm, &here, &case.config);
                // Twice, since buffers are used again.
                grower.grow(comm, &taken, &pairs[rows.clone()], SCALE)?;
                let grown = grower.grow(comm, &taken, &pairs[rows.clone()], SCALE)?;
                let of_leaves: Vec<Vec<u32>> = grown
                    .leaves
                    .iter()
                    .map(|leaf| grower.rows().of(leaf.clone()).iter().map(|row| row + rows.start as u32).collect())
                    .collect();
                Ok((grown, of_leaves))
            })
            .unwrap();
            for (grown, _) in &found {
                let in_order: Vec<(usize, Split)> =
                    grown.inner.iter().map(|inner| (inner.leaf, inner.split.clone())).collect();
                assert_eq!(in_order, splits, "seed {}, {size} ranks", case.seed);
                let counts: Vec<u64> = leaves.iter().map(|rows| rows.len() as u64).collect();
                assert_eq!(grown.leaf_rows, counts);
            }
            for (leaf, rows) in leaves.iter().enumerate() {
                let joined: Vec<u32> = found.iter().flat_map(|(_, of_leaves)| of_leaves[leaf].clone()).collect();
                assert_eq!(&joined, rows, "seed {}, {size} ranks, leaf {leaf}", case.seed);
            }
        }
    }
}

#[test]
fn rows_that_took_no_part_follow_the_tree() {
    let case = Case { n_rows: 2000, bins: vec![30, 9, 30], missing_every: 2, config: config(), seed: 8 };
    let (table, pairs) = table(&case);
    let (taken, others): (Vec<u32>, Vec<u32>) = (0..2000).partition(|row| row % 3 == 0);
    let found = run_threads(1, 2, |comm| {
        let mut grower = Grower::new(comm, &table, &case.config);
        let grown = grower.grow(comm, &taken, &pairs, SCALE)?;
        let mut rest = LeafRows::default();
        rest.reset(&others);
        let leaves = rest.follow(&table, &grown);
        let splits: Vec<(usize, Split)> = grown.inner.iter().map(|inner| (inner.leaf, inner.split.clone())).collect();
        Ok((splits, leaves.into_iter().map(|leaf| rest.of(leaf).to_vec()).collect::<Vec<_>>()))
    });
    let (splits, of_leaves) = found.unwrap().remove(0);
    for (leaf, rows) in of_leaves.iter().enumerate() {
        for row in rows {
            let mut at = 0;
            for (number, (split_leaf, split)) in splits.iter().enumerate() {
                let code = table.bin(*row as usize, split.feature as usize) as u32;
                let goes_left = if Some(code) == split.missing { split.missing_left } else { code <= split.bin };
                if *split_leaf == at && !goes_left {
                    at = number + 1;
                }
            }
            assert_eq!(at, leaf, "row {row}");
        }
    }
    assert_eq!(of_leaves.iter().map(Vec::len).sum::<usize>(), others.len());
}
