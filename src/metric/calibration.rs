//! Are predicted probabilities true? Rows by predicted probability, expected calibration error, Brier score.

use super::Metrics;
use super::classification::most_probable;
use crate::exact::ExactSum;

/// Bins of equal width that probabilities are put in.
pub const N_BINS: usize = 10;

/// Probabilities of some rows beside what happened. Merges in any order.
///
/// What is looked at is the probability of class 1 of two classes, and whether the row is of class 1; of more classes the largest
/// probability (the confidence), and whether the row is of that class.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationStats {
    bins: Vec<BinStats>,
    /// Σ w·(squared distance of the probabilities from what happened).
    squares: ExactSum,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct BinStats {
    n_rows: u64,
    weight: ExactSum,
    /// Σ w·p.
    predicted: ExactSum,
    /// Σ w of the rows where it happened.
    observed: ExactSum,
}

/// The rows whose probability is from `lower` to below `upper` (the last bin: and 1).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ReliabilityBin {
    pub lower: f64,
    pub upper: f64,
    /// Rows of weight above 0.
    pub rows: u64,
    /// Σw.
    pub weight: f64,
    /// Weighted mean of the probability; None without rows.
    pub predicted: Option<f64>,
    /// Weighted share of the rows where it happened; None without rows.
    pub observed: Option<f64>,
}

/// The finished numbers of [`CalibrationStats`].
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Expected calibration error: |observed − predicted| of the bins, weighted by their rows' weight, 0…1.
    /// Source: Naeini, Cooper, Hauskrecht, *Obtaining well calibrated probabilities using Bayesian binning*, AAAI 2015.
    pub ece: f64,
    /// Weighted mean of (p − y)² of class 1 of two classes, 0…1; of more, of Σ (pₖ − yₖ)² over the classes, 0…2.
    /// Source: Brier, *Verification of forecasts expressed in terms of probability*, 1950; scaled as by scikit-learn.
    pub brier: f64,
    /// [`N_BINS`] bins, ascending.
    pub bins: Vec<ReliabilityBin>,
}

impl Default for CalibrationStats {
    fn default() -> CalibrationStats {
        CalibrationStats::new()
    }
}

impl CalibrationStats {
    /// Words of [`to_words`](Self::to_words).
    pub const WORDS: usize = N_BINS + (3 * N_BINS + 1) * ExactSum::WORDS;

    /// No rows yet.
    pub fn new() -> CalibrationStats {
        CalibrationStats { bins: vec![BinStats::default(); N_BINS], squares: ExactSum::new() }
    }

    /// Adds one row. Not collective.
    ///
    /// * `target`: index of the true class. `probabilities`: (classes), two or more.
    /// * `weight` ≥ 0; a row of weight 0 is not counted at all.
    ///
    /// A probability that is not a number makes the numbers of the first bin and of the whole NaN.
    ///
    /// # Panics
    /// If there is no probability of the true class.
    pub fn add(&mut self, target: usize, probabilities: &[f64], weight: f64) {
        assert!(target < probabilities.len(), "class {target} of {}", probabilities.len());
        if weight == 0.0 {
            return;
        }
        let (class, squares) = match probabilities {
            [_, p] => (1, square(p - f64::from(u8::from(target == 1)))),
            _ => {
                let mut sum = 0.0;
                for (class, p) in probabilities.iter().enumerate() {
                    sum += square(p - f64::from(u8::from(class == target)));
                }
                (most_probable(probabilities), sum)
            }
        };
        let p = probabilities[class];
        self.squares.add_product(weight, squares);
        let bin = &mut self.bins[bin_of(p)];
        bin.n_rows += 1;
        bin.weight.add(weight);
        bin.predicted.add_product(weight, p);
        if class == target {
            bin.observed.add(weight);
        }
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &CalibrationStats) {
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            mine.n_rows += theirs.n_rows;
        }
        for (mine, theirs) in self.sums_mut().zip(other.sums()) {
            mine.merge(theirs);
        }
    }

    /// The statistic as integers; wrapping addition of the words of several ranks merges them.
    pub fn to_words(&self) -> Vec<u64> {
        let mut words: Vec<u64> = self.bins.iter().map(|bin| bin.n_rows).collect();
        self.sums().for_each(|sum| words.extend(sum.to_words()));
        words
    }

    /// The statistic that these words stand for.
    ///
    /// # Panics
    /// If they are not [`WORDS`](Self::WORDS).
    pub fn from_words(words: &[u64]) -> CalibrationStats {
        assert_eq!(words.len(), CalibrationStats::WORDS, "words of a calibration");
        let mut stats = CalibrationStats::new();
        let (counts, sums) = words.split_at(N_BINS);
        stats.bins.iter_mut().zip(counts).for_each(|(bin, n_rows)| bin.n_rows = *n_rows);
        let sums = sums.chunks_exact(ExactSum::WORDS);
        stats.sums_mut().zip(sums).for_each(|(sum, words)| *sum = ExactSum::from_words(words));
        stats
    }

    /// The numbers for people; `None` when no row had weight. What met a NaN or an infinity is NaN.
    pub fn finish(&self) -> Option<Calibration> {
        if self.bins.iter().all(|bin| bin.n_rows == 0) {
            return None;
        }
        let mut all = ExactSum::new();
        self.bins.iter().for_each(|bin| all.merge(&bin.weight));
        let total = number(&all);
        let mut errors = ExactSum::new();
        let finish = |(i, bin): (usize, &BinStats)| {
            let [weight, predicted, observed] = [&bin.weight, &bin.predicted, &bin.observed].map(number);
            let has_rows = bin.n_rows > 0;
            if has_rows {
                errors.add((observed - predicted).abs());
            }
            ReliabilityBin {
                lower: i as f64 / N_BINS as f64,
                upper: (i + 1) as f64 / N_BINS as f64,
                rows: bin.n_rows,
                weight,
                predicted: has_rows.then(|| predicted / weight),
                observed: has_rows.then(|| observed / weight),
            }
        };
        let bins = self.bins.iter().enumerate().map(finish).collect();
        Some(Calibration { ece: number(&errors) / total, brier: number(&self.squares) / total, bins })
    }

    fn sums(&self) -> impl Iterator<Item = &ExactSum> {
        let of_bins = self.bins.iter().flat_map(|bin| [&bin.weight, &bin.predicted, &bin.observed]);
        of_bins.chain([&self.squares])
    }

    fn sums_mut(&mut self) -> impl Iterator<Item = &mut ExactSum> {
        let of_bins = self.bins.iter_mut().flat_map(|bin| [&mut bin.weight, &mut bin.predicted, &mut bin.observed]);
        of_bins.chain([&mut self.squares])
    }
}

impl Calibration {
    /// Appends `brier` and `ece`.
    pub fn push_to(&self, metrics: &mut Metrics) {
        metrics.push("brier", self.brier);
        metrics.push("ece", self.ece);
    }
}

/// NaN is put with the least.
fn bin_of(p: f64) -> usize {
    ((p * N_BINS as f64) as usize).min(N_BINS - 1)
}

fn square(x: f64) -> f64 {
    x * x
}

fn number(sum: &ExactSum) -> f64 {
    sum.value().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::auc::tests::{Draws, add_words};

    fn rows(n: usize, n_classes: usize, seed: u64) -> Vec<(usize, Vec<f64>, f64)> {
        let mut draws = Draws(seed);
        let row = |_| {
            let raw: Vec<f64> = (0..n_classes).map(|_| 1e-3 + draws.unit()).collect();
            let sum: f64 = raw.iter().sum();
            let weight = if draws.unit() < 0.1 { 0.0 } else { draws.unit() * 10.0 };
            ((draws.next() % n_classes as u64) as usize, raw.iter().map(|p| p / sum).collect(), weight)
        };
        (0..n).map(row).collect()
    }

    fn stats_of(rows: &[(usize, Vec<f64>, f64)]) -> CalibrationStats {
        let mut stats = CalibrationStats::new();
        rows.iter().for_each(|(target, p, weight)| stats.add(*target, p, *weight));
        stats
    }

    #[test]
    fn small_table_has_the_values_found_by_hand() {
        let mut stats = CalibrationStats::new();
        stats.add(1, &[0.25, 0.75], 1.0);
        stats.add(0, &[0.25, 0.75], 2.0);
        stats.add(1, &[0.0, 1.0], 1.0); // the last bin holds 1 too
        stats.add(0, &[1.0, 0.0], 4.0);
        stats.add(0, &[0.5, 0.5], 0.0); // does not count
        let found = stats.finish().unwrap();
        assert_eq!(found.brier, (0.0625 + 2.0 * 0.5625) / 8.0);
        assert_eq!(found.ece, (1.0_f64 - 2.25).abs() / 8.0);
        let (seventh, last) = (found.bins[7], found.bins[9]);
        assert_eq!((seventh.lower, seventh.upper, seventh.rows, seventh.weight), (0.7, 0.8, 2, 3.0));
        assert_eq!((seventh.predicted, seventh.observed), (Some(0.75), Some(1.0 / 3.0)));
        assert_eq!((last.rows, last.predicted, last.observed), (1, Some(1.0), Some(1.0)));
        assert_eq!((found.bins[5].rows, found.bins[5].predicted, found.bins[5].observed), (0, None, None));
    }

    #[test]
    fn of_three_classes_confidence_is_held_against_accuracy() {
        let mut stats = CalibrationStats::new();
        stats.add(2, &[0.25, 0.125, 0.625], 1.0);
        stats.add(0, &[0.25, 0.125, 0.625], 1.0);
        let found = stats.finish().unwrap();
        assert_eq!((found.bins[6].rows, found.bins[6].predicted, found.bins[6].observed), (2, Some(0.625), Some(0.5)));
        assert_eq!(found.ece, 0.125);
        let by_hand = (0.0625 + 0.015625 + 0.140625 + 0.5625 + 0.015625 + 0.390625) / 2.0;
        assert_eq!(found.brier, by_hand);
    }

    #[test]
    fn any_cut_of_the_rows_gives_the_same_bits() {
        for (seed, n_classes) in [(1, 2), (2, 2), (3, 4)] {
            let rows = rows(1_009, n_classes, seed);
            let whole = stats_of(&rows);
            for n_cuts in [1, 2, 3, 7, 11] {
                let mut merged = CalibrationStats::new();
                let mut words = vec![0; CalibrationStats::WORDS];
                for cut in 0..n_cuts {
                    let part: Vec<_> = rows.iter().skip(cut).step_by(n_cuts).cloned().collect();
                    merged.merge(&stats_of(&part));
                    add_words(&mut words, &stats_of(&part).to_words());
                }
                assert_eq!(merged, whole, "{n_cuts} cuts merged");
                assert_eq!(CalibrationStats::from_words(&words).finish(), whole.finish(), "{n_cuts} cuts as words");
            }
        }
    }

    #[test]
    fn no_rows_and_nan_are_no_accident() {
        assert_eq!(CalibrationStats::new().finish(), None);
        let mut stats = CalibrationStats::new();
        stats.add(1, &[f64::NAN, f64::NAN], 1.0);
        stats.add(1, &[0.1, 0.9], 1.0);
        let found = stats.finish().unwrap();
        assert!(found.ece.is_nan() && found.brier.is_nan() && found.bins[0].predicted.is_some_and(f64::is_nan));
        assert_eq!(found.bins[9].observed, Some(1.0));
    }

    /// Numbers of scikit-learn 1.9.1's `brier_score_loss` on the same weighted rows; the error by numpy.
    #[test]
    fn agrees_with_scikit_learn() {
        let mut stats = CalibrationStats::new();
        for i in 0..60u32 {
            let p = f64::from(1 + i * 7 % 31) / 32.0;
            stats.add((i * i % 7 % 2) as usize, &[1.0 - p, p], f64::from(i % 5) * 0.5 + 0.25);
        }
        let found = stats.finish().unwrap();
        assert!((found.brier - 0.2766243489583333).abs() < 1e-14, "{}", found.brier);
        assert!((found.ece - 0.2842708333333333).abs() < 1e-14, "{}", found.ece);
    }
}
