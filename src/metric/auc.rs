//! Area under the ROC curve, exact: pairs are counted in integers, so neither ties nor the cut of the rows leave a trace.
//!
//! AUC = (pairs in which the positive row scores above the negative + ½ · ties) / pairs. With integer weights, twice the
//! numerator is `Σ w⁺·(2·W⁻below + W⁻tie)`, a sum over positives, in which the negatives may be counted rank by rank and range
//! of scores by range of scores:
//!
//! 1. each rank puts its rows into [`ScoreRows`] and makes [`ScoreRuns`] of them: scores in rising order, weights of equal ones
//!    added;
//! 2. each rank's negatives are broadcast in turn, in pieces ([`ScoreRuns::negatives`]), and everybody counts its positives
//!    against them ([`PairCount`]);
//! 3. the sum of these over ranks travels as [`pairs_to_words`], with the weights of [`ScoreRuns::weights`];
//! 4. [`finish`] divides once.
//!
//! Where the rows are too many to be held at once, the range of scores is [split](ScoreRows::split) into ranges of few enough
//! rows, and each is counted by itself: positives of a range stand above all negatives of the ranges below.

use std::ops::RangeInclusive;

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

/// All keys.
pub const EVERY_KEY: RangeInclusive<i64> = i64::MIN..=i64::MAX;
/// Parts of a range whose rows are counted, to split it where there are too many.
const N_PARTS: u64 = 1 << 14;

/// The rows of a range of scores, one class against the rest. 16 bytes a row.
#[derive(Clone, Debug)]
pub struct ScoreRows {
    keys: RangeInclusive<i64>,
    scale: i32,
    /// Rows that may be held.
    room: usize,
    /// Order key, and the weight: that of a negative row with a minus sign.
    rows: Vec<(i64, i64)>,
    n_not_numbers: u64,
    /// Rows met in each part of the range, and how far a key is shifted to find its part.
    parts: Vec<i64>,
    shift: u32,
    is_too_many: bool,
}

impl ScoreRows {
    /// No rows yet. `keys`: rows of other [keys](order_key) are passed over; `scale` from [`weight_scale`]; `room`: rows that
    /// may be held, those of equal score and class counted once.
    pub fn new(keys: RangeInclusive<i64>, scale: i32, room: usize) -> ScoreRows {
        ScoreRows {
            shift: part_shift(&keys),
            keys,
            scale,
            room: room.max(16),
            rows: Vec::new(),
            n_not_numbers: 0,
            parts: vec![0; N_PARTS as usize],
            is_too_many: false,
        }
    }

    /// Adds one row. A row of `weight` 0 is not counted at all; a score that is not a number is counted in
    /// [`n_not_numbers`](ScoreRuns::n_not_numbers), whatever the range, and leaves the whole without an AUC.
    pub fn add(&mut self, score: f64, positive: bool, weight: f64) {
        if weight == 0.0 {
            return;
        }
        let Some(key) = order_key(score) else {
            self.n_not_numbers += 1;
            return;
        };
        if !self.keys.contains(&key) {
            return;
        }
        self.parts[(from_first(&self.keys, key) >> self.shift) as usize] += 1;
        if self.is_too_many {
            return;
        }
        if self.rows.len() >= self.room {
            self.add_up();
            // Half of the room at least is gained, or adding up would be most of the work.
            if self.rows.len() > self.room / 2 && self.keys.start() < self.keys.end() {
                self.is_too_many = true;
                self.rows = Vec::new();
                return;
            }
        }
        if self.rows.len() == self.rows.capacity() {
            // Twice the rows, as ever, but no more than the room.
            let wanted = (2 * self.rows.len()).max(1024).min(self.room);
            self.rows.reserve_exact(wanted.saturating_sub(self.rows.len()).max(1));
        }
        let weight = libm::rint(libm::scalbn(weight, self.scale)) as i64;
        self.rows.push((key, if positive { weight } else { -weight }));
    }

    /// Whether there were more rows than room; then [`into_runs`](Self::into_runs) would lack some.
    pub fn is_too_many(&self) -> bool {
        self.is_too_many
    }

    /// Rows met in each part of the range, whether there was room or not.
    pub fn parts(&self) -> &[i64] {
        &self.parts
    }

    /// Ranges, in rising order, of at most `room` rows where that can be, which together have all rows of `keys`. `parts`: the
    /// largest number of rows that any rank has in each part.
    pub fn split(keys: &RangeInclusive<i64>, parts: &[i64], room: usize) -> Vec<RangeInclusive<i64>> {
        let shift = part_shift(keys);
        let last = from_first(keys, *keys.end());
        let mut ranges = Vec::new();
        let (mut first, mut n) = (0u64, 0u64);
        for (part, &rows) in parts.iter().enumerate() {
            let begin = (part as u64) << shift;
            if begin > last {
                break;
            }
            if begin > first && n + rows as u64 > room as u64 {
                if n > 0 {
                    ranges.push(key_at(keys, first)..=key_at(keys, begin - 1));
                }
                (first, n) = (begin, 0);
            }
            n += rows as u64;
        }
        if n > 0 {
            ranges.push(key_at(keys, first)..=*keys.end());
        }
        ranges
    }

    /// Rows of equal score and class become one.
    fn add_up(&mut self) {
        // Unstable is enough: within a key only integers are added.
        self.rows.sort_unstable_by_key(|&(key, weight)| (key, weight > 0));
        self.rows.dedup_by(|row, before| {
            let same = row.0 == before.0 && (row.1 > 0) == (before.1 > 0);
            if same {
                before.1 += row.1;
            }
            same
        });
    }

    /// Sorts the rows and adds up those of equal score and class.
    pub fn into_runs(mut self) -> ScoreRuns {
        self.add_up();
        ScoreRuns { rows: self.rows, n_not_numbers: self.n_not_numbers }
    }
}

fn from_first(keys: &RangeInclusive<i64>, key: i64) -> u64 {
    key.wrapping_sub(*keys.start()) as u64
}

fn key_at(keys: &RangeInclusive<i64>, from_first: u64) -> i64 {
    keys.start().wrapping_add(from_first as i64)
}

/// A part has 2^shift keys.
fn part_shift(keys: &RangeInclusive<i64>) -> u32 {
    (from_first(keys, *keys.end()) / N_PARTS + 1).next_power_of_two().trailing_zeros()
}

/// Scores in rising order with the integer weights of their rows: of negative rows, then of positive ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScoreRuns {
    rows: Vec<(i64, i64)>,
    n_not_numbers: u64,
}

impl ScoreRuns {
    /// Total integer weight of (positives, negatives). Adds over ranks.
    pub fn weights(&self) -> (u64, u64) {
        let (mut positive, mut negative) = (0, 0);
        for &(_, weight) in &self.rows {
            *if weight > 0 { &mut positive } else { &mut negative } += weight.unsigned_abs();
        }
        (positive, negative)
    }

    /// Rows whose score was NaN. If the sum over ranks is not 0 there is no AUC.
    pub fn n_not_numbers(&self) -> u64 {
        self.n_not_numbers
    }

    /// Keys and weights of the negative rows, for the wire (broadcast; these words do *not* add): at most `most` of them, from
    /// row `at` on, which moves behind them. Empty when there are no more.
    pub fn negatives(&self, at: &mut usize, most: usize) -> Vec<u64> {
        let mut words = Vec::new();
        while let Some(&(key, weight)) = self.rows.get(*at).filter(|_| words.len() < 2 * most) {
            *at += 1;
            if weight < 0 {
                words.extend([key as u64, weight.unsigned_abs()]);
            }
        }
        words
    }
}

/// `Σ w⁺·(2·W⁻below + W⁻tie)`: positives of one rank against the negatives of one (of another, or its own), which come in
/// pieces. At most 2·2⁶²·2⁶², so it never overflows.
#[derive(Debug)]
pub struct PairCount<'r> {
    /// Positives that are still above what came.
    rest: &'r [(i64, i64)],
    below: u64,
    pairs: u128,
}

impl<'r> PairCount<'r> {
    /// Nothing counted yet.
    pub fn new(mine: &'r ScoreRuns) -> PairCount<'r> {
        PairCount { rest: &mine.rows, below: 0, pairs: 0 }
    }

    /// The next of [`ScoreRuns::negatives`]: no piece divides rows of equal score, since there is one entry for each.
    pub fn add(&mut self, negatives: &[u64]) {
        for negative in negatives.chunks_exact(2) {
            let (key, weight) = (negative[0] as i64, negative[1]);
            while let Some((&(mine, positive), rest)) = self.rest.split_first().filter(|(row, _)| row.0 <= key) {
                if positive > 0 {
                    let tie = if mine == key { weight } else { 0 };
                    self.pairs += u128::from(positive as u64) * (2 * u128::from(self.below) + u128::from(tie));
                }
                self.rest = rest;
            }
            self.below += weight;
        }
    }

    /// All pairs.
    pub fn finish(self) -> u128 {
        let above = self.rest.iter().filter(|row| row.1 > 0).map(|row| u128::from(row.1 as u64)).sum::<u128>();
        self.pairs + 2 * above * u128::from(self.below)
    }
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
        let mut all = ScoreRows::new(EVERY_KEY, scale, usize::MAX);
        rows.into_iter().for_each(|&(score, positive, weight)| all.add(score, positive, weight));
        assert!(!all.is_too_many());
        all.into_runs()
    }

    /// Negatives come in pieces of three.
    pub(crate) fn pairs_of(mine: &ScoreRuns, other: &ScoreRuns) -> u128 {
        let (mut count, mut at) = (PairCount::new(mine), 0);
        loop {
            let piece = other.negatives(&mut at, 3);
            if piece.is_empty() {
                return count.finish();
            }
            count.add(&piece);
        }
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
        finish(pairs_of(&runs, &runs), positive, negative)
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
                    let pairs = runs.iter().map(|other| pairs_of(mine, other)).sum();
                    add_words(&mut total, &pairs_to_words(pairs));
                    let (p, n) = mine.weights();
                    (positive, negative) = (positive + p, negative + n);
                }
                assert_eq!(
                    finish(pairs_from_words(&total), positive, negative),
                    alone(&rows, scale),
                    "{n_ranks} ranks"
                );
            }
        }
    }

    /// All rows by ranges of so few keys that no more than `room` rows are held, and how often rows were looked at.
    fn by_ranges(rows: &[Row], scale: i32, room: usize) -> (Option<f64>, usize) {
        let (mut pairs, mut below, mut above, mut n_passes) = (0, 0, 0, 0);
        let mut ranges = vec![EVERY_KEY];
        while let Some(keys) = ranges.pop() {
            n_passes += 1;
            let mut found = ScoreRows::new(keys.clone(), scale, room);
            rows.iter().for_each(|&(score, positive, weight)| found.add(score, positive, weight));
            assert!(found.rows.capacity() <= room);
            if found.is_too_many() {
                let split = ScoreRows::split(&keys, found.parts(), room);
                assert!(split.windows(2).all(|pair| pair[0].end() < pair[1].start()));
                assert!(split.iter().all(|range| range.start() >= keys.start() && range.end() <= keys.end()));
                ranges.extend(split.into_iter().rev());
                continue;
            }
            let runs = found.into_runs();
            let (positive, negative) = runs.weights();
            pairs += pairs_of(&runs, &runs) + 2 * u128::from(positive) * u128::from(below);
            (above, below) = (above + positive, below + negative);
        }
        (finish(pairs, above, below), n_passes)
    }

    #[test]
    fn ranges_of_scores_give_the_bits_of_the_whole() {
        let mut draws = Draws(11);
        let fine: Vec<Row> = (0..3000).map(|i| (draws.unit() - 0.4, i % 3 == 0, draws.unit())).collect();
        let near = |i: u64| f64::from_bits(1.0f64.to_bits() + i);
        let close: Vec<Row> = (0..3000).map(|i| (near(i), i % 2 == 0, 1.0)).collect();
        let same: Vec<Row> = (0..3000).map(|i| (0.25, i % 5 == 0, 1.0)).collect();
        let few = rows(3000, true);
        for (name, rows, scale) in [("fine", fine, 40), ("close", close, 0), ("same", same, 0), ("few", few, 30)] {
            let whole = alone(&rows, scale);
            assert!(whole.is_some());
            for room in [16, 100, 2999, 4000] {
                let (auc, n_passes) = by_ranges(&rows, scale, room);
                assert_eq!(auc, whole, "{name} in a room of {room}");
                assert!(n_passes <= 2 + 2 * 3000 / room.min(3000) * 2, "{name} in a room of {room}: {n_passes} passes");
                assert_eq!(
                    n_passes == 1,
                    room > 3000 || name == "same" || (name == "few" && room > 200),
                    "{name} {room}"
                );
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
            assert_eq!(finish(pairs_of(&runs, &runs), positive, negative), Some(1.0));
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
