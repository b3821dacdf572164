use super::super::types::header_address;
use super::*;
use hdf5::dataset::ChunkOpts;
use hdf5::plist::dataset_create::AllocTime;
use hdf5::{Dataset, Extent};
use ndarray::{ArrayD, IxDyn};
use std::ops::Range;
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
    /// Or these rows, and no others.
    only: Vec<Range<usize>>,
    deflated: bool,
    early: bool,
    plain_edges: bool,
}

fn case(shape: &[usize], most: &[Option<usize>], chunk: &[usize]) -> Case {
    let (shape, most, chunk) = (shape.to_vec(), most.to_vec(), chunk.to_vec());
    Case { shape, most, chunk, written: 10, only: Vec::new(), deflated: false, early: false, plain_edges: false }
}

fn fixed(shape: &[usize], chunk: &[usize]) -> Case {
    case(shape, &shape.iter().map(|&n| Some(n)).collect::<Vec<_>>(), chunk)
}

impl Case {
    fn has_holes(&self) -> bool {
        self.written < 10 || !self.only.is_empty()
    }

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
        let tenths = (0..10).filter(|part| part * 7 % 10 < self.written).map(|part| n * part / 10..n * (part + 1) / 10);
        let runs = if self.only.is_empty() { tenths.collect() } else { self.only.clone() };
        for rows in runs {
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
        if !case.deflated {
            values_tell(case, &ours, &raw, &place);
        }
    }
}

/// The first element of a chunk without filters is its number in the dataset, unless it was not written.
fn values_tell(case: &Case, places: &[Option<ChunkPlace>], raw: &File, name: &str) {
    let counts: Vec<usize> = case.shape.iter().zip(&case.chunk).map(|(n, c)| n.div_ceil(*c)).collect();
    for (number, place) in places.iter().enumerate().filter_map(|(i, place)| Some((i, place.as_ref()?))) {
        let mut at = vec![0; counts.len()];
        let mut rest = number;
        for axis in (0..counts.len()).rev() {
            at[axis] = rest % counts[axis] * case.chunk[axis];
            rest /= counts[axis];
        }
        let expected = at.iter().zip(&case.shape).fold(0, |sum, (i, n)| sum * n + i) as u32;
        let mut first = [0; 4];
        raw.read_exact_at(&mut first, place.offset).unwrap();
        let first = u32::from_le_bytes(first);
        assert!(first == expected || case.has_holes() && first == 0, "{name}, {place:?}: {first}, not {expected}");
    }
}

#[test]
fn trees_of_the_first_format_list_what_the_library_lists() {
    let cases = [
        fixed(&[10], &[10]),
        fixed(&[11], &[10]),
        fixed(&[1009], &[3]),
        // Three levels.
        case(&[2500], &[None], &[1]),
        fixed(&[103, 5], &[10, 5]),
        fixed(&[103, 50], &[10, 7]),
        case(&[29, 4, 6], &[None, Some(9), None], &[8, 3, 4]),
        Case { deflated: true, ..fixed(&[500, 9], &[4, 2]) },
        Case { written: 4, ..fixed(&[3000], &[2]) },
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
        fixed(&[2051], &[1]),
        case(&[29, 4, 6], &[Some(40), Some(9), Some(6)], &[8, 3, 4]),
        case(&[200, 2], &[Some(3000), Some(30)], &[1, 1]),
        // Extensible array: within the index block, in data blocks, in super blocks.
        case(&[3], &[None], &[1]),
        case(&[50], &[None], &[1]),
        case(&[1009], &[None], &[1]),
        case(&[300, 7], &[None, Some(19)], &[2, 2]),
        // Tree of the second format: a leaf, two and three levels.
        case(&[5, 4], &[None, None], &[2, 2]),
        case(&[40, 40], &[None, None], &[2, 2]),
        // Records are longer with more axes, so that fewer fill a node.
        case(&[4, 4, 4, 4, 5], &[None; 5], &[1; 5]),
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
    // Far apart: pages of a fixed array that were never written, and an extensible array in pages.
    let far = [
        Case { only: vec![0..2, 3000..3003, 8999..9001], ..fixed(&[9001], &[1]) },
        Case {
            only: vec![0..5, 300..302, 131_059..131_063, 135_200..135_203, 139_999..140_000],
            ..case(&[140_000], &[None], &[1])
        },
    ];
    let deflated = far.clone().map(|case| Case { deflated: true, ..case });
    cases.extend([far, deflated].concat());
    compare(&cases, true, 0);
    compare(&cases[..6], true, 512);
}

#[test]
fn arrays_that_grow_along_another_axis_are_found_by_their_values() {
    // What HDF5 1.10 lists of them is in another order than that in which it reads them.
    let cases = [
        case(&[7, 300], &[Some(7), None], &[2, 2]),
        case(&[7, 300], &[Some(19), None], &[2, 2]),
        case(&[5, 4, 60], &[Some(9), Some(4), None], &[2, 3, 1]),
        case(&[5, 60, 4], &[Some(9), None, Some(11)], &[2, 1, 3]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.h5");
    let file = hdf5::File::with_options().with_fapl(|access| access.libver_latest()).create(&path).unwrap();
    cases.iter().enumerate().for_each(|(i, case)| case.make(&file, &format!("d{i}")));
    file.close().unwrap();
    let file = hdf5::File::open(&path).unwrap();
    let raw = File::open(&path).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let dataset = file.dataset(&format!("d{i}")).unwrap();
        let name = format!("{:?} up to {:?} by {:?}", case.shape, case.most, case.chunk);
        let ours = found(&path, &dataset, 0).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(ours.iter().all(Option::is_some), "{name}");
        values_tell(case, &ours, &raw, &name);
    }
}
