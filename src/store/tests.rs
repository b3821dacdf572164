//! Model files: round trips, refusals, and what a failure leaves behind.

use super::output::tests::names_in;
use super::*;
use crate::error::ErrorKind;

fn model() -> ModelFile {
    let nan = f32::from_bits(0x7fc0_0042);
    ModelFile {
        kind: "linear".into(),
        arrays: vec![
            ("weights".into(), Array::F64 { shape: vec![2, 3], values: vec![1.5, -0.0, 5e-324, f64::MAX, 0.1, -2.0] }),
            ("bias".into(), Array::F32 { shape: vec![2], values: vec![nan, -0.0] }),
            ("empty".into(), Array::I64 { shape: vec![0], values: vec![] }),
            ("counts".into(), Array::U64 { shape: vec![1], values: vec![u64::MAX] }),
        ],
        strings: vec![
            ("features".into(), vec!["pT".into(), "η".into(), "".into()]),
            ("classes".into(), vec!["Σ⁺".into(), "b".into()]),
        ],
        config: "seed = 0\nl2 = 3e-4\n".into(),
        attributes: vec![("units".into(), "GeV²".into()), ("target".into(), "train/y".into())],
        history: vec![("loss".into(), vec![0.7, f64::NAN, 0.5]), ("valid_loss".into(), vec![])],
        digest: "0".repeat(64),
        program_version: "0.1.0".into(),
        parts: ["members/000", "members/001", "final"].map(|name| (name.to_string(), part(name))).into(),
    }
}

/// A model inside; that of the last one has one inside too.
fn part(name: &str) -> ModelFile {
    let weights = Array::F64 { shape: vec![1], values: vec![0.5] };
    let inner = ModelFile { kind: "inner".into(), ..ModelFile::default() };
    ModelFile {
        kind: "svm".into(),
        arrays: vec![("weights".into(), weights)],
        strings: vec![("features".into(), vec![name.into()])],
        attributes: vec![("units".into(), name.into())],
        history: vec![("loss".into(), vec![0.25])],
        parts: if name == "final" { vec![("inner".into(), inner)] } else { Vec::new() },
        ..ModelFile::default()
    }
}

/// Equality by bits: NaN equals itself, −0 is not +0.
fn assert_same(a: &ModelFile, b: &ModelFile) {
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
    let (Ok((_, a)), Ok((_, b))) = (a.f32("bias"), b.f32("bias")) else { panic!("bias is float32") };
    assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()));
}

fn message(result: Result<ModelFile>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    error.to_string()
}

#[test]
fn a_model_comes_back_bit_by_bit_in_its_order_and_its_file_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
    save(&first, &model(), false).unwrap();
    assert_same(&load(&first).unwrap(), &model());
    save(&second, &load(&first).unwrap(), false).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    assert_eq!(format_of(&first).unwrap().as_deref(), Some(MODEL_FORMAT));
    save(&first, &ModelFile::default(), false).unwrap(); // our own file is replaced without being asked
    assert_eq!(load(&first).unwrap(), ModelFile::default());
    assert_eq!(names_in(folder.path()), ["a.h5", "b.h5"]);
}

#[test]
fn what_a_model_lacks_is_named() {
    let model = model();
    assert_eq!(model.f64("weights").unwrap().0, [2, 3]);
    assert_eq!(model.u64("counts").unwrap().1, [u64::MAX]);
    assert_eq!(model.i64("empty").unwrap().0, [0]);
    assert_eq!(model.strings("classes").unwrap()[1], "b");
    assert_eq!(model.attribute("units"), Some("GeV²"));
    assert!(model.f64("gamma").unwrap_err().to_string().contains("'params/gamma': the model file lacks"));
    assert!(model.f64("bias").unwrap_err().to_string().contains("expected float64, found float32 of shape [2]"));
    assert!(model.strings("groups").is_err());
}

#[test]
fn a_foreign_file_is_refused_and_force_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.h5");
    let writer = Writer::create(&path).unwrap();
    writer.array("X", &Array::F32 { shape: vec![2, 1], values: vec![1.0, 2.0] }).unwrap();
    writer.finish().unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = save(&path, &model(), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(message(load(&path)).contains("not a consort model; it holds 'X'"));
    assert_eq!(format_of(&path).unwrap(), None);
    save(&path, &model(), true).unwrap();
    assert_same(&load(&path).unwrap(), &model());
    assert_eq!(names_in(folder.path()), ["events.h5"]);
}

#[test]
fn files_that_are_no_models_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    assert!(message(load(&path)).contains("model.h5: cannot open the file"));
    std::fs::write(&path, "").unwrap();
    assert!(message(load(&path)).contains("not an HDF5 file"));
    std::fs::write(&path, "a,b,c\n1,2,3\n".repeat(400)).unwrap();
    assert!(message(load(&path)).contains("not an HDF5 file"));
    assert!(message(load(folder.path())).contains("not a regular file"));

    std::fs::remove_file(&path).unwrap();
    let writer = Writer::create(&path).unwrap();
    writer.text_attribute("/", "format", MODEL_FORMAT).unwrap();
    writer.number_attribute("/", "format_version", 7).unwrap();
    writer.text_attribute("/", "program_version", "9.1.0").unwrap();
    writer.finish().unwrap();
    let text = message(load(&path));
    assert!(text.contains("model format 7, written by consort 9.1.0"), "{text}");

    std::fs::remove_file(&path).unwrap();
    let writer = Writer::create(&path).unwrap();
    writer.text_attribute("/", "format", MODEL_FORMAT).unwrap();
    writer.number_attribute("/", "format_version", 1).unwrap();
    writer.finish().unwrap();
    assert!(message(load(&path)).contains("lacks the attribute 'kind'"));
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole.h5"), folder.path().join("cut.h5"));
    save(&whole, &model(), false).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    for n in (0..bytes.len()).step_by(211).chain([bytes.len() - 1]) {
        std::fs::write(&cut, &bytes[..n]).unwrap();
        let text = message(load(&cut));
        let said = text.contains("HDF5 file") || text.contains("lost its seal");
        assert!(text.contains("cut.h5: ") && said, "{n} bytes: {text}");
    }
}

#[test]
fn every_flipped_bit_is_refused_and_a_lost_seal_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.h5"), folder.path().join("bad.h5"));
    save(&good, &model(), false).unwrap();
    let bytes = std::fs::read(&good).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&bad, &damaged).unwrap();
        // That of the mark: as if there were no seal.
        let lost = (bytes.len() - 48..bytes.len() - 32).contains(&at);
        let text = message(load(&bad));
        assert!(text.contains(if lost { "has lost its seal" } else { "is damaged" }), "byte {at}: {text}");
    }
    std::fs::write(&bad, &bytes[..bytes.len() - 48]).unwrap();
    assert!(message(load(&bad)).contains("has lost its seal"));
}

#[test]
fn names_that_hdf5_would_take_for_paths_are_our_bug() {
    let folder = tempfile::tempdir().unwrap();
    for (array, attribute) in [("a/b", "x"), ("", "x"), (".", "x"), ("a", "kind"), ("a", "")] {
        let model = ModelFile {
            arrays: vec![(array.into(), Array::F32 { shape: vec![0], values: vec![] })],
            attributes: vec![(attribute.into(), String::new())],
            ..ModelFile::default()
        };
        let error = save(&folder.path().join("m.h5"), &model, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    }
    let twice = ModelFile { history: vec![("loss".into(), vec![]), ("loss".into(), vec![])], ..ModelFile::default() };
    assert!(save(&folder.path().join("m.h5"), &twice, false).is_err());
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_string_that_cannot_be_stored_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    model.strings[0].1[0] = "a\0b".into();
    assert!(save(&folder.path().join("m.h5"), &model, false).unwrap_err().to_string().contains("NUL"));
    assert!(names_in(folder.path()).is_empty());
}

/// Runs where `$CONSORT_PYTHON` (default `python3`) has h5py; says so elsewhere.
#[test]
fn h5py_reads_a_model_in_three_lines() {
    let python = || std::process::Command::new(std::env::var("CONSORT_PYTHON").unwrap_or_else(|_| "python3".into()));
    if !python().args(["-c", "import h5py"]).output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no python with h5py");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.h5");
    save(&path, &model(), false).unwrap();
    let script = "import sys, h5py\n\
        f = h5py.File(sys.argv[1])\n\
        print(f['params/weights'][:].shape, f['params/weights'][0, 0], list(f['features'].asstr()[:]))\n\
        print(repr(f.attrs['settings']), f.attrs['format_version'], f.attrs['units'], list(f['history/loss'][::2]))";
    let done = python().arg("-c").arg(script).arg(&path).env("PYTHONIOENCODING", "utf-8").output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout).replace("np.float64(", "").replace([')', '('], "");
    let expected = "2, 3 1.5 ['pT', 'η', '']\n'seed = 0\\nl2 = 3e-4\\n' 1 GeV² [0.7, 0.5]\n";
    assert_eq!(printed, expected, "{}", String::from_utf8_lossy(&done.stderr));
}

/// A disk that fills up, without privileges: this test runs itself under a limit on the size of files (`ulimit -f`, with
/// the signal ignored, so that writes fail with "File too large").
#[test]
fn a_full_disk_leaves_the_old_file_and_no_other() {
    const FOLDER: &str = "CONSORT_TEST_FULL_DISK";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill_the_disk(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("model.h5"), &model(), false).unwrap();
    let before = std::fs::read(folder.path().join("model.h5")).unwrap();
    let name = "store::tests::a_full_disk_leaves_the_old_file_and_no_other";
    // 512-byte blocks in dash, 1024-byte blocks in bash: 128 or 256 KiB.
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" --exact \"$1\" --nocapture --test-threads=1";
    let mut run = std::process::Command::new("sh");
    run.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).arg(name);
    let done = run.env(FOLDER, folder.path()).output().unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"), "{done:?}");
    assert_eq!(std::fs::read(folder.path().join("model.h5")).unwrap(), before);
    assert_eq!(names_in(folder.path()), ["model.h5"]);
}

fn fill_the_disk(folder: &Path) {
    let too_large = |model: ModelFile| {
        let error = save(&folder.join("model.h5"), &model, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.to_string().contains("cannot write"), "{error}");
    };
    // One large array fails when it is written; many small strings fail when the library flushes what it held back.
    let values = vec![1.0; 1 << 17];
    too_large(ModelFile { arrays: vec![("w".into(), Array::F64 { shape: vec![1 << 17], values })], ..model() });
    let words = (0..30_000).map(|i| format!("feature number {i}")).collect();
    too_large(ModelFile { strings: vec![("features".into(), words)], ..model() });
    // The process goes on: a model that fits is written.
    save(&folder.join("small.h5"), &model(), false).unwrap();
    assert_same(&load(&folder.join("small.h5")).unwrap(), &model());
    std::fs::remove_file(folder.join("small.h5")).unwrap();
}
