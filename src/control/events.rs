//! The event stream: every change of every agent, in order, from where a reader stopped.
//!
//! ```no_run
//! # async fn run(plane: zeroone::control::ControlPlane, stored: u64) -> Result<(), Box<dyn std::error::Error>> {
//! let mut events = plane.events(stored);
//! while let Some(event) = events.next().await? {
//!     // Do what the event asks for and keep `event.offset`, both or neither; then nothing is missed or done twice.
//!     println!("{}: agent {} {:?}", event.offset, event.agent, event.kind);
//! }
//! # Ok(()) }
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;

use super::ControlPlane;
use crate::store::{Event, EventPage, Store, StoreError};

/// Lines that are read at once.
const BATCH: usize = 200;
/// How long a reader waits for news at most before it looks by itself: a commit whose outcome was unknown sends none.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A position in the event log from which it goes on. It reads the store and keeps no place in memory: a slow reader costs
/// nothing, until the log's bounds drop what it has not read.
pub struct EventStream {
    store: Store,
    appended: watch::Receiver<u64>,
    waiting: VecDeque<Event>,
    after: u64,
}

/// Why the stream does not go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// Read the agents' present state, then go on with `plane.events(oldest - 1)`.
    #[error("events were dropped before they were read; the oldest that is left is {oldest}")]
    Expired {
        /// The offset of the oldest event that is left.
        oldest: u64,
    },
    /// Read the agents' present state, then go on with `plane.events(newest)`.
    #[error(
        "the offset was never given out by this store, whose newest is {newest}: it is another store, or a backup was restored"
    )]
    Ahead {
        /// The offset of the newest event; 0 where there is none.
        newest: u64,
    },
    /// The store cannot be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ControlPlane {
    /// The events after this offset: 0 for all that are kept, [`ControlPlane::newest_event`] for those to come.
    pub fn events(&self, after: u64) -> EventStream {
        let store = self.shared.services.store.clone();
        EventStream { appended: store.appended(), store, waiting: VecDeque::new(), after }
    }

    /// The offset of the newest event; 0 where there is none.
    pub fn newest_event(&self) -> u64 {
        *self.shared.services.store.appended().borrow()
    }
}

impl EventStream {
    /// The next event; waits until there is one. `None` once the control plane is shut down.
    ///
    /// Cancel safe: a future that is dropped loses no event.
    ///
    /// # Errors
    /// See [`EventsError`]. After [`EventsError::Store`] it may be called again.
    pub async fn next(&mut self) -> Result<Option<Event>, EventsError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.after = event.offset;
                return Ok(Some(event));
            }
            // Marked as seen before the store is read: what comes in between wakes this again.
            self.appended.mark_unchanged();
            match self.store.event_log(self.after, BATCH).await {
                Ok(EventPage::Lines(lines)) if lines.is_empty() => {
                    // Nothing to do about any of the outcomes but to look again.
                    let _ = tokio::time::timeout(LOOK_EVERY, self.appended.changed()).await;
                }
                Ok(EventPage::Lines(lines)) => self.waiting = lines.into(),
                Ok(EventPage::Expired { oldest }) => return Err(EventsError::Expired { oldest }),
                Ok(EventPage::Ahead { newest }) => return Err(EventsError::Ahead { newest }),
                Err(StoreError::Closed) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The offset of the last event that was given, or where the stream began.
    pub const fn position(&self) -> u64 {
        self.after
    }
}
