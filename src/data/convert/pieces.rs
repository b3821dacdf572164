//! Text cut where records end, so that all threads of all ranks can parse it: a thread reads, hashes and decompresses ahead, the
//! pieces of about a megabyte are parsed side by side, and what they give is taken in the order of the files.

use super::input::{Inputs, Stream, read_up_to};
use crate::data::crew::{Round, Shared, Work, as_bytes};
use crate::error::{Error, InContext, Result};
use memchr::{memchr, memchr2, memrchr};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Of a piece, about. Tests have small tables, and want several rounds.
const PIECE_BYTES: u64 = if cfg!(test) { 1 << 16 } else { 1 << 20 };
/// Pieces of a round, at most. As many more wait, and as many are taken meanwhile.
const MOST_PIECES: usize = 64;
/// … and at least, so that they can be dealt as ranks are able.
const LEAST_PIECES: usize = 16;
/// A longer record is taken for a quote that nothing closes.
const LONGEST_RECORD: usize = 64 << 20;

/// Whole records of one file.
#[derive(Serialize, Deserialize)]
pub(in crate::data) struct Piece<'a> {
    pub(super) file: usize,
    /// Begins the file.
    pub(super) is_first: bool,
    /// The line of the file, counted from 1, that the piece begins with.
    pub(super) first_line: u64,
    #[serde(borrow, serialize_with = "as_bytes")]
    pub(super) bytes: Cow<'a, [u8]>,
}

impl Piece<'_> {
    /// The line of the first record at or after byte `at` of the piece.
    pub(super) fn line(&self, at: usize) -> u64 {
        let (before, after) = self.bytes.split_at(at.min(self.bytes.len()));
        let blank = after.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let count = |bytes: &mut dyn Iterator<Item = &u8>| bytes.filter(|&&byte| byte == b'\n').count() as u64;
        self.first_line + count(&mut before.iter()) + count(&mut { blank })
    }
}

/// Finds where records end.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    /// None: quotes mean nothing.
    separator: Option<u8>,
    newline: u8,
    in_quotes: bool,
    /// The last byte that was looked at, and whether it closed a quoted field.
    last: u8,
    closed: bool,
}

impl Cutter {
    /// For lines.
    pub(super) fn lines() -> Cutter {
        Cutter { separator: None, newline: b'\n', in_quotes: false, last: b'\n', closed: false }
    }

    /// For records of fields with this separator, which may be quoted. `start`: of the file; carriage returns end its records
    /// if it has no line feed.
    pub(super) fn quoted(separator: u8, start: &[u8]) -> Cutter {
        let old = memchr(b'\n', start).is_none() && memchr(b'\r', start).is_some();
        Cutter { separator: Some(separator), newline: if old { b'\r' } else { b'\n' }, ..Cutter::lines() }
    }

    /// Looks at the next bytes of the file; where the last record that ends in them ends.
    fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let (&last, separator) = (bytes.last()?, self.separator);
        let Some(separator) = separator.filter(|_| self.in_quotes || memchr(b'"', bytes).is_some()) else {
            (self.last, self.closed) = (last, false);
            return memrchr(self.newline, bytes).map(|at| at + 1);
        };
        let (mut at, mut end) = (0, None);
        while at < bytes.len() {
            if self.in_quotes {
                let Some(quote) = memchr(b'"', &bytes[at..]) else { break };
                at += quote + 1;
                (self.in_quotes, self.closed, self.last) = (false, true, b'"');
                continue;
            }
            let Some(found) = memchr2(b'"', self.newline, &bytes[at..]) else { break };
            if found > 0 {
                (self.last, self.closed) = (bytes[at + found - 1], false);
            }
            at += found + 1;
            if bytes[at - 1] == self.newline {
                (self.last, self.closed) = (self.newline, false);
                end = Some(at);
            } else {
                // A quote opens a field at its beginning; right after one that closed, it is a quote that was meant.
                self.in_quotes = self.closed || self.last == separator || matches!(self.last, b'\n' | b'\r');
                (self.last, self.closed) = (b'"', false);
            }
        }
        if at < bytes.len() {
            (self.last, self.closed) = (last, false);
        }
        end
    }
}

/// Calls `take` with what comes of every piece, in order. Not collective: the crew parses.
///
/// * `work`: of the state as it is two rounds before. Its errors name no file yet.
/// * `cutter`: for a file, given how it starts.
pub(super) fn for_each<'c, S, W: for<'a> Work<Job<'a> = Piece<'a>>>(
    inputs: &mut Inputs<'_>,
    state: &mut S,
    work: impl Fn(&S) -> &Shared<'c, W>,
    cutter: impl Fn(usize, &[u8]) -> Cutter + Sync,
    mut take: impl FnMut(&mut S, &Piece<'_>, W::Done) -> Result<()>,
) -> Result<()> {
    let at_once = (4 * work(state).n_threads()).clamp(LEAST_PIECES, MOST_PIECES);
    for file in 0..inputs.paths.len() {
        let stream = inputs.open(file)?;
        let path = &inputs.paths[file];
        let digest = std::thread::scope(|scope| {
            let (to, from) = sync_channel(at_once);
            let cutter = &cutter;
            let reader = scope.spawn(move || read(file, stream, cutter, &to));
            let taken = take_all(inputs, state, &from, at_once, &work, &mut take);
            drop(from); // a reader that still waits for room ends
            let read = reader.join().unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
            taken.and(read)
        });
        let digest = digest.in_file(path)?;
        if let Some(digest) = digest {
            inputs.note(file, digest)?;
        }
    }
    inputs.report();
    Ok(())
}

fn take_all<'c, S, W: for<'a> Work<Job<'a> = Piece<'a>>>(
    inputs: &mut Inputs<'_>,
    state: &mut S,
    from: &Receiver<Piece<'static>>,
    at_once: usize,
    work: &impl Fn(&S) -> &Shared<'c, W>,
    take: &mut impl FnMut(&mut S, &Piece<'_>, W::Done) -> Result<()>,
) -> Result<()> {
    // The round before: its results are taken while other ranks have jobs again.
    let mut before: Option<(Vec<Piece<'_>>, Round<'c, W::Done>)> = None;
    loop {
        // Waits for all of a round: every thread is to have its share.
        let pieces: Vec<Piece<'_>> = from.iter().take(at_once).collect();
        let started = match pieces.is_empty() {
            true => None,
            false => {
                let round = work(state).start(&pieces)?;
                Some((pieces, round))
            }
        };
        let is_last = started.is_none();
        if let Some((pieces, round)) = std::mem::replace(&mut before, started) {
            for (piece, parsed) in pieces.iter().zip(round.finish()?) {
                take(state, piece, parsed?)?;
            }
            inputs.report();
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Sends the pieces of a file; its hash, or None where nobody listens any more.
fn read(
    file: usize,
    mut stream: Stream,
    cutter: &impl Fn(usize, &[u8]) -> Cutter,
    to: &SyncSender<Piece<'static>>,
) -> Result<Option<blake3::Hash>> {
    let mut bytes = Vec::new();
    let (mut is_first, mut line, mut scanned) = (true, 1, 0);
    read_up_to(&mut stream, PIECE_BYTES, &mut bytes)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let mut cutter = cutter(file, &bytes);
    loop {
        let end = cutter.last_end(&bytes[scanned..]).map(|end| scanned + end);
        scanned = bytes.len();
        if let Some(end) = end {
            let rest = bytes.split_off(end);
            let n_lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let whole = Cow::Owned(std::mem::replace(&mut bytes, rest));
            let piece = Piece { file, is_first, first_line: line, bytes: whole };
            if to.send(piece).is_err() {
                return Ok(None);
            }
            (is_first, scanned) = (false, bytes.len());
            line += n_lines;
        }
        if bytes.len() > LONGEST_RECORD {
            return Err(Error::data(format!(
                "line {line}: a record of more than 64 MiB begins here; is a quote not closed, or is this no table?"
            )));
        }
        if read_up_to(&mut stream, PIECE_BYTES, &mut bytes)? == 0 {
            break;
        }
    }
    if cutter.in_quotes {
        return Err(Error::data(format!("line {line}: a quote in this record is not closed before the file ends")));
    }
    if !bytes.is_empty() && to.send(Piece { file, is_first, first_line: line, bytes: Cow::Owned(bytes) }).is_err() {
        return Ok(None);
    }
    stream.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All the places where `cutter` ends a record, fed byte by byte and in pieces.
    fn ends(text: &[u8], step: usize) -> Vec<usize> {
        let mut cutter = Cutter::quoted(b',', text);
        let mut found = Vec::new();
        for (k, bytes) in text.chunks(step).enumerate() {
            found.extend(cutter.last_end(bytes).map(|end| k * step + end));
        }
        assert!(!cutter.in_quotes, "{}", String::from_utf8_lossy(text));
        found
    }

    #[test]
    fn records_end_where_the_csv_crate_ends_them() {
        let texts: [&[u8]; 8] = [
            b"a,b\nc,d\n",
            b"\"a\nb\",c\n\"d\"\"\n\",\"\"\n",
            b"5\" pipe,\"6\"\n7\",8\n",
            b"\"\",\"\n\"\n\"x\"y\"\n\",\"\n",
            b"a,\"b\"\"\"\r\n\"\"\"\n\"\n",
            b"a\r\"b\nc\"\r\n",
            b"\"a\"\n\"b\"\n",
            b",\"\"\"\n\"\"\",\"\n\"\n",
        ];
        for text in texts {
            let mut rows = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
            let mut record = ::csv::ByteRecord::new();
            let mut expected = Vec::new();
            while rows.read_byte_record(&mut record).unwrap_or(false) {
                expected.push(rows.position().byte() as usize);
            }
            let by_byte = ends(text, 1);
            for step in [2, 3, 5, text.len()] {
                assert!(ends(text, step).iter().all(|end| by_byte.contains(end)), "{}", String::from_utf8_lossy(text));
            }
            // The crate may stop at a carriage return, or let the line feed of a blank line wait.
            let parsed = |range: std::ops::Range<usize>| {
                let mut rows = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&text[range]);
                rows.byte_records().map(|record| record.unwrap()).collect::<Vec<_>>()
            };
            let mut pieces = Vec::new();
            let mut at = 0;
            for end in by_byte {
                pieces.extend(parsed(at..end));
                at = end;
            }
            assert_eq!(at, text.len(), "{}", String::from_utf8_lossy(text));
            assert_eq!(pieces, parsed(0..text.len()), "{}", String::from_utf8_lossy(text));
            assert_eq!(pieces.len(), expected.len());
        }
    }
}
