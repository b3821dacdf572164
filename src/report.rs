//! Progress for the person or program that waits: a bar on a terminal, else one plain line (or JSON object) per
//! interval. Only the root speaks.

use crate::data::convert::Progress as BytesDone;
use crate::train::{Observer, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(2);

/// Prints progress and warnings.
pub struct Reporter {
    speaks: bool,
    json: bool,
    began: Instant,
    printed: Option<Instant>,
    /// Seen but not printed yet.
    pending: Option<Progress>,
    bar: Option<ProgressBar>,
    /// The JSON object that says the training starts, and what came before it was known from which step.
    held: Vec<Value>,
}

impl Reporter {
    /// `speaks`: whether this is the root.
    pub fn new(speaks: bool, json: bool) -> Reporter {
        let bar = (speaks && !json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{wide_bar} {msg} | {elapsed}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Reporter { speaks, json, began: Instant::now(), printed: None, pending: None, bar, held: Vec::new() }
    }

    /// Prints `start` once it is known from which step the training goes on, its `resumed_step`; warnings wait for it.
    pub fn holding(self, start: Option<Value>) -> Reporter {
        Reporter { held: start.into_iter().collect(), ..self }
    }

    fn start(&mut self, step: u64) {
        if let Some(resumed) = self.held.first_mut().and_then(|start| start.get_mut("resumed_step")) {
            *resumed = json!(step);
        }
        self.held.drain(..).for_each(|value| print_line(&value.to_string()));
    }

    /// Prints the last progress if it was not printed, and takes the bar away.
    pub fn finish(&mut self) {
        self.start(0);
        if let Some(progress) = self.pending.take() {
            self.print(&progress);
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn print(&mut self, progress: &Progress) {
        self.printed = Some(Instant::now());
        let elapsed_s = self.began.elapsed().as_secs_f64();
        if self.json {
            print_line(&as_json(progress, elapsed_s).to_string());
        } else {
            print_line(&format!("{} | {elapsed_s:.1} s", as_text(progress)));
        }
    }
}

impl Observer for Reporter {
    fn progress(&mut self, progress: &Progress) {
        if !self.speaks {
            return;
        }
        self.start(0);
        if let Some(bar) = &self.bar {
            bar.set_length(progress.of_steps);
            bar.set_position(progress.step);
            bar.set_message(as_text(progress));
            return;
        }
        if self.printed.is_none_or(|at| at.elapsed() >= INTERVAL) {
            self.pending = None;
            self.print(progress);
        } else {
            self.pending = Some(progress.clone());
        }
    }

    fn resumed(&mut self, step: u64, folder: &Path) {
        self.start(step);
        let folder = folder.display().to_string();
        match (self.speaks, self.json) {
            (false, _) => {}
            (true, true) => print_line(&json!({"event": "resume", "resumed_step": step, "from": folder}).to_string()),
            (true, false) => print_line(&format!("goes on after step {step}, from '{folder}'")),
        }
    }

    fn warning(&mut self, message: &str) {
        if !self.speaks {
            return;
        }
        if self.json {
            let value = json!({"event": "warning", "message": message});
            match self.held.is_empty() {
                true => print_line(&value.to_string()),
                false => self.held.push(value),
            }
            return;
        }
        let print = || {
            let _ = writeln!(std::io::stderr(), "consort: warning: {message}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// Does work that says how many bytes of how many it has done: a bar on a terminal, else nothing.
pub fn with_progress<T>(json: bool, work: impl FnOnce(&mut dyn FnMut(&BytesDone)) -> T) -> T {
    if json || !std::io::stderr().is_terminal() {
        return work(&mut |_| ());
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} | {bytes_per_sec} | {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let done = work(&mut |progress| {
        bar.set_message(progress.doing);
        bar.set_length(progress.of_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    done
}

/// `step 12/1000 | loss 0.48213 | gradient 3.0e-3 | learning_rate 1.0e-1`
fn as_text(progress: &Progress) -> String {
    let mut text = format!("step {}/{}", progress.step, progress.of_steps);
    if !progress.loss.is_nan() {
        text.push_str(&format!(" | loss {}", number(progress.loss, 5)));
    }
    for (name, value) in [("gradient", progress.gradient), ("learning_rate", progress.learning_rate)] {
        if let Some(value) = value {
            text.push_str(&format!(" | {name} {value:.1e}"));
        }
    }
    text
}

/// So many digits after the point; of very large and small numbers with an exponent: the others would fill lines, or be all zeros.
pub fn number(value: f64, digits: usize) -> String {
    let size = value.abs();
    let is_plain = size == 0.0 || !value.is_finite() || (1e-3..1e15).contains(&size);
    if is_plain { format!("{value:.digits$}") } else { format!("{value:.digits$e}") }
}

fn as_json(progress: &Progress, elapsed_s: f64) -> Value {
    json!({
        "event": "progress",
        "step": progress.step,
        "of_steps": progress.of_steps,
        "loss": progress.loss,
        "gradient": progress.gradient,
        "learning_rate": progress.learning_rate,
        "elapsed_s": elapsed_s,
    })
}

/// A line on stdout. A reader that has gone away (`| head`) is no reason to stop.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.25, -1234.5, 9e14, 1e15, -1.5e300, 2e-7, f64::NAN, f64::INFINITY];
        let short = ["0.00", "0.25", "-1234.50", "900000000000000.00", "1.00e15", "-1.50e300", "2.00e-7", "NaN", "inf"];
        assert_eq!(all.map(|value| number(value, 2)), short);
    }

    #[test]
    fn text_and_json_say_the_same() {
        let progress = Progress { step: 12, of_steps: 1000, loss: 0.482134, gradient: Some(3e-3), learning_rate: None };
        assert_eq!(as_text(&progress), "step 12/1000 | loss 0.48213 | gradient 3.0e-3");
        let json = as_json(&progress, 1.5).to_string();
        assert!(json.starts_with(r#"{"event":"progress","step":12,"of_steps":1000,"loss":0.482134"#), "{json}");
    }
}
