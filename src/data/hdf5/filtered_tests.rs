//! `data/layouts/filtered.h5` (made by `data/make_layouts.py`): filters that the HDF5 library here need not have.

use super::chunks::{StoredIndex, open_raw};
use super::filters::Filter;
use super::stored_rows::StoredRows;
use super::types::{filters_of, open_to_read, stored_bytes};
use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::{Block, DataSource, Targets, Values};
use hdf5::Dataset;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts/filtered.h5")
}

/// Element `i`, before it is cut to its type: as `filtered_values` of the script.
fn value(i: u64, stretch: u64) -> u64 {
    if (i / stretch).is_multiple_of(2) {
        return i / 3 % 50;
    }
    let mut z = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 11
}

/// The bytes of the elements from `first` on, in the order of this machine.
fn expected(name: &str, first: u64, n: u64) -> Vec<u8> {
    let (stretch, kind) = match name.rsplit_once('/').unwrap() {
        ("/long", _) => (19_800, "i4"),
        (_, "one") => (100, "u1"),
        (_, kind) => (192, kind),
    };
    let values = (first..first + n).map(|i| value(i, stretch));
    match kind {
        "u1" => values.map(|v| v as u8).collect(),
        "i2" => values.flat_map(|v| (v as i16).to_ne_bytes()).collect(),
        "i4" | "i4_be" => values.flat_map(|v| (v as i32).to_ne_bytes()).collect(),
        "f4" => values.flat_map(|v| ((v & 0xff_ffff) as f32).to_ne_bytes()).collect(),
        "f8_be" => values.flat_map(|v| (v as f64).to_ne_bytes()).collect(),
        _ => panic!("{name}"),
    }
}

fn datasets() -> Vec<Dataset> {
    let file = open_to_read(&path()).unwrap();
    let groups = file.groups().unwrap();
    let others = ["/unknown", "/own"].map(str::to_string);
    groups.iter().filter(|group| !others.contains(&group.name())).flat_map(|group| group.datasets().unwrap()).collect()
}

#[test]
fn every_filter_gives_the_values_of_the_formula() {
    let mut used = Vec::new();
    let mut n_plain_chunks = 0;
    for dataset in datasets() {
        let name = dataset.name();
        let index = StoredIndex::of(&dataset, false).unwrap_or_else(|why| panic!("{name}: {why}"));
        used.extend(filters_of(&dataset).unwrap().into_iter().map(|filter| filter.id));
        let n_chunks = dataset.num_chunks().unwrap();
        n_plain_chunks += (0..n_chunks).filter(|&i| dataset.chunk_info(i).unwrap().filter_mask != 0).count();
        let file = Arc::new(open_raw(&index.file).unwrap());
        let stored = StoredRows::new(index, file, Arc::default(), 0);
        let shape = dataset.shape();
        let (n, width) = (shape[0] as u64, shape.get(1).map_or(1, |&n| n as u64));
        let element_bytes = stored_bytes(&dataset.dtype().unwrap()).unwrap().0;
        for rows in [0..n, 0..1, 60..70, n - 1..n] {
            let mut found = vec![0; ((rows.end - rows.start) * width) as usize * element_bytes];
            stored.read(rows.clone(), &mut found).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(found == expected(&name, rows.start * width, (rows.end - rows.start) * width), "{name} {rows:?}");
        }
    }
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, [2, 3, 307, 32000, 32001, 32004, 32008, 32015]);
    assert!(n_plain_chunks > 0, "some chunks were stored without their filters");
}

#[test]
fn features_targets_weights_and_offsets_are_read_through_every_filter() {
    for filter in ["lzf", "zstd_shuffled", "lz4_blocks", "bzip2", "bitshuffle_zstd", "blosc_lz4"] {
        let names = TableNames {
            features: vec![format!("{filter}/i2")],
            target: Some(format!("{filter}/one")),
            weight: Some(format!("{filter}/one")),
            offset: Some(format!("{filter}/one")),
            ..TableNames::default()
        };
        let mut source = Hdf5Source::open(&[path()], &names, Need::Train).unwrap_or_else(|e| panic!("{filter}: {e}"));
        let mut block = Block::empty();
        source.read(0..150, &mut block).unwrap();
        let Values::F32(values) = &block.values else { panic!("wide values") };
        assert!(values.iter().copied().eq((0..450).map(|i| f32::from(value(i, 192) as i16))), "{filter}");
        let one: Vec<f64> = (0..150).map(|i| (value(i, 100) & 0xff) as f64).collect();
        assert!(block.target == Targets::Number(one.clone()), "{filter}");
        assert!(block.weight.as_ref() == Some(&one) && block.offset.as_ref() == Some(&one), "{filter}");
    }
}

#[test]
fn a_filter_without_a_decoder_is_named_with_its_number() {
    for (name, filter) in [("unknown/blosc2", "blosc2 (number 32026)"), ("unknown/zfp", "zfp (number 32013)")] {
        let names = TableNames { features: vec![name.to_string()], ..TableNames::default() };
        let refused = Hdf5Source::open(&[path()], &names, Need::Predict).err().unwrap().to_string();
        let expected = format!(
            "'{name}': is compressed with the filter {filter}, for which no decoder is here; install the plugin and set \
             HDF5_PLUGIN_PATH, or rewrite the file with h5repack -f GZIP=1 where it can be read"
        );
        assert!(refused.ends_with(&expected), "{refused}");
    }
}

/// float16 is converted past the library, whatever it is compressed with.
#[test]
fn half_precision_is_read_from_compressed_chunks() {
    let names = TableNames { features: vec!["unknown/zstd_half".to_string()], ..TableNames::default() };
    let mut source = Hdf5Source::open(&[path()], &names, Need::Predict).unwrap();
    assert!(source.through_library().is_empty());
    let mut block = Block::empty();
    source.read(0..150, &mut block).unwrap();
    let Values::F32(values) = block.values else { panic!("narrow") };
    let expected: Vec<f32> = (0..450).map(|i| (value(i, 192) & 0xff) as f32).collect();
    assert_eq!(values, expected);
}

#[test]
fn filters_of_every_library_are_undone_or_left_to_it() {
    let file = open_to_read(&path()).unwrap();
    let datasets = file.group("own").unwrap().datasets().unwrap();
    let indexed = |dataset: &Dataset| (dataset.name(), StoredIndex::of(dataset, false).err());
    let reasons: Vec<_> = datasets.iter().map(indexed).filter(|(_, why)| why.is_some()).collect();
    let szip = Some("szip is decoded by the HDF5 library only");
    let fewer_bits = Some("neither a plain number, a string nor a compound type");
    assert_eq!(reasons, [("/own/nbit_12".to_string(), fewer_bits), ("/own/szip".to_string(), szip)]);
    assert_eq!(datasets.len(), 8);
}

#[test]
fn inspect_says_which_filters_have_no_decoder() {
    let found = crate::data::describe::describe(&path()).unwrap();
    for object in &found.objects {
        let is_unknown = ["blosc2", "zfp"].iter().any(|name| object.path.contains(name));
        assert_eq!(object.filters.iter().any(|filter| !filter.available), is_unknown, "{}", object.path);
    }
    let names: Vec<_> = found.objects.iter().flat_map(|object| &object.filters).map(|filter| &filter.name).collect();
    assert!(names.iter().any(|name| *name == "blosc2") && names.iter().any(|name| *name == "bitshuffle"), "{names:?}");
}

#[test]
fn client_values_that_no_decoder_knows_go_to_the_library() {
    for (id, values) in [
        (2, &[][..]),
        (2, &[0]),
        (4, &[141, 32]),
        (5, &[8, 0, 10, 1, 4, 0, 12, 0]),
        (6, &[2, 0, 10, 0, 4, 0, 0]),
        (6, &[1, 0, 10, 1, 4, 0, 0, 0]),
        (6, &[0, 30, 10, 1, 4, 0, 0, 0]),
        (6, &[2, 0, 10, 0, 3, 0, 0, 0]),
        (6, &[2, 0, 10, 0, 8, 0, 0, 1, 7]),
        (32008, &[0, 4, 0, 0, 0]),
        (32008, &[0, 4, 4, 12, 0]),
        (32008, &[0, 4, 4, 0, 9]),
        (32026, &[1, 0, 8]),
        (305, &[]),
    ] {
        assert!(Filter::of(id, values).is_err(), "{id} {values:?}");
    }
}
