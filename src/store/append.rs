//! Writing the event log: the next line, and an end to the oldest.

use redb::ReadableTable;

use crate::domain::{Timestamp, elapsed};

use super::apply::{Failure, Ledger};
use super::event_log::{Event, log_place};

/// Old lines are dropped once in so many new ones, and then twice as many at most: a bounded cost that keeps up.
const PRUNE_EVERY: u64 = 64;

impl Ledger<'_> {
    /// Writes the next line.
    pub(super) fn append(&mut self, event: &Event) -> Result<(), Failure> {
        let offset = self.tables.event_log.last()?.map_or(0, |(offset, _)| offset.value()) + 1;
        let value = log_place(&offset.to_be_bytes()).encode(event);
        self.tables.event_log.insert(offset, value.as_slice())?;
        self.newest_event = offset;
        if offset.is_multiple_of(PRUNE_EVERY) {
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
