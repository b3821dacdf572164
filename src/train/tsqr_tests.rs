use super::*;
use crate::objective::Squared;
use crate::train::test_tables::{Heard, Whole, config, largest_gradient, same_on_all_cuts};
use crate::train::{Kind, least_squares};

fn fit(whole: &Whole, l2: f64) -> (Fit, Heard) {
    let settings = config(Kind::Linear, l2, 1e-5);
    let start = vec![0.0; whole.d + 1];
    same_on_all_cuts(whole, |comm, table, watch| solve(comm, table, &Squared, &settings, start.clone(), watch))
}

#[test]
fn qr_and_cholesky_find_the_same_ridge() {
    // 32 blocks of 32 rows but the last: leaves, whole subtrees and leftovers.
    let mut whole = Whole::random(1_009, 6).with_targets(|s| 100.0 + 7.0 * s, 0.8);
    whole.offset = Some((0..1_009).map(|i| f64::from(i % 5)).collect());
    for l2 in [0.0, 3e-4, 0.5] {
        let (found, heard) = fit(&whole, l2);
        assert!(heard.warnings.is_empty());
        assert!(largest_gradient(&whole, &Squared, l2, &found.params) <= 1e-8);
        let settings = config(Kind::Linear, l2, 1e-5);
        let comm = Communicator::solo();
        let table = whole.of_rank(&comm);
        let other =
            least_squares::solve(&comm, &table, &Squared, &settings, vec![0.0; 7], &mut crate::train::Silent).unwrap();
        for (qr, cholesky) in found.params.iter().zip(&other.params) {
            approx::assert_relative_eq!(*qr, *cholesky, max_relative = 1e-11);
        }
    }
}

#[test]
fn dependent_columns_get_zero_and_are_named() {
    let mut whole = Whole::random(700, 6).with_targets(|s| s, 0.3);
    whole.set_column(1, |_, _| 0.0, 1);
    whole.set_column(3, |_, x| x, 0);
    whole.set_column(5, |_, x| -2.0 * x, 2);
    let (found, heard) = fit(&whole, 0.0);
    assert_eq!((found.params[1], found.params[3], found.params[5]), (0.0, 0.0, 0.0));
    assert_eq!(heard.warnings.len(), 1);
    assert!(heard.warnings[0].contains("feature 3, 5;"), "{:?}", heard.warnings);
    assert!(largest_gradient(&whole, &Squared, 0.0, &found.params) <= 1e-8);
    // A penalty shares the weight among equals.
    let (found, heard) = fit(&whole, 0.1);
    assert!(heard.warnings.is_empty());
    approx::assert_relative_eq!(found.params[0], found.params[3], epsilon = 1e-12);
    assert_eq!(found.params[1], 0.0);
}

#[test]
fn more_features_than_rows_of_a_block() {
    let whole = Whole::random(130, 50).with_targets(|s| s, 0.3);
    let (found, _) = fit(&whole, 0.0);
    assert!(largest_gradient(&whole, &Squared, 0.0, &found.params) <= 1e-8);
}

#[test]
fn subtrees_of_ranks_are_the_same_tree() {
    for n_blocks in [1, 2, 5, 31, 64] {
        let top = Node { level: ceil_log2(n_blocks), index: 0 };
        for cut in 0..=n_blocks {
            let mut next = 0;
            for run in [0..cut, cut..n_blocks] {
                let mut nodes = Vec::new();
                if !run.is_empty() {
                    top.within(&run, n_blocks, &mut nodes);
                }
                for node in nodes {
                    let blocks = node.blocks(n_blocks);
                    assert_eq!(blocks.start, next, "{n_blocks} blocks cut at {cut}");
                    next = blocks.end;
                }
            }
            assert_eq!(next, n_blocks);
        }
    }
}

#[test]
fn one_row_fits_its_target() {
    let mut whole = Whole::random(1, 2).with_targets(|_| 3.0, 0.0);
    whole.weight[0] = 2.0;
    let (found, heard) = fit(&whole, 0.0);
    assert_eq!(found.params, [0.0, 0.0, 3.0], "only the intercept is left");
    assert!(heard.warnings[0].contains("feature 0, 1;"), "{:?}", heard.warnings);
}
