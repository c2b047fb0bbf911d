//! What time it is: the system's, or one that follows a paused tokio clock in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::{Timestamp, later};

/// What tells a control plane the time. Clones are the same clock.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The wall clock of the machine.
    System,
    /// `epoch` plus what tokio's clock says has passed since `since`; stands still while that one is paused.
    Tokio {
        /// The time that it showed at `since`.
        epoch: Timestamp,
        /// When it began.
        since: tokio::time::Instant,
        /// Milliseconds by which somebody has put it forward, or back; the same for all clones.
        ahead_ms: Arc<AtomicI64>,
    },
}

impl Clock {
    /// A clock that begins at `epoch` now and goes on with tokio's time.
    pub fn tokio(epoch: Timestamp) -> Self {
        Self::Tokio { epoch, since: tokio::time::Instant::now(), ahead_ms: Arc::default() }
    }

    /// Puts the clock forward, or back, as people and time servers do. The system's own is left alone.
    #[cfg(feature = "testkit")]
    pub(crate) fn put_forward(&self, by_ms: i64) {
        if let Self::Tokio { ahead_ms, .. } = self {
            ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { epoch, since, ahead_ms } => {
                let ahead = jiff::SignedDuration::from_millis(ahead_ms.load(Ordering::Relaxed));
                later(*epoch, since.elapsed()).checked_add(ahead).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// How long until `at`; zero if it is past.
    pub fn until(&self, at: Timestamp) -> std::time::Duration {
        std::time::Duration::try_from(at.duration_since(self.now())).unwrap_or_default()
    }
}
