//! Rows counted on a fixed grid of scores, and the maps that are fitted to the counts: integers, the same on every rank.

use crate::config::Calibrate;
use crate::model::calibrated::{CalibrationMap, sigmoid};

/// Steps from the least to the largest score of a grid.
const STEPS: u32 = 1 << 16;
/// Log-odds and margins beyond ± this count as this.
const MOST_SCORE: f64 = 16.0;
/// Newton steps of Platt's map, at most; it takes about ten.
const MOST_NEWTON: usize = 100;

/// The scores that rows are rounded to: 2¹⁶ + 1 of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grid {
    least: f64,
    /// A power of two, so that points are exact.
    step: f64,
}

impl Grid {
    /// Number of points.
    pub(super) const POINTS: usize = STEPS as usize + 1;
    /// Of shares: 0 to 1 in steps of 2⁻¹⁶.
    pub(super) const SHARES: Grid = Grid { least: 0.0, step: 1.0 / STEPS as f64 };
    /// Of log-odds and margins: −16 to 16 in steps of 2⁻¹¹.
    pub(super) const SCORES: Grid = Grid { least: -MOST_SCORE, step: 2.0 * MOST_SCORE / STEPS as f64 };

    /// The point nearest to a score. NaN: the first.
    pub(super) fn nearest(self, score: f64) -> usize {
        let steps = libm::rint((score - self.least) / self.step);
        steps.clamp(0.0, f64::from(STEPS)) as usize
    }

    pub(super) fn point(self, at: usize) -> f64 {
        self.least + at as f64 * self.step
    }
}

/// Rows at one point of the grid, as multiples of 2^−scale.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) score: f64,
    /// Weight of the rows of other classes, and of the class.
    pub(super) negative: u64,
    pub(super) positive: u64,
}

/// The points where there are rows, in order. `words`: negative and positive weight of every point.
pub(super) fn counted(grid: Grid, words: &[u64]) -> Vec<Counted> {
    assert_eq!(words.len(), 2 * Grid::POINTS, "two counts a point");
    let all = words.chunks_exact(2).enumerate();
    let all = all.map(|(at, pair)| Counted { score: grid.point(at), negative: pair[0], positive: pair[1] });
    all.filter(|point| point.negative > 0 || point.positive > 0).collect()
}

/// The map of a class. `scale`: counts are of 2^−scale.
pub(super) fn fit(method: Calibrate, points: &[Counted], scale: i32) -> CalibrationMap {
    match method {
        Calibrate::Platt => platt(points, scale),
        Calibrate::Isotonic => isotonic(points),
    }
}

/// Neighbours whose shares fall, or are the same, are pooled until all rise. Means are compared as integers, so that there is one
/// solution. Source: *pool adjacent violators*, Barlow, Bartholomew, Bremner, Brunk, *Statistical inference under order
/// restrictions*, 1972.
fn isotonic(points: &[Counted]) -> CalibrationMap {
    struct Pool {
        negative: u128,
        positive: u128,
        first: f64,
        last: f64,
    }
    let mut pools: Vec<Pool> = Vec::new();
    for point in points {
        let (negative, positive) = (point.negative.into(), point.positive.into());
        let mut pool = Pool { negative, positive, first: point.score, last: point.score };
        // p₁/(p₁ + n₁) ≥ p₂/(p₂ + n₂); all weights together are below 2⁶³.
        while let Some(before) =
            pools.pop_if(|before| before.positive * pool.negative >= pool.positive * before.negative)
        {
            pool.negative += before.negative;
            pool.positive += before.positive;
            pool.first = before.first;
        }
        pools.push(pool);
    }
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for pool in pools {
        let share = pool.positive as f64 / (pool.positive + pool.negative) as f64;
        x.push(pool.first);
        y.push(share);
        if pool.last > pool.first {
            x.push(pool.last);
            y.push(share);
        }
    }
    CalibrationMap::Isotonic { x, y }
}

/// Newton's method with a line search on Platt's two numbers. Source: Lin, Lin, Weng, *A note on Platt's probabilistic outputs for
/// support vector machines*, Machine Learning 68, 2007.
fn platt(points: &[Counted], scale: i32) -> CalibrationMap {
    let points: Vec<(f64, f64, f64)> = points
        .iter()
        .map(|point| {
            let [negative, positive] = [point.negative, point.positive].map(|count| libm::scalbn(count as f64, -scale));
            (point.score, negative, positive)
        })
        .collect();
    let (mut negative, mut positive) = (0.0, 0.0);
    for (_, n, p) in &points {
        (negative, positive) = (negative + n, positive + p);
    }
    // Not 0 and 1: as if one more row of either class had been seen.
    let (low, high) = (1.0 / (negative + 2.0), (positive + 1.0) / (positive + 2.0));
    let (mut a, mut b) = (0.0, libm::log((positive + 1.0) / (negative + 1.0)));
    let loss = |a: f64, b: f64| {
        let mut sum = 0.0;
        for (score, n, p) in &points {
            let f = a * score + b;
            // −t·ln σ(f) − (1 − t)·ln(1 − σ(f)) = softplus(f) − t·f
            let softplus = libm::log1p(libm::exp(-f.abs())) + if f > 0.0 { f } else { 0.0 };
            sum += (n + p) * softplus - (n * low + p * high) * f;
        }
        sum
    };
    let enough = 1e-12 * (negative + positive);
    let mut value = loss(a, b);
    for _ in 0..MOST_NEWTON {
        // The ridge keeps the system regular where all scores are the same.
        let (mut aa, mut ab, mut bb) = (1e-12, 0.0, 1e-12);
        let (mut grad_a, mut grad_b) = (0.0, 0.0);
        for (score, n, p) in &points {
            let share = sigmoid(a * score + b);
            let residual = (n + p) * share - (n * low + p * high);
            let curvature = (n + p) * share * (1.0 - share);
            grad_a += residual * score;
            grad_b += residual;
            aa += curvature * score * score;
            ab += curvature * score;
            bb += curvature;
        }
        if grad_a.abs() <= enough && grad_b.abs() <= enough {
            break;
        }
        let det = aa * bb - ab * ab;
        let step_a = -(bb * grad_a - ab * grad_b) / det;
        let step_b = -(aa * grad_b - ab * grad_a) / det;
        let slope = grad_a * step_a + grad_b * step_b;
        let mut length = 1.0;
        let next = loop {
            let (to_a, to_b) = (a + length * step_a, b + length * step_b);
            let there = loss(to_a, to_b);
            if there < value + 1e-4 * length * slope {
                break Some((to_a, to_b, there));
            }
            length /= 2.0;
            if length < 1e-10 {
                break None; // as near as the numbers go
            }
        };
        let Some(next) = next else { break };
        (a, b, value) = next;
    }
    CalibrationMap::Platt { a, b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draws, Stream};

    fn points(n: usize, seed: u64, most: u64) -> Vec<Counted> {
        let draws = Draws::new(seed, Stream::Synthetic);
        let point = |i: usize| {
            let score = -2.0 + 4.0 * i as f64 / n as f64;
            let total = 1 + draws.below(most, i as u64, 0);
            let mut positive = 0;
            for j in 0..total {
                positive += u64::from(draws.uniform(i as u64, 1 + j) < sigmoid(1.5 * score - 0.5));
            }
            Counted { score, negative: total - positive, positive }
        };
        (0..n).map(point).collect()
    }

    /// The isotonic regression by its formula: the largest, over beginnings, of the least, over ends, of the means between.
    fn slow_isotonic(points: &[Counted]) -> Vec<f64> {
        let mean = |from: usize, to: usize| {
            let (mut positive, mut all) = (0, 0);
            for point in &points[from..=to] {
                positive += point.positive;
                all += point.positive + point.negative;
            }
            positive as f64 / all as f64
        };
        let n = points.len();
        let at = |i: usize| {
            let mut largest = 0.0;
            for from in 0..=i {
                let mut least = 1.0;
                for to in i..n {
                    least = if mean(from, to) < least { mean(from, to) } else { least };
                }
                largest = if least > largest { least } else { largest };
            }
            largest
        };
        (0..n).map(at).collect()
    }

    #[test]
    fn pooling_gives_the_least_squares_that_rise() {
        for (n, seed, most) in [(1, 1, 3), (7, 2, 1), (31, 3, 2), (47, 4, 9), (61, 5, 3)] {
            let points = points(n, seed, most);
            let map = isotonic(&points);
            for (point, expected) in points.iter().zip(slow_isotonic(&points)) {
                let found = map.probability(point.score);
                assert!((found - expected).abs() < 1e-15, "{n} points, seed {seed}: {found} {expected}");
            }
            let CalibrationMap::Isotonic { x, y } = map else { panic!("isotonic") };
            assert!(x.windows(2).all(|pair| pair[0] < pair[1]) && y.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }

    #[test]
    fn counts_near_the_largest_are_compared_without_overflow() {
        let huge = 1 << 61;
        let point = |score, negative, positive| Counted { score, negative, positive };
        // 1/2, and one part in 2⁶¹ less, are the same number; as integers they are not.
        let rising = isotonic(&[point(0.0, huge, huge - 1), point(0.5, huge, huge - 1), point(1.0, huge, huge)]);
        assert_eq!(rising, CalibrationMap::Isotonic { x: vec![0.0, 0.5, 1.0], y: vec![0.5; 3] });
        let falling = isotonic(&[point(0.0, huge, huge), point(0.5, huge, huge), point(1.0, huge, huge - 1)]);
        assert_eq!(falling, CalibrationMap::Isotonic { x: vec![0.0, 1.0], y: vec![0.5; 2] });
    }

    #[test]
    fn platts_numbers_leave_no_gradient_and_find_the_curve_that_was_drawn_from() {
        for (seed, scale) in [(1, 0), (2, 0), (3, 7)] {
            let mut points = points(400, seed, 50);
            points.iter_mut().for_each(|p| (p.negative, p.positive) = (p.negative << scale, p.positive << scale));
            let CalibrationMap::Platt { a, b } = platt(&points, scale) else { panic!("platt") };
            // Standard errors at some ten thousand rows are about 0.03.
            assert!((a - 1.5).abs() < 0.12 && (b + 0.5).abs() < 0.12, "{a} {b}");
            // Another way to the same: plain gradient steps from the answer go nowhere.
            let unit = f64::from(1u32 << scale);
            let (mut n, mut p) = (0.0, 0.0);
            points.iter().for_each(|point| {
                (n, p) = (n + point.negative as f64 / unit, p + point.positive as f64 / unit);
            });
            let (mut grad_a, mut grad_b) = (0.0, 0.0);
            for point in &points {
                let share = 1.0 / (1.0 + libm::exp(-(a * point.score + b)));
                let of = (point.negative as f64 / unit) * (share - 1.0 / (n + 2.0))
                    + (point.positive as f64 / unit) * (share - (p + 1.0) / (p + 2.0));
                (grad_a, grad_b) = (grad_a + of * point.score, grad_b + of);
            }
            assert!(grad_a.abs() < 1e-8 * (n + p) && grad_b.abs() < 1e-8 * (n + p), "{grad_a} {grad_b}");
        }
    }

    #[test]
    fn few_rows_one_class_and_one_score_have_finite_maps() {
        let point = |score, negative, positive| Counted { score, negative, positive };
        for points in [
            vec![point(3.0, 5, 5)],
            vec![point(-16.0, 1, 0), point(16.0, 0, 1)],
            vec![point(0.25, 7, 0), point(0.5, 1, 0)],
            vec![point(0.0, 1_000_000, 1)],
        ] {
            let CalibrationMap::Platt { a, b } = platt(&points, 0) else { panic!("platt") };
            assert!(a.is_finite() && b.is_finite(), "{points:?}: {a} {b}");
            for method in [Calibrate::Platt, Calibrate::Isotonic] {
                let map = fit(method, &points, 0);
                assert!(points.iter().all(|point| (0.0..=1.0).contains(&map.probability(point.score))));
            }
        }
        let CalibrationMap::Platt { a, b } = platt(&[point(3.0, 5, 5)], 0) else { panic!("platt") };
        assert!((sigmoid(3.0 * a + b) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn points_of_a_grid_are_their_own_nearest() {
        for grid in [Grid::SHARES, Grid::SCORES] {
            for at in [0, 1, 777, 32_768, 65_535, 65_536] {
                assert_eq!(grid.nearest(grid.point(at)), at);
                assert_eq!(grid.nearest(grid.point(at) + 0.4 * grid.step), at);
            }
            assert_eq!((grid.nearest(-1e9), grid.nearest(1e9), grid.nearest(f64::NAN)), (0, STEPS as usize, 0));
        }
    }
}
