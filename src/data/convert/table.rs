//! A table whose columns may be of any type: what was seen of each column decides how it is stored; then rows are put there.

use super::number::{Number, Seen, put};
use crate::data::crew::{Crew, Plain};
use crate::data::hdf5::write::{CHUNK_BYTES, Cell, Sink, Writer, changed};
use crate::error::{Error, InContext, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A column of at most as many distinct strings is one of categories.
const MOST_CATEGORIES: usize = 10_000;
/// … if they do not take more than this.
const MOST_CATEGORY_BYTES: usize = 16 << 20;
/// Longer strings are not stored.
const LONGEST_TEXT: usize = 65_535;
/// Chunks that are being filled, of all columns with a dataset of their own.
const OWN_CHUNKS_BYTES: usize = 64 << 20;

/// The distinct strings of a column, as long as they are few.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Dictionary {
    distinct: BTreeSet<Box<[u8]>>,
    n_bytes: usize,
    /// There were too many of them.
    overflowed: bool,
    /// Bytes of the longest string.
    longest: usize,
}

impl Dictionary {
    /// Errors: what HDF5 cannot store.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<()> {
        if !self.overflowed && self.distinct.contains(text) {
            return Ok(());
        }
        if std::str::from_utf8(text).is_err() {
            return Err(Error::data("has bytes that are not UTF-8; convert it first, for instance with iconv"));
        }
        if text.contains(&0) {
            return Err(Error::data("has a zero byte, which HDF5 cannot store in a string"));
        }
        if text.len() > LONGEST_TEXT {
            return Err(Error::data(format!(
                "has a string of {} bytes; at most {LONGEST_TEXT} are stored",
                text.len()
            )));
        }
        self.longest = self.longest.max(text.len());
        if !self.overflowed {
            self.n_bytes += text.len();
            self.distinct.insert(text.into());
            self.check();
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: Dictionary) {
        self.longest = self.longest.max(other.longest);
        self.overflowed |= other.overflowed;
        if !self.overflowed {
            for text in other.distinct {
                let n_bytes = text.len();
                if self.distinct.insert(text) {
                    self.n_bytes += n_bytes;
                }
            }
        }
        self.check();
    }

    fn check(&mut self) {
        self.overflowed |= self.distinct.len() > MOST_CATEGORIES || self.n_bytes > MOST_CATEGORY_BYTES;
        if self.overflowed {
            self.distinct = BTreeSet::new();
        }
    }
}

/// What was seen of a column.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// Of a column of numbers.
    pub(super) seen: Seen,
    /// Some: a column of strings.
    pub(super) text: Option<Dictionary>,
}

/// Where a column goes.
#[derive(Serialize, Deserialize)]
enum Place {
    /// The next column of `X`.
    X,
    /// A dataset of its own, of numbers; `fill` stands for what is missing.
    Number { own: usize, fill: Option<i128> },
    /// A dataset of codes.
    Codes { own: usize, categories: Vec<Box<[u8]>> },
    /// A dataset of strings.
    Text { own: usize },
}

/// How a table is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    places: Vec<Place>,
    x: Option<(Cell, Vec<String>)>,
    own: Vec<Own>,
    /// Of `own`.
    target: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Own {
    name: String,
    cell: Cell,
}

/// Rows as they will be stored: bytes of `X`, and of each dataset of one column.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Rows {
    x: Plain<u8>,
    own: Vec<Plain<u8>>,
    /// Of strings: where each ends.
    ends: Vec<Plain<usize>>,
}

impl Plan {
    /// `target`: the column that becomes `y`. Errors: a column that no type of HDF5 holds.
    pub(super) fn of(columns: Vec<Column>, target: Option<usize>, writer: &Writer) -> Result<Plan> {
        let seen: Vec<Seen> = columns.iter().map(|column| column.seen.settled()).collect();
        let mut in_x: Vec<usize> =
            (0..columns.len()).filter(|&at| columns[at].text.is_none() && Some(at) != target).collect();
        let cell_of = |columns: &[usize]| {
            let mut all = Seen::default();
            columns.iter().for_each(|&column| all.merge(&seen[column]));
            all.narrowest()
        };
        if cell_of(&in_x).is_none() {
            // Whole numbers beyond 2⁵³ beside fractions: no type holds both.
            in_x.retain(|&column| !seen[column].is_wide());
        }
        let x = match cell_of(&in_x) {
            Some(cell) if !in_x.is_empty() => {
                Some((cell, in_x.iter().map(|&column| columns[column].name.clone()).collect()))
            }
            _ => None,
        };
        let mut plan = Plan { places: Vec::new(), x, own: Vec::new(), target: None };
        let mut used = vec!["X".to_string(), "y".to_string()];
        let mut rest = in_x.into_iter().peekable();
        for (at, column) in columns.into_iter().enumerate() {
            if rest.next_if_eq(&at).is_some() {
                plan.places.push(Place::X);
                continue;
            }
            let is_target = Some(at) == target;
            let name = if is_target { "y".to_string() } else { dataset_name(&column.name, &mut used, writer) };
            let own = plan.own.len();
            if is_target {
                plan.target = Some(own);
            }
            let (cell, place) = match column.text {
                Some(text) => text_place(text, own),
                None => number_place(&seen[at], own).in_dataset(&column.name)?,
            };
            plan.own.push(Own { name, cell });
            plan.places.push(place);
        }
        Ok(plan)
    }

    /// One column of strings, in a dataset of the column's own name.
    pub(super) fn of_text(column: Column) -> Plan {
        let (cell, place) = text_place(column.text.unwrap_or_default(), 0);
        Plan { places: vec![place], x: None, own: vec![Own { name: column.name, cell }], target: None }
    }

    /// The datasets that are features, and how many columns they are together.
    pub(super) fn features(&self) -> (Vec<String>, u64) {
        let own = self.own.iter().enumerate().filter(|(own, _)| Some(*own) != self.target);
        let own: Vec<String> = own.map(|(_, own)| own.name.clone()).collect();
        let n_columns = self.x.as_ref().map_or(0, |(_, names)| names.len()) + own.len();
        (self.x.iter().map(|_| "X".to_string()).chain(own).collect(), n_columns as u64)
    }

    pub(super) fn target(&self) -> Option<String> {
        self.target.map(|own| self.own[own].name.clone())
    }

    pub(super) fn rows(&self) -> Rows {
        let n = self.own.len();
        Rows { x: Plain::default(), own: vec![Plain::default(); n], ends: vec![Plain::default(); n] }
    }

    /// Whether a column is one of strings.
    pub(super) fn is_text(&self, column: usize) -> bool {
        matches!(self.places[column], Place::Codes { .. } | Place::Text { .. })
    }

    /// Appends the number of a row's column. Row by row, column by column. Errors: it is not what was seen before.
    pub(super) fn put_number(&self, column: usize, number: Number, rows: &mut Rows) -> Result<()> {
        let fits = match (&self.places[column], &self.x) {
            (Place::X, Some((cell, _))) => put(*cell, None, number, &mut rows.x),
            (Place::Number { own, fill }, _) => put(self.own[*own].cell, *fill, number, &mut rows.own[*own]),
            _ => false,
        };
        if fits { Ok(()) } else { Err(changed()) }
    }

    /// Appends the string of a row's column.
    pub(super) fn put_text(&self, column: usize, text: &[u8], rows: &mut Rows) -> Result<()> {
        match &self.places[column] {
            Place::Codes { own, categories } => {
                let code = categories.binary_search_by(|category| (**category).cmp(text)).map_err(|_| changed())?;
                match put(self.own[*own].cell, None, Number::Whole(code as i128), &mut rows.own[*own]) {
                    true => Ok(()),
                    false => Err(changed()),
                }
            }
            Place::Text { own } => {
                rows.own[*own].extend_from_slice(text);
                let end = rows.own[*own].len();
                rows.ends[*own].push(end);
                Ok(())
            }
            _ => Err(changed()),
        }
    }
}

fn text_place(text: Dictionary, own: usize) -> (Cell, Place) {
    if text.overflowed {
        return (Cell::Text(text.longest.max(1)), Place::Text { own });
    }
    let categories: Vec<Box<[u8]>> = text.distinct.into_iter().collect();
    let cell = match categories.len() {
        ..=256 => Cell::U8,
        257..=65_536 => Cell::U16,
        _ => Cell::U32,
    };
    (cell, Place::Codes { own, categories })
}

fn number_place(seen: &Seen, own: usize) -> Result<(Cell, Place)> {
    if let Some(cell) = seen.narrowest_of_kind() {
        return Ok((cell, Place::Number { own, fill: None }));
    }
    match seen.with_fill() {
        Some((cell, fill)) if seen.missing => Ok((cell, Place::Number { own, fill: Some(fill) })),
        _ => Err(Error::data("holds whole numbers that no type of 64 bits holds together")),
    }
}

/// A name that HDF5 takes and that is not used yet.
pub(super) fn dataset_name(column: &str, used: &mut Vec<String>, writer: &Writer) -> String {
    let mut name = column.replace(['/', '\0'], "_");
    if name.is_empty() || name == "." {
        name = "column".to_string();
    }
    while used.contains(&name) || writer.has(&name) {
        name.push('_');
    }
    used.push(name.clone());
    name
}

/// The datasets of a plan, being filled.
pub(super) struct TableSink<'p> {
    plan: &'p Plan,
    sink: Sink<'p>,
    x: Option<usize>,
    own: Vec<usize>,
}

impl TableSink<'_> {
    pub(super) fn new<'p>(plan: &'p Plan, writer: &Writer, crew: &'p dyn Crew, n_rows: u64) -> Result<TableSink<'p>> {
        let mut sink = Sink::new(writer, crew)?;
        let x = match &plan.x {
            Some((cell, names)) => {
                let at = sink.dataset(writer, "X", *cell, n_rows, &[names.len()], CHUNK_BYTES)?;
                writer.text_attribute("X", "feature_names", names)?;
                Some(at)
            }
            None => None,
        };
        let chunk_bytes = (OWN_CHUNKS_BYTES / plan.own.len().max(1)).clamp(16 << 10, CHUNK_BYTES);
        let mut own = Vec::new();
        for of in &plan.own {
            own.push(sink.dataset(writer, &of.name, of.cell, n_rows, &[], chunk_bytes)?);
        }
        for place in &plan.places {
            match place {
                Place::Codes { own, categories } => {
                    let text = |category: &[u8]| String::from_utf8_lossy(category).into_owned();
                    let texts: Vec<String> = categories.iter().map(|category| text(category)).collect();
                    writer.text_attribute(&plan.own[*own].name, "categories", &texts)?;
                }
                Place::Number { own, fill: Some(fill) } => {
                    let name = &plan.own[*own].name;
                    match i64::try_from(*fill) {
                        Ok(fill) => writer.fill_attribute(name, "_FillValue", fill)?,
                        Err(_) => writer.fill_attribute(name, "_FillValue", *fill as u64)?,
                    }
                }
                _ => {}
            }
        }
        Ok(TableSink { plan, sink, x, own })
    }

    /// The next rows of all datasets.
    pub(super) fn push(&mut self, rows: &Rows) -> Result<()> {
        if let Some(x) = self.x {
            self.sink.push(x, &rows.x)?;
        }
        for (own, bytes) in rows.own.iter().enumerate() {
            if !matches!(self.plan.own[own].cell, Cell::Text(_)) {
                self.sink.push(self.own[own], bytes)?;
                continue;
            }
            let mut begin = 0;
            for &end in rows.ends[own].iter() {
                self.sink.push_text(self.own[own], &bytes[begin..end])?;
                begin = end;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        self.sink.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_datasets_are_unique_and_without_slashes() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::append(&folder.path().join("t.h5"), "").unwrap();
        writer.text("site", &["a".to_string()]).unwrap();
        let mut used = vec!["X".to_string()];
        assert_eq!(dataset_name("X", &mut used, &writer), "X_");
        assert_eq!(dataset_name("a/b", &mut used, &writer), "a_b");
        assert_eq!(dataset_name("site", &mut used, &writer), "site_");
        assert_eq!(dataset_name("", &mut used, &writer), "column");
    }

    #[test]
    fn a_dictionary_does_not_depend_on_how_it_was_put_together() {
        let words: Vec<String> = (0..MOST_CATEGORIES + 1).map(|i| format!("w{}", i * 7919 % 10_007)).collect();
        for n in [3, MOST_CATEGORIES, MOST_CATEGORIES + 1] {
            let mut whole = Dictionary::default();
            words[..n].iter().for_each(|word| whole.add(word.as_bytes()).unwrap());
            assert_eq!(whole.overflowed, n > MOST_CATEGORIES);
            for cut in [0, 1, n / 2, n] {
                let (mut a, mut b) = (Dictionary::default(), Dictionary::default());
                words[..cut].iter().for_each(|word| a.add(word.as_bytes()).unwrap());
                words[cut..n].iter().for_each(|word| b.add(word.as_bytes()).unwrap());
                b.merge(a);
                assert_eq!((&b.distinct, b.overflowed, b.longest), (&whole.distinct, whole.overflowed, whole.longest));
            }
        }
        let mut dictionary = Dictionary::default();
        assert!(dictionary.add(b"a\0b").unwrap_err().to_string().contains("zero byte"));
        assert!(dictionary.add(b"\xff").unwrap_err().to_string().contains("UTF-8"));
        assert!(dictionary.add(&vec![b'a'; LONGEST_TEXT + 1]).unwrap_err().to_string().contains("65535"));
    }
}
