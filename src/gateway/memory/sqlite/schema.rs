//! The tables, and how those of earlier versions become them.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::super::{CONVERSATION, Kind, MemoryError, Note, Owner, owner_by_key};
use crate::domain::Timestamp;

/// Version 1 had one table `memories` without owners and an FTS5 index. A change of [`terms`](super::super::terms) that
/// splits texts otherwise needs a new version, too: the rows of old notes are found by their old terms.
const VERSION: i64 = 2;
const TABLES: &str = "
    CREATE TABLE scopes (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        on_purpose INTEGER NOT NULL,
        UNIQUE (owner, on_purpose)
    );
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        content TEXT NOT NULL,
        category TEXT NOT NULL,
        stored_at INTEGER NOT NULL,
        scope INTEGER NOT NULL REFERENCES scopes (id),
        kind TEXT NOT NULL,
        terms INTEGER NOT NULL
    );
    CREATE INDEX notes_by_key ON notes (key);
    CREATE INDEX notes_by_time ON notes (stored_at);
    CREATE INDEX notes_by_kind ON notes (kind, stored_at);
    CREATE TABLE terms (
        term TEXT NOT NULL,
        scope INTEGER NOT NULL,
        note INTEGER NOT NULL,
        PRIMARY KEY (term, scope, note)
    ) WITHOUT ROWID;
";

/// Makes the tables, or those of an earlier version into today's, in one transaction.
pub(super) fn bring_up_to_date(connection: &mut Connection) -> Result<(), MemoryError> {
    let version =
        |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    match version(connection)? {
        VERSION => return Ok(()),
        newer if newer > VERSION => return Err(MemoryError::TooNew),
        _ => {}
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited.
    let found = version(&transaction)?;
    if found < VERSION {
        transaction.execute_batch(TABLES)?;
        if found == 1 {
            migrate_from_1(&transaction)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}

fn migrate_from_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    {
        let mut old = transaction.prepare("SELECT key, content, category, stored_at FROM memories ORDER BY id")?;
        let mut rows = old.query([])?;
        while let Some(row) = rows.next()? {
            let (key, category): (String, String) = (row.get(0)?, row.get(2)?);
            // What a schedule asked was never said by anybody.
            if category == CONVERSATION && key.starts_with("cron_msg_") {
                continue;
            }
            super::put(transaction, &note(key, row.get(1)?, category, row.get(3)?))?;
        }
    }
    transaction.execute_batch(
        "DROP TRIGGER memories_added; DROP TRIGGER memories_removed; DROP TRIGGER memories_changed;
         DROP TABLE memories_words; DROP TABLE memories;",
    )
}

/// A note of version 1.
fn note(key: String, content: String, category: String, stored_at: i64) -> Note {
    let at = Timestamp::from_microsecond(stored_at).unwrap_or_default();
    if category != CONVERSATION {
        return Note { key, content, category, at, owner: Owner::agent(), kind: Kind::Told };
    }
    let source = key.split_once("_msg_").map_or("old", |(source, _)| source);
    Note { at, ..Note::said(source, owner_by_key(&key), &content) }
}

/// A database as version 1 made it.
#[cfg(test)]
pub(super) fn make_version_1(connection: &Connection, notes: &[(&str, &str, &str)]) {
    use rusqlite::params;

    connection
        .execute_batch(
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, content TEXT NOT NULL,
                 category TEXT NOT NULL, stored_at INTEGER NOT NULL);
             CREATE INDEX memories_by_time ON memories (category, stored_at);
             CREATE VIRTUAL TABLE memories_words USING fts5 (key, content, content = 'memories', content_rowid = 'id');
             CREATE TRIGGER memories_added AFTER INSERT ON memories BEGIN
                 INSERT INTO memories_words (rowid, key, content) VALUES (new.id, new.key, new.content); END;
             CREATE TRIGGER memories_removed AFTER DELETE ON memories BEGIN
                 INSERT INTO memories_words (memories_words, rowid, key, content)
                 VALUES ('delete', old.id, old.key, old.content); END;
             CREATE TRIGGER memories_changed AFTER UPDATE ON memories BEGIN
                 INSERT INTO memories_words (memories_words, rowid, key, content)
                 VALUES ('delete', old.id, old.key, old.content);
                 INSERT INTO memories_words (rowid, key, content) VALUES (new.id, new.key, new.content); END;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    for (second, (key, content, category)) in notes.iter().enumerate() {
        let at = (1_700_000_000 + second as i64) * 1_000_000;
        connection
            .execute(
                "INSERT INTO memories (key, content, category, stored_at) VALUES (?1, ?2, ?3, ?4)",
                params![key, content, category, at],
            )
            .unwrap();
    }
}
