//! Every numeric dataset of other programs' files against h5py's values, as `data/reference/make_corpus.py` stored them.

use super::*;
use crate::data::Values;

#[derive(serde::Deserialize)]
struct Reference {
    file: String,
    dataset: String,
    shape: Vec<u64>,
    hash: String,
    #[serde(default)]
    infinite: bool,
}

fn hash_of(values: &Values) -> String {
    let numbers: Vec<f64> = match values {
        Values::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
        Values::F64(values) => values.clone(),
        Values::Sparse(_) => panic!("a dataset alone is not sparse"),
    };
    let mut hash = blake3::Hasher::new();
    // One bit pattern stands for all NaN.
    let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value };
    numbers.iter().for_each(|&value| _ = hash.update(&canonical(value).to_le_bytes()));
    hash.finalize().to_hex()[..16].to_string()
}

#[test]
fn every_dataset_of_other_programs_has_the_values_that_h5py_reads() {
    let Some(extra) = std::env::var_os("CONSORT_EXTRA_DATA") else {
        return println!("SKIPPED: files of other programs (CONSORT_EXTRA_DATA names no folder)");
    };
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference/corpus.json")).unwrap();
    let references: Vec<Reference> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let (mut same, mut refused, mut lines_up) = (0, 0, Vec::new());
    for reference in &references {
        let path = Path::new(&extra).join(&reference.file);
        if !path.exists() {
            continue;
        }
        let names = TableNames { features: vec![format!("/{}", reference.dataset)], ..TableNames::default() };
        let mut block = Block::empty();
        let read = Hdf5Source::open(std::slice::from_ref(&path), &names, Need::Predict).and_then(|mut source| {
            let n_rows = source.schema().n_rows;
            source.read(0..n_rows, &mut block).map(|()| source.through_library())
        });
        let what = || format!("{} {} {:?}", reference.file, reference.dataset, reference.shape);
        match read {
            Ok(_) if reference.infinite => wrong.push(format!("{}: an infinite value was read", what())),
            Ok(through_library) => match hash_of(&block.values) == reference.hash {
                true => {
                    same += 1;
                    lines_up.extend(through_library.into_iter().map(|(_, why)| why));
                }
                false => wrong.push(format!("{}: other values", what())),
            },
            Err(e) if reference.infinite && e.to_string().contains("infinite value") => refused += 1,
            Err(e) => wrong.push(format!("{}: {e}", what())),
        }
    }
    lines_up.sort();
    println!("{same} same, {refused} refused for infinite values, {} through the library", lines_up.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), references.len(), wrong.join("\n"));
    assert!(same > 0, "none of the files is there");
}
