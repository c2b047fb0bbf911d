//! The state of an agent: each phase with exactly the data that it needs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cause::{Cause, FailedModel};
use super::event::Job;
use crate::backoff::Restarts;
use crate::domain::{RunId, Status, Timestamp};

/// All that is decided about an agent; stored as part of its record.
///
/// Three counters, never mixed: `generation` counts accepted changes of the spec (the ETag), `attempt` counts starts (the
/// fence for everything asynchronous), and the [`RunId`] is what the engine shows. `revision` counts commits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentState {
    /// What it does, or waits for.
    pub phase: Phase,
    /// Accepted changes of the spec; a new agent has 1.
    pub generation: u64,
    /// Attempts to start it; the last one is that which is under way or runs.
    pub attempt: u64,
    /// Commits of this state; a new agent has 1.
    pub revision: u64,
    /// Restarts that nobody asked for, ever.
    pub restart_count: u64,
    /// The history of restarts, from which the next wait follows.
    pub(crate) restarts: Restarts,
    /// Why it is in its status; `None` where all is well and nothing is to be said.
    pub reason: Option<Cause>,
    /// The instance last seen, running or not. Beside the phase, because a start, a stop and ERROR have
    /// a run to end as well. An agent that is RUNNING, probed or paired always has its run here.
    pub instance: Option<Arc<InstanceRef>>,
    /// Why its messages get no answer although the gateway is well; only while it is RUNNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_model: Option<Arc<FailedModel>>,
}

/// An instance and its last known run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceRef {
    /// The engine's own id, for people.
    pub engine_id: Arc<str>,
    /// `None` when its run is over, or there was none yet.
    #[serde(rename = "boot")]
    pub run_id: Option<RunId>,
}

impl InstanceRef {
    /// With what is known of it.
    pub fn new(engine_id: impl Into<Arc<str>>, run_id: impl Into<Option<RunId>>) -> Self {
        Self { engine_id: engine_id.into(), run_id: run_id.into() }
    }
}

/// What an agent does, or waits for. [`AgentState::status`] is how it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// Accepted; the deployment begins as soon as its actor takes it up.
    Pending,
    /// An attempt to start it is under way, or waits for its turn.
    Starting {
        /// How far it is.
        step: Step,
        /// Whether the files have yet to be written anew. Not after a mere crash: they are as they were, and it costs time.
        stage: bool,
        /// Ports that other programs held, in this attempt.
        rebinds: u8,
        /// When the engine stopped answering, if it did.
        away_since: Option<Timestamp>,
    },
    /// It is paired, and takes messages.
    Running {
        /// Health checks missed in a row.
        misses: u8,
    },
    /// Its run is being ended.
    Stopping {
        /// What follows.
        then: AfterStop,
        /// When that began.
        since: Timestamp,
        /// When the engine is asked again; `None` while it is at work.
        retry_at: Option<Timestamp>,
    },
    /// It is down until a command starts it.
    Stopped,
    /// ERROR: given up, for a while or until a command comes.
    Failed {
        /// What goes on at `retry_at`.
        resume: RetryTarget,
        /// `None`: only a command helps.
        retry_at: Option<Timestamp>,
    },
}

/// What an attempt to start is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    /// Ends what is left of an older run.
    #[serde(rename = "Halting")]
    Killing,
    /// Makes the instance and puts its files in place.
    Creating,
    /// Gets another port, because a stranger holds ours.
    Rebinding,
    /// Starts it.
    Launching,
    /// The engine is busy with the start: it may take minutes.
    Awaiting,
    /// Waits until its gateway is healthy.
    Probing,
    /// Gets a token that works.
    Pairing,
    /// Waits before the next attempt.
    BackingOff {
        /// When that begins.
        until: Timestamp,
        /// Whether it begins by ending what is left of the run.
        #[serde(rename = "halt")]
        kill: bool,
    },
}

/// What follows a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AfterStop {
    /// It stays down.
    Stay,
    /// It is started again.
    Restart,
    /// It is removed, with its data.
    Delete,
}

/// What a failed agent goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RetryTarget {
    /// The start, as PENDING.
    Start,
    /// The stop.
    Stop,
    /// The deletion.
    Delete,
}

impl AgentState {
    /// A newly created agent.
    pub fn new() -> Self {
        Self {
            phase: Phase::Pending,
            generation: 1,
            attempt: 0,
            revision: 1,
            restart_count: 0,
            restarts: Restarts::default(),
            reason: None,
            instance: None,
            failed_model: None,
        }
    }

    /// What the API shows of the phase.
    pub const fn status(&self) -> Status {
        match &self.phase {
            Phase::Pending => Status::Pending,
            Phase::Starting { .. } => Status::Starting,
            Phase::Running { .. } => Status::Running,
            Phase::Stopping { .. } => Status::Stopping,
            Phase::Stopped => Status::Stopped,
            Phase::Failed { .. } => Status::Error,
        }
    }

    /// When something is tried again by itself.
    pub const fn next_attempt_at(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Starting { step: Step::BackingOff { until, .. }, .. } => Some(*until),
            Phase::Failed { retry_at, .. } | Phase::Stopping { retry_at, .. } => *retry_at,
            Phase::Pending | Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopped => None,
        }
    }

    /// Whether it is on its way to RUNNING by itself, so that a message for it is worth holding.
    pub const fn will_run(&self) -> bool {
        match &self.phase {
            Phase::Pending | Phase::Starting { .. } | Phase::Stopping { then: AfterStop::Restart, .. } => true,
            Phase::Running { .. }
            | Phase::Stopping { then: AfterStop::Stay | AfterStop::Delete, .. }
            | Phase::Stopped
            | Phase::Failed { .. } => false,
        }
    }

    /// Whether the user asked for its end, done or not.
    pub const fn deleting(&self) -> bool {
        matches!(
            &self.phase,
            Phase::Stopping { then: AfterStop::Delete, .. } | Phase::Failed { resume: RetryTarget::Delete, .. }
        )
    }

    /// The run last seen, unless it is known to be over.
    pub fn run_id(&self) -> Option<&RunId> {
        self.instance.as_ref().and_then(|instance| instance.run_id.as_ref())
    }

    /// The state that follows, still without what changed.
    pub(super) fn next(&self) -> Self {
        Self { revision: self.revision + 1, ..self.clone() }
    }

    /// Notes the instance's run, `None` when it is over.
    pub(super) fn set_run_id(&mut self, run_id: Option<RunId>) {
        let engine_id = self.instance.as_ref().map_or_else(|| Arc::from(""), |known| Arc::clone(&known.engine_id));
        if self.instance.is_some() || run_id.is_some() {
            self.instance = Some(Arc::new(InstanceRef { engine_id, run_id }));
        }
    }
}

impl Step {
    /// The job that does it; none while it only waits.
    pub(super) const fn job(&self) -> Option<Job> {
        match self {
            Self::Killing => Some(Job::Kill),
            Self::Creating => Some(Job::Create),
            Self::Rebinding => Some(Job::Rebind),
            Self::Launching => Some(Job::Launch),
            Self::Awaiting => Some(Job::Await),
            Self::Probing => Some(Job::Probe),
            Self::Pairing => Some(Job::Pair),
            Self::BackingOff { .. } => None,
        }
    }

    /// Whether it may find a stranger on the port.
    pub(super) const fn binds(&self) -> bool {
        matches!(self, Self::Creating | Self::Rebinding | Self::Launching)
    }
}

impl AfterStop {
    /// The job that must be done first.
    pub(super) const fn job(self) -> Job {
        match self {
            Self::Stay | Self::Restart => Job::Stop,
            Self::Delete => Job::Remove,
        }
    }
}

impl Default for AgentState {
    fn default() -> Self {
        Self::new()
    }
}
