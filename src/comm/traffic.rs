//! What talking has cost: calls, bytes and seconds by kind of call.

use std::time::Instant;

use super::call::Kind;
use crate::faults::{self, Point};

/// What one kind of call has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrafficOf {
    pub calls: u64,
    /// Bytes that this rank put in; of a reduce-scatter, for others.
    pub bytes: u64,
    /// Seconds inside the calls, waiting for others included.
    pub seconds: f64,
}

/// By kind of call, in a fixed order. Calls on sub-communicators are counted too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    pub kinds: Vec<(&'static str, TrafficOf)>,
}

impl Traffic {
    /// All kinds together.
    pub fn total(&self) -> TrafficOf {
        self.kinds.iter().fold(TrafficOf::default(), |sum, (_, one)| TrafficOf {
            calls: sum.calls + one.calls,
            bytes: sum.bytes + one.bytes,
            seconds: sum.seconds + one.seconds,
        })
    }
}

/// The running account of a rank.
#[derive(Default)]
pub struct Ledger([TrafficOf; Kind::ALL.len()]);

impl Ledger {
    pub fn add(&mut self, kind: Kind, calls: u64, bytes: usize, since: Instant) {
        let entry = &mut self.0[kind as usize];
        entry.calls += calls;
        entry.bytes += bytes as u64;
        entry.seconds += since.elapsed().as_secs_f64();
        if !matches!(kind, Kind::Send | Kind::Recv) {
            faults::at(Point::Collective);
        }
    }

    pub fn report(&self) -> Traffic {
        Traffic { kinds: Kind::ALL.iter().zip(self.0).map(|(kind, cost)| (kind.name(), cost)).collect() }
    }
}
