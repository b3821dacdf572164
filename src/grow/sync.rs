//! What ranks say to each other while a tree grows: counts of rows, histograms, best splits. All of it is integers.

use super::histogram::{Histograms, ToCount};
use super::pair::Sums;
use super::split::Split;
use crate::comm::{Communicator, Pending};
use crate::error::Result;

/// Numbers of rows over all ranks. Collective.
pub(super) fn sum_counts(comm: &Communicator, mine: &[u64]) -> Result<Vec<u64>> {
    let mut counts = mine.to_vec();
    comm.all_reduce_sum(&mut counts)?;
    Ok(counts)
}

/// Collective.
pub(super) fn sum_sums(comm: &Communicator, mine: Sums) -> Result<Sums> {
    let mut words = [mine.gradient as u64, mine.hessian as u64];
    comm.all_reduce_sum(&mut words)?;
    Ok(Sums { gradient: words[0] as i64, hessian: words[1] as i64 })
}

/// Histograms of some leaves on their way to the ranks of their features; None: there is one rank.
pub(super) type Sent<'c> = Option<Pending<'c, u64>>;

/// Starts adding the histograms that were counted last over all ranks; each rank gets the part of its features. Collective.
pub(super) fn send_histograms<'c>(
    comm: &'c Communicator,
    histograms: &Histograms,
    leaves: &[ToCount],
) -> Result<Sent<'c>> {
    if comm.size() == 1 {
        return Ok(None);
    }
    let words_of_bin: usize = leaves.iter().map(|leaf| histograms.width_of(leaf.n_rows)).sum();
    let counts: Vec<usize> = histograms.dealt().iter().map(|bins| words_of_bin * bins.len()).collect();
    let mut send: Vec<u64> = Vec::with_capacity(counts.iter().sum());
    for bins in histograms.dealt() {
        (0..leaves.len()).for_each(|at| send.extend(histograms.counted(at).part(bins.clone()).words));
    }
    comm.start_reduce_scatter_sum(send, &counts).map(Some)
}

/// Waits for the sums of these leaves. Not collective.
pub(super) fn receive_histograms(
    histograms: &mut Histograms,
    leaves: &[ToCount],
    rank: usize,
    sent: Sent<'_>,
) -> Result<()> {
    let Some(sent) = sent else { return Ok(()) };
    let mine = sent.wait()?;
    let n_bins = histograms.dealt()[rank].len();
    let mut rest = &mine[..];
    for leaf in leaves {
        let width = histograms.width_of(leaf.n_rows);
        let (words, after) = rest.split_at(width * n_bins);
        histograms.store(leaf.number, width, words);
        rest = after;
    }
    Ok(())
}

/// u64 words of a split, or of none, before those of its set.
const SPLIT_WORDS: usize = 6;
const NONE: u64 = u64::MAX;

/// The best of all ranks' splits, leaf by leaf. Collective.
///
/// * `set_words`: of the largest set of bins.
pub(super) fn best_of_all(
    comm: &Communicator,
    mine: Vec<Option<Split>>,
    set_words: usize,
) -> Result<Vec<Option<Split>>> {
    if comm.size() == 1 {
        return Ok(mine);
    }
    let words: Vec<u64> = mine.iter().flat_map(|split| to_words(split, set_words)).collect();
    let all = comm.all_gather(&words)?;
    let mut best = vec![None; mine.len()];
    for rank in 0..comm.size() {
        for (best, words) in best.iter_mut().zip(all.of_rank(rank).chunks_exact(SPLIT_WORDS + set_words)) {
            let Some(split) = from_words(words) else { continue };
            if best.as_ref().is_none_or(|best| split.is_better_than(best)) {
                *best = Some(split);
            }
        }
    }
    Ok(best)
}

fn to_words(split: &Option<Split>, set_words: usize) -> Vec<u64> {
    let mut words = vec![NONE; SPLIT_WORDS];
    if let Some(split) = split {
        let place = u64::from(split.feature) << 32 | u64::from(split.bin);
        let missing = split.missing.map_or(NONE, u64::from);
        let (gradient, hessian) = (split.left.gradient as u64, split.left.hessian as u64);
        words = vec![place, split.gain.to_bits(), missing, split.missing_left.into(), gradient, hessian];
        words.extend(&split.left_set);
    }
    // No set has a bin less than none.
    words.resize(SPLIT_WORDS + set_words, 0);
    words
}

fn from_words(words: &[u64]) -> Option<Split> {
    let (&[place, gain, missing, missing_left, gradient, hessian], set) = words.split_first_chunk::<SPLIT_WORDS>()?;
    let n_words = set.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    (place != NONE).then(|| Split {
        gain: f64::from_bits(gain),
        feature: (place >> 32) as u32,
        bin: place as u32,
        missing: (missing != NONE).then_some(missing as u32),
        missing_left: missing_left == 1,
        left: Sums { gradient: gradient as i64, hessian: hessian as i64 },
        left_set: set[..n_words].to_vec(),
    })
}
