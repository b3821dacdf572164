//! The words of the command line, exactly as typed. What they mean together is settled in [`resolve`](super::resolve).

mod ensembles;
mod model;
mod network;
mod steps;

pub use ensembles::{EnsembleFlags, MemberWords};
pub use model::{BoostFlags, ForestFlags, ModelFlags, SettingFlags};
pub use network::NetworkFlags;
pub use steps::StepFlags;

use crate::comm::World;
use crate::config::Kind;
use crate::data::convert::Format;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error as WordError};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Train models on HDF5 tables with any number of MPI ranks: the number of ranks never changes the answer.
///
/// The same words work alone, under mpirun and under srun. Exit codes: 0 done, 2 words or settings, 3 data or model file,
/// 4 communication or a peer, 70 a bug of consort, 75 interrupted after a checkpoint.
#[derive(Debug, Parser)]
#[command(name = "consort", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Words {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Train(Box<TrainFlags>),
    Predict(PredictFlags),
    Evaluate(EvaluateFlags),
    Inspect(InspectFlags),
    Verify(VerifyFlags),
    Doctor(DoctorFlags),
    Convert(ConvertFlags),
    Repack(RepackFlags),
    Export(ExportFlags),
    Import(ImportFlags),
    Slurm(SlurmFlags),
}

impl Command {
    /// The flags that every command has.
    pub fn run(&self) -> &RunFlags {
        match self {
            Command::Train(flags) => &flags.run,
            Command::Predict(flags) => &flags.run,
            Command::Evaluate(flags) => &flags.run,
            Command::Inspect(flags) => &flags.run,
            Command::Verify(flags) => &flags.run,
            Command::Doctor(flags) => &flags.run,
            Command::Convert(flags) => &flags.run,
            Command::Repack(flags) => &flags.run,
            Command::Export(flags) => &flags.run,
            Command::Import(flags) => &flags.run,
            Command::Slurm(flags) => &flags.run,
        }
    }
}

/// How the program runs; none of it changes a result.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Run")]
pub struct RunFlags {
    /// Threads of each rank. Default: the cores this rank may use ÷ the ranks that share them, at most SLURM_CPUS_PER_TASK.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// Where ranks come from: auto (MPI when a launcher started us, else one rank), mpi, solo, or threads:N (N ranks as
    /// threads of this process).
    #[arg(long, default_value = "auto", value_parser = str::parse::<World>)]
    pub world: World,
    /// A rank that is heard no more for this time (90s, 5m, 1h), since it was stopped, lost or cut off, is named and ends the job with
    /// exit code 4; at least 2s, or 0: nobody is watched.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = stall_timeout)]
    pub stall_timeout: Duration,
    /// Print one JSON object per line on stdout, `event` first, instead of text.
    #[arg(long)]
    pub json: bool,
    /// Take flags from a TOML file: `global-batch = 4096`. Every flag and argument is a key; flags typed here win.
    #[arg(long, value_name = "JOB.toml")]
    pub config: Option<PathBuf>,
}

/// Which datasets are the table. Names are relative to `--group`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Table")]
pub struct TableFlags {
    /// Datasets that are the features, in this order: names, groups of 1-D datasets, compound datasets or their fields
    /// (events/pt), or patterns ('events/*', in bytewise order). Default: X, features or data.
    #[arg(long, value_name = "PATH,…", value_delimiter = ',')]
    pub features: Vec<String>,
    /// Left out of the features: paths, last names, or patterns of these ('mc_*'). May be repeated.
    #[arg(long, value_name = "PATH,…", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Dataset of targets. Default: y, target, labels or label.
    #[arg(long, value_name = "PATH")]
    pub target: Option<String>,
    /// Dataset of row weights, 0 or more. Default: every row counts 1; with a model, as it was trained ('' for none).
    #[arg(long, value_name = "PATH")]
    pub weight: Option<String>,
    /// Dataset added to each row's score, such as the logarithm of an exposure (poisson only). Default: 0.
    #[arg(long, value_name = "PATH")]
    pub offset: Option<String>,
    /// Group that the other names start from. Default: the root, or the one group that has them.
    #[arg(long, value_name = "G")]
    pub group: Option<String>,
    /// 2-D datasets are stored column by column, as MATLAB writes them: rows are the last axis.
    #[arg(long)]
    pub transpose: bool,
}

/// Where the state of a training is kept while it goes on; none of it changes the answer.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Checkpoints")]
pub struct CheckpointFlags {
    /// Keep the state of the training in this folder, which is made if missing, all ranks must see, and the same command goes on from, on any
    /// number of ranks, to the same bits. SIGTERM, SIGUSR1, SIGINT and the end of the batch job then lead to a checkpoint and exit code 75.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// How often: a time (90s, 5m, 1h) or so many steps (100steps): iterations, rounds, trees or mini-batches. Default: 5m, or less often
    /// where that would take more than a fiftieth of the time.
    #[arg(long, value_name = "TIME|Nsteps", requires = "checkpoint")]
    pub every: Option<String>,
    /// Checkpoints that are left in the folder. Default: 2.
    #[arg(long, value_name = "N", requires = "checkpoint", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub keep: Option<u32>,
    /// auto: go on from the newest checkpoint that is whole; never: begin anew; or a folder of checkpoints to go on from, or that of one checkpoint. Default: auto.
    #[arg(long, value_name = "auto|never|PATH", requires = "checkpoint")]
    pub resume: Option<String>,
    /// When this run will be killed, from its start (90s, 5m, 1h): a checkpoint is written before. Default: what SLURM says, if it does.
    #[arg(long, value_name = "TIME", requires = "checkpoint")]
    pub time_limit: Option<String>,
}

/// Train a model: linear, logistic, svm, poisson, mlp, boost, forest, or an ensemble of these: bag, adaboost, vote, stack.
///
/// The last line of the output is `digest` and 64 hex digits: a hash of parameters, settings and input values, the same for
/// every number of ranks and threads.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort train KIND DATA… -o MODEL.h5 [OPTIONS]")]
pub struct TrainFlags {
    /// linear, logistic, svm, poisson, mlp, boost, forest, bag, adaboost, vote or stack.
    #[arg(value_name = "KIND", value_parser = word::<Kind>)]
    pub kind: Option<Kind>,
    /// HDF5 files; their rows follow one another in this order. A quoted pattern ('run-*.h5') stands for the files that it
    /// matches, in bytewise order; @FILE for those that FILE names, a name or pattern a line.
    #[arg(value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// The model file to write.
    #[arg(short, long, value_name = "MODEL.h5")]
    pub output: Option<PathBuf>,
    /// Only the rows A to B − 1.
    #[arg(long, value_name = "A..B", value_parser = rows)]
    pub rows: Option<Range<u64>>,
    #[command(flatten)]
    pub table: TableFlags,
    /// Go on from the trees of this model (boost): --rounds are added to its own. Columns, classes and loss are as they were; what is
    /// not typed, but rounds and folds, is set as it was trained.
    #[arg(long = "continue", value_name = "MODEL.h5", visible_alias = "input-model", conflicts_with = "print_config")]
    pub continued: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelFlags,
    #[command(flatten)]
    pub ensemble: EnsembleFlags,
    #[command(flatten)]
    pub memory: MemoryFlags,
    #[command(flatten)]
    pub checkpoint: CheckpointFlags,
    /// Measure the model on this table as well, which has the same layout: a file, a pattern or @FILE. May be repeated: rows
    /// of one table.
    #[arg(long, value_name = "FILE")]
    pub valid: Vec<PathBuf>,
    /// Replace an output that consort did not write.
    #[arg(long)]
    pub force: bool,
    /// Print the settings as they were resolved, and stop.
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// What a rank may take; changes nothing of the model.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryFlags {
    /// Memory of each rank for the table and what is done with it, such as 4G or 500M (powers of 1024), at least 32M. A table
    /// that does not fit is read from disk for every pass. Default: what it takes.
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub max_memory: Option<u64>,
    /// Folder on a disk of each node for a table that does not fit: its decoded rows, so that every chunk is decoded once; bin
    /// numbers of boost. Default: nowhere; of boost, the folder for temporary files.
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// A time in which several beats fit, or 0.
fn stall_timeout(text: &str) -> Result<Duration, String> {
    if text == "0" || text == "0s" {
        return Ok(Duration::ZERO);
    }
    let time = super::resolve::time_of(text).map_err(|e| e.to_string())?;
    match time >= Duration::from_secs(2) {
        true => Ok(time),
        false => {
            Err(format!("'{text}' is too short: beats come twice a second; give at least 2s, or 0 to watch nobody"))
        }
    }
}

/// As [`size`], with no less than a rank can do with.
fn memory_size(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    let least = crate::train::memory::LEAST_BYTES;
    match bytes >= least {
        true => Ok(bytes),
        false => Err(format!("'{text}' is too small; give at least {}M", least >> 20)),
    }
}

/// As [`size`], for a chunk: HDF5 has none of 4 GiB.
fn chunk_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes @ 1024..=0x4000_0000 => Ok(bytes),
        _ => Err(format!("'{text}' is too small or too large; give 1K to 1G")),
    }
}

/// Bytes: `4G`, `1.5G`, `500M`, `40000K`; powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is not a size; give a number and K, M, G or T, such as 4G");
    let text_upper = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i').to_ascii_uppercase();
    let (number, unit) = match text_upper.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text_upper.split_at(at),
        None => (text_upper.as_str(), ""),
    };
    let factor = match unit {
        "" => 1.0,
        "K" => 1024.0,
        "M" => f64::from(1u32 << 20),
        "G" => f64::from(1u32 << 30),
        "T" => 1024.0 * f64::from(1u32 << 30),
        _ => return Err(expected()),
    };
    let bytes = number.trim().parse::<f64>().map_err(|_| expected())? * factor;
    match (0.0..1e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(expected()),
    }
}

/// Write predictions for every row of a table.
///
/// PRED.h5 gets `prediction`, `probability` (logistic; columns in the order of `classes`) or `score` (svm), and `row`. Each
/// rank writes its own rows; the file is the same for any number of ranks.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort predict MODEL DATA… -o PRED.h5 [OPTIONS]")]
pub struct PredictFlags {
    /// A model file of `consort train`.
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// HDF5 files with the model's columns, patterns or @FILE as for train; a target is not needed.
    #[arg(value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// The predictions file to write.
    #[arg(short, long, value_name = "PRED.h5")]
    pub output: Option<PathBuf>,
    /// Also write `contribution`: what each feature adds to each score (Shapley values of trees), and last what the mean row has.
    #[arg(long)]
    pub contributions: bool,
    /// Also write `leaf`: the number of the row's leaf in each tree.
    #[arg(long)]
    pub leaves: bool,
    /// Predict the table that a forest was trained on, each row by the trees that did not draw it.
    #[arg(long)]
    pub oob: bool,
    /// Carry this 1-D dataset over to the output, row for row (relative to --group). May be repeated.
    #[arg(long, value_name = "PATH")]
    pub copy: Vec<String>,
    /// Only the rows A to B − 1.
    #[arg(long, value_name = "A..B", value_parser = rows)]
    pub rows: Option<Range<u64>>,
    #[command(flatten)]
    pub table: TableFlags,
    /// Memory of each rank, such as 4G or 500M (powers of 1024), at least 32M; at most so much is read at a time.
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub max_memory: Option<u64>,
    /// Replace an output that consort did not write.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Measure a model on a table whose targets are known.
///
/// Of class probabilities also their reliability: rows by predicted probability (of the second of two classes, or of the likeliest
/// of more), and how often it came true; `ece` is the mean distance of the two, `brier` the mean squared error.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort evaluate MODEL DATA… [OPTIONS]")]
pub struct EvaluateFlags {
    /// A model file of `consort train`.
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// HDF5 files with the model's columns and the target, patterns or @FILE as for train.
    #[arg(value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// Only the rows A to B − 1.
    #[arg(long, value_name = "A..B", value_parser = rows)]
    pub rows: Option<Range<u64>>,
    /// Also say how much each column matters: so many times, its values are taken from other rows, and log_loss (svm: accuracy,
    /// numbers: rmse) is measured again. Takes columns × N times as long. Default 0: do not.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub permutation: u64,
    /// Key of the draws of --permutation.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole())]
    pub seed: u64,
    #[command(flatten)]
    pub table: TableFlags,
    #[command(flatten)]
    pub memory: MemoryFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Say what is in data or model files, and how they would be read.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort inspect FILE… [OPTIONS]")]
pub struct InspectFlags {
    /// HDF5 tables, models or predictions, patterns or @FILE as for train.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print this tree of a boosted model, from 0 on.
    #[arg(long, value_name = "N")]
    pub tree: Option<usize>,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Write a boosted model in the text form of LightGBM, whose library then predicts the same.
///
/// Features are numbered as `inspect` shows them; columns of strings are one feature for each string. Values within 1e-35 of 0 are
/// 0 to that library, whatever the thresholds are: rescale columns of such values before training.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort export MODEL OUT.txt [OPTIONS]")]
pub struct ExportFlags {
    /// A model file of `consort train boost`.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The text file to write.
    #[arg(value_name = "OUT.txt")]
    pub output: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Make a model file of boosted trees in the text form of LightGBM.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort import IN.txt MODEL.h5 [OPTIONS]")]
pub struct ImportFlags {
    /// A file that LightGBM's `save_model` wrote.
    #[arg(value_name = "IN.txt")]
    pub input: PathBuf,
    /// The model file to write.
    #[arg(value_name = "MODEL.h5")]
    pub output: PathBuf,
    /// Replace an output that consort did not write.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Train a model again under other numbers of ranks and threads, and compare digests.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort verify MODEL [DATA…] [OPTIONS]")]
pub struct VerifyFlags {
    /// A model file of `consort train`.
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The table it was trained on, patterns or @FILE as for train. Default: the files named in the model.
    #[arg(value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// Group that the model's names start from. Default: as it was trained.
    #[arg(long, value_name = "G")]
    pub group: Option<String>,
    #[command(flatten)]
    pub memory: MemoryFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Look at this machine: MPI, ranks, cores, threads, clocks, HDF5, memory.
#[derive(Debug, Args)]
pub struct DoctorFlags {
    /// Tables to look at as well, patterns or @FILE as for train: whether all nodes see the same, and whether they can be locked.
    #[arg(value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// Look at this folder as well: whether checkpoints can be written there, how fast, and whether all ranks see them.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Turn csv, tsv, libsvm, Parquet, npy, npz or idx files into HDF5.
///
/// With several ranks, the first reads and writes, and all parse (csv, tsv, libsvm) and compress. The file has the same bytes for any
/// number of ranks and threads.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort convert IN… OUT.h5 [OPTIONS]")]
pub struct ConvertFlags {
    /// The files to convert, then the HDF5 file to write.
    #[arg(value_name = "IN… OUT.h5")]
    pub files: Vec<PathBuf>,
    /// What the inputs are: csv (with any separator), libsvm, npy, npz, parquet or idx. Default: by their content.
    #[arg(long, value_name = "FORMAT", value_parser = word::<Format>)]
    pub format: Option<Format>,
    /// Group that the datasets go to. Default: the root.
    #[arg(long, value_name = "G", default_value = "")]
    pub group: String,
    /// Add to a file that is there, so that `train` and `test` land in one.
    #[arg(long)]
    pub append: bool,
    /// Target column of a csv file: its name or number (−1 is the last). Default: y, target, labels or label.
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    pub target: Option<String>,
    /// Field separator of a csv file, one character. Default: tab, semicolon or comma, whichever the first line has.
    #[arg(long, value_name = "CHAR")]
    pub separator: Option<char>,
    /// The first line of a csv file names the columns. Default: if no field of it is a number.
    #[arg(long)]
    pub header: bool,
    /// The first line of a csv file is a row.
    #[arg(long, conflicts_with = "header")]
    pub no_header: bool,
    /// Columns of a libsvm table, if more than its largest index says.
    #[arg(long, value_name = "N")]
    pub n_features: Option<usize>,
    /// Store a libsvm table sparsely: only the values that are there, row by row.
    #[arg(long)]
    pub sparse: bool,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Write an HDF5 file again with better chunks and compression.
///
/// Everything in the file is kept: groups, datasets, attributes, links. Numbers and strings of fixed length get chunks of whole
/// rows; the rest is copied as it is. With several ranks, the first reads and writes, and all compress; the file has the same bytes
/// for any number of ranks and threads.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort repack IN.h5 OUT.h5 [OPTIONS]")]
pub struct RepackFlags {
    /// The file to read.
    #[arg(value_name = "IN.h5")]
    pub input: PathBuf,
    /// The file to write.
    #[arg(value_name = "OUT.h5")]
    pub output: PathBuf,
    /// Size of a chunk, about.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = chunk_size)]
    pub chunk_size: u64,
    /// Level of compression with deflate, 1 to 9, after shuffle; 0: none.
    #[arg(long, value_name = "LEVEL", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub deflate: u8,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

const SLURM_EXAMPLE: &str = "Example:
  consort slurm job.toml --nodes 4 --ntasks-per-node 8 --cpus-per-task 4 --time 4h
  sbatch job.sbatch";

/// Write a batch script for SLURM that trains a job file, and is started again until it is done.
///
/// JOB.toml is what `consort train --config` takes, and is checked here with the tables it names. Relative names in it start in the
/// folder this is called in, wherever the script is submitted from. Its checkpoints (`checkpoint`; default: MODEL.checkpoint) carry
/// it over time limits, lost nodes and preemption to the same bits.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, override_usage = "consort slurm JOB.toml [OPTIONS]", after_help = SLURM_EXAMPLE)]
pub struct SlurmFlags {
    /// Flags of `consort train`, as keys: kind, data, output and any others.
    #[arg(value_name = "JOB.toml")]
    pub job: Option<PathBuf>,
    /// Nodes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// Ranks on each node.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub ntasks_per_node: u32,
    /// Cores of each rank, which it has as many threads for. Default: `threads` of JOB.toml, or 1.
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub cpus_per_task: Option<u32>,
    /// Time limit of one run: minutes, 90m, 4h, 2d, or as sbatch has it (2:30:00, 1-12). Longer work goes on in further runs.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub time: String,
    /// Partition. Default: that of the cluster.
    #[arg(long, value_name = "P")]
    pub partition: Option<String>,
    /// Account that pays. Default: that of the person.
    #[arg(long, value_name = "A")]
    pub account: Option<String>,
    /// srun; or mpirun (a path to it), where srun has no plugin for the MPI of this program.
    #[arg(long, value_name = "srun|mpirun", default_value = "srun")]
    pub launcher: String,
    /// One training for each of these seeds, as sbatch has them: 1-5, 3,7, 0-15:5, 1-100%4 (four at a time). MODEL-SEED.h5 each.
    #[arg(long, value_name = "SEEDS")]
    pub array: Option<String>,
    /// The script to write; - is stdout. Default: JOB.sbatch, beside the job file.
    #[arg(short, long, value_name = "JOB.sbatch")]
    pub output: Option<PathBuf>,
    /// Replace a script that is there.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// One of the words that a setting's type has in the model file.
fn word<T: DeserializeOwned>(word: &str) -> Result<T, WordError> {
    T::deserialize(word.into_deserializer())
}

/// Numbers that TOML, hence the model file, can hold: what is larger is refused before anything is trained.
fn whole() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(..=i64::MAX as u64)
}

/// `A..B`, `..B` with A = 0.
fn rows(words: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("'{words}' is no range of rows; write A..B with A below B, such as 0..1000");
    let (first, end) = words.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().map_err(|_| wrong());
    let first = if first.trim().is_empty() { 0 } else { number(first)? };
    let end = number(end)?;
    if first < end { Ok(first..end) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Solver;
    use clap::CommandFactory;

    #[test]
    fn the_words_fit_together() {
        Words::command().debug_assert();
        MemberWords::command().debug_assert();
    }

    #[test]
    fn ranges_of_rows() {
        assert_eq!(rows("10..1_000"), Ok(10..1000));
        assert_eq!(rows("..5"), Ok(0..5));
        for wrong in ["5", "5..5", "7..3", "a..b", "1...", "-1..4", "3.."] {
            assert!(rows(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_setting_has_the_words_of_the_model_file() {
        assert_eq!(word::<Kind>("svm"), Ok(Kind::Svm));
        let message = word::<Solver>("newto").unwrap_err().to_string();
        assert!(message.contains("`newton`"), "{message}");
    }
}
