//! Whether this process was told to stop: by a signal, or because its time runs out.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Why a run stops. The greatest of all ranks is the one that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    TimeLimit = 1,
    Usr1 = 2,
    Term = 3,
    Interrupt = 4,
}

impl Cause {
    const ALL: [Cause; 4] = [Cause::TimeLimit, Cause::Usr1, Cause::Term, Cause::Interrupt];

    pub fn from_code(code: u8) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| *cause as u8 == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            Cause::TimeLimit => "the time limit",
            Cause::Usr1 => "SIGUSR1",
            Cause::Term => "SIGTERM",
            Cause::Interrupt => "SIGINT",
        }
    }
}

/// Handlers are there.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// What there was to stop has ended: launchers tell all ranks to stop when the first one has left.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// 0: nobody has asked.
static ASKED: AtomicU8 = AtomicU8::new(0);

/// Why this process is to stop, if it is. Not collective.
pub fn requested() -> Option<Cause> {
    Cause::from_code(ASKED.load(Ordering::Relaxed))
}

/// Asks this process to stop at its next step. Not collective.
pub fn request(cause: Cause) {
    ASKED.fetch_max(cause as u8, Ordering::Relaxed);
}

/// From now on SIGTERM, SIGUSR1 and SIGINT ask to stop instead of ending the process; a second SIGINT leaves at once. Not collective; once
/// a process.
///
/// * `marker`: a file that is made at once: a launcher that kills its ranks a second later hides their exit code from the batch script,
///   which looks for this file instead.
/// * `speaks`: says that SIGINT was heard.
///
/// # Errors
/// `Usage`: the system admits no handlers.
pub fn listen(marker: PathBuf, speaks: bool) -> Result<()> {
    if LISTENS.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let signals = Signals::new([SIGTERM, SIGUSR1, SIGINT]);
    let mut signals = signals.map_err(|e| Error::usage(format!("cannot listen to signals: {e}")))?;
    let heard = move || {
        // Not by `requested`: that may be of another rank.
        let mut interrupts = 0;
        for signal in signals.forever() {
            interrupts += u32::from(signal == SIGINT);
            if interrupts == 2 {
                signal_hook::low_level::exit(128 + SIGINT);
            }
            // A person who interrupts does not want it to begin again, and launchers end the other ranks by SIGTERM then.
            let is_over = IS_OVER.load(Ordering::Relaxed) || requested() == Some(Cause::Interrupt);
            let cause = match signal {
                SIGTERM => Cause::Term,
                SIGUSR1 => Cause::Usr1,
                _ => Cause::Interrupt,
            };
            request(cause);
            // A person waits for a word; SIGTERM is also what launchers end all with when a rank has failed.
            if interrupts == 1 && signal == SIGINT && speaks && !is_over {
                let line = "SIGINT: the state is kept after the step under way, unless that is the last one; a second one leaves at once";
                let _ = writeln!(std::io::stderr(), "consort: {line}");
            }
            if cause != Cause::Interrupt && !is_over {
                // It may be too early for the folder to be there.
                let made = marker.parent().map(std::fs::create_dir_all);
                let _ = made.map(|_| std::fs::write(&marker, b"told to stop: start the same command again\n"));
            }
        }
    };
    let started = std::thread::Builder::new().name("signals".to_string()).spawn(heard);
    started.map(|_| ()).map_err(|e| Error::usage(format!("cannot start the thread that listens to signals: {e}")))
}

/// From now on nothing marks the run as one to start again. Not collective.
pub fn over() {
    IS_OVER.store(true, Ordering::Relaxed);
}

/// When this process will be killed: after `limit`, or when the batch job ends (SLURM_JOB_END_TIME, if that is still to come: shells live
/// longer than the jobs they were begun in), whichever is first. Not collective.
pub fn deadline(limit: Option<Duration>) -> Option<Instant> {
    let job_end = std::env::var("SLURM_JOB_END_TIME").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let left = |end: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(end).saturating_sub(now)
    };
    let of_job = job_end.map(left).filter(|left| !left.is_zero());
    let left = [limit, of_job].into_iter().flatten().min()?;
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_go_there_and_back() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_code(cause as u8), Some(cause));
        }
        assert_eq!(Cause::from_code(0), None);
    }

    #[test]
    fn the_limit_counts_from_now() {
        let left = deadline(Some(Duration::from_secs(100))).unwrap() - Instant::now();
        assert!(left <= Duration::from_secs(100) && left > Duration::from_secs(90));
        assert_eq!(deadline(None), None, "tests do not run in a batch job");
    }
}
