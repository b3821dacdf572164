//! Statistics of predicted numbers: rmse, mae, r², mean Poisson deviance; of predicted densities the mean negative log likelihood.

use super::Metrics;
use crate::exact::ExactSum;

/// What is known of some rows whose number was predicted. Merges in any order.
///
/// Memory: 7 exact sums and 3 counts, whatever the number of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegressionStats {
    n_rows: u64,
    /// Rows for which the Poisson deviance is not defined (y < 0 or p ≤ 0).
    n_not_poisson: u64,
    /// Rows whose variance was predicted too.
    n_gaussian: u64,
    sums: [ExactSum; 7],
}

/// Places in `RegressionStats::sums`.
const W: usize = 0;
const WY: usize = 1;
const WYY: usize = 2;
const SQUARED: usize = 3;
const ABSOLUTE: usize = 4;
const DEVIANCE: usize = 5;
const NLL: usize = 6;

/// The finished numbers of [`RegressionStats`].
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Rows with weight > 0.
    pub n_rows: u64,
    /// Σw.
    pub weight: f64,
    /// Root of the weighted mean of (y − p)², in units of the target. NaN, as r² is, where there are errors but their squares are 0 in float64.
    pub rmse: f64,
    /// Weighted mean of |y − p|, in units of the target.
    pub mae: f64,
    /// 1 − Σw(y−p)² / Σw(y−ȳ)², ȳ the weighted mean. `None` for fewer than two rows; for a constant target 1 when every
    /// prediction is right and 0 otherwise (scikit-learn's `force_finite`).
    pub r2: Option<f64>,
    /// Weighted mean of 2·(y·ln(y/p) − y + p), nats. `None` if any target is negative or any prediction is not positive.
    pub poisson_deviance: Option<f64>,
    /// Weighted mean of [`gaussian_nll`], nats. `None` if any row has no variance.
    pub gaussian_nll: Option<f64>,
}

/// −ln of the density of a normal distribution of this mean and variance at the target: ½(ln 2πv + (y − m)²/v), nats.
pub fn gaussian_nll(target: f64, mean: f64, variance: f64) -> f64 {
    let error = target - mean;
    0.5 * (libm::log(std::f64::consts::TAU * variance) + error * error / variance)
}

impl RegressionStats {
    /// No rows yet.
    pub fn new() -> RegressionStats {
        RegressionStats::default()
    }

    /// Adds one row. Not collective. A row of `weight` 0 is not counted at all.
    ///
    /// Σw, Σwy and Σwy² are exact (nothing is rounded before [`finish`](Self::finish)), so that r² does not suffer when the
    /// mean of the target is far larger than its spread. The others do not cancel: each row's term is rounded, their sum is not.
    pub fn add(&mut self, target: f64, prediction: f64, weight: f64) {
        if weight == 0.0 {
            return;
        }
        self.n_rows += 1;
        let error = target - prediction;
        let (square, rest) = two_product(target, target);
        self.sums[W].add(weight);
        self.sums[WY].add_product(weight, target);
        self.sums[WYY].add_product(weight, square);
        self.sums[WYY].add_product(weight, rest);
        self.sums[SQUARED].add(weight * (error * error));
        self.sums[ABSOLUTE].add(weight * error.abs());
        match row_poisson_deviance(target, prediction) {
            Some(deviance) => self.sums[DEVIANCE].add(weight * deviance),
            None => self.n_not_poisson += 1,
        }
    }

    /// Adds the density that was predicted of a row whose mean [`add`](Self::add) has seen. Not collective. A row of `weight` 0 is not counted.
    ///
    /// * `mean`, `variance`: of the density, in the unit of the target and its square.
    pub fn add_density(&mut self, target: f64, [mean, variance]: [f64; 2], weight: f64) {
        if weight != 0.0 {
            self.n_gaussian += 1;
            self.sums[NLL].add(weight * gaussian_nll(target, mean, variance));
        }
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &RegressionStats) {
        self.n_rows += other.n_rows;
        self.n_not_poisson += other.n_not_poisson;
        self.n_gaussian += other.n_gaussian;
        self.sums.iter_mut().zip(&other.sums).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// Length of [`to_words`](Self::to_words).
    pub const WORDS: usize = RegressionStats::COUNTS + 7 * ExactSum::WORDS;
    const COUNTS: usize = 3;

    /// The statistic as integers; wrapping addition of the words of several ranks merges them.
    pub fn to_words(&self) -> Vec<u64> {
        let mut words = vec![self.n_rows, self.n_not_poisson, self.n_gaussian];
        self.sums.iter().for_each(|sum| words.extend(sum.to_words()));
        words
    }

    /// The statistic that these words stand for.
    ///
    /// # Panics
    /// If there are not [`WORDS`](Self::WORDS) of them.
    pub fn from_words(words: &[u64]) -> RegressionStats {
        assert_eq!(words.len(), RegressionStats::WORDS, "words of regression statistics");
        let (counts, sums) = words.split_at(RegressionStats::COUNTS);
        let mut stats = RegressionStats {
            n_rows: counts[0],
            n_not_poisson: counts[1],
            n_gaussian: counts[2],
            ..RegressionStats::default()
        };
        for (sum, words) in stats.sums.iter_mut().zip(sums.chunks_exact(ExactSum::WORDS)) {
            *sum = ExactSum::from_words(words);
        }
        stats
    }

    /// The numbers for people; `None` when no row had weight. What met a NaN or an infinity is NaN.
    pub fn finish(&self) -> Option<Regression> {
        if self.n_rows == 0 {
            return None;
        }
        let value = |which: usize| self.sums[which].value().unwrap_or(f64::NAN);
        let weight = value(W);
        let mean_of = |which: usize| value(which) / weight;
        // Errors whose squares are 0 in float64 are not none.
        let is_lost = value(SQUARED) == 0.0 && value(ABSOLUTE) > 0.0;
        let of_squares = |value: f64| if is_lost { f64::NAN } else { value };
        Some(Regression {
            n_rows: self.n_rows,
            weight,
            rmse: of_squares(mean_of(SQUARED).sqrt()),
            mae: mean_of(ABSOLUTE),
            r2: (self.n_rows > 1).then(|| of_squares(self.r2())),
            poisson_deviance: (self.n_not_poisson == 0).then(|| mean_of(DEVIANCE)),
            gaussian_nll: (self.n_gaussian == self.n_rows).then(|| mean_of(NLL)),
        })
    }

    /// 1 − Σw(y−p)²·Σw / (Σw·Σwy² − (Σwy)²).
    ///
    /// The difference loses everything in plain doubles when |mean| > 10⁸ spreads. So each exact sum is written
    /// as a few doubles that do not overlap (about 53 more bits each), and the products of these are added exactly: what is
    /// subtracted is right to 2⁻²⁰⁰ of Σw·Σwy². Only ratios of weights count, so they are taken in a unit that squares well.
    fn r2(&self) -> f64 {
        let total = self.sums[W].value().unwrap_or(f64::NAN);
        // Weights below normal numbers have lost what makes them differ.
        if total > 0.0 && !total.is_normal() {
            return f64::NAN;
        }
        let unit = power_of_two_near(total);
        let of = |which: usize| expansion(&self.sums[which]).map(|part| part / unit);
        let (w, wy, wyy) = (of(W), of(WY), of(WYY));
        let mut spread = ExactSum::new();
        for a in w {
            wyy.iter().for_each(|b| spread.add_product(a, *b));
        }
        for a in wy {
            wy.iter().for_each(|b| spread.add_product(-a, *b));
        }
        let Some(spread) = spread.value() else { return f64::NAN };
        let squared = self.sums[SQUARED].value().unwrap_or(f64::NAN) / unit;
        if spread <= 0.0 {
            return if squared == 0.0 { 1.0 } else { 0.0 * squared };
        }
        1.0 - squared * (w[0] / spread)
    }
}

impl Regression {
    /// Appends `rmse`, `mae` and `r2`.
    pub fn push_to(&self, metrics: &mut Metrics) {
        metrics.push("rmse", self.rmse);
        metrics.push("mae", self.mae);
        metrics.push_option("r2", self.r2);
    }

    /// Appends `poisson_deviance`, for models of counts.
    pub fn push_poisson_to(&self, metrics: &mut Metrics) {
        metrics.push_option("poisson_deviance", self.poisson_deviance);
    }

    /// Appends `gaussian_nll`, for models that predict a variance.
    pub fn push_gaussian_to(&self, metrics: &mut Metrics) {
        metrics.push_option("gaussian_nll", self.gaussian_nll);
    }
}

/// 2·(y·ln(y/p) − y + p), nats; `None` if y < 0 or p ≤ 0 (not defined); NaN for NaN.
pub fn row_poisson_deviance(target: f64, prediction: f64) -> Option<f64> {
    if target < 0.0 || prediction <= 0.0 {
        return None;
    }
    let log_term = if target == 0.0 { 0.0 } else { target * libm::log(target / prediction) };
    Some(2.0 * (log_term - target + prediction))
}

/// A power of two that divides the normal number `x` to something from 1 to below 2; 1 for others.
fn power_of_two_near(x: f64) -> f64 {
    if x.is_normal() { libm::ldexp(1.0, libm::ilogb(x)) } else { 1.0 }
}

/// The exact sum as four doubles of falling size whose total differs from it by less than 2⁻²¹⁰ of it.
fn expansion(sum: &ExactSum) -> [f64; 4] {
    let mut rest = sum.clone();
    let mut parts = [0.0; 4];
    for part in &mut parts {
        *part = rest.value().unwrap_or(f64::NAN);
        rest.add(-*part);
    }
    parts
}

/// a·b as two doubles without error (Dekker's product with Veltkamp's split; no fma, so it is the same everywhere).
/// Beyond about 10³⁰⁰ the second is 0: there the square overflows anyway.
///
/// Source: T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18 (1971).
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let scaled = 134_217_729.0 * x; // 2²⁷ + 1
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    let rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, if rest.is_finite() { rest } else { 0.0 })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // independent answers may come from the system's ln
mod tests {
    use super::*;
    use crate::metric::auc::tests::{Draws, add_words};

    fn rows(n: usize, mean: f64) -> Vec<(f64, f64, f64)> {
        let mut draws = Draws(11);
        (0..n)
            .map(|_| {
                let y = mean + draws.unit();
                let weight = if draws.unit() < 0.1 { 0.0 } else { draws.unit() };
                (y, y + 0.1 * (draws.unit() - 0.5), weight)
            })
            .collect()
    }

    fn stats_of<'a>(rows: impl IntoIterator<Item = &'a (f64, f64, f64)>) -> RegressionStats {
        let mut stats = RegressionStats::new();
        rows.into_iter().for_each(|&(y, p, w)| stats.add(y, p, w));
        stats
    }

    #[test]
    fn small_table_has_the_values_found_by_hand() {
        // scikit-learn's own example: y = [3, −0.5, 2, 7], p = [2.5, 0, 2, 8] → r² 0.948…, mae 0.5, mse 0.375
        let found =
            stats_of(&[(3.0, 2.5, 1.0), (-0.5, 0.0, 1.0), (2.0, 2.0, 1.0), (7.0, 8.0, 1.0), (1e9, 0.0, 0.0)]).finish();
        let found = found.unwrap();
        assert_eq!(found.n_rows, 4);
        assert_eq!(found.mae, 0.5);
        assert_eq!(found.rmse, 0.375_f64.sqrt());
        assert!((found.r2.unwrap() - 0.9486081370449679).abs() < 1e-15);
        assert_eq!(found.poisson_deviance, None, "a target is negative");
    }

    #[test]
    fn poisson_deviance_is_that_of_the_formula() {
        let found = stats_of(&[(2.0, 0.5, 1.0), (0.0, 0.5, 1.0), (1.0, 2.0, 1.0), (4.0, 2.0, 1.0)]).finish().unwrap();
        // scikit-learn's own example: y = [2, 0, 1, 4], p = [0.5, 0.5, 2, 2]
        assert!((found.poisson_deviance.unwrap() - 1.4260151319598084).abs() < 1e-15, "{found:?}");
        assert!(stats_of(&[(1.0, 0.0, 1.0)]).finish().unwrap().poisson_deviance.is_none());
        assert_eq!(row_poisson_deviance(3.0, 3.0), Some(0.0));
    }

    #[test]
    fn the_likelihood_of_densities_is_that_of_the_formula() {
        let mut stats = stats_of(&[(1.0, 0.0, 3.0), (2.0, 2.5, 1.0), (9.0, 9.0, 0.0)]);
        assert_eq!(stats.finish().unwrap().gaussian_nll, None, "no density yet");
        stats.add_density(1.0, [0.0, 4.0], 3.0);
        assert_eq!(stats.finish().unwrap().gaussian_nll, None, "one row has none");
        stats.add_density(2.0, [2.5, 0.25], 1.0);
        stats.add_density(9.0, [9.0, 0.0], 0.0); // weighs nothing: not looked at
        // (3·(½ ln(2π·4) + 1/8) + ½ ln(2π/4) + ½)/4
        let found = stats.finish().unwrap().gaussian_nll.unwrap();
        assert!((found - 1.4842621234846456).abs() < 1e-15, "{found}");
        stats.add_density(1.0, [0.0, f64::NAN], 1.0);
        stats.add(1.0, 0.0, 1.0);
        assert!(stats.finish().unwrap().gaussian_nll.unwrap().is_nan());
    }

    #[test]
    fn any_cut_of_the_rows_gives_the_same_bits() {
        let rows = rows(1009, 3.0);
        let stats_of = |rows: &mut dyn Iterator<Item = &(f64, f64, f64)>| {
            let mut stats = RegressionStats::new();
            rows.for_each(|&(y, p, w)| {
                stats.add(y, p, w);
                stats.add_density(y, [p, 0.1 + y * y], w);
            });
            stats
        };
        let whole = stats_of(&mut rows.iter());
        assert!(whole.finish().unwrap().gaussian_nll.is_some());
        for n_cuts in [1, 2, 3, 7, 11] {
            let mut merged = RegressionStats::new();
            let mut words = vec![0; RegressionStats::WORDS];
            for cut in 0..n_cuts {
                let part = stats_of(&mut rows.iter().skip(cut).step_by(n_cuts));
                merged.merge(&part);
                add_words(&mut words, &part.to_words());
            }
            assert_eq!(merged.finish(), whole.finish(), "{n_cuts} cuts merged");
            assert_eq!(RegressionStats::from_words(&words).finish(), whole.finish(), "{n_cuts} cuts as words");
        }
    }

    #[test]
    fn r2_survives_a_mean_a_billion_times_the_spread() {
        // 2⁴⁰ is added to targets and predictions that lie on a grid of 2⁻¹⁰: nothing is rounded, so r² may not move.
        let grid = |x: f64| (x * 1024.0).round() / 1024.0;
        let near: Vec<_> = rows(300, 0.0).iter().map(|&(y, p, _)| (grid(y), grid(p), 1.0)).collect();
        let far: Vec<_> = near.iter().map(|&(y, p, w)| (y + 2.0_f64.powi(40), p + 2.0_f64.powi(40), w)).collect();
        assert_eq!(stats_of(&near).finish().unwrap().r2, stats_of(&far).finish().unwrap().r2);
        let mean = near.iter().map(|r| r.0).sum::<f64>() / 300.0;
        let residual: f64 = near.iter().map(|r| (r.0 - r.1) * (r.0 - r.1)).sum();
        let spread: f64 = near.iter().map(|r| (r.0 - mean) * (r.0 - mean)).sum();
        let r2 = stats_of(&near).finish().unwrap().r2.unwrap();
        assert!((r2 - (1.0 - residual / spread)).abs() < 1e-12, "{r2}");
    }

    #[test]
    fn no_rows_one_row_constant_target_and_nan() {
        assert_eq!(RegressionStats::new().finish(), None);
        assert_eq!(stats_of(&[(1.0, 2.0, 1.0)]).finish().unwrap().r2, None);
        assert_eq!(stats_of(&[(0.1, 0.1, 0.3), (0.1, 0.1, 0.7)]).finish().unwrap().r2, Some(1.0));
        assert_eq!(stats_of(&[(0.1, 0.2, 0.3), (0.1, 0.1, 0.7)]).finish().unwrap().r2, Some(0.0));
        let found = stats_of(&[(1.0, f64::NAN, 1.0), (2.0, 2.0, 1.0)]).finish().unwrap();
        assert!(found.rmse.is_nan() && found.mae.is_nan() && found.r2.unwrap().is_nan());
        assert_eq!(found.weight, 2.0);
    }

    #[test]
    fn r2_does_not_hang_on_the_unit_of_weights() {
        let plain = rows(100, 3.0);
        let wanted = stats_of(&plain).finish().unwrap();
        for exponent in [-1000, -600, -1, 600, 900] {
            let scaled: Vec<_> = plain.iter().map(|&(y, p, w)| (y, p, w * 2.0_f64.powi(exponent))).collect();
            let found = stats_of(&scaled).finish().unwrap();
            assert_eq!(found.r2, wanted.r2, "weights times 2^{exponent}");
        }
    }

    #[test]
    fn errors_whose_squares_are_0_are_not_taken_for_none() {
        let tiny: Vec<_> = rows(100, 3.0).iter().map(|&(y, p, w)| (y * 1e-200, p * 1e-200, w)).collect();
        let found = stats_of(&tiny).finish().unwrap();
        assert!(found.mae > 0.0 && found.rmse.is_nan() && found.r2.unwrap().is_nan(), "{found:?}");
        let right: Vec<_> = tiny.iter().map(|&(y, _, w)| (y, y, w)).collect();
        let found = stats_of(&right).finish().unwrap();
        assert_eq!((found.mae, found.rmse, found.r2), (0.0, 0.0, Some(1.0)));
    }

    #[test]
    fn a_square_is_split_without_error() {
        let (square, rest) = two_product(1.0 + 2.0_f64.powi(-30), 1.0 + 2.0_f64.powi(-30));
        assert_eq!((square, rest), (1.0 + 2.0_f64.powi(-29), 2.0_f64.powi(-60)));
    }
}
