//! From the words of `slurm` and a job file to a checked batch script.

use super::flags::{Command, SlurmFlags, TrainFlags};
use super::print::Printer;
use super::problem::Problem;
use super::resolve::{self, TrainJob};
use super::understand;
use crate::comm::World;
use crate::error::{Error, InContext, Result};
use crate::report::print_line;
use crate::slurm::{Script, time_text};
use crate::store;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A checked `slurm`; whether its tables can be read is seen when they are opened.
#[derive(Clone, Debug)]
pub struct SlurmJob {
    pub train: TrainJob,
    pub script: Script,
    /// None: stdout.
    output: Option<PathBuf>,
    force: bool,
}

pub fn job(flags: &SlurmFlags) -> Result<SlurmJob> {
    let file = flags.job.clone().ok_or_else(|| Error::usage("slurm needs a job file: slurm JOB.toml --nodes N"))?;
    let flags_of_job = train_flags(&file)?;
    check_goes_on(&flags_of_job).in_file(&file)?;
    let train = resolve::train(&flags_of_job).in_file(&file)?;
    let threads = flags.cpus_per_task.or(flags_of_job.run.threads).unwrap_or(1);
    if u64::from(flags.nodes) * u64::from(flags.ntasks_per_node) > 1 && cfg!(not(feature = "mpi")) {
        return Err(Error::usage(
            "this program was built without MPI and has one rank; build it with MPI, or leave out --nodes and --ntasks-per-node",
        ));
    }
    let checkpoint = match &train.checkpoint {
        Some(config) => config.folder.clone(),
        None => train.output.with_extension("checkpoint"),
    };
    let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let script = Script {
        written_by: words_of(flags, &file),
        name: name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect(),
        nodes: flags.nodes,
        ranks_per_node: flags.ntasks_per_node,
        threads,
        minutes: minutes_of(&flags.time).for_flag("--time")?,
        partition: flags.partition.as_deref().map(one_word).transpose().for_flag("--partition")?,
        account: flags.account.as_deref().map(one_word).transpose().for_flag("--account")?,
        array: flags.array.as_deref().map(seeds_of).transpose().for_flag("--array")?,
        launcher: launcher_of(&flags.launcher).for_flag("--launcher")?,
        // The ones that this program is running with.
        modules: std::env::var("LOADEDMODULES").unwrap_or_default().replace(':', " "),
        program: text_of(std::env::current_exe().map_err(|e| Error::internal(format!("where am I? {e}")))?)?,
        folder: text_of(here()?)?,
        job_file: text_of(from_here(&file)?)?,
        model: text_of(from_here(&train.output)?)?,
        checkpoint: text_of(from_here(&checkpoint)?)?,
        every: flags_of_job.checkpoint.every.clone().unwrap_or_else(|| "5m".to_string()),
    };
    let output = match &flags.output {
        Some(path) if path == Path::new("-") => None,
        Some(path) => Some(path.clone()),
        None => Some(file.with_extension("sbatch")),
    };
    if let Some(output) = &output {
        let inputs = train.inputs.paths.iter().chain([&file]);
        resolve::check_apart(output, inputs, "the job file or one of its inputs")?;
    }
    Ok(SlurmJob { train, script, output, force: flags.force })
}

/// The words that `consort train --config FILE` would have.
fn train_flags(file: &Path) -> Result<Box<TrainFlags>> {
    let words = ["consort", "train", "--config"].map(OsString::from).into_iter().chain([file.into()]);
    match understand(words.collect()) {
        Ok(Command::Train(flags)) => Ok(flags),
        Ok(_) => Err(Error::internal("the words of train were taken for another command's")),
        Err(Problem::Settings(error)) => Err(error).in_file(file),
        Err(Problem::Words(_)) => Err(Error::internal("a job file was taken for a call for help")),
    }
}

/// Refuses what would not do under SLURM, or would begin anew each time.
fn check_goes_on(flags: &TrainFlags) -> Result<()> {
    if flags.print_config {
        return Err(Error::usage("print-config trains nothing; leave it out"));
    }
    if !matches!(flags.run.world, World::Auto | World::Mpi) {
        return Err(Error::usage(
            "with this world each rank would train alone; leave it out: srun and mpirun say who belongs together",
        ));
    }
    match flags.checkpoint.resume.as_deref() {
        None | Some("auto") => Ok(()),
        Some(_) => Err(Error::usage(
            "with this resume each run would begin at the same place, and a job longer than its time limit never end; leave it out",
        )),
    }
}

/// The command line, for a comment.
fn words_of(flags: &SlurmFlags, file: &Path) -> String {
    let mut words = format!("consort slurm {} --nodes {}", file.display(), flags.nodes);
    words += &format!(" --ntasks-per-node {}", flags.ntasks_per_node);
    if let Some(threads) = flags.cpus_per_task {
        words += &format!(" --cpus-per-task {threads}");
    }
    let typed =
        [("time", Some(&flags.time)), ("partition", flags.partition.as_ref()), ("account", flags.account.as_ref())];
    let launcher = Some(&flags.launcher).filter(|launcher| *launcher != "srun");
    let typed = typed.into_iter().chain([("launcher", launcher), ("array", flags.array.as_ref())]);
    typed.filter_map(|(flag, value)| Some(format!(" --{flag} {}", value?))).fold(words, |words, typed| words + &typed)
}

/// The folder we are in, by the name a person gives it: a link may be the same on all nodes where what it leads to is not.
fn here() -> Result<PathBuf> {
    let real = std::env::current_dir().map_err(|e| Error::usage(format!("the folder we are in has gone: {e}")))?;
    let typed = std::env::var_os("PWD").map(PathBuf::from).filter(|typed| typed.is_absolute());
    Ok(typed.filter(|typed| typed.canonicalize().is_ok_and(|typed| typed == real)).unwrap_or(real))
}

fn from_here(path: &Path) -> Result<PathBuf> {
    Ok(here()?.join(path))
}

fn text_of(path: PathBuf) -> Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| Error::usage(format!("{path:?} is not UTF-8; rename it, or name it by a link")))
}

/// Minutes of `90`, `90m`, `1.5h`, `2d`, and of what sbatch takes: `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`; seconds count as a minute.
fn minutes_of(text: &str) -> Result<u32> {
    let wrong = || {
        Error::usage(format!(
            "'{text}' is no time; give minutes (90), or 90m, 4h, 2d, or hours:minutes:seconds (2:30:00), or days-hours (1-12)"
        ))
    };
    let number = |text: &str| match text.is_empty() || text.len() > 6 || !text.bytes().all(|b| b.is_ascii_digit()) {
        true => Err(wrong()),
        false => text.parse::<u64>().map_err(|_| wrong()),
    };
    let last = text.chars().last().unwrap_or(' ');
    let minutes =
        if let Some(unit) = [('s', 1.0 / 60.0), ('m', 1.0), ('h', 60.0), ('d', 1440.0)].iter().find(|u| u.0 == last) {
            let value = text[..text.len() - 1].trim().parse::<f64>().map_err(|_| wrong())? * unit.1;
            if !(value > 0.0 && value < 1e7) {
                return Err(wrong());
            }
            value.ceil() as u64
        } else {
            let (days, rest) = match text.split_once('-') {
                Some((days, rest)) => (Some(number(days)?), rest),
                None => (None, text),
            };
            let parts = rest.split(':').map(number).collect::<Result<Vec<u64>>>()?;
            let (hours, minutes, seconds) = match (days.is_some(), parts.as_slice()) {
                (true, [hours]) => (*hours, 0, 0),
                (true, [hours, minutes]) => (*hours, *minutes, 0),
                (false, [minutes]) => (0, *minutes, 0),
                (false, [minutes, seconds]) => (0, *minutes, *seconds),
                (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
                _ => return Err(wrong()),
            };
            days.unwrap_or(0) * 1440 + hours * 60 + minutes + seconds.div_ceil(60)
        };
    match u32::try_from(minutes) {
        Ok(minutes @ 1..=5_256_000) => Ok(minutes),
        _ => Err(wrong()),
    }
}

/// A name that stands in a line of the script.
fn one_word(text: &str) -> Result<String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-,+@:/=".contains(c);
    match !text.is_empty() && text.chars().all(is_fine) {
        true => Ok(text.to_string()),
        false => Err(Error::usage(format!("'{text}' is no name that SLURM takes"))),
    }
}

/// The launcher: what is no launcher's name is a path.
fn launcher_of(text: &str) -> Result<String> {
    let is_known = ["srun", "mpirun", "mpiexec"].contains(&text);
    match is_known || (text.starts_with('/') && !text.contains(char::is_whitespace)) {
        true => Ok(text.to_string()),
        false => {
            Err(Error::usage(format!("'{text}' is no launcher; give srun, mpirun, or the whole path of an mpirun")))
        }
    }
}

/// Seeds of an array: `1-5`, `3,7`, `0-15:5`, each with `%N` at its end.
fn seeds_of(text: &str) -> Result<String> {
    let number = |text: &str| (text.len() <= 9).then(|| text.parse::<u32>().ok()).flatten();
    let is_part = |part: &str| {
        let (range, step) = part.split_once(':').map_or((part, None), |(range, step)| (range, Some(step)));
        match (range.split_once('-'), step) {
            (None, None) => number(range).is_some(),
            (Some((first, last)), step) => {
                matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
                    && step.is_none_or(|step| number(step).is_some_and(|step| step > 0))
            }
            (None, Some(_)) => false,
        }
    };
    let (seeds, at_once) = text.split_once('%').map_or((text, None), |(seeds, n)| (seeds, Some(n)));
    let is_fine = seeds.split(',').all(is_part) && at_once.is_none_or(|n| number(n).is_some_and(|n| n > 0));
    match is_fine {
        true => Ok(text.to_string()),
        false => {
            Err(Error::usage(format!("'{text}' are no seeds of an array; give such as 1-5, 3,7, 0-15:5 or 1-100%4")))
        }
    }
}

/// Writes the script. Not collective.
pub fn write(job: &SlurmJob, printer: &Printer) -> Result<()> {
    let text = job.script.text()?;
    let Some(output) = &job.output else {
        print_line(text.trim_end());
        return Ok(());
    };
    if !job.force && output.symlink_metadata().is_ok() {
        return Err(Error::usage("exists; choose another name with -o, or replace it with --force")).in_file(output);
    }
    store::save_text(output, &text, true)?;
    let Script { nodes, ranks_per_node, threads, minutes, .. } = job.script;
    let name = output.display().to_string();
    printer.say(
        || {
            let time = time_text(minutes);
            format!(
                "{name}: {nodes} nodes × {ranks_per_node} ranks × {threads} threads, {time} a run; checkpoints in {}\nsbatch {name}",
                job.script.checkpoint
            )
        },
        || {
            json!({"event": "done", "command": "slurm", "output": name, "nodes": nodes, "ranks_per_node": ranks_per_node,
                   "threads": threads, "minutes": minutes, "checkpoint": job.script.checkpoint})
        },
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_people_and_of_sbatch() {
        let known = [
            ("90", 90),
            ("90m", 90),
            ("1.5h", 90),
            ("2d", 2880),
            ("30s", 1),
            ("90s", 2),
            ("5:00", 5),
            ("5:01", 6),
            ("2:30:00", 150),
            ("1-12", 2160),
            ("1-0:30", 1470),
            ("1-01:01:01", 1502),
        ];
        for (text, minutes) in known {
            assert_eq!(minutes_of(text).unwrap(), minutes, "{text}");
        }
        for wrong in
            ["", "0", "0h", "soon", "-5", "1-", "-", "1:2:3:4", "1-1:1:1:1", "1.5", "h", "1e9d", "99999999", "∞", "5µ"]
        {
            assert!(minutes_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_are_those_of_sbatch() {
        for known in ["1-5", "3,7", "0-15:5", "1-100%4", "7", "1-3,9%2"] {
            assert_eq!(seeds_of(known).unwrap(), known);
        }
        for wrong in ["", "5-1", "1..5", "a", "1-5%0", "1-5%", "1,", "1-5:0", "3:2", "1-5 ", "1-5\n"] {
            assert!(seeds_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_launchers_are_one_word() {
        assert!(one_word("gpu-long").is_ok() && launcher_of("/opt/mpi/bin/mpirun").is_ok());
        for wrong in ["", "a b", "a\nb", "a#b"] {
            assert!(one_word(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "sruN", "mpirun -n 4", "bin/mpirun"] {
            assert!(launcher_of(wrong).is_err(), "{wrong}");
        }
    }
}
