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
#[non_exhaustive]
pub struct AgentRecord {
    /// Never given to another agent.
    pub id: AgentId,
    /// Whose it is.
    pub user: UserId,
    /// Its name in paths and host names.
    pub slug: Slug,
    /// When it was created.
    pub created_at: Timestamp,
    /// When this record last changed.
    pub updated_at: Timestamp,
    /// What its owner asked for.
    pub spec: Arc<AgentSpec>,
    /// The key of its model.
    pub api_key: Option<Sealed>,
    /// What its channels need, secrets among it.
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
    /// Its state, with what decides about its next step.
    #[serde(rename = "life")]
    pub state: AgentState,
}

impl AgentRecord {
    /// A new agent without secrets, as it is before its first start.
    pub fn new(id: AgentId, user: UserId, slug: Slug, created_at: Timestamp, spec: Arc<AgentSpec>) -> Self {
        Self {
            id,
            user,
            slug,
            created_at,
            updated_at: created_at,
            spec,
            api_key: None,
            channels: None,
            channel_kinds: Vec::new(),
            token: None,
            software: None,
            retired: None,
            upgrade: None,
            untold: false,
            state: AgentState::new(),
        }
    }
}

/// Somebody who may have agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UserRecord {
    /// Never given to another user.
    pub id: UserId,
    /// Their address, unique in the installation.
    pub email: String,
    /// What they may have, unless `limits` says otherwise.
    pub plan: Plan,
    /// Instead of the plan's own limits, where others were agreed on.
    pub limits: Option<Limits>,
    /// When they were created.
    pub created_at: Timestamp,
    /// Whether they may do anything at present.
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

impl UserRecord {
    /// An active user, with the limits of their plan and no way yet to sign in.
    pub fn new(id: UserId, email: impl Into<String>, plan: Plan, created_at: Timestamp) -> Self {
        Self {
            id,
            email: email.into(),
            plan,
            limits: None,
            created_at,
            status: UserStatus::Active,
            administrator: false,
            password: None,
            identity: None,
        }
    }
}

/// A person who has signed in, known by the hash of what their browser keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionRecord {
    /// Its name; no secret.
    pub id: SessionId,
    /// Who has signed in.
    pub user: UserId,
    /// SHA-256 of the secret that the browser keeps.
    pub hash: [u8; 32],
    /// When they signed in.
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
    /// How they did.
    pub by: SignInBy,
}

/// How a person proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SignInBy {
    /// Their password.
    Password,
    /// A one-time link.
    Link,
    /// The making of their account.
    Registration,
    /// The identity provider.
    Provider,
}

/// What lets a person in once, known by the hash of its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TicketRecord {
    /// Its name; no secret.
    pub id: TicketId,
    /// SHA-256 of the secret in its link.
    pub hash: [u8; 32],
    /// What whoever has it gets.
    pub opens: TicketKind,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
}

/// What a ticket is good for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TicketKind {
    /// A session of this user.
    SignIn {
        /// Who is signed in.
        user: UserId,
    },
    /// An account on this plan; for this address alone, if there is one.
    Invitation {
        /// The only address that may use it; none: any.
        email: Option<String>,
        /// The plan of the account.
        plan: Plan,
    },
}

/// An API key, known by its hash alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyRecord {
    /// Its name; no secret.
    pub id: KeyId,
    /// For whom it acts.
    pub user: UserId,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What its maker called it.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// From then on it is refused; none: never.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The key that made this one, and whose revocation ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<KeyId>,
}

/// One line of an agent's timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// Grows along the timeline of one agent.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The status before.
    pub from: Status,
    /// The status from then on.
    pub to: Status,
    /// Code of the reason, as in `docs/causes.md`.
    pub cause: String,
    /// Which attempt at a start it belongs to; counted from the creation on.
    pub attempt: u64,
    /// The reason in words, redacted.
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
#[non_exhaustive]
pub struct IdempotencyRecord {
    /// Digest of the request, to tell a retry from another request under the same key.
    pub fingerprint: [u8; 32],
    /// How far the request is.
    pub state: IdempotencyState,
    /// From then on the key is free again.
    pub expires_at: Timestamp,
}

impl IdempotencyRecord {
    /// With all of it.
    pub const fn new(fingerprint: [u8; 32], state: IdempotencyState, expires_at: Timestamp) -> Self {
        Self { fingerprint, state, expires_at }
    }
}

/// How far a request under an idempotency key is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IdempotencyState {
    /// It is being carried out, or its service ended meanwhile.
    InFlight {
        /// The agent that it creates, once that is decided.
        agent: Option<AgentId>,
        /// When it was taken.
        started_at: Timestamp,
    },
    /// It was answered, and a retry gets this answer.
    Done {
        /// Its HTTP status.
        status: u16,
        /// Names and values of its headers.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Sealed,
    },
    /// It was answered with this status; the answer itself was not kept.
    Withheld {
        /// Its HTTP status.
        status: u16,
    },
}

/// An agent as it is read back, with its port.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredAgent {
    /// All but the port.
    pub record: AgentRecord,
    /// Its port on this host, if it has one.
    pub port: Option<HostPort>,
}

/// Everything that the service needs in memory at boot.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// By id, which is by creation.
    pub agents: Vec<StoredAgent>,
    /// By id.
    pub users: Vec<UserRecord>,
    /// In no order; expired ones among them.
    pub keys: Vec<KeyRecord>,
    /// In no order; expired ones among them.
    pub sessions: Vec<SessionRecord>,
    /// In no order; expired ones among them.
    pub tickets: Vec<TicketRecord>,
}
