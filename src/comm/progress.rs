//! Which call a rank is in and which it finished last: noted here for the watchdog, which looks from a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::call::{Call, Kind};

/// What a rank is doing, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// Calls finished, those on communicators split off included.
    pub finished: u64,
    /// The last finished call; empty before the first one.
    pub last: String,
    /// The call that it is in; empty while it computes.
    pub current: String,
    /// Since one of these last changed.
    pub since: Duration,
    /// The last call of the program is finished: nobody waits for this rank any more.
    pub is_over: bool,
}

/// The account of a rank, shared with the communicators split off; may be looked at from any thread.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<Noted>>);

struct Noted {
    finished: u64,
    last: Option<Call>,
    current: Option<Call>,
    since: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress(Arc::new(Mutex::new(Noted { finished: 0, last: None, current: None, since: Instant::now() })))
    }

    fn change(&self, change: impl FnOnce(&mut Noted)) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut noted);
        noted.since = Instant::now();
    }

    /// The rank is in this call until what is returned is dropped. Costs less than a tenth of a microsecond.
    pub(super) fn enter(&self, call: Call) -> Entered<'_> {
        self.change(|noted| noted.current = Some(call));
        Entered(self)
    }

    /// Not collective.
    pub fn look(&self) -> Doing {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |call: Option<Call>| call.map(|call| call.to_string()).unwrap_or_default();
        Doing {
            finished: noted.finished,
            last: text(noted.last),
            current: text(noted.current),
            since: noted.since.elapsed(),
            is_over: noted.current.is_none() && noted.last.is_some_and(|call| call.kind == Kind::End),
        }
    }
}

/// A call under way.
pub(super) struct Entered<'a>(&'a Progress);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.change(|noted| {
            noted.last = noted.current.take();
            noted.finished += 1;
        });
    }
}
