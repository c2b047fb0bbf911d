//! The event log: every change of every agent under one offset, which a reader keeps to go on where it stopped.
//!
//! A line is written in the transaction of the change itself, so that a change without a line, or a line without a change,
//! cannot be. It outlives its agent: creation and removal are lines as well. Offsets grow by one and are never given out
//! twice. The log is bounded by number and by age; a reader that comes too late learns so, and what is left.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{AgentId, Timestamp, UserId};

use super::codec::Place;
use super::records::LogEntry;

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The place in the log. Kept by a reader who wants to go on after it.
    #[serde(skip)]
    pub offset: u64,
    /// When it happened.
    pub time: Timestamp,
    /// Whose agent it is.
    pub user: UserId,
    /// Which agent.
    pub agent: AgentId,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// The agent is new; the entry is the first of its timeline.
    Created {
        /// The first line of the timeline.
        entry: LogEntry,
    },
    /// A transition, as in the agent's timeline.
    Changed {
        /// The same line.
        entry: LogEntry,
    },
    /// The agent is gone, with its record and its timeline.
    Removed,
}

impl EventKind {
    /// The line of the agent's timeline, where this is one.
    pub fn entry(&self) -> Option<&LogEntry> {
        match self {
            Self::Created { entry } | Self::Changed { entry } => Some(entry),
            Self::Removed => None,
        }
    }
}

/// How much of the event log is kept. The newest line always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLogBounds {
    /// Lines at most, and a few dozen more between two prunings.
    pub lines: u64,
    /// A line that is older is dropped.
    pub age: Duration,
}

impl Default for EventLogBounds {
    /// 100,000 lines (about 30 MB), a week.
    fn default() -> Self {
        Self { lines: 100_000, age: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Lines that were read, or why there are none.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventPage {
    /// Those that follow, oldest first; empty where there are none yet.
    Lines(Vec<Event>),
    /// Lines after the wanted offset are gone.
    Expired {
        /// The first that is still there.
        oldest: u64,
    },
    /// The wanted offset was never given out here: it is of another store, or of this one before a backup was restored.
    Ahead {
        /// The last that was given out.
        newest: u64,
    },
}

pub(super) fn log_place(offset: &[u8; 8]) -> Place<'_> {
    Place { table: "event-log", key: offset }
}
