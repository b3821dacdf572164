//! What has to be known of a table in HDF5 files before its rows can be read: found by one rank through the HDF5 library, and small
//! enough to be sent to all.

use super::chunks::StoredIndex;
use super::contents::{Contents, Thing};
use super::field::{Access, FieldIndex, RecordIndexes};
use super::find::{resolve, targets_of};
use super::source::without_place;
use super::sparse::Sparse;
use super::types::{Element, open_to_read};
use crate::data::names::{Need, TableNames, join};
use crate::data::{Column, ColumnKind, Schema, TargetKind};
use crate::error::{Error, InContext, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A table's schema, and where in which files its rows lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableIndex {
    pub(super) schema: Schema,
    pub(super) names: TableNames,
    pub(super) parts: Vec<PartIndex>,
}

/// One file's rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartIndex {
    pub(super) path: PathBuf,
    pub(super) first_row: u64,
    pub(super) n_rows: u64,
    pub(super) fields: Fields<FieldIndex>,
    /// Those of the compound datasets that fields are read from, by path.
    pub(super) records: BTreeMap<String, StoredIndex>,
}

/// The datasets of one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fields<F> {
    /// Empty where they are sparse.
    pub(super) features: Vec<F>,
    pub(super) sparse: Option<Sparse<F>>,
    /// Of numbers several, which may have several columns each.
    pub(super) targets: Vec<F>,
    pub(super) weight: Option<F>,
    pub(super) offset: Option<F>,
}

impl<F> Fields<F> {
    pub(super) fn all(&self) -> impl Iterator<Item = &F> {
        self.of_rows().chain(self.sparse.iter().flat_map(Sparse::all))
    }

    /// Those with one element or more a row.
    pub(super) fn of_rows(&self) -> impl Iterator<Item = &F> {
        let single = [&self.weight, &self.offset].into_iter().flatten();
        self.features.iter().chain(&self.targets).chain(single)
    }

    /// The same with something made of every dataset.
    pub(super) fn try_map<G>(&self, make: &mut impl FnMut(&F) -> Result<G>) -> Result<Fields<G>> {
        let sparse = self.sparse.as_ref().map(|sparse| sparse.try_map(make)).transpose()?;
        let mut one = |field: &Option<F>| field.as_ref().map(&mut *make).transpose();
        let (weight, offset) = (one(&self.weight)?, one(&self.offset)?);
        let mut all = |fields: &[F]| fields.iter().map(&mut *make).collect::<Result<_>>();
        let (features, targets) = (all(&self.features)?, all(&self.targets)?);
        Ok(Fields { features, sparse, targets, weight, offset })
    }
}

impl PartIndex {
    /// Bytes of the strings of a row as they are held, on average. What strings of any length take together is known no better than
    /// by what the file has beside the other columns.
    pub(super) fn text_bytes(&self) -> u64 {
        const HEAD: u64 = size_of::<String>() as u64;
        let (mut of_row, mut any_length, mut file_bytes, mut others) = (0, false, 0, 0u64);
        for field in self.fields.of_rows() {
            let width = field.width as u64;
            let head = if field.categories.is_some() || field.element.is_text() { HEAD * width } else { 0 };
            of_row += head;
            match (field.element, &field.access) {
                (Element::FixedText { bytes, .. }, _) => of_row += width * bytes as u64,
                (Element::Text, access) => {
                    any_length = true;
                    file_bytes = file_bytes.max(match access {
                        Access::Text(stored, _) => stored.file_bytes,
                        _ => self.records.get(&field.dataset).map_or(0, |stored| stored.file_bytes),
                    });
                }
                (_, Access::Direct(stored)) => others = others.saturating_add(stored.stored_bytes()),
                _ => {}
            }
        }
        others = self.records.values().fold(others, |sum, stored| sum.saturating_add(stored.stored_bytes()));
        let in_heap = file_bytes.saturating_sub(others) / self.n_rows.max(1);
        of_row + if any_length { in_heap.max(16) } else { 0 }
    }
}

impl TableIndex {
    /// Looks at the files. Not collective.
    ///
    /// Errors: no such file or not HDF5 (data), names that are not there or not unique (usage), types that
    /// cannot be columns, filters that cannot be decoded, row counts that differ, files that do not fit together.
    pub fn of(paths: &[PathBuf], names: &TableNames, need: Need) -> Result<TableIndex> {
        let Some(first) = paths.first() else {
            return Err(Error::usage("no data file was named"));
        };
        let mut index: Option<TableIndex> = None;
        for path in paths {
            // The features of the first file are those of all; each file may have them in another group.
            let wanted = match &index {
                None => names.clone(),
                Some(index) => TableNames { group: names.group.clone(), ..index.names.clone() },
            };
            let (found, mut part) = look_at(path, &wanted, need).in_file(path)?;
            let schema = part.fields.schema();
            let index = match &mut index {
                None => index.insert(TableIndex { schema, names: found, parts: Vec::new() }),
                Some(index) => {
                    let like = index.parts.iter().find(|part| part.n_rows > 0).map_or(first, |part| &part.path);
                    check_columns(&index.schema, &schema, like).in_file(path)?;
                    // A file without rows has no values that its types could be those of.
                    match (index.schema.n_rows, part.n_rows) {
                        (_, 0) => {}
                        (0, _) => index.schema = schema,
                        _ => merge(&mut index.schema, &schema, &part.fields, like).in_file(path)?,
                    }
                    index
                }
            };
            part.first_row = index.schema.n_rows;
            index.schema.n_rows += part.n_rows;
            index.parts.push(part);
        }
        match index {
            Some(index) if index.schema.n_rows > 0 => Ok(index),
            Some(index) => Err(Error::data("has 0 rows")).in_dataset(&index.names.features.join(", ")).in_file(first),
            None => Err(Error::internal("a table of no files")),
        }
    }

    /// Every file that has rows of the table, those behind links included, in bytewise order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        let of_part = |part: &PartIndex| {
            let linked = part.fields.all().filter_map(|field| match &field.access {
                Access::Direct(stored) | Access::Text(stored, _) => Some(stored.file.clone()),
                _ => None,
            });
            let records = part.records.values().map(|stored| stored.file.clone());
            linked.chain(records).chain([part.path.clone()]).collect::<std::collections::BTreeSet<_>>()
        };
        let all: std::collections::BTreeSet<PathBuf> = self.parts.iter().flat_map(of_part).collect();
        all.into_iter().collect()
    }

    /// For another rank.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        postcard::to_allocvec(self).map_err(|e| Error::internal(format!("the index of the table cannot be sent: {e}")))
    }

    /// From another rank.
    pub fn from_bytes(bytes: &[u8]) -> Result<TableIndex> {
        postcard::from_bytes(bytes)
            .map_err(|e| Error::internal(format!("the index of the table was not received as it was sent: {e}")))
    }

    /// Why datasets of the table are read through the HDF5 library, one thread at a time: (dataset, reason), of the first file
    /// that has such.
    pub fn through_library(&self) -> Vec<(String, String)> {
        let reasons = |part: &PartIndex| {
            let reason = |field: &FieldIndex| match &field.access {
                Access::Library(why) => Some((field.path.clone(), why.clone())),
                _ => None,
            };
            part.fields.all().filter_map(reason).collect::<Vec<_>>()
        };
        self.parts.iter().map(reasons).find(|reasons| !reasons.is_empty()).unwrap_or_default()
    }
}

/// Finds and describes the datasets of one file, as if it were the first of the table.
fn look_at(path: &Path, names: &TableNames, need: Need) -> Result<(TableNames, PartIndex)> {
    let file = open_to_read(path).map_err(without_place(path))?;
    let names = resolve(&file, names, need)?;
    let full = |name: &String| join(names.group.as_deref().unwrap_or(""), name);
    let with_target = need != Need::Predict;
    let mut features = Vec::new();
    let mut records = RecordIndexes::new();
    let contents = Contents::of(&file);
    let is_sparse = |name: &&String| contents.at(&full(name)) == Some(Thing::Sparse);
    let sparse = match names.features.iter().find(is_sparse).map(full) {
        Some(path) if names.features.len() > 1 => {
            return Err(Error::usage("is a sparse matrix, which has to be the only one of the features (--features)"))
                .in_dataset(&path);
        }
        Some(path) => Some(Sparse::of(&file, &path).in_dataset(&path)?),
        None => None,
    };
    for name in names.features.iter().filter(|_| sparse.is_none()) {
        let path = full(name);
        features.push(FieldIndex::of(&file, &path, names.transpose, &mut records).in_dataset(&path)?);
    }
    unique_names(&mut features);
    let mut targets = Vec::new();
    for path in targets_of(&contents, &names).into_iter().filter(|_| with_target).map(|name| full(&name)) {
        targets.push(FieldIndex::of(&file, &path, names.transpose, &mut records).in_dataset(&path)?);
    }
    unique_names(&mut targets);
    if targets.iter().map(|field| field.width).sum::<usize>() > 1
        && let Some(text) = targets.iter().find(|field| field.is_text())
    {
        return Err(Error::data(
            "holds strings, and several targets are numbers; name one target, or datasets of numbers",
        ))
        .in_dataset(&text.path);
    }
    let mut single = |name: Option<&String>| match name.map(full) {
        Some(path) => FieldIndex::of(&file, &path, names.transpose, &mut records)
            .and_then(FieldIndex::must_be_one_number)
            .in_dataset(&path)
            .map(Some),
        None => Ok(None),
    };
    let fields = Fields {
        weight: single(names.weight.as_ref().filter(|_| with_target))?,
        offset: single(names.offset.as_ref())?,
        features,
        targets,
        sparse,
    };
    let records = records.into_iter().filter_map(|(path, stored)| Some((path, stored.ok()?))).collect();
    Ok((names, PartIndex { path: path.to_path_buf(), first_row: 0, n_rows: fields.n_rows()?, fields, records }))
}

/// Errors: another file has columns of other names.
fn check_columns(all: &Schema, found: &Schema, like: &Path) -> Result<()> {
    let like = like.display();
    if found.is_sparse != all.is_sparse {
        let word = |schema: &Schema| if schema.is_sparse { "sparse" } else { "dense" };
        return Err(Error::data(format!(
            "its features are {} but those in {like} are {}; all files of a table need the same columns",
            word(found),
            word(all)
        )));
    }
    let (here, there) = (&found.columns, &all.columns);
    if let Some((column, (a, b))) = here.iter().zip(there).enumerate().find(|(_, (a, b))| a.name != b.name) {
        return Err(Error::data(format!(
            "column {column} is '{}' but in {like} it is '{}'; all files of a table need the same columns",
            a.name, b.name
        )));
    }
    if here.len() != there.len() {
        let (more, who) = if here.len() > there.len() { (here, "here") } else { (there, "there") };
        return Err(Error::data(format!(
            "has {} feature columns but {like} has {} (only {who}: '{}'); all files of a table need the same columns",
            here.len(),
            there.len(),
            more[here.len().min(there.len())].name
        )));
    }
    Ok(())
}

/// Makes `all` the schema of its files and of one more with the same columns, if their types fit together.
fn merge(all: &mut Schema, found: &Schema, fields: &Fields<FieldIndex>, like: &Path) -> Result<()> {
    let like = like.display();
    for (column, (a, b)) in found.columns.iter().zip(&mut all.columns).enumerate() {
        let is_text = |kind: ColumnKind| kind == ColumnKind::Text;
        if is_text(a.kind) != is_text(b.kind) {
            return Err(Error::data(format!(
                "column {column}, '{}', is {} but in {like} it is {}; all files of a table need columns of the same kinds",
                a.name,
                kind_text(a.kind),
                kind_text(b.kind)
            )));
        }
        if a.kind == ColumnKind::Wide {
            b.kind = ColumnKind::Wide;
        }
    }
    if found.image != all.image {
        all.image = None;
    }
    if found.target != all.target {
        let name = fields.targets.first().map_or("target", |field| &field.path);
        return Err(Error::data(format!(
            "target '{name}' is {} but in {like} it is {}; store it alike in all files of a table",
            target_text(found.target),
            target_text(all.target)
        )));
    }
    let (here, there) = (found.n_targets(), all.n_targets());
    if here != there {
        let name = fields.targets.first().map_or("target", |field| &field.path);
        return Err(Error::data(format!(
            "target '{name}' has {here} values a row but in {like} it has {there}; store it alike in all files of a table"
        )));
    }
    Ok(())
}

/// Columns are called by their own name; where that is not unique, after the group of their dataset too, and where that is
/// not enough, after the dataset.
fn unique_names(features: &mut [FieldIndex]) {
    let group = |field: &FieldIndex, name: &str| {
        field.path.rsplit_once('/').map_or(name.to_string(), |(group, _)| format!("{group}/{name}"))
    };
    let dataset = |field: &FieldIndex, name: &str| match field.path.rsplit('/').next() {
        Some(last) if last == name.rsplit('/').next().unwrap_or(name) => field.path.clone(),
        _ => format!("{}/{}", field.path, name.rsplit('/').next().unwrap_or(name)),
    };
    rename_where_not_unique(features, group);
    rename_where_not_unique(features, dataset);
}

fn rename_where_not_unique(features: &mut [FieldIndex], longer: impl Fn(&FieldIndex, &str) -> String) {
    let mut counts = BTreeMap::new();
    for name in features.iter().flat_map(|field| &field.names) {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    for field in features {
        let rename = |name: &String| match counts.get(name) {
            Some(1) => name.clone(),
            _ => longer(field, name),
        };
        field.names = field.names.iter().map(rename).collect();
    }
}

impl Fields<FieldIndex> {
    /// The rows that all datasets agree on.
    fn n_rows(&self) -> Result<u64> {
        let sparse = self.sparse.iter().map(|sparse| (&sparse.path, sparse.n_rows));
        let mut fields = sparse.chain(self.of_rows().map(|field| (&field.path, field.n_rows)));
        let Some((first, n_rows)) = fields.next() else { return Ok(0) };
        match fields.find(|(_, n)| *n != n_rows) {
            Some((other, n)) => Err(Error::data(format!(
                "'{first}' has {n_rows} rows but '{other}' has {n}; the datasets of a table need one value a row each"
            ))),
            None => Ok(n_rows),
        }
    }

    /// Of several targets that of all, or else any number.
    fn target_kind(&self) -> Option<TargetKind> {
        let mut kinds = self.targets.iter().map(FieldIndex::target_kind);
        let first = kinds.next()?;
        Some(if kinds.all(|kind| kind == first) { first } else { TargetKind::Float })
    }

    /// Without rows.
    fn schema(&self) -> Schema {
        let mut columns = Vec::new();
        for field in &self.features {
            columns.extend(field.names.iter().map(|name| Column { name: name.clone(), kind: field.kind() }));
        }
        if let Some(sparse) = &self.sparse {
            columns.extend(sparse.names.iter().map(|name| Column { name: name.clone(), kind: sparse.data.kind() }));
        }
        Schema {
            n_rows: 0,
            first_file_row: 0,
            columns,
            is_sparse: self.sparse.is_some(),
            image: if let [all] = &self.features[..] { all.image } else { None },
            target: self.target_kind(),
            target_names: self.targets.iter().flat_map(|field| field.names.clone()).collect(),
            has_weight: self.weight.is_some(),
            has_offset: self.offset.is_some(),
        }
    }
}

fn kind_text(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Narrow | ColumnKind::Wide => "numbers",
        ColumnKind::Text => "strings",
    }
}

fn target_text(kind: Option<TargetKind>) -> &'static str {
    match kind {
        None => "absent",
        Some(TargetKind::Integer) => "integers",
        Some(TargetKind::Bool) => "true or false",
        Some(TargetKind::Float) => "floating-point numbers",
        Some(TargetKind::Text) => "strings",
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "layouts_tests.rs"]
mod layouts_tests;
