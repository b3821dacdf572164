//! Stacks: a last learner whose features are what the members predict for rows that they have not seen.
//!
//! Each member is trained once without each fold and once on all rows, all of them as tasks of one deal. The last learner reads the
//! table through [`Stacked`], which scores every row by the members that were trained without its fold; in the model, members of all
//! rows stand before it. Source: Wolpert, *Stacked generalization*, Neural Networks 1992; Breiman, *Stacked regressions*, Machine
//! Learning 1996.

use super::super::checkpoint::Keeping;
use super::super::linear_family::train_source;
use super::super::prepare::HeldOut;
use super::deal::{Task, cost, deal};
use super::score::{MemberScorer, some_rows, stacked_block};
use super::view::{View, Weighing};
use super::{Made, Outcome, Work, hold_seed, trained, voting, without_held_out};
use crate::data::names::TableNames;
use crate::data::{Block, Column, ColumnKind, DataSource, Schema, Targets, Values};
use crate::error::{Error, Result};
use crate::model::ensemble::{places_of, stacked_names};
use crate::model::{Combine, Member};
use crate::rng::{Draws, Stream};
use std::ops::Range;

/// Trains the members of a stack and its last learner. Collective.
pub(super) fn train(work: &mut Work<'_>) -> Result<Outcome> {
    let (config, ensemble) = (work.config, work.ensemble);
    let schema = work.source.schema().clone();
    let (n_members, folds) = (ensemble.member.len(), ensemble.stack_folds);
    let names: Vec<String> = ensemble.member.iter().map(|member| member.name.clone()).collect();
    // First those of all rows, then fold after fold.
    let fold_of = |task: usize| (task / n_members).checked_sub(1).map(|fold| fold as u64);
    let task = |task: usize| {
        let member = &ensemble.member[task % n_members];
        let name = match fold_of(task) {
            None => member.name.clone(),
            Some(fold) => format!("{} without fold {fold}", member.name),
        };
        Task { name, cost: cost(&member.config, schema.n_rows, schema.columns.len()) }
    };
    let tasks: Vec<Task> = (0..n_members * (folds as usize + 1)).map(task).collect();
    let (source, table_names, reading) = (&mut *work.source, work.names, work.reading);
    let dealt = deal(work.comm, &tasks, false, work.watch, &mut |group, task, watch| {
        let mut weighings = without_held_out(config);
        let held_out = fold_of(task).map(|fold| HeldOut::Fold { fold, folds });
        weighings.extend(held_out.map(|held_out| Weighing::Without { held_out, seed: hold_seed(config) }));
        let mut view = View::new(&mut *source, weighings);
        train_source(group, &mut view, table_names, &ensemble.member[task % n_members].config, reading, watch)
    })?;

    // A member that fails without some fold, or on all rows, is out.
    let mut of_tasks = dealt.made.into_iter();
    let mut whole: Vec<Result<Made>> = of_tasks.by_ref().take(n_members).collect();
    let mut by_fold: Vec<Vec<Option<Made>>> = Vec::new();
    for fold in 0..folds {
        let of_fold = of_tasks.by_ref().take(n_members).enumerate();
        let kept = of_fold.map(|(member, made)| match made {
            Ok(made) => Some(made),
            Err(error) => {
                if whole[member].is_ok() {
                    whole[member] = Err(error.at(format!("without fold {fold}")));
                }
                None
            }
        });
        by_fold.push(kept.collect());
    }
    let kept = trained(whole, &names, ensemble.min_members, work.watch)?;
    let member = |number: usize, made: Made| Member {
        name: names[number].clone(),
        model: made.model,
        columns: None,
        weight: 1.0,
    };
    let numbers: Vec<usize> = kept.iter().map(|(number, _)| *number).collect();
    let members: Vec<Member> = kept.into_iter().map(|(number, made)| member(number, made)).collect();
    let of_fold = |mut all: Vec<Option<Made>>| -> Vec<Member> {
        numbers.iter().filter_map(|&number| Some(member(number, all[number].take()?))).collect()
    };
    let by_fold: Vec<Vec<Member>> = by_fold.into_iter().map(of_fold).collect();

    let (_, target) = voting::scorers(&members)?;
    if by_fold.iter().flatten().any(|member| places_of(&member.model.target, &target).is_none()) {
        return Err(Error::internal("members without a fold know other classes than those of all rows"));
    }
    let scorers = by_fold.iter().map(|members| Ok(voting::scorers(members)?.0)).collect::<Result<Vec<_>>>()?;
    let columns = stacked_names(members.iter().map(|member| member.name.as_str()), &target);
    let mut view = View::new(&mut *work.source, without_held_out(config));
    let mut stacked = Stacked::new(&mut view, columns, scorers, target.n_classes(), hold_seed(config));
    let last = ensemble.last.as_ref().ok_or_else(|| Error::internal("a stack whose last learner is not settled"))?;
    let keeper = work.watch.keeper().part("last");
    let mut watch = Keeping { observer: &mut *work.watch, keeper };
    let (last, _) = train_source(work.comm, &mut stacked, &TableNames::default(), last, work.reading, &mut watch)
        .map_err(|error| error.at("the last learner (--final)"))?;
    Ok(Outcome { members, combine: Combine::Stack(Box::new(last)), timeline: dealt.timeline, read_s: dealt.read_s })
}

/// A table whose features are what members predict for the rows of another, worked out whenever rows are read.
pub(super) struct Stacked<'a> {
    inner: &'a mut View<'a>,
    schema: Schema,
    /// Members that predict the rows of each fold; of one fold, all rows.
    by_fold: Vec<Vec<MemberScorer<'a>>>,
    n_classes: usize,
    seed: u64,
    block: Block,
    /// Rows of the other table that are held at a time.
    piece_rows: u64,
}

impl<'a> Stacked<'a> {
    /// `names`: of the features, as many as the members of a fold predict numbers.
    pub(super) fn new(
        inner: &'a mut View<'a>,
        names: Vec<String>,
        by_fold: Vec<Vec<MemberScorer<'a>>>,
        n_classes: usize,
        seed: u64,
    ) -> Stacked<'a> {
        let columns = names.into_iter().map(|name| Column { name, kind: ColumnKind::Narrow }).collect();
        let schema = Schema { columns, is_sparse: false, image: None, has_offset: false, ..inner.schema().clone() };
        Stacked { inner, schema, by_fold, n_classes, seed, block: Block::empty(), piece_rows: u64::MAX }
    }

    /// What the members predict for the block that was read.
    fn predictions(&self) -> Result<Vec<Vec<f64>>> {
        let folds = self.by_fold.len() as u64;
        if let [all] = &self.by_fold[..] {
            return all.iter().map(|member| member.predictions(&self.block)).collect();
        }
        let draws = Draws::new(self.seed, Stream::Fold); // as HeldOut::Fold draws
        let width = self.n_classes.max(1);
        let mut all = vec![vec![0.0; self.block.n_rows * width]; self.by_fold[0].len()];
        for (fold, members) in self.by_fold.iter().enumerate() {
            let is_out = |row: &usize| draws.below(folds, self.block.first_row + *row as u64, 0) == fold as u64;
            let rows: Vec<usize> = (0..self.block.n_rows).filter(is_out).collect();
            let some = some_rows(&self.block, &rows);
            for (all, member) in all.iter_mut().zip(members) {
                for (of_row, row) in member.predictions(&some)?.chunks_exact(width).zip(&rows) {
                    all[row * width..(row + 1) * width].copy_from_slice(of_row);
                }
            }
        }
        Ok(all)
    }
}

/// Appends the rows of a block of the same kind.
fn append(into: &mut Block, piece: Block) {
    into.n_rows += piece.n_rows;
    if let (Values::F32(all), Values::F32(more)) = (&mut into.values, piece.values) {
        all.extend(more);
    }
    match (&mut into.target, piece.target) {
        (Targets::Number(all), Targets::Number(more)) => all.extend(more),
        (Targets::Text(all), Targets::Text(more)) => all.extend(more),
        _ => {}
    }
    if let (Some(all), Some(more)) = (&mut into.weight, piece.weight) {
        all.extend(more);
    }
}

impl DataSource for Stacked<'_> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        let mut first = rows.start;
        while first < rows.end || first == rows.start {
            let end = rows.end.min(first.saturating_add(self.piece_rows));
            self.inner.read(first..end, &mut self.block)?;
            let predictions = self.predictions()?;
            let mut piece = stacked_block(&self.block, &predictions, self.n_classes);
            (piece.target, piece.weight) = (self.block.target.clone(), self.block.weight.clone());
            match first == rows.start {
                true => *into = piece,
                false => append(into, piece),
            }
            if end == rows.end {
                break;
            }
            first = end;
        }
        Ok(())
    }

    fn read_labels(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        self.inner.read_labels(rows, into)?;
        into.offset = None;
        Ok(())
    }

    fn chunk_rows(&self) -> u64 {
        self.inner.chunk_rows()
    }

    fn limit_memory(&mut self, bytes: u64) {
        // Half for what the other table holds while it reads, half for its rows.
        let row_bytes = 8 * self.inner.schema().columns.len().max(1) as u64;
        self.piece_rows = (bytes / 2 / row_bytes).max(1);
        self.inner.limit_memory(bytes / 2);
    }

    fn decode_to(&mut self, folder: &std::path::Path, rows: Range<u64>) -> Result<()> {
        self.inner.decode_to(folder, rows)
    }
}
