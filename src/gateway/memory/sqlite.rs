//! Memory in SQLite, with an FTS5 index that triggers keep in step.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Backend, CONVERSATION, CONVERSATION_LIMIT, Entry, MemoryError, Note, words};
use crate::domain::Timestamp;

/// Another process that looks into the database holds it only for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Looking for surplus conversation reads all of it, so that it is done once in so many messages.
const TRIM_EVERY: i64 = 64;
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE memories (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        content TEXT NOT NULL,
        category TEXT NOT NULL,
        stored_at INTEGER NOT NULL
    );
    CREATE INDEX memories_by_time ON memories (category, stored_at);
    CREATE VIRTUAL TABLE memories_words USING fts5 (key, content, content = 'memories', content_rowid = 'id');
    CREATE TRIGGER memories_added AFTER INSERT ON memories BEGIN
        INSERT INTO memories_words (rowid, key, content) VALUES (new.id, new.key, new.content);
    END;
    CREATE TRIGGER memories_removed AFTER DELETE ON memories BEGIN
        INSERT INTO memories_words (memories_words, rowid, key, content)
        VALUES ('delete', old.id, old.key, old.content);
    END;
    CREATE TRIGGER memories_changed AFTER UPDATE ON memories BEGIN
        INSERT INTO memories_words (memories_words, rowid, key, content)
        VALUES ('delete', old.id, old.key, old.content);
        INSERT INTO memories_words (rowid, key, content) VALUES (new.id, new.key, new.content);
    END;
    PRAGMA user_version = 1;
";

pub(super) struct Sqlite {
    path: PathBuf,
    /// Empty until first needed, and again after it could not be opened: the disk may have room tomorrow.
    connection: Mutex<Option<Connection>>,
}

impl Sqlite {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::new(None) }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, MemoryError> {
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
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version < SCHEMA_VERSION {
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
        }
        Ok(connection)
    }
}

impl Backend for Sqlite {
    fn store(&self, note: &Note) -> Result<(), MemoryError> {
        self.with(|connection| {
            // What was stored on purpose is on the disk when that is said; a message that was overheard may be lost with
            // the power, though not with the process.
            let synchronous = if note.category == CONVERSATION { "normal" } else { "full" };
            connection.pragma_update(None, "synchronous", synchronous)?;
            connection.execute(
                "INSERT INTO memories (key, content, category, stored_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (key) DO UPDATE SET content = ?2, category = ?3, stored_at = ?4",
                params![note.key, note.content, note.category, note.at.as_microsecond()],
            )?;
            if note.category == CONVERSATION && connection.last_insert_rowid() % TRIM_EVERY == 0 {
                connection.execute(
                    "DELETE FROM memories WHERE id IN (SELECT id FROM memories WHERE category = ?1
                     ORDER BY stored_at DESC LIMIT -1 OFFSET ?2)",
                    params![CONVERSATION, CONVERSATION_LIMIT as i64],
                )?;
            }
            Ok(())
        })
    }

    fn recall(&self, query: &str, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        // Each word is quoted, so that none of them is read as an operator.
        let query = words(query).iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" OR ");
        if query.is_empty() {
            return Ok(vec![]);
        }
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT m.id, m.key, m.content, m.category, m.stored_at, -bm25(memories_words) AS score
                 FROM memories_words JOIN memories m ON m.id = memories_words.rowid
                 WHERE memories_words MATCH ?1 ORDER BY score DESC, m.stored_at DESC LIMIT ?2",
            )?;
            statement.query_map(params![query, limit as i64], entry)?.collect()
        })
    }

    fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, key, content, category, stored_at, NULL FROM memories
                 WHERE ?1 IS NULL OR category = ?1 ORDER BY stored_at DESC, id DESC LIMIT ?2",
            )?;
            statement.query_map(params![category, limit as i64], entry)?.collect()
        })
    }

    fn forget(&self, key: &str) -> Result<bool, MemoryError> {
        self.with(|connection| {
            let removed = connection
                .query_row("DELETE FROM memories WHERE key = ?1 RETURNING id", [key], |row| row.get::<_, i64>(0))
                .optional()?;
            Ok(removed.is_some())
        })
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get::<_, i64>(0)?.to_string(),
        key: row.get(1)?,
        content: row.get(2)?,
        category: row.get(3)?,
        timestamp: Timestamp::from_microsecond(row.get(4)?).unwrap_or_default(),
        session_id: None,
        score: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_hold_a_database_is_an_error_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory/memory.db");
        std::fs::write(folder.path().join("memory"), "a file in the way").unwrap();
        let memory = Sqlite::new(path);
        assert!(memory.list(None, 1).is_err());
        std::fs::remove_file(folder.path().join("memory")).unwrap();
        assert!(memory.list(None, 1).unwrap().is_empty());
    }

    #[test]
    fn old_conversation_makes_room_and_notes_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Sqlite::new(folder.path().join("memory.db"));
        let note = |key: &str, category: &str, at: i64| Note {
            key: key.into(),
            content: "x".into(),
            category: category.into(),
            at: Timestamp::from_second(at).unwrap(),
        };
        memory.store(&note("keep", "core", 0)).unwrap();
        memory
            .with(|connection| {
                connection.execute(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                     INSERT INTO memories (key, content, category, stored_at) SELECT 'c' || i, 'x', ?2, i FROM n",
                    params![CONVERSATION_LIMIT as i64, CONVERSATION],
                )
            })
            .unwrap();
        for number in 0..TRIM_EVERY {
            memory.store(&note(&format!("new {number}"), CONVERSATION, 1_700_000_000 + number)).unwrap();
        }
        let kept = memory.list(Some(CONVERSATION), 20_000).unwrap();
        assert!((CONVERSATION_LIMIT..CONVERSATION_LIMIT + TRIM_EVERY as usize).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[0].key, format!("new {}", TRIM_EVERY - 1));
        assert!(!kept.iter().any(|entry| entry.key == "c1"));
        assert_eq!(memory.list(Some("core"), 10).unwrap().len(), 1);
    }
}
