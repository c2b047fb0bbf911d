//! What time it is: the system's, or one that follows a paused tokio clock in tests.

use crate::domain::Timestamp;

#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// `epoch` plus what tokio's clock says has passed since `since`; stands still while that one is paused.
    Tokio {
        epoch: Timestamp,
        since: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock that begins at `epoch` now and goes on with tokio's time.
    pub fn tokio(epoch: Timestamp) -> Self {
        Self::Tokio { epoch, since: tokio::time::Instant::now() }
    }

    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { epoch, since } => epoch.checked_add(since.elapsed()).unwrap_or(Timestamp::MAX),
        }
    }

    /// How long until `at`; zero if it is past.
    pub fn until(&self, at: Timestamp) -> std::time::Duration {
        std::time::Duration::try_from(at.duration_since(self.now())).unwrap_or_default()
    }
}
