//! One dataset of a table, or a field of one: looked at by one rank through the HDF5 library, described so that every rank can read it.

use super::chunks::StoredIndex;
use super::compound::{Member, fields_of};
use super::contents::{names_of_field, strings_of};
use super::filters::Filter;
use super::find::{column_names, element_of, shape_of, shape_text};
use super::index::Sizes;
use super::other_files;
use super::records::Window;
use super::sound;
use super::types::{Element, filters_of, number_attribute, reason, text_attribute};
use crate::data::names::join;
use crate::data::{ColumnKind, Image, TargetKind};
use crate::error::{Error, InContext, Result};
use hdf5::{Dataset, File};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// One dataset or a field of it, and what its columns are.
/// More columns are refused: every one has a name, moments and a coefficient on every rank.
pub(super) const MOST_COLUMNS: u64 = 1 << 24;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FieldIndex {
    /// As named: of a field `dataset/field`.
    pub(crate) path: String,
    /// Its path in the file that was named, which links may lead out of.
    pub(crate) dataset: String,
    /// Of the dataset, as the library sees it.
    pub(crate) shape: Vec<u64>,
    pub(crate) n_rows: u64,
    /// Columns: the product of the axes that are not rows, and of those of a field.
    pub(crate) width: usize,
    pub(crate) element: Element,
    pub(crate) names: Vec<String>,
    /// What its rows are, if it has the axes of images.
    pub(crate) image: Option<Image>,
    /// Rows of a chunk; 0 where the dataset is not chunked.
    pub(crate) chunk_rows: u64,
    pub(crate) packing: Packing,
    /// What the whole numbers stand for, if they are codes of strings.
    pub(crate) categories: Option<Vec<String>>,
    pub(crate) access: Access,
}

/// The way to the bytes of a dataset or a field of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Access {
    /// Where they lie.
    Direct(StoredIndex),
    /// Where they lie in each element of a compound dataset, which the file's part of the table has an index of.
    InRecords(Window),
    /// Strings of any length: where their descriptors lie, and what those look like.
    Text(StoredIndex, Sizes),
    /// The same in each element of a compound dataset.
    TextInRecords(Window, Sizes),
    /// Why the library has to read them.
    Library(String),
}

/// What holds all whole numbers of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    I64,
    U64,
}

/// The netCDF conventions: value = stored × scale + offset, and stored values that mean "missing".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Packing {
    scale_offset: Option<(f64, f64)>,
    missing: Vec<f64>,
}

impl FieldIndex {
    /// Looks at what columns are read from at `path`. Not collective.
    ///
    /// * `transpose`: rows are the last axis of a 2-D dataset; of a vector, the longer one.
    /// * `records`: the indexes of the compound datasets that were met, to be added to.
    ///
    /// Errors: what cannot be a column of a table, and why.
    pub(crate) fn of(file: &File, path: &str, transpose: bool, records: &mut RecordIndexes) -> Result<FieldIndex> {
        let Found { dataset, at, member, categories } = Found::at(file, path)?;
        let shape = shape_of(&dataset);
        let element = match &member {
            Some(member) => member.element()?,
            None => element_of(&dataset)?,
        };
        // A column of n × 1 is one already.
        let transpose = transpose && member.is_none() && shape.len() == 2 && !(shape[1] == 1 && shape[0] > 1);
        let access = match &member {
            Some(member) => of_member(&dataset, member, records.entry(at.clone())),
            None if element == Element::Text => match StoredIndex::of_text(&dataset, transpose) {
                Ok((stored, sizes)) => Access::Text(stored, sizes),
                Err(why) => Access::Library(why.to_string()),
            },
            None => match StoredIndex::of(&dataset, transpose) {
                Ok(stored) => Access::Direct(stored),
                Err(why) => Access::Library(why.to_string()),
            },
        };
        if let Access::Library(why) = &access {
            other_files::check(&dataset)?;
            if transpose {
                return Err(Error::data(format!(
                    "cannot be read column by column: {why}; store it with its rows first, and leave --transpose out"
                )));
            }
            if let Some(missing) = filters_of(&dataset)?.into_iter().find(|filter| !filter.available) {
                let (name, id) = (missing.name, missing.id);
                let found = match Filter::of(id, &missing.values).is_ok() {
                    false => {
                        format!("is compressed with the filter {name} (number {id}), for which no decoder is here")
                    }
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
        }
        if shape.is_empty() {
            return Err(Error::data("is a single value, not a column; leave it out with --features"));
        }
        let mut axes = if transpose { vec![shape[1], shape[0]] } else { shape.clone() };
        axes.extend(member.iter().flat_map(|member| &member.dims));
        let width = axes[1..].iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let width = match width {
            Some(0) => {
                return Err(Error::data(format!("has no columns (its shape is {})", shape_text(&axes))));
            }
            Some(width) if width <= MOST_COLUMNS => width as usize,
            _ => {
                return Err(Error::data(format!(
                    "has too many columns (its shape is {}); at most {MOST_COLUMNS} can be trained on",
                    shape_text(&axes)
                )));
            }
        };
        let row_axis = usize::from(transpose);
        let chunk_rows = dataset.chunk().and_then(|chunk| chunk.get(row_axis).copied()).unwrap_or(0) as u64;
        let base = path.rsplit('/').next().unwrap_or(path);
        let names = match &member {
            Some(member) => names_of_field(&dataset, &member.name(), width),
            None => column_names(&dataset, width),
        };
        let names = match names {
            Some(names) => names,
            None if axes.len() == 1 || transpose && width == 1 => vec![base.to_string()],
            None => (0..width).map(|column| format!("{base}[{column}]")).collect(),
        };
        let has_attributes = !element.is_text() && categories.is_none() && member.is_none();
        let packing = if has_attributes { Packing::of(&dataset, element) } else { Packing::default() };
        Ok(FieldIndex {
            path: path.to_string(),
            dataset: at,
            n_rows: axes[0],
            image: Image::of_axes(&axes[1..]).filter(|_| !element.is_text() && categories.is_none()),
            shape,
            width,
            element,
            names,
            chunk_rows,
            packing,
            categories,
            access,
        })
    }

    pub(crate) fn must_be_one_number(self) -> Result<FieldIndex> {
        if self.width != 1 {
            return Err(Error::data(format!(
                "has shape {} where one value a row is needed; name a dataset of one column",
                shape_text(&self.shape)
            )));
        }
        if self.is_text() {
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

/// Indexes of compound datasets by path, or why the library has to read them.
pub(crate) type RecordIndexes = BTreeMap<String, std::result::Result<StoredIndex, &'static str>>;

/// How a field of a compound dataset is read.
fn of_member(
    dataset: &Dataset,
    member: &Member,
    records: Entry<'_, String, std::result::Result<StoredIndex, &'static str>>,
) -> Access {
    let stored = match records.or_insert_with(|| StoredIndex::of(dataset, false)) {
        Ok(stored) => stored,
        Err(why) => return Access::Library(why.to_string()),
    };
    let fits = |window: &Window| window.offset + window.n_bytes <= stored.element_bytes();
    if let Some(window) = member.window().filter(fits) {
        return Access::InRecords(window);
    }
    match StoredIndex::sizes_of(dataset).map(|sizes| (member.descriptors(sizes.descriptor_bytes()).filter(fits), sizes))
    {
        Ok((Some(window), sizes)) => Access::TextInRecords(window, sizes),
        _ => Access::Library("not a plain number or string type".to_string()),
    }
}

/// What a path of the table leads to.
pub(crate) struct Found {
    pub(crate) dataset: Dataset,
    /// Its path in this file: its own name may be that in another.
    at: String,
    pub(crate) member: Option<Member>,
    /// What the dataset's whole numbers stand for.
    categories: Option<Vec<String>>,
}

impl Found {
    /// Errors: there is nothing that a column is read from.
    pub(crate) fn at(file: &File, path: &str) -> Result<Found> {
        let cannot = |e: hdf5::Error| Error::data(format!("cannot be opened: {}", reason(&e)));
        if file.group(path).is_ok() {
            let at = join(path, "codes");
            let dataset = sound::open(file, &at).map_err(cannot)?;
            let categories = sound::open(file, &join(path, "categories")).map_err(cannot)?;
            let n_categories = categories.size();
            let categories = strings_of(&categories, n_categories).in_dataset("categories")?.ok_or_else(|| {
                Error::data("has categories that are not strings, which cannot be a column; name its codes instead")
            })?;
            return match element_of(&dataset)? {
                Element::Integer { .. } => Ok(Found { dataset, at, member: None, categories: Some(categories) }),
                _ => Err(Error::data("has codes that are not whole numbers")),
            };
        }
        let whole = match sound::open(file, path) {
            Ok(dataset) => {
                let categories = match element_of(&dataset) {
                    Ok(Element::Integer { .. }) => text_attribute(&dataset, "categories"),
                    _ => None,
                };
                return Ok(Found { dataset, at: path.to_string(), member: None, categories });
            }
            Err(e) => e,
        };
        let outer = path.match_indices('/').map(|(at, _)| (&path[..at], &path[at + 1..]));
        let of_field = |(outer, field): (&str, &str)| {
            let dataset = sound::open(file, outer).ok()?;
            let member = fields_of(&dataset).into_iter().find(|member| member.name() == field)?;
            Some(Found { dataset, at: outer.to_string(), member: Some(member), categories: None })
        };
        outer.filter_map(of_field).next().ok_or_else(|| cannot(whole))
    }
}

impl Packing {
    fn of(dataset: &Dataset, element: Element) -> Packing {
        let number = |name: &str| number_attribute(dataset, name).filter(|numbers| numbers.len() == 1).map(|of| of[0]);
        let (scale, offset) = (number("scale_factor"), number("add_offset"));
        let scale_offset = if scale.is_some() || offset.is_some() {
            Some((scale.unwrap_or(1.0), offset.unwrap_or(0.0)))
        } else {
            None
        };
        let mut missing: Vec<f64> = ["_FillValue", "missing_value"]
            .into_iter()
            .filter_map(|name| number_attribute(dataset, name))
            .flatten()
            .collect();
        if element == (Element::Float { bytes: 4 }) {
            // An attribute may be wider than what it is compared with.
            missing.iter_mut().for_each(|value| *value = f64::from(*value as f32));
        }
        Packing { scale_offset, missing }
    }

    /// Two roundings, as `EXACT` law 10 says.
    pub(crate) fn unpack(&self, stored: f64) -> f64 {
        if self.missing.contains(&stored) {
            return f64::NAN;
        }
        match self.scale_offset {
            Some((scale, offset)) => stored * scale + offset,
            None => stored,
        }
    }
}
