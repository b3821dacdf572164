//! What the three kinds of world have in common: typed slices without their type parameter, the
//! reductions every MPI library gets right, and the trait that moves slices between ranks.
//!
//! Everything here is private to the room; training code sees only
//! [`Communicator`](super::Communicator).

use super::call::Call;
use crate::error::Result;
use std::ops::Range;

/// How numbers of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Wrapping; u32 and u64 only.
    Sum,
    /// i32 and i64 only.
    Min,
    /// i32 and i64 only.
    Max,
}

impl ReduceOp {
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Min => "min",
            ReduceOp::Max => "max",
        }
    }
}

/// The sealed half of [`Element`](super::Element): how a typed slice loses and regains its type.
pub trait Erased: Copy + Default + Send + 'static {
    const TYPE: ElementType;
    fn slice(values: &[Self]) -> Slice<'_>;
    fn slice_mut(values: &mut [Self]) -> SliceMut<'_>;
    fn into_owned(values: Vec<Self>) -> OwnedSlice;
    /// The values again. `None` if they are of another type.
    fn from_owned(values: OwnedSlice) -> Option<Vec<Self>>;
}

/// Sealed half of [`Summable`](super::Summable).
pub trait ErasedSum: Erased {}
/// Sealed half of [`Ordered`](super::Ordered).
pub trait ErasedOrder: Erased {}
impl ErasedSum for u32 {}
impl ErasedSum for u64 {}
impl ErasedOrder for i32 {}
impl ErasedOrder for i64 {}

macro_rules! element_types {
    ($($variant:ident $t:ty, $name:literal;)*) => {
        /// The types that travel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ElementType { $($variant),* }

        /// A borrowed typed slice.
        #[derive(Clone, Copy, Debug)]
        pub enum Slice<'a> { $($variant(&'a [$t])),* }

        /// A borrowed typed slice that is written.
        #[derive(Debug)]
        pub enum SliceMut<'a> { $($variant(&'a mut [$t])),* }

        /// A typed vector.
        #[derive(Clone, Debug, PartialEq)]
        pub enum OwnedSlice { $($variant(Vec<$t>)),* }

        impl ElementType {
            pub fn name(self) -> &'static str { match self { $(ElementType::$variant => $name),* } }
            pub fn bytes(self) -> usize { match self { $(ElementType::$variant => size_of::<$t>()),* } }
            pub fn empty(self) -> OwnedSlice { self.zeros(0) }
            pub fn zeros(self, n: usize) -> OwnedSlice { match self { $(ElementType::$variant => OwnedSlice::$variant(vec![<$t>::default(); n])),* } }
        }

        impl Slice<'_> {
            pub fn len(&self) -> usize { match self { $(Slice::$variant(s) => s.len()),* } }
            pub fn to_owned(self) -> OwnedSlice { match self { $(Slice::$variant(s) => OwnedSlice::$variant(s.to_vec())),* } }
            pub fn part(&self, range: Range<usize>) -> Slice<'_> { match self { $(Slice::$variant(s) => Slice::$variant(&s[range])),* } }
        }

        impl SliceMut<'_> {
            pub fn len(&self) -> usize { match self { $(SliceMut::$variant(s) => s.len()),* } }
            pub fn as_slice(&self) -> Slice<'_> { match self { $(SliceMut::$variant(s) => Slice::$variant(s)),* } }
            /// Copies `from[first .. first + len]` here.
            ///
            /// # Panics
            /// If the types differ or `from` is too short: the calls were compared before.
            pub fn copy_from(&mut self, from: &OwnedSlice, first: usize) {
                match (self, from) {
                    $((SliceMut::$variant(to), OwnedSlice::$variant(from)) => {
                        let n = to.len();
                        to.copy_from_slice(&from[first..first + n]);
                    })*
                    (to, from) => panic!("a {} buffer was to be filled from {}", to.as_slice().element().name(), from.element().name()),
                }
            }
        }

        impl OwnedSlice {
            pub fn len(&self) -> usize { match self { $(OwnedSlice::$variant(s) => s.len()),* } }
            pub fn element(&self) -> ElementType { match self { $(OwnedSlice::$variant(_) => ElementType::$variant),* } }
            pub fn as_slice(&self) -> Slice<'_> { match self { $(OwnedSlice::$variant(s) => Slice::$variant(s)),* } }
            pub fn as_slice_mut(&mut self) -> SliceMut<'_> { match self { $(OwnedSlice::$variant(s) => SliceMut::$variant(s)),* } }
            /// As many values, of which nobody knows what they are.
            pub fn of_len(mut self, n: usize) -> OwnedSlice {
                match &mut self { $(OwnedSlice::$variant(s) => s.resize(n, <$t>::default())),* }
                self
            }
            /// The values from `at` on, which are then gone from here.
            pub fn split_off(&mut self, at: usize) -> OwnedSlice {
                match self { $(OwnedSlice::$variant(s) => OwnedSlice::$variant(s.split_off(at))),* }
            }
            /// Adds the values of `tail` at the end; the types must be the same.
            pub fn append(&mut self, tail: &OwnedSlice) {
                match (self, tail) {
                    $((OwnedSlice::$variant(to), OwnedSlice::$variant(from)) => to.extend_from_slice(from),)*
                    (to, from) => panic!("{} was to be appended to {}", from.element().name(), to.element().name()),
                }
            }
        }

        impl Slice<'_> {
            pub fn element(&self) -> ElementType { match self { $(Slice::$variant(_) => ElementType::$variant),* } }
        }

        $(impl Erased for $t {
            const TYPE: ElementType = ElementType::$variant;
            fn slice(values: &[Self]) -> Slice<'_> { Slice::$variant(values) }
            fn slice_mut(values: &mut [Self]) -> SliceMut<'_> { SliceMut::$variant(values) }
            fn into_owned(values: Vec<Self>) -> OwnedSlice { OwnedSlice::$variant(values) }
            fn from_owned(values: OwnedSlice) -> Option<Vec<Self>> {
                match values { OwnedSlice::$variant(v) => Some(v), _ => None }
            }
        })*
    };
}

element_types! {
    U8 u8, "u8";
    I32 i32, "i32";
    U32 u32, "u32";
    I64 i64, "i64";
    U64 u64, "u64";
    F32 f32, "f32";
    F64 f64, "f64";
}

impl OwnedSlice {
    /// Combines other values, and all further ones of this in parts as long, element by element into the first part of this.
    ///
    /// # Panics
    /// For a (type, operator) pair that the public traits do not admit.
    pub fn reduce(&mut self, other: Slice<'_>, op: ReduceOp) {
        fn each<T: Copy>(to: &mut [T], from: &[T], combine: impl Fn(T, T) -> T) {
            let (sums, parts) = to.split_at_mut(from.len());
            for part in parts.chunks_exact(from.len().max(1)).chain([from]) {
                sums.iter_mut().zip(part).for_each(|(a, &b)| *a = combine(*a, b));
            }
        }
        match (self, other, op) {
            (OwnedSlice::U32(a), Slice::U32(b), ReduceOp::Sum) => each(a, b, u32::wrapping_add),
            (OwnedSlice::U64(a), Slice::U64(b), ReduceOp::Sum) => each(a, b, u64::wrapping_add),
            (OwnedSlice::I32(a), Slice::I32(b), ReduceOp::Min) => each(a, b, i32::min),
            (OwnedSlice::I32(a), Slice::I32(b), ReduceOp::Max) => each(a, b, i32::max),
            (OwnedSlice::I64(a), Slice::I64(b), ReduceOp::Min) => each(a, b, i64::min),
            (OwnedSlice::I64(a), Slice::I64(b), ReduceOp::Max) => each(a, b, i64::max),
            (a, b, op) => panic!("no {} of {} and {}", op.name(), a.element().name(), b.element().name()),
        }
    }
}

/// How typed slices move between the ranks of one group. Object-safe.
///
/// Lengths of the caller's own buffers were checked by `Communicator`; whether the *ranks* agree on
/// the call is checked by the transport if [`checks_calls`](Self::checks_calls) says so, else by
/// `Communicator` beforehand.
pub trait Transport {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;
    /// Told before every call. `true`: this transport compares the calls of all ranks itself.
    fn checks_calls(&self, call: &Call) -> bool;
    fn barrier(&self) -> Result<()>;
    fn broadcast(&self, buf: SliceMut<'_>, root: usize) -> Result<()>;
    fn all_reduce(&self, buf: SliceMut<'_>, op: ReduceOp) -> Result<()>;
    /// `counts[r]` elements of the combined `send` go to rank r.
    fn reduce_scatter(&self, send: Slice<'_>, counts: &[usize], recv: SliceMut<'_>, op: ReduceOp) -> Result<()>;
    /// `counts[r]` elements come from rank r; `recv` holds them one after the other.
    fn all_gather(&self, send: Slice<'_>, counts: &[usize], recv: SliceMut<'_>) -> Result<()>;
    /// Does not wait for the receiver: the values are kept until it takes them.
    fn send(&self, buf: Slice<'_>, to: usize, tag: u32) -> Result<()>;
    fn recv(&self, buf: SliceMut<'_>, from: usize, tag: u32) -> Result<()>;
    /// Whether a message of this rank and tag has come. Does not wait.
    fn has_message(&self, from: usize, tag: u32) -> Result<bool>;
    /// Ranks of equal color form a group, in the order of their ranks here.
    fn split(&self, color: u32) -> Result<Box<dyn Transport>>;
    /// The same, where `buf` holds the part of this rank already, and in the end those of all.
    fn all_gather_in_place(&self, buf: SliceMut<'_>, counts: &[usize]) -> Result<()> {
        let first: usize = counts[..self.rank()].iter().sum();
        let mine = buf.as_slice().part(first..first + counts[self.rank()]).to_owned();
        self.all_gather(mine.as_slice(), counts, buf)
    }
    /// Starts an all-reduce that may overlap with computation. By default it is finished here.
    fn start_all_reduce(&self, buf: OwnedSlice, op: ReduceOp) -> Result<Box<dyn PendingReduce>> {
        self.finish_all_reduce(buf, op)
    }
    /// One that is finished when it is started.
    fn finish_all_reduce(&self, mut buf: OwnedSlice, op: ReduceOp) -> Result<Box<dyn PendingReduce>> {
        self.all_reduce(buf.as_slice_mut(), op)?;
        Ok(Box::new(Done(buf)))
    }
    /// Starts a reduce-scatter that may overlap with computation. By default it is finished here.
    ///
    /// `room`: memory for what comes, where it is wanted; what is in it is lost.
    fn start_reduce_scatter(
        &self,
        send: OwnedSlice,
        _room: OwnedSlice,
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Box<dyn PendingReduce>> {
        self.finish_reduce_scatter(send, counts, op)
    }
    /// Starts an all-gather that may overlap with computation. By default it is finished here.
    fn start_all_gather(&self, send: OwnedSlice, counts: &[usize]) -> Result<Box<dyn PendingReduce>> {
        let mut all = send.element().zeros(counts.iter().sum());
        self.all_gather(send.as_slice(), counts, all.as_slice_mut())?;
        Ok(Box::new(Done(all)))
    }
    /// One that is finished when it is started.
    fn finish_reduce_scatter(
        &self,
        send: OwnedSlice,
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Box<dyn PendingReduce>> {
        let mut sums = send.element().zeros(counts[self.rank()]);
        self.reduce_scatter(send.as_slice(), counts, sums.as_slice_mut(), op)?;
        Ok(Box::new(Done(sums)))
    }
    /// Ends the whole job at once.
    fn abort(&self, code: i32) -> !;
    /// Told after the last call on the world: messages nobody received are an error.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
    /// Whether what is started goes on while the ranks compute. The same on all ranks.
    fn overlaps(&self) -> bool {
        true
    }
    /// Whether each rank is a process of its own.
    fn has_processes(&self) -> bool {
        false
    }
    /// The library that carries the messages, for refusals and `doctor`.
    fn library(&self) -> String;
    /// The computer this rank runs on.
    fn node_name(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname").map(|s| s.trim().to_string()).unwrap_or_default()
    }
}

/// A reduction or all-gather under way. Dropping it waits too.
pub trait PendingReduce {
    fn wait(self: Box<Self>) -> Result<OwnedSlice>;
    /// The same, followed by values of no use; and the buffer that was sent, where it is still there.
    fn wait_with_buffers(self: Box<Self>) -> Result<[OwnedSlice; 2]> {
        let came = self.wait()?;
        let nothing = came.element().empty();
        Ok([came, nothing])
    }
    /// Lets the library do what it does only while it is called; whether the reduction is over. Does not wait.
    fn progress(&mut self) -> Result<bool>;
}

/// A reduction that was finished when it was started.
struct Done(OwnedSlice);

impl PendingReduce for Done {
    fn wait(self: Box<Self>) -> Result<OwnedSlice> {
        Ok(self.0)
    }

    fn progress(&mut self) -> Result<bool> {
        Ok(true)
    }
}
