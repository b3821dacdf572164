//! The nodes of few rows: each is grown to the end by one rank, with the rows that the others have of it.

use super::problem::Problem;
use super::rows::Places;
use super::subtree::{Builder, Root};
use super::top::Below;
use super::tree::Grown;
use super::{Driver, sync};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use rayon::prelude::*;

/// Grows nodes. Returns what is below each, on every rank. Collective.
pub(super) fn grow<P: Problem>(
    comm: &Communicator,
    driver: &Driver<'_>,
    problem: &P,
    below: Vec<Below<P::Item>>,
) -> Result<Vec<Grown>> {
    let n = below.len();
    // The largest first, so that what is left at the end is small.
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|number| std::cmp::Reverse(below[*number].draws));
    // Of a tree whose rows are all with one rank, that rank.
    let rank_of = |tree| driver.scope.lane_of(tree).map(|lane| lane.rank);
    let stays: Vec<Option<usize>> = below.iter().map(|node| rank_of(node.root.tree)).collect();
    let owners = deal(&below, &order, &stays, comm.size());
    let mut grown: Vec<Option<Grown>> = (0..n).map(|_| None).collect();
    let mut nodes: Vec<Option<Below<P::Item>>> = below.into_iter().map(Some).collect();
    if comm.size() == 1 || stays.iter().all(Option::is_some) {
        let places = driver.rows.bins.places();
        let mine = order.iter().filter(|number| owners[**number] == comm.rank());
        let tasks: Vec<_> = mine.filter_map(|number| Some((*number, nodes[*number].take()?))).collect();
        let done: Vec<_> = tasks
            .into_par_iter()
            .with_max_len(1)
            .map_init(
                || builder(driver, problem),
                |builder, (number, mut node)| (number, builder.grow(&node.root, places, &mut node.items)),
            )
            .collect();
        done.into_iter().for_each(|(number, tree)| grown[number] = Some(tree));
    } else {
        for wave in waves::<P>(driver, comm.size(), &nodes, &order, &owners) {
            for (number, tree) in grow_wave(comm, driver, problem, &mut nodes, &wave, &owners)? {
                grown[number] = Some(tree);
            }
        }
    }
    share(comm, grown)
}

fn builder<'a, P: Problem>(driver: &Driver<'a>, problem: &'a P) -> Builder<'a, P> {
    Builder::new(problem, driver.config, &driver.rows.bins.features)
}

/// The rank of each node: the next one goes to the rank that has least to do.
fn deal<T>(below: &[Below<T>], order: &[usize], stays: &[Option<usize>], size: usize) -> Vec<usize> {
    let mut owners = vec![0; below.len()];
    let mut work = vec![0u64; size];
    for number in order {
        let least = (0..size).min_by_key(|rank| (work[*rank], *rank)).unwrap_or(0);
        owners[*number] = stays[*number].unwrap_or(least);
        work[owners[*number]] += below[*number].draws;
    }
    owners
}

/// Nodes whose rows travel together: no rank gets more than there is room for, but for one node.
fn waves<P: Problem>(
    driver: &Driver<'_>,
    size: usize,
    nodes: &[Option<Below<P::Item>>],
    order: &[usize],
    owners: &[usize],
) -> Vec<Vec<usize>> {
    let row_bytes = row_bytes::<P>(driver) as u64;
    let mut waves = vec![Vec::new()];
    let mut bytes = vec![0u64; size];
    for number in order {
        // Rows are no more than draws.
        let more = nodes[*number].as_ref().map_or(0, |node| node.draws) * row_bytes;
        let of_owner = &mut bytes[owners[*number]];
        if *of_owner > 0 && *of_owner + more > driver.room {
            bytes.fill(0);
            waves.push(Vec::new());
        }
        bytes[owners[*number]] += more;
        waves.last_mut().expect("one").push(*number);
    }
    waves
}

fn row_bytes<P: Problem>(driver: &Driver<'_>) -> usize {
    P::ITEM_BYTES + driver.rows.bins.features.len()
}

/// Brings the rows of some nodes to their ranks, which grow them. Returns those of this rank. Collective.
fn grow_wave<P: Problem>(
    comm: &Communicator,
    driver: &Driver<'_>,
    problem: &P,
    nodes: &mut [Option<Below<P::Item>>],
    wave: &[usize],
    owners: &[usize],
) -> Result<Vec<(usize, Grown)>> {
    let taken: Vec<(usize, Below<P::Item>)> =
        wave.iter().filter_map(|number| Some((*number, nodes[*number].take()?))).collect();
    let pack = |rank: usize| {
        let mut part = Vec::new();
        for (_, node) in taken.iter().filter(|(number, _)| owners[*number] == rank) {
            part.extend_from_slice(&(node.items.len() as u64).to_le_bytes());
            part.reserve(node.items.len() * row_bytes::<P>(driver));
            node.items.iter().for_each(|item| P::put(item, &mut part));
            node.items.iter().for_each(|item| part.extend_from_slice(driver.rows.bins.row(P::row(item))));
        }
        part
    };
    let parts: Vec<Vec<u8>> = (0..comm.size()).into_par_iter().map(pack).collect();
    let roots: Vec<_> = taken
        .into_iter()
        .filter(|(number, _)| owners[*number] == comm.rank())
        .map(|(n, node)| (n, node.root))
        .collect();
    let (received, bounds) = sync::send_rows(comm, parts)?;
    let from = bounds.into_iter().map(|bounds| &received[bounds]).collect();
    let d = driver.rows.bins.features.len();
    let tasks = comm.agree(unpacked::<P>(roots, from, d))?;
    let finish = |builder: &mut Builder<'_, P>, (number, root, of_node): Unpacked<'_>| {
        let mut items = Vec::new();
        for (bytes, _) in &of_node {
            let first = items.len();
            let taken = bytes.chunks_exact(P::ITEM_BYTES).enumerate();
            items.extend(taken.map(|(at, item)| P::take(item, (first + at) as u32)));
        }
        let bins: Vec<u8> = of_node.iter().flat_map(|(_, bins)| bins.iter().copied()).collect();
        let places = Places::ByRow { bins: &bins, stride: d };
        (number, builder.grow(&root, places, &mut items))
    };
    Ok(tasks.into_par_iter().with_max_len(1).map_init(|| builder(driver, problem), finish).collect())
}

/// A node with its items and bins as they came from each rank.
type Unpacked<'a> = (usize, Root, Vec<(&'a [u8], &'a [u8])>);

/// Takes apart what came from each rank: of each node how many rows, their items, their bins.
fn unpacked<'a, P: Problem>(roots: Vec<(usize, Root)>, mut from: Vec<&'a [u8]>, d: usize) -> Result<Vec<Unpacked<'a>>> {
    let lost = || Error::internal("rows of other ranks were not received as they were sent");
    let mut nodes = Vec::with_capacity(roots.len());
    for (number, root) in roots {
        let mut of_node = Vec::with_capacity(from.len());
        for rest in &mut from {
            let (n, after) = rest.split_first_chunk().ok_or_else(lost)?;
            let n = u64::from_le_bytes(*n) as usize;
            let (items, after) = after.split_at_checked(n * P::ITEM_BYTES).ok_or_else(lost)?;
            let (bins, after) = after.split_at_checked(n * d).ok_or_else(lost)?;
            of_node.push((items, bins));
            *rest = after;
        }
        nodes.push((number, root, of_node));
    }
    if from.iter().all(|rest| rest.is_empty()) { Ok(nodes) } else { Err(lost()) }
}

/// Everything for every rank. Collective.
fn share(comm: &Communicator, mut grown: Vec<Option<Grown>>) -> Result<Vec<Grown>> {
    if comm.size() > 1 {
        let mut mine = Vec::new();
        for (number, tree) in grown.iter_mut().enumerate() {
            if let Some(tree) = tree.take() {
                mine.extend_from_slice(&(number as u64).to_le_bytes());
                tree.put(&mut mine);
            }
        }
        let all = sync::share_grown(comm, mine)?;
        comm.agree(received(&all, &mut grown))?;
    }
    let lost = || Error::internal("a node whose tree no rank has grown");
    comm.agree(grown.into_iter().map(|tree| tree.ok_or_else(lost)).collect())
}

/// Puts trees from bytes in their places.
fn received(mut rest: &[u8], grown: &mut [Option<Grown>]) -> Result<()> {
    let lost = || Error::internal("trees of other ranks were not received as they were sent");
    while !rest.is_empty() {
        let (number, after) = rest.split_first_chunk().ok_or_else(lost)?;
        let number = u64::from_le_bytes(*number) as usize;
        rest = after;
        *grown.get_mut(number).ok_or_else(lost)? = Some(Grown::take(&mut rest).ok_or_else(lost)?);
    }
    Ok(())
}
