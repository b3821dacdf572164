//! A classifier whose scores are mapped to probabilities that come true.

use super::Model;
use crate::config::Kind;
use crate::functions::exp;

/// Log-odds of more than two classes are held to ± this: beyond, the other classes may have none.
const MOST_LOG_ODDS: f64 = 64.0;

/// A classifier and a map for each of its scores: of two classes one, whose probability is that of class 1; of more, one for each
/// class against the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    pub model: Model,
    pub maps: Vec<CalibrationMap>,
}

/// From a score to a probability; rising, if the model has learned anything.
#[derive(Clone, Debug, PartialEq)]
pub enum CalibrationMap {
    /// 1/(1 + exp(−a·score − b)).
    Platt { a: f64, b: f64 },
    /// Straight lines between points (`x` rises, `y` does not fall), level outside of them.
    Isotonic { x: Vec<f64>, y: Vec<f64> },
}

impl Calibrated {
    /// The scores of a row become probabilities: of class 1 of two classes, else of each class, adding up to 1.
    pub fn to_probabilities(&self, scores: &mut [f64]) {
        to_mapped(&self.model, scores);
        for (score, map) in scores.iter_mut().zip(&self.maps) {
            *score = map.probability(*score);
        }
        if let [_, _, ..] = scores {
            let mut sum = 0.0;
            scores.iter().for_each(|p| sum += p);
            let even = 1.0 / scores.len() as f64;
            // As scikit-learn: a row that no class wants is anybody's.
            scores.iter_mut().for_each(|p| *p = if sum == 0.0 { even } else { *p / sum });
        }
    }
}

impl CalibrationMap {
    /// 0…1; NaN of NaN.
    pub fn probability(&self, score: f64) -> f64 {
        match self {
            CalibrationMap::Platt { a, b } => sigmoid(a * score + b),
            CalibrationMap::Isotonic { .. } if score.is_nan() => score,
            CalibrationMap::Isotonic { x, y } => match x.partition_point(|x| *x <= score) {
                0 => y[0],
                above if above == x.len() => y[above - 1],
                above => {
                    let (x, y) = (&x[above - 1..], &y[above - 1..]);
                    y[0] + (y[1] - y[0]) * ((score - x[0]) / (x[1] - x[0]))
                }
            },
        }
    }
}

/// 1/(1 + exp(−x)) without overflow.
pub fn sigmoid(x: f64) -> f64 {
    let e = exp(-x.abs());
    let small = e / (1.0 + e);
    if x >= 0.0 { 1.0 - small } else { small }
}

/// Scores of a row become what is mapped: log-odds or margins as they are, as are shares; of the scores of more than two classes
/// that softmax makes probabilities of, which mean something beside one another only, the log-odds of each class against the rest.
pub fn to_mapped(model: &Model, scores: &mut [f64]) {
    let is_softmax = !model.scores.are_predictions() && model.config.responds_as() == Kind::Logistic;
    let n_classes = scores.len();
    if !is_softmax || n_classes < 2 {
        return;
    }
    let mut largest = scores[0];
    for score in &scores[1..] {
        if *score > largest {
            largest = *score;
        }
    }
    let of_class: Vec<f64> = scores.iter().map(|score| exp(score - largest)).collect();
    // Sums of the classes before and after each: a difference from the whole would lose the small ones.
    let mut after = vec![0.0; n_classes + 1];
    for class in (0..n_classes).rev() {
        after[class] = after[class + 1] + of_class[class];
    }
    let mut before = 0.0;
    for (class, score) in scores.iter_mut().enumerate() {
        let log_odds = *score - largest - libm::log(before + after[class + 1]);
        *score = log_odds.clamp(-MOST_LOG_ODDS, MOST_LOG_ODDS);
        before += of_class[class];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isotonic_maps_run_through_their_points_and_are_level_outside() {
        let map = CalibrationMap::Isotonic { x: vec![-1.0, 0.0, 0.5, 2.0], y: vec![0.1, 0.1, 0.5, 0.9] };
        let found = [-9.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.25, 2.0, 9.0].map(|score| map.probability(score));
        let expected = [0.1, 0.1, 0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert!(map.probability(f64::NAN).is_nan());
        let single = CalibrationMap::Isotonic { x: vec![0.5], y: vec![0.25] };
        assert_eq!([-1.0, 0.5, 1.0].map(|score| single.probability(score)), [0.25; 3]);
    }

    #[test]
    fn platt_is_a_logistic_curve_at_any_distance() {
        let map = CalibrationMap::Platt { a: 2.0, b: -1.0 };
        assert_eq!(map.probability(0.5), 0.5);
        assert!((map.probability(1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert_eq!((map.probability(1e300), map.probability(-1e300)), (1.0, 0.0));
    }
}
