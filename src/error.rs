//! The one error type of the program: what kind it is (hence the exit code), the message for the
//! person at the terminal, and the rank it happened on.
//!
//! A message says where, what was found, what was expected and what to do. The layer that knows the
//! file, dataset or flag adds it: `read(…).in_dataset("train/X").in_file(path)`.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub type Result<V> = std::result::Result<V, Error>;

/// Whose fault it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Words or settings: exit code 2.
    Usage,
    /// A data or model file: exit code 3.
    Data,
    /// Communication, or a peer that was lost: exit code 4.
    Comm,
    /// Our own broken promise: exit code 70.
    Internal,
    /// Told to stop; a checkpoint is written: exit code 75.
    Interrupted,
}

impl ErrorKind {
    pub fn exit_code(self) -> i32 {
        match self {
            ErrorKind::Usage => 2,
            ErrorKind::Data => 3,
            ErrorKind::Comm => 4,
            ErrorKind::Internal => 70,
            ErrorKind::Interrupted => 75,
        }
    }

    pub(crate) fn from_exit_code(code: i32) -> ErrorKind {
        match code {
            2 => ErrorKind::Usage,
            3 => ErrorKind::Data,
            4 => ErrorKind::Comm,
            75 => ErrorKind::Interrupted,
            _ => ErrorKind::Internal,
        }
    }
}

/// A failure with its place. `rank` is set once the failing rank is known to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    /// Outermost last; printed first.
    places: Vec<String>,
    /// Set by `Communicator::agree`: the rank whose own failure this is.
    rank: Option<usize>,
    /// A file is among the places.
    has_file: bool,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), places: Vec::new(), rank: None, has_file: false }
    }

    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, message)
    }

    pub fn data(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Data, message)
    }

    pub fn comm(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Comm, message)
    }

    pub fn interrupted(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Interrupted, message)
    }

    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The rank that failed, once it has been agreed on.
    pub fn rank(&self) -> Option<usize> {
        self.rank
    }

    /// Says that this failure happened on `rank`.
    pub fn on_rank(mut self, rank: usize) -> Error {
        self.rank = Some(rank);
        self
    }

    /// What a panic becomes. Whoever set the hook has said it, with its place in the source.
    pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Error {
        Error::internal(format!("panic: {}", panic_text(panic)))
    }

    /// Whether this was a panic, on this rank or another.
    pub(crate) fn is_panic(&self) -> bool {
        self.kind == ErrorKind::Internal && self.message.contains("panic: ")
    }

    /// Adds a place in front: `place: message`.
    pub fn at(mut self, place: impl Into<String>) -> Error {
        self.places.push(place.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The words of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(no message)",
    }
}

/// Calls of [`caught`] under way in this process.
static CATCHING: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`; a panic in it, or on threads that it waits for, is an `Internal` error. Not collective.
///
/// For work whose failure has to be tidied up, or told to ranks that wait: no panic in it ends the job on the spot.
pub(crate) fn caught<V>(work: impl FnOnce() -> V) -> Result<V> {
    CATCHING.fetch_add(1, Ordering::SeqCst);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.fetch_sub(1, Ordering::SeqCst);
    done.map_err(|panic| Error::of_panic(&*panic))
}

/// Whether somebody of this process waits for a panic, to tell it.
pub(crate) fn is_catching() -> bool {
    CATCHING.load(Ordering::SeqCst) > 0
}

/// Places, added by the layer that knows them.
pub trait InContext<V> {
    /// Unless it names a file already: the inner layer knows better which one it was.
    fn in_file(self, path: impl AsRef<Path>) -> Result<V>;
    fn in_dataset(self, name: &str) -> Result<V>;
    fn for_flag(self, flag: &str) -> Result<V>;
}

impl<V> InContext<V> for Result<V> {
    fn in_file(self, path: impl AsRef<Path>) -> Result<V> {
        // A run that was told to stop says nothing about the file it was at.
        self.map_err(|e| match e.has_file || e.kind == ErrorKind::Interrupted {
            true => e,
            false => Error { has_file: true, ..e.at(path.as_ref().display().to_string()) },
        })
    }

    fn in_dataset(self, name: &str) -> Result<V> {
        self.map_err(|e| e.at(format!("'{name}'")))
    }

    fn for_flag(self, flag: &str) -> Result<V> {
        self.map_err(|e| e.at(flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_printed_from_the_outside_in() {
        let failed: Result<()> = Err(Error::data("checksum failed in chunk 160"));
        let error = failed.in_dataset("train/X").in_file("events.h5").unwrap_err();
        assert_eq!(error.to_string(), "events.h5: 'train/X': checksum failed in chunk 160");
        assert_eq!(error.kind().exit_code(), 3);
        let outside = Err::<(), _>(error.clone()).in_file("first.h5").for_flag("--copy").unwrap_err();
        assert_eq!(outside.to_string(), "--copy: events.h5: 'train/X': checksum failed in chunk 160");
    }
}
