//! Sparse matrices as they are found, and as they should not be.

use crate::data::hdf5::Hdf5Source;
use crate::data::names::{Need, TableNames};
use crate::data::{Block, DataSource, SparseRows, Values};
use crate::error::Result;
use std::path::{Path, PathBuf};

/// A matrix of 4 × 5 with an empty row, an unsorted one, stored zeros and one row that has every column.
struct Matrix {
    shape: Vec<i64>,
    format: Option<&'static str>,
    data: Vec<f64>,
    indices: Vec<i64>,
    indptr: Vec<i64>,
}

fn good() -> Matrix {
    Matrix {
        shape: vec![4, 5],
        format: Some("csr_matrix"),
        data: vec![3.0, -0.0, 1.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0],
        indices: vec![4, 2, 0, 1, 0, 1, 2, 3, 4],
        indptr: vec![0, 3, 3, 4, 9],
    }
}

fn write(path: &Path, matrix: &Matrix) {
    let file = hdf5::File::create(path).unwrap();
    let group = file.create_group("X").unwrap();
    group.new_dataset_builder().with_data(&matrix.data).create("data").unwrap();
    group.new_dataset_builder().with_data(&matrix.indices).create("indices").unwrap();
    group.new_dataset_builder().with_data(&matrix.indptr).create("indptr").unwrap();
    if !matrix.shape.is_empty() {
        group.new_attr_builder().with_data(&matrix.shape).create("shape").unwrap();
    }
    if let Some(format) = matrix.format {
        let text: hdf5::types::VarLenUnicode = format.parse().unwrap();
        group.new_attr::<hdf5::types::VarLenUnicode>().create("encoding-type").unwrap().write_scalar(&text).unwrap();
    }
}

fn open(path: &Path, names: &TableNames) -> Result<Hdf5Source> {
    Hdf5Source::open(&[path.to_path_buf()], names, Need::Predict)
}

fn read(path: &Path) -> Result<SparseRows<f64>> {
    let mut source = open(path, &TableNames::default())?;
    let mut block = Block::empty();
    let n_rows = source.schema().n_rows;
    source.read(0..n_rows, &mut block)?;
    match block.values {
        Values::Sparse(rows) => Ok(rows),
        _ => panic!("dense"),
    }
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.h5");
    (folder, path)
}

#[test]
fn rows_are_sorted_and_free_of_zeros_and_any_run_is_that_of_the_whole() {
    let (_folder, path) = in_folder();
    write(&path, &good());
    let all = read(&path).unwrap();
    let row = |i: usize| {
        let (columns, values) = all.row(i);
        columns.iter().copied().zip(values.iter().copied()).collect::<Vec<_>>()
    };
    assert_eq!(all.n_rows(), 4);
    assert_eq!(row(0), [(0, 1.0), (4, 3.0)]);
    assert_eq!(row(1), []);
    assert_eq!(row(2), [(1, 0.5)]);
    assert_eq!(row(3), [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)]);
    let mut source = open(&path, &TableNames::default()).unwrap();
    let schema = source.schema().clone();
    assert!(schema.is_sparse && schema.columns.len() == 5 && schema.columns[4].name == "X[4]");
    let mut block = Block::empty();
    for (first, end) in [(0, 4), (1, 3), (3, 4), (2, 2), (0, 1)] {
        source.read(first..end, &mut block).unwrap();
        let mut wanted = SparseRows::default();
        wanted.append(&all, first as usize..end as usize);
        assert_eq!(block.values, Values::Sparse(wanted), "rows {first}..{end}");
    }
    let count = source.count_values(&[0..2, 2..4]).unwrap();
    assert_eq!((count.total, count.per_row), (9, 3));
}

#[test]
fn several_files_and_a_range_of_rows_are_one_table() {
    let (folder, path) = in_folder();
    write(&path, &good());
    let other = folder.path().join("n.h5");
    write(&other, &good());
    let mut source = Hdf5Source::open(&[path, other], &TableNames::default(), Need::Predict).unwrap();
    source.keep_rows(3..6).unwrap();
    let mut block = Block::empty();
    source.read(0..3, &mut block).unwrap();
    let Values::Sparse(rows) = &block.values else { panic!("dense") };
    assert_eq!([0, 1, 2].map(|i| rows.row(i).0.len()), [5, 2, 0]);
    assert_eq!(source.count_values(&[0..1, 1..3]).unwrap().total, 8);
}

#[test]
fn what_is_no_matrix_by_rows_is_refused_with_its_place() {
    let (_folder, path) = in_folder();
    let refused = |change: &dyn Fn(&mut Matrix)| {
        let mut matrix = good();
        change(&mut matrix);
        write(&path, &matrix);
        let message = read(&path).unwrap_err().to_string();
        message.strip_prefix(&format!("{}: 'X': ", path.display())).unwrap_or_else(|| panic!("{message}")).to_string()
    };
    let by_columns = refused(&|m| m.format = Some("csc_matrix"));
    assert!(by_columns.starts_with("is stored by columns (csc_matrix): ") && by_columns.contains("tocsr()"));
    assert!(refused(&|m| m.shape = vec![7, 4]).starts_with("is stored by columns, as its indptr shows"));
    assert!(refused(&|m| m.shape.clear()).starts_with("has no attribute 'shape' of two whole numbers"));
    assert!(refused(&|m| m.shape = vec![4, -5]).starts_with("has no attribute 'shape' of two whole numbers"));
    assert!(refused(&|m| m.shape = vec![4, 1 << 40]).starts_with("has 1099511627776 columns"));
    assert!(refused(&|m| m.shape = vec![9, 5]).starts_with("is no sparse matrix by rows: its shape is 9 × 5"));
    assert!(refused(&|m| m.indices.truncate(8)).contains("9 data, 8 indices and 5 indptr"));
    let bounds = refused(&|m| m.indptr[1] = 10);
    assert_eq!(
        bounds,
        "row 0: its values are said to be 0..10 of 9: indptr has to rise from 0 to the number of values"
    );
    assert!(refused(&|m| m.indptr[2] = 2).starts_with("row 1: its values are said to be 3..2 of 9"));
    assert!(refused(&|m| m.indptr[0] = -1).starts_with("row 0: its values are said to be -1..3 of 9"));
    assert_eq!(refused(&|m| m.shape = vec![4, 4]), "row 3: it has 5 values, more than the 4 columns");
    assert_eq!(refused(&|m| m.indices[3] = 5), "row 2: there is no column 5: the matrix has columns 0..5");
    assert_eq!(refused(&|m| m.indices[0] = -1), "row 0: there is no column -1: the matrix has columns 0..5");
    assert_eq!(refused(&|m| m.indices[0] = 0), "row 0: column 0 is there twice; store one value for it");
    assert_eq!(
        refused(&|m| m.data[3] = f64::INFINITY),
        "row 2: infinite value in column 1 ('X[1]'); store a finite number"
    );
}

#[test]
fn a_sparse_matrix_is_the_only_one_of_the_features() {
    let (folder, path) = in_folder();
    write(&path, &good());
    let file = hdf5::File::append(&path).unwrap();
    file.new_dataset_builder().with_data(&[1.0, 2.0, 3.0, 4.0]).create("age").unwrap();
    file.close().unwrap();
    let names = TableNames { features: vec!["X".into(), "age".into()], ..TableNames::default() };
    let message = open(&path, &names).err().unwrap().to_string();
    assert!(message.ends_with("'X': is a sparse matrix, which has to be the only one of the features (--features)"));
    let dense = folder.path().join("dense.h5");
    let file = hdf5::File::create(&dense).unwrap();
    file.new_dataset_builder().with_data(&ndarray::Array2::<f64>::zeros((4, 5))).create("X").unwrap();
    file.close().unwrap();
    let message = Hdf5Source::open(&[path, dense], &TableNames::default(), Need::Predict).err().unwrap().to_string();
    assert!(message.contains("its features are dense but those in"), "{message}");
}
