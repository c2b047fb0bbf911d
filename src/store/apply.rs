//! A batch inside a transaction: first all its preconditions, then all its writes.
//!
//! The order matters: batches share a transaction, so one that is rejected must not have written anything.

use redb::{ReadableTable, ReadableTableMetadata, StorageError, Table};
use serde::Deserialize;

use crate::domain::{AgentId, HostPort, KeyId, Timestamp, UserId};

use super::batch::{AgentRow, Batch, Change, EventRow, IdempotencyRow, SERVICE, UsageRow};
use super::codec::Place;
use super::error::{Conflict, StoreError};
use super::event_log::{Event, EventKind, EventLogBounds};
use super::records::{IdempotencyRecord, KeyRecord};
use super::tables::{FIRST, Id, LAST, Tables, agent_place, idempotency_place, joined, key_place, usage_place};

/// How many expired idempotency records a claim clears away: more than one, so that they cannot pile up.
const PRUNED_PER_CLAIM: usize = 8;
/// Bytes of idempotency records that a user may have; beyond, only that a request was done is kept.
pub(super) const IDEMPOTENCY_BYTES: u64 = 32 * 1024 * 1024;
/// Idempotency records that a user may have; beyond, the oldest one goes. More than one request every two seconds, all day.
pub(super) const IDEMPOTENCY_ROWS: u64 = 50_000;

/// Deleted agents that are remembered: 24 bytes each. Leftovers show within a minute, or when an engine comes back.
const MAX_DELETED: u64 = 100_000;

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum Failure {
    /// This batch cannot be; the transaction goes on.
    Batch(StoreError),
    /// The medium failed; the transaction is lost.
    Medium(StorageError),
}

impl From<Conflict> for Failure {
    fn from(conflict: Conflict) -> Self {
        Self::Batch(conflict.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Batch(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Medium(error)
    }
}

impl Failure {
    /// A batch that fails after its first write takes the transaction with it. The checks read all that the writes
    /// depend on, so only a store that contradicts itself gets here.
    fn half_written(self) -> Self {
        match self {
            Self::Batch(error) => Self::Medium(StorageError::Corrupted(error.to_string())),
            Self::Medium(error) => Self::Medium(error),
        }
    }
}

pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// What an update needs to know of the stored record.
#[derive(Deserialize)]
struct Stored {
    user: UserId,
    slug: String,
    #[serde(rename = "life")]
    state: StoredState,
}

#[derive(Deserialize)]
struct StoredState {
    revision: u64,
}

/// A transaction's tables, and what bounds them.
pub(super) struct Ledger<'txn> {
    pub(super) tables: Tables<'txn>,
    pub(super) events_per_agent: u64,
    pub(super) event_log: EventLogBounds,
    pub(super) audit: EventLogBounds,
    /// The offset of the last event that was written here; 0 where there was none.
    pub(super) newest_event: u64,
}

impl Ledger<'_> {
    pub(super) fn apply(&mut self, batch: &Batch) -> Outcome {
        if let Some(change) = &batch.change {
            self.check(change)?;
        }
        if let Some(row) = &batch.idempotency {
            self.check_idempotency(row)?;
        }
        self.check_sign_in(batch)?;
        self.write_all(batch).map_err(Failure::half_written)
    }

    fn write_all(&mut self, batch: &Batch) -> Outcome {
        if let Some(change) = &batch.change {
            self.write(change)?;
        }
        if let Some(row) = &batch.idempotency {
            self.write_idempotency(row)?;
        }
        self.write_sign_in(batch)?;
        batch.audit.iter().try_for_each(|record| self.append_audit(record))
    }

    fn check(&self, change: &Change) -> Outcome {
        match change {
            Change::CreateAgent { agent, port, max_agents, .. } => self.check_create(agent, *port, *max_agents),
            Change::UpdateAgent { agent, entry } => self.check_update(agent, entry.as_ref().map(|(entry, _)| entry)),
            Change::ResealAgent { agent } => {
                let stored = self.stored(agent.id)?.ok_or(Conflict::NotFound)?;
                ensure(agent.revision == stored.state.revision, Conflict::Stale)
            }
            Change::ResealIdempotency { before, row } => {
                let stored = self.tables.idempotency.get((row.user.as_bytes(), row.key.as_str()))?;
                ensure(stored.is_some_and(|stored| stored.value() == before.as_slice()), Conflict::Stale)
            }
            Change::SwapPort { agent, from, to } => {
                let owns = self.stored(*agent)?.is_some() && self.port_of(*agent)? == *from;
                let free = *from == Some(*to) || self.tables.ports.get(to.get())?.is_none();
                ensure(owns && free, Conflict::Port)
            }
            Change::RemoveAgent { agent, .. } => ensure(self.stored(*agent)?.is_some(), Conflict::NotFound),
            Change::RemoveUser(user) => {
                ensure(self.tables.users.get(user.as_bytes())?.is_some(), Conflict::NotFound)?;
                ensure(self.count_agents(*user, 1)? == 0, Conflict::HasAgents)
            }
            Change::PutKey { user, key, hash, .. } => {
                ensure(self.tables.users.get(user.as_bytes())?.is_some(), Conflict::NotFound)?;
                let taken = match self.tables.keys.get(hash)? {
                    Some(value) => key_place(hash).decode::<KeyRecord>(value.value())?.id != *key,
                    None => false,
                };
                ensure(!taken, Conflict::Exists)
            }
            Change::RemoveKeys { user, keys } => {
                for key in keys {
                    ensure(self.hash_of(*user, *key)?.is_some(), Conflict::NotFound)?;
                }
                Ok(())
            }
            Change::RemoveIdempotency { user, key } => self.idempotency(*user, key).map(drop),
            Change::PutSession { user, .. } => {
                ensure(self.tables.users.get(user.as_bytes())?.is_some(), Conflict::NotFound)
            }
            Change::PutUser { user, must_exist, .. } => {
                ensure(!must_exist || self.tables.users.get(user.as_bytes())?.is_some(), Conflict::NotFound)
            }
            Change::PutTicket { .. }
            | Change::RemoveTickets(_)
            | Change::PutUsage(_)
            | Change::PutCanary { .. }
            | Change::Touch => Ok(()),
        }
    }

    fn check_create(&self, agent: &AgentRow, port: Option<HostPort>, max_agents: Option<u32>) -> Outcome {
        ensure(self.tables.agents.get(agent.id.as_bytes())?.is_none(), Conflict::Exists)?;
        ensure(self.tables.slugs.get(agent.slug.as_str())?.is_none(), Conflict::Slug)?;
        if let Some(max) = max_agents {
            ensure(self.count_agents(agent.user, max as usize)? < max as usize, Conflict::Quota)?;
        }
        match port {
            Some(port) => ensure(self.tables.ports.get(port.get())?.is_none(), Conflict::Port),
            None => Ok(()),
        }
    }

    fn check_update(&self, agent: &AgentRow, entry: Option<&EventRow>) -> Outcome {
        let id = agent.id.as_bytes();
        let stored = self.stored(agent.id)?.ok_or(Conflict::NotFound)?;
        ensure(agent.revision > stored.state.revision, Conflict::Stale)?;
        ensure(agent.slug.as_str() == stored.slug, Conflict::Slug)?;
        ensure(agent.user == stored.user, Conflict::Exists)?;
        if let Some(entry) = entry {
            let newest = self.tables.events.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?;
            ensure(newest.is_none_or(|(key, _)| entry.seq > key.value().1), Conflict::Stale)?;
        }
        Ok(())
    }

    fn check_idempotency(&self, row: &IdempotencyRow) -> Outcome {
        let stored = self.idempotency(row.user, &row.key)?;
        let held = row.claimed_at.is_some_and(|now| stored.is_some_and(|stored| stored.expires_at > now));
        ensure(!held, Conflict::IdempotencyKey)
    }

    fn write(&mut self, change: &Change) -> Outcome {
        match change {
            Change::CreateAgent { agent, port, entry, event, .. } => {
                let id = agent.id.as_bytes();
                self.tables.agents.insert(id, agent.value.as_slice())?;
                self.tables.slugs.insert(agent.slug.as_str(), id)?;
                self.tables.owners.insert((agent.user.as_bytes(), id), ())?;
                if let Some(port) = port {
                    self.give_port(agent.id, *port)?;
                }
                self.log(agent.id, entry, event)
            }
            Change::UpdateAgent { agent, entry } => {
                self.tables.agents.insert(agent.id.as_bytes(), agent.value.as_slice())?;
                if let Some((instance, since)) = agent.rehearsal {
                    self.note_deleted(instance, since)?;
                }
                entry.as_ref().map_or(Ok(()), |(entry, event)| self.log(agent.id, entry, event))
            }
            Change::ResealAgent { agent } => {
                self.tables.agents.insert(agent.id.as_bytes(), agent.value.as_slice())?;
                Ok(())
            }
            Change::ResealIdempotency { row, .. } => self.write_idempotency(row),
            Change::SwapPort { agent, from, to } => {
                if let Some(from) = from {
                    self.tables.ports.remove(from.get())?;
                }
                self.give_port(*agent, *to)
            }
            Change::RemoveAgent { agent, at } => self.remove_agent(*agent, *at),
            Change::PutUser { user, value, .. } => {
                self.tables.users.insert(user.as_bytes(), value.as_slice())?;
                Ok(())
            }
            Change::RemoveUser(user) => self.remove_user(*user),
            Change::PutKey { user, key, hash, value } => {
                self.remove_key(*user, *key)?;
                self.tables.keys.insert(hash, value.as_slice())?;
                self.tables.user_keys.insert((user.as_bytes(), key.as_bytes()), hash)?;
                Ok(())
            }
            Change::RemoveKeys { user, keys } => keys.iter().try_for_each(|key| self.remove_key(*user, *key)),
            Change::PutSession { user, session, hash, value } => self.put_session(*user, *session, hash, value),
            Change::PutTicket { hash, value } => {
                self.tables.tickets.insert(hash, value.as_slice())?;
                Ok(())
            }
            Change::RemoveTickets(tickets) => tickets.iter().try_for_each(|hash| self.remove_ticket(hash)),
            Change::RemoveIdempotency { user, key } => self.remove_idempotency(*user, key),
            Change::PutUsage(rows) => rows.iter().try_for_each(|row| self.put_usage(row)),
            Change::PutCanary { value } => {
                self.tables.meta.insert("canary", value.as_slice())?;
                Ok(())
            }
            Change::Touch => {
                self.tables.meta.insert("touched", [].as_slice())?;
                Ok(())
            }
        }
    }

    fn give_port(&mut self, agent: AgentId, port: HostPort) -> Outcome {
        self.tables.ports.insert(port.get(), agent.as_bytes())?;
        self.tables.agent_ports.insert(agent.as_bytes(), port.get())?;
        Ok(())
    }

    /// Keeps the entry, and of the older ones those within the bound; and the event.
    fn log(&mut self, agent: AgentId, entry: &EventRow, event: &Event) -> Outcome {
        let id = agent.as_bytes();
        self.tables.events.insert((id, entry.seq), entry.value.as_slice())?;
        if let Some(oldest) = entry.seq.checked_sub(self.events_per_agent) {
            self.tables.events.retain_in((id, 0)..=(id, oldest), |_, _| false)?;
        }
        self.append(event)
    }

    fn remove_agent(&mut self, agent: AgentId, at: Timestamp) -> Outcome {
        let id = agent.as_bytes();
        self.note_deleted(agent, at)?;
        if let Some(stored) = self.stored(agent)? {
            self.tables.agents.remove(id)?;
            self.tables.slugs.remove(stored.slug.as_str())?;
            self.tables.owners.remove((stored.user.as_bytes(), id))?;
            self.append(&Event { offset: 0, time: at, user: stored.user, agent, kind: EventKind::Removed })?;
        }
        if let Some(port) = self.tables.agent_ports.remove(id)? {
            self.tables.ports.remove(port.value())?;
        }
        self.tables.events.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
        self.tables.usage.retain_in((id, 0)..=(id, u16::MAX), |_, _| false)?;
        Ok(())
    }

    fn note_deleted(&mut self, agent: AgentId, at: Timestamp) -> Outcome {
        self.tables.deleted.insert(agent.as_bytes(), at.as_millisecond())?;
        keep_newest(&mut self.tables.deleted, MAX_DELETED)
    }

    fn put_usage(&mut self, row: &UsageRow) -> Outcome {
        let (id, slot) = (row.agent.as_bytes(), row.slot);
        if row.agent == SERVICE || self.tables.agents.get(id)?.is_some() {
            let value = usage_place(&joined(id, &slot.to_be_bytes())).encode_bytes(&row.block);
            self.tables.usage.insert((id, slot), value.as_slice())?;
        }
        Ok(())
    }

    fn remove_user(&mut self, user: UserId) -> Outcome {
        let id = user.as_bytes();
        let mut hashes = Vec::new();
        for row in self.tables.user_keys.range((id, FIRST)..=(id, LAST))? {
            hashes.push(*row?.1.value());
        }
        for hash in hashes {
            self.tables.keys.remove(&hash)?;
        }
        self.tables.user_keys.retain_in((id, FIRST)..=(id, LAST), |_, _| false)?;
        self.remove_sessions_of(user)?;
        let mut keys = Vec::new();
        for row in self.tables.idempotency.range((id, "")..)? {
            let (row, _) = row?;
            let (owner, key) = row.value();
            if owner != id {
                break;
            }
            keys.push(key.to_owned());
        }
        for key in keys {
            self.remove_idempotency(user, &key)?;
        }
        self.tables.idempotency_use.remove(id)?;
        self.tables.users.remove(id)?;
        Ok(())
    }

    fn remove_key(&mut self, user: UserId, key: KeyId) -> Outcome {
        let hash = self.tables.user_keys.remove((user.as_bytes(), key.as_bytes()))?.map(|hash| *hash.value());
        if let Some(hash) = hash {
            self.tables.keys.remove(&hash)?;
        }
        Ok(())
    }

    fn write_idempotency(&mut self, row: &IdempotencyRow) -> Outcome {
        self.remove_idempotency(row.user, &row.key)?;
        if let Some(now) = row.claimed_at {
            self.prune_idempotency(now.as_millisecond())?;
        }
        let id = row.user.as_bytes();
        let (rows, bytes) = self.idempotency_use(id)?;
        let full = bytes + row.value.len() as u64 > IDEMPOTENCY_BYTES;
        let value = row.withheld.as_ref().filter(|_| full).unwrap_or(&row.value);
        let (expiry, length) = (row.expires_at.as_millisecond(), value.len() as u64);
        self.tables.idempotency.insert((id, row.key.as_str()), value.as_slice())?;
        self.tables.expiries.insert((expiry, id, row.key.as_str()), ())?;
        self.tables.user_expiries.insert((id, expiry, row.key.as_str()), length)?;
        self.tables.idempotency_use.insert(id, (rows + 1, bytes + length))?;
        if rows >= IDEMPOTENCY_ROWS { self.remove_oldest_idempotency(row) } else { Ok(()) }
    }

    fn remove_idempotency(&mut self, user: UserId, key: &str) -> Outcome {
        if let Some(stored) = self.idempotency(user, key)? {
            self.forget_idempotency(stored.expires_at.as_millisecond(), user.as_bytes(), key)?;
        }
        Ok(())
    }

    /// Makes room for the row that was just written.
    fn remove_oldest_idempotency(&mut self, written: &IdempotencyRow) -> Outcome {
        let id = written.user.as_bytes();
        let oldest = self.tables.user_expiries.range((id, i64::MIN, "")..)?.next().transpose()?;
        let Some((expiry, key)) = oldest.map(|(row, _)| (row.value().1, row.value().2.to_owned())) else {
            return Ok(());
        };
        if key == written.key { Ok(()) } else { self.forget_idempotency(expiry, id, &key) }
    }

    /// Removes a record from all tables that have it. Those of older versions are in fewer.
    fn forget_idempotency(&mut self, expiry: i64, user: &[u8; 16], key: &str) -> Outcome {
        self.tables.expiries.remove((expiry, user, key))?;
        self.tables.idempotency.remove((user, key))?;
        let length = self.tables.user_expiries.remove((user, expiry, key))?.map(|length| length.value());
        if let Some(length) = length {
            let (rows, bytes) = self.idempotency_use(user)?;
            self.tables.idempotency_use.insert(user, (rows.saturating_sub(1), bytes.saturating_sub(length)))?;
        }
        Ok(())
    }

    /// Rows and bytes of a user's idempotency records.
    fn idempotency_use(&self, user: &[u8; 16]) -> Outcome<(u64, u64)> {
        Ok(self.tables.idempotency_use.get(user)?.map_or((0, 0), |used| used.value()))
    }

    /// Removes some of the records that have expired by `now`, in milliseconds since 1970.
    fn prune_idempotency(&mut self, now: i64) -> Outcome {
        for _ in 0..PRUNED_PER_CLAIM {
            let Some((oldest, _)) = self.tables.expiries.first()? else { break };
            let (expiry, user, key) = oldest.value();
            let (user, key) = (*user, key.to_owned());
            drop(oldest);
            if expiry > now {
                break;
            }
            self.forget_idempotency(expiry, &user, &key)?;
        }
        Ok(())
    }

    fn idempotency(&self, user: UserId, key: &str) -> Outcome<Option<IdempotencyRecord>> {
        let row = joined(user.as_bytes(), key.as_bytes());
        let value = self.tables.idempotency.get((user.as_bytes(), key))?;
        Ok(value.map(|value| idempotency_place(&row).decode(value.value())).transpose()?)
    }

    fn stored(&self, agent: AgentId) -> Outcome<Option<Stored>> {
        let value = self.tables.agents.get(agent.as_bytes())?;
        Ok(value.map(|value| agent_place(agent.as_bytes()).decode(value.value())).transpose()?)
    }

    fn port_of(&self, agent: AgentId) -> Outcome<Option<HostPort>> {
        let Some(port) = self.tables.agent_ports.get(agent.as_bytes())? else { return Ok(None) };
        let place = Place { table: "agent-ports", key: agent.as_bytes() };
        Ok(Some(HostPort::try_from(port.value()).map_err(|_| place.corrupt())?))
    }

    fn hash_of(&self, user: UserId, key: KeyId) -> Outcome<Option<[u8; 32]>> {
        Ok(self.tables.user_keys.get((user.as_bytes(), key.as_bytes()))?.map(|hash| *hash.value()))
    }

    /// The user's agents, counted up to `limit`.
    fn count_agents(&self, user: UserId, limit: usize) -> Outcome<usize> {
        let id = user.as_bytes();
        let mut count = 0;
        for row in self.tables.owners.range((id, FIRST)..=(id, LAST))?.take(limit) {
            row?;
            count += 1;
        }
        Ok(count)
    }
}

pub(super) fn ensure(holds: bool, conflict: Conflict) -> Outcome {
    if holds { Ok(()) } else { Err(conflict.into()) }
}

/// Drops an old one where there are more than so many: ids begin with the time at which they were made.
pub(super) fn keep_newest(deleted: &mut Table<'_, Id, i64>, most: u64) -> Outcome {
    if deleted.len()? > most {
        deleted.pop_first()?;
    }
    Ok(())
}
