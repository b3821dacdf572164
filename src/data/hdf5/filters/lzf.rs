//! Byte-wise Lempel-Ziv codecs that no kept crate has: LZF (32000, of h5py) and BloscLZ (within Blosc).
//!
//! Both are runs of literal bytes and matches of bytes that were decoded before. Sources: the format of LibLZF 3.6
//! (Lehmann) and that of FastLZ level 2 (Hidayat), of which BloscLZ is a kin; checked against files of h5py and hdf5plugin.

use super::damaged;
use crate::error::Result;

/// Farthest match of BloscLZ whose distance fits its first two bytes.
const NEAR: usize = 8191;

/// Bytes that are decoded up to a length.
struct Output<'o> {
    bytes: &'o mut Vec<u8>,
    most: usize,
}

impl Output<'_> {
    fn literal(&mut self, run: &[u8]) -> Option<()> {
        (run.len() <= self.most - self.bytes.len()).then(|| self.bytes.extend_from_slice(run))
    }

    /// `n` bytes again that lie `distance` back; they may reach into themselves.
    fn again(&mut self, distance: usize, n: usize) -> Option<()> {
        let from = self.bytes.len().checked_sub(distance).filter(|_| distance > 0)?;
        if n > self.most - self.bytes.len() {
            return None;
        }
        let mut left = n;
        // What is copied doubles what can be copied at a time.
        while left > 0 {
            let here = left.min(self.bytes.len() - from);
            self.bytes.extend_from_within(from..from + here);
            left -= here;
        }
        Some(())
    }
}

/// The first byte, and the others.
fn byte(rest: &mut &[u8]) -> Option<usize> {
    let (&first, others) = rest.split_first()?;
    *rest = others;
    Some(usize::from(first))
}

fn take<'r>(rest: &mut &'r [u8], n: usize) -> Option<&'r [u8]> {
    let (taken, others) = rest.split_at_checked(n)?;
    *rest = others;
    Some(taken)
}

/// Undoes LZF into `decoded`, at most `most` bytes.
///
/// A byte below 32 is followed by one more literals than it says. Any other has the length of a match less 2 in its upper three
/// bits (7: the next byte is added) and, with the byte after that, its distance less 1.
pub(super) fn lzf(stored: &[u8], most: usize, decoded: &mut Vec<u8>) -> Result<()> {
    decoded.clear();
    let mut output = Output { bytes: decoded, most };
    let mut rest = stored;
    let mut step = || -> Option<()> {
        while !rest.is_empty() {
            let control = byte(&mut rest)?;
            if control < 32 {
                output.literal(take(&mut rest, control + 1)?)?;
                continue;
            }
            let n = match control >> 5 {
                7 => 7 + byte(&mut rest)?,
                n => n,
            };
            let distance = (control & 31) << 8 | byte(&mut rest)?;
            output.again(distance + 1, n + 2)?;
        }
        Some(())
    };
    step().ok_or_else(|| damaged("lzf"))
}

/// Undoes BloscLZ into `decoded`, at most `most` bytes.
///
/// As LZF, but: the first byte is of literals whatever it says; the length of a match less 2 goes on over all bytes of 255; and
/// the farthest distance of 13 bits means that 16 bits more follow.
pub(super) fn blosclz(stored: &[u8], most: usize, decoded: &mut Vec<u8>) -> Result<()> {
    decoded.clear();
    let mut output = Output { bytes: decoded, most };
    let mut rest = stored;
    let mut is_first = true;
    let mut step = || -> Option<()> {
        while !rest.is_empty() {
            let mut control = byte(&mut rest)?;
            if std::mem::take(&mut is_first) {
                control &= 31;
            }
            if control < 32 {
                output.literal(take(&mut rest, control + 1)?)?;
                continue;
            }
            let mut n = control >> 5;
            if n == 7 {
                loop {
                    let more = byte(&mut rest)?;
                    n = n.checked_add(more)?;
                    if more != 255 {
                        break;
                    }
                }
            }
            let mut distance = (control & 31) << 8 | byte(&mut rest)?;
            if distance == NEAR {
                distance += byte(&mut rest)? << 8 | byte(&mut rest)?;
            }
            output.again(distance + 1, n + 2)?;
        }
        Some(())
    };
    step().ok_or_else(|| damaged("blosclz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(stored: &[u8], most: usize) -> [Option<Vec<u8>>; 2] {
        [lzf, blosclz].map(|codec| {
            let mut decoded = Vec::new();
            codec(stored, most, &mut decoded).ok().map(|()| decoded)
        })
    }

    #[test]
    fn literals_and_matches_are_what_the_formats_say() {
        let same = |text: &[u8]| [Some(text.to_vec()), Some(text.to_vec())];
        assert_eq!(both(b"\x02abc", 3), same(b"abc"));
        // Two back, five bytes: they reach into themselves.
        assert_eq!(both(b"\x02abc\x60\x01", 8), same(b"abcbcbcb"));
        // A long match of 9 + 4 bytes of the same.
        assert_eq!(both(b"\x00x\xe0\x04\x00", 14), same(b"xxxxxxxxxxxxxx"));
        // The bound; a match before the begin; literals and matches that end too early.
        for bad in [&b"\x02abc\x60\x03"[..], b"\x03abc", b"\x02abc\x60", b"\x02abc\xe0\x04"] {
            assert_eq!(both(bad, 100), [None, None], "{bad:?}");
        }
        assert_eq!(both(b"\x02abc\x60\x01", 7), [None, None]);
    }

    #[test]
    fn blosclz_has_longer_lengths_and_distances() {
        let mut decoded = Vec::new();
        blosclz(b"\x20x\xe0\xff\xff\x01\x00", 600, &mut decoded).unwrap();
        assert_eq!(decoded, vec![b'x'; 1 + 7 + 255 + 255 + 1 + 2]);
        // 32 literals at a time, then three from the very begin, 9,000 back.
        let bytes: Vec<u8> = (0..9000u32).map(|i| ((i * i) >> 4) as u8).collect();
        let mut stored: Vec<u8> = bytes.chunks(32).flat_map(|run| [&[run.len() as u8 - 1][..], run].concat()).collect();
        stored.extend([0x3f, 0xff]);
        stored.extend((9000u16 - 8192).to_be_bytes());
        blosclz(&stored, 9003, &mut decoded).unwrap();
        assert_eq!(decoded, [&bytes[..], &bytes[..3]].concat());
    }
}
