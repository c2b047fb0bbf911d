//! The audit: who did what, in the transaction of what was done.
//!
//! Records have offsets that grow by one. The table is bounded by number and by age, as the event log is.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::domain::{KeyId, SessionId, Timestamp, UserId};

use super::codec::Place;

/// Somebody did something, or was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The place in the audit.
    #[serde(skip)]
    pub offset: u64,
    /// When it was asked for.
    pub time: Timestamp,
    /// Who, as far as they said so.
    pub user: Option<UserId>,
    /// The API key that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The session of the browser that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Method and pattern of the route.
    pub action: String,
    /// The path: what it was done to.
    pub target: String,
    /// Whose it is, where that is somebody else or nobody said who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserId>,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// The problem's code, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The id of the request, as in its answer and in the log.
    pub request: String,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// Not allowed.
    Refused,
    /// It was tried and failed, or whether it was done is unknown.
    Failed,
}

impl AuditOutcome {
    /// Every outcome.
    pub const ALL: &'static [Self] = &[Self::Done, Self::Refused, Self::Failed];

    /// As the API writes it.
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
#[non_exhaustive]
pub struct AuditFilter {
    /// Done by this user.
    pub by: Option<UserId>,
    /// Done by this user or to what is theirs.
    pub about: Option<UserId>,
    /// A part of the action.
    pub action: Option<String>,
    /// A part of the target.
    pub target: Option<String>,
    /// With this outcome.
    pub outcome: Option<AuditOutcome>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Not after this time.
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    setters! {
        with_by(by: impl Into<Option<UserId>> => by.into());
        with_about(about: impl Into<Option<UserId>> => about.into());
        with_action(action: impl Into<String> => Some(action.into()));
        with_target(target: impl Into<String> => Some(target.into()));
        with_outcome(outcome: impl Into<Option<AuditOutcome>> => outcome.into());
        with_since(since: impl Into<Option<Timestamp>> => since.into());
        with_until(until: impl Into<Option<Timestamp>> => until.into());
    }
}

/// Records, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct AuditPage {
    /// At most as many as were asked for.
    pub records: Vec<AuditRecord>,
    /// Older ones come before this offset; none where all were looked at.
    pub next: Option<u64>,
}

impl AuditFilter {
    /// Whether this is a record that is wanted.
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
