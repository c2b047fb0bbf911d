//! What one agent's actor holds, and how a decision becomes durable and visible.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::actor::jobs::{self, TOKEN_FIELD};
use crate::actor::protocol::RegistrySlot;
use crate::actor::{FeedEntry, Services};
use crate::audit;
use crate::domain::{HostPort, Secret, Software, Status};
use crate::lifecycle::{AgentState, Cause, Phase, TokenChange};
use crate::runtime::Run;
use crate::store::{AgentRecord, Batch, LogEntry, StoreError};
use crate::vault::Binding;
use crate::view::{Access, AgentView};

pub struct ActorState {
    pub(super) services: Arc<Services>,
    pub(super) registry: RegistrySlot,
    /// The committed state, as readers see it.
    pub(super) view: Arc<AgentView>,
    pub(super) token: Option<Secret<String>>,
    /// The run that the engine showed last, with where it is reached; [`ActorState::run`] says whether it is the state's.
    pub(super) run: Option<Run>,
    /// What the last creation was made from, as soon as a job says so.
    pub(super) software: Option<Arc<Software>>,
    pub(super) wake: Option<AbortOnDropHandle<()>>,
    pub(super) health: Option<AbortOnDropHandle<()>>,
    pub(super) observing: ObserveState,
    /// Ends with its owner: an observation changes nothing.
    pub(super) observation: Option<AbortOnDropHandle<()>>,
    /// Commits in a row that the store certainly did not take.
    pub(super) refused_commits: u32,
}

impl Drop for ActorState {
    /// The rebuilt actor finds out what was done; its first job waits until the last one has ended.
    fn drop(&mut self) {
        self.services.job_queues.cancel(self.view.record.id);
    }
}

/// One observation at a time. A wake-up during one asks for another after it, because the first may have missed the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObserveState {
    Idle,
    Running,
    RunningThenAgain,
}

impl ActorState {
    /// The span of everything that is done for this agent.
    pub(super) fn span(&self) -> tracing::Span {
        let record = &self.view.record;
        tracing::info_span!("agent", id = %record.id, slug = %record.slug, attempt = record.state.attempt)
    }

    /// The run that the state is about, with where its gateway is reached; `None` until the engine has shown that very run.
    pub(super) fn run(&self) -> Option<&Run> {
        known(self.run.as_ref(), &self.view.record.state)
    }

    pub(super) fn next_record(
        &self,
        state: AgentState,
        change: TokenChange,
        token: Option<&Secret<String>>,
    ) -> AgentRecord {
        let mut next = self.view.record.clone();
        let paired = matches!(state.phase, Phase::Running { .. });
        next.state = state;
        next.updated_at = self.services.clock.now();
        next.software = self.software.clone().or(next.software);
        // The job that led there has told it.
        next.untold &= !paired;
        if change == TokenChange::Forget {
            next.token = None;
        } else if let Some(token) = token.filter(|token| paired && Some(*token) != self.token.as_ref()) {
            let binding = Binding::agent(next.id, TOKEN_FIELD);
            next.token = Some(self.services.vault.seal(&binding, token.expose().as_bytes()));
        }
        next
    }

    pub(super) async fn commit(&mut self, next: AgentRecord, cause: &Cause) -> Result<(), StoreError> {
        let entry = LogEntry::new(self.view.record.state.status(), &next, cause);
        audit::commit(&self.services.store, Batch::update_agent(&next, Some(&entry))).await?;
        log_transition(&entry);
        if next.token != self.view.record.token {
            self.token = jobs::open_token(&self.services, &next);
        }
        if !matches!(next.state.phase, Phase::Running { .. } | Phase::Starting { .. }) {
            self.run = None;
        }
        self.services.recoveries.note(next.id, &entry);
        let fed = FeedEntry { agent: next.id, user: next.user, entry };
        self.show(next, self.view.port);
        // There may be no listener.
        let _ = self.services.feed.send(Arc::new(fed));
        Ok(())
    }

    /// Puts a view of this record in place of the one before it.
    pub(super) fn show(&mut self, record: AgentRecord, port: Option<HostPort>) {
        let running = matches!(record.state.phase, Phase::Running { .. });
        let run = known(self.run.as_ref(), &record.state).filter(|_| running);
        let access = run.zip(self.token.as_ref()).map(|(run, token)| {
            Arc::new(Access { endpoint: run.endpoint, token: token.clone(), attempt: record.state.attempt })
        });
        self.view = Arc::new(AgentView { record, port, access });
        self.services.views.put(Arc::clone(&self.view));
    }
}

/// What was seen of a run is worth something for that run alone.
fn known<'a>(seen: Option<&'a Run>, state: &AgentState) -> Option<&'a Run> {
    seen.filter(|run| state.run_id() == Some(&run.run_id))
}

/// The one line of each transition; its span names the agent. ERROR is a warning: it needs a person, or a long rest.
fn log_transition(entry: &LogEntry) {
    let LogEntry { from, to, cause, detail, attempt, .. } = entry;
    if *to == Status::Error {
        tracing::warn!(%from, %to, cause, detail, to_attempt = attempt, "transition");
    } else {
        tracing::info!(%from, %to, cause, detail, to_attempt = attempt, "transition");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RunId, Timestamp};

    #[test]
    fn endpoint_of_another_run_is_not_used() {
        let run = |name: &str| Run::new(RunId(name.into()), Timestamp::UNIX_EPOCH, ([127, 0, 0, 1], 40_000).into());
        let phase = Phase::Running { run_id: RunId("b1".into()), misses: 0 };
        let state = AgentState { phase, ..AgentState::new() };
        assert_eq!(known(Some(&run("b1")), &state), Some(&run("b1")));
        assert_eq!(known(Some(&run("b2")), &state), None);
        assert_eq!(known(Some(&run("b1")), &AgentState::new()), None, "nor in a state that knows of no run");
    }
}
