//! What can be written: each batch is one change that happens whole or not at all.
//!
//! A batch is built and encoded on its caller's task. Its precondition is checked on the writer's, in the transaction
//! that writes it: between the check and the write nothing can come.

use std::fmt;

use crate::domain::{AgentId, HostPort, KeyId, SessionId, Slug, Timestamp, UpgradeStage, UserId};

use crate::vault::Sealed;

use super::audit::AuditRecord;
use super::event_log::{Event, EventKind};
use super::records::{
    AgentRecord, IdempotencyRecord, IdempotencyState, KeyRecord, LogEntry, SessionRecord, TicketRecord, UserRecord,
};
use super::tables::{
    CANARY, agent_place, event_place, idempotency_place, joined, key_place, session_place, ticket_place, user_place,
};

/// One change to the store.
#[must_use = "a batch does nothing until it is committed"]
#[derive(Clone)]
pub struct Batch {
    pub(super) change: Option<Change>,
    pub(super) idempotency: Option<IdempotencyRow>,
    /// Sessions that end with it; one that has ended already is no fault.
    pub(super) ended: Vec<(UserId, SessionId)>,
    /// A ticket that is used up by it.
    pub(super) spent: Option<[u8; 32]>,
    /// Who did it.
    pub(super) audit: Option<Box<AuditRecord>>,
}

#[derive(Clone)]
pub(super) enum Change {
    CreateAgent { agent: AgentRow, port: Option<HostPort>, entry: EventRow, event: Event, max_agents: Option<u32> },
    UpdateAgent { agent: AgentRow, entry: Option<(EventRow, Event)> },
    ResealAgent { agent: AgentRow },
    ResealIdempotency { before: Vec<u8>, row: IdempotencyRow },
    SwapPort { agent: AgentId, from: Option<HostPort>, to: HostPort },
    RemoveAgent { agent: AgentId, at: Timestamp },
    PutUser { user: UserId, must_exist: bool, value: Vec<u8> },
    RemoveUser(UserId),
    PutKey { user: UserId, key: KeyId, hash: [u8; 32], value: Vec<u8> },
    RemoveKeys { user: UserId, keys: Vec<KeyId> },
    PutSession { user: UserId, session: SessionId, hash: [u8; 32], value: Vec<u8> },
    PutTicket { hash: [u8; 32], value: Vec<u8> },
    RemoveTickets(Vec<[u8; 32]>),
    RemoveIdempotency { user: UserId, key: String },
    PutUsage(Vec<UsageRow>),
    PutCanary { value: Vec<u8> },
    Touch,
}

/// Whose rows those of the whole service are: no agent's.
pub const SERVICE: AgentId = AgentId::from_bytes([0; 16]);

/// A block of an agent's figures over time, or of the service's, under a number that comes round again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Whose it is.
    pub agent: AgentId,
    /// Which place in the ring of its blocks.
    pub slot: u16,
    /// The figures, packed.
    pub block: Vec<u8>,
}

#[derive(Clone)]
pub(super) struct AgentRow {
    pub(super) id: AgentId,
    pub(super) user: UserId,
    pub(super) slug: Slug,
    pub(super) revision: u64,
    pub(super) value: Vec<u8>,
    /// The instance that an upgrade is tried in, and since when.
    pub(super) rehearsal: Option<(AgentId, Timestamp)>,
}

#[derive(Clone)]
pub(super) struct EventRow {
    pub(super) seq: u64,
    pub(super) value: Vec<u8>,
}

#[derive(Clone)]
pub(super) struct IdempotencyRow {
    pub(super) user: UserId,
    pub(super) key: String,
    /// For a claim: the present, which decides what has expired.
    pub(super) claimed_at: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    pub(super) value: Vec<u8>,
    /// Instead of `value` where the user's room is used up: that it was done, without the answer.
    pub(super) withheld: Option<Vec<u8>>,
}

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "some of it only the HTTP facade writes"))]
impl Batch {
    /// A new agent with its claims on a port, where the engine needs one, a slug and a place in its user's quota.
    ///
    /// `max_agents` is how many agents the user may have with this one; `None` is no limit.
    /// Rejected with `Exists`, `Slug`, `Port` or `Quota`.
    pub fn create_agent(
        agent: &AgentRecord,
        port: Option<HostPort>,
        entry: &LogEntry,
        max_agents: Option<u32>,
    ) -> Self {
        let event = Event::of(agent, entry, |entry| EventKind::Created { entry });
        let (agent, entry) = (AgentRow::of(agent), EventRow::of(agent.id, entry));
        Self::only(Change::CreateAgent { agent, port, entry, event, max_agents })
    }

    /// The next revision of an agent. Its user and slug never change. An instance that an upgrade is tried in counts as
    /// deleted from the beginning: what is left of it, however the trial ended, may be removed.
    ///
    /// Rejected with `NotFound` if it is not there (a removed agent never comes back), `Stale` if its revision, or the
    /// entry's sequence number, is not above the stored one, `Slug` or `Exists` if slug or user differ.
    pub fn update_agent(agent: &AgentRecord, entry: Option<&LogEntry>) -> Self {
        let entry = entry.map(|entry| {
            (EventRow::of(agent.id, entry), Event::of(agent, entry, |entry| EventKind::Changed { entry }))
        });
        Self::only(Change::UpdateAgent { agent: AgentRow::of(agent), entry })
    }

    /// The same revision of an agent with its secrets sealed by another key. Rejected with `Stale` if it is another revision.
    pub fn reseal_agent(agent: &AgentRecord) -> Self {
        Self::only(Change::ResealAgent { agent: AgentRow::of(agent) })
    }

    /// A kept answer sealed by another key. Rejected with `Stale` if it is not what it was.
    pub fn reseal_idempotency(user: UserId, key: &str, before: &IdempotencyRecord, after: &IdempotencyRecord) -> Self {
        let before = IdempotencyRow::of(user, key, before).value;
        Self::only(Change::ResealIdempotency { before, row: IdempotencyRow::of(user, key, after) })
    }

    /// Gives an agent another port. Rejected with `Port` if `from` is not its port or `to` is taken.
    pub fn swap_port(agent: AgentId, from: Option<HostPort>, to: HostPort) -> Self {
        Self::only(Change::SwapPort { agent, from, to })
    }

    /// Removes an agent: record, port, slug, quota and timeline, and notes when, so that what an engine still shows of it
    /// is known to be deleted. Rejected with `NotFound` if it is not there.
    pub fn remove_agent(agent: AgentId, at: Timestamp) -> Self {
        Self::only(Change::RemoveAgent { agent, at })
    }

    /// A new user, or a change of one.
    pub fn put_user(user: &UserRecord) -> Self {
        let value = user_place(user.id.as_bytes()).encode(user);
        Self::only(Change::PutUser { user: user.id, must_exist: false, value })
    }

    /// A change of a user. Rejected with `NotFound` if the user is not there: a removed one never comes back.
    pub fn change_user(user: &UserRecord) -> Self {
        let value = user_place(user.id.as_bytes()).encode(user);
        Self::only(Change::PutUser { user: user.id, must_exist: true, value })
    }

    /// Removes a user with all keys and idempotency records. Rejected with `NotFound`, or with `HasAgents` while there are any.
    pub fn remove_user(user: UserId) -> Self {
        Self::only(Change::RemoveUser(user))
    }

    /// A new API key, or a change of one. Rejected with `NotFound` if the user is not there, `Exists` if another key has
    /// the same hash.
    pub fn put_key(key: &KeyRecord) -> Self {
        let value = key_place(&key.hash).encode(key);
        Self::only(Change::PutKey { user: key.user, key: key.id, hash: key.hash, value })
    }

    /// Removes API keys of one user, all or none. Rejected with `NotFound` if one of them is not there.
    pub fn remove_keys(user: UserId, keys: Vec<KeyId>) -> Self {
        Self::only(Change::RemoveKeys { user, keys })
    }

    /// A new session, or a later use of one. Rejected with `NotFound` if its user is not there.
    pub fn put_session(session: &SessionRecord) -> Self {
        let value = session_place(&session.hash).encode(session);
        Self::only(Change::PutSession { user: session.user, session: session.id, hash: session.hash, value })
    }

    /// Ends sessions of a user; those that have ended already are no fault.
    pub fn end_sessions(user: UserId, sessions: impl IntoIterator<Item = SessionId>) -> Self {
        Self::empty().ending(user, sessions)
    }

    /// A new invitation or one-time link.
    pub fn put_ticket(ticket: &TicketRecord) -> Self {
        let value = ticket_place(&ticket.hash).encode(ticket);
        Self::only(Change::PutTicket { hash: ticket.hash, value })
    }

    /// Withdraws tickets, by the hashes of their secrets; those that are gone already are no fault.
    pub fn remove_tickets(tickets: Vec<[u8; 32]>) -> Self {
        Self::only(Change::RemoveTickets(tickets))
    }

    /// Remembers what became of a request.
    ///
    /// `InFlight` is a claim: rejected with `IdempotencyKey` if the user has a record of the same key that has not
    /// expired when this request started. `Done` replaces whatever is there; where the user's room for answers is used
    /// up, it is kept as `Withheld`.
    pub fn put_idempotency(user: UserId, key: &str, record: &IdempotencyRecord) -> Self {
        Self { idempotency: Some(IdempotencyRow::of(user, key, record)), ..Self::empty() }
    }

    /// Frees an idempotency key. If it is not there, nothing happens.
    pub fn remove_idempotency(user: UserId, key: &str) -> Self {
        Self::only(Change::RemoveIdempotency { user, key: key.to_owned() })
    }

    /// Figures over time. Those of agents that are gone are left out.
    pub fn put_usage(rows: Vec<UsageRow>) -> Self {
        Self::only(Change::PutUsage(rows))
    }

    /// Writes next to nothing: shows that the store can.
    pub fn touch() -> Self {
        Self::only(Change::Touch)
    }

    /// Marks the store as sealed with the key of this value.
    pub(super) fn put_canary(canary: &Sealed) -> Self {
        Self::only(Change::PutCanary { value: CANARY.encode(canary) })
    }

    /// This change together with [`Batch::put_idempotency`]: both or neither.
    pub fn with_idempotency(mut self, user: UserId, key: &str, record: &IdempotencyRecord) -> Self {
        self.idempotency = Some(IdempotencyRow::of(user, key, record));
        self
    }

    /// The change also ends sessions of this user.
    pub fn ending(mut self, user: UserId, sessions: impl IntoIterator<Item = SessionId>) -> Self {
        self.ended.extend(sessions.into_iter().map(|session| (user, session)));
        self
    }

    /// The change also uses up this ticket. Rejected with `NotFound` if it is not there.
    pub fn spending(mut self, ticket: Option<[u8; 32]>) -> Self {
        self.spent = ticket;
        self
    }

    /// This change together with who did it.
    pub fn audited(mut self, record: AuditRecord) -> Self {
        self.audit = Some(Box::new(record));
        self
    }

    /// What somebody did that changed nothing here, or was refused.
    pub fn audit(record: AuditRecord) -> Self {
        Self::empty().audited(record)
    }

    fn only(change: Change) -> Self {
        Self { change: Some(change), ..Self::empty() }
    }

    const fn empty() -> Self {
        Self { change: None, idempotency: None, ended: Vec::new(), spent: None, audit: None }
    }
}

impl AgentRow {
    fn of(agent: &AgentRecord) -> Self {
        let value = agent_place(agent.id.as_bytes()).encode(agent);
        let rehearsal = agent.upgrade.as_ref().and_then(|upgrade| match upgrade.stage {
            UpgradeStage::Rehearsing { instance } => Some((instance, upgrade.since)),
            UpgradeStage::Forward | UpgradeStage::Back => None,
        });
        let (id, user, slug, revision) = (agent.id, agent.user, agent.slug.clone(), agent.state.revision);
        Self { id, user, slug, revision, value, rehearsal }
    }
}

impl Event {
    fn of(agent: &AgentRecord, entry: &LogEntry, kind: impl FnOnce(LogEntry) -> EventKind) -> Self {
        Self { offset: 0, time: entry.time, user: agent.user, agent: agent.id, kind: kind(entry.clone()) }
    }
}

impl EventRow {
    fn of(agent: AgentId, entry: &LogEntry) -> Self {
        let key = joined(agent.as_bytes(), &entry.seq.to_be_bytes());
        Self { seq: entry.seq, value: event_place(&key).encode(entry) }
    }
}

impl IdempotencyRow {
    fn of(user: UserId, key: &str, record: &IdempotencyRecord) -> Self {
        let claimed_at = match record.state {
            IdempotencyState::InFlight { started_at, .. } => Some(started_at),
            IdempotencyState::Done { .. } | IdempotencyState::Withheld { .. } => None,
        };
        let row = joined(user.as_bytes(), key.as_bytes());
        let withheld = match record.state {
            IdempotencyState::Done { status, .. } => {
                let state = IdempotencyState::Withheld { status };
                Some(idempotency_place(&row).encode(&IdempotencyRecord { state, ..record.clone() }))
            }
            IdempotencyState::InFlight { .. } | IdempotencyState::Withheld { .. } => None,
        };
        let value = idempotency_place(&row).encode(record);
        Self { user, key: key.to_owned(), claimed_at, expires_at: record.expires_at, value, withheld }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Some(Change::CreateAgent { agent, port, .. }) => write!(f, "create agent {} on port {port:?}", agent.id),
            Some(Change::UpdateAgent { agent, .. }) => {
                write!(f, "update agent {} to revision {}", agent.id, agent.revision)
            }
            Some(Change::ResealAgent { agent }) => write!(f, "seal the secrets of agent {} again", agent.id),
            Some(Change::ResealIdempotency { row, .. }) => write!(f, "seal an answer of user {} again", row.user),
            Some(Change::SwapPort { agent, from, to }) => write!(f, "move agent {agent} from port {from:?} to {to}"),
            Some(Change::RemoveAgent { agent, .. }) => write!(f, "remove agent {agent}"),
            Some(Change::PutUser { user, .. }) => write!(f, "put user {user}"),
            Some(Change::RemoveUser(user)) => write!(f, "remove user {user}"),
            Some(Change::PutKey { key, .. }) => write!(f, "put key {key}"),
            Some(Change::RemoveKeys { user, keys }) => write!(f, "remove {} keys of user {user}", keys.len()),
            Some(Change::PutSession { session, .. }) => write!(f, "put session {session}"),
            Some(Change::PutTicket { .. }) => f.write_str("put a ticket"),
            Some(Change::RemoveTickets(tickets)) => write!(f, "remove {} tickets", tickets.len()),
            Some(Change::RemoveIdempotency { user, .. }) => write!(f, "free an idempotency key of user {user}"),
            Some(Change::PutUsage(rows)) => write!(f, "put {} rows of usage", rows.len()),
            Some(Change::PutCanary { .. }) => f.write_str("put the canary"),
            Some(Change::Touch) => f.write_str("touch"),
            None if self.audit.is_some() && self.ended.is_empty() => f.write_str("put a record of the audit"),
            None if self.idempotency.is_none() => write!(f, "end {} sessions", self.ended.len()),
            None => f.write_str("put an idempotency record"),
        }
    }
}
