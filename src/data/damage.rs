//! Damages to bytes, for tests of whatever reads them.

use crate::rng::Draws;

/// Changes `bytes` in one of the ways that `draw` names, never to what they were.
pub(crate) fn damage(bytes: &mut Vec<u8>, draws: Draws, draw: u64) {
    let n = bytes.len() as u64;
    let below = |most: u64, counter: u64| draws.below(most.max(1), draw, counter) as usize;
    if bytes.is_empty() {
        return bytes.push(below(256, 0) as u8);
    }
    // More often near the begin, where headers are.
    let most = if below(2, 1) == 0 { n } else { n.min(40) };
    let at = below(most, 2);
    match below(6, 3) {
        0 | 1 => bytes[at] ^= 1 << below(8, 4),
        2 => bytes[at] = bytes[at].wrapping_add(1 + below(255, 4) as u8),
        3 => bytes.truncate(at),
        4 => {
            let inserted = draws.bits(draw, 5).to_le_bytes();
            bytes.splice(at..at, inserted[..1 + below(8, 6)].iter().copied());
        }
        // A length of another size.
        _ => {
            let number = [0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x0001_0000][below(6, 4)].to_le_bytes();
            let end = (at + 4).min(bytes.len());
            let before = bytes[at..end].to_vec();
            bytes[at..end].copy_from_slice(&number[..end - at]);
            if bytes[at..end] == before {
                bytes[at] ^= 1;
            }
        }
    }
}
