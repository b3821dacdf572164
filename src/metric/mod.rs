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
pub mod classification;
pub mod regression;

use std::fmt;

/// Named numbers for people, in the order they were pushed: printed as text, or as the fields of one JSON object.
///
/// The names are those of the README: `accuracy`, `balanced_accuracy`, `log_loss`, `auc`, `rmse`, `mae`, `r2`,
/// `poisson_deviance`. A metric that does not exist for these rows (one class only, no rows) is NaN: `-` in text, `null` in JSON.
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
}
