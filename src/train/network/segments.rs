//! Gradients of runs of layers: made part by part, each turned into integers while it is in cache.

use super::lanes::Piece;
use crate::comm::{Communicator, Pending, Summable};
use crate::error::{Error, Result};
use crate::exact::{Groups, LaneGrid, NarrowGrid};
use crate::matmul::{SLAB_ROWS, WIDTH};
use crate::model::Network;
use crate::model::net::Part;
use rayon::prelude::*;
use std::ops::Range;

/// Elements that share an exponent, at most, and of a segment, at least, if there are so many: a message should take long enough for its waiting not to
/// count.
const GROUP: usize = 1 << 14;
/// Parameters of a segment that is followed by as many. What is sent last has nothing to hide behind, so the last segments are short: each is half of what is
/// left.
const LARGE: usize = 1 << 18;
/// Parts of a block that a thread makes together, at most, as runs of rows by panels: what a lane offers to them is read once and stays in the second cache.
const BLOCK: [usize; 2] = [3, 8];

/// A run of parameters, whole groups, whose gradient travels in one message.
pub(super) struct Segment {
    /// The lowest layer that one of them is of.
    pub lowest: usize,
    /// Their numbers among all.
    pub params: Range<usize>,
    parts: Vec<LayerPart>,
    /// One number a parameter: Σ over the lanes here.
    words: Vec<u32>,
    /// Σ over all lanes of the parameters of `summed`, and values of no use.
    sums: Vec<u32>,
    summed: Range<usize>,
    /// One a part.
    peaks: Vec<i32>,
    /// Of each part, what each lane here has left: (parts, lanes, parameters of the part). Empty at 32 bits.
    residual: Vec<f32>,
}

/// How gradients become integers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Grid {
    /// 32 bits, whose clamping is seen and the step redone.
    Wide(LaneGrid),
    /// Fewer, whose clamping stays with the lane.
    Narrow(NarrowGrid),
}

/// The sums of a segment on their way.
pub(super) enum UnderWay<'c> {
    Wide(Pending<'c, u32>),
    Narrow(Pending<'c, u64>),
}

/// A part of the parameters of a layer.
struct LayerPart {
    layer: usize,
    part: Part,
    group: usize,
    /// Those that are made together have the same.
    block: [usize; 4],
}

/// Cuts a network into segments, in the order in which they are ready, that is from the last layer to the first, and groups its parameters.
/// Not collective; a function of the network.
///
/// `n_residuals`: lanes here, where each keeps what it has left.
pub(super) fn segments(network: &Network, n_residuals: usize) -> (Vec<Segment>, Groups) {
    let (mut bounds, mut parts) = (vec![0], Vec::new());
    for layer in 0..network.layers().len() {
        let mut tensor = None;
        for part in network.parts(layer) {
            // A group is of one tensor.
            let is_open = tensor == Some(part.tensor) && part.range.end - bounds[bounds.len() - 2] <= GROUP;
            if is_open {
                bounds.pop();
            }
            bounds.push(part.range.end);
            tensor = Some(part.tensor);
            parts.push(LayerPart { layer, group: bounds.len() - 2, part, block: [0; 4] });
        }
    }
    into_blocks(&mut parts);
    let groups = Groups::of_bounds(bounds);
    let (mut segments, mut end) = (Vec::new(), groups.n_elements());
    for group in (0..groups.len()).rev() {
        let start = groups.range(group).start;
        if end - start >= start.clamp(GROUP, LARGE) || start == 0 {
            let first = parts.partition_point(|part| part.group < group);
            let parts = parts.split_off(first);
            let (words, peaks) = (vec![0; end - start], vec![0; parts.len()]);
            let (residual, lowest) = (vec![0.0; (end - start) * n_residuals], parts[0].layer);
            segments.push(Segment {
                lowest,
                params: start..end,
                parts,
                words,
                sums: Vec::new(),
                summed: 0..0,
                peaks,
                residual,
            });
            end = start;
        }
    }
    (segments, groups)
}

/// Says which parts are made together: as many as leave enough to share out among threads.
fn into_blocks(parts: &mut [LayerPart]) {
    let most = parts.len() / (8 * rayon::current_num_threads());
    let runs = BLOCK[0].min(1 + most / 8);
    let panels = (most / runs).clamp(1, BLOCK[1]);
    for LayerPart { layer, part: Part { tensor, at: [panel, row], .. }, block, .. } in parts {
        *block = [*layer, *tensor, *panel / panels, *row / (runs * SLAB_ROWS)];
    }
}

/// What gradients are made from.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub network: &'a Network,
    /// Lane after lane.
    pub pieces: &'a [Piece],
    /// The lanes here that have rows to offer, and their pieces.
    pub lanes: &'a [(usize, Range<usize>)],
    pub moments: &'a [Vec<f32>],
    pub grid: Grid,
    /// One a group.
    pub exponents: &'a [i32],
    /// Peaks are all that is wanted: nothing is added, and nothing left.
    pub only_peaks: bool,
}

impl Segment {
    /// One a part.
    fn tasks(&mut self) -> impl Iterator<Item = Task<'_>> {
        self.words.resize(self.params.len(), 0);
        let n_residuals = self.residual.len() / self.words.len();
        let (mut words, mut residual) = (&mut self.words[..], &mut self.residual[..]);
        self.parts.iter().zip(&mut self.peaks).map(move |(part, peak)| {
            let n = part.part.range.len();
            let words = words.split_off_mut(..n).expect("parts make up a segment");
            Task {
                part,
                words,
                peak,
                residual: residual.split_off_mut(..n * n_residuals).expect("as many a parameter"),
            }
        })
    }

    /// Raises peaks of groups to those of the last [`enter`]. Not collective.
    pub fn peaks(&self, peaks: &mut [i32]) {
        for (part, peak) in self.parts.iter().zip(&self.peaks) {
            peaks[part.group] = peaks[part.group].max(*peak);
        }
    }

    /// Starts adding the words over all ranks. Collective.
    ///
    /// `bounds`: where each rank's part begins, and where the last one's ends; of one part, every rank gets the whole.
    pub fn start<'c>(&mut self, comm: &'c Communicator, grid: Grid, bounds: &[usize]) -> Result<UnderWay<'c>> {
        let parts = bounds.windows(2).map(|pair| pair[0] - self.params.start..pair[1] - self.params.start);
        match grid {
            Grid::Wide(_) => {
                let counts: Vec<usize> = parts.map(|part| part.len()).collect();
                let (room, words) = (std::mem::take(&mut self.sums), std::mem::take(&mut self.words));
                start_sum(comm, room, words, &counts).map(UnderWay::Wide)
            }
            Grid::Narrow(grid) => {
                let counts: Vec<usize> = parts.clone().map(|part| grid.message_len(part.len())).collect();
                let mut message = vec![0; counts.iter().sum()];
                let mut rest = &mut message[..];
                for (part, len) in parts.zip(&counts) {
                    let (of_part, after) = rest.split_at_mut(*len);
                    grid.pack(&self.words[part], of_part);
                    rest = after;
                }
                start_sum(comm, Vec::new(), message, &counts).map(UnderWay::Narrow)
            }
        }
    }

    /// Takes the words for the sums: there is no other rank. Not collective.
    pub fn finish_alone(&mut self) {
        std::mem::swap(&mut self.sums, &mut self.words);
        self.summed = self.params.clone();
    }

    /// Takes in the sums of the parameters `mine`, this rank's part. Not collective: each rank waits when it likes.
    pub fn finish(&mut self, under_way: UnderWay<'_>, grid: Grid, mine: Range<usize>) -> Result<()> {
        match (under_way, grid) {
            (UnderWay::Narrow(pending), Grid::Narrow(grid)) => {
                self.sums.resize(mine.len(), 0);
                grid.unpack(&pending.wait()?, &mut self.sums);
            }
            (UnderWay::Wide(pending), _) => [self.sums, self.words] = pending.wait_with_buffers()?,
            _ => return Err(Error::internal("a message of another width")),
        }
        self.summed = mine;
        Ok(())
    }

    /// Sums of some parameters (their numbers among all), which are of this rank's part and of one group, as float32. Not collective.
    pub fn sums(&self, range: Range<usize>, grid: Grid, exponent: i32, out: &mut [f32]) {
        let words = &self.sums[range.start - self.summed.start..range.end - self.summed.start];
        match grid {
            Grid::Wide(grid) => grid.finish(words, exponent, out),
            Grid::Narrow(grid) => grid.finish(words, exponent, out),
        }
    }

    /// Visits what a lane here has left, parameters in order; nothing at 32 bits.
    pub fn each_residual(&mut self, lane: usize, mut visit: impl FnMut(&mut [f32])) {
        let n_lanes = self.residual.len() / self.params.len().max(1);
        for part in self.parts.iter().filter(|_| n_lanes > 0) {
            let (n, first) = (part.part.range.len(), part.part.range.start - self.params.start);
            let start = first * n_lanes + lane * n;
            visit(&mut self.residual[start..start + n]);
        }
    }
}

/// Adds what all ranks have of a message, and gives each rank its part; one part is for all.
fn start_sum<'c, T: Summable>(
    comm: &'c Communicator,
    room: Vec<T>,
    message: Vec<T>,
    counts: &[usize],
) -> Result<Pending<'c, T>> {
    match counts {
        [_] => comm.start_all_reduce_sum(message),
        _ => comm.start_reduce_scatter_sum_in(room, message, counts),
    }
}

impl UnderWay<'_> {
    /// Moves the message on. Not collective.
    pub fn progress(&mut self) -> Result<()> {
        match self {
            UnderWay::Wide(pending) => pending.progress(),
            UnderWay::Narrow(pending) => pending.progress(),
        }
    }
}

/// Makes the gradients of the lanes here, and their words at these exponents. Not collective; rayon over blocks of parts, nearly in the order of the
/// parameters, so that they are stepped by the thread that made them, most of the time.
pub(super) fn enter(segments: &mut [Segment], made: &Made<'_>) {
    let mut tasks: Vec<Task<'_>> = segments.iter_mut().rev().flat_map(Segment::tasks).collect();
    tasks.sort_unstable_by_key(|task| (task.part.block, task.part.part.range.start));
    tasks.par_chunk_by_mut(|one, next| one.part.block == next.part.block).for_each(|block| {
        for task in &mut *block {
            *task.peak = 0;
            task.words.fill(0);
        }
        let mut slab = [0.0f32; SLAB_ROWS * WIDTH];
        for (lane, pieces) in made.lanes {
            for task in &mut *block {
                task.enter(made, *lane, &made.pieces[pieces.clone()], &mut slab);
            }
        }
    });
}

/// A part, and what is its own.
struct Task<'a> {
    part: &'a LayerPart,
    words: &'a mut [u32],
    peak: &'a mut i32,
    residual: &'a mut [f32],
}

impl Task<'_> {
    /// `slab`: room for a gradient.
    fn enter(&mut self, made: &Made<'_>, lane: usize, pieces: &[Piece], slab: &mut [f32]) {
        let Task { part: LayerPart { layer, part, group, .. }, words, peak, residual } = self;
        let (n, exponent) = (words.len(), made.exponents[*group]);
        let slab = &mut slab[..n];
        let strips = pieces.iter().map(|piece| &piece.strip);
        made.network.gradient(*layer, part, made.moments, strips, slab);
        let of_lane = match made.grid {
            Grid::Wide(grid) if !made.only_peaks => grid.add(words, slab, exponent),
            _ => LaneGrid::peak(slab),
        };
        **peak = (**peak).max(of_lane);
        if let (Grid::Narrow(grid), false) = (made.grid, made.only_peaks) {
            grid.add(words, slab, &mut residual[lane * n..(lane + 1) * n], exponent);
        }
    }
}
