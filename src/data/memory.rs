//! A table in memory, for tests and small tables.

use super::canonical::canonicalise;
use super::hdf5::read::bad_weight;
use super::{
    Block, Column, ColumnKind, DataSource, Image, Schema, SparseRows, TargetKind, Targets, ValueCount, Values,
};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A table over arrays; checks and canonical values as for a file.
#[derive(Clone, Debug)]
pub struct MemorySource {
    schema: Schema,
    all: Arc<Block>,
}

impl MemorySource {
    /// A table of `n_columns` float32 columns called `X[0]`, `X[1]`, …. Not collective.
    ///
    /// * `x`: (rows, `n_columns`), row-major. Infinite values are refused.
    pub fn from_f32(x: Vec<f32>, n_columns: usize) -> Result<MemorySource> {
        MemorySource::new(Values::F32(x), n_columns, ColumnKind::Narrow)
    }

    /// The same with float64 columns.
    pub fn from_f64(x: Vec<f64>, n_columns: usize) -> Result<MemorySource> {
        MemorySource::new(Values::F64(x), n_columns, ColumnKind::Wide)
    }

    fn new(mut values: Values, n_columns: usize, kind: ColumnKind) -> Result<MemorySource> {
        let (n_values, infinite) = match &mut values {
            Values::F32(x) => (x.len(), canonicalise(x)),
            Values::F64(x) => (x.len(), canonicalise(x)),
            Values::Sparse(_) => return Err(Error::internal("a sparse table is made of a dense one")),
        };
        if n_columns == 0 || n_values == 0 || n_values % n_columns != 0 {
            return Err(Error::data(format!("{n_values} values are not rows of {n_columns} columns")));
        }
        if infinite {
            return Err(Error::data("infinite value in the features; use a finite number, or NaN for a missing value"));
        }
        let n_rows = n_values / n_columns;
        let columns = (0..n_columns).map(|column| Column { name: format!("X[{column}]"), kind }).collect();
        let schema = Schema {
            n_rows: n_rows as u64,
            first_file_row: 0,
            columns,
            is_sparse: false,
            image: None,
            target: None,
            target_names: Vec::new(),
            has_weight: false,
            has_offset: false,
        };
        Ok(MemorySource { schema, all: Arc::new(Block { n_rows, values, ..Block::empty() }) })
    }

    /// The same table stored sparsely: zeros are left out. It has no text columns.
    pub fn into_sparse(mut self) -> MemorySource {
        assert_eq!(self.all.text.len(), 0, "a sparse table has numbers only");
        let width = self.schema.columns.len();
        let mut rows = SparseRows::default();
        let mut push = |row: &mut dyn Iterator<Item = f64>| {
            rows.push_row((0..).zip(row).filter(|(_, value)| *value != 0.0));
        };
        match &self.all.values {
            Values::F32(all) => all.chunks_exact(width).for_each(|row| push(&mut row.iter().copied().map(f64::from))),
            Values::F64(all) => all.chunks_exact(width).for_each(|row| push(&mut row.iter().copied())),
            Values::Sparse(_) => return self,
        }
        self.schema.is_sparse = true;
        Arc::make_mut(&mut self.all).values = Values::Sparse(rows);
        self
    }

    /// Adds targets that are integers or bool (classes) or floats. One finite number a row.
    pub fn with_target(self, target: Vec<f64>, kind: TargetKind) -> Result<MemorySource> {
        self.with_targets(target, &["y"], kind)
    }

    /// Adds several targets a row, (rows, names), row-major: to be predicted together.
    pub fn with_targets(mut self, target: Vec<f64>, names: &[&str], kind: TargetKind) -> Result<MemorySource> {
        assert_ne!(kind, TargetKind::Text, "text targets come as strings");
        let n_targets = names.len();
        if target.len() != self.all.n_rows * n_targets || n_targets == 0 {
            let n_rows = self.all.n_rows;
            return Err(Error::data(format!("{} targets for {n_rows} rows of {n_targets}", target.len())));
        }
        refuse(&target, n_targets, "target", |value| (!value.is_finite()).then_some("not a finite number"))?;
        self.schema.target = Some(kind);
        self.schema.target_names = names.iter().map(|name| name.to_string()).collect();
        Arc::make_mut(&mut self.all).target = Targets::Number(target.into_iter().map(|value| value + 0.0).collect());
        Ok(self)
    }

    /// Adds string targets, one a row.
    pub fn with_text_target(mut self, target: Vec<String>) -> Result<MemorySource> {
        self.check_rows(target.len(), "targets")?;
        self.schema.target = Some(TargetKind::Text);
        self.schema.target_names = vec!["y".to_string()];
        Arc::make_mut(&mut self.all).target = Targets::Text(target);
        Ok(self)
    }

    /// Adds row weights: finite, not negative.
    pub fn with_weight(mut self, weight: Vec<f64>) -> Result<MemorySource> {
        self.check_rows(weight.len(), "weights")?;
        refuse(&weight, 1, "weight", bad_weight)?;
        self.schema.has_weight = true;
        Arc::make_mut(&mut self.all).weight = Some(weight.into_iter().map(|value| value + 0.0).collect());
        Ok(self)
    }

    /// Adds offsets of the scores: finite.
    pub fn with_offset(mut self, offset: Vec<f64>) -> Result<MemorySource> {
        self.check_rows(offset.len(), "offsets")?;
        refuse(&offset, 1, "offset", |value| (!value.is_finite()).then_some("not a finite number"))?;
        self.schema.has_offset = true;
        Arc::make_mut(&mut self.all).offset = Some(offset.into_iter().map(|value| value + 0.0).collect());
        Ok(self)
    }

    /// Adds a text column behind the columns there are.
    pub fn with_text_column(mut self, name: &str, values: Vec<String>) -> Result<MemorySource> {
        self.check_rows(values.len(), "strings")?;
        self.schema.columns.push(Column { name: name.to_string(), kind: ColumnKind::Text });
        Arc::make_mut(&mut self.all).text.push(values);
        Ok(self)
    }

    /// Gives the columns other names, as many as there are columns.
    pub fn with_names(mut self, names: &[&str]) -> MemorySource {
        assert_eq!(names.len(), self.schema.columns.len(), "names of columns");
        for (column, name) in self.schema.columns.iter_mut().zip(names) {
            column.name = name.to_string();
        }
        self
    }

    /// Forgets that each row is one.
    #[cfg(test)]
    pub(crate) fn without_image(mut self) -> MemorySource {
        self.schema.image = None;
        self
    }

    /// Says that each row is an image of as many values as there are columns.
    pub fn with_image(mut self, image: Image) -> MemorySource {
        assert_eq!(image.n_values(), Some(self.schema.columns.len()), "values of an image");
        self.schema.image = Some(image);
        self
    }

    /// All rows.
    pub fn block(&self) -> &Block {
        &self.all
    }

    fn check_rows(&self, found: usize, what: &str) -> Result<()> {
        match found == self.all.n_rows {
            true => Ok(()),
            false => Err(Error::data(format!("{found} {what} for {} rows", self.all.n_rows))),
        }
    }
}

/// `of_row`: values of each row.
fn refuse(values: &[f64], of_row: usize, what: &str, bad: impl Fn(f64) -> Option<&'static str>) -> Result<()> {
    match values.iter().enumerate().find_map(|(row, &value)| Some((row / of_row, value, bad(value)?))) {
        None => Ok(()),
        Some((row, value, why)) => Err(Error::data(format!("{what} {value} at row {row} is {why}"))),
    }
}

impl DataSource for MemorySource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn count_values(&mut self, blocks: &[Range<u64>]) -> Result<ValueCount> {
        let Values::Sparse(all) = &self.all.values else {
            return Ok(ValueCount::dense(blocks, self.schema.columns.len()));
        };
        ValueCount::of(blocks, |rows| Ok(rows.map(|row| all.row(row as usize).0.len() as u64).sum()))
    }

    fn another(&self) -> Option<Box<dyn DataSource>> {
        Some(Box::new(self.clone()))
    }

    /// # Panics
    /// If `rows` reaches beyond the table.
    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        assert!(rows.start <= rows.end && rows.end <= self.schema.n_rows, "rows {rows:?} of {}", self.schema.n_rows);
        into.reset(&self.schema, rows.clone());
        let here = rows.start as usize..rows.end as usize;
        let width = self.schema.n_numeric();
        let flat = here.start * width..here.end * width;
        match (&self.all.values, &mut into.values) {
            (Values::F32(all), Values::F32(into)) => into.copy_from_slice(&all[flat]),
            (Values::F64(all), Values::F64(into)) => into.copy_from_slice(&all[flat]),
            (Values::Sparse(all), Values::Sparse(into)) => into.append(all, here.clone()),
            _ => unreachable!("reset chose the kind of the schema"),
        }
        for (all, into) in self.all.text.iter().zip(&mut into.text) {
            into.extend_from_slice(&all[here.clone()]);
        }
        match (&self.all.target, &mut into.target) {
            (Targets::Number(all), Targets::Number(into)) => {
                let of_row = self.schema.n_targets();
                into.copy_from_slice(&all[here.start * of_row..here.end * of_row]);
            }
            (Targets::Text(all), Targets::Text(into)) => into.extend_from_slice(&all[here.clone()]),
            _ => {}
        }
        for (all, into) in [(&self.all.weight, &mut into.weight), (&self.all.offset, &mut into.offset)] {
            if let (Some(all), Some(into)) = (all, into) {
                into.copy_from_slice(&all[here.clone()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> MemorySource {
        MemorySource::from_f32((0..14).map(|i| i as f32).collect(), 2)
            .and_then(|t| t.with_target(vec![0., 1., 0., 1., 1., 0., 1.], TargetKind::Integer))
            .and_then(|t| t.with_weight(vec![1., 2., 0., 1., 1., 1., 1.]))
            .and_then(|t| t.with_text_column("site", (0..7).map(|i| format!("s{i}")).collect()))
            .unwrap()
    }

    #[test]
    fn any_run_of_rows_is_the_same_rows_of_the_whole() {
        let mut table = table();
        let mut block = Block::empty();
        table.read(2..5, &mut block).unwrap();
        assert_eq!((block.first_row, block.n_rows), (2, 3));
        assert_eq!(block.values, Values::F32(vec![4., 5., 6., 7., 8., 9.]));
        assert_eq!(block.target, Targets::Number(vec![0., 1., 1.]));
        assert_eq!(block.weight, Some(vec![0., 1., 1.]));
        assert_eq!(block.text, [["s2", "s3", "s4"]]);
        table.read(7..7, &mut block).unwrap();
        assert_eq!(block.values, Values::F32(vec![]));
    }

    #[test]
    fn several_targets_are_rows_of_them() {
        let six = (0..6).map(f64::from).collect::<Vec<_>>();
        let table = || MemorySource::from_f32(vec![0.0; 3], 1).unwrap();
        let mut found = table().with_targets(six.clone(), &["a", "b"], TargetKind::Float).unwrap();
        let mut block = Block::empty();
        found.read(1..3, &mut block).unwrap();
        assert_eq!((found.schema().n_targets(), block.target), (2, Targets::Number(vec![2., 3., 4., 5.])));
        assert!(table().with_targets(six.clone(), &["a", "b", "c"], TargetKind::Float).is_err());
        assert!(table().with_targets(six[..5].to_vec(), &["a", "b"], TargetKind::Float).is_err());
        let with_nan = vec![0., 1., 2., f64::NAN, 4., 5.];
        let message = table().with_targets(with_nan, &["a", "b"], TargetKind::Float).unwrap_err().to_string();
        assert_eq!(message, "target NaN at row 1 is not a finite number");
    }

    #[test]
    fn what_a_file_may_not_hold_an_array_may_not_either() {
        assert!(MemorySource::from_f32(vec![1.0, f32::INFINITY], 2).is_err());
        assert!(MemorySource::from_f32(vec![1.0; 5], 2).is_err());
        assert!(MemorySource::from_f64(vec![], 1).is_err());
        let message = table().with_weight(vec![1., 1., -1., 1., 1., 1., 1.]).unwrap_err().to_string();
        assert_eq!(message, "weight -1 at row 2 is a negative weight");
        assert!(table().with_target(vec![f64::NAN; 7], TargetKind::Float).is_err());
        assert!(table().with_offset(vec![0.0; 6]).is_err());
    }

    #[test]
    fn values_are_canonical() {
        let table = MemorySource::from_f64(vec![-0.0, f64::from_bits(0xfff8_0000_0000_0001)], 1).unwrap();
        let Values::F64(values) = &table.block().values else { panic!("narrow") };
        assert_eq!([values[0].to_bits(), values[1].to_bits()], [0, f64::NAN.to_bits()]);
    }
}
