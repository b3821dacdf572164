//! The rounds of boosting: pairs, trees, leaf values, scores.

use super::super::checkpoint::{Items, Key};
use super::super::early_stop::is_still;
use super::super::prepare::objective;
use super::super::sums::{Total, sum_blocks};
use super::super::{Observer, Progress, Streamed, TrainConfig};
use super::bins::BoostRows;
use super::continued::is_over;
use super::loss_of;
use super::pairs::{Pairs, Rounding, round_pairs};
use super::quantiles::Quantiles;
use crate::comm::Communicator;
use crate::config::BoostConfig;
use crate::data::binned::FeatureBins;
use crate::error::{Error, Result};
use crate::exact::BlockSums;
use crate::grow::{
    CategoryConfig, Child, ColumnSample, Grower, Grown, LeafOfRows, Records, Split, TreeConfig, leaf_value,
};
use crate::model::{Boosted, Tree};
use crate::objective::PairLoss;
use crate::rng::{Draws, FastDraws, Stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
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

/// What a checkpoint holds, beside the scores of rows: state after some rounds.
#[derive(Deserialize)]
struct Kept {
    boosted: Boosted,
    so_far: SoFar,
}

/// The same, borrowed.
#[derive(Serialize)]
struct Keep<'a> {
    boosted: &'a Boosted,
    so_far: &'a SoFar,
}

/// What is remembered of the rounds so far.
#[derive(Default, Serialize, Deserialize)]
struct SoFar {
    losses: Vec<f64>,
    valid_losses: Vec<f64>,
    seconds: Vec<f64>,
    /// The least loss of the rows that were held out, and the rounds it took.
    best: Option<(f64, usize)>,
    /// Nothing more is to be added.
    is_over: bool,
}

/// A boosting under way.
pub(super) struct Boosting<'a> {
    comm: &'a Communicator,
    rows: &'a BoostRows<'a>,
    config: &'a TrainConfig,
    boost: &'a BoostConfig,
    loss: PairLoss,
    seed: u64,
    grower: Grower,
    tree_config: TreeConfig,
    /// (rows here, scores)
    scores: Vec<f64>,
    /// w·∂loss, w·∂²loss, by score: of the rows here.
    pairs: Vec<Vec<[f32; 2]>>,
    /// Of a loss whose leaves are quantiles.
    quantiles: Option<Quantiles<'a>>,
    boosted: Boosted,
}

impl<'a> Boosting<'a> {
    /// Scores start where a model without features has its least loss, or where the model that is continued left them. Collective.
    pub(super) fn new(
        comm: &'a Communicator,
        rows: &'a BoostRows<'a>,
        records: Records,
        config: &'a TrainConfig,
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
            config,
            boost,
            loss,
            seed: config.seed,
            grower: Grower::new(comm, records, &tree_config),
            tree_config,
            scores: match &rows.base {
                Some(base) => base.scores.clone(),
                None => start.iter().copied().cycle().take(n_here * k).collect(),
            },
            pairs: vec![vec![[0.0; 2]; n_here]; k],
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
        let mut so_far = SoFar::default();
        let mut first = 0;
        // That no row was held out is said before the first round.
        let held_out_loss = (self.boost.early_stop > 0).then(|| self.valid_loss()).transpose()?;
        let mut key = Key::new(self.config, self.rows.n_rows, &self.rows.input_digest.to_hex())?;
        if let Some(base) = &self.rows.base {
            (so_far.losses, so_far.valid_losses) = (base.history("loss"), base.history("valid_loss"));
            first = base.boosted.n_rounds() as u64;
            so_far.best = held_out_loss.map(|loss| (loss, first as usize));
            so_far.is_over = base.is_over;
            let trees = postcard::to_allocvec(&base.boosted).map_err(|e| Error::internal(e.to_string()))?;
            key = key.and(&trees);
        }
        let mut session = watch.keeper().open(self.comm, key, watch)?;
        let rows_here = self.rows.first_row..self.rows.first_row + self.rows.y.len() as u64;
        if let Some((kept, scores)) = session.take::<Kept>(self.comm, rows_here.clone(), k)? {
            (self.boosted, so_far, first) = (kept.boosted, kept.so_far, session.resumed_step());
            self.scores = scores;
        }
        let begin = first;
        for round in first..self.boost.rounds {
            if so_far.is_over {
                break;
            }
            let began = Instant::now();
            let loss = self.differentiate()?;
            so_far.losses.push(loss);
            for class in 0..k {
                let tree_number = round * k as u64 + class as u64;
                if class == 0 && (round == begin || self.boost.row_sample < 1.0) {
                    self.choose_rows(round)?;
                }
                let tree = self.add_tree(tree_number, class)?;
                self.boosted.trees.push(tree);
            }
            so_far.seconds.push(began.elapsed().as_secs_f64());
            watch.progress(&Progress {
                step: round + 1,
                of_steps: self.boost.rounds,
                loss,
                gradient: None,
                learning_rate: None,
            });
            if self.boost.early_stop > 0 {
                let loss = self.valid_loss()?;
                so_far.valid_losses.push(loss);
                so_far.is_over |= is_still(&mut so_far.best, loss, round as usize + 1, self.boost.early_stop);
            }
            so_far.is_over |= is_over(&self.boosted, self.boost);
            let is_last = so_far.is_over || round + 1 == self.boost.rounds;
            session.after(self.comm, round + 1, is_last, || {
                let numbers = Cow::Borrowed(&self.scores[..]);
                Ok((Keep { boosted: &self.boosted, so_far: &so_far }, Items { range: rows_here.clone(), numbers }))
            })?;
        }
        let SoFar { losses, valid_losses, seconds, best, .. } = so_far;
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
        let mut rest: Vec<&mut [[f32; 2]]> = self.pairs.iter_mut().map(|pairs| &mut pairs[..]).collect();
        let mut take = |n: usize| -> Vec<&mut [[f32; 2]]> {
            rest.iter_mut().map(|rest| rest.split_off_mut(..n).unwrap_or_default()).collect()
        };
        let tasks: Vec<_> = self.rows.blocks.iter().map(|block| (block.clone(), take(block.len()))).collect();
        let scores = &self.scores;
        let of_blocks: Vec<f64> = tasks
            .into_par_iter()
            .map_init(Room::default, |Room { y, weight, pairs }, (block, mut by_score)| {
                let (y, weight) = (rows.y.rows(block.clone(), y), rows.weight.rows(block.clone(), weight));
                let scores = &scores[block.start * k..block.end * k];
                if let [pairs] = &mut by_score[..] {
                    return loss.pairs(y, weight, scores, pairs);
                }
                pairs.resize(block.len() * k, [0.0; 2]);
                let sum = loss.pairs(y, weight, scores, pairs);
                for (score, of_score) in by_score.iter_mut().enumerate() {
                    of_score.iter_mut().zip(pairs.iter().skip(score).step_by(k)).for_each(|(to, pair)| *to = *pair);
                }
                sum
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
        let pairs = Pairs { pairs: &self.pairs[class], first_row: self.rows.first_row, n_rows: self.rows.n_rows };
        let bounds = pairs.agree_bounds(self.comm)?;
        let grown = match bounds.gradient {
            Some(_) => {
                let draws = FastDraws::new(Draws::new(self.seed, Stream::Rounding), number);
                let rounding = Rounding { pairs: &pairs, bounds, draws };
                let scale = rounding.scale();
                self.grower.grow(self.comm, number, scale, |rows, pairs| round_pairs(&rounding, rows, pairs))?
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
                let sums = pairs.leaf_sums(self.comm, bounds, self.grower.leaf_of(), grown.n_leaves())?;
                sums.iter().map(|[g, h]| leaf_value(*g, self.loss.leaf_hessian(*g, *h), l1, l2)).collect()
            }
        };
        let within = values.into_iter().zip(&grown.bounds).map(|(value, bounds)| bounds.clamp(value));
        let values: Vec<f64> = within.map(|value| self.boost.shrinkage * value).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::data("the value of a leaf is beyond 3e38: rescale the target"));
        }
        add_values(&mut self.scores, k, class, &values, self.grower.leaf_of());
        Ok(tree_of(&grown, &self.grower.records().features, values))
    }
}

/// Of a block, what is not stored so.
#[derive(Default)]
struct Room {
    y: Vec<f64>,
    weight: Vec<f64>,
    /// (rows, scores)
    pairs: Vec<[f32; 2]>,
}

/// Rows of a task.
const TASK_ROWS: usize = 1 << 14;

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
