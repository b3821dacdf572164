//! # predict — a model and a table to a file of predictions
//!
//! In:    a [`Model`], input files, which rows.
//! Out:   one HDF5 file: `prediction`, `probability` or `score`, `row`, and copied columns.
//! Talks: to agree on failures and on the place of the datasets; each rank writes its own rows.
//! Never: flags, training.
//!
//! Rows are dealt in blocks as for training, and a row's numbers depend on nothing but the row: the file has the same
//! bytes for any number of ranks.

use crate::comm::Communicator;
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::partition::{Partition, RowPlan};
use crate::data::{Block, ColumnKind, DataSource, Schema, Values};
use crate::error::{Error, InContext, Result};
use crate::metric::classification::most_probable;
use crate::model::TargetCoding;
use crate::model::preprocess::standardised;
use crate::objective::Objective;
use crate::store::Cell;
use crate::store::predictions::{self, Layout, Offsets, RowDataset, RowWriter};
use crate::train::linear_family::open;
use crate::train::prepare::objective;
use crate::train::{Inputs, Kind, Model};
use rayon::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Values read at a time: whole blocks, at least one.
const BATCH_VALUES: u64 = 4 << 20;
/// Rows that one task scores.
const TASK_ROWS: usize = 512;

/// From scores to what people want to know.
pub struct Link {
    pub kind: Kind,
    /// 0 for numbers.
    pub n_classes: usize,
    objective: Box<dyn Objective>,
}

impl Link {
    pub fn new(kind: Kind, n_classes: usize) -> Link {
        Link { kind, n_classes, objective: objective(kind, n_classes) }
    }

    pub fn n_scores(&self) -> usize {
        self.objective.n_scores()
    }

    /// A number's prediction.
    pub fn number(&self, score: f64) -> f64 {
        let mut score = [score];
        self.objective.to_prediction(&mut score);
        score[0]
    }

    /// Each class's share of one row, (n_classes): its probability, or for `svm`, which has none, 1 for the class
    /// of the largest score.
    pub fn shares(&self, scores: &[f64], shares: &mut [f64]) {
        match (self.kind, scores) {
            (Kind::Svm, scores) => {
                shares.fill(0.0);
                shares[self.largest(scores)] = 1.0;
            }
            (_, [score]) => {
                shares[1] = self.number(*score);
                shares[0] = 1.0 - shares[1];
            }
            (_, scores) => {
                shares.copy_from_slice(scores);
                self.objective.to_prediction(shares);
            }
        }
    }

    /// The class of the largest score, the lower one on a tie.
    fn largest(&self, scores: &[f64]) -> usize {
        if let [score] = scores { usize::from(*score > 0.0) } else { most_probable(scores) }
    }
}

/// Scores rows of a table as its model wants them.
pub struct Scorer<'m> {
    model: &'m Model,
}

impl<'m> Scorer<'m> {
    /// Checks that the table has the model's columns. `table`: its name for messages. Not collective; all ranks alike.
    pub fn new(model: &'m Model, source: &dyn DataSource, table: &str) -> Result<Scorer<'m>> {
        check_columns(model, source.schema()).in_file(table)?;
        Ok(Scorer { model })
    }

    /// (rows, n_scores), offset included. Not collective; rayon over rows, each on its own.
    pub fn scores(&self, block: &Block) -> Result<Vec<f64>> {
        let (preprocess, linear) = (&self.model.preprocess, &self.model.linear);
        let (d, k) = (linear.n_features, linear.n_scores);
        let mut scores = vec![0.0; block.n_rows * k];
        let score = |(task, scores): (usize, &mut [f64])| -> Result<()> {
            let first = task * TASK_ROWS;
            let n_rows = scores.len() / k;
            let (mut encoded, mut rows) = (vec![0.0; d], Vec::with_capacity(n_rows * d));
            for i in first..first + n_rows {
                preprocess.encode_row(block, i, &mut encoded)?;
                let moments = preprocess.mean.iter().zip(&preprocess.inverse_scale);
                rows.extend(encoded.iter().zip(moments).map(|(x, (mean, scale))| standardised(*x, *mean, *scale)));
            }
            linear.scores(&rows, scores);
            if let Some(offset) = &block.offset {
                for (scores, offset) in scores.chunks_exact_mut(k).zip(&offset[first..]) {
                    scores.iter_mut().for_each(|score| *score += offset);
                }
            }
            Ok(())
        };
        let scored: Vec<Result<()>> = scores.par_chunks_mut(TASK_ROWS * k).enumerate().map(score).collect();
        scored.into_iter().collect::<Result<()>>()?;
        Ok(scores)
    }
}

/// Do the table's columns fit the model's?
fn check_columns(model: &Model, schema: &Schema) -> Result<()> {
    let (wanted, found) = (&model.preprocess.columns, &schema.columns);
    let missing = wanted.iter().find(|w| !found.iter().any(|f| f.name == w.name));
    if wanted.len() != found.len() {
        let first = match missing {
            Some(column) => format!("first missing: '{}'", column.name),
            None => {
                let extra = found.iter().find(|f| !wanted.iter().any(|w| f.name == w.name));
                format!("first that it does not know: '{}'", extra.map_or("?", |column| &column.name))
            }
        };
        return Err(Error::data(format!(
            "the features have {} columns but the model was trained on {} ({first}); choose columns with --features",
            found.len(),
            wanted.len()
        )));
    }
    for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
        if wanted.name != found.name && !(is_numbered(&wanted.name) && is_numbered(&found.name)) {
            return Err(Error::data(format!(
                "column {i} of the features is '{}' but the model was trained on '{}' there; choose columns with \
                 --features, in the model's order",
                found.name, wanted.name
            )));
        }
        let is_text = |kind: ColumnKind| kind == ColumnKind::Text;
        if is_text(wanted.kind) != is_text(found.kind) {
            let word = |kind| if is_text(kind) { "strings" } else { "numbers" };
            return Err(Error::data(format!(
                "column '{}' holds {} but the model was trained on {}",
                found.name,
                word(found.kind),
                word(wanted.kind)
            )));
        }
    }
    Ok(())
}

/// `X[3]`: a column that is known by its place only.
fn is_numbered(name: &str) -> bool {
    let inside = name.rsplit_once('[').and_then(|(_, tail)| tail.strip_suffix(']'));
    inside.is_some_and(|tail| !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit() || b == b','))
}

/// The name of a table for messages: its file, or the first of them.
pub fn table_name(paths: &[PathBuf]) -> String {
    match paths {
        [] => String::new(),
        [path] => path.display().to_string(),
        [path, rest @ ..] => format!("{} (and {} more)", path.display(), rest.len()),
    }
}

/// This rank's blocks of the wanted rows, in row order. Not collective; all ranks fail alike.
pub fn rows_of_rank(comm: &Communicator, source: &Hdf5Source, rows: Option<Range<u64>>) -> Result<Vec<Range<u64>>> {
    let schema = source.schema();
    let rows = rows.unwrap_or(0..schema.n_rows);
    if rows.is_empty() || rows.end > schema.n_rows {
        let message = format!("--rows {}..{}: the table has rows 0..{}", rows.start, rows.end, schema.n_rows);
        return Err(Error::usage(message));
    }
    let plan = RowPlan::full_batch(rows.end - rows.start, schema.columns.len());
    let units = Partition::new(plan.n_units(), comm.size()).units_of(comm.rank());
    let shifted = |block: Range<u64>| block.start + rows.start..block.end + rows.start;
    Ok(plan.blocks(units).into_iter().map(shifted).collect())
}

/// Reads these blocks in runs and shows each run. Not collective.
pub fn for_each_batch(
    source: &mut Hdf5Source,
    blocks: &[Range<u64>],
    mut visit: impl FnMut(&Block) -> Result<()>,
) -> Result<()> {
    let n_columns = source.schema().columns.len().max(1) as u64;
    let mut batch = Block::empty();
    let mut at = 0;
    while at < blocks.len() {
        let first = blocks[at].start;
        at += 1;
        while at < blocks.len() && (blocks[at].end - first) * n_columns <= BATCH_VALUES {
            at += 1;
        }
        source.read(first..blocks[at - 1].end, &mut batch)?;
        visit(&batch)?;
    }
    Ok(())
}

/// What to predict and where to.
#[derive(Clone, Debug)]
pub struct PredictConfig {
    pub inputs: Inputs,
    pub output: PathBuf,
    /// None: all.
    pub rows: Option<Range<u64>>,
    /// Datasets to carry over, relative to the group.
    pub copy: Vec<String>,
    /// Replace an output that Consort did not write.
    pub force: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PredictReport {
    pub rows: u64,
    /// Names of the datasets in the file.
    pub datasets: Vec<String>,
}

/// Predicts every wanted row and writes the file. Collective.
pub fn predict(comm: &Communicator, model: &Model, config: &PredictConfig) -> Result<PredictReport> {
    let mut source = open(comm, &config.inputs, Need::Predict)?;
    let name = table_name(&config.inputs.paths);
    let scorer = Scorer::new(model, &source, &name)?;
    let blocks = rows_of_rank(comm, &source, config.rows.clone())?;
    let rows = config.rows.clone().unwrap_or(0..source.schema().n_rows);
    let copied = comm.agree(Copied::open_all(config, source.names(), source.schema().n_rows))?;
    let mut copied = measure_text(comm, copied, &blocks)?;

    let layout = layout_of(model, &copied, rows.end - rows.start);
    let path = config.output.as_path();
    let made = if comm.is_root() { predictions::create(path, &layout, config.force) } else { Ok(Offsets::default()) };
    let mut words = comm.agree(made)?.to_words();
    comm.broadcast_vec(&mut words, 0)?;
    let offsets = comm.agree(Offsets::from_words(&words))?;

    let mut write = |copied: &mut [Copied]| -> Result<()> {
        let writer = RowWriter::open(path, &offsets)?;
        for_each_batch(&mut source, &blocks, |batch| {
            let at = batch.first_row - rows.start;
            let scores = scorer.scores(batch).in_file(&name)?;
            let mut columns = columns_of(model, batch.first_row, &scores)?;
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
    Ok(PredictReport { rows: layout.n_rows, datasets: layout.datasets.into_iter().map(|d| d.name).collect() })
}

/// The datasets of the file, in the order of [`columns_of`], then the copied ones.
fn layout_of(model: &Model, copied: &[Copied], n_rows: u64) -> Layout {
    let n_classes = model.target.n_classes();
    let cell = match &model.target {
        TargetCoding::Number => Cell::F64,
        TargetCoding::Integers(_) => Cell::I64,
        TargetCoding::Strings(classes) => Cell::Text(text_width(classes)),
    };
    let mut datasets = vec![RowDataset::column("prediction", cell)];
    match model.config.kind {
        Kind::Logistic => datasets.push(RowDataset::matrix("probability", Cell::F64, n_classes)),
        Kind::Svm => datasets.push(RowDataset::matrix("score", Cell::F64, model.linear.n_scores)),
        Kind::Linear | Kind::Poisson => {}
    }
    datasets.push(RowDataset::column("row", Cell::U64));
    datasets.extend(copied.iter().map(|copy| RowDataset::column(copy.name.clone(), copy.cell)));
    let strings = if n_classes == 0 { vec![] } else { vec![("classes".to_string(), model.target.names())] };
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
    let link = Link::new(model.config.kind, n_classes);
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
        TargetCoding::Number => Vec::new(),
    };
    let detail = predictions::bytes_of_f64(if model.config.kind == Kind::Svm { scores } else { &shares });
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
    fn open_all(config: &PredictConfig, names: &TableNames, n_rows: u64) -> Result<Vec<Copied>> {
        config.copy.iter().map(|name| Copied::open(config, names, name, n_rows).for_flag("--copy")).collect()
    }

    fn open(config: &PredictConfig, names: &TableNames, name: &str, n_rows: u64) -> Result<Copied> {
        let wanted = TableNames {
            features: vec![name.to_string()],
            group: config.inputs.names.group.clone().or_else(|| names.group.clone()),
            ..TableNames::default()
        };
        let source = Hdf5Source::open(&config.inputs.paths, &wanted, Need::Predict)?;
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
            ColumnKind::Narrow => Cell::F32,
            ColumnKind::Wide => Cell::F64,
            ColumnKind::Text => Cell::Text(1),
        };
        Ok(Copied { name: name.trim_matches('/').to_string(), cell, source, block: Block::empty() })
    }

    fn bytes(&mut self, rows: Range<u64>) -> Result<Vec<u8>> {
        self.source.read(rows, &mut self.block)?;
        match (self.cell, &self.block.values) {
            (Cell::Text(width), _) => predictions::bytes_of_text(&self.block.text[0], width),
            (_, Values::F32(values)) => Ok(predictions::bytes_of_f32(values)),
            (_, Values::F64(values)) => Ok(predictions::bytes_of_f64(values)),
        }
    }
}

/// Gives copied text columns the width of their longest string. Collective.
fn measure_text(comm: &Communicator, mut copied: Vec<Copied>, blocks: &[Range<u64>]) -> Result<Vec<Copied>> {
    let local = copied.iter_mut().map(|copy| -> Result<i64> {
        let mut width = 1;
        if let Cell::Text(_) = copy.cell {
            for_each_batch(&mut copy.source, blocks, |batch| {
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
pub fn load_model(comm: &Communicator, path: &Path) -> Result<Model> {
    let loaded = crate::store::load(path).and_then(|file| crate::store::model::from_file(&file).in_file(path));
    comm.agree(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_known_by_place() {
        for (name, numbered) in [("X[3]", true), ("a/b[0,2]", true), ("X", false), ("X[]", false), ("pt[GeV]", false)] {
            assert_eq!(is_numbered(name), numbered, "{name}");
        }
    }

    #[test]
    fn two_classes_share_one_score_and_ties_go_to_the_lower_class() {
        let mut shares = [0.0; 2];
        Link::new(Kind::Logistic, 2).shares(&[0.0], &mut shares);
        assert_eq!((shares, most_probable(&shares)), ([0.5, 0.5], 0));
        Link::new(Kind::Svm, 2).shares(&[0.1], &mut shares);
        assert_eq!(shares, [0.0, 1.0]);
        Link::new(Kind::Svm, 2).shares(&[0.0], &mut shares);
        assert_eq!(shares, [1.0, 0.0]);
        let mut shares = [0.0; 3];
        Link::new(Kind::Svm, 3).shares(&[-2.0, -1.0, -1.0], &mut shares);
        assert_eq!(shares, [0.0, 1.0, 0.0]);
    }
}
