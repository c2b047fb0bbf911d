//! How much may be open to one agent and to one user at once.
//!
//! Counted from the moment a call is let in until its answer has ended, so that a reader who does not read, or a socket
//! on which nothing is said, takes a place of its own user and of nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::domain::{AgentId, UserId};

/// Whose limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Agent,
    User,
}

/// Too many calls are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} calls are open already")]
pub struct Limited {
    pub scope: Scope,
    pub limit: usize,
}

#[derive(Default)]
struct Counts {
    agents: DashMap<AgentId, usize>,
    users: DashMap<UserId, usize>,
    open: AtomicUsize,
}

pub(super) struct Limits {
    counts: Arc<Counts>,
    per_agent: usize,
    per_user: usize,
    refused: AtomicU64,
}

/// A place among the open calls; given back when dropped.
pub(super) struct Place {
    counts: Arc<Counts>,
    agent: AgentId,
    user: UserId,
}

impl Limits {
    pub(super) fn new(per_agent: usize, per_user: usize) -> Self {
        Self { counts: Arc::default(), per_agent, per_user, refused: AtomicU64::new(0) }
    }

    pub(super) fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, agent: AgentId, user: UserId) -> Result<Place, Limited> {
        let refuse = |scope, limit| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Err(Limited { scope, limit })
        };
        if !count_in(&self.counts.users, user, self.per_user) {
            return refuse(Scope::User, self.per_user);
        }
        if !count_in(&self.counts.agents, agent, self.per_agent) {
            count_out(&self.counts.users, user);
            return refuse(Scope::Agent, self.per_agent);
        }
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { counts: Arc::clone(&self.counts), agent, user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        count_out(&self.counts.agents, self.agent);
        count_out(&self.counts.users, self.user);
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn count_in<K: std::hash::Hash + Eq>(counts: &DashMap<K, usize>, key: K, limit: usize) -> bool {
    let mut count = counts.entry(key).or_insert(0);
    let free = *count < limit;
    if free {
        *count += 1;
    }
    free
}

/// Entries go with their last call, so that the table does not grow with every agent there ever was.
fn count_out<K: std::hash::Hash + Eq + Copy>(counts: &DashMap<K, usize>, key: K) {
    if let Some(mut count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
    }
    counts.remove_if(&key, |_, count| *count == 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_agent_and_by_user_and_come_back() {
        let limits = Limits::new(2, 3);
        let (ada, bob, user, other) = (AgentId::new(), AgentId::new(), UserId::new(), UserId::new());
        let first = limits.enter(ada, user).ok();
        let second = limits.enter(ada, user).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(limits.enter(ada, user).err(), Some(Limited { scope: Scope::Agent, limit: 2 }));
        let third = limits.enter(bob, user).ok();
        assert_eq!(limits.enter(bob, user).err(), Some(Limited { scope: Scope::User, limit: 3 }));
        assert!(limits.enter(bob, other).is_ok(), "another user has places of its own");
        drop(second);
        assert!(limits.enter(ada, user).is_ok());
        drop((first, third));
        assert_eq!((limits.open(), limits.refused()), (0, 2));
        assert!(
            limits.counts.agents.is_empty() && limits.counts.users.is_empty(),
            "nothing is left of calls that ended"
        );
    }
}
