//! The binned rows of boosting: as records in memory or in a file, with the scores of a model that is continued.

use super::super::binning::{BinnedRows, Binning, each_bin};
use super::super::prepare::HeldOut;
use super::super::{Model, Observer, Reading, TrainConfig};
use super::continued::Base;
use super::memory::RowBytes;
use super::{constraints, loss_of};
use crate::comm::Communicator;
use crate::config::BoostLoss;
use crate::data::partition::RowPlan;
use crate::data::scratch::Scratch;
use crate::data::{Block, DataSource, Targets};
use crate::error::{Error, Result};
use crate::grow::Records;
use crate::model::TargetCoding;
use std::ops::{Deref, Range};

/// Rows, and where boosting goes on, if a model is continued.
pub(super) struct BoostRows<'a> {
    binned: BinnedRows,
    pub(super) base: Option<Base<'a>>,
}

impl Deref for BoostRows<'_> {
    type Target = BinnedRows;
    fn deref(&self) -> &BinnedRows {
        &self.binned
    }
}

impl BoostRows<'_> {
    pub(super) fn into_binned(self) -> BinnedRows {
        self.binned
    }
}

/// `model`: to be continued, if any. Collective.
pub(super) fn read<'a>(
    comm: &Communicator,
    source: &mut dyn DataSource,
    config: &TrainConfig,
    reading: &Reading,
    hold: Option<HeldOut>,
    model: Option<&'a Model>,
    watch: &mut dyn Observer,
) -> Result<(BoostRows<'a>, Records)> {
    let boost = config.boost.as_ref().ok_or_else(|| Error::internal("boosting without its settings"))?;
    let plan = RowPlan::full_batch(source.schema().n_rows, source.schema().columns.len());
    let mut binning = Binning::open(comm, source, config, reading, plan, hold)?;
    // What is wrong with them is said before anything is read.
    constraints::monotone(boost, &binning.preprocess)?;
    constraints::interactions(boost, &binning.preprocess)?;
    let base = model.map(|model| Base::new(model, config, &binning.schema, &binning.preprocess));
    let mut base = base.transpose()?;
    if binning.find_categories(comm)? {
        base.iter_mut().try_for_each(|base| base.join_categories(&mut binning.preprocess))?;
    }
    let (n_features, n_rows) = (binning.preprocess.n_features(), binning.schema.n_rows);
    let groups = super::super::binning::groups(comm, reading, boost.bin_sample, &binning.reader, n_features, n_rows)?;
    let classes = |found: TargetCoding| base.as_ref().map_or_else(|| Ok(found.clone()), |base| base.classes(&found));
    let wanted = (boost.max_bins, boost.bin_sample);
    let (labels, bins) = binning.sample(comm, wanted, &groups, |batch| check_amounts(boost.loss, batch), classes)?;

    let loss = loss_of(boost, labels.target.n_classes());
    let of_scores = loss.n_scores() as u64 * if model.is_some() { 24 } else { 16 };
    let of_labels = 16 + if hold.is_some() { 8 } else { 0 } + if loss.leaf_quantile().is_some() { 4 } else { 0 };
    // The last 4 are the leaf.
    let of_depth = if boost.max_depth > 0 { 1 << boost.max_depth.min(40) } else { u64::MAX };
    let max_leaves = boost.max_leaves.min(of_depth).min(n_rows);
    let row_bytes = RowBytes { n_rows: labels.n_rows(), of_row: of_labels + of_scores + 4 };
    let mut records = match super::memory::plan(comm, reading, &row_bytes, &bins, max_leaves)? {
        None => Records::with_room(bins, row_bytes.n_rows),
        Some(page_rows) => {
            let scratch = comm.agree(Scratch::in_folder(reading.scratch.as_deref()))?;
            let mega_bytes = (row_bytes.n_rows * Records::bytes_of_row(&bins)).div_ceil(1 << 20);
            let hint = if reading.scratch.is_none() { "; --scratch DIR names another folder" } else { "" };
            let folder = scratch.folder().display();
            watch.warning(&format!(
                "the binned rows of a rank ({mega_bytes}M) do not fit into memory: they are kept in a file in {folder}{hint}"
            ));
            Records::in_file(bins, scratch, page_rows)
        }
    };
    binning.pass(comm, |batch, blocks, preprocess| {
        let features = records.features.clone();
        let runs: Vec<usize> = blocks.iter().map(Range::len).collect();
        records.append(&runs, |number, run| {
            each_bin(&features, batch, &blocks[number], preprocess, |row, j, bin| run.put(row, j, bin))
        })?;
        base.iter_mut().try_for_each(|base| base.add_rows(batch, blocks, preprocess))
    })?;
    Ok((BoostRows { binned: binning.finish(comm, labels)?, base }, records))
}

/// Errors: targets that `gamma` does not take.
fn check_amounts(loss: BoostLoss, batch: &Block) -> Result<()> {
    let Targets::Number(values) = &batch.target else { return Ok(()) };
    match values.iter().position(|y| *y <= 0.0) {
        Some(row) if loss == BoostLoss::Gamma => Err(Error::data(format!(
            "the target is {} in row {}: gamma wants amounts above 0; tweedie takes 0 too",
            values[row],
            batch.first_file_row + row as u64
        ))),
        _ => Ok(()),
    }
}
