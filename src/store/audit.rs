//! The audit: who did what, in the transaction of what was done.
//!
//! Records have offsets that grow by one. The table is bounded by number and by age, as the event log is.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::domain::{KeyId, SessionId, Timestamp, UserId};

use super::codec::Place;

/// Somebody did something, or was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The place in the audit.
    #[serde(skip)]
    pub offset: u64,
    pub time: Timestamp,
    /// Who, as far as they said so.
    pub user: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Method and pattern of the route.
    pub action: String,
    /// The path: what it was done to.
    pub target: String,
    /// Whose it is, where that is somebody else or nobody said who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserId>,
    pub outcome: AuditOutcome,
    /// The problem's code, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    pub request: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditOutcome {
    Done,
    /// Not allowed.
    Refused,
    /// It was tried and failed, or whether it was done is unknown.
    Failed,
}

impl AuditOutcome {
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Which records are wanted; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Done by this user.
    pub by: Option<UserId>,
    /// Done by this user or to what is theirs.
    pub about: Option<UserId>,
    /// A part of the action.
    pub action: Option<String>,
    /// A part of the target.
    pub target: Option<String>,
    pub outcome: Option<AuditOutcome>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Records, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditPage {
    pub records: Vec<AuditRecord>,
    /// Older ones come before this offset; none where all were looked at.
    pub next: Option<u64>,
}

impl AuditFilter {
    pub fn matches(&self, record: &AuditRecord) -> bool {
        let has = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| text.contains(part.as_str()));
        self.by.is_none_or(|user| record.user == Some(user))
            && self.about.is_none_or(|user| [record.user, record.owner].contains(&Some(user)))
            && has(&self.action, &record.action)
            && has(&self.target, &record.target)
            && self.outcome.is_none_or(|outcome| record.outcome == outcome)
            && self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
    }
}

pub(super) fn audit_place(offset: &[u8; 8]) -> Place<'_> {
    Place { table: "audit", key: offset }
}
