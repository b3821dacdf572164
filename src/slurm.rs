//! The batch script of a job: `jobs/train.sbatch` with other settings, so that the two cannot drift apart.

use crate::error::{Error, Result};
use std::fmt::Write;

/// What is done in an allocation, whoever writes the settings.
const TEMPLATE: &str = include_str!("../jobs/train.sbatch");

/// A SLURM job. Paths are absolute: a script may be submitted from anywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The words that wrote it, for a comment.
    pub written_by: String,
    pub name: String,
    pub nodes: u32,
    pub ranks_per_node: u32,
    /// CPUs of each rank, which are its threads.
    pub threads: u32,
    pub minutes: u32,
    pub partition: Option<String>,
    pub account: Option<String>,
    /// Seeds, as `sbatch --array` takes them.
    pub array: Option<String>,
    /// `srun`, or the `mpirun` of the program's MPI.
    pub launcher: String,
    /// Environment modules, apart by spaces.
    pub modules: String,
    pub program: String,
    /// Where relative names in the job file start, and the log goes.
    pub folder: String,
    pub job_file: String,
    pub model: String,
    pub checkpoint: String,
    /// As `--every` takes it.
    pub every: String,
}

/// The shortest job that is told before its end: SLURM may tell it a minute early.
const TOLD_MINUTES: u32 = 4;

impl Script {
    /// The text of the script. Not collective.
    ///
    /// # Errors
    /// `Usage`: a name with a line break, which no batch script can hold.
    pub fn text(&self) -> Result<String> {
        let settings = [
            ("JOB_FILE", &self.job_file),
            ("KIND", &String::new()),
            ("DATA", &String::new()),
            ("MODEL", &self.model),
            ("FLAGS", &String::new()),
            ("CONSORT", &self.program),
            ("FOLDER", &self.folder),
            ("CHECKPOINT", &self.checkpoint),
            ("EVERY", &self.every),
            ("MODULES", &self.modules),
            ("LAUNCHER", &self.launcher),
        ];
        let broken = |text: &&String| text.contains(['\n', '\r', '\0']);
        if let Some(text) = settings.iter().map(|(_, value)| *value).find(broken) {
            return Err(Error::usage(format!("{text:?} has a line break, which no batch script can name; rename it")));
        }
        let (_, rest) = TEMPLATE.split_once("\n\n").unwrap_or_default();
        let (assignments, rest) = rest.split_once("\n\n").unwrap_or_default();
        let mut text = self.header();
        for line in assignments.lines() {
            let name = line.split('=').next().unwrap_or(line);
            match settings.iter().find(|(setting, _)| *setting == name) {
                Some((name, value)) => writeln!(text, "{name}={}", quoted(value)),
                None => writeln!(text, "{line}"),
            }
            .unwrap_or_default(); // a String takes everything
        }
        Ok(text + "\n" + rest)
    }

    fn header(&self) -> String {
        let ranks = u64::from(self.nodes) * u64::from(self.ranks_per_node);
        let log = if self.array.is_some() { "%x-%A_%a.out" } else { "%x-%j.out" };
        let words = [
            Some(format!("job-name={}", self.name)),
            Some(format!("nodes={}", self.nodes)),
            Some(format!("ntasks={ranks}")),
            Some(format!("ntasks-per-node={}", self.ranks_per_node)),
            Some(format!("cpus-per-task={}", self.threads)),
            Some(format!("time={}", time_text(self.minutes))),
            self.partition.as_ref().map(|name| format!("partition={name}")),
            self.account.as_ref().map(|name| format!("account={name}")),
            self.array.as_ref().map(|seeds| format!("array={seeds}")),
            Some(format!("chdir=\"{}\"", self.folder.replace('\\', "\\\\").replace('"', "\\\""))),
            Some(format!("output={log}")),
            Some("requeue".to_string()),
            (self.minutes >= TOLD_MINUTES).then(|| format!("signal=B:USR1@{}", lead_s(self.minutes))),
            Some("open-mode=append".to_string()),
        ];
        let lines: String = words.into_iter().flatten().map(|words| format!("#SBATCH --{words}\n")).collect();
        format!(
            "#!/usr/bin/env bash\n{lines}#\n# Written by `{}`.\n\
             # Submit it from anywhere with sbatch. What is interrupted, by its time limit too, is started again and goes on from\n\
             # CHECKPOINT, on another number of ranks too, to the same bits.\n\n",
            self.written_by.replace(['\n', '\r'], " ")
        )
    }
}

/// Seconds before the end at which the job is told to write a checkpoint, should it not have stopped by itself: a thirtieth of the
/// time, half a minute to five.
fn lead_s(minutes: u32) -> u32 {
    minutes.saturating_mul(2).clamp(30, 300)
}

/// `2:30:00`, `1-12:00:00`: as `sbatch --time` takes it.
pub fn time_text(minutes: u32) -> String {
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:00"),
        _ => format!("{days}-{hours:02}:{minutes:02}:00"),
    }
}

/// One word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn some() -> Script {
        Script {
            written_by: "consort slurm it's.toml".to_string(),
            name: "its".to_string(),
            nodes: 3,
            ranks_per_node: 5,
            threads: 2,
            minutes: 90,
            partition: None,
            account: None,
            array: None,
            launcher: "srun".to_string(),
            modules: String::new(),
            program: "/opt/consort".to_string(),
            folder: "/data/our \"folder\"".to_string(),
            job_file: "/data/it's a $(job).toml".to_string(),
            model: "/data/m.h5".to_string(),
            checkpoint: "/data/m.checkpoint".to_string(),
            every: "100steps".to_string(),
        }
    }

    #[test]
    fn only_header_and_settings_differ_from_the_script_of_the_project() {
        let text = some().text().unwrap();
        let parts: Vec<&str> = text.splitn(3, "\n\n").collect();
        let own: Vec<&str> = TEMPLATE.splitn(3, "\n\n").collect();
        assert_eq!(parts[2], own[2]);
        let names = |part: &str| -> Vec<String> {
            part.lines().map(|line| line.split('=').next().unwrap_or_default().to_string()).collect()
        };
        assert_eq!(names(parts[1]), names(own[1]), "every setting is there once");
        for name in ["JOB_FILE", "KIND", "DATA", "MODEL", "FLAGS", "CONSORT", "FOLDER", "CHECKPOINT", "MODULES"] {
            assert!(!parts[1].contains(&format!("{name}=${{")), "{name} is settled, whatever the environment says");
        }
        for line in
            ["--ntasks=15", "--ntasks-per-node=5", "--cpus-per-task=2", "--time=01:30:00", "--signal=B:USR1@180"]
        {
            assert!(parts[0].contains(&format!("#SBATCH {line}\n")), "{line}:\n{}", parts[0]);
        }
        assert!(!text.contains("--partition") && !text.contains("--array="));
    }

    #[test]
    fn a_shell_takes_the_settings_as_they_are() {
        let script = some();
        let text = script.text().unwrap();
        let settings = text.split("\n\n").nth(1).unwrap();
        let mut shell = Command::new("bash");
        let words = "\nprintf '%s\\n' \"$JOB_FILE\" \"$FOLDER\" \"$MODEL\" \"$DATA\"";
        shell.args(["-c", &format!("{settings}{words}")]).env("DATA", "another").env("MODEL", "another");
        let said = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        assert_eq!(said, format!("{}\n{}\n{}\n\n", script.job_file, script.folder, script.model));
        // The whole of it is a script.
        let mut check = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(check.wait().unwrap().success());
    }

    #[test]
    fn what_was_asked_for_is_in_the_header() {
        let more = Script {
            partition: Some("long".to_string()),
            account: Some("physics".to_string()),
            array: Some("1-5%2".to_string()),
            minutes: 2 * 1440 + 61,
            ..some()
        };
        let text = more.text().unwrap();
        for line in ["partition=long", "account=physics", "array=1-5%2", "time=2-01:01:00", "output=%x-%A_%a.out"] {
            assert!(text.contains(&format!("#SBATCH --{line}\n")), "{line}");
        }
        // SLURM would tell it at its start.
        assert!(!Script { minutes: 3, ..some() }.text().unwrap().contains("--signal"));
        assert_eq!([4, 15, 60, 300, u32::MAX].map(lead_s), [30, 30, 120, 300, 300]);
    }

    #[test]
    fn line_breaks_are_refused() {
        let error = Script { model: "/a\nb".to_string(), ..some() }.text().unwrap_err();
        assert!(error.to_string().contains("line break"), "{error}");
    }
}
