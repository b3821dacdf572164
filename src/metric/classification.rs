//! Statistics of predicted class probabilities: accuracy, balanced accuracy, log loss, confusion matrix.

use super::Metrics;
use crate::exact::ExactSum;

/// Probabilities are clipped to [EPS, 1 − EPS] before the logarithm: 2⁻⁵², what scikit-learn's `log_loss` does for float64.
/// A certain and wrong row costs 36.04 nats.
pub const EPS: f64 = f64::EPSILON;

/// What is known of some rows whose class was predicted. Merges in any order.
///
/// Memory: 8·K² bytes of counts and 2·K + 1 exact sums for K classes. (A *weighted* confusion matrix would be K²
/// exact sums, half a gigabyte at 1000 classes; no metric needs it: weights are kept per true class and per hit.)
#[derive(Clone, Debug, PartialEq)]
pub struct ClassStats {
    n_classes: usize,
    /// Rows, `[true · K + predicted]`, each counted once whatever its weight.
    confusion: Vec<u64>,
    /// Σw of the rows of each true class.
    weight_of_class: Vec<ExactSum>,
    /// Σw of the rows of each true class that were predicted as that class.
    weight_of_hits: Vec<ExactSum>,
    /// Σ w·(−ln p of the true class), nats.
    log_loss: ExactSum,
}

/// The finished numbers of [`ClassStats`].
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// Rows with weight > 0.
    pub n_rows: u64,
    /// Σw.
    pub weight: f64,
    /// Weighted share of rows whose class was predicted, 0…1.
    pub accuracy: f64,
    /// Mean over the classes that occur of the weighted share found of each (recall), 0…1.
    pub balanced_accuracy: f64,
    /// Weighted mean of −ln p of the true class, nats.
    pub log_loss: f64,
    /// Rows (not weights), `confusion[true][predicted]`.
    pub confusion: Vec<Vec<u64>>,
}

impl ClassStats {
    /// No rows yet.
    ///
    /// # Panics
    /// If `n_classes` is 0.
    pub fn new(n_classes: usize) -> ClassStats {
        assert!(n_classes > 0, "classification needs classes");
        ClassStats {
            n_classes,
            confusion: vec![0; n_classes * n_classes],
            weight_of_class: vec![ExactSum::new(); n_classes],
            weight_of_hits: vec![ExactSum::new(); n_classes],
            log_loss: ExactSum::new(),
        }
    }

    /// Adds one row. Not collective.
    ///
    /// * `target`: index of the true class, < K. `probabilities`: (K), adding up to 1.
    /// * `weight` ≥ 0; a row of weight 0 is not counted at all.
    ///
    /// The predicted class is the most probable, the lower index on a tie. A probability that is not a number is never
    /// the largest, and makes the log loss of the whole NaN when it is that of the true class.
    ///
    /// # Panics
    /// If `target` or the length of `probabilities` does not fit the number of classes.
    pub fn add(&mut self, target: usize, probabilities: &[f64], weight: f64) {
        assert!(target < self.n_classes, "class {target} of {}", self.n_classes);
        assert_eq!(probabilities.len(), self.n_classes, "one probability a class");
        if weight == 0.0 {
            return;
        }
        let predicted = most_probable(probabilities);
        self.confusion[target * self.n_classes + predicted] += 1;
        self.weight_of_class[target].add(weight);
        if predicted == target {
            self.weight_of_hits[target].add(weight);
        }
        self.log_loss.add(weight * row_log_loss(probabilities[target]));
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &ClassStats) {
        assert_eq!(self.n_classes, other.n_classes, "statistics of the same classes");
        for (mine, theirs) in self.confusion.iter_mut().zip(&other.confusion) {
            *mine += theirs;
        }
        for (mine, theirs) in self.sums_mut().zip(other.sums()) {
            mine.merge(theirs);
        }
    }

    /// The statistic as integers; wrapping addition of the words of several ranks merges them.
    /// Length K² + (2·K + 1)·[`ExactSum::WORDS`].
    pub fn to_words(&self) -> Vec<u64> {
        let mut words = self.confusion.clone();
        self.sums().for_each(|sum| words.extend(sum.to_words()));
        words
    }

    /// The statistic that these words stand for.
    ///
    /// # Panics
    /// If the length is not that of [`to_words`](Self::to_words) for `n_classes`.
    pub fn from_words(n_classes: usize, words: &[u64]) -> ClassStats {
        let mut stats = ClassStats::new(n_classes);
        let n_counts = n_classes * n_classes;
        assert_eq!(words.len(), n_counts + (2 * n_classes + 1) * ExactSum::WORDS, "words of {n_classes} classes");
        stats.confusion.copy_from_slice(&words[..n_counts]);
        let sums = words[n_counts..].chunks_exact(ExactSum::WORDS);
        stats.sums_mut().zip(sums).for_each(|(sum, words)| *sum = ExactSum::from_words(words));
        stats
    }

    /// The numbers for people; `None` when no row had weight. What met a NaN or an infinity is NaN.
    pub fn finish(&self) -> Option<Classification> {
        let n_rows = self.confusion.iter().sum();
        if n_rows == 0 {
            return None;
        }
        let weight = total(&self.weight_of_class);
        let mut recalls = ExactSum::new();
        let mut n_present = 0.0;
        for (class, hits) in self.weight_of_class.iter().zip(&self.weight_of_hits) {
            let of_class = number(class);
            if of_class != 0.0 {
                recalls.add(number(hits) / of_class);
                n_present += 1.0;
            }
        }
        Some(Classification {
            n_rows,
            weight,
            accuracy: total(&self.weight_of_hits) / weight,
            balanced_accuracy: number(&recalls) / n_present,
            log_loss: number(&self.log_loss) / weight,
            confusion: self.confusion.chunks(self.n_classes).map(<[u64]>::to_vec).collect(),
        })
    }

    fn sums(&self) -> impl Iterator<Item = &ExactSum> {
        self.weight_of_class.iter().chain(&self.weight_of_hits).chain([&self.log_loss])
    }

    fn sums_mut(&mut self) -> impl Iterator<Item = &mut ExactSum> {
        self.weight_of_class.iter_mut().chain(&mut self.weight_of_hits).chain([&mut self.log_loss])
    }
}

impl Classification {
    /// Appends `accuracy`, `balanced_accuracy` and `log_loss`.
    pub fn push_to(&self, metrics: &mut Metrics) {
        metrics.push("accuracy", self.accuracy);
        metrics.push("balanced_accuracy", self.balanced_accuracy);
        metrics.push("log_loss", self.log_loss);
    }
}

/// Index of the largest probability, the lowest on a tie; NaN is never the largest; 0 if all are NaN.
pub fn most_probable(probabilities: &[f64]) -> usize {
    let mut best = 0;
    for (class, &p) in probabilities.iter().enumerate() {
        if p > probabilities[best] || (probabilities[best].is_nan() && !p.is_nan()) {
            best = class;
        }
    }
    best
}

/// −ln p of one row, nats, p clipped to [[`EPS`], 1 − EPS]; NaN stays NaN.
pub fn row_log_loss(p: f64) -> f64 {
    // clamp keeps NaN; max and min would turn it into a limit.
    -libm::log(p.clamp(EPS, 1.0 - EPS))
}

fn number(sum: &ExactSum) -> f64 {
    sum.value().unwrap_or(f64::NAN)
}

/// One rounding for the sum of all classes.
fn total(sums: &[ExactSum]) -> f64 {
    let mut all = ExactSum::new();
    sums.iter().for_each(|sum| all.merge(sum));
    number(&all)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // independent answers may come from the system's ln
mod tests {
    use super::*;
    use crate::metric::auc::tests::{Draws, add_words};

    fn rows(n: usize, n_classes: usize) -> Vec<(usize, Vec<f64>, f64)> {
        let mut draws = Draws(7);
        (0..n)
            .map(|_| {
                let raw: Vec<f64> = (0..n_classes).map(|_| 1e-3 + draws.unit()).collect();
                let sum: f64 = raw.iter().sum();
                let weight = if draws.unit() < 0.1 { 0.0 } else { draws.unit() * 10.0 };
                ((draws.next() % n_classes as u64) as usize, raw.iter().map(|p| p / sum).collect(), weight)
            })
            .collect()
    }

    fn stats_of(rows: &[(usize, Vec<f64>, f64)], n_classes: usize) -> ClassStats {
        let mut stats = ClassStats::new(n_classes);
        rows.iter().for_each(|(target, p, weight)| stats.add(*target, p, *weight));
        stats
    }

    #[test]
    fn small_table_has_the_values_found_by_hand() {
        let mut stats = ClassStats::new(3);
        stats.add(0, &[0.5, 0.25, 0.25], 1.0); // hit
        stats.add(0, &[0.25, 0.5, 0.25], 1.0); // taken for 1
        stats.add(1, &[0.4, 0.4, 0.2], 2.0); // tie: the lower class, taken for 0
        stats.add(1, &[0.0, 1.0, 0.0], 4.0); // hit, certain
        stats.add(2, &[0.0, 0.0, 1.0], 0.0); // does not count
        let found = stats.finish().unwrap();
        assert_eq!(found.n_rows, 4);
        assert_eq!(found.weight, 8.0);
        assert_eq!(found.accuracy, 5.0 / 8.0);
        assert_eq!(found.balanced_accuracy, (0.5 + 4.0 / 6.0) / 2.0);
        let expected = (2.0_f64.ln() + 4.0_f64.ln() + 2.0 * 2.5_f64.ln() + 4.0 * EPS) / 8.0;
        assert!((found.log_loss - expected).abs() < 1e-15, "{} {expected}", found.log_loss);
        assert_eq!(found.confusion, vec![vec![1, 1, 0], vec![1, 1, 0], vec![0, 0, 0]]);
    }

    #[test]
    fn certain_and_wrong_costs_36_nats_and_not_infinity() {
        let mut stats = ClassStats::new(2);
        stats.add(0, &[0.0, 1.0], 1.0);
        assert!((stats.finish().unwrap().log_loss - 52.0 * 2.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn any_cut_of_the_rows_gives_the_same_bits() {
        let rows = rows(1009, 4);
        let whole = stats_of(&rows, 4);
        for n_cuts in [1, 2, 3, 7, 11] {
            let mut merged = ClassStats::new(4);
            let mut words = vec![0; whole.to_words().len()];
            for cut in 0..n_cuts {
                let part: Vec<_> = rows.iter().skip(cut).step_by(n_cuts).cloned().collect();
                let part = stats_of(&part, 4);
                merged.merge(&part);
                add_words(&mut words, &part.to_words());
            }
            assert_eq!(merged.finish(), whole.finish(), "{n_cuts} cuts merged");
            assert_eq!(ClassStats::from_words(4, &words).finish(), whole.finish(), "{n_cuts} cuts as words");
        }
    }

    #[test]
    fn agrees_with_a_plain_loop() {
        let rows = rows(500, 3);
        let found = stats_of(&rows, 3).finish().unwrap();
        let (mut loss, mut hit, mut all) = (0.0, 0.0, 0.0);
        for (target, p, weight) in &rows {
            loss -= weight * p[*target].ln();
            all += weight;
            hit += if (0..3).all(|k| k == *target || p[k] < p[*target]) { *weight } else { 0.0 };
        }
        assert!((found.log_loss - loss / all).abs() < 1e-12);
        assert!((found.accuracy - hit / all).abs() < 1e-12);
    }

    #[test]
    fn no_rows_one_class_and_nan_are_no_accident() {
        assert_eq!(ClassStats::new(2).finish(), None);
        let mut stats = ClassStats::new(2);
        stats.add(1, &[0.25, 0.75], 1.0);
        assert_eq!(stats.finish().unwrap().balanced_accuracy, 1.0);
        stats.add(1, &[f64::NAN, f64::NAN], 1.0);
        let found = stats.finish().unwrap();
        assert!(found.log_loss.is_nan());
        assert_eq!(found.accuracy, 0.5);
        assert_eq!(most_probable(&[f64::NAN, 0.0, -1.0]), 1);
    }
}
