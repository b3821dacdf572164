use super::*;
use crate::comm::run_threads;
use crate::data::TargetKind;
use crate::data::memory::MemorySource;
use crate::train::Silent;

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
