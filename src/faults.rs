//! Failures on request, for tests: a process that dies, a disk that is full, a rank that is late.
//!
//! Only with the cargo feature `faults`; without it every call here is empty. `CONSORT_FAULT=KIND:RANK:POINT:N[:MS]`, several with commas
//! between them, says what happens when rank `RANK` comes to `POINT` for the `N`-th time, counted from 1 once the world is up:
//!
//! | kind | what happens |
//! |---|---|
//! | `kill` | SIGKILL to the own process |
//! | `panic` | a panic |
//! | `delay` | it sleeps for `MS` milliseconds |
//! | `read`, `write` | the next read, or write, fails: an input/output error |
//! | `full` | the next write fails: no space is left |
//!
//! A world of threads is one process: its rank is 0. What happens is said on stderr first, with the steps so far and the time.

use crate::error::Result;

/// Where something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// After each finished collective.
    Collective,
    /// When a training that is kept has committed a step, before its state is written.
    Step,
    /// Before a piece of a table is read.
    Read,
    /// Before the folder of a checkpoint is made.
    CheckpointFolder,
    /// In the middle of each file of a checkpoint, its manifest too.
    CheckpointWrite,
    /// Before each of them is flushed.
    CheckpointFlush,
    /// Before the digest of each of them is taken.
    CheckpointDigest,
    /// Before a file of a checkpoint is read.
    CheckpointRead,
    /// Before each old checkpoint is removed.
    CheckpointPrune,
    /// Before the file for batch scripts is made.
    Marker,
    /// In the middle of a model.
    ModelWrite,
    /// Before a checkpoint or an output gets its name.
    Rename,
    /// When it has its name, and before its folder is flushed.
    Renamed,
}

impl Point {
    pub const ALL: [(Point, &'static str); 13] = [
        (Point::Collective, "collective"),
        (Point::Step, "step"),
        (Point::Read, "read"),
        (Point::CheckpointFolder, "checkpoint-folder"),
        (Point::CheckpointWrite, "checkpoint-write"),
        (Point::CheckpointFlush, "checkpoint-flush"),
        (Point::CheckpointDigest, "checkpoint-digest"),
        (Point::CheckpointRead, "checkpoint-read"),
        (Point::CheckpointPrune, "checkpoint-prune"),
        (Point::Marker, "marker"),
        (Point::ModelWrite, "model-write"),
        (Point::Rename, "rename"),
        (Point::Renamed, "renamed"),
    ];
}

#[cfg(not(feature = "faults"))]
mod injected {
    use super::*;

    /// From now on points count. Not collective.
    #[inline(always)]
    pub fn begin(_rank: usize) -> Result<()> {
        Ok(())
    }

    /// A point where nothing is read or written. Not collective.
    #[inline(always)]
    pub fn at(_point: Point) {}

    /// A point before something is read or written. Not collective.
    #[inline(always)]
    pub fn before(_point: Point) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "faults")]
mod injected {
    use super::*;
    use crate::error::Error;
    use std::io::{self, Write};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Kill,
        Panic,
        Delay(Duration),
        Read,
        Write,
        Full,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Fault {
        kind: Kind,
        rank: usize,
        point: Point,
        count: u64,
    }

    static PLAN: OnceLock<(usize, Vec<Fault>)> = OnceLock::new();
    static PASSED: [AtomicU64; Point::ALL.len()] = [const { AtomicU64::new(0) }; Point::ALL.len()];

    /// From now on points count. Not collective.
    ///
    /// # Errors
    /// `Usage`: `CONSORT_FAULT` says something else than it may.
    pub fn begin(rank: usize) -> Result<()> {
        let text = std::env::var("CONSORT_FAULT").unwrap_or_default();
        let faults = text.split(',').filter(|one| !one.is_empty()).map(parse).collect::<Result<Vec<_>>>()?;
        PLAN.get_or_init(|| (rank, faults));
        Ok(())
    }

    fn parse(text: &str) -> Result<Fault> {
        let parts: Vec<&str> = text.split(':').collect();
        let wrong = || {
            let points: Vec<&str> = Point::ALL.iter().map(|(_, name)| *name).collect();
            Error::usage(format!(
                "CONSORT_FAULT: '{text}' is not KIND:RANK:POINT:N[:MS]; kinds: kill, panic, delay (with MS), read (at points that \
                 read), write, full (at points that write); points: {}; N counts from 1",
                points.join(", ")
            ))
        };
        let fault = |kind: Kind| -> Option<Fault> {
            let rank = parts[1].parse().ok()?;
            let (point, _) = *Point::ALL.iter().find(|(_, name)| *name == parts[2])?;
            let count = parts[3].parse().ok().filter(|count| *count > 0)?;
            let fits = match kind {
                Kind::Read => matches!(point, Point::Read | Point::CheckpointRead),
                Kind::Write | Kind::Full => matches!(
                    point,
                    Point::CheckpointFolder
                        | Point::CheckpointWrite
                        | Point::CheckpointFlush
                        | Point::Marker
                        | Point::ModelWrite
                        | Point::Rename
                        | Point::Renamed
                ),
                Kind::Kill | Kind::Panic | Kind::Delay(_) => true,
            };
            fits.then_some(Fault { kind, rank, point, count })
        };
        let kind = match (parts[0], parts.len()) {
            ("kill", 4) => Some(Kind::Kill),
            ("panic", 4) => Some(Kind::Panic),
            ("read", 4) => Some(Kind::Read),
            ("write", 4) => Some(Kind::Write),
            ("full", 4) => Some(Kind::Full),
            ("delay", 5) => parts[4].parse().ok().map(|ms| Kind::Delay(Duration::from_millis(ms))),
            _ => None,
        };
        kind.and_then(fault).ok_or_else(wrong)
    }

    /// A point where nothing is read or written. Not collective.
    pub fn at(point: Point) {
        let _ = before(point); // no kind that fails is admitted at these points
    }

    /// A point before something is read or written. Not collective.
    ///
    /// # Errors
    /// That of the kind that was asked for.
    pub fn before(point: Point) -> io::Result<()> {
        let Some((rank, faults)) = PLAN.get() else { return Ok(()) };
        let count = PASSED[point as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let mine = |fault: &&Fault| fault.rank == *rank && fault.point == point && fault.count == count;
        let Some(fault) = faults.iter().find(mine) else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let steps = PASSED[Point::Step as usize].load(Ordering::SeqCst);
        let _ = writeln!(
            io::stderr(),
            "fault: {:?} on rank {rank} at {point:?} {count}, {steps} steps, {now:.3}",
            fault.kind
        );
        match fault.kind {
            Kind::Kill => signal_hook::low_level::raise(signal_hook::consts::SIGKILL).map(|()| std::process::abort()),
            Kind::Panic => panic!("injected at {point:?} {count}"),
            Kind::Delay(time) => {
                std::thread::sleep(time);
                Ok(())
            }
            Kind::Read | Kind::Write => Err(io::Error::from_raw_os_error(libc::EIO)),
            Kind::Full => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_count_by_their_place_in_the_list() {
            for (number, (point, _)) in Point::ALL.iter().enumerate() {
                assert_eq!(*point as usize, number);
            }
        }

        #[test]
        fn what_cannot_be_understood_is_refused() {
            let good = Fault { kind: Kind::Full, rank: 3, point: Point::Rename, count: 2 };
            assert_eq!(parse("full:3:rename:2"), Ok(good));
            assert!(parse("delay:0:collective:1:250").is_ok() && parse("kill:0:read:9").is_ok());
            let wrong =
                ["", "kill", "kill:0:collective:0", "kill:x:collective:1", "kill:0:nowhere:1", "delay:0:read:1"];
            let misplaced = ["read:0:rename:1", "full:0:read:1", "write:0:collective:1", "kill:0:read:1:5"];
            for text in wrong.into_iter().chain(misplaced) {
                assert!(parse(text).unwrap_err().to_string().contains("CONSORT_FAULT"), "{text}");
            }
        }
    }
}

pub use injected::{at, before, begin};
