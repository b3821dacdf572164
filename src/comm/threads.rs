//! A world of threads in this process. Since one lock sees who waits where and who has finished, a
//! call that can never be answered is found exactly, without clocks, and named with every rank's
//! last call.
//!
//! *Meeting*: each rank of a group lays down its call and a copy of its data; the last to arrive
//! compares the calls, combines the data outside the lock, and publishes one result for all.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Communicator;
use super::call::{Call, by_rank, mismatch};
use super::solo::fill;
use super::transport::{ElementType, OwnedSlice, ReduceOp, Slice, SliceMut, Transport};
use crate::error::{Error, Result};

/// Runs `body` once per rank on `size` threads, each with a rayon pool of `threads` threads; results
/// in rank order.
///
/// No call can hang: ranks that wait for one another in vain, or for a rank that has returned or
/// panicked, all get an error that names every rank's last call. The error returned is that of the
/// lowest rank that failed by itself; a panic is an `Internal` error, a thread that the system refuses a `Usage` one.
///
/// # Panics
/// If `size` is 0.
pub fn run_threads<R: Send>(
    size: usize,
    threads: usize,
    body: impl Fn(&Communicator) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    run_ranks(size, threads, |_, _| (), body).map_err(|(_, error)| error)
}

/// As [`run_threads`]; the error comes with the rank it belongs to, and `started(rank, thread)` is
/// called first on every thread of every rank's pool.
pub fn run_ranks<R: Send>(
    size: usize,
    threads: usize,
    started: impl Fn(usize, usize) + Send + Sync + Clone + 'static,
    body: impl Fn(&Communicator) -> Result<R> + Sync,
) -> std::result::Result<Vec<R>, (usize, Error)> {
    assert!(size > 0, "a world has at least one rank");
    let hub = Arc::new(Hub::new(size));
    let run_rank = |rank: usize| {
        let started = started.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |thread| format!("rank {rank} thread {thread}"))
            .start_handler(move |thread| started(rank, thread))
            .build()
            .map_err(|e| Error::usage(format!("cannot start {} threads: {e}", threads.max(1))));
        let run = || pool?.install(|| body(&Communicator::new(Box::new(ThreadRank::world(&hub, rank)))));
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
        hub.finish(rank, result.as_ref().err());
        result
    };
    let results: Vec<Result<R>> = std::thread::scope(|scope| {
        let (run_rank, hub) = (&run_rank, &hub);
        let start = |rank: usize| {
            let refused = |e| {
                let error = Error::usage(format!("cannot start a thread: {e}"));
                hub.finish(rank, Some(&error)); // those that did start must not wait for it
                error
            };
            std::thread::Builder::new().spawn_scoped(scope, move || run_rank(rank)).map_err(refused)
        };
        let handles: Vec<_> = (0..size).map(start).collect();
        handles.into_iter().map(|h| h?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let first = |own: bool| {
        let failed = |(rank, result): (usize, &Result<R>)| match result {
            Err(e) if !own || e.rank().is_none_or(|r| r == rank) => Some((rank, e.clone())),
            _ => None,
        };
        results.iter().enumerate().find_map(failed)
    };
    match first(true).or_else(|| first(false)) {
        Some(failure) => Err(failure),
        None => Ok(results.into_iter().filter_map(Result::ok).collect()),
    }
}

/// What all ranks share.
struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// By rank of the world.
    ranks: Vec<RankState>,
    groups: Vec<Group>,
    /// Messages sent and not yet received, by (group, from, to, tag).
    mail: BTreeMap<(usize, usize, usize, u32), VecDeque<OwnedSlice>>,
    /// Set once nobody can go on: the answer to every later call.
    stuck: Option<Error>,
}

struct RankState {
    doing: Doing,
    last: Option<Call>,
}

#[derive(Clone, Debug)]
enum Doing {
    Running,
    /// Waits for the other members of a group.
    Meeting {
        group: usize,
    },
    /// Waits for a message from a rank of the world.
    Mail {
        from: usize,
    },
    Finished {
        failure: Option<Error>,
    },
}

struct Group {
    /// Ranks of the world, by rank in the group.
    members: Vec<usize>,
    arrived: Vec<Option<Arrival>>,
    /// Meetings held so far.
    held: u64,
    outcome: Arc<Result<Outcome>>,
    /// Set when a member failed: no meeting can be held any more.
    broken: Option<Error>,
}

struct Arrival {
    call: Call,
    action: Action,
    data: OwnedSlice,
}

/// What a meeting does with the data.
#[derive(Clone, Copy)]
enum Action {
    Barrier,
    /// The root's data for all.
    Broadcast(usize),
    Reduce(ReduceOp),
    /// One after the other, in rank order.
    Concatenate,
    Split(u32),
}

enum Outcome {
    Data(OwnedSlice),
    /// By rank: its new group and its rank there, and that group's size.
    Groups(Vec<(usize, usize, usize)>),
}

impl Group {
    fn new(members: Vec<usize>) -> Group {
        let arrived = members.iter().map(|_| None).collect();
        let outcome = Arc::new(Ok(Outcome::Data(ElementType::U8.empty())));
        Group { members, arrived, held: 0, outcome, broken: None }
    }
}

impl Hub {
    fn new(size: usize) -> Hub {
        let ranks = (0..size).map(|_| RankState { doing: Doing::Running, last: None }).collect();
        let groups = vec![Group::new((0..size).collect())];
        let state = State { ranks, groups, mail: BTreeMap::new(), stuck: None };
        Hub { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The lock is never held while foreign code runs, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// `rank` makes no further call. If it failed, whoever waits for it learns why.
    fn finish(&self, rank: usize, failure: Option<&Error>) {
        let mut state = self.lock();
        state.ranks[rank].doing = Doing::Finished { failure: failure.cloned() };
        if let Some(failure) = failure {
            let error = passed_on(rank, failure);
            for group in 0..state.groups.len() {
                if state.groups[group].members.contains(&rank) {
                    state.groups[group].broken.get_or_insert_with(|| error.clone());
                    state.release(|doing| matches!(doing, Doing::Meeting { group: g } if *g == group));
                }
            }
            state.release(|doing| matches!(doing, Doing::Mail { from } if *from == rank));
        }
        state.look_for_deadlock();
        drop(state);
        self.changed.notify_all();
    }
}

/// What the others get when `rank` failed without their agreement.
fn passed_on(rank: usize, failure: &Error) -> Error {
    match failure.rank() {
        Some(origin) if origin != rank => failure.clone(),
        _ => Error::new(failure.kind(), format!("stopped because rank {rank} failed: {failure}")).on_rank(rank),
    }
}

impl State {
    /// Lets the ranks that wait for something of this kind look again.
    fn release(&mut self, waits: impl Fn(&Doing) -> bool) {
        for rank in &mut self.ranks {
            if waits(&rank.doing) {
                rank.doing = Doing::Running;
            }
        }
    }

    /// If nobody runs and somebody waits, nobody ever will: says so to all who wait.
    fn look_for_deadlock(&mut self) {
        let running = self.ranks.iter().any(|r| matches!(r.doing, Doing::Running));
        let waiting = self.ranks.iter().any(|r| matches!(r.doing, Doing::Meeting { .. } | Doing::Mail { .. }));
        if running || !waiting || self.stuck.is_some() {
            return;
        }
        let texts: Vec<String> = self.ranks.iter().map(RankState::text).collect();
        let failed = self.ranks.iter().enumerate().find_map(|(rank, state)| match &state.doing {
            Doing::Finished { failure: Some(e) } => Some(passed_on(rank, e)),
            _ => None,
        });
        self.stuck =
            Some(failed.unwrap_or_else(|| {
                Error::comm(format!("the ranks wait for one another in vain: {}", by_rank(&texts)))
            }));
        self.release(|doing| !matches!(doing, Doing::Finished { .. }));
    }

    /// The reason why a call on `group` cannot be answered, if there is one.
    fn refusal(&self, group: usize) -> Option<Error> {
        self.stuck.clone().or_else(|| self.groups[group].broken.clone())
    }
}

impl RankState {
    fn text(&self) -> String {
        let last = self.last.map_or("no call yet".to_string(), |call| call.to_string());
        match self.doing {
            Doing::Finished { .. } => format!("finished (last: {last})"),
            Doing::Running => format!("running (last: {last})"),
            Doing::Meeting { .. } | Doing::Mail { .. } => last,
        }
    }
}

/// One rank's view of one group.
struct ThreadRank {
    hub: Arc<Hub>,
    group: usize,
    rank: usize,
    size: usize,
    world_rank: usize,
    call: Cell<Option<Call>>,
}

impl ThreadRank {
    fn world(hub: &Arc<Hub>, rank: usize) -> ThreadRank {
        let size = hub.lock().ranks.len();
        ThreadRank { hub: hub.clone(), group: 0, rank, size, world_rank: rank, call: Cell::new(None) }
    }

    fn announced(&self) -> Call {
        self.call.get().expect("Communicator announces every call")
    }

    /// Waits until every member of the group is here; all get the same outcome.
    fn meet(&self, action: Action, data: OwnedSlice) -> Result<Arc<Result<Outcome>>> {
        let call = self.announced();
        let mut state = self.hub.lock();
        state.ranks[self.world_rank].last = Some(call);
        if let Some(error) = state.refusal(self.group) {
            return Err(error);
        }
        let group = &mut state.groups[self.group];
        group.arrived[self.rank] = Some(Arrival { call, action, data });
        if group.arrived.iter().all(Option::is_some) {
            let arrivals: Vec<Arrival> = group.arrived.iter_mut().filter_map(Option::take).collect();
            drop(state);
            return Ok(self.conclude(arrivals));
        }
        let held = group.held;
        state.ranks[self.world_rank].doing = Doing::Meeting { group: self.group };
        state.look_for_deadlock();
        if state.stuck.is_some() {
            self.hub.changed.notify_all();
        }
        loop {
            if state.groups[self.group].held != held {
                return Ok(state.groups[self.group].outcome.clone());
            }
            if let Some(error) = state.refusal(self.group) {
                return Err(error);
            }
            state = self.hub.wait(state);
        }
    }

    /// The last to arrive does the work of the meeting and lets the others go.
    fn conclude(&self, arrivals: Vec<Arrival>) -> Arc<Result<Outcome>> {
        let first = arrivals[0].call.fingerprint();
        let same = arrivals.iter().all(|a| a.call.fingerprint() == first);
        let outcome = if same {
            Ok(self.combine(arrivals))
        } else {
            Err(mismatch(&arrivals.iter().map(|a| a.call.to_string()).collect::<Vec<_>>()))
        };
        let outcome = Arc::new(outcome);
        let mut state = self.hub.lock();
        let group = &mut state.groups[self.group];
        group.held += 1;
        group.outcome = outcome.clone();
        state.release(|doing| matches!(doing, Doing::Meeting { group } if *group == self.group));
        drop(state);
        self.hub.changed.notify_all();
        outcome
    }

    /// The calls are equal: combines the data.
    fn combine(&self, arrivals: Vec<Arrival>) -> Outcome {
        let action = arrivals[0].action;
        let colors: Vec<Action> = arrivals.iter().map(|a| a.action).collect();
        let mut parts = arrivals.into_iter().map(|a| a.data);
        let mut first = || parts.next().expect("a group has at least one member");
        match action {
            Action::Barrier => Outcome::Data(first()),
            Action::Broadcast(root) => Outcome::Data(parts.nth(root).expect("the root was checked")),
            Action::Reduce(op) => {
                let mut total = first();
                parts.for_each(|part| total.reduce(&part, op));
                Outcome::Data(total)
            }
            Action::Concatenate => {
                let mut all = first();
                parts.for_each(|part| all.append(&part));
                Outcome::Data(all)
            }
            Action::Split(_) => Outcome::Groups(self.new_groups(&colors)),
        }
    }

    fn new_groups(&self, actions: &[Action]) -> Vec<(usize, usize, usize)> {
        let color = |action: &Action| match action {
            Action::Split(color) => *color,
            _ => unreachable!("equal calls have equal actions"),
        };
        let mut state = self.hub.lock();
        let mut made: Vec<(u32, usize)> = Vec::new();
        let mut places = Vec::with_capacity(actions.len());
        for (rank, action) in actions.iter().enumerate() {
            let wanted = color(action);
            let group = match made.iter().find(|(c, _)| *c == wanted) {
                Some(&(_, group)) => group,
                None => {
                    state.groups.push(Group::new(Vec::new()));
                    made.push((wanted, state.groups.len() - 1));
                    state.groups.len() - 1
                }
            };
            let world_rank = state.groups[self.group].members[rank];
            let members = &mut state.groups[group].members;
            places.push((group, members.len(), 0));
            members.push(world_rank);
            state.groups[group].arrived.push(None);
        }
        for place in &mut places {
            place.2 = state.groups[place.0].members.len();
        }
        places
    }

    /// The combined data of a meeting, `buf.len()` elements from `first` on.
    fn take(&self, action: Action, data: OwnedSlice, buf: &mut SliceMut<'_>, first: usize) -> Result<()> {
        match &*self.meet(action, data)? {
            Ok(Outcome::Data(all)) => {
                buf.copy_from(all, first);
                Ok(())
            }
            Ok(Outcome::Groups(_)) => unreachable!("only a split makes groups"),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Transport for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn checks_calls(&self, call: &Call) -> bool {
        self.call.set(Some(*call));
        true
    }

    fn barrier(&self) -> Result<()> {
        self.meet(Action::Barrier, ElementType::U8.empty())?.as_ref().as_ref().map(|_| ()).map_err(Error::clone)
    }

    fn broadcast(&self, mut buf: SliceMut<'_>, root: usize) -> Result<()> {
        let data = if self.rank == root { buf.as_slice().to_owned() } else { buf.as_slice().element().empty() };
        self.take(Action::Broadcast(root), data, &mut buf, 0)
    }

    fn all_reduce(&self, mut buf: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        let data = buf.as_slice().to_owned();
        self.take(Action::Reduce(op), data, &mut buf, 0)
    }

    fn reduce_scatter(&self, send: Slice<'_>, counts: &[usize], mut recv: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        let first = counts[..self.rank].iter().sum();
        self.take(Action::Reduce(op), send.to_owned(), &mut recv, first)
    }

    fn all_gather(&self, send: Slice<'_>, _counts: &[usize], mut recv: SliceMut<'_>) -> Result<()> {
        self.take(Action::Concatenate, send.to_owned(), &mut recv, 0)
    }

    fn send(&self, buf: Slice<'_>, to: usize, tag: u32) -> Result<()> {
        let mut state = self.hub.lock();
        state.ranks[self.world_rank].last = Some(self.announced());
        if let Some(error) = state.refusal(self.group) {
            return Err(error);
        }
        state.mail.entry((self.group, self.rank, to, tag)).or_default().push_back(buf.to_owned());
        let to = state.groups[self.group].members[to];
        if matches!(state.ranks[to].doing, Doing::Mail { .. }) {
            state.ranks[to].doing = Doing::Running;
            drop(state);
            self.hub.changed.notify_all();
        }
        Ok(())
    }

    fn recv(&self, mut buf: SliceMut<'_>, from: usize, tag: u32) -> Result<()> {
        let key = (self.group, from, self.rank, tag);
        let mut state = self.hub.lock();
        state.ranks[self.world_rank].last = Some(self.announced());
        let sender = state.groups[self.group].members[from];
        let message = loop {
            if let Some(message) = state.mail.get_mut(&key).and_then(VecDeque::pop_front) {
                break message;
            }
            if let Some(error) = &state.stuck {
                return Err(error.clone());
            }
            if let Doing::Finished { failure: Some(failure) } = &state.ranks[sender].doing {
                return Err(passed_on(sender, failure));
            }
            state.ranks[self.world_rank].doing = Doing::Mail { from: sender };
            state.look_for_deadlock();
            if state.stuck.is_some() {
                self.hub.changed.notify_all();
                continue;
            }
            state = self.hub.wait(state);
        };
        state.ranks[self.world_rank].doing = Doing::Running;
        drop(state);
        fill(&mut buf, &message, from, tag)
    }

    fn has_message(&self, from: usize, tag: u32) -> Result<bool> {
        let state = self.hub.lock();
        let sender = state.groups[self.group].members[from];
        let has_come = state.mail.get(&(self.group, from, self.rank, tag)).is_some_and(|queue| !queue.is_empty());
        match (&state.stuck, &state.ranks[sender].doing) {
            _ if has_come => Ok(true),
            (Some(error), _) => Err(error.clone()),
            (None, Doing::Finished { failure: Some(failure) }) => Err(passed_on(sender, failure)),
            _ => Ok(false),
        }
    }

    fn split(&self, color: u32) -> Result<Box<dyn Transport>> {
        let outcome = self.meet(Action::Split(color), ElementType::U8.empty())?;
        match &*outcome {
            Ok(Outcome::Groups(places)) => {
                let (group, rank, size) = places[self.rank];
                let (hub, call) = (self.hub.clone(), Cell::new(None));
                Ok(Box::new(ThreadRank { hub, group, rank, size, world_rank: self.world_rank, call }))
            }
            Ok(Outcome::Data(_)) => unreachable!("a split makes groups"),
            Err(error) => Err(error.clone()),
        }
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }

    fn finish(&self) -> Result<()> {
        let state = self.hub.lock();
        let lost = state.mail.iter().find(|((group, from, _, _), queue)| {
            state.groups[*group].members[*from] == self.world_rank && !queue.is_empty()
        });
        match lost {
            None => Ok(()),
            Some(((_, _, to, tag), _)) => {
                Err(Error::comm(format!("a message with tag {tag} to rank {to} was sent but never received")))
            }
        }
    }

    fn library(&self) -> String {
        "threads of one process, no message-passing library".to_string()
    }
}
