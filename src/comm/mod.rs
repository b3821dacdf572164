//! # comm — ranks that talk
//!
//! In:    typed slices, from [`train`](crate::train) and [`predict`](crate::predict).
//! Out:   the same slices, combined; or one error that every rank agrees on.
//! Talks: this is the room that talks; every call says *Collective* or *Not collective*.
//! Never: files, rows, models, floating-point sums.

use crate::error::Result;

/// Numbers that travel. Sealed.
pub trait Element: Copy + Default + Send + 'static {}
/// Elements that can be added: wrapping, so that any order of additions gives the same bits.
pub trait Summable: Element {}
/// Elements whose minimum and maximum every MPI library gets right.
pub trait Ordered: Element {}
macro_rules! element { ($tr:ident: $($t:ty),*) => { $(impl $tr for $t {})* } }
element!(Element: u8, i32, u32, i64, u64, f32, f64);
element!(Summable: u32, u64);
element!(Ordered: i32, i64);

/// The ranks taking part in one computation. Neither `Send` nor `Sync`.
pub struct Communicator {
    _not_send: std::marker::PhantomData<*const ()>,
}

/// Values of all ranks, one after the other, and which belong to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered<T> {
    pub values: Vec<T>,
    /** size + 1 ascending bounds */
    pub bounds: Vec<usize>,
}
impl<T> Gathered<T> {
    pub fn of_rank(&self, rank: usize) -> &[T] {
        &self.values[self.bounds[rank]..self.bounds[rank + 1]]
    }
}

/// A started all-reduce that owns its buffer until `wait`.
pub struct Pending<'comm, T> {
    _p: std::marker::PhantomData<(&'comm Communicator, T)>,
}
impl<T> Pending<'_, T> {
    pub fn wait(self) -> Result<Vec<T>> {
        todo!()
    }
}

/// What one kind of call has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrafficOf {
    pub calls: u64,
    pub bytes: u64,
    pub seconds: f64,
}
/// By kind of call, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    pub kinds: Vec<(&'static str, TrafficOf)>,
}

impl Communicator {
    pub fn solo() -> Communicator {
        todo!()
    }
    pub fn rank(&self) -> usize {
        todo!()
    }
    pub fn size(&self) -> usize {
        todo!()
    }
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }
    pub fn barrier(&self) -> Result<()> {
        todo!()
    }
    pub fn all_reduce_sum<T: Summable>(&self, _buf: &mut [T]) -> Result<()> {
        todo!()
    }
    pub fn all_reduce_min<T: Ordered>(&self, _buf: &mut [T]) -> Result<()> {
        todo!()
    }
    pub fn all_reduce_max<T: Ordered>(&self, _buf: &mut [T]) -> Result<()> {
        todo!()
    }
    pub fn start_all_reduce_sum<T: Summable>(&self, _buf: Vec<T>) -> Result<Pending<'_, T>> {
        todo!()
    }
    /// `counts[r]` elements of the sum go to rank r; `mine.len() == counts[rank]`.
    pub fn reduce_scatter_sum<T: Summable>(&self, _send: &[T], _counts: &[usize], _mine: &mut [T]) -> Result<()> {
        todo!()
    }
    pub fn all_gather<T: Element>(&self, _mine: &[T]) -> Result<Gathered<T>> {
        todo!()
    }
    pub fn all_gather_bytes(&self, _mine: &[u8]) -> Result<Gathered<u8>> {
        todo!()
    }
    pub fn broadcast<T: Element>(&self, _buf: &mut [T], _root: usize) -> Result<()> {
        todo!()
    }
    /// Broadcasts a vector whose length only the root knows.
    pub fn broadcast_vec<T: Element>(&self, _buf: &mut Vec<T>, _root: usize) -> Result<()> {
        todo!()
    }
    pub fn send<T: Element>(&self, _buf: &[T], _to: usize, _tag: u32) -> Result<()> {
        todo!()
    }
    pub fn recv<T: Element>(&self, _buf: &mut [T], _from: usize, _tag: u32) -> Result<()> {
        todo!()
    }
    pub fn split(&self, _color: u32) -> Result<Communicator> {
        todo!()
    }
    /// If any rank failed, every rank gets an error: the failing ranks their own, marked with their rank; the
    /// others that of the lowest failing rank, with `rank()` set to it. All get the kind of the lowest failing rank.
    pub fn agree<V>(&self, _local: Result<V>) -> Result<V> {
        todo!()
    }
    pub fn traffic(&self) -> Traffic {
        todo!()
    }
}

/// Runs `body` once per rank on `size` threads, each with a rayon pool of `threads` threads; results in rank order.
pub fn run_threads<R: Send>(
    _size: usize,
    _threads: usize,
    _body: impl Fn(&Communicator) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    todo!()
}
