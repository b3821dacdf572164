//! The rounds of boosting: pairs, trees, leaf values, scores.

use super::super::prepare::objective;
use super::super::sums::{Total, sum_blocks};
use super::super::{Observer, Progress, Streamed, TrainConfig};
use super::bins::BinnedRows;
use super::continued::is_over;
use super::loss_of;
use super::quantiles::Quantiles;
use crate::comm::Communicator;
use crate::config::BoostConfig;
use crate::data::binned::FeatureBins;
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::exact::scale::{ceil_log2, exponent_of, from_order_key, order_key, pow2};
use crate::functions::prefetch_at;
use crate::grow::{
    CategoryConfig, Child, ColumnSample, Grower, Grown, LeafOfRows, Pair, PairScale, Records, Split, TreeConfig,
    UNIT_BITS, WIDE_BITS, leaf_value,
};
use crate::model::{Boosted, Tree};
use crate::objective::PairLoss;
use crate::rng::{Draws, FastDraws, Stream};
use multiversion::multiversion;
use rayon::prelude::*;
use std::ops::Range;
use std::time::Instant;

/// What came of it; the same on every rank but for the scores.
pub(super) struct Done {
    pub(super) boosted: Boosted,
    /// (rows here, scores)
    pub(super) scores: Vec<f64>,
    /// Mean weighted training loss before each round.
    pub(super) losses: Vec<f64>,
    /// Of the rows that were held out, after each round; empty: nobody asked.
    pub(super) valid_losses: Vec<f64>,
    pub(super) seconds: Vec<f64>,
    /// Of records that are in a file.
    pub(super) streamed: Option<Streamed>,
}

/// A boosting under way.
pub(super) struct Boosting<'a> {
    comm: &'a Communicator,
    rows: &'a BinnedRows<'a>,
    boost: &'a BoostConfig,
    loss: PairLoss,
    seed: u64,
    grower: Grower,
    tree_config: TreeConfig,
    /// (rows here, scores)
    scores: Vec<f64>,
    /// w·∂loss, w·∂²loss: (rows here, scores)
    pairs: Vec<[f32; 2]>,
    /// Of a loss whose leaves are quantiles.
    quantiles: Option<Quantiles<'a>>,
    boosted: Boosted,
}

/// Largest |gradient| and hessian of a tree's rows, as powers of two that are above them.
#[derive(Clone, Copy)]
struct Bounds {
    /// None: all are 0.
    gradient: Option<i32>,
    hessian: Option<i32>,
    /// The largest are so far above the others that 16 bits would say nothing of these.
    is_heavy: bool,
}

impl<'a> Boosting<'a> {
    /// Scores start where a model without features has its least loss, or where the model that is continued left them. Collective.
    pub(super) fn new(
        comm: &'a Communicator,
        rows: &'a BinnedRows<'a>,
        records: Records,
        config: &TrainConfig,
        boost: &'a BoostConfig,
    ) -> Result<Boosting<'a>> {
        let n_classes = rows.target.n_classes();
        let loss = loss_of(boost, n_classes);
        let k = loss.n_scores();
        let weighted_y = if n_classes == 2 { vec![rows.weighted_y[1]] } else { rows.weighted_y.clone() };
        let n_here = rows.y.len();
        let quantiles = loss.leaf_quantile().map(|share| Quantiles::new(comm, &rows.weight, rows.total_weight, share));
        let quantiles = quantiles.transpose()?;
        let start = match (&rows.base, &quantiles) {
            (Some(base), _) => base.boosted.start.clone(),
            (None, Some(quantiles)) => {
                let all: Vec<u32> = (0..n_here as u32).collect();
                let first = quantiles.of_leaves(comm, &[&all], |row| rows.y.get(row) as f32)?[0];
                // Values are looked at as 32 bits: once more, for what these cannot say of the first.
                vec![first + quantiles.of_leaves(comm, &[&all], |row| (rows.y.get(row) - first) as f32)?[0]]
            }
            (None, None) => objective(config.responds_as(), n_classes).start_scores(rows.total_weight, &weighted_y),
        };
        let tree_config = TreeConfig {
            growth: boost.growth,
            max_leaves: boost.max_leaves as usize,
            max_depth: (boost.max_depth > 0).then_some(boost.max_depth as usize),
            min_rows: boost.min_rows as f64,
            min_hessian: boost.min_hessian,
            l1: config.l1,
            l2: config.l2,
            min_gain: boost.min_gain,
            columns: ColumnSample {
                tree: boost.column_sample,
                level: boost.column_sample_level,
                node: boost.column_sample_node,
                seed: config.seed,
            },
            categories: CategoryConfig {
                smooth: boost.cat_smooth,
                l2: boost.cat_l2,
                most: boost.max_cat_threshold as usize,
                one_hot: boost.max_cat_to_onehot as usize,
                group_rows: boost.min_data_per_group as f64,
            },
            monotone: super::constraints::monotone(boost, &rows.preprocess)?,
            interactions: super::constraints::interactions(boost, &rows.preprocess)?,
        };
        Ok(Boosting {
            comm,
            rows,
            boost,
            loss,
            seed: config.seed,
            grower: Grower::new(comm, records, &tree_config),
            tree_config,
            scores: match &rows.base {
                Some(base) => base.scores.clone(),
                None => start.iter().copied().cycle().take(n_here * k).collect(),
            },
            pairs: vec![[0.0; 2]; n_here * k],
            quantiles,
            boosted: match &rows.base {
                Some(base) => base.boosted.clone(),
                None => Boosted { n_features: rows.preprocess.n_features(), start, trees: Vec::new() },
            },
        })
    }

    /// All rounds. Collective.
    pub(super) fn run(mut self, watch: &mut dyn Observer) -> Result<Done> {
        let k = self.loss.n_scores();
        let (mut losses, mut valid_losses, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
        let mut best: Option<(f64, usize)> = None;
        let mut first = 0;
        if let Some(base) = &self.rows.base {
            (losses, valid_losses) = (base.history("loss"), base.history("valid_loss"));
            first = base.boosted.n_rounds() as u64;
            if self.boost.early_stop > 0 {
                best = Some((self.valid_loss()?, first as usize));
            }
            if base.is_over {
                first = self.boost.rounds;
            }
        }
        for round in first..self.boost.rounds {
            let began = Instant::now();
            losses.push(self.differentiate()?);
            for class in 0..k {
                let tree_number = round * k as u64 + class as u64;
                if class == 0 && (round == first || self.boost.row_sample < 1.0) {
                    self.choose_rows(round)?;
                }
                let tree = self.add_tree(tree_number, class)?;
                self.boosted.trees.push(tree);
            }
            seconds.push(began.elapsed().as_secs_f64());
            let loss = losses.last().copied().unwrap_or(f64::NAN);
            watch.progress(&Progress {
                step: round + 1,
                of_steps: self.boost.rounds,
                loss,
                gradient: None,
                learning_rate: None,
            });
            if self.boost.early_stop > 0 {
                let loss = self.valid_loss()?;
                valid_losses.push(loss);
                if best.is_none_or(|(least, _)| loss < least) {
                    best = Some((loss, round as usize + 1));
                }
                if best.is_some_and(|(_, at)| round as usize + 1 - at >= self.boost.early_stop as usize) {
                    break;
                }
            }
            if is_over(&self.boosted, self.boost) {
                break;
            }
        }
        if let Some((_, rounds)) = best {
            self.keep_rounds(rounds)?;
        }
        let streamed = self.grower.records().file_costs().map(|(rows, seconds)| {
            let of_thread = seconds / rayon::current_num_threads() as f64;
            Streamed { read_s: of_thread, wait_s: of_thread, rows }
        });
        Ok(Done { boosted: self.boosted, scores: self.scores, losses, valid_losses, seconds, streamed })
    }

    /// Takes the trees of later rounds away. Scores are added up again: subtracting would round. Collective.
    fn keep_rounds(&mut self, rounds: usize) -> Result<()> {
        let k = self.loss.n_scores();
        self.boosted.trees.truncate(rounds * k);
        let (base, boosted, features) = (&self.rows.base, &self.boosted, &self.grower.records().features);
        // Thresholds of a model that is continued may lie within a bin.
        let n_before = base.as_ref().map_or(0, |base| base.boosted.trees.len());
        let scores = &mut self.scores;
        self.grower.each_page(self.comm, |page| {
            let rows = page.first_row..page.first_row + page.n_rows();
            let scores = scores[rows.start * k..rows.end * k].par_chunks_exact_mut(k);
            scores.zip(page.places()).zip(rows).for_each(|((scores, place), row)| {
                scores.copy_from_slice(match base {
                    Some(base) => &base.scores[row * k..(row + 1) * k],
                    None => &boosted.start,
                });
                let bin = |feature| page.bin(place as usize, feature) as usize;
                for (number, tree) in boosted.trees.iter().enumerate().skip(n_before) {
                    scores[number % k] += tree.value[leaf_by_bins(tree, features, bin)];
                }
            });
        })
    }

    /// Rows of weight above 0 that this round's trees are grown on. Collective.
    fn choose_rows(&mut self, round: u64) -> Result<()> {
        let draws = FastDraws::new(Draws::new(self.seed, Stream::TreeRows), round);
        let (share, first_row, weight) = (self.boost.row_sample, self.rows.first_row, &self.rows.weight);
        let is_taken = |row: u32| weight.get(row as usize) > 0.0 && draws.takes(share, first_row + u64::from(row));
        self.grower.choose(self.comm, is_taken)
    }

    /// Gradient pairs of all rows, and the mean loss. Collective.
    fn differentiate(&mut self) -> Result<f64> {
        let k = self.loss.n_scores();
        let (rows, loss) = (self.rows, self.loss);
        let mut sums = BlockSums::new(1, self.rows.plan.n_blocks());
        let mut rest = &mut self.pairs[..];
        let mut tasks = Vec::with_capacity(self.rows.blocks.len());
        for block in &self.rows.blocks {
            let (of_block, after) = rest.split_at_mut(block.len() * k);
            tasks.push((block.clone(), of_block));
            rest = after;
        }
        let scores = &self.scores;
        let of_blocks: Vec<f64> = tasks
            .into_par_iter()
            .map_init(Default::default, |(y, weight): &mut (Vec<f64>, Vec<f64>), (block, pairs)| {
                let (y, weight) = (rows.y.rows(block.clone(), y), rows.weight.rows(block.clone(), weight));
                loss.pairs(y, weight, &scores[block.start * k..block.end * k], pairs)
            })
            .collect();
        of_blocks.into_iter().for_each(|loss| sums.push(vec![loss]));
        self.mean_loss(&sums, self.rows.total_weight)
    }

    fn mean_loss(&self, sums: &BlockSums, weight: f64) -> Result<f64> {
        match sum_blocks(self.comm, sums)? {
            Total::Finite(total) => Ok(total[0] / weight),
            Total::NonFinite => Err(Error::data(
                "the loss is no longer finite: targets or weights are too large, or --shrinkage is; rescale the target",
            )),
        }
    }

    /// Mean loss of the rows that were held out. Collective.
    fn valid_loss(&self) -> Result<f64> {
        let k = self.loss.n_scores();
        let (rows, loss, scores) = (self.rows, self.loss, &self.scores);
        let Some(held_out) = &rows.held_out else { return Err(Error::internal("no rows were held out")) };
        let of_block = |block: &Range<usize>| {
            let (mut y, mut weight) = (Vec::new(), Vec::new());
            let (y, weight) = (rows.y.rows(block.clone(), &mut y), held_out.rows(block.clone(), &mut weight));
            let mut pairs = vec![[0.0; 2]; block.len() * k];
            let loss = loss.pairs(y, weight, &scores[block.start * k..block.end * k], &mut pairs);
            vec![loss, weight.iter().fold(0.0, |sum, w| sum + w)]
        };
        let mut sums = BlockSums::new(2, self.rows.plan.n_blocks());
        self.rows.blocks.par_iter().map(of_block).collect::<Vec<_>>().into_iter().for_each(|sum| sums.push(sum));
        match sum_blocks(self.comm, &sums)? {
            Total::Finite(total) if total[1] > 0.0 => Ok(total[0] / total[1]),
            Total::Finite(_) => Err(Error::data("no row of weight above 0 was held out; raise --valid-fraction")),
            Total::NonFinite => Err(Error::data("the loss of the rows that were held out is not finite")),
        }
    }

    /// Grows a tree on the pairs of a class and adds it to the scores. Collective.
    fn add_tree(&mut self, number: u64, class: usize) -> Result<Tree> {
        let k = self.loss.n_scores();
        let bounds = self.agree_bounds(class)?;
        let grown = match bounds.gradient {
            Some(_) => {
                let draws = FastDraws::new(Draws::new(self.seed, Stream::Rounding), number);
                let rounding = Rounding {
                    pairs: &self.pairs,
                    k,
                    class,
                    bounds,
                    draws,
                    first_row: self.rows.first_row,
                    n_rows: self.rows.n_rows,
                };
                self.grower
                    .grow(self.comm, number, rounding.scale(), |rows, pairs| round_pairs(&rounding, rows, pairs))?
            }
            None => self.grower.one_leaf(self.comm)?,
        };
        let values = match &self.quantiles {
            Some(quantiles) => {
                let (y, scores) = (&self.rows.y, &self.scores);
                let leaves = self.grower.leaf_of().rows_of_leaves(grown.n_leaves());
                let leaves: Vec<&[u32]> = leaves.iter().map(|rows| &rows[..]).collect();
                quantiles.of_leaves(self.comm, &leaves, |row| (y.get(row) - scores[row]) as f32)?
            }
            None => {
                let (l1, l2) = (self.tree_config.l1, self.tree_config.l2);
                self.leaf_sums(class, bounds, grown.n_leaves())?
                    .iter()
                    .map(|[g, h]| leaf_value(*g, *h, l1, l2))
                    .collect()
            }
        };
        let within = values.into_iter().zip(&grown.bounds).map(|(value, bounds)| bounds.clamp(value));
        let values: Vec<f64> = within.map(|value| self.boost.shrinkage * value).collect();
        add_values(&mut self.scores, k, class, &values, self.grower.leaf_of());
        Ok(tree_of(&grown, &self.grower.records().features, values))
    }

    /// Largest |gradient| and hessian. Collective.
    fn agree_bounds(&self, class: usize) -> Result<Bounds> {
        let k = self.loss.n_scores();
        let of_rows = |pairs: &[[f32; 2]]| most_of(pairs, k, class);
        let of_tasks: Vec<[f32; 2]> = self.pairs.par_chunks(TASK_ROWS * k).map(of_rows).collect();
        let mut keys = [order_key(0.0); 2];
        for most in of_tasks {
            for (key, most) in keys.iter_mut().zip(most) {
                *key = (*key).max(order_key(f64::from(most)));
            }
        }
        self.comm.all_reduce_max(&mut keys)?;
        let most = keys.map(from_order_key);
        if most.contains(&f64::INFINITY) {
            return Err(Error::data(
                "gradients are beyond 3e38: targets or weights are too large; rescale them, or ask for another --loss",
            ));
        }
        let exponent = |most: f64| (most > 0.0).then(|| exponent_of(most));
        let mut bounds = Bounds { gradient: exponent(most[0]), hessian: exponent(most[1]), is_heavy: false };
        bounds.is_heavy = self.is_heavy(class, bounds)?;
        Ok(bounds)
    }

    /// Whether most gradients, or most hessians, that are not 0 would have less than 2 units of 16 bits. Collective.
    fn is_heavy(&self, class: usize, bounds: Bounds) -> Result<bool> {
        let k = self.loss.n_scores();
        let least = [bounds.gradient, bounds.hessian].map(|e| pow2(e.unwrap_or(0) - 14));
        let mut counts = [0u64; 4];
        let of_rows = |pairs: &[[f32; 2]]| sizes_of(pairs, k, class, least);
        for of_task in self.pairs.par_chunks(TASK_ROWS * k).map(of_rows).collect::<Vec<_>>() {
            counts.iter_mut().zip(of_task).for_each(|(count, of_task)| *count += of_task);
        }
        self.comm.all_reduce_sum(&mut counts)?;
        Ok(2 * counts[0] > counts[2] || 2 * counts[1] > counts[3])
    }

    /// Σ gradient and Σ hessian of each leaf's rows, from integers that are finer than those that trees are grown on. Collective.
    fn leaf_sums(&self, class: usize, bounds: Bounds, n_leaves: usize) -> Result<Vec<[f64; 2]>> {
        let k = self.loss.n_scores();
        // So many rows of so many bits make no more than 62.
        let bits = 52.min(62 - ceil_log2(self.rows.n_rows) as i32);
        let exponents = [bounds.gradient, bounds.hessian].map(|e| bits - 1 - e.unwrap_or(0));
        let ups = exponents.map(pow2);
        // Each task has sums of all leaves.
        let task_rows = TASK_ROWS.max(4 * n_leaves);
        let (leaf_of, pairs) = (self.grower.leaf_of(), &self.pairs);
        let of_task = |(task, pairs): (usize, &[[f32; 2]])| {
            let mut sums = vec![[0i64; 2]; n_leaves];
            add_pairs(&mut sums, leaf_of, task * task_rows, pairs, k, class, ups);
            sums
        };
        let mut words = vec![0u64; 2 * n_leaves];
        for sums in pairs.par_chunks(task_rows * k).enumerate().map(of_task).collect::<Vec<_>>() {
            words.iter_mut().zip(sums.as_flattened()).for_each(|(word, sum)| *word = word.wrapping_add(*sum as u64));
        }
        self.comm.all_reduce_sum(&mut words)?;
        let [down_g, down_h] = exponents.map(|e| pow2(-e));
        let value = |words: &[u64]| [words[0] as i64 as f64 * down_g, words[1] as i64 as f64 * down_h];
        Ok(words.chunks_exact(2).map(value).collect())
    }
}

/// Rows of a task.
const TASK_ROWS: usize = 1 << 14;

/// Largest |gradient| and hessian of rows, none of which is NaN: the loss is finite.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn most_of(pairs: &[[f32; 2]], k: usize, class: usize) -> [f32; 2] {
    let larger = |one: f32, other: f32| if other > one { other } else { one };
    let more = |most: [f32; 2], pair: &[f32; 2]| [larger(most[0], pair[0].abs()), larger(most[1], pair[1])];
    if k > 1 {
        return pairs[class..].iter().step_by(k).fold([0.0; 2], more);
    }
    let (eights, rest) = pairs.as_chunks::<8>();
    let mut most = [[0.0; 2]; 8];
    for eight in eights {
        most.iter_mut().zip(eight).for_each(|(most, pair)| *most = more(*most, pair));
    }
    most.iter().chain(rest).fold([0.0; 2], more)
}

/// How many gradients and hessians of rows are below `least` and not 0, and how many are not 0.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn sizes_of(pairs: &[[f32; 2]], k: usize, class: usize, least: [f64; 2]) -> [u64; 4] {
    let mut counts = [0; 4];
    for pair in pairs[class..].iter().step_by(k) {
        for side in 0..2 {
            let size = f64::from(pair[side].abs());
            counts[side] += u64::from(size > 0.0 && size < least[side]);
            counts[2 + side] += u64::from(size > 0.0);
        }
    }
    counts
}

/// Pairs as integers, rounded up or down by a draw so that sums are right on average (`EXACT` 2a).
struct Rounding<'a> {
    pairs: &'a [[f32; 2]],
    k: usize,
    class: usize,
    bounds: Bounds,
    draws: FastDraws,
    first_row: u64,
    /// Of the whole table.
    n_rows: u64,
}

impl Rounding<'_> {
    /// Of a gradient with its sign, and of a hessian. Sums of many bits stay below 2⁵³, so that gains are of numbers that are exact.
    fn bits(&self) -> i32 {
        match self.bounds.is_heavy {
            false => UNIT_BITS as i32,
            true => (WIDE_BITS as i32).min(53 - ceil_log2(self.n_rows) as i32),
        }
    }

    /// Doublings of gradients and hessians.
    fn exponents(&self) -> [i32; 2] {
        let bits = self.bits();
        [bits - 2 - self.bounds.gradient.unwrap_or(0), bits - 1 - self.bounds.hessian.unwrap_or(0)]
    }

    fn scale(&self) -> PairScale {
        let [gradient, hessian] = self.exponents().map(|exponent| pow2(-exponent));
        PairScale { gradient, hessian, is_wide: self.bounds.is_heavy }
    }
}

/// Those of some rows.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn round_pairs(rounding: &Rounding, rows: &[u32], units: &mut [[Pair; 2]]) {
    let of = |row: u32| row as usize * rounding.k + rounding.class;
    rows.iter().for_each(|row| prefetch_at(rounding.pairs, of(*row)));
    let [up_g, up_h] = rounding.exponents().map(pow2);
    let most = pow2(rounding.bits() - 1) - 1.0;
    let half = |bits: u64| (bits as u32 as f64) * (1.0 / 4_294_967_296.0);
    for (row, unit) in rows.iter().zip(units) {
        let [g, h] = rounding.pairs[of(*row)];
        let drawn = rounding.draws.bits(rounding.first_row + u64::from(*row));
        let (g, h) = (f64::from(g) * up_g + half(drawn), f64::from(h) * up_h + half(drawn >> 32));
        let (g, h) = (g.floor().clamp(-most, most), h.floor().clamp(0.0, 2.0 * most + 1.0));
        *unit = match rounding.bounds.is_heavy {
            false => [Pair::new(g as i32, h as u32), Pair::default()],
            true => Pair::digits(g as i64, h as i64),
        };
    }
}

/// Adds pairs as integers, each multiplied before it is rounded, to the sums of their rows' leaves.
///
/// * `first_row`: the number of the first row.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add_pairs(
    sums: &mut [[i64; 2]],
    leaf_of: &LeafOfRows,
    first_row: usize,
    pairs: &[[f32; 2]],
    k: usize,
    class: usize,
    [up_g, up_h]: [f64; 2],
) {
    for (row, [g, h]) in pairs[class..].iter().step_by(k).enumerate() {
        let Some(leaf) = leaf_of.of_taken(first_row + row) else { continue };
        let [g_sum, h_sum] = &mut sums[leaf];
        *g_sum = g_sum.wrapping_add((f64::from(*g) * up_g).round_ties_even() as i64);
        *h_sum = h_sum.wrapping_add((f64::from(*h) * up_h).round_ties_even() as i64);
    }
}

/// Adds the value of each row's leaf to its score. Rayon over rows.
fn add_values(scores: &mut [f64], k: usize, class: usize, values: &[f64], leaf_of: &LeafOfRows) {
    scores.par_chunks_mut(TASK_ROWS * k).enumerate().for_each(|(task, scores)| {
        for (row, score) in scores[class..].iter_mut().step_by(k).enumerate() {
            *score += values[leaf_of.of(task * TASK_ROWS + row)];
        }
    });
}

/// The leaf of a row by its bins.
fn leaf_by_bins(tree: &Tree, features: &[FeatureBins], bin: impl Fn(usize) -> usize) -> usize {
    let mut at = if tree.feature.is_empty() { -1 } else { 0 };
    while at >= 0 {
        let node = at as usize;
        let feature = tree.feature[node] as usize;
        // A value that falls into the bin.
        let value = features[feature].value_of(bin(feature));
        at = if tree.goes_left(node, value) { tree.left[node] } else { tree.right[node] };
    }
    (-1 - at) as usize
}

fn tree_of(grown: &Grown, features: &[FeatureBins], value: Vec<f64>) -> Tree {
    let child = |child: Child| match child {
        Child::Inner(node) => node as i32,
        Child::Leaf(leaf) => -1 - leaf as i32,
    };
    let mut tree = Tree { value, leaf_rows: grown.leaf_rows.clone(), ..Tree::default() };
    for inner in &grown.inner {
        let split = &inner.split;
        tree.feature.push(split.feature);
        let uppers = &features[split.feature as usize].uppers;
        tree.threshold.push(uppers.get(split.bin as usize).copied().unwrap_or(f64::INFINITY));
        // Where no training row was without a value, later ones go with the most.
        let to_most = inner.n_rows[1] >= inner.n_rows[2];
        tree.missing_left.push(if split.missing.is_some() { split.missing_left } else { to_most });
        tree.left_set.push(categories_of(split, &features[split.feature as usize]));
        tree.left.push(child(inner.left));
        tree.right.push(child(inner.right));
        tree.gain.push(split.gain);
        tree.n_rows.push(inner.n_rows[0]);
    }
    tree
}

/// Categories of the bins that go left.
fn categories_of(split: &Split, feature: &FeatureBins) -> Vec<u64> {
    let Some(categories) = &feature.categories else { return Vec::new() };
    let on_the_left =
        (0..categories.len()).filter(|bin| split.goes_left(*bin as u32)).map(|bin| categories[bin] as usize);
    let mut set = Vec::new();
    for category in on_the_left {
        set.resize(set.len().max(category / 64 + 1), 0);
        set[category / 64] |= 1 << (category % 64);
    }
    set
}
