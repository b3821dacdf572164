//! From stored values to the standardised float32 rows a model sees, the same at training and at prediction.

use crate::config::Missing;
use crate::data::{Block, ColumnKind, Image, Schema, SparseRows, Values};
use crate::error::{Error, Result};
use crate::exact::scale::order_key;
use multiversion::multiversion;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One stored column and what it becomes: itself, one 0/1 column a category, or the places of its categories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnCode {
    pub name: String,
    pub kind: ColumnKind,
    /// Of text, sorted bytewise. A category that is not here becomes all zeros, or a missing value.
    pub categories: Vec<String>,
    /// Of numbers that are categories, ascending.
    pub values: Vec<f64>,
    /// One feature: the place of the row's category among `categories` or `values`.
    pub is_category: bool,
}

impl ColumnCode {
    /// A column that is not a category, without categories yet.
    pub fn new(name: String, kind: ColumnKind) -> ColumnCode {
        ColumnCode { name, kind, categories: Vec::new(), values: Vec::new(), is_category: false }
    }

    pub fn is_text(&self) -> bool {
        self.kind == ColumnKind::Text
    }

    /// Features that it becomes.
    pub fn n_features(&self) -> usize {
        if self.is_text() && !self.is_category { self.categories.len() } else { 1 }
    }

    /// That are known. 0 of a column that has none.
    pub fn n_categories(&self) -> usize {
        self.categories.len().max(self.values.len())
    }

    /// The name of a category, for people.
    pub fn category(&self, place: usize) -> String {
        match (self.categories.get(place), self.values.get(place)) {
            (Some(text), _) => text.clone(),
            (None, Some(value)) => value.to_string(),
            (None, None) => format!("#{place}"),
        }
    }

    /// The place of a number among `values`; NaN: it is not there.
    fn place_of(&self, value: f64) -> f64 {
        if value.is_nan() {
            return value;
        }
        let place = self.values.binary_search_by(|known| order_key(*known).cmp(&order_key(value)));
        place.map_or(f64::NAN, |place| place as f64)
    }
}

/// How rows are encoded and standardised; part of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preprocess {
    pub columns: Vec<ColumnCode>,
    /// The shape of each row before it was made columns, where the table has it: no part of the digest.
    pub image: Option<Image>,
    pub missing: Missing,
    /// Per feature: (stored value − mean)·inverse_scale, in float64, rounded once to float32.
    pub mean: Vec<f64>,
    /// 1/standard deviation (of the population); 0 for a constant or empty column, which so has no weight.
    pub inverse_scale: Vec<f64>,
}

impl Preprocess {
    /// Columns without categories or moments yet.
    pub fn unfitted(schema: &Schema, missing: Missing) -> Preprocess {
        let code = |c: &crate::data::Column| ColumnCode::new(c.name.clone(), c.kind);
        Preprocess {
            columns: schema.columns.iter().map(code).collect(),
            image: schema.image,
            missing,
            mean: Vec::new(),
            inverse_scale: Vec::new(),
        }
    }

    /// For a model to which the places of pixels mean something: has this table the images that it was trained on? Not
    /// collective; the same on every rank.
    ///
    /// * `table`: of its [`Schema`].
    /// * A model that was trained on rows without a shape takes any.
    ///
    /// # Errors
    /// `Data`: images of another shape, or columns of which nobody knows how they lie in an image.
    pub fn check_image(&self, table: Option<Image>) -> Result<()> {
        match (self.image, table) {
            (None, _) => Ok(()),
            (Some(model), Some(table)) if model == table => Ok(()),
            (Some(model), Some(table)) => Err(Error::data(format!(
                "the images are {table} but the model was trained on {model}; bring them to that height, width and number of \
                 channels, or train on images like these"
            ))),
            (Some(model), None) => Err(Error::data(format!(
                "the rows are not images, but the model was trained on images of {model}; name with --features one dataset of \
                 shape n × height × width, or n × height × width × channels"
            ))),
        }
    }

    /// Features after encoding.
    pub fn n_features(&self) -> usize {
        self.columns.iter().map(ColumnCode::n_features).sum()
    }

    /// Names after encoding: the column's own, or `column=category`.
    pub fn feature_names(&self) -> Vec<String> {
        let mut names = Vec::with_capacity(self.n_features());
        for column in &self.columns {
            match column.is_text() && !column.is_category {
                true => names.extend(column.categories.iter().map(|c| format!("{}={c}", column.name))),
                false => names.push(column.name.clone()),
            }
        }
        names
    }

    /// The features that are categories, in order, each with how many there are. Standardised, such a feature is a whole number: 1 for
    /// the first category, and so on; 0 for a missing value and for a category that training has not seen.
    pub fn category_features(&self) -> Vec<(usize, usize)> {
        let mut next = 0;
        let features = self.columns.iter().map(|column| {
            let first = next;
            next += column.n_features();
            (first, column)
        });
        features
            .filter(|(_, column)| column.is_category)
            .map(|(first, column)| (first, column.n_categories()))
            .collect()
    }

    /// Whether encoded values are those that are stored.
    pub fn is_plain(&self) -> bool {
        !self.has_text() && self.missing == Missing::Mean && !self.columns.iter().any(|c| c.is_category)
    }

    pub fn has_text(&self) -> bool {
        self.columns.iter().any(ColumnCode::is_text)
    }

    /// Row `i` of `block` as numbers, before standardising: text as 0/1, missing values as the setting says
    /// (NaN stays NaN under [`Missing::Mean`], and where it would be a category). `out`: (n_features,).
    pub fn encode_row(&self, block: &Block, i: usize, out: &mut [f64]) -> Result<()> {
        let n_numeric = self.columns.len() - block.text.len();
        let (mut numeric, mut text, mut at) = (0, 0, 0);
        for column in &self.columns {
            if column.kind == ColumnKind::Text {
                let here = &block.text[text][i];
                text += 1;
                if column.is_category {
                    out[at] = column.categories.binary_search(here).map_or(f64::NAN, |place| place as f64);
                    at += 1;
                    continue;
                }
                let codes = &mut out[at..at + column.categories.len()];
                codes.fill(0.0);
                if let Ok(category) = column.categories.binary_search(here) {
                    codes[category] = 1.0;
                }
                at += column.categories.len();
                continue;
            }
            let value = match &block.values {
                Values::Sparse(_) => return self.spread_row(block, i, out),
                Values::F32(v) => f64::from(v[i * n_numeric + numeric]),
                Values::F64(v) => v[i * n_numeric + numeric],
            };
            numeric += 1;
            out[at] = match self.missing {
                Missing::Error if value.is_nan() => {
                    return Err(self.no_value(block, i, column, "--missing mean or --missing zero"));
                }
                _ if column.is_category => column.place_of(value),
                Missing::Zero if value.is_nan() => 0.0,
                _ => value,
            };
            at += 1;
        }
        Ok(())
    }

    /// [`encode_row`](Self::encode_row) of a sparse row: what is not stored is 0.
    fn spread_row(&self, block: &Block, i: usize, out: &mut [f64]) -> Result<()> {
        out.fill(0.0);
        self.each_stored(block, i, |j, value| out[j] = value)?;
        for (column, value) in self.columns.iter().zip(out).filter(|(column, _)| column.is_category) {
            *value = column.place_of(*value);
        }
        Ok(())
    }

    /// Visits what is stored of row `i` of a sparse block, columns in order. A missing value is 0 under [`Missing::Zero`].
    ///
    /// # Errors
    /// Any other missing value (data): a mean would be one of stored values and zeros, which says nothing of what is missing.
    pub fn each_stored(&self, block: &Block, i: usize, mut visit: impl FnMut(usize, f64)) -> Result<()> {
        let Values::Sparse(rows) = &block.values else {
            return Err(Error::internal("a dense row read as a sparse one"));
        };
        let (columns, values) = rows.row(i);
        for (&column, &value) in columns.iter().zip(values) {
            if !value.is_nan() {
                visit(column as usize, value);
            } else if self.missing != Missing::Zero {
                let column = &self.columns[column as usize];
                return Err(self.no_value(block, i, column, "--missing zero, the only way for sparse tables"));
            }
        }
        Ok(())
    }

    fn no_value(&self, block: &Block, i: usize, column: &ColumnCode, choose: &str) -> Error {
        let row = block.first_file_row + i as u64;
        Error::data(format!("row {row} has no value (NaN) in column '{}'; choose {choose}", column.name))
    }

    /// Whether a value of 0 is 0 when it is standardised, as it is where a sparse table was trained on.
    pub fn keeps_zeros(&self) -> bool {
        self.mean.iter().all(|mean| *mean == 0.0)
    }

    /// Appends the standardised rows `rows` of a sparse block, as [`keeps_zeros`](Self::keeps_zeros) has it. Not collective.
    pub fn standardise_sparse(&self, block: &Block, rows: Range<usize>, out: &mut SparseRows<f32>) -> Result<()> {
        let mut row = Vec::new();
        for i in rows {
            row.clear();
            self.each_stored(block, i, |j, value| {
                row.push((j as u32, standardised(value, 0.0, self.inverse_scale[j])))
            })?;
            out.push_row(row.iter().copied().filter(|(_, z)| *z != 0.0));
        }
        Ok(())
    }

    /// Standardised rows of `block`, (rows, n_features) float32 into `out`. Not collective.
    pub fn standardise(&self, block: &Block, out: &mut [f32]) -> Result<()> {
        let d = self.n_features();
        let mut encoded = vec![0.0; d];
        for (i, row) in out.chunks_exact_mut(d.max(1)).enumerate().take(block.n_rows) {
            self.encode_row(block, i, &mut encoded)?;
            for (z, (x, (mean, scale))) in
                row.iter_mut().zip(encoded.iter().zip(self.mean.iter().zip(&self.inverse_scale)))
            {
                *z = standardised(*x, *mean, *scale);
            }
        }
        Ok(())
    }
}

/// (x − mean)·inverse_scale, rounded once; a missing value is the mean, that is 0. Values that no float32
/// can hold are clamped to its range: they are that far off.
#[inline]
pub fn standardised(x: f64, mean: f64, inverse_scale: f64) -> f32 {
    let z = (x - mean) * inverse_scale;
    if z.is_nan() { 0.0 } else { z.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32 }
}

/// [`standardised`] of every value of rows, (rows, features), in place.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub fn standardise(rows: &mut [f32], mean: &[f64], inverse_scale: &[f64]) {
    for row in rows.chunks_exact_mut(mean.len().max(1)) {
        for ((x, mean), inverse_scale) in row.iter_mut().zip(mean).zip(inverse_scale) {
            *x = standardised(f64::from(*x), *mean, *inverse_scale);
        }
    }
}

/// How targets become numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TargetCoding {
    /// A number, as stored.
    Number,
    /// Several, as stored, of these names.
    Numbers(Vec<String>),
    /// Class c is the c-th of these integers (ascending).
    Integers(Vec<i64>),
    /// Class c is the c-th of these strings (bytewise ascending).
    Strings(Vec<String>),
}

impl TargetCoding {
    pub fn n_classes(&self) -> usize {
        match self {
            TargetCoding::Number | TargetCoding::Numbers(_) => 0,
            TargetCoding::Integers(classes) => classes.len(),
            TargetCoding::Strings(classes) => classes.len(),
        }
    }

    /// Numbers of a row that are predicted, or 1: its class.
    pub fn n_targets(&self) -> usize {
        if let TargetCoding::Numbers(names) = self { names.len() } else { 1 }
    }

    /// Class names for people.
    pub fn names(&self) -> Vec<String> {
        match self {
            TargetCoding::Number | TargetCoding::Numbers(_) => Vec::new(),
            TargetCoding::Integers(classes) => classes.iter().map(i64::to_string).collect(),
            TargetCoding::Strings(classes) => classes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSource;
    use crate::data::memory::MemorySource;

    #[test]
    fn a_model_of_images_takes_images_of_its_shape_only() {
        let image = |height, width, channels| Some(Image { height, width, channels });
        let trained_on = |image: Option<Image>| {
            let table = MemorySource::from_f32(vec![0.0; 48], 24).unwrap();
            let table = if let Some(image) = image { table.with_image(image) } else { table };
            Preprocess::unfitted(table.schema(), Missing::Mean)
        };
        let model = trained_on(image(4, 6, 1));
        assert_eq!(model.check_image(image(4, 6, 1)), Ok(()));
        let refused = |table| model.check_image(table).unwrap_err().to_string();
        assert!(
            refused(image(32, 32, 3))
                .starts_with("the images are 32 × 32 × 3 but the model was trained on 4 × 6 × 1; ")
        );
        assert!(refused(image(6, 4, 1)).contains("6 × 4 × 1"), "as many values are not the same shape");
        assert!(refused(image(4, 2, 3)).contains("4 × 2 × 3"));
        let flat = refused(None);
        assert!(flat.contains("not images") && flat.contains("4 × 6 × 1") && flat.contains("--features"), "{flat}");
        for table in [None, image(4, 6, 1), image(32, 32, 3)] {
            assert_eq!(trained_on(None).check_image(table), Ok(()));
        }
    }
}
