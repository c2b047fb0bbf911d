//! The public status of an agent, as users of the API see it.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Pending,
    Starting,
    Running,
    Stopping,
    Stopped,
    Error,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Starting, Self::Running, Self::Stopping, Self::Stopped, Self::Error];

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

    /// # Errors
    /// A sentence that lists the statuses.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| "must be one of PENDING, STARTING, RUNNING, STOPPING, STOPPED, ERROR".into())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
