//! Rows of a dataset read past the HDF5 library: any thread takes its own range of the file, undoes the filters and puts the rows
//! where they belong.

use super::chunks::{Chunked, Place, StoredIndex};
use super::filters::Decoder;
use super::index::ChunkPlace;
use super::read::whole_chunks;
use crate::error::{Error, Result};
use crate::faults::{self, Point};
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// What one task reads or puts together: it fits in the second cache.
const PIECE_BYTES: usize = 1 << 18;

/// Decoders that wait for work, shared by the datasets of a table.
#[derive(Default)]
pub(crate) struct Decoders(Mutex<Vec<Decoder>>);

impl Decoders {
    fn take(&self) -> Decoder {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(Decoder::new)
    }

    fn put(&self, decoder: Decoder) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
    }
}

/// A dataset that can be read.
pub(crate) struct StoredRows {
    pub(super) index: StoredIndex,
    file: Arc<File>,
    decoders: Arc<Decoders>,
    /// A larger band is not kept.
    keep_bytes: u64,
    kept: Mutex<Option<Kept>>,
}

/// The decoded chunks of a band that was read in part.
struct Kept {
    band: u64,
    chunks: Vec<Vec<u8>>,
}

/// What is to be done with a run of elements that was read.
type Then<'a> = &'a (dyn Fn(&mut [u8]) + Sync);

/// What of a row of a chunk belongs where in a row of the dataset, in bytes.
type Run = (usize, usize, usize);

impl StoredRows {
    /// * `file`: that of the index, open to read.
    /// * `keep_bytes`: what may stay decoded between two reads that cut the same chunks.
    pub(crate) fn new(index: StoredIndex, file: Arc<File>, decoders: Arc<Decoders>, keep_bytes: u64) -> StoredRows {
        StoredRows { index, file, decoders, keep_bytes, kept: Mutex::default() }
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> usize {
        self.index.element_bytes
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.index.row_bytes()
    }

    /// As [`StoredIndex::is_plain`].
    pub(crate) fn is_plain(&self) -> bool {
        self.index.is_plain()
    }

    /// As [`whole_chunks`].
    pub(crate) fn rows_in(&self, n_bytes: u64) -> u64 {
        let chunk_rows = match &self.index.place {
            Place::Chunked(chunked) => chunked.chunk[0],
            _ => 0,
        };
        whole_chunks(n_bytes, self.row_bytes() as u64, chunk_rows)
    }

    /// Reads whole rows into `into`, (rows, trailing axes, element bytes), in the byte order of this machine. Not collective;
    /// rayon over pieces and chunks.
    ///
    /// # Panics
    /// If `into` has another length.
    pub(crate) fn read(&self, rows: Range<u64>, into: &mut [u8]) -> Result<()> {
        self.read_then(rows, into, &|_| ())
    }

    /// As [`read`](Self::read); `then` sees every run of elements once, on the thread that has read it and has it in its cache.
    pub(crate) fn read_then(&self, rows: Range<u64>, into: &mut [u8], then: Then<'_>) -> Result<()> {
        let row_bytes = self.index.row_bytes();
        assert_eq!(into.len() as u64, (rows.end - rows.start) * row_bytes as u64, "bytes of the rows");
        let element = self.index.element_bytes;
        let turn_bytes = |piece: &mut [u8]| {
            piece.chunks_exact_mut(element).for_each(<[u8]>::reverse);
            then(piece);
        };
        self.read_as_stored(rows, into, if self.index.big_endian { &turn_bytes } else { then })
    }

    /// As [`read_then`](Self::read_then), in the byte order of the file.
    pub(crate) fn read_as_stored(&self, rows: Range<u64>, into: &mut [u8], then: Then<'_>) -> Result<()> {
        if into.is_empty() {
            return Ok(());
        }
        let row_bytes = self.index.row_bytes();
        match &self.index.place {
            Place::Contiguous { offset } => self.read_contiguous(offset + rows.start * row_bytes as u64, into, then)?,
            Place::Inline(bytes) => {
                let first = rows.start as usize * row_bytes;
                let stored = bytes.get(first..first + into.len());
                into.copy_from_slice(stored.ok_or_else(|| Error::data("holds fewer rows than its shape says"))?);
                then(into);
            }
            Place::Chunked(chunked) => self.read_chunked(chunked, rows, into, then)?,
        }
        Ok(())
    }

    fn read_contiguous(&self, offset: u64, into: &mut [u8], then: Then<'_>) -> Result<()> {
        let element = self.index.element_bytes;
        let piece_bytes = (PIECE_BYTES / element).max(1) * element;
        let read = |(piece, into): (usize, &mut [u8])| {
            self.pread(offset + (piece * piece_bytes) as u64, into)?;
            then(into);
            Ok(())
        };
        let read: Vec<Result<()>> = into.par_chunks_mut(piece_bytes).enumerate().map(read).collect();
        read.into_iter().collect()
    }

    fn pread(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let read = faults::before(Point::Read).and_then(|()| self.file.read_exact_at(into, offset));
        read.map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::data("the file ends before its data does: it is truncated"),
            _ => Error::data(format!("cannot read the file: {e}")),
        })
    }

    /// Bands (the chunks that hold the same run of rows) go to threads if there are enough of them, else the chunks of a band.
    /// A band that is left in its middle stays decoded, since the next rows to be asked for are most likely its others.
    fn read_chunked(&self, chunked: &Chunked, rows: Range<u64>, into: &mut [u8], then: Then<'_>) -> Result<()> {
        let (per_chunk, row_bytes) = (chunked.chunk[0], self.index.row_bytes());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut bands = Vec::new();
        let mut rest = into;
        let mut at = rows.start;
        while at < rows.end {
            let end = ((at / per_chunk + 1) * per_chunk).min(rows.end);
            let (here, after) = rest.split_at_mut((end - at) as usize * row_bytes);
            bands.push((at..end, here));
            (rest, at) = (after, end);
        }
        let n_threads = rayon::current_num_threads();
        let runs = self.runs(chunked);
        let by_band = runs.len() == 1 || bands.len() >= 2 * n_threads;
        // Chunks side by side that are decoded before their rows are put together: the more, the longer the runs of a row.
        let room = self.keep_bytes / 2 / if by_band { n_threads as u64 } else { 1 };
        let at_once = (room / self.decoded_bytes(chunked) as u64) as usize;
        let at_once = at_once.max(if by_band { 1 } else { n_threads });
        let read = |(rows, into): (Range<u64>, &mut [u8])| {
            self.read_band(chunked, &runs, rows, into, kept.as_ref(), at_once, then)
        };
        let read: Vec<Result<Option<Kept>>> = match by_band {
            true => bands.into_par_iter().map(read).collect(),
            false => bands.into_iter().map(read).collect(),
        };
        let decoded: Vec<Option<Kept>> = read.into_iter().collect::<Result<_>>()?;
        let last = rows.end / per_chunk; // the band of the next row
        let next = decoded.into_iter().flatten().chain(kept).find(|kept| kept.band == last);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Decodes all chunks that hold some of these rows into `file` from `offset` on, one after another. Returns where they are now
    /// (other rows are nowhere), and how many bytes that took.
    pub(crate) fn decode_to(&self, rows: Range<u64>, file: &File, offset: u64) -> Result<(StoredIndex, u64)> {
        let Place::Chunked(chunked) = &self.index.place else {
            return Err(Error::internal("decoded what is not chunked"));
        };
        let (per_band, decoded_bytes) = (self.chunks_per_band(chunked), self.decoded_bytes(chunked) as u64);
        let bands = (rows.start / chunked.chunk[0]) as usize..rows.end.div_ceil(chunked.chunk[0]) as usize;
        let first = bands.start * per_band;
        let place = |number: usize| ChunkPlace {
            offset: offset + (number - first) as u64 * decoded_bytes,
            stored_bytes: decoded_bytes,
            mask: 0,
        };
        let decode = |number: usize| -> Result<()> {
            let mut decoder = self.decoders.take();
            let in_chunk = |e: Error| {
                Error::data(format!("chunk {number} (rows {} on): {e}", number / per_band * chunked.chunk[0] as usize))
            };
            let done = self.decode(chunked, number, &mut decoder).map_err(in_chunk).and_then(|()| {
                let written = file.write_all_at(decoder.decoded(), place(number).offset);
                written
                    .map_err(|e| Error::data(format!("decoded rows cannot be written to the folder of --scratch: {e}")))
            });
            self.decoders.put(decoder);
            done
        };
        let numbers = first..bands.end * per_band;
        numbers.clone().into_par_iter().map(decode).collect::<Vec<_>>().into_iter().collect::<Result<()>>()?;
        let mut places = vec![None; chunked.places.len()];
        numbers.clone().for_each(|number| places[number] = Some(place(number)));
        let n_bytes = numbers.len() as u64 * decoded_bytes;
        let chunked = Chunked { places: places.into(), filters: Vec::new(), turned: false, ..chunked.clone() };
        let index = StoredIndex { file_bytes: offset + n_bytes, place: Place::Chunked(chunked), ..self.index.clone() };
        Ok((index, n_bytes))
    }

    /// Rows of one band, all of its columns. Returns the band decoded if it is worth keeping.
    #[allow(clippy::too_many_arguments)]
    fn read_band(
        &self,
        chunked: &Chunked,
        runs: &[Vec<Run>],
        rows: Range<u64>,
        into: &mut [u8],
        kept: Option<&Kept>,
        at_once: usize,
        then: Then<'_>,
    ) -> Result<Option<Kept>> {
        let band = rows.start / chunked.chunk[0];
        let begin = band * chunked.chunk[0];
        let n_rows = (begin + chunked.chunk[0]).min(self.index.shape[0]) - begin;
        let slots = (rows.start - begin) as usize..(rows.end - begin) as usize;
        if let Some(kept) = kept.filter(|kept| kept.band == band) {
            let chunks: Vec<&[u8]> = kept.chunks.iter().map(Vec::as_slice).collect();
            self.scatter(chunked, &chunks, runs, slots, into, then);
            return Ok(None);
        }
        if let ([runs], true) = (runs, chunked.is_plain())
            && let [(0, 0, n_bytes)] = runs[..]
            && n_bytes == self.index.row_bytes()
            && let Some(place) = &chunked.places[band as usize]
        {
            // Rows of the chunk are rows of the dataset, wherever padding columns are not in between.
            if chunked.row_elements() * self.index.element_bytes == n_bytes {
                return self
                    .read_contiguous(place.offset + (slots.start * n_bytes) as u64, into, then)
                    .map(|()| None)
                    .map_err(|e| Error::data(format!("chunk {band} (rows {begin} on): {e}")));
            }
        }
        if let ([runs], false) = (runs, chunked.is_plain() || chunked.turned)
            && into.len() == self.decoded_bytes(chunked)
            && matches!(runs[..], [(0, 0, n)] if n == self.index.row_bytes())
            && let Some(place) = &chunked.places[band as usize]
        {
            let mut decoder = self.decoders.take();
            let decoded = self
                .fetch(place, &mut decoder)
                .and_then(|()| decoder.decode_into(&chunked.filters, place.mask, into))
                .map_err(|e| Error::data(format!("chunk {band} (rows {begin} on): {e}")));
            self.decoders.put(decoder);
            return decoded.map(|()| {
                then(into);
                None
            });
        }
        let is_cut = slots.len() as u64 != n_rows && !chunked.is_plain();
        let band_bytes = self.decoded_bytes(chunked) as u64 * runs.len() as u64;
        let mut keep = (is_cut && band_bytes <= self.keep_bytes).then(|| Kept { band, chunks: Vec::new() });
        let mut decoders: Vec<Decoder> = (0..at_once.min(runs.len())).map(|_| self.decoders.take()).collect();
        let mut done = Ok(());
        let n_groups = runs.len().div_ceil(decoders.len());
        for (group, runs) in runs.chunks(decoders.len()).enumerate() {
            let first = band as usize * self.chunks_per_band(chunked) + group * decoders.len();
            // What a decoder holds after its turn: only the wanted rows where the chunk is plain.
            let decode = |(column, decoder): (usize, &mut Decoder)| -> Result<()> {
                let decoded = match chunked.is_plain() {
                    true => self.fetch_rows(chunked, first + column, slots.clone(), decoder),
                    false => self.decode(chunked, first + column, decoder),
                };
                decoded.map_err(|e| Error::data(format!("chunk {} (rows {begin} on): {e}", first + column)))
            };
            let decoded: Vec<Result<()>> = match &mut decoders[..] {
                [only] => vec![decode((0, only))],
                several => several[..runs.len()].par_iter_mut().enumerate().map(decode).collect(),
            };
            done = decoded.into_iter().collect();
            if done.is_err() {
                break;
            }
            let chunks: Vec<&[u8]> = decoders[..runs.len()].iter().map(Decoder::decoded).collect();
            let slots = if chunked.is_plain() { 0..slots.len() } else { slots.clone() };
            let is_last = group + 1 == n_groups;
            self.scatter(chunked, &chunks, runs, slots, into, if is_last { then } else { &|_| () });
            if let Some(keep) = &mut keep {
                keep.chunks.extend(chunks.into_iter().map(<[u8]>::to_vec));
            }
        }
        decoders.into_iter().for_each(|decoder| self.decoders.put(decoder));
        done.map(|()| keep)
    }

    fn chunks_per_band(&self, chunked: &Chunked) -> usize {
        chunked.per_band(&self.index.shape)
    }

    fn decoded_bytes(&self, chunked: &Chunked) -> usize {
        chunked.row_elements() * chunked.chunk[0] as usize * self.index.element_bytes
    }

    /// Rows `slots` of decoded chunks, which lie side by side, to their places in whole rows: so many rows at a time as stay in a
    /// thread's cache until all chunks have given theirs.
    fn scatter(
        &self,
        chunked: &Chunked,
        chunks: &[&[u8]],
        runs: &[Vec<Run>],
        slots: Range<usize>,
        into: &mut [u8],
        then: Then<'_>,
    ) {
        let chunk_row_bytes = chunked.row_elements() * self.index.element_bytes;
        let row_bytes = self.index.row_bytes();
        let task_rows = (PIECE_BYTES / row_bytes).max(1);
        into.par_chunks_mut(task_rows * row_bytes).enumerate().for_each(|(task, into)| {
            let first = (slots.start + task * task_rows) * chunk_row_bytes;
            let n_bytes = into.len() / row_bytes * chunk_row_bytes;
            for (chunk, runs) in chunks.iter().zip(runs) {
                let from = &chunk[first..first + n_bytes];
                match runs[..] {
                    [(0, 0, n)] if n == row_bytes && n == chunk_row_bytes => into.copy_from_slice(from),
                    [(0, target, 4)] if chunk_row_bytes == 4 => copy_column::<4>(from, target, row_bytes, into),
                    [(0, target, 8)] if chunk_row_bytes == 8 => copy_column::<8>(from, target, row_bytes, into),
                    _ => {
                        for (to, from) in into.chunks_exact_mut(row_bytes).zip(from.chunks_exact(chunk_row_bytes)) {
                            for (source, target, n_bytes) in runs {
                                to[*target..target + n_bytes].copy_from_slice(&from[*source..source + n_bytes]);
                            }
                        }
                    }
                }
            }
            then(into);
        });
    }

    /// The runs of every chunk of a band.
    fn runs(&self, chunked: &Chunked) -> Vec<Vec<Run>> {
        (0..self.chunks_per_band(chunked)).map(|column| self.runs_of(chunked, column)).collect()
    }

    fn runs_of(&self, chunked: &Chunked, column: usize) -> Vec<Run> {
        let (shape, chunk) = (&self.index.shape[1..], &chunked.chunk[1..]);
        let element_bytes = self.index.element_bytes;
        let mut runs: Vec<(usize, usize)> = vec![(0, 0)];
        let mut rest = column as u64;
        let grid: Vec<u64> = shape.iter().zip(chunk).map(|(n, c)| n.div_ceil(*c)).collect();
        // Axis by axis from the last: where this chunk begins there.
        let mut begins = vec![0u64; shape.len()];
        for axis in (0..shape.len()).rev() {
            begins[axis] = rest % grid[axis] * chunk[axis];
            rest /= grid[axis];
        }
        let Some(last) = shape.len().checked_sub(1) else { return vec![(0, 0, element_bytes)] };
        for axis in 0..last {
            let (begin, in_chunk, in_row) = (begins[axis] as usize, chunk[axis] as usize, shape[axis] as usize);
            let n = in_chunk.min(in_row - begin);
            let along = |(from, to)| (0..n).map(move |i| (from * in_chunk + i, to * in_row + begin + i));
            runs = runs.into_iter().flat_map(along).collect();
        }
        let n = chunk[last].min(shape[last] - begins[last]) as usize * element_bytes;
        let place = |(from, to)| {
            let from = from * chunk[last] as usize * element_bytes;
            let to = (to * shape[last] as usize + begins[last] as usize) * element_bytes;
            (from, to, n)
        };
        // Whole axes side by side are one run.
        let mut joined: Vec<Run> = Vec::new();
        for run in runs.into_iter().map(place) {
            match joined.last_mut() {
                Some((from, to, n)) if *from + *n == run.0 && *to + *n == run.1 => *n += run.2,
                _ => joined.push(run),
            }
        }
        joined
    }

    /// Rows `slots` of a chunk without filters, and no other bytes of it.
    fn fetch_rows(&self, chunked: &Chunked, number: usize, slots: Range<usize>, decoder: &mut Decoder) -> Result<()> {
        let chunk_row_bytes = chunked.row_elements() * self.index.element_bytes;
        let n_bytes = slots.len() * chunk_row_bytes;
        let Some(place) = &chunked.places[number] else { return self.fill(chunked, n_bytes, decoder) };
        let buffer = decoder.stored();
        buffer.resize(n_bytes, 0);
        self.pread(place.offset + (slots.start * chunk_row_bytes) as u64, buffer)?;
        decoder.decode(&[], 0, n_bytes).map(|_| ())
    }

    /// A whole chunk as HDF5 had it before the filters, its rows first.
    fn decode(&self, chunked: &Chunked, number: usize, decoder: &mut Decoder) -> Result<()> {
        let decoded_bytes = self.decoded_bytes(chunked);
        let Some(place) = &chunked.places[number] else { return self.fill(chunked, decoded_bytes, decoder) };
        self.fetch(place, decoder)?;
        decoder.decode(&chunked.filters, place.mask, decoded_bytes)?;
        if chunked.turned {
            let turned = turn(decoder.decoded(), chunked.chunk[0] as usize, self.index.element_bytes);
            *decoder.stored() = turned;
            decoder.decode(&[], 0, decoded_bytes)?;
        }
        Ok(())
    }

    /// The stored bytes of a chunk.
    fn fetch(&self, place: &ChunkPlace, decoder: &mut Decoder) -> Result<()> {
        if place.offset.checked_add(place.stored_bytes).is_none_or(|end| end > self.index.file_bytes) {
            return Err(Error::data("lies beyond the end of the file: it is truncated"));
        }
        let stored = decoder.stored();
        stored.resize(place.stored_bytes as usize, 0);
        self.pread(place.offset, stored)
    }

    /// A chunk that was never written holds the fill value.
    fn fill(&self, chunked: &Chunked, n_bytes: usize, decoder: &mut Decoder) -> Result<()> {
        let buffer = decoder.stored();
        buffer.clear();
        buffer.resize(n_bytes, 0);
        buffer.chunks_exact_mut(self.index.element_bytes).for_each(|element| element.copy_from_slice(&chunked.fill));
        decoder.decode(&[], 0, n_bytes).map(|_| ())
    }
}

/// A chunk of one column into rows.
fn copy_column<const N: usize>(from: &[u8], target: usize, row_bytes: usize, into: &mut [u8]) {
    let (from, _) = from.as_chunks::<N>();
    for (to, from) in into.chunks_exact_mut(row_bytes).zip(from) {
        to[target..target + N].copy_from_slice(from);
    }
}

/// (columns, rows) to (rows, columns).
fn turn(by_column: &[u8], n_rows: usize, element_bytes: usize) -> Vec<u8> {
    let mut by_row = vec![0; by_column.len()];
    let n_columns = by_column.len() / (n_rows * element_bytes).max(1);
    for (column, values) in by_column.chunks_exact(n_rows * element_bytes).enumerate() {
        for (row, value) in values.chunks_exact(element_bytes).enumerate() {
            by_row[(row * n_columns + column) * element_bytes..][..element_bytes].copy_from_slice(value);
        }
    }
    by_row
}
