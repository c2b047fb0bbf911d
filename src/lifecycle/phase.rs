//! Where an agent is in its life, with exactly the data that the place needs.

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
pub struct AgentState {
    pub phase: Phase,
    pub generation: u64,
    pub attempt: u64,
    pub revision: u64,
    /// Restarts that nobody asked for, ever.
    pub restart_count: u64,
    pub restarts: Restarts,
    /// Why it is in its status; `None` where all is well and nothing is to be said.
    pub reason: Option<Cause>,
    /// The instance last seen, running or not.
    pub instance: Option<Arc<InstanceRef>>,
    /// Why its messages get no answer although the gateway is well; only while it is RUNNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_model: Option<Arc<FailedModel>>,
}

/// An instance and its last known run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRef {
    /// The engine's own id, for people.
    pub engine_id: Arc<str>,
    #[serde(rename = "boot")]
    pub run_id: Option<RunId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; the deployment begins as soon as its actor takes it up.
    Pending,
    /// `stage`: the files have yet to be written anew. Not after a mere crash: they are as they were, and it costs time.
    /// `rebinds`: ports that strangers held. `away_since`: when the engine stopped answering, if it did.
    Starting {
        step: Step,
        stage: bool,
        rebinds: u8,
        away_since: Option<Timestamp>,
    },
    /// `misses`: health checks failed in a row.
    Running {
        misses: u8,
    },
    /// `retry_at`: the engine failed, and is asked again then.
    Stopping {
        then: AfterStop,
        since: Timestamp,
        retry_at: Option<Timestamp>,
    },
    Stopped,
    /// At `retry_at`, if any, `resume` goes on.
    Failed {
        resume: RetryTarget,
        retry_at: Option<Timestamp>,
    },
}

/// What an attempt to start is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Ends what is left of an older run.
    #[serde(rename = "Halting")]
    Killing,
    Creating,
    /// Gets another port, because a stranger holds ours.
    Rebinding,
    Launching,
    /// The engine is busy with the start: it may take minutes.
    Awaiting,
    Probing,
    Pairing,
    /// Waits before the next attempt, which begins with a halt if need be.
    BackingOff {
        until: Timestamp,
        #[serde(rename = "halt")]
        kill: bool,
    },
}

/// What follows a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterStop {
    Stay,
    Restart,
    Delete,
}

/// What a failed agent goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryTarget {
    Start,
    Stop,
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

    /// The life that follows, still without what changed.
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
