//! One agent's actor: a thin shell round [`lifecycle::step`](crate::lifecycle::step()).
//!
//! Event → decide → commit → show → reply → act. The only thing a handler waits for is the store. Where a commit's outcome
//! is not known the actor ends with an error, and its supervisor rebuilds it from what the store really has.

mod effects;
mod message;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use self::effects::{AbortOnDrop, ObserveState};
pub use self::message::{AgentMsg, Change, CommandReply};
use super::jobs::{self, TOKEN_FIELD};
use super::supervisor::RegistrySlot;
use super::{FeedEntry, Services};
use crate::domain::{HostPort, Secret};
use crate::lifecycle::{
    Admission, AgentState, Cause, Command, Context, Effect, Event, Failure, FailureKind, Job, Outcome, Phase,
    TokenChange, Transition, admit, allowed, step,
};
use crate::runtime::Run;
use crate::store::{AgentRecord, Batch, LogEntry, StoreError};
use crate::vault::Binding;
use crate::view::{Access, AgentView};

pub struct AgentActor;

pub struct AgentArgs {
    pub services: Arc<Services>,
    pub view: Arc<AgentView>,
    pub registry: RegistrySlot,
}

pub struct ActorState {
    services: Arc<Services>,
    registry: RegistrySlot,
    /// What is committed, as everybody sees it.
    view: Arc<AgentView>,
    token: Option<Secret<String>>,
    run: Option<Run>,
    wake: Option<AbortOnDrop>,
    health: Option<AbortOnDrop>,
    observing: ObserveState,
}

impl Drop for ActorState {
    /// The successor finds out what was done, and its first job waits for the end of the last one.
    fn drop(&mut self) {
        self.services.job_queues.cancel(self.view.record.id);
    }
}

impl Actor for AgentActor {
    type Msg = AgentMsg;
    type State = ActorState;
    type Arguments = AgentArgs;

    /// Only takes its arguments: what fails in here would be seen by nobody but the spawner.
    async fn pre_start(&self, _: ActorRef<AgentMsg>, args: AgentArgs) -> Result<ActorState, ActorProcessingErr> {
        let AgentArgs { services, view, registry } = args;
        let token = jobs::open_token(&services, &view.record);
        Ok(ActorState {
            services,
            registry,
            view,
            token,
            run: None,
            wake: None,
            health: None,
            observing: ObserveState::No,
        })
    }

    async fn post_start(&self, myself: ActorRef<AgentMsg>, _: &mut ActorState) -> Result<(), ActorProcessingErr> {
        Ok(myself.cast(AgentMsg::Recover)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<AgentMsg>,
        message: AgentMsg,
        state: &mut ActorState,
    ) -> Result<(), ActorProcessingErr> {
        // Boxed: else every idle actor's task has room for a transition that it may make once a day.
        if let AgentMsg::Command(command, change, reply) = message {
            return Box::pin(state.command(&myself, command, change, reply)).await;
        }
        #[cfg(feature = "testkit")]
        let message = state.with_old_news(message);
        let (event, token) = state.observe(&myself, message);
        match event {
            Some(event) => Box::pin(state.advance(&myself, event, token)).await,
            None => Ok(()),
        }
    }
}

impl ActorState {
    /// Notes what a message brings besides its event: a run, a token, a port.
    fn observe(&mut self, myself: &ActorRef<AgentMsg>, message: AgentMsg) -> (Option<Event>, Option<Secret<String>>) {
        let event = match message {
            AgentMsg::Recover => Event::Recovered,
            AgentMsg::JobEnded { attempt, job, report } => {
                let report = *report;
                if attempt == self.view.record.state.attempt {
                    self.run = report.run.or_else(|| self.run.take());
                }
                return (Some(Event::Job { attempt, job, outcome: report.outcome }), report.token);
            }
            AgentMsg::Rebound { attempt, port } => {
                let outcome = match port {
                    Ok(port) => {
                        // A fact of the ledger, true for whichever attempt is under way.
                        self.show(self.view.record.clone(), port);
                        Outcome::Done
                    }
                    Err(cause) => Outcome::Failed(Failure { kind: FailureKind::Transient, cause }),
                };
                Event::Job { attempt, job: Job::Rebind, outcome }
            }
            AgentMsg::Observed { revision, observation, run } => {
                if std::mem::replace(&mut self.observing, ObserveState::No) == ObserveState::Again {
                    self.look(myself.clone());
                }
                if revision == self.view.record.state.revision && run.is_some() && run != self.run {
                    self.run = run;
                    self.show(self.view.record.clone(), self.view.port);
                    self.miss_token(myself);
                }
                Event::Observed { revision, observation }
            }
            AgentMsg::HealthChecked { attempt, alive } => Event::Health { attempt, alive },
            AgentMsg::HealthUnknown { attempt } => {
                if attempt == self.view.record.state.attempt {
                    self.act(myself, Effect::Observe);
                    self.act(myself, Effect::CheckHealth(self.services.settings.timing.health_retry));
                }
                return (None, None);
            }
            AgentMsg::Resync => Event::Resync,
            AgentMsg::TokenRefused { attempt } => Event::TokenRefused { attempt },
            AgentMsg::Wake { revision } => {
                // The timer is over; its task would be kept by its handle.
                if revision == self.view.record.state.revision {
                    self.wake = None;
                }
                Event::Wake { revision }
            }
            AgentMsg::Command(command, ..) => Event::Command(command),
            #[cfg(feature = "testkit")]
            AgentMsg::Panic => panic!("an agent's actor was told to panic"),
        };
        (Some(event), None)
    }

    /// Plants [`Sabotage::ForgetAttemptCheck`](super::Sabotage).
    #[cfg(feature = "testkit")]
    fn with_old_news(&self, message: AgentMsg) -> AgentMsg {
        let attempt = self.view.record.state.attempt;
        match message {
            message if !self.services.is_sabotaged(super::Sabotage::ForgetAttemptCheck) => message,
            AgentMsg::JobEnded { job, report, .. } => AgentMsg::JobEnded { attempt, job, report },
            AgentMsg::Rebound { port, .. } => AgentMsg::Rebound { attempt, port },
            AgentMsg::HealthChecked { alive, .. } => AgentMsg::HealthChecked { attempt, alive },
            AgentMsg::TokenRefused { .. } => AgentMsg::TokenRefused { attempt },
            message => message,
        }
    }

    /// Plants [`Sabotage::SkipIntentCommit`](super::Sabotage): an intent that is only remembered.
    #[cfg(feature = "testkit")]
    fn forgets_to_commit(&mut self, next: &AgentRecord, effects: &[Effect]) -> bool {
        let intent = |effect: &Effect| matches!(effect, Effect::Run(Job::Create | Job::Launch));
        let skips = self.services.is_sabotaged(super::Sabotage::SkipIntentCommit) && effects.iter().any(intent);
        if skips {
            self.show(next.clone(), self.view.port);
        }
        skips
    }

    /// A run that was taken up from a record whose token is missing or cannot be opened: healthy, and out of reach for
    /// every message. To the agent it is as if the token had been refused.
    fn miss_token(&self, myself: &ActorRef<AgentMsg>) {
        let state = &self.view.record.state;
        if self.token.is_none() && matches!(state.phase, Phase::Running { .. }) {
            let _ = myself.cast(AgentMsg::TokenRefused { attempt: state.attempt });
        }
    }

    fn decide(&self, event: Event) -> Transition {
        let settings = &self.services.settings;
        let context = Context {
            now: self.services.clock.now(),
            seed: self.view.record.id.seed(),
            restart: &settings.restart,
            timing: &settings.timing,
        };
        step(&self.view.record.state, event, &context)
    }

    async fn advance(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        event: Event,
        token: Option<Secret<String>>,
    ) -> Result<(), ActorProcessingErr> {
        let transition = self.decide(event);
        if let (Some(state), Some(cause)) = (transition.state, transition.cause) {
            let next = self.next_record(state, transition.token, token.as_ref());
            #[cfg(feature = "testkit")]
            let skipped = self.forgets_to_commit(&next, &transition.effects);
            #[cfg(not(feature = "testkit"))]
            let skipped = false;
            let committed = if skipped { Ok(()) } else { self.commit(next, &cause).await };
            match committed {
                Ok(()) => {}
                // Somebody removed the record: nothing is left to look after.
                Err(StoreError::Rejected(crate::store::Conflict::NotFound)) => {
                    myself.stop(Some(GONE.into()));
                    return Ok(());
                }
                Err(error) => return Err(Box::new(error)),
            }
        }
        for effect in transition.effects {
            self.act(myself, effect);
        }
        Ok(())
    }

    async fn command(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        command: Command,
        change: Option<Box<Change>>,
        reply: RpcReplyPort<CommandReply>,
    ) -> Result<(), ActorProcessingErr> {
        if reply.is_closed() {
            // Whoever asked has gone; commands are idempotent, so nothing is lost by not doing it.
            return Ok(());
        }
        if change.as_ref().is_some_and(|change| change.if_generation != self.view.record.state.generation) {
            let _ = reply.send(CommandReply::Stale);
            return Ok(());
        }
        match admit(&self.view.record.state.phase, command) {
            Admission::Accept => {}
            Admission::NoOp => {
                let _ = reply.send(CommandReply::Already);
                return Ok(());
            }
            Admission::Deny => {
                let _ = reply.send(CommandReply::Refused {
                    status: self.view.record.state.status(),
                    allowed: allowed(&self.view.record.state.phase),
                });
                return Ok(());
            }
        }
        let transition = self.decide(Event::Command(command));
        if let (Some(state), Some(cause)) = (transition.state, transition.cause) {
            let mut next = self.next_record(state, transition.token, None);
            if let Some(change) = change {
                next.spec = change.spec;
                next.api_key = change.api_key;
                next.channels = change.channels;
                next.channel_kinds = change.channel_kinds;
            }
            match self.commit(next, &cause).await {
                Ok(()) => {}
                Err(error @ (StoreError::Busy | StoreError::Unavailable(_) | StoreError::Closed)) => {
                    // Certainly not written: the agent goes on as it was.
                    let _ = reply.send(CommandReply::NotStored(error));
                    return Ok(());
                }
                Err(error) => {
                    let _ = reply.send(CommandReply::NotStored(error.clone()));
                    return Err(Box::new(error));
                }
            }
        }
        let _ = reply.send(CommandReply::Done);
        #[cfg(feature = "testkit")]
        if command == Command::Delete && self.services.is_sabotaged(super::Sabotage::ReleasePortEarly) {
            effects::retire(&self.services, &self.registry, self.view.record.id).await;
        }
        for effect in transition.effects {
            self.act(myself, effect);
        }
        Ok(())
    }

    fn next_record(&self, state: AgentState, change: TokenChange, token: Option<&Secret<String>>) -> AgentRecord {
        let mut next = self.view.record.clone();
        let paired = matches!(state.phase, Phase::Running { .. });
        next.state = state;
        next.updated_at = self.services.clock.now();
        if change == TokenChange::Forget {
            next.token = None;
        } else if let Some(token) = token.filter(|token| paired && Some(*token) != self.token.as_ref()) {
            let binding = Binding::agent(next.id, TOKEN_FIELD);
            next.token = Some(self.services.vault.seal(&binding, token.expose().as_bytes()));
        }
        next
    }

    async fn commit(&mut self, next: AgentRecord, cause: &Cause) -> Result<(), StoreError> {
        let entry = LogEntry {
            seq: next.state.revision,
            time: next.updated_at,
            from: self.view.record.state.status(),
            to: next.state.status(),
            cause: cause.code.as_str().to_owned(),
            attempt: next.state.attempt,
            detail: cause.detail.as_ref().map(|detail| detail.to_string()),
            root: cause.root.map(|code| code.as_str().to_owned()),
            exit_code: cause.exit_code,
        };
        self.services.store.commit(Batch::update_agent(&next, Some(&entry))).await?;
        tracing::info!(
            agent = %next.id, slug = %next.slug, attempt = entry.attempt,
            from = %entry.from, to = %entry.to, cause = %entry.cause, detail = entry.detail,
            "transition"
        );
        if next.token != self.view.record.token {
            self.token = jobs::open_token(&self.services, &next);
        }
        if !matches!(next.state.phase, Phase::Running { .. } | Phase::Starting { .. }) {
            self.run = None;
        }
        self.services.recoveries.note(next.id, &entry);
        let fed = FeedEntry { agent: next.id, user: next.user, entry };
        self.show(next, self.view.port);
        // Nobody listening is fine.
        let _ = self.services.feed.send(Arc::new(fed));
        Ok(())
    }

    /// Puts a view of this record in place of the one before it.
    fn show(&mut self, record: AgentRecord, port: HostPort) {
        let running = matches!(record.state.phase, Phase::Running { .. });
        let access = match (&self.run, &self.token) {
            (Some(run), Some(token)) if running => {
                Some(Arc::new(Access { endpoint: run.endpoint, token: token.clone(), attempt: record.state.attempt }))
            }
            _ => None,
        };
        self.view = Arc::new(AgentView { record, port, access });
        self.services.views.put(Arc::clone(&self.view));
    }
}

/// The reason with which an actor ends when its agent is gone: the one end that is not repaired.
pub const GONE: &str = "gone";
