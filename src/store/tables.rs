//! The tables. A name ends in the version of its types: another layout is another table, reached by a migration.
//!
//! ```text
//! agents        agent            → record        the agent without its port
//! ports         port             → agent         the truth about ports
//! agent-ports   agent            → port          the same, the other way round
//! slugs         slug             → agent
//! owners        (user, agent)    → ()            counts a user's agents
//! events        (agent, seq)     → log entry     the newest of each agent
//! event-log     offset           → event         of all agents, those that are gone as well
//! deleted       agent            → ms            when its deletion ended: what is left of it may be removed
//! users         user             → record
//! keys          key hash         → record
//! user-keys     (user, key)      → key hash
//! sessions      token hash       → record
//! user-sessions (user, session)  → token hash
//! tickets       secret's hash    → record        invitations and one-time links
//! usage         (agent, slot)    → block         figures over time, in rings
//! audit         offset           → record        who did what
//! idempotency   (user, key)      → record
//! expiries      (ms, user, key)  → ()            the same by their end
//! user-expiries (user, ms, key)  → bytes         the same by user, with their size
//! idempotency-use  user          → (rows, bytes) what each user has of them
//! ```

use redb::{ReadTransaction, Table, TableDefinition, TableError, WriteTransaction};

use super::codec::Place;

type Definition<K, V> = TableDefinition<'static, K, V>;
pub(super) type Id = &'static [u8; 16];
pub(super) type Hash = &'static [u8; 32];
pub(super) type Value = &'static [u8];

pub(super) const META: Definition<&str, Value> = TableDefinition::new("meta");
pub(super) const AGENTS: Definition<Id, Value> = TableDefinition::new("agents/v1");
pub(super) const PORTS: Definition<u16, Id> = TableDefinition::new("ports/v1");
pub(super) const AGENT_PORTS: Definition<Id, u16> = TableDefinition::new("agent-ports/v1");
pub(super) const SLUGS: Definition<&str, Id> = TableDefinition::new("slugs/v1");
pub(super) const OWNERS: Definition<(Id, Id), ()> = TableDefinition::new("owners/v1");
pub(super) const EVENTS: Definition<(Id, u64), Value> = TableDefinition::new("events/v1");
pub(super) const EVENT_LOG: Definition<u64, Value> = TableDefinition::new("event-log/v1");
pub(super) const DELETED: Definition<Id, i64> = TableDefinition::new("deleted/v1");
pub(super) const USERS: Definition<Id, Value> = TableDefinition::new("users/v1");
pub(super) const KEYS: Definition<Hash, Value> = TableDefinition::new("keys/v1");
pub(super) const USER_KEYS: Definition<(Id, Id), Hash> = TableDefinition::new("user-keys/v1");
pub(super) const SESSIONS: Definition<Hash, Value> = TableDefinition::new("sessions/v1");
pub(super) const USER_SESSIONS: Definition<(Id, Id), Hash> = TableDefinition::new("user-sessions/v1");
pub(super) const TICKETS: Definition<Hash, Value> = TableDefinition::new("tickets/v1");
pub(super) const USAGE: Definition<(Id, u16), Value> = TableDefinition::new("usage/v1");
pub(super) const AUDIT: Definition<u64, Value> = TableDefinition::new("audit/v1");
pub(super) const IDEMPOTENCY: Definition<(Id, &str), Value> = TableDefinition::new("idempotency/v1");
pub(super) const EXPIRIES: Definition<(i64, Id, &str), ()> = TableDefinition::new("expiries/v1");
pub(super) const USER_EXPIRIES: Definition<(Id, i64, &str), u64> = TableDefinition::new("user-expiries/v1");
pub(super) const IDEMPOTENCY_USE: Definition<Id, (u64, u64)> = TableDefinition::new("idempotency-use/v1");

/// The least and greatest id, to range over all rows of one owner.
pub(super) const FIRST: &[u8; 16] = &[0; 16];
pub(super) const LAST: &[u8; 16] = &[0xff; 16];

macro_rules! tables {
    ($($field:ident: $definition:ident($key:ty, $value:ty)),+ $(,)?) => {
        /// Every table, opened once for a transaction.
        pub(super) struct Tables<'txn> {
            $(pub(super) $field: Table<'txn, $key, $value>),+
        }

        impl<'txn> Tables<'txn> {
            /// Opens all tables; those that are not there yet come into being.
            pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, TableError> {
                Ok(Self { $($field: txn.open_table($definition)?),+ })
            }
        }

        /// Writes every row of the one into the other, which is new.
        pub(super) fn copy_rows(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), redb::Error> {
            use redb::ReadableTable;
            $(match from.open_table($definition) {
                Ok(source) => {
                    let mut target = to.open_table($definition)?;
                    for row in source.iter()? {
                        let (key, value) = row?;
                        target.insert(key.value(), value.value())?;
                    }
                }
                // Newer than the store's last write: it comes into being with the next one.
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            })+
            Ok(())
        }

        /// The number of rows of each table, by its name.
        pub(super) fn count_rows(txn: &ReadTransaction) -> Result<Vec<(&'static str, u64)>, redb::Error> {
            use redb::ReadableTableMetadata;
            Ok(vec![$((stringify!($field), match txn.open_table($definition) {
                Ok(table) => table.len()?,
                // Newer than the store's last write: it comes into being with the next one.
                Err(TableError::TableDoesNotExist(_)) => 0,
                Err(error) => return Err(error.into()),
            })),+])
        }
    };
}

tables! {
    meta: META(&'static str, Value),
    agents: AGENTS(Id, Value),
    ports: PORTS(u16, Id),
    agent_ports: AGENT_PORTS(Id, u16),
    slugs: SLUGS(&'static str, Id),
    owners: OWNERS((Id, Id), ()),
    events: EVENTS((Id, u64), Value),
    event_log: EVENT_LOG(u64, Value),
    deleted: DELETED(Id, i64),
    users: USERS(Id, Value),
    keys: KEYS(Hash, Value),
    user_keys: USER_KEYS((Id, Id), Hash),
    sessions: SESSIONS(Hash, Value),
    user_sessions: USER_SESSIONS((Id, Id), Hash),
    tickets: TICKETS(Hash, Value),
    usage: USAGE((Id, u16), Value),
    audit: AUDIT(u64, Value),
    idempotency: IDEMPOTENCY((Id, &'static str), Value),
    expiries: EXPIRIES((i64, Id, &'static str), ()),
    user_expiries: USER_EXPIRIES((Id, i64, &'static str), u64),
    idempotency_use: IDEMPOTENCY_USE(Id, (u64, u64)),
}

/// Empties every table with something of agents in it. Answers that are kept for a retry name agents as well. Browsers that
/// are signed in to the original are not signed in to its copy.
pub(super) fn forget_agents(txn: &WriteTransaction) -> Result<(), TableError> {
    txn.delete_table(AGENTS)?;
    txn.delete_table(PORTS)?;
    txn.delete_table(AGENT_PORTS)?;
    txn.delete_table(SLUGS)?;
    txn.delete_table(OWNERS)?;
    txn.delete_table(EVENTS)?;
    txn.delete_table(DELETED)?;
    txn.delete_table(IDEMPOTENCY)?;
    txn.delete_table(EXPIRIES)?;
    txn.delete_table(USER_EXPIRIES)?;
    txn.delete_table(IDEMPOTENCY_USE)?;
    txn.delete_table(SESSIONS)?;
    txn.delete_table(USER_SESSIONS)?;
    txn.delete_table(TICKETS)?;
    // Made again, empty.
    Tables::open(txn).map(drop)
}

pub(super) const CANARY: Place<'_> = Place { table: "meta", key: b"canary" };

pub(super) fn agent_place(agent: &[u8; 16]) -> Place<'_> {
    Place { table: "agents", key: agent }
}

pub(super) fn user_place(user: &[u8; 16]) -> Place<'_> {
    Place { table: "users", key: user }
}

pub(super) fn key_place(hash: &[u8; 32]) -> Place<'_> {
    Place { table: "keys", key: hash }
}

pub(super) fn usage_place(key: &[u8]) -> Place<'_> {
    Place { table: "usage", key }
}

pub(super) fn session_place(hash: &[u8; 32]) -> Place<'_> {
    Place { table: "sessions", key: hash }
}

pub(super) fn ticket_place(hash: &[u8; 32]) -> Place<'_> {
    Place { table: "tickets", key: hash }
}

/// The key of a row whose key has two parts, as the checksum and error messages take it.
pub(super) fn joined(first: &[u8; 16], second: &[u8]) -> Vec<u8> {
    [first.as_slice(), second].concat()
}

pub(super) fn event_place(key: &[u8]) -> Place<'_> {
    Place { table: "events", key }
}

pub(super) fn idempotency_place(key: &[u8]) -> Place<'_> {
    Place { table: "idempotency", key }
}
