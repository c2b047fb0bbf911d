//! How much may be open to one agent and to one user at once.
//!
//! Counted from the moment a call is let in until its answer has ended, so that a reader who does not read, or a socket
//! on which nothing is said, takes a place of its own user and of nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::Entry;

use crate::by_id::ById;
use crate::domain::{AgentId, UserId};

/// What bounds calls to gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Calls that are open to one agent.
    Agent,
    /// Calls that are open to all agents of one user.
    User,
    /// Bytes of a request.
    Body,
    /// How long nothing may move.
    Idle,
    /// Bytes of a stream in a second.
    Pace,
}

impl Bound {
    /// Every bound there is.
    pub const ALL: &'static [Self] = &[Self::Agent, Self::User, Self::Body, Self::Idle, Self::Pace];

    /// Its name in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
            Self::Body => "body",
            Self::Idle => "idle",
            Self::Pace => "pace",
        }
    }
}

/// Too many calls are open to the agent, or to those of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} calls are open already")]
#[non_exhaustive]
pub struct Limited {
    /// [`Bound::Agent`] or [`Bound::User`].
    pub bound: Bound,
    /// How many calls may be open.
    pub limit: usize,
}

#[derive(Default)]
struct Counts {
    agents: ById<AgentId, usize>,
    users: ById<UserId, usize>,
    /// Strangers' calls, by agent.
    guests: ById<AgentId, usize>,
    open: AtomicUsize,
    /// Calls that met a bound, in the order of [`Bound::ALL`].
    met: [AtomicU64; Bound::ALL.len()],
}

impl Counts {
    fn meet(&self, bound: Bound) {
        self.met[bound as usize].fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct Limits {
    counts: Arc<Counts>,
    per_agent: usize,
    per_user: usize,
}

/// A place among the open calls; given back when dropped.
pub(super) struct Place {
    counts: Arc<Counts>,
    agent: AgentId,
    /// `None` for a stranger.
    user: Option<UserId>,
}

/// Strangers get one in so many of an agent's places, beside those: they cannot keep its owner out.
const GUESTS: usize = 4;

impl Limits {
    pub(super) fn new(per_agent: usize, per_user: usize) -> Self {
        Self { counts: Arc::default(), per_agent, per_user }
    }

    pub(super) fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Calls that met this bound, since the start.
    pub(super) fn met(&self, bound: Bound) -> u64 {
        self.counts.met[bound as usize].load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, agent: AgentId, user: UserId) -> Result<Place, Limited> {
        let refuse = |bound, limit| {
            self.counts.meet(bound);
            Err(Limited { bound, limit })
        };
        if !count_in(&self.counts.users, user, self.per_user) {
            return refuse(Bound::User, self.per_user);
        }
        if !count_in(&self.counts.agents, agent, self.per_agent) {
            count_out(&self.counts.users, user);
            return refuse(Bound::Agent, self.per_agent);
        }
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { counts: Arc::clone(&self.counts), agent, user: Some(user) })
    }

    /// The same for a stranger at the agent's own host name.
    pub(super) fn enter_guest(&self, agent: AgentId) -> Result<Place, Limited> {
        let limit = (self.per_agent / GUESTS).max(1);
        if !count_in(&self.counts.guests, agent, limit) {
            self.counts.meet(Bound::Agent);
            return Err(Limited { bound: Bound::Agent, limit });
        }
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { counts: Arc::clone(&self.counts), agent, user: None })
    }
}

/// Is told which bounds a call met.
pub(crate) trait Meets: Send + Sync + 'static {
    /// The call has met this bound.
    fn meets(&self, bound: Bound);
}

impl Meets for Place {
    fn meets(&self, bound: Bound) {
        self.counts.meet(bound);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.user {
            Some(user) => {
                count_out(&self.counts.agents, self.agent);
                count_out(&self.counts.users, user);
            }
            None => count_out(&self.counts.guests, self.agent),
        }
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn count_in<K: std::hash::Hash + Eq>(counts: &ById<K, usize>, key: K, limit: usize) -> bool {
    let mut count = counts.entry(key).or_insert(0);
    let free = *count < limit;
    if free {
        *count += 1;
    }
    free
}

/// Entries go with their last call, so that the table does not grow with every agent there ever was.
fn count_out<K: std::hash::Hash + Eq>(counts: &ById<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        match entry.get().checked_sub(1) {
            Some(left @ 1..) => *entry.get_mut() = left,
            _ => drop(entry.remove()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_a_quarter_of_an_agents_places_beside_them_and_one_at_least() {
        for (per_agent, guests) in [(1, 1), (3, 1), (4, 1), (8, 2), (9, 2), (128, 32)] {
            let limits = Limits::new(per_agent, per_agent);
            let agent = AgentId::new();
            let open: Vec<_> = (0..guests).map(|_| limits.enter_guest(agent).ok()).collect();
            assert!(open.iter().all(Option::is_some), "{guests} of {per_agent}");
            let refused = Limited { bound: Bound::Agent, limit: guests };
            assert_eq!(limits.enter_guest(agent).err(), Some(refused));
            assert!(limits.enter(agent, UserId::new()).is_ok(), "its owner has all of them");
            drop(open);
            assert!(limits.enter_guest(agent).is_ok());
            assert!(limits.counts.guests.is_empty() && limits.open() == 0);
        }
    }

    #[test]
    fn places_are_counted_by_agent_and_by_user_and_come_back() {
        let limits = Limits::new(2, 3);
        let (ada, bob, user, other) = (AgentId::new(), AgentId::new(), UserId::new(), UserId::new());
        let first = limits.enter(ada, user).ok();
        let second = limits.enter(ada, user).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(limits.enter(ada, user).err(), Some(Limited { bound: Bound::Agent, limit: 2 }));
        assert_eq!(limits.open(), 2);
        let third = limits.enter(bob, user).ok();
        assert_eq!(limits.enter(bob, user).err(), Some(Limited { bound: Bound::User, limit: 3 }));
        assert!(limits.enter(bob, other).is_ok(), "another user has places of its own");
        drop(second);
        assert!(limits.enter(ada, user).is_ok());
        drop((first, third));
        assert_eq!(limits.open(), 0);
        assert_eq!(Bound::ALL.iter().map(|bound| limits.met(*bound)).collect::<Vec<_>>(), [1, 1, 0, 0, 0]);
        assert!(
            limits.counts.agents.is_empty() && limits.counts.users.is_empty(),
            "nothing is left of calls that ended"
        );
    }
}
