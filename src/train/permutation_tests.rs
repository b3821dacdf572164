//! Tests of permutation importance: which rows meet, what a column is worth, the same for any number of ranks.

use super::*;
use crate::comm::run_threads;
use crate::config::TrainConfig;
use crate::data::memory::MemorySource;
use crate::data::names::TableNames;
use crate::data::synthetic::{Storage, write_hdf5};
use crate::data::{TargetKind, Targets};
use crate::train::{Silent, train};
use std::path::Path;

const N: usize = 1_009;

/// Rows sorted by class. Columns: one that tells the class, noise, a constant, and a text that tells a little.
fn table(seed: u64, is_number: bool) -> MemorySource {
    let draws = Draws::new(seed, Stream::Synthetic);
    let class = |row: usize| f64::from(u8::from(row > N / 2));
    let mut x = Vec::new();
    for row in 0..N {
        let noise = [0, 1, 2].map(|salt| draws.normal(row as u64, salt));
        x.extend([(2.0 * class(row) + noise[0]) as f32, noise[1] as f32, 3.0]);
    }
    let text = |row: usize| {
        let often = draws.uniform(row as u64, 3) < 0.5 + 0.3 * class(row);
        if often { "near".to_string() } else { "far".to_string() }
    };
    let y: Vec<f64> =
        (0..N).map(|row| class(row) + if is_number { 0.1 * draws.normal(row as u64, 4) } else { 0.0 }).collect();
    let kind = if is_number { TargetKind::Float } else { TargetKind::Integer };
    MemorySource::from_f32(x, 3)
        .and_then(|t| t.with_target(y, kind))
        .and_then(|t| {
            t.with_weight((0..N).map(|row| if row % 13 == 0 { 0.0 } else { 0.5 + (row % 3) as f64 }).collect())
        })
        .and_then(|t| t.with_text_column("site", (0..N).map(text).collect()))
        .unwrap()
}

fn inputs_at(path: &Path) -> Inputs {
    let word = |name: &str| Some(name.to_string());
    let names = TableNames {
        features: vec!["X".into(), "site".into()],
        target: word("y"),
        weight: word("weight"),
        ..TableNames::default()
    };
    Inputs { paths: vec![path.to_owned()], names, ..Inputs::default() }
}

fn trained(inputs: &Inputs, kind: Kind) -> Model {
    let config = TrainConfig::of(kind).resolved().unwrap();
    train(&Communicator::solo(), inputs, &config, &mut Silent).unwrap().0
}

#[test]
fn every_row_gives_its_values_once_in_every_repeat() {
    for (rows, columns) in [(0..1_009, 3), (16..20, 1), (100..101, 1), (32..40_000, 60)] {
        let donors = Donors::new(&rows, columns, 3, 3);
        let plan = RowPlan::full_batch(rows.end - rows.start, columns);
        let mut of_repeats = Vec::new();
        for repeat in 0..3 {
            let mut from = Vec::new();
            for block in plan.blocks(0..plan.n_units()) {
                let block = block.start + rows.start..block.end + rows.start;
                let (there, order) = donors.of(&block, repeat);
                assert_eq!(there.end - there.start, block.end - block.start);
                from.extend(order.iter().map(|row| there.start + row));
            }
            let mut sorted = from.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, rows.clone().collect::<Vec<_>>(), "{rows:?}");
            of_repeats.push(from);
        }
        let n_rows = rows.end - rows.start;
        assert_eq!(of_repeats[0] != of_repeats[1] || of_repeats[1] != of_repeats[2], n_rows > 1, "{rows:?}");
    }
}

#[test]
fn a_column_counts_as_much_as_it_says_even_of_sorted_rows() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, metric, seed) in [(Kind::Logistic, "log_loss", 1), (Kind::Svm, "accuracy", 2), (Kind::Linear, "rmse", 3)]
    {
        let path = folder.path().join(format!("{metric}.h5"));
        write_hdf5(&path, "", &table(seed, kind == Kind::Linear), Storage::default()).unwrap();
        let inputs = inputs_at(&path);
        let model = trained(&inputs, kind);
        let found = permutation(&Communicator::solo(), &model, &inputs, None, 5, seed).unwrap();
        assert_eq!(found.metric, metric);
        let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["X[0]", "X[1]", "X[2]", "site"]);
        let [telling, noise, constant, text] = [0, 1, 2, 3].map(|column| found.columns[column].mean);
        assert!(telling > 0.1, "{found:?}");
        // What noise costs is of the order of the number of coefficients by that of rows.
        assert!(noise.abs() < 0.01, "{found:?}");
        assert_eq!(constant, 0.0, "{found:?}");
        assert!(text > 0.0 && text < telling, "{found:?}");
        let measured = super::super::evaluate::evaluate(&Communicator::solo(), &model, &inputs, None).unwrap();
        assert!((measured.metrics.get(metric).unwrap() - found.value).abs() < 1e-12, "{found:?}");
    }
}

#[test]
fn any_number_of_ranks_finds_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    write_hdf5(&path, "", &table(5, false), Storage { chunk_rows: Some(100), deflate: Some(1) }).unwrap();
    let inputs = inputs_at(&path);
    let models = [trained(&inputs, Kind::Logistic), trained(&inputs, Kind::Boost)];
    for (model, rows) in models.iter().flat_map(|model| [(model, None), (model, Some(7..990))]) {
        let alone = permutation(&Communicator::solo(), model, &inputs, rows.clone(), 2, 9).unwrap();
        for size in [1, 2, 3, 5, 70] {
            let of_ranks = run_threads(size, 2, |comm| permutation(comm, model, &inputs, rows.clone(), 2, 9));
            assert!(of_ranks.unwrap().iter().all(|found| *found == alone), "{size} ranks");
        }
        let other = permutation(&Communicator::solo(), model, &inputs, rows, 2, 10).unwrap();
        assert_ne!(other, alone, "another seed");
    }
}

#[test]
fn one_column_changes_and_comes_back_dense_and_sparse() {
    let source = table(8, false);
    let (schema, block) = (source.schema().clone(), source.block());
    let order: Vec<u64> = (0..N as u64).map(|row| row * 2 % N as u64).collect();
    let mut mixed = block.clone();
    let sparse = {
        let x = (0..30).map(|i| if i % 2 == 0 { 0.0 } else { f64::from(i) }).collect();
        MemorySource::from_f64(x, 3).unwrap().into_sparse()
    };
    let Values::F32(x) = &block.values else { panic!("dense") };
    for column in [1, 3] {
        mix(&mut mixed, block, block, &schema, column, &order);
        let Values::F32(changed) = &mixed.values else { panic!("dense") };
        for row in 0..N {
            let from = row * 2 % N;
            let [own, other] = [&x[row * 3..][..3], &x[from * 3..][..3]];
            let expected = if column == 1 { [own[0], other[1], own[2]] } else { [own[0], own[1], own[2]] };
            assert_eq!(changed[row * 3..][..3], expected);
            assert_eq!(mixed.text[0][row], block.text[0][if column == 3 { from } else { row }]);
        }
        restore(&mut mixed, block, &schema, column);
        assert_eq!((&mixed.values, &mixed.text), (&block.values, &block.text));
        assert_eq!(mixed.target, Targets::clone(&block.target));
    }
    let (schema, block) = (sparse.schema().clone(), sparse.block());
    let mut mixed = block.clone();
    mix(&mut mixed, block, block, &schema, 1, &[1, 0, 2, 3, 4, 5, 6, 7, 8, 9]);
    let Values::Sparse(rows) = &mixed.values else { panic!("sparse") };
    // Rows were (0, 1, 0) and (3, 0, 5).
    assert_eq!([rows.row(0), rows.row(1)], [(&[][..], &[][..]), (&[0, 1, 2][..], &[3.0, 1.0, 5.0][..])]);
    restore(&mut mixed, block, &schema, 1);
    assert_eq!(mixed.values, block.values);
}
