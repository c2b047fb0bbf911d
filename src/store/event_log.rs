//! The event log: every change of every agent under one offset, which a reader keeps to go on where it stopped.
//!
//! A line is written in the transaction of the change itself, so that a change without a line, or a line without a change,
//! cannot be. It outlives its agent: creation and removal are lines as well. Offsets grow by one and are never given out
//! twice. The log is bounded by number and by age; a reader that comes too late learns so, and what is left.

use std::time::Duration;

use redb::{ReadTransaction, ReadableTable};
use serde::{Deserialize, Serialize};

use crate::domain::{AgentId, Timestamp, UserId, elapsed};

use super::apply::{Failure, Ledger};
use super::codec::Place;
use super::engine::ReadError;
use super::records::LogEntry;
use super::tables::EVENT_LOG;

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The place in the log. Kept by a reader who wants to go on after it.
    #[serde(skip)]
    pub offset: u64,
    pub time: Timestamp,
    pub user: UserId,
    pub agent: AgentId,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// The agent is new; the entry is the first of its timeline.
    Created { entry: LogEntry },
    /// A transition, as in the agent's timeline.
    Changed { entry: LogEntry },
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
pub enum EventPage {
    /// Those that follow, oldest first; empty where there are none yet.
    Lines(Vec<Event>),
    /// Lines after the wanted offset are gone.
    Expired { oldest: u64 },
    /// The wanted offset was never given out here: it is of another store, or of this one before a backup was restored.
    Ahead { newest: u64 },
}

/// Old lines are dropped once in so many new ones, and then twice as many at most: a bounded cost that keeps up.
const PRUNE_EVERY: u64 = 64;

impl Ledger<'_> {
    /// Writes the next line.
    pub(super) fn append(&mut self, event: &Event) -> Result<(), Failure> {
        let offset = self.tables.event_log.last()?.map_or(0, |(offset, _)| offset.value()) + 1;
        let value = log_place(&offset.to_be_bytes()).encode(event);
        self.tables.event_log.insert(offset, value.as_slice())?;
        self.newest_event = offset;
        if offset % PRUNE_EVERY == 0 {
            self.prune_events(offset, event.time)?;
        }
        Ok(())
    }

    fn prune_events(&mut self, newest: u64, now: Timestamp) -> Result<(), Failure> {
        for _ in 0..2 * PRUNE_EVERY {
            let Some((oldest, value)) = self.tables.event_log.first()? else { return Ok(()) };
            let oldest_offset = oldest.value();
            let too_many = oldest_offset + self.event_log.lines <= newest;
            let too_old = || {
                let event = log_place(&oldest_offset.to_be_bytes()).decode::<Event>(value.value());
                event.is_ok_and(|event| elapsed(event.time, now) > self.event_log.age)
            };
            if oldest_offset == newest || !(too_many || too_old()) {
                return Ok(());
            }
            drop((oldest, value));
            self.tables.event_log.remove(oldest_offset)?;
        }
        Ok(())
    }
}

/// Up to `limit` lines after this offset.
pub(super) fn read(txn: &ReadTransaction, after: u64, limit: usize) -> Result<EventPage, ReadError> {
    let table = txn.open_table(EVENT_LOG)?;
    let newest = table.last()?.map_or(0, |(offset, _)| offset.value());
    if after > newest {
        return Ok(EventPage::Ahead { newest });
    }
    match table.first()?.map(|(offset, _)| offset.value()) {
        Some(oldest) if oldest > after + 1 => return Ok(EventPage::Expired { oldest }),
        Some(_) | None => {}
    }
    let mut lines = Vec::new();
    for row in table.range(after + 1..)?.take(limit) {
        let (offset, value) = row?;
        let event: Event = log_place(&offset.value().to_be_bytes()).decode(value.value())?;
        lines.push(Event { offset: offset.value(), ..event });
    }
    Ok(EventPage::Lines(lines))
}

/// The newest offset; 0 where nothing was written yet.
pub(super) fn newest(txn: &ReadTransaction) -> Result<u64, ReadError> {
    Ok(txn.open_table(EVENT_LOG)?.last()?.map_or(0, |(offset, _)| offset.value()))
}

fn log_place(offset: &[u8; 8]) -> Place<'_> {
    Place { table: "event-log", key: offset }
}
