//! Filters that come with every HDF5 library and keep the values: shuffle (2) and the checksum (3).
//!
//! Source: *HDF5 File Format Specification Version 3.0*, IV.A.2.l; the shuffle is the transpose of (elements, bytes).

use crate::error::{Error, Result};
use multiversion::multiversion;

pub(super) const CHECKSUM_BYTES: usize = 4;
/// Elements that are put together at a time: their bytes stay in the first-level cache.
const TILE: usize = 256;

/// Undoes HDF5's shuffle: byte b of element e lies at b·n + e; what does not fill an element is at the end as it was.
///
/// # Panics
/// If the lengths differ or an element has no bytes.
pub(super) fn unshuffle(shuffled: &[u8], element_bytes: usize, into: &mut [u8]) {
    assert_eq!(shuffled.len(), into.len(), "bytes of a shuffled chunk");
    let n = shuffled.len() / element_bytes;
    let (planes, rest) = shuffled.split_at(n * element_bytes);
    let (whole, rest_into) = into.split_at_mut(n * element_bytes);
    rest_into.copy_from_slice(rest);
    if n == 0 {
        return;
    }
    match element_bytes {
        1 => whole.copy_from_slice(planes),
        2 => unshuffle_2(planes, n, whole),
        4 => unshuffle_4(planes, n, whole),
        8 => unshuffle_8(planes, n, whole),
        _ => unshuffle_any(planes, n, element_bytes, whole),
    }
}

/// Items of W bytes of two runs, in turn. Written so that the compiler makes vector unpacks of it.
#[inline(always)]
fn interleave<const W: usize>(a: &[u8], b: &[u8], into: &mut [u8]) {
    for ((pair, a), b) in into.chunks_exact_mut(2 * W).zip(a.chunks_exact(W)).zip(b.chunks_exact(W)) {
        pair[..W].copy_from_slice(a);
        pair[W..].copy_from_slice(b);
    }
}

fn unshuffle_2(planes: &[u8], n: usize, into: &mut [u8]) {
    interleave::<1>(&planes[..n], &planes[n..], into);
}

#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
fn unshuffle_4(planes: &[u8], n: usize, into: &mut [u8]) {
    let mut pairs = [[0; 2 * TILE]; 2];
    for (tile, into) in into.chunks_mut(4 * TILE).enumerate() {
        let (at, m) = (tile * TILE, into.len() / 4);
        let plane = |b: usize| &planes[b * n + at..][..m];
        interleave::<1>(plane(0), plane(1), &mut pairs[0][..2 * m]);
        interleave::<1>(plane(2), plane(3), &mut pairs[1][..2 * m]);
        interleave::<2>(&pairs[0][..2 * m], &pairs[1][..2 * m], into);
    }
}

#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
fn unshuffle_8(planes: &[u8], n: usize, into: &mut [u8]) {
    let (mut pairs, mut fours) = ([[0; 2 * TILE]; 4], [[0; 4 * TILE]; 2]);
    for (tile, into) in into.chunks_mut(8 * TILE).enumerate() {
        let (at, m) = (tile * TILE, into.len() / 8);
        let plane = |b: usize| &planes[b * n + at..][..m];
        for (k, pair) in pairs.iter_mut().enumerate() {
            interleave::<1>(plane(2 * k), plane(2 * k + 1), &mut pair[..2 * m]);
        }
        for (k, four) in fours.iter_mut().enumerate() {
            interleave::<2>(&pairs[2 * k][..2 * m], &pairs[2 * k + 1][..2 * m], &mut four[..4 * m]);
        }
        interleave::<4>(&fours[0][..4 * m], &fours[1][..4 * m], into);
    }
}

fn unshuffle_any(planes: &[u8], n: usize, element_bytes: usize, into: &mut [u8]) {
    for (tile, into) in into.chunks_mut(element_bytes * TILE).enumerate() {
        let m = into.len() / element_bytes;
        for b in 0..element_bytes {
            let plane = &planes[b * n + tile * TILE..][..m];
            into[b..].iter_mut().step_by(element_bytes).zip(plane).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Compares the checksum at the end with the bytes before it; returns how many those are.
pub(super) fn check_fletcher32(bytes: &[u8]) -> Result<usize> {
    let Some((data, stored)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(Error::data("is too short for its checksum"));
    };
    let (stored, computed) = (u32::from_le_bytes(*stored), fletcher32(data));
    // Old libraries stored the two halves with their bytes exchanged, and the library still accepts that.
    let exchanged = (computed & 0x00ff_00ff) << 8 | (computed >> 8) & 0x00ff_00ff;
    if stored != computed && stored != exchanged {
        return Err(Error::data("checksum failed: its bytes are damaged"));
    }
    Ok(data.len())
}

/// Fletcher's checksum over big-endian 16-bit words, as HDF5 takes it. Source: Fletcher, *An arithmetic checksum for serial
/// transmissions*, IEEE Trans. Commun. 30 (1982); sums modulo 65,535 with end-around carry.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
fn fletcher32(data: &[u8]) -> u32 {
    const WORDS: usize = 128;
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
    let (mut a, mut b) = (0u32, 0u32);
    let mut runs = data.chunks_exact(2 * WORDS);
    for run in &mut runs {
        // b grows by every sum on the way: the last word is in one of them, the one before in two, …
        // At most 128·129/2 words of 65,535 and 128 a below 2¹⁷: below 2³².
        let (mut sum, mut sum_of_sums) = (0, 0);
        for (i, pair) in run.chunks_exact(2).enumerate() {
            sum += word(pair);
            sum_of_sums += word(pair) * (WORDS - i) as u32;
        }
        b += WORDS as u32 * a + sum_of_sums;
        a += sum;
        (a, b) = (fold(a), fold(b));
    }
    for pair in runs.remainder().chunks(2) {
        a += word(pair);
        b += a;
    }
    (a, b) = (fold(fold(a)), fold(fold(b)));
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unshuffle_is_the_transpose_at_every_width_and_length() {
        for element_bytes in [1, 2, 3, 4, 7, 8, 12, 16, 300] {
            for n in [0, 1, 2, 3, 15, 255, 256, 257, 1000] {
                for rest in [0, 1, element_bytes - 1] {
                    let bytes: Vec<u8> =
                        (0..n * element_bytes + rest % element_bytes).map(|i| ((i * 131) >> 3) as u8).collect();
                    let mut shuffled = bytes.clone();
                    for e in 0..n {
                        (0..element_bytes).for_each(|b| shuffled[b * n + e] = bytes[e * element_bytes + b]);
                    }
                    let mut back = vec![0; bytes.len()];
                    unshuffle(&shuffled, element_bytes, &mut back);
                    assert!(back == bytes, "{n} elements of {element_bytes} bytes and {rest}");
                }
            }
        }
    }

    #[test]
    fn the_checksum_is_fletchers_word_by_word() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 0xf0).collect();
        for n in [0, 1, 2, 3, 255, 256, 257, 258, 511, 512, 4999, 5000] {
            for bytes in [&bytes[..n], &vec![0; n], &vec![0xff; n]] {
                let (mut a, mut b) = (0u64, 0u64);
                for pair in bytes.chunks(2) {
                    a += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
                    b += a;
                }
                // A sum that is a multiple of 65,535 is stored as 65,535, unless all words are zero.
                let modulo = |sum: u64| if sum == 0 { 0 } else { (sum - 1) % 65_535 + 1 };
                let expected = (modulo(b) << 16 | modulo(a)) as u32;
                assert_eq!(fletcher32(bytes), expected, "{n} bytes");
                let mut stored = [bytes, &expected.to_le_bytes()].concat();
                assert_eq!(check_fletcher32(&stored).unwrap(), n);
                stored[n] ^= 1;
                assert!(check_fletcher32(&stored).is_err());
            }
        }
        assert!(check_fletcher32(&[1, 2, 3]).is_err());
    }
}
