//! What can be seen at one moment: in the store, on the engine, by readers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inspector, Invariant, Moment, Violation};
use crate::domain::{AgentId, Status, UserId};
use crate::lifecycle::{Phase, Step};
use crate::runtime::{InstanceState, ObservedInstance};
use crate::store::{Snapshot, StoredAgent};
use crate::view::Page;

impl Inspector {
    /// Everything that holds at every moment.
    pub fn step(&mut self, snapshot: &Snapshot, observed: &[ObservedInstance]) {
        self.own_invariants(Moment { snapshot, instances: observed, at_rest: false });
        self.allocations(snapshot);
        self.quotas(snapshot);
        let stored: BTreeMap<AgentId, &StoredAgent> =
            snapshot.agents.iter().map(|agent| (agent.record.id, agent)).collect();
        let lost: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(agent, known)| known.acknowledged && !stored.contains_key(agent))
            .map(|(agent, _)| *agent)
            .collect();
        for agent in lost {
            self.violated(Invariant::CreatesAreKept, agent, "it is not in the store");
        }
        for agent in &snapshot.agents {
            self.seals(agent);
            let state = &agent.record.state;
            let known = self.agents.entry(agent.record.id).or_default();
            known.owner.get_or_insert(agent.record.user);
            let told = known.revision;
            let waits = matches!(
                &state.phase,
                Phase::Starting { step: Step::BackingOff { .. }, .. } | Phase::Failed { retry_at: Some(_), .. }
            );
            let compares = state.revision > known.waits_after;
            known.due = state.next_attempt_at().filter(|_| waits && compares).map(|due| (state.revision, due));
            if state.revision < told {
                let detail = format!("revision {told} was told, {} is stored", state.revision);
                self.violated(Invariant::CommitsAreKept, agent.record.id, detail);
            }
        }
        let mut seen = BTreeSet::new();
        for instance in observed {
            let agent = instance.key.agent;
            if !seen.insert(agent) {
                self.violated(Invariant::OneInstance, agent, "a second instance");
            }
            let run = match &instance.state {
                InstanceState::Running(run) | InstanceState::Paused(run) => run,
                _ => continue,
            };
            match stored.get(&agent) {
                None => self.violated(Invariant::RunsAreRecorded, agent, "it runs, and no record knows it"),
                Some(stored)
                    if stored.port.is_some_and(|port| run.endpoint.port() != port.get()) && is_running(stored) =>
                {
                    let detail = format!("it runs on {}, its port is {:?}", run.endpoint.port(), stored.port);
                    self.violated(Invariant::RunsAreRecorded, agent, detail);
                }
                Some(_) => {}
            }
        }
    }

    fn allocations(&mut self, snapshot: &Snapshot) {
        let (mut ports, mut slugs) = (BTreeSet::new(), BTreeSet::new());
        for agent in &snapshot.agents {
            if agent.port.is_some() && !ports.insert(agent.port) {
                self.violated(Invariant::SeatsApart, agent.record.id, format!("port {:?}", agent.port));
            }
            if !slugs.insert(&agent.record.slug) {
                self.violated(Invariant::SeatsApart, agent.record.id, format!("slug {}", agent.record.slug));
            }
        }
    }

    /// What was granted stays granted when a plan is made smaller.
    fn quotas(&mut self, snapshot: &Snapshot) {
        let mut used: BTreeMap<UserId, u32> = BTreeMap::new();
        for agent in &snapshot.agents {
            *used.entry(agent.record.user).or_default() += 1;
        }
        for user in &snapshot.users {
            let limit = user.effective_limits().max_agents;
            let now = used.get(&user.id).copied().unwrap_or_default();
            let before = self.used.get(&user.id).copied().unwrap_or_default();
            if limit.is_some_and(|limit| now > limit.max(before)) {
                let detail = format!("user {} has {now} agents of {limit:?}, and had {before}", user.id);
                self.violations.push(Violation { invariant: Invariant::QuotaHeld, agent: None, detail });
            }
        }
        self.used = used;
    }

    /// Each sealed value has a nonce of its own.
    fn seals(&mut self, agent: &StoredAgent) {
        let record = &agent.record;
        for sealed in [&record.api_key, &record.channels, &record.token].into_iter().flatten() {
            let first = self.sealed.entry(sealed.nonce()).or_insert_with(|| sealed.clone());
            if first != sealed {
                self.violated(Invariant::NoncesApart, record.id, "two values are sealed with one nonce");
            }
        }
    }

    /// What readers are shown of all agents.
    pub fn shown(&mut self, page: &Page) {
        for view in &page.agents {
            let (agent, state) = (view.record.id, &view.record.state);
            let known = self.agents.entry(agent).or_default();
            let before = std::mem::replace(&mut known.shown, state.revision);
            if state.revision < before {
                self.violated(Invariant::ReadersGoForward, agent, format!("{} after {before}", state.revision));
            }
            if let Some(access) = &view.access
                && (access.attempt != state.attempt || state.status() != Status::Running)
            {
                let detail = format!("attempt {} listens, {} is at {}", access.attempt, state.status(), state.attempt);
                self.violated(Invariant::OneRunListens, agent, detail);
            }
        }
    }

    /// What one user is shown of agents.
    pub fn listed(&mut self, user: UserId, page: &Page) {
        for view in &page.agents {
            let agent = view.record.id;
            let owner = self.agents.get(&agent).and_then(|known| known.owner).unwrap_or(view.record.user);
            if owner != user || view.record.user != user {
                self.violated(Invariant::UsersApart, agent, format!("{user} is shown what belongs to {owner}"));
            }
        }
    }

    /// Agents whose data is there.
    pub fn data(&mut self, there: &[AgentId]) {
        let there: BTreeSet<AgentId> = there.iter().copied().collect();
        let mut lost = Vec::new();
        for (agent, known) in &mut self.agents {
            let here = there.contains(agent);
            if known.acknowledged && known.has_data && !here {
                lost.push(*agent);
            }
            known.has_data = here;
        }
        for agent in lost {
            self.violated(Invariant::DataIsKept, agent, "its data is gone, and nobody asked for that");
        }
    }

    /// The instances of other installations. They are remembered as they are seen first.
    pub fn others(&mut self, observed: &[ObservedInstance]) {
        let before = self.others.get_or_insert_with(|| observed.to_vec());
        if before != observed {
            let detail = format!("{before:?} became {observed:?}");
            self.violations.push(Violation { invariant: Invariant::OthersUntouched, agent: None, detail });
        }
    }

    /// A text that was written down or told to somebody: a log line, an answer, the store's bytes.
    pub fn told(&mut self, agent: Option<AgentId>, text: &str) {
        let seen = self.secrets.iter().any(|secret| text.contains(secret.as_str()));
        if seen {
            // Which one is not said: this is told, too.
            let detail = "a secret in clear text".to_owned();
            self.violations.push(Violation { invariant: Invariant::SecretsSealed, agent, detail });
        }
    }
}

fn is_running(stored: &StoredAgent) -> bool {
    stored.record.state.status() == Status::Running
}
