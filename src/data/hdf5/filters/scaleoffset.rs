//! HDF5's own filters that store numbers in fewer bits: scale-offset (6).
//!
//! Source: *HDF5 File Format Specification Version 3.0*, IV.A.2.l "Scaleoffset Filter Values" and "Scaleoffset Filter"; checked
//! against the library.

use super::{Length, damaged, little_endian};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Bits of a number, how many bytes the smallest value takes, and that value.
const HEADER_BYTES: usize = 21;
/// Powers of ten up to here are exact in float64.
const MOST_DIGITS: u32 = 22;

/// What the filter was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScaleOffset {
    n: usize,
    element_bytes: usize,
    is_big_endian: bool,
    /// Of floats: decimal digits after the point that were kept.
    digits: Option<u32>,
    /// What the largest number of the bits at hand stands for: the low bytes.
    fill: Option<u64>,
    /// Of integers that were told to take all their bits.
    is_plain: bool,
}

impl ScaleOffset {
    /// From the client values: kind, digits or bits, elements, class, bytes, sign, order, whether there is a fill value, and it.
    pub(super) fn of(values: &[u32]) -> std::result::Result<ScaleOffset, &'static str> {
        let &[kind, factor, n, class, bytes, _sign, order, has_fill, ref fill @ ..] = values else {
            return Err("its scale-offset filter has too few values");
        };
        let is_plain = kind == 2 && factor == 8 * bytes;
        let digits = match (kind, class, bytes) {
            (2, 0, 1 | 2 | 4 | 8) => None,
            // Else the library's own power of ten may be another one.
            (0, 1, 4 | 8) if factor <= MOST_DIGITS => Some(factor),
            _ => return Err("its scale-offset filter is of a kind that only the library decodes"),
        };
        if order > 1 || has_fill > 1 {
            return Err("its scale-offset filter is of a kind that only the library decodes");
        }
        let fill_of = |fill: &[u32]| match *fill {
            [low] => u64::from(low),
            [low, high, ..] => u64::from(high) << 32 | u64::from(low),
            [] => 0,
        };
        if has_fill == 1 && fill.len() * 4 < bytes as usize {
            return Err("its scale-offset filter has no fill value");
        }
        Ok(ScaleOffset {
            n: n as usize,
            element_bytes: bytes as usize,
            is_big_endian: order == 1,
            digits,
            fill: (has_fill == 1).then(|| fill_of(fill)),
            is_plain,
        })
    }

    pub(super) fn keeps_length(&self) -> bool {
        self.is_plain
    }

    /// Whether `stored` is what was given to the filter.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub(super) fn undo(&self, stored: &[u8], given: Length, decoded: &mut Vec<u8>) -> Result<()> {
        let mut undo = || -> Option<()> {
            let (header, packed) = stored.split_at_checked(HEADER_BYTES)?;
            let bits = little_endian(&header[..4]);
            let least_bytes = usize::from(header[4]).min(8);
            let least = little_endian(&header[5..5 + least_bytes]);
            let bytes = self.element_bytes;
            let n_bytes = given.room((self.n as u64).checked_mul(bytes as u64)?)?;
            decoded.resize(n_bytes, 0);
            if bits > 8 * bytes as u64 {
                return None;
            }
            if bits == 8 * bytes as u64 {
                decoded.copy_from_slice(packed.get(..n_bytes)?);
                self.order(decoded);
                return Some(());
            }
            let bits = bits as u32;
            if packed.len() < self.n.checked_mul(bits as usize)?.div_ceil(8) {
                return None;
            }
            let all = (1u64 << bits) - 1;
            let mut reader = Bits { rest: packed, held: 0, n_held: 0 };
            for element in decoded.chunks_exact_mut(bytes) {
                let number = reader.next(bits);
                let value = match self.fill {
                    Some(fill) if number == all => fill,
                    _ => self.value(number, least),
                };
                element.copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
            self.order(decoded);
            Some(())
        };
        undo().ok_or_else(|| damaged("scale-offset"))
    }

    /// The low bytes of the element that was stored as `number`. Rounded as the library does: in the element's own precision.
    fn value(&self, number: u64, least: u64) -> u64 {
        let power = |digits: u32| 10u64.pow(digits.min(11)) as f64 * 10u64.pow(digits - digits.min(11)) as f64;
        match (self.digits, self.element_bytes) {
            (None, _) => number.wrapping_add(least),
            (Some(digits), 4) => {
                let value = number as u32 as i32 as f32 / power(digits) as f32 + f32::from_bits(least as u32);
                u64::from(value.to_bits())
            }
            (Some(digits), _) => (number as i64 as f64 / power(digits) + f64::from_bits(least)).to_bits(),
        }
    }

    /// Little-endian elements in the order of the dataset.
    fn order(&self, decoded: &mut [u8]) {
        if self.is_big_endian {
            decoded.chunks_exact_mut(self.element_bytes).for_each(<[u8]>::reverse);
        }
    }
}

/// Takes numbers of a few bits, the highest first, off bytes.
struct Bits<'b> {
    rest: &'b [u8],
    held: u128,
    n_held: u32,
}

impl Bits<'_> {
    /// The next `n` bits, at most 64; zeros where the bytes are over.
    fn next(&mut self, n: u32) -> u64 {
        while self.n_held < n {
            let (byte, rest) = self.rest.split_first().map_or((0, self.rest), |(&byte, rest)| (byte, rest));
            (self.rest, self.held, self.n_held) = (rest, self.held << 8 | u128::from(byte), self.n_held + 8);
        }
        self.n_held -= n;
        (self.held >> self.n_held) as u64 & (u64::MAX.checked_shr(64 - n).unwrap_or(0))
    }
}
