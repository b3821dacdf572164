//! What stands for what in a file, by the customs of those who write HDF5: fields of compound datasets, tables of pandas, columns
//! and sparse matrices of AnnData, placeholders of netCDF.

use super::compound::fields_of;
use super::find::{element_of, kind_of, member_names};
use super::library::LibraryRows;
use super::sound;
use super::text_rows::TextRows;
use super::types::{Element, text_attribute, trim_fixed};
use crate::data::names::join;
use crate::error::{Error, Result};
use hdf5::{Dataset, File, Group, Location, LocationType};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Group,
    /// Its elements are values.
    Dataset,
    /// A compound dataset, or a field of it that is compound itself (`prefix`, empty for all): stands for its fields.
    Fields {
        dataset: String,
        prefix: String,
    },
    /// A field of a compound dataset. As a path: `dataset/field`.
    Field {
        dataset: String,
        field: String,
    },
    /// A group of `codes` and `categories`: one column of strings, as AnnData keeps it.
    Categorical,
    /// A group of `data`, `indices` and `indptr`: a sparse matrix by rows, as SciPy and AnnData keep it.
    Sparse,
}

impl Thing {
    /// Whether it is something that columns are read from.
    pub(crate) fn is_column(&self) -> bool {
        matches!(self, Thing::Dataset | Thing::Field { .. } | Thing::Categorical)
    }
}

/// Something that columns are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// From the root; a field's is `dataset/field`.
    pub(crate) path: String,
    /// Of the dataset or group that it is in the file: another one than `path` for fields.
    pub(crate) object: String,
}

/// The names of a compound dataset's fields.
struct FieldNames {
    stored: Vec<String>,
    sorted: BTreeSet<String>,
}

/// A file, and the fields of the compound datasets that were looked at.
pub(crate) struct Contents<'a> {
    pub(crate) file: &'a File,
    compounds: RefCell<BTreeMap<String, Option<Rc<FieldNames>>>>,
}

/// Deeper groups are not looked into: a file's links may go round in circles.
const MAX_DEPTH: usize = 12;
/// A pattern looks at no more objects than this.
const MAX_OBJECTS: usize = 100_000;

impl<'a> Contents<'a> {
    pub(crate) fn of(file: &'a File) -> Contents<'a> {
        Contents { file, compounds: RefCell::default() }
    }

    /// What is at `path` (from the root, without a leading slash).
    pub(crate) fn at(&self, path: &str) -> Option<Thing> {
        match kind_of(self.file, path) {
            Some(LocationType::Dataset) => Some(match self.is_table(path) {
                true => Thing::Fields { dataset: path.to_string(), prefix: String::new() },
                false => Thing::Dataset,
            }),
            Some(LocationType::Group) => Some(self.kind_of_group(path)),
            Some(_) => None,
            None => self.field_at(path),
        }
    }

    /// The same path, or the field that it means: `df/pt` is `df/table/pt` in a table of pandas.
    pub(crate) fn settled(&self, path: &str) -> String {
        if kind_of(self.file, path).is_none() {
            for (at, _) in path.match_indices('/') {
                let (group, rest) = (&path[..at], &path[at + 1..]);
                if let Some(table) = self.table_of(group) {
                    let field = join(&table, rest);
                    return if self.at(&field).is_some() { field } else { path.to_string() };
                }
            }
        }
        path.to_string()
    }

    /// What the thing at `path` stands for. Empty for a group without columns.
    ///
    /// A group stands for its columns: those of its compound dataset `table`, its 1-D datasets (`vectors`: also those of one
    /// row or one column) or the blocks of a fixed table of pandas. What only numbers the rows is left out.
    pub(crate) fn sources(&self, path: &str, vectors: bool) -> Vec<Source> {
        let itself = || vec![Source { path: path.to_string(), object: path.to_string() }];
        match self.at(path) {
            Some(Thing::Fields { dataset, prefix }) => self.fields(&dataset, &prefix),
            Some(Thing::Field { dataset, .. }) => vec![Source { path: path.to_string(), object: dataset }],
            Some(Thing::Dataset | Thing::Categorical | Thing::Sparse) => itself(),
            Some(Thing::Group) => self.columns_of_group(path, vectors),
            None => Vec::new(),
        }
    }

    /// Everything below `base` that columns may be read from, bytewise by object, fields in the order stored.
    ///
    /// * `levels`: of names below `base`. None: any.
    pub(crate) fn below(&self, base: &str, levels: Option<usize>) -> Result<Vec<Source>> {
        let mut found = Vec::new();
        match self.at(base) {
            Some(Thing::Group) => {
                let mut n_objects = 0;
                self.walk(base, levels.unwrap_or(MAX_DEPTH).min(MAX_DEPTH), &mut n_objects, &mut found)?;
            }
            Some(_) => found = self.sources(base, false),
            None => {}
        }
        found.sort_by(|a, b| a.object.cmp(&b.object)); // stable: fields stay as stored
        Ok(found)
    }

    fn walk(&self, path: &str, levels: usize, n_objects: &mut usize, found: &mut Vec<Source>) -> Result<()> {
        if self.is_fixed_table(path) {
            found.extend(self.columns_of_group(path, false));
            return Ok(());
        }
        let Some(group) = self.group(path) else { return Ok(()) };
        for name in member_names(&group) {
            *n_objects += 1;
            if *n_objects > MAX_OBJECTS {
                return Err(Error::usage(format!(
                    "a pattern has more than {MAX_OBJECTS} objects to look at; name the group that the features are in"
                )));
            }
            let inner = join(path, &name);
            match self.at(&inner) {
                Some(Thing::Group) if levels > 1 && !is_index_of_pytables(&group, &name) => {
                    self.walk(&inner, levels - 1, n_objects, found)?;
                }
                Some(Thing::Group) => {}
                Some(Thing::Dataset) if axes_of(&group, &name).is_some_and(|axes| axes.is_empty()) => {}
                Some(_) => found.extend(self.sources(&inner, false)),
                None if self.is_lost(&inner) => found.push(Source { path: inner.clone(), object: inner }),
                None => {}
            }
        }
        Ok(())
    }

    fn columns_of_group(&self, path: &str, vectors: bool) -> Vec<Source> {
        if let Some(table) = self.table_of(path) {
            return self.fields(&table, "");
        }
        let Some(group) = self.group(path) else { return Vec::new() };
        let mut names = member_names(&group);
        if self.is_fixed_table(path) {
            let block = |name: &str| name.strip_prefix("block")?.strip_suffix("_values")?.parse::<u32>().ok();
            names.retain(|name| block(name).is_some());
            names.sort_by_key(|name| block(name));
        } else {
            let index = text_of(&group, "_index");
            names.retain(|name| {
                Some(name) != index.as_ref()
                    && match self.at(&join(path, name)) {
                        Some(Thing::Categorical) => true,
                        Some(Thing::Dataset) => axes_of(&group, name)
                            .is_none_or(|axes| axes.len() == 1 || (vectors && axes.len() == 2 && axes.contains(&1))),
                        None => self.is_lost(&join(path, name)),
                        _ => false,
                    }
            });
        }
        names.into_iter().map(|name| join(path, &name)).map(|path| Source { object: path.clone(), path }).collect()
    }

    /// The compound dataset that a group of PyTables or pandas stands for.
    fn table_of(&self, group: &str) -> Option<String> {
        let table = join(group, "table");
        let is_table = matches!(kind_of(self.file, group), Some(LocationType::Group))
            && matches!(kind_of(self.file, &table), Some(LocationType::Dataset))
            && self.is_table(&table);
        is_table.then_some(table)
    }

    /// The fields of a compound dataset that begin with `prefix`, without the one that numbers the rows of pandas.
    fn fields(&self, dataset: &str, prefix: &str) -> Vec<Source> {
        let Some(fields) = self.field_names(dataset) else { return Vec::new() };
        let opened = sound::open(self.file, dataset).ok();
        let numbers_rows = opened.is_some_and(|dataset| dataset.attr("index_kind").is_ok());
        let inside =
            |name: &&String| prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        fields
            .stored
            .iter()
            .filter(inside)
            .filter(|name| !(numbers_rows && *name == "index"))
            .map(|name| Source { path: join(dataset, name), object: dataset.to_string() })
            .collect()
    }

    fn field_at(&self, path: &str) -> Option<Thing> {
        let (dataset, field) = path
            .match_indices('/')
            .map(|(at, _)| (&path[..at], &path[at + 1..]))
            .find(|(outer, _)| matches!(kind_of(self.file, outer), Some(LocationType::Dataset)))?;
        let fields = self.field_names(dataset)?;
        let (dataset, field) = (dataset.to_string(), field.to_string());
        if fields.sorted.contains(&field) {
            return Some(Thing::Field { dataset, field });
        }
        let inner = format!("{field}/");
        let has_inner = fields.sorted.range(inner.clone()..).next().is_some_and(|name| name.starts_with(&inner));
        has_inner.then_some(Thing::Fields { dataset, prefix: field })
    }

    /// None: not compound.
    fn field_names(&self, dataset: &str) -> Option<Rc<FieldNames>> {
        if let Some(known) = self.compounds.borrow().get(dataset) {
            return known.clone();
        }
        let opened = sound::open(self.file, dataset).ok()?;
        let stored: Vec<String> = fields_of(&opened).into_iter().map(|field| field.name()).collect();
        let sorted = stored.iter().cloned().collect();
        let names = (!stored.is_empty()).then(|| Rc::new(FieldNames { stored, sorted }));
        self.compounds.borrow_mut().insert(dataset.to_string(), names.clone());
        names
    }

    /// A compound dataset, unless its elements are complex numbers.
    fn is_table(&self, dataset: &str) -> bool {
        self.field_names(dataset).is_some_and(|fields| fields.stored != ["r", "i"])
    }

    fn kind_of_group(&self, path: &str) -> Thing {
        let has = |name| matches!(kind_of(self.file, &join(path, name)), Some(LocationType::Dataset));
        if path.is_empty() {
            return Thing::Group;
        }
        match () {
            _ if has("codes") && has("categories") => Thing::Categorical,
            _ if has("indptr") && has("indices") && has("data") => Thing::Sparse,
            _ => Thing::Group,
        }
    }

    /// A table of pandas by blocks of equal type.
    fn is_fixed_table(&self, path: &str) -> bool {
        self.group(path).and_then(|group| text_of(&group, "pandas_type")).is_some_and(|of| of == "frame")
    }

    /// Whether there is a link of this name that cannot be followed. It stands for itself, so that it is not left out unsaid.
    pub(crate) fn is_lost(&self, path: &str) -> bool {
        let (outer, name) = path.rsplit_once('/').unwrap_or(("", path));
        kind_of(self.file, path).is_none() && self.group(outer).is_some_and(|group| group.link_exists(name))
    }

    fn group(&self, path: &str) -> Option<Group> {
        sound::open_group(self.file, if path.is_empty() { "/" } else { path }).ok()
    }
}

/// The shape of a dataset: empty for single values, and for what netCDF writes for a dimension without values. None: it
/// cannot be opened, which is for its reader to say.
fn axes_of(group: &Group, name: &str) -> Option<Vec<usize>> {
    const PLACEHOLDER: &str = "This is a netCDF dimension but not a netCDF variable";
    let dataset = sound::open(group, name).ok()?;
    match text_of(&dataset, "NAME").is_some_and(|name| name.starts_with(PLACEHOLDER)) {
        true => Some(Vec::new()),
        false => Some(dataset.shape()),
    }
}

fn is_index_of_pytables(group: &Group, name: &str) -> bool {
    name.starts_with("_i_")
        && sound::open_group(group, name).is_ok_and(|inner| text_of(&inner, "CLASS").is_some_and(|of| of == "TINDEX"))
}

/// The one string of an attribute.
fn text_of(object: &Location, name: &str) -> Option<String> {
    match text_attribute(object, name)?.as_slice() {
        [text] => Some(text.clone()),
        _ => None,
    }
}

/// Names of the `width` columns of a dataset or a sparse matrix at `path` that the file keeps beside it: `block0_items` of
/// pandas, `var` of AnnData.
pub(crate) fn names_beside(file: &File, path: &str, width: usize) -> Option<Vec<String>> {
    let (outer, name) = path.rsplit_once('/').unwrap_or(("", path));
    let names = if let Some(block) = name.strip_suffix("_values").filter(|name| name.starts_with("block")) {
        join(outer, &format!("{block}_items"))
    } else if name == "X" {
        let var = join(outer, "var");
        let index = text_of(&*sound::open_group(file, &var).ok()?, "_index")?;
        join(&var, &index)
    } else {
        return None;
    };
    strings_of(&sound::open(file, &names).ok()?, width).ok()?
}

/// All strings of a 1-D dataset; None if that is not what it is, if there are not `n` of them, or too many. Errors: what of them
/// cannot be read.
pub(crate) fn strings_of(dataset: &Dataset, n: usize) -> Result<Option<Vec<String>>> {
    const MAX_BYTES: usize = 64 << 20;
    if dataset.shape() != [n] || n > MAX_BYTES / std::mem::size_of::<usize>() {
        return Ok(None);
    }
    let library = || LibraryRows::new(dataset.clone(), None);
    let utf8 = |text: &[u8]| String::from_utf8(text.to_vec()).map_err(|_| Error::data("is not UTF-8"));
    match element_of(dataset) {
        Ok(Element::FixedText { bytes, padded_with_spaces })
            if bytes > 0 && bytes.checked_mul(n).is_some_and(|all| all <= MAX_BYTES) =>
        {
            let mut buffer = vec![0u8; bytes * n];
            library().read_fixed_text(0..n as u64, bytes, &mut buffer)?;
            buffer.chunks(bytes).map(|text| utf8(trim_fixed(text, padded_with_spaces))).collect::<Result<_>>().map(Some)
        }
        Ok(Element::Text) => {
            let mut texts = Vec::new();
            let each = |_: usize, text: &[u8]| utf8(text).map(|text| texts.push(text));
            match TextRows::of(dataset) {
                Ok(rows) => rows.read(0..n as u64, 1, &mut rows.allowance(n as u64), &mut Vec::new(), each)?,
                Err(_) => library().read_text(0..n as u64, each)?,
            }
            Ok(Some(texts))
        }
        _ => Ok(None),
    }
}

/// Names of the `width` columns of an array field, as pandas keeps them: a pickled list of strings in the attribute
/// `values_block_0_kind` of the table.
pub(crate) fn names_of_field(table: &Dataset, field: &str, width: usize) -> Option<Vec<String>> {
    let names = unpickled(&text_of(table, &format!("{field}_kind"))?)?;
    (names.len() == width).then_some(names)
}

/// The strings of a list as Python's pickle protocol 0 writes it, and only that: `(lp0`, per string `V…`, `p1` and `a`, then `.`.
fn unpickled(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut lines = text.strip_prefix("(lp0\n")?.lines();
    loop {
        let line = lines.next()?;
        // The `a` that adds the string before it stands without a line of its own.
        match line.strip_prefix('a').unwrap_or(line) {
            "." => return lines.next().is_none().then_some(names),
            line => {
                let name = line.strip_prefix('V')?;
                if name.contains('\\') {
                    return None;
                }
                lines.next()?.strip_prefix('p')?;
                names.push(name.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickled_list_of_strings_is_read_and_nothing_else() {
        let names = |text| unpickled(text);
        assert_eq!(names("(lp0\n."), Some(vec![]));
        assert_eq!(names("(lp0\nVday\np1\na."), Some(vec!["day".to_string()]));
        assert_eq!(names("(lp0\nVa b\np1\naVav\np2\na."), Some(vec!["a b".to_string(), "av".to_string()]));
        for odd in [
            "",
            "(lp0\n",
            "(lp0\nVday\np1\n",
            "(lp0\nI1\np1\na.",
            "(lp0\nV\\u20ac\np1\na.",
            "(lp0\nVa\np1\na.\nx",
            "N.",
        ] {
            assert_eq!(names(odd), None, "{odd}");
        }
    }
}
