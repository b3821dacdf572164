//! Trees against a plain grower of single trees, for any number of ranks and wherever the upper nodes end.

use super::draw::{NodeDraws, Shuffle, Way};
use super::search::{Mask, Search};
use super::tree::Grown;
use super::*;
use crate::comm::run_threads;
use crate::data::binned::FeatureBins;
use crate::model::forest::Node;
use crate::rng::{Draws, Stream};

/// A table: values by feature, classes, numbers, weights.
struct Table {
    features: Vec<FeatureBins>,
    /// (rows, features)
    bins: Vec<Vec<u8>>,
    class: Vec<u16>,
    number: Vec<i64>,
    weight: Vec<u64>,
}

impl Table {
    fn new(n: usize, d: usize, n_classes: u64, seed: u64) -> Table {
        let draws = Draws::new(seed, Stream::Synthetic);
        let features: Vec<FeatureBins> = (0..d)
            .map(|j| match j % 4 {
                3 => FeatureBins { uppers: Vec::new(), has_missing: true, categories: Some(vec![0, 2, 3, 7, 70]) },
                _ => FeatureBins {
                    uppers: (0..[1, 254, 12][j % 4]).map(f64::from).collect(),
                    has_missing: j % 4 == 1,
                    categories: None,
                },
            })
            .collect();
        let bin = |row: usize, j: usize| draws.below(features[j].n_bins() as u64, row as u64, j as u64) as u8;
        let bins: Vec<Vec<u8>> = (0..n).map(|row| (0..d).map(|j| bin(row, j)).collect()).collect();
        let noise = |row: usize, n: u64| draws.below(n, row as u64, 1000);
        let signal = |row: usize| u64::from(bins[row][1]) / 40 + u64::from(bins[row][3 % d] == 2) * 3;
        Table {
            class: (0..n).map(|row| ((signal(row) + noise(row, 3)) % n_classes) as u16).collect(),
            number: (0..n).map(|row| (signal(row) * 1000 + noise(row, 500)) as i64 - 2000).collect(),
            weight: (0..n).map(|row| noise(row + n, 4) * 100).collect(),
            features,
            bins,
        }
    }

    fn rows(&self, places: Range<usize>) -> BinRows {
        let mut rows = BinRows::with_room(self.features.clone(), places.len());
        let (stride, d) = (rows.stride(), self.features.len());
        let fill = |_: usize, run: &mut [u8]| {
            for (to, from) in run.chunks_exact_mut(stride).zip(&self.bins[places.clone()]) {
                to[..d].copy_from_slice(from);
            }
            Ok(())
        };
        rows.append(&[places.len()], fill).unwrap();
        rows
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Gini,
    Entropy,
    Numbers,
}

struct Case {
    table: Table,
    of: Of,
    n_classes: usize,
    is_weighted: bool,
    config: ForestConfig,
}

impl Case {
    /// Trees 2 to 6 grown by some ranks; `room`: bytes of rows at a time.
    fn grow(&self, comm: &Communicator, scope: &Scope, cut: &[usize], room: u64) -> Vec<Grown> {
        let here = cut[comm.rank()]..cut[comm.rank() + 1];
        let bins = self.table.rows(here.clone());
        let goal = match self.of {
            Of::Numbers => {
                Goal::Numbers { target: &self.table.number[here.clone()], zero: 0.5, unit: 0.25, range: [-1e9, 1e9] }
            }
            of => Goal::Classes {
                n_classes: self.n_classes,
                is_entropy: of == Of::Entropy,
                class: &self.table.class[here.clone()],
            },
        };
        let rows = Rows {
            bins: &bins,
            goal,
            weight: self.is_weighted.then_some(&self.table.weight[here.clone()]),
            are_units: !self.is_weighted,
            first_row: here.start as u64,
            n_all_rows: self.table.bins.len() as u64,
        };
        grow(comm, &rows, &self.config, scope, 2..7, room).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let config = |seed, max_features, min_rows, is_extra, mean: f64| ForestConfig {
        seed,
        max_features,
        min_rows,
        max_depth: None,
        is_extra,
        bootstrap: if mean > 0.0 { Bootstrap::poisson(seed, mean) } else { Bootstrap::none(seed) },
        is_balanced: false,
    };
    let case = |n, d, n_classes: usize, of, is_weighted, config| Case {
        table: Table::new(n, d, n_classes as u64, n as u64),
        of,
        n_classes,
        is_weighted,
        config,
    };
    vec![
        case(997, 7, 2, Of::Gini, false, config(1, 2, 1, false, 1.0)),
        case(1511, 5, 3, Of::Gini, true, config(2, 3, 4, false, 0.7)),
        case(499, 6, 2, Of::Entropy, false, config(3, 1, 1, true, 0.0)),
        case(701, 9, 2, Of::Numbers, true, config(4, 9, 3, false, 1.0)),
        case(353, 4, 2, Of::Numbers, false, ForestConfig { max_depth: Some(3), ..config(5, 2, 1, true, 1.5) }),
        case(601, 5, 4, Of::Gini, false, ForestConfig { is_balanced: true, ..config(6, 2, 2, false, 1.0) }),
        case(3, 2, 2, Of::Gini, false, config(7, 1, 1, false, 1.0)),
    ]
}

/// Says the first difference, not all of them.
fn check_same(found: &[Grown], expected: &[Grown], what: &str) {
    for (tree, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (at, (one, other)) in found.nodes.iter().zip(&expected.nodes).enumerate() {
            assert!(one == other, "{what}: node {at} of tree {tree}: {one:?}, {other:?}");
        }
        assert!(found == expected, "{what}: tree {tree}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn any_number_of_ranks_grows_the_same_trees_wherever_upper_nodes_end() {
    for case in cases() {
        let n = case.table.bins.len();
        let alone = run_threads(1, 1, |comm| Ok(case.grow(comm, &Scope::Global, &[0, n], 1 << 30))).unwrap().remove(0);
        assert!(n < 10 || alone.iter().all(|tree| tree.n_leaves > 4));
        // Twelve threads have so many tasks that upper nodes end late.
        for (size, threads, room) in
            [(1, 2, 1 << 30), (1, 12, 1 << 30), (2, 1, 1), (3, 2, 3000), (5, 1, 1 << 30), (4, 9, 1000)]
        {
            let cut: Vec<usize> =
                (0..=size).map(|rank| if rank == 1 && size > 1 { 0 } else { n * rank / size }).collect();
            for grown in run_threads(size, threads, |comm| Ok(case.grow(comm, &Scope::Global, &cut, room))).unwrap() {
                check_same(&grown, &alone, &format!("{:?}, {n} rows, {size} ranks × {threads}", case.of));
            }
        }
    }
}

#[test]
fn a_lane_grows_its_trees_from_its_own_rows() {
    for case in cases().into_iter().filter(|case| !case.config.is_balanced && case.table.bins.len() > 10) {
        let n = case.table.bins.len();
        let bounds = [0, n / 3, n / 2, n];
        let lanes = |owner: [usize; 3], first: [usize; 3]| -> Scope {
            Scope::Local(
                (0..3)
                    .map(|lane| Lane {
                        rank: owner[lane],
                        rows: bounds[lane] - first[lane]..bounds[lane + 1] - first[lane],
                    })
                    .collect(),
            )
        };
        let alone = lanes([0; 3], [0; 3]);
        let alone = run_threads(1, 2, |comm| Ok(case.grow(comm, &alone, &[0, n], 1))).unwrap().remove(0);
        let three = lanes([0, 1, 2], [0, n / 3, n / 2]);
        for grown in run_threads(3, 1, |comm| Ok(case.grow(comm, &three, &bounds, 1))).unwrap() {
            assert!(grown == alone, "{:?}", case.of);
        }
        let two = lanes([0, 0, 1], [0, 0, n / 2]);
        for grown in run_threads(2, 1, |comm| Ok(case.grow(comm, &two, &[0, n / 2, n], 1))).unwrap() {
            assert!(grown == alone, "{:?}", case.of);
        }
        // A tree of the first lane is the same if the other lanes are not there.
        let first = run_threads(1, 1, |comm| {
            Ok(case.grow(comm, &Scope::Local(vec![Lane { rank: 0, rows: 0..n / 3 }]), &[0, n], 1))
        });
        assert!(first.unwrap()[0][1] == alone[1], "tree 3 is of lane 0");
    }
}

/// Grows a tree as it is defined: node by node, all cells of all bins, no copies, nothing remembered.
fn plainly<P: Problem>(problem: &P, table: &Table, config: &ForestConfig, tree: u64, items: Vec<P::Item>) -> Grown {
    fn node<P: Problem>(
        (problem, table, config, tree): (&P, &Table, &ForestConfig, u64),
        (way, depth, at): (Way, usize, usize),
        items: &[P::Item],
        grown: &mut Grown,
    ) {
        let total = total_of(problem, items);
        let draws = NodeDraws::of_tree(config.seed, tree);
        let mut shuffle = Shuffle::new(table.features.len());
        let mut found = None;
        while found.is_none() && !config.is_leaf(problem, depth, &total) {
            let drawn = shuffle.next(draws, way, config.max_features).to_vec();
            if drawn.is_empty() {
                break;
            }
            let mut search = Search::new(problem, config.min_rows);
            search.begin(&total);
            for number in drawn {
                let feature = &table.features[number as usize];
                let bin_of = |item: &P::Item| usize::from(table.bins[P::row(item)][number as usize]);
                let of_bin = |bin| items.iter().copied().filter(|item| bin_of(item) == bin).collect::<Vec<_>>();
                let cells: Vec<Vec<u64>> = (0..feature.n_bins()).map(|bin| total_of(problem, &of_bin(bin))).collect();
                let mut mask = Mask::default();
                items.iter().map(bin_of).for_each(|bin| mask[bin / 64] |= 1 << (bin % 64));
                search.look(number, feature, &cells.concat(), &mask, config.is_extra.then_some((draws, way)));
            }
            found = search.found();
        }
        let Some(found) = found else { return grown.set_leaf(at, problem, &total) };
        let feature = &table.features[found.feature as usize];
        let child = grown.set_split(at, &found, feature);
        let goes_left = |item: &&P::Item| {
            let bin = usize::from(table.bins[P::row(item)][found.feature as usize]);
            match found.cut {
                search::Cut::OneOf(set) => search::has(&set, bin),
                search::Cut::UpTo { missing_left, .. } if feature.missing_bin() == Some(bin) => missing_left,
                search::Cut::UpTo { bin: last, .. } => bin <= usize::from(last),
            }
        };
        let (left, right): (Vec<&P::Item>, Vec<&P::Item>) = items.iter().partition(goes_left);
        for (side, items) in [left, right].into_iter().enumerate() {
            let items: Vec<P::Item> = items.into_iter().copied().collect();
            assert!(problem.draws(&total_of(problem, &items)) >= config.min_rows);
            let way = draws.children(way)[side];
            node((problem, table, config, tree), (way, depth + 1, child + side), &items, grown);
        }
    }
    if items.is_empty() {
        return Grown::default();
    }
    let mut grown = Grown { nodes: vec![Node::default()], ..Grown::default() };
    node((problem, table, config, tree), (NodeDraws::ROOT, 0, 0), &items, &mut grown);
    grown
}

#[test]
fn trees_are_those_of_a_plain_grower() {
    for case in cases().into_iter().filter(|case| !case.config.is_balanced) {
        let n = case.table.bins.len();
        let grown = run_threads(1, 1, |comm| Ok(case.grow(comm, &Scope::Global, &[0, n], 1))).unwrap().remove(0);
        for (tree, grown) in (2..7).zip(grown) {
            let drawn = case.config.bootstrap.of_tree(tree);
            let weight = |row: usize| if case.is_weighted { case.table.weight[row] } else { 1 };
            let rows = (0..n).map(|row| (row, drawn.of_row(row as u64))).filter(|(row, n)| *n > 0 && weight(*row) > 0);
            let (table, config) = (&case.table, &case.config);
            let plain = match case.of {
                Of::Gini if case.n_classes == 2 => {
                    let item = |(row, n)| BinaryItem::new(row as u32, table.class[row], n);
                    plainly(&Binary, table, config, tree, rows.map(item).collect())
                }
                Of::Numbers => {
                    let item = |(row, n)| NumberItem::new(row as u32, table.number[row], weight(row) as u32 * n, n);
                    plainly(
                        &Numbers { zero: 0.5, unit: 0.25, range: [-1e9, 1e9] },
                        table,
                        config,
                        tree,
                        rows.map(item).collect(),
                    )
                }
                of => {
                    let item =
                        |(row, n)| ClassItem::new(row as u32, table.class[row], weight(row) * u64::from(n), n as u16);
                    let problem = Classes { n_classes: case.n_classes, is_entropy: of == Of::Entropy };
                    plainly(&problem, table, config, tree, rows.map(item).collect())
                }
            };
            check_same(&[grown], &[plain], &format!("{:?}, {n} rows, tree {tree}", case.of));
        }
    }
}

#[test]
fn the_trees_of_another_place_come_back_from_bytes() {
    let case = cases().remove(1);
    let n = case.table.bins.len();
    let grown = run_threads(1, 1, |comm| Ok(case.grow(comm, &Scope::Global, &[0, n], 1))).unwrap().remove(0);
    assert!(grown.iter().any(|tree| !tree.sets.is_empty()));
    let mut bytes = Vec::new();
    grown.iter().for_each(|tree| tree.put(&mut bytes));
    let mut rest = &bytes[..];
    let again: Option<Vec<Grown>> = grown.iter().map(|_| Grown::take(&mut rest)).collect();
    assert!(again.as_ref() == Some(&grown) && rest.is_empty());
    assert_eq!(Grown::take(&mut &bytes[..bytes.len() / 20]), None);
}
