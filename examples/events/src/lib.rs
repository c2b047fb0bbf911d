//! Something that embeds the control plane and keeps a table of its own in step with it: how many agents each user has.
//!
//! The offset of the last event is kept together with the counts. A real program would write both in one transaction of its
//! database; then it may end at any moment and neither misses an event nor counts one twice.

use std::collections::BTreeMap;

use zeroone::control::{ControlPlane, EventsError};
use zeroone::domain::UserId;
use zeroone::store::{Event, EventKind};

/// What is kept between two runs of the program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    pub agents: BTreeMap<UserId, i64>,
    pub offset: u64,
}

impl Counts {
    fn apply(&mut self, event: &Event) {
        let change = match event.kind {
            EventKind::Created { .. } => 1,
            EventKind::Removed => -1,
            _ => 0,
        };
        *self.agents.entry(event.user).or_default() += change;
        self.offset = event.offset;
    }

    /// Reads what has happened since, up to now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn catch_up(&mut self, plane: &ControlPlane) -> Result<(), EventsError> {
        let mut events = plane.events(self.offset);
        while events.position() != plane.newest_event() {
            match events.next().await {
                Ok(Some(event)) => self.apply(&event),
                Ok(None) => return Ok(()),
                // Later than the log reaches back, or before a backup was restored: begin with what is there now.
                Err(EventsError::Expired { .. } | EventsError::Ahead { .. }) => {
                    *self = Self::counted(plane);
                    events = plane.events(self.offset);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// From the agents that exist. Something may change meanwhile, so the offset is taken first and such a change is seen
    /// again: a program for which that matters compares the agents' ids.
    fn counted(plane: &ControlPlane) -> Self {
        let mut counts = Self { offset: plane.newest_event(), ..Self::default() };
        let page = plane.agents(None, None, usize::MAX, &[]);
        page.agents.iter().for_each(|view| *counts.agents.entry(view.record.user).or_default() += 1);
        counts
    }
}
