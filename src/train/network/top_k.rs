//! The largest numbers of each lane's gradient.

use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::exact::{Groups, LaneGrid};
use rayon::prelude::*;

/// Each lane sends the ⌈share · n⌉ numbers of largest magnitude of each group of n; of equal ones the first. What it does not send, and what rounding loses
/// of what it sends, stays with it.
///
/// Ranks add the integers of their lanes, and exchange those that are not 0 with their places: 8 bytes each, which every rank gets of every other. With L lanes
/// that is at most 8 · share · L · n bytes a rank and step, so it pays while share · L is well below 1.
///
/// Sources: Aji, Heafield, *Sparse communication for distributed gradient descent*, EMNLP 2017; Stich, Cordonnier, Jaggi, *Sparsified SGD with memory*, NeurIPS 2018.
/// Without what Lin, Han, Mao, Wang, Dally, *Deep gradient compression*, ICLR 2018, do to momentum.
pub(super) struct TopK {
    share: f64,
    /// One a parameter.
    words: Vec<u32>,
}

impl TopK {
    /// Not collective; the same answer on every rank.
    ///
    /// # Errors
    /// Usage: a place that does not fit its 4 bytes.
    pub fn new(share: f64, n_params: usize) -> Result<TopK> {
        if u32::try_from(n_params).is_err() {
            return Err(Error::usage(format!(
                "--top-k {share}: places of {n_params} parameters do not fit 32 bits; leave it out, or use --powersgd"
            )));
        }
        Ok(TopK { share, words: vec![0; n_params] })
    }

    /// Takes from what lanes hold (one number a parameter each) what they send; `sums` becomes that of all lanes. Collective; rayon over lanes and groups.
    ///
    /// `exponents`: one a group, at which no lane's numbers are cut.
    pub fn add(
        &mut self,
        comm: &Communicator,
        groups: &Groups,
        grid: LaneGrid,
        lanes: Vec<&mut [f32]>,
        exponents: &[i32],
        sums: &mut [f32],
    ) -> Result<()> {
        let mut tasks = Vec::new();
        for mut held in lanes {
            for (group, exponent) in exponents.iter().enumerate() {
                let range = groups.range(group);
                let of_group = held.split_off_mut(..range.len()).expect("a number for each parameter");
                tasks.push((range.start, of_group, *exponent));
            }
        }
        let send = |(first, held, exponent): (usize, &mut [f32], i32)| {
            let n = (self.share * held.len() as f64).ceil() as usize;
            send(held, first, n.clamp(1, held.len()), grid, exponent)
        };
        let sent: Vec<Vec<u32>> = tasks.into_par_iter().map(send).collect();

        self.words.fill(0);
        sent.iter().for_each(|pairs| add_pairs(&mut self.words, pairs));
        let words = self.words.iter().enumerate().filter(|(_, word)| **word != 0);
        let own: Vec<u32> = words.flat_map(|(place, word)| [place as u32, *word]).collect();
        let of_all = comm.all_gather(&own)?;
        self.words.fill(0);
        (0..comm.size()).for_each(|rank| add_pairs(&mut self.words, of_all.of_rank(rank)));

        let (mut tasks, mut rest) = (Vec::new(), sums);
        for (group, exponent) in exponents.iter().enumerate() {
            let range = groups.range(group);
            let of_group = rest.split_off_mut(..range.len()).expect("a sum for each parameter");
            tasks.push((&self.words[range], of_group, *exponent));
        }
        tasks.into_par_iter().for_each(|(words, sums, exponent)| grid.finish(words, exponent, sums));
        Ok(())
    }
}

/// Adds integers to those at their places.
fn add_pairs(words: &mut [u32], pairs: &[u32]) {
    for pair in pairs.chunks_exact(2) {
        let word = &mut words[pair[0] as usize];
        *word = word.wrapping_add(pair[1]);
    }
}

/// Sends the `n` numbers of largest magnitude, of equal ones the first: place and integer of each, one after the other; `held` becomes what is left. Not
/// collective.
///
/// * `first`: the place of the first number.
/// * `n`: from 1 to how many there are.
fn send(held: &mut [f32], first: usize, n: usize, grid: LaneGrid, exponent: i32) -> Vec<u32> {
    // Bits of magnitudes are in the order of magnitudes.
    let magnitude = |value: &f32| value.to_bits() & (u32::MAX >> 1);
    let mut magnitudes: Vec<u32> = held.iter().map(magnitude).collect();
    let n_less = magnitudes.len() - n;
    let (_, least, rest) = magnitudes.select_nth_unstable(n_less);
    let least = *least;
    let mut n_equal = n - rest.iter().filter(|magnitude| **magnitude > least).count();
    let mut is_sent = |value: &f32| {
        let magnitude = magnitude(value);
        let is_equal = magnitude == least && n_equal > 0;
        n_equal -= usize::from(is_equal);
        magnitude > least || is_equal
    };
    let places: Vec<usize> = (0..held.len()).filter(|place| is_sent(&held[*place])).collect();

    let mut values: Vec<f32> = places.iter().map(|place| held[*place]).collect();
    let mut words = vec![0; values.len()];
    grid.send(&mut words, &mut values, exponent);
    places.iter().zip(values).for_each(|(place, sent)| held[*place] -= sent);
    places.into_iter().zip(words).flat_map(|(place, word)| [(first + place) as u32, word]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;
    use crate::exact::Width;
    use crate::rng::{Draws, Stream};

    /// The places of the `n` largest, by sorting all.
    fn largest(values: &[f32], n: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..values.len()).collect();
        places.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
        places.truncate(n);
        places.sort_unstable();
        places
    }

    #[test]
    fn the_largest_are_sent_and_of_equal_ones_the_first() {
        let grid = LaneGrid::new(4, Width::W32);
        let draws = Draws::new(5, Stream::Synthetic);
        for len in [1, 2, 7, 101, 997] {
            for kinds in [1, 2, 3, 50] {
                // A few magnitudes, of either sign: nearly all are equal to others.
                let draw = |i: usize| (draws.below(2 * kinds + 1, i as u64, kinds) as f32 - kinds as f32) / 64.0;
                let given: Vec<f32> = (0..len).map(draw).collect();
                for n in [1, 2, len / 3, len / 2, len].into_iter().filter(|n| (1..=len).contains(n)) {
                    let mut left = given.clone();
                    let pairs = send(&mut left, 1_000, n, grid, 0);
                    let places: Vec<usize> = pairs.iter().step_by(2).map(|place| *place as usize - 1_000).collect();
                    assert_eq!(places, largest(&given, n), "{n} of {given:?}");
                    for (place, value) in given.iter().enumerate() {
                        let is_sent = places.contains(&place);
                        assert_eq!(left[place], if is_sent { 0.0 } else { *value });
                    }
                    for pair in pairs.chunks_exact(2) {
                        // 29 bits below 2.
                        let value = f64::from(pair[1] as i32) * 2f64.powi(-28);
                        assert_eq!(value as f32, given[pair[0] as usize - 1_000]);
                    }
                }
            }
        }
    }

    /// Lanes, their gradients by step, and groups.
    fn gradient(lane: usize, step: u64, n: usize) -> Vec<f32> {
        let draws = Draws::new(8 + lane as u64, Stream::Synthetic);
        let scale = |i: usize| if i.is_multiple_of(5) { 1e-3 } else { 1.0 };
        (0..n).map(|i| (scale(i) * (draws.normal(i as u64, step) + 0.2)) as f32).collect()
    }

    /// The same in plain loops, for all lanes at once: integers as i64, by sorting.
    fn plain_step(held: &mut [Vec<f32>], lens: &[usize], share: f64, bits: i32) -> Vec<f32> {
        let n: usize = lens.iter().sum();
        let (mut sums, mut first) = (vec![0.0; n], 0);
        for len in lens {
            let range = first..first + len;
            first += len;
            let of_lanes = || held.iter().flat_map(|held| &held[range.clone()]);
            let peak = of_lanes().fold(0.0f32, |peak, value| peak.max(value.abs()));
            let unit = 2f64.powi(libm::log2(f64::from(peak)).floor() as i32 + 1 - bits);
            for held in held.iter_mut() {
                let group = &mut held[range.clone()];
                for place in largest(group, (share * *len as f64).ceil() as usize) {
                    let sent = (f64::from(group[place]) / unit).round_ties_even() * unit;
                    sums[range.start + place] += sent;
                    group[place] = (f64::from(group[place]) - sent) as f32;
                }
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    #[test]
    fn any_number_of_ranks_sends_what_plain_loops_send_and_nothing_is_lost() {
        const LENS: [usize; 4] = [301, 1, 70, 2];
        let (groups, n) = (Groups::new(&LENS), LENS.iter().sum());
        for (n_lanes, share) in [(7, 0.01), (7, 0.3), (1, 0.5)] {
            let grid = LaneGrid::new(n_lanes, Width::W32);
            let bits = 31 - (n_lanes as f64).log2().ceil() as i32;
            for size in [1, 2, 3, 5] {
                let sums = run_threads(size, 2, |comm| {
                    let own: Vec<usize> = (0..n_lanes).filter(|lane| lane % size == comm.rank()).collect();
                    let mut held = vec![vec![0.0f32; n]; own.len()];
                    let mut top_k = TopK::new(share, n)?;
                    let mut of_steps = Vec::new();
                    for step in 0..20 {
                        for (held, lane) in held.iter_mut().zip(&own) {
                            held.iter_mut().zip(gradient(*lane, step, n)).for_each(|(held, g)| *held += g);
                        }
                        let mut peaks = vec![0; groups.len()];
                        for (group, peak) in peaks.iter_mut().enumerate() {
                            let of_lane = held.iter().map(|held| LaneGrid::peak(&held[groups.range(group)]));
                            *peak = of_lane.max().unwrap_or(0);
                        }
                        comm.all_reduce_max(&mut peaks)?;
                        let exponents: Vec<i32> =
                            peaks.into_iter().map(|peak| LaneGrid::exponent_of(peak).unwrap()).collect();
                        let mut sums = vec![7.0; n];
                        let lanes = held.iter_mut().map(|held| &mut held[..]).collect();
                        top_k.add(comm, &groups, grid, lanes, &exponents, &mut sums)?;
                        of_steps.push(sums);
                    }
                    Ok((of_steps, held))
                })
                .unwrap();
                let mut held = vec![vec![0.0f32; n]; n_lanes];
                let (mut given, mut sent) = (vec![0.0f64; n], vec![0.0f64; n]);
                for step in 0..20 {
                    for (lane, held) in held.iter_mut().enumerate() {
                        for ((held, given), g) in held.iter_mut().zip(&mut given).zip(gradient(lane, step, n)) {
                            *held += g;
                            *given += f64::from(g);
                        }
                    }
                    let plain = plain_step(&mut held, &LENS, share, bits);
                    for (of_rank, _) in &sums {
                        assert_eq!(of_rank[step as usize], plain, "{size} ranks, {n_lanes} lanes, step {step}");
                    }
                    sent.iter_mut().zip(plain).for_each(|(sent, sum)| *sent += f64::from(sum));
                }
                for at in 0..n {
                    let left: f64 = held.iter().map(|held| f64::from(held[at])).sum();
                    assert!((sent[at] + left - given[at]).abs() < 1e-4, "{} + {left} of {}", sent[at], given[at]);
                }
                for (rank, (_, of_rank)) in sums.iter().enumerate() {
                    let own = held.iter().enumerate().filter(|(lane, _)| lane % size == rank);
                    assert!(own.map(|(_, held)| held).eq(of_rank));
                }
            }
        }
    }
}
