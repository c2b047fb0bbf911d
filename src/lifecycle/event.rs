//! What can happen to an agent, and what is done then.

use std::sync::Arc;
use std::time::Duration;

use super::cause::{Cause, Code, FailedModel};
use crate::domain::{Exit, RunId, Timestamp};

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// It is to run.
    Start,
    /// It is to be down, and to stay so.
    Stop,
    /// It is to be started again, with another token.
    Restart,
    /// It is to be removed, with its data.
    Delete,
    /// The spec was changed.
    Update {
        /// Whether a running instance must be restarted to see it.
        inside: bool,
    },
}

/// What can happen to an agent. Attempt and revision are those of the state that it was based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A user asks for this.
    Command(Command),
    /// The actor took the agent up from the store.
    Recovered,
    /// A job of this attempt ended.
    Job {
        /// The attempt that it was started for.
        attempt: u64,
        /// Which one.
        job: Job,
        /// How it ended.
        outcome: Outcome,
    },
    /// The engine was asked for the instance when the state had this revision.
    Observed {
        /// The revision at that time.
        revision: u64,
        /// What the engine showed.
        observation: Observation,
    },
    /// The engine says that something happened to the instance.
    Resync,
    /// A health check of this attempt came back.
    Health {
        /// The attempt whose gateway was asked.
        attempt: u64,
        /// Whether it answered, and well.
        alive: bool,
    },
    /// The gateway of this attempt is healthy, but would answer no message.
    Unusable {
        /// The attempt whose gateway it is.
        attempt: u64,
        /// A sentence with the remedy.
        why: Arc<str>,
    },
    /// A message was answered with 401 in this attempt.
    TokenRefused {
        /// The attempt whose token it is.
        attempt: u64,
    },
    /// A message of this attempt got no answer because the model failed.
    ModelFailed {
        /// The attempt whose gateway asked the model.
        attempt: u64,
        /// How it failed.
        model: Arc<FailedModel>,
    },
    /// The model answered a message of this attempt.
    ModelAnswered {
        /// The attempt whose gateway asked the model.
        attempt: u64,
    },
    /// The timer that was set at this revision is due.
    Wake {
        /// The revision that set it.
        revision: u64,
    },
}

/// Work on the instance, one at a time for each agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    /// Ends at once what is left of a run.
    Kill,
    /// Prepares network and image, makes the instance, and puts its files in place.
    Create,
    /// Gets another port from the registry.
    Rebind,
    /// Starts the instance.
    Launch,
    /// Waits for an engine that is busy with the start.
    Await,
    /// Waits until the gateway is healthy.
    Probe,
    /// Gets a token that works, and asks the gateway whether it would answer messages.
    Pair,
    /// Ends the run, which gets some time to end by itself.
    Stop,
    /// Removes the instance and its data.
    Remove,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Kill, Rebind, Probe, Stop, Remove: done.
    Done,
    /// The instance exists.
    Created {
        /// The engine's own id, for people.
        engine_id: Arc<str>,
        /// Its run, where it runs already.
        up: Option<RunId>,
    },
    /// The engine has the start and needs more time for it.
    Accepted {
        /// What the engine is busy with.
        why: Arc<str>,
    },
    /// Launch, Await: it runs.
    Launched {
        /// Its run.
        run_id: RunId,
    },
    /// A token works: a new one ([`Code::Paired`]), or the one that was held ([`Code::TokenValid`]).
    Paired(Code),
    /// It was not done.
    Failed(Failure),
}

/// Why a job was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether another try makes sense, and when.
    pub kind: FailureKind,
    /// Why, for the owner and the log.
    pub cause: Cause,
}

/// What a failed job says about the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// May go better next time.
    Transient,
    /// Will fail in the same way until someone changes something.
    Permanent,
    /// The engine did not answer: says nothing about the agent.
    EngineAway,
    /// The engine answers and refuses what the service itself needs: says nothing about the agent, and somebody has to change
    /// the engine's settings.
    EngineRefuses,
    /// Another program has the port: another port may go better.
    PortTaken,
}

/// What the engine showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// There is no instance.
    Absent,
    /// It does not run; its last run ended so.
    Down(Exit),
    /// It runs.
    Up {
        /// This run.
        run_id: RunId,
        /// How the run before it ended, if the engine told.
        died: Option<Exit>,
        /// The run is the known one, and its gateway is reached by another address than before, or its machine was lost
        /// until now: what was missed before says nothing about it.
        moved: bool,
    },
    /// It is paused, or is about to end: its gateway answers nothing.
    Paused {
        /// This run.
        run_id: RunId,
    },
    /// The engine did not answer.
    Unknown,
}

/// What to do after a transition is committed, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Starts a job; one that is still under way is told to end, and waited for.
    Run(Job),
    /// Asks the engine for the instance; answers with [`Event::Observed`].
    Observe,
    /// Asks the gateway for its health after this delay; answers with [`Event::Health`].
    CheckHealth(Duration),
    /// [`Event::Wake`] at this time.
    WakeAt(Timestamp),
    /// The agent is gone: its actor ends.
    End,
}
