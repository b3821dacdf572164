//! Exponents of the next step, predicted from the peaks of the last ones (`EXACT` 2b).

use super::lanes::{NON_FINITE_PEAK, peak_exponent};

/// Peaks that are remembered for each group.
const STEPS: usize = 16;
/// Room above the largest remembered exponent.
const MARGIN: i32 = 2;
/// The smallest exponent in use: it keeps 2^k finite.
pub(super) const LOWEST: i32 = -96;
/// Exponents are kept as bytes, LOWEST as 1; 0 is "none yet".
const BYTE_OF_ZERO: i32 = 1 - LOWEST;

/// Predicted exponents Ê: the largest E of a group's last 16 committed steps, + 2. Steps in which a group's peak was zero do
/// not count for it (they are not entered); −96 until one was seen.
///
/// A function of reduced peaks only, hence the same on all ranks. It is state: save [`words`](Self::words) in checkpoints.
#[derive(Clone, PartialEq, Debug)]
pub struct ScaleWindow {
    /// Per group, oldest first.
    recent: Vec<[u8; STEPS]>,
}

impl ScaleWindow {
    /// An empty window. Not collective.
    pub fn new(n_groups: usize) -> Self {
        ScaleWindow { recent: vec![[0; STEPS]; n_groups] }
    }

    /// Ê of each group, −96 … 129. Not collective.
    pub fn exponents(&self) -> Vec<i32> {
        let predicted = |recent: &[u8; STEPS]| match recent.iter().max() {
            None | Some(0) => LOWEST,
            Some(&largest) => i32::from(largest) - BYTE_OF_ZERO + MARGIN,
        };
        self.recent.iter().map(predicted).collect()
    }

    /// Whether no step was entered that had a peak. Not collective.
    pub fn is_empty(&self) -> bool {
        self.recent.iter().all(|recent| recent.iter().all(|byte| *byte == 0))
    }

    /// Enters the reduced peaks of a step that is committed (never of a step that will be redone). Not collective.
    ///
    /// # Panics
    /// If there is not one peak a group, or one is not finite: such a step is not committed.
    pub fn commit(&mut self, peaks: &[i32]) {
        assert_eq!(peaks.len(), self.recent.len(), "one peak for each group");
        for (recent, &peak) in self.recent.iter_mut().zip(peaks) {
            assert!((0..NON_FINITE_PEAK).contains(&peak), "peak {peak:#x} of a committed step is not finite");
            if peak > 0 {
                recent.rotate_left(1);
                recent[STEPS - 1] = (peak_exponent(peak) + BYTE_OF_ZERO) as u8;
            }
        }
    }

    /// For a checkpoint: the number of groups, then two words a group. Not collective.
    pub fn words(&self) -> Vec<i64> {
        let halves = self.recent.iter().flat_map(|recent| {
            let bytes = i128::from_le_bytes(*recent);
            [bytes as i64, (bytes >> 64) as i64]
        });
        std::iter::once(self.recent.len() as i64).chain(halves).collect()
    }

    /// The window of [`words`](Self::words); None if they are not such words. Not collective.
    pub fn from_words(words: &[i64]) -> Option<Self> {
        let (&n_groups, rest) = words.split_first()?;
        if usize::try_from(n_groups).ok()?.checked_mul(2)? != rest.len() {
            return None;
        }
        let bytes = |pair: &[i64]| ((i128::from(pair[1]) << 64) | i128::from(pair[0] as u64)).to_le_bytes();
        let recent: Vec<[u8; STEPS]> = rest.chunks_exact(2).map(bytes).collect();
        let largest = (127 + BYTE_OF_ZERO) as u8;
        let entered_in_order = |recent: &[u8; STEPS]| recent.windows(2).all(|pair| pair[0] == 0 || pair[1] != 0);
        let valid = recent.iter().all(|r| r.iter().all(|&byte| byte <= largest) && entered_in_order(r));
        valid.then_some(ScaleWindow { recent })
    }
}
