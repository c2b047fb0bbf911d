//! Memory in SQLite, with a table of search terms of its own.
//!
//! FTS5 would find words as well, but it ranks by reading every note that has one of them, has no index by owner, and
//! takes a sentence without blanks for one word. The table `terms` has one row per term and note, ordered by scope (owner
//! and kind), so that a search reads a bounded number of rows whatever the question and however many notes there are.

mod schema;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::rank::{self, QUERY_TERMS, Tally};
use super::{Backend, Entry, Kind, MemoryError, Note, Owner, session_of, terms};
use crate::domain::Timestamp;

/// Another process that looks into the database holds it only for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that are kept of all owners together, and of one person of a channel; the oldest make room.
const SAID_LIMIT: usize = 10_000;
const SAID_BY_STRANGER: usize = 1_000;
/// Looking for surplus messages costs more than storing one, so that it is done once in so many messages.
const TRIM_EVERY: i64 = 64;
/// Distinct terms of one note that are indexed.
const NOTE_TERMS: usize = 1_000;
/// Notes that are read for one term in one scope, newest first, and for one term in all scopes.
const PER_TERM: usize = 150;
const PER_TERM_IN_ALL: usize = 1_000;
/// A search that takes longer ranks what it has found so far: the disk may be slow, and an answer waits.
const DEADLINE: Duration = Duration::from_millis(250);

pub(super) struct Sqlite {
    path: PathBuf,
    /// Empty until first needed, and again after it could not be opened: the disk may have room tomorrow.
    connection: Mutex<Option<Connection>>,
}

impl Sqlite {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::new(None) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, MemoryError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match slot.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        Ok(work(slot.insert(connection))?)
    }

    fn open(&self) -> Result<Connection, MemoryError> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        schema::bring_up_to_date(&mut connection)?;
        Ok(connection)
    }
}

impl Backend for Sqlite {
    fn store(&self, note: &Note) -> Result<(), MemoryError> {
        self.with(|connection| {
            // What was stored on purpose is on the disk when that is said; a message may be lost with the power, though
            // not with the process.
            let synchronous = if note.kind == Kind::Said { "normal" } else { "full" };
            connection.pragma_update(None, "synchronous", synchronous)?;
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            put(&transaction, note)?;
            if note.kind == Kind::Said && transaction.last_insert_rowid() % TRIM_EVERY == 0 {
                trim(&transaction, None, SAID_LIMIT)?;
                if note.owner.is_stranger() {
                    trim(&transaction, Some(&note.owner), SAID_BY_STRANGER)?;
                }
            }
            transaction.commit()
        })
    }

    fn recall(&self, query: &str, owners: &[Owner], limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let wanted = terms::query(query, QUERY_TERMS);
        if wanted.is_empty() {
            return Ok(vec![]);
        }
        self.with(|connection| {
            let scopes = match owners {
                [] => None,
                owners => Some(scopes_of(connection, owners)?),
            };
            let tally = match_terms(connection, &wanted, scopes.as_deref())?;
            read_best(connection, tally, limit)
        })
    }

    fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM notes JOIN scopes ON scopes.id = scope
                 WHERE ?1 IS NULL OR category = ?1 ORDER BY stored_at DESC, notes.id DESC LIMIT ?2"
            ))?;
            statement.query_map(params![category, limit as i64], entry)?.collect()
        })
    }

    fn forget(&self, key: &str, owner: Option<&Owner>) -> Result<bool, MemoryError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let ids: Vec<i64> = transaction
                .prepare_cached(
                    "SELECT notes.id FROM notes JOIN scopes ON scopes.id = scope WHERE key = ?1 AND (?2 IS NULL OR owner = ?2)",
                )?
                .query_map(params![key, owner.map(Owner::as_str)], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for id in &ids {
                remove(&transaction, *id)?;
            }
            transaction.commit()?;
            Ok(!ids.is_empty())
        })
    }
}

/// Columns of [`entry`].
const COLUMNS: &str = "notes.id, key, content, category, stored_at, owner, kind, terms";

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let owner: String = row.get(5)?;
    Ok(Entry {
        id: row.get::<_, i64>(0)?.to_string(),
        key: row.get(1)?,
        content: row.get(2)?,
        category: row.get(3)?,
        timestamp: Timestamp::from_microsecond(row.get(4)?).unwrap_or_default(),
        session_id: session_of(&owner),
        score: None,
        owner,
        kind: Kind::parse(&row.get::<_, String>(6)?),
    })
}

/// Stores a note with its terms, in place of the one that its owner has under the same key.
fn put(transaction: &Transaction<'_>, note: &Note) -> rusqlite::Result<()> {
    let former = transaction
        .prepare_cached(
            "SELECT notes.id, content FROM notes JOIN scopes ON scopes.id = scope WHERE key = ?1 AND owner = ?2",
        )?
        .query_map(params![note.key, note.owner.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    for (id, _) in former {
        remove(transaction, id)?;
    }
    let scope = scope(transaction, &note.owner, note.kind)?;
    let terms = terms_of(&note.key, &note.content, note.kind);
    transaction
        .prepare_cached(
            "INSERT INTO notes (key, content, category, stored_at, scope, kind, terms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            note.key,
            note.content,
            note.category,
            note.at.as_microsecond(),
            scope,
            note.kind.as_str(),
            terms.len() as i64
        ])?;
    let id = transaction.last_insert_rowid();
    let mut insert =
        transaction.prepare_cached("INSERT OR IGNORE INTO terms (term, scope, note) VALUES (?1, ?2, ?3)")?;
    for term in terms {
        insert.execute(params![term, scope, id])?;
    }
    Ok(())
}

/// The terms by which a note is found. The key of a message is made up and says nothing.
fn terms_of(key: &str, content: &str, kind: Kind) -> Vec<String> {
    match kind {
        Kind::Said => terms::terms(content, NOTE_TERMS),
        Kind::Told | Kind::Made => terms::terms(&format!("{key}\n{content}"), NOTE_TERMS),
    }
}

fn remove(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    let found = transaction
        .prepare_cached("DELETE FROM notes WHERE id = ?1 RETURNING key, content, kind, scope")?
        .query_row([id], |row| {
            let kind = Kind::parse(&row.get::<_, String>(2)?);
            Ok((terms_of(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?, kind), row.get::<_, i64>(3)?))
        })
        .optional()?;
    let Some((terms, scope)) = found else { return Ok(()) };
    let mut delete = transaction.prepare_cached("DELETE FROM terms WHERE term = ?1 AND scope = ?2 AND note = ?3")?;
    for term in terms {
        delete.execute(params![term, scope, id])?;
    }
    Ok(())
}

/// Removes the oldest messages beyond `keep`, of one owner or of all.
fn trim(transaction: &Transaction<'_>, owner: Option<&Owner>, keep: usize) -> rusqlite::Result<()> {
    let surplus: Vec<i64> = transaction
        .prepare_cached(
            "SELECT notes.id FROM notes JOIN scopes ON scopes.id = scope
             WHERE kind = 'said' AND (?1 IS NULL OR owner = ?1) ORDER BY stored_at DESC LIMIT -1 OFFSET ?2",
        )?
        .query_map(params![owner.map(Owner::as_str), keep as i64], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    surplus.into_iter().try_for_each(|id| remove(transaction, id))
}

/// The number of an owner's notes of a kind, made where there is none.
fn scope(transaction: &Transaction<'_>, owner: &Owner, kind: Kind) -> rusqlite::Result<i64> {
    let on_purpose = kind.on_purpose();
    transaction
        .prepare_cached("INSERT OR IGNORE INTO scopes (owner, on_purpose) VALUES (?1, ?2)")?
        .execute(params![owner.as_str(), on_purpose])?;
    transaction
        .prepare_cached("SELECT id FROM scopes WHERE owner = ?1 AND on_purpose = ?2")?
        .query_row(params![owner.as_str(), on_purpose], |row| row.get(0))
}

fn scopes_of(connection: &Connection, owners: &[Owner]) -> rusqlite::Result<Vec<i64>> {
    let mut scopes = Vec::new();
    let mut statement = connection.prepare_cached("SELECT id FROM scopes WHERE owner = ?1")?;
    for owner in owners {
        for id in statement.query_map([owner.as_str()], |row| row.get(0))? {
            scopes.push(id?);
        }
    }
    Ok(scopes)
}

/// Reads for each term the newest notes that have it, and adds up what the terms say.
fn match_terms(connection: &Connection, wanted: &[String], scopes: Option<&[i64]>) -> rusqlite::Result<Tally> {
    let started = Instant::now();
    let (first, last): (Option<i64>, Option<i64>) =
        connection.query_row("SELECT min(id), max(id) FROM notes", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let mut in_scope = connection
        .prepare_cached("SELECT note FROM terms WHERE term = ?1 AND scope = ?2 ORDER BY note DESC LIMIT ?3")?;
    let mut in_all = connection.prepare_cached("SELECT note FROM terms WHERE term = ?1 LIMIT ?2")?;
    let all = (last - first + 1) as f64;
    let mut tally = Tally::default();
    for term in wanted {
        let mut notes: Vec<i64> = Vec::new();
        let mut estimate = 0.0;
        match scopes {
            None => {
                notes.extend(
                    in_all
                        .query_map(params![term, PER_TERM_IN_ALL as i64], |row| row.get::<_, i64>(0))?
                        .collect::<Result<Vec<_>, _>>()?,
                );
                estimate = notes.len() as f64;
            }
            Some(scopes) => {
                for scope in scopes {
                    let found = in_scope
                        .query_map(params![term, scope, PER_TERM as i64], |row| row.get::<_, i64>(0))?
                        .collect::<Result<Vec<_>, _>>()?;
                    estimate += how_many(&found, first, last);
                    notes.extend(found);
                }
            }
        }
        let weight = rank::weight(estimate, all.max(estimate));
        notes.into_iter().for_each(|note| tally.add(note, weight));
        if started.elapsed() > DEADLINE {
            break;
        }
    }
    Ok(tally)
}

/// How many notes have a term: counted, or where only the newest were read, as many as if the others lay as densely.
fn how_many(newest: &[i64], first: i64, last: i64) -> f64 {
    let count = newest.len() as f64;
    match newest.last() {
        Some(oldest) if newest.len() == PER_TERM => count * (last - first + 1) as f64 / (last - oldest + 1) as f64,
        _ => count,
    }
}

/// Reads the notes that matched best, and orders them by all that counts.
fn read_best(connection: &Connection, tally: Tally, limit: usize) -> rusqlite::Result<Vec<Entry>> {
    /// Notes that are read for one that is wanted: their length and kind may change the order.
    const READ: usize = 4;
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM notes JOIN scopes ON scopes.id = scope WHERE notes.id = ?1"))?;
    let mut found = Vec::new();
    for (id, matched) in tally.best(limit.saturating_mul(READ)) {
        let note = statement.query_row([id], |row| Ok((entry(row)?, row.get::<_, i64>(7)?))).optional()?;
        let Some((mut entry, terms)) = note else { continue };
        entry.score = Some(rank::score(matched, usize::try_from(terms).unwrap_or_default(), entry.kind.on_purpose()));
        found.push(entry);
    }
    // Stable: of equals the newest stays first.
    found.sort_by(|a: &Entry, b| b.score.unwrap_or_default().total_cmp(&a.score.unwrap_or_default()));
    found.truncate(limit);
    Ok(found)
}

#[cfg(test)]
mod tests;
