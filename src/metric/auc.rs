//! Area under the ROC curve, exact: pairs are counted in integers, so neither ties nor the cut of the rows leave a trace.
//!
//! AUC = (pairs in which the positive row scores above the negative + ½ · ties) / pairs. With integer weights, twice the
//! numerator is `Σ w⁺·(2·W⁻below + W⁻tie)`, a sum over positives, in which the negatives may be counted rank by rank:
//!
//! 1. each rank gathers its rows in [`AucRows`] and makes [`ScoreRuns`] of them: distinct scores, weights added;
//! 2. each rank's runs are broadcast in turn ([`ScoreRuns::to_words`]); everybody adds
//!    [`pairs_below`]`(mine, theirs)`;
//! 3. the sum of these over ranks travels as [`pairs_to_words`], with the weights of [`ScoreRuns::weights`];
//! 4. [`finish`] divides once.

/// An order-preserving integer of a score: a < b ⇔ key(a) < key(b), −0 and +0 alike. `None` for NaN.
pub fn order_key(score: f64) -> Option<i64> {
    if score.is_nan() {
        return None;
    }
    let bits = (score + 0.0).to_bits() as i64; // −0 + 0 = +0
    Some(bits ^ (((bits >> 63) as u64) >> 1) as i64)
}

/// Exponent k such that `round(w·2^k)` of all rows together stays below 2⁶²: 0 (weights are counted as they are) when
/// `weighted` is false; otherwise from Σw over *all* ranks, a reduced value, so that every rank has the same k.
///
/// Weights are thus rounded to 2⁻⁶⁰ of their total. A total that is not positive and finite gives 0.
pub fn weight_scale(weighted: bool, global_weight: f64) -> i32 {
    if !(weighted && global_weight > 0.0 && global_weight.is_finite()) {
        return 0;
    }
    // Σ round(w·2^k) ≤ 2^61 + n/2, and n < 2^60.
    60 - libm::ilogb(global_weight)
}

/// The scores of some rows, one class against the rest: the input of [`ScoreRuns`]. 16 bytes a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AucRows {
    /// Order key, and the weight: that of a negative row with a minus sign.
    rows: Vec<(i64, f64)>,
    n_not_numbers: u64,
}

impl AucRows {
    /// No rows yet.
    pub fn new() -> AucRows {
        AucRows::default()
    }

    /// Adds one row. Not collective. A row of `weight` 0 is not counted at all; a score that is not a number is counted
    /// in [`ScoreRuns::n_not_numbers`] and leaves the whole without an AUC.
    pub fn add(&mut self, score: f64, positive: bool, weight: f64) {
        if weight == 0.0 {
            return;
        }
        match order_key(score) {
            Some(key) => self.rows.push((key, if positive { weight } else { -weight })),
            None => self.n_not_numbers += 1,
        }
    }

    /// Sorts the rows and adds up equal scores, with weights `round(w·2^scale)`. `scale` from [`weight_scale`].
    pub fn into_runs(mut self, scale: i32) -> ScoreRuns {
        // Unstable is enough: within a key only integers are added.
        self.rows.sort_unstable_by_key(|row| row.0);
        let mut runs = ScoreRuns { n_not_numbers: self.n_not_numbers, ..Default::default() };
        for (key, weight) in self.rows {
            if runs.keys.last() != Some(&key) {
                runs.keys.push(key);
                runs.positive.push(0);
                runs.negative.push(0);
            }
            let side = if weight > 0.0 { &mut runs.positive } else { &mut runs.negative };
            if let Some(sum) = side.last_mut() {
                *sum += libm::rint(libm::scalbn(weight.abs(), scale)) as u64;
            }
        }
        runs
    }
}

/// Distinct scores in rising order, with the integer weight of the positive and of the negative rows at each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScoreRuns {
    keys: Vec<i64>,
    positive: Vec<u64>,
    negative: Vec<u64>,
    n_not_numbers: u64,
}

impl ScoreRuns {
    /// Total integer weight of (positives, negatives). Adds over ranks.
    pub fn weights(&self) -> (u64, u64) {
        (self.positive.iter().sum(), self.negative.iter().sum())
    }

    /// Rows whose score was NaN. If the sum over ranks is not 0 there is no AUC.
    pub fn n_not_numbers(&self) -> u64 {
        self.n_not_numbers
    }

    /// Number of distinct scores.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without any row.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds the runs of `other`, made with the same scale.
    pub fn merge(&mut self, other: &ScoreRuns) {
        let mut merged = ScoreRuns { n_not_numbers: self.n_not_numbers + other.n_not_numbers, ..Default::default() };
        let (mut i, mut j) = (0, 0);
        while i < self.len() || j < other.len() {
            let mine = i < self.len() && (j == other.len() || self.keys[i] <= other.keys[j]);
            let theirs = j < other.len() && (i == self.len() || other.keys[j] <= self.keys[i]);
            merged.keys.push(if mine { self.keys[i] } else { other.keys[j] });
            let (mut positive, mut negative) = (0, 0);
            if mine {
                (positive, negative) = (self.positive[i], self.negative[i]);
                i += 1;
            }
            if theirs {
                positive += other.positive[j];
                negative += other.negative[j];
                j += 1;
            }
            merged.positive.push(positive);
            merged.negative.push(negative);
        }
        *self = merged;
    }

    /// For the wire (broadcast; these words do *not* add): NaN count, then keys, positive and negative weights.
    pub fn to_words(&self) -> Vec<u64> {
        let mut words = Vec::with_capacity(1 + 3 * self.len());
        words.push(self.n_not_numbers);
        words.extend(self.keys.iter().map(|key| *key as u64));
        words.extend(&self.positive);
        words.extend(&self.negative);
        words
    }

    /// The runs that these words stand for.
    ///
    /// # Panics
    /// If they did not come from [`to_words`](Self::to_words).
    pub fn from_words(words: &[u64]) -> ScoreRuns {
        let (n_not_numbers, runs) = words.split_first().expect("words of score runs begin with a count");
        assert_eq!(runs.len() % 3, 0, "words of score runs: three a score");
        let n = runs.len() / 3;
        ScoreRuns {
            keys: runs[..n].iter().map(|key| *key as i64).collect(),
            positive: runs[n..2 * n].to_vec(),
            negative: runs[2 * n..].to_vec(),
            n_not_numbers: *n_not_numbers,
        }
    }
}

/// `Σ w⁺·(2·W⁻below + W⁻tie)`: positives of `mine` against negatives of `other` (the same object for the pairs within a rank).
/// Not collective. One walk over both lists; at most 2·2⁶²·2⁶², so it never overflows.
pub fn pairs_below(mine: &ScoreRuns, other: &ScoreRuns) -> u128 {
    let mut pairs = 0u128;
    let (mut below, mut j) = (0u64, 0);
    for (key, positive) in mine.keys.iter().zip(&mine.positive) {
        while j < other.len() && other.keys[j] < *key {
            below += other.negative[j];
            j += 1;
        }
        let tie = if j < other.len() && other.keys[j] == *key { other.negative[j] } else { 0 };
        pairs += u128::from(*positive) * (2 * u128::from(below) + u128::from(tie));
    }
    pairs
}

/// A pair count as four words of 32 payload bits: adding the words of up to 2³² ranks adds the counts.
pub fn pairs_to_words(pairs: u128) -> [u64; 4] {
    std::array::from_fn(|i| (pairs >> (32 * i)) as u64 & 0xffff_ffff)
}

/// The sum of pair counts that added words stand for.
///
/// # Panics
/// If there are not four words.
pub fn pairs_from_words(words: &[u64]) -> u128 {
    assert_eq!(words.len(), 4, "words of a pair count");
    words.iter().enumerate().map(|(i, word)| u128::from(*word) << (32 * i)).sum()
}

/// The AUC, 0…1, from the sums over all ranks; `None` when only one class is present.
pub fn finish(total_pairs: u128, w_positive: u64, w_negative: u64) -> Option<f64> {
    let all = 2 * u128::from(w_positive) * u128::from(w_negative);
    (all > 0).then(|| total_pairs as f64 / all as f64)
}

/// Macro average of one-vs-rest AUCs: the plain mean, in class order, over the classes for which it exists
/// (those that occur, and are not all there is). `None` if there is none.
pub fn macro_average(of_classes: &[Option<f64>]) -> Option<f64> {
    let (sum, n) = of_classes.iter().flatten().fold((0.0, 0.0), |(sum, n), auc| (sum + auc, n + 1.0));
    (n > 0.0).then(|| sum / n)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Wrapping element-wise sum: what an integer all-reduce does.
    pub(crate) fn add_words(total: &mut [u64], words: &[u64]) {
        assert_eq!(total.len(), words.len());
        total.iter_mut().zip(words).for_each(|(a, b)| *a = a.wrapping_add(*b));
    }

    /// A small generator for test data (splitmix64), independent of the program's own.
    pub(crate) struct Draws(pub u64);
    impl Draws {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
        pub(crate) fn unit(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    type Row = (f64, bool, f64);

    fn runs_of<'a>(rows: impl IntoIterator<Item = &'a Row>, scale: i32) -> ScoreRuns {
        let mut all = AucRows::new();
        rows.into_iter().for_each(|&(score, positive, weight)| all.add(score, positive, weight));
        all.into_runs(scale)
    }

    /// Few distinct scores, so that there are ties within and between ranks.
    fn rows(n: usize, weighted: bool) -> Vec<Row> {
        let mut draws = Draws(5);
        (0..n)
            .map(|_| {
                let positive = draws.unit() < 0.3;
                let score = ((draws.unit() + if positive { 0.3 } else { 0.0 }) * 40.0).floor() - 20.0;
                (score, positive, if weighted { draws.unit() * 3.0 } else { 1.0 })
            })
            .collect()
    }

    fn alone(rows: &[Row], scale: i32) -> Option<f64> {
        let runs = runs_of(rows, scale);
        let (positive, negative) = runs.weights();
        finish(pairs_below(&runs, &runs), positive, negative)
    }

    fn brute_force(rows: &[Row]) -> f64 {
        let (mut above, mut all) = (0.0, 0.0);
        for (score, _, weight) in rows.iter().filter(|row| row.1) {
            for (other, _, other_weight) in rows.iter().filter(|row| !row.1) {
                let share = if score > other {
                    1.0
                } else if score == other {
                    0.5
                } else {
                    0.0
                };
                above += share * weight * other_weight;
                all += weight * other_weight;
            }
        }
        above / all
    }

    #[test]
    fn small_table_has_the_value_found_by_hand() {
        // scikit-learn's own example: y = [0, 0, 1, 1], scores = [0.1, 0.4, 0.35, 0.8] → 0.75
        let rows = [(0.1, false, 1.0), (0.4, false, 1.0), (0.35, true, 1.0), (0.8, true, 1.0)];
        assert_eq!(alone(&rows, 0), Some(0.75));
        assert_eq!(alone(&[(0.5, true, 1.0), (0.5, false, 1.0)], 0), Some(0.5));
        assert_eq!(alone(&[(-0.0, true, 1.0), (0.0, false, 1.0)], 0), Some(0.5), "both zeros tie");
        assert_eq!(alone(&[(f64::INFINITY, true, 1.0), (f64::NEG_INFINITY, false, 1.0)], 0), Some(1.0));
    }

    #[test]
    fn agrees_with_counting_every_pair() {
        let plain = rows(401, false);
        assert_eq!(alone(&plain, 0), Some(brute_force(&plain)), "unit weights: integers on both sides");
        let weighted = rows(401, true);
        let scale = weight_scale(true, weighted.iter().map(|row| row.2).sum());
        assert!((alone(&weighted, scale).unwrap() - brute_force(&weighted)).abs() < 1e-12);
    }

    #[test]
    fn any_cut_of_the_rows_gives_the_same_bits() {
        for weighted in [false, true] {
            let rows = rows(1009, weighted);
            let scale = weight_scale(weighted, rows.iter().map(|row| row.2).sum());
            for n_ranks in [1, 2, 3, 7] {
                let mut runs: Vec<_> =
                    (0..n_ranks).map(|r| runs_of(rows.iter().skip(r).step_by(n_ranks), scale)).collect();
                runs.push(ScoreRuns::default()); // a rank without rows
                let mut total = [0; 4];
                let (mut positive, mut negative) = (0, 0);
                for mine in &runs {
                    let pairs =
                        runs.iter().map(|other| pairs_below(mine, &ScoreRuns::from_words(&other.to_words()))).sum();
                    add_words(&mut total, &pairs_to_words(pairs));
                    let (p, n) = mine.weights();
                    (positive, negative) = (positive + p, negative + n);
                }
                assert_eq!(
                    finish(pairs_from_words(&total), positive, negative),
                    alone(&rows, scale),
                    "{n_ranks} ranks"
                );
                let merged = runs.iter().fold(ScoreRuns::default(), |mut sum, runs| {
                    sum.merge(runs);
                    sum
                });
                assert_eq!(merged, runs_of(&rows, scale), "{n_ranks} ranks merged");
            }
        }
    }

    #[test]
    fn one_class_only_and_no_rows_have_no_auc() {
        assert_eq!(alone(&[], 0), None);
        assert_eq!(alone(&[(1.0, true, 1.0), (2.0, true, 1.0)], 0), None);
        assert_eq!(alone(&[(1.0, true, 1.0), (2.0, false, 0.0)], 0), None);
        assert_eq!(runs_of(&[(f64::NAN, true, 1.0), (f64::NAN, true, 0.0)], 0).n_not_numbers(), 1);
        assert_eq!(macro_average(&[Some(0.5), None, Some(1.0)]), Some(0.75));
        assert_eq!(macro_average(&[None]), None);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        for total in [1e-300, 3.0e-5, 1.0, 7.0e22, 1e300] {
            let scale = weight_scale(true, total);
            let runs = runs_of(&[(1.0, true, total / 2.0), (0.0, false, total / 2.0)], scale);
            let (positive, negative) = runs.weights();
            assert!(positive + negative <= 1 << 62 && positive + negative >= 1 << 59, "{total}");
            assert_eq!(finish(pairs_below(&runs, &runs), positive, negative), Some(1.0));
        }
        let pairs = u128::MAX >> 2;
        assert_eq!(pairs_from_words(&pairs_to_words(pairs)), pairs);
    }

    #[test]
    fn keys_keep_the_order_of_scores() {
        let scores = [f64::NEG_INFINITY, -1e300, -1.0, -5e-324, 0.0, 5e-324, 1.0, 1e300, f64::INFINITY];
        assert!(scores.windows(2).all(|pair| order_key(pair[0]) < order_key(pair[1])));
        assert_eq!(order_key(-0.0), order_key(0.0));
        assert_eq!(order_key(f64::NAN), None);
    }
}
