//! What follows from beats that came or did not. Pure: no sockets, no clock; times are counted from any beginning of this process.

use std::time::Duration;

use super::beat::Beat;
use crate::comm::Doing;

/// A peer that was never heard is said after this time: packets may be blocked between the hosts.
const FIRST_BEAT_WITHIN: Duration = Duration::from_secs(10);

/// Ranks that lost rank 0 wait this much longer, so that rank 0, which sees all, speaks first; and each a little longer than the one
/// before, so that one of them speaks first.
const AFTER_ROOT: Duration = Duration::from_millis(500);
const AFTER_RANK: Duration = Duration::from_millis(600);

/// Whoever looks more rarely than this many beats was stopped itself, and has no right to judge. Fewer than fit into the timeout.
const PAUSED: u32 = 3;
/// Beats that fit into the shortest timeout.
const LEAST: u32 = 4;

/// A job whose ranks all wait for one another ends after so many timeouts: no message takes that long.
const STUCK: u32 = 10;

/// What a look at the peers finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Heard once, and silent for too long: the job must end.
    Lost { rank: usize, silent: Duration },
    /// Not heard since the start; said once, by rank 0. Such peers are not watched.
    NeverHeard(Vec<usize>),
    /// All live, but none has finished a call for the timeout, and some wait; said once until one does.
    Stalled,
    /// All have been waiting inside calls for many timeouts: the job must end.
    Stuck(Duration),
}

#[derive(Clone, Debug)]
struct Peer {
    heard: Duration,
    doing: Doing,
    stop: u8,
    /// When `finished` last changed.
    moved: Duration,
}

/// What one rank knows of the others: rank 0 watches all of them, these watch rank 0.
#[derive(Clone, Debug)]
pub struct Watch {
    rank: usize,
    timeout: Duration,
    paused: Duration,
    began: Duration,
    looked: Duration,
    peers: Vec<Option<Peer>>,
    is_warned: bool,
    is_said: bool,
}

impl Watch {
    /// * `timeout`: longest silence; at least some beats.
    /// * `every`: between two beats, and two looks.
    /// * `now`: the time all others are compared with.
    pub fn new(rank: usize, size: usize, timeout: Duration, every: Duration, now: Duration) -> Watch {
        let timeout = timeout.max(every * LEAST);
        let (peers, paused) = (vec![None; size], every * PAUSED);
        Watch { rank, timeout, paused, began: now, looked: now, peers, is_warned: false, is_said: false }
    }

    /// The longest silence.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn watches(&self, rank: usize) -> bool {
        (self.rank == 0) != (rank == 0)
    }

    /// Takes in a beat of a watched rank, or of this one; others are passed over.
    pub fn hear(&mut self, beat: Beat, now: Duration) {
        let rank = beat.rank as usize;
        if rank >= self.peers.len() || (rank != self.rank && !self.watches(rank)) {
            return;
        }
        let before = self.peers[rank].as_ref();
        let moved = before.filter(|peer| peer.doing.finished == beat.doing.finished).map(|peer| peer.moved);
        self.is_said &= moved.is_some();
        let moved = moved.unwrap_or(now);
        self.peers[rank] = Some(Peer { heard: now, doing: beat.doing, stop: beat.stop, moved });
    }

    /// What is to be said or done now. All that has come is heard before.
    pub fn look(&mut self, now: Duration) -> Vec<Finding> {
        let paused = now.saturating_sub(self.looked);
        self.looked = now;
        if paused > self.paused {
            // But for one beat: who is always late would never find anybody lost. What has come since is no later than now.
            let shift = paused - self.paused / PAUSED;
            self.began += shift;
            for peer in self.peers.iter_mut().flatten() {
                (peer.heard, peer.moved) = ((peer.heard + shift).min(now), (peer.moved + shift).min(now));
            }
        }
        let mut findings = Vec::new();
        let limit = match self.rank {
            0 => self.timeout,
            rank => self.timeout + AFTER_ROOT + AFTER_RANK * rank.min(5) as u32,
        };
        for (rank, peer) in self.peers.iter().enumerate().filter(|(rank, _)| self.watches(*rank)) {
            let silent = peer.as_ref().map_or(Duration::ZERO, |peer| now.saturating_sub(peer.heard));
            if silent >= limit && !peer.as_ref().is_some_and(|peer| peer.doing.is_over) {
                findings.push(Finding::Lost { rank, silent });
            }
        }
        // What all could say is said by one.
        if self.rank == 0 {
            findings.extend(self.unheard(now));
            findings.extend(self.standstill(now));
        }
        findings
    }

    fn unheard(&mut self, now: Duration) -> Option<Finding> {
        if self.is_warned || now.saturating_sub(self.began) < FIRST_BEAT_WITHIN.max(self.paused * 2) {
            return None;
        }
        self.is_warned = true;
        let never: Vec<usize> = (1..self.peers.len()).filter(|&rank| self.peers[rank].is_none()).collect();
        (!never.is_empty()).then_some(Finding::NeverHeard(never))
    }

    /// Whether all stand still, with some that wait inside a call.
    fn standstill(&mut self, now: Duration) -> Option<Finding> {
        let known = || self.peers.iter().flatten();
        let waiting = |peer: &Peer| match peer.doing.current.is_empty() {
            true => Duration::ZERO,
            false => peer.doing.since + now.saturating_sub(peer.heard),
        };
        let still = known().map(|peer| now.saturating_sub(peer.moved)).min()?;
        if still < self.timeout || known().map(waiting).max()? < self.timeout {
            return None;
        }
        let all_wait = self.peers.iter().map(|peer| peer.as_ref().map_or(Duration::ZERO, waiting)).min()?;
        if all_wait >= self.timeout * STUCK {
            return Some(Finding::Stuck(all_wait));
        }
        (!std::mem::replace(&mut self.is_said, true)).then_some(Finding::Stalled)
    }

    /// What a rank was last heard to do.
    pub fn doing(&self, rank: usize) -> Option<&Doing> {
        self.peers[rank].as_ref().map(|peer| &peer.doing)
    }

    /// The strongest reason to stop that any rank has told; 0: none.
    pub fn stop(&self) -> u8 {
        self.peers.iter().flatten().map(|peer| peer.stop).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(1);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn beat(rank: u32, finished: u64) -> Beat {
        let doing = Doing { finished, last: "all_reduce_sum #3".into(), ..Doing::default() };
        Beat { job: 7, rank, doing, ..Beat::default() }
    }

    fn waiting(rank: u32, finished: u64, since: u64) -> Beat {
        let beat = beat(rank, finished);
        Beat { doing: Doing { current: "agree #4".into(), since: seconds(since), ..beat.doing }, ..beat }
    }

    /// Looks each second from `from` to `to`, after `hear`; the findings with their times.
    fn looks(watch: &mut Watch, from: u64, to: u64, hear: impl Fn(&mut Watch, u64)) -> Vec<(u64, Finding)> {
        let mut found = Vec::new();
        for now in from..=to {
            hear(watch, now);
            found.extend(watch.look(seconds(now)).into_iter().map(|finding| (now, finding)));
        }
        found
    }

    #[test]
    fn the_root_ends_the_job_for_a_silent_peer_and_the_others_leave_it_time_to() {
        let mut root = Watch::new(0, 3, seconds(4), BEAT, seconds(0));
        let found = looks(&mut root, 1, 5, |watch, now| {
            watch.hear(beat(2, now), seconds(now));
            if now == 1 {
                watch.hear(beat(1, 1), seconds(1));
            }
        });
        assert_eq!(found, [(5, Finding::Lost { rank: 1, silent: seconds(4) })]);
        let mut other = Watch::new(2, 3, seconds(4), BEAT, seconds(0));
        other.hear(beat(1, 1), seconds(0)); // not watched
        other.hear(beat(0, 1), seconds(0));
        let found = looks(&mut other, 1, 6, |_, _| ());
        assert_eq!(found, [(6, Finding::Lost { rank: 0, silent: seconds(6) })]);
    }

    #[test]
    fn a_peer_that_came_to_its_end_may_be_silent() {
        let mut root = Watch::new(0, 2, seconds(4), BEAT, seconds(0));
        let mut last = beat(1, 9);
        last.doing.is_over = true;
        root.hear(last, seconds(0));
        assert_eq!(looks(&mut root, 1, 20, |_, _| ()), []);
    }

    #[test]
    fn who_was_stopped_itself_gives_the_others_time() {
        let mut root = Watch::new(0, 2, seconds(4), BEAT, seconds(0));
        root.hear(beat(1, 1), seconds(0));
        assert_eq!(root.look(seconds(1)), []);
        assert_eq!(root.look(seconds(100)), [], "a job that was suspended and goes on");
        assert_eq!(looks(&mut root, 101, 102, |_, _| ()), [(102, Finding::Lost { rank: 1, silent: seconds(4) })]);
        // A beat that waited to be heard is not one that is still to come.
        let mut root = Watch::new(0, 2, seconds(4), BEAT, seconds(0));
        root.hear(beat(1, 1), seconds(100));
        assert_eq!(looks(&mut root, 100, 104, |_, _| ()), [(104, Finding::Lost { rank: 1, silent: seconds(4) })]);
    }

    /// Beats of large jobs are rare: a look is not taken for the first after a pause, and a timeout is not shorter than a beat.
    #[test]
    fn rare_beats_are_no_pauses_and_no_silence() {
        let every = seconds(5);
        let mut root = Watch::new(0, 3, seconds(2), every, seconds(0));
        assert_eq!(root.timeout(), seconds(20));
        let mut found = Vec::new();
        for now in (0..60).step_by(5) {
            root.hear(beat(1, now), seconds(now));
            if now == 0 {
                root.hear(beat(2, 1), seconds(now));
            }
            found.extend(root.look(seconds(now)).into_iter().map(|finding| (now, finding)));
        }
        assert_eq!(found[0], (20, Finding::Lost { rank: 2, silent: seconds(20) }));
        assert!(found.iter().all(|(_, finding)| matches!(finding, Finding::Lost { rank: 2, .. })), "{found:?}");
    }

    #[test]
    fn a_peer_never_heard_is_said_once_and_ends_nothing() {
        let mut root = Watch::new(0, 3, seconds(4), BEAT, seconds(0));
        let found = looks(&mut root, 0, 30, |watch, now| watch.hear(beat(2, now), seconds(now)));
        assert_eq!(found, [(10, Finding::NeverHeard(vec![1]))]);
        let mut other = Watch::new(1, 3, seconds(4), BEAT, seconds(0));
        assert_eq!(looks(&mut other, 0, 30, |_, _| ()), []);
    }

    #[test]
    fn a_standstill_is_said_once_and_only_where_someone_waits() {
        let hear = |computes: bool, until: u64| {
            move |watch: &mut Watch, now: u64| {
                let finished = now.min(until);
                watch.hear(beat(0, finished), seconds(now));
                let since = now - finished;
                watch.hear(if computes { beat(1, finished) } else { waiting(1, finished, since) }, seconds(now));
            }
        };
        let mut root = Watch::new(0, 2, seconds(4), BEAT, seconds(0));
        assert_eq!(looks(&mut root, 0, 60, hear(true, 2)), [], "both compute");
        let mut root = Watch::new(0, 2, seconds(4), BEAT, seconds(0));
        assert_eq!(looks(&mut root, 0, 60, hear(false, 2)), [(6, Finding::Stalled)]);
        assert_eq!(looks(&mut root, 61, 80, hear(false, 63)), [(67, Finding::Stalled)], "another one");
        assert_eq!(root.doing(1).unwrap().current, "agree #4");
    }

    #[test]
    fn ranks_that_all_wait_for_one_another_come_to_an_end() {
        let mut root = Watch::new(0, 2, seconds(4), BEAT, seconds(0));
        let found = looks(&mut root, 0, 40, |watch, now| {
            watch.hear(waiting(0, 1, now), seconds(now));
            watch.hear(waiting(1, 1, now), seconds(now));
        });
        assert_eq!(found, [(4, Finding::Stalled), (40, Finding::Stuck(seconds(40)))]);
    }

    #[test]
    fn a_reason_to_stop_is_passed_on() {
        let mut root = Watch::new(0, 3, seconds(4), BEAT, seconds(0));
        assert_eq!(root.stop(), 0);
        root.hear(Beat { stop: 2, ..beat(2, 1) }, seconds(1));
        root.hear(beat(1, 1), seconds(1));
        assert_eq!(root.stop(), 2);
    }
}
