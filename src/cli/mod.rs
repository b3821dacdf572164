//! # cli — words typed by a person to one library call
//!
//! In:    the arguments of the process.
//! Out:   text or JSON lines on stdout, errors on stderr, an exit code.
//! Talks: starts the world; each command's library call talks.
//! Never: arithmetic, training, HDF5.

mod flags;
mod measured;
mod members;
mod print;
mod problem;
mod resolve;
mod slurm;
mod steps;
mod tree;

use crate::comm::{Communicator, World, launcher_rank, launcher_size, run_world};
use crate::data::convert::ConvertOptions;
use crate::data::hdf5::repack::RepackOptions;
use crate::data::names::Need;
use crate::data::{describe, files};
use crate::error::{Error, ErrorKind, InContext, Result};
use crate::predict::load_model;
use crate::report::{Reporter, print_line, with_progress};
use crate::train::checkpoint::{CheckpointConfig, Keeper, Keeping, marker_of};
use crate::train::evaluate::evaluate;
use crate::train::permutation::permutation;
use crate::train::{Inputs, Model, Reading};
use crate::{blas, convert, doctor, guard, nodes, predict, store, train, verify};
use clap::Parser;
use flags::{Command, ExportFlags, ImportFlags, InspectFlags, VerifyFlags, Words};
use print::{Printer, TrainCosts};
use problem::Problem;
use resolve::TrainJob;
use slurm::SlurmJob;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The whole program: parses, starts the world, makes one library call; the exit code.
///
/// Nothing heavy happens before the words are understood, and no world starts for `--help` or `--version`.
pub fn run(words: Vec<OsString>) -> i32 {
    let command = match understand(words) {
        Ok(command) => command,
        Err(problem) => return refuse(problem),
    };
    if let Err(error) = blas::single_thread() {
        return refuse(Problem::Settings(error));
    }
    let run = command.run();
    let threads = run.threads.map_or_else(|| doctor::default_threads(run.world), |n| n as usize);
    guard::watchdog::expect(run.stall_timeout);
    match checked(&command).and_then(|job| listen_for(&job, run.world).map(|()| job)) {
        // What every rank finds wrong in the same values is agreed on as well, so that it is said once.
        Ok(job) => run_world(run.world, threads, |comm| {
            let start = || {
                comm.agree(Ok(()))?; // a rank whose words were refused says so here
                guard::watchdog::start(comm, run.stall_timeout)
            };
            let ended = start().and_then(|()| comm.agree(carry_out(comm, &job, run.json)));
            unmark(comm, &job, ended.as_ref().err());
            ended
        }),
        Err(error) => refuse(Problem::Settings(error)),
    }
}

/// Whether this process has the rank 0, as far as that can be known before there is a world.
fn is_first(world: World) -> bool {
    matches!(world, World::Solo | World::Threads(_)) || launcher_rank().is_none_or(|rank| rank == 0)
}

/// From now on signals lead to a checkpoint, where there are any; the mark of a run before this one is gone.
fn listen_for(job: &Job<'_>, world: World) -> Result<()> {
    let Job::Train(job) = job else { return Ok(()) };
    let Some(config) = &job.checkpoint else { return Ok(()) };
    let marker = marker_of(&config.folder);
    if is_first(world) {
        let _ = std::fs::remove_file(&marker); // that it is not there is fine
    }
    guard::stop::listen(marker, is_first(world))
}

fn understand(words: Vec<OsString>) -> std::result::Result<Command, Problem> {
    let words = resolve::with_config(words)?;
    Ok(Words::try_parse_from(words)?.command)
}

/// Says what is wrong with the words: once, if a launcher started several of us. Since each may have read another `--config`
/// file, or have other limits, they agree on it as on any failure.
fn refuse(problem: Problem) -> i32 {
    let error = match problem {
        Problem::Settings(error) => error,
        Problem::Words(error) if error.use_stderr() && launcher_size().is_some() => {
            Error::usage(error.to_string().trim_end())
        }
        Problem::Words(error) => return print_words(&error),
    };
    run_world(World::Auto, 1, |comm| comm.agree(Err(error.clone())))
}

/// Help or the version, in clap's own form and colours.
fn print_words(error: &clap::Error) -> i32 {
    if is_first(World::Auto) {
        let _ = error.print();
    }
    if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 }
}

/// A command whose words are checked as far as they can be without a world and without looking at files.
#[derive(Clone, Debug)]
enum Job<'a> {
    /// Only text to print.
    Print(String),
    Train(Box<TrainJob>),
    Predict(PathBuf, predict::PredictConfig),
    /// The model, the table, which rows, and how often to permute each column by which seed.
    Evaluate(PathBuf, Inputs, Option<std::ops::Range<u64>>, (u64, u64)),
    Inspect(&'a InspectFlags),
    /// The model, and the files if they are not those named in it.
    Verify(PathBuf, Vec<PathBuf>, Reading, &'a VerifyFlags),
    /// The folder for checkpoints and the tables to look at.
    Doctor(Option<&'a Path>, Vec<PathBuf>),
    Convert(Vec<PathBuf>, PathBuf, ConvertOptions),
    Repack(&'a Path, &'a Path, RepackOptions),
    Export(&'a ExportFlags),
    Import(&'a ImportFlags),
    Slurm(Box<SlurmJob>),
}

fn checked(command: &Command) -> Result<Job<'_>> {
    Ok(match command {
        Command::Train(flags) => {
            let job = resolve::train(flags)?;
            match flags.print_config {
                true => Job::Print(store::settings::settings_text(&job.config, &job.inputs.names)?),
                false => Job::Train(Box::new(job)),
            }
        }
        Command::Predict(flags) => {
            let (model, config) = resolve::predict(flags)?;
            Job::Predict(model, config)
        }
        Command::Evaluate(flags) => {
            let (model, inputs) = resolve::evaluate(flags)?;
            Job::Evaluate(model, inputs, flags.rows.clone(), (flags.permutation, flags.seed))
        }
        Command::Inspect(flags) => Job::Inspect(flags),
        Command::Verify(flags) => {
            let (model, reading) = resolve::verify(flags)?;
            Job::Verify(model, flags.data.clone(), reading, flags)
        }
        Command::Doctor(flags) => Job::Doctor(flags.checkpoint.as_deref(), flags.data.clone()),
        Command::Convert(flags) => {
            let (inputs, out, options) = resolve::convert(flags)?;
            Job::Convert(inputs, out, options)
        }
        Command::Repack(flags) => Job::Repack(&flags.input, &flags.output, resolve::repack(flags)?),
        Command::Export(flags) => Job::Export(flags),
        Command::Import(flags) => Job::Import(flags),
        Command::Slurm(flags) => Job::Slurm(Box::new(slurm::job(flags)?)),
    })
}

/// Refuses ranks that were started for different jobs: another seed on one node would train a model that nobody asked for,
/// without a word. Collective.
fn agree_on(comm: &Communicator, job: &Job<'_>) -> Result<()> {
    nodes::agree_on_program(comm)?;
    // A shell may have written out thousands of file names.
    let mine = *blake3::hash(format!("{job:?}").as_bytes()).as_bytes();
    let mut of_root = mine;
    comm.broadcast(&mut of_root, 0)?;
    comm.agree(match mine == of_root {
        true => Ok(()),
        false => Err(Error::usage(
            "was started with other words or settings than rank 0; give all ranks the same, and the same --config file",
        )),
    })
}

impl Job<'_> {
    /// The tables' files, as typed at first.
    fn files(&mut self) -> Vec<&mut Vec<PathBuf>> {
        match self {
            Job::Train(job) => vec![&mut job.inputs.paths, &mut job.valid],
            Job::Slurm(job) => vec![&mut job.train.inputs.paths, &mut job.train.valid],
            Job::Predict(_, config) => vec![&mut config.inputs.paths],
            Job::Evaluate(_, inputs, ..) => vec![&mut inputs.paths],
            Job::Verify(_, files, ..) => vec![files],
            Job::Doctor(_, files) => vec![files],
            Job::Print(_) | Job::Inspect(_) => Vec::new(),
            Job::Convert(..) | Job::Repack(..) | Job::Export(_) | Job::Import(_) => Vec::new(),
        }
    }

    /// Refuses an output that is also an input. Looks at the files.
    fn check_output(&self) -> Result<()> {
        match self {
            Job::Train(job) => check_train_output(job),
            Job::Slurm(job) => check_train_output(&job.train).in_file(&job.script.job_file),
            Job::Predict(model, config) => {
                resolve::check_apart(&config.output, &config.inputs.paths, "one of the inputs")?;
                resolve::check_apart(&config.output, [model], "the model itself")
            }
            Job::Convert(inputs, out, _) => resolve::check_apart(out, inputs, "one of the inputs"),
            Job::Repack(input, out, _) => resolve::check_apart(out, [*input], "the input"),
            Job::Export(flags) => resolve::check_apart(&flags.output, [&flags.model], "the model itself"),
            Job::Import(flags) => resolve::check_apart(&flags.output, [&flags.input], "the input"),
            _ => Ok(()),
        }
    }
}

fn check_train_output(job: &TrainJob) -> Result<()> {
    resolve::check_apart(&job.output, &job.inputs.paths, "one of the inputs")?;
    resolve::check_apart(&job.output, &job.models, "one of the models")?;
    resolve::check_apart(&job.output, &job.valid, "the table of --valid")
}

/// Puts the files that patterns and lists stand for in their place. One rank looks for them: the others could see a folder
/// that has grown, and ten thousand ranks need not search it. Collective.
fn find_files(comm: &Communicator, job: &mut Job<'_>) -> Result<()> {
    let unsent = |_| Error::data("the name of a file is not UTF-8; rename it, or name it by a link");
    let mut bytes = comm.agree(match comm.is_root() {
        true => job
            .files()
            .into_iter()
            .map(|words| files::expand(words))
            .collect::<Result<Vec<_>>>()
            .and_then(|found| postcard::to_allocvec(&found).map_err(unsent)),
        false => Ok(Vec::new()),
    })?;
    comm.broadcast_vec(&mut bytes, 0)?;
    let found: Vec<Vec<PathBuf>> = comm.agree(
        postcard::from_bytes(&bytes).map_err(|e| Error::internal(format!("names of files were not received: {e}"))),
    )?;
    for (words, found) in job.files().into_iter().zip(found) {
        *words = found;
    }
    comm.agree(if comm.is_root() { job.check_output() } else { Ok(()) })
}

/// One arm, one call. Collective.
fn carry_out(comm: &Communicator, job: &Job<'_>, json: bool) -> Result<i32> {
    agree_on(comm, job)?;
    let mut job = job.clone();
    find_files(comm, &mut job)?;
    let printer = Printer { speaks: comm.is_root(), json };
    match &job {
        Job::Print(text) => on_root(comm, || {
            print_line(text.trim_end());
            Ok(())
        }),
        Job::Train(job) => run_train(comm, job, &printer),
        Job::Predict(model, config) => run_predict(comm, model, config, &printer),
        Job::Evaluate(model, inputs, rows, (repeats, seed)) => {
            let model = load_model(comm, model)?;
            let inputs = Inputs { names: resolve::names_for(&model, &inputs.names), ..inputs.clone() };
            printer.evaluation(&model, &evaluate(comm, &model, &inputs, rows.clone())?);
            if *repeats > 0 {
                printer.permutation(&permutation(comm, &model, &inputs, rows.clone(), *repeats, *seed)?);
            }
            Ok(0)
        }
        Job::Inspect(flags) => on_root(comm, || {
            files::expand(&flags.files)?.iter().try_for_each(|path| inspect(path, flags.tree, &printer))
        }),
        Job::Verify(model, files, reading, flags) => {
            run_verify(comm, model, files, reading, flags.group.as_deref(), &printer)
        }
        Job::Doctor(folder, data) => {
            printer.diagnosis(&doctor::diagnose(comm, *folder, data)?);
            Ok(0)
        }
        Job::Convert(inputs, out, options) => {
            on_root(comm, || store::check_output(out, true))?; // what may be replaced is looked at there
            let done =
                with_progress(json || !comm.is_root(), |watch| convert::convert(comm, inputs, out, options, watch))?;
            done.iter().for_each(|done| printer.converted(done, out));
            Ok(0)
        }
        Job::Repack(input, out, options) => {
            on_root(comm, || store::check_output(out, true))?;
            let done =
                with_progress(json || !comm.is_root(), |watch| convert::repack(comm, input, out, options, watch))?;
            done.iter().for_each(|done| printer.repacked(done, out));
            Ok(0)
        }
        Job::Export(flags) => on_root(comm, || export(flags, &printer)),
        Job::Import(flags) => on_root(comm, || import(flags, &printer)),
        Job::Slurm(job) => {
            begin(comm, &job.train).and_then(|(train, _, _)| {
                train::linear_family::open_for(comm, &train.inputs, Need::Train, &train.config)
            })?;
            on_root(comm, || slurm::write(job, &printer))
        }
    }
}

/// Work that one rank does while the others wait. Collective.
fn on_root(comm: &Communicator, work: impl FnOnce() -> Result<()>) -> Result<i32> {
    comm.agree(if comm.is_root() { work() } else { Ok(()) })?;
    Ok(0)
}

/// What a training is, once the models it goes on from are known, before any row is read: what the words or the files have wrong
/// is said here. The model, and the table of `--valid`. Collective.
fn begin(comm: &Communicator, job: &TrainJob) -> Result<(TrainJob, Option<Model>, Option<Inputs>)> {
    on_root(comm, || store::check_output(&job.output, job.force))?;
    let from =
        job.continued.as_ref().map(|from| load_model(comm, &from.model).map(|model| (from, model))).transpose()?;
    let job = &match &from {
        Some((from, model)) => resolve::going_on(job, from, model).in_file(&from.model)?,
        None => job.clone(),
    };
    let from = from.map(|(_, model)| model);
    let (job, from) = match job.models.as_slice() {
        [] => (job.clone(), from),
        models => {
            let loaded = models.iter().map(|path| Ok((members::name_of(path), load_model(comm, path)?)));
            let voters = train::ensemble::of_models(loaded.collect::<Result<Vec<_>>>()?)?;
            let names = resolve::names_for(&voters, &job.inputs.names);
            let inputs = Inputs { names, ..job.inputs.clone() };
            (TrainJob { inputs, ..job.clone() }, Some(voters))
        }
    };
    let valid = (!job.valid.is_empty()).then(|| Inputs { paths: job.valid.clone(), rows: None, ..job.inputs.clone() });
    if let Some(valid) = &valid {
        // What cannot be measured in the end is said before the work.
        train::linear_family::open_for(comm, valid, Need::Evaluate, &job.config)?;
    }
    Ok((job, from, valid))
}

fn run_train(comm: &Communicator, job: &TrainJob, printer: &Printer) -> Result<i32> {
    let (job, from, valid) = begin(comm, job)?;
    let (job, from) = (&job, from.as_ref());
    let threads = rayon::current_num_threads();
    let start = printer.train_start(job, comm.size(), threads);
    let mut reporter = Reporter::new(printer.speaks, printer.json).holding(start);
    let (keeper, _claimed) = match &job.checkpoint {
        Some(config) => begin_keeping(comm, config, job)?,
        None => (Keeper::default(), None),
    };
    let mut watch = Keeping { observer: &mut reporter, keeper };
    let trained = train::train_from(comm, &job.inputs, &job.config, from, &mut watch);
    reporter.finish();
    let (model, report) = trained?;
    let valid = match &valid {
        Some(valid) => Some(evaluate(comm, &model, valid, None)?.metrics),
        None => (job.config.valid_fraction > 0.0).then(|| report.valid.clone()),
    };
    let began = Instant::now();
    on_root(comm, || store::save(&job.output, &store::model::to_file(&model, &job.inputs)?, job.force))?;
    let write_s = began.elapsed().as_secs_f64();
    let mut peak = [doctor::peak_memory_bytes() as i64];
    comm.all_reduce_max(&mut peak)?;
    let costs = TrainCosts { ranks: comm.size(), threads, write_s, peak_memory_bytes: peak[0] as u64 };
    printer.train_done(&model, &report, valid.as_ref(), &costs, &job.output);
    Ok(0)
}

/// Where state is kept, and the right to do so. Collective.
fn begin_keeping(comm: &Communicator, config: &CheckpointConfig, job: &TrainJob) -> Result<(Keeper, Option<File>)> {
    let keeper = Keeper::new(config.clone(), &(&job.config, &job.inputs.names, &job.models))?;
    // What cannot be written is said before the work, not at the first checkpoint. A new name each time: no node remembers it as missing.
    let mut of_root = [std::process::id()];
    comm.broadcast(&mut of_root, 0)?;
    let probe = config.folder.join(format!(".probe-{}", of_root[0]));
    let written = || {
        std::fs::create_dir_all(&config.folder)
            .map_err(|e| Error::usage(format!("the folder cannot be made: {e}")))
            .and_then(|()| {
                let written = std::fs::write(&probe, [0; 1 << 16]);
                written.map_err(|e| {
                    let why = format!("checkpoints cannot be written there: {e}");
                    match e.kind() {
                        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::data(why),
                        _ => Error::usage(why),
                    }
                })
            })
    };
    let written = comm.agree(if comm.is_root() { written() } else { Ok(()) });
    let seen = comm.agree(written.and_then(|()| match probe.exists() {
        true => Ok(()),
        false => Err(Error::usage(format!(
            "node {} does not see what rank 0 writes there; name a folder on a file system that all nodes share",
            comm.node_name()
        ))),
    }));
    if comm.is_root() {
        let _ = std::fs::remove_file(&probe); // what was not written may not be there
    }
    seen.in_file(&config.folder).for_flag("--checkpoint")?;
    let claim = || {
        keeper.check_resume()?;
        keeper.claim(&(&job.inputs.paths, &job.inputs.rows)).for_flag("--checkpoint")
    };
    Ok((keeper.clone(), comm.agree(if comm.is_root() { claim() } else { Ok(None) })?))
}

/// A run that has ended, well or not, is not to be started again by a batch script; unless it was interrupted or lost a peer. Not
/// collective.
fn unmark(comm: &Communicator, job: &Job<'_>, error: Option<&Error>) {
    let Job::Train(job) = job else { return };
    let Some(config) = &job.checkpoint else { return };
    if !matches!(error.map(Error::kind), Some(ErrorKind::Interrupted | ErrorKind::Comm)) {
        // The first rank that leaves makes launchers end the others.
        guard::stop::over();
        if comm.is_root() {
            let _ = std::fs::remove_file(marker_of(&config.folder)); // that it is not there is fine
        }
    }
}

fn run_predict(comm: &Communicator, model: &Path, config: &predict::PredictConfig, printer: &Printer) -> Result<i32> {
    on_root(comm, || store::check_output(&config.output, config.force))?;
    let model = load_model(comm, model)?;
    let names = resolve::names_for(&model, &config.inputs.names);
    let config = predict::PredictConfig { inputs: Inputs { names, ..config.inputs.clone() }, ..config.clone() };
    printer.predicted(&predict::predict(comm, &model, &config)?, &config.output);
    Ok(0)
}

fn export(flags: &ExportFlags, printer: &Printer) -> Result<()> {
    let file = store::load(&flags.model)?;
    let text =
        store::model::from_file(&file).and_then(|model| store::lightgbm::to_text(&model)).in_file(&flags.model)?;
    store::save_text(&flags.output, &text, flags.force)?;
    printer.written("export", &flags.output, &file.digest);
    Ok(())
}

fn import(flags: &ImportFlags, printer: &Printer) -> Result<()> {
    let text = std::fs::read_to_string(&flags.input).map_err(|e| Error::data(format!("cannot be read: {e}")));
    let mut model = text.and_then(|text| store::lightgbm::from_text(&text)).in_file(&flags.input)?;
    model.digest = train::linear_family::digest(&model)?;
    store::save(&flags.output, &store::model::to_file(&model, &Inputs::default())?, flags.force)?;
    printer.written("import", &flags.output, &model.digest);
    Ok(())
}

fn inspect(path: &Path, tree: Option<usize>, printer: &Printer) -> Result<()> {
    store::check_seal(path)?;
    // What is not HDF5, or not there, is described (that is, refused) as data.
    if store::format_of(path).unwrap_or(None).as_deref() == Some(store::MODEL_FORMAT) {
        let file = store::load(path)?;
        let model = store::model::from_file(&file).in_file(path)?;
        match tree {
            Some(tree) => printer.tree(&model, tree).in_file(path)?,
            None => printer.model(path, &file, &model),
        }
    } else if tree.is_some() {
        return Err(Error::usage("--tree: is no model")).in_file(path);
    } else {
        printer.description(&describe::describe(path)?);
    }
    Ok(())
}

fn run_verify(
    comm: &Communicator,
    path: &Path,
    files: &[PathBuf],
    reading: &Reading,
    group: Option<&str>,
    printer: &Printer,
) -> Result<i32> {
    nodes::agree_on_files(comm, &[path.to_path_buf()])?;
    let loaded = store::load(path).and_then(|file| {
        let model = store::model::from_file(&file).in_file(path)?;
        let inputs = store::model::inputs_of(&file, &model);
        Ok((model, inputs))
    });
    let (model, mut inputs) = comm.agree(loaded)?;
    inputs.reading = reading.clone();
    if !files.is_empty() {
        inputs.paths = files.to_vec();
    }
    if let Some(group) = group {
        inputs.names.group = Some(group.to_string());
    }
    if inputs.paths.is_empty() {
        return Err(Error::usage("names no files it was trained on; name them: verify MODEL DATA…")).in_file(path);
    }
    let done = verify::verify(comm, &model, &inputs, |shape| printer.shape(shape))?;
    printer.verified(&done);
    if done.holds() {
        return Ok(0);
    }
    let why = if done.same_inputs {
        "the same inputs gave another digest; was it trained by another version or on another kind of processor?"
    } else {
        "the inputs hold other values than those the model was trained on"
    };
    Err(Error::data(why)).in_file(path)
}
