//! The files to convert, as streams of bytes: decompressed where they are gzip, hashed as they are stored, counted for whoever waits.

use super::Progress;
use crate::data::crew::Crew;
use crate::data::hdf5::write::changed;
use crate::error::{Error, InContext, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BUFFER_BYTES: usize = 1 << 18;

/// The inputs of one conversion. Every pass reads all of them from beginning to end, in order.
pub(super) struct Inputs<'a> {
    pub(super) paths: &'a [PathBuf],
    /// Who shares the work.
    pub(super) crew: &'a dyn Crew,
    of_bytes: u64,
    done_bytes: Arc<AtomicU64>,
    doing: &'static str,
    digests: Vec<Option<blake3::Hash>>,
    watch: &'a mut dyn FnMut(&Progress),
}

impl<'a> Inputs<'a> {
    /// Errors: what is not there, or is no regular file (it is read twice).
    pub(super) fn new(
        paths: &'a [PathBuf],
        crew: &'a dyn Crew,
        watch: &'a mut dyn FnMut(&Progress),
    ) -> Result<Inputs<'a>> {
        let mut of_bytes = 0;
        for path in paths {
            let found = std::fs::metadata(path).map_err(cannot_open).in_file(path)?;
            if !found.is_file() {
                return Err(Error::data("is not a regular file; it is read twice, so a pipe will not do"))
                    .in_file(path);
            }
            of_bytes += found.len();
        }
        let done_bytes = Arc::new(AtomicU64::new(0));
        Ok(Inputs { paths, crew, of_bytes, done_bytes, doing: "reading", digests: vec![None; paths.len()], watch })
    }

    /// A new pass begins. `doing`: one word for people.
    pub(super) fn begin(&mut self, doing: &'static str) {
        self.doing = doing;
        self.done_bytes.store(0, Ordering::Relaxed);
        self.report();
    }

    /// Tells whoever waits how far the pass is.
    pub(super) fn report(&mut self) {
        let done_bytes = self.done_bytes.load(Ordering::Relaxed).min(self.of_bytes);
        (self.watch)(&Progress { doing: self.doing, done_bytes, of_bytes: self.of_bytes });
    }

    /// Counts bytes that are not read through a [`Stream`].
    pub(super) fn count(&mut self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.report();
    }

    /// A file from its beginning.
    pub(super) fn open(&self, file: usize) -> Result<Stream> {
        Stream::open(&self.paths[file], self.done_bytes.clone()).in_file(&self.paths[file])
    }

    /// The hash of a file that was read to its end. Errors: another one than in an earlier pass.
    pub(super) fn note(&mut self, file: usize, digest: blake3::Hash) -> Result<()> {
        match self.digests[file].replace(digest) {
            Some(before) if before != digest => Err(changed()).in_file(&self.paths[file]),
            _ => Ok(()),
        }
    }

    /// BLAKE3 of the stored bytes of each file, in hex. Reads the files that were not read to their end yet.
    pub(super) fn digests(&mut self) -> Result<Vec<String>> {
        for file in 0..self.paths.len() {
            if self.digests[file].is_none() {
                self.hash(file)?;
            }
        }
        Ok(self.digests.iter().flatten().map(|digest| digest.to_hex().to_string()).collect())
    }

    /// Reads a file only to hash it: before or after it is read at random. Errors: another hash than before.
    pub(super) fn hash(&mut self, file: usize) -> Result<()> {
        let path = &self.paths[file];
        let mut hasher = blake3::Hasher::new();
        let opened = File::open(path).map_err(cannot_open).in_file(path)?;
        hasher.update_reader(opened).map_err(cannot_read).in_file(path)?;
        self.note(file, hasher.finalize())
    }
}

/// The bytes of a file, decompressed if they are gzip.
pub(super) enum Stream {
    Plain(Box<BufReader<Raw>>),
    Gzip(Box<BufReader<MultiGzDecoder<BufReader<Raw>>>>),
}

/// The stored bytes of a file.
pub(super) struct Raw {
    file: File,
    hasher: blake3::Hasher,
    done_bytes: Arc<AtomicU64>,
}

impl Stream {
    fn open(path: &PathBuf, done_bytes: Arc<AtomicU64>) -> Result<Stream> {
        let file = File::open(path).map_err(cannot_open)?;
        let raw = Raw { file, hasher: blake3::Hasher::new(), done_bytes };
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, raw);
        let start = raw.fill_buf().map_err(cannot_read)?;
        Ok(match start.starts_with(&[0x1f, 0x8b]) {
            true => Stream::Gzip(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))),
            false => Stream::Plain(Box::new(raw)),
        })
    }

    pub(super) fn is_gzip(&self) -> bool {
        matches!(self, Stream::Gzip(_))
    }

    /// Reads what is left, and returns the hash of the stored bytes.
    pub(super) fn finish(self) -> Result<blake3::Hash> {
        let mut raw = match self {
            Stream::Plain(raw) => *raw,
            Stream::Gzip(decoder) => decoder.into_inner().into_inner(),
        };
        io::copy(&mut raw, &mut io::sink()).map_err(cannot_read)?;
        Ok(raw.into_inner().hasher.finalize())
    }

    fn inner(&mut self) -> &mut dyn BufRead {
        match self {
            Stream::Plain(raw) => raw,
            Stream::Gzip(decoder) => decoder,
        }
    }
}

impl Read for Raw {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(into)?;
        self.hasher.update(&into[..n]);
        self.done_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner().read(into)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner().fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.inner().consume(n);
    }
}

/// Up to `n` bytes; as many as there are. The room grows with what is read, not with what was promised.
pub(super) fn read_up_to(from: &mut dyn Read, n: u64, into: &mut Vec<u8>) -> Result<u64> {
    from.take(n).read_to_end(into).map(|n| n as u64).map_err(cannot_read)
}

pub(super) fn cannot_open(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::data("no such file"),
        _ => Error::data(format!("cannot open: {e}")),
    }
}

pub(super) fn cannot_read(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::data("ends in the middle of its data: it is truncated"),
        _ => Error::data(format!("cannot read: {e}")),
    }
}
