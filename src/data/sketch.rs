//! Where bins end: from distinct values of a feature and how often each was met, in a whole table or in a sample of its rows.

/// Ends of at most `max_bins` bins that hold about as many rows each.
///
/// Few distinct values have a bin each. Of many, those that fill a bin alone have one, with at most half a share of what comes before,
/// and the others share what is left. Between two bins the end is half-way from the highest value below to the lowest above.
///
/// * `values`: ascending and distinct, with counts; no NaN.
pub fn bin_ends(values: &[(f64, u64)], max_bins: usize) -> Vec<f64> {
    let last_of_bins = match values.len() <= max_bins {
        true => (1..values.len()).collect(),
        false => shared_bins(values, max_bins),
    };
    let mut ends: Vec<f64> = last_of_bins.iter().map(|&next| between(values[next - 1].0, values[next].0)).collect();
    ends.dedup();
    ends
}

/// Numbers of the first value of each bin but the first. Source of the greedy rule: Ke et al., *LightGBM*, NIPS 2017, as its program
/// has it: heavy values first, then equal shares of what is left.
fn shared_bins(values: &[(f64, u64)], max_bins: usize) -> Vec<usize> {
    let total: u64 = values.iter().map(|(_, n)| n).sum();
    let is_heavy = |n: u64| u128::from(n) * max_bins as u128 >= u128::from(total);
    let heavy: Vec<u64> = values.iter().map(|(_, n)| *n).filter(|n| is_heavy(*n)).collect();
    let (mut left, mut bins_left) = (total - heavy.iter().sum::<u64>(), (max_bins - heavy.len().min(max_bins)) as u64);
    let mut starts = Vec::new();
    let mut filled = 0;
    for (at, pair) in values.windows(2).enumerate() {
        if starts.len() + 1 == max_bins {
            break;
        }
        let (n, next) = (pair[0].1, pair[1].1);
        filled += n;
        // A share is what is left by the bins that are left; a value that has its own bin waits for no full one before it.
        let is_full = filled * bins_left.max(1) >= left;
        let is_half = 2 * filled * bins_left.max(1) >= left;
        if is_heavy(n) || is_full || (is_heavy(next) && is_half) {
            starts.push(at + 1);
            if !is_heavy(n) {
                left -= filled;
                bins_left = bins_left.saturating_sub(1);
            }
            filled = 0;
        }
    }
    starts
}

/// Not below `low` and below `high`.
fn between(low: f64, high: f64) -> f64 {
    let half = low + (high - low) / 2.0;
    if half.is_finite() && half >= low && half < high { half } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins_of(values: &[(f64, u64)], ends: &[f64]) -> Vec<u64> {
        let mut counts = vec![0; ends.len() + 1];
        values.iter().for_each(|(value, n)| counts[ends.partition_point(|end| end < value)] += n);
        counts
    }

    #[test]
    fn few_values_have_a_bin_each() {
        let values =
            [(f64::NEG_INFINITY, 1), (-1.0, 5), (0.0, 1), (f64::from_bits(1), 1), (3.0, 9), (f64::INFINITY, 2)];
        let ends = bin_ends(&values, 6);
        assert_eq!(bins_of(&values, &ends), [1, 5, 1, 1, 9, 2]);
        assert!(bin_ends(&[], 255).is_empty());
        assert!(bin_ends(&[(2.0, 7)], 255).is_empty());
    }

    #[test]
    fn many_values_share_bins_evenly_and_heavy_ones_have_their_own() {
        let mut values: Vec<(f64, u64)> =
            (0..10_000).map(|i: u32| (f64::from(i), 1 + u64::from(i.is_multiple_of(7)))).collect();
        let counts = bins_of(&values, &bin_ends(&values, 100));
        assert_eq!(counts.len(), 100);
        assert!(counts.iter().all(|n| (100..=125).contains(n)), "{counts:?}");
        values[5_000].1 = 100_000;
        let ends = bin_ends(&values, 100);
        let counts = bins_of(&values, &ends);
        // Its bin has at most half a share of what comes before it.
        let is_heavy = |n: &&u64| (100_000..100_000 + 116 / 2).contains(*n);
        assert_eq!(counts.iter().filter(is_heavy).count(), 1, "{counts:?}");
        assert!(counts.len() > 90 && counts.iter().filter(|n| !is_heavy(n)).all(|n| *n < 200), "{counts:?}");
    }

    #[test]
    fn there_are_never_more_bins_than_asked_for() {
        for n in [1, 2, 3, 50, 257, 1000] {
            let values: Vec<(f64, u64)> = (0..n).map(|i: u32| (f64::from(i), 1 + u64::from(i * i % 91))).collect();
            for max_bins in [2, 3, 16, 255] {
                assert!(bin_ends(&values, max_bins).len() < max_bins, "{n} values, {max_bins} bins");
            }
        }
    }
}
