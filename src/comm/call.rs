//! What a rank is calling: compared between ranks before data moves, and shown to people when the
//! ranks differ or wait for one another in vain.

use std::fmt;
use std::panic::Location;

use super::transport::ElementType;
use crate::error::Error;

/// Kinds of call, in the order in which traffic is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Barrier,
    AllReduce,
    ReduceScatter,
    AllGather,
    AllToAll,
    Broadcast,
    Send,
    Recv,
    Split,
    Agree,
    End,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Barrier,
        Kind::AllReduce,
        Kind::ReduceScatter,
        Kind::AllGather,
        Kind::AllToAll,
        Kind::Broadcast,
        Kind::Send,
        Kind::Recv,
        Kind::Split,
        Kind::Agree,
        Kind::End,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Barrier => "barrier",
            Kind::AllReduce => "all_reduce",
            Kind::ReduceScatter => "reduce_scatter",
            Kind::AllGather => "all_gather",
            Kind::AllToAll => "all_to_all",
            Kind::Broadcast => "broadcast",
            Kind::Send => "send",
            Kind::Recv => "recv",
            Kind::Split => "split",
            Kind::Agree => "agree",
            Kind::End => "end of the program",
        }
    }
}

/// One call of one rank.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// 1 for the first call on this communicator.
    pub sequence: u64,
    pub kind: Kind,
    /// `_sum`, `_vec`, …: which member of the kind.
    pub variant: &'static str,
    pub element: Option<ElementType>,
    /// `None` where ranks may differ (all-gather) or only the root knows (`broadcast_vec`).
    pub length: Option<usize>,
    /// The root of a broadcast, the partner of a send or receive.
    pub peer: Option<usize>,
    /// Further numbers that must be equal: a hash of the counts of a reduce-scatter, a tag.
    pub extra: u64,
    /// Number of the split call and the color that made this communicator; `None`: the world.
    pub group: Option<(u64, u32)>,
    pub site: &'static Location<'static>,
}

/// Bytes of a description that is exchanged between ranks.
pub const DESCRIPTION_BYTES: usize = 192;

impl Call {
    /// Equal on all ranks when the calls fit together; never negative. The call site does not
    /// enter: two branches may make the same call.
    pub fn fingerprint(&self) -> i64 {
        let element = self.element.map_or(0, |e| e as u64 + 1);
        let mut hash = Fnv::new();
        hash.add(self.sequence);
        hash.add(self.kind as u64);
        hash.bytes(self.variant.as_bytes());
        hash.add(element);
        hash.add(self.length.map_or(0, |n| n as u64 + 1));
        hash.add(self.peer.map_or(0, |p| p as u64 + 1));
        hash.add(self.extra);
        (hash.0 >> 1) as i64
    }

    /// The description in exactly [`DESCRIPTION_BYTES`] bytes, padded with zeros.
    pub fn description(&self) -> [u8; DESCRIPTION_BYTES] {
        let text = self.to_string();
        let mut end = text.len().min(DESCRIPTION_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; DESCRIPTION_BYTES];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        bytes
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} #{}", self.kind.name(), self.variant, self.sequence)?;
        if let Some(element) = self.element {
            write!(f, " {}", element.name())?;
            if let Some(length) = self.length {
                write!(f, "×{length}")?;
            }
        }
        match (self.kind, self.peer) {
            (Kind::Send, Some(to)) => write!(f, " to rank {to} tag {}", self.extra)?,
            (Kind::Recv, Some(from)) => write!(f, " from rank {from} tag {}", self.extra)?,
            (_, Some(root)) => write!(f, " root {root}")?,
            (Kind::ReduceScatter, None) => write!(f, " counts {:04x}", self.extra & 0xffff)?,
            _ => {}
        }
        if let Some((split, color)) = self.group {
            write!(f, " in color {color} of split #{split}")?;
        }
        write!(f, " at {}:{}", tail(self.site.file(), 80), self.site.line())
    }
}

/// The last `limit` bytes of a path, so that a long build directory does not hide the file.
fn tail(path: &str, limit: usize) -> &str {
    let mut first = path.len().saturating_sub(limit);
    while !path.is_char_boundary(first) {
        first += 1;
    }
    &path[first..]
}

/// The error every rank gets when calls differ. `calls[r]` describes the call of rank r.
pub fn mismatch(calls: &[String]) -> Error {
    Error::comm(format!("the ranks do not make the same call: {}", by_rank(calls)))
}

/// `rank 0: …; ranks 1, 3: …`: equal texts are said once, in the order of their lowest rank.
pub fn by_rank(texts: &[String]) -> String {
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    for (rank, text) in texts.iter().enumerate() {
        match groups.iter_mut().find(|(seen, _)| seen == text) {
            Some((_, ranks)) => ranks.push(rank),
            None => groups.push((text, vec![rank])),
        }
    }
    let part = |(text, ranks): &(&str, Vec<usize>)| match &ranks[..] {
        [one] => format!("rank {one}: {text}"),
        several => {
            let mut names: Vec<String> = several.iter().take(8).map(usize::to_string).collect();
            if several.len() > 8 {
                names.push(format!("… ({} in all)", several.len()));
            }
            format!("ranks {}: {text}", names.join(", "))
        }
    };
    groups.iter().map(part).collect::<Vec<_>>().join("; ")
}

/// A hash of numbers that must be equal on all ranks.
pub fn hash_counts(counts: &[usize]) -> u64 {
    let mut hash = Fnv::new();
    counts.iter().for_each(|&n| hash.add(n as u64));
    hash.0
}

/// A hash of a text, such as a name that ranks have in common.
#[cfg_attr(not(feature = "mpi"), allow(dead_code))]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::new();
    hash.bytes(bytes);
    hash.0
}

/// Fowler–Noll–Vo 1a, 64 bits: the same on every machine.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn add(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_calls_are_said_once() {
        let texts = ["a", "b", "a"].map(String::from);
        assert_eq!(by_rank(&texts), "ranks 0, 2: a; rank 1: b");
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        assert_eq!(tail("/home/ä/src/x.rs", 8), "src/x.rs");
        assert_eq!(tail("x.rs", 8), "x.rs");
    }
}
