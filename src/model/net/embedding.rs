//! Categories become vectors that are learned; numbers pass.

use super::dense::slabs;
use super::operation::{Init, Operation, Part, Pass, Seen, TensorSpec, Values, ValuesMut};
use crate::matmul::Panels;

/// A feature that is the place of a category from 1 on, or 0: missing, or not seen in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    pub feature: usize,
    pub n_categories: usize,
    /// Numbers that stand for a category.
    pub width: usize,
}

impl Embedded {
    /// min(50, round(1.6·n^0.56)) numbers for n categories: the rule of fastai (`emb_sz_rule`), which has 600 for 50.
    pub fn width_of(n_categories: usize) -> usize {
        let wide = libm::round(1.6 * libm::pow(n_categories as f64, 0.56));
        wide.clamp(1.0, 50.0) as usize
    }

    fn panels(self) -> Panels {
        Panels::new(self.n_categories, self.width)
    }

    /// The category of a value; what is missing has none.
    fn category(self, value: f32) -> Option<usize> {
        (value as usize).checked_sub(1).filter(|category| *category < self.n_categories)
    }
}

/// The numbers that pass, in the order of features, then the vector of each column's category: (categories, width) parameters a column. What is
/// missing is the vector 0, which is not learned: nothing is known of it.
///
/// Source: Guo, Berkhahn, *Entity embeddings of categorical variables*, 2016 (arXiv 1604.06737).
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    columns: Vec<Embedded>,
    /// Features.
    passed: Vec<usize>,
}

impl Embedding {
    /// For rows of `n_features`, of which `columns` are categories; the others pass.
    pub fn new(n_features: usize, columns: Vec<Embedded>) -> Embedding {
        let is_number = |feature: &usize| columns.iter().all(|column| column.feature != *feature);
        let passed = (0..n_features).filter(is_number).collect();
        Embedding { columns, passed }
    }

    pub fn columns(&self) -> &[Embedded] {
        &self.columns
    }

    /// Each column with the place of its vector in a row that goes out, and of its tensor among the parameters.
    fn places(&self) -> impl Iterator<Item = (Embedded, usize, usize)> + '_ {
        let (mut value, mut param) = (self.passed.len(), 0);
        self.columns.iter().map(move |column| {
            let place = (*column, value, param);
            value += column.width;
            param += column.panels().len();
            place
        })
    }
}

impl Operation for Embedding {
    fn width(&self) -> usize {
        self.passed.len() + self.columns.iter().map(|column| column.width).sum::<usize>()
    }

    /// Numbers of a column begin with deviation 1/√width, so that a vector is about 1 long, as a standardised number is: however many stand for a
    /// category, the column counts as one number does.
    fn tensors(&self) -> Vec<TensorSpec> {
        let spec = |column: &Embedded| TensorSpec {
            name: "embedding",
            shape: vec![column.n_categories, column.width],
            is_free: false,
            init: Init::Normal(1.0 / (column.width as f64).sqrt()),
        };
        self.columns.iter().map(spec).collect()
    }

    fn forward(&self, pass: &Pass<'_>, params: &[f32], input: Values<'_>, mut output: ValuesMut<'_>, _: &mut [f32]) {
        for row in 0..pass.rows.len() {
            let (x, y) = (input.row(row), output.row(row));
            y.iter_mut().zip(&self.passed).for_each(|(y, feature)| *y = x[*feature]);
            for (column, value, param) in self.places() {
                let y = &mut y[value..value + column.width];
                let Some(category) = column.category(x[column.feature]) else {
                    y.fill(0.0);
                    continue;
                };
                let panels = column.panels();
                for columns in (0..panels.count()).map(|p| panels.columns(p)) {
                    let from = param + panels.at(category, columns.start);
                    y[columns.clone()].copy_from_slice(&params[from..from + columns.len()]);
                }
            }
        }
    }

    /// Nobody asks for it: it is the first layer, and nothing goes back beyond that.
    fn backward(
        &self,
        _: &Pass<'_>,
        _: &[f32],
        _: Values<'_>,
        _: Values<'_>,
        _: &mut [f32],
        _: Values<'_>,
        _: ValuesMut<'_>,
    ) {
        unreachable!("an embedding is the first layer of a network")
    }

    /// Runs of categories.
    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (tensor, (column, _, param)) in self.places().enumerate() {
            let whole = 0..column.n_categories;
            for part in slabs(column.panels(), std::slice::from_ref(&whole)) {
                let range = part.range.start + param..part.range.end + param;
                parts.push(Part { range, tensor, ..part });
            }
        }
        parts
    }

    fn add_gradient(&self, part: &Part, seen: &Seen<'_>, gradient: &mut [f32]) {
        let [p, first] = part.at;
        let Some((column, value, _)) = self.places().nth(part.tensor) else { return };
        let columns = column.panels().columns(p);
        let (from, width) = (value + columns.start, columns.len());
        for row in 0..seen.n_rows {
            let category = column.category(seen.input.row(row)[column.feature]);
            let Some(at) = category.and_then(|category| category.checked_sub(first)) else { continue };
            if let Some(gradient) = gradient.get_mut(at * width..(at + 1) * width) {
                let dy = &seen.d_output.row(row)[from..from + width];
                gradient.iter_mut().zip(dy).for_each(|(g, dy)| *g += dy);
            }
        }
    }
}
