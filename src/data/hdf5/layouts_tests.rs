//! The same table in every layout of `data/layouts` (made by `data/make_layouts.py`): the same rows.

use super::*;
use crate::data::hdf5::Hdf5Source;
use crate::data::{Block, DataSource, SparseRows, Targets, Values, files};

/// What `table.json` says.
struct Expected {
    names: Vec<String>,
    classes: Vec<String>,
    target: Vec<usize>,
    /// NaN where missing.
    rows: Vec<Vec<f64>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts")
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(folder().join("table.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let texts = |key: &str| list(&json[key]).iter().map(|name| name.as_str().unwrap().to_string()).collect();
    Expected {
        names: texts("names"),
        classes: texts("classes"),
        target: list(&json["target"]).iter().map(|class| class.as_u64().unwrap() as usize).collect(),
        rows: list(&json["rows"])
            .iter()
            .map(|row| list(row).iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect())
            .collect(),
    }
}

/// A layout: the word for its files, and how it is named.
struct Layout {
    files: &'static str,
    names: TableNames,
    /// The columns in the order they are read.
    columns: [&'static str; 5],
    /// Whether they are called so; if not, only their place is known.
    named: bool,
}

const IN_ORDER: [&str; 5] = ["day", "charge", "energy", "tight", "hits"];

fn layout(files: &'static str, features: &str) -> Layout {
    let features = features.split(',').filter(|word| !word.is_empty()).map(str::to_string).collect();
    Layout { files, names: TableNames { features, ..TableNames::default() }, columns: IN_ORDER, named: true }
}

impl Layout {
    fn target(mut self, name: &str) -> Layout {
        self.names.target = Some(name.to_string());
        self
    }

    fn exclude(mut self, word: &str) -> Layout {
        self.names.exclude.push(word.to_string());
        self
    }

    /// By a group or a pattern.
    fn bytewise(self) -> Layout {
        self.ordered(["charge", "day", "energy", "hits", "tight"])
    }

    fn ordered(self, columns: [&'static str; 5]) -> Layout {
        Layout { columns, ..self }
    }

    fn unnamed(self) -> Layout {
        Layout { named: false, ..self }
    }

    fn open(&self, folder: &Path) -> Result<Hdf5Source> {
        // The word is relative to the folder; lists keep their `@`.
        let word = match self.files.strip_prefix('@') {
            Some(list) => format!("@{}", folder.join(list).display()).into(),
            None => folder.join(self.files),
        };
        Hdf5Source::open(&files::expand(&[word])?, &self.names, Need::Train)
    }

    /// Checks names, every value and every target against `table.json`, read at once and in pieces.
    fn check(&self, expected: &Expected) {
        let mut source = self.open(&folder()).unwrap_or_else(|e| panic!("{}: {e}", self.files));
        let n_rows = source.schema().n_rows;
        assert_eq!(n_rows, 37, "{}", self.files);
        let names: Vec<&str> = source.schema().columns.iter().map(|column| column.name.as_str()).collect();
        assert!(!self.named || names == self.columns, "{}: {names:?}", self.files);
        let place = |name: &&str| expected.names.iter().position(|known| known == name).unwrap();
        let places: Vec<usize> = self.columns.iter().map(place).collect();
        let mut block = Block::empty();
        for rows in [0..n_rows, 3..4, 15..31, 0..0, 36..37] {
            source.read(rows.clone(), &mut block).unwrap_or_else(|e| panic!("{}: {e}", self.files));
            let values: Vec<f64> = match &block.values {
                Values::Sparse(rows) => spread(rows, expected.names.len()),
                Values::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
                Values::F64(values) => values.clone(),
            };
            let range = rows.start as usize..rows.end as usize;
            let wanted = expected.rows[range.clone()].iter().flat_map(|row| places.iter().map(|&place| row[place]));
            let wanted: Vec<f64> = wanted.collect();
            let same = |a: &f64, b: &f64| a == b || (a.is_nan() && b.is_nan());
            assert_eq!(values.len(), wanted.len(), "{}", self.files);
            assert!(values.iter().zip(&wanted).all(|(a, b)| same(a, b)), "{}: {values:?}\n{wanted:?}", self.files);
            let classes = &expected.target[range];
            match &block.target {
                Targets::Number(found) => {
                    assert_eq!(found, &classes.iter().map(|&class| class as f64).collect::<Vec<_>>(), "{}", self.files);
                }
                Targets::Text(found) => {
                    let named: Vec<&String> = classes.iter().map(|&class| &expected.classes[class]).collect();
                    assert_eq!(found.iter().collect::<Vec<_>>(), named, "{}", self.files);
                }
                Targets::None => panic!("{}: no target", self.files),
            }
        }
    }
}

/// Sparse rows with every 0 in its place.
fn spread(rows: &SparseRows<f64>, width: usize) -> Vec<f64> {
    let mut all = vec![0.0; rows.n_rows() * width];
    for (i, row) in all.chunks_exact_mut(width).enumerate() {
        let (columns, values) = rows.row(i);
        columns.iter().zip(values).for_each(|(&column, &value)| row[column as usize] = value);
    }
    all
}

#[test]
fn a_sparse_matrix_of_anndata_holds_what_the_dense_one_holds() {
    let values = |file: &'static str| {
        let mut names = layout(file, "X").names;
        names.target = Some("obs/n".to_string());
        let mut source = Hdf5Source::open(&[folder().join(file)], &names, Need::Train).unwrap();
        let mut block = Block::empty();
        source.read(0..37, &mut block).unwrap();
        assert_eq!(block.target, Targets::Number((0..37).map(f64::from).collect()));
        let names: Vec<String> = source.schema().columns.iter().map(|column| column.name.clone()).collect();
        let values = match &block.values {
            Values::Sparse(rows) => spread(rows, 5),
            Values::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
            Values::F64(values) => values.clone(),
        };
        (names, values.into_iter().map(f64::to_bits).collect::<Vec<_>>())
    };
    assert_eq!(values("sparse.h5ad"), values("dense.h5ad"));
}

#[test]
fn datasets_of_every_type_and_storage_give_the_same_rows() {
    let expected = expected();
    for layout in [
        layout("contiguous.h5", ""),
        layout("chunked.h5", ""),
        layout("compact.h5", ""),
        layout("big_endian.h5", ""),
        layout("columns.h5", "events").target("events/label").exclude("mc_*").bytewise(),
        layout("columns.h5", "/events/[!m]*").target("/events/label").bytewise(),
        layout("several.h5", "first,tight,hits"),
        layout("integers.h5", "/events/*").bytewise(),
        layout("flags.h5", "events").bytewise(),
        layout("labels_fixed.h5", ""),
        layout("labels_any_length.h5", ""),
        layout("three_axes.h5", "").unnamed(),
        layout("packed.h5", "events").bytewise(),
        layout("dimension_scales.h5", "day,charge,energy,tight,hits"),
        layout("dimension_scales.h5", "*").exclude("row").bytewise(),
    ] {
        layout.check(&expected);
    }
}

#[test]
fn tables_that_lie_in_several_files_give_the_same_rows() {
    let expected = expected();
    for layout in [layout("virtual.h5", ""), layout("external.h5", ""), layout("run-*.h5", ""), layout("@runs.txt", "")]
    {
        layout.check(&expected);
    }
}

/// The HDF5 library takes a source that it cannot open for one without values.
#[test]
fn sources_of_a_virtual_dataset_are_all_there_or_named() {
    let layout = layout("virtual.h5", "");
    // Open in the same process, as another file of the table or the held-out rows may be.
    let _source = super::open_to_read(&folder().join("virtual_part_0.h5")).unwrap();
    layout.check(&expected());
    let copies = tempfile::tempdir().unwrap();
    for name in ["virtual.h5", "virtual_part_1.h5"] {
        std::fs::copy(folder().join(name), copies.path().join(name)).unwrap();
    }
    let refused = layout.open(copies.path()).err().unwrap().to_string();
    assert!(refused.contains("'X'") && refused.contains("its source 'virtual_part_0.h5' is missing"), "{refused}");
    std::fs::copy(folder().join("external.h5"), copies.path().join("virtual_part_0.h5")).unwrap();
    let refused = layout.open(copies.path()).err().unwrap().to_string();
    assert!(
        refused.contains("its source 'X' in") && refused.contains("virtual_part_0.h5 cannot be opened"),
        "{refused}"
    );
    // As another node may find it, after the first has looked at the file.
    std::fs::copy(folder().join("virtual_part_0.h5"), copies.path().join("virtual_part_0.h5")).unwrap();
    let mut source = layout.open(copies.path()).unwrap();
    std::fs::remove_file(copies.path().join("virtual_part_1.h5")).unwrap();
    let refused = source.read(0..37, &mut Block::empty()).unwrap_err().to_string();
    assert!(refused.contains("its source 'virtual_part_1.h5' is missing"), "{refused}");
}

#[test]
fn a_link_to_a_file_that_is_not_there_is_named() {
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("external.h5"), alone.path().join("external.h5")).unwrap();
    let refused = layout("external.h5", "X").target("y").open(alone.path()).err().unwrap().to_string();
    assert!(refused.contains("external.h5") && refused.contains("'X'"), "{refused}");
    assert!(refused.contains("is a link that cannot be followed"), "{refused}");
}

#[test]
fn a_fixed_table_of_pandas_gives_the_same_rows() {
    let layout = layout("pandas_fixed.h5", "df").ordered(["day", "charge", "energy", "hits", "tight"]);
    layout.target("df/block4_values").check(&expected());
}

#[test]
fn compound_datasets_give_the_same_rows() {
    let expected = expected();
    for layout in [
        layout("compound.h5", "events"),
        layout("compound.h5", "/events/*").target("events/y"),
        layout("compound.h5", "events/day,events/charge,events/energy,events/tight,events/hits"),
        layout("compound_nested.h5", "events").target("events/label").unnamed(),
        layout("pytables.h5", "readout/events").target("readout/events/label"),
        layout("pandas_table.h5", "df").target("df/label").ordered(["charge", "day", "energy", "hits", "tight"]),
    ] {
        layout.check(&expected);
    }
}

#[test]
fn arrays_that_matlab_wrote_give_the_same_rows_transposed() {
    let mut layout = layout("matlab.mat", "").unnamed();
    layout.names.transpose = true;
    layout.check(&expected());
}

#[test]
fn arrays_that_matlab_wrote_are_offered_to_be_transposed() {
    let refused = layout("matlab.mat", "").open(&folder()).err().unwrap().to_string();
    assert!(refused.ends_with("'X' is 5 × 37 and 'y' has 37 values: MATLAB writes arrays column by column, so that rows are the last axis; read them so with --transpose"), "{refused}");
}

#[test]
fn a_dense_table_of_anndata_gives_the_same_rows() {
    layout("dense.h5ad", "").target("obs/cell_type").check(&expected());
}

#[test]
fn a_sparse_table_of_anndata_gives_the_same_rows() {
    layout("sparse.h5ad", "").target("obs/cell_type").check(&expected());
}

#[test]
fn names_are_found_in_every_layout() {
    for (file, features, target, found) in [
        (
            "compound.h5",
            "events",
            None,
            &["events/day", "events/charge", "events/energy", "events/tight", "events/hits"][..],
        ),
        (
            "compound_nested.h5",
            "events",
            Some("events/label"),
            &["events/first/day", "events/first/charge", "events/rest"],
        ),
        (
            "pytables.h5",
            "readout/e*",
            Some("readout/events/label"),
            &[
                "readout/events/day",
                "readout/events/charge",
                "readout/events/energy",
                "readout/events/tight",
                "readout/events/hits",
            ],
        ),
        (
            "pandas_table.h5",
            "df",
            None,
            &[
                "df/table/values_block_0",
                "df/table/values_block_1",
                "df/table/values_block_2",
                "df/table/values_block_3",
            ],
        ),
        ("dense.h5ad", "X,obs", Some("obs/cell_type"), &["X", "obs/n"]),
        ("sparse.h5ad", "", Some("obs/cell_type"), &["X"]),
        ("dimension_scales.h5", "*", None, &["charge", "day", "energy", "hits", "row", "tight"]),
    ] {
        let mut names = layout(file, features).names;
        names.target = target.map(str::to_string);
        let opened = open_to_read(&folder().join(file)).unwrap();
        let resolved = resolve(&opened, &names, Need::Train).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(resolved.features, found, "{file}");
    }
    let sparse = open_to_read(&folder().join("sparse.h5ad")).unwrap();
    assert_eq!(crate::data::hdf5::contents::names_beside(&sparse, "X", 5), Some(expected().names));
    let frame = open_to_read(&folder().join("pandas_table.h5")).unwrap().dataset("df/table").unwrap();
    let of_block = |block: usize, width| {
        crate::data::hdf5::contents::names_of_field(&frame, &format!("values_block_{block}"), width).unwrap()
    };
    assert_eq!(
        [of_block(0, 1), of_block(1, 1), of_block(2, 2), of_block(3, 1)].concat(),
        ["charge", "day", "energy", "hits", "tight"]
    );
}
