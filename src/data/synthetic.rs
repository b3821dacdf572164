//! Tables with a known answer, for tests, benches and first steps. The same on every machine.

use super::memory::MemorySource;
use super::{SparseRows, TargetKind, Targets, Values};
use crate::error::Result;
use crate::rng::{Draws, Stream};
use std::path::Path;

/// Counters of [`Draws`] beyond those of the features.
const NOISE: u64 = 1 << 40;
const PARAMETERS: u64 = 1 << 41;

/// The coefficient of feature `j` in [`linear`], [`logistic`] and [`poisson`]: (−1)ʲ/(j + 1).
pub fn coefficient(feature: usize) -> f64 {
    let sign = if feature.is_multiple_of(2) { 1.0 } else { -1.0 };
    sign / (feature as f64 + 1.0)
}

/// `y = 2 + Σ coefficient(j)·xⱼ + noise·ε` with standard normal x and ε. Not collective.
///
/// float32 features, float64 targets.
pub fn linear(n_rows: usize, n_features: usize, noise: f64, seed: u64) -> Result<MemorySource> {
    let draws = Draws::new(seed, Stream::Synthetic);
    let x = normals(draws, n_rows, n_features);
    let target = scores(&x, n_features).enumerate();
    let target = target.map(|(row, score)| 2.0 + score + noise * draws.normal(row as u64, NOISE)).collect();
    MemorySource::from_f32(x, n_features)?.with_target(target, TargetKind::Float)
}

/// Class 1 with probability 1/(1 + exp(−(0.5 + Σ coefficient(j)·xⱼ))), else class 0.
pub fn logistic(n_rows: usize, n_features: usize, seed: u64) -> Result<MemorySource> {
    let draws = Draws::new(seed, Stream::Synthetic);
    let x = normals(draws, n_rows, n_features);
    let target = scores(&x, n_features).enumerate().map(|(row, score)| {
        let probability = 1.0 / (1.0 + libm::exp(-(0.5 + score)));
        f64::from(draws.uniform(row as u64, NOISE) < probability)
    });
    let target = target.collect();
    MemorySource::from_f32(x, n_features)?.with_target(target, TargetKind::Integer)
}

/// `n_classes` normal clouds of unit width, their centres drawn with width 3; classes with equal chances.
pub fn mixture(n_rows: usize, n_features: usize, n_classes: usize, seed: u64) -> Result<MemorySource> {
    let draws = Draws::new(seed, Stream::Synthetic);
    let class_of = |row: usize| draws.below(n_classes as u64, row as u64, NOISE);
    let mut x = normals(draws, n_rows, n_features);
    for (row, values) in x.chunks_exact_mut(n_features.max(1)).enumerate() {
        for (feature, value) in values.iter_mut().enumerate() {
            *value += 3.0 * draws.normal(feature as u64, PARAMETERS + class_of(row)) as f32;
        }
    }
    let target = (0..n_rows).map(|row| class_of(row) as f64).collect();
    MemorySource::from_f32(x, n_features)?.with_target(target, TargetKind::Integer)
}

/// Counts with mean `exp(0.5 + Σ coefficient(j)·xⱼ/2)`.
pub fn poisson(n_rows: usize, n_features: usize, seed: u64) -> Result<MemorySource> {
    let draws = Draws::new(seed, Stream::Synthetic);
    let x = normals(draws, n_rows, n_features);
    let target = scores(&x, n_features)
        .enumerate()
        .map(|(row, score)| count(libm::exp(0.5 + 0.5 * score), draws.uniform(row as u64, NOISE)));
    let target = target.collect();
    MemorySource::from_f32(x, n_features)?.with_target(target, TargetKind::Integer)
}

/// The smallest count whose cumulated Poisson probability exceeds `uniform`.
fn count(mean: f64, uniform: f64) -> f64 {
    let mut probability = libm::exp(-mean);
    let (mut cumulated, mut count) = (probability, 0.0);
    while cumulated <= uniform && count < 1000.0 {
        count += 1.0;
        probability *= mean / count;
        cumulated += probability;
    }
    count
}

fn normals(draws: Draws, n_rows: usize, n_features: usize) -> Vec<f32> {
    let mut x = Vec::with_capacity(n_rows * n_features);
    for row in 0..n_rows as u64 {
        x.extend((0..n_features as u64).map(|feature| draws.normal(row, feature) as f32));
    }
    x
}

fn scores(x: &[f32], n_features: usize) -> impl Iterator<Item = f64> {
    x.chunks_exact(n_features.max(1)).map(|row| {
        let mut score = 0.0;
        for (feature, &value) in row.iter().enumerate() {
            score += coefficient(feature) * f64::from(value);
        }
        score
    })
}

/// How [`write_hdf5`] stores the features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Rows of a chunk. None: contiguous.
    pub chunk_rows: Option<usize>,
    /// Deflate level 1–9 with shuffle before it; needs chunks. None: not compressed.
    pub deflate: Option<u8>,
}

/// Writes `X` (and `y`, `weight`, `offset`, a 1-D dataset per text column) into `group` of a file,
/// which is made if it is not there. Not collective. Errors: what HDF5 cannot write.
pub fn write_hdf5(path: &Path, group: &str, table: &MemorySource, storage: Storage) -> Result<()> {
    use super::hdf5::write::Writer;
    let writer = Writer::append(path, group)?;
    let block = table.block();
    let width = super::DataSource::schema(table).n_numeric();
    match &block.values {
        Values::Sparse(rows) => write_sparse(&writer, rows, width, storage)?,
        Values::F32(x) => writer.numbers("X", x, &[block.n_rows, width], storage)?,
        Values::F64(x) => writer.numbers("X", x, &[block.n_rows, width], storage)?,
    }
    let (kind, n_targets) = (super::DataSource::schema(table).target, super::DataSource::schema(table).n_targets());
    let shape = if n_targets > 1 { vec![block.n_rows, n_targets] } else { vec![block.n_rows] };
    match &block.target {
        Targets::None => {}
        Targets::Text(target) => writer.text("y", target)?,
        Targets::Number(target) if kind == Some(TargetKind::Float) => {
            writer.numbers("y", target, &shape, storage)?;
        }
        Targets::Number(target) => {
            let target: Vec<i64> = target.iter().map(|&value| value as i64).collect();
            writer.numbers("y", &target, &shape, storage)?;
        }
    }
    for (name, values) in [("weight", &block.weight), ("offset", &block.offset)] {
        if let Some(values) = values {
            writer.numbers(name, values, &[values.len()], storage)?;
        }
    }
    let text = super::DataSource::schema(table).columns.iter().filter(|c| c.kind == super::ColumnKind::Text);
    for (column, values) in text.zip(&block.text) {
        writer.text(&column.name, values)?;
    }
    writer.close()
}

/// `X` as a sparse matrix of float64, in compressed chunks whatever the storage says.
fn write_sparse(
    writer: &super::hdf5::write::Writer,
    rows: &SparseRows<f64>,
    n_columns: usize,
    storage: Storage,
) -> Result<()> {
    use super::hdf5::write::{CHUNK_BYTES, Cell, Sink};
    let mut sink = Sink::new(writer, &super::crew::Alone)?;
    let chunk_bytes = storage.chunk_rows.map_or(CHUNK_BYTES, |rows| 8 * rows);
    let shape = [rows.n_rows() as u64, n_columns as u64];
    let mut datasets = writer.sparse(&mut sink, "X", Cell::F64, shape, rows.n_values() as u64, chunk_bytes)?;
    for (columns, values) in (0..rows.n_rows()).map(|row| rows.row(row)) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        datasets.push(&mut sink, &bytes, columns.iter().map(|&column| column.into()), &[columns.len()])?;
    }
    sink.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_table_and_another_seed_another() {
        let table = |seed| linear(50, 3, 0.1, seed).unwrap().block().values.clone();
        assert_eq!(table(1), table(1));
        assert_ne!(table(1), table(2));
    }

    #[test]
    fn a_table_without_noise_is_its_own_answer() {
        let table = linear(31, 4, 0.0, 9).unwrap();
        let (Values::F32(x), Targets::Number(y)) = (&table.block().values, &table.block().target) else { panic!() };
        for (row, &y) in x.chunks_exact(4).zip(y) {
            let expected: f64 = 2.0 + (0..4).map(|j| coefficient(j) * f64::from(row[j])).sum::<f64>();
            assert!((y - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn counts_have_the_mean_they_should_have() {
        let n = 20_000;
        let draws = Draws::new(4, Stream::Synthetic);
        let mean = (0..n).map(|row| count(2.5, draws.uniform(row, 0))).sum::<f64>() / n as f64;
        assert!((mean - 2.5).abs() < 4.0 * (2.5 / n as f64).sqrt(), "mean {mean}");
    }

    #[test]
    fn classes_are_all_drawn() {
        let table = mixture(600, 2, 4, 3).unwrap();
        let Targets::Number(y) = &table.block().target else { panic!() };
        for class in 0..4 {
            assert!(y.iter().filter(|&&y| y == f64::from(class)).count() > 100);
        }
        let table = logistic(400, 2, 3).unwrap();
        let Targets::Number(y) = &table.block().target else { panic!() };
        assert!(y.iter().sum::<f64>() > 100.0);
        assert!(poisson(10, 2, 3).is_ok());
    }
}
