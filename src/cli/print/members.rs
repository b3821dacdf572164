//! The members of an ensemble, for people and for programs.

use super::count;
use crate::model::{Combine, Ensemble};
use crate::report::number;
use crate::train::ensemble::EnsembleReport;
use serde_json::{Map, Value, json};

/// Lines of members that are printed; the others as JSON only.
const MOST_SHOWN: usize = 50;

/// What became of the members that were trained, and how they are together.
pub fn trained(report: &EnsembleReport) -> String {
    let rows = if report.held_out { "rows held out" } else { "rows trained on" };
    let mut lines = vec![format!("{}, measured on the {rows}:", count(report.members.len(), "member"))];
    let width = report.members.iter().map(|member| member.name.chars().count()).max().unwrap_or(0);
    for member in report.members.iter().take(MOST_SHOWN) {
        lines.push(format!("  {:width$} | weight {} | {}", member.name, number(member.weight, 4), member.metrics));
    }
    if report.members.len() > MOST_SHOWN {
        lines.push(format!("  … and {} more", report.members.len() - MOST_SHOWN));
    }
    lines.push(format!("together | {}", report.metrics));
    let disagreement =
        report.disagreement.map(|share| format!("two members disagree on {:.2} % of the rows | ", 100.0 * share));
    lines.push(format!(
        "{}the least busy rank worked {:.0} % of the time",
        disagreement.unwrap_or_default(),
        100.0 * report.busy
    ));
    lines.join("\n")
}

/// Fields of `done`.
pub fn as_json(report: &EnsembleReport) -> Map<String, Value> {
    let member = |member: &crate::train::ensemble::MemberReport| json!({"name": member.name, "kind": member.kind, "weight": member.weight, "metrics": member.metrics.to_json()});
    let members: Vec<Value> = report.members.iter().map(member).collect();
    let fields = [
        ("members", Value::from(members)),
        ("together", Value::from(report.metrics.to_json())),
        ("held_out", json!(report.held_out)),
        ("disagreement", json!(report.disagreement)),
        ("timeline", json!(report.timeline)),
        ("busy", json!(report.busy)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// Lines of `inspect`. `history`: of the model, where metrics of members are kept.
pub fn kept(ensemble: &Ensemble, history: &[(String, Vec<f64>)]) -> Vec<String> {
    let how = match &ensemble.combine {
        Combine::Mean => "their weighted mean".to_string(),
        Combine::Vote => "their weighted vote".to_string(),
        Combine::Stack(last) => format!("a last {} model of what they predict", last.config.kind.name()),
    };
    let mut lines = vec![format!("  {}; {how}", count(ensemble.members.len(), "member"))];
    let width = ensemble.members.iter().map(|member| member.name.chars().count()).max().unwrap_or(0);
    for (i, member) in ensemble.members.iter().enumerate().take(MOST_SHOWN) {
        let mut line = format!(
            "    {:width$} | {} | weight {}",
            member.name,
            member.model.config.kind.name(),
            number(member.weight, 4)
        );
        for (name, values) in history {
            if let (Some(name), Some(value)) = (name.strip_prefix("member_"), values.get(i)) {
                line.push_str(&format!(" | {name} {}", number(*value, 6)));
            }
        }
        lines.push(format!("{line} | digest {}", member.model.digest.chars().take(12).collect::<String>()));
    }
    if ensemble.members.len() > MOST_SHOWN {
        lines.push(format!("    … and {} more", ensemble.members.len() - MOST_SHOWN));
    }
    for (name, values) in history {
        match (name.as_str(), name.strip_prefix("ensemble_"), values.as_slice()) {
            ("disagreement", _, [share]) => {
                lines.push(format!("    two members disagree on {:.2} % of the rows", 100.0 * share))
            }
            (_, Some(name), [value]) => lines.push(format!("    together: {name} {}", number(*value, 6))),
            _ => {}
        }
    }
    lines
}

/// The same for programs, without metrics, which are in `history`.
pub fn kept_json(ensemble: &Ensemble) -> Value {
    let member = |member: &crate::model::Member| {
        json!({"name": member.name, "kind": member.model.config.kind, "weight": member.weight, "columns": member.columns,
               "digest": member.model.digest})
    };
    let last = if let Combine::Stack(last) = &ensemble.combine { Some(last.digest.clone()) } else { None };
    json!({"combine": ensemble.combine.name(), "final_digest": last,
           "members": ensemble.members.iter().map(member).collect::<Vec<_>>()})
}
