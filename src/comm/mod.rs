//! # comm — ranks that talk
//!
//! In:    typed slices, from [`train`](crate::train) and [`predict`](crate::predict).
//! Out:   the same slices, combined; or one error that every rank agrees on.
//! Talks: this is the room that talks; every call says *Collective* or *Not collective*.
//! Never: files, rows, models, floating-point sums.
#![doc = include_str!("README.md")]

#[cfg_attr(not(feature = "mpi"), allow(dead_code))]
mod by_node;
mod call;
mod delay;
mod hub;
#[cfg(feature = "mpi")]
#[allow(unsafe_code, reason = "MPI is a C library: this file is the only door to it")]
mod mpi;
mod pending;
mod progress;
mod self_test;
mod solo;
mod threads;
mod traffic;
mod transport;
mod world;

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;
use std::time::Instant;

use call::{Call, DESCRIPTION_BYTES, Kind, hash_counts, mismatch};
use traffic::Ledger;
use transport::{Erased, ErasedOrder, ErasedSum, ReduceOp, Transport};

use crate::error::{Error, ErrorKind, Result};

pub(crate) use call::by_rank;
pub use delay::{Delay, LineTime, run_threads_delayed, run_threads_timed};
pub use pending::Pending;
pub use progress::{Doing, Progress};
pub use self_test::self_test;
pub use threads::run_threads;
pub use traffic::{Traffic, TrafficOf};
pub use world::{World, launcher_rank, launcher_size, mpi_library_version, run_world};

#[cfg(feature = "mpi")]
#[doc(hidden)]
pub use mpi::bare_all_reduce_u32;

/// Numbers that travel. Sealed.
pub trait Element: Erased {}
/// Elements that can be added: wrapping, so that any order of additions gives the same bits.
pub trait Summable: Element + ErasedSum {}
/// Elements whose minimum and maximum every MPI library gets right.
pub trait Ordered: Element + ErasedOrder {}
macro_rules! element { ($tr:ident: $($t:ty),*) => { $(impl $tr for $t {})* } }
element!(Element: u8, i32, u32, i64, u64, f32, f64);
element!(Summable: u32, u64);
element!(Ordered: i32, i64);

/// The highest tag of a message. Every MPI library admits three more, which are kept for collectives that are made of messages.
pub const MAX_TAG: u32 = 32_764;
/// Messages of [`Communicator::all_to_all`].
const PARTS_TAG: u32 = MAX_TAG + 1;

/// The ranks taking part in one computation. Neither `Send` nor `Sync`.
///
/// There is no floating-point sum, because its bits would depend on the order of the ranks:
/// ```compile_fail,E0277
/// let comm = consort::comm::Communicator::solo();
/// comm.all_reduce_sum(&mut [0.5f64]); // the trait bound `f64: Summable` is not satisfied
/// ```
/// Collectives are made by one thread of each rank, in program order, so a communicator cannot enter
/// a parallel loop:
/// ```compile_fail,E0277
/// use rayon::prelude::*;
/// let comm = consort::comm::Communicator::solo();
/// (0..4).into_par_iter().for_each(|_| comm.barrier().unwrap()); // `…` cannot be shared between threads safely
/// ```
/// nor be given away to another thread:
/// ```compile_fail,E0277
/// let comm = consort::comm::Communicator::solo();
/// std::thread::spawn(move || comm.rank()); // `…` cannot be sent between threads safely
/// ```
/// What does compile:
/// ```
/// let comm = consort::comm::Communicator::solo();
/// let mut counts = [1u64, 2];
/// comm.all_reduce_sum(&mut counts).unwrap();
/// assert_eq!(counts, [1, 2]);
/// ```
pub struct Communicator {
    transport: Box<dyn Transport>,
    /// Shared with the communicators split off this one.
    ledger: Rc<RefCell<Ledger>>,
    /// Shared likewise.
    progress: Progress,
    /// Collectives so far; equal on all ranks.
    sequence: Cell<u64>,
    /// Sends and receives of this rank so far.
    messages: Cell<u64>,
    group: Option<(u64, u32)>,
    /// The last failure that all ranks of this communicator know of.
    shared_failure: RefCell<Option<SharedFailure>>,
}

/// A failure known to all ranks, and the one that reports it.
#[derive(Clone)]
struct SharedFailure {
    error: Error,
    reporter: usize,
}

/// Values of all ranks, one after the other, and which belong to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered<T> {
    pub values: Vec<T>,
    /// size + 1 ascending bounds
    pub bounds: Vec<usize>,
}

impl<T> Gathered<T> {
    pub fn of_rank(&self, rank: usize) -> &[T] {
        &self.values[self.bounds[rank]..self.bounds[rank + 1]]
    }
}

impl Communicator {
    /// A world of one rank. Not collective.
    pub fn solo() -> Communicator {
        Communicator::new(Box::new(solo::Solo::default()))
    }

    fn new(transport: Box<dyn Transport>) -> Communicator {
        Communicator {
            transport,
            ledger: Rc::default(),
            progress: Progress::new(),
            sequence: Cell::new(0),
            messages: Cell::new(0),
            group: None,
            shared_failure: RefCell::new(None),
        }
    }

    /// This rank's number. Not collective.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// Number of ranks. Not collective.
    pub fn size(&self) -> usize {
        self.transport.size()
    }

    /// Whether this is rank 0. Not collective.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Returns once every rank has called it. *Collective.*
    #[track_caller]
    pub fn barrier(&self) -> Result<()> {
        let call = self.next(Kind::Barrier, "", Location::caller());
        self.timed(&call, 0, || self.transport.barrier())
    }

    /// `buf[i]` becomes the wrapping sum of every rank's `buf[i]`. *Collective.*
    #[track_caller]
    pub fn all_reduce_sum<T: Summable>(&self, buf: &mut [T]) -> Result<()> {
        self.all_reduce(buf, ReduceOp::Sum, Location::caller())
    }

    /// `buf[i]` becomes the least of every rank's `buf[i]`. *Collective.*
    #[track_caller]
    pub fn all_reduce_min<T: Ordered>(&self, buf: &mut [T]) -> Result<()> {
        self.all_reduce(buf, ReduceOp::Min, Location::caller())
    }

    /// `buf[i]` becomes the greatest of every rank's `buf[i]`. *Collective.*
    #[track_caller]
    pub fn all_reduce_max<T: Ordered>(&self, buf: &mut [T]) -> Result<()> {
        self.all_reduce(buf, ReduceOp::Max, Location::caller())
    }

    fn all_reduce<T: Element>(&self, buf: &mut [T], op: ReduceOp, site: &'static Location<'static>) -> Result<()> {
        let variant = match op {
            ReduceOp::Sum => "_sum",
            ReduceOp::Min => "_min",
            ReduceOp::Max => "_max",
        };
        let call = self.next(Kind::AllReduce, variant, site).of::<T>(buf.len());
        self.timed(&call, size_of_val(buf), || match buf.is_empty() {
            true => self.transport.barrier(),
            false => self.transport.all_reduce(T::slice_mut(buf), op),
        })
    }

    /// Starts adding `buf` over all ranks; [`Pending::wait`] gives the sums. *Collective*, and so is
    /// the order of starts among the other collectives; each rank may wait when it likes.
    #[track_caller]
    pub fn start_all_reduce_sum<T: Summable>(&self, buf: Vec<T>) -> Result<Pending<'_, T>> {
        let bytes = size_of_val(&buf[..]);
        let call = self.next(Kind::AllReduce, "_sum (started)", Location::caller()).of::<T>(buf.len());
        let started =
            self.timed(&call, bytes, || self.transport.start_all_reduce(T::into_owned(buf), ReduceOp::Sum))?;
        Ok(Pending::new(self, call, started))
    }

    /// `counts[r]` elements of the sum go to rank r; `mine.len() == counts[rank]`. *Collective.*
    ///
    /// # Panics
    /// If `send` is not as long as all counts together, or `mine` not as this rank's.
    #[track_caller]
    pub fn reduce_scatter_sum<T: Summable>(&self, send: &[T], counts: &[usize], mine: &mut [T]) -> Result<()> {
        assert_eq!(counts.len(), self.size(), "one count per rank");
        assert_eq!(send.len(), counts.iter().sum::<usize>(), "send holds the parts of all ranks");
        assert_eq!(mine.len(), counts[self.rank()], "mine holds this rank's part");
        let mut call = self.next(Kind::ReduceScatter, "_sum", Location::caller()).of::<T>(send.len());
        call.extra = hash_counts(counts);
        // Its own part goes nowhere.
        self.timed(&call, size_of_val(send) - size_of_val(mine), || {
            self.transport.reduce_scatter(T::slice(send), counts, T::slice_mut(mine), ReduceOp::Sum)
        })
    }

    /// Starts adding `send` over all ranks; [`Pending::wait`] gives this rank's part, as [`reduce_scatter_sum`](Self::reduce_scatter_sum)
    /// does. *Collective*, and so is the order of starts among the other collectives; each rank may wait when it likes.
    ///
    /// # Panics
    /// If `send` is not as long as all counts together.
    #[track_caller]
    pub fn start_reduce_scatter_sum<T: Summable>(&self, send: Vec<T>, counts: &[usize]) -> Result<Pending<'_, T>> {
        self.start_reduce_scatter_sum_in(Vec::new(), send, counts)
    }

    /// The same with memory for what comes, so that none has to be asked for: see [`Pending::wait_with_buffers`]. What is in `room` is lost. *Collective.*
    ///
    /// # Panics
    /// As it does.
    #[track_caller]
    pub fn start_reduce_scatter_sum_in<T: Summable>(
        &self,
        room: Vec<T>,
        send: Vec<T>,
        counts: &[usize],
    ) -> Result<Pending<'_, T>> {
        assert_eq!(counts.len(), self.size(), "one count per rank");
        assert_eq!(send.len(), counts.iter().sum::<usize>(), "send holds the parts of all ranks");
        let mut call = self.next(Kind::ReduceScatter, "_sum (started)", Location::caller()).of::<T>(send.len());
        call.extra = hash_counts(counts);
        let bytes = size_of_val(&send[..]) - counts[self.rank()] * size_of::<T>();
        let started = self.timed(&call, bytes, || {
            let (send, room) = (T::into_owned(send), T::into_owned(room));
            self.transport.start_reduce_scatter(send, room, counts, ReduceOp::Sum)
        })?;
        Ok(Pending::new(self, call, started))
    }

    /// Every rank's values, which may differ in number, for every rank. *Collective.*
    #[track_caller]
    pub fn all_gather<T: Element>(&self, mine: &[T]) -> Result<Gathered<T>> {
        let mut call = self.next(Kind::AllGather, "", Location::caller());
        call.element = Some(T::TYPE);
        self.timed(&call, size_of_val(mine), || {
            let mut lengths = vec![0u64; self.size()];
            let ones = vec![1; self.size()];
            self.transport.all_gather(u64::slice(&[mine.len() as u64]), &ones, u64::slice_mut(&mut lengths))?;
            let mut bounds = vec![0];
            for length in lengths {
                bounds.push(bounds[bounds.len() - 1] + length as usize);
            }
            let counts: Vec<usize> = bounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mut values = vec![T::default(); bounds[self.size()]];
            if !values.is_empty() {
                self.transport.all_gather(T::slice(mine), &counts, T::slice_mut(&mut values))?;
            }
            Ok(Gathered { values, bounds })
        })
    }

    /// Every rank's values for every rank, where all know how many each has: rank r gives the part of `buf` that is its own, of `counts[r]` values after
    /// those of the ranks before it, and all parts are there afterwards. *Collective.*
    ///
    /// # Panics
    /// If `buf` is not as long as all counts together.
    #[track_caller]
    pub fn all_gather_in_place<T: Element>(&self, buf: &mut [T], counts: &[usize]) -> Result<()> {
        assert_eq!(counts.len(), self.size(), "one count per rank");
        assert_eq!(buf.len(), counts.iter().sum::<usize>(), "buf holds the parts of all ranks");
        let mut call = self.next(Kind::AllGather, " in place", Location::caller()).of::<T>(buf.len());
        call.extra = hash_counts(counts);
        let mine = counts[self.rank()] * size_of::<T>();
        self.timed(&call, mine, || self.transport.all_gather_in_place(T::slice_mut(buf), counts))
    }

    /// [`all_gather`](Self::all_gather) of bytes. *Collective.*
    #[track_caller]
    pub fn all_gather_bytes(&self, mine: &[u8]) -> Result<Gathered<u8>> {
        self.all_gather(mine)
    }

    /// Each rank's part of every rank's values: `parts[r]` goes to rank r, and what comes from it is `of_rank(r)`. *Collective.*
    ///
    /// # Panics
    /// If there is not one part per rank.
    #[track_caller]
    pub fn all_to_all<T: Element>(&self, parts: &[Vec<T>]) -> Result<Gathered<T>> {
        assert_eq!(parts.len(), self.size(), "one part per rank");
        let (rank, size) = (self.rank(), self.size());
        let mut call = self.next(Kind::AllToAll, "", Location::caller());
        call.element = Some(T::TYPE);
        let all: usize = parts.iter().map(|part| size_of_val(&part[..])).sum();
        self.timed(&call, all - size_of_val(&parts[rank][..]), || {
            let mine: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
            let mut lengths = vec![0u64; size * size];
            self.transport.all_gather(u64::slice(&mine), &vec![size; size], u64::slice_mut(&mut lengths))?;
            let mut bounds = vec![0];
            for from in 0..size {
                bounds.push(bounds[from] + lengths[from * size + rank] as usize);
            }
            let mut values = vec![T::default(); bounds[size]];
            values[bounds[rank]..bounds[rank + 1]].copy_from_slice(&parts[rank]);
            // In each round everybody sends to one and receives from one.
            for round in 1..size {
                let (to, from) = ((rank + round) % size, (rank + size - round) % size);
                if !parts[to].is_empty() {
                    self.transport.send(T::slice(&parts[to]), to, PARTS_TAG)?;
                }
                let part = bounds[from]..bounds[from + 1];
                if !part.is_empty() {
                    self.transport.recv(T::slice_mut(&mut values[part]), from, PARTS_TAG)?;
                }
            }
            Ok(Gathered { values, bounds })
        })
    }

    /// `buf` becomes what it is on `root`; equally long on all ranks. *Collective.*
    #[track_caller]
    pub fn broadcast<T: Element>(&self, buf: &mut [T], root: usize) -> Result<()> {
        self.assert_rank(root);
        let mut call = self.next(Kind::Broadcast, "", Location::caller()).of::<T>(buf.len());
        call.peer = Some(root);
        let bytes = if self.rank() == root { size_of_val(buf) } else { 0 };
        self.timed(&call, bytes, || match buf.is_empty() {
            true => self.transport.barrier(),
            false => self.transport.broadcast(T::slice_mut(buf), root),
        })
    }

    /// Broadcasts a vector whose length only the root knows. *Collective.*
    #[track_caller]
    pub fn broadcast_vec<T: Element>(&self, buf: &mut Vec<T>, root: usize) -> Result<()> {
        self.assert_rank(root);
        let mut call = self.next(Kind::Broadcast, "_vec", Location::caller());
        (call.element, call.peer) = (Some(T::TYPE), Some(root));
        let bytes = if self.rank() == root { size_of_val(&buf[..]) } else { 0 };
        self.timed(&call, bytes, || self.move_vec(buf, root))
    }

    fn move_vec<T: Element>(&self, buf: &mut Vec<T>, root: usize) -> Result<()> {
        let mut length = [buf.len() as u64];
        self.transport.broadcast(u64::slice_mut(&mut length), root)?;
        buf.resize(length[0] as usize, T::default());
        match buf.is_empty() {
            true => Ok(()),
            false => self.transport.broadcast(T::slice_mut(buf), root),
        }
    }

    /// Sends to one rank. Not collective. Does not wait for the receiver: a copy is kept until it
    /// has been taken, so two ranks may send to each other first and receive afterwards.
    ///
    /// # Panics
    /// If `to` is no rank or `tag` is above [`MAX_TAG`].
    #[track_caller]
    pub fn send<T: Element>(&self, buf: &[T], to: usize, tag: u32) -> Result<()> {
        let call = self.message(Kind::Send, to, tag, Location::caller()).of::<T>(buf.len());
        self.timed(&call, size_of_val(buf), || self.transport.send(T::slice(buf), to, tag))
    }

    /// Receives from one rank. Not collective. Messages of one sender and tag arrive in the order
    /// of sending; one of another type or length than `buf` is an error.
    ///
    /// # Panics
    /// If `from` is no rank or `tag` is above [`MAX_TAG`].
    #[track_caller]
    pub fn recv<T: Element>(&self, buf: &mut [T], from: usize, tag: u32) -> Result<()> {
        let call = self.message(Kind::Recv, from, tag, Location::caller()).of::<T>(buf.len());
        self.timed(&call, 0, || self.transport.recv(T::slice_mut(buf), from, tag))
    }

    /// As [`recv`](Self::recv) if a message of this rank and tag has come, else false, at once. Not collective.
    ///
    /// For a rank that answers others between steps of its own work. A message may be on its way for a while before it has come.
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    #[track_caller]
    pub fn try_recv<T: Element>(&self, buf: &mut [T], from: usize, tag: u32) -> Result<bool> {
        self.assert_rank(from);
        if !self.transport.has_message(from, tag)? {
            return Ok(false);
        }
        let call = self.message(Kind::Recv, from, tag, Location::caller()).of::<T>(buf.len());
        self.timed(&call, 0, || self.transport.recv(T::slice_mut(buf), from, tag)).map(|()| true)
    }

    /// The ranks that give the same color form a communicator, in the order of their ranks here.
    /// *Collective.* Errors there name ranks of the new communicator.
    ///
    /// # Panics
    /// If `color` is above 2³¹ − 1.
    #[track_caller]
    pub fn split(&self, color: u32) -> Result<Communicator> {
        assert!(i32::try_from(color).is_ok(), "color {color} is above 2³¹ − 1");
        let call = self.next(Kind::Split, "", Location::caller());
        let transport = self.timed(&call, 0, || self.transport.split(color))?;
        let mut part = Communicator::new(transport);
        part.ledger = self.ledger.clone();
        part.progress = self.progress.clone();
        part.group = Some((call.sequence, color));
        Ok(part)
    }

    /// If any rank failed, every rank gets an error: the failing ranks their own, marked with their
    /// rank; the others that of the lowest failing rank, with `rank()` set to it. All get the kind
    /// of the lowest failing rank. *Collective.* Costs one small all-reduce when all went well.
    #[track_caller]
    pub fn agree<V>(&self, local: Result<V>) -> Result<V> {
        if local.as_ref().is_err_and(|error| self.reporter_of(error).is_some()) {
            return local; // all ranks have it already, and all pass by here
        }
        let call = self.next(Kind::Agree, "", Location::caller());
        let since = Instant::now();
        let _entered = self.progress.enter(call);
        let flag = if local.is_err() { (self.size() - self.rank()) as i64 } else { 0 };
        let met = self.meet(&call, flag);
        let agreed = match met {
            Ok(0) => local,
            Ok(worst) => Err(self.spread(local.err(), self.size() - worst as usize)),
            Err(broken) => Err(local.err().unwrap_or(broken)),
        };
        self.ledger.borrow_mut().add(Kind::Agree, 1, size_of::<i64>(), since);
        agreed
    }

    /// The second half of [`agree`](Self::agree), after a failure: `lowest` tells the others.
    fn spread(&self, own: Option<Error>, lowest: usize) -> Error {
        let mut code = [own.as_ref().map_or(0, |e| e.kind().exit_code())];
        let mut text = own.as_ref().map_or(Vec::new(), |e| e.to_string().into_bytes());
        let told = self.transport.broadcast(i32::slice_mut(&mut code), lowest);
        if let Err(broken) = told.and_then(|()| self.move_vec(&mut text, lowest)) {
            return own.unwrap_or(broken);
        }
        let kind = ErrorKind::from_exit_code(code[0]);
        let error = match own {
            Some(e) if e.kind() == kind => e.on_rank(self.rank()),
            Some(e) => Error::new(kind, e.to_string()).on_rank(self.rank()),
            None => Error::new(kind, String::from_utf8_lossy(&text)).on_rank(lowest),
        };
        *self.shared_failure.borrow_mut() = Some(SharedFailure { error: error.clone(), reporter: lowest });
        error
    }

    /// Whether `flag` is set on any rank. *Collective.* One small all-reduce.
    #[track_caller]
    pub fn agree_any(&self, flag: bool) -> Result<bool> {
        let call = self.next(Kind::Agree, "_any", Location::caller());
        let since = Instant::now();
        let _entered = self.progress.enter(call);
        let met = self.meet(&call, i64::from(flag))?;
        self.ledger.borrow_mut().add(Kind::Agree, 1, size_of::<i64>(), since);
        Ok(met != 0)
    }

    /// What this rank's calls have cost, those on communicators split off included. Not collective.
    pub fn traffic(&self) -> Traffic {
        self.ledger.borrow().report()
    }

    /// Which call this rank is in, for other threads to look at. Not collective.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Whether started sums go on while the ranks compute: between nodes, not within one, where nobody else would add. Not collective; the same on all
    /// ranks.
    pub fn overlaps(&self) -> bool {
        self.transport.overlaps()
    }

    /// Whether each rank is a process of its own, which may be stopped or lost while others go on. Not collective.
    pub fn has_processes(&self) -> bool {
        self.transport.has_processes()
    }

    /// The library that carries the messages, with its version. Not collective.
    pub fn library(&self) -> String {
        self.transport.library()
    }

    /// The name of the computer this rank runs on. Not collective.
    pub fn node_name(&self) -> String {
        self.transport.node_name()
    }

    fn assert_rank(&self, rank: usize) {
        assert!(rank < self.size(), "rank {rank} in a communicator of {}", self.size());
    }

    /// The description of this rank's next collective.
    fn next(&self, kind: Kind, variant: &'static str, site: &'static Location<'static>) -> Call {
        self.sequence.set(self.sequence.get() + 1);
        let sequence = self.sequence.get();
        Call { sequence, kind, variant, element: None, length: None, peer: None, extra: 0, group: self.group, site }
    }

    fn message(&self, kind: Kind, peer: usize, tag: u32, site: &'static Location<'static>) -> Call {
        self.assert_rank(peer);
        assert!(tag <= MAX_TAG, "tag {tag} is above {MAX_TAG}");
        self.messages.set(self.messages.get() + 1);
        let (sequence, peer, extra) = (self.messages.get(), Some(peer), u64::from(tag));
        Call { sequence, kind, variant: "", element: None, length: None, peer, extra, group: self.group, site }
    }

    /// Compares the calls of all ranks, makes this one, and keeps account.
    fn timed<V>(&self, call: &Call, bytes: usize, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let since = Instant::now();
        let _entered = self.progress.enter(*call);
        if matches!(call.kind, Kind::Send | Kind::Recv) {
            self.transport.checks_calls(call);
        } else {
            self.meet(call, 0)?;
        }
        let made = make();
        self.ledger.borrow_mut().add(call.kind, 1, bytes, since);
        made
    }

    /// Makes sure that all ranks make the same call; the greatest `flag` of all ranks.
    ///
    /// The check is one all-reduce of (hash, −hash, flag): the greatest hash equals the least
    /// exactly when all are equal. Only then are descriptions gathered. Transports that compare
    /// calls themselves need no message here unless there is a flag to exchange.
    fn meet(&self, call: &Call, flag: i64) -> Result<i64> {
        let size = self.size();
        if self.transport.checks_calls(call) {
            let mut greatest = [flag];
            if call.kind == Kind::Agree {
                self.transport.all_reduce(i64::slice_mut(&mut greatest), ReduceOp::Max)?;
            }
            return Ok(greatest[0]);
        }
        let hash = call.fingerprint();
        let mut greatest = [hash, -hash, flag];
        self.transport.all_reduce(i64::slice_mut(&mut greatest), ReduceOp::Max)?;
        if greatest[0] == -greatest[1] {
            return Ok(greatest[2]);
        }
        let mut all = vec![0u8; size * DESCRIPTION_BYTES];
        let counts = vec![DESCRIPTION_BYTES; size];
        self.transport.all_gather(u8::slice(&call.description()), &counts, u8::slice_mut(&mut all))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string();
        let error = mismatch(&all.chunks(DESCRIPTION_BYTES).map(text).collect::<Vec<_>>());
        *self.shared_failure.borrow_mut() = Some(SharedFailure { error: error.clone(), reporter: 0 });
        Err(error)
    }

    /// Whether all ranks know of `error`; if so, the rank that reports it.
    fn reporter_of(&self, error: &Error) -> Option<usize> {
        let shared = self.shared_failure.borrow();
        let shared = shared.as_ref()?;
        let same = error.rank() == shared.error.rank()
            && error.kind() == shared.error.kind()
            && error.to_string().ends_with(&shared.error.to_string());
        same.then_some(shared.reporter)
    }

    /// The last call of the program: all ranks have come to their end. *Collective.*
    fn end(&self) -> Result<()> {
        let call = self.next(Kind::End, "", Location::caller());
        self.timed(&call, 0, || self.transport.barrier())?;
        self.transport.finish()
    }
}

impl Call {
    fn of<T: Element>(mut self, length: usize) -> Call {
        (self.element, self.length) = (Some(T::TYPE), Some(length));
        self
    }
}

#[cfg(test)]
mod tests;
