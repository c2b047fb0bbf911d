//! Which version of the tables a store has, and how an older one becomes the present one.

use redb::{Database, ReadableDatabase, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::domain::{InstallationId, Timestamp};

use super::codec::Place;
use super::error::from_redb;
use super::tables::{self, AUDIT, EVENT_LOG, META, SESSIONS, TICKETS, Tables, USAGE, USER_SESSIONS};

/// What a store says of itself. This layout never changes, or an older program could not read that it must not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) schema: u32,
    pub(super) installation: InstallationId,
    pub(super) created_at: Timestamp,
}

/// Brings a store from one version to the next.
pub(super) type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The migration at index `n` makes version `n + 2` of version `n + 1`.
pub(super) const MIGRATIONS: &[Migration] = &[add_event_log, add_sign_in, add_audit, add_usage];

/// Version 2: the event log. An older program would change agents without writing it.
fn add_event_log(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(EVENT_LOG)?;
    Ok(())
}

/// Version 3: people who sign in. An older program would leave a removed user's sessions behind.
fn add_sign_in(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(SESSIONS)?;
    txn.open_table(USER_SESSIONS)?;
    txn.open_table(TICKETS)?;
    Ok(())
}

/// Version 4: the audit. An older program would change things without writing it.
fn add_audit(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(AUDIT)?;
    Ok(())
}

/// Version 5: figures over time. An older program would leave those of a removed agent behind.
fn add_usage(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(USAGE)?;
    Ok(())
}

/// Why a store's tables cannot be used.
#[derive(Debug)]
pub(super) enum SchemaError {
    Newer {
        found: u32,
        known: u32,
    },
    /// A redb file, but not one of ours.
    Foreign,
    Damaged,
    Medium(redb::Error),
}

from_redb!(SchemaError);

const IDENTITY: Place<'_> = Place { table: "meta", key: b"store" };

/// Makes the tables of a new store.
pub(super) fn found(
    db: &Database,
    installation: InstallationId,
    created_at: Timestamp,
    migrations: &[Migration],
) -> Result<(), SchemaError> {
    let identity = Identity { schema: newest(migrations), installation, created_at };
    let txn = begin(db)?;
    Tables::open(&txn)?.meta.insert("store", IDENTITY.encode(&identity).as_slice())?;
    Ok(txn.commit()?)
}

/// Reads a store's identity and migrates it if it is older than this program. All in one transaction: a crash leaves
/// the old version or the new one.
pub(super) fn upgrade(db: &Database, migrations: &[Migration]) -> Result<Identity, SchemaError> {
    let mut identity = identity(db)?;
    let known = newest(migrations);
    if identity.schema > known {
        return Err(SchemaError::Newer { found: identity.schema, known });
    }
    if identity.schema < known {
        let txn = begin(db)?;
        for migration in &migrations[identity.schema.saturating_sub(1) as usize..] {
            migration(&txn)?;
        }
        identity.schema = known;
        txn.open_table(META)?.insert("store", IDENTITY.encode(&identity).as_slice())?;
        txn.commit()?;
    }
    Ok(identity)
}

/// Makes a copy of a store an installation of its own, in one transaction. What belongs to agents is forgotten: they run on
/// as the original's, and two owners of one instance would fight over it.
pub(super) fn separate(
    db: &Database,
    identity: Identity,
    installation: InstallationId,
) -> Result<Identity, SchemaError> {
    let identity = Identity { installation, ..identity };
    let txn = begin(db)?;
    tables::forget_agents(&txn)?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert("store", IDENTITY.encode(&identity).as_slice())?;
        // It is bound to the installation; without anything sealed the next start makes another one.
        meta.remove("canary")?;
    }
    txn.commit()?;
    Ok(identity)
}

fn identity(db: &Database) -> Result<Identity, SchemaError> {
    let meta = match db.begin_read()?.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Err(SchemaError::Foreign),
        Err(error) => return Err(error.into()),
    };
    let value = meta.get("store")?.ok_or(SchemaError::Foreign)?;
    IDENTITY.decode(value.value()).map_err(|_| SchemaError::Damaged)
}

fn newest(migrations: &[Migration]) -> u32 {
    u32::try_from(migrations.len() + 1).unwrap_or(u32::MAX)
}

/// A durable transaction in two phases.
///
/// Two phases, although one would be faster: with one, redb cannot tell a page that decayed from one that a crash tore,
/// and answers both by going back to the commit before, which loses what was acknowledged and says nothing. With two, a
/// crash never harms the last commit, and decay is an error. The price is one sync more for each commit, which groups
/// share: 12,000 transitions per second instead of 12,800 on a disk with 5,000 syncs per second.
///
/// Without quick repair: it saves time after a crash by trusting the file, and this store reads the whole file anyway
/// when it opens it.
pub(super) fn begin(db: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    txn.set_two_phase_commit(true);
    Ok(txn)
}
