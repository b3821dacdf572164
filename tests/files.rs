//! Files made and looked at: `convert`, `repack` and `inspect` as people use them.

mod launch;

use launch::end_of;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_consort");

/// Exit code, and all that was said.
fn consort(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).args(words);
    let ended = end_of(command);
    (ended.code, ended.text)
}

fn done(folder: &Path, words: &[&str]) -> String {
    let (code, text) = consort(folder, words);
    assert_eq!(code, Some(0), "{words:?}:\n{text}");
    text
}

fn digest(folder: &Path, file: &str, more: &[&str]) -> String {
    let words = [&["train", "logistic", file, "-o", "m.h5", "--max-iterations", "3"], more].concat();
    let text = done(folder, &words);
    text.lines().find(|line| line.starts_with("digest ")).expect("a digest").to_string()
}

/// 200,000 × 90 random bits as float32 in one chunk a column, with a target.
fn columns(folder: &Path) {
    let draws = consort::rng::Draws::new(3, consort::rng::Stream::Synthetic);
    let x = ndarray::Array2::from_shape_fn((200_000, 90), |(i, j)| draws.below(2, i as u64, j as u64) as f32);
    let y = x.column(0).mapv(|v| v as u8);
    let file = hdf5::File::create(folder.join("columns.h5")).unwrap();
    file.new_dataset_builder().chunk((200_000, 1)).shuffle().deflate(1).with_data(&x).create("X").unwrap();
    file.new_dataset_builder().with_data(&y).create("y").unwrap();
}

#[test]
fn chunks_that_hurt_are_named_and_repacked_to_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    columns(folder);
    let text = done(folder, &["inspect", "columns.h5"]);
    assert!(text.contains("slow to read: X has chunks of 200000 × 1: to read"), "{text}");
    assert!(text.contains("better chunks: consort repack columns.h5 OUT.h5"), "{text}");
    let text = done(folder, &["repack", "columns.h5", "rows.h5"]);
    assert!(text.starts_with("2 datasets in new chunks, "), "{text}");
    let text = done(folder, &["inspect", "rows.h5"]);
    assert!(!text.contains("slow to read"), "{text}");
    assert_eq!(digest(folder, "columns.h5", &[]), digest(folder, "rows.h5", &["--max-memory", "32M"]));

    let (code, text) = consort(folder, &["repack", "columns.h5", "rows.h5"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("rows.h5: is there already; use --force to replace it"), "{text}");
    let (code, text) = consort(folder, &["repack", "rows.h5", "./rows.h5", "--force"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("is the input"), "{text}");
    let (code, text) = consort(folder, &["repack", "nothing.h5", "new.h5"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("nothing.h5: no such file") && !folder.join("new.h5").exists(), "{text}");
    let (code, text) = consort(folder, &["repack", "rows.h5", "new.h5", "--chunk-size", "10"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("'10' is too small or too large; give 1K to 1G"), "{text}");
}

#[test]
fn fields_of_a_compound_dataset_train_the_model_of_the_same_columns() {
    let layouts = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/layouts");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| layouts.join(name).display().to_string();
    let of = |name: &str, more: &[&str]| digest(folder.path(), &file(name), more);
    let columns = ["day", "charge", "energy", "tight", "hits"].map(|name| format!("events/{name}")).join(",");
    let fields = of("compound.h5", &["--features", "events"]);
    assert_eq!(fields, of("compound.h5", &["--features", &columns, "--target", "events/y"]));
    assert_eq!(fields, of("compound.h5", &["--features", "events", "--max-memory", "32M", "--threads", "2"]));
}
