//! One agent's actor: a thin shell round [`lifecycle::step`](crate::lifecycle::step()).
//!
//! Event → decide → commit → show → reply → act. A handler waits for the store and nothing else. A commit that was
//! certainly not written is repeated after a pause. Where the outcome of a commit is not known the actor ends with an
//! error, and its supervisor rebuilds it from what the store has.

mod effects;
mod reseal;
mod state;

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::Instrument as _;

use self::state::{ActorState, ObserveState};
use super::Services;
use super::jobs;
use super::protocol::{AgentMsg, CommandMsg, CommandReply, GONE, RegistrySlot};
use crate::audit;
use crate::domain::Secret;
use crate::lifecycle::{
    Admission, Code, Context, Effect, Event, Failure, FailureKind, Job, Outcome, Phase, Transition, admit, allowed,
    step,
};
#[cfg(feature = "testkit")]
use crate::store::AgentRecord;
use crate::store::{Conflict, StoreError};
use crate::view::AgentView;

pub struct AgentActor;

pub struct AgentArgs {
    pub services: Arc<Services>,
    pub view: Arc<AgentView>,
    pub registry: RegistrySlot,
}

impl Actor for AgentActor {
    type Msg = AgentMsg;
    type State = ActorState;
    type Arguments = AgentArgs;

    /// Only takes its arguments: what fails in here is seen by the spawner alone, not by the supervisor.
    async fn pre_start(&self, _: ActorRef<AgentMsg>, args: AgentArgs) -> Result<ActorState, ActorProcessingErr> {
        let AgentArgs { services, view, registry } = args;
        let token = jobs::open_token(&services, &view.record);
        Ok(ActorState {
            services,
            registry,
            view,
            token,
            run: None,
            software: None,
            wake: None,
            health: None,
            observing: ObserveState::Idle,
            observation: None,
            refused_commits: 0,
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
        let span = state.span();
        // Boxed: otherwise every idle actor's task has room for a transition that it may make once a day.
        if let AgentMsg::Command(mut command) = message {
            let acting = command.acting.take();
            return Box::pin(audit::acting(acting, state.command(&myself, *command)).instrument(span)).await;
        }
        if let AgentMsg::Reseal(reply) = message {
            return Box::pin(state.reseal(reply).instrument(span)).await;
        }
        #[cfg(feature = "testkit")]
        let message = state.with_old_news(message);
        let (event, token) = span.in_scope(|| state.observe(&myself, message));
        match event {
            Some(event) => Box::pin(state.advance(&myself, event, token).instrument(span)).await,
            None => Ok(()),
        }
    }
}

/// Pause before a commit that was certainly not written is tried again; doubles up to the maximum.
const COMMIT_PAUSE: Duration = Duration::from_millis(50);
const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(5);

impl ActorState {
    /// Notes what a message brings besides its event: a run, a token, a port.
    fn observe(&mut self, myself: &ActorRef<AgentMsg>, message: AgentMsg) -> (Option<Event>, Option<Secret<String>>) {
        let event = match message {
            AgentMsg::Recover => Event::Recovered,
            AgentMsg::JobEnded { attempt, job, report } => {
                let report = *report;
                if attempt == self.view.record.state.attempt {
                    self.run = report.run.or_else(|| self.run.take());
                    self.software = report.software.or_else(|| self.software.take());
                }
                return (Some(Event::Job { attempt, job, outcome: report.outcome }), report.token);
            }
            AgentMsg::Rebound { attempt, port } => {
                let outcome = match port {
                    Ok(port) => {
                        // A fact of the ledger, true for whichever attempt is under way.
                        self.show(self.view.record.clone(), Some(port));
                        Outcome::Done
                    }
                    Err(cause) => Outcome::Failed(Failure { kind: FailureKind::Transient, cause }),
                };
                Event::Job { attempt, job: Job::Rebind, outcome }
            }
            AgentMsg::Observed { revision, observation, run } => {
                self.observation = None;
                if std::mem::replace(&mut self.observing, ObserveState::Idle) == ObserveState::RunningThenAgain {
                    self.start_observation(myself.clone());
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
            AgentMsg::Unusable { attempt, why } => Event::Unusable { attempt, why },
            AgentMsg::TokenRefused { attempt } => Event::TokenRefused { attempt },
            AgentMsg::ModelFailed { attempt, model } => Event::ModelFailed { attempt, model },
            AgentMsg::ModelAnswered { attempt } => Event::ModelAnswered { attempt },
            AgentMsg::Wake { revision } => {
                // The timer is over; its task would be kept by its handle.
                if revision == self.view.record.state.revision {
                    self.wake = None;
                }
                Event::Wake { revision }
            }
            AgentMsg::Again(again) => {
                let (event, token) = *again;
                return (Some(event), token);
            }
            AgentMsg::Command(command) => Event::Command(command.command),
            // Handled before.
            AgentMsg::Reseal(_) => return (None, None),
            #[cfg(feature = "testkit")]
            AgentMsg::Panic => panic!("a test makes the actor of an agent panic"),
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
            AgentMsg::Unusable { why, .. } => AgentMsg::Unusable { attempt, why },
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
        let transition = self.decide(event.clone());
        if let (Some(state), Some(cause)) = (transition.state, transition.cause) {
            let next = self.next_record(state, transition.token, token.as_ref());
            #[cfg(feature = "testkit")]
            let skipped = self.forgets_to_commit(&next, &transition.effects);
            #[cfg(not(feature = "testkit"))]
            let skipped = false;
            let committed = if skipped { Ok(()) } else { self.commit(next, &cause).await };
            match committed {
                Ok(()) => self.refused_commits = 0,
                // The record was removed: this agent is gone.
                Err(StoreError::Rejected(Conflict::NotFound)) => {
                    myself.stop(Some(GONE.into()));
                    return Ok(());
                }
                Err(error) if error.is_certain() => {
                    self.repeat(myself, event, token, &error);
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

    /// The store took nothing, so nothing has happened: the same event comes again after a pause. What becomes outdated
    /// meanwhile is dropped by its attempt or revision, as always.
    fn repeat(&mut self, myself: &ActorRef<AgentMsg>, event: Event, token: Option<Secret<String>>, error: &StoreError) {
        let doubled = COMMIT_PAUSE.saturating_mul(2_u32.saturating_pow(self.refused_commits));
        let pause = doubled.min(COMMIT_PAUSE_MAX);
        self.refused_commits = self.refused_commits.saturating_add(1);
        tracing::warn!(%error, pause_ms = pause.as_millis(), "a transition was not stored; it is tried again");
        myself.send_after(pause, move || AgentMsg::Again(Box::new((event, token))));
    }

    async fn command(&mut self, myself: &ActorRef<AgentMsg>, message: CommandMsg) -> Result<(), ActorProcessingErr> {
        let CommandMsg { command, change, if_generation, asked_at, acting: _, reply } = message;
        self.services.counters.waited(asked_at.elapsed());
        if reply.is_closed() {
            // The caller has gone. Commands are idempotent, so nothing is lost by leaving it out.
            return Ok(());
        }
        if if_generation.is_some_and(|generation| generation != self.view.record.state.generation) {
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
        if let (Some(mut state), Some(mut cause)) = (transition.state, transition.cause) {
            let step = change.as_ref().and_then(|change| change.upgrade.as_ref());
            if let Some(step) = step {
                cause.clone_from(&step.cause);
                // What went well needs no reason.
                state.reason = (cause.code != Code::Upgraded).then(|| cause.clone());
            }
            let mut next = self.next_record(state, transition.token, None);
            if let Some(step) = step {
                next.upgrade.clone_from(&step.upgrade);
                next.untold = step.untold;
            }
            if let Some(change) = change {
                next.spec = change.spec;
                next.api_key = change.api_key;
                next.channels = change.channels;
                next.channel_kinds = change.channel_kinds;
                next.retired = change.retired;
            }
            match self.commit(next, &cause).await {
                Ok(()) => {}
                Err(error) if error.is_certain() => {
                    // The agent goes on as it was.
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
        if command == crate::lifecycle::Command::Delete && self.services.is_sabotaged(super::Sabotage::ReleasePortEarly)
        {
            effects::retire(&self.services, &self.registry, self.view.record.id).await;
        }
        for effect in transition.effects {
            self.act(myself, effect);
        }
        Ok(())
    }
}
