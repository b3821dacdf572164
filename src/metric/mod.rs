//! # metric — how good are predictions, as sums that merge
//!
//! In:    targets, predictions and weights of rows, in any order and any cut.
//! Out:   [`Metrics`] for people; words (`u64`) that may be added over ranks before they are finished.
//! Talks: never; [`train`](crate::train) and [`predict`](crate::predict) add the words.
//! Never: ranks, files, models, losses that are minimised.
//!
//! Every statistic here is a set of integers: counts, and [`ExactSum`](crate::exact::ExactSum)s. `to_words` turns it into
//! `Vec<u64>`, the caller adds the vectors of all ranks element by element with wrapping addition (one integer
//! all-reduce), and `from_words` gives the statistic of all rows: the same bits for any number of ranks.
//! Ranking ([`auc`]) needs the rows of others; it exchanges [`ScoreRuns`](auc::ScoreRuns) and counts pairs.

pub mod auc;
pub mod calibration;
pub mod classification;
pub mod regression;

use std::fmt;

/// Named numbers for people, in the order they were pushed: printed as text, or as the fields of one JSON object.
///
/// The names are those of the README: `accuracy`, `balanced_accuracy`, `log_loss`, `brier`, `ece`, `auc`, `rmse`, `mae`, `r2`,
/// `poisson_deviance`, `gaussian_nll`. A metric that does not exist for these rows (one class only, no rows) is NaN: `-` in text, `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    values: Vec<(String, f64)>,
}

impl Metrics {
    /// No metrics yet.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Adds a metric at the end, or replaces the one of this name where it stands.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.values.push((name, value)),
        }
    }

    /// Adds a metric that may not exist for these rows: `None` becomes NaN.
    pub fn push_option(&mut self, name: impl Into<String>, value: Option<f64>) {
        self.push(name, value.unwrap_or(f64::NAN));
    }

    /// The value of this name, NaN included; `None` if it was never pushed.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// True when nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The same facts as a JSON object, in order; what is not finite is `null`.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.values.iter().map(|(name, value)| (name.clone(), serde_json::Value::from(*value))).collect()
    }
}

/// `accuracy 0.918230 | log_loss 0.231001 | auc -`: six digits after the point, `-` for what does not exist.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.values.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            let size = value.abs();
            if !value.is_finite() {
                write!(f, "{name} -")?;
            } else if size != 0.0 && !(1e-3..1e6).contains(&size) {
                write!(f, "{name} {value:.6e}")?;
            } else {
                write!(f, "{name} {value:.6}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_keep_the_order_and_say_the_same() {
        let mut metrics = Metrics::new();
        metrics.push("log_loss", 0.25);
        metrics.push("accuracy", 0.5);
        metrics.push_option("auc", None);
        metrics.push("rmse", 2.5e-20);
        metrics.push("accuracy", 0.75);
        assert_eq!(metrics.to_string(), "log_loss 0.250000 | accuracy 0.750000 | auc - | rmse 2.500000e-20");
        let json = serde_json::Value::Object(metrics.to_json()).to_string();
        assert_eq!(json, r#"{"log_loss":0.25,"accuracy":0.75,"auc":null,"rmse":2.5e-20}"#);
        assert_eq!(metrics.get("accuracy"), Some(0.75));
        assert_eq!(metrics.get("mae"), None);
    }

    /// The numbers were found with scikit-learn 1.x on the same 60 weighted rows, by formula in both places.
    #[test]
    fn agrees_with_scikit_learn() {
        let near = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-14, "{found:?} {expected}")
        };
        let mut classes = classification::ClassStats::new(3);
        let mut numbers = regression::RegressionStats::new();
        let mut one_vs_rest = vec![auc::ScoreRows::new(auc::EVERY_KEY, 0, 60); 3];
        let weight_of = |i: u32| f64::from(i % 5) * 0.5 + 0.25;
        let total = (0..60).map(weight_of).sum();
        let mut weighted = auc::ScoreRows::new(auc::EVERY_KEY, auc::weight_scale(true, total), 60);
        for i in 0..60u32 {
            let class = (i * i % 7 % 3) as usize;
            let weight = weight_of(i);
            let raw = [1 + i * 3 % 11, 1 + i * 5 % 13, 1 + i * 7 % 17].map(f64::from);
            let p = raw.map(|x| x / (raw[0] + raw[1] + raw[2]));
            classes.add(class, &p, weight);
            one_vs_rest.iter_mut().enumerate().for_each(|(k, rows)| rows.add(p[k], class == k, 1.0));
            weighted.add(f64::from(i * 5 % 13), class == 1, weight);
            let target = 100.0 + f64::from(i * i % 19) * 0.5;
            numbers.add(target, target + (f64::from(i * 7 % 5) - 2.0) * 0.3, weight);
        }
        let auc_of = |rows: auc::ScoreRows| {
            let runs = rows.into_runs();
            let (positive, negative) = runs.weights();
            auc::finish(auc::tests::pairs_of(&runs, &runs), positive, negative)
        };
        let mut found = Metrics::new();
        classes.finish().unwrap().push_to(&mut found);
        let numbers = numbers.finish().unwrap();
        numbers.push_to(&mut found);
        numbers.push_poisson_to(&mut found);
        let of_classes: Vec<_> = one_vs_rest.into_iter().map(auc_of).collect();
        found.push_option("auc", auc::macro_average(&of_classes));
        found.push_option("auc_weighted", auc_of(weighted));
        for (name, expected) in [
            ("accuracy", 0.3233333333333333),
            ("balanced_accuracy", 0.3070262137227674),
            ("log_loss", 1.2127859781359023),
            ("auc", 0.5622441516194366),
            ("auc_weighted", 0.48736737996763174),
            ("r2", 0.9806438532472516),
            ("mae", 0.3359999999999968),
            ("rmse", 0.37947331922020194),
            ("poisson_deviance", 0.0013861178353988634),
        ] {
            near(found.get(name), expected);
        }
    }
}
