//! What is in a file, and which of it is the table: names as typed, or found.

use super::contents::{Contents, Source, Thing, names_beside};
use super::sound;
use super::types::{Element, header_address, reason, type_name};
use crate::data::names::{FEATURE_NAMES, Need, Pattern, TARGET_NAMES, TableNames, is_pattern, join};
use crate::error::{Error, InContext, Result};
use hdf5::{Dataset, File, Group, IndexType, IterationOrder, LocationType};
use std::collections::BTreeSet;

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

/// Deeper groups are not looked into.
const MAX_DEPTH: usize = 12;
/// More objects than this are not listed.
const MAX_OBJECTS: usize = 20_000;

/// Every object under `group` (its path from the root), in bytewise order of names.
pub(crate) fn list(group: &Group, path: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    list_into(group, path.trim_matches('/'), &mut Vec::new(), &mut entries);
    entries
}

/// `above`: the groups on the way here, by file and place. One that is among them is not looked into again.
fn list_into(group: &Group, path: &str, above: &mut Vec<(String, Option<u64>)>, entries: &mut Vec<Entry>) {
    let here = (group.filename(), header_address(group));
    if above.contains(&here) {
        return;
    }
    above.push(here);
    for name in member_names(group) {
        if entries.len() >= MAX_OBJECTS {
            break;
        }
        let path = join(path, &name);
        let object = open_object(group, &name);
        let is_group = matches!(object, Object::Group);
        entries.push(Entry { path: path.clone(), object });
        if is_group
            && above.len() <= MAX_DEPTH
            && let Ok(inner) = group.group(&name)
        {
            list_into(&inner, &path, above, entries);
        }
    }
    above.pop();
}

pub(crate) fn member_names(group: &Group) -> Vec<String> {
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
        Ok(LocationType::Dataset) => match sound::open(group, name) {
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

/// The table of `file`: every name settled, features as datasets and fields (a group became its columns).
pub(crate) fn resolve(file: &File, names: &TableNames, need: Need) -> Result<TableNames> {
    let names = &names.tidy();
    let finder = Finder { contents: Contents::of(file), names, need };
    let group = finder.group()?;
    let mut found = TableNames {
        group: Some(group.clone()).filter(|g| !g.is_empty()),
        exclude: Vec::new(),
        target: finder.targets(&group)?,
        weight: names.weight.as_ref().map(|name| finder.settled(&group, name)),
        offset: names.offset.as_ref().map(|name| finder.settled(&group, name)),
        ..names.clone()
    };
    let mut features = found.features.clone();
    if features.is_empty() {
        features.push(finder.feature_in(&group)?.ok_or_else(|| finder.nothing_found(&group))?);
    }
    let with_target = need != Need::Predict;
    if found.target.is_none() {
        found.target = finder.target_for(&group, &features)?;
    }
    found.features = finder.columns(&group, &features, &found)?;
    if with_target && found.target.is_none() {
        return Err(Error::usage(format!(
            "no target: none of {} is there; name one with --target (there is: {})",
            TARGET_NAMES.join(", "),
            what_is_there(file, "")
        )));
    }
    for name in [&found.weight, &found.offset].into_iter().flatten() {
        if need != Need::Predict || found.offset.as_ref() == Some(name) {
            finder.must_be_column(&join(&group, name))?;
        }
    }
    for target in targets_of(&finder.contents, &found).into_iter().filter(|_| with_target) {
        finder.must_be_column(&join(&group, &target))?;
    }
    finder.check_orientation(&found)?;
    Ok(found)
}

/// The targets of names that were found: one, or several with commas between where there is none of the whole name.
pub(crate) fn targets_of(contents: &Contents<'_>, found: &TableNames) -> Vec<String> {
    match &found.target {
        None => Vec::new(),
        Some(name) if contents.at(&found.path(name)).is_some() => vec![name.clone()],
        Some(names) => names.split(',').map(str::to_string).collect(),
    }
}

struct Finder<'a> {
    contents: Contents<'a>,
    names: &'a TableNames,
    need: Need,
}

impl Finder<'_> {
    /// Where the names start: as typed, or the root, or the one group that has the features.
    fn group(&self) -> Result<String> {
        let file = self.contents.file;
        if let Some(group) = &self.names.group {
            let group = group.trim_matches('/').to_string();
            if !group.is_empty() && !is_group(file, &group) {
                return Err(Error::usage(format!(
                    "there is no group '{group}' (--group); there is: {}",
                    what_is_there(file, "")
                )));
            }
            return Ok(group);
        }
        if self.has_features("")? {
            return Ok(String::new());
        }
        let mut having = Vec::new();
        for entry in list(file, "") {
            if matches!(entry.object, Object::Group) && self.has_features(&entry.path)? {
                having.push(entry.path);
            }
        }
        match having.len() {
            0 => Ok(String::new()), // the error for what is missing comes with the names
            1 => Ok(having.remove(0)),
            _ => Err(Error::usage(format!(
                "several groups could be the table: {}; choose with --group (there is: {})",
                having.join(", "),
                what_is_there(file, "")
            ))),
        }
    }

    fn has_features(&self, group: &str) -> Result<bool> {
        if self.names.features.is_empty() {
            return Ok(FEATURE_NAMES.iter().any(|name| self.could_be_features(&join(group, name))));
        }
        for word in &self.names.features {
            let path = join(group, word);
            let there = self.contents.at(&self.contents.settled(&path)).is_some();
            if !there && (!is_pattern(word) || self.matching(group, word)?.is_empty()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn could_be_features(&self, path: &str) -> bool {
        !self.contents.sources(path, self.names.transpose).is_empty()
    }

    /// The one name in `group` that features have by custom.
    fn feature_in(&self, group: &str) -> Result<Option<String>> {
        let found: Vec<&str> =
            FEATURE_NAMES.into_iter().filter(|name| self.could_be_features(&join(group, name))).collect();
        self.only(group, &found, "features", "--features")
    }

    /// The targets that were named, as what they mean in the file.
    fn targets(&self, group: &str) -> Result<Option<String>> {
        let Some(typed) = &self.names.target else { return Ok(None) };
        let whole = self.settled(group, typed);
        if !typed.contains(',') || self.contents.at(&join(group, &whole)).is_some() {
            return Ok(Some(whole));
        }
        let words: Vec<&str> = typed.split(',').map(str::trim).collect();
        let wrong = |text: String| Err(Error::usage(text)).for_flag("--target");
        if words.contains(&"") {
            return wrong(format!("'{typed}' lacks a name beside a comma"));
        }
        let settled: Vec<String> = words.into_iter().map(|word| self.settled(group, word)).collect();
        match settled.iter().enumerate().find(|(at, name)| settled[..*at].contains(name)) {
            Some((_, twice)) => wrong(format!("'{twice}' is named twice")),
            None => Ok(Some(settled.join(","))),
        }
    }

    /// The target by custom: beside the features, or inside the group or compound dataset that holds them as columns.
    fn target_for(&self, group: &str, features: &[String]) -> Result<Option<String>> {
        let mut places = vec![String::new()];
        for word in features {
            match self.contents.at(&self.contents.settled(&join(group, word))) {
                Some(Thing::Group | Thing::Fields { .. }) => places.push(word.clone()),
                Some(Thing::Field { dataset, .. }) => places.push(relative(group, word, &dataset)),
                None if is_pattern(word) => {
                    places.push(Pattern::of(word)?.base().to_string());
                    let of_fields =
                        self.matching(group, word)?.into_iter().filter(|source| source.object != source.path);
                    places.extend(of_fields.map(|source| relative(group, word, &source.object)));
                }
                _ => {}
            }
        }
        places.dedup();
        for place in places {
            let mut found: Vec<String> = TARGET_NAMES
                .iter()
                .map(|name| self.settled(group, &inside(&place, name)))
                .filter(|name| self.contents.at(&join(group, name)).is_some_and(|thing| thing.is_column()))
                .filter(|name| !features.contains(name))
                .collect();
            found.dedup();
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
        match self.contents.file.group(if group.is_empty() { "/" } else { group }) {
            Ok(opened) => what_is_there(&opened, group),
            Err(_) => what_is_there(self.contents.file, ""),
        }
    }

    fn nothing_found(&self, group: &str) -> Error {
        Error::usage(format!(
            "no features: none of {} is there; name them with --features or --group (there is: {})",
            FEATURE_NAMES.join(", "),
            self.there(group)
        ))
    }

    /// Features as datasets and fields relative to `group`. What stands for several does not stand for targets, weights and
    /// offsets, nor for what was there before.
    fn columns(&self, group: &str, words: &[String], found: &TableNames) -> Result<Vec<String>> {
        let labels = [&found.weight, &found.offset].into_iter().flatten().cloned();
        let labels = labels.chain(targets_of(&self.contents, found));
        let single: Vec<String> = labels.map(|name| join(group, &name)).collect();
        let mut columns: Vec<String> = Vec::new();
        let mut paths = BTreeSet::new();
        for word in words {
            let path = self.contents.settled(&join(group, word));
            let thing = self.contents.at(&path);
            let several = match &thing {
                Some(Thing::Group | Thing::Fields { .. }) => self.contents.sources(&path, self.names.transpose),
                None if is_pattern(word) => self.matching(group, word)?,
                Some(_) => {
                    if !paths.insert(path.clone()) {
                        return Err(Error::usage(format!("'{word}' is named twice (--features)")));
                    }
                    columns.push(relative(group, word, &path));
                    continue;
                }
                None => return Err(self.missing(&path)),
            };
            let before = columns.len();
            let some = !several.is_empty();
            for source in several {
                if !single.contains(&source.path) && paths.insert(source.path.clone()) {
                    columns.push(relative(group, word, &source.path));
                }
            }
            if columns.len() == before {
                return Err(match thing {
                    Some(Thing::Group) if !some => Error::data(format!(
                        "group '{path}' has no 1-D datasets to be columns (there is: {})",
                        self.there(&path)
                    )),
                    _ if some => Error::usage(format!(
                        "'{word}' stands for no feature beside those named before it, the target, the weight and the \
                         offset (--features); there is: {}",
                        self.there("")
                    )),
                    _ => Error::usage(format!(
                        "'{word}' matches no dataset (--features); there is: {}",
                        self.there(group)
                    )),
                });
            }
        }
        self.leave_out(group, columns)
    }

    /// What a pattern matches: by its own path, or because the compound dataset that has it as a field matches.
    fn matching(&self, group: &str, word: &str) -> Result<Vec<Source>> {
        let pattern = Pattern::of(word)?;
        let mut sources = self.contents.below(&join(group, pattern.base()), pattern.levels())?;
        let matches = |path: &str| pattern.matches(&relative(group, word, path));
        sources.retain(|source| matches(&source.path) || (source.object != source.path && matches(&source.object)));
        Ok(sources)
    }

    /// Without what `--exclude` names.
    fn leave_out(&self, group: &str, columns: Vec<String>) -> Result<Vec<String>> {
        let mut left = columns.clone();
        for word in &self.names.exclude {
            let pattern = Pattern::of(word)?;
            let matches = |column: &String| {
                let path = join(group, column);
                let last = path.rsplit('/').next().unwrap_or(&path);
                pattern.matches(&relative(group, word, &path)) || pattern.matches(last)
            };
            if !columns.iter().any(matches) {
                return Err(Error::usage(format!(
                    "--exclude '{word}' matches none of the features: {}",
                    few(&columns)
                )));
            }
            left.retain(|column| !matches(column));
        }
        if left.is_empty() {
            return Err(Error::usage(format!("--exclude leaves none of the features: {}", few(&columns))));
        }
        match left.iter().map(|column| join(group, column)).find(|path| self.contents.at(path).is_none()) {
            Some(lost) => Err(self.missing(&lost)),
            None => Ok(left),
        }
    }

    /// A name relative to `group`, as what it means in the file.
    fn settled(&self, group: &str, name: &str) -> String {
        let path = join(group, name);
        match self.contents.settled(&path) {
            settled if settled == path => name.to_string(),
            settled => relative(group, name, &settled),
        }
    }

    fn must_be_column(&self, path: &str) -> Result<()> {
        match self.contents.at(path) {
            Some(thing) if thing.is_column() => Ok(()),
            Some(Thing::Fields { .. }) => {
                let fields = self.contents.sources(path, false);
                let such = fields.first().map_or(path, |field| &field.path);
                Err(Error::data(format!("'{path}' is compound; name one of its fields, such as '{such}'")))
            }
            _ => Err(self.missing(path)),
        }
    }

    /// Errors: features are stored column by column, as the length of the target shows.
    fn check_orientation(&self, found: &TableNames) -> Result<()> {
        const LOOKED_AT: usize = 8;
        if found.transpose {
            return Ok(());
        }
        let open = |name: &String| {
            let path = found.path(name);
            let dataset = sound::open(self.contents.file, &path).ok()?;
            Some((path, shape_of(&dataset), dataset.attr("MATLAB_class").is_ok()))
        };
        let target = targets_of(&self.contents, found).into_iter().next();
        let Some((target, target_shape, target_of_matlab)) = target.as_ref().and_then(open) else {
            return Ok(());
        };
        let n_rows = match target_shape[..] {
            [n] | [1, n] | [n, 1] => n,
            _ => return Ok(()),
        };
        for (path, shape, of_matlab) in found.features.iter().take(LOOKED_AT).filter_map(open) {
            let [first, last] = shape[..] else { continue };
            let of_matlab = of_matlab || target_of_matlab;
            let target_lies = target_shape.len() == 2 && target_shape[0] == 1 && n_rows > 1;
            if (first != n_rows && last == n_rows) || (of_matlab && target_lies && last == n_rows) {
                let who = match of_matlab {
                    true => "MATLAB writes arrays column by column, so that rows are the last axis",
                    false => "rows are the last axis if they were written column by column, as by Fortran, Julia and R",
                };
                return Err(Error::usage(format!(
                    "'{path}' is {} and '{target}' has {n_rows} values: {who}; read them so with --transpose",
                    shape_text(&shape)
                )));
            }
        }
        Ok(())
    }

    fn missing(&self, path: &str) -> Error {
        let file = self.contents.file;
        let what = match file.loc_type_by_name(path) {
            Ok(_) => "is a group, not a dataset".to_string(),
            Err(e) if self.contents.is_lost(path) => {
                format!("is a link that cannot be followed ({}); leave it out with --exclude", reason(&e))
            }
            Err(_) => "is not there".to_string(),
        };
        Error::data(format!("'{path}' {what}; there is: {}", what_is_there(file, "")))
    }
}

/// `name` in the group `place`, which may be absolute.
fn inside(place: &str, name: &str) -> String {
    match place.trim_end_matches('/') {
        "" if place.is_empty() => name.to_string(),
        place => format!("{place}/{name}"),
    }
}

/// The path of a dataset as a name like `word`: from the root if that is, else from `group`.
fn relative(group: &str, word: &str, path: &str) -> String {
    let below = match group {
        "" => Some(path),
        group => path.strip_prefix(group).and_then(|path| path.strip_prefix('/')),
    };
    match below {
        Some(below) if !word.starts_with('/') => below.to_string(),
        _ => format!("/{path}"),
    }
}

/// Some of many names, for a message.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names.len() {
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

pub(crate) fn kind_of(file: &File, path: &str) -> Option<LocationType> {
    if path.is_empty() {
        return Some(LocationType::Group);
    }
    file.loc_type_by_name(path).ok()
}

fn is_group(file: &File, path: &str) -> bool {
    matches!(kind_of(file, path), Some(LocationType::Group))
}

/// Names of a dataset's columns, if there are `width` different ones: from its attribute `feature_names` or `columns`, or from a dataset beside.
pub(crate) fn column_names(dataset: &Dataset, width: usize) -> Option<Vec<String>> {
    let of_attribute = ["feature_names", "columns"].into_iter().find_map(|name| {
        let names = super::types::text_attribute(dataset, name)?;
        (names.len() == width).then_some(names)
    });
    of_attribute
        .or_else(|| names_beside(&dataset.file().ok()?, dataset.name().trim_matches('/'), width))
        .filter(|names| names.iter().collect::<BTreeSet<_>>().len() == names.len())
}

/// Whether the elements of a dataset can be a column, and as what.
pub(crate) fn element_of(dataset: &Dataset) -> Result<Element> {
    let dtype = dataset.dtype().map_err(|e| Error::data(format!("its type cannot be read: {}", reason(&e))))?;
    Element::of(&dtype)
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
