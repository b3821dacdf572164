//! # guard — what watches over a run
//!
//! In:    signals, the clock, the environment of a batch job, packets of the other ranks.
//! Out:   whether this process has been told to stop, and why; the end of a job that lost a rank.
//! Talks: once, at the start, to tell where packets go; beside MPI from then on.
//! Never: data, models, files but the marker for batch scripts.

pub mod stop;
pub mod watchdog;
