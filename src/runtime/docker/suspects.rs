//! Agents that may have a second container: an event told of a container of theirs that was made, started or renamed.
//!
//! A container is found by its name with a single call. Only where there may be another one are all of the agent's listed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::domain::AgentId;

#[derive(Default)]
pub(super) struct Suspects(Mutex<HashSet<AgentId>>);

impl Suspects {
    /// Takes an event into account.
    pub(super) fn record(&self, agent: AgentId, action: &str) {
        if matches!(action, "create" | "start" | "restart" | "rename" | "init") {
            self.put_back(agent);
        }
    }

    pub(super) fn put_back(&self, agent: AgentId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(agent);
    }

    /// What a list of containers says: the agent of each.
    pub(super) fn record_all(&self, owners: impl Iterator<Item = AgentId>) {
        let mut seen = HashSet::new();
        let mut suspects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.extend(owners.filter(|agent| !seen.insert(*agent)));
    }

    /// Whether the agent is one of them. It is one no longer.
    pub(super) fn take(&self, agent: AgentId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_may_mean_a_second_container_is_remembered_once() {
        let (suspects, agent) = (Suspects::default(), AgentId::new());
        suspects.record(agent, "die");
        assert!(!suspects.take(agent));
        suspects.record(agent, "rename");
        assert!(suspects.take(agent) && !suspects.take(agent));
        let other = AgentId::new();
        suspects.record_all([agent, other, agent].into_iter());
        assert!(suspects.take(agent) && !suspects.take(other), "one container is what an agent has");
    }
}
