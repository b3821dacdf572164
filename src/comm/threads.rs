//! A world of threads in this process. Since one lock sees who waits where and who has finished, a
//! call that can never be answered is found exactly, without clocks, and named with every rank's
//! last call.
//!
//! *Meeting*: each rank of a group lays down its call and a copy of its data; the last to arrive
//! compares the calls, combines the data outside the lock, and publishes one result for all. Who has
//! started a reduction has laid down its part and goes on; it collects the result when it likes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Communicator;
use super::call::{Call, mismatch};
use super::hub::{Action, Arrival, Doing, Group, Hub, Outcome, passed_on};
use super::solo::fill;
use super::transport::{ElementType, OwnedSlice, PendingReduce, ReduceOp, Slice, SliceMut, Transport};
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
    run_ranks(size, threads, |_, _| (), |_, transport| transport, body).map_err(|(_, error)| error)
}

/// As [`run_threads`]; the error comes with the rank it belongs to, `started(rank, thread)` is called
/// first on every thread of every rank's pool, and `dress(rank, transport)` may put something between
/// a rank and its transport.
pub fn run_ranks<R: Send>(
    size: usize,
    threads: usize,
    started: impl Fn(usize, usize) + Send + Sync + Clone + 'static,
    dress: impl Fn(usize, Box<dyn Transport>) -> Box<dyn Transport> + Sync,
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
        let run = || pool?.install(|| body(&Communicator::new(dress(rank, Box::new(ThreadRank::world(&hub, rank))))));
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

/// One rank's view of one group.
struct ThreadRank {
    hub: Arc<Hub>,
    group: usize,
    rank: usize,
    size: usize,
    world_rank: usize,
    call: Cell<Option<Call>>,
    /// Meetings of the group that this rank has come to.
    met: Cell<u64>,
}

/// A meeting that this rank has come to, and leaves when this is dropped.
struct Attended {
    hub: Arc<Hub>,
    group: usize,
    number: u64,
    world_rank: usize,
    call: Call,
}

impl Attended {
    /// Waits until every member of the group is here; all get the same outcome.
    fn outcome(&self) -> Result<Arc<Result<Outcome>>> {
        let mut state = self.hub.lock();
        state.ranks[self.world_rank].last = Some(self.call);
        let ended = loop {
            if let Some(outcome) = &state.groups[self.group].meeting(self.number).outcome {
                break Ok(outcome.clone());
            }
            if let Some(error) = state.refusal(self.group) {
                break Err(error);
            }
            state.ranks[self.world_rank].doing = Doing::Meeting { group: self.group, number: self.number };
            state.look_for_deadlock();
            match state.stuck {
                Some(_) => self.hub.changed.notify_all(),
                None => state = self.hub.wait(state),
            }
        };
        state.ranks[self.world_rank].doing = Doing::Running;
        ended
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.hub.lock().groups[self.group].leave(self.number);
    }
}

/// A reduction whose part of this rank is laid down.
struct Started {
    attended: Attended,
    /// Of the combined data: where this rank's begins, and how long it is.
    part: (usize, usize),
}

impl PendingReduce for Started {
    fn wait(self: Box<Self>) -> Result<OwnedSlice> {
        let outcome = self.attended.outcome()?;
        drop(self.attended);
        let (first, len) = self.part;
        match Arc::unwrap_or_clone(outcome)? {
            Outcome::Data(all) if len == all.len() => Ok(all),
            Outcome::Data(all) => {
                let mut mine = all.element().zeros(len);
                mine.as_slice_mut().copy_from(&all, first);
                Ok(mine)
            }
            Outcome::Groups(_) => unreachable!("only a split makes groups"),
        }
    }

    fn progress(&mut self) -> Result<bool> {
        let mut state = self.attended.hub.lock();
        let group = self.attended.group;
        let is_over = state.groups[group].meeting(self.attended.number).outcome.is_some();
        match state.refusal(group) {
            Some(error) if !is_over => Err(error),
            _ => Ok(is_over),
        }
    }
}

impl ThreadRank {
    fn world(hub: &Arc<Hub>, rank: usize) -> ThreadRank {
        let size = hub.lock().ranks.len();
        ThreadRank {
            hub: hub.clone(),
            group: 0,
            rank,
            size,
            world_rank: rank,
            call: Cell::new(None),
            met: Cell::new(0),
        }
    }

    fn announced(&self) -> Call {
        self.call.get().expect("Communicator announces every call")
    }

    /// Lays down this rank's part of the group's next meeting. Does not wait for the others.
    fn come(&self, action: Action, data: OwnedSlice) -> Result<Attended> {
        let call = self.announced();
        let mut state = self.hub.lock();
        state.ranks[self.world_rank].last = Some(call);
        if let Some(error) = state.refusal(self.group) {
            return Err(error);
        }
        let number = self.met.get() + 1;
        self.met.set(number);
        let meeting = state.groups[self.group].meeting(number);
        meeting.arrived[self.rank] = Some(Arrival { call, action, data });
        if meeting.arrived.iter().all(Option::is_some) {
            let arrivals: Vec<Arrival> = meeting.arrived.iter_mut().filter_map(Option::take).collect();
            drop(state);
            self.conclude(number, arrivals);
        }
        Ok(Attended { hub: self.hub.clone(), group: self.group, number, world_rank: self.world_rank, call })
    }

    fn meet(&self, action: Action, data: OwnedSlice) -> Result<Arc<Result<Outcome>>> {
        self.come(action, data)?.outcome()
    }

    /// The last to arrive does the work of the meeting and lets the others go.
    fn conclude(&self, number: u64, arrivals: Vec<Arrival>) {
        let first = arrivals[0].call.fingerprint();
        let same = arrivals.iter().all(|a| a.call.fingerprint() == first);
        let outcome = if same {
            Ok(self.combine(arrivals))
        } else {
            Err(mismatch(&arrivals.iter().map(|a| a.call.to_string()).collect::<Vec<_>>()))
        };
        let mut state = self.hub.lock();
        state.groups[self.group].meeting(number).outcome = Some(Arc::new(outcome));
        state.release(
            |doing| matches!(doing, Doing::Meeting { group: g, number: n } if (*g, *n) == (self.group, number)),
        );
        drop(state);
        self.hub.changed.notify_all();
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
                parts.for_each(|part| total.reduce(part.as_slice(), op));
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
                let (hub, world_rank, call, met) = (self.hub.clone(), self.world_rank, Cell::new(None), Cell::new(0));
                Ok(Box::new(ThreadRank { hub, group, rank, size, world_rank, call, met }))
            }
            Ok(Outcome::Data(_)) => unreachable!("a split makes groups"),
            Err(error) => Err(error.clone()),
        }
    }

    fn start_all_reduce(&self, buf: OwnedSlice, op: ReduceOp) -> Result<Box<dyn PendingReduce>> {
        let part = (0, buf.len());
        Ok(Box::new(Started { attended: self.come(Action::Reduce(op), buf)?, part }))
    }

    fn start_reduce_scatter(
        &self,
        send: OwnedSlice,
        _room: OwnedSlice,
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Box<dyn PendingReduce>> {
        let part = (counts[..self.rank].iter().sum(), counts[self.rank]);
        Ok(Box::new(Started { attended: self.come(Action::Reduce(op), send)?, part }))
    }

    fn start_all_gather(&self, send: OwnedSlice, counts: &[usize]) -> Result<Box<dyn PendingReduce>> {
        let part = (0, counts.iter().sum());
        Ok(Box::new(Started { attended: self.come(Action::Concatenate, send)?, part }))
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

    /// Who comes last adds: it does nothing else meanwhile.
    fn overlaps(&self) -> bool {
        false
    }

    fn library(&self) -> String {
        "threads of one process, no message-passing library".to_string()
    }
}
