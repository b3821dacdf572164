//! Work that several ranks share: jobs that depend on nothing but themselves, done anywhere, taken in their order.
//!
//! This room does not talk. A [`Crew`] carries bytes to the other ranks and back, and a [`Hand`] is what each of them does
//! with them. Alone, or on one rank, nothing is turned into bytes: the jobs go to this process's threads.

use super::convert::{csv, libsvm};
use super::hdf5::write::Packs;
use crate::error::{Error, ErrorKind, Result, caught};
use bytemuck::Pod;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut, Range};

/// The ranks that share work, seen from the one that has it. Messages to a rank, and its answers of one kind, keep their order.
pub trait Crew {
    /// Of every rank, this one first. At least one each.
    fn threads(&self) -> Vec<usize>;
    /// Gives a message to another rank. Does not wait for it.
    fn hand(&self, rank: usize, message: Message) -> Result<()>;
    /// The answer of a rank to the jobs of this kind that it was handed first, of those not answered yet.
    fn answer(&self, rank: usize, kind: u32) -> Result<Vec<u8>>;
}

/// What goes to another rank.
#[derive(Clone, Debug)]
pub struct Message {
    /// Of the work.
    pub kind: u32,
    /// Jobs, which are answered; or the work itself, which is not.
    pub wants_answer: bool,
    pub bytes: Vec<u8>,
}

/// Nobody else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Crew for Alone {
    fn threads(&self) -> Vec<usize> {
        vec![rayon::current_num_threads()]
    }

    fn hand(&self, rank: usize, _: Message) -> Result<()> {
        Err(Error::internal(format!("there is no rank {rank}")))
    }

    fn answer(&self, rank: usize, _: u32) -> Result<Vec<u8>> {
        Err(Error::internal(format!("there is no rank {rank}")))
    }
}

/// What is the same for many jobs, and how one is done.
pub(super) trait Work: Serialize + DeserializeOwned + Sync + 'static {
    /// Tells works apart where they arrive.
    const KIND: Kind;
    type Job<'a>: Serialize + Deserialize<'a> + Sync;
    type Done: Serialize + DeserializeOwned + Send;
    /// Room that a thread uses for one job after another.
    type Tool: Default;

    fn run(&self, job: &Self::Job<'_>, tool: &mut Self::Tool) -> Result<Self::Done>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pack,
    CsvScan,
    CsvRows,
    LibsvmScan,
    LibsvmRows,
    #[cfg(test)]
    Faulty,
}

impl Kind {
    const ALL: &[Kind] = &[
        Kind::Pack,
        Kind::CsvScan,
        Kind::CsvRows,
        Kind::LibsvmScan,
        Kind::LibsvmRows,
        #[cfg(test)]
        Kind::Faulty,
    ];
}

/// What all ranks are ready to do.
pub(super) struct Shared<'c, W> {
    crew: &'c dyn Crew,
    work: W,
    threads: Vec<usize>,
}

/// Jobs that are being done.
pub(super) struct Round<'c, D> {
    crew: &'c dyn Crew,
    kind: Kind,
    own: Vec<Result<D>>,
    /// Other ranks, in order, and how many jobs each has.
    away: Vec<(usize, usize)>,
}

impl<'c, W: Work> Shared<'c, W> {
    /// Tells all ranks of the work; it takes the place of an earlier one of its kind.
    pub(super) fn new(crew: &'c dyn Crew, work: W) -> Result<Shared<'c, W>> {
        let threads = crew.threads();
        if threads.len() > 1 {
            let message = Message { kind: W::KIND as u32, wants_answer: false, bytes: encode(&work)? };
            (1..threads.len()).try_for_each(|rank| crew.hand(rank, message.clone()))?;
        }
        Ok(Shared { crew, work, threads })
    }

    pub(super) fn work(&self) -> &W {
        &self.work
    }

    /// Of all ranks together.
    pub(super) fn n_threads(&self) -> usize {
        self.threads.iter().sum()
    }

    /// Gives the other ranks their jobs, and does this one's. What is left to this rank until [`Round::finish`] is done beside
    /// theirs.
    pub(super) fn start(&self, jobs: &[W::Job<'_>]) -> Result<Round<'c, W::Done>> {
        let shares = shares(jobs.len(), &self.threads);
        let mut away = Vec::new();
        for (rank, share) in shares.iter().enumerate().skip(1).filter(|(_, share)| !share.is_empty()) {
            let bytes = encode(&&jobs[share.clone()])?;
            self.crew.hand(rank, Message { kind: W::KIND as u32, wants_answer: true, bytes })?;
            away.push((rank, share.len()));
        }
        let own = run_all(&self.work, &jobs[shares[0].clone()]);
        Ok(Round { crew: self.crew, kind: W::KIND, own, away })
    }
}

impl<D: DeserializeOwned> Round<'_, D> {
    /// What came of each job, in their order. Rounds of a kind finish in the order of their starts. Errors: of the crew itself.
    pub(super) fn finish(self) -> Result<Vec<Result<D>>> {
        let mut done = self.own;
        for (rank, n) in self.away {
            let of_rank: Answer<D> = decode(&self.crew.answer(rank, self.kind as u32)?)?;
            let of_rank = of_rank.map_err(Failure::into_error)?;
            if of_rank.len() != n {
                return Err(Error::internal(format!("{} answers to {n} jobs", of_rank.len())));
            }
            done.extend(of_rank.into_iter().map(|one| one.map_err(Failure::into_error)));
        }
        Ok(done)
    }
}

/// What the first rank does beside its jobs (it reads, sends, and writes), as a part of all work of one thread. Measured with
/// `benches/convert.py`.
const LEADING: f64 = 0.15;

/// Which jobs each rank does: by threads, but fewer on the first, such that all end at the same time.
fn shares(n: usize, threads: &[usize]) -> Vec<Range<usize>> {
    let (own, others) = (threads[0] as f64, threads[1..].iter().sum::<usize>() as f64);
    // own share / own threads + LEADING = (1 − own share) / other threads
    let share = if others == 0.0 { 1.0 } else { (own * (1.0 - LEADING * others) / (own + others)).max(0.0) };
    let first = (n as f64 * share).round() as usize;
    let (total, mut before) = (others as usize, 0);
    let share = |&threads: &usize| {
        let begin = first + ((n - first) * before).div_ceil(total);
        before += threads;
        begin..first + ((n - first) * before).div_ceil(total)
    };
    std::iter::once(0..first).chain(threads[1..].iter().map(share)).collect()
}

fn run_all<W: Work>(work: &W, jobs: &[W::Job<'_>]) -> Vec<Result<W::Done>> {
    jobs.par_iter().with_max_len(1).map_init(W::Tool::default, |tool, job| work.run(job, tool)).collect()
}

/// A failure on its way to another rank.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    exit_code: i32,
    text: String,
}

impl Failure {
    fn of(error: &Error) -> Failure {
        Failure { exit_code: error.kind().exit_code(), text: error.to_string() }
    }

    fn into_error(self) -> Error {
        Error::new(ErrorKind::from_exit_code(self.exit_code), self.text)
    }
}

type Answer<D> = std::result::Result<Vec<std::result::Result<D, Failure>>, Failure>;
type Ready = Box<dyn Fn(&[u8]) -> Result<Vec<u8>>>;

/// What a rank that was handed messages does with them.
#[derive(Default)]
pub struct Hand {
    /// By [`Message::kind`].
    ready: BTreeMap<u32, Result<Ready>>,
}

impl Hand {
    /// Does what a message says; the answer, if it wants one. Not collective; rayon over jobs.
    pub fn take(&mut self, message: &Message) -> Option<Vec<u8>> {
        if !message.wants_answer {
            self.ready.insert(message.kind, ready_for(message.kind, &message.bytes));
            return None;
        }
        let done = match self.ready.get(&message.kind) {
            Some(Ok(ready)) => caught(|| ready(&message.bytes)).and_then(|done| done),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::internal(format!("jobs of kind {} came before their work", message.kind))),
        };
        Some(done.unwrap_or_else(|error| encode(&Answer::<()>::Err(Failure::of(&error))).unwrap_or_default()))
    }
}

fn ready_for(kind: u32, work: &[u8]) -> Result<Ready> {
    fn ready<W: Work>(work: &[u8]) -> Result<Ready> {
        let work: W = decode(work)?;
        Ok(Box::new(move |jobs| {
            let done = run_all(&work, &decode::<Vec<W::Job<'_>>>(jobs)?);
            let sent = done.into_iter().map(|done| done.map_err(|e| Failure::of(&e))).collect();
            encode(&Answer::<W::Done>::Ok(sent))
        }))
    }
    match Kind::ALL.iter().find(|of| **of as u32 == kind) {
        Some(Kind::Pack) => ready::<Packs>(work),
        Some(Kind::CsvScan) => ready::<csv::Scanning>(work),
        Some(Kind::CsvRows) => ready::<csv::Storing>(work),
        Some(Kind::LibsvmScan) => ready::<libsvm::Scanning>(work),
        Some(Kind::LibsvmRows) => ready::<libsvm::Reading>(work),
        #[cfg(test)]
        Some(Kind::Faulty) => ready::<tests::Faulty>(work),
        None => Err(Error::internal(format!("there is no work of kind {kind}"))),
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    postcard::to_extend(value, Vec::new()).map_err(|e| Error::internal(format!("work cannot be sent: {e}")))
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(unread)
}

fn unread(e: postcard::Error) -> Error {
    Error::internal(format!("work was not received whole: {e}"))
}

/// Numbers that travel as the bytes they are, not one by one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plain<T>(pub(super) Vec<T>);

impl<T> Deref for Plain<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Plain<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Pod> Serialize for Plain<T> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_bytes(bytemuck::cast_slice(&self.0))
    }
}

impl<'de, T: Pod> Deserialize<'de> for Plain<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Plain<T>, D::Error> {
        let bytes = <&[u8]>::deserialize(from)?;
        let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        let room = bytemuck::cast_slice_mut::<T, u8>(&mut values);
        if room.len() != bytes.len() {
            return Err(serde::de::Error::custom("bytes that are no whole numbers"));
        }
        room.copy_from_slice(bytes);
        Ok(Plain(values))
    }
}

/// For `#[serde(serialize_with)]`: bytes at once.
pub(super) fn as_bytes<S: Serializer>(bytes: &[u8], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Jobs that do as they are told.
    #[derive(Serialize, Deserialize)]
    pub(super) struct Faulty;

    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) enum Fault {
        Nothing,
        Error,
        Panic,
    }

    impl Work for Faulty {
        const KIND: Kind = Kind::Faulty;
        type Job<'a> = Fault;
        type Done = ();
        type Tool = ();

        fn run(&self, job: &Fault, (): &mut ()) -> Result<()> {
            match job {
                Fault::Nothing => Ok(()),
                Fault::Error => Err(Error::data("wrong on purpose")),
                Fault::Panic => panic!("on purpose"),
            }
        }
    }

    /// Several rounds of jobs, of which the last one of each round does as told, on the last rank that has jobs.
    pub(crate) fn work_with(crew: &dyn Crew, fault: Fault) -> Result<()> {
        let shared = Shared::new(crew, Faulty)?;
        let mut jobs = vec![Fault::Nothing; 4 * shared.n_threads()];
        *jobs.last_mut().unwrap() = fault;
        let rounds = [shared.start(&jobs)?, shared.start(&jobs)?, shared.start(&jobs)?];
        for round in rounds {
            round.finish()?.into_iter().collect::<Result<Vec<()>>>()?;
        }
        Ok(())
    }

    #[test]
    fn every_job_has_one_rank_and_ranks_have_jobs_by_their_threads() {
        for threads in [vec![1], vec![1, 1], vec![2, 1, 5], vec![3; 7]] {
            let total: usize = threads.iter().sum();
            for n in [0, 1, 2, 7, 64, total, 3 * total] {
                let shares = shares(n, &threads);
                let all: Vec<usize> = shares.iter().cloned().flatten().collect();
                assert_eq!(all, (0..n).collect::<Vec<_>>(), "{threads:?}");
                let away = n - shares[0].len();
                for (share, of_rank) in shares.iter().zip(&threads).skip(1) {
                    let fair = away * of_rank / (total - threads[0]);
                    assert!(share.len().abs_diff(fair) <= 1, "{n}: {shares:?}");
                    assert!(
                        n < 16 || share.len() >= n * of_rank / total,
                        "the first has no more than others: {shares:?}"
                    );
                }
            }
        }
        assert_eq!(shares(16, &[1, 1])[0].len(), 7);
        assert_eq!(shares(64, &[1; 9])[0].len(), 0, "the first has enough to do");
    }

    #[test]
    fn messages_that_are_damaged_are_answered_with_a_failure() {
        let mut hand = Hand::default();
        let rows = Kind::LibsvmRows as u32;
        let message = |kind, wants_answer, bytes: &[u8]| Message { kind, wants_answer, bytes: bytes.to_vec() };
        let failure = |answer: Option<Vec<u8>>| decode::<Answer<()>>(&answer.unwrap()).unwrap().unwrap_err();
        for kind in [rows, 77] {
            let answer = failure(hand.take(&message(kind, true, &[0])));
            assert!(answer.text.contains("before their work") && answer.exit_code == 70, "{answer:?}");
        }
        assert!(hand.take(&message(77, false, &[])).is_none());
        assert!(failure(hand.take(&message(77, true, &[]))).text.contains("no work of kind 77"));
        assert!(hand.take(&message(rows, false, &[])).is_none());
        assert!(failure(hand.take(&message(rows, true, &[255]))).text.contains("not received"));
    }

    #[test]
    fn a_panic_of_a_job_is_its_answer() {
        let mut hand = Hand::default();
        let mut take = |wants_answer, bytes| hand.take(&Message { kind: Kind::Faulty as u32, wants_answer, bytes });
        assert!(take(false, encode(&Faulty).unwrap()).is_none());
        let answer = take(true, encode(&vec![Fault::Nothing, Fault::Panic]).unwrap()).unwrap();
        let failure = decode::<Answer<()>>(&answer).unwrap().unwrap_err();
        assert!(failure.into_error().is_panic());
        let answer = take(true, encode(&vec![Fault::Nothing, Fault::Error]).unwrap()).unwrap();
        let done = decode::<Answer<()>>(&answer).unwrap().unwrap();
        assert!(done[0].is_ok() && done[1].as_ref().unwrap_err().text == "wrong on purpose");
    }

    #[test]
    fn numbers_travel_as_they_are() {
        let values = Plain(vec![0.1f64, f64::NAN, -0.0]);
        let back: Plain<f64> = decode(&encode(&values).unwrap()).unwrap();
        let bits = |values: &Plain<f64>| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&values));
        let odd = encode(&Plain(vec![1u8, 2, 3])).unwrap();
        assert!(decode::<Plain<u16>>(&odd).is_err());
    }
}
