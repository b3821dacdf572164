use super::*;
use crate::data::hdf5::compound::{Member, fields_of};
use crate::data::hdf5::contents::names_of_field;
use crate::data::hdf5::types::Element;
use hdf5::types::VarLenUnicode;

/// A file that is there while its test runs: strings of attributes are read past the library.
fn file(write: impl FnOnce(&File)) -> File {
    static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let name = format!("find_{}.h5", MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    let file = File::create(FOLDER.with(|folder| folder.path().join(name))).unwrap();
    write(&file);
    file
}

fn put<T: hdf5::H5Type>(at: &Group, names: &[&str], values: &[T]) {
    for name in names {
        at.new_dataset_builder().with_data(values).create(*name).unwrap();
    }
}

fn text(at: &hdf5::Location, name: &str, value: &str) {
    at.new_attr::<VarLenUnicode>()
        .create(name)
        .unwrap()
        .write_scalar(&value.parse::<VarLenUnicode>().unwrap())
        .unwrap();
}

fn words(words: &str) -> Vec<String> {
    words.split(',').filter(|word| !word.is_empty()).map(str::to_string).collect()
}

fn names(features: &str, exclude: &str) -> TableNames {
    TableNames { features: words(features), exclude: words(exclude), ..TableNames::default() }
}

fn found(file: &File, names: &TableNames) -> Vec<String> {
    let found = resolve(file, names, Need::Predict).unwrap();
    // Names that were found find the same again, and nothing is left to exclude.
    assert!(found.exclude.is_empty());
    assert_eq!(resolve(file, &found, Need::Predict).unwrap(), found);
    found.features
}

fn refused(file: &File, names: &TableNames) -> String {
    let error = resolve(file, names, Need::Train).unwrap_err();
    assert!([2, 3].contains(&error.kind().exit_code()), "{error}");
    error.to_string()
}

/// Columns with a path order that is not that of walking: '.' sorts before '/'.
fn events() -> File {
    file(|file| {
        let events = file.create_group("events").unwrap();
        put(&events, &["pt", "eta", "mc_pt", "mc_id", "w", "y", "Pt", "E[MeV]"], &[1f32, 2.0]);
        put(&events.create_group("jet").unwrap(), &["pt", "mc_pt"], &[1f32, 2.0]);
        put(&events, &["jet.n"], &[1u8, 2]);
        events.new_dataset::<f32>().shape(()).create("version").unwrap();
    })
}

#[test]
fn patterns_match_paths_bytewise_and_not_across_groups() {
    let file = events();
    let of = |features: &str| found(&file, &names(features, ""));
    assert_eq!(
        of("/events/*"),
        [
            "/events/E[MeV]",
            "/events/Pt",
            "/events/eta",
            "/events/jet.n",
            "/events/mc_id",
            "/events/mc_pt",
            "/events/pt",
            "/events/w"
        ],
        "without the target y that is found by its name, and without the single value"
    );
    assert_eq!(of("events/?t"), ["events/Pt", "events/pt"]);
    assert_eq!(of("events/[!mw]*t*"), ["events/Pt", "events/eta", "events/jet.n", "events/pt"]);
    assert_eq!(of("events/**/pt,events/jet*"), ["events/jet/pt", "events/pt", "events/jet.n"]);
    assert_eq!(of("events/jet*/*,events/jet*"), ["events/jet/mc_pt", "events/jet/pt", "events/jet.n"]);
    assert_eq!(of("**/mc_*"), ["events/jet/mc_pt", "events/mc_id", "events/mc_pt"]);
    assert_eq!(of("events/pt,events/?t"), ["events/pt", "events/Pt"], "a pattern adds what is not there yet");
    assert_eq!(of("events/E[MeV]"), ["events/E[MeV]"], "a name is a name first");
    let in_group = TableNames { group: Some("/events/".into()), ..names("*t,jet/*", "") };
    assert_eq!(found(&file, &in_group), ["Pt", "mc_pt", "pt", "jet/mc_pt", "jet/pt"]);
    // The one group that has a match is found.
    assert_eq!(resolve(&file, &names("mc_i?", ""), Need::Train).unwrap().group.as_deref(), Some("events"));
}

#[test]
fn excluded_names_are_paths_last_names_or_patterns_of_these() {
    let file = events();
    let of = |features: &str, exclude: &str| found(&file, &names(features, exclude));
    assert_eq!(of("/events/*", "mc_*,w,E[MeV]"), ["/events/Pt", "/events/eta", "/events/jet.n", "/events/pt"]);
    assert_eq!(of("events/**", "mc_*,*/jet/pt,events/?t,/events/w"), ["events/E[MeV]", "events/eta", "events/jet.n"]);
    assert_eq!(of("events/**/pt", "/events/pt"), ["events/jet/pt"], "an absolute path is one dataset");
    assert_eq!(of("events", "mc_*,Pt,?,jet.n"), ["events/E[MeV]", "events/eta", "events/pt"]);
    assert_eq!(of("events/pt,events/eta", "eta"), ["events/pt"]);
    let in_group = TableNames { group: Some("events".into()), ..names("*,jet", "jet/*,[!mp]*") };
    assert_eq!(found(&file, &in_group), ["mc_id", "mc_pt", "pt"]);
}

#[test]
fn targets_weights_and_offsets_are_no_features_of_a_pattern() {
    let file = events();
    let typed = TableNames {
        target: Some("events/mc_id".into()),
        weight: Some("/events/w".into()),
        offset: Some("events/eta".into()),
        ..names("events/*", "Pt,E*")
    };
    assert_eq!(found(&file, &typed), ["events/jet.n", "events/mc_pt", "events/pt", "events/y"]);
    let by_custom = resolve(&file, &names("events/*", ""), Need::Train).unwrap();
    assert_eq!(by_custom.target.as_deref(), Some("events/y"));
}

#[test]
fn what_stands_for_nothing_is_refused_with_what_is_there() {
    let file = events();
    let of = |features: &str, exclude: &str| {
        refused(&file, &TableNames { target: Some("events/y".into()), ..names(features, exclude) })
    };
    assert!(
        of("events/q*", "")
            .starts_with("'events/q*' matches no dataset (--features); there is: 'events/E[MeV]' (2, float32)")
    );
    assert!(
        of("events/pt*,events/p*", "").starts_with("'events/p*' stands for no feature beside those named before it")
    );
    assert!(of("nowhere/*", "").starts_with("'nowhere/*' matches no dataset"));
    assert!(of("events/a**", "").contains("'events/a**' is not a pattern of names"));
    assert_eq!(
        of("events/*t", "mc,Pt"),
        "--exclude 'mc' matches none of the features: events/Pt, events/mc_pt, events/pt"
    );
    assert_eq!(of("events/?t", "*t"), "--exclude leaves none of the features: events/Pt, events/pt");
    assert_eq!(of("events/pt,events/pt", ""), "'events/pt' is named twice (--features)");
    assert_eq!(of("events/?t,events/pt", ""), "'events/pt' is named twice (--features)");
}

#[derive(hdf5::H5Type, Clone, Copy, Default)]
#[repr(C)]
struct Track {
    y: u8,
    pt: f32,
    cov: [f64; 3],
    vertex: Vertex,
    w: f32,
}

#[derive(hdf5::H5Type, Clone, Copy, Default)]
#[repr(C)]
struct Vertex {
    x: f64,
    hits: [[i16; 2]; 2],
}

#[test]
fn a_compound_dataset_stands_for_its_fields_in_the_order_stored() {
    let file = file(|file| {
        put(file, &["tracks", "data"], &[Track::default(); 2]);
        put(&file.create_group("run").unwrap(), &["tracks"], &[Track::default(); 2]);
    });
    let fields = ["pt", "cov", "vertex/x", "vertex/hits", "w"];
    let of = |features: &str, exclude: &str| found(&file, &names(features, exclude));
    assert_eq!(of("tracks", ""), fields.map(|field| format!("tracks/{field}")), "without the target y");
    assert_eq!(of("/tracks/*", "cov"), ["/tracks/pt", "/tracks/w"], "* is one name");
    assert_eq!(of("tracks/**", "tracks/vertex/h*,**/x"), ["tracks/pt", "tracks/cov", "tracks/w"]);
    assert_eq!(of("tr*", ""), of("tracks", ""), "a pattern of the dataset's own name");
    assert_eq!(of("tracks/w,tracks/vertex", ""), ["tracks/w", "tracks/vertex/x", "tracks/vertex/hits"]);
    assert_eq!(of("", ""), fields.map(|field| format!("data/{field}")), "by its customary name");
    let typed = TableNames { target: Some("w".into()), group: Some("tracks".into()), ..names("pt", "") };
    assert!(refused(&file, &typed).contains("there is no group 'tracks'"));
    let typed =
        TableNames { target: Some("tracks/w".into()), weight: Some("tracks/pt".into()), ..names("tracks", "cov") };
    let all = resolve(&file, &typed, Need::Train).unwrap();
    assert_eq!(all.features, ["tracks/y", "tracks/vertex/x", "tracks/vertex/hits"]);
    assert_eq!(of("run/*", "cov"), ["run/tracks/pt", "run/tracks/vertex/x", "run/tracks/vertex/hits", "run/tracks/w"]);
    let typed = TableNames { target: Some("tracks".into()), ..names("tracks/pt", "") };
    assert_eq!(refused(&file, &typed), "'tracks' is compound; name one of its fields, such as 'tracks/y'");
    let typed = TableNames { target: Some("tracks/vertex".into()), ..names("tracks/pt", "") };
    assert!(refused(&file, &typed).ends_with("such as 'tracks/vertex/x'"));
    assert!(refused(&file, &names("tracks/none", "")).starts_with("'tracks/none' is not there"));
}

#[test]
fn fields_are_described_with_their_bytes() {
    let file = file(|file| put(file, &["tracks"], &[Track::default(); 2]));
    let described = |member: Member| (member.name(), member.offset, member.dims.clone(), member.element().unwrap());
    let fields: Vec<_> = fields_of(&file.dataset("tracks").unwrap()).into_iter().map(described).collect();
    let at = |field: usize| (field, std::mem::offset_of!(Track, vertex));
    let float = |bytes| Element::Float { bytes };
    assert_eq!(
        fields,
        [
            ("y".into(), 0, vec![], Element::Integer { bytes: 1, signed: false }),
            ("pt".into(), std::mem::offset_of!(Track, pt), vec![], float(4)),
            ("cov".into(), std::mem::offset_of!(Track, cov), vec![3], float(8)),
            ("vertex/x".into(), at(0).1, vec![], float(8)),
            ("vertex/hits".into(), at(0).1 + 8, vec![2, 2], Element::Integer { bytes: 2, signed: true }),
            ("w".into(), std::mem::offset_of!(Track, w), vec![], float(4)),
        ]
    );
}

#[test]
fn a_group_stands_for_its_table_as_pandas_and_pytables_write_it() {
    let file = file(|file| {
        let table = file.create_group("df").unwrap();
        put(&table.create_group("_i_table/index").unwrap(), &["sorted"], &[1i64]);
        text(&table.group("_i_table").unwrap(), "CLASS", "TINDEX");
        put(&table, &["table"], &[Frame::default(); 2]);
        let table = table.dataset("table").unwrap();
        text(&table, "index_kind", "integer");
        text(&table, "values_block_0_kind", "(lp0\nVpt\np1\naVeta\np2\na.");
        put(&file.create_group("plain").unwrap(), &["table"], &[Frame::default(); 2]);
    });
    let of = |features: &str| found(&file, &names(features, ""));
    assert_eq!(of("df"), ["df/table/values_block_0"], "the index only numbers the rows, and label is the target");
    assert_eq!(of("df/*"), of("df"));
    assert_eq!(of("df/**"), of("df"), "what PyTables keeps for searching is not looked at");
    assert_eq!(of("df/index,df/values_block_0"), ["df/table/index", "df/table/values_block_0"]);
    assert_eq!(of("plain"), ["plain/table/index", "plain/table/values_block_0"]);
    let all = resolve(&file, &names("df", ""), Need::Train).unwrap();
    assert_eq!(all.target.as_deref(), Some("df/table/label"));
    let table = file.dataset("df/table").unwrap();
    assert_eq!(names_of_field(&table, "values_block_0", 2), Some(vec!["pt".into(), "eta".into()]));
    assert_eq!(names_of_field(&table, "values_block_0", 3), None);
}

#[derive(hdf5::H5Type, Clone, Copy, Default)]
#[repr(C)]
struct Frame {
    index: i64,
    values_block_0: [f32; 2],
    label: i64,
}

#[test]
fn a_fixed_table_of_pandas_stands_for_its_blocks_with_their_names() {
    let file = file(|file| {
        let frame = file.create_group("df").unwrap();
        text(&frame, "pandas_type", "frame");
        put(&frame, &["axis1", "y"], &[0i64, 1]);
        for (block, name) in [(0, "a"), (10, "b"), (2, "c")] {
            let values = ndarray::Array2::<f32>::zeros((2, 1));
            frame.new_dataset_builder().with_data(&values).create(&*format!("block{block}_values")).unwrap();
            let items = [hdf5::types::FixedAscii::<4>::from_ascii(name).unwrap()];
            put(&frame, &[&format!("block{block}_items")], &items);
        }
    });
    let typed = TableNames { target: Some("df/block2_values".into()), ..names("df", "") };
    assert_eq!(found(&file, &typed), ["df/block0_values", "df/block10_values"], "in the order of numbers");
    assert_eq!(found(&file, &names("df/*", "")), ["df/block0_values", "df/block10_values", "df/block2_values"]);
    let names_of = |name: &str, width| column_names(&file.dataset(name).unwrap(), width);
    assert_eq!(names_of("df/block10_values", 1), Some(vec!["b".into()]));
    assert_eq!(names_of("df/block10_values", 2), None);
}

#[test]
fn anndata_has_columns_of_categories_names_beside_and_sparse_matrices() {
    let file = file(|file| {
        let x = ndarray::Array2::<f32>::zeros((2, 3));
        file.new_dataset_builder().with_data(&x).create("X").unwrap();
        let raw = file.create_group("raw/X").unwrap();
        put(&raw, &["data", "indices", "indptr"], &[0i32]);
        let var = file.create_group("var").unwrap();
        text(&var, "_index", "gene");
        put(&var, &["gene"], &["A1", "B2", "C3"].map(|name| name.parse::<VarLenUnicode>().unwrap()));
        let obs = file.create_group("obs").unwrap();
        text(&obs, "_index", "_index");
        put(&obs, &["_index", "n_genes"], &[5i64, 6]);
        let cell_type = obs.create_group("cell_type").unwrap();
        put(&cell_type, &["codes"], &[0i8, 1]);
        put(&cell_type, &["categories"], &["T", "B", "NK"].map(|name| name.parse::<VarLenUnicode>().unwrap()));
    });
    let typed = TableNames { target: Some("obs/cell_type".into()), ..TableNames::default() };
    let all = resolve(&file, &typed, Need::Train).unwrap();
    assert_eq!((all.features.as_slice(), all.target.as_deref()), (&["X".to_string()][..], Some("obs/cell_type")));
    assert_eq!(column_names(&file.dataset("X").unwrap(), 3), Some(words("A1,B2,C3")));
    assert_eq!(column_names(&file.dataset("X").unwrap(), 4), None);
    assert_eq!(found(&file, &names("X,obs", "")), ["X", "obs/cell_type", "obs/n_genes"]);
    assert_eq!(found(&file, &names("obs/*", "")), ["obs/_index", "obs/cell_type", "obs/n_genes"]);
    assert_eq!(found(&file, &names("raw/X", "")), ["raw/X"], "a sparse matrix is one thing");
    assert_eq!(found(&file, &names("raw/*", "")), ["raw/X"]);
}

#[test]
fn arrays_written_column_by_column_are_offered_to_be_transposed() {
    let write = |matlab: bool, target: (usize, usize)| {
        file(|file| {
            for (name, shape) in [("X", (3, 5)), ("y", target), ("square", (5, 5))] {
                let zeros = ndarray::Array2::<f64>::zeros(shape);
                let dataset = file.new_dataset_builder().with_data(&zeros).create(name).unwrap();
                if matlab {
                    text(&dataset, "MATLAB_class", "double");
                }
            }
            let run = file.create_group("run").unwrap();
            for (name, shape) in [("a", (1, 5)), ("b", (5, 1)), ("c", (2, 5))] {
                run.new_dataset_builder().with_data(&ndarray::Array2::<f64>::zeros(shape)).create(name).unwrap();
            }
        })
    };
    for target in [(1, 5), (5, 1)] {
        let text = refused(&write(true, target), &names("", ""));
        assert_eq!(
            text,
            "'X' is 3 × 5 and 'y' has 5 values: MATLAB writes arrays column by column, so that rows are the last axis; \
             read them so with --transpose"
        );
    }
    assert!(
        refused(&write(true, (1, 5)), &names("square", "")).contains("'square' is 5 × 5 and 'y' has 5 values: MATLAB")
    );
    assert!(
        refused(&write(false, (1, 5)), &names("", ""))
            .contains("as by Fortran, Julia and R; read them so with --transpose")
    );
    for (matlab, features) in [(true, "square"), (false, "square"), (false, "run/b")] {
        assert!(
            resolve(&write(matlab, (5, 1)), &names(features, ""), Need::Train).is_ok(),
            "{features}: rows are rows"
        );
    }
    let typed = TableNames { transpose: true, ..names("", "") };
    let all = resolve(&write(true, (1, 5)), &typed, Need::Train).unwrap();
    assert!(all.transpose && all.relative().transpose);
    let typed = TableNames { transpose: true, ..names("run", "") };
    assert_eq!(found(&write(true, (1, 5)), &typed), ["run/a", "run/b"], "vectors are columns");
}

#[test]
fn what_netcdf_writes_for_a_dimension_is_no_column() {
    let file = file(|file| {
        put(file, &["a", "row", "time"], &[1f32, 2.0]);
        text(&file.dataset("row").unwrap(), "NAME", "This is a netCDF dimension but not a netCDF variable.         2");
        text(&file.dataset("time").unwrap(), "NAME", "time");
    });
    assert_eq!(found(&file, &names("*", "")), ["a", "time"]);
    assert_eq!(found(&file, &names("/", "")), ["/a", "/time"]);
}

#[test]
fn links_in_circles_come_to_an_end() {
    let file = file(|file| {
        let group = file.create_group("a").unwrap();
        put(&group, &["x"], &[1f32]);
        group.link_soft("/a", "again").unwrap();
    });
    assert_eq!(found(&file, &names("a/*", "")), ["a/x"]);
    assert_eq!(found(&file, &names("**/x", "")).len(), 11);
}

#[test]
fn links_that_lead_nowhere_are_not_left_out_unsaid() {
    let file = file(|file| {
        let group = file.create_group("a").unwrap();
        put(&group, &["x", "y"], &[1f32]);
        group.link_soft("/nowhere", "lost").unwrap();
    });
    for word in ["a", "a/*", "a/lost"] {
        let text = refused(&file, &names(word, ""));
        assert!(text.starts_with("'a/lost' is a link that cannot be followed ("), "{text}");
        assert!(text.contains("); leave it out with --exclude; there is: 'a/x' (1, float32)"), "{text}");
    }
    for word in ["a", "a/*"] {
        assert_eq!(found(&file, &names(word, "lost")), ["a/x"]);
    }
}
