//! Writing the event log and the audit: the next line, and an end to the oldest.

use redb::{ReadableTable, Table};

use crate::domain::{Timestamp, elapsed};

use super::apply::{Failure, Ledger};
use super::audit::{AuditRecord, audit_place};
use super::event_log::{Event, EventLogBounds, log_place};
use super::tables::Value;

/// Old lines are dropped once in so many new ones, and then twice as many at most: a bounded cost that keeps up.
const PRUNE_EVERY: u64 = 64;

impl Ledger<'_> {
    /// Writes the next line of the event log.
    pub(super) fn append(&mut self, event: &Event) -> Result<(), Failure> {
        let offset = next(&self.tables.event_log)?;
        let value = log_place(&offset.to_be_bytes()).encode(event);
        self.tables.event_log.insert(offset, value.as_slice())?;
        self.newest_event = offset;
        prune(&mut self.tables.event_log, self.event_log, offset, event.time, |offset, value| {
            log_place(&offset.to_be_bytes()).decode::<Event>(value).map(|event| event.time).ok()
        })
    }

    /// Writes the next record of the audit.
    pub(super) fn append_audit(&mut self, record: &AuditRecord) -> Result<(), Failure> {
        let offset = next(&self.tables.audit)?;
        let value = audit_place(&offset.to_be_bytes()).encode(record);
        self.tables.audit.insert(offset, value.as_slice())?;
        prune(&mut self.tables.audit, self.audit, offset, record.time, |offset, value| {
            audit_place(&offset.to_be_bytes()).decode::<AuditRecord>(value).map(|record| record.time).ok()
        })
    }
}

fn next(log: &Table<'_, u64, Value>) -> Result<u64, Failure> {
    Ok(log.last()?.map_or(0, |(offset, _)| offset.value()) + 1)
}

/// Drops what is too much or too old, as `time_of` tells. The newest line stays.
fn prune(
    log: &mut Table<'_, u64, Value>,
    bounds: EventLogBounds,
    newest: u64,
    now: Timestamp,
    time_of: impl Fn(u64, &[u8]) -> Option<Timestamp>,
) -> Result<(), Failure> {
    if !newest.is_multiple_of(PRUNE_EVERY) {
        return Ok(());
    }
    for _ in 0..2 * PRUNE_EVERY {
        let Some((oldest, value)) = log.first()? else { return Ok(()) };
        let oldest_offset = oldest.value();
        let too_many = oldest_offset + bounds.lines <= newest;
        let too_old = || time_of(oldest_offset, value.value()).is_some_and(|time| elapsed(time, now) > bounds.age);
        if oldest_offset == newest || !(too_many || too_old()) {
            return Ok(());
        }
        drop((oldest, value));
        log.remove(oldest_offset)?;
    }
    Ok(())
}
