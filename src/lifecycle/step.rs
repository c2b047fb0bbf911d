//! One event and one state give the next state: the only place where something is decided about an agent.
//!
//! [`step`] sorts events: what a user asked for ([`command`]), how a job ended ([`start`], [`stop`]), what was seen from
//! outside ([`observe`]), and what time or a new actor takes up again ([`resume`]).

mod command;
mod observe;
mod resume;
mod start;
mod stop;
mod timers;

use std::time::Duration;

use super::admit::{Admission, admit};
use super::cause::Cause;
use super::event::{Effect, Event, Job, Outcome};
use super::phase::{AgentState, Phase};
use crate::backoff::RestartPolicy;
use crate::domain::Timestamp;

/// What a decision may depend on besides the state and the event.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The time of the decision.
    pub now: Timestamp,
    /// Differs from agent to agent; spreads retries.
    pub seed: u64,
    /// When a failed agent is tried again.
    pub restart: &'a RestartPolicy,
    /// The other waits.
    pub timing: &'a Timing,
}

/// Waits that decisions set. All of it is configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// Between health checks of a healthy agent.
    pub health_interval: Duration,
    /// After a missed check: soon enough to tell a hiccup from a hang.
    pub health_retry: Duration,
    /// Misses in a row that mean the gateway hangs; at least one.
    pub health_misses: u8,
    /// How long a start waits for an engine that is away before it shows as ERROR.
    pub engine_patience: Duration,
    /// How long a stop or a deletion is tried before it shows as ERROR.
    pub stop_patience: Duration,
}

impl Timing {
    setters! {
        with_health_interval(health_interval: Duration);
        with_health_retry(health_retry: Duration);
        with_health_misses(health_misses: u8);
        with_engine_patience(engine_patience: Duration);
        with_stop_patience(stop_patience: Duration);
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(10),
            health_retry: Duration::from_secs(1),
            health_misses: 3,
            engine_patience: Duration::from_secs(300),
            stop_patience: Duration::from_secs(60),
        }
    }
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The next state, to be committed before anything else; `None` when the event changes nothing.
    pub state: Option<AgentState>,
    /// Why, for the event log. Present exactly when `state` is.
    pub cause: Option<Cause>,
    /// What becomes of the held token, in the same commit.
    pub token: TokenChange,
    /// What to do after the commit, in this order.
    pub effects: Vec<Effect>,
}

/// What becomes of the held token in a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenChange {
    /// It stays as it is.
    Keep,
    /// The next attempt gets another one: its files are written without this one, so that the gateway gives a new code.
    Forget,
}

impl Transition {
    const fn nothing() -> Self {
        Self { state: None, cause: None, token: TokenChange::Keep, effects: Vec::new() }
    }

    fn only(effects: Vec<Effect>) -> Self {
        Self { effects, ..Self::nothing() }
    }

    fn to(mut state: AgentState, cause: Cause, effects: Vec<Effect>) -> Self {
        // What was known of the model belongs to the run that is over.
        state.failed_model = state.failed_model.filter(|_| matches!(state.phase, Phase::Running { .. }));
        Self { state: Some(state), cause: Some(cause), token: TokenChange::Keep, effects }
    }

    fn forgetting_token(self) -> Self {
        Self { token: TokenChange::Forget, ..self }
    }
}

/// Decides. Pure: the same arguments give the same answer. A command that [`admit`] does not let do anything, and an
/// event of an older attempt or revision, change nothing.
pub fn step(state: &AgentState, event: Event, context: &Context<'_>) -> Transition {
    match event {
        Event::Command(command) => match admit(&state.phase, command) {
            Admission::Accept => command::follow(state, command, context),
            Admission::NoOp | Admission::Deny => Transition::nothing(),
        },
        Event::Recovered => resume::recover(state, context),
        Event::Job { attempt, job, outcome } if attempt == state.attempt => finish(state, job, outcome, context),
        Event::Observed { revision, observation } if revision == state.revision => {
            observe::see(state, observation, context)
        }
        // What was seen may be older than what was decided since: look again.
        Event::Observed { .. } | Event::Resync => Transition::only(vec![Effect::Observe]),
        Event::Health { attempt, alive } if attempt == state.attempt => observe::check(state, alive, context),
        Event::Unusable { attempt, why } if attempt == state.attempt => observe::unusable(state, why, context),
        Event::TokenRefused { attempt } if attempt == state.attempt => observe::refused(state, context),
        Event::ModelFailed { attempt, model } if attempt == state.attempt => observe::model_failed(state, model),
        Event::ModelAnswered { attempt } if attempt == state.attempt => observe::model_answered(state),
        Event::Wake { revision } if revision == state.revision => resume::wake(state, context),
        Event::Job { .. }
        | Event::Health { .. }
        | Event::Unusable { .. }
        | Event::TokenRefused { .. }
        | Event::ModelFailed { .. }
        | Event::ModelAnswered { .. }
        | Event::Wake { .. } => Transition::nothing(),
    }
}

/// A job ended: it matters if it is the one that the phase waits for. Others were superseded.
fn finish(state: &AgentState, job: Job, outcome: Outcome, context: &Context<'_>) -> Transition {
    match &state.phase {
        Phase::Starting { step, .. } if step.job() == Some(job) => start::finish(state, step, outcome, context),
        Phase::Stopping { then, .. } if then.job() == job => stop::finish(state, *then, outcome, context),
        Phase::Stopped | Phase::Failed { retry_at: None, .. } if job == Job::Kill => {
            resume::after_kill(&outcome, context)
        }
        Phase::Pending
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Stopping { .. }
        | Phase::Stopped
        | Phase::Failed { .. } => Transition::nothing(),
    }
}

/// For a job that ended as only another job can: a bug in the jobs, shown rather than guessed about.
const WRONG_OUTCOME: &str = "a job ended with another job's outcome";
