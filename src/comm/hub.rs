//! What the ranks of a thread world share: who does what, meetings, mail, and the exact answer to
//! whether anybody can still go on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::call::{Call, by_rank};
use super::transport::{OwnedSlice, ReduceOp};
use crate::error::{Error, Result};

/// What all ranks share.
pub struct Hub {
    pub state: Mutex<State>,
    pub changed: Condvar,
}

pub struct State {
    /// By rank of the world.
    pub ranks: Vec<RankState>,
    pub groups: Vec<Group>,
    /// Messages sent and not yet received, by (group, from, to, tag).
    pub mail: BTreeMap<(usize, usize, usize, u32), VecDeque<OwnedSlice>>,
    /// Set once nobody can go on: the answer to every later call.
    pub stuck: Option<Error>,
}

pub struct RankState {
    pub doing: Doing,
    pub last: Option<Call>,
}

#[derive(Clone, Debug)]
pub enum Doing {
    Running,
    /// Waits for the other members of a group to come to a meeting.
    Meeting {
        group: usize,
        number: u64,
    },
    /// Waits for a message from a rank of the world.
    Mail {
        from: usize,
    },
    Finished {
        failure: Option<Error>,
    },
}

pub struct Group {
    /// Ranks of the world, by rank in the group.
    pub members: Vec<usize>,
    /// By number, from the first arrival until every member has left.
    pub meetings: BTreeMap<u64, Meeting>,
    /// Set when a member failed: no meeting can be held any more.
    pub broken: Option<Error>,
}

pub struct Meeting {
    /// By rank in the group.
    pub arrived: Vec<Option<Arrival>>,
    /// Once all have arrived.
    pub outcome: Option<Arc<Result<Outcome>>>,
    /// Members that have not left: they may still ask for the outcome.
    pub here: usize,
}

pub struct Arrival {
    pub call: Call,
    pub action: Action,
    pub data: OwnedSlice,
}

/// What a meeting does with the data.
#[derive(Clone, Copy)]
pub enum Action {
    Barrier,
    /// The root's data for all.
    Broadcast(usize),
    Reduce(ReduceOp),
    /// One after the other, in rank order.
    Concatenate,
    Split(u32),
}

#[derive(Clone)]
pub enum Outcome {
    Data(OwnedSlice),
    /// By rank: its new group and its rank there, and that group's size.
    Groups(Vec<(usize, usize, usize)>),
}

impl Group {
    pub fn new(members: Vec<usize>) -> Group {
        Group { members, meetings: BTreeMap::new(), broken: None }
    }

    /// Not before the first arrival, nor after the last member has left.
    pub fn meeting(&mut self, number: u64) -> &mut Meeting {
        let size = self.members.len();
        self.meetings.entry(number).or_insert_with(|| Meeting {
            arrived: (0..size).map(|_| None).collect(),
            outcome: None,
            here: size,
        })
    }

    pub fn leave(&mut self, number: u64) {
        let meeting = self.meeting(number);
        meeting.here -= 1;
        if meeting.here == 0 {
            self.meetings.remove(&number);
        }
    }
}

impl Hub {
    pub fn new(size: usize) -> Hub {
        let ranks = (0..size).map(|_| RankState { doing: Doing::Running, last: None }).collect();
        let groups = vec![Group::new((0..size).collect())];
        let state = State { ranks, groups, mail: BTreeMap::new(), stuck: None };
        Hub { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The lock is never held while foreign code runs, so a poisoned one is whole.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// `rank` makes no further call. If it failed, whoever waits for it learns why.
    pub fn finish(&self, rank: usize, failure: Option<&Error>) {
        let mut state = self.lock();
        state.ranks[rank].doing = Doing::Finished { failure: failure.cloned() };
        if let Some(failure) = failure {
            let error = passed_on(rank, failure);
            for group in 0..state.groups.len() {
                if state.groups[group].members.contains(&rank) {
                    state.groups[group].broken.get_or_insert_with(|| error.clone());
                    state.release(|doing| matches!(doing, Doing::Meeting { group: g, .. } if *g == group));
                }
            }
            state.release(|doing| matches!(doing, Doing::Mail { from } if *from == rank));
        }
        state.look_for_deadlock();
        drop(state);
        self.changed.notify_all();
    }
}

/// What the others get when `rank` failed without their agreement.
pub fn passed_on(rank: usize, failure: &Error) -> Error {
    match failure.rank() {
        Some(origin) if origin != rank => failure.clone(),
        _ => Error::new(failure.kind(), format!("stopped because rank {rank} failed: {failure}")).on_rank(rank),
    }
}

impl State {
    /// Lets the ranks that wait for something of this kind look again.
    pub fn release(&mut self, waits: impl Fn(&Doing) -> bool) {
        for rank in &mut self.ranks {
            if waits(&rank.doing) {
                rank.doing = Doing::Running;
            }
        }
    }

    /// If nobody runs and somebody waits, nobody ever will: says so to all who wait.
    pub fn look_for_deadlock(&mut self) {
        let running = self.ranks.iter().any(|r| matches!(r.doing, Doing::Running));
        let waiting = self.ranks.iter().any(|r| matches!(r.doing, Doing::Meeting { .. } | Doing::Mail { .. }));
        if running || !waiting || self.stuck.is_some() {
            return;
        }
        let texts: Vec<String> = self.ranks.iter().map(RankState::text).collect();
        let failed = self.ranks.iter().enumerate().find_map(|(rank, state)| match &state.doing {
            Doing::Finished { failure: Some(e) } => Some(passed_on(rank, e)),
            _ => None,
        });
        self.stuck =
            Some(failed.unwrap_or_else(|| {
                Error::comm(format!("the ranks wait for one another in vain: {}", by_rank(&texts)))
            }));
        self.release(|doing| !matches!(doing, Doing::Finished { .. }));
    }

    /// The reason why a call on `group` cannot be answered, if there is one.
    pub fn refusal(&self, group: usize) -> Option<Error> {
        self.stuck.clone().or_else(|| self.groups[group].broken.clone())
    }
}

impl RankState {
    pub fn text(&self) -> String {
        let last = self.last.map_or("no call yet".to_string(), |call| call.to_string());
        match self.doing {
            Doing::Finished { .. } => format!("finished (last: {last})"),
            Doing::Running => format!("running (last: {last})"),
            Doing::Meeting { .. } | Doing::Mail { .. } => last,
        }
    }
}
