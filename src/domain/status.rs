//! The public status of an agent, as users of the API see it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an agent is in its life. What it does there is in its status reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It is made or made anew, and nothing of it runs yet.
    Pending,
    /// Its instance is started, comes up and is paired, or waits for its next attempt.
    Starting,
    /// It takes messages.
    Running,
    /// It is being stopped, restarted or deleted.
    Stopping,
    /// It was stopped by request; its data is kept.
    Stopped,
    /// It could not run. The reason says whether it is tried again by itself.
    Error,
}

impl Status {
    /// The only changes there are, as a user sees them. An agent that is deleted is gone from STOPPING.
    pub const EDGES: &'static [(Self, Self)] = &[
        (Self::Pending, Self::Starting),
        (Self::Pending, Self::Stopping),
        (Self::Starting, Self::Running),
        (Self::Starting, Self::Stopping),
        (Self::Starting, Self::Error),
        // It died, was restarted from outside, or its token was refused.
        (Self::Running, Self::Starting),
        (Self::Running, Self::Stopping),
        (Self::Running, Self::Error),
        (Self::Stopping, Self::Stopped),
        // A restart.
        (Self::Stopping, Self::Starting),
        // The stop or the deletion was not possible in time.
        (Self::Stopping, Self::Error),
        (Self::Stopped, Self::Starting),
        // Deleted.
        (Self::Stopped, Self::Stopping),
        (Self::Error, Self::Pending),
        (Self::Error, Self::Stopping),
    ];

    /// Every status there is.
    pub const ALL: &'static [Self] =
        &[Self::Pending, Self::Starting, Self::Running, Self::Stopping, Self::Stopped, Self::Error];

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Error => "ERROR",
        }
    }

    /// A status by its name.
    ///
    /// # Errors
    /// A sentence that lists the statuses.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| "must be one of PENDING, STARTING, RUNNING, STOPPING, STOPPED, ERROR".into())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
