//! What a rank says of itself, as one packet.

use std::time::Duration;

use crate::comm::Doing;

/// Most bytes of a call's description in a beat.
const CALL_BYTES: usize = 192;

const MAGIC: [u8; 4] = *b"csb1";
const HEAD_BYTES: usize = 36;

/// What a rank says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Drawn once per job: beats of strangers are passed over.
    pub job: u64,
    pub rank: u32,
    /// 0, or why this rank was told to stop.
    pub stop: u8,
    /// Who hears this ends at once: some rank is lost, and has been named.
    pub ends: bool,
    /// Whole milliseconds of `since`; texts are cut at [`CALL_BYTES`].
    pub doing: Doing,
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
        let (last, current) = (cut(&self.doing.last), cut(&self.doing.current));
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.job.to_le_bytes());
        bytes.extend(self.rank.to_le_bytes());
        bytes.extend(self.doing.finished.to_le_bytes());
        bytes.extend((self.doing.since.as_millis() as u64).to_le_bytes());
        let flags = u8::from(self.ends) << 1 | u8::from(self.doing.is_over);
        bytes.extend([self.stop, flags, last.len() as u8, current.len() as u8]);
        bytes.extend(last.as_bytes());
        bytes.extend(current.as_bytes());
        bytes
    }

    /// `None`: not a beat of this job. Not collective.
    pub fn from_bytes(bytes: &[u8], job: u64) -> Option<Beat> {
        let (head, texts) = bytes.split_at_checked(HEAD_BYTES)?;
        let long = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let (last, current) = texts.split_at_checked(head[34] as usize)?;
        if head[..4] != MAGIC || long(4)? != job || current.len() != head[35] as usize {
            return None;
        }
        Some(Beat {
            job,
            rank: head[12..16].try_into().map(u32::from_le_bytes).ok()?,
            stop: head[32],
            ends: head[33] & 2 != 0,
            doing: Doing {
                finished: long(16)?,
                since: Duration::from_millis(long(24)?),
                is_over: head[33] & 1 != 0,
                last: String::from_utf8(last.to_vec()).ok()?,
                current: String::from_utf8(current.to_vec()).ok()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_comes_back_and_strangers_and_torn_ones_do_not() {
        let doing = |last: String| Doing {
            finished: 1 << 40,
            last,
            current: "agree #4".into(),
            since: Duration::from_millis(1234),
            is_over: true,
        };
        let sent = Beat { job: 7, rank: 5, stop: 3, ends: false, doing: doing("all_reduce_sum #3".into()) };
        let bytes = sent.to_bytes();
        assert_eq!(Beat::from_bytes(&bytes, 7), Some(sent.clone()));
        assert_eq!(Beat::from_bytes(&bytes, 8), None);
        for end in 0..bytes.len() {
            assert_eq!(Beat::from_bytes(&bytes[..end], 7), None, "{end}");
        }
        let ends = Beat { ends: true, doing: Doing::default(), ..sent };
        assert_eq!(Beat::from_bytes(&ends.to_bytes(), 7), Some(ends.clone()));
        let long = Beat { doing: doing("ä".repeat(CALL_BYTES)), ..ends };
        assert_eq!(Beat::from_bytes(&long.to_bytes(), 7).unwrap().doing.last, "ä".repeat(CALL_BYTES / 2));
    }
}
