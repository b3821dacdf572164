//! # guard — what watches over a run
//!
//! In:    signals, the clock, the environment of a batch job.
//! Out:   whether this process has been told to stop, and why.
//! Talks: never; who asks agrees on it with the other ranks.
//! Never: data, models, files but the marker for batch scripts.

pub mod stop;
pub mod watchdog;
