//! How many bits of an integer a lane's gradient element gets.

use super::scale::{ceil_log2, pow2};

/// Bits of one integer on the wire (`EXACT` 2b). A model setting: it shapes the arithmetic.
///
/// 16 and 8 bits, which travel as fields of u64 words and need error feedback, will be variants of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bytes an element; error 2^(6−56) of a group's largest element at 64 lanes. For batch norm and checks.
    W64,
    /// 4 bytes an element, as float32 has; error at most 2^−17 of a group's largest element at 64 lanes. The default.
    W32,
}

impl Width {
    /// W, bits of a word.
    pub const fn bits(self) -> u32 {
        match self {
            Width::W64 => 64,
            Width::W32 => 32,
        }
    }

    /// b = W − 1 − ⌈log2 L⌉, the bits of a lane's integer: |q| ≤ Q = 2^b − 1, and L·Q < 2^(W−1).
    ///
    /// # Panics
    /// If L is 0 or above 2^16.
    pub const fn payload_bits(self, n_lanes: usize) -> u32 {
        assert!(n_lanes >= 1 && n_lanes <= 1 << 16, "lanes: 1 to 65536");
        self.bits() - 1 - ceil_log2(n_lanes as u64)
    }

    /// The largest double that is at most Q: Q itself up to b = 53.
    pub(super) fn limit(self, n_lanes: usize) -> f64 {
        let b = self.payload_bits(n_lanes) as i32;
        pow2(b) - pow2((b - 53).max(0))
    }
}
