//! One dataset of a table, or a part of one: looked at by one rank through the HDF5 library, described so that every rank can read it.

use super::chunks::StoredIndex;
use super::filters::Filter;
use super::find::{column_names, element_of, shape_of, shape_text};
use super::types::{Element, filters_of, number_attribute, reason, text_attribute};
use crate::data::{ColumnKind, TargetKind};
use crate::error::{Error, Result};
use hdf5::{Dataset, File};
use serde::{Deserialize, Serialize};

/// One dataset, and what its columns are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FieldIndex {
    pub(crate) path: String,
    /// As the library sees it.
    pub(crate) shape: Vec<u64>,
    pub(crate) n_rows: u64,
    /// Columns: the product of the axes that are not rows.
    pub(crate) width: usize,
    pub(crate) element: Element,
    pub(crate) names: Vec<String>,
    /// Rows of a chunk; 0 where the dataset is not chunked.
    pub(crate) chunk_rows: u64,
    pub(crate) packing: Packing,
    /// What the whole numbers stand for, if they are codes of strings.
    pub(crate) categories: Option<Vec<String>>,
    /// Where its bytes lie, or why the library has to read them.
    pub(crate) stored: std::result::Result<StoredIndex, String>,
}

/// What holds all whole numbers of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    I64,
    U64,
}

/// The netCDF conventions: value = stored × scale + offset, and stored values that mean "missing".
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Packing {
    scale_offset: Option<(f64, f64)>,
    missing: [Option<f64>; 2],
}

impl FieldIndex {
    /// Errors: what cannot be a column of a table, and why.
    ///
    /// `transpose`: rows are the last axis of a 2-D dataset; of a vector, the longer one.
    pub(crate) fn of(file: &File, path: &str, transpose: bool) -> Result<FieldIndex> {
        let dataset = file.dataset(path).map_err(|e| match path.rsplit_once('/') {
            Some((above, _)) if file.dataset(above).is_ok() => {
                Error::data("is a field of a compound dataset, which is not read yet; store it as a dataset of its own")
            }
            _ => Error::data(format!("cannot be opened: {}", reason(&e))),
        })?;
        let shape = shape_of(&dataset);
        let element = element_of(&dataset)?;
        // A column of n × 1 is one already.
        let transpose = transpose && shape.len() == 2 && !(shape[1] == 1 && shape[0] > 1);
        let stored = StoredIndex::of(&dataset, transpose).map_err(str::to_string);
        if let (true, Err(why)) = (transpose, &stored) {
            return Err(Error::data(format!(
                "cannot be read column by column: {why}; store it with its rows first, and leave --transpose out"
            )));
        }
        if let Err(why) = &stored
            && let Some(missing) = filters_of(&dataset)?.into_iter().find(|filter| !filter.available)
        {
            let (name, id) = (missing.name, missing.id);
            let found = match Filter::of(id, &missing.values).is_ok() {
                false => format!("is compressed with the filter {name} (number {id}), for which no decoder is here"),
                true => format!(
                    "is compressed with the filter {name} (number {id}), which the HDF5 library here cannot decode, and Consort \
                     only for other datasets ({why})"
                ),
            };
            return Err(Error::data(format!(
                "{found}; install the plugin and set HDF5_PLUGIN_PATH, or rewrite the file with h5repack -f GZIP=1 where it \
                 can be read"
            )));
        }
        if shape.is_empty() {
            return Err(Error::data("is a single value, not a column; leave it out with --features"));
        }
        let axes = if transpose { vec![shape[1], shape[0]] } else { shape.clone() };
        let width = axes[1..].iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let width = match width {
            Some(0) => {
                return Err(Error::data(format!("has no columns (its shape is {})", shape_text(&shape))));
            }
            Some(width) if width <= u32::MAX as u64 => width as usize,
            _ => {
                return Err(Error::data(format!("has too many columns (its shape is {})", shape_text(&shape))));
            }
        };
        let row_axis = usize::from(transpose);
        let chunk_rows = dataset.chunk().and_then(|chunk| chunk.get(row_axis).copied()).unwrap_or(0) as u64;
        let base = path.rsplit('/').next().unwrap_or(path);
        let names = match column_names(&dataset, width) {
            Some(names) => names,
            None if shape.len() == 1 || transpose && width == 1 => vec![base.to_string()],
            None => (0..width).map(|column| format!("{base}[{column}]")).collect(),
        };
        let categories = match element {
            Element::Integer { .. } => text_attribute(&dataset, "categories"),
            _ => None,
        };
        let packing =
            if element.is_text() || categories.is_some() { Packing::default() } else { Packing::of(&dataset) };
        let n_rows = axes[0];
        Ok(FieldIndex {
            path: path.to_string(),
            shape,
            n_rows,
            width,
            element,
            names,
            chunk_rows,
            packing,
            categories,
            stored,
        })
    }

    pub(crate) fn must_be_one_column(self, text_allowed: bool) -> Result<FieldIndex> {
        if self.width != 1 {
            return Err(Error::data(format!(
                "has shape {} where one value a row is needed; name a dataset of one column",
                shape_text(&self.shape)
            )));
        }
        if self.is_text() && !text_allowed {
            return Err(Error::data("holds strings where numbers are needed"));
        }
        Ok(self)
    }

    pub(crate) fn is_text(&self) -> bool {
        self.element.is_text() || self.categories.is_some()
    }

    pub(crate) fn kind(&self) -> ColumnKind {
        match self.element {
            _ if self.is_text() => ColumnKind::Text,
            _ if self.packing.scale_offset.is_some() => ColumnKind::Wide,
            Element::Integer { bytes: 1 | 2, .. } | Element::Bool | Element::Bits => ColumnKind::Narrow,
            Element::Float { bytes: 4 } => ColumnKind::Narrow,
            _ => ColumnKind::Wide,
        }
    }

    pub(crate) fn target_kind(&self) -> TargetKind {
        match self.element {
            _ if self.is_text() => TargetKind::Text,
            _ if self.packing != Packing::default() => TargetKind::Float,
            Element::Integer { .. } => TargetKind::Integer,
            Element::Bool | Element::Bits => TargetKind::Bool,
            Element::Float { .. } => TargetKind::Float,
            Element::FixedText { .. } | Element::Text => TargetKind::Text,
        }
    }

    /// The type of whole numbers, if they mean what is stored.
    pub(crate) fn whole(&self) -> Option<Whole> {
        match self.element {
            _ if self.packing != Packing::default() || self.categories.is_some() => None,
            Element::Integer { bytes: 8, signed: false } => Some(Whole::U64),
            Element::Integer { .. } => Some(Whole::I64),
            _ => None,
        }
    }
}

impl Packing {
    fn of(dataset: &Dataset) -> Packing {
        let scale = number_attribute(dataset, "scale_factor");
        let offset = number_attribute(dataset, "add_offset");
        let scale_offset = if scale.is_some() || offset.is_some() {
            Some((scale.unwrap_or(1.0), offset.unwrap_or(0.0)))
        } else {
            None
        };
        Packing {
            scale_offset,
            missing: [number_attribute(dataset, "_FillValue"), number_attribute(dataset, "missing_value")],
        }
    }

    /// Two roundings, as `EXACT` law 10 says.
    pub(crate) fn unpack(self, stored: f64) -> f64 {
        if self.missing.contains(&Some(stored)) {
            return f64::NAN;
        }
        match self.scale_offset {
            Some((scale, offset)) => stored * scale + offset,
            None => stored,
        }
    }
}
