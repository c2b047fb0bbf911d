//! Reading: each function is one transaction, so what it gives belongs together.

use redb::{ReadTransaction, ReadableTable, TableError};

use crate::domain::{AgentId, HostPort, UserId};
use crate::vault::{RingKeyId, Sealed};

use super::audit::{AuditFilter, AuditPage, AuditRecord, audit_place};
use super::codec::Place;
use super::engine::ReadError;
use super::error::StoreError;
use super::event_log::{Event, EventPage, log_place};
use super::records::{AgentRecord, IdempotencyRecord, IdempotencyState, LogEntry, Snapshot, StoredAgent};
use super::tables::{
    AGENT_PORTS, AGENTS, AUDIT, CANARY, DELETED, EVENT_LOG, EVENTS, IDEMPOTENCY, Id, KEYS, META, OWNERS, PORTS,
    SESSIONS, SLUGS, TICKETS, USAGE, USERS, agent_place, event_place, idempotency_place, joined, key_place,
    session_place, ticket_place, usage_place, user_place,
};

/// Rows of the audit that one page looks at: a filter that fits nothing must not read the whole table in one go.
const SCANNED: usize = 20_000;

type Read<T> = Result<T, ReadError>;

/// All agents, users and keys. Every agent's claims are compared with its record on the way.
pub(super) fn snapshot(txn: &ReadTransaction) -> Read<Snapshot> {
    let mut snapshot = Snapshot::default();
    let claims = Claims::open(txn)?;
    for row in txn.open_table(AGENTS)?.iter()? {
        let (id, value) = row?;
        let record: AgentRecord = agent_place(id.value()).decode(value.value())?;
        snapshot.agents.push(claims.complete(record)?);
    }
    claims.no_others_than(&snapshot.agents)?;
    for row in txn.open_table(USERS)?.iter()? {
        let (id, value) = row?;
        snapshot.users.push(user_place(id.value()).decode(value.value())?);
    }
    for row in txn.open_table(KEYS)?.iter()? {
        let (hash, value) = row?;
        snapshot.keys.push(key_place(hash.value()).decode(value.value())?);
    }
    for row in txn.open_table(SESSIONS)?.iter()? {
        let (hash, value) = row?;
        snapshot.sessions.push(session_place(hash.value()).decode(value.value())?);
    }
    for row in txn.open_table(TICKETS)?.iter()? {
        let (hash, value) = row?;
        snapshot.tickets.push(ticket_place(hash.value()).decode(value.value())?);
    }
    Ok(snapshot)
}

pub(super) fn agent(txn: &ReadTransaction, id: AgentId) -> Read<Option<StoredAgent>> {
    let agents = txn.open_table(AGENTS)?;
    let Some(value) = agents.get(id.as_bytes())? else { return Ok(None) };
    let record = agent_place(id.as_bytes()).decode(value.value())?;
    Claims::open(txn)?.complete(record).map(Some)
}

pub(super) fn was_deleted(txn: &ReadTransaction, id: AgentId) -> Read<bool> {
    match txn.open_table(DELETED) {
        Ok(deleted) => Ok(deleted.get(id.as_bytes())?.is_some()),
        // It is made by the first write of a program that knows it.
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn events(txn: &ReadTransaction, agent: AgentId, after: u64, limit: usize) -> Read<Vec<LogEntry>> {
    let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
    let id = agent.as_bytes();
    let mut entries = Vec::new();
    for row in txn.open_table(EVENTS)?.range((id, first)..=(id, u64::MAX))?.take(limit) {
        let (key, value) = row?;
        let place = joined(id, &key.value().1.to_be_bytes());
        entries.push(event_place(&place).decode(value.value())?);
    }
    Ok(entries)
}

/// Up to `limit` lines after this offset.
pub(super) fn event_log(txn: &ReadTransaction, after: u64, limit: usize) -> Read<EventPage> {
    let table = txn.open_table(EVENT_LOG)?;
    let newest = table.last()?.map_or(0, |(offset, _)| offset.value());
    if after > newest {
        return Ok(EventPage::Ahead { newest });
    }
    match table.first()?.map(|(offset, _)| offset.value()) {
        Some(oldest) if oldest > after + 1 => return Ok(EventPage::Expired { oldest }),
        Some(_) | None => {}
    }
    let mut lines = Vec::new();
    for row in table.range(after + 1..)?.take(limit) {
        let (offset, value) = row?;
        let event: Event = log_place(&offset.value().to_be_bytes()).decode(value.value())?;
        lines.push(Event { offset: offset.value(), ..event });
    }
    Ok(EventPage::Lines(lines))
}

/// Up to `limit` records that come before this offset and fit.
pub(super) fn audit(txn: &ReadTransaction, before: Option<u64>, limit: usize, filter: &AuditFilter) -> Read<AuditPage> {
    audit_among(SCANNED, txn, before, limit, filter)
}

/// The same of a page that looks at so many rows.
pub(super) fn audit_among(
    rows: usize,
    txn: &ReadTransaction,
    before: Option<u64>,
    limit: usize,
    filter: &AuditFilter,
) -> Read<AuditPage> {
    let table = match txn.open_table(AUDIT) {
        Ok(table) => table,
        // It is made by the first write of a program that knows it.
        Err(TableError::TableDoesNotExist(_)) => return Ok(AuditPage::default()),
        Err(error) => return Err(error.into()),
    };
    let oldest = table.first()?.map_or(0, |(offset, _)| offset.value());
    let mut page = AuditPage::default();
    for (scanned, row) in table.range(..before.unwrap_or(u64::MAX))?.rev().enumerate() {
        let (offset, value) = row?;
        let offset = offset.value();
        let record: AuditRecord = audit_place(&offset.to_be_bytes()).decode(value.value())?;
        if filter.matches(&record) {
            page.records.push(AuditRecord { offset, ..record });
        }
        if page.records.len() >= limit || scanned + 1 >= rows {
            page.next = Some(offset).filter(|offset| *offset > oldest);
            break;
        }
    }
    Ok(page)
}

/// The newest offset; 0 where nothing was written yet.
pub(super) fn newest_event(txn: &ReadTransaction) -> Read<u64> {
    Ok(txn.open_table(EVENT_LOG)?.last()?.map_or(0, |(offset, _)| offset.value()))
}

/// The blocks of an agent's figures over time, by their slots.
pub(super) fn usage(txn: &ReadTransaction, agent: AgentId) -> Read<Vec<(u16, Vec<u8>)>> {
    let id = agent.as_bytes();
    let mut blocks = Vec::new();
    for row in txn.open_table(USAGE)?.range((id, 0)..=(id, u16::MAX))? {
        let (key, value) = row?;
        let slot = key.value().1;
        blocks.push((slot, usage_place(&joined(id, &slot.to_be_bytes())).decode_bytes(value.value())?));
    }
    Ok(blocks)
}

pub(super) fn idempotency(txn: &ReadTransaction, user: UserId, key: &str) -> Read<Option<IdempotencyRecord>> {
    let value = txn.open_table(IDEMPOTENCY)?;
    let value = value.get((user.as_bytes(), key))?;
    let place = joined(user.as_bytes(), key.as_bytes());
    Ok(value.map(|value| idempotency_place(&place).decode(value.value())).transpose()?)
}

/// Whether anything in the store is sealed, and whether anything is sealed with a key that is not the active one.
pub(super) struct SealedState {
    pub(super) any: bool,
    pub(super) outdated: bool,
}

/// A value that tells whether a vault has the store's key.
pub(super) fn canary(txn: &ReadTransaction) -> Read<Option<Sealed>> {
    let meta = txn.open_table(META)?;
    let value = meta.get("canary")?;
    Ok(value.map(|value| CANARY.decode(value.value())).transpose()?)
}

pub(super) fn sealed_state(txn: &ReadTransaction, active: RingKeyId) -> Read<SealedState> {
    let mut state = SealedState { any: false, outdated: false };
    let mut note = |sealed: &Sealed| {
        state.any = true;
        state.outdated |= sealed.key() != active;
    };
    for row in txn.open_table(AGENTS)?.iter()? {
        let (id, value) = row?;
        let record: AgentRecord = agent_place(id.value()).decode(value.value())?;
        [record.api_key, record.channels, record.token, record.retired].iter().flatten().for_each(&mut note);
    }
    for row in txn.open_table(IDEMPOTENCY)?.iter()? {
        let (key, value) = row?;
        let (user, key) = key.value();
        let record: IdempotencyRecord = idempotency_place(&joined(user, key.as_bytes())).decode(value.value())?;
        if let IdempotencyState::Done { body, .. } = &record.state {
            note(body);
        }
    }
    Ok(state)
}

/// Kept answers that are sealed with another key than the active one.
pub(super) fn answers_not_sealed_with(
    txn: &ReadTransaction,
    active: RingKeyId,
) -> Read<Vec<(UserId, String, IdempotencyRecord)>> {
    let mut found = Vec::new();
    for row in txn.open_table(IDEMPOTENCY)?.iter()? {
        let (row, value) = row?;
        let (user, key) = row.value();
        let record: IdempotencyRecord = idempotency_place(&joined(user, key.as_bytes())).decode(value.value())?;
        let outdated = matches!(&record.state, IdempotencyState::Done { body, .. } if body.key() != active);
        if outdated {
            found.push((UserId::from_bytes(*user), key.to_owned(), record));
        }
    }
    Ok(found)
}

/// The tables in which an agent claims what nobody else may have.
struct Claims {
    ports: redb::ReadOnlyTable<u16, Id>,
    agent_ports: redb::ReadOnlyTable<Id, u16>,
    slugs: redb::ReadOnlyTable<&'static str, Id>,
    owners: redb::ReadOnlyTable<(Id, Id), ()>,
}

impl Claims {
    fn open(txn: &ReadTransaction) -> Read<Self> {
        Ok(Self {
            ports: txn.open_table(PORTS)?,
            agent_ports: txn.open_table(AGENT_PORTS)?,
            slugs: txn.open_table(SLUGS)?,
            owners: txn.open_table(OWNERS)?,
        })
    }

    /// The record with its port, if the tables and the record agree on all claims.
    fn complete(&self, record: AgentRecord) -> Read<StoredAgent> {
        let id = record.id.as_bytes();
        let damaged = |table| ReadError::Store(Place { table, key: id }.corrupt());
        let port = self.agent_ports.get(id)?.map(|port| HostPort::try_from(port.value()));
        let port = port.transpose().map_err(|_| damaged("agent-ports"))?;
        if let Some(port) = port
            && self.ports.get(port.get())?.is_none_or(|holder| holder.value() != id)
        {
            return Err(damaged("ports"));
        }
        if self.slugs.get(record.slug.as_str())?.is_none_or(|holder| holder.value() != id) {
            return Err(damaged("slugs"));
        }
        if self.owners.get((record.user.as_bytes(), id))?.is_none() {
            return Err(damaged("owners"));
        }
        Ok(StoredAgent { record, port })
    }

    /// Each agent has one row in each table, and in those of ports if it has one, so equal counts mean that no claim is
    /// without its agent.
    fn no_others_than(&self, agents: &[StoredAgent]) -> Read<()> {
        use redb::ReadableTableMetadata;
        let with_port = agents.iter().filter(|agent| agent.port.is_some()).count();
        let counts = [
            ("ports", self.ports.len()?, with_port),
            ("agent-ports", self.agent_ports.len()?, with_port),
            ("slugs", self.slugs.len()?, agents.len()),
            ("owners", self.owners.len()?, agents.len()),
        ];
        match counts.into_iter().find(|(_, count, expected)| *count != *expected as u64) {
            Some((table, ..)) => Err(StoreError::Corrupt { table, key: "(a claim without an agent)".into() }.into()),
            None => Ok(()),
        }
    }
}
