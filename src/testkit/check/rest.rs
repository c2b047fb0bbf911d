//! What holds when nothing is under way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inspector, Invariant, Moment, Violation, Wish};
use crate::control::DeliveryError;
use crate::domain::{AgentId, Status, UserId};
use crate::runtime::ObservedInstance;
use crate::store::{Snapshot, StoredAgent};
use crate::testkit::state::Tally;
use crate::zeroclaw::client::WebhookAnswer;

impl Inspector {
    /// Everything that holds when nothing is under way.
    pub fn at_rest(&mut self, snapshot: &Snapshot, observed: &[ObservedInstance]) {
        self.own_invariants(Moment { snapshot, instances: observed, at_rest: true });
        let seen: BTreeMap<AgentId, &ObservedInstance> =
            observed.iter().map(|instance| (instance.key.agent, instance)).collect();
        for stored in &snapshot.agents {
            self.agent_at_rest(stored, seen.get(&stored.record.id).copied());
        }
        let stored: BTreeSet<AgentId> = snapshot.agents.iter().map(|agent| agent.record.id).collect();
        for instance in observed {
            if !stored.contains(&instance.key.agent) {
                self.violated(Invariant::NoLeftovers, instance.key.agent, "an instance without a record");
            }
        }
        let wishes: Vec<(AgentId, Wish)> = self.agents.iter().map(|(agent, known)| (*agent, known.wish)).collect();
        for (agent, wish) in wishes {
            if wish == Wish::Delete && stored.contains(&agent) {
                self.violated(Invariant::WishesHold, agent, "its deletion was acknowledged, and it is still there");
            }
        }
    }

    fn agent_at_rest(&mut self, stored: &StoredAgent, seen: Option<&ObservedInstance>) {
        let (agent, state) = (stored.record.id, &stored.record.state);
        let run = seen.and_then(ObservedInstance::run);
        match state.status() {
            Status::Running => match run {
                Some(run) if state.run_id() == Some(&run.run_id) => {}
                other => {
                    let detail = format!("stored as the run {:?}, seen is {other:?}", state.run_id());
                    self.violated(Invariant::IntentIsFact, agent, detail);
                }
            },
            Status::Stopped | Status::Error => {
                if run.is_some() {
                    self.violated(Invariant::IntentIsFact, agent, format!("it runs and is {}", state.status()));
                }
                if state.status() == Status::Error && state.reason.is_none() {
                    self.violated(Invariant::NothingStuck, agent, "ERROR without a reason");
                }
            }
            status @ (Status::Pending | Status::Starting | Status::Stopping) => {
                let detail = format!("{status}: {:?}, {:?}", state.phase, state.reason);
                self.violated(Invariant::NothingStuck, agent, detail);
            }
        }
        let wish = self.agents.get(&agent).map(|known| known.wish).unwrap_or_default();
        let held = match wish {
            Wish::Open | Wish::Delete => true,
            Wish::Run => matches!(state.status(), Status::Running | Status::Error),
            Wish::Stop => state.status() == Status::Stopped,
        };
        if !held {
            self.violated(Invariant::WishesHold, agent, format!("{wish:?} was acknowledged, it is {}", state.status()));
        }
    }

    /// Whether a RUNNING agent answered when all was well.
    pub fn answered(&mut self, agent: AgentId, outcome: &Result<WebhookAnswer, DeliveryError>) {
        if !matches!(outcome, Ok(answer) if answer.status == 200) {
            self.violated(Invariant::TokensWork, agent, format!("{outcome:?}"));
        }
    }

    /// How many agents the service counts for a user.
    pub fn counted(&mut self, user: UserId, used: u32, snapshot: &Snapshot) {
        let stored = snapshot.agents.iter().filter(|agent| agent.record.user == user).count();
        if stored != used as usize {
            let detail = format!("user {user} has {stored} agents, {used} are counted");
            self.violations.push(Violation { invariant: Invariant::QuotaHeld, agent: None, detail });
        }
    }

    /// What was done to a RUNNING agent's instance before and after a restart of the service.
    pub fn service_restarted(&mut self, agent: AgentId, before: &Tally, after: &Tally) {
        let cost = |tally: &Tally| (tally.creates, tally.starts.len(), tally.pairings);
        if cost(before) != cost(after) {
            let detail = format!("creates, starts, pairings: {:?}, then {:?}", cost(before), cost(after));
            self.violated(Invariant::RestartsCostNothing, agent, detail);
        }
    }
}
