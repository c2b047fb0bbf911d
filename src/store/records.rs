//! What the store keeps. Plain data: secrets are in here only as [`Sealed`] values or hashes.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    AgentId, AgentSpec, ChannelKind, HostPort, Identity, KeyId, Limits, PasswordHash, Plan, Scopes, SessionId, Slug,
    Software, Status, TicketId, Timestamp, Upgrade, UserId, UserStatus,
};
use crate::lifecycle::{AgentState, Cause};
use crate::vault::Sealed;

/// All of an agent but its port: that is in the table of ports alone, which cannot then disagree with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    pub id: AgentId,
    pub user: UserId,
    pub slug: Slug,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub spec: Arc<AgentSpec>,
    pub api_key: Option<Sealed>,
    pub channels: Option<Sealed>,
    /// Which channels there are, readable without opening `channels`.
    pub channel_kinds: Vec<ChannelKind>,
    /// The bearer token of the running instance.
    pub token: Option<Sealed>,
    /// What its instance is made from; `None` before its first creation, in records of older versions until their next
    /// one, and where the runtime cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<Arc<Software>>,
    /// Secrets that were replaced or removed: what was printed before must be masked all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Sealed>,
    /// The upgrade that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Arc<Upgrade>>,
    /// Entries of its memory wait in its data until they are told to its gateway.
    #[serde(default)]
    pub untold: bool,
    #[serde(rename = "life")]
    pub state: AgentState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRecord {
    pub id: UserId,
    pub email: String,
    pub plan: Plan,
    /// Instead of the plan's own limits, where others were agreed on.
    pub limits: Option<Limits>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub status: UserStatus,
    /// Whether they may do everything once they have signed in.
    #[serde(default)]
    pub administrator: bool,
    /// None: they cannot sign in by password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordHash>,
    /// Who they are to the identity provider by which they sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// A person who has signed in, known by the hash of what their browser keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub id: SessionId,
    pub user: UserId,
    pub hash: [u8; 32],
    pub created_at: Timestamp,
    /// The last use that was written down; later ones may not have been.
    pub seen_at: Timestamp,
    /// The end, however much it is used.
    pub expires_at: Timestamp,
    /// It ends earlier when it is not used for this long.
    pub idle_secs: u32,
    /// Where it was opened from.
    pub address: Option<IpAddr>,
    /// What the browser called itself.
    pub client: Option<String>,
    pub by: SignInBy,
}

/// How a person proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignInBy {
    Password,
    /// A one-time link.
    Link,
    Registration,
    /// The identity provider.
    Provider,
}

/// What lets a person in once, known by the hash of its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TicketRecord {
    pub id: TicketId,
    pub hash: [u8; 32],
    pub opens: TicketKind,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketKind {
    /// A session of this user.
    SignIn { user: UserId },
    /// An account on this plan; for this address alone, if there is one.
    Invitation { email: Option<String>, plan: Plan },
}

/// An API key, known by its hash alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub id: KeyId,
    pub user: UserId,
    pub hash: [u8; 32],
    pub name: Option<String>,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The key that made this one, and whose revocation ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<KeyId>,
}

/// One line of an agent's timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Grows along the timeline of one agent.
    pub seq: u64,
    pub time: Timestamp,
    pub from: Status,
    pub to: Status,
    pub cause: String,
    pub attempt: u64,
    pub detail: Option<String>,
    /// The code of what led to it, where `cause` tells only what came of it in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The exit status, where a run that ended is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl LogEntry {
    /// The line of a transition: from a status to what `record` shows, because of `cause`.
    pub fn new(from: Status, record: &AgentRecord, cause: &Cause) -> Self {
        Self {
            seq: record.state.revision,
            time: record.updated_at,
            from,
            to: record.state.status(),
            cause: cause.code.as_str().to_owned(),
            attempt: record.state.attempt,
            detail: cause.detail.as_ref().map(|detail| detail.to_string()),
            root: cause.root.map(|code| code.as_str().to_owned()),
            exit_code: cause.exit_code,
        }
    }
}

/// What became of a request that carried an idempotency key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Digest of the request, to tell a retry from another request under the same key.
    pub fingerprint: [u8; 32],
    pub state: IdempotencyState,
    /// From then on the key is free again.
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdempotencyState {
    InFlight {
        agent: Option<AgentId>,
        started_at: Timestamp,
    },
    Done {
        status: u16,
        headers: Vec<(String, String)>,
        body: Sealed,
    },
    /// It was answered with this status; the answer itself was not kept.
    Withheld {
        status: u16,
    },
}

/// An agent as it is read back, with its port.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAgent {
    pub record: AgentRecord,
    pub port: Option<HostPort>,
}

/// Everything that the service needs in memory at boot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By id, which is by creation.
    pub agents: Vec<StoredAgent>,
    pub users: Vec<UserRecord>,
    pub keys: Vec<KeyRecord>,
    pub sessions: Vec<SessionRecord>,
    pub tickets: Vec<TicketRecord>,
}
