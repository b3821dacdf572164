//! Random numbers as a function of (seed, stream, index, counter): any rank can compute any draw, and
//! there is no state to save, to split or to lose.
//!
//! Philox4x32-10, a counter-based generator. Source: Salmon, Moraes, Dror, Shaw, *Parallel random
//! numbers: as easy as 1, 2, 3*, SC 2011; checked against its published known answers.

/// Independent sequences under one seed. The number is part of the answer: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Which fold a row is in.
    Fold = 1,
    /// Whether a row is held out by `--valid-fraction`.
    Valid = 2,
    /// The order of a lane's rows in an epoch.
    Shuffle = 3,
    /// Starting parameters.
    Init = 4,
    /// Synthetic tables.
    Synthetic = 5,
    /// Which row of a run a thinned table keeps.
    Thin = 6,
    /// Which rows bins are made from.
    Bins = 7,
    /// How a row's gradient pair is rounded.
    Rounding = 8,
    /// Which rows a tree is grown on.
    TreeRows = 9,
    /// Which features a tree looks at.
    TreeColumns = 10,
    /// Which values of a row a step leaves out.
    Dropout = 11,
    /// What weight matrices are multiplied by before they travel.
    LowRank = 12,
    /// Which row a column's value comes from.
    Permutation = 20,
    /// How often a row is drawn for a member of an ensemble, or whether it is.
    MemberRows = 30,
    /// Which columns a member of an ensemble sees.
    MemberColumns = 31,
    /// The seeds of members of an ensemble.
    MemberSeed = 32,
}

/// A key: all draws of one purpose under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    key: [u32; 2],
}

impl Draws {
    pub fn new(seed: u64, stream: Stream) -> Draws {
        // The stream is folded into the key by one block of the generator itself, so that streams of
        // neighbouring seeds share nothing.
        let mixed = philox([stream as u32, 0, 0, 0x636f_6e73], [seed as u32, (seed >> 32) as u32]);
        Draws { key: [mixed[0], mixed[1]] }
    }

    /// 64 random bits for (`index`, `counter`), such as (global row, epoch).
    pub fn bits(self, index: u64, counter: u64) -> u64 {
        let out = philox([index as u32, (index >> 32) as u32, counter as u32, (counter >> 32) as u32], self.key);
        u64::from(out[0]) | u64::from(out[1]) << 32
    }

    /// Uniform in [0, 1), a multiple of 2^−53.
    pub fn uniform(self, index: u64, counter: u64) -> f64 {
        (self.bits(index, counter) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n without bias worth a bit below n = 2^32 (multiply and shift).
    pub fn below(self, n: u64, index: u64, counter: u64) -> u64 {
        ((u128::from(self.bits(index, counter)) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal by Box–Muller, with `libm` so that every machine draws the same.
    pub fn normal(self, index: u64, counter: u64) -> f64 {
        let out = philox([index as u32, (index >> 32) as u32, counter as u32, (counter >> 32) as u32], self.key);
        let u = (f64::from(out[0]) + 1.0) * (1.0 / 4_294_967_297.0);
        let v = f64::from(out[1]) * (1.0 / 4_294_967_296.0);
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(std::f64::consts::TAU * v)
    }
}

/// Draws by index that cost next to nothing, for rounding and sampling: the `index`-th number of SplitMix64, which can be asked for
/// by itself. Source: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
#[derive(Clone, Copy, Debug)]
pub struct FastDraws {
    start: u64,
}

impl FastDraws {
    /// Those of one `counter` (a tree, say) of a key.
    pub fn new(draws: Draws, counter: u64) -> FastDraws {
        FastDraws { start: draws.bits(u64::MAX, counter) }
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(self, index: u64) -> u64 {
        let z = self.start.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether the index is one of about this share of all. 1: each is.
    #[inline]
    pub fn takes(self, share: f64, index: u64) -> bool {
        share >= 1.0 || ((self.bits(index) >> 11) as f64) * (1.0 / (1u64 << 53) as f64) < share
    }
}

/// Ten rounds of Philox4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9);
            key[1] = key[1].wrapping_add(0xBB67_AE85);
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let one = Draws::new(7, Stream::Fold);
        let two = Draws::new(7, Stream::Shuffle);
        assert!((0..100).all(|row| one.bits(row, 0) != two.bits(row, 0)));
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let draws = Draws::new(3, Stream::Synthetic);
        let n = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for row in 0..n {
            let x = draws.normal(row, 0);
            sum += x;
            squares += x * x;
        }
        let (mean, variance) = (sum / n as f64, squares / n as f64);
        assert!(mean.abs() < 4.0 / (n as f64).sqrt(), "mean {mean}");
        assert!((variance - 1.0).abs() < 4.0 * (2.0 / n as f64).sqrt(), "variance {variance}");
    }
}
