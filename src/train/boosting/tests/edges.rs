//! Boosting where there is little to learn from: few rows, nothing to split by, nothing held out; and where there is much of it.

use super::*;
use crate::train::{Observer, Progress};

/// What a training said and how far it came.
#[derive(Default)]
struct Heard {
    warnings: Vec<String>,
    steps: u64,
}

impl Observer for Heard {
    fn progress(&mut self, progress: &Progress) {
        self.steps = progress.step;
    }

    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_string());
    }
}

/// What came of it, and what was heard, which is the same on every rank.
fn train_and_hear(size: usize, table: &MemorySource, config: &TrainConfig) -> (Result<Model>, Heard) {
    let config = config.resolved().unwrap();
    let ended = run_threads(size, 1, |comm| {
        let (mut source, mut heard) = (table.clone(), Heard::default());
        let reading = Reading::default();
        let trained = train_source(comm, &mut source, &TableNames::default(), &config, &reading, &mut heard);
        Ok((trained.map(|(model, _)| model).map_err(|error| error.to_string()), heard))
    });
    let mut ended = ended.unwrap();
    assert!(ended.iter().all(|(_, heard)| heard.warnings == ended[0].1.warnings && heard.steps == ended[0].1.steps));
    let (trained, heard) = ended.swap_remove(0);
    (trained.map_err(crate::error::Error::data), heard)
}

fn numbers(x: Vec<f64>, d: usize, y: Vec<f64>) -> MemorySource {
    MemorySource::from_f64(x, d).unwrap().with_target(y, TargetKind::Float).unwrap()
}

#[test]
fn one_two_and_three_rows_are_learned_exactly_on_more_ranks_than_rows() {
    let x = [0.5, f64::NAN, -1.0];
    let y = [4.0, 1.0, 9.0];
    for n in 1..=3 {
        let table = numbers(x[..n].to_vec(), 1, y[..n].to_vec());
        let change = |boost: &mut BoostConfig| (boost.min_rows, boost.min_hessian, boost.shrinkage) = (1, 0.0, 1.0);
        let config = TrainConfig { l2: 0.0, ..config(change) };
        let (model, _) = same_on_all_cuts("few rows", &table, &config);
        assert_eq!(boosted(&model).trees[0].n_leaves(), n);
        for (score, y) in scores(&model, &table).iter().zip(y) {
            approx::assert_relative_eq!(*score, y, max_relative = 1e-6);
        }
    }
}

#[test]
fn a_model_that_splits_nothing_says_so_and_why() {
    let n = 30;
    let y: Vec<f64> = (0..n).map(|row| row as f64).collect();
    let rising = numbers(y.clone(), 1, y.clone());
    let constant = numbers((0..2 * n).map(|i| if i % 2 == 0 { 3.0 } else { f64::NAN }).collect(), 2, y.clone());
    let cases: [(&MemorySource, Change, Option<&str>); 5] = [
        (&rising, |boost| boost.min_rows = 5, None),
        (&rising, |boost| boost.min_rows = 16, Some("--min-rows 16 is more than half of the 30 rows")),
        (&rising, |boost| boost.max_leaves = 1, Some("--max-leaves 1 asks for")),
        (&rising, |boost| boost.min_hessian = 1e6, Some("--min-hessian 1000000")),
        (&constant, |boost| boost.min_rows = 1, Some("all features may be constant or missing")),
    ];
    for (table, change, why) in cases {
        let (model, heard) = train_and_hear(3, table, &config(change));
        let Some(why) = why else {
            assert_eq!(heard.warnings, Vec::<String>::new());
            continue;
        };
        let [warning] = &heard.warnings[..] else { panic!("not one warning: {:?}", heard.warnings) };
        assert!(warning.contains("no split was found") && warning.contains(why), "{why}: {warning}");
        for score in scores(&model.unwrap(), table) {
            approx::assert_relative_eq!(score, 14.5, max_relative = 1e-6);
        }
    }
}

#[test]
fn that_nothing_is_held_out_is_said_before_the_first_round() {
    let plain = table(300, |s| f64::from(s > 0.3), TargetKind::Integer);
    let config = TrainConfig { valid_fraction: 0.3, ..config(|boost| boost.early_stop = 2) };
    let hold = HeldOut::Fraction(0.3);
    let weight = (0..300).map(|row| if hold.holds_out(config.seed, row) { 0.0 } else { 1.0 }).collect();
    let weighted = plain.clone().with_weight(weight).unwrap();
    let (trained, heard) = train_and_hear(3, &weighted, &config);
    let text = trained.unwrap_err().to_string();
    assert!(text.contains("no row of weight above 0 was held out; raise --valid-fraction"), "{text}");
    assert_eq!(heard.steps, 0);
    let (trained, heard) = train_and_hear(3, &plain, &config);
    assert!(trained.is_ok() && heard.steps > 2);
}

#[test]
fn weights_may_not_leave_one_class_or_nothing() {
    let of = |weight: fn(f64) -> f64| {
        let y: Vec<f64> = (0..90).map(|row| f64::from(row % 3 == 0)).collect();
        let weight = y.iter().map(|y| weight(*y)).collect();
        let table = numbers((0..90).map(f64::from).collect(), 1, y.clone());
        let table = table.with_target(y, TargetKind::Integer).unwrap().with_weight(weight).unwrap();
        train(2, 1, &table, &config(|_| ())).map(drop).unwrap_err().to_string()
    };
    assert!(of(|_| 0.0).contains("all rows have weight 0"));
    let text = of(|y| y);
    assert!(text.contains("one class (1) in rows of weight above 0"), "{text}");
}

#[test]
fn an_offset_is_refused_and_not_passed_over() {
    let table = table(100, |s| s.exp(), TargetKind::Float).with_offset(vec![0.0; 100]).unwrap();
    let text = train(2, 1, &table, &config(|boost| boost.loss = BoostLoss::Poisson)).unwrap_err().to_string();
    assert!(text.contains("--offset is not for boost"), "{text}");
}

#[test]
fn strings_that_nobody_knew_are_all_one() {
    let colors = ["red", "blue", "", "green"];
    let of = |color: &dyn Fn(usize) -> &'static str| {
        let table = numbers((0..400).map(|row| f64::from(row % 7)).collect(), 1, (0..400).map(f64::from).collect());
        table.with_text_column("color", (0..400).map(|row| color(row).to_string()).collect()).unwrap()
    };
    let known = of(&|row| colors[row * 4 / 400]);
    let (model, _) =
        train(2, 1, &known, &config(|boost| (boost.min_data_per_group, boost.cat_smooth) = (1, 0.0))).unwrap();
    // An empty string is one like others.
    let first = |color: &'static str| scores(&model, &of(&move |_| color))[0];
    assert_eq!(first("amber"), first("violet"));
    assert!(colors.iter().all(|color| first(color) != first("violet")));
}

#[test]
fn more_bins_than_values_change_nothing_in_a_wide_table() {
    let (n, d) = (150, 300);
    let draws = Draws::new(17, Stream::Synthetic);
    let x: Vec<f64> = (0..n * d).map(|i| draws.normal((i / d) as u64, (i % d) as u64)).collect();
    let y = x.chunks(d).map(|row| f64::from(row[d - 1] > 0.1) + 0.5 * row[17]).collect();
    let table = numbers(x, d, y);
    let of = |bins: u64, size: usize| {
        let config = config(|boost| (boost.max_bins, boost.rounds, boost.max_leaves) = (bins, 3, 6));
        boosted(&train(size, 1, &table, &config).unwrap().0).clone()
    };
    let most = of(65_535, 1);
    assert_eq!(most.trees[0].feature[0], d as u32 - 1);
    assert_eq!(of(65_535, 4), most);
    assert_eq!(of(n as u64, 1), most);
    assert_ne!(of(20, 1), most);
}
