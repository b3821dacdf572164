use super::super::types::header_address;
use super::*;
use hdf5::dataset::ChunkOpts;
use hdf5::plist::dataset_create::AllocTime;
use hdf5::{Dataset, Extent};
use ndarray::{ArrayD, IxDyn};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The places as the library lists them. `user_block`: it leaves that out of its offsets.
fn listed(dataset: &Dataset, user_block: u64) -> Vec<Option<ChunkPlace>> {
    let chunk = dataset.chunk().unwrap();
    let counts: Vec<usize> = dataset.shape().iter().zip(&chunk).map(|(n, c)| n.div_ceil(*c)).collect();
    let mut places = vec![None; counts.iter().product()];
    for index in 0..dataset.num_chunks().unwrap() {
        let info = dataset.chunk_info(index).unwrap();
        let at: Vec<usize> = info.offset.iter().zip(&chunk).map(|(first, c)| *first as usize / c).collect();
        // Allocated for rows that the dataset may get.
        if at.iter().zip(&counts).any(|(i, n)| i >= n) {
            continue;
        }
        let number = at.iter().zip(&counts).fold(0, |number, (i, n)| number * n + i);
        let place = ChunkPlace { offset: info.addr + user_block, stored_bytes: info.size, mask: info.filter_mask };
        assert_eq!(places[number].replace(place), None);
    }
    places
}

fn found(path: &Path, dataset: &Dataset, user_block: u64) -> Found<Vec<Option<ChunkPlace>>> {
    let wide = |sizes: Vec<usize>| -> Vec<u64> { sizes.iter().map(|&n| n as u64).collect() };
    let (shape, chunk) = (wide(dataset.shape()), wide(dataset.chunk().unwrap()));
    chunks_at(&File::open(path).unwrap(), user_block, header_address(dataset).unwrap(), &shape, &chunk)
}

/// One dataset of a test.
#[derive(Clone)]
struct Case {
    shape: Vec<usize>,
    /// None: without limit.
    most: Vec<Option<usize>>,
    chunk: Vec<usize>,
    /// Of ten runs along the first axis so many are written.
    written: usize,
    deflated: bool,
    early: bool,
    plain_edges: bool,
}

fn case(shape: &[usize], most: &[Option<usize>], chunk: &[usize]) -> Case {
    let (shape, most, chunk) = (shape.to_vec(), most.to_vec(), chunk.to_vec());
    Case { shape, most, chunk, written: 10, deflated: false, early: false, plain_edges: false }
}

fn fixed(shape: &[usize], chunk: &[usize]) -> Case {
    case(shape, &shape.iter().map(|&n| Some(n)).collect::<Vec<_>>(), chunk)
}

impl Case {
    fn make(&self, file: &hdf5::File, name: &str) {
        let extents: Vec<Extent> = self.shape.iter().zip(&self.most).map(|(n, most)| Extent::new(*n, *most)).collect();
        let mut builder = file.new_dataset::<u32>().chunk(&self.chunk[..]);
        if self.early {
            builder = builder.alloc_time(Some(AllocTime::Early));
        }
        if self.deflated {
            builder = builder.deflate(1);
        }
        if self.plain_edges {
            builder = builder.chunk_opts(ChunkOpts::DONT_FILTER_PARTIAL_CHUNKS);
        }
        let dataset = builder.shape(extents).create(name).unwrap();
        let row: usize = self.shape[1..].iter().product();
        let n = self.shape[0];
        for part in (0..10).filter(|part| part * 7 % 10 < self.written) {
            let rows = n * part / 10..n * (part + 1) / 10;
            let mut shape = self.shape.clone();
            shape[0] = rows.len();
            let values = (rows.start * row..rows.end * row).map(|i| i as u32).collect();
            let values = ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap();
            let mut selection: Vec<hdf5::SliceOrIndex> = vec![rows.into()];
            selection.extend(self.shape[1..].iter().map(|&n| hdf5::SliceOrIndex::from(0..n)));
            let selection = hdf5::Hyperslab::from(selection);
            if !values.is_empty() {
                dataset.write_slice(&values, selection).unwrap();
            }
        }
    }
}

fn compare(cases: &[Case], latest: bool, user_block: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let mut builder = hdf5::File::with_options();
    builder.with_fcpl(|create| create.userblock(user_block));
    if latest {
        builder.with_fapl(|access| access.libver_latest());
    }
    let file = builder.create(&path).unwrap();
    cases.iter().enumerate().for_each(|(i, case)| case.make(&file, &format!("d{i}")));
    file.close().unwrap();
    let file = hdf5::File::open(&path).unwrap();
    let raw = File::open(&path).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let dataset = file.dataset(&format!("d{i}")).unwrap();
        let place = format!("{:?} up to {:?} by {:?}, {}", case.shape, case.most, case.chunk, case.written);
        let ours = found(&path, &dataset, user_block).unwrap_or_else(|why| panic!("{place}: {why}"));
        let theirs = listed(&dataset, user_block);
        if case.plain_edges {
            let is_plain = |place: &Option<ChunkPlace>| place.as_ref().is_some_and(|place| place.mask == u32::MAX);
            assert!(ours.iter().any(is_plain) && !ours.iter().all(is_plain), "{place}");
            let without_mask = |places: &[Option<ChunkPlace>]| -> Vec<_> {
                places.iter().flatten().map(|place| (place.offset, place.stored_bytes)).collect()
            };
            assert_eq!(without_mask(&ours), without_mask(&theirs), "{place}");
        } else {
            assert!(ours == theirs, "{place}");
        }
        // Without filters the values themselves tell.
        let row: usize = case.shape[1..].iter().product();
        if !case.deflated && case.chunk[1..] == case.shape[1..] {
            for (number, place) in ours.iter().enumerate().filter_map(|(i, place)| Some((i, place.as_ref()?))) {
                let mut first = [0; 4];
                raw.read_exact_at(&mut first, place.offset).unwrap();
                let expected = (number * case.chunk[0] * row) as u32;
                let first = u32::from_le_bytes(first);
                assert!(first == expected || case.written < 10 && first == 0, "{place:?}: {first}, not {expected}");
            }
        }
    }
}

#[test]
fn trees_of_the_first_format_list_what_the_library_lists() {
    let cases = [
        fixed(&[10], &[10]),
        fixed(&[11], &[10]),
        fixed(&[1009], &[3]),
        case(&[7000], &[None], &[1]),
        fixed(&[103, 5], &[10, 5]),
        fixed(&[103, 50], &[10, 7]),
        case(&[29, 4, 6], &[None, Some(9), None], &[8, 3, 4]),
        Case { deflated: true, ..fixed(&[500, 9], &[4, 2]) },
        Case { written: 4, ..fixed(&[5000], &[2]) },
        Case { written: 0, ..fixed(&[50], &[5]) },
        Case { early: true, written: 3, ..fixed(&[50], &[5]) },
    ];
    compare(&cases, false, 0);
    compare(&cases, false, 2048);
}

#[test]
fn indexes_of_the_latest_format_list_what_the_library_lists() {
    let mut cases = vec![
        // One chunk.
        fixed(&[10], &[10]),
        Case { deflated: true, ..fixed(&[100, 2], &[100, 2]) },
        // Implicit.
        Case { early: true, ..fixed(&[103, 5], &[10, 2]) },
        Case { early: true, ..case(&[50, 4], &[Some(70), Some(9)], &[10, 2]) },
        // Fixed array: within the block, in pages, with more room than it fills.
        fixed(&[103, 5], &[10, 5]),
        fixed(&[103, 50], &[10, 7]),
        fixed(&[1024], &[1]),
        fixed(&[1025], &[1]),
        fixed(&[9001], &[1]),
        case(&[29, 4, 6], &[Some(40), Some(9), Some(6)], &[8, 3, 4]),
        case(&[2000, 2], &[Some(3000), Some(30)], &[1, 1]),
        // Extensible array: within the index block, in data blocks, in super blocks, in pages.
        case(&[3], &[None], &[1]),
        case(&[50], &[None], &[1]),
        case(&[1009], &[None], &[1]),
        case(&[12_007], &[None], &[1]),
        case(&[300, 7], &[None, Some(19)], &[2, 2]),
        // Tree of the second format: a leaf, two and three levels.
        case(&[5, 4], &[None, None], &[2, 2]),
        case(&[40, 40], &[None, None], &[2, 2]),
        case(&[110, 60], &[None, None], &[1, 1]),
        Case { plain_edges: true, deflated: true, ..fixed(&[103, 7], &[10, 2]) },
        Case { plain_edges: true, deflated: true, ..case(&[103, 7], &[None, Some(7)], &[10, 2]) },
        Case { plain_edges: true, deflated: true, ..case(&[103, 7], &[None, None], &[10, 2]) },
    ];
    // The same with sizes of each chunk in the index, and with holes.
    let holed: Vec<Case> = cases.iter().map(|case| Case { written: 4, ..case.clone() }).collect();
    let deflated: Vec<Case> =
        cases.iter().filter(|case| !case.early).map(|case| Case { deflated: true, ..case.clone() }).collect();
    let empty: Vec<Case> =
        cases.iter().filter(|case| !case.plain_edges).map(|case| Case { written: 0, ..case.clone() }).collect();
    cases.extend([holed, deflated, empty].concat());
    compare(&cases, true, 0);
    compare(&cases[..6], true, 512);
}
