use super::*;
use std::path::PathBuf;

/// A folder that is removed at the end, and a file in it made by `write`.
fn file(write: impl FnOnce(&File)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.h5");
    let file = File::create(&path).unwrap();
    write(&file);
    file.close().unwrap();
    (folder, path)
}

fn open(path: &std::path::Path, names: TableNames) -> Result<Hdf5Source> {
    Hdf5Source::open(&[path.to_path_buf()], &names, Need::Train)
}

fn read_all(source: &mut Hdf5Source) -> Block {
    let mut block = Block::empty();
    let n_rows = source.schema().n_rows;
    source.read(0..n_rows, &mut block).unwrap();
    block
}

fn f32s(block: &Block) -> &[f32] {
    match &block.values {
        Values::F32(values) => values,
        Values::F64(_) => panic!("wide values"),
    }
}

fn f64s(block: &Block) -> &[f64] {
    match &block.values {
        Values::F64(values) => values,
        Values::F32(_) => panic!("narrow values"),
    }
}

fn array2<T: Copy>(rows: usize, columns: usize, value: impl Fn(usize) -> T) -> ndarray::Array2<T> {
    ndarray::Array2::from_shape_fn((rows, columns), |(row, column)| value(row * columns + column))
}

#[test]
fn a_float_table_with_integer_targets_is_found_and_read() {
    let (_folder, path) = file(|file| {
        file.new_dataset_builder().with_data(&array2(7, 3, |i| i as f32 - 4.0)).create("X").unwrap();
        file.new_dataset_builder().with_data(&[0i64, 1, 0, 1, 2, 2, 0]).create("y").unwrap();
    });
    let mut source = open(&path, TableNames::default()).unwrap();
    assert_eq!(source.schema().n_rows, 7);
    assert_eq!(source.schema().columns[2], Column { name: "X[2]".into(), kind: ColumnKind::Narrow });
    assert_eq!(source.schema().target, Some(TargetKind::Integer));
    let block = read_all(&mut source);
    assert_eq!(f32s(&block), (0..21).map(|i| i as f32 - 4.0).collect::<Vec<_>>());
    assert_eq!(block.target, Targets::Number(vec![0., 1., 0., 1., 2., 2., 0.]));
}
