//! The grower against a plain one that counts every leaf anew and looks at every split.

use super::*;
use crate::comm::run_threads;
use crate::data::partition::Partition;
use crate::data::scratch::Scratch;
use crate::rng::{Draws, Stream};

struct Case {
    n_rows: usize,
    bins: Vec<usize>,
    /// Every how many features have a bin for missing values.
    missing_every: usize,
    /// Every how many features are categories; 0: none.
    category_every: usize,
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
        categories: CategoryConfig { smooth: 10.0, l2: 10.0, most: 32, one_hot: 4, group_rows: 100.0 },
        columns: ColumnSample { tree: 1.0, level: 1.0, node: 1.0, seed: 0 },
        monotone: vec![],
        interactions: vec![],
    }
}

const SCALE: PairScale = PairScale { gradient: 1.0 / 16_384.0, hessian: 1.0 / 32_768.0, is_wide: false };

/// Bins of rows.
struct Table {
    features: Vec<FeatureBins>,
    rows: Vec<Vec<usize>>,
}

impl Table {
    fn bin(&self, row: usize, feature: usize) -> u32 {
        self.rows[row][feature] as u32
    }

    /// Of some rows, appended in runs; in memory, or in a file with pages of so many.
    fn records(&self, rows: Range<usize>, page_rows: Option<usize>) -> Records {
        let features = self.features.clone();
        let mut records = match page_rows {
            None => Records::with_room(features, rows.len()),
            Some(page_rows) => Records::in_file(features, Scratch::in_folder(None).unwrap(), page_rows),
        };
        for rows in self.rows[rows].chunks(700) {
            let runs: Vec<&[Vec<usize>]> = rows.chunks(300).collect();
            let lengths: Vec<usize> = runs.iter().map(|run| run.len()).collect();
            let fill = |number: usize, run: &mut Run<'_>| {
                for (row, bins) in runs[number].iter().enumerate() {
                    bins.iter().enumerate().for_each(|(feature, bin)| run.put(row, feature, *bin));
                }
                Ok(())
            };
            records.append(&lengths, fill).unwrap();
        }
        records
    }
}

/// Bins and pairs with something to learn, ties and empty bins among them.
fn table(case: &Case) -> (Table, Vec<Sums>) {
    let draws = Draws::new(case.seed, Stream::Synthetic);
    let features: Vec<FeatureBins> = case
        .bins
        .iter()
        .enumerate()
        .map(|(j, n)| match case.category_every > 0 && j % case.category_every == 0 {
            // Every second category is one that has a bin.
            true => FeatureBins {
                categories: Some((0..*n as u32).map(|c| 2 * c).collect()),
                ..FeatureBins::of_categories(&[], 1)
            },
            false => FeatureBins {
                uppers: (1..*n).map(|upper| upper as f64).collect(),
                has_missing: case.missing_every > 0 && j % case.missing_every == 0,
                categories: None,
            },
        })
        .collect();
    let (mut rows, mut pairs) = (Vec::new(), Vec::new());
    for row in 0..case.n_rows as u64 {
        let (mut score, mut of_row) = (0.0, Vec::new());
        for (j, bins) in features.iter().enumerate() {
            let mut bin = draws.below(bins.n_bins() as u64, row, j as u64);
            // The last feature says the same as the first: every split has a tie.
            if j + 1 == case.bins.len() && case.bins[j] == case.bins[0] && j > 0 {
                bin = draws.below(bins.n_values() as u64, row, 0);
            }
            // What a category does has nothing to do with its number.
            let bin_effect = if bins.categories.is_some() { bin * 7919 % bins.n_bins() as u64 } else { bin };
            score += (bin_effect as f64 / bins.n_bins() as f64 - 0.5) * if j % 2 == 0 { 1.0 } else { -0.3 };
            of_row.push(bin as usize);
        }
        rows.push(of_row);
        let gradient = (score + 0.2 * draws.normal(row, 1000)) * 8000.0;
        let hessian = 8000.0 + 4000.0 * draws.uniform(row, 1001);
        pairs.push(Sums { gradient: gradient.clamp(-32_767.0, 32_767.0) as i64, hessian: hessian as i64 });
    }
    (Table { features, rows }, pairs)
}

/// One leaf of the plain grower.
#[derive(Clone)]
struct PlainLeaf {
    rows: Vec<u32>,
    depth: usize,
    /// Least and largest value.
    bounds: [f64; 2],
    /// Features of the splits above.
    path: Vec<u32>,
    way: Way,
}

fn value(sums: Sums, config: &TreeConfig, l2: f64, bounds: [f64; 2]) -> f64 {
    let (g, h) = (sums.gradient as f64 * SCALE.gradient, sums.hessian as f64 * SCALE.hessian);
    let g = if g.abs() > config.l1 { (g.abs() - config.l1).copysign(g) } else { 0.0 };
    (-g / (h + l2)).max(bounds[0]).min(bounds[1])
}

/// Twice what a leaf lowers the loss by.
fn lowers(sums: Sums, config: &TreeConfig, l2: f64, bounds: [f64; 2]) -> f64 {
    let (g, h) = (sums.gradient as f64 * SCALE.gradient, sums.hessian as f64 * SCALE.hessian);
    let g = if g.abs() > config.l1 { (g.abs() - config.l1).copysign(g) } else { 0.0 };
    if bounds == [f64::NEG_INFINITY, f64::INFINITY] {
        return g * g / (h + l2);
    }
    let value = value(sums, config, l2, bounds);
    -(2.0 * g + (h + l2) * value) * value
}

/// Sums of the rows that go left, by counting them.
fn sums_of<'r>(rows: impl Iterator<Item = &'r u32>, pairs: &[Sums]) -> Sums {
    rows.fold(Sums::default(), |sums, row| sums + pairs[*row as usize])
}

/// Which sets of bins of a category may go left, with the further penalty: in the order in which they are looked at.
fn category_sets(by_bin: &[Sums], total: Sums, n: f64, config: &TreeConfig) -> Vec<(Vec<usize>, f64)> {
    let category = config.categories;
    if by_bin.len() <= category.one_hot {
        return (0..by_bin.len()).map(|bin| (vec![bin], 0.0)).collect();
    }
    let rows = |sums: Sums| sums.hessian as f64 * (n / total.hessian as f64);
    let ratio = |bin: &usize| {
        by_bin[*bin].gradient as f64 * SCALE.gradient / (by_bin[*bin].hessian as f64 * SCALE.hessian + category.smooth)
    };
    let mut order: Vec<usize> = (0..by_bin.len()).collect();
    order.retain(|bin| by_bin[*bin].hessian > 0 && rows(by_bin[*bin]) + 0.5 >= category.smooth);
    order.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)).then(one.cmp(other)));
    let mut sets = Vec::new();
    for _ in 0..2 {
        let mut group = 0.0;
        for n in 1..=category.most.min(order.len().div_ceil(2)) {
            let left = order[..n].iter().fold(Sums::default(), |sums, bin| sums + by_bin[*bin]);
            group += rows(by_bin[order[n - 1]]);
            let right = total - left;
            if rows(right) + 0.5 < category.group_rows.max(config.min_rows) {
                break;
            }
            if group + 0.5 >= category.group_rows && rows(left) + 0.5 >= config.min_rows {
                group = 0.0;
                sets.push((order[..n].to_vec(), category.l2));
            }
        }
        order.reverse();
    }
    sets
}

/// The best split of some rows: every feature, bin and side of missing values in order, the first of the greatest gain.
fn plain_split(table: &Table, pairs: &[Sums], leaf: &PlainLeaf, config: &TreeConfig) -> Option<Split> {
    let total = sums_of(leaf.rows.iter(), pairs);
    let n = leaf.rows.len() as f64;
    if config.max_depth.is_some_and(|most| leaf.depth >= most) || n < 2.0 * config.min_rows {
        return None;
    }
    let enough = |sums: Sums| {
        sums.hessian > 0
            && sums.hessian as f64 * (n / total.hessian as f64) + 0.5 >= config.min_rows
            && sums.hessian as f64 * SCALE.hessian >= config.min_hessian
    };
    let mut best: Option<Split> = None;
    for (feature, bins) in table.features.iter().enumerate() {
        let columns = Columns::new(&config.columns, &config.interactions, table.features.len(), 5);
        let allowed = columns.of_node(leaf.depth, leaf.way, &leaf.path);
        if allowed.is_some_and(|allowed| !allowed.contains(&(feature as u32))) {
            continue;
        }
        let missing = bins.missing_bin();
        let direction = config.monotone.get(feature).copied().unwrap_or(0);
        // (bins left, bin or how many, missing left, further penalty)
        let mut candidates: Vec<(Vec<usize>, usize, bool, f64)> = Vec::new();
        if bins.categories.is_some() {
            let of_bin =
                |bin: usize| leaf.rows.iter().filter(move |row| table.bin(**row as usize, feature) as usize == bin);
            let by_bin: Vec<Sums> = (0..bins.n_values()).map(|bin| sums_of(of_bin(bin), pairs)).collect();
            for (set, l2) in category_sets(&by_bin, total, n, config) {
                candidates.push((set.clone(), set.len(), false, l2));
            }
        } else {
            for bin in 0..bins.n_values() {
                for missing_left in [true, false] {
                    let is_last = bin + 1 == bins.n_values();
                    if missing.is_none() && missing_left || is_last && (missing.is_none() || missing_left) {
                        continue;
                    }
                    let left = (0..=bin).chain(missing.filter(|_| missing_left)).collect();
                    candidates.push((left, bin, missing_left, 0.0));
                }
            }
        }
        for (left_bins, bin, missing_left, more_l2) in candidates {
            let goes_left = |row: &&u32| left_bins.contains(&(table.bin(**row as usize, feature) as usize));
            let left = sums_of(leaf.rows.iter().filter(goes_left), pairs);
            let right = total - left;
            let l2 = config.l2 + more_l2;
            let lowered = |sums: Sums, l2: f64| lowers(sums, config, l2, leaf.bounds);
            let gain = lowered(left, l2) + lowered(right, l2) - lowered(total, config.l2);
            let [low, high] = [left, right].map(|sums| value(sums, config, l2, leaf.bounds));
            let is_ordered = direction == 0 || if direction > 0 { low <= high } else { low >= high };
            if enough(left)
                && enough(right)
                && is_ordered
                && gain > config.min_gain
                && best.as_ref().is_none_or(|b| gain > b.gain)
            {
                let missing = missing.map(|bin| bin as u32);
                let (feature, bin) = (feature as u32, bin as u32);
                let mut left_set = vec![];
                if bins.categories.is_some() {
                    left_set = vec![0; left_bins.iter().max().unwrap() / 64 + 1];
                    left_bins.iter().for_each(|bin| left_set[bin / 64] |= 1 << (bin % 64));
                }
                best = Some(Split { gain, feature, bin, missing, missing_left, left, left_set });
            }
        }
    }
    best
}

/// Splits in order: (leaf, split), and the rows of each leaf.
fn plain_tree(
    table: &Table,
    pairs: &[Sums],
    taken: &[u32],
    config: &TreeConfig,
) -> (Vec<(usize, Split)>, Vec<PlainLeaf>) {
    let bounds = [f64::NEG_INFINITY, f64::INFINITY];
    let mut leaves = vec![PlainLeaf { rows: taken.to_vec(), depth: 0, bounds, path: vec![], way: Way::ROOT }];
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
        let feature = split.feature as usize;
        let set_has = |bin: usize| split.left_set.get(bin / 64).is_some_and(|word| word >> (bin % 64) & 1 == 1);
        let goes_left = |row: &u32| match table.bin(*row as usize, feature) as usize {
            bin if table.features[feature].categories.is_some() => set_has(bin),
            bin if Some(bin as u32) == split.missing => split.missing_left,
            bin => bin as u32 <= split.bin,
        };
        let mut child = PlainLeaf { depth: leaves[leaf].depth + 1, ..leaves[leaf].clone() };
        child.path.push(split.feature);
        let (left, right): (Vec<u32>, Vec<u32>) = leaves[leaf].rows.iter().partition(|row| goes_left(row));
        let mut bounds = [child.bounds; 2];
        let direction = config.monotone.get(feature).copied().unwrap_or(0);
        if direction != 0 {
            let values =
                [&left, &right].map(|rows| value(sums_of(rows.iter(), pairs), config, config.l2, child.bounds));
            let middle = values[0] + (values[1] - values[0]) / 2.0;
            let (low, high) = if direction > 0 { (0, 1) } else { (1, 0) };
            bounds[low][1] = middle;
            bounds[high][0] = middle;
        }
        let [left_way, right_way] = child.way.children();
        leaves[leaf] = PlainLeaf { rows: left, bounds: bounds[0], way: left_way, ..child.clone() };
        leaves.push(PlainLeaf { rows: right, bounds: bounds[1], way: right_way, ..child });
        best[leaf] = plain_split(table, pairs, &leaves[leaf], config);
        best.push(plain_split(table, pairs, &leaves[leaves.len() - 1], config));
        splits.push((leaf, split));
    }
    (splits, leaves)
}

/// What integers are multiplied by that have two digits: bits of both are met.
const WIDER: i64 = 1 << 13;

/// Writes pairs of rows by their numbers.
fn pairs_of(pairs: &[Sums], is_wide: bool) -> impl Fn(&[u32], &mut [[Pair; 2]]) + Sync {
    move |rows, out| {
        for (pair, row) in out.iter_mut().zip(rows) {
            let Sums { gradient, hessian } = pairs[*row as usize];
            // What there is for low digits is of no importance where there is one digit.
            *pair = match is_wide {
                true => Pair::digits(WIDER * gradient, WIDER * hessian),
                false => [Pair::new(gradient as i32, hessian as u32), Pair::new(77, *row % 9)],
            };
        }
    }
}

#[test]
fn trees_are_those_of_the_plain_grower_on_any_number_of_ranks() {
    let cases = [
        Case {
            n_rows: 3000,
            bins: vec![16, 255, 3, 1, 40, 16],
            missing_every: 2,
            category_every: 0,
            config: config(),
            seed: 1,
        },
        Case { n_rows: 3000, bins: vec![300, 7, 300], missing_every: 0, category_every: 0, config: config(), seed: 2 },
        Case {
            n_rows: 2000,
            bins: vec![20, 20, 2],
            missing_every: 1,
            category_every: 0,
            config: TreeConfig { growth: Growth::Level, max_depth: Some(4), l1: 0.1, ..config() },
            seed: 3,
        },
        Case {
            n_rows: 7,
            bins: vec![3, 4],
            missing_every: 1,
            category_every: 0,
            config: TreeConfig { min_rows: 1.0, ..config() },
            seed: 4,
        },
        Case {
            n_rows: 500,
            bins: vec![9; 4],
            missing_every: 3,
            category_every: 0,
            config: TreeConfig { max_leaves: 1, ..config() },
            seed: 5,
        },
        Case { n_rows: 400, bins: vec![1, 1], missing_every: 0, category_every: 0, config: config(), seed: 6 },
        // Many of few bins, which share bytes.
        Case {
            n_rows: 3000,
            bins: vec![2, 2, 3, 40, 1, 16, 2, 5, 2, 2, 17, 16, 2, 2],
            missing_every: 4,
            category_every: 5,
            config: config(),
            seed: 2,
        },
        // Categories: many, few (one against the others), in more words than one.
        Case {
            n_rows: 4000,
            bins: vec![40, 9, 4, 12, 150],
            missing_every: 3,
            category_every: 2,
            config: TreeConfig {
                categories: CategoryConfig { smooth: 3.0, l2: 1.0, most: 9, one_hot: 4, group_rows: 20.0 },
                ..config()
            },
            seed: 3,
        },
        Case {
            n_rows: 3000,
            bins: vec![30, 20, 25],
            missing_every: 2,
            category_every: 0,
            config: TreeConfig { monotone: vec![1, -1], ..config() },
            seed: 2,
        },
        // Against what the rows say.
        Case {
            n_rows: 3000,
            bins: vec![30, 20, 25],
            missing_every: 0,
            category_every: 0,
            config: TreeConfig { monotone: vec![-1, 1, 0], l1: 0.2, ..config() },
            seed: 2,
        },
        Case {
            n_rows: 3000,
            bins: vec![30, 20, 25, 17],
            missing_every: 2,
            category_every: 0,
            config: TreeConfig { interactions: vec![vec![0, 1], vec![1, 2]], ..config() },
            seed: 1,
        },
        Case {
            n_rows: 3000,
            bins: vec![30, 20, 25, 17, 9, 40],
            missing_every: 2,
            category_every: 0,
            config: TreeConfig { columns: ColumnSample { tree: 0.9, level: 0.8, node: 0.5, seed: 9 }, ..config() },
            seed: 3,
        },
    ];
    for case in &cases {
        let (table, pairs) = table(case);
        let taken: Vec<u32> = (0..case.n_rows as u32).filter(|row| row % 11 != 3).collect();
        let (splits, leaves) = plain_tree(&table, &pairs, &taken, &case.config);
        assert!(case.seed > 3 || splits.len() > 8, "{} splits", splits.len());
        // Two digits: integers as much larger as units are smaller, so that gains are the same.
        let cuts = [
            (1, 1, false, None),
            (1, 3, true, None),
            (2, 1, true, Some(50)),
            (3, 2, false, None),
            (5, 1, false, None),
            (1, 2, false, Some(700)),
            (3, 1, false, Some(1)),
        ];
        for (size, threads, is_wide, page_rows) in cuts {
            let up = if is_wide { WIDER } else { 1 };
            let scale = PairScale { gradient: SCALE.gradient / up as f64, hessian: SCALE.hessian / up as f64, is_wide };
            let found = run_threads(size, threads, |comm| {
                let units = Partition::new(case.n_rows as u64, comm.size()).units_of(comm.rank());
                let rows = units.start as usize..units.end as usize;
                let here = table.records(rows.clone(), page_rows);
                let mut grower = Grower::new(comm, here, &case.config);
                grower.choose(comm, |row| taken.contains(&(row + rows.start as u32)))?;
                // Twice, since buffers are used again, and records are elsewhere.
                grower.grow(comm, 5, scale, pairs_of(&pairs[rows.clone()], is_wide))?;
                let grown = grower.grow(comm, 5, scale, pairs_of(&pairs[rows.clone()], is_wide))?;
                let mut of_leaves = grower.leaf_of().rows_of_leaves(grown.n_leaves());
                of_leaves.iter_mut().flatten().for_each(|row| *row += rows.start as u32);
                let places = grown.leaves.iter().map(|places| rows_of(places)).collect::<Vec<_>>();
                assert!(of_leaves.iter().map(|rows| rows.len() as u64).eq(places), "places of leaves");
                Ok((grown, of_leaves))
            })
            .unwrap();
            for (grown, _) in &found {
                let of_inner = |inner: &Inner| {
                    let Sums { gradient, hessian } = inner.split.left;
                    assert_eq!((gradient % up, hessian % up), (0, 0));
                    let left = Sums { gradient: gradient / up, hessian: hessian / up };
                    (inner.leaf, Split { left, ..inner.split.clone() })
                };
                let in_order: Vec<(usize, Split)> = grown.inner.iter().map(of_inner).collect();
                assert_eq!(in_order, splits, "seed {}, {size} ranks", case.seed);
                let counts: Vec<u64> = leaves.iter().map(|leaf| leaf.rows.len() as u64).collect();
                assert_eq!(grown.leaf_rows, counts);
                let bounds: Vec<[f64; 2]> = grown.bounds.iter().map(|bounds| [bounds.least, bounds.most]).collect();
                assert_eq!(bounds, leaves.iter().map(|leaf| leaf.bounds).collect::<Vec<_>>());
            }
            for (leaf, plain) in leaves.iter().enumerate() {
                let joined: Vec<u32> = found.iter().flat_map(|(_, of_leaves)| of_leaves[leaf].clone()).collect();
                assert_eq!(joined, plain.rows, "seed {}, {size} ranks, leaf {leaf}", case.seed);
            }
        }
    }
}

#[test]
fn rows_that_took_no_part_follow_the_tree() {
    let case =
        Case { n_rows: 2000, bins: vec![30, 9, 30], missing_every: 2, category_every: 0, config: config(), seed: 8 };
    let (table, pairs) = table(&case);
    for page_rows in [None, Some(300)] {
        let leaf_of = run_threads(1, 2, |comm| {
            let mut grower = Grower::new(comm, table.records(0..2000, page_rows), &case.config);
            grower.choose(comm, |row| row % 3 == 0)?;
            let grown = grower.grow(comm, 5, SCALE, pairs_of(&pairs, false))?;
            let leaf_of = |row: usize| (grower.leaf_of().of(row), grower.leaf_of().of_taken(row).is_some());
            Ok((grown, (0..2000).map(leaf_of).collect::<Vec<_>>()))
        });
        let (grown, leaf_of) = leaf_of.unwrap().remove(0);
        assert!(grown.inner.len() > 8);
        for (row, (leaf, is_taken)) in leaf_of.into_iter().enumerate() {
            let mut at = 0;
            for (number, Inner { split, leaf, .. }) in grown.inner.iter().enumerate() {
                if *leaf == at && !split.goes_left(table.bin(row, split.feature as usize)) {
                    at = number + 1;
                }
            }
            assert_eq!((at, row % 3 == 0), (leaf, is_taken), "row {row}");
        }
    }
}

/// Long enough for several tasks, blocks and pieces; sides of all kinds of sizes.
#[test]
fn records_are_parted_whole_and_none_is_lost() {
    let draws = Draws::new(6, Stream::Synthetic);
    let features: Vec<FeatureBins> = [300, 2, 3, 200]
        .map(|n: usize| FeatureBins { uppers: (1..n).map(|upper| upper as f64).collect(), ..FeatureBins::default() })
        .to_vec();
    for n_rows in [0, 1, 255, 256, 257, 258, 700, 50_000] {
        let bin = |row: usize, j: usize| draws.below(features[j].n_bins() as u64, row as u64, j as u64) as usize;
        let rows: Vec<Vec<usize>> = (0..n_rows).map(|row| [0, 1, 2, 3].map(|j| bin(row, j)).to_vec()).collect();
        let table = Table { features: features.clone(), rows };
        for (threads, page_rows) in [(1, None), (2, None), (5, None), (2, Some(1000)), (1, Some(20_000))] {
            let parted = run_threads(1, threads, |_| {
                let mut records = table.records(0..n_rows, page_rows);
                let mut n_first = Vec::new();
                for of_hundred in [0, 1, 37, 50, 99, 100] {
                    let middles =
                        records.bring_forward(|row| draws.below(100, row.into(), of_hundred + 9) < of_hundred);
                    n_first.push(middles?.iter().zip(records.pages()).map(|(middle, page)| middle - page.start).sum());
                }
                let by_wide = Split {
                    gain: 0.0,
                    feature: 0,
                    bin: 120,
                    missing: None,
                    missing_left: false,
                    left: Sums::default(),
                    left_set: vec![],
                };
                let by_shared = Split { feature: 2, bin: 0, ..by_wide.clone() };
                // Halves of each page, the second one first.
                let halves = |page: Range<usize>| {
                    let half = page.start + page.len() / 2;
                    [(half..page.end, &by_wide), (page.start..half, &by_shared)]
                };
                let runs: Vec<(Range<usize>, &Split)> = records.pages().into_iter().flat_map(halves).collect();
                let middles = records.split(&runs)?;
                let mut found = vec![None; n_rows];
                let mut places = vec![0; n_rows];
                records.each_page(|page| {
                    for (row, place) in page.places().into_iter().enumerate() {
                        let bins: Vec<usize> = (0..4).map(|j| page.bin(place as usize, j) as usize).collect();
                        found[page.first_row + row] = Some(bins);
                        places[page.first_row + row] = page.first_row + place as usize;
                    }
                })?;
                let runs: Vec<(Range<usize>, bool)> =
                    runs.into_iter().map(|(run, split)| (run, split.feature == 0)).collect();
                Ok((n_first, runs.into_iter().zip(middles).collect::<Vec<_>>(), found, places))
            });
            let (n_first, parted, found, places): (Vec<usize>, _, _, Vec<usize>) = parted.unwrap().remove(0);
            for (n, of_hundred) in n_first.into_iter().zip([0, 1, 37, 50, 99, 100]) {
                let is_first = |row: &usize| draws.below(100, *row as u64, of_hundred + 9) < of_hundred;
                assert_eq!(n, (0..n_rows).filter(is_first).count());
            }
            for (row, place) in places.iter().enumerate() {
                let bins = &table.rows[row];
                assert_eq!(found[row].as_ref(), Some(bins), "{n_rows} rows, row {row}");
                let ((_, is_wide), middle) = parted.iter().find(|((run, _), _)| run.contains(place)).unwrap();
                let goes_left = if *is_wide { bins[0] <= 120 } else { bins[2] == 0 };
                assert_eq!(goes_left, place < middle, "{n_rows} rows, place {place}");
            }
            let mut met = places;
            met.sort_unstable();
            assert!(met.into_iter().eq(0..n_rows));
        }
    }
}
