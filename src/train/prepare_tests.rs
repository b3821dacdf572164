use super::*;
use crate::comm::run_threads;
use crate::config::{Missing, Solver};
use crate::data::memory::MemorySource;
use crate::data::{Block, TargetKind};
use crate::train::Silent;
use crate::train::test_tables::Heard;

const N: usize = 3_000;

/// Two columns: one far from 0, and one from 0 to 1. Before row `from` the first has no value or, if `weightless`, all rows
/// have weight 0 and the first row of the second holds 10²⁵. Also mean and standard deviation of what counts.
fn late(wide: bool, from: usize, weightless: bool) -> (MemorySource, [(f64, f64); 2]) {
    // Multiples of the step that float32 holds, too, if it has to.
    let (far, step) = if wide { (1e9, 1e-3) } else { (1e7, 1.0) };
    let stored = |x: f64| if wide { x } else { f64::from(x as f32) };
    let k = |row: usize| (row * 7919 % 1009) as f64;
    let column = |j: usize, row: usize| stored(if j == 0 { far + step * k(row) } else { k(row) / 1009.0 });
    let moments = |j: usize| {
        let first = if j == 0 || weightless { from } else { 0 };
        let near = if j == 0 { far } else { 0.0 };
        let values: Vec<f64> = (first..N).map(|row| column(j, row) - near).collect();
        let mean = values.iter().fold(0.0, |sum, x| sum + x) / values.len() as f64;
        let squares = values.iter().fold(0.0, |sum, x| sum + (x - mean) * (x - mean));
        (near + mean, (squares / values.len() as f64).sqrt())
    };
    let mut x: Vec<f64> = (0..N).flat_map(|row| [column(0, row), column(1, row)]).collect();
    if weightless {
        x[1] = 1e25;
    } else {
        x[..2 * from].iter_mut().step_by(2).for_each(|x| *x = f64::NAN);
    }
    let table = match wide {
        true => MemorySource::from_f64(x, 2),
        false => MemorySource::from_f32(x.iter().map(|x| *x as f32).collect(), 2),
    };
    let weight = (0..N).map(|row| if weightless && row < from { 0.0 } else { 1.0 }).collect();
    let table = table
        .and_then(|table| table.with_target((0..N).map(|row| (row % 2) as f64).collect(), TargetKind::Integer))
        .and_then(|table| table.with_weight(weight));
    (table.unwrap(), [moments(0), moments(1)])
}

#[test]
fn a_column_that_starts_late_or_after_rows_without_weight_is_standardised_as_any_other() {
    for (wide, weightless) in [(false, false), (true, false), (false, true), (true, true)] {
        // Inside the first block of 48 rows, and behind it.
        for from in [5, 100, 2_000] {
            let (table, expected) = late(wide, from, weightless);
            let prepared = |comm: &Communicator| {
                Ok(prepare(comm, &mut table.clone(), &TrainConfig::default(), &Reading::default(), None, &mut Silent)?
                    .preprocess)
            };
            let alone = prepared(&Communicator::solo()).unwrap();
            for (j, (mean, deviation)) in expected.into_iter().enumerate() {
                approx::assert_relative_eq!(alone.mean[j], mean, max_relative = 1e-14);
                let found = alone.inverse_scale[j] * deviation;
                assert!(
                    (found - 1.0).abs() < 1e-9,
                    "column {j}, wide {wide}, weightless {weightless}, {from}: {found}"
                );
            }
            for of_rank in run_threads(3, 1, prepared).unwrap() {
                assert_eq!(of_rank, alone);
            }
        }
    }
}

/// Lanes are whole runs of 16 rows, so the first ones of a short table are empty.
#[test]
fn ranks_with_empty_lanes_standardise_as_one_rank_does() {
    let config = TrainConfig { solver: Solver::Sgd, lanes: Some(8), ..TrainConfig::default() };
    for n in [2, 7, 15, 17, 40, 100] {
        let x = (0..2 * n).map(|i| ((i * 7919 % 1009) as f32).sqrt() + 0.1).collect();
        let table = MemorySource::from_f32(x, 2)
            .and_then(|table| table.with_target((0..n).map(|row| (row % 2) as f64).collect(), TargetKind::Integer))
            .unwrap();
        let prepared = |comm: &Communicator| {
            Ok(prepare(comm, &mut table.clone(), &config, &Reading::default(), None, &mut Silent)?.preprocess)
        };
        let alone = prepared(&Communicator::solo()).unwrap();
        for ranks in [2, 3, 5, 8, 9] {
            for of_rank in run_threads(ranks, 1, prepared).unwrap() {
                assert_eq!(of_rank, alone, "{n} rows, {ranks} ranks");
            }
        }
    }
}

#[test]
fn one_class_is_left_when_the_rows_of_the_other_weigh_nothing() {
    let of = |weight: Vec<f64>| {
        let table = MemorySource::from_f32((0..40).map(|i| i as f32).collect(), 1).unwrap();
        table
            .with_target((0..40).map(|row| (row % 2) as f64).collect(), TargetKind::Integer)
            .and_then(|table| table.with_weight(weight))
            .unwrap()
    };
    let prepared = |weight: Vec<f64>| {
        prepare(&Communicator::solo(), &mut of(weight), &TrainConfig::default(), &Reading::default(), None, &mut Silent)
            .map(|_| ())
    };
    let message = prepared((0..40).map(|row| (row % 2) as f64).collect()).unwrap_err().to_string();
    assert!(message.starts_with("the target has one class (1) in rows of weight above 0"), "{message}");
    assert_eq!(prepared(vec![1.0; 40]), Ok(()));
}

const CODES: [f64; 5] = [-7.0, 0.0, 2.5, 300.0, 1e6];
const COLOURS: [&str; 4] = ["", "blue", "green", "red"];

/// The code of a row, which may be missing: the last of them only in the last row.
fn code(n: usize, row: usize) -> f64 {
    match row {
        row if row + 1 == n => CODES[4],
        row if row % 11 == 3 => f64::NAN,
        row => CODES[row * 3 / 2 % 4],
    }
}

/// The last of them only in a row of weight 0.
fn colour(row: usize) -> usize {
    if row == 17 { 3 } else { row * 7 % 3 }
}

/// A number that may be missing, a code, a number, a colour and a place.
fn coded(n: usize, wide: bool) -> MemorySource {
    let number = |row: usize| if row % 13 == 5 { f64::NAN } else { (row * 7919 % 1009) as f64 };
    let x: Vec<f64> = (0..n).flat_map(|row| [number(row), code(n, row), (row % 5) as f64]).collect();
    let table = match wide {
        true => MemorySource::from_f64(x, 3),
        false => MemorySource::from_f32(x.iter().map(|x| *x as f32).collect(), 3),
    };
    table
        .and_then(|table| table.with_text_column("colour", (0..n).map(|row| COLOURS[colour(row)].into()).collect()))
        .and_then(|table| table.with_text_column("place", (0..n).map(|row| format!("p{}", row % 3)).collect()))
        .and_then(|table| table.with_target((0..n).map(|row| (row / 2 % 2) as f64).collect(), TargetKind::Integer))
        .and_then(|table| table.with_weight((0..n).map(|row| if row == 17 { 0.0 } else { 1.0 }).collect()))
        .unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// What preparing gives with these columns as categories, and the bits of the standardised rows here.
fn with_categories(
    comm: &Communicator,
    table: &MemorySource,
    config: &TrainConfig,
    categorical: Categorical<'_>,
    streamed: bool,
    watch: &mut dyn Observer,
) -> Result<(Preprocess, Vec<f64>, Vec<u32>)> {
    let (mut table, reading) = (table.clone(), Reading { streamed, ..Reading::default() });
    let prepared = prepare_as(comm, &mut table, config, categorical, &reading, None, watch)?;
    assert_eq!(prepared.table.streamed().is_some(), streamed);
    let mut rows = Vec::new();
    prepared.table.each_batch(|buffer, blocks, _| {
        let d = buffer.n_features;
        for block in blocks {
            rows.extend(buffer.x.dense().unwrap()[block.start * d..block.end * d].iter().map(|x| x.to_bits()));
        }
    })?;
    Ok((prepared.preprocess, prepared.table.peak, rows))
}

#[test]
fn categories_are_their_places_from_1_on_however_the_table_is_cut_and_read() {
    let named = words(&["X[1]", "3"]);
    let full_batch = TrainConfig::default();
    let lanes =
        TrainConfig { solver: Solver::Adam, global_batch: 64, missing: Missing::Zero, ..TrainConfig::default() };
    for (n, wide, config) in
        [(1_009, false, &full_batch), (1_009, true, &lanes), (1_009, false, &lanes), (37, true, &full_batch)]
    {
        let table = coded(n, wide);
        let mut alone: Option<(Preprocess, Vec<f64>, Vec<u32>)> = None;
        for (size, threads) in [(1, 1), (1, 2), (2, 1), (3, 2), (5, 1), (5, 2)] {
            for streamed in [false, true] {
                let of_ranks = run_threads(size, threads, |comm| {
                    with_categories(comm, &table, config, Categorical::Named(&named), streamed, &mut Silent)
                });
                let mut all = Vec::new();
                let of_ranks = of_ranks.unwrap();
                let (preprocess, peak, _) = of_ranks[0].clone();
                for (of_rank, peak_of_rank, rows) in of_ranks {
                    assert_eq!((&of_rank, &peak_of_rank), (&preprocess, &peak));
                    all.extend(rows);
                }
                let found = (preprocess, peak, all);
                assert_eq!(
                    alone.get_or_insert_with(|| found.clone()),
                    &found,
                    "{size} × {threads}, streamed {streamed}"
                );
            }
        }
        let (preprocess, peak, rows) = alone.unwrap();
        let names = ["X[0]", "X[1]", "X[2]", "colour", "place=p0", "place=p1", "place=p2"];
        assert_eq!(preprocess.feature_names(), names);
        assert_eq!(preprocess.category_features(), [(1, 5), (3, 4)]);
        assert_eq!(
            (preprocess.columns[1].values.as_slice(), &preprocess.columns[3].categories),
            (&CODES[..], &words(&COLOURS))
        );
        assert_eq!((peak[1], peak[3]), (5.0, 3.0), "of rows of weight above 0");
        for (row, x) in rows.chunks_exact(7).enumerate() {
            let place = CODES.iter().position(|known| *known == code(n, row)).map_or(0, |place| place + 1);
            let found = [f32::from_bits(x[1]), f32::from_bits(x[3])];
            assert_eq!(found, [place as f32, colour(row) as f32 + 1.0], "row {row} of {n}");
        }
    }
}

#[test]
fn what_is_no_category_stays_what_it_is_without_categories() {
    let table = coded(97, false);
    let named = words(&["colour", "X[1]", "colour"]);
    let run = |categorical| {
        let config = TrainConfig::default();
        with_categories(&Communicator::solo(), &table, &config, categorical, false, &mut Silent).unwrap()
    };
    let (plain, _, without) = run(Categorical::None);
    let (_, _, with) = run(Categorical::Named(&named));
    let (all, ..) = run(Categorical::StringsAnd(&[]));
    assert_eq!(plain.category_features(), []);
    assert_eq!((plain.n_features(), all.category_features()), (10, vec![(3, 4), (4, 3)]));
    for (without, with) in without.chunks_exact(10).zip(with.chunks_exact(7)) {
        assert_eq!(
            [without[0], without[2], without[7], without[8], without[9]],
            [with[0], with[2], with[4], with[5], with[6]]
        );
    }
}

#[test]
fn unknown_categories_of_another_table_are_0() {
    let named = words(&["X[1]", "colour"]);
    for missing in [Missing::Mean, Missing::Zero] {
        let config = TrainConfig { missing, ..TrainConfig::default() };
        let of = Categorical::Named(&named);
        let (preprocess, ..) =
            with_categories(&Communicator::solo(), &coded(97, false), &config, of, false, &mut Silent).unwrap();
        // As float64, though training saw float32.
        let x = vec![1.0, 2.5, 1.0, 1.0, 2.6, 1.0, 1.0, f64::NAN, 1.0, 1.0, 0.0, 1.0];
        let table = MemorySource::from_f64(x, 3)
            .and_then(|table| table.with_text_column("colour", words(&["red", "pink", "", "Red"])))
            .and_then(|table| table.with_text_column("place", words(&["p0"; 4])))
            .unwrap();
        let mut rows = vec![0.0; 4 * 7];
        preprocess.standardise(table.block(), &mut rows).unwrap();
        let found: Vec<[f32; 2]> = rows.chunks_exact(7).map(|x| [x[1], x[3]]).collect();
        assert_eq!(found, [[3.0, 4.0], [0.0, 0.0], [0.0, 1.0], [2.0, 0.0]], "{missing:?}");
    }
}

#[test]
fn a_column_without_any_category_is_0_and_no_constant() {
    let x = (0..60).map(|i| if i % 2 == 0 { f32::NAN } else { i as f32 }).collect();
    let table = MemorySource::from_f32(x, 2)
        .and_then(|table| table.with_target((0..30).map(|row| (row % 2) as f64).collect(), TargetKind::Integer))
        .unwrap();
    let (named, config, mut heard) = (words(&["0"]), TrainConfig::default(), Heard::default());
    let of = Categorical::Named(&named);
    let (preprocess, peak, rows) =
        with_categories(&Communicator::solo(), &table, &config, of, false, &mut heard).unwrap();
    assert_eq!((preprocess.category_features(), peak[0], heard.warnings), (vec![(0, 0)], 0.0, vec![]));
    assert!(rows.iter().step_by(2).all(|x| *x == 0f32.to_bits()));
}

#[test]
fn sparse_rows_of_a_table_to_predict_on_find_their_categories() {
    let (named, of_training) = (words(&["X[1]"]), coded(97, false));
    let dense = || MemorySource::from_f64(vec![3.0, 300.0, 0.0, 0.0, 0.0, 2.0, 1.0, 4.0, 0.0], 3).unwrap();
    let config = TrainConfig::default();
    let of = Categorical::Named(&named);
    let (mut preprocess, ..) =
        with_categories(&Communicator::solo(), &of_training, &config, of, false, &mut Silent).unwrap();
    preprocess.columns.truncate(3);
    let rows = |block: &Block| {
        let mut rows = vec![0.0; 9];
        preprocess.standardise(block, &mut rows).unwrap();
        rows
    };
    assert_eq!(rows(dense().into_sparse().block()), rows(dense().block()));
    assert_eq!([1, 4, 7].map(|at| rows(dense().block())[at]), [4.0, 2.0, 0.0]);
}

#[test]
fn columns_that_cannot_be_categories_are_refused_by_name() {
    let refused = |table: &MemorySource, named: &[&str], missing: Missing| {
        let (named, config) = (words(named), TrainConfig { missing, ..TrainConfig::default() });
        let of_ranks = run_threads(2, 1, |comm| {
            let of = Categorical::Named(&named);
            let found = with_categories(comm, table, &config, of, false, &mut Silent);
            Ok(found.map(|(preprocess, ..)| preprocess.category_features()).map_err(|e| e.to_string()))
        });
        let mut of_ranks = of_ranks.unwrap();
        of_ranks.swap_remove(0)
    };
    let table = coded(97, false);
    let found = refused(&table, &["color"], Missing::Mean).unwrap_err();
    assert_eq!(found, "--categorical: there is no column 'color'; there is: X[0], X[1], X[2], colour, place");
    let found = refused(&table, &["X[1]"], Missing::Error).unwrap_err();
    assert!(found.contains("'X[0]'") || found.contains("'X[1]'"), "{found}");
    let sparse = MemorySource::from_f64((0..80).map(f64::from).collect(), 2).unwrap().into_sparse();
    let sparse = sparse.with_target((0..40).map(|row| f64::from(row % 2)).collect(), TargetKind::Integer).unwrap();
    assert!(refused(&sparse, &["1"], Missing::Zero).unwrap_err().starts_with("--categorical: categories cannot be"));

    let many = |n: usize, texts: usize| {
        let table = MemorySource::from_f64((0..n).map(|row| row as f64).collect(), 1).unwrap();
        let target = (0..n).map(|row| (row % 2) as f64).collect();
        let table = table.with_target(target, TargetKind::Integer).unwrap();
        table.with_text_column("s", (0..n).map(|row| (row % texts).to_string()).collect()).unwrap()
    };
    assert_eq!(refused(&many(65_000, 2), &["X[0]"], Missing::Mean), Ok(vec![(0, 65_000)]));
    let found = refused(&many(65_001, 2), &["X[0]"], Missing::Mean).unwrap_err();
    assert!(found.contains("column 'X[0]' has more than 65000 categories"), "{found}");
    assert_eq!(refused(&many(20_003, 10_001), &["s"], Missing::Mean), Ok(vec![(1, 10_001)]));
    let found = refused(&many(20_003, 10_001), &[], Missing::Mean).unwrap_err();
    assert!(found.contains("text column 's' has more than 10000 distinct values"), "{found}");
}
