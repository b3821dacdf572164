//! Whether peers still live: what a beat says, and what follows from beats that came or did not.
//!
//! Pure: no sockets, no clock. Times are counted from any common beginning of this process.

use std::time::Duration;

/// How often a rank says that it lives.
pub const BEAT_EVERY: Duration = Duration::from_millis(500);

/// A peer that was never heard is said after this time: beats may be blocked between the hosts.
pub const FIRST_BEAT_WITHIN: Duration = Duration::from_secs(10);

/// Ranks that lost rank 0 wait this much longer, so that rank 0, which sees all, speaks first.
const AFTER_ROOT: Duration = Duration::from_secs(2);

/// Most bytes of a call's description in a beat.
pub const CALL_BYTES: usize = 192;

const MAGIC: [u8; 4] = *b"csb1";
const HEAD_BYTES: usize = 4 + 8 + 4 + 1 + 8 + 8 + 1 + 1;

/// What a rank says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Drawn once per job: beats of strangers are passed over.
    pub job: u64,
    pub rank: u32,
    /// 0, or why this rank was told to stop.
    pub stop: u8,
    /// Collectives finished.
    pub finished: u64,
    /// Milliseconds since the last of them finished.
    pub since_ms: u64,
    /// The last finished call; at most [`CALL_BYTES`] bytes, more are cut.
    pub last: String,
    /// The call it is in; empty while it computes.
    pub current: String,
}

/// At most [`CALL_BYTES`] bytes of `text`, whole characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(CALL_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Beat {
    /// One packet. Not collective.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (last, current) = (cut(&self.last), cut(&self.current));
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.job.to_le_bytes());
        bytes.extend(self.rank.to_le_bytes());
        bytes.push(self.stop);
        bytes.extend(self.finished.to_le_bytes());
        bytes.extend(self.since_ms.to_le_bytes());
        bytes.extend([last.len() as u8, current.len() as u8]);
        bytes.extend(last.as_bytes());
        bytes.extend(current.as_bytes());
        bytes
    }

    /// `None`: not a beat of this job. Not collective.
    pub fn from_bytes(bytes: &[u8], job: u64) -> Option<Beat> {
        let (head, texts) = bytes.split_at_checked(HEAD_BYTES)?;
        let long = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let (last, current) = texts.split_at_checked(head[33] as usize)?;
        if head[..4] != MAGIC || long(4)? != job || current.len() != head[34] as usize {
            return None;
        }
        Some(Beat {
            job,
            rank: head[12..16].try_into().map(u32::from_le_bytes).ok()?,
            stop: head[16],
            finished: long(17)?,
            since_ms: long(25)?,
            last: String::from_utf8(last.to_vec()).ok()?,
            current: String::from_utf8(current.to_vec()).ok()?,
        })
    }
}

/// What a look at the peers finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Heard once, and silent for too long: the job must end.
    Lost { rank: usize, silent: Duration },
    /// Not heard since the start; said once. Such peers are not watched.
    NeverHeard(Vec<usize>),
    /// Lives, but has finished no call for the timeout; said once until it finishes one.
    NoProgress { rank: usize },
}

#[derive(Clone, Debug, Default)]
struct Peer {
    heard: Option<Duration>,
    beat: Beat,
    /// When `finished` last changed.
    moved: Duration,
    is_said: bool,
}

/// The peers of one rank: rank 0 watches all others, these watch rank 0.
#[derive(Clone, Debug)]
pub struct Watch {
    root: bool,
    timeout: Duration,
    began: Duration,
    first: usize,
    peers: Vec<Peer>,
    is_warned: bool,
}

impl Watch {
    /// Not collective. `timeout`: longest silence; `now`: the time all others are compared with.
    pub fn new(rank: usize, size: usize, timeout: Duration, now: Duration) -> Watch {
        let (root, first) = (rank == 0, usize::from(rank == 0));
        let peers = vec![Peer::default(); if root { size - 1 } else { 1 }];
        Watch { root, timeout, began: now, first, peers, is_warned: false }
    }

    /// Takes in a beat; those of ranks that are not watched are passed over. Not collective.
    pub fn hear(&mut self, beat: Beat, now: Duration) {
        let at = (beat.rank as usize).checked_sub(self.first);
        let Some(peer) = at.and_then(|at| self.peers.get_mut(at)) else { return };
        if peer.heard.is_none() || peer.beat.finished != beat.finished {
            (peer.moved, peer.is_said) = (now, false);
        }
        (peer.heard, peer.beat) = (Some(now), beat);
    }

    /// What is to be said or done now. Not collective.
    pub fn look(&mut self, now: Duration) -> Vec<Finding> {
        let limit = if self.root { self.timeout } else { self.timeout + AFTER_ROOT };
        let (mut findings, mut unheard) = (Vec::new(), Vec::new());
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let rank = at + self.first;
            let Some(heard) = peer.heard else {
                unheard.push(rank);
                continue;
            };
            let silent = now.saturating_sub(heard);
            if silent >= limit {
                findings.push(Finding::Lost { rank, silent });
            } else if !peer.is_said && now.saturating_sub(peer.moved) >= self.timeout {
                peer.is_said = true;
                findings.push(Finding::NoProgress { rank });
            }
        }
        if !self.is_warned && now.saturating_sub(self.began) >= FIRST_BEAT_WITHIN {
            self.is_warned = true;
            if !unheard.is_empty() {
                findings.push(Finding::NeverHeard(unheard));
            }
        }
        findings
    }

    /// The last beat of a watched rank. Not collective.
    pub fn last_of(&self, rank: usize) -> Option<&Beat> {
        let peer = self.peers.get(rank.checked_sub(self.first)?)?;
        peer.heard.map(|_| &peer.beat)
    }

    /// The strongest reason to stop that any watched rank has told; 0: none. Not collective.
    pub fn stop(&self) -> u8 {
        self.peers.iter().map(|peer| peer.beat.stop).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn beat(rank: u32, finished: u64) -> Beat {
        Beat { job: 7, rank, finished, last: "all_reduce_sum #3".into(), current: "agree #4".into(), ..Beat::default() }
    }

    #[test]
    fn a_beat_comes_back_and_strangers_and_torn_ones_do_not() {
        let sent = Beat { stop: 3, since_ms: 1234, ..beat(5, 1 << 40) };
        let bytes = sent.to_bytes();
        assert_eq!(Beat::from_bytes(&bytes, 7), Some(sent));
        assert_eq!(Beat::from_bytes(&bytes, 8), None);
        for end in 0..bytes.len() {
            assert_eq!(Beat::from_bytes(&bytes[..end], 7), None, "{end}");
        }
        let long = Beat { last: "ä".repeat(CALL_BYTES), ..beat(1, 1) };
        assert_eq!(Beat::from_bytes(&long.to_bytes(), 7).unwrap().last, "ä".repeat(CALL_BYTES / 2));
    }

    #[test]
    fn the_root_ends_the_job_for_a_silent_peer_and_the_others_leave_it_time_to() {
        let mut root = Watch::new(0, 3, seconds(3), seconds(0));
        root.hear(beat(1, 1), seconds(1));
        root.hear(beat(2, 1), seconds(1));
        root.hear(beat(2, 2), seconds(3));
        assert_eq!(root.look(seconds(3)), []);
        assert_eq!(root.look(seconds(4)), [Finding::Lost { rank: 1, silent: seconds(3) }]);
        let mut other = Watch::new(2, 3, seconds(3), seconds(0));
        other.hear(beat(1, 1), seconds(1)); // not watched
        other.hear(beat(0, 1), seconds(1));
        let lost = |findings: &[Finding]| findings.iter().any(|f| matches!(f, Finding::Lost { .. }));
        assert!(!lost(&other.look(seconds(5))));
        assert_eq!(other.look(seconds(6)), [Finding::Lost { rank: 0, silent: seconds(5) }]);
    }

    #[test]
    fn a_peer_never_heard_is_said_once_and_ends_nothing() {
        let mut root = Watch::new(0, 3, seconds(3), seconds(0));
        assert_eq!(root.look(seconds(9)), []);
        root.hear(beat(2, 1), seconds(9));
        assert_eq!(root.look(seconds(10)), [Finding::NeverHeard(vec![1])]);
        assert_eq!(root.look(seconds(11)), []);
    }

    #[test]
    fn no_progress_is_said_once_per_stall_and_stop_is_passed_on() {
        let mut root = Watch::new(0, 2, seconds(3), seconds(0));
        let mut found = Vec::new();
        for now in 0..16 {
            root.hear(Beat { stop: (now > 12) as u8 * 2, ..beat(1, now / 8) }, seconds(now));
            assert_eq!(root.stop(), (now > 12) as u8 * 2);
            found.extend(root.look(seconds(now)).into_iter().map(|finding| (now, finding)));
        }
        assert_eq!(found, [(3, Finding::NoProgress { rank: 1 }), (11, Finding::NoProgress { rank: 1 })]);
        assert_eq!(root.last_of(1).unwrap().current, "agree #4");
    }
}
