//! The state of an agent: each phase with exactly the data that it needs.
//!
//! What is about a run carries the run: an agent cannot be RUNNING, probed or paired without one. Where the run's gateway is
//! reached, and the token that it takes, belong to the run as well, and are not in here for these reasons:
//!
//! - The endpoint is true only while the engine says so. An instance may come back under another address, and a stored one
//!   would send the token to whoever has the old one. So it is never stored: after a restart of the service nobody knows it
//!   until the instance was observed. The actor keeps it with the [`RunId`] that it was seen with, and readers get it only
//!   while the state is RUNNING with that very run. Nothing is decided by it but that it moved, which the event says.
//! - The token outlives the run. The files are written with its hash, so that the next run takes it as well, and an agent that
//!   is STARTING, STOPPED or in ERROR has one too. It is part of the record, sealed; what is decided about it is a
//!   [`TokenChange`](super::TokenChange).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cause::{Cause, FailedModel};
use super::event::Job;
use crate::backoff::Restarts;
use crate::domain::{RunId, Status, Timestamp};

/// All that is decided about an agent; stored as part of its record, in the form of `stored`.
///
/// Three counters, never mixed: `generation` counts accepted changes of the spec (the ETag), `attempt` counts starts (the
/// fence for everything asynchronous), and the [`RunId`] is what the engine shows. `revision` counts commits.
#[derive(Debug, Clone, PartialEq)]
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
    /// The engine's own id of the instance, for people; `None` before there was one.
    pub engine_id: Option<Arc<str>>,
    /// The run last seen, in a phase that is about none: a start, a stop and ERROR may have one to end as well. `None` when it
    /// is over, or there was none yet. [`AgentState::enter`] keeps it.
    pub(crate) leftover: Option<RunId>,
    /// Why its messages get no answer although the gateway is well; only while it is RUNNING.
    pub failed_model: Option<Arc<FailedModel>>,
}

/// What an agent does, or waits for. [`AgentState::status`] is how it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        /// The run that was paired with.
        run_id: RunId,
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Ends what is left of an older run.
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
    Probing {
        /// The run whose gateway that is.
        run_id: RunId,
    },
    /// Gets a token that works.
    Pairing {
        /// The run that it is for.
        run_id: RunId,
    },
    /// Waits before the next attempt.
    BackingOff {
        /// When that begins.
        until: Timestamp,
        /// Whether it begins by ending what is left of the run.
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
            engine_id: None,
            leftover: None,
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
        self.phase.run_id().or(self.leftover.as_ref())
    }

    /// The state that follows, still without what changed.
    pub(super) fn next(&self) -> Self {
        Self { revision: self.revision + 1, ..self.clone() }
    }

    /// Goes on to this phase. A run that it is not about is left over, and may have to be ended.
    pub(super) fn enter(&mut self, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        self.leftover = match self.phase.run_id() {
            Some(_) => None,
            None => before.run_id().cloned().or_else(|| self.leftover.take()),
        };
    }

    /// Notes how many health checks were missed in a row, of an agent that is RUNNING.
    pub(super) const fn set_misses(&mut self, missed: u8) {
        if let Phase::Running { misses, .. } = &mut self.phase {
            *misses = missed;
        }
    }
}

impl Phase {
    /// The run that it is about; `None` in a phase that may be without one.
    pub const fn run_id(&self) -> Option<&RunId> {
        match self {
            Self::Running { run_id, .. }
            | Self::Starting { step: Step::Probing { run_id } | Step::Pairing { run_id }, .. } => Some(run_id),
            Self::Pending | Self::Starting { .. } | Self::Stopping { .. } | Self::Stopped | Self::Failed { .. } => None,
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
            Self::Probing { .. } => Some(Job::Probe),
            Self::Pairing { .. } => Some(Job::Pair),
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
