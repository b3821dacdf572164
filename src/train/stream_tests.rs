//! Rows that are read for every pass against the same rows in memory.

use super::*;
use crate::config::Missing;
use crate::data::memory::MemorySource;
use crate::data::partition::RowPlan;
use crate::data::{Schema, TargetKind};
use crate::train::table::{BlockRows, LocalRows, Table};
use std::sync::Arc;

#[test]
fn classes_are_found_where_they_are() {
    for classes in [vec![], vec![0, 1], vec![-3, -2, -1, 5, 6], vec![i64::MIN, 0, i64::MAX], vec![7]] {
        for class in [i64::MIN, i64::MIN + 1, -4, -3, -2, 0, 1, 2, 4, 5, 6, 7, i64::MAX] {
            assert_eq!(position(&classes, class), classes.binary_search(&class).ok(), "{class} in {classes:?}");
        }
    }
}

#[test]
fn batches_hold_every_block_once_within_their_rows_and_end_near_chunks() {
    for (first, block, n_blocks) in [(0, 64, 40), (640, 64, 33), (0, 1000, 7), (96, 48, 100), (0, 16, 0)] {
        let blocks: Vec<Range<u64>> = (0..n_blocks).map(|i| first + i * block..first + (i + 1) * block).collect();
        for (batch_rows, chunk_rows) in [(1, 1), (200, 1), (700, 100), (700, 128), (5000, 512), (u64::MAX, 8192)] {
            let batches = batches_of(&blocks, batch_rows, chunk_rows, 2);
            assert!(batches.iter().cloned().flatten().eq(0..blocks.len()), "{batch_rows} {chunk_rows}");
            for batch in &batches {
                let n_rows = blocks[batch.end - 1].end - blocks[batch.start].start;
                assert!(n_rows <= batch_rows || batch.len() == 1, "{n_rows} rows where {batch_rows} are read");
                let since_chunk = blocks[batch.start].start % chunk_rows;
                let is_near = since_chunk < block || batch.start == 0 || chunk_rows + block > batch_rows;
                assert!(is_near, "{since_chunk} rows behind the beginning of a chunk");
            }
        }
    }
}

/// A table that knows what was read of it.
struct Watched {
    table: MemorySource,
    /// By reader, in order.
    read: Arc<Mutex<Vec<Vec<Range<u64>>>>>,
    number: usize,
    /// Cannot be read.
    bad_row: Option<u64>,
}

impl DataSource for Watched {
    fn schema(&self) -> &Schema {
        self.table.schema()
    }

    fn read(&mut self, rows: Range<u64>, into: &mut Block) -> Result<()> {
        lock(&self.read)[self.number].push(rows.clone());
        match self.bad_row.is_some_and(|row| rows.contains(&row)) {
            true => Err(Error::data("a bad row")),
            false => self.table.read(rows, into),
        }
    }

    fn another(&self) -> Option<Box<dyn DataSource>> {
        let mut read = lock(&self.read);
        read.push(Vec::new());
        let (table, number) = (self.table.clone(), read.len() - 1);
        Some(Box::new(Watched { table, read: self.read.clone(), number, bad_row: self.bad_row }))
    }
}

const ROWS: usize = 20_011;

fn watched(bad_row: Option<u64>) -> Watched {
    let x = (0..3 * ROWS).map(|i| (i * 7919 % 10_007) as f32).collect();
    let y = (0..ROWS).map(|row| (row % 5) as f64).collect();
    let table = MemorySource::from_f32(x, 3).and_then(|table| table.with_target(y, TargetKind::Float)).unwrap();
    Watched { table, read: Arc::new(Mutex::new(vec![Vec::new()])), number: 0, bad_row }
}

/// Rows of `source` for every pass, on a pool of as many threads as readers.
fn on_threads<R: Send>(
    source: &mut Watched,
    (n_readers, piece_rows, kept_rows): (u64, u64, u64),
    use_table: impl FnOnce(&Table<'_>) -> R + Send,
) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_readers as usize).build().unwrap();
    pool.install(|| {
        let mut preprocess = Preprocess::unfitted(source.schema(), Missing::Mean);
        (preprocess.mean, preprocess.inverse_scale) = (vec![5000.0; 3], vec![0.01; 3]);
        let labels = LabelCoding {
            target: TargetCoding::Number,
            class_factor: Vec::new(),
            hold: None,
            seed: 0,
            with_offset: false,
        };
        let plan = RowPlan::full_batch(ROWS as u64, 3);
        let units = 0..plan.n_units();
        let blocks = plan.blocks(units.clone());
        let memory =
            MemoryPlan { is_streamed: true, n_readers, piece_rows, batch_rows: 3000, kept_rows, source_bytes: None };
        let stream = Stream::new(source, preprocess, labels, blocks, memory);
        let rows = LocalRows::Stream(Box::new(stream));
        let (total_weight, peak) = (ROWS as f64, vec![1.0; 3]);
        use_table(&Table { plan, units, first_row: 0, n_features: 3, rows, total_weight, peak })
    })
}

fn of_block(block: BlockRows<'_>) -> (u64, Vec<f64>) {
    let mut values = Vec::new();
    for row in block.range {
        block.rows.row(row).each(|_, x| values.push(x));
        values.push(block.rows.y[row]);
    }
    (block.first_row, values)
}

#[test]
fn readers_see_every_block_once_in_runs_and_results_are_in_order() {
    let alone = on_threads(&mut watched(None), (1, 700, 0), |table| table.map_blocks(of_block)).unwrap();
    assert_eq!(alone.iter().map(|(_, values)| values.len() / 4).sum::<usize>(), ROWS);
    for (n_readers, piece_rows, kept_rows) in [(1, 1, 5_000), (2, 700, 0), (3, 1_300, 4_000), (4, 1, ROWS as u64)] {
        let mut source = watched(None);
        let n_passes = 3;
        on_threads(&mut source, (n_readers, piece_rows, kept_rows), |table| {
            for _ in 0..n_passes {
                assert!(table.map_blocks(of_block).unwrap() == alone, "{n_readers} readers");
            }
            let counts = table.fold_blocks(|| 0, |n, block| *n += block.range.len()).unwrap();
            assert!(counts.len() == n_readers as usize && counts.iter().sum::<usize>() == ROWS);
        });
        let read = lock(&source.read).clone();
        assert_eq!(read.len(), n_readers as usize);
        let mut times = vec![0; ROWS];
        read.iter().flatten().flat_map(Range::clone).for_each(|row| times[row as usize] += 1);
        // Those that stay are read once, the others in every pass.
        let n_kept = times.iter().filter(|&&n| n == 1).count() as u64;
        assert!(
            times.iter().all(|&n| n == 1 || n == n_passes + 1) && n_kept <= kept_rows,
            "{n_readers} readers: {n_kept}"
        );
        assert!(2 * n_kept >= kept_rows, "{n_readers} readers keep {n_kept} rows of {kept_rows}");
        // Most reads go on where the reader was, so that chunks that two of them cut are decoded once.
        let goes_on = |ranges: &Vec<Range<u64>>| ranges.windows(2).filter(|pair| pair[0].end == pair[1].start).count();
        let (n_reads, on) = (read.iter().map(Vec::len).sum::<usize>(), read.iter().map(goes_on).sum::<usize>());
        assert!(kept_rows > 0 || 3 * on > n_reads, "{n_readers} readers: {on} of {n_reads}");
    }
}

#[test]
fn what_one_reader_cannot_read_ends_the_pass_of_all() {
    for n_readers in [1, 3] {
        let mut source = watched(Some(15_000));
        let message = on_threads(&mut source, (n_readers, 700, 0), |table| table.map_blocks(of_block)).unwrap_err();
        assert_eq!(message.to_string(), "a bad row", "{n_readers} readers");
    }
}
