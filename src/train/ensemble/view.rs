//! A table seen by one member of an ensemble: rows weighed anew, some of the columns, a run of the rows.
//!
//! Whatever trains on a [`DataSource`] trains on a view of one. A row of weight 0 keeps its slot and is absent, so that a member sees the
//! same blocks whatever its sample is. What a row's weight is multiplied by is a function of its number in the table.

use super::super::prepare::HeldOut;
use crate::data::{Block, ColumnKind, DataSource, Schema, SparseRows, ValueCount, Values};
use crate::error::{Error, Result};
use crate::rng::{Draws, Stream};
use std::ops::{Deref, DerefMut, Range};
use std::path::Path;
use std::sync::Arc;

/// What the weight of a row is multiplied by.
#[derive(Clone, Debug)]
pub enum Weighing {
    /// How often the row is drawn for this member: a Poisson number of this mean, as drawing with replacement gives on long tables.
    Bootstrap { seed: u64, member: u64, mean: f64 },
    /// 1 for about this share of the rows, 0 for the others: drawing without replacement.
    Sample { seed: u64, member: u64, share: f64 },
    /// 0 for rows that are held out, by a hash of the row number.
    Without { held_out: HeldOut, seed: u64 },
    /// 0 for rows that are not held out.
    Only { held_out: HeldOut, seed: u64 },
    /// Numbers that are known: those of the rows from `first_row` on.
    Given { first_row: u64, factors: Arc<Vec<f64>> },
}

/// Whose rows are seen: borrowed, or one's own reader of them.
enum Inner<'a> {
    Borrowed(&'a mut dyn DataSource),
    Owned(Box<dyn DataSource>),
}

impl<'a> Deref for Inner<'a> {
    type Target = dyn DataSource + 'a;
    fn deref(&self) -> &Self::Target {
        match self {
            Inner::Borrowed(source) => *source,
            Inner::Owned(source) => source.as_ref(),
        }
    }
}

impl<'a> DerefMut for Inner<'a> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Inner::Borrowed(source) => *source,
            Inner::Owned(source) => source.as_mut(),
        }
    }
}

/// Another table's rows with other weights, and some of its columns and rows only.
pub struct View<'a> {
    inner: Inner<'a>,
    schema: Schema,
    /// Of the other table; row 0 here is the first of them.
    rows: Range<u64>,
    /// Places of the columns that are seen, ascending. None: all.
    columns: Option<Arc<Vec<usize>>>,
    weighings: Vec<Weighing>,
}

impl<'a> View<'a> {
    /// All rows and columns of a table, weighed anew. Not collective.
    pub fn new(source: &'a mut dyn DataSource, weighings: Vec<Weighing>) -> View<'a> {
        let schema = Schema { has_weight: true, ..source.schema().clone() };
        View { rows: 0..schema.n_rows, inner: Inner::Borrowed(source), schema, columns: None, weighings }
    }

    /// These columns only, by their places, ascending.
    pub fn with_columns(mut self, columns: Vec<usize>) -> View<'a> {
        assert!(columns.windows(2).all(|pair| pair[0] < pair[1]), "columns of a view ascend: {columns:?}");
        if columns.len() < self.schema.columns.len() {
            self.schema.image = None;
        }
        self.schema.columns = columns.iter().map(|&column| self.schema.columns[column].clone()).collect();
        self.columns = Some(Arc::new(columns));
        self
    }

    /// These rows only, which are then numbered from 0; draws go by their number in the whole table.
    pub fn with_rows(mut self, rows: Range<u64>) -> View<'a> {
        assert!(rows.end <= self.schema.n_rows, "rows {rows:?} of {}", self.schema.n_rows);
        self.schema.n_rows = rows.end - rows.start;
        self.schema.first_file_row += rows.start;
        self.rows = rows;
        self
    }

    fn of_inner(&self, rows: &Range<u64>) -> Range<u64> {
        self.rows.start + rows.start..self.rows.start + rows.end
    }

    /// The weights of a block of the other table, whose rows then get their numbers here.
    fn weigh(&self, block: &mut Block) -> Result<()> {
        let first = block.first_row;
        let weight = block.weight.get_or_insert_default();
        if !self.inner.schema().has_weight {
            weight.clear();
            weight.resize(block.n_rows, 1.0);
        }
        for weighing in &self.weighings {
            weighing.multiply(first, weight)?;
        }
        block.first_row = first - self.rows.start;
        Ok(())
    }
}

impl DataSource for View<'_> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        let rows = self.of_inner(&rows);
        self.inner.read(rows, into)?;
        if let Some(columns) = &self.columns {
            keep_columns(into, &text_columns(self.inner.schema()), columns);
            match &into.values {
                // Narrow numbers that were read beside wide ones.
                Values::F64(values) if !self.schema.is_wide() => {
                    into.values = Values::F32(values.iter().map(|value| *value as f32).collect());
                }
                _ => {}
            }
        }
        self.weigh(into)
    }

    fn read_labels(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        let rows = self.of_inner(&rows);
        self.inner.read_labels(rows, into)?;
        self.weigh(into)
    }

    /// Of some columns of a sparse table, no less than there are.
    fn count_values(&mut self, blocks: &[Range<u64>]) -> Result<ValueCount> {
        let blocks: Vec<Range<u64>> = blocks.iter().map(|rows| self.of_inner(rows)).collect();
        self.inner.count_values(&blocks)
    }

    fn chunk_rows(&self) -> u64 {
        self.inner.chunk_rows()
    }

    fn another(&self) -> Option<Box<dyn DataSource>> {
        let inner = Inner::Owned(self.inner.another()?);
        let (schema, rows) = (self.schema.clone(), self.rows.clone());
        Some(Box::new(View { inner, schema, rows, columns: self.columns.clone(), weighings: self.weighings.clone() }))
    }

    fn limit_memory(&mut self, bytes: u64) {
        self.inner.limit_memory(bytes);
    }

    fn decode_to(&mut self, folder: &Path, rows: Range<u64>) -> Result<()> {
        let rows = self.of_inner(&rows);
        self.inner.decode_to(folder, rows)
    }
}

impl Weighing {
    /// Multiplies the weights of the rows from `first` on.
    fn multiply(&self, first: u64, weight: &mut [f64]) -> Result<()> {
        let each = weight.iter_mut().zip(first..);
        match self {
            Weighing::Bootstrap { seed, member, mean } => {
                let (draws, chances) = (Draws::new(*seed, Stream::MemberRows), poisson_chances(*mean));
                each.for_each(|(w, row)| *w *= times_drawn(&chances, draws.uniform(row, *member)));
            }
            Weighing::Sample { seed, member, share } => {
                let draws = Draws::new(*seed, Stream::MemberRows);
                each.filter(|(_, row)| draws.uniform(*row, *member) >= *share).for_each(|(w, _)| *w = 0.0);
            }
            Weighing::Without { held_out, seed } => {
                each.filter(|(_, row)| held_out.holds_out(*seed, *row)).for_each(|(w, _)| *w = 0.0);
            }
            Weighing::Only { held_out, seed } => {
                each.filter(|(_, row)| !held_out.holds_out(*seed, *row)).for_each(|(w, _)| *w = 0.0);
            }
            Weighing::Given { first_row, factors } => {
                let here = first.checked_sub(*first_row).and_then(|at| factors.get(at as usize..));
                let here = here.filter(|here| here.len() >= weight.len()).ok_or_else(|| {
                    let n = factors.len();
                    Error::internal(format!(
                        "row {first} is not among the {n} from {first_row} on whose weights are known"
                    ))
                })?;
                weight.iter_mut().zip(here).for_each(|(w, factor)| *w *= factor);
            }
        }
        Ok(())
    }
}

/// Chances that a Poisson number of this mean is at most 0, 1, 2, …, until nothing is left of 1.
fn poisson_chances(mean: f64) -> Vec<f64> {
    let mut chance = libm::exp(-mean);
    let (mut sum, mut all) = (chance, vec![chance]);
    for k in 1..1000 {
        chance *= mean / f64::from(k);
        if sum + chance == sum && f64::from(k) > mean {
            break;
        }
        sum += chance;
        all.push(sum);
    }
    all
}

fn times_drawn(chances: &[f64], uniform: f64) -> f64 {
    chances.iter().take_while(|chance| uniform >= **chance).count() as f64
}

/// The columns that a member sees: about this share of `n_columns`, at least one, those of the least hashes; ascending.
pub fn sampled_columns(n_columns: usize, share: f64, seed: u64, member: u64) -> Vec<usize> {
    let draws = Draws::new(seed, Stream::MemberColumns);
    let n_kept = ((share * n_columns as f64).round() as usize).clamp(1, n_columns.max(1));
    let mut places: Vec<usize> = (0..n_columns).collect();
    places.sort_by_key(|&column| (draws.bits(column as u64, member), column));
    places.truncate(n_kept);
    places.sort_unstable();
    places
}

/// Which columns are strings.
pub(super) fn text_columns(schema: &Schema) -> Vec<bool> {
    schema.columns.iter().map(|column| column.kind == ColumnKind::Text).collect()
}

/// Takes the other columns out of a block. `is_text`: of each column of the block's table.
pub(super) fn keep_columns(block: &mut Block, is_text: &[bool], columns: &[usize]) {
    // Strings stand apart from numbers: places among those of their sort.
    let kept = |text: bool| -> Vec<usize> {
        let of_sort = (0..is_text.len()).filter(|&column| is_text[column] == text).enumerate();
        of_sort.filter(|(_, column)| columns.binary_search(column).is_ok()).map(|(place, _)| place).collect()
    };
    let wanted = kept(true);
    let mut next = 0;
    block.text.retain(|_| {
        next += 1;
        wanted.binary_search(&(next - 1)).is_ok()
    });
    let width = is_text.iter().filter(|text| !**text).count();
    match &mut block.values {
        Values::F32(values) => compact(values, width, &kept(false)),
        Values::F64(values) => compact(values, width, &kept(false)),
        Values::Sparse(rows) => {
            let mut some = SparseRows::default();
            for i in 0..rows.n_rows() {
                let (at, values) = rows.row(i);
                let there = at.iter().zip(values);
                some.push_row(there.filter_map(|(column, value)| {
                    Some((columns.binary_search(&(*column as usize)).ok()? as u32, *value))
                }));
            }
            *rows = some;
        }
    }
}

/// Rows of `width` values become rows of those at these places.
fn compact<T: Copy>(values: &mut Vec<T>, width: usize, places: &[usize]) {
    let n_rows = values.len().checked_div(width).unwrap_or(0);
    let mut to = 0;
    for row in 0..n_rows {
        for &place in places {
            values[to] = values[row * width + place];
            to += 1;
        }
    }
    values.truncate(to);
    if values.capacity() > 2 * values.len() {
        values.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::memory::MemorySource;
    use crate::data::{TargetKind, Targets};

    const N: u64 = 1_009;

    fn table() -> MemorySource {
        let x = (0..N * 3).map(|i| i as f32).collect();
        MemorySource::from_f32(x, 3)
            .and_then(|t| t.with_target((0..N).map(|i| (i % 2) as f64).collect(), TargetKind::Integer))
            .and_then(|t| t.with_text_column("site", (0..N).map(|i| format!("s{i}")).collect()))
            .unwrap()
    }

    fn weights(view: &mut View<'_>, rows: Range<u64>) -> Vec<f64> {
        let mut block = Block::empty();
        view.read_labels(rows, &mut block).unwrap();
        block.weight.unwrap()
    }

    #[test]
    fn a_row_is_drawn_alike_in_any_run_of_rows_and_members_draw_differently() {
        for seed in [0, 7, 91] {
            let of = |member| Weighing::Bootstrap { seed, member, mean: 1.0 };
            let mut source = table();
            let whole = weights(&mut View::new(&mut source, vec![of(2)]), 0..N);
            let mut run = View::new(&mut source, vec![of(2)]).with_rows(320..700);
            assert_eq!(weights(&mut run, 5..41), whole[325..361]);
            let mut another = run.another().unwrap();
            let mut block = Block::empty();
            another.read(5..41, &mut block).unwrap();
            assert_eq!((block.weight.as_deref(), block.first_row), (Some(&whole[325..361]), 5));
            assert_eq!(block.first_file_row, 325);
            let other = weights(&mut View::new(&mut source, vec![of(3)]), 0..N);
            let same = whole.iter().zip(&other).filter(|(a, b)| a == b).count();
            // e⁻²·I₀(2) of the rows, within four standard errors.
            assert!((252..370).contains(&same), "{same} of {N} rows drawn alike");
        }
    }

    #[test]
    fn counts_have_the_mean_and_variance_of_poisson_and_samples_their_share() {
        let mut source = table();
        for mean in [0.3, 1.0, 2.5] {
            let weighing = Weighing::Bootstrap { seed: 4, member: 1, mean };
            let counts = weights(&mut View::new(&mut source, vec![weighing]), 0..N);
            let n = N as f64;
            let (mut sum, mut squares) = (0.0, 0.0);
            counts.iter().for_each(|c| (sum, squares) = (sum + c, squares + c * c));
            let (found, variance) = (sum / n, squares / n - (sum / n) * (sum / n));
            // Four standard errors of the mean; of the variance, whose fourth moment is mean + 3·mean².
            assert!((found - mean).abs() < 4.0 * (mean / n).sqrt(), "{found} for {mean}");
            let error = ((mean + 2.0 * mean * mean) / n).sqrt();
            assert!((variance - mean).abs() < 4.0 * error, "variance {variance} for {mean}");
        }
        let sample = Weighing::Sample { seed: 4, member: 1, share: 0.4 };
        let kept = weights(&mut View::new(&mut source, vec![sample]), 0..N);
        let n_kept = kept.iter().filter(|w| **w == 1.0).count();
        assert!(kept.iter().all(|w| [0.0, 1.0].contains(w)) && (340..470).contains(&n_kept), "{n_kept}");
    }

    #[test]
    fn stored_weights_are_multiplied_and_held_out_rows_are_absent() {
        let mut source = table().with_weight((0..N).map(|i| i as f64).collect()).unwrap();
        let held_out = HeldOut::Fold { fold: 1, folds: 3 };
        let factors = Arc::new(vec![0.5; 100]);
        let weighings = vec![Weighing::Without { held_out, seed: 9 }, Weighing::Given { first_row: 64, factors }];
        let mut view = View::new(&mut source, weighings);
        for (w, row) in weights(&mut view, 64..164).into_iter().zip(64..) {
            let expected = if held_out.holds_out(9, row) { 0.0 } else { 0.5 * row as f64 };
            assert_eq!(w, expected, "row {row}");
        }
        let outside = view.read_labels(160..170, &mut Block::empty()).unwrap_err().to_string();
        assert!(outside.contains("row 160"), "{outside}");
    }

    #[test]
    fn some_columns_are_those_of_the_table_dense_and_sparse() {
        let mut block = Block::empty();
        let mut source = table();
        let mut view = View::new(&mut source, Vec::new()).with_columns(vec![1, 3]).with_rows(16..N);
        assert_eq!(view.schema().columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["X[1]", "site"]);
        for _ in 0..2 {
            view.read(1..3, &mut block).unwrap();
            assert_eq!(block.values, Values::F32(vec![52.0, 55.0]));
            assert_eq!(block.text, [["s17", "s18"]]);
            assert_eq!(block.target, Targets::Number(vec![1.0, 0.0]));
        }
        let x = (0..10 * 3).map(|i| if i % 2 == 0 { 0.0 } else { f64::from(i) }).collect();
        let mut sparse = MemorySource::from_f64(x, 3).unwrap().into_sparse();
        let mut view = View::new(&mut sparse, Vec::new()).with_columns(vec![0, 2]);
        view.read(0..2, &mut block).unwrap();
        let Values::Sparse(rows) = &block.values else { panic!("sparse") };
        assert_eq!([rows.row(0), rows.row(1)], [(&[][..], &[][..]), (&[0, 1][..], &[3.0, 5.0][..])]);
    }

    #[test]
    fn sampled_columns_ascend_and_differ_by_member() {
        let some = sampled_columns(20, 0.4, 3, 0);
        assert!(some.len() == 8 && some.windows(2).all(|pair| pair[0] < pair[1]));
        assert_ne!(some, sampled_columns(20, 0.4, 3, 1));
        assert_eq!(sampled_columns(5, 0.01, 3, 1).len(), 1);
        assert_eq!(sampled_columns(3, 1.0, 3, 1), [0, 1, 2]);
    }
}
