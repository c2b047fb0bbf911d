//! What can happen to an agent, and what is done then.

use std::sync::Arc;
use std::time::Duration;

use super::cause::{Cause, Code, FailedModel};
use crate::domain::{Exit, RunId, Timestamp};

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    Start,
    Stop,
    Restart,
    Delete,
    /// The spec was changed; `inside` when a running instance must be restarted to see it.
    Update {
        inside: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Command(Command),
    /// The actor took the agent up from the store.
    Recovered,
    /// A job of this attempt ended.
    Job {
        attempt: u64,
        job: Job,
        outcome: Outcome,
    },
    /// The engine was asked for the instance when the state had this revision.
    Observed {
        revision: u64,
        observation: Observation,
    },
    /// The engine says that something happened to the instance.
    Resync,
    /// A health check of this attempt came back.
    Health {
        attempt: u64,
        alive: bool,
    },
    /// The gateway of this attempt is healthy, but would answer no message.
    Unusable {
        attempt: u64,
        why: Arc<str>,
    },
    /// A message was answered with 401 in this attempt.
    TokenRefused {
        attempt: u64,
    },
    /// A message of this attempt got no answer because the model failed.
    ModelFailed {
        attempt: u64,
        model: Arc<FailedModel>,
    },
    /// The model answered a message of this attempt.
    ModelAnswered {
        attempt: u64,
    },
    /// The timer that was set at this revision is due.
    Wake {
        revision: u64,
    },
}

/// Work on the instance, one at a time for each agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    Kill,
    Create,
    Rebind,
    Launch,
    Await,
    Probe,
    Pair,
    Stop,
    Remove,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Kill, Rebind, Probe, Stop, Remove: done.
    Done,
    /// The instance exists; `up` when it runs already.
    Created {
        engine_id: Arc<str>,
        up: Option<RunId>,
    },
    /// The engine has the start and needs more time for it.
    Accepted {
        why: Arc<str>,
    },
    /// Launch, Await: it runs.
    Launched {
        run_id: RunId,
    },
    /// The token in hand works, by what means is in the cause.
    Paired(Code),
    Failed(Failure),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub cause: Cause,
}

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
    PortTaken,
}

/// What the engine showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    Absent,
    Down(Exit),
    Up {
        run_id: RunId,
        /// How the run before it ended, if the engine told.
        died: Option<Exit>,
        /// The run is the known one, and its gateway is reached by another address than before, or its machine was lost
        /// until now: what was missed before says nothing about it.
        moved: bool,
    },
    Paused,
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
