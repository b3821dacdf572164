//! What the members of an ensemble predict for rows, and what becomes of it: row by row, members in their order.

use super::super::score::{Link, Scorer};
use super::view::keep_columns;
use crate::data::{Block, SparseRows, Targets, Values};
use crate::error::{Error, Result};
use crate::metric::classification::most_probable;
use crate::model::ensemble::places_of;
use crate::model::{ColumnCode, Combine, Ensemble, Model, TargetCoding};
use rayon::prelude::*;

/// Rows that one task combines.
const TASK_ROWS: usize = 4096;

/// Scores rows as the members of an ensemble do together.
pub struct EnsembleScorer<'m> {
    ensemble: &'m Ensemble,
    members: Vec<MemberScorer<'m>>,
    last: Option<MemberScorer<'m>>,
    n_classes: usize,
}

/// Scores rows as one member does.
pub struct MemberScorer<'m> {
    scorer: Scorer<'m>,
    link: Link,
    /// Of the whole table.
    is_text: Vec<bool>,
    columns: Option<Vec<usize>>,
    /// The place of each of its classes among those of the ensemble.
    places: Vec<usize>,
    n_classes: usize,
}

impl<'m> MemberScorer<'m> {
    /// * `columns`: of the table that it sees; None: all. `is_text`: which columns of the table are strings.
    /// * `target`: of the ensemble. Errors (data): the member knows other classes.
    pub fn new(
        model: &'m Model,
        columns: Option<&[u32]>,
        is_text: Vec<bool>,
        target: &TargetCoding,
    ) -> Result<MemberScorer<'m>> {
        let places = places_of(&model.target, target)
            .ok_or_else(|| Error::data("a member knows classes that the ensemble does not have"))?;
        Ok(MemberScorer {
            scorer: Scorer::unchecked(model)?,
            link: Link::of(model),
            is_text,
            columns: columns.map(|columns| columns.iter().map(|column| *column as usize).collect()),
            places,
            n_classes: target.n_classes(),
        })
    }

    /// Numbers of a row that it predicts: one, or one for each class.
    pub fn width(&self) -> usize {
        self.n_classes.max(1)
    }

    /// The share of each class of the ensemble, or the number: (rows, width). Not collective.
    pub fn predictions(&self, block: &Block) -> Result<Vec<f64>> {
        let scores = match &self.columns {
            None => self.scorer.scores(block)?,
            Some(columns) => {
                let mut seen = block.clone();
                keep_columns(&mut seen, &self.is_text, columns);
                self.scorer.scores(&seen)?
            }
        };
        let (k, width) = (self.link.n_scores(), self.width());
        let mut all = vec![0.0; block.n_rows * width];
        let rows = all.par_chunks_mut(width).zip(scores.par_chunks(k)).with_min_len(TASK_ROWS);
        rows.for_each_init(
            || vec![0.0; self.places.len()],
            |shares, (all, scores)| match self.n_classes {
                0 => all[0] = self.link.number(scores[0]),
                _ => {
                    self.link.shares(scores, shares);
                    self.places.iter().zip(shares.iter()).for_each(|(place, share)| all[*place] = *share);
                }
            },
        );
        Ok(all)
    }
}

impl<'m> EnsembleScorer<'m> {
    /// `columns`, `target`: of the ensemble's table. Errors: as for a [`MemberScorer`].
    pub fn new(ensemble: &'m Ensemble, columns: &[ColumnCode], target: &TargetCoding) -> Result<EnsembleScorer<'m>> {
        let is_text: Vec<bool> = columns.iter().map(ColumnCode::is_text).collect();
        let members = ensemble.members.iter();
        let members = members
            .map(|member| MemberScorer::new(&member.model, member.columns.as_deref(), is_text.clone(), target))
            .collect::<Result<Vec<_>>>()?;
        let last = match &ensemble.combine {
            Combine::Stack(last) => Some(MemberScorer::new(last, None, Vec::new(), target)?),
            _ => None,
        };
        Ok(EnsembleScorer { ensemble, members, last, n_classes: target.n_classes() })
    }

    /// What each member predicts, (rows, width). Not collective.
    pub fn of_members(&self, block: &Block) -> Result<Vec<Vec<f64>>> {
        self.members.iter().map(|member| member.predictions(block)).collect()
    }

    /// What they predict together, (rows, width). Not collective.
    ///
    /// * `of_members`: as [`of_members`](Self::of_members) has it for this block.
    pub fn combined(&self, block: &Block, of_members: &[Vec<f64>]) -> Result<Vec<f64>> {
        if let Some(last) = &self.last {
            return last.predictions(&stacked_block(block, of_members, self.n_classes));
        }
        let width = self.n_classes.max(1);
        let mut all = vec![0.0; block.n_rows * width];
        let weights: Vec<f64> = self.ensemble.members.iter().map(|member| member.weight).collect();
        let total = weights.iter().fold(0.0, |sum, weight| sum + weight);
        let votes = matches!(self.ensemble.combine, Combine::Vote);
        all.par_chunks_mut(width).enumerate().with_min_len(TASK_ROWS).for_each(|(row, all)| {
            for (of_member, weight) in of_members.iter().zip(&weights) {
                let of_row = &of_member[row * width..(row + 1) * width];
                match votes {
                    true => all[most_probable(of_row)] += weight,
                    false => all.iter_mut().zip(of_row).for_each(|(all, share)| *all += weight * share),
                }
            }
            all.iter_mut().for_each(|all| *all /= total);
        });
        Ok(all)
    }

    /// (rows, n_scores): numbers, the share of class 1 of two, or the share of each class. Not collective.
    pub fn scores(&self, block: &Block) -> Result<Vec<f64>> {
        Ok(to_scores(self.combined(block, &self.of_members(block)?)?, self.n_classes))
    }
}

/// Of two classes the share of class 1 says all.
pub fn to_scores(predictions: Vec<f64>, n_classes: usize) -> Vec<f64> {
    match n_classes {
        2 => predictions.chunks_exact(2).map(|shares| shares[1]).collect(),
        _ => predictions,
    }
}

/// Rows whose features are what members predict, as float32, for the last model of a stack.
pub fn stacked_block(block: &Block, of_members: &[Vec<f64>], n_classes: usize) -> Block {
    let width = n_classes.max(1);
    // Of two classes, only that of class 1.
    let taken = if n_classes == 2 { 1..2 } else { 0..width };
    let mut values = Vec::with_capacity(block.n_rows * of_members.len() * taken.len());
    for row in 0..block.n_rows {
        for of_member in of_members {
            let of_row = &of_member[row * width..(row + 1) * width][taken.clone()];
            values.extend(of_row.iter().map(|value| *value as f32 + 0.0));
        }
    }
    Block {
        first_row: block.first_row,
        first_file_row: block.first_file_row,
        n_rows: block.n_rows,
        values: Values::F32(values),
        ..Block::empty()
    }
}

/// These rows of a block, without targets and weights, for scoring. Their numbers are not known any more.
pub fn some_rows(block: &Block, rows: &[usize]) -> Block {
    fn picked<T: Copy>(all: &[T], n_rows: usize, rows: &[usize]) -> Vec<T> {
        let width = all.len().checked_div(n_rows).unwrap_or(0);
        rows.iter().flat_map(|row| all[row * width..(row + 1) * width].iter().copied()).collect()
    }
    let values = match &block.values {
        Values::F32(all) => Values::F32(picked(all, block.n_rows, rows)),
        Values::F64(all) => Values::F64(picked(all, block.n_rows, rows)),
        Values::Sparse(all) => {
            let mut some = SparseRows::default();
            rows.iter().for_each(|row| some.append(all, *row..*row + 1));
            Values::Sparse(some)
        }
    };
    Block {
        first_row: block.first_row,
        first_file_row: block.first_file_row,
        n_rows: rows.len(),
        values,
        text: block.text.iter().map(|all| rows.iter().map(|row| all[*row].clone()).collect()).collect(),
        target: Targets::None,
        weight: None,
        offset: block.offset.as_ref().map(|all| picked(all, block.n_rows, rows)),
    }
}
