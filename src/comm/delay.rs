//! A thread world with a slow network: what a message would take on a wire is waited for, without using the processor.
//! For tests and benchmarks of how much of it computation hides.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Communicator;
use super::call::Call;
use super::threads::run_ranks;
use super::transport::{OwnedSlice, PendingReduce, ReduceOp, Slice, SliceMut, Transport};
use crate::error::Result;

/// What a message takes, in addition to what the thread world does itself: latency + bytes × seconds_per_byte.
///
/// Of an all-reduce, broadcast or message, the bytes of the buffer; of a reduce-scatter or all-gather, of all parts together.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    pub latency: Duration,
    pub seconds_per_byte: f64,
}

impl Delay {
    fn of(self, bytes: usize) -> Duration {
        self.latency + Duration::from_secs_f64(self.seconds_per_byte * bytes as f64)
    }
}

/// [`run_threads`](super::run_threads) over a slow network.
///
/// Every rank has one line, which carries one message at a time: a reduction that is started while another is under way begins when
/// that one has ended, and none begins before the last of its ranks has started it.
///
/// # Panics
/// If `size` is 0.
pub fn run_threads_delayed<R: Send>(
    size: usize,
    threads: usize,
    delay: Delay,
    body: impl Fn(&Communicator) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    run_threads_timed(size, threads, delay, body).map(|(returned, _)| returned)
}

/// What a rank's line was busy for, and for how much of it the rank had nothing else to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineTime {
    /// Of all collectives.
    pub carried: Duration,
    /// The rank stood still until a collective was over, its peers being there already.
    pub waited: Duration,
}

/// [`run_threads_delayed`], and what became of the time of each rank's line. The processor's own haste or delay is in neither number.
///
/// # Panics
/// If `size` is 0.
pub fn run_threads_timed<R: Send>(
    size: usize,
    threads: usize,
    delay: Delay,
    body: impl Fn(&Communicator) -> Result<R> + Sync,
) -> Result<(Vec<R>, Vec<LineTime>)> {
    let lines = Lines {
        free: vec![Instant::now(); size],
        times: vec![LineTime::default(); size],
        transfers: BTreeMap::new(),
        mail: BTreeMap::new(),
    };
    let network = Arc::new(Network { delay, lines: Mutex::new(lines) });
    let dress = |rank: usize, inner: Box<dyn Transport>| -> Box<dyn Transport> {
        Box::new(Delayed { inner, network: network.clone(), line: rank, group: Vec::new(), transfers: Cell::new(0) })
    };
    let returned = run_ranks(size, threads, |_, _| (), dress, body).map_err(|(_, error)| error)?;
    let times = network.lock().times.clone();
    Ok((returned, times))
}

/// Which communicator: number and color of each split that led to it. The same on all its ranks, and on no others.
type GroupKey = Vec<(u64, u32)>;

struct Network {
    delay: Delay,
    lines: Mutex<Lines>,
}

struct Lines {
    /// By rank of the world: when its line has carried all it was given.
    free: Vec<Instant>,
    /// By rank of the world.
    times: Vec<LineTime>,
    /// Those that not all of their ranks have left.
    transfers: BTreeMap<(GroupKey, u64), Transfer>,
    /// When each message arrives, by group, from, to and tag.
    mail: BTreeMap<(GroupKey, usize, usize, u32), VecDeque<Instant>>,
}

/// One collective on the wire.
#[derive(Default)]
struct Transfer {
    /// Lines of the ranks that have come.
    lines: Vec<usize>,
    /// Known once all have come.
    end: Option<Instant>,
    left: usize,
}

impl Network {
    /// Foreign code never runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rank's hold on a transfer. It says so when it is dropped.
struct Hold {
    network: Arc<Network>,
    /// Of the rank.
    line: usize,
    key: (GroupKey, u64),
    size: usize,
}

impl Hold {
    /// When the transfer is over; None while a rank has not come.
    fn end(&self) -> Option<Instant> {
        self.network.lock().transfers.get(&self.key).and_then(|transfer| transfer.end)
    }

    /// Returns when the transfer is over. All ranks have come: the inner transport has met.
    fn sit_out(&self) {
        if let Some(end) = self.end() {
            let rest = end.saturating_duration_since(Instant::now());
            self.network.lock().times[self.line].waited += rest;
            std::thread::sleep(rest);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut lines = self.network.lock();
        let transfer = lines.transfers.entry(self.key.clone()).or_default();
        transfer.left += 1;
        if transfer.left == self.size {
            lines.transfers.remove(&self.key);
        }
    }
}

fn sleep_until(end: Instant) {
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
}

/// A transport whose messages take time.
struct Delayed {
    inner: Box<dyn Transport>,
    network: Arc<Network>,
    /// Rank in the world.
    line: usize,
    group: GroupKey,
    /// Collectives of this group so far.
    transfers: Cell<u64>,
}

impl Delayed {
    /// Gives this rank's part of the next transfer to the wire; the last rank to do so starts it.
    fn hand_over(&self, bytes: usize) -> Hold {
        let number = self.transfers.get() + 1;
        self.transfers.set(number);
        let key = (self.group.clone(), number);
        let mut all = self.network.lock();
        let lines = &mut *all;
        let transfer = lines.transfers.entry(key.clone()).or_default();
        transfer.lines.push(self.line);
        if transfer.lines.len() == self.inner.size() {
            let begin = transfer.lines.iter().map(|&line| lines.free[line]).fold(Instant::now(), Instant::max);
            let end = begin + self.network.delay.of(bytes);
            transfer.end = Some(end);
            for &line in &transfer.lines {
                lines.free[line] = end;
                lines.times[line].carried += self.network.delay.of(bytes);
            }
        }
        Hold { network: self.network.clone(), line: self.line, key, size: self.inner.size() }
    }

    /// A collective that is over when the wire has carried it.
    fn carried<V>(&self, bytes: usize, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let hold = self.hand_over(bytes);
        let made = make()?;
        hold.sit_out();
        Ok(made)
    }
}

fn bytes_of(slice: &SliceMut<'_>) -> usize {
    slice.len() * slice.as_slice().element().bytes()
}

impl Transport for Delayed {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn checks_calls(&self, call: &Call) -> bool {
        self.inner.checks_calls(call)
    }

    fn barrier(&self) -> Result<()> {
        self.carried(0, || self.inner.barrier())
    }

    fn broadcast(&self, buf: SliceMut<'_>, root: usize) -> Result<()> {
        self.carried(bytes_of(&buf), || self.inner.broadcast(buf, root))
    }

    fn all_reduce(&self, buf: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        self.carried(bytes_of(&buf), || self.inner.all_reduce(buf, op))
    }

    fn reduce_scatter(&self, send: Slice<'_>, counts: &[usize], recv: SliceMut<'_>, op: ReduceOp) -> Result<()> {
        let bytes = send.len() * send.element().bytes();
        self.carried(bytes, || self.inner.reduce_scatter(send, counts, recv, op))
    }

    fn all_gather(&self, send: Slice<'_>, counts: &[usize], recv: SliceMut<'_>) -> Result<()> {
        self.carried(bytes_of(&recv), || self.inner.all_gather(send, counts, recv))
    }

    fn all_gather_in_place(&self, buf: SliceMut<'_>, counts: &[usize]) -> Result<()> {
        self.carried(bytes_of(&buf), || self.inner.all_gather_in_place(buf, counts))
    }

    fn send(&self, buf: Slice<'_>, to: usize, tag: u32) -> Result<()> {
        let key = (self.group.clone(), self.rank(), to, tag);
        let mut lines = self.network.lock();
        let begin = lines.free[self.line].max(Instant::now());
        let end = begin + self.network.delay.of(buf.len() * buf.element().bytes());
        lines.free[self.line] = end;
        lines.mail.entry(key).or_default().push_back(end);
        drop(lines);
        self.inner.send(buf, to, tag)
    }

    fn recv(&self, buf: SliceMut<'_>, from: usize, tag: u32) -> Result<()> {
        self.inner.recv(buf, from, tag)?;
        let key = (self.group.clone(), from, self.rank(), tag);
        let arrival = self.network.lock().mail.get_mut(&key).and_then(VecDeque::pop_front);
        arrival.into_iter().for_each(sleep_until);
        Ok(())
    }

    fn has_message(&self, from: usize, tag: u32) -> Result<bool> {
        if !self.inner.has_message(from, tag)? {
            return Ok(false);
        }
        let key = (self.group.clone(), from, self.rank(), tag);
        let lines = self.network.lock();
        let arrival = lines.mail.get(&key).and_then(|queue| queue.front());
        Ok(arrival.is_none_or(|arrival| *arrival <= Instant::now()))
    }

    fn split(&self, color: u32) -> Result<Box<dyn Transport>> {
        let inner = self.carried(0, || self.inner.split(color))?;
        let mut group = self.group.clone();
        group.push((self.transfers.get(), color));
        let (network, line, transfers) = (self.network.clone(), self.line, Cell::new(0));
        Ok(Box::new(Delayed { inner, network, line, group, transfers }))
    }

    fn start_all_reduce(&self, buf: OwnedSlice, op: ReduceOp) -> Result<Box<dyn PendingReduce>> {
        let hold = self.hand_over(buf.len() * buf.element().bytes());
        Ok(Box::new(OnTheWire { inner: self.inner.start_all_reduce(buf, op)?, hold }))
    }

    fn start_reduce_scatter(
        &self,
        send: OwnedSlice,
        room: OwnedSlice,
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Box<dyn PendingReduce>> {
        let hold = self.hand_over(send.len() * send.element().bytes());
        Ok(Box::new(OnTheWire { inner: self.inner.start_reduce_scatter(send, room, counts, op)?, hold }))
    }

    fn start_all_gather(&self, send: OwnedSlice, counts: &[usize]) -> Result<Box<dyn PendingReduce>> {
        let hold = self.hand_over(counts.iter().sum::<usize>() * send.element().bytes());
        Ok(Box::new(OnTheWire { inner: self.inner.start_all_gather(send, counts)?, hold }))
    }

    fn abort(&self, code: i32) -> ! {
        self.inner.abort(code)
    }

    fn finish(&self) -> Result<()> {
        self.inner.finish()
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn has_processes(&self) -> bool {
        self.inner.has_processes()
    }

    fn library(&self) -> String {
        self.inner.library()
    }

    fn node_name(&self) -> String {
        self.inner.node_name()
    }
}

/// A started reduction: over when both the ranks and the wire are done with it.
struct OnTheWire {
    inner: Box<dyn PendingReduce>,
    hold: Hold,
}

impl PendingReduce for OnTheWire {
    fn wait(self: Box<Self>) -> Result<OwnedSlice> {
        let OnTheWire { inner, hold } = *self;
        let sums = inner.wait()?;
        hold.sit_out();
        Ok(sums)
    }

    fn wait_with_buffers(self: Box<Self>) -> Result<[OwnedSlice; 2]> {
        let OnTheWire { inner, hold } = *self;
        let buffers = inner.wait_with_buffers()?;
        hold.sit_out();
        Ok(buffers)
    }

    fn progress(&mut self) -> Result<bool> {
        Ok(self.inner.progress()? && self.hold.end().is_some_and(|end| end <= Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Delay = Delay { latency: Duration::from_millis(100), seconds_per_byte: 2.5e-5 };
    const WORDS: usize = 1009; // of u32: 100 ms

    fn expected(words: usize) -> Duration {
        DELAY.of(words * size_of::<u32>())
    }

    /// Processor time of this thread, where the system tells it.
    fn processor_time() -> Option<Duration> {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        told.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }

    #[test]
    fn a_started_sum_takes_its_time_from_the_last_start_and_no_processor() {
        for size in [1, 2, 3] {
            let last_sleeps = Duration::from_millis(300);
            let times = run_threads_delayed(size, 1, DELAY, |comm| {
                comm.barrier()?;
                if comm.rank() + 1 == size {
                    std::thread::sleep(last_sleeps);
                }
                let begun = Instant::now();
                let started = comm.start_all_reduce_sum(vec![1u32; WORDS])?;
                let starting = begun.elapsed();
                let used = processor_time();
                assert_eq!(started.wait()?, vec![size as u32; WORDS]);
                let used = processor_time().zip(used).map_or(Duration::ZERO, |(after, before)| after - before);
                assert!(used < Duration::from_millis(20), "{used:?} of processor");
                Ok((begun, starting, Instant::now()))
            })
            .unwrap();
            let last_start = times[size - 1].0;
            for (_, starting, ended) in times {
                assert!(starting < last_sleeps / 2, "starting took {starting:?} on {size} ranks");
                let took = ended - last_start;
                assert!(took >= expected(WORDS), "{took:?} on {size} ranks");
            }
        }
    }

    #[test]
    fn what_is_done_meanwhile_is_hidden() {
        let waits = run_threads_delayed(3, 1, DELAY, |comm| {
            comm.barrier()?;
            let mut started = comm.start_all_reduce_sum(vec![1u32; WORDS])?;
            std::thread::sleep(expected(WORDS) + Duration::from_millis(50));
            started.progress()?;
            let since = Instant::now();
            started.wait()?;
            Ok(since.elapsed())
        });
        for waited in waits.unwrap() {
            assert!(waited < expected(WORDS) / 2, "{waited:?} were left to wait");
        }
    }

    #[test]
    fn messages_follow_one_another_on_a_line_in_the_order_of_their_start() {
        for size in [2, 5] {
            run_threads_delayed(size, 1, DELAY, |comm| {
                comm.barrier()?;
                let since = Instant::now();
                let mut counts = vec![0; size];
                counts[size - 1] = WORDS;
                let sums = comm.start_all_reduce_sum(vec![2u32; WORDS])?;
                let parts = comm.start_reduce_scatter_sum(vec![3u32; WORDS], &counts)?;
                // The later one is waited for first: it ends second all the same.
                assert_eq!(parts.wait()?, vec![3 * size as u32; counts[comm.rank()]]);
                assert!(since.elapsed() >= 2 * expected(WORDS), "{:?}", since.elapsed());
                assert_eq!(sums.wait()?, vec![2 * size as u32; WORDS]);
                comm.all_reduce_sum(&mut [1u32])?;
                assert!(since.elapsed() >= 2 * expected(WORDS) + expected(1), "{:?}", since.elapsed());
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn lines_tell_what_was_hidden() {
        let (_, times) = run_threads_timed(2, 1, DELAY, |comm| {
            let hidden = comm.start_all_reduce_sum(vec![2u32; WORDS])?;
            std::thread::sleep(2 * expected(WORDS));
            hidden.wait()?;
            let bare = comm.start_all_reduce_sum(vec![2u32; 9 * WORDS])?;
            bare.wait().map(|_| ())
        })
        .unwrap();
        for LineTime { carried, waited } in times {
            assert!(carried >= expected(WORDS) + expected(9 * WORDS), "{carried:?} on the wire");
            assert!(
                waited <= carried - expected(WORDS) && !waited.is_zero(),
                "{waited:?} of {carried:?} were waited for"
            );
        }
    }

    #[test]
    fn lines_of_apart_groups_carry_at_once() {
        let times = run_threads_delayed(4, 1, DELAY, |comm| {
            let half = comm.split(comm.rank() as u32 % 2)?;
            comm.barrier()?;
            let since = Instant::now();
            let mut sums = vec![1u32; 9 * WORDS];
            half.all_reduce_sum(&mut sums)?;
            assert_eq!(sums[0], 2);
            Ok(since.elapsed())
        });
        for took in times.unwrap() {
            assert!(took >= expected(9 * WORDS) && took < 2 * expected(9 * WORDS), "{took:?}");
        }
    }

    #[test]
    fn a_message_comes_when_the_wire_has_carried_it() {
        let times = run_threads_delayed(2, 1, DELAY, |comm| {
            let since = Instant::now();
            if comm.is_root() {
                comm.send(&[1u32; WORDS], 1, 4)?;
                comm.send(&[2u32; WORDS], 1, 4)?;
                return Ok([since, Instant::now()]);
            }
            let mut words = [0u32; WORDS];
            while !comm.try_recv(&mut words, 0, 4)? {}
            let first = Instant::now();
            comm.recv(&mut words, 0, 4)?;
            assert_eq!(words, [2; WORDS]);
            Ok([first, Instant::now()])
        });
        let [[sending, sent], [first, second]] = times.unwrap().try_into().unwrap();
        assert!(sent - sending < expected(WORDS), "the sender does not wait");
        assert!(first - sending >= expected(WORDS) && second - sending >= 2 * expected(WORDS));
    }

    #[test]
    fn ranks_that_differ_are_told_at_once() {
        let slow = Delay { latency: Duration::from_secs(3600), ..DELAY };
        let differ = run_threads_delayed(3, 1, slow, |comm| match comm.rank() {
            1 => comm.start_all_reduce_sum(vec![1u32; 2])?.wait().map(|_| ()),
            _ => comm.barrier(),
        });
        assert!(differ.unwrap_err().to_string().contains("rank 1: all_reduce_sum (started) #1 u32×2 at"));
    }
}
