//! # predict — a model and a table to a file of predictions
//!
//! In:    a [`Model`], input files, which rows.
//! Out:   one HDF5 file: `prediction`, `probability`, `score` or `variance`, `row`, `contribution`, `leaf`, and copied columns.
//! Talks: to agree on failures and on the place of the datasets; each rank writes its own rows.
//! Never: flags, training.
//!
//! Rows are dealt in blocks as for training, and a row's numbers depend on nothing but the row: the file has the same
//! bytes for any number of ranks.

use crate::comm::Communicator;
use crate::data::hdf5::{Hdf5Source, Whole};
use crate::data::names::{Need, TableNames};
use crate::data::{Block, ColumnKind, DataSource, Values};
use crate::error::{Error, InContext, Result};
use crate::metric::classification::most_probable;
use crate::model::shap::MOST_DEPTH;
use crate::model::{Scores, TargetCoding, Tree};
use crate::nodes::agree_on_files;
use crate::store::Cell;
use crate::store::predictions::{self, Layout, Offsets, RowDataset, RowWriter};
use crate::train::linear_family::open;
use crate::train::score::{Link, Scorer, for_each_batch, rows_of_rank, table_name};
use crate::train::{Inputs, Kind, Model, memory};
use rayon::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rows that one task links.
const TASK_ROWS: usize = 4096;

/// What to predict and where to.
#[derive(Clone, Debug)]
pub struct PredictConfig {
    pub inputs: Inputs,
    pub output: PathBuf,
    /// None: all.
    pub rows: Option<Range<u64>>,
    /// Datasets to carry over, relative to the group.
    pub copy: Vec<String>,
    /// Also what each feature adds to the scores.
    pub contributions: bool,
    /// Also the leaf of each tree.
    pub leaves: bool,
    /// The table is the one that the forest was trained on, and each row is predicted by the trees that did not draw it.
    pub out_of_bag: bool,
    /// Replace an output that Consort did not write.
    pub force: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PredictReport {
    pub rows: u64,
    /// Names of the datasets in the file.
    pub datasets: Vec<String>,
    /// Seconds of working out scores of the rows here, once they were read.
    pub score_s: f64,
}

/// Predicts every wanted row and writes the file. Collective.
pub fn predict(comm: &Communicator, model: &Model, config: &PredictConfig) -> Result<PredictReport> {
    let mut source = open(comm, &config.inputs, Need::Predict)?;
    let name = table_name(&config.inputs.paths);
    let scorer = match config.out_of_bag {
        true => Scorer::out_of_bag(model, &source, config.rows.as_ref(), &name)?,
        false => Scorer::new(model, &source, &name)?,
    };
    check_details(model, config)?;
    let blocks = rows_of_rank(comm, &source, config.rows.clone())?;
    let rows = config.rows.clone().unwrap_or(0..source.schema().n_rows);
    let copied = Copied::open_all(comm, config, source.names(), source.schema().n_rows)?;
    let limit = config.inputs.reading.max_memory;
    if let Some(bytes) = limit {
        source.limit_memory(memory::of_source(bytes));
    }
    let mut copied = measure_text(comm, copied, &blocks, limit)?;

    let layout = layout_of(model, config, &copied, rows.end - rows.start);
    let path = config.output.as_path();
    let made = if comm.is_root() { predictions::create(path, &layout, config.force) } else { Ok(Offsets::default()) };
    let mut words = comm.agree(made)?.to_words();
    comm.broadcast_vec(&mut words, 0)?;
    let offsets = comm.agree(Offsets::from_words(&words))?;

    // Scores, each class's share as numbers and as bytes, the prediction, the row, and what is carried over.
    let values_of = |copy: &Copied| if let Cell::Text(width) = copy.cell { 6 + width as u64 / 4 } else { 3 };
    let details = u64::from(config.contributions) * 2 * contribution_shape(model).iter().product::<usize>() as u64
        + u64::from(config.leaves) * model.scores.n_trees() as u64;
    let details = details + 2 * u64::from(model.scores.has_variance());
    let made = 6 + details + 3 * model.target.n_classes().max(1) as u64 + copied.iter().map(values_of).sum::<u64>();
    let mut score_s = 0.0;
    let mut write = |copied: &mut [Copied]| -> Result<()> {
        let writer = RowWriter::open(path, &offsets)?;
        for_each_batch(&mut source, &blocks, limit, made, |batch| {
            let at = batch.first_row - rows.start;
            let began = Instant::now();
            let (scores, variances) = scorer.scores_and_variances(batch).in_file(&name)?;
            score_s += began.elapsed().as_secs_f64();
            let mut columns = columns_of(model, batch.first_row, &scores)?;
            if model.scores.has_variance() {
                columns.insert(1, predictions::bytes_of_f64(&variances));
            }
            if config.contributions {
                columns.push(predictions::bytes_of_f64(&scorer.contributions(batch).in_file(&name)?));
            }
            if config.leaves {
                columns.push(predictions::bytes_of_u32(&scorer.leaves(batch).in_file(&name)?));
            }
            for copy in copied.iter_mut() {
                columns.push(copy.bytes(batch.first_row..batch.first_row + batch.n_rows as u64)?);
            }
            columns.iter().enumerate().try_for_each(|(dataset, bytes)| writer.write(dataset, at, bytes))
        })?;
        writer.finish()
    };
    let written = comm.agree(write(&mut copied));
    let committed = match (&written, comm.is_root()) {
        (_, false) => Ok(()),
        (Ok(()), true) => predictions::commit(path, &offsets),
        (Err(_), true) => {
            predictions::discard(path, &offsets);
            Ok(())
        }
    };
    written?;
    comm.agree(committed)?;
    let datasets = layout.datasets.into_iter().map(|d| d.name).collect();
    Ok(PredictReport { rows: layout.n_rows, datasets, score_s })
}

/// What this model cannot say. Not collective; the same on every rank.
fn check_details(model: &Model, config: &PredictConfig) -> Result<()> {
    let name = model.config.kind.name();
    match &model.scores {
        Scores::Ensemble(_) if config.leaves || config.contributions => {
            let flag = if config.leaves { "--leaves" } else { "--contributions" };
            Err(Error::usage(format!(
                "{flag}: '{name}' is a model of several; ask for those of a member trained by itself"
            )))
        }
        Scores::Calibrated(_) if config.contributions => Err(Error::usage(
            "--contributions: they add up to a score, and a calibrated model predicts probabilities; train it without --calibrate",
        )),
        Scores::Calibrated(of) => check_details(&of.model, config),
        Scores::Linear(_) if config.leaves => {
            Err(Error::usage(format!("--leaves: a '{}' model has no trees", model.config.kind.name())))
        }
        Scores::Mlp(_) if config.leaves || config.contributions => {
            let flag = if config.leaves { "--leaves" } else { "--contributions" };
            Err(Error::usage(format!("{flag}: a network has no trees, and no parts of a score; leave it out")))
        }
        Scores::Forest(_) if config.contributions => Err(Error::usage(
            "--contributions: they are worked out for boosted trees and linear models, not for a forest",
        )),
        Scores::Linear(_) if config.leaves => Err(Error::usage(format!("--leaves: a '{name}' model has no trees"))),
        Scores::Boosted(boosted) if config.contributions => match boosted.trees.iter().map(Tree::depth).max() {
            Some(depth) if depth > MOST_DEPTH => Err(Error::usage(format!(
                "--contributions: a tree has a path of {depth} splits, and at most {MOST_DEPTH} are worked out"
            ))),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Of a row: features and the rest, of each score if there are several.
fn contribution_shape(model: &Model) -> Vec<usize> {
    let width = model.scores.n_features() + 1;
    match model.scores.n_scores() {
        1 => vec![width],
        k => vec![k, width],
    }
}

/// The datasets of the file, in the order of [`columns_of`], then the copied ones.
fn layout_of(model: &Model, config: &PredictConfig, copied: &[Copied], n_rows: u64) -> Layout {
    let n_classes = model.target.n_classes();
    let cell = match &model.target {
        TargetCoding::Number | TargetCoding::Numbers(_) => Cell::F64,
        TargetCoding::Integers(_) => Cell::I64,
        TargetCoding::Strings(classes) => Cell::Text(text_width(classes)),
    };
    let mut datasets = vec![match model.target.n_targets() {
        1 => RowDataset::column("prediction", cell),
        n_targets => RowDataset::matrix("prediction", cell, n_targets),
    }];
    match model.responds_as() {
        Kind::Logistic => datasets.push(RowDataset::matrix("probability", Cell::F64, n_classes)),
        Kind::Svm => datasets.push(RowDataset::matrix("score", Cell::F64, model.scores.n_scores())),
        _ if model.scores.has_variance() => datasets.push(RowDataset::column("variance", Cell::F64)),
        _ => {}
    }
    datasets.push(RowDataset::column("row", Cell::U64));
    if config.contributions {
        datasets.push(RowDataset::array("contribution", Cell::F64, &contribution_shape(model)));
    }
    if config.leaves {
        datasets.push(RowDataset::matrix("leaf", Cell::U32, model.scores.n_trees()));
    }
    datasets.extend(copied.iter().map(|copy| RowDataset::column(copy.name.clone(), copy.cell)));
    let mut strings = if n_classes == 0 { vec![] } else { vec![("classes".to_string(), model.target.names())] };
    if let TargetCoding::Numbers(names) = &model.target {
        strings.push(("targets".to_string(), names.clone()));
    }
    if config.contributions {
        strings.push(("contribution_features".to_string(), model.preprocess.feature_names()));
    }
    let attributes = vec![
        ("digest".to_string(), model.digest.clone()),
        ("kind".to_string(), model.config.kind.name().to_string()),
        ("program_version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
    ];
    Layout { n_rows, datasets, strings, attributes }
}

fn text_width(texts: &[String]) -> usize {
    texts.iter().map(String::len).max().unwrap_or(0).max(1)
}

/// Bytes of these rows for each dataset that the model makes.
fn columns_of(model: &Model, first_row: u64, scores: &[f64]) -> Result<Vec<Vec<u8>>> {
    let n_classes = model.target.n_classes();
    let link = Link::of(model);
    let k = link.n_scores();
    let n_rows = scores.len() / k;
    let row_numbers: Vec<u64> = (first_row..first_row + n_rows as u64).collect();
    let row_numbers = predictions::bytes_of_u64(&row_numbers);
    if n_classes == 0 {
        let numbers: Vec<f64> = scores.par_iter().with_min_len(TASK_ROWS).map(|score| link.number(*score)).collect();
        return Ok(vec![predictions::bytes_of_f64(&numbers), row_numbers]);
    }
    let mut shares = vec![0.0; n_rows * n_classes];
    let rows = shares.par_chunks_mut(n_classes).zip(scores.par_chunks(k)).with_min_len(TASK_ROWS);
    rows.for_each(|(shares, scores)| link.shares(scores, shares));
    let predicted = shares.chunks_exact(n_classes).map(most_probable);
    let predicted = match &model.target {
        TargetCoding::Strings(classes) => {
            let texts: Vec<&String> = predicted.map(|class| &classes[class]).collect();
            predictions::bytes_of_text(&texts, text_width(classes))?
        }
        TargetCoding::Integers(classes) => {
            predictions::bytes_of_i64(&predicted.map(|class| classes[class]).collect::<Vec<_>>())
        }
        TargetCoding::Number | TargetCoding::Numbers(_) => Vec::new(),
    };
    let detail = predictions::bytes_of_f64(if model.responds_as() == Kind::Svm { scores } else { &shares });
    Ok(vec![predicted, detail, row_numbers])
}

/// One dataset that is carried over.
struct Copied {
    name: String,
    cell: Cell,
    source: Hdf5Source,
    block: Block,
}

impl Copied {
    /// Collective.
    fn open_all(comm: &Communicator, config: &PredictConfig, names: &TableNames, n_rows: u64) -> Result<Vec<Copied>> {
        config.copy.iter().map(|name| Copied::open(comm, config, names, name, n_rows).for_flag("--copy")).collect()
    }

    fn open(
        comm: &Communicator,
        config: &PredictConfig,
        names: &TableNames,
        name: &str,
        n_rows: u64,
    ) -> Result<Copied> {
        let wanted = TableNames {
            features: vec![name.to_string()],
            group: config.inputs.names.group.clone().or_else(|| names.group.clone()),
            transpose: names.transpose,
            ..TableNames::default()
        };
        let source = open(comm, &Inputs { names: wanted, ..config.inputs.clone() }, Need::Predict)?;
        let table = table_name(&config.inputs.paths);
        let [column] = source.schema().columns.as_slice() else {
            let message =
                format!("has {} columns; one number or string a row is wanted", source.schema().columns.len());
            return Err(Error::usage(message)).in_dataset(name).in_file(table);
        };
        if source.schema().n_rows != n_rows {
            let message = format!("has {} rows but the features have {n_rows}", source.schema().n_rows);
            return Err(Error::data(message)).in_dataset(name).in_file(table);
        }
        let cell = match column.kind {
            ColumnKind::Text => Cell::Text(1),
            kind => match (source.first_whole(), kind) {
                (Some(Whole::I64), _) => Cell::I64,
                (Some(Whole::U64), _) => Cell::U64,
                (None, ColumnKind::Narrow) => Cell::F32,
                (None, _) => Cell::F64,
            },
        };
        Ok(Copied { name: name.trim_matches('/').to_string(), cell, source, block: Block::empty() })
    }

    fn bytes(&mut self, rows: Range<u64>) -> Result<Vec<u8>> {
        match self.cell {
            Cell::I64 => return Ok(predictions::bytes_of_i64(&self.source.read_whole(rows)?)),
            Cell::U64 => return Ok(predictions::bytes_of_u64(&self.source.read_whole(rows)?)),
            _ => self.source.read(rows, &mut self.block)?,
        }
        match (self.cell, &self.block.values) {
            (Cell::Text(width), _) => predictions::bytes_of_text(&self.block.text[0], width),
            (_, Values::F32(values)) => Ok(predictions::bytes_of_f32(values)),
            (_, Values::F64(values)) => Ok(predictions::bytes_of_f64(values)),
            (_, Values::Sparse(_)) => Err(Error::usage(format!("'{}' is a sparse matrix, not a column", self.name))),
        }
    }
}

/// Gives copied text columns the width of their longest string. Collective.
fn measure_text(
    comm: &Communicator,
    mut copied: Vec<Copied>,
    blocks: &[Range<u64>],
    limit: Option<u64>,
) -> Result<Vec<Copied>> {
    let local = copied.iter_mut().map(|copy| -> Result<i64> {
        let mut width = 1;
        if let Cell::Text(_) = copy.cell {
            for_each_batch(&mut copy.source, blocks, limit, 0, |batch| {
                width = width.max(text_width(&batch.text[0]));
                Ok(())
            })?;
        }
        Ok(width as i64)
    });
    let mut widths: Vec<i64> = comm.agree(local.collect())?;
    comm.all_reduce_max(&mut widths)?;
    for (copy, width) in copied.iter_mut().zip(widths) {
        if let Cell::Text(_) = copy.cell {
            copy.cell = Cell::Text(width as usize);
        }
    }
    Ok(copied)
}

/// Reads the model on every rank. Collective.
///
/// # Errors
/// `Data`: it is no model, or nodes have different ones under this name.
pub fn load_model(comm: &Communicator, path: &Path) -> Result<Model> {
    agree_on_files(comm, &[path.to_path_buf()])?;
    let loaded = crate::store::load(path).and_then(|file| crate::store::model::from_file(&file).in_file(path));
    comm.agree(loaded)
}
