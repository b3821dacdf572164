//! A block's buffers: made empty, and made ready for the rows of a table.

use super::pages::in_large_pages;
use super::{Block, ColumnKind, Schema, SparseRows, TargetKind, Targets, Values};
use std::ops::Range;

impl Block {
    /// A block without rows, to be filled by [`DataSource::read`](super::DataSource::read).
    pub fn empty() -> Block {
        Block {
            first_row: 0,
            first_file_row: 0,
            n_rows: 0,
            values: Values::F32(Vec::new()),
            text: Vec::new(),
            target: Targets::None,
            weight: None,
            offset: None,
        }
    }

    /// Gives every buffer the kind and length that these rows of this table need; numbers in it are
    /// whatever they were, strings and sparse rows are gone. Keeps what memory it has.
    pub(crate) fn reset(&mut self, schema: &Schema, rows: Range<u64>) {
        let n_rows = (rows.end - rows.start) as usize;
        (self.first_row, self.n_rows) = (rows.start, n_rows);
        self.first_file_row = schema.first_file_row + rows.start;
        let n_values = n_rows * schema.n_numeric();
        match (&mut self.values, schema.is_wide()) {
            (Values::Sparse(rows), _) if schema.is_sparse => rows.truncate(0),
            (values, _) if schema.is_sparse => *values = Values::Sparse(SparseRows::default()),
            (Values::F32(values), false) if values.capacity() >= n_values => values.resize(n_values, 0.0),
            (Values::F64(values), true) if values.capacity() >= n_values => values.resize(n_values, 0.0),
            // Fresh memory is zero without being touched, so that the threads that fill it share the page faults.
            (values, false) => *values = Values::F32(in_large_pages(vec![0.0; n_values])),
            (values, true) => *values = Values::F64(in_large_pages(vec![0.0; n_values])),
        }
        self.text.resize_with(schema.columns.len() - schema.n_numeric(), Vec::new);
        self.text.iter_mut().for_each(Vec::clear);
        match (&mut self.target, schema.target) {
            (target, None) => *target = Targets::None,
            (Targets::Text(target), Some(TargetKind::Text)) => target.clear(),
            (target, Some(TargetKind::Text)) => *target = Targets::Text(Vec::new()),
            (Targets::Number(target), Some(_)) => target.resize(n_rows * schema.n_targets(), 0.0),
            (target, Some(_)) => *target = Targets::Number(vec![0.0; n_rows * schema.n_targets()]),
        }
        resize(&mut self.weight, schema.has_weight, n_rows);
        resize(&mut self.offset, schema.has_offset, n_rows);
    }
}

fn resize(values: &mut Option<Vec<f64>>, present: bool, n_rows: usize) {
    match values {
        _ if !present => *values = None,
        Some(values) => values.resize(n_rows, 0.0),
        None => *values = Some(vec![0.0; n_rows]),
    }
}

impl Schema {
    /// Columns that are numbers; the others are strings.
    pub fn n_numeric(&self) -> usize {
        self.columns.iter().filter(|column| column.kind != ColumnKind::Text).count()
    }

    /// What a target is where nobody says: several are numbers that are predicted together, however they are stored.
    pub fn target_kind(&self) -> Option<TargetKind> {
        if self.n_targets() > 1 { Some(TargetKind::Float) } else { self.target }
    }

    /// Numbers or strings that a row's target has; 0 without a target.
    pub fn n_targets(&self) -> usize {
        self.target_names.len()
    }

    /// Whether blocks hold their values as f64: some numeric column is [`ColumnKind::Wide`].
    pub fn is_wide(&self) -> bool {
        self.columns.iter().any(|column| column.kind == ColumnKind::Wide)
    }
}
