//! What is in a file, and which of it is the table: names as typed, or found.

use super::hdf5_types::{Element, reason, type_name};
use super::names::{FEATURE_NAMES, Need, TARGET_NAMES, TableNames, join};
use crate::error::{Error, Result};
use hdf5::{Dataset, File, Group, IndexType, IterationOrder, LocationType};

/// One object of a file.
pub(crate) struct Entry {
    /// From the root, without a leading slash.
    pub path: String,
    pub object: Object,
}

pub(crate) enum Object {
    Group,
    /// Shape; empty for a single value.
    Dataset(Vec<u64>, Dataset),
    /// A link that leads nowhere, or something that is neither group nor dataset.
    Other(String),
}

/// Deeper groups are not looked into: a file's links may go round in circles.
const MAX_DEPTH: usize = 12;
/// More objects than this are not listed.
const MAX_OBJECTS: usize = 20_000;

/// Every object under `group` (its path from the root), in bytewise order of names.
pub(crate) fn list(group: &Group, path: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    list_into(group, path.trim_matches('/'), 0, &mut entries);
    entries
}

fn list_into(group: &Group, path: &str, depth: usize, entries: &mut Vec<Entry>) {
    for name in member_names(group) {
        if entries.len() >= MAX_OBJECTS {
            return;
        }
        let path = join(path, &name);
        let object = open_object(group, &name);
        let is_group = matches!(object, Object::Group);
        entries.push(Entry { path: path.clone(), object });
        if is_group
            && depth < MAX_DEPTH
            && let Ok(inner) = group.group(&name)
        {
            list_into(&inner, &path, depth + 1, entries);
        }
    }
}

fn member_names(group: &Group) -> Vec<String> {
    let mut names = Vec::new();
    // Names that cannot be listed are as good as absent: what was asked for is then reported missing.
    let _ = group.iter_visit(IndexType::Name, IterationOrder::Increasing, |name, _| {
        names.push(name.to_string());
        Ok(())
    });
    names.sort();
    names
}

fn open_object(group: &Group, name: &str) -> Object {
    match group.loc_type_by_name(name) {
        Ok(LocationType::Group) => Object::Group,
        Ok(LocationType::Dataset) => match group.dataset(name) {
            Ok(dataset) => Object::Dataset(shape_of(&dataset), dataset),
            Err(e) => Object::Other(format!("cannot be opened: {}", reason(&e))),
        },
        Ok(_) => Object::Other("a named type".to_string()),
        Err(_) => Object::Other("a link that leads nowhere".to_string()),
    }
}

pub(crate) fn shape_of(dataset: &Dataset) -> Vec<u64> {
    dataset.shape().iter().map(|&n| n as u64).collect()
}

pub(crate) fn shape_text(shape: &[u64]) -> String {
    let axes: Vec<String> = shape.iter().map(u64::to_string).collect();
    match axes.len() {
        0 => "single value".to_string(),
        _ => axes.join(" × "),
    }
}

/// The datasets under `group` for an error message: `X (150 × 4, float32), y (150, int64)`.
pub(crate) fn what_is_there(group: &Group, path: &str) -> String {
    const SHOWN: usize = 12;
    let mut datasets = Vec::new();
    for entry in list(group, path) {
        if let Object::Dataset(shape, dataset) = entry.object {
            let kind = dataset.dtype().map(|of| type_name(&of)).unwrap_or_else(|_| "unknown type".to_string());
            datasets.push(format!("'{}' ({}, {kind})", entry.path, shape_text(&shape)));
        }
    }
    match datasets.len() {
        0 => "no dataset at all".to_string(),
        n if n > SHOWN => format!("{} and {} more", datasets[..SHOWN].join(", "), n - SHOWN),
        _ => datasets.join(", "),
    }
}

/// The table of `file`: every name settled, features as datasets (a group became its columns).
pub(crate) fn resolve(file: &File, names: &TableNames, need: Need) -> Result<TableNames> {
    let finder = Finder { file, names, need };
    let group = finder.group()?;
    let mut found = TableNames { group: Some(group.clone()).filter(|g| !g.is_empty()), ..names.clone() };
    let mut features = found.features.clone();
    if features.is_empty() {
        features.push(finder.feature_in(&group)?.ok_or_else(|| finder.nothing_found(&group))?);
    }
    let with_target = need != Need::Predict;
    if found.target.is_none() {
        found.target = finder.target_for(&group, &features)?;
    }
    if with_target && found.target.is_none() {
        return Err(Error::usage(format!(
            "no target: none of {} is there; name one with --target (there is: {})",
            TARGET_NAMES.join(", "),
            what_is_there(file, "")
        )));
    }
    found.features = finder.expand(&group, &features, &found)?;
    for name in [&found.weight, &found.offset].into_iter().flatten() {
        if need != Need::Predict || found.offset.as_ref() == Some(name) {
            finder.must_be_dataset(&join(&group, name))?;
        }
    }
    if with_target && let Some(target) = &found.target {
        finder.must_be_dataset(&join(&group, target))?;
    }
    Ok(found)
}

struct Finder<'a> {
    file: &'a File,
    names: &'a TableNames,
    need: Need,
}

impl Finder<'_> {
    /// Where the names start: as typed, or the root, or the one group that has the features.
    fn group(&self) -> Result<String> {
        if let Some(group) = &self.names.group {
            let group = group.trim_matches('/').to_string();
            if !group.is_empty() && !is_group(self.file, &group) {
                return Err(Error::usage(format!(
                    "there is no group '{group}' (--group); there is: {}",
                    what_is_there(self.file, "")
                )));
            }
            return Ok(group);
        }
        if self.has_features("") {
            return Ok(String::new());
        }
        let mut having = Vec::new();
        for entry in list(self.file, "") {
            if matches!(entry.object, Object::Group) && self.has_features(&entry.path) {
                having.push(entry.path);
            }
        }
        match having.len() {
            0 => Ok(String::new()), // the error for what is missing comes with the names
            1 => Ok(having.remove(0)),
            _ => Err(Error::usage(format!(
                "several groups could be the table: {}; choose with --group (there is: {})",
                having.join(", "),
                what_is_there(self.file, "")
            ))),
        }
    }

    fn has_features(&self, group: &str) -> bool {
        match self.names.features.is_empty() {
            true => FEATURE_NAMES.iter().any(|name| self.could_be_features(&join(group, name))),
            false => self.names.features.iter().all(|name| exists(self.file, &join(group, name))),
        }
    }

    fn could_be_features(&self, path: &str) -> bool {
        match kind_of(self.file, path) {
            Some(LocationType::Dataset) => true,
            Some(LocationType::Group) => !self.columns_of(path).is_empty(),
            _ => false,
        }
    }

    /// The one name in `group` that features have by custom.
    fn feature_in(&self, group: &str) -> Result<Option<String>> {
        let found: Vec<&str> =
            FEATURE_NAMES.into_iter().filter(|name| self.could_be_features(&join(group, name))).collect();
        self.only(group, &found, "features", "--features")
    }

    /// The target by custom: beside the features, or inside the group that holds them as columns.
    fn target_for(&self, group: &str, features: &[String]) -> Result<Option<String>> {
        let mut places = vec![String::new()];
        places.extend(features.iter().filter(|name| is_group(self.file, &join(group, name))).cloned());
        for place in places {
            let found: Vec<String> = TARGET_NAMES
                .iter()
                .map(|name| join(&place, name))
                .filter(|name| is_dataset(self.file, &join(group, name)) && !features.contains(name))
                .collect();
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            if self.need == Need::Predict && found.len() > 1 {
                return Ok(None);
            }
            if let Some(name) = self.only(group, &found, "target", "--target")? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn only(&self, group: &str, found: &[&str], what: &str, flag: &str) -> Result<Option<String>> {
        match found {
            [] => Ok(None),
            [one] => Ok(Some(one.to_string())),
            _ => Err(Error::usage(format!(
                "{} could each be the {what}; choose with {flag} (there is: {})",
                found.join(" and "),
                self.there(group)
            ))),
        }
    }

    fn there(&self, group: &str) -> String {
        match self.file.group(if group.is_empty() { "/" } else { group }) {
            Ok(opened) => what_is_there(&opened, group),
            Err(_) => what_is_there(self.file, ""),
        }
    }

    fn nothing_found(&self, group: &str) -> Error {
        Error::usage(format!(
            "no features: none of {} is there; name them with --features or --group (there is: {})",
            FEATURE_NAMES.join(", "),
            self.there(group)
        ))
    }

    /// Features as datasets relative to `group`: a group stands for its 1-D datasets in bytewise order.
    fn expand(&self, group: &str, features: &[String], found: &TableNames) -> Result<Vec<String>> {
        let taken: Vec<String> =
            [&found.target, &found.weight, &found.offset].into_iter().flatten().map(|name| join(group, name)).collect();
        let mut datasets = Vec::new();
        for feature in features {
            let path = join(group, feature);
            match kind_of(self.file, &path) {
                Some(LocationType::Dataset) => datasets.push(feature.clone()),
                Some(LocationType::Group) => {
                    let columns: Vec<String> = self
                        .columns_of(&path)
                        .into_iter()
                        .filter(|column| !taken.contains(&join(&path, column)))
                        .map(|column| {
                            if feature == "/" { column } else { format!("{}/{column}", feature.trim_end_matches('/')) }
                        })
                        .collect();
                    if columns.is_empty() {
                        return Err(Error::data(format!(
                            "group '{path}' has no 1-D datasets to be columns (there is: {})",
                            self.there(&path)
                        )));
                    }
                    datasets.extend(columns);
                }
                _ => return Err(self.missing(&path)),
            }
        }
        Ok(datasets)
    }

    /// Names of the 1-D datasets directly in the group at `path`.
    fn columns_of(&self, path: &str) -> Vec<String> {
        let Ok(group) = self.file.group(if path.is_empty() { "/" } else { path }) else { return Vec::new() };
        let mut names = member_names(&group);
        names.retain(|name| {
            matches!(group.loc_type_by_name(name), Ok(LocationType::Dataset))
                && group.dataset(name).is_ok_and(|dataset| dataset.ndim() == 1)
        });
        names
    }

    fn must_be_dataset(&self, path: &str) -> Result<()> {
        if is_dataset(self.file, path) { Ok(()) } else { Err(self.missing(path)) }
    }

    fn missing(&self, path: &str) -> Error {
        let what = if is_group(self.file, path) { "is a group, not a dataset" } else { "is not there" };
        Error::data(format!("'{path}' {what}; there is: {}", what_is_there(self.file, "")))
    }
}

fn kind_of(file: &File, path: &str) -> Option<LocationType> {
    if path.is_empty() {
        return Some(LocationType::Group);
    }
    file.loc_type_by_name(path).ok()
}

fn exists(file: &File, path: &str) -> bool {
    kind_of(file, path).is_some()
}

fn is_group(file: &File, path: &str) -> bool {
    matches!(kind_of(file, path), Some(LocationType::Group))
}

fn is_dataset(file: &File, path: &str) -> bool {
    matches!(kind_of(file, path), Some(LocationType::Dataset))
}

/// Names of a dataset's columns from its attribute `feature_names` or `columns`, if there are `width`.
pub(crate) fn column_names(dataset: &Dataset, width: usize) -> Option<Vec<String>> {
    ["feature_names", "columns"].into_iter().find_map(|name| {
        let names = super::hdf5_types::text_attribute(dataset, name)?;
        (names.len() == width).then_some(names)
    })
}

/// Whether the elements of a dataset can be a column, and as what.
pub(crate) fn element_of(dataset: &Dataset) -> Result<Element> {
    let dtype = dataset.dtype().map_err(|e| Error::data(format!("its type cannot be read: {}", reason(&e))))?;
    Element::of(&dtype)
}
