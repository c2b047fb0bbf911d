//! What a user may do at all.

use serde::{Deserialize, Serialize};

/// Whether a user's keys work and their agents may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UserStatus {
    /// Keys work and agents may run.
    #[default]
    Active,
    /// Keys are refused and agents are stopped; all data is kept.
    Suspended,
    /// Keys are refused and agents are being deleted; the user goes with the last one.
    Deleting,
}

impl UserStatus {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
        }
    }

    /// A status that can be asked for; `deleting` comes from a deletion alone.
    ///
    /// # Errors
    /// A sentence that lists the statuses.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "active" => Ok(Self::Active),
            "suspended" => Ok(Self::Suspended),
            _ => Err("must be one of active, suspended".into()),
        }
    }
}
